//! Removes what is over: sessions and one-time tokens that expired some time ago, counts of rate limits, networks from
//! where nobody signed in for long, visits to providers that nobody came back from.
//!
//! Nothing depends on it, since every query judges expiry itself; it keeps the tables small. Several gateways may
//! sweep at once: each passes over the rows that another holds.

use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::throttle::KNOWN_FOR;
use crate::{
    chain::Chain,
    clock::Clock,
    db::{self, Db, DbError},
};

const EVERY: Duration = Duration::from_hours(1);

/// Visits to providers are begun by anybody, as fast as they like, and are over after minutes.
const FLOWS_EVERY: Duration = Duration::from_mins(5);

/// For so long a link can still be told that it has expired, and an operator can look at a session that ended.
const KEPT_FOR: Duration = Duration::from_hours(24);

/// Rows in one statement: it takes milliseconds, and its notifications are few.
const AT_ONCE: i64 = 500;

/// Sweeps until `stop`. Cancel-safe: each statement stands for itself.
pub async fn run(db: Db, clock: Clock, stop: CancellationToken) {
    let every = |period| {
        let mut tick = interval(period);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        tick
    };
    let (mut all, mut flows) = (every(EVERY), every(FLOWS_EVERY));
    loop {
        let swept = stop.run_until_cancelled(async {
            tokio::select! {
                _ = all.tick() => sweep(&db, &clock).await,
                _ = flows.tick() => sweep_flows(&db, &clock).await,
            }
        });
        match swept.await {
            Some(Ok(swept)) => debug!(swept, "removed what is over"),
            Some(Err(error)) => warn!(
                error = %Chain(&error),
                "could not remove all that is over; the next round tries again"
            ),
            None => return,
        }
    }
}

async fn sweep(db: &Db, clock: &Clock) -> Result<u64, DbError> {
    let client = db.client().await?;
    let now = clock.now();
    let before = now.minus(KEPT_FOR);
    let mut swept = 0;
    loop {
        let sessions = db::sessions::delete_ended(&client, before, AT_ONCE).await?;
        let tokens = db::one_time_tokens::delete_expired(&client, before, AT_ONCE).await?;
        let counts = db::rate_limits::delete_expired(&client, now, AT_ONCE).await?;
        let networks = db::known_addresses::delete_stale(&client, now.minus(KNOWN_FOR), AT_ONCE).await?;
        let round = sessions + tokens + counts + networks;
        swept += round;
        if round == 0 {
            return Ok(swept);
        }
    }
}

/// There is nothing to tell of a visit that has expired: it is answered as one that never was.
async fn sweep_flows(db: &Db, clock: &Clock) -> Result<u64, DbError> {
    let client = db.client().await?;
    let mut swept = 0;
    loop {
        let round = db::oauth_flows::delete_expired(&client, clock.now(), AT_ONCE).await?;
        swept += round;
        if round == 0 {
            return Ok(swept);
        }
    }
}
