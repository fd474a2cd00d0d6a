//! Bodies stream: nothing is collected, and whoever is slow slows the other side down.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use crate::harness::{Gateway, SOON, wire::read_chunk};

/// More than all socket buffers between two ends of a test hold together.
const MUCH: usize = 256 << 20;

/// What may be on its way while nobody reads: kernel buffers of four sockets, and the gateway's own.
const UNDER_WAY: usize = 64 << 20;

#[tokio::test]
async fn a_response_arrives_piece_by_piece() {
    let gateway = Gateway::start().await;
    let mut conversations = gateway.upstream().by_hand("/public/events");
    let mut client = gateway.raw().await;
    client
        .send(format!(
            "GET /public/events HTTP/1.1\r\nHost: {}\r\n\r\n",
            gateway.host()
        ))
        .await;
    let mut upstream = conversations.next().await;
    upstream
        .send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        .await;
    assert_eq!(
        client.head().await.status(),
        200,
        "the head comes before the first event"
    );
    for event in ["data: 1\n\n", "data: 2\n\n"] {
        upstream.send(format!("{:x}\r\n{event}\r\n", event.len())).await;
        let mut piece = Vec::new();
        timeout(SOON, read_chunk(&mut client.stream, &mut piece))
            .await
            .expect("the event comes at once")
            .unwrap();
        assert_eq!(piece, event.as_bytes());
    }
}

#[tokio::test]
async fn a_request_body_arrives_piece_by_piece() {
    let gateway = Gateway::start().await;
    let mut conversations = gateway.upstream().by_hand("/public/upload");
    let mut client = gateway.raw().await;
    let host = gateway.host();
    client
        .send(format!(
            "POST /public/upload HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n"
        ))
        .await;
    client.send("5\r\nhello\r\n").await;
    let mut upstream = conversations.next().await;
    let mut piece = Vec::new();
    timeout(SOON, read_chunk(&mut upstream.stream, &mut piece))
        .await
        .expect("the piece comes at once")
        .unwrap();
    assert_eq!(piece, b"hello");
    client.send("0\r\n\r\n").await;
    assert_eq!(
        timeout(SOON, read_chunk(&mut upstream.stream, &mut piece))
            .await
            .unwrap()
            .unwrap(),
        0
    );
    upstream.send("HTTP/1.1 204 No Content\r\n\r\n").await;
    assert_eq!(client.answer().await.status(), 204);
}

#[tokio::test]
async fn a_client_that_does_not_read_stops_the_upstream() {
    let gateway = Gateway::start().await;
    let mut conversations = gateway.upstream().by_hand("/public/much");
    let mut client = gateway.raw().await;
    client
        .send(format!("GET /public/much HTTP/1.1\r\nHost: {}\r\n\r\n", gateway.host()))
        .await;
    let mut upstream = conversations.next().await;
    upstream
        .send(format!("HTTP/1.1 200 OK\r\nContent-Length: {MUCH}\r\n\r\n"))
        .await;

    let written = write_until_stuck(&mut upstream.stream, MUCH).await;

    assert!(
        written < UNDER_WAY,
        "the gateway took {written} bytes that nobody reads"
    );
    // And once the client reads, all of it arrives.
    assert_eq!(client.head().await.status(), 200);
    let rest = tokio::spawn(async move {
        let piece = vec![b'x'; 1 << 20];
        let mut missing = MUCH - written;
        while missing > 0 {
            let count = upstream.stream.write(&piece[..missing.min(piece.len())]).await.unwrap();
            missing -= count;
        }
        upstream.stream.flush().await.unwrap();
        upstream
    });
    let mut piece = vec![0; 1 << 20];
    let mut received = 0;
    while received < MUCH {
        let count = timeout(SOON, client.stream.read(&mut piece)).await.unwrap().unwrap();
        assert_ne!(count, 0, "the response breaks off after {received} bytes");
        received += count;
    }
    drop(rest.await.unwrap());
}

#[tokio::test]
async fn an_upstream_that_does_not_read_stops_the_client() {
    let gateway = Gateway::start().await;
    let mut conversations = gateway.upstream().by_hand("/public/much");
    let mut client = gateway.raw().await;
    let length = 90 << 20;
    let host = gateway.host();
    client
        .send(format!(
            "POST /public/much HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\n\r\n"
        ))
        .await;
    let _upstream = conversations.next().await;
    let written = write_until_stuck(&mut client.stream, length).await;
    assert!(
        written < UNDER_WAY,
        "the gateway took {written} bytes that nobody reads"
    );
}

#[tokio::test]
async fn a_client_that_leaves_ends_its_request_at_the_upstream() {
    let gateway = Gateway::start().await;
    let mut conversations = gateway.upstream().by_hand("/public/slow");
    let mut client = gateway.raw().await;
    client
        .send(format!("GET /public/slow HTTP/1.1\r\nHost: {}\r\n\r\n", gateway.host()))
        .await;
    let mut upstream = conversations.next().await;
    drop(client);
    let mut rest = Vec::new();
    let ended = timeout(SOON, upstream.stream.read_to_end(&mut rest)).await;
    assert!(
        ended.is_ok(),
        "the gateway keeps the connection of a request that nobody waits for"
    );
}

/// Writes as long as the other side takes it within half a second; says how many bytes that were.
async fn write_until_stuck(stream: &mut (impl AsyncWriteExt + Unpin), at_most: usize) -> usize {
    let piece = vec![b'x'; 1 << 16];
    let mut written = 0;
    while written < at_most {
        match timeout(Duration::from_millis(500), stream.write(&piece)).await {
            Ok(count) => written += count.expect("the connection stands"),
            Err(_) => return written,
        }
    }
    written
}

#[tokio::test]
async fn a_body_of_unknown_length_reaches_the_upstream_whatever_the_method() {
    let gateway = Gateway::start().await;
    let host = gateway.host();
    for method in ["GET", "DELETE", "OPTIONS", "POST"] {
        let mut client = gateway.raw().await;
        client
            .send(format!(
                "{method} /public/search HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n\
                 5\r\nhello\r\n0\r\n\r\n"
            ))
            .await;
        assert_eq!(client.answer_to(method).await.status(), 200, "{method}");
        let seen = gateway.upstream().last();
        assert_eq!((seen.head.method(), &seen.body[..]), (method, &b"hello"[..]));
    }
}
