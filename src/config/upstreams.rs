//! `[upstreams.*]`: whom requests are forwarded to, and how much is expected of them.

mod endpoint;
mod health;
mod tls;

use std::{num::NonZeroUsize, time::Duration};

pub use self::{
    endpoint::{At, Endpoint, Scheme},
    health::{HealthCheck, Outliers},
    tls::{ClientIdentity, UpstreamTls},
};
use super::{
    error::ConfigError,
    kind::{choice, integer},
    section::Section,
    units::{duration, nonzero_duration},
};

/// One application. Two that are equal may share connections, health and counters: a reload keeps them.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Upstream {
    pub name: String,
    /// At least one, each of them once.
    pub endpoints: Vec<Endpoint>,
    /// Of https endpoints.
    pub protocol: Protocol,
    pub tls: UpstreamTls,
    /// Reaching an endpoint: looking up its name, TCP and TLS.
    pub connect_timeout: Duration,
    pub response_timeout: Duration,
    /// How long an unused connection is kept; below the upstream's own keep-alive time-out.
    pub idle_timeout: Duration,
    /// Requests in flight and tunnels, over all endpoints and workers; past it they wait.
    pub max_connections: NonZeroUsize,
    /// For so long at most, then 503.
    pub queue_timeout: Duration,
    /// So many at most, then 503 at once.
    pub max_queue: usize,
    /// How old what a name resolved to may become; a new look-up runs beside requests.
    pub dns_refresh: Duration,
    /// `None`: endpoints are taken to be well until requests show otherwise.
    pub health_check: Option<HealthCheck>,
    pub outliers: Outliers,
    /// For how long an endpoint that comes back gets less than its share; zero: not at all.
    pub slow_start: Duration,
}

/// What is spoken to https endpoints.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Protocol {
    /// What the endpoint chooses by ALPN.
    Negotiated,
    Http1,
    Http2,
}

impl Upstream {
    pub(super) fn read(s: &mut Section<'_>, name: &str) -> Option<Self> {
        report_bad_name(s, name);
        let endpoints = s
            .key(
                "endpoints",
                "Where it listens; several are balanced: of two taken by chance, the one with fewer requests in flight \
                 is asked. https:// speaks TLS, h2c:// HTTP/2 without TLS, unix: goes to a socket in the file system.",
                endpoint::endpoints(),
            )
            .required("[\"http://127.0.0.1:8000\"]");
        let protocol = s
            .key(
                "protocol",
                "What https endpoints are spoken to: \"auto\" leaves the choice between HTTP/2 and HTTP/1.1 to them \
                 (ALPN). WebSockets always travel over HTTP/1.1.",
                choice(&[
                    ("auto", Protocol::Negotiated),
                    ("http/1.1", Protocol::Http1),
                    ("h2", Protocol::Http2),
                ]),
            )
            .or("auto");
        let times = Times::read(s);
        let limits = Limits::read(s);
        let slow_start = s
            .key(
                "slow_start",
                "For how long an endpoint that comes back gets less than its share, rising from a tenth. \"0s\": its \
                 whole share at once.",
                duration(),
            )
            .or("0s");
        let tls = s.section(
            "tls",
            "How https endpoints prove who they are, and how the gateway does.",
            UpstreamTls::read,
        );
        let health_check = HealthCheck::read_in(s);
        let outliers = s.section(
            "outliers",
            "Endpoints that fail requests get none for a while. A failure is a connection that is refused or breaks \
             before the answer, an answer that doesn't come in time, or one of 502, 503 and 504.",
            Outliers::read,
        );
        if let Some(endpoints) = &endpoints {
            report_repeated(s, endpoints);
            report_tls_for_nobody(s, endpoints, protocol, tls.as_ref());
        }
        let (times, limits) = (times?, limits?);
        Some(Self {
            name: name.to_owned(),
            endpoints: endpoints?,
            protocol: protocol?,
            tls: tls?,
            connect_timeout: times.connect,
            response_timeout: times.response,
            idle_timeout: times.idle,
            dns_refresh: times.dns_refresh,
            max_connections: limits.max_connections,
            queue_timeout: limits.queue_timeout,
            max_queue: limits.max_queue,
            health_check: health_check?,
            outliers: outliers?,
            slow_start: slow_start?,
        })
    }
}

struct Times {
    connect: Duration,
    response: Duration,
    idle: Duration,
    dns_refresh: Duration,
}

impl Times {
    fn read(s: &mut Section<'_>) -> Option<Self> {
        let connect = s
            .key(
                "connect_timeout",
                "How long reaching an endpoint may take, TLS included; then the next is tried, or the answer is 502.",
                nonzero_duration(),
            )
            .or("5s");
        let response = s
            .key(
                "response_timeout",
                "How long it may take to begin its answer; then 504.",
                nonzero_duration(),
            )
            .or("60s");
        let idle = s
            .key(
                "idle_timeout",
                "How long an unused connection is kept. Below the upstream's own keep-alive time-out (5 s for uvicorn and \
                 Node), else requests meet connections that it is just closing.",
                nonzero_duration(),
            )
            .or("4s");
        let dns_refresh = s
            .key(
                "dns_refresh",
                "How often names of endpoints are looked up again, beside requests. While nobody answers, what was \
                 known stays; connections to addresses that are gone are not used again.",
                nonzero_duration(),
            )
            .or("30s");
        Some(Self {
            connect: connect?,
            response: response?,
            idle: idle?,
            dns_refresh: dns_refresh?,
        })
    }
}

struct Limits {
    max_connections: NonZeroUsize,
    queue_timeout: Duration,
    max_queue: usize,
}

impl Limits {
    fn read(s: &mut Section<'_>) -> Option<Self> {
        let max_connections = s
            .key(
                "max_connections",
                "Requests in flight to it, WebSockets included; past it they wait. Over HTTP/1.1 each has a connection \
                 of its own.",
                integer::<usize>(1..=1_000_000).map(|count| NonZeroUsize::new(count).unwrap_or(NonZeroUsize::MIN)),
            )
            .or("1024");
        let queue_timeout = s
            .key(
                "queue_timeout",
                "How long a request waits past `max_connections`; then 503.",
                nonzero_duration(),
            )
            .or("5s");
        let max_queue = s
            .key(
                "max_queue",
                "Requests that may wait at once; past it 503 at once. 0: nobody waits.",
                integer(0..=1_000_000),
            )
            .or("1024");
        Some(Self {
            max_connections: max_connections?,
            queue_timeout: queue_timeout?,
            max_queue: max_queue?,
        })
    }
}

/// Names go into metrics, logs and environment variables.
fn report_bad_name(s: &Section<'_>, name: &str) {
    let plain = name
        .bytes()
        .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_'));
    if name.is_empty() || name.len() > 63 || !plain {
        s.report(
            ConfigError::new(s.place().clone(), s.path(), "not a name for an upstream")
                .found(format!("{name:?}"))
                .allowed("lower-case letters, digits, `-` and `_`, at most 63"),
        );
    }
}

/// Twice the same would be taken for two that could replace each other.
fn report_repeated(s: &Section<'_>, endpoints: &[Endpoint]) {
    for (at, endpoint) in endpoints.iter().enumerate() {
        if endpoints.iter().take(at).any(|before| before == endpoint) {
            s.report(
                s.wrong("endpoints", "an endpoint that is there already")
                    .found(format!("\"{endpoint}\""))
                    .allowed("each endpoint once"),
            );
        }
    }
}

/// Whoever asks for proof must not find out late that none was ever asked for.
fn report_tls_for_nobody(
    s: &Section<'_>,
    endpoints: &[Endpoint],
    protocol: Option<Protocol>,
    tls: Option<&UpstreamTls>,
) {
    if endpoints.iter().any(Endpoint::is_tls) {
        return;
    }
    let chosen = matches!(protocol, Some(Protocol::Http1 | Protocol::Http2));
    let demands = tls.is_some_and(|tls| *tls != UpstreamTls::default());
    for (key, _) in [("protocol", chosen), ("tls", demands)].iter().filter(|(_, set)| *set) {
        s.report(
            s.wrong(key, "of no use: none of the endpoints is https")
                .allowed("https:// endpoints, or no such key"),
        );
    }
}
