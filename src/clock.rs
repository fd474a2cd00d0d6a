//! What time it is, and how time is written.
//!
//! Wall-clock time is read here and nowhere else, so that tests can move it. One request reads it once and passes
//! it on. Timers (`tokio::time`) and latencies ([`monotonic`]) follow the machine and can't be moved.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

/// A point in time: microseconds since the Unix epoch, which is also Postgres's resolution.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Timestamp(i64);

impl Timestamp {
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    pub const fn from_secs(secs: i64) -> Self {
        Self(secs.saturating_mul(1_000_000))
    }

    pub const fn micros(self) -> i64 {
        self.0
    }

    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(micros(duration)))
    }

    #[must_use]
    pub fn minus(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(micros(duration)))
    }

    /// How much later this is than `earlier`; zero when it isn't.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// `2026-11-21T07:15:08.894Z`: UTC with exactly three fractional digits, the one form that the better-auth
    /// client reads correctly. Finer digits are cut off, not rounded.
    pub fn rfc3339(self) -> String {
        jiff::Timestamp::from_microsecond(self.0)
            .unwrap_or(jiff::Timestamp::MAX)
            .strftime("%Y-%m-%dT%H:%M:%S.%3fZ")
            .to_string()
    }
}

impl std::str::FromStr for Timestamp {
    type Err = NoTime;

    /// Reads RFC 3339: `2026-11-21T07:15:08Z`, with any offset and fraction.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let at: jiff::Timestamp = text.parse().map_err(|_| NoTime)?;
        Ok(Self(at.as_microsecond()))
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct NoTime;

impl fmt::Display for NoTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a time such as 2026-11-21T07:15:08Z")
    }
}

impl std::error::Error for NoTime {}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// Where the time comes from.
#[derive(Clone)]
pub enum Clock {
    System,
    /// Stands still until a test moves it.
    Manual(Arc<AtomicI64>),
}

impl Clock {
    pub fn manual(start: Timestamp) -> Self {
        Self::Manual(Arc::new(AtomicI64::new(start.0)))
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one place that reads the system's clock"
    )]
    pub fn now(&self) -> Timestamp {
        match self {
            Self::System => {
                let since_epoch = std::time::SystemTime::now()
                    .duration_since(std::time::UNIX_EPOCH)
                    .unwrap_or(Duration::ZERO);
                Timestamp(micros(since_epoch))
            }
            Self::Manual(at) => Timestamp(at.load(Ordering::SeqCst)),
        }
    }

    /// Moves a manual clock forward; the system's clock does not move.
    pub fn advance(&self, by: Duration) {
        if let Self::Manual(at) = self {
            at.fetch_add(micros(by), Ordering::SeqCst);
        }
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::System => f.write_str("Clock(system)"),
            Self::Manual(_) => write!(f, "Clock(manual, {})", self.now().rfc3339()),
        }
    }
}

/// For latencies and deadlines: never goes back, says nothing about the wall clock.
#[expect(
    clippy::disallowed_methods,
    reason = "this is the one place that reads the monotonic clock"
)]
pub fn monotonic() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_with_three_fractional_digits() {
        assert_eq!(
            Timestamp::from_micros(1_795_245_308_894_999).rfc3339(),
            "2026-11-21T07:15:08.894Z"
        );
        assert_eq!(Timestamp::from_secs(0).rfc3339(), "1970-01-01T00:00:00.000Z");
    }

    #[test]
    fn times_are_read_whatever_their_offset() {
        let at = Timestamp::from_micros(1_795_245_308_894_999);
        for text in ["2026-11-21T07:15:08.894999Z", "2026-11-21T08:15:08.894999+01:00"] {
            assert_eq!(text.parse(), Ok(at), "{text}");
        }
        for text in ["", "yesterday", "24h", "2026-11-21", "2026-11-21T07:15:08"] {
            assert_eq!(text.parse::<Timestamp>(), Err(NoTime), "{text}");
        }
    }

    #[test]
    fn a_manual_clock_moves_only_when_told() {
        let clock = Clock::manual(Timestamp::from_secs(100));
        assert_eq!(clock.now(), Timestamp::from_secs(100));
        clock.advance(Duration::from_secs(5));
        assert_eq!(clock.now().since(Timestamp::from_secs(100)), Duration::from_secs(5));
        assert_eq!(Timestamp::from_secs(1).since(Timestamp::from_secs(2)), Duration::ZERO);
    }
}
