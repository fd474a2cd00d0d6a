//! `Expect: 100-continue`: a client is asked for its body only once somebody wants it.

use crate::harness::{Gateway, Setup};

fn upload(gateway: &Gateway, path: &str, length: usize) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nHost: {}\r\nExpect: 100-continue\r\nContent-Length: {length}\r\n\r\n",
        gateway.host()
    )
}

#[tokio::test]
async fn the_body_is_asked_for_when_the_upstream_has_the_head() {
    let gateway = Gateway::start().await;
    let mut conversations = gateway.upstream().by_hand("/public/x");
    let mut client = gateway.raw().await;
    client.send(upload(&gateway, "/public/x", 5)).await;
    let mut upstream = conversations.next().await;
    assert!(!upstream.head.has("expect"), "the gateway itself waits for the body");
    assert_eq!(client.head().await.status(), 100);
    client.send("hello").await;
    let mut body = [0; 5];
    tokio::io::AsyncReadExt::read_exact(&mut upstream.stream, &mut body)
        .await
        .unwrap();
    assert_eq!(&body, b"hello");
    upstream.send("HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(client.answer_to("POST").await.status(), 201);
}

#[tokio::test]
async fn a_stranger_is_refused_without_being_asked_for_the_body() {
    let gateway = Gateway::start().await;
    let mut client = gateway.raw().await;
    client.send(upload(&gateway, "/api/x", 5)).await;
    assert_eq!(client.head().await.status(), 401);
}

#[tokio::test]
async fn too_large_a_body_is_refused_without_being_asked_for() {
    let gateway = Setup::default().with("[server]\nmax_body = \"1KiB\"").start().await;
    let mut client = gateway.raw().await;
    client.send(upload(&gateway, "/public/x", 2000)).await;
    assert_eq!(client.head().await.status(), 413);
    assert_eq!(gateway.upstream().connections(), 0);
}

#[tokio::test]
async fn an_upstream_that_is_not_there_is_told_without_asking_for_the_body() {
    let gateway = Gateway::start().await;
    gateway.upstream().stop_listening();
    let mut client = gateway.raw().await;
    client.send(upload(&gateway, "/public/x", 5)).await;
    assert_eq!(client.head().await.status(), 502);
}

/// Another request could be taken for the body that never came, or the body for a request, by whoever stands in between.
#[tokio::test]
async fn behind_an_answer_that_wanted_no_body_the_connection_ends() {
    let routes = "[[routes]]\npath = '/fixed'\nauth = 'public'\nrespond = { body = 'hello' }\n\
                  [[routes]]\npath = '/moved'\nauth = 'public'\nredirect = { to = '/fixed' }\n";
    let gateway = Setup::default().with(routes).start().await;
    for (path, status) in [("/fixed", 200), ("/moved", 308)] {
        let mut client = gateway.raw().await;
        client.send(upload(&gateway, path, 5)).await;
        let answer = client.answer_to("POST").await;
        assert_eq!(
            (answer.status(), answer.head.one("connection")),
            (status, Some("close")),
            "{path}"
        );
        assert!(client.is_closed().await, "{path}");
    }
    // A body that came is read, and the connection goes on.
    let mut client = gateway.raw().await;
    let host = gateway.host();
    client
        .send(format!(
            "POST /fixed HTTP/1.1\r\nHost: {host}\r\nContent-Length: 5\r\n\r\n"
        ))
        .await;
    client
        .send(format!("helloGET /fixed HTTP/1.1\r\nHost: {host}\r\n\r\n"))
        .await;
    for _ in 0..2 {
        let answer = client.answer_to("POST").await;
        assert_eq!((answer.status(), answer.head.has("connection")), (200, false));
    }
}
