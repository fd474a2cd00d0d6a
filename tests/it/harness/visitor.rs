//! Ada, who has come from a provider: in her browser, with an account there.

use serde_json::{Value, json};

use super::{
    Browser, Database, Gateway, Setup,
    browser::Place,
    client::{Call, Response},
    provider::{self, Client, Kind, Provider},
};

/// What the provider knows her by.
pub(crate) const SUB: &str = "1001";

pub(crate) struct Visitor {
    pub(crate) provider: Provider,
    pub(crate) client: Client,
    pub(crate) gateway: Gateway,
    pub(crate) browser: Browser,
    /// The `id` of her account there.
    pub(crate) account: String,
}

impl Visitor {
    /// With the usual gateway.
    pub(crate) async fn from(kind: Kind, options: Value) -> Self {
        Self::by(kind, options, "").await
    }

    /// With further keys of the provider's section.
    pub(crate) async fn by(kind: Kind, options: Value, keys: &str) -> Self {
        let (provider, client) = at(kind, options).await;
        let setup = Setup::default().with(&client.toml_with(keys));
        let gateway = setup.clock(&provider::clock()).start().await;
        let browser = Browser::default();
        let account = arrive(&browser, &gateway, &client).await;
        Self {
            provider,
            client,
            gateway,
            browser,
            account,
        }
    }

    pub(crate) fn db(&self) -> &Database {
        self.gateway.db()
    }

    /// Another gateway on the same database, by the same clock, which knows the provider; `over` is laid over its
    /// configuration.
    pub(crate) async fn beside(&self, over: &str) -> Gateway {
        let setup = Setup::default().with(&self.client.toml()).with(over);
        setup.clock(self.gateway.clock()).start_on(self.db()).await
    }

    /// As if the time of her access token were over. The clock can't be moved for it: providers go by the system's.
    pub(crate) async fn let_it_end(&self) {
        let sql = "UPDATE accounts SET access_token_expires_at = created_at WHERE access_token IS NOT NULL";
        self.db().run(sql).await;
    }

    /// Asks for a token by the account's `id`.
    pub(crate) async fn access_token(&self) -> Response {
        self.ask("get-access-token").await
    }

    pub(crate) async fn refresh(&self) -> Response {
        self.ask("refresh-token").await
    }

    async fn ask(&self, what: &str) -> Response {
        ask(&self.browser, &self.gateway, what, &self.account).await
    }
}

/// A provider where Ada has a proven address, and the gateway's registration there.
pub(crate) async fn at(kind: Kind, options: Value) -> (Provider, Client) {
    let provider = Provider::start(kind, options).await;
    let client = provider.client("there").await;
    provider
        .admit(json!({
            "sub": SUB, "email": "ada@example.com", "email_verified": true, "xms_edov": true,
            "name": "Ada Lovelace", "given_name": "Ada", "family_name": "Lovelace",
        }))
        .await;
    (provider, client)
}

/// Signs in at the provider; the `id` of the account there.
pub(crate) async fn arrive(browser: &Browser, gateway: &impl Place, client: &Client) -> String {
    let answer = browser.sign_in_at(gateway, client, SUB).await;
    assert_eq!(answer.head.one("location"), Some("/home"));
    account_at(browser, gateway, client.name()).await
}

/// The `id` of somebody's account at a provider.
pub(crate) async fn account_at(browser: &Browser, gateway: &impl Place, provider: &str) -> String {
    let accounts = browser.get(gateway, "/api/auth/list-accounts").await.json();
    let mut accounts = accounts.as_array().unwrap().iter();
    let account = accounts.find(|account| account["providerId"] == provider);
    account.unwrap()["id"].as_str().unwrap().to_owned()
}

/// `get-access-token` or `refresh-token`, by the account's `id`.
pub(crate) async fn ask(browser: &Browser, gateway: &impl Place, what: &str, account: &str) -> Response {
    let body = json!({ "accountId": account });
    browser.post(gateway, &format!("/api/auth/{what}"), &body).await
}

/// The access token of an answer.
#[track_caller]
pub(crate) fn token(answer: &Response) -> String {
    assert_eq!(answer.status(), 200, "{}", answer.text());
    answer.json()["accessToken"].as_str().expect("a token").to_owned()
}

/// Status and code of a refusal.
#[track_caller]
pub(crate) fn refusal(answer: &Response) -> (u16, String) {
    (answer.status(), answer.code())
}

/// How often the provider was asked to refresh.
pub(crate) async fn refreshes(provider: &Provider) -> usize {
    let asked = provider.requests("token").await;
    let refresh = |request: &&Value| request["form"]["grant_type"] == "refresh_token";
    asked.iter().filter(refresh).count()
}

/// What the provider's own API says to an access token.
pub(crate) async fn shown(provider: &Provider, kind: Kind, token: &str) -> Response {
    let target = match kind {
        Kind::Oidc | Kind::Google => "/me",
        Kind::GitHub => "/user",
        Kind::Microsoft => "/oidc/userinfo",
        Kind::Apple => panic!("Apple has no such place"),
    };
    let call = Call::new(provider.addr(), &provider.url, "GET", target).undescribed();
    call.bearer(token).header("User-Agent", "a test").await
}
