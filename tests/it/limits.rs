//! Limits: each refuses what is past it, and lets pass what is below.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::harness::{Gateway, SOON, Setup, eventually};

#[tokio::test]
async fn dos_10_a_body_that_declares_too_much_is_refused_before_the_upstream_is_asked() {
    let gateway = Setup::default().with("[server]\nmax_body = '1KiB'").start().await;
    assert_eq!(gateway.post("/public/x").body(vec![b'x'; 1024]).await.status(), 200);
    let answer = gateway.post("/public/x").body(vec![b'x'; 1025]).await;
    assert_eq!((answer.status(), answer.code()), (413, "BODY_TOO_LARGE".to_owned()));
    assert_eq!(gateway.upstream().seen("/public/x"), 1);
    assert_eq!(
        gateway.upstream().last().body,
        [b'x'; 1024],
        "and the one below came whole"
    );
}

#[tokio::test]
async fn dos_10_a_chunked_body_is_counted_on_its_way() {
    let gateway = Setup::default().with("[server]\nmax_body = '1KiB'").start().await;
    let host = gateway.host().to_owned();
    let mut client = gateway.raw().await;
    client
        .send(format!(
            "POST /public/x HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n"
        ))
        .await;
    for _ in 0..3 {
        client.send(format!("200\r\n{}\r\n", "x".repeat(512))).await;
    }
    let answer = client.answer().await;
    assert_eq!((answer.status(), answer.code()), (413, "BODY_TOO_LARGE".to_owned()));
    assert_eq!(gateway.upstream().seen("/public/x"), 0, "no whole request was seen");
}

#[tokio::test]
async fn a_route_may_allow_more_or_less() {
    let setup = "
        server = { max_body = '1KiB' }
        routes = [
            { path = '/files/*', upstream = 'app', auth = 'public', max_body = '4KiB' },
            { path = '/tiny/*', upstream = 'app', auth = 'public', max_body = '10B' },
        ]";
    let gateway = Setup::default().with(setup).start().await;
    assert_eq!(gateway.post("/files/x").body(vec![b'x'; 4096]).await.status(), 200);
    assert_eq!(gateway.post("/files/x").body(vec![b'x'; 4097]).await.status(), 413);
    assert_eq!(gateway.post("/tiny/x").body(vec![b'x'; 11]).await.status(), 413);
}

#[tokio::test]
async fn dos_09_too_many_or_too_large_headers_are_431() {
    let gateway = Gateway::start().await;
    let host = gateway.host();
    let head = format!("GET /public/x HTTP/1.1\r\nHost: {host}\r\n");
    let many = "X-Many: 1\r\n".repeat(200);
    let large = format!("X-Large: {}\r\n", "x".repeat(64 << 10));
    let cookie = format!("Cookie: {}\r\n", "x".repeat(64 << 10));
    for fields in [many, large, cookie] {
        let mut client = gateway.raw().await;
        client.send(format!("{head}{fields}\r\n")).await;
        assert_eq!(client.answer().await.status(), 431);
    }
    assert_eq!(gateway.upstream().requests().len(), 0);
    let fine = format!("Cookie: {}\r\n", "x".repeat(7 << 10));
    let mut client = gateway.raw().await;
    client.send(format!("{head}{fine}\r\n")).await;
    assert_eq!(client.answer().await.status(), 200);
}

#[tokio::test]
async fn connections_past_the_limit_wait_and_are_served_in_the_end() {
    let gateway = Setup::default().with("[server]\nmax_connections = 2").start().await;
    let request = format!("GET /public/x HTTP/1.1\r\nHost: {}\r\n\r\n", gateway.host());
    let (mut first, mut second) = (gateway.raw().await, gateway.raw().await);
    for client in [&mut first, &mut second] {
        client.send(&request).await;
        assert_eq!(client.answer().await.status(), 200);
    }
    let mut third = gateway.raw().await;
    third.send(&request).await;
    let waiting = tokio::time::timeout(Duration::from_millis(200), third.head()).await;
    assert!(waiting.is_err(), "the third is served beside the two");
    drop(first);
    assert_eq!(third.answer().await.status(), 200);
}

#[tokio::test]
async fn an_upstream_at_its_limit_answers_503() {
    let setup = "[upstreams.app]\nmax_connections = 1\nqueue_timeout = '200ms'";
    let gateway = Setup::default().with(setup).start().await;
    let mut conversations = gateway.upstream().by_hand("/public/slow");
    let mut client = gateway.raw().await;
    client
        .send(format!("GET /public/slow HTTP/1.1\r\nHost: {}\r\n\r\n", gateway.host()))
        .await;
    let mut upstream = conversations.next().await;

    let answer = gateway.get("/public/x").await;
    assert_eq!((answer.status(), answer.code()), (503, "UPSTREAM_BUSY".to_owned()));
    assert!(answer.head.has("retry-after"));

    upstream
        .send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        .await;
    drop(upstream);
    assert_eq!(client.answer().await.status(), 200);
    eventually(SOON, async || gateway.get("/public/x").await.status() == 200).await;
}

#[tokio::test]
async fn upstream_connections_are_used_again() {
    let gateway = Gateway::start().await;
    for _ in 0..10 {
        assert_eq!(gateway.get("/public/x").await.status(), 200);
    }
    assert_eq!(gateway.upstream().connections(), 1);
}

/// Closed at once, the connection would be reset by what the client still sends, and some systems drop the answer then that
/// it has not read yet (RFC 9112, 9.6).
#[tokio::test]
async fn who_still_sends_a_body_that_nobody_wants_is_not_reset() {
    let gateway = Setup::default().with("[server]\nmax_body = '1MiB'").start().await;
    let mut conversations = gateway.upstream().by_hand("/public/early");
    for (path, length, status) in [("/public/x", 4 << 20, 413), ("/public/early", 1 << 20, 401)] {
        let mut client = gateway.raw().await;
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: {}\r\nContent-Length: {length}\r\n\r\n",
            gateway.host()
        );
        client.send(head).await;
        if status == 401 {
            let mut upstream = conversations.next().await;
            upstream
                .send("HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno")
                .await;
        }
        assert_eq!(client.answer().await.status(), status);
        let piece = vec![b'x'; 64 << 10];
        for _ in 0..length / piece.len() {
            let sent = client.stream.write_all(&piece).await;
            sent.unwrap_or_else(|error| panic!("{path}: {error}"));
        }
        client.stream.shutdown().await.unwrap();
        let rest = client.stream.read(&mut [0]).await;
        assert_eq!(rest.unwrap_or_else(|error| panic!("{path}: {error}")), 0);
    }
}
