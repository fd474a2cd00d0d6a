//! What the whole gateway knows of one endpoint: where it is, how it does, what it speaks.

use std::sync::{
    Arc,
    atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering},
};

use http::uri;
use tokio::net::lookup_host;

use super::{addresses::Addresses, standing::Standing};
use crate::config::{self, At, Protocol, Scheme};

#[derive(Debug)]
pub struct Endpoint {
    pub(super) settings: config::Endpoint,
    /// As logs and metrics name it.
    name: String,
    pub(super) standing: Standing,
    pub(super) addresses: Addresses,
    /// Counted only where there is another to compare it with.
    pub(super) in_flight: AtomicUsize,
    speaks: AtomicU8,
    pub(super) connects: AtomicU64,
    /// Attempts to connect, and requests, that failed.
    pub(super) failures: AtomicU64,
}

/// What an endpoint has been found to speak.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Speaks {
    /// It chooses by ALPN, and was not asked yet.
    Unknown,
    Http1,
    Http2,
}

impl Endpoint {
    pub(super) fn new(settings: config::Endpoint, protocol: Protocol) -> Self {
        let speaks = match (settings.scheme, protocol) {
            (Scheme::Http, _) | (Scheme::Https, Protocol::Http1) => Speaks::Http1,
            (Scheme::H2c, _) | (Scheme::Https, Protocol::Http2) => Speaks::Http2,
            (Scheme::Https, Protocol::Negotiated) => Speaks::Unknown,
        };
        Self {
            name: settings.to_string(),
            settings,
            standing: Standing::new(),
            addresses: Addresses::unknown(),
            in_flight: AtomicUsize::new(0),
            speaks: AtomicU8::new(speaks as u8),
            connects: AtomicU64::new(0),
            failures: AtomicU64::new(0),
        }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether requests go there.
    pub fn is_in(&self) -> bool {
        !self.standing.is_out()
    }

    pub fn connects(&self) -> u64 {
        self.connects.load(Ordering::Relaxed)
    }

    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    pub fn ejections(&self) -> u64 {
        self.standing.ejections()
    }

    /// As targets in HTTP/2 name it.
    pub(super) const fn uri_scheme(&self) -> uri::Scheme {
        if self.settings.is_tls() {
            uri::Scheme::HTTPS
        } else {
            uri::Scheme::HTTP
        }
    }

    /// Whether HTTP/1.1 is to be had, in which protocols are switched.
    pub(super) const fn can_upgrade(&self) -> bool {
        !matches!(self.settings.scheme, Scheme::H2c)
    }

    pub(super) fn speaks(&self) -> Speaks {
        match self.speaks.load(Ordering::Relaxed) {
            1 => Speaks::Http1,
            2 => Speaks::Http2,
            _ => Speaks::Unknown,
        }
    }

    /// It may choose otherwise after an update: the newest connection is what counts.
    pub(super) fn found_to_speak(&self, speaks: Speaks) {
        if self.speaks() != speaks {
            self.speaks.store(speaks as u8, Ordering::Relaxed);
        }
    }

    /// Looks its name up again and again, if it has one. Ends at once if not, else never.
    pub(super) async fn keep_addresses_fresh(self: Arc<Self>, upstream: config::Upstream) {
        if let At::Name { host, port } = &self.settings.at {
            let look_up = || async { Ok(lookup_host((host.as_str(), *port)).await?.collect()) };
            let (every, limit) = (upstream.dns_refresh, upstream.connect_timeout);
            self.addresses.keep_fresh(host, every, limit, look_up).await;
        }
    }
}
