//! Answers that do not come.
//!
//! Postgres ends a statement that takes too long by itself; but a server that is frozen, or behind a network that
//! swallows packets, says nothing at all, and its connections look well. So each answer is waited for a little longer
//! than the server may take. Once one stays out, every connection from before is suspect: the pools replace them as
//! they would be used next.
//!
//! Both facts are the process's, not a pool's: queries run on connections and transactions alike, which do not know
//! where they come from. A process has one `[database]`; with several, the most patient counts, and connections are
//! replaced in vain at worst.

use std::{
    fmt,
    future::Future,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::time::timeout;

use super::DbError;
use crate::clock::monotonic;

/// For the way there and back, and for the server to notice that the time is over.
const ALLOWANCE: Duration = Duration::from_secs(1);

static LIMIT_MILLIS: AtomicU64 = AtomicU64::new(0);
static SILENT_AT: Mutex<Option<Instant>> = Mutex::new(None);

/// How long an answer may take at most: never shorter than the server's own limit. From now on, queries wait no less.
pub(super) fn allow(statement_timeout: Duration) -> Duration {
    let limit = statement_timeout.saturating_add(ALLOWANCE);
    LIMIT_MILLIS.fetch_max(u64::try_from(limit.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    limit
}

/// Waits for what the server has to say.
pub(super) async fn answered<T>(
    query: &'static str,
    answer: impl Future<Output = Result<T, tokio_postgres::Error>>,
) -> Result<T, DbError> {
    let limit = Duration::from_millis(LIMIT_MILLIS.load(Ordering::Relaxed));
    if let Ok(answer) = timeout(limit, answer).await {
        return answer.map_err(|error| DbError::of(query, error));
    }
    *SILENT_AT.lock().unwrap_or_else(PoisonError::into_inner) = Some(monotonic());
    Err(DbError::Unavailable(Box::new(NoAnswer { query, limit })))
}

/// Whether a connection was made before an answer stayed out.
pub(super) fn is_suspect(made_at: Instant) -> bool {
    let silent_at = *SILENT_AT.lock().unwrap_or_else(PoisonError::into_inner);
    silent_at.is_some_and(|silent_at| made_at <= silent_at)
}

#[derive(Debug)]
struct NoAnswer {
    query: &'static str,
    limit: Duration,
}

impl fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no answer to {} within {:?}", self.query, self.limit)
    }
}

impl std::error::Error for NoAnswer {}
