//! When there is to be another signing key, and that every gateway has it in time.
//!
//! A new key is published [`PUBLISH_BEFORE`] it signs: by then every gateway has read it, and whoever verifies has fetched
//! the published keys anew. The old one is published for [`KEPT_FOR`] after it has signed for the last time: by then what
//! it signed is over, even where a gateway's clock is behind. So nobody who verifies ever meets a key that they can't
//! have. The moments are written down with the keys; nothing has to happen at them, and Postgres may be away.
//!
//! A key that none of our secrets opens (`auth.secret` was replaced, rather than rotated) is published still, since another
//! gateway may sign with it, but counts for nothing here.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{Mint, Terms, keys::SigningKey};
use crate::{
    chain::Chain,
    clock::{Clock, Timestamp},
    config::{AssertionRules, SigningAlgorithm},
    db::{
        self, Db, DbError,
        signing_keys::{self as table, StoredKey},
    },
    secret::sealed::SealingKeys,
    session::Sessions,
};

/// How long those who verify may keep the published keys: what `Cache-Control` tells them.
pub const CACHED_FOR: Duration = Duration::from_mins(5);
/// How long a key is published before it signs: twice what it may take to be seen.
pub const PUBLISH_BEFORE: Duration = Duration::from_mins(10);
/// How long a key is published after it signed for the last time: an assertion lasts a minute; the rest is for clocks.
pub const KEPT_FOR: Duration = Duration::from_mins(10);

/// How often it is asked whether a key is due; the answer needs nobody.
const TICK: Duration = Duration::from_secs(1);
/// How often keys are read though nobody said that they changed.
const READ_EVERY: Duration = Duration::from_mins(1);
/// After a round that failed.
const AGAIN_AFTER: Duration = Duration::from_secs(2);

/// When a key that an operator or the schedule wants is to sign.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Turn {
    /// After it was published long enough: nobody notices.
    Published,
    /// Now, and all others are withdrawn: somebody else has them. Who verifies must fetch the keys anew.
    AtOnce,
}

/// Keeps keys in force until `stop`: reads them, makes those that are due, removes those that are over.
pub async fn run(sessions: Arc<Sessions>, db: Db, clock: Clock, stop: CancellationToken) {
    let mint = sessions.mint();
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut next, mut complained) = (Instant::now(), false);
    loop {
        let rung = tokio::select! {
            _ = tick.tick() => false,
            () = mint.bell.notified() => true,
            () = stop.cancelled() => return,
        };
        let now = clock.now();
        let due = mint.is_due(now) && !complained;
        if !rung && !due && Instant::now() < next {
            continue;
        }
        let wants = mint.what_is_wanted();
        // Behind that: were it replaced in between, it would be heard without being read.
        let terms = mint.terms.load_full();
        let Some(done) = stop.run_until_cancelled(round(mint, &db, &terms, wants, now)).await else {
            return;
        };
        match done {
            Ok(()) => {
                complained = false;
                next = Instant::now() + READ_EVERY;
            }
            Err(error) => {
                if !complained {
                    warn!(
                        error = %Chain(&error),
                        "could not read or renew the keys that sign assertions; signing goes on with those that are known"
                    );
                }
                complained = true;
                mint.was_in_vain(wants);
                next = Instant::now() + AGAIN_AFTER;
            }
        }
    }
}

/// What calls for another key besides time.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Wants {
    Schedule,
    Algorithm,
}

impl Mint {
    /// A configuration that wants another algorithm is heard once: gateways of two minds would make keys in turns.
    fn what_is_wanted(&self) -> Wants {
        if self.algorithm_heard.swap(true, Ordering::AcqRel) {
            Wants::Schedule
        } else {
            Wants::Algorithm
        }
    }

    /// A round for `wants` failed. What a configuration that came meanwhile wants is still to be heard.
    fn was_in_vain(&self, wants: Wants) {
        if wants == Wants::Algorithm {
            self.algorithm_heard.store(false, Ordering::Release);
        }
    }
}

async fn round(mint: &Mint, db: &Db, terms: &Terms, wants: Wants, now: Timestamp) -> Result<(), DbError> {
    let Terms { rules, sealing, .. } = terms;
    let mut client = db.client().await?;
    let mut stored = table::load(&client, now).await?;
    for key in &mut stored {
        if let Some(new) = SigningKey::resealed(key, sealing) {
            table::reseal(&client, &key.kid, &key.private_key, &new).await?;
            key.private_key = new;
        }
    }
    if next_turn(&opened(&stored, sealing), rules, wants, now).is_some() {
        let tx = db::begin(&mut client).await?;
        table::lock(&tx).await?;
        // Another gateway may have made it meanwhile.
        let present = table::load(&tx, now).await?;
        let usable = opened(&present, sealing);
        if let Some(activates_at) = next_turn(&usable, rules, wants, now) {
            make(&tx, &usable, rules.algorithm, sealing, now, activates_at).await?;
        }
        table::delete_expired(&tx, now).await?;
        db::commit(tx).await?;
        stored = table::load(&client, now).await?;
    }
    mint.install(&stored, terms, now);
    Ok(())
}

/// Makes a key because somebody asks for one; returns it.
pub async fn rotate(
    tx: &db::Transaction<'_>,
    sealing: &SealingKeys,
    algorithm: SigningAlgorithm,
    turn: Turn,
    now: Timestamp,
) -> Result<StoredKey, DbError> {
    table::lock(tx).await?;
    let present = table::load(tx, now).await?;
    match turn {
        Turn::Published => {
            let usable = opened(&present, sealing);
            let activates_at = if usable.iter().any(|key| key.signs_at(now)) {
                now.plus(PUBLISH_BEFORE)
            } else {
                now
            };
            make(tx, &usable, algorithm, sealing, now, activates_at).await
        }
        Turn::AtOnce => {
            let kids: Vec<&str> = present.iter().map(|key| &*key.kid).collect();
            table::delete(tx, &kids).await?;
            make(tx, &[], algorithm, sealing, now, now).await
        }
    }
}

async fn make(
    tx: &db::Transaction<'_>,
    usable: &[&StoredKey],
    algorithm: SigningAlgorithm,
    sealing: &SealingKeys,
    now: Timestamp,
    activates_at: Timestamp,
) -> Result<StoredKey, DbError> {
    let key = SigningKey::generate(algorithm, sealing, now, activates_at)
        .map_err(|error| DbError::Unavailable(Box::new(error)))?;
    let kids: Vec<&str> = usable.iter().map(|key| &*key.kid).collect();
    table::retire(tx, &kids, activates_at, activates_at.plus(KEPT_FOR)).await?;
    table::insert(tx, &key).await?;
    info!(
        kid = key.kid,
        algorithm = key.algorithm,
        activates_at = activates_at.rfc3339(),
        "made a key that signs assertions"
    );
    Ok(key)
}

/// Those that can sign here.
fn opened<'k>(stored: &'k [StoredKey], sealing: &SealingKeys) -> Vec<&'k StoredKey> {
    stored
        .iter()
        .filter(|key| SigningKey::open(key, sealing).is_some())
        .collect()
}

/// From when another key is to sign, if one has to be made now.
fn next_turn(usable: &[&StoredKey], rules: &AssertionRules, wants: Wants, now: Timestamp) -> Option<Timestamp> {
    let newest = usable
        .iter()
        .filter(|key| key.retires_at.is_none())
        .max_by_key(|key| key.activates_at);
    let Some(newest) = newest else {
        // Nothing signs, or will: there is nobody to wait for.
        return Some(now);
    };
    let other = wants == Wants::Algorithm && newest.algorithm != rules.algorithm.as_str();
    (other || now >= due_at(newest, rules)).then(|| now.plus(PUBLISH_BEFORE))
}

/// When the successor of a key is to be made.
pub(super) fn due_at(key: &StoredKey, rules: &AssertionRules) -> Timestamp {
    key.activates_at.plus(rules.rotate_every).minus(PUBLISH_BEFORE)
}

impl StoredKey {
    /// Whether it is this key's turn, or was never anybody else's since.
    pub fn signs_at(&self, now: Timestamp) -> bool {
        self.activates_at <= now && self.retires_at.is_none_or(|at| now < at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_000_000);
    const DAY: Duration = Duration::from_hours(24);

    fn rules(algorithm: SigningAlgorithm) -> AssertionRules {
        AssertionRules {
            send: true,
            algorithm,
            lifetime: Duration::from_mins(1),
            rotate_every: 30 * DAY,
        }
    }

    fn key(activates_at: Timestamp, retires_at: Option<Timestamp>) -> StoredKey {
        StoredKey {
            kid: activates_at.micros().to_string(),
            algorithm: "EdDSA".to_owned(),
            public_key: String::new(),
            private_key: Vec::new(),
            created_at: activates_at,
            activates_at,
            retires_at,
            expires_at: retires_at.map(|at| at.plus(KEPT_FOR)),
        }
    }

    fn due(keys: &[&StoredKey], wants: Wants, now: Timestamp) -> Option<Timestamp> {
        next_turn(keys, &rules(SigningAlgorithm::EdDsa), wants, now)
    }

    #[test]
    fn without_a_key_one_signs_at_once() {
        assert_eq!(due(&[], Wants::Schedule, NOW), Some(NOW));
        let retired = key(NOW.minus(DAY), Some(NOW));
        assert_eq!(due(&[&retired], Wants::Schedule, NOW), Some(NOW));
    }

    #[test]
    fn a_key_has_its_successor_made_before_its_time_is_over_and_only_one() {
        let present = key(NOW, None);
        let at = NOW.plus(30 * DAY).minus(PUBLISH_BEFORE);
        assert_eq!(
            due(&[&present], Wants::Algorithm, at.minus(Duration::from_secs(1))),
            None
        );
        assert_eq!(due(&[&present], Wants::Schedule, at), Some(NOW.plus(30 * DAY)));
        let retiring = key(NOW, Some(NOW.plus(30 * DAY)));
        let next = key(NOW.plus(30 * DAY), None);
        assert_eq!(due(&[&retiring, &next], Wants::Schedule, at), None);
    }

    #[test]
    fn another_algorithm_is_heard_once() {
        let present = key(NOW, None);
        let other = rules(SigningAlgorithm::Es256);
        assert_eq!(next_turn(&[&present], &other, Wants::Schedule, NOW), None);
        assert_eq!(
            next_turn(&[&present], &other, Wants::Algorithm, NOW),
            Some(NOW.plus(PUBLISH_BEFORE))
        );
    }

    #[test]
    fn another_algorithm_is_heard_though_the_round_that_it_came_in_failed() {
        let terms = |algorithm| Terms {
            issuer: "https://app.example.com".to_owned(),
            rules: rules(algorithm),
            sealing: SealingKeys::new([b"correct horse battery staple, thirty-two".as_slice()]),
        };
        let mint = Mint::new(terms(SigningAlgorithm::EdDsa));
        assert_eq!(mint.what_is_wanted(), Wants::Algorithm);
        mint.was_in_vain(Wants::Algorithm);
        assert_eq!(mint.what_is_wanted(), Wants::Algorithm, "it is still to be heard");
        let failing = mint.what_is_wanted();
        assert_eq!(failing, Wants::Schedule);
        mint.replace_terms(terms(SigningAlgorithm::Es256));
        mint.was_in_vain(failing);
        assert_eq!(mint.what_is_wanted(), Wants::Algorithm);
    }

    #[test]
    fn nobody_keeps_published_keys_for_longer_than_a_new_one_waits() {
        assert!(CACHED_FOR + READ_EVERY < PUBLISH_BEFORE);
        // What an assertion may last at most, see `config::identity`.
        assert!(Duration::from_mins(1) < KEPT_FOR);
    }
}
