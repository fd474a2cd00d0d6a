//! When each session was last used, and from where: noted by requests, written behind.
//!
//! A request only compares two numbers, and at most once a minute per session puts a note into a bounded map. A
//! worker writes the notes in batches; what Postgres didn't take is kept for the next round, newer notes winning.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::{
    chain::Chain,
    clock::Timestamp,
    db::{self, Db},
    identity::{Session, SessionId},
};

/// A session is noted at most so often.
const AT_MOST_EVERY: Duration = Duration::from_mins(1);
const FLUSH_EVERY: Duration = Duration::from_secs(5);
/// Sessions that may wait to be written; further ones are counted and dropped: the next request notes them again.
const CAPACITY: usize = 50_000;

#[derive(Clone, Debug, Default)]
pub struct LastSeen {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<HashMap<SessionId, db::sessions::Seen>>,
    dropped: AtomicU64,
}

impl LastSeen {
    /// Notes a use. Cheap: all but one call a minute per session end at the first comparison.
    pub fn note(&self, session: &Session, from: IpAddr, now: Timestamp) {
        let known = session.last_seen.load(Ordering::Relaxed);
        if now < Timestamp::from_micros(known).plus(AT_MOST_EVERY) {
            return;
        }
        session.last_seen.store(now.micros(), Ordering::Relaxed);
        let mut waiting = self.waiting();
        if waiting.len() >= CAPACITY && !waiting.contains_key(&session.id) {
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        waiting.insert(session.id, db::sessions::Seen { at: now, from });
    }

    /// Notes that were dropped because too many waited.
    pub fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }

    /// Writes what waits every few seconds until `stop`, then what is left.
    pub async fn run(self, db: Db, stop: CancellationToken) {
        let mut tick = interval(FLUSH_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = tick.tick() => self.flush(&db).await,
                () = stop.cancelled() => break,
            }
        }
        self.flush(&db).await;
    }

    async fn flush(&self, db: &Db) {
        let batch = std::mem::take(&mut *self.waiting());
        if batch.is_empty() {
            return;
        }
        if let Err(error) = write(db, &batch).await {
            warn!(
                sessions = batch.len(),
                error = %Chain(&error),
                "could not write when sessions were last seen, trying again"
            );
            let mut waiting = self.waiting();
            for (session, seen) in batch {
                waiting.entry(session).or_insert(seen);
            }
        }
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<SessionId, db::sessions::Seen>> {
        self.shared.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn write(db: &Db, batch: &HashMap<SessionId, db::sessions::Seen>) -> Result<(), db::DbError> {
    let client = db.client().await?;
    db::sessions::seen(&client, batch).await
}
