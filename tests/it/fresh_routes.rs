//! Routes that demand a fresh sign-in.

use std::time::Duration;

use crate::harness::{Gateway, Setup, people::User};

const ROUTES: &str = "
    auth.pages.sign_in = '/sign-in'
    routes = [
        { path = '/api/*', upstream = 'app' },
        { path = '/safe/*', upstream = 'app', require = { fresh = '10m' } },
        { path = '/plain/*', upstream = 'app', require = { fresh = '10m' }, on_denied = 'status' },
        { path = '/root/*', upstream = 'app', require = { fresh = '10m', roles = ['admin'] } },
    ]";

async fn stale() -> (Gateway, User) {
    let gateway = Setup::default().with(ROUTES).start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    assert_eq!(gateway.get("/safe/x").with(&ada).await.status(), 200);
    gateway.clock().advance(Duration::from_secs(599));
    assert_eq!(gateway.get("/safe/x").with(&ada).await.status(), 200);
    gateway.clock().advance(Duration::from_secs(1));
    (gateway, ada)
}

#[tokio::test]
async fn a_program_is_told_that_the_sign_in_is_too_old() {
    let (gateway, ada) = stale().await;
    let answer = gateway.get("/safe/x").with(&ada).await;
    assert_eq!((answer.status(), &*answer.code()), (403, "SESSION_NOT_FRESH"));
    assert_eq!(gateway.upstream().seen("/safe/x"), 2, "the upstream did not hear of it");
    assert_eq!(
        gateway.get("/api/x").with(&ada).await.status(),
        200,
        "elsewhere it is good"
    );
    assert_eq!(gateway.get("/safe/x").await.status(), 401);
}

#[tokio::test]
async fn a_person_is_sent_to_sign_in_again_and_comes_back() {
    let (gateway, ada) = stale().await;
    let navigate = |target: &str| {
        let call = gateway.get(target).with(&ada);
        call.header("Sec-Fetch-Mode", "navigate")
    };
    let answer = navigate("/safe/x?a=1").await;
    assert_eq!(answer.status(), 303);
    assert_eq!(
        answer.head.one("location"),
        Some("/sign-in?return_to=%2Fsafe%2Fx%3Fa%3D1&step_up=fresh")
    );
    assert_eq!(navigate("/plain/x").await.status(), 403);
    let again = User::of(&gateway, &gateway.sign_in("ada@example.com").await);
    assert_eq!(gateway.get("/safe/x").with(&again).await.status(), 200);
}

#[tokio::test]
async fn nobody_is_sent_to_sign_in_for_what_they_may_not_do_anyhow() {
    let (gateway, ada) = stale().await;
    let answer = gateway
        .get("/root/x")
        .with(&ada)
        .header("Sec-Fetch-Mode", "navigate")
        .await;
    assert_eq!(answer.status(), 403);
    assert_eq!(gateway.get("/root/x").with(&ada).await.code(), "FORBIDDEN");
}

#[tokio::test]
async fn using_a_session_does_not_make_it_fresh() {
    let (gateway, ada) = stale().await;
    // Its expiry slides at this use; the sign-in stays as long ago as it was.
    gateway.clock().advance(Duration::from_hours(25));
    assert_eq!(gateway.get("/api/x").with(&ada).await.status(), 200);
    assert_eq!(gateway.get("/safe/x").with(&ada).await.code(), "SESSION_NOT_FRESH");
}
