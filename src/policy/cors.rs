//! Who may read our answers from a page of another origin: the Fetch standard's CORS protocol.
//!
//! A browser keeps an answer from a foreign page unless the answer names that page's origin, and asks beforehand, in a
//! *preflight*, whether it may send what no form could. A preflight never brings credentials, so it is answered here
//! and needs no session; it changes nothing and reaches no upstream, unless the route leaves all of this to its own.
//!
//! Answers depend on cookies, so an origin is named only if the operator did so, letter by letter, and never `*`; any
//! other gets no word of ours, nor one of the upstream's, and its browser tells it nothing. Whether such a request is
//! *carried out* is not decided here: that a foreign page can't write with somebody's cookie, [`super::origin`] sees to.

use http::{HeaderMap, HeaderName, HeaderValue, Method, header};

use super::origin::{self, TrustedOrigins};
use crate::config::{Cors, OriginPattern};

/// Seconds for which a browser need not ask again. After a change of the configuration browsers go by the old one for
/// so long; what they are told is only what they may *send*, each answer is judged by itself.
const MAX_AGE: HeaderValue = HeaderValue::from_static("600");

/// What an answer to a preflight depends on.
const VARY_PREFLIGHT: HeaderValue =
    HeaderValue::from_static("Origin, Access-Control-Request-Method, Access-Control-Request-Headers");
const VARY_ORIGIN: HeaderValue = HeaderValue::from_static("Origin");
const TRUE: HeaderValue = HeaderValue::from_static("true");

/// A page that names more fields than that, or longer ones, is up to something else.
const MAX_NAMES: usize = 64;
const MAX_NAMES_LENGTH: usize = 4096;

/// The question whether a page may send a request.
pub struct Preflight<'h> {
    origin: &'h HeaderValue,
    /// Of the request that is to follow.
    pub method: Method,
    headers: &'h HeaderMap,
}

crate::secret::unprinted!(Preflight<'a>);

/// What becomes of a preflight.
#[derive(Debug)]
pub enum Verdict {
    /// The fields of a 204.
    Answer(HeaderMap),
    PassOn(PassOn),
    Refuse,
}

/// Proof that a preflight is the upstream's to answer. Only [`Readers::judge`] makes one.
#[derive(Debug)]
pub struct PassOn(());

/// Whose pages may read an answer.
#[derive(Clone, Copy, Debug)]
pub enum Readers<'p> {
    Trusted(&'p TrustedOrigins),
    Listed(&'p [OriginPattern]),
    /// Those that the upstream names.
    Upstreams,
}

/// The preflight that a request is: `OPTIONS` with exactly one `Origin` and one method asked for. Anything else with
/// that method is a request like others.
pub fn preflight<'h>(method: &Method, headers: &'h HeaderMap) -> Option<Preflight<'h>> {
    if *method != Method::OPTIONS {
        return None;
    }
    let asked = only(headers, &header::ACCESS_CONTROL_REQUEST_METHOD)?;
    Some(Preflight {
        origin: origin_of(headers)?,
        method: Method::from_bytes(asked.as_bytes()).ok()?,
        headers,
    })
}

/// The origin of the page that sends a request; several are none.
pub fn origin_of(headers: &HeaderMap) -> Option<&HeaderValue> {
    only(headers, &header::ORIGIN)
}

fn only<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h HeaderValue> {
    let mut lines = headers.get_all(name).iter();
    match (lines.next(), lines.next()) {
        (Some(line), None) => Some(line),
        (None, _) | (Some(_), Some(_)) => None,
    }
}

impl<'p> Readers<'p> {
    /// Of a route's answers.
    pub const fn of(cors: &'p Cors, trusted: &'p TrustedOrigins) -> Self {
        match cors {
            Cors::Trusted => Self::Trusted(trusted),
            Cors::Listed(patterns) => Self::Listed(patterns.as_slice()),
            Cors::Upstream => Self::Upstreams,
        }
    }

    /// Whether the gateway decides; if not, it leaves all fields of this kind alone.
    pub const fn are_ours(self) -> bool {
        match self {
            Self::Trusted(_) | Self::Listed(_) => true,
            Self::Upstreams => false,
        }
    }

    fn include(self, origin: &HeaderValue) -> bool {
        let Ok(origin) = origin.to_str() else { return false };
        match self {
            Self::Trusted(trusted) => trusted.trusts(origin),
            Self::Listed(patterns) => origin::matches_any(patterns, origin),
            Self::Upstreams => false,
        }
    }

    /// Whether somebody but `public_url` is among them, so that a cache must tell answers apart.
    fn are_several(self) -> bool {
        match self {
            Self::Trusted(trusted) => trusted.knows_others(),
            Self::Listed(patterns) => !patterns.is_empty(),
            Self::Upstreams => false,
        }
    }

    /// What becomes of a preflight. `methods` are those that a page may use here.
    pub fn judge(self, preflight: &Preflight<'_>, methods: HeaderValue) -> Verdict {
        if !self.are_ours() {
            return Verdict::PassOn(PassOn(()));
        }
        if !self.include(preflight.origin) {
            return Verdict::Refuse;
        }
        let mut answer = HeaderMap::new();
        allow(&mut answer, preflight.origin);
        answer.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
        if let Some(names) = requested_names(preflight.headers) {
            answer.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, names);
        }
        answer.insert(header::ACCESS_CONTROL_MAX_AGE, MAX_AGE);
        answer.insert(header::VARY, VARY_PREFLIGHT);
        Verdict::Answer(answer)
    }

    /// Lets the page at `origin` read the answer that has these fields, if it is one of them. Whether it is.
    pub fn admit(self, origin: Option<&HeaderValue>, headers: &mut HeaderMap) -> bool {
        if self.are_ours() && (origin.is_some() || self.are_several()) {
            // Also where nobody asks from elsewhere: a cache must not hand that answer to who does.
            vary(headers);
        }
        let Some(origin) = origin.filter(|origin| self.include(origin)) else {
            return false;
        };
        allow(headers, origin);
        true
    }
}

fn allow(headers: &mut HeaderMap, origin: &HeaderValue) {
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, TRUE);
}

fn vary(headers: &mut HeaderMap) {
    let told = |line| tokens(line).any(|name| name == b"*" || name.eq_ignore_ascii_case(b"origin"));
    if !headers.get_all(header::VARY).iter().any(told) {
        headers.append(header::VARY, VARY_ORIGIN);
    }
}

/// Lets a page read these fields of an answer too, besides those that the answer names already.
pub fn expose(headers: &mut HeaderMap, names: &[HeaderName]) {
    let known: Vec<HeaderName> = headers
        .get_all(header::ACCESS_CONTROL_EXPOSE_HEADERS)
        .iter()
        .flat_map(tokens)
        .filter_map(|name| HeaderName::from_bytes(name).ok())
        .collect();
    let all: Vec<&str> = known
        .iter()
        .chain(names.iter().filter(|name| !known.contains(name)))
        .map(HeaderName::as_str)
        .collect();
    if let Ok(all) = HeaderValue::try_from(all.join(", ")) {
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, all);
    }
}

/// The fields that a page wants to send, if they are all names of fields and not too many. Which of them mean
/// anything is for whoever reads the request: identity headers are removed from it, whoever sends them.
fn requested_names(headers: &HeaderMap) -> Option<HeaderValue> {
    let lines = headers.get_all(header::ACCESS_CONTROL_REQUEST_HEADERS);
    let names: Vec<HeaderName> = lines
        .iter()
        .flat_map(tokens)
        .filter(|name| !name.is_empty())
        .take(MAX_NAMES + 1)
        // A legal name, but one that browsers take for "all".
        .map(|name| HeaderName::from_bytes(name).ok().filter(|name| name != "*"))
        .collect::<Option<_>>()?;
    let joined = names.iter().map(HeaderName::as_str).collect::<Vec<_>>().join(", ");
    let fits = (1..=MAX_NAMES).contains(&names.len()) && joined.len() <= MAX_NAMES_LENGTH;
    HeaderValue::try_from(joined).ok().filter(|_| fits)
}

fn tokens(line: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    line.as_bytes().split(|&byte| byte == b',').map(<[u8]>::trim_ascii)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Origin;

    const FRIEND: &str = "https://friend.example";
    const EVIL: &str = "https://evil.example";
    const METHODS: HeaderValue = HeaderValue::from_static("PUT");

    fn trusted(others: &[&str]) -> TrustedOrigins {
        let exact = |text: &&str| OriginPattern::Exact(Origin::parse(text).unwrap());
        let others: Vec<_> = others.iter().map(exact).collect();
        TrustedOrigins::new(&Origin::parse("https://app.example").unwrap(), &others)
    }

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(HeaderName::from_static(name), value.parse().unwrap());
        }
        headers
    }

    const ORIGIN: (&str, &str) = ("origin", FRIEND);
    const PUT: (&str, &str) = ("access-control-request-method", "PUT");

    #[test]
    fn a_preflight_is_told_from_other_requests() {
        let is = |method: &Method, lines: &[(&'static str, &str)]| preflight(method, &headers(lines)).is_some();
        assert!(is(&Method::OPTIONS, &[ORIGIN, PUT]));
        assert!(is(&Method::OPTIONS, &[("origin", "null"), PUT]));
        assert!(!is(&Method::GET, &[ORIGIN, PUT]));
        for lines in [
            &[][..],
            &[ORIGIN],
            &[PUT],
            &[ORIGIN, ORIGIN, PUT],
            &[ORIGIN, PUT, PUT],
            &[ORIGIN, ("access-control-request-method", "")],
            &[ORIGIN, ("access-control-request-method", "PUT, POST")],
        ] {
            assert!(!is(&Method::OPTIONS, lines), "{lines:?}");
        }
    }

    #[test]
    fn only_those_who_were_named_are_told_anything() {
        let trusted = trusted(&[FRIEND]);
        let listed = [OriginPattern::Wildcard("https://*.friend.example".to_owned())];
        for (readers, origin, passes) in [
            (Readers::Trusted(&trusted), FRIEND, true),
            (Readers::Trusted(&trusted), "https://app.example", true),
            (Readers::Trusted(&trusted), EVIL, false),
            (Readers::Trusted(&trusted), "null", false),
            (Readers::Trusted(&trusted), "*", false),
            (Readers::Trusted(&trusted), "https://friend.example.evil.example", false),
            (Readers::Trusted(&trusted), "http://friend.example", false),
            (Readers::Trusted(&trusted), "https://friend.example/", false),
            (Readers::Listed(&listed), "https://a.friend.example", true),
            (Readers::Listed(&listed), FRIEND, false),
            (Readers::Listed(&listed), "https://app.example", false),
            (Readers::Listed(&[]), FRIEND, false),
        ] {
            let origin_line = ("origin", origin);
            let asked = headers(&[origin_line, PUT]);
            let verdict = readers.judge(&preflight(&Method::OPTIONS, &asked).unwrap(), METHODS);
            let mut answer = HeaderMap::new();
            assert_eq!(readers.admit(asked.get("origin"), &mut answer), passes, "{origin}");
            assert_eq!(answer["vary"], "Origin");
            if passes {
                let Verdict::Answer(fields) = verdict else {
                    panic!("{origin}: {verdict:?}")
                };
                for fields in [&fields, &answer] {
                    assert_eq!(fields["access-control-allow-origin"], origin);
                    assert_eq!(fields["access-control-allow-credentials"], "true");
                }
                assert_eq!(fields["access-control-allow-methods"], "PUT");
                assert_eq!(fields["access-control-max-age"], "600");
            } else {
                assert!(matches!(verdict, Verdict::Refuse), "{origin}: {verdict:?}");
                assert_eq!(answer.len(), 1, "{origin}: {answer:?}");
            }
        }
    }

    #[test]
    fn what_is_the_upstream_s_is_left_to_it() {
        let asked = headers(&[ORIGIN, PUT]);
        let verdict = Readers::Upstreams.judge(&preflight(&Method::OPTIONS, &asked).unwrap(), METHODS);
        assert!(matches!(verdict, Verdict::PassOn(_)));
        let mut answer = headers(&[("access-control-allow-origin", "*")]);
        assert!(!Readers::Upstreams.admit(asked.get("origin"), &mut answer));
        assert_eq!(answer, headers(&[("access-control-allow-origin", "*")]));
    }

    #[test]
    fn caches_are_told_where_answers_differ() {
        let (alone, several) = (trusted(&[]), trusted(&[FRIEND]));
        for (readers, before, after) in [
            (Readers::Trusted(&alone), &[][..], 0),
            (Readers::Listed(&[]), &[], 0),
            (Readers::Trusted(&several), &[], 1),
            (Readers::Trusted(&several), &[("vary", "Accept-Encoding")], 2),
            (Readers::Trusted(&several), &[("vary", "accept, ORIGIN")], 1),
            (Readers::Trusted(&several), &[("vary", "*")], 1),
        ] {
            let mut answer = headers(before);
            readers.admit(None, &mut answer);
            assert_eq!(answer.get_all("vary").iter().count(), after, "{readers:?} {before:?}");
        }
    }

    #[test]
    fn the_fields_asked_for_are_granted_if_they_are_fields() {
        let asked = |value: &str| requested_names(&headers(&[("access-control-request-headers", value)]));
        assert_eq!(
            asked("Content-Type,X-Csrf ,, x-b").unwrap(),
            "content-type, x-csrf, x-b"
        );
        for value in ["", ",", "*", "x-a, *", "x a", "x-a\u{e9}", "x:a", &"x".repeat(5000)] {
            assert_eq!(asked(value), None, "{value}");
        }
        let many = |count: usize| vec!["x-a"; count].join(",");
        assert!(asked(&many(64)).is_some() && asked(&many(65)).is_none());
        assert_eq!(requested_names(&HeaderMap::new()), None);
    }

    #[test]
    fn what_an_answer_exposes_already_stays() {
        let mut answer = headers(&[("access-control-expose-headers", "Set-Auth-Token, x-a")]);
        let names = ["set-auth-token", "retry-after"].map(HeaderName::from_static);
        expose(&mut answer, &names);
        assert_eq!(
            answer["access-control-expose-headers"],
            "set-auth-token, x-a, retry-after"
        );
    }
}
