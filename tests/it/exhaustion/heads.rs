//! Heads that are large, or of very many fields.

use std::fmt::Write as _;

use super::{
    Control,
    frames::{self, CONTINUATION, END_HEADERS, END_STREAM, Frames, HEADERS},
    get, reached,
};
use crate::harness::{Gateway, Setup, h2_client::H2Client};

pub(crate) fn numbered(count: usize) -> String {
    (0..count).fold(String::new(), |mut fields, number| {
        let _ = write!(fields, "X-{number}: {number}\r\n");
        fields
    })
}

#[tokio::test]
async fn dos_09_too_many_and_too_large_fields_are_431() {
    let gateway = Gateway::start().await;
    let control = Control::signed_in(&gateway).await;
    let too_much = [
        numbered(101),
        numbered(10_000),
        format!("X-Large: {}\r\n", "x".repeat(500 << 10)),
        format!("{}: x\r\n", "X".repeat(500 << 10)),
    ];
    for fields in &too_much {
        for path in ["/public/x", "/api/auth/get-session"] {
            let mut client = gateway.raw().await;
            client
                .send(format!("GET {path} HTTP/1.1\r\nHost: app.example.com\r\n{fields}\r\n"))
                .await;
            let said = String::from_utf8(client.rest().await).unwrap();
            assert!(said.starts_with("HTTP/1.1 431 "), "{} bytes: {said}", fields.len());
        }
    }
    assert!(control.end().await > 0);
    assert_eq!(gateway.upstream().seen("/public/x"), 0);
    assert!(reached(&gateway, "server.max_header_bytes").await >= 8.0);
}

#[tokio::test]
async fn dos_09_too_many_and_too_large_fields_are_431_over_http2() {
    let gateway = Gateway::start().await;
    let control = Control::signed_in(&gateway).await;
    let client = H2Client::connect(gateway.addr(), gateway.host()).await;
    let large = "x".repeat(33 << 10);
    let mut requests = vec![client.request("GET", "/public/x").header("x-large", large)];
    let many = (0..1_000).fold(client.request("GET", "/public/x"), |request, number| {
        request.header(format!("x-{number}"), "1")
    });
    requests.push(many);
    for request in requests {
        let answer = client
            .send(request.body(http_body_util::Full::default()).unwrap())
            .await
            .unwrap();
        assert_eq!(answer.status, 431);
    }
    assert_eq!(client.get("/public/y").await.status, 200, "the connection goes on");
    assert!(control.end().await > 0);
    assert_eq!(gateway.upstream().seen("/public/x"), 0);
}

#[tokio::test]
async fn cookie_04_large_cookies_are_431_and_the_gateway_s_own_are_small() {
    let gateway = Gateway::start().await;
    let cookie = format!("pad={}", "x".repeat(64 << 10));
    for path in ["/public/x", "/app/page", "/api/auth/get-session"] {
        let mut client = gateway.raw().await;
        client
            .send(format!(
                "GET {path} HTTP/1.1\r\nHost: app.example.com\r\nAccept: text/html\r\nCookie: {cookie}\r\n\r\n"
            ))
            .await;
        let said = String::from_utf8(client.rest().await).unwrap();
        assert!(said.starts_with("HTTP/1.1 431 "), "{said}");
        assert!(!said.to_ascii_lowercase().contains("location:"), "no loop: {said}");
    }
    assert_eq!(gateway.upstream().requests().len(), 0);
    gateway.verified("ada@example.com").await;
    let answer = gateway.sign_in("ada@example.com").await;
    let own: usize = answer.head.all("set-cookie").iter().map(|cookie| cookie.len()).sum();
    assert!((50..1_024).contains(&own), "{own} bytes");
    // Seven kilobytes of an application's are ordinary.
    let ordinary = format!("pad={}", "x".repeat(7 << 10));
    assert_eq!(gateway.get("/public/x").header("Cookie", ordinary).await.status(), 200);
}

/// As much as may be configured.
const LARGEST: &str = "[server]\nmax_header_bytes = '16MiB'";

#[tokio::test]
async fn dos_connection_may_name_very_many_fields() {
    let gateway = Setup::default().with(LARGEST).start().await;
    let control = Control::signed_in(&gateway).await;
    let named = (0..1_000_000).fold(String::new(), |mut names, number| {
        let _ = write!(names, "x-{number},");
        names
    });
    let mut client = gateway.raw().await;
    let fields = numbered(90);
    client
        .send(format!(
            "GET /public/x HTTP/1.1\r\nHost: app.example.com\r\nConnection: {named}\r\nX-Kept-Not: 1\r\n{fields}\r\n"
        ))
        .await;
    assert_eq!(client.answer().await.status(), 200);
    assert!(control.end().await > 0);
    let seen = gateway
        .upstream()
        .requests()
        .into_iter()
        .find(|seen| seen.head.path() == "/public/x")
        .unwrap();
    assert!(!seen.head.has("x-0") && !seen.head.has("x-89"), "{:?}", seen.head);
    assert!(!seen.head.has("connection"));
}

#[tokio::test]
async fn dos_very_many_fields_over_http2_are_one_request_or_none() {
    let gateway = Setup::default().with(LARGEST).start().await;
    let control = Control::signed_in(&gateway).await;
    // In several frames, none of them compressed.
    let request = |connection: bool, count: usize| {
        let mut block = frames::block(&frames::fields("GET", "/public/many"));
        if connection {
            let named = (0..1_000).fold(String::new(), |mut names, number| {
                let _ = write!(names, "x-{number},");
                names
            });
            block.push(0);
            frames::string(&mut block, b"connection");
            frames::string(&mut block, named.as_bytes());
        }
        for number in 0..count {
            block.extend(frames::block(&[(&format!("x-{number}"), "1")]));
        }
        let pieces: Vec<&[u8]> = block.chunks(16 << 10).collect();
        let last = pieces.len() - 1;
        let frames = pieces.iter().enumerate().map(|(at, piece)| {
            let end = if at == last { END_HEADERS } else { 0 };
            if at == 0 {
                frames::frame(HEADERS, END_STREAM | end, 1, piece)
            } else {
                frames::frame(CONTINUATION, end, 1, piece)
            }
        });
        frames.flatten().collect::<Vec<u8>>()
    };
    // Fields of a connection are malformed there, however many they name (RFC 9113, 8.2.2).
    let mut client = Frames::connect(gateway.addr()).await;
    client.send(request(true, 1_000)).await;
    client.until(|frame| frame.kind == frames::RST_STREAM).await;
    assert_eq!(gateway.upstream().seen("/public/many"), 0);
    let mut client = Frames::connect(gateway.addr()).await;
    client.send(request(false, 10_000)).await;
    client.answered(1).await;
    let seen = gateway.upstream().requests();
    let seen = seen
        .iter()
        .find(|seen| seen.head.path() == "/public/many")
        .expect("it arrived");
    assert_eq!(
        seen.head
            .fields
            .iter()
            .filter(|(name, _)| name.starts_with("x-"))
            .count()
            / 1_000,
        10
    );
    // More fields than any map has room for.
    let mut client = Frames::connect(gateway.addr()).await;
    client.send(request(false, 60_000)).await;
    client.next().await;
    assert_eq!(gateway.upstream().seen("/public/many"), 1);
    assert!(control.end().await > 0);
}

#[tokio::test]
async fn what_is_large_but_allowed_arrives() {
    let gateway = Gateway::start().await;
    let mut client = gateway.raw().await;
    client.send(get(&format!("/public/x?{}", "q".repeat(8 << 10)))).await;
    assert_eq!(client.answer().await.status(), 200);
}
