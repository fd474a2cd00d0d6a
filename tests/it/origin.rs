//! Requests that other sites make with a user's cookie.

use crate::harness::{Gateway, Setup};

#[tokio::test]
async fn csrf_06_another_site_can_not_write_with_a_users_cookie() {
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    for fields in [
        vec![("Origin", "https://evil.example")],
        vec![("Origin", "https://evil.example"), ("Sec-Fetch-Site", "cross-site")],
        vec![("Origin", "null")],
        vec![("Origin", "http://app.example.com")],
        vec![("Origin", "https://app.example.com:8443")],
        vec![("Origin", "https://app.example.com.evil.example")],
        vec![("Sec-Fetch-Site", "cross-site")],
        vec![("Sec-Fetch-Site", "same-site")],
    ] {
        let mut call = gateway.post("/api/items").header("Cookie", &ada.cookie).body("x");
        for (name, value) in &fields {
            call = call.header(name, value);
        }
        let answer = call.await;
        assert_eq!(
            (answer.status(), answer.code()),
            (403, "CROSS_ORIGIN".to_owned()),
            "{fields:?}"
        );
    }
    assert_eq!(gateway.upstream().requests().len(), 0);
}

#[tokio::test]
async fn the_own_site_and_programs_that_are_no_browser_can() {
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    for fields in [
        vec![("Origin", "https://app.example.com")],
        vec![("Origin", "https://app.example.com"), ("Sec-Fetch-Site", "same-origin")],
        vec![("Sec-Fetch-Site", "same-origin")],
        vec![("Sec-Fetch-Site", "none")],
        vec![],
    ] {
        let mut call = gateway.post("/api/items").header("Cookie", &ada.cookie).body("x");
        for (name, value) in &fields {
            call = call.header(name, value);
        }
        assert_eq!(call.await.status(), 200, "{fields:?}");
    }
}

#[tokio::test]
async fn csrf_06_a_bearer_token_is_no_cookie() {
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    let call = gateway
        .post("/api/items")
        .bearer(&ada.token)
        .header("Origin", "https://evil.example")
        .body("x");
    assert_eq!(call.await.status(), 200);
}

#[tokio::test]
async fn reading_is_left_to_the_browser_s_own_rules() {
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    let answer = gateway
        .get("/api/items")
        .with(&ada)
        .header("Origin", "https://evil.example")
        .await;
    assert_eq!(answer.status(), 200);
    assert!(!answer.head.has("access-control-allow-origin"));
}

#[tokio::test]
async fn a_trusted_site_can() {
    let gateway = Setup::default()
        .with("[auth]\ntrusted_origins = ['https://partner.example']")
        .start()
        .await;
    let ada = gateway.signed_in("ada@example.com").await;
    let call = gateway.post("/api/items").header("Cookie", &ada.cookie).body("x");
    let call = call
        .header("Origin", "https://partner.example")
        .header("Sec-Fetch-Site", "cross-site");
    assert_eq!(call.await.status(), 200);
}

#[tokio::test]
async fn ws_01_a_socket_counts_as_writing() {
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    let answer = gateway
        .get("/api/ws")
        .with(&ada)
        .header("Connection", "Upgrade")
        .header("Upgrade", "websocket")
        .header("Sec-WebSocket-Version", "13")
        .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
        .header("Origin", "https://evil.example")
        .await;
    assert_eq!(answer.status(), 403);
    assert_eq!(gateway.upstream().connections(), 0);
}
