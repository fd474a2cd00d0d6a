//! `oauth_flows`: what is remembered between sending a browser to a provider and its coming back. Each goes on once.

use super::{DbError, GenericClient, Params, Query, column};
use crate::{clock::Timestamp, secret::TokenHash};

/// A flow to be remembered.
#[derive(Debug)]
pub struct NewFlow<'a> {
    pub state: TokenHash,
    pub browser: TokenHash,
    pub provider: &'a str,
    /// Sealed.
    pub payload: &'a [u8],
    pub expires_at: Timestamp,
    /// Flows of the browser that stay beside this one; of those that are more, the oldest go.
    pub others: i64,
}

/// Remembers a flow, and forgets the oldest of a browser that has too many. Answered by
/// `oauth_flows_browser_hash_created_at_idx`, then by the primary key.
///
/// Starts of one browser at the same moment don't see each other and may each leave one too many: the next sees all.
pub const INSERT: Query = Query {
    name: "oauth_flows.insert",
    sql: "
        WITH oldest AS (
            DELETE FROM oauth_flows
            WHERE state_hash = ANY (ARRAY(
                SELECT state_hash
                FROM oauth_flows
                WHERE browser_hash = $2
                ORDER BY created_at DESC
                OFFSET $7
            ))
        )
        INSERT INTO oauth_flows (state_hash, browser_hash, provider_id, payload, created_at, expires_at)
        VALUES ($1, $2, $3, $4, $5, $6)
    ",
};

pub async fn insert(client: &impl GenericClient, flow: &NewFlow<'_>, now: Timestamp) -> Result<(), DbError> {
    let params: Params<'_> = &[
        &flow.state.as_bytes().as_slice(),
        &flow.browser.as_bytes().as_slice(),
        &flow.provider,
        &flow.payload,
        &now,
        &flow.expires_at,
        &flow.others,
    ];
    INSERT.run(client, params).await.map(drop)
}

/// A flow that was under way, and is so no longer.
#[derive(Debug)]
pub struct Taken {
    pub browser: Vec<u8>,
    pub provider: String,
    pub payload: Vec<u8>,
    pub expires_at: Timestamp,
}

/// Takes a flow, whatever comes of it: of two who ask at once, one gets it. Answered by the primary key.
pub const TAKE: Query = Query {
    name: "oauth_flows.take",
    sql: "
        DELETE FROM oauth_flows
        WHERE state_hash = $1
        RETURNING browser_hash, provider_id, payload, expires_at
    ",
};

pub async fn take(client: &impl GenericClient, state: &TokenHash) -> Result<Option<Taken>, DbError> {
    let Some(row) = TAKE.row(client, &[&state.as_bytes().as_slice()]).await? else {
        return Ok(None);
    };
    Ok(Some(Taken {
        browser: column(&TAKE, &row, "browser_hash")?,
        provider: column(&TAKE, &row, "provider_id")?,
        payload: column(&TAKE, &row, "payload")?,
        expires_at: column(&TAKE, &row, "expires_at")?,
    }))
}

/// Whether a browser has flows under way. Answered by `oauth_flows_browser_hash_created_at_idx`.
pub const HAS_PENDING: Query = Query {
    name: "oauth_flows.has_pending",
    sql: "
        SELECT 1
        FROM oauth_flows
        WHERE browser_hash = $1 AND expires_at > $2
        LIMIT 1
    ",
};

pub async fn has_pending(client: &impl GenericClient, browser: &TokenHash, now: Timestamp) -> Result<bool, DbError> {
    let row = HAS_PENDING.row(client, &[&browser.as_bytes().as_slice(), &now]).await?;
    Ok(row.is_some())
}

/// Deletes some flows that nobody came back from. Answered by `oauth_flows_expires_at_idx`, then by the primary key.
pub const DELETE_EXPIRED: Query = Query {
    name: "oauth_flows.delete_expired",
    sql: "
        DELETE FROM oauth_flows
        WHERE state_hash = ANY (ARRAY(
            SELECT state_hash
            FROM oauth_flows
            WHERE expires_at < $1
            ORDER BY expires_at
            LIMIT $2
            FOR UPDATE SKIP LOCKED
        ))
    ",
};

pub async fn delete_expired(client: &impl GenericClient, before: Timestamp, at_most: i64) -> Result<u64, DbError> {
    DELETE_EXPIRED.run(client, &[&before, &at_most]).await
}

pub const ALL: &[Query] = &[INSERT, TAKE, HAS_PENDING, DELETE_EXPIRED];
