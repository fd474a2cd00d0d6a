//! Counts in this process: bounded, and gone with it.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use moka::policy::EvictionPolicy;

use super::Key;
use crate::{
    clock::Timestamp,
    config::Budget,
    policy::rate::{Used, wait},
};

/// Sources that are known at once; past it those are forgotten that asked longest ago.
const CAPACITY: u64 = 100_000;

/// Memory is freed no sooner, whatever the window: our clock decides what counts, and tests move it.
const KEPT_AT_LEAST: Duration = Duration::from_mins(1);

fn cache<V: Clone + Send + Sync + 'static>(longest_window: Duration) -> moka::sync::Cache<Key, V> {
    moka::sync::Cache::builder()
        .max_capacity(CAPACITY)
        // Else a newcomer would not be let in, and so never be counted, while many others ask.
        .eviction_policy(EvictionPolicy::lru())
        .time_to_idle(longest_window.saturating_mul(2).max(KEPT_AT_LEAST))
        .build()
}

pub(super) struct Tally {
    of: moka::sync::Cache<Key, Arc<Mutex<Count>>>,
}

#[derive(Debug, Default)]
struct Count {
    used: Option<Used>,
    /// How many of those nobody but us knows of.
    untold: u32,
}

impl Tally {
    pub(super) fn new(longest_window: Duration) -> Self {
        Self {
            of: cache(longest_window),
        }
    }

    /// Counts one, or says how long to wait.
    pub(super) fn take(&self, key: Key, budget: Budget, now: Timestamp) -> Result<(), Duration> {
        self.take_and_tell(key, budget, u32::MAX, now).map(drop)
    }

    /// As [`Tally::take`]. Beyond `alone_until` says how many the others are to be told of; they count as told then.
    pub(super) fn take_and_tell(
        &self,
        key: Key,
        budget: Budget,
        alone_until: u32,
        now: Timestamp,
    ) -> Result<u32, Duration> {
        let count = self.of.get_with(key, Arc::default);
        let mut count = locked(&count);
        let used = Used::one_more(count.used, budget, now)?;
        count.used = Some(used);
        count.untold = count.untold.saturating_add(1).min(used.count);
        if used.count <= alone_until {
            return Ok(0);
        }
        Ok(std::mem::take(&mut count.untold))
    }

    /// The others could not be told.
    pub(super) fn not_told(&self, key: Key, how_many: u32) {
        if let Some(count) = self.of.get(&key) {
            let mut count = locked(&count);
            count.untold = count.untold.saturating_add(how_many);
        }
    }

    pub(super) fn give_back(&self, key: Key) {
        if let Some(count) = self.of.get(&key)
            && let Some(used) = locked(&count).used.as_mut()
        {
            used.count = used.count.saturating_sub(1);
        }
    }

    pub(super) fn forget(&self, key: Key) {
        self.of.invalidate(&key);
    }
}

fn locked(count: &Mutex<Count>) -> MutexGuard<'_, Count> {
    count.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tally({} sources)", self.of.entry_count())
    }
}

/// Who was refused, and until when: asking again costs a look here.
pub(super) struct Refused {
    of: moka::sync::Cache<Key, Refusal>,
}

#[derive(Clone, Copy, Debug)]
struct Refusal {
    again_at: Timestamp,
    /// From here on it is judged anew, though the answer may be the same.
    known_until: Timestamp,
}

impl Refused {
    pub(super) fn new(longest_window: Duration) -> Self {
        Self {
            of: cache(longest_window),
        }
    }

    /// How long somebody who was refused has to wait still.
    pub(super) fn wait(&self, key: Key, budget: Budget, now: Timestamp) -> Option<Duration> {
        let refusal = self.of.get(&key).filter(|refusal| now < refusal.known_until)?;
        Some(wait(refusal.again_at.minus(budget.window), budget, now))
    }

    pub(super) fn remember(&self, key: Key, wait: Duration, at_most: Duration, now: Timestamp) {
        let refusal = Refusal {
            again_at: now.plus(wait),
            known_until: now.plus(wait.min(at_most)),
        };
        self.of.insert(key, refusal);
    }

    pub(super) fn forget(&self, key: Key) {
        self.of.invalidate(&key);
    }
}

impl fmt::Debug for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Refused({} sources)", self.of.entry_count())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::WindowFrom;

    const KEY: Key = Key([7; 32]);
    const FIVE: Budget = Budget {
        limit: 5,
        window: Duration::from_secs(10),
        window_from: WindowFrom::Last,
    };

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_secs(1_000 + secs)
    }

    #[test]
    fn the_others_are_told_of_all_once_a_source_may_be_at_its_limit() {
        let tally = Tally::new(FIVE.window);
        let take = |secs| tally.take_and_tell(KEY, FIVE, 2, at(secs));
        assert_eq!([take(0), take(1), take(2), take(3)], [Ok(0), Ok(0), Ok(3), Ok(1)]);
        tally.not_told(KEY, 1);
        assert_eq!(take(4), Ok(2));
        assert_eq!(take(5), Err(Duration::from_secs(9)));
        // A window later nobody need know.
        assert_eq!(take(14), Ok(0));
    }

    #[test]
    fn what_is_given_back_can_be_taken_again() {
        let tally = Tally::new(FIVE.window);
        for _ in 0..5 {
            tally.take(KEY, FIVE, at(0)).unwrap();
        }
        assert!(tally.take(KEY, FIVE, at(0)).is_err());
        tally.give_back(KEY);
        assert!(tally.take(KEY, FIVE, at(0)).is_ok());
        tally.forget(KEY);
        assert!(tally.take(KEY, FIVE, at(0)).is_ok());
    }

    #[test]
    fn what_is_given_back_keeps_nothing_in_memory() {
        let tally = Tally::new(FIVE.window);
        let of_person = Budget {
            window_from: WindowFrom::First,
            ..FIVE
        };
        // One stays counted at each tenth of a window; in between, others are given back.
        for secs in 0..4 {
            tally.take(KEY, of_person, at(secs)).unwrap();
            tally.take(KEY, of_person, at(secs)).unwrap();
            tally.give_back(KEY);
        }
        tally.take(KEY, of_person, at(9)).unwrap();
        assert_eq!(tally.take(KEY, of_person, at(9)), Err(Duration::from_secs(1)));
        assert_eq!(tally.take(KEY, of_person, at(10)), Ok(()));
    }

    #[test]
    fn a_refusal_is_known_until_it_is_over_or_to_be_judged_anew() {
        let refused = Refused::new(FIVE.window);
        let wait = |secs| refused.wait(KEY, FIVE, at(secs));
        assert_eq!(wait(0), None);
        refused.remember(KEY, Duration::from_secs(8), Duration::MAX, at(0));
        assert_eq!([wait(7), wait(8)], [Some(Duration::from_secs(1)), None]);
        refused.remember(KEY, Duration::from_secs(8), Duration::from_secs(3), at(0));
        assert_eq!([wait(2), wait(3)], [Some(Duration::from_secs(6)), None]);
    }

    #[test]
    fn more_sources_than_there_is_room_for_are_no_way_around_it() {
        let tally = Tally::new(FIVE.window);
        let key = |number: u64| {
            let mut key = [0; 32];
            key[..8].copy_from_slice(&number.to_be_bytes());
            Key(key)
        };
        for number in 0..CAPACITY + 50_000 {
            tally.take(key(number), FIVE, at(0)).unwrap();
        }
        tally.of.run_pending_tasks();
        assert!(tally.of.entry_count() <= CAPACITY);
        let newcomer = key(u64::MAX);
        for _ in 0..5 {
            tally.take(newcomer, FIVE, at(0)).unwrap();
        }
        assert!(tally.take(newcomer, FIVE, at(0)).is_err());
    }
}
