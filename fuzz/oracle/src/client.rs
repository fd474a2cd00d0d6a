//! Who calls, and for which host.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use crate::http1::{Field, trimmed, values};

/// What a gateway is configured to believe.
#[derive(Clone, Debug)]
pub struct Trust {
    /// `public_url`'s host, with its port if that is not the usual one.
    pub public: String,
    pub public_is_https: bool,
    /// Other hosts that are served; `*.example.com` for all below one, `*` for any.
    pub hosts: Vec<String>,
    /// Networks of trusted proxies: an address, and how many of its bits count.
    pub proxies: Vec<(IpAddr, u32)>,
}

/// A host as it is compared: in lower case, without a trailing dot; an IPv6 address in brackets and in its shortest form.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Host {
    pub name: String,
    pub port: Option<u16>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Caller {
    pub host: Host,
    pub address: IpAddr,
    pub https: bool,
    /// What `X-Forwarded-For` says to upstreams.
    pub forwarded_for: Vec<u8>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum BadCaller {
    /// No host, several, or a malformed one.
    Host,
    /// A host that is not served.
    Misdirected,
}

impl Host {
    /// `None`: malformed.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        if let Some(rest) = text.strip_prefix('[') {
            let (address, behind) = rest.split_once(']')?;
            let address: Ipv6Addr = address.parse().ok()?;
            return Some(Self {
                name: format!("[{address}]"),
                port: port(behind)?,
            });
        }
        let colon = text.find(':').unwrap_or(text.len());
        let (name, behind) = text.split_at(colon);
        let name = name.strip_suffix('.').unwrap_or(name);
        let is_label = |label: &str| {
            !label.is_empty()
                && label
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
        };
        if name.len() > 253 || !name.split('.').all(is_label) {
            return None;
        }
        Some(Self {
            name: name.to_ascii_lowercase(),
            port: port(behind)?,
        })
    }

    /// As a header has it.
    pub fn text(&self) -> String {
        match self.port {
            None => self.name.clone(),
            Some(port) => format!("{}:{port}", self.name),
        }
    }
}

/// Of `:8080`; an empty port is none.
fn port(behind: &str) -> Option<Option<u16>> {
    match behind.strip_prefix(':') {
        None if behind.is_empty() => Some(None),
        None => None,
        Some("") => Some(None),
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits.parse().ok().map(Some),
        Some(_) => None,
    }
}

/// The host and the path and query of a request target; `None` if it has no path.
pub fn split_target(target: &[u8]) -> Option<(Option<Authority>, Vec<u8>)> {
    if target.starts_with(b"/") {
        return Some((None, target.to_vec()));
    }
    let colon = target.windows(3).position(|three| three == b"://")?;
    let (scheme, rest) = (&target[..colon], &target[colon + 3..]);
    let is_scheme = scheme.first().is_some_and(u8::is_ascii_alphabetic)
        && scheme
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(byte));
    if !is_scheme {
        return None;
    }
    let end = rest
        .iter()
        .position(|byte| matches!(byte, b'/' | b'?'))
        .unwrap_or(rest.len());
    let authority = Authority {
        text: rest[..end].to_vec(),
        usual_port: match scheme.to_ascii_lowercase().as_slice() {
            b"https" => Some(443),
            b"http" => Some(80),
            _ => None,
        },
    };
    let mut path = rest[end..].to_vec();
    if !path.starts_with(b"/") {
        path.insert(0, b'/');
    }
    Some((Some(authority), path))
}

/// Of an absolute target.
#[derive(Clone, Debug)]
pub struct Authority {
    pub text: Vec<u8>,
    /// `None`: of a scheme that is not served.
    pub usual_port: Option<u16>,
}

/// Whether an address is a trusted proxy's.
pub fn trusts(address: IpAddr, trust: &Trust) -> bool {
    trust.proxies.iter().any(|(net, bits)| is_within(address, *net, *bits))
}

/// Judges a request that came over an unencrypted connection from `peer`.
pub fn judge(
    peer: IpAddr,
    old: bool,
    authority: Option<&Authority>,
    fields: &[Field],
    trust: &Trust,
) -> Result<Caller, BadCaller> {
    let lines = values(fields, b"host");
    let line = match lines[..] {
        [] => None,
        [line] => Some(Host::parse(line).ok_or(BadCaller::Host)?),
        _ => return Err(BadCaller::Host),
    };
    let public = Host::parse(trust.public.as_bytes()).expect("a host");
    let mut host = match (authority, line) {
        (None, Some(line)) => line,
        (None, None) if old => public.clone(),
        (None, None) => return Err(BadCaller::Host),
        (Some(authority), line) => {
            let host = Host::parse(&authority.text).ok_or(BadCaller::Host)?;
            let usual_port = authority.usual_port.ok_or(BadCaller::Host)?;
            let port = |host: &Host| host.port.unwrap_or(usual_port);
            match line {
                // RFC 9112, 3.2.
                None if !old => return Err(BadCaller::Host),
                Some(line) if line.name != host.name || port(&line) != port(&host) => return Err(BadCaller::Host),
                _ => host,
            }
        }
    };
    let is_trusted = |address: IpAddr| trusts(address, trust);
    let trusted = is_trusted(peer);
    let mut address = peer;
    let mut https = None;
    let mut forwarded_for = Vec::new();
    if trusted {
        let lines = values(fields, b"x-forwarded-for");
        for line in &lines {
            // Empty lines in front say nothing.
            if !forwarded_for.is_empty() {
                forwarded_for.extend_from_slice(b", ");
            }
            forwarded_for.extend_from_slice(line);
        }
        let hops: Vec<&[u8]> = lines.iter().flat_map(|line| line.split(|byte| *byte == b',')).collect();
        for hop in hops.iter().rev() {
            let Some(hop) = hop_address(hop) else { break };
            address = hop;
            if !is_trusted(hop) {
                break;
            }
        }
        if let Some(last) = last_value(fields, b"x-forwarded-host") {
            if !is_visible(values(fields, b"x-forwarded-host").last().expect("there is one")) {
                return Err(BadCaller::Host);
            }
            host = Host::parse(&last).ok_or(BadCaller::Host)?;
        }
        if let Some(last) = last_value(fields, b"x-forwarded-proto")
            && is_visible(values(fields, b"x-forwarded-proto").last().expect("there is one"))
        {
            https = match last.to_ascii_lowercase().as_slice() {
                b"https" | b"wss" => Some(true),
                b"http" | b"ws" => Some(false),
                _ => None,
            };
        }
    }
    let is_loopback = |name: &str| {
        name == "localhost"
            || name.ends_with(".localhost")
            || name
                .trim_matches(['[', ']'])
                .parse::<IpAddr>()
                .is_ok_and(|address| address.is_loopback())
    };
    let is_served = |name: &str| {
        name == public.name
            || (is_loopback(&public.name) && is_loopback(name))
            || trust.hosts.iter().any(|served| match served.strip_prefix('*') {
                Some("") => true,
                Some(ending) => name.strip_suffix(ending).is_some_and(|label| !label.is_empty()),
                None => served == name,
            })
    };
    if !is_served(&host.name) {
        return Err(BadCaller::Misdirected);
    }
    if !forwarded_for.is_empty() {
        forwarded_for.extend_from_slice(b", ");
    }
    forwarded_for.extend_from_slice(peer.to_string().as_bytes());
    Ok(Caller {
        https: https.unwrap_or(host.name == public.name && trust.public_is_https),
        host,
        address,
        forwarded_for,
    })
}

fn is_within(address: IpAddr, net: IpAddr, bits: u32) -> bool {
    match (address, net) {
        (IpAddr::V4(address), IpAddr::V4(net)) => {
            bits == 0 || u32::from(address) >> (32 - bits) == u32::from(net) >> (32 - bits)
        }
        (IpAddr::V6(address), IpAddr::V6(net)) => {
            bits == 0 || u128::from(address) >> (128 - bits) == u128::from(net) >> (128 - bits)
        }
        _ => false,
    }
}

/// One element of `X-Forwarded-For`: an address, with a port or without.
fn hop_address(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(trimmed(text)).ok()?;
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(address.to_canonical());
    }
    if let Some(inner) = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')) {
        return Some(IpAddr::V6(inner.parse().ok()?).to_canonical());
    }
    Some(text.parse::<SocketAddr>().ok()?.ip().to_canonical())
}

/// What the nearest proxy wrote: the last element of the last line.
fn last_value(fields: &[Field], name: &[u8]) -> Option<Vec<u8>> {
    let lines = values(fields, name);
    let last = lines.last()?.rsplit(|byte| *byte == b',').next()?;
    Some(trimmed(last).to_vec())
}

fn is_visible(text: &[u8]) -> bool {
    text.iter().all(|byte| matches!(byte, b' '..=b'~' | b'\t'))
}
