//! The admin listener: is the process alive, is it ready, what are its numbers.
//!
//! It is a listener of its own and never the public one. `/livez`: the process turns. `/readyz`: the configuration is
//! in force, the schema checked, the listeners open, and the gateway isn't draining; Postgres away *after* the start
//! leaves it ready, since every instance would be taken out at once: the answer says `degraded`.

mod connections;
mod downstream;
mod revocations;
mod sessions;
mod upstreams;

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, text::encode},
    metrics::{counter::ConstCounter, gauge::ConstGauge},
    registry::Registry,
};
use tokio::net::TcpListener;

use self::{downstream::Downstream, revocations::Revocations, sessions::SessionWork};
use super::{
    acme::{self, Acme},
    reloads::Reloads,
    tls::Tls,
};
use crate::{
    auth::Auth,
    lifecycle::Tasks,
    session::{Sessions, Trust, streams::Why},
    telemetry::{self, AccessLog, DURATION_BUCKETS_US, Limit, Stats},
    upstream::Upstream,
};

/// One of the things that are told here.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Page {
    Alive,
    Ready,
    Metrics,
}

/// All of them; any other path is 404, and any method but GET and HEAD 405.
pub const PAGES: [(&str, Page); 3] = [
    ("/livez", Page::Alive),
    ("/readyz", Page::Ready),
    ("/metrics", Page::Metrics),
];

/// The admin listener's state: alive from the start, ready once there is something to tell about.
#[derive(Debug, Default)]
pub struct Admin {
    subjects: OnceLock<Subjects>,
    draining: AtomicBool,
}

/// What it tells about.
#[derive(Debug)]
pub struct Subjects {
    pub sessions: Arc<Sessions>,
    pub auth: Arc<ArcSwap<Auth>>,
    pub log: Arc<AccessLog>,
    pub stats: Vec<Arc<Stats>>,
    /// Of the configuration in force.
    pub upstreams: Arc<ArcSwap<Vec<Arc<Upstream>>>>,
    pub reloads: Arc<Reloads>,
    pub tls: Option<Arc<Tls>>,
    /// If certificates are ordered.
    pub acme: Option<Arc<Acme>>,
}

impl Admin {
    /// The listeners are open.
    pub fn ready(&self, subjects: Subjects) {
        // It becomes ready once.
        let _ = self.subjects.set(subjects);
    }

    /// Not ready any more: balancers should look elsewhere.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Answers on `listener` until no connections are taken any more.
    pub async fn serve(self: Arc<Self>, listener: TcpListener, tasks: Tasks) {
        connections::serve(self, listener, tasks).await;
    }

    /// `is_foreign`: who asks may be a web site in the browser of somebody on this machine.
    fn answer<B>(&self, request: &Request<B>, is_foreign: bool) -> Response<Full<Bytes>> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return text(StatusCode::METHOD_NOT_ALLOWED, "text/plain", "GET only\n".to_owned());
        }
        let path = request.uri().path();
        let page = PAGES.iter().find(|(known, _)| *known == path).map(|(_, page)| *page);
        match page {
            Some(Page::Alive) => text(
                StatusCode::OK,
                "application/json",
                "{\"status\":\"alive\"}\n".to_owned(),
            ),
            Some(Page::Ready) => self.readiness(),
            Some(Page::Metrics) if is_foreign => text(
                StatusCode::MISDIRECTED_REQUEST,
                "text/plain",
                "Ask for metrics by this listener's address, or at localhost\n".to_owned(),
            ),
            Some(Page::Metrics) => text(
                StatusCode::OK,
                "application/openmetrics-text; version=1.0.0; charset=utf-8",
                self.metrics(),
            ),
            None => text(
                StatusCode::NOT_FOUND,
                "text/plain",
                "There is /livez, /readyz and /metrics\n".to_owned(),
            ),
        }
    }

    fn readiness(&self) -> Response<Full<Bytes>> {
        let not_ready = |status: &str| {
            let body = format!("{{\"status\":\"{status}\"}}\n");
            text(StatusCode::SERVICE_UNAVAILABLE, "application/json", body)
        };
        let Some(subjects) = self.subjects.get() else {
            return not_ready("starting");
        };
        if self.draining.load(Ordering::Acquire) {
            return not_ready("draining");
        }
        let body = match subjects.sessions.trust() {
            Trust::Hearing => "{\"status\":\"ready\"}\n",
            Trust::Deaf => {
                "{\"status\":\"ready\",\"degraded\":\"revocations are not heard, each session is checked\"}\n"
            }
            Trust::Unreachable => "{\"status\":\"ready\",\"degraded\":\"Postgres can't be reached\"}\n",
        };
        text(StatusCode::OK, "application/json", body.to_owned())
    }

    fn metrics(&self) -> String {
        let mut registry = Registry::default();
        if let Some(subjects) = self.subjects.get() {
            registry.register_collector(Box::new(subjects.numbers()));
        }
        let mut out = String::new();
        // Writing to a string does not fail.
        let _ = encode(&mut out, &registry);
        out
    }
}

impl Subjects {
    fn numbers(&self) -> Numbers {
        let sum = |of: &dyn Fn(&Stats) -> u64| self.stats.iter().map(|stats| of(stats)).sum::<u64>();
        let counters = self.sessions.counters();
        let mut by_duration = vec![0; DURATION_BUCKETS_US.len() + 1];
        for stats in &self.stats {
            for (total, count) in by_duration.iter_mut().zip(stats.by_duration()) {
                *total += count;
            }
        }
        Numbers {
            by_class: std::array::from_fn(|class| sum(&|stats| stats.of_class(class))),
            by_duration,
            duration: self.stats.iter().map(|stats| stats.total_duration()).sum(),
            connections: sum(&|stats| stats.connections.load(Ordering::Relaxed)),
            open_connections: sum(&|stats| stats.open_connections.load(Ordering::Relaxed)),
            downstream: Downstream {
                http1: sum(&|stats| stats.http1.load(Ordering::Relaxed)),
                http2: sum(&|stats| stats.http2.load(Ordering::Relaxed)),
                handshakes: sum(&|stats| stats.handshakes.load(Ordering::Relaxed)),
                handshakes_failed: sum(&|stats| stats.handshakes_failed.load(Ordering::Relaxed)),
                proxy_refused: sum(&|stats| stats.proxy_refused.load(Ordering::Relaxed)),
                made_room: sum(&|stats| stats.made_room.load(Ordering::Relaxed)),
                limits: Limit::ALL
                    .map(|limit| (limit.as_str(), sum(&|stats| stats.limit_reached(limit))))
                    .into_iter()
                    .chain([
                        ("auth.password.queue", self.auth.load().hashes_refused()),
                        ("auth.session.unknown_tokens", self.sessions.refused_strangers()),
                        ("auth.session.cache.lookup_queue", self.sessions.look_ups().refused()),
                    ])
                    .collect(),
                tls: self.tls.clone(),
            },
            hits: counters.hits.total(),
            misses: counters.misses.load(Ordering::Relaxed),
            failures: counters.failures.load(Ordering::Relaxed),
            session_work: SessionWork::of(&self.sessions),
            cached: self.sessions.cached(),
            hearing: self.sessions.trust() == Trust::Hearing,
            revocations: Revocations::of(&self.sessions),
            log_dropped: self.log.dropped(),
            events_dropped: telemetry::events_dropped(),
            assertions: self.sessions.mint().minted(),
            open_streams: self.sessions.streams().open() as u64,
            closed_streams: self.sessions.streams().closed(),
            hashes_waiting: self.auth.load().hashes_waiting(),
            rate_limited: {
                let routes = sum(&|stats| stats.rate_limited.load(Ordering::Relaxed));
                let mut refused = self.auth.load().rate_limited();
                refused.push(("routes", routes));
                refused
            },
            reloads: Arc::clone(&self.reloads),
            upstreams: self.upstreams.load_full(),
            acme: self.acme.as_ref().map(|acme| acme.numbers()),
        }
    }
}

/// A moment's numbers, for one scrape.
#[derive(Debug)]
struct Numbers {
    by_class: [u64; 6],
    by_duration: Vec<u64>,
    duration: Duration,
    connections: u64,
    open_connections: u64,
    downstream: Downstream,
    hits: u64,
    misses: u64,
    failures: u64,
    session_work: SessionWork,
    cached: u64,
    hearing: bool,
    revocations: Revocations,
    log_dropped: u64,
    events_dropped: u64,
    assertions: u64,
    open_streams: u64,
    closed_streams: [(Why, u64); Why::ALL.len()],
    hashes_waiting: u64,
    rate_limited: Vec<(&'static str, u64)>,
    reloads: Arc<Reloads>,
    upstreams: Arc<Vec<Arc<Upstream>>>,
    acme: Option<acme::Numbers>,
}

impl Collector for Numbers {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let counter = prometheus_client::metrics::MetricType::Counter;
        let gauge = prometheus_client::metrics::MetricType::Gauge;

        let mut family = encoder.encode_descriptor("vestibule_requests", "Requests answered", None, counter)?;
        for (class, count) in self.by_class.iter().enumerate().skip(1) {
            let labels = [("status", format!("{class}xx"))];
            ConstCounter::new(*count).encode(family.encode_family(&labels)?)?;
        }

        let histogram = prometheus_client::metrics::MetricType::Histogram;
        let mut durations = encoder.encode_descriptor(
            "vestibule_request_duration",
            "From the request's head to the answer's last byte",
            Some(&prometheus_client::registry::Unit::Seconds),
            histogram,
        )?;
        let count = self.by_duration.iter().sum();
        let buckets = buckets(&self.by_duration);
        durations.encode_histogram::<[(&str, &str); 0]>(self.duration.as_secs_f64(), count, &buckets, None)?;

        for (name, help, value) in [
            ("vestibule_connections", "Client connections accepted", self.connections),
            (
                "vestibule_session_cache_hits",
                "Session look-ups answered by the cache, tokens that are nobody's among them",
                self.hits,
            ),
            (
                "vestibule_session_cache_misses",
                "Session look-ups that the cache could not answer; those at once share a query",
                self.misses,
            ),
            (
                "vestibule_session_lookup_failures",
                "Session look-ups without an answer",
                self.failures,
            ),
            (
                "vestibule_access_log_dropped",
                "Lines of the access log that were dropped",
                self.log_dropped,
            ),
            (
                "vestibule_events_dropped",
                "Lines on standard error that were dropped",
                self.events_dropped,
            ),
        ] {
            ConstCounter::new(value).encode(encoder.encode_descriptor(name, help, None, counter)?)?;
        }
        for (name, help, value) in [
            (
                "vestibule_open_connections",
                "Client connections open",
                self.open_connections,
            ),
            (
                "vestibule_cached_sessions",
                "Sessions in the cache, roughly",
                self.cached,
            ),
            (
                "vestibule_revocations_heard",
                "1 while revocations are heard and the cache is trusted",
                u64::from(self.hearing),
            ),
            (
                "vestibule_open_streams",
                "Tunnels, event streams and gRPC calls open",
                self.open_streams,
            ),
            (
                "vestibule_hashes_waiting",
                "Password hashes that wait for a thread",
                self.hashes_waiting,
            ),
        ] {
            ConstGauge::new(value).encode(encoder.encode_descriptor(name, help, None, gauge)?)?;
        }

        let help =
            "Requests refused by a rate limit: of the auth API by rule, of \"routes\"; of \"mailbox\", mails left out";
        let mut family = encoder.encode_descriptor("vestibule_rate_limited", help, None, counter)?;
        for (rule, count) in &self.rate_limited {
            let labels = [("rule", *rule)];
            ConstCounter::new(*count).encode(family.encode_family(&labels)?)?;
        }

        self.revocations.encode(&mut encoder)?;
        upstreams::encode(&self.upstreams, &mut encoder)?;
        self.session_work.encode(&mut encoder)?;
        self.downstream.encode(&mut encoder)?;
        self.encode_identity(&mut encoder)?;
        match &self.acme {
            Some(acme) => acme.encode(&mut encoder),
            None => Ok(()),
        }
    }
}

/// The counts with their upper bounds, in seconds.
#[expect(clippy::cast_precision_loss, reason = "bounds are small numbers")]
fn buckets(counts: &[u64]) -> Vec<(f64, u64)> {
    let bounds = DURATION_BUCKETS_US.iter().map(|&micros| micros as f64 / 1e6);
    bounds.chain([f64::INFINITY]).zip(counts.iter().copied()).collect()
}

impl Numbers {
    fn encode_identity(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let counter = prometheus_client::metrics::MetricType::Counter;
        let help = "Tunnels, event streams and gRPC calls that were closed before either end closed them";
        let mut family = encoder.encode_descriptor("vestibule_streams_closed", help, None, counter)?;
        for (why, count) in &self.closed_streams {
            let labels = [("reason", why.as_str())];
            ConstCounter::new(*count).encode(family.encode_family(&labels)?)?;
        }
        let help = "Assertions signed for upstreams";
        let assertions = encoder.encode_descriptor("vestibule_assertions_signed", help, None, counter)?;
        ConstCounter::new(self.assertions).encode(assertions)?;
        self.reloads.encode(encoder)
    }
}

fn text(status: StatusCode, content_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
