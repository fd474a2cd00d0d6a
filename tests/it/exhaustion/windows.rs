//! HTTP/2: windows that stay shut, on either side.

use std::time::Duration;

use super::{
    Control,
    frames::{self, DATA, Frames, HEADERS},
};
use crate::harness::{Gateway, SOON, Setup, eventually};

const IN_FLIGHT: &str = "vestibule_upstream_in_flight{upstream=\"app\"}";

/// As much of a stream's body as it has room for.
const STREAM_WINDOW: usize = 512 << 10;

fn body(stream: u32, length: usize) -> Vec<u8> {
    let piece = frames::frame(DATA, 0, stream, &[b'x'; 16 << 10]);
    piece.repeat(length / (16 << 10))
}

/// A pair of uploads that their applications don't read take all the room for bodies that the connection has.
#[tokio::test]
async fn two_uploads_that_nobody_reads_stop_no_request_and_end_in_time() {
    let setup = "[upstreams.app]\nresponse_timeout = '2s'";
    let gateway = Setup::default().with(setup).start().await;
    let mut kept = gateway.upstream().by_hand("/public/unread");
    let mut client = Frames::connect(gateway.addr()).await;
    for stream in [1, 3] {
        client.send(frames::post(stream, "/public/unread")).await;
    }
    let unread = [kept.next().await, kept.next().await];
    for stream in [1, 3] {
        client.send(body(stream, STREAM_WINDOW)).await;
    }
    // What has no body gets on.
    client.send(frames::get(5, "/public/x")).await;
    client.answered(5).await;
    // One that has a body waits for room, at most until the gateway has given up the others; it has the same time itself.
    tokio::time::sleep(Duration::from_secs(1)).await;
    client.send(frames::post(7, "/public/x")).await;
    for stream in [1, 3] {
        client
            .until(|frame| (frame.kind, frame.stream) == (HEADERS, stream))
            .await;
    }
    drop(unread);
    client.send(body(7, 64 << 10)).await;
    client.send(frames::frame(DATA, frames::END_STREAM, 7, &[])).await;
    client.answered(7).await;
    assert_eq!(gateway.upstream().last().body.len(), 64 << 10);
    eventually(SOON, async || gateway.metric(IN_FLIGHT).await < 0.5).await;
}

#[tokio::test]
async fn dos_answers_that_nobody_takes_are_given_up_and_nobody_else_waits() {
    let gateway = Setup::default().with("[server]\nbody_timeout = '1s'").start().await;
    let large = "HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n".to_owned() + &"x".repeat(1_000_000);
    gateway.upstream().answer("/public/large", large);
    let mut clients = Vec::new();
    // With no room at all, and with room for a byte.
    for window in [0, 0, 0, 1, 1] {
        let mut client = Frames::with_window(gateway.addr(), window).await;
        let asked: Vec<u8> = (0..90)
            .flat_map(|number| frames::get(1 + 2 * number, "/public/large"))
            .collect();
        client.send(asked).await;
        clients.push(client);
    }
    let control = Control::signed_in(&gateway).await;
    eventually(2 * SOON, async || gateway.metric(IN_FLIGHT).await < 1.5).await;
    assert!(control.end().await > 0);
    let given_up = super::reached(&gateway, "server.body_timeout").await;
    assert!(given_up >= 100.0, "{given_up}");
    drop(clients);
}

#[tokio::test]
async fn dos_02_bodies_that_trickle_are_408_and_others_are_served() {
    // The grace of ten seconds is the gateway's own.
    let gateway = Gateway::start().await;
    let control = Control::signed_in(&gateway).await;
    let trickle = async |path: &str| {
        let mut client = gateway.raw().await;
        client
            .send(format!(
                "POST {path} HTTP/1.1\r\nHost: app.example.com\r\nContent-Type: application/json\r\n\
                 Content-Length: 60000\r\n\r\n{{"
            ))
            .await;
        let (mut reading, mut writing) = client.stream.into_inner().into_split();
        let writing = tokio::spawn(async move {
            while tokio::io::AsyncWriteExt::write_all(&mut writing, b" ").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
        let mut answer = Vec::new();
        let read = tokio::io::AsyncReadExt::read_to_end(&mut reading, &mut answer);
        let read = tokio::time::timeout(2 * SOON, read).await;
        assert!(read.is_ok(), "{path}: it is ended");
        writing.abort();
        String::from_utf8(answer).unwrap()
    };
    let over_http2 = async {
        let mut client = Frames::connect(gateway.addr()).await;
        client.send(frames::post(1, "/public/trickle")).await;
        client.send(frames::post(3, "/api/auth/sign-in/email")).await;
        let mut ended = 0;
        while ended < 2 {
            client
                .send([frames::frame(DATA, 0, 1, b"x"), frames::frame(DATA, 0, 3, b" ")].concat())
                .await;
            while let Ok(frame) = tokio::time::timeout(Duration::from_millis(100), client.next()).await {
                let frame = frame.expect("the connection goes on");
                ended += usize::from(frame.kind == HEADERS);
            }
        }
    };
    let (proxied, own, ()) = tokio::join!(
        trickle("/public/trickle"),
        trickle("/api/auth/sign-in/email"),
        over_http2
    );
    for answer in [proxied, own] {
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    }
    assert!(control.end().await > 0);
    assert_eq!(gateway.upstream().seen("/public/trickle"), 0, "no whole request came");
    assert!(super::reached(&gateway, "server.body_timeout").await >= 4.0);
}
