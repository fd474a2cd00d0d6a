//! What is known of a client's connection before its first request: found out once, shared by all its requests. Whether it
//! is true still, each of them asks ([`Tls::standing`]).

use std::{
    collections::HashSet,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http::{HeaderName, HeaderValue};

use crate::clock::Timestamp;

/// So long before a client's certificate ends it is asked to shake hands again: it may have the next one by then, and no
/// request of it fails.
const RENEW_BEFORE: Duration = Duration::from_mins(1);

/// The facts of one connection.
#[derive(Clone, Debug)]
pub struct Connection {
    pub peer: Peer,
    /// `None`: it is not encrypted.
    pub tls: Option<Tls>,
    pub door: Door,
}

/// What a listener is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Door {
    /// Requests without TLS.
    Plain,
    /// Requests within TLS.
    Tls,
    /// Requests without TLS, all of which are sent to https.
    Redirect,
}

impl Connection {
    /// Without TLS, at an ordinary listener.
    pub const fn plain(peer: Peer) -> Self {
        Self {
            peer,
            tls: None,
            door: Door::Plain,
        }
    }
}

/// The other end of a connection, as far as it has a name.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Peer {
    /// Never an IPv4 address dressed up as IPv6: those would not be found in the networks of a configuration.
    Ip(IpAddr),
    /// A process of this machine, at a unix socket.
    Unix,
    /// Somebody for whom a proxy connects whose PROXY header tells no address. Nobody trusts it.
    Untold,
}

impl Peer {
    pub fn of(addr: SocketAddr) -> Self {
        Self::Ip(addr.ip().to_canonical())
    }

    /// Its address. Who has none is counted and logged as `0.0.0.0`, which nobody can call from.
    pub const fn addr(self) -> IpAddr {
        match self {
            Self::Ip(addr) => addr,
            Self::Unix | Self::Untold => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        }
    }
}

/// What a handshake agreed on.
#[derive(Clone, Debug)]
pub struct Tls {
    /// The host that the client asked for (SNI), in lower case and without a trailing dot.
    pub asked: Option<Box<str>>,
    /// What the certificate is for that it was shown.
    pub shown: Arc<CertificateNames>,
    /// Whose certificate the client has shown, as upstreams are told; it was verified.
    pub client: Option<Arc<ClientCertificate>>,
    /// What it was asked for, and by whom it may be issued.
    pub agreed_by: Arc<ClientTerms>,
}

/// What a handshake asks of clients' certificates: until other terms take its place.
#[derive(Debug, Default)]
pub struct ClientTerms {
    replaced: AtomicBool,
}

impl ClientTerms {
    /// Who agreed by these terms might not by those that are in force now.
    pub fn replace(&self) {
        self.replaced.store(true, Ordering::Relaxed);
    }
}

/// Whether what a handshake has found out is true still.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Standing {
    Good,
    /// It will not be, soon.
    Ending,
    Ended,
}

impl Tls {
    /// Whether the client would come in now as it did: what it has shown has not expired, and who may have issued it has not
    /// changed. A connection may last for months, a certificate for hours.
    pub fn standing(&self, now: Timestamp) -> Standing {
        if self.agreed_by.replaced.load(Ordering::Relaxed) {
            return Standing::Ended;
        }
        match self.client.as_ref().and_then(|client| client.expires_at) {
            Some(end) if end <= now => Standing::Ended,
            Some(end) if end <= now.plus(RENEW_BEFORE) => Standing::Ending,
            _ => Standing::Good,
        }
    }

    /// Whether the client may ask for `host` on this connection (RFC 9110, 7.4): it must have asked the handshake for
    /// it, or been shown a certificate that is for it too. A client that named no host is bound to none.
    pub fn is_for(&self, host: &str) -> bool {
        self.asked
            .as_deref()
            .is_none_or(|asked| asked == host || self.shown.cover(host))
    }
}

/// A client's certificate, as headers ready to be sent.
#[derive(Debug, Default)]
pub struct ClientCertificate {
    pub headers: Box<[(HeaderName, HeaderValue)]>,
    /// `None`: it can't be told.
    pub expires_at: Option<Timestamp>,
}

/// The hosts that a certificate is for.
#[derive(Debug, Default)]
pub struct CertificateNames {
    /// As they are compared: lower case, addresses as they are written in a URL.
    whole: HashSet<Box<str>>,
    /// `example.com` of `*.example.com`.
    below: HashSet<Box<str>>,
}

impl CertificateNames {
    pub fn new<'n>(names: impl IntoIterator<Item = &'n str>) -> Self {
        let mut sorted = Self::default();
        for name in names {
            let name = name.trim_end_matches('.').to_ascii_lowercase();
            match name.strip_prefix("*.") {
                Some(below) => sorted.below.insert(below.into()),
                None => sorted.whole.insert(name.into()),
            };
        }
        sorted
    }

    /// A wildcard stands for one label (RFC 9525, 6.3).
    pub fn cover(&self, host: &str) -> bool {
        self.whole.contains(host)
            || (!self.below.is_empty()
                && host
                    .split_once('.')
                    .is_some_and(|(label, below)| !label.is_empty() && self.below.contains(below)))
    }

    /// Each of them, as a certificate has it.
    pub fn iter(&self) -> impl Iterator<Item = String> {
        let wild = self.below.iter().map(|below| format!("*.{below}"));
        self.whole.iter().map(ToString::to_string).chain(wild)
    }

    pub fn is_empty(&self) -> bool {
        self.whole.is_empty() && self.below.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_for_its_names_and_one_label_below_a_wildcard() {
        let names = CertificateNames::new(["A.example", "*.b.example", "[::1]"]);
        for host in ["a.example", "x.b.example", "[::1]"] {
            assert!(names.cover(host), "{host}");
        }
        for host in [
            "b.example",
            "x.y.b.example",
            "x.a.example",
            ".b.example",
            "c.example",
            "",
            "*",
        ] {
            assert!(!names.cover(host), "{host}");
        }
    }

    #[test]
    fn a_connection_is_for_what_it_asked_for_or_was_shown() {
        let asking = |asked: Option<&str>| Tls {
            asked: asked.map(Into::into),
            shown: Arc::new(CertificateNames::new(["a.example"])),
            client: None,
            agreed_by: Arc::default(),
        };
        assert!(asking(None).is_for("anything.example"));
        assert!(asking(Some("a.example")).is_for("a.example"));
        assert!(!asking(Some("a.example")).is_for("b.example"));
        assert!(
            asking(Some("b.example")).is_for("b.example"),
            "it takes the certificate that there is"
        );
        assert!(!asking(Some("b.example")).is_for("c.example"));
    }
}
