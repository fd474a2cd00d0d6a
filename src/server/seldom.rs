//! A future that waits beside a busy one in the same task, and costs nothing while it does.
//!
//! A task is woken as a whole: whoever waits in it is asked each time whether it was meant, though it is another nearly
//! always. This one has a bell of its own, and is asked only when that has been rung.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use futures_util::task::AtomicWaker;

#[derive(Debug)]
pub(super) struct Seldom<F> {
    future: F,
    bell: Arc<Bell>,
    /// Rings it.
    waker: Waker,
    /// Who hears it; `None`: nobody has asked yet.
    task: Option<Waker>,
}

#[derive(Debug)]
struct Bell {
    rung: AtomicBool,
    task: AtomicWaker,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.rung.store(true, Ordering::Release);
        self.task.wake();
    }
}

impl<F> Seldom<F> {
    pub(super) fn new(future: F) -> Self {
        let bell = Arc::new(Bell {
            rung: AtomicBool::new(false),
            task: AtomicWaker::new(),
        });
        Self {
            future,
            waker: Waker::from(Arc::clone(&bell)),
            bell,
            task: None,
        }
    }
}

impl<F: Future + Unpin> Future for Seldom<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = &mut *self;
        let is_known = this.task.as_ref().is_some_and(|task| task.will_wake(cx.waker()));
        if is_known && !this.bell.rung.load(Ordering::Acquire) {
            return Poll::Pending;
        }
        if !is_known {
            this.task = Some(cx.waker().clone());
        }
        // In this order: what rings before the task listens again is seen by the future, what rings later wakes the task.
        // Taken, not overwritten: of a ring that is taken back here the future must see what it was rung for.
        this.bell.rung.swap(false, Ordering::AcqRel);
        this.bell.task.register(cx.waker());
        Pin::new(&mut this.future).poll(&mut Context::from_waker(&this.waker))
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, sync::atomic::AtomicUsize, time::Duration};

    use tokio::{sync::Notify, time::timeout};

    use super::*;

    #[tokio::test]
    async fn it_is_asked_when_it_was_rung_for_and_not_for_others() {
        let (asked, rings) = (AtomicUsize::new(0), Notify::new());
        let mut rung = std::pin::pin!(rings.notified());
        let waits = poll_fn(|cx| {
            asked.fetch_add(1, Ordering::Relaxed);
            rung.as_mut().poll(cx)
        });
        let mut seldom = Seldom::new(waits);
        for _ in 0..10 {
            assert!(futures_util::poll!(&mut seldom).is_pending());
        }
        assert_eq!(asked.load(Ordering::Relaxed), 1, "once, to begin with");
        rings.notify_waiters();
        let woken = timeout(Duration::from_secs(10), &mut seldom).await;
        assert!(woken.is_ok() && asked.load(Ordering::Relaxed) == 2);
    }

    #[tokio::test]
    async fn who_asks_last_is_woken() {
        let mut seldom = Seldom::new(Box::pin(tokio::time::sleep(Duration::from_millis(20))));
        let mut nobody = Context::from_waker(Waker::noop());
        assert!(Pin::new(&mut seldom).poll(&mut nobody).is_pending());
        assert!(timeout(Duration::from_secs(10), seldom).await.is_ok());
    }

    #[tokio::test]
    async fn it_may_ring_for_itself() {
        let mut left = 3;
        let again = poll_fn(move |cx| {
            left -= 1;
            cx.waker().wake_by_ref();
            if left == 0 { Poll::Ready(()) } else { Poll::Pending }
        });
        assert!(timeout(Duration::from_secs(10), Seldom::new(again)).await.is_ok());
    }
}
