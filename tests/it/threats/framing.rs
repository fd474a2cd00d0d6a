//! SMUG: where a request ends, everybody agrees on, or it is none. What is generated at random is in `framing.rs`.

use serde_json::json;
use tokio::io::AsyncWriteExt;

use super::{refused_and_closed, sent};
use crate::{
    harness::{Gateway, RawClient, SOON, eventually, h2_client::H2Client},
    http2::{PREFACE, SETTINGS, frames, headers_frame},
    upgrade::upgrade,
};

/// A request with these fields and this body, behind which another stands.
fn post(gateway: &Gateway, fields: &str, body: &str) -> String {
    format!(
        "POST /public/x HTTP/1.1\r\nHost: {}\r\n{fields}\r\n\r\n{body}",
        gateway.host()
    )
}

fn smuggled(gateway: &Gateway) -> String {
    format!(
        "GET /admin/smuggled HTTP/1.1\r\nHost: {}\r\nX-User-Id: 1\r\n\r\n",
        gateway.host()
    )
}

#[tokio::test]
async fn smug_01_smug_02_a_length_beside_a_coding_never_hides_a_request() {
    let gateway = Gateway::start().await;
    let hidden = smuggled(&gateway);
    let chunk = format!("{:x}\r\n{hidden}\r\n0\r\n\r\n", hidden.len());
    for fields in [
        "Content-Length: 4\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 4",
        "Transfer-Encoding: chunked\r\nContent-Length: 0",
        "content-length: 4\r\ntransfer-encoding: CHUNKED",
        "Content-Length: 4\r\nX-A: b\r\nTransfer-Encoding:chunked",
        "Content-Length: 4\r\nContent-Length: 4\r\nTransfer-Encoding: chunked",
    ] {
        for body in [format!("0\r\n\r\n{hidden}"), chunk.clone()] {
            let (answer, mut client) = sent(&gateway, post(&gateway, fields, &body)).await;
            assert!(matches!(answer.status(), 200 | 400), "{fields}: {}", answer.status());
            assert!(client.is_closed().await, "{fields}: what stands behind is answered");
        }
    }
    assert_eq!(gateway.upstream().seen("/admin/smuggled"), 0);
    for seen in gateway.upstream().requests() {
        let framings = seen.head.all("content-length").len() + seen.head.all("transfer-encoding").len();
        assert_eq!(framings, 1, "{:?}", seen.head);
        assert!(seen.body.is_empty() || seen.body == hidden.as_bytes());
    }
}

#[tokio::test]
async fn smug_03_smug_24_only_chunked_alone_is_a_coding() {
    let gateway = Gateway::start().await;
    for value in [
        " xchunked",
        " chunkedx",
        " chunked, identity",
        " identity, chunked",
        " chunked, chunked",
        " chunked,",
        " ,chunked",
        " identity",
        " ",
        "",
        "\u{b}chunked",
        " \u{b}chunked",
        " \u{c}chunked",
        " chunked\u{b}",
        " chunked;q=1",
        " chunked ;a",
        " \"chunked\"",
        " 'chunked'",
        " chunked\0",
        " chun\tked",
        " gzip",
        " gzip, chunked",
        " gzip,chunked",
        " deflate, chunked",
        " compress, chunked",
        " trailers, chunked",
        " x, chunked",
        " identity\r\nTransfer-Encoding: chunked",
        " gzip\r\nTransfer-Encoding: chunked",
        " chunked\r\nTransfer-Encoding: identity",
        " chunked\r\nTransfer-Encoding: chunked",
        " \r\n chunked",
        " chunked\r\n , identity",
        " ｃhunked",
    ] {
        let fields = format!("Transfer-Encoding:{value}");
        refused_and_closed(&gateway, post(&gateway, &fields, "0\r\n\r\n")).await;
    }
    for line in [
        "Transfer-Encoding : chunked",
        "Transfer-Encoding\t: chunked",
        " Transfer-Encoding: chunked",
        "Transfer-Encoding\0: chunked",
        "X: y\nTransfer-Encoding: chunked",
        "X: y\rTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\nX: y",
    ] {
        refused_and_closed(&gateway, post(&gateway, line, "0\r\n\r\n")).await;
    }
    assert_eq!(gateway.upstream().requests().len(), 0);
    // A name that only looks like it is none, and is not passed on: a back end could take it for one.
    for line in [
        "Transfer_Encoding: chunked",
        "Transfer.Encoding: chunked",
        "Content_Length: 5",
    ] {
        let fields = format!("{line}\r\nContent-Length: 2");
        let (answer, _) = sent(&gateway, post(&gateway, &fields, "ok")).await;
        assert_eq!(answer.status(), 200, "{line}");
        let seen = gateway.upstream().last();
        assert_eq!(
            (seen.head.one("content-length"), seen.body.as_slice()),
            (Some("2"), &b"ok"[..])
        );
        let name = line.split(':').next().unwrap();
        assert!(!seen.head.has(name), "{:?}", seen.head);
    }
    for value in ["chunked", "Chunked", "CHUNKED", "  chunked\t"] {
        let body = "2\r\nok\r\n0\r\n\r\n";
        let (answer, _) = sent(&gateway, post(&gateway, &format!("Transfer-Encoding: {value}"), body)).await;
        assert_eq!(answer.status(), 200, "{value:?}");
        assert_eq!(gateway.upstream().last().body, b"ok");
    }
    // Before HTTP/1.1 there were no codings.
    let old = format!(
        "POST /public/x HTTP/1.0\r\nHost: {}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        gateway.host()
    );
    let before = gateway.upstream().requests().len();
    refused_and_closed(&gateway, old).await;
    assert_eq!(gateway.upstream().requests().len(), before);
}

#[tokio::test]
async fn smug_04_a_length_is_one_number() {
    let gateway = Gateway::start().await;
    for value in [
        "3\r\nContent-Length: 4",
        "4\r\nContent-Length: 3",
        "3, 4",
        "3, 3",
        "3,3",
        "+3",
        "-3",
        "-0",
        "0x3",
        "3h",
        "3.0",
        "3e0",
        "3_0",
        "",
        "3 3",
        "3;",
        "\"3\"",
        "three",
        "３",
        "\u{b}3",
        "3\u{b}",
        "3\0",
        "99999999999999999999",
        "18446744073709551616",
        "\r\n 3",
    ] {
        refused_and_closed(&gateway, post(&gateway, &format!("Content-Length: {value}"), "abc")).await;
    }
    assert_eq!(gateway.upstream().requests().len(), 0);
    for (fields, body) in [
        ("Content-Length: 3", "abc"),
        ("Content-Length:3", "abc"),
        ("content-length: \t3 ", "abc"),
        ("Content-Length: 3\r\nContent-Length: 3", "abc"),
        ("Content-Length: 0", ""),
    ] {
        let (answer, _) = sent(&gateway, post(&gateway, fields, body)).await;
        assert_eq!(answer.status(), 200, "{fields}");
        let seen = gateway.upstream().last();
        assert_eq!(seen.body, body.as_bytes(), "{fields}");
        assert!(seen.head.all("content-length").len() <= 1, "{:?}", seen.head);
    }
}

#[tokio::test]
async fn smug_06_smug_08_lines_end_with_cr_lf_and_are_not_folded() {
    let gateway = Gateway::start().await;
    let host = gateway.host();
    for head in [
        format!("GET /public/x HTTP/1.1\nHost: {host}\n\n"),
        format!("GET /public/x HTTP/1.1\r\nHost: {host}\nX: y\r\n\r\n"),
        format!("GET /public/x HTTP/1.1\nHost: {host}\r\n\r\n"),
        format!("GET /public/x HTTP/1.1\r\nHost: {host}\r\n\n"),
        format!("GET /public/x HTTP/1.1\r\nHost: {host}\n\r\n"),
        format!("GET /public/x HTTP/1.1\rHost: {host}\r\r"),
        format!("GET /public/x HTTP/1.1\r\nHost: {host}\r\nX: y\r\r\n\r\n"),
        format!("GET /public/x HTTP/1.1\r\nHost: {host}\r\nX: y\rZ: 1\r\n\r\n"),
        format!("GET /public/x HTTP/1.1\n\r\nHost: {host}\r\n\r\n"),
        format!("GET /public/x HTTP/1.1\r\nHost: {host}\r\nX: y\r\n folded\r\n\r\n"),
        format!("GET /public/x HTTP/1.1\r\nHost: {host}\r\nX: y\r\n\tfolded: 1\r\n\r\n"),
        format!("GET /public/x HTTP/1.1\r\nHost: {host}\r\nX:\r\n y\r\n\r\n"),
        format!("GET /public/x HTTP/1.1\r\n X: y\r\nHost: {host}\r\n\r\n"),
        format!("GET /public/x HTTP/1.1\r\nHost: {host}\r\n \r\n\r\n"),
    ] {
        let mut client = gateway.raw().await;
        client.send(&head).await;
        // Whoever writes no line end at all may be waited for.
        client.stream.get_mut().shutdown().await.unwrap();
        let rest = String::from_utf8_lossy(&client.rest().await).into_owned();
        assert!(rest.is_empty() || rest.starts_with("HTTP/1.1 400"), "{head:?}: {rest}");
        assert_eq!(gateway.upstream().requests().len(), 0, "{head:?}");
    }
}

#[tokio::test]
async fn smug_10_a_chunk_that_is_none_is_the_clients_fault() {
    let gateway = Gateway::start().await;
    for chunks in [
        "2;\nxx\r\n0\r\n\r\n",
        "2\nxx\r\n0\r\n\r\n",
        "2;a=b\nxx\r\n0\r\n\r\n",
        "2\r\nxx\n0\r\n\r\n",
        "2\r\nxx0\r\n\r\n",
        "2\r\nxxx\r\n0\r\n\r\n",
        "2 \nxx\r\n0\r\n\r\n",
        "2\rxx\r\n0\r\n\r\n",
        "+2\r\nxx\r\n0\r\n\r\n",
        "-2\r\nxx\r\n0\r\n\r\n",
        "0x2\r\nxx\r\n0\r\n\r\n",
        "zz\r\nxx\r\n",
        "\r\n2\r\nxx\r\n0\r\n\r\n",
        "2\0\r\nxx\r\n0\r\n\r\n",
        "10000000000000002\r\nxx\r\n0\r\n\r\n",
        "ffffffffffffffffff\r\nxx\r\n",
        "2\r\nxx\r\n0\n\r\n",
        "2\r\nxx\r\n0\r\nX: y\n\r\n",
        "2\r\nxx\r\n0\r\nX : y\r\n\r\n",
    ] {
        let behind = smuggled(&gateway);
        let bytes = post(&gateway, "Transfer-Encoding: chunked", chunks) + &behind;
        let (answer, mut client) = sent(&gateway, bytes).await;
        assert_eq!(answer.status(), 400, "{chunks:?}");
        assert!(client.is_closed().await, "{chunks:?}");
    }
    assert_eq!(gateway.upstream().seen("/admin/smuggled"), 0);
    assert_eq!(gateway.upstream().seen("/public/x"), 0, "none of them was whole");
    let whole = "2;ext=\"a\"\r\nxx\r\nA\r\n0123456789\r\n000\r\n\r\n";
    let (answer, _) = sent(&gateway, post(&gateway, "Transfer-Encoding: chunked", whole)).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(gateway.upstream().last().body, b"xx0123456789");
}

#[tokio::test]
async fn smug_13_a_body_is_no_request_whatever_becomes_of_it() {
    let gateway = Gateway::start().await;
    let host = gateway.host();
    let hidden = smuggled(&gateway);
    let real = format!("GET /public/real HTTP/1.1\r\nHost: {host}\r\n\r\n");
    let length = hidden.len();
    let chunked = format!("{length:x}\r\n{hidden}\r\n0\r\n\r\n");
    for (line, status) in [
        ("GET /public/x", 200),
        ("DELETE /public/x", 200),
        ("HEAD /public/x", 200),
        ("OPTIONS /public/x", 200),
        ("POST /api/x", 401),
        ("GET /api/x", 401),
        ("POST /nothing", 404),
        ("TRACE /public/x", 405),
        ("POST /public/%zz", 400),
        ("POST /api/auth/nothing", 404),
        ("GET /api/auth/ok", 200),
        ("GET /api/auth/get-session", 200),
    ] {
        for (fields, body) in [
            (format!("Content-Length: {length}"), &hidden),
            ("Transfer-Encoding: chunked".to_owned(), &chunked),
        ] {
            let method = line.split(' ').next().unwrap();
            let before = gateway.upstream().seen("/public/real");
            let mut client = gateway.raw().await;
            client
                .send(format!(
                    "{line} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n\r\n{body}{real}"
                ))
                .await;
            assert_eq!(client.answer_to(method).await.status(), status, "{line} {fields}");
            // Either it goes on with the next request, or it ends.
            let rest = next(&mut client).await;
            assert!(
                matches!(rest.as_deref(), None | Some("GET /public/real")),
                "{line} {fields}: {rest:?}"
            );
            let came = gateway.upstream().seen("/public/real") - before;
            assert_eq!(came, usize::from(rest.is_some()), "{line} {fields}");
        }
    }
    assert_eq!(gateway.upstream().seen("/admin/smuggled"), 0);
    // Too much to be read for nothing: it ends.
    let large = hidden.repeat(3000);
    let mut client = gateway.raw().await;
    let head = format!(
        "POST /api/x HTTP/1.1\r\nHost: {host}\r\nContent-Length: {}\r\n\r\n",
        large.len()
    );
    client.send(head + &large + &real).await;
    let rest = client.rest().await;
    let rest = String::from_utf8_lossy(&rest);
    assert!(rest.is_empty() || rest.starts_with("HTTP/1.1 401"), "{rest}");
    assert_eq!(
        rest.matches("HTTP/1.1").count(),
        usize::from(!rest.is_empty()),
        "{rest}"
    );
    assert_eq!(gateway.upstream().seen("/admin/smuggled"), 0);
}

/// The body of the next answer, if there is one.
async fn next(client: &mut RawClient) -> Option<String> {
    use tokio::io::AsyncBufReadExt;
    let more = tokio::time::timeout(SOON, client.stream.fill_buf())
        .await
        .expect("an answer or an end");
    if !more.is_ok_and(|bytes| !bytes.is_empty()) {
        return None;
    }
    Some(client.answer().await.text().to_owned())
}

#[tokio::test]
async fn smug_16_what_follows_an_upgrade_that_is_declined_is_nobodys_request() {
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    let mut conversations = gateway.upstream().by_hand("/api/ws");
    for declined in [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno",
        "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\n\r\n",
        "HTTP/1.1 204 No Content\r\n\r\n",
    ] {
        let mut client = gateway.raw().await;
        client
            .send(upgrade(&gateway, "/api/ws", Some(&ada)) + &smuggled(&gateway))
            .await;
        let mut upstream = conversations.next().await;
        upstream.send(declined).await;
        let rest = String::from_utf8_lossy(&client.rest().await).into_owned();
        assert_eq!(rest.matches("HTTP/1.1 ").count(), 1, "{declined:?}: {rest}");
        assert!(!rest.starts_with("HTTP/1.1 101"), "{declined:?}: {rest}");
        drop(upstream);
    }
    assert_eq!(gateway.upstream().seen("/admin/smuggled"), 0);
}

#[tokio::test]
async fn smug_18_clear_text_http2_is_not_switched_to() {
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    for (connection, upgrade) in [
        ("Upgrade, HTTP2-Settings", "h2c"),
        ("upgrade, http2-settings", "H2C"),
        ("Upgrade", "h2c, websocket"),
        ("Upgrade", "websocket, h2c"),
        ("Upgrade", "TLS/1.0, h2c"),
        ("keep-alive, Upgrade", "h2"),
        ("HTTP2-Settings", "h2c"),
        ("Upgrade", "connect-ip"),
        ("Upgrade", "\th2c"),
    ] {
        let call = gateway
            .get("/api/x")
            .with(&ada)
            .header("Connection", connection)
            .header("Upgrade", upgrade);
        let answer = call.header("HTTP2-Settings", "AAMAAABkAAQCAAAAAAIAAAAA").await;
        assert_eq!((answer.status(), answer.text()), (200, "GET /api/x"), "{upgrade}");
        let head = gateway.upstream().last().head;
        for name in ["upgrade", "http2-settings"] {
            assert!(!head.has(name), "{connection} {upgrade}: {head:?}");
        }
        assert!(
            !head
                .all("connection")
                .join(",")
                .to_ascii_lowercase()
                .contains("upgrade"),
            "{head:?}"
        );
    }
}

/// A DATA frame.
fn data_frame(stream: u32, payload: &[u8], is_last: bool) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend_from_slice(&[0, u8::from(is_last)]);
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

#[tokio::test]
async fn smug_20_a_length_that_the_data_does_not_keep_to_costs_the_stream() {
    let gateway = Gateway::start().await;
    let hidden = smuggled(&gateway);
    for (declared, data) in [
        ("0", hidden.as_bytes()),
        ("3", hidden.as_bytes()),
        ("4000", &b"abc"[..]),
        ("40", &b""[..]),
        ("+3", &b"abc"[..]),
        ("3, 3", &b"abc"[..]),
        ("-1", &b""[..]),
        ("0x3", &b"abc"[..]),
    ] {
        let mut head = headers_frame(
            1,
            &[
                (":method", "POST"),
                (":scheme", "http"),
                (":authority", gateway.host()),
                (":path", "/public/odd"),
                ("content-length", declared),
            ],
        );
        // The body follows: not END_STREAM.
        head[4] &= !0x1;
        let data = data_frame(1, data, true);
        let mut client = gateway.raw().await;
        client.send([PREFACE, SETTINGS, &head, &data].concat()).await;
        let good = headers_frame(
            3,
            &[
                (":method", "GET"),
                (":scheme", "http"),
                (":authority", gateway.host()),
                (":path", "/public/good"),
            ],
        );
        client.send(&good).await;
        // All that it has to say before its connection ends.
        client.stream.get_mut().shutdown().await.unwrap();
        let frames = frames(&client.rest().await);
        // RST_STREAM, GOAWAY, or an answer that refuses it; never 200, which is indexed as 8 (RFC 7541, A).
        let answered = frames
            .iter()
            .any(|(kind, stream, payload)| *kind == 1 && *stream == 1 && payload.first() == Some(&0x88));
        assert!(!answered, "{declared:?}: {frames:?}");
        assert!(
            gateway
                .upstream()
                .requests()
                .iter()
                .all(|seen| seen.head.path() == "/public/good"),
            "{declared:?}"
        );
    }
    // The connections to the upstream are as they should be.
    for number in 0..10 {
        let path = format!("/public/after/{number}");
        assert_eq!(gateway.get(&path).await.text(), format!("GET {path}"));
    }
    let client = H2Client::connect(gateway.addr(), gateway.host()).await;
    let request = client.request("POST", "/public/even").header("content-length", "3");
    let body = http_body_util::Full::new(bytes::Bytes::from_static(b"abc"));
    assert_eq!(client.send(request.body(body).unwrap()).await.unwrap().status, 200);
    assert_eq!(gateway.upstream().last().body, b"abc");
}

#[tokio::test]
async fn smug_27_cookies_in_crumbs_are_one_line_for_whoever_reads_the_first() {
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    let client = H2Client::connect(gateway.addr(), gateway.host()).await;
    for (crumbs, left) in [
        (vec!["a=1", ada.cookie.as_str()], Some("a=1")),
        (vec![ada.cookie.as_str(), "a=1"], Some("a=1")),
        (vec!["a=1", ada.cookie.as_str(), "b=2"], Some("a=1; b=2")),
        (vec!["a=1", "b=2", "c=3", ada.cookie.as_str()], Some("a=1; b=2; c=3")),
        (vec![ada.cookie.as_str(), ada.cookie.as_str()], None),
    ] {
        let request = crumbs.iter().fold(client.request("GET", "/api/me"), |request, crumb| {
            request.header("cookie", *crumb)
        });
        let answer = client
            .send(request.body(http_body_util::Full::default()).unwrap())
            .await
            .unwrap();
        assert_eq!(answer.status, 200, "{crumbs:?}");
        let head = gateway.upstream().last().head;
        assert_eq!(head.one("cookie").filter(|line| !line.is_empty()), left, "{crumbs:?}");
        assert_eq!(head.one("x-user-id"), Some(ada.id.as_str()));
    }
    // On HTTP/1.1 several lines are cut as one is.
    let call = gateway
        .get("/api/me")
        .header("Cookie", "a=1")
        .header("Cookie", &ada.cookie);
    assert_eq!(call.header("Cookie", "b=2").await.status(), 200);
    assert_eq!(gateway.upstream().last().head.all("cookie"), ["a=1; b=2"]);
}

#[tokio::test]
async fn smug_28_pipelined_requests_of_an_app_and_of_browsers_keep_apart() {
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    let eve = gateway.signed_in("eve@example.com").await;
    let host = gateway.host();
    let lines = [
        format!("Cookie: {}", ada.cookie),
        format!("Authorization: Bearer {}", eve.token),
        "X-Nobody: 1".to_owned(),
        format!("Cookie: {}", eve.cookie),
        format!("Authorization: Bearer {}", ada.token),
        format!("Cookie: {}x", ada.cookie),
    ];
    let all: String = lines.iter().enumerate().fold(String::new(), |all, (at, line)| {
        all + &format!("POST /optional/{at} HTTP/1.1\r\nHost: {host}\r\n{line}\r\nContent-Length: 1\r\n\r\n{at}")
    });
    let mut client = gateway.raw().await;
    client.send(all).await;
    for at in 0..lines.len() {
        assert_eq!(client.answer().await.text(), format!("POST /optional/{at}"));
    }
    eventually(SOON, async || gateway.upstream().requests().len() == lines.len()).await;
    let ids: Vec<_> = gateway
        .upstream()
        .requests()
        .iter()
        .map(|seen| json!(seen.head.one("x-user-id")))
        .collect();
    assert_eq!(
        ids,
        [
            json!(ada.id),
            json!(eve.id),
            json!(null),
            json!(eve.id),
            json!(ada.id),
            json!(null)
        ]
    );
}
