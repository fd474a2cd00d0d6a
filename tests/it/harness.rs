//! What the tests stand on: the real gateway on real sockets, a database of its own for each test, an upstream that
//! keeps what it is sent, a mail server, providers to sign in at, a polite client, one that writes bytes, and a browser.

pub(crate) mod authority;
pub(crate) mod backend;
pub(crate) mod browser;
pub(crate) mod canary;
pub(crate) mod certificates;
pub(crate) mod client;
pub(crate) mod database;
pub(crate) mod desk;
pub(crate) mod document;
pub(crate) mod example;
pub(crate) mod frames;
pub(crate) mod gateway;
pub(crate) mod golden;
pub(crate) mod h2_client;
pub(crate) mod mailbox;
pub(crate) mod people;
pub(crate) mod pgbouncer;
pub(crate) mod places_file;
pub(crate) mod program;
pub(crate) mod protocols;
pub(crate) mod provider;
pub(crate) mod raw_client;
pub(crate) mod relay;
pub(crate) mod schemathesis;
pub(crate) mod server;
pub(crate) mod signer;
pub(crate) mod surroundings;
pub(crate) mod upstream;
pub(crate) mod visitor;
pub(crate) mod wire;

use std::{
    panic::Location,
    time::{Duration, Instant},
};

pub(crate) use browser::Browser;
pub(crate) use database::Database;
pub(crate) use gateway::{Gateway, Setup};
pub(crate) use raw_client::RawClient;

/// For what takes milliseconds on a quiet machine.
pub(crate) const SOON: Duration = Duration::from_secs(15);

/// Waits until `condition` holds; fails at the caller's line when it does not within `limit`.
#[track_caller]
pub(crate) fn eventually(limit: Duration, mut condition: impl AsyncFnMut() -> bool) -> impl Future<Output = ()> {
    let caller = Location::caller();
    async move {
        let deadline = Instant::now() + limit;
        while !condition().await {
            assert!(
                Instant::now() < deadline,
                "{caller}: did not come true within {limit:?}"
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}
