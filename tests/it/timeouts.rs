//! Everybody who makes the gateway wait has an end.

use std::time::{Duration, Instant};

use tokio::{io::AsyncReadExt, time::timeout};

use crate::harness::{Gateway, RawClient, SOON, Setup, eventually};

#[tokio::test]
async fn dos_01_a_head_that_never_ends_is_not_waited_for() {
    let gateway = Setup::default()
        .with("[server]\nheader_timeout = '300ms'")
        .start()
        .await;
    let begin = Instant::now();
    let mut client = gateway.raw().await;
    client.send("GET /public/x HTTP/1.1\r\nHost: app.exa").await;
    let rest = client.rest().await;
    assert!(begin.elapsed() < Duration::from_secs(5));
    assert!(
        rest.is_empty() || rest.starts_with(b"HTTP/1.1 408"),
        "{}",
        String::from_utf8_lossy(&rest)
    );
    assert_eq!(gateway.get("/public/x").await.status(), 200, "others are served");
}

#[tokio::test]
async fn a_connection_without_a_first_byte_is_closed() {
    let gateway = Setup::default()
        .with("[server]\nheader_timeout = '300ms'\nidle_timeout = '300ms'")
        .start()
        .await;
    let mut client = gateway.raw().await;
    assert!(client.is_closed().await);
}

#[tokio::test]
async fn an_idle_connection_is_closed() {
    let gateway = Setup::default().with("[server]\nidle_timeout = '300ms'").start().await;
    let mut client = gateway.raw().await;
    client
        .send(format!("GET /public/x HTTP/1.1\r\nHost: {}\r\n\r\n", gateway.host()))
        .await;
    assert_eq!(client.answer().await.status(), 200);
    assert!(client.is_closed().await);
}

#[tokio::test]
async fn dos_02_a_body_that_stands_still_is_408() {
    let gateway = Setup::default().with("[server]\nbody_timeout = '300ms'").start().await;
    for path in ["/public/x", "/api/auth/sign-in/email"] {
        let mut client = gateway.raw().await;
        let host = gateway.host();
        client
            .send(format!(
                "POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{{"
            ))
            .await;
        let answer = client.answer().await;
        assert_eq!(
            (answer.status(), answer.code()),
            (408, "BODY_TIMEOUT".to_owned()),
            "{path}"
        );
    }
}

#[tokio::test]
async fn dos_13_an_upstream_that_never_answers_is_504() {
    let gateway = Setup::default()
        .with("[upstreams.app]\nresponse_timeout = '300ms'")
        .start()
        .await;
    let mut conversations = gateway.upstream().by_hand("/public/silent");
    let answer = gateway.get("/public/silent").await;
    assert_eq!((answer.status(), answer.code()), (504, "UPSTREAM_TIMEOUT".to_owned()));
    let _upstream = conversations.next().await;
    assert_eq!(gateway.get("/public/x").await.status(), 200, "others are served");
}

#[tokio::test]
async fn a_route_may_wait_longer() {
    let setup = "
        upstreams = { app = { response_timeout = '200ms' } }
        routes = [{ path = '/report', upstream = 'app', auth = 'public', timeout = '20s' }]";
    let gateway = Setup::default().with(setup).start().await;
    let mut conversations = gateway.upstream().by_hand("/report");
    let asking = tokio::spawn(gateway.get("/report").into_future());
    let mut upstream = conversations.next().await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(asking.await.unwrap().status(), 200);
}

#[tokio::test]
async fn dos_13_an_upstream_that_stops_half_way_is_not_waited_for() {
    let setup = "[upstreams.app]\nresponse_timeout = '300ms'";
    let gateway = Setup::default().with(setup).start().await;
    let mut conversations = gateway.upstream().by_hand("/public/half");
    let mut client = gateway.raw().await;
    client
        .send(format!("GET /public/half HTTP/1.1\r\nHost: {}\r\n\r\n", gateway.host()))
        .await;
    let mut upstream = conversations.next().await;
    upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf").await;
    assert!(
        client.rest().await.ends_with(b"half"),
        "it breaks off, and does not look whole"
    );
    eventually(SOON, async || gateway.log().contains("\"error\":\"UPSTREAM_TIMEOUT\"")).await;
}

/// More than all buffers on the way hold.
const MUCH: usize = 64 << 20;

/// A client that is answered with so much, and has read the head.
async fn answered_much(setup: &str) -> (Gateway, RawClient) {
    let gateway = Setup::default().with(setup).start().await;
    let mut answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {MUCH}\r\n\r\n").into_bytes();
    answer.resize(answer.len() + MUCH, b'x');
    gateway.upstream().answer("/public/much", answer);
    let mut client = gateway.raw().await;
    client
        .send(format!("GET /public/much HTTP/1.1\r\nHost: {}\r\n\r\n", gateway.host()))
        .await;
    client.head().await;
    (gateway, client)
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_not_waited_for() {
    let setup = "[server]\nbody_timeout = '300ms'\nheader_timeout = '300ms'";
    let (gateway, mut client) = answered_much(setup).await;
    eventually(SOON, async || gateway.log().contains("\"error\":\"CLIENT_LEFT\"")).await;
    assert!(client.rest().await.len() < MUCH);
}

/// Each time a little, just before its time is over: it would hold a connection to the upstream for ever.
#[tokio::test]
async fn dos_13_a_client_that_takes_an_answer_by_drops_is_not_waited_for() {
    let setup = "[server]\nbody_timeout = '1s'\nmin_body_rate = '1MiB'";
    let (gateway, mut client) = answered_much(setup).await;
    let drops = async {
        let mut taken = 0;
        let mut drop = vec![0; 128 * 1024];
        loop {
            match client.stream.read(&mut drop).await {
                Ok(0) | Err(_) => return taken,
                Ok(count) => taken += count,
            }
            // Often enough for `body_timeout`.
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    };
    let taken = timeout(SOON * 2, drops).await.expect("it is given up");
    assert!(taken < MUCH);
    eventually(SOON, async || gateway.log().contains("\"error\":\"CLIENT_LEFT\"")).await;
}

#[tokio::test]
async fn a_head_that_dawdles_on_a_used_connection_is_not_waited_for() {
    let setup = "[server]\nheader_timeout = '300ms'\nidle_timeout = '1h'";
    let gateway = Setup::default().with(setup).start().await;
    let mut client = gateway.raw().await;
    client
        .send(format!("GET /public/x HTTP/1.1\r\nHost: {}\r\n\r\n", gateway.host()))
        .await;
    assert_eq!(client.answer().await.status(), 200);
    client.send("GET /public/x HTTP/1.1\r\n").await;
    assert!(client.is_closed().await);
}

#[tokio::test]
async fn who_leaves_before_the_answer_has_a_line_in_the_log() {
    let gateway = Gateway::start().await;
    let mut conversations = gateway.upstream().by_hand("/public/slow");
    let mut client = gateway.raw().await;
    client
        .send(format!("GET /public/slow HTTP/1.1\r\nHost: {}\r\n\r\n", gateway.host()))
        .await;
    let _upstream = conversations.next().await;
    drop(client);
    eventually(SOON, async || gateway.log().contains("\"status\":499")).await;
}

#[tokio::test]
async fn what_the_gateway_cuts_off_when_it_stops_is_not_the_clients_doing() {
    let setup = Setup::default().with("[server]\nshutdown_grace = '100ms'");
    let gateway = setup.start().await;
    let (mut slow, mut half) = (
        gateway.upstream().by_hand("/public/slow"),
        gateway.upstream().by_hand("/public/half"),
    );
    let (mut one, mut other) = (gateway.raw().await, gateway.raw().await);
    for (client, path) in [(&mut one, "/public/slow"), (&mut other, "/public/half")] {
        let host = gateway.host();
        client
            .send(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"))
            .await;
    }
    let (_slow, mut half) = (slow.next().await, half.next().await);
    half.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfirst").await;
    assert_eq!(other.head().await.status(), 200);
    let log = gateway.last_words().await;
    for (path, status) in [("/public/slow", 503), ("/public/half", 200)] {
        let line = log.lines().find(|line| line.contains(path)).expect("its line");
        assert!(line.contains(&format!("\"status\":{status}")), "{line}");
        assert!(
            line.contains("\"error\":\"SERVICE_UNAVAILABLE\",\"error_side\":\"gateway\""),
            "{line}"
        );
    }
}

#[tokio::test]
async fn an_answer_of_unknown_length_that_ended_well_is_no_broken_one() {
    let gateway = Gateway::start().await;
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
    gateway.upstream().answer("/public/chunked", chunked);
    assert_eq!(gateway.get("/public/chunked").await.text(), "ok");
    eventually(SOON, async || gateway.log().contains("/public/chunked")).await;
    assert!(!gateway.log().contains("CLIENT_LEFT"));
}
