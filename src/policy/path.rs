//! The one path that is matched *and* sent.
//!
//! Escaped unreserved characters are decoded, other escapes written in upper case, repeated slashes made one, dot
//! segments resolved. What could be read in two ways is refused: encoded slashes, backslashes, control bytes, escapes
//! that are not valid UTF-8, a dot segment with a path parameter (`..;x`), a `..` above the root.
//!
//! Some routes keep encoded slashes or bytes that are not UTF-8. Which route it is, is only known once there is a path to
//! match, so such a path says that it is one ([`NormalPath::odd`]), and `policy::routes` refuses it unless its route keeps
//! it. Only [`NormalPath::keeping`] lets it through at all. An encoded slash stays what it is: it ends no segment,
//! and what it encloses may not be a dot segment to whoever decodes it. Overlong forms of UTF-8 are refused even so.
//!
//! Invariant: parsing what [`NormalPath::target`] gives changes nothing. No segment of it is `.` or `..`, only the
//! last may be empty.
//!
//! Ordinary requests are normal already: one scan says so, and their target is kept as it came, without a copy.
//! Bytes that RFC 3986 wants escaped but
//! clients send raw in paths (`{}[]|^`) pass as they are. The
//! query is never looked at, and forwarded byte for byte.

use bytes::Bytes;
use http::uri::PathAndQuery;

use crate::config::Kept;

/// A request target whose path can be judged by its bytes.
#[derive(Clone, Eq, PartialEq)]
pub struct NormalPath {
    target: PathAndQuery,
    unchanged: bool,
    /// What it holds that only some routes keep.
    odd: Kept,
}

/// Without the query, in which people put secrets.
impl std::fmt::Debug for NormalPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "NormalPath({})", self.target.path())
    }
}

/// Why a path is refused. Always the client's fault: 400.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum PathError {
    #[error("the request target is not a path")]
    NotAbsolute,
    #[error("the path has a byte that must be escaped")]
    IllegalByte,
    #[error("the path has a fragment")]
    Fragment,
    #[error("the path has a control byte")]
    Control,
    #[error("the path has a backslash")]
    Backslash,
    #[error("the path has an encoded slash")]
    EncodedSlash,
    #[error("the path has a percent sign without two hexadecimal digits")]
    BadEscape,
    #[error("the path has escapes that are not UTF-8")]
    NotUtf8,
    #[error("the path has a dot segment with a parameter")]
    DotWithParameter,
    #[error("the path climbs above the root")]
    AboveRoot,
    #[error("the request target is too long")]
    TooLong,
}

impl NormalPath {
    /// From a request target in origin form, `/path` or `/path?query`.
    pub fn parse(target: &str) -> Result<Self, PathError> {
        Self::parse_keeping(target, Kept::default())
    }

    /// As [`NormalPath::keeping`], from a text.
    pub fn parse_keeping(target: &str, kept: Kept) -> Result<Self, PathError> {
        let path = target.split_once('?').map_or(target, |(path, _)| path);
        // `PathAndQuery` would cut a fragment off silently, so every byte of the path is judged before it is made.
        let normal = normalised(path.as_bytes(), kept)?;
        if target.len() > path.len() && target.contains('#') {
            return Err(PathError::Fragment);
        }
        match normal {
            Normal::Already { odd } => PathAndQuery::try_from(target)
                .map(|target| Self {
                    target,
                    unchanged: true,
                    odd,
                })
                .map_err(|_| refused(target.len())),
            Normal::Made { path, odd } => joined(path, target.split_once('?').map(|(_, query)| query), odd),
        }
    }

    /// From the target of a parsed request; a normal one is kept, not copied.
    ///
    /// `PathAndQuery` has lost a raw `#` and what followed it: that must be refused where the bytes are still whole.
    pub fn from_target(target: PathAndQuery) -> Result<Self, PathError> {
        Self::keeping(target, Kept::default())
    }

    /// As [`NormalPath::from_target`], for a path that may come to a route that keeps what others refuse: `kept` is what
    /// any route keeps, and what of it is there, [`NormalPath::odd`] says.
    pub fn keeping(target: PathAndQuery, kept: Kept) -> Result<Self, PathError> {
        match normalised(target.path().as_bytes(), kept)? {
            // `http://host?query` has an empty path, which `path()` shows as `/`.
            Normal::Already { odd } if target.as_str().starts_with('/') => Ok(Self {
                target,
                unchanged: true,
                odd,
            }),
            Normal::Already { odd } => joined(b"/".to_vec(), target.query(), odd),
            Normal::Made { path, odd } => joined(path, target.query(), odd),
        }
    }

    /// The path without its first `strip` segments, behind `add` (empty, or normal and without a slash at its end). The
    /// query stays as it is.
    ///
    /// What is left of a normal path is normal, and begins with one slash: no prefix can make `//host` of it.
    pub fn rewritten(&self, strip: usize, add: &str) -> Result<Self, PathError> {
        let path = self.as_str();
        // The slash before the first segment that stays.
        let rest = match path.match_indices('/').nth(strip) {
            Some((at, _)) => path.get(at..).unwrap_or_default(),
            None => "",
        };
        let mut rewritten = Vec::with_capacity(add.len() + self.target.as_str().len() + 1);
        rewritten.extend_from_slice(add.as_bytes());
        rewritten.extend_from_slice(rest.as_bytes());
        if rewritten.is_empty() {
            rewritten.push(b'/');
        }
        joined(rewritten, self.query(), self.odd)
    }

    /// The path as an upstream has it that takes encoded slashes for slashes; `None` if there are none.
    pub fn with_slashes_read(&self) -> Option<Result<Self, PathError>> {
        self.odd.slashes.then(|| {
            let kept = Kept {
                slashes: false,
                ..self.odd
            };
            Self::parse_keeping(&self.as_str().replace("%2F", "/"), kept)
        })
    }

    /// Whether any route may have this path.
    pub const fn is_ordinary(&self) -> bool {
        !self.odd.slashes && !self.odd.bytes
    }

    /// Why a route that keeps no more than `kept` must not have this path.
    pub const fn unfit_for(&self, kept: Kept) -> Option<PathError> {
        if self.odd.slashes && !kept.slashes {
            return Some(PathError::EncodedSlash);
        }
        if self.odd.bytes && !kept.bytes {
            return Some(PathError::NotUtf8);
        }
        None
    }

    pub fn as_str(&self) -> &str {
        self.target.path()
    }

    /// Path and query as they leave for the upstream.
    pub fn target(&self) -> &PathAndQuery {
        &self.target
    }

    pub fn into_target(self) -> PathAndQuery {
        self.target
    }

    /// The bytes after the first `?`, if there is one.
    pub fn query(&self) -> Option<&str> {
        self.target.query()
    }

    /// Whether the path is what the client sent, byte for byte.
    pub const fn is_unchanged(&self) -> bool {
        self.unchanged
    }

    /// What lies between the slashes: `/a/b` has `a`, `b`; `/a/` has `a` and an empty one; `/` has one, empty.
    pub fn segments(&self) -> impl Iterator<Item = &str> {
        let path = self.as_str();
        path.strip_prefix('/').unwrap_or(path).split('/')
    }

    /// What follows `base` (`/api/auth`) at a segment boundary: empty, or a path of its own.
    pub fn below(&self, base: &str) -> Option<&str> {
        let rest = self.as_str().strip_prefix(base)?;
        (rest.is_empty() || rest.starts_with('/')).then_some(rest)
    }
}

fn joined(path: Vec<u8>, query: Option<&str>, odd: Kept) -> Result<NormalPath, PathError> {
    let mut target = path;
    if let Some(query) = query {
        target.push(b'?');
        target.extend_from_slice(query.as_bytes());
    }
    let len = target.len();
    PathAndQuery::from_maybe_shared(Bytes::from(target))
        .map(|target| NormalPath {
            target,
            unchanged: false,
            odd,
        })
        .map_err(|_| refused(len))
}

/// Why `PathAndQuery` refuses: our rules for paths are narrower than its own, so that leaves length and query.
fn refused(len: usize) -> PathError {
    if len >= usize::from(u16::MAX) {
        PathError::TooLong
    } else {
        PathError::IllegalByte
    }
}

enum Normal {
    Already { odd: Kept },
    Made { path: Vec<u8>, odd: Kept },
}

fn normalised(path: &[u8], kept: Kept) -> Result<Normal, PathError> {
    if is_normal(path) {
        return Ok(Normal::Already { odd: Kept::default() });
    }
    let (normal, odd) = rebuilt(path, kept)?;
    Ok(if normal == path {
        Normal::Already { odd }
    } else {
        Normal::Made { path: normal, odd }
    })
}

/// One scan without writing. May say no to a normal path (then [`rebuilt`] looks closer), never yes to another, and always
/// no to what only some routes keep.
fn is_normal(path: &[u8]) -> bool {
    if path.first() != Some(&b'/') {
        return false;
    }
    let mut rest = path;
    while let [byte, after @ ..] = rest {
        rest = after;
        match class(*byte) {
            Class::Plain => {}
            Class::Slash => {
                if let [b'/', ..] | [b'.'] | [b'.', b'/' | b'.' | b';' | b'%', ..] = after {
                    return false;
                }
            }
            Class::Percent => match escaped(after) {
                Ok(Escaped { byte, upper_case, .. }) if upper_case && !is_unreserved(byte) => {
                    if byte < 0x80 {
                        rest = after.get(2..).unwrap_or_default();
                    } else {
                        match character(after) {
                            Ok(Character { len, upper_case: true }) => rest = after.get(len..).unwrap_or_default(),
                            _ => return false,
                        }
                    }
                }
                _ => return false,
            },
            Class::Fragment | Class::Control | Class::Backslash | Class::Illegal => return false,
        }
    }
    true
}

/// The path in its normal form and what it holds of `kept`, or why it has none.
fn rebuilt(path: &[u8], kept: Kept) -> Result<(Vec<u8>, Kept), PathError> {
    let Some(mut rest) = path.strip_prefix(b"/") else {
        return Err(PathError::NotAbsolute);
    };
    let mut out = Vec::with_capacity(path.len());
    out.push(b'/');
    let mut segment = out.len();
    let mut odd = Kept::default();
    while let [byte, after @ ..] = rest {
        rest = after;
        match class(*byte) {
            Class::Plain => out.push(*byte),
            Class::Slash => {
                if end_segment(&mut out, segment)? {
                    out.push(b'/');
                }
                segment = out.len();
            }
            Class::Percent => {
                let (byte, len) = match escaped(after) {
                    Ok(Escaped { byte, .. }) if byte < 0x80 => (byte, 2),
                    Ok(Escaped { byte, .. }) => match character(after) {
                        Ok(character) => (byte, character.len),
                        Err(PathError::NotUtf8) if kept.bytes && !is_overlong(after) => {
                            odd.bytes = true;
                            (byte, 2)
                        }
                        Err(error) => return Err(error),
                    },
                    Err(PathError::EncodedSlash) if kept.slashes => {
                        odd.slashes = true;
                        (b'/', 2)
                    }
                    Err(error) => return Err(error),
                };
                if is_unreserved(byte) {
                    out.push(byte);
                } else {
                    out.push(b'%');
                    out.extend(after.iter().take(len).map(u8::to_ascii_uppercase));
                }
                rest = after.get(len..).unwrap_or_default();
            }
            Class::Fragment => return Err(PathError::Fragment),
            Class::Control => return Err(PathError::Control),
            Class::Backslash => return Err(PathError::Backslash),
            Class::Illegal => return Err(PathError::IllegalByte),
        }
    }
    end_segment(&mut out, segment)?;
    if odd.slashes {
        refuse_enclosed_dots(&out)?;
    }
    Ok((out, odd))
}

/// Encoded slashes may not make a dot segment of what they enclose: an upstream that decodes them would climb.
fn refuse_enclosed_dots(path: &[u8]) -> Result<(), PathError> {
    for segment in path.split(|byte| *byte == b'/') {
        let mut rest = segment;
        loop {
            let end = rest.windows(3).position(|three| three == b"%2F");
            let part = end.and_then(|end| rest.get(..end)).unwrap_or(rest);
            let dots = part.strip_prefix(b"..").or_else(|| part.strip_prefix(b"."));
            if dots.is_some_and(|behind| behind.is_empty() || has_parameter(behind)) {
                return Err(PathError::EncodedSlash);
            }
            match end.and_then(|end| rest.get(end + 3..)) {
                Some(behind) => rest = behind,
                None => break,
            }
        }
    }
    Ok(())
}

/// Whether the escapes begin with a character in more bytes than it needs: lenient decoders would make a slash or a dot of
/// some. Without such a continuation the same bytes are ordinary letters of other character sets.
fn is_overlong(escapes: &[u8]) -> bool {
    let first = pair(escapes).map(|first| first.byte);
    let next = escapes.get(2..).and_then(|rest| rest.strip_prefix(b"%")).and_then(pair);
    matches!(
        (first, next.map(|next| next.byte)),
        (Some(0xc0 | 0xc1), Some(0x80..=0xbf)) | (Some(0xe0), Some(0x80..=0x9f)) | (Some(0xf0), Some(0x80..=0x8f))
    )
}

/// Judges the segment that begins at `start`, takes dot segments out, and says whether one is left.
fn end_segment(out: &mut Vec<u8>, start: usize) -> Result<bool, PathError> {
    let segment = out.get(start..).unwrap_or_default();
    match segment {
        [] => return Ok(false),
        [b'.'] => out.truncate(start),
        [b'.', b'.'] => {
            let above = start
                .checked_sub(1)
                .filter(|above| *above > 0)
                .ok_or(PathError::AboveRoot)?;
            out.truncate(above);
            let parent = out.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
            out.truncate(parent);
        }
        [b'.', rest @ ..] if has_parameter(rest) || rest.strip_prefix(b".").is_some_and(has_parameter) => {
            return Err(PathError::DotWithParameter);
        }
        _ => return Ok(true),
    }
    Ok(false)
}

fn has_parameter(rest: &[u8]) -> bool {
    rest.starts_with(b";") || rest.starts_with(b"%3B")
}

#[derive(Clone, Copy)]
enum Class {
    Plain,
    Slash,
    Percent,
    Fragment,
    Control,
    Backslash,
    Illegal,
}

const fn class(byte: u8) -> Class {
    match byte {
        b'a'..=b'z'
        | b'A'..=b'Z'
        | b'0'..=b'9'
        | b'-'
        | b'.'
        | b'_'
        | b'~'
        | b'!'
        | b'$'
        | b'&'
        | b'\''
        | b'('
        | b')'
        | b'*'
        | b'+'
        | b','
        | b';'
        | b'='
        | b':'
        | b'@'
        | b'{'
        | b'}'
        | b'['
        | b']'
        | b'|'
        | b'^' => Class::Plain,
        b'/' => Class::Slash,
        b'%' => Class::Percent,
        b'#' => Class::Fragment,
        b'\\' => Class::Backslash,
        0..=0x1f | 0x7f => Class::Control,
        _ => Class::Illegal,
    }
}

const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

struct Escaped {
    byte: u8,
    upper_case: bool,
}

/// The byte that the two digits at the start of `digits` stand for, if it may be in a path.
fn escaped(digits: &[u8]) -> Result<Escaped, PathError> {
    let escaped = pair(digits).ok_or(PathError::BadEscape)?;
    match escaped.byte {
        b'/' => Err(PathError::EncodedSlash),
        b'\\' => Err(PathError::Backslash),
        0..=0x1f | 0x7f => Err(PathError::Control),
        _ => Ok(escaped),
    }
}

fn pair(digits: &[u8]) -> Option<Escaped> {
    let [high, low, ..] = digits else { return None };
    Some(Escaped {
        byte: hex(*high)? << 4 | hex(*low)?,
        upper_case: !high.is_ascii_lowercase() && !low.is_ascii_lowercase(),
    })
}

const fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

struct Character {
    /// Of its escapes, without the first percent sign.
    len: usize,
    upper_case: bool,
}

/// A character beyond ASCII, all of whose bytes must be escaped: `E2%82%AC`.
fn character(escapes: &[u8]) -> Result<Character, PathError> {
    let mut bytes = [0; 4];
    let first = pair(escapes).ok_or(PathError::BadEscape)?;
    let width = match first.byte {
        0xc2..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xf4 => 4,
        _ => return Err(PathError::NotUtf8),
    };
    let mut upper_case = true;
    let mut rest = escapes;
    for (at, byte) in bytes.iter_mut().take(width).enumerate() {
        if at > 0 {
            rest = rest
                .get(2..)
                .and_then(|rest| rest.strip_prefix(b"%"))
                .ok_or(PathError::NotUtf8)?;
        }
        let next = pair(rest).ok_or(PathError::BadEscape)?;
        *byte = next.byte;
        upper_case &= next.upper_case;
    }
    // Overlong forms, surrogates and continuations that are none are the library's to find.
    std::str::from_utf8(bytes.get(..width).unwrap_or_default()).map_err(|_| PathError::NotUtf8)?;
    Ok(Character {
        len: 3 * width - 1,
        upper_case,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn path(raw: &str) -> Result<String, PathError> {
        NormalPath::parse(raw).map(|path| path.as_str().to_owned())
    }

    #[test]
    fn ordinary_paths_stay_as_they_are() {
        for raw in [
            "/",
            "/api/items",
            "/api/items/",
            "/.well-known/openid-configuration",
            "/a.b/..c/.d/e../f.",
            "/{id}/[x]/a|b/^",
            "/it's/~ada/@me/a+b/a=b,c;d:e!$&()*",
            "/a%20b/%2B/%25/%23/%3F/%7B%7D",
            "/caf%C3%A9/%E2%82%AC/%F0%9F%98%80",
            "/...;x/a;v=1",
        ] {
            let parsed = NormalPath::parse(raw).unwrap();
            assert!(parsed.is_unchanged(), "{raw} became {parsed:?}");
            assert_eq!(parsed.as_str(), raw);
        }
    }

    #[test]
    fn other_spellings_become_the_normal_one() {
        for (raw, normal) in [
            ("/%61dmin/x", "/admin/x"),
            ("/public/../admin/x", "/admin/x"),
            ("/public/%2e%2e/admin", "/admin"),
            ("/public/.%2e/admin", "/admin"),
            ("/public/%2E./admin", "/admin"),
            ("/a//b///c", "/a/b/c"),
            ("//evil.example/x", "/evil.example/x"),
            ("/a/./b/.", "/a/b/"),
            ("/a/b/..", "/a/"),
            ("/a/..", "/"),
            ("/a//../b", "/b"),
            ("/.", "/"),
            ("/./", "/"),
            ("/%e2%82%ac", "/%E2%82%AC"),
            ("/%7euser", "/~user"),
            ("/x%3a", "/x%3A"),
            // Decoded once only.
            ("/%252e%252e/x%2d", "/%252e%252e/x-"),
        ] {
            assert_eq!(path(raw).as_deref(), Ok(normal), "{raw}");
        }
    }

    #[test]
    fn what_reads_in_two_ways_is_refused() {
        for (raw, error) in [
            ("", PathError::NotAbsolute),
            ("*", PathError::NotAbsolute),
            ("admin", PathError::NotAbsolute),
            ("/..", PathError::AboveRoot),
            ("/a/../../b", PathError::AboveRoot),
            ("/%2e%2e/etc", PathError::AboveRoot),
            ("//..", PathError::AboveRoot),
            ("/public/..%2fadmin", PathError::EncodedSlash),
            ("/public%2F..%2Fadmin", PathError::EncodedSlash),
            ("/public/..%5cadmin", PathError::Backslash),
            ("/public\\admin", PathError::Backslash),
            ("/public/..;/admin", PathError::DotWithParameter),
            ("/public/..;x=1/admin", PathError::DotWithParameter),
            ("/public/..%3b/admin", PathError::DotWithParameter),
            ("/public/.;/admin", PathError::DotWithParameter),
            ("/public/%2e%2E%3Bx", PathError::DotWithParameter),
            ("/admin/x%00.png", PathError::Control),
            ("/public/%0d%0a", PathError::Control),
            ("/x%7F", PathError::Control),
            ("/a\tb", PathError::Control),
            ("/api/%zz", PathError::BadEscape),
            ("/api/%", PathError::BadEscape),
            ("/api/%2", PathError::BadEscape),
            ("/api/%+1", PathError::BadEscape),
            ("/%C0%AF", PathError::NotUtf8),
            ("/%E0%80%AF", PathError::NotUtf8),
            ("/%ED%A0%80", PathError::NotUtf8),
            ("/%80", PathError::NotUtf8),
            ("/%FF", PathError::NotUtf8),
            ("/%E2%82x", PathError::NotUtf8),
            ("/%E2%82", PathError::NotUtf8),
            ("/%C3a%A9", PathError::NotUtf8),
            ("/%C3%A", PathError::BadEscape),
            ("/admin#/public", PathError::Fragment),
            ("/public#/../admin", PathError::Fragment),
            ("/x?y#z", PathError::Fragment),
            ("/a b", PathError::IllegalByte),
            ("/\"x\"", PathError::IllegalByte),
            ("/<x>", PathError::IllegalByte),
            ("/`x`", PathError::IllegalByte),
            ("/é", PathError::IllegalByte),
        ] {
            assert_eq!(path(raw), Err(error), "{raw}");
        }
    }

    #[test]
    fn an_encoded_number_sign_is_an_ordinary_byte() {
        assert_eq!(path("/admin%23/public").as_deref(), Ok("/admin%23/public"));
    }

    #[test]
    fn the_query_is_forwarded_and_never_judged() {
        for (raw, target) in [
            ("/admin/x?next=/public/../%2e//", "/admin/x?next=/public/../%2e//"),
            ("/admin/x?/public/", "/admin/x?/public/"),
            ("/a/../b?%zz&\\", "/b?%zz&\\"),
            ("/a//b?", "/a/b?"),
            ("/a?b?c", "/a?b?c"),
        ] {
            let parsed = NormalPath::parse(raw).unwrap();
            assert_eq!(parsed.target().as_str(), target);
            assert!(!parsed.as_str().contains('?'));
        }
        let long = format!("/a?{}", "q".repeat(8192));
        assert_eq!(NormalPath::parse(&long).unwrap().target().as_str(), long);
    }

    #[test]
    fn an_absolute_target_without_a_path_is_the_root() {
        let uri: http::Uri = "http://example.com?x=1".parse().unwrap();
        let target = uri.into_parts().path_and_query.unwrap();
        assert_eq!(NormalPath::from_target(target).unwrap().target().as_str(), "/?x=1");
    }

    #[test]
    fn a_target_longer_than_uris_can_be_is_refused() {
        assert_eq!(path(&format!("/{}", "a".repeat(70_000))), Err(PathError::TooLong));
    }

    #[test]
    fn a_base_path_ends_at_a_segment_boundary() {
        let below = |raw: &str| NormalPath::parse(raw).unwrap().below("/api/auth").map(str::to_owned);
        assert_eq!(below("/api/auth/ok").as_deref(), Some("/ok"));
        assert_eq!(below("/api/auth").as_deref(), Some(""));
        assert_eq!(below("/api/authx"), None);
        assert_eq!(below("/API/auth/ok"), None);
    }

    #[test]
    fn segments_tell_a_trailing_slash() {
        let segments =
            |raw: &str| -> Vec<String> { NormalPath::parse(raw).unwrap().segments().map(str::to_owned).collect() };
        assert_eq!(segments("/"), [""]);
        assert_eq!(segments("/t"), ["t"]);
        assert_eq!(segments("/t/"), ["t", ""]);
    }

    const EVERYTHING: Kept = Kept {
        slashes: true,
        bytes: true,
    };

    #[test]
    fn what_some_routes_keep_says_that_it_is_there() {
        let slashes = Kept {
            slashes: true,
            bytes: false,
        };
        let bytes = Kept {
            slashes: false,
            bytes: true,
        };
        for (raw, normal, odd) in [
            ("/plain/%C3%A9", "/plain/%C3%A9", Kept::default()),
            ("/group%2fproject/x", "/group%2Fproject/x", slashes),
            ("/proxy/https:%2F%2Fexample.com/../y", "/proxy/y", slashes),
            ("/a%2F...%2Fb", "/a%2F...%2Fb", slashes),
            ("/caf%e9/%80%ff", "/caf%E9/%80%FF", bytes),
            ("/%C0bc", "/%C0bc", bytes),
            ("/%ED%A0%80%2f", "/%ED%A0%80%2F", EVERYTHING),
        ] {
            let parsed = NormalPath::parse_keeping(raw, EVERYTHING).unwrap();
            assert_eq!((parsed.as_str(), parsed.odd), (normal, odd), "{raw}");
            assert_eq!(
                parsed.unfit_for(Kept::default()).is_none(),
                odd == Kept::default(),
                "{raw}"
            );
            assert_eq!(parsed.unfit_for(EVERYTHING), None);
        }
        let slash = NormalPath::parse_keeping("/a%2Fb", slashes).unwrap();
        assert_eq!(slash.unfit_for(bytes), Some(PathError::EncodedSlash));
        assert_eq!(NormalPath::parse_keeping("/%E9", slashes), Err(PathError::NotUtf8));
        assert_eq!(NormalPath::parse_keeping("/a%2Fb", bytes), Err(PathError::EncodedSlash));
    }

    #[test]
    fn keeping_more_never_lets_a_path_climb() {
        for raw in [
            "/public/..%2fadmin",
            "/public%2F..%2Fadmin",
            "/public/%2e%2e%2fadmin",
            "/public/x%2f..",
            "/public/x%2f.%2fy",
            "/public/x%2f..;a%2fy",
            "/public/x%2F..%3by",
            "/public%2F.",
            "/public/%C0%AE%C0%AE/admin",
            "/public/..%C0%AFadmin",
            "/public/%E0%80%AF",
            "/public/%F0%80%80%AF",
            "/public/..%5cadmin",
            "/x%00%2f",
            "/%zz%2f",
        ] {
            assert!(NormalPath::parse_keeping(raw, EVERYTHING).is_err(), "{raw}");
        }
    }

    #[test]
    fn prefixes_come_and_go_at_segment_boundaries() {
        for (raw, strip, add, target) in [
            ("/api/x?q=1&q=%2f", 1, "", "/x?q=1&q=%2f"),
            ("/api", 1, "", "/"),
            ("/api?q", 1, "", "/?q"),
            ("/api/", 1, "", "/"),
            ("/api", 1, "/v2", "/v2"),
            ("/api/", 1, "/v2", "/v2/"),
            ("/api/x/", 1, "/v2/y", "/v2/y/x/"),
            ("/x", 0, "/v2", "/v2/x"),
            ("/", 0, "/v2", "/v2/"),
            ("/a/b/c", 2, "", "/c"),
            ("/%40me/x", 1, "", "/x"),
            ("/api//evil.example/x", 1, "", "/evil.example/x"),
        ] {
            let path = NormalPath::parse(raw).unwrap().rewritten(strip, add).unwrap();
            assert_eq!(path.target().as_str(), target, "{raw}");
        }
        let long = NormalPath::parse(&format!("/{}", "a".repeat(65_000))).unwrap();
        assert_eq!(
            long.rewritten(0, &format!("/{}", "b".repeat(600))),
            Err(PathError::TooLong)
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        #[test]
        fn what_is_left_of_a_normal_path_is_normal(
            raw in "/([a-zA-Z0-9/.;%]|%2[eEfF]|%[0-9a-fA-F]{2}|\\.\\.|/){0,24}(\\?[a-z/.%]{0,8})?",
            strip in 0_usize..4,
            add in prop_oneof![Just(""), Just("/v2"), Just("/v%2B/x")],
        ) {
            if let Ok(parsed) = NormalPath::parse_keeping(&raw, EVERYTHING) {
                let rewritten = parsed.rewritten(strip, add).unwrap();
                prop_assert_eq!(rewritten.query(), parsed.query());
                let again = NormalPath::parse_keeping(rewritten.target().as_str(), EVERYTHING).unwrap();
                prop_assert!(again.is_unchanged(), "{:?} became {:?}", parsed, rewritten);
                prop_assert!(!rewritten.as_str().starts_with("//"));
            }
        }

        #[test]
        fn what_comes_out_is_normal_and_safe(raw in "/([a-zA-Z0-9/.;%#?\\\\]|%2[eEfF]|%[0-9a-fA-F]{2}|\\.\\.|/){0,24}") {
            if let Ok(parsed) = NormalPath::parse(&raw) {
                let out = parsed.as_str();
                let again = NormalPath::parse(parsed.target().as_str()).unwrap();
                prop_assert!(again.is_unchanged());
                prop_assert_eq!(again.target(), parsed.target());
                prop_assert!(out.starts_with('/') && !out.contains("//") && !out.contains(['\\', '#', '?']));
                let lower = out.to_ascii_lowercase();
                prop_assert!(!lower.contains("%2f") && !lower.contains("%5c") && !lower.contains("%2e"));
                for segment in parsed.segments() {
                    prop_assert!(segment != "." && segment != ".." && !segment.starts_with("..;"));
                }
                let decoded = percent_encoding::percent_decode_str(out).decode_utf8();
                prop_assert!(decoded.is_ok_and(|text| !text.contains(|c: char| c.is_ascii_control())));
                prop_assert_eq!(parsed.query(), raw.split_once('?').map(|(_, query)| query));
            }
        }

        #[test]
        fn the_scan_never_takes_another_path_for_a_normal_one(raw in "/([a-z/.;{}]|%[0-9a-fA-F]{2}|%C3%A9|%e2%82%ac){0,16}") {
            if is_normal(raw.as_bytes()) {
                let (rebuilt, odd) = rebuilt(raw.as_bytes(), Kept { slashes: true, bytes: true }).unwrap();
                prop_assert_eq!((rebuilt, odd), (raw.into_bytes(), Kept::default()));
            }
        }

        #[test]
        fn no_input_panics_and_both_entrances_agree(raw in "/\\PC{0,32}") {
            let parsed = NormalPath::parse(&raw);
            if let Ok(target) = PathAndQuery::try_from(raw.as_str())
                && !raw.contains('#')
            {
                prop_assert_eq!(parsed, NormalPath::from_target(target));
            }
        }
    }
}
