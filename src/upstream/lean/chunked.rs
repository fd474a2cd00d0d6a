//! The chunked coding (RFC 9112, 7.1), to the letter: a recipient that guesses where a chunk ends is how answers are
//! smuggled. Line ends are CRLF, sizes are hexadecimal digits, nothing is skipped but chunk extensions.

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};
use memchr::{memchr, memchr_iter};

use super::{LeanError, take};

const LINE_END: usize = b"\r\n".len();

/// A size line with its extensions. Nobody uses extensions; what is longer wants memory, not a chunk.
const MAX_LINE: usize = 4096;
/// All trailer fields together.
const MAX_TRAILERS: usize = 16 * 1024;
/// Trailer fields.
const MAX_FIELDS: usize = 100;

const BARE_LINE_FEED: LeanError = LeanError::Malformed("a line that ends without a carriage return");

/// How far a body has been read.
#[derive(Debug, Default)]
pub(in crate::upstream) struct Decoder {
    state: State,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Size,
    /// So many bytes of a chunk are to come.
    Data(u64),
    /// The line end behind a chunk.
    DataEnd,
    Trailers,
    Ended,
}

/// What came of the bytes that were there.
pub(super) enum Step {
    Data(Bytes),
    /// The body has ended; with these fields, if there are any.
    End(Option<HeaderMap>),
    /// More bytes are needed.
    More,
}

crate::secret::unprinted!(Step);

impl Decoder {
    /// Takes one step's bytes from the beginning of `unread`.
    pub(super) fn step(&mut self, unread: &mut BytesMut) -> Result<Step, LeanError> {
        loop {
            match self.state {
                State::Size => {
                    let Some(length) = line(unread)? else {
                        return Ok(Step::More);
                    };
                    self.state = match size(unread.get(..length).unwrap_or_default())? {
                        0 => State::Trailers,
                        size => State::Data(size),
                    };
                    unread.advance(length + LINE_END);
                }
                State::Data(left) => {
                    if unread.is_empty() {
                        return Ok(Step::More);
                    }
                    let here = usize::try_from(left).unwrap_or(usize::MAX).min(unread.len());
                    let rest = left - here as u64;
                    self.state = if rest == 0 { State::DataEnd } else { State::Data(rest) };
                    return Ok(Step::Data(take(unread, here)));
                }
                State::DataEnd => match **unread {
                    [b'\r', b'\n', ..] => {
                        unread.advance(LINE_END);
                        self.state = State::Size;
                    }
                    [] | [b'\r'] => return Ok(Step::More),
                    _ => return Err(LeanError::Malformed("a chunk that is longer than it said")),
                },
                State::Trailers => return self.trailers(unread),
                State::Ended => return Ok(Step::End(None)),
            }
        }
    }

    fn trailers(&mut self, unread: &mut BytesMut) -> Result<Step, LeanError> {
        if unread.starts_with(b"\r\n") {
            unread.advance(LINE_END);
            self.state = State::Ended;
            return Ok(Step::End(None));
        }
        let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
        let httparse::Status::Complete((length, fields)) = httparse::parse_headers(unread, &mut fields)? else {
            return if unread.len() < MAX_TRAILERS {
                Ok(Step::More)
            } else {
                Err(LeanError::Malformed("trailers that are too long"))
            };
        };
        if memchr_iter(b'\n', unread.get(..length).unwrap_or_default())
            .any(|end| end.checked_sub(1).and_then(|before| unread.get(before)) != Some(&b'\r'))
        {
            return Err(BARE_LINE_FEED);
        }
        let mut trailers = HeaderMap::with_capacity(fields.len());
        for field in fields {
            let name = HeaderName::from_bytes(field.name.as_bytes());
            let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(field.value)) else {
                return Err(LeanError::Malformed("trailer"));
            };
            trailers.append(name, value);
        }
        unread.advance(length);
        self.state = State::Ended;
        Ok(Step::End(Some(trailers)))
    }
}

/// How long the first line is, without its end; `None` if that isn't here yet.
fn line(unread: &[u8]) -> Result<Option<usize>, LeanError> {
    let Some(end) = memchr(b'\n', unread) else {
        return if unread.len() < MAX_LINE {
            Ok(None)
        } else {
            Err(LeanError::Malformed("a chunk's size that is too long"))
        };
    };
    match end.checked_sub(1) {
        Some(length) if unread.get(length) == Some(&b'\r') => Ok(Some(length)),
        _ => Err(BARE_LINE_FEED),
    }
}

/// `1A`, `1a ;ext`: hexadecimal digits, then nothing or extensions, perhaps behind blanks.
fn size(line: &[u8]) -> Result<u64, LeanError> {
    const BAD: LeanError = LeanError::Malformed("a chunk's size");
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let (digits, rest) = line.split_at_checked(digits).ok_or(BAD)?;
    // Sixteen digits are what fits.
    if digits.is_empty() || digits.len() > 16 {
        return Err(BAD);
    }
    let blanks = rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
    match rest.get(blanks..) {
        Some([]) => {}
        // A bare carriage return would end the line for somebody else.
        Some([b';', extension @ ..]) if memchr(b'\r', extension).is_none() => {}
        _ => return Err(BAD),
    }
    let digits = std::str::from_utf8(digits).map_err(|_| BAD)?;
    u64::from_str_radix(digits, 16).map_err(|_| BAD)
}
