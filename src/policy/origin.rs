//! Which origins are ours: for requests that a browser sends with a cookie, and for where a redirect may lead.
//!
//! A browser sends cookies wherever a foreign page tells it to. So a request that could change something, and that a
//! *cookie* authenticated, must come from a page of ours. Bearer tokens are exempt: no browser adds one by itself.
//! An upgrade counts as unsafe, since a WebSocket carries writes and knows no same-origin rule.
//!
//! Proxied routes go by [`check`]; the auth API, which browsers and bearer clients share, by the wire contract's
//! table, [`TrustedOrigins::auth_api_check`].

use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use url::Url;

use crate::config::{Config, Origin, OriginPattern, Route};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
const SEC_FETCH_DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");
const SEC_FETCH_USER: HeaderName = HeaderName::from_static("sec-fetch-user");

/// `public_url` and `auth.trusted_origins`.
#[derive(Clone, Debug)]
pub struct TrustedOrigins {
    public: Origin,
    patterns: Vec<OriginPattern>,
    /// The domain to whose every host browsers send session cookies (RFC 6265, 5.1.3), if they have one.
    shared: Option<String>,
}

/// What it is worth that a page is of the same origin as the host that it asks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SameOrigin {
    /// The page is ours, or sends no cookie that others have left.
    Ours,
    /// Session cookies come to the host because it is below their domain, and nobody has said that its pages are trusted.
    Theirs,
}

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
    /// For sessions whose cookies stay with one host.
    pub fn new(public: &Origin, patterns: &[OriginPattern]) -> Self {
        Self {
            public: public.clone(),
            patterns: patterns.to_vec(),
            shared: None,
        }
    }

    pub fn of(config: &Config) -> Self {
        Self {
            shared: config.auth.session.cookie.domain.clone(),
            ..Self::new(&config.server.public_url, &config.auth.trusted_origins)
        }
    }

    /// What a page of `host` is to requests for that same host; a name in lower case, without a port.
    pub fn same_origin_at(&self, host: &str) -> SameOrigin {
        let is_theirs = self.shared.as_deref().is_some_and(|domain| {
            let above = host.strip_suffix(domain);
            let gets_cookies = above.is_some_and(|above| above.is_empty() || above.ends_with('.'));
            gets_cookies && !self.trusts_host(host)
        });
        if is_theirs {
            SameOrigin::Theirs
        } else {
            SameOrigin::Ours
        }
    }

    fn trusts_host(&self, host: &str) -> bool {
        let is_exact =
            |pattern: &OriginPattern| matches!(pattern, OriginPattern::Exact(origin) if origin.host() == host);
        host == self.public.host()
            || self.patterns.iter().any(is_exact)
            || ["https", "http"]
                .iter()
                .any(|scheme| matches_any(&self.patterns, &format!("{scheme}://{host}")))
    }

    pub const fn public(&self) -> &Origin {
        &self.public
    }

    /// Whether an `Origin` header's value is one of ours: compared as browsers write it, scheme, host and port.
    pub fn trusts(&self, origin: &str) -> bool {
        origin == self.public.as_str() || matches_any(&self.patterns, origin)
    }

    /// Whether any is trusted besides `public_url`.
    pub const fn knows_others(&self) -> bool {
        !self.patterns.is_empty()
    }

    fn trusts_origin_of(&self, url: &str) -> bool {
        origin_of_url(url).is_some_and(|origin| self.trusts(origin.as_str()))
    }

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

    /// Whether we may send a browser to `target`: a path of the same origin, or a URL of a trusted origin or scheme.
    ///
    /// Browsers read more into a target than it says (they drop tabs, take `\` for `/`, find hosts behind `https:`),
    /// so everything that could be read in two ways is refused.
    pub fn allows_redirect(&self, target: &str) -> bool {
        if target.bytes().any(|byte| byte < b' ' || byte == 0x7f || byte == b'\\') || target.contains(char::is_control)
        {
            return false;
        }
        if target.starts_with('/') {
            return self.allows_path(target);
        }
        if self
            .patterns
            .iter()
            .any(|pattern| matches!(pattern, OriginPattern::Scheme(pattern) if scheme_matches(pattern, target)))
        {
            return true;
        }
        let authority = ["https://", "http://"]
            .into_iter()
            .find_map(|scheme| strip_prefix_ignoring_case(target, scheme));
        let plain = authority.is_some_and(|authority| !authority.starts_with('/'));
        plain
            && Url::parse(target).is_ok_and(|url| {
                url.username().is_empty()
                    && url.password().is_none()
                    && !authority.is_some_and(|rest| rest.split(['/', '?', '#']).next().unwrap_or(rest).contains('@'))
                    && Origin::of(&url).is_some_and(|origin| self.trusts(origin.as_str()))
            })
    }

    fn allows_path(&self, target: &str) -> bool {
        let path = target.split(['?', '#']).next().unwrap_or(target);
        let hides = path.as_bytes().windows(3).any(|escape| match escape {
            [b'%', b'2', b'f' | b'F'] | [b'%', b'5', b'c' | b'C'] | [b'%', b'0' | b'1', _] => true,
            [b'%', b'7', digit] => digit.eq_ignore_ascii_case(&b'f'),
            _ => false,
        });
        if path.starts_with("//") || hides {
            return false;
        }
        Url::parse(self.public.as_str())
            .and_then(|base| base.join(target))
            // What is left of `/..//host` is a path that a client may take for a host.
            .is_ok_and(|url| !url.path().starts_with("//") && Origin::of(&url).as_ref() == Some(&self.public))
    }
}

/// Whether an `Origin` header's value is one that `patterns` mean.
pub(super) fn matches_any(patterns: &[OriginPattern], origin: &str) -> bool {
    patterns.iter().any(|pattern| match pattern {
        OriginPattern::Exact(exact) => origin == exact.as_str(),
        OriginPattern::Wildcard(pattern) => {
            glob(pattern.as_bytes(), origin.as_bytes()) && Origin::parse(origin).is_some_and(|it| it.as_str() == origin)
        }
        OriginPattern::Scheme(pattern) => scheme_matches(pattern, origin),
    })
}

fn origin_of_url(url: &str) -> Option<Origin> {
    Url::parse(url).ok().and_then(|url| Origin::of(&url))
}

/// `target` with `name=value` added to its query, before a fragment; the query that it has stays. A path is left as it
/// is; a URL comes out as browsers write it.
pub fn append_query(target: &str, name: &str, value: &str) -> String {
    let url = (!target.starts_with('/')).then(|| Url::parse(target).ok()).flatten();
    let target = url.as_ref().map_or(target, Url::as_str);
    let (rest, fragment) = match target.split_once('#') {
        Some((rest, fragment)) => (rest, Some(fragment)),
        None => (target, None),
    };
    let mut out = String::with_capacity(target.len() + name.len() + value.len() + 2);
    out.push_str(rest);
    if !rest.contains('?') {
        out.push('?');
    } else if !rest.ends_with(['?', '&']) {
        out.push('&');
    }
    out.extend(url::form_urlencoded::byte_serialize(name.as_bytes()));
    out.push('=');
    out.extend(url::form_urlencoded::byte_serialize(value.as_bytes()));
    if let Some(fragment) = fragment {
        out.push('#');
        out.push_str(fragment);
    }
    out
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

/// Whether `text` is of the scheme in `pattern` (`myapp://`, `myapp://host/path`), and below what follows it.
fn scheme_matches(pattern: &str, text: &str) -> bool {
    let Some((scheme, wanted)) = pattern.split_once("://") else {
        return false;
    };
    let Some(rest) = strip_prefix_ignoring_case(text, scheme).and_then(|rest| rest.strip_prefix("://")) else {
        return false;
    };
    // Web origins have patterns of their own; the others run code or read files.
    if [
        "http",
        "https",
        "javascript",
        "data",
        "vbscript",
        "file",
        "blob",
        "about",
    ]
    .iter()
    .any(|other| other.eq_ignore_ascii_case(scheme))
    {
        return false;
    }
    let Some(after) = rest.strip_prefix(wanted) else {
        return false;
    };
    wanted.is_empty() || wanted.ends_with('/') || after.is_empty() || after.starts_with(['/', '?', '#'])
}

fn strip_prefix_ignoring_case<'t>(text: &'t str, prefix: &str) -> Option<&'t str> {
    let (head, rest) = text.split_at_checked(prefix.len())?;
    head.eq_ignore_ascii_case(prefix).then_some(rest)
}

/// `*` stands for any number of characters that a host name or a port may have, `?` for one; neither for none of `/:@`.
///
/// Going back to the last star only is enough, so the cost is at most the product of the lengths.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    let (mut pattern, mut text) = (pattern, text);
    let mut retry: Option<(&[u8], &[u8])> = None;
    loop {
        match (pattern, text) {
            ([b'*', after @ ..], _) => {
                retry = Some((after, text));
                pattern = after;
                continue;
            }
            ([], []) => return true,
            ([b'?', after @ ..], [byte, rest @ ..]) if fits(*byte) => {
                (pattern, text) = (after, rest);
                continue;
            }
            ([wanted, after @ ..], [byte, rest @ ..]) if wanted == byte => {
                (pattern, text) = (after, rest);
                continue;
            }
            _ => {}
        }
        match retry {
            // The star takes one more character.
            Some((after, [byte, rest @ ..])) if fits(*byte) => {
                retry = Some((after, rest));
                (pattern, text) = (after, rest);
            }
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn trusted() -> TrustedOrigins {
        let exact = |text: &str| OriginPattern::Exact(Origin::parse(text).unwrap());
        TrustedOrigins::new(
            &Origin::parse("https://app.example").unwrap(),
            &[
                exact("https://admin.example:8443"),
                OriginPattern::Wildcard("https://*.example.com".to_owned()),
                OriginPattern::Wildcard("http://localhost:*".to_owned()),
                OriginPattern::Scheme("myapp://".to_owned()),
                OriginPattern::Scheme("other://host/path".to_owned()),
                OriginPattern::Scheme("javascript://".to_owned()),
            ],
        )
    }

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        lines
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()))
            .collect()
    }

    #[test]
    fn origins_are_compared_whole() {
        let trusted = trusted();
        for origin in [
            "https://app.example",
            "https://admin.example:8443",
            "https://x.example.com",
            "https://a.b.example.com",
            "http://localhost:5173",
            "myapp://",
        ] {
            assert!(trusted.trusts(origin), "{origin}");
        }
        for origin in [
            "",
            "null",
            "http://app.example",
            "https://app.example:444",
            "https://app.example/",
            "https://APP.example",
            "https://app.example.evil.example",
            "https://admin.example",
            "https://example.com",
            "https://evilexample.com",
            "https://x.example.com.evil.example",
            "https://evil.example/.example.com",
            "https://evil.example?.example.com",
            "https://user@x.example.com",
            "https://evil.example:80.example.com",
            "http://x.example.com",
            "http://localhost:x",
            "javascript://x",
            "myappx://",
        ] {
            assert!(!trusted.trusts(origin), "{origin}");
        }
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
    fn a_host_of_others_has_pages_of_others() {
        let at = |trusted: &TrustedOrigins, host| trusted.same_origin_at(host);
        let mut trusted = trusted();
        assert_eq!(at(&trusted, "evil.example"), SameOrigin::Ours, "no cookie comes there");
        trusted.shared = Some("example".to_owned());
        for host in [
            "app.example",
            "admin.example",
            "other.test",
            "gateway",
            "127.0.0.1",
            "notexample",
        ] {
            assert_eq!(at(&trusted, host), SameOrigin::Ours, "{host}");
        }
        for host in ["evil.example", "x.app.example", "example"] {
            assert_eq!(at(&trusted, host), SameOrigin::Theirs, "{host}");
        }
        trusted.shared = Some("example.com".to_owned());
        assert_eq!(
            at(&trusted, "any.example.com"),
            SameOrigin::Ours,
            "a wildcard trusts it"
        );
        assert_eq!(at(&trusted, "example.com"), SameOrigin::Theirs);
        let page = headers(&[("sec-fetch-site", "same-origin")]);
        let judged = |same_origin| check(&Method::POST, false, &page, &trusted, &[], same_origin);
        assert_eq!(judged(SameOrigin::Theirs), Err(ForeignOrigin));
        assert_eq!(judged(SameOrigin::Ours), Ok(()));
    }

    #[test]
    fn redirects_stay_with_us() {
        let trusted = trusted();
        for target in [
            "/",
            "/dash",
            "/w?a=1#top",
            "/a?next=%2F%2Fevil",
            "/a?next=https://evil.example",
            "https://app.example",
            "https://app.example/x?y#z",
            "https://x.example.com/y",
            "http://localhost:3000/cb",
            "myapp://callback",
            "other://host/path/below",
            "other://host/path?x",
        ] {
            assert!(trusted.allows_redirect(target), "{target}");
        }
        for target in [
            "",
            "dash",
            "//evil.example",
            "///evil.example",
            "/..//evil.example",
            "/.//evil.example",
            "/x/..//evil.example",
            "/%2e%2e//evil.example",
            "/\\evil.example",
            "\\\\evil.example",
            "/%2fevil.example",
            "/%5Cevil.example",
            "/x/%2F/y",
            "/\t/evil.example",
            "/%09/evil.example",
            "/%0d%0aset-cookie:x",
            "/x\n",
            " /x",
            "https:evil.example",
            "https:/evil.example",
            "https:///evil.example",
            "https:app.example",
            "https://app.example@evil.example",
            "https://evil.example@app.example",
            "https://@app.example/",
            "https://app.example:x@app.example/",
            "http://app.example",
            "https://app.example:444/",
            "http://app.example.evil.example",
            "https://app.example.evil.example",
            "https://evilexample.com",
            "https://example.com.evil.example",
            "https://evil.example/.example.com",
            "javascript:alert(1)",
            "javascript://x/%0aalert(1)",
            "data:text/html,x",
            "other://host/pathological",
            "other://hostile/path",
            "myapp:x",
            "ftp://app.example/",
        ] {
            assert!(!trusted.allows_redirect(target), "{target}");
        }
    }

    #[test]
    fn what_is_added_stands_before_the_fragment() {
        for (target, out) in [
            ("/w?a=1#top", "/w?a=1&error=INVALID_TOKEN#top"),
            ("/w", "/w?error=INVALID_TOKEN"),
            ("/w#t?x", "/w?error=INVALID_TOKEN#t?x"),
            ("/w?", "/w?error=INVALID_TOKEN"),
            ("/w?a&", "/w?a&error=INVALID_TOKEN"),
            ("https://app.example", "https://app.example/?error=INVALID_TOKEN"),
            ("myapp://cb", "myapp://cb?error=INVALID_TOKEN"),
        ] {
            assert_eq!(append_query(target, "error", "INVALID_TOKEN"), out);
        }
        assert_eq!(append_query("/", "e", "a b&c#d"), "/?e=a+b%26c%23d");
    }

    /// The same rule, by trying every split at a star.
    fn slow_glob(pattern: &[u8], text: &[u8]) -> bool {
        let fits = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._".contains(byte);
        match pattern {
            [] => text.is_empty(),
            [b'*', after @ ..] => {
                let most = text.iter().take_while(|byte| fits(byte)).count();
                (0..=most).any(|at| slow_glob(after, &text[at..]))
            }
            [b'?', after @ ..] => text.first().is_some_and(fits) && slow_glob(after, &text[1..]),
            [byte, after @ ..] => text.first() == Some(byte) && slow_glob(after, &text[1..]),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        #[test]
        fn globs_match_as_trying_everything_does(pattern in "[ab.*?/]{0,8}", text in "[ab./]{0,10}") {
            prop_assert_eq!(glob(pattern.as_bytes(), text.as_bytes()), slow_glob(pattern.as_bytes(), text.as_bytes()));
        }

        #[test]
        fn an_allowed_target_resolves_to_a_trusted_origin(target in "(https?:|myapp:)?[/\\\\]{0,3}[a-z.@:%0-9?# \t/\\\\]{0,24}") {
            let trusted = trusted();
            if trusted.allows_redirect(&target) && !target.starts_with("myapp:") {
                let url = Url::parse("https://app.example/auth/sign-in").unwrap().join(&target).unwrap();
                prop_assert!(trusted.trusts(Origin::of(&url).unwrap().as_str()), "{} leads to {}", target, url);
            }
        }
    }
}
