//! Another server takes over: a URL names both, and the gateway follows the one that takes writes, with all of its
//! connections, the one on which it hears of revocations above all.

use crate::harness::{
    Database, Gateway, SOON, Setup, eventually,
    people::User,
    relay::Relay,
    server::{Server, Standby},
};

/// Two servers, and a gateway that knows both, in this order.
async fn scene(standby_first: bool) -> (Server, Standby, Gateway) {
    let primary = Server::start().await;
    let standby = primary.standby().await;
    let mut hosts = [primary.db(), standby.db()].map(|db| {
        let url: url::Url = db.url().parse().unwrap();
        format!("127.0.0.1:{}", url.port().unwrap())
    });
    if standby_first {
        hosts.reverse();
    }
    let url: url::Url = primary.db().url().parse().unwrap();
    let credentials = format!("{}:{}", url.username(), url.password().unwrap());
    let both = format!("postgres://{credentials}@{}/postgres", hosts.join(","));
    let toml = format!("[database]\nurl = '{both}'\nacquire_timeout = '1s'\nstatement_timeout = '1s'");
    let gateway = Setup::default().with(&toml).start_on(primary.db()).await;
    gateway.hears().await;
    (primary, standby, gateway)
}

async fn status(gateway: &Gateway, user: &User) -> u16 {
    gateway.get("/api/me").with(user).await.status()
}

/// What was committed is there, too.
async fn follows(standby: &Standby, users: i64) {
    let count = "SELECT count(*) FROM auth.user_sessions";
    eventually(SOON, async || standby.db().count(count).await == users).await;
}

/// Everything goes where the writes go: a sign-in is stored there, and a session that is revoked there by hand ends here
/// although no clock moves.
async fn lives_on(gateway: &Gateway, db: &Database, email: &str) {
    gateway.hears().await;
    eventually(SOON, async || gateway.sign_in(email).await.status() == 200).await;
    let user = User::of(gateway, &gateway.sign_in(email).await);
    for _ in 0..2 {
        assert_eq!(status(gateway, &user).await, 200);
    }
    let client = db.client().await;
    let revoked = "UPDATE user_sessions SET revoked_at = now() WHERE revoked_at IS NULL";
    assert!(client.execute(revoked, &[]).await.unwrap() > 0);
    eventually(SOON, async || status(gateway, &user).await == 401).await;
}

#[tokio::test]
async fn a_standby_is_not_asked_though_it_is_named_first() {
    let (primary, standby, gateway) = scene(true).await;
    gateway.verified("ada@example.com").await;
    lives_on(&gateway, primary.db(), "ada@example.com").await;
    let asked = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'vestibule'";
    assert_eq!(standby.db().count(asked).await, 0);
}

#[tokio::test]
async fn a_primary_that_dies_is_followed_by_the_next() {
    let (primary, standby, gateway) = scene(false).await;
    let ada = gateway.signed_in("ada@example.com").await;
    assert_eq!(status(&gateway, &ada).await, 200);
    follows(&standby, 1).await;

    primary.kill();
    standby.promote().await;

    eventually(SOON, async || status(&gateway, &ada).await == 200).await;
    lives_on(&gateway, standby.db(), "ada@example.com").await;
    assert_eq!(status(&gateway, &ada).await, 401);
}

/// Both go by one name, which comes to lead to the other. The old one lives on, with connections that look well.
#[tokio::test]
async fn a_name_that_leads_to_another_server_is_noticed_by_the_first_new_connection() {
    let primary = Server::start().await;
    let standby = primary.standby().await;
    let (relay, name) = Relay::before(primary.db()).await;
    let gateway = Setup::default().start_on(&name).await;
    gateway.hears().await;
    let ada = gateway.signed_in("ada@example.com").await;
    assert_eq!(status(&gateway, &ada).await, 200);
    follows(&standby, 1).await;

    standby.promote().await;
    relay.lead_to(standby.db());
    // All but those by which revocations are heard: less than half a minute old, as they are.
    let ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE application_name = 'vestibule' AND query NOT LIKE 'LISTEN%' AND query NOT LIKE '%pg_notify%'";
    primary.db().run(ended).await;
    eventually(SOON, async || gateway.sign_in("ada@example.com").await.status() == 200).await;
    eventually(SOON, async || gateway.degraded().await.is_empty()).await;
    let asked = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'vestibule'";
    eventually(SOON, async || primary.db().count(asked).await == 0).await;
    lives_on(&gateway, standby.db(), "ada@example.com").await;
}

/// The old primary is cut off and believes to be one still: whoever comes back to it would hear of nothing.
#[tokio::test]
async fn a_primary_that_freezes_is_left_for_good() {
    let (primary, standby, gateway) = scene(false).await;
    let ada = gateway.signed_in("ada@example.com").await;
    assert_eq!(status(&gateway, &ada).await, 200);
    follows(&standby, 1).await;

    let frozen = primary.freeze();
    standby.promote().await;

    lives_on(&gateway, standby.db(), "ada@example.com").await;
    drop(frozen);
    let asked = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'vestibule'";
    eventually(SOON, async || primary.db().count(asked).await == 0).await;
    lives_on(&gateway, standby.db(), "ada@example.com").await;
    assert_eq!(primary.db().count(asked).await, 0);
}
