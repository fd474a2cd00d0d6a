//! The worker that sends what is in the outbox.
//!
//! It claims as many mails as it has hands free, sends them side by side, and writes down how each went. The bell and
//! a finished mail make it look again at once; a poll finds what nobody rings for: retries, mails of a gateway that
//! died, mails of one whose bell was lost. Several workers, of several gateways, may share a table.

use std::{
    collections::HashMap,
    future::Future,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::{
    sync::Notify,
    time::{Instant, MissedTickBehavior, interval, sleep},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};
use uuid::Uuid;

use super::smtp::{MailError, PATIENCE, SendError, Smtp};
use crate::{
    chain::Chain,
    clock::{Clock, Timestamp},
    config::Mail,
    db::{
        Db, DbError,
        outbox::{self as table, Claimed},
    },
    secret::{random, sealed::SealingKeys},
};

/// Mails in hand at once, each on an SMTP connection of its own. Sending is waiting for the other side's answers;
/// this many wait side by side, and even careful providers allow as many connections.
const HANDS: usize = 8;

/// How often the table is looked at when nobody rings.
const POLL_EVERY: Duration = Duration::from_secs(2);

/// How long a claimed mail is ours alone: longer than an attempt can take, since two who send the same mail make a
/// duplicate; short, since it is how long a mail waits whose gateway was killed.
const LEASE: Duration = Duration::from_secs(30);
const _: () = assert!(
    LEASE.as_secs() >= PATIENCE.as_secs() + 10,
    "an attempt must end within its lease"
);

/// Waits between attempts: doubled each time, from the first to the last.
const FIRST_RETRY: Duration = Duration::from_secs(5);
const LAST_RETRY: Duration = Duration::from_mins(30);

/// RFC 5321, 4.5.4.1: "the give-up time generally needs to be at least 4-5 days".
const GIVE_UP_AFTER: Duration = Duration::from_hours(5 * 24);

/// A refusal without a reason ends a mail when it has been said for so long.
const UNEXPLAINED_FOR: Duration = Duration::from_hours(4);
/// Beyond it, what is known of them is forgotten: they are tried for longer.
const MOST_UNEXPLAINED: usize = 10_000;

/// How long rows of mails that ended are kept for whoever asks whether one was sent; they hold no bodies.
const KEPT_FOR: Duration = Duration::from_hours(30 * 24);
const SWEEP_EVERY: Duration = Duration::from_hours(1);

/// The worker's door bell. Cheap to clone; ringing without a worker does nothing.
#[derive(Clone, Debug, Default)]
pub struct OutboxBell(Arc<Notify>);

impl OutboxBell {
    /// A mail was committed.
    pub fn ring(&self) {
        self.0.notify_one();
    }
}

/// Who carries the mails. A clone of the [`Outbox`]'s own: replaced, the next attempt goes by the new one.
#[derive(Clone, Debug)]
pub struct Postman(Arc<ArcSwap<Smtp>>);

impl Postman {
    /// Mails in hand are finished by the old one.
    pub fn replace(&self, next: Carrier) {
        self.0.store(Arc::new(next.0));
    }
}

/// The next who is to carry mails.
#[derive(Debug)]
pub struct Carrier(Smtp);

impl Carrier {
    pub fn new(settings: &Mail, keys: SealingKeys) -> Result<Self, MailError> {
        Smtp::new(settings, keys, &[]).map(Self)
    }
}

/// Sends mails until it is told to stop.
#[derive(Debug)]
pub struct Outbox {
    db: Db,
    clock: Clock,
    bell: OutboxBell,
    postman: Postman,
    /// Since when these are refused without a reason, as far as this gateway has heard.
    unexplained: Mutex<HashMap<Uuid, Timestamp>>,
}

impl Outbox {
    /// `keys` open what [`super::enqueue`] sealed.
    pub fn new(db: Db, settings: &Mail, keys: SealingKeys, clock: Clock, bell: OutboxBell) -> Result<Self, MailError> {
        Self::trusting(db, settings, keys, clock, bell, &[])
    }

    /// As [`Outbox::new`], for a server whose certificate no public authority has signed.
    pub fn trusting(
        db: Db,
        settings: &Mail,
        keys: SealingKeys,
        clock: Clock,
        bell: OutboxBell,
        roots: &[lettre::transport::smtp::client::Certificate],
    ) -> Result<Self, MailError> {
        let smtp = Smtp::new(settings, keys, roots)?;
        Ok(Self {
            db,
            clock,
            bell,
            postman: Postman(Arc::new(ArcSwap::from_pointee(smtp))),
            unexplained: Mutex::default(),
        })
    }

    pub fn postman(&self) -> Postman {
        self.postman.clone()
    }

    /// Works until `stop`, then finishes the mails in hand; what is left stays in the table.
    pub async fn run(self, stop: CancellationToken) {
        let mut in_hand = FuturesUnordered::new();
        let mut poll = interval(POLL_EVERY);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut sweep = interval(SWEEP_EVERY);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Whether the table may hold more that is due: set by whatever wakes us, cleared by a claim that came back
        // with less than asked for.
        let mut look = false;
        let mut postgres_away = false;
        while !stop.is_cancelled() {
            let free = HANDS.saturating_sub(in_hand.len());
            if look && free > 0 {
                match meanwhile(&mut in_hand, self.claim(free)).await {
                    Ok(mails) => {
                        postgres_away = false;
                        look = mails.len() == free;
                        for mail in mails {
                            in_hand.push(self.deliver(mail));
                        }
                    }
                    Err(error) => {
                        look = false;
                        // Once per outage: the polls that follow fail for the same reason.
                        if !postgres_away {
                            warn!(
                                error = %Chain(&error),
                                "mails can't be fetched, trying again"
                            );
                        }
                        postgres_away = true;
                    }
                }
                continue;
            }
            tokio::select! {
                () = stop.cancelled() => break,
                Some(()) = in_hand.next(), if !in_hand.is_empty() => {}
                () = self.bell.0.notified(), if !look => look = true,
                _ = poll.tick(), if !look => {
                    look = true;
                    meanwhile(&mut in_hand, self.postman.0.load_full().close_idle()).await;
                }
                _ = sweep.tick() => meanwhile(&mut in_hand, self.sweep()).await,
            }
        }
        while in_hand.next().await.is_some() {}
        self.postman.0.load_full().close_all().await;
    }

    async fn claim(&self, limit: usize) -> Result<Vec<Claimed>, DbError> {
        let now = self.clock.now();
        let client = self.db.client().await?;
        table::claim(&client, now, now.plus(LEASE), limit).await
    }

    /// One attempt at one mail, from the server's answer to the row that says so.
    async fn deliver(&self, mail: Claimed) {
        let claimed = Instant::now();
        let outcome = self.attempt(&mail).await;
        // While the lease lasts nobody else touches the mail, so writing it down is worth repeating: above all that
        // it was sent, because otherwise it is sent again.
        loop {
            let Err(error) = self.write_down(&mail, &outcome).await else {
                break;
            };
            if claimed.elapsed() > LEASE {
                warn!(mail.id = %mail.id, error = %Chain(&error), "how a mail went can't be written down; it may be sent again");
                return;
            }
            sleep(Duration::from_secs(1)).await;
        }
        match outcome {
            Ok(()) => debug!(mail.id = %mail.id, mail.message = mail.message, attempt = mail.attempts, "mail sent"),
            Err(SendError::ForNow(error) | SendError::Unexplained(error)) => warn!(
                mail.id = %mail.id, mail.message = mail.message, attempt = mail.attempts, error,
                "a mail could not be sent, trying again",
            ),
            Err(SendError::ForGood(error)) => error!(
                mail.id = %mail.id, mail.message = mail.message, attempt = mail.attempts, error,
                "a mail could not be sent and is given up",
            ),
        }
    }

    async fn attempt(&self, mail: &Claimed) -> Result<(), SendError> {
        // Whoever followed a link that is dead would find that it is, and not know what to do about it.
        if mail.useless_at.is_some_and(|at| at <= self.clock.now()) {
            return Err(SendError::ForGood("expired".to_owned()));
        }
        let smtp = self.postman.0.load_full();
        let outcome = smtp.send(mail).await;
        let now = self.clock.now();
        if let Err(SendError::Unexplained(error)) = outcome {
            let said_for = now.since(*self.unexplained().entry(mail.id).or_insert(now));
            return Err(if said_for > UNEXPLAINED_FOR {
                SendError::ForGood(error)
            } else {
                SendError::ForNow(error)
            });
        }
        self.unexplained().remove(&mail.id);
        match outcome {
            Err(SendError::ForNow(error)) if now.since(mail.created_at) > GIVE_UP_AFTER => {
                Err(SendError::ForGood(error))
            }
            outcome => outcome,
        }
    }

    fn unexplained(&self) -> MutexGuard<'_, HashMap<Uuid, Timestamp>> {
        // It is whole whenever it is let go.
        let mut unexplained = self.unexplained.lock().unwrap_or_else(PoisonError::into_inner);
        // Others may have ended those mails.
        let now = self.clock.now();
        if unexplained.len() > MOST_UNEXPLAINED {
            unexplained.retain(|_, since| now.since(*since) <= UNEXPLAINED_FOR.saturating_mul(2));
        }
        if unexplained.len() > MOST_UNEXPLAINED {
            unexplained.clear();
        }
        unexplained
    }

    async fn write_down(&self, mail: &Claimed, outcome: &Result<(), SendError>) -> Result<(), DbError> {
        let now = self.clock.now();
        let client = self.db.client().await?;
        match outcome {
            Ok(()) => table::sent(&client, mail.id, now).await,
            Err(SendError::ForNow(error) | SendError::Unexplained(error)) => {
                let due_at = now.plus(pause_after(mail.attempts, random()));
                table::retry(&client, mail, due_at, error).await
            }
            Err(SendError::ForGood(error)) => table::failed(&client, mail, now, error).await,
        }
    }

    async fn sweep(&self) {
        let swept = async {
            let client = self.db.client().await?;
            table::sweep(&client, self.clock.now().minus(KEPT_FOR)).await
        };
        if let Err(error) = swept.await {
            warn!(error = %Chain(&error), "mails that ended long ago can't be removed, trying again later");
        }
    }
}

/// Does `work` while the mails in hand go on. Were they left alone, one could hold the very connection that `work`
/// waits for.
async fn meanwhile<T>(in_hand: &mut FuturesUnordered<impl Future<Output = ()>>, work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    loop {
        tokio::select! {
            done = work.as_mut() => return done,
            Some(()) = in_hand.next(), if !in_hand.is_empty() => {}
        }
    }
}

/// How long to wait after the `attempts`-th failure: doubled each time, shortened by up to a quarter at random so
/// that mails which failed together don't come back together.
fn pause_after(attempts: i32, random: [u8; 1]) -> Duration {
    let doublings = u32::try_from(attempts.saturating_sub(1)).unwrap_or(0).min(16);
    let full = FIRST_RETRY.saturating_mul(1 << doublings).min(LAST_RETRY);
    let [random] = random;
    full.mul_f64(1.0 - f64::from(random) / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_half_an_hour_and_differ() {
        let longest: Vec<u64> = (1..=12).map(|n| pause_after(n, [0]).as_secs()).collect();
        assert_eq!(longest, [5, 10, 20, 40, 80, 160, 320, 640, 1280, 1800, 1800, 1800]);
        for attempts in [i32::MIN, 0, 1, 40, i32::MAX] {
            let (short, long) = (pause_after(attempts, [255]), pause_after(attempts, [0]));
            assert!(
                short < long && short > long.mul_f64(0.74),
                "{attempts}: {short:?} {long:?}"
            );
        }
    }
}
