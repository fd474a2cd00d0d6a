//! After a change of `auth.secret`: providers' tokens that an older secret sealed are sealed with the first.
//!
//! So an operator can take the old secret out without anybody losing tokens. It runs after the start, if there is more
//! than one secret, and says when it is through; then every hour, since a gateway that was started before and goes on
//! beside this one seals with the old secret still. Nothing depends on it, since every secret that is configured opens;
//! several gateways may do it at once, as what another has written meanwhile is passed over. What can't be opened, its
//! secret being gone already, stays as it is.

use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use uuid::Uuid;

use super::vault::{self, Column};
use crate::{
    chain::Chain,
    clock::Clock,
    db::{
        Db, DbError,
        accounts::tokens::{self, Columns, Resealed},
    },
    identity::AccountId,
    secret::sealed::SealingKeys,
};

/// Accounts in one page: it is read and written in milliseconds.
const AT_ONCE: i64 = 500;

/// Until it is tried again: when Postgres was away, and for rows that somebody was refreshing.
const AGAIN_AFTER: Duration = Duration::from_mins(1);

/// Until all are looked at again, for what gateways wrote meanwhile that have another first secret.
const EVERY: Duration = Duration::from_hours(1);

/// What one round found.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Round {
    /// Accounts whose tokens are sealed with the first secret now, and were not.
    pub resealed: u64,
    /// Accounts with a token that no secret opens.
    pub lost: u64,
    /// Accounts that somebody wrote, or was about to, in between.
    pub overtaken: u64,
}

/// Seals all anew, until `stop`. Cancel-safe: each page stands for itself.
pub async fn run(db: Db, keys: SealingKeys, clock: Clock, stop: CancellationToken) {
    let mut resealed = 0;
    let mut told = None;
    loop {
        let wait = match stop.run_until_cancelled(round(&db, &keys, &clock)).await {
            None => return,
            Some(Ok(found)) => {
                resealed += found.resealed;
                if found.overtaken == 0 {
                    let outcome = (resealed, found.lost);
                    if told.replace(outcome) != Some(outcome) {
                        through(resealed, found.lost);
                    }
                    EVERY
                } else {
                    AGAIN_AFTER
                }
            }
            Some(Err(error)) => {
                warn!(
                    error = %Chain(&error),
                    "could not seal all of the providers' tokens with the first auth.secret; trying again in {AGAIN_AFTER:?}"
                );
                AGAIN_AFTER
            }
        };
        if stop.run_until_cancelled(sleep(wait)).await.is_none() {
            return;
        }
    }
}

fn through(resealed: u64, lost: u64) {
    if lost > 0 {
        warn!(
            accounts = lost,
            "accounts have tokens of a provider that no auth.secret opens: their users have to sign in there again"
        );
    }
    info!(
        accounts = resealed,
        "the providers' tokens are sealed with the first auth.secret: once no gateway has another one first, they need no \
         other"
    );
}

/// All accounts once.
pub async fn round(db: &Db, keys: &SealingKeys, clock: &Clock) -> Result<Round, DbError> {
    let current = keys.current_prefix();
    let mut found = Round::default();
    let mut after = AccountId(Uuid::nil());
    loop {
        // Given back after each page: it is one of few.
        let client = db.client().await?;
        let page = tokens::page_to_reseal(&client, after, AT_ONCE, &current).await?;
        let Some((last, _)) = page.last() else { return Ok(found) };
        after = *last;
        let mut batch = Vec::new();
        for (account, old) in page {
            let (new, is_lost) = anew(keys, account, &old);
            found.lost += u64::from(is_lost);
            if new != Columns::default() {
                batch.push(Resealed { account, old, new });
            }
        }
        if batch.is_empty() {
            continue;
        }
        let written = tokens::reseal(&client, &batch, clock.now()).await?;
        found.resealed += written;
        found.overtaken += (batch.len() as u64).saturating_sub(written);
    }
}

/// What opens, sealed by the first key; and whether something did not open.
fn anew(keys: &SealingKeys, account: AccountId, old: &Columns) -> (Columns, bool) {
    let mut lost = false;
    let mut sealed = |column, old: &Option<Vec<u8>>| {
        let opened = vault::open_token(keys, account, column, old.as_deref()?);
        lost |= opened.is_none();
        Some(vault::seal_bytes(keys, account, column, &opened?))
    };
    let new = Columns {
        access: sealed(Column::Access, &old.access),
        refresh: sealed(Column::Refresh, &old.refresh),
        id: sealed(Column::Id, &old.id),
    };
    (new, lost)
}
