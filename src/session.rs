//! What a session token means: from the cache if it can be trusted, else from Postgres.
//!
//! The promise: once a revoking call has answered, no later request on this gateway passes; elsewhere the moment the
//! notification arrives; and never later than `cache.ttl`. While revocations can't be heard the cache is not trusted
//! and every session is checked; while Postgres can't be reached at all, a session that was checked within
//! `cache.ttl` still passes and everything else is refused at once.

pub mod assertion;
pub mod cache;
pub mod credential;
pub mod device;
pub mod geo;
pub mod identity_headers;
pub mod last_seen;
pub mod sign_out;
pub mod strangers;
pub mod streams;
pub mod vigil;

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::{runtime::Handle, sync::Notify, time::timeout};
use tracing::warn;

use self::{
    assertion::Mint,
    cache::{Found, SessionCache},
    geo::Places,
    identity_headers::Renderer,
    last_seen::LastSeen,
    strangers::Strangers,
    streams::{About, StreamGuard, Streams},
    vigil::Vigil,
};
use crate::{
    chain::Chain,
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
    cache: SessionCache,
    db: Db,
    /// Look-ups run here, never on a thread of the data path: connections to Postgres belong to this runtime.
    cold: Handle,
    trust: AtomicU8,
    vigil: Vigil,
    /// Rung when revocations begin to be heard.
    hearing: Notify,
    /// Replaced by a reload.
    terms: ArcSwap<Terms>,
    lookup_timeout: Duration,
    places: Arc<Places>,
    last_seen: LastSeen,
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

/// May the cache be believed?
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum Trust {
    /// Every revocation is heard.
    Hearing = 0,
    /// Revocations may go unheard, Postgres answers: check each session.
    Deaf = 1,
    /// Postgres can't be reached: nobody waits for it.
    Unreachable = 2,
}

impl Trust {
    pub const ALL: [Self; 3] = [Self::Hearing, Self::Deaf, Self::Unreachable];

    /// How metrics call it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hearing => "hearing",
            Self::Deaf => "deaf",
            Self::Unreachable => "unreachable",
        }
    }
}

/// No answer could be had.
#[derive(Debug, thiserror::Error)]
pub enum LookupError {
    #[error("a session look-up failed")]
    Db(#[from] Arc<DbError>),
    #[error("a session look-up took longer than {0:?}")]
    Timeout(Duration),
    #[error("Postgres can't be reached")]
    Unreachable,
    #[error("too many tokens from there were nobody's; again in {0:?}")]
    TooManyUnknown(Duration),
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
        Self {
            cache: SessionCache::new(parts.cache.ttl, parts.cache.capacity),
            db: parts.db,
            cold: parts.cold,
            trust: AtomicU8::new(Trust::Deaf as u8),
            vigil: Vigil::new(Trust::Deaf),
            hearing: Notify::new(),
            streams: Streams::new(parts.terms.rules.close_streams_on_revoke),
            terms: ArcSwap::from_pointee(parts.terms),
            mint: parts.mint,
            lookup_timeout: parts.lookup_timeout,
            places: Arc::new(parts.places),
            last_seen: LastSeen::default(),
            strangers: Strangers::default(),
            counters: Counters::default(),
        }
    }

    /// What look-ups go by from here on. Sessions that are cached hold what the old terms made of them: they are
    /// forgotten, after the store, so that no look-up brings one back.
    pub fn replace_terms(&self, terms: Terms) {
        self.terms.store(Arc::new(terms));
        self.cache.clear();
    }

    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    /// How often the cache knew a token to be nobody's; each is a hit, too.
    pub fn unknown_hits(&self) -> u64 {
        self.cache.unknown_hits()
    }

    /// How well revocations are heard.
    pub const fn vigil(&self) -> &Vigil {
        &self.vigil
    }

    pub fn cached(&self) -> u64 {
        self.cache.len()
    }

    pub const fn places(&self) -> &Arc<Places> {
        &self.places
    }

    pub const fn last_seen(&self) -> &LastSeen {
        &self.last_seen
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
                && matches!(self.cache.get(&hash, now), Some(Some(known)) if Arc::ptr_eq(&known, session));
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
        let trust = self.trust();
        if trust != Trust::Deaf
            && let Some(known) = self.cache.get(hash, now)
        {
            self.counters.hits.add_one();
            return Ok(known);
        }
        // In a box: a hit has no use for it, and the future of each request would have room for it.
        Box::pin(self.ask(trust, hash, now)).await
    }

    /// As [`Sessions::authenticate`], for a token that nothing proves to be ours, shown from an address. Whoever makes
    /// tokens up is not asked for ever ([`strangers`]).
    pub async fn authenticate_unproven(
        self: &Arc<Self>,
        hash: &TokenHash,
        from: IpAddr,
        now: Timestamp,
    ) -> Result<Option<Arc<Session>>, LookupError> {
        let trust = self.trust();
        if trust != Trust::Deaf
            && let Some(known) = self.cache.get(hash, now)
        {
            self.counters.hits.add_one();
            return Ok(known);
        }
        let asked = async {
            self.may_be_anybodys(hash, from, now)?;
            let found = self.ask(trust, hash, now).await?;
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
    async fn ask(
        self: &Arc<Self>,
        trust: Trust,
        hash: &TokenHash,
        now: Timestamp,
    ) -> Result<Option<Arc<Session>>, LookupError> {
        self.counters.misses.fetch_add(1, Ordering::Relaxed);
        let found = match trust {
            Trust::Hearing => self.cache.find(*hash, now, self.look_up(*hash, now)).await,
            // Neither shared nor stored: who asks after a revocation must not get an answer from before it.
            Trust::Deaf => {
                let found = self.look_up(*hash, now).await;
                if let Ok(found) = &found {
                    // What the cache still says of it will be believed again once Postgres is out of reach.
                    self.cache.correct(hash, found.as_deref());
                }
                found
            }
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
        session.refresh_at.is_some_and(|at| now >= at) && !session.extending.swap(true, Ordering::Relaxed)
    }

    /// Slides the expiry of a session, without anybody waiting for it. Returns what remains of it then.
    pub fn extend(self: &Arc<Self>, hash: TokenHash, now: Timestamp) -> Duration {
        let this = Arc::clone(self);
        let expires_in = self.terms.load().rules.expires_in;
        self.cold.spawn(async move {
            let extended = async {
                let client = this.db.client().await?;
                db::sessions::extend(&client, &hash, now.plus(expires_in), now).await
            };
            match extended.await {
                // The next request reads the new expiry.
                Ok(()) => this.forget(&hash),
                Err(error) => warn!(
                    error = %Chain(&error),
                    "could not extend a session; its next use tries again"
                ),
            }
        });
        expires_in
    }

    /// To be called after the commit of a revocation, before it is answered. Its streams end.
    pub fn end(&self, hash: &TokenHash) {
        self.cache.forget(hash);
        self.streams.close_session(hash);
    }

    /// The same for all sessions of a user.
    pub fn end_user(&self, user: UserId) {
        self.cache.forget_user(user);
        self.streams.close_user(user);
    }

    /// For a change of a session that goes on, after its commit. Its streams go on if it does.
    pub fn forget(&self, hash: &TokenHash) {
        self.cache.forget(hash);
        self.streams.doubt(hash);
    }

    /// The same for a change of who somebody is. Streams that they may no longer have end.
    pub fn forget_user(&self, user: UserId) {
        self.cache.forget_user(user);
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
                self.cache.clear();
                self.mint.ring_bell();
                self.streams.doubt_everything();
            }
            Heard::Hearing => {
                // In this order: what was stored while deaf may be wrong.
                self.cache.clear();
                self.set_trust(Trust::Hearing);
                self.streams.doubt_everything();
                self.mint.ring_bell();
                self.hearing.notify_waiters();
            }
            // It is for the numbers alone.
            Heard::Echo(_) => {}
            Heard::Deaf { reachable: true } => self.set_trust(Trust::Deaf),
            Heard::Deaf { reachable: false } => self.set_trust(Trust::Unreachable),
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
        match self.trust.load(Ordering::Acquire) {
            0 => Trust::Hearing,
            1 => Trust::Deaf,
            _ => Trust::Unreachable,
        }
    }

    fn set_trust(&self, trust: Trust) {
        self.trust.store(trust as u8, Ordering::Release);
        self.vigil.turned(trust);
    }

    async fn look_up(self: &Arc<Self>, hash: TokenHash, now: Timestamp) -> Result<Found, LookupError> {
        let this = Arc::clone(self);
        let asked = self.cold.spawn(async move {
            let client = db::acquire(&this.db.hot).await?;
            let Ok(found) = timeout(this.lookup_timeout, db::sessions::find(&client, &hash, now)).await else {
                // Its answer may still come, or the server is gone: the next look-up must not get this connection.
                drop(deadpool_postgres::Object::take(client));
                return Err(DbError::Unavailable("no answer in time".into()));
            };
            Ok::<_, DbError>(found?.map(|found| Arc::new(this.session(found))))
        });
        match timeout(self.lookup_timeout, asked).await {
            Ok(Ok(Ok(found))) => Ok(found),
            Ok(Ok(Err(error))) => Err(LookupError::Db(Arc::new(error))),
            // It panicked, or the runtime is going down.
            Ok(Err(_)) => Err(LookupError::Unreachable),
            Err(_) => Err(LookupError::Timeout(self.lookup_timeout)),
        }
    }

    fn session(&self, found: db::sessions::Found) -> Session {
        let terms = self.terms.load();
        let headers = terms
            .renderer
            .render(&found.identity, found.id, found.created_at, &found.methods);
        // Extended once `refresh_after` of its present life has gone by.
        let refresh_at = found.remembered.then(|| {
            found
                .expires_at
                .minus(terms.rules.expires_in)
                .plus(terms.rules.refresh_after)
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
