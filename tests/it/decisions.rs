//! The whole decision, from the bytes of a client to those of an upstream, against a second opinion: the oracle, which
//! says of each request what has to arrive, field by field, or that nothing may.
//!
//! The bytes are HTTP/1.1 here, and HTTP/2 in `decisions/http2.rs`. Requests are made of what such tricks are made of: other spellings of paths, hosts and names, fields that `Connection`
//! names, cookies and tokens of people who are signed in, of one whose session has ended, and of nobody.

mod asks;
mod http2;

use std::{net::Ipv4Addr, time::Instant};

use oracle::{credential::Person, decision::World};

use self::asks::ask;
use crate::{
    framing::number,
    harness::{Gateway, Setup, people::User},
    shared::{
        dice::Dice,
        stage::{Recorder, Stage, Tally, shown},
        world::{self, SignedIn},
    },
};

/// Connections, with one request or several each.
const CONNECTIONS: u64 = 3_000;
const SEED: u64 = 2026;

/// What every sign-in of the tests is, by their clock.
const SINCE: &str = "2026-11-21T08:00:00.000Z";

#[tokio::test]
async fn what_arrives_is_what_a_second_opinion_says() {
    play("", |_| {}).await;
}

#[tokio::test]
async fn it_is_so_behind_a_trusted_proxy() {
    play(
        "[server]\ntrusted_proxies = [\"127.0.0.0/8\", \"10.0.0.0/8\"]\n",
        |world| {
            world.trust.proxies = vec![
                (Ipv4Addr::new(127, 0, 0, 0).into(), 8),
                (Ipv4Addr::new(10, 0, 0, 0).into(), 8),
            ];
        },
    )
    .await;
}

/// A gateway before an upstream that keeps what arrives, and who is signed in there.
async fn set_up(more: &str) -> (Gateway, World, Recorder) {
    let upstream = Recorder::start().await;
    let setup = Setup::default().with(&world::toml(&world::routes())).with(more);
    let gateway = setup
        .endpoints(&[format!("http://{}", upstream.addr())], "")
        .start()
        .await;
    let world = world::world(people(&gateway).await);
    (gateway, world, upstream)
}

async fn play(more: &str, change: impl Fn(&mut World)) {
    let (gateway, mut world, upstream) = set_up(more).await;
    change(&mut world);
    let stage = Stage::new(gateway.addr(), world, upstream);
    let (seed, connections) = (
        number("VESTIBULE_TEST_SEED", SEED),
        number("VESTIBULE_TEST_MESSAGES", CONNECTIONS),
    );
    let began = Instant::now();
    let mut total = Tally::default();
    for round in 0..connections {
        let mut dice = Dice(seed.wrapping_add(round));
        let mut bytes = Vec::new();
        for _ in 0..=dice.below(2) {
            bytes.extend_from_slice(&ask(&mut dice, stage.world()).http1());
        }
        match stage.play(&bytes, &dice.cuts(bytes.len())).await {
            Ok(tally) => total.add(tally),
            Err(error) => panic!(
                "VESTIBULE_TEST_SEED={} VESTIBULE_TEST_MESSAGES=1: {error}\nsent: {}",
                seed.wrapping_add(round),
                shown(&bytes)
            ),
        }
    }
    eprintln!("{connections} connections in {:?}: {total:?}", began.elapsed());
    let least = usize::try_from(connections).unwrap() / 6;
    if least > 10 {
        assert!(total.forwarded > least && total.refused > least, "{total:?}");
    }
}

/// Two who are signed in, one of them with a role, and one who was.
async fn people(gateway: &Gateway) -> Vec<Person> {
    let ada = gateway.signed_in("ada@example.com").await;
    let root = gateway.signed_in_as("root@example.com", &["admin", "user"]).await;
    let gone = gateway.signed_in("gone@example.com").await;
    let mut people = Vec::new();
    for (user, roles) in [(&ada, &["user"][..]), (&root, &["admin", "user"]), (&gone, &["user"])] {
        people.push(person(gateway, user, roles).await);
    }
    gateway.sign_out(&gone).await;
    people[2].live = false;
    people
}

async fn person(gateway: &Gateway, user: &User, roles: &[&str]) -> Person {
    let client = gateway.db().client().await;
    let find = "SELECT s.id::text FROM user_sessions s JOIN users u ON u.id = s.user_id WHERE u.email = $1";
    let session_id: String = client.query_one(find, &[&user.email]).await.unwrap().get(0);
    world::person(&SignedIn {
        id: &user.id,
        email: &user.email,
        session_id: &session_id,
        since: SINCE,
        token: &user.token,
        cookie: user.cookie.split_once('=').unwrap().1,
        roles,
    })
}
