//! HTTP/2 from clients, by prior knowledge: the same gateway, several requests at once.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use http_body_util::Full;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{sleep, timeout},
};

use crate::harness::{
    Gateway, RawClient, SOON, Setup, eventually,
    h2_client::{Ending, H2Client},
};

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// An empty SETTINGS frame.
pub(crate) const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];

async fn client(gateway: &Gateway) -> H2Client {
    H2Client::connect(gateway.addr(), gateway.host()).await
}

/// With its end, for tests that are about how connections end.
async fn watched(gateway: &Gateway) -> (H2Client, Ending) {
    let stream = TcpStream::connect(gateway.addr()).await.unwrap();
    H2Client::over(stream, &format!("http://{}", gateway.host())).await
}

/// A HEADERS frame with these fields, none of them compressed (RFC 7541, 6.2.2), that ends its stream.
pub(crate) fn headers_frame(stream: u32, fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            assert!(text.len() < 127, "longer ones need another encoding");
            block.push(u8::try_from(text.len()).unwrap());
            block.extend_from_slice(text.as_bytes());
        }
    }
    let length = u32::try_from(block.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    // HEADERS, END_STREAM and END_HEADERS.
    frame.extend_from_slice(&[1, 0x5]);
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(&block);
    frame
}

/// The type and stream of each frame, in order.
pub(crate) fn frames(mut bytes: &[u8]) -> Vec<(u8, u32, Vec<u8>)> {
    let mut frames = Vec::new();
    while let Some((head, rest)) = bytes.split_at_checked(9) {
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let Some((payload, rest)) = rest.split_at_checked(length) else {
            break;
        };
        frames.push((head[3], stream, payload.to_vec()));
        bytes = rest;
    }
    frames
}

#[tokio::test]
async fn a_request_reaches_the_upstream_as_http_1_1() {
    let gateway = Gateway::start().await;
    let answer = client(&gateway).await.get("/public/x?a=b").await;
    assert_eq!((answer.status, answer.text()), (200, "GET /public/x?a=b"));
    let seen = gateway.upstream().last();
    assert_eq!(seen.head.target(), "/public/x?a=b");
    assert_eq!(seen.head.all("host"), [gateway.host()]);
    assert_eq!(seen.head.one("x-forwarded-for"), Some("127.0.0.1"));
    assert!(!seen.head.has("connection"));
}

#[tokio::test]
async fn many_requests_share_a_connection_and_each_gets_its_own_answer() {
    let gateway = Gateway::start().await;
    let client = client(&gateway).await;
    let answers = join_all((0..50).map(|number| {
        let client = client.clone();
        async move { client.get(&format!("/public/{number}")).await }
    }))
    .await;
    for (number, answer) in answers.iter().enumerate() {
        assert_eq!(answer.text(), format!("GET /public/{number}"));
    }
    let metrics = gateway.admin_get("/metrics").await;
    assert!(
        metrics.text().contains("\nvestibule_connections_total 1\n"),
        "{}",
        metrics.text()
    );
}

#[tokio::test]
async fn a_session_is_known_and_each_request_is_judged_for_itself() {
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    let client = client(&gateway).await;
    let signed_in = client
        .request("GET", "/api/me")
        .header("cookie", &ada.cookie)
        .body(Full::default())
        .unwrap();
    let (with, without) = tokio::join!(client.send(signed_in), client.get("/api/other"));
    assert_eq!(with.unwrap().status, 200);
    assert_eq!((without.status, without.code()), (401, "UNAUTHORIZED".to_owned()));
    assert_eq!(without.headers["www-authenticate"], "Bearer");
    assert!(!without.headers.contains_key("connection"));
    assert_eq!(gateway.upstream().seen("/api/other"), 0);
}

#[tokio::test]
async fn smug_27_cookies_in_several_lines_are_one() {
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    let client = client(&gateway).await;
    let request = client
        .request("GET", "/api/me")
        .header("cookie", "theme=dark")
        .header("cookie", &ada.cookie)
        .header("cookie", "lang=en")
        .body(Full::default())
        .unwrap();
    assert_eq!(client.send(request).await.unwrap().status, 200);
    let seen = gateway.upstream().last();
    assert_eq!(
        seen.head.all("cookie"),
        ["theme=dark; lang=en"],
        "one line, without ours"
    );
}

#[tokio::test]
async fn the_authority_is_the_host_and_another_host_is_refused() {
    let gateway = Gateway::start().await;
    let client = client(&gateway).await;
    let with_host = |host: &str| {
        let request = client.request("GET", "/public/x").header("host", host);
        client.send(request.body(Full::default()).unwrap())
    };
    assert_eq!(with_host(gateway.host()).await.unwrap().status, 200);
    let before = gateway.upstream().requests().len();
    for other in ["evil.example", "app.example.com.evil.example", "app.example.com:81", ""] {
        let answer = with_host(other).await.unwrap();
        assert_eq!(
            (answer.status, answer.code()),
            (400, "BAD_HOST".to_owned()),
            "{other:?}"
        );
    }
    let stranger = H2Client::connect(gateway.addr(), "evil.example").await;
    let answer = stranger.get("/public/x").await;
    assert_eq!((answer.status, answer.code()), (421, "MISDIRECTED_REQUEST".to_owned()));
    assert_eq!(gateway.upstream().requests().len(), before);
}

#[tokio::test]
async fn identity_headers_of_a_client_are_removed_in_every_spelling() {
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    let client = client(&gateway).await;
    let request = client
        .request("GET", "/api/me")
        .header("cookie", &ada.cookie)
        .header("x-user-id", "1")
        .header("x_user_id", "2")
        .header("x-user-roles", "admin")
        .body(Full::default())
        .unwrap();
    assert_eq!(client.send(request).await.unwrap().status, 200);
    let seen = gateway.upstream().last();
    assert_eq!(seen.head.spellings("x-user-id"), ["x-user-id"]);
    assert_eq!(seen.head.one("x-user-id"), Some(ada.id.as_str()));
    assert_ne!(seen.head.one("x-user-roles"), Some("admin"));
}

#[tokio::test]
async fn connect_is_refused_unless_it_names_a_protocol() {
    let gateway = Gateway::start().await;
    let client = client(&gateway).await;
    let request = http::Request::connect("app.example.com:443")
        .body(Full::default())
        .unwrap();
    let answer = client.send(request).await.unwrap();
    assert_eq!((answer.status, answer.code()), (405, "METHOD_NOT_ALLOWED".to_owned()));
}

#[tokio::test]
async fn a_refused_upload_costs_its_stream_and_not_the_connection() {
    let gateway = Gateway::start().await;
    let (client, ending) = watched(&gateway).await;
    for _ in 0..3 {
        let body = Full::new(Bytes::from(vec![b'x'; 4 << 20]));
        let request = client.request("POST", "/api/upload").body(body).unwrap();
        let answer = client.send(request).await.unwrap();
        assert_eq!(answer.status, 401);
    }
    assert_eq!(client.get("/public/x").await.status, 200);
    assert!(!ending.is_finished());
    assert_eq!(gateway.upstream().seen("/api/upload"), 0);
}

#[tokio::test]
async fn bodies_of_a_mebibyte_pass_whole() {
    let gateway = Gateway::start().await;
    let client = client(&gateway).await;
    let body = vec![b'u'; 1 << 20];
    let answer = "d".repeat(1 << 20);
    gateway.upstream().answer(
        "/public/big",
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{answer}", answer.len()),
    );
    let request = client
        .request("POST", "/public/big")
        .body(Full::new(Bytes::from(body.clone())))
        .unwrap();
    let down = client.send(request).await.unwrap();
    assert_eq!((down.status, down.body.len()), (200, 1 << 20));
    assert!(gateway.upstream().last().body == body);
}

#[tokio::test]
async fn a_header_list_past_the_limit_is_431_and_the_connection_goes_on() {
    let gateway = Gateway::start().await;
    let client = client(&gateway).await;
    let with = |value: String| {
        let request = client.request("GET", "/public/x").header("x-large", value);
        client.send(request.body(Full::default()).unwrap())
    };
    // hyper's client keeps to what the gateway announced.
    let refused = with("x".repeat(40 << 10)).await;
    assert!(refused.map_or(true, |answer| answer.status == 431));
    assert_eq!(gateway.upstream().requests().len(), 0);
    assert_eq!(with("x".repeat(7 << 10)).await.unwrap().status, 200);
}

#[tokio::test]
async fn what_http_1_1_would_read_otherwise_is_refused() {
    let gateway = Gateway::start().await;
    let client = client(&gateway).await;
    for value in [" a", "a ", "\ta"] {
        let request = client.request("GET", "/public/x").header("x-odd", value);
        let answer = client.send(request.body(Full::default()).unwrap()).await.unwrap();
        assert_eq!(
            (answer.status, answer.code()),
            (400, "BAD_HEADER".to_owned()),
            "{value:?}"
        );
    }
    assert_eq!(gateway.upstream().requests().len(), 0);
    let request = client.request("GET", "/public/x").header("x-odd", "a b");
    assert_eq!(
        client
            .send(request.body(Full::default()).unwrap())
            .await
            .unwrap()
            .status,
        200
    );
}

/// On HTTP/1.1 a raw `#` is refused (`paths.rs`); here the `http` crate has cut the target before anybody sees it.
#[tokio::test]
async fn what_stands_behind_a_raw_hash_is_neither_judged_nor_forwarded() {
    let gateway = Gateway::start().await;
    let mut sent = [PREFACE, SETTINGS].concat();
    let paths = [
        "/public/x#/../../admin/x",
        "/public/y?q#/admin",
        "/admin/x#/../public/x",
    ];
    for (number, path) in paths.into_iter().enumerate() {
        let stream = 1 + 2 * u32::try_from(number).unwrap();
        let fields = [
            (":method", "GET"),
            (":scheme", "http"),
            (":authority", gateway.host()),
            (":path", path),
        ];
        sent.extend(headers_frame(stream, &fields));
    }
    let mut raw = RawClient::connect(gateway.addr()).await;
    raw.send(&sent).await;
    eventually(SOON, async || gateway.log().lines().count() == paths.len()).await;
    let mut forwarded: Vec<_> = gateway.upstream().requests();
    forwarded.sort_by(|a, b| a.head.target().cmp(b.head.target()));
    let targets: Vec<_> = forwarded.iter().map(|seen| seen.head.target()).collect();
    assert_eq!(targets, ["/public/x", "/public/y?q"]);
    let log = gateway.log();
    let of_admin = log
        .lines()
        .find(|line| line.contains("\"/admin/x\""))
        .expect("its line");
    assert!(of_admin.contains("\"status\":401"), "{of_admin}");
}

#[tokio::test]
async fn fields_of_a_connection_reset_their_stream() {
    let gateway = Gateway::start().await;
    let pseudo = [
        (":method", "GET"),
        (":scheme", "http"),
        (":authority", "app.example.com"),
        (":path", "/public/x"),
    ];
    let bad = [
        ("connection", "x-user-id"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "websocket"),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "close"),
        ("te", "gzip"),
        ("X-Upper", "1"),
    ];
    let mut sent = [PREFACE, SETTINGS].concat();
    for (number, field) in bad.iter().enumerate() {
        let stream = 1 + 2 * u32::try_from(number).unwrap();
        sent.extend(headers_frame(stream, &[&pseudo[..], &[*field]].concat()));
    }
    let mut raw = RawClient::connect(gateway.addr()).await;
    raw.send(&sent).await;
    raw.stream.shutdown().await.unwrap();
    let frames = frames(&raw.rest().await);
    let answered = frames.iter().filter(|(kind, _, _)| *kind == 1).count();
    assert_eq!(answered, 0, "none of them gets an answer: {frames:?}");
    assert_eq!(gateway.upstream().requests().len(), 0);

    let mut fine = [PREFACE, SETTINGS].concat();
    fine.extend(headers_frame(1, &[&pseudo[..], &[("te", "trailers")]].concat()));
    let mut raw = RawClient::connect(gateway.addr()).await;
    raw.send(&fine).await;
    eventually(SOON, async || gateway.upstream().seen("/public/x") == 1).await;
}

#[tokio::test]
async fn a_preface_may_come_in_pieces_but_not_for_ever() {
    let setup = Setup::default().with("[server]\nheader_timeout = '400ms'");
    let gateway = setup.start().await;
    let mut raw = RawClient::connect(gateway.addr()).await;
    for byte in PREFACE {
        raw.send([*byte]).await;
    }
    raw.send(SETTINGS).await;
    raw.send(headers_frame(
        1,
        &[
            (":method", "GET"),
            (":scheme", "http"),
            (":authority", "app.example.com"),
            (":path", "/public/x"),
        ],
    ))
    .await;
    eventually(SOON, async || gateway.upstream().seen("/public/x") == 1).await;

    let mut slow = RawClient::connect(gateway.addr()).await;
    slow.send(&PREFACE[..10]).await;
    assert!(slow.is_closed().await);
    let mut silent = RawClient::connect(gateway.addr()).await;
    assert!(silent.is_closed().await);
}

/// A request whose block of fields does not end: HEADERS without END_HEADERS.
fn unfinished_head(stream: u32) -> Vec<u8> {
    let mut frame = headers_frame(stream, &[(":method", "GET"), (":path", "/public/never")]);
    frame[4] &= !0x4;
    frame
}

#[tokio::test]
async fn dos_06_a_head_that_does_not_end_ends_its_connection_though_others_are_answered() {
    let setup = Setup::default().with("[server]\nheader_timeout = '400ms'");
    let gateway = setup.start().await;
    let mut alone = RawClient::connect(gateway.addr()).await;
    alone.send([PREFACE, SETTINGS, &unfinished_head(1)].concat()).await;

    let mut slow = gateway.upstream().by_hand("/public/slow");
    let request = headers_frame(
        1,
        &[
            (":method", "GET"),
            (":scheme", "http"),
            (":authority", gateway.host()),
            (":path", "/public/slow"),
        ],
    );
    let mut busy = RawClient::connect(gateway.addr()).await;
    busy.send([PREFACE, SETTINGS, &request].concat()).await;
    let _upstream = slow.next().await;
    busy.send(unfinished_head(3)).await;

    let mut trickling = gateway.raw().await;
    // HEADERS of a thousand bytes, which come one by one.
    let head = [0, 3, 232, 1, 4, 0, 0, 0, 1];
    trickling.send([PREFACE, SETTINGS, &head].concat()).await;
    let (mut reading, mut writing) = trickling.stream.into_inner().into_split();
    let ends = async {
        let mut all = Vec::new();
        // A reset is an end, too.
        let _ = reading.read_to_end(&mut all).await;
    };
    let trickle = async {
        while writing.write_all(&[0]).await.is_ok() {
            sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::join!(alone.rest(), busy.rest());
    let both = async { tokio::join!(ends, trickle) };
    timeout(SOON, both).await.expect("it is closed");
    assert_eq!(gateway.upstream().seen("/public/never"), 0);
}

#[tokio::test]
async fn a_head_in_several_frames_is_a_head() {
    let setup = Setup::default().with("[server]\nheader_timeout = '5s'");
    let gateway = setup.start().await;
    let mut first = headers_frame(
        1,
        &[
            (":method", "GET"),
            (":scheme", "http"),
            (":authority", gateway.host()),
            (":path", "/public/x"),
        ],
    );
    first[4] &= !0x4;
    // CONTINUATION with END_HEADERS: `x: y`, spelt out.
    let last = [0, 0, 5, 9, 4, 0, 0, 0, 1, 0, 1, b'x', 1, b'y'];
    let mut raw = RawClient::connect(gateway.addr()).await;
    raw.send([PREFACE, SETTINGS].concat()).await;
    for byte in first.iter().chain(&last) {
        raw.send([*byte]).await;
    }
    eventually(SOON, async || gateway.upstream().seen("/public/x") == 1).await;
}

#[tokio::test]
async fn a_preface_without_settings_ends_its_connection() {
    let setup = Setup::default().with("[server]\nheader_timeout = '400ms'");
    let gateway = setup.start().await;
    let mut raw = RawClient::connect(gateway.addr()).await;
    raw.send([PREFACE, &SETTINGS[..5]].concat()).await;
    raw.rest().await;
}

#[tokio::test]
async fn garbage_behind_the_preface_ends_the_connection_alone() {
    let gateway = Gateway::start().await;
    let good = client(&gateway).await;
    let mut raw = RawClient::connect(gateway.addr()).await;
    raw.send([PREFACE, &[0xff; 64]].concat()).await;
    let frames = frames(&raw.rest().await);
    assert!(frames.iter().any(|(kind, _, _)| *kind == 7), "it is told: {frames:?}");
    assert_eq!(good.get("/public/x").await.status, 200);
}

#[tokio::test]
async fn no_more_streams_are_open_than_was_announced() {
    let gateway = Setup::default().with("[server]\nmax_streams = 1").start().await;
    let mut slow = gateway.upstream().by_hand("/public/slow");
    let client = client(&gateway).await;
    // The announcement has come by then.
    assert_eq!(client.get("/public/x").await.status, 200);
    let both = async { tokio::join!(client.get("/public/slow"), client.get("/public/slow")) };
    let serving = async {
        let mut first = slow.next().await;
        assert_eq!(gateway.upstream().seen("/public/slow"), 1);
        first
            .send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
            .await;
        let mut second = slow.next().await;
        second.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    };
    let ((first, second), ()) = tokio::join!(both, serving);
    assert_eq!((first.status, second.status), (200, 200));
}

#[tokio::test]
async fn dos_04_rapid_resets_end_the_connection() {
    let gateway = Gateway::start().await;
    let mut sent = [PREFACE, SETTINGS].concat();
    for number in 0..200_u32 {
        let stream = 1 + 2 * number;
        sent.extend(headers_frame(
            stream,
            &[
                (":method", "GET"),
                (":scheme", "http"),
                (":authority", "app.example.com"),
                (":path", "/public/reset"),
            ],
        ));
        // RST_STREAM, CANCEL.
        sent.extend_from_slice(&[0, 0, 4, 3, 0]);
        sent.extend_from_slice(&stream.to_be_bytes());
        sent.extend_from_slice(&8_u32.to_be_bytes());
    }
    let mut raw = RawClient::connect(gateway.addr()).await;
    raw.send(&sent).await;
    let frames = frames(&raw.rest().await);
    let goodbye = frames.iter().find(|(kind, _, _)| *kind == 7).expect("a GOAWAY");
    // ENHANCE_YOUR_CALM.
    assert_eq!(goodbye.2[4..8], 11_u32.to_be_bytes());
    assert_eq!(gateway.get("/public/x").await.status(), 200);
}

#[tokio::test]
async fn an_idle_connection_is_told_to_go_and_a_busy_one_is_not() {
    let gateway = Setup::default().with("[server]\nidle_timeout = '300ms'").start().await;
    let mut slow = gateway.upstream().by_hand("/public/slow");
    let (busy, busy_ends) = watched(&gateway).await;
    let (_idle, idle_ends) = watched(&gateway).await;
    let asking = tokio::spawn(async move { busy.get("/public/slow").await });
    let mut conversation = slow.next().await;
    let ended = timeout(SOON, idle_ends).await.expect("the idle one ends").unwrap();
    assert!(ended.is_ok(), "in good order: {ended:?}");
    // Twice as long as an idle one may stay.
    sleep(Duration::from_millis(600)).await;
    assert!(!busy_ends.is_finished());
    conversation
        .send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        .await;
    assert_eq!(asking.await.unwrap().text(), "ok");
    timeout(SOON, busy_ends)
        .await
        .expect("and then it is idle")
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn stopping_finishes_streams_and_takes_no_more() {
    let gateway = Setup::default().with("[server]\nshutdown_grace = '30s'").start().await;
    let mut slow = gateway.upstream().by_hand("/public/slow");
    let public = gateway.addr();
    let (client, ending) = watched(&gateway).await;
    let asking = tokio::spawn({
        let client = client.clone();
        async move { client.get("/public/slow").await }
    });
    let mut conversation = slow.next().await;
    let stopping = tokio::spawn(gateway.stop());
    eventually(SOON, async || TcpStream::connect(public).await.is_err()).await;
    let late = client.request("GET", "/public/late").body(Full::default()).unwrap();
    eventually(SOON, async || client.send(late.clone()).await.is_err()).await;
    conversation
        .send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone")
        .await;
    assert_eq!(asking.await.unwrap().text(), "done");
    assert_eq!(stopping.await.unwrap().cut_off, 0);
    assert!(timeout(SOON, ending).await.unwrap().unwrap().is_ok());
}

/// A SETTINGS frame that gives new streams no room.
const NO_WINDOW: &[u8] = &[0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0];

#[tokio::test]
async fn a_client_that_leaves_a_stream_no_room_does_not_hold_its_upstream() {
    let gateway = Setup::default().with("[server]\nbody_timeout = '300ms'").start().await;
    let mut large = gateway.upstream().by_hand("/public/large");
    let get = |path| {
        [
            (":method", "GET"),
            (":scheme", "http"),
            (":authority", "app.example.com"),
            (":path", path),
        ]
    };
    let mut raw = RawClient::connect(gateway.addr()).await;
    raw.send([PREFACE, NO_WINDOW, &headers_frame(1, &get("/public/large"))].concat())
        .await;
    let mut upstream = large.next().await;
    upstream
        .send("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nthe beginning")
        .await;
    let mut byte = [0];
    let ended = timeout(SOON, upstream.stream.read(&mut byte))
        .await
        .expect("it is let go");
    assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");

    // Its connection goes on.
    let head = [&[(":method", "HEAD")][..], &get("/public/x")[1..]].concat();
    raw.send(headers_frame(3, &head)).await;
    let (mut bytes, mut seen) = (Vec::new(), Vec::new());
    while !seen.contains(&(1, 3)) {
        let read = timeout(SOON, raw.stream.read_buf(&mut bytes)).await.expect("an answer");
        assert!(read.unwrap() > 0, "{seen:?}");
        seen = frames(&bytes)
            .iter()
            .map(|(kind, stream, _)| (*kind, *stream))
            .collect();
    }
    assert!(seen.contains(&(3, 1)), "its stream was reset: {seen:?}");
    let in_flight = "vestibule_upstream_in_flight{upstream=\"app\"}";
    eventually(SOON, async || gateway.metric(in_flight).await < 1.0).await;
}

/// A connection whose client opens no window for answers, and its request for `path`.
async fn takes_nothing(gateway: &Gateway, path: &str) -> RawClient {
    // SETTINGS with an INITIAL_WINDOW_SIZE of zero.
    let no_window = [0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0];
    let request = headers_frame(
        1,
        &[
            (":method", "GET"),
            (":scheme", "http"),
            (":authority", gateway.host()),
            (":path", path),
        ],
    );
    let mut raw = RawClient::connect(gateway.addr()).await;
    raw.send([PREFACE, &no_window, &request].concat()).await;
    raw
}

#[tokio::test]
async fn an_answer_that_nobody_takes_does_not_keep_its_upstream() {
    let gateway = Setup::default().with("[server]\nbody_timeout = '300ms'").start().await;
    let mut conversations = gateway.upstream().by_hand("/public/x");
    let _client = takes_nothing(&gateway, "/public/x").await;
    let mut upstream = conversations.next().await;
    upstream
        .send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nfirst")
        .await;
    let mut byte = [0];
    let left = timeout(SOON, upstream.stream.read(&mut byte)).await;
    assert_eq!(left.expect("the upstream's connection is let go").unwrap_or(0), 0);
}

/// A WINDOW_UPDATE frame.
fn more_room(stream: u32, bytes: u32) -> Vec<u8> {
    [&[0, 0, 4, 8, 0][..], &stream.to_be_bytes(), &bytes.to_be_bytes()].concat()
}

/// Requests for a large file, one on each stream.
fn requests(gateway: &Gateway, streams: impl Iterator<Item = u32>) -> Vec<u8> {
    let fields = [
        (":method", "GET"),
        (":scheme", "http"),
        (":authority", gateway.host()),
        (":path", "/public/large"),
    ];
    streams.flat_map(|stream| headers_frame(stream, &fields)).collect()
}

/// Asks for 90 large files at once, takes `first` bytes of them at once, then little by little: several times as much
/// as is demanded, yet a round of all takes several times as long as one may take nothing. None is reset.
async fn slowly(gateway: &Gateway, first: u32) {
    const PIECE: u32 = 16 << 10;
    const PIECES: u32 = 50;
    // Each stream has all the room that there is; the connection has little.
    let settings = [&[0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 4][..], &0x3fff_ffff_u32.to_be_bytes()].concat();
    let asked = requests(gateway, (0..90).map(|number| 1 + 2 * number));
    let (mut reading, mut writing) = TcpStream::connect(gateway.addr()).await.unwrap().into_split();
    writing
        .write_all(&[PREFACE, &settings, &more_room(0, first), &asked].concat())
        .await
        .unwrap();
    let taking = async {
        for _ in 0..PIECES {
            sleep(Duration::from_millis(60)).await;
            writing.write_all(&more_room(0, PIECE)).await.unwrap();
        }
    };
    let mut all = Vec::new();
    let reading = async { while reading.read_buf(&mut all).await.unwrap() > 0 {} };
    tokio::select! {
        () = taking => {}
        () = reading => panic!("the connection goes on"),
    }
    let frames = frames(&all);
    let reset = frames.iter().filter(|(kind, ..)| matches!(kind, 3 | 7)).count();
    assert_eq!(reset, 0, "{first} at first");
    let data = frames.iter().filter(|(kind, ..)| *kind == 0);
    let taken: usize = data.map(|(.., data)| data.len()).sum();
    let expected = usize::try_from(first + PIECE * (PIECES - 5)).unwrap();
    assert!(taken > expected, "{taken} of {expected} bytes came");
}

#[tokio::test]
async fn a_slow_client_with_many_answers_under_way_loses_none() {
    let limits = "[server]\nbody_timeout = '1s'\nmin_body_rate = '32KiB'";
    let gateway = Setup::default().with(limits).start().await;
    let large = "HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n".to_owned() + &"x".repeat(1_000_000);
    gateway.upstream().answer("/public/large", large);
    // With little of each answer under way, and with as much as may be.
    tokio::join!(slowly(&gateway, 1), slowly(&gateway, 14 << 20));
}

#[tokio::test]
async fn taking_other_answers_does_not_keep_one_that_is_left() {
    let limits = "[server]\nbody_timeout = '300ms'\nmin_body_rate = '1MiB'";
    let gateway = Setup::default().with(limits).start().await;
    let large = "HTTP/1.1 200 OK\r\nContent-Length: 3000000\r\n\r\n".to_owned() + &"x".repeat(3_000_000);
    gateway.upstream().answer("/public/large", large);
    let mut raw = RawClient::connect(gateway.addr()).await;
    let asked = requests(&gateway, [1, 3].into_iter());
    raw.send([PREFACE, NO_WINDOW, &asked, &more_room(0, 1 << 29)].concat())
        .await;
    // The third stream's answer is taken as it comes, then the fifth's, and so on: never the first's.
    let (mut bytes, mut taken) = (Vec::new(), 3);
    raw.send(more_room(taken, 1 << 29)).await;
    loop {
        let read = timeout(SOON, raw.stream.read_buf(&mut bytes)).await.expect("an answer");
        assert!(read.unwrap() > 0);
        let seen = frames(&bytes);
        if seen.iter().any(|(kind, stream, _)| (*kind, *stream) == (3, 1)) {
            break;
        }
        let ends = |(kind, stream, data): &(u8, u32, Vec<u8>)| (*kind, *stream) == (0, taken) && data.is_empty();
        if seen.iter().any(ends) || taken_of(&seen, taken) == 3_000_000 {
            taken += 2;
            bytes.clear();
            raw.send([requests(&gateway, [taken].into_iter()), more_room(taken, 1 << 29)].concat())
                .await;
        }
    }
}

/// How much of a stream's answer came.
fn taken_of(frames: &[(u8, u32, Vec<u8>)], stream: u32) -> usize {
    let data = frames.iter().filter(|(kind, of, _)| (*kind, *of) == (0, stream));
    data.map(|(.., data)| data.len()).sum()
}

#[tokio::test]
async fn who_waits_for_a_slow_upstream_has_all_the_time_it_takes() {
    let gateway = Setup::default().with("[server]\nbody_timeout = '300ms'").start().await;
    let mut conversations = gateway.upstream().by_hand("/public/x");
    let client = client(&gateway).await;
    let answering = async {
        let mut upstream = conversations.next().await;
        sleep(Duration::from_millis(500)).await;
        upstream
            .send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfirst")
            .await;
        sleep(Duration::from_millis(700)).await;
        upstream.send("again").await;
    };
    let (answer, ()) = tokio::join!(client.get("/public/x"), answering);
    assert_eq!((answer.status, answer.text()), (200, "firstagain"));
}

#[tokio::test]
async fn an_answer_without_content_does_not_say_how_long_it_is() {
    let gateway = Gateway::start().await;
    gateway.upstream().answer(
        "/public/x",
        "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\nX-Any: 1\r\n\r\n",
    );
    let answer = client(&gateway).await.get("/public/x").await;
    assert_eq!((answer.status, &answer.headers["x-any"]), (204, &"1".parse().unwrap()));
    assert!(!answer.headers.contains_key("content-length"), "{:?}", answer.headers);
}

#[tokio::test]
async fn a_length_that_is_said_twice_is_said_once() {
    let gateway = Gateway::start().await;
    let client = client(&gateway).await;
    let request = client
        .request("POST", "/public/x")
        .header("content-length", "5")
        .header("content-length", "5")
        .body(Full::new(Bytes::from_static(b"hello")))
        .unwrap();
    assert_eq!(client.send(request).await.unwrap().status, 200);
    let seen = gateway.upstream().last();
    assert_eq!(
        (seen.head.all("content-length"), seen.body),
        (vec!["5"], b"hello".to_vec())
    );
}

#[tokio::test]
async fn an_answer_of_ours_to_head_says_how_long_it_would_be_and_has_no_content() {
    let routes = r"
        routes = [
            { path = '/api/*', upstream = 'app' },
            { path = '/fixed', auth = 'public', respond = { body = 'hello' } },
        ]";
    let gateway = Setup::default().with(routes).start().await;
    let client = client(&gateway).await;
    for (path, status) in [("/api/x", 401), ("/nothing", 404), ("/api/%zz", 400), ("/fixed", 200)] {
        let request = client.request("HEAD", path).body(Full::default()).unwrap();
        let answer = client.send(request).await.expect("an answer that its client takes");
        assert_eq!((answer.status, answer.body.len()), (status, 0), "{path}");
        let length: u64 = answer.headers["content-length"].to_str().unwrap().parse().unwrap();
        assert!(length > 0, "{path}");
    }
    // And the connection is as it was.
    assert_eq!(client.get("/fixed").await.text(), "hello");
}
