//! Numbers of how revocations arrive, and of whether the cache may be trusted.

use std::{fmt, time::Duration};

use prometheus_client::{
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::Unit,
};

use super::buckets;
use crate::session::{Sessions, Trust};

/// A moment's numbers.
#[derive(Debug)]
pub(super) struct Revocations {
    trust: Trust,
    untrusted: [(Trust, Duration); 2],
    heard: Vec<(&'static str, u64)>,
    lag_counts: Vec<u64>,
    lag_sum: Duration,
    unknown_hits: u64,
}

impl Revocations {
    pub(super) fn of(sessions: &Sessions) -> Self {
        let vigil = sessions.vigil();
        Self {
            trust: sessions.trust(),
            untrusted: vigil.untrusted(),
            heard: vigil.heard().to_vec(),
            lag_counts: vigil.lag().counts(),
            lag_sum: vigil.lag().sum(),
            unknown_hits: sessions.unknown_hits(),
        }
    }

    pub(super) fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let mut lag = encoder.encode_descriptor(
            "vestibule_revocation_lag",
            "From before a probe was committed at Postgres until it had come as revocations do",
            Some(&Unit::Seconds),
            MetricType::Histogram,
        )?;
        let count = self.lag_counts.iter().sum();
        let sum = self.lag_sum.as_secs_f64();
        lag.encode_histogram::<[(&str, &str); 0]>(sum, count, &buckets(&self.lag_counts), None)?;

        let help = "Notifications of changes, by what they were about";
        let mut family = encoder.encode_descriptor("vestibule_revocations", help, None, MetricType::Counter)?;
        for (about, count) in &self.heard {
            ConstCounter::new(*count).encode(family.encode_family(&[("about", *about)])?)?;
        }

        let help = "1 for the present state: \"hearing\" (the cache is trusted), \"deaf\" (each session is checked), \
                    \"unreachable\" (nobody can be asked)";
        let mut family = encoder.encode_descriptor("vestibule_trust", help, None, MetricType::Gauge)?;
        for trust in Trust::ALL {
            let is = ConstGauge::new(u64::from(trust == self.trust));
            is.encode(family.encode_family(&[("state", trust.as_str())])?)?;
        }

        let help = "For how long revocations were not heard, by state";
        let mut family =
            encoder.encode_descriptor("vestibule_deaf", help, Some(&Unit::Seconds), MetricType::Counter)?;
        for (trust, lasted) in self.untrusted {
            let lasted = ConstCounter::new(lasted.as_secs_f64());
            lasted.encode(family.encode_family(&[("state", trust.as_str())])?)?;
        }

        let help = "Those of the hits that found a token to be nobody's";
        let hits = ConstCounter::new(self.unknown_hits);
        hits.encode(encoder.encode_descriptor(
            "vestibule_session_cache_unknown_hits",
            help,
            None,
            MetricType::Counter,
        )?)
    }
}
