//! Requests of HTTP/1.1 as RFC 9112 has them, to the letter.
//!
//! What the RFC forbids is [`Read::Malformed`]. What it lets a recipient put up with, so that two of them may differ, is a
//! [`Doubt`]: it may be refused; taken, it must mean what is said here.

/// One field line: the name as it was written, the value without the blanks around it.
pub type Field = (Vec<u8>, Vec<u8>);

#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Request {
    pub method: Vec<u8>,
    pub target: Vec<u8>,
    /// HTTP/1.0 rather than 1.1.
    pub old: bool,
    pub fields: Vec<Field>,
    pub body: Body,
    pub trailers: Vec<Field>,
    pub doubt: Option<Doubt>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Body {
    /// None was announced.
    None,
    /// By `Content-Length`.
    Sized(Vec<u8>),
    Chunked(Vec<u8>),
}

/// Why a recipient may refuse a message that it could read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Doubt {
    /// `Content-Length` beside `Transfer-Encoding`: whoever takes it must close the connection (RFC 9112, 6.1).
    TwoFramings,
    /// The same length in two lines (RFC 9110, 8.6).
    RepeatedLength,
    /// Blanks behind a chunk's size, or odd bytes in its extension.
    ChunkLine,
    /// Empty lines before the request line.
    EmptyLines,
    /// Larger than a recipient need take.
    Large,
}

/// What the beginning of some bytes is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Read {
    /// There are none.
    Nothing,
    /// They end before it does; its head is whole if it is here.
    Unfinished,
    /// To be refused, and nothing behind it to be read.
    Malformed(&'static str),
    /// A request of so many bytes.
    Whole(Box<Request>, usize),
}

/// Heads with more fields than that may be refused.
const MANY_FIELDS: usize = 100;
const LARGE_HEAD: usize = 8 * 1024;
/// A size line of a chunk, and all trailers.
const LARGE_LINE: usize = 512;

/// Reads one request from the beginning of `bytes`.
pub fn read(bytes: &[u8]) -> Read {
    if bytes.is_empty() {
        return Read::Nothing;
    }
    let mut lines = Lines { bytes, at: 0 };
    match request(&mut lines) {
        Ok(request) => Read::Whole(Box::new(request), lines.at),
        // What is there so far can already not become a request.
        Err(Stop::Unfinished) => Read::Unfinished,
        Err(Stop::Malformed(why)) => Read::Malformed(why),
    }
}

enum Stop {
    Unfinished,
    Malformed(&'static str),
}

use Stop::{Malformed, Unfinished};

struct Lines<'b> {
    bytes: &'b [u8],
    at: usize,
}

impl<'b> Lines<'b> {
    /// The next line without its CRLF.
    fn line(&mut self) -> Result<&'b [u8], Stop> {
        let rest = &self.bytes[self.at..];
        for (at, byte) in rest.iter().enumerate() {
            match byte {
                b'\n' => return Err(Malformed("a bare line feed")),
                b'\r' => {
                    return match rest.get(at + 1) {
                        None => Err(Unfinished),
                        Some(b'\n') => {
                            self.at += at + 2;
                            Ok(&rest[..at])
                        }
                        Some(_) => Err(Malformed("a bare carriage return")),
                    };
                }
                _ => {}
            }
        }
        Err(Unfinished)
    }

    fn take(&mut self, count: usize) -> Result<&'b [u8], Stop> {
        let taken = self
            .bytes
            .get(self.at..self.at.saturating_add(count))
            .ok_or(Unfinished)?;
        self.at += count;
        Ok(taken)
    }
}

fn request(lines: &mut Lines<'_>) -> Result<Request, Stop> {
    let mut doubt = None;
    let start = loop {
        let line = lines.line()?;
        if !line.is_empty() {
            break line;
        }
        doubt = Some(Doubt::EmptyLines);
    };
    let (method, target, old) = request_line(start)?;
    let mut fields = Vec::new();
    loop {
        let line = lines.line()?;
        if line.is_empty() {
            break;
        }
        fields.push(field(line)?);
    }
    if fields.len() >= MANY_FIELDS || lines.at >= LARGE_HEAD {
        doubt = Some(Doubt::Large);
    }

    let mut codings = 0;
    let mut lengths = Vec::new();
    for (name, value) in &fields {
        if name.eq_ignore_ascii_case(b"transfer-encoding") {
            // The only coding that a recipient must know (RFC 9112, 7.1), and once.
            if !value.eq_ignore_ascii_case(b"chunked") {
                return Err(Malformed("a transfer coding that is not chunked"));
            }
            codings += 1;
        } else if name.eq_ignore_ascii_case(b"content-length") {
            lengths.push(value.as_slice());
        }
    }
    if codings > 1 {
        return Err(Malformed("chunked twice"));
    }
    if codings == 1 && old {
        return Err(Malformed("a transfer coding in HTTP/1.0"));
    }
    if codings == 1 && !lengths.is_empty() {
        doubt = Some(Doubt::TwoFramings);
    }
    if codings == 0 && lengths.len() > 1 {
        if lengths.iter().any(|length| *length != lengths[0]) {
            return Err(Malformed("two lengths"));
        }
        doubt = doubt.or(Some(Doubt::RepeatedLength));
    }

    let mut trailers = Vec::new();
    let body = if codings == 1 {
        let (body, odd) = chunks(lines)?;
        loop {
            let line = lines.line()?;
            if line.is_empty() {
                break;
            }
            trailers.push(field(line)?);
        }
        if odd {
            doubt = doubt.or(Some(Doubt::ChunkLine));
        }
        Body::Chunked(body)
    } else if let Some(length) = lengths.first() {
        let length = decimal(length).ok_or(Malformed("a length that is no number"))?;
        Body::Sized(lines.take(length)?.to_vec())
    } else {
        Body::None
    };
    Ok(Request {
        method: method.to_vec(),
        target: target.to_vec(),
        old,
        fields,
        body,
        trailers,
        doubt,
    })
}

/// `method SP request-target SP HTTP-version`.
fn request_line(line: &[u8]) -> Result<(&[u8], &[u8], bool), Stop> {
    let words: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    let [method, target, version] = words[..] else {
        return Err(Malformed("a request line that is not three words"));
    };
    // No method has a number sign, though a token may.
    if method.is_empty() || !method.iter().all(|byte| is_token(*byte) && *byte != b'#') {
        return Err(Malformed("a method that is no token"));
    }
    // A fragment is never sent (RFC 9110, 4.2.4).
    if target.is_empty()
        || target
            .iter()
            .any(|byte| !(0x21..=0xff).contains(byte) || matches!(byte, 0x7f | b'#'))
    {
        return Err(Malformed("a target with bytes that no target has"));
    }
    match version {
        b"HTTP/1.1" => Ok((method, target, false)),
        b"HTTP/1.0" => Ok((method, target, true)),
        _ => Err(Malformed("another version")),
    }
}

/// `field-name ":" OWS field-value OWS`.
fn field(line: &[u8]) -> Result<Field, Stop> {
    if matches!(line[0], b' ' | b'\t') {
        return Err(Malformed("a folded line"));
    }
    let colon = line
        .iter()
        .position(|byte| *byte == b':')
        .ok_or(Malformed("a field without a colon"))?;
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    if name.is_empty() || !name.iter().all(|byte| is_token(*byte)) {
        return Err(Malformed("a field's name that is no token"));
    }
    if value
        .iter()
        .any(|byte| (*byte < b' ' && *byte != b'\t') || *byte == 0x7f)
    {
        return Err(Malformed("a control byte in a field"));
    }
    Ok((name.to_vec(), trimmed(value).to_vec()))
}

/// Data of all chunks, and whether a size line had something that not everybody puts up with.
fn chunks(lines: &mut Lines<'_>) -> Result<(Vec<u8>, bool), Stop> {
    let mut data = Vec::new();
    let mut odd = false;
    loop {
        let line = match lines.line() {
            // What can be seen to be wrong before the line's end is wrong.
            Err(Unfinished) => {
                let so_far = &lines.bytes[lines.at..];
                let so_far = so_far.strip_suffix(b"\r").unwrap_or(so_far);
                if !so_far.is_empty() {
                    size(so_far)?;
                }
                return Err(Unfinished);
            }
            line => line?,
        };
        let (size, is_odd) = size(line)?;
        odd |= is_odd;
        if size == 0 {
            return Ok((data, odd));
        }
        data.extend_from_slice(lines.take(size)?);
        match lines.bytes.get(lines.at..).unwrap_or_default() {
            [b'\r', b'\n', ..] => lines.at += 2,
            [] | [b'\r'] => return Err(Unfinished),
            _ => return Err(Malformed("a chunk that is longer than it said")),
        }
    }
}

/// `chunk-size [ chunk-ext ]`.
fn size(line: &[u8]) -> Result<(usize, bool), Stop> {
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let (digits, rest) = line.split_at(digits);
    if digits.is_empty() {
        return Err(Malformed("a chunk without a size"));
    }
    let mut size: usize = 0;
    for digit in digits {
        let digit = char::from(*digit).to_digit(16).unwrap_or_default();
        size = size
            .checked_mul(16)
            .and_then(|size| size.checked_add(digit as usize))
            .ok_or(Malformed("a chunk whose size does not fit"))?;
    }
    if rest.is_empty() {
        return Ok((size, digits.len() > 16));
    }
    let extension = trimmed_start(rest);
    if !(extension.is_empty() || extension[0] == b';') {
        return Err(Malformed("something behind a chunk's size"));
    }
    let plain = |byte: &u8| matches!(byte, b' '..=b'~' | b'\t' | 0x80..=0xff);
    let odd = extension.len() != rest.len() || !extension.iter().all(plain) || line.len() > LARGE_LINE;
    Ok((size, odd))
}

/// Digits and nothing else.
pub fn decimal(text: &[u8]) -> Option<usize> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// RFC 9110, 5.6.2.
pub fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn is_blank(byte: u8) -> bool {
    byte == b' ' || byte == b'\t'
}

fn trimmed_start(text: &[u8]) -> &[u8] {
    let blanks = text.iter().take_while(|byte| is_blank(**byte)).count();
    &text[blanks..]
}

/// Without the blanks around it.
pub fn trimmed(text: &[u8]) -> &[u8] {
    let text = trimmed_start(text);
    let blanks = text.iter().rev().take_while(|byte| is_blank(**byte)).count();
    &text[..text.len() - blanks]
}

/// The elements of a comma-separated list, over all lines of a field; empty ones are none.
pub fn list(fields: &[Field], name: &[u8]) -> Vec<Vec<u8>> {
    let mut elements = Vec::new();
    for (own, value) in fields {
        if own.eq_ignore_ascii_case(name) {
            for element in value.split(|byte| *byte == b',') {
                let element = trimmed(element);
                if !element.is_empty() {
                    elements.push(element.to_vec());
                }
            }
        }
    }
    elements
}

/// The values of all lines of a field.
pub fn values<'f>(fields: &'f [Field], name: &[u8]) -> Vec<&'f [u8]> {
    let lines = fields.iter().filter(|(own, _)| own.eq_ignore_ascii_case(name));
    lines.map(|(_, value)| value.as_slice()).collect()
}

impl Request {
    /// Whether the connection ends behind it, by its own will.
    pub fn closes(&self) -> bool {
        let options = list(&self.fields, b"connection");
        let says = |wanted: &[u8]| options.iter().any(|option| option.eq_ignore_ascii_case(wanted));
        says(b"close") || (self.old && !says(b"keep-alive"))
    }

    pub fn has(&self, name: &[u8]) -> bool {
        !values(&self.fields, name).is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn whole(text: &str) -> (Request, usize) {
        match read(text.as_bytes()) {
            Read::Whole(request, length) => (*request, length),
            other => panic!("{text:?}: {other:?}"),
        }
    }

    #[test]
    fn ordinary_requests_are_read_to_their_end() {
        let (request, length) = whole("GET /x HTTP/1.1\r\nHost: a\r\n\r\nGET /y");
        assert_eq!((request.target.as_slice(), length), (&b"/x"[..], 28));
        let (request, _) = whole("POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcdef");
        assert_eq!((request.body, request.doubt), (Body::Sized(b"abc".to_vec()), None));
        let (request, _) =
            whole("POST / HTTP/1.1\r\nTransfer-Encoding: CHUNKED\r\n\r\n3;a=b\r\nabc\r\n0\r\nX: y\r\n\r\n");
        assert_eq!((request.body, request.doubt), (Body::Chunked(b"abc".to_vec()), None));
        assert_eq!(request.trailers, [(b"X".to_vec(), b"y".to_vec())]);
    }

    #[test]
    fn what_the_rfc_leaves_open_is_in_doubt() {
        for (text, doubt) in [
            (
                "POST / HTTP/1.1\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
                Doubt::TwoFramings,
            ),
            (
                "POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na",
                Doubt::RepeatedLength,
            ),
            (
                "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1 \r\na\r\n0\r\n\r\n",
                Doubt::ChunkLine,
            ),
            ("\r\nGET / HTTP/1.1\r\n\r\n", Doubt::EmptyLines),
        ] {
            assert_eq!(whole(text).0.doubt, Some(doubt), "{text:?}");
        }
    }

    #[test]
    fn what_the_rfc_forbids_is_malformed() {
        for text in [
            "GET / HTTP/1.1\nHost: a\r\n\r\n",
            "GET  / HTTP/1.1\r\n\r\n",
            "GET / HTTP/2.0\r\n\r\n",
            "GET /#x HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nX : y\r\n\r\n",
            "GET / HTTP/1.1\r\nX: y\r\n z\r\n\r\n",
            "GET / HTTP/1.1\r\nX: \0\r\n\r\n",
            "GET / HTTP/1.1\r\nX\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 3, 3\r\n\r\nabc",
            "POST / HTTP/1.1\r\nContent-Length: +3\r\n\r\nabc",
            "POST / HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
            "POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0x1\r\na\r\n0\r\n\r\n",
        ] {
            assert!(
                matches!(read(text.as_bytes()), Read::Malformed(_)),
                "{text:?}: {:?}",
                read(text.as_bytes())
            );
        }
    }

    #[test]
    fn what_breaks_off_is_unfinished() {
        for text in [
            "G",
            "GET / HTTP/1.1\r",
            "GET / HTTP/1.1\r\nHost",
            "POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nab",
        ] {
            assert_eq!(read(text.as_bytes()), Read::Unfinished, "{text:?}");
        }
    }
}
