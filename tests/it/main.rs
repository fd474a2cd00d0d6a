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

// Shared with the fuzz targets.
mod shared;

mod access;
mod account;
mod acme;
mod admin;
mod assertion;
mod assertion_fastapi;
mod assertion_node;
mod bad_input;
mod balancing;
mod better_auth_client;
mod cached_session;
mod calls;
mod cli;
mod cli_test_file;
mod client_certificates;
mod concurrency;
mod cors;
mod crash;
mod credentials;
mod credentials_handover;
mod decisions;
mod dependencies;
mod drain;
mod early_hints;
mod encoded_paths;
mod event_streams;
mod every_problem;
mod exhaustion;
mod expect_continue;
mod explain;
mod explain_routes;
mod fastapi;
mod fixed_answers;
mod forwarded;
mod framing;
mod fresh_routes;
mod grpc;
mod grpc_tls;
mod handover;
mod handover_http2;
mod handover_listeners;
mod happy_eyeballs;
mod header_rules;
mod health_checks;
mod hop_by_hop;
mod http2;
mod http2_conformance;
mod identity_headers;
mod import;
mod ipv6;
mod jwks;
mod large_heads;
mod layers;
mod legacy_passwords;
mod limits;
mod mail_outbox;
mod memory;
mod memory_http2;
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
mod properties;
mod provider_tokens;
mod providers;
mod proxy_protocol;
mod ranges;
mod rate_limits;
mod readme;
mod redirect_listeners;
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
mod silence;
mod sni;
mod snippets;
mod social;
mod social_linking;
mod socket_activation;
mod sql;
mod static_files;
mod streaming;
mod streams;
mod systemd_units;
mod timeouts;
mod tls;
mod trailers;
mod trailers_http2;
mod unix_listeners;
mod upgrade;
mod upstream_asks;
mod upstream_faults;
mod upstream_http2;
mod upstream_limits;
mod upstream_tls;
mod upstream_unix;
mod upstream_wire;
mod verify_email;
mod websocket_conformance;
mod websocket_over_http2;
mod wildcard_hosts;
