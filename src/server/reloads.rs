//! What the admin listener tells of reloads: how many, how they went, and which configuration is in force.

use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};

use prometheus_client::{
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
};

use crate::clock::Timestamp;

/// Written by whoever reloads, read by scrapes.
#[derive(Debug)]
pub struct Reloads {
    ok: AtomicU64,
    refused: AtomicU64,
    /// Seconds since 1970: the start, or the last reload that took effect.
    since: AtomicI64,
    fingerprint: AtomicU32,
}

impl Reloads {
    /// `fingerprint` names the configuration of the start.
    pub fn new(fingerprint: u32, now: Timestamp) -> Self {
        Self {
            ok: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            since: AtomicI64::new(seconds(now)),
            fingerprint: AtomicU32::new(fingerprint),
        }
    }

    /// Another configuration is in force.
    pub fn succeeded(&self, fingerprint: u32, now: Timestamp) {
        self.fingerprint.store(fingerprint, Ordering::Relaxed);
        self.since.store(seconds(now), Ordering::Relaxed);
        self.ok.fetch_add(1, Ordering::Relaxed);
    }

    /// The new one was wrong: the old one stays.
    pub fn refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let help = "Reloads of the configuration; \"refused\" ones changed nothing";
        let mut family = encoder.encode_descriptor("vestibule_reloads", help, None, MetricType::Counter)?;
        for (outcome, count) in [("ok", &self.ok), ("refused", &self.refused)] {
            let labels = [("outcome", outcome)];
            ConstCounter::new(count.load(Ordering::Relaxed)).encode(family.encode_family(&labels)?)?;
        }
        let help = "Since when the configuration is in force, in seconds since 1970";
        let name = "vestibule_config_in_force_since_timestamp_seconds";
        let since = ConstGauge::new(self.since.load(Ordering::Relaxed));
        since.encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)?;

        let help = "Always 1; the hash is the same on gateways whose files and variables say the same";
        let mut family = encoder.encode_descriptor("vestibule_config", help, None, MetricType::Gauge)?;
        let labels = [("hash", format!("{:08x}", self.fingerprint.load(Ordering::Relaxed)))];
        ConstGauge::new(1_u64).encode(family.encode_family(&labels)?)
    }
}

fn seconds(at: Timestamp) -> i64 {
    at.micros().div_euclid(1_000_000)
}
