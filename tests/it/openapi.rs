//! openapi.json: all that is there is in it, it is what it claims to be, and all that it promises is real.
//!
//! That nothing else is answered than what it says is tested everywhere: the harness holds each answer of the auth API
//! against it (`harness/document.rs`).

mod providers;

use std::{collections::BTreeSet, fs, future::IntoFuture, path::Path, process::Stdio, time::Duration};

use futures_util::{StreamExt, future::join_all, stream::FuturesUnordered};
use serde_json::{Value, json};
use vestibule::auth::ROUTES;

use crate::harness::{
    Database, Gateway, SOON, Setup,
    client::{Call, Response},
    document::{self, Answer, document},
    eventually, gateway, golden,
    people::{PASSWORD, User},
    program,
    provider::Provider,
    schemathesis,
};

/// Promised, and not provoked here.
const NEVER_SEEN: &[(&str, &str)] = &[
    ("GET /reset-password/{token} 400 BAD_PATH", BEFORE_AN_ENDPOINT),
    ("GET /callback/{provider} 400 BAD_PATH", BEFORE_AN_ENDPOINT),
    ("POST /callback/{provider} 400 BAD_PATH", BEFORE_AN_ENDPOINT),
    ("GET /oauth2/callback/{provider} 400 BAD_PATH", BEFORE_AN_ENDPOINT),
    ("POST /oauth2/callback/{provider} 400 BAD_PATH", BEFORE_AN_ENDPOINT),
];

const BEFORE_AN_ENDPOINT: &str =
    "it is answered before an endpoint is found, and so not recorded for one; schemathesis provokes it";

const DAY: Duration = Duration::from_hours(24);

#[test]
fn every_route_is_in_it_and_nothing_else() {
    let routes: BTreeSet<_> = ROUTES
        .iter()
        .map(|route| {
            let path = match route.path.split_once(':') {
                Some((before, name)) => format!("{before}{{{name}}}"),
                None => route.path.to_owned(),
            };
            (route.method.to_string(), path)
        })
        .collect();
    let described: BTreeSet<_> = document()
        .operations()
        .map(|(method, path, _)| (method, path))
        .collect();
    assert_eq!(routes, described);
}

#[test]
fn no_two_operations_have_one_name() {
    let names: Vec<_> = document()
        .operations()
        .map(|(.., operation)| &operation["operationId"])
        .collect();
    let different: BTreeSet<_> = names.iter().map(|name| name.as_str().unwrap()).collect();
    assert_eq!(different.len(), names.len());
}

#[test]
fn it_changes_only_where_somebody_reads_the_change() {
    let text = serde_json::to_string_pretty(document().json()).unwrap();
    golden::same("openapi.json", &(text + "\n"));
}

#[tokio::test]
async fn it_is_valid_openapi() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("openapi.json");
    std::fs::write(&file, document().json().to_string()).unwrap();
    let checked = tokio::process::Command::new(schemathesis::python())
        .args(["-m", "openapi_spec_validator", "--schema", "3.1"])
        .arg(&file)
        .stdin(Stdio::null())
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&checked.stdout);
    assert!(
        checked.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&checked.stderr)
    );
}

#[tokio::test]
async fn the_command_prints_what_is_served() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("gateway.toml");
    std::fs::write(&config, gateway::whole_text()).unwrap();
    let ended = program::run(&["openapi", "--config", config.to_str().unwrap()], &[], folder.path()).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let printed: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(&printed, document().json());
}

/// `vestibule openapi | head`
#[tokio::test]
async fn a_reader_that_has_seen_enough_is_no_failure() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("gateway.toml");
    fs::write(&config, gateway::whole_text()).unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let ended = tokio::process::Command::new(program::path())
        .args(["openapi", "--config"])
        .arg(&config)
        .stdout(writer)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let ended = ended.wait_with_output().await.unwrap();
    let stderr = String::from_utf8_lossy(&ended.stderr);
    assert_eq!((ended.status.code(), stderr.as_ref()), (Some(0), ""));
}

#[tokio::test]
async fn it_is_served_and_so_is_its_page() {
    let gateway = Gateway::start().await;
    let served = gateway.get("/api/auth/openapi.json").await;
    assert_eq!(served.head.one("content-type"), Some("application/json"));
    assert_eq!(served.json()["servers"][0]["url"], "https://app.example.com/api/auth");
    assert_eq!(served.json()["paths"], document().json()["paths"]);

    let page = gateway.get("/api/auth/reference").await;
    assert_eq!(page.head.one("content-type"), Some("text/html; charset=utf-8"));
    let policy = page.head.one("content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'none'"), "{policy}");
    let text = page.text();
    for (method, path, operation) in document().operations() {
        let id = operation["operationId"].as_str().unwrap();
        assert!(
            text.contains(&format!("<article id=\"{id}\"")),
            "{method} {path} is not on the page"
        );
        let own: Vec<_> = promises_of(&method, &path)
            .into_iter()
            .map(|promise| promise.code)
            .collect();
        for code in own.iter().filter(|code| !code.is_empty()) {
            assert!(
                text.contains(&format!("<code>{code}</code>")),
                "{code} is not on the page"
            );
        }
    }
    for name in document().json()["components"]["schemas"].as_object().unwrap().keys() {
        assert!(
            text.contains(&format!("id=\"shape-{name}\"")),
            "{name} is not on the page"
        );
    }
    // Nothing runs in it, and nothing comes from elsewhere.
    for foreign in ["<script", "src=", "@import", "url(", "javascript:", "style=\""] {
        assert!(!text.contains(foreign), "{foreign}");
    }
    for link in text.split("href=\"").skip(1) {
        assert!(
            link.starts_with('#') || link.starts_with("openapi.json\""),
            "{link:.40}"
        );
    }
}

fn promises_of(method: &str, path: &str) -> BTreeSet<Answer> {
    let promises = document().promises().into_iter();
    promises
        .filter(|promise| promise.method == method && promise.path == path)
        .collect()
}

/// What a body or a query is refused for is what the document says of it: the required fields when there is none of
/// them, all that are checked when none is of the right type.
#[tokio::test]
async fn bodies_and_queries_are_checked_for_what_it_says_of_them() {
    let gateway = Gateway::start().await;
    for endpoint in endpoints() {
        let schema = &endpoint.operation["requestBody"]["content"]["application/json"]["schema"];
        let Some(fields) = schema["properties"].as_object() else {
            continue;
        };
        let wrong: serde_json::Map<_, _> = fields.keys().map(|name| (name.clone(), json!([]))).collect();
        // Targets are judged elsewhere, and no list is wrong where a list may be.
        let targets = [
            "callbackURL",
            "redirectTo",
            "errorCallbackURL",
            "newUserCallbackURL",
            "scopes",
        ];
        let wrong: serde_json::Map<_, _> = wrong
            .into_iter()
            .filter(|(name, _)| !targets.contains(&name.as_str()))
            .collect();
        let answer = gateway.post(&endpoint.target).json(&Value::Object(wrong.clone())).await;
        let named = named_in(&answer);
        let expected: BTreeSet<_> = wrong.keys().cloned().collect();
        assert_eq!(named, expected, "{}: {}", endpoint.target, answer.text());

        let answer = gateway.post(&endpoint.target).json(&json!({})).await;
        let mut required: BTreeSet<_> = texts(&schema["required"]).collect();
        // Which account is meant is said by two fields together.
        required.extend(wrong.contains_key("accountId").then(|| "accountId".to_owned()));
        assert_eq!(named_in(&answer), required, "{}: {}", endpoint.target, answer.text());
    }
}

/// The other direction of the test above: no field is read that is not described.
#[test]
fn every_field_that_is_read_is_in_it() {
    let mut described = BTreeSet::new();
    for (.., operation) in document().operations() {
        let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
        described.extend(
            schema["properties"]
                .as_object()
                .into_iter()
                .flat_map(|fields| fields.keys().cloned()),
        );
        let parameters = operation["parameters"].as_array().into_iter().flatten();
        described.extend(parameters.map(|parameter| parameter["name"].as_str().unwrap().to_owned()));
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/auth");
    let mut read = BTreeSet::new();
    for folder in [folder.clone(), folder.join("account")] {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "rs") {
                let source = fs::read_to_string(&path).unwrap();
                let code = source.split("#[cfg(test)]").next().unwrap();
                for reader in ["check.", "query.get", "query.is_set", "body.get"] {
                    for rest in code.split(reader).skip(1) {
                        let name = rest.trim_start_matches(|c: char| c.is_ascii_lowercase() || c == '_');
                        read.extend(
                            name.strip_prefix("(\"")
                                .and_then(|name| name.split_once('"'))
                                .map(|(name, _)| name.to_owned()),
                        );
                    }
                }
            }
        }
    }
    assert!(
        read.contains("callbackURL") && read.contains("disableRefresh"),
        "{read:?}"
    );
    let missing: Vec<_> = read.difference(&described).collect();
    assert!(missing.is_empty(), "read, but not described: {missing:?}");
}

/// The fields that a refusal blames.
fn named_in(answer: &Response) -> BTreeSet<String> {
    if answer.status() != 400 {
        return BTreeSet::new();
    }
    let body = answer.json();
    if body["code"] != "VALIDATION_ERROR" {
        return BTreeSet::new();
    }
    let message = body["message"].as_str().unwrap();
    let parts = message.split("[body.").skip(1);
    parts.map(|part| part.split(']').next().unwrap().to_owned()).collect()
}

fn texts(list: &Value) -> impl Iterator<Item = String> {
    let items = list.as_array().into_iter().flatten();
    items.map(|item| item.as_str().unwrap().to_owned())
}

/// An endpoint as its client would call it: with what it demands, and no more.
struct Endpoint {
    method: String,
    target: String,
    body: Option<Value>,
    operation: &'static Value,
}

fn endpoints() -> Vec<Endpoint> {
    let endpoint = |(method, path, operation): (String, String, &'static Value)| {
        let mut target = format!("/api/auth{path}");
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            let name = parameter["name"].as_str().unwrap();
            let example = parameter["schema"]["examples"][0].as_str().unwrap_or_default();
            match parameter["in"].as_str().unwrap() {
                "path" => target = target.replace(&format!("{{{name}}}"), example),
                // Without one or the other no account is named.
                _ if parameter["required"] == true || name == "accountId" => {
                    query.append_pair(name, example);
                }
                _ => {}
            }
        }
        let query = query.finish();
        Endpoint {
            target: if query.is_empty() {
                target
            } else {
                format!("{target}?{query}")
            },
            body: operation
                .get("requestBody")
                .map(|body| body["content"]["application/json"]["example"].clone()),
            method,
            operation,
        }
    };
    document().operations().map(endpoint).collect()
}

impl Endpoint {
    fn is_post(&self) -> bool {
        self.method == "POST"
    }

    /// Without a body.
    fn bare(&self, gateway: &Gateway) -> Call {
        gateway.call(&self.method, &self.target)
    }

    fn call(&self, gateway: &Gateway) -> Call {
        match &self.body {
            Some(body) => self.bare(gateway).json(body),
            None => self.bare(gateway),
        }
    }

    fn raw(&self, gateway: &Gateway, fields: &str, body: &str) -> String {
        let (host, target) = (gateway.host(), &self.target);
        format!("POST {target} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n{fields}\r\n\r\n{body}")
    }
}

#[tokio::test]
async fn every_answer_that_it_promises_is_real() {
    let seen: BTreeSet<Answer> = [
        what_every_request_may_get().await,
        bodies_that_do_not_arrive().await,
        what_a_session_may_get().await,
        signing_in().await,
        links().await,
        passwords().await,
        a_link_of_a_user_who_is_gone().await,
        accounts().await,
        deletion().await,
        people().await,
        providers::ways_there().await,
        providers::id_tokens().await,
        providers::tokens().await,
        what_is_switched_off().await,
        no_database().await,
        a_broken_database().await,
        too_much_to_hash().await,
        too_many_requests().await,
    ]
    .into_iter()
    .flatten()
    .collect();
    let is_excused = |promise: &Answer| {
        let mut excuses = NEVER_SEEN.iter();
        excuses.any(|(excused, _reason)| *excused == promise.to_string())
    };
    let unseen: Vec<_> = document()
        .promises()
        .into_iter()
        .filter(|promise| !seen.contains(promise))
        .collect();
    let missing: Vec<_> = unseen
        .iter()
        .filter(|promise| !is_excused(promise))
        .map(ToString::to_string)
        .collect();
    assert!(
        missing.is_empty(),
        "promised, but nothing here provokes it:\n{}",
        missing.join("\n")
    );
    let seen_after_all: Vec<_> = seen
        .iter()
        .filter(|answer| is_excused(answer))
        .map(ToString::to_string)
        .collect();
    assert!(
        seen_after_all.is_empty(),
        "no longer in need of an excuse:\n{}",
        seen_after_all.join("\n")
    );
}

async fn a_link_of_a_user_who_is_gone() -> BTreeSet<Answer> {
    let gateway = Gateway::start().await;
    gateway.verified("ada@example.com").await;
    let body = json!({ "email": "ada@example.com" });
    gateway.post("/api/auth/request-password-reset").json(&body).await;
    gateway.mailbox().next_to("ada@example.com").await;
    let token = gateway.mailbox().next_to("ada@example.com").await.token();
    gateway.db().run("DELETE FROM users").await;
    let body = json!({ "token": token, "newPassword": PASSWORD });
    gateway.post("/api/auth/reset-password").json(&body).await;
    document::seen(gateway.addr())
}

async fn what_every_request_may_get() -> BTreeSet<Answer> {
    let gateway = Gateway::start().await;
    for endpoint in endpoints() {
        let bare = || endpoint.bare(&gateway);
        endpoint.call(&gateway).await;
        for target in ["callbackURL", "redirectTo", "errorCallbackURL", "newUserCallbackURL"] {
            let foreign = json!({ target: "https://evil.example/" });
            let not_text = json!({ target: 7 });
            if endpoint.is_post() {
                bare().json(&foreign).await;
                bare().json(&not_text).await;
            } else {
                let path = endpoint.target.split('?').next().unwrap();
                let foreign = format!("{path}?token=x&{target}=https://evil.example/");
                gateway.get(&foreign).await;
                gateway.get(&format!("{path}?{target}=/a&{target}=/b")).await;
                gateway.get(path).await;
            }
        }
        if !endpoint.is_post() {
            continue;
        }
        bare().json(&json!([])).await;
        bare().header("Content-Type", "application/json").body("{").await;
        bare().header("Content-Type", "text/plain").body("x").await;
        bare().json(&json!("x".repeat(70_000))).await;
        endpoint.call(&gateway).header("Cookie", "a=b").await;
        let foreign = || endpoint.call(&gateway).header("Origin", "https://evil.example");
        foreign().header("Cookie", "a=b").await;
        let navigation = foreign().header("Sec-Fetch-Site", "cross-site");
        navigation.header("Sec-Fetch-Mode", "navigate").await;
    }
    document::seen(gateway.addr())
}

async fn bodies_that_do_not_arrive() -> BTreeSet<Answer> {
    let gateway = Setup::default().with("[server]\nbody_timeout = '300ms'").start().await;
    let endpoints: Vec<_> = endpoints().into_iter().filter(Endpoint::is_post).collect();
    join_all(endpoints.iter().map(async |endpoint| {
        for (fields, body) in [("Content-Length: 100", "{"), ("Transfer-Encoding: chunked", "-1\r\n")] {
            let mut client = gateway.raw().await;
            client.send(endpoint.raw(&gateway, fields, body)).await;
            let answer = client.answer_to("POST").await;
            document::saw(gateway.addr(), "POST", &endpoint.target, &answer);
        }
    }))
    .await;
    document::seen(gateway.addr())
}

async fn what_a_session_may_get() -> BTreeSet<Answer> {
    let gateway = Gateway::start().await;
    // What ends sessions or the user comes last, each with a user of its own.
    for (n, endpoint) in endpoints().into_iter().enumerate() {
        let user = gateway.signed_in(&format!("user{n}@example.com")).await;
        endpoint.call(&gateway).with(&user).await;
        let stale = gateway.signed_in(&format!("stale{n}@example.com")).await;
        gateway.clock().advance(2 * DAY);
        endpoint.call(&gateway).with(&stale).await;
    }
    document::seen(gateway.addr())
}

async fn signing_in() -> BTreeSet<Answer> {
    let gateway = Gateway::start().await;
    let unverified = Setup::default()
        .with("[auth.email_verification]\nrequired = false")
        .start()
        .await;
    let post = async |path: &str, body: Value| gateway.post(&format!("/api/auth{path}")).json(&body).await;
    let long = "x".repeat(129);
    for path in ["/sign-up/email", "/signup"] {
        let email = format!("ada{}@example.com", path.len());
        let with = |name: &str, value: &str| {
            let mut body = json!({ "name": "Ada", "email": email, "password": PASSWORD });
            body[name] = value.into();
            body
        };
        for (name, value) in [
            ("password", "short"),
            ("password", &long),
            ("role", "admin"),
            ("name", "Ada"),
        ] {
            post(path, with(name, value)).await;
        }
        for _ in 0..2 {
            unverified
                .post(&format!("/api/auth{path}"))
                .json(&with("name", "Ada"))
                .await;
        }
    }
    gateway.verified("grace@example.com").await;
    gateway.verified("banned@example.com").await;
    gateway
        .db()
        .run("UPDATE users SET banned = true WHERE email LIKE 'banned%'")
        .await;
    for path in ["/sign-in/email", "/signin"] {
        for (email, password) in [
            ("grace@example.com", PASSWORD),
            ("grace@example.com", "not the password"),
            ("grace@example.com", &long),
            ("nobody", PASSWORD),
            ("ada7@example.com", PASSWORD),
            ("banned@example.com", PASSWORD),
        ] {
            post(
                path,
                json!({ "email": email, "password": password, "callbackURL": "/x" }),
            )
            .await;
        }
    }
    let fresh = unverified.sign_in("ada7@example.com").await;
    let ada = User::of(&unverified, &fresh);
    let resend = async |email: &str| {
        let call = unverified.post("/api/auth/send-verification-email").with(&ada);
        call.json(&json!({ "email": email })).await
    };
    resend("ada7@example.com").await;
    resend("grace@example.com").await;
    unverified.db().run("UPDATE users SET email_verified = true").await;
    resend("ada7@example.com").await;
    seen_by(&[&gateway, &unverified])
}

fn seen_by(gateways: &[&Gateway]) -> BTreeSet<Answer> {
    gateways
        .iter()
        .flat_map(|gateway| document::seen(gateway.addr()))
        .collect()
}

async fn links() -> BTreeSet<Answer> {
    let gateway = Gateway::start().await;
    let link_of = async |email: &str| {
        gateway.sign_up(email).await;
        gateway.mailbox().next_to(email).await.link()
    };
    let without_target = |link: &str| link.split("&callbackURL").next().unwrap().to_owned();
    let good = link_of("ada@example.com").await;
    gateway.open(&good).await;
    gateway.open(&without_target(&good)).await;
    gateway
        .open("https://app.example.com/api/auth/verify-email?token=unknown")
        .await;

    let gone = link_of("gone@example.com").await;
    gateway.db().run("DELETE FROM users WHERE email LIKE 'gone%'").await;
    gateway.open(&without_target(&gone)).await;

    let answer = gateway.sign_up("banned@example.com").await;
    let mark = answer
        .head
        .one("set-cookie")
        .unwrap()
        .split(';')
        .next()
        .unwrap()
        .to_owned();
    let banned = gateway.mailbox().next_to("banned@example.com").await.link();
    gateway
        .db()
        .run("UPDATE users SET banned = true WHERE email LIKE 'banned%'")
        .await;
    gateway.open(&without_target(&banned)).header("Cookie", mark).await;

    let expired = link_of("late@example.com").await;
    gateway.clock().advance(DAY);
    gateway.open(&without_target(&expired)).await;

    let (grace, other) = (
        gateway.signed_in("grace@example.com").await,
        gateway.signed_in("other@example.com").await,
    );
    gateway.mailbox().next_to("grace@example.com").await;
    let change = gateway.post("/api/auth/change-email").with(&grace);
    change.json(&json!({ "newEmail": "hopper@example.com" })).await;
    let approve = gateway.mailbox().next_to("grace@example.com").await.link();
    gateway.open(&without_target(&approve)).with(&other).await;
    gateway.open(&without_target(&approve)).with(&grace).await;
    let confirm = gateway.mailbox().next_to("hopper@example.com").await.link();
    gateway.open(&without_target(&confirm)).with(&grace).await;
    document::seen(gateway.addr())
}

async fn passwords() -> BTreeSet<Answer> {
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    let post = async |path: &str, body: Value| gateway.post(&format!("/api/auth{path}")).with(&ada).json(&body).await;
    let long = "x".repeat(129);
    for new in ["short", &long, PASSWORD] {
        post(
            "/change-password",
            json!({ "currentPassword": PASSWORD, "newPassword": new }),
        )
        .await;
        post("/set-password", json!({ "newPassword": new })).await;
    }
    post(
        "/change-password",
        json!({ "currentPassword": "wrong", "newPassword": PASSWORD }),
    )
    .await;
    for password in [PASSWORD, "wrong", &long] {
        post("/verify-password", json!({ "password": password })).await;
    }
    gateway.mailbox().next_to("ada@example.com").await;
    post("/request-password-reset", json!({ "email": "ada@example.com" })).await;
    let token = gateway.mailbox().next_to("ada@example.com").await.token();
    for new in ["short", &long, PASSWORD, PASSWORD] {
        gateway
            .post("/api/auth/reset-password")
            .json(&json!({ "token": token, "newPassword": new }))
            .await;
    }
    let grace = gateway.signed_in("grace@example.com").await;
    gateway.db().run("DELETE FROM accounts").await;
    let post = async |path: &str, body: Value| gateway.post(&format!("/api/auth{path}")).with(&grace).json(&body).await;
    post(
        "/change-password",
        json!({ "currentPassword": PASSWORD, "newPassword": PASSWORD }),
    )
    .await;
    post("/delete-user", json!({ "password": PASSWORD })).await;
    post("/set-password", json!({ "newPassword": PASSWORD })).await;
    document::seen(gateway.addr())
}

async fn accounts() -> BTreeSet<Answer> {
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    let post = async |path: &str, body: Value| gateway.post(&format!("/api/auth{path}")).with(&ada).json(&body).await;
    post("/change-email", json!({ "newEmail": "ada@example.com" })).await;
    post("/update-user", json!({ "email": "ada@example.com" })).await;
    post("/update-user", json!({ "role": "admin" })).await;
    post("/update-user", json!({})).await;
    post("/unlink-account", json!({ "accountId": "x" })).await;
    gateway
        .db()
        .run(
            "INSERT INTO accounts (id, user_id, provider_id, account_id, created_at, updated_at)
             SELECT gen_random_uuid(), id, 'google', '7', created_at, updated_at FROM users",
        )
        .await;
    post("/unlink-account", json!({ "accountId": "x" })).await;
    post("/unlink-account", json!({ "providerId": "google" })).await;
    document::seen(gateway.addr())
}

async fn deletion() -> BTreeSet<Answer> {
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    let post = async |body: Value| gateway.post("/api/auth/delete-user").with(&ada).json(&body).await;
    let long = "x".repeat(129);
    for password in ["wrong", &long] {
        post(json!({ "password": password })).await;
    }
    post(json!({ "token": "unknown" })).await;
    gateway.clock().advance(2 * DAY);
    post(json!({})).await;

    let by_mail = Setup::default()
        .with("[auth.account]\ndelete_user = 'mail'")
        .start()
        .await;
    for target in ["", "&callbackURL=%2Fbye"] {
        let email = format!("ada{}@example.com", target.len());
        let ada = by_mail.signed_in(&email).await;
        by_mail.mailbox().next_to(&email).await;
        by_mail.post("/api/auth/delete-user").with(&ada).json(&json!({})).await;
        let link = by_mail.mailbox().next_to(&email).await.link();
        let link = link.split("&callbackURL").next().unwrap();
        by_mail.open(&format!("{link}x")).with(&ada).await;
        by_mail.open(&format!("{link}{target}")).with(&ada).await;
    }
    seen_by(&[&gateway, &by_mail])
}

async fn people() -> BTreeSet<Answer> {
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    for path in ["set-active", "revoke"] {
        for token in ["unknown", &ada.token] {
            let call = gateway.post(&format!("/api/auth/multi-session/{path}")).with(&ada);
            call.json(&json!({ "sessionToken": token })).await;
        }
    }
    document::seen(gateway.addr())
}

async fn what_is_switched_off() -> BTreeSet<Answer> {
    let db = Database::fresh().await;
    let off = Setup::default().with(
        "[auth]\nsign_up = false\n[auth.account]\nchange_email = 'off'\ndelete_user = 'off'\n\
         [auth.session]\nmulti_session = 'off'",
    );
    let (gateway, off) = (Gateway::on(&db).await, off.start_on(&db).await);
    let ada = gateway.signed_in("ada@example.com").await;
    for endpoint in endpoints() {
        let ends = endpoint.target.contains("sign-out") || endpoint.target.contains("revoke-sessions");
        if !ends {
            endpoint.call(&off).with(&ada).await;
        }
    }
    document::seen(off.addr())
}

/// Postgres lets nobody in any more.
async fn no_database() -> BTreeSet<Answer> {
    let google = Provider::oidc().await.client("google").await;
    let gateway = Setup::default()
        .with("[database]\nacquire_timeout = '300ms'")
        .with(&google.toml())
        .start()
        .await;
    let ada = gateway.signed_in("ada@example.com").await;
    gateway.db().shut().await;
    let endpoints = endpoints();
    join_all(
        endpoints
            .iter()
            .map(|endpoint| endpoint.call(&gateway).with(&ada).into_future()),
    )
    .await;
    document::seen(gateway.addr())
}

/// It answers, but not with what the gateway asks for.
async fn a_broken_database() -> BTreeSet<Answer> {
    let google = Provider::oidc().await.client("google").await;
    let gateway = Setup::default().with(&google.toml()).start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    for table in ["users", "user_sessions", "one_time_tokens", "accounts", "oauth_flows"] {
        gateway
            .db()
            .run(&format!("ALTER TABLE {table} RENAME TO {table}_of_old"))
            .await;
    }
    for endpoint in endpoints() {
        endpoint.call(&gateway).with(&ada).await;
    }
    document::seen(gateway.addr())
}

/// One password is hashed, another waits, and there is no room for a third.
async fn too_much_to_hash() -> BTreeSet<Answer> {
    let db = Database::fresh().await;
    let slow = Setup::default().with(
        "[auth.password]\nmax_concurrent = 1\nqueue = 1\n\
         argon2 = { memory = '64MiB', iterations = 20, parallelism = 1 }",
    );
    let gateway = Gateway::on(&db).await;
    let ada = gateway.signed_in("ada@example.com").await;
    let grace = gateway.signed_in("grace@example.com").await;
    let forgotten = gateway.post("/api/auth/request-password-reset");
    forgotten.json(&json!({ "email": "ada@example.com" })).await;
    gateway.mailbox().next_to("ada@example.com").await;
    let token = gateway.mailbox().next_to("ada@example.com").await.token();
    db.run(&format!("DELETE FROM accounts WHERE user_id = '{}'", grace.id))
        .await;

    // Not before: it would send mails, too, to a mailbox of its own.
    let slow = slow.start_on(&db).await;
    let sign_in = json!({ "email": "nobody@example.com", "password": PASSWORD });
    let change = json!({ "currentPassword": "wrong", "newPassword": PASSWORD });
    let choose = json!({ "token": token, "newPassword": PASSWORD });
    let sign_up = json!({ "name": "", "email": "new@example.com", "password": PASSWORD });
    let one = json!({ "password": "wrong" });
    let first = json!({ "newPassword": PASSWORD });
    let hog = || slow.post("/api/auth/sign-in/email").json(&sign_in).into_future();
    let mut hogs: FuturesUnordered<_> = (0..3).map(|_| hog()).collect();
    let asked = [
        ("/sign-in/email", &ada, &sign_in),
        ("/signin", &ada, &sign_in),
        ("/sign-up/email", &ada, &sign_up),
        ("/signup", &ada, &sign_up),
        ("/change-password", &ada, &change),
        ("/verify-password", &ada, &one),
        ("/delete-user", &ada, &one),
        ("/reset-password", &ada, &choose),
        ("/set-password", &grace, &first),
    ];
    let grace_has_no_password = format!("DELETE FROM accounts WHERE user_id = '{}'", grace.id);
    let asking = async {
        for (path, user, body) in asked {
            // Between one hash and the next there is room for a moment: who slipped in asks again, as if for the first
            // time.
            eventually(SOON, async || {
                db.run(&grace_has_no_password).await;
                db.run("UPDATE one_time_tokens SET consumed_at = NULL").await;
                let answer = slow.post(&format!("/api/auth{path}")).with(user).json(body).await;
                answer.status() == 503
            })
            .await;
        }
    };
    let filling = async {
        while hogs.next().await.is_some() {
            hogs.push(hog());
        }
    };
    tokio::select! {
        () = asking => {}
        () = filling => {}
    }
    document::seen(slow.addr())
}

/// Asked until they refuse.
async fn too_many_requests() -> BTreeSet<Answer> {
    let limits = "[server]\ntrusted_proxies = ['127.0.0.1']\n[auth.session.unknown_tokens]\nlimit = 50\n\
        [auth.rate_limit]\nenabled = true\nstorage = 'memory'";
    let gateway = Setup::default().with(limits).start().await;
    join_all(endpoints().iter().map(async |endpoint| {
        let status = 429.to_string();
        let is_limited = endpoint.operation["responses"].get(&status).is_some();
        // What is refused for its target counts as well, and costs little.
        let path = endpoint.target.split('?').next().unwrap();
        let target = format!("{path}?callbackURL=https://evil.example/");
        for number in 0..=100 {
            // There tokens are counted that are nobody's, of strangers, and not requests.
            let call = if path.ends_with("/verify-token") {
                let call = gateway
                    .call(&endpoint.method, path)
                    .bearer(&format!("junk{number:039}"));
                call.header("X-Forwarded-For", "198.18.0.1")
            } else {
                gateway.call(&endpoint.method, &target)
            };
            if call.await.status() == 429 {
                assert!(is_limited, "{target}");
                return;
            }
        }
        assert!(!is_limited, "{target} is not limited");
    }))
    .await;
    document::seen(gateway.addr())
}
