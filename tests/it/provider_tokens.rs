//! Providers' tokens in the database: who may spend a refresh token, what takes its place, and which secret seals it.

use std::time::Duration;

use uuid::Uuid;
use vestibule::{
    auth::{
        reseal::{self, Round},
        vault::{Column, seal_token},
    },
    clock::{Clock, Timestamp},
    db::{
        Client, Db,
        accounts::tokens::{self, Lease, SealedTokens},
    },
    identity::AccountId,
    secret::sealed::SealingKeys,
};

use crate::harness::Database;

const NOW: Timestamp = Timestamp::from_secs(1_795_000_000);
const LASTS: Duration = Duration::from_secs(40);
const ADA: AccountId = AccountId(Uuid::from_u128(1));
const BOB: AccountId = AccountId(Uuid::from_u128(2));

/// A database with an account of Ada's and one of Bob's, neither with a token.
async fn accounts() -> (Database, Db) {
    let db = Database::fresh().await;
    db.run(
        "INSERT INTO users (id, email, name, created_at, updated_at)
         SELECT lpad(n::text, 32, '0')::uuid, 'user' || n || '@example.test', '', '2026-01-01', '2026-01-01'
         FROM generate_series(1, 2) AS n;
         INSERT INTO accounts (id, user_id, provider_id, account_id, created_at, updated_at)
         SELECT id, id, 'google', email, created_at, updated_at FROM users",
    )
    .await;
    let pools = db.connector().pools(&db.settings()).unwrap();
    (db, pools)
}

/// Stores these in place of what is there, as a sign-in does.
async fn signed_in(db: &Database, account: AccountId, access: &[u8], refresh: Option<&[u8]>) {
    let sql = "UPDATE accounts SET access_token = $2, refresh_token = coalesce($3, refresh_token) WHERE id = $1";
    let client = db.client().await;
    client.execute(sql, &[&account.0, &access, &refresh]).await.unwrap();
}

fn lease(spends: &[u8], at: Timestamp) -> Lease<'_> {
    Lease {
        account: ADA,
        spends,
        until: at.plus(LASTS),
    }
}

async fn take(client: &Client, lease: Lease<'_>, now: Timestamp) -> bool {
    let at_most = now.plus(2 * LASTS);
    tokens::take_lease(client, lease, now, at_most).await.unwrap()
}

fn sealed(access: &[u8], refresh: &[u8]) -> SealedTokens {
    SealedTokens {
        access: Some(access.to_vec()),
        refresh: Some(refresh.to_vec()),
        access_expires_at: Some(NOW.plus(Duration::from_hours(1))),
        ..SealedTokens::default()
    }
}

#[tokio::test]
async fn of_many_gateways_one_may_spend_a_refresh_token() {
    let (db, pools) = accounts().await;
    signed_in(&db, ADA, b"access", Some(b"first")).await;
    let attempts = (0..20).map(|n| {
        let pools = pools.clone();
        async move {
            let lease = lease(b"first", NOW.plus(Duration::from_micros(n)));
            take(&pools.client().await.unwrap(), lease, NOW).await
        }
    });
    let taken = futures_util::future::join_all(attempts).await;
    assert_eq!(taken.iter().filter(|taken| **taken).count(), 1, "{taken:?}");
}

#[tokio::test]
async fn a_lease_ends_with_its_refresh_or_when_its_time_is_over() {
    let (db, pools) = accounts().await;
    signed_in(&db, ADA, b"access", Some(b"first")).await;
    let client = pools.client().await.unwrap();
    let first = lease(b"first", NOW);
    assert!(take(&client, first, NOW).await);
    let soon = NOW.plus(LASTS / 2);
    assert!(!take(&client, lease(b"first", soon), soon).await, "it is taken");

    let late = NOW.plus(LASTS);
    let second = lease(b"first", late);
    assert!(take(&client, second, late).await, "whoever had it has died");
    tokens::end_lease(&client, first).await.unwrap();
    assert!(
        !take(&client, lease(b"first", late), late).await,
        "nobody gives another's back"
    );
    tokens::end_lease(&client, second).await.unwrap();
    let third = lease(b"first", late);
    assert!(take(&client, third, late).await);

    assert!(
        tokens::refreshed(&client, third, &sealed(b"newer", b"second"), late)
            .await
            .unwrap()
    );
    let held = tokens::held(&client, ADA).await.unwrap().unwrap();
    assert_eq!(held.refreshing_until, None);
    assert_eq!(held.sealed.refresh.as_deref(), Some(&b"second"[..]));
    assert!(!take(&client, lease(b"first", late), late).await, "it has been spent");
    assert!(take(&client, lease(b"second", late), late).await);
}

#[tokio::test]
async fn a_lease_of_a_clock_that_was_wrong_does_not_count() {
    let (db, pools) = accounts().await;
    signed_in(&db, ADA, b"access", Some(b"first")).await;
    let client = pools.client().await.unwrap();
    let ahead = NOW.plus(Duration::from_hours(24));
    assert!(take(&client, lease(b"first", ahead), ahead).await);
    assert!(take(&client, lease(b"first", NOW), NOW).await);
    let a_little_ahead = NOW.plus(LASTS / 2);
    assert!(!take(&client, lease(b"first", NOW.plus(LASTS)), a_little_ahead).await);
}

#[tokio::test]
async fn a_refresh_does_not_undo_a_sign_in() {
    let (db, pools) = accounts().await;
    signed_in(&db, ADA, b"access", Some(b"first")).await;
    let client = pools.client().await.unwrap();
    let refreshing = lease(b"first", NOW);
    assert!(take(&client, refreshing, NOW).await);
    signed_in(&db, ADA, b"of a new grant", Some(b"of a new grant, too")).await;
    let given = sealed(b"of the old grant", b"of the old grant, too");
    assert!(!tokens::refreshed(&client, refreshing, &given, NOW).await.unwrap());
    let held = tokens::held(&client, ADA).await.unwrap().unwrap();
    assert_eq!(held.sealed.access.as_deref(), Some(&b"of a new grant"[..]));
    assert_eq!(held.sealed.refresh.as_deref(), Some(&b"of a new grant, too"[..]));
}

/// As Google, which gives a refresh token at the first consent alone.
#[tokio::test]
async fn a_sign_in_without_a_refresh_token_does_not_lose_the_next_one() {
    let (db, pools) = accounts().await;
    signed_in(&db, ADA, b"access", Some(b"first")).await;
    let client = pools.client().await.unwrap();
    let refreshing = lease(b"first", NOW);
    assert!(take(&client, refreshing, NOW).await);
    signed_in(&db, ADA, b"of a sign-in", None).await;
    assert!(
        tokens::refreshed(&client, refreshing, &sealed(b"newer", b"second"), NOW)
            .await
            .unwrap()
    );
    let held = tokens::held(&client, ADA).await.unwrap().unwrap();
    assert_eq!(held.sealed.refresh.as_deref(), Some(&b"second"[..]));
}

#[tokio::test]
async fn what_a_refresh_does_not_give_anew_stays() {
    let (db, pools) = accounts().await;
    db.run(
        "UPDATE accounts SET refresh_token = 'first', id_token = 'id', scopes = '{openid,email}',
            refresh_token_expires_at = '2027-01-01Z'",
    )
    .await;
    let client = pools.client().await.unwrap();
    let refreshing = lease(b"first", NOW);
    assert!(take(&client, refreshing, NOW).await);
    assert!(
        tokens::refreshed(&client, refreshing, &sealed(b"newer", b"second"), NOW)
            .await
            .unwrap()
    );
    let held = tokens::held(&client, ADA).await.unwrap().unwrap().sealed;
    assert_eq!(held.id.as_deref(), Some(&b"id"[..]));
    assert_eq!(held.refresh_expires_at, Some("2027-01-01T00:00:00Z".parse().unwrap()));
    assert_eq!(held.scopes, ["openid", "email"]);
    let other = tokens::held(&client, BOB).await.unwrap().unwrap().sealed;
    assert_eq!(
        other.refresh.as_deref(),
        Some(&b"first"[..]),
        "nobody else's is touched"
    );
}

const TODAY: &[u8] = b"the secret of today, which is long enough";
const BEFORE: &[u8] = b"the secret of before, which was as long";
const GONE: &[u8] = b"a secret that nobody has kept anywhere";

#[tokio::test]
async fn after_a_change_of_the_secret_the_old_one_is_not_needed_any_more() {
    let (db, pools) = accounts().await;
    let (today, before, gone) = (
        SealingKeys::new([TODAY]),
        SealingKeys::new([BEFORE]),
        SealingKeys::new([GONE]),
    );
    let store = async |keys: &SealingKeys, account: AccountId| {
        let access = seal_token(keys, account, Column::Access, "access");
        let refresh = seal_token(keys, account, Column::Refresh, "refresh");
        signed_in(&db, account, &access, Some(&refresh)).await;
    };
    store(&before, ADA).await;
    store(&gone, BOB).await;

    let clock = Clock::manual(NOW);
    let both = SealingKeys::new([TODAY, BEFORE]);
    let round = reseal::round(&pools, &both, &clock).await.unwrap();
    let expected = Round {
        resealed: 1,
        lost: 1,
        overtaken: 0,
    };
    assert_eq!(round, expected);
    let client = pools.client().await.unwrap();
    let held = tokens::held(&client, ADA).await.unwrap().unwrap().sealed;
    let opened = |sealed: &Option<Vec<u8>>, column: &str| {
        let context = format!("accounts.{column} {ADA}");
        let opened = today.open(sealed.as_ref().unwrap(), context.as_bytes()).unwrap();
        String::from_utf8(opened.to_vec()).unwrap()
    };
    assert_eq!(opened(&held.access, "access_token"), "access");
    assert_eq!(opened(&held.refresh, "refresh_token"), "refresh");

    let again = reseal::round(&pools, &both, &clock).await.unwrap();
    assert_eq!((again.resealed, again.lost), (0, 1), "nothing is sealed twice");
}

#[tokio::test]
async fn what_is_being_refreshed_is_sealed_anew_later() {
    let (db, pools) = accounts().await;
    let before = SealingKeys::new([BEFORE]);
    let refresh = seal_token(&before, ADA, Column::Refresh, "refresh");
    signed_in(&db, ADA, b"", Some(&refresh)).await;
    let client = pools.client().await.unwrap();
    let refreshing = lease(&refresh, NOW);
    assert!(take(&client, refreshing, NOW).await);

    let (both, clock) = (SealingKeys::new([TODAY, BEFORE]), Clock::manual(NOW));
    let round = reseal::round(&pools, &both, &clock).await.unwrap();
    assert_eq!((round.resealed, round.overtaken), (0, 1));
    let given = sealed(b"newer", b"second");
    let stored = tokens::refreshed(&client, refreshing, &given, NOW).await.unwrap();
    assert!(stored, "the refresh finds what it has read");

    signed_in(&db, ADA, b"", Some(&refresh)).await;
    assert!(take(&client, refreshing, NOW).await);
    clock.advance(LASTS);
    let round = reseal::round(&pools, &both, &clock).await.unwrap();
    assert_eq!(
        (round.resealed, round.overtaken),
        (1, 0),
        "whoever had the lease has died"
    );
}

#[tokio::test]
async fn several_gateways_may_seal_anew_at_once() {
    let (db, pools) = accounts().await;
    let before = SealingKeys::new([BEFORE]);
    db.run(
        "INSERT INTO accounts (id, user_id, provider_id, account_id, created_at, updated_at)
         SELECT lpad(n::text, 32, '0')::uuid, lpad('1', 32, '0')::uuid, 'github', n::text, '2026-01-01', '2026-01-01'
         FROM generate_series(1000, 2199) AS n",
    )
    .await;
    let client = db.client().await;
    for row in client.query("SELECT id FROM accounts", &[]).await.unwrap() {
        let id = AccountId(row.get(0));
        signed_in_on(&client, id, &seal_token(&before, id, Column::Access, "access")).await;
    }
    let (both, clock) = (SealingKeys::new([TODAY, BEFORE]), Clock::manual(NOW));
    let round = || reseal::round(&pools, &both, &clock);
    let (first, second) = tokio::join!(round(), round());
    let (first, second) = (first.unwrap(), second.unwrap());
    assert_eq!(first.resealed + second.resealed, 1_202, "{first:?} {second:?}");
    let rest = round().await.unwrap();
    assert_eq!(rest, Round::default());
}

async fn signed_in_on(client: &tokio_postgres::Client, account: AccountId, access: &[u8]) {
    let sql = "UPDATE accounts SET access_token = $2 WHERE id = $1";
    client.execute(sql, &[&account.0, &access]).await.unwrap();
}
