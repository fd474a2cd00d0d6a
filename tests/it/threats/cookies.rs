//! COOKIE: which cookie counts, what it may look like, and where it ends.

use serde_json::json;

use super::{BOTH, Via, ask, sent};
use crate::harness::{Gateway, Setup, client::Response, people::PASSWORD};

/// A cookie of our name that nobody signed.
fn junk(gateway: &Gateway) -> String {
    format!("{}={}.{}%3D", gateway.session_cookie(), "x".repeat(43), "A".repeat(43))
}

#[tokio::test]
async fn cookie_01_of_several_cookies_of_the_name_one_valid_one_counts_or_none() {
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    let eve = gateway.signed_in("eve@example.com").await;
    let (a, e, j) = (ada.cookie.as_str(), eve.cookie.as_str(), junk(&gateway));
    let empty = format!("{}=", gateway.session_cookie());
    // What is sent in lines, and whose it is.
    let cases: Vec<(Vec<&str>, Option<&str>)> = vec![
        (vec![a, e], None),
        (vec![e, a], None),
        (vec![a, a], Some(&ada.id)),
        (vec![&j, a], Some(&ada.id)),
        (vec![a, &j], Some(&ada.id)),
        (vec![&j, a, &j, a, &j], Some(&ada.id)),
        (vec![&empty, a], Some(&ada.id)),
        (vec![a, &empty, &empty], Some(&ada.id)),
        (vec![&j, a, e], None),
        (vec![a, &j, e, a], None),
        (vec![&j, &j], None),
        (vec![&j, &j, &j, &j, &j, &j, &j, &j, a], None),
    ];
    for (crumbs, owner) in &cases {
        let joined = crumbs.join("; ");
        let one = vec![("Cookie", joined.as_str())];
        let several: Vec<_> = crumbs.iter().map(|crumb| ("Cookie", *crumb)).collect();
        for via in BOTH {
            for fields in [&one, &several] {
                let saw = ask(&gateway, via, "GET", "/api/me", fields).await;
                assert_eq!(
                    saw.status,
                    if owner.is_some() { 200 } else { 401 },
                    "{via:?} {fields:?}"
                );
                let saw = ask(&gateway, via, "GET", "/optional/x", fields).await;
                assert_eq!(saw.status, 200);
                let head = gateway.upstream().last().head;
                assert_eq!(head.one("x-user-id"), *owner, "{via:?} {fields:?}");
                assert!(!head.has("cookie"), "{via:?} {fields:?}: {head:?}");
            }
        }
    }
}

/// A neighbour below the same domain can set cookies for all of it, but none with the prefix (RFC 6265bis, 4.1.3.2).
#[tokio::test]
async fn cookie_02_what_a_neighbour_plants_is_not_read() {
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    let eve = gateway.signed_in("eve@example.com").await;
    let value = eve.cookie.split_once('=').unwrap().1;
    let names = [
        "vestibule.session_token",
        "__Secure-vestibule.session_token",
        "__host-vestibule.session_token",
        "__Host-Vestibule.session_token",
    ];
    for name in names {
        let planted = format!("{name}={value}");
        for via in BOTH {
            assert_eq!(
                ask(&gateway, via, "GET", "/api/me", &[("Cookie", &planted)])
                    .await
                    .status,
                401,
                "{planted}"
            );
            for cookies in [
                format!("{planted}; {}", ada.cookie),
                format!("{}; {planted}", ada.cookie),
            ] {
                let saw = ask(&gateway, via, "GET", "/api/me", &[("Cookie", &cookies)]).await;
                assert_eq!(saw.status, 200, "{cookies}");
                assert_eq!(gateway.upstream().last().head.one("x-user-id"), Some(ada.id.as_str()));
            }
        }
        // And signing in with it sets one that is the person's own.
        let body = json!({ "email": "ada@example.com", "password": PASSWORD });
        let signed_in = gateway
            .post("/api/auth/sign-in/email")
            .header("Cookie", &planted)
            .header("Origin", gateway.site());
        let signed_in = signed_in.json(&body).await;
        let set = signed_in
            .set_cookie(gateway.session_cookie())
            .expect("a cookie with the prefix");
        assert!(!set.contains(value));
    }
    // Nor can an upstream plant one for us, in whatever spelling.
    for line in [
        "__Host-vestibule.session_token=x; Path=/; Secure",
        "__host-VESTIBULE.x=y",
        " __Host-vestibule.session_token =x",
        "=__Host-vestibule.session_token=x",
        "__Secure-vestibule.session_data=x",
        "vestibule.session_token=x; Domain=example.com",
        "vestibule.state=x",
    ] {
        let answer =
            format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nSet-Cookie: theirs=1\r\nSet-Cookie: {line}\r\n\r\n");
        gateway.upstream().answer("/public/x", answer);
        let saw = ask(&gateway, Via::Http1, "GET", "/public/x", &[]).await;
        let set: Vec<_> = saw
            .fields
            .iter()
            .filter(|(name, _)| name.eq_ignore_ascii_case("set-cookie"))
            .collect();
        // A name in other letters is another cookie to browsers, and none of ours.
        let ours = set
            .iter()
            .any(|(_, value)| value.to_ascii_lowercase().contains("vestibule.") && !value.contains("VESTIBULE"));
        assert!(!ours && !set.is_empty(), "{line:?}: {set:?}");
    }
}

#[tokio::test]
async fn cookie_04_too_large_a_cookie_is_431_and_leads_nowhere() {
    let setup = Setup::default().with("[auth.pages]\nsign_in = '/sign-in'");
    let gateway = setup.start().await;
    let large = "x".repeat(64 << 10);
    for path in ["/app/x", "/public/x", "/api/auth/get-session"] {
        let head = format!(
            "GET {path} HTTP/1.1\r\nHost: {}\r\nSec-Fetch-Mode: navigate\r\nAccept: text/html\r\nCookie: a={large}\r\n\r\n",
            gateway.host()
        );
        let (answer, _): (Response, _) = sent(&gateway, head).await;
        assert_eq!(answer.status(), 431, "{path}");
        assert!(
            !answer.head.has("location") && !answer.head.has("set-cookie"),
            "{:?}",
            answer.head
        );
    }
    assert_eq!(gateway.upstream().requests().len(), 0);
    // What browsers do send passes.
    let usual = format!("a={}", "x".repeat(7 << 10));
    for via in BOTH {
        assert_eq!(
            ask(&gateway, via, "GET", "/public/x", &[("Cookie", &usual)])
                .await
                .status,
            200
        );
        assert_eq!(gateway.upstream().last().head.one("cookie"), Some(usual.as_str()));
    }
}

/// All that a browser may hold of the gateway's, with all of it set at once.
#[tokio::test]
async fn cookie_04_the_gateways_own_cookies_are_small() {
    let setup = Setup::default().with("[auth.oauth.google]\nclient_id = 'x'\nclient_secret = 'y'\n");
    let gateway = setup.start().await;
    let mut cookies = std::collections::BTreeMap::new();
    let mut keep = |answer: &Response| {
        for line in answer.head.all("set-cookie") {
            let (name, value) = line.split(';').next().unwrap().split_once('=').unwrap();
            cookies.insert(name.to_owned(), value.len());
        }
    };
    keep(&gateway.sign_up("ada@example.com").await);
    gateway.db().run("UPDATE users SET email_verified = true").await;
    let body = json!({ "email": "ada@example.com", "password": PASSWORD, "rememberMe": false });
    keep(&gateway.post("/api/auth/sign-in/email").json(&body).await);
    let body = json!({ "provider": "google", "callbackURL": "/" });
    let started = gateway.post("/api/auth/sign-in/social").json(&body).await;
    // Without the way out there is no discovery; but what it sets, it sets here.
    assert!(matches!(started.status(), 200 | 503), "{}", started.text());
    keep(&started);
    let sum: usize = cookies.iter().map(|(name, value)| name.len() + 1 + value + 2).sum();
    assert!(cookies.len() >= 2 && sum < 1024, "{sum}: {cookies:?}");
}

#[tokio::test]
async fn cookie_05_a_name_is_looked_for_whole_and_a_value_is_taken_whole() {
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    let (name, value) = ada.cookie.split_once('=').unwrap();
    let decoded = value.replace("%3D", "=").replace("%2B", "+").replace("%2F", "/");
    for cookie in [
        format!("not{name}={value}"),
        format!("x={name}={value}"),
        format!("{name}={value}tail"),
        format!("{name}={value}%00"),
        format!("{name}={value}\t."),
        format!("{name}={value} x"),
        format!("{name}x={value}"),
        name.to_owned(),
        format!("={name}={value}"),
        format!("{name}=={value}"),
        format!("{name}=\"{value}\""),
        format!("{name}='{value}'"),
        format!("{name}={decoded}x"),
        format!("{name}={}", value.to_ascii_lowercase()),
        format!("{name}={}", value.replace('.', "%2E")),
        format!("{}={value}", name.to_ascii_lowercase()),
        format!("{}={value}", name.to_ascii_uppercase()),
        format!("{name}%3D{value}"),
        format!("{name}:{value}"),
        format!("a={value}, {name}={value}"),
        format!("$Version=1, {name}={value}"),
        format!("{name}[0]={value}"),
        format!("{}={value}", name.replace('.', "_")),
        format!("{name}={}", value.split('.').next().unwrap()),
        format!("{name}=.{}", value.split('.').nth(1).unwrap()),
        format!("{name}={value}.{value}"),
        format!("{name}=Bearer {value}"),
    ] {
        for via in BOTH {
            let saw = ask(&gateway, via, "GET", "/api/me", &[("Cookie", &cookie)]).await;
            assert_eq!(saw.status, 401, "{via:?} {cookie:?}");
        }
    }
    assert_eq!(gateway.upstream().requests().len(), 0);
    for cookie in [
        format!("a=\"x; {name}={value}; y\""),
        format!("a;{name}={value};b"),
        format!(" ; ;{name}={value}; "),
        format!("{name}x=1; {name}={value}"),
    ] {
        for via in BOTH {
            assert_eq!(
                ask(&gateway, via, "GET", "/api/me", &[("Cookie", cookie.trim())])
                    .await
                    .status,
                200,
                "{cookie:?}"
            );
        }
    }
}

/// The token is nowhere in what an upstream gets, in whatever way it came.
#[tokio::test]
async fn cookie_07_no_token_reaches_an_upstream() {
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    let c = ada.cookie.as_str();
    let (name, value) = c.split_once('=').unwrap();
    let signed = percent_encoding::percent_decode_str(value)
        .decode_utf8()
        .unwrap()
        .into_owned();
    let cookies: Vec<Vec<String>> = vec![
        vec![c.to_owned()],
        vec![format!("theme=1; {c}")],
        vec![format!("{c};theme=1")],
        vec![format!("theme=1;{c};x=2")],
        vec![format!("theme=1;\t{c}\t;  x=2")],
        vec![format!("{c}; {c}; theme=1")],
        vec!["theme=1".to_owned(), c.to_owned()],
        vec![c.to_owned(), c.to_owned(), "theme=1".to_owned()],
        vec![format!("theme=1; {name}=\"{value}\"")],
        vec![format!("theme=1; {name} ={value}")],
        vec![format!("theme=1; vestibule.session_token={value}")],
        vec![format!("theme=1; __Secure-vestibule.session_token={value}")],
        vec![format!("theme=1; __HOST-vestibule.session_token={value}")],
        vec![format!("theme=1; __Host-vestibule.session_data={value}")],
        vec![format!("theme=1; __Host-vestibule.session_token_multi-x={value}")],
        vec![format!("theme=1; {name}={value}; {name}={value}x")],
    ];
    let authorizations = [
        format!("Bearer {}", ada.token),
        format!("bearer {}", ada.token),
        format!("BEARER   {}", ada.token),
        format!("Bearer {signed}"),
        format!("Bearer \t{} ", ada.token),
        format!("Bearer {value}"),
    ];
    for via in BOTH {
        for path in ["/public/x", "/optional/x", "/api/x"] {
            for lines in &cookies {
                let mut fields: Vec<_> = lines.iter().map(|line| ("Cookie", line.as_str())).collect();
                let bearer = format!("Bearer {}", ada.token);
                // Who is not known by one of these cookies is by a token.
                fields.push(("Authorization", bearer.as_str()));
                let saw = ask(&gateway, via, "GET", path, &fields).await;
                assert_eq!(saw.status, 200, "{via:?} {path} {lines:?}");
                let head = gateway.upstream().last().head;
                let raw = String::from_utf8_lossy(&head.raw).into_owned();
                assert!(!raw.contains(&ada.token), "{via:?} {path} {lines:?}: {raw}");
                let kept = lines.iter().any(|line| line.contains("theme=1"));
                assert_eq!(
                    head.all("cookie").join("; ").contains("theme=1"),
                    kept,
                    "{lines:?}: {raw}"
                );
            }
            for line in &authorizations {
                let saw = ask(&gateway, via, "GET", path, &[("Authorization", line.trim_end())]).await;
                if saw.status == 200 {
                    let raw = gateway.upstream().last().head.raw;
                    let raw = String::from_utf8_lossy(&raw);
                    assert!(!raw.contains(&ada.token), "{via:?} {path} {line:?}: {raw}");
                }
            }
        }
    }
    // In two lines neither counts, and neither leaves.
    let bearer = format!("Bearer {}", ada.token);
    for second in ["Basic YTpi", bearer.as_str()] {
        for path in ["/public/x", "/optional/x"] {
            let fields = [("Authorization", bearer.as_str()), ("Authorization", second)];
            assert_eq!(ask(&gateway, Via::Http1, "GET", path, &fields).await.status, 200);
            let raw = gateway.upstream().last().head.raw;
            assert!(!String::from_utf8_lossy(&raw).contains(&ada.token));
        }
    }
    // Others' credentials are the application's.
    for line in [
        "Basic YTpi",
        "Bearer eyJhbGciOiJIUzI1NiJ9.e30.abc",
        "ApiKey 42",
        "Bearer",
    ] {
        assert_eq!(
            ask(&gateway, Via::Http1, "GET", "/public/x", &[("Authorization", line)])
                .await
                .status,
            200
        );
        assert_eq!(gateway.upstream().last().head.one("authorization"), Some(line));
    }
}

/// Whatever sets a cookie of ours, sets it so.
#[tokio::test]
async fn cookie_08_every_cookie_of_ours_is_for_this_origin_and_for_no_script() {
    for (over, name, is_secure) in [
        ("", "__Host-vestibule.", true),
        ("[auth.session.cookie]\nsame_site = 'strict'", "__Host-vestibule.", true),
        ("[server]\npublic_url = 'http://localhost:8080'", "vestibule.", false),
    ] {
        let gateway = Setup::default().with(over).start().await;
        let mut answers = vec![gateway.sign_up("ada@example.com").await];
        gateway.db().run("UPDATE users SET email_verified = true").await;
        for remember in [true, false] {
            let body = json!({ "email": "ada@example.com", "password": PASSWORD, "rememberMe": remember });
            answers.push(gateway.post("/api/auth/sign-in/email").json(&body).await);
        }
        let ada = crate::harness::people::User::of(&gateway, answers.last().unwrap());
        answers.push(gateway.post("/api/auth/sign-out").with(&ada).json(&json!({})).await);
        let lines: Vec<String> = answers
            .iter()
            .flat_map(|answer| answer.head.all("set-cookie"))
            .map(str::to_owned)
            .collect();
        assert!(lines.len() >= 4, "{lines:?}");
        for line in lines {
            assert!(line.starts_with(name), "{line}");
            let attributes: Vec<String> = line
                .split(';')
                .skip(1)
                .map(|part| part.trim().to_ascii_lowercase())
                .collect();
            let has = |wanted: &str| attributes.iter().any(|attribute| attribute == wanted);
            assert!(has("httponly") && has("path=/"), "{line}");
            // The mark of a browser that signed up comes back with a click in a mail, which is on another site.
            let is_strict = over.contains("strict") && !line.contains(".sign_up=");
            assert!(
                has(if is_strict { "samesite=strict" } else { "samesite=lax" }),
                "{line}"
            );
            assert_eq!(has("secure"), is_secure, "{line}");
            assert!(!line.to_ascii_lowercase().contains("domain="), "{line}");
        }
    }
}

/// As of the time before `domain` was set, which browsers keep beside the new one, or as a neighbour plants. Neither counts;
/// yet who leaves must not come back because one of them is gone.
#[tokio::test]
async fn cookie_02_who_leaves_with_two_sessions_leaves_both() {
    let domain = "[auth.session]\ncookie = { domain = 'example.com' }";
    let gateway = Setup::default().with(domain).start().await;
    let name = "__Secure-vestibule.session_token";
    let mut cookies = Vec::new();
    for email in ["ada@example.com", "eve@example.com"] {
        gateway.verified(email).await;
        let signed_in = gateway.sign_in(email).await;
        cookies.push(
            signed_in
                .set_cookie(name)
                .unwrap()
                .split(';')
                .next()
                .unwrap()
                .to_owned(),
        );
    }
    let both = cookies.join("; ");
    assert_eq!(gateway.get("/api/me").header("Cookie", &both).await.status(), 401);
    let left = gateway
        .post("/api/auth/sign-out")
        .header("Cookie", &both)
        .header("Origin", "https://app.example.com")
        .json(&json!({}))
        .await;
    assert_eq!(left.status(), 200, "{}", left.text());
    for cookie in &cookies {
        let after = gateway.get("/api/me").header("Cookie", cookie).await;
        assert_eq!(after.status(), 401);
    }
    let cleared = left.head.all("set-cookie");
    let cleared: Vec<_> = cleared
        .iter()
        .filter(|line| line.starts_with(&format!("{name}=;")))
        .collect();
    let of_domain = cleared
        .iter()
        .filter(|line| line.contains("Domain=example.com"))
        .count();
    assert_eq!((cleared.len(), of_domain), (2, 1), "{cleared:?}");

    // A sign-in in such a browser takes the older one back, so that the newer counts.
    let body = json!({ "email": "ada@example.com", "password": PASSWORD });
    let again = gateway
        .post("/api/auth/sign-in/email")
        .header("Cookie", &cookies[1])
        .header("Origin", "https://app.example.com")
        .json(&body)
        .await;
    assert_eq!(again.status(), 200, "{}", again.text());
    let lines = again.head.all("set-cookie");
    let host_only = |line: &&&str| line.starts_with(&format!("{name}=;")) && !line.contains("Domain");
    assert_eq!(lines.iter().filter(host_only).count(), 1, "{lines:?}");
    // Some clients take them for one cookie, of which the last line counts.
    let newest = lines
        .iter()
        .rfind(|line| line.starts_with(&format!("{name}=")))
        .unwrap();
    assert!(newest.contains("Domain") && !newest.contains("Max-Age=0"), "{lines:?}");
}
