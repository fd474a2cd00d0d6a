//! A session in the cache costs Postgres nothing.

use std::time::{Duration, SystemTime};

use crate::harness::{Gateway, SOON, Setup, eventually};

const REQUESTS: usize = 10_000;

/// Statistics of the gateway's connections: when the last look-up of a session began, if one was ever made. Each
/// connection shows its latest statement, and those of the hot pool run nothing but this look-up.
async fn last_lookup(gateway: &Gateway) -> Option<SystemTime> {
    let client = gateway.db().client().await;
    let sql = "SELECT max(query_start) FROM pg_stat_activity
        WHERE datname = current_database() AND application_name = 'vestibule' AND query LIKE '%s.token_hash = ANY ($1)%'";
    client.query_one(sql, &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn ten_thousand_requests_make_no_query() {
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    let request = format!(
        "GET /api/me HTTP/1.1\r\nHost: {}\r\nCookie: {}\r\n\r\n",
        gateway.host(),
        ada.cookie
    );
    let mut client = gateway.raw().await;
    // Until the gateway listens for revocations it trusts no cache.
    let mut before = None;
    eventually(SOON, async || {
        client.send(&request).await;
        assert_eq!(client.answer().await.status(), 200);
        let earlier = std::mem::replace(&mut before, last_lookup(&gateway).await);
        before.is_some() && before == earlier
    })
    .await;
    let warmed_up = gateway.upstream().seen("/api/me");

    for _ in 0..REQUESTS {
        client.send(&request).await;
        assert_eq!(client.answer().await.status(), 200);
    }

    assert_eq!(
        last_lookup(&gateway).await,
        before,
        "a session that is in the cache was looked up"
    );
    assert_eq!(gateway.upstream().seen("/api/me"), warmed_up + REQUESTS);

    // And the statistics do show a look-up when there is one.
    gateway.clock().advance(Duration::from_secs(11));
    client.send(&request).await;
    assert_eq!(client.answer().await.status(), 200);
    eventually(SOON, async || last_lookup(&gateway).await > before).await;
}

#[tokio::test]
async fn requests_that_come_at_once_share_a_look_up() {
    let gateway = Setup::default()
        .with("[database]\nacquire_timeout = '15s'")
        .start()
        .await;
    let ada = gateway.signed_in("ada@example.com").await;
    eventually(SOON, async || {
        gateway.admin_get("/readyz").await.json().get("degraded").is_none()
    })
    .await;
    let before = misses(&gateway).await;
    // No look-up comes to an end until all who ask are waiting.
    let lock = gateway.db().client().await;
    lock.batch_execute("BEGIN; LOCK TABLE user_sessions IN ACCESS EXCLUSIVE MODE")
        .await
        .unwrap();
    gateway.clock().advance(Duration::from_secs(11));
    let calls: Vec<_> = (0..50)
        .map(|_| tokio::spawn(gateway.get("/api/me").with(&ada).into_future()))
        .collect();
    eventually(SOON, async || misses(&gateway).await == before + 50).await;
    let lookups = "SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%s.token_hash = ANY ($1)%'";
    eventually(SOON, async || gateway.db().count(lookups).await > 0).await;
    assert_eq!(gateway.db().count(lookups).await, 1);
    lock.batch_execute("COMMIT").await.unwrap();
    for call in calls {
        assert_eq!(call.await.unwrap().status(), 200);
    }
}

/// How often the cache had no answer.
async fn misses(gateway: &Gateway) -> u64 {
    let metrics = gateway.admin_get("/metrics").await;
    let mut lines = metrics.text().lines();
    let misses = lines.find_map(|line| line.strip_prefix("vestibule_session_cache_misses_total "));
    misses.unwrap().parse().unwrap()
}

#[tokio::test]
async fn junk_does_not_reach_the_database() {
    let gateway = Gateway::start().await;
    let before = last_lookup(&gateway).await;
    for number in 0..200 {
        let cookie = format!("{}=token{number:040}.{}%3D", gateway.session_cookie(), "A".repeat(43));
        assert_eq!(gateway.get("/api/me").header("Cookie", cookie).await.status(), 401);
        assert_eq!(
            gateway.get("/api/me").bearer(&format!("short{number}")).await.status(),
            401
        );
    }
    assert_eq!(last_lookup(&gateway).await, before);
}
