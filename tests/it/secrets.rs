//! Secrets lie open nowhere (LOG-02): not in a log line, whatever the level, not in the metrics, in an error, or in a column
//! of the database. What is compared in all other tests, too, is in `harness/canary.rs`; here are all flows one behind the
//! other, with all that the program can be made to say, and the proof that the canaries are heard.

use base64ct::{Base64, Base64UrlUnpadded, Encoding};
use serde_json::{Value, json};
use toml::Table;
use url::form_urlencoded;
use vestibule::{config, dev::smtp::Verdict};

use crate::{
    harness::{
        Browser, Database, Gateway, SOON, Setup,
        browser::Place,
        canary::{self, Book},
        client::{Call, Response},
        eventually,
        gateway::{SITE, lay_over, whole_text},
        mailbox::Mailbox,
        people::PASSWORD,
        program::Program,
        provider::{Client, Kind, Provider},
        raw_client::RawClient,
        upstream::Upstream,
        visitor::{SUB, account_at, ask, at},
    },
    oauth_secrets::{Secrets, Served, whole},
};

const COOKIE: &str = "__Host-vestibule.session_token";

/// What people choose here, one after the other, and what they mistype.
const PASSWORDS: [&str; 4] = [
    "Zq7-first-pass-word-of-ada",
    "Zq7 second pass+word/of=ada \u{e9}",
    "Zq7%third\\pass\"word",
    "Zq7-wrong-pass-word",
];

const SECRET: &str = "Zq7 auth secret that signs and seals, and is long";
const SMTP_PASSWORD: &str = "Zq7-password-of-the-mail-server";

/// What the tests of one person's flows share.
struct Ada<'t> {
    gateway: &'t Served,
    mailbox: &'t Mailbox,
    browser: Browser,
    secrets: Secrets,
    /// Refusals, which must not repeat what they refuse.
    refusals: String,
}

impl Ada<'_> {
    async fn post(&mut self, path: &str, body: Value) -> Response {
        let answer = self
            .browser
            .post(self.gateway, &format!("/api/auth/{path}"), &body)
            .await;
        self.note(&answer);
        answer
    }

    async fn get(&mut self, target: &str) -> Response {
        let answer = self.browser.get(self.gateway, target).await;
        self.note(&answer);
        answer
    }

    /// As somebody without cookies, or with these fields.
    async fn call(&mut self, call: Call) -> Response {
        let answer = call.await;
        self.note(&answer);
        answer
    }

    fn note(&mut self, answer: &Response) {
        if answer.status() >= 400 {
            self.refusals.push_str(answer.text());
            self.refusals.push('\n');
        }
        for cookie in answer.head.all("set-cookie") {
            let value = cookie.split_once('=').unwrap().1.split(';').next().unwrap();
            for part in value.split('.').filter(|part| part.len() >= 20) {
                self.secrets.add("cookie", part);
            }
        }
        if let Ok(json) = serde_json::from_slice::<Value>(&answer.body) {
            for name in ["token", "accessToken", "refreshToken", "idToken"] {
                if let Some(token) = json[name].as_str() {
                    self.secrets.add(name, token);
                }
            }
        }
    }

    /// The link of the next mail, whose token and words are secrets.
    async fn link(&mut self, email: &str) -> String {
        let mail = self.mailbox.next_to(email).await;
        let link = mail.link();
        let tokens = link.split(['=', '&', '?', '/']).filter(|part| part.len() >= 40);
        for token in tokens {
            self.secrets.add("token of a mail", token);
        }
        let words = mail.text.lines().find(|line| line.split(' ').count() > 6);
        self.secrets
            .add("words of a mail", words.expect("a mail says something"));
        link
    }

    async fn follow(&mut self, link: &str) -> Response {
        let target = link.strip_prefix(SITE).unwrap().to_owned();
        self.get(&target).await
    }
}

#[tokio::test]
async fn log_02_no_flow_leaves_a_secret_in_a_log_a_metric_an_error_or_a_table() {
    let (provider, client) = at(Kind::Oidc, json!({})).await;
    let mailbox = Mailbox::demanding("mailer", SMTP_PASSWORD).await;
    let (db, upstream) = (Database::fresh().await, Upstream::start().await);
    let over = format!(
        "[auth]\nsecret = '{SECRET}'\n[log]\nlevel = 'trace'\n[identity]\nassertion = true\n\
         [mail]\nsmtp = 'smtp://mailer:{SMTP_PASSWORD}@{}'\n{}",
        mailbox.addr(),
        client.toml(),
    );
    let text = Setup::default().with(&over).text(&db, mailbox.addr(), upstream.addr());
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("gateway.toml");
    std::fs::write(&config, &text).unwrap();
    let (mut program, public, admin) = Program::serve(&config).await;
    let gateway = Served(public);
    let mut secrets = Secrets::default();
    for password in PASSWORDS {
        secrets.add("password", password);
    }
    secrets.add("auth.secret", SECRET);
    secrets.add("SMTP password", SMTP_PASSWORD);
    secrets.add("client secret", client.secret.as_deref().unwrap());
    let url = url::Url::parse(db.url()).unwrap();
    secrets.add("database password", url.password().unwrap());
    let mut ada = Ada {
        gateway: &gateway,
        mailbox: &mailbox,
        browser: Browser::default(),
        secrets,
        refusals: String::new(),
    };
    let mut tables = String::new();

    let [first, second, third, wrong] = PASSWORDS;
    passwords(&mut ada, &db, [first, second, third, wrong], &mut tables).await;
    account(&mut ada, third, &mut tables, &db).await;
    at_a_provider(&mut ada, &provider, &client).await;
    tables.push_str(&whole(&db).await);

    refused(&mut ada, [first, third, wrong]).await;
    failing(&mut ada, &db, &upstream, third).await;

    // A configuration that can't be read, with secrets in the lines that are wrong.
    let broken = text.replace(&format!("\"{SECRET}\""), &format!("\"{SECRET}"));
    let broken = broken.replace(&format!("'{SECRET}'"), &format!("'{SECRET}"));
    assert_ne!(broken, text, "the file is broken");
    for broken in [
        broken,
        format!("{text}\n[mail\nsmtp = 'smtp://mailer:{SMTP_PASSWORD}@x:y:z'"),
    ] {
        std::fs::write(&config, broken).unwrap();
        program.signal("HUP").await;
    }
    program.line("the configuration was not reloaded").await;

    let metrics = Call::new(admin, "http://localhost", "GET", "/metrics")
        .undescribed()
        .await;
    assert!(
        metrics.text().contains("vestibule_requests_total"),
        "{}",
        metrics.text()
    );
    program.signal("TERM").await;
    let ended = program.ended().await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(ended.stderr.contains("\"level\":\"TRACE\""), "all of it was written");
    for seen in ["/api/auth/reset-password/:token", "/api/auth/sign-in/email", "/api/me"] {
        assert!(ended.stdout.contains(seen), "{seen} was asked for");
    }
    for what in [
        "password",
        "token",
        "cookie",
        "token of a mail",
        "accessToken",
        "code",
        "state",
    ] {
        assert!(ada.secrets.has(what), "{what}");
    }
    for (place, text) in [
        ("standard error", &ended.stderr),
        ("the access log", &ended.stdout),
        ("the metrics", &metrics.text().to_owned()),
        ("an error", &ada.refusals),
        ("a table", &tables),
    ] {
        ada.secrets.are_not_in(place, text);
    }
    // PKCS #8 of Ed25519: what signs assertions lies sealed.
    assert!(tables.contains("signing_keys "), "{tables}");
    assert!(!tables.contains("06032b657004220420"), "a private key lies open");
}

/// Sign-up, verification, sign-in in all its ways, another password, a forgotten one.
async fn passwords(ada: &mut Ada<'_>, db: &Database, passwords: [&str; 4], tables: &mut String) {
    let [first, second, third, wrong] = passwords;
    let email = "ada.secret@example.com";
    ada.mailbox.will_say([Verdict::Refuse(451, "4.3.0 later".to_owned())]);
    let body = json!({ "name": "Ada Lovelace", "email": email, "password": first, "callbackURL": "/welcome" });
    assert_eq!(ada.post("sign-up/email", body).await.status(), 200);
    // While the mail waits.
    let waits = "SELECT count(*) FROM mail_outbox WHERE sent_at IS NULL AND attempts = 1 AND last_error IS NOT NULL";
    eventually(SOON, async || db.count(waits).await == 1).await;
    tables.push_str(&whole(db).await);
    let link = ada.link(email).await;
    assert_eq!(ada.follow(&link).await.status(), 302);
    for password in [wrong, first] {
        let body = json!({ "email": email, "password": password });
        ada.post("sign-in/email", body).await;
    }
    let form = form_urlencoded::Serializer::new(String::new())
        .append_pair("email", email)
        .append_pair("password", first)
        .finish();
    let call = ada
        .gateway
        .call("POST", "/api/auth/sign-in/email")
        .header("Origin", SITE);
    let call = call
        .header("Content-Type", "application/x-www-form-urlencoded")
        .body(form);
    let signed_in = ada.call(call).await;
    assert_eq!(signed_in.status(), 200, "{}", signed_in.text());
    let token = signed_in.json()["token"].as_str().unwrap().to_owned();
    let bearer = signed_in.head.one("set-auth-token").unwrap().to_owned();
    for bearer in [&token, &bearer] {
        for target in ["/api/me", "/public/x", &format!("/api/me?access_token={token}")] {
            ada.call(ada.gateway.call("GET", target).bearer(bearer)).await;
        }
    }
    let basic = Base64::encode_string(format!("ada:{first}").as_bytes());
    ada.secrets.add("Basic", basic.as_str());
    ada.call(
        ada.gateway
            .call("GET", "/api/me")
            .header("Authorization", format!("Basic {basic}")),
    )
    .await;
    for target in [
        "/api/me",
        "/optional/x",
        "/app/x",
        "/admin/x",
        "/nothing",
        "/api/auth/list-sessions",
        "/api/auth/me",
    ] {
        ada.get(target).await;
    }
    let body = json!({ "currentPassword": first, "newPassword": second, "revokeOtherSessions": true });
    assert_eq!(ada.post("change-password", body).await.status(), 200);
    for password in [wrong, second] {
        ada.post("verify-password", json!({ "password": password })).await;
    }
    ada.post("set-password", json!({ "newPassword": third })).await;
    ada.post(
        "request-password-reset",
        json!({ "email": email, "redirectTo": "/choose" }),
    )
    .await;
    let link = ada.link(email).await;
    let followed = ada.follow(&link).await;
    let page = followed.head.one("location").unwrap().to_owned();
    let token = page.split("token=").nth(1).unwrap().to_owned();
    ada.get(&format!("/api/auth/reset-password/{token}/more")).await;
    ada.post(
        "reset-password",
        json!({ "token": format!("{token}x"), "newPassword": third }),
    )
    .await;
    let body = json!({ "token": token, "newPassword": third });
    assert_eq!(ada.post("reset-password", body.clone()).await.status(), 200);
    assert_eq!(ada.post("reset-password", body).await.status(), 400, "it works once");
    tables.push_str(&whole(db).await);
}

/// What a person changes, and the mails of it.
async fn account(ada: &mut Ada<'_>, password: &str, tables: &mut String, db: &Database) {
    let (email, new) = ("ada.secret@example.com", "ada.elsewhere@example.com");
    let body = json!({ "email": email, "password": password });
    assert_eq!(ada.post("sign-in/email", body).await.status(), 200);
    ada.post("update-user", json!({ "name": "Ada" })).await;
    ada.post("change-email", json!({ "newEmail": new })).await;
    let link = ada.link(email).await;
    ada.follow(&link).await;
    let link = ada.link(new).await;
    tables.push_str(&whole(db).await);
    ada.follow(&link).await;
    ada.post("delete-user", json!({ "password": "Zq7-wrong-pass-word" }))
        .await;
    ada.post("multi-session/revoke", json!({ "sessionToken": "a".repeat(43) }))
        .await;
    let sessions = ada.get("/api/auth/list-sessions").await.json();
    let own = sessions
        .as_array()
        .unwrap()
        .iter()
        .find(|session| session["current"] == true);
    let token = own.unwrap()["token"].as_str().unwrap().to_owned();
    ada.secrets.add("token", token.as_str());
    ada.post("revoke-session", json!({ "token": token })).await;
}

/// Signing in at a provider, and what it gives.
async fn at_a_provider(ada: &mut Ada<'_>, provider: &Provider, client: &Client) {
    ada.browser = Browser::default();
    let url = ada
        .browser
        .start(ada.gateway, client.name(), json!({ "callbackURL": "/home" }))
        .await;
    ada.secrets.of_start(&url);
    let back = ada.browser.agree(&url, SUB).await;
    let landed = ada.get(&back.target(ada.gateway)).await;
    assert_eq!(landed.head.one("location"), Some("/home"));
    let account = account_at(&ada.browser, ada.gateway, client.name()).await;
    for what in ["get-access-token", "refresh-token"] {
        let answer = ask(&ada.browser, ada.gateway, what, &account).await;
        ada.secrets.of_tokens(&answer);
    }
    ada.secrets.of_requests(provider).await;
    let id_token = provider.id_token(client, SUB, json!({})).await;
    ada.secrets.add("id_token", id_token.as_str());
    let body = json!({ "provider": client.name(), "idToken": { "token": id_token } });
    ada.post("sign-in/social", body).await;
    ada.post("sign-out", json!({})).await;
    // The same callback again: its state is used up.
    ada.get(&back.target(ada.gateway)).await;
}

/// Requests that are refused, with secrets where they don't belong.
async fn refused(ada: &mut Ada<'_>, passwords: [&str; 3]) {
    let [first, third, wrong] = passwords;
    let json_of = |password: &str| json!({ "email": "ada.elsewhere@example.com", "password": password }).to_string();
    let whole = json_of(first);
    let halved = whole[..whole.len() - 1].to_owned();
    for (media, body) in [
        ("application/json", halved),
        (
            "application/json",
            format!("{{\"password\":\"{first}\",\"password\":\"{wrong}\"}}"),
        ),
        (
            "application/json",
            json!({ "email": first, "password": [wrong] }).to_string(),
        ),
        ("application/json", json!(first).to_string()),
        ("text/plain", whole.clone()),
        (
            "application/x-www-form-urlencoded",
            format!("password={wrong}&password={wrong}"),
        ),
        (
            "application/json",
            json!({ "email": "a@b.example", "password": wrong.repeat(4000) }).to_string(),
        ),
    ] {
        let call = ada
            .gateway
            .call("POST", "/api/auth/sign-in/email")
            .header("Origin", SITE);
        let answer = ada.call(call.header("Content-Type", media).body(body)).await;
        assert!((400..500).contains(&answer.status()), "{media}: {}", answer.status());
    }
    let foreign = ada.gateway.call("POST", "/api/auth/sign-in/email");
    let foreign = foreign
        .header("Content-Type", "application/json")
        .header("Origin", "https://evil.example");
    assert_eq!(ada.call(foreign.body(json_of(third))).await.status(), 403);
    // A cookie with a signature that is not ours, another's name, and one in a head that can't be parsed.
    let token = Base64UrlUnpadded::encode_string(&[0x5a; 32]);
    let token = format!("Zq7{}", &token[3..]);
    ada.secrets.add("cookie", token.as_str());
    for cookie in [
        format!("{COOKIE}={token}.sig"),
        format!("{COOKIE}={token}; {COOKIE}={token}x"),
    ] {
        ada.call(ada.gateway.call("GET", "/api/me").header("Cookie", cookie))
            .await;
    }
    for head in [
        format!("GET /api/me HTTP/1.1\r\nHost: app.example.com\r\nCookie : {COOKIE}={token}\r\n\r\n"),
        format!("GET /api/me HTTP/1.1\r\nHost: app.example.com\r\nAuthorization: Bearer {token}\r\n folded\r\n\r\n"),
        format!("TRACE /api/me HTTP/1.1\r\nHost: app.example.com\r\nCookie: {COOKIE}={token}\r\n\r\n"),
        format!("GET /api/%zz?token={token} HTTP/1.1\r\nHost: app.example.com\r\n\r\n"),
    ] {
        let mut client = RawClient::connect(ada.gateway.addr()).await;
        client.send(head).await;
        let answer = client.answer_to("GET").await;
        assert!(answer.status() >= 400, "{}", answer.status());
        ada.note(&answer);
    }
}

/// What goes wrong behind the gateway.
async fn failing(ada: &mut Ada<'_>, db: &Database, upstream: &Upstream, password: &str) {
    let sign_in = json!({ "email": "ada.elsewhere@example.com", "password": password });
    assert_eq!(ada.post("sign-in/email", sign_in.clone()).await.status(), 200);
    // The upstream sends what is no answer, and then is gone.
    upstream.answer_and_close("/api/broken", "HTTP/1.1 2OO\r\n\r\n");
    assert_eq!(ada.get("/api/broken").await.status(), 502);
    upstream.stop_listening();
    ada.get("/api/me").await;
    // Postgres refuses rows, and quotes them in what it says.
    db.run("ALTER TABLE accounts ADD CONSTRAINT none CHECK (false) NOT VALID")
        .await;
    db.run("ALTER TABLE mail_outbox ADD CONSTRAINT none CHECK (false) NOT VALID")
        .await;
    let body = json!({ "name": "Grace", "email": "grace.secret@example.com", "password": password });
    assert_eq!(ada.post("sign-up/email", body).await.status(), 500);
    let body = json!({ "email": "ada.elsewhere@example.com" });
    assert_eq!(ada.post("request-password-reset", body).await.status(), 500);
    db.shut().await;
    ada.post("sign-in/email", sign_in).await;
    ada.get("/api/auth/get-session").await;
    db.reopen().await;
}

#[test]
fn a_secret_is_found_whichever_comes_first_and_however_it_is_spelt() {
    let token = "x1_y2-Z3abcdefghijklmnopqrstuvwxyz0123456789";
    let hex: String = canary::hex(token);
    for line in [
        format!("token={token}&more"),
        format!("a cookie: name={token}.signature; next"),
        format!("{{\"token\":\"{token}\"}}"),
        format!("({hex})"),
        format!("users (7,\"\\\\x{hex}\",t)"),
    ] {
        let mut book = Book::default();
        book.secret("a token", token);
        book.said("a line", "nothing of it");
        assert!(book.found().is_empty());
        book.said("a line", &line);
        assert_eq!(book.found().len(), 1, "{line}");

        let mut book = Book::default();
        book.said("a line", &line);
        assert!(book.found().is_empty());
        book.secret("a token", token);
        let found = book.found();
        assert!(found.len() == 1 && found[0].contains(&line), "{line}: {found:?}");
    }
}

#[test]
fn a_password_with_spaces_is_found_too() {
    for line in [
        "the password correct horse battery staple is wrong",
        "password=correct+horse+battery+staple",
        "?password=correct%20horse%20battery%20staple",
    ] {
        let mut book = Book::default();
        book.secret("a password", PASSWORD);
        book.said("a line", line);
        assert_eq!(book.found().len(), 1, "{line}");
    }
}

#[tokio::test]
async fn all_that_a_gateway_says_is_heard() {
    let before = canary::heard();
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    assert_eq!(gateway.get("/api/me").with(&ada).await.status(), 200);
    let rows = canary::rows(gateway.db().url())
        .await
        .expect("the database can be read");
    for table in [
        "users ",
        "accounts ",
        "user_sessions ",
        "mail_outbox ",
        "audit_log ",
        "one_time_tokens ",
    ] {
        assert!(rows.contains(table), "{table} is not in {rows}");
    }
    assert!(rows.contains("ada@example.com"), "{rows}");
    drop(gateway);
    let now = canary::heard();
    assert!(now.secrets > before.secrets, "{now:?}");
    assert!(now.events > before.events, "{now:?}");
    assert!(now.access_logs > before.access_logs, "{now:?}");
    assert!(now.metrics > before.metrics, "{now:?}");
    assert!(now.databases > before.databases, "{now:?}");
}

#[test]
fn a_configuration_prints_no_secret_and_its_errors_don_t_either() {
    let key = rcgen::KeyPair::generate().unwrap().serialize_pem();
    let secrets = "
        [auth]
        secret = ['Zq7-first-secret-of-the-configuration', 'Zq7-second-secret-of-the-configuration']
        [database]
        url = 'postgres://user:Zq7-database@localhost/app'
        [mail]
        smtp = 'smtps://user:Zq7-mail@localhost'
        [auth.oauth.github]
        client_id = 'an id'
        client_secret = 'Zq7-client'
        [auth.oauth.apple]
        client_id = 'com.example.app'
        team_id = 'ABCDE12345'
        key_id = 'FGHIJ67890'
        [server.acme]
        domains = ['app.example.com']
        agree_to_terms = true
        eab = { key_id = 'kid', hmac_key = 'Wnc3LWhtYWMta2V5LW9mLWVhYg' }
    ";
    let mut table: Table = whole_text().parse().unwrap();
    lay_over(&mut table, secrets.parse().unwrap());
    let apple = format!("[auth.oauth.apple]\nprivate_key = '''{key}'''");
    lay_over(&mut table, apple.parse().unwrap());
    let text = table.to_string();
    let config = config::parse(&text, "gateway.toml", &|_| None).unwrap_or_else(|errors| panic!("{errors}"));
    let mut secret: Vec<&str> = key.lines().filter(|line| !line.starts_with("-----")).collect();
    secret.extend(["Zq7", "Wnc3LWhtYWMta2V5LW9mLWVhYg"]);
    let shows = |text: &str| secret.iter().find(|secret| text.contains(**secret)).copied();
    assert_eq!(shows(&format!("{config:?} {config:#?}")), None);

    // Each of them wrong, in turn: the error says where, and not what.
    for (good, bad) in [
        ("\"Zq7-first-secret-of-the-configuration\"", "\"Zq7-short\""),
        ("\"Zq7-first-secret-of-the-configuration\"", "\"Zq7-without-an-end"),
        (
            "postgres://user:Zq7-database@localhost/app",
            "postgre://user:Zq7-database@localhost/app",
        ),
        (
            "smtps://user:Zq7-mail@localhost",
            "smtps://user:Zq7-mail@localhost/path",
        ),
        ("\"Zq7-client\"", "[\"Zq7-client\"]"),
        ("BEGIN PRIVATE KEY", "BEGIN PUBLIC KEY"),
        ("\"Wnc3LWhtYWMta2V5LW9mLWVhYg\"", "\"Wnc3LWhtYWMta2V5LW9mLWVhYg!\""),
        ("client_secret = ", "client_secrets = "),
    ] {
        assert!(text.contains(good), "{good} is not in {text}");
        let errors = config::parse(&text.replacen(good, bad, 1), "gateway.toml", &|_| None).expect_err(bad);
        assert_eq!(shows(&format!("{errors} {errors:?}")), None, "{bad}");
    }
}

/// No other process of the same user looks into the memory of a gateway.
#[tokio::test]
async fn the_memory_of_a_gateway_is_kept_from_dumps_and_debuggers_unless_it_is_to_be_shown() {
    use std::os::unix::fs::MetadataExt as _;

    for (allowed, over) in [(false, ""), (true, "[server]\ncore_dumps = true")] {
        let (db, mailbox, upstream) = (Database::fresh().await, Mailbox::start().await, Upstream::start().await);
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("gateway.toml");
        let text = Setup::default().with(over).text(&db, mailbox.addr(), upstream.addr());
        std::fs::write(&config, text).unwrap();
        let (program, ..) = Program::serve_as_somebody(&config).await;
        // The kernel gives the files of a process that is not to be looked into to root.
        let owner = |name: &str| {
            std::fs::metadata(format!("/proc/{}/{name}", program.id()))
                .unwrap()
                .uid()
        };
        let itself = owner("");
        assert_ne!(itself, 0, "it runs as somebody");
        assert_eq!(owner("mem"), if allowed { itself } else { 0 }, "core_dumps = {allowed}");
    }
}
