//! REDIR, SSRF: where people are sent, and whom the gateway itself speaks to, no request chooses.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use serde_json::{Value, json};
use tokio::net::TcpListener;
use url::Url;

use super::{BOTH, Via, ask, sent};
use crate::harness::{Gateway, Setup, client::Response, gateway::SITE, people::PASSWORD};

/// Targets that some browser reads as another origin, or as no address at all.
const HOSTILE: [&str; 44] = [
    "//evil.example",
    "///evil.example",
    "////evil.example/x",
    "/\\evil.example",
    "\\/evil.example",
    "\\\\evil.example",
    "/\\/evil.example",
    "/%09/evil.example",
    "/\t/evil.example",
    "/\n/evil.example",
    "/\r/evil.example",
    "\t//evil.example",
    " //evil.example",
    "/ /evil.example\r\nX: y",
    "/%0d%0aLocation:%20https://evil.example",
    "/%2fevil.example",
    "/%5cevil.example",
    "/.//evil.example\\",
    "https:evil.example",
    "https:/evil.example",
    "https:\\\\evil.example",
    "https:///evil.example",
    "http:evil.example",
    "https://evil.example",
    "HTTPS://EVIL.EXAMPLE/",
    "https://app.example.com@evil.example",
    "https://app.example.com:443@evil.example/",
    "https://app.example.com%40evil.example",
    "https://app.example.com.evil.example",
    "https://app.example.com\\.evil.example",
    "https://app.example.com\\@evil.example",
    "https://evil.example\\.app.example.com",
    "https://evil.example#.app.example.com",
    "https://evil.example?.app.example.com",
    "https://evilapp.example.com",
    "https://app.example.com:8443/",
    "http://app.example.com/",
    "javascript:alert(1)",
    "JaVaScRiPt:alert(1)",
    "java\nscript:alert(1)",
    "data:text/html,<script>alert(1)</script>",
    "vbscript:x",
    "blob:https://app.example.com/x",
    "evil.example",
];

/// What is not where anybody may be sent, though it looks much like it (REDIR-03).
const SUFFIXES: [&str; 6] = [
    "https://evilexample.com/",
    "https://example.com.evil.example/",
    "https://xpartner.example/",
    "https://partner.example.evil.example/",
    "https://partner.example:444/",
    "https://a.partner.example/",
];

/// Whether a browser at `at` that is sent to `location` stays on this origin.
#[track_caller]
fn stays(at: &str, location: &str) {
    let to = Url::parse(SITE).unwrap().join(location).unwrap();
    assert_eq!(
        to.origin().ascii_serialization(),
        SITE,
        "{at} sends people to {location}"
    );
}

/// Every field of the API that says where somebody is to end.
fn asked(target: &str, token: &str) -> Vec<(&'static str, String, Option<Value>)> {
    let query: String = url::form_urlencoded::byte_serialize(target.as_bytes()).collect();
    let email = "ada@example.com";
    let post = |path: &'static str, body: Value| (path, String::new(), Some(body));
    let mut all = vec![
        post(
            "/sign-in/email",
            json!({ "email": email, "password": PASSWORD, "callbackURL": target }),
        ),
        post(
            "/sign-up/email",
            json!({ "name": "A", "email": email, "password": PASSWORD, "callbackURL": target }),
        ),
        post(
            "/send-verification-email",
            json!({ "email": email, "callbackURL": target }),
        ),
        post(
            "/request-password-reset",
            json!({ "email": email, "redirectTo": target }),
        ),
        post(
            "/change-email",
            json!({ "newEmail": "new@example.com", "callbackURL": target }),
        ),
        post("/delete-user", json!({ "callbackURL": target })),
        ("/verify-email", format!("?token={token}&callbackURL={query}"), None),
        ("/reset-password/abc", format!("?callbackURL={query}"), None),
        (
            "/delete-user/callback",
            format!("?token={token}&callbackURL={query}"),
            None,
        ),
    ];
    for field in ["callbackURL", "errorCallbackURL", "newUserCallbackURL"] {
        for path in ["/sign-in/social", "/link-social"] {
            all.push(post(
                path,
                json!({ "provider": "google", "callbackURL": "/", field: target }),
            ));
        }
        for path in ["/sign-in/oauth2", "/oauth2/link"] {
            all.push(post(
                path,
                json!({ "providerId": "google", "callbackURL": "/", field: target }),
            ));
        }
    }
    all
}

async fn put(gateway: &Gateway, cookie: &str, (path, query, body): &(&'static str, String, Option<Value>)) -> Response {
    let target = format!("/api/auth{path}{query}");
    match body {
        Some(body) => {
            let call = gateway
                .post(&target)
                .header("Cookie", cookie)
                .header("Origin", gateway.site());
            call.json(body).await
        }
        None => gateway.get(&target).header("Cookie", cookie).await,
    }
}

#[tokio::test]
async fn redir_01_redir_03_no_endpoint_sends_anybody_elsewhere() {
    let setup = Setup::default().with(
        "[auth]\ntrusted_origins = ['https://partner.example']\n[auth.oauth.google]\nclient_id = 'x'\nclient_secret = 'y'",
    );
    let gateway = setup.start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    for target in HOSTILE.iter().chain(&SUFFIXES) {
        for asked in asked(target, "x") {
            let answer = put(&gateway, &ada.cookie, &asked).await;
            let at = format!("{}{} for {target:?}", asked.0, asked.1);
            assert!(
                matches!(answer.status(), 400 | 403),
                "{at}: {} {}",
                answer.status(),
                answer.text()
            );
            assert!(
                !answer.head.has("location") && !answer.head.has("set-cookie"),
                "{at}: {:?}",
                answer.head
            );
        }
    }
    // Nobody was mailed such a target either.
    assert_eq!(
        gateway
            .db()
            .count("SELECT count(*) FROM mail_outbox WHERE body_text LIKE '%evil%'")
            .await,
        0
    );
    for target in [
        "/home",
        "/home?x=//evil.example#y",
        "https://app.example.com/x",
        "https://partner.example/back",
        "",
    ] {
        let body = json!({ "email": "ada@example.com", "redirectTo": target });
        let answer = gateway.post("/api/auth/request-password-reset").json(&body).await;
        assert_eq!(answer.status(), 200, "{target}: {}", answer.text());
        let body = json!({ "email": "ada@example.com", "password": PASSWORD, "callbackURL": target });
        assert_eq!(
            gateway.post("/api/auth/sign-in/email").json(&body).await.status(),
            200,
            "{target}"
        );
    }
}

/// The way to the sign-in page and back: what is put there is a path of this origin, whatever was asked for.
#[tokio::test]
async fn redir_01_the_way_back_from_the_sign_in_page_stays_here() {
    let routes = "
        auth.pages.sign_in = '/sign-in'
        [[routes]]
        path = '/*'
        upstream = 'app'
        on_denied = 'auto'
        [[routes]]
        path = '/sign-in'
        upstream = 'app'
        auth = 'public'
    ";
    let gateway = Setup::default().with(routes).start().await;
    let mut sent_on = 0;
    for target in [
        "/app/x?next=https://evil.example",
        "//evil.example/x",
        "///evil.example",
        "/.//evil.example",
        "/%09/evil.example",
        "/x/..//evil.example",
        "/%2e//evil.example/",
        "/@evil.example",
        "/x?return_to=//evil.example&return_to=https://evil.example",
        "/x?%0d%0aSet-Cookie:a=b",
        "/https://evil.example",
        "https://app.example.com//evil.example",
    ] {
        let head = format!(
            "GET {target} HTTP/1.1\r\nHost: app.example.com\r\nX-Forwarded-Host: evil.example\r\nForwarded: host=evil.example\r\n\
             Sec-Fetch-Mode: navigate\r\nAccept: text/html\r\n\r\n"
        );
        let (answer, _) = sent(&gateway, head).await;
        assert!(matches!(answer.status(), 303 | 400), "{target}: {}", answer.status());
        let Some(location) = answer.head.one("location") else {
            continue;
        };
        sent_on += 1;
        stays(target, location);
        let page = Url::parse(SITE).unwrap().join(location).unwrap();
        assert_eq!(page.path(), "/sign-in", "{target}");
        let back: Vec<_> = page.query_pairs().filter(|(name, _)| name == "return_to").collect();
        let [(_, back)] = &back[..] else {
            panic!("{target}: {location}")
        };
        assert!(back.starts_with('/') && !back.starts_with("//"), "{target}: {back}");
        stays(target, back);
    }
    assert!(sent_on > 8, "{sent_on}");
}

/// Routes that send people on choose where to, not the request.
#[tokio::test]
async fn redir_01_a_route_that_redirects_leads_where_it_says() {
    let routes = r"
        routes = [
            { path = '/old/*', auth = 'public', redirect = { to = '/new/' } },
            { path = '/files/*', auth = 'public', serve = 'src' },
        ]";
    let gateway = Setup::default().with(routes).start().await;
    for tail in [
        "/evil.example",
        "//evil.example",
        "/%2e%2e//evil.example",
        "/@evil.example",
        "/;/evil.example",
        "/?//evil.example",
        "",
    ] {
        for path in [format!("/old{tail}"), format!("/files{tail}")] {
            for via in BOTH {
                let fields = [("X-Forwarded-Host", "evil.example"), ("Forwarded", "host=evil.example")];
                let saw = ask(&gateway, via, "GET", &path, &fields).await;
                if let Some(location) = saw.one("location") {
                    stays(&path, location);
                }
            }
        }
    }
}

/// A port on this machine that nobody has a reason to open.
async fn trap() -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let opened = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&opened);
    tokio::spawn(async move {
        while listener.accept().await.is_ok() {
            count.fetch_add(1, Ordering::SeqCst);
        }
    });
    (port, opened)
}

#[tokio::test]
async fn ssrf_02_method_02_only_what_is_configured_is_ever_dialled() {
    let (port, opened) = trap().await;
    let trap = format!("127.0.0.1:{port}");
    // For whoever serves every host, too.
    for hosts in ["[]", "['*']"] {
        let gateway = Setup::default()
            .with(&format!("[server]\nhosts = {hosts}"))
            .start()
            .await;
        let ada = gateway.signed_in("ada@example.com").await;
        for (line, fields) in [
            (format!("GET http://{trap}/public/x"), format!("Host: {trap}")),
            (
                format!("GET http://{trap}/public/x"),
                "Host: app.example.com".to_owned(),
            ),
            (
                format!("GET http://app.example.com@{trap}/public/x"),
                format!("Host: {trap}"),
            ),
            (format!("CONNECT {trap}"), format!("Host: {trap}")),
            (format!("CONNECT http://{trap}/"), format!("Host: {trap}")),
            ("CONNECT /public/x".to_owned(), "Host: app.example.com".to_owned()),
            ("GET /public/x".to_owned(), format!("Host: {trap}")),
            (format!("GET //{trap}/public/x"), "Host: app.example.com".to_owned()),
            (format!("GET /public/@{trap}/"), "Host: app.example.com".to_owned()),
            (
                format!("GET /public/http://{trap}/"),
                "Host: app.example.com".to_owned(),
            ),
            (format!("GET @{trap}/public/x"), "Host: app.example.com".to_owned()),
            (format!("GET {trap}"), "Host: app.example.com".to_owned()),
            (
                "GET /public/x".to_owned(),
                format!("Host: app.example.com\r\nX-Forwarded-Host: {trap}"),
            ),
            (
                "GET /public/x".to_owned(),
                format!("Host: app.example.com\r\nForwarded: host={trap};for={trap}"),
            ),
            (
                "GET /public/x".to_owned(),
                format!("Host: app.example.com\r\nX-Original-Host: {trap}\r\nX-Host: {trap}"),
            ),
            (
                "GET /public/x".to_owned(),
                format!("Host: app.example.com\r\nDestination: http://{trap}/\r\nX-Accel-Redirect: http://{trap}/"),
            ),
            (
                "GET /public/x".to_owned(),
                format!("Host: app.example.com\r\nProxy: http://{trap}/\r\nX-Forwarded-Server: {trap}"),
            ),
        ] {
            let (answer, _) = sent(&gateway, format!("{line} HTTP/1.1\r\n{fields}\r\n\r\n")).await;
            assert!(answer.status() < 500, "{line} {fields}: {}", answer.status());
            if line.starts_with("CONNECT") {
                assert!(matches!(answer.status(), 400 | 405), "{line}: {}", answer.status());
            }
            if answer.status() == 200 {
                let head = gateway.upstream().last().head;
                assert!(head.target().starts_with("/public/"), "{line} {fields}: {head:?}");
            }
        }
        for url in [format!("http://{trap}/"), format!("http://{trap}/x.png")] {
            let update = json!({ "name": "A", "image": url });
            gateway.post("/api/auth/update-user").with(&ada).json(&update).await;
            let body = json!({ "provider": "google", "callbackURL": url, "idToken": { "token": "e30.e30.e30" } });
            gateway.post("/api/auth/sign-in/social").json(&body).await;
            ask(
                &gateway,
                Via::Http1,
                "GET",
                &format!("/api/auth/callback/google?iss={url}&code=x&state=y"),
                &[],
            )
            .await;
        }
        // An answer does not choose either.
        let answer = format!(
            "HTTP/1.1 302 Found\r\nLocation: http://{trap}/\r\nX-Accel-Redirect: http://{trap}/\r\nContent-Length: 0\r\n\r\n"
        );
        gateway.upstream().answer("/public/leads", answer);
        assert_eq!(gateway.get("/public/leads").await.status(), 302);
    }
    assert_eq!(opened.load(Ordering::SeqCst), 0);
}
