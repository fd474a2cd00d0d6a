//! Composition: from a configuration to a running gateway, and back to silence ([`Running::stop`]).
//!
//! Start: bind sockets (a taken port is noticed at once), connect and migrate, listen for revocations, start the
//! workers, open the listeners, be ready. Anything that fails before that ends the start with one sentence; only
//! Postgres being away is waited for, not its refusals. Stop: unready, drain delay, soft stop (finish what has begun),
//! hard stop.

pub mod activation;
mod certificates;
mod cold;
mod handover;
pub mod memory;
pub mod reload;
mod running;
mod sockets;
pub mod systemd;
mod watch;
mod workers;

use std::{fmt, io, sync::Arc, time::Duration};

use anyhow::{Context, bail};
use arc_swap::ArcSwap;
use tokio::{
    runtime::Handle,
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

pub use self::running::{Ended, Running};
use self::{
    activation::Passed,
    certificates::Shown,
    handover::{Door, Offered},
    reload::{Reloader, Swapped},
    sockets::Sockets,
    workers::Common,
};
use crate::{
    auth::{Auth, AuthParts},
    chain::Chain,
    clock::Clock,
    config::{self, Config, Migrate},
    db::{
        Connector, Db, Pooler, Settings,
        migrate::{self, SchemaState},
    },
    lifecycle::Tasks,
    mail::OutboxBell,
    secret::sealed::SealingKeys,
    server::{admin::Admin, reloads::Reloads},
    session::{
        self, Sessions, Terms,
        assertion::{self, Mint},
        geo::Places,
    },
    telemetry::AccessLog,
    upstream::Upstream,
};

/// Between attempts to reach Postgres at the start.
const WAIT_FOR_POSTGRES: Duration = Duration::from_secs(1);

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

/// Starts a gateway. Fails with one sentence and its causes; nothing is left running then.
pub async fn start(config: Config, mut options: Options) -> anyhow::Result<Running> {
    let config = Arc::new(config);
    let tasks = Tasks::new(options.cold.clone());
    let starting = StartGuard(Some(tasks.clone()));

    let sockets = Sockets::open(&config, &mut options.passed).await?;
    let (public, admin_addr) = (sockets.public_addrs(), sockets.admin.local_addr()?);
    let admin = Arc::new(Admin::default());
    let serving = CancellationToken::new();
    let left_alone = sockets.admin_is_shared.then(|| sockets.inherited.left_alone());
    let alive = Arc::clone(&admin).serve(sockets.admin, tasks.clone());
    let alive = answering(alive, left_alone.transpose()?, serving.clone());
    tasks.spawn_essential("admin listener", alive);

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
    let postman = cold::start(&tasks, &connector, &config, &db, &sessions, &options, bell)?;
    let acme = shown.go_on_ordering(&config, &db, &options.clock, &tasks).await?;

    wait_for_sessions(&config, &sessions, &options.cancel).await?;

    let log = Arc::new(AccessLog::start(config.log.format, options.access_log)?);
    let upstreams = config.upstreams.iter().cloned();
    let upstreams = upstreams.map(|upstream| Upstream::new(upstream).map(Arc::new));
    let common = Common {
        upstreams: upstreams.collect::<Result<_, _>>()?,
        places: Arc::new(Semaphore::new(config.server.max_connections)),
        tunnels: Arc::new(Semaphore::new(config.server.max_tunnels)),
        files: Arc::new(Semaphore::new(config.server.max_open_files)),
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
    let mut workers = common.start_workers(sockets.public)?;
    for upstream in &common.upstreams {
        upstream.start(&tasks);
    }
    let reloader = Arc::new(Reloader::new(
        Arc::clone(&config),
        Swapped {
            workers: workers.all.clone(),
            sessions: Arc::clone(&sessions),
            auth,
            upstreams: Arc::new(ArcSwap::from_pointee(common.upstreams)),
            postman,
            places: Arc::clone(&common.places),
            tunnels: common.tunnels,
            files: common.files,
            tls: shown.tls,
            reloads: Arc::new(Reloads::new(config.read_from.fingerprint(), common.clock.now())),
            clock: common.clock,
            db,
            acme,
            tasks: tasks.clone(),
        },
    ));
    let closing = tasks.stop.closing.clone();
    tasks.spawn_essential("old configurations", Arc::clone(&reloader).free_old_ones(closing));

    // Nothing can be accepted before the gateway that was here before has said that it stops, lest it be cut off if that one
    // goes on; and nothing that can fail is left to be done then. Who connects meanwhile waits in the kernel's queues.
    let door = config.server.handover.as_deref().map(Door::make).transpose()?;
    sockets.inherited.take_over().await?;
    workers.open(&common.places)?;
    admin.ready(reloader.subjects(&log));
    serving.cancel();
    let taken_over = CancellationToken::new();
    if let (Some(door), Some(offered)) = (door, sockets.offered) {
        open_door(door, offered, &taken_over, &tasks);
    }
    starting.done();
    Ok(Running {
        public,
        admin_addr,
        tasks,
        admin,
        threads: workers.threads,
        reloader,
        taken_over,
        sessions,
        _log: log,
    })
}

/// The admin listener, from the very start: alive, not yet ready. But where another gateway answers too, which is ready, not
/// before that one is gone (`left_alone`) or this one is `serving`.
async fn answering(
    alive: impl Future<Output = ()>,
    left_alone: Option<impl Future<Output = ()>>,
    serving: CancellationToken,
) {
    if let Some(left_alone) = left_alone {
        serving.run_until_cancelled(left_alone).await;
    }
    alive.await;
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

/// Lets the next gateway ask for the listening sockets. Without that this one serves all the same.
fn open_door(door: Door, offered: Offered, taken_over: &CancellationToken, tasks: &Tasks) {
    match door.open() {
        Ok(door) => {
            let closing = tasks.stop.closing.clone();
            tasks.spawn_essential("hand-over", door.serve(offered, taken_over.clone(), closing));
        }
        Err(error) => error!(
            error = format!("{error:#}"),
            "no gateway can take over from this one: restart it before its next hand-over"
        ),
    }
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

/// What what `auth.secret` seals is opened with.
pub fn sealing_keys(config: &Config) -> SealingKeys {
    SealingKeys::new(config.auth.secret.iter().map(|secret| secret.expose().as_bytes()))
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Options({:?})", self.clock)
    }
}
