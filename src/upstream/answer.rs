//! An answer's body, and what it holds until its end: the connection that it comes from, and its place in flight.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::net::TcpStream;
use tokio_util::sync::DropGuard;

use super::{Lease, WireError, lean};

/// The body of an upstream's answer. Once its last byte is here the connection is anybody's again; dropped before, it
/// takes the connection along.
pub struct AnswerBody {
    /// `None`: it has ended.
    open: Option<Open>,
}

struct Open {
    answer: lean::answer::Answer<TcpStream>,
    lease: Lease,
    /// The rest of the request, which is still being sent, ends with the answer.
    _upload: Option<DropGuard>,
}

impl AnswerBody {
    pub(super) fn new(answer: lean::answer::Answer<TcpStream>, lease: Lease, upload: Option<DropGuard>) -> Self {
        let mut body = Self {
            open: Some(Open {
                answer,
                lease,
                _upload: upload,
            }),
        };
        body.give_back_if_ended();
        body
    }

    fn give_back_if_ended(&mut self) {
        if self.open.as_ref().is_some_and(|open| open.answer.is_end())
            && let Some(Open { answer, lease, .. }) = self.open.take()
            && let Some(connection) = answer.into_idle()
        {
            lease.give_back(connection);
        }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = WireError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, WireError>>> {
        let Some(open) = &mut self.open else {
            return Poll::Ready(None);
        };
        let frame = ready!(open.answer.poll_frame(cx));
        // Before the last frame is passed on: the next request may be waiting for a connection.
        self.give_back_if_ended();
        Poll::Ready(frame.map(|frame| frame.map_err(WireError::Lean)))
    }

    fn is_end_stream(&self) -> bool {
        self.open.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.open
            .as_ref()
            .map_or_else(|| SizeHint::with_exact(0), |open| open.answer.size_hint())
    }
}

impl fmt::Debug for AnswerBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.open.is_some() {
            "AnswerBody(open)"
        } else {
            "AnswerBody(ended)"
        })
    }
}
