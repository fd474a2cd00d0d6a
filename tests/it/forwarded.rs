//! What upstreams are told about the client, and whom the gateway believes about it.

use crate::harness::{Gateway, Setup};

#[tokio::test]
async fn a_client_that_nobody_trusts_is_described_by_the_gateway_alone() {
    let gateway = Gateway::start().await;
    gateway
        .get("/public/x")
        .header("X-Forwarded-For", "1.2.3.4")
        .header("X-Forwarded-Proto", "http")
        .header("X-Forwarded-Host", "evil.example")
        .header("Forwarded", "for=1.2.3.4;host=evil.example")
        .header("X-Real-IP", "1.2.3.4")
        .await;
    let head = gateway.upstream().last().head;
    assert_eq!(head.one("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(head.one("x-forwarded-proto"), Some("https"));
    assert_eq!(head.one("x-forwarded-host"), Some("app.example.com"));
    let forwarded = head.one("forwarded").unwrap();
    assert!(
        forwarded.contains("for=127.0.0.1") && !forwarded.contains("evil"),
        "{forwarded}"
    );
    assert!(!format!("{head:?}").contains("1.2.3.4"), "{head:?}");
}

#[tokio::test]
async fn a_trusted_proxy_s_word_is_kept_and_added_to() {
    let gateway = Setup::default()
        .with("[server]\ntrusted_proxies = ['127.0.0.0/8']")
        .start()
        .await;
    gateway
        .get("/public/x")
        .header("X-Forwarded-For", "203.0.113.7")
        .header("X-Forwarded-Proto", "https")
        .await;
    let head = gateway.upstream().last().head;
    let chain = head.all("x-forwarded-for").join(", ");
    assert!(chain.starts_with("203.0.113.7"), "{chain}");
    assert!(chain.ends_with("127.0.0.1"), "{chain}");
    assert_eq!(head.one("x-forwarded-proto"), Some("https"));
}

#[tokio::test]
async fn every_request_has_an_id() {
    let gateway = Gateway::start().await;
    gateway.get("/public/x").await;
    gateway.get("/public/x").await;
    let ids: Vec<_> = gateway
        .upstream()
        .requests()
        .iter()
        .map(|seen| seen.head.one("x-request-id").unwrap().to_owned())
        .collect();
    assert_ne!(ids[0], ids[1]);
}

#[tokio::test]
async fn route_12_two_hosts_or_none_are_refused() {
    let gateway = Gateway::start().await;
    for head in [
        "GET /public/x HTTP/1.1\r\n\r\n",
        "GET /public/x HTTP/1.1\r\nHost: app.example.com\r\nHost: app.example.com\r\n\r\n",
        "GET /public/x HTTP/1.1\r\nHost: app.example.com, b\r\n\r\n",
        "GET /public/x HTTP/1.1\r\nHost: app.example.com b\r\n\r\n",
        "GET /public/x HTTP/1.1\r\nHost: user@app.example.com\r\n\r\n",
        "GET /public/x HTTP/1.1\r\nHost:\r\n\r\n",
    ] {
        let mut client = gateway.raw().await;
        client.send(head).await;
        assert_eq!(client.answer().await.status(), 400, "{head}");
    }
    assert_eq!(gateway.upstream().requests().len(), 0);
}
