//! `known_addresses`: from where users have signed in lately.

use super::{DbError, GenericClient, Query};
use crate::{clock::Timestamp, identity::UserId};

/// Notes a sign-in. Decided by `known_addresses_pkey`.
pub const SIGNED_IN: Query = Query {
    name: "known_addresses.signed_in",
    sql: "
        INSERT INTO known_addresses (user_id, network, last_signed_in_at)
        VALUES ($1, $2, $3)
        ON CONFLICT (user_id, network) DO UPDATE
        SET last_signed_in_at = greatest(known_addresses.last_signed_in_at, excluded.last_signed_in_at)
    ",
};

pub async fn signed_in(
    client: &impl GenericClient,
    user: UserId,
    network: &str,
    now: Timestamp,
) -> Result<(), DbError> {
    SIGNED_IN.run(client, &[&user.0, &network, &now]).await.map(drop)
}

/// Whether the user of an e-mail address has signed in from a network. Answered by `users_email_key`, then
/// `known_addresses_pkey`.
pub const KNOWS: Query = Query {
    name: "known_addresses.knows",
    sql: "
        SELECT 1
        FROM users AS u
        JOIN known_addresses AS k ON k.user_id = u.id
        WHERE u.email = $1 AND k.network = $2 AND k.last_signed_in_at > $3
    ",
};

pub async fn knows(client: &impl GenericClient, email: &str, network: &str, since: Timestamp) -> Result<bool, DbError> {
    Ok(KNOWS.row(client, &[&email, &network, &since]).await?.is_some())
}

/// Whether somebody who has shown that they read the mail of an address has signed in from a network: of an address that
/// is not verified, anybody may have. Answered as [`KNOWS`] is.
pub const KNOWS_READER: Query = Query {
    name: "known_addresses.knows_reader",
    sql: "
        SELECT 1
        FROM users AS u
        JOIN known_addresses AS k ON k.user_id = u.id
        WHERE u.email = $1 AND u.email_verified AND k.network = $2 AND k.last_signed_in_at > $3
    ",
};

pub async fn knows_reader(
    client: &impl GenericClient,
    email: &str,
    network: &str,
    since: Timestamp,
) -> Result<bool, DbError> {
    Ok(KNOWS_READER.row(client, &[&email, &network, &since]).await?.is_some())
}

/// Forgets some networks from where nobody signed in for long. Answered by `known_addresses_last_signed_in_at_idx`, then
/// by where the rows stand, which can't change while they are locked.
pub const DELETE_STALE: Query = Query {
    name: "known_addresses.delete_stale",
    sql: "
        DELETE FROM known_addresses
        WHERE ctid = ANY (ARRAY(
            SELECT ctid
            FROM known_addresses
            WHERE last_signed_in_at < $1
            ORDER BY last_signed_in_at
            LIMIT $2
            FOR UPDATE SKIP LOCKED
        ))
    ",
};

pub async fn delete_stale(client: &impl GenericClient, before: Timestamp, at_most: i64) -> Result<u64, DbError> {
    DELETE_STALE.run(client, &[&before, &at_most]).await
}

pub const ALL: &[Query] = &[SIGNED_IN, KNOWS, KNOWS_READER, DELETE_STALE];
