//! Answers that do not come, and connections that are not to be used again.
//!
//! Postgres ends a statement that takes too long by itself; but a server that is frozen, or behind a network that
//! swallows packets, says nothing at all, and its connections look well. So each answer is waited for a little longer
//! than the server may take. Once one stays out, every connection from before the question is suspect: the pools replace
//! them as they would be used next. One that was made since says nothing of itself yet, and stays: or commits that stand
//! still, one after the other, would have the pools made anew again and again. So it is when a server turns out to take no writes any more, and when revocations are heard
//! again: connections from before may lead to a server that is not the one any more.
//!
//! Whoever listens for revocations knows first that nobody answers at all. From then on nobody waits for a connection, and
//! nobody asks for one, until somebody answers: no queue grows, and Postgres comes back to gateways that ask no more than
//! their pools are large.

use std::{
    fmt,
    future::Future,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::time::timeout;
use tokio_postgres::error::SqlState;

use super::DbError;
use crate::clock::monotonic;

/// For the way there and back, and for the server to notice that the time is over.
const ALLOWANCE: Duration = Duration::from_secs(1);
/// A server that takes no writes says so to each: connections are made anew no more often than this.
const READ_ONLY_EVERY: Duration = Duration::from_secs(1);

/// What is known of the answers of one `[database]`.
#[derive(Debug)]
pub struct Answers {
    limit: Duration,
    suspect_until: Mutex<Option<Instant>>,
    is_reachable: AtomicBool,
}

impl Answers {
    pub fn new(statement_timeout: Duration) -> Self {
        Self {
            limit: statement_timeout.saturating_add(ALLOWANCE),
            suspect_until: Mutex::default(),
            is_reachable: AtomicBool::new(true),
        }
    }

    /// As far as anybody knows: who never asked does not know that it is not.
    pub fn is_reachable(&self) -> bool {
        self.is_reachable.load(Ordering::Relaxed)
    }

    pub fn found(&self, is_reachable: bool) {
        self.is_reachable.store(is_reachable, Ordering::Relaxed);
    }

    /// How long an answer may take at most: longer than the server's own limit.
    pub const fn limit(&self) -> Duration {
        self.limit
    }

    /// Waits for what the server has to say.
    pub async fn wait<T>(
        &self,
        query: &'static str,
        answer: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, DbError> {
        let asked = monotonic();
        let Ok(answer) = timeout(self.limit, answer).await else {
            self.distrust_from_before(asked);
            let limit = self.limit;
            return Err(DbError::Unavailable(Box::new(NoAnswer { query, limit })));
        };
        answer.map_err(|error| {
            if error.code() == Some(&SqlState::READ_ONLY_SQL_TRANSACTION) {
                self.took_no_write();
            }
            DbError::of(query, error)
        })
    }

    /// Connections that were made until now are not used any more.
    pub fn distrust(&self) {
        self.distrust_from_before(monotonic());
    }

    fn distrust_from_before(&self, then: Instant) {
        let mut until = self.suspect_until();
        *until = until.max(Some(then));
    }

    fn took_no_write(&self) {
        let now = monotonic();
        let mut until = self.suspect_until();
        if until.is_none_or(|until| now.saturating_duration_since(until) >= READ_ONLY_EVERY) {
            *until = Some(now);
        }
    }

    /// Whether a connection was made before that.
    pub fn is_suspect(&self, made_at: Instant) -> bool {
        self.suspect_until().is_some_and(|until| made_at <= until)
    }

    fn suspect_until(&self) -> MutexGuard<'_, Option<Instant>> {
        self.suspect_until.lock().unwrap_or_else(PoisonError::into_inner)
    }
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

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    #[tokio::test]
    async fn an_answer_that_stays_out_makes_connections_suspect_that_are_older_than_the_question() {
        let answers = Answers::new(Duration::ZERO);
        let before = monotonic();
        let mut meanwhile = None;
        let never = async {
            meanwhile = Some(monotonic());
            pending::<Result<(), tokio_postgres::Error>>().await
        };
        assert!(answers.wait("a query", never).await.is_err());
        assert!(answers.is_suspect(before));
        assert!(!answers.is_suspect(meanwhile.unwrap()));
        answers.distrust();
        assert!(answers.is_suspect(meanwhile.unwrap()));
    }
}
