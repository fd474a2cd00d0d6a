//! Who calls, as upstreams are told: `Host`, `X-Forwarded-*`, `Forwarded` (RFC 7239), and the client's certificate.
//!
//! Written once for as long as the same is true (`proxy::memory`).

use std::{io::Write, net::IpAddr};

use bytes::{BufMut, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::{
    fields::Lines,
    policy::{client::ClientFacts, connection::Peer},
};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Who has no address, as behind a unix socket (RFC 7239, 6.2).
const UNKNOWN: &[u8] = b"unknown";

/// The client and its connection, whether or not it is signed in.
#[derive(Debug)]
pub struct Caller {
    pub facts: ClientFacts,
    /// What upstreams are told of it.
    pub(super) lines: Lines,
}

impl Caller {
    /// `headers` are those of the request: what a trusted proxy has said of those before it is passed on.
    pub fn new(facts: ClientFacts, headers: &HeaderMap) -> Self {
        let host = facts.host.value();
        let forwarded_for = forwarded_for(headers, &facts);
        let mut lines = Lines::new();
        lines.put(&header::HOST, host);
        lines.put(&X_FORWARDED_FOR, &forwarded_for);
        lines.put(&X_FORWARDED_HOST, host);
        lines.put(&X_FORWARDED_PROTO, &HeaderValue::from_static(facts.scheme.as_str()));
        lines.put(&header::FORWARDED, &forwarded(&facts));
        if let Some(certificate) = &facts.certificate {
            for (name, value) in &certificate.headers {
                lines.put(name, value);
            }
        }
        Self { facts, lines }
    }
}

/// The client's address; behind a trusted proxy, what that said with the proxy's own address added.
fn forwarded_for(headers: &HeaderMap, client: &ClientFacts) -> HeaderValue {
    let mut value = BytesMut::with_capacity(64);
    if client.trusted_peer {
        for line in headers.get_all(X_FORWARDED_FOR) {
            if !value.is_empty() {
                value.put_slice(b", ");
            }
            value.put_slice(line.as_bytes());
        }
    }
    match client.peer {
        Peer::Ip(addr) => {
            if !value.is_empty() {
                value.put_slice(b", ");
            }
            put_address(&mut value, addr);
        }
        // It has no address to add; but the field must be there, else one hop further it would be the client's to say.
        Peer::Unix | Peer::Untold if value.is_empty() => value.put_slice(UNKNOWN),
        Peer::Unix | Peer::Untold => {}
    }
    visible(value)
}

/// Without `fmt`, which would cost more than all the rest of the field.
fn put_address(out: &mut BytesMut, address: IpAddr) {
    match address {
        IpAddr::V4(v4) => {
            for (at, octet) in v4.octets().into_iter().enumerate() {
                if at > 0 {
                    out.put_u8(b'.');
                }
                if octet >= 100 {
                    out.put_u8(b'0' + octet / 100);
                }
                if octet >= 10 {
                    out.put_u8(b'0' + octet / 10 % 10);
                }
                out.put_u8(b'0' + octet % 10);
            }
        }
        IpAddr::V6(v6) => {
            // Writing to memory does not fail.
            let _ = write!(out.writer(), "{v6}");
        }
    }
}

/// RFC 7239, with the one hop that we can vouch for.
fn forwarded(client: &ClientFacts) -> HeaderValue {
    let mut value = BytesMut::with_capacity(96);
    if client.addr.is_unspecified() {
        value.put_slice(b"for=");
        value.put_slice(UNKNOWN);
    } else {
        let (before, behind) = if client.addr.is_ipv6() {
            (&b"for=\"["[..], &b"]\""[..])
        } else {
            (&b"for="[..], &b""[..])
        };
        value.put_slice(before);
        put_address(&mut value, client.addr);
        value.put_slice(behind);
    }
    value.put_slice(b";host=\"");
    value.put_slice(client.host.value().as_bytes());
    value.put_slice(b"\";proto=");
    value.put_slice(client.scheme.as_str().as_bytes());
    visible(value)
}

fn visible(value: BytesMut) -> HeaderValue {
    HeaderValue::from_maybe_shared(value.freeze()).unwrap_or_else(|_| HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_written_as_everywhere() {
        for text in ["0.0.0.0", "127.0.0.1", "10.200.99.255", "2001:db8::1", "::1"] {
            let mut out = BytesMut::new();
            put_address(&mut out, text.parse().unwrap());
            assert_eq!(out, text);
        }
    }
}
