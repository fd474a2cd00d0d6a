//! `103 Early Hints` (RFC 8297) on their way from an upstream to a client that speaks HTTP/1.1.
//!
//! hyper's server has no word for an answer before the answer. But it flushes the stream below it whenever it waits, and
//! only once all that it had to write is written; and it reads a request's head only after the answer before it was
//! written whole. So a flush while an answer is awaited comes between two messages, and that is where a hint is written:
//! [`Hinted`] does it, below hyper and above TLS.
//!
//! Invariants: a hint that was begun is written to its end before anything else; once the answer is here, none begins.
//! One that comes together with its answer is dropped: it would be no earlier.
//!
//! Only what an answer may say leaves, and less: a hint is no place for cookies, and what the route's rules take away or
//! replace in answers must not slip out before them. Clients of HTTP/1.0 know no such answers, and hyper has no way to
//! send one on HTTP/2.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, Response, header};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::headers::{self, CorsBy};
use crate::{config::HeaderRules, session::credential::SessionCookies};

/// What waits for a client that takes nothing; more is dropped.
const MOST_WAITING: usize = 16 * 1024;

/// A connection's hints that are to be written: between its requests and its stream.
#[derive(Default)]
pub struct EarlyHints {
    /// Looked at on every flush: there is something in `bytes`.
    waiting: AtomicBool,
    bytes: Mutex<BytesMut>,
}

crate::secret::unprinted!(EarlyHints);

/// While it lives, an answer is awaited.
#[derive(Debug)]
pub struct Awaited<'h>(&'h EarlyHints);

impl EarlyHints {
    pub const fn until_answered(&self) -> Awaited<'_> {
        Awaited(self)
    }

    fn take(&self) -> Bytes {
        self.waiting.store(false, Ordering::Relaxed);
        self.bytes().split().freeze()
    }

    fn bytes(&self) -> MutexGuard<'_, BytesMut> {
        // Whole messages are put in, and all is taken out.
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Awaited<'_> {
    /// Has a hint written, if it says anything.
    pub fn tell(&self, fields: &HeaderMap) {
        if fields.is_empty() {
            return;
        }
        let mut bytes = self.0.bytes();
        let length: usize = fields
            .iter()
            .map(|(name, value)| name.as_str().len() + value.len() + 4)
            .sum();
        if bytes.len() + length > MOST_WAITING {
            return;
        }
        bytes.extend_from_slice(b"HTTP/1.1 103 Early Hints\r\n");
        for (name, value) in fields {
            for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
                bytes.extend_from_slice(part);
            }
        }
        bytes.extend_from_slice(b"\r\n");
        self.0.waiting.store(true, Ordering::Relaxed);
    }
}

/// The answer comes: what was not begun is not worth its bytes any more.
impl Drop for Awaited<'_> {
    fn drop(&mut self) {
        if self.0.waiting.load(Ordering::Relaxed) {
            drop(self.0.take());
        }
    }
}

/// What of an upstream's hint may leave.
pub fn cleaned(fields: HeaderMap, cookies: &SessionCookies, cors: CorsBy, rules: &HeaderRules) -> HeaderMap {
    let mut hint = Response::new(());
    *hint.headers_mut() = fields;
    // Of cookies none, and no length of a body: there is none (RFC 9110, 8.6).
    for name in [header::SET_COOKIE, header::CONTENT_LENGTH, header::TRAILER] {
        hint.headers_mut().remove(name);
    }
    // What it asks of the gateway, the answer may ask.
    let _ = headers::give_back(&mut hint, cookies, cors, false);
    let fields = hint.headers_mut();
    for name in rules.remove.iter().chain(rules.set.iter().map(|(name, _)| name)) {
        fields.remove(name);
    }
    std::mem::take(fields)
}

/// A stream of HTTP/1.1 on which hints are written where there is room for them.
pub struct Hinted<S> {
    stream: S,
    hints: Arc<EarlyHints>,
    /// What is left of hints that are being written.
    begun: Bytes,
}

crate::secret::unprinted!(Hinted<S>);

impl<S> Hinted<S> {
    pub const fn new(stream: S, hints: Arc<EarlyHints>) -> Self {
        Self {
            stream,
            hints,
            begun: Bytes::new(),
        }
    }
}

impl<S: AsyncWrite + Unpin> Hinted<S> {
    fn poll_begun(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.begun.is_empty() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.begun))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.begun.advance(written);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Hinted<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Hinted<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_begun(cx))?;
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        ready!(this.poll_begun(cx))?;
        if this.hints.waiting.load(Ordering::Relaxed) {
            this.begun = this.hints.take();
            ready!(this.poll_begun(cx))?;
        }
        Pin::new(&mut this.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_begun(cx))?;
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    const HINT: &str = "HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\n\r\n";

    fn link() -> HeaderMap {
        let mut fields = HeaderMap::new();
        fields.insert(header::LINK, "</a.css>; rel=preload".parse().unwrap());
        fields
    }

    #[tokio::test]
    async fn a_hint_is_written_at_a_flush_and_never_within_a_message() {
        let hints = Arc::new(EarlyHints::default());
        let (ours, mut theirs) = duplex(1024);
        let mut stream = Hinted::new(ours, Arc::clone(&hints));
        let awaited = hints.until_answered();
        stream.write_all(b"HTTP/1.1 100 ").await.unwrap();
        awaited.tell(&link());
        stream.write_all(b"Continue\r\n\r\n").await.unwrap();
        stream.flush().await.unwrap();
        drop(awaited);
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        drop(stream);
        let mut said = String::new();
        theirs.read_to_string(&mut said).await.unwrap();
        assert_eq!(
            said,
            format!("HTTP/1.1 100 Continue\r\n\r\n{HINT}HTTP/1.1 200 OK\r\n\r\n")
        );
    }

    #[tokio::test]
    async fn what_was_begun_comes_to_its_end_before_the_answer() {
        let hints = Arc::new(EarlyHints::default());
        let (ours, mut theirs) = duplex(10);
        let mut stream = Hinted::new(ours, Arc::clone(&hints));
        let awaited = hints.until_answered();
        awaited.tell(&link());
        {
            let mut flush = Box::pin(stream.flush());
            assert!(futures_util::poll!(flush.as_mut()).is_pending(), "nobody reads");
        }
        // This one was not begun.
        awaited.tell(&link());
        drop(awaited);
        let answering = async {
            stream.write_all(b"answer").await.unwrap();
            stream.flush().await.unwrap();
            drop(stream);
        };
        let mut said = String::new();
        let (read, ()) = tokio::join!(theirs.read_to_string(&mut said), answering);
        read.unwrap();
        assert_eq!(said, format!("{HINT}answer"));
    }

    #[tokio::test]
    async fn what_waits_is_bounded_and_what_says_nothing_is_not_said() {
        let hints = EarlyHints::default();
        let awaited = hints.until_answered();
        awaited.tell(&HeaderMap::new());
        assert!(hints.take().is_empty());
        for _ in 0..1000 {
            awaited.tell(&link());
        }
        let waiting = hints.take();
        assert!(waiting.len() >= MOST_WAITING / 2 && waiting.len() <= MOST_WAITING * 2);
        assert_eq!(waiting.len() % HINT.len(), 0, "whole hints");
    }
}
