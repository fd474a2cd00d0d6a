//! What lasts longer than a request: tunnels, event streams and gRPC calls, each with the session that it began in.
//!
//! An ordinary request that has begun is finished whatever becomes of its session; a stream could go on for days. So
//! each is registered while it lasts, and told to end when its session has ended, when its user may no longer take its
//! route, or when a new configuration no longer allows it.
//!
//! Two ways lead there. A revocation *here* closes at once, before it is answered ([`Streams::close_session`]). Whatever
//! else happened to a session (a notification, a time that has come, a while of deafness) only makes it *doubtful*: it
//! is looked up again ([`watch`]), since it may have been extended, or be somebody's with another name now. A doubt that
//! nobody can resolve, Postgres being away, stays one; but an expiry that can't be disproved for [`GIVE_UP_AFTER`] counts.
//!
//! A stream is registered when its answer begins, which may be long after its request was judged. What happens in between
//! finds no stream yet, so it is made up for:
//!
//! - The session ended, or is somebody's with fewer roles now: it was registered before the closing, and is closed; or
//!   after it, when the cache has forgotten the very session that the request was authenticated by, which makes it
//!   doubtful at once (`Sessions::stream`).
//! - A new configuration came into force: it began in an earlier [`Era`], and is judged as it is registered.
//! - All were closed because the gateway stops: so is it.
//!
//! Ordinary requests never come here.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    future::poll_fn,
    slice,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{StreamExt, stream, task::AtomicWaker};
use http::{Method, uri::PathAndQuery};
use tokio::{
    sync::Notify,
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use super::Sessions;
use crate::{
    clock::{Clock, Timestamp},
    config::Era,
    identity::{Session, SessionId, UserId},
    secret::TokenHash,
};

/// How often expiries are looked at, and look-ups that failed are tried again.
const TICK: Duration = Duration::from_secs(1);
/// Look-ups of doubtful sessions at once: they share connections with requests that miss the cache.
const LOOKUPS_AT_ONCE: usize = 8;
/// How long after its known expiry a session that can't be looked up passes for one that was extended.
const GIVE_UP_AFTER: Duration = Duration::from_mins(1);

/// The streams that are open. One for the whole gateway; clones are the same.
#[derive(Clone)]
pub struct Streams {
    shared: Arc<Shared>,
}

struct Shared {
    /// `auth.session.close_streams_on_revoke`: without it only a new configuration closes streams.
    follow_sessions: bool,
    state: Mutex<State>,
    /// Rung when a session has become doubtful.
    doubt: Notify,
    /// By [`Why`].
    closed: [AtomicU64; Why::ALL.len()],
}

#[derive(Default)]
struct State {
    next: u64,
    open: HashMap<u64, Open>,
    sessions: HashMap<TokenHash, Held>,
    /// Which sessions with streams are a user's.
    users: HashMap<UserId, Vec<TokenHash>>,
    doubtful: HashSet<TokenHash>,
    /// Since the first reload.
    rules: Option<Rules>,
    /// All were closed, and none may begin.
    stopping: bool,
}

/// What a stream that began in an earlier era is judged by.
#[derive(Clone)]
struct Rules {
    era: Era,
    may_go_on: Arc<JudgeOfRoutes>,
}

#[derive(Clone)]
struct Open {
    about: Arc<About>,
    end: Arc<End>,
}

/// A session with streams.
struct Held {
    user: UserId,
    /// As far as is known: it may have been extended since.
    expires_at: Timestamp,
    /// That expiry made it doubtful already.
    expiry_noticed: bool,
    streams: Vec<u64>,
}

/// What a stream is, for whoever judges whether it may go on.
pub struct About {
    /// `None` on a route, or for a person, without one: no revocation ends it.
    pub session: Option<Holder>,
    /// As routes match it: in lower case, without port.
    pub host: Box<str>,
    /// As it was matched, before any rewriting.
    pub path: PathAndQuery,
    pub method: Method,
    /// A tunnel, rather than an answer that goes on.
    pub upgrade: bool,
    pub since: Timestamp,
    /// Whose rules its request was judged by.
    pub era: Era,
}

/// Whose session a stream began in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Holder {
    pub hash: TokenHash,
    pub session: SessionId,
    pub user: UserId,
    pub expires_at: Timestamp,
}

impl Holder {
    pub fn new(hash: TokenHash, session: &Session) -> Self {
        Self {
            hash,
            session: session.id,
            user: session.identity.id,
            expires_at: session.expires_at,
        }
    }
}

/// Why a stream has to end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum Why {
    /// Its session was revoked, or its user banned or deleted.
    Revoked = 1,
    /// Its session's time is over.
    Expired = 2,
    /// The user may not take the route any more: a role was taken away.
    NotAllowed = 3,
    /// A new configuration has no such route, or demands more of it.
    Reloaded = 4,
    /// The gateway stops, and has waited for it.
    Stopping = 5,
}

impl Why {
    pub const ALL: [Self; 5] = [
        Self::Revoked,
        Self::Expired,
        Self::NotAllowed,
        Self::Reloaded,
        Self::Stopping,
    ];

    /// As metrics and logs have it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Revoked => "revoked",
            Self::Expired => "expired",
            Self::NotAllowed => "not-allowed",
            Self::Reloaded => "reloaded",
            Self::Stopping => "stopping",
        }
    }

    fn of(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|why| *why as u8 == code)
    }
}

/// How a stream is told to end.
#[derive(Default)]
struct End {
    /// 0 while it may go on, else a [`Why`].
    why: AtomicU8,
    waker: AtomicWaker,
}

impl End {
    fn why(&self) -> Option<Why> {
        Why::of(self.why.load(Ordering::Acquire))
    }
}

/// A stream's place in the registry, given up on drop. Whoever moves the bytes watches it.
pub struct StreamGuard {
    shared: Arc<Shared>,
    id: u64,
    end: Arc<End>,
}

impl StreamGuard {
    /// Ready once the stream has to end. One task at a time may wait: the last that polled is woken.
    pub fn poll_closed(&self, cx: &Context<'_>) -> Poll<Why> {
        if let Some(why) = self.end.why() {
            return Poll::Ready(why);
        }
        self.end.waker.register(cx.waker());
        // It may have been closed between looking and registering.
        self.end.why().map_or(Poll::Pending, Poll::Ready)
    }

    /// Resolves once the stream has to end. Cancel-safe.
    pub async fn closed(&self) -> Why {
        poll_fn(|cx| self.poll_closed(cx)).await
    }
}

impl Drop for StreamGuard {
    fn drop(&mut self) {
        self.shared.state().remove(self.id);
    }
}

impl Streams {
    pub(super) fn new(follow_sessions: bool) -> Self {
        Self {
            shared: Arc::new(Shared {
                follow_sessions,
                state: Mutex::default(),
                doubt: Notify::new(),
                closed: Default::default(),
            }),
        }
    }

    /// By `Sessions::stream` alone, which sees to what happened to the session meanwhile.
    pub(super) fn register(&self, about: About) -> StreamGuard {
        let end = Arc::<End>::default();
        let open = Open {
            about: Arc::new(about),
            end: Arc::clone(&end),
        };
        let mut state = self.shared.state();
        let id = state.insert(open.clone());
        let newer = state.rules.as_ref().filter(|rules| open.about.era < rules.era);
        let newer = newer.map(|rules| Arc::clone(&rules.may_go_on));
        let stopping = state.stopping;
        drop(state);
        let guard = StreamGuard {
            shared: Arc::clone(&self.shared),
            id,
            end,
        };
        if stopping {
            self.shared.close(slice::from_ref(&guard.end), Why::Stopping);
        }
        if let Some(may_go_on) = newer {
            let hash = open.about.session.map(|holder| holder.hash);
            self.close_unless(vec![open], &*may_go_on);
            self.doubt_those(|_| hash.into_iter().collect());
        }
        guard
    }

    /// How many are open.
    pub fn open(&self) -> usize {
        self.shared.state().open.len()
    }

    /// How many were told to end.
    pub fn closed(&self) -> [(Why, u64); Why::ALL.len()] {
        let [revoked, expired, not_allowed, reloaded, stopping] = &self.shared.closed;
        [
            (Why::Revoked, revoked),
            (Why::Expired, expired),
            (Why::NotAllowed, not_allowed),
            (Why::Reloaded, reloaded),
            (Why::Stopping, stopping),
        ]
        .map(|(why, count)| (why, count.load(Ordering::Relaxed)))
    }

    /// Closes the streams of a session that was revoked.
    pub fn close_session(&self, hash: &TokenHash) {
        self.end_session(hash, Why::Revoked);
    }

    /// Closes the streams of a user all of whose sessions were revoked.
    pub fn close_user(&self, user: UserId) {
        if !self.shared.follow_sessions {
            return;
        }
        let ends = {
            let state = self.shared.state();
            let hashes = state.users.get(&user).into_iter().flatten();
            hashes.flat_map(|hash| state.ends_of(hash)).collect::<Vec<_>>()
        };
        self.shared.close(&ends, Why::Revoked);
    }

    /// Closes those of which `may_go_on` says no, and has [`watch`] judge the others by who their users are: for when the
    /// configuration of `era` is in force, in every worker. Those that are still to come from earlier ones are judged then.
    pub fn judge(&self, era: Era, may_go_on: Arc<JudgeOfRoutes>) {
        // Judged without the lock: it may take a while, and streams begin and end meanwhile.
        let rules = Rules { era, may_go_on };
        let open = {
            let mut state = self.shared.state();
            state.rules = Some(rules.clone());
            state.open.values().cloned().collect()
        };
        self.close_unless(open, &*rules.may_go_on);
        self.doubt_those(|state| state.sessions.keys().copied().collect());
    }

    fn close_unless(&self, open: Vec<Open>, may_go_on: &JudgeOfRoutes) {
        let may_not = open.into_iter().filter(|open| !may_go_on(&open.about));
        let ends: Vec<_> = may_not.map(|open| open.end).collect();
        self.shared.close(&ends, Why::Reloaded);
    }

    /// Closes all, and those that are still to come: the gateway stops.
    pub fn close_everything(&self) {
        let ends: Vec<_> = {
            let mut state = self.shared.state();
            state.stopping = true;
            state.open.values().map(|open| Arc::clone(&open.end)).collect()
        };
        self.shared.close(&ends, Why::Stopping);
    }

    /// Something happened to a session, if it has streams at all: it has to be looked up.
    pub(super) fn doubt(&self, hash: &TokenHash) {
        if self.shared.follow_sessions {
            self.doubt_those(|state| state.sessions.contains_key(hash).then_some(*hash).into_iter().collect());
        }
    }

    /// The same for all sessions of a user.
    pub(super) fn doubt_user(&self, user: UserId) {
        if self.shared.follow_sessions {
            self.doubt_those(|state| state.users.get(&user).cloned().unwrap_or_default());
        }
    }

    pub(super) fn doubt_everything(&self) {
        if self.shared.follow_sessions {
            self.doubt_those(|state| state.sessions.keys().copied().collect());
        }
    }

    fn doubt_those(&self, which: impl FnOnce(&State) -> Vec<TokenHash>) {
        let mut state = self.shared.state();
        let which = which(&state);
        let any = !which.is_empty();
        state.doubtful.extend(which);
        drop(state);
        if any {
            self.shared.doubt.notify_one();
        }
    }

    /// All doubtful sessions; they are in doubt no more, so that a doubt that comes up later counts anew.
    fn take_doubtful(&self, now: Timestamp) -> Vec<TokenHash> {
        let mut state = self.shared.state();
        if self.shared.follow_sessions {
            let State { sessions, doubtful, .. } = &mut *state;
            for (hash, held) in sessions {
                if now >= held.expires_at && !held.expiry_noticed {
                    held.expiry_noticed = true;
                    doubtful.insert(*hash);
                }
            }
        }
        state.doubtful.drain().collect()
    }

    fn end_session(&self, hash: &TokenHash, why: Why) {
        if !self.shared.follow_sessions {
            return;
        }
        let ends: Vec<_> = self.shared.state().ends_of(hash).collect();
        self.shared.close(&ends, why);
    }

    /// What a look-up of a doubtful session found.
    fn looked_up(&self, hash: &TokenHash, found: Option<&Session>, may_go_on: &Judge, now: Timestamp) {
        let Some(session) = found else {
            let why = match self.shared.state().sessions.get(hash) {
                Some(held) if now >= held.expires_at => Why::Expired,
                Some(_) | None => Why::Revoked,
            };
            self.end_session(hash, why);
            return;
        };
        let streams: Vec<_> = {
            let mut state = self.shared.state();
            let Some(held) = state.sessions.get_mut(hash) else {
                return;
            };
            held.expires_at = session.expires_at;
            held.expiry_noticed = false;
            state.open_of(hash).cloned().collect()
        };
        let ends: Vec<_> = streams
            .into_iter()
            .filter(|open| !may_go_on(&open.about, session))
            .map(|open| open.end)
            .collect();
        self.shared.close(&ends, Why::NotAllowed);
    }

    /// Nobody could tell: the next tick asks again, unless its time has been over for a while.
    fn not_looked_up(&self, hash: TokenHash, now: Timestamp) {
        let mut state = self.shared.state();
        let Some(held) = state.sessions.get(&hash) else { return };
        if now < held.expires_at.plus(GIVE_UP_AFTER) {
            state.doubtful.insert(hash);
            return;
        }
        drop(state);
        self.end_session(&hash, Why::Expired);
    }
}

/// Whether a stream may go on, whoever it is whose it is.
pub type JudgeOfRoutes = dyn Fn(&About) -> bool + Send + Sync;

/// Whether a stream may go on in a session as it is now.
pub type Judge = dyn Fn(&About, &Session) -> bool + Send + Sync;

/// Looks doubtful sessions up and closes the streams of those that have ended, until `stop`. `may_go_on` judges whether
/// the user may still take the stream's route, who they are having perhaps changed. Cancel-safe.
pub async fn watch(sessions: Arc<Sessions>, clock: Clock, may_go_on: Arc<Judge>, stop: CancellationToken) {
    let streams = sessions.streams();
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            () = streams.shared.doubt.notified() => {}
            () = stop.cancelled() => return,
        }
        let now = clock.now();
        let doubtful = stream::iter(streams.take_doubtful(now));
        let resolving = doubtful.for_each_concurrent(LOOKUPS_AT_ONCE, |hash| {
            resolve(Arc::clone(&sessions), hash, Arc::clone(&may_go_on), now)
        });
        if stop.run_until_cancelled(resolving).await.is_none() {
            return;
        }
    }
}

async fn resolve(sessions: Arc<Sessions>, hash: TokenHash, may_go_on: Arc<Judge>, now: Timestamp) {
    let streams = sessions.streams();
    match sessions.authenticate(&hash, now).await {
        Ok(found) => streams.looked_up(&hash, found.as_deref(), &*may_go_on, now),
        Err(_) => streams.not_looked_up(hash, now),
    }
}

impl Shared {
    /// Nothing that is done under it can panic half way.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Without the lock: whoever is woken gives its place up.
    fn close(&self, ends: &[Arc<End>], why: Why) {
        let Some(count) = self.closed.get(usize::from(why as u8) - 1) else {
            return;
        };
        for end in ends {
            let first = end
                .why
                .compare_exchange(0, why as u8, Ordering::AcqRel, Ordering::Acquire);
            if first.is_ok() {
                count.fetch_add(1, Ordering::Relaxed);
                end.waker.wake();
            }
        }
    }
}

impl State {
    fn insert(&mut self, open: Open) -> u64 {
        let id = self.next;
        self.next += 1;
        if let Some(holder) = open.about.session {
            let held = self.sessions.entry(holder.hash).or_insert_with(|| {
                self.users.entry(holder.user).or_default().push(holder.hash);
                Held {
                    user: holder.user,
                    expires_at: holder.expires_at,
                    expiry_noticed: false,
                    streams: Vec::new(),
                }
            });
            // The newest look-up knows best: expiries only move away.
            held.expires_at = held.expires_at.max(holder.expires_at);
            held.streams.push(id);
        }
        self.open.insert(id, open);
        id
    }

    fn remove(&mut self, id: u64) {
        let Some(open) = self.open.remove(&id) else { return };
        let Some(Holder { hash, .. }) = open.about.session else {
            return;
        };
        let Some(held) = self.sessions.get_mut(&hash) else {
            return;
        };
        held.streams.retain(|stream| *stream != id);
        if !held.streams.is_empty() {
            return;
        }
        let user = held.user;
        self.sessions.remove(&hash);
        self.doubtful.remove(&hash);
        if let Some(hashes) = self.users.get_mut(&user) {
            hashes.retain(|other| *other != hash);
            if hashes.is_empty() {
                self.users.remove(&user);
            }
        }
    }

    fn open_of(&self, hash: &TokenHash) -> impl Iterator<Item = &Open> {
        let ids = self.sessions.get(hash).into_iter().flat_map(|held| &held.streams);
        ids.filter_map(|id| self.open.get(id))
    }

    fn ends_of(&self, hash: &TokenHash) -> impl Iterator<Item = Arc<End>> {
        self.open_of(hash).map(|open| Arc::clone(&open.end))
    }
}

impl fmt::Debug for Streams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Streams({} open)", self.open())
    }
}

impl fmt::Debug for StreamGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StreamGuard({}, {:?})", self.id, self.end.why())
    }
}

/// Without the query: it may hold what is nobody else's business.
impl fmt::Debug for About {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}{}", self.method, self.host, self.path.path())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicI64};

    use futures_util::task::noop_waker_ref;
    use uuid::Uuid;

    use super::*;
    use crate::{
        fields::Lines,
        identity::{Assertions, Identity},
    };

    const NOW: Timestamp = Timestamp::from_secs(1_000);
    const LATER: Timestamp = Timestamp::from_secs(2_000);

    fn user(number: u128) -> UserId {
        UserId(Uuid::from_u128(number))
    }

    fn hash(number: u8) -> TokenHash {
        TokenHash::of(&[number])
    }

    fn about(session: Option<(u8, u128)>) -> About {
        About {
            session: session.map(|(token, owner)| Holder {
                hash: hash(token),
                session: SessionId(Uuid::from_u128(token.into())),
                user: user(owner),
                expires_at: LATER,
            }),
            host: "app.example.com".into(),
            path: PathAndQuery::from_static("/api/ws?ticket=x"),
            method: Method::GET,
            upgrade: true,
            since: NOW,
            era: Era::default(),
        }
    }

    fn session(owner: u128, roles: &[&str], expires_at: Timestamp) -> Session {
        Session {
            id: SessionId(Uuid::nil()),
            identity: Arc::new(Identity {
                id: user(owner),
                email: "ada@example.test".to_owned(),
                email_verified: true,
                name: "Ada".to_owned(),
                roles: roles.iter().map(|role| (*role).to_owned()).collect(),
            }),
            created_at: NOW,
            expires_at,
            refresh_at: None,
            extending: AtomicBool::new(false),
            last_seen: AtomicI64::new(0),
            headers: Lines::new(),
            assertions: Assertions::default(),
            methods: Vec::new(),
        }
    }

    fn why(guard: &StreamGuard) -> Option<Why> {
        match guard.poll_closed(&Context::from_waker(noop_waker_ref())) {
            Poll::Ready(why) => Some(why),
            Poll::Pending => None,
        }
    }

    #[test]
    fn a_revoked_session_s_streams_end_and_nobody_else_s() {
        let streams = Streams::new(true);
        let [own, also, other, nobodys] =
            [Some((1, 1)), Some((1, 1)), Some((2, 1)), None].map(|session| streams.register(about(session)));
        streams.close_session(&hash(1));
        assert_eq!(
            [&own, &also, &other, &nobodys].map(why),
            [Some(Why::Revoked), Some(Why::Revoked), None, None]
        );
        streams.close_user(user(2));
        assert_eq!(why(&other), None);
        streams.close_user(user(1));
        assert_eq!([&other, &nobodys].map(why), [Some(Why::Revoked), None]);
        assert_eq!(streams.closed()[0], (Why::Revoked, 3), "each is counted once");
    }

    #[tokio::test]
    async fn whoever_waits_is_woken() {
        let streams = Streams::new(true);
        let guard = streams.register(about(Some((1, 1))));
        let closing = async {
            tokio::task::yield_now().await;
            streams.close_session(&hash(1));
        };
        let (why, ()) = tokio::join!(guard.closed(), closing);
        assert_eq!(why, Why::Revoked);
    }

    #[test]
    fn nothing_is_left_of_a_stream_that_ended() {
        let streams = Streams::new(true);
        let guards = [Some((1, 1)), Some((1, 1)), Some((2, 1)), None].map(|session| streams.register(about(session)));
        streams.doubt_everything();
        assert_eq!(streams.open(), 4);
        drop(guards);
        let state = streams.shared.state();
        assert!(state.open.is_empty() && state.sessions.is_empty() && state.users.is_empty());
        assert!(state.doubtful.is_empty());
    }

    #[test]
    fn a_doubt_is_resolved_by_what_is_found() {
        let streams = Streams::new(true);
        let guard = streams.register(about(Some((1, 1))));
        assert_eq!(streams.take_doubtful(NOW), []);
        streams.doubt(&hash(2));
        streams.doubt_user(user(2));
        assert_eq!(streams.take_doubtful(NOW), [], "they have no streams");
        streams.doubt_user(user(1));
        assert_eq!(streams.take_doubtful(NOW), [hash(1)]);
        assert_eq!(streams.take_doubtful(NOW), []);

        let is_admin = |_: &About, session: &Session| session.identity.roles.contains(&"admin".to_owned());
        let found = session(1, &["admin"], LATER);
        streams.looked_up(&hash(1), Some(&found), &is_admin, NOW);
        assert_eq!(why(&guard), None);
        streams.looked_up(&hash(1), Some(&session(1, &[], LATER)), &is_admin, NOW);
        assert_eq!(why(&guard), Some(Why::NotAllowed));

        let guard = streams.register(about(Some((3, 1))));
        streams.looked_up(&hash(3), None, &is_admin, NOW);
        assert_eq!(why(&guard), Some(Why::Revoked));
    }

    #[test]
    fn an_expiry_counts_unless_it_has_moved() {
        let streams = Streams::new(true);
        let guard = streams.register(about(Some((1, 1))));
        let anybody = |_: &About, _: &Session| true;
        assert_eq!(streams.take_doubtful(LATER), [hash(1)]);
        assert_eq!(streams.take_doubtful(LATER), [], "it is being looked up");
        let moved = LATER.plus(Duration::from_hours(1));
        streams.looked_up(&hash(1), Some(&session(1, &[], moved)), &anybody, LATER);
        assert_eq!((streams.take_doubtful(LATER), why(&guard)), (vec![], None));
        assert_eq!(streams.take_doubtful(moved), [hash(1)]);
        streams.looked_up(&hash(1), None, &anybody, moved);
        assert_eq!(why(&guard), Some(Why::Expired));
    }

    #[test]
    fn a_doubt_that_nobody_resolves_stays_one_until_the_session_is_long_over() {
        let streams = Streams::new(true);
        let guard = streams.register(about(Some((1, 1))));
        for now in [NOW, LATER] {
            streams.not_looked_up(hash(1), now);
            assert_eq!((streams.take_doubtful(now), why(&guard)), (vec![hash(1)], None));
        }
        streams.not_looked_up(hash(1), LATER.plus(GIVE_UP_AFTER));
        assert_eq!(why(&guard), Some(Why::Expired));
    }

    #[test]
    fn new_rules_are_judged_by_what_a_stream_is() {
        let streams = Streams::new(false);
        let [own, nobodys] = [Some((1, 1)), None].map(|session| streams.register(about(session)));
        let rules = |about: &About| about.session.is_some() && &*about.host == "app.example.com";
        streams.judge(Era::default().following(), Arc::new(rules));
        assert_eq!([&own, &nobodys].map(why), [None, Some(Why::Reloaded)]);
        assert_eq!(streams.take_doubtful(NOW), [hash(1)], "who they are is judged next");
    }

    #[test]
    fn new_rules_are_those_of_a_stream_that_began_before_them_and_is_registered_later() {
        let streams = Streams::new(false);
        let second = Era::default().following();
        streams.judge(second.clone(), Arc::new(|about: &About| about.session.is_some()));
        let [own, nobodys] = [Some((1, 1)), None].map(|session| streams.register(about(session)));
        assert_eq!([&own, &nobodys].map(why), [None, Some(Why::Reloaded)]);
        assert_eq!(streams.take_doubtful(NOW), [hash(1)], "who they are is judged next");

        let [own, nobodys] = [Some((2, 1)), None].map(|session| {
            streams.register(About {
                era: second.clone(),
                ..about(session)
            })
        });
        assert_eq!(
            [&own, &nobodys].map(why),
            [None, None],
            "their requests were judged by them"
        );
        assert_eq!(streams.take_doubtful(NOW), []);
    }

    #[test]
    fn no_stream_begins_once_all_were_closed() {
        let streams = Streams::new(true);
        let early = streams.register(about(None));
        streams.close_everything();
        let late = streams.register(about(Some((1, 1))));
        assert_eq!([&early, &late].map(why), [Some(Why::Stopping); 2]);
        assert_eq!(streams.closed()[4], (Why::Stopping, 2));
    }

    #[test]
    fn told_not_to_follow_sessions_it_does_not() {
        let streams = Streams::new(false);
        let guard = streams.register(about(Some((1, 1))));
        streams.close_session(&hash(1));
        streams.close_user(user(1));
        streams.doubt_everything();
        assert_eq!((streams.take_doubtful(LATER), why(&guard)), (vec![], None));
    }
}
