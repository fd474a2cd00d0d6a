//! `rate_limits`: how much of a budget was used lately. The rule is that of `policy::rate`, in one statement, so that
//! gateways which count at the same moment can't both take the last one.
//!
//! `last_at` is what a window runs from: the last that was allowed, or for people the first that counts.
//!
//! Clocks of gateways may differ a little: `last_at` never goes back. One that lies further ahead than a window is no
//! such difference, and does not count: else a clock that once was wrong would lock people out until its time comes.

use std::time::Duration;

use super::{DbError, GenericClient, Query, column};
use crate::clock::Timestamp;

/// Rows live until a full hour: see the migration.
const EXPIRY_STEP: i64 = 3_600_000_000;

/// Takes `$2` if any is left. Decided by `rate_limits_pkey`; without a row in the answer nothing was taken.
pub const TAKE: Query = Query {
    name: "rate_limits.take",
    sql: "
        INSERT INTO rate_limits AS used (key, count, last_at, expires_at)
        VALUES ($1, $2, $3, $7)
        ON CONFLICT (key) DO UPDATE
        SET count = CASE
                WHEN used.last_at <= $4 OR used.last_at > $5 THEN excluded.count
                ELSE used.count + excluded.count
            END,
            last_at = CASE
                WHEN used.last_at > $5 THEN excluded.last_at
                WHEN $8 THEN greatest(used.last_at, excluded.last_at)
                WHEN used.last_at <= $4 OR used.count = 0 THEN excluded.last_at
                ELSE used.last_at
            END,
            expires_at = greatest(used.expires_at, excluded.expires_at)
        WHERE used.last_at <= $4 OR used.last_at > $5 OR used.count < $6
        RETURNING used.count
    ",
};

/// What is to be taken.
#[derive(Clone, Copy, Debug)]
pub struct Want<'k> {
    pub key: &'k [u8; 32],
    /// Above one: those are taken along that were counted elsewhere before.
    pub how_many: u32,
    pub limit: u32,
    pub window: Duration,
    /// Whether the window runs from the last that was allowed; else from the first that counts.
    pub from_last: bool,
}

/// Whether some were left.
pub async fn take(client: &impl GenericClient, want: Want<'_>, now: Timestamp) -> Result<bool, DbError> {
    let whole = |number: u32| i32::try_from(number).unwrap_or(i32::MAX);
    let row = TAKE
        .row(
            client,
            &[
                &want.key.as_slice(),
                &whole(want.how_many),
                &now,
                &now.minus(want.window),
                &now.plus(want.window),
                &whole(want.limit),
                &expiry(now, want.window),
                &want.from_last,
            ],
        )
        .await?;
    Ok(row.is_some())
}

/// The full hour at which nothing of what is counted now can matter any more, to a gateway whose clock is behind either.
fn expiry(now: Timestamp, window: Duration) -> Timestamp {
    let over = now.plus(window).micros();
    Timestamp::from_micros(
        over.saturating_sub(over.rem_euclid(EXPIRY_STEP))
            .saturating_add(2 * EXPIRY_STEP),
    )
}

/// What the window runs from. Answered by `rate_limits_pkey`.
pub const LAST_AT: Query = Query {
    name: "rate_limits.last_at",
    sql: "
        SELECT last_at
        FROM rate_limits
        WHERE key = $1
    ",
};

pub async fn last_at(client: &impl GenericClient, key: &[u8; 32]) -> Result<Option<Timestamp>, DbError> {
    match LAST_AT.row(client, &[&key.as_slice()]).await? {
        Some(row) => column(&LAST_AT, &row, "last_at").map(Some),
        None => Ok(None),
    }
}

/// Gives one back. Answered by `rate_limits_pkey`.
pub const GIVE_BACK: Query = Query {
    name: "rate_limits.give_back",
    sql: "
        UPDATE rate_limits
        SET count = count - 1
        WHERE key = $1 AND count > 0
    ",
};

pub async fn give_back(client: &impl GenericClient, key: &[u8; 32]) -> Result<(), DbError> {
    GIVE_BACK.run(client, &[&key.as_slice()]).await.map(drop)
}

/// Deletes some rows whose windows are over. Answered by `rate_limits_expires_at_idx`, then, since an array is planned as
/// a short list, by `rate_limits_pkey`.
pub const DELETE_EXPIRED: Query = Query {
    name: "rate_limits.delete_expired",
    sql: "
        DELETE FROM rate_limits
        WHERE key = ANY (ARRAY(
            SELECT key
            FROM rate_limits
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

pub const ALL: &[Query] = &[TAKE, LAST_AT, GIVE_BACK, DELETE_EXPIRED];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_outlives_its_window_by_an_hour_or_two() {
        for (now, window) in [(0, 10), (3_599, 10), (7_200, 900), (7_201, 3_600)] {
            let over = Timestamp::from_secs(now + window);
            let expiry = expiry(Timestamp::from_secs(now), Duration::from_secs(window.unsigned_abs()));
            assert_eq!(expiry.micros() % EXPIRY_STEP, 0);
            let longer = expiry.since(over);
            assert!((3_600..=7_200).contains(&longer.as_secs()), "{longer:?}");
        }
    }
}
