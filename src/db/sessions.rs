//! `user_sessions`: who is signed in. The hot query lives here.
//!
//! A session is live while it is neither revoked nor expired and its user is not banned. Revoking sets `revoked_at`;
//! the trigger tells every gateway. [`delete_ended`] removes what is over. What operators ask is a room of its own.

mod listed;

pub use listed::{Listed, list_all, list_of, lock_owners_of, revoke_any};

use std::{net::IpAddr, time::Duration};

use tokio_postgres::Row;
use uuid::Uuid;

use super::{DbError, GenericClient, Query, column, one_time_tokens, users::User};
use crate::{
    clock::Timestamp,
    identity::{Device, DeviceKind, Identity, Place, SessionId, UserId},
    secret::TokenHash,
};

/// What the data path needs of a live session.
#[derive(Clone, Debug)]
pub struct Found {
    pub id: SessionId,
    pub identity: Identity,
    pub methods: Vec<String>,
    pub created_at: Timestamp,
    pub expires_at: Timestamp,
    pub remembered: bool,
    pub last_seen_at: Option<Timestamp>,
}

/// Live sessions by token hash, with what the data path needs of their users.
/// The hot query: `user_sessions_token_hash_key` for each hash, then the primary key of `users`.
pub const FIND: Query = Query {
    name: "sessions.find",
    sql: "
        SELECT s.token_hash, s.id, s.created_at, s.expires_at, s.remembered, s.methods, s.last_seen_at,
            u.id AS user_id, u.email, u.email_verified, u.name, u.roles
        FROM user_sessions AS s
        JOIN users AS u ON u.id = s.user_id
        WHERE s.token_hash = ANY ($1)
            AND s.revoked_at IS NULL
            AND s.expires_at > $2
            AND (NOT u.banned OR u.ban_expires <= $2)
    ",
};

/// Those of `hashes` that are live.
pub async fn find(
    client: &impl GenericClient,
    hashes: &[TokenHash],
    now: Timestamp,
) -> Result<Vec<(TokenHash, Found)>, DbError> {
    let hashes: Vec<&[u8]> = hashes.iter().map(|hash| hash.as_bytes().as_slice()).collect();
    let rows = FIND.rows(client, &[&hashes, &now]).await?;
    let found = rows
        .iter()
        .map(|row| Ok((token_hash(&FIND, row)?, Found::from_row(row)?)));
    found.collect()
}

impl Found {
    fn from_row(row: &Row) -> Result<Self, DbError> {
        Ok(Self {
            id: SessionId(column(&FIND, row, "id")?),
            identity: Identity {
                id: UserId(column(&FIND, row, "user_id")?),
                email: column(&FIND, row, "email")?,
                email_verified: column(&FIND, row, "email_verified")?,
                name: column(&FIND, row, "name")?,
                roles: column(&FIND, row, "roles")?,
            },
            methods: column(&FIND, row, "methods")?,
            created_at: column(&FIND, row, "created_at")?,
            expires_at: column(&FIND, row, "expires_at")?,
            remembered: column(&FIND, row, "remembered")?,
            last_seen_at: column(&FIND, row, "last_seen_at")?,
        })
    }
}

/// A row of `user_sessions`.
#[derive(Clone, Debug)]
pub struct StoredSession {
    pub id: SessionId,
    pub token_hash: TokenHash,
    pub user_id: UserId,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub expires_at: Timestamp,
    pub remembered: bool,
    pub methods: Vec<String>,
    pub ip_address: Option<IpAddr>,
    pub user_agent: String,
    pub device: Device,
    /// Of `ip_address`.
    pub place: Place,
    pub last_seen_at: Option<Timestamp>,
}

impl StoredSession {
    fn from_row(query: &Query, row: &Row) -> Result<Self, DbError> {
        Ok(Self {
            id: SessionId(column(query, row, "id")?),
            token_hash: token_hash(query, row)?,
            user_id: UserId(column(query, row, "user_id")?),
            created_at: column(query, row, "created_at")?,
            updated_at: column(query, row, "updated_at")?,
            expires_at: column(query, row, "expires_at")?,
            remembered: column(query, row, "remembered")?,
            methods: column(query, row, "methods")?,
            ip_address: column(query, row, "ip_address")?,
            user_agent: column(query, row, "user_agent")?,
            device: device(query, row)?,
            place: place(query, row)?,
            last_seen_at: column(query, row, "last_seen_at")?,
        })
    }
}

fn device(query: &Query, row: &Row) -> Result<Device, DbError> {
    Ok(Device {
        browser: column(query, row, "browser")?,
        os: column(query, row, "os")?,
        kind: DeviceKind::of(column(query, row, "device")?),
    })
}

fn place(query: &Query, row: &Row) -> Result<Place, DbError> {
    Ok(Place {
        country: column(query, row, "country")?,
        city: column(query, row, "city")?,
    })
}

fn token_hash(query: &Query, row: &Row) -> Result<TokenHash, DbError> {
    let bytes: HashBytes = column(query, row, "token_hash")?;
    Ok(TokenHash::from_bytes(bytes.0))
}

/// Reads a `bytea` of exactly 32 bytes.
struct HashBytes([u8; 32]);

impl<'r> tokio_postgres::types::FromSql<'r> for HashBytes {
    fn from_sql(
        _: &tokio_postgres::types::Type,
        raw: &'r [u8],
    ) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Self(raw.try_into()?))
    }

    tokio_postgres::types::accepts!(BYTEA);
}

/// Live session by token hash, whole, with its whole user: for the auth API. Indexes as in [`FIND`].
pub const FIND_WITH_USER: Query = Query {
    name: "sessions.find_with_user",
    sql: "
        SELECT s.id, s.token_hash, s.created_at, s.updated_at, s.expires_at, s.remembered, s.methods,
            s.ip_address, s.user_agent, s.browser, s.os, s.device, s.country, s.city, s.last_seen_at,
            u.id AS user_id, u.email, u.email_verified, u.name, u.image, u.roles, u.banned, u.ban_reason,
            u.ban_expires, u.created_at AS user_created_at, u.updated_at AS user_updated_at
        FROM user_sessions AS s
        JOIN users AS u ON u.id = s.user_id
        WHERE s.token_hash = $1
            AND s.revoked_at IS NULL
            AND s.expires_at > $2
            AND (NOT u.banned OR u.ban_expires <= $2)
    ",
};

pub async fn find_with_user(
    client: &impl GenericClient,
    hash: &TokenHash,
    now: Timestamp,
) -> Result<Option<(StoredSession, User)>, DbError> {
    let Some(row) = FIND_WITH_USER.row(client, &[&hash.as_bytes().as_slice(), &now]).await? else {
        return Ok(None);
    };
    Ok(Some((
        StoredSession::from_row(&FIND_WITH_USER, &row)?,
        User::from_row(&FIND_WITH_USER, &row)?,
    )))
}

/// Whether a session is live, and this user's. Answered by the primary key.
pub const IS_LIVE: Query = Query {
    name: "sessions.is_live",
    sql: "
        SELECT 1
        FROM user_sessions
        WHERE id = $1 AND user_id = $2 AND revoked_at IS NULL AND expires_at > $3
    ",
};

/// For what began in a session and ends elsewhere. A banned user's counts, too: whoever asks has locked the user.
pub async fn is_live(
    client: &impl GenericClient,
    id: SessionId,
    user: UserId,
    now: Timestamp,
) -> Result<bool, DbError> {
    Ok(IS_LIVE.row(client, &[&id.0, &user.0, &now]).await?.is_some())
}

/// A user's live sessions, the newest first: as many as anybody would look through. Answered by `user_sessions_user_id_created_at_idx`.
pub const LIVE_OF: Query = Query {
    name: "sessions.live_of",
    sql: "
        SELECT id, token_hash, user_id, created_at, updated_at, expires_at, remembered, methods, ip_address, user_agent,
            browser, os, device, country, city, last_seen_at
        FROM user_sessions
        WHERE user_id = $1 AND revoked_at IS NULL AND expires_at > $2
        ORDER BY created_at DESC, id DESC
        LIMIT 500
    ",
};

pub async fn live_of(client: &impl GenericClient, user: UserId, now: Timestamp) -> Result<Vec<StoredSession>, DbError> {
    let rows = LIVE_OF.rows(client, &[&user.0, &now]).await?;
    rows.iter().map(|row| StoredSession::from_row(&LIVE_OF, row)).collect()
}

pub const INSERT: Query = Query {
    name: "sessions.insert",
    sql: "
        INSERT INTO user_sessions (id, token_hash, user_id, created_at, updated_at, expires_at, remembered, methods,
            ip_address, user_agent, last_seen_at, browser, os, device, country, city)
        VALUES ($1, $2, $3, $4, $4, $5, $6, $7, $8, $9, $4, $10, $11, $12, $13, $14)
    ",
};

/// `session.updated_at` and `last_seen_at` are taken to be `created_at`.
pub async fn insert(client: &impl GenericClient, session: &StoredSession) -> Result<(), DbError> {
    INSERT
        .run(
            client,
            &[
                &session.id.0,
                &session.token_hash.as_bytes().as_slice(),
                &session.user_id.0,
                &session.created_at,
                &session.expires_at,
                &session.remembered,
                &session.methods,
                &session.ip_address,
                &session.user_agent,
                &session.device.browser,
                &session.device.os,
                &session.device.kind.as_str(),
                &session.place.country,
                &session.place.city,
            ],
        )
        .await
        .map(drop)
}

/// Moves the expiry of a remembered session that lives beyond `$4` further away, never nearer. Answered by
/// `user_sessions_token_hash_key`; the trigger is silent, since nobody loses anything.
pub const EXTEND: Query = Query {
    name: "sessions.extend",
    sql: "
        UPDATE user_sessions
        SET expires_at = $2, updated_at = $3
        WHERE token_hash = $1 AND remembered AND revoked_at IS NULL AND expires_at > $4 AND expires_at < $2
    ",
};

/// Does nothing if the session has ended or will within `last_moments`, or somebody else extended it already.
pub async fn extend(
    client: &impl GenericClient,
    hash: &TokenHash,
    expires_at: Timestamp,
    last_moments: Duration,
    now: Timestamp,
) -> Result<(), DbError> {
    let beyond = now.plus(last_moments);
    EXTEND
        .run(client, &[&hash.as_bytes().as_slice(), &expires_at, &now, &beyond])
        .await
        .map(drop)
}

/// The same for many at once. Answered by `user_sessions_token_hash_key`; rows are locked in the order of their ids, as
/// everywhere: see [`SEEN`].
pub const EXTEND_ALL: Query = Query {
    name: "sessions.extend_all",
    sql: "
        WITH used AS (
            SELECT id
            FROM user_sessions
            WHERE token_hash = ANY ($1) AND remembered AND revoked_at IS NULL AND expires_at > $4 AND expires_at < $2
            ORDER BY id
            FOR UPDATE
        )
        UPDATE user_sessions AS s
        SET expires_at = $2, updated_at = $3
        FROM used
        WHERE s.id = used.id
    ",
};

pub async fn extend_all(
    client: &impl GenericClient,
    hashes: &[TokenHash],
    expires_at: Timestamp,
    last_moments: Duration,
    now: Timestamp,
) -> Result<(), DbError> {
    let hashes: Vec<&[u8]> = hashes.iter().map(|hash| hash.as_bytes().as_slice()).collect();
    let beyond = now.plus(last_moments);
    EXTEND_ALL
        .run(client, &[&hashes, &expires_at, &now, &beyond])
        .await
        .map(drop)
}

/// That a session was used.
#[derive(Clone, Debug)]
pub struct Seen {
    pub session: SessionId,
    pub at: Timestamp,
    pub from: IpAddr,
    pub place: Place,
}

/// Writes many uses at once, but not those soon after one that another gateway wrote. Answered by the primary key; no
/// index holds what changes, and the trigger is silent.
/// The id orders the updates, so that two gateways which write the same sessions don't wait for each other crosswise.
pub const SEEN: Query = Query {
    name: "sessions.seen",
    sql: "
        WITH seen AS (
            SELECT s.id, n.at, n.address, n.country, n.city
            FROM unnest($1::uuid[], $2::timestamptz[], $3::inet[], $4::text[], $5::text[])
                AS n (id, at, address, country, city)
            JOIN user_sessions AS s ON s.id = n.id
            WHERE s.last_seen_at IS NULL OR s.last_seen_at <= n.at - make_interval(secs => $6)
            ORDER BY s.id
            FOR UPDATE OF s
        )
        UPDATE user_sessions AS s
        SET last_seen_at = seen.at, ip_address = seen.address, country = seen.country, city = seen.city
        FROM seen
        WHERE s.id = seen.id
    ",
};

/// Of each session no oftener than `at_most_every`.
pub async fn seen(client: &impl GenericClient, uses: &[Seen], at_most_every: Duration) -> Result<(), DbError> {
    let ids: Vec<Uuid> = uses.iter().map(|seen| seen.session.0).collect();
    let times: Vec<Timestamp> = uses.iter().map(|seen| seen.at).collect();
    let addresses: Vec<IpAddr> = uses.iter().map(|seen| seen.from).collect();
    let countries: Vec<Option<&str>> = uses.iter().map(|seen| seen.place.country.as_deref()).collect();
    let cities: Vec<Option<&str>> = uses.iter().map(|seen| seen.place.city.as_deref()).collect();
    let apart = at_most_every.as_secs_f64();
    SEEN.run(client, &[&ids, &times, &addresses, &countries, &cities, &apart])
        .await
        .map(drop)
}

/// Ends one session of a user. Answered by the primary key; the trigger tells every gateway.
pub const REVOKE: Query = Query {
    name: "sessions.revoke",
    sql: "
        UPDATE user_sessions
        SET revoked_at = $3, updated_at = $3
        WHERE id = $1 AND user_id = $2 AND revoked_at IS NULL
        RETURNING id, token_hash, user_id
    ",
};

/// What was revoked; nothing if it isn't the user's, or over.
pub async fn revoke(
    client: &impl GenericClient,
    id: SessionId,
    user: UserId,
    now: Timestamp,
) -> Result<Option<Revoked>, DbError> {
    let row = REVOKE.row(client, &[&id.0, &user.0, &now]).await?;
    row.map(|row| Revoked::from_row(&REVOKE, &row)).transpose()
}

/// Ends a session by its token. Answered by `user_sessions_token_hash_key`; the trigger tells every gateway.
pub const REVOKE_TOKEN: Query = Query {
    name: "sessions.revoke_token",
    sql: "
        UPDATE user_sessions
        SET revoked_at = $3, updated_at = $3
        WHERE token_hash = $1 AND ($2::uuid IS NULL OR user_id = $2) AND revoked_at IS NULL
        RETURNING id, token_hash, user_id
    ",
};

/// What was revoked; nothing if it is over, or not `of` this user. Without one, whoever holds the token may end it.
pub async fn revoke_token(
    client: &impl GenericClient,
    hash: &TokenHash,
    of: Option<UserId>,
    now: Timestamp,
) -> Result<Option<Revoked>, DbError> {
    let row = REVOKE_TOKEN
        .row(client, &[&hash.as_bytes().as_slice(), &of.map(|id| id.0), &now])
        .await?;
    row.map(|row| Revoked::from_row(&REVOKE_TOKEN, &row)).transpose()
}

/// The users of sessions, by their tokens: held as by `users.lock`, in the order of their ids. Answered by
/// `user_sessions_token_hash_key`, then by the primary key of `users`.
pub const LOCK_OWNERS: Query = Query {
    name: "sessions.lock_owners",
    sql: "
        SELECT id
        FROM users
        WHERE id = ANY (ARRAY(SELECT user_id FROM user_sessions WHERE token_hash = ANY ($1)))
        ORDER BY id
        FOR UPDATE
    ",
};

/// For whoever ends sessions: who acts in one of them locks the user, too, and has done so or will find it ended.
pub async fn lock_owners(client: &impl GenericClient, hashes: &[TokenHash]) -> Result<(), DbError> {
    let hashes: Vec<&[u8]> = hashes.iter().map(|hash| hash.as_bytes().as_slice()).collect();
    LOCK_OWNERS.rows(client, &[&hashes]).await.map(drop)
}

/// Ends sessions by their tokens. Answered by `user_sessions_token_hash_key`; the trigger tells every gateway. Rows are
/// locked in the order of their ids, as everywhere: see [`SEEN`].
pub const REVOKE_TOKENS: Query = Query {
    name: "sessions.revoke_tokens",
    sql: "
        UPDATE user_sessions
        SET revoked_at = $3, updated_at = $3
        WHERE id = ANY (ARRAY(
            SELECT id
            FROM user_sessions
            WHERE token_hash = ANY ($1) AND ($2::uuid IS NULL OR user_id = $2) AND revoked_at IS NULL
            ORDER BY id
            FOR UPDATE
        ))
        RETURNING id, token_hash, user_id
    ",
};

/// As [`revoke_token`], for several at once.
pub async fn revoke_tokens(
    client: &impl GenericClient,
    hashes: &[TokenHash],
    of: Option<UserId>,
    now: Timestamp,
) -> Result<Vec<Revoked>, DbError> {
    if hashes.is_empty() {
        return Ok(Vec::new());
    }
    let hashes: Vec<&[u8]> = hashes.iter().map(|hash| hash.as_bytes().as_slice()).collect();
    let rows = REVOKE_TOKENS.rows(client, &[&hashes, &of.map(|id| id.0), &now]).await?;
    rows.iter().map(|row| Revoked::from_row(&REVOKE_TOKENS, row)).collect()
}

/// Ends all sessions of a user but one, or all (`$2` null). Answered by `user_sessions_user_id_created_at_idx`; the
/// trigger tells every gateway. Rows are locked in the order of their ids, as everywhere: see [`SEEN`].
pub const REVOKE_ALL: Query = Query {
    name: "sessions.revoke_all",
    sql: "
        UPDATE user_sessions
        SET revoked_at = $3, updated_at = $3
        WHERE id IN (
            SELECT id
            FROM user_sessions
            WHERE user_id = $1 AND id IS DISTINCT FROM $2 AND revoked_at IS NULL
            ORDER BY id
            FOR UPDATE
        )
        RETURNING id, token_hash, user_id
    ",
};

/// With what was begun in them: no change of the address goes on that a stranger may have asked for. The user must be locked.
pub async fn revoke_all(
    client: &impl GenericClient,
    user: UserId,
    except: Option<SessionId>,
    now: Timestamp,
) -> Result<Vec<Revoked>, DbError> {
    one_time_tokens::void_changes(client, user, except, now).await?;
    let rows = REVOKE_ALL
        .rows(client, &[&user.0, &except.map(|id| id.0), &now])
        .await?;
    rows.iter().map(|row| Revoked::from_row(&REVOKE_ALL, row)).collect()
}

/// Ends all but the newest `$3` live sessions of a user. Answered by `user_sessions_user_id_created_at_idx`; the
/// trigger tells every gateway. Rows are locked in the order of their ids, as everywhere: see [`SEEN`].
pub const REVOKE_OLDEST: Query = Query {
    name: "sessions.revoke_oldest",
    sql: "
        UPDATE user_sessions
        SET revoked_at = $2, updated_at = $2
        WHERE id IN (
            SELECT id
            FROM user_sessions
            WHERE revoked_at IS NULL AND id IN (
                SELECT id
                FROM user_sessions
                WHERE user_id = $1 AND revoked_at IS NULL AND expires_at > $2
                ORDER BY created_at DESC, id DESC
                OFFSET $3
                LIMIT 1000
            )
            ORDER BY id
            FOR UPDATE
        )
        RETURNING id, token_hash, user_id
    ",
};

/// Only right while the user's row is locked ([`super::users::lock`]): else two sign-ins count without each other.
///
/// Who has many thousands too many, as from before there was a limit, loses a thousand at each sign-in: all at once might take
/// longer than a statement may, and nobody could sign in.
pub async fn revoke_oldest(
    client: &impl GenericClient,
    user: UserId,
    keep: usize,
    now: Timestamp,
) -> Result<Vec<Revoked>, DbError> {
    let keep = i64::try_from(keep).unwrap_or(i64::MAX);
    let rows = REVOKE_OLDEST.rows(client, &[&user.0, &now, &keep]).await?;
    rows.iter().map(|row| Revoked::from_row(&REVOKE_OLDEST, row)).collect()
}

/// A session that was just ended: to be forgotten here once the transaction is committed.
#[derive(Clone, Copy, Debug)]
pub struct Revoked {
    pub id: SessionId,
    pub token_hash: TokenHash,
    pub user_id: UserId,
}

impl Revoked {
    fn from_row(query: &Query, row: &Row) -> Result<Self, DbError> {
        Ok(Self {
            id: SessionId(column(query, row, "id")?),
            token_hash: token_hash(query, row)?,
            user_id: UserId(column(query, row, "user_id")?),
        })
    }
}

/// Deletes some sessions that are long over. Answered by `user_sessions_expires_at_idx`, then, since an array is
/// planned as a short list, by the primary key; in pieces, so that no statement takes long and no row is locked long.
pub const DELETE_ENDED: Query = Query {
    name: "sessions.delete_ended",
    sql: "
        DELETE FROM user_sessions
        WHERE id = ANY (ARRAY(
            SELECT id
            FROM user_sessions
            WHERE expires_at < $1
            ORDER BY expires_at
            LIMIT $2
            FOR UPDATE SKIP LOCKED
        ))
    ",
};

pub async fn delete_ended(client: &impl GenericClient, before: Timestamp, at_most: i64) -> Result<u64, DbError> {
    DELETE_ENDED.run(client, &[&before, &at_most]).await
}

pub const ALL: &[Query] = &[
    FIND,
    FIND_WITH_USER,
    IS_LIVE,
    LIVE_OF,
    INSERT,
    EXTEND,
    EXTEND_ALL,
    SEEN,
    REVOKE,
    REVOKE_TOKEN,
    LOCK_OWNERS,
    REVOKE_TOKENS,
    REVOKE_ALL,
    REVOKE_OLDEST,
    DELETE_ENDED,
    listed::LIST_OF,
    listed::LIST_ALL,
    listed::LOCK_OWNERS_OF,
    listed::REVOKE_ANY,
];
