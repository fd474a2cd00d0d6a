//! The connection on which Postgres tells of revocations.
//!
//! It is a connection of its own: a pool would hide notifications. It is probed, because a connection that was cut
//! without a word looks like one on which nothing happens: by a notification to ourselves that must come back, since one on
//! which statements are answered need not be one that is told of anything. Whoever listens is told when it can't be
//! relied on.

use std::{
    future::poll_fn,
    time::{Duration, Instant},
};

use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval, sleep, timeout},
};
use tokio_postgres::{AsyncMessage, Client, error::SqlState};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use uuid::Uuid;

use super::Connector;
use crate::{
    chain::Chain,
    clock::monotonic,
    identity::UserId,
    secret::{TokenHash, random},
};

/// How often a silent connection is asked whether it is still there.
const PROBE_EVERY: Duration = Duration::from_secs(2);
/// For a connection or the answer to a probe; with [`PROBE_EVERY`] it bounds how long deafness goes unnoticed.
const PATIENCE: Duration = Duration::from_secs(2);
/// Between attempts while Postgres can't be reached.
const RETRY_EVERY: Duration = Duration::from_millis(250);

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
    /// Revocations may go unheard. `reachable`: Postgres answers, so sessions can be checked one by one.
    Deaf { reachable: bool },
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
        let Some(End { reachable, error }) = ended else {
            return;
        };
        on(Heard::Deaf { reachable });
        // Once per outage: the attempts that follow fail for the same reason.
        if reachable || was_reachable {
            warn!(%error, "lost the connection that tells of revocations: the cache is not trusted until it is back");
        }
        was_reachable = reachable;
        if stop.run_until_cancelled(sleep(RETRY_EVERY)).await.is_none() {
            return;
        }
    }
}

/// Why listening ended.
struct End {
    /// Postgres was there a moment ago.
    reachable: bool,
    error: String,
}

async fn listen(connector: &Connector, channel: &str, on: &(impl Fn(Heard) + Send + Sync)) -> End {
    let connecting = connector.config().connect(connector.tls());
    let (client, mut connection) = match timeout(PATIENCE, connecting).await {
        Ok(Ok(connected)) => connected,
        Ok(Err(error)) => {
            return End {
                // A server that refuses this connection (too many, say) may still answer on others.
                reachable: error.as_db_error().is_some_and(|refusal| {
                    !matches!(*refusal.code(), SqlState::CANNOT_CONNECT_NOW | SqlState::ADMIN_SHUTDOWN)
                }),
                error: Chain(&error).to_string(),
            };
        }
        Err(_) => {
            return End {
                reachable: false,
                error: format!("no connection within {PATIENCE:?}"),
            };
        }
    };
    // Nobody else listens to it: gateways need not hear each other's probes.
    let own_channel = format!("vestibule_probe_{:016x}", u64::from_ne_bytes(random()));
    let (echo, mut echoed) = watch::channel((0_u64, monotonic()));
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
    let probe = async {
        // A channel is an identifier: quoted, so that its case stays.
        let command = format!("LISTEN \"{channel}\"; LISTEN \"{own_channel}\"");
        match timeout(PATIENCE, client.batch_execute(&command)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Chain(&error).to_string(),
            Err(_) => return format!("LISTEN was not answered within {PATIENCE:?}"),
        }
        let mut tick = interval(PROBE_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut number = 0;
        loop {
            tick.tick().await;
            number += 1;
            let asked = monotonic();
            let came = match timeout(PATIENCE, probe(&client, &own_channel, number, &mut echoed)).await {
                Ok(Ok(came)) => came,
                Ok(Err(error)) => return Chain(&error).to_string(),
                Err(_) => return format!("a probe did not come back within {PATIENCE:?}"),
            };
            on(Heard::Echo(came.saturating_duration_since(asked)));
            if number == 1 {
                // Only now: what was revoked between looking and listening would be missed otherwise.
                on(Heard::Hearing);
                info!(channel, "listening for revocations");
            }
        }
    };
    let error = tokio::select! {
        error = hear => error,
        error = probe => error,
    };
    End { reachable: true, error }
}

/// Notifies ourselves; when that was heard.
async fn probe(
    client: &Client,
    own_channel: &str,
    number: u64,
    echoed: &mut watch::Receiver<(u64, Instant)>,
) -> Result<Instant, tokio_postgres::Error> {
    client
        .batch_execute(&format!("NOTIFY \"{own_channel}\", '{number}'"))
        .await?;
    // Whoever sends lives as long as whoever waits, in one `select!`; were it otherwise, the time-out would tell.
    let heard = echoed.wait_for(|(heard, _)| *heard == number).await;
    match heard.map(|heard| heard.1) {
        Ok(at) => Ok(at),
        Err(_) => std::future::pending().await,
    }
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
