//! The providers that other tests sign in at are what they seem: by a client that writes its own requests.

use std::{process::Stdio, time::Duration};

use base64ct::{Base64UrlUnpadded, Encoding};
use serde_json::{Value, json};
use tokio::{process::Command, time::timeout};
use url::{Url, form_urlencoded};

use crate::harness::{
    Browser, SOON, Setup,
    client::{Call, Response},
    eventually,
    provider::{self, Client, Kind, Provider},
};

/// The pair of RFC 7636, appendix B.
const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

/// They give up by themselves before that.
const A_WHILE: Duration = Duration::from_mins(3);

#[tokio::test]
async fn they_do_what_their_own_tests_ask_of_them() {
    let tests = Command::new("node")
        .args(["--test", "--test-reporter=spec", "testbed.test.mjs"])
        .current_dir(provider::folder())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let tests = timeout(A_WHILE, tests).await.expect("the tests end").unwrap();
    let said = String::from_utf8_lossy(&tests.stdout);
    assert!(tests.status.success() && said.contains("ℹ pass 27"), "{said}");
}

#[tokio::test]
async fn somebody_signs_in_there_by_its_forms_and_the_code_is_worth_tokens() {
    for kind in [Kind::Oidc, Kind::GitHub, Kind::Apple, Kind::Microsoft] {
        let provider = Provider::start(kind, json!({})).await;
        let client = provider.client("it").await;
        provider.person("1001", "ada@example.com", true).await;
        let back = Browser::default().agree(&ask(&provider, kind, &client), "1001").await;
        assert_eq!(back.get("state"), Some("the state"), "{kind:?}");
        assert_eq!(back.get("error"), None, "{kind:?}");
        let answer = redeem(&provider, kind, &client, back.get("code").unwrap()).await;
        if kind == Kind::Apple {
            // Whose secret is a token that nobody here can sign.
            assert_eq!(answer.json()["error"], "invalid_client");
        } else {
            assert!(answer.json()["access_token"].is_string(), "{kind:?}: {}", answer.text());
        }
        let seen = provider.requests("token").await;
        assert_eq!(seen[0]["form"]["code_verifier"], VERIFIER, "{kind:?}");
    }
}

#[tokio::test]
async fn who_denies_comes_back_with_an_error() {
    for (kind, error) in [
        (Kind::Oidc, "access_denied"),
        (Kind::GitHub, "access_denied"),
        (Kind::Apple, "user_cancelled_authorize"),
        (Kind::Microsoft, "access_denied"),
    ] {
        let provider = Provider::start(kind, json!({})).await;
        let client = provider.client("it").await;
        provider.person("1001", "ada@example.com", true).await;
        let back = Browser::default().deny(&ask(&provider, kind, &client), "1001").await;
        assert_eq!((back.get("error"), back.get("code")), (Some(error), None), "{kind:?}");
    }
}

#[tokio::test]
async fn a_fault_lasts_until_it_is_lifted_and_other_providers_are_well() {
    let (ill, well) = (Provider::oidc().await, Provider::oidc().await);
    ill.fault("jwks", json!({ "answer": { "status": 500 } })).await;
    assert_eq!(get(&ill, "/jwks").await.status(), 500);
    assert_eq!(get(&well, "/jwks").await.status(), 200);
    ill.lift("jwks").await;
    assert_eq!(get(&ill, "/jwks").await.status(), 200);

    ill.fault("jwks", json!({ "hang": true })).await;
    let hanging = tokio::spawn(get(&ill, "/jwks").into_future());
    eventually(SOON, async || ill.requests("jwks").await.len() == 3).await;
    assert!(!hanging.is_finished());
    ill.lift("jwks").await;
    assert_eq!(hanging.await.unwrap().status(), 200);
}

#[tokio::test]
async fn keys_options_and_people_change_while_it_runs() {
    let provider = Provider::oidc().await;
    let client = provider.client("it").await;
    let key = async || get(&provider, "/jwks").await.json()["keys"][0]["kid"].clone();
    let before = key().await;
    provider.rotate().await;
    assert_ne!(key().await, before);

    provider.change(json!({ "access_token_seconds": 7 })).await;
    provider.admit(json!({ "sub": "1001", "name": "Ada" })).await;
    let back = Browser::default()
        .agree(&ask(&provider, Kind::Oidc, &client), "1001")
        .await;
    let tokens = redeem(&provider, Kind::Oidc, &client, back.get("code").unwrap())
        .await
        .json();
    assert_eq!(tokens["expires_in"], 7);
    let claims = claims(tokens["id_token"].as_str().unwrap());
    assert_eq!((&claims["name"], &claims["email"]), (&json!("Ada"), &Value::Null));

    let token = provider.id_token(&client, "1001", json!({ "nonce": "its own" })).await;
    assert_eq!(self::claims(&token)["nonce"], "its own");
}

/// What the gateway is told of it is a configuration.
#[tokio::test]
async fn the_gateway_takes_what_is_said_of_it() {
    let mut setup = Setup::default();
    for kind in [Kind::Oidc, Kind::Google, Kind::GitHub, Kind::Apple, Kind::Microsoft] {
        let provider = Provider::start(kind, json!({})).await;
        let name = format!("{kind:?}").to_lowercase();
        let client = provider.client(&name).await;
        assert_eq!(client.name(), name);
        setup = setup.with(&client.toml_with("sign_up = 'on-request'"));
    }
    let gateway = setup.clock(&provider::clock()).start().await;
    assert_eq!(Browser::default().get(&gateway, "/public/page").await.status(), 200);
}

fn get(provider: &Provider, target: &str) -> Call {
    Call::new(provider.addr(), &provider.url, "GET", target).undescribed()
}

/// An authorisation URL.
fn ask(provider: &Provider, kind: Kind, client: &Client) -> String {
    let (path, more): (_, &[_]) = match kind {
        Kind::Oidc | Kind::Google => ("/auth", &[("scope", "openid email profile")]),
        Kind::GitHub => ("/login/oauth/authorize", &[("scope", "read:user user:email")]),
        Kind::Apple => (
            "/auth/authorize",
            &[("scope", "email name"), ("response_mode", "form_post")],
        ),
        Kind::Microsoft => ("/common/oauth2/v2.0/authorize", &[("scope", "openid email")]),
    };
    let params = [
        ("client_id", client.id.as_str()),
        ("redirect_uri", &client.redirect_uri),
        ("response_type", "code"),
        ("state", "the state"),
        ("code_challenge", CHALLENGE),
        ("code_challenge_method", "S256"),
    ];
    let url = format!("{}{path}", provider.url);
    Url::parse_with_params(&url, params.iter().chain(more)).unwrap().into()
}

async fn redeem(provider: &Provider, kind: Kind, client: &Client, code: &str) -> Response {
    let path = match kind {
        Kind::Oidc | Kind::Google => "/token",
        Kind::GitHub => "/login/oauth/access_token",
        Kind::Apple => "/auth/token",
        Kind::Microsoft => "/common/oauth2/v2.0/token",
    };
    let form = form_urlencoded::Serializer::new(String::new())
        .extend_pairs([
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", &client.redirect_uri),
            ("code_verifier", VERIFIER),
            ("client_id", &client.id),
            ("client_secret", client.secret.as_deref().unwrap_or_default()),
        ])
        .finish();
    Call::new(provider.addr(), &provider.url, "POST", path)
        .undescribed()
        .header("Content-Type", "application/x-www-form-urlencoded")
        .header("Accept", "application/json")
        .body(form)
        .await
}

fn claims(token: &str) -> Value {
    let payload = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&Base64UrlUnpadded::decode_vec(payload).unwrap()).unwrap()
}
