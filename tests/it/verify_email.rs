//! Verifying an address by the link in a mail.

use std::time::Duration;

use serde_json::json;

use crate::harness::{Gateway, Setup, client::Response, gateway::SITE, people::PASSWORD};

#[tokio::test]
async fn the_link_verifies_and_the_user_can_sign_in() {
    let gateway = Gateway::start().await;
    gateway.sign_up("ada@example.com").await;
    let link = gateway.mailbox().next_to("ada@example.com").await.link();
    assert!(
        link.starts_with("https://app.example.com/"),
        "links come from public_url: {link}"
    );

    let answer = gateway.open(&link).await;
    assert!(matches!(answer.status(), 200 | 302), "{}", answer.text());
    assert_eq!(gateway.sign_in("ada@example.com").await.status(), 200);
}

#[tokio::test]
async fn whoever_else_opens_the_link_gets_no_session() {
    let gateway = Gateway::start().await;
    gateway.sign_up("ada@example.com").await;
    let link = gateway.mailbox().next_to("ada@example.com").await.link();
    for _ in 0..3 {
        // A mail scanner: another browser than the one that signed up.
        let answer = gateway.open(&link).await;
        assert!(
            answer.set_cookie(gateway.session_cookie()).is_none(),
            "{:?}",
            answer.head
        );
    }
    assert_eq!(gateway.db().count("SELECT count(*) FROM user_sessions").await, 0);
}

#[tokio::test]
async fn a_second_visit_is_no_error() {
    let gateway = Gateway::start().await;
    gateway.sign_up("ada@example.com").await;
    let token = gateway.mailbox().next_to("ada@example.com").await.token();
    for _ in 0..2 {
        let answer = gateway.get(&format!("/api/auth/verify-email?token={token}")).await;
        assert_eq!((answer.status(), answer.json()["status"].clone()), (200, json!(true)));
    }
}

#[tokio::test]
async fn the_link_lives_fifteen_minutes() {
    let gateway = Gateway::start().await;
    gateway.sign_up("ada@example.com").await;
    let token = gateway.mailbox().next_to("ada@example.com").await.token();
    gateway.clock().advance(Duration::from_mins(15));

    let plain = gateway.get(&format!("/api/auth/verify-email?token={token}")).await;
    assert_eq!((plain.status(), plain.code()), (401, "TOKEN_EXPIRED".to_owned()));
    let target = format!("/api/auth/verify-email?token={token}&callbackURL=%2Fwelcome%3Fx%3D1%23top");
    let redirected = gateway.get(&target).await;
    assert_eq!(redirected.status(), 302);
    assert_eq!(
        redirected.head.one("location"),
        Some("/welcome?x=1&error=TOKEN_EXPIRED#top")
    );
    assert_eq!(gateway.sign_in("ada@example.com").await.code(), "EMAIL_NOT_VERIFIED");
}

#[tokio::test]
async fn an_unknown_token_is_refused() {
    let gateway = Gateway::start().await;
    let plain = gateway.get("/api/auth/verify-email?token=abc").await;
    assert_eq!((plain.status(), plain.code()), (401, "INVALID_TOKEN".to_owned()));
    let redirected = gateway
        .get("/api/auth/verify-email?token=abc&callbackURL=%2Fwelcome%3Fx%3D1")
        .await;
    assert_eq!(redirected.status(), 302);
    assert_eq!(
        redirected.head.one("location"),
        Some("/welcome?x=1&error=INVALID_TOKEN")
    );
    let none = gateway.get("/api/auth/verify-email").await;
    assert_eq!((none.status(), none.code()), (400, "VALIDATION_ERROR".to_owned()));
}

#[tokio::test]
async fn a_redirect_to_another_site_is_refused_before_the_token_is_used() {
    let gateway = Gateway::start().await;
    gateway.sign_up("ada@example.com").await;
    let token = gateway.mailbox().next_to("ada@example.com").await.token();
    let target = format!("/api/auth/verify-email?token={token}&callbackURL=https%3A%2F%2Fevil.example");
    let answer = gateway.get(&target).await;
    assert_eq!(
        (answer.status(), answer.code()),
        (403, "INVALID_CALLBACK_URL".to_owned())
    );
    assert_eq!(gateway.sign_in("ada@example.com").await.code(), "EMAIL_NOT_VERIFIED");
}

#[tokio::test]
async fn reset_01_a_mail_never_links_to_where_the_request_says_it_is() {
    let gateway = Gateway::start().await;
    let body = json!({ "name": "Ada", "email": "ada@example.com", "password": PASSWORD });
    let answer = gateway
        .post("/api/auth/sign-up/email")
        .header("X-Forwarded-Host", "evil.example")
        .header("Forwarded", "host=evil.example")
        .json(&body)
        .await;
    assert_eq!(answer.status(), 200, "{}", answer.text());
    let mail = gateway.mailbox().next_to("ada@example.com").await;
    assert!(mail.link().starts_with("https://app.example.com/"), "{}", mail.link());
    assert!(!mail.raw.contains("evil.example"), "{}", mail.raw);
}

#[tokio::test]
async fn asking_for_a_new_link_tells_nothing_about_who_exists() {
    let gateway = Gateway::start().await;
    gateway.sign_up("ada@example.com").await;
    gateway.mailbox().next_to("ada@example.com").await;
    for email in ["ada@example.com", "nobody@example.com"] {
        let answer = gateway
            .post("/api/auth/send-verification-email")
            .json(&json!({ "email": email }))
            .await;
        assert_eq!(
            (answer.status(), answer.json()),
            (200, json!({ "status": true })),
            "{email}"
        );
    }
    gateway.mailbox().next_to("ada@example.com").await;
    assert_eq!(gateway.mailbox().to("nobody@example.com").len(), 0);
}

#[tokio::test]
async fn reset_08_tokens_are_stored_as_hashes() {
    let gateway = Gateway::start().await;
    gateway.sign_up("ada@example.com").await;
    let token = gateway.mailbox().next_to("ada@example.com").await.token();
    let client = gateway.db().client().await;
    let rows = client
        .query("SELECT t::text FROM one_time_tokens AS t", &[])
        .await
        .unwrap();
    assert_eq!(rows.len(), 1);
    assert!(!rows[0].get::<_, String>(0).contains(&token));
}

/// Signs up with a password of one's own; the browser's mark, as it is sent back.
async fn sign_up_as(gateway: &Gateway, name: &str, password: &str) -> String {
    let body = json!({ "name": name, "email": "ada@example.com", "password": password });
    let answer = gateway.post("/api/auth/sign-up/email").json(&body).await;
    assert_eq!(answer.status(), 200, "{}", answer.text());
    mark_of(&answer)
}

#[track_caller]
fn mark_of(answer: &Response) -> String {
    let mark = answer.set_cookie("__Host-vestibule.sign_up").expect("a mark");
    mark.split(';').next().unwrap().to_owned()
}

/// What a sign-in with that password is told.
async fn sign_in_with(gateway: &Gateway, password: &str) -> String {
    let body = json!({ "email": "ada@example.com", "password": password });
    let answer = gateway.post("/api/auth/sign-in/email").json(&body).await;
    if answer.status() == 200 {
        "OK".to_owned()
    } else {
        answer.code()
    }
}

/// The owner of the address opens the mail of somebody else's sign-up, in their own browser and in one without a mark:
/// neither puts the stranger's password in force, and the owner's own link is as good as before.
async fn a_strangers_link_is_void(gateway: &Gateway, strangers: &str, own: &str, mark: &str) {
    for cookie in [mark, "theme=dark"] {
        let opened = gateway.open(strangers).header("Cookie", cookie).await;
        assert_eq!(opened.head.one("location"), Some("/?error=INVALID_TOKEN"));
        assert_eq!(
            sign_in_with(gateway, "the stranger's own").await,
            "INVALID_EMAIL_OR_PASSWORD"
        );
    }
    let opened = gateway.open(own).header("Cookie", mark).await;
    assert_eq!(opened.head.one("location"), Some("/"), "{}", opened.text());
    assert_eq!(sign_in_with(gateway, PASSWORD).await, "OK");
    gateway.open(strangers).await;
    assert_eq!(
        sign_in_with(gateway, "the stranger's own").await,
        "INVALID_EMAIL_OR_PASSWORD"
    );
    assert_eq!(sign_in_with(gateway, PASSWORD).await, "OK");
}

#[tokio::test]
async fn whoever_signs_up_last_does_not_get_the_account_by_the_owners_click() {
    for sign_in_after in ["same-browser", "always", "never"] {
        let over = format!("[auth.email_verification]\nsign_in_after = '{sign_in_after}'");
        let gateway = Setup::default().with(&over).start().await;
        let mark = sign_up_as(&gateway, "Ada", PASSWORD).await;
        let own = gateway.mailbox().next_to("ada@example.com").await.link();
        sign_up_as(&gateway, "Eve", "the stranger's own").await;
        let strangers = gateway.mailbox().next_to("ada@example.com").await.link();
        a_strangers_link_is_void(&gateway, &strangers, &own, &mark).await;
    }
}

#[tokio::test]
async fn whoever_signs_up_first_does_not_get_the_account_by_the_owners_click() {
    let gateway = Setup::default()
        .with("[auth.email_verification]\nsend_on_sign_in = false")
        .start()
        .await;
    sign_up_as(&gateway, "Eve", "the stranger's own").await;
    let strangers = gateway.mailbox().next_to("ada@example.com").await.link();
    let mark = sign_up_as(&gateway, "Ada", PASSWORD).await;
    let own = gateway.mailbox().next_to("ada@example.com").await.link();
    // The first sign-up's password is the account's until then.
    for cookie in [&mark, "theme=dark"] {
        gateway.open(&strangers).header("Cookie", cookie).await;
        assert_eq!(sign_in_with(&gateway, "the stranger's own").await, "EMAIL_NOT_VERIFIED");
    }
    let opened = gateway.open(&own).header("Cookie", &mark).await;
    assert!(
        opened.set_cookie(gateway.session_cookie()).is_some(),
        "{:?}",
        opened.head
    );
    assert_eq!(sign_in_with(&gateway, PASSWORD).await, "OK");
    assert_eq!(
        sign_in_with(&gateway, "the stranger's own").await,
        "INVALID_EMAIL_OR_PASSWORD"
    );
}

/// The owner's own link is over, and maybe off the records: they still wait for a mail, and this one is another's.
#[tokio::test]
async fn whoever_signs_up_once_the_owners_link_is_over_does_not_get_the_account_by_the_owners_click() {
    for is_swept in [false, true] {
        let gateway = Setup::default()
            .with("[auth.email_verification]\nsend_on_sign_in = false")
            .start()
            .await;
        sign_up_as(&gateway, "Ada", PASSWORD).await;
        gateway.mailbox().next_to("ada@example.com").await;
        gateway.clock().advance(Duration::from_mins(20));
        if is_swept {
            gateway.db().run("DELETE FROM one_time_tokens").await;
        }
        sign_up_as(&gateway, "Eve", "the stranger's own").await;
        let strangers = gateway.mailbox().next_to("ada@example.com").await.link();
        let opened = gateway.open(&strangers).await;
        assert_eq!(opened.head.one("location"), Some("/?error=INVALID_TOKEN"), "{is_swept}");
        assert_eq!(
            sign_in_with(&gateway, "the stranger's own").await,
            "INVALID_EMAIL_OR_PASSWORD"
        );
        // By signing up anew she gets in where she does so.
        let mark = sign_up_as(&gateway, "Ada", "another that Ada chose").await;
        let own = gateway.mailbox().next_to("ada@example.com").await.link();
        let opened = gateway.open(&own).header("Cookie", &mark).await;
        assert_eq!(opened.head.one("location"), Some("/"), "{}", opened.text());
        assert_eq!(sign_in_with(&gateway, "another that Ada chose").await, "OK");
    }
}

#[tokio::test]
async fn a_link_asked_for_in_a_third_browser_puts_nobody_elses_password_in_force() {
    let gateway = Setup::default()
        .with("[auth.email_verification]\nsend_on_sign_in = false")
        .start()
        .await;
    sign_up_as(&gateway, "Eve", "the stranger's own").await;
    sign_up_as(&gateway, "Ada", PASSWORD).await;
    for _ in 0..2 {
        gateway.mailbox().next_to("ada@example.com").await;
    }
    // Also when the links of both are over.
    for later in [Duration::ZERO, Duration::from_mins(20)] {
        gateway.clock().advance(later);
        let asked = gateway
            .post("/api/auth/send-verification-email")
            .json(&json!({ "email": "ada@example.com" }))
            .await;
        let link = gateway.mailbox().next_to("ada@example.com").await.link();
        gateway.open(&link).header("Cookie", mark_of(&asked)).await;
        gateway.open(&link).await;
        assert_eq!(sign_in_with(&gateway, "the stranger's own").await, "EMAIL_NOT_VERIFIED");
    }
}

#[tokio::test]
async fn signing_up_twice_in_one_browser_is_no_contest() {
    let gateway = Gateway::start().await;
    let mark = sign_up_as(&gateway, "Ada", "a first password").await;
    gateway.mailbox().next_to("ada@example.com").await;
    let body = json!({ "name": "Ada", "email": "ada@example.com", "password": PASSWORD });
    let again = gateway
        .post("/api/auth/sign-up/email")
        .header("Cookie", &mark)
        .header("Origin", SITE)
        .json(&body)
        .await;
    assert_eq!(again.status(), 200, "{}", again.text());
    let link = gateway.mailbox().next_to("ada@example.com").await.link();
    // On another device.
    gateway.open(&link).await;
    assert_eq!(sign_in_with(&gateway, PASSWORD).await, "OK");
}

#[tokio::test]
async fn a_link_asked_for_on_another_device_verifies_where_nobody_competes() {
    let gateway = Gateway::start().await;
    gateway.sign_up("ada@example.com").await;
    gateway.mailbox().next_to("ada@example.com").await;
    gateway
        .post("/api/auth/send-verification-email")
        .json(&json!({ "email": "ada@example.com" }))
        .await;
    let link = gateway.mailbox().next_to("ada@example.com").await.link();
    gateway.open(&link).await;
    assert_eq!(sign_in_with(&gateway, PASSWORD).await, "OK");
}

#[tokio::test]
async fn a_link_that_does_not_verify_is_in_the_audit_log() {
    let gateway = Gateway::start().await;
    let void = async |token: &str| {
        gateway.get(&format!("/api/auth/verify-email?token={token}")).await;
    };
    void("abc").await;
    for email in ["ada@example.com", "bob@example.com"] {
        gateway.sign_up(email).await;
    }
    let expired = gateway.mailbox().next_to("ada@example.com").await.token();
    let orphaned = gateway.mailbox().next_to("bob@example.com").await.token();
    gateway
        .db()
        .run("SET search_path TO auth; DELETE FROM users WHERE email = 'bob@example.com'")
        .await;
    void(&orphaned).await;
    gateway.clock().advance(Duration::from_mins(15));
    void(&expired).await;

    let client = gateway.db().client().await;
    let rows = client
        .query(
            "SELECT reason, outcome, (SELECT email FROM users WHERE id = subject_id) FROM audit_log
             WHERE action = 'verify-email' ORDER BY reason",
            &[],
        )
        .await
        .unwrap();
    let found: Vec<(String, String, Option<String>)> =
        rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect();
    let refused =
        |reason: &str, email: Option<&str>| (reason.to_owned(), "refused".to_owned(), email.map(str::to_owned));
    assert_eq!(
        found,
        [
            refused("INVALID_TOKEN", None),
            refused("TOKEN_EXPIRED", Some("ada@example.com")),
            refused("USER_NOT_FOUND", None),
        ]
    );
}

#[tokio::test]
async fn a_link_whose_session_could_not_begin_works_again() {
    let gateway = Gateway::start().await;
    let mark = sign_up_as(&gateway, "Ada", PASSWORD).await;
    let link = gateway.mailbox().next_to("ada@example.com").await.link();
    gateway.db().run("ALTER TABLE auth.user_sessions RENAME TO away").await;
    assert_eq!(gateway.open(&link).header("Cookie", &mark).await.status(), 500);
    let verified = "SELECT count(*) FROM users WHERE email_verified";
    assert_eq!(gateway.db().count(verified).await, 0);
    gateway.db().run("ALTER TABLE auth.away RENAME TO user_sessions").await;
    let opened = gateway.open(&link).header("Cookie", &mark).await;
    assert!(
        opened.set_cookie(gateway.session_cookie()).is_some(),
        "{:?}",
        opened.head
    );
}
