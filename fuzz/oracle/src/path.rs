//! The one form of a path: what is matched, and what is sent.
//!
//! Escapes of unreserved characters are decoded, other escapes written in upper case, empty segments dropped, dot segments
//! resolved (RFC 3986, 6.2.2). Refused is what two programs could read differently.

/// What some routes let pass that others refuse.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Kept {
    /// Encoded slashes.
    pub slashes: bool,
    /// Escapes that are not UTF-8.
    pub bytes: bool,
}

/// A path in its one form.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Normal {
    pub path: Vec<u8>,
    /// What of [`Kept`] was in it, even where it was resolved away.
    pub holds: Kept,
}

/// One character of a path: as it is, or escaped.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Unit {
    Raw(u8),
    Escaped(u8),
}

/// `None`: refused.
pub fn normal(path: &[u8], kept: Kept) -> Option<Normal> {
    let rest = path.strip_prefix(b"/")?;
    let units = units(rest)?;
    let mut holds = Kept::default();
    for unit in &units {
        match unit {
            Unit::Escaped(0..=0x1f | 0x7f | b'\\') => return None,
            Unit::Escaped(b'/') => {
                if !kept.slashes {
                    return None;
                }
                holds.slashes = true;
            }
            Unit::Raw(_) | Unit::Escaped(_) => {}
        }
    }
    if !characters_are_whole(&units) {
        if !kept.bytes || has_overlong(&units) {
            return None;
        }
        holds.bytes = true;
    }

    let mut segments: Vec<Vec<u8>> = Vec::new();
    let pieces: Vec<Vec<u8>> = units.split(|unit| *unit == Unit::Raw(b'/')).map(written).collect();
    let mut ends_with_slash = true;
    for piece in &pieces {
        ends_with_slash = true;
        match piece.as_slice() {
            b"" | b"." => {}
            b".." => {
                segments.pop()?;
            }
            other if is_dots_with_parameter(other) => return None,
            other => {
                segments.push(other.to_vec());
                ends_with_slash = false;
            }
        }
    }
    // To a program that takes an encoded slash for a slash, what it encloses is a segment.
    for segment in &segments {
        let text = String::from_utf8_lossy(segment);
        let inner: Vec<&str> = text.split("%2F").collect();
        if inner.len() > 1
            && inner
                .iter()
                .any(|part| matches!(*part, "." | "..") || is_dots_with_parameter(part.as_bytes()))
        {
            return None;
        }
    }

    let mut path = Vec::new();
    for segment in &segments {
        path.push(b'/');
        path.extend_from_slice(segment);
    }
    if segments.is_empty() || ends_with_slash {
        path.push(b'/');
    }
    Some(Normal { path, holds })
}

/// The same with encoded slashes taken for slashes, as some upstreams do.
pub fn with_slashes_read(normal: &Normal) -> Option<Normal> {
    let text = String::from_utf8_lossy(&normal.path).replace("%2F", "/");
    let kept = Kept {
        slashes: false,
        bytes: normal.holds.bytes,
    };
    self::normal(text.as_bytes(), kept)
}

/// Whether a segment has a parameter (RFC 3986, 3.3), as it is or escaped.
pub fn has_parameters(normal: &Normal) -> bool {
    let text = String::from_utf8_lossy(&normal.path);
    text.contains(';') || text.contains("%3B")
}

/// The same without the parameters of its segments, as servlet containers route.
pub fn without_parameters(normal: &Normal) -> Option<Normal> {
    let text = String::from_utf8_lossy(&normal.path).replace("%3B", ";");
    let segments = text[1..]
        .split('/')
        .map(|segment| segment.split(';').next().unwrap_or(""));
    let plain: String = segments.map(|segment| format!("/{segment}")).collect();
    self::normal(plain.as_bytes(), normal.holds)
}

/// Whether a path is `base`, or below it.
pub fn is_below(path: &[u8], base: &str) -> bool {
    path == base.as_bytes() || path.starts_with(format!("{base}/").as_bytes())
}

/// The path without its first `strip` segments, behind `add`.
pub fn rewritten(path: &[u8], strip: usize, add: &[u8]) -> Vec<u8> {
    let segments: Vec<&[u8]> = path[1..].split(|byte| *byte == b'/').collect();
    let mut out = add.to_vec();
    for segment in segments.iter().skip(strip) {
        out.push(b'/');
        out.extend_from_slice(segment);
    }
    if out.is_empty() {
        out.push(b'/');
    }
    out
}

/// The segments of a path as a program sees them that decodes before it routes.
pub fn decoded_segments(path: &[u8]) -> Vec<Vec<u8>> {
    path[1..].split(|byte| *byte == b'/').map(decoded).collect()
}

fn decoded(segment: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut at = 0;
    while at < segment.len() {
        if segment[at] == b'%'
            && let Some(byte) = segment.get(at + 1..at + 3).and_then(hex)
        {
            out.push(byte);
            at += 3;
        } else {
            out.push(segment[at]);
            at += 1;
        }
    }
    out
}

/// `None`: a byte that paths don't have, or a percent sign without two digits.
fn units(path: &[u8]) -> Option<Vec<Unit>> {
    let mut units = Vec::new();
    let mut at = 0;
    while at < path.len() {
        let byte = path[at];
        if byte == b'%' {
            units.push(Unit::Escaped(hex(path.get(at + 1..at + 3)?)?));
            at += 3;
            continue;
        }
        // RFC 3986, 3.3, and what browsers send besides.
        let legal = byte.is_ascii_alphanumeric() || b"/-._~!$&'()*+,;=:@{}[]|^".contains(&byte);
        if !legal {
            return None;
        }
        units.push(Unit::Raw(byte));
        at += 1;
    }
    Some(units)
}

fn hex(digits: &[u8]) -> Option<u8> {
    if digits.len() != 2 || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// Stretches of escaped bytes beyond ASCII.
fn stretches(units: &[Unit]) -> Vec<Vec<u8>> {
    let mut all = vec![Vec::new()];
    for unit in units {
        match unit {
            Unit::Escaped(byte) if *byte >= 0x80 => all.last_mut().expect("never empty").push(*byte),
            _ => all.push(Vec::new()),
        }
    }
    all
}

fn characters_are_whole(units: &[Unit]) -> bool {
    stretches(units).iter().all(|bytes| std::str::from_utf8(bytes).is_ok())
}

/// Whether there is a character in more bytes than it needs.
fn has_overlong(units: &[Unit]) -> bool {
    stretches(units).iter().any(|bytes| {
        let mut rest = bytes.as_slice();
        while let Some(first) = rest.first() {
            // A whole character hides what it is made of.
            let whole = (1..=4.min(rest.len())).find(|length| std::str::from_utf8(&rest[..*length]).is_ok());
            if let Some(length) = whole {
                rest = &rest[length..];
                continue;
            }
            let next = rest.get(1).copied().unwrap_or_default();
            let overlong = match first {
                0xc0 | 0xc1 => (0x80..=0xbf).contains(&next),
                0xe0 => (0x80..=0x9f).contains(&next),
                0xf0 => (0x80..=0x8f).contains(&next),
                // What was UTF-8 once, in five and six bytes.
                0xf8 => (0x80..=0x87).contains(&next),
                0xfc => (0x80..=0x83).contains(&next),
                _ => false,
            };
            if overlong {
                return true;
            }
            rest = &rest[1..];
        }
        false
    })
}

fn written(units: &[Unit]) -> Vec<u8> {
    let mut out = Vec::new();
    for unit in units {
        match unit {
            Unit::Raw(byte) => out.push(*byte),
            Unit::Escaped(byte) if byte.is_ascii_alphanumeric() || b"-._~".contains(byte) => out.push(*byte),
            Unit::Escaped(byte) => out.extend_from_slice(format!("%{byte:02X}").as_bytes()),
        }
    }
    out
}

fn is_dots_with_parameter(segment: &[u8]) -> bool {
    ["..;", "..%3B", ".;", ".%3B"]
        .iter()
        .any(|begin| segment.starts_with(begin.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(path: &str) -> Option<String> {
        let normal = normal(path.as_bytes(), Kept::default())?;
        Some(String::from_utf8(normal.path).expect("text"))
    }

    #[test]
    fn paths_are_brought_to_one_form_or_refused() {
        for (path, normal) in [
            ("/", Some("/")),
            ("/a//b/./c/../d", Some("/a/b/d")),
            ("/%61%2e%2E/x%3a", Some("/a../x%3A")),
            ("/a/..", Some("/")),
            ("/a/b/.", Some("/a/b/")),
            ("/a/%2e%2e/b", Some("/b")),
            ("/%C3%A9", Some("/%C3%A9")),
            ("/..", None),
            ("/a/..;/b", None),
            ("/a%2fb", None),
            ("/a%5cb", None),
            ("/%C0%AF", None),
            ("/%00", None),
            ("/%zz", None),
            ("/a b", None),
            ("a", None),
        ] {
            assert_eq!(of(path).as_deref(), normal, "{path}");
        }
    }

    #[test]
    fn what_is_kept_is_told() {
        let all = Kept {
            slashes: true,
            bytes: true,
        };
        let holds = |path: &str| normal(path.as_bytes(), all).map(|normal| (normal.holds.slashes, normal.holds.bytes));
        assert_eq!(holds("/a%2fb"), Some((true, false)));
        assert_eq!(holds("/a%E9"), Some((false, true)));
        assert_eq!(holds("/a%2f..%2fb"), None);
        assert_eq!(holds("/%C0%AE"), None);
        assert_eq!(holds("/%FC%80%80%80%80%AE"), None);
    }
}
