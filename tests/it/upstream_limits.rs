//! An upstream gets no more requests at once than it may have; who waits for a place waits within bounds.

use std::time::{Duration, Instant};

use crate::harness::{Gateway, SOON, Setup, backend::Backend, client::Response, eventually};

async fn gateway(backend: &Backend, limits: &str) -> Gateway {
    Setup::default()
        .endpoints(&[backend.endpoint("http")], limits)
        .start()
        .await
}

fn busy(answer: &Response) {
    assert_eq!((answer.status(), answer.code()), (503, "UPSTREAM_BUSY".to_owned()));
    assert!(answer.head.has("retry-after"));
}

#[tokio::test]
async fn who_waits_is_served_when_a_place_is_free() {
    let backend = Backend::start("app").await;
    backend.hold();
    let gateway = gateway(&backend, "max_connections = 2\nqueue_timeout = '1h'").await;
    let calls: Vec<_> = (0..6)
        .map(|_| tokio::spawn(gateway.get("/public/x").into_future()))
        .collect();
    let waiting = "vestibule_upstream_waiting{upstream=\"app\"}";
    eventually(SOON, async || gateway.metric(waiting).await > 3.5).await;
    assert!((gateway.metric("vestibule_upstream_in_flight{upstream=\"app\"}").await - 2.0).abs() < 0.5);
    backend.let_go();
    for call in calls {
        assert_eq!(call.await.unwrap().status(), 200);
    }
    assert_eq!(backend.most_at_once(), 2);
    assert!(gateway.metric(waiting).await < 0.5);
}

#[tokio::test]
async fn who_waits_too_long_is_told_so_in_time() {
    let backend = Backend::start("app").await;
    backend.hold();
    let gateway = gateway(&backend, "max_connections = 1\nqueue_timeout = '200ms'").await;
    let first = tokio::spawn(gateway.get("/public/x").into_future());
    eventually(SOON, async || backend.at_once() == 1).await;
    let begun = Instant::now();
    busy(&gateway.get("/public/x").await);
    assert!(begun.elapsed() >= Duration::from_millis(200) && begun.elapsed() < SOON);
    backend.let_go();
    assert_eq!(first.await.unwrap().status(), 200);
    assert_eq!(gateway.get("/public/x").await.status(), 200, "the place is free again");
}

#[tokio::test]
async fn a_full_queue_refuses_at_once() {
    let backend = Backend::start("app").await;
    backend.hold();
    let gateway = gateway(&backend, "max_connections = 1\nqueue_timeout = '1h'\nmax_queue = 0").await;
    let first = tokio::spawn(gateway.get("/public/x").into_future());
    eventually(SOON, async || backend.at_once() == 1).await;
    // It would wait for an hour.
    busy(&gateway.get("/public/x").await);
    assert!(
        (gateway
            .metric("vestibule_upstream_refused_total{upstream=\"app\"}")
            .await
            - 1.0)
            .abs()
            < 0.5
    );
    backend.let_go();
    assert_eq!(first.await.unwrap().status(), 200);
}

#[tokio::test]
async fn who_leaves_while_waiting_leaves_the_queue() {
    let backend = Backend::start("app").await;
    backend.hold();
    let gateway = gateway(&backend, "max_connections = 1\nqueue_timeout = '1h'\nmax_queue = 1").await;
    let first = tokio::spawn(gateway.get("/public/x").into_future());
    eventually(SOON, async || backend.at_once() == 1).await;
    let waiting = "vestibule_upstream_waiting{upstream=\"app\"}";
    let mut leaving = gateway.raw().await;
    leaving
        .send(format!("GET /public/x HTTP/1.1\r\nHost: {}\r\n\r\n", gateway.host()))
        .await;
    eventually(SOON, async || gateway.metric(waiting).await > 0.5).await;
    drop(leaving);
    eventually(SOON, async || gateway.metric(waiting).await < 0.5).await;
    backend.let_go();
    assert_eq!(first.await.unwrap().status(), 200);
    assert_eq!(gateway.get("/public/x").await.status(), 200);
}
