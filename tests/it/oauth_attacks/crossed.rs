//! Answers and codes that are taken to a flow they do not belong to.

use serde_json::json;

use super::{ADA, ADA_SUB, EVE_SUB, World, location, person};
use crate::harness::{
    Browser, Setup,
    provider::{self, Kind, Provider},
};

/// OAUTH-02: each is burnt by being shown in the other's browser.
#[tokio::test]
async fn oauth_02_two_browsers_that_swap_their_answers_are_both_refused() {
    let world = World::new().await;
    let (ada, eve) = (Browser::default(), Browser::default());
    let (hers, eves) = (world.back(&ada, ADA_SUB).await, world.back(&eve, EVE_SUB).await);
    assert_eq!(world.land(&ada, &eves).await, "/sorry?error=state_mismatch");
    assert_eq!(world.land(&eve, &hers).await, "/sorry?error=state_mismatch");
    for (browser, own) in [(&ada, &hers), (&eve, &eves)] {
        let end = world.land(browser, own).await;
        assert!(end.ends_with("/api/auth/error?error=state_mismatch"), "{end}");
        assert!(browser.who(&world.gateway).await.is_null());
    }
    assert_eq!((world.asked("token").await, world.count("users").await), (0, 0));
}

/// OAUTH-02: a browser that sends no cookie back is no browser of any flow.
#[tokio::test]
async fn an_answer_without_the_flows_cookie_is_refused() {
    let world = World::new().await;
    let back = world.back(&Browser::default(), ADA_SUB).await;
    let answer = world.gateway.get(&back.target(&world.gateway)).await;
    assert_eq!(location(&answer), "/sorry?error=state_mismatch");
    assert!(!answer.head.has("set-cookie"));
    assert_eq!(world.asked("token").await, 0);
}

/// OAUTH-02.
#[tokio::test]
async fn oauth_02_an_answer_that_is_taken_to_another_providers_callback_is_refused_by_both() {
    let (here, there) = (Provider::oidc().await, Provider::oidc().await);
    let (one, other) = (here.client("one").await, there.client("other").await);
    here.admit(person(ADA_SUB, ADA)).await;
    let setup = Setup::default().with(&one.toml()).with(&other.toml());
    let gateway = setup.clock(&provider::clock()).start().await;
    let browser = Browser::default();
    let body = json!({ "callbackURL": "/home", "errorCallbackURL": "/sorry" });
    let url = browser.start(&gateway, one.name(), body).await;
    let back = browser.agree(&url, ADA_SUB).await;
    let elsewhere = back.target(&gateway).replace("/callback/one", "/callback/other");
    let answer = browser.get(&gateway, &elsewhere).await;
    assert_eq!(location(&answer), "/sorry?error=state_mismatch");
    let own = browser.land(&gateway, &back).await;
    assert!(location(&own).ends_with("/api/auth/error?error=state_mismatch"));
    assert!(browser.who(&gateway).await.is_null());
    for provider in [here, there] {
        assert_eq!(provider.requests("token").await.len(), 0);
    }
}

/// A code is bound to the flow that it was made for: by PKCE, and where a provider does not care for that, by the nonce
/// in the id_token. So Eve can't spend Ada's code, nor sign Ada in as herself.
#[tokio::test]
async fn a_code_is_worth_nothing_in_another_flow() {
    for (kind, options, error) in [
        (Kind::Oidc, json!({}), "invalid_code"),
        (Kind::GitHub, json!({}), "invalid_code"),
        (Kind::Microsoft, json!({ "pkce": "ignored" }), "unable_to_get_user_info"),
        (Kind::Apple, json!({ "pkce": "ignored" }), "unable_to_get_user_info"),
    ] {
        let world = World::of(kind, options, "").await;
        for (whose, other) in [(ADA_SUB, EVE_SUB), (EVE_SUB, ADA_SUB)] {
            let (here, elsewhere) = (Browser::default(), Browser::default());
            let stolen = world.back(&elsewhere, other).await;
            let back = world.back(&here, whose).await.with("code", stolen.get("code"));
            let end = world.land(&here, &back).await;
            assert_eq!(end, format!("/sorry?error={error}"), "{kind:?}");
            assert!(here.who(&world.gateway).await.is_null(), "{kind:?}");
        }
        assert_eq!(world.count("users").await, 0, "{kind:?}");
    }
}

#[tokio::test]
async fn a_code_works_once() {
    for kind in [Kind::Oidc, Kind::GitHub, Kind::Microsoft, Kind::Apple] {
        let world = World::of(kind, json!({}), "").await;
        let browser = Browser::default();
        let spent = world.back(&browser, ADA_SUB).await;
        assert_eq!(world.land(&browser, &spent).await, "/home", "{kind:?}");
        let again = Browser::default();
        let back = world.back(&again, ADA_SUB).await.with("code", spent.get("code"));
        assert_eq!(world.land(&again, &back).await, "/sorry?error=invalid_code", "{kind:?}");
        assert!(again.who(&world.gateway).await.is_null(), "{kind:?}");
    }
}

/// RFC 9700, section 4.7.1: what proves a flow, of the browser, is not what a link proves.
#[tokio::test]
async fn a_flow_that_was_begun_to_link_signs_nobody_in() {
    let world = World::new().await;
    let ada = Browser::default();
    world.gateway.verified("bob@example.com").await;
    let body = json!({ "email": "bob@example.com", "password": crate::harness::people::PASSWORD });
    ada.post(&world.gateway, "/api/auth/sign-in/email", &body).await;
    let body = json!({ "provider": "there", "callbackURL": "/home", "errorCallbackURL": "/sorry" });
    let answer = ada.post(&world.gateway, "/api/auth/link-social", &body).await;
    let url = answer.json()["url"].as_str().unwrap().to_owned();
    let back = ada.agree(&url, ADA_SUB).await;
    assert_eq!(
        ada.post(&world.gateway, "/api/auth/sign-out", &json!({}))
            .await
            .status(),
        200
    );
    assert_eq!(world.land(&ada, &back).await, "/sorry?error=unable_to_link_account");
    assert!(ada.who(&world.gateway).await.is_null());
    assert_eq!(world.count("users").await, 1);
}
