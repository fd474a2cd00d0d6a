//! Whether an endpoint gets requests: healthy as far as the gateway asked, and not ejected for what requests showed.
//!
//! A request reads one byte of it. All the rest (the clock included) is looked at only while an endpoint is out, or
//! has just come back.

use std::{
    sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering},
    time::{Duration, Instant},
};

use crate::clock;

const UNHEALTHY: u8 = 0b01;
const EJECTED: u8 = 0b10;

/// A share of 100 that an endpoint begins with when it comes back.
const FIRST_SHARE: u64 = 10;

#[derive(Debug)]
pub(super) struct Standing {
    began: Instant,
    out: AtomicU8,
    /// Requests that failed in a row.
    failures: AtomicU32,
    /// Milliseconds after `began`.
    ejected_until: AtomicU64,
    /// When it came back, in milliseconds after `began`; zero: long ago, or it was never out.
    back_since: AtomicU64,
    ejections: AtomicU64,
}

impl Standing {
    pub(super) fn new() -> Self {
        Self {
            began: clock::monotonic(),
            out: AtomicU8::new(0),
            failures: AtomicU32::new(0),
            ejected_until: AtomicU64::new(0),
            back_since: AtomicU64::new(0),
            ejections: AtomicU64::new(0),
        }
    }

    pub(super) fn ejections(&self) -> u64 {
        self.ejections.load(Ordering::Relaxed)
    }

    pub(super) fn is_healthy(&self) -> bool {
        self.out.load(Ordering::Relaxed) & UNHEALTHY == 0
    }

    /// Whether requests may go there now. An ejection that is over ends here.
    pub(super) fn is_in(&self, last_chance: u32) -> Option<Came> {
        let out = self.out.load(Ordering::Relaxed);
        if out == 0 {
            return Some(Came::WasIn);
        }
        if out & UNHEALTHY != 0 || self.ms() < self.ejected_until.load(Ordering::Relaxed) {
            return None;
        }
        // One worker ends it; for the others it was in.
        let before = self.out.fetch_and(!EJECTED, Ordering::AcqRel);
        if before & EJECTED == 0 {
            return Some(Came::WasIn);
        }
        // It has had its chances: the first failure is the last.
        self.failures.store(last_chance, Ordering::Relaxed);
        self.came_back();
        Some(Came::Back)
    }

    /// Whether it is out, without ending anything: for numbers.
    pub(super) fn is_out(&self) -> bool {
        let out = self.out.load(Ordering::Relaxed);
        out & UNHEALTHY != 0 || (out & EJECTED != 0 && self.ms() < self.ejected_until.load(Ordering::Relaxed))
    }

    pub(super) fn succeeded(&self) {
        // Most never failed: their cache line stays shared.
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
        }
    }

    /// How many in a row that makes.
    pub(super) fn failed(&self) -> u32 {
        self.failures.fetch_add(1, Ordering::Relaxed).saturating_add(1)
    }

    /// `false` if it was out for that already.
    pub(super) fn eject(&self, how_long: Duration) -> bool {
        self.ejected_until
            .store(self.ms().saturating_add(millis(how_long)), Ordering::Relaxed);
        let news = self.out.fetch_or(EJECTED, Ordering::AcqRel) & EJECTED == 0;
        if news {
            self.ejections.fetch_add(1, Ordering::Relaxed);
        }
        news
    }

    /// `true` if that is news.
    pub(super) fn set_healthy(&self, healthy: bool) -> bool {
        if !healthy {
            return self.out.fetch_or(UNHEALTHY, Ordering::AcqRel) & UNHEALTHY == 0;
        }
        let news = self.out.fetch_and(!UNHEALTHY, Ordering::AcqRel) & UNHEALTHY != 0;
        if news {
            self.failures.store(0, Ordering::Relaxed);
            self.came_back();
        }
        news
    }

    fn came_back(&self) {
        self.back_since.store(self.ms().max(1), Ordering::Relaxed);
    }

    /// Of 100 requests that it would get, how many it should; 100 for whoever is back for longer than `slow_start`.
    pub(super) fn share(&self, slow_start: Duration) -> u64 {
        let since = self.back_since.load(Ordering::Relaxed);
        if since == 0 {
            return 100;
        }
        let (for_ms, whole) = (self.ms().saturating_sub(since), millis(slow_start));
        if for_ms >= whole {
            self.back_since.store(0, Ordering::Relaxed);
            return 100;
        }
        (for_ms * 100 / whole.max(1)).max(FIRST_SHARE)
    }

    fn ms(&self) -> u64 {
        millis(clock::monotonic().saturating_duration_since(self.began))
    }
}

/// How an endpoint that gets requests came to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Came {
    WasIn,
    /// Its ejection has just ended.
    Back,
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_hours(1);

    #[test]
    fn an_ejection_ends_by_itself_and_leaves_one_chance() {
        let standing = Standing::new();
        assert_eq!(standing.is_in(4), Some(Came::WasIn));
        assert!(standing.eject(LONG) && !standing.eject(LONG));
        assert_eq!((standing.is_in(4), standing.is_out()), (None, true));
        assert!(!standing.eject(Duration::ZERO), "no news");
        assert_eq!(standing.is_in(4), Some(Came::Back));
        assert_eq!(standing.is_in(4), Some(Came::WasIn));
        assert_eq!(standing.failed(), 5, "the next failure ejects it");
        assert_eq!(standing.ejections(), 1);
    }

    #[test]
    fn a_success_makes_up_for_what_failed_before() {
        let standing = Standing::new();
        assert_eq!([standing.failed(), standing.failed()], [1, 2]);
        standing.succeeded();
        assert_eq!(standing.failed(), 1);
    }

    #[test]
    fn who_is_unhealthy_is_out_until_it_is_well() {
        let standing = Standing::new();
        assert!(standing.set_healthy(false) && !standing.set_healthy(false));
        assert_eq!(standing.is_in(0), None);
        assert!(standing.set_healthy(true) && !standing.set_healthy(true));
        assert_eq!(standing.is_in(0), Some(Came::WasIn));
    }

    #[test]
    fn who_comes_back_begins_with_a_small_share() {
        let standing = Standing::new();
        assert_eq!(standing.share(LONG), 100, "it was never out");
        standing.set_healthy(false);
        standing.set_healthy(true);
        assert_eq!(standing.share(LONG), FIRST_SHARE);
        assert_eq!(standing.share(Duration::ZERO), 100);
        assert_eq!(standing.share(LONG), 100, "once it has its share it keeps it");
    }
}
