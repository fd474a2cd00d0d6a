//! How a connection is getting on: does its client send, wait, or keep us waiting?
//!
//! hyper's own head time-out counts an idle connection as one that is slow to send a head, and sets a timer for each
//! request. Here a request costs a few relaxed stores; one timer a connection looks at them when it fires, which is
//! seldom.
//!
//! [`Paced`] sits on the socket itself, below TLS: what counts is whether the other end takes bytes, not whether a
//! buffer of ours does. HTTP/2 has several requests at once: a connection is idle when none of them is in flight, and
//! its bytes may be anything (a ping, a window), so that none of them begins a head. Whoever follows its frames says when
//! one has begun ([`Pace::block_begins`]).
//!
//! A client may be asked to leave before its time ([`Leave`]): by whoever needs its place, or has seen enough.

use std::{
    future::Future as _,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::{Buf, Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::Notify,
    time::{Sleep, sleep},
};

use crate::clock;

/// Nothing is under way; the client may stay for the idle time-out.
const IDLE: u8 = 0;
/// A head has begun to arrive; it must be whole within the header time-out.
const HEAD: u8 = 1;
/// Requests are being answered: they have time-outs of their own.
const BUSY: u8 = 2;

/// So long is read from a client that goes on sending once it has its answer and we have closed our side,
const LINGER: Duration = Duration::from_secs(5);
/// at most so much at once.
const WASTE: usize = 8 * 1024;

/// Whoever has taken so much since it first kept us waiting is no longer held to have done so.
const MUCH: u64 = 256 * 1024;

/// How long a client may take.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    pub head: Duration,
    pub idle: Duration,
    /// Without taking a byte of what is written to it.
    pub reading: Duration,
    /// Bytes a second that it has to take once it has kept us waiting for longer than that; 0: any.
    pub min_rate: u64,
}

/// Why a client is asked to leave before its time.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum Leave {
    /// It does nothing, and somebody else wants its place.
    MakeRoom = 1,
    /// It took back more requests than it may.
    Resets = 2,
    /// It sent more frames that carry nothing than it may.
    IdleFrames = 3,
    /// What it has shown in its handshake is good no more, or not for long.
    ShakeHands = 4,
}

/// What the time that is over was for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Overdue {
    Head,
    Idle,
    Reading,
}

/// Shared by a connection's stream, its requests and its timer.
#[derive(Debug)]
pub struct Pace {
    opened: Instant,
    phase: AtomicU8,
    in_flight: AtomicU32,
    /// Several requests share the connection.
    multiplexed: AtomicBool,
    since_ms: AtomicU64,
    /// One more than when the client stopped taking what we write; zero while it takes it.
    blocked_ms: AtomicU64,
    /// One more than when the client first kept us waiting for this much: it may take a little each time just before its
    /// time is over. Zero while it takes what comes.
    slow_ms: AtomicU64,
    /// Bytes that it has taken since.
    slow_bytes: AtomicU64,
    /// One more than when a block of fields began that is not whole yet; zero while there is none. HTTP/2 alone: others of
    /// its requests may be answered meanwhile.
    block_ms: AtomicU64,
    /// The last request was answered before its body was here.
    unread: AtomicBool,
    /// Whether the client is still there is to be asked.
    asks: AtomicBool,
    /// One side is closed, or about to be.
    ending: AtomicBool,
    /// Why the client is asked to leave; zero while it is not.
    leave: AtomicU8,
    /// Rung when it is.
    leaving: Notify,
}

impl Pace {
    /// A new connection owes us a head.
    pub fn new() -> Self {
        Self {
            opened: clock::monotonic(),
            phase: AtomicU8::new(HEAD),
            in_flight: AtomicU32::new(0),
            multiplexed: AtomicBool::new(false),
            since_ms: AtomicU64::new(0),
            blocked_ms: AtomicU64::new(0),
            slow_ms: AtomicU64::new(0),
            slow_bytes: AtomicU64::new(0),
            block_ms: AtomicU64::new(0),
            unread: AtomicBool::new(false),
            asks: AtomicBool::new(false),
            ending: AtomicBool::new(false),
            leave: AtomicU8::new(0),
            leaving: Notify::new(),
        }
    }

    fn enter(&self, phase: u8, now: Instant) {
        self.since_ms.store(self.ms(now), Ordering::Relaxed);
        self.phase.store(phase, Ordering::Relaxed);
    }

    fn ms(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.opened).as_millis()).unwrap_or(u64::MAX)
    }

    /// From now on the connection owes us a head, as after a handshake that had a time-out of its own.
    pub fn owes_a_head(&self, now: Instant) {
        self.enter(HEAD, now);
    }

    /// The connection speaks HTTP/2. Its first head is not owed: browsers open such connections before they need them.
    pub fn multiplex(&self, now: Instant) {
        self.multiplexed.store(true, Ordering::Relaxed);
        self.enter(IDLE, now);
    }

    /// On a connection of HTTP/2, something has begun that has to be whole within the header time-out.
    pub fn block_begins(&self, now: Instant) {
        self.block_ms.store(self.ms(now).saturating_add(1), Ordering::Relaxed);
    }

    /// It is whole.
    pub fn block_ended(&self) {
        self.block_ms.store(0, Ordering::Relaxed);
    }

    pub fn is_owed_a_block(&self) -> bool {
        self.block_ms.load(Ordering::Relaxed) != 0
    }

    /// Bytes have come.
    fn heard(&self) {
        if self.phase.load(Ordering::Relaxed) == IDLE && !self.multiplexed.load(Ordering::Relaxed) {
            self.enter(HEAD, clock::monotonic());
        }
    }

    /// What became of a write.
    fn wrote(&self, written: &Poll<std::io::Result<usize>>) {
        match written {
            Poll::Pending if self.blocked_ms.load(Ordering::Relaxed) == 0 => self.is_kept_waiting(clock::monotonic()),
            Poll::Pending => {}
            Poll::Ready(taken) => self.took(*taken.as_ref().unwrap_or(&0)),
        }
    }

    /// The client does not take what we write.
    fn is_kept_waiting(&self, now: Instant) {
        let since = self.ms(now).saturating_add(1);
        self.blocked_ms.store(since, Ordering::Relaxed);
        if self.slow_ms.load(Ordering::Relaxed) == 0 {
            self.slow_bytes.store(0, Ordering::Relaxed);
            self.slow_ms.store(since, Ordering::Relaxed);
        }
    }

    /// It takes so much.
    fn took(&self, bytes: usize) {
        if self.blocked_ms.load(Ordering::Relaxed) != 0 {
            self.blocked_ms.store(0, Ordering::Relaxed);
        }
        if self.slow_ms.load(Ordering::Relaxed) == 0 {
            return;
        }
        let taken = self.slow_bytes.load(Ordering::Relaxed) + bytes as u64;
        if taken >= MUCH {
            self.slow_ms.store(0, Ordering::Relaxed);
        } else {
            self.slow_bytes.store(taken, Ordering::Relaxed);
        }
    }

    /// A whole head is here. Each beginning needs its end.
    pub fn request_begins(&self) {
        self.unread.store(false, Ordering::Relaxed);
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        self.phase.store(BUSY, Ordering::Relaxed);
    }

    /// The request is answered though the client may still be sending it.
    pub fn leaves_unread(&self) {
        self.unread.store(true, Ordering::Relaxed);
    }

    /// Has the connection see whether its client is still there when it is polled next, and break if not. Who reads would see
    /// it; but who has a part of the next request already does not read while this one is answered, and an answer can wait for
    /// ever for something to say.
    pub fn ask_for_client(&self) {
        self.asks.store(true, Ordering::Relaxed);
    }

    /// Nothing more comes, or goes.
    pub fn ends(&self) {
        self.ending.store(true, Ordering::Relaxed);
    }

    /// Whoever speaks on the connection has begun to close it, or has met its end.
    pub fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Relaxed)
    }

    /// The last byte of an answer was handed over.
    pub fn request_ended(&self, now: Instant) {
        if self.in_flight.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.enter(IDLE, now);
        }
    }

    /// No request is in flight.
    pub fn at_rest(&self) -> bool {
        self.in_flight.load(Ordering::Relaxed) == 0
    }

    /// Since when nothing has been under way but, perhaps, a head; `None` while something is, or what was written is not
    /// taken yet, or the client was asked to leave already.
    pub fn at_leisure_since(&self) -> Option<Instant> {
        let is_at_leisure =
            self.at_rest() && self.blocked_ms.load(Ordering::Relaxed) == 0 && self.leave.load(Ordering::Relaxed) == 0;
        is_at_leisure.then(|| self.opened + Duration::from_millis(self.since_ms.load(Ordering::Relaxed)))
    }

    /// Has whoever looks after the connection end it in order. The first who asks is heard.
    pub fn ask_to_leave(&self, why: Leave) -> bool {
        let first = self
            .leave
            .compare_exchange(0, why as u8, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok();
        if first {
            self.leaving.notify_one();
        }
        first
    }

    /// Whether anybody has asked it: answers say so then.
    pub fn is_to_leave(&self) -> bool {
        self.leave.load(Ordering::Relaxed) != 0
    }

    /// Resolves once, when the client is asked to leave.
    pub async fn asked_to_leave(&self) -> Leave {
        self.leaving.notified().await;
        match self.leave.load(Ordering::Relaxed) {
            2 => Leave::Resets,
            3 => Leave::IdleFrames,
            4 => Leave::ShakeHands,
            _ => Leave::MakeRoom,
        }
    }

    /// Until when our patience with the client lasts. `None`: requests are being answered, the answers are taken, and no
    /// other request has begun.
    pub fn deadline(&self, patience: &Patience) -> Option<Instant> {
        self.due(patience).map(|(at, _)| at)
    }

    /// The same, and what it is that the client is to do until then.
    pub fn due(&self, patience: &Patience) -> Option<(Instant, Overdue)> {
        let since = |ms: &AtomicU64, limit: Duration, what| {
            let ms = ms.load(Ordering::Relaxed).checked_sub(1)?;
            Some((self.opened + Duration::from_millis(ms) + limit, what))
        };
        let blocked = since(&self.blocked_ms, patience.reading, Overdue::Reading);
        let block = since(&self.block_ms, patience.head, Overdue::Head);
        let slow = blocked.and_then(|_| {
            // So many bytes pay for so many milliseconds.
            let bytes = self.slow_bytes.load(Ordering::Relaxed);
            let paid = bytes.saturating_mul(1000).checked_div(patience.min_rate)?;
            let limit = patience.reading + Duration::from_millis(paid);
            since(&self.slow_ms, limit, Overdue::Reading)
        });
        if let Some(soonest) = blocked.into_iter().chain(slow).chain(block).min_by_key(|(at, _)| *at) {
            return Some(soonest);
        }
        let (limit, what) = match self.phase.load(Ordering::Relaxed) {
            BUSY => return None,
            HEAD => (patience.head, Overdue::Head),
            _ => (patience.idle, Overdue::Idle),
        };
        let since = Duration::from_millis(self.since_ms.load(Ordering::Relaxed));
        Some((self.opened + since + limit, what))
    }
}

impl Default for Pace {
    fn default() -> Self {
        Self::new()
    }
}

/// A client's socket that tells [`Pace`] how it is getting on.
///
/// Closed while the client still sends, a connection is reset, and the client may lose the answer that it has not read yet:
/// so it is closed in two steps (RFC 9112, 9.6), what comes in between being read and thrown away.
pub struct Paced<S> {
    stream: S,
    pace: Arc<Pace>,
    /// Whether the client has closed its side.
    has_hung_up: fn(&S) -> bool,
    /// Since our side is closed: until when the client's is waited for.
    lingering: Option<Pin<Box<Sleep>>>,
    /// Read before its time, and given back to be read again.
    unread: Bytes,
}

crate::secret::unprinted!(Paced<S>);

impl<S> Paced<S> {
    pub fn new(stream: S, pace: Arc<Pace>, has_hung_up: fn(&S) -> bool) -> Self {
        Self {
            stream,
            pace,
            has_hung_up,
            lingering: None,
            unread: Bytes::new(),
        }
    }

    /// Gives back what was read last: it is read again before anything else.
    pub fn put_back(&mut self, bytes: Bytes) {
        if self.unread.is_empty() {
            self.unread = bytes;
        } else {
            let mut both = BytesMut::with_capacity(bytes.len() + self.unread.len());
            both.extend_from_slice(&bytes);
            both.extend_from_slice(&self.unread);
            self.unread = both.freeze();
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Paced<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let this = &mut *self;
        let before = buf.filled().len();
        if this.unread.is_empty() {
            ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
        } else {
            let taken = this.unread.len().min(buf.remaining());
            buf.put_slice(this.unread.get(..taken).unwrap_or_default());
            this.unread.advance(taken);
        }
        if buf.filled().len() > before {
            this.pace.heard();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Paced<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.pace.wrote(&written);
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        // hyper flushes each time that the connection is polled.
        if self.pace.asks.load(Ordering::Relaxed) {
            self.pace.asks.store(false, Ordering::Relaxed);
            if (self.has_hung_up)(&self.stream) {
                return Poll::Ready(Err(std::io::ErrorKind::ConnectionReset.into()));
            }
        }
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        let this = &mut *self;
        this.pace.ends();
        if this.lingering.is_none() {
            ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
            if !this.pace.unread.load(Ordering::Relaxed) {
                return Poll::Ready(Ok(()));
            }
        }
        let lingering = this.lingering.get_or_insert_with(|| Box::pin(sleep(LINGER)));
        if lingering.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Ok(()));
        }
        let mut waste = [0; WASTE];
        loop {
            let mut buf = ReadBuf::new(&mut waste);
            let read = ready!(Pin::new(&mut this.stream).poll_read(cx, &mut buf));
            if read.is_err() || buf.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.pace.wrote(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Patience = Patience {
        head: Duration::from_secs(10),
        idle: Duration::from_secs(75),
        reading: Duration::from_secs(30),
        min_rate: 1024,
    };

    #[test]
    fn each_phase_has_its_own_patience() {
        let pace = Pace::new();
        let head = Some(pace.opened + PATIENCE.head);
        assert_eq!(pace.deadline(&PATIENCE), head, "a first head is owed at once");
        pace.request_begins();
        assert_eq!(pace.deadline(&PATIENCE), None);
        pace.request_ended(pace.opened + Duration::from_secs(3));
        assert_eq!(pace.deadline(&PATIENCE), Some(pace.opened + Duration::from_secs(78)));
    }

    #[tokio::test]
    async fn who_takes_nothing_is_not_waited_for_even_while_answered() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let pace = Arc::new(Pace::new());
        pace.request_begins();
        let (ours, mut theirs) = tokio::io::duplex(4);
        let mut stream = Paced::new(ours, Arc::clone(&pace), |_| false);
        stream.write_all(b"full").await.unwrap();
        assert_eq!(pace.deadline(&PATIENCE), None);
        {
            let mut more = Box::pin(stream.write_all(b"more"));
            assert!(futures_util::poll!(more.as_mut()).is_pending());
        }
        assert!(pace.deadline(&PATIENCE).is_some());
        theirs.read_exact(&mut [0; 4]).await.unwrap();
        stream.write_all(b"more").await.unwrap();
        assert_eq!(pace.deadline(&PATIENCE), None);
    }

    #[test]
    fn who_takes_a_little_now_and_then_is_held_to_a_rate() {
        let pace = Pace::new();
        pace.request_begins();
        let at = |seconds| pace.opened + Duration::from_secs(seconds);
        for turn in 0..3 {
            pace.is_kept_waiting(at(20 * turn));
            pace.took(1024);
        }
        assert_eq!(pace.deadline(&PATIENCE), None, "nothing waits");
        pace.is_kept_waiting(at(45));
        assert_eq!(pace.deadline(&PATIENCE), Some(at(33)), "three seconds are paid for");
        let any = Patience {
            min_rate: 0,
            ..PATIENCE
        };
        assert_eq!(pace.deadline(&any), Some(at(75)));
        pace.took(256 * 1024);
        pace.is_kept_waiting(at(40));
        assert_eq!(pace.deadline(&PATIENCE), Some(at(70)), "it begins anew");
    }

    #[tokio::test]
    async fn the_first_byte_after_an_answer_begins_a_head() {
        use tokio::io::AsyncReadExt;
        let pace = Arc::new(Pace::new());
        pace.request_begins();
        pace.request_ended(pace.opened);
        let mut stream = Paced::new(&b"GET"[..], Arc::clone(&pace), |_| false);
        stream.read_u8().await.unwrap();
        let deadline = pace.deadline(&PATIENCE).unwrap();
        assert!(deadline < pace.opened + PATIENCE.idle);
    }

    #[test]
    fn a_multiplexed_connection_is_idle_when_nothing_is_in_flight() {
        let pace = Pace::new();
        pace.multiplex(pace.opened);
        assert_eq!(pace.deadline(&PATIENCE), Some(pace.opened + PATIENCE.idle));
        pace.heard();
        assert_eq!(
            pace.deadline(&PATIENCE),
            Some(pace.opened + PATIENCE.idle),
            "a ping begins no head"
        );
        pace.request_begins();
        pace.request_begins();
        pace.request_ended(pace.opened);
        assert_eq!(pace.deadline(&PATIENCE), None, "one is still in flight");
        assert!(!pace.at_rest());
        pace.request_ended(pace.opened + Duration::from_secs(5));
        assert_eq!(pace.deadline(&PATIENCE), Some(pace.opened + Duration::from_secs(80)));
        assert!(pace.at_rest());
    }

    #[test]
    fn a_block_is_owed_whatever_else_goes_on() {
        let pace = Pace::new();
        pace.multiplex(pace.opened);
        let began = pace.opened + Duration::from_secs(2);
        pace.request_begins();
        pace.block_begins(began);
        assert_eq!(pace.deadline(&PATIENCE), Some(began + PATIENCE.head));
        pace.block_ended();
        assert_eq!(pace.deadline(&PATIENCE), None);
    }

    #[tokio::test]
    async fn who_does_nothing_is_asked_to_leave_once() {
        let pace = Pace::new();
        assert_eq!(pace.at_leisure_since(), Some(pace.opened), "not even a head has come");
        pace.request_begins();
        assert_eq!(pace.at_leisure_since(), None);
        let ended = pace.opened + Duration::from_secs(3);
        pace.request_ended(ended);
        assert_eq!(pace.at_leisure_since(), Some(ended));
        pace.is_kept_waiting(ended);
        assert_eq!(pace.at_leisure_since(), None, "the end of an answer is not taken yet");
        pace.took(1);

        assert!(pace.ask_to_leave(Leave::Resets));
        assert!(!pace.ask_to_leave(Leave::MakeRoom));
        assert_eq!(pace.asked_to_leave().await, Leave::Resets);
        assert_eq!(pace.at_leisure_since(), None, "it is on its way");
        assert!(futures_util::poll!(Box::pin(pace.asked_to_leave())).is_pending());
    }

    #[tokio::test]
    async fn what_is_put_back_is_read_first() {
        use tokio::io::AsyncReadExt;
        let mut stream = Paced::new(&b"three"[..], Arc::new(Pace::new()), |_| false);
        stream.put_back(Bytes::from_static(b"two "));
        stream.put_back(Bytes::from_static(b"one "));
        let mut all = String::new();
        stream.read_to_string(&mut all).await.unwrap();
        assert_eq!(all, "one two three");
    }
}
