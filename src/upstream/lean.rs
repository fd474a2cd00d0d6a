//! HTTP/1.1 to an upstream by the request's own hand: no task drives the connection, no channel leads to it.
//!
//! hyper's client keeps a connection in a task of its own; each request goes there through one channel and its answer
//! comes back through another, with a wake-up for each. Here the request that has a connection writes its head, reads
//! the answer's, and passes the body on as it comes. The request is not taken apart for that, so a second try needs no
//! copy of it.
//!
//! What an upstream says is hostile until parsed ([`response`] for heads, [`chunked`] for bodies). Where it can be read
//! in two ways it is refused; and a connection serves another request only if the answer's end was beyond doubt, the
//! whole request was sent, and nothing came behind it.
//!
//! Not here: upgrades, which leave HTTP (hyper's client does them), and which connection is used (`upstream`).

pub(super) mod answer;
mod chunked;
mod response;
#[cfg(test)]
mod tests;
mod upload;

use std::{
    future::poll_fn,
    io,
    pin::{Pin, pin},
    task::{Context, Poll, Waker, ready},
};

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, Response, StatusCode};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    task::coop::unconstrained,
};
use tokio_util::io::poll_read_buf;

use self::{
    answer::{Answer, Reader},
    response::Head,
    upload::Upload,
};
use super::{
    body::{BodyError, RequestBody},
    outgoing::Outgoing,
};

/// A first read asks for so much: most answers come in one.
const FIRST_READ: usize = 8 * 1024;
/// Heads that are larger are refused. The largest that other proxies take by default is 60 KiB.
const MAX_HEAD: usize = 64 * 1024;
/// Interim answers (1xx) before the one that counts. More are no help to anybody.
const MAX_INTERIM: usize = 16;

/// Who is told of early hints (RFC 8297) before the answer, if anybody is.
pub type Told<'h> = Option<&'h (dyn Fn(HeaderMap) + Sync)>;

/// Why an exchange failed.
#[derive(Debug, thiserror::Error)]
pub enum LeanError {
    #[error("the connection failed")]
    Io(#[from] io::Error),
    #[error("the connection was closed before the answer's end")]
    Closed,
    #[error("the answer is not HTTP")]
    NotHttp(#[from] httparse::Error),
    #[error("the answer's head is too large")]
    HeadTooLarge,
    #[error("there are too many interim answers")]
    TooManyInterim,
    #[error("the answer is malformed: {0}")]
    Malformed(&'static str),
    #[error("the request's body ended before its end")]
    Body(#[from] BodyError),
    #[error("the request's body has another length than it said")]
    BodyLength,
}

/// How far an exchange had come when it failed: whether it may be tried again hangs on this.
#[derive(Debug)]
pub(super) struct Failed {
    pub error: LeanError,
    /// A byte of the request may have reached the upstream.
    pub sent: bool,
    /// Something came back.
    pub answered: bool,
}

/// A connection that speaks HTTP/1.1, between requests or with one under way.
pub(super) struct Connection<S> {
    stream: S,
    /// Read, and not used yet.
    unread: BytesMut,
}

crate::secret::unprinted!(Connection<S>);

/// An answer's head, and what is needed to go on.
pub(super) struct Answered<S> {
    pub response: Response<()>,
    pub connection: Connection<S>,
    /// Of the answer's body.
    pub framing: Framing,
    /// Another request may follow behind this answer, if nothing else speaks against it.
    pub keep_alive: bool,
    /// The answer came before the request was sent whole.
    pub upload: Option<Upload>,
}

crate::secret::unprinted!(Answered<S>);

/// Where an answer's body ends.
#[derive(Debug)]
pub(super) enum Framing {
    Length(u64),
    Chunked(chunked::Decoder),
    /// With the connection.
    Close,
}

impl<S> Connection<S> {
    pub(super) fn new(stream: S) -> Self {
        Self {
            stream,
            unread: BytesMut::new(),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Whether an idle connection can still be used. An upstream that says something unasked is about to close it, or
    /// means to be taken for the answer to what somebody else asks next.
    ///
    /// No system call is made while nothing has come: whether something has, the runtime knows. It would not tell a task
    /// that has used up its turn: with many dead connections in a row, each of them found out with a bit of the turn, the
    /// next would seem to be well.
    pub(super) fn is_quiet(&mut self) -> bool {
        if !self.unread.is_empty() {
            return false;
        }
        let mut byte = [0; 1];
        let mut buffer = ReadBuf::new(&mut byte);
        let looks = poll_fn(|cx| {
            let read = Pin::new(&mut self.stream).poll_read(cx, &mut buffer);
            Poll::Ready(read.is_pending())
        });
        let mut nobody = Context::from_waker(Waker::noop());
        pin!(unconstrained(looks)).poll(&mut nobody) == Poll::Ready(true)
    }

    /// Sends `outgoing`, and waits for the head of the answer. One that comes before the whole body was sent brings the
    /// rest of it along as an [`Upload`]; none is left in `outgoing` then. Of interim answers, early hints alone are told.
    ///
    /// Cancel-safe: dropping it closes the connection.
    pub(super) async fn exchange(mut self, outgoing: &mut Outgoing, told: Told<'_>) -> Result<Answered<S>, Failed> {
        let mut sending = upload::Sending::new(outgoing.finish());
        let mut unsendable = None;
        let mut interim = 0;
        let outcome = poll_fn(|cx| {
            let (head, body) = outgoing.parts();
            if unsendable.is_none()
                && let Poll::Ready(Err(error)) = sending.poll(cx, &mut self.stream, head, body)
            {
                match error {
                    // An upstream that refuses a body may close its ear and still have said why.
                    LeanError::Io(_) if sending.has_sent() => unsendable = Some(error),
                    _ => return Poll::Ready(Err(error)),
                }
            }
            loop {
                if let Some(found) = self.parse(outgoing, &mut interim, told)? {
                    return Poll::Ready(Ok(found));
                }
                match ready!(self.poll_fill(cx, FIRST_READ)) {
                    Ok(0) => return Poll::Ready(Err(unsendable.take().unwrap_or(LeanError::Closed))),
                    Ok(_) => {}
                    Err(error) => return Poll::Ready(Err(unsendable.take().unwrap_or(LeanError::Io(error)))),
                }
            }
        })
        .await;
        let found = outcome.map_err(|error| Failed {
            error,
            sent: sending.has_sent(),
            answered: interim > 0 || !self.unread.is_empty(),
        })?;
        let whole = sending.is_done();
        let upload = (!whole && unsendable.is_none()).then(|| {
            let (head, body) = outgoing.parts();
            sending.into_upload(head, body)
        });
        Ok(self.answered(found, whole, upload))
    }

    /// The head of the answer that counts, if it is here whole.
    fn parse(
        &mut self,
        outgoing: &mut Outgoing,
        interim: &mut usize,
        told: Told<'_>,
    ) -> Result<Option<Head>, LeanError> {
        loop {
            if self.unread.is_empty() {
                return Ok(None);
            }
            let Some(head) = response::take(&mut self.unread, &outgoing.method, &mut outgoing.spare)? else {
                return if self.unread.len() < MAX_HEAD {
                    Ok(None)
                } else {
                    Err(LeanError::HeadTooLarge)
                };
            };
            if !head.is_interim() {
                return Ok(Some(head));
            }
            *interim += 1;
            if *interim > MAX_INTERIM {
                return Err(LeanError::TooManyInterim);
            }
            if let (StatusCode::EARLY_HINTS, Some(tell)) = (head.status, told) {
                tell(head.headers);
            }
        }
    }

    /// `whole`: all of the request was sent.
    fn answered(self, head: Head, whole: bool, upload: Option<Upload>) -> Answered<S> {
        let mut response = Response::new(());
        *response.status_mut() = head.status;
        *response.headers_mut() = head.headers;
        *response.extensions_mut() = head.extensions;
        Answered {
            response,
            connection: self,
            framing: head.framing,
            keep_alive: head.keep_alive && whole,
            upload,
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Answered<S> {
    /// The answer's body, its head, and what must run beside it: the rest of the upload.
    pub(super) fn into_answer(self) -> (Answer<S>, Response<()>, Option<impl Future<Output = ()> + use<S>>) {
        let Connection { stream, unread } = self.connection;
        let (stream, upload) = match self.upload {
            None => (Reader::Whole(stream), None),
            Some(upload) => {
                let (reading, writing) = tokio::io::split(stream);
                (Reader::Half(reading), Some(upload.finish(writing)))
            }
        };
        let connection = Connection { stream, unread };
        let answer = Answer::new(connection, self.framing, self.keep_alive);
        (answer, self.response, upload)
    }
}

impl<S: AsyncRead + Unpin> Connection<S> {
    /// Reads what there is, about `most` bytes if there is more.
    fn poll_fill(&mut self, cx: &mut Context<'_>, most: usize) -> Poll<io::Result<usize>> {
        // Many small reads into what is left of a buffer would cost more than a new one.
        if self.unread.capacity() - self.unread.len() < most / 2 {
            self.unread.reserve(most);
        }
        poll_read_buf(Pin::new(&mut self.stream), cx, &mut self.unread)
    }
}

/// What is small is copied, so that the buffer it lies in can be used again at once.
const SMALL: usize = 4 * 1024;

/// Takes the first `length` bytes of `unread`.
fn take(unread: &mut BytesMut, length: usize) -> Bytes {
    if length > SMALL {
        return unread.split_to(length).freeze();
    }
    let taken = Bytes::copy_from_slice(unread.get(..length).unwrap_or_default());
    unread.advance(taken.len());
    taken
}
