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
pub mod guests;
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

use std::{
    io,
    pin::pin,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::{
    sync::{AcquireError, OwnedSemaphorePermit, Semaphore},
    task::yield_now,
    time::{sleep, timeout},
};
use tracing::warn;

use self::{bound::BACKLOG, connection::Worker};
pub use self::{bound::Bound, socket::Listener};
use crate::{policy::connection::Door, telemetry::Limit};

/// After a failed `accept`: without file descriptors, trying again at once only burns the processor.
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);
/// Newcomers that are taken in a row. While thousands arrive at once, those who are here are served between them, and the
/// others wait in the kernel's backlog rather than in front of everybody's next request.
const IN_A_ROW: usize = 4;
/// While there is no place: how often it is looked for connections that could leave.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Accepts connections until it is told to take no more. `places` is shared by all workers: while none is free, one
/// connection a listener waits here and the others in the kernel's backlog, and idle ones are asked to leave.
///
/// Those that wait in the kernel's queue then are still taken: closing the socket would reset them.
pub async fn accept(listener: Listener, door: Door, places: Arc<Semaphore>, worker: Arc<Worker>) {
    let stop = &worker.tasks.stop;
    let mut left_in_queue = BACKLOG;
    let mut in_a_row = 0;
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
                let place = match Arc::clone(&places).try_acquire_owned() {
                    Ok(place) => place,
                    Err(_) => match stop.hard.run_until_cancelled(place(&places, &worker)).await {
                        Some(Ok(place)) => place,
                        Some(Err(_)) | None => return,
                    },
                };
                let serving = connection::serve(Arc::clone(&worker), stream, peer, door);
                worker.tasks.spawn("connection", async move {
                    serving.await;
                    drop(place);
                });
                in_a_row += 1;
                if in_a_row == IN_A_ROW {
                    in_a_row = 0;
                    // Until the runtime has asked for news from all sockets.
                    yield_now().await;
                }
            }
            Err(error) if is_the_clients(&error) => {}
            Err(error) => {
                worker.guests.make_room();
                warn!(%error, "could not accept a connection");
                sleep(ACCEPT_AGAIN).await;
            }
        }
    }
}

/// A place, once somebody has left.
async fn place(places: &Arc<Semaphore>, worker: &Worker) -> Result<OwnedSemaphorePermit, AcquireError> {
    let stats = &worker.recorder.stats;
    stats.limit(Limit::MaxConnections);
    let mut place = pin!(Arc::clone(places).acquire_owned());
    loop {
        let asked = worker.guests.make_room() as u64;
        stats.made_room.fetch_add(asked, Ordering::Relaxed);
        if let Ok(place) = timeout(LOOK_AGAIN, place.as_mut()).await {
            return place;
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
