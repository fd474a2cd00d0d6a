//! What runs besides requests, and how all of it ends.
//!
//! Every task is started by [`Tasks`], which names it, keeps track of it and tells it to stop. A loop that the
//! gateway can't do without is *essential*: should one end early, even by a panic, the whole gateway stops in order.

use std::{
    fmt,
    future::Future,
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::FutureExt;
use socket2::TcpKeepalive;
use tokio::{runtime::Handle, sync::oneshot};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::error;

/// A silent connection is asked after a minute whether its other end is still there, and given up a minute later.
pub const KEEPALIVE: TcpKeepalive = TcpKeepalive::new()
    .with_time(Duration::from_mins(1))
    .with_interval(Duration::from_secs(15))
    .with_retries(4);

/// Told once; can't be taken back.
#[derive(Clone, Debug, Default)]
pub struct Stop {
    /// Ask clients to go elsewhere: answers say that the connection closes.
    leaving: Arc<AtomicBool>,
    /// Take no new connections. At the latest at the soft stop.
    pub closing: CancellationToken,
    /// Finish what has begun, begin nothing.
    pub soft: CancellationToken,
    /// End what could go on for ever: tunnels, streams.
    pub streams: CancellationToken,
    /// Drop everything.
    pub hard: CancellationToken,
    /// An essential task ended: somebody should stop the gateway and report failure.
    pub failed: CancellationToken,
}

impl Stop {
    pub fn leave(&self) {
        self.leaving.store(true, Ordering::Relaxed);
    }

    /// Asked for each answer: one load of what nobody writes.
    pub fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Relaxed)
    }

    /// The soft stop, and what goes before it.
    pub fn softly(&self) {
        self.leave();
        self.closing.cancel();
        self.soft.cancel();
    }

    /// The hard stop.
    pub fn at_once(&self) {
        self.softly();
        self.streams.cancel();
        self.hard.cancel();
    }
}

/// The only place that starts tasks.
#[derive(Clone)]
pub struct Tasks {
    runtime: Handle,
    tracker: TaskTracker,
    /// The runtime itself goes at the hard stop, and its tasks with it: they need not watch for it.
    runtime_ends: bool,
    pub stop: Arc<Stop>,
}

impl Tasks {
    pub fn new(runtime: Handle) -> Self {
        Self {
            runtime,
            tracker: TaskTracker::new(),
            runtime_ends: false,
            stop: Arc::default(),
        }
    }

    /// The same tracking and stopping, on a worker's runtime, which is dropped at the hard stop.
    #[must_use]
    pub fn on_worker(&self, runtime: Handle) -> Self {
        Self {
            runtime,
            tracker: self.tracker.clone(),
            runtime_ends: true,
            stop: Arc::clone(&self.stop),
        }
    }

    /// Runs `task` to its end, unless the hard stop comes first.
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let guarded = async move {
            if AssertUnwindSafe(task).catch_unwind().await.is_err() {
                error!(task = name, "a task panicked");
            }
        };
        if self.runtime_ends {
            self.tracker.spawn_on(guarded, &self.runtime);
        } else {
            let hard = self.stop.hard.clone();
            let until = async move {
                hard.run_until_cancelled(guarded).await;
            };
            self.tracker.spawn_on(until, &self.runtime);
        }
    }

    /// As [`Tasks::spawn`], and if it ends before the gateway begins to stop, the gateway stops too.
    pub fn spawn_essential(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let stop = Arc::clone(&self.stop);
        self.tracker.spawn_on(
            async move {
                let guarded = AssertUnwindSafe(task).catch_unwind();
                let ended = stop.hard.run_until_cancelled(guarded).await;
                if let Some(Err(_)) = ended {
                    error!(task = name, "an essential task panicked, stopping");
                    stop.failed.cancel();
                } else if ![&stop.closing, &stop.soft, &stop.hard]
                    .iter()
                    .any(|told| told.is_cancelled())
                {
                    error!(task = name, "an essential task ended early, stopping");
                    stop.failed.cancel();
                }
            },
            &self.runtime,
        );
    }

    /// As [`Tasks::spawn_essential`], for what requests need while they are being finished: it goes on until the hard
    /// stop, and nobody waits for it.
    pub fn spawn_until_hard_stop(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let stop = Arc::clone(&self.stop);
        self.runtime.spawn(async move {
            let guarded = AssertUnwindSafe(task).catch_unwind();
            let ended = stop.hard.run_until_cancelled(guarded).await.is_some();
            // It may have heard of the stop by itself.
            if ended && !stop.hard.is_cancelled() {
                error!(task = name, "an essential task ended early, stopping");
                stop.failed.cancel();
            }
        });
    }

    /// Runs `work` to its end whether or not anybody still waits for the answer: for changes that, once begun, must
    /// not be left half done because a client went away. `None` if it panicked or the hard stop came.
    pub async fn detached<T: Send + 'static>(
        &self,
        name: &'static str,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        let (tell, told) = oneshot::channel();
        self.spawn(name, async move {
            let _ = tell.send(work.await);
        });
        told.await.ok()
    }

    pub fn running(&self) -> usize {
        self.tracker.len()
    }

    /// Resolves when nothing runs any more.
    pub async fn ended(&self) {
        self.tracker.close();
        self.tracker.wait().await;
    }
}

impl fmt::Debug for Tasks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tasks({} running)", self.tracker.len())
    }
}
