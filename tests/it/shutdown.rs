//! Stopping: what has begun is finished, idle connections are closed, and balancers have time to look elsewhere.

use std::time::Duration;

use tokio::net::TcpStream;

use crate::harness::{Gateway, RawClient, SOON, Setup, eventually};

/// Sends a GET on a connection of the caller's.
async fn ask(gateway: &Gateway, client: &mut RawClient, path: &str) {
    client
        .send(format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", gateway.host()))
        .await;
}

#[tokio::test]
async fn a_request_in_flight_is_finished() {
    let gateway = Setup::default().with("[server]\nshutdown_grace = '30s'").start().await;
    let mut slow = gateway.upstream().by_hand("/public/slow");
    let public = gateway.addr();
    let mut client = gateway.raw().await;
    ask(&gateway, &mut client, "/public/slow").await;
    let mut conversation = slow.next().await;
    conversation
        .send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfirst")
        .await;
    assert_eq!(client.head().await.status(), 200);

    let stopping = tokio::spawn(gateway.stop());
    eventually(SOON, async || TcpStream::connect(public).await.is_err()).await;
    conversation.send(" half").await;
    assert_eq!(client.rest().await, b"first half", "and then the connection is closed");
    assert_eq!(stopping.await.unwrap().cut_off, 0);
}

#[tokio::test]
async fn an_answer_that_begins_while_it_stops_says_that_the_connection_closes() {
    let gateway = Setup::default().with("[server]\nshutdown_grace = '30s'").start().await;
    let mut slow = gateway.upstream().by_hand("/public/slow");
    let public = gateway.addr();
    let mut client = gateway.raw().await;
    ask(&gateway, &mut client, "/public/slow").await;
    let mut conversation = slow.next().await;

    let stopping = tokio::spawn(gateway.stop());
    eventually(SOON, async || TcpStream::connect(public).await.is_err()).await;
    conversation
        .send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone")
        .await;
    let answer = client.answer().await;
    assert_eq!((answer.status(), answer.text()), (200, "done"));
    assert_eq!(answer.head.one("connection"), Some("close"));
    assert!(client.is_closed().await);
    assert_eq!(stopping.await.unwrap().cut_off, 0);
}

#[tokio::test]
async fn an_idle_connection_is_closed_rather_than_waited_for() {
    let gateway = Setup::default().with("[server]\nshutdown_grace = '10m'").start().await;
    let mut idle = gateway.raw().await;
    ask(&gateway, &mut idle, "/public/x").await;
    assert_eq!(idle.answer().await.status(), 200);
    let mut silent = gateway.raw().await;
    ask(&gateway, &mut silent, "/public/x").await;
    assert_eq!(silent.answer().await.status(), 200);
    // Within the grace: were they waited for, this would take ten minutes.
    let ended = tokio::time::timeout(SOON, gateway.stop())
        .await
        .expect("it stops at once");
    assert_eq!(ended.cut_off, 0);
    assert!(idle.is_closed().await && silent.is_closed().await);
}

#[tokio::test]
async fn a_request_that_never_ends_is_cut_off_when_the_grace_is_over() {
    let gateway = Setup::default()
        .with("[server]\nshutdown_grace = '100ms'")
        .start()
        .await;
    let mut slow = gateway.upstream().by_hand("/public/slow");
    let mut client = gateway.raw().await;
    ask(&gateway, &mut client, "/public/slow").await;
    let _conversation = slow.next().await;
    let ended = tokio::time::timeout(SOON, gateway.stop()).await.expect("it stops");
    assert!(ended.cut_off > 0);
    client.rest().await;
}

#[tokio::test]
async fn requests_are_still_served_during_the_drain_delay_and_refused_after() {
    let gateway = Setup::default().with("[server]\ndrain_delay = '1s'").start().await;
    let (public, admin) = (gateway.addr(), gateway.admin());
    let host = gateway.host().to_owned();
    let mut early = gateway.raw().await;
    let stopping = tokio::spawn(gateway.stop());
    eventually(SOON, async || readiness(admin).await == Some(503)).await;
    let mut late = RawClient::connect(public).await;
    for client in [&mut early, &mut late] {
        client
            .send(format!("GET /public/x HTTP/1.1\r\nHost: {host}\r\n\r\n"))
            .await;
        assert_eq!(client.answer().await.status(), 200, "not ready, but still serving");
    }
    stopping.await.unwrap();
    assert!(TcpStream::connect(public).await.is_err());
    assert!(TcpStream::connect(admin).await.is_err());
    assert!(early.is_closed().await && late.is_closed().await);
}

/// The status of `/readyz`; `None` once nobody answers.
async fn readiness(admin: std::net::SocketAddr) -> Option<u16> {
    TcpStream::connect(admin).await.ok()?;
    let mut client = RawClient::connect(admin).await;
    client.send("GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    Some(client.answer().await.status())
}

#[tokio::test]
async fn sessions_used_before_the_stop_are_noted_as_seen() {
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    gateway.clock().advance(Duration::from_mins(2));
    assert_eq!(gateway.get("/api/me").with(&ada).await.status(), 200);
    let db = gateway.db().clone();
    gateway.stop().await;
    let seen = "SELECT count(*) FROM user_sessions WHERE last_seen_at > created_at";
    assert_eq!(db.count(seen).await, 1);
}
