//! METHOD: methods that make no sense through a gateway end at it.

use super::{BOTH, Via, ask, sent};
use crate::harness::{Gateway, Setup};

#[tokio::test]
async fn method_01_trace_shows_nobody_what_was_sent() {
    let setup = Setup::default().with(
        "[[routes]]\npath = '/api/*'\nupstream = 'app'\n[[routes]]\npath = '/public/*'\nupstream = 'app'\nauth = 'public'",
    );
    let gateway = setup.start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    for via in BOTH {
        for path in [
            "/api/me",
            "/public/x",
            "/nothing",
            "/api/auth/get-session",
            "/public/../api/me",
        ] {
            for fields in [
                &[("Cookie", ada.cookie.as_str())][..],
                &[("Cookie", ada.cookie.as_str()), ("Max-Forwards", "0")],
                &[("Max-Forwards", "5"), ("X-HTTP-Method-Override", "GET")],
            ] {
                let saw = ask(&gateway, via, "TRACE", path, fields).await;
                assert_eq!(saw.status, 405, "{via:?} {path}");
                assert!(
                    !saw.text().contains(&ada.token) && !saw.text().contains("Cookie"),
                    "{}",
                    saw.text()
                );
                assert_ne!(saw.one("content-type"), Some("message/http"));
            }
        }
        for method in ["trace", "Trace", "TRACK", "DEBUG", "TRACE2"] {
            let saw = ask(&gateway, via, method, "/api/me", &[("Cookie", ada.cookie.as_str())]).await;
            assert_eq!(saw.status, 501, "{via:?} {method}");
        }
    }
    assert_eq!(gateway.upstream().requests().len(), 0);
}

#[tokio::test]
async fn method_02_connect_makes_no_tunnel() {
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    let host = gateway.host();
    for target in [
        "internal:80",
        "app.example.com:443",
        "127.0.0.1:22",
        "[::1]:22",
        "/public/x",
        "http://internal/",
        "*",
        "internal",
    ] {
        for lines in [
            format!("Host: {host}"),
            format!("Host: {target}"),
            format!("Host: {host}\r\nCookie: {}", ada.cookie),
        ] {
            let behind = "GET /public/behind HTTP/1.1\r\nHost: app.example.com\r\n\r\n";
            let (answer, _) = sent(
                &gateway,
                format!("CONNECT {target} HTTP/1.1\r\n{lines}\r\n\r\n{behind}"),
            )
            .await;
            assert!(
                matches!(answer.status(), 400 | 405),
                "{target} {lines}: {}",
                answer.status()
            );
        }
    }
    // No tunnel: what followed was a request, or nothing at all.
    let tunnelled = gateway.upstream().requests();
    assert!(
        tunnelled.iter().all(|seen| seen.head.method() == "GET"),
        "{tunnelled:?}"
    );
}

/// Methods are told apart by their letters, so that a guard on one is not met by another.
#[tokio::test]
async fn method_01_a_method_is_taken_as_it_is_written() {
    let routes = r"
        routes = [
            { path = '/read/*', methods = ['GET'], upstream = 'app', auth = 'public' },
            { path = '/write/*', upstream = 'app' },
        ]";
    let gateway = Setup::default().with(routes).start().await;
    for via in BOTH {
        for (method, path, status) in [
            ("GET", "/read/x", 200),
            ("HEAD", "/read/x", 200),
            ("get", "/read/x", 501),
            ("Get", "/read/x", 501),
            ("POST", "/read/x", 405),
            ("GETX", "/read/x", 501),
            ("OPTIONS", "/read/x", 405),
            ("BREW", "/write/x", 501),
            ("get", "/write/x", 501),
            ("PATCH", "/write/x", 401),
        ] {
            assert_eq!(
                ask(&gateway, via, method, path, &[]).await.status,
                status,
                "{via:?} {method} {path}"
            );
        }
    }
    for line in [
        "G\tET /read/x",
        "G(ET /read/x",
        "\u{e9}GET /read/x",
        "\0GET /read/x",
        "GET\0 /read/x",
        ": /read/x",
        " /read/x",
    ] {
        let (answer, _) = sent(&gateway, format!("{line} HTTP/1.1\r\nHost: {}\r\n\r\n", gateway.host())).await;
        assert_eq!(answer.status(), 400, "{line:?}");
    }
    assert!(
        gateway
            .upstream()
            .requests()
            .iter()
            .all(|seen| matches!(seen.head.method(), "GET" | "HEAD"))
    );
    assert!(
        ask(
            &gateway,
            Via::Http1,
            "GET",
            "/read/x",
            &[("X-HTTP-Method-Override", "DELETE")]
        )
        .await
        .status
            == 200
    );
    assert_eq!(gateway.upstream().last().head.method(), "GET");
}
