//! Answers that take as long whether or not an address has a user.
//!
//! Where it has one a mail is written (or where it has none, a user), which is a handful of questions to Postgres more. How long
//! these take depends on where Postgres is and how busy. So every answer of the kind waits until as long has gone by as the
//! longer way takes, by how long Postgres took for the first thing it was asked, which is the same on both: a multiple of that. And
//! no answer is faster than the slowest of late and a bit, should one have taken longer still. Only such a one can be told from
//! others, and raises the bar for those behind it.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::time::sleep_until;

use crate::{
    clock::monotonic,
    db::{self, Client, DbError, Transaction},
};

/// More than the longer way takes where Postgres is near.
const LEAST: Duration = Duration::from_millis(60);
/// An outage must not make everybody wait as long as it made one.
const MOST: Duration = Duration::from_secs(1);
/// How often the longer way asks Postgres: up to ten times, each of them once more where it was not prepared yet, and a quarter for
/// the one that was measured.
const MOST_TRIPS: u32 = 25;
/// What is remembered of the slowest: this span and the one before.
const SPAN: Duration = Duration::from_mins(10);

#[derive(Debug)]
pub(super) struct Evenness(Mutex<Slowest>);

/// One answer's time.
#[derive(Debug)]
pub(super) struct Stopwatch<'a> {
    evenness: &'a Evenness,
    began: Instant,
    /// How long the longer way takes, by how long it took so far.
    expected: Duration,
}

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

    pub(super) fn start(&self) -> Stopwatch<'_> {
        Stopwatch {
            evenness: self,
            began: monotonic(),
            expected: Duration::ZERO,
        }
    }
}

impl Stopwatch<'_> {
    /// Begins the transaction, in which nothing has told yet which way it goes.
    pub(super) async fn begin<'c>(&mut self, client: &'c mut Client) -> Result<Transaction<'c>, DbError> {
        // The wait for a connection was the same for all.
        self.began = monotonic();
        let tx = db::begin(client).await?;
        self.expected = monotonic()
            .saturating_duration_since(self.began)
            .saturating_mul(MOST_TRIPS);
        Ok(tx)
    }

    /// Waits until as long has gone by as answers take. Nothing may be held meanwhile that others wait for.
    pub(super) async fn even_out(self) {
        let now = monotonic();
        let took = now.saturating_duration_since(self.began);
        let whole = {
            // It is whole whenever it is let go.
            let mut slowest = self.evenness.0.lock().unwrap_or_else(PoisonError::into_inner);
            slowest.whole(took, self.expected, now)
        };
        sleep_until((self.began + whole).into()).await;
    }
}

impl Slowest {
    /// How long an answer takes on the whole whose work took so long, and was expected to.
    fn whole(&mut self, took: Duration, expected: Duration, now: Instant) -> Duration {
        let spans = now.saturating_duration_since(self.since).as_secs() / SPAN.as_secs();
        if spans > 0 {
            self.last_span = if spans == 1 { self.this_span } else { LEAST };
            self.this_span = LEAST;
            self.since = now;
        }
        if took > expected {
            // A quarter more: the next may take a bit longer.
            self.this_span = self.this_span.max((took + took / 4).min(MOST));
        }
        // That a transaction was slow to begin, once, is not to be paid for by others.
        self.this_span.max(self.last_span).max(expected.min(MOST))
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
        for (after, took, expected, whole) in [
            (Duration::ZERO, millis(10), millis(30), millis(60)),
            // Postgres is further away than was thought.
            (SPAN / 4, millis(160), millis(30), millis(200)),
            (SPAN / 2, millis(10), millis(30), millis(200)),
            (SPAN / 2, millis(120), millis(30), millis(200)),
            (SPAN + SPAN / 2, millis(10), millis(30), millis(200)),
            // It has come nearer.
            (3 * SPAN, millis(20), millis(30), millis(60)),
            // It was away.
            (3 * SPAN, Duration::from_secs(9), millis(30), MOST),
            (3 * SPAN, millis(20), millis(30), MOST),
            (9 * SPAN, millis(20), millis(30), millis(60)),
            (9 * SPAN, millis(20), Duration::MAX, MOST),
            (9 * SPAN, millis(20), millis(30), millis(60)),
        ] {
            assert_eq!(
                slowest.whole(took, expected, start + after),
                whole,
                "{after:?} {took:?}"
            );
        }
    }

    #[test]
    fn neither_way_is_told_by_being_the_first() {
        let start = monotonic();
        let millis = Duration::from_millis;
        for (first, then) in [(millis(110), millis(240)), (millis(240), millis(110))] {
            let mut slowest = Slowest {
                this_span: LEAST,
                last_span: LEAST,
                since: start,
            };
            let whole = [first, then, first].map(|took| slowest.whole(took, millis(270), start));
            assert_eq!(whole, [millis(270); 3]);
        }
    }
}
