//! Routes that send clients elsewhere, and never where a client chooses.

use crate::harness::{Gateway, Setup};

const ROUTES: &str = r#"
[[routes]]
path = "/old/*"
auth = "public"
strip_prefix = "/old"
redirect = { to = "/new{path}?{query}" }

[[routes]]
path = "/away/*"
auth = "public"
strip_prefix = "/away"
redirect = { to = "https://www.example.net{path}?{query}", status = 302 }

[[routes]]
path = "/self/*"
auth = "public"
strip_prefix = "/self"
redirect = { to = "{path}" }

[[routes]]
path = "/login/*"
auth = "public"
redirect = { to = "/sign-in?next={path}&{query}#form", status = 303 }

[[routes]]
path = "/members/*"
redirect = { to = "https://members.example.net/" }
[routes.response_headers]
set = { Cache-Control = "no-store" }
"#;

async fn gateway() -> Gateway {
    Setup::default().with(ROUTES).start().await
}

#[tokio::test]
async fn path_and_query_go_where_the_route_says() {
    let gateway = gateway().await;
    for (sent, status, location) in [
        ("/old/x/y?a=1&b=%2f", 308, "/new/x/y?a=1&b=%2f"),
        ("/old/x", 308, "/new/x"),
        ("/old/x?", 308, "/new/x"),
        ("/old", 308, "/new/"),
        ("/away/x?q", 302, "https://www.example.net/x?q"),
        ("/login/a&b=c", 303, "/sign-in?next=/login/a%26b%3Dc#form"),
        ("/login/a?x=1", 303, "/sign-in?next=/login/a&x=1#form"),
    ] {
        let answer = gateway.get(sent).await;
        assert_eq!(
            (answer.status(), answer.head.one("location")),
            (status, Some(location)),
            "{sent}"
        );
        assert!(answer.body.is_empty());
    }
    // Methods and bodies don't matter.
    let posted = gateway.call("POST", "/old/x").body("x=1").await;
    assert_eq!((posted.status(), posted.head.one("location")), (308, Some("/new/x")));
    assert_eq!(gateway.upstream().requests().len(), 0);
}

#[tokio::test]
async fn no_request_chooses_another_host() {
    let gateway = gateway().await;
    for (sent, location) in [
        ("/self//evil.example/x", "/evil.example/x"),
        ("/self///evil.example", "/evil.example"),
        ("/old//evil.example", "/new/evil.example"),
        ("/away/@evil.example", "https://www.example.net/@evil.example"),
        ("/away/.evil.example", "https://www.example.net/.evil.example"),
        ("/away//evil.example", "https://www.example.net/evil.example"),
        ("/self/https://evil.example", "/https:/evil.example"),
    ] {
        let answer = gateway.get(sent).await;
        assert_eq!(answer.head.one("location"), Some(location), "{sent}");
    }
    for sent in [
        "/self/%5cevil.example",
        "/self/%0d%0aSet-Cookie:x=1",
        "/self/..%2f..%2f",
        "/self/%2fevil.example",
    ] {
        assert_eq!(gateway.get(sent).await.status(), 400, "{sent}");
    }
    // A query can hold nothing that ends a header line.
    let answer = gateway.get("/old/x?%0d%0aSet-Cookie:x=1").await;
    assert_eq!(answer.head.one("location"), Some("/new/x?%0d%0aSet-Cookie:x=1"));
    assert!(!answer.head.has("set-cookie"));
}

#[tokio::test]
async fn who_may_not_pass_is_not_sent_on() {
    let gateway = gateway().await;
    let refused = gateway.get("/members/x").await;
    assert_eq!((refused.status(), refused.head.has("location")), (401, false));
    let ada = gateway.signed_in("ada@example.com").await;
    let sent = gateway.get("/members/x").with(&ada).await;
    assert_eq!(sent.head.one("location"), Some("https://members.example.net/"));
    assert_eq!(sent.head.one("cache-control"), Some("no-store"));
}
