//! A request's body on its way to an upstream: counted, limited, watched; never gathered.
//!
//! It keeps the client honest (size, silence, rate) and lets whoever waits for the answer see how far it is.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Sleep, sleep_until};

use crate::{clock, config};

/// A client may take so long before [`Limits::min_rate`] is demanded of it.
const RATE_GRACE: Duration = Duration::from_secs(10);

/// What is demanded of a request body.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub max: u64,
    /// No byte for so long ends the request. [`Duration::MAX`]: it never does.
    pub silence: Duration,
    /// Bytes per second on average, once [`RATE_GRACE`] is over.
    pub min_rate: u64,
}

impl Limits {
    pub const fn of(server: &config::Server, max: u64) -> Self {
        Self {
            max,
            silence: server.body_timeout,
            min_rate: server.min_body_rate,
        }
    }
}

impl Limits {
    /// Of a gRPC call: its client is silent while it has nothing to say. How much it may say in all has its limit still.
    /// Where only the answer shows that it is one: [`BodyWatch::may_be_silent`].
    pub const fn of_call(max: u64) -> Self {
        Self {
            max,
            silence: Duration::MAX,
            min_rate: 0,
        }
    }

    /// For how long a client that has sent so many bytes may now send nothing, after it was waited for so long before.
    fn patience(&self, bytes: u64, waited: Duration) -> Duration {
        if self.min_rate == 0 {
            return self.silence;
        }
        // So many bytes pay for so many milliseconds.
        let paid = Duration::from_millis(bytes.saturating_mul(1000) / self.min_rate);
        self.silence.min(paid.max(RATE_GRACE).saturating_sub(waited))
    }
}

/// Why a request body ended before its end.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BodyError {
    #[error("the request body is larger than allowed")]
    TooLarge,
    #[error("the request body came too slowly")]
    TooSlow,
    #[error("the request body is malformed or broke off")]
    Broken,
}

/// What is known of a request body while something else reads it.
#[derive(Debug)]
pub struct BodyWatch {
    started: Instant,
    bytes: AtomicU64,
    /// Milliseconds after `started` at which the last byte came.
    moved_ms: AtomicU64,
    failure: AtomicU8,
    finished: AtomicBool,
    /// Nobody waits for the rest.
    unhurried: AtomicBool,
    /// Nobody needs the rest.
    abandoned: AtomicBool,
    waker: AtomicWaker,
}

impl BodyWatch {
    fn new() -> Self {
        Self {
            started: clock::monotonic(),
            bytes: AtomicU64::new(0),
            moved_ms: AtomicU64::new(0),
            failure: AtomicU8::new(0),
            finished: AtomicBool::new(false),
            unhurried: AtomicBool::new(false),
            abandoned: AtomicBool::new(false),
            waker: AtomicWaker::new(),
        }
    }

    /// Nobody needs the rest: whoever sends the body stops, and its upstream sees that it was broken off.
    pub fn abandon(&self) {
        if !self.finished() {
            self.abandoned.store(true, Ordering::Release);
            self.waker.wake();
        }
    }

    /// Its answer shows that it is a gRPC call: from now on its client may take as long as it likes. A timer that runs
    /// already looks here when it fires.
    pub fn may_be_silent(&self) {
        self.unhurried.store(true, Ordering::Relaxed);
    }

    fn is_abandoned(&self) -> bool {
        self.abandoned.load(Ordering::Acquire)
    }

    /// Whether it was read to its end. Until then the connection that it goes to carries it still.
    pub fn finished(&self) -> bool {
        self.finished.load(Ordering::Relaxed)
    }

    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// When it moved last; the time-out for an answer counts from there.
    pub fn moved_at(&self) -> Instant {
        self.started + Duration::from_millis(self.moved_ms.load(Ordering::Relaxed))
    }

    pub fn failure(&self) -> Option<BodyError> {
        match self.failure.load(Ordering::Relaxed) {
            0 => None,
            1 => Some(BodyError::TooLarge),
            2 => Some(BodyError::TooSlow),
            _ => Some(BodyError::Broken),
        }
    }

    fn fail(&self, error: BodyError) -> BodyError {
        let code = match error {
            BodyError::TooLarge => 1,
            BodyError::TooSlow => 2,
            BodyError::Broken => 3,
        };
        self.failure.store(code, Ordering::Relaxed);
        error
    }

    fn moved(&self, bytes: u64) -> u64 {
        let ms = clock::monotonic().saturating_duration_since(self.started).as_millis();
        self.moved_ms
            .store(u64::try_from(ms).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes
    }
}

/// Takes out of a body's trailers what may not come there.
#[derive(Clone)]
pub struct CleanTrailers(Arc<dyn Fn(&mut HeaderMap) + Send + Sync>);

impl CleanTrailers {
    pub fn new(clean: impl Fn(&mut HeaderMap) + Send + Sync + 'static) -> Self {
        Self(Arc::new(clean))
    }
}

impl fmt::Debug for CleanTrailers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CleanTrailers")
    }
}

/// A request's body as an upstream reads it. Trailers pass if somebody cleans them, else they end here.
pub struct RequestBody(Option<Box<Streaming>>);

struct Streaming {
    incoming: Incoming,
    limits: Limits,
    trailers: Option<CleanTrailers>,
    watch: Arc<BodyWatch>,
    /// It was read from, or tried to.
    touched: bool,
    /// Since when we wait for the client. While the upstream doesn't read, or isn't found, the client waits for us.
    waiting_since: Option<Instant>,
    /// For how long we waited before that.
    waited: Duration,
    timer: Option<Pin<Box<Sleep>>>,
}

impl RequestBody {
    pub const EMPTY: Self = Self(None);

    /// The watch is `None` for a body that is known to be empty.
    pub fn new(incoming: Incoming, limits: Limits, trailers: Option<CleanTrailers>) -> (Self, Option<Arc<BodyWatch>>) {
        if incoming.is_end_stream() {
            return (Self::EMPTY, None);
        }
        let watch = Arc::new(BodyWatch::new());
        let streaming = Streaming {
            incoming,
            limits,
            trailers,
            watch: Arc::clone(&watch),
            touched: false,
            waiting_since: None,
            waited: Duration::ZERO,
            timer: None,
        };
        (Self(Some(Box::new(streaming))), Some(watch))
    }

    pub const fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Nothing was asked of the client yet: whoever gets it now gets all of it.
    pub fn is_untouched(&self) -> bool {
        self.0.as_ref().is_none_or(|streaming| !streaming.touched)
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.0 {
            None => Poll::Ready(None),
            Some(streaming) => streaming.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.0
            .as_ref()
            .is_none_or(|streaming| streaming.incoming.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.0
            .as_ref()
            .map_or_else(|| SizeHint::with_exact(0), |streaming| streaming.incoming.size_hint())
    }
}

impl Streaming {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.touched = true;
        loop {
            if self.watch.is_abandoned() {
                return Poll::Ready(Some(Err(BodyError::Broken)));
            }
            let Poll::Ready(frame) = Pin::new(&mut self.incoming).poll_frame(cx) else {
                self.watch.waker.register(cx.waker());
                if self.watch.is_abandoned() {
                    continue;
                }
                ready!(self.poll_patience(cx));
                return Poll::Ready(Some(Err(self.watch.fail(BodyError::TooSlow))));
            };
            if let Some(since) = self.waiting_since.take() {
                self.waited += clock::monotonic().saturating_duration_since(since);
            }
            let frame = match frame {
                None => {
                    self.watch.finished.store(true, Ordering::Relaxed);
                    return Poll::Ready(None);
                }
                Some(Err(_)) => return Poll::Ready(Some(Err(self.watch.fail(BodyError::Broken)))),
                Some(Ok(frame)) => frame,
            };
            let data = match frame.into_data() {
                Ok(data) => data,
                Err(frame) => match (&self.trailers, frame.into_trailers()) {
                    (Some(CleanTrailers(clean)), Ok(mut trailers)) => {
                        clean(&mut trailers);
                        // Nothing comes behind them.
                        self.watch.finished.store(true, Ordering::Relaxed);
                        return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
                    }
                    _ => continue,
                },
            };
            let total = self.watch.moved(data.len() as u64);
            // A body of known length is not polled once more after its last byte.
            let finished = self.incoming.is_end_stream();
            self.watch.finished.store(finished, Ordering::Relaxed);
            return Poll::Ready(Some(if total > self.limits.max {
                Err(self.watch.fail(BodyError::TooLarge))
            } else {
                Ok(Frame::data(data))
            }));
        }
    }

    /// Ready when the client's time is up. The timer is set seldom: each time it fires the deadline is looked at anew.
    fn poll_patience(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.watch.unhurried.load(Ordering::Relaxed) {
            return Poll::Pending;
        }
        let since = *self.waiting_since.get_or_insert_with(clock::monotonic);
        let Some(deadline) = since.checked_add(self.limits.patience(self.watch.bytes(), self.waited)) else {
            return Poll::Pending;
        };
        loop {
            let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(deadline.into())));
            ready!(timer.as_mut().poll(cx));
            if clock::monotonic() >= deadline {
                return Poll::Ready(());
            }
            timer.as_mut().reset(deadline.into());
        }
    }
}

impl fmt::Debug for RequestBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_empty() {
            "RequestBody(empty)"
        } else {
            "RequestBody(streaming)"
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_is_for_silence_and_for_the_rate() {
        let limits = Limits {
            max: 0,
            silence: Duration::from_secs(30),
            min_rate: 1024,
        };
        let patience = |bytes, waited| limits.patience(bytes, Duration::from_secs(waited)).as_secs();
        assert_eq!(patience(0, 0), 10, "nothing is paid for yet, but a grace");
        assert_eq!(patience(0, 9), 1);
        assert_eq!(patience(5 * 1024, 12), 0, "five seconds are paid for, twelve were used");
        assert_eq!(patience(20 * 1024, 12), 8);
        assert_eq!(
            patience(1024 * 1024, 12),
            30,
            "plenty was sent, yet silence has its limit"
        );
        let no_rate = Limits { min_rate: 0, ..limits };
        assert_eq!(no_rate.patience(0, Duration::from_hours(1)), limits.silence);
    }
}
