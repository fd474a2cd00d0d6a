//! What is sent again, where, and what never is.

use crate::harness::{Gateway, Setup, backend::Backend, upstream::Upstream};

async fn gateway(endpoints: &[String]) -> Gateway {
    // Nobody is ejected: each failure is met anew.
    Setup::default()
        .endpoints(endpoints, "outliers = { failures = 0 }")
        .start()
        .await
}

#[tokio::test]
async fn a_read_that_an_endpoint_broke_off_is_sent_to_another() {
    let breaking = Upstream::start().await;
    breaking.answer_and_close("/public/x", "");
    let good = Backend::start("good").await;
    let gateway = gateway(&[format!("http://{}", breaking.addr()), good.endpoint("http")]).await;
    for _ in 0..20 {
        assert_eq!(gateway.get("/public/x").await.text(), "good GET /public/x");
    }
    assert!(breaking.seen("/public/x") > 0, "it was asked as well");
}

#[tokio::test]
async fn a_write_is_sent_once_whoever_breaks_it_off() {
    let breaking = [Upstream::start().await, Upstream::start().await];
    let endpoints: Vec<_> = breaking
        .iter()
        .map(|upstream| format!("http://{}", upstream.addr()))
        .collect();
    for upstream in &breaking {
        upstream.answer_and_close("/public/x", "");
    }
    let gateway = gateway(&endpoints).await;
    for body in ["once", ""] {
        let before: usize = breaking.iter().map(|upstream| upstream.seen("/public/x")).sum();
        assert_eq!(gateway.post("/public/x").body(body).await.status(), 502);
        let after: usize = breaking.iter().map(|upstream| upstream.seen("/public/x")).sum();
        assert_eq!(after - before, 1);
    }
}

#[tokio::test]
async fn a_read_is_sent_once_more_and_not_for_ever() {
    let breaking = [
        Upstream::start().await,
        Upstream::start().await,
        Upstream::start().await,
    ];
    let endpoints: Vec<_> = breaking
        .iter()
        .map(|upstream| format!("http://{}", upstream.addr()))
        .collect();
    for upstream in &breaking {
        upstream.answer_and_close("/public/x", "");
    }
    let gateway = gateway(&endpoints).await;
    assert_eq!(gateway.get("/public/x").await.status(), 502);
    let seen: usize = breaking.iter().map(|upstream| upstream.seen("/public/x")).sum();
    assert_eq!(seen, 2);
}

#[tokio::test]
async fn the_only_endpoint_is_not_asked_again_for_what_broke_it() {
    let breaking = Upstream::start().await;
    breaking.answer_and_close("/public/x", "");
    let gateway = gateway(&[format!("http://{}", breaking.addr())]).await;
    assert_eq!(gateway.get("/public/x").await.status(), 502);
    assert_eq!(breaking.seen("/public/x"), 1, "a fresh connection has no excuse");
}

#[tokio::test]
async fn a_kept_connection_that_was_being_closed_costs_nothing_and_is_replaced_once() {
    let backend = Backend::start("app").await;
    let gateway = gateway(&[backend.endpoint("http")]).await;
    for round in 1..=5 {
        assert_eq!(gateway.get("/public/x").await.status(), 200);
        assert_eq!(backend.connections(), round);
        backend.close_gracefully();
        // The gateway may or may not have noticed.
    }
    assert_eq!(backend.seen("/public/x"), 5);
}

#[tokio::test]
async fn an_answer_that_has_begun_is_never_replaced_by_another() {
    let breaking = Upstream::start().await;
    breaking.answer_and_close("/public/x", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
    let other = Backend::start("other").await;
    let gateway = gateway(&[format!("http://{}", breaking.addr()), other.endpoint("http")]).await;
    let mut broken = 0;
    for _ in 0..20 {
        let before = (breaking.seen("/public/x"), other.seen("/public/x"));
        let mut client = gateway.raw().await;
        let request = format!(
            "GET /public/x HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
            gateway.host()
        );
        client.send(request).await;
        assert_eq!(client.head().await.status(), 200);
        let rest = client.rest().await;
        let after = (breaking.seen("/public/x"), other.seen("/public/x"));
        if after.0 > before.0 {
            broken += 1;
            assert_eq!((rest.as_slice(), after.1), (&b"half"[..], before.1));
        }
    }
    assert!(broken > 0);
}

#[tokio::test]
async fn what_was_answered_in_no_readable_way_is_not_asked_again() {
    let upstream = Upstream::start().await;
    let gateway = gateway(&[format!("http://{}", upstream.addr())]).await;
    for (times, answer) in [
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n",
        "SSH-2.0-OpenSSH_9.2\r\n",
    ]
    .into_iter()
    .enumerate()
    {
        // On a connection that was used before: had it died, it would have an excuse.
        assert_eq!(gateway.get("/public/warm").await.status(), 200);
        upstream.answer_and_close("/public/x", answer);
        assert_eq!(gateway.get("/public/x").await.status(), 502, "{answer}");
        assert_eq!(upstream.seen("/public/x"), times + 1, "{answer}");
    }
}

/// Answers once and then hangs up on whoever uses the connection again, or another: as an application that restarts.
async fn hangs_up(retries: &str) -> (u16, usize) {
    let upstream = Upstream::start().await;
    let gateway = Setup::default()
        .endpoints(&[format!("http://{}", upstream.addr())], "")
        .with(&format!(
            "[[routes]]\npath = '/public/*'\nupstream = 'app'\nauth = 'public'\n{retries}"
        ))
        .start()
        .await;
    assert_eq!(gateway.get("/public/warm").await.status(), 200);
    upstream.answer_and_close("/public/x", "");
    let status = gateway.get("/public/x").await.status();
    (status, upstream.seen("/public/x"))
}

#[tokio::test]
async fn a_route_without_retries_has_a_request_sent_once() {
    assert_eq!(hangs_up("").await, (502, 2), "once more, on a fresh connection");
    assert_eq!(hangs_up("retries = 0").await, (502, 1));
}
