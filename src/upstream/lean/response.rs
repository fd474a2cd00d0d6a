//! An answer's head: parsed by `httparse`, judged here.
//!
//! Where the body ends is decided as RFC 9112, 6.3 has it, and no further: what the RFC lets a recipient put up with is
//! refused, for whoever reads the answer behind us may put up with it otherwise. Two lengths that differ, a length that
//! is not digits alone, a coding other than `chunked`, a coding in HTTP/1.0: none of these is an answer. A length beside
//! `chunked` is overruled, as the RFC says, and the connection is not used again.

use std::mem::MaybeUninit;

use bytes::{Bytes, BytesMut};
use http::{Extensions, HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use hyper::ext::ReasonPhrase;

use super::{Framing, LeanError, chunked};

/// Fields that a head may have.
const MAX_FIELDS: usize = 100;

/// An answer's head.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    /// The reason phrase, if it is not the usual one.
    pub(super) extensions: Extensions,
    pub(super) framing: Framing,
    /// Both sides may go on using the connection.
    pub(super) keep_alive: bool,
}

impl Head {
    /// Whether the answer that counts is still to come. 101 is the last that is said in HTTP.
    pub(super) fn is_interim(&self) -> bool {
        self.status.is_informational() && self.status != StatusCode::SWITCHING_PROTOCOLS
    }
}

/// Takes a head from the beginning of `unread`; `None` if it isn't whole yet. `method` is that of the request.
pub(super) fn take(unread: &mut BytesMut, method: &Method) -> Result<Option<Head>, LeanError> {
    let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut parsed = httparse::Response::new(&mut []);
    let parser = httparse::ParserConfig::default();
    let outcome = parser.parse_response_with_uninit_headers(&mut parsed, unread, &mut fields)?;
    let httparse::Status::Complete(length) = outcome else {
        return Ok(None);
    };
    let status = parsed.code.and_then(|code| StatusCode::from_u16(code).ok());
    let status = status.ok_or(LeanError::Malformed("status"))?;
    let http_11 = parsed.version == Some(1);
    let reason = parsed
        .reason
        .filter(|reason| Some(*reason) != status.canonical_reason())
        .and_then(|reason| ReasonPhrase::try_from(reason.as_bytes().to_vec()).ok());
    let places: Vec<Place> = parsed.headers.iter().map(|field| Place::of(field, unread)).collect();

    let bytes = unread.split_to(length).freeze();
    let mut headers = HeaderMap::with_capacity(places.len());
    for place in places {
        let (name, value) = place.field(&bytes).ok_or(LeanError::Malformed("field"))?;
        headers.append(name, value);
    }
    let mut extensions = Extensions::new();
    if let Some(reason) = reason {
        extensions.insert(reason);
    }
    let (framing, unequivocal) = framing(status, http_11, &headers, method)?;
    Ok(Some(Head {
        keep_alive: unequivocal && keeps_alive(http_11, &headers),
        status,
        headers,
        extensions,
        framing,
    }))
}

/// Where a field stands in the head.
struct Place {
    name: (usize, usize),
    value: (usize, usize),
}

impl Place {
    fn of(field: &httparse::Header<'_>, head: &[u8]) -> Self {
        let range = |part: &[u8]| {
            let from = part.as_ptr().addr() - head.as_ptr().addr();
            (from, from + part.len())
        };
        Self {
            name: range(field.name.as_bytes()),
            value: range(field.value),
        }
    }

    fn field(&self, head: &Bytes) -> Option<(HeaderName, HeaderValue)> {
        let name = HeaderName::from_bytes(head.get(self.name.0..self.name.1)?).ok()?;
        let value = HeaderValue::from_maybe_shared(head.slice(self.value.0..self.value.1)).ok()?;
        Some((name, value))
    }
}

/// Where the body ends, and whether that was said in one way alone.
fn framing(
    status: StatusCode,
    http_11: bool,
    headers: &HeaderMap,
    method: &Method,
) -> Result<(Framing, bool), LeanError> {
    let length = length(headers)?;
    let chunked = chunked(headers)?;
    if chunked && !http_11 {
        return Err(LeanError::Malformed("a transfer coding in HTTP/1.0"));
    }
    if status.is_informational() {
        // After 101 it is not HTTP any more.
        return Ok((Framing::Length(0), false));
    }
    if matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) || *method == Method::HEAD {
        return Ok((Framing::Length(0), true));
    }
    Ok(match (chunked, length) {
        (true, length) => (Framing::Chunked(chunked::Decoder::default()), length.is_none()),
        (false, Some(length)) => (Framing::Length(length), true),
        (false, None) => (Framing::Close, false),
    })
}

/// What `Content-Length` says: one number, however often.
fn length(headers: &HeaderMap) -> Result<Option<u64>, LeanError> {
    let mut length = None;
    for line in headers.get_all(header::CONTENT_LENGTH) {
        for number in line.as_bytes().split(|&byte| byte == b',') {
            let number = number.trim_ascii();
            let digits = !number.is_empty() && number.iter().all(u8::is_ascii_digit);
            let number = std::str::from_utf8(number)
                .ok()
                .filter(|_| digits)
                .and_then(|digits| digits.parse::<u64>().ok())
                .ok_or(LeanError::Malformed("content-length"))?;
            if length.is_some_and(|length| length != number) {
                return Err(LeanError::Malformed("two lengths"));
            }
            length = Some(number);
        }
    }
    Ok(length)
}

/// Whether the body is chunked; nothing else is asked for with `TE`.
fn chunked(headers: &HeaderMap) -> Result<bool, LeanError> {
    let mut lines = headers.get_all(header::TRANSFER_ENCODING).iter();
    match (lines.next(), lines.next()) {
        (None, _) => Ok(false),
        (Some(coding), None) if coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked") => Ok(true),
        (Some(_), _) => Err(LeanError::Malformed("a transfer coding that nobody asked for")),
    }
}

/// RFC 9112, 9.3. `close` outweighs everything.
fn keeps_alive(http_11: bool, headers: &HeaderMap) -> bool {
    let mut keeps = http_11;
    for line in headers.get_all(header::CONNECTION) {
        for option in line.as_bytes().split(|&byte| byte == b',') {
            let option = option.trim_ascii();
            if option.eq_ignore_ascii_case(b"close") {
                return false;
            }
            keeps |= option.eq_ignore_ascii_case(b"keep-alive");
        }
    }
    keeps
}
