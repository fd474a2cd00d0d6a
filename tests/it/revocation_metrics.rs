//! What an operator sees of how revocations arrive.

use crate::harness::{
    Database, Gateway, SOON, eventually,
    relay::{Relay, Way, Whom},
};

const HEARING: &str = "vestibule_trust{state=\"hearing\"}";

async fn is(gateway: &Gateway, name: &str, least: f64) -> bool {
    gateway.metric(name).await >= least
}

#[tokio::test]
async fn the_lag_is_measured_though_nobody_revokes_anything() {
    let gateway = Gateway::start().await;
    // The first comes before the cache is trusted, the second with the next probe.
    eventually(SOON, async || {
        is(&gateway, "vestibule_revocation_lag_seconds_count", 2.0).await
    })
    .await;
    assert!(gateway.metric("vestibule_revocation_lag_seconds_sum").await > 0.0);
    assert!(is(&gateway, HEARING, 1.0).await);
    for about in ["session", "user", "everything"] {
        let heard = format!("vestibule_revocations_total{{about=\"{about}\"}}");
        assert!(!is(&gateway, &heard, 1.0).await, "a probe is no revocation");
    }
}

#[tokio::test]
async fn what_changed_is_counted_by_what_it_was_about() {
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    eventually(SOON, async || is(&gateway, HEARING, 1.0).await).await;
    let about = async |about: &str| {
        gateway
            .metric(&format!("vestibule_revocations_total{{about=\"{about}\"}}"))
            .await
    };
    let users = about("user").await;
    gateway.sign_out(&ada).await;
    eventually(SOON, async || about("session").await >= 1.0).await;
    gateway.db().run("UPDATE users SET name = 'Somebody Else'").await;
    eventually(SOON, async || about("user").await > users).await;
    gateway.db().run("TRUNCATE users CASCADE").await;
    eventually(SOON, async || about("everything").await >= 1.0).await;
}

#[tokio::test]
async fn tokens_that_are_nobodys_are_told_apart_among_the_hits() {
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    eventually(SOON, async || is(&gateway, HEARING, 1.0).await).await;
    gateway.sign_out(&ada).await;
    // The clock stands still: what is unknown stays so. Word of the sign-out takes it away once more.
    let unknown = "vestibule_session_cache_unknown_hits_total";
    eventually(SOON, async || {
        assert_eq!(gateway.get("/api/me").with(&ada).await.status(), 401);
        is(&gateway, unknown, 2.0).await
    })
    .await;
    assert!(is(&gateway, "vestibule_session_cache_hits_total", 2.0).await);
}

#[tokio::test]
async fn for_how_long_nobody_listened_is_counted() {
    let (relay, db) = Relay::before(&Database::fresh().await).await;
    let gateway = Gateway::on(&db).await;
    let deaf = "vestibule_deaf_seconds_total{state=\"deaf\"}";
    eventually(SOON, async || is(&gateway, HEARING, 1.0).await).await;
    let before = gateway.metric(deaf).await;
    relay.freeze(Whom::Listeners, Way::ToClient);
    eventually(SOON, async || !is(&gateway, HEARING, 1.0).await).await;
    let states = async || {
        let state = async |state: &str| gateway.metric(&format!("vestibule_trust{{state=\"{state}\"}}")).await;
        [state("hearing").await, state("deaf").await, state("unreachable").await]
    };
    assert!((states().await.iter().sum::<f64>() - 1.0).abs() < 0.1, "one state");
    eventually(SOON, async || gateway.metric(deaf).await > before).await;
    relay.heal();
    eventually(SOON, async || is(&gateway, HEARING, 1.0).await).await;
}
