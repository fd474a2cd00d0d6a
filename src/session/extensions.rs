//! Sessions whose expiry slides, since they were used late enough in their life.
//!
//! Nobody waits for it. So it takes one connection at a time of those that signing in and revoking take, too, however many
//! sessions are due at once, as after a reload that gives all of them a longer life: what comes while the connection is out
//! gathers, and is written with one statement.
//!
//! A session is on its way once. When Postgres doesn't take it, nobody tries again for a while: it only reads, say, and each
//! request of a session that is due would ask in vain. What was not written, or found no room, is noted anew by a later use.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tracing::warn;

use super::Sessions;
use crate::{
    chain::Chain,
    clock::{Timestamp, monotonic},
    db::{self, DbError},
    secret::TokenHash,
};

/// Sessions that may wait.
const CAPACITY: usize = 50_000;
/// Sessions in one statement: it takes milliseconds.
const AT_ONCE: usize = 1_000;
/// For how long nobody tries after Postgres did not take some.
const PAUSE: Duration = Duration::from_secs(5);

#[derive(Debug, Default)]
pub struct Extensions {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Those that wait, and those that are being written.
    under_way: HashSet<TokenHash>,
    waiting: Vec<TokenHash>,
    /// The latest use of those.
    used_at: Option<Timestamp>,
    is_writing: bool,
    /// Postgres did not take the last ones.
    failed_at: Option<Instant>,
}

impl Extensions {
    /// Notes that a session was used when it was due. Whether somebody has to begin to write.
    fn note(&self, hash: TokenHash, now: Timestamp) -> bool {
        let mut state = self.state();
        let is_paused = state.failed_at.is_some_and(|at| at.elapsed() < PAUSE);
        if is_paused || state.under_way.len() >= CAPACITY || !state.under_way.insert(hash) {
            return false;
        }
        state.waiting.push(hash);
        state.used_at = state.used_at.max(Some(now));
        !std::mem::replace(&mut state.is_writing, true)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who writes, until nobody waits. Whatever becomes of them, another may take the place.
struct Writing<'e> {
    extensions: &'e Extensions,
    is_over: bool,
}

impl<'e> Writing<'e> {
    const fn new(extensions: &'e Extensions) -> Self {
        Self {
            extensions,
            is_over: false,
        }
    }

    /// Some of those who wait, or nobody: then it is over, and whoever comes finds the place free.
    fn take(&mut self) -> Option<(Vec<TokenHash>, Timestamp)> {
        let mut state = self.extensions.state();
        let behind = state.waiting.len().saturating_sub(AT_ONCE);
        let taken = state.waiting.split_off(behind);
        let used_at = state.used_at.filter(|_| !taken.is_empty());
        state.is_writing = used_at.is_some();
        self.is_over = used_at.is_none();
        if state.waiting.is_empty() {
            state.used_at = None;
        }
        Some((taken, used_at?))
    }

    fn written(&self, hashes: &[TokenHash]) {
        let mut state = self.extensions.state();
        state.failed_at = None;
        for hash in hashes {
            state.under_way.remove(hash);
        }
    }

    /// Those who wait would fare no better. Whether it is the first time in a row.
    fn failed(&self) -> bool {
        let mut state = self.extensions.state();
        state.under_way.clear();
        state.waiting.clear();
        state.failed_at.replace(monotonic()).is_none()
    }
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            let mut state = self.extensions.state();
            state.under_way.clear();
            state.waiting.clear();
            state.is_writing = false;
        }
    }
}

impl Sessions {
    /// Slides the expiry of a session, without anybody waiting for it. Returns what remains of it then.
    pub fn extend(self: &Arc<Self>, hash: TokenHash, now: Timestamp) -> Duration {
        if self.extensions.note(hash, now) {
            let this = Arc::clone(self);
            self.cold.spawn(async move { this.write_extensions().await });
        }
        self.terms.load().rules.expires_in
    }

    async fn write_extensions(&self) {
        let mut writing = Writing::new(&self.extensions);
        while let Some((hashes, now)) = writing.take() {
            match self.extend_all(&hashes, now).await {
                Ok(()) => {
                    // The next request reads the new expiry.
                    for hash in &hashes {
                        self.forget(hash);
                    }
                    writing.written(&hashes);
                }
                Err(error) => {
                    if writing.failed() {
                        warn!(
                            sessions = hashes.len(),
                            error = %Chain(&error),
                            "could not extend sessions that were used; from {PAUSE:?} on their next use tries again"
                        );
                    }
                }
            }
        }
    }

    async fn extend_all(&self, hashes: &[TokenHash], now: Timestamp) -> Result<(), DbError> {
        let (expires_in, last_moments) = {
            let terms = self.terms.load();
            (terms.rules.expires_in, terms.rules.last_moments())
        };
        let client = self.db.client().await?;
        db::sessions::extend_all(&client, hashes, now.plus(expires_in), last_moments, now).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_000);

    fn hash(number: usize) -> TokenHash {
        TokenHash::of(&number.to_be_bytes())
    }

    #[test]
    fn one_writes_for_all_and_each_session_once() {
        let extensions = Extensions::default();
        assert!(extensions.note(hash(0), NOW));
        let mut writing = Writing::new(&extensions);
        let (taken, _) = writing.take().unwrap();
        assert_eq!(taken, [hash(0)]);
        for number in (0..=AT_ONCE).chain(0..=AT_ONCE) {
            assert!(!extensions.note(hash(number), NOW.plus(PAUSE)), "somebody writes");
        }
        writing.written(&taken);
        let (taken, used_at) = writing.take().unwrap();
        assert_eq!((taken.len(), used_at), (AT_ONCE, NOW.plus(PAUSE)));
        writing.written(&taken);
        assert!(writing.take().is_none());
        assert!(extensions.note(hash(0), NOW));
    }

    #[test]
    fn nobody_tries_for_a_while_after_postgres_took_none() {
        let extensions = Extensions::default();
        for first in [true, false] {
            assert!(extensions.note(hash(0), NOW));
            let mut writing = Writing::new(&extensions);
            assert!(writing.take().is_some());
            assert!(!extensions.note(hash(1), NOW));
            assert_eq!(writing.failed(), first);
            assert!(writing.take().is_none());
            assert!(!extensions.note(hash(2), NOW));
            extensions.state().failed_at = monotonic().checked_sub(PAUSE);
        }
        assert!(extensions.note(hash(0), NOW));
    }

    #[test]
    fn there_is_an_end_to_who_waits() {
        let extensions = Extensions::default();
        for number in 0..=CAPACITY {
            extensions.note(hash(number), NOW);
        }
        assert_eq!(extensions.state().waiting.len(), CAPACITY);
        // As when it is cut off.
        drop(Writing::new(&extensions));
        assert!(extensions.note(hash(0), NOW));
    }
}
