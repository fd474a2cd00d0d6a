//! Mails: written with what they announce, sent until they arrive, once.

use std::{future::IntoFuture, net::SocketAddr, time::Duration};

use tokio::{io::AsyncWriteExt, net::TcpListener};
use vestibule::dev::smtp::Verdict;

use crate::harness::{Database, Gateway, SOON, Setup, eventually, mailbox::Mailbox, program::free_port};

/// Time flies in some tests; the links in their mails must outlive it.
const LONG_LIVED: &str = "[auth.email_verification]\nexpires_in = '7d'";

#[tokio::test]
async fn a_mail_has_both_parts_and_says_who_it_is_from() {
    let gateway = Gateway::start().await;
    gateway.sign_up("ada@example.com").await;
    let mail = gateway.mailbox().next_to("ada@example.com").await;
    assert_eq!(mail.to, ["ada@example.com"]);
    assert!(!mail.subject.is_empty());
    assert!(
        mail.text.contains(&mail.link()) && mail.html.contains("Ada Lovelace"),
        "{mail:?}"
    );
    assert!(mail.raw.contains("no-reply@example.com"));
}

#[tokio::test]
async fn a_server_that_says_later_is_tried_again() {
    let gateway = Setup::default().with(LONG_LIVED).start().await;
    gateway
        .mailbox()
        .will_say([Verdict::Refuse(451, "busy".to_owned()), Verdict::HangUp]);
    gateway.sign_up("ada@example.com").await;
    eventually(SOON, async || {
        gateway.clock().advance(Duration::from_secs(1));
        gateway.mailbox().to("ada@example.com").len() == 1
    })
    .await;
    assert_eq!(gateway.mailbox().verdicts_left(), 0);
}

#[tokio::test]
async fn a_name_can_not_break_out_of_the_mail() {
    let gateway = Gateway::start().await;
    let name = "<script>alert(1)</script>\r\nBcc: eve@example.com";
    let body =
        serde_json::json!({ "name": name, "email": "ada@example.com", "password": crate::harness::people::PASSWORD });
    let answer = gateway.post("/api/auth/sign-up/email").json(&body).await;
    assert!(matches!(answer.status(), 200 | 400), "{}", answer.text());
    if answer.status() == 200 {
        let mail = gateway.mailbox().next_to("ada@example.com").await;
        assert_eq!(mail.to, ["ada@example.com"]);
        assert!(!mail.html.contains("<script>"), "{}", mail.html);
        assert!(!mail.raw.contains("\r\nBcc:"), "{}", mail.raw);
    }
}

#[tokio::test]
async fn two_gateways_send_a_mail_once() {
    let db = Database::fresh().await;
    let (here, there) = (Gateway::on(&db).await, Gateway::on(&db).await);
    for number in 0..10 {
        here.sign_up(&format!("user{number}@example.com")).await;
    }
    let count = || -> Vec<usize> {
        (0..10)
            .map(|number| format!("user{number}@example.com"))
            .map(|email| here.mailbox().to(&email).len() + there.mailbox().to(&email).len())
            .collect()
    };
    eventually(SOON, async || count().iter().all(|&count| count >= 1)).await;
    assert_eq!(count(), [1; 10]);
}

#[tokio::test]
async fn a_sent_mail_s_body_is_not_kept() {
    let gateway = Gateway::start().await;
    gateway.sign_up("ada@example.com").await;
    let token = gateway.mailbox().next_to("ada@example.com").await.token();
    let kept = format!("SELECT count(*) FROM mail_outbox AS m WHERE m::text LIKE '%{token}%'");
    eventually(SOON, async || gateway.db().count(&kept).await == 0).await;
}

#[tokio::test]
async fn mails_in_hand_keep_no_connection_from_who_waits_for_one() {
    let gateway = Setup::default().with("[database]\npool_size = 1").start().await;
    let emails: Vec<String> = (0..40).map(|number| format!("user{number}@example.com")).collect();
    let sign_ups = emails.iter().map(|email| {
        let body = serde_json::json!({ "name": "Ada", "email": email, "password": crate::harness::people::PASSWORD });
        gateway.post("/api/auth/sign-up/email").json(&body).into_future()
    });
    for answer in futures_util::future::join_all(sign_ups).await {
        assert_eq!(answer.status(), 200, "{}", answer.text());
    }
    eventually(SOON, async || {
        emails.iter().all(|email| gateway.mailbox().to(email).len() == 1)
    })
    .await;
}

#[tokio::test]
async fn a_mail_waits_for_a_server_that_is_down() {
    let addr = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let gateway = Setup::default()
        .with(&format!("[mail]\nsmtp = 'smtp://{addr}'"))
        .with(LONG_LIVED)
        .start()
        .await;
    assert_eq!(
        gateway.sign_up("ada@example.com").await.status(),
        200,
        "who signs up need not know"
    );
    let tried =
        "SELECT count(*) FROM mail_outbox WHERE attempts >= 1 AND last_error IS NOT NULL AND body_text IS NOT NULL";
    eventually(SOON, async || gateway.db().count(tried).await == 1).await;

    let mailbox = Mailbox::start_at(addr).await;
    eventually(SOON, async || {
        gateway.clock().advance(Duration::from_secs(1));
        !mailbox.to("ada@example.com").is_empty()
    })
    .await;
    let sent = "SELECT count(*) FROM mail_outbox WHERE sent_at IS NOT NULL AND body_text IS NULL AND body_html IS NULL";
    eventually(SOON, async || gateway.db().count(sent).await == 1).await;
    assert_eq!(mailbox.to("ada@example.com").len(), 1);
}

#[tokio::test]
async fn a_mail_that_is_refused_for_good_is_given_up_and_marked() {
    let gateway = Gateway::start().await;
    gateway
        .mailbox()
        .will_say([Verdict::Refuse(550, "5.1.1 no such mailbox".to_owned())]);
    assert_eq!(gateway.sign_up("ada@example.com").await.status(), 200);
    let given_up = "SELECT count(*) FROM mail_outbox
        WHERE failed_at IS NOT NULL AND sent_at IS NULL AND last_error LIKE '%no such mailbox%' AND body_text IS NULL";
    eventually(SOON, async || gateway.db().count(given_up).await == 1).await;

    // The one after it is sent, a day later; this one never is.
    gateway.clock().advance(Duration::from_hours(24));
    gateway.sign_up("bob@example.com").await;
    gateway.mailbox().next_to("bob@example.com").await;
    assert!(gateway.mailbox().to("ada@example.com").is_empty());
    assert_eq!(gateway.db().count(given_up).await, 1);
}

#[tokio::test]
async fn a_policy_refusal_delays_a_mail_and_does_not_end_it() {
    let gateway = Setup::default().with(LONG_LIVED).start().await;
    let policy = "5.7.1 sender not allowed yet".to_owned();
    gateway.mailbox().will_say([
        Verdict::Refuse(550, policy.clone()),
        Verdict::Refuse(553, policy),
        Verdict::Refuse(554, "no transaction today".to_owned()),
    ]);
    gateway.sign_up("ada@example.com").await;
    eventually(SOON, async || {
        gateway.clock().advance(Duration::from_secs(1));
        gateway.mailbox().to("ada@example.com").len() == 1
    })
    .await;
    assert_eq!(gateway.mailbox().verdicts_left(), 0);
}

#[tokio::test]
async fn a_server_that_refuses_this_host_delays_mails_until_it_takes_them() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let refusing = tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let greeting = b"554 5.7.1 client host blocked\r\n";
            let _ = client.write_all(greeting).await;
        }
    });
    let gateway = Setup::default()
        .with(&format!("[mail]\nsmtp = 'smtp://{addr}'"))
        .with(LONG_LIVED)
        .start()
        .await;
    gateway.sign_up("ada@example.com").await;
    let waits = "SELECT count(*) FROM mail_outbox WHERE last_error LIKE '%client host blocked%'
        AND failed_at IS NULL AND body_text IS NOT NULL";
    eventually(SOON, async || gateway.db().count(waits).await == 1).await;

    refusing.abort();
    let _ = refusing.await;
    let mailbox = Mailbox::start_at(addr).await;
    eventually(SOON, async || {
        gateway.clock().advance(Duration::from_secs(1));
        mailbox.to("ada@example.com").len() == 1
    })
    .await;
}

#[tokio::test]
async fn a_server_that_can_not_encrypt_gets_nothing_where_encryption_is_asked_for() {
    for scheme in ["smtp+starttls", "smtps"] {
        let mailbox = Mailbox::start().await;
        let setup = format!("[mail]\nsmtp = '{scheme}://{}'", mailbox.addr());
        let gateway = Setup::default().with(&setup).start().await;
        assert_eq!(gateway.sign_up("ada@example.com").await.status(), 200);
        let tried = "SELECT count(*) FROM mail_outbox WHERE attempts >= 1 AND last_error IS NOT NULL";
        eventually(SOON, async || gateway.db().count(tried).await == 1).await;
        assert!(mailbox.to("ada@example.com").is_empty(), "{scheme}");
    }
}
