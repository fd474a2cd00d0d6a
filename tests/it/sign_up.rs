//! Signing up with an address and a password.

use serde_json::json;

use crate::harness::{Gateway, Setup, people::PASSWORD};

const SIGN_UP: &str = "/api/auth/sign-up/email";

#[tokio::test]
async fn a_new_user_is_answered_as_the_contract_says_and_gets_a_mail() {
    let gateway = Gateway::start().await;
    let answer = gateway.sign_up("Ada@Example.com").await;

    assert_eq!(answer.status(), 200, "{}", answer.text());
    let body = answer.json();
    assert_eq!(
        body["token"],
        json!(null),
        "nobody is signed in before the address is verified"
    );
    assert_eq!(body["user"]["email"], "ada@example.com");
    assert_eq!(body["user"]["emailVerified"], false);
    assert_eq!(body["user"]["createdAt"], "2026-11-21T08:00:00.000Z");
    assert_eq!(body["user"]["image"], json!(null));
    assert!(answer.set_cookie(gateway.session_cookie()).is_none());
    assert_eq!(answer.head.one("cache-control"), Some("no-store"));

    let mail = gateway.mailbox().next_to("ada@example.com").await;
    assert!(mail.link().contains("/api/auth/verify-email?token="), "{}", mail.text);
    assert_eq!(gateway.db().count("SELECT count(*) FROM users").await, 1);
}

#[tokio::test]
async fn enum_01_a_taken_address_is_answered_like_a_free_one() {
    let gateway = Gateway::start().await;
    let first = gateway.sign_up("ada@example.com").await;
    let again = json!({ "name": "Eve", "email": "ADA@example.com", "password": "another password" });
    let second = gateway.post(SIGN_UP).json(&again).await;

    assert_eq!(second.status(), 200);
    let (first, second) = (first.json(), second.json());
    let keys = |body: &serde_json::Value| body["user"].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&first), keys(&second));
    assert_eq!(second["user"]["name"], "Eve", "the submitted name comes back");
    assert_ne!(first["user"]["id"], second["user"]["id"], "with a made-up id");
    assert_eq!(gateway.db().count("SELECT count(*) FROM users").await, 1);
    assert_eq!(
        gateway
            .db()
            .count("SELECT count(*) FROM users WHERE name = 'Eve'")
            .await,
        0
    );
}

#[tokio::test]
async fn what_is_stored_of_a_password_is_its_hash() {
    let gateway = Gateway::start().await;
    gateway.sign_up("ada@example.com").await;
    let client = gateway.db().client().await;
    let hash: String = client
        .query_one("SELECT password_hash FROM accounts", &[])
        .await
        .unwrap()
        .get(0);
    assert!(hash.starts_with("$argon2id$v=19$m=64,t=1,p=1$"), "{hash}");
    assert!(!hash.contains(PASSWORD));
}

#[tokio::test]
async fn passwords_are_counted_in_utf16_units() {
    let gateway = Gateway::start().await;
    for (password, status, code) in [
        ("seven77".to_owned(), 400, "PASSWORD_TOO_SHORT"),
        ("𝒂𝒂𝒂".to_owned(), 400, "PASSWORD_TOO_SHORT"),
        ("𝒂𝒂𝒂𝒂".to_owned(), 200, ""),
        ("x".repeat(128), 200, ""),
        ("x".repeat(129), 400, "PASSWORD_TOO_LONG"),
        ("𝒂".repeat(65), 400, "PASSWORD_TOO_LONG"),
    ] {
        let email = format!("{}-{}@example.com", password.chars().count(), password.len());
        let body = json!({ "name": "Ada", "email": email, "password": password });
        let answer = gateway.post(SIGN_UP).json(&body).await;
        assert_eq!(answer.status(), status, "{password:?}: {}", answer.text());
        if status != 200 {
            assert_eq!(answer.code(), code, "{password:?}");
        }
    }
}

#[tokio::test]
async fn nobody_makes_themselves_an_admin() {
    let gateway = Gateway::start().await;
    for field in ["role", "banned", "banReason", "banExpires", "twoFactorEnabled"] {
        let mut body = json!({ "name": "Eve", "email": "eve@example.com", "password": PASSWORD });
        body[field] = json!("admin");
        let answer = gateway.post(SIGN_UP).json(&body).await;
        assert_eq!(
            (answer.status(), answer.code()),
            (400, "FIELD_NOT_ALLOWED".to_owned()),
            "{field}"
        );
    }
    assert_eq!(gateway.db().count("SELECT count(*) FROM users").await, 0);
}

#[tokio::test]
async fn sign_up_can_be_switched_off() {
    let gateway = Setup::default().with("[auth]\nsign_up = false").start().await;
    let answer = gateway.sign_up("ada@example.com").await;
    assert_eq!(
        (answer.status(), answer.code()),
        (400, "EMAIL_PASSWORD_SIGN_UP_DISABLED".to_owned())
    );
    assert_eq!(gateway.db().count("SELECT count(*) FROM users").await, 0);
}

#[tokio::test]
async fn two_who_sign_up_with_one_address_at_once_make_one_user() {
    let gateway = Gateway::start().await;
    let attempts = (0..8).map(|_| gateway.sign_up("ada@example.com"));
    for answer in futures_util::future::join_all(attempts).await {
        assert_eq!(answer.status(), 200, "{}", answer.text());
    }
    assert_eq!(gateway.db().count("SELECT count(*) FROM users").await, 1);
    assert_eq!(gateway.db().count("SELECT count(*) FROM accounts").await, 1);
}

#[tokio::test]
async fn what_happened_is_in_the_audit_log() {
    let gateway = Gateway::start().await;
    gateway.sign_up("ada@example.com").await;
    assert_eq!(gateway.db().count("SELECT count(*) FROM audit_log").await, 1);
}

#[tokio::test]
async fn a_sign_up_whose_session_could_not_begin_never_was() {
    let gateway = Setup::default()
        .with("[auth.email_verification]\nrequired = false")
        .start()
        .await;
    gateway.db().run("ALTER TABLE auth.user_sessions RENAME TO away").await;
    assert_eq!(gateway.sign_up("ada@example.com").await.status(), 500);
    assert_eq!(gateway.db().count("SELECT count(*) FROM users").await, 0);
    gateway.db().run("ALTER TABLE auth.away RENAME TO user_sessions").await;
    let answer = gateway.sign_up("ada@example.com").await;
    assert_eq!(answer.status(), 200, "{}", answer.text());
    assert!(answer.set_cookie(gateway.session_cookie()).is_some());
}

/// Accounts that nobody made by signing up: whoever signs up with their address decides nothing about them.
#[tokio::test]
async fn a_strangers_sign_up_changes_no_account_that_came_otherwise() {
    let gateway = Gateway::start().await;
    gateway
        .db()
        .run(
            "INSERT INTO users (id, email, name, roles, created_at, updated_at)
             VALUES (gen_random_uuid(), 'root@example.com', 'Root', '{admin}', now(), now())",
        )
        .await;
    assert_eq!(gateway.sign_up("root@example.com").await.status(), 200);
    let mail = gateway.mailbox().next_to("root@example.com").await;
    assert!(
        mail.subject.contains("already"),
        "nothing to be confirmed: {}",
        mail.subject
    );
    assert_eq!(gateway.db().count("SELECT count(*) FROM accounts").await, 0);
    assert_eq!(
        gateway.sign_in("root@example.com").await.code(),
        "INVALID_EMAIL_OR_PASSWORD"
    );
}

#[tokio::test]
async fn a_strangers_sign_up_after_a_reset_changes_nothing() {
    let gateway = Gateway::start().await;
    gateway.sign_up("ada@example.com").await;
    gateway.mailbox().next_to("ada@example.com").await;
    let body = json!({ "email": "ada@example.com" });
    gateway.post("/api/auth/request-password-reset").json(&body).await;
    let token = gateway.mailbox().next_to("ada@example.com").await.token();
    let body = json!({ "token": token, "newPassword": "what Ada has chosen" });
    let chosen = gateway.post("/api/auth/reset-password").json(&body).await;
    assert_eq!(chosen.status(), 200, "{}", chosen.text());

    // Eve's, with another password.
    assert_eq!(gateway.sign_up("ada@example.com").await.status(), 200);
    let mail = gateway.mailbox().next_to("ada@example.com").await;
    assert!(mail.subject.contains("already"), "{}", mail.subject);
    assert_eq!(
        gateway.sign_in("ada@example.com").await.code(),
        "INVALID_EMAIL_OR_PASSWORD"
    );
    // Ada verifies by the mail that her own sign-in brings.
    let body = json!({ "email": "ada@example.com", "password": "what Ada has chosen" });
    let own = gateway.post("/api/auth/sign-in/email").json(&body).await;
    assert_eq!(own.code(), "EMAIL_NOT_VERIFIED");
    let link = gateway.mailbox().next_to("ada@example.com").await.link();
    assert_eq!(gateway.open(&link).await.status(), 302);
    assert_eq!(gateway.post("/api/auth/sign-in/email").json(&body).await.status(), 200);
}

/// An impatient person, and a mail program with a browser of its own.
#[tokio::test]
async fn whoever_signs_up_twice_with_one_password_may_open_either_link_anywhere() {
    for opens in [0, 1] {
        let gateway = Gateway::start().await;
        for _ in 0..2 {
            assert_eq!(gateway.sign_up("ada@example.com").await.status(), 200);
        }
        let mut links = Vec::new();
        for _ in 0..2 {
            links.push(gateway.mailbox().next_to("ada@example.com").await.link());
        }
        let opened = gateway.open(&links[opens]).await;
        assert_eq!(opened.head.one("location"), Some("/"), "link {opens}");
        assert_eq!(gateway.sign_in("ada@example.com").await.status(), 200);
    }
}
