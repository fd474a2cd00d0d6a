//! Attacks on signing in at providers: through the front door, at real providers (OAUTH and COOKIE-11 of the threat cases).
//!
//! Whatever is tried, nobody gets in whom the provider did not send, and each way is shown to work for whoever it did.

mod crossed;
mod faults;
mod id_tokens;
mod identity;
mod mix_up;
mod out_there;
mod state;

use serde_json::{Value, json};

use crate::harness::{
    Browser, Gateway, Setup,
    browser::Back,
    client::Response,
    provider::{self, Client, Kind, Provider},
};

const ADA: &str = "ada@example.com";
const EVE: &str = "eve@example.com";

/// What the provider calls them.
const ADA_SUB: &str = "1001";
const EVE_SUB: &str = "6666";

/// A provider where Ada and Eve have proven addresses, and a gateway that is registered there.
struct World {
    provider: Provider,
    client: Client,
    gateway: Gateway,
}

impl World {
    async fn new() -> Self {
        Self::of(Kind::Oidc, json!({}), "").await
    }

    /// `keys`: further ones of the provider's section.
    async fn of(kind: Kind, options: Value, keys: &str) -> Self {
        let provider = Provider::start(kind, options).await;
        let client = provider.client("there").await;
        for (sub, email) in [(ADA_SUB, ADA), (EVE_SUB, EVE)] {
            provider.admit(person(sub, email)).await;
        }
        let setup = Setup::default().with(&client.toml_with(keys));
        let gateway = setup.clock(&provider::clock()).start().await;
        Self {
            provider,
            client,
            gateway,
        }
    }

    /// Where a browser is sent.
    async fn start(&self, browser: &Browser) -> String {
        let body = json!({ "callbackURL": "/home", "errorCallbackURL": "/sorry" });
        browser.start(&self.gateway, self.client.name(), body).await
    }

    /// What the provider has a browser take back.
    async fn back(&self, browser: &Browser, sub: &str) -> Back {
        browser.agree(&self.start(browser).await, sub).await
    }

    /// Where that ends.
    async fn land(&self, browser: &Browser, back: &Back) -> String {
        location(&browser.land(&self.gateway, back).await)
    }

    /// Where a new browser ends in which somebody goes the whole way.
    async fn arrive(&self, sub: &str) -> (Browser, String) {
        let browser = Browser::default();
        let back = self.back(&browser, sub).await;
        let end = self.land(&browser, &back).await;
        (browser, end)
    }

    /// Nobody is signed in there, and this is how they are told.
    async fn is_refused(&self, sub: &str, error: &str, what: &str) {
        let (browser, end) = self.arrive(sub).await;
        assert_eq!(end, format!("/sorry?error={error}"), "{what}");
        assert!(browser.who(&self.gateway).await.is_null(), "{what}");
    }

    /// Somebody is signed in by going the whole way.
    async fn is_let_in(&self, sub: &str, email: &str, what: &str) {
        let (browser, end) = self.arrive(sub).await;
        assert_eq!(end, "/home", "{what}");
        assert_eq!(browser.who(&self.gateway).await["user"]["email"], email, "{what}");
    }

    async fn count(&self, table: &str) -> i64 {
        self.gateway.db().count(&format!("SELECT count(*) FROM {table}")).await
    }

    /// How often the provider was asked at a place.
    async fn asked(&self, place: &str) -> usize {
        self.provider.requests(place).await.len()
    }
}

fn person(sub: &str, email: &str) -> Value {
    json!({
        "sub": sub, "email": email, "email_verified": true, "xms_edov": true,
        "name": "Ada Lovelace", "picture": "https://img.example.com/ada.png",
    })
}

#[track_caller]
fn location(answer: &Response) -> String {
    assert_eq!(answer.status(), 302, "{}", answer.text());
    answer.head.one("location").unwrap().to_owned()
}
