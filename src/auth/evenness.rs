//! Answers that take as long whether or not an address has a user.
//!
//! Where it has one a mail is written, which is a handful of questions to Postgres more. How long these take depends on
//! where Postgres is and how busy: so every answer of the kind waits until as long has gone by as the slowest of them took
//! lately, and a bit. Only an answer that is slower than all before it can be told from others, and raises the bar.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::time::sleep_until;

use crate::clock::monotonic;

/// More than writing a mail takes where Postgres is near.
const LEAST: Duration = Duration::from_millis(60);
/// An outage must not make everybody wait as long as it made one.
const MOST: Duration = Duration::from_secs(1);
/// What is remembered of the slowest: this span and the one before.
const SPAN: Duration = Duration::from_mins(10);

#[derive(Debug)]
pub(super) struct Evenness(Mutex<Slowest>);

#[derive(Debug)]
struct Slowest {
    this_span: Duration,
    last_span: Duration,
    /// When this span began.
    since: Instant,
}

impl Evenness {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Slowest {
            this_span: LEAST,
            last_span: LEAST,
            since: monotonic(),
        }))
    }

    /// Waits until as long has gone by since `began` as answers take.
    pub(super) async fn even_out(&self, began: Instant) {
        let now = monotonic();
        let whole = {
            // It is whole whenever it is let go.
            let mut slowest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            slowest.whole(now.saturating_duration_since(began), now)
        };
        sleep_until((began + whole).into()).await;
    }
}

impl Slowest {
    /// How long an answer takes on the whole whose work took so long.
    fn whole(&mut self, took: Duration, now: Instant) -> Duration {
        let spans = now.saturating_duration_since(self.since).as_secs() / SPAN.as_secs();
        if spans > 0 {
            self.last_span = if spans == 1 { self.this_span } else { LEAST };
            self.this_span = LEAST;
            self.since = now;
        }
        // A quarter more: the next may take a bit longer.
        let wanted = (took + took / 4).clamp(LEAST, MOST);
        self.this_span = self.this_span.max(wanted);
        self.this_span.max(self.last_span)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_waits_as_long_as_the_slowest_of_late() {
        let start = monotonic();
        let millis = Duration::from_millis;
        let mut slowest = Slowest {
            this_span: LEAST,
            last_span: LEAST,
            since: start,
        };
        for (after, took, whole) in [
            (Duration::ZERO, millis(10), millis(60)),
            // Postgres is further away than was thought.
            (SPAN / 4, millis(160), millis(200)),
            (SPAN / 2, millis(10), millis(200)),
            (SPAN / 2, millis(120), millis(200)),
            (SPAN + SPAN / 2, millis(10), millis(200)),
            // It has come nearer.
            (3 * SPAN, millis(20), millis(60)),
            // It was away.
            (3 * SPAN, Duration::from_secs(9), MOST),
            (3 * SPAN, millis(20), MOST),
            (9 * SPAN, millis(20), millis(60)),
        ] {
            assert_eq!(slowest.whole(took, start + after), whole, "{took:?} after {after:?}");
        }
    }
}
