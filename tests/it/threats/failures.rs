//! FAIL: what can't be decided is refused; what can't be understood is not put in force.

use std::time::Duration;

use super::{BOTH, ask};
use crate::harness::{Gateway, SOON, Setup, eventually, people::PASSWORD};

/// Each way in which a look-up of a session, of its user or of their roles can go wrong.
#[tokio::test]
async fn fail_01_an_error_within_the_decision_lets_nobody_in() {
    for breakage in [
        "ALTER TABLE user_sessions RENAME TO gone",
        "ALTER TABLE users RENAME TO gone",
        "ALTER TABLE user_sessions RENAME COLUMN token_hash TO gone",
        "ALTER TABLE user_sessions RENAME COLUMN expires_at TO gone",
        "ALTER TABLE users RENAME COLUMN roles TO gone",
        "ALTER TABLE users RENAME COLUMN banned TO gone",
        "ALTER TABLE users RENAME COLUMN email TO gone",
        "ALTER SCHEMA auth RENAME TO elsewhere",
    ] {
        let setup = Setup::default().with("[database]\nacquire_timeout = '2s'\nstatement_timeout = '1s'");
        let gateway = setup.start().await;
        let root = gateway.signed_in_as("root@example.com", &["admin"]).await;
        for path in ["/api/me", "/admin/x"] {
            assert_eq!(gateway.get(path).with(&root).await.status(), 200);
        }
        let before = gateway.upstream().requests().len();
        gateway.db().run(breakage).await;
        gateway.clock().advance(Duration::from_secs(11));
        let bearer = format!("Bearer {}", root.token);
        for via in BOTH {
            for (path, field) in [
                ("/api/me", ("Cookie", root.cookie.as_str())),
                ("/admin/x", ("Cookie", root.cookie.as_str())),
                ("/optional/x", ("Cookie", root.cookie.as_str())),
                ("/api/me", ("Authorization", bearer.as_str())),
            ] {
                let saw = ask(&gateway, via, "GET", path, &[field]).await;
                assert!(
                    matches!(saw.status, 401 | 403 | 503),
                    "{breakage}: {via:?} {path}: {}",
                    saw.status
                );
                assert!(!saw.has("set-cookie"), "{breakage}: {:?}", saw.fields);
            }
            assert_eq!(
                ask(&gateway, via, "GET", "/public/x", &[]).await.status,
                200,
                "{breakage}"
            );
            // A token that only a look-up could tell from the application's own stays here.
            let saw = ask(&gateway, via, "GET", "/public/x", &[("Authorization", &bearer)]).await;
            assert_eq!(saw.status, 200, "{breakage}");
            assert!(!gateway.upstream().last().head.has("authorization"), "{breakage}");
        }
        let seen = gateway.upstream().requests();
        assert!(
            seen[before..].iter().all(|seen| seen.head.path() == "/public/x"),
            "{breakage}"
        );
        let body = serde_json::json!({ "email": "root@example.com", "password": PASSWORD });
        let answer = gateway.post("/api/auth/sign-in/email").json(&body).await;
        assert!(answer.status() >= 500, "{breakage}: {}", answer.text());
        assert!(!answer.head.has("set-cookie"), "{breakage}");
    }
}

/// A table that is locked answers nobody: that is an error as well, in time.
#[tokio::test]
async fn fail_01_a_decision_that_takes_too_long_is_a_refusal() {
    let setup = Setup::default().with("[database]\nacquire_timeout = '1s'\nstatement_timeout = '1s'");
    let gateway = setup.start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    let lock = gateway.db().client().await;
    lock.batch_execute("BEGIN; LOCK TABLE user_sessions IN ACCESS EXCLUSIVE MODE")
        .await
        .unwrap();
    gateway.clock().advance(Duration::from_secs(11));
    for via in BOTH {
        let cookie = [("Cookie", ada.cookie.as_str())];
        let asking = ask(&gateway, via, "GET", "/api/me", &cookie);
        let saw = tokio::time::timeout(SOON, asking).await.expect("an answer in time");
        assert_eq!(saw.status, 503, "{via:?}");
        assert!(saw.has("retry-after") && !saw.has("set-cookie"), "{:?}", saw.fields);
    }
    assert_eq!(gateway.upstream().requests().len(), 0);
    lock.batch_execute("ROLLBACK").await.unwrap();
    eventually(SOON, async || gateway.get("/api/me").with(&ada).await.status() == 200).await;
}

/// What a file says that can't be meant: each is named, and what was in force stays so.
#[tokio::test]
async fn fail_02_what_is_wrong_is_never_half_in_force() {
    let gateway = Gateway::start().await;
    let eve = gateway.signed_in("eve@example.com").await;
    for (wrong, named) in [
        ("[server]\nlisten_on = '0.0.0.0:80'", "listen_on"),
        (
            "[[routes]]\npath = '/*'\nupstream = 'nowhere'\nauth = 'public'",
            "nowhere",
        ),
        ("[[routes]]\npath = '/*'\nupstream = 'app'\nauth = 'none'", "none"),
        (
            "[[routes]]\npath = '/*'\nupstream = 'app'\nauth = 'public'\nrequire = { roles = ['admin'] }",
            "require",
        ),
        (
            "[[routes]]\npath = '/a'\nupstream = 'app'\n[[routes]]\npath = '/a'\nupstream = 'app'\nauth = 'public'",
            "/a",
        ),
        (
            "[[routes]]\npath = '/a/*'\nmethods = ['GET']\nupstream = 'app'\n[[routes]]\npath = '/*'\nupstream = 'app'\nauth = 'public'",
            "/a/*",
        ),
        (
            "[[routes]]\npath = '/*'\nupstream = 'app'\nrequire = { roles = ['admin, root'] }",
            "roles",
        ),
        (
            "[[routes]]\npath = '/*'\nupstream = 'app'\nrequire = { two_factor = true }",
            "two_factor",
        ),
        ("[auth]\nsecret = 'short'", "secret"),
        ("[auth]\nsecret = { env = 'NO_SUCH_VARIABLE' }", "NO_SUCH_VARIABLE"),
        ("[auth]\nsecret = { file = '/no/such/file' }", "/no/such/file"),
        ("[server]\ntrusted_proxies = ['0.0.0.0/0']", "trusted_proxies"),
        ("[auth]\ntrusted_origins = ['*']", "trusted_origins"),
        ("[server]\npublic_url = 'http://app.example.com'", "public_url"),
        ("[identity]\nuser_id = 'Cookie'", "user_id"),
    ] {
        let error = match gateway.reload(wrong).await {
            Ok(_) => panic!("accepted: {wrong}"),
            Err(error) => format!("{:#}", anyhow::Error::from(error)),
        };
        assert!(error.contains(named), "{wrong}: {error}");
        assert!(error.contains("gateway.toml"), "{wrong}: {error}");
        for via in BOTH {
            assert_eq!(ask(&gateway, via, "GET", "/admin/x", &[]).await.status, 401, "{wrong}");
            let cookie = [("Cookie", eve.cookie.as_str())];
            assert_eq!(
                ask(&gateway, via, "GET", "/admin/x", &cookie).await.status,
                403,
                "{wrong}"
            );
            assert_eq!(ask(&gateway, via, "GET", "/a", &[]).await.status, 404, "{wrong}");
        }
    }
    let failed = gateway.metric("vestibule_reloads_total{outcome=\"refused\"}").await;
    assert!(failed > 14.5, "{failed}");
    assert_eq!(gateway.upstream().requests().len(), 0);
}
