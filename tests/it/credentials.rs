//! What counts as a credential, and that none of ours reaches an upstream.

use std::time::Duration;

use crate::harness::{Gateway, Setup, people::User};

#[tokio::test]
async fn cookie_07_the_session_cookie_is_cut_out() {
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    for (sent, forwarded) in [
        (ada.cookie.clone(), None),
        (format!("theme=1; {}", ada.cookie), Some("theme=1")),
        (format!("{}; theme=1", ada.cookie), Some("theme=1")),
        (format!("a=1; {}; b=2", ada.cookie), Some("a=1; b=2")),
    ] {
        assert_eq!(
            gateway.get("/api/me").header("Cookie", &sent).await.status(),
            200,
            "{sent}"
        );
        assert_eq!(gateway.upstream().last().head.one("cookie"), forwarded, "{sent}");
    }
    assert_eq!(
        gateway.get("/public/x").header("Cookie", &ada.cookie).await.status(),
        200
    );
    assert!(!gateway.upstream().last().head.has("cookie"), "on public routes too");
}

#[tokio::test]
async fn an_authorization_with_our_token_is_dropped_and_any_other_kept() {
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    assert_eq!(gateway.get("/api/me").bearer(&ada.token).await.status(), 200);
    assert!(!gateway.upstream().last().head.has("authorization"));
    let call = gateway.get("/api/me").with(&ada).header("Authorization", "Basic YTpi");
    assert_eq!(call.await.status(), 200);
    assert_eq!(gateway.upstream().last().head.one("authorization"), Some("Basic YTpi"));
}

#[tokio::test]
async fn a_cookie_whose_signature_is_wrong_is_nobodys() {
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    let (name, value) = ada.cookie.split_once('=').unwrap();
    assert_eq!(
        gateway.get("/api/me").with(&ada).await.status(),
        200,
        "it is in the cache"
    );
    let (token, signature) = value.split_once('.').unwrap();
    let other = if signature.starts_with('A') { "B" } else { "A" };
    for forged in [
        token.to_owned(),
        format!("{token}."),
        format!("{token}.{other}{}", &signature[1..]),
        format!("{value}tail"),
        format!("{token}.{}", "A".repeat(44)),
        format!("\"{value}\""),
    ] {
        assert_eq!(
            gateway
                .get("/api/me")
                .header("Cookie", format!("{name}={forged}"))
                .await
                .status(),
            401,
            "{forged}"
        );
    }
}

#[tokio::test]
async fn cookie_02_cookie_05_only_a_cookie_of_exactly_our_name_counts() {
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    let value = ada.cookie.split_once('=').unwrap().1;
    for cookie in [
        format!("not{}", ada.cookie),
        format!("x={}", ada.cookie),
        format!("vestibule.session_token={value}"),
        format!("__Secure-vestibule.session_token={value}"),
        format!("__host-vestibule.session_token={value}"),
    ] {
        assert_eq!(
            gateway.get("/api/me").header("Cookie", &cookie).await.status(),
            401,
            "{cookie}"
        );
    }
}

#[tokio::test]
async fn cookie_01_of_two_session_cookies_the_one_that_is_valid_counts_and_two_valid_ones_cancel_out() {
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    let eve = gateway.signed_in("eve@example.com").await;
    let junk = format!(
        "{}={}.{}",
        gateway.session_cookie(),
        "x".repeat(43),
        "A".repeat(43) + "%3D"
    );
    for cookie in [format!("{junk}; {}", ada.cookie), format!("{}; {junk}", ada.cookie)] {
        assert_eq!(
            gateway.get("/api/me").header("Cookie", &cookie).await.status(),
            200,
            "{cookie}"
        );
        assert_eq!(gateway.upstream().last().head.one("x-user-id"), Some(ada.id.as_str()));
        assert!(!gateway.upstream().last().head.has("cookie"));
    }
    let both = |first: &User, second: &User| format!("{}; {}", first.cookie, second.cookie);
    for cookie in [both(&ada, &eve), both(&eve, &ada)] {
        assert_eq!(
            gateway.get("/api/me").header("Cookie", &cookie).await.status(),
            401,
            "{cookie}"
        );
    }
    let call = gateway
        .get("/api/me")
        .header("Cookie", &ada.cookie)
        .header("Cookie", &eve.cookie);
    assert_eq!(call.await.status(), 401, "in two lines");
}

#[tokio::test]
async fn sess_16_a_token_in_the_query_is_no_credential() {
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    for name in ["session", "access_token", "token"] {
        assert_eq!(
            gateway.get(&format!("/api/me?{name}={}", ada.token)).await.status(),
            401,
            "{name}"
        );
    }
}

#[tokio::test]
async fn an_upstream_can_not_set_our_cookies_nor_hand_out_tokens() {
    let gateway = Gateway::start().await;
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nSet-Cookie: theme=1\r\n\
                  Set-Cookie: __Host-vestibule.session_token=forged; Path=/; Secure\r\n\
                  Set-Auth-Token: forged\r\nset-auth-jwt: forged\r\nX-Auth-Token: its own\r\n\r\n";
    gateway.upstream().answer("/public/x", answer);
    let answer = gateway.get("/public/x").await;
    assert_eq!(answer.head.all("set-cookie"), ["theme=1"]);
    assert!(!answer.head.has("set-auth-token") && !answer.head.has("set-auth-jwt"));
    assert_eq!(answer.head.one("x-auth-token"), Some("its own"));
}

#[tokio::test]
async fn smug_28_pipelined_requests_are_each_answered_for_their_own_identity() {
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    let eve = gateway.signed_in("eve@example.com").await;
    let host = gateway.host();
    let request = |path: &str, cookie: &str| format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{cookie}\r\n");
    let mut client = gateway.raw().await;
    let cookie = |user: &User| format!("Cookie: {}\r\n", user.cookie);
    let all = [
        request("/api/1", &cookie(&ada)),
        request("/api/2", &cookie(&eve)),
        request("/api/3", ""),
    ]
    .concat();
    client.send(all).await;
    assert_eq!(client.answer().await.status(), 200);
    assert_eq!(client.answer().await.status(), 200);
    assert_eq!(client.answer().await.status(), 401);
    let ids: Vec<_> = gateway
        .upstream()
        .requests()
        .iter()
        .map(|seen| seen.head.one("x-user-id").map(str::to_owned))
        .collect();
    assert_eq!(ids, [Some(ada.id), Some(eve.id)]);
}

/// A cache with a field of its own goes by that, whatever `Cache-Control` says (RFC 9213): none may be left beside a session.
#[tokio::test]
async fn an_answer_that_extends_a_session_is_kept_by_no_cache() {
    let rules = "[auth.session]\nrefresh_after = '1m'\n\
        [[routes]]\npath = '/optional/*'\nupstream = 'app'\nauth = 'optional'\n\
        [[routes]]\npath = '/ruled/*'\nupstream = 'app'\nauth = 'optional'\n\
        response_headers = { set = { Netlify-CDN-Cache-Control = 'public, max-age=600' } }";
    let gateway = Setup::default().with(rules).start().await;
    let targeted = [
        "CDN-Cache-Control",
        "Cloudflare-CDN-Cache-Control",
        "Surrogate-Control",
        "X-Accel-Expires",
    ];
    let fields = targeted.map(|name| format!("{name}: max-age=600\r\n")).concat();
    let answer = format!("HTTP/1.1 200 OK\r\nCache-Control: public\r\n{fields}Content-Length: 2\r\n\r\nok");
    for path in ["/optional/asset.js", "/ruled/asset.js"] {
        gateway.upstream().answer(path, answer.clone());
        let strangers = gateway.get(path).await;
        assert_eq!(
            strangers.head.one("cdn-cache-control"),
            Some("max-age=600"),
            "it is theirs to say"
        );
        let ada = gateway.signed_in(&format!("ada{}@example.com", path.len())).await;
        gateway.clock().advance(Duration::from_mins(2));
        let own = gateway.get(path).with(&ada).await;
        assert!(own.set_cookie(gateway.session_cookie()).is_some(), "{:?}", own.head);
        assert_eq!(own.head.all("cache-control"), ["no-store"]);
        for name in targeted.into_iter().chain(["Netlify-CDN-Cache-Control"]) {
            assert!(!own.head.has(name), "{name}");
        }
    }
}
