//! Fields that concern one connection end with it.

use crate::harness::Gateway;

#[tokio::test]
async fn fields_of_the_connection_are_not_forwarded() {
    let gateway = Gateway::start().await;
    gateway
        .get("/public/x")
        .header("Connection", "keep-alive, X-Private")
        .header("Connection", "x-other")
        .header("Keep-Alive", "timeout=5")
        .header("Proxy-Connection", "keep-alive")
        .header("Proxy-Authorization", "Basic YTpi")
        .header("TE", "gzip")
        .header("X-Private", "1")
        .header("X-Other", "1")
        .header("X-Kept", "1")
        .await;
    let head = gateway.upstream().last().head;
    for name in [
        "keep-alive",
        "proxy-connection",
        "proxy-authorization",
        "te",
        "x-private",
        "x-other",
    ] {
        assert!(!head.has(name), "{name} was forwarded: {head:?}");
    }
    assert!(head.has("x-kept"));
}

#[tokio::test]
async fn fields_of_the_upstreams_connection_stay_there() {
    let gateway = Gateway::start().await;
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: X-Secret\r\nX-Secret: 1\r\n\
                  Keep-Alive: timeout=5\r\nX-Kept: 1\r\n\r\nok";
    gateway.upstream().answer("/public/x", answer);
    let answer = gateway.get("/public/x").await;
    assert_eq!(answer.text(), "ok");
    assert!(
        !answer.head.has("x-secret") && !answer.head.has("keep-alive"),
        "{:?}",
        answer.head
    );
    assert!(answer.head.has("x-kept"));
}

#[tokio::test]
async fn smug_18_an_upgrade_to_clear_text_http2_is_ignored() {
    let gateway = Gateway::start().await;
    let answer = gateway
        .get("/public/x")
        .header("Connection", "Upgrade, HTTP2-Settings")
        .header("Upgrade", "h2c")
        .header("HTTP2-Settings", "AAMAAABkAAQCAAAAAAIAAAAA")
        .await;
    assert_eq!(answer.status(), 200);
    let head = gateway.upstream().last().head;
    assert!(!head.has("upgrade") && !head.has("http2-settings"), "{head:?}");
}

#[tokio::test]
async fn spoof_14_fields_that_show_an_upstream_another_request_are_removed() {
    let gateway = Gateway::start().await;
    let names = [
        "X-Original-URL",
        "X-Original-URI",
        "X-Rewrite-URL",
        "X-Forwarded-Uri",
        "X-Forwarded-Method",
        "X-Forwarded-Prefix",
        "X-Forwarded-Server",
        "X-HTTP-Method-Override",
        "X-HTTP-Method",
        "X-Method-Override",
        "Proxy",
    ];
    let call = names
        .iter()
        .fold(gateway.get("/public/x"), |call, name| call.header(name, "/admin"));
    assert_eq!(call.await.status(), 200);
    let head = gateway.upstream().last().head;
    for name in names {
        assert_eq!(head.spellings(name), [""; 0], "{name}");
    }
}
