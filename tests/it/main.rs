//! Everything that a user or an operator would notice, one file per behaviour, through one harness.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::disallowed_methods,
    reason = "a test that panics names its line; tests read clocks and the environment and start tasks as they like"
)]

mod harness;

mod access;
mod account;
mod acme;
mod admin;
mod bad_input;
mod balancing;
mod better_auth_client;
mod cached_session;
mod cli;
mod cli_test_file;
mod concurrency;
mod cors;
mod crash;
mod credentials;
mod dependencies;
mod drain;
mod encoded_paths;
mod every_problem;
mod explain;
mod fastapi;
mod fixed_answers;
mod forwarded;
mod handover;
mod happy_eyeballs;
mod header_rules;
mod health_checks;
mod hop_by_hop;
mod http2;
mod identity_headers;
mod import;
mod layers;
mod legacy_passwords;
mod limits;
mod mail_outbox;
mod multi_session;
mod oauth_arrival;
mod oauth_attacks;
mod oauth_callback;
mod oauth_flows;
mod oauth_gateways;
mod oauth_id_token_form;
mod oauth_linking;
mod oauth_outage;
mod oauth_secrets;
mod oauth_start;
mod oauth_strangers;
mod oauth_takeover;
mod oauth_tokens;
mod openapi;
mod operator_audit;
mod operator_changes;
mod operator_cli;
mod origin;
mod outliers;
mod paths;
mod prefixes;
mod provider_tokens;
mod providers;
mod rate_limits;
mod readme;
mod redirects;
mod reload;
mod reload_files;
mod reset_password;
mod restart_load;
mod retries;
mod revocation;
mod route_rate_limits;
mod routes;
mod schemathesis;
mod serve;
mod session_places;
mod sessions;
mod shutdown;
mod sign_in;
mod sign_up;
mod snippets;
mod social;
mod social_linking;
mod sql;
mod static_files;
mod streaming;
mod timeouts;
mod upgrade;
mod upstream_faults;
mod upstream_http2;
mod upstream_limits;
mod upstream_tls;
mod upstream_unix;
mod verify_email;
mod wildcard_hosts;
