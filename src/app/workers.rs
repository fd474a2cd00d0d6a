//! The workers: a thread, a runtime and sockets of its own for each, and what they share.

use std::{sync::Arc, thread, time::Duration};

use anyhow::Context;
use arc_swap::ArcSwap;
use tokio::{
    runtime::Handle,
    sync::Semaphore,
    time::{MissedTickBehavior, interval},
};

use super::sockets::Listening;
use crate::{
    auth::Auth,
    clock::Clock,
    config::Config,
    identity::Session,
    lifecycle::Tasks,
    live::{Live, Snapshot},
    policy::connection::Door,
    proxy::{Proxy, rate::Rates, record::Recorder},
    server::{
        self, Bound,
        connection::Worker,
        guests::Guests,
        tls::{Issued, Tls},
    },
    session::{
        Sessions,
        streams::{self, About},
    },
    telemetry::{AccessLog, RequestIds},
    upstream::Upstream,
};

/// How often workers close upstream connections that nobody uses.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// What all workers share.
pub(super) struct Common {
    pub(super) config: Arc<Config>,
    pub(super) upstreams: Vec<Arc<Upstream>>,
    pub(super) places: Arc<Semaphore>,
    pub(super) tunnels: Arc<Semaphore>,
    pub(super) files: Arc<Semaphore>,
    pub(super) rates: Arc<Rates>,
    pub(super) guests: Arc<Guests>,
    pub(super) clock: Clock,
    pub(super) tasks: Tasks,
    pub(super) sessions: Arc<Sessions>,
    pub(super) auth: Arc<ArcSwap<Auth>>,
    pub(super) log: Arc<AccessLog>,
    pub(super) tls: Option<Arc<Tls>>,
    pub(super) issued: Option<Arc<dyn Issued>>,
}

/// Workers that run, and accept nothing yet.
pub(super) struct Workers {
    pub(super) threads: Vec<thread::JoinHandle<()>>,
    pub(super) all: Vec<Arc<Worker>>,
    /// The sockets of each.
    sockets: Vec<(Handle, Vec<(Bound, Door)>)>,
}

impl Workers {
    /// They accept connections from here on.
    pub(super) fn open(&mut self, places: &Arc<Semaphore>) -> anyhow::Result<()> {
        for (worker, (runtime, own)) in self.all.iter().zip(self.sockets.drain(..)) {
            open(worker, own, &runtime, places)?;
        }
        Ok(())
    }
}

impl Common {
    /// Each worker gets a socket of each address, or more where there are more.
    pub(super) fn start_workers(&self, bound: Vec<Listening>) -> anyhow::Result<Workers> {
        let count = self.config.server.workers.get();
        let mut sockets: Vec<Vec<(Bound, Door)>> = (0..count).map(|_| Vec::new()).collect();
        for listening in bound {
            let turns = (0..count).cycle();
            for (socket, turn) in listening.sockets.into_iter().zip(turns) {
                if let Some(own) = sockets.get_mut(turn) {
                    own.push((socket, listening.door));
                }
            }
        }
        let mut started = Workers {
            threads: Vec::new(),
            all: Vec::new(),
            sockets: Vec::new(),
        };
        for (index, own) in sockets.into_iter().enumerate() {
            let (handle, thread) = worker_thread(index, &self.tasks)?;
            started.threads.push(thread);
            let worker = Arc::new(self.worker(handle.clone()));
            worker
                .tasks
                .spawn_essential("upstream sweeper", sweep_pools(Arc::clone(&worker)));
            if index == 0 {
                self.watch_streams(&worker.live);
            }
            started.all.push(worker);
            started.sockets.push((handle, own));
        }
        Ok(started)
    }

    /// Streams of sessions that end are closed, while requests are being finished too. All workers have the same rules:
    /// any one's will do.
    fn watch_streams(&self, live: &Arc<Live>) {
        let live = Arc::clone(live);
        let may_go_on = move |stream: &About, session: &Session| live.load().allows(stream, Some(session));
        let watching = streams::watch(
            Arc::clone(&self.sessions),
            self.clock.clone(),
            Arc::new(may_go_on),
            self.tasks.stop.hard.clone(),
        );
        self.tasks.spawn_until_hard_stop("streams", watching);
    }

    fn worker(&self, runtime: Handle) -> Worker {
        let tasks = self.tasks.on_worker(runtime);
        Worker {
            live: Arc::new(Live::new(Snapshot::new(&self.config, &self.upstreams, &tasks, None))),
            proxy: Proxy {
                sessions: Arc::clone(&self.sessions),
                tunnels: Arc::clone(&self.tunnels),
                files: Arc::clone(&self.files),
                rates: Arc::clone(&self.rates),
                tasks: tasks.clone(),
            },
            auth: Arc::clone(&self.auth),
            clock: self.clock.clone(),
            tasks,
            cold: self.tasks.clone(),
            recorder: Arc::new(Recorder {
                lane: self.log.lane(),
                stats: Arc::default(),
                stop: Arc::clone(&self.tasks.stop),
            }),
            ids: RequestIds::default(),
            tls: self.tls.clone(),
            issued: self.issued.clone(),
            guests: Arc::clone(&self.guests),
        }
    }
}

/// A thread with a runtime of its own, for one worker. It ends at the hard stop.
fn worker_thread(index: usize, tasks: &Tasks) -> anyhow::Result<(Handle, thread::JoinHandle<()>)> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("can't make a runtime for a worker")?;
    let handle = runtime.handle().clone();
    let hard = tasks.stop.hard.clone();
    let thread = thread::Builder::new()
        .name(format!("worker-{index}"))
        .spawn(move || {
            runtime.block_on(hard.cancelled());
            // Whatever still runs on it is dropped with it; a name that is being looked up is not waited for.
            runtime.shutdown_background();
        })
        .context("can't start a worker's thread")?;
    Ok((handle, thread))
}

/// Accepts a worker's connections.
fn open(
    worker: &Arc<Worker>,
    sockets: Vec<(Bound, Door)>,
    runtime: &Handle,
    places: &Arc<Semaphore>,
) -> anyhow::Result<()> {
    // A listener belongs to the runtime on which it is made.
    let _entered = runtime.enter();
    for (socket, door) in sockets {
        let listener = socket.listen().context("can't open a listener")?;
        let accepting = server::accept(listener, door, Arc::clone(places), Arc::clone(worker));
        worker.tasks.spawn_essential("listener", accepting);
    }
    Ok(())
}

/// Closes upstream connections that nobody uses, and in the end all of them.
async fn sweep_pools(worker: Arc<Worker>) {
    let soft = worker.tasks.stop.soft.clone();
    let mut tick = interval(SWEEP_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while soft.run_until_cancelled(tick.tick()).await.is_some() {
        for pool in &worker.live.load().pools {
            pool.sweep();
        }
    }
    for pool in &worker.live.load().pools {
        pool.close();
    }
}
