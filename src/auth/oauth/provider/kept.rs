//! What a provider publishes and we keep for a while: its metadata, its keys.
//!
//! One fetch at a time, the others wait for it. A fetch that failed is not tried again for [`REST`]; until then, and
//! while the provider is away, what is held goes on being used for a day at most: a key that was withdrawn must not be
//! good for ever.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwapOption;
use tokio::sync::{Mutex, MutexGuard};
use tracing::warn;

use super::ProviderError;
use crate::clock::monotonic;

/// Between two fetches that failed, and between two that a token with an unknown key asked for: whoever presents
/// tokens must not decide how often a provider is asked.
const REST: Duration = Duration::from_secs(5);
const MAX_STALE: Duration = Duration::from_hours(24);

#[derive(Debug)]
pub(super) struct Kept<T> {
    held: ArcSwapOption<Held<T>>,
    flight: Mutex<Flights>,
    /// [`REST`], but for tests.
    rest: Duration,
}

#[derive(Debug)]
struct Held<T> {
    value: Arc<T>,
    fresh_until: Instant,
}

/// Whoever holds the lock is the one that fetches.
#[derive(Debug, Default)]
struct Flights {
    failed: Option<(Instant, ProviderError)>,
    /// When a fetch that a token asked for was over, or failed, or was given up.
    forced_at: Option<Instant>,
}

/// A fetch that a token asked for. It counts from its end, whatever that is: for those who wait, it may have hung for
/// longer than any rest.
struct Forced<'f>(MutexGuard<'f, Flights>);

impl Drop for Forced<'_> {
    fn drop(&mut self) {
        self.0.forced_at = Some(monotonic());
    }
}

impl<T> Kept<T> {
    pub(super) fn new() -> Self {
        Self {
            held: ArcSwapOption::empty(),
            flight: Mutex::default(),
            rest: REST,
        }
    }

    /// What is held, if it is fresh; else what `fetch` brings, with how long that stays fresh.
    ///
    /// Cancel-safe: whoever waits next fetches instead.
    pub(super) async fn get(
        &self,
        fetch: impl AsyncFnOnce() -> Result<(T, Duration), ProviderError>,
    ) -> Result<Arc<T>, ProviderError> {
        if let Some(value) = self.at_most_stale_for(Duration::ZERO) {
            return Ok(value);
        }
        let mut flights = self.flight.lock().await;
        if let Some(value) = self.at_most_stale_for(Duration::ZERO) {
            return Ok(value);
        }
        if let Some((at, error)) = &flights.failed
            && at.elapsed() < self.rest
        {
            return self.at_most_stale_for(MAX_STALE).ok_or_else(|| error.clone());
        }
        match fetch().await {
            Ok((value, fresh_for)) => {
                flights.failed = None;
                Ok(self.hold(value, fresh_for))
            }
            Err(error) => {
                flights.failed = Some((monotonic(), error.clone()));
                let stale = self.at_most_stale_for(MAX_STALE);
                if stale.is_some() {
                    warn!(%error, "could not fetch again what a provider publishes, going on with what is held");
                }
                stale.ok_or(error)
            }
        }
    }

    /// What the provider publishes now, if that may be other than `seen` and may be asked for.
    pub(super) async fn newer(
        &self,
        seen: &Arc<T>,
        fetch: impl AsyncFnOnce() -> Result<(T, Duration), ProviderError>,
    ) -> Option<Arc<T>> {
        let asked_at = monotonic();
        let flights = self.flight.lock().await;
        if let Some(held) = self.held.load_full()
            && !Arc::ptr_eq(&held.value, seen)
        {
            return Some(Arc::clone(&held.value));
        }
        // Whoever waited while another fetched has the answer: nothing is newer.
        if flights
            .forced_at
            .is_some_and(|at| at >= asked_at || at.elapsed() < self.rest)
        {
            return None;
        }
        let _forced = Forced(flights);
        match fetch().await {
            Ok((value, fresh_for)) => Some(self.hold(value, fresh_for)),
            Err(error) => {
                warn!(%error, "could not fetch again what a provider publishes");
                None
            }
        }
    }

    fn at_most_stale_for(&self, stale: Duration) -> Option<Arc<T>> {
        let held = self.held.load_full()?;
        let usable = monotonic() < held.fresh_until + stale;
        usable.then(|| Arc::clone(&held.value))
    }

    fn hold(&self, value: T, fresh_for: Duration) -> Arc<T> {
        let value = Arc::new(value);
        self.held.store(Some(Arc::new(Held {
            value: Arc::clone(&value),
            fresh_until: monotonic() + fresh_for,
        })));
        value
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    const HOUR: Duration = Duration::from_hours(1);

    fn away() -> ProviderError {
        ProviderError::Unreachable {
            provider: "acme".to_owned(),
            why: "gone fishing".to_owned(),
        }
    }

    #[tokio::test]
    async fn many_who_ask_at_once_share_one_fetch() {
        let (kept, fetches) = (Kept::new(), AtomicU32::new(0));
        let ask = || {
            kept.get(async || {
                tokio::task::yield_now().await;
                Ok((fetches.fetch_add(1, Ordering::SeqCst), HOUR))
            })
        };
        let all = futures_util::future::join_all((0..50).map(|_| ask())).await;
        assert!(all.into_iter().all(|got| *got.unwrap() == 0));
        assert_eq!(fetches.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn a_fetch_that_failed_is_not_tried_again_at_once() {
        let (kept, fetches) = (Kept::<()>::new(), AtomicU32::new(0));
        for _ in 0..10 {
            let failed = kept.get(async || {
                fetches.fetch_add(1, Ordering::SeqCst);
                Err(away())
            });
            assert!(failed.await.is_err());
        }
        assert_eq!(fetches.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn what_is_stale_is_used_while_the_provider_is_away() {
        let kept = Kept::new();
        kept.get(async || Ok((7, Duration::ZERO))).await.unwrap();
        assert_eq!(*kept.get(async || Err(away())).await.unwrap(), 7);
        assert_eq!(*kept.get(async || Err(away())).await.unwrap(), 7);
    }

    /// A fetch that hangs is over when the rest is.
    #[tokio::test]
    async fn whoever_waited_for_a_fetch_that_hung_does_not_fetch_again() {
        let kept = Kept {
            rest: Duration::ZERO,
            ..Kept::new()
        };
        let fetches = AtomicU32::new(0);
        let held = kept.get(async || Ok((1, HOUR))).await.unwrap();
        let ask = || {
            kept.newer(&held, async || {
                fetches.fetch_add(1, Ordering::SeqCst);
                tokio::task::yield_now().await;
                Err(away())
            })
        };
        let all = futures_util::future::join_all((0..50).map(|_| ask())).await;
        assert!(all.iter().all(Option::is_none));
        assert_eq!(fetches.load(Ordering::SeqCst), 1);
        assert!(ask().await.is_none());
        assert_eq!(fetches.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn tokens_with_unknown_keys_do_not_decide_how_often_a_provider_is_asked() {
        let kept = Kept::new();
        let first = kept.get(async || Ok((1, HOUR))).await.unwrap();
        let second = kept.newer(&first, async || Ok((2, HOUR))).await.unwrap();
        assert_eq!(*second, 2);
        // Whoever still looks at the first gets the second, without a fetch; a third is not to be had so soon.
        assert_eq!(*kept.newer(&first, async || unreachable!()).await.unwrap(), 2);
        assert!(kept.newer(&second, async || unreachable!()).await.is_none());
    }
}
