//! Event streams and WebSockets that stand open: each ends with its session, and none for any other reason.

use std::{sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::{Instant, sleep, timeout},
};

use super::{
    chance::Chance,
    door::Connection,
    oracle::{Right, Session, Verdict},
    upstream::EVENTS,
    world::{World, get},
};
use crate::harness::{gateway::SITE, wire::Head};

/// A gateway that hears has ended a stream by then, on a machine that does much else.
const BOUND: Duration = Duration::from_secs(5);
/// Who has listened for so long listens to something else.
const LONG_ENOUGH: Duration = Duration::from_secs(20);
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug)]
enum Kind {
    Events,
    WebSocket,
}

impl Kind {
    fn request(self, cookie: &str) -> String {
        let fields = match self {
            // Its end is the connection's.
            Self::Events => "Connection: close\r\n".to_owned(),
            Self::WebSocket => format!(
                "Origin: {SITE}\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                 Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            ),
        };
        get(EVENTS, cookie).replace("\r\n\r\n", &format!("\r\n{fields}\r\n"))
    }
}

/// One stream after the other, through one gateway.
pub(super) async fn listen(world: Arc<World>, gateway: usize, number: u64, seed: u64) {
    let mut chance = Chance::new(seed, 400 + number);
    let kind = if number.is_multiple_of(2) {
        Kind::Events
    } else {
        Kind::WebSocket
    };
    while !world.is_over() {
        world.pause(Duration::from_millis(50)).await;
        let Some(session) = world.any(&mut chance) else {
            continue;
        };
        if let Some(stream) = open(&world, &session, gateway, kind).await {
            world.oracle.tally().streams += 1;
            hold(&world, &session, gateway, kind, stream).await;
        }
    }
}

/// `None`: it was refused, as it has to be, or there was no answer.
async fn open(world: &World, session: &Session, gateway: usize, kind: Kind) -> Option<Connection> {
    let mut connection = world.gates[gateway].door.connect().await.ok()?;
    let began = Instant::now();
    connection
        .write_all(kind.request(&session.cookie).as_bytes())
        .await
        .ok()?;
    let head = timeout(PATIENCE, Head::read(&mut connection)).await.ok()?.ok()??;
    let verdict = match (head.status(), kind) {
        (200, Kind::Events) | (101, Kind::WebSocket) => Verdict::Passed,
        (401, _) => Verdict::Refused,
        (503, _) => Verdict::Unavailable,
        (other, _) => {
            world.finds(format!("gateway {gateway} answered {other} to who wants a stream"));
            return None;
        }
    };
    world.oracle.judge(session, Right::Anything, gateway, began, verdict);
    (verdict == Verdict::Passed).then_some(connection)
}

async fn hold(world: &World, session: &Session, gateway: usize, kind: Kind, mut stream: Connection) {
    let gate = &world.gates[gateway];
    let opened = Instant::now();
    let mut byte = [0];
    while !world.is_over() {
        match timeout(Duration::from_millis(100), stream.read(&mut byte)).await {
            Ok(Ok(1..)) => {}
            Ok(_) => return closed(world, session, gateway, opened).await,
            Err(_) => {
                let ended = session.ended().filter(|_| !session.doubted());
                let overdue = ended
                    .zip(gate.calm_since())
                    .is_some_and(|(ended, calm)| Instant::now() > ended.max(calm).max(opened) + BOUND);
                if overdue {
                    let (lasts, since) = (opened.elapsed(), ended.map(|ended| ended.elapsed()));
                    world.finds(format!(
                        "gateway {gateway} lets {kind:?} go on, opened {lasts:.1?} ago by a session that was ended {since:.1?} \
                         ago by {:?}",
                        session.ended_by()
                    ));
                    return;
                }
                if ended.is_none() && opened.elapsed() > LONG_ENOUGH {
                    return;
                }
            }
        }
    }
}

/// The gateway has ended it.
async fn closed(world: &World, session: &Session, gateway: usize, opened: Instant) {
    let at = Instant::now();
    if !session.may_have_ended() {
        world.finds(format!(
            "gateway {gateway} closed a stream of a session that nobody had ended"
        ));
        return;
    }
    // Word of it may have come before the answer to whoever ended it.
    while session.ended().is_none() && !session.doubted() && at.elapsed() < PATIENCE {
        sleep(Duration::from_millis(5)).await;
    }
    if let Some(ended) = session.ended().filter(|_| !session.doubted())
        && world.gates[gateway].was_calm(opened)
    {
        let lag = at.saturating_duration_since(ended);
        world.oracle.tally().stream_lag.push(lag);
    }
}
