//! Deaf is not fine: whatever becomes of the connection on which revocations are heard, it is noticed in time, no cached
//! session is believed meanwhile, and all is well again by itself.
//!
//! Clocks are moved by hand and stand still here: nothing ends a cached session but what the gateway hears, or that it
//! notices that it hears nothing.

use std::time::{Duration, Instant};

use crate::harness::{
    Database, Gateway, SOON, Setup, eventually,
    people::User,
    pgbouncer::PgBouncer,
    relay::{Relay, Way, Whom},
    server::{Frozen, Server},
};

/// As documented: between two probes, and until one is given up.
const NOTICED_WITHIN: Duration = Duration::from_secs(4);
/// For a machine that does much else.
const LENIENCY: Duration = Duration::from_secs(10);

async fn status(gateway: &Gateway, user: &User) -> u16 {
    gateway.get("/api/me").with(user).await.status()
}

/// Somebody whose session is in the cache.
async fn cached(gateway: &Gateway, email: &str) -> User {
    let user = gateway.signed_in(email).await;
    for _ in 0..2 {
        assert_eq!(status(gateway, &user).await, 200);
    }
    user
}

/// Ends everybody's session as somebody with psql would.
async fn revoke(db: &Database) {
    db.run("DELETE FROM user_sessions").await;
}

/// A session that is cached again ends as soon as it is revoked: there is nothing else by which it could.
async fn hears_again(gateway: &Gateway, db: &Database) {
    gateway.hears().await;
    let bob = cached(gateway, "bob@example.com").await;
    revoke(db).await;
    eventually(SOON, async || status(gateway, &bob).await == 401).await;
}

/// A gateway that hears through a relay, and a cached session that was revoked without its having heard.
async fn unheard() -> (Relay, Database, Gateway, User) {
    let db = Database::fresh().await;
    let (relay, relayed) = Relay::before(&db).await;
    let gateway = Gateway::on(&relayed).await;
    gateway.hears().await;
    let ada = cached(&gateway, "ada@example.com").await;
    relay.freeze(Whom::Listeners, Way::ToClient);
    revoke(&db).await;
    assert_eq!(status(&gateway, &ada).await, 200, "nobody could have told it");
    (relay, db, gateway, ada)
}

/// Waits until the gateway has noticed, and then until it hears again.
async fn noticed(relay: Relay, db: Database, gateway: Gateway, ada: User) {
    let began = Instant::now();
    eventually(SOON, async || status(&gateway, &ada).await == 401).await;
    let took = began.elapsed();
    eprintln!("noticed after {took:?}");
    assert!(took < NOTICED_WITHIN + LENIENCY, "{took:?}");
    relay.heal();
    hears_again(&gateway, &db).await;
}

#[tokio::test]
async fn sess_12_a_connection_that_is_closed_is_noticed() {
    let (relay, db, gateway, ada) = unheard().await;
    relay.cut(Whom::Listeners);
    noticed(relay, db, gateway, ada).await;
}

#[tokio::test]
async fn sess_12_a_connection_that_is_reset_is_noticed() {
    let (relay, db, gateway, ada) = unheard().await;
    relay.reset(Whom::Listeners);
    noticed(relay, db, gateway, ada).await;
}

#[tokio::test]
async fn sess_12_a_connection_that_is_cut_without_a_word_is_noticed_in_time() {
    let (relay, db, gateway, ada) = unheard().await;
    relay.abandon(Whom::Listeners);
    noticed(relay, db, gateway, ada).await;
}

/// What was cached before is not believed when it hears again, though nobody has asked meanwhile.
#[tokio::test]
async fn sess_12_what_ended_unheard_has_ended_once_it_hears_again() {
    let (relay, _db, gateway, ada) = unheard().await;
    relay.freeze(Whom::Listeners, Way::Both);
    eventually(SOON, async || gateway.degraded().await.contains("not heard")).await;
    relay.heal();
    gateway.hears().await;
    assert_eq!(status(&gateway, &ada).await, 401);
}

/// New ones do not come about either.
#[tokio::test]
async fn sess_12_a_connection_on_which_nothing_comes_any_more_is_noticed_in_time() {
    let (relay, db, gateway, ada) = unheard().await;
    relay.freeze(Whom::Listeners, Way::Both);
    noticed(relay, db, gateway, ada).await;
}

/// The very process that would tell stands still: it answers nothing, and is told nothing; all others do as ever.
#[tokio::test]
async fn sess_12_a_process_of_postgres_that_stands_still_is_noticed_in_time() {
    let db = Database::fresh().await;
    let gateway = Gateway::on(&db).await;
    gateway.hears().await;
    let ada = cached(&gateway, "ada@example.com").await;
    let teller = "SELECT pid FROM pg_stat_activity
        WHERE datname = current_database() AND application_name = 'vestibule' AND query LIKE 'LISTEN%'";
    let teller: i32 = db.client().await.query_one(teller, &[]).await.unwrap().get(0);
    let frozen = Frozen::all(vec![teller.to_string()]);
    let began = Instant::now();
    revoke(&db).await;
    eventually(SOON, async || status(&gateway, &ada).await == 401).await;
    eprintln!("noticed after {:?}", began.elapsed());
    assert!(began.elapsed() < NOTICED_WITHIN + LENIENCY, "{:?}", began.elapsed());
    // Another process tells now.
    hears_again(&gateway, &db).await;
    drop(frozen);
    hears_again(&gateway, &db).await;
}

/// PgBouncer in transaction mode says yes to LISTEN, and delivers nothing.
#[tokio::test]
async fn a_pooler_that_drops_listen_is_noticed_and_nothing_of_the_cache_is_believed() {
    let db = Database::fresh().await;
    let pooler = PgBouncer::in_disguise(&db).await;
    let (way, past) = Relay::before(&db).await;
    let toml = format!(
        "[database]\nurl = '{}'\nlisten_url = '{}'\npooler = 'transaction'",
        pooler.url(),
        past.url()
    );
    let gateway = Setup::default().with(&toml).start_on(&db).await;
    gateway.hears().await;
    let ada = cached(&gateway, "ada@example.com").await;
    // What led past it does not any more.
    way.lead_to(&db.by(pooler.url()));
    way.cut(Whom::All);
    eventually(SOON, async || gateway.degraded().await.contains("not heard")).await;
    revoke(&db).await;
    assert_eq!(status(&gateway, &ada).await, 401);
    let began = Instant::now();
    // While it tries again and again, and is told each time that it listens.
    for number in 0.. {
        let user = gateway.signed_in(&format!("user{number}@example.com")).await;
        assert_eq!(status(&gateway, &user).await, 200);
        revoke(&db).await;
        assert_eq!(status(&gateway, &user).await, 401, "at once: each session is asked for");
        assert!(gateway.degraded().await.contains("not heard"));
        if began.elapsed() > NOTICED_WITHIN {
            break;
        }
    }
    way.lead_to(&db);
    way.cut(Whom::All);
    hears_again(&gateway, &db).await;
}

/// A commit that notifies waits for a standby that is away, and all that come after it, probes too, wait behind it: nothing is
/// heard, but everything is answered that only reads.
#[tokio::test]
async fn a_commit_that_stands_still_makes_deaf_and_nothing_else() {
    let server = Server::start().await;
    let db = server.db();
    let gateway = Gateway::on(db).await;
    gateway.hears().await;
    let bob = gateway.signed_in("bob@example.com").await;
    let wait_for = async |standby: &str| {
        let by_hand = db.client().await;
        let alter = format!("ALTER SYSTEM SET synchronous_standby_names = '{standby}'");
        by_hand.batch_execute(&alter).await.unwrap();
        by_hand.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    };
    wait_for("nobody").await;
    let by_hand = db.client().await;
    by_hand.batch_execute("SET synchronous_commit = on").await.unwrap();
    // Until the server has heard of the standby, and then no more. What has written nothing does not wait.
    let notifying = tokio::spawn(async move {
        let statements = "UPDATE users SET updated_at = updated_at; NOTIFY anybody";
        while by_hand.batch_execute(statements).await.is_ok() {}
    });
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
    eventually(SOON, async || db.count(waiting).await == 1).await;
    eventually(SOON, async || gateway.degraded().await.contains("not heard")).await;
    let probes = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'vestibule' AND state = 'active'
        AND query LIKE '%pg_notify%'";
    let began = Instant::now();
    while began.elapsed() < NOTICED_WITHIN * 2 {
        assert_eq!(status(&gateway, &bob).await, 200);
        assert!(gateway.degraded().await.contains("not heard"));
        assert!(db.count(probes).await <= 1, "they are left behind");
    }
    notifying.abort();
    wait_for("").await;
    hears_again(&gateway, db).await;
}

/// Postgres crashes, throws everybody out, and is back within a second.
#[tokio::test]
async fn sess_12_postgres_restarts_and_all_is_well_again() {
    let server = Server::start().await;
    let gateway = Gateway::on(server.db()).await;
    gateway.hears().await;
    let ada = cached(&gateway, "ada@example.com").await;
    for _ in 0..3 {
        server.crash().await;
        eventually(SOON, async || status(&gateway, &ada).await == 200).await;
        gateway.hears().await;
    }
    hears_again(&gateway, server.db()).await;
    assert_eq!(status(&gateway, &ada).await, 401);
}
