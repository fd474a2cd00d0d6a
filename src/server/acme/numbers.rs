//! What an operator watches: when certificates end, and whether getting the next ones fails.

use prometheus_client::{
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
};

use crate::clock::Timestamp;

/// A moment's numbers.
#[derive(Debug)]
pub struct Numbers {
    pub domains: Vec<OfDomain>,
    /// Orders of this gateway that gave a certificate.
    pub issued: u64,
    /// Those that did not.
    pub failed: u64,
}

#[derive(Debug)]
pub struct OfDomain {
    pub domain: String,
    /// Of the certificate in use; `None`: there is none.
    pub expires_at: Option<Timestamp>,
    /// In a row, of whichever gateway.
    pub failures: u32,
}

impl Numbers {
    /// Adds them to what is scraped.
    pub fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let help = "When the certificate in use ends, in seconds of Unix time; 0 if there is none";
        let name = "vestibule_acme_certificate_expires";
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for of in &self.domains {
            let seconds = of.expires_at.map_or(0, |at| at.micros() / 1_000_000);
            let labels = [("domain", of.domain.as_str())];
            ConstGauge::new(seconds).encode(family.encode_family(&labels)?)?;
        }
        let help = "Orders of a certificate that failed since the last that did not";
        let name = "vestibule_acme_failures_in_a_row";
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for of in &self.domains {
            let labels = [("domain", of.domain.as_str())];
            ConstGauge::new(i64::from(of.failures)).encode(family.encode_family(&labels)?)?;
        }
        let help = "Orders of certificates by this gateway";
        let mut family = encoder.encode_descriptor("vestibule_acme_orders", help, None, MetricType::Counter)?;
        for (outcome, count) in [("issued", self.issued), ("failed", self.failed)] {
            let labels = [("outcome", outcome)];
            ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}
