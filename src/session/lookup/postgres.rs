//! Look-ups in Postgres: over the connections that are kept for them, on the runtime for cold work.
//!
//! A server that has no connection left says so at once. It is not to be asked again by each look-up that finds none
//! free, so that after an attempt which failed there is a pause, and then one at a time ([`Attempts`]). Connections that are
//! there are used meanwhile.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use tokio::{
    runtime::Handle,
    time::{sleep, timeout},
};

use super::{NoConnection, Sessions, Source};
use crate::{
    clock::{Timestamp, monotonic},
    db::{self, Db},
    secret::{TokenHash, portion},
    session::{LookupError, Terms},
};

/// Between an attempt to connect that failed and the next, give or take a half: gateways that found a server full together
/// are not to come back together.
const PAUSE: Duration = Duration::from_millis(200);

#[derive(Debug)]
pub struct Postgres {
    pub db: Db,
    /// Connections to Postgres belong to this runtime, and never to a thread of the data path.
    pub cold: Handle,
    /// What is made of what is found.
    pub terms: Arc<ArcSwap<Terms>>,
    /// For one query.
    pub patience: Duration,
    pub attempts: Attempts,
}

impl Source for Postgres {
    type Connection = db::Client;

    async fn connect(&self) -> Result<Self::Connection, NoConnection> {
        let is_new = !self.db.hot.has_idle();
        if is_new && !self.attempts.may_begin() {
            return Err(NoConnection::NotYet);
        }
        match db::acquire(&self.db.hot).await {
            Ok(connection) => {
                if is_new {
                    self.attempts.succeeded();
                }
                Ok(connection)
            }
            Err(error) => {
                self.attempts.failed();
                Err(NoConnection::Failed(LookupError::of(error)))
            }
        }
    }

    async fn rest(&self) {
        sleep(self.attempts.pause()).await;
    }

    async fn find(
        &self,
        client: Self::Connection,
        hashes: &[TokenHash],
        now: Timestamp,
    ) -> Result<Sessions, LookupError> {
        let Ok(found) = timeout(self.patience, db::sessions::find(&client, hashes, now)).await else {
            // Its answer may still come, or the server is gone: the next look-up must not get this connection.
            client.discard();
            return Err(LookupError::Timeout(self.patience));
        };
        let found = found.map_err(LookupError::of)?;
        // Loaded now: whoever replaced them meanwhile forgets what others made.
        let terms = self.terms.load();
        let sessions = found.into_iter();
        Ok(sessions
            .map(|(hash, found)| (hash, Arc::new(terms.session(found))))
            .collect())
    }

    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.cold.spawn(work);
    }
}

/// Attempts to make a connection: any number at a time, until one fails.
#[derive(Debug, Default)]
pub struct Attempts {
    /// Since one failed, and until one succeeds.
    not_before: Mutex<Option<Instant>>,
}

impl Attempts {
    /// Whether one may be made. After one that failed it is the only one until the next pause is over.
    fn may_begin(&self) -> bool {
        let mut not_before = self.not_before();
        let now = monotonic();
        match *not_before {
            None => true,
            Some(then) if now < then => false,
            Some(_) => {
                *not_before = Some(now + a_pause());
                true
            }
        }
    }

    fn failed(&self) {
        *self.not_before() = Some(monotonic() + a_pause());
    }

    fn succeeded(&self) {
        *self.not_before() = None;
    }

    /// What remains of it.
    fn pause(&self) -> Duration {
        let then = *self.not_before();
        then.map_or(Duration::ZERO, |then| then.saturating_duration_since(monotonic()))
    }

    fn not_before(&self) -> MutexGuard<'_, Option<Instant>> {
        self.not_before.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn a_pause() -> Duration {
    PAUSE / 2 + PAUSE.mul_f64(portion())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_an_attempt_that_failed_there_is_a_pause_and_then_one_at_a_time() {
        let attempts = Attempts::default();
        assert!(attempts.may_begin() && attempts.may_begin());
        attempts.failed();
        assert!(!attempts.may_begin());
        assert!(attempts.pause() <= PAUSE + PAUSE / 2);
        *attempts.not_before() = Some(monotonic());
        assert_eq!(attempts.pause(), Duration::ZERO);
        assert!(attempts.may_begin());
        assert!(!attempts.may_begin(), "somebody is trying");
        attempts.succeeded();
        assert!(attempts.may_begin() && attempts.may_begin());
    }
}
