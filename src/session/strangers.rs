//! How often somebody may show tokens that are nobody's.
//!
//! A cookie proves that it is ours before Postgres hears of it. A bearer token may come without a signature, so whoever
//! makes tokens up could have one look-up for each. Those that turn out to be nobody's are counted by network; when there
//! were too many, tokens of there that nobody here has seen before are not looked up for a while.
//!
//! Not counted, and looked up whatever happens: what carries our signature; a token that was a session's when it was
//! looked up last; and one that has been counted, for a minute: what a program says again and again to an application of
//! its own is no guess.
//!
//! Counted when the answer is there: of tokens that are shown at once a few more are looked up.

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::{clock::Timestamp, config::Budget, identity::Network, secret::TokenHash};

/// Networks that are counted; past it those are forgotten that were seen longest ago.
const NETWORKS: u64 = 100_000;
/// Tokens of both kinds that are remembered.
const TOKENS: u64 = 10_000;
/// For so long a token that was a session's counts as one that may be.
const PROVEN_FOR: Duration = Duration::from_hours(1);
/// For so long one that is nobody's is not counted again.
const COUNTED_FOR: Duration = Duration::from_mins(1);

type Set = moka::sync::Cache<TokenHash, ()>;

pub struct Strangers {
    networks: moka::sync::Cache<Network, Arc<Mutex<Count>>>,
    proven: Set,
    counted: Set,
    refused: AtomicU64,
}

#[derive(Clone, Copy, Debug)]
struct Count {
    unknown: u32,
    since: Timestamp,
}

impl Default for Strangers {
    fn default() -> Self {
        let set = |lasts: Duration| Set::builder().max_capacity(TOKENS).time_to_live(lasts).build();
        Self {
            networks: moka::sync::Cache::builder()
                .max_capacity(NETWORKS)
                .time_to_idle(PROVEN_FOR)
                .build(),
            proven: set(PROVEN_FOR),
            counted: set(COUNTED_FOR),
            refused: AtomicU64::new(0),
        }
    }
}

impl Strangers {
    /// Whether a token that nothing proves to be ours may be looked up for `from`; else, how long they have to wait.
    pub fn may_ask(&self, hash: &TokenHash, from: Network, budget: Budget, now: Timestamp) -> Result<(), Duration> {
        let Some(count) = self.networks.get(&from) else {
            return Ok(());
        };
        let count = *count.lock().unwrap_or_else(PoisonError::into_inner);
        if count.unknown < budget.limit || count.is_over(budget, now) {
            return Ok(());
        }
        if self.proven.contains_key(hash) || self.counted.contains_key(hash) {
            return Ok(());
        }
        self.refused.fetch_add(1, Ordering::Relaxed);
        Err(count.since.plus(budget.window).since(now).min(budget.window))
    }

    /// What came of it.
    pub fn answered(&self, hash: &TokenHash, is_known: bool, from: Network, budget: Budget, now: Timestamp) {
        if is_known {
            self.proven.insert(*hash, ());
            return;
        }
        if self.counted.contains_key(hash) {
            return;
        }
        self.counted.insert(*hash, ());
        let none = || Arc::new(Mutex::new(Count { unknown: 0, since: now }));
        let count = self.networks.get_with(from, none);
        let mut count = count.lock().unwrap_or_else(PoisonError::into_inner);
        if count.is_over(budget, now) {
            *count = Count { unknown: 0, since: now };
        }
        count.unknown = count.unknown.saturating_add(1);
    }

    /// Look-ups that were not made, for metrics.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

impl Count {
    /// A time that lies ahead was told by a clock that was wrong.
    fn is_over(self, budget: Budget, now: Timestamp) -> bool {
        now >= self.since.plus(budget.window) || self.since > now
    }
}

impl fmt::Debug for Strangers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Strangers(about {} networks)", self.networks.entry_count())
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::config::WindowFrom;

    const TEN: Budget = Budget {
        limit: 10,
        window: Duration::from_mins(1),
        window_from: WindowFrom::First,
    };

    fn token(number: u32) -> TokenHash {
        TokenHash::of(&number.to_be_bytes())
    }

    fn network(number: u8) -> Network {
        Network::of(IpAddr::from([192, 0, 2, number]))
    }

    #[test]
    fn guesses_are_over_after_a_few_until_the_window_is() {
        let strangers = Strangers::default();
        let now = Timestamp::from_secs(1_000_000);
        let guess = |number, from, now| {
            let hash = token(number);
            strangers.may_ask(&hash, from, TEN, now)?;
            strangers.answered(&hash, false, from, TEN, now);
            Ok::<_, Duration>(())
        };
        for number in 0..10 {
            assert_eq!(guess(number, network(1), now), Ok(()));
        }
        let later = now.plus(Duration::from_secs(20));
        assert_eq!(guess(10, network(1), later), Err(Duration::from_secs(40)));
        assert_eq!(guess(10, network(2), later), Ok(()), "another is another");
        assert_eq!(guess(3, network(1), later), Ok(()), "this one was counted");
        assert_eq!(strangers.refused(), 1);
        let over = now.plus(Duration::from_mins(1));
        for number in 20..30 {
            assert_eq!(guess(number, network(1), over), Ok(()));
        }
        assert!(guess(30, network(1), over).is_err());
    }

    #[test]
    fn who_was_somebody_is_asked_for_whatever_others_do() {
        let strangers = Strangers::default();
        let now = Timestamp::from_secs(1_000_000);
        strangers.answered(&token(0), true, network(1), TEN, now);
        for number in 1..=10 {
            strangers.answered(&token(number), false, network(1), TEN, now);
        }
        assert_eq!(strangers.may_ask(&token(0), network(1), TEN, now), Ok(()));
        assert!(strangers.may_ask(&token(11), network(1), TEN, now).is_err());
        for _ in 0..10 {
            strangers.answered(&token(12), false, network(2), TEN, now);
        }
        assert_eq!(
            strangers.may_ask(&token(13), network(2), TEN, now),
            Ok(()),
            "the same one, ten times"
        );
    }

    #[test]
    fn a_clock_that_was_ahead_locks_nobody_out() {
        let strangers = Strangers::default();
        let now = Timestamp::from_secs(1_000_000);
        for number in 0..20 {
            strangers.answered(
                &token(number),
                false,
                network(1),
                TEN,
                now.plus(Duration::from_hours(1)),
            );
        }
        assert_eq!(strangers.may_ask(&token(20), network(1), TEN, now), Ok(()));
    }
}
