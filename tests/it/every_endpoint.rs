//! What each endpoint says to whoever has no business there. `tests/golden/endpoints.txt` is the list that a reviewer
//! reads: it is made of the program's own tables, so that no endpoint can be forgotten.
//!
//! Whatever they are told, Ada's things are as they were.

use std::fmt::Write;

use http::Method;
use serde_json::{Value, json};
use vestibule::{auth::ROUTES, config, server::admin::PAGES};

use crate::harness::{
    Gateway, RawClient,
    client::{Call, Response},
    gateway::whole_text,
    golden,
    people::{PASSWORD, User},
};

/// Who asks. All of them name what is Ada's, where an endpoint takes a name for something.
const ASKERS: [(&str, Asker); 5] = [
    ("nobody", Asker::Nobody),
    ("forged", Asker::Forged),
    ("ended", Asker::Ended),
    ("another", Asker::Another),
    ("elsewhere", Asker::Elsewhere),
];

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Asker {
    /// Without any credential.
    Nobody,
    /// With a cookie and a token that nobody ever had.
    Forged,
    /// With those of a session that has ended.
    Ended,
    /// Somebody else, in a session of their own.
    Another,
    /// A page of another site, in a browser in which somebody is signed in.
    Elsewhere,
}

/// What there is of Ada's that can be named.
struct Ada {
    user: User,
    account: String,
    session: String,
}

impl Ada {
    async fn arrive(gateway: &Gateway) -> Self {
        let user = gateway.signed_in("ada@example.com").await;
        let accounts = gateway.get("/api/auth/list-accounts").with(&user).await.json();
        let sessions = gateway.get("/api/auth/list-sessions").with(&user).await.json();
        Self {
            account: accounts[0]["id"].as_str().unwrap().to_owned(),
            session: sessions[0]["id"].as_str().unwrap().to_owned(),
            user,
        }
    }

    /// What a request for an endpoint says: a query and a body that mean what is hers.
    fn named(&self, method: &Method, path: &str) -> (String, Option<Value>) {
        let body = match path {
            "/sign-up/email" | "/signup" => {
                json!({ "name": "Eve", "email": self.user.email, "password": "another password" })
            }
            "/sign-in/email" | "/signin" => json!({ "email": self.user.email, "password": "not the password" }),
            "/revoke-session" => json!({ "token": self.user.token }),
            "/multi-session/set-active" | "/multi-session/revoke" => json!({ "sessionToken": self.user.token }),
            "/unlink-account" | "/get-access-token" | "/refresh-token" | "/account-info" => {
                json!({ "accountId": self.account })
            }
            "/send-verification-email" | "/request-password-reset" | "/forget-password" => {
                json!({ "email": self.user.email })
            }
            "/reset-password" => json!({ "token": self.user.token, "newPassword": "another password" }),
            "/change-password" => json!({ "currentPassword": "not the password", "newPassword": "another password" }),
            "/set-password" => json!({ "newPassword": "another password" }),
            "/verify-password" | "/delete-user" => json!({ "password": "not the password" }),
            "/change-email" => json!({ "newEmail": self.user.email }),
            "/update-user" => {
                json!({ "name": "Mallory", "id": self.user.id, "email": self.user.email, "roles": ["admin"] })
            }
            "/sign-in/social" | "/link-social" => json!({ "provider": "google", "callbackURL": "/" }),
            "/sign-in/oauth2" | "/oauth2/link" => json!({ "providerId": "google", "callbackURL": "/" }),
            _ => json!({}),
        };
        let query = match path {
            "/account-info" => format!("?accountId={}", self.account),
            "/verify-email" | "/delete-user/callback" => format!("?token={}", self.user.token),
            "/reset-password/:token" => "?callbackURL=/".to_owned(),
            "/get-session" | "/me" | "/verify-token" | "/list-sessions" => {
                format!(
                    "?token={}&userId={}&sessionId={}",
                    self.user.token, self.user.id, self.session
                )
            }
            _ => String::new(),
        };
        (query, (*method == Method::POST).then_some(body))
    }

    /// All that is stored of her but what every use of a session changes.
    async fn stored(&self, gateway: &Gateway) -> String {
        let sql = "
            SELECT concat(
                (SELECT to_jsonb(u)::text FROM users u WHERE id = $1),
                (SELECT string_agg(to_jsonb(a)::text, ',' ORDER BY a.id) FROM accounts a WHERE user_id = $1),
                (SELECT string_agg((to_jsonb(s) - 'last_seen_at')::text, ',' ORDER BY s.id)
                 FROM user_sessions s WHERE user_id = $1)
            )";
        let id: uuid::Uuid = self.user.id.parse().unwrap();
        gateway.db().client().await.query_one(sql, &[&id]).await.unwrap().get(0)
    }
}

/// Somebody else, new each time: what they are told may end their session, or themselves.
async fn somebody(gateway: &Gateway, number: usize) -> User {
    gateway.signed_in(&format!("eve{number}@example.com")).await
}

async fn put(gateway: &Gateway, asker: Asker, call: Call, number: usize) -> Response {
    let own = |call: Call| call.header("Origin", gateway.site());
    let call = match asker {
        Asker::Nobody => call,
        Asker::Forged => {
            let value = format!("{}.{}%3D", "f".repeat(43), "A".repeat(43));
            let call = call.header("Cookie", format!("{}={value}", gateway.session_cookie()));
            own(call.bearer(&"f".repeat(43)))
        }
        Asker::Ended => {
            let gone = somebody(gateway, number).await;
            gateway.sign_out(&gone).await;
            own(call.header("Cookie", &gone.cookie).bearer(&gone.token))
        }
        Asker::Another => own(call.header("Cookie", somebody(gateway, number).await.cookie)),
        Asker::Elsewhere => {
            let call = call.header("Cookie", somebody(gateway, number).await.cookie);
            call.header("Origin", "https://evil.example")
                .header("Sec-Fetch-Site", "cross-site")
        }
    };
    call.await
}

/// Status and code, and where it leads.
fn said(answer: &Response) -> String {
    let mut said = answer.status().to_string();
    if let Ok(body) = serde_json::from_slice::<Value>(&answer.body)
        && answer.status() >= 400
        && let Some(code) = body["code"].as_str()
    {
        said.push(' ');
        said.push_str(code);
    }
    if let Some(location) = answer.head.one("location") {
        said.push_str(" to ");
        said.push_str(location);
    }
    said
}

#[tokio::test]
async fn nobody_is_told_or_does_more_at_any_endpoint_than_the_golden_list_says() {
    let gateway = Gateway::start().await;
    let ada = Ada::arrive(&gateway).await;
    let stored = ada.stored(&gateway).await;
    let mut list = String::from(
        "# What each endpoint says to those who have no business there; see tests/it/every_endpoint.rs.\n",
    );
    let mut number = 0;

    for route in ROUTES {
        let path = route
            .path
            .replace(":provider", "google")
            .replace(":token", &ada.user.token);
        let (query, body) = ada.named(&route.method, route.path);
        writeln!(list, "\n{} /api/auth{}", route.method, route.path).unwrap();
        for (name, asker) in ASKERS {
            number += 1;
            let call = gateway.call(route.method.as_str(), &format!("/api/auth{path}{query}"));
            let call = match &body {
                Some(body) => call.json(body),
                None => call,
            };
            let answer = put(&gateway, asker, call, number).await;
            writeln!(list, "    {name}: {}", said(&answer)).unwrap();
            let at = format!("{} {} for {name}", route.method, route.path);
            for hers in [ada.account.as_str(), &ada.session, "Ada Lovelace\",\"email\":\"ada@"] {
                assert!(
                    !String::from_utf8_lossy(&answer.body).contains(hers),
                    "{at}: {}",
                    answer.text()
                );
            }
            for line in answer.head.all("set-cookie") {
                assert!(!line.contains(&ada.user.token), "{at}: {line}");
            }
            assert_eq!(ada.stored(&gateway).await, stored, "{at}");
            assert_eq!(gateway.get("/api/auth/me").with(&ada.user).await.status(), 200, "{at}");
        }
    }
    assert_eq!(
        gateway.upstream().requests().len(),
        0,
        "nothing below the base path is forwarded"
    );

    let routes = config::parse(&whole_text(), "gateway.toml", &|_| None).unwrap().routes;
    for route in &routes {
        let path = route.path.text.replace("/*", "/x");
        for method in ["GET", "POST"] {
            writeln!(list, "\n{method} {path}").unwrap();
            for (name, asker) in ASKERS {
                number += 1;
                let before = gateway.upstream().requests().len();
                let answer = put(
                    &gateway,
                    asker,
                    gateway.call(method, &path).header("X-User-Id", &ada.user.id),
                    number,
                )
                .await;
                let forwarded = gateway.upstream().requests().len() - before;
                let told = gateway
                    .upstream()
                    .requests()
                    .last()
                    .and_then(|seen| seen.head.one("x-user-id").map(str::to_owned));
                assert_ne!(told.as_ref(), Some(&ada.user.id), "{method} {path} for {name}");
                let named = if forwarded > 0 && told.is_some() { ", named" } else { "" };
                assert_eq!(
                    forwarded,
                    usize::from(answer.status() == 200),
                    "{method} {path} for {name}"
                );
                writeln!(list, "    {name}: {}{named}", said(&answer)).unwrap();
            }
        }
    }

    let pages = PAGES.iter().map(|(path, _)| *path);
    for path in pages.chain(["/", "/public/x", "/api/auth/ok", "/metrics/"]) {
        writeln!(list, "\nadmin listener {path}").unwrap();
        for method in ["GET", "HEAD", "POST", "DELETE", "OPTIONS"] {
            let mut client = RawClient::connect(gateway.admin()).await;
            client
                .send(format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"))
                .await;
            let answer = client.answer_to(method).await;
            writeln!(list, "    {method}: {}", answer.status()).unwrap();
            let shown = String::from_utf8_lossy(&answer.body).into_owned();
            for private in ["example.com", &ada.user.id, &ada.user.token] {
                assert!(!shown.contains(private), "{method} {path}: {private}");
            }
        }
    }
    golden::same("endpoints.txt", &list);
    assert_eq!(
        gateway.sign_in("ada@example.com").await.status(),
        200,
        "with {PASSWORD}"
    );
}
