//! Endpoints are asked how they are, and get requests by what they say.

use crate::harness::{Gateway, SOON, Setup, backend::Backend, eventually};

const CHECK: &str = "health_check = { path = '/up?deep=1', interval = '20ms', timeout = '10s', host = 'app.internal' }";

async fn healthy(gateway: &Gateway, backend: &Backend) -> bool {
    let name = format!(
        "vestibule_upstream_healthy{{upstream=\"app\",endpoint=\"{}\"}}",
        backend.endpoint("http")
    );
    gateway.metric(&name).await > 0.5
}

async fn gateway(backends: &[&Backend]) -> Gateway {
    let endpoints: Vec<_> = backends.iter().map(|backend| backend.endpoint("http")).collect();
    Setup::default().endpoints(&endpoints, CHECK).start().await
}

#[tokio::test]
async fn an_unhealthy_endpoint_gets_nothing_until_it_is_well_again() {
    let (good, bad) = (Backend::start("good").await, Backend::start("bad").await);
    bad.status(500);
    let gateway = gateway(&[&good, &bad]).await;
    eventually(SOON, async || !healthy(&gateway, &bad).await).await;
    for _ in 0..30 {
        assert_eq!(gateway.get("/public/x").await.text(), "good GET /public/x");
    }
    assert_eq!(bad.seen("/public/x"), 0);

    bad.status(200);
    eventually(SOON, async || healthy(&gateway, &bad).await).await;
    eventually(SOON, async || {
        gateway.get("/public/y").await;
        bad.seen("/public/y") > 0
    })
    .await;
}

#[tokio::test]
async fn a_single_bad_answer_of_a_healthy_endpoint_changes_nothing() {
    let backend = Backend::start("app").await;
    let gateway = gateway(&[&backend]).await;
    let asked = backend.seen("/up");
    eventually(SOON, async || backend.seen("/up") > asked + 2).await;
    assert!(healthy(&gateway, &backend).await);
}

#[tokio::test]
async fn when_all_are_unhealthy_requests_are_sent_all_the_same() {
    let (one, two) = (Backend::start("one").await, Backend::start("two").await);
    one.status(404);
    two.status(404);
    let gateway = gateway(&[&one, &two]).await;
    let all_out = "vestibule_upstream_all_out{upstream=\"app\"}";
    eventually(SOON, async || gateway.metric(all_out).await > 0.5).await;
    assert_eq!(
        gateway.get("/public/x").await.status(),
        404,
        "the application's own answer"
    );
    assert_eq!(one.seen("/public/x") + two.seen("/public/x"), 1);
}

#[tokio::test]
async fn the_question_says_who_asks_and_for_which_host() {
    let backend = Backend::start("app").await;
    let _gateway = gateway(&[&backend]).await;
    eventually(SOON, async || backend.seen("/up") > 0).await;
    let asked = &backend.arrived()[0].head;
    assert_eq!(asked.uri, "/up?deep=1");
    assert_eq!(asked.headers["host"], "app.internal");
    assert!(
        asked.headers["user-agent"]
            .to_str()
            .unwrap()
            .starts_with("vestibule-health/")
    );
}

#[tokio::test]
async fn a_gateway_that_stops_asks_no_more() {
    let backend = Backend::start("app").await;
    let gateway = gateway(&[&backend]).await;
    eventually(SOON, async || backend.seen("/up") > 0).await;
    assert_eq!(gateway.stop().await.cut_off, 0, "nothing has to be cut off");
}

#[tokio::test]
async fn an_upstream_that_a_reload_drops_is_asked_no_more() {
    let (dropped, kept) = (Backend::start("dropped").await, Backend::start("kept").await);
    let gateway = gateway(&[&dropped]).await;
    eventually(SOON, async || dropped.seen("/up") > 1).await;
    let endpoints = [kept.endpoint("http")];
    gateway
        .reload(&format!("[upstreams.app]\nendpoints = {endpoints:?}\n{CHECK}"))
        .await
        .unwrap();
    eventually(SOON, async || kept.seen("/up") > 1).await;
    // A question may have been under way; after that there is none, however often the other is asked.
    let (before, turn) = (dropped.seen("/up"), kept.seen("/up"));
    eventually(SOON, async || kept.seen("/up") > turn + 10).await;
    assert!(
        dropped.seen("/up") <= before + 1,
        "{} after {before}",
        dropped.seen("/up")
    );
}
