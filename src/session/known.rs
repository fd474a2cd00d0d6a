//! What is known of sessions here, and how far it may be believed.
//!
//! The cache keeps what revocations are heard of. Whether they are heard is another matter, and changes while requests
//! are under way:
//! - Whoever stops hearing says so before anything else. Each session is asked for then, and what is found corrects what
//!   is stored, for that is believed again once Postgres can't be reached at all, or by whoever is the first to notice.
//! - Whoever hears again has listened first; then what is stored goes, and only then is it trusted.
//!
//! `known/model.rs` has a scheduler try these rules in many thousand interleavings, against a database of its own.

use std::{
    sync::atomic::{AtomicU8, Ordering},
    time::Duration,
};

use super::{
    LookupError,
    cache::{Found, SessionCache},
    locks::{Locks, Std},
};
use crate::{clock::Timestamp, identity::UserId, secret::TokenHash};

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

/// As [`Trust::Unreachable`], as far as anybody knows; whether it is true is being found out.
const PERHAPS_UNREACHABLE: u8 = 3;

impl Trust {
    pub const ALL: [Self; 3] = [Self::Hearing, Self::Deaf, Self::Unreachable];

    const fn of(code: u8) -> Self {
        match code {
            0 => Self::Hearing,
            1 => Self::Deaf,
            _ => Self::Unreachable,
        }
    }

    /// How metrics call it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hearing => "hearing",
            Self::Deaf => "deaf",
            Self::Unreachable => "unreachable",
        }
    }
}

#[derive(Debug)]
pub struct Known<L: Locks = Std> {
    cache: SessionCache<L>,
    /// A [`Trust`], or [`PERHAPS_UNREACHABLE`].
    trust: AtomicU8,
}

impl<L: Locks> Known<L> {
    /// Nothing is, and nothing is heard yet.
    pub fn new(ttl: Duration, capacity: u64) -> Self {
        Self::lasting(ttl, Duration::ZERO, capacity)
    }

    /// As [`Known::new`]; what was checked less than `ttl` ago counts for `outage_grace` more while nobody can be asked.
    pub fn lasting(ttl: Duration, outage_grace: Duration, capacity: u64) -> Self {
        Self {
            cache: SessionCache::lasting(ttl, outage_grace, capacity),
            trust: AtomicU8::new(Trust::Deaf as u8),
        }
    }

    /// What may be said of `hash` without asking anybody; `None` if [`Known::ask`] must tell. Takes no lock.
    pub fn get(&self, hash: &TokenHash, now: Timestamp) -> Option<Found> {
        let code = self.code();
        match Trust::of(code) {
            Trust::Hearing => self.cache.get(hash, now),
            Trust::Deaf => None,
            // The grace is for outages, not for what may turn out to be none.
            Trust::Unreachable if code == PERHAPS_UNREACHABLE => self.cache.get(hash, now),
            Trust::Unreachable => self.cache.get_in_outage(hash, now),
        }
    }

    /// The session behind `hash`, by `look_up`, which must begin no sooner than it is polled.
    pub async fn ask(
        &self,
        hash: &TokenHash,
        now: Timestamp,
        look_up: impl Future<Output = Result<Found, LookupError>>,
    ) -> Result<Found, LookupError> {
        match self.trust() {
            Trust::Hearing => self.cache.find(*hash, now, look_up).await,
            // Neither shared nor stored: who asks after a revocation must not get an answer from before it.
            Trust::Deaf => match self.check(hash, look_up).await {
                // It is out of reach, though that is not known yet: its first to notice are those who ask.
                Err(error) if error.is_for_want_of_postgres() => match self.cache.get(hash, now) {
                    Some(Some(session)) => Ok(Some(session)),
                    Some(None) | None => Err(error),
                },
                checked => checked,
            },
            Trust::Unreachable => Err(LookupError::Unreachable),
        }
    }

    /// As [`Known::ask`], whatever is stored, and whatever is heard: for who has to know though nobody may have told. What is
    /// stored is forgotten if it says more than what is found.
    pub async fn check(
        &self,
        hash: &TokenHash,
        look_up: impl Future<Output = Result<Found, LookupError>>,
    ) -> Result<Found, LookupError> {
        let found = look_up.await?;
        self.cache.correct(hash, found.as_deref());
        Ok(found)
    }

    /// A session changed or ended, and that is committed. Whoever asks from here on learns of it.
    pub fn forget(&self, hash: &TokenHash) {
        self.cache.forget(hash);
    }

    /// The same for all of a user's.
    pub fn forget_user(&self, user: UserId) {
        self.cache.forget_user(user);
    }

    /// The same for everybody's.
    pub fn forget_everything(&self) {
        self.cache.clear();
    }

    /// From now on every revocation is heard. In this order: what was stored while none were may be wrong.
    pub fn hears(&self) {
        self.cache.clear();
        self.set(Trust::Hearing as u8);
    }

    /// Revocations may go unheard. `reachable`: Postgres answers, so that sessions can be checked one by one.
    pub fn is_deaf(&self, reachable: bool) {
        let trust = if reachable { Trust::Deaf } else { Trust::Unreachable };
        self.set(trust as u8);
    }

    /// Revocations may go unheard, and whether Postgres answers is not known yet: nobody waits for it until it is.
    pub fn may_be_unreachable(&self) {
        self.set(PERHAPS_UNREACHABLE);
    }

    pub fn trust(&self) -> Trust {
        Trust::of(self.code())
    }

    fn code(&self) -> u8 {
        L::pause();
        self.trust.load(Ordering::Acquire)
    }

    fn set(&self, code: u8) {
        L::pause();
        self.trust.store(code, Ordering::Release);
    }

    /// How often a token was known to be nobody's.
    pub fn unknown_hits(&self) -> u64 {
        self.cache.unknown_hits()
    }

    /// Roughly how many sessions are held.
    pub fn len(&self) -> u64 {
        self.cache.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod model;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::cache::tests::named;

    #[tokio::test]
    async fn the_grace_begins_when_it_is_known_that_nobody_answers() {
        const TTL: Duration = Duration::from_secs(10);
        let now = Timestamp::from_secs(1_000_000);
        let hash = TokenHash::of(b"a token");
        let known: Known = Known::lasting(TTL, TTL, 100);
        known.hears();
        let ada = named(UserId(uuid::Uuid::from_u128(1)), "Ada");
        assert!(known.ask(&hash, now, async { Ok(Some(ada)) }).await.is_ok());
        let (before, after) = (now.plus(TTL / 2), now.plus(TTL));
        let at = |time| known.get(&hash, time).is_some();
        assert_eq!((at(before), at(after)), (true, false));
        known.may_be_unreachable();
        assert_eq!(known.trust(), Trust::Unreachable);
        assert_eq!((at(before), at(after)), (true, false));
        known.is_deaf(false);
        assert_eq!((at(before), at(after)), (true, true));
    }

    /// As for the rest of the cache's time after an outage that began with deafness.
    #[tokio::test]
    async fn what_was_seen_while_deaf_is_not_forgotten_out_of_reach() {
        const TTL: Duration = Duration::from_secs(10);
        let now = Timestamp::from_secs(1_000_000);
        let user = UserId(uuid::Uuid::from_u128(1));
        let hash = TokenHash::of(b"a token");
        let name = |found: Option<Found>| found.map(|found| found.map(|session| session.identity.name.clone()));
        for seen in [None, Some(named(user, "Countess"))] {
            let known: Known = Known::lasting(TTL, TTL, 100);
            known.hears();
            let before = known.ask(&hash, now, async { Ok(Some(named(user, "Ada"))) }).await;
            assert_eq!(name(before.ok()), Some(Some("Ada".to_owned())));
            known.is_deaf(true);
            let answer = seen.clone();
            assert!(known.ask(&hash, now, async { Ok(answer) }).await.is_ok());
            // Whoever is the first to notice that Postgres is gone, and those who know.
            let gone = known.ask(&hash, now, async { Err(LookupError::Unreachable) }).await;
            assert_ne!(name(gone.ok()), Some(Some("Ada".to_owned())));
            known.is_deaf(false);
            assert_ne!(name(known.get(&hash, now)), Some(Some("Ada".to_owned())));
        }
    }
}
