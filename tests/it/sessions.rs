//! A user's sessions: what they are told about them, how long they last, how they end by request.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Gateway, SOON, Setup, eventually, people::User};

const DAY: Duration = Duration::from_hours(24);

#[tokio::test]
async fn get_session_tells_the_session_and_its_user() {
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    let answer = gateway
        .get("/api/auth/get-session")
        .with(&ada)
        .header("User-Agent", "tests")
        .await;
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.head.one("cache-control"), Some("no-store"));
    let body = answer.json();
    assert_eq!(body["user"]["id"], json!(ada.id));
    assert_eq!(body["session"]["userId"], json!(ada.id));
    assert_eq!(body["session"]["token"], json!(ada.token));
    assert_eq!(body["session"]["expiresAt"], "2026-11-28T08:00:00.000Z");
}

#[tokio::test]
async fn a_stranger_is_told_null_and_given_no_cookie() {
    let gateway = Gateway::start().await;
    let answer = gateway.get("/api/auth/get-session").await;
    assert_eq!((answer.status(), answer.json()), (200, Value::Null));
    assert!(!answer.head.has("set-cookie"));
}

#[tokio::test]
async fn a_dead_session_s_cookies_are_cleared() {
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    gateway.db().run("DELETE FROM user_sessions").await;
    let answer = gateway.get("/api/auth/get-session").with(&ada).await;
    assert_eq!((answer.status(), answer.json()), (200, Value::Null));
    let cookie = answer
        .set_cookie(gateway.session_cookie())
        .expect("the cookie is cleared");
    assert!(cookie.contains("=;") && cookie.contains("Max-Age=0"), "{cookie}");
}

#[tokio::test]
async fn the_bare_token_works_as_bearer_too() {
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    assert_eq!(gateway.get("/api/me").bearer(&ada.token).await.status(), 200);
    // And so does what the cookie holds, signature and all.
    let signed = ada.cookie.split_once('=').unwrap().1;
    assert_eq!(gateway.get("/api/me").bearer(signed).await.status(), 200);
}

#[tokio::test]
async fn a_session_ends_after_a_week_without_use() {
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    gateway.clock().advance(7 * DAY);
    assert_eq!(gateway.get("/api/me").with(&ada).await.status(), 401);
}

#[tokio::test]
async fn use_after_a_day_extends_a_session() {
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    gateway.clock().advance(2 * DAY);
    let answer = gateway.get("/api/auth/get-session").with(&ada).await;
    assert_eq!(answer.json()["session"]["expiresAt"], "2026-11-30T08:00:00.000Z");
    let cookie = answer
        .set_cookie(gateway.session_cookie())
        .expect("the cookie is sent again");
    assert!(cookie.contains("Max-Age=604800"), "{cookie}");
    gateway.clock().advance(6 * DAY);
    assert_eq!(gateway.get("/api/me").with(&ada).await.status(), 200);
}

/// As after a reload that gives all of them a longer life. Whoever wants something else does not wait for that.
#[tokio::test]
async fn however_many_sessions_are_due_at_once_extending_them_takes_one_connection() {
    let gateway = Setup::default()
        .with("[database]\npool_size = 8\nacquire_timeout = '1s'\nstatement_timeout = '30s'")
        .start()
        .await;
    gateway.verified("ada@example.com").await;
    gateway.verified("bob@example.com").await;
    let mut due = Vec::new();
    for _ in 0..12 {
        due.push(User::of(&gateway, &gateway.sign_in("ada@example.com").await));
    }
    gateway.clock().advance(2 * DAY);
    let by_hand = gateway.db().client().await;
    let lock = "BEGIN; SELECT FROM user_sessions FOR UPDATE";
    by_hand.batch_execute(lock).await.unwrap();
    for user in &due {
        let answer = gateway.get("/api/me").with(user).await;
        assert!(answer.set_cookie(gateway.session_cookie()).is_some());
    }
    let extending = "SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%SET expires_at%'";
    eventually(SOON, async || gateway.db().count(extending).await > 0).await;
    assert_eq!(gateway.sign_in("bob@example.com").await.status(), 200);
    assert_eq!(gateway.db().count(extending).await, 1);
    by_hand.batch_execute("COMMIT").await.unwrap();
    let extended = "SELECT count(*) FROM user_sessions
        WHERE expires_at = '2026-11-30T08:00:00Z' AND created_at < '2026-11-22'";
    eventually(SOON, async || gateway.db().count(extended).await == 12).await;
}

/// As `now()` has it on a server whose clock is ahead of ours.
#[tokio::test]
async fn an_expiry_that_was_moved_to_now_is_not_undone_by_use() {
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    gateway.clock().advance(2 * DAY);
    let ended = "UPDATE user_sessions SET expires_at = '2026-11-23T08:00:30Z'";
    gateway.db().run(ended).await;
    let answer = gateway.get("/api/me").with(&ada).await;
    assert_eq!(
        (answer.status(), answer.set_cookie(gateway.session_cookie())),
        (200, None)
    );
    let answer = gateway.get("/api/auth/get-session").with(&ada).await;
    assert_eq!(answer.json()["session"]["expiresAt"], "2026-11-23T08:00:30.000Z");
    assert_eq!(answer.set_cookie(gateway.session_cookie()), None);
    gateway.clock().advance(Duration::from_secs(31));
    assert_eq!(gateway.get("/api/me").with(&ada).await.status(), 401);
}

#[tokio::test]
async fn a_user_sees_their_sessions_and_ends_one() {
    let gateway = Gateway::start().await;
    let here = gateway.signed_in("ada@example.com").await;
    let there = User::of(&gateway, &gateway.sign_in("ada@example.com").await);

    let list = gateway.get("/api/auth/list-sessions").with(&here).await.json();
    let list = list.as_array().unwrap();
    assert_eq!(list.len(), 2);
    let own = list
        .iter()
        .find(|session| session["token"] == json!(here.token))
        .expect("the caller's own token");
    let other = list.iter().find(|session| session["id"] != own["id"]).unwrap();
    assert_ne!(
        other["token"],
        json!(there.token),
        "another session's token is nobody's to know"
    );

    let body = json!({ "token": other["token"] });
    let ended = gateway.post("/api/auth/revoke-session").with(&here).json(&body).await;
    assert_eq!((ended.status(), ended.json()), (200, json!({ "status": true })));
    assert_eq!(gateway.get("/api/me").with(&there).await.status(), 401);
    assert_eq!(gateway.get("/api/me").with(&here).await.status(), 200);
}

#[tokio::test]
async fn nobody_ends_somebody_else_s_session() {
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    let eve = gateway.signed_in("eve@example.com").await;
    let client = gateway.db().client().await;
    let id: uuid::Uuid = client
        .query_one(
            "SELECT s.id FROM user_sessions AS s JOIN users AS u ON u.id = s.user_id WHERE u.email = $1",
            &[&ada.email],
        )
        .await
        .unwrap()
        .get(0);
    for token in [ada.token.clone(), id.to_string()] {
        let answer = gateway
            .post("/api/auth/revoke-session")
            .with(&eve)
            .json(&json!({ "token": token }))
            .await;
        assert_eq!(
            (answer.status(), answer.json()),
            (200, json!({ "status": true })),
            "no hint whose it is"
        );
    }
    assert_eq!(gateway.get("/api/me").with(&ada).await.status(), 200);
}

#[tokio::test]
async fn others_or_all_can_be_ended_at_once() {
    let gateway = Gateway::start().await;
    let here = gateway.signed_in("ada@example.com").await;
    let there = User::of(&gateway, &gateway.sign_in("ada@example.com").await);
    let answer = gateway
        .post("/api/auth/revoke-other-sessions")
        .with(&here)
        .json(&json!({}))
        .await;
    assert_eq!(answer.json(), json!({ "status": true }));
    assert_eq!(gateway.get("/api/me").with(&there).await.status(), 401);
    assert_eq!(gateway.get("/api/me").with(&here).await.status(), 200);

    let answer = gateway
        .post("/api/auth/revoke-sessions")
        .with(&here)
        .json(&json!({}))
        .await;
    assert_eq!(answer.json(), json!({ "status": true }));
    assert_eq!(gateway.get("/api/me").with(&here).await.status(), 401);
}

#[tokio::test]
async fn the_oldest_session_goes_where_their_number_is_limited() {
    let gateway = Setup::default().with("[auth.session]\nmax_per_user = 2").start().await;
    let first = gateway.signed_in("ada@example.com").await;
    let mut later = Vec::new();
    for _ in 0..2 {
        gateway.clock().advance(Duration::from_secs(1));
        later.push(User::of(&gateway, &gateway.sign_in("ada@example.com").await));
    }
    assert_eq!(gateway.get("/api/me").with(&first).await.status(), 401);
    for session in &later {
        assert_eq!(gateway.get("/api/me").with(session).await.status(), 200);
    }
}

/// All at once would take longer than a statement may.
#[tokio::test]
async fn who_has_far_too_many_sessions_loses_some_at_each_sign_in() {
    let gateway = Setup::default().with("[auth.session]\nmax_per_user = 2").start().await;
    gateway.verified("ada@example.com").await;
    gateway
        .db()
        .run(
            "INSERT INTO user_sessions (id, token_hash, user_id, created_at, updated_at, expires_at)
             SELECT gen_random_uuid(), sha256(number::text::bytea), users.id, now(), now(), '2100-01-01'
             FROM users, generate_series(1, 1500) AS number",
        )
        .await;
    let live = "SELECT count(*) FROM user_sessions WHERE revoked_at IS NULL";
    for left in [501, 2, 2] {
        assert_eq!(gateway.sign_in("ada@example.com").await.status(), 200);
        assert_eq!(gateway.db().count(live).await, left);
    }
}

#[tokio::test]
async fn endpoints_that_need_a_session_say_so() {
    let gateway = Gateway::start().await;
    for (method, path) in [
        ("GET", "list-sessions"),
        ("POST", "revoke-session"),
        ("POST", "revoke-sessions"),
        ("POST", "revoke-other-sessions"),
    ] {
        let call = gateway.call(method, &format!("/api/auth/{path}"));
        let call = if method == "POST" {
            call.json(&json!({ "token": "x" }))
        } else {
            call
        };
        let answer = call.await;
        assert_eq!(
            (answer.status(), answer.code()),
            (401, "UNAUTHORIZED".to_owned()),
            "{path}"
        );
    }
}

#[tokio::test]
async fn listing_sessions_needs_a_fresh_one() {
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    gateway.clock().advance(DAY + Duration::from_secs(1));
    let answer = gateway.get("/api/auth/list-sessions").with(&ada).await;
    assert_eq!((answer.status(), answer.code()), (403, "SESSION_NOT_FRESH".to_owned()));
}

#[tokio::test]
async fn a_backend_may_ask_whether_a_token_is_good() {
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    let good = gateway.get("/api/auth/verify-token").bearer(&ada.token).await;
    assert_eq!(good.status(), 200, "{}", good.text());
    assert!(good.text().contains(&ada.id));
    assert_eq!(
        gateway
            .get("/api/auth/verify-token")
            .bearer(&"x".repeat(43))
            .await
            .status(),
        401
    );
    assert_eq!(
        gateway.get("/api/auth/me").bearer(&ada.token).await.json()["user"]["id"],
        json!(ada.id)
    );
}
