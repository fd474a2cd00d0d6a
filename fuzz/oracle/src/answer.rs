//! Answers of HTTP/1.1, as somebody reads them who asked (RFC 9112, 6.3): what of an upstream's bytes is the answer, and
//! whether the connection may carry another request.

use crate::http1::{Field, decimal, list, values};

/// An answer that was taken.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Answer {
    pub status: u16,
    /// Names in lower case, as they came. Those that concern the connection and the length are left out.
    pub fields: Vec<Field>,
    pub body: Vec<u8>,
    /// It came to its end.
    pub whole: bool,
    /// So many bytes are its own, interim answers before it included.
    pub length: usize,
    /// The connection may be used again, if nothing came behind.
    pub reusable: bool,
}

/// What is read is what was said until the connection ended. `None`: no answer, or one that could be read in two ways.
pub fn read(to_head: bool, said: &[u8]) -> Option<Answer> {
    let mut at = 0;
    // More interim answers than that are none.
    for _ in 0..=16 {
        let head = head(&said[at..])?;
        at += head.length;
        if (100..200).contains(&head.status) && head.status != 101 {
            // An interim answer says nothing of a body that would follow, but must not say so in two ways either.
            framing(&head)?;
            continue;
        }
        let framing = framing(&head)?;
        let (body, whole, taken) = if to_head || head.status == 304 || head.status == 204 || head.status < 200 {
            (Vec::new(), true, 0)
        } else {
            match framing {
                Framing::Length(length) => {
                    let body = &said[at..];
                    let here = length.min(body.len());
                    (body[..here].to_vec(), here == length, here)
                }
                Framing::Close => (said[at..].to_vec(), true, said.len() - at),
                Framing::Chunked => chunked(&said[at..]),
            }
        };
        let lengths = values(&head.fields, b"content-length");
        let chunks = !values(&head.fields, b"transfer-encoding").is_empty();
        let equivocal = match head.status {
            101 => true,
            204 => chunks || !matches!(framing, Framing::Length(0) | Framing::Close),
            304 => false,
            _ if to_head => false,
            _ => (chunks && !lengths.is_empty()) || matches!(framing, Framing::Close),
        };
        let options = list(&head.fields, b"connection");
        let says = |wanted: &[u8]| options.iter().any(|option| option.eq_ignore_ascii_case(wanted));
        let stays = !says(b"close") && (!head.old || says(b"keep-alive"));
        let own = |(name, value): &Field| {
            let name = name.to_ascii_lowercase();
            let concerns_us = matches!(
                name.as_slice(),
                b"connection" | b"content-length" | b"transfer-encoding"
            );
            (!concerns_us).then(|| (name, value.clone()))
        };
        return Some(Answer {
            status: head.status,
            fields: head.fields.iter().filter_map(own).collect(),
            body,
            whole,
            length: at + taken,
            reusable: whole && !equivocal && stays,
        });
    }
    None
}

struct Head {
    status: u16,
    old: bool,
    fields: Vec<Field>,
    length: usize,
}

enum Framing {
    Length(usize),
    Chunked,
    Close,
}

fn head(bytes: &[u8]) -> Option<Head> {
    let mut lines: Vec<&[u8]> = Vec::new();
    let mut at = 0;
    // A line feed alone ends a line, too: recipients may take it so (RFC 9112, 2.2), and of an answer nobody else reads
    // the head.
    loop {
        let end = bytes[at..].iter().position(|byte| *byte == b'\n')?;
        let line = &bytes[at..at + end];
        at += end + 1;
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() && !lines.is_empty() {
            break;
        }
        // Empty lines before it are skipped.
        if !line.is_empty() {
            lines.push(line);
        }
    }
    let start = lines[0];
    let old = match start.get(..9)? {
        b"HTTP/1.1 " => false,
        b"HTTP/1.0 " => true,
        _ => return None,
    };
    let status = decimal(start.get(9..12)?)?;
    let mut fields = Vec::new();
    for line in &lines[1..] {
        let colon = line.iter().position(|byte| *byte == b':')?;
        fields.push((
            line[..colon].to_vec(),
            crate::http1::trimmed(&line[colon + 1..]).to_vec(),
        ));
    }
    Some(Head {
        status: u16::try_from(status).ok()?,
        old,
        fields,
        length: at,
    })
}

/// Where the body ends; `None` if that is said in two ways, or in none that we asked for.
fn framing(head: &Head) -> Option<Framing> {
    let codings = values(&head.fields, b"transfer-encoding");
    let mut lengths = Vec::new();
    for line in values(&head.fields, b"content-length") {
        for number in line.split(|byte| *byte == b',') {
            lengths.push(decimal(crate::http1::trimmed(number))?);
        }
    }
    if lengths.iter().any(|length| *length != lengths[0]) {
        return None;
    }
    match codings[..] {
        [] => Some(
            lengths
                .first()
                .map_or(Framing::Close, |length| Framing::Length(*length)),
        ),
        [coding] if coding.eq_ignore_ascii_case(b"chunked") && !head.old => Some(Framing::Chunked),
        _ => None,
    }
}

/// Data, whether it came to its end, and how many bytes that were.
fn chunked(bytes: &[u8]) -> (Vec<u8>, bool, usize) {
    let mut data = Vec::new();
    let mut at = 0;
    let line = |at: usize| -> Option<&[u8]> {
        let end = bytes[at..].iter().position(|byte| *byte == b'\n')?;
        bytes[at..at + end].strip_suffix(b"\r")
    };
    loop {
        let Some(size_line) = line(at) else {
            return (data, false, at);
        };
        at += size_line.len() + 2;
        let digits: Vec<u8> = size_line.iter().copied().take_while(u8::is_ascii_hexdigit).collect();
        let rest = &size_line[digits.len()..];
        let blanks = rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
        let odd = !matches!(rest.get(blanks), None | Some(b';')) || rest.contains(&b'\r');
        let size = std::str::from_utf8(&digits)
            .ok()
            .and_then(|digits| usize::from_str_radix(digits, 16).ok());
        let (Some(size), false) = (size.filter(|_| digits.len() <= 16), odd) else {
            return (data, false, at);
        };
        if size == 0 {
            break;
        }
        let here = size.min(bytes.len() - at);
        data.extend_from_slice(&bytes[at..at + here]);
        at += here;
        if here < size || bytes.get(at..at + 2) != Some(b"\r\n") {
            return (data, false, at);
        }
        at += 2;
    }
    loop {
        let Some(trailer) = line(at) else {
            return (data, false, at);
        };
        at += trailer.len() + 2;
        if trailer.is_empty() {
            return (data, true, at);
        }
        if !trailer.contains(&b':') {
            return (data, false, at);
        }
    }
}
