//! What must lie open nowhere: tokens, codes, verifiers, nonces and states of sign-ins at providers, in the database and in
//! the log.

use std::{fmt::Write as _, net::SocketAddr};

use base64ct::{Base64, Encoding};
use serde_json::{Value, json};
use url::form_urlencoded;

use crate::harness::{
    Browser, Database, SOON, Setup,
    browser::{Place, param},
    client::Response,
    eventually,
    gateway::SITE,
    mailbox::Mailbox,
    program::Program,
    provider::{self, Kind, Provider},
    upstream::Upstream,
    visitor::{account_at, ask, at, refusal},
};

/// What was seen on the way, each with what it is.
#[derive(Default)]
pub(crate) struct Secrets(Vec<(&'static str, String)>);

impl Secrets {
    pub(crate) fn add(&mut self, what: &'static str, value: impl AsRef<str>) {
        let value = value.as_ref();
        assert!(value.len() >= 8, "{what}: {value:?} would be found anywhere");
        self.0.push((what, value.to_owned()));
    }

    /// From an authorisation URL.
    pub(crate) fn of_start(&mut self, url: &str) {
        self.add("state", param(url, "state").unwrap());
        if let Some(nonce) = param(url, "nonce") {
            self.add("nonce", nonce);
        }
    }

    pub(crate) fn of_tokens(&mut self, answer: &Response) {
        assert_eq!(answer.status(), 200, "{}", answer.text());
        let body = answer.json();
        for name in ["accessToken", "refreshToken", "idToken"] {
            if let Some(token) = body[name].as_str() {
                self.add(name, token);
            }
        }
    }

    pub(crate) async fn of_requests(&mut self, provider: &Provider) {
        for request in provider.requests("token").await {
            for name in ["code", "code_verifier", "refresh_token", "client_secret"] {
                if let Some(value) = request["form"][name].as_str() {
                    self.add(name, value);
                }
            }
        }
        for request in provider.requests("userinfo").await {
            let token = request["headers"]["authorization"].as_str().unwrap();
            self.add("access token", token.split_once(' ').unwrap().1);
        }
    }

    #[track_caller]
    pub(crate) fn are_not_in(&self, place: &str, text: &str) {
        for (what, value) in &self.0 {
            let hex = value.bytes().fold(String::new(), |mut hex, byte| {
                write!(hex, "{byte:02x}").unwrap();
                hex
            });
            let encoded: String = form_urlencoded::byte_serialize(value.as_bytes()).collect();
            let escaped = serde_json::to_string(value).unwrap();
            let base64 = Base64::encode_string(value.as_bytes());
            let spellings = [
                value,
                &hex,
                &encoded,
                escaped.trim_matches('"'),
                base64.trim_end_matches('='),
            ];
            let line = text
                .lines()
                .find(|line| spellings.iter().any(|spelling| line.contains(spelling)));
            assert_eq!(line, None, "{what} {value} lies open in {place}");
        }
    }

    #[track_caller]
    pub(crate) fn has(&self, what: &str) -> bool {
        self.0.iter().any(|(found, _)| *found == what)
    }
}

/// All rows of all tables, as text; bytes are in hexadecimal digits.
pub(crate) async fn whole(db: &Database) -> String {
    let client = db.client().await;
    let tables = "SELECT table_name::text FROM information_schema.tables WHERE table_schema = 'auth'";
    let mut text = String::new();
    for table in client.query(tables, &[]).await.unwrap() {
        let table: String = table.get(0);
        let rows = client
            .query(&format!("SELECT t::text FROM {table} AS t"), &[])
            .await
            .unwrap();
        for row in rows {
            writeln!(text, "{table} {}", row.get::<_, String>(0)).unwrap();
        }
    }
    text
}

#[tokio::test]
async fn no_table_has_a_secret_of_a_sign_in_in_plain_text() {
    for (kind, options) in [
        (Kind::Oidc, json!({})),
        (Kind::GitHub, json!({ "expiring": true })),
        (Kind::Apple, json!({})),
        (Kind::Microsoft, json!({})),
    ] {
        let (provider, client) = at(kind, options).await;
        let gateway = Setup::default()
            .with(&client.toml())
            .clock(&provider::clock())
            .start()
            .await;
        let (browser, mut secrets) = (Browser::default(), Secrets::default());
        let url = browser
            .start(&gateway, client.name(), json!({ "callbackURL": "/home" }))
            .await;
        secrets.of_start(&url);
        let under_way = whole(gateway.db()).await;
        assert!(under_way.contains("oauth_flows "), "it is remembered: {under_way}");
        let back = browser.agree(&url, "1001").await;
        browser.land(&gateway, &back).await;
        let account = account_at(&browser, &gateway, client.name()).await;
        secrets.of_tokens(&ask(&browser, &gateway, "get-access-token", &account).await);
        secrets.of_requests(&provider).await;
        let signed_in = whole(gateway.db()).await;
        secrets.of_tokens(&ask(&browser, &gateway, "refresh-token", &account).await);
        secrets.of_requests(&provider).await;
        let refreshed = whole(gateway.db()).await;
        for what in [
            "state",
            "code",
            "code_verifier",
            "accessToken",
            "refreshToken",
            "refresh_token",
        ] {
            assert!(secrets.has(what), "{kind:?}: {what}");
        }
        for (place, text) in [
            ("a flow", &under_way),
            ("an account", &signed_in),
            ("a refresh", &refreshed),
        ] {
            secrets.are_not_in(&format!("{kind:?}, {place}"), text);
        }
    }
}

/// A `vestibule serve`.
pub(crate) struct Served(pub(crate) SocketAddr);

impl Place for Served {
    fn addr(&self) -> SocketAddr {
        self.0
    }

    fn site(&self) -> &str {
        SITE
    }
}

/// With all that any part of it can say.
#[tokio::test]
async fn log_02_no_log_line_has_a_secret_of_a_sign_in() {
    for kind in [Kind::Oidc, Kind::GitHub, Kind::Apple] {
        let (provider, client) = at(kind, json!({ "expiring": true })).await;
        let (db, mailbox, upstream) = (Database::fresh().await, Mailbox::start().await, Upstream::start().await);
        let setup = Setup::default()
            .with(&client.toml_with("timeout = '2s'"))
            .with("[log]\nlevel = 'trace'");
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("gateway.toml");
        std::fs::write(&config, setup.text(&db, mailbox.addr(), upstream.addr())).unwrap();
        let (program, public, _) = Program::serve(&config).await;
        let (gateway, browser, mut secrets) = (Served(public), Browser::default(), Secrets::default());

        let url = browser
            .start(&gateway, client.name(), json!({ "callbackURL": "/home" }))
            .await;
        secrets.of_start(&url);
        let back = browser.agree(&url, "1001").await;
        let code = back.get("code").unwrap().to_owned();
        let landed = browser.land(&gateway, &back).await;
        assert_eq!(landed.head.one("location"), Some("/home"), "{kind:?}");
        let session = browser.who(&gateway).await["session"]["token"]
            .as_str()
            .unwrap()
            .to_owned();
        secrets.add("session token", session);
        let account = account_at(&browser, &gateway, client.name()).await;
        for what in ["get-access-token", "refresh-token"] {
            secrets.of_tokens(&ask(&browser, &gateway, what, &account).await);
        }
        let info = browser
            .get(&gateway, &format!("/api/auth/account-info?accountId={account}"))
            .await;
        assert_eq!(info.status(), 200, "{}", info.text());

        // What is refused is logged: a used state, a refused code, and a provider that repeats what it was sent.
        browser.land(&gateway, &back).await;
        let url = browser
            .start(&gateway, client.name(), json!({ "callbackURL": "/home" }))
            .await;
        secrets.of_start(&url);
        let other = browser
            .agree(&url, "1001")
            .await
            .with("code", Some("a code that nobody gave out"));
        browser.land(&gateway, &other).await;
        secrets.add("code", "a code that nobody gave out");
        let refresh_token = secrets
            .0
            .iter()
            .rev()
            .find(|(what, _)| *what == "refreshToken")
            .unwrap()
            .1
            .clone();
        let words = format!("{refresh_token} and {code} are not good");
        for (status, body) in [
            (400, json!({ "error": "invalid_grant", "error_description": words })),
            (400, json!({ "error": words })),
            (500, json!(words)),
            (200, json!({ "access_token": 7, "hint": words })),
            (200, Value::String(words.clone())),
        ] {
            let fault = json!({ "answer": { "status": status, "body": body.to_string() } });
            provider.fault("token", fault).await;
            let told = refusal(&ask(&browser, &gateway, "refresh-token", &account).await);
            assert_eq!(
                told,
                (400, "FAILED_TO_REFRESH_ACCESS_TOKEN".to_owned()),
                "{kind:?} {body}"
            );
        }
        provider.lift("token").await;
        secrets.of_requests(&provider).await;

        eventually(SOON, async || program.output().contains("could not be refreshed")).await;
        program.signal("TERM").await;
        let ended = program.ended().await;
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        secrets.are_not_in(&format!("{kind:?}, standard error"), &ended.stderr);
        secrets.are_not_in(&format!("{kind:?}, the access log"), &ended.stdout);
        assert!(ended.stderr.contains("TRACE"), "all of it was written");
        assert!(ended.stdout.contains("/api/auth/callback/there"), "{}", ended.stdout);
    }
}
