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
pub struct AnswerBody(Source);

enum Source {
    Http1 {
        answer: Answer<Stream>,
        lease: Lease,
        /// The rest of the request, which is still being sent, ends with the answer.
        _upload: (Option<DropGuard>, Sending),
    },
    /// Others use the connection as well: it is only counted.
    Http2 {
        incoming: Incoming,
        sending: Sending,
        _held: (Held, Place),
    },
    Ended,
}

impl AnswerBody {
    pub(super) fn http1(answer: Answer<Stream>, lease: Lease, upload: (Option<DropGuard>, Sending)) -> Self {
        let mut body = Self(Source::Http1 {
            answer,
            lease,
            _upload: upload,
        });
        body.let_go_if_ended();
        body
    }

    pub(super) fn http2(incoming: Incoming, held: (Held, Place), sending: Sending) -> Self {
        let mut body = Self(Source::Http2 {
            incoming,
            sending,
            _held: held,
        });
        body.let_go_if_ended();
        body
    }

    fn let_go_if_ended(&mut self) {
        let ended = match &self.0 {
            Source::Http1 { answer, .. } => answer.is_end(),
            Source::Http2 { incoming, .. } => incoming.is_end_stream(),
            Source::Ended => false,
        };
        if !ended {
            return;
        }
        match std::mem::replace(&mut self.0, Source::Ended) {
            Source::Http1 { answer, lease, .. } => {
                if let Some(connection) = answer.into_idle() {
                    lease.give_back(connection);
                }
            }
            Source::Http2 { sending, .. } => sending.let_go(),
            Source::Ended => {}
        }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = WireError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, WireError>>> {
        let frame = match &mut self.0 {
            Source::Http1 { answer, .. } => ready!(answer.poll_frame(cx)).map(|frame| frame.map_err(WireError::Lean)),
            Source::Http2 { incoming, .. } => {
                let frame = ready!(Pin::new(incoming).poll_frame(cx));
                frame.map(|frame| frame.map_err(WireError::Hyper))
            }
            Source::Ended => return Poll::Ready(None),
        };
        // Before the last frame is passed on: the next request may be waiting for a connection.
        self.let_go_if_ended();
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.0, Source::Ended)
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Source::Http1 { answer, .. } => answer.size_hint(),
            Source::Http2 { incoming, .. } => incoming.size_hint(),
            Source::Ended => SizeHint::with_exact(0),
        }
    }
}

impl fmt::Debug for AnswerBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Source::Http1 { .. } => "AnswerBody(HTTP/1.1)",
            Source::Http2 { .. } => "AnswerBody(HTTP/2)",
            Source::Ended => "AnswerBody(ended)",
        })
    }
}
