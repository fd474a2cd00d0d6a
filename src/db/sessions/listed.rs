//! Sessions as operators list and end them: of anybody, with the address of whose they are.

use std::net::IpAddr;

use tokio_postgres::Row;
use uuid::Uuid;

use super::{Revoked, device, place};
use crate::{
    clock::Timestamp,
    db::{DbError, GenericClient, Query, column},
    identity::{Device, Place, SessionId, UserId},
};

/// A live session with its user's address, for whoever looks after them.
#[derive(Clone, Debug)]
pub struct Listed {
    pub id: SessionId,
    pub user_id: UserId,
    pub email: String,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub expires_at: Timestamp,
    pub last_seen_at: Option<Timestamp>,
    pub remembered: bool,
    pub methods: Vec<String>,
    pub ip_address: Option<IpAddr>,
    pub user_agent: String,
    pub device: Device,
    pub place: Place,
}

impl Listed {
    fn from_row(query: &Query, row: &Row) -> Result<Self, DbError> {
        Ok(Self {
            id: SessionId(column(query, row, "id")?),
            user_id: UserId(column(query, row, "user_id")?),
            email: column(query, row, "email")?,
            created_at: column(query, row, "created_at")?,
            updated_at: column(query, row, "updated_at")?,
            expires_at: column(query, row, "expires_at")?,
            last_seen_at: column(query, row, "last_seen_at")?,
            remembered: column(query, row, "remembered")?,
            methods: column(query, row, "methods")?,
            ip_address: column(query, row, "ip_address")?,
            user_agent: column(query, row, "user_agent")?,
            device: device(query, row)?,
            place: place(query, row)?,
        })
    }
}

/// A user's live sessions, the newest first: as many as anybody would look through. Answered by `user_sessions_user_id_created_at_idx`. While a ban is in force
/// none of them is live.
pub(super) const LIST_OF: Query = Query {
    name: "sessions.list_of",
    sql: "
        SELECT s.id, s.user_id, u.email, s.created_at, s.updated_at, s.expires_at, s.last_seen_at, s.remembered,
            s.methods, s.ip_address, s.user_agent, s.browser, s.os, s.device, s.country, s.city
        FROM user_sessions AS s
        JOIN users AS u ON u.id = s.user_id
        WHERE s.user_id = $1 AND s.revoked_at IS NULL AND s.expires_at > $2 AND (NOT u.banned OR u.ban_expires <= $2)
        ORDER BY s.created_at DESC, s.id DESC
        LIMIT $3
    ",
};

pub async fn list_of(
    client: &impl GenericClient,
    user: UserId,
    limit: usize,
    now: Timestamp,
) -> Result<Vec<Listed>, DbError> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = LIST_OF.rows(client, &[&user.0, &now, &limit]).await?;
    rows.iter().map(|row| Listed::from_row(&LIST_OF, row)).collect()
}

/// Everybody's live sessions, the newest first, since ids are in order of time; only those behind `$1`, the last of the
/// page before. Answered by the primary key, read backwards.
pub(super) const LIST_ALL: Query = Query {
    name: "sessions.list_all",
    sql: "
        SELECT s.id, s.user_id, u.email, s.created_at, s.updated_at, s.expires_at, s.last_seen_at, s.remembered,
            s.methods, s.ip_address, s.user_agent, s.browser, s.os, s.device, s.country, s.city
        FROM user_sessions AS s
        JOIN users AS u ON u.id = s.user_id
        WHERE ($1::uuid IS NULL OR s.id < $1)
            AND s.revoked_at IS NULL AND s.expires_at > $2 AND (NOT u.banned OR u.ban_expires <= $2)
        ORDER BY s.id DESC
        LIMIT $3
    ",
};

pub async fn list_all(
    client: &impl GenericClient,
    after: Option<SessionId>,
    limit: usize,
    now: Timestamp,
) -> Result<Vec<Listed>, DbError> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = LIST_ALL.rows(client, &[&after.map(|id| id.0), &now, &limit]).await?;
    rows.iter().map(|row| Listed::from_row(&LIST_ALL, row)).collect()
}

/// As [`super::LOCK_OWNERS`], by the sessions' ids. Answered by the primary keys.
pub(super) const LOCK_OWNERS_OF: Query = Query {
    name: "sessions.lock_owners_of",
    sql: "
        SELECT id
        FROM users
        WHERE id = ANY (ARRAY(SELECT user_id FROM user_sessions WHERE id = ANY ($1)))
        ORDER BY id
        FOR UPDATE
    ",
};

pub async fn lock_owners_of(client: &impl GenericClient, ids: &[SessionId]) -> Result<(), DbError> {
    let ids: Vec<Uuid> = ids.iter().map(|id| id.0).collect();
    LOCK_OWNERS_OF.rows(client, &[&ids]).await.map(drop)
}

/// Ends sessions, whosever they are. Answered by the primary key; the trigger tells every gateway. Rows are locked in
/// the order of their ids, as everywhere: see [`super::SEEN`].
pub(super) const REVOKE_ANY: Query = Query {
    name: "sessions.revoke_any",
    sql: "
        UPDATE user_sessions
        SET revoked_at = $2, updated_at = $2
        WHERE id IN (
            SELECT id
            FROM user_sessions
            WHERE id = ANY($1) AND revoked_at IS NULL AND expires_at > $2
            ORDER BY id
            FOR UPDATE
        )
        RETURNING id, token_hash, user_id
    ",
};

/// What was revoked; what was over, or never was, is not among it.
pub async fn revoke_any(
    client: &impl GenericClient,
    ids: &[SessionId],
    now: Timestamp,
) -> Result<Vec<Revoked>, DbError> {
    let ids: Vec<Uuid> = ids.iter().map(|id| id.0).collect();
    let rows = REVOKE_ANY.rows(client, &[&ids, &now]).await?;
    rows.iter().map(|row| Revoked::from_row(&REVOKE_ANY, row)).collect()
}
