//! What a worker counts: requests, connections, and limits that were met.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use http::StatusCode;

use super::Limit;

/// Upper bounds of the request durations that are told apart, in microseconds.
pub const DURATION_BUCKETS_US: [u64; 12] = [
    250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 500_000, 2_000_000, 10_000_000,
];

/// A worker's numbers; no other worker writes them, the scrape adds them up.
#[derive(Debug, Default)]
pub struct Stats {
    /// By first digit of the status.
    by_class: [AtomicU64; 6],
    /// One more than there are bounds: the last is for everything slower.
    by_duration: [AtomicU64; DURATION_BUCKETS_US.len() + 1],
    duration_us: AtomicU64,
    pub connections: AtomicU64,
    pub open_connections: AtomicU64,
    /// Connections that came to speak it.
    pub http1: AtomicU64,
    pub http2: AtomicU64,
    /// Of TLS.
    pub handshakes: AtomicU64,
    pub handshakes_failed: AtomicU64,
    /// Connections without a PROXY header that there should have been, or from somebody who must not send one.
    pub proxy_refused: AtomicU64,
    /// Requests that a route's rate limit refused.
    pub rate_limited: AtomicU64,
    /// Idle connections that were closed because others needed their places.
    pub made_room: AtomicU64,
    /// How often each limit was reached.
    limits: [AtomicU64; Limit::ALL.len()],
}

impl Stats {
    /// Counts that somebody met a limit.
    pub fn limit(&self, limit: Limit) {
        if let Some(counter) = self.limits.get(limit as usize) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub fn limit_reached(&self, limit: Limit) -> u64 {
        self.limits
            .get(limit as usize)
            .map_or(0, |counter| counter.load(Ordering::Relaxed))
    }

    /// Counts a request that has ended.
    pub fn request(&self, status: StatusCode, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let class = usize::from(status.as_u16() / 100).min(self.by_class.len() - 1);
        let bucket = DURATION_BUCKETS_US.partition_point(|&bound| bound < micros);
        for (counters, index) in [(&self.by_class[..], class), (&self.by_duration[..], bucket)] {
            if let Some(counter) = counters.get(index) {
                counter.fetch_add(1, Ordering::Relaxed);
            }
        }
        self.duration_us.fetch_add(micros, Ordering::Relaxed);
    }

    /// Requests that ended with a status of this hundred.
    pub fn of_class(&self, hundreds: usize) -> u64 {
        self.by_class
            .get(hundreds)
            .map_or(0, |counter| counter.load(Ordering::Relaxed))
    }

    /// How many requests fell between each bound and the one before.
    pub fn by_duration(&self) -> [u64; DURATION_BUCKETS_US.len() + 1] {
        std::array::from_fn(|index| {
            self.by_duration
                .get(index)
                .map_or(0, |counter| counter.load(Ordering::Relaxed))
        })
    }

    pub fn total_duration(&self) -> Duration {
        Duration::from_micros(self.duration_us.load(Ordering::Relaxed))
    }
}
