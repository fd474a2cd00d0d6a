//! Rows that come from another server's database: many at once, and again without harm.
//!
//! Each batch is compared with what is here before anything is written; so a run that was killed goes on where it
//! stopped, a second run brings what changed meanwhile, and a dry run says what a run would do. *The newer wins*: a row
//! is brought up to date if it changed there after it last changed here. Nothing is ever deleted.
//!
//! Roles and bans are compared by what they are as well: whoever changes them by hand leaves the time of change alone.
//! Of two bans the longer one counts, whichever row is newer: no import lifts a ban. Roles that differ are brought over
//! unless the row has changed here since.
//!
//! A row here is the one that came before if its user has the same old id *and* was made at the same time: two servers
//! may both have had a user 1.

use tokio_postgres::{Row, types::ToSql};
use uuid::Uuid;

use super::{
    DbError, GenericClient, Query, accounts::tokens::SealedTokens, column, sessions::StoredSession, users::User,
};
use crate::{clock::Timestamp, identity::UserId, secret::Secret};

/// A user from elsewhere.
#[derive(Clone, Debug)]
pub struct ImportedUser {
    pub user: User,
    /// What they were called there.
    pub imported_id: String,
    /// If not, they are brought up to date where they are here already, and stay behind otherwise.
    pub may_be_new: bool,
}

/// A way to sign in, from elsewhere.
#[derive(Clone, Debug)]
pub struct ImportedAccount {
    pub id: Uuid,
    pub user_id: UserId,
    pub provider_id: String,
    pub account_id: String,
    /// Whose name that is; empty if it is not known.
    pub issuer: String,
    pub password_hash: Option<Secret<String>>,
    /// The provider's, sealed for this id.
    pub tokens: SealedTokens,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// How a row from elsewhere stands to what is here.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Standing {
    New,
    /// It is here already, as it was before it changed there.
    Newer,
    /// It is here already, and of it only roles or a ban are to be brought up to date.
    AccessNewer,
    /// It is here already, and nothing is to be done.
    Known,
    /// Its name here is somebody else's.
    Taken,
    /// It is new, but its address is somebody else's.
    AddressTaken,
    /// It would be new, and must not be.
    NotHere,
}

/// What a row that is here already keeps although it is otherwise there.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kept {
    /// And with the address all but roles and ban: the new one is somebody else's.
    Address,
    /// It has changed here since: who gave the roles is not known.
    Roles,
    /// There, there is none, or one that ends before.
    Ban,
}

/// What a comparison found.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Found {
    pub standing: Standing,
    pub kept: Vec<Kept>,
}

impl From<Standing> for Found {
    fn from(standing: Standing) -> Self {
        Self {
            standing,
            kept: Vec::new(),
        }
    }
}

/// Keeps a second import into this schema away, until the connection ends; `false` if there is one at work.
///
/// The same key asked for on another connection also tells whether that leads to this very database.
pub const LOCK: Query = Query {
    name: "imports.lock",
    sql: "SELECT pg_try_advisory_lock(hashtextextended($1, 0)) AS locked",
};

pub async fn lock(client: &impl GenericClient, schema: &str) -> Result<bool, DbError> {
    match LOCK.row(client, &[&lock_name(schema)]).await? {
        Some(row) => column(&LOCK, &row, "locked"),
        None => Ok(false),
    }
}

/// As [`LOCK`], until the transaction ends.
pub const LOCK_BRIEFLY: Query = Query {
    name: "imports.lock_briefly",
    sql: "SELECT pg_try_advisory_xact_lock(hashtextextended($1, 0)) AS locked",
};

pub async fn lock_briefly(client: &impl GenericClient, schema: &str) -> Result<bool, DbError> {
    match LOCK_BRIEFLY.row(client, &[&lock_name(schema)]).await? {
        Some(row) => column(&LOCK_BRIEFLY, &row, "locked"),
        None => Ok(false),
    }
}

fn lock_name(schema: &str) -> String {
    format!("vestibule import {schema}")
}

/// Answered by the primary key and `users_email_key`, row by row.
pub const COMPARE_USERS: Query = Query {
    name: "imports.compare_users",
    sql: "
        SELECT u.id IS NOT NULL AS is_here,
            coalesce(u.imported_id = n.imported_id AND u.created_at = n.created_at, false) AS is_same,
            coalesce(u.updated_at < n.updated_at, false) AS is_older,
            coalesce(u.updated_at > n.updated_at, false) AS is_newer,
            EXISTS (SELECT 1 FROM users AS o WHERE o.email = n.email AND o.id <> n.id) AS is_taken,
            coalesce(NOT (u.roles @> r.roles AND u.roles <@ r.roles), false) AS has_other_roles,
            banned_until.there > banned_until.here AS is_banned_longer_there,
            banned_until.here > banned_until.there AS is_banned_longer_here
        FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::boolean[], $6::timestamptz[], $7::timestamptz[],
            $8::timestamptz[])
            WITH ORDINALITY AS n (id, imported_id, email, roles, banned, ban_expires, created_at, updated_at, place)
        LEFT JOIN users AS u ON u.id = n.id
        CROSS JOIN LATERAL (SELECT string_to_array(n.roles, ',') AS roles) AS r
        CROSS JOIN LATERAL (
            SELECT
                CASE WHEN u.banned AND coalesce(u.ban_expires, 'infinity') > $9::timestamptz
                    THEN coalesce(u.ban_expires, 'infinity') ELSE '-infinity' END AS here,
                CASE WHEN n.banned AND coalesce(n.ban_expires, 'infinity') > $9::timestamptz
                    THEN coalesce(n.ban_expires, 'infinity') ELSE '-infinity' END AS there
        ) AS banned_until
        ORDER BY n.place
    ",
};

/// One answer for each, in their order.
pub async fn compare_users(
    client: &impl GenericClient,
    users: &[ImportedUser],
    now: Timestamp,
) -> Result<Vec<Found>, DbError> {
    let each = || users.iter().map(|imported| &imported.user);
    let ids: Vec<Uuid> = each().map(|user| user.id.0).collect();
    let imported_ids: Vec<&str> = users.iter().map(|user| user.imported_id.as_str()).collect();
    let emails: Vec<&str> = each().map(|user| user.email.as_str()).collect();
    let roles: Vec<String> = each().map(|user| user.roles.join(",")).collect();
    let banned: Vec<bool> = each().map(|user| user.banned).collect();
    let ban_expires: Vec<Option<Timestamp>> = each().map(|user| user.ban_expires).collect();
    let created_at: Vec<Timestamp> = each().map(|user| user.created_at).collect();
    let updated_at: Vec<Timestamp> = each().map(|user| user.updated_at).collect();
    let rows = COMPARE_USERS
        .rows(
            client,
            &[
                &ids,
                &imported_ids,
                &emails,
                &roles,
                &banned,
                &ban_expires,
                &created_at,
                &updated_at,
                &now,
            ],
        )
        .await?;
    rows.iter()
        .zip(users)
        .map(|(row, user)| found_user(row, user.may_be_new))
        .collect()
}

fn found_user(row: &Row, may_be_new: bool) -> Result<Found, DbError> {
    let is = |name| column::<bool>(&COMPARE_USERS, row, name);
    let compared = Compared::from_row(&COMPARE_USERS, row)?;
    let (is_taken, is_newer, has_other_roles) = (is("is_taken")?, is("is_newer")?, is("has_other_roles")?);
    let access_is_newer = is("is_banned_longer_there")? || (has_other_roles && !is_newer);
    let standing = match compared.standing() {
        Standing::New if !may_be_new => Standing::NotHere,
        Standing::New if is_taken => Standing::AddressTaken,
        Standing::Newer if !is_taken => Standing::Newer,
        Standing::Newer | Standing::Known if access_is_newer => Standing::AccessNewer,
        Standing::Newer => Standing::Known,
        other => other,
    };
    let mut kept = Vec::new();
    if compared.is_same {
        let differences = [
            (Kept::Address, compared.is_older && is_taken),
            (Kept::Roles, is_newer && has_other_roles),
            (Kept::Ban, is("is_banned_longer_here")?),
        ];
        kept.extend(
            differences
                .iter()
                .filter(|(_, differs)| *differs)
                .map(|(kept, _)| *kept),
        );
    }
    Ok(Found { standing, kept })
}

/// What the three comparisons have in common.
struct Compared {
    is_here: bool,
    is_same: bool,
    is_older: bool,
}

impl Compared {
    fn from_row(query: &Query, row: &Row) -> Result<Self, DbError> {
        Ok(Self {
            is_here: column(query, row, "is_here")?,
            is_same: column(query, row, "is_same")?,
            is_older: column(query, row, "is_older")?,
        })
    }

    const fn standing(&self) -> Standing {
        match (self.is_here, self.is_same, self.is_older) {
            (false, _, _) => Standing::New,
            (true, false, _) => Standing::Taken,
            (true, true, true) => Standing::Newer,
            (true, true, false) => Standing::Known,
        }
    }
}

/// Roles travel joined: `unnest` takes an array of arrays apart to its last element.
pub const INSERT_USERS: Query = Query {
    name: "imports.insert_users",
    sql: "
        INSERT INTO users (id, imported_id, email, email_verified, name, image, roles, banned, ban_reason, ban_expires,
            created_at, updated_at)
        SELECT n.id, n.imported_id, n.email, n.email_verified, n.name, n.image, string_to_array(n.roles, ','), n.banned,
            n.ban_reason, n.ban_expires, n.created_at, n.updated_at
        FROM unnest($1::uuid[], $2::text[], $3::text[], $4::boolean[], $5::text[], $6::text[], $7::text[], $8::boolean[],
            $9::text[], $10::timestamptz[], $11::timestamptz[], $12::timestamptz[])
            AS n (id, imported_id, email, email_verified, name, image, roles, banned, ban_reason, ban_expires,
                created_at, updated_at)
        ON CONFLICT DO NOTHING
    ",
};

/// All but roles and ban, which are [`UPDATE_ACCESS`]'s. Answered by the primary key; the trigger tells every gateway.
pub const UPDATE_USERS: Query = Query {
    name: "imports.update_users",
    sql: "
        UPDATE users AS u
        SET email = n.email, email_verified = n.email_verified, name = n.name, image = n.image, updated_at = n.updated_at
        FROM unnest($1::uuid[], $2::text[], $3::text[], $4::boolean[], $5::text[], $6::text[], $7::text[], $8::boolean[],
            $9::text[], $10::timestamptz[], $11::timestamptz[], $12::timestamptz[])
            AS n (id, imported_id, email, email_verified, name, image, roles, banned, ban_reason, ban_expires,
                created_at, updated_at)
        WHERE u.id = n.id AND u.imported_id = n.imported_id AND u.created_at = n.created_at
            AND u.updated_at < n.updated_at
    ",
};

/// Roles unless they may have been changed here since, and the longer of two bans: ours, if they last equally long. The
/// time of change stays, so that what else changed there can still come. Answered by the primary key; the trigger tells
/// every gateway.
pub const UPDATE_ACCESS: Query = Query {
    name: "imports.update_access",
    sql: "
        UPDATE users AS u
        SET roles = CASE WHEN u.updated_at <= n.updated_at THEN string_to_array(n.roles, ',') ELSE u.roles END,
            (banned, ban_reason, ban_expires) = (
                SELECT b.banned, b.reason, b.expires
                FROM (
                    VALUES (1, u.banned, u.ban_reason, u.ban_expires), (2, n.banned, n.ban_reason, n.ban_expires)
                ) AS b (place, banned, reason, expires)
                ORDER BY CASE WHEN b.banned AND coalesce(b.expires, 'infinity') > $13::timestamptz
                    THEN coalesce(b.expires, 'infinity') ELSE '-infinity' END DESC, b.place
                LIMIT 1
            )
        FROM unnest($1::uuid[], $2::text[], $3::text[], $4::boolean[], $5::text[], $6::text[], $7::text[], $8::boolean[],
            $9::text[], $10::timestamptz[], $11::timestamptz[], $12::timestamptz[])
            AS n (id, imported_id, email, email_verified, name, image, roles, banned, ban_reason, ban_expires,
                created_at, updated_at)
        WHERE u.id = n.id AND u.imported_id = n.imported_id AND u.created_at = n.created_at
    ",
};

/// How many were new. Fewer than were given if somebody took an id or an address since they were compared.
pub async fn insert_users(client: &impl GenericClient, users: &[&ImportedUser]) -> Result<u64, DbError> {
    write_users(&INSERT_USERS, client, users, None).await
}

/// How many were brought up to date, roles and bans among it.
pub async fn update_users(
    client: &impl GenericClient,
    users: &[&ImportedUser],
    now: Timestamp,
) -> Result<u64, DbError> {
    // First: it asks which row is newer, and the other makes them equally old.
    update_access(client, users, now).await?;
    write_users(&UPDATE_USERS, client, users, None).await
}

/// How many there were.
pub async fn update_access(
    client: &impl GenericClient,
    users: &[&ImportedUser],
    now: Timestamp,
) -> Result<u64, DbError> {
    write_users(&UPDATE_ACCESS, client, users, Some(&now)).await
}

async fn write_users(
    query: &Query,
    client: &impl GenericClient,
    users: &[&ImportedUser],
    now: Option<&Timestamp>,
) -> Result<u64, DbError> {
    let each = || users.iter().map(|imported| &imported.user);
    let ids: Vec<Uuid> = each().map(|user| user.id.0).collect();
    let imported_ids: Vec<&str> = users.iter().map(|user| user.imported_id.as_str()).collect();
    let emails: Vec<&str> = each().map(|user| user.email.as_str()).collect();
    let email_verified: Vec<bool> = each().map(|user| user.email_verified).collect();
    let names: Vec<&str> = each().map(|user| user.name.as_str()).collect();
    let images: Vec<Option<&str>> = each().map(|user| user.image.as_deref()).collect();
    let roles: Vec<String> = each().map(|user| user.roles.join(",")).collect();
    let banned: Vec<bool> = each().map(|user| user.banned).collect();
    let ban_reasons: Vec<Option<&str>> = each().map(|user| user.ban_reason.as_deref()).collect();
    let ban_expires: Vec<Option<Timestamp>> = each().map(|user| user.ban_expires).collect();
    let created_at: Vec<Timestamp> = each().map(|user| user.created_at).collect();
    let updated_at: Vec<Timestamp> = each().map(|user| user.updated_at).collect();
    let mut params: Vec<&(dyn ToSql + Sync)> = vec![
        &ids,
        &imported_ids,
        &emails,
        &email_verified,
        &names,
        &images,
        &roles,
        &banned,
        &ban_reasons,
        &ban_expires,
        &created_at,
        &updated_at,
    ];
    if let Some(now) = &now {
        params.push(*now);
    }
    query.run(client, &params).await
}

/// A password is newer than the one here if that was set before, not if it was hashed anew before, which whoever knows the
/// old one brings about by signing in with it. Tokens of a provider are newer if the row here has not changed since: signing
/// in here changes it, and so does a refresh. They belong to a row that came from there, since they are sealed for its id;
/// one that came before tokens did gets them. Answered by `accounts_provider_id_account_id_key`, row by row.
pub const COMPARE_ACCOUNTS: Query = Query {
    name: "imports.compare_accounts",
    sql: "
        SELECT a.id IS NOT NULL AS is_here,
            coalesce(a.user_id = n.user_id, false) AS is_same,
            coalesce(
                CASE
                    WHEN n.password_hash IS NOT NULL THEN coalesce(a.password_set_at, a.updated_at) < n.updated_at
                        AND a.password_hash IS DISTINCT FROM n.password_hash
                    WHEN n.has_tokens AND a.id = n.id THEN a.updated_at < n.updated_at
                        OR (a.updated_at = n.updated_at AND a.access_token IS NULL AND a.refresh_token IS NULL
                            AND a.id_token IS NULL)
                END,
                false
            ) AS is_older
        FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::boolean[], $7::timestamptz[])
            WITH ORDINALITY AS n (id, user_id, provider_id, account_id, password_hash, has_tokens, updated_at, place)
        LEFT JOIN accounts AS a ON a.provider_id = n.provider_id AND a.account_id = n.account_id
        ORDER BY n.place
    ",
};

/// One answer for each, in their order.
pub async fn compare_accounts(
    client: &impl GenericClient,
    accounts: &[ImportedAccount],
) -> Result<Vec<Found>, DbError> {
    let ids: Vec<Uuid> = accounts.iter().map(|account| account.id).collect();
    let user_ids: Vec<Uuid> = accounts.iter().map(|account| account.user_id.0).collect();
    let provider_ids: Vec<&str> = accounts.iter().map(|account| account.provider_id.as_str()).collect();
    let account_ids: Vec<&str> = accounts.iter().map(|account| account.account_id.as_str()).collect();
    let hashes: Vec<Option<&str>> = accounts.iter().map(ImportedAccount::exposed_hash).collect();
    let has_tokens: Vec<bool> = accounts.iter().map(ImportedAccount::has_tokens).collect();
    let updated_at: Vec<Timestamp> = accounts.iter().map(|account| account.updated_at).collect();
    let rows = COMPARE_ACCOUNTS
        .rows(
            client,
            &[
                &ids,
                &user_ids,
                &provider_ids,
                &account_ids,
                &hashes,
                &has_tokens,
                &updated_at,
            ],
        )
        .await?;
    rows.iter()
        .map(|row| Compared::from_row(&COMPARE_ACCOUNTS, row).map(|compared| compared.standing().into()))
        .collect()
}

impl ImportedAccount {
    fn exposed_hash(&self) -> Option<&str> {
        self.password_hash.as_ref().map(|hash| hash.expose().as_str())
    }

    const fn has_tokens(&self) -> bool {
        let SealedTokens {
            access, refresh, id, ..
        } = &self.tokens;
        access.is_some() || refresh.is_some() || id.is_some()
    }
}

/// A password counts as set when its row last changed there. Scopes travel joined, as roles do.
pub const INSERT_ACCOUNTS: Query = Query {
    name: "imports.insert_accounts",
    sql: "
        INSERT INTO accounts (id, user_id, provider_id, account_id, issuer, password_hash, password_set_at, access_token,
            refresh_token, id_token, access_token_expires_at, refresh_token_expires_at, scopes, created_at, updated_at)
        SELECT n.id, n.user_id, n.provider_id, n.account_id, n.issuer, n.password_hash,
            CASE WHEN n.password_hash IS NOT NULL THEN n.updated_at END, n.access_token, n.refresh_token, n.id_token,
            n.access_token_expires_at, n.refresh_token_expires_at, string_to_array(n.scopes, ','), n.created_at,
            n.updated_at
        FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bytea[], $8::bytea[],
            $9::bytea[], $10::timestamptz[], $11::timestamptz[], $12::text[], $13::timestamptz[], $14::timestamptz[])
            AS n (id, user_id, provider_id, account_id, issuer, password_hash, access_token, refresh_token, id_token,
                access_token_expires_at, refresh_token_expires_at, scopes, created_at, updated_at)
        ON CONFLICT DO NOTHING
    ",
};

/// Of a password's row the password, of a provider's what the provider gave: [`COMPARE_ACCOUNTS`] says when. An issuer that
/// is known here stays. Answered by `accounts_provider_id_account_id_key`.
pub const UPDATE_ACCOUNTS: Query = Query {
    name: "imports.update_accounts",
    sql: "
        UPDATE accounts AS a
        SET password_hash = n.password_hash,
            password_set_at = CASE WHEN n.password_hash IS NOT NULL THEN n.updated_at END,
            issuer = CASE WHEN a.issuer = '' THEN n.issuer ELSE a.issuer END,
            access_token = n.access_token,
            refresh_token = n.refresh_token,
            id_token = n.id_token,
            access_token_expires_at = n.access_token_expires_at,
            refresh_token_expires_at = n.refresh_token_expires_at,
            scopes = string_to_array(n.scopes, ','),
            updated_at = n.updated_at
        FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bytea[], $8::bytea[],
            $9::bytea[], $10::timestamptz[], $11::timestamptz[], $12::text[], $13::timestamptz[], $14::timestamptz[])
            AS n (id, user_id, provider_id, account_id, issuer, password_hash, access_token, refresh_token, id_token,
                access_token_expires_at, refresh_token_expires_at, scopes, created_at, updated_at)
        WHERE a.provider_id = n.provider_id AND a.account_id = n.account_id AND a.user_id = n.user_id
            AND CASE
                WHEN n.password_hash IS NOT NULL THEN coalesce(a.password_set_at, a.updated_at) < n.updated_at
                ELSE a.id = n.id AND a.updated_at <= n.updated_at
            END
    ",
};

/// How many were new.
pub async fn insert_accounts(client: &impl GenericClient, accounts: &[&ImportedAccount]) -> Result<u64, DbError> {
    write_accounts(&INSERT_ACCOUNTS, client, accounts).await
}

/// How many were brought up to date.
pub async fn update_accounts(client: &impl GenericClient, accounts: &[&ImportedAccount]) -> Result<u64, DbError> {
    write_accounts(&UPDATE_ACCOUNTS, client, accounts).await
}

async fn write_accounts(
    query: &Query,
    client: &impl GenericClient,
    accounts: &[&ImportedAccount],
) -> Result<u64, DbError> {
    type Token = fn(&SealedTokens) -> &Option<Vec<u8>>;
    let each = || accounts.iter();
    let texts = |get: fn(&ImportedAccount) -> &String| -> Vec<&str> { each().map(|it| get(it).as_str()).collect() };
    let tokens = |get: Token| -> Vec<Option<&[u8]>> { each().map(|it| get(&it.tokens).as_deref()).collect() };
    let ids: Vec<Uuid> = each().map(|account| account.id).collect();
    let user_ids: Vec<Uuid> = each().map(|account| account.user_id.0).collect();
    let hashes: Vec<Option<&str>> = each().map(|account| account.exposed_hash()).collect();
    let access_ends: Vec<Option<Timestamp>> = each().map(|account| account.tokens.access_expires_at).collect();
    let refresh_ends: Vec<Option<Timestamp>> = each().map(|account| account.tokens.refresh_expires_at).collect();
    let scopes: Vec<String> = each().map(|account| account.tokens.scopes.join(",")).collect();
    let created_at: Vec<Timestamp> = each().map(|account| account.created_at).collect();
    let updated_at: Vec<Timestamp> = each().map(|account| account.updated_at).collect();
    query
        .run(
            client,
            &[
                &ids,
                &user_ids,
                &texts(|account| &account.provider_id),
                &texts(|account| &account.account_id),
                &texts(|account| &account.issuer),
                &hashes,
                &tokens(|tokens| &tokens.access),
                &tokens(|tokens| &tokens.refresh),
                &tokens(|tokens| &tokens.id),
                &access_ends,
                &refresh_ends,
                &scopes,
                &created_at,
                &updated_at,
            ],
        )
        .await
}

/// Of a session nothing changes but its end, and that only moves away; one that was revoked here stays so. Answered by
/// `user_sessions_token_hash_key`, row by row.
pub const COMPARE_SESSIONS: Query = Query {
    name: "imports.compare_sessions",
    sql: "
        SELECT s.id IS NOT NULL AS is_here,
            coalesce(s.user_id = n.user_id, false) AS is_same,
            coalesce(s.revoked_at IS NULL AND s.expires_at < n.expires_at, false) AS is_older
        FROM unnest($1::bytea[], $2::uuid[], $3::timestamptz[])
            WITH ORDINALITY AS n (token_hash, user_id, expires_at, place)
        LEFT JOIN user_sessions AS s ON s.token_hash = n.token_hash
        ORDER BY n.place
    ",
};

/// One answer for each, in their order.
pub async fn compare_sessions(client: &impl GenericClient, sessions: &[StoredSession]) -> Result<Vec<Found>, DbError> {
    let hashes: Vec<&[u8]> = sessions
        .iter()
        .map(|session| session.token_hash.as_bytes().as_slice())
        .collect();
    let user_ids: Vec<Uuid> = sessions.iter().map(|session| session.user_id.0).collect();
    let expires_at: Vec<Timestamp> = sessions.iter().map(|session| session.expires_at).collect();
    let rows = COMPARE_SESSIONS
        .rows(client, &[&hashes, &user_ids, &expires_at])
        .await?;
    rows.iter()
        .map(|row| Compared::from_row(&COMPARE_SESSIONS, row).map(|compared| compared.standing().into()))
        .collect()
}

/// How the user signed in is not known: the methods stay empty. Last seen is when the other server last extended it.
pub const INSERT_SESSIONS: Query = Query {
    name: "imports.insert_sessions",
    sql: "
        INSERT INTO user_sessions (id, token_hash, user_id, created_at, updated_at, expires_at, remembered, ip_address,
            user_agent, last_seen_at, browser, os, device)
        SELECT n.id, n.token_hash, n.user_id, n.created_at, n.updated_at, n.expires_at, n.remembered, n.ip_address,
            n.user_agent, n.updated_at, n.browser, n.os, n.device
        FROM unnest($1::uuid[], $2::bytea[], $3::uuid[], $4::timestamptz[], $5::timestamptz[], $6::timestamptz[],
            $7::boolean[], $8::inet[], $9::text[], $10::text[], $11::text[], $12::text[])
            AS n (id, token_hash, user_id, created_at, updated_at, expires_at, remembered, ip_address, user_agent,
                browser, os, device)
        ON CONFLICT DO NOTHING
    ",
};

/// Answered by `user_sessions_token_hash_key`; the trigger is silent, since nobody loses anything.
pub const UPDATE_SESSIONS: Query = Query {
    name: "imports.update_sessions",
    sql: "
        UPDATE user_sessions AS s
        SET expires_at = n.expires_at, updated_at = n.updated_at
        FROM unnest($1::uuid[], $2::bytea[], $3::uuid[], $4::timestamptz[], $5::timestamptz[], $6::timestamptz[],
            $7::boolean[], $8::inet[], $9::text[], $10::text[], $11::text[], $12::text[])
            AS n (id, token_hash, user_id, created_at, updated_at, expires_at, remembered, ip_address, user_agent,
                browser, os, device)
        WHERE s.token_hash = n.token_hash AND s.user_id = n.user_id AND s.revoked_at IS NULL
            AND s.expires_at < n.expires_at
    ",
};

/// How many were new.
pub async fn insert_sessions(client: &impl GenericClient, sessions: &[&StoredSession]) -> Result<u64, DbError> {
    write_sessions(&INSERT_SESSIONS, client, sessions).await
}

/// How many were extended.
pub async fn update_sessions(client: &impl GenericClient, sessions: &[&StoredSession]) -> Result<u64, DbError> {
    write_sessions(&UPDATE_SESSIONS, client, sessions).await
}

async fn write_sessions(
    query: &Query,
    client: &impl GenericClient,
    sessions: &[&StoredSession],
) -> Result<u64, DbError> {
    let ids: Vec<Uuid> = sessions.iter().map(|session| session.id.0).collect();
    let hashes: Vec<&[u8]> = sessions
        .iter()
        .map(|session| session.token_hash.as_bytes().as_slice())
        .collect();
    let user_ids: Vec<Uuid> = sessions.iter().map(|session| session.user_id.0).collect();
    let created_at: Vec<Timestamp> = sessions.iter().map(|session| session.created_at).collect();
    let updated_at: Vec<Timestamp> = sessions.iter().map(|session| session.updated_at).collect();
    let expires_at: Vec<Timestamp> = sessions.iter().map(|session| session.expires_at).collect();
    let remembered: Vec<bool> = sessions.iter().map(|session| session.remembered).collect();
    let addresses: Vec<_> = sessions.iter().map(|session| session.ip_address).collect();
    let user_agents: Vec<&str> = sessions.iter().map(|session| session.user_agent.as_str()).collect();
    let browsers: Vec<Option<&str>> = sessions
        .iter()
        .map(|session| session.device.browser.as_deref())
        .collect();
    let systems: Vec<Option<&str>> = sessions.iter().map(|session| session.device.os.as_deref()).collect();
    let kinds: Vec<&str> = sessions.iter().map(|session| session.device.kind.as_str()).collect();
    query
        .run(
            client,
            &[
                &ids,
                &hashes,
                &user_ids,
                &created_at,
                &updated_at,
                &expires_at,
                &remembered,
                &addresses,
                &user_agents,
                &browsers,
                &systems,
                &kinds,
            ],
        )
        .await
}

pub const ALL: &[Query] = &[
    LOCK,
    LOCK_BRIEFLY,
    COMPARE_USERS,
    INSERT_USERS,
    UPDATE_USERS,
    UPDATE_ACCESS,
    COMPARE_ACCOUNTS,
    INSERT_ACCOUNTS,
    UPDATE_ACCOUNTS,
    COMPARE_SESSIONS,
    INSERT_SESSIONS,
    UPDATE_SESSIONS,
];
