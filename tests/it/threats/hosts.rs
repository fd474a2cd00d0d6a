//! ROUTE-08, ROUTE-12: a request has one host, in whatever form it is written.

use super::{BOTH, Via, ask, refused_and_closed, sent};
use crate::harness::{Gateway, Setup, h2_client::H2Client};

/// A gateway that has two hundred hosts, each of its own, all of them guarded, beside one for everybody.
async fn crowded() -> Gateway {
    let mut routes = String::from("{ path = '/*', upstream = 'app', auth = 'public' }");
    for number in 0..200 {
        let more = format!(", {{ host = 'h{number}.example', path = '/*', upstream = 'app' }}");
        routes.push_str(&more);
    }
    routes.push_str(", { host = '*.tenants.example', path = '/*', upstream = 'app' }");
    Setup::default().with(&format!("routes = [{routes}]")).start().await
}

#[tokio::test]
async fn route_08_a_host_is_the_same_in_every_form() {
    let gateway = crowded().await;
    let forms = |name: &str| {
        let upper = name.to_ascii_uppercase();
        [
            name.to_owned(),
            upper.clone(),
            format!("{name}."),
            format!("{name}:443"),
            format!("{name}:80"),
            format!("{upper}.:8443"),
            format!("{name}:"),
        ]
    };
    for number in [0, 7, 99, 199] {
        for host in forms(&format!("h{number}.example")) {
            let saw = ask(&gateway, Via::Http1, "GET", "/x", &[("Host", &host)]).await;
            assert_eq!(saw.status, 401, "{host}");
        }
        let client = H2Client::connect(gateway.addr(), &format!("H{number}.Example.:443")).await;
        assert_eq!(client.get("/x").await.status, 401);
    }
    for host in forms("ada.tenants.example").iter().chain(&forms("a.b.tenants.example")) {
        let saw = ask(&gateway, Via::Http1, "GET", "/x", &[("Host", host)]).await;
        assert_eq!(saw.status, 401, "{host}");
    }
    assert_eq!(gateway.upstream().requests().len(), 0);
    for via in BOTH {
        assert_eq!(ask(&gateway, via, "GET", "/x", &[]).await.status, 200);
    }
    for host in forms("app.example.com") {
        let saw = ask(&gateway, Via::Http1, "GET", "/x", &[("Host", &host)]).await;
        assert_eq!(saw.status, 200, "{host}");
        let told = gateway.upstream().last().head;
        let host = told.one("host").unwrap();
        assert!(host.starts_with("app.example.com") && !host.contains(".:"), "{host}");
    }
}

/// Served by nobody: neither the guarded routes nor those for every host.
#[tokio::test]
async fn route_08_a_host_that_looks_like_one_of_ours_is_none() {
    let gateway = crowded().await;
    for host in [
        "h7.example.evil.example",
        "xh7.example",
        "h7-example",
        "h7.example.com",
        "h07.example",
        "tenants.example",
        "xtenants.example",
        "tenants.example.evil.example",
        "localhost",
        "127.0.0.1",
        "[::1]",
        "0",
        "app.example.com.evil.example",
        "app-example.com",
        "xn--pp-fka.example.com",
    ] {
        let saw = ask(&gateway, Via::Http1, "GET", "/x", &[("Host", host)]).await;
        assert_eq!(saw.status, 421, "{host}");
        let client = H2Client::connect(gateway.addr(), host).await;
        assert_eq!(client.get("/x").await.status, 421, "{host}");
    }
    assert_eq!(gateway.upstream().requests().len(), 0);
}

#[tokio::test]
async fn route_12_a_request_without_one_clear_host_is_none() {
    let gateway = Gateway::start().await;
    let host = gateway.host();
    let twice = format!("Host: {host}\r\nHost: {host}");
    let other = format!("Host: {host}\r\nHost: evil.example");
    let cases = format!("host: {host}\r\nHOST: {host}");
    let lines = [
        "",
        &twice,
        &other,
        &cases,
        "Host:",
        "Host: ",
        "Host: a, b",
        "Host: app.example.com, app.example.com",
        "Host: a b",
        "Host: app.example.com evil.example",
        "Host: app.example.com/",
        "Host: app.example.com/admin",
        "Host: app.example.com?x",
        "Host: app.example.com#x",
        "Host: app.example.com\\x",
        "Host: app.example.com;x",
        "Host: app.example.com@evil.example",
        "Host: evil.example@app.example.com",
        "Host: user:pw@app.example.com",
        "Host: https://app.example.com",
        "Host: //app.example.com",
        "Host: app.example.com:x",
        "Host: app.example.com:-1",
        "Host: app.example.com:+443",
        "Host: app.example.com:65536",
        "Host: app.example.com:443:443",
        "Host: app.example.com..",
        "Host: .app.example.com",
        "Host: app..example.com",
        "Host: app%2eexample.com",
        "Host: app.example.com%00",
        "Host: \u{e4}pp.example.com",
        "Host: [::1",
        "Host: ::1",
        "Host: \"app.example.com\"",
        "Host: *",
    ];
    for line in lines {
        let line = if line.is_empty() {
            String::new()
        } else {
            format!("{line}\r\n")
        };
        let (answer, mut client) = sent(&gateway, format!("GET /public/x HTTP/1.1\r\n{line}\r\n")).await;
        assert_eq!(answer.status(), 400, "{line:?}");
        assert!(client.is_closed().await, "{line:?}: the connection goes on");
    }
    for head in [
        "GET /public/x HTTP/1.1\r\nHost : app.example.com\r\n\r\n",
        "GET /public/x HTTP/1.1\r\n Host: app.example.com\r\n\r\n",
        "GET /public/x HTTP/1.1\r\nHost: app.example.com\0\r\n\r\n",
        "GET /public/x HTTP/1.1\r\nHost: app.example.com\r\n evil.example\r\n\r\n",
    ] {
        refused_and_closed(&gateway, head).await;
    }
    // The target names one as well: both have to be the same.
    for (target, line) in [
        ("http://app.example.com/public/x", "Host: evil.example"),
        ("http://evil.example/public/x", "Host: app.example.com"),
        ("http://app.example.com:81/public/x", "Host: app.example.com"),
        ("http://app.example.com/public/x", "Host: app.example.com:81"),
        ("http://app.example.com@evil.example/public/x", "Host: app.example.com"),
        ("http://user@app.example.com/public/x", "Host: app.example.com"),
        ("http:///public/x", "Host: app.example.com"),
        ("http://app.example.com/public/x", "X-Host: app.example.com"),
        ("ftp://app.example.com/public/x", "Host: app.example.com"),
        ("app.example.com/public/x", "Host: app.example.com"),
        ("//app.example.com@evil.example/public/x", "Host: evil.example"),
        ("*", "Host: app.example.com"),
    ] {
        let (answer, _) = sent(&gateway, format!("GET {target} HTTP/1.1\r\n{line}\r\n\r\n")).await;
        assert!(
            matches!(answer.status(), 400 | 404 | 421),
            "{target} {line}: {}",
            answer.status()
        );
    }
    assert_eq!(gateway.upstream().requests().len(), 0);
    for target in [
        "http://app.example.com/public/x",
        "HTTP://APP.example.com./public/x",
        "https://app.example.com/public/x",
    ] {
        let head = format!("GET {target} HTTP/1.1\r\nHost: app.example.com\r\n\r\n");
        let (answer, _) = sent(&gateway, head).await;
        assert_eq!((answer.status(), answer.text()), (200, "GET /public/x"), "{target}");
    }
}
