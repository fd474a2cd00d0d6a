//! Which origins are ours: for requests that a browser sends with a cookie ([`super::csrf`]), and for where a redirect may
//! lead ([`super::redirect`]).

use url::Url;

use crate::config::{Config, Origin, OriginPattern};

/// `public_url` and `auth.trusted_origins`.
#[derive(Clone, Debug)]
pub struct TrustedOrigins {
    pub(super) public: Origin,
    pub(super) patterns: Vec<OriginPattern>,
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

    pub(super) fn trusts_origin_of(&self, url: &str) -> bool {
        origin_of_url(url).is_some_and(|origin| self.trusts(origin.as_str()))
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

pub(super) fn origin_of_url(url: &str) -> Option<Origin> {
    Url::parse(url).ok().and_then(|url| Origin::of(&url))
}

/// Whether `text` is of the scheme in `pattern` (`myapp://`, `myapp://host/path`), and below what follows it.
pub(super) fn scheme_matches(pattern: &str, text: &str) -> bool {
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

pub(super) fn strip_prefix_ignoring_case<'t>(text: &'t str, prefix: &str) -> Option<&'t str> {
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
pub(super) mod testing {
    use super::*;

    /// What tests trust.
    pub(in crate::policy) fn trusted() -> TrustedOrigins {
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
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{testing::trusted, *};

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
    }
}
