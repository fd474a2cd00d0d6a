//! What a session token means: from the cache if it can be trusted (`known`), else from Postgres (`lookup`).
//!
//! The promise: once a revoking call has answered, no later request on this gateway passes; elsewhere the moment the
//! notification arrives; and never later than `cache.ttl`. While revocations can't be heard the cache is not trusted
//! and every session is checked; while Postgres can't be reached at all, a session that was checked within
//! `cache.ttl` (and `outage_grace`) still passes and everything else is refused at once.

pub mod assertion;
pub mod cache;
pub mod credential;
pub mod device;
pub mod extensions;
pub mod geo;
pub mod identity_headers;
pub mod known;
pub mod last_seen;
pub mod locks;
pub mod lookup;
pub mod sign_out;
pub mod strangers;
pub mod streams;
pub mod vigil;

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::{runtime::Handle, sync::Notify, time::timeout};

pub use self::known::Trust;
use self::{
    assertion::Mint,
    cache::Found,
    extensions::Extensions,
    geo::Places,
    identity_headers::Renderer,
    known::Known,
    last_seen::LastSeen,
    lookup::{Attempts, Limits, LookUps, Postgres},
    strangers::Strangers,
    streams::{About, StreamGuard, Streams},
    vigil::Vigil,
};
use crate::{
    clock::Timestamp,
    config::{self, Config, SessionRules},
    db::{self, Db, DbError, listen::Heard},
    identity::{Assertions, Network, Session, UserId},
    secret::TokenHash,
    telemetry::Spread,
};

/// Sessions as the data path sees them. One for the whole gateway.
#[derive(Debug)]
pub struct Sessions {
    known: Known,
    look_ups: Arc<LookUps<Postgres>>,
    db: Db,
    /// What nobody waits for runs here, never on a thread of the data path: connections to Postgres belong to this runtime.
    cold: Handle,
    vigil: Vigil,
    /// Rung when revocations begin to be heard.
    hearing: Notify,
    /// Replaced by a reload.
    terms: Arc<ArcSwap<Terms>>,
    lookup_timeout: Duration,
    /// How often sessions with streams are looked up, whatever is heard of them.
    recheck_every: Duration,
    places: Arc<Places>,
    last_seen: LastSeen,
    extensions: Extensions,
    streams: Streams,
    mint: Mint,
    strangers: Strangers,
    counters: Counters,
}

/// For metrics.
#[derive(Debug, Default)]
pub struct Counters {
    pub hits: Spread,
    pub misses: AtomicU64,
    pub failures: AtomicU64,
}

/// How much longer than for a look-up somebody waits who shares others': a look-up that takes too long ends by itself first.
const SHARING: Duration = Duration::from_millis(100);

/// No answer could be had.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LookupError {
    #[error("a session look-up failed")]
    Db(#[from] Arc<DbError>),
    #[error("a session look-up took longer than {0:?}")]
    Timeout(Duration),
    #[error("Postgres can't be reached")]
    Unreachable,
    #[error("too many wait for a session to be looked up")]
    TooManyWaiting,
    #[error("too many tokens from there were nobody's; again in {0:?}")]
    TooManyUnknown(Duration),
}

impl LookupError {
    fn of(error: DbError) -> Self {
        Self::Db(Arc::new(error))
    }

    /// Nobody there, or nobody who answers in time.
    fn is_for_want_of_postgres(&self) -> bool {
        match self {
            Self::Db(error) => error.is_unavailable(),
            Self::Timeout(_) | Self::Unreachable => true,
            Self::TooManyUnknown(_) | Self::TooManyWaiting => false,
        }
    }
}

/// What the configuration says about sessions, but for what is sized once at the start.
#[derive(Debug)]
pub struct Terms {
    pub renderer: Renderer,
    pub rules: SessionRules,
}

impl Terms {
    pub fn new(config: &Config) -> Self {
        Self {
            renderer: Renderer::new(&config.identity),
            rules: config.auth.session.clone(),
        }
    }

    fn session(&self, found: db::sessions::Found) -> Session {
        let headers = self
            .renderer
            .render(&found.identity, found.id, found.created_at, &found.methods);
        // Extended once `refresh_after` of its present life has gone by.
        let refresh_at = found.remembered.then(|| {
            found
                .expires_at
                .minus(self.rules.expires_in)
                .plus(self.rules.refresh_after)
        });
        Session {
            id: found.id,
            identity: Arc::new(found.identity),
            methods: found.methods,
            created_at: found.created_at,
            expires_at: found.expires_at,
            refresh_at,
            extending: AtomicBool::new(false),
            last_seen: AtomicI64::new(found.last_seen_at.map_or(0, Timestamp::micros)),
            headers,
            assertions: Assertions::default(),
        }
    }
}

/// What [`Sessions`] is made of.
#[derive(Debug)]
pub struct Parts {
    pub db: Db,
    pub cold: Handle,
    pub terms: Terms,
    pub mint: Mint,
    pub cache: config::Cache,
    /// For a look-up as a whole, connection and answer.
    pub lookup_timeout: Duration,
    pub places: Places,
}

impl Sessions {
    pub fn new(parts: Parts) -> Self {
        let follow_sessions = parts.terms.rules.close_streams_on_revoke;
        let terms = Arc::new(ArcSwap::from_pointee(parts.terms));
        let limits = Limits {
            // Each has a connection: whoever asks for more would wait for one.
            queries: parts.db.hot.max_size(),
            waiting: parts.cache.lookup_queue,
        };
        let look_ups = LookUps::new(
            Postgres {
                db: parts.db.clone(),
                cold: parts.cold.clone(),
                terms: Arc::clone(&terms),
                patience: parts.lookup_timeout,
                attempts: Attempts::default(),
            },
            limits,
        );
        Self {
            known: Known::lasting(parts.cache.ttl, parts.cache.outage_grace, parts.cache.capacity),
            look_ups: Arc::new(look_ups),
            db: parts.db,
            cold: parts.cold,
            vigil: Vigil::new(Trust::Deaf),
            hearing: Notify::new(),
            streams: Streams::new(follow_sessions),
            terms,
            mint: parts.mint,
            lookup_timeout: parts.lookup_timeout,
            recheck_every: parts.cache.ttl,
            places: Arc::new(parts.places),
            last_seen: LastSeen::default(),
            extensions: Extensions::default(),
            strangers: Strangers::default(),
            counters: Counters::default(),
        }
    }

    /// What look-ups go by from here on. Sessions that are cached hold what the old terms made of them: they are
    /// forgotten, after the store, so that no look-up brings one back.
    pub fn replace_terms(&self, terms: Terms) {
        self.terms.store(Arc::new(terms));
        self.known.forget_everything();
    }

    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    /// How often the cache knew a token to be nobody's; each is a hit, too.
    pub fn unknown_hits(&self) -> u64 {
        self.known.unknown_hits()
    }

    /// How well revocations are heard.
    pub const fn vigil(&self) -> &Vigil {
        &self.vigil
    }

    pub fn cached(&self) -> u64 {
        self.known.len()
    }

    pub const fn look_ups(&self) -> &Arc<LookUps<Postgres>> {
        &self.look_ups
    }

    pub const fn places(&self) -> &Arc<Places> {
        &self.places
    }

    pub const fn last_seen(&self) -> &LastSeen {
        &self.last_seen
    }

    /// Writes when sessions were last seen, for the end: once nobody uses any.
    pub async fn write_last_seen(&self) {
        self.last_seen.write_out(&self.db, &self.places).await;
    }

    pub const fn streams(&self) -> &Streams {
        &self.streams
    }

    /// How often look-ups were refused to those who show tokens that are nobody's.
    pub fn refused_strangers(&self) -> u64 {
        self.strangers.refused()
    }

    /// Who signs what upstreams are told.
    pub const fn mint(&self) -> &Mint {
        &self.mint
    }

    /// Registers a stream for as long as the guard lives: whoever moves its bytes ends it when the guard says so. What
    /// happened since `session` was authenticated and the request judged is not lost: see [`streams`].
    pub fn stream(&self, about: About, session: Option<&Arc<Session>>, now: Timestamp) -> StreamGuard {
        let hash = about.session.map(|holder| holder.hash);
        let guard = self.streams.register(about);
        if let (Some(hash), Some(session)) = (hash, session) {
            // After it was registered: whatever changed has either taken this very session out of the cache by now, where
            // another may be in its place, or finds the stream.
            let is_current = self.trust() == Trust::Hearing
                && matches!(self.known.get(&hash, now), Some(Some(known)) if Arc::ptr_eq(&known, session));
            if !is_current {
                self.streams.doubt(&hash);
            }
        }
        guard
    }

    /// The live session that `hash` stands for. A hit awaits nothing and takes no lock.
    pub async fn authenticate(
        self: &Arc<Self>,
        hash: &TokenHash,
        now: Timestamp,
    ) -> Result<Option<Arc<Session>>, LookupError> {
        if let Some(known) = self.known.get(hash, now) {
            self.counters.hits.add_one();
            return Ok(known);
        }
        // In a box: a hit has no use for it, and the future of each request would have room for it.
        Box::pin(self.ask(hash, now)).await
    }

    /// As [`Sessions::authenticate`], for a token that nothing proves to be ours, shown from an address. Whoever makes
    /// tokens up is not asked for ever ([`strangers`]).
    pub async fn authenticate_unproven(
        self: &Arc<Self>,
        hash: &TokenHash,
        from: IpAddr,
        now: Timestamp,
    ) -> Result<Option<Arc<Session>>, LookupError> {
        if let Some(known) = self.known.get(hash, now) {
            self.counters.hits.add_one();
            return Ok(known);
        }
        let asked = async {
            self.may_be_anybodys(hash, from, now)?;
            let found = self.ask(hash, now).await?;
            self.turned_out(hash, found.is_some(), from, now);
            Ok(found)
        };
        Box::pin(asked).await
    }

    /// Whether a token that nothing proves to be ours may be looked up. To be followed by [`Sessions::turned_out`].
    pub fn may_be_anybodys(&self, hash: &TokenHash, from: IpAddr, now: Timestamp) -> Result<(), LookupError> {
        let budget = self.terms.load().rules.unknown_tokens;
        self.strangers
            .may_ask(hash, Network::of(from), budget, now)
            .map_err(LookupError::TooManyUnknown)
    }

    /// Whether it was somebody's.
    pub fn turned_out(&self, hash: &TokenHash, is_known: bool, from: IpAddr, now: Timestamp) {
        let budget = self.terms.load().rules.unknown_tokens;
        self.strangers.answered(hash, is_known, Network::of(from), budget, now);
    }

    /// Asks Postgres.
    async fn ask(&self, hash: &TokenHash, now: Timestamp) -> Result<Option<Arc<Session>>, LookupError> {
        self.counters.misses.fetch_add(1, Ordering::Relaxed);
        // When a look-up that is shared fails, the next of those who wait tries again: the time is for all of that together,
        // or they would fail one after the other.
        let asking = self.known.ask(hash, now, self.look_up(*hash, now));
        let found = timeout(self.lookup_timeout.saturating_add(SHARING), asking).await;
        let found = found.unwrap_or(Err(LookupError::Timeout(self.lookup_timeout)));
        found.inspect_err(|_| {
            self.counters.failures.fetch_add(1, Ordering::Relaxed);
        })
    }

    /// The live session that `hash` stands for, as Postgres knows it now, whatever has been heard.
    async fn check(&self, hash: &TokenHash, now: Timestamp) -> Result<Option<Arc<Session>>, LookupError> {
        let found = match self.trust() {
            Trust::Hearing | Trust::Deaf => self.known.check(hash, self.look_up(*hash, now)).await,
            Trust::Unreachable => Err(LookupError::Unreachable),
        };
        found.inspect_err(|_| {
            self.counters.failures.fetch_add(1, Ordering::Relaxed);
        })
    }

    /// Notes that `session` was used, and says whether its expiry is due to slide: once for each look-up, however
    /// many requests come before it has slid.
    pub fn used(&self, session: &Session, from: IpAddr, now: Timestamp) -> bool {
        self.last_seen.note(session, from, now);
        let is_due = session
            .refresh_at
            .is_some_and(|at| now >= at && now.plus(self.terms.load().rules.last_moments()) < session.expires_at);
        is_due && !session.extending.swap(true, Ordering::Relaxed)
    }

    /// To be called after the commit of a revocation, before it is answered. Its streams end.
    pub fn end(&self, hash: &TokenHash) {
        self.known.forget(hash);
        self.streams.close_session(hash);
    }

    /// The same for all sessions of a user.
    pub fn end_user(&self, user: UserId) {
        self.known.forget_user(user);
        self.streams.close_user(user);
    }

    /// For a change of a session that goes on, after its commit. Its streams go on if it does.
    pub fn forget(&self, hash: &TokenHash) {
        self.known.forget(hash);
        self.streams.doubt(hash);
    }

    /// The same for a change of who somebody is. Streams that they may no longer have end.
    pub fn forget_user(&self, user: UserId) {
        self.known.forget_user(user);
        self.streams.doubt_user(user);
    }

    /// What the listening connection says.
    pub fn hear(&self, heard: Heard) {
        match heard {
            // It may have been extended or ended, by anybody.
            Heard::Session(hash) => self.forget(&hash),
            Heard::User(user) => self.forget_user(user),
            Heard::Keys => self.mint.ring_bell(),
            Heard::Everything => {
                self.known.forget_everything();
                self.mint.ring_bell();
                self.streams.doubt_everything();
            }
            Heard::Hearing => {
                self.known.hears();
                self.vigil.turned(self.trust());
                self.streams.doubt_everything();
                self.mint.ring_bell();
                self.hearing.notify_waiters();
            }
            // It is for the numbers alone.
            Heard::Echo(_) => {}
            Heard::Deaf { reachable } => {
                match reachable {
                    Some(reachable) => self.known.is_deaf(reachable),
                    None => self.known.may_be_unreachable(),
                }
                self.vigil.turned(self.trust());
            }
        }
        self.vigil.note(heard);
    }

    /// Resolves once revocations are heard.
    pub async fn hearing(&self) {
        let heard = self.hearing.notified();
        if self.trust() != Trust::Hearing {
            heard.await;
        }
    }

    pub fn trust(&self) -> Trust {
        self.known.trust()
    }

    async fn look_up(&self, hash: TokenHash, now: Timestamp) -> Result<Found, LookupError> {
        let found = timeout(self.lookup_timeout, self.look_ups.find(hash, now)).await;
        found.unwrap_or(Err(LookupError::Timeout(self.lookup_timeout)))
    }
}
