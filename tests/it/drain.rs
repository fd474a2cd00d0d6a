//! The end of a gateway, seen from connections that it has: who is active goes elsewhere, who has begun is served.

use std::time::Duration;

use tokio::{
    io::AsyncReadExt,
    net::TcpStream,
    time::{Instant, sleep, timeout},
};

use crate::harness::{
    Gateway, RawClient, SOON, Setup, eventually,
    frames::{self, ACK, DATA, Frames, PING},
    upstream::Conversation,
};

async fn ask(gateway_host: &str, client: &mut RawClient, path: &str) {
    client
        .send(format!("GET {path} HTTP/1.1\r\nHost: {gateway_host}\r\n\r\n"))
        .await;
}

/// A tunnel that stands, both of its ends.
async fn tunnel(gateway: &Gateway) -> (RawClient, Conversation) {
    let mut conversations = gateway.upstream().by_hand("/public/ws");
    let mut client = gateway.raw().await;
    let host = gateway.host();
    client
        .send(format!(
            "GET /public/ws HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        ))
        .await;
    let mut upstream = conversations.next().await;
    upstream
        .send(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
        )
        .await;
    assert_eq!(client.head().await.status(), 101);
    (client, upstream)
}

#[tokio::test]
async fn whoever_is_active_during_the_drain_delay_is_asked_to_go_elsewhere() {
    let gateway = Setup::default().with("[server]\ndrain_delay = '10m'").start().await;
    let host = gateway.host().to_owned();
    let mut client = gateway.raw().await;
    ask(&host, &mut client, "/public/x").await;
    assert_eq!(client.answer().await.head.one("connection"), None);
    let admin = gateway.admin();
    let stopping = tokio::spawn(gateway.stop());
    eventually(SOON, async || {
        let mut operator = RawClient::connect(admin).await;
        ask("admin", &mut operator, "/readyz").await;
        operator.answer().await.status() == 503
    })
    .await;
    ask(&host, &mut client, "/public/x").await;
    let last = client.answer().await;
    assert_eq!((last.status(), last.head.one("connection")), (200, Some("close")));
    assert!(client.is_closed().await);
    stopping.abort();
}

#[tokio::test]
async fn a_connection_that_was_just_made_is_still_served() {
    let gateway = Setup::default().with("[server]\nshutdown_grace = '30s'").start().await;
    let (public, host) = (gateway.addr(), gateway.host().to_owned());
    let mut young = gateway.raw().await;
    let stopping = tokio::spawn(gateway.stop());
    eventually(SOON, async || TcpStream::connect(public).await.is_err()).await;
    ask(&host, &mut young, "/public/x").await;
    let answer = young.answer().await;
    assert_eq!((answer.status(), answer.head.one("connection")), (200, Some("close")));
    stopping.await.unwrap();
}

#[tokio::test]
async fn a_tunnel_may_end_by_itself_within_its_grace() {
    let gateway = Setup::default()
        .with("[server]\nshutdown_grace = '10m'\nstream_grace = '5m'")
        .start()
        .await;
    let public = gateway.addr();
    let (mut client, mut upstream) = tunnel(&gateway).await;
    let stopping = tokio::spawn(gateway.stop());
    eventually(SOON, async || TcpStream::connect(public).await.is_err()).await;
    client.send("last words").await;
    let mut words = [0; 10];
    timeout(SOON, upstream.stream.read_exact(&mut words))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&words, b"last words");
    drop((client, upstream));
    let ended = timeout(SOON, stopping)
        .await
        .expect("nothing is left to wait for")
        .unwrap();
    assert_eq!(ended.cut_off, 0);
}

#[tokio::test]
async fn a_tunnel_that_never_ends_does_not_hold_the_gateway_for_the_whole_grace() {
    let gateway = Setup::default()
        .with("[server]\nshutdown_grace = '10m'\nstream_grace = '50ms'")
        .start()
        .await;
    let (mut client, _upstream) = tunnel(&gateway).await;
    let began = Instant::now();
    let ended = timeout(SOON, gateway.stop()).await.expect("it ends");
    assert_eq!(ended.cut_off, 0, "ended in order after {:?}", began.elapsed());
    assert!(client.is_closed().await);
}

/// HTTP/2: it waits in the gateway for the client's window, and its request is over for the rest of it.
#[tokio::test]
async fn the_end_of_an_answer_that_a_client_takes_late_is_still_sent() {
    const LENGTH: usize = 100_000;
    let gateway = Setup::default().with("[server]\nshutdown_grace = '30s'").start().await;
    let answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\n\r\n{}",
        "x".repeat(LENGTH)
    );
    gateway.upstream().answer("/public/late", answer);
    let mut client = Frames::with_window(gateway.addr(), 16 << 10).await;
    client.send(frames::get(1, "/public/late")).await;
    let mut taken = 0;
    while taken < 16 << 10 {
        let frame = client.until(|frame| frame.kind == DATA).await;
        taken += frame.payload.len();
    }
    let stopping = tokio::spawn(gateway.stop());
    // It says that it heard, and takes nothing for longer than somebody has who says nothing.
    let ping = loop {
        let frame = client.next().await.expect("a ping behind the goodbye");
        if frame.kind == PING && frame.flags & ACK == 0 {
            break frame;
        }
    };
    client.send(frames::frame(PING, ACK, 0, &ping.payload)).await;
    sleep(Duration::from_secs(7)).await;
    client
        .send([frames::more_room(0, 200_000), frames::more_room(1, 200_000)].concat())
        .await;
    while taken < LENGTH {
        let frame = client
            .next()
            .await
            .unwrap_or_else(|| panic!("it was cut after {taken} bytes"));
        if frame.kind == DATA {
            taken += frame.payload.len();
        }
    }
    assert_eq!(stopping.await.unwrap().cut_off, 0);
}
