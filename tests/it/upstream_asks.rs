//! What an upstream may ask in its answers: that sessions end, that a person signs in again.

use crate::harness::{Database, Gateway, SOON, Setup, eventually, people::User};

fn answer(status: &str, fields: &[&str]) -> String {
    let head = [&[status], fields].concat().join("\r\n");
    format!("HTTP/1.1 {head}\r\nContent-Length: 4\r\n\r\nbody")
}

/// An upstream that answers `/api/ask` (and its like on other routes) so.
async fn asking(status: &str, fields: &[&str]) -> (Gateway, User) {
    let gateway = Setup::default().with("auth.pages.sign_in = '/sign-in'").start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    for path in ["/api/ask", "/public/ask", "/optional/ask"] {
        gateway.upstream().answer(path, answer(status, fields));
    }
    (gateway, ada)
}

async fn status(gateway: &Gateway, user: &User) -> u16 {
    gateway.get("/api/x").with(user).await.status()
}

#[tokio::test]
async fn a_session_that_it_ends_is_over_when_the_client_hears_of_it() {
    let (gateway, ada) = asking("200 OK", &["X-Vestibule-Sign-Out: session", "X-Other: kept"]).await;
    let elsewhere = User::of(&gateway, &gateway.sign_in("ada@example.com").await);
    let answer = gateway.get("/api/ask").with(&ada).await;
    assert_eq!((answer.status(), answer.text()), (200, "body"));
    assert!(!answer.head.has("x-vestibule-sign-out"));
    assert_eq!(answer.head.one("x-other"), Some("kept"));
    let cookie = answer.set_cookie(gateway.session_cookie()).unwrap();
    assert!(cookie.contains("=;") && cookie.contains("Max-Age=0"), "{cookie}");
    assert_eq!(answer.head.one("cache-control"), Some("no-store"));
    assert_eq!(status(&gateway, &ada).await, 401);
    assert_eq!(status(&gateway, &elsewhere).await, 200);
    let written = "SELECT count(*) FROM audit_log WHERE action = 'revoke-session' AND reason = 'upstream app'
                   AND ip_address = '127.0.0.1' AND request_id <> ''";
    assert_eq!(gateway.db().count(written).await, 1);
}

#[tokio::test]
async fn all_sessions_of_a_user_end_everywhere_and_nobody_else_s() {
    let db = Database::fresh().await;
    let (gateway, there) = (Gateway::on(&db).await, Gateway::on(&db).await);
    let ada = gateway.signed_in("ada@example.com").await;
    let elsewhere = User::of(&gateway, &gateway.sign_in("ada@example.com").await);
    let bob = gateway.signed_in("bob@example.com").await;
    assert_eq!(status(&there, &elsewhere).await, 200);
    gateway.upstream().answer(
        "/api/ask",
        answer("204 No Content", &["x-vestibule-sign-out: user"]).replace("Content-Length: 4\r\n\r\nbody", "\r\n"),
    );
    let answer = gateway.post("/api/ask").bearer(&ada.token).body("").await;
    assert_eq!(answer.status(), 204);
    assert!(
        !answer.head.has("set-cookie"),
        "who came without a cookie has none to lose"
    );
    for user in [&ada, &elsewhere] {
        assert_eq!(status(&gateway, user).await, 401);
    }
    assert_eq!(status(&gateway, &bob).await, 200);
    eventually(SOON, async || status(&there, &elsewhere).await == 401).await;
}

#[tokio::test]
async fn where_nobody_is_signed_in_it_is_stripped_and_does_nothing() {
    let (gateway, ada) = asking("200 OK", &["X-Vestibule-Sign-Out: user", "X-Vestibule-Step-Up: fresh"]).await;
    // The public route does not look who it is.
    for call in [
        gateway.get("/public/ask").with(&ada),
        gateway.get("/public/ask"),
        gateway.get("/optional/ask"),
    ] {
        let answer = call.await;
        assert_eq!((answer.status(), answer.text()), (200, "body"));
        assert!(!answer.head.has("x-vestibule-sign-out") && !answer.head.has("x-vestibule-step-up"));
    }
    assert_eq!(status(&gateway, &ada).await, 200);
}

#[tokio::test]
async fn another_spelling_of_it_is_stripped_and_does_nothing() {
    let (gateway, ada) = asking("200 OK", &["X_Vestibule_Sign_Out: user", "X-Vestibule_Assertion: x"]).await;
    let answer = gateway.get("/api/ask").with(&ada).await;
    assert_eq!((answer.status(), answer.text()), (200, "body"));
    assert!(
        !answer
            .head
            .fields
            .iter()
            .any(|(name, _)| name.to_ascii_lowercase().contains("vestibule")),
        "{:?}",
        answer.head
    );
    assert_eq!(status(&gateway, &ada).await, 200);
}

#[tokio::test]
async fn a_client_that_says_it_in_a_request_asks_for_nothing() {
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    for name in ["X-Vestibule-Sign-Out", "x_vestibule_sign_out", "X-Vestibule-Step-Up"] {
        let answer = gateway.get("/api/x").with(&ada).header(name, "user").await;
        assert_eq!(answer.status(), 200);
        let seen = gateway.upstream().last().head;
        assert!(
            !seen
                .fields
                .iter()
                .any(|(name, _)| name.to_lowercase().contains("vestibule")),
            "{seen:?}"
        );
    }
    assert_eq!(status(&gateway, &ada).await, 200);
}

#[tokio::test]
async fn an_answer_does_not_pretend_that_a_session_has_ended() {
    let (gateway, ada) = asking("200 OK", &["X-Vestibule-Sign-Out: session"]).await;
    assert_eq!(status(&gateway, &ada).await, 200);
    gateway.db().shut().await;
    let answer = gateway.get("/api/ask").with(&ada).await;
    assert_eq!((answer.status(), &*answer.code()), (503, "SERVICE_UNAVAILABLE"));
    assert_eq!(answer.head.one("retry-after"), Some("2"));
    assert!(!answer.head.has("set-cookie"));
    gateway.db().reopen().await;
    eventually(SOON, async || gateway.get("/api/ask").with(&ada).await.status() == 200).await;
    assert_eq!(status(&gateway, &ada).await, 401);
}

#[tokio::test]
async fn a_word_without_a_meaning_is_no_answer() {
    for field in [
        "X-Vestibule-Sign-Out: all",
        "X-Vestibule-Sign-Out:",
        "X-Vestibule-Step-Up: otp",
    ] {
        let (gateway, ada) = asking("200 OK", &[field]).await;
        let answer = gateway.get("/api/ask").with(&ada).await;
        assert_eq!((answer.status(), &*answer.code()), (502, "UPSTREAM_FAILED"), "{field}");
        assert_eq!(status(&gateway, &ada).await, 200);
    }
}

#[tokio::test]
async fn a_program_is_told_to_have_the_person_sign_in_again() {
    for refusal in ["401 Unauthorized", "403 Forbidden"] {
        let (gateway, ada) = asking(refusal, &["X-Vestibule-Step-Up: fresh"]).await;
        let answer = gateway.get("/api/ask").with(&ada).await;
        assert_eq!(
            (answer.status(), &*answer.code()),
            (403, "SESSION_NOT_FRESH"),
            "{refusal}"
        );
        assert!(!answer.head.has("x-vestibule-step-up"));
        let page = gateway
            .get("/api/ask?a=1")
            .with(&ada)
            .header("Sec-Fetch-Mode", "navigate")
            .await;
        assert_eq!(page.status(), 303);
        assert_eq!(
            page.head.one("location"),
            Some("/sign-in?return_to=%2Fapi%2Fask%3Fa%3D1&step_up=fresh")
        );
        assert_eq!(status(&gateway, &ada).await, 200, "the session goes on");
    }
}

#[tokio::test]
async fn other_answers_and_other_steps_are_passed_on_without_the_field() {
    for (status, field) in [
        ("200 OK", "X-Vestibule-Step-Up: fresh"),
        ("404 Not Found", "X-Vestibule-Step-Up: fresh"),
        ("403 Forbidden", "X-Vestibule-Step-Up: two-factor"),
        ("403 Forbidden", "X-Vestibule-Something: else"),
    ] {
        let (gateway, ada) = asking(status, &[field]).await;
        let answer = gateway.get("/api/ask").with(&ada).await;
        assert_eq!(answer.text(), "body", "{status} {field}");
        assert!(status.starts_with(&answer.status().to_string()));
        let ours = answer
            .head
            .fields
            .iter()
            .find(|(name, _)| name.to_lowercase().contains("vestibule"));
        assert_eq!(ours, None);
    }
}
