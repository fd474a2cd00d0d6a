//! Another configuration for a gateway that runs: whole, or not at all.
//!
//! All that can fail is done first, beside what is in force; then each part is swapped, and nothing fails any more. The
//! work is done on the runtime for cold work: a worker only finds another snapshot at its next request, which it takes
//! whole, and never one of which half is old. Requests that have begun finish by what they took.
//!
//! What stays, stays warm: upstreams with equal settings keep their connections, counters and state, the auth API its
//! counts and its hashing threads, and cached sessions are forgotten only if `[identity]` or `[auth.session]` differs.
//! What was bound, sized or connected at the start keeps its value, which a warning says
//! ([`config::keep_what_needs_a_restart`]).

use std::{
    fmt,
    panic::resume_unwind,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::{self, ScopedJoinHandle},
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::{
    sync::Semaphore,
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::{
    auth::{self, Auth},
    chain::Chain,
    clock::{self, Clock},
    config::{self, Config, ConfigErrors},
    db::Db,
    lifecycle::Tasks,
    live::Snapshot,
    mail::{Carrier, MailError, Postman},
    server::{acme::Acme, admin::Subjects, connection::Worker, reloads::Reloads, tls::Tls},
    session::{Sessions, Terms, assertion, streams::About},
    telemetry::AccessLog,
    upstream::{TlsError, Upstream},
};

/// How often it is looked whether an old configuration is still in use.
const FREE_EVERY: Duration = Duration::from_secs(1);

/// All that a reload replaces, or replaces something in.
pub struct Swapped {
    pub workers: Vec<Arc<Worker>>,
    pub sessions: Arc<Sessions>,
    pub auth: Arc<ArcSwap<Auth>>,
    pub upstreams: Arc<ArcSwap<Vec<Arc<Upstream>>>>,
    pub postman: Postman,
    pub tls: Option<Arc<Tls>>,
    pub places: Arc<Semaphore>,
    pub tunnels: Arc<Semaphore>,
    pub files: Arc<Semaphore>,
    pub reloads: Arc<Reloads>,
    pub clock: Clock,
    pub db: Db,
    /// If certificates are ordered.
    pub acme: Option<Arc<Acme>>,
    /// Of the runtime for cold work.
    pub tasks: Tasks,
}

/// Replaces the configuration of a running gateway.
pub struct Reloader {
    swapped: Swapped,
    /// Held for a whole reload: one at a time.
    turn: Mutex<()>,
    /// Held for moments.
    state: Mutex<State>,
}

struct State {
    config: Arc<Config>,
    /// Not in force any more, but perhaps still in a request's hands: freed here, where nobody waits.
    old: Vec<Arc<Snapshot>>,
}

/// What came of a reload that took effect.
#[derive(Debug)]
pub struct Reloaded {
    /// Keys that said something new, which only a restart can put in force.
    pub need_restart: Vec<&'static str>,
    pub took: Duration,
}

/// Why the old configuration stays in force.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    #[error("the configuration has errors\n{0}")]
    Config(#[from] ConfigErrors),
    #[error("the auth API can't go by the new configuration")]
    Auth(#[from] auth::StartError),
    #[error("mails can't be sent by the new configuration")]
    Mail(#[from] MailError),
    #[error("certificates can't be used\n{0}")]
    Tls(ConfigErrors),
    #[error("upstreams can't be reached by the new configuration")]
    Upstream(#[from] TlsError),
}

impl Reloader {
    pub(super) fn new(config: Arc<Config>, swapped: Swapped) -> Self {
        Self {
            swapped,
            turn: Mutex::default(),
            state: Mutex::new(State {
                config,
                old: Vec::new(),
            }),
        }
    }

    /// What the admin listener tells about.
    pub(super) fn subjects(&self, log: &Arc<AccessLog>) -> Subjects {
        let Swapped {
            workers,
            sessions,
            auth,
            upstreams,
            reloads,
            acme,
            tls,
            ..
        } = &self.swapped;
        Subjects {
            sessions: Arc::clone(sessions),
            auth: Arc::clone(auth),
            log: Arc::clone(log),
            stats: workers
                .iter()
                .map(|worker| Arc::clone(&worker.recorder.stats))
                .collect(),
            upstreams: Arc::clone(upstreams),
            reloads: Arc::clone(reloads),
            acme: acme.clone(),
            tls: tls.clone(),
        }
    }

    /// The configuration in force.
    pub fn config(&self) -> Arc<Config> {
        Arc::clone(&self.state().config)
    }

    /// Puts what `load` gives in force, or nothing of it. Says in the log and in metrics how it went. One at a time;
    /// takes as long as the file is long: to be called on the runtime for cold work, where its thread may be blocked.
    pub fn reload(&self, load: impl FnOnce() -> Result<Config, ConfigErrors>) -> Result<Reloaded, ReloadError> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let began = clock::monotonic();
        let outcome = load().map_err(ReloadError::from).and_then(|next| {
            let need_restart = self.replace(next)?;
            let took = clock::monotonic().saturating_duration_since(began);
            Ok(Reloaded { need_restart, took })
        });
        let reloads = &self.swapped.reloads;
        match &outcome {
            Ok(Reloaded { need_restart, took }) => {
                let fingerprint = self.config().read_from.fingerprint();
                reloads.succeeded(fingerprint, self.swapped.clock.now());
                info!(hash = %format_args!("{fingerprint:08x}"), ?took, "the configuration was reloaded");
                if !need_restart.is_empty() {
                    let keys = need_restart.join(", ");
                    warn!(keys, "these keys have changed, but take effect at a restart only");
                }
            }
            Err(error) => {
                reloads.refused();
                error!(error = %Chain(error), "the configuration was not reloaded: the one before stays in force");
            }
        }
        outcome
    }

    fn replace(&self, mut next: Config) -> Result<Vec<&'static str>, ReloadError> {
        let swapped = &self.swapped;
        let old = self.config();
        let need_restart = config::keep_what_needs_a_restart(&old, &mut next);
        if next.identity.names == old.identity.names {
            next.identity.names = Arc::clone(&old.identity.names);
        }
        let next = Arc::new(next);

        // What can fail.
        let auth = swapped.auth.load().next(Arc::clone(&next))?;
        let carrier = if old.mail == next.mail && old.auth.secret == next.auth.secret {
            None
        } else {
            Some(Carrier::new(&next.mail, super::sealing_keys(&next))?)
        };
        let tls = match (&swapped.tls, &next.server.tls) {
            (Some(tls), Some(settings)) => {
                let terms = tls.next(settings);
                let terms = terms.map_err(|error| ReloadError::Tls(error.in_config(settings)))?;
                Some((tls, terms))
            }
            _ => None,
        };

        let upstreams = self.upstreams(&next)?;

        // What takes long.
        let snapshot = |worker: &Arc<Worker>| {
            let before = worker.live.load();
            Snapshot::new(&next, &upstreams, &worker.tasks, Some(&before))
        };
        let snapshots = at_once(&swapped.workers, snapshot);

        // What is seen.
        if old.identity != next.identity || old.auth.session != next.auth.session {
            swapped.sessions.replace_terms(Terms::new(&next));
        }
        let said_by = |config: &Config| (config.identity.assertion.clone(), config.server.public_url.to_string());
        if said_by(&old) != said_by(&next) || old.auth.secret != next.auth.secret {
            swapped.sessions.mint().replace_terms(assertion::Terms::new(&next));
        }
        swapped.auth.store(Arc::new(auth));
        let replaced = swapped.workers.iter().zip(snapshots);
        let replaced: Vec<_> = replaced
            .map(|(worker, snapshot)| worker.live.replace(snapshot))
            .collect();
        if let Some(worker) = swapped.workers.first() {
            let era = worker.live.load().era;
            let live = Arc::clone(&worker.live);
            let serves = move |stream: &About| live.load().serves(stream);
            swapped.sessions.streams().judge(era, Arc::new(serves));
        }
        let before = swapped.upstreams.swap(Arc::new(upstreams));
        self.start_and_retire(&before);
        if let Some((tls, terms)) = tls {
            tls.put_in_force(terms);
        }
        if let Some(carrier) = carrier {
            swapped.postman.replace(carrier);
        }
        if old.auth.secret != next.auth.secret {
            super::cold::reseal(&swapped.tasks, &swapped.db, &next, &swapped.clock);
            if let Some(acme) = &swapped.acme {
                acme.replace_keys(super::sealing_keys(&next));
            }
        }
        let (before, now) = (&old.server, &next.server);
        self.resize(&swapped.places, before.max_connections, now.max_connections);
        self.resize(&swapped.tunnels, before.max_tunnels, now.max_tunnels);
        self.resize(&swapped.files, before.max_open_files, now.max_open_files);
        let mut state = self.state();
        state.config = next;
        state.old.extend(replaced);
        Ok(need_restart)
    }

    /// Those of `next`: running ones where the settings are equal, with all that they know.
    fn upstreams(&self, next: &Config) -> Result<Vec<Arc<Upstream>>, TlsError> {
        let running = self.swapped.upstreams.load();
        let upstream = |settings: &config::Upstream| {
            let kept = running.iter().find(|upstream| upstream.settings == *settings);
            kept.map_or_else(
                || Upstream::new(settings.clone()).map(Arc::new),
                |kept| Ok(Arc::clone(kept)),
            )
        };
        next.upstreams.iter().map(upstream).collect()
    }

    /// Begins what runs beside requests for upstreams that are new, and ends it for those that are gone.
    fn start_and_retire(&self, before: &[Arc<Upstream>]) {
        let now = self.swapped.upstreams.load();
        let among =
            |upstream: &Arc<Upstream>, all: &[Arc<Upstream>]| all.iter().any(|other| Arc::ptr_eq(other, upstream));
        for upstream in now.iter().filter(|upstream| !among(upstream, before)) {
            upstream.start(&self.swapped.tasks);
        }
        for upstream in before.iter().filter(|upstream| !among(upstream, &now)) {
            upstream.retire();
        }
    }

    /// Makes places, or takes them away: those that are free at once, the others as they become free.
    fn resize(&self, places: &Arc<Semaphore>, before: usize, now: usize) {
        if now > before {
            places.add_permits(now - before);
            return;
        }
        let gone = u32::try_from(before - now).unwrap_or(u32::MAX);
        if gone > 0 {
            let places = Arc::clone(places);
            let closing = self.swapped.tasks.stop.closing.clone();
            self.swapped.tasks.spawn("fewer places", async move {
                let taking = closing.run_until_cancelled(places.acquire_many_owned(gone)).await;
                if let Some(Ok(taken)) = taking {
                    taken.forget();
                }
            });
        }
    }

    /// Frees configurations that no request holds any more, until `stop`.
    pub(super) async fn free_old_ones(self: Arc<Self>, stop: CancellationToken) {
        let mut tick = interval(FREE_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while stop.run_until_cancelled(tick.tick()).await.is_some() {
            // Nobody takes one from here, and none in force is here: a count of one stays one.
            let unused: Vec<_> = self
                .state()
                .old
                .extract_if(.., |old| Arc::strong_count(old) == 1)
                .collect();
            drop(unused);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // What is changed under it is changed by plain stores.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What `make` makes for each worker, each on a thread of its own: with many cores and routes, one after the other would
/// take long. The threads end here.
fn at_once<T: Send>(workers: &[Arc<Worker>], make: impl Fn(&Arc<Worker>) -> T + Sync) -> Vec<T> {
    let make = &make;
    thread::scope(|scope| {
        let threads: Vec<_> = workers.iter().map(|worker| scope.spawn(move || make(worker))).collect();
        let joined = threads.into_iter().map(ScopedJoinHandle::join);
        joined
            .map(|made| made.unwrap_or_else(|panic| resume_unwind(panic)))
            .collect()
    })
}

impl fmt::Debug for Reloader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reloader({:?})", self.config().read_from)
    }
}

impl fmt::Debug for Swapped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Swapped({} workers)", self.workers.len())
    }
}
