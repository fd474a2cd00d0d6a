//! What the gateway has to do with a request, decided a second time: from the bytes on the client's connection to the
//! request that its upstream must get, or to a refusal.
//!
//! It is the judge of the property tests (`tests/it/properties.rs`, `decisions.rs`, `framing.rs`) and of the fuzz targets
//! (`fuzz/`). It was written from `docs/` and the RFCs, not from the gateway's sources, and is slow on purpose: it goes
//! through everything, in the order in which one would say it, and copies what it looks at.
//!
//! It is a crate of its own, without dependencies, so that it *can't* call what it judges, nor the libraries that this
//! stands on: the HTTP parsers, the URL type, the tables. Both the gateway's tests and the fuzzers, which have a workspace
//! of their own, depend on it by path.
//!
//! | property | in |
//! |---|---|
//! | one message is read in one way, or refused | [`http1`] |
//! | what was matched is what is forwarded | [`path`], [`decision`] |
//! | the most specific route wins | [`route`] |
//! | no reserved spelling survives, and hop-by-hop fields end here | [`fields`] |
//! | a protected upstream hears from nobody who has not shown a live session | [`credential`], [`decision`] |
//! | a browser is sent nowhere else | [`redirect`] |
//! | an upstream's answer ends in one place, or is none | [`answer`] |
//! | a connection is on the behalf of whom its proxy says | [`proxy_head`] |
//!
//! Not here: anything about time, limits and load; those have tests of their own.

pub mod answer;
pub mod client;
pub mod credential;
pub mod decision;
pub mod fields;
pub mod http1;
pub mod path;
pub mod proxy_head;
pub mod redirect;
pub mod route;
