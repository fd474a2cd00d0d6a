//! Many at once: what must happen but once happens once, and nobody is told of a failure that is none.

use std::{future::IntoFuture, time::Duration};

use futures_util::future::join_all;
use serde_json::json;

use crate::harness::{Gateway, client::Response, people::PASSWORD};

fn statuses(answers: &[Response]) -> Vec<u16> {
    answers.iter().map(Response::status).collect()
}

#[tokio::test]
async fn of_fifty_sign_ups_with_one_address_one_user_comes() {
    let gateway = Gateway::start().await;
    let answers = join_all((0..50).map(|_| gateway.sign_up("ada@example.com"))).await;
    assert_eq!(statuses(&answers), [200; 50]);
    assert_eq!(gateway.db().count("SELECT count(*) FROM users").await, 1);
    assert_eq!(gateway.db().count("SELECT count(*) FROM accounts").await, 1);
}

#[tokio::test]
async fn fifty_refreshes_of_one_session_extend_it_once() {
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    gateway.clock().advance(Duration::from_hours(48));
    let target = "/api/auth/get-session";
    let answers = join_all((0..50).map(|_| gateway.get(target).with(&ada).into_future())).await;
    assert_eq!(statuses(&answers), [200; 50]);
    let ends = "2026-11-30T08:00:00.000Z";
    assert!(
        answers
            .iter()
            .all(|answer| answer.json()["session"]["expiresAt"] == ends)
    );
    assert_eq!(gateway.db().count("SELECT count(*) FROM user_sessions").await, 1);
}

#[tokio::test]
async fn a_refresh_and_a_sign_out_at_once_leave_no_session() {
    let gateway = Gateway::start().await;
    for n in 0..10 {
        let user = gateway.signed_in(&format!("user{n}@example.com")).await;
        gateway.clock().advance(Duration::from_hours(25));
        let refresh = gateway.get("/api/auth/get-session").with(&user).into_future();
        let (refreshed, ()) = tokio::join!(refresh, gateway.sign_out(&user));
        assert_eq!(refreshed.status(), 200);
        assert_eq!(gateway.get("/api/me").with(&user).await.status(), 401);
    }
}

#[tokio::test]
async fn of_fifty_clicks_on_one_verification_link_all_are_told_that_all_is_well() {
    let gateway = Gateway::start().await;
    let signed_up = gateway.sign_up("ada@example.com").await;
    let mark = signed_up.set_cookie("__Host-vestibule.sign_up").unwrap();
    let mark = mark.split(';').next().unwrap();
    let link = gateway.mailbox().next_to("ada@example.com").await.link();
    let open = |_| gateway.open(&link).header("Cookie", mark).into_future();
    let answers = join_all((0..50).map(open)).await;
    assert_eq!(statuses(&answers), [302; 50]);
    let sessions = answers
        .iter()
        .filter(|answer| answer.set_cookie(gateway.session_cookie()).is_some());
    assert_eq!(sessions.count(), 1, "it signs in once");
    assert_eq!(gateway.db().count("SELECT count(*) FROM user_sessions").await, 1);
}

#[tokio::test]
async fn two_changes_of_one_password_at_once_leave_one_that_works() {
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    let change = |password: &'static str| {
        let body = json!({ "currentPassword": PASSWORD, "newPassword": password });
        gateway
            .post("/api/auth/change-password")
            .with(&ada)
            .json(&body)
            .into_future()
    };
    let passwords = ["password of the first", "password of the second"];
    let answers = join_all(passwords.map(change)).await;
    let right = passwords
        .iter()
        .zip(&answers)
        .filter(|(_, answer)| answer.status() == 200);
    let right: Vec<_> = right.map(|(password, _)| *password).collect();
    assert_eq!(right.len(), 1, "{:?}", statuses(&answers));
    let body = json!({ "email": "ada@example.com", "password": right[0] });
    assert_eq!(gateway.post("/api/auth/sign-in/email").json(&body).await.status(), 200);
}

#[tokio::test]
async fn a_storm_of_refusals_starves_nobody() {
    // Refusals write into the audit log: none may hold one connection while it waits for another.
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    let wrong = json!({ "email": "ada@example.com", "password": "not the password" });
    let calls = (0..60).map(|n| {
        let call = match n % 6 {
            0 => gateway.post("/api/auth/sign-in/email").json(&wrong),
            1 => gateway
                .post("/api/auth/verify-password")
                .with(&ada)
                .json(&json!({ "password": "wrong" })),
            2 => gateway
                .post("/api/auth/reset-password")
                .json(&json!({ "token": "x", "newPassword": PASSWORD })),
            3 => gateway.get("/api/auth/verify-email?token=abc"),
            4 => gateway
                .post("/api/auth/delete-user")
                .with(&ada)
                .json(&json!({ "token": "a" })),
            _ => gateway
                .post("/api/auth/multi-session/revoke")
                .with(&ada)
                .json(&json!({ "sessionToken": "a" })),
        };
        call.into_future()
    });
    let answers = join_all(calls).await;
    let told: Vec<u16> = statuses(&answers);
    assert!(told.iter().all(|status| matches!(status, 400 | 401 | 404)), "{told:?}");
}
