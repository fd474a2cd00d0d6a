//! Numbers of what clients' connections speak, and of the certificates that they are shown.

use std::{fmt, sync::Arc};

use prometheus_client::{
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
};

use crate::server::tls::Tls;

/// A moment's numbers, over all workers.
#[derive(Debug)]
pub(super) struct Downstream {
    pub http1: u64,
    pub http2: u64,
    pub handshakes: u64,
    pub handshakes_failed: u64,
    pub proxy_refused: u64,
    pub made_room: u64,
    /// How often each was reached, by its key.
    pub limits: Vec<(&'static str, u64)>,
    pub tls: Option<Arc<Tls>>,
}

impl Downstream {
    pub(super) fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let mut counts = |name: &str, help: &str, label: &str, counts: &[(&str, u64)]| -> Result<(), fmt::Error> {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for (value, count) in counts {
                ConstCounter::new(*count).encode(family.encode_family(&[(label, *value)])?)?;
            }
            Ok(())
        };
        counts(
            "vestibule_protocol_connections",
            "Client connections by what they came to speak",
            "protocol",
            &[("http/1.1", self.http1), ("h2", self.http2)],
        )?;
        counts(
            "vestibule_tls_handshakes",
            "TLS handshakes with clients",
            "outcome",
            &[("ok", self.handshakes), ("failed", self.handshakes_failed)],
        )?;
        counts(
            "vestibule_limits_reached",
            "How often a client met a limit, by its key; \"http2\": one of those that HTTP/2 has beside them",
            "limit",
            &self.limits,
        )?;
        if let Some(tls) = &self.tls {
            let (ok, refused) = tls.reloads();
            counts(
                "vestibule_tls_reloads",
                "Changes of certificate files; \"refused\" ones left the old certificates in use",
                "outcome",
                &[("ok", ok), ("refused", refused)],
            )?;
        }
        let help = "Connections refused because they began with no PROXY header, a bad one, or came from a stranger";
        let refused = ConstCounter::new(self.proxy_refused);
        refused.encode(encoder.encode_descriptor(
            "vestibule_proxy_protocol_refused",
            help,
            None,
            MetricType::Counter,
        )?)?;
        let help = "Idle connections that were asked to leave because others needed their places";
        let made_room = ConstCounter::new(self.made_room);
        made_room.encode(encoder.encode_descriptor(
            "vestibule_connections_made_room",
            help,
            None,
            MetricType::Counter,
        )?)?;
        let Some(tls) = &self.tls else { return Ok(()) };
        let help = "When a certificate ends, in seconds since 1970";
        let name = "vestibule_tls_certificate_expiry_timestamp_seconds";
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (file, expires_at) in tls.expiries() {
            let ends = ConstGauge::new(expires_at.micros().div_euclid(1_000_000));
            ends.encode(family.encode_family(&[("certificate", file.as_str())])?)?;
        }
        Ok(())
    }
}
