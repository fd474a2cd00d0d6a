//! Several endpoints share the requests, by what each has to do.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use socket2::{Domain, Socket, Type};

use crate::harness::{Gateway, Setup, backend::Backend};

async fn three() -> [Backend; 3] {
    [
        Backend::start("one").await,
        Backend::start("two").await,
        Backend::start("three").await,
    ]
}

fn endpoints(backends: &[Backend]) -> Vec<String> {
    backends.iter().map(|backend| backend.endpoint("http")).collect()
}

/// So many requests, a few at a time; how many succeeded.
async fn ask(gateway: &Gateway, times: usize) -> usize {
    let mut good = 0;
    for _ in 0..times / 10 {
        let mut calls = Vec::new();
        for _ in 0..10 {
            calls.push(tokio::spawn(gateway.get("/public/x").into_future()));
        }
        for call in calls {
            good += usize::from(call.await.unwrap().status() == 200);
        }
    }
    good
}

#[tokio::test]
async fn equals_share_the_requests() {
    let backends = three().await;
    let gateway = Setup::default().endpoints(&endpoints(&backends), "").start().await;
    assert_eq!(ask(&gateway, 150).await, 150);
    let seen: Vec<_> = backends.iter().map(|backend| backend.seen("/public/x")).collect();
    assert_eq!(seen.iter().sum::<usize>(), 150);
    assert!(seen.iter().all(|seen| (20..90).contains(seen)), "{seen:?}");
}

#[tokio::test]
async fn a_slow_endpoint_gets_less() {
    let backends = three().await;
    backends[1].takes(Duration::from_millis(150));
    let gateway = Setup::default().endpoints(&endpoints(&backends), "").start().await;
    // Everybody asks again at once: the slow one is always busy with some.
    let mut callers = Vec::new();
    for _ in 0..8 {
        let calls: Vec<_> = (0..12).map(|_| gateway.get("/public/x").into_future()).collect();
        callers.push(tokio::spawn(async move {
            for call in calls {
                assert_eq!(call.await.status(), 200);
            }
        }));
    }
    for caller in callers {
        caller.await.unwrap();
    }
    let [one, slow, three] = [0, 1, 2].map(|at: usize| backends[at].seen("/public/x"));
    assert!(slow * 2 < one.min(three), "{one} {slow} {three}");
}

#[tokio::test]
async fn a_dead_endpoint_of_three_costs_no_request() {
    let (one, two) = (Backend::start("one").await, Backend::start("two").await);
    // Nobody listens there, and nobody else will.
    let dead = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    dead.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
    let nowhere = format!("http://{}", dead.local_addr().unwrap().as_socket().unwrap());
    let endpoints = [one.endpoint("http"), two.endpoint("http"), nowhere.clone()];
    let gateway = Setup::default().endpoints(&endpoints, "").start().await;
    assert_eq!(ask(&gateway, 100).await, 100);
    let ejections = format!("vestibule_upstream_ejections_total{{upstream=\"app\",endpoint=\"{nowhere}\"}}");
    assert!(
        gateway.metric(&ejections).await >= 1.0,
        "it is not asked again and again"
    );
    assert!(
        gateway
            .metric("vestibule_upstream_retries_total{upstream=\"app\"}")
            .await
            >= 5.0
    );
}
