//! Whoever wants to use the gateway up does not: what they may have has an end, they are told, and everybody else goes on
//! as before. By the ids of the threat cases: DOS, HASH, and what is about many of something in the others.
//!
//! While each attack goes on, somebody ordinary ([`Control`]) keeps asking and gets every answer. How long they wait for
//! it is not asserted here, where the machine is busy with other tests: `make attack-load` prints it.

mod bodies;
mod connections;
mod descriptors;
mod files;
mod floods;
mod heads;
mod load;
mod memory;
mod parallel;
mod passwords;
mod pipelines;
mod resets;
mod tokens;
mod trailers;
mod upstreams;
mod windows;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::task::JoinHandle;

use crate::harness::{Gateway, RawClient, frames};

/// Somebody ordinary, who keeps asking while others attack.
struct Control {
    over: Arc<AtomicBool>,
    asking: JoinHandle<usize>,
}

impl Control {
    /// On a route that is open to everybody.
    fn start(addr: SocketAddr) -> Self {
        Self::asking(addr, "/public/control", "")
    }

    /// Signed in.
    async fn signed_in(gateway: &Gateway) -> Self {
        let ada = gateway.signed_in("control@example.com").await;
        let cookie = format!("Cookie: {}\r\n", ada.cookie);
        Self::asking(gateway.addr(), "/api/control", &cookie)
    }

    fn asking(addr: SocketAddr, path: &str, fields: &str) -> Self {
        let over = Arc::<AtomicBool>::default();
        let request = format!("GET {path} HTTP/1.1\r\nHost: app.example.com\r\n{fields}\r\n");
        let asking = {
            let over = Arc::clone(&over);
            async move {
                let mut answered = 0;
                let mut client = RawClient::connect(addr).await;
                loop {
                    client.send(&request).await;
                    let answer = client.answer().await;
                    assert_eq!(answer.status(), 200, "{}", answer.text());
                    answered += 1;
                    if over.load(Ordering::Relaxed) {
                        return answered;
                    }
                    // New connections get on as well.
                    if answered % 50 == 0 {
                        client = RawClient::connect(addr).await;
                    }
                    tokio::task::yield_now().await;
                }
            }
        };
        Self {
            over,
            asking: tokio::spawn(asking),
        }
    }

    /// Asks once more, and tells how many answers there were: every one was the right one, or this panics.
    async fn end(self) -> usize {
        self.over.store(true, Ordering::Relaxed);
        self.asking.await.expect("every request was answered")
    }
}

/// How often a limit was reached.
async fn reached(gateway: &Gateway, limit: &str) -> f64 {
    gateway
        .metric(&format!("vestibule_limits_reached_total{{limit=\"{limit}\"}}"))
        .await
}

/// A request of an attacker, whole.
fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: app.example.com\r\n\r\n")
}
