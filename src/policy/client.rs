//! Who is really calling, and which host they ask for.
//!
//! Forwarding headers are believed only from a peer in `server.trusted_proxies`; from anyone else they say nothing.
//! `X-Forwarded-For` is walked from the right, the end that our own proxies wrote, until an address that is not
//! trusted; the left end is whatever the client made up. Of `X-Forwarded-Host` and `-Proto` the last value counts,
//! for the same reason. `Forwarded` is never read: one source, so that two can't disagree.
//!
//! A request has exactly one host, or it is refused: what we match must be what an upstream would see.

use std::{
    collections::HashSet,
    fmt,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use http::{HeaderMap, HeaderName, HeaderValue, Uri, Version, header, uri};
use ipnet::IpNet;

use super::connection::{ClientCertificate, Connection, Peer};
use crate::config::{self, Config, HostPattern};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// What the configuration says about callers; built once.
#[derive(Clone, Debug)]
pub struct ClientRules {
    trusted_proxies: Vec<IpNet>,
    trusts_unix: bool,
    public: Host,
    public_scheme: Scheme,
    loopback: bool,
    /// Host names served besides `public_url`'s.
    hosts: HashSet<Box<str>>,
    /// Of routes for all hosts below one, what these end in.
    below: HashSet<Box<str>>,
    any_host: bool,
}

/// The request's circumstances, as far as we believe them.
#[derive(Clone, Debug)]
pub struct ClientFacts {
    /// The other end of the connection.
    pub peer: Peer,
    /// The client's own address: the peer's, or what trusted proxies say.
    pub addr: IpAddr,
    pub trusted_peer: bool,
    pub host: Host,
    pub scheme: Scheme,
    /// The certificate that the client has shown on this connection. None, if it is that of a proxy which speaks for it.
    pub certificate: Option<Arc<ClientCertificate>>,
}

#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Scheme {
    Http,
    Https,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum HostError {
    #[error("the request names no host, several, or one that is malformed")]
    Bad,
    #[error("the host is not served here, or not on this connection")]
    Misdirected,
    #[error("the client's certificate has expired since the handshake, or what is asked for has changed")]
    HandshakeOver,
}

impl ClientRules {
    pub fn new(config: &Config) -> Self {
        let public = &config.server.public_url;
        let mut hosts: HashSet<Box<str>> = HashSet::new();
        let mut below = HashSet::new();
        for host in config.routes.iter().filter_map(|route| route.host.as_ref()) {
            match host {
                HostPattern::Exact(name) => hosts.insert(name.as_str().into()),
                HostPattern::Below(above) => below.insert(above.as_str().into()),
            };
        }
        hosts.extend(config.server.hosts.iter().map(|host| host.to_ascii_lowercase().into()));
        Self {
            trusted_proxies: config.server.trusted_proxies.clone(),
            trusts_unix: config.server.trusts_unix,
            public: Host::of(public),
            public_scheme: if public.is_https() { Scheme::Https } else { Scheme::Http },
            loopback: public.is_loopback(),
            any_host: config.server.hosts.iter().any(|host| host == "*"),
            hosts,
            below,
        }
    }

    /// Whether a peer is one of our own proxies.
    pub fn trusts_peer(&self, peer: Peer) -> bool {
        match peer {
            Peer::Ip(addr) => !self.trusted_proxies.is_empty() && self.trusts(addr),
            Peer::Unix => self.trusts_unix,
            Peer::Untold => false,
        }
    }

    /// `public_url`'s host.
    pub const fn public(&self) -> &Host {
        &self.public
    }

    fn trusts(&self, addr: IpAddr) -> bool {
        self.trusted_proxies.iter().any(|net| net.contains(&addr))
    }

    /// Whether requests for a host (in lower case, without port) are ours to answer.
    pub fn serves(&self, host: &str) -> bool {
        host == self.public.name()
            || self.any_host
            || self.hosts.contains(host)
            || (!self.below.is_empty() && HostPattern::endings(host).any(|ending| self.below.contains(ending)))
            || (self.loopback && config::is_loopback_host(host))
    }
}

/// The facts about a request on `connection` whose head is `version`, `uri` and `headers`.
pub fn judge(
    connection: &Connection,
    version: Version,
    uri: &Uri,
    headers: &HeaderMap,
    rules: &ClientRules,
) -> Result<ClientFacts, HostError> {
    let peer = connection.peer;
    let trusted_peer = rules.trusts_peer(peer);
    let mut host = asked_host(version, uri, headers, rules)?;
    let mut scheme = None;
    let mut addr = peer.addr();
    if trusted_peer {
        addr = client_addr(addr, headers, rules);
        if let Some(forwarded) = last_value(headers, &X_FORWARDED_HOST)? {
            host = Host::parse(forwarded).ok_or(HostError::Bad)?;
        }
        scheme = forwarded_scheme(headers);
    } else if let Some(tls) = &connection.tls
        && !tls.is_for(host.name())
    {
        // A proxy of ours may have requests for many hosts on one connection; others have what they shook hands for.
        return Err(HostError::Misdirected);
    }
    if !rules.serves(host.name()) {
        return Err(HostError::Misdirected);
    }
    let scheme = scheme.unwrap_or(if connection.tls.is_some() {
        Scheme::Https
    } else if host.name() == rules.public.name() {
        rules.public_scheme
    } else {
        Scheme::Http
    });
    Ok(ClientFacts {
        peer,
        addr,
        trusted_peer,
        host,
        scheme,
        certificate: connection
            .tls
            .as_ref()
            .and_then(|tls| tls.client.clone())
            .filter(|_| !(trusted_peer && speaks_for_another(headers))),
    })
}

/// Whether a proxy has the request from somebody: a certificate that it shows is its own then, and says nothing of who that
/// is (RFC 9440, 4).
fn speaks_for_another(headers: &HeaderMap) -> bool {
    headers.contains_key(&X_FORWARDED_FOR) || headers.contains_key(header::FORWARDED)
}

/// The host that the request line or the Host header names: one, and the same if both do.
fn asked_host(version: Version, uri: &Uri, headers: &HeaderMap, rules: &ClientRules) -> Result<Host, HostError> {
    let mut lines = headers.get_all(header::HOST).iter();
    let line = lines.next();
    if lines.next().is_some() {
        return Err(HostError::Bad);
    }
    let line = line
        .map(|value| Host::from_value(value).ok_or(HostError::Bad))
        .transpose()?;
    match (uri.authority(), line) {
        // HTTP/1.1 demands a Host beside an absolute target (RFC 9112, 3.2).
        (Some(_), None) if version == Version::HTTP_11 => Err(HostError::Bad),
        (Some(authority), line) => {
            let host = Host::parse(authority.as_str()).ok_or(HostError::Bad)?;
            let default = match uri.scheme() {
                Some(scheme) if *scheme == uri::Scheme::HTTPS => 443,
                Some(scheme) if *scheme != uri::Scheme::HTTP => return Err(HostError::Bad),
                // What is asked of `CONNECT` has none.
                _ => 80,
            };
            let agrees = |line: &Host| {
                line.name() == host.name() && line.port().unwrap_or(default) == host.port().unwrap_or(default)
            };
            if line.as_ref().is_none_or(agrees) {
                Ok(host)
            } else {
                Err(HostError::Bad)
            }
        }
        (None, Some(host)) => Ok(host),
        // Only HTTP/1.0 may leave it out; there is one host that it can mean.
        (None, None) if version == Version::HTTP_10 => Ok(rules.public.clone()),
        (None, None) => Err(HostError::Bad),
    }
}

/// The address nearest to the right of `X-Forwarded-For` that is not one of our proxies'.
fn client_addr(peer: IpAddr, headers: &HeaderMap, rules: &ClientRules) -> IpAddr {
    let mut addr = peer;
    let lines = headers.get_all(X_FORWARDED_FOR).iter();
    for entry in lines
        .rev()
        .flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b','))
    {
        // What can't be read can't be believed, nor anything to the left of it.
        let Some(stated) = forwarded_addr(entry) else { break };
        addr = stated;
        if !rules.trusts(addr) {
            break;
        }
    }
    addr
}

/// `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:80`.
fn forwarded_addr(entry: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(entry).ok()?.trim_matches([' ', '\t']);
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    let addr = match bare {
        Some(bare) => IpAddr::V6(bare.parse().ok()?),
        None => text
            .parse()
            .or_else(|_| text.parse::<SocketAddr>().map(|addr| addr.ip()))
            .ok()?,
    };
    Some(addr.to_canonical())
}

fn forwarded_scheme(headers: &HeaderMap) -> Option<Scheme> {
    let value = last_value(headers, &X_FORWARDED_PROTO).ok()??;
    if value.eq_ignore_ascii_case("https") || value.eq_ignore_ascii_case("wss") {
        Some(Scheme::Https)
    } else if value.eq_ignore_ascii_case("http") || value.eq_ignore_ascii_case("ws") {
        Some(Scheme::Http)
    } else {
        None
    }
}

/// The last element of the last line: what the nearest proxy wrote.
fn last_value<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<Option<&'h str>, HostError> {
    let Some(line) = headers.get_all(name).iter().next_back() else {
        return Ok(None);
    };
    let line = line.to_str().map_err(|_| HostError::Bad)?;
    let last = line.rsplit(',').next().unwrap_or(line);
    Ok(Some(last.trim_matches([' ', '\t'])))
}

impl Scheme {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// A host name and perhaps a port: lower case, without trailing dot; an IPv6 address in brackets.
///
/// A `Host` header that is written so already is shared, not copied.
#[derive(Clone, Eq, PartialEq)]
pub struct Host {
    value: HeaderValue,
    name_len: usize,
    port: Option<u16>,
}

impl Host {
    /// Without the port.
    pub fn name(&self) -> &str {
        let name = self.value.as_bytes().get(..self.name_len).unwrap_or_default();
        std::str::from_utf8(name).unwrap_or_default()
    }

    pub const fn port(&self) -> Option<u16> {
        self.port
    }

    /// `name` or `name:port`, fit for a header.
    pub const fn value(&self) -> &HeaderValue {
        &self.value
    }

    /// With memory of its own, if it is to be kept for longer than the message that it came in.
    #[must_use]
    pub fn unshared(&self) -> Self {
        Self {
            value: HeaderValue::from_bytes(self.value.as_bytes()).unwrap_or_else(|_| self.value.clone()),
            ..*self
        }
    }

    fn of(origin: &config::Origin) -> Self {
        let name = origin.host().trim_end_matches('.').to_ascii_lowercase();
        let default = if origin.is_https() { 443 } else { 80 };
        let port = Some(origin.port()).filter(|port| *port != default);
        Self::from_parts(&name, port)
    }

    fn from_value(value: &HeaderValue) -> Option<Self> {
        let parts = Parts::of(value.as_bytes())?;
        if parts.is_normal {
            return Some(Self {
                value: value.clone(),
                name_len: parts.name.len(),
                port: parts.port,
            });
        }
        Some(parts.to_host())
    }

    fn parse(text: &str) -> Option<Self> {
        let parts = Parts::of(text.as_bytes())?;
        // What every request of HTTP/2 comes by.
        if parts.is_normal
            && let Ok(value) = HeaderValue::from_str(text)
        {
            return Some(Self {
                value,
                name_len: parts.name.len(),
                port: parts.port,
            });
        }
        Some(parts.to_host())
    }

    fn from_parts(name: &str, port: Option<u16>) -> Self {
        let text = match port {
            Some(port) => format!("{name}:{port}"),
            None => name.to_owned(),
        };
        Self {
            name_len: name.len(),
            // A judged name is visible ASCII; an origin's host is what `url` made of it, which is as well.
            value: HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("")),
            port,
        }
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(self.value.as_bytes()).unwrap_or_default())
    }
}

/// A host as it was written, judged.
struct Parts<'a> {
    /// Without trailing dot, in the letters of the sender.
    name: &'a [u8],
    port: Option<u16>,
    is_normal: bool,
}

impl<'a> Parts<'a> {
    fn of(text: &'a [u8]) -> Option<Self> {
        let end = if text.first() == Some(&b'[') {
            text.iter().position(|byte| *byte == b']')? + 1
        } else {
            text.iter().position(|byte| *byte == b':').unwrap_or(text.len())
        };
        let (written, rest) = text.split_at_checked(end)?;
        let port = match rest {
            [] | [b':'] => None,
            [b':', digits @ ..] => Some(port(digits)?),
            _ => return None,
        };
        let (name, lower_case) = if written.first() == Some(&b'[') {
            (written, is_ipv6(written)?)
        } else {
            let name = written.strip_suffix(b".").unwrap_or(written);
            (name, is_name(name)?)
        };
        Some(Self {
            name,
            port,
            is_normal: lower_case && name.len() == written.len() && !matches!(rest, b":" | [b':', b'0', _, ..]),
        })
    }

    fn to_host(&self) -> Host {
        let name = String::from_utf8_lossy(self.name).to_ascii_lowercase();
        let address = name.trim_start_matches('[').trim_end_matches(']').parse::<Ipv6Addr>();
        match address {
            Ok(address) => Host::from_parts(&format!("[{address}]"), self.port),
            Err(_) => Host::from_parts(&name, self.port),
        }
    }
}

fn port(digits: &[u8]) -> Option<u16> {
    // `parse` would take a plus sign.
    let text = std::str::from_utf8(digits).ok()?;
    text.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| text.parse().ok())?
}

/// Whether a bracketed address is written as RFC 5952 has it; `None` if it is none.
fn is_ipv6(written: &[u8]) -> Option<bool> {
    let inner = std::str::from_utf8(written.strip_prefix(b"[")?.strip_suffix(b"]")?).ok()?;
    Some(inner.parse::<Ipv6Addr>().ok()?.to_string() == inner)
}

/// Whether a name is in lower case; `None` if it is none. Labels are letters, digits, `-` and `_`, and never empty.
fn is_name(name: &[u8]) -> Option<bool> {
    let mut lower_case = true;
    let mut previous = b'.';
    for byte in name {
        match byte {
            b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => {}
            b'A'..=b'Z' => lower_case = false,
            b'.' if previous != b'.' => {}
            _ => return None,
        }
        previous = *byte;
    }
    (previous != b'.' && name.len() <= 253).then_some(lower_case)
}

#[cfg(test)]
mod tests;
