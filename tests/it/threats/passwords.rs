//! HASH, ENUM, RATE, RESET: guessing, and what guesses may cost and tell.

use std::time::{Duration, Instant};

use base64ct::{Base64UrlUnpadded, Encoding};
use serde_json::{Value, json};
use vestibule::auth::ROUTES;

use crate::harness::{
    Database, Gateway, Setup,
    client::{Call, Response},
    people::{PASSWORD, User},
};

/// Every place where a password is taken.
fn with_password(gateway: &Gateway, user: &User, password: &str) -> Vec<Call> {
    let post = |path: &str, body: Value| gateway.post(&format!("/api/auth{path}")).with(user).json(&body);
    vec![
        post("/sign-in/email", json!({ "email": user.email, "password": password })),
        post(
            "/signin",
            json!({ "email": "nobody@example.com", "password": password }),
        ),
        post(
            "/sign-up/email",
            json!({ "name": "A", "email": "new@example.com", "password": password }),
        ),
        post(
            "/signup",
            json!({ "name": "A", "email": "new@example.com", "password": password }),
        ),
        post(
            "/change-password",
            json!({ "currentPassword": PASSWORD, "newPassword": password }),
        ),
        post(
            "/change-password",
            json!({ "currentPassword": password, "newPassword": "long enough, is it" }),
        ),
        post(
            "/reset-password",
            json!({ "token": "x".repeat(43), "newPassword": password }),
        ),
        post("/verify-password", json!({ "password": password })),
        post("/set-password", json!({ "newPassword": password })),
        post("/delete-user", json!({ "password": password })),
    ]
}

/// With hashing as dear as it gets here, so that one that was done would be noticed.
#[tokio::test]
async fn hash_01_a_password_of_a_megabyte_is_refused_before_it_is_hashed() {
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    for size in [129, 4096, 1 << 20] {
        let password = "p".repeat(size);
        for call in with_password(&gateway, &ada, &password) {
            let answer = call.await;
            assert!(
                (400..500).contains(&answer.status()),
                "{size}: {} {:.200}",
                answer.status(),
                answer.text()
            );
            assert!(!answer.head.has("set-cookie"), "{size}");
        }
    }
    let users = "SELECT count(*) FROM users";
    assert_eq!(gateway.db().count(users).await, 1, "nobody signed up, nobody is gone");
    assert_eq!(gateway.sign_in("ada@example.com").await.status(), 200);
    // The longest that is allowed works, in whatever script.
    for (number, letter) in ["p", "ü", "密"].iter().enumerate() {
        let longest = letter.repeat(128);
        let email = format!("long{number}@example.com");
        let body = json!({ "name": "A", "email": email, "password": longest });
        let answer = gateway.post("/api/auth/sign-up/email").json(&body).await;
        assert_eq!(answer.status(), 200, "{}", answer.text());
        gateway.db().run("UPDATE users SET email_verified = true").await;
        let body = json!({ "email": email, "password": longest });
        assert_eq!(
            gateway.post("/api/auth/sign-in/email").json(&body).await.status(),
            200,
            "{letter}"
        );
        let body = json!({ "email": email, "password": format!("{longest}x") });
        assert!(
            gateway.post("/api/auth/sign-in/email").json(&body).await.status() >= 400,
            "{letter}"
        );
    }
}

/// However many come, so many are hashed at once; the rest waits or is told so, and nobody else notices.
#[tokio::test]
async fn hash_02_a_storm_of_sign_ins_is_told_to_come_later_and_keeps_nobody_else_waiting() {
    let over = "[auth.password]\nargon2 = { memory = '16MiB', iterations = 2, parallelism = 1 }\nmax_concurrent = 1\nqueue = 4";
    let gateway = Setup::default().with(over).start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    let storm: Vec<_> = (0..100)
        .map(|number| {
            let body = json!({ "email": format!("user{number}@example.com"), "password": "not the password" });
            tokio::spawn(gateway.post("/api/auth/sign-in/email").json(&body).into_future())
        })
        .collect();
    for _ in 0..20 {
        assert_eq!(gateway.get("/api/me").with(&ada).await.status(), 200);
    }
    let mut put_off = 0;
    for attempt in storm {
        let answer = attempt.await.unwrap();
        match answer.status() {
            401 => {}
            503 => {
                assert!(answer.head.has("retry-after"), "{:?}", answer.head);
                put_off += 1;
            }
            other => panic!("{other}: {}", answer.text()),
        }
    }
    assert!(put_off >= 20, "{put_off}");
    assert_eq!(
        gateway.sign_in("ada@example.com").await.status(),
        200,
        "and when it is over all is well"
    );
}

/// What a client can see of an answer, but for what is each request's own.
fn shape(answer: &Response) -> (u16, Vec<String>, Value) {
    let mut names: Vec<String> = answer
        .head
        .fields
        .iter()
        .map(|(name, _)| name.to_ascii_lowercase())
        .collect();
    names.sort_unstable();
    let mut body = answer.json();
    if let Value::Object(fields) = &mut body {
        fields.remove("requestId");
    }
    (answer.status(), names, body)
}

#[tokio::test]
async fn enum_01_enum_03_no_answer_tells_whether_an_address_is_known() {
    let gateway = Gateway::start().await;
    gateway.verified("ada@example.com").await;
    gateway.sign_up("unverified@example.com").await;
    let known = ["ada@example.com", "ADA@EXAMPLE.COM", "unverified@example.com"];
    for (path, body) in [
        ("/sign-in/email", json!({ "password": "not the password" })),
        ("/request-password-reset", json!({ "redirectTo": "/x" })),
        ("/forget-password", json!({})),
        ("/send-verification-email", json!({ "callbackURL": "/x" })),
    ] {
        let ask = async |email: &str| {
            let mut body = body.clone();
            body["email"] = json!(email);
            shape(&gateway.post(&format!("/api/auth{path}")).json(&body).await)
        };
        let nobody = ask("nobody@example.com").await;
        for email in known {
            assert_eq!(ask(email).await, nobody, "{path} {email}");
        }
    }
    let sign_up = async |email: &str| {
        let body = json!({ "name": "Somebody", "email": email, "password": PASSWORD });
        let (status, names, mut body) = shape(&gateway.post("/api/auth/sign-up/email").json(&body).await);
        // Both are made up for it.
        for field in ["id", "createdAt", "updatedAt", "email"] {
            assert!(body["user"][field].is_string(), "{body}");
            body["user"][field] = json!(null);
        }
        (status, names, body)
    };
    let free = sign_up("free@example.com").await;
    for email in known {
        assert_eq!(sign_up(email).await, free, "{email}");
    }
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// One hash is spent in each case. Taken in turns, so that whatever else the machine does concerns all alike; and once
/// more where it did not.
#[tokio::test]
async fn enum_02_a_wrong_password_takes_as_long_for_nobody_as_for_somebody() {
    let over = "[auth.password]\nargon2 = { memory = '16MiB', iterations = 2, parallelism = 1 }";
    let gateway = Setup::default().with(over).start().await;
    gateway.verified("ada@example.com").await;
    gateway.verified("grace@example.com").await;
    // She came by a provider, and has no password.
    gateway
        .db()
        .run("DELETE FROM accounts WHERE user_id = (SELECT id FROM users WHERE email LIKE 'grace%')")
        .await;
    let emails = ["ada@example.com", "nobody@example.com", "grace@example.com"];
    let mut seen = Vec::new();
    for _ in 0..5 {
        let mut times: [Vec<Duration>; 3] = Default::default();
        for _ in 0..25 {
            for (email, times) in emails.iter().zip(&mut times) {
                let body = json!({ "email": email, "password": "not the password" });
                let began = Instant::now();
                let answer = gateway.post("/api/auth/sign-in/email").json(&body).await;
                times.push(began.elapsed());
                assert_eq!(
                    (answer.status(), answer.code()),
                    (401, "INVALID_EMAIL_OR_PASSWORD".to_owned())
                );
            }
        }
        let medians = times.map(|mut times| median(&mut times));
        let (least, most) = (medians.iter().min().unwrap(), medians.iter().max().unwrap());
        seen.push(medians);
        if most.as_secs_f64() < least.as_secs_f64() * 1.25 {
            return;
        }
    }
    panic!("known, unknown, without a password: {seen:?}");
}

/// From a peer that nobody trusts every address is made up.
#[tokio::test]
async fn rate_01_whatever_a_client_says_of_where_it_is_it_is_one_source() {
    for name in [
        "X-Forwarded-For",
        "X-Real-IP",
        "Forwarded",
        "X-Client-IP",
        "X-Cluster-Client-IP",
        "True-Client-IP",
        "CF-Connecting-IP",
        "Fastly-Client-IP",
        "X-Originating-IP",
        "X-Remote-IP",
        "X-Remote-Addr",
        "X-Forwarded",
        "Forwarded-For",
        "X_Forwarded_For",
        "Client-IP",
        "Via",
    ] {
        let gateway = Setup::default().with("[auth.rate_limit]\nenabled = true").start().await;
        let mut statuses = Vec::new();
        for number in 0..12 {
            let value = match name {
                "Forwarded" => format!("for=198.18.0.{number}"),
                _ => format!("198.18.0.{number}"),
            };
            let body = json!({ "email": format!("u{number}@example.com"), "password": "not the password" });
            let call = gateway.post("/api/auth/sign-in/email").header(name, value).json(&body);
            statuses.push(call.await.status());
        }
        let allowed = statuses.iter().filter(|status| **status == 401).count();
        assert_eq!((allowed, statuses.len() - allowed), (3, 9), "{name}: {statuses:?}");
    }
}

/// There are no codes here that could be guessed: all that proves something by itself is long and random. Whoever adds
/// one that is short has to take this test's place with one of its limits.
#[tokio::test]
async fn rate_08_nothing_that_proves_something_is_short_enough_to_guess() {
    for route in ROUTES {
        for short in ["otp", "two-factor", "totp", "code", "pin", "phone", "magic", "backup"] {
            assert!(!route.path.contains(short), "{}: what limits guesses?", route.path);
        }
    }
    let gateway = Gateway::start().await;
    gateway.sign_up("ada@example.com").await;
    let mail = gateway.mailbox().next_to("ada@example.com").await;
    let mut tokens = vec![mail.token()];
    // A link holds a token, and that may well hold four digits in a row.
    let digits = |text: &str| {
        let words = text.split_whitespace().filter(|word| !word.contains("://"));
        words
            .flat_map(|word| word.split(|c: char| !c.is_ascii_digit()))
            .filter(|word| (4..=9).contains(&word.len()))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(digits(&mail.text), [""; 0], "{}", mail.text);
    gateway.db().run("UPDATE users SET email_verified = true").await;
    gateway
        .post("/api/auth/request-password-reset")
        .json(&json!({ "email": "ada@example.com" }))
        .await;
    let mail = gateway.mailbox().next_to("ada@example.com").await;
    assert_eq!(digits(&mail.text), [""; 0], "{}", mail.text);
    tokens.push(mail.token());
    let ada = User::of(&gateway, &gateway.sign_in("ada@example.com").await);
    tokens.push(ada.token);
    for token in tokens {
        // 32 random bytes.
        assert!(token.len() >= 43, "{token}");
    }
}

/// Odd rows, and times that were tampered with, are no way in.
#[tokio::test]
async fn reset_03_reset_08_reset_10_a_link_is_good_for_its_purpose_its_user_and_its_time() {
    for (tamper, still) in [
        ("UPDATE one_time_tokens SET expires_at = '2026-11-21T07:59:59Z'", false),
        ("UPDATE one_time_tokens SET expires_at = '-infinity'", false),
        ("UPDATE one_time_tokens SET consumed_at = '2026-11-21T07:59:59Z'", false),
        ("UPDATE one_time_tokens SET user_id = NULL", false),
        ("UPDATE one_time_tokens SET email = 'somebody@else.example'", false),
        ("DELETE FROM one_time_tokens", false),
        ("UPDATE users SET email = 'other@example.com'", false),
        ("DELETE FROM users", false),
        ("SELECT 1", true),
    ] {
        let db = Database::fresh().await;
        let gateway = Gateway::on(&db).await;
        gateway.verified("ada@example.com").await;
        gateway.mailbox().next_to("ada@example.com").await;
        gateway
            .post("/api/auth/request-password-reset")
            .json(&json!({ "email": "ada@example.com" }))
            .await;
        let token = gateway.mailbox().next_to("ada@example.com").await.token();
        let stored: Vec<Vec<u8>> = {
            let client = db.client().await;
            let rows = client
                .query("SELECT token_hash FROM one_time_tokens", &[])
                .await
                .unwrap();
            rows.iter().map(|row| row.get(0)).collect()
        };
        let as_stored: Vec<String> = stored
            .iter()
            .map(|hash| Base64UrlUnpadded::encode_string(hash))
            .collect();
        assert!(!as_stored.contains(&token));
        db.run(tamper).await;
        let choose = async |token: &str| {
            let body = json!({ "token": token, "newPassword": "chosen by whoever had the link" });
            gateway.post("/api/auth/reset-password").json(&body).await
        };
        // What lies in the table is no token (RESET-08).
        for hash in &as_stored {
            assert_eq!(choose(hash).await.status(), 400);
        }
        // Nor does it verify, or delete (RESET-10).
        for path in ["verify-email", "delete-user/callback"] {
            let answer = gateway.get(&format!("/api/auth/{path}?token={token}")).await;
            assert!(
                !answer.head.has("set-cookie") && answer.status() >= 300,
                "{path}: {}",
                answer.text()
            );
        }
        let answer = choose(&token).await;
        assert_eq!(
            answer.status() == 200,
            still,
            "{tamper}: {} {}",
            answer.status(),
            answer.text()
        );
    }
}
