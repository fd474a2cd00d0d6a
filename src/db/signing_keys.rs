//! `signing_keys`: what signs assertions. A handful of rows, shared by all gateways.
//!
//! Whoever makes or retires keys takes [`lock`] first, so that gateways which find at the same moment that one is due make
//! one between them.

use super::{DbError, GenericClient, Query, column};
use crate::clock::Timestamp;

/// A row of `signing_keys`.
#[derive(Clone, Debug)]
pub struct StoredKey {
    pub kid: String,
    pub algorithm: String,
    /// A JWK.
    pub public_key: String,
    /// Sealed.
    pub private_key: Vec<u8>,
    pub created_at: Timestamp,
    pub activates_at: Timestamp,
    /// `None`: nothing has taken its place yet, nor will soon.
    pub retires_at: Option<Timestamp>,
    pub expires_at: Option<Timestamp>,
}

/// All keys that are still published, the oldest first. No index: there are a few.
pub const LOAD: Query = Query {
    name: "signing_keys.load",
    sql: "
        SELECT kid, algorithm, public_key, private_key, created_at, activates_at, retires_at, expires_at
        FROM signing_keys
        WHERE expires_at IS NULL OR expires_at > $1
        ORDER BY activates_at, kid
        LIMIT 100
    ",
};

pub async fn load(client: &impl GenericClient, now: Timestamp) -> Result<Vec<StoredKey>, DbError> {
    let rows = LOAD.rows(client, &[&now]).await?;
    let read = |row: &tokio_postgres::Row| {
        Ok(StoredKey {
            kid: column(&LOAD, row, "kid")?,
            algorithm: column(&LOAD, row, "algorithm")?,
            public_key: column(&LOAD, row, "public_key")?,
            private_key: column(&LOAD, row, "private_key")?,
            created_at: column(&LOAD, row, "created_at")?,
            activates_at: column(&LOAD, row, "activates_at")?,
            retires_at: column(&LOAD, row, "retires_at")?,
            expires_at: column(&LOAD, row, "expires_at")?,
        })
    };
    rows.iter().map(read).collect()
}

/// Lets one at a time decide about keys; readers are not held up. Until the end of the transaction.
pub const LOCK: Query = Query {
    name: "signing_keys.lock",
    sql: "SELECT pg_advisory_xact_lock(hashtextextended('vestibule signing_keys ' || current_schema(), 0))",
};

pub async fn lock(client: &impl GenericClient) -> Result<(), DbError> {
    LOCK.run(client, &[]).await.map(drop)
}

pub const INSERT: Query = Query {
    name: "signing_keys.insert",
    sql: "
        INSERT INTO signing_keys (kid, algorithm, public_key, private_key, created_at, activates_at)
        VALUES ($1, $2, $3, $4, $5, $6)
    ",
};

/// `key` begins without an end: `retires_at` and `expires_at` are not written.
pub async fn insert(client: &impl GenericClient, key: &StoredKey) -> Result<(), DbError> {
    INSERT
        .run(
            client,
            &[
                &key.kid,
                &key.algorithm,
                &key.public_key,
                &key.private_key,
                &key.created_at,
                &key.activates_at,
            ],
        )
        .await
        .map(drop)
}

/// Says when keys stop signing, and when they are published no longer. Answered by the primary key.
pub const RETIRE: Query = Query {
    name: "signing_keys.retire",
    sql: "
        UPDATE signing_keys
        SET retires_at = $2, expires_at = $3
        WHERE kid = ANY ($1) AND retires_at IS NULL
    ",
};

pub async fn retire(
    client: &impl GenericClient,
    kids: &[&str],
    retires_at: Timestamp,
    expires_at: Timestamp,
) -> Result<(), DbError> {
    RETIRE.run(client, &[&kids, &retires_at, &expires_at]).await.map(drop)
}

/// Takes keys away at once. Answered by the primary key.
pub const DELETE: Query = Query {
    name: "signing_keys.delete",
    sql: "
        DELETE FROM signing_keys
        WHERE kid = ANY ($1)
    ",
};

pub async fn delete(client: &impl GenericClient, kids: &[&str]) -> Result<u64, DbError> {
    DELETE.run(client, &[&kids]).await
}

/// Removes what is published no longer. No index: there are a few.
pub const DELETE_EXPIRED: Query = Query {
    name: "signing_keys.delete_expired",
    sql: "
        DELETE FROM signing_keys
        WHERE expires_at <= $1
    ",
};

pub async fn delete_expired(client: &impl GenericClient, now: Timestamp) -> Result<u64, DbError> {
    DELETE_EXPIRED.run(client, &[&now]).await
}

/// Writes a private key that was sealed anew, unless somebody else did. Answered by the primary key.
pub const RESEAL: Query = Query {
    name: "signing_keys.reseal",
    sql: "
        UPDATE signing_keys
        SET private_key = $3
        WHERE kid = $1 AND private_key = $2
    ",
};

pub async fn reseal(client: &impl GenericClient, kid: &str, old: &[u8], new: &[u8]) -> Result<u64, DbError> {
    RESEAL.run(client, &[&kid, &old, &new]).await
}

pub const ALL: &[Query] = &[LOAD, LOCK, INSERT, RETIRE, DELETE, DELETE_EXPIRED, RESEAL];
