//! CSRF, CORS: what the page of another site can have a browser do.

use http::Method;
use serde_json::json;
use vestibule::auth::ROUTES;

use super::{BOTH, ask};
use crate::harness::{Gateway, Setup, client::Call, people::PASSWORD};

/// What browsers say of requests that a page elsewhere makes.
const ELSEWHERE: [&[(&str, &str)]; 10] = [
    &[("Origin", "https://evil.example")],
    &[
        ("Origin", "https://evil.example"),
        ("Sec-Fetch-Site", "cross-site"),
        ("Sec-Fetch-Mode", "navigate"),
    ],
    &[
        ("Origin", "https://evil.example"),
        ("Sec-Fetch-Site", "cross-site"),
        ("Sec-Fetch-Mode", "no-cors"),
    ],
    &[("Origin", "null"), ("Sec-Fetch-Site", "cross-site")],
    &[("Origin", "null")],
    &[
        ("Origin", "https://sub.app.example.com"),
        ("Sec-Fetch-Site", "same-site"),
    ],
    &[("Origin", "http://app.example.com")],
    &[
        ("Origin", "https://app.example.com.evil.example"),
        ("Referer", "https://app.example.com/"),
    ],
    &[
        ("Origin", "https://app.example.com"),
        ("Origin", "https://evil.example"),
    ],
    &[("Referer", "https://evil.example/https://app.example.com/")],
];

#[tokio::test]
async fn csrf_01_no_page_elsewhere_signs_a_browser_in() {
    let gateway = Gateway::start().await;
    gateway.verified("eve@example.com").await;
    let form = format!("email=eve%40example.com&password={}", PASSWORD.replace(' ', "+"));
    let object = json!({ "email": "eve@example.com", "password": PASSWORD }).to_string();
    let ada = gateway.signed_in("ada@example.com").await;
    for path in ["/api/auth/sign-in/email", "/api/auth/signin"] {
        for fields in ELSEWHERE {
            for (media, body) in [
                ("application/x-www-form-urlencoded", &form),
                ("application/json", &object),
                ("text/plain", &object),
                ("multipart/form-data; boundary=x", &form),
                ("application/json; charset=utf-8", &object),
            ] {
                for cookie in [None, Some(&ada.cookie)] {
                    let mut call = gateway.post(path).header("Content-Type", media).body(body.clone());
                    call = fields.iter().fold(call, |call, (name, value)| call.header(name, value));
                    if let Some(cookie) = cookie {
                        call = call.header("Cookie", cookie);
                    }
                    let answer = call.await;
                    assert!(
                        matches!(answer.status(), 403 | 415),
                        "{fields:?} {media}: {}",
                        answer.text()
                    );
                    assert!(!answer.head.has("set-cookie"), "{fields:?} {media}");
                }
            }
        }
    }
    // Nor is a mark left there by which a mailed link, or a provider's answer, would sign it in.
    for (path, body) in [
        ("send-verification-email", json!({ "email": "eve@example.com" })),
        ("sign-in/social", json!({ "provider": "google" })),
        ("sign-in/oauth2", json!({ "providerId": "google" })),
    ] {
        for fields in ELSEWHERE {
            let call = gateway.post(&format!("/api/auth/{path}"));
            let call = fields.iter().fold(call, |call, (name, value)| call.header(name, value));
            let answer = call.json(&body).await;
            assert_eq!(answer.status(), 403, "{path} {fields:?}: {}", answer.text());
            assert!(!answer.head.has("set-cookie"), "{path} {fields:?}");
        }
    }
    let sessions = "SELECT count(*) FROM user_sessions s JOIN users u ON u.id = s.user_id WHERE u.email LIKE 'eve%'";
    assert_eq!(gateway.db().count(sessions).await, 0);
    for fields in [
        &[("Origin", "https://app.example.com")][..],
        &[
            ("Origin", "https://app.example.com"),
            ("Sec-Fetch-Site", "same-origin"),
            ("Sec-Fetch-Mode", "cors"),
        ],
        &[],
    ] {
        let call = gateway
            .post("/api/auth/sign-in/email")
            .header("Content-Type", "application/json")
            .body(object.clone());
        let answer = fields
            .iter()
            .fold(call, |call, (name, value)| call.header(name, value))
            .await;
        assert_eq!(answer.status(), 200, "{fields:?}: {}", answer.text());
    }
}

/// A link or an image can be made to ask for anything with GET: of all that changes something nothing answers to it.
#[tokio::test]
async fn csrf_04_what_changes_something_is_not_done_by_a_link() {
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    let reads = |path: &str| {
        ROUTES
            .iter()
            .any(|route| route.method == Method::GET && route.path == path)
    };
    let mut tried = 0;
    for route in ROUTES
        .iter()
        .filter(|route| route.method == Method::POST && !reads(route.path))
    {
        let path = format!("/api/auth{}", route.path.replace(":provider", "google"));
        for query in ["", "?_method=POST", "?email=eve%40example.com&password=x"] {
            for method in ["GET", "HEAD", "OPTIONS"] {
                let fields = [
                    ("Cookie", ada.cookie.as_str()),
                    ("X-HTTP-Method-Override", "POST"),
                    ("X-Method-Override", "POST"),
                    ("Sec-Fetch-Site", "cross-site"),
                    ("Sec-Fetch-Dest", "image"),
                ];
                for via in BOTH {
                    let saw = ask(&gateway, via, method, &format!("{path}{query}"), &fields).await;
                    assert_eq!(saw.status, 404, "{via:?} {method} {path}{query}");
                    assert!(!saw.has("set-cookie"), "{path}");
                }
                tried += 1;
            }
        }
    }
    assert!(tried > 100, "{tried}");
    let me = gateway.get("/api/auth/get-session").with(&ada).await.json();
    assert_eq!(me["user"]["name"], json!("Ada Lovelace"));
    assert_eq!(
        gateway.get("/api/me").with(&ada).await.status(),
        200,
        "and the session goes on"
    );
}

/// A form that a page elsewhere sends brings no cookie along (`SameSite`), and its answer's cookies are taken all the same.
#[tokio::test]
async fn csrf_04_no_page_elsewhere_sets_or_clears_a_cookie() {
    const OBJECT: &str = r#"{"email":"ada@example.com","provider":"google"}"#;
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    for fields in ELSEWHERE {
        for via in BOTH {
            let saw = ask(&gateway, via, "POST", "/api/auth/sign-out", fields).await;
            assert_eq!(saw.status, 403, "{via:?} {fields:?}: {}", saw.text());
            assert!(!saw.has("set-cookie"), "{via:?} {fields:?}");
        }
        for route in ROUTES.iter().filter(|route| route.method == Method::POST) {
            let path = format!("/api/auth{}", route.path.replace(":provider", "google"));
            // All that a page can have sent to another site without a preflight.
            for (media, body) in [
                (None, ""),
                (None, OBJECT),
                (Some("text/plain"), OBJECT),
                (
                    Some("application/x-www-form-urlencoded"),
                    "email=ada%40example.com&provider=google",
                ),
                (Some("multipart/form-data; boundary=x"), ""),
            ] {
                let mut call = gateway.post(&path).body(body);
                if let Some(media) = media {
                    call = call.header("Content-Type", media);
                }
                call = fields.iter().fold(call, |call, (name, value)| call.header(name, value));
                let answer = call.undescribed().await;
                assert!(!answer.head.has("set-cookie"), "{path} {media:?} {fields:?}");
            }
        }
    }
    assert_eq!(gateway.get("/api/me").with(&ada).await.status(), 200);
    // Our own pages and programs that are no browser may, cookie or none; and whoever shows a token, wherever they are.
    let bearer = format!("Bearer {}", ada.token);
    for fields in [
        &[][..],
        &[("Origin", "https://app.example.com")],
        &[("Sec-Fetch-Site", "same-origin"), ("Sec-Fetch-Mode", "navigate")],
        &[("Sec-Fetch-Mode", "cors")],
        &[("Origin", "https://app.example.com"), ("Cookie", &ada.cookie)],
        &[("Origin", "capacitor://localhost"), ("Authorization", &bearer)],
    ] {
        let saw = ask(&gateway, BOTH[0], "POST", "/api/auth/sign-out", fields).await;
        assert_eq!(saw.status, 200, "{fields:?}: {}", saw.text());
        assert!(saw.has("set-cookie"), "{fields:?}");
    }
    assert_eq!(gateway.get("/api/me").with(&ada).await.status(), 401);
}

#[tokio::test]
async fn csrf_06_no_page_elsewhere_writes_with_somebodys_cookie() {
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    let bearer = format!("Bearer {}", ada.token);
    for method in ["POST", "PUT", "PATCH", "DELETE", "PROPFIND", "MKCOL", "LOCK", "QUERY"] {
        for fields in ELSEWHERE {
            for via in BOTH {
                for path in ["/api/items", "/optional/items"] {
                    let with = |name, value| [fields, &[(name, value)]].concat();
                    let saw = ask(&gateway, via, method, path, &with("Cookie", &ada.cookie)).await;
                    let unknown = saw.status == 501;
                    assert!(
                        saw.status == 403 || unknown,
                        "{via:?} {method} {path} {fields:?}: {}",
                        saw.status
                    );
                    assert_eq!(gateway.upstream().seen(path), 0, "{via:?} {method} {path} {fields:?}");
                    if unknown || method != "POST" {
                        continue;
                    }
                    // A program's token does not come by itself.
                    let target = format!("{path}/of-a-program");
                    let saw = ask(&gateway, via, method, &target, &with("Authorization", &bearer)).await;
                    assert_eq!(saw.status, 200, "{via:?} {method} {fields:?}");
                    assert_eq!(gateway.upstream().last().head.one("x-user-id"), Some(ada.id.as_str()));
                }
            }
        }
    }
    // Both at once: a page elsewhere can't add a token, but the cookie is not what let it in.
    let fields = [
        ("Origin", "https://evil.example"),
        ("Cookie", ada.cookie.as_str()),
        ("Authorization", bearer.as_str()),
    ];
    assert_eq!(ask(&gateway, BOTH[0], "POST", "/api/both", &fields).await.status, 200);
    // A token that is nobody's leaves the cookie, and what goes for it.
    let nobodys = format!("Bearer {}", "q".repeat(43));
    let fields = [
        ("Origin", "https://evil.example"),
        ("Cookie", ada.cookie.as_str()),
        ("Authorization", nobodys.as_str()),
    ];
    assert_eq!(
        ask(&gateway, BOTH[0], "POST", "/api/neither", &fields).await.status,
        403
    );
    for fields in [
        &[("Origin", "https://app.example.com")][..],
        &[("Sec-Fetch-Site", "same-origin")],
        &[("Sec-Fetch-Site", "none")],
        &[("Referer", "https://app.example.com/x")],
        &[],
    ] {
        for via in BOTH {
            let fields = [fields, &[("Cookie", ada.cookie.as_str())]].concat();
            assert_eq!(
                ask(&gateway, via, "DELETE", "/api/own", &fields).await.status,
                200,
                "{fields:?}"
            );
        }
    }
}

/// Nothing of ours, and nothing behind us, may be read by a page that nobody listed.
#[tokio::test]
async fn cors_01_no_origin_is_named_that_is_not_listed() {
    let setup =
        Setup::default().with("[auth]\ntrusted_origins = ['https://friend.example', 'https://*.tenants.example']");
    let gateway = setup.start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    let echo = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nAccess-Control-Allow-Origin: https://evil.example\r\n\
                Access-Control-Allow-Credentials: true\r\n\r\n";
    gateway.upstream().answer("/api/x", echo);
    gateway.upstream().answer("/public/x", echo);
    let strangers = [
        "https://evil.example",
        "null",
        "*",
        "https://friend.example.evil.example",
        "https://evilfriend.example",
        "https://friend.example:444",
        "http://friend.example",
        "https://friend.example/",
        "https://friend.example, https://evil.example",
        "HTTPS://FRIEND.EXAMPLE",
        "https://tenants.example",
        "https://evil-tenants.example",
        "https://a.tenants.example.evil.example",
        "https://a.tenants.example:8443",
        "https://a@b.tenants.example",
        "https://evil.example#.tenants.example",
        "https://evil.example/.tenants.example",
        "file://",
    ];
    let own: Vec<(String, String)> = ROUTES
        .iter()
        .map(|route| {
            let path = route.path.replace(":provider", "google").replace(":token", "abc");
            (route.method.to_string(), format!("/api/auth{path}"))
        })
        .collect();
    let proxied =
        ["/api/x", "/public/x", "/admin/x", "/nothing", "/public/%zz"].map(|path| ("GET".to_owned(), path.to_owned()));
    for origin in strangers {
        for (method, path) in own.iter().chain(&proxied) {
            let fields = [("Origin", origin), ("Cookie", ada.cookie.as_str())];
            let saw = ask(&gateway, BOTH[0], method, path, &fields).await;
            if path.ends_with("/jwks") {
                // Keys are for everybody, and nobody is told that theirs was a cookie.
                assert_eq!(saw.one("access-control-allow-origin"), Some("*"));
                assert!(!saw.has("access-control-allow-credentials"));
                continue;
            }
            assert!(
                !saw.has("access-control-allow-origin"),
                "{method} {path} for {origin}: {:?}",
                saw.fields
            );
            assert!(
                !saw.has("access-control-allow-credentials"),
                "{method} {path} for {origin}"
            );
            let fields = [("Origin", origin), ("Access-Control-Request-Method", method.as_str())];
            let saw = ask(&gateway, BOTH[0], "OPTIONS", path, &fields).await;
            assert!(
                !saw.has("access-control-allow-origin"),
                "preflight of {method} {path} for {origin}"
            );
        }
    }
    for origin in ["https://friend.example", "https://a.tenants.example"] {
        for path in ["/api/auth/ok", "/api/x", "/public/x"] {
            for via in BOTH {
                let fields = [("Origin", origin), ("Cookie", ada.cookie.as_str())];
                let saw = ask(&gateway, via, "GET", path, &fields).await;
                assert_eq!(saw.one("access-control-allow-origin"), Some(origin), "{path}");
            }
        }
    }
}

/// A tenant's page, which the gateway serves as well, on a host to which browsers send everybody's session cookie.
#[tokio::test]
async fn csrf_06_a_page_of_a_host_below_the_cookie_s_domain_acts_for_nobody() {
    let routes = "[auth]\ntrusted_origins = ['https://friend.example.com']\nsession.cookie.domain = 'example.com'\n\
                  [[routes]]\npath = '/api/*'\nupstream = 'app'\n\
                  [[routes]]\npath = '/shop/*'\nhost = '*.shops.example.com'\nupstream = 'app'\n\
                  [[routes]]\npath = '/friends/*'\nhost = 'friend.example.com'\nupstream = 'app'";
    let gateway = Setup::default().with(routes).start().await;
    gateway.verified("ada@example.com").await;
    let signed_in = gateway.sign_in("ada@example.com").await;
    let cookie = signed_in.set_cookie("__Secure-vestibule.session_token").unwrap();
    let cookie = cookie.split(';').next().unwrap();
    let tenant = "https://evil.shops.example.com";
    let ask = |site: &str, method: &str, path: &str, origin: &str| {
        let call = Call::new(gateway.addr(), site, method, path).header("Cookie", cookie);
        call.header("Origin", origin).header("Sec-Fetch-Site", "same-origin")
    };
    for origin in [tenant, "null"] {
        for method in ["POST", "DELETE", "PUT"] {
            let refused = ask(tenant, method, "/api/transfer", origin).body("x").await;
            assert_eq!(refused.status(), 403, "{method} {origin}");
        }
        for path in [
            "/api/auth/update-user",
            "/api/auth/sign-out",
            "/api/auth/revoke-sessions",
        ] {
            let refused = ask(tenant, "POST", path, origin).json(&json!({ "name": "Eve" })).await;
            assert!(matches!(refused.status(), 401 | 403), "{path} {origin}");
            assert!(!refused.head.has("set-cookie"), "{path} {origin}");
        }
    }
    let socket = ask(tenant, "GET", "/api/ws", tenant)
        .header("Connection", "Upgrade")
        .header("Upgrade", "websocket")
        .header("Sec-WebSocket-Version", "13")
        .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==");
    assert_eq!(socket.await.status(), 403);
    assert_eq!(gateway.upstream().requests().len(), 0);
    for path in ["/api/auth/get-session", "/api/auth/me", "/api/auth/verify-token"] {
        let answer = ask(tenant, "GET", path, tenant).await;
        assert!(!answer.text().contains("ada@example.com"), "{path}: {}", answer.text());
    }
    let who = gateway.get("/api/auth/get-session").header("Cookie", cookie).await;
    assert_eq!(who.json()["user"]["email"], "ada@example.com", "her session goes on");

    // Its own routes are its own, and pages that are trusted act as ever.
    let own = ask(tenant, "POST", "/shop/basket", tenant).body("x").await;
    assert_eq!(own.status(), 200);
    let friend = "https://friend.example.com";
    for origin in [friend, "null"] {
        assert_eq!(ask(friend, "POST", "/api/x", origin).body("x").await.status(), 200);
    }
    let who = ask(friend, "GET", "/api/auth/get-session", friend).await;
    assert_eq!(who.json()["user"]["email"], "ada@example.com");
}
