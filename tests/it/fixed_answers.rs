//! Routes that answer by themselves.

use crate::harness::{Gateway, Setup};

const ROUTES: &str = r#"
[[routes]]
path = "/robots.txt"
auth = "public"
respond = { body = "User-agent: *\nDisallow: /\n" }

[[routes]]
path = "/gone/*"
auth = "public"
respond = { status = 410, body = "<h1>Gone</h1>", content_type = "text/html; charset=utf-8" }
response_headers = { set = { Cache-Control = "max-age=60" } }

[[routes]]
path = "/ping"
methods = ["GET"]
auth = "public"
respond = { status = 204 }

[[routes]]
path = "/secret"
respond = { body = "for members" }
"#;

async fn gateway() -> Gateway {
    Setup::default().with(ROUTES).start().await
}

#[tokio::test]
async fn everybody_gets_the_same() {
    let gateway = gateway().await;
    let robots = gateway.get("/robots.txt").await;
    assert_eq!((robots.status(), robots.text()), (200, "User-agent: *\nDisallow: /\n"));
    assert_eq!(robots.head.one("content-type"), Some("text/plain; charset=utf-8"));
    let gone = gateway.call("POST", "/gone/x").body("a=b").await;
    assert_eq!((gone.status(), gone.text()), (410, "<h1>Gone</h1>"));
    assert_eq!(gone.head.one("content-type"), Some("text/html; charset=utf-8"));
    assert_eq!(gone.head.one("cache-control"), Some("max-age=60"));
    let ping = gateway.get("/ping").await;
    assert_eq!(
        (ping.status(), ping.body.len(), ping.head.has("content-type")),
        (204, 0, false)
    );
    let head = gateway.call("HEAD", "/robots.txt").await;
    assert_eq!((head.status(), head.head.one("content-length")), (200, Some("26")));
    assert_eq!(gateway.call("POST", "/ping").await.status(), 405);
    assert_eq!(gateway.upstream().requests().len(), 0);
}

#[tokio::test]
async fn access_is_judged_as_for_any_route() {
    let gateway = gateway().await;
    let ada = gateway.signed_in("ada@example.com").await;
    assert_eq!(gateway.get("/secret").await.status(), 401);
    let answer = gateway.get("/secret").with(&ada).await;
    assert_eq!((answer.status(), answer.text()), (200, "for members"));
    // A cache that many share keeps nothing that is not for everybody.
    assert_eq!(answer.head.one("cache-control"), Some("private, no-cache"));
    assert!(!gateway.get("/robots.txt").await.head.has("cache-control"));
    // The cookie alone doesn't let another site's page post here.
    let forged = gateway.call("POST", "/secret").header("Cookie", &ada.cookie);
    assert_eq!(forged.header("Origin", "https://evil.example").await.status(), 403);
}

#[tokio::test]
async fn what_follows_an_unread_body_is_not_taken_for_a_request() {
    let gateway = gateway().await;
    let host = gateway.host();
    let mut client = gateway.raw().await;
    client
        .send(format!(
            "POST /gone/x HTTP/1.1\r\nHost: {host}\r\nContent-Length: 5\r\n\r\nhelloGET /robots.txt HTTP/1.1\r\nHost: {host}\r\n\r\n"
        ))
        .await;
    assert_eq!(client.answer().await.status(), 410);
    assert_eq!(client.answer().await.status(), 200);
}
