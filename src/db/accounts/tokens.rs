//! `accounts`: what providers gave for their users, sealed.
//!
//! A refresh token is known by its sealed bytes: sealing draws a nonce, so the same bytes mean that nobody has stored
//! anything in its place since, not even the same token again. Every write here compares them; `auth/oauth/refresh.rs`
//! says why.

use tokio_postgres::Row;
use uuid::Uuid;

use crate::{
    clock::Timestamp,
    db::{DbError, GenericClient, Query, column},
    identity::AccountId,
};

/// A provider's tokens as they are stored.
#[derive(Clone, Debug, Default)]
pub struct SealedTokens {
    pub access: Option<Vec<u8>>,
    pub refresh: Option<Vec<u8>>,
    pub id: Option<Vec<u8>>,
    pub access_expires_at: Option<Timestamp>,
    pub refresh_expires_at: Option<Timestamp>,
    pub scopes: Vec<String>,
}

/// An account's tokens, and until when somebody refreshes them.
#[derive(Clone, Debug)]
pub struct Held {
    pub sealed: SealedTokens,
    pub refreshing_until: Option<Timestamp>,
}

/// Answered by the primary key.
pub const HELD: Query = Query {
    name: "accounts.held_tokens",
    sql: "
        SELECT access_token, refresh_token, id_token, access_token_expires_at, refresh_token_expires_at, scopes,
            refreshing_until
        FROM accounts
        WHERE id = $1
    ",
};

/// `None`: there is no such account.
pub async fn held(client: &impl GenericClient, account: AccountId) -> Result<Option<Held>, DbError> {
    let Some(row) = HELD.row(client, &[&account.0]).await? else {
        return Ok(None);
    };
    Ok(Some(Held {
        sealed: SealedTokens {
            access: column(&HELD, &row, "access_token")?,
            refresh: column(&HELD, &row, "refresh_token")?,
            id: column(&HELD, &row, "id_token")?,
            access_expires_at: column(&HELD, &row, "access_token_expires_at")?,
            refresh_expires_at: column(&HELD, &row, "refresh_token_expires_at")?,
            scopes: column(&HELD, &row, "scopes")?,
        },
        refreshing_until: column(&HELD, &row, "refreshing_until")?,
    }))
}

/// The right to spend a refresh token, until a time. What was taken is known by that time: a later lease ends later.
#[derive(Clone, Copy, Debug)]
pub struct Lease<'t> {
    pub account: AccountId,
    /// The refresh token, sealed, as it was read.
    pub spends: &'t [u8],
    pub until: Timestamp,
}

/// Decided by the primary key: of several at once one gets it. A lease that ends after `$5` is one of a clock that was
/// wrong, and does not count.
pub const TAKE_LEASE: Query = Query {
    name: "accounts.take_refresh_lease",
    sql: "
        UPDATE accounts
        SET refreshing_until = $3
        WHERE id = $1 AND refresh_token = $2
            AND (refreshing_until IS NULL OR refreshing_until <= $4 OR refreshing_until > $5)
    ",
};

/// Whether it was free, and the refresh token still the one that was read. No lease of anybody's ends after `at_most`.
pub async fn take_lease(
    client: &impl GenericClient,
    lease: Lease<'_>,
    now: Timestamp,
    at_most: Timestamp,
) -> Result<bool, DbError> {
    let taken = TAKE_LEASE
        .run(client, &[&lease.account.0, &lease.spends, &lease.until, &now, &at_most])
        .await?;
    Ok(taken == 1)
}

/// Gives a lease back. Answered by the primary key.
pub const END_LEASE: Query = Query {
    name: "accounts.end_refresh_lease",
    sql: "
        UPDATE accounts
        SET refreshing_until = NULL
        WHERE id = $1 AND refreshing_until = $2
    ",
};

pub async fn end_lease(client: &impl GenericClient, lease: Lease<'_>) -> Result<(), DbError> {
    END_LEASE.run(client, &[&lease.account.0, &lease.until]).await.map(drop)
}

/// What the refresh token was spent for, in its place. What a provider does not give anew stays, and so do the scopes.
/// Answered by the primary key.
pub const REFRESHED: Query = Query {
    name: "accounts.refreshed",
    sql: "
        UPDATE accounts
        SET access_token = $3, refresh_token = $4, id_token = coalesce($5, id_token), access_token_expires_at = $6,
            refresh_token_expires_at = coalesce($7, refresh_token_expires_at), refreshing_until = NULL,
            updated_at = greatest(updated_at, $8)
        WHERE id = $1 AND refresh_token = $2
    ",
};

/// Whether the refresh token that was spent was still the stored one. Ends the lease, if so.
pub async fn refreshed(
    client: &impl GenericClient,
    lease: Lease<'_>,
    sealed: &SealedTokens,
    now: Timestamp,
) -> Result<bool, DbError> {
    let stored = REFRESHED
        .run(
            client,
            &[
                &lease.account.0,
                &lease.spends,
                &sealed.access,
                &sealed.refresh,
                &sealed.id,
                &sealed.access_expires_at,
                &sealed.refresh_expires_at,
                &now,
            ],
        )
        .await?;
    Ok(stored == 1)
}

/// The next accounts at providers behind `$1`, and of each token that another key sealed than the one whose mark is `$3`
/// what is stored. Answered by the primary key: the limit is within, so that a page is one however few are old.
pub const PAGE_TO_RESEAL: Query = Query {
    name: "accounts.page_to_reseal",
    sql: "
        SELECT id,
            CASE WHEN substr(access_token, 1, octet_length($3::bytea)) <> $3 THEN access_token END AS access_token,
            CASE WHEN substr(refresh_token, 1, octet_length($3::bytea)) <> $3 THEN refresh_token END AS refresh_token,
            CASE WHEN substr(id_token, 1, octet_length($3::bytea)) <> $3 THEN id_token END AS id_token
        FROM accounts
        WHERE id > $1
        ORDER BY id
        LIMIT $2
    ",
};

/// Tokens of one account: those that are to be sealed anew, or those that were.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Columns {
    pub access: Option<Vec<u8>>,
    pub refresh: Option<Vec<u8>>,
    pub id: Option<Vec<u8>>,
}

/// Accounts in the order of their ids, those without an old token as well: the last says where the next page begins.
pub async fn page_to_reseal(
    client: &impl GenericClient,
    after: AccountId,
    at_most: i64,
    current: &[u8],
) -> Result<Vec<(AccountId, Columns)>, DbError> {
    let rows = PAGE_TO_RESEAL.rows(client, &[&after.0, &at_most, &current]).await?;
    let columns = |row: &Row| {
        Ok((
            AccountId(column(&PAGE_TO_RESEAL, row, "id")?),
            Columns {
                access: column(&PAGE_TO_RESEAL, row, "access_token")?,
                refresh: column(&PAGE_TO_RESEAL, row, "refresh_token")?,
                id: column(&PAGE_TO_RESEAL, row, "id_token")?,
            },
        ))
    };
    rows.iter().map(columns).collect()
}

/// One account whose tokens were sealed anew: what is replaced, and by what.
#[derive(Clone, Debug)]
pub struct Resealed {
    pub account: AccountId,
    pub old: Columns,
    pub new: Columns,
}

/// Only over what was opened, and not while somebody refreshes: whoever spends a refresh token must find it as it was
/// read. Answered by the primary key, row by row.
pub const RESEAL: Query = Query {
    name: "accounts.reseal",
    sql: "
        UPDATE accounts AS a
        SET access_token = coalesce(n.access, a.access_token),
            refresh_token = coalesce(n.refresh, a.refresh_token),
            id_token = coalesce(n.id_token, a.id_token)
        FROM unnest($1::uuid[], $2::bytea[], $3::bytea[], $4::bytea[], $5::bytea[], $6::bytea[], $7::bytea[])
            AS n (id, old_access, access, old_refresh, refresh, old_id_token, id_token)
        WHERE a.id = n.id
            AND (n.access IS NULL OR a.access_token = n.old_access)
            AND (n.refresh IS NULL OR a.refresh_token = n.old_refresh)
            AND (n.id_token IS NULL OR a.id_token = n.old_id_token)
            AND (a.refreshing_until IS NULL OR a.refreshing_until <= $8)
    ",
};

/// How many were as they had been read. Of the others somebody stored something meanwhile, or is about to.
pub async fn reseal(client: &impl GenericClient, resealed: &[Resealed], now: Timestamp) -> Result<u64, DbError> {
    type Get = fn(&Resealed) -> &Option<Vec<u8>>;
    let each = |get: Get| -> Vec<Option<&[u8]>> { resealed.iter().map(|row| get(row).as_deref()).collect() };
    let ids: Vec<Uuid> = resealed.iter().map(|row| row.account.0).collect();
    RESEAL
        .run(
            client,
            &[
                &ids,
                &each(|row| &row.old.access),
                &each(|row| &row.new.access),
                &each(|row| &row.old.refresh),
                &each(|row| &row.new.refresh),
                &each(|row| &row.old.id),
                &each(|row| &row.new.id),
                &now,
            ],
        )
        .await
}

pub const ALL: &[Query] = &[HELD, TAKE_LEASE, END_LEASE, REFRESHED, PAGE_TO_RESEAL, RESEAL];
