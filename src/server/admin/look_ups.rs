//! Numbers of sessions that are looked up in Postgres.

use std::fmt;

use prometheus_client::{
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, gauge::ConstGauge},
};

use crate::session::{Sessions, lookup::SIZES};

/// A moment's numbers.
#[derive(Debug)]
pub(super) struct LookUps {
    waiting: u64,
    /// Queries, by how many sessions each asked for.
    sizes: [u64; SIZES.len()],
    /// Sessions that were asked for, in all queries.
    asked: u64,
}

impl LookUps {
    pub(super) fn of(sessions: &Sessions) -> Self {
        let (sizes, asked) = sessions.look_ups().sizes();
        Self {
            waiting: sessions.look_ups().waiting() as u64,
            sizes,
            asked,
        }
    }

    pub(super) fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let waiting = encoder.encode_descriptor(
            "vestibule_session_lookups_waiting",
            "Requests whose session waits to be looked up",
            None,
            MetricType::Gauge,
        )?;
        ConstGauge::new(self.waiting).encode(waiting)?;

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
        #[expect(
            clippy::cast_precision_loss,
            reason = "a sum of a histogram is a floating-point number"
        )]
        let asked = self.asked as f64;
        sizes.encode_histogram::<[(&str, &str); 0]>(asked, queries, &buckets, None)
    }
}
