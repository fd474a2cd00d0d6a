//! An answer's head: parsed by `httparse`, judged here.
//!
//! Where the body ends is decided as RFC 9112, 6.3 has it, and no further: what the RFC lets a recipient put up with is
//! refused, for whoever reads the answer behind us may put up with it otherwise. Two lengths that differ, a length that
//! is not digits alone, a coding other than `chunked`, a coding in HTTP/1.0: none of these is an answer. A length beside
//! `chunked` is overruled, as the RFC says, and the connection is not used again.

use std::mem::MaybeUninit;

use bytes::{Buf, Bytes, BytesMut};
use http::{Extensions, HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use hyper::ext::ReasonPhrase;

use super::{Framing, LeanError, chunked};
use crate::fields;

/// Fields that a head may have.
const MAX_FIELDS: usize = 100;

/// An answer's head.
pub(super) struct Head {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    /// The reason phrase, if it is not the usual one.
    pub(super) extensions: Extensions,
    pub(super) framing: Framing,
    /// Both sides may go on using the connection.
    pub(super) keep_alive: bool,
}

crate::secret::unprinted!(Head);

impl Head {
    /// Whether the answer that counts is still to come. 101 is the last that is said in HTTP.
    pub(super) fn is_interim(&self) -> bool {
        self.status.is_informational() && self.status != StatusCode::SWITCHING_PROTOCOLS
    }
}

/// Takes a head from the beginning of `unread`; `None` if it isn't whole yet. `method` is that of the request; its fields
/// are put into the memory of `spare`, which is empty.
pub(super) fn take(unread: &mut BytesMut, method: &Method, spare: &mut HeaderMap) -> Result<Option<Head>, LeanError> {
    let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut parsed = httparse::Response::new(&mut []);
    let parser = httparse::ParserConfig::default();
    let outcome = parser.parse_response_with_uninit_headers(&mut parsed, unread, &mut fields)?;
    let httparse::Status::Complete(length) = outcome else {
        return Ok(None);
    };
    let status = parsed.code.and_then(|code| StatusCode::from_u16(code).ok());
    let status = status.ok_or(LeanError::Malformed("status"))?;
    let mut extensions = Extensions::new();
    if let Some(reason) = parsed.reason
        && status.canonical_reason() != Some(reason)
        && let Ok(reason) = ReasonPhrase::try_from(reason.as_bytes())
    {
        extensions.insert(reason);
    }
    // A copy: what is small must not keep the connection's buffer from being used again.
    let bytes = Bytes::copy_from_slice(unread.get(..length).unwrap_or_default());
    let mut headers = std::mem::take(spare);
    headers.reserve(parsed.headers.len());
    let mut ending = Ending::default();
    for field in parsed.headers.iter() {
        let from = field.value.as_ptr().addr() - unread.as_ptr().addr();
        let value = bytes.slice(from..from + field.value.len());
        let (Ok(name), Ok(value)) = (
            HeaderName::from_bytes(field.name.as_bytes()),
            HeaderValue::from_maybe_shared(value),
        ) else {
            return Err(LeanError::Malformed("field"));
        };
        if ending.look(&name, value.as_bytes())? == Meant::ForAll {
            headers.append(name, value);
        }
    }
    let http_11 = parsed.version == Some(1);
    // What is refused stays unread: it shows that there was an answer, which is not asked for again.
    let (framing, unequivocal) = ending.judge(status, http_11, method)?;
    unread.advance(length);
    if ending.lengths > 1 {
        fields::join_lengths(&mut headers);
    }
    Ok(Some(Head {
        status,
        headers,
        extensions,
        framing,
        keep_alive: unequivocal && !ending.close && (http_11 || ending.keep_alive),
    }))
}

/// Whom a field is for.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Meant {
    /// Who reads the answer as well.
    ForAll,
    /// Only us, at this end of the connection.
    ForUs,
}

/// What fields say of the end of the answer, and of the connection.
#[derive(Default)]
struct Ending {
    length: Option<u64>,
    /// How often it was said.
    lengths: usize,
    chunked: bool,
    close: bool,
    keep_alive: bool,
}

impl Ending {
    fn look(&mut self, name: &HeaderName, value: &[u8]) -> Result<Meant, LeanError> {
        match *name {
            header::CONTENT_LENGTH => self.length(value)?,
            // Nothing else is asked for with `TE`.
            header::TRANSFER_ENCODING if self.chunked || !value.trim_ascii().eq_ignore_ascii_case(b"chunked") => {
                return Err(LeanError::Malformed("a transfer coding that nobody asked for"));
            }
            header::TRANSFER_ENCODING => self.chunked = true,
            // RFC 9112, 9.3; `close` outweighs everything.
            header::CONNECTION => {
                let mut meant = Meant::ForUs;
                for option in value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii) {
                    if option.eq_ignore_ascii_case(b"close") {
                        self.close = true;
                    } else if option.eq_ignore_ascii_case(b"keep-alive") {
                        self.keep_alive = true;
                    } else {
                        // It names fields, which are to be removed.
                        meant = Meant::ForAll;
                    }
                }
                return Ok(meant);
            }
            _ => {}
        }
        Ok(Meant::ForAll)
    }

    /// One number, however often.
    fn length(&mut self, value: &[u8]) -> Result<(), LeanError> {
        for number in value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii) {
            let number = decimal(number).ok_or(LeanError::Malformed("content-length"))?;
            if self.length.is_some_and(|length| length != number) {
                return Err(LeanError::Malformed("two lengths"));
            }
            self.length = Some(number);
            self.lengths += 1;
        }
        Ok(())
    }

    /// Where the body ends, and whether that was said in one way alone.
    fn judge(&self, status: StatusCode, http_11: bool, method: &Method) -> Result<(Framing, bool), LeanError> {
        if self.chunked && !http_11 {
            return Err(LeanError::Malformed("a transfer coding in HTTP/1.0"));
        }
        if status.is_informational() {
            // After 101 it is not HTTP any more.
            return Ok((Framing::Length(0), false));
        }
        if status == StatusCode::NO_CONTENT {
            // It may not say how long it is (RFC 9110, 8.6; RFC 9112, 6.1): who does may send that, too.
            let says_nothing = !self.chunked && self.length.is_none_or(|length| length == 0);
            return Ok((Framing::Length(0), says_nothing));
        }
        if status == StatusCode::NOT_MODIFIED || *method == Method::HEAD {
            return Ok((Framing::Length(0), true));
        }
        Ok(match (self.chunked, self.length) {
            (true, length) => (Framing::Chunked(chunked::Decoder::default()), length.is_none()),
            (false, Some(length)) => (Framing::Length(length), true),
            (false, None) => (Framing::Close, false),
        })
    }
}

/// Digits and nothing else; `None` also for what does not fit.
fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0_u64, |number, byte| {
        let digit = byte.is_ascii_digit().then(|| byte - b'0')?;
        number.checked_mul(10)?.checked_add(digit.into())
    })
}
