//! An answer's body, and what it holds until its end: the connection that it comes from, and its place in flight.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio_util::sync::DropGuard;

use super::{
    Place, WireError,
    http2::Held,
    lean::answer::Answer,
    pool::{Lease, Sending},
    stream::Stream,
};

/// The body of an upstream's answer. Once its last byte is here the connection is anybody's again; dropped before, it
/// takes the connection along, or ends its stream.
///
/// What comes over time lies in a box: most answers are here whole with their head, and what carries them is moved.
pub struct AnswerBody(Source);

enum Source {
    /// All of it, or of what is left.
    Here(Bytes),
    Http1(Box<Http1>),
    Http2(Box<Http2>),
}

struct Http1 {
    answer: Answer<Stream>,
    lease: Lease,
    /// The rest of the request, which is still being sent, ends with the answer.
    _upload: (Option<DropGuard>, Sending),
}

struct Http2 {
    incoming: Incoming,
    sending: Sending,
    /// Others use the connection as well: it is only counted.
    _held: (Held, Place),
}

impl Http1 {
    fn let_go(self) {
        if let Some(connection) = self.answer.into_idle() {
            self.lease.give_back(connection);
        }
    }
}

impl AnswerBody {
    pub(super) fn http1(mut answer: Answer<Stream>, lease: Lease, upload: (Option<DropGuard>, Sending)) -> Self {
        let here = answer.take_if_whole();
        let http1 = Http1 {
            answer,
            lease,
            _upload: upload,
        };
        Self(match here {
            Some(here) => {
                http1.let_go();
                Source::Here(here)
            }
            None => Source::Http1(Box::new(http1)),
        })
    }

    pub(super) fn http2(incoming: Incoming, held: (Held, Place), sending: Sending) -> Self {
        if incoming.is_end_stream() {
            sending.let_go();
            return Self(Source::Here(Bytes::new()));
        }
        Self(Source::Http2(Box::new(Http2 {
            incoming,
            sending,
            _held: held,
        })))
    }

    fn let_go_if_ended(&mut self) {
        let ended = match &self.0 {
            Source::Http1(http1) => http1.answer.is_end(),
            Source::Http2(http2) => http2.incoming.is_end_stream(),
            Source::Here(_) => false,
        };
        if !ended {
            return;
        }
        match std::mem::replace(&mut self.0, Source::Here(Bytes::new())) {
            Source::Http1(http1) => http1.let_go(),
            Source::Http2(http2) => http2.sending.let_go(),
            Source::Here(_) => {}
        }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = WireError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, WireError>>> {
        let frame = match &mut self.0 {
            Source::Here(here) if here.is_empty() => return Poll::Ready(None),
            Source::Here(here) => return Poll::Ready(Some(Ok(Frame::data(std::mem::take(here))))),
            Source::Http1(http1) => {
                let frame = ready!(http1.answer.poll_frame(cx));
                frame.map(|frame| frame.map_err(WireError::Lean))
            }
            Source::Http2(http2) => {
                let frame = ready!(Pin::new(&mut http2.incoming).poll_frame(cx));
                frame.map(|frame| frame.map_err(WireError::Hyper))
            }
        };
        // Before the last frame is passed on: the next request may be waiting for a connection.
        self.let_go_if_ended();
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        matches!(&self.0, Source::Here(here) if here.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Source::Here(here) => SizeHint::with_exact(here.len() as u64),
            Source::Http1(http1) => http1.answer.size_hint(),
            Source::Http2(http2) => http2.incoming.size_hint(),
        }
    }
}

impl fmt::Debug for AnswerBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Source::Here(_) => "AnswerBody(here)",
            Source::Http1(_) => "AnswerBody(HTTP/1.1)",
            Source::Http2(_) => "AnswerBody(HTTP/2)",
        })
    }
}
