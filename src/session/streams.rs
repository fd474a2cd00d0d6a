//! What lasts longer than a request: tunnels, event streams and gRPC calls, each with the session that it began in.
//!
//! An ordinary request that has begun is finished whatever becomes of its session; a stream could go on for days. So
//! each is registered while it lasts, and told to end when its session has ended, when its user may no longer take its
//! route, or when a new configuration no longer allows it.
//!
//! Two ways lead there. A revocation *here* closes at once, before it is answered ([`Streams::close_session`]). Whatever
//! else happened to a session (a notification, a time that has come, the end of deafness) only makes it *doubtful*: it
//! is looked up again ([`watch`]), since it may have been extended, or be somebody's with another name now. So is each once in
//! `cache.ttl`: something may have happened that nobody tells of. A doubt that nobody can resolve, Postgres being away, stays
//! one; but an expiry that can't be disproved for a minute counts.
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

mod about;
mod doubt;
#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, HashSet, VecDeque},
    fmt,
    future::poll_fn,
    slice,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU8, AtomicU64, Ordering, fence},
    },
    task::{Context, Poll},
};

use futures_util::task::AtomicWaker;
use tokio::sync::Notify;

pub use self::{
    about::{About, Holder, Why},
    doubt::{Judge, watch},
};
use crate::{clock::Timestamp, config::Era, identity::UserId, secret::TokenHash};

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
    /// Something happened to these.
    doubtful: HashSet<TokenHash>,
    /// These are doubtful with all others, or were and nobody could tell: asked for behind those. Some may have no streams any
    /// more.
    doubtful_later: VecDeque<TokenHash>,
    /// Nothing happened to these that anybody knows of, but it is time to look. Some may have no streams any more.
    to_recheck: VecDeque<TokenHash>,
    /// Since the first reload.
    rules: Option<Rules>,
    /// All were closed, and none may begin.
    stopping: bool,
}

/// Whether a stream may go on, whoever it is whose it is.
pub type JudgeOfRoutes = dyn Fn(&About) -> bool + Send + Sync;

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

/// How a stream is told to end.
#[derive(Default)]
struct End {
    /// 0 while it may go on, else a [`Why`].
    why: AtomicU8,
    waker: AtomicWaker,
    /// What else is done at once.
    also: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

impl End {
    fn why(&self) -> Option<Why> {
        Why::of(self.why.load(Ordering::Acquire))
    }

    fn do_the_rest(&self) {
        fence(Ordering::SeqCst);
        if let Some(also) = self.also.get() {
            also();
        }
    }
}

/// Whether a stream has to end, for who does not move its bytes.
pub struct Ending(Arc<End>);

impl Ending {
    pub fn is_due(&self) -> bool {
        self.0.why().is_some()
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

    /// Why it has to end, if it has to.
    pub fn why(&self) -> Option<Why> {
        self.end.why()
    }

    pub fn ending(&self) -> Ending {
        Ending(Arc::clone(&self.end))
    }

    /// Does this as soon as the stream has to end, by whoever has it end: for what must not wait until whoever moves the bytes
    /// comes to it, as they may be waiting for the client. One thing for each stream; brief, and no worse for being done twice.
    pub fn at_its_end(&self, also: impl Fn() + Send + Sync + 'static) {
        let _ = self.end.also.set(Box::new(also));
        // It may have been told meanwhile: of the two, one sees what the other has done.
        fence(Ordering::SeqCst);
        if self.end.why().is_some() {
            self.end.do_the_rest();
        }
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
        self.doubt_all();
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

    fn end_session(&self, hash: &TokenHash, why: Why) {
        if !self.shared.follow_sessions {
            return;
        }
        let ends: Vec<_> = self.shared.state().ends_of(hash).collect();
        self.shared.close(&ends, why);
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
                end.do_the_rest();
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

impl fmt::Debug for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ending({:?})", self.0.why())
    }
}

impl fmt::Debug for StreamGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StreamGuard({}, {:?})", self.id, self.end.why())
    }
}
