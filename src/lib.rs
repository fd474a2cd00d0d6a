//! Vestibule: a reverse-proxy auth gateway.
//!
//! A connection is accepted in [`server`]; `server::answer` finds out what every request has and hands it either
//! to [`auth`], which serves the auth API, or to [`proxy::handle`], which forwards it to an [`upstream`]. The two never
//! import each other: what a token means is in [`session`], what is allowed in [`policy`]. [`app`] puts all of it
//! together. Which module may import which is in `ARCHITECTURE.md`, and kept true by a test.
//!
//! | word | means |
//! |---|---|
//! | session token | the secret that a client holds |
//! | token hash | its SHA-256: all that is stored, cached and announced |
//! | identity | who it is: what upstreams are told |
//! | credential | what a request carried, proven or not |
//! | proof | a user showed a method at a time |
//! | permit | authorisation said yes |
//! | client, upstream | who called us, whom we call |
//! | problem | an answer that says no |

pub mod app;
pub mod auth;
pub mod chain;
pub mod cli;
pub mod clock;
pub mod config;
pub mod db;
pub mod dev;
pub mod fields;
pub mod identity;
pub mod lifecycle;
pub mod live;
pub mod mail;
pub mod outbound;
pub mod policy;
pub mod postgres_url;
pub mod problem;
pub mod proxy;
pub mod secret;
pub mod server;
pub mod session;
pub mod telemetry;
pub mod upstream;
