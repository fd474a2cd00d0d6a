//! Endpoints that fail requests get none for a while.

use crate::{
    harness::{Gateway, SOON, Setup, backend::Backend, eventually, upstream::Upstream},
    upgrade::{AGREED, upgrade},
};

async fn gateway(backends: &[&Backend], outliers: &str) -> Gateway {
    let endpoints: Vec<_> = backends.iter().map(|backend| backend.endpoint("http")).collect();
    let more = format!("outliers = {{ {outliers} }}");
    Setup::default().endpoints(&endpoints, &more).start().await
}

#[tokio::test]
async fn an_endpoint_that_fails_is_ejected_and_comes_back() {
    let (good, bad) = (Backend::start("good").await, Backend::start("bad").await);
    bad.status(503);
    let gateway = gateway(&[&good, &bad], "failures = 3, eject_for = '400ms'").await;
    eventually(SOON, async || {
        gateway.get("/public/x").await;
        bad.seen("/public/x") == 3
    })
    .await;
    let ejections = format!(
        "vestibule_upstream_ejections_total{{upstream=\"app\",endpoint=\"{}\"}}",
        bad.endpoint("http")
    );
    assert!((gateway.metric(&ejections).await - 1.0).abs() < 0.5);

    bad.status(200);
    eventually(SOON, async || {
        gateway.get("/public/x").await;
        bad.seen("/public/x") > 3
    })
    .await;
}

#[tokio::test]
async fn while_it_is_ejected_nobody_meets_it() {
    let (good, bad) = (Backend::start("good").await, Backend::start("bad").await);
    bad.status(503);
    let gateway = gateway(&[&good, &bad], "failures = 1, eject_for = '1h'").await;
    eventually(SOON, async || gateway.get("/public/x").await.status() == 503).await;
    for _ in 0..30 {
        assert_eq!(gateway.get("/public/x").await.status(), 200);
    }
    assert_eq!(bad.seen("/public/x"), 1);
}

#[tokio::test]
async fn the_last_ones_stay_whatever_they_do() {
    let (one, two) = (Backend::start("one").await, Backend::start("two").await);
    one.status(503);
    two.status(503);
    let gateway = gateway(&[&one, &two], "failures = 1, eject_for = '1h'").await;
    for _ in 0..20 {
        assert_eq!(
            gateway.get("/public/x").await.status(),
            503,
            "the application's own answer"
        );
    }
    let alone = Backend::start("alone").await;
    alone.status(503);
    let gateway = self::gateway(&[&alone], "failures = 1, eject_for = '1h'").await;
    for _ in 0..5 {
        gateway.get("/public/x").await;
    }
    assert_eq!(alone.seen("/public/x"), 5);
}

#[tokio::test]
async fn errors_of_the_application_eject_nobody() {
    let (one, two) = (Backend::start("one").await, Backend::start("two").await);
    two.status(500);
    let gateway = gateway(&[&one, &two], "failures = 1, eject_for = '1h'").await;
    eventually(SOON, async || {
        gateway.get("/public/x").await;
        two.seen("/public/x") > 3
    })
    .await;
}

#[tokio::test]
async fn a_client_that_breaks_its_body_off_ejects_nobody() {
    let (one, two) = (Backend::start("one").await, Backend::start("two").await);
    let gateway = gateway(&[&one, &two], "failures = 1, eject_for = '1h'").await;
    for _ in 0..5 {
        let mut client = gateway.raw().await;
        let request = format!(
            "POST /public/x HTTP/1.1\r\nHost: {}\r\nTransfer-Encoding: chunked\r\n\r\nno chunk\r\n",
            gateway.host()
        );
        client.send(request).await;
        assert_eq!(client.answer().await.status(), 400);
    }
    for backend in [&one, &two] {
        let failures = format!(
            "vestibule_upstream_failures_total{{upstream=\"app\",endpoint=\"{}\"}}",
            backend.endpoint("http")
        );
        assert!(gateway.metric(&failures).await < 0.5);
    }
}

/// An application that serves sockets, beside an endpoint that can't: all upgrades go to it.
async fn of_sockets(outliers: &str) -> (Gateway, Upstream, String) {
    let (sockets, other) = (Upstream::start().await, Backend::start("other").await);
    let endpoint = format!("http://{}", sockets.addr());
    let more = format!("response_timeout = '300ms'\noutliers = {{ {outliers}, eject_for = '1h' }}");
    let setup = Setup::default().endpoints(&[endpoint.clone(), other.endpoint("h2c")], &more);
    let ejections = format!("vestibule_upstream_ejections_total{{upstream=\"app\",endpoint=\"{endpoint}\"}}");
    (setup.start().await, sockets, ejections)
}

async fn socket(gateway: &Gateway) -> u16 {
    let mut client = gateway.raw().await;
    client.send(upgrade(gateway, "/public/ws", None)).await;
    client.head().await.status()
}

const OVERLOADED: &str = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n";

#[tokio::test]
async fn sockets_that_open_make_up_for_those_that_did_not() {
    let (gateway, sockets, ejections) = of_sockets("failures = 2").await;
    for _ in 0..3 {
        sockets.answer("/public/ws", OVERLOADED);
        assert_eq!(socket(&gateway).await, 503);
        sockets.answer("/public/ws", AGREED);
        assert_eq!(socket(&gateway).await, 101);
    }
    assert!(gateway.metric(&ejections).await < 0.5);
}

#[tokio::test]
async fn an_endpoint_that_opens_no_sockets_is_ejected() {
    let (gateway, sockets, ejections) = of_sockets("failures = 3").await;
    sockets.answer("/public/ws", OVERLOADED);
    assert_eq!(socket(&gateway).await, 503);
    sockets.answer_and_close("/public/ws", "what is this?\r\n\r\n");
    assert_eq!(socket(&gateway).await, 502);
    assert!(gateway.metric(&ejections).await < 0.5);
    let _silent = sockets.by_hand("/public/ws");
    assert_eq!(socket(&gateway).await, 504);
    assert!((gateway.metric(&ejections).await - 1.0).abs() < 0.5);
}
