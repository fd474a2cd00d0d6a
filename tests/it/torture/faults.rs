//! What comes between the gateways and Postgres, and befalls Postgres itself.

use std::{sync::Arc, time::Duration};

use tokio::{
    process::Command,
    time::{Instant, sleep},
};

use super::{
    chance::Chance,
    ending::Ending,
    hand::Hand,
    oracle::Means,
    world::{Gate, World},
};
use crate::harness::{
    Database,
    relay::{Way, Whom},
};

/// A gateway that has not recovered by itself so long after a fault never will.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long faults last and how much quiet is between them.
#[derive(Clone, Copy)]
pub(super) struct Weather {
    pub(super) quiet: Duration,
    pub(super) fault: Duration,
    /// From one SIGKILL to the next.
    pub(super) crash: Duration,
}

/// One fault after the other, in one gateway's way.
pub(super) async fn disturb(world: Arc<World>, gateway: usize, seed: u64, weather: Weather) {
    let mut chance = Chance::new(seed, 100 + u64::try_from(gateway).unwrap());
    let gate = &world.gates[gateway];
    loop {
        world.pause(chance.between(weather.quiet / 5, weather.quiet * 2)).await;
        if world.is_calm_for_good() {
            return;
        }
        let whom = *chance.of(&[Whom::Listeners, Whom::Listeners, Whom::Others, Whom::All]);
        let way = *chance.of(&[Way::Both, Way::ToServer, Way::ToClient]);
        let lasts = chance.between(weather.fault / 20, weather.fault * 2);
        gate.is_disturbed();
        let name = match chance.below(7) {
            0 => {
                gate.relay.cut(whom);
                "cut"
            }
            1 => {
                gate.relay.reset(whom);
                "reset"
            }
            2 => {
                gate.relay.abandon(whom);
                "abandoned"
            }
            3 | 4 => {
                gate.relay.freeze(whom, way);
                world.pause(lasts).await;
                "frozen"
            }
            5 => {
                let late = chance.between(Duration::from_millis(1), Duration::from_millis(300));
                gate.relay.delay(whom, way, late);
                world.pause(lasts).await;
                "slow"
            }
            _ => {
                gate.relay.refuse();
                gate.relay.reset(Whom::All);
                world.pause(lasts).await;
                gate.relay.lead_to(&world.db);
                "refused"
            }
        };
        gate.relay.heal();
        let name = if name == "refused" {
            name.to_owned()
        } else {
            format!("{name} ({whom:?})")
        };
        *world.oracle.tally().faults.entry(name.to_lowercase()).or_default() += 1;
        recover(&world, gateway).await;
        gate.is_calm_again();
    }
}

async fn recover(world: &World, gateway: usize) {
    let gate: &Gate = &world.gates[gateway];
    // What it says at once may be of before it noticed; and where nobody told it that its connection is gone, it says so for
    // longer, until it has made another.
    sleep(Duration::from_millis(300)).await;
    let healed = Instant::now();
    while gate.relay.open(Whom::Listeners) == 0 || !gate.hears().await {
        if healed.elapsed() > PATIENCE {
            world.finds(format!(
                "gateway {gateway} has not recovered {PATIENCE:?} after a fault"
            ));
            return;
        }
        sleep(Duration::from_millis(20)).await;
    }
}

/// A process of Postgres is killed now and then: all the others end, and it begins anew with what was committed.
pub(super) async fn crash(world: Arc<World>, seed: u64, weather: Weather) {
    let mut chance = Chance::new(seed, 200);
    loop {
        world
            .pause(chance.between(weather.crash / 2, weather.crash * 3 / 2))
            .await;
        if world.is_calm_for_good() {
            return;
        }
        let Some(victim) = somebody_of(&world.db).await else {
            continue;
        };
        for gate in &world.gates {
            gate.is_disturbed();
        }
        let killed = Command::new("kill")
            .args(["-s", "KILL", &victim.to_string()])
            .status()
            .await;
        assert!(killed.unwrap().success());
        *world
            .oracle
            .tally()
            .faults
            .entry("postgres killed".to_owned())
            .or_default() += 1;
        for gateway in 0..world.gates.len() {
            recover(&world, gateway).await;
        }
        for gate in &world.gates {
            gate.is_calm_again();
        }
    }
}

async fn somebody_of(db: &Database) -> Option<i32> {
    let (client, connection) = tokio_postgres::connect(db.url(), tokio_postgres::NoTls).await.ok()?;
    tokio::spawn(connection);
    let sql = "SELECT pid FROM pg_stat_activity WHERE application_name = 'vestibule' LIMIT 1";
    let row = client.query_opt(sql, &[]).await.ok()??;
    row.get(0)
}

/// Everybody's sessions at once, now and then.
pub(super) async fn sweep(world: Arc<World>, seed: u64, every: Duration) {
    let mut chance = Chance::new(seed, 300);
    let mut hand = Hand::new(world.db.url());
    loop {
        world.pause(chance.between(every / 2, every * 3 / 2)).await;
        if world.is_over() {
            return;
        }
        let _alone = world.peace.write().await;
        let live = world.live().into_iter().filter(|session| !session.may_have_ended());
        let ending = Ending::begin(live.collect(), Means::SqlTruncate, None);
        let done = hand.run("TRUNCATE user_sessions CASCADE", &[]).await;
        ending.conclude(&world, done, &mut chance);
    }
}
