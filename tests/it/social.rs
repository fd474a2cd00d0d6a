//! Signing in at providers: the way there, through their forms, and back.

use serde_json::json;

use crate::harness::{
    Browser, Gateway, Setup,
    browser::param,
    provider::{self, Client, Kind, Provider},
};

const KINDS: [Kind; 5] = [Kind::Oidc, Kind::Google, Kind::GitHub, Kind::Apple, Kind::Microsoft];

/// A provider where Ada has a proven address, and a gateway that is registered there.
async fn at(kind: Kind) -> (Provider, Client, Gateway) {
    let provider = Provider::start(kind, json!({})).await;
    let client = provider.client("there").await;
    provider
        .admit(json!({
            "sub": "1001", "email": "ada@example.com", "email_verified": true, "xms_edov": true,
            "name": "Ada Lovelace", "given_name": "Ada", "family_name": "Lovelace",
        }))
        .await;
    let setup = Setup::default().with(&client.toml());
    (provider, client, setup.clock(&provider::clock()).start().await)
}

#[tokio::test]
async fn somebody_new_comes_back_signed_in_from_every_kind_of_provider() {
    for kind in KINDS {
        let (_provider, client, gateway) = at(kind).await;
        let browser = Browser::default();
        let answer = browser.sign_in_at(&gateway, &client, "1001").await;
        assert_eq!(answer.status(), 302, "{kind:?}");
        assert_eq!(answer.head.one("location"), Some("/home"), "{kind:?}");
        let who = browser.who(&gateway).await;
        assert_eq!(
            (
                &who["user"]["email"],
                &who["user"]["name"],
                &who["user"]["emailVerified"]
            ),
            (&json!("ada@example.com"), &json!("Ada Lovelace"), &json!(true)),
            "{kind:?}"
        );
        let names = browser.cookie_names(&gateway);
        assert!(!names.iter().any(|name| name.contains("state")), "{kind:?}: {names:?}");

        let again = Browser::default();
        again.sign_in_at(&gateway, &client, "1001").await;
        assert_eq!(again.who(&gateway).await["user"]["id"], who["user"]["id"], "{kind:?}");
        assert_eq!(gateway.db().count("SELECT count(*) FROM users").await, 1, "{kind:?}");
    }
}

#[tokio::test]
async fn the_gateway_always_asks_with_pkce_and_shows_the_verifier() {
    for kind in KINDS {
        let (provider, client, gateway) = at(kind).await;
        Browser::default().sign_in_at(&gateway, &client, "1001").await;
        let [asked, redeemed] = ["authorize", "token"].map(|place| provider.requests(place));
        let (asked, redeemed) = (asked.await, redeemed.await);
        assert_eq!(asked[0]["query"]["code_challenge_method"], "S256", "{kind:?}");
        assert_eq!(
            asked[0]["query"]["redirect_uri"],
            json!(client.redirect_uri),
            "{kind:?}"
        );
        let verifier = redeemed[0]["form"]["code_verifier"].as_str().unwrap();
        assert!(verifier.len() >= 43, "{kind:?}: {verifier}");
    }
}

#[tokio::test]
async fn who_denies_comes_back_to_the_error_page_of_the_app() {
    for kind in KINDS {
        let (_provider, client, gateway) = at(kind).await;
        let browser = Browser::default();
        let body = json!({ "callbackURL": "/home", "errorCallbackURL": "/sorry?tab=1" });
        let url = browser.start(&gateway, client.name(), body).await;
        let back = browser.deny(&url, "1001").await;
        let answer = browser.land(&gateway, &back).await;
        let location = answer.head.one("location").unwrap();
        let error = param(&format!("http://app{location}"), "error");
        assert!(location.starts_with("/sorry?tab=1&error="), "{kind:?}: {location}");
        assert_eq!(error.as_deref(), back.get("error"), "{kind:?}");
        assert!(browser.who(&gateway).await.is_null(), "{kind:?}");
    }
}

#[tokio::test]
async fn a_changed_state_gets_nobody_in_and_asks_the_provider_nothing() {
    let (provider, client, gateway) = at(Kind::Oidc).await;
    let browser = Browser::default();
    let url = browser
        .start(&gateway, client.name(), json!({ "callbackURL": "/home" }))
        .await;
    let back = browser.agree(&url, "1001").await;
    for state in [None, Some("another")] {
        let answer = browser.land(&gateway, &back.with("state", state)).await;
        assert_eq!(answer.status(), 302);
        assert!(browser.who(&gateway).await.is_null());
    }
    assert_eq!(provider.requests("token").await.len(), 0);
}

/// Its cookie names the browser, and the flow that the other tab began meanwhile needs it.
#[tokio::test]
async fn a_tab_that_comes_back_does_not_stop_one_that_left_meanwhile() {
    let (provider, client, gateway) = at(Kind::Oidc).await;
    let browser = Browser::default();
    let start = || browser.start(&gateway, client.name(), json!({ "callbackURL": "/home" }));
    let first = browser.agree(&start().await, "1001").await;
    provider.fault("token", json!({ "hang": true })).await;
    let other_tab = async {
        while provider.requests("token").await.is_empty() {
            tokio::task::yield_now().await;
        }
        let url = start().await;
        provider.lift("token").await;
        url
    };
    let (_, url) = tokio::join!(browser.land(&gateway, &first), other_tab);
    let second = browser.agree(&url, "1001").await;
    let answer = browser.land(&gateway, &second).await;
    assert_eq!(answer.head.one("location"), Some("/home"));
    let names = browser.cookie_names(&gateway);
    assert!(!names.iter().any(|name| name.contains("state")), "{names:?}");
}

/// The token of a flow is bound to it by a nonce, which only the flow knows.
#[tokio::test]
async fn a_flows_own_id_token_signs_nobody_in_without_its_nonce() {
    let (provider, client, gateway) = at(Kind::Oidc).await;
    let browser = Browser::default();
    for (nonce, status) in [(Some("n-1"), 401), (None, 200)] {
        let more = nonce.map_or_else(|| json!({}), |nonce| json!({ "nonce": nonce }));
        let token = provider.id_token(&client, "1001", more).await;
        let body = json!({ "provider": "there", "idToken": { "token": token } });
        let answer = browser.post(&gateway, "/api/auth/sign-in/social", &body).await;
        assert_eq!(answer.status(), status, "{}", answer.text());
    }
}
