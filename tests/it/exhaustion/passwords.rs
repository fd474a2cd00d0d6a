//! Passwords: what hashing them may cost.

use std::{collections::HashMap, future::IntoFuture};

use serde_json::json;

use super::{Control, reached};
use crate::harness::{
    Gateway, SOON, Setup, eventually,
    people::{PASSWORD, User},
};

#[tokio::test]
async fn hash_01_a_megabyte_is_refused_before_it_is_hashed_and_128_characters_are_not() {
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    let megabyte = "x".repeat(1 << 20);
    // Past what is configured, though small enough to be read.
    for (password, status) in [
        (megabyte.as_str(), 413),
        (&"x".repeat(60 << 10), 400),
        (&"x".repeat(129), 400),
    ] {
        let sign_up = json!({ "name": "Bob", "email": "bob@example.com", "password": password });
        let answer = gateway.post("/api/auth/sign-up/email").json(&sign_up).await;
        assert_eq!(answer.status(), status, "{}", answer.text());
        let change = json!({ "currentPassword": PASSWORD, "newPassword": password });
        let answer = gateway.post("/api/auth/change-password").with(&ada).json(&change).await;
        assert_eq!(answer.status(), status, "{}", answer.text());
        let change = json!({ "currentPassword": password, "newPassword": PASSWORD });
        let answer = gateway.post("/api/auth/change-password").with(&ada).json(&change).await;
        assert!((400..500).contains(&answer.status()), "{}", answer.text());
        let sign_in = json!({ "email": "ada@example.com", "password": password });
        let answer = gateway.post("/api/auth/sign-in/email").json(&sign_in).await;
        assert!((400..500).contains(&answer.status()), "{}", answer.text());
    }
    let longest = "p".repeat(128);
    let change = json!({ "currentPassword": PASSWORD, "newPassword": longest });
    let answer = gateway.post("/api/auth/change-password").with(&ada).json(&change).await;
    assert_eq!(answer.status(), 200, "{}", answer.text());
    let sign_in = json!({ "email": "ada@example.com", "password": longest });
    let answer = gateway.post("/api/auth/sign-in/email").json(&sign_in).await;
    User::of(&gateway, &answer);
}

/// As costly as it is by default, on one thread, and few may wait.
const COSTLY: &str = "
    [database]
    acquire_timeout = '15s'
    [auth.password]
    argon2 = { memory = '19MiB', iterations = 2, parallelism = 1 }
    max_concurrent = 1
    queue = 16";

#[tokio::test]
async fn hash_02_of_300_sign_ins_at_once_a_few_wait_and_the_others_are_told_at_once() {
    let gateway = Setup::default().with(COSTLY).start().await;
    let control = Control::signed_in(&gateway).await;
    gateway.verified("ada@example.com").await;
    let body = json!({ "email": "ada@example.com", "password": PASSWORD });
    let calls: Vec<_> = (0..300)
        .map(|_| tokio::spawn(gateway.post("/api/auth/sign-in/email").json(&body).into_future()))
        .collect();
    let mut statuses = HashMap::<u16, usize>::new();
    for call in calls {
        let answer = call.await.unwrap();
        *statuses.entry(answer.status()).or_default() += 1;
        if answer.status() == 503 {
            assert!(answer.head.has("retry-after"));
        }
    }
    assert!(control.end().await > 0);
    let (tested, refused) = (statuses.remove(&200).unwrap_or(0), statuses.remove(&503).unwrap_or(0));
    assert!(statuses.is_empty(), "{statuses:?}");
    assert!(tested >= 17 && refused > 0, "{tested} and {refused}");
    let counted = reached(&gateway, "auth.password.queue").await;
    #[expect(clippy::cast_precision_loss, reason = "a small number")]
    let refused = refused as f64;
    assert!((counted - refused).abs() < 0.5, "{counted} of {refused}");
    eventually(SOON, async || gateway.metric("vestibule_hashes_waiting").await < 0.5).await;
    gateway.sign_in("ada@example.com").await;
}

/// The peers of the tests are proxies that are believed, so that a test can come from anywhere.
const LIMITED: &str = "
    [server]
    trusted_proxies = ['127.0.0.1']
    [database]
    acquire_timeout = '15s'
    [auth.rate_limit]
    enabled = true";

fn address(number: usize) -> String {
    format!("198.18.{}.{}", number / 250, number % 250 + 1)
}

#[tokio::test]
async fn rate_03_of_a_hundred_guesses_at_once_no_more_are_tested_than_of_a_hundred_in_a_row() {
    let gateway = Setup::default().with(LIMITED).start().await;
    gateway.verified("ada@example.com").await;
    let body = json!({ "email": "ada@example.com", "password": "not the password" });
    // From one address, and from a hundred: of the one three are let through at all, of the account's ten are tested.
    for (from, most) in [(None, 3), (Some(()), 10)] {
        let calls: Vec<_> = (0..100)
            .map(|number| {
                let from = address(from.map_or(999, |()| number));
                let call = gateway.post("/api/auth/sign-in/email").header("X-Forwarded-For", from);
                tokio::spawn(call.json(&body).into_future())
            })
            .collect();
        let mut tested = 0;
        for call in calls {
            match call.await.unwrap().status() {
                401 => tested += 1,
                status => assert_eq!(status, 429),
            }
        }
        assert!((1..=most).contains(&tested), "{tested} of at most {most}");
    }
    let evaluated = "SELECT count(*) FROM audit_log WHERE reason = 'INVALID_EMAIL_OR_PASSWORD'";
    assert_eq!(gateway.db().count(evaluated).await, 10);
}

#[tokio::test]
async fn reset_12_of_500_requests_for_one_mailbox_a_few_mails_come_and_all_answers_are_alike() {
    let gateway = Setup::default().with(LIMITED).start().await;
    gateway.verified("ada@example.com").await;
    let ask = |number: usize, email: &str| {
        gateway
            .post("/api/auth/request-password-reset")
            .header("X-Forwarded-For", address(number))
            .json(&json!({ "email": email, "redirectTo": "/reset" }))
    };
    let unknown = ask(200, "nobody@example.com").await;
    // A hundred addresses, five times each; each may ask three times a minute.
    for round in 0..5 {
        let calls: Vec<_> = (0..100)
            .map(|number| tokio::spawn(ask(number, "ada@example.com").into_future()))
            .collect();
        for call in calls {
            let answer = call.await.unwrap();
            assert_eq!((answer.status(), answer.text()), (unknown.status(), unknown.text()));
        }
        if round % 2 == 1 {
            gateway.clock().advance(std::time::Duration::from_mins(1));
        }
    }
    let mails = "SELECT count(*) FROM mail_outbox WHERE recipient = 'ada@example.com'";
    let sent = gateway.db().count(mails).await;
    assert!((1..=5).contains(&sent), "{sent} mails");
}
