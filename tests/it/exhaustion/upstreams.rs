//! Upstreams that never answer, never end, or say too much: a fault of theirs is nobody else's.

use std::{future::IntoFuture, time::Duration};

use tokio::io::AsyncWriteExt;

use super::{Control, get};
use crate::harness::{Gateway, SOON, Setup, eventually};

const SLOW_IN_FLIGHT: &str = "vestibule_upstream_in_flight{upstream=\"slow\"}";

/// Besides the ordinary upstream another, which is the same application under another name.
async fn with_a_slow_one(more: &str) -> (crate::harness::upstream::Upstream, Gateway) {
    let slow = crate::harness::upstream::Upstream::start().await;
    let setup = format!(
        "
        upstreams = {{ slow = {{ endpoints = ['http://{}'], response_timeout = '1s' }} }}
        routes = [
            {{ path = '/public/*', upstream = 'app', auth = 'public' }},
            {{ path = '/api/*', upstream = 'app' }},
            {{ path = '/slow/*', upstream = 'slow', auth = 'public', retries = 0 }},
        ]
        {more}",
        slow.addr()
    );
    let gateway = Setup::default().with(&setup).start().await;
    (slow, gateway)
}

#[tokio::test]
async fn dos_13_an_upstream_that_never_answers_is_504_for_a_hundred_clients_and_holds_nothing() {
    let (slow, gateway) = with_a_slow_one("").await;
    let control = Control::signed_in(&gateway).await;
    let mut kept = slow.by_hand("/slow/x");
    let calls: Vec<_> = (0..100)
        .map(|_| tokio::spawn(gateway.get("/slow/x").into_future()))
        .collect();
    let mut conversations = Vec::new();
    for _ in 0..100 {
        conversations.push(kept.next().await);
    }
    for call in calls {
        let answer = call.await.unwrap();
        assert_eq!((answer.status(), answer.code().as_str()), (504, "UPSTREAM_TIMEOUT"));
    }
    assert!(control.end().await > 0);
    eventually(SOON, async || gateway.metric(SLOW_IN_FLIGHT).await < 0.5).await;
    // What was asked in vain was let go.
    for mut conversation in conversations {
        let mut byte = [0];
        let read = tokio::time::timeout(SOON, tokio::io::AsyncReadExt::read(&mut conversation.stream, &mut byte)).await;
        assert!(matches!(read.expect("it is closed"), Ok(0) | Err(_)));
    }
    assert_eq!(gateway.get("/slow/other").await.status(), 200);
}

#[tokio::test]
async fn dos_13_an_upstream_that_stalls_half_way_is_given_up_and_holds_nothing() {
    let (slow, gateway) = with_a_slow_one("").await;
    let control = Control::signed_in(&gateway).await;
    slow.answer("/slow/half", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
    let clients = (0..100).map(|_| async {
        let mut client = gateway.raw().await;
        client.send(get("/slow/half")).await;
        assert_eq!(client.head().await.status(), 200);
        assert!(client.rest().await.ends_with(b"half"));
    });
    futures_util::future::join_all(clients).await;
    assert!(control.end().await > 0);
    eventually(SOON, async || gateway.metric(SLOW_IN_FLIGHT).await < 0.5).await;
}

#[tokio::test]
async fn dos_what_an_upstream_says_without_end_is_502() {
    let (slow, gateway) = with_a_slow_one("").await;
    let control = Control::signed_in(&gateway).await;
    let endless: [(&str, Vec<u8>); 4] = [
        // Interim answers, then none that counts.
        (
            "HTTP/1.1 100 Continue\r\n\r\n",
            b"HTTP/1.1 102 Processing\r\n\r\n".repeat(1_000),
        ),
        // Hints with fields.
        (
            "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n",
            b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n".repeat(1_000),
        ),
        // Fields, and one long one.
        ("HTTP/1.1 200 OK\r\n", b"X-Field: x\r\n".repeat(1_000)),
        ("HTTP/1.1 200 OK\r\nX-Long: ", vec![b'x'; 16 << 10]),
    ];
    for (number, (first, then)) in endless.into_iter().enumerate() {
        let path = format!("/slow/{number}");
        let mut kept = slow.by_hand(&path);
        let asking = tokio::spawn(gateway.get(&path).into_future());
        let mut conversation = kept.next().await;
        let mut sent = 0;
        let talking = async {
            let _ = conversation.stream.write_all(first.as_bytes()).await;
            while sent < 64 << 20 && conversation.stream.write_all(&then).await.is_ok() {
                sent += then.len();
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(SOON, talking).await.expect("it is let go");
        let answer = asking.await.unwrap();
        assert_eq!(
            (answer.status(), answer.code().as_str()),
            (502, "UPSTREAM_FAILED"),
            "{number}"
        );
        // What the kernel takes beside.
        assert!(sent < 64 << 20, "{number}: {sent} bytes were taken");
    }
    assert!(control.end().await > 0);
    eventually(SOON, async || gateway.metric(SLOW_IN_FLIGHT).await < 0.5).await;
}

#[tokio::test]
async fn dos_chunks_and_trailers_of_an_upstream_have_bounds() {
    let (slow, gateway) = with_a_slow_one("").await;
    let control = Control::signed_in(&gateway).await;
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n";
    let endless = [
        format!("1;{}\r\nx\r\n0\r\n\r\n", "e".repeat(64 << 10)),
        format!("0\r\nX-Long: {}\r\n\r\n", "x".repeat(64 << 10)),
        format!("0\r\n{}\r\n", "X-Field: x\r\n".repeat(200)),
    ];
    for (number, end) in endless.iter().enumerate() {
        let path = format!("/slow/{number}");
        slow.answer(&path, format!("{head}{end}"));
        let mut client = gateway.raw().await;
        client.send(get(&path)).await;
        assert_eq!(client.head().await.status(), 200);
        let rest = client.rest().await;
        assert!(!rest.ends_with(b"0\r\n\r\n"), "{number}: it breaks off");
    }
    assert!(control.end().await > 0);
    eventually(SOON, async || gateway.metric(SLOW_IN_FLIGHT).await < 0.5).await;
}

/// One upstream's places are its own.
#[tokio::test]
async fn dos_13_a_full_upstream_refuses_and_others_go_on() {
    let (slow, gateway) = with_a_slow_one("").await;
    drop(gateway);
    let setup = format!(
        "
        upstreams = {{ slow = {{ endpoints = ['http://{}'], max_connections = 10, max_queue = 10, queue_timeout = '300ms', response_timeout = '2s' }} }}
        routes = [
            {{ path = '/public/*', upstream = 'app', auth = 'public' }},
            {{ path = '/api/*', upstream = 'app' }},
            {{ path = '/slow/*', upstream = 'slow', auth = 'public', retries = 0 }},
        ]",
        slow.addr()
    );
    let gateway = Setup::default().with(&setup).start().await;
    let control = Control::signed_in(&gateway).await;
    let _kept = slow.by_hand("/slow/x");
    let calls: Vec<_> = (0..200)
        .map(|_| tokio::spawn(gateway.get("/slow/x").into_future()))
        .collect();
    let mut statuses = Vec::new();
    for call in calls {
        statuses.push(call.await.unwrap().status());
    }
    let of = |status: u16| statuses.iter().filter(|found| **found == status).count();
    assert_eq!((of(504), of(503)), (10, 190), "{statuses:?}");
    assert!(control.end().await > 0);
    assert!(slow.connections() <= 20, "{}", slow.connections());
    let refused = gateway
        .metric("vestibule_upstream_refused_total{upstream=\"slow\"}")
        .await;
    assert!(refused >= 180.0, "{refused}");
    eventually(SOON, async || gateway.metric(SLOW_IN_FLIGHT).await < 0.5).await;
    tokio::time::sleep(Duration::from_millis(1)).await;
}
