//! Whether a client of HTTP/2 takes its answer.
//!
//! It may keep a stream's window shut: then the connection is well, every ping is answered, and the answer waits, and with
//! it whatever carries it: a connection to the upstream, a place in its limit. A socket that takes bytes says nothing of it
//! ([`Pace`](super::pace::Pace)), and hyper holds one piece of a body until there is room for it, and asks for the next only
//! then. So what counts is for how long a body was not asked, and how much it gave before.
//!
//! The streams of a connection take turns: one may wait long for its own while the others are served, however fast the
//! client takes what comes. That is no fault of it. So a stream whose time is over waits on while the connection takes
//! what is demanded, until the others have had more than their share ([`Turns`]).
//!
//! The body says who is waited for ([`gave`], [`waits`]) in a note of the thread, which is read behind each poll of the
//! stream that holds the body: they are of one task, and nobody else's poll comes between. That costs a few stores; a timer
//! is only made once an answer waits.
//!
//! A body that lasts for as long as its session does ([`lasts`]) can't end while it is not asked. So a stream that has to end,
//! and is kept from it by its client, is reset.

use std::{
    cell::Cell,
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::atomic::{AtomicU64, Ordering},
    task::Poll,
    time::{Duration, Instant},
};

use tokio::time::{Sleep, sleep_until};
use tracing::debug;

use crate::{clock, session::streams::Ending};

/// Who is waited for, as a body has it.
#[derive(Clone, Copy)]
enum Turn {
    /// The client, which has so many bytes to take before more is asked for.
    Client(u64),
    /// Whoever the body comes from.
    Source,
}

thread_local! {
    /// What a body said last in the poll that runs.
    static TURN: Cell<Option<Turn>> = const { Cell::new(None) };
    /// Of a body that was made in the poll that runs, and may have to end before its end.
    static LASTS: Cell<Option<Ending>> = const { Cell::new(None) };
}

/// A body was made that ends when it is told to.
pub(super) fn lasts(ending: Ending) {
    LASTS.set(Some(ending));
}

/// A body has given so many bytes: they are the client's to take.
pub(super) fn gave(bytes: u64) {
    TURN.set(Some(Turn::Client(bytes)));
}

/// A body has nothing to give.
pub(super) fn waits() {
    TURN.set(Some(Turn::Source));
}

/// What the streams of one connection have to do with each other.
#[derive(Debug, Default)]
pub struct Turns {
    /// Streams that have waited for their client, and have not ended.
    streams: AtomicU64,
    /// Bytes that the connection took. Not what streams gave: between two pieces of one the client takes up to all that
    /// waits for it, and streams that began together give together.
    sent: AtomicU64,
    /// How often the client was heard.
    heard: AtomicU64,
}

/// So much may go out for each of the others before a stream has its turn: what may wait for one, twice over.
const SHARE: u64 = 512 * 1024;

/// A stream that waits for its client.
struct Waiting {
    until: Instant,
    /// What had been sent when it began to wait,
    since: u64,
    /// and when its time was looked at last.
    looked: u64,
    /// The most streams that there were.
    streams: u64,
}

impl Turns {
    /// The connection took so many bytes.
    pub fn sent(&self, bytes: usize) {
        self.sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// The client has sent something.
    pub fn heard(&self) {
        self.heard.fetch_add(1, Ordering::Relaxed);
    }

    pub fn heard_in_all(&self) -> u64 {
        self.heard.load(Ordering::Relaxed)
    }

    pub fn sent_in_all(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    fn wait(&self, until: Instant) -> Waiting {
        let sent = self.sent.load(Ordering::Relaxed);
        Waiting {
            until,
            since: sent,
            looked: sent,
            streams: self.streams.load(Ordering::Relaxed),
        }
    }

    /// Whether a stream whose time is over may wait on: it is the others' turn, and they get on.
    fn are_others(&self, waiting: &mut Waiting, taking: &Taking) -> bool {
        let sent = self.sent.load(Ordering::Relaxed);
        let millis = u64::try_from(taking.silence.as_millis()).unwrap_or(u64::MAX);
        let demanded = (taking.min_rate.saturating_mul(millis) / 1000).max(1);
        let get_on = sent.saturating_sub(waiting.looked) >= demanded;
        waiting.looked = sent;
        // Some may have had their share, and ended, meanwhile.
        waiting.streams = waiting.streams.max(self.streams.load(Ordering::Relaxed));
        get_on && sent.saturating_sub(waiting.since) < SHARE.saturating_mul(waiting.streams)
    }
}

/// Counts a stream while it lives.
struct Counted<'t>(&'t AtomicU64);

impl<'t> Counted<'t> {
    fn new(streams: &'t AtomicU64) -> Self {
        streams.fetch_add(1, Ordering::Relaxed);
        Self(streams)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What a client may do with an answer that is there.
#[derive(Clone, Copy, Debug)]
pub struct Taking {
    /// For so long it may take nothing,
    pub silence: Duration,
    /// and bytes that were given are taken no slower than so many in a second.
    pub min_rate: u64,
}

impl Taking {
    fn patience(&self, bytes: u64) -> Duration {
        let paid = Duration::from_millis(bytes.saturating_mul(1000) / self.min_rate.max(1));
        self.silence.saturating_add(paid)
    }
}

/// What became of an answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Taken {
    ToItsEnd,
    GivenUp,
    /// It had to end, and its client kept it from saying so.
    HadToEnd,
}

/// Runs a `stream` of HTTP/2 to its end, or until its client has not taken its answer for too long: dropping it resets
/// it. `turns` are those of its connection.
pub async fn while_taken(stream: impl Future<Output = ()>, taking: Taking, turns: &Turns) -> Taken {
    let mut stream = pin!(stream);
    let mut counted = None;
    let mut waiting: Option<Waiting> = None;
    let mut timer: Option<Pin<Box<Sleep>>> = None;
    let mut lasting: Option<Ending> = None;
    poll_fn(|cx| {
        TURN.set(None);
        // One may be left of HTTP/1.1, where nobody asks.
        LASTS.set(None);
        if stream.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Taken::ToItsEnd);
        }
        if let Some(ending) = LASTS.take() {
            lasting = Some(ending);
        }
        match TURN.take() {
            Some(Turn::Client(bytes)) => {
                counted.get_or_insert_with(|| Counted::new(&turns.streams));
                let until = clock::monotonic().checked_add(taking.patience(bytes));
                waiting = until.map(|until| turns.wait(until));
            }
            Some(Turn::Source) => waiting = None,
            // It was not asked, though it may have been woken because it has to end.
            None if waiting.is_some() && lasting.as_ref().is_some_and(Ending::is_due) => {
                return Poll::Ready(Taken::HadToEnd);
            }
            // Nothing has changed.
            None => {}
        }
        let Some(waiting) = &mut waiting else {
            return Poll::Pending;
        };
        let timer = timer.get_or_insert_with(|| Box::pin(sleep_until(waiting.until.into())));
        // Set seldom: each time it fires the deadline is looked at anew.
        while timer.as_mut().poll(cx).is_ready() {
            let now = clock::monotonic();
            if now >= waiting.until {
                if !turns.are_others(waiting, &taking) {
                    debug!("an answer was given up that its client does not take");
                    return Poll::Ready(Taken::GivenUp);
                }
                waiting.until = now + taking.silence;
            }
            timer.as_mut().reset(waiting.until.into());
        }
        Poll::Pending
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    const TAKING: Taking = Taking {
        silence: Duration::from_secs(30),
        min_rate: 1024,
    };

    #[test]
    fn what_was_given_has_to_be_paid_for() {
        assert_eq!(TAKING.patience(0), Duration::from_secs(30));
        assert_eq!(TAKING.patience(10 * 1024), Duration::from_secs(40));
        let any = Taking { min_rate: 0, ..TAKING };
        assert_eq!(any.patience(1), Duration::from_secs(31));
        assert!(any.patience(u64::MAX) > Duration::from_hours(24));
    }

    #[tokio::test]
    async fn a_source_is_waited_for_as_long_as_it_takes() {
        let waiting = async {
            gave(10);
            waits();
            pending::<()>().await;
        };
        let taking = Taking {
            silence: Duration::ZERO,
            min_rate: 1024,
        };
        let turns = Turns::default();
        let mut waiting = Box::pin(while_taken(waiting, taking, &turns));
        assert!(futures_util::poll!(waiting.as_mut()).is_pending());
        assert!(futures_util::poll!(waiting.as_mut()).is_pending());
    }

    #[tokio::test]
    async fn a_client_that_takes_nothing_is_not() {
        let given = async {
            gave(0);
            pending::<()>().await;
        };
        let taking = Taking {
            silence: Duration::ZERO,
            min_rate: 1024,
        };
        let turns = Turns::default();
        assert_eq!(while_taken(given, taking, &turns).await, Taken::GivenUp);
        assert_eq!(while_taken(async {}, TAKING, &turns).await, Taken::ToItsEnd);
        assert_eq!(turns.streams.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn a_stream_is_counted_from_when_it_waits_to_its_end() {
        let turns = Turns::default();
        let streams = || turns.streams.load(Ordering::Relaxed);
        let mut pieces = [None, Some(10), Some(20)].into_iter();
        let given = poll_fn(|_| {
            if let Some(bytes) = pieces.next().flatten() {
                gave(bytes);
            }
            Poll::Pending::<()>
        });
        let mut given = Box::pin(while_taken(given, TAKING, &turns));
        for count in [0, 1, 1, 1] {
            assert!(futures_util::poll!(given.as_mut()).is_pending());
            assert_eq!(streams(), count);
        }
        drop(given);
        assert_eq!(streams(), 0);
    }

    #[test]
    fn others_have_their_turn_while_they_get_on_and_no_more_than_their_share() {
        let turns = Turns::default();
        let sent = |bytes| turns.sent.store(bytes, Ordering::Relaxed);
        turns.streams.store(2, Ordering::Relaxed);
        let mut waiting = turns.wait(clock::monotonic());
        assert!(!turns.are_others(&mut waiting, &TAKING), "nobody gets on");
        sent(100 * 1024);
        assert!(turns.are_others(&mut waiting, &TAKING));
        sent(101 * 1024);
        assert!(!turns.are_others(&mut waiting, &TAKING), "slower than is demanded");
        turns.streams.store(1, Ordering::Relaxed);
        sent(2 * SHARE - 1);
        assert!(turns.are_others(&mut waiting, &TAKING), "one had its share and ended");
        sent(10 * SHARE);
        assert!(
            !turns.are_others(&mut waiting, &TAKING),
            "it had been its turn long ago"
        );
    }
}
