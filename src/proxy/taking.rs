//! Whether a client of HTTP/2 takes its answer.
//!
//! It may keep a stream's window shut: then the connection is well, every ping is answered, and the answer waits, and with
//! it whatever carries it: a connection to the upstream, a place in its limit. A socket that takes bytes says nothing of it
//! ([`Pace`](super::pace::Pace)), and hyper asks a body for its next piece only once there is room for one. So what counts
//! is for how long a body was not asked.
//!
//! The body says who is waited for ([`gave`], [`waits`]) in a note of the thread, which is read behind each poll of the
//! stream that holds the body: they are of one task, and nobody else's poll comes between. That costs two stores; a timer
//! is only made once an answer waits.

use std::{
    cell::Cell,
    future::{Future, poll_fn},
    pin::{Pin, pin},
    task::Poll,
    time::{Duration, Instant},
};

use tokio::time::{Sleep, sleep_until};
use tracing::debug;

use crate::clock;

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
}

/// A body has given so many bytes: they are the client's to take.
pub(super) fn gave(bytes: u64) {
    TURN.set(Some(Turn::Client(bytes)));
}

/// A body has nothing to give.
pub(super) fn waits() {
    TURN.set(Some(Turn::Source));
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

/// Runs a `stream` of HTTP/2 to its end, or until its client has not taken its answer for too long: dropping it resets
/// it.
pub async fn while_taken(stream: impl Future<Output = ()>, taking: Taking) {
    let mut stream = pin!(stream);
    let mut deadline: Option<Instant> = None;
    let mut timer: Option<Pin<Box<Sleep>>> = None;
    poll_fn(|cx| {
        TURN.set(None);
        if stream.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        match TURN.take() {
            Some(Turn::Client(bytes)) => deadline = clock::monotonic().checked_add(taking.patience(bytes)),
            Some(Turn::Source) => deadline = None,
            // It was not asked: nothing has changed.
            None => {}
        }
        let Some(deadline) = deadline else { return Poll::Pending };
        let timer = timer.get_or_insert_with(|| Box::pin(sleep_until(deadline.into())));
        // Set seldom: each time it fires the deadline is looked at anew.
        while timer.as_mut().poll(cx).is_ready() {
            if clock::monotonic() >= deadline {
                debug!("an answer was given up that its client does not take");
                return Poll::Ready(());
            }
            timer.as_mut().reset(deadline.into());
        }
        Poll::Pending
    })
    .await;
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
        let mut waiting = Box::pin(while_taken(waiting, taking));
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
        while_taken(given, taking).await;
        while_taken(async {}, TAKING).await;
    }
}
