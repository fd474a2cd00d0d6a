//! Brings the schema to what this program expects, or says that it isn't there yet.
//!
//! The files of `migrations/` are embedded. They run on a connection of their own under an advisory lock, so that
//! several gateways may start at once. A schema newer than the program is fine: migrations expand first and contract a
//! release later (`migrations/README.md`).

use std::{error::Error as _, io};

use tokio_postgres::{Client, error::SqlState};
use tracing::info;

use super::{
    Connector, Query,
    connect::{advice, of_tls},
};

mod embedded {
    refinery::embed_migrations!("migrations");
}

#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    #[error("could not connect to Postgres{}", advice(.0))]
    Connect(#[source] tokio_postgres::Error),
    #[error("the schema name {schema} is too long: with it the notification channel would pass Postgres's 63 bytes")]
    SchemaName { schema: String },
    #[error("could not {doing}")]
    Statement {
        doing: &'static str,
        #[source]
        source: tokio_postgres::Error,
    },
    #[error("could not bring the schema up to date")]
    Migration(#[source] Box<refinery::Error>),
    #[error("the schema lacks migrations that are older than its newest: {}", .0.join(", "))]
    Gap(Vec<String>),
}

impl MigrateError {
    /// Whether waiting may help: Postgres is away, starting, or full. Nobody waits for a refusal to change by itself: a
    /// wrong password or right (SQLSTATE classes 28 and 42), a database that isn't there (3D), a pooler that nobody spoke
    /// of (08P01), TLS that one side demands and the other can't do.
    pub fn may_heal(&self) -> bool {
        let Self::Connect(error) = self else {
            return false;
        };
        if let Some(db) = error.as_db_error() {
            let class = db.code().code().get(..2).unwrap_or_default();
            return !matches!(class, "28" | "3D" | "42") && *db.code() != SqlState::PROTOCOL_VIOLATION;
        }
        // What lies with the network is an `io::Error`; within one, TLS tells of certificates that it doesn't accept.
        match error.source() {
            None => true,
            Some(cause) => cause.is::<io::Error>() && of_tls(error).is_none(),
        }
    }
}

/// Whether the schema is what this program needs.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum SchemaState {
    /// Everything that this program knows of has been applied, and perhaps more.
    UpToDate,
    /// These have not been applied; all of them on an empty database.
    Missing(Vec<String>),
}

/// Applies what is missing; returns what that was. Waits for another gateway that does the same.
pub async fn run(connector: &Connector, schema: &str) -> Result<Vec<String>, MigrateError> {
    if channel(schema).len() > MAX_IDENTIFIER {
        return Err(MigrateError::SchemaName {
            schema: schema.to_owned(),
        });
    }
    let mut client = connector.connect().await.map_err(MigrateError::Connect)?;
    // A migration takes as long as it takes, and so does waiting for the one who is at it. The lock ends with the
    // connection.
    statement(&client, "lift the statement time-out", "SET statement_timeout = 0").await?;
    client
        .query_one(LOCK.sql, &[&format!("vestibule {schema}")])
        .await
        .map_err(|source| MigrateError::Statement {
            doing: "take the migration lock",
            source,
        })?;
    // Asked first: CREATE SCHEMA IF NOT EXISTS demands the right to create one even where there is nothing to do.
    if !exists(&client, SCHEMA_EXISTS, schema).await? {
        statement(&client, "create the schema", &format!("CREATE SCHEMA \"{schema}\"")).await?;
    }
    let report = embedded::migrations::runner()
        .set_abort_missing(false)
        .run_async(&mut client)
        .await
        .map_err(|error| MigrateError::Migration(Box::new(error)))?;
    let applied: Vec<String> = report.applied_migrations().iter().map(ToString::to_string).collect();
    for migration in &applied {
        info!(migration, "applied migration {migration}");
    }
    // Not refusing a newer schema also lets the runner pass over a gap.
    match state(&mut client, schema).await? {
        SchemaState::UpToDate => Ok(applied),
        SchemaState::Missing(missing) => Err(MigrateError::Gap(missing)),
    }
}

/// Changes nothing: for `migrate = "manual"`.
pub async fn check(connector: &Connector, schema: &str) -> Result<SchemaState, MigrateError> {
    let mut client = connector.connect().await.map_err(MigrateError::Connect)?;
    state(&mut client, schema).await
}

async fn state(client: &mut Client, schema: &str) -> Result<SchemaState, MigrateError> {
    let runner = embedded::migrations::runner();
    let applied = if exists(client, HISTORY_EXISTS, schema).await? {
        runner
            .get_applied_migrations_async(client)
            .await
            .map_err(|error| MigrateError::Migration(Box::new(error)))?
    } else {
        Vec::new()
    };
    let mut missing: Vec<_> = runner
        .get_migrations()
        .iter()
        .filter(|known| applied.iter().all(|applied| applied.version() != known.version()))
        .collect();
    missing.sort();
    Ok(if missing.is_empty() {
        SchemaState::UpToDate
    } else {
        SchemaState::Missing(missing.into_iter().map(ToString::to_string).collect())
    })
}

/// Where the triggers announce revocations.
pub fn channel(schema: &str) -> String {
    format!("vestibule_{schema}")
}

async fn exists(client: &Client, query: Query, schema: &str) -> Result<bool, MigrateError> {
    let found = client.query_opt(query.sql, &[&schema]).await;
    found
        .map(|row| row.is_some())
        .map_err(|source| MigrateError::Statement {
            doing: "look for the schema",
            source,
        })
}

async fn statement(client: &Client, doing: &'static str, sql: &str) -> Result<(), MigrateError> {
    client
        .batch_execute(sql)
        .await
        .map_err(|source| MigrateError::Statement { doing, source })
}

/// Postgres cuts identifiers, and refuses channels, that are longer.
const MAX_IDENTIFIER: usize = 63;

const LOCK: Query = Query {
    name: "migrate.lock",
    sql: "SELECT pg_advisory_lock(hashtextextended($1, 0))",
};

const SCHEMA_EXISTS: Query = Query {
    name: "migrate.schema_exists",
    sql: "SELECT 1 FROM pg_catalog.pg_namespace WHERE nspname = $1",
};

const HISTORY_EXISTS: Query = Query {
    name: "migrate.history_exists",
    sql: "SELECT 1 FROM pg_catalog.pg_tables WHERE schemaname = $1 AND tablename = 'refinery_schema_history'",
};

/// Asked outside of the pools, before there are tables.
pub const ALL: &[Query] = &[LOCK, SCHEMA_EXISTS, HISTORY_EXISTS];
