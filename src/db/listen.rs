//! The connection on which Postgres tells of revocations.
//!
//! It is a connection of its own: a pool would hide notifications. It is probed, because one that was cut without a word
//! looks like one on which nothing happens, and one on which statements are answered need not be one that is told of
//! anything: behind a pooler that hands connections out by transaction, `LISTEN` is accepted and forgotten. So a probe is
//! a notification to ourselves, said where requests ask (`database.url`), which must be heard here. That it comes back
//! shows all there is to show: that what is committed where sessions are looked up is heard, hence that both are the same
//! server, and that everything that was committed before has been heard, since Postgres delivers in the order of commits.
//!
//! A commit that notifies may have to wait: Postgres lets one of them through at a time, and one that waits for a standby
//! keeps all others waiting, probes among them. So a probe gives up before we do, and leaves nothing behind on the server;
//! and nothing but a question that waits for nobody tells whether Postgres can be reached at all.
//!
//! Whoever listens is told when it can't be relied on. Deafness is noticed at once when the connection ends, and within
//! [`PROBE_EVERY`] and [`PATIENCE`] (four seconds) whatever happens. Until then it is bounded as ever: no session is
//! believed for longer than `cache.ttl` since it was looked up.

use std::{
    future::{pending, poll_fn},
    time::{Duration, Instant},
};

use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval, sleep, timeout},
};
use tokio_postgres::{AsyncMessage, Client, SimpleQueryMessage, error::SqlState};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use uuid::Uuid;

use super::{Connector, server};
use crate::{
    chain::Chain,
    clock::monotonic,
    identity::UserId,
    secret::{TokenHash, portion, random},
};

/// How often a silent connection is asked whether it is still there.
const PROBE_EVERY: Duration = Duration::from_secs(2);
/// For a connection or a probe to come back; with [`PROBE_EVERY`] it bounds how long deafness goes unnoticed.
const PATIENCE: Duration = Duration::from_secs(2);
/// For a probe to have its turn among commits that notify: less than [`PATIENCE`], so that the server says so itself.
const TURN_WITHIN: Duration = Duration::from_secs(1);
/// Between attempts while Postgres can't be reached, give or take a half: gateways that lost it together are not to come
/// back together.
const RETRY_EVERY: Duration = Duration::from_millis(250);
/// How long one connection says the probes. The next goes where new connections of the pools go, which may have become
/// another server than where the old ones are.
const SPEAKER_LIVES: Duration = Duration::from_secs(30);

/// What was heard, in the order in which it happened.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Heard {
    /// A session was revoked or changed.
    Session(TokenHash),
    /// A user, or all of their sessions, changed.
    User(UserId),
    /// The keys that sign assertions changed.
    Keys,
    /// Everything may have changed.
    Everything,
    /// A probe came back: no revocation that was committed meanwhile took longer to get here.
    Echo(Duration),
    /// From now on every revocation is heard; of what was before, nothing is known.
    Hearing,
    /// Revocations may go unheard. `reachable`: Postgres answers, so sessions can be checked one by one; `None` while that is
    /// being found out.
    Deaf { reachable: Option<bool> },
}

impl Heard {
    /// From the payload of a notification. What can't be read may mean anything, so it means everything.
    fn parse(payload: &str) -> Self {
        if payload == "keys" {
            return Self::Keys;
        }
        payload
            .strip_prefix("s:")
            .and_then(TokenHash::from_hex)
            .map(Self::Session)
            .or_else(|| {
                let id = payload.strip_prefix("u:")?.parse::<Uuid>().ok()?;
                Some(Self::User(UserId(id)))
            })
            .unwrap_or(Self::Everything)
    }
}

/// Listens until `stop`, reconnecting for as long as it takes. `on` is called in order and must not block.
pub async fn run(connector: Connector, channel: String, on: impl Fn(Heard) + Send + Sync, stop: CancellationToken) {
    let mut was_reachable = true;
    loop {
        let ended = stop.run_until_cancelled(listen(&connector, &channel, &on)).await;
        connector.expected().set(None);
        let Some(End {
            was_hearing,
            reachable,
            error,
        }) = ended
        else {
            return;
        };
        let deaf = |reachable: Option<bool>| {
            connector.found(reachable == Some(true));
            on(Heard::Deaf { reachable });
        };
        if !reachable && was_hearing {
            // Nobody waits while that is found out.
            deaf(None);
        }
        let reachable = reachable || stop.run_until_cancelled(answers_requests(&connector)).await == Some(true);
        deaf(Some(reachable));
        // Once per outage: the attempts that follow fail for the same reason.
        if was_hearing || reachable || was_reachable {
            warn!(%error, "lost the connection that tells of revocations: the cache is not trusted until it is back");
        }
        was_reachable = reachable;
        // What was just lost may well be back at once.
        let pause = if was_hearing { Duration::ZERO } else { RETRY_EVERY / 2 };
        let pause = pause + RETRY_EVERY.mul_f64(portion());
        if stop.run_until_cancelled(sleep(pause)).await.is_none() {
            return;
        }
    }
}

/// Whether there is an answer where requests ask.
async fn answers_requests(connector: &Connector) -> bool {
    let asking = async {
        let client = connector.connect_as_pools_do().await?;
        client.batch_execute("").await
    };
    match timeout(PATIENCE, asking).await {
        Ok(Ok(())) => true,
        Ok(Err(error)) => may_answer_others(&error),
        Err(_) => false,
    }
}

/// Why listening ended.
struct End {
    /// Until now.
    was_hearing: bool,
    /// Postgres answers, or was there a moment ago.
    reachable: bool,
    error: String,
}

impl End {
    /// Of an attempt that did not come to hearing.
    const fn before(reachable: bool, error: String) -> Self {
        Self {
            was_hearing: false,
            reachable,
            error,
        }
    }

    const fn of_hearing(reachable: bool, error: String) -> Self {
        Self {
            was_hearing: true,
            reachable,
            error,
        }
    }
}

async fn listen(connector: &Connector, channel: &str, on: &(impl Fn(Heard) + Send + Sync)) -> End {
    let hosts = connector.direct();
    let (client, mut connection, host) = match timeout(PATIENCE, hosts.connect()).await {
        Ok(Ok(connected)) => connected,
        Ok(Err(error)) => return End::before(may_answer_others(&error), Chain(&error).to_string()),
        Err(_) => return End::before(false, format!("no connection within {PATIENCE:?}")),
    };
    // Nobody else listens to it: gateways need not hear each other's probes.
    let own_channel = format!("vestibule_probe_{:016x}", u64::from_ne_bytes(random()));
    let (echo, echoed) = watch::channel((0, monotonic()));
    let hear = async {
        loop {
            match poll_fn(|cx| connection.poll_message(cx)).await {
                Some(Ok(AsyncMessage::Notification(notification))) if notification.channel() == own_channel => {
                    if let Ok(number) = notification.payload().parse() {
                        echo.send_replace((number, monotonic()));
                    }
                }
                Some(Ok(AsyncMessage::Notification(notification))) => on(Heard::parse(notification.payload())),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Chain(&error).to_string(),
                None => return "the connection was closed".to_owned(),
            }
        }
    };
    let mut speaker = Speaker {
        connector,
        client: None,
        channel: own_channel.clone(),
        number: 0,
        echoed,
    };
    // A channel is an identifier: quoted, so that its case stays.
    let command = format!("LISTEN \"{channel}\"; LISTEN \"{own_channel}\"");
    let starting = async {
        let server = timeout(PATIENCE, server::of(&client)).await.ok().flatten();
        match timeout(PATIENCE, client.batch_execute(&command)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(End::before(true, Chain(&error).to_string())),
            Err(_) => {
                return Err(End::before(
                    false,
                    format!("LISTEN was not answered within {PATIENCE:?}"),
                ));
            }
        }
        speaker.probe(on, End::before).await?;
        Ok(server)
    };
    let mut hear = Box::pin(hear);
    let started = tokio::select! {
        error = &mut hear => Err(End::before(true, error)),
        started = starting => started,
    };
    match started {
        Ok(server) => connector.expected().set(server),
        Err(end) => return end,
    }
    // Connections that were made before may lead elsewhere. Not sooner: while no new ones come about, as of a server that
    // has none left, those that there are do well.
    connector.distrust();
    // Only now: what was revoked between looking and listening would be missed otherwise.
    connector.found(true);
    on(Heard::Hearing);
    info!(channel, "listening for revocations");
    let probe = async {
        let mut tick = interval(PROBE_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        tick.reset();
        loop {
            tick.tick().await;
            if let Err(end) = speaker.probe(on, End::of_hearing).await {
                return end;
            }
        }
    };
    let mut moves = hosts.moves();
    let elsewhere = || End::of_hearing(true, "connections lead to another server now".to_owned());
    tokio::select! {
        error = hear => End::of_hearing(true, error),
        end = probe => end,
        _ = moves.wait_for(|right| *right != host) => elsewhere(),
        () = connector.expected().is_missed() => elsewhere(),
    }
}

/// A server that refuses this connection (too many, say) may still answer on others.
fn may_answer_others(error: &tokio_postgres::Error) -> bool {
    error
        .as_db_error()
        .is_some_and(|refusal| !matches!(*refusal.code(), SqlState::CANNOT_CONNECT_NOW | SqlState::ADMIN_SHUTDOWN))
}

/// Says the probes, where requests ask.
struct Speaker<'c> {
    connector: &'c Connector,
    client: Option<(Client, Instant)>,
    channel: String,
    number: u64,
    /// The last that was heard, and when.
    echoed: watch::Receiver<(u64, Instant)>,
}

impl Speaker<'_> {
    /// Says something, and waits until it is heard.
    async fn probe(
        &mut self,
        on: &(impl Fn(Heard) + Send + Sync),
        end: impl Fn(bool, String) -> End,
    ) -> Result<(), End> {
        self.number += 1;
        let asked = monotonic();
        let mut is_said = false;
        let probing = async {
            let takes_writes = self.say().await?;
            is_said = true;
            let number = self.number;
            let heard = self.echoed.wait_for(|(heard, _)| *heard == number).await;
            match heard.map(|heard| heard.1) {
                Ok(came) => Ok((takes_writes, came)),
                // Whoever hears is gone; so is what waits here.
                Err(_) => pending().await,
            }
        };
        let probed: Result<Result<(bool, Instant), tokio_postgres::Error>, _> = timeout(PATIENCE, probing).await;
        match probed {
            Ok(Ok((takes_writes, came))) => {
                if !takes_writes && self.connector.wants_writes() {
                    return Err(end(true, "the server takes no writes any more".to_owned()));
                }
                on(Heard::Echo(came.saturating_duration_since(asked)));
                Ok(())
            }
            Ok(Err(error)) => Err(end(may_answer_others(&error), Chain(&error).to_string())),
            Err(_) if is_said => Err(end(
                true,
                format!("what was committed was not heard of within {PATIENCE:?}: does a pooler stand in between?"),
            )),
            Err(_) => Err(end(false, format!("a probe was not answered within {PATIENCE:?}"))),
        }
    }

    /// Whether the server takes writes.
    async fn say(&mut self) -> Result<bool, tokio_postgres::Error> {
        // Nothing is lost with it: it need not be on the disk before it counts.
        let statement = format!(
            "SELECT current_setting('transaction_read_only'), set_config('synchronous_commit', 'off', true),
                set_config('lock_timeout', '{}', true), pg_notify('{}', '{}')",
            TURN_WITHIN.as_millis(),
            self.channel,
            self.number
        );
        let used = self.client.take();
        let used = used.filter(|(client, since)| !client.is_closed() && since.elapsed() < SPEAKER_LIVES);
        if let Some((client, since)) = used {
            match client.simple_query(&statement).await {
                Ok(said) => {
                    self.client = Some((client, since));
                    return Ok(takes_writes(&said));
                }
                // On another it would be no sooner its turn.
                Err(error) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => return Err(error),
                // Who was silent for a while may have been put out.
                Err(_) => {}
            }
        }
        let client = self.connector.connect_as_pools_do().await?;
        let said = client.simple_query(&statement).await?;
        self.client = Some((client, monotonic()));
        Ok(takes_writes(&said))
    }
}

fn takes_writes(said: &[SimpleQueryMessage]) -> bool {
    said.iter()
        .any(|message| matches!(message, SimpleQueryMessage::Row(row) if row.get(0) == Some("off")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_are_read_and_riddles_mean_everything() {
        let hash = TokenHash::of(b"x");
        let hex = hash.hex();
        assert_eq!(Heard::parse(&format!("s:{hex}")), Heard::Session(hash));
        let user = Uuid::now_v7();
        assert_eq!(Heard::parse(&format!("u:{user}")), Heard::User(UserId(user)));
        assert_eq!(Heard::parse("keys"), Heard::Keys);
        for riddle in ["all", "", "s:", "s:zz", "u:1", "x:1"] {
            assert_eq!(Heard::parse(riddle), Heard::Everything, "{riddle}");
        }
    }
}
