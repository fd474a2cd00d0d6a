//! Connections out of the pools, transactions on them, and how a statement gets to the server.
//!
//! *Directly*, a statement is prepared once per connection, and the connection itself knows the schema and the time-out of
//! statements.
//!
//! *Behind a pooler that hands connections out by transaction* (PgBouncer's transaction mode), nothing outlives a transaction:
//! no statement that was prepared, no setting. So statements go unnamed, with their types (`typed.rs`), and each
//! transaction begins with what it needs as `SET LOCAL`. A statement by itself is a transaction of its own. All of that is
//! sent at once: it takes one round trip, as it does directly.

use std::{
    fmt,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use deadpool_postgres::Object;
use futures_util::future::{join, join3};
use tokio_postgres::{Error, IsolationLevel, Row};

use super::{DbError, Params, Query, answer::Answers, typed};

/// What all connections of one `[database]` have in common.
#[derive(Debug)]
pub struct Way {
    pub answers: Answers,
    pub settings: Settled,
}

/// Where the schema and the time-out of statements are said.
#[derive(Debug)]
pub enum Settled {
    /// When the connection is made.
    PerConnection,
    /// In each transaction.
    PerTransaction { begin: String, set: String },
}

impl Settled {
    pub fn per_transaction(schema: &str, statement_timeout: Duration) -> Self {
        let timeout_ms = statement_timeout.as_millis();
        let set = format!("SET LOCAL search_path TO \"{schema}\"; SET LOCAL statement_timeout TO {timeout_ms}");
        Self::PerTransaction {
            begin: format!("BEGIN ISOLATION LEVEL READ COMMITTED; {set}"),
            set,
        }
    }
}

/// Connections to share. A clone is the same pool.
#[derive(Clone)]
pub struct Pool {
    connections: deadpool_postgres::Pool,
    way: Arc<Way>,
}

impl Pool {
    pub(super) const fn new(connections: deadpool_postgres::Pool, way: Arc<Way>) -> Self {
        Self { connections, way }
    }

    /// How many there may be.
    pub fn max_size(&self) -> usize {
        self.connections.status().max_size
    }

    /// Whether one is there that nobody uses.
    pub fn has_idle(&self) -> bool {
        // It keeps them all: what the pool says of itself counts whoever waits for a new one as if they had one of those.
        self.connections.retain(|_, _| true).retained > 0
    }

    pub(super) async fn get(&self) -> Result<Client, DbError> {
        if !self.way.answers.is_reachable() {
            return Err(DbError::Unavailable(
                "it can't be reached, as was found a moment ago".into(),
            ));
        }
        match self.connections.get().await {
            Ok(object) => Ok(Client {
                object,
                way: Arc::clone(&self.way),
            }),
            Err(error) => Err(DbError::Unavailable(Box::new(error))),
        }
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.connections.status().fmt(f)
    }
}

/// A connection out of a pool, to which it goes back when this is dropped.
#[derive(Debug)]
pub struct Client {
    object: Object,
    way: Arc<Way>,
}

impl Client {
    /// Ends the connection: nobody else gets it.
    pub fn discard(self) {
        drop(Object::take(self.object));
    }

    /// Whatever the database has by default: who waited for a row's lock has to see what became of all others meanwhile.
    pub(super) async fn begin(&mut self) -> Result<Transaction<'_>, DbError> {
        let way = Arc::clone(&self.way);
        let builder = self.object.build_transaction();
        let starting = builder.isolation_level(IsolationLevel::ReadCommitted);
        let tx = way.answers.wait("begin", starting.start()).await?;
        Ok(Transaction::on(tx, way))
    }

    pub(super) async fn begin_reading(&mut self) -> Result<Transaction<'_>, DbError> {
        let way = Arc::clone(&self.way);
        let builder = self.object.build_transaction();
        let starting = builder.isolation_level(IsolationLevel::RepeatableRead).read_only(true);
        let tx = way.answers.wait("begin reading", starting.start()).await?;
        Ok(Transaction::on(tx, way))
    }
}

/// Undone when it is dropped rather than committed.
pub struct Transaction<'c> {
    tx: deadpool_postgres::Transaction<'c>,
    way: Arc<Way>,
    /// What it needs has been said, if it is to be said here.
    is_set: AtomicBool,
}

impl<'c> Transaction<'c> {
    fn on(tx: deadpool_postgres::Transaction<'c>, way: Arc<Way>) -> Self {
        let is_set = AtomicBool::new(false);
        Self { tx, way, is_set }
    }

    pub(super) async fn commit(self) -> Result<(), DbError> {
        self.way.answers.wait("commit", self.tx.commit()).await
    }

    /// For statements that are not ours: on a database to which there is no pooler in between.
    pub const fn raw(&self) -> &deadpool_postgres::Transaction<'c> {
        &self.tx
    }

    /// Waits for `statement`, which is sent behind what the transaction needs.
    async fn prepared<T>(&self, set: &str, statement: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        if self.is_set.swap(true, Ordering::Relaxed) {
            return statement.await;
        }
        let (is_set, outcome) = join(self.tx.batch_execute(set), statement).await;
        is_set?;
        outcome
    }
}

impl fmt::Debug for Transaction<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transaction").finish_non_exhaustive()
    }
}

/// What queries run on: a connection, or a transaction.
pub trait GenericClient: Runs {}

impl GenericClient for Client {}
impl GenericClient for Transaction<'_> {}

/// How: nobody else is to know.
pub trait Runs: Sync {
    fn way(&self) -> &Way;

    fn rows(&self, query: &Query, params: Params<'_>) -> impl Future<Output = Result<Vec<Row>, Error>> + Send;

    /// How many rows were touched.
    fn run(&self, query: &Query, params: Params<'_>) -> impl Future<Output = Result<u64, Error>> + Send;
}

impl Runs for Client {
    fn way(&self) -> &Way {
        &self.way
    }

    async fn rows(&self, query: &Query, params: Params<'_>) -> Result<Vec<Row>, Error> {
        let client = &self.object;
        match &self.way.settings {
            Settled::PerConnection => {
                let prepared = client.prepare_cached(query.sql).await?;
                client.query(&prepared, params).await
            }
            Settled::PerTransaction { begin, .. } => {
                let typed = typed::params(query, params);
                alone(client, begin, client.query_typed(query.sql, &typed)).await
            }
        }
    }

    async fn run(&self, query: &Query, params: Params<'_>) -> Result<u64, Error> {
        let client = &self.object;
        match &self.way.settings {
            Settled::PerConnection => {
                let prepared = client.prepare_cached(query.sql).await?;
                client.execute(&prepared, params).await
            }
            Settled::PerTransaction { begin, .. } => {
                let typed = typed::params(query, params);
                alone(client, begin, client.execute_typed(query.sql, &typed)).await
            }
        }
    }
}

impl Runs for Transaction<'_> {
    fn way(&self) -> &Way {
        &self.way
    }

    async fn rows(&self, query: &Query, params: Params<'_>) -> Result<Vec<Row>, Error> {
        match &self.way.settings {
            Settled::PerConnection => {
                let prepared = self.tx.prepare_cached(query.sql).await?;
                self.tx.query(&prepared, params).await
            }
            Settled::PerTransaction { set, .. } => {
                let typed = typed::params(query, params);
                self.prepared(set, self.tx.query_typed(query.sql, &typed)).await
            }
        }
    }

    async fn run(&self, query: &Query, params: Params<'_>) -> Result<u64, Error> {
        match &self.way.settings {
            Settled::PerConnection => {
                let prepared = self.tx.prepare_cached(query.sql).await?;
                self.tx.execute(&prepared, params).await
            }
            Settled::PerTransaction { set, .. } => {
                let typed = typed::params(query, params);
                self.prepared(set, self.tx.execute_typed(query.sql, &typed)).await
            }
        }
    }
}

/// Waits for `statement`, in a transaction of its own. The first time that they are polled the three send what they have to
/// say, in this order. Should the statement fail, what would commit undoes.
async fn alone<T>(
    client: &tokio_postgres::Client,
    begin: &str,
    statement: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    let commit = client.batch_execute("COMMIT");
    let (is_begun, outcome, is_committed) = join3(client.batch_execute(begin), statement, commit).await;
    is_begun?;
    let outcome = outcome?;
    is_committed?;
    Ok(outcome)
}
