//! Pages of other origins: who may ask, who may read, and that nobody else learns anything.

use serde_json::json;

use crate::harness::{
    Database, Gateway, Setup,
    client::{Call, Response},
    mailbox::Mailbox,
    people::PASSWORD,
    program::run,
    upstream::Upstream,
};

const FRIEND: &str = "https://friend.example";
const PARTNER: &str = "https://partner.example";
const EVIL: &str = "https://evil.example";

/// `friend.example` is trusted everywhere, `partner.example` on one route alone.
fn setup() -> Setup {
    Setup::default().with(
        r#"
        [auth]
        trusted_origins = ["https://friend.example"]

        [[routes]]
        path = "/api/*"
        upstream = "app"

        [[routes]]
        path = "/public/*"
        upstream = "app"
        auth = "public"

        [[routes]]
        path = "/admin/*"
        upstream = "app"
        require = { roles = ["admin"] }

        [[routes]]
        path = "/shared/*"
        upstream = "app"
        cors = ["https://partner.example"]

        [[routes]]
        path = "/own/*"
        upstream = "app"
        cors = "upstream"

        [[routes]]
        path = "/kept/*"
        upstream = "app"
        cors = "upstream"
        credentials = "keep"

        [[routes]]
        path = "/mixed"
        methods = ["GET"]
        upstream = "app"
        cors = []

        [[routes]]
        path = "/mixed"
        methods = ["POST"]
        upstream = "app"
        "#,
    )
}

fn preflight(gateway: &Gateway, path: &str, origin: &str, method: &str) -> Call {
    gateway
        .call("OPTIONS", path)
        .header("Origin", origin)
        .header("Access-Control-Request-Method", method)
}

/// The fields of an answer that speak to browsers about other origins.
fn said(answer: &Response) -> Vec<&str> {
    let names = answer.head.fields.iter().map(|(name, _)| name.as_str());
    names
        .filter(|name| name.to_ascii_lowercase().starts_with("access-control-"))
        .collect()
}

#[track_caller]
fn admits(answer: &Response, origin: &str) {
    assert_eq!(
        answer.head.one("access-control-allow-origin"),
        Some(origin),
        "{:?}",
        answer.head
    );
    assert_eq!(answer.head.one("access-control-allow-credentials"), Some("true"));
    assert!(varies(answer), "{:?}", answer.head);
}

/// CORS-01.
#[track_caller]
fn admits_nobody(answer: &Response) {
    assert!(!answer.head.has("access-control-allow-origin"), "{:?}", answer.head);
    assert!(
        !answer.head.has("access-control-allow-credentials"),
        "{:?}",
        answer.head
    );
}

fn varies(answer: &Response) -> bool {
    let lines = answer.head.all("vary").join(",");
    lines.split(',').any(|name| name.trim().eq_ignore_ascii_case("origin"))
}

#[tokio::test]
async fn a_trusted_page_may_ask_the_auth_api() {
    let gateway = setup().start().await;
    let asked = preflight(&gateway, "/api/auth/sign-in/email", FRIEND, "POST");
    let answer = asked
        .header("Access-Control-Request-Headers", "Content-Type, X-Trace")
        .await;
    assert_eq!((answer.status(), answer.text()), (204, ""));
    admits(&answer, FRIEND);
    let said = |name| answer.head.one(name);
    assert_eq!(said("access-control-allow-methods"), Some("POST"));
    assert_eq!(said("access-control-allow-headers"), Some("content-type, x-trace"));
    assert_eq!(said("access-control-max-age"), Some("600"));
    let varies = "Origin, Access-Control-Request-Method, Access-Control-Request-Headers";
    assert_eq!(said("vary"), Some(varies));
    for (path, methods) in [
        ("/api/auth/get-session", "GET, POST"),
        ("/api/auth/list-sessions", "GET"),
        ("/api/auth/nothing-here", "GET, POST"),
    ] {
        let answer = preflight(&gateway, path, FRIEND, "GET").await;
        assert_eq!(answer.head.one("access-control-allow-methods"), Some(methods), "{path}");
    }
}

#[tokio::test]
async fn what_is_no_preflight_is_nothing_to_the_auth_api() {
    let gateway = setup().start().await;
    let path = "/api/auth/sign-in/email";
    let ask = |fields: &[(&str, &str)]| {
        fields
            .iter()
            .fold(gateway.call("OPTIONS", path), |call, (name, value)| {
                call.header(name, value)
            })
    };
    let method = ("Access-Control-Request-Method", "POST");
    for fields in [
        &[][..],
        &[("Origin", FRIEND)],
        &[method],
        &[("Origin", FRIEND), ("Origin", FRIEND), method],
    ] {
        let answer = ask(fields).await;
        assert_eq!((answer.status(), answer.text()), (404, ""), "{fields:?}");
    }
}

/// CORS-01 on our own API and on proxied routes.
#[tokio::test]
async fn cors_01_a_stranger_s_page_is_refused_and_told_nothing() {
    let gateway = setup().start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    for origin in [
        EVIL,
        "null",
        "https://friend.example.evil.example",
        "http://friend.example",
        "https://friend.example:8443",
        PARTNER,
    ] {
        for path in ["/api/auth/get-session", "/api/items", "/public/items"] {
            let answer = preflight(&gateway, path, origin, "GET").await;
            assert_eq!(
                (answer.status(), answer.code()),
                (403, "INVALID_ORIGIN".to_owned()),
                "{origin} {path}"
            );
            assert_eq!(said(&answer), <[&str; 0]>::default(), "{origin} {path}");

            let answer = gateway.get(path).with(&ada).header("Origin", origin).await;
            assert_eq!(answer.status(), 200, "{origin} {path}");
            assert_eq!(said(&answer), <[&str; 0]>::default(), "{origin} {path}");
            assert!(varies(&answer), "{origin} {path}");
        }
    }
}

#[tokio::test]
async fn a_trusted_page_reads_what_the_auth_api_says_refusals_too() {
    let gateway = setup().start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    let good = gateway
        .get("/api/auth/get-session")
        .with(&ada)
        .header("Origin", FRIEND)
        .await;
    assert_eq!(good.json()["user"]["id"], json!(ada.id));
    let refused = gateway.get("/api/auth/list-sessions").header("Origin", FRIEND).await;
    let unknown = gateway.get("/api/auth/nothing-here").header("Origin", FRIEND).await;
    assert_eq!((good.status(), refused.status(), unknown.status()), (200, 401, 404));
    for answer in [&good, &refused, &unknown] {
        admits(answer, FRIEND);
        assert_eq!(
            answer.head.one("access-control-expose-headers"),
            Some("set-auth-token, set-auth-jwt, x-retry-after, retry-after")
        );
    }

    let body = json!({ "email": "ada@example.com", "password": PASSWORD });
    let signed_in = gateway
        .post("/api/auth/sign-in/email")
        .json(&body)
        .header("Origin", FRIEND)
        .await;
    assert_eq!(signed_in.status(), 200, "{}", signed_in.text());
    admits(&signed_in, FRIEND);
    // Exposed once, whoever else says so.
    let exposed = signed_in.head.one("access-control-expose-headers").unwrap();
    assert_eq!(exposed.matches("set-auth-token").count(), 1, "{exposed}");
}

#[tokio::test]
async fn an_answer_to_the_own_page_differs_for_caches_alone() {
    let gateway = setup().start().await;
    for path in ["/api/auth/get-session", "/public/items"] {
        let answer = gateway.get(path).await;
        admits_nobody(&answer);
        assert!(varies(&answer), "{path}");
    }
    // Where nobody else is trusted, there is nothing to tell apart.
    let alone = Gateway::start().await;
    let answer = alone.get("/public/items").await;
    assert!(!varies(&answer) && said(&answer).is_empty(), "{:?}", answer.head);
}

#[tokio::test]
async fn a_preflight_needs_no_session_and_reaches_no_upstream() {
    let gateway = setup().start().await;
    for path in ["/api/items/7", "/admin/users", "/public/x"] {
        let asked = preflight(&gateway, path, FRIEND, "PUT");
        let answer = asked.header("Access-Control-Request-Headers", "content-type").await;
        assert_eq!((answer.status(), answer.text()), (204, ""), "{path}");
        admits(&answer, FRIEND);
        assert_eq!(answer.head.one("access-control-allow-methods"), Some("PUT"));
        assert_eq!(answer.head.one("access-control-allow-headers"), Some("content-type"));
    }
    let nowhere = preflight(&gateway, "/nowhere", FRIEND, "GET").await;
    assert_eq!(nowhere.status(), 404);
    // Anything else with that method is a request like others.
    let plain = gateway.call("OPTIONS", "/api/items").header("Origin", FRIEND).await;
    assert_eq!(plain.status(), 401);
    let with_body = preflight(&gateway, "/api/items", FRIEND, "PUT").body("x").await;
    assert_eq!(with_body.status(), 401);
    assert_eq!(gateway.upstream().connections(), 0);
}

#[tokio::test]
async fn the_method_asked_about_decides_which_route_answers() {
    let gateway = setup().start().await;
    assert_eq!(preflight(&gateway, "/mixed", FRIEND, "POST").await.status(), 204);
    assert_eq!(preflight(&gateway, "/mixed", FRIEND, "GET").await.status(), 403);
    assert_eq!(preflight(&gateway, "/mixed", FRIEND, "DELETE").await.status(), 405);
    assert_eq!(preflight(&gateway, "/mixed", FRIEND, "OPTIONS").await.status(), 405);
    assert_eq!(gateway.upstream().connections(), 0);
}

#[tokio::test]
async fn a_route_s_own_list_is_the_whole_list() {
    let gateway = setup().start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    let asked = preflight(&gateway, "/shared/x", PARTNER, "PUT").await;
    assert_eq!(asked.status(), 204);
    admits(&asked, PARTNER);
    admits(
        &gateway.get("/shared/x").with(&ada).header("Origin", PARTNER).await,
        PARTNER,
    );
    for origin in [FRIEND, EVIL, "https://app.example.com"] {
        assert_eq!(
            preflight(&gateway, "/shared/x", origin, "PUT").await.status(),
            403,
            "{origin}"
        );
        admits_nobody(&gateway.get("/shared/x").with(&ada).header("Origin", origin).await);
    }
}

/// Whom the operator lets read, they let write.
#[tokio::test]
async fn a_listed_page_may_write_with_a_cookie_where_it_is_listed() {
    let gateway = setup().start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    let write = |path: &str, origin: &str| {
        let call = gateway.post(path).header("Cookie", &ada.cookie).body("x");
        call.header("Origin", origin).header("Sec-Fetch-Site", "cross-site")
    };
    let written = write("/shared/x", PARTNER).await;
    assert_eq!(written.status(), 200);
    admits(&written, PARTNER);
    assert_eq!(write("/shared/x", "https://app.example.com").await.status(), 200);
    assert_eq!(write("/shared/x", EVIL).await.status(), 403);
    assert_eq!(write("/api/x", PARTNER).await.status(), 403);
    assert_eq!(write("/own/x", PARTNER).await.status(), 403);
    assert_eq!(gateway.upstream().seen("/api/x") + gateway.upstream().seen("/own/x"), 0);
}

#[tokio::test]
async fn an_upstream_s_own_word_is_replaced_by_the_gateway_s() {
    let gateway = setup().start().await;
    gateway.upstream().answer(
        "/public/x",
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nAccess-Control-Allow-Origin: *\r\nAccess-Control-Allow-Origin: \
         https://evil.example\r\nAccess-Control-Allow-Credentials: true\r\nAccess-Control-Expose-Headers: X-Total\r\n\
         Vary: Accept\r\n\r\n",
    );
    let friend = gateway.get("/public/x").header("Origin", FRIEND).await;
    admits(&friend, FRIEND);
    assert_eq!(friend.head.one("access-control-expose-headers"), Some("X-Total"));
    assert_eq!(friend.head.all("vary"), ["Accept", "Origin"]);
    admits_nobody(&gateway.get("/public/x").header("Origin", EVIL).await);
    // Nor is anything left in a cache for a page to find.
    admits_nobody(&gateway.get("/public/x").await);
    let twice = gateway
        .get("/public/x")
        .header("Origin", FRIEND)
        .header("Origin", FRIEND)
        .await;
    admits_nobody(&twice);
}

#[tokio::test]
async fn refusals_of_the_gateway_can_be_read_too() {
    let gateway = setup().start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    let refused = [
        (401, gateway.get("/api/items").header("Origin", FRIEND).await),
        (403, gateway.get("/admin/x").with(&ada).header("Origin", FRIEND).await),
        (404, gateway.get("/nowhere").header("Origin", FRIEND).await),
    ];
    for (status, answer) in &refused {
        assert_eq!(answer.status(), *status);
        admits(answer, FRIEND);
        assert_eq!(answer.head.one("access-control-expose-headers"), Some("retry-after"));
    }
    for path in ["/api/items", "/nowhere", "/shared/x"] {
        admits_nobody(&gateway.get(path).header("Origin", EVIL).await);
    }
    admits_nobody(&gateway.get("/shared/x").header("Origin", FRIEND).await);
}

#[tokio::test]
async fn an_application_that_is_away_can_be_told_from_a_foreign_one() {
    let setup = setup().with("[upstreams.app]\nendpoints = ['http://127.0.0.1:1']");
    let gateway = setup.start().await;
    let answer = gateway.get("/public/x").header("Origin", FRIEND).await;
    assert_eq!(answer.status(), 502);
    admits(&answer, FRIEND);
}

#[tokio::test]
async fn what_is_left_to_the_upstream_passes_untouched() {
    let gateway = setup().start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    gateway.upstream().answer(
        "/own/x",
        "HTTP/1.1 204 No Content\r\nAccess-Control-Allow-Origin: *\r\nAccess-Control-Max-Age: 5\r\n\r\n",
    );
    let asked = preflight(&gateway, "/own/x", EVIL, "PUT")
        .header("Cookie", format!("{}; theme=dark", ada.cookie))
        .bearer(&ada.token)
        .await;
    assert_eq!(asked.status(), 204);
    assert_eq!(said(&asked), ["access-control-allow-origin", "access-control-max-age"]);
    assert!(!varies(&asked));
    // It goes as nobody's: a preflight has no credentials, whoever puts some there.
    let seen = gateway.upstream().last();
    assert_eq!((seen.head.method(), seen.head.one("origin")), ("OPTIONS", Some(EVIL)));
    assert_eq!(seen.head.one("cookie"), Some("theme=dark"));
    assert!(
        !seen.head.has("authorization") && !seen.head.has("x-user-id"),
        "{:?}",
        seen.head
    );

    // Nor where the upstream gets them otherwise: nobody has looked whose they are.
    let asked = preflight(&gateway, "/kept/x", EVIL, "PUT")
        .with(&ada)
        .bearer(&ada.token);
    assert_eq!(asked.await.status(), 200);
    let seen = gateway.upstream().last();
    assert_eq!(seen.head.method(), "OPTIONS");
    assert!(
        !seen.head.has("cookie") && !seen.head.has("authorization"),
        "{:?}",
        seen.head
    );

    let before = gateway.upstream().requests().len();
    assert_eq!(preflight(&gateway, "/own/x", EVIL, "PUT").body("x").await.status(), 401);
    assert_eq!(
        gateway.call("OPTIONS", "/own/x").header("Origin", EVIL).await.status(),
        401
    );
    let refused = gateway.get("/own/x").header("Origin", FRIEND).await;
    assert_eq!(refused.status(), 401);
    admits_nobody(&refused);
    assert_eq!(gateway.upstream().requests().len(), before);

    let answer = gateway.get("/own/x").with(&ada).header("Origin", EVIL).await;
    assert_eq!(answer.head.one("access-control-allow-origin"), Some("*"));
}

#[tokio::test]
async fn explain_tells_who_may_ask() {
    let folder = tempfile::tempdir().unwrap();
    let (mailbox, upstream) = (Mailbox::start().await, Upstream::start().await);
    let text = setup().text(
        &Database::at("postgres://localhost:1/x"),
        mailbox.addr(),
        upstream.addr(),
    );
    std::fs::write(folder.path().join("gateway.toml"), text).unwrap();
    for (url, origin, expected) in [
        (
            "/api/x",
            FRIEND,
            &[
                "https://app.example.com, https://friend.example",
                "answered by the gateway",
            ][..],
        ),
        ("/api/x", EVIL, &["refused: 403 INVALID_ORIGIN"]),
        (
            "/shared/x",
            PARTNER,
            &["pages of https://partner.example", "answered by the gateway"],
        ),
        (
            "/own/x",
            EVIL,
            &["whomever the upstream names", "OPTIONS /own/x HTTP/1.1"],
        ),
    ] {
        let origin = format!("Origin: {origin}");
        let asked = "Access-Control-Request-Method: PUT";
        let args = ["explain", "OPTIONS", url, "-H", &origin, "-H", asked];
        let ended = run(&args, &[], folder.path()).await;
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        for words in expected {
            assert!(ended.stdout.contains(words), "{words}\n{}", ended.stdout);
        }
    }
}
