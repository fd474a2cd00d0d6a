//! Sockets: who is let in, and on which worker.
//!
//! Each worker has a listener of its own on every address (SO_REUSEPORT), so that the kernel spreads connections and
//! no thread hands one to another. A listener is bound early, so that a taken port is noticed at once, and opened
//! only when the gateway is ready: until then connections are refused, not kept waiting.

pub mod acme;
pub mod admin;
mod answer;
mod bound;
pub mod connection;
mod http2;
#[doc(hidden)]
pub mod probe;
mod proxy_protocol;
mod redirect;
mod refusal;
pub mod reloads;
mod seldom;
mod socket;
pub mod tls;

use std::{io, sync::Arc, time::Duration};

use tokio::{sync::Semaphore, time::sleep};
use tracing::warn;

use self::{bound::BACKLOG, connection::Worker};
pub use self::{bound::Bound, socket::Listener};
use crate::policy::connection::Door;

/// After a failed `accept`: without file descriptors, trying again at once only burns the processor.
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);

/// Accepts connections until it is told to take no more. `places` is shared by all workers: while none is free, one
/// connection a listener waits here and the others in the kernel's backlog.
///
/// Those that wait in the kernel's queue then are still taken: closing the socket would reset them.
pub async fn accept(listener: Listener, door: Door, places: Arc<Semaphore>, worker: Arc<Worker>) {
    let stop = &worker.tasks.stop;
    let mut left_in_queue = BACKLOG;
    loop {
        let accepted = match stop.closing.run_until_cancelled(listener.accept()).await {
            Some(accepted) => accepted,
            None if left_in_queue == 0 => return,
            None => match listener.queued() {
                Some(accepted) => {
                    left_in_queue -= 1;
                    accepted
                }
                None => return,
            },
        };
        match accepted {
            Ok((stream, peer)) => {
                // Only now: an idle listener must not hold a place that another could fill.
                let place = Arc::clone(&places).acquire_owned();
                let Some(Ok(place)) = stop.hard.run_until_cancelled(place).await else {
                    return;
                };
                let serving = connection::serve(Arc::clone(&worker), stream, peer, door);
                worker.tasks.spawn("connection", async move {
                    serving.await;
                    drop(place);
                });
            }
            Err(error) if is_the_clients(&error) => {}
            Err(error) => {
                warn!(%error, "could not accept a connection");
                sleep(ACCEPT_AGAIN).await;
            }
        }
    }
}

/// It went away before it was accepted.
fn is_the_clients(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::InvalidInput
    )
}
