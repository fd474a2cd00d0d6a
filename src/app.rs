//! Composition: from a configuration to a running gateway, and back to silence.
//!
//! Start: bind sockets (a taken port is noticed at once), connect and migrate, listen for revocations, start the
//! workers, open the listeners, be ready. Anything that fails before that ends the start with one sentence; only
//! Postgres being away is waited for, not its refusals. Stop: unready, drain delay, soft stop (finish what has begun),
//! hard stop.

pub mod activation;
mod certificates;
mod handover;
pub mod memory;
pub mod reload;
mod sockets;
pub mod systemd;
mod watch;

use std::{fmt, io, net::SocketAddr, panic::AssertUnwindSafe, path::PathBuf, sync::Arc, thread, time::Duration};

use anyhow::{Context, bail};
use arc_swap::ArcSwap;
use futures_util::FutureExt;
use tokio::{
    runtime::Handle,
    signal::unix::Signal,
    sync::Semaphore,
    time::{MissedTickBehavior, interval, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::{
    activation::Passed,
    certificates::Shown,
    handover::{self as next_gateway, Offered},
    reload::{Reloader, Swapped},
    sockets::{Listening, Sockets},
    watch::Watched,
};
use crate::{
    auth::{self, Auth, AuthParts},
    chain::Chain,
    clock::Clock,
    config::{self, Config, ConfigErrors, Migrate},
    db::{
        Connector, Db, Pooler, Settings,
        listen::{self, Heard},
        migrate::{self, SchemaState},
    },
    identity::Session,
    lifecycle::Tasks,
    live::{Live, Snapshot},
    mail::{Outbox, OutboxBell, Postman},
    policy::connection::Door,
    proxy::{Proxy, rate::Rates, record::Recorder},
    secret::sealed::SealingKeys,
    server::{
        self, Bound,
        admin::Admin,
        connection::Worker,
        guests::Guests,
        reloads::Reloads,
        tls::{Issued, Tls},
    },
    session::{
        self, Sessions, Terms,
        assertion::{self, Mint},
        geo::Places,
        streams::{self, About},
    },
    telemetry::{AccessLog, RequestIds},
    upstream::Upstream,
};

/// Between attempts to reach Postgres at the start.
const WAIT_FOR_POSTGRES: Duration = Duration::from_secs(1);
/// How often workers close upstream connections that nobody uses.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// Of the grace, when streams have to end at the latest.
const STREAMS_LEAVE_AT: f64 = 0.9;
/// After the hard stop, tasks only have to notice it.
const HARD_STOP_TAKES: Duration = Duration::from_secs(2);
/// What is left of when sessions were last seen: a statement or a few, and Postgres may be away.
const LAST_WRITES_TAKE: Duration = Duration::from_secs(2);

/// What a gateway is started with, besides its configuration.
pub struct Options {
    pub clock: Clock,
    /// The runtime for cold work: the auth API, Postgres, mail. A multi-thread runtime.
    pub cold: Handle,
    /// Where the access log goes.
    pub access_log: Box<dyn io::Write + Send>,
    /// Ends the start early, as while it waits for Postgres.
    pub cancel: CancellationToken,
    /// Sockets that were open before the program ran.
    pub passed: Passed,
}

/// A gateway that accepts connections. Dropping it without [`Running::stop`] stops it hard.
pub struct Running {
    public: Vec<(SocketAddr, Door)>,
    admin_addr: SocketAddr,
    tasks: Tasks,
    admin: Arc<Admin>,
    threads: Vec<thread::JoinHandle<()>>,
    reloader: Arc<Reloader>,
    /// The next gateway has the listening sockets, and is ready.
    taken_over: CancellationToken,
    sessions: Arc<Sessions>,
    /// Flushed when it is dropped, last of all.
    _log: Arc<AccessLog>,
}

/// How a gateway ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Ended {
    /// Tasks that were cut off because the grace was over.
    pub cut_off: usize,
}

/// Starts a gateway. Fails with one sentence and its causes; nothing is left running then.
pub async fn start(config: Config, mut options: Options) -> anyhow::Result<Running> {
    let config = Arc::new(config);
    let tasks = Tasks::new(options.cold.clone());
    let starting = StartGuard(Some(tasks.clone()));

    let sockets = Sockets::open(&config, &mut options.passed).await?;
    let (public, admin_addr) = (sockets.public_addrs(), sockets.admin.local_addr()?);
    let admin = Arc::new(Admin::default());
    let serving_admin = Arc::clone(&admin).serve(sockets.admin, tasks.clone());
    // From the very start: alive, not yet ready. But where another gateway answers too, which is ready, not before this
    // one is.
    let mut serving_admin = Some(serving_admin);
    if !sockets.admin_is_shared
        && let Some(serving) = serving_admin.take()
    {
        tasks.spawn_essential("admin listener", serving);
    }

    // Before Postgres is waited for: what an operator got wrong is told at once.
    let shown = Shown::load(&config, &options.clock, &tasks)?;
    let places = Places::open(config.auth.session.geo_database.as_deref())?;

    let settings = settings(&config);
    let connector = Connector::new(&settings, options.cold.clone())?;
    prepare_schema(&connector, &config, &options.cancel).await?;
    let db = connector.pools(&settings)?;

    let sessions = Arc::new(sessions(&config, &db, &options.cold, places));
    let bell = OutboxBell::default();
    let auth = Arc::new(ArcSwap::from_pointee(Auth::new(AuthParts {
        db: db.clone(),
        sessions: Arc::clone(&sessions),
        clock: options.clock.clone(),
        config: Arc::clone(&config),
        outbox: bell.clone(),
    })?));
    let postman = start_cold_work(&tasks, &connector, &config, &db, &sessions, &options, bell)?;
    let acme = shown.go_on_ordering(&config, &db, &options.clock, &tasks).await?;

    wait_for_sessions(&config, &sessions, &options.cancel).await?;

    let log = Arc::new(AccessLog::start(config.log.format, options.access_log)?);
    let upstreams = config.upstreams.iter().cloned();
    let upstreams = upstreams.map(|upstream| Upstream::new(upstream).map(Arc::new));
    let common = Common {
        upstreams: upstreams.collect::<Result<_, _>>()?,
        places: Arc::new(Semaphore::new(config.server.max_connections)),
        tunnels: Arc::new(Semaphore::new(config.server.max_tunnels)),
        rates: Arc::default(),
        guests: Arc::default(),
        clock: options.clock,
        tasks: tasks.clone(),
        config: Arc::clone(&config),
        sessions: Arc::clone(&sessions),
        auth: Arc::clone(&auth),
        log: Arc::clone(&log),
        tls: shown.tls.clone(),
        issued: shown.issued(),
    };
    let (threads, workers) = common.start_workers(sockets.public)?;
    for upstream in &common.upstreams {
        upstream.start(&tasks);
    }
    let reloader = Arc::new(Reloader::new(
        Arc::clone(&config),
        Swapped {
            workers,
            sessions: Arc::clone(&sessions),
            auth,
            upstreams: Arc::new(ArcSwap::from_pointee(common.upstreams)),
            postman,
            places: common.places,
            tunnels: common.tunnels,
            tls: shown.tls,
            reloads: Arc::new(Reloads::new(config.read_from.fingerprint(), common.clock.now())),
            clock: common.clock,
            db,
            acme,
            tasks: tasks.clone(),
        },
    ));
    admin.ready(reloader.subjects(&log));
    let closing = tasks.stop.closing.clone();
    tasks.spawn_essential("old configurations", Arc::clone(&reloader).free_old_ones(closing));
    if let Some(serving) = serving_admin {
        tasks.spawn_essential("admin listener", serving);
    }
    // From here on the gateway that was here before stops.
    sockets.inherited.take_over().await?;
    let taken_over = CancellationToken::new();
    if let Some(offered) = sockets.offered {
        open_door(&reloader.config(), offered, &taken_over, &tasks)?;
    }
    starting.done();
    Ok(Running {
        public,
        admin_addr,
        tasks,
        admin,
        threads,
        reloader,
        taken_over,
        sessions,
        _log: log,
    })
}

fn sessions(config: &Config, db: &Db, cold: &Handle, places: Places) -> Sessions {
    Sessions::new(session::Parts {
        db: db.clone(),
        cold: cold.clone(),
        terms: Terms::new(config),
        mint: Mint::new(assertion::Terms::new(config)),
        cache: config.auth.session.cache.clone(),
        lookup_timeout: config.database.acquire_timeout,
        places,
    })
}

/// Waits for what sessions need, before the first request can come.
async fn wait_for_sessions(config: &Config, sessions: &Sessions, cancel: &CancellationToken) -> anyhow::Result<()> {
    // Nothing is lost by serving deaf, but each session would be looked up: better to begin with ears.
    let patience = timeout(config.database.acquire_timeout, sessions.hearing());
    if cancel.run_until_cancelled(patience).await.is_none() {
        bail!("told to stop while starting");
    }
    if config.signs_assertions() && cancel.run_until_cancelled(sessions.mint().ready()).await.is_none() {
        bail!("told to stop while the keys that sign assertions were being made");
    }
    Ok(())
}

/// Lets the next gateway ask for the listening sockets.
fn open_door(config: &Config, offered: Offered, taken_over: &CancellationToken, tasks: &Tasks) -> anyhow::Result<()> {
    let Some(path) = &config.server.handover else {
        return Ok(());
    };
    let door = next_gateway::Door::open(path)
        .with_context(|| format!("can't listen on {} (server.handover)", path.display()))?;
    let closing = tasks.stop.closing.clone();
    tasks.spawn("hand-over", door.serve(offered, taken_over.clone(), closing));
    Ok(())
}

/// A start that fails half way must not leave anything running.
struct StartGuard(Option<Tasks>);

impl StartGuard {
    fn done(mut self) {
        self.0 = None;
    }
}

impl Drop for StartGuard {
    fn drop(&mut self) {
        if let Some(tasks) = &self.0 {
            tasks.stop.at_once();
        }
    }
}

/// What `[database]` says, for [`Connector`].
pub fn settings(config: &Config) -> Settings {
    let database = &config.database;
    Settings {
        url: database.url.clone(),
        listen_url: database.listen_url.clone(),
        ca: database.ca.clone(),
        pooler: match database.pooler {
            config::Pooler::None => Pooler::None,
            config::Pooler::Transaction => Pooler::Transaction,
        },
        pool_size: database.pool_size.get(),
        acquire_timeout: database.acquire_timeout,
        statement_timeout: database.statement_timeout,
        schema: database.schema.clone(),
    }
}

/// As [`settings`], past a pooler: for what takes longer than one of its transactions.
pub fn direct_settings(config: &Config) -> Settings {
    let settings = settings(config);
    match &settings.listen_url {
        Some(direct) => Settings {
            url: direct.clone(),
            listen_url: None,
            pooler: Pooler::None,
            ..settings
        },
        None => settings,
    }
}

/// Migrates or checks, waiting for Postgres as long as it takes; but not for what waiting can't change.
async fn prepare_schema(connector: &Connector, config: &Config, cancel: &CancellationToken) -> anyhow::Result<()> {
    let schema = &config.database.schema;
    loop {
        let attempt = async {
            match config.database.migrate {
                Migrate::OnStart => migrate::run(connector, schema).await.map(|applied| (applied, None)),
                Migrate::Manual => migrate::check(connector, schema)
                    .await
                    .map(|state| (Vec::new(), Some(state))),
            }
        };
        let Some(outcome) = cancel.run_until_cancelled(attempt).await else {
            bail!("told to stop while starting");
        };
        match outcome {
            // What was applied is in the log already.
            Ok((_, None | Some(SchemaState::UpToDate))) => return Ok(()),
            Ok((_, Some(SchemaState::Missing(missing)))) => bail!(
                "the database lacks {} and database.migrate is \"manual\": run `vestibule migrate`",
                missing.join(", ")
            ),
            Err(error) if error.may_heal() => {
                warn!(
                    error = %Chain(&error),
                    "Postgres can't be reached, trying again every {WAIT_FOR_POSTGRES:?}; not serving yet"
                );
            }
            Err(error) => return Err(error).context("the database could not be prepared"),
        }
        if cancel.run_until_cancelled(sleep(WAIT_FOR_POSTGRES)).await.is_none() {
            bail!("told to stop while waiting for Postgres");
        }
    }
}

/// What works beside requests, on the runtime for cold work.
fn start_cold_work(
    tasks: &Tasks,
    connector: &Connector,
    config: &Config,
    db: &Db,
    sessions: &Arc<Sessions>,
    options: &Options,
    bell: OutboxBell,
) -> anyhow::Result<Postman> {
    let (clock, cold) = (&options.clock, &options.cold);
    let soft = || tasks.stop.soft.clone();
    let channel = migrate::channel(&config.database.schema);
    // Until the very end: a request that is being finished must still hear of revocations.
    let until = tasks.stop.hard.clone();
    let (hearing, stop) = (Arc::clone(sessions), Arc::clone(&tasks.stop));
    let connector = connector.clone();
    cold.spawn(async move {
        let ears = Arc::clone(&hearing);
        let listening = listen::run(connector, channel, move |heard| ears.hear(heard), until);
        let ended = AssertUnwindSafe(listening).catch_unwind().await;
        if ended.is_err() || !stop.hard.is_cancelled() {
            // Nobody listens any more: nothing of the cache may be believed, and the gateway goes.
            hearing.hear(Heard::Deaf { reachable: true });
            stop.failed.cancel();
        }
    });

    let outbox = {
        // The mail transport starts a task of its own: it must be on this runtime.
        let _entered = cold.enter();
        Outbox::new(db.clone(), &config.mail, sealing_keys(config), clock.clone(), bell)?
    };
    let postman = outbox.postman();
    tasks.spawn_essential("outbox", outbox.run(soft()));
    let places = Arc::clone(sessions.places());
    let last_seen = sessions.last_seen().clone();
    tasks.spawn_essential("last seen", last_seen.run(db.clone(), places, soft()));
    tasks.spawn_essential("sweeper", auth::sweeper::run(db.clone(), clock.clone(), soft()));
    let signing = assertion::rotation::run(Arc::clone(sessions), db.clone(), clock.clone(), soft());
    tasks.spawn_essential("signing keys", signing);
    reseal(tasks, db, config, clock);
    Ok(postman)
}

/// Seals by today's secret what was sealed by another, if there is one.
fn reseal(tasks: &Tasks, db: &Db, config: &Config, clock: &Clock) {
    if config.auth.secret.len() > 1 {
        let keys = sealing_keys(config);
        let soft = tasks.stop.soft.clone();
        tasks.spawn("resealing", auth::reseal::run(db.clone(), keys, clock.clone(), soft));
    }
}

/// What what `auth.secret` seals is opened with.
pub fn sealing_keys(config: &Config) -> SealingKeys {
    SealingKeys::new(config.auth.secret.iter().map(|secret| secret.expose().as_bytes()))
}

/// What all workers share.
struct Common {
    config: Arc<Config>,
    upstreams: Vec<Arc<Upstream>>,
    places: Arc<Semaphore>,
    tunnels: Arc<Semaphore>,
    rates: Arc<Rates>,
    guests: Arc<Guests>,
    clock: Clock,
    tasks: Tasks,
    sessions: Arc<Sessions>,
    auth: Arc<ArcSwap<Auth>>,
    log: Arc<AccessLog>,
    tls: Option<Arc<Tls>>,
    issued: Option<Arc<dyn Issued>>,
}

/// The workers, and their threads.
type Workers = (Vec<thread::JoinHandle<()>>, Vec<Arc<Worker>>);

impl Common {
    /// Each worker gets a socket of each address, or more where there are more; they accept connections from here on.
    fn start_workers(&self, bound: Vec<Listening>) -> anyhow::Result<Workers> {
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
        let mut threads = Vec::new();
        let mut workers = Vec::new();
        for (index, own) in sockets.into_iter().enumerate() {
            let (handle, thread) = worker_thread(index, &self.tasks)?;
            threads.push(thread);
            let worker = Arc::new(self.worker(handle.clone()));
            if index == 0 {
                self.watch_streams(&worker.live);
            }
            open(&worker, own, &handle, &self.places)?;
            workers.push(worker);
        }
        Ok((threads, workers))
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

/// Starts a worker's own tasks, and accepts its connections.
fn open(
    worker: &Arc<Worker>,
    sockets: Vec<(Bound, Door)>,
    runtime: &Handle,
    places: &Arc<Semaphore>,
) -> anyhow::Result<()> {
    let sweeping = Arc::clone(worker);
    worker.tasks.spawn_essential("upstream sweeper", sweep_pools(sweeping));
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

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Options({:?})", self.clock)
    }
}
