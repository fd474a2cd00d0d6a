//! When each session was last used, and from where: noted by requests, written behind.
//!
//! A request only compares two numbers, and at most once a minute per session puts a note into a bounded map. A
//! worker finds out where the addresses are and writes the notes in batches; what Postgres didn't take is kept for the
//! next round, newer notes winning. At the end, when nobody can note anything any more, what is left is written
//! ([`LastSeen::write_out`]).

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    task::yield_now,
    time::{MissedTickBehavior, interval},
};
use tracing::warn;

use super::geo::Places;
use crate::{
    chain::Chain,
    clock::Timestamp,
    db::{self, Db},
    identity::{Session, SessionId},
};

/// A session is noted at most so often here, and written at most so often by all gateways.
const AT_MOST_EVERY: Duration = Duration::from_mins(1);
const FLUSH_EVERY: Duration = Duration::from_secs(5);
/// How often somebody looks whether the file of places has been replaced.
const REFRESH_EVERY: Duration = Duration::from_mins(1);
/// Addresses that are looked up before others get the thread: about a millisecond's worth.
const LOOKUPS_AT_ONCE: usize = 256;
/// Sessions that may wait to be written; further ones are counted and dropped: the next request notes them again.
const CAPACITY: usize = 50_000;
/// Sessions in one statement: it takes milliseconds, and fails for a few at a time.
const AT_ONCE: usize = 5_000;

#[derive(Clone, Debug, Default)]
pub struct LastSeen {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<HashMap<SessionId, Use>>,
    /// Held by whoever writes: who comes after one who was cut off finds what that one gave back.
    writing: tokio::sync::Mutex<()>,
    dropped: AtomicU64,
    /// Postgres didn't take the last ones: said once.
    failing: AtomicBool,
}

/// That a session was used.
#[derive(Clone, Copy, Debug)]
struct Use {
    at: Timestamp,
    from: IpAddr,
}

impl LastSeen {
    /// Notes a use. Cheap: all but one call a minute per session end at the first comparison.
    pub fn note(&self, session: &Session, from: IpAddr, now: Timestamp) {
        let known = session.last_seen.load(Ordering::Relaxed);
        if now < Timestamp::from_micros(known).plus(AT_MOST_EVERY) {
            return;
        }
        session.last_seen.store(now.micros(), Ordering::Relaxed);
        let mut waiting = self.notes();
        if waiting.len() >= CAPACITY && !waiting.contains_key(&session.id) {
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        waiting.insert(session.id, Use { at: now, from });
    }

    /// Sessions whose last use is still to be written.
    pub fn waiting(&self) -> usize {
        self.notes().len()
    }

    /// Notes that were dropped because too many waited.
    pub fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }

    /// Writes what waits every few seconds, for as long as it is let.
    pub async fn run(self, db: Db, places: Arc<Places>) {
        let mut tick = interval(FLUSH_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut refresh = interval(REFRESH_EVERY);
        refresh.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = tick.tick() => self.write_out(&db, &places).await,
                _ = refresh.tick() => places.refresh().await,
            }
        }
    }

    /// Writes what waits, or keeps what Postgres doesn't take. Cancel-safe: what is being written then is kept, too; that
    /// it may be written twice does no harm.
    pub async fn write_out(&self, db: &Db, places: &Places) {
        let _alone = self.shared.writing.lock().await;
        let taken = std::mem::take(&mut *self.notes()).into_iter().collect();
        let mut batch = Batch { of: self, rest: taken };
        while !batch.rest.is_empty() {
            let behind = batch.rest.len().saturating_sub(AT_ONCE);
            let chunk = batch.rest.get(behind..).unwrap_or_default();
            if let Err(error) = write(db, places, chunk).await {
                if !self.shared.failing.swap(true, Ordering::Relaxed) {
                    warn!(
                        sessions = batch.rest.len(),
                        error = %Chain(&error),
                        "could not write when sessions were last seen, trying again every {FLUSH_EVERY:?}"
                    );
                }
                return;
            }
            self.shared.failing.store(false, Ordering::Relaxed);
            batch.rest.truncate(behind);
        }
    }

    /// What was noted meanwhile is newer, and the bound holds.
    fn put_back(&self, uses: &[(SessionId, Use)]) {
        let mut waiting = self.notes();
        for (session, seen) in uses {
            if waiting.contains_key(session) {
                continue;
            }
            if waiting.len() < CAPACITY {
                waiting.insert(*session, *seen);
            } else {
                self.shared.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn notes(&self) -> MutexGuard<'_, HashMap<SessionId, Use>> {
        self.shared.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Notes that are being written. What is not waits again.
struct Batch<'l> {
    of: &'l LastSeen,
    rest: Vec<(SessionId, Use)>,
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        self.of.put_back(&self.rest);
    }
}

async fn write(db: &Db, places: &Places, batch: &[(SessionId, Use)]) -> Result<(), db::DbError> {
    let mut seen = Vec::with_capacity(batch.len());
    for (count, (session, used)) in batch.iter().enumerate() {
        if count % LOOKUPS_AT_ONCE == LOOKUPS_AT_ONCE - 1 {
            yield_now().await;
        }
        seen.push(db::sessions::Seen {
            session: *session,
            at: used.at,
            from: used.from,
            place: places.of(used.from),
        });
    }
    let client = db.client().await?;
    db::sessions::seen(&client, &seen, AT_MOST_EVERY).await
}
