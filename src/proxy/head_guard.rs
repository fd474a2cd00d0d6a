//! Refuses what the HTTP parser would let pass, where the bytes are still whole.
//!
//! Two things can't be seen any more once hyper has parsed a head: a raw `#` in the request target, at which the
//! target was silently cut, and lines that end with a bare LF, which a stricter hop behind us may read differently
//! (RFC 9112, 2.2 allows recipients to accept them; a proxy had better not). The guard follows the bytes of a
//! connection just closely enough to know where heads and trailers are, and turns such a byte into NUL, which the
//! parser refuses by itself with 400, closing the connection. Not so in a chunk's line: there the parser refuses a bare
//! line feed, and would take a NUL for a part of an extension.
//!
//! It never accepts anything: where it loses track, because the message is malformed or may become a tunnel, it lets all
//! bytes pass to the parser, and whoever answers such a message closes the connection behind it (`server::answer`).

use std::{
    io::{IoSlice, Result},
    pin::Pin,
    task::{Context, Poll, ready},
};

use memchr::{memchr, memchr_iter};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The longest line whose beginning is remembered across reads: long enough for the fields that we look for.
const REMEMBERED: usize = 64;

/// What a bad byte is turned into; no parser of ours takes it.
const REFUSED: u8 = 0;

/// A stream of HTTP/1.1 that shows all it reads to the [`HeadGuard`].
#[derive(Debug)]
pub struct Guarded<S> {
    stream: S,
    guard: HeadGuard,
}

impl<S> Guarded<S> {
    pub fn new(stream: S) -> Self {
        Self {
            stream,
            guard: HeadGuard::default(),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        let this = &mut *self;
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
        if let Some(read) = buf.filled_mut().get_mut(before..) {
            this.guard.look(read);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// Where in the byte stream of a connection we are.
pub struct HeadGuard {
    state: State,
    /// The beginning of a line that a read ended in.
    line: Vec<u8>,
    /// Not all of that line was remembered.
    cut: bool,
    /// The last byte seen was CR.
    after_cr: bool,
    framing: Framing,
}

crate::secret::unprinted!(HeadGuard);

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    RequestLine,
    Fields,
    /// So many bytes are a body's.
    Body(u64),
    /// A line with a chunk's size.
    ChunkSize,
    /// A chunk's bytes, the line end behind them included.
    Chunk(u64),
    Trailers,
    /// From here on nothing is ours to judge.
    Open,
}

/// What the fields of the present head say about its body.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Framing {
    None,
    Length(u64),
    Chunked,
    /// A tunnel, or nonsense.
    Unclear,
}

impl Default for HeadGuard {
    fn default() -> Self {
        Self {
            state: State::RequestLine,
            line: Vec::new(),
            cut: false,
            after_cr: false,
            framing: Framing::None,
        }
    }
}

impl HeadGuard {
    /// Looks at what was just read, in order.
    pub fn look(&mut self, mut bytes: &mut [u8]) {
        while !bytes.is_empty() {
            let taken = match self.state {
                State::Open => return,
                State::Body(left) => self.skip(left, bytes.len(), State::Body, State::RequestLine),
                State::Chunk(left) => self.skip(left, bytes.len(), State::Chunk, State::ChunkSize),
                State::RequestLine | State::Fields | State::ChunkSize | State::Trailers => self.line(bytes),
            };
            bytes = bytes.get_mut(taken..).unwrap_or_default();
        }
    }

    fn skip(&mut self, left: u64, available: usize, more: impl Fn(u64) -> State, after: State) -> usize {
        let taken = usize::try_from(left).map_or(available, |left| left.min(available));
        let left = left - taken as u64;
        self.state = if left == 0 { after } else { more(left) };
        taken
    }

    /// Judges a line, or as much of it as is there.
    fn line(&mut self, bytes: &mut [u8]) -> usize {
        let end = memchr(b'\n', bytes);
        let (part, after_cr) = match end {
            Some(0) => (0, self.after_cr),
            Some(end) => (end, bytes.get(end - 1) == Some(&b'\r')),
            None => (bytes.len(), false),
        };
        if self.state == State::RequestLine
            && let Some(seen) = bytes.get_mut(..part)
        {
            refuse_fragment(seen);
        }
        let Some(end) = end else {
            self.after_cr = bytes.last() == Some(&b'\r');
            self.remember(bytes);
            return bytes.len();
        };
        if !after_cr && let Some(bare) = bytes.get_mut(end) {
            if self.state != State::ChunkSize {
                *bare = REFUSED;
            }
            self.state = State::Open;
            return bytes.len();
        }
        self.after_cr = false;
        let seen = bytes.get(..end).unwrap_or_default();
        if self.line.is_empty() {
            self.end_of_line(seen);
        } else {
            self.remember(seen);
            let line = std::mem::take(&mut self.line);
            if self.cut && self.decides(&line) {
                // It says where the message ends, and we have not seen all of it.
                if let Some(end) = bytes.get_mut(end) {
                    *end = REFUSED;
                }
                self.state = State::Open;
                return bytes.len();
            }
            self.end_of_line(&line);
            self.line = line;
            self.line.clear();
            self.cut = false;
        }
        end + 1
    }

    /// Whether the length of the message hangs on this line.
    fn decides(&self, line: &[u8]) -> bool {
        let framing = [&b"content-length"[..], b"transfer-encoding"];
        match self.state {
            State::ChunkSize => true,
            State::Fields => framing.into_iter().any(|name| {
                line.split_at_checked(name.len())
                    .is_some_and(|(head, _)| head.eq_ignore_ascii_case(name))
            }),
            State::RequestLine | State::Trailers | State::Body(_) | State::Chunk(_) | State::Open => false,
        }
    }

    fn remember(&mut self, part: &[u8]) {
        let room = REMEMBERED.saturating_sub(self.line.len());
        self.cut |= part.len() > room;
        self.line.extend_from_slice(part.get(..room).unwrap_or(part));
    }

    /// `line` is whole, or its first [`REMEMBERED`] bytes; its CR may be there.
    fn end_of_line(&mut self, line: &[u8]) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        match self.state {
            // Empty lines before a request line are skipped by the parser (RFC 9112, 2.2).
            State::RequestLine if line.is_empty() => {}
            State::RequestLine => {
                self.framing = Framing::None;
                self.state = State::Fields;
            }
            State::Fields if line.is_empty() => {
                self.state = match self.framing {
                    Framing::None | Framing::Length(0) => State::RequestLine,
                    Framing::Length(length) => State::Body(length),
                    Framing::Chunked => State::ChunkSize,
                    Framing::Unclear => State::Open,
                }
            }
            State::Fields => self.field(line),
            State::ChunkSize => {
                let digits = line.split(|&byte| byte == b';').next().unwrap_or(line).trim_ascii();
                let size = std::str::from_utf8(digits)
                    .ok()
                    .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
                    .and_then(|digits| u64::from_str_radix(digits, 16).ok());
                self.state = match size {
                    Some(0) => State::Trailers,
                    Some(size) => size.checked_add(2).map_or(State::Open, State::Chunk),
                    None => State::Open,
                };
            }
            State::Trailers if line.is_empty() => self.state = State::RequestLine,
            State::Trailers | State::Body(_) | State::Chunk(_) | State::Open => {}
        }
    }

    /// The few fields that decide where the message ends.
    fn field(&mut self, line: &[u8]) {
        // Most fields are told by their first letter. Behind what may become a tunnel nothing is ours to judge, whatever
        // else the head says of a length.
        if !matches!(line.first(), Some(b'c' | b'C' | b't' | b'T' | b'u' | b'U')) || self.framing == Framing::Unclear {
            return;
        }
        let Some(colon) = memchr(b':', line) else { return };
        let (name, value) = line.split_at(colon);
        let value = value.get(1..).unwrap_or_default().trim_ascii();
        if name.eq_ignore_ascii_case(b"content-length") {
            let length = std::str::from_utf8(value).ok().and_then(|value| value.parse().ok());
            // With both, chunked counts (RFC 9112, 6.3); the parser decides whether the message may pass at all.
            if self.framing != Framing::Chunked {
                self.framing = length.map_or(Framing::Unclear, Framing::Length);
            }
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            self.framing = if value.eq_ignore_ascii_case(b"chunked") {
                Framing::Chunked
            } else {
                Framing::Unclear
            };
        } else if name.eq_ignore_ascii_case(b"upgrade") {
            // What follows may be another protocol. If the upgrade is declined the connection is closed.
            self.framing = Framing::Unclear;
        }
    }
}

fn refuse_fragment(line: &mut [u8]) {
    if memchr(b'#', line).is_none() {
        return;
    }
    let places: Vec<usize> = memchr_iter(b'#', line).collect();
    for place in places {
        if let Some(byte) = line.get_mut(place) {
            *byte = REFUSED;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What the parser gets to see when the bytes come in pieces of `size`.
    fn seen(input: &str, size: usize) -> String {
        let mut guard = HeadGuard::default();
        let mut bytes = input.as_bytes().to_vec();
        for piece in bytes.chunks_mut(size) {
            guard.look(piece);
        }
        String::from_utf8(bytes).unwrap()
    }

    const REFUSALS: &[&str] = &[
        "GET /admin#/public HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /#/../admin HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n\n",
        "\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        // Behind another request, with and without a body.
        "GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /x#y HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\n#\n#GET /x#y HTTP/1.1\r\n\r\n",
        "POST / HTTP/1.1\r\ntransfer-encoding: Chunked\r\n\r\n3;x=y\r\n#\n#\r\n0\r\n\r\nGET /x#y HTTP/1.1\r\n\r\n",
        // Trailers.
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: y\n\r\n",
    ];

    #[test]
    fn a_length_that_is_not_seen_whole_is_refused() {
        let blanks = " ".repeat(70);
        for input in [
            format!("POST / HTTP/1.1\r\nTransfer-Encoding:{blanks}chunked\r\n\r\n0\r\n\r\n"),
            format!(
                "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{}3\r\nabc\r\n",
                "0".repeat(70)
            ),
        ] {
            assert!(seen(&input, 9).contains('\0'), "{input:?}");
            assert_eq!(seen(&input, input.len()), input, "in one read all of it is seen");
        }
    }

    const ORDINARY: &[&str] = &[
        "GET /a?b=c HTTP/1.1\r\nHost: a\r\nReferer: https://a/#b\r\n\r\n",
        "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\n#\n#\n#GET / HTTP/1.1\r\n\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nA\r\n#\n#\n#\n#\n#\n\r\n0\r\nX: y\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        "GET /ws HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n#\n#\n",
        "GET /ws HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 0\r\n\r\n#\n#\n",
        "POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        // The parser's to refuse, as long as they are what they are.
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\nabc\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1;a\nb\r\n\n\r\n0\r\n\r\n",
    ];

    #[test]
    fn fragments_and_bare_line_feeds_are_refused_wherever_a_read_ends() {
        for input in REFUSALS {
            for size in 1..=input.len() {
                let seen = seen(input, size);
                assert!(seen.contains('\0'), "{input:?} in pieces of {size} passed");
            }
        }
    }

    #[test]
    fn ordinary_messages_and_bodies_pass_untouched() {
        for input in ORDINARY {
            for size in 1..=input.len() {
                assert_eq!(seen(input, size), *input, "in pieces of {size}");
            }
        }
    }

    proptest! {
        #[test]
        fn where_reads_end_makes_no_difference(
            input in "([GPO/ #a0-9;:\r\n]|\r\n|Content-Length: |Transfer-Encoding: chunked\r\n){0,60}",
            size in 1_usize..20,
        ) {
            let whole = seen(&input, input.len().max(1));
            let pieces = seen(&input, size);
            // Behind the first refusal the parser looks at nothing. A long line in pieces may be refused where the
            // same line in one read is not; never the other way round.
            let until = |text: &str| text.split('\0').next().unwrap_or_default().to_owned();
            prop_assert!(until(&whole).starts_with(&until(&pieces)));
        }
    }
}
