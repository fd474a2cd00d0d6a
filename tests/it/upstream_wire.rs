//! HTTP/1.1 between the gateway and an application that is slow, early, or says more than it was asked.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use crate::harness::{Gateway, SOON};

/// More than what may be on its way while nobody reads.
const MUCH: usize = 80 << 20;

#[tokio::test]
async fn what_an_upstream_says_unasked_is_nobodys_answer() {
    let poison = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison";
    for asked in [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 204 No Content\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 99\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    ] {
        let gateway = Gateway::start().await;
        gateway.upstream().answer("/public/x", format!("{asked}{poison}"));
        for _ in 0..3 {
            let answer = gateway.get("/public/x").await;
            assert!(
                answer.status() < 300 && answer.text() != "poison",
                "{asked}: {answer:?}"
            );
            assert_eq!(gateway.get("/public/y").await.text(), "GET /public/y", "{asked}");
        }
    }
}

#[tokio::test]
async fn what_comes_on_an_idle_connection_is_nobodys_answer() {
    let gateway = Gateway::start().await;
    let mut conversations = gateway.upstream().by_hand("/public/x");
    let mut client = gateway.raw().await;
    let request = format!("GET /public/x HTTP/1.1\r\nHost: {}\r\n\r\n", gateway.host());
    client.send(&request).await;
    let mut upstream = conversations.next().await;
    upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    assert_eq!(client.answer().await.text(), "ok");
    upstream
        .send("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison")
        .await;
    for _ in 0..3 {
        assert_eq!(gateway.get("/public/y").await.text(), "GET /public/y");
    }
}

#[tokio::test]
async fn an_answer_to_head_leaves_the_connection_as_it_was() {
    let gateway = Gateway::start().await;
    gateway
        .upstream()
        .answer("/public/x", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n");
    let mut client = gateway.raw().await;
    for _ in 0..3 {
        let answer = client.ask("HEAD", "/public/x", gateway.host()).await;
        assert_eq!((answer.status(), answer.head.one("content-length")), (200, Some("100")));
    }
    assert_eq!(gateway.get("/public/y").await.text(), "GET /public/y");
}

#[tokio::test]
async fn a_length_that_an_upstream_says_twice_is_said_once() {
    let gateway = Gateway::start().await;
    for lengths in ["2, 2", "2\r\nContent-Length: 2"] {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {lengths}\r\n\r\n");
        for (method, answer) in [("GET", format!("{head}ok")), ("HEAD", head)] {
            gateway.upstream().answer("/public/x", answer);
            let mut client = gateway.raw().await;
            for _ in 0..2 {
                let answer = client.ask(method, "/public/x", gateway.host()).await;
                assert_eq!(
                    (answer.status(), answer.head.all("content-length")),
                    (200, vec!["2"]),
                    "{method} {lengths}"
                );
            }
        }
    }
}

#[tokio::test]
async fn an_answer_without_content_that_says_how_long_it_is_ends_its_connection() {
    let gateway = Gateway::start().await;
    for (field, kept) in [
        ("X-Any: 1", true),
        ("Content-Length: 0", true),
        ("Content-Length: 5", false),
        ("Transfer-Encoding: chunked", false),
    ] {
        gateway
            .upstream()
            .answer("/public/x", format!("HTTP/1.1 204 No Content\r\n{field}\r\n\r\n"));
        let answer = gateway.get("/public/x").await;
        assert_eq!(
            (answer.status(), answer.head.has("content-length")),
            (204, false),
            "{field}"
        );
        let before = gateway.upstream().connections();
        assert_eq!(gateway.get("/public/y").await.text(), "GET /public/y", "{field}");
        let after = gateway.upstream().connections();
        assert_eq!(after == before, kept, "{field}");
    }
}

#[tokio::test]
async fn a_refusal_comes_through_while_the_body_is_still_being_sent() {
    let gateway = Gateway::start().await;
    let mut conversations = gateway.upstream().by_hand("/public/x");
    let mut client = gateway.raw().await;
    let host = gateway.host();
    client
        .send(format!(
            "POST /public/x HTTP/1.1\r\nHost: {host}\r\nContent-Length: {MUCH}\r\n\r\nsome"
        ))
        .await;
    let mut upstream = conversations.next().await;
    upstream
        .send("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")
        .await;
    let answer = client.answer().await;
    assert_eq!((answer.status(), answer.text()), (403, "no"));
}

#[tokio::test]
async fn an_early_answer_does_not_end_the_upload() {
    let gateway = Gateway::start().await;
    let mut conversations = gateway.upstream().by_hand("/public/x");
    let mut client = gateway.raw().await;
    let host = gateway.host();
    client
        .send(format!(
            "POST /public/x HTTP/1.1\r\nHost: {host}\r\nContent-Length: {MUCH}\r\n\r\n"
        ))
        .await;
    let mut upstream = conversations.next().await;
    upstream
        .send(format!("HTTP/1.1 200 OK\r\nContent-Length: {MUCH}\r\n\r\n"))
        .await;
    // More than the client will take while it sends.
    let (mut reading, mut writing) = tokio::io::split(upstream.stream);
    let answering = tokio::spawn(async move {
        writing.write_all(&vec![b'a'; MUCH]).await.unwrap();
        writing.flush().await.unwrap();
        writing
    });
    let taking = tokio::spawn(async move { take(&mut reading, MUCH).await });

    let body = vec![b'q'; MUCH];
    let sending = client.stream.write_all(&body);
    timeout(6 * SOON, sending).await.expect("all of it is taken").unwrap();

    timeout(SOON, taking).await.expect("all of it arrives").unwrap();
    assert_eq!(client.head().await.status(), 200);
    take(&mut client.stream, MUCH).await;
    drop(answering.await.unwrap());
}

async fn take(stream: &mut (impl AsyncReadExt + Unpin), length: usize) {
    let mut piece = vec![0; 1 << 20];
    let mut taken = 0;
    while taken < length {
        let reading = timeout(Duration::from_secs(30), stream.read(&mut piece));
        let count = reading.await.expect("it goes on").unwrap();
        assert_ne!(count, 0, "it ends after {taken} bytes");
        taken += count;
    }
}
