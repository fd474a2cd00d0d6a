//! id_tokens that are not what they should be, from the token endpoint and from an app.

use std::time::Duration;

use base64ct::{Base64UrlUnpadded, Encoding};
use futures_util::future::join_all;
use serde_json::{Value, json};

use super::{ADA, ADA_SUB, World};
use crate::harness::{client::Response, provider::Kind};

/// How often the keys may be asked for while tokens come in that no key made.
const FEW: usize = 2;

/// What is wrong with a token, wherever it comes from.
fn forgeries() -> Vec<Value> {
    vec![
        json!({ "sign": "none" }),
        json!({ "sign": "hs256-secret" }),
        json!({ "sign": "hs256-public" }),
        json!({ "sign": "unknown-key" }),
        json!({ "sign": "stolen-kid" }),
        json!({ "sign": "broken" }),
        json!({ "set": { "iss": "https://evil.example" } }),
        json!({ "remove": ["iss"] }),
        json!({ "set": { "aud": "somebody-else" } }),
        json!({ "set": { "aud": [] } }),
        json!({ "set": { "aud": 7 } }),
        json!({ "remove": ["aud"] }),
        json!({ "set": { "exp": 1_700_000_000 } }),
        json!({ "set": { "exp": "2100-01-01" } }),
        json!({ "remove": ["exp"] }),
        json!({ "remove": ["iat"] }),
        json!({ "set": { "iat": -1 } }),
        json!({ "set": { "nbf": 4_000_000_000_u64 } }),
        json!({ "remove": ["sub"] }),
        json!({ "set": { "sub": "" } }),
        json!({ "set": { "sub": 1001 } }),
        json!({ "set": { "sub": "x".repeat(300) } }),
        json!({ "shift": 600 }),
        json!({ "shift": -7200 }),
    ]
}

/// Those that only the flow can tell.
fn forgeries_in_flow() -> Vec<Value> {
    vec![
        // OAUTH-05: replayed from another flow.
        json!({ "set": { "nonce": "another" } }),
        json!({ "set": { "nonce": "" } }),
        json!({ "set": { "nonce": null } }),
        json!({ "remove": ["nonce"] }),
        json!({ "set": { "azp": "somebody-else" } }),
        json!({ "set": { "azp": 7 } }),
        json!({ "set": { "at_hash": "AAAAAAAAAAAAAAAAAAAAAA" } }),
        // It was made a moment ago: ten minutes are a clock that is wrong.
        json!({ "shift": -600 }),
    ]
}

/// OAUTH-05, and all else that OpenID Connect Core 1.0 (section 3.1.3.7) has a client look at.
#[tokio::test]
async fn oauth_05_a_forged_token_in_the_flow_gets_nobody_in() {
    for kind in [Kind::Oidc, Kind::Google] {
        let world = World::of(kind, json!({}), "").await;
        let all = forgeries().into_iter().chain(forgeries_in_flow());
        for forgery in all {
            let what = format!("{kind:?}: {forgery}");
            world.provider.fault("token", json!({ "id_token": forgery })).await;
            world.is_refused(ADA_SUB, "unable_to_get_user_info", &what).await;
        }
        assert_eq!((world.count("users").await, world.count("accounts").await), (0, 0));
        world.provider.lift("token").await;
        world.is_let_in(ADA_SUB, ADA, "the right one").await;
    }
}

#[tokio::test]
async fn an_answer_without_an_id_token_gets_nobody_in() {
    let world = World::new().await;
    for fault in [
        json!({ "remove": ["id_token"] }),
        json!({ "set": { "id_token": "" } }),
        json!({ "set": { "id_token": "a.b.c" } }),
        json!({ "set": { "id_token": "x".repeat(100_000) } }),
    ] {
        world.provider.fault("token", fault.clone()).await;
        world
            .is_refused(
                ADA_SUB,
                "unable_to_get_user_info",
                &fault.to_string()[..40.min(fault.to_string().len())],
            )
            .await;
    }
    assert_eq!(world.asked("userinfo").await, 0);
}

/// As an app presents one that it got by itself.
async fn present(world: &World, token: &str, nonce: Option<&str>) -> Response {
    let mut id_token = json!({ "token": token });
    if let Some(nonce) = nonce {
        id_token["nonce"] = json!(nonce);
    }
    let body = json!({ "provider": "there", "idToken": id_token });
    world.gateway.post("/api/auth/sign-in/social").json(&body).await
}

async fn made(world: &World, more: Value) -> String {
    world.provider.id_token(&world.client, ADA_SUB, more).await
}

#[tokio::test]
async fn a_forged_token_that_an_app_presents_gets_nobody_in() {
    let world = World::new().await;
    for forgery in forgeries() {
        let answer = present(&world, &made(&world, forgery.clone()).await, None).await;
        assert_eq!(
            (answer.status(), answer.code().as_str()),
            (401, "INVALID_TOKEN"),
            "{forgery}"
        );
        assert!(!answer.head.has("set-cookie"), "{forgery}");
    }
    // A nonce that the app gives must be in it.
    for (has, given) in [
        (json!({ "nonce": "one" }), "another"),
        (json!({}), "one"),
        (json!({ "nonce": "" }), ""),
    ] {
        let answer = present(&world, &made(&world, has.clone()).await, Some(given)).await;
        assert_eq!(
            (answer.status(), answer.code().as_str()),
            (401, "INVALID_TOKEN"),
            "{has} {given:?}"
        );
    }
    assert_eq!(world.count("users").await, 0);
    let good = made(&world, json!({ "nonce": "one" })).await;
    let answer = present(&world, &good, Some("one")).await;
    assert_eq!(answer.status(), 200, "{}", answer.text());
    assert_eq!(answer.json()["user"]["email"], ADA);
}

/// One of another client's at the same provider is not ours, and neither is one that somebody got for an hour ago.
#[tokio::test]
async fn an_apps_token_counts_for_this_gateway_and_for_an_hour() {
    let world = World::new().await;
    let foreign = world.provider.client("elsewhere").await;
    let token = world.provider.id_token(&foreign, ADA_SUB, json!({})).await;
    assert_eq!(present(&world, &token, None).await.code(), "INVALID_TOKEN");
    let token = made(&world, json!({ "set": { "exp": 4_000_000_000_u64 } })).await;
    world.gateway.clock().advance(Duration::from_mins(62));
    assert_eq!(present(&world, &token, None).await.code(), "INVALID_TOKEN");
    assert_eq!(world.count("users").await, 0);
}

/// Providers' clocks are a little off, and a token is used a little later than it was made.
#[tokio::test]
async fn a_clock_that_is_half_a_minute_off_keeps_nobody_out_and_one_that_is_ten_does() {
    let world = World::new().await;
    for shift in [30, -30] {
        let fault = json!({ "id_token": { "shift": shift } });
        world.provider.fault("token", fault).await;
        world.is_let_in(ADA_SUB, ADA, &shift.to_string()).await;
    }
    for shift in [600, -600] {
        let fault = json!({ "id_token": { "shift": shift } });
        world.provider.fault("token", fault).await;
        world
            .is_refused(ADA_SUB, "unable_to_get_user_info", &shift.to_string())
            .await;
    }
    world.provider.lift("token").await;
    // The gateway's own clock goes wrong.
    world.gateway.clock().advance(Duration::from_secs(30));
    world.is_let_in(ADA_SUB, ADA, "half a minute ahead").await;
    world.gateway.clock().advance(Duration::from_mins(10));
    world.is_refused(ADA_SUB, "unable_to_get_user_info", "ten ahead").await;
}

#[tokio::test]
async fn a_provider_changes_its_keys_between_two_sign_ins() {
    for kind in [Kind::Oidc, Kind::Google, Kind::Microsoft, Kind::Apple] {
        let world = World::of(kind, json!({}), "").await;
        world.is_let_in(ADA_SUB, ADA, &format!("{kind:?}, before")).await;
        assert_eq!(world.asked("jwks").await, 1, "{kind:?}");
        world.provider.rotate().await;
        for _ in 0..2 {
            world.is_let_in(ADA_SUB, ADA, &format!("{kind:?}, after")).await;
        }
        assert_eq!(world.asked("jwks").await, 2, "{kind:?}");
    }
}

#[tokio::test]
async fn a_key_that_was_withdrawn_signs_for_nobody_once_that_is_known_and_one_that_stays_does() {
    for (keeps, status) in [(true, 200), (false, 401)] {
        let world = World::new().await;
        let old = made(&world, json!({})).await;
        world.is_let_in(ADA_SUB, ADA, "before").await;
        world.provider.rotate_keeping(keeps).await;
        world.is_let_in(ADA_SUB, ADA, "after").await;
        assert_eq!(present(&world, &old, None).await.status(), status, "{keeps}");
    }
}

/// Whoever makes up tokens does not decide how often a provider is asked.
#[tokio::test]
async fn a_hundred_tokens_of_unknown_keys_ask_for_the_keys_a_few_times() {
    let world = World::new().await;
    let good = made(&world, json!({})).await;
    let (_, rest) = good.split_once('.').unwrap();
    let forged: Vec<String> = (0..100)
        .map(|n| {
            let header = json!({ "alg": "RS256", "kid": format!("made-up-{n}") }).to_string();
            format!("{}.{rest}", Base64UrlUnpadded::encode_string(header.as_bytes()))
        })
        .collect();
    let answers = join_all(forged.iter().map(|token| present(&world, token, None))).await;
    for answer in answers {
        assert_eq!((answer.status(), answer.code().as_str()), (401, "INVALID_TOKEN"));
    }
    assert!(world.asked("jwks").await <= FEW, "{}", world.asked("jwks").await);
    // And nobody who is honest is kept out by it.
    world.is_let_in(ADA_SUB, ADA, "afterwards").await;
    assert!(world.asked("jwks").await <= FEW);
}
