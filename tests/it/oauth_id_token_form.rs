//! Signing in and linking with an id_token that an app got by itself.

use std::time::Duration;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::harness::{
    Browser, Gateway, Setup,
    client::Response,
    provider::{self, Client, Kind, Provider},
};

const ADA: &str = "ada@example.com";
const SIGN_IN: &str = "/api/auth/sign-in/social";

async fn at(kind: Kind, keys: &str, toml: &str) -> (Provider, Client, Gateway) {
    let provider = Provider::start(kind, json!({})).await;
    let client = provider.client("there").await;
    provider
        .admit(json!({ "sub": "1001", "email": ADA, "email_verified": true, "xms_edov": true, "name": "Ada" }))
        .await;
    let setup = Setup::default().with(&client.toml_with(keys)).with(toml);
    (provider, client, setup.clock(&provider::clock()).start().await)
}

fn body(id_token: &Value) -> Value {
    json!({ "provider": "there", "idToken": id_token })
}

async fn present(gateway: &Gateway, id_token: &Value) -> Response {
    gateway.post(SIGN_IN).json(&body(id_token)).await
}

#[track_caller]
fn is_refused(answer: &Response, status: u16, code: &str) {
    assert_eq!(
        (answer.status(), answer.code().as_str()),
        (status, code),
        "{}",
        answer.text()
    );
}

async fn count(gateway: &Gateway, of: &str) -> i64 {
    gateway.db().count(&format!("SELECT count(*) FROM {of}")).await
}

#[tokio::test]
async fn every_kind_of_provider_that_has_them_takes_them_with_the_nonce_that_was_sent() {
    for kind in [Kind::Oidc, Kind::Google, Kind::Apple, Kind::Microsoft] {
        let (provider, client, gateway) = at(kind, "", "").await;
        let browser = Browser::default();
        let token = provider.id_token(&client, "1001", json!({ "nonce": "n-1" })).await;
        let without = provider.id_token(&client, "1001", json!({})).await;
        for refused in [
            json!({ "token": token, "nonce": "n-2" }),
            json!({ "token": without, "nonce": "n-1" }),
        ] {
            is_refused(&present(&gateway, &refused).await, 401, "INVALID_TOKEN");
        }
        assert_eq!(count(&gateway, "users").await, 0, "{kind:?}");
        let good = body(&json!({ "token": token, "nonce": "n-1" }));
        let answer = browser.post(&gateway, SIGN_IN, &good).await;
        assert_eq!(answer.status(), 200, "{kind:?}: {}", answer.text());
        assert!(!answer.head.has("location"), "{kind:?}");
        let said = answer.json();
        assert_eq!(said["redirect"], json!(false), "{kind:?}");
        assert_eq!(said["user"]["email"], json!(ADA), "{kind:?}");
        assert_eq!(
            browser.who(&gateway).await["session"]["token"],
            said["token"],
            "{kind:?}"
        );
    }
}

#[tokio::test]
async fn apples_apps_send_the_nonce_hashed_and_say_the_name_themselves() {
    let (provider, client, gateway) = at(Kind::Apple, "", "").await;
    let digits = Sha256::digest("n-1")
        .into_iter()
        .flat_map(|byte| [byte >> 4, byte & 15]);
    let hashed: String = digits.filter_map(|digit| char::from_digit(digit.into(), 16)).collect();
    let token = provider.id_token(&client, "1001", json!({ "nonce": hashed })).await;
    let user = json!({ "name": { "firstName": "Ada", "lastName": "Lovelace" }, "email": "eve@example.com" });
    let answer = present(&gateway, &json!({ "token": token, "nonce": "n-1", "user": user })).await;
    assert_eq!(answer.status(), 200, "{}", answer.text());
    let user = &answer.json()["user"];
    assert_eq!((&user["name"], &user["email"]), (&json!("Ada Lovelace"), &json!(ADA)));
}

#[tokio::test]
async fn who_has_no_id_tokens_takes_none() {
    let (_provider, _client, gateway) = at(Kind::GitHub, "", "").await;
    let token = json!({ "token": "e30.e30.x" });
    is_refused(&present(&gateway, &token).await, 404, "ID_TOKEN_NOT_SUPPORTED");
    let nobody = json!({ "provider": "nobody", "idToken": token });
    let answer = gateway.post(SIGN_IN).json(&nobody).await;
    is_refused(&answer, 404, "PROVIDER_NOT_FOUND");
    let ada = Browser::signed_in(&gateway, ADA).await;
    let answer = ada.post(&gateway, "/api/auth/link-social", &body(&token)).await;
    is_refused(&answer, 404, "ID_TOKEN_NOT_SUPPORTED");
}

#[tokio::test]
async fn a_token_that_is_wrong_in_any_way_gets_nobody_in() {
    let (provider, client, gateway) = at(Kind::Oidc, "", "").await;
    let other = provider.client("other").await;
    let mut tokens = vec![(
        "another client's".to_owned(),
        provider.id_token(&other, "1001", json!({})).await,
    )];
    for alteration in [
        json!({ "set": { "iss": "https://evil.example" } }),
        json!({ "set": { "aud": [client.id, other.id] } }),
        json!({ "set": { "exp": 1 } }),
        json!({ "remove": ["exp"] }),
        json!({ "remove": ["iat"] }),
        json!({ "remove": ["sub"] }),
        // Issued more than an hour and the skew ago; in ten minutes.
        json!({ "shift": -3700, "set": { "exp": 4_000_000_000_u32 } }),
        json!({ "shift": 600 }),
        json!({ "sign": "none" }),
        json!({ "sign": "hs256-secret" }),
        json!({ "sign": "hs256-public" }),
        json!({ "sign": "unknown-key" }),
        json!({ "sign": "stolen-kid" }),
        json!({ "sign": "broken" }),
    ] {
        let what = alteration.to_string();
        tokens.push((what, provider.id_token(&client, "1001", alteration).await));
    }
    tokens.extend(["", "x", "a.b.c"].map(|token| (token.to_owned(), token.to_owned())));
    for (what, token) in tokens {
        let answer = present(&gateway, &json!({ "token": token })).await;
        let expected = (401, "INVALID_TOKEN".to_owned());
        assert_eq!((answer.status(), answer.code()), expected, "{what}");
        assert!(!answer.head.has("set-cookie"), "{what}");
        assert!(token.len() < 20 || !gateway.log().contains(&token), "{what}");
    }
    let (users, sessions) = (count(&gateway, "users").await, count(&gateway, "user_sessions").await);
    assert_eq!((users, sessions), (0, 0));
}

#[tokio::test]
async fn a_token_is_good_for_an_hour_at_most_however_long_it_lives() {
    let (provider, client, gateway) = at(Kind::Apple, "", "").await;
    let token = json!({ "token": provider.id_token(&client, "1001", json!({})).await });
    for _ in 0..2 {
        gateway.clock().advance(Duration::from_mins(29));
        assert_eq!(present(&gateway, &token).await.status(), 200);
    }
    gateway.clock().advance(Duration::from_mins(10));
    is_refused(&present(&gateway, &token).await, 401, "INVALID_TOKEN");
}

#[tokio::test]
async fn tokens_of_an_apps_own_registration_count_where_the_configuration_names_it() {
    let provider = Provider::oidc().await;
    let (client, app) = (provider.client("there").await, provider.client("app").await);
    provider.person("1001", ADA, true).await;
    let setup = Setup::default().with(&client.toml_with(&format!("audiences = ['{}']", app.id)));
    let gateway = setup.clock(&provider::clock()).start().await;
    for registration in [&app, &client] {
        let token = provider.id_token(registration, "1001", json!({})).await;
        let answer = present(&gateway, &json!({ "token": token })).await;
        assert_eq!(answer.status(), 200, "{}", answer.text());
    }
    assert_eq!(count(&gateway, "users").await, 1);
}

#[tokio::test]
async fn every_rule_of_the_way_through_the_browser_holds() {
    let (provider, client, gateway) = at(Kind::Oidc, "", "").await;
    let token = async |sub: &str| json!({ "token": provider.id_token(&client, sub, json!({})).await });
    let link_error = async |sub: &str, message: &str| {
        let answer = present(&gateway, &token(sub).await).await;
        is_refused(&answer, 401, "OAUTH_LINK_ERROR");
        assert_eq!(answer.json()["message"], json!(message));
    };
    provider.admit(json!({ "sub": "no address" })).await;
    is_refused(
        &present(&gateway, &token("no address").await).await,
        401,
        "USER_EMAIL_NOT_FOUND",
    );

    provider.person("new", "new@example.com", false).await;
    is_refused(&present(&gateway, &token("new").await).await, 403, "EMAIL_NOT_VERIFIED");
    gateway.mailbox().next_to("new@example.com").await;

    gateway.sign_up("unverified@example.com").await;
    provider.person("2", "unverified@example.com", true).await;
    link_error("2", "account not linked").await;
    gateway.verified("verified@example.com").await;
    provider.person("3", "verified@example.com", false).await;
    link_error("3", "account not linked").await;

    assert_eq!(present(&gateway, &token("1001").await).await.status(), 200);
    gateway.db().run("UPDATE users SET banned = true").await;
    is_refused(&present(&gateway, &token("1001").await).await, 403, "BANNED_USER");
    gateway
        .db()
        .run("UPDATE accounts SET issuer = 'https://elsewhere.example'")
        .await;
    link_error("1001", "unable to link account").await;
}

#[tokio::test]
async fn new_people_are_taken_as_the_configuration_says() {
    for (keys, toml, asked, comes_in) in [
        ("sign_up = 'off'", "", true, false),
        ("sign_up = 'on-request'", "", false, false),
        ("sign_up = 'on-request'", "", true, true),
        ("", "[auth]\nsign_up = false\n", true, false),
    ] {
        let (provider, client, gateway) = at(Kind::Oidc, keys, toml).await;
        let mut body = body(&json!({ "token": provider.id_token(&client, "1001", json!({})).await }));
        body["requestSignUp"] = json!(asked);
        let answer = gateway.post(SIGN_IN).json(&body).await;
        if comes_in {
            assert_eq!(answer.status(), 200, "{keys} {toml}: {}", answer.text());
        } else {
            is_refused(&answer, 401, "OAUTH_LINK_ERROR");
            assert_eq!(answer.json()["message"], json!("signup disabled"));
        }
        assert_eq!(count(&gateway, "users").await, i64::from(comes_in), "{keys} {toml}");
    }
}

#[tokio::test]
async fn tokens_that_come_along_are_kept() {
    let (provider, client, gateway) = at(Kind::Oidc, "", "").await;
    let browser = Browser::default();
    let token = provider.id_token(&client, "1001", json!({})).await;
    let expires = gateway.clock().now().micros() / 1_000_000 + 3000;
    let id_token = json!({
        "token": token, "accessToken": "the app's access token", "refreshToken": "r", "expiresAt": expires,
    });
    browser.post(&gateway, SIGN_IN, &body(&id_token)).await;
    let listed = browser.get(&gateway, "/api/auth/list-accounts").await.json();
    let of = json!({ "accountId": listed[0]["id"] });
    let kept = browser.post(&gateway, "/api/auth/get-access-token", &of).await;
    assert_eq!(
        kept.json()["accessToken"],
        json!("the app's access token"),
        "{}",
        kept.text()
    );
    assert_eq!(kept.json()["idToken"], json!(token));
}

#[tokio::test]
async fn a_page_of_another_site_can_not_sign_a_browser_in() {
    let (provider, client, gateway) = at(Kind::Oidc, "", "").await;
    let token = provider.id_token(&client, "1001", json!({})).await;
    let text = body(&json!({ "token": token })).to_string();
    // What a page can have a browser send without asking first.
    for media_type in ["text/plain", "application/x-www-form-urlencoded"] {
        let call = gateway.post(SIGN_IN).header("Content-Type", media_type);
        let call = call
            .header("Origin", "https://evil.example")
            .header("Sec-Fetch-Site", "cross-site");
        let answer = call.body(text.clone()).await;
        assert!(answer.status() >= 400, "{media_type}: {}", answer.status());
        assert!(!answer.head.has("set-cookie"), "{media_type}");
    }
    assert_eq!(count(&gateway, "users").await, 0);
}

#[tokio::test]
async fn an_app_links_to_the_user_whose_session_it_shows() {
    let (provider, client, gateway) = at(Kind::Google, "", "").await;
    let link = async |browser: &Browser, sub: &str| {
        let token = provider.id_token(&client, sub, json!({})).await;
        browser
            .post(&gateway, "/api/auth/link-social", &body(&json!({ "token": token })))
            .await
    };
    is_refused(&link(&Browser::default(), "1001").await, 401, "UNAUTHORIZED");
    let ada = Browser::signed_in(&gateway, ADA).await;
    let before = ada.who(&gateway).await;
    let linked = link(&ada, "1001").await;
    assert_eq!(linked.json(), json!({ "url": "", "status": true, "redirect": false }));
    assert!(!linked.head.has("set-cookie"));
    assert_eq!(ada.who(&gateway).await["session"]["token"], before["session"]["token"]);
    let grace = Browser::signed_in(&gateway, "grace@example.com").await;
    is_refused(&link(&grace, "1001").await, 409, "SOCIAL_ACCOUNT_ALREADY_LINKED");
    provider.person("2", "grace@example.com", false).await;
    is_refused(&link(&grace, "2").await, 401, "LINKING_NOT_ALLOWED");
    provider.person("3", "other@example.com", true).await;
    is_refused(&link(&grace, "3").await, 401, "LINKING_DIFFERENT_EMAILS_NOT_ALLOWED");
    assert_eq!(count(&gateway, "accounts WHERE provider_id = 'there'").await, 1);
    let refusals = "audit_log WHERE action = 'link-account' AND outcome = 'refused'";
    assert_eq!(count(&gateway, refusals).await, 3);
}
