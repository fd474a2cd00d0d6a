//! Sessions that the gateway does not know yet are looked up many at a time.

#![expect(clippy::print_stdout, reason = "how many round trips it takes is what is asked")]

use std::{sync::Arc, time::Duration};

use tokio::task::JoinHandle;
use tokio_postgres::Client;
use vestibule::secret::TokenHash;

use crate::harness::{Database, Gateway, SOON, Setup, client::Response, eventually};

/// For ten thousand, on a machine that does much else.
const A_WHILE: Duration = Duration::from_mins(1);

const PATIENT: &str = "[database]\nacquire_timeout = '2m'\nstatement_timeout = '2m'";

/// Sessions of as many people, with tokens by number, that have never been asked for.
async fn sessions(db: &Database, count: usize) {
    let rows = format!(
        "INSERT INTO users (id, email, email_verified, name, created_at, updated_at)
         SELECT gen_random_uuid(), 'person' || n || '@example.com', true, lpad(n::text, 8, '0'), '2026-11-21', '2026-11-21'
         FROM generate_series(1, {count}) AS n;
         INSERT INTO user_sessions (id, token_hash, user_id, created_at, updated_at, expires_at)
         SELECT gen_random_uuid(), sha256(('a-token-that-nobody-could-guess-' || name)::bytea), id,
             created_at, created_at, '2026-12-21'
         FROM users"
    );
    db.run(&rows).await;
}

fn token(number: usize) -> String {
    format!("a-token-that-nobody-could-guess-{number:08}")
}

/// A number of the metrics that is a whole one.
async fn number(gateway: &Gateway, name: &str) -> usize {
    gateway.metric(name).await.to_string().parse().unwrap()
}

/// Queries for sessions, and how many sessions those asked for.
async fn queries(gateway: &Gateway) -> (usize, usize) {
    let of = async |what| number(gateway, &format!("vestibule_session_lookups_per_query_{what}")).await;
    (of("count").await, of("sum").await)
}

async fn misses(gateway: &Gateway) -> usize {
    number(gateway, "vestibule_session_cache_misses_total").await
}

/// Requests that bring these tokens.
fn calls(gateway: &Gateway, tokens: impl Iterator<Item = usize>) -> Vec<JoinHandle<Response>> {
    tokens
        .map(|number| tokio::spawn(gateway.get("/api/me").bearer(&token(number)).into_future()))
        .collect()
}

async fn statuses(calls: Vec<JoinHandle<Response>>) -> Vec<u16> {
    let mut statuses = Vec::new();
    for call in calls {
        statuses.push(call.await.unwrap().status());
    }
    statuses
}

/// Nothing is answered until this commits.
async fn held_up(db: &Database) -> Client {
    let client = db.client().await;
    hold_up(&client).await;
    client
}

async fn hold_up(client: &Client) {
    client
        .batch_execute("BEGIN; LOCK TABLE user_sessions IN ACCESS EXCLUSIVE MODE")
        .await
        .unwrap();
}

/// The first two requests, whose queries are out: as many as there are connections for.
async fn two_out(gateway: &Gateway, by: &Client) -> Vec<JoinHandle<Response>> {
    let mut both = Vec::new();
    for number in 1..=2_u8 {
        both.extend(calls(gateway, std::iter::once(number.into())));
        let out = "SELECT count(*) FROM pg_stat_activity
            WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%s.token_hash = ANY ($1)%'";
        // Whoever holds the lock may look: statistics are kept for a transaction otherwise.
        eventually(SOON, async || {
            by.batch_execute("SELECT pg_stat_clear_snapshot()").await.unwrap();
            by.query_one(out, &[]).await.unwrap().get::<_, i64>(0) == i64::from(number)
        })
        .await;
    }
    both
}

/// At a cold start, when all whose sessions it are come at once. Nothing is answered before all have asked.
#[tokio::test]
async fn ten_thousand_sessions_at_once_take_a_few_round_trips() {
    const COUNT: usize = 10_000;
    let db = Database::fresh().await;
    sessions(&db, COUNT).await;
    let gateway = Setup::default().with(PATIENT).start_on(&db).await;
    gateway.hears().await;
    let lock = held_up(&db).await;
    let (before, asked_before) = queries(&gateway).await;
    let now = gateway.clock().now();
    let asking: Vec<_> = (1..=COUNT)
        .map(|number| {
            let (sessions, hash) = (Arc::clone(gateway.sessions()), TokenHash::of(token(number).as_bytes()));
            tokio::spawn(async move { sessions.authenticate(&hash, now).await })
        })
        .collect();
    eventually(A_WHILE, async || {
        let (_, asked) = queries(&gateway).await;
        asked - asked_before + number(&gateway, "vestibule_session_lookups_waiting").await == COUNT
    })
    .await;
    lock.batch_execute("COMMIT").await.unwrap();
    for asked in asking {
        assert!(asked.await.unwrap().unwrap().is_some());
    }
    let (after, _) = queries(&gateway).await;
    let round_trips = after - before;
    println!("{COUNT} sessions at once: {round_trips} round trips");
    assert!(round_trips <= 50, "{round_trips}");
    assert_eq!(number(&gateway, "vestibule_session_lookups_waiting").await, 0);
}

#[tokio::test]
async fn requests_of_different_people_share_a_query() {
    const COUNT: usize = 100;
    let db = Database::fresh().await;
    sessions(&db, COUNT).await;
    let gateway = Setup::default().with(PATIENT).start_on(&db).await;
    gateway.hears().await;
    let lock = held_up(&db).await;
    let (queries_before, asked_before) = queries(&gateway).await;
    let before = misses(&gateway).await;
    let mut all = two_out(&gateway, &lock).await;
    all.extend(calls(&gateway, 3..=COUNT));
    eventually(SOON, async || misses(&gateway).await >= before + COUNT).await;
    lock.batch_execute("COMMIT").await.unwrap();
    assert_eq!(statuses(all).await, [200; COUNT]);
    let (queries, asked) = queries(&gateway).await;
    assert_eq!((queries - queries_before, asked - asked_before), (3, COUNT));
}

/// Nobody tells of revocations then: each request is answered by a query that was sent after it came, which others may
/// share, for the same session too.
#[tokio::test]
async fn requests_share_queries_while_revocations_are_not_heard() {
    let db = Database::fresh().await;
    sessions(&db, 3).await;
    let gateway = Setup::default().with(PATIENT).start_on(&db).await;
    gateway.hears().await;
    let by_hand = held_up(&db).await;
    let both = two_out(&gateway, &by_hand).await;
    by_hand.batch_execute("COMMIT").await.unwrap();
    assert_eq!(statuses(both).await, [200; 2]);
    // Connections that are there stay; that which listens ends, and none is made anew.
    let (server, name) = db.url().rsplit_once('/').unwrap();
    let deafen = format!(
        "ALTER DATABASE {name} ALLOW_CONNECTIONS false;
         SELECT pg_terminate_backend(pid) FROM pg_stat_activity
         WHERE datname = '{name}' AND application_name = 'vestibule' AND (query = '' OR query LIKE 'LISTEN%')"
    );
    Database::at(&format!("{server}/postgres")).run(&deafen).await;
    eventually(SOON, async || {
        let ready = gateway.admin_get("/readyz").await.json();
        ready["degraded"].as_str().unwrap_or_default().contains("not heard")
    })
    .await;

    hold_up(&by_hand).await;
    let (queries_before, asked_before) = queries(&gateway).await;
    let before = misses(&gateway).await;
    let mut all = two_out(&gateway, &by_hand).await;
    all.extend(calls(&gateway, std::iter::repeat_n(3, 50)));
    eventually(SOON, async || misses(&gateway).await >= before + 52).await;
    by_hand
        .batch_execute(
            "DELETE FROM user_sessions AS s USING users AS u WHERE u.id = s.user_id AND u.name = '00000003'; COMMIT",
        )
        .await
        .unwrap();
    let mut expected = [401; 52];
    expected[..2].fill(200);
    assert_eq!(
        statuses(all).await,
        expected,
        "none of the fifty was asked for before it was gone"
    );
    let (queries, asked) = queries(&gateway).await;
    assert_eq!((queries - queries_before, asked - asked_before), (3, 52));
    db.reopen().await;
}

#[tokio::test]
async fn who_finds_too_many_waiting_is_told_at_once() {
    let db = Database::fresh().await;
    sessions(&db, 20).await;
    let setup = Setup::default()
        .with(PATIENT)
        .with("[auth.session.cache]\nlookup_queue = 8");
    let gateway = setup.start_on(&db).await;
    gateway.hears().await;
    let lock = held_up(&db).await;
    let mut patient = two_out(&gateway, &lock).await;
    patient.extend(calls(&gateway, 3..=10));
    eventually(SOON, async || {
        number(&gateway, "vestibule_session_lookups_waiting").await == 8
    })
    .await;
    for call in calls(&gateway, 11..=20) {
        let answer = call.await.unwrap();
        assert_eq!((answer.status(), answer.head.one("retry-after")), (503, Some("2")));
    }
    let refused = "vestibule_limits_reached_total{limit=\"auth.session.cache.lookup_queue\"}";
    assert_eq!(number(&gateway, refused).await, 10);
    lock.batch_execute("COMMIT").await.unwrap();
    assert_eq!(statuses(patient).await, [200; 10]);
    assert_eq!(
        gateway.get("/api/me").bearer(&token(20)).await.status(),
        200,
        "nobody is kept out any longer"
    );
}
