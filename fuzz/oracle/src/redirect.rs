//! Where a browser ends that is sent to a target, as the URL standard has it (WHATWG URL, "basic URL parser"), as far as
//! that decides about the origin.

use crate::path;

#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Lands {
    /// `scheme://host`, with its port if that is not the usual one.
    Origin(String),
    /// An application that has this scheme.
    App(String),
    Nowhere,
    /// At a host that only Unicode's tables could tell.
    Unclear,
}

/// From a page at `base`, an origin.
pub fn lands(target: &str, base: &str) -> Lands {
    // Around it, control characters and blanks are dropped; tabs and line ends everywhere.
    let target = target.trim_matches(|c: char| c <= ' ');
    let target: String = target.chars().filter(|c| !matches!(c, '\t' | '\n' | '\r')).collect();
    let scheme = target.split(':').next().filter(|scheme| {
        target.contains(':')
            && scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
    });
    match scheme.map(str::to_ascii_lowercase) {
        Some(scheme) if is_web(&scheme) => {
            // However many slashes, of either kind: but none at all, for the base's own scheme, is a path.
            let rest = &target[scheme.len() + 1..];
            let slashes = rest.chars().take_while(|c| is_slash(*c)).count();
            if slashes < 2 && base.starts_with(&format!("{scheme}:")) {
                return Lands::Origin(base.to_owned());
            }
            authority(&scheme, &rest[slashes..])
        }
        Some(scheme) => Lands::App(scheme),
        None => {
            let slashes = target.chars().take_while(|c| is_slash(*c)).count();
            if slashes >= 2 {
                let scheme = base.split(':').next().unwrap_or_default();
                authority(scheme, &target[slashes..])
            } else {
                Lands::Origin(base.to_owned())
            }
        }
    }
}

fn is_web(scheme: &str) -> bool {
    matches!(scheme, "http" | "https" | "ws" | "wss" | "ftp")
}

fn is_slash(c: char) -> bool {
    c == '/' || c == '\\'
}

fn authority(scheme: &str, rest: &str) -> Lands {
    let end = rest
        .find(|c: char| is_slash(c) || matches!(c, '?' | '#'))
        .unwrap_or(rest.len());
    let authority = &rest[..end];
    let host = authority.rsplit('@').next().unwrap_or_default();
    let host = decoded(host).to_ascii_lowercase();
    if !host.is_ascii() {
        return Lands::Unclear;
    }
    if host.is_empty() || !host.chars().all(|c| c.is_ascii_alphanumeric() || "-._:[]".contains(c)) {
        return Lands::Nowhere;
    }
    let usual = if scheme == "https" { ":443" } else { ":80" };
    let host = host.strip_suffix(usual).unwrap_or(&host);
    let host = host.strip_suffix(':').unwrap_or(host);
    Lands::Origin(format!("{scheme}://{host}"))
}

/// A host's percent-encoded bytes are what they stand for.
fn decoded(host: &str) -> String {
    let bytes = path::decoded_segments(format!("/{host}").as_bytes()).concat();
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn browsers_find_hosts_where_nobody_looks_for_them() {
        for (target, origin) in [
            ("/x", "https://app.example"),
            ("x", "https://app.example"),
            ("//evil.example", "https://evil.example"),
            ("/\\evil.example", "https://evil.example"),
            ("\\/evil.example", "https://evil.example"),
            ("/\t/evil.example", "https://evil.example"),
            ("https:evil.example", "https://app.example"),
            ("http:evil.example", "http://evil.example"),
            ("https:///evil.example", "https://evil.example"),
            ("https://app.example@evil.example/x", "https://evil.example"),
            ("https://evil.example\\@app.example", "https://evil.example"),
            ("HTTPS://App.Example:443?x", "https://app.example"),
        ] {
            assert_eq!(
                lands(target, "https://app.example"),
                Lands::Origin(origin.to_owned()),
                "{target:?}"
            );
        }
        assert_eq!(
            lands("javascript:alert(1)", "https://app.example"),
            Lands::App("javascript".to_owned())
        );
    }
}
