//! Applications that are away, break off, or answer what is no answer.

use crate::harness::{Gateway, SOON, eventually};

#[tokio::test]
async fn expose_03_an_upstream_that_is_away_is_502_and_says_nothing_of_where_it_is() {
    let gateway = Gateway::start().await;
    gateway.upstream().stop_listening();
    // The listener closes when its task notices.
    eventually(SOON, async || gateway.get("/public/x").await.status() == 502).await;
    let answer = gateway.get("/public/x").await;
    assert_eq!(answer.code(), "UPSTREAM_UNREACHABLE");
    let port = gateway.upstream().addr().port().to_string();
    assert!(
        !answer.text().contains(&port) && !answer.text().contains("127.0.0.1"),
        "{}",
        answer.text()
    );
}

#[tokio::test]
async fn an_answer_that_breaks_off_in_its_head_is_502() {
    let gateway = Gateway::start().await;
    for bytes in [
        "",
        "HTTP/1.1 200 OK\r\nContent-Le",
        "nonsense\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
    ] {
        gateway.upstream().answer_and_close("/public/x", bytes);
        let answer = gateway.get("/public/x").await;
        assert_eq!(
            (answer.status(), answer.code()),
            (502, "UPSTREAM_FAILED".to_owned()),
            "{bytes:?}"
        );
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_in_its_body_breaks_off_for_the_client() {
    let gateway = Gateway::start().await;
    gateway
        .upstream()
        .answer_and_close("/public/x", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
    let mut client = gateway.raw().await;
    client
        .send(format!("GET /public/x HTTP/1.1\r\nHost: {}\r\n\r\n", gateway.host()))
        .await;
    assert_eq!(client.head().await.status(), 200);
    assert_eq!(client.rest().await, b"half", "never an answer that looks whole");
}

#[tokio::test]
async fn a_kept_connection_that_died_costs_a_client_nothing() {
    let gateway = Gateway::start().await;
    for round in 0..5 {
        // Says keep-alive and closes: the next request may find the connection dead.
        gateway
            .upstream()
            .answer_and_close("/public/x", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        assert_eq!(gateway.get("/public/x").await.status(), 200, "round {round}");
    }
    assert_eq!(gateway.get("/public/y").await.status(), 200);
}

#[tokio::test]
async fn a_write_is_never_sent_twice() {
    let gateway = Gateway::start().await;
    gateway.upstream().answer_and_close("/public/x", "");
    assert_eq!(gateway.post("/public/x").body("once").await.status(), 502);
    assert_eq!(gateway.upstream().seen("/public/x"), 1);
}

#[tokio::test]
async fn headers_of_an_answer_pass_and_its_status_too() {
    let gateway = Gateway::start().await;
    let bytes =
        "HTTP/1.1 418 I'm a teapot\r\nContent-Length: 3\r\nX-App: 1\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n\r\ntea";
    gateway.upstream().answer("/public/x", bytes);
    let answer = gateway.get("/public/x").await;
    assert_eq!((answer.status(), answer.text()), (418, "tea"));
    assert_eq!(answer.head.all("set-cookie"), ["a=1", "b=2"]);
    assert_eq!(answer.head.one("x-app"), Some("1"));
}
