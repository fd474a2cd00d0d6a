//! Path patterns of routes: `/exact`, `/users/{id}/x`, `/a/*`.
//!
//! A request's path is brought to its normal form before it is matched. A pattern that isn't in normal form could
//! never match, and a rule that never matches protects nothing: so it is an error, which says what to write instead.

use percent_encoding::{percent_decode_str, percent_encode_byte};

use super::found::Wrong;

/// `/exact`, `/users/{id}/x`, `/a/*`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PathPattern {
    /// As written in the file.
    pub text: String,
    /// What lies between the slashes; `/t/` has an empty one at its end, `/*` has none.
    pub segments: Vec<Segment>,
    /// Ends in `/*`: the pattern's own path, and all below it at a segment boundary.
    pub wildcard: bool,
}

#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Segment {
    Literal(String),
    Parameter(String),
}

impl PathPattern {
    pub(super) fn parse(text: &str) -> Result<Self, Wrong> {
        let Some(body) = text.strip_prefix('/') else {
            return Err(Wrong::but("paths begin with a slash", format!("/{text}")));
        };
        if text.contains(['?', '#']) {
            return Err("a path has no query and no fragment; routes don't look at either".into());
        }
        let mut parts: Vec<&str> = body.split('/').collect();
        let wildcard = parts.last() == Some(&"*");
        if wildcard {
            parts.pop();
        }
        if let Some(part) = parts.iter().find(|part| part.contains('*')) {
            return Err(Wrong {
                problem: "`*` stands alone in the last segment only; a plain star is written %2A".to_owned(),
                nearest: text
                    .split_once(part)
                    .filter(|_| part.bytes().all(|byte| byte == b'*'))
                    .map(|(before, _)| format!("{before}*")),
            });
        }
        let mut names: Vec<&str> = Vec::new();
        for part in &parts {
            let name = match part.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
                Some(name) => name,
                None if part.contains(['{', '}']) => return Err("a parameter such as `{id}` is a whole segment".into()),
                None => {
                    if let Some(name) = part.strip_prefix(':').filter(|name| is_name(name)) {
                        let braces = text.replacen(part, &format!("{{{name}}}"), 1);
                        return Err(Wrong::but("parameters are written in braces", braces));
                    }
                    continue;
                }
            };
            if !is_name(name) {
                return Err("the name of a parameter is letters, digits and underscores".into());
            }
            if names.contains(&name) {
                return Err(format!("two parameters are called `{name}`").into());
            }
            names.push(name);
        }
        let is_parameter = |part: &str| part.starts_with('{');
        if !is_normal_at_a_glance(&parts, wildcard, is_parameter) {
            let normal = normal_form(&parts, wildcard, is_parameter)?;
            if normal != text {
                return Err(Wrong::but("not in normal form, so no request would match it", normal));
            }
        }
        let segments = parts
            .into_iter()
            .map(
                |part| match part.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
                    Some(name) => Segment::Parameter(name.to_owned()),
                    None => Segment::Literal(part.to_owned()),
                },
            )
            .collect();
        Ok(Self {
            text: text.to_owned(),
            segments,
            wildcard,
        })
    }
}

/// Whether `path`, without patterns, is as it would be matched.
pub(super) fn normal_literal(path: &str) -> Result<(), Wrong> {
    let Some(body) = path.strip_prefix('/') else {
        return Err(Wrong::but("paths begin with a slash", format!("/{path}")));
    };
    let parts: Vec<&str> = body.split('/').collect();
    let normal = normal_form(&parts, false, |_| false)?;
    if normal == path {
        Ok(())
    } else {
        Err(Wrong::but("not in normal form", normal))
    }
}

/// As nearly all patterns are, which a file may have thousands of. May say no to one that is, never yes to another.
fn is_normal_at_a_glance(parts: &[&str], wildcard: bool, is_parameter: impl Fn(&str) -> bool) -> bool {
    let plain = |byte: u8| is_unreserved(byte) || is_plain_delimiter(byte);
    let last = parts.len().saturating_sub(1);
    parts.iter().enumerate().all(|(index, part)| match part.as_bytes() {
        [] => index == last && !wildcard,
        [b'.', ..] => false,
        bytes => is_parameter(part) || bytes.iter().all(|byte| plain(*byte)),
    })
}

/// The path that requests have when `parts` is what they mean.
fn normal_form(parts: &[&str], wildcard: bool, is_parameter: impl Fn(&str) -> bool) -> Result<String, Wrong> {
    let mut kept: Vec<String> = Vec::new();
    let last = parts.len().saturating_sub(1);
    for (index, part) in parts.iter().enumerate() {
        let ends = index == last && !wildcard;
        match *part {
            "" if !ends => {}
            "." | ".." => {
                if *part == ".." && kept.pop().is_none() {
                    return Err("climbs above the root".into());
                }
                if ends {
                    kept.push(String::new());
                }
            }
            part if is_parameter(part) => kept.push(part.to_owned()),
            part => kept.push(normal_segment(part)?),
        }
    }
    if wildcard {
        kept.push("*".to_owned());
    }
    Ok(format!("/{}", kept.join("/")))
}

fn normal_segment(segment: &str) -> Result<String, Wrong> {
    let mut normal = String::with_capacity(segment.len());
    let mut bytes = segment.bytes();
    while let Some(byte) = bytes.next() {
        let (byte, escaped) = if byte == b'%' {
            let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16));
            let (Some(high), Some(low)) = (digit(bytes.next()), digit(bytes.next())) else {
                return Err("a percent sign is followed by two hexadecimal digits; itself it is written %25".into());
            };
            // Two hexadecimal digits make a byte.
            (u8::try_from(high * 16 + low).unwrap_or_default(), true)
        } else {
            (byte, false)
        };
        match byte {
            b'/' | b'\\' | 0..=0x1f | 0x7f => {
                return Err(
                    "slashes in escapes, backslashes and control characters are refused in every request".into(),
                );
            }
            _ if is_unreserved(byte) => normal.push(char::from(byte)),
            _ if is_plain_delimiter(byte) && !escaped => normal.push(char::from(byte)),
            _ => normal.push_str(percent_encode_byte(byte)),
        }
    }
    if percent_decode_str(&normal).decode_utf8().is_err() {
        return Err("escapes that are not UTF-8 are refused in every request".into());
    }
    if normal == "." || normal == ".." || normal.starts_with(".;") || normal.starts_with("..;") {
        return Err("an escaped or parametrised dot segment is refused in every request".into());
    }
    Ok(normal)
}

/// What stands for itself in a segment, and for something else when escaped.
const fn is_plain_delimiter(byte: u8) -> bool {
    matches!(
        byte,
        b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=' | b':' | b'@'
    )
}

const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

fn is_name(text: &str) -> bool {
    let first_fits = text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_');
    first_fits && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_split_into_segments() {
        let literal = |text: &str| Segment::Literal(text.to_owned());
        for (text, segments, wildcard) in [
            ("/", vec![literal("")], false),
            ("/*", vec![], true),
            ("/t", vec![literal("t")], false),
            ("/t/", vec![literal("t"), literal("")], false),
            ("/a/*", vec![literal("a")], true),
            (
                "/users/{id}/x",
                vec![literal("users"), Segment::Parameter("id".to_owned()), literal("x")],
                false,
            ),
            (
                "/caf%C3%A9/@me;v=1",
                vec![literal("caf%C3%A9"), literal("@me;v=1")],
                false,
            ),
        ] {
            let pattern = PathPattern::parse(text).ok().unwrap();
            assert_eq!((pattern.segments, pattern.wildcard), (segments, wildcard), "{text}");
            assert_eq!(pattern.text, text);
        }
    }

    #[test]
    fn a_glance_agrees_with_a_close_look() {
        let is_parameter = |part: &str| part.starts_with('{');
        for part in [
            "a",
            "A-z_0.~",
            "@me;v=1",
            "{id}",
            "",
            ".",
            "..",
            ".a",
            "..;x",
            "%41",
            "caf%C3%A9",
            "é",
            "a b",
        ] {
            for (parts, wildcard) in [
                (vec![part], false),
                (vec![part], true),
                (vec![part, "b"], false),
                (vec!["b", part], false),
                (vec!["b", part], true),
            ] {
                let written = format!("/{}{}", parts.join("/"), if wildcard { "/*" } else { "" });
                if is_normal_at_a_glance(&parts, wildcard, is_parameter) {
                    let normal = normal_form(&parts, wildcard, is_parameter).ok();
                    assert_eq!(normal.as_deref(), Some(written.as_str()));
                }
            }
        }
    }

    #[test]
    fn a_pattern_that_could_never_match_says_what_to_write() {
        for (text, better) in [
            ("api", "/api"),
            ("/a//b", "/a/b"),
            ("/a/./b", "/a/b"),
            ("/a/../b", "/b"),
            ("/a/b/..", "/a/"),
            ("/café", "/caf%C3%A9"),
            ("/caf%c3%a9", "/caf%C3%A9"),
            ("/%61pi/*", "/api/*"),
            ("/a b", "/a%20b"),
            ("/a/**", "/a/*"),
            ("/users/:id", "/users/{id}"),
        ] {
            let wrong = PathPattern::parse(text).err().unwrap();
            assert_eq!(wrong.nearest.as_deref(), Some(better), "{text}: {}", wrong.problem);
            assert!(PathPattern::parse(better).is_ok(), "{better}");
        }
    }

    #[test]
    fn what_can_not_be_meant_is_refused() {
        for text in [
            "",
            "/a*",
            "/*/b",
            "/a{id}",
            "/{a}/{a}",
            "/{}",
            "/{a-b}",
            "/a%2Fb",
            "/a%5Cb",
            "/a\\b",
            "/%00",
            "/%zz",
            "/%",
            "/%ff",
            "/..",
            "/..;x/y",
            "/%2e%2e/x",
            "/a?b",
            "/a#b",
        ] {
            assert!(PathPattern::parse(text).is_err(), "{text}");
        }
    }
}
