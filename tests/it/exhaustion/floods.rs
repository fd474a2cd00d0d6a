//! HTTP/2: frames that carry nothing, and heads that never end (CVE-2019-9512 to 9518, CVE-2024-27316).

use tokio::io::AsyncWriteExt;

use super::{
    Control,
    frames::{self, CONTINUATION, DATA, END_HEADERS, ENHANCE_YOUR_CALM, Frames, HEADERS, PING, PRIORITY, SETTINGS},
    reached,
};
use crate::harness::{Gateway, SOON, Setup, eventually};

/// So many frames at once are no accident.
const FLOOD: usize = 50_000;

/// The frames of `kind` that a client repeats, on a connection on which streams 1 and 3 are under way.
fn repeated(kind: u8) -> Vec<u8> {
    match kind {
        DATA => frames::frame(DATA, 0, 1, &[]),
        PRIORITY => frames::frame(PRIORITY, 0, 5, &[0, 0, 0, 3, 16]),
        // That the window is as large as it was.
        SETTINGS => frames::frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0xff, 0xff]),
        PING => frames::frame(PING, 0, 0, b"a flood!"),
        // Room, byte by byte.
        frames::WINDOW_UPDATE => frames::more_room(0, 1),
        kind => frames::frame(kind, 0, 0, b"nobody knows it"),
    }
}

#[tokio::test]
async fn dos_frames_that_carry_nothing_end_the_connection() {
    let gateway = Setup::default().with("[server]\nmax_idle_frames = 1_000").start().await;
    let control = Control::signed_in(&gateway).await;
    let _kept = gateway.upstream().by_hand("/public/upload");
    for kind in [DATA, PRIORITY, SETTINGS, PING, frames::WINDOW_UPDATE, 0x10, 0xbe] {
        let before = reached(&gateway, "server.max_idle_frames").await + reached(&gateway, "http2").await;
        let mut client = Frames::connect(gateway.addr()).await;
        client
            .send([frames::post(1, "/public/upload"), frames::post(3, "/public/upload")].concat())
            .await;
        let flood = repeated(kind).repeat(100);
        // As a flood is: nobody looks at what comes back. Whoever does not read is not written to for ever either.
        let (mut reading, mut writing) = client.stream.split();
        let mut drain = tokio::io::sink();
        let writing = async {
            let mut sent = 0;
            while sent < FLOOD && writing.write_all(&flood).await.is_ok() {
                sent += 100;
                tokio::task::yield_now().await;
            }
        };
        let reading = tokio::io::copy(&mut reading, &mut drain);
        let both = async { tokio::join!(writing, reading) };
        let ended = tokio::time::timeout(2 * SOON, both).await;
        assert!(ended.is_ok(), "kind {kind}: the connection ends");
        let after = reached(&gateway, "server.max_idle_frames").await + reached(&gateway, "http2").await;
        assert!(after > before, "kind {kind}: it was counted");
    }
    assert!(control.end().await > 0);
    eventually(SOON, async || gateway.metric("vestibule_open_connections").await < 1.5).await;
}

#[tokio::test]
async fn a_client_may_ping_and_make_room_as_it_goes() {
    let gateway = Gateway::start().await;
    let large = "HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n".to_owned() + &"x".repeat(1_000_000);
    gateway.upstream().answer("/public/large", large);
    let mut client = Frames::connect(gateway.addr()).await;
    for round in 0..20 {
        let stream = 1 + 2 * round;
        client.send(frames::get(stream, "/public/large")).await;
        let mut taken = 0;
        loop {
            let frame = client.next().await.expect("the connection goes on");
            assert_ne!(frame.kind, frames::GOAWAY, "{frame:?}");
            if frame.kind != DATA || frame.stream != stream {
                continue;
            }
            taken += u32::try_from(frame.payload.len()).unwrap();
            if frame.flags & frames::END_STREAM != 0 {
                client.send(frames::more_room(0, taken.max(1))).await;
                break;
            }
            // As libraries do it: of what came as much room again, twice, and a ping to measure how far it is.
            if taken < 16 << 10 {
                continue;
            }
            client
                .send(
                    [
                        frames::more_room(0, taken),
                        frames::more_room(stream, taken),
                        repeated(PING),
                    ]
                    .concat(),
                )
                .await;
            taken = 0;
        }
    }
    assert!(reached(&gateway, "server.max_idle_frames").await < 0.5);
}

#[tokio::test]
async fn dos_06_a_head_without_end_is_a_connection_error() {
    let gateway = Gateway::start().await;
    let control = Control::signed_in(&gateway).await;
    let head = frames::block(&frames::fields("GET", "/public/endless"));
    let mut filler = vec![0];
    frames::string(&mut filler, b"x-filler");
    frames::string(&mut filler, &[b'x'; 8_000]);
    // Frames of nothing, of a byte, and full ones.
    let one = frames::block(&[("x", "")]);
    for more in [&[][..], &one, &filler] {
        let mut client = Frames::connect(gateway.addr()).await;
        client.send(frames::frame(HEADERS, 0, 1, &head)).await;
        let more = frames::frame(CONTINUATION, 0, 1, more);
        let mut sent = 0;
        let ended = {
            let (mut reading, mut writing) = client.stream.split();
            let mut answer = Vec::new();
            let reading = tokio::io::AsyncReadExt::read_to_end(&mut reading, &mut answer);
            let writing = async {
                while sent < 100_000 && writing.write_all(&more).await.is_ok() {
                    sent += 1;
                    tokio::task::yield_now().await;
                }
            };
            let both = async { tokio::join!(reading, writing) };
            tokio::time::timeout(SOON, both).await
        };
        assert!(ended.is_ok(), "the connection ends");
        // What the kernel took beside.
        assert!(sent < 100_000, "{sent} frames of {} bytes were taken", more.len());
    }
    assert!(control.end().await > 0);
    assert_eq!(gateway.upstream().seen("/public/endless"), 0);
    assert!(reached(&gateway, "http2").await >= 1.0);
}

/// One field of almost the table's size, and then thousands of single bytes that each mean it once more: 50 MB in 12 KB.
#[tokio::test]
async fn dos_a_head_that_unpacks_into_megabytes_is_refused() {
    let gateway = Gateway::start().await;
    let control = Control::signed_in(&gateway).await;
    let mut block = frames::block(&frames::fields("GET", "/public/bomb"));
    // With incremental indexing (RFC 7541, 6.2.1).
    block.push(0x40);
    frames::string(&mut block, b"x-bomb");
    frames::string(&mut block, &[b'x'; 3_900]);
    // Each: index 62, which is what was indexed last.
    block.resize(block.len() + 12_000, 0xbe);
    for _ in 0..20 {
        let mut client = Frames::connect(gateway.addr()).await;
        for number in 0..10 {
            let flags = frames::END_STREAM | END_HEADERS;
            client.send(frames::frame(HEADERS, flags, 1 + 2 * number, &block)).await;
        }
        // An answer, or the end of the connection: whatever h2 makes of it.
        match client.next().await {
            None => {}
            Some(_) => {
                while client
                    .next()
                    .await
                    .is_some_and(|frame| !matches!(frame.kind, HEADERS | frames::GOAWAY))
                {}
            }
        }
    }
    assert!(control.end().await > 0);
    assert_eq!(gateway.upstream().seen("/public/bomb"), 0);
}

#[tokio::test]
async fn dos_a_body_in_crumbs_ends_the_connection_or_arrives() {
    let gateway = Gateway::start().await;
    let control = Control::signed_in(&gateway).await;
    let _kept = gateway.upstream().by_hand("/public/upload");
    let mut client = Frames::connect(gateway.addr()).await;
    client.send(frames::post(1, "/public/upload")).await;
    // Nobody reads them: each byte of the window would be held in a frame of its own.
    let crumb = frames::frame(DATA, 0, 1, b"x").repeat(1_000);
    let mut sent = 0;
    while sent < 400_000 && client.send(&crumb).await {
        sent += 1_000;
        tokio::task::yield_now().await;
    }
    assert_eq!(client.ended().await, Some(ENHANCE_YOUR_CALM));
    assert!(control.end().await > 0);
    // Read as they come, they are a body like others.
    let mut client = Frames::connect(gateway.addr()).await;
    client.send(frames::post(1, "/public/x")).await;
    for _ in 0..20 {
        client.send(frames::frame(DATA, 0, 1, b"x").repeat(100)).await;
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    client.send(frames::frame(DATA, frames::END_STREAM, 1, b"")).await;
    client.answered(1).await;
    assert_eq!(gateway.upstream().last().body, [b'x'; 2_000]);
}
