//! The answers that openapi.json promises of providers: on the way there, to id_tokens, and with tokens in hand.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::DAY;
use crate::harness::{
    Browser, Setup,
    document::{self, Answer},
    people::User,
    provider::{self, Kind, Provider},
};

const ADA: &str = "ada@example.com";

/// The endpoints that lead to a provider or take its id_tokens, and the field that names it there.
const SIGN_IN: [(&str, &str); 2] = [("sign-in/social", "provider"), ("sign-in/oauth2", "providerId")];
const LINK: [(&str, &str); 2] = [("link-social", "provider"), ("oauth2/link", "providerId")];

/// To a provider that is there, and to one that is not.
pub(super) async fn ways_there() -> BTreeSet<Answer> {
    let (google, away) = (Provider::oidc().await, Provider::oidc().await);
    away.fault("discovery", json!({ "answer": { "status": 500 } })).await;
    let (at_google, at_away) = (google.client("google").await, away.client("away").await);
    let setup = Setup::default().with(&at_google.toml()).with(&at_away.toml());
    let gateway = setup.start().await;
    let ada = gateway.signed_in(ADA).await;
    for (path, field) in SIGN_IN.into_iter().chain(LINK) {
        for name in ["google", "away"] {
            let call = gateway.post(&format!("/api/auth/{path}")).with(&ada);
            call.json(&json!({ field: name })).await;
        }
    }
    document::seen(gateway.addr())
}

pub(super) async fn id_tokens() -> BTreeSet<Answer> {
    let (google, github, keyless) = (
        Provider::oidc().await,
        Provider::start(Kind::GitHub, json!({})).await,
        Provider::oidc().await,
    );
    let (at_google, at_github, at_keyless) = (
        google.client("google").await,
        github.client("github").await,
        keyless.client("keyless").await,
    );
    google.admit(json!({ "sub": "nowhere" })).await;
    for (sub, email, is_proven) in [
        ("ada", ADA, true),
        ("unproven ada", ADA, false),
        ("new", "new@example.com", false),
        ("banned", "banned@example.com", true),
        ("grace", "grace@example.com", true),
    ] {
        google.person(sub, email, is_proven).await;
    }
    keyless.person("ada", ADA, true).await;
    keyless.fault("jwks", json!({ "answer": { "status": 404 } })).await;
    let [at_google_too, at_github, at_keyless_too] = [&at_google, &at_github, &at_keyless].map(provider::Client::toml);
    let setup = Setup::default()
        .with(&at_google_too)
        .with(&at_github)
        .with(&at_keyless_too);
    let gateway = setup.clock(&provider::clock()).start().await;
    let users = [
        gateway.signed_in(ADA).await,
        gateway.signed_in("grace@example.com").await,
    ];
    gateway.verified("banned@example.com").await;
    gateway
        .db()
        .run("UPDATE users SET banned = true WHERE email LIKE 'banned%'")
        .await;

    let of = async |sub: &str| google.id_token(&at_google, sub, json!({})).await;
    let tokens = [
        ("google", of("nowhere").await),
        ("google", of("unproven ada").await),
        ("google", of("new").await),
        ("google", of("banned").await),
        ("google", of("grace").await),
        ("google", of("ada").await),
        ("google", "a.b.c".to_owned()),
        ("github", "a.b.c".to_owned()),
        ("keyless", keyless.id_token(&at_keyless, "ada", json!({})).await),
    ];
    // Ada's account becomes hers first, and then is none that Grace could link.
    for (name, token) in &tokens {
        for user in &users {
            for (path, field) in LINK {
                let call = gateway.post(&format!("/api/auth/{path}")).with(user);
                call.json(&json!({ field: name, "idToken": { "token": token } })).await;
            }
        }
        for (path, field) in SIGN_IN {
            let call = gateway.post(&format!("/api/auth/{path}"));
            call.json(&json!({ field: name, "idToken": { "token": token } })).await;
        }
    }
    document::seen(gateway.addr())
}

pub(super) async fn tokens() -> BTreeSet<Answer> {
    let google = Provider::oidc().await;
    google.person("ada", ADA, true).await;
    let client = google.client("google").await;
    let setup = Setup::default().with(&client.toml()).clock(&provider::clock());
    let gateway = setup.start().await;
    let ada = gateway.signed_in(ADA).await;
    Browser::default().sign_in_at(&gateway, &client, "ada").await;
    let everything = async |user: &User, account: &str| {
        for path in ["get-access-token", "refresh-token", "account-info"] {
            let call = gateway.post(&format!("/api/auth/{path}")).with(user);
            call.json(&json!({ "providerId": account })).await;
        }
        let target = format!("/api/auth/account-info?providerId={account}");
        gateway.get(&target).with(user).await;
    };
    everything(&ada, "google").await;
    everything(&ada, "credential").await;
    let no: Value = json!({ "answer": { "status": 500 } });
    google.fault("userinfo", no.clone()).await;
    everything(&ada, "google").await;

    // The access token ends, and there is no other.
    google.fault("token", no).await;
    gateway.clock().advance(2 * DAY);
    let ada = User::of(&gateway, &gateway.sign_in(ADA).await);
    everything(&ada, "google").await;
    gateway
        .db()
        .run("UPDATE accounts SET access_token = NULL, refresh_token = NULL")
        .await;
    everything(&ada, "google").await;
    document::seen(gateway.addr())
}
