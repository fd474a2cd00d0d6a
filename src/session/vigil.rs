//! How well revocations are heard, in numbers: how late, how many, and how long they were not.
//!
//! The lag is measured by the clock of this machine alone. Every probe of the listening connection is a notification of
//! its own (`db::listen`), which takes the way that revocations take: from a commit at Postgres, through its queue, over
//! the network, to the task that empties the cache. It is timed from before it is sent, so the way to Postgres is in it:
//! what is told is no less than what a revocation took that was committed meanwhile. A time that Postgres wrote
//! into the notification would compare two machines' clocks, and be that of the statement: a transaction may commit long after.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use super::Trust;
use crate::{clock::monotonic, db::listen::Heard, telemetry::Histogram};

/// What a notification may be about, for metrics.
pub const ABOUT: [&str; 3] = ["session", "user", "everything"];

/// Written by the task that listens.
#[derive(Debug)]
pub struct Vigil {
    state: Mutex<State>,
    lag: Histogram,
    /// In the order of [`ABOUT`].
    heard: [AtomicU64; ABOUT.len()],
}

#[derive(Debug)]
struct State {
    trust: Trust,
    since: Instant,
    deaf: Duration,
    unreachable: Duration,
}

impl State {
    /// Adds the time until `now` to that of the state that has lasted until then.
    fn account(&mut self, now: Instant) {
        let lasted = now.saturating_duration_since(self.since);
        match self.trust {
            Trust::Hearing => {}
            Trust::Deaf => self.deaf += lasted,
            Trust::Unreachable => self.unreachable += lasted,
        }
        self.since = now;
    }
}

impl Vigil {
    pub fn new(trust: Trust) -> Self {
        let state = State {
            trust,
            since: monotonic(),
            deaf: Duration::ZERO,
            unreachable: Duration::ZERO,
        };
        Self {
            state: Mutex::new(state),
            lag: Histogram::default(),
            heard: Default::default(),
        }
    }

    pub fn turned(&self, trust: Trust) {
        let mut state = self.state();
        state.account(monotonic());
        state.trust = trust;
    }

    pub fn note(&self, heard: Heard) {
        let about = match heard {
            Heard::Session(_) => 0,
            Heard::User(_) => 1,
            Heard::Everything => 2,
            Heard::Echo(lag) => return self.lag.observe(lag),
            Heard::Keys | Heard::Hearing | Heard::Deaf { .. } => return,
        };
        if let Some(count) = self.heard.get(about) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub const fn lag(&self) -> &Histogram {
        &self.lag
    }

    /// How many notifications of changes there were, by what they were about.
    pub fn heard(&self) -> [(&'static str, u64); ABOUT.len()] {
        let mut counts = self.heard.iter().map(|count| count.load(Ordering::Relaxed));
        ABOUT.map(|about| (about, counts.next().unwrap_or_default()))
    }

    /// For how long the cache was not trusted, by state, what has lasted until now included.
    pub fn untrusted(&self) -> [(Trust, Duration); 2] {
        let mut state = self.state();
        state.account(monotonic());
        [(Trust::Deaf, state.deaf), (Trust::Unreachable, state.unreachable)]
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_belongs_to_the_state_in_which_it_went_by() {
        let began = monotonic();
        let mut state = State {
            trust: Trust::Deaf,
            since: began,
            deaf: Duration::ZERO,
            unreachable: Duration::ZERO,
        };
        let at = |seconds| began + Duration::from_secs(seconds);
        state.account(at(1));
        state.account(at(3));
        state.trust = Trust::Hearing;
        state.account(at(10));
        state.trust = Trust::Unreachable;
        state.account(at(14));
        assert_eq!((state.deaf.as_secs(), state.unreachable.as_secs()), (3, 4));
    }
}
