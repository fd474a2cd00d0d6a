//! Which header fields leave for an upstream, and which come back to the client.
//!
//! Every field is decided in one pass: what must not leave (hop-by-hop fields and those that `Connection` names, every
//! spelling of an identity field, our credentials) is passed over, the rest is written as it is. Then the route's own
//! rules are followed, and only then what is ours is written: no rule can say it, or take it away.
//! Were hop-by-hop fields last, a client could name `x-user-id` in `Connection` and have us leave it out.
//!
//! Invariant: after [`prepare`], no field with a reserved name holds a value that the client chose.
//! Not here: what an identity renders to, and which names are reserved (`session::identity_headers`, and its `reserved`).

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version, header};

use super::{
    asks::Asks,
    caller::Caller,
    handover::{ASSERTION, Handover},
    rewrite, trailers,
};
use crate::{
    config::{HeaderRules, fold_header_byte},
    policy::{Permit, cors::Readers, marks::Marks, path::NormalPath},
    session::{
        credential::{Cut, SessionCookies},
        identity_headers::{Disposition, Reserved},
    },
    upstream::{Outgoing, body::RequestBody},
};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What an upstream says under these names is for us alone.
const OWN_PREFIX: &str = "x-vestibule-";

/// Whether only we may say this, in whatever spelling.
pub(super) fn is_own(name: &HeaderName) -> bool {
    let head = name.as_str().as_bytes().get(..OWN_PREFIX.len());
    head.is_some_and(|head| {
        head.iter()
            .zip(OWN_PREFIX.bytes())
            .all(|(byte, own)| fold_header_byte(*byte) == own)
    })
}

/// By these the auth API hands tokens to clients that keep no cookies: nobody else does.
pub(super) fn hands_out_token(name: &HeaderName) -> bool {
    matches!(name.as_str(), "set-auth-token" | "set-auth-jwt")
}

/// A request fit for an upstream. Only [`prepare`] makes one, and it demands a [`Permit`].
#[derive(Debug)]
pub struct Outbound {
    outgoing: Outgoing,
    upgrade: bool,
}

impl Outbound {
    pub const fn wants_upgrade(&self) -> bool {
        self.upgrade
    }

    pub const fn outgoing(&mut self) -> &mut Outgoing {
        &mut self.outgoing
    }

    pub fn into_request(mut self) -> Request<RequestBody> {
        self.outgoing.take_request()
    }
}

/// What an outbound request is made from, besides the permit.
pub struct Material<'a> {
    pub method: Method,
    pub headers: HeaderMap,
    /// What is among them.
    pub marks: Marks,
    pub body: RequestBody,
    pub path: NormalPath,
    pub caller: &'a Caller,
    pub request_id: &'a HeaderValue,
    pub handover: Handover,
    /// What is left of the client's cookies without ours.
    pub cookies: &'a Cut,
    pub reserved: &'a Reserved,
    /// The protocol that the client asks to switch to, if it is one that we let through.
    pub upgrade: Option<HeaderValue>,
}

crate::secret::unprinted!(Material<'a>);

/// Makes the request that the upstream gets.
pub fn prepare(material: Material<'_>, permit: Permit<'_>) -> Outbound {
    let Material {
        method,
        headers,
        marks,
        body,
        path,
        caller,
        request_id,
        handover,
        cookies,
        reserved,
        upgrade,
    } = material;
    let named = if marks.has(Marks::CONNECTION) {
        named_by_connection(&headers)
    } else {
        Names::default()
    };
    let rules = &permit.route().request_headers;
    let fields = Fields {
        all: &headers,
        behind_proxy: caller.facts.trusted_peer,
        named: &named,
        reserved,
        handover: &handover,
        cookies,
    };

    let mut outgoing = Outgoing::new(method, path.into_target(), body);
    let seen = if rules.is_empty() {
        fields.pass(|name, value| outgoing.put(name, value))
    } else {
        let mut passed = HeaderMap::with_capacity(headers.len());
        let seen = fields.pass(|name, value| {
            if !rewrite::replaces(rules, name) {
                passed.append(name.clone(), value.clone());
            }
        });
        rewrite::apply(rules, &mut passed);
        for (name, value) in passed.iter().filter(|(name, _)| fields.may_be_said(name)) {
            outgoing.put(name, value);
        }
        seen
    };

    outgoing.put_lines(&caller.lines);
    outgoing.put(&X_REQUEST_ID, request_id);
    if let Some(session) = permit.session() {
        outgoing.put_lines(&reserved.told(session));
    }
    if let Some(authorization) = &handover.authorization {
        outgoing.put(&header::AUTHORIZATION, authorization);
    }
    if let Some(assertion) = &handover.assertion {
        outgoing.put(&ASSERTION, assertion);
    }
    if seen.length {
        outgoing.declare_length();
    }
    if seen.trailer
        && let Some(names) = fields.announced(rules)
    {
        outgoing.announce(names);
    }
    if seen.te && trailers::accepted(&headers) {
        // Ours are kept on the way back. Who reads `TE` finds it in `Connection` (RFC 9110, 10.1.4).
        outgoing.put(&header::TE, &HeaderValue::from_static("trailers"));
        if upgrade.is_none() {
            outgoing.put(&header::CONNECTION, &HeaderValue::from_static("te"));
        }
    }
    if let Some(protocol) = &upgrade {
        outgoing.put(&header::CONNECTION, &HeaderValue::from_static("upgrade"));
        outgoing.put(&header::UPGRADE, protocol);
    }
    outgoing.reuse(headers);
    Outbound {
        outgoing,
        upgrade: upgrade.is_some(),
    }
}

/// A client's fields, and what they are judged by.
struct Fields<'a> {
    all: &'a HeaderMap,
    /// Who sent them is a proxy that is trusted.
    behind_proxy: bool,
    /// What its `Connection` names.
    named: &'a Names,
    reserved: &'a Reserved,
    handover: &'a Handover,
    cookies: &'a Cut,
}

/// Which fields there are that are not passed as they came. What all lines of one say together is asked once, behind
/// them: a client may send hundreds.
#[derive(Default)]
struct Seen {
    length: bool,
    te: bool,
    trailer: bool,
}

impl Fields<'_> {
    /// Gives those that may leave to `out`.
    fn pass(&self, mut out: impl FnMut(&HeaderName, &HeaderValue)) -> Seen {
        let mut seen = Seen::default();
        let mut has_cookies = false;
        for (name, value) in self.all {
            match self.reserved.classify(name) {
                Disposition::Pass => {
                    if self.named.is_empty() || !self.named.contains_key(name) {
                        out(name, value);
                    }
                }
                Disposition::ToldByProxies => {
                    if self.behind_proxy && !self.named.contains_key(name) {
                        out(name, value);
                    }
                }
                Disposition::Cookie => {
                    let first = !std::mem::replace(&mut has_cookies, true);
                    self.cookie((name, value), first, &mut out);
                }
                Disposition::Authorization => {
                    if !self.handover.drops_authorization && !self.named.contains_key(name) {
                        out(name, value);
                    }
                }
                Disposition::Te => seen.te = true,
                Disposition::Trailer => seen.trailer = true,
                // The body knows it.
                Disposition::ContentLength => seen.length = true,
                // Said by us, or to us alone.
                Disposition::Host
                | Disposition::Connection
                | Disposition::Upgrade
                | Disposition::HopByHop
                | Disposition::Expect
                | Disposition::ForwardedFor
                | Disposition::Forwarded
                | Disposition::RequestId
                | Disposition::Reserved => {}
            }
        }
        seen
    }

    /// The fields that may come behind the body, of those that the client says will.
    fn announced(&self, rules: &HeaderRules) -> Option<HeaderValue> {
        trailers::announced(self.all, |name| {
            trailers::may_follow_request(name, self.reserved, rules)
        })
    }

    /// Whether a rule may say it: the configuration refuses those that say more.
    fn may_be_said(&self, name: &HeaderName) -> bool {
        match self.reserved.classify(name) {
            Disposition::Pass | Disposition::Cookie | Disposition::ToldByProxies => true,
            Disposition::Authorization => self.handover.authorization.is_none(),
            _ => false,
        }
    }

    /// Of several `Cookie` lines that lose something one is left, as an upstream may read only the first.
    fn cookie(
        &self,
        (name, value): (&HeaderName, &HeaderValue),
        first: bool,
        out: &mut impl FnMut(&HeaderName, &HeaderValue),
    ) {
        if self.named.contains_key(name) {
            return;
        }
        match self.cookies {
            _ if !self.handover.cuts_cookies => out(name, value),
            Cut::Unchanged => out(name, value),
            Cut::Rest(rest) if first => out(name, rest),
            Cut::Rest(_) | Cut::Nothing => {}
        }
    }
}

/// A set of names. A map of fields does not grow slow with names that somebody chose for that.
type Names = HeaderMap<()>;

/// What a peer's `Connection` lines name: theirs to remove (RFC 9110, 7.6.1). All lines count, yet only fields that are
/// there, each once: a head has few of them, but room for thousands of names.
fn named_by_connection(headers: &HeaderMap) -> Names {
    let mut names = Names::default();
    let said = headers
        .get_all(header::CONNECTION)
        .iter()
        .flat_map(|line| line.as_bytes().split(|&byte| byte == b','))
        .map(<[u8]>::trim_ascii)
        // Fields that make the message what it is are nobody's to remove: the body would lose its length, the
        // request its target.
        .filter(|name| !name.eq_ignore_ascii_case(b"content-length") && !name.eq_ignore_ascii_case(b"host"))
        // What nearly every message says is no field, or one that never passes.
        .filter(|name| !name.eq_ignore_ascii_case(b"keep-alive") && !name.eq_ignore_ascii_case(b"close"))
        .filter_map(|name| std::str::from_utf8(name).ok());
    for name in said {
        if headers.contains_key(name)
            && !names.contains_key(name)
            && let Ok(name) = HeaderName::try_from(name)
        {
            names.insert(name, ());
        }
    }
    names
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
    let no_content = response.status() == StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    // Most answers lose nothing.
    let mut removed = Vec::new();
    let (mut sets_ours, mut has_trailer, mut has_connection, mut has_coding) = (false, false, false, false);
    let mut asks = Asks::default();
    for (name, value) in headers.iter() {
        match *name {
            // Nothing comes, whatever it says (RFC 9110, 8.6): clients of HTTP/2 give such an answer up.
            header::CONTENT_LENGTH if no_content => removed.push(name.clone()),
            header::CONNECTION | header::UPGRADE if switching => {}
            header::CONNECTION => {
                has_connection = true;
                removed.push(name.clone());
            }
            header::TRANSFER_ENCODING => {
                has_coding = true;
                removed.push(name.clone());
            }
            header::UPGRADE | header::TE | header::PROXY_AUTHENTICATE => removed.push(name.clone()),
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
                if is_own(name) {
                    asks.note(name, value);
                    removed.push(name.clone());
                } else if *name == KEEP_ALIVE || *name == PROXY_CONNECTION || hands_out_token(name) {
                    removed.push(name.clone());
                }
            }
        }
    }
    if has_connection {
        removed.extend(named_by_connection(headers).keys().cloned());
    }
    if has_coding {
        // With both, the coding is what counts (RFC 9112, 6.3).
        removed.push(header::CONTENT_LENGTH);
    }
    let announced = has_trailer
        .then(|| trailers::announced(headers, trailers::may_follow_answer))
        .flatten();
    for name in removed {
        headers.remove(name);
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_and_the_host_are_nobodys_to_remove() {
        let mut headers = HeaderMap::new();
        headers.append(
            header::CONNECTION,
            HeaderValue::from_static("close, X-Foo ,Content-Length"),
        );
        headers.append(header::CONNECTION, HeaderValue::from_static("host,, x-bar"));
        for name in ["x-foo", "x-bar", "content-length", "host", "x-other"] {
            headers.insert(name, HeaderValue::from_static("1"));
        }
        let mut names: Vec<_> = named_by_connection(&headers).keys().cloned().collect();
        names.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
        assert_eq!(names, ["x-bar", "x-foo"]);
    }

    #[test]
    fn a_head_has_no_more_fields_to_remove_than_fields() {
        let mut headers = HeaderMap::new();
        let many = "x-here, X-HERE, a, b, \u{e9}, ".repeat(1000);
        for _ in 0..2 {
            headers.append(header::CONNECTION, HeaderValue::from_bytes(many.as_bytes()).unwrap());
        }
        headers.insert("x-here", HeaderValue::from_static("1"));
        assert_eq!(named_by_connection(&headers).keys().collect::<Vec<_>>(), ["x-here"]);
    }
}
