//! Encoded slashes and bytes that are not UTF-8: for routes that ask for them, and for no other.

use crate::harness::{Gateway, Setup};

const ROUTES: &str = r#"
[[routes]]
path = "/*"
upstream = "app"
auth = "public"
encoded_slashes = "keep"

[[routes]]
path = "/bytes/*"
upstream = "app"
auth = "public"
encoded_bytes = "keep"

[[routes]]
path = "/strict/*"
upstream = "app"
auth = "public"

[[routes]]
path = "/admin/*"
upstream = "app"
require = { roles = ["admin"] }

[[routes]]
path = "/projects/{id}"
upstream = "app"
encoded_slashes = "keep"
"#;

async fn gateway() -> Gateway {
    Setup::default().with(ROUTES).start().await
}

#[tokio::test]
async fn a_route_that_keeps_them_forwards_them_as_they_are() {
    let gateway = gateway().await;
    let ada = gateway.signed_in("ada@example.com").await;
    for (sent, forwarded) in [
        ("/group%2fproject/x", "/group%2Fproject/x"),
        ("/proxy/https:%2F%2Fexample.com", "/proxy/https:%2F%2Fexample.com"),
        ("/projects/group%2Fproject?x=%2f", "/projects/group%2Fproject?x=%2f"),
        ("/bytes/caf%e9", "/bytes/caf%E9"),
        ("/bytes/%ff%C0x", "/bytes/%FF%C0x"),
    ] {
        let answer = gateway.get(sent).with(&ada).await;
        assert_eq!(
            (answer.status(), answer.text()),
            (200, format!("GET {forwarded}").as_str()),
            "{sent}"
        );
    }
}

#[tokio::test]
async fn no_other_route_ever_gets_one() {
    let gateway = gateway().await;
    let ada = gateway.signed_in("ada@example.com").await;
    for path in [
        "/strict/a%2Fb",
        "/strict/%ff",
        "/admin/a%2Fb",
        "/bytes/a%2Fb",
        "/caf%e9",
        "/projects/%ff",
        "/api/auth/sign-in%2Femail",
        "/api/auth/%ff",
    ] {
        assert_eq!(gateway.get(path).with(&ada).await.status(), 400, "{path}");
    }
    assert_eq!(gateway.upstream().requests().len(), 0);
}

#[tokio::test]
async fn keeping_them_opens_no_way_round_a_guard() {
    let gateway = gateway().await;
    for path in [
        // What an upstream that decodes them would take for somewhere else.
        "/public/..%2fadmin/x",
        "/x%2f..%2fadmin%2fx",
        "/%2e%2e%2fadmin",
        "/x/.%2f",
        "/x%2f..;a%2fadmin",
        "/bytes/..%c0%afadmin",
        "/bytes/%c0%ae%c0%ae/admin",
        "/bytes/%e0%80%af",
        "/bytes/%f8%80%80%80%af",
        "/bytes/%fc%80%80%80%80%ae",
        // What is guarded under its other name.
        "/admin%2fx",
        "/admin%2F%2Fx",
        "/projects%2Fx",
        // What the gateway answers itself.
        "/api%2Fauth",
        "/api%2fauth%2Fget-session",
        "/api/auth;x%2Fsign-up/email",
        "/x%5cy%2f",
        "/x%00%2f",
    ] {
        let mut client = gateway.raw().await;
        client
            .send(format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", gateway.host()))
            .await;
        assert_eq!(client.answer().await.status(), 400, "{path}");
    }
    assert_eq!(gateway.upstream().requests().len(), 0);
    // Who isn't signed in stays outside.
    assert_eq!(gateway.get("/projects/group%2Fproject").await.status(), 401);
}
