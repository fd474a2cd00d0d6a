//! Who may pass: strangers, users, users with a role, users with a verified address.

use crate::harness::{Gateway, Setup};

#[tokio::test]
async fn a_stranger_passes_public_and_optional_routes_alone() {
    let gateway = Gateway::start().await;
    for (path, status) in [
        ("/public/x", 200),
        ("/optional/x", 200),
        ("/api/x", 401),
        ("/admin/x", 401),
    ] {
        assert_eq!(gateway.get(path).await.status(), status, "{path}");
    }
    assert_eq!(gateway.upstream().requests().len(), 2);
}

#[tokio::test]
async fn a_refusal_says_how_to_authenticate() {
    let gateway = Gateway::start().await;
    let answer = gateway.get("/api/x").await;
    assert_eq!((answer.status(), answer.code()), (401, "UNAUTHORIZED".to_owned()));
    assert_eq!(answer.head.one("www-authenticate"), Some("Bearer"));
    assert_eq!(answer.head.one("cache-control"), Some("no-store"));
    assert!(!answer.json()["requestId"].as_str().unwrap().is_empty());
}

#[tokio::test]
async fn route_19_route_20_a_role_is_demanded_by_the_gateway_and_not_by_the_upstream() {
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    // The session is in the cache by way of a laxer route.
    assert_eq!(gateway.get("/api/me").with(&ada).await.status(), 200);
    let answer = gateway.call("DELETE", "/admin/users/1").with(&ada).await;
    assert_eq!((answer.status(), answer.code()), (403, "FORBIDDEN".to_owned()));
    assert_eq!(gateway.upstream().seen("/admin/users/1"), 0);
}

#[tokio::test]
async fn who_has_the_role_passes() {
    let gateway = Gateway::start().await;
    let root = gateway.signed_in_as("root@example.com", &["staff", "admin"]).await;
    assert_eq!(gateway.get("/admin/x").with(&root).await.status(), 200);
    assert_eq!(gateway.upstream().last().head.one("x-user-roles"), Some("staff,admin"));
}

#[tokio::test]
async fn a_verified_address_can_be_demanded() {
    let routes = "routes = [{ path = '/*', upstream = 'app', require = { verified_email = true } }]";
    let gateway = Setup::default().with(routes).start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    assert_eq!(gateway.get("/x").with(&ada).await.status(), 200);
    gateway.db().run("UPDATE users SET email_verified = false").await;
    let refused = async || gateway.get("/x").with(&ada).await;
    crate::harness::eventually(crate::harness::SOON, async || refused().await.status() == 403).await;
    assert_eq!(refused().await.code(), "EMAIL_VERIFICATION_NEEDED");
}

#[tokio::test]
async fn a_browser_that_navigates_gets_a_page_or_the_sign_in() {
    let gateway = Gateway::start().await;
    let answer = gateway
        .get("/nothing")
        .header("Sec-Fetch-Mode", "navigate")
        .header("Accept", "text/html")
        .await;
    assert_eq!(answer.status(), 404);
    assert_eq!(answer.head.one("content-type"), Some("text/html; charset=utf-8"));
    // Without a sign-in page there is nowhere to send anybody.
    let answer = gateway
        .get("/app/x")
        .header("Sec-Fetch-Mode", "navigate")
        .header("Accept", "text/html")
        .await;
    assert!(matches!(answer.status(), 401 | 302), "{:?}", answer.head);
}

#[tokio::test]
async fn route_03_no_header_but_a_credential_opens_a_door() {
    let gateway = Gateway::start().await;
    for (name, value) in [
        ("User-Agent", "kube-probe/1.30"),
        ("User-Agent", "GoogleHC/1.0"),
        ("X-User-Id", "1"),
        ("X-Forwarded-User", "admin"),
        ("X-Forwarded-Uri", "/public/x"),
        ("X-Original-URL", "/public/x"),
        ("X-Rewrite-URL", "/public/x"),
        ("X-Forwarded-Method", "OPTIONS"),
        ("X-HTTP-Method-Override", "OPTIONS"),
        ("X-Forwarded-Prefix", "/public"),
        ("Authorization", "Basic YWRtaW46YWRtaW4="),
        ("Authorization", "Bearer "),
        ("Authorization", "Bearer x"),
    ] {
        assert_eq!(
            gateway.get("/api/x").header(name, value).await.status(),
            401,
            "{name}: {value}"
        );
    }
    assert_eq!(gateway.upstream().requests().len(), 0);
}

#[tokio::test]
async fn a_head_request_is_judged_and_answered_without_a_body() {
    let gateway = Gateway::start().await;
    assert_eq!(gateway.call("HEAD", "/api/x").await.status(), 401);
    let answer = gateway.call("HEAD", "/public/x").await;
    assert_eq!((answer.status(), answer.head.one("content-length")), (200, Some("14")));
}
