//! A gateway that runs: what may be asked of it, and how it stops in order.

use std::{fmt, net::SocketAddr, path::PathBuf, sync::Arc, thread, time::Duration};

use tokio::{
    signal::unix::Signal,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{reload::Reloader, watch::Watched};
use crate::{
    config::{Config, ConfigErrors},
    lifecycle::Tasks,
    policy::connection::Door,
    server::admin::Admin,
    session::Sessions,
    telemetry::AccessLog,
};

/// Of the grace, when streams have to end at the latest.
const STREAMS_LEAVE_AT: f64 = 0.9;
/// After the hard stop, tasks only have to notice it.
const HARD_STOP_TAKES: Duration = Duration::from_secs(2);
/// What is left of when sessions were last seen: a statement or a few, and Postgres may be away.
const LAST_WRITES_TAKE: Duration = Duration::from_secs(2);

/// A gateway that accepts connections. Dropping it without [`Running::stop`] stops it hard.
pub struct Running {
    pub(super) public: Vec<(SocketAddr, Door)>,
    pub(super) admin_addr: SocketAddr,
    pub(super) tasks: Tasks,
    pub(super) admin: Arc<Admin>,
    pub(super) threads: Vec<thread::JoinHandle<()>>,
    pub(super) reloader: Arc<Reloader>,
    /// The next gateway has the listening sockets, and is ready.
    pub(super) taken_over: CancellationToken,
    pub(super) sessions: Arc<Sessions>,
    /// Flushed when it is dropped, last of all.
    pub(super) _log: Arc<AccessLog>,
}

/// How a gateway ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Ended {
    /// Tasks that were cut off because the grace was over.
    pub cut_off: usize,
}

impl Running {
    /// The first address of `server.listen`, with the port that was given.
    pub fn public_addr(&self) -> SocketAddr {
        self.public.first().map_or(self.admin_addr, |(addr, _)| *addr)
    }

    /// Where clients connect, and what they find there; unix sockets have no such address.
    pub fn public_addrs(&self) -> &[(SocketAddr, Door)] {
        &self.public
    }

    pub const fn admin_addr(&self) -> SocketAddr {
        self.admin_addr
    }

    pub const fn sessions(&self) -> &Arc<Sessions> {
        &self.sessions
    }

    pub const fn reloader(&self) -> &Arc<Reloader> {
        &self.reloader
    }

    /// Reloads `file`, which `load` reads, whenever it has changed, or what it names, and at each SIGHUP, if there is a
    /// `hangup`. `seen` is what was on disk when the configuration of the start was read.
    pub fn watch(
        &self,
        file: PathBuf,
        seen: [u8; 32],
        load: impl Fn() -> Result<Config, ConfigErrors> + Send + 'static,
        hangup: Option<Signal>,
    ) {
        let watched = Watched {
            file,
            seen,
            load: Box::new(load),
            reloader: Arc::clone(&self.reloader),
        };
        let closing = self.tasks.stop.closing.clone();
        self.tasks
            .spawn_essential("configuration watcher", watched.run(hangup, closing));
    }

    /// Resolves when the next gateway has the listening sockets and is ready.
    pub async fn taken_over(&self) {
        self.taken_over.cancelled().await;
    }

    pub fn is_taken_over(&self) -> bool {
        self.taken_over.is_cancelled()
    }

    /// Resolves when something that the gateway can't do without has ended.
    pub async fn failed(&self) {
        self.tasks.stop.failed.cancelled().await;
    }

    /// Stops in order: unready, drain delay, finish what has begun within the grace, cut off the rest.
    /// `hurry` (a second signal) skips to the last.
    ///
    /// During the delay answers ask clients to close their connections, so that whoever is active goes elsewhere by itself,
    /// and what the soft stop closes is idle. Only a gateway that was taken over stops accepting at once: whoever is ready
    /// does so from the same queues.
    pub async fn stop(mut self, hurry: CancellationToken) -> Ended {
        let config = self.reloader.config();
        let server = &config.server;
        let stop = Arc::clone(&self.tasks.stop);
        self.admin.drain();
        stop.leave();
        if self.taken_over.is_cancelled() {
            stop.closing.cancel();
        }
        if server.drain_delay > Duration::ZERO {
            info!(delay = ?server.drain_delay, accepting = !stop.closing.is_cancelled(), "not ready any more");
            hurry.run_until_cancelled(sleep(server.drain_delay)).await;
        }
        stop.softly();
        let finishing = timeout(server.shutdown_grace, async {
            // Late enough for those that end by themselves, and with a little time to end in order.
            let streams = sleep(server.stream_grace.min(server.shutdown_grace.mul_f64(STREAMS_LEAVE_AT)));
            tokio::select! {
                () = self.tasks.ended() => return,
                () = streams => {
                    stop.streams.cancel();
                    self.sessions.streams().close_everything();
                }
            }
            self.tasks.ended().await;
        });
        let in_time = matches!(hurry.run_until_cancelled(finishing).await, Some(Ok(())));
        let cut_off = if in_time { 0 } else { self.tasks.running() };
        if cut_off > 0 {
            warn!(cut_off, "the grace is over: what still ran was cut off");
        }
        stop.at_once();
        let _ = timeout(HARD_STOP_TAKES, self.tasks.ended()).await;
        for thread in self.threads.drain(..) {
            // It has nothing to do but to notice the hard stop.
            let _ = thread.join();
        }
        // Nobody is left who could use a session. Whoever is in a hurry goes without.
        let writing = timeout(LAST_WRITES_TAKE, self.sessions.write_last_seen());
        if let Some(Err(_)) = hurry.run_until_cancelled(writing).await {
            warn!("Postgres did not take in time when sessions were last seen");
        }
        Ended { cut_off }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.tasks.stop.at_once();
    }
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Running({:?}, admin {})", self.public, self.admin_addr)
    }
}
