//! When a session was last seen is written behind: merged, whatever becomes of Postgres meanwhile, and before the end.

use std::time::Duration;

use tokio::{net::TcpStream, task::JoinHandle};
use vestibule::app::Ended;

use crate::harness::{Database, Gateway, SOON, Setup, eventually, people::User};

/// Uses that were written: sign-in counts as the first.
const WRITTEN: &str = "SELECT count(*) FROM user_sessions WHERE last_seen_at > created_at";

async fn something_waits(gateway: &Gateway) -> bool {
    gateway.metric("vestibule_last_seen_waiting").await > 0.0
}

/// Somebody signed in, whose next use counts.
async fn anybody(gateway: &Gateway) -> User {
    let ada = gateway.signed_in("ada@example.com").await;
    eventually(SOON, async || {
        gateway.admin_get("/readyz").await.json().get("degraded").is_none()
    })
    .await;
    gateway.clock().advance(Duration::from_mins(2));
    ada
}

/// The worker writes; Postgres takes its time, then goes.
#[tokio::test]
async fn what_postgres_did_not_take_is_written_when_it_is_back() {
    let gateway = Gateway::start().await;
    let ada = anybody(&gateway).await;
    let by_hand = gateway.db().client().await;
    by_hand
        .batch_execute("BEGIN; SELECT FROM user_sessions FOR UPDATE")
        .await
        .unwrap();
    for _ in 0..3 {
        assert_eq!(gateway.get("/api/me").with(&ada).await.status(), 200);
    }
    let writing = "SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%FOR UPDATE OF s%'";
    eventually(SOON, async || gateway.db().count(writing).await == 1).await;

    // The writer first: were the lock gone before it, it would still write.
    gateway
        .db()
        .run(&writing.replace("count(*)", "pg_terminate_backend(pid)"))
        .await;
    eventually(SOON, async || gateway.db().count(writing).await == 0).await;
    gateway.db().shut().await;
    eventually(SOON, async || something_waits(&gateway).await).await;
    gateway.db().reopen().await;

    eventually(SOON, async || gateway.db().count(WRITTEN).await == 1).await;
    eventually(SOON, async || !something_waits(&gateway).await).await;
    assert!(gateway.metric("vestibule_last_seen_dropped_total").await < 1.0);
}

/// A patient gateway, with Ada.
async fn patient() -> (Gateway, User) {
    let patient = "[database]\nacquire_timeout = '15s'\nstatement_timeout = '15s'\n[server]\nshutdown_grace = '1m'";
    let gateway = Setup::default().with(patient).start().await;
    let ada = anybody(&gateway).await;
    (gateway, ada)
}

/// A request of `user` is looked up when the gateway begins to stop, and let through then. The database, and how the
/// stopping ends.
async fn used_while_it_stops(gateway: Gateway, user: &User) -> (Database, JoinHandle<Ended>) {
    let by_hand = gateway.db().client().await;
    by_hand
        .batch_execute("BEGIN; LOCK TABLE user_sessions IN ACCESS EXCLUSIVE MODE")
        .await
        .unwrap();
    let misses = async || gateway.metric("vestibule_session_cache_misses_total").await;
    let before = misses().await;
    let call = tokio::spawn(gateway.get("/api/me").with(user).into_future());
    eventually(SOON, async || misses().await > before).await;
    let (db, addr) = (gateway.db().clone(), gateway.addr());
    let stopping = tokio::spawn(gateway.stop());
    eventually(SOON, async || TcpStream::connect(addr).await.is_err()).await;
    by_hand.batch_execute("COMMIT").await.unwrap();
    assert_eq!(call.await.unwrap().status(), 200);
    (db, stopping)
}

/// After everything else was written.
#[tokio::test]
async fn the_last_use_before_the_end_is_written() {
    let (gateway, ada) = patient().await;
    let (db, stopping) = used_while_it_stops(gateway, &ada).await;
    assert_eq!(stopping.await.unwrap().cut_off, 0);
    assert_eq!(db.count(WRITTEN).await, 1);
}

/// The grace may be long, and whoever has enough of it kills.
#[tokio::test]
async fn uses_are_written_while_a_gateway_that_stops_waits_for_others() {
    let (gateway, ada) = patient().await;
    let mut conversations = gateway.upstream().by_hand("/public/slow");
    let slow = tokio::spawn(gateway.get("/public/slow").into_future());
    let mut conversation = conversations.next().await;
    let (db, stopping) = used_while_it_stops(gateway, &ada).await;
    eventually(SOON, async || db.count(WRITTEN).await == 1).await;
    assert!(!stopping.is_finished());
    conversation.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(slow.await.unwrap().status(), 200);
    assert_eq!(stopping.await.unwrap().cut_off, 0);
}

#[tokio::test]
async fn a_minute_has_one_use_of_a_session_however_many_gateways_see_it() {
    let db = Database::fresh().await;
    let here = Gateway::on(&db).await;
    let there = Setup::default().clock(here.clock()).start_on(&db).await;
    let ada = anybody(&here).await;
    let seen = "SELECT extract(epoch FROM last_seen_at - created_at)::bigint FROM user_sessions";
    assert_eq!(here.get("/api/me").with(&ada).await.status(), 200);
    eventually(SOON, async || db.count(seen).await == 120).await;

    here.clock().advance(Duration::from_secs(30));
    assert_eq!(there.get("/api/me").with(&ada).await.status(), 200);
    eventually(SOON, async || !something_waits(&there).await).await;
    assert_eq!(db.count(seen).await, 120);

    here.clock().advance(Duration::from_secs(30));
    assert_eq!(here.get("/api/me").with(&ada).await.status(), 200);
    eventually(SOON, async || db.count(seen).await == 180).await;
}
