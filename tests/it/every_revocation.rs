//! Everything that must revoke does: here before it is answered, elsewhere soon. And what changes who somebody is
//! reaches sessions that are cached.
//!
//! Caches hold on to what they have for an hour here, so that nothing but word of the change can make them let go.

use serde_json::{Value, json};
use tempfile::TempDir;
use uuid::Uuid;
use vestibule::{clock::Clock, secret::TokenHash};

use crate::harness::{
    Database, Gateway, SOON, Setup,
    client::Response,
    desk::OPERATOR,
    eventually,
    people::{PASSWORD, User},
    program,
};

const NEW: &str = "another horse, another battery";

/// Two gateways on one database, which both hear.
struct Scene {
    db: Database,
    here: Gateway,
    there: Gateway,
}

/// Somebody in two browsers, known to both gateways.
struct Person {
    /// The older session.
    lost: User,
    /// The one in which they act.
    own: User,
}

impl Scene {
    async fn new() -> Self {
        let usual = "[auth.session]\nmax_per_user = 3\n[auth.session.cache]\nttl = '1h'\n\
                     [auth.account]\nchange_email = 'new'";
        let setup = || Setup::default().clock(&Clock::System).with(usual);
        let db = Database::fresh().await;
        let here = setup().start_on(&db).await;
        // Whichever of them sends a mail, it arrives in one place.
        let mail = format!("[mail]\nsmtp = 'smtp://{}'", here.mailbox().addr());
        let there = setup().with(&mail).start_on(&db).await;
        for gateway in [&here, &there] {
            eventually(SOON, async || {
                gateway.admin_get("/readyz").await.json().get("degraded").is_none()
            })
            .await;
        }
        Self { db, here, there }
    }

    async fn person(&self, name: &str) -> Person {
        let email = format!("{name}@example.com");
        let lost = self.here.signed_in(&email).await;
        let own = User::of(&self.here, &self.here.sign_in(&email).await);
        let person = Person { lost, own };
        for gateway in [&self.here, &self.there] {
            for user in [&person.lost, &person.own] {
                eventually(SOON, async || is_cached(gateway, user).await).await;
            }
        }
        person
    }

    async fn post(&self, path: &str, user: &User, body: Value) -> Response {
        let call = self.here.post(&format!("/api/auth/{path}")).with(user).json(&body);
        let answer = call.await;
        assert_eq!(answer.status(), 200, "{path}: {}", answer.text());
        answer
    }
}

/// Asks twice; whether the second time nobody had to be asked.
async fn is_cached(gateway: &Gateway, user: &User) -> bool {
    let misses = "vestibule_session_cache_misses_total";
    assert_eq!(status(gateway, user).await, 200);
    let before = gateway.metric(misses).await;
    assert_eq!(status(gateway, user).await, 200);
    (gateway.metric(misses).await - before).abs() < 0.5
}

async fn status(gateway: &Gateway, user: &User) -> u16 {
    gateway.get("/api/x").with(user).await.status()
}

/// What the upstream is told in a header.
async fn told(gateway: &Gateway, user: &User, header: &str) -> String {
    assert_eq!(status(gateway, user).await, 200);
    gateway
        .upstream()
        .last()
        .head
        .one(header)
        .unwrap_or_default()
        .to_owned()
}

/// What people do here, or have done. Whether the session in which they act goes on.
async fn act(scene: &Scene, what: &str, lost: &User, own: &User) -> bool {
    let ask_upstream = async |of: &str| {
        let answer = format!("HTTP/1.1 200 OK\r\nX-Vestibule-Sign-Out: {of}\r\nContent-Length: 0\r\n\r\n");
        scene.here.upstream().answer("/api/leave", answer);
        assert_eq!(scene.here.get("/api/leave").with(lost).await.status(), 200);
    };
    match what {
        "sign-out" => scene.here.sign_out(lost).await,
        "revoke-session" => drop(scene.post(what, own, json!({ "token": lost.token })).await),
        "revoke-other-sessions" => drop(scene.post(what, own, json!({})).await),
        "max_per_user" => {
            for _ in 0..2 {
                assert_eq!(scene.here.sign_in(&own.email).await.status(), 200);
            }
        }
        "the upstream asks for the session's end" => ask_upstream("session").await,
        "the upstream asks for the user's sign-out" => {
            ask_upstream("user").await;
            return false;
        }
        "revoke-sessions" => {
            scene.post(what, own, json!({})).await;
            return false;
        }
        "change-password" => {
            let body = json!({ "currentPassword": PASSWORD, "newPassword": NEW, "revokeOtherSessions": true });
            scene.post(what, own, body).await;
            return false;
        }
        "reset-password" => {
            let ask = json!({ "email": own.email, "redirectTo": "/choose" });
            let asked = scene.here.post("/api/auth/request-password-reset").json(&ask).await;
            assert_eq!(asked.status(), 200, "{}", asked.text());
            let token = scene.here.mailbox().next_reset_to(&own.email).await.token();
            let body = json!({ "token": token, "newPassword": NEW });
            let chosen = scene.here.post("/api/auth/reset-password").json(&body).await;
            assert_eq!(chosen.status(), 200, "{}", chosen.text());
            return false;
        }
        "delete-user" => {
            scene.post(what, own, json!({ "password": PASSWORD })).await;
            return false;
        }
        other => panic!("nobody knows how to {other}"),
    }
    true
}

#[tokio::test]
async fn what_people_do_here_ends_sessions_here_at_once_and_elsewhere_soon() {
    let scene = Scene::new().await;
    let bystander = scene.person("bystander").await;
    for what in [
        "sign-out",
        "revoke-session",
        "revoke-other-sessions",
        "max_per_user",
        "the upstream asks for the session's end",
        "revoke-sessions",
        "the upstream asks for the user's sign-out",
        "change-password",
        "reset-password",
        "delete-user",
    ] {
        let Person { lost, own } = scene.person(&what.replace([' ', '\''], ".")).await;
        let goes_on = act(&scene, what, &lost, &own).await;
        let other = if goes_on { 200 } else { 401 };
        assert_eq!(status(&scene.here, &lost).await, 401, "{what}: here");
        assert_eq!(status(&scene.here, &own).await, other, "{what}: the other session here");
        eventually(SOON, async || status(&scene.there, &lost).await == 401).await;
        eventually(SOON, async || status(&scene.there, &own).await == other).await;
    }
    for gateway in [&scene.here, &scene.there] {
        assert_eq!(status(gateway, &bystander.own).await, 200, "others are left alone");
    }
}

/// Somebody ended it at another gateway, word of which is still under way, and asks for the same here.
#[tokio::test]
async fn what_has_ended_elsewhere_is_over_here_once_that_is_asked_for_here() {
    let scene = Scene::new().await;
    let means = [
        "sign-out",
        "revoke-session",
        "revoke-session, by its handle",
        "revoke-other-sessions",
        "revoke-sessions",
        "the upstream asks for the session's end",
        "the upstream asks for the user's sign-out",
        "change-password",
        "reset-password",
    ];
    for (number, what) in means.into_iter().enumerate() {
        let mut tries = 0..5;
        let (Person { lost, own }, handle) = loop {
            let attempt = tries.next();
            let attempt = attempt.unwrap_or_else(|| panic!("{what}: nobody could have told it"));
            let person = scene.person(&format!("person{number}.{attempt}")).await;
            let handle = told(&scene.here, &person.lost, "x-session-id").await;
            let untold = format!(
                "UPDATE user_sessions SET revoked_at = now() WHERE token_hash = sha256('{}'::bytea)",
                person.lost.token
            );
            scene.db.run_untold(&untold).await;
            // Where word of the very sign-up comes only now, everything of theirs is asked for anew.
            if status(&scene.here, &person.lost).await == 200 {
                break (person, handle);
            }
        };
        if what.contains("handle") {
            scene.post("revoke-session", &own, json!({ "token": handle })).await;
        } else {
            act(&scene, what, &lost, &own).await;
        }
        assert_eq!(status(&scene.here, &lost).await, 401, "{what}");
    }
}

/// `$1` is the older session's token hash, `$2` its user.
#[tokio::test]
async fn what_is_written_by_hand_ends_sessions_everywhere() {
    let scene = Scene::new().await;
    let bystander = scene.person("bystander").await;
    let by_hand = scene.db.client().await;
    let of_session = [
        "UPDATE user_sessions SET revoked_at = now() WHERE token_hash = $1 AND user_id = $2",
        "UPDATE user_sessions SET expires_at = now() WHERE token_hash = $1 AND user_id = $2",
        "UPDATE user_sessions SET token_hash = sha256(token_hash) WHERE token_hash = $1 AND user_id = $2",
        "DELETE FROM user_sessions WHERE token_hash = $1 AND user_id = $2",
        "WITH old AS (DELETE FROM user_sessions WHERE token_hash = $1 RETURNING *) SELECT * FROM old WHERE user_id = $2",
        "MERGE INTO user_sessions AS s USING users AS u ON u.id = s.user_id AND s.token_hash = $1 AND u.id = $2
         WHEN MATCHED THEN UPDATE SET revoked_at = now()",
    ];
    let of_user = [
        "UPDATE users SET banned = true WHERE id = $2 AND $1::bytea IS NOT NULL",
        "UPDATE users SET banned = true, ban_expires = now() + '1 day'::interval WHERE id = $2 AND $1::bytea IS NOT NULL",
        "UPDATE user_sessions SET revoked_at = now() WHERE user_id = $2 AND $1::bytea IS NOT NULL",
        "DELETE FROM users WHERE id = $2 AND $1::bytea IS NOT NULL",
    ];
    for (number, sql) in of_session.into_iter().chain(of_user).enumerate() {
        let Person { lost, own } = scene.person(&format!("person{number}")).await;
        let hash = TokenHash::of(lost.token.as_bytes());
        let user: Uuid = lost.id.parse().unwrap();
        let done = by_hand.execute(sql, &[&hash.as_bytes().as_slice(), &user]).await;
        assert!(done.unwrap() > 0, "{sql}");
        let other = if of_session.contains(&sql) { 200 } else { 401 };
        for gateway in [&scene.here, &scene.there] {
            eventually(SOON, async || status(gateway, &lost).await == 401).await;
            eventually(SOON, async || status(gateway, &own).await == other).await;
        }
    }
    for gateway in [&scene.here, &scene.there] {
        assert_eq!(status(gateway, &bystander.lost).await, 200, "others are left alone");
    }
    for sql in ["TRUNCATE user_sessions CASCADE", "TRUNCATE users CASCADE"] {
        let person = scene
            .person(if sql.contains("users C") {
                "last"
            } else {
                "last.but.one"
            })
            .await;
        scene.db.run(sql).await;
        for gateway in [&scene.here, &scene.there] {
            for user in [&person.lost, &person.own] {
                eventually(SOON, async || status(gateway, user).await == 401).await;
            }
        }
    }
}

#[tokio::test]
async fn what_is_written_by_hand_of_who_somebody_is_reaches_cached_sessions() {
    let scene = Scene::new().await;
    let other = scene.person("other").await;
    let Person { lost: user, .. } = scene.person("ada").await;
    let of_user = format!("WHERE id = '{}'", user.id);
    // The token is base64url, and its hash that of its letters.
    let of_session = format!("WHERE token_hash = sha256('{}'::bytea)", user.token);
    let id = Uuid::now_v7();
    let (new_id, other_id) = (id.to_string(), other.own.id.clone());
    for (sql, header, expected) in [
        (
            format!("UPDATE users SET roles = '{{a,b}}' {of_user}"),
            "x-user-roles",
            "a,b",
        ),
        (
            format!("UPDATE users SET email = 'new@example.com' {of_user}"),
            "x-user-email",
            "new@example.com",
        ),
        (
            format!("UPDATE users SET email_verified = false {of_user}"),
            "x-user-email-verified",
            "false",
        ),
        (
            format!("UPDATE users SET name = 'Somebody Else' {of_user}"),
            "x-user-name",
            "Somebody Else",
        ),
        (
            format!("UPDATE user_sessions SET methods = '{{otp}}' {of_session}"),
            "x-auth-methods",
            "otp",
        ),
        (
            format!("UPDATE user_sessions SET created_at = 'epoch' {of_session}"),
            "x-auth-time",
            "1970-01-01T00:00:00.000Z",
        ),
        (
            format!("UPDATE user_sessions SET id = '{id}' {of_session}"),
            "x-session-id",
            new_id.as_str(),
        ),
        (
            format!("UPDATE user_sessions SET user_id = '{other_id}' {of_session}"),
            "x-user-id",
            other_id.as_str(),
        ),
    ] {
        for gateway in [&scene.here, &scene.there] {
            assert_ne!(told(gateway, &user, header).await, expected, "{sql}");
        }
        scene.db.run(&sql).await;
        for gateway in [&scene.here, &scene.there] {
            eventually(SOON, async || told(gateway, &user, header).await == expected).await;
        }
    }
    assert_eq!(told(&scene.there, &other.own, "x-user-name").await, "Ada Lovelace");
}

#[tokio::test]
async fn a_ban_that_is_over_lets_in_again_though_nobody_says_so() {
    let scene = Scene::new().await;
    let Person { own, .. } = scene.person("ada").await;
    for (sql, expected) in [
        (
            "UPDATE users SET banned = true, ban_expires = now() + '1 second'::interval",
            200,
        ),
        (
            "UPDATE users SET banned = true, ban_expires = now() + '1 hour'::interval",
            401,
        ),
        ("UPDATE users SET ban_expires = now()", 200),
        ("UPDATE users SET ban_expires = NULL", 401),
        ("UPDATE users SET banned = false", 200),
    ] {
        scene.db.run(sql).await;
        for gateway in [&scene.here, &scene.there] {
            eventually(SOON, async || status(gateway, &own).await == expected).await;
        }
    }
}

#[tokio::test]
async fn who_somebody_says_to_be_here_is_told_here_at_once_and_elsewhere_soon() {
    let scene = Scene::new().await;
    let Person { lost, own } = scene.person("ada").await;
    for (header, expected) in [
        ("x-user-name", "Countess Lovelace"),
        ("x-user-email", "new@example.com"),
    ] {
        if header == "x-user-name" {
            scene.post("update-user", &own, json!({ "name": expected })).await;
        } else {
            scene.post("change-email", &own, json!({ "newEmail": expected })).await;
            let link = scene.here.mailbox().next_to(expected).await.link();
            assert!(scene.here.open(&link).with(&own).await.status() < 400);
        }
        for user in [&lost, &own] {
            assert_eq!(told(&scene.here, user, header).await, expected);
            eventually(SOON, async || told(&scene.there, user, header).await == expected).await;
        }
    }
}

#[tokio::test]
async fn what_operators_do_from_the_command_line_is_heard_everywhere() {
    let scene = Scene::new().await;
    let folder: TempDir = tempfile::tempdir().unwrap();
    let config = folder.path().join("gateway.toml");
    let text = Setup::default().text(&scene.db, scene.here.mailbox().addr(), scene.here.upstream().addr());
    std::fs::write(&config, text).unwrap();
    let run = async |args: &[&str]| {
        let args = [args, &["--config", config.to_str().unwrap()]].concat();
        let ended = program::run(&args, &[OPERATOR], folder.path()).await;
        assert_eq!(ended.code, Some(0), "{args:?}: {}", ended.stderr);
    };
    let bystander = scene.person("bystander").await;
    for what in ["revoke", "revoke-user", "ban", "delete"] {
        let Person { lost, own } = scene.person(what).await;
        let session = told(&scene.here, &lost, "x-session-id").await;
        let goes_on = match what {
            "revoke" => {
                run(&["session", "revoke", &session, "--yes"]).await;
                true
            }
            "revoke-user" => {
                run(&["session", "revoke", "--user", &own.email, "--yes"]).await;
                false
            }
            "ban" => {
                run(&["user", "ban", &own.email]).await;
                false
            }
            _ => {
                run(&["user", "delete", &own.email, "--yes"]).await;
                false
            }
        };
        let other = if goes_on { 200 } else { 401 };
        for gateway in [&scene.here, &scene.there] {
            eventually(SOON, async || status(gateway, &lost).await == 401).await;
            eventually(SOON, async || status(gateway, &own).await == other).await;
        }
    }
    run(&["user", "set-role", &bystander.own.email, "staff"]).await;
    for gateway in [&scene.here, &scene.there] {
        eventually(SOON, async || {
            told(gateway, &bystander.own, "x-user-roles").await == "staff"
        })
        .await;
    }
}
