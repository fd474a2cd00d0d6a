//! What a route makes of a person's credentials: nothing, the session token, an assertion, or as they came.

use crate::harness::{Gateway, Setup, people::User};

async fn gateway(auth: &str) -> Gateway {
    let route = |path: &str, credentials: &str| {
        format!("{{ path = '/{path}/*', upstream = 'app', auth = '{auth}', credentials = '{credentials}' }}")
    };
    let routes = ["strip", "bearer", "assertion", "keep"].map(|kind| route(kind, kind));
    Setup::default()
        .with(&format!("routes = [{}]", routes.join(", ")))
        .start()
        .await
}

async fn sent(gateway: &Gateway, user: &User, target: &str) -> (Option<String>, Option<String>) {
    let cookie = format!("theme=dark; {}", user.cookie);
    let call = gateway.get(target).header("Cookie", cookie);
    assert_eq!(call.await.status(), 200);
    let head = gateway.upstream().last().head;
    let one = |name| head.one(name).map(str::to_owned);
    (one("authorization"), one("cookie"))
}

#[tokio::test]
async fn usually_an_upstream_gets_none() {
    let gateway = gateway("required").await;
    let ada = gateway.signed_in("ada@example.com").await;
    assert_eq!(
        sent(&gateway, &ada, "/strip/x").await,
        (None, Some("theme=dark".to_owned()))
    );
}

#[tokio::test]
async fn a_backend_that_validates_sessions_gets_the_token() {
    let gateway = gateway("required").await;
    let ada = gateway.signed_in("ada@example.com").await;
    let bearer = format!("Bearer {}", ada.token);
    let (authorization, cookie) = sent(&gateway, &ada, "/bearer/x").await;
    assert_eq!(
        (authorization, cookie),
        (Some(bearer.clone()), Some("theme=dark".to_owned()))
    );

    assert_eq!(gateway.get("/bearer/x").bearer(&ada.token).await.status(), 200);
    assert_eq!(gateway.upstream().last().head.all("authorization"), [&*bearer]);

    // In place of what the client wrote there, be it its own business elsewhere.
    let call = gateway
        .get("/bearer/x")
        .with(&ada)
        .header("Authorization", "Basic YTpi");
    assert_eq!(call.await.status(), 200);
    assert_eq!(gateway.upstream().last().head.all("authorization"), [&*bearer]);
}

/// The upstream looks at the cookie by itself, and would do what another site has the browser ask for.
#[tokio::test]
async fn csrf_06_a_cookie_that_is_kept_on_a_public_route_comes_from_our_own_pages_alone() {
    let gateway = gateway("public").await;
    let ada = gateway.signed_in("ada@example.com").await;
    let foreign = |path| {
        gateway
            .post(path)
            .with(&ada)
            .header("Origin", "https://evil.example")
            .body("x")
    };
    let answer = foreign("/keep/x").await;
    assert_eq!(answer.status(), 403, "{}", answer.text());
    assert_eq!(gateway.upstream().seen("/keep/x"), 0);
    // Without the cookie, or by our own page, or where the cookie stays here.
    assert_eq!(foreign("/strip/x").await.status(), 200);
    let stranger = gateway
        .post("/keep/x")
        .header("Origin", "https://evil.example")
        .body("x");
    assert_eq!(stranger.await.status(), 200);
    assert_eq!(gateway.post("/keep/x").with(&ada).body("x").await.status(), 200);
}

/// Whatever we make of the cookies, the upstream gets them: a sibling can set one beside another, and any page may bring what
/// looks like a token.
#[tokio::test]
async fn csrf_06_what_comes_beside_a_cookie_that_is_kept_does_not_hide_it() {
    for auth in ["public", "optional"] {
        let gateway = gateway(auth).await;
        let ada = gateway.signed_in("ada@example.com").await;
        let eve = gateway.signed_in("eve@example.com").await;
        let junk = format!("{}=junk; ", gateway.session_cookie()).repeat(9);
        let two = format!("{}; {}", eve.cookie, ada.cookie);
        let many = format!("{junk}{}", ada.cookie);
        for cookie in [&two, &many, &ada.cookie] {
            for bearer in [None, Some("A".repeat(43))] {
                let ask = |origin: &str| {
                    let call = gateway
                        .post("/keep/x")
                        .header("Cookie", cookie)
                        .header("Origin", origin);
                    match &bearer {
                        Some(bearer) => call.bearer(bearer).body("x"),
                        None => call.body("x"),
                    }
                };
                let foreign = ask("https://evil.example").await;
                assert_eq!(foreign.status(), 403, "{auth} {bearer:?} {cookie}");
                assert_eq!(gateway.upstream().seen("/keep/x"), 0);
                let safe = gateway.get("/keep/safe").header("Cookie", cookie);
                assert_eq!(safe.header("Origin", "https://evil.example").await.status(), 200);
            }
        }
        assert_eq!(gateway.post("/keep/x").with(&ada).body("x").await.status(), 200);
    }
}

#[tokio::test]
async fn an_assertion_may_stand_where_libraries_look_for_it() {
    let gateway = gateway("required").await;
    let ada = gateway.signed_in("ada@example.com").await;
    let (authorization, cookie) = sent(&gateway, &ada, "/assertion/x").await;
    let token = authorization.unwrap();
    let token = token.strip_prefix("Bearer ").unwrap();
    assert_eq!((token.split('.').count(), token.contains(&ada.token)), (3, false));
    assert_eq!(cookie.as_deref(), Some("theme=dark"));
    assert!(
        !gateway.upstream().last().head.has("x-vestibule-assertion"),
        "that is for identity.assertion"
    );
    for forged in ["Bearer a.b.c", "bearer eyJhbGciOiJub25lIn0.e30.", "Basic YTpi"] {
        let call = gateway.get("/assertion/x").with(&ada).header("Authorization", forged);
        assert_eq!(call.await.status(), 200);
        let head = gateway.upstream().last().head;
        assert_eq!(head.all("authorization"), [format!("Bearer {token}")], "{forged}");
    }
}

#[tokio::test]
async fn where_nobody_is_signed_in_nobody_else_speaks_in_the_gateways_place() {
    let gateway = gateway("optional").await;
    for path in ["/bearer/x", "/assertion/x"] {
        let call = gateway.get(path).header("Authorization", "Bearer a.b.c");
        assert_eq!(call.await.status(), 200);
        assert!(!gateway.upstream().last().head.has("authorization"), "{path}");
    }
    let call = gateway.get("/strip/x").header("Authorization", "Bearer a.b.c");
    assert_eq!(call.await.status(), 200);
    assert_eq!(
        gateway.upstream().last().head.one("authorization"),
        Some("Bearer a.b.c")
    );
}

#[tokio::test]
async fn what_is_kept_is_kept_as_it_came() {
    let gateway = gateway("required").await;
    let ada = gateway.signed_in("ada@example.com").await;
    let cookie = format!("theme=dark; {}", ada.cookie);
    assert_eq!(sent(&gateway, &ada, "/keep/x").await, (None, Some(cookie)));
    assert_eq!(gateway.get("/keep/x").bearer(&ada.token).await.status(), 200);
    let bearer = format!("Bearer {}", ada.token);
    assert_eq!(gateway.upstream().last().head.one("authorization"), Some(&*bearer));
    let forged = gateway.get("/keep/x").with(&ada).header("X-User-Id", "somebody else");
    assert_eq!(forged.await.status(), 200);
    assert_eq!(gateway.upstream().last().head.all("x-user-id"), [&*ada.id]);
}
