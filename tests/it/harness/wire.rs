//! HTTP/1.1 as bytes, read by something that is not the library under test.

use std::{fmt, io};

use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt};

/// Start line and fields of a message, as they came.
#[derive(Clone)]
pub(crate) struct Head {
    pub(crate) raw: Vec<u8>,
    pub(crate) start: String,
    pub(crate) fields: Vec<(String, String)>,
}

/// The body's end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Framing {
    None,
    Length(usize),
    Chunked,
    /// A response may end with its connection.
    UntilClose,
}

impl Head {
    /// `None`: the peer closed before the first byte.
    pub(crate) async fn read(from: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Option<Self>> {
        let mut raw = Vec::new();
        while !raw.ends_with(b"\r\n\r\n") {
            if from.read_until(b'\n', &mut raw).await? == 0 {
                return if raw.is_empty() {
                    Ok(None)
                } else {
                    Err(io::ErrorKind::UnexpectedEof.into())
                };
            }
        }
        let text: String = raw.iter().map(|&byte| char::from(byte)).collect();
        let mut lines = text.trim_end_matches("\r\n").split("\r\n");
        let start = lines.next().unwrap().to_owned();
        let fields = lines.map(|line| {
            let (name, value) = line.split_once(':').expect("a field has a colon");
            (name.to_owned(), value.trim().to_owned())
        });
        Ok(Some(Self {
            start,
            fields: fields.collect(),
            raw,
        }))
    }

    /// Every value of a field, whatever its letters' case.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        let fields = self.fields.iter().filter(|(field, _)| field.eq_ignore_ascii_case(name));
        fields.map(|(_, value)| value.as_str()).collect()
    }

    /// The value of a field that occurs at most once.
    #[track_caller]
    pub(crate) fn one(&self, name: &str) -> Option<&str> {
        let values = self.all(name);
        assert!(values.len() <= 1, "{name} occurs {} times: {values:?}", values.len());
        values.first().copied()
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        !self.all(name).is_empty()
    }

    /// Names of all fields that read as `name` once case and `-`, `_`, `.` are taken as equal.
    pub(crate) fn spellings(&self, name: &str) -> Vec<&str> {
        let folded = |text: &str| text.to_ascii_lowercase().replace(['_', '.'], "-");
        let names = self.fields.iter().map(|(field, _)| field.as_str());
        names.filter(|field| folded(field) == folded(name)).collect()
    }

    pub(crate) fn method(&self) -> &str {
        self.start.split(' ').next().unwrap()
    }

    pub(crate) fn target(&self) -> &str {
        self.start.split(' ').nth(1).unwrap()
    }

    pub(crate) fn path(&self) -> &str {
        self.target().split('?').next().unwrap()
    }

    pub(crate) fn status(&self) -> u16 {
        self.start
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok())
            .expect("a status line")
    }

    pub(crate) fn request_framing(&self) -> Framing {
        self.framing().unwrap_or(Framing::None)
    }

    pub(crate) fn response_framing(&self, to_method: &str) -> Framing {
        if to_method == "HEAD" || matches!(self.status(), 100..=199 | 204 | 304) {
            return Framing::None;
        }
        self.framing().unwrap_or(Framing::UntilClose)
    }

    fn framing(&self) -> Option<Framing> {
        if self
            .all("transfer-encoding")
            .iter()
            .any(|coding| coding.eq_ignore_ascii_case("chunked"))
        {
            return Some(Framing::Chunked);
        }
        self.one("content-length")
            .map(|length| Framing::Length(length.parse().expect("a length")))
    }
}

impl fmt::Debug for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.raw))
    }
}

pub(crate) async fn read_body(from: &mut (impl AsyncBufRead + Unpin), framing: Framing) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    match framing {
        Framing::None => {}
        Framing::Length(length) => {
            body.resize(length, 0);
            from.read_exact(&mut body).await?;
        }
        Framing::UntilClose => {
            from.read_to_end(&mut body).await?;
        }
        Framing::Chunked => while read_chunk(from, &mut body).await? > 0 {},
    }
    Ok(body)
}

/// Appends one chunk; its size is 0 for the last. Trailers are read and dropped.
pub(crate) async fn read_chunk(from: &mut (impl AsyncBufRead + Unpin), body: &mut Vec<u8>) -> io::Result<usize> {
    let mut line = String::new();
    if from.read_line(&mut line).await? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let digits = line.trim_end().split(';').next().unwrap();
    let size = usize::from_str_radix(digits, 16).map_err(|_| io::ErrorKind::InvalidData)?;
    let begin = body.len();
    body.resize(begin + size, 0);
    from.read_exact(&mut body[begin..]).await?;
    loop {
        line.clear();
        if from.read_line(&mut line).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if line == "\r\n" {
            return Ok(size);
        }
    }
}
