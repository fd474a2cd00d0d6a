//! Flows in the database: each goes on once, and a browser has few.

use std::time::Duration;

use vestibule::{
    clock::Timestamp,
    db::{
        Db,
        oauth_flows::{self, NewFlow},
    },
    secret::TokenHash,
};

use crate::harness::{Database, gateway::START};

const BROWSER: &[u8] = b"a browser";

fn pools(db: &Database) -> Db {
    db.connector().pools(&db.settings()).unwrap()
}

fn state(n: u64) -> TokenHash {
    TokenHash::of(&n.to_be_bytes())
}

async fn begin(pools: &Db, n: u64, browser: &[u8], at: Timestamp) {
    let flow = NewFlow {
        state: state(n),
        browser: TokenHash::of(browser),
        provider: "google",
        payload: b"sealed",
        expires_at: at.plus(Duration::from_mins(10)),
        others: 7,
    };
    let client = pools.client().await.unwrap();
    oauth_flows::insert(&client, &flow, at).await.unwrap();
}

#[tokio::test]
async fn of_many_who_come_back_with_one_state_one_goes_on() {
    let db = Database::fresh().await;
    let pools = pools(&db);
    begin(&pools, 1, BROWSER, START).await;
    let take = async || {
        let client = pools.client().await.unwrap();
        oauth_flows::take(&client, &state(1)).await.unwrap().is_some()
    };
    let (a, b, c, d) = tokio::join!(take(), take(), take(), take());
    assert_eq!([a, b, c, d].into_iter().filter(|taken| *taken).count(), 1);
    assert!(!take().await);
}

#[tokio::test]
async fn a_ninth_flow_of_a_browser_ends_its_oldest() {
    let db = Database::fresh().await;
    let pools = pools(&db);
    begin(&pools, 100, b"another browser", START).await;
    for n in 0..20 {
        begin(&pools, n, BROWSER, START.plus(Duration::from_secs(n))).await;
    }
    let client = pools.client().await.unwrap();
    for n in 0..20 {
        let taken = oauth_flows::take(&client, &state(n)).await.unwrap();
        assert_eq!(taken.is_some(), n >= 12, "{n}");
    }
    assert!(oauth_flows::take(&client, &state(100)).await.unwrap().is_some());
}

#[tokio::test]
async fn it_is_known_whether_the_browser_has_others_that_are_under_way() {
    let db = Database::fresh().await;
    let pools = pools(&db);
    begin(&pools, 100, b"another browser", START).await;
    let soon = START.plus(Duration::from_mins(5));
    begin(&pools, 1, BROWSER, START).await;
    begin(&pools, 2, BROWSER, soon).await;
    begin(&pools, 3, BROWSER, soon).await;
    let client = pools.client().await.unwrap();
    // The first has expired by then.
    let now = START.plus(Duration::from_mins(11));
    let browser = TokenHash::of(BROWSER);
    oauth_flows::take(&client, &state(2)).await.unwrap().unwrap();
    assert!(oauth_flows::has_pending(&client, &browser, now).await.unwrap());
    let third = oauth_flows::take(&client, &state(3)).await.unwrap().unwrap();
    assert!(!oauth_flows::has_pending(&client, &browser, now).await.unwrap());
    assert!(oauth_flows::has_pending(&client, &browser, soon).await.unwrap());
    assert_eq!(
        (third.provider.as_str(), third.payload.as_slice()),
        ("google", &b"sealed"[..])
    );
    assert_eq!(third.browser, TokenHash::of(BROWSER).as_bytes());
}

#[tokio::test]
async fn flows_that_nobody_came_back_from_go_a_few_at_a_time() {
    let db = Database::fresh().await;
    let pools = pools(&db);
    for n in 0..5 {
        begin(&pools, n, &n.to_be_bytes(), START.plus(Duration::from_mins(n))).await;
    }
    let client = pools.client().await.unwrap();
    let now = START.plus(Duration::from_mins(13));
    assert_eq!(oauth_flows::delete_expired(&client, now, 2).await.unwrap(), 2);
    assert_eq!(oauth_flows::delete_expired(&client, now, 2).await.unwrap(), 1);
    assert_eq!(oauth_flows::delete_expired(&client, now, 2).await.unwrap(), 0);
}
