//! Where a redirect may lead: to us, or to whom we trust.

use url::Url;

use super::origin::{TrustedOrigins, scheme_matches, strip_prefix_ignoring_case};
use crate::config::{Origin, OriginPattern};

impl TrustedOrigins {
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::policy::origin::testing::trusted;

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

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

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
