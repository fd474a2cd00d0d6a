//! Revocation under fire: three gateways, random sign-ins, requests, and ends of sessions by every means, while the ways
//! to Postgres are cut, frozen and slowed down, and Postgres itself is killed. An oracle that shares nothing with the
//! gateways judges every request.
//!
//! `make test` runs it for a few seconds, `make torture SECONDS=600` for as long as one likes, with an optimised program, and
//! prints what came of it.
//! What is chosen depends on the seed alone; when it happens does not.

#![expect(clippy::print_stdout, reason = "what was measured is what it is for")]

mod chance;
mod door;
mod ending;
mod faults;
mod hand;
mod oracle;
mod people;
mod streams;
mod upstream;
mod world;

use std::{env, sync::Arc, time::Duration};

use tokio::{
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, timeout},
};

use self::{
    chance::Chance,
    faults::Weather,
    oracle::{Distribution, Right, Tally, Verdict},
    world::World,
};

const SEED: u64 = 7;

/// Requests a second, and how many are under way at most.
const PACE: u32 = if cfg!(debug_assertions) { 400 } else { 3_000 };
const CLIENTS: u32 = 24;
/// Of these each looks after some people.
const HANDS: u64 = 6;
/// Open streams through each gateway.
const STREAMS: u64 = 4;

/// For an optimised program, which has the machine for itself: 99 of 100 revocations are heard by then.
const BAR: Duration = Duration::from_millis(50);

/// What one run does, and for how long.
struct Plan {
    lasts: Duration,
    /// Of that, at its end, without faults: longer than a stream that has to end may be open.
    calm: Duration,
    /// `auth.session.cache.ttl` of each gateway: of one shorter than deafness may go unnoticed, of one longer.
    ttls: [Duration; 3],
    weather: Weather,
    /// Between two of those acts of the same hand, in the mean.
    pace: Duration,
    sweep: Duration,
}

impl Plan {
    fn of(seconds: u64) -> Self {
        let lasts = Duration::from_secs(seconds);
        if seconds < 30 {
            return Self {
                lasts,
                calm: lasts / 2,
                ttls: [1, 2, 10].map(Duration::from_secs),
                weather: Weather {
                    quiet: Duration::from_millis(600),
                    fault: Duration::from_millis(500),
                    crash: lasts / 4,
                },
                pace: Duration::from_millis(15),
                sweep: lasts / 2,
            };
        }
        Self {
            lasts,
            calm: Duration::from_secs(8),
            ttls: [1, 3, 10].map(Duration::from_secs),
            weather: Weather {
                quiet: Duration::from_secs(3),
                fault: Duration::from_secs(2),
                crash: Duration::from_secs(20),
            },
            pace: Duration::from_millis(60),
            sweep: Duration::from_secs(40),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "wants the machine for itself: the last stage of make test, make torture"]
async fn whatever_fails_nobody_passes_whose_session_was_ended() {
    let number = |name: &str, usually: u64| {
        let given = env::var(name).ok().filter(|given| !given.is_empty());
        given.map_or(usually, |given| {
            given.parse().unwrap_or_else(|_| panic!("{name} is a number"))
        })
    };
    let seed = number("VESTIBULE_TORTURE_SEED", SEED);
    let plan = Plan::of(number("VESTIBULE_TORTURE_SECONDS", 18));
    let world = World::start(plan.ttls, plan.lasts, plan.calm).await;
    let began = Instant::now();

    let mut tasks = JoinSet::new();
    for hand in 0..HANDS {
        tasks.spawn(people::live(Arc::clone(&world), hand, seed, plan.pace));
    }
    for client in 0..u64::from(CLIENTS) {
        tasks.spawn(visit(Arc::clone(&world), client, seed));
    }
    for gateway in 0..world.gates.len() {
        tasks.spawn(faults::disturb(Arc::clone(&world), gateway, seed, plan.weather));
        for stream in 0..STREAMS {
            let number = u64::try_from(gateway).unwrap() * STREAMS + stream;
            tasks.spawn(streams::listen(Arc::clone(&world), gateway, number, seed));
        }
    }
    tasks.spawn(faults::crash(Arc::clone(&world), seed, plan.weather));
    tasks.spawn(faults::sweep(Arc::clone(&world), seed, plan.sweep));
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
    world.watchers.close();
    let watched = timeout(Duration::from_mins(1), world.watchers.wait()).await;
    assert!(watched.is_ok(), "sessions are still waited for (seed {seed})");
    let lasted = began.elapsed();
    all_is_well_again(&world).await;

    let own_words = own_words(&world).await;

    let tally = world.oracle.tally();
    print(&tally, seed, lasted, &plan);
    println!("{own_words}");
    let Tally { findings, found, .. } = &*tally;
    assert!(
        *found == 0,
        "{found} findings with VESTIBULE_TORTURE_SEED={seed}, among them:\n{}",
        findings.join("\n")
    );
    assert_eq!((tally.stale_here, tally.beyond, tally.wrongly_refused), (0, 0, 0));
    assert!(
        tally.passed > 100 && tally.refused > 10 && tally.sign_ins > 10,
        "it did nothing"
    );
    assert!(tally.ended_by.len() > 5 && tally.faults.len() > 1, "it did little");
    assert!(!tally.lag.is_empty(), "no end of a session was seen in quiet");
    let p99 = Distribution(&tally.lag).at(990);
    assert!(
        cfg!(debug_assertions) || p99 < BAR,
        "elsewhere revocations take {p99:?}"
    );
}

/// A client that shows somebody's session to some gateway, again and again.
async fn visit(world: Arc<World>, number: u64, seed: u64) {
    let mut chance = Chance::new(seed, number);
    let mut tick = interval(Duration::from_secs(1) * CLIENTS / PACE);
    tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
    while !world.is_over() {
        tick.tick().await;
        let Some(session) = world.any(&mut chance) else {
            continue;
        };
        let right = if session.is_admin && chance.one_in(4) {
            Right::Admin
        } else {
            Right::Anything
        };
        let gateway = chance.below(world.gates.len());
        world.show(&session, right, gateway).await;
    }
}

/// After all faults: whoever is signed in passes everywhere, and whoever's session was ended passes nowhere.
async fn all_is_well_again(world: &World) {
    let deadline = Instant::now() + Duration::from_secs(30);
    for gateway in 0..world.gates.len() {
        for session in world.live().iter().chain(&world.ended()) {
            let sought = if session.may_have_ended() {
                Verdict::Refused
            } else {
                Verdict::Passed
            };
            if session.may_have_ended() && session.ended().is_none() {
                continue;
            }
            loop {
                let shown = world.show(session, Right::Anything, gateway).await;
                if shown.is_some_and(|(_, verdict)| verdict == sought) {
                    break;
                }
                if Instant::now() > deadline {
                    world.finds(format!(
                        "gateway {gateway}, after all faults: {shown:?} rather than {sought:?}"
                    ));
                    return;
                }
            }
        }
    }
}

/// What the gateways' metrics say of it, one line each.
async fn own_words(world: &World) -> String {
    let mut lines = Vec::new();
    for (number, gate) in world.gates.iter().enumerate() {
        let [count, sum, deaf, unreachable] = [
            "vestibule_revocation_lag_seconds_count",
            "vestibule_revocation_lag_seconds_sum",
            "vestibule_deaf_seconds_total{state=\"deaf\"}",
            "vestibule_deaf_seconds_total{state=\"unreachable\"}",
        ]
        .map(|name| gate.metric(name));
        let (count, sum) = (count.await, sum.await);
        lines.push(format!(
            "gateway {number}          {count} probes of {:.2} ms in the mean; deaf for {:.1} s, out of reach for {:.1} s",
            sum / count * 1e3,
            deaf.await,
            unreachable.await
        ));
    }
    lines.join("\n")
}

fn print(tally: &Tally, seed: u64, lasted: Duration, plan: &Plan) {
    let requests = tally.passed + tally.refused + tally.unavailable;
    println!(
        "torture: {lasted:.0?}, three gateways with cache.ttl {:?}, seed {seed}",
        plan.ttls
    );
    println!(
        "requests           {requests}: {} passed, {} refused, {} answered 503",
        tally.passed, tally.refused, tally.unavailable
    );
    println!("sign-ins           {}", tally.sign_ins);
    let ended: u64 = tally.ended_by.values().sum();
    println!(
        "revocations        {ended}, and {} of which nobody knows",
        tally.in_doubt
    );
    for (means, count) in &tally.ended_by {
        println!("                   {count:>6} {means:?}");
    }
    println!("faults             {}", tally.faults.values().sum::<u64>());
    for (fault, count) in &tally.faults {
        println!("                   {count:>6} {fault}");
    }
    println!("stale here         {}", tally.stale_here);
    println!(
        "stale elsewhere    {}; the longest by gateway {:.2?}; beyond cache.ttl {}",
        tally.stale_elsewhere, tally.longest_stale, tally.beyond
    );
    println!("wrongly refused    {}", tally.wrongly_refused);
    println!("lag while hearing  {}", Distribution(&tally.lag));
    println!("lag with a fault   {}", Distribution(&tally.lag_in_faults));
    println!(
        "streams            {}; from a revocation to the end of one {}",
        tally.streams,
        Distribution(&tally.stream_lag)
    );
}
