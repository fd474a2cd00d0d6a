//! Leaving for a provider, and coming back to where that was remembered: the same browser, the same provider, once, in
//! time (OAUTH-01, OAUTH-02, OAUTH-15, COOKIE-11). None of it gets as far as asking the provider.

use std::{collections::BTreeSet, time::Duration};

use serde_json::{Value, json};
use url::Url;

use crate::harness::{Database, Gateway, Setup, client::Response};

const ERROR_PAGE: &str = "https://app.example.com/api/auth/error";

/// Two that say nothing before a code is redeemed; and nobody listens where they would be asked.
const PROVIDERS: &str = r#"
[auth]
rate_limit = { enabled = false }
[auth.oauth.github]
client_id = "github-client"
client_secret = "github-secret"
token_endpoint = "https://127.0.0.1:1/token"
allow_private = true
[auth.oauth.other]
kind = "github"
client_id = "other-client"
client_secret = "other-secret"
"#;

fn setup() -> Setup {
    Setup::default().with(PROVIDERS)
}

/// A flow that has begun.
struct Begun {
    url: Url,
    /// As the browser sends it back.
    cookie: String,
}

impl Begun {
    fn of(answer: &Response) -> Self {
        assert_eq!(answer.status(), 200, "{}", answer.text());
        let cookie = answer.head.one("set-cookie").unwrap();
        Self {
            url: answer.json()["url"].as_str().unwrap().parse().unwrap(),
            cookie: cookie.split(';').next().unwrap().to_owned(),
        }
    }

    fn said(&self, name: &str) -> String {
        let mut pairs = self.url.query_pairs().filter(|(key, _)| key == name);
        let value = pairs.next().unwrap_or_default().1.into_owned();
        assert!(pairs.next().is_none(), "{name} is said twice");
        value
    }

    fn callback(&self, rest: &str) -> String {
        format!("/api/auth/callback/github?state={}{rest}", self.said("state"))
    }
}

async fn start(gateway: &Gateway, cookie: &str, body: &Value) -> Response {
    let mut call = gateway.post("/api/auth/sign-in/social").json(body);
    if !cookie.is_empty() {
        call = call
            .header("Cookie", cookie)
            .header("Origin", "https://app.example.com");
    }
    call.await
}

async fn github(gateway: &Gateway, cookie: &str) -> Begun {
    let body = json!({ "provider": "github", "callbackURL": "/dash", "errorCallbackURL": "/oops?a=1" });
    Begun::of(&start(gateway, cookie, &body).await)
}

async fn come_back(gateway: &Gateway, target: &str, cookie: &str) -> Response {
    let answer = gateway.get(target).header("Cookie", cookie).await;
    assert_eq!(answer.status(), 302, "{}", answer.text());
    answer
}

fn location(answer: &Response) -> &str {
    answer.head.one("location").unwrap()
}

#[tokio::test]
async fn a_browser_is_sent_to_the_provider_with_all_that_binds_the_flow() {
    let gateway = setup().start().await;
    let body = json!({
        "provider": "github", "scopes": ["repo"], "loginHint": "ada", "additionalParams": { "allow_signup": "false" },
    });
    let answer = start(&gateway, "", &body).await;
    let url = answer.json()["url"].as_str().unwrap().to_owned();
    assert_eq!(answer.json()["redirect"], true);
    assert_eq!(location(&answer), url);
    let set = answer.head.one("set-cookie").unwrap();
    assert!(set.starts_with("__Host-vestibule.state"), "{set}");
    assert!(
        set.ends_with("; Max-Age=600; Path=/; HttpOnly; Secure; SameSite=Lax"),
        "{set}"
    );
    let begun = Begun::of(&answer);
    assert_eq!(begun.said("client_id"), "github-client");
    assert_eq!(begun.said("response_type"), "code");
    assert_eq!(
        begun.said("redirect_uri"),
        "https://app.example.com/api/auth/callback/github"
    );
    assert_eq!(begun.said("code_challenge_method"), "S256");
    assert_eq!(begun.said("code_challenge").len(), 43);
    assert_eq!(begun.said("state").len(), 43);
    assert!(begun.said("scope").contains("repo"));
    assert_eq!(begun.said("allow_signup"), "false");
    // What the database knows is good for nothing.
    let row = gateway.db().client().await;
    let row = row
        .query_one("SELECT state_hash, payload FROM oauth_flows", &[])
        .await
        .unwrap();
    let (hash, payload): (Vec<u8>, Vec<u8>) = (row.get(0), row.get(1));
    assert_eq!(hash.len(), 32);
    assert!(!String::from_utf8_lossy(&payload).contains("github"));

    let body = json!({ "provider": "github", "disableRedirect": true });
    let answer = start(&gateway, "", &body).await;
    assert_eq!(answer.json()["redirect"], false);
    assert!(!answer.head.has("location") && answer.head.has("set-cookie"));

    let body = json!({ "providerId": "github" });
    let answer = gateway.post("/api/auth/sign-in/oauth2").json(&body).await;
    let redirect_uri = Begun::of(&answer).said("redirect_uri");
    assert_eq!(redirect_uri, "https://app.example.com/api/auth/oauth2/callback/github");
}

#[tokio::test]
async fn what_the_provider_says_no_with_reaches_the_app() {
    let gateway = setup().start().await;
    let begun = github(&gateway, "").await;
    let back = begun.callback("&error=access_denied&error_description=Ada+said+no");
    let answer = come_back(&gateway, &back, &begun.cookie).await;
    assert_eq!(
        location(&answer),
        "/oops?a=1&error=access_denied&error_description=Ada+said+no"
    );
    let cleared = answer.head.one("set-cookie").unwrap();
    let name = begun.cookie.split('=').next().unwrap();
    assert!(cleared.starts_with(&format!("{name}=; Max-Age=0; ")), "{cleared}");

    let again = come_back(&gateway, &back, &begun.cookie).await;
    assert_eq!(location(&again), format!("{ERROR_PAGE}?error=state_mismatch"));
}

#[tokio::test]
async fn without_a_code_or_with_one_that_is_none_there_is_nothing_to_redeem() {
    let gateway = setup().start().await;
    for (rest, error) in [
        ("", "no_code"),
        ("&code=", "no_code"),
        (&*format!("&code={}", "c".repeat(5000)), "invalid_code"),
    ] {
        let begun = github(&gateway, "").await;
        let answer = come_back(&gateway, &begun.callback(rest), &begun.cookie).await;
        assert_eq!(location(&answer), format!("/oops?a=1&error={error}"));
    }
}

#[tokio::test]
async fn a_code_that_can_not_be_redeemed_is_invalid_and_the_access_log_has_none_of_it() {
    let gateway = setup().start().await;
    let begun = github(&gateway, "").await;
    let answer = come_back(&gateway, &begun.callback("&code=S3CRETCODE"), &begun.cookie).await;
    assert_eq!(location(&answer), "/oops?a=1&error=invalid_code");
    let log = gateway.log();
    for secret in ["S3CRETCODE", "github-secret", &begun.said("state")] {
        assert!(!log.contains(secret), "{log}");
    }
}

#[tokio::test]
async fn another_browser_burns_the_state_and_goes_nowhere() {
    let gateway = setup().start().await;
    let (ada, eve) = (github(&gateway, "").await, github(&gateway, "").await);
    for cookie in ["", "a=b", &eve.cookie] {
        let ada = github(&gateway, &ada.cookie).await;
        let back = ada.callback("&code=x");
        let answer = come_back(&gateway, &back, cookie).await;
        assert_eq!(location(&answer), "/oops?a=1&error=state_mismatch", "{cookie}");
        assert!(!answer.head.has("set-cookie"));
        let own = come_back(&gateway, &back, &ada.cookie).await;
        assert_eq!(location(&own), format!("{ERROR_PAGE}?error=state_mismatch"), "{cookie}");
    }
}

#[tokio::test]
async fn another_providers_callback_burns_the_state() {
    let gateway = setup().start().await;
    let begun = github(&gateway, "").await;
    let elsewhere = begun.callback("&code=x").replace("/callback/github", "/callback/other");
    let answer = come_back(&gateway, &elsewhere, &begun.cookie).await;
    assert_eq!(location(&answer), "/oops?a=1&error=state_mismatch");
    let own = come_back(&gateway, &begun.callback("&code=x"), &begun.cookie).await;
    assert_eq!(location(&own), format!("{ERROR_PAGE}?error=state_mismatch"));
}

#[tokio::test]
async fn ten_minutes_are_enough() {
    let gateway = setup().start().await;
    let (early, late) = (github(&gateway, "").await, github(&gateway, "").await);
    gateway.clock().advance(Duration::from_secs(599));
    let answer = come_back(&gateway, &early.callback(""), &early.cookie).await;
    assert_eq!(location(&answer), "/oops?a=1&error=no_code");
    gateway.clock().advance(Duration::from_secs(1));
    let answer = come_back(&gateway, &late.callback(""), &late.cookie).await;
    assert_eq!(location(&answer), format!("{ERROR_PAGE}?error=state_mismatch"));
}

#[tokio::test]
async fn many_tabs_of_a_browser_are_under_way_at_once() {
    let gateway = setup().start().await;
    let first = github(&gateway, "").await;
    let mut tabs = vec![];
    for _ in 0..7 {
        let tab = github(&gateway, &first.cookie).await;
        assert_eq!(tab.cookie, first.cookie);
        tabs.push(tab);
    }
    tabs.push(first);
    let last = tabs.len() - 1;
    for (at, tab) in tabs.iter().enumerate() {
        let answer = come_back(&gateway, &tab.callback(""), &tab.cookie).await;
        assert_eq!(location(&answer), "/oops?a=1&error=no_code");
        assert_eq!(answer.head.has("set-cookie"), at == last, "{at}");
    }
}

#[tokio::test]
async fn however_many_start_a_browser_is_left_with_a_few_cookies() {
    let gateway = setup().start().await;
    let mut names = BTreeSet::new();
    for _ in 0..200 {
        let begun = github(&gateway, "").await;
        names.insert(begun.cookie.split('=').next().unwrap().to_owned());
    }
    assert!((2..=8).contains(&names.len()), "{names:?}");
    // A browser with all of them still comes through.
    let all: Vec<_> = names.iter().map(|name| format!("{name}=x.y")).collect();
    let begun = github(&gateway, &all.join("; ")).await;
    let cookies = format!("{}; {}", all.join("; "), begun.cookie);
    let answer = come_back(&gateway, &begun.callback(""), &cookies).await;
    assert_eq!(location(&answer), "/oops?a=1&error=no_code");
}

#[tokio::test]
async fn another_gateway_knows_the_flow() {
    let db = Database::fresh().await;
    let (here, there) = (setup().start_on(&db).await, setup().start_on(&db).await);
    let begun = github(&here, "").await;
    let answer = come_back(&there, &begun.callback(""), &begun.cookie).await;
    assert_eq!(location(&answer), "/oops?a=1&error=no_code");
    let again = come_back(&here, &begun.callback(""), &begun.cookie).await;
    assert_eq!(location(&again), format!("{ERROR_PAGE}?error=state_mismatch"));
}

#[tokio::test]
async fn linking_needs_a_fresh_session() {
    let gateway = setup().start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    let body = json!({ "provider": "github" });
    let begun = Begun::of(&gateway.post("/api/auth/link-social").with(&ada).json(&body).await);
    assert_eq!(begun.said("client_id"), "github-client");
    gateway.clock().advance(Duration::from_hours(25));
    let answer = gateway.post("/api/auth/link-social").with(&ada).json(&body).await;
    assert_eq!((answer.status(), answer.code().as_str()), (403, "SESSION_NOT_FRESH"));
}

#[tokio::test]
async fn without_a_database_the_person_still_gets_a_page() {
    let gateway = setup().start().await;
    let begun = github(&gateway, "").await;
    gateway.db().run("ALTER TABLE auth.oauth_flows RENAME TO gone").await;
    let answer = come_back(&gateway, &begun.callback("&code=x"), &begun.cookie).await;
    assert_eq!(location(&answer), format!("{ERROR_PAGE}?error=internal_server_error"));
}

#[tokio::test]
async fn redir_06_where_people_are_sent_is_judged_again_when_they_come_back() {
    let db = Database::fresh().await;
    let friend = "[auth]\ntrusted_origins = ['https://friend.example']";
    let (before, after) = (setup().with(friend).start_on(&db).await, setup().start_on(&db).await);
    for (error, end) in [
        (
            "https://friend.example/oops",
            format!("{ERROR_PAGE}?error=access_denied"),
        ),
        ("/oops", "/oops?error=access_denied".to_owned()),
    ] {
        let body = json!({ "provider": "github", "callbackURL": "https://friend.example/", "errorCallbackURL": error });
        let begun = Begun::of(&start(&before, "", &body).await);
        let answer = come_back(&after, &begun.callback("&error=access_denied"), &begun.cookie).await;
        assert_eq!(location(&answer), end);
    }
}

#[tokio::test]
async fn what_is_remembered_of_a_flow_has_bounds() {
    let gateway = setup().start().await;
    let params = |count: usize| -> Value { (0..count).map(|n| (format!("p{n}"), json!("x"))).collect() };
    for (field, good, bad) in [
        (
            "callbackURL",
            json!(format!("/{}", "x".repeat(2047))),
            json!(format!("/{}", "x".repeat(2048))),
        ),
        ("errorCallbackURL", json!("/"), json!(format!("/{}", "x".repeat(2048)))),
        (
            "newUserCallbackURL",
            json!("/"),
            json!(format!("/{}", "x".repeat(2048))),
        ),
        ("scopes", json!(vec!["s"; 50]), json!(vec!["s"; 51])),
        ("scopes", json!(["s".repeat(256)]), json!(["s".repeat(257)])),
        ("loginHint", json!("x".repeat(320)), json!("x".repeat(321))),
        ("additionalParams", params(50), params(51)),
    ] {
        let answer = start(&gateway, "", &json!({ "provider": "github", field: good })).await;
        assert_eq!(answer.status(), 200, "{field}: {}", answer.text());
        let answer = start(&gateway, "", &json!({ "provider": "github", field: bad })).await;
        assert_eq!(
            (answer.status(), answer.code().as_str()),
            (400, "VALIDATION_ERROR"),
            "{field}"
        );
    }
}

/// A body that is wrong is so for everybody; and who has no session hears nothing of providers.
#[tokio::test]
async fn the_body_is_judged_before_the_session_and_that_before_the_provider() {
    let gateway = setup().start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    let token = json!({ "token": "x" });
    for body in [
        json!({ "provider": "nobody", "scopes": "x" }),
        json!({ "provider": "nobody", "idToken": token, "scopes": "x" }),
        json!({ "provider": "nobody", "idToken": token, "requestSignUp": 1 }),
        json!({ "provider": "nobody", "idToken": token, "additionalParams": { "state": "x" } }),
        json!({ "provider": "nobody", "idToken": {} }),
        json!({ "provider": "nobody", "idToken": "x" }),
    ] {
        for path in ["sign-in/social", "link-social"] {
            let answer = gateway.post(&format!("/api/auth/{path}")).json(&body).await;
            assert_eq!(
                (answer.status(), answer.code().as_str()),
                (400, "VALIDATION_ERROR"),
                "{path} {body}"
            );
        }
    }
    for body in [
        json!({ "provider": "nobody", "idToken": token }),
        json!({ "provider": "nobody" }),
    ] {
        let link = || gateway.post("/api/auth/link-social");
        assert_eq!(link().json(&body).await.status(), 401, "{body}");
        for call in [gateway.post("/api/auth/sign-in/social"), link().with(&ada)] {
            assert_eq!(call.json(&body).await.code(), "PROVIDER_NOT_FOUND", "{body}");
        }
    }
}
