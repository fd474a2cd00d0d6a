//! Headers that a route removes, sets and adds, either way; and what no rule can touch.

use crate::harness::{Gateway, Setup};

const RULES: &str = r#"
[[routes]]
path = "/api/*"
upstream = "app"
[routes.request_headers]
set = { X-Api-Key = "secret", Accept-Language = "en" }
add = { X-Tag = "gateway" }
remove = ["Accept-Encoding", "Cookie"]
[routes.response_headers]
set = { Content-Security-Policy = "default-src 'self'", Strict-Transport-Security = "max-age=63072000" }
add = { Vary = "X-Tag", Set-Cookie = "theme=dark" }
remove = ["Server", "X-Powered-By"]

[[routes]]
path = "/plain/*"
upstream = "app"
auth = "public"
"#;

async fn gateway() -> Gateway {
    Setup::default().with(RULES).start().await
}

#[tokio::test]
async fn what_an_upstream_gets_follows_the_rules() {
    let gateway = gateway().await;
    let ada = gateway.signed_in("ada@example.com").await;
    let call = gateway
        .get("/api/x")
        .header("X-Api-Key", "of the client")
        .header("X-Tag", "client");
    let call = call.header("Accept-Encoding", "gzip").header("Cookie", "theme=light");
    assert_eq!(call.with(&ada).await.status(), 200);
    let seen = gateway.upstream().last().head;
    assert_eq!(seen.one("x-api-key"), Some("secret"));
    assert_eq!(seen.one("accept-language"), Some("en"));
    assert_eq!(seen.all("x-tag"), ["client", "gateway"]);
    assert!(!seen.has("accept-encoding") && !seen.has("cookie"));
    // Where there are no rules, nothing changes.
    let call = gateway
        .get("/plain/x")
        .header("X-Api-Key", "of the client")
        .header("Accept-Encoding", "gzip");
    assert_eq!(call.await.status(), 200);
    let seen = gateway.upstream().last().head;
    assert_eq!(
        (seen.one("x-api-key"), seen.one("accept-encoding")),
        (Some("of the client"), Some("gzip"))
    );
}

/// CGI, WSGI and Rack make one of them, and an application finds the client's.
#[tokio::test]
async fn no_spelling_of_what_a_rule_sets_or_removes_comes_beside_it() {
    let gateway = gateway().await;
    let ada = gateway.signed_in("ada@example.com").await;
    let mut call = gateway.get("/api/x").with(&ada).header("X_Key", "of the client");
    for name in [
        "X_Api_Key",
        "x.api-key",
        "X-API_KEY",
        "Accept_Language",
        "Accept_Encoding",
    ] {
        call = call.header(name, "of the client");
    }
    assert_eq!(call.await.status(), 200);
    let seen = gateway.upstream().last().head;
    let left = seen.fields.iter().filter(|(_, value)| value == "of the client");
    assert_eq!(left.map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["x_key"]);
    assert_eq!(seen.one("x-api-key"), Some("secret"));
}

#[tokio::test]
async fn what_a_client_gets_follows_the_rules() {
    let gateway = gateway().await;
    let ada = gateway.signed_in("ada@example.com").await;
    gateway.upstream().answer(
        "/api/x",
        "HTTP/1.1 200 OK\r\nServer: app/1\r\nX-Powered-By: app\r\nVary: Accept\r\nSet-Cookie: a=b\r\n\
         Content-Security-Policy: none\r\nContent-Length: 2\r\n\r\nok",
    );
    let answer = gateway.get("/api/x").with(&ada).await;
    assert_eq!((answer.status(), answer.text()), (200, "ok"));
    assert_eq!(answer.head.one("content-security-policy"), Some("default-src 'self'"));
    assert_eq!(answer.head.one("strict-transport-security"), Some("max-age=63072000"));
    assert!(!answer.head.has("server") && !answer.head.has("x-powered-by"));
    assert!(answer.head.all("vary").contains(&"X-Tag") && answer.head.all("vary").contains(&"Accept"));
    assert_eq!(answer.head.all("set-cookie"), ["a=b", "theme=dark"]);
}

#[tokio::test]
async fn a_refusal_says_what_every_answer_of_its_route_does_but_nothing_of_how_it_is_kept() {
    let gateway = Setup::default()
        .with(
            "[[routes]]\npath = '/api/*'\nupstream = 'app'\non_denied = 'auto'\n[routes.response_headers]\n\
             set = { Strict-Transport-Security = 'max-age=63072000', Cache-Control = 'public, max-age=60', \
             Surrogate-Control = 'max-age=60', Content-Type = 'text/x', Content-Security-Policy = 'img-src x' }\n\
             add = { X-Served-By = 'edge', WWW-Authenticate = 'Basic', ETag = '\"1\"' }\n",
        )
        .start()
        .await;
    for media in ["application/json", "text/html"] {
        let refused = gateway.get("/api/x").header("Accept", media).await;
        let head = &refused.head;
        assert!(matches!(refused.status(), 401 | 303), "{}", refused.status());
        assert_eq!(head.all("strict-transport-security"), ["max-age=63072000"]);
        assert_eq!(head.all("x-served-by"), ["edge"]);
        assert_eq!(head.all("cache-control"), ["no-store"]);
        assert!(!head.has("surrogate-control") && !head.has("etag"));
        assert_ne!(head.one("content-type"), Some("text/x"));
        // A page of the gateway has a policy of its own, without which it could not be shown.
        let policy = head.all("content-security-policy");
        assert_eq!(policy == ["img-src x"], media == "application/json", "{policy:?}");
    }
    let refused = gateway.get("/api/x").header("Accept", "application/json").await;
    assert_eq!(refused.head.all("www-authenticate"), ["Bearer"]);
    // An upstream that is away is the route's affair as well.
    let ada = gateway.signed_in("ada@example.com").await;
    gateway.upstream().answer_and_close("/api/x", "");
    let broken = gateway.get("/api/x").with(&ada).await;
    assert_eq!((broken.status(), broken.head.all("x-served-by").len()), (502, 1));
    // What has no route has no rules.
    assert!(!gateway.get("/nowhere").await.head.has("x-served-by"));
}

#[tokio::test]
async fn an_identity_is_there_whatever_the_rules_and_the_client_say() {
    let gateway = gateway().await;
    let ada = gateway.signed_in("ada@example.com").await;
    let call = gateway
        .get("/api/x")
        .with(&ada)
        .header("X-User-Id", "42")
        .header("x_user_id", "42");
    let call = call.header("Connection", "x-user-id, x-api-key, x-forwarded-for");
    assert_eq!(call.await.status(), 200);
    let seen = gateway.upstream().last().head;
    assert_eq!(seen.all("x-user-id"), [ada.id.as_str()]);
    assert_eq!(seen.spellings("x-user-id").len(), 1);
    // `Connection` names what the client may take back of its own, and nothing of ours.
    assert_eq!(seen.one("x-api-key"), Some("secret"));
    assert!(seen.has("x-forwarded-for"));
}

#[tokio::test]
async fn a_value_from_a_rule_reaches_no_client() {
    let gateway = gateway().await;
    let ada = gateway.signed_in("ada@example.com").await;
    let answer = gateway.get("/api/x").with(&ada).await;
    assert!(!answer.head.has("x-api-key"));
    assert!(!String::from_utf8_lossy(&answer.head.raw).contains("secret"));
}
