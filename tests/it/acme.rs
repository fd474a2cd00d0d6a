//! Certificates that the gateway orders for itself: from an authority that really looks.

use std::{net::SocketAddr, time::Duration};

use serde_json::{Value, json};
use uuid::Uuid;
use vestibule::{
    clock::{Clock, Timestamp},
    db::acme::{self as rows, Of},
};

use crate::harness::{
    Database, Gateway, SOON, Setup,
    authority::{Authority, Shown},
    eventually,
    gateway::START,
};

const APP: &str = "app.example.com";
const DAY: Duration = Duration::from_hours(24);
/// More than a failure's first pause, and its chance.
const AFTER_A_PAUSE: Duration = Duration::from_mins(3);

/// A gateway that orders for [`APP`], with a listener for TLS and one that redirects.
struct Site {
    gateway: Gateway,
    clock: Clock,
}

impl Site {
    /// `more` follows `[server.acme]`.
    async fn start(authority: &Authority, db: &Database, clock: &Clock, more: &str) -> Self {
        let setup = Setup::default()
            .with(&(authority.settings(&[APP]) + more))
            .with("[server.tls]\nredirect_from = ['127.0.0.1:0']");
        Self {
            gateway: setup.clock(clock).start_on(db).await,
            clock: clock.clone(),
        }
    }

    fn tls(&self) -> SocketAddr {
        self.gateway.addrs()[0]
    }

    fn plain(&self) -> SocketAddr {
        self.gateway.addrs()[1]
    }

    async fn shows(&self, authority: &Authority) -> Option<Shown> {
        authority.seen_by_a_browser(self.tls(), APP, &self.clock).await
    }

    /// In a row.
    async fn failures(&self) -> u64 {
        self.metric("vestibule_acme_failures_in_a_row{domain=\"app.example.com\"} ")
            .await
    }

    async fn metric(&self, name: &str) -> u64 {
        let metrics = self.gateway.admin_get("/metrics").await;
        let value = metrics.text().lines().find_map(|line| line.strip_prefix(name));
        let value = value.unwrap_or_else(|| panic!("no {name} in {}", metrics.text()));
        value.parse().unwrap()
    }

    async fn stop(self) {
        self.gateway.stop().await;
    }
}

async fn site(more: &str) -> (Authority, Database, Site) {
    let clock = Clock::manual(START);
    let (authority, db) = (Authority::start(&clock).await, Database::fresh().await);
    let site = Site::start(&authority, &db, &clock, more).await;
    authority.looks_at(&[site.tls()], &[site.plain()]).await;
    (authority, db, site)
}

/// Waits for a certificate, other than `before`.
async fn another(authority: &Authority, site: &Site, before: Option<&Shown>) -> Shown {
    let mut shown = None;
    eventually(2 * SOON, async || {
        shown = site.shows(authority).await;
        shown.is_some() && shown.as_ref() != before
    })
    .await;
    shown.unwrap()
}

async fn moved(authority: &Authority, site: &Site, by: Duration) {
    site.clock.advance(by);
    authority
        .tell(&json!({ "now": site.clock.now().micros() / 1_000_000 }))
        .await;
}

#[tokio::test]
async fn a_certificate_comes_by_a_handshake_and_until_then_nobody_is_shown_another() {
    let (authority, _db, site) = site("").await;
    assert_eq!(site.shows(&authority).await, None, "nothing is made up");
    let shown = another(&authority, &site, None).await;
    assert_eq!(shown.expires_at, START.plus(90 * DAY));
    assert_eq!(authority.count("orders").await, 1);
    let expires = site
        .metric("vestibule_acme_certificate_expires{domain=\"app.example.com\"} ")
        .await;
    assert_eq!(expires, START.plus(90 * DAY).micros().unsigned_abs() / 1_000_000);
    let agent = authority.saw("user_agent").await;
    assert!(agent.as_str().unwrap().starts_with("vestibule/"), "{agent}");
}

#[tokio::test]
async fn a_certificate_comes_by_a_request_on_the_plain_port() {
    let (authority, _db, site) = site("challenge = 'http-01'\n").await;
    another(&authority, &site, None).await;
    assert_eq!(authority.count("looks").await, 1);
}

#[tokio::test]
async fn it_is_renewed_in_time_and_the_old_one_serves_meanwhile() {
    let (authority, _db, site) = site("").await;
    let first = another(&authority, &site, None).await;
    moved(&authority, &site, 50 * DAY).await;
    assert_eq!(site.shows(&authority).await.as_ref(), Some(&first));
    moved(&authority, &site, 11 * DAY).await;
    let second = another(&authority, &site, Some(&first)).await;
    assert_eq!(second.expires_at, START.plus(151 * DAY));
    assert_eq!(authority.count("orders").await, 2);
    assert_eq!(authority.count("accounts").await, 1, "with the account that there is");
}

#[tokio::test]
async fn a_failure_keeps_the_old_one_and_is_not_tried_again_at_once() {
    let (authority, db, site) = site("").await;
    let first = another(&authority, &site, None).await;
    // Longer than what our own pauses would be.
    authority.fails(&json!({ "rate_limited": 7200 })).await;
    moved(&authority, &site, 61 * DAY).await;
    eventually(2 * SOON, async || site.failures().await == 1).await;
    assert_eq!(site.shows(&authority).await.as_ref(), Some(&first));

    let client = db.client().await;
    let row = client
        .query_one("SELECT due_at FROM acme_certificates", &[])
        .await
        .unwrap();
    let pause = row.get::<_, Timestamp>(0).since(site.clock.now());
    assert!(
        pause >= Duration::from_hours(2),
        "what the authority said of a pause counts: {pause:?}"
    );

    authority.fails(&json!({})).await;
    moved(&authority, &site, Duration::from_hours(3)).await;
    another(&authority, &site, Some(&first)).await;
    assert_eq!(site.failures().await, 0);
}

#[tokio::test]
async fn gateways_answer_for_each_other_and_one_alone_orders() {
    let clock = Clock::manual(START);
    let (authority, db) = (Authority::start(&clock).await, Database::fresh().await);
    // Nowhere to look yet: whatever is ordered before both are there fails.
    let one = Site::start(&authority, &db, &clock, "").await;
    let two = Site::start(&authority, &db, &clock, "").await;
    authority.looks_at(&[one.tls(), two.tls(), one.tls()], &[]).await;
    let (first, second) = (
        another(&authority, &one, None).await,
        another(&authority, &two, None).await,
    );
    assert_eq!(first, second);
    assert_eq!(
        (authority.count("orders").await, authority.count("looks").await),
        (1, 3)
    );
}

#[tokio::test]
async fn keys_lie_sealed_and_a_restart_orders_nothing() {
    let (authority, db, site) = site("").await;
    let first = another(&authority, &site, None).await;
    site.stop().await;
    let readable = db
        .count(
            "SELECT count(*) FROM acme_certificates, acme_accounts
             WHERE position('key'::bytea IN credentials) > 0 OR position('\\x301306072a8648ce3d'::bytea IN private_key) > 0
                OR get_byte(private_key, 0) <> 1 OR get_byte(credentials, 0) <> 1",
        )
        .await;
    assert_eq!(readable, 0);

    let clock = Clock::manual(START.plus(DAY));
    let again = Site::start(&authority, &db, &clock, "").await;
    assert_eq!(again.shows(&authority).await, Some(first), "from the first moment on");
    assert_eq!(authority.count("orders").await, 1);
}

#[tokio::test]
async fn what_is_kept_is_sealed_anew_with_a_new_secret() {
    const OLD: &str = "a secret that only the tests use, and only here";
    let (authority, db, site) = site("").await;
    let first = another(&authority, &site, None).await;
    let clock = site.clock.clone();
    site.stop().await;
    let both = format!("[auth]\nsecret = ['another secret, as long as one has to be', '{OLD}']\n");
    let rotated = Site::start(&authority, &db, &clock, &both).await;
    assert_eq!(rotated.shows(&authority).await.as_ref(), Some(&first));
    rotated.stop().await;

    let new = "[auth]\nsecret = 'another secret, as long as one has to be'\n";
    let alone = Site::start(&authority, &db, &clock, new).await;
    assert_eq!(
        alone.shows(&authority).await.as_ref(),
        Some(&first),
        "the old secret is not needed any more"
    );
}

#[tokio::test]
async fn a_key_that_no_secret_opens_is_ordered_anew_an_hour_later() {
    let (authority, db, site) = site("").await;
    let first = another(&authority, &site, None).await;
    let clock = site.clock.clone();
    site.stop().await;
    let lost = "[auth]\nsecret = 'another secret, as long as one has to be'\n";
    let site = Site::start(&authority, &db, &clock, lost).await;
    authority.looks_at(&[site.tls()], &[]).await;
    assert_eq!(site.shows(&authority).await, None);
    assert_eq!(authority.count("orders").await, 1);
    moved(&authority, &site, Duration::from_hours(1)).await;
    another(&authority, &site, Some(&first)).await;
    assert_eq!(
        authority.count("accounts").await,
        2,
        "the account's key was lost as well"
    );
}

#[tokio::test]
async fn an_account_is_bound_to_the_one_elsewhere() {
    let clock = Clock::manual(START);
    let (authority, db) = (Authority::start(&clock).await, Database::fresh().await);
    authority
        .tell(&json!({ "eab": { "kid-1": "MDEyMzQ1Njc4OWFiY2RlZg" } }))
        .await;
    let without = Site::start(&authority, &db, &clock, "").await;
    authority.looks_at(&[without.tls()], &[]).await;
    eventually(2 * SOON, async || without.failures().await == 1).await;
    assert_eq!(authority.count("accounts").await, 0);
    without.stop().await;

    clock.advance(AFTER_A_PAUSE);
    let eab = "eab = { key_id = 'kid-1', hmac_key = 'MDEyMzQ1Njc4OWFiY2RlZg' }\n";
    let bound = Site::start(&authority, &db, &clock, eab).await;
    authority.looks_at(&[bound.tls()], &[]).await;
    another(&authority, &bound, None).await;
}

#[tokio::test]
async fn the_authority_may_want_it_renewed_earlier() {
    let clock = Clock::manual(START);
    let (authority, db) = (Authority::start(&clock).await, Database::fresh().await);
    let secs = |at: Timestamp| at.micros() / 1_000_000;
    let late = START.plus(80 * DAY);
    authority.tell(&json!({ "ari": [secs(late), secs(late)] })).await;
    let site = Site::start(&authority, &db, &clock, "").await;
    authority.looks_at(&[site.tls()], &[]).await;
    let first = another(&authority, &site, None).await;
    eventually(SOON, async || authority.count("asked").await == 1).await;

    // As when it is about to be revoked.
    let soon = START.plus(DAY);
    authority.tell(&json!({ "ari": [secs(soon), secs(soon)] })).await;
    moved(&authority, &site, 2 * DAY).await;
    another(&authority, &site, Some(&first)).await;
    assert_ne!(
        authority.saw("order").await["replaces"],
        Value::Null,
        "and it is told which one it replaces"
    );
}

#[tokio::test]
async fn a_certificate_that_browsers_would_refuse_is_not_put_to_use() {
    let (authority, db, site) = site("").await;
    authority.fails(&json!({ "other_name": true })).await;
    eventually(2 * SOON, async || site.failures().await == 1).await;
    authority.fails(&json!({ "other_key": true })).await;
    moved(&authority, &site, AFTER_A_PAUSE).await;
    eventually(2 * SOON, async || site.failures().await == 2).await;
    assert_eq!(site.shows(&authority).await, None);
    assert_eq!(
        db.count("SELECT count(*) FROM acme_certificates WHERE chain IS NOT NULL")
            .await,
        0
    );
}

#[tokio::test]
async fn an_authority_that_stumbles_is_borne() {
    let (authority, _db, site) = site("").await;
    authority
        .fails(&json!({ "bad_nonce": 2, "pending": 2, "processing": 3 }))
        .await;
    another(&authority, &site, None).await;
}

/// Added to the time, what it says is beyond time's end.
#[tokio::test]
async fn an_authority_that_says_to_come_back_never_is_asked_again() {
    let clock = Clock::manual(START);
    let (authority, db) = (Authority::start(&clock).await, Database::fresh().await);
    let never = json!({ "retry_after": u64::MAX, "processing": 100 });
    authority.fails(&never).await;
    let site = Site::start(&authority, &db, &clock, "").await;
    authority.looks_at(&[site.tls()], &[site.plain()]).await;
    eventually(2 * SOON, async || site.failures().await == 1).await;

    authority.fails(&json!({})).await;
    moved(&authority, &site, AFTER_A_PAUSE).await;
    let first = another(&authority, &site, None).await;

    // The same when it tells whether it wants it renewed earlier.
    authority.fails(&never).await;
    let soon = START.plus(DAY).micros() / 1_000_000;
    authority.tell(&json!({ "ari": [soon, soon] })).await;
    moved(&authority, &site, 2 * DAY).await;
    eventually(2 * SOON, async || site.failures().await == 1).await;
    assert_eq!(authority.count("asked").await, 1);
    authority.fails(&json!({})).await;
    moved(&authority, &site, AFTER_A_PAUSE).await;
    another(&authority, &site, Some(&first)).await;
}

#[tokio::test]
async fn what_the_authority_finds_wrong_is_kept_for_the_operator() {
    let (authority, db, site) = site("").await;
    let client = db.client().await;
    let told = async |faults: Value| {
        authority.fails(&faults).await;
        let before = site.failures().await;
        moved(&authority, &site, Duration::from_hours(2)).await;
        eventually(2 * SOON, async || site.failures().await > before).await;
        let row = client
            .query_one("SELECT last_error FROM acme_certificates", &[])
            .await
            .unwrap();
        row.get::<_, String>(0)
    };
    let nowhere = "127.0.0.1:1".parse().unwrap();
    authority.looks_at(&[nowhere], &[]).await;
    let error = told(json!({})).await;
    assert!(error.contains("127.0.0.1:1"), "{error}");
    let error = told(json!({ "terms": true })).await;
    assert!(error.contains("the terms have changed"), "{error}");
    let error = told(json!({ "only_dns": true })).await;
    assert!(error.contains("no challenge of the kind"), "{error}");
    let error = told(json!({ "broken": 100 })).await;
    assert!(error.contains("503"), "{error}");
}

#[tokio::test]
async fn an_account_that_the_authority_forgot_is_opened_anew() {
    let (authority, _db, site) = site("contact = 'ops@example.com'\n").await;
    let first = another(&authority, &site, None).await;
    assert_eq!(authority.saw("contacts").await, json!([["mailto:ops@example.com"]]));
    authority.fails(&json!({ "forget_accounts": true })).await;
    moved(&authority, &site, 61 * DAY).await;
    eventually(2 * SOON, async || site.failures().await == 1).await;
    moved(&authority, &site, AFTER_A_PAUSE).await;
    another(&authority, &site, Some(&first)).await;
    assert_eq!(authority.count("accounts").await, 2);
}

/// The lease on a domain's row, as gateways take it.
#[tokio::test]
async fn an_order_is_one_gateways_until_it_ends_or_the_gateway_has_died() {
    let of = Of {
        directory: "https://acme.example.com/directory",
        domain: APP,
    };
    let db = Database::fresh().await;
    let pools = db.connector().pools(&db.settings()).unwrap();
    let client = pools.client().await.unwrap();
    rows::enrol(&client, of.directory, &[APP.to_owned()], START)
        .await
        .unwrap();
    let (one, two) = (Uuid::from_u128(1), Uuid::from_u128(2));
    let until = START.plus(Duration::from_mins(10));
    let hold = async |by, now| rows::hold(&client, of, by, now, until.plus(DAY), None).await.unwrap();

    assert!(!hold(one, START.minus(DAY)).await, "not due");
    assert!(rows::hold(&client, of, one, START, until, None).await.unwrap());
    assert!(!hold(two, START).await, "the other has it");
    assert!(!rows::challenge(&client, of, two, "token", "answer").await.unwrap());
    rows::fail(&client, of, two, "not theirs to end", START).await.unwrap();
    assert!(!hold(two, START).await);
    assert!(hold(two, until).await, "the other has died");
    assert!(
        !rows::challenge(&client, of, one, "token", "answer").await.unwrap(),
        "and has lost it"
    );
    rows::let_go(&client, of, two).await.unwrap();
    assert!(hold(one, START).await);
}
