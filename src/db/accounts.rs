//! `accounts`: the ways in which a user may sign in: a password, of which there is at most one, and providers.

pub mod linked;
pub mod tokens;

use uuid::Uuid;

use super::{DbError, GenericClient, Query, column, users::User};
use crate::{
    clock::Timestamp,
    identity::{AccountId, UserId},
    secret::Secret,
};

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

/// The password of the sign-up that made the user of an address, as long as a sign-up decides about them. Answered by
/// `users_email_key`, then `accounts_user_id_idx`.
pub const UNCLAIMED_PASSWORD_OF: Query = Query {
    name: "accounts.unclaimed_password_of",
    sql: "
        SELECT a.password_hash
        FROM users AS u
        JOIN accounts AS a ON a.user_id = u.id AND a.provider_id = 'credential'
        WHERE u.email = $1 AND u.unclaimed AND a.password_hash IS NOT NULL
    ",
};

pub async fn unclaimed_password_of(
    client: &impl GenericClient,
    email: &str,
) -> Result<Option<Secret<String>>, DbError> {
    let row = UNCLAIMED_PASSWORD_OF.row(client, &[&email]).await?;
    let hash = row.map(|row| column(&UNCLAIMED_PASSWORD_OF, &row, "password_hash"));
    Ok(hash.transpose()?.map(Secret::new))
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

/// Gives the user a password, or another one: `accounts_provider_id_account_id_key` keeps it to one each. Since when it
/// is the password tells it from every earlier one, whatever the clock does.
pub const SET_PASSWORD: Query = Query {
    name: "accounts.set_password",
    sql: "
        INSERT INTO accounts (id, user_id, provider_id, account_id, password_hash, password_set_at, created_at, updated_at)
        VALUES ($1, $2, 'credential', $3, $4, $5, $5, $5)
        ON CONFLICT (provider_id, account_id) DO UPDATE
        SET password_hash = excluded.password_hash,
            password_set_at = GREATEST(
                excluded.password_set_at, accounts.password_set_at + '1 microsecond'::interval
            ),
            updated_at = excluded.updated_at
        RETURNING password_set_at
    ",
};

/// Returns since when it is the password.
pub async fn set_password(
    client: &impl GenericClient,
    new_id: Uuid,
    user: UserId,
    hash: &Secret<String>,
    now: Timestamp,
) -> Result<Timestamp, DbError> {
    let row = SET_PASSWORD
        .row(client, &[&new_id, &user.0, &user.to_string(), hash.expose(), &now])
        .await?;
    row.map_or(Ok(now), |row| column(&SET_PASSWORD, &row, "password_set_at"))
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

/// The password of a user. Answered by `accounts_user_id_idx`.
pub const PASSWORD: Query = Query {
    name: "accounts.password",
    sql: "
        SELECT password_hash, password_set_at
        FROM accounts
        WHERE user_id = $1 AND provider_id = 'credential' AND password_hash IS NOT NULL
    ",
};

pub async fn password(client: &impl GenericClient, user: UserId) -> Result<Option<StoredPassword>, DbError> {
    let Some(row) = PASSWORD.row(client, &[&user.0]).await? else {
        return Ok(None);
    };
    Ok(Some(StoredPassword {
        hash: Secret::new(column(&PASSWORD, &row, "password_hash")?),
        set_at: column(&PASSWORD, &row, "password_set_at")?,
    }))
}

/// A way in which a user may sign in, without what is secret about it.
#[derive(Clone, Debug)]
pub struct Account {
    pub id: AccountId,
    pub user_id: UserId,
    pub provider_id: String,
    /// The provider's name for the user; for a password our own.
    pub account_id: String,
    /// Whose name that is; empty for a password, and for what was brought from elsewhere until it is used.
    pub issuer: String,
    /// What the provider granted.
    pub scopes: Vec<String>,
    /// `None`: no password.
    pub password_set_at: Option<Timestamp>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

impl Account {
    pub fn is_password(&self) -> bool {
        self.provider_id == "credential"
    }
}

/// A user's ways to sign in, the oldest first. Answered by `accounts_user_id_idx`.
pub const OF: Query = Query {
    name: "accounts.of",
    sql: "
        SELECT id, user_id, provider_id, account_id, issuer, scopes, password_set_at, created_at, updated_at
        FROM accounts
        WHERE user_id = $1
        ORDER BY created_at, id
    ",
};

pub async fn of(client: &impl GenericClient, user: UserId) -> Result<Vec<Account>, DbError> {
    let rows = OF.rows(client, &[&user.0]).await?;
    let account = |row| {
        Ok(Account {
            id: AccountId(column(&OF, row, "id")?),
            user_id: UserId(column(&OF, row, "user_id")?),
            provider_id: column(&OF, row, "provider_id")?,
            account_id: column(&OF, row, "account_id")?,
            issuer: column(&OF, row, "issuer")?,
            scopes: column(&OF, row, "scopes")?,
            password_set_at: column(&OF, row, "password_set_at")?,
            created_at: column(&OF, row, "created_at")?,
            updated_at: column(&OF, row, "updated_at")?,
        })
    };
    rows.iter().map(account).collect()
}

/// Takes a way to sign in away. Answered by the primary key.
pub const DELETE: Query = Query {
    name: "accounts.delete",
    sql: "
        DELETE FROM accounts
        WHERE id = $1
    ",
};

pub async fn delete(client: &impl GenericClient, id: AccountId) -> Result<(), DbError> {
    DELETE.run(client, &[&id.0]).await.map(drop)
}

pub const ALL: &[Query] = &[
    PASSWORD_OF,
    UNCLAIMED_PASSWORD_OF,
    PASSWORD_SET_AT,
    SET_PASSWORD,
    REHASH,
    PASSWORD,
    OF,
    DELETE,
];
