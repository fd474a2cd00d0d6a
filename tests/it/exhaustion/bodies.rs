//! Bodies: too large, in crumbs, packed.

use std::fmt::Write as _;

use serde_json::json;

use super::{Control, reached};
use crate::harness::{Gateway, Setup};

const SIGN_IN: &str = "/api/auth/sign-in/email";

#[tokio::test]
async fn dos_10_bodies_past_the_limit_are_413() {
    let gateway = Setup::default().with("[server]\nmax_body = '100KiB'").start().await;
    let control = Control::signed_in(&gateway).await;
    for (path, limit) in [("/public/x", 100 << 10), (SIGN_IN, 64 << 10)] {
        let head = format!("POST {path} HTTP/1.1\r\nHost: app.example.com\r\nContent-Type: application/json\r\n");
        let mut declared = gateway.raw().await;
        declared
            .send(format!("{head}Content-Length: {}\r\n\r\n", limit + 1))
            .await;
        assert_eq!(declared.answer().await.status(), 413, "{path}");
        let mut chunked = gateway.raw().await;
        chunked.send(format!("{head}Transfer-Encoding: chunked\r\n\r\n")).await;
        let chunk = format!("400\r\n{}\r\n", "x".repeat(1024));
        for _ in 0..=limit / 1024 {
            chunked.send(&chunk).await;
        }
        assert_eq!(chunked.answer().await.status(), 413, "{path}");
    }
    assert!(control.end().await > 0);
    assert_eq!(gateway.upstream().seen("/public/x"), 0, "no whole request came");
    assert!(reached(&gateway, "server.max_body").await >= 2.0);
}

/// Extensions of chunks carry nothing, and cost as much as a body (CVE-2023-39326).
#[tokio::test]
async fn dos_chunks_with_long_extensions_are_refused() {
    let gateway = Gateway::start().await;
    let control = Control::signed_in(&gateway).await;
    for path in ["/public/x", SIGN_IN] {
        for extension in ["x".repeat(64 << 10), ";a=b".repeat(20_000), "x".repeat(300)] {
            let mut client = gateway.raw().await;
            client
                .send(format!(
                    "POST {path} HTTP/1.1\r\nHost: app.example.com\r\nContent-Type: application/json\r\n\
                     Transfer-Encoding: chunked\r\n\r\n"
                ))
                .await;
            let chunk = format!("1;{extension}\r\nx\r\n");
            for _ in 0..200 {
                client.send(&chunk).await;
            }
            let rest = client.rest().await;
            let said = String::from_utf8_lossy(&rest);
            assert!(said.starts_with("HTTP/1.1 400 "), "{path}: {said}");
        }
    }
    assert!(control.end().await > 0);
    assert_eq!(gateway.upstream().seen("/public/x"), 0, "no whole request came");
}

#[tokio::test]
async fn dos_a_body_of_very_many_chunks_arrives_and_keeps_nobody_waiting() {
    let gateway = Gateway::start().await;
    let control = Control::signed_in(&gateway).await;
    let mut client = gateway.raw().await;
    client
        .send("POST /public/x HTTP/1.1\r\nHost: app.example.com\r\nTransfer-Encoding: chunked\r\n\r\n")
        .await;
    let chunks = "1\r\nx\r\n".repeat(1_000);
    for _ in 0..100 {
        client.send(&chunks).await;
    }
    client.send("0\r\n\r\n").await;
    assert_eq!(client.answer().await.status(), 200);
    assert!(control.end().await > 0);
    let seen = gateway.upstream().requests();
    let seen = seen.iter().find(|seen| seen.head.path() == "/public/x").unwrap();
    assert_eq!(seen.body.len(), 100_000);
}

#[tokio::test]
async fn dos_trailers_without_end_are_refused() {
    let gateway = Gateway::start().await;
    let control = Control::signed_in(&gateway).await;
    let many = (0..200).fold(String::new(), |mut fields, number| {
        let _ = write!(fields, "X-{number}: 1\r\n");
        fields
    });
    for trailers in [format!("X-Large: {}\r\n", "x".repeat(64 << 10)), many] {
        let mut client = gateway.raw().await;
        client
            .send(format!(
                "POST /public/x HTTP/1.1\r\nHost: app.example.com\r\nTransfer-Encoding: chunked\r\n\r\n\
                 1\r\nx\r\n0\r\n{trailers}\r\n"
            ))
            .await;
        let rest = client.rest().await;
        let said = String::from_utf8_lossy(&rest);
        assert!(said.starts_with("HTTP/1.1 400 "), "{said}");
    }
    assert!(control.end().await > 0);
    assert_eq!(gateway.upstream().seen("/public/x"), 0, "no whole request came");
}

/// A hundred kilobytes of zeros, by gzip; ten of such in one another would be a bomb.
const PACKED: &[u8] = &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 2, 3, 0xed, 0xc1, 0x01, 0x01];

#[tokio::test]
async fn dos_nothing_packed_is_unpacked() {
    let gateway = Gateway::start().await;
    gateway.verified("ada@example.com").await;
    let plain = json!({ "email": "ada@example.com", "password": crate::harness::people::PASSWORD }).to_string();
    for coding in ["gzip", "br", "deflate", "zstd", "gzip, identity", "x-unknown"] {
        for body in [PACKED.to_vec(), plain.clone().into_bytes()] {
            let answer = gateway
                .post(SIGN_IN)
                .header("Content-Type", "application/json")
                .header("Content-Encoding", coding)
                .body(body)
                .await;
            assert_eq!(
                (answer.status(), answer.code().as_str()),
                (415, "UNSUPPORTED_MEDIA_TYPE"),
                "{coding}"
            );
            assert_eq!(answer.head.one("accept-encoding"), Some("identity"));
        }
    }
    let said = gateway.post(SIGN_IN).header("Content-Type", "application/json");
    let answer = said.header("Content-Encoding", "identity").body(plain).await;
    assert_eq!(answer.status(), 200, "as it is, it is read");
    // What is not ours passes as it is.
    let answer = gateway
        .post("/public/x")
        .header("Content-Encoding", "gzip")
        .body(PACKED)
        .await;
    assert_eq!(answer.status(), 200);
    let seen = gateway.upstream().last();
    assert_eq!(
        (seen.head.one("content-encoding"), seen.body.as_slice()),
        (Some("gzip"), PACKED)
    );
}
