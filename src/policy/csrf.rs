//! Cross-site request forgery: which requests with a cookie count as their user's own wish.
//!
//! A browser sends cookies wherever a foreign page tells it to. So a request that could change something, and that a
//! *cookie* authenticated, must come from a page of ours. Bearer tokens are exempt: no browser adds one by itself.
//! An upgrade counts as unsafe, since a WebSocket carries writes and knows no same-origin rule.
//!
//! Proxied routes go by [`check`]; the auth API, which browsers and bearer clients share, by the wire contract's
//! table, [`TrustedOrigins::auth_api_check`].

use http::{HeaderMap, HeaderName, HeaderValue, Method, header};

use super::origin::{SameOrigin, TrustedOrigins, matches_any, origin_of_url};
use crate::config::{OriginPattern, Route};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
const SEC_FETCH_DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");
const SEC_FETCH_USER: HeaderName = HeaderName::from_static("sec-fetch-user");

/// The request comes from a page that is not ours.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("a request with a session cookie came from another origin")]
pub struct ForeignOrigin;

/// How the auth API refuses an origin (contract, section 4).
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum AuthOriginError {
    #[error("the request names no origin")]
    Missing,
    #[error("the request's origin is not trusted")]
    Invalid,
    #[error("another site navigated to a login endpoint")]
    CrossSiteLogin,
}

/// What an endpoint of the auth API does to a browser that sends it no cookie.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum WithoutCookie {
    /// Nothing.
    Nothing,
    /// It leaves cookies there or takes some away: a browser lets it, whichever page sent the form to which it answers.
    TouchesCookies,
    /// It signs somebody in.
    SignsIn,
}

/// Judges a proxied request that a session cookie authenticated.
///
/// A trusted `Origin` passes. Else `Sec-Fetch-Site` decides, which no page can forge, and `same_origin` says what it is worth
/// at this host. A foreign or `null` `Origin`, or without either a foreign `Referer`, is refused. With none of them it is no
/// browser.
///
/// `also` are origins that are trusted on this route alone: whom the operator lets read its answers may write as well.
pub fn check(
    method: &Method,
    is_upgrade: bool,
    headers: &HeaderMap,
    trusted: &TrustedOrigins,
    also: &[OriginPattern],
    same_origin: SameOrigin,
) -> Result<(), ForeignOrigin> {
    if is_safe(method) && !is_upgrade {
        return Ok(());
    }
    let trusts = |origin: &str| trusted.trusts(origin) || matches_any(also, origin);
    let origin = only(headers, &header::ORIGIN);
    if let Field::One(origin) = origin
        && trusts(origin)
    {
        return Ok(());
    }
    let ours = match (only(headers, &SEC_FETCH_SITE), origin) {
        (Field::One("same-origin"), _) => same_origin == SameOrigin::Ours,
        // Somebody has typed the address, say: no page has a part in it.
        (Field::One("none"), Field::Absent) => true,
        (Field::Absent, Field::Absent) => match only(headers, &header::REFERER) {
            Field::Absent => true,
            Field::One(referer) => origin_of_url(referer).is_some_and(|origin| trusts(origin.as_str())),
            Field::Unclear => false,
        },
        (Field::One(_) | Field::Unclear, _) | (Field::Absent, Field::One(_) | Field::Unclear) => false,
    };
    if ours { Ok(()) } else { Err(ForeignOrigin) }
}

/// The same of requests for a route: whoever gave the host one of its own has said whose its pages are.
pub fn same_origin_on(route: &Route, trusted: &TrustedOrigins, host: &str) -> SameOrigin {
    match route.host {
        Some(_) => SameOrigin::Ours,
        None => trusted.same_origin_at(host),
    }
}

/// The fields that [`check`] goes by, for judging a request once more.
pub fn said_of_page(headers: &HeaderMap) -> HeaderMap {
    let mut said = HeaderMap::new();
    for name in [header::ORIGIN, SEC_FETCH_SITE, header::REFERER] {
        for line in headers.get_all(&name) {
            said.append(&name, line.clone());
        }
    }
    said
}

impl TrustedOrigins {
    /// Judges a request to the auth API. Cookies stay away from what another site sends (`SameSite`), so their absence
    /// says nothing where an endpoint needs none to do harm.
    pub fn auth_api_check(
        &self,
        method: &Method,
        headers: &HeaderMap,
        without_cookie: WithoutCookie,
        same_origin: SameOrigin,
    ) -> Result<(), AuthOriginError> {
        if is_safe(method) {
            return Ok(());
        }
        if !headers.contains_key(header::COOKIE) {
            match without_cookie {
                WithoutCookie::Nothing => return Ok(()),
                // A page elsewhere can't add a token: its browser would ask for leave before.
                WithoutCookie::TouchesCookies if has_bearer(headers) => return Ok(()),
                WithoutCookie::TouchesCookies => {
                    if check(method, false, headers, self, &[], same_origin).is_ok() {
                        return Ok(());
                    }
                }
                WithoutCookie::SignsIn => {
                    let from_browser = [
                        &header::ORIGIN,
                        &header::REFERER,
                        &SEC_FETCH_SITE,
                        &SEC_FETCH_MODE,
                        &SEC_FETCH_DEST,
                        &SEC_FETCH_USER,
                    ];
                    if !from_browser.into_iter().any(|name| headers.contains_key(name)) {
                        return Ok(());
                    }
                    let is = |name: &HeaderName, value| matches!(only(headers, name), Field::One(it) if it == value);
                    if is(&SEC_FETCH_SITE, "cross-site") && is(&SEC_FETCH_MODE, "navigate") {
                        return Err(AuthOriginError::CrossSiteLogin);
                    }
                }
            }
        }
        match only(headers, &header::ORIGIN) {
            Field::One("null") => match only(headers, &SEC_FETCH_SITE) {
                Field::One("same-origin") if same_origin == SameOrigin::Ours => Ok(()),
                _ => Err(AuthOriginError::Missing),
            },
            Field::One(origin) if self.trusts(origin) => Ok(()),
            Field::One(_) | Field::Unclear => Err(AuthOriginError::Invalid),
            Field::Absent => match only(headers, &header::REFERER) {
                Field::Absent => Err(AuthOriginError::Missing),
                Field::One(referer) if self.trusts_origin_of(referer) => Ok(()),
                Field::One(_) | Field::Unclear => Err(AuthOriginError::Invalid),
            },
        }
    }
}

const fn is_safe(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

/// Not `Basic`, say, which browsers add by themselves where they know a name and a password.
fn has_bearer(headers: &HeaderMap) -> bool {
    let scheme = b"bearer ";
    let mut lines = headers.get_all(header::AUTHORIZATION).iter();
    lines.any(|line| {
        let found = line.as_bytes().get(..scheme.len());
        found.is_some_and(|found| found.eq_ignore_ascii_case(scheme))
    })
}

#[derive(Clone, Copy)]
enum Field<'h> {
    Absent,
    One(&'h str),
    /// Several lines, or bytes that are no text: nothing that a browser sends.
    Unclear,
}

fn only<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Field<'h> {
    let mut lines = headers.get_all(name).iter();
    match (lines.next(), lines.next()) {
        (None, _) => Field::Absent,
        (Some(line), None) => HeaderValue::to_str(line).map_or(Field::Unclear, Field::One),
        (Some(_), Some(_)) => Field::Unclear,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::Origin, policy::origin::testing::trusted};

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        lines
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()))
            .collect()
    }

    #[test]
    fn a_cookie_works_only_from_our_own_pages() {
        const TRUSTED: (&str, &str) = ("origin", "https://app.example");
        const FOREIGN: (&str, &str) = ("origin", "https://evil.example");
        const NULL: (&str, &str) = ("origin", "null");
        let site = |value| ("sec-fetch-site", value);
        for (lines, passes) in [
            (&[][..], true),
            (&[TRUSTED], true),
            (&[TRUSTED, site("cross-site")], true),
            (&[site("same-origin")], true),
            (&[site("none")], true),
            (&[NULL, site("same-origin")], true),
            (&[FOREIGN, site("none")], false),
            (&[NULL, site("none")], false),
            (&[site("same-site")], false),
            (&[site("cross-site")], false),
            (&[site("")], false),
            (&[FOREIGN], false),
            (&[NULL], false),
            (&[FOREIGN, site("cross-site")], false),
            (&[TRUSTED, FOREIGN], false),
            (&[site("same-origin"), site("cross-site")], false),
            (&[("referer", "https://app.example/page?x")], true),
            (&[("referer", "https://evil.example/https://app.example/")], false),
            (&[("referer", "nonsense")], false),
        ] {
            let headers = headers(lines);
            assert_eq!(
                check(&Method::POST, false, &headers, &trusted(), &[], SameOrigin::Ours).is_ok(),
                passes,
                "POST {lines:?}"
            );
            assert_eq!(
                check(&Method::GET, true, &headers, &trusted(), &[], SameOrigin::Ours).is_ok(),
                passes,
                "upgrade {lines:?}"
            );
            assert_eq!(
                check(&Method::GET, false, &headers, &trusted(), &[], SameOrigin::Ours),
                Ok(()),
                "GET {lines:?}"
            );
        }
        let unknown = Method::from_bytes(b"FROB").unwrap();
        assert!(check(&unknown, false, &headers(&[FOREIGN]), &trusted(), &[], SameOrigin::Ours).is_err());
    }

    #[test]
    fn a_route_may_trust_more_origins_than_others_do() {
        let partner = [OriginPattern::Exact(Origin::parse("https://partner.example").unwrap())];
        for (lines, passes) in [
            (&[("origin", "https://partner.example")][..], true),
            (&[("referer", "https://partner.example/x")], true),
            (&[("origin", "https://app.example")], true),
            (&[("origin", "https://evil.example")], false),
            (&[("origin", "https://partner.example.evil.example")], false),
        ] {
            let headers = headers(lines);
            let verdict = check(&Method::POST, false, &headers, &trusted(), &partner, SameOrigin::Ours);
            assert_eq!(verdict.is_ok(), passes, "{lines:?}");
        }
        let headers = headers(&[("origin", "https://partner.example")]);
        assert!(check(&Method::POST, false, &headers, &trusted(), &[], SameOrigin::Ours).is_err());
    }

    #[test]
    fn the_auth_api_follows_the_contracts_table() {
        use AuthOriginError::{CrossSiteLogin, Invalid, Missing};
        use WithoutCookie::{Nothing, SignsIn, TouchesCookies};
        const COOKIE: (&str, &str) = ("cookie", "a=b");
        const TRUSTED: (&str, &str) = ("origin", "https://app.example");
        const FOREIGN: (&str, &str) = ("origin", "https://evil.example");
        const NULL: (&str, &str) = ("origin", "null");
        const BEARER: (&str, &str) = ("authorization", "Bearer x");
        const CROSS: (&str, &str) = ("sec-fetch-site", "cross-site");
        const NAVIGATE: (&str, &str) = ("sec-fetch-mode", "navigate");
        for (lines, without_cookie, expected) in [
            (&[COOKIE, TRUSTED][..], Nothing, Ok(())),
            (&[COOKIE, ("referer", "https://app.example/x")], Nothing, Ok(())),
            (&[COOKIE], Nothing, Err(Missing)),
            (&[COOKIE, NULL], Nothing, Err(Missing)),
            (&[COOKIE, NULL, ("sec-fetch-site", "same-origin")], Nothing, Ok(())),
            (&[COOKIE, NULL, CROSS], Nothing, Err(Missing)),
            (&[COOKIE, FOREIGN], Nothing, Err(Invalid)),
            (&[COOKIE, ("referer", "https://evil.example/")], Nothing, Err(Invalid)),
            (&[COOKIE, TRUSTED, FOREIGN], Nothing, Err(Invalid)),
            (&[FOREIGN], Nothing, Ok(())),
            (&[], SignsIn, Ok(())),
            (&[CROSS, NAVIGATE, FOREIGN], SignsIn, Err(CrossSiteLogin)),
            (&[CROSS, NAVIGATE, TRUSTED], SignsIn, Err(CrossSiteLogin)),
            (&[FOREIGN], SignsIn, Err(Invalid)),
            (&[TRUSTED], SignsIn, Ok(())),
            (&[("sec-fetch-mode", "cors")], SignsIn, Err(Missing)),
            (&[], TouchesCookies, Ok(())),
            (&[TRUSTED], TouchesCookies, Ok(())),
            (&[TRUSTED, CROSS, NAVIGATE], TouchesCookies, Ok(())),
            (&[("sec-fetch-mode", "cors")], TouchesCookies, Ok(())),
            (&[("sec-fetch-site", "same-origin")], TouchesCookies, Ok(())),
            (&[FOREIGN], TouchesCookies, Err(Invalid)),
            (&[FOREIGN, CROSS, NAVIGATE], TouchesCookies, Err(Invalid)),
            (&[NULL], TouchesCookies, Err(Missing)),
            (&[NULL, CROSS, NAVIGATE], TouchesCookies, Err(Missing)),
            (&[CROSS, NAVIGATE], TouchesCookies, Err(Missing)),
            (&[("sec-fetch-site", "same-site")], TouchesCookies, Err(Missing)),
            (&[("referer", "https://evil.example/")], TouchesCookies, Err(Invalid)),
            (&[FOREIGN, BEARER], TouchesCookies, Ok(())),
            (&[FOREIGN, ("authorization", "Basic x")], TouchesCookies, Err(Invalid)),
            (&[COOKIE, FOREIGN, BEARER], TouchesCookies, Err(Invalid)),
        ] {
            let headers = headers(lines);
            let trusted = trusted();
            assert_eq!(
                trusted.auth_api_check(&Method::POST, &headers, without_cookie, SameOrigin::Ours),
                expected,
                "{lines:?}"
            );
            assert_eq!(
                trusted.auth_api_check(&Method::GET, &headers, without_cookie, SameOrigin::Ours),
                Ok(())
            );
        }
    }

    #[test]
    fn a_page_of_a_host_of_others_is_foreign() {
        let page = headers(&[("sec-fetch-site", "same-origin")]);
        let judged = |same_origin| check(&Method::POST, false, &page, &trusted(), &[], same_origin);
        assert_eq!(judged(SameOrigin::Theirs), Err(ForeignOrigin));
        assert_eq!(judged(SameOrigin::Ours), Ok(()));
    }
}
