//! SPOOF: nobody but the gateway says who somebody is.

use serde_json::json;

use super::{BOTH, ask, refused_and_closed};
use crate::harness::{Gateway, Setup, people::PASSWORD};

/// All that may stand in a field's name and is neither letter nor digit (RFC 9110, 5.6.2): some back end takes each of
/// these for another.
const MARKS: &str = "!#$%&'*+.^_`|~-";

/// Names under which only the gateway speaks, whichever preset is in force.
const OURS: [&str; 51] = [
    "x-user-id",
    "x-user-email",
    "x-user-email-verified",
    "x-user-name",
    "x-user-roles",
    "x-session-id",
    "x-auth-time",
    "x-auth-methods",
    "remote-user",
    "remote-email",
    "remote-groups",
    "x-remote-user",
    "x-forwarded-user",
    "x-forwarded-email",
    "x-forwarded-groups",
    "x-forwarded-access-token",
    "x-forwarded-preferred-username",
    "x-auth-request-user",
    "x-auth-request-email",
    "x-auth-request-access-token",
    "x-vestibule-assertion",
    "x-vestibule-anything",
    "client-cert",
    "client-cert-chain",
    "x-client-cert-subject",
    "x-forwarded-client-cert",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-forwarded-uri",
    "x-forwarded-prefix",
    "x-real-ip",
    "forwarded",
    "x-original-url",
    "x-rewrite-url",
    "x-http-method-override",
    // Where an application is mounted, and what a framework's parts tell each other (CVE-2025-29927).
    "script-name",
    "x-script-name",
    "path-info",
    "x-middleware-subrequest",
    "x-middleware-rewrite",
    "x-matched-path",
    "x-invoke-path",
    "x-now-route-matches",
    "x-react-router-spa-mode",
    "x-react-router-prerender-data",
    "x-sendfile-type",
    "x-accel-mapping",
    "x-override-url",
    "x-envoy-original-path",
    "x-envoy-internal",
];

/// What a client writes into them.
const FORGED: &str = "forged-by-the-client";

/// A name with each of its dashes as each mark in turn, all of them as one, and other letters' cases.
fn spellings(name: &str) -> Vec<String> {
    let mut spellings = vec![name.to_owned(), name.to_ascii_uppercase()];
    let dashes: Vec<usize> = name.match_indices('-').map(|(at, _)| at).collect();
    for mark in MARKS.chars() {
        let mark = mark.to_string();
        spellings.push(name.replace('-', &mark));
        for &at in &dashes {
            let mut one = name.to_owned();
            one.replace_range(at..=at, &mark);
            spellings.push(one.to_ascii_uppercase());
        }
    }
    spellings.sort_unstable();
    spellings.dedup();
    spellings
}

#[tokio::test]
async fn spoof_02_spoof_04_spoof_06_no_spelling_of_a_name_that_is_ours_gets_through_anywhere() {
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    let names: Vec<String> = OURS.iter().flat_map(|name| spellings(name)).collect();
    let mut sent = 0;
    for names in names.chunks(60) {
        for via in BOTH {
            for (path, cookie) in [
                ("/public/x", None),
                ("/optional/x", None),
                ("/api/me", Some(ada.cookie.as_str())),
            ] {
                let cookie = cookie.map(|cookie| ("Cookie", cookie));
                // Of `Host` and its like HTTP/2 has another idea; none of these is one.
                let forged = names.iter().map(|name| (name.as_str(), FORGED));
                let fields: Vec<_> = forged.chain(cookie).chain([("X-Passes", "it does")]).collect();
                let saw = ask(&gateway, via, "GET", path, &fields).await;
                assert_eq!(saw.status, 200, "{via:?} {path} {names:?}: {}", saw.text());
                let head = gateway.upstream().last().head;
                let raw = String::from_utf8_lossy(&head.raw).into_owned();
                assert!(!raw.contains(FORGED), "{via:?} {path}: {raw}");
                assert_eq!(head.one("x-passes"), Some("it does"));
                let id = cookie.map(|_| ada.id.as_str());
                assert_eq!(head.one("x-user-id"), id, "{via:?} {path}");
                sent += names.len();
            }
        }
    }
    assert!(sent > 5000, "{sent}");
}

#[tokio::test]
async fn spoof_02_what_only_looks_a_little_like_one_of_ours_passes() {
    let gateway = Gateway::start().await;
    let names = [
        "X-User",
        "X-User-Id-Hint",
        "X-Userid",
        "X-My-User-Id",
        "X-Request-Start",
        "X-Requested-With",
        "X-Correlation-Id",
        "X-Forward-To",
        "X-Original",
        "Remote-Control",
        "User-Agent",
        "Traceparent",
        "X_Custom_Field",
        "X-Auth-Token",
        "X-Auth-User",
        "X-Auth-Key",
        "X-Accel-Buffering",
        "If-Match",
        "Origin-Trial",
        "Sec-Fetch-User",
        "SM-Token",
        "X-Credentials",
    ];
    for via in BOTH {
        let fields: Vec<_> = names.iter().map(|name| (*name, "theirs")).collect();
        assert_eq!(ask(&gateway, via, "GET", "/public/x", &fields).await.status, 200);
        let head = gateway.upstream().last().head;
        for name in names {
            assert_eq!(head.one(name), Some("theirs"), "{via:?}: {name}");
        }
    }
}

#[tokio::test]
async fn spoof_02_names_that_the_operator_chose_are_as_safe() {
    let setup = Setup::default().with("[identity]\nuser_id = 'x-tenant-Person'\nroles = 'Groups'\nemail = 'X_Mail'");
    let gateway = setup.start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    for name in ["x-tenant-person", "groups", "x-mail", "x-user-id", "remote-user"] {
        for names in spellings(name).chunks(60) {
            for via in BOTH {
                let mut fields: Vec<_> = names.iter().map(|name| (name.as_str(), FORGED)).collect();
                assert_eq!(ask(&gateway, via, "GET", "/public/x", &fields).await.status, 200);
                let raw = gateway.upstream().last().head.raw;
                assert!(!String::from_utf8_lossy(&raw).contains(FORGED), "{name} {via:?}");
                fields.push(("Cookie", &ada.cookie));
                assert_eq!(ask(&gateway, via, "GET", "/api/me", &fields).await.status, 200);
                let head = gateway.upstream().last().head;
                assert!(!String::from_utf8_lossy(&head.raw).contains(FORGED), "{name} {via:?}");
                assert_eq!(head.one("x-tenant-person"), Some(ada.id.as_str()));
                assert_eq!(head.one("x_mail"), Some("ada@example.com"));
            }
        }
    }
}

#[tokio::test]
async fn spoof_03_however_many_and_wherever_they_stand_there_is_one_and_it_is_ours() {
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    for via in BOTH {
        let fields = [
            ("X-User-Id", "1"),
            ("Accept", "*/*"),
            ("X-User-Id", "2, 3"),
            ("Cookie", ada.cookie.as_str()),
            ("x-user-id", ""),
            ("X-USER-ID", "4"),
        ];
        assert_eq!(ask(&gateway, via, "GET", "/api/me", &fields).await.status, 200);
        let head = gateway.upstream().last().head;
        assert_eq!(head.all("x-user-id"), [ada.id.as_str()], "{via:?}");
        assert_eq!(head.spellings("x-user-id").len(), 1, "{via:?}");
    }
}

/// What comes behind a body is a field as well.
#[tokio::test]
async fn spoof_04_nor_behind_a_body() {
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    let mut conversations = gateway.upstream().by_hand("/api/x");
    let names = [
        "X-User-Id",
        "x_user_id",
        "X.User.Roles",
        "Remote-User",
        "Forwarded",
        "Cookie",
        "Authorization",
        "Host",
    ];
    let announced = names.join(", ");
    let trailers = names.map(|name| format!("{name}: {FORGED}\r\n")).concat();
    let mut client = gateway.raw().await;
    client
        .send(format!(
            "POST /api/x HTTP/1.1\r\nHost: {}\r\nCookie: {}\r\nOrigin: {}\r\nTransfer-Encoding: chunked\r\n\
             Trailer: {announced}, X-Sum\r\n\r\n2\r\nhi\r\n0\r\n{trailers}X-Sum: 1\r\n\r\n",
            gateway.host(),
            ada.cookie,
            gateway.site()
        ))
        .await;
    let mut upstream = conversations.next().await;
    assert_eq!(upstream.head.one("trailer"), Some("x-sum"));
    let mut behind = Vec::new();
    while !behind.ends_with(b"\r\n\r\n") {
        use tokio::io::AsyncReadExt;
        behind.push(upstream.stream.read_u8().await.unwrap());
    }
    let behind = String::from_utf8(behind).unwrap();
    assert!(!behind.contains(FORGED), "{behind}");
    assert!(behind.to_ascii_lowercase().contains("x-sum: 1"), "{behind}");
}

#[tokio::test]
async fn spoof_08_connection_takes_nothing_of_ours_away() {
    let setup = Setup::default().with(
        r"
        [identity]
        assertion = true
        [[routes]]
        path = '/api/*'
        upstream = 'app'
        credentials = 'bearer'
        ",
    );
    let gateway = setup.start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    gateway.get("/api/me").with(&ada).await;
    let plain = gateway.upstream().last().head;
    let ours = [
        "host",
        "x-user-id",
        "x-user-email",
        "x-user-email-verified",
        "x-user-name",
        "x-user-roles",
        "x-session-id",
        "x-auth-time",
        "x-auth-methods",
        "x-vestibule-assertion",
        "x-request-id",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-proto",
        "forwarded",
        "authorization",
    ];
    for name in ours {
        let written = [
            format!("close, {name}"),
            format!("{name},keep-alive"),
            format!("\t{} , ,", name.to_ascii_uppercase()),
            format!("keep-alive, TE, upgrade, {name}, {name}"),
            name.replace('-', "_"),
        ];
        for value in written {
            let call = gateway.get("/api/me").with(&ada).header("Connection", &value);
            // There may be one host, and the route's credentials are for the upstream.
            let call = if matches!(name, "host" | "authorization") {
                call
            } else {
                call.header(name, FORGED)
            };
            assert_eq!(call.await.status(), 200, "{value:?}");
            let head = gateway.upstream().last().head;
            for name in ours {
                assert_eq!(
                    head.all(name).len(),
                    plain.all(name).len(),
                    "{name} with {value:?}: {head:?}"
                );
            }
            assert_eq!(head.one("x-user-id"), Some(ada.id.as_str()), "{value:?}");
            let connection = head.all("connection").join(",").to_ascii_lowercase();
            assert!(!connection.contains(name), "{value:?}: {connection}");
            assert!(
                !String::from_utf8_lossy(&head.raw).contains(FORGED),
                "{value:?}: {head:?}"
            );
        }
    }
}

/// A proxy that is trusted is believed in the one spelling that it writes: whatever it let through of its clients is not
/// its word.
#[tokio::test]
async fn spoof_02_spoof_14_a_trusted_proxy_lets_no_other_spelling_through() {
    let gateway = Setup::default()
        .with("[server]\ntrusted_proxies = ['127.0.0.0/8']")
        .start()
        .await;
    for name in [
        "x-forwarded-for",
        "x-forwarded-proto",
        "x-forwarded-host",
        "x-forwarded-prefix",
        "x-real-ip",
    ] {
        let others: Vec<String> = spellings(name)
            .into_iter()
            .filter(|spelling| !spelling.eq_ignore_ascii_case(name))
            .collect();
        for names in others.chunks(60) {
            for via in BOTH {
                let forged = names.iter().map(|name| (name.as_str(), FORGED));
                let said = [("X-Forwarded-For", "203.0.113.7"), ("X-Forwarded-Proto", "https")];
                let fields: Vec<_> = forged.chain(said).collect();
                assert_eq!(ask(&gateway, via, "GET", "/public/x", &fields).await.status, 200);
                let head = gateway.upstream().last().head;
                assert!(
                    !String::from_utf8_lossy(&head.raw).contains(FORGED),
                    "{via:?} {names:?}: {head:?}"
                );
                let chain = head.all("x-forwarded-for").join(", ");
                assert!(chain.starts_with("203.0.113.7"), "{via:?}: {chain}");
                assert_eq!(head.all("x-forwarded-proto"), ["https"], "{via:?}");
            }
        }
    }
}

/// What other proxies and platforms tell applications under.
const TOLD_BY_PROXIES: &[&str] = &[
    "ssl-client-cert",
    "ssl-client-verify",
    "x-ssl-client-dn",
    "x-arr-clientcert",
    "wl-proxy-client-cert",
    "x-amzn-mtls-clientcert-subject",
    "x-amzn-oidc-identity",
    "x-ms-client-principal",
    "x-ms-client-principal-name",
    "x-goog-authenticated-user-email",
    "x-goog-iap-jwt-assertion",
    "cf-access-jwt-assertion",
    "tailscale-user-login",
    "x-pomerium-claim-email",
    "x-authentik-username",
    "x-webauth-user",
    "x-remote-group",
    "x-remote-extra-scopes",
    "impersonate-user",
    "impersonate-group",
    "impersonate-uid",
    "impersonate-extra-scopes",
    "x-proxy-user",
    "x-proxy-roles",
    "sm_user",
    "sm_userdn",
    "sm_universalid",
    "sm_serversessionid",
    "sm_authtype",
    "oidc_claim_email",
    "oidc_claim_preferred_username",
    "oidc_id_token_payload",
    "iv-user",
    "iv-groups",
    "iv-creds",
    "shib-identity-provider",
    "x-authenticated-userid",
    "x-consumer-username",
    "x-credential-identifier",
    "x-auth-userid",
    "x-auth-username",
    "x-auth-email",
    "x-auth-groups",
    "x-auth-roles",
    "x-auth-subject",
    "x-userinfo",
    "x-endpoint-api-userinfo",
    "x-apigateway-api-userinfo",
    "x-jwt-assertion",
    "x-rh-identity",
    "x-client-dn",
    "x-client-verify",
    "x-vouch-user",
    "ssl-cert",
    "remote-addr",
    "client-ip",
    "x-client-ip",
    "x-cluster-client-ip",
    "true-client-ip",
    "cf-connecting-ip",
    "fastly-client-ip",
    "fly-client-ip",
    "x-originating-ip",
    "x-remote-ip",
    "x-remote-addr",
    "x-original-forwarded-for",
    "x-forwarded",
    "forwarded-for",
    "cloudfront-viewer-address",
    "x-vercel-forwarded-for",
    "x-nf-client-connection-ip",
    "incap-client-ip",
    "x-sucuri-clientip",
    "x-client-certificate",
    "ali-cdn-real-ip",
    "proxy-client-ip",
    "http-client-ip",
    "http-x-forwarded-for",
    "http-x-forwarded",
    "http-x-cluster-client-ip",
    "http-forwarded-for",
    "http-forwarded",
    "cdn-src-ip",
    "x-real-client-ip",
    "kubeflow-userid",
    "kubeflow-groups",
    "x-appengine-user-ip",
    "x-appengine-user-email",
    "x-proxiedentitieschain",
    "x-shib-user",
    "smuser",
    "x-wso2-assertion",
    "teleport-jwt-assertion",
    "x-sso-user",
];

/// Of the names under which proxies, platforms and other gateways tell whose address it is, whose certificate, or who
/// somebody is, some application believes each.
#[tokio::test]
async fn spoof_14_whose_address_or_certificate_it_is_only_a_trusted_proxy_says() {
    for (trusted, arrives) in [("[]", false), ("['127.0.0.0/8']", true)] {
        let setup = Setup::default().with(&format!("[server]\ntrusted_proxies = {trusted}"));
        let gateway = setup.start().await;
        for name in TOLD_BY_PROXIES {
            for via in BOTH {
                let spellings = spellings(&name.replace('_', "-"));
                let fields: Vec<_> = spellings.iter().map(|name| (name.as_str(), FORGED)).collect();
                assert_eq!(ask(&gateway, via, "GET", "/public/x", &fields).await.status, 200);
                let head = gateway.upstream().last().head;
                let left = head.fields.iter().filter(|(_, value)| value == FORGED);
                let left: Vec<_> = left.map(|(name, _)| name.to_ascii_lowercase()).collect();
                // Another spelling is nobody's.
                let told = left.iter().all(|left| left == name) && left.is_empty() != arrives;
                assert!(told, "{trusted} {via:?} {name}: {left:?}");
            }
        }
    }
}

#[tokio::test]
async fn spoof_12_a_name_that_is_none_is_no_request() {
    let gateway = Gateway::start().await;
    let host = gateway.host();
    for line in [
        "X-User-Id : 1",
        "X-User-Id\t: 1",
        " X-User-Id: 1",
        "\tX-User-Id: 1",
        "X-User-Id\0: 1",
        "X-User\u{b}-Id: 1",
        "X User Id: 1",
        "X-User-Id\r: 1",
        ": 1",
        "X-User-Id",
        "X-Üser-Id: 1",
        "X-User-Id;: 1",
        "(X-User-Id): 1",
        "X-User-Id: 1\0",
        "X-User-Id: 1\rX-User-Roles: admin",
        "X-A: 1\r\n X-User-Id: 1",
    ] {
        let head = format!("GET /public/x HTTP/1.1\r\nHost: {host}\r\n{line}\r\n\r\n");
        refused_and_closed(&gateway, head).await;
    }
    assert_eq!(gateway.upstream().requests().len(), 0);
}

#[tokio::test]
async fn spoof_11_whoever_has_no_role_has_none_there() {
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in_as("ada@example.com", &[]).await;
    for via in BOTH {
        for path in ["/api/me", "/optional/x"] {
            let fields = [
                ("Cookie", ada.cookie.as_str()),
                ("X-User-Roles", "admin"),
                ("x-user-roles", "root"),
                ("X_User_Roles", "admin"),
            ];
            assert_eq!(ask(&gateway, via, "GET", path, &fields).await.status, 200);
            let head = gateway.upstream().last().head;
            assert_eq!(head.one("x-user-roles").unwrap_or_default(), "", "{via:?} {path}");
            assert!(head.spellings("x-user-roles").len() <= 1);
        }
        let fields = [("Cookie", ada.cookie.as_str()), ("X-User-Roles", "admin")];
        assert_eq!(ask(&gateway, via, "GET", "/admin/x", &fields).await.status, 403);
    }
}

/// From a peer that is trusted, too: it says who called, not what is asked for.
#[tokio::test]
async fn spoof_14_what_others_say_of_a_request_decides_nothing() {
    let said = [
        ("X-Forwarded-Uri", "/public/x"),
        ("X-Forwarded-Url", "/public/x"),
        ("X-Forwarded-Path", "/public/x"),
        ("X-Original-URI", "/public/x"),
        ("X-Original-URL", "/public/x"),
        ("X-Original-Method", "OPTIONS"),
        ("X-Original-Host", "public.example"),
        ("X-Rewrite-URL", "/public/x"),
        ("X-Forwarded-Prefix", "/public"),
        ("X-Forwarded-Method", "OPTIONS"),
        ("X-HTTP-Method-Override", "OPTIONS"),
        ("X-HTTP-Method", "OPTIONS"),
        ("X-Method-Override", "OPTIONS"),
        ("X-Forwarded-Server", "public.example"),
        ("X-Forwarded-Scheme", "https"),
        ("X-Forwarded-Ssl", "on"),
        ("X-Forwarded-Port", "443"),
        ("X-Host", "public.example"),
        ("X-Forwarded-User", "1"),
        ("Proxy", "http://evil.example"),
        ("Script_Name", "/public"),
        ("SCRIPT-NAME", "/public"),
        ("X-Script-Name", "/public"),
        ("Path-Info", "/public/x"),
        ("X-Middleware-Subrequest", "middleware:middleware:middleware"),
        ("X-Matched-Path", "/public/x"),
        ("X-Now-Route-Matches", "1=public"),
        ("X-React-Router-SPA-Mode", "yes"),
        ("X-React-Router-Prerender-Data", "{}"),
        ("X-Sendfile-Type", "X-Accel-Redirect"),
        ("X-Accel-Mapping", "/public=/admin"),
        ("X-Invoke-Path", "/public/x"),
        ("X-Override-Url", "/public/x"),
        ("X-Envoy-Original-Path", "/public/x"),
    ];
    for trusted in ["[]", "['127.0.0.0/8']"] {
        let setup = Setup::default().with(&format!("[server]\ntrusted_proxies = {trusted}"));
        let gateway = setup.start().await;
        let eve = gateway.signed_in("eve@example.com").await;
        for via in BOTH {
            for field in said {
                let saw = ask(&gateway, via, "GET", "/admin/x", &[field]).await;
                assert_eq!(saw.status, 401, "{trusted} {via:?} {field:?}");
                let fields = [field, ("Cookie", eve.cookie.as_str())];
                let saw = ask(&gateway, via, "GET", "/admin/x", &fields).await;
                assert_eq!(saw.status, 403, "{trusted} {via:?} {field:?}");
            }
            assert_eq!(gateway.upstream().seen("/admin/x"), 0);
            assert_eq!(ask(&gateway, via, "GET", "/public/y", &said).await.status, 200);
            let head = gateway.upstream().last().head;
            assert_eq!((head.method(), head.target()), ("GET", "/public/y"));
            for (name, value) in said {
                let left: Vec<_> = head.all(name).into_iter().filter(|left| *left == value).collect();
                // What is true is said by us.
                let ours = name == "X-Forwarded-Port";
                assert!(ours || left.is_empty(), "{trusted} {via:?} {name}: {head:?}");
            }
        }
    }
}

#[tokio::test]
async fn spoof_17_whatever_name_somebody_signs_up_with_it_is_one_well_formed_value() {
    let gateway = Gateway::start().await;
    let names = [
        "a\r\nX-User-Roles: admin".to_owned(),
        "a\nX-User-Id: 1".to_owned(),
        "a\rb".to_owned(),
        "a\0b".to_owned(),
        "a\u{7f}\u{1b}[31m".to_owned(),
        "🙂 Zoë\u{202e}".to_owned(),
        "\u{feff}\u{2028}".to_owned(),
        "=?utf-8?q?admin?=".to_owned(),
        "a,b;c=\"d\\".to_owned(),
        "%0d%0aX-User-Roles: admin".to_owned(),
        "  ".to_owned(),
        "n".repeat(256),
        "é".repeat(256),
        "n".repeat(257),
    ];
    for (number, name) in names.iter().enumerate() {
        let email = format!("user{number}@example.com");
        let body = json!({ "name": name, "email": email, "password": PASSWORD });
        let answer = gateway.post("/api/auth/sign-up/email").json(&body).await;
        assert!(matches!(answer.status(), 200 | 400), "{name:.40?}: {}", answer.text());
        if answer.status() != 200 {
            continue;
        }
        let verify = format!("UPDATE users SET email_verified = true WHERE email = '{email}'");
        gateway.db().run(&verify).await;
        let signed_in = gateway.sign_in(&email).await;
        let user = crate::harness::people::User::of(&gateway, &signed_in);
        for via in BOTH {
            let fields = [("Cookie", user.cookie.as_str())];
            let saw = ask(&gateway, via, "GET", "/api/me", &fields).await;
            assert_eq!(saw.status, 200, "{name:.40?}");
            let head = gateway.upstream().last().head;
            let value = head.one("x-user-name").unwrap_or_default();
            assert!(value.bytes().all(|byte| (0x20..0x7f).contains(&byte)), "{value:?}");
            assert_eq!(head.one("x-user-id"), Some(user.id.as_str()));
            assert!(!head.all("x-user-roles").contains(&"admin"), "{head:?}");
            let decoded = percent_encoding::percent_decode_str(value).decode_utf8().unwrap();
            assert!(
                value.is_empty() || decoded == name.trim_matches(' ') || decoded == *name,
                "{value:?}"
            );
        }
    }
}

#[test]
fn every_mark_is_in_some_spelling() {
    let spellings = spellings("x-user-id");
    for mark in MARKS.chars() {
        assert!(spellings.contains(&format!("x{mark}user{mark}id")), "{mark}");
        assert!(spellings.contains(&format!("X{mark}USER-ID")), "{mark}");
    }
}
