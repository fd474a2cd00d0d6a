//! Endpoints that fail requests get none for a while.

use crate::harness::{Gateway, SOON, Setup, backend::Backend, eventually};

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
