//! A request on its way to an upstream: the head, then the body as the client sends it, never gathered.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::Body;
use tokio::io::AsyncWrite;

use super::{LeanError, RequestBody};
use crate::upstream::outgoing::Length;

const LINE_END: &[u8] = b"\r\n";
const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// How much of a request was sent.
pub(super) struct Sending {
    /// Bytes of the head.
    head: usize,
    /// A chunk's size line, or trailers.
    before: Bytes,
    data: Bytes,
    /// What ends a chunk, or the body.
    after: &'static [u8],
    length: Length,
    /// The body was read to its end.
    ended: bool,
    flushed: bool,
}

crate::secret::unprinted!(Sending);

/// What is left of a request whose answer has come already. Let it go on, or drop it.
pub(in crate::upstream) struct Upload {
    sending: Sending,
    body: RequestBody,
    /// Only in the rare case that not even the head was sent whole.
    head: Vec<u8>,
}

crate::secret::unprinted!(Upload);

impl Sending {
    pub(super) const fn new(length: Length) -> Self {
        Self {
            head: 0,
            before: Bytes::new(),
            data: Bytes::new(),
            after: &[],
            ended: matches!(length, Length::Empty),
            length,
            flushed: false,
        }
    }

    /// Whether the upstream may have seen some of it.
    pub(super) const fn has_sent(&self) -> bool {
        self.head > 0
    }

    pub(super) const fn is_done(&self) -> bool {
        self.flushed
    }

    /// Sends what can be sent; ready when that was all.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut (impl AsyncWrite + Unpin),
        head: &[u8],
        body: &mut RequestBody,
    ) -> Poll<Result<(), LeanError>> {
        if self.flushed {
            return Poll::Ready(Ok(()));
        }
        loop {
            ready!(self.poll_write(cx, stream, head))?;
            if self.ended {
                ready!(Pin::new(&mut *stream).poll_flush(cx))?;
                self.flushed = true;
                return Poll::Ready(Ok(()));
            }
            match Pin::new(&mut *body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => self.data(data)?,
                    Err(frame) => self.end(frame.into_trailers().ok().as_ref())?,
                },
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(LeanError::Body(error))),
                Poll::Ready(None) => self.end(None)?,
                Poll::Pending => {
                    // What was written must not wait for what the client takes its time to send.
                    ready!(Pin::new(&mut *stream).poll_flush(cx))?;
                    return Poll::Pending;
                }
            }
        }
    }

    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut (impl AsyncWrite + Unpin),
        head: &[u8],
    ) -> Poll<Result<(), LeanError>> {
        loop {
            let head = head.get(self.head..).unwrap_or_default();
            let body = [&self.before, &self.data, self.after];
            let mut written = if body.iter().all(|part| part.is_empty()) {
                if head.is_empty() {
                    return Poll::Ready(Ok(()));
                }
                // As most requests have no body.
                ready!(Pin::new(&mut *stream).poll_write(cx, head))?
            } else {
                let [before, data, after] = body;
                let parts = [head, before, data, after].map(IoSlice::new);
                ready!(Pin::new(&mut *stream).poll_write_vectored(cx, &parts))?
            };
            if written == 0 {
                return Poll::Ready(Err(io::Error::from(io::ErrorKind::WriteZero).into()));
            }
            let of_head = written.min(head.len());
            self.head += of_head;
            written -= of_head;
            for part in [&mut self.before, &mut self.data] {
                let of_part = written.min(part.len());
                part.advance(of_part);
                written -= of_part;
            }
            self.after = self.after.get(written..).unwrap_or_default();
        }
    }

    /// The next of the body; all before it was written.
    fn data(&mut self, data: Bytes) -> Result<(), LeanError> {
        let bytes = data.len() as u64;
        match &mut self.length {
            // An empty chunk would end the body.
            Length::Chunked { .. } if bytes == 0 => return Ok(()),
            Length::Chunked { .. } => {
                self.before = Bytes::from(format!("{bytes:x}\r\n"));
                self.after = LINE_END;
            }
            Length::Known(left) => *left = left.checked_sub(bytes).ok_or(LeanError::BodyLength)?,
            Length::Empty => return Err(LeanError::BodyLength),
        }
        self.data = data;
        Ok(())
    }

    fn end(&mut self, trailers: Option<&HeaderMap>) -> Result<(), LeanError> {
        self.ended = true;
        match (&self.length, trailers) {
            (Length::Known(0) | Length::Empty, _) => {}
            (Length::Known(_), _) => return Err(LeanError::BodyLength),
            (
                Length::Chunked {
                    trailers: Some(announced),
                },
                Some(trailers),
            ) => {
                let mut last = b"0\r\n".to_vec();
                for (name, value) in trailers.iter().filter(|(name, _)| names(announced, name)) {
                    last.extend_from_slice(name.as_str().as_bytes());
                    last.extend_from_slice(b": ");
                    last.extend_from_slice(value.as_bytes());
                    last.extend_from_slice(LINE_END);
                }
                self.before = Bytes::from(last);
                self.after = LINE_END;
            }
            // What was not announced nobody waits for.
            (Length::Chunked { .. }, _) => self.after = LAST_CHUNK,
        }
        Ok(())
    }

    pub(super) fn into_upload(self, head: &[u8], body: &mut RequestBody) -> Upload {
        Upload {
            head: head.get(self.head..).unwrap_or_default().to_vec(),
            sending: Self { head: 0, ..self },
            body: std::mem::replace(body, RequestBody::EMPTY),
        }
    }
}

/// Whether a list of field names has `name`.
fn names(list: &HeaderValue, name: &HeaderName) -> bool {
    let mut names = list.as_bytes().split(|&byte| byte == b',');
    names.any(|listed| listed.trim_ascii().eq_ignore_ascii_case(name.as_str().as_bytes()))
}

impl Upload {
    /// Sends the rest. How that ends shows in the answer, which somebody else is reading.
    pub(in crate::upstream) async fn finish(mut self, mut stream: impl AsyncWrite + Unpin) {
        let Self { sending, body, head } = &mut self;
        let _ = std::future::poll_fn(|cx| sending.poll(cx, &mut stream, head, body)).await;
    }
}
