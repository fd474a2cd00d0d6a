//! Postgres goes away while somebody is at a provider, and comes back.

use serde_json::json;

use crate::harness::{
    Browser, Gateway, SOON, Setup, eventually,
    provider::{self, Client, Provider},
};

async fn at_a_provider() -> (Provider, Client, Gateway) {
    let provider = Provider::oidc().await;
    let client = provider.client("there").await;
    provider.person("ada", "ada@example.com", true).await;
    let setup = Setup::default()
        .with("[database]\nacquire_timeout = '300ms'")
        .with(&client.toml());
    (provider, client, setup.clock(&provider::clock()).start().await)
}

async fn start(browser: &Browser, gateway: &Gateway, client: &Client) -> String {
    let body = json!({ "callbackURL": "/home", "errorCallbackURL": "/sorry" });
    browser.start(gateway, client.name(), body).await
}

/// Whatever is to be remembered is, once Postgres is there.
async fn back_again(gateway: &Gateway) {
    gateway.db().reopen().await;
    eventually(SOON, async || {
        gateway
            .post("/api/auth/sign-in/social")
            .json(&json!({ "provider": "there" }))
            .await
            .status()
            == 200
    })
    .await;
}

#[tokio::test]
async fn who_comes_back_without_postgres_gets_a_page_and_may_reload_it_later() {
    let (provider, client, gateway) = at_a_provider().await;
    let browser = Browser::default();
    let back = browser.agree(&start(&browser, &gateway, &client).await, "ada").await;
    gateway.db().shut().await;
    let answer = browser.land(&gateway, &back).await;
    let location = answer.head.one("location").unwrap();
    assert!(
        location.ends_with("/api/auth/error?error=internal_server_error"),
        "{location}"
    );
    assert_eq!(provider.requests("token").await.len(), 0);
    // Neither the state nor the code is spent.
    back_again(&gateway).await;
    let answer = browser.land(&gateway, &back).await;
    assert_eq!(answer.head.one("location"), Some("/home"));
    assert_eq!(browser.who(&gateway).await["user"]["email"], "ada@example.com");
}

#[tokio::test]
async fn postgres_that_goes_while_the_provider_is_asked_leaves_nothing_half_done() {
    let (provider, client, gateway) = at_a_provider().await;
    let browser = Browser::default();
    let back = browser.agree(&start(&browser, &gateway, &client).await, "ada").await;
    provider.fault("token", json!({ "hang": true })).await;
    let outage = async {
        eventually(SOON, async || !provider.requests("token").await.is_empty()).await;
        gateway.db().shut().await;
        provider.lift("token").await;
    };
    let (answer, ()) = tokio::join!(browser.land(&gateway, &back), outage);
    assert_eq!(answer.head.one("location"), Some("/sorry?error=internal_server_error"));
    back_again(&gateway).await;
    assert!(browser.who(&gateway).await.is_null());
    for table in ["users", "accounts", "user_sessions"] {
        assert_eq!(gateway.db().count(&format!("SELECT count(*) FROM {table}")).await, 0);
    }
    browser.sign_in_at(&gateway, &client, "ada").await;
    assert_eq!(browser.who(&gateway).await["user"]["email"], "ada@example.com");
}

#[tokio::test]
async fn nobody_leaves_for_a_provider_without_postgres_and_is_told_when_to_try_again() {
    let (_provider, _client, gateway) = at_a_provider().await;
    gateway.db().shut().await;
    let ask = gateway
        .post("/api/auth/sign-in/social")
        .json(&json!({ "provider": "there" }));
    let answer = ask.await;
    assert_eq!((answer.status(), answer.code().as_str()), (503, "SERVICE_UNAVAILABLE"));
    assert!(answer.head.one("retry-after").is_some());
    assert!(answer.head.one("location").is_none());
}
