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
    #[error(
        "the path has a parameter, and an upstream that reads paths without them would be asked for what is guarded better, \
         or by no route"
    )]
    HidingParameter,
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

    /// The path as an upstream has it that takes what follows a `;` in a segment for a parameter, and routes without it
    /// (RFC 3986, 3.3, and every Java servlet container); `None` if no segment has one.
    pub fn without_parameters(&self) -> Option<Result<Self, PathError>> {
        let path = self.as_str();
        // Some decode first.
        if !path.contains(';') && !path.contains("%3B") {
            return None;
        }
        let mut read = String::with_capacity(path.len());
        for segment in self.segments() {
            let plain = segment.split(';').next().unwrap_or(segment);
            let plain = plain.split("%3B").next().unwrap_or(plain);
            read.push('/');
            read.push_str(plain);
        }
        Some(Self::parse_keeping(&read, self.odd))
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
        below(self.as_str(), base)
    }
}

/// Whether a request's target is for what is below `base`. One that has no normal form goes by how it begins.
pub fn is_for(target: &str, kept: Kept, base: &str) -> bool {
    match NormalPath::parse_keeping(target, kept) {
        Ok(path) => path.below(base).is_some(),
        Err(_) => below(target.split('?').next().unwrap_or(target), base).is_some(),
    }
}

fn below<'p>(path: &'p str, base: &str) -> Option<&'p str> {
    let rest = path.strip_prefix(base)?;
    (rest.is_empty() || rest.starts_with('/')).then_some(rest)
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
        (Some(0xc0 | 0xc1), Some(0x80..=0xbf))
            | (Some(0xe0), Some(0x80..=0x9f))
            | (Some(0xf0), Some(0x80..=0x8f))
            // Of five and six bytes, as UTF-8 was before RFC 3629. What is longer for a reason is no slash to anybody.
            | (Some(0xf8), Some(0x80..=0x87))
            | (Some(0xfc), Some(0x80..=0x83))
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
mod tests;
