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
//! All of that holds in every interleaving: a model checker drives this very type ([`Locks`], `session/known/model.rs`).
//!
//! Not here: what a look-up is (`session/lookup.rs`), and whether the cache may be trusted at all (`session/known.rs`).

use std::{
    collections::HashMap,
    fmt,
    future::Future,
    hash::{BuildHasher, Hasher},
    sync::Arc,
    time::Duration,
};

use tokio::sync::OnceCell;

use super::locks::{Lock, Locks, Std};
use crate::{
    clock::Timestamp,
    identity::{Session, UserId},
    secret::{TokenHash, random},
    telemetry::Spread,
};

/// How long a token stays known as unknown.
const UNKNOWN_FOR: Duration = Duration::from_secs(2);
const UNKNOWN_CAPACITY: u64 = 10_000;

/// What a look-up found; `None` is a token that is nobody's.
pub type Found = Option<Arc<Session>>;

pub struct SessionCache<L: Locks = Std> {
    stored: moka::sync::Cache<TokenHash, Entry, ByPrefix>,
    /// In front of what may call the listener of evictions, which takes the index's lock.
    gate: L::Gate,
    unknown: moka::sync::Cache<TokenHash, Timestamp>,
    /// Listed in [`Locks::PARTS`], each with a lock of its own.
    flights: Box<[L::Mutex<Flights>]>,
    of_user: Arc<L::Mutex<OfUser>>,
    /// Held by whoever forgets all of a user's.
    forgetting: L::Mutex<()>,
    ttl: Duration,
    /// How much longer than `ttl` what is stored counts while nobody could tell anything newer.
    outage_grace: Duration,
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
struct Listed {
    flight: Flight,
    /// When it was listed: no answer of it is older.
    since: Timestamp,
    /// How many have boarded and not left.
    aboard: usize,
}

impl Listed {
    fn since(now: Timestamp) -> Self {
        Self {
            flight: Flight::default(),
            since: now,
            aboard: 0,
        }
    }

    fn is(&self, flight: &Flight) -> bool {
        Arc::ptr_eq(&self.flight, flight)
    }
}

impl<L: Locks> SessionCache<L> {
    pub fn new(ttl: Duration, capacity: u64) -> Self {
        Self::lasting(ttl, Duration::ZERO, capacity)
    }

    /// As [`SessionCache::new`], with what [`SessionCache::get_in_outage`] goes by.
    pub fn lasting(ttl: Duration, outage_grace: Duration, capacity: u64) -> Self {
        let longest = ttl.saturating_mul(2).max(ttl.saturating_add(outage_grace));
        let of_user = Arc::<L::Mutex<OfUser>>::default();
        let index = Arc::clone(&of_user);
        let stored = moka::sync::Cache::builder()
            .max_capacity(capacity)
            // Whether an entry still counts is judged by our clock on each hit; this only frees memory.
            .time_to_live(longest.max(Duration::from_secs(1)))
            .eviction_listener(move |hash: Arc<TokenHash>, entry: Entry, _| {
                unindex(&*index, &hash, &entry.session);
            })
            .build_with_hasher(ByPrefix::new());
        Self {
            stored,
            gate: L::Gate::default(),
            unknown: moka::sync::Cache::builder()
                .max_capacity(UNKNOWN_CAPACITY)
                .time_to_live(UNKNOWN_FOR)
                .build(),
            flights: (0..L::PARTS).map(|_| L::Mutex::default()).collect(),
            of_user,
            forgetting: L::Mutex::default(),
            ttl,
            outage_grace,
            unknown_hits: Spread::default(),
        }
    }

    /// What is known of `hash` without asking anybody: `None` means that a look-up must tell.
    pub fn get(&self, hash: &TokenHash, now: Timestamp) -> Option<Found> {
        self.get_within(self.ttl, hash, now)
    }

    /// The same while Postgres can't be reached.
    pub fn get_in_outage(&self, hash: &TokenHash, now: Timestamp) -> Option<Found> {
        self.get_within(self.ttl.saturating_add(self.outage_grace), hash, now)
    }

    fn get_within(&self, time: Duration, hash: &TokenHash, now: Timestamp) -> Option<Found> {
        if let Some(entry) = L::step(&self.gate, || self.stored.get(hash)) {
            let fresh = now < entry.checked_at.plus(time);
            return (fresh && now < entry.session.expires_at).then_some(Some(entry.session));
        }
        L::pause();
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
        let boarded = self.board(hash, now);
        let look_up = || async move {
            let found = load.await?;
            Ok(Answer { found, checked_at: now })
        };
        L::pause();
        let answer = boarded.flight.get_or_try_init(look_up).await?;
        boarded.store(answer);
        // Who joined late may have waited past its end.
        Ok(answer.found.clone().filter(|session| now < session.expires_at))
    }

    fn board(&self, hash: TokenHash, now: Timestamp) -> Boarded<'_, L> {
        let mut flights = self.listed(&hash);
        let listed = flights.entry(hash).or_insert_with(|| Listed::since(now));
        if now >= listed.since.plus(self.ttl) {
            // What it finds may be older than anything that the cache would say.
            *listed = Listed::since(now);
        }
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
            self.discard(&hash);
            L::pause();
            self.unknown.insert(hash, answer.checked_at.plus(UNKNOWN_FOR));
            return;
        };
        self.index(hash, session);
        self.keep(hash, session, answer.checked_at);
    }

    /// The listener of evictions takes this lock too: it is let go before anything is stored.
    fn index(&self, hash: TokenHash, session: &Arc<Session>) {
        let mut index = self.of_user.locked();
        let of_user = index.entry(session.identity.id).or_default();
        of_user.push((hash, address(session)));
    }

    /// Behind [`SessionCache::index`].
    fn keep(&self, hash: TokenHash, session: &Arc<Session>, checked_at: Timestamp) {
        let entry = Entry {
            session: Arc::clone(session),
            checked_at,
        };
        L::step(&self.gate, || self.stored.insert(hash, entry));
        // Whoever emptied the index before this was there did not find it; and the next who looks there would not.
        if !self.is_indexed(&hash, session) {
            self.discard(&hash);
        }
    }

    fn discard(&self, hash: &TokenHash) {
        L::step(&self.gate, || self.stored.invalidate(hash));
    }

    fn is_indexed(&self, hash: &TokenHash, session: &Arc<Session>) -> bool {
        let index = self.of_user.locked();
        let of_user = index.get(&session.identity.id);
        of_user.is_some_and(|stored| stored.contains(&(*hash, address(session))))
    }

    /// A look-up in flight may still answer those who already wait for it, but can be neither joined nor stored.
    pub fn forget(&self, hash: &TokenHash) {
        let mut flights = self.listed(hash);
        flights.remove(hash);
        self.discard(hash);
        L::pause();
        self.unknown.invalidate(hash);
    }

    /// What a look-up found that was not to be stored: what is stored is forgotten if it says more than that.
    pub fn correct(&self, hash: &TokenHash, found: Option<&Session>) {
        // One that began earlier is not to store what it finds.
        self.listed(hash).remove(hash);
        if found.is_some() {
            L::pause();
            self.unknown.invalidate(hash);
        }
        let stored = L::step(&self.gate, || self.stored.get(hash));
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
    ///
    /// One at a time: who comes while another has emptied the index, and not yet what is stored, would find nothing to forget,
    /// and be through too soon. A change that is made here is heard of at the same moment.
    pub fn forget_user(&self, user: UserId) {
        let _alone = self.forgetting.locked();
        for shard in &self.flights {
            shard.locked().clear();
        }
        let hashes = {
            let mut of_user = self.of_user.locked();
            // Whose the unknown ones are, nobody knows; one of them may be a session that has just come back. Under the
            // lock as in `clear`.
            L::pause();
            self.unknown.invalidate_all();
            of_user.remove(&user).unwrap_or_default()
        };
        for (hash, _) in hashes {
            self.discard(&hash);
        }
    }

    pub fn clear(&self) {
        for shard in &self.flights {
            shard.locked().clear();
        }
        let mut of_user = self.of_user.locked();
        of_user.clear();
        // Under the lock, for it calls no listener: each only notes the time, and of two at once the earlier time might be
        // noted last, which would bring back what the other took away.
        L::pause();
        self.stored.invalidate_all();
        L::pause();
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

    fn listed(&self, hash: &TokenHash) -> <L::Mutex<Flights> as Lock<Flights>>::Guard<'_> {
        let [first, ..] = hash.as_bytes();
        #[expect(clippy::indexing_slicing, reason = "a remainder by PARTS is below PARTS")]
        self.flights[usize::from(*first) % L::PARTS].locked()
    }
}

impl<L: Locks> fmt::Debug for SessionCache<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionCache(about {} sessions)", self.len())
    }
}

/// A place on a flight. The last to leave takes the flight off the list.
struct Boarded<'c, L: Locks> {
    cache: &'c SessionCache<L>,
    hash: TokenHash,
    flight: Flight,
}

impl<L: Locks> Boarded<'_, L> {
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

impl<L: Locks> Drop for Boarded<'_, L> {
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

fn unindex(index: &impl Lock<OfUser>, hash: &TokenHash, session: &Arc<Session>) {
    let user = session.identity.id;
    let mut index = index.locked();
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
pub(super) mod tests;
