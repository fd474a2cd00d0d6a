//! The numbers of upstreams and their endpoints.

use std::{fmt, sync::Arc};

use prometheus_client::{
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
};

use crate::upstream::{Endpoint, Upstream};

/// A number of an upstream: name, meaning, value.
type Number<T> = (&'static str, &'static str, fn(&T) -> u64);

const UPSTREAM_COUNTERS: [Number<Upstream>; 2] = [
    (
        "vestibule_upstream_refused",
        "Requests for which an upstream had no place",
        Upstream::refused,
    ),
    (
        "vestibule_upstream_retries",
        "Requests that were sent once more, or to another endpoint than first chosen",
        Upstream::retries,
    ),
];

const UPSTREAM_GAUGES: [Number<Upstream>; 3] = [
    (
        "vestibule_upstream_in_flight",
        "Requests and tunnels in flight to an upstream",
        |upstream| upstream.in_flight() as u64,
    ),
    (
        "vestibule_upstream_waiting",
        "Requests that wait for a place at an upstream",
        |upstream| upstream.waiting() as u64,
    ),
    (
        "vestibule_upstream_all_out",
        "1 while no endpoint of an upstream is healthy, and requests go to any",
        |upstream| u64::from(!upstream.endpoints().iter().any(|endpoint| endpoint.is_in())),
    ),
];

const ENDPOINT_COUNTERS: [Number<Endpoint>; 3] = [
    (
        "vestibule_upstream_connects",
        "Connections to an endpoint that were begun",
        Endpoint::connects,
    ),
    (
        "vestibule_upstream_failures",
        "Connections that could not be made, requests without an answer, and answers 502, 503 and 504",
        Endpoint::failures,
    ),
    (
        "vestibule_upstream_ejections",
        "How often an endpoint was ejected because requests failed",
        Endpoint::ejections,
    ),
];

const HEALTHY: Number<Endpoint> = (
    "vestibule_upstream_healthy",
    "1 while an endpoint gets requests: it is neither unhealthy nor ejected",
    |endpoint| u64::from(endpoint.is_in()),
);

pub(super) fn encode(upstreams: &[Arc<Upstream>], encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    for (name, help, value) in UPSTREAM_COUNTERS {
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for upstream in upstreams {
            let labels = [("upstream", upstream.name())];
            ConstCounter::new(value(upstream)).encode(family.encode_family(&labels)?)?;
        }
    }
    for (name, help, value) in UPSTREAM_GAUGES {
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for upstream in upstreams {
            let labels = [("upstream", upstream.name())];
            ConstGauge::new(value(upstream)).encode(family.encode_family(&labels)?)?;
        }
    }
    for (name, help, value) in ENDPOINT_COUNTERS {
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, endpoint) in endpoints(upstreams) {
            ConstCounter::new(value(endpoint)).encode(family.encode_family(&labels)?)?;
        }
    }
    let (name, help, value) = HEALTHY;
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (labels, endpoint) in endpoints(upstreams) {
        ConstGauge::new(value(endpoint)).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

fn endpoints(upstreams: &[Arc<Upstream>]) -> impl Iterator<Item = ([(&'static str, &str); 2], &Endpoint)> {
    upstreams.iter().flat_map(|upstream| {
        upstream.endpoints().iter().map(|endpoint| {
            let labels = [("upstream", upstream.name()), ("endpoint", endpoint.name())];
            (labels, endpoint.as_ref())
        })
    })
}
