//! An answer's body on its way to the client: never gathered, and owner of the request's record, which is written at
//! its last byte.

use std::{
    fmt,
    future::Future,
    io, mem,
    pin::Pin,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use http_body::{Body, Frame, SizeHint};
use hyper::{body::Incoming, client::conn::http1::SendRequest};
use tokio::{
    sync::{OwnedSemaphorePermit, oneshot},
    time::{Sleep, sleep_until},
};
use tower_http::services::fs::ServeFileSystemResponseBody;

use super::{grpc, record::Record, taking, trailers};
use crate::{
    clock,
    problem::{GRPC_STATUS, grpc_status},
    session::streams::{StreamGuard, Why},
    upstream::{Place, WireError, answer::AnswerBody, body::RequestBody},
};

/// An answer's body as the client reads it.
pub struct ProxyBody {
    source: Source,
    bytes: u64,
    /// It was read to its end; one of unknown length is known to be whole only by that.
    ended: bool,
    stall: Stall,
    /// Until when it may go on, if it is one that could for ever.
    stream: Option<(StreamGuard, GoesOn)>,
    record: Option<Box<Record>>,
}

/// How an answer goes on for as long as somebody listens.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum GoesOn {
    /// Event by event; it may end anywhere.
    Events,
    /// Message by message of a gRPC call, whose end says how it went.
    Call,
}

impl GoesOn {
    /// `None`: an ordinary answer, as most are.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let media = headers.get(header::CONTENT_TYPE)?;
        if is_events(media) {
            return Some(Self::Events);
        }
        grpc::names(media).then_some(Self::Call)
    }
}

/// Whether a media type is that of an event stream; parameters may follow, and its letters have no case.
fn is_events(media: &HeaderValue) -> bool {
    const NAME: &[u8] = b"text/event-stream";
    let name = media.as_bytes().get(..NAME.len());
    name.is_some_and(|name| name.eq_ignore_ascii_case(NAME))
}

/// Why an answer broke off half way.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    #[error("the upstream broke off its answer")]
    Broken(#[source] WireError),
    #[error("the upstream sent nothing of its answer for {0:?}")]
    Stalled(Duration),
    #[error("a file could not be read to its end")]
    File(#[source] io::Error),
}

/// Notices an upstream that stops half way. A timer is made only once there is something to wait for.
#[derive(Default)]
struct Stall {
    /// `None`: it may take as long as it likes, as an event stream does.
    limit: Option<Duration>,
    since: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Stall {
    /// To be called while nothing comes; ready when that has lasted too long.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Duration> {
        let Some(limit) = self.limit else {
            return Poll::Pending;
        };
        let now = clock::monotonic();
        let deadline = *self.since.get_or_insert(now) + limit;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(deadline.into())));
        loop {
            ready!(timer.as_mut().poll(cx));
            if clock::monotonic() >= deadline {
                return Poll::Ready(limit);
            }
            timer.as_mut().reset(deadline.into());
        }
    }
}

enum Source {
    Own(Option<Bytes>),
    /// Nothing: what follows is a tunnel's, whose end the record waits for.
    Tunnel(Option<oneshot::Sender<Box<Record>>>),
    File {
        file: ServeFileSystemResponseBody,
        _place: OwnedSemaphorePermit,
    },
    Upstream(AnswerBody),
    /// In a box: it is rare, and an answer's body is moved.
    Declined(Box<Declined>),
    Silenced(Box<Silenced>),
}

/// Of what comes where nothing may: an upstream that goes on is given up. Most say nothing but that this is the end.
const MOST_UNHEARD: usize = 16 << 10;

struct Silenced {
    answer: AnswerBody,
    patience: usize,
}

impl Silenced {
    /// Waits for the end, which the upstream is left to reach: broken off it would stop what it still does, or reads.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, WireError>>> {
        while let Some(frame) = ready!(Pin::new(&mut self.answer).poll_frame(cx)?) {
            // Each counts, so that empty ones end, too.
            let unheard = frame.data_ref().map_or(0, Bytes::len).saturating_add(1);
            match self.patience.checked_sub(unheard) {
                Some(left) => self.patience = left,
                None => break,
            }
        }
        Poll::Ready(None)
    }
}

struct Declined {
    incoming: Incoming,
    _held: (SendRequest<RequestBody>, Place),
}

impl ProxyBody {
    pub fn own(bytes: Bytes) -> Self {
        Self::of(Source::Own((!bytes.is_empty()).then_some(bytes)), None)
    }

    /// As an answer has it that can't have one (RFC 9110, 6.4.1): what an upstream sends all the same is not for the client. Tells
    /// whether there may be something.
    pub fn leave_content_out(&mut self) -> bool {
        if self.is_end_stream() {
            return false;
        }
        self.source = match mem::replace(&mut self.source, Source::Own(None)) {
            Source::Upstream(answer) => Source::Silenced(Box::new(Silenced {
                answer,
                patience: MOST_UNHEARD,
            })),
            _ => Source::Own(None),
        };
        true
    }

    /// As an answer to `HEAD` has it: what we would say ourselves is left out.
    #[must_use]
    pub fn unsaid(mut self) -> Self {
        if let Source::Own(bytes) = &mut self.source {
            *bytes = None;
        }
        self
    }

    /// Of an answer behind which a tunnel stands. `hand` takes the record to it.
    pub fn tunnel(hand: oneshot::Sender<Box<Record>>) -> Self {
        Self::of(Source::Tunnel(Some(hand)), None)
    }

    /// A file's bytes, as they are read. `place`: among open files.
    pub fn file(file: ServeFileSystemResponseBody, place: OwnedSemaphorePermit) -> Self {
        Self::of(Source::File { file, _place: place }, None)
    }

    /// `stall`: for how long the upstream may send nothing; `None` for as long as it likes.
    pub fn upstream(answer: AnswerBody, stall: Option<Duration>) -> Self {
        Self::of(Source::Upstream(answer), stall)
    }

    /// An answer to an upgrade request that is not an upgrade; its connection is not used again. `stall`: as of
    /// [`ProxyBody::upstream`].
    pub fn declined(
        incoming: Incoming,
        sender: SendRequest<RequestBody>,
        in_flight: Place,
        stall: Option<Duration>,
    ) -> Self {
        let declined = Box::new(Declined {
            incoming,
            _held: (sender, in_flight),
        });
        Self::of(Source::Declined(declined), stall)
    }

    fn of(source: Source, stall: Option<Duration>) -> Self {
        Self {
            source,
            bytes: 0,
            ended: false,
            stall: Stall {
                limit: stall,
                ..Stall::default()
            },
            stream: None,
            record: None,
        }
    }

    /// Ends it when `guard` says so, if it is one that could go on for ever.
    #[must_use]
    pub fn going_on(mut self, how: Option<GoesOn>, guard: impl FnOnce() -> StreamGuard) -> Self {
        self.stream = how.map(|how| (guard(), how));
        if let Some((guard, _)) = &self.stream {
            taking::lasts(guard.ending());
        }
        self
    }

    /// Writes `record` to the log when the last byte has gone, or nobody wants it any more.
    #[must_use]
    pub fn recorded(mut self, record: Box<Record>) -> Self {
        // The head goes first; the body is not asked before it has.
        taking::gave(0);
        self.record = if let Source::Tunnel(hand) = &mut self.source {
            record.tunnel_opened();
            // One that has ended already takes none.
            match hand.take() {
                Some(hand) => hand.send(record).err(),
                None => Some(record),
            }
        } else {
            Some(record)
        };
        self
    }
}

impl ProxyBody {
    fn count(&mut self, frame: Frame<Bytes>) -> Frame<Bytes> {
        self.bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
        frame
    }

    /// Ends a stream that may not go on: the upstream's connection with it.
    fn end(&mut self, why: Why, how: GoesOn) -> Option<Frame<Bytes>> {
        self.source = Source::Own(None);
        self.stream = None;
        if let Some(record) = &mut self.record {
            record.had_to_end(why);
        }
        // Events end as they could have by themselves: whoever listens asks again, and is told.
        (how == GoesOn::Call).then(|| {
            let status = match why {
                Why::Revoked | Why::Expired => StatusCode::UNAUTHORIZED,
                Why::NotAllowed => StatusCode::FORBIDDEN,
                Why::Reloaded | Why::Stopping => StatusCode::SERVICE_UNAVAILABLE,
            };
            Frame::trailers(HeaderMap::from_iter([(GRPC_STATUS, grpc_status(status))]))
        })
    }

    fn next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, AnswerError>>> {
        let this = self;
        if let Some((guard, how)) = &this.stream
            && let Poll::Ready(why) = guard.poll_closed(cx)
        {
            let how = *how;
            return Poll::Ready(this.end(why, how).map(Ok));
        }
        let polled = match &mut this.source {
            Source::Own(bytes) => return Poll::Ready(bytes.take().map(|bytes| Ok(this.count(Frame::data(bytes))))),
            Source::Tunnel(_) => return Poll::Ready(None),
            Source::File { file, .. } => match ready!(Pin::new(file).poll_frame(cx)) {
                Some(Ok(frame)) => return Poll::Ready(Some(Ok(this.count(frame)))),
                None => {
                    this.ended = true;
                    return Poll::Ready(None);
                }
                Some(Err(error)) => {
                    let error = AnswerError::File(error);
                    if let Some(record) = &mut this.record {
                        record.broke_off(&error);
                    }
                    return Poll::Ready(Some(Err(error)));
                }
            },
            Source::Upstream(answer) => Pin::new(answer).poll_frame(cx),
            Source::Silenced(silenced) => silenced.poll_end(cx),
            Source::Declined(declined) => Pin::new(&mut declined.incoming)
                .poll_frame(cx)
                .map_err(WireError::Hyper),
        };
        let outcome = match polled {
            Poll::Ready(Some(Ok(mut frame))) => {
                this.stall.since = None;
                if let Some(fields) = frame.trailers_mut() {
                    let route = this.record.as_ref().and_then(|record| record.route.as_ref());
                    trailers::clean_answer(fields, route.map(|route| &route.response_headers));
                }
                return Poll::Ready(Some(Ok(this.count(frame))));
            }
            Poll::Ready(None) => {
                this.ended = true;
                return Poll::Ready(None);
            }
            Poll::Ready(Some(Err(error))) => AnswerError::Broken(error),
            Poll::Pending => AnswerError::Stalled(ready!(this.stall.poll(cx))),
        };
        if let Some(record) = &mut this.record {
            record.broke_off(&outcome);
        }
        Poll::Ready(Some(Err(outcome)))
    }
}

impl Body for ProxyBody {
    type Data = Bytes;
    type Error = AnswerError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, AnswerError>>> {
        let next = self.next(cx);
        match &next {
            Poll::Ready(Some(Ok(frame))) => taking::gave(frame.data_ref().map_or(0, |data| data.len() as u64)),
            Poll::Ready(_) => {}
            Poll::Pending => taking::waits(),
        }
        next
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Own(bytes) => bytes.is_none(),
            Source::Tunnel(_) => true,
            Source::File { file, .. } => file.is_end_stream(),
            Source::Upstream(answer) => answer.is_end_stream(),
            Source::Silenced(silenced) => silenced.answer.is_end_stream(),
            Source::Declined(declined) => declined.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Own(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Source::Tunnel(_) => SizeHint::with_exact(0),
            Source::File { file, .. } => file.size_hint(),
            Source::Upstream(answer) => answer.size_hint(),
            // It would be said.
            Source::Silenced(_) => SizeHint::default(),
            Source::Declined(declined) => declined.incoming.size_hint(),
        }
    }
}

impl Drop for ProxyBody {
    fn drop(&mut self) {
        // A body of known length is not polled once more after its last byte.
        let whole = self.ended || self.is_end_stream();
        if let Some(mut record) = self.record.take() {
            // It was due to end, and nobody asked for more of it.
            if let Some(why) = self.stream.as_ref().and_then(|(guard, _)| guard.why()) {
                record.had_to_end(why);
            }
            if matches!(self.source, Source::Tunnel(_)) {
                record.tunnel_ended(0, 0);
            } else {
                record.write(self.bytes, whole);
            }
        }
    }
}

impl fmt::Debug for ProxyBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.source {
            Source::Own(_) => "ProxyBody(own)",
            Source::Tunnel(_) => "ProxyBody(tunnel)",
            Source::File { .. } => "ProxyBody(file)",
            Source::Upstream(_) | Source::Declined(_) | Source::Silenced(_) => "ProxyBody(upstream)",
        })
    }
}
