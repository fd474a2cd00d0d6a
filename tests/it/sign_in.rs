//! Signing in, and what an attacker learns from trying.

use serde_json::json;

use crate::harness::{Gateway, Setup, people::PASSWORD};

const SIGN_IN: &str = "/api/auth/sign-in/email";

#[tokio::test]
async fn the_right_password_opens_a_session() {
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;

    let answer = gateway.get("/api/me").with(&ada).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.text(), "GET /api/me");
    assert_eq!(gateway.upstream().last().head.one("x-user-id"), Some(ada.id.as_str()));
}

#[tokio::test]
async fn cookie_08_the_cookie_is_as_safe_as_cookies_get() {
    let gateway = Gateway::start().await;
    gateway.verified("ada@example.com").await;
    let answer = gateway.sign_in("ada@example.com").await;
    let cookie = answer
        .set_cookie("__Host-vestibule.session_token")
        .expect("the prefix of https");
    let attributes: Vec<_> = cookie.split("; ").skip(1).collect();
    for attribute in ["Max-Age=604800", "Path=/", "HttpOnly", "Secure", "SameSite=Lax"] {
        assert!(attributes.contains(&attribute), "{attribute} is missing: {cookie}");
    }
    assert!(!cookie.to_ascii_lowercase().contains("domain="), "{cookie}");
    assert!(cookie.len() < 400, "{cookie}");
}

#[tokio::test]
async fn over_http_the_cookie_has_its_plain_name() {
    let gateway = Setup::default()
        .with("[server]\npublic_url = 'http://localhost'")
        .start()
        .await;
    gateway.verified("ada@example.com").await;
    let answer = gateway.sign_in("ada@example.com").await;
    let cookie = answer.set_cookie("vestibule.session_token").expect("a session cookie");
    assert!(!cookie.contains("Secure"), "{cookie}");
}

#[tokio::test]
async fn enum_02_a_wrong_password_and_an_unknown_address_look_alike() {
    let gateway = Gateway::start().await;
    gateway.verified("ada@example.com").await;
    let try_out = async |email: &str| {
        let body = json!({ "email": email, "password": "not the password" });
        let answer = gateway.post(SIGN_IN).json(&body).await;
        let mut body = answer.json();
        body["requestId"] = json!("the request's");
        (answer.status(), body, answer.head.has("set-cookie"))
    };
    let wrong = try_out("ada@example.com").await;
    assert_eq!(wrong, try_out("nobody@example.com").await);
    assert_eq!(
        (wrong.0, wrong.1["code"].as_str().unwrap()),
        (401, "INVALID_EMAIL_OR_PASSWORD")
    );
    assert_eq!(gateway.db().count("SELECT count(*) FROM user_sessions").await, 0);
}

#[tokio::test]
async fn an_unverified_user_is_told_so_only_with_the_right_password() {
    let gateway = Gateway::start().await;
    gateway.sign_up("ada@example.com").await;
    gateway.mailbox().next_to("ada@example.com").await;

    let wrong = json!({ "email": "ada@example.com", "password": "not the password" });
    assert_eq!(
        gateway.post(SIGN_IN).json(&wrong).await.code(),
        "INVALID_EMAIL_OR_PASSWORD"
    );

    let right = gateway.sign_in("ada@example.com").await;
    assert_eq!((right.status(), right.code()), (403, "EMAIL_NOT_VERIFIED".to_owned()));
    assert!(right.set_cookie(gateway.session_cookie()).is_none());
    // A new link comes with the refusal.
    let mail = gateway.mailbox().next_to("ada@example.com").await;
    assert!(mail.link().contains("verify-email"), "{}", mail.text);
}

#[tokio::test]
async fn a_banned_user_is_told_so_only_with_the_right_password() {
    let gateway = Gateway::start().await;
    gateway.verified("ada@example.com").await;
    gateway.db().run("UPDATE users SET banned = true").await;

    let wrong = json!({ "email": "ada@example.com", "password": "not the password" });
    assert_eq!(
        gateway.post(SIGN_IN).json(&wrong).await.code(),
        "INVALID_EMAIL_OR_PASSWORD"
    );
    let right = gateway.sign_in("ada@example.com").await;
    assert_eq!((right.status(), right.code()), (403, "BANNED_USER".to_owned()));
}

#[tokio::test]
async fn sess_01_every_sign_in_makes_a_new_token_whatever_cookie_came_along() {
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    let body = json!({ "email": ada.email, "password": PASSWORD });
    let again = gateway.post(SIGN_IN).with(&ada).json(&body).await;
    assert_eq!(again.status(), 200, "{}", again.text());
    assert_ne!(again.json()["token"], json!(ada.token));
}

#[tokio::test]
async fn without_remember_me_the_cookie_ends_with_the_browser() {
    let gateway = Gateway::start().await;
    gateway.verified("ada@example.com").await;
    let body = json!({ "email": "ada@example.com", "password": PASSWORD, "rememberMe": false });
    let answer = gateway.post(SIGN_IN).json(&body).await;
    let cookie = answer.set_cookie(gateway.session_cookie()).unwrap();
    assert!(!cookie.contains("Max-Age"), "{cookie}");
    assert!(
        answer.set_cookie("__Host-vestibule.dont_remember").is_some(),
        "{:?}",
        answer.head
    );
}

#[tokio::test]
async fn without_remember_me_a_session_ends_no_later_than_any_other() {
    for (expires_in, life) in [("2h", 2), ("7d", 24)] {
        let over = format!("[auth.session]\nexpires_in = '{expires_in}'\nrefresh_after = '1h'");
        let gateway = Setup::default().with(&over).start().await;
        gateway.verified("ada@example.com").await;
        let body = json!({ "email": "ada@example.com", "password": PASSWORD, "rememberMe": false });
        assert_eq!(gateway.post(SIGN_IN).json(&body).await.status(), 200);
        let hours = "SELECT extract(epoch FROM expires_at - created_at)::bigint / 3600 FROM user_sessions";
        assert_eq!(gateway.db().count(hours).await, life, "{expires_in}");
    }
}

#[tokio::test]
async fn a_callback_url_comes_back_as_url_and_location() {
    let gateway = Gateway::start().await;
    gateway.verified("ada@example.com").await;
    let body = json!({ "email": "ada@example.com", "password": PASSWORD, "callbackURL": "/dash" });
    let answer = gateway.post(SIGN_IN).json(&body).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.json()["redirect"], true);
    assert_eq!(answer.json()["url"], "/dash");
    assert_eq!(answer.head.one("location"), Some("/dash"));
}

#[tokio::test]
async fn redir_01_a_callback_url_to_another_site_is_refused() {
    let gateway = Gateway::start().await;
    gateway.verified("ada@example.com").await;
    for target in [
        "//evil.example",
        "/\\evil.example",
        "https:evil.example",
        "/%2fevil.example",
        "///evil.example",
        "https://app.example.com@evil.example",
        "https://app.example.com.evil.example",
        "http://app.example.com",
        "javascript:alert(1)",
    ] {
        let body = json!({ "email": "ada@example.com", "password": PASSWORD, "callbackURL": target });
        let answer = gateway.post(SIGN_IN).json(&body).await;
        assert_eq!(
            (answer.status(), answer.code()),
            (403, "INVALID_CALLBACK_URL".to_owned()),
            "{target}"
        );
        assert!(answer.set_cookie(gateway.session_cookie()).is_none(), "{target}");
    }
}

#[tokio::test]
async fn csrf_01_a_form_of_another_site_can_not_sign_anybody_in() {
    let gateway = Gateway::start().await;
    gateway.verified("ada@example.com").await;
    let form = format!("email=ada%40example.com&password={}", PASSWORD.replace(' ', "+"));
    let answer = gateway
        .post(SIGN_IN)
        .header("Content-Type", "application/x-www-form-urlencoded")
        .header("Origin", "https://evil.example")
        .header("Sec-Fetch-Site", "cross-site")
        .header("Sec-Fetch-Mode", "navigate")
        .body(form.clone())
        .await;
    assert_eq!(
        (answer.status(), answer.code()),
        (403, "CROSS_SITE_NAVIGATION_LOGIN_BLOCKED".to_owned())
    );

    let own = gateway
        .post(SIGN_IN)
        .header("Content-Type", "application/x-www-form-urlencoded")
        .header("Origin", "https://app.example.com")
        .header("Sec-Fetch-Site", "same-origin")
        .body(form)
        .await;
    assert_eq!(own.status(), 200, "{}", own.text());
}

#[tokio::test]
async fn sess_12_a_database_holds_nothing_that_works_as_a_token() {
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    let client = gateway.db().client().await;
    let row = client
        .query_one("SELECT encode(token_hash, 'hex'), id::text FROM user_sessions", &[])
        .await
        .unwrap();
    for column in [0, 1] {
        let value: String = row.get(column);
        assert_ne!(value, ada.token);
        assert_eq!(gateway.get("/api/me").bearer(&value).await.status(), 401, "{value}");
        let cookie = format!("{}={value}", gateway.session_cookie());
        assert_eq!(
            gateway.get("/api/me").header("Cookie", cookie).await.status(),
            401,
            "{value}"
        );
    }
}
