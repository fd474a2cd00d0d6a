//! `accounts`: those at providers, by issuer and subject.

use crate::{
    clock::Timestamp,
    db::{DbError, GenericClient, Params, Query, accounts::tokens::SealedTokens, column},
    identity::{AccountId, UserId},
};

/// Whose an account at a provider is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Linked {
    pub id: AccountId,
    pub user: UserId,
    /// Empty for an account that was brought from elsewhere, until it is used.
    pub issuer: String,
}

/// An account by the provider's name for its user. Answered by `accounts_provider_id_account_id_key`.
pub const FIND: Query = Query {
    name: "accounts.find_linked",
    sql: "
        SELECT id, user_id, issuer
        FROM accounts
        WHERE provider_id = $1 AND account_id = $2
    ",
};

/// Whatever its issuer: the caller judges that. Only true as long as its user's row is locked.
pub async fn find(client: &impl GenericClient, provider: &str, subject: &str) -> Result<Option<Linked>, DbError> {
    let Some(row) = FIND.row(client, &[&provider, &subject]).await? else {
        return Ok(None);
    };
    Ok(Some(Linked {
        id: AccountId(column(&FIND, &row, "id")?),
        user: UserId(column(&FIND, &row, "user_id")?),
        issuer: column(&FIND, &row, "issuer")?,
    }))
}

/// Who somebody is at a provider.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    pub provider: &'a str,
    pub issuer: &'a str,
    pub subject: &'a str,
}

/// Another way to sign in. Nothing happens if the provider's user has one here: `accounts_provider_id_account_id_key`
/// keeps it to one, and two callbacks at once are no error.
pub const INSERT: Query = Query {
    name: "accounts.insert_linked",
    sql: "
        INSERT INTO accounts (id, user_id, provider_id, account_id, issuer, access_token, refresh_token, id_token,
            access_token_expires_at, refresh_token_expires_at, scopes, created_at, updated_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $12)
        ON CONFLICT (provider_id, account_id) DO NOTHING
    ",
};

/// Whether the account is new.
pub async fn insert(
    client: &impl GenericClient,
    id: AccountId,
    user: UserId,
    subject: Subject<'_>,
    tokens: &SealedTokens,
    now: Timestamp,
) -> Result<bool, DbError> {
    let params: Params<'_> = &[
        &id.0,
        &user.0,
        &subject.provider,
        &subject.subject,
        &subject.issuer,
        &tokens.access,
        &tokens.refresh,
        &tokens.id,
        &tokens.access_expires_at,
        &tokens.refresh_expires_at,
        &tokens.scopes,
        &now,
    ];
    Ok(INSERT.run(client, params).await? == 1)
}

/// What the provider gave this time, in the place of what it gave before; what it did not give stays, since many give a
/// refresh token but once. A time belongs to its token, and so do the scopes to the access token. An account without an
/// issuer has one from now on. A lease was for the refresh token that was there: nobody waits for it once there is
/// another. Answered by the primary key.
pub const RENEW: Query = Query {
    name: "accounts.renew_linked",
    sql: "
        UPDATE accounts
        SET issuer = CASE WHEN issuer = '' THEN $2 ELSE issuer END,
            access_token = coalesce($3, access_token),
            access_token_expires_at = CASE WHEN $3::bytea IS NULL THEN access_token_expires_at ELSE $6 END,
            refresh_token = coalesce($4, refresh_token),
            refresh_token_expires_at = CASE WHEN $4::bytea IS NULL THEN refresh_token_expires_at ELSE $7 END,
            id_token = coalesce($5, id_token),
            refreshing_until = CASE WHEN $4::bytea IS NULL THEN refreshing_until END,
            scopes = CASE WHEN $3::bytea IS NULL OR $8::text[] = '{}' THEN scopes ELSE $8 END,
            updated_at = $9
        WHERE id = $1
    ",
};

pub async fn renew(
    client: &impl GenericClient,
    id: AccountId,
    issuer: &str,
    tokens: &SealedTokens,
    now: Timestamp,
) -> Result<(), DbError> {
    let params: Params<'_> = &[
        &id.0,
        &issuer,
        &tokens.access,
        &tokens.refresh,
        &tokens.id,
        &tokens.access_expires_at,
        &tokens.refresh_expires_at,
        &tokens.scopes,
        &now,
    ];
    RENEW.run(client, params).await.map(drop)
}

/// How many accounts at providers a user has. Answered by `accounts_user_id_idx`.
pub const COUNT: Query = Query {
    name: "accounts.count_linked",
    sql: "
        SELECT count(*) AS linked
        FROM accounts
        WHERE user_id = $1 AND provider_id <> 'credential'
    ",
};

/// Whether somebody can come to this user by a provider.
pub async fn exists(client: &impl GenericClient, user: UserId) -> Result<bool, DbError> {
    let row = COUNT.row(client, &[&user.0]).await?;
    let linked: i64 = row.map_or(Ok(0), |row| column(&COUNT, &row, "linked"))?;
    Ok(linked > 0)
}

/// Takes a user's accounts at providers away. Answered by `accounts_user_id_idx`.
pub const DROP_ALL: Query = Query {
    name: "accounts.drop_linked",
    sql: "
        DELETE FROM accounts
        WHERE user_id = $1 AND provider_id <> 'credential'
    ",
};

/// For when somebody has shown that the address is theirs, and it need not be who linked them. Returns how many.
pub async fn drop_all(client: &impl GenericClient, user: UserId) -> Result<u64, DbError> {
    DROP_ALL.run(client, &[&user.0]).await
}

/// Leaves a user one way to sign in. Answered by `accounts_user_id_idx`.
pub const DROP_OTHERS: Query = Query {
    name: "accounts.drop_others",
    sql: "
        DELETE FROM accounts
        WHERE user_id = $1 AND id <> $2
    ",
};

/// As [`drop_all`], for who has shown it by this account: a password goes, too.
pub async fn drop_others(client: &impl GenericClient, user: UserId, stays: AccountId) -> Result<u64, DbError> {
    DROP_OTHERS.run(client, &[&user.0, &stays.0]).await
}

pub const ALL: &[Query] = &[FIND, INSERT, RENEW, COUNT, DROP_ALL, DROP_OTHERS];
