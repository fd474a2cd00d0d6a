//! A forgotten password: asking, following the link, choosing another; and what strangers, scanners and races can't do.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;

use crate::harness::{Gateway, SOON, client::Response, eventually, gateway::SITE, people::PASSWORD};

const NEW: &str = "another horse, another battery";

async fn ask(gateway: &Gateway, email: &str) -> Response {
    let body = json!({ "email": email, "redirectTo": "/choose?x=1" });
    gateway.post("/api/auth/request-password-reset").json(&body).await
}

/// The mailed link, and the token in it.
async fn link(gateway: &Gateway, email: &str) -> (String, String) {
    let mail = gateway.mailbox().next_reset_to(email).await;
    (mail.link(), mail.token())
}

async fn choose(gateway: &Gateway, token: &str, password: &str) -> Response {
    let body = json!({ "token": token, "newPassword": password });
    gateway.post("/api/auth/reset-password").json(&body).await
}

async fn sign_in(gateway: &Gateway, password: &str) -> u16 {
    let body = json!({ "email": "ada@example.com", "password": password });
    gateway.post("/api/auth/sign-in/email").json(&body).await.status()
}

#[tokio::test]
async fn reset_05_reset_06_whoever_reads_the_mail_chooses_a_password_and_every_session_ends() {
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    assert_eq!(gateway.get("/api/me").with(&ada).await.status(), 200);
    let asked = ask(&gateway, "Ada@Example.com").await;
    assert_eq!(asked.json()["status"], json!(true));
    let (link, token) = link(&gateway, "ada@example.com").await;
    assert!(link.starts_with(SITE), "{link}");

    // A scanner follows the link, often; nothing is used up.
    for _ in 0..5 {
        let followed = gateway.open(&link).await;
        assert_eq!(followed.status(), 302);
        let target = format!("{SITE}/choose?x=1&token={token}");
        assert_eq!(followed.head.one("location"), Some(target.as_str()));
        assert_eq!(followed.head.one("referrer-policy"), Some("no-referrer"));
    }
    eventually(SOON, async || {
        gateway.log().matches("/reset-password/:token").count() == 5
    })
    .await;
    assert!(!gateway.log().contains(&token), "the log knows no token");
    // Too short: the link stays good.
    assert_eq!(choose(&gateway, &token, "short").await.code(), "PASSWORD_TOO_SHORT");
    let long = "x".repeat(129);
    assert_eq!(choose(&gateway, &token, &long).await.code(), "PASSWORD_TOO_LONG");

    let chosen = choose(&gateway, &token, NEW).await;
    assert_eq!((chosen.status(), chosen.json()), (200, json!({ "status": true })));
    assert!(!chosen.head.has("set-cookie"), "a reset signs nobody in");
    assert_eq!(gateway.get("/api/me").with(&ada).await.status(), 401);
    assert_eq!(
        (sign_in(&gateway, PASSWORD).await, sign_in(&gateway, NEW).await),
        (401, 200)
    );

    let again = choose(&gateway, &token, "yet another password").await;
    assert_eq!((again.status(), again.code()), (400, "INVALID_TOKEN".to_owned()));
    let followed = gateway.open(&link).await;
    let target = format!("{SITE}/choose?x=1&error=INVALID_TOKEN");
    assert_eq!(followed.head.one("location"), Some(target.as_str()));
}

#[tokio::test]
async fn enum_03_an_unknown_address_gets_the_same_answer_and_no_mail() {
    let gateway = Gateway::start().await;
    gateway.verified("ada@example.com").await;
    let shape = |answer: Response| (answer.status(), answer.json());
    let known = shape(ask(&gateway, "ada@example.com").await);
    assert_eq!(known, shape(ask(&gateway, "nobody@example.com").await));
    link(&gateway, "ada@example.com").await;
    assert!(gateway.mailbox().to("nobody@example.com").is_empty());
    let noted = "SELECT count(*) FROM audit_log WHERE action = 'request-password-reset'";
    assert_eq!(gateway.db().count(noted).await, 2);
}

#[tokio::test]
async fn reset_02_of_fifty_uses_at_once_exactly_one_wins() {
    let gateway = Gateway::start().await;
    gateway.verified("ada@example.com").await;
    ask(&gateway, "ada@example.com").await;
    let (_, token) = link(&gateway, "ada@example.com").await;
    let passwords: Vec<String> = (0..50).map(|n| format!("password number {n}")).collect();
    let answers = join_all(passwords.iter().map(|password| choose(&gateway, &token, password))).await;
    let statuses: Vec<u16> = answers.iter().map(Response::status).collect();
    assert_eq!(
        statuses.iter().filter(|status| **status == 200).count(),
        1,
        "{statuses:?}"
    );
    assert!(
        statuses.iter().all(|status| matches!(status, 200 | 400)),
        "{statuses:?}"
    );
    let winner = statuses.iter().position(|status| *status == 200).unwrap();
    assert_eq!(sign_in(&gateway, &passwords[winner]).await, 200);
}

#[tokio::test]
async fn reset_03_a_newer_link_voids_the_older_one_and_an_hour_voids_all() {
    let gateway = Gateway::start().await;
    gateway.verified("ada@example.com").await;
    ask(&gateway, "ada@example.com").await;
    let (_, older) = link(&gateway, "ada@example.com").await;
    ask(&gateway, "ada@example.com").await;
    let (newer_link, newer) = link(&gateway, "ada@example.com").await;
    assert_eq!(choose(&gateway, &older, NEW).await.code(), "INVALID_TOKEN");
    gateway.clock().advance(Duration::from_hours(1));
    assert_eq!(choose(&gateway, &newer, NEW).await.code(), "INVALID_TOKEN");
    let followed = gateway.open(&newer_link).await;
    assert!(followed.head.one("location").unwrap().contains("error=INVALID_TOKEN"));
    assert_eq!(sign_in(&gateway, PASSWORD).await, 200);
}

#[tokio::test]
async fn a_changed_password_voids_the_link() {
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    ask(&gateway, "ada@example.com").await;
    let (_, token) = link(&gateway, "ada@example.com").await;
    let body = json!({ "currentPassword": PASSWORD, "newPassword": NEW });
    let changed = gateway.post("/api/auth/change-password").with(&ada).json(&body).await;
    assert_eq!(changed.status(), 200, "{}", changed.text());
    assert_eq!(
        choose(&gateway, &token, "a third password").await.code(),
        "INVALID_TOKEN"
    );
    assert_eq!(sign_in(&gateway, NEW).await, 200);
}

#[tokio::test]
async fn reset_03_reset_10_a_link_of_another_purpose_or_of_nobody_resets_nothing() {
    let gateway = Gateway::start().await;
    gateway.sign_up("ada@example.com").await;
    let verification = gateway.mailbox().next_to("ada@example.com").await.token();
    for token in [verification.as_str(), "x", "", &"a".repeat(43)] {
        let answer = choose(&gateway, token, NEW).await;
        assert_eq!(
            (answer.status(), answer.code()),
            (400, "INVALID_TOKEN".to_owned()),
            "{token}"
        );
    }
    let none = gateway
        .post("/api/auth/reset-password")
        .json(&json!({ "newPassword": NEW }))
        .await;
    assert_eq!(none.code(), "INVALID_TOKEN");
    ask(&gateway, "ada@example.com").await;
    let (_, token) = link(&gateway, "ada@example.com").await;
    // Nor does a reset link verify.
    let verified = gateway.get(&format!("/api/auth/verify-email?token={token}")).await;
    assert_eq!(verified.code(), "INVALID_TOKEN");
    gateway.db().run("DELETE FROM users").await;
    let gone = choose(&gateway, &token, NEW).await;
    assert_eq!((gone.status(), gone.code()), (400, "USER_NOT_FOUND".to_owned()));
}

#[tokio::test]
async fn the_token_may_stand_in_the_query_and_a_user_without_password_gets_one() {
    let gateway = Gateway::start().await;
    gateway.verified("ada@example.com").await;
    gateway.db().run("DELETE FROM accounts").await;
    ask(&gateway, "ada@example.com").await;
    let (_, token) = link(&gateway, "ada@example.com").await;
    let target = format!("/api/auth/reset-password?token={token}");
    let chosen = gateway.post(&target).json(&json!({ "newPassword": NEW })).await;
    assert_eq!(chosen.status(), 200, "{}", chosen.text());
    assert_eq!(sign_in(&gateway, NEW).await, 200);
}

#[tokio::test]
async fn a_strangers_sign_up_can_t_undo_a_reset() {
    let gateway = Gateway::start().await;
    // Somebody signs up with Ada's address; she resets the password, and later opens their link after all.
    gateway.sign_up("ada@example.com").await;
    let stranger = gateway.mailbox().next_to("ada@example.com").await.link();
    ask(&gateway, "ada@example.com").await;
    let (_, token) = link(&gateway, "ada@example.com").await;
    assert_eq!(choose(&gateway, &token, NEW).await.status(), 200);
    assert_eq!(gateway.open(&stranger).await.status(), 302);
    assert_eq!(
        (sign_in(&gateway, PASSWORD).await, sign_in(&gateway, NEW).await),
        (401, 200)
    );
}

#[tokio::test]
async fn a_target_that_no_link_could_carry_is_refused_and_voids_nothing() {
    let gateway = Gateway::start().await;
    gateway.verified("ada@example.com").await;
    ask(&gateway, "ada@example.com").await;
    let (_, token) = link(&gateway, "ada@example.com").await;
    let target = |bytes: usize| format!("/{}", "x".repeat(bytes - 1));
    for bytes in [2049, 40_000] {
        let body = json!({ "email": "ada@example.com", "redirectTo": target(bytes) });
        let refused = gateway.post("/api/auth/request-password-reset").json(&body).await;
        assert_eq!((refused.status(), refused.code()), (400, "VALIDATION_ERROR".to_owned()));
        let message = "[body.redirectTo] Too big: expected string to have <=2048 bytes";
        assert_eq!(refused.json()["message"], json!(message));
    }
    assert_eq!(gateway.mailbox().to("ada@example.com").len(), 2, "no other mail");
    assert_eq!(
        choose(&gateway, &token, NEW).await.status(),
        200,
        "the link is still good"
    );

    let body = json!({ "email": "ada@example.com", "redirectTo": target(2048) });
    let asked = gateway.post("/api/auth/request-password-reset").json(&body).await;
    assert_eq!(asked.status(), 200);
    let (link, _) = link(&gateway, "ada@example.com").await;
    assert_eq!(
        gateway.open(&link).await.status(),
        302,
        "and such a link can be followed"
    );
}

#[tokio::test]
async fn reset_01_links_lead_where_they_may_and_come_from_public_url() {
    let gateway = Gateway::start().await;
    gateway.verified("ada@example.com").await;
    let foreign = json!({ "email": "ada@example.com", "redirectTo": "https://evil.example/" });
    let refused = gateway.post("/api/auth/request-password-reset").json(&foreign).await;
    assert_eq!(
        (refused.status(), refused.code()),
        (403, "INVALID_REDIRECT_URL".to_owned())
    );
    let target = "/api/auth/reset-password/abc?callbackURL=https%3A%2F%2Fevil.example%2F";
    assert_eq!(gateway.get(target).await.code(), "INVALID_CALLBACK_URL");
    assert_eq!(
        gateway.get("/api/auth/reset-password/abc").await.code(),
        "VALIDATION_ERROR"
    );
    let body = json!({ "email": "ada@example.com" });
    let asked = gateway
        .post("/api/auth/request-password-reset")
        .header("X-Forwarded-Host", "evil.example")
        .json(&body)
        .await;
    assert_eq!(asked.status(), 200);
    let (link, _) = link(&gateway, "ada@example.com").await;
    assert!(link.starts_with(SITE), "{link}");
    // Without a target, our own page says what is the matter.
    let nowhere = gateway.get("/api/auth/reset-password/abc?callbackURL=").await;
    let page = format!("{SITE}/api/auth/error?error=INVALID_TOKEN");
    assert_eq!(nowhere.head.one("location"), Some(page.as_str()));
    let shown = gateway.open(&page).await;
    assert!(shown.text().contains("INVALID_TOKEN"), "{}", shown.text());
}

#[tokio::test]
async fn a_good_link_without_a_target_leads_to_the_front_page() {
    let gateway = Gateway::start().await;
    gateway.verified("ada@example.com").await;
    let body = json!({ "email": "ada@example.com" });
    gateway.post("/api/auth/request-password-reset").json(&body).await;
    let (link, token) = link(&gateway, "ada@example.com").await;
    assert!(link.ends_with("?callbackURL="), "{link}");
    let followed = gateway.open(&link).await;
    let target = format!("{SITE}/?token={token}");
    assert_eq!(followed.head.one("location"), Some(target.as_str()));
}

#[tokio::test]
async fn a_refused_request_leaves_no_token_in_the_log_either() {
    let gateway = Gateway::start().await;
    let token = "S3CRET7890123456789012345678901234567890abc";
    let target = format!("/api/auth/reset-password/{token}?callbackURL=%2F");
    assert_eq!(gateway.get(&target).header("Host", "evil.example").await.status(), 421);
    assert_eq!(gateway.get(&target).header("Expect", "something").await.status(), 417);
    eventually(SOON, async || {
        gateway.log().matches("/reset-password/:token").count() == 2
    })
    .await;
    assert!(!gateway.log().contains(token), "{}", gateway.log());
}

/// As mail programs and wrapped lines leave it: no path at all, and yet the token in it is good.
#[tokio::test]
async fn the_token_of_a_damaged_link_is_in_no_log() {
    let gateway = Gateway::start().await;
    gateway.verified("ada@example.com").await;
    ask(&gateway, "ada@example.com").await;
    let (_, token) = link(&gateway, "ada@example.com").await;
    let damaged = [
        format!("/api/auth/reset-password/{token}%0D?callbackURL=%2F"),
        format!("/api/auth/reset-password/{token}%2F"),
        format!("/api/auth/reset-password%2F{token}"),
        format!("/api/auth/Reset-Password/{token}%5C"),
        format!("/x%00/api/auth/reset-password%252f{token}"),
    ];
    for target in &damaged {
        assert_eq!(gateway.get(target).await.status(), 400, "{target}");
    }
    eventually(SOON, async || {
        gateway.log().matches("/reset-password/:token").count() == damaged.len()
    })
    .await;
    assert!(!gateway.log().contains(&token), "{}", gateway.log());
}
