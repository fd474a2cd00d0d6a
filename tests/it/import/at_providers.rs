//! Whoever signed in at a provider there does so here: as the same user, with the tokens that came along.

use serde_json::json;

use super::{Move, Source, counts, source::TOKENS};
use crate::harness::{
    Browser, Setup,
    provider::{self, Kind, Provider},
    visitor::{SUB, account_at, arrive, ask, at, refreshes, shown, token},
};

/// A user who came from the provider, and has no password.
async fn add(source: &Source, provider: &str, tokens: [&str; 2]) {
    let [access, refresh] = tokens;
    source
        .run(&format!(
            r#"
            DELETE FROM account;
            UPDATE "user" SET email = 'ada@example.com', name = 'Ada';
            INSERT INTO account (id, "accountId", "providerId", "userId", "accessToken", "refreshToken",
                "accessTokenExpiresAt", scope, "createdAt", "updatedAt")
            VALUES ('theirs', '{SUB}', '{provider}', 'user-1', '{access}', '{refresh}', '2026-11-20T09:00:00Z',
                'openid,email', '2026-11-20T08:00:00Z', '2026-11-20T08:00:00Z')
            "#
        ))
        .await;
}

/// What the server that was there before has got of the provider.
async fn tokens_from(provider: &Provider, client: &provider::Client) -> [String; 2] {
    let before = Setup::default()
        .with(&client.toml())
        .clock(&provider::clock())
        .start()
        .await;
    let browser = Browser::default();
    let account = arrive(&browser, &before, client).await;
    let answer = ask(&browser, &before, "refresh-token", &account).await.json();
    assert!(answer["refreshToken"].is_string(), "{answer}");
    assert_eq!(provider.requests("token").await.len(), 2);
    ["accessToken", "refreshToken"].map(|name| answer[name].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn an_imported_account_signs_in_as_its_user_and_its_tokens_work() {
    for (kind, options) in [
        (Kind::Google, json!({})),
        (Kind::Oidc, json!({})),
        (Kind::GitHub, json!({ "expiring": true })),
    ] {
        let (provider, client) = at(kind, options).await;
        let [access, refresh] = tokens_from(&provider, &client).await;
        let source = Source::of_users(1).await;
        add(&source, client.name(), [&access, &refresh]).await;
        source.add_sessions().await;
        let moving = Move::to(source, &client.toml()).await;
        let report = moving.import(&[]).await;
        assert_eq!(counts(&report, "accounts"), [1, 1, 0, 0, 0]);
        let issuer = async || moving.text("SELECT issuer FROM accounts").await;
        assert_eq!(issuer().await, "", "{kind:?}: nobody can say yet whose subject that is");
        let user = moving.text("SELECT id::text FROM users").await;

        let setup = Setup::default().with(&client.toml()).clock(&provider::clock());
        let gateway = setup.start_on(&moving.target).await;
        // Before she has signed in at the provider again, in a session that came over.
        let account = moving.text("SELECT id::text FROM accounts").await;
        let body = json!({ "accountId": account });
        let call = gateway.post("/api/auth/get-access-token").bearer(TOKENS[0]).json(&body);
        let refreshed = token(&call.await);
        assert_ne!(refreshed, access, "{kind:?}: that one is over");
        assert_eq!(refreshes(&provider).await, 2, "{kind:?}");
        assert_eq!(shown(&provider, kind, &refreshed).await.status(), 200, "{kind:?}");

        let browser = Browser::default();
        let entered = arrive(&browser, &gateway, &client).await;
        assert_eq!(entered, account, "{kind:?}");
        assert_eq!(account_at(&browser, &gateway, client.name()).await, account);
        assert_eq!(browser.who(&gateway).await["user"]["id"], json!(user), "{kind:?}");
        assert_eq!(issuer().await, provider.url, "{kind:?}: it is adopted");
        assert_eq!(moving.rows().await[..2], [1, 1], "{kind:?}");
        let newest = token(&ask(&browser, &gateway, "get-access-token", &account).await);
        assert_ne!(newest, refreshed, "{kind:?}");
        assert_eq!(shown(&provider, kind, &newest).await.status(), 200, "{kind:?}");
    }
}

/// From then on the account is that issuer's.
#[tokio::test]
async fn an_imported_account_is_adopted_once() {
    let (_, client) = at(Kind::Google, json!({})).await;
    let (_, another) = at(Kind::Google, json!({})).await;
    let source = Source::of_users(1).await;
    add(&source, client.name(), ["ya29.access", "1//refresh"]).await;
    let moving = Move::to(source, &client.toml()).await;
    moving.import(&[]).await;
    let gateway = Setup::default().with(&client.toml()).clock(&provider::clock());
    let gateway = gateway.start_on(&moving.target).await;
    arrive(&Browser::default(), &gateway, &client).await;
    let elsewhere = Setup::default().with(&another.toml()).clock(gateway.clock());
    let elsewhere = elsewhere.start_on(&moving.target).await;
    let answer = Browser::default().sign_in_at(&elsewhere, &another, SUB).await;
    let location = answer.head.one("location").unwrap();
    assert!(location.contains("error=unable_to_link_account"), "{location}");
}
