//! `users`: who there is.

use tokio_postgres::Row;

use super::{DbError, GenericClient, Params, Query, column};
use crate::{
    clock::Timestamp,
    identity::{Identity, UserId},
};

/// A row of `users`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct User {
    pub id: UserId,
    /// Lower case.
    pub email: String,
    pub email_verified: bool,
    pub name: String,
    pub image: Option<String>,
    pub roles: Vec<String>,
    pub banned: bool,
    pub ban_reason: Option<String>,
    pub ban_expires: Option<Timestamp>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

impl User {
    /// From a row with the columns of `users`, the id under the name `user_id` and the times under `user_created_at`
    /// and `user_updated_at`: other tables that join have columns of these names too.
    pub(super) fn from_row(query: &Query, row: &Row) -> Result<Self, DbError> {
        Ok(Self {
            id: UserId(column(query, row, "user_id")?),
            email: column(query, row, "email")?,
            email_verified: column(query, row, "email_verified")?,
            name: column(query, row, "name")?,
            image: column(query, row, "image")?,
            roles: column(query, row, "roles")?,
            banned: column(query, row, "banned")?,
            ban_reason: column(query, row, "ban_reason")?,
            ban_expires: column(query, row, "ban_expires")?,
            created_at: column(query, row, "user_created_at")?,
            updated_at: column(query, row, "user_updated_at")?,
        })
    }

    /// Whether a ban is in force.
    pub fn is_banned(&self, now: Timestamp) -> bool {
        self.banned && self.ban_expires.is_none_or(|end| now < end)
    }

    pub fn identity(&self) -> Identity {
        Identity {
            id: self.id,
            email: self.email.clone(),
            email_verified: self.email_verified,
            name: self.name.clone(),
            roles: self.roles.clone(),
        }
    }
}

/// A new user. Nothing happens if the address has one: two sign-ups at once are no error.
pub const INSERT: Query = Query {
    name: "users.insert",
    sql: "
        INSERT INTO users (id, email, email_verified, name, image, roles, created_at, updated_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $7)
        ON CONFLICT (email) DO NOTHING
    ",
};

/// Whether the user is new; `false` if the address has one already. `user.updated_at` is taken to be `created_at`.
pub async fn insert(client: &impl GenericClient, user: &User) -> Result<bool, DbError> {
    let touched = INSERT
        .run(
            client,
            &[
                &user.id.0,
                &user.email,
                &user.email_verified,
                &user.name,
                &user.image,
                &user.roles,
                &user.created_at,
            ],
        )
        .await?;
    Ok(touched == 1)
}

/// By address. Answered by `users_email_key`.
pub const BY_EMAIL: Query = Query {
    name: "users.by_email",
    sql: "
        SELECT id AS user_id, email, email_verified, name, image, roles, banned, ban_reason, ban_expires,
            created_at AS user_created_at, updated_at AS user_updated_at
        FROM users
        WHERE email = $1
    ",
};

pub async fn by_email(client: &impl GenericClient, email: &str) -> Result<Option<User>, DbError> {
    let row = BY_EMAIL.row(client, &[&email]).await?;
    row.map(|row| User::from_row(&BY_EMAIL, &row)).transpose()
}

/// By id, held until the transaction ends, so that a ban or a deletion can't pass between a check and what follows
/// from it. Answered by the primary key.
pub const LOCK: Query = Query {
    name: "users.lock",
    sql: "
        SELECT id AS user_id, email, email_verified, name, image, roles, banned, ban_reason, ban_expires,
            created_at AS user_created_at, updated_at AS user_updated_at
        FROM users
        WHERE id = $1
        FOR UPDATE
    ",
};

pub async fn lock(client: &impl GenericClient, id: UserId) -> Result<Option<User>, DbError> {
    let row = LOCK.row(client, &[&id.0]).await?;
    row.map(|row| User::from_row(&LOCK, &row)).transpose()
}

/// By address, held as by [`LOCK`]. Answered by `users_email_key`.
pub const LOCK_BY_EMAIL: Query = Query {
    name: "users.lock_by_email",
    sql: "
        SELECT id AS user_id, email, email_verified, name, image, roles, banned, ban_reason, ban_expires,
            created_at AS user_created_at, updated_at AS user_updated_at
        FROM users
        WHERE email = $1
        FOR UPDATE
    ",
};

/// For whoever writes what refers to the user: so that a deletion waits, or came before.
pub async fn lock_by_email(client: &impl GenericClient, email: &str) -> Result<Option<User>, DbError> {
    let row = LOCK_BY_EMAIL.row(client, &[&email]).await?;
    row.map(|row| User::from_row(&LOCK_BY_EMAIL, &row)).transpose()
}

/// Leaves it to the links of sign-ups whose name and password the user's are. Answered by the primary key.
pub const LEAVE_UNCLAIMED: Query = Query {
    name: "users.leave_unclaimed",
    sql: "
        UPDATE users
        SET unclaimed = true
        WHERE id = $1
    ",
};

/// For a user who was just made by a sign-up that is to be verified.
pub async fn leave_unclaimed(client: &impl GenericClient, id: UserId) -> Result<(), DbError> {
    LEAVE_UNCLAIMED.run(client, &[&id.0]).await.map(drop)
}

/// From now on no sign-up changes the account. Answered by the primary key.
pub const CLAIM: Query = Query {
    name: "users.claim",
    sql: "
        UPDATE users
        SET unclaimed = false
        WHERE id = $1 AND unclaimed
    ",
};

pub async fn claim(client: &impl GenericClient, id: UserId) -> Result<(), DbError> {
    CLAIM.run(client, &[&id.0]).await.map(drop)
}

/// Whether a sign-up decides about the account. Answered by the primary key.
pub const IS_UNCLAIMED: Query = Query {
    name: "users.is_unclaimed",
    sql: "
        SELECT unclaimed
        FROM users
        WHERE id = $1
    ",
};

/// Only true as long as the user's row is locked.
pub async fn is_unclaimed(client: &impl GenericClient, id: UserId) -> Result<bool, DbError> {
    let row = IS_UNCLAIMED.row(client, &[&id.0]).await?;
    row.map_or(Ok(false), |row| column(&IS_UNCLAIMED, &row, "unclaimed"))
}

/// Marks the address verified. Answered by the primary key; the trigger tells every gateway.
pub const SET_VERIFIED: Query = Query {
    name: "users.set_verified",
    sql: "
        UPDATE users
        SET email_verified = true, unclaimed = false, updated_at = $2
        WHERE id = $1 AND NOT email_verified
    ",
};

pub async fn set_verified(client: &impl GenericClient, id: UserId, now: Timestamp) -> Result<(), DbError> {
    SET_VERIFIED.run(client, &[&id.0, &now]).await.map(drop)
}

/// Another name. Answered by the primary key; the trigger tells every gateway.
pub const SET_NAME: Query = Query {
    name: "users.set_name",
    sql: "
        UPDATE users
        SET name = $2, updated_at = $3
        WHERE id = $1
    ",
};

pub async fn set_name(client: &impl GenericClient, id: UserId, name: &str, now: Timestamp) -> Result<(), DbError> {
    SET_NAME.run(client, &[&id.0, &name, &now]).await.map(drop)
}

/// Another name or picture; null leaves the name as it is, and `$4` says whether the picture is to change. Answered by
/// the primary key; the trigger tells every gateway of the name.
pub const UPDATE_PROFILE: Query = Query {
    name: "users.update_profile",
    sql: "
        UPDATE users
        SET name = coalesce($2, name), image = CASE WHEN $4 THEN $3 ELSE image END, updated_at = $5
        WHERE id = $1
    ",
};

/// What becomes of a user's picture.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Picture<'p> {
    Stays,
    None,
    Is(&'p str),
}

/// What a user changes of how others see them; without a name, the name stays.
pub async fn update_profile(
    client: &impl GenericClient,
    id: UserId,
    name: Option<&str>,
    picture: Picture<'_>,
    now: Timestamp,
) -> Result<(), DbError> {
    let image = match picture {
        Picture::Stays | Picture::None => None,
        Picture::Is(image) => Some(image),
    };
    let changes = picture != Picture::Stays;
    UPDATE_PROFILE
        .run(client, &[&id.0, &name, &image, &changes, &now])
        .await
        .map(drop)
}

/// The constraint that keeps two users from having one address.
pub const EMAIL_KEY: &str = "users_email_key";

/// Another address, which is verified. Answered by the primary key; the trigger tells every gateway.
pub const CHANGE_EMAIL: Query = Query {
    name: "users.change_email",
    sql: "
        UPDATE users
        SET email = $2, email_verified = true, unclaimed = false, address_in_doubt = $4, updated_at = $3
        WHERE id = $1
    ",
};

/// Who read the mail that made an address a user's.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reader {
    /// Whoever has the user.
    Holder,
    Unknown,
}

/// Fails with a conflict on [`EMAIL_KEY`] if somebody else has the address.
pub async fn change_email(
    client: &impl GenericClient,
    id: UserId,
    email: &str,
    reader: Reader,
    now: Timestamp,
) -> Result<(), DbError> {
    let is_in_doubt = reader == Reader::Unknown;
    CHANGE_EMAIL
        .run(client, &[&id.0, &email, &now, &is_in_doubt])
        .await
        .map(drop)
}

/// Whether the address, although verified, may be somebody else's. Answered by the primary key.
pub const IS_IN_DOUBT: Query = Query {
    name: "users.is_in_doubt",
    sql: "
        SELECT address_in_doubt
        FROM users
        WHERE id = $1
    ",
};

/// Only true as long as the user's row is locked.
pub async fn is_in_doubt(client: &impl GenericClient, id: UserId) -> Result<bool, DbError> {
    let row = IS_IN_DOUBT.row(client, &[&id.0]).await?;
    row.map_or(Ok(false), |row| column(&IS_IN_DOUBT, &row, "address_in_doubt"))
}

/// Answered by the primary key.
pub const TRUST_ADDRESS: Query = Query {
    name: "users.trust_address",
    sql: "
        UPDATE users
        SET address_in_doubt = false
        WHERE id = $1 AND address_in_doubt
    ",
};

/// For when whoever has the user has shown that they read its mail. Whether there was a doubt.
pub async fn trust_address(client: &impl GenericClient, id: UserId) -> Result<bool, DbError> {
    Ok(TRUST_ADDRESS.run(client, &[&id.0]).await? == 1)
}

/// Deletes a user and, by cascade, accounts and sessions. Answered by the primary key; the triggers tell every gateway.
pub const DELETE: Query = Query {
    name: "users.delete",
    sql: "
        DELETE FROM users
        WHERE id = $1
    ",
};

/// Whether there was one.
pub async fn delete(client: &impl GenericClient, id: UserId) -> Result<bool, DbError> {
    Ok(DELETE.run(client, &[&id.0]).await? == 1)
}

/// Lifts a ban whose end has passed. Answered by the primary key; the trigger tells every gateway.
pub const LIFT_BAN: Query = Query {
    name: "users.lift_ban",
    sql: "
        UPDATE users
        SET banned = false, ban_reason = NULL, ban_expires = NULL, updated_at = $2
        WHERE id = $1 AND banned AND ban_expires <= $2
    ",
};

pub async fn lift_ban(client: &impl GenericClient, id: UserId, now: Timestamp) -> Result<(), DbError> {
    LIFT_BAN.run(client, &[&id.0, &now]).await.map(drop)
}

/// By id, as it is at this moment. Answered by the primary key.
pub const BY_ID: Query = Query {
    name: "users.by_id",
    sql: "
        SELECT id AS user_id, email, email_verified, name, image, roles, banned, ban_reason, ban_expires,
            created_at AS user_created_at, updated_at AS user_updated_at
        FROM users
        WHERE id = $1
    ",
};

pub async fn by_id(client: &impl GenericClient, id: UserId) -> Result<Option<User>, DbError> {
    let row = BY_ID.row(client, &[&id.0]).await?;
    row.map(|row| User::from_row(&BY_ID, &row)).transpose()
}

/// Which users to list; by default all.
#[derive(Clone, Copy, Debug, Default)]
pub struct Filter<'a> {
    /// Somewhere in the address or the name, whatever the case.
    pub text: Option<&'a str>,
    pub role: Option<&'a str>,
    /// Only those whose ban is in force.
    pub banned: bool,
    pub unverified: bool,
    /// Only those behind this one: the last of the page before.
    pub after: Option<UserId>,
}

/// Users, the newest first, since ids are in order of time. Answered by the primary key read backwards, and where a
/// filter is given by `users_roles_idx`, `users_banned_idx` or `users_email_unverified_idx`: a statement that is run
/// once is planned for its very values, so that a filter which is not given costs nothing. A text within an address or
/// a name is found by reading, since no index does that without an extension; so is a role that nearly everybody has.
///
/// By role the order is that of the id's text, which is the same: Postgres takes roles that it has not counted for
/// frequent, and would read all users in the order of the primary key for want of a few.
pub const LIST: Query = Query {
    name: "users.list",
    sql: "
        SELECT id AS user_id, email, email_verified, name, image, roles, banned, ban_reason, ban_expires,
            created_at AS user_created_at, updated_at AS user_updated_at
        FROM users
        WHERE ($1::uuid IS NULL OR id < $1)
            AND ($2::text IS NULL OR strpos(email, lower($2)) > 0 OR strpos(lower(name), lower($2)) > 0)
            AND ($3::text IS NULL OR roles @> ARRAY[$3])
            AND (NOT $4::boolean OR (banned AND (ban_expires IS NULL OR ban_expires > $5)))
            AND (NOT $6::boolean OR NOT email_verified)
        ORDER BY CASE WHEN $3::text IS NULL THEN id END DESC,
            CASE WHEN $3::text IS NOT NULL THEN id::text COLLATE \"C\" END DESC
        LIMIT $7
    ",
};

pub async fn list(
    client: &impl GenericClient,
    filter: &Filter<'_>,
    limit: usize,
    now: Timestamp,
) -> Result<Vec<User>, DbError> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let after = filter.after.map(|id| id.0);
    let params: Params<'_> = &[
        &after,
        &filter.text,
        &filter.role,
        &filter.banned,
        &now,
        &filter.unverified,
        &limit,
    ];
    let rows = LIST.rows(client, params).await?;
    rows.iter().map(|row| User::from_row(&LIST, row)).collect()
}

/// Other roles in place of those the user has. Answered by the primary key; the trigger tells every gateway.
pub const SET_ROLES: Query = Query {
    name: "users.set_roles",
    sql: "
        UPDATE users
        SET roles = $2, updated_at = $3
        WHERE id = $1
    ",
};

pub async fn set_roles(
    client: &impl GenericClient,
    id: UserId,
    roles: &[String],
    now: Timestamp,
) -> Result<(), DbError> {
    SET_ROLES.run(client, &[&id.0, &roles, &now]).await.map(drop)
}

/// Bans, or bans otherwise. Answered by the primary key; the trigger tells every gateway.
pub const BAN: Query = Query {
    name: "users.ban",
    sql: "
        UPDATE users
        SET banned = true, ban_reason = $2, ban_expires = $3, updated_at = $4
        WHERE id = $1
    ",
};

/// Sessions are not ended by this: while the ban is in force they are not live, but they would be afterwards.
pub async fn ban(
    client: &impl GenericClient,
    id: UserId,
    reason: Option<&str>,
    until: Option<Timestamp>,
    now: Timestamp,
) -> Result<(), DbError> {
    BAN.run(client, &[&id.0, &reason, &until, &now]).await.map(drop)
}

/// Lifts a ban, whether its end has passed or not. Answered by the primary key; the trigger tells every gateway.
pub const UNBAN: Query = Query {
    name: "users.unban",
    sql: "
        UPDATE users
        SET banned = false, ban_reason = NULL, ban_expires = NULL, updated_at = $2
        WHERE id = $1
    ",
};

pub async fn unban(client: &impl GenericClient, id: UserId, now: Timestamp) -> Result<(), DbError> {
    UNBAN.run(client, &[&id.0, &now]).await.map(drop)
}

pub const ALL: &[Query] = &[
    INSERT,
    BY_EMAIL,
    LOCK,
    LOCK_BY_EMAIL,
    LEAVE_UNCLAIMED,
    CLAIM,
    IS_UNCLAIMED,
    SET_VERIFIED,
    SET_NAME,
    UPDATE_PROFILE,
    CHANGE_EMAIL,
    IS_IN_DOUBT,
    TRUST_ADDRESS,
    DELETE,
    LIFT_BAN,
    BY_ID,
    LIST,
    SET_ROLES,
    BAN,
    UNBAN,
];
