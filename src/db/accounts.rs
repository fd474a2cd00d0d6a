//! `accounts`: the ways in which a user may sign in. For now passwords; a user has at most one.

use deadpool_postgres::GenericClient;
use uuid::Uuid;

use super::{DbError, Query, column, users::User};
use crate::{clock::Timestamp, identity::UserId, secret::Secret};

/// A password's hash, and since when it is the password.
#[derive(Clone, Debug)]
pub struct StoredPassword {
    /// A PHC string; of a user from elsewhere who has not signed in yet, whatever it was there.
    pub hash: Secret<String>,
    pub set_at: Timestamp,
}

/// The user of an address and, if there is one, the password. Answered by `users_email_key`, then
/// `accounts_user_id_idx`.
pub const PASSWORD_OF: Query = Query {
    name: "accounts.password_of",
    sql: "
        SELECT u.id AS user_id, u.email, u.email_verified, u.name, u.image, u.roles, u.banned, u.ban_reason,
            u.ban_expires, u.created_at AS user_created_at, u.updated_at AS user_updated_at,
            a.password_hash, a.password_set_at
        FROM users AS u
        LEFT JOIN accounts AS a ON a.user_id = u.id AND a.provider_id = 'credential'
        WHERE u.email = $1
    ",
};

pub async fn password_of(
    client: &impl GenericClient,
    email: &str,
) -> Result<Option<(User, Option<StoredPassword>)>, DbError> {
    let Some(row) = PASSWORD_OF.row(client, &[&email]).await? else {
        return Ok(None);
    };
    let hash: Option<String> = column(&PASSWORD_OF, &row, "password_hash")?;
    let set_at: Option<Timestamp> = column(&PASSWORD_OF, &row, "password_set_at")?;
    let password = hash.zip(set_at).map(|(hash, set_at)| StoredPassword {
        hash: Secret::new(hash),
        set_at,
    });
    Ok(Some((User::from_row(&PASSWORD_OF, &row)?, password)))
}

/// Since when the user's password is what it is. Answered by `accounts_user_id_idx`.
pub const PASSWORD_SET_AT: Query = Query {
    name: "accounts.password_set_at",
    sql: "
        SELECT password_set_at
        FROM accounts
        WHERE user_id = $1 AND provider_id = 'credential'
    ",
};

pub async fn password_set_at(client: &impl GenericClient, user: UserId) -> Result<Option<Timestamp>, DbError> {
    match PASSWORD_SET_AT.row(client, &[&user.0]).await? {
        Some(row) => column(&PASSWORD_SET_AT, &row, "password_set_at"),
        None => Ok(None),
    }
}

/// The hash of the user's password. Answered by `accounts_user_id_idx`.
pub const PASSWORD_HASH: Query = Query {
    name: "accounts.password_hash",
    sql: "
        SELECT password_hash
        FROM accounts
        WHERE user_id = $1 AND provider_id = 'credential'
    ",
};

pub async fn password_hash(client: &impl GenericClient, user: UserId) -> Result<Option<Secret<String>>, DbError> {
    let Some(row) = PASSWORD_HASH.row(client, &[&user.0]).await? else {
        return Ok(None);
    };
    let hash: Option<String> = column(&PASSWORD_HASH, &row, "password_hash")?;
    Ok(hash.map(Secret::new))
}

/// Gives the user a password, or another one: `accounts_provider_id_account_id_key` keeps it to one each.
pub const SET_PASSWORD: Query = Query {
    name: "accounts.set_password",
    sql: "
        INSERT INTO accounts (id, user_id, provider_id, account_id, password_hash, password_set_at, created_at, updated_at)
        VALUES ($1, $2, 'credential', $3, $4, $5, $5, $5)
        ON CONFLICT (provider_id, account_id) DO UPDATE
        SET password_hash = excluded.password_hash,
            password_set_at = excluded.password_set_at,
            updated_at = excluded.updated_at
    ",
};

pub async fn set_password(
    client: &impl GenericClient,
    new_id: Uuid,
    user: UserId,
    hash: &Secret<String>,
    now: Timestamp,
) -> Result<(), DbError> {
    SET_PASSWORD
        .run(client, &[&new_id, &user.0, &user.to_string(), hash.expose(), &now])
        .await
        .map(drop)
}

/// The same password, hashed anew. Only over the hash that was verified: a password that changed meanwhile stays.
/// Answered by `accounts_user_id_idx`.
pub const REHASH: Query = Query {
    name: "accounts.rehash",
    sql: "
        UPDATE accounts
        SET password_hash = $3, updated_at = $4
        WHERE user_id = $1 AND provider_id = 'credential' AND password_hash = $2
    ",
};

pub async fn rehash(
    client: &impl GenericClient,
    user: UserId,
    old: &Secret<String>,
    new: &Secret<String>,
    now: Timestamp,
) -> Result<(), DbError> {
    REHASH
        .run(client, &[&user.0, old.expose(), new.expose(), &now])
        .await
        .map(drop)
}

pub const ALL: &[Query] = &[PASSWORD_OF, PASSWORD_SET_AT, PASSWORD_HASH, SET_PASSWORD, REHASH];
