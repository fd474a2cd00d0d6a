//! Which header fields leave for an upstream, and which come back to the client.
//!
//! Every field is decided in one pass. Then, in this order: what goes is removed (hop-by-hop fields and those that
//! `Connection` names, every spelling of an identity field, our credentials), the route's own rules are followed, and only
//! then what is ours is put in: no rule can say it, or take it away.
//! Were hop-by-hop fields last, a client could name `x-user-id` in `Connection` and have us delete it.
//!
//! Invariant: after [`prepare`], no field with a reserved name holds a value that the client chose.
//! Not here: what an identity renders to, and which names are reserved (`session::identity_headers`).

use std::{io::Write, net::IpAddr};

use bytes::{BufMut, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri, Version, header};

use super::{
    asks::Asks,
    handover::{ASSERTION, Handover},
    rewrite, trailers,
};
use crate::{
    policy::{Permit, client::ClientFacts, connection::Peer, cors::Readers, path::NormalPath},
    session::{
        credential::{Cut, SessionCookies},
        identity_headers::{Disposition, Reserved},
    },
    upstream::body::RequestBody,
};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What an upstream says under these names is for us alone.
pub(super) const OWN_PREFIX: &str = "x-vestibule-";

/// Who has no address, as behind a unix socket (RFC 7239, 6.2).
const UNKNOWN: &[u8] = b"unknown";

/// Fields that one request may lose before their names need memory of their own.
const FEW: usize = 24;

/// A request fit for an upstream. Only [`prepare`] makes one, and it demands a [`Permit`].
#[derive(Debug)]
pub struct Outbound {
    request: Request<RequestBody>,
    upgrade: bool,
}

impl Outbound {
    pub const fn wants_upgrade(&self) -> bool {
        self.upgrade
    }

    pub fn into_request(self) -> Request<RequestBody> {
        self.request
    }
}

/// What an outbound request is made from, besides the permit.
#[derive(Debug)]
pub struct Material<'a> {
    pub method: Method,
    pub headers: HeaderMap,
    pub body: RequestBody,
    pub path: NormalPath,
    pub client: &'a ClientFacts,
    pub request_id: &'a HeaderValue,
    pub handover: Handover,
    pub cookies: &'a SessionCookies,
    pub reserved: &'a Reserved,
    /// The protocol that the client asks to switch to, if it is one that we let through.
    pub upgrade: Option<HeaderValue>,
}

/// Makes the request that the upstream gets.
pub fn prepare(material: Material<'_>, permit: &Permit) -> Outbound {
    let Material {
        method,
        mut headers,
        body,
        path,
        client,
        request_id,
        handover,
        cookies,
        reserved,
        upgrade,
    } = material;
    let forwarded_for = forwarded_for(&headers, client);

    let mut removed = Names::new();
    let (mut has_cookies, mut has_connection) = (false, false);
    let (mut announced, mut trailers_accepted) = (None, false);
    for name in headers.keys() {
        match reserved.classify(name) {
            // The host and what `Expect` asks for are dealt with below and by hyper; a length is the body's.
            Disposition::Pass | Disposition::Host | Disposition::ContentLength => {}
            Disposition::Cookie => has_cookies = true,
            Disposition::Authorization => {
                if handover.drops_authorization {
                    removed.push(name.clone());
                }
            }
            Disposition::Connection => {
                has_connection = true;
                removed.push(name.clone());
            }
            Disposition::Te => {
                trailers_accepted = trailers::accepted(&headers);
                removed.push(name.clone());
            }
            Disposition::Trailer => {
                announced = trailers::announced(&headers, |name| trailers::may_follow_request(name, reserved));
                removed.push(name.clone());
            }
            Disposition::Upgrade
            | Disposition::HopByHop
            | Disposition::Expect
            | Disposition::ForwardedFor
            | Disposition::Forwarded
            | Disposition::RequestId
            | Disposition::Reserved => removed.push(name.clone()),
        }
    }
    if has_connection {
        for name in named_by_connection(&headers) {
            removed.push(name);
        }
    }
    removed.remove_from(&mut headers);
    if has_cookies && handover.cuts_cookies {
        cut_cookies(&mut headers, cookies);
    }

    let rules = &permit.route().request_headers;
    if !rules.is_empty() {
        rewrite::apply(rules, &mut headers);
    }

    say_who_calls(&mut headers, client, forwarded_for);
    headers.insert(X_REQUEST_ID, request_id.clone());
    if let Some(session) = permit.session() {
        for (name, value) in &session.headers {
            headers.insert(name.clone(), value.clone());
        }
    }
    if let Some(authorization) = handover.authorization {
        headers.insert(header::AUTHORIZATION, authorization);
    }
    if let Some(assertion) = handover.assertion {
        headers.insert(ASSERTION, assertion);
    }
    let wants_upgrade = upgrade.is_some();
    if !body.is_empty()
        && !wants_upgrade
        && matches!(method, Method::GET | Method::HEAD)
        && !headers.contains_key(header::CONTENT_LENGTH)
    {
        // Of other methods hyper says it by itself; of these it would drop the body.
        headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    if let Some(names) = announced {
        headers.insert(header::TRAILER, names);
    }
    if trailers_accepted {
        // Ours are kept on the way back. Who reads `TE` finds it in `Connection` (RFC 9110, 10.1.4).
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        headers.insert(header::CONNECTION, HeaderValue::from_static("te"));
    }
    if let Some(protocol) = upgrade {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, protocol);
    }

    let mut request = Request::new(body);
    *request.method_mut() = method;
    *request.uri_mut() = Uri::from(path.into_target());
    *request.version_mut() = Version::HTTP_11;
    *request.headers_mut() = headers;
    Outbound {
        request,
        upgrade: wants_upgrade,
    }
}

/// What is known of the client and its connection, whether or not it is signed in.
fn say_who_calls(headers: &mut HeaderMap, client: &ClientFacts, forwarded_for: HeaderValue) {
    headers.insert(header::HOST, client.host.value().clone());
    headers.insert(X_FORWARDED_FOR, forwarded_for);
    headers.insert(X_FORWARDED_HOST, client.host.value().clone());
    headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(client.scheme.as_str()));
    headers.insert(header::FORWARDED, forwarded(client));
    if let Some(certificate) = &client.certificate {
        for (name, value) in &certificate.headers {
            headers.insert(name.clone(), value.clone());
        }
    }
}

/// What a client's `Connection` lines name: theirs to remove (RFC 9110, 7.6.1). All lines count.
fn named_by_connection(headers: &HeaderMap) -> Vec<HeaderName> {
    headers
        .get_all(header::CONNECTION)
        .iter()
        .flat_map(|line| line.as_bytes().split(|&byte| byte == b','))
        .map(<[u8]>::trim_ascii)
        // Fields that make the message what it is are nobody's to remove: the body would lose its length, the
        // request its target.
        .filter(|name| !name.eq_ignore_ascii_case(b"content-length") && !name.eq_ignore_ascii_case(b"host"))
        .filter_map(|name| HeaderName::from_bytes(name).ok())
        .collect()
}

/// Removes our cookies. Several `Cookie` lines become one, as an upstream may read only the first.
fn cut_cookies(headers: &mut HeaderMap, cookies: &SessionCookies) {
    let mut lines = headers.get_all(header::COOKIE).iter();
    let (Some(only), None) = (lines.next(), lines.next()) else {
        let mut joined = BytesMut::new();
        for line in headers.get_all(header::COOKIE) {
            let rest = match cookies.cut_out(line) {
                Cut::Unchanged => line.clone(),
                Cut::Rest(rest) => rest,
                Cut::Nothing => continue,
            };
            if !joined.is_empty() {
                joined.put_slice(b"; ");
            }
            joined.put_slice(rest.as_bytes());
        }
        headers.remove(header::COOKIE);
        if !joined.is_empty()
            && let Ok(value) = HeaderValue::from_maybe_shared(joined.freeze())
        {
            headers.insert(header::COOKIE, value);
        }
        return;
    };
    match cookies.cut_out(only) {
        Cut::Unchanged => {}
        Cut::Rest(rest) => {
            headers.insert(header::COOKIE, rest);
        }
        Cut::Nothing => {
            headers.remove(header::COOKIE);
        }
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
        Peer::Unix if value.is_empty() => value.put_slice(UNKNOWN),
        Peer::Unix => {}
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

/// Who says which origins may read an answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum CorsBy {
    Gateway,
    Upstream,
}

impl CorsBy {
    pub fn of(readers: &Readers<'_>) -> Self {
        if readers.are_ours() {
            Self::Gateway
        } else {
            Self::Upstream
        }
    }
}

/// Cleans an upstream's answer: what belongs to its connection, and what only we may say. What it asks of us comes back.
pub fn give_back<B>(response: &mut Response<B>, cookies: &SessionCookies, cors: CorsBy, switching: bool) -> Asks {
    let headers = response.headers_mut();
    let mut removed = Names::new();
    let (mut sets_ours, mut has_trailer) = (false, false);
    let mut asks = Asks::default();
    for (name, value) in headers.iter() {
        match *name {
            header::CONNECTION | header::UPGRADE if switching => {}
            header::CONNECTION
            | header::UPGRADE
            | header::TE
            | header::TRANSFER_ENCODING
            | header::PROXY_AUTHENTICATE => removed.push(name.clone()),
            header::TRAILER => {
                has_trailer = true;
                removed.push(name.clone());
            }
            // Two opinions would be none: browsers refuse an answer that has the field twice.
            header::ACCESS_CONTROL_ALLOW_ORIGIN | header::ACCESS_CONTROL_ALLOW_CREDENTIALS => {
                if cors == CorsBy::Gateway {
                    removed.push(name.clone());
                }
            }
            header::SET_COOKIE => sets_ours |= cookies.is_ours(value),
            _ => {
                if name.as_str().starts_with(OWN_PREFIX) {
                    asks.note(name, value);
                    removed.push(name.clone());
                } else if *name == KEEP_ALIVE || *name == PROXY_CONNECTION {
                    removed.push(name.clone());
                }
            }
        }
    }
    if !switching && headers.contains_key(header::CONNECTION) {
        for name in named_by_connection(headers) {
            removed.push(name);
        }
    }
    if headers.contains_key(header::TRANSFER_ENCODING) {
        // With both, the coding is what counts (RFC 9112, 6.3).
        removed.push(header::CONTENT_LENGTH);
    }
    let announced = has_trailer
        .then(|| trailers::announced(headers, trailers::may_follow_answer))
        .flatten();
    removed.remove_from(headers);
    if let Some(names) = announced {
        headers.insert(header::TRAILER, names);
    }
    if sets_ours {
        tracing::warn!("an upstream tried to set a cookie with one of the gateway's names; it was dropped");
        let kept: Vec<HeaderValue> = headers
            .get_all(header::SET_COOKIE)
            .iter()
            .filter(|value| !cookies.is_ours(value))
            .cloned()
            .collect();
        headers.remove(header::SET_COOKIE);
        for value in kept {
            headers.append(header::SET_COOKIE, value);
        }
    }
    asks
}

/// The protocol that a request asks to switch to. h2c is never let through: it would carry requests past us.
pub fn upgrade_of(method: &Method, version: Version, headers: &HeaderMap) -> Option<HeaderValue> {
    let protocol = headers.get(header::UPGRADE)?;
    let asked = headers
        .get_all(header::CONNECTION)
        .iter()
        .flat_map(|line| line.as_bytes().split(|&byte| byte == b','))
        .any(|token| token.trim_ascii().eq_ignore_ascii_case(b"upgrade"));
    let known = protocol.as_bytes().eq_ignore_ascii_case(b"websocket");
    (asked && known && *method == Method::GET && version == Version::HTTP_11).then(|| protocol.clone())
}

/// Names of fields to remove, gathered while the map is being read.
struct Names {
    few: [Option<HeaderName>; FEW],
    count: usize,
    rest: Vec<HeaderName>,
}

impl Names {
    const fn new() -> Self {
        Self {
            few: [const { None }; FEW],
            count: 0,
            rest: Vec::new(),
        }
    }

    fn push(&mut self, name: HeaderName) {
        match self.few.get_mut(self.count) {
            Some(place) => {
                *place = Some(name);
                self.count += 1;
            }
            None => self.rest.push(name),
        }
    }

    fn remove_from(&self, headers: &mut HeaderMap) {
        let few = self.few.iter().take(self.count).flatten();
        for name in few.chain(&self.rest) {
            headers.remove(name);
        }
    }
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

    #[test]
    fn more_names_than_places_are_removed_too() {
        let mut headers = HeaderMap::new();
        let mut names = Names::new();
        for number in 0..2 * FEW {
            let name = HeaderName::try_from(format!("x-{number}")).unwrap();
            headers.insert(name.clone(), HeaderValue::from_static("1"));
            names.push(name);
        }
        names.remove_from(&mut headers);
        assert!(headers.is_empty());
    }

    #[test]
    fn the_length_and_the_host_are_nobodys_to_remove() {
        let mut headers = HeaderMap::new();
        headers.append(
            header::CONNECTION,
            HeaderValue::from_static("close, X-Foo ,Content-Length"),
        );
        headers.append(header::CONNECTION, HeaderValue::from_static("host,, x-bar"));
        let names = named_by_connection(&headers);
        assert_eq!(names, ["close", "x-foo", "x-bar"]);
    }
}
