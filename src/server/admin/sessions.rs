//! Numbers of what is asked of Postgres about sessions, and of what it is told behind requests.

use std::fmt;

use prometheus_client::{
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
};

use crate::session::{Sessions, lookup::SIZES};

/// A moment's numbers.
#[derive(Debug)]
pub(super) struct SessionWork {
    lookups_waiting: u64,
    /// Queries, by how many sessions each asked for.
    sizes: [u64; SIZES.len()],
    /// Sessions that were asked for, in all queries.
    asked: u64,
    last_seen_waiting: u64,
    last_seen_dropped: u64,
}

impl SessionWork {
    pub(super) fn of(sessions: &Sessions) -> Self {
        let (sizes, asked) = sessions.look_ups().sizes();
        Self {
            lookups_waiting: sessions.look_ups().waiting() as u64,
            sizes,
            asked,
            last_seen_waiting: sessions.last_seen().waiting() as u64,
            last_seen_dropped: sessions.last_seen().dropped(),
        }
    }

    pub(super) fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for (name, help, value) in [
            (
                "vestibule_session_lookups_waiting",
                "Requests whose session waits to be looked up",
                self.lookups_waiting,
            ),
            (
                "vestibule_last_seen_waiting",
                "Sessions whose last use is still to be written",
                self.last_seen_waiting,
            ),
        ] {
            ConstGauge::new(value).encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)?;
        }
        let help = "Uses of sessions that were not noted";
        let dropped = encoder.encode_descriptor("vestibule_last_seen_dropped", help, None, MetricType::Counter)?;
        ConstCounter::new(self.last_seen_dropped).encode(dropped)?;

        let mut sizes = encoder.encode_descriptor(
            "vestibule_session_lookups_per_query",
            "Sessions that were looked up together, in one query",
            None,
            MetricType::Histogram,
        )?;
        #[expect(clippy::cast_precision_loss, reason = "bounds are small numbers")]
        let buckets: Vec<(f64, u64)> = SIZES
            .iter()
            .map(|&size| size as f64)
            .zip(self.sizes)
            .chain([(f64::INFINITY, 0)])
            .collect();
        let queries = self.sizes.iter().sum();
        #[expect(clippy::cast_precision_loss, reason = "a histogram's sum is a floating-point number")]
        let asked = self.asked as f64;
        sizes.encode_histogram::<[(&str, &str); 0]>(asked, queries, &buckets, None)
    }
}
