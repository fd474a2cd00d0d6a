//! The relay that other tests have their faults of: each does what it is called after, to those whom it concerns.

use std::time::{Duration, Instant};

use tokio::time::timeout;
use tokio_postgres::{Client, NoTls};

use crate::harness::{
    Database, SOON, eventually,
    relay::{Relay, Way, Whom},
};

/// Longer than an answer that nobody holds up takes, and no longer than a test may wait for one that does not come.
const A_WHILE: Duration = Duration::from_millis(300);

async fn connect(db: &Database) -> Client {
    let (client, connection) = tokio_postgres::connect(db.url(), NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

async fn listening(db: &Database) -> Client {
    let client = connect(db).await;
    client.batch_execute("LISTEN \"news\"").await.unwrap();
    client
}

async fn answers(client: &Client) -> bool {
    timeout(SOON, client.batch_execute(""))
        .await
        .expect("an answer")
        .is_ok()
}

#[tokio::test]
async fn a_cut_and_a_reset_end_the_connections_that_they_concern_and_no_later_ones() {
    let (relay, db) = Relay::before(&Database::fresh().await).await;
    for end in [Relay::cut, Relay::reset] {
        let (listener, other) = (listening(&db).await, connect(&db).await);
        end(&relay, Whom::Listeners);
        assert!(!answers(&listener).await);
        assert!(answers(&other).await);
        end(&relay, Whom::Others);
        assert!(!answers(&other).await);
        eventually(SOON, async || relay.open(Whom::All) == 0).await;
    }
    assert!(answers(&connect(&db).await).await);
}

#[tokio::test]
async fn what_is_frozen_arrives_when_it_is_healed() {
    let (relay, db) = Relay::before(&Database::fresh().await).await;
    let (listener, other) = (listening(&db).await, connect(&db).await);
    for way in [Way::Both, Way::ToServer, Way::ToClient] {
        relay.freeze(Whom::Listeners, way);
        let mut held = Box::pin(answers(&listener));
        assert!(timeout(A_WHILE, &mut held).await.is_err(), "{way:?} passed");
        assert!(answers(&other).await);
        relay.heal();
        assert!(held.await);
    }
}

#[tokio::test]
async fn what_is_delayed_arrives_late() {
    let (relay, db) = Relay::before(&Database::fresh().await).await;
    let client = connect(&db).await;
    relay.delay(Whom::All, Way::Both, A_WHILE);
    let asked = Instant::now();
    assert!(answers(&client).await);
    assert!(asked.elapsed() >= 2 * A_WHILE, "{:?}", asked.elapsed());
}

#[tokio::test]
async fn who_is_abandoned_is_never_told_and_others_find_a_way() {
    let (relay, db) = Relay::before(&Database::fresh().await).await;
    let abandoned = connect(&db).await;
    relay.abandon(Whom::All);
    relay.heal();
    assert!(timeout(A_WHILE, abandoned.batch_execute("")).await.is_err());
    assert!(answers(&connect(&db).await).await);
}

#[tokio::test]
async fn new_connections_are_refused_or_led_elsewhere() {
    let (one, other) = (Database::fresh().await, Database::fresh().await);
    let (relay, db) = Relay::before(&one).await;
    let before = connect(&db).await;
    relay.refuse();
    assert!(tokio_postgres::connect(db.url(), NoTls).await.is_err());
    assert!(answers(&before).await, "an old connection went with it");
    relay.lead_to(&other);
    assert!(answers(&connect(&db).await).await);
}
