//! Sessions that were looked up lately, and the promise that a revoked one is never among them.
//!
//! A cache that loads once and stores what it found can't keep that promise: a look-up that began before a
//! revocation would store its row after it. So look-ups are *listed* while they run; a revocation takes the listing
//! away; and only a look-up that is still listed may store what it found, which ends its listing. A hit takes no lock.
//!
//! A revoked user's sessions are found by an index. Whatever is stored stands in it, once for each storing: who stores
//! writes the index first and looks into it afterwards, since a revocation may have emptied it in between.
//!
//! Unknown tokens are remembered apart and briefly: junk can neither push sessions out nor reach Postgres twice.
//!
//! Not here: what a look-up is, and whether the cache may be trusted at all (`session`).

use std::{
    collections::HashMap,
    fmt,
    future::Future,
    hash::{BuildHasher, Hasher},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::OnceCell;

use crate::{
    clock::Timestamp,
    identity::{Session, UserId},
    secret::{TokenHash, random},
    telemetry::Spread,
};

/// How long a token stays known as unknown.
const UNKNOWN_FOR: Duration = Duration::from_secs(2);
const UNKNOWN_CAPACITY: u64 = 10_000;
/// Look-ups are listed in so many separately locked parts.
const SHARDS: usize = 64;

/// What a look-up found; `None` is a token that is nobody's.
pub type Found = Option<Arc<Session>>;

pub struct SessionCache {
    stored: moka::sync::Cache<TokenHash, Entry, ByPrefix>,
    unknown: moka::sync::Cache<TokenHash, Timestamp>,
    flights: [Mutex<Flights>; SHARDS],
    of_user: Arc<Mutex<OfUser>>,
    ttl: Duration,
    unknown_hits: Spread,
}

/// Which stored tokens are a user's, so that revoking a user needs no scan. Beside each the address of the very
/// session that is stored: the eviction of an older one under the same token must not strike out the newer. Each
/// storing adds one, each eviction takes one away.
type OfUser = HashMap<UserId, Vec<(TokenHash, usize)>>;

/// What tells two sessions under one token apart; both are alive while they are compared.
fn address(session: &Arc<Session>) -> usize {
    Arc::as_ptr(session).addr()
}

#[derive(Clone)]
struct Entry {
    session: Arc<Session>,
    /// When the look-up that found it began.
    checked_at: Timestamp,
}

/// One look-up and all who wait for it.
type Flight = Arc<OnceCell<Answer>>;

/// What a look-up found, and when it began: who joined it later has learnt nothing newer.
#[derive(Debug)]
struct Answer {
    found: Found,
    checked_at: Timestamp,
}

type Flights = HashMap<TokenHash, Listed>;

/// A flight that may be joined, and whose answer may be stored.
#[derive(Default)]
struct Listed {
    flight: Flight,
    /// How many have boarded and not left.
    aboard: usize,
}

impl Listed {
    fn is(&self, flight: &Flight) -> bool {
        Arc::ptr_eq(&self.flight, flight)
    }
}

impl SessionCache {
    pub fn new(ttl: Duration, capacity: u64) -> Self {
        let of_user = Arc::<Mutex<OfUser>>::default();
        let index = Arc::clone(&of_user);
        let stored = moka::sync::Cache::builder()
            .max_capacity(capacity)
            // Whether an entry still counts is judged by our clock on each hit; this only frees memory.
            .time_to_live(ttl.saturating_mul(2).max(Duration::from_secs(1)))
            .eviction_listener(move |hash: Arc<TokenHash>, entry: Entry, _| {
                unindex(&index, &hash, &entry.session);
            })
            .build_with_hasher(ByPrefix::new());
        Self {
            stored,
            unknown: moka::sync::Cache::builder()
                .max_capacity(UNKNOWN_CAPACITY)
                .time_to_live(UNKNOWN_FOR)
                .build(),
            flights: std::array::from_fn(|_| Mutex::default()),
            of_user,
            ttl,
            unknown_hits: Spread::default(),
        }
    }

    /// What is known of `hash` without asking anybody: `None` means that a look-up must tell.
    pub fn get(&self, hash: &TokenHash, now: Timestamp) -> Option<Found> {
        if let Some(entry) = self.stored.get(hash) {
            let fresh = now < entry.checked_at.plus(self.ttl);
            return (fresh && now < entry.session.expires_at).then_some(Some(entry.session));
        }
        let until = self.unknown.get(hash)?;
        (now < until).then(|| {
            self.unknown_hits.add_one();
            None
        })
    }

    /// The session behind `hash`, by `load`, which runs once for all who ask meanwhile. For use after a miss.
    pub async fn find<E>(
        &self,
        hash: TokenHash,
        now: Timestamp,
        load: impl Future<Output = Result<Found, E>>,
    ) -> Result<Found, E> {
        let boarded = self.board(hash);
        let look_up = || async move {
            let found = load.await?;
            Ok(Answer { found, checked_at: now })
        };
        let answer = boarded.flight.get_or_try_init(look_up).await?;
        boarded.store(answer);
        // Who joined late may have waited past its end.
        Ok(answer.found.clone().filter(|session| now < session.expires_at))
    }

    fn board(&self, hash: TokenHash) -> Boarded<'_> {
        let mut flights = self.listed(&hash);
        let listed = flights.entry(hash).or_default();
        listed.aboard += 1;
        Boarded {
            cache: self,
            hash,
            flight: Arc::clone(&listed.flight),
        }
    }

    fn store(&self, hash: TokenHash, answer: &Answer) {
        let Some(session) = &answer.found else {
            // What is stored of it is past its time, and would hide this.
            self.stored.invalidate(&hash);
            self.unknown.insert(hash, answer.checked_at.plus(UNKNOWN_FOR));
            return;
        };
        self.index(hash, session);
        self.keep(hash, session, answer.checked_at);
    }

    /// The listener of evictions takes this lock too: it is let go before anything is stored.
    fn index(&self, hash: TokenHash, session: &Arc<Session>) {
        lock(&self.of_user)
            .entry(session.identity.id)
            .or_default()
            .push((hash, address(session)));
    }

    /// Behind [`SessionCache::index`].
    fn keep(&self, hash: TokenHash, session: &Arc<Session>, checked_at: Timestamp) {
        let entry = Entry {
            session: Arc::clone(session),
            checked_at,
        };
        self.stored.insert(hash, entry);
        // Whoever emptied the index before this was there did not find it; and the next who looks there would not.
        if !self.is_indexed(&hash, session) {
            self.stored.invalidate(&hash);
        }
    }

    fn is_indexed(&self, hash: &TokenHash, session: &Arc<Session>) -> bool {
        let index = lock(&self.of_user);
        let of_user = index.get(&session.identity.id);
        of_user.is_some_and(|stored| stored.contains(&(*hash, address(session))))
    }

    /// A look-up in flight may still answer those who already wait for it, but can be neither joined nor stored.
    pub fn forget(&self, hash: &TokenHash) {
        let mut flights = self.listed(hash);
        flights.remove(hash);
        self.stored.invalidate(hash);
        self.unknown.invalidate(hash);
    }

    /// What a look-up found that was not to be stored: what is stored is forgotten if it says more than that.
    pub fn correct(&self, hash: &TokenHash, found: Option<&Session>) {
        // One that began earlier is not to store what it finds.
        self.listed(hash).remove(hash);
        let stored = self.stored.get(hash);
        let is_true = found.is_some_and(|found| {
            stored.is_none_or(|Entry { session, .. }| {
                session.identity == found.identity && session.expires_at <= found.expires_at
            })
        });
        if !is_true {
            self.forget(hash);
        }
    }

    /// All of a user's sessions, and every look-up in flight: whose those are is not known yet.
    pub fn forget_user(&self, user: UserId) {
        for shard in &self.flights {
            lock(shard).clear();
        }
        let hashes = {
            let mut of_user = lock(&self.of_user);
            // Whose the unknown ones are, nobody knows; one of them may be a session that has just come back. Under the
            // lock as in `clear`.
            self.unknown.invalidate_all();
            of_user.remove(&user).unwrap_or_default()
        };
        for (hash, _) in hashes {
            self.stored.invalidate(&hash);
        }
    }

    pub fn clear(&self) {
        for shard in &self.flights {
            lock(shard).clear();
        }
        let mut of_user = lock(&self.of_user);
        of_user.clear();
        // Under the lock, for it calls no listener: each only notes the time, and of two at once the earlier time might be
        // noted last, which would bring back what the other took away.
        self.stored.invalidate_all();
        self.unknown.invalidate_all();
    }

    /// How often a token was known to be nobody's.
    pub fn unknown_hits(&self) -> u64 {
        self.unknown_hits.total()
    }

    /// Roughly how many sessions are held.
    pub fn len(&self) -> u64 {
        self.stored.entry_count()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn listed(&self, hash: &TokenHash) -> MutexGuard<'_, Flights> {
        let [first, ..] = hash.as_bytes();
        #[expect(clippy::indexing_slicing, reason = "a remainder by SHARDS is below SHARDS")]
        lock(&self.flights[usize::from(*first) % SHARDS])
    }
}

impl fmt::Debug for SessionCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionCache(about {} sessions)", self.len())
    }
}

/// A place on a flight. The last to leave takes the flight off the list.
struct Boarded<'c> {
    cache: &'c SessionCache,
    hash: TokenHash,
    flight: Flight,
}

impl Boarded<'_> {
    /// The first to come with the answer stores it, and nobody joins any more: it would grow old.
    fn store(&self, answer: &Answer) {
        let mut flights = self.cache.listed(&self.hash);
        if flights.get(&self.hash).is_some_and(|listed| listed.is(&self.flight)) {
            flights.remove(&self.hash);
            // Stored while the list is locked: a revocation comes wholly before (then we are not listed) or after.
            self.cache.store(self.hash, answer);
        }
    }
}

impl Drop for Boarded<'_> {
    fn drop(&mut self) {
        let mut flights = self.cache.listed(&self.hash);
        // Listed still, so there is no answer yet: whoever is left tries again.
        let Some(listed) = flights.get_mut(&self.hash).filter(|listed| listed.is(&self.flight)) else {
            return;
        };
        listed.aboard -= 1;
        if listed.aboard == 0 {
            flights.remove(&self.hash);
        }
    }
}

fn unindex(index: &Mutex<OfUser>, hash: &TokenHash, session: &Arc<Session>) {
    let user = session.identity.id;
    let mut index = lock(index);
    if let Some(hashes) = index.get_mut(&user) {
        // One: the same session may have been stored again.
        let stored = hashes.iter().position(|stored| *stored == (*hash, address(session)));
        if let Some(at) = stored {
            hashes.swap_remove(at);
        }
        if hashes.is_empty() {
            index.remove(&user);
        }
    }
}

/// None of our locks guards something that a panic could leave half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A token hash is random already: its first bytes, mixed with a seed of this process, are hash enough.
#[derive(Clone)]
struct ByPrefix {
    seed: u64,
}

impl ByPrefix {
    fn new() -> Self {
        Self {
            seed: u64::from_ne_bytes(random()),
        }
    }
}

impl BuildHasher for ByPrefix {
    type Hasher = PrefixHasher;

    fn build_hasher(&self) -> PrefixHasher {
        PrefixHasher(self.seed)
    }
}

struct PrefixHasher(u64);

impl Hasher for PrefixHasher {
    fn write(&mut self, bytes: &[u8]) {
        if let Some(prefix) = bytes.first_chunk::<8>() {
            // An odd multiplier (the golden ratio's bits) spreads the seed over all bits.
            self.0 = (self.0 ^ u64::from_ne_bytes(*prefix)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        }
    }

    /// The length that precedes a slice says nothing.
    fn write_usize(&mut self, _: usize) {}

    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 32)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        convert::Infallible,
        sync::atomic::{AtomicBool, AtomicI64},
    };

    use uuid::Uuid;

    use super::*;
    use crate::{
        fields::Lines,
        identity::{Assertions, Identity, SessionId},
    };

    const NOW: Timestamp = Timestamp::from_secs(1_000_000);

    fn session(user: UserId) -> Arc<Session> {
        Arc::new(Session {
            id: SessionId(Uuid::now_v7()),
            identity: Arc::new(Identity {
                id: user,
                email: "ada@example.com".to_owned(),
                email_verified: true,
                name: "Ada".to_owned(),
                roles: Vec::new(),
            }),
            created_at: NOW,
            expires_at: NOW.plus(Duration::from_mins(1)),
            refresh_at: None,
            extending: AtomicBool::new(false),
            last_seen: AtomicI64::new(0),
            headers: Lines::new(),
            methods: Vec::new(),
            assertions: Assertions::default(),
        })
    }

    fn cache() -> SessionCache {
        SessionCache::new(Duration::from_secs(10), 100)
    }

    fn answer(session: Arc<Session>, checked_at: Timestamp) -> Answer {
        Answer {
            found: Some(session),
            checked_at,
        }
    }

    async fn found(cache: &SessionCache, hash: TokenHash, what: Found) -> Found {
        cache
            .find(hash, NOW, async { Ok::<_, Infallible>(what) })
            .await
            .unwrap()
    }

    #[tokio::test]
    async fn a_session_is_remembered_for_the_ttl_and_never_past_its_expiry() {
        let cache = cache();
        let hash = TokenHash::of(b"a");
        found(&cache, hash, Some(session(UserId(Uuid::now_v7())))).await;
        assert!(cache.get(&hash, NOW).unwrap().is_some());
        assert!(
            cache.get(&hash, NOW.plus(Duration::from_secs(10))).is_none(),
            "past the ttl"
        );

        let long = SessionCache::new(Duration::from_hours(1), 100);
        found(&long, hash, Some(session(UserId(Uuid::now_v7())))).await;
        assert!(long.get(&hash, NOW.plus(Duration::from_secs(59))).unwrap().is_some());
        assert!(
            long.get(&hash, NOW.plus(Duration::from_mins(1))).is_none(),
            "past the expiry"
        );
    }

    #[tokio::test]
    async fn an_unknown_token_is_remembered_briefly() {
        let cache = cache();
        let hash = TokenHash::of(b"junk");
        assert!(found(&cache, hash, None).await.is_none());
        assert!(matches!(cache.get(&hash, NOW), Some(None)));
        assert!(cache.get(&hash, NOW.plus(UNKNOWN_FOR)).is_none());
    }

    #[tokio::test]
    async fn a_lookup_that_a_revocation_overtook_is_not_stored() {
        let user = UserId(Uuid::now_v7());
        let hash = TokenHash::of(b"a");
        for revoke in [
            (|cache: &SessionCache, hash: &TokenHash, _: UserId| cache.forget(hash)) as fn(&_, &_, _),
            |cache, _, user| cache.forget_user(user),
            |cache, _, _| cache.clear(),
        ] {
            let cache = cache();
            let answer = cache
                .find(hash, NOW, async {
                    revoke(&cache, &hash, user);
                    Ok::<_, Infallible>(Some(session(user)))
                })
                .await
                .unwrap();
            assert!(
                answer.is_some(),
                "who asked before the revocation may have the old answer"
            );
            assert!(cache.get(&hash, NOW).is_none(), "nobody else may");
        }
    }

    #[tokio::test]
    async fn a_lookup_begun_after_a_revocation_does_not_join_the_one_before_it() {
        let cache = Arc::new(cache());
        let hash = TokenHash::of(b"a");
        let (go, wait) = tokio::sync::oneshot::channel::<()>();
        let slow = tokio::task::LocalSet::new();
        let early = {
            let cache = Arc::clone(&cache);
            slow.spawn_local(async move {
                cache
                    .find(hash, NOW, async {
                        let _ = wait.await;
                        Ok::<_, Infallible>(Some(session(UserId(Uuid::now_v7()))))
                    })
                    .await
            })
        };
        slow.run_until(async {
            tokio::task::yield_now().await;
            cache.forget(&hash);
            assert!(found(&cache, hash, None).await.is_none(), "it asked for itself");
            go.send(()).unwrap();
            assert!(early.await.unwrap().unwrap().is_some());
        })
        .await;
        assert!(!matches!(cache.get(&hash, NOW), Some(Some(_))));
    }

    #[tokio::test]
    async fn concurrent_misses_share_one_lookup() {
        let cache = cache();
        let hash = TokenHash::of(b"a");
        let lookups = std::cell::Cell::new(0);
        let ask = || {
            cache.find(hash, NOW, async {
                lookups.set(lookups.get() + 1);
                tokio::task::yield_now().await;
                Ok::<_, Infallible>(Some(session(UserId(Uuid::now_v7()))))
            })
        };
        let (a, b, c) = tokio::join!(ask(), ask(), ask());
        assert!(a.unwrap().is_some() && b.unwrap().is_some() && c.unwrap().is_some());
        assert_eq!(lookups.get(), 1);
    }

    #[tokio::test]
    async fn a_lookup_that_failed_or_was_dropped_leaves_nothing_behind() {
        let cache = cache();
        let hash = TokenHash::of(b"a");
        let failed = cache.find(hash, NOW, async { Err::<Found, _>("away") }).await;
        assert_eq!(failed.unwrap_err(), "away");
        {
            let mut never = Box::pin(cache.find(hash, NOW, std::future::pending::<Result<Found, Infallible>>()));
            assert!(futures_util::poll!(never.as_mut()).is_pending());
        }
        assert!(cache.listed(&hash).is_empty());
        assert!(found(&cache, hash, None).await.is_none());
    }

    #[tokio::test]
    async fn a_session_stored_again_is_still_known_as_its_users() {
        let cache = cache();
        let user = UserId(Uuid::now_v7());
        let hash = TokenHash::of(b"a");
        found(&cache, hash, Some(session(user))).await;
        cache.clear();
        // Now the old entry is evicted, under the same token.
        found(&cache, hash, Some(session(user))).await;
        assert!(cache.get(&hash, NOW).unwrap().is_some());
        cache.forget_user(user);
        assert!(cache.get(&hash, NOW).is_none());
    }

    #[tokio::test]
    async fn a_session_stored_twice_is_still_known_as_its_users() {
        let cache = cache();
        let user = UserId(Uuid::now_v7());
        let hash = TokenHash::of(b"a");
        let answer = answer(session(user), NOW);
        cache.store(hash, &answer);
        cache.store(hash, &answer);
        assert!(cache.get(&hash, NOW).unwrap().is_some());
        cache.forget_user(user);
        assert!(cache.get(&hash, NOW).is_none());
    }

    #[tokio::test]
    async fn of_those_who_share_a_lookup_one_stores_it_and_ends_it() {
        let cache = cache();
        let hash = TokenHash::of(b"a");
        let (first, second) = (cache.board(hash), cache.board(hash));
        let answer = answer(session(UserId(Uuid::now_v7())), NOW);
        second.store(&answer);
        assert!(cache.listed(&hash).is_empty(), "nobody joins what has an answer");
        cache.stored.invalidate(&hash);
        first.store(&answer);
        assert!(cache.get(&hash, NOW).is_none(), "it is not stored again");
    }

    /// The two halves of storing, and what can come between them: both know nothing of the look-up any more.
    #[tokio::test]
    async fn what_a_revocation_found_indexed_but_not_stored_yet_is_not_kept() {
        let user = UserId(Uuid::now_v7());
        let hash = TokenHash::of(b"a");
        for revoke in [
            (|cache: &SessionCache, user: UserId| cache.forget_user(user)) as fn(&_, _),
            |cache, _| cache.clear(),
        ] {
            let cache = cache();
            let session = session(user);
            cache.index(hash, &session);
            revoke(&cache, user);
            cache.keep(hash, &session, NOW);
            assert!(cache.get(&hash, NOW).is_none(), "the next revocation would not find it");
        }
    }

    #[tokio::test]
    async fn an_answer_is_as_old_as_its_lookup_whoever_joined_it() {
        let cache = cache();
        let hash = TokenHash::of(b"a");
        // Whoever asked has the answer, and has not come to storing it.
        let asked = cache.board(hash);
        asked.flight.set(answer(session(UserId(Uuid::now_v7())), NOW)).unwrap();
        let join = |now| cache.find(hash, now, std::future::pending::<Result<Found, Infallible>>());
        assert!(join(NOW.plus(Duration::from_secs(5))).await.unwrap().is_some());
        assert!(cache.get(&hash, NOW.plus(Duration::from_secs(9))).is_some());
        assert!(
            cache.get(&hash, NOW.plus(Duration::from_secs(10))).is_none(),
            "past the ttl"
        );
    }

    #[tokio::test]
    async fn who_joins_a_lookup_gets_no_session_whose_time_is_over() {
        let cache = cache();
        let hash = TokenHash::of(b"a");
        let ask = |now| {
            cache.find(hash, now, async {
                tokio::task::yield_now().await;
                Ok::<_, Infallible>(Some(session(UserId(Uuid::now_v7()))))
            })
        };
        let (asked, joined) = tokio::join!(ask(NOW), ask(NOW.plus(Duration::from_mins(1))));
        assert!(asked.unwrap().is_some() && joined.unwrap().is_none());
    }

    #[tokio::test]
    async fn whoever_leaves_last_ends_a_lookup_however_many_are_still_on_their_way_out() {
        let cache = cache();
        let hash = TokenHash::of(b"a");
        let boarded = cache.board(hash);
        // Somebody on another thread has left, and has not let go of it yet.
        let _leaving = Arc::clone(&boarded.flight);
        let other = cache.board(hash);
        drop(boarded);
        assert!(!cache.listed(&hash).is_empty(), "somebody waits still");
        drop(other);
        assert!(cache.listed(&hash).is_empty());
    }

    #[tokio::test]
    async fn what_is_stored_is_forgotten_once_it_says_more_than_is_true() {
        let cache = cache();
        let hash = TokenHash::of(b"a");
        let user = UserId(Uuid::now_v7());
        let known = session(user);
        let with = |roles: &[&str], lives: Duration| {
            let mut session = Arc::into_inner(session(user)).unwrap();
            let identity = Arc::get_mut(&mut session.identity).unwrap();
            identity.roles = roles.iter().map(|role| (*role).to_owned()).collect();
            session.expires_at = NOW.plus(lives);
            session
        };
        for (found, stays) in [
            (Some(with(&[], Duration::from_mins(1))), true),
            (Some(with(&[], Duration::from_mins(2))), true),
            (Some(with(&[], Duration::from_secs(59))), false),
            (Some(with(&["admin"], Duration::from_mins(1))), false),
            (None, false),
        ] {
            cache.store(hash, &answer(Arc::clone(&known), NOW));
            cache.correct(&hash, found.as_ref());
            assert_eq!(cache.get(&hash, NOW).is_some(), stays, "{found:?}");
        }
        // Nor does what began before it come back.
        let begun = cache.board(hash);
        cache.correct(&hash, Some(&known));
        begun.store(&answer(Arc::clone(&known), NOW));
        assert!(cache.get(&hash, NOW).is_none());
    }

    #[tokio::test]
    async fn a_token_that_has_died_is_unknown_from_then_on() {
        let cache = cache();
        let hash = TokenHash::of(b"a");
        found(&cache, hash, Some(session(UserId(Uuid::now_v7())))).await;
        let later = NOW.plus(Duration::from_secs(11));
        let load = async { Ok::<_, Infallible>(None) };
        assert!(cache.find(hash, later, load).await.unwrap().is_none());
        assert!(
            matches!(cache.get(&hash, later), Some(None)),
            "Postgres is not asked twice"
        );
        cache.forget(&hash);
        assert!(cache.get(&hash, later).is_none(), "nor is what changed overlooked");
    }

    #[tokio::test]
    async fn revoking_a_user_takes_all_of_theirs_and_nobody_elses() {
        let cache = cache();
        let (ada, bob) = (UserId(Uuid::now_v7()), UserId(Uuid::now_v7()));
        let [first, second, other] = [b"1", b"2", b"3"].map(|token| TokenHash::of(token));
        found(&cache, first, Some(session(ada))).await;
        found(&cache, second, Some(session(ada))).await;
        found(&cache, other, Some(session(bob))).await;
        cache.forget_user(ada);
        assert!(cache.get(&first, NOW).is_none() && cache.get(&second, NOW).is_none());
        assert!(cache.get(&other, NOW).unwrap().is_some());
    }
}
