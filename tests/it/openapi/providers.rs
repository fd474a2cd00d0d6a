//! What the endpoints answer that know of providers.

use std::{collections::BTreeSet, time::Duration};

use serde_json::{Value, json};

use crate::harness::{
    Browser, Gateway, Setup,
    document::{self, Answer},
    provider::{self, Client, Kind, Provider},
};

const ADA: &str = "ada@example.com";

/// Endpoints that begin something at a provider, and what each calls the provider.
const SIGN_IN: [(&str, &str); 2] = [("sign-in/social", "provider"), ("sign-in/oauth2", "providerId")];
const LINK: [(&str, &str); 2] = [("link-social", "provider"), ("oauth2/link", "providerId")];

/// A provider that is well, one that has no id_tokens, one that does not give its keys, and one that is away.
struct Providers {
    well: Provider,
    there: Client,
    /// Once more at the one that is well.
    elsewhere: Client,
    gateway: Gateway,
}

impl Providers {
    async fn start() -> Self {
        let (well, refusing, away) = (Provider::oidc().await, Provider::oidc().await, Provider::oidc().await);
        let plain = Provider::start(Kind::GitHub, json!({})).await;
        refusing.fault("jwks", json!({ "answer": { "status": 404 } })).await;
        away.fault("discovery", json!({ "answer": { "status": 500 } })).await;
        let (there, elsewhere) = (well.client("there").await, well.client("elsewhere").await);
        let others = [
            plain.client("plain").await,
            refusing.client("refusing").await,
            away.client("away").await,
        ];
        let mut setup = Setup::default().with("[auth.email_verification]\nrequired = true");
        for client in others.iter().chain([&there, &elsewhere]) {
            setup = setup.with(&client.toml());
        }
        for (sub, claims) in [
            ("ada", json!({ "email": ADA, "email_verified": true })),
            ("bob", json!({ "email": "bob@example.com", "email_verified": false })),
            ("eve", json!({ "email": "eve@example.com", "email_verified": true })),
            ("new", json!({ "email": "new@example.com", "email_verified": false })),
            ("nobody", json!({})),
        ] {
            let mut person = claims;
            person["sub"] = json!(sub);
            well.admit(person).await;
        }
        let gateway = setup.clock(&provider::clock()).start().await;
        gateway.verified("bob@example.com").await;
        Self {
            well,
            there,
            elsewhere,
            gateway,
        }
    }

    /// What an app would present of somebody.
    async fn token_of(&self, client: &Client, sub: &str) -> Value {
        json!({ "token": self.well.id_token(client, sub, json!({})).await })
    }

    async fn ask(&self, browser: &Browser, (path, field): (&str, &str), provider: &str, id_token: Option<&Value>) {
        let mut body = json!({ field: provider });
        if let Some(id_token) = id_token {
            body["idToken"] = id_token.clone();
        }
        browser.post(&self.gateway, &format!("/api/auth/{path}"), &body).await;
    }

    async fn fail(&self, browser: &Browser, endpoint: (&str, &str)) {
        let token = self.token_of(&self.there, "nobody").await;
        for (provider, token) in [
            ("away", None),
            ("plain", Some(&token)),
            ("refusing", Some(&token)),
            ("there", Some(&json!({ "token": "no JWT" }))),
            ("there", Some(&token)),
        ] {
            self.ask(browser, endpoint, provider, token).await;
        }
    }

    async fn sign_in(&self) {
        for endpoint in SIGN_IN {
            let nobody = Browser::default();
            self.ask(&nobody, endpoint, "there", None).await;
            self.fail(&nobody, endpoint).await;
            for sub in ["bob", "eve", "new"] {
                let token = self.token_of(&self.there, sub).await;
                self.ask(&Browser::default(), endpoint, "there", Some(&token)).await;
            }
            let ban = "UPDATE users SET banned = true WHERE email = 'eve@example.com'";
            self.gateway.db().run(ban).await;
            let token = self.token_of(&self.there, "eve").await;
            self.ask(&Browser::default(), endpoint, "there", Some(&token)).await;
        }
    }

    async fn link(&self, ada: &Browser) {
        for endpoint in LINK {
            self.ask(ada, endpoint, "there", None).await;
            self.fail(ada, endpoint).await;
            // Eve's is hers already; at the other provider it is nobody's, and has another address than Ada's.
            for (client, sub) in [(&self.there, "eve"), (&self.elsewhere, "eve"), (&self.there, "bob")] {
                let token = self.token_of(client, sub).await;
                self.ask(ada, endpoint, client.name(), Some(&token)).await;
            }
        }
        let token = self.token_of(&self.elsewhere, "ada").await;
        self.ask(ada, LINK[0], "elsewhere", Some(&token)).await;
    }

    /// Of Ada's accounts: one with tokens, one without, and one at a provider that there is none of.
    async fn tokens(&self, ada: &Browser) {
        let insert = "INSERT INTO accounts (id, user_id, provider_id, account_id, created_at, updated_at)
                      SELECT gen_random_uuid(), id, 'gone', '7', created_at, updated_at FROM users
                      WHERE email = 'ada@example.com'";
        self.gateway.db().run(insert).await;
        for provider in ["there", "elsewhere", "gone", "none"] {
            self.ask_for_tokens(ada, provider).await;
        }
        self.ask_for_tokens(&Browser::default(), "there").await;
        self.well
            .fault("userinfo", json!({ "answer": { "status": 500 } }))
            .await;
        self.ask_for_tokens(ada, "there").await;
        self.gateway.clock().advance(Duration::from_hours(2));
        let no = json!({ "answer": { "status": 400, "body": "{\"error\":\"invalid_grant\"}" } });
        self.well.fault("token", no).await;
        self.ask_for_tokens(ada, "there").await;
    }

    async fn ask_for_tokens(&self, browser: &Browser, provider: &str) {
        let target = format!("/api/auth/account-info?providerId={provider}");
        browser.get(&self.gateway, &target).await;
        for path in ["get-access-token", "refresh-token"] {
            let body = json!({ "providerId": provider });
            browser.post(&self.gateway, &format!("/api/auth/{path}"), &body).await;
        }
    }
}

pub(super) async fn answers() -> BTreeSet<Answer> {
    let world = Providers::start().await;
    world.sign_in().await;
    let ada = Browser::default();
    let answer = ada.sign_in_at(&world.gateway, &world.there, "ada").await;
    assert_eq!(answer.head.one("location"), Some("/home"));
    world.link(&ada).await;
    world.tokens(&ada).await;
    for path in ["callback", "oauth2/callback"] {
        let call = world.gateway.post(&format!("/api/auth/{path}/there"));
        call.json(&json!({ "code": "c".repeat(20_000) })).await;
    }
    document::seen(world.gateway.addr())
}
