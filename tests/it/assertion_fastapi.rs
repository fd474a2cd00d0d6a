//! An application that verifies assertions with PyJWT and the published keys: before, during and after a rotation, and
//! against what isn't meant for it.

use std::{fs, net::SocketAddr, path::PathBuf};

use base64ct::{Base64UrlUnpadded, Encoding};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Child;
use vestibule::clock::Clock;

use crate::harness::{Database, Gateway, SOON, Setup, client::Call, eventually, example, people::User, program};

struct Stage {
    gateway: Gateway,
    application: SocketAddr,
    ada: User,
    /// Of the configuration's text, for commands.
    text: String,
    _running: Child,
}

/// Both by the machine's clock, which PyJWT goes by. The application is two upstreams.
async fn stage() -> Stage {
    let db = Database::fresh().await;
    // The application asks the gateway, the gateway forwards to the application: one of them has to have a port first.
    let port = program::free_port();
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/clients/assertions");
    let jwks = format!("http://127.0.0.1:{port}/api/auth/jwks");
    let variables = [("JWKS_URL", jwks.as_str()), ("ISSUER", "https://app.example.com")];
    let (running, application) = example::start_from(&folder, &variables).await;
    let setup = || {
        Setup::default().clock(&Clock::System).with(&format!(
            "server.listen = '127.0.0.1:{port}'
            server.hosts = ['127.0.0.1']
            identity.assertion = true
            upstreams.app.endpoints = ['http://{application}']
            upstreams.other.endpoints = ['http://{application}']
            routes = [{{ path = '/api/*', upstream = 'app' }}, {{ path = '/other/*', upstream = 'other' }}]"
        ))
    };
    let gateway = setup().start_on(&db).await;
    let text = setup().text(&db, gateway.mailbox().addr(), gateway.upstream().addr());
    let ada = gateway.signed_in_as("ada@example.com", &["admin"]).await;
    Stage {
        gateway,
        application,
        ada,
        text,
        _running: running,
    }
}

impl Stage {
    /// Through the gateway: who it is, and which key said so.
    async fn who(&self) -> Value {
        let answer = self.gateway.get("/api/who").with(&self.ada).await;
        assert_eq!(answer.status(), 200, "{}", answer.text());
        answer.json()
    }

    async fn kid(&self) -> String {
        self.who().await["kid"].as_str().unwrap().to_owned()
    }

    /// Past the gateway, with an assertion of one's own.
    async fn told(&self, assertion: &str) -> (u16, String) {
        let call = Call::new(self.application, "http://127.0.0.1", "GET", "/api/who").undescribed();
        let answer = call.header("X-Vestibule-Assertion", assertion).await;
        (answer.status(), answer.text().to_owned())
    }

    async fn rotate(&self, args: &[&str]) {
        let folder = TempDir::new().unwrap();
        fs::write(folder.path().join("gateway.toml"), &self.text).unwrap();
        let args = [&["keys", "rotate", "--yes"], args].concat();
        let ended = program::run(&args, &[], folder.path()).await;
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    }

    /// As if so many minutes had gone by for the keys.
    async fn age_keys(&self, minutes: u32) {
        let sql = format!(
            "UPDATE signing_keys SET activates_at = activates_at - '{minutes} min'::interval,
             retires_at = retires_at - '{minutes} min'::interval, expires_at = expires_at - '{minutes} min'::interval"
        );
        self.gateway.db().run(&sql).await;
    }

    /// Those that the application has fetched.
    async fn known(&self) -> usize {
        let known = self.gateway.get("/api/known").with(&self.ada).await.json();
        known.as_array().unwrap().len()
    }
}

#[tokio::test]
async fn assertions_verify_before_during_and_after_a_rotation() {
    let stage = stage().await;
    let who = stage.who().await;
    let claims = &who["claims"];
    assert_eq!(
        (&claims["sub"], &claims["email"], &claims["roles"]),
        (&json!(stage.ada.id), &json!("ada@example.com"), &json!(["admin"]))
    );
    let old = stage.kid().await;

    stage.rotate(&[]).await;
    eventually(SOON, async || stage.known().await == 2).await;
    assert_eq!(stage.kid().await, old, "the new key waits until everybody has it");

    stage.age_keys(10).await;
    // The session's present assertion, by the old key, is said until half its life is over; another session's is new.
    let bob = stage.gateway.signed_in("bob@example.com").await;
    eventually(SOON, async || {
        stage.who().await;
        let answer = stage.gateway.get("/api/who").with(&bob).await;
        assert_eq!(answer.status(), 200, "{}", answer.text());
        stage.gateway.db().run("UPDATE users SET name = name || 'x'").await;
        answer.json()["kid"] != json!(old)
    })
    .await;

    stage.age_keys(10).await;
    eventually(SOON, async || stage.known().await == 1).await;
    eventually(SOON, async || stage.kid().await != old).await;
}

#[tokio::test]
async fn withdrawn_keys_are_believed_no_longer_than_they_are_kept() {
    let stage = stage().await;
    let old = stage.kid().await;
    stage.rotate(&["--at-once"]).await;
    // Until the application fetches the keys anew it refuses the new one.
    eventually(SOON, async || {
        let answer = stage.gateway.get("/api/who").with(&stage.ada).await;
        answer.status() == 200 && answer.json()["kid"] != json!(old)
    })
    .await;
    assert_eq!(stage.known().await, 1);
}

#[tokio::test]
async fn what_the_gateway_did_not_say_to_this_upstream_is_refused() {
    let stage = stage().await;
    stage.who().await;
    // Genuine, but for another upstream.
    let other = stage.gateway.get("/other/said").with(&stage.ada).await.json();
    let (status, text) = stage.told(other.as_str().unwrap()).await;
    assert_eq!(status, 401, "{text}");
    assert!(text.contains("udience"), "{text}");

    let parts: Vec<_> = other.as_str().unwrap().split('.').collect();
    let encode = |value: Value| Base64UrlUnpadded::encode_string(value.to_string().as_bytes());
    let head: Value = serde_json::from_slice(&Base64UrlUnpadded::decode_vec(parts[0]).unwrap()).unwrap();
    let mut claims: Value = serde_json::from_slice(&Base64UrlUnpadded::decode_vec(parts[1]).unwrap()).unwrap();
    claims["aud"] = json!("app");
    let none = encode(json!({ "alg": "none", "kid": head["kid"], "typ": "JWT" }));
    let changed = encode(claims);
    for forged in [
        // Another audience under the old signature.
        format!("{}.{changed}.{}", parts[0], parts[2]),
        // No signature, and saying so.
        format!("{none}.{changed}."),
        format!("{none}.{changed}.{}", parts[2]),
        "a.b.c".to_owned(),
        String::new(),
    ] {
        let (status, text) = stage.told(&forged).await;
        assert_eq!(status, 401, "{forged}: {text}");
    }
    // Through the gateway nobody can say anything else than the truth.
    let call = stage.gateway.get("/api/who").with(&stage.ada);
    let answer = call.header("X-Vestibule-Assertion", format!("{none}.{changed}.")).await;
    assert_eq!(answer.json()["claims"]["sub"], json!(stage.ada.id));
}
