//! Tokens that are made up: Postgres does not hear of them, or of very few.

use std::time::Duration;

use futures_util::future::join_all;

use super::{Control, reached};
use crate::harness::{Gateway, RawClient, SOON, Setup, eventually};

/// How many are shown; `make test-exhaustion` shows a hundred thousand.
fn junk() -> usize {
    std::env::var("VESTIBULE_TEST_JUNK").map_or(2_000, |text| text.parse().expect("a number"))
}

/// Look-ups of sessions that the cache had no answer for: each is a query, or shares one.
async fn lookups(gateway: &Gateway) -> f64 {
    gateway.metric("vestibule_session_cache_misses_total").await
}

/// Shows `count` tokens, each as `field` says it, on a few connections; what the answers' statuses were, in order.
async fn show(gateway: &Gateway, path: &str, count: usize, field: impl Fn(usize) -> String) -> Vec<u16> {
    const CONNECTIONS: usize = 4;
    let shown = (0..CONNECTIONS).map(|client| {
        let requests: Vec<String> = (client..count)
            .step_by(CONNECTIONS)
            .map(|number| {
                format!(
                    "GET {path} HTTP/1.1\r\nHost: app.example.com\r\n{}\r\n\r\n",
                    field(number)
                )
            })
            .collect();
        async move {
            let mut statuses = Vec::new();
            let mut client = RawClient::connect(gateway.addr()).await;
            for request in requests {
                client.send(request).await;
                statuses.push(client.answer().await.status());
            }
            statuses
        }
    });
    join_all(shown).await.concat()
}

fn count(statuses: &[u16], status: u16) -> usize {
    statuses.iter().filter(|found| **found == status).count()
}

/// Behind a proxy that says where clients are; each network may show fifty tokens that are nobody's.
async fn patient_with_fifty() -> Gateway {
    let setup = "[server]\ntrusted_proxies = ['127.0.0.1']\n[auth.session.unknown_tokens]\nlimit = 50";
    Setup::default().with(setup).start().await
}

#[tokio::test]
async fn dos_cookies_that_are_made_up_are_no_query() {
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    // Those whose signature is another token's, too.
    let (_, signature) = ada.cookie.rsplit_once('.').unwrap();
    assert_eq!(gateway.get("/api/me").with(&ada).await.status(), 200);
    let before = lookups(&gateway).await;
    let name = gateway.session_cookie();
    let statuses = show(&gateway, "/api/me", junk(), |number| {
        let signature = if number % 2 == 0 {
            &format!("{number:043}%3D")
        } else {
            signature
        };
        format!("Cookie: {name}=junk{number:039}.{signature}")
    })
    .await;
    assert_eq!(count(&statuses, 401), junk());
    assert!(lookups(&gateway).await - before < 0.5);
    assert_eq!(gateway.get("/api/me").with(&ada).await.status(), 200);
}

#[tokio::test]
async fn dos_bearer_tokens_that_are_made_up_are_very_few_queries() {
    let gateway = patient_with_fifty().await;
    let control = Control::signed_in(&gateway).await;
    let (ada, bob) = (
        gateway.signed_in("ada@example.com").await,
        gateway.signed_in("bob@example.com").await,
    );
    let (from, elsewhere) = ("198.18.0.1", "198.18.0.2");
    let me = |bearer: &str, from: &str| {
        let call = gateway.get("/api/me").bearer(bearer);
        call.header("X-Forwarded-For", from)
    };
    assert_eq!(me(&ada.token, from).await.status(), 200);
    let before = lookups(&gateway).await;
    let token = |number: usize| format!("junk{number:039}");
    for path in ["/api/me", "/optional/x", "/api/auth/get-session"] {
        show(&gateway, path, junk() / 4, |number| {
            format!("Authorization: Bearer {}\r\nX-Forwarded-For: {from}", token(number))
        })
        .await;
    }
    // On a public route it decides whether it leaves.
    let statuses = show(&gateway, "/public/x", junk() / 4, |number| {
        format!(
            "Authorization: Bearer {}\r\nX-Forwarded-For: {from}",
            token(1_000_000 + number)
        )
    })
    .await;
    assert_eq!(count(&statuses, 200), junk() / 4);
    let asked = lookups(&gateway).await - before;
    assert!((10.0..150.0).contains(&asked), "{asked}");
    assert!(reached(&gateway, "auth.session.unknown_tokens").await > 100.0);
    let refused = me(&token(2_000_000), from).await;
    assert_eq!((refused.status(), refused.code().as_str()), (429, "TOO_MANY_REQUESTS"));
    assert!(refused.head.has("retry-after"));

    // From there somebody who was here before is known still, though the cache has forgotten them;
    gateway.clock().advance(Duration::from_secs(30));
    assert_eq!(me(&ada.token, from).await.status(), 200);
    // so is whoever shows a token that the gateway has signed, and whoever comes from elsewhere.
    assert_eq!(
        gateway
            .get("/api/me")
            .with(&bob)
            .header("X-Forwarded-For", from)
            .await
            .status(),
        200
    );
    assert_eq!(me(&bob.token, elsewhere).await.status(), 200);
    assert_eq!(me(&token(3_000_000), elsewhere).await.status(), 401);
    // None that might be a session's left for an application.
    let left = gateway
        .upstream()
        .requests()
        .into_iter()
        .filter(|seen| seen.head.path() == "/public/x");
    assert!(left.filter(|seen| seen.head.has("authorization")).count() <= 50);
    // And it is over by itself.
    gateway.clock().advance(Duration::from_mins(1));
    assert_eq!(me(&token(4_000_000), from).await.status(), 401);
    assert!(control.end().await > 0);
}

/// Services ask for their own clients; a stranger who asks has no more look-ups there than elsewhere.
#[tokio::test]
async fn dos_tokens_that_are_made_up_for_verify_token_are_few_queries_from_beyond() {
    let gateway = patient_with_fifty().await;
    let ada = gateway.signed_in("ada@example.com").await;
    for (first, from, are_asked_for) in [(0, "198.18.0.1", 50), (1_000_000, "10.0.0.7", junk())] {
        let before = lookups(&gateway).await;
        let statuses = show(&gateway, "/api/auth/verify-token", junk(), |number| {
            format!(
                "Authorization: Bearer junk{:039}\r\nX-Forwarded-For: {from}",
                first + number
            )
        })
        .await;
        // Of those that are shown at once a few more.
        let asked = count(&statuses, 401);
        assert!((are_asked_for..=are_asked_for + 10).contains(&asked), "{from}: {asked}");
        assert_eq!(count(&statuses, 429), junk() - asked);
        let looked_up = lookups(&gateway).await - before;
        assert!(
            looked_up < f64::from(u32::try_from(asked).unwrap()) + 0.5,
            "{looked_up}"
        );
        let known = gateway
            .get("/api/auth/verify-token")
            .with(&ada)
            .header("X-Forwarded-For", from);
        assert_eq!(known.await.status(), 200);
    }
}

/// Tokens of an application of its own pass a route that wants no session, again and again.
#[tokio::test]
async fn tokens_of_an_application_s_own_pass_again_and_again() {
    let gateway = Setup::default()
        .with("[auth.session.unknown_tokens]\nlimit = 20")
        .start()
        .await;
    for round in 0..5 {
        for number in 0..10 {
            let token = format!("a-key-of-the-application-{number:020}");
            let answer = gateway.get("/public/x").bearer(&token).await;
            assert_eq!(answer.status(), 200);
            let bearer = format!("Bearer {token}");
            assert_eq!(
                gateway.upstream().last().head.one("authorization"),
                Some(bearer.as_str()),
                "{round}"
            );
        }
        gateway.clock().advance(Duration::from_secs(5));
    }
    eventually(SOON, async || {
        reached(&gateway, "auth.session.unknown_tokens").await < 0.5
    })
    .await;
}
