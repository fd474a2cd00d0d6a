//! How many requests an upstream has at once, and how many wait for a place.
//!
//! A place is one atomic count: it is taken and given back for every request. Only once all are taken does anything
//! else happen: a bounded number waits, for a bounded time, in the order in which they came, and whoever comes while
//! somebody waits queues up behind. A place that is given back then stays taken, and is handed to who has waited for
//! longest: were it free for a moment, somebody who has just come could have it.

use std::{
    sync::atomic::{AtomicU64, AtomicUsize, Ordering, fence},
    time::Duration,
};

use tokio::{sync::Semaphore, time::timeout};

#[derive(Debug)]
pub(super) struct Limit {
    max: usize,
    max_waiting: usize,
    taken: AtomicUsize,
    waiting: AtomicUsize,
    refused: AtomicU64,
    /// Places that are handed over: taken, and whoever waits for longest has the next. It serves in order.
    handed: Semaphore,
}

/// There was no place within the time, or too many waited already.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Full;

impl Limit {
    pub(super) fn new(max: usize, max_waiting: usize) -> Self {
        Self {
            max,
            max_waiting,
            taken: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            refused: AtomicU64::new(0),
            handed: Semaphore::new(0),
        }
    }

    pub(super) fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    pub(super) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// A place if one is free and nobody waits for it.
    pub(super) fn try_take(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) == 0 && self.take()
    }

    /// A place as soon as one is free. Cancel-safe: who gives up waiting leaves the queue.
    pub(super) async fn take_within(&self, patience: Duration) -> Result<(), Full> {
        let Some(_queued) = Queued::join(self) else {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return Err(Full);
        };
        self.hand_over_if_free();
        // It is never closed.
        if let Ok(Ok(handed)) = timeout(patience, self.handed.acquire()).await {
            handed.forget();
            return Ok(());
        }
        self.refused.fetch_add(1, Ordering::Relaxed);
        Err(Full)
    }

    /// To be called once for each place that was taken.
    pub(super) fn give_back(&self) {
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.hand_over();
            return;
        }
        self.taken.fetch_sub(1, Ordering::SeqCst);
        // Either who has just begun to wait is seen here, or sees the free place: both orders are total (SeqCst).
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.hand_over_if_free();
        }
    }

    fn hand_over_if_free(&self) {
        if self.take() {
            self.hand_over();
        }
    }

    /// Hands a place that is taken to who has waited for longest.
    fn hand_over(&self) {
        self.handed.add_permits(1);
        // The last who waited may have left before it was there, having another.
        fence(Ordering::SeqCst);
        self.take_back_unless_awaited();
    }

    /// What was handed to some who went away meanwhile is nobody's.
    fn take_back_unless_awaited(&self) {
        while self.waiting.load(Ordering::SeqCst) == 0
            && let Ok(handed) = self.handed.try_acquire()
        {
            handed.forget();
            self.give_back();
        }
    }

    fn take(&self) -> bool {
        self.taken
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |taken| {
                (taken < self.max).then(|| taken + 1)
            })
            .is_ok()
    }
}

struct Queued<'l>(&'l Limit);

impl<'l> Queued<'l> {
    fn join(limit: &'l Limit) -> Option<Self> {
        limit
            .waiting
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |waiting| {
                (waiting < limit.max_waiting).then(|| waiting + 1)
            })
            .ok()
            .map(|_| Self(limit))
    }
}

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        if self.0.waiting.fetch_sub(1, Ordering::SeqCst) == 1 {
            // Of two, one sees what the other did: who leaves the place, or who hands it over that nobody waits.
            fence(Ordering::SeqCst);
            self.0.take_back_unless_awaited();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::runtime::Handle;

    use super::*;
    use crate::lifecycle::Tasks;

    const LONG: Duration = Duration::from_secs(20);
    const SHORT: Duration = Duration::from_millis(20);

    #[tokio::test]
    async fn a_place_that_is_given_back_goes_to_who_waits() {
        let limit = Limit::new(1, 1);
        assert!(limit.try_take());
        let leaving = async {
            while limit.waiting() == 0 {
                tokio::task::yield_now().await;
            }
            limit.give_back();
            assert!(!limit.try_take(), "nobody overtakes");
        };
        let (waited, ()) = tokio::join!(limit.take_within(LONG), leaving);
        assert_eq!(waited, Ok(()));
        assert_eq!((limit.taken(), limit.waiting()), (1, 0));
    }

    #[tokio::test]
    async fn whoever_has_waited_for_longest_is_next() {
        let limit = Limit::new(1, 3);
        assert!(limit.try_take());
        let mut first = Box::pin(limit.take_within(LONG));
        assert!(futures_util::poll!(first.as_mut()).is_pending());
        limit.give_back();
        // Comes, and is polled, before the first has woken up.
        let mut second = Box::pin(limit.take_within(LONG));
        assert!(futures_util::poll!(second.as_mut()).is_pending());
        assert!(futures_util::poll!(first.as_mut()).is_ready());
        drop(first);
        limit.give_back();
        assert!(futures_util::poll!(second.as_mut()).is_ready());
    }

    #[tokio::test]
    async fn what_is_handed_to_who_went_away_is_the_next_ones_or_free() {
        let limit = Limit::new(1, 3);
        assert!(limit.try_take());
        let mut first = Box::pin(limit.take_within(LONG));
        let mut second = Box::pin(limit.take_within(LONG));
        assert!(futures_util::poll!(first.as_mut()).is_pending());
        assert!(futures_util::poll!(second.as_mut()).is_pending());
        limit.give_back();
        drop(first);
        assert!(futures_util::poll!(second.as_mut()).is_ready());
        drop(second);
        let mut third = Box::pin(limit.take_within(LONG));
        assert!(futures_util::poll!(third.as_mut()).is_pending());
        limit.give_back();
        drop(third);
        assert_eq!((limit.taken(), limit.waiting()), (0, 0));
        assert!(limit.try_take());
    }

    #[tokio::test]
    async fn who_waits_too_long_leaves_the_queue() {
        let limit = Limit::new(1, 1);
        assert!(limit.try_take());
        assert_eq!(limit.take_within(SHORT).await, Err(Full));
        assert_eq!((limit.waiting(), limit.refused()), (0, 1));
        limit.give_back();
        assert!(limit.try_take());
    }

    #[tokio::test]
    async fn the_queue_has_an_end() {
        let limit = Limit::new(1, 0);
        assert!(limit.try_take());
        // It would never come back if it waited.
        assert_eq!(limit.take_within(LONG).await, Err(Full));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn places_are_never_lost_nor_made() {
        let limit = Arc::new(Limit::new(3, 1000));
        let most = Arc::new(AtomicUsize::new(0));
        let inside = Arc::new(AtomicUsize::new(0));
        let done = Arc::new(AtomicUsize::new(0));
        let tasks = Tasks::new(Handle::current());
        for _ in 0..64 {
            let (limit, most, inside) = (Arc::clone(&limit), Arc::clone(&most), Arc::clone(&inside));
            let done = Arc::clone(&done);
            tasks.spawn("taking places", async move {
                for _ in 0..200 {
                    if !limit.try_take() {
                        limit.take_within(LONG).await.unwrap();
                    }
                    most.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    tokio::task::yield_now().await;
                    inside.fetch_sub(1, Ordering::SeqCst);
                    done.fetch_add(1, Ordering::SeqCst);
                    limit.give_back();
                }
            });
        }
        tasks.ended().await;
        assert_eq!(done.load(Ordering::SeqCst), 64 * 200);
        assert_eq!(
            (limit.taken(), limit.waiting(), limit.handed.available_permits()),
            (0, 0, 0)
        );
        assert!(most.load(Ordering::SeqCst) <= 3);
    }
}
