//! Revocation: a session that ended is refused here at once, and everywhere soon.

use std::{future::poll_fn, time::Duration};

use serde_json::json;
use tokio::sync::mpsc;
use tokio_postgres::{AsyncMessage, NoTls};

use crate::harness::{Database, Gateway, SOON, Setup, eventually, people::User, relay::Relay};

#[tokio::test]
async fn sess_03_a_token_signed_out_here_is_refused_here_at_once() {
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    assert_eq!(gateway.get("/api/me").with(&ada).await.status(), 200);

    gateway.sign_out(&ada).await;

    assert_eq!(gateway.get("/api/me").with(&ada).await.status(), 401);
    assert_eq!(gateway.get("/api/me").bearer(&ada.token).await.status(), 401);
    assert_eq!(gateway.upstream().seen("/api/me"), 1);
}

#[tokio::test]
async fn signing_out_clears_the_cookies() {
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    let answer = gateway.post("/api/auth/sign-out").with(&ada).json(&json!({})).await;
    assert_eq!((answer.status(), answer.json()), (200, json!({ "success": true })));
    let cookie = answer.set_cookie(gateway.session_cookie()).unwrap();
    assert!(cookie.contains("=;") && cookie.contains("Max-Age=0"), "{cookie}");
}

#[tokio::test]
async fn signing_out_ends_every_session_that_the_request_carries() {
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    let bob = gateway.signed_in("bob@example.com").await;
    let answer = gateway
        .post("/api/auth/sign-out")
        .with(&ada)
        .bearer(&bob.token)
        .json(&json!({}))
        .await;
    assert_eq!(answer.status(), 200, "{}", answer.text());
    for user in [&ada, &bob] {
        assert_eq!(gateway.get("/api/x").with(user).await.status(), 401, "{}", user.email);
    }
    assert_eq!(
        gateway
            .db()
            .count("SELECT count(*) FROM audit_log WHERE action = 'sign-out'")
            .await,
        2
    );
}

#[tokio::test]
async fn csrf_04_signing_out_by_a_link_has_no_effect() {
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    assert_eq!(gateway.get("/api/auth/sign-out").with(&ada).await.status(), 404);
    assert_eq!(gateway.get("/api/me").with(&ada).await.status(), 200);
}

#[tokio::test]
async fn sess_04_a_token_signed_out_here_is_refused_there() {
    let db = Database::fresh().await;
    let (here, there) = (Gateway::on(&db).await, Gateway::on(&db).await);
    let ada = here.signed_in("ada@example.com").await;
    assert_eq!(there.get("/api/me").with(&ada).await.status(), 200);

    here.sign_out(&ada).await;

    eventually(SOON, async || there.get("/api/me").with(&ada).await.status() == 401).await;
    assert!(there.upstream().seen("/api/me") >= 1);
}

/// Manual clocks stand still, so that nothing but the notification can end a cached session.
#[tokio::test]
async fn sess_08_a_row_changed_by_hand_counts() {
    for statement in [
        "UPDATE user_sessions SET revoked_at = now()",
        "DELETE FROM user_sessions",
        "UPDATE users SET banned = true",
        "DELETE FROM users",
        "TRUNCATE users CASCADE",
        "UPDATE user_sessions SET expires_at = '2026-11-21T07:59:59Z'",
    ] {
        let gateway = Gateway::start().await;
        let ada = gateway.signed_in("ada@example.com").await;
        assert_eq!(gateway.get("/api/me").with(&ada).await.status(), 200);

        gateway.db().run(statement).await;

        eventually(SOON, async || gateway.get("/api/me").with(&ada).await.status() == 401).await;
    }
}

#[tokio::test]
async fn a_revoked_token_stays_revoked_after_the_cache_s_time() {
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    gateway.sign_out(&ada).await;
    for _ in 0..3 {
        gateway.clock().advance(Duration::from_secs(11));
        assert_eq!(gateway.get("/api/me").with(&ada).await.status(), 401);
    }
}

#[tokio::test]
async fn one_user_s_revocation_leaves_others_alone() {
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    let bob = gateway.signed_in("bob@example.com").await;
    gateway
        .db()
        .run("DELETE FROM users WHERE email = 'ada@example.com'")
        .await;
    eventually(SOON, async || gateway.get("/api/me").with(&ada).await.status() == 401).await;
    assert_eq!(gateway.get("/api/me").with(&bob).await.status(), 200);
}

#[tokio::test]
async fn a_role_taken_away_is_gone_while_the_session_lives() {
    let gateway = Gateway::start().await;
    let root = gateway.signed_in_as("root@example.com", &["admin"]).await;
    assert_eq!(gateway.get("/admin/x").with(&root).await.status(), 200);
    gateway.db().run("UPDATE users SET roles = '{}'").await;
    eventually(SOON, async || gateway.get("/admin/x").with(&root).await.status() == 403).await;
    assert_eq!(gateway.get("/api/me").with(&root).await.status(), 200);
}

/// Many lookups and one sign-out at once: whoever begins after the sign-out was answered must not get in.
#[tokio::test]
async fn sess_06_a_lookup_that_a_sign_out_overtakes_lets_nobody_in_later() {
    let gateway = Gateway::start().await;
    gateway.verified("ada@example.com").await;
    for _ in 0..20 {
        let ada = User::of(&gateway, &gateway.sign_in("ada@example.com").await);
        // Nothing is cached of the token yet: these look it up while it is being revoked.
        let lookups = futures_util::future::join_all((0..4).map(|_| gateway.get("/api/me").with(&ada).into_future()));
        let (_, ()) = tokio::join!(lookups, gateway.sign_out(&ada));
        assert_eq!(gateway.get("/api/me").with(&ada).await.status(), 401);
    }
}

#[tokio::test]
async fn sess_04_without_the_notification_the_cache_s_time_is_the_bound() {
    let db = Database::fresh().await;
    let here = Gateway::on(&db).await;
    let there = Setup::default().clock(here.clock()).start_on(&db).await;
    let ada = here.signed_in("ada@example.com").await;
    assert_eq!(there.get("/api/me").with(&ada).await.status(), 200);
    db.run_untold("DELETE FROM user_sessions").await;

    here.clock().advance(Duration::from_secs(11));

    assert_eq!(there.get("/api/me").with(&ada).await.status(), 401);
}

/// By hand: the program's own statements change a thousand rows at most.
#[tokio::test]
async fn a_change_of_very_many_is_told_of_as_one_of_everything() {
    const MANY: usize = 5_000;
    const EACH: usize = 2_000;
    let gateway = Gateway::start().await;
    gateway.hears().await;
    let ada = gateway.signed_in("ada@example.com").await;
    assert_eq!(gateway.get("/api/me").with(&ada).await.status(), 200);
    // Ada's is the last of them.
    gateway
        .db()
        .run(&format!(
            "CREATE TABLE others AS SELECT * FROM user_sessions;
             INSERT INTO user_sessions (id, token_hash, user_id, created_at, updated_at, expires_at)
             SELECT gen_random_uuid(), sha256(n::text::bytea), users.id, now(), now(), now() + '1 day'
             FROM users, generate_series(1, {MANY}) AS n;
             DELETE FROM user_sessions WHERE id IN (SELECT id FROM others);
             INSERT INTO user_sessions SELECT * FROM others"
        ))
        .await;
    eventually(SOON, async || gateway.get("/api/me").with(&ada).await.status() == 200).await;
    let (client, mut connection) = tokio_postgres::connect(gateway.db().url(), NoTls).await.unwrap();
    let (tell, mut heard) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(Ok(message)) = poll_fn(|cx| connection.poll_message(cx)).await {
            if let AsyncMessage::Notification(heard) = message {
                tell.send(heard.payload().to_owned()).unwrap();
            }
        }
    });
    client.batch_execute("LISTEN vestibule_auth").await.unwrap();
    let mut told = async |sql: &str| {
        client.batch_execute(sql).await.unwrap();
        client.batch_execute("NOTIFY vestibule_auth, 'the end'").await.unwrap();
        let mut words = Vec::new();
        while let Some(word) = heard.recv().await.filter(|word| word != "the end") {
            words.push(word);
        }
        words
    };
    let words = told("UPDATE auth.user_sessions SET revoked_at = now()").await;
    assert_eq!(words.len(), EACH + 1);
    assert_eq!(words.last().map(String::as_str), Some("all"));
    eventually(SOON, async || gateway.get("/api/me").with(&ada).await.status() == 401).await;
    // What was counted is forgotten with the transaction, and with a savepoint.
    let few = "BEGIN; SAVEPOINT before; UPDATE auth.user_sessions SET revoked_at = NULL; ROLLBACK TO before;
        UPDATE auth.users SET name = 'Countess'; COMMIT";
    let words = told(few).await;
    assert_eq!(words, [format!("u:{}", ada.id)]);
}

/// As by a logical subscription: triggers are silent there unless they are told otherwise.
#[tokio::test]
async fn what_is_applied_as_on_a_replica_is_told_of() {
    for sql in [
        "DELETE FROM user_sessions",
        "UPDATE user_sessions SET revoked_at = now()",
        "UPDATE users SET banned = true",
        "DELETE FROM users",
        "TRUNCATE user_sessions CASCADE",
    ] {
        let gateway = Gateway::start().await;
        gateway.hears().await;
        let ada = gateway.signed_in("ada@example.com").await;
        assert_eq!(gateway.get("/api/me").with(&ada).await.status(), 200);
        let applied = format!("SET session_replication_role = replica; {sql}");
        gateway.db().run(&applied).await;
        let is_refused = async || gateway.get("/api/me").with(&ada).await.status() == 401;
        eventually(SOON, is_refused).await;
    }
}

/// First nobody tells the gateway of changes, so that it asks Postgres about each session; then that is gone as well.
#[tokio::test]
async fn a_role_that_was_seen_to_be_gone_does_not_come_back_when_postgres_is_out_of_reach() {
    let db = Database::fresh().await;
    let real: url::Url = db.url().parse().unwrap();
    let (relay, relayed) = Relay::before(&db).await;
    let gateway = Gateway::on(&relayed).await;
    let root = gateway.signed_in_as("root@example.com", &["admin"]).await;
    let bob = gateway.signed_in_as("bob@example.com", &["admin"]).await;
    let degraded = async || {
        let ready = gateway.admin_get("/readyz").await.json();
        ready["degraded"].as_str().unwrap_or_default().to_owned()
    };
    eventually(SOON, async || degraded().await.is_empty()).await;
    for admin in [&root, &bob] {
        assert_eq!(gateway.get("/admin/x").with(admin).await.status(), 200);
    }

    let by_hand = db.client().await;
    let (server, name) = real.as_str().rsplit_once('/').unwrap();
    // Connections for look-ups stay; that which listens ends, and none is made anew.
    let deafen = format!(
        "ALTER DATABASE {name} ALLOW_CONNECTIONS false;
         SELECT pg_terminate_backend(pid) FROM pg_stat_activity
         WHERE datname = '{name}' AND application_name = 'vestibule' AND (query LIKE 'NOTIFY%' OR query LIKE 'LISTEN%')"
    );
    Database::at(&format!("{server}/postgres")).run(&deafen).await;
    eventually(SOON, async || degraded().await.contains("not heard")).await;
    by_hand
        .batch_execute("UPDATE users SET roles = '{}' WHERE email LIKE 'root%'")
        .await
        .unwrap();
    assert_eq!(gateway.get("/admin/x").with(&root).await.status(), 403);
    assert_eq!(gateway.get("/admin/x").with(&bob).await.status(), 200);

    drop(relay);
    eventually(SOON, async || degraded().await.contains("can't be reached")).await;
    assert_eq!(
        gateway.get("/admin/x").with(&root).await.status(),
        503,
        "nobody can tell"
    );
    assert_eq!(
        gateway.get("/admin/x").with(&bob).await.status(),
        200,
        "what was found to be true lately still is"
    );
}
