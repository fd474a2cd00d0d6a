//! SESS: a session is good for as long as it lives, and for nobody who has less than its token.

use std::time::Duration;

use base64ct::{Base64, Base64UrlUnpadded, Encoding};
use serde_json::json;

use super::{BOTH, Via, ask, sent};
use crate::harness::{
    Database, Gateway, SOON, Setup, canary, eventually,
    people::{PASSWORD, User},
};

/// All the ways in which a token of theirs may come.
fn shown(user: &User) -> Vec<(&'static str, String)> {
    let value = user.cookie.split_once('=').unwrap().1;
    let signed = percent_encoding::percent_decode_str(value)
        .decode_utf8()
        .unwrap()
        .into_owned();
    vec![
        ("Cookie", user.cookie.clone()),
        ("Authorization", format!("Bearer {}", user.token)),
        ("Authorization", format!("Bearer {signed}")),
    ]
}

async fn statuses(gateway: &Gateway, user: &User, path: &str) -> Vec<u16> {
    let mut statuses = Vec::new();
    for via in BOTH {
        for (name, value) in shown(user) {
            statuses.push(ask(gateway, via, "GET", path, &[(name, &value)]).await.status);
        }
    }
    statuses
}

#[tokio::test]
async fn sess_01_a_cookie_that_somebody_else_chose_is_worth_nothing_after_signing_in() {
    let gateway = Gateway::start().await;
    let eve = gateway.signed_in("eve@example.com").await;
    gateway.verified("ada@example.com").await;
    let name = gateway.session_cookie();
    let made_up = format!("{name}={}.{}%3D", "f".repeat(43), "A".repeat(43));
    for planted in [
        made_up,
        eve.cookie.clone(),
        format!("{name}=fixed"),
        format!("{name}={}", eve.token),
    ] {
        let body = json!({ "email": "ada@example.com", "password": PASSWORD });
        let call = gateway
            .post("/api/auth/sign-in/email")
            .header("Cookie", &planted)
            .header("Origin", gateway.site());
        let ada = User::of(&gateway, &call.json(&body).await);
        assert!(!planted.contains(&ada.token) && ada.cookie != planted);
        let saw = ask(&gateway, Via::Http1, "GET", "/optional/x", &[("Cookie", &planted)]).await;
        assert_eq!(saw.status, 200);
        assert_ne!(
            gateway.upstream().last().head.one("x-user-id"),
            Some(ada.id.as_str()),
            "{planted}"
        );
        // With both, as a planted cookie of another path comes first: it is theirs or nobody's, not another's.
        let both = format!("{planted}; {}", ada.cookie);
        ask(&gateway, Via::Http1, "GET", "/optional/x", &[("Cookie", &both)]).await;
        let head = gateway.upstream().last().head;
        let id = head.one("x-user-id");
        assert!(id.is_none() || id == Some(&ada.id), "{planted}: {id:?}");
    }
}

#[tokio::test]
async fn sess_03_after_signing_out_no_copy_works_in_any_form() {
    for how in ["sign-out", "revoke-session", "revoke-sessions"] {
        let gateway = Gateway::start().await;
        let ada = gateway.signed_in("ada@example.com").await;
        assert_eq!(statuses(&gateway, &ada, "/api/me").await, [200; 6]);
        let body = if how == "revoke-session" {
            json!({ "token": ada.token })
        } else {
            json!({})
        };
        let answer = gateway.post(&format!("/api/auth/{how}")).with(&ada).json(&body).await;
        assert_eq!(answer.status(), 200, "{how}: {}", answer.text());
        assert_eq!(statuses(&gateway, &ada, "/api/me").await, [401; 6], "{how}");
        assert_eq!(statuses(&gateway, &ada, "/optional/x").await, [200; 6], "{how}");
        let told = gateway.upstream().requests();
        assert!(
            told.iter().rev().take(6).all(|seen| !seen.head.has("x-user-id")),
            "{how}"
        );
        for path in ["/api/auth/me", "/api/auth/list-sessions", "/api/auth/verify-token"] {
            assert_eq!(statuses(&gateway, &ada, path).await, [401; 6], "{how}: {path}");
        }
    }
}

/// Whatever ends somebody's sessions, both gateways know, whose caches are warm.
#[tokio::test]
async fn sess_04_sess_08_whoever_is_out_is_out_at_every_gateway() {
    for statement in [
        "UPDATE user_sessions SET revoked_at = '2026-11-21T08:00:00Z' WHERE user_id = (SELECT id FROM users WHERE email LIKE 'ada%')",
        "UPDATE users SET banned = true WHERE email LIKE 'ada%'",
        "DELETE FROM users WHERE email LIKE 'ada%'",
    ] {
        let db = Database::fresh().await;
        let gateways = [Gateway::on(&db).await, Gateway::on(&db).await];
        let ada = gateways[0].signed_in("ada@example.com").await;
        let eve = gateways[1].signed_in("eve@example.com").await;
        for gateway in &gateways {
            assert_eq!(statuses(gateway, &ada, "/api/me").await, [200; 6]);
        }
        db.run(statement).await;
        for gateway in &gateways {
            eventually(SOON, async || statuses(gateway, &ada, "/api/me").await == [401; 6]).await;
            // For good.
            gateway.clock().advance(Duration::from_secs(11));
            assert_eq!(statuses(gateway, &ada, "/api/me").await, [401; 6], "{statement}");
            assert_eq!(statuses(gateway, &eve, "/api/me").await, [200; 6], "{statement}");
        }
        let again = gateways[1].sign_in("ada@example.com").await;
        let banned = statement.contains("banned");
        let gone = statement.contains("DELETE");
        assert_eq!(
            again.status(),
            if banned {
                403
            } else if gone {
                401
            } else {
                200
            },
            "{statement}"
        );
    }
}

#[tokio::test]
async fn sess_07_a_changed_password_ends_the_others_where_that_is_asked_for_or_set() {
    for (over, asked) in [
        ("", json!(true)),
        ("[auth.password]\nchange_revokes_others = true", json!(null)),
    ] {
        let gateway = Setup::default().with(over).start().await;
        let one = gateway.signed_in("ada@example.com").await;
        let two = User::of(&gateway, &gateway.sign_in("ada@example.com").await);
        let three = User::of(&gateway, &gateway.sign_in("ada@example.com").await);
        for user in [&one, &two, &three] {
            assert_eq!(statuses(&gateway, user, "/api/me").await, [200; 6]);
        }
        let mut body = json!({ "currentPassword": PASSWORD, "newPassword": "another one, as long" });
        if asked == json!(true) {
            body["revokeOtherSessions"] = asked;
        }
        let answer = gateway.post("/api/auth/change-password").with(&one).json(&body).await;
        assert_eq!(answer.status(), 200, "{}", answer.text());
        for user in [&two, &three] {
            assert_eq!(statuses(&gateway, user, "/api/me").await, [401; 6], "{over}");
        }
    }
}

/// Everything that lies in the database, tried as everything that a token may come as.
#[tokio::test]
async fn sess_12_nothing_that_is_stored_works_as_a_token() {
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    let client = gateway.db().client().await;
    let tables = "SELECT table_name::text FROM information_schema.tables WHERE table_schema = 'auth' AND table_type = 'BASE TABLE'";
    let mut values: Vec<String> = Vec::new();
    for table in client.query(tables, &[]).await.unwrap() {
        let table: String = table.get(0);
        let cells = format!(
            "SELECT DISTINCT cell.value FROM auth.\"{table}\" AS t, LATERAL jsonb_each_text(to_jsonb(t)) AS cell
             WHERE cell.value IS NOT NULL AND length(cell.value) BETWEEN 8 AND 500"
        );
        for row in client.query(&cells, &[]).await.unwrap() {
            let value: String = row.get(0);
            if let Some(hex) = value.strip_prefix("\\x") {
                // As bytes are usually written.
                let bytes: Vec<u8> = hex
                    .as_bytes()
                    .chunks(2)
                    .map(|two| u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16).unwrap())
                    .collect();
                values.push(Base64UrlUnpadded::encode_string(&bytes));
                values.push(Base64::encode_string(&bytes));
                values.push(hex.to_owned());
            }
            values.push(value);
        }
    }
    assert!(values.len() > 20, "{}", values.len());
    assert!(
        !values.iter().any(|value| value.contains(&ada.token)),
        "the token itself is stored"
    );
    let name = gateway.session_cookie();
    let signature = ada.cookie.rsplit_once('.').unwrap().1;
    for value in values
        .iter()
        .filter(|value| value.bytes().all(|byte| (0x21..0x7f).contains(&byte) && byte != b';'))
    {
        for (field, value) in [
            ("Cookie", format!("{name}={value}")),
            ("Cookie", format!("{name}={value}.{signature}")),
            ("Authorization", format!("Bearer {value}")),
        ] {
            // As bytes: what a client of the harness shows is a secret, and these are in the database.
            let host = gateway.host();
            let head = format!("GET /api/me HTTP/1.1\r\nHost: {host}\r\n{field}: {value}\r\nConnection: close\r\n\r\n");
            assert_eq!(sent(&gateway, head).await.0.status(), 401, "{field}: {value}");
        }
    }
    assert_eq!(gateway.upstream().requests().len(), 0);
}

#[tokio::test]
async fn sess_13_without_postgres_nobody_gets_in_who_was_not_just_known_to_be() {
    let setup = Setup::default().with("[database]\nacquire_timeout = '2s'");
    let gateway = setup.start().await;
    let warm = gateway.signed_in("ada@example.com").await;
    let cold = gateway.signed_in("eve@example.com").await;
    let name = gateway.session_cookie();
    let unknown = format!("Bearer {}", "z".repeat(43));
    eventually(SOON, async || {
        gateway.admin_get("/readyz").await.json().get("degraded").is_none()
    })
    .await;
    assert_eq!(gateway.get("/api/me").with(&warm).await.status(), 200);
    let before = gateway.upstream().requests().len();

    gateway.db().shut().await;
    eventually(SOON, async || {
        gateway.admin_get("/readyz").await.json().get("degraded").is_some()
    })
    .await;
    for via in BOTH {
        for path in ["/api/me", "/admin/x"] {
            for field in [("Cookie", cold.cookie.as_str()), ("Authorization", unknown.as_str())] {
                let saw = ask(&gateway, via, "GET", path, &[field]).await;
                assert_eq!(saw.status, 503, "{via:?} {path} {field:?}: {}", saw.text());
                assert!(saw.has("retry-after") && !saw.has("set-cookie"), "{:?}", saw.fields);
            }
            // Who shows nothing is nobody, whatever is the matter.
            assert_eq!(ask(&gateway, via, "GET", path, &[]).await.status, 401);
        }
        assert_eq!(
            ask(&gateway, via, "GET", "/public/x", &[("Cookie", &cold.cookie)])
                .await
                .status,
            200
        );
        assert_eq!(ask(&gateway, via, "GET", "/public/x", &[]).await.status, 200);
    }
    let seen = gateway.upstream().requests();
    assert!(
        seen[before..]
            .iter()
            .all(|seen| seen.head.path() == "/public/x" && !seen.head.has("x-user-id"))
    );
    // Of who was known a moment ago it is still so; for no longer than the cache's time.
    let status = gateway.get("/api/me").with(&warm).await.status();
    assert!(matches!(status, 200 | 503), "{status}");
    gateway.clock().advance(Duration::from_secs(11));
    let answer = gateway.get("/api/me").with(&warm).await;
    assert_eq!(answer.status(), 503);
    assert!(
        !answer.head.has("set-cookie"),
        "nobody is signed out by an outage: {:?}",
        answer.head
    );
    for (method, path, body) in [
        (
            "POST",
            "/api/auth/sign-in/email",
            json!({ "email": "ada@example.com", "password": PASSWORD }),
        ),
        ("POST", "/api/auth/sign-out", json!({})),
        ("GET", "/api/auth/get-session", json!(null)),
    ] {
        let call = gateway.call(method, path).with(&warm);
        let answer = if body.is_null() {
            call.await
        } else {
            call.json(&body).await
        };
        assert_eq!(answer.status(), 503, "{path}: {}", answer.text());
        assert!(answer.set_cookie(name).is_none(), "{path}: {:?}", answer.head);
    }

    gateway.db().reopen().await;
    for user in [&warm, &cold] {
        eventually(SOON, async || gateway.get("/api/me").with(user).await.status() == 200).await;
    }
}

#[tokio::test]
async fn sess_16_a_token_counts_only_where_tokens_belong() {
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    let value = ada.cookie.split_once('=').unwrap().1.to_owned();
    let name = gateway.session_cookie();
    for key in [
        "session",
        "token",
        "access_token",
        "sessionToken",
        "session_token",
        "auth",
        "authorization",
        "jwt",
        name,
    ] {
        for value in [ada.token.as_str(), value.as_str()] {
            canary::open(value);
            for target in [
                format!("/api/me?{key}={value}"),
                format!("/api/{value}"),
                format!("/api/me;{key}={value}"),
            ] {
                for via in BOTH {
                    let status = ask(&gateway, via, "GET", &target, &[]).await.status;
                    // A signature may have a slash, which in a path can't be escaped.
                    let refused = if target.contains("%2F") { 400..=401 } else { 401..=401 };
                    assert!(refused.contains(&status), "{via:?} {target}: {status}");
                }
            }
            for (media, body) in [
                ("application/x-www-form-urlencoded", format!("{key}={value}")),
                ("application/json", json!({ key: value }).to_string()),
            ] {
                let call = gateway.post("/api/me").header("Content-Type", media).body(body);
                assert_eq!(call.await.status(), 401, "{media} {key}");
            }
            let target = format!("/api/auth/get-session?{key}={value}");
            assert_eq!(gateway.get(&target).await.json(), json!(null), "{target}");
        }
    }
    for field in [
        "X-Session-Token",
        "X-Auth-Token",
        "X-Access-Token",
        "X-Api-Key",
        "Token",
        "Set-Cookie",
        "Cookie2",
        "X-Cookie",
        "Proxy-Authorization",
        "X-Authorization",
        "WWW-Authenticate",
        "Sec-WebSocket-Protocol",
        "Referer",
        "X-Forwarded-Access-Token",
    ] {
        for value in [ada.token.clone(), format!("Bearer {}", ada.token), ada.cookie.clone()] {
            for via in BOTH {
                assert_eq!(
                    ask(&gateway, via, "GET", "/api/me", &[(field, &value)]).await.status,
                    401,
                    "{field}: {value}"
                );
            }
        }
    }
    for value in [
        ada.token.clone(),
        format!("Token {}", ada.token),
        format!("Basic {}", ada.token),
        format!("Bearer{}", ada.token),
        format!("Bearer:{}", ada.token),
        format!("Bearer,{}", ada.token),
        format!("Bearer {},x", ada.token),
        format!("Bearer {} x", ada.token),
        format!("Bearer x {}", ada.token),
        format!("Bearer \"{}\"", ada.token),
        format!("Bearer token={}", ada.token),
        format!("Bearer {}x", ada.token),
        format!("Bearer {}", &ada.token[1..]),
        format!("Bearer {}", ada.token.to_ascii_uppercase()),
        format!("x Bearer {}", ada.token),
    ] {
        for via in BOTH {
            assert_eq!(
                ask(&gateway, via, "GET", "/api/me", &[("Authorization", &value)])
                    .await
                    .status,
                401,
                "{value}"
            );
        }
    }
    assert_eq!(gateway.upstream().requests().len(), 0);
}

/// What was found out too late is not kept, and serves nobody who asks afterwards.
#[tokio::test]
async fn sess_06_a_look_up_that_a_revocation_overtakes_lets_nobody_in() {
    for revoke in [
        "UPDATE user_sessions SET revoked_at = '2026-11-21T08:00:00Z'",
        "DELETE FROM user_sessions",
        "UPDATE users SET banned = true",
    ] {
        let setup = Setup::default().with("[database]\nacquire_timeout = '15s'\nstatement_timeout = '15s'");
        let gateway = setup.start().await;
        let ada = gateway.signed_in("ada@example.com").await;
        eventually(SOON, async || {
            gateway.admin_get("/readyz").await.json().get("degraded").is_none()
        })
        .await;
        gateway.clock().advance(Duration::from_secs(11));
        // The look-up waits at a lock until the revocation is there.
        let by_hand = gateway.db().client().await;
        by_hand
            .batch_execute("BEGIN; LOCK TABLE user_sessions, users IN ACCESS EXCLUSIVE MODE")
            .await
            .unwrap();
        let early = tokio::spawn(gateway.get("/api/me").with(&ada).into_future());
        let waits = "SELECT count(*) FROM pg_stat_activity
            WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%token_hash = $1%'";
        eventually(SOON, async || gateway.db().count(waits).await > 0).await;
        by_hand.batch_execute(&format!("{revoke}; COMMIT")).await.unwrap();
        early.await.unwrap();
        for _ in 0..20 {
            assert_eq!(gateway.get("/api/me").with(&ada).await.status(), 401, "{revoke}");
        }
    }
}
