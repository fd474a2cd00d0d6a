//! HTTP/2: requests that are taken back, and those that we are made to take back (CVE-2023-44487, CVE-2025-8671).

use super::{
    Control,
    frames::{self, CANCEL, DATA, END_HEADERS, ENHANCE_YOUR_CALM, Frames, HEADERS, RST_STREAM},
    reached,
};
use crate::harness::{Gateway, SOON, Setup, eventually};

const IN_FLIGHT: &str = "vestibule_upstream_in_flight{upstream=\"app\"}";

#[tokio::test]
async fn dos_04_requests_taken_back_before_they_are_looked_at_end_the_connection() {
    let gateway = Gateway::start().await;
    let control = Control::signed_in(&gateway).await;
    for _ in 0..5 {
        let mut client = Frames::connect(gateway.addr()).await;
        let flood: Vec<u8> = (0..10_000)
            .flat_map(|number| {
                [
                    frames::get(1 + 2 * number, "/public/reset"),
                    frames::reset(1 + 2 * number),
                ]
                .concat()
            })
            .collect();
        client.send(flood).await;
        assert_eq!(client.ended().await, Some(ENHANCE_YOUR_CALM));
    }
    assert!(control.end().await > 0);
    let seen = gateway.upstream().seen("/public/reset");
    assert!(seen < 500, "{seen} of 50,000 reached the upstream");
    assert!(reached(&gateway, "http2").await >= 5.0);
    eventually(SOON, async || gateway.metric(IN_FLIGHT).await < 0.5).await;
}

/// Each round's requests have reached the upstream when they are taken back: nothing is left of them to be counted as
/// waiting, and the upstream has had its work.
#[tokio::test]
async fn dos_04_requests_taken_back_once_they_have_begun_end_the_connection() {
    let gateway = Setup::default().with("[server]\nmax_resets = 200").start().await;
    let control = Control::signed_in(&gateway).await;
    let mut conversations = gateway.upstream().by_hand("/public/begun");
    let mut client = Frames::connect(gateway.addr()).await;
    let mut begun = 0_u32;
    let ended = 'attack: loop {
        let streams: Vec<u32> = (0..50).map(|number| 1 + 2 * (begun + number)).collect();
        let asked: Vec<u8> = streams
            .iter()
            .flat_map(|stream| frames::get(*stream, "/public/begun"))
            .collect();
        client.send(asked).await;
        for _ in &streams {
            tokio::select! {
                conversation = conversations.next() => drop(conversation),
                ended = client.ended() => break 'attack ended,
            }
            begun += 1;
        }
        let taken_back: Vec<u8> = streams.iter().flat_map(|stream| frames::reset(*stream)).collect();
        client.send(taken_back).await;
        assert!(begun < 1_000, "it goes on and on");
    };
    assert!(ended.is_some(), "it was told to go");
    assert!((200..=400).contains(&begun), "{begun}");
    assert!(control.end().await > 0);
    let counted = reached(&gateway, "server.max_resets").await;
    assert!((0.5..1.5).contains(&counted), "{counted}");
    eventually(SOON, async || gateway.metric(IN_FLIGHT).await < 0.5).await;
}

#[tokio::test]
async fn dos_04_streams_that_a_client_s_mistakes_reset_end_the_connection() {
    let gateway = Setup::default().with("[server]\nmax_resets = 200").start().await;
    let control = Control::signed_in(&gateway).await;
    let mistakes: [fn(u32) -> Vec<u8>; 2] = [
        // More than it said that it would send.
        |stream| {
            let fields = [
                &frames::fields("POST", "/public/mistake")[..],
                &[("content-length", "1")],
            ]
            .concat();
            let head = frames::frame(HEADERS, END_HEADERS, stream, &frames::block(&fields));
            [head, frames::frame(DATA, 0, stream, b"three")].concat()
        },
        // More room than there is.
        |stream| {
            let room = frames::more_room(stream, 0x7fff_ffff);
            [frames::post(stream, "/public/mistake"), room].concat()
        },
    ];
    for mistake in mistakes {
        let mut client = Frames::connect(gateway.addr()).await;
        let mut begun = 0_u32;
        while begun < 2_000 {
            let asked: Vec<u8> = (begun..begun + 20).flat_map(|number| mistake(1 + 2 * number)).collect();
            begun += 20;
            if !client.send(asked).await {
                break;
            }
            tokio::task::yield_now().await;
        }
        assert_eq!(client.ended().await, Some(ENHANCE_YOUR_CALM));
    }
    assert!(control.end().await > 0);
    assert!(reached(&gateway, "http2").await >= 2.0);
    let seen = gateway.upstream().seen("/public/mistake");
    assert!(seen < 500, "{seen} reached the upstream");
    eventually(SOON, async || gateway.metric(IN_FLIGHT).await < 0.5).await;
}

/// Its connection carries the requests of many, who must not suffer for each other.
#[tokio::test]
async fn what_a_trusted_proxy_takes_back_or_mistakes_does_not_end_its_connection() {
    let over = "[server]\nmax_resets = 50\ntrusted_proxies = ['127.0.0.1/32']";
    let gateway = Setup::default().with(over).start().await;
    let mut conversations = gateway.upstream().by_hand("/public/begun");
    let mut client = Frames::connect(gateway.addr()).await;
    let mut stream = 1;
    for _ in 0..4 {
        let taken_back: Vec<u32> = (0..50).map(|number| stream + 2 * number).collect();
        stream += 100;
        for stream in &taken_back {
            client.send(frames::get(*stream, "/public/begun")).await;
        }
        for _ in &taken_back {
            drop(conversations.next().await);
        }
        for stream in &taken_back {
            client.send(frames::reset(*stream)).await;
        }
    }
    for _ in 0..100 {
        let room = frames::more_room(stream, 0x7fff_ffff);
        client
            .send([frames::post(stream, "/public/mistake"), room].concat())
            .await;
        client
            .until(|frame| frame.stream == stream && frame.kind == RST_STREAM)
            .await;
        stream += 2;
    }
    client.send(frames::get(stream, "/public/x")).await;
    client.answered(stream).await;
}

/// hyper takes such a request for the end of the connection.
#[tokio::test]
async fn a_connect_that_announces_content_ends_nothing_but_itself() {
    let gateway = Gateway::start().await;
    let mut conversations = gateway.upstream().by_hand("/public/begun");
    let mut client = Frames::connect(gateway.addr()).await;
    client.send(frames::get(1, "/public/begun")).await;
    let mut upstream = conversations.next().await;
    let plain = [
        (":method", "CONNECT"),
        (":authority", "app.example.com"),
        ("content-length", "5"),
    ];
    let extended = [
        &[(":protocol", "websocket")],
        &frames::fields("CONNECT", "/public/x")[..],
        &[("content-length", "5")],
    ]
    .concat();
    for (stream, fields) in [(3, &plain[..]), (5, &extended[..]), (7, &plain[..])] {
        let head = frames::block(fields);
        client.send(frames::frame(HEADERS, END_HEADERS, stream, &head)).await;
        let refused = client.until(|frame| frame.stream == stream).await;
        assert_eq!(refused.kind, RST_STREAM);
    }
    client.send(frames::get(9, "/public/x")).await;
    client.answered(9).await;
    upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    client.answered(1).await;
}

/// Each worker would have had its share of these.
#[tokio::test]
async fn clients_that_break_their_connections_off_hold_nobody_up() {
    let gateway = Gateway::start().await;
    for number in 0..16 {
        let mut client = Frames::connect(gateway.addr()).await;
        client.send(frames::get(1, "/public/x")).await;
        client.answered(1).await;
        if number % 2 == 0 {
            // Reset, not closed.
            socket2::SockRef::from(&client.stream)
                .set_linger(Some(std::time::Duration::ZERO))
                .unwrap();
        }
        drop(client);
    }
    eventually(SOON, async || gateway.metric("vestibule_open_connections").await < 1.5).await;
    for _ in 0..16 {
        assert_eq!(gateway.get("/public/x").await.status(), 200);
    }
}

#[tokio::test]
async fn who_takes_a_page_s_requests_back_goes_on() {
    let gateway = Gateway::start().await;
    let mut conversations = gateway.upstream().by_hand("/public/begun");
    let mut client = Frames::connect(gateway.addr()).await;
    // A hundred at once, as when somebody leaves a page; three times.
    for round in 0..3 {
        let streams: Vec<u32> = (0..99).map(|number| 1 + 2 * (round * 100 + number)).collect();
        for stream in &streams {
            client.send(frames::get(*stream, "/public/begun")).await;
            conversations.next().await;
        }
        for stream in &streams {
            client.send(frames::reset(*stream)).await;
        }
        let last = 1 + 2 * (round * 100 + 99);
        client.send(frames::get(last, "/public/x")).await;
        client.answered(last).await;
    }
    assert!(reached(&gateway, "server.max_resets").await < 0.5);
}

#[tokio::test]
async fn what_is_refused_for_want_of_room_is_reset_alone() {
    let gateway = Setup::default().with("[server]\nmax_streams = 4").start().await;
    let _kept = gateway.upstream().by_hand("/public/long");
    let mut client = Frames::connect(gateway.addr()).await;
    for number in 0..8 {
        client.send(frames::get(1 + 2 * number, "/public/long")).await;
    }
    for _ in 0..4 {
        let refused = client.until(|frame| frame.kind == RST_STREAM).await;
        assert_ne!(refused.reason(), CANCEL);
    }
    client.send(frames::reset(1)).await;
    client.send(frames::get(101, "/public/x")).await;
    client.answered(101).await;
}
