//! Postgres: two pools, named queries, one error type.
//!
//! `hot` serves session look-ups alone, `cold` everything else, so that a flood of sign-ups can't take the connection
//! that a proxied request needs. Files below hold a table each: its queries, its rows, the functions that run them.
//! Time comes in as a parameter; no query asks the server what time it is. How a statement gets there, past poolers or
//! through them, is `client.rs`.

pub mod accounts;
pub mod acme;
pub mod audit;
pub mod imports;
pub mod known_addresses;
pub mod listen;
pub mod migrate;
pub mod oauth_flows;
pub mod one_time_tokens;
pub mod outbox;
pub mod rate_limits;
pub mod sessions;
pub mod signing_keys;
pub mod users;

mod answer;
mod client;
mod connect;
mod hosts;
mod server;
mod typed;

pub use client::{Client, GenericClient, Pool, Transaction};
pub use connect::{Connector, Pooler, Settings};

use std::{error::Error as _, time::Duration};

use tokio_postgres::{
    Row,
    error::SqlState,
    types::{FromSql, IsNull, ToSql, Type, accepts, to_sql_checked},
};

use crate::clock::Timestamp;

/// A statement with a name.
#[derive(Clone, Copy, Debug)]
pub struct Query {
    /// `table.verb`
    pub name: &'static str,
    pub sql: &'static str,
}

/// Every query of the program, for the test that prepares each against a migrated database.
pub fn all_queries() -> impl Iterator<Item = &'static Query> {
    [
        users::ALL,
        accounts::ALL,
        accounts::linked::ALL,
        accounts::tokens::ALL,
        acme::ALL,
        sessions::ALL,
        one_time_tokens::ALL,
        outbox::ALL,
        audit::ALL,
        rate_limits::ALL,
        known_addresses::ALL,
        oauth_flows::ALL,
        signing_keys::ALL,
        imports::ALL,
        migrate::ALL,
    ]
    .into_iter()
    .flatten()
}

/// The two pools.
#[derive(Clone, Debug)]
pub struct Db {
    pub hot: Pool,
    pub cold: Pool,
}

impl Db {
    /// A connection for the auth API and the workers, within the acquire time-out.
    pub async fn client(&self) -> Result<Client, DbError> {
        acquire(&self.cold).await
    }
}

/// A connection out of `pool`, within its time-outs.
pub async fn acquire(pool: &Pool) -> Result<Client, DbError> {
    pool.get().await
}

/// Begins a transaction on `client`.
pub async fn begin(client: &mut Client) -> Result<Transaction<'_>, DbError> {
    client.begin().await
}

/// Begins one that sees the database as it is now, to its end, and changes nothing.
pub async fn begin_reading(client: &mut Client) -> Result<Transaction<'_>, DbError> {
    client.begin_reading().await
}

/// Commits; what was done is lost unless this says `Ok`.
pub async fn commit(tx: Transaction<'_>) -> Result<(), DbError> {
    tx.commit().await
}

/// Values for a query, in the order of its parameters.
pub type Params<'p> = &'p [&'p (dyn ToSql + Sync)];

impl Query {
    pub async fn rows(&self, client: &impl GenericClient, params: Params<'_>) -> Result<Vec<Row>, DbError> {
        let answers = &client.way().answers;
        answers.wait(self.name, client.rows(self, params)).await
    }

    /// For a query that finds one row at most.
    pub async fn row(&self, client: &impl GenericClient, params: Params<'_>) -> Result<Option<Row>, DbError> {
        Ok(self.rows(client, params).await?.into_iter().next())
    }

    /// How many rows it touched.
    pub async fn run(&self, client: &impl GenericClient, params: Params<'_>) -> Result<u64, DbError> {
        let answers = &client.way().answers;
        answers.wait(self.name, client.run(self, params)).await
    }
}

#[derive(Debug, thiserror::Error)]
pub enum DbError {
    /// No connection, or none in time, or it broke, or the statement took too long: trying again may help.
    #[error("Postgres is not available")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A unique constraint said no; callers match on its name.
    #[error("the constraint {constraint} refused a row")]
    Conflict { constraint: String },
    #[error("query {query} failed")]
    Failed {
        query: &'static str,
        #[source]
        source: tokio_postgres::Error,
    },
    /// A row holds what the program can't understand.
    #[error("a row of query {query} can't be read")]
    Row {
        query: &'static str,
        #[source]
        source: tokio_postgres::Error,
    },
}

impl DbError {
    fn of(query: &'static str, error: tokio_postgres::Error) -> Self {
        if let Some(db) = error.as_db_error() {
            if *db.code() == SqlState::UNIQUE_VIOLATION {
                return Self::Conflict {
                    constraint: db.constraint().unwrap_or_default().to_owned(),
                };
            }
            return if may_pass(db.code(), db.file()) {
                Self::Unavailable(Box::new(error))
            } else {
                Self::Failed { query, source: error }
            };
        }
        if error.is_closed()
            || error
                .source()
                .is_some_and(<dyn std::error::Error>::is::<std::io::Error>)
        {
            return Self::Unavailable(Box::new(error));
        }
        Self::Failed { query, source: error }
    }

    pub const fn is_unavailable(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }
}

/// Whether the same may succeed a little later. Classes 53 (resources), 57 (operator intervention: shutdown, cancel), 08
/// (connection) and 40 (rolled back: deadlock, serialization); a server that only reads, as between a failover and
/// the moment when its successor is found; a lock that somebody else has (`lock_timeout`); and a queue of notifications
/// that is full, since somebody does not take them: of what passes Postgres's limits only that, as its source file tells.
fn may_pass(code: &SqlState, file: Option<&str>) -> bool {
    let class = code.code().get(..2).unwrap_or_default();
    matches!(class, "53" | "57" | "08" | "40")
        || matches!(
            *code,
            SqlState::READ_ONLY_SQL_TRANSACTION | SqlState::LOCK_NOT_AVAILABLE
        )
        || (*code == SqlState::PROGRAM_LIMIT_EXCEEDED && file == Some("async.c"))
}

/// Reads column `name` of `row`.
pub fn column<'r, T: FromSql<'r>>(query: &Query, row: &'r Row, name: &str) -> Result<T, DbError> {
    row.try_get(name).map_err(|source| DbError::Row {
        query: query.name,
        source,
    })
}

/// `timestamptz` counts microseconds from 2000-01-01.
const POSTGRES_EPOCH_MICROS: i64 = 946_684_800_000_000;

impl ToSql for Timestamp {
    fn to_sql(&self, _: &Type, out: &mut bytes::BytesMut) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        out.extend_from_slice(&self.micros().saturating_sub(POSTGRES_EPOCH_MICROS).to_be_bytes());
        Ok(IsNull::No)
    }

    accepts!(TIMESTAMPTZ);
    to_sql_checked!();
}

impl<'r> FromSql<'r> for Timestamp {
    fn from_sql(_: &Type, raw: &'r [u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        // `infinity` and `-infinity` are the extreme values: saturating keeps them so.
        let micros = i64::from_be_bytes(raw.try_into()?);
        Ok(Self::from_micros(micros.saturating_add(POSTGRES_EPOCH_MICROS)))
    }

    accepts!(TIMESTAMPTZ);
}

/// How long a client waits before it tries again, when Postgres is away.
pub const RETRY_AFTER: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_attempt_may_mend_is_no_failure_of_ours() {
        for code in [
            SqlState::T_R_DEADLOCK_DETECTED,
            SqlState::T_R_SERIALIZATION_FAILURE,
            SqlState::READ_ONLY_SQL_TRANSACTION,
            SqlState::ADMIN_SHUTDOWN,
            SqlState::QUERY_CANCELED,
            SqlState::TOO_MANY_CONNECTIONS,
            SqlState::LOCK_NOT_AVAILABLE,
        ] {
            assert!(may_pass(&code, None), "{code:?}");
        }
        assert!(may_pass(&SqlState::PROGRAM_LIMIT_EXCEEDED, Some("async.c")));
        for code in [
            SqlState::PROGRAM_LIMIT_EXCEEDED,
            SqlState::UNDEFINED_TABLE,
            SqlState::NOT_NULL_VIOLATION,
            SqlState::INVALID_TRANSACTION_STATE,
        ] {
            assert!(!may_pass(&code, Some("nbtutils.c")), "{code:?}");
        }
    }
}
