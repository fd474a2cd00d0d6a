//! Several gateways on one database: a flow that began at one goes on at another, a refresh of one is everybody's, and
//! `auth.secret` changes while they run.

use std::time::Duration;

use serde_json::json;
use vestibule::{clock::Clock, secret::sealed::SealingKeys};

use crate::harness::{
    Browser, Database, Gateway, SOON, Setup,
    client::Response,
    eventually,
    provider::{self, Client, Kind, Provider},
    visitor::{Visitor, account_at, arrive, ask, at, refreshes, refusal, shown, token},
};

const KINDS: [Kind; 5] = [Kind::Oidc, Kind::Google, Kind::GitHub, Kind::Apple, Kind::Microsoft];

const OLD: &str = "the secret of before, which was as long";
const NEW: &str = "the secret of today, which is long enough";

/// A gateway whose secrets are these, the first one first.
async fn with_secrets(secrets: &[&str], client: &Client, db: &Database, clock: &Clock) -> Gateway {
    let over = format!("[auth]\nsecret = {secrets:?}");
    let setup = Setup::default().with(&client.toml()).with(&over);
    setup.clock(clock).start_on(db).await
}

/// A provider, and two gateways whose secrets are these.
async fn two(kind: Kind, secrets: [&[&str]; 2]) -> (Provider, Client, [Gateway; 2]) {
    let (provider, client) = at(kind, json!({})).await;
    let (db, clock) = (Database::fresh().await, provider::clock());
    let gateway = async |secrets: &[&str]| with_secrets(secrets, &client, &db, &clock).await;
    let gateways = [gateway(secrets[0]).await, gateway(secrets[1]).await];
    (provider, client, gateways)
}

fn location(answer: &Response) -> &str {
    answer.head.one("location").unwrap()
}

#[tokio::test]
async fn a_flow_that_began_at_one_gateway_ends_at_another() {
    for kind in KINDS {
        let (_provider, client, [here, there]) = two(kind, [&[OLD], &[OLD]]).await;
        let browser = Browser::default();
        let url = browser
            .start(&here, client.name(), json!({ "callbackURL": "/home" }))
            .await;
        let back = browser.agree(&url, "1001").await;
        let answer = browser.land(&there, &back).await;
        assert_eq!(location(&answer), "/home", "{kind:?}");
        for gateway in [&here, &there] {
            assert_eq!(
                browser.who(gateway).await["user"]["email"],
                "ada@example.com",
                "{kind:?}"
            );
        }
        let names = browser.cookie_names(&there);
        assert!(!names.iter().any(|name| name.contains("state")), "{kind:?}: {names:?}");
    }
}

#[tokio::test]
async fn a_flow_outlives_the_gateway_that_it_began_at() {
    let (_provider, client, [here, there]) = two(Kind::Oidc, [&[OLD], &[OLD]]).await;
    let browser = Browser::default();
    let url = browser
        .start(&here, client.name(), json!({ "callbackURL": "/home" }))
        .await;
    here.stop().await;
    let back = browser.agree(&url, "1001").await;
    assert_eq!(location(&browser.land(&there, &back).await), "/home");
    assert_eq!(browser.who(&there).await["user"]["email"], "ada@example.com");
}

#[tokio::test]
async fn one_state_at_both_gateways_at_once_is_one_session_and_one_exchange() {
    let (provider, client, [here, there]) = two(Kind::Oidc, [&[OLD], &[OLD]]).await;
    for round in 1..=5 {
        let browser = Browser::default();
        let url = browser
            .start(&here, client.name(), json!({ "callbackURL": "/home" }))
            .await;
        let back = browser.agree(&url, "1001").await;
        let (one, other) = tokio::join!(browser.land(&here, &back), browser.land(&there, &back));
        let ends = [location(&one), location(&other)];
        assert_eq!(ends.iter().filter(|end| **end == "/home").count(), 1, "{ends:?}");
        assert!(
            ends.iter().any(|end| end.ends_with("/error?error=state_mismatch")),
            "{ends:?}"
        );
        assert_eq!(here.db().count("SELECT count(*) FROM user_sessions").await, round);
        assert_eq!(provider.requests("token").await.len(), usize::try_from(round).unwrap());
    }
}

/// The first of one is behind at the other: as during a deployment that changes which is first.
#[tokio::test]
async fn gateways_that_have_both_secrets_understand_each_other_whichever_is_first() {
    let (provider, client, [before, after]) = two(Kind::Oidc, [&[OLD, NEW], &[NEW, OLD]]).await;
    for (begun, ended) in [(&before, &after), (&after, &before)] {
        let browser = Browser::default();
        let url = browser
            .start(begun, client.name(), json!({ "callbackURL": "/home" }))
            .await;
        let back = browser.agree(&url, "1001").await;
        assert_eq!(location(&browser.land(ended, &back).await), "/home");
        let account = account_at(&browser, begun, client.name()).await;
        let given = token(&ask(&browser, begun, "get-access-token", &account).await);
        assert_eq!(shown(&provider, Kind::Oidc, &given).await.status(), 200);
        let refreshed = token(&ask(&browser, begun, "refresh-token", &account).await);
        assert_eq!(
            token(&ask(&browser, ended, "get-access-token", &account).await),
            refreshed
        );
    }
}

/// Why the new secret has to be known everywhere before it is first anywhere.
#[tokio::test]
async fn a_gateway_that_has_the_new_secret_understands_one_that_has_not_and_not_the_other_way_round() {
    let (provider, client, [before, after]) = two(Kind::Oidc, [&[OLD], &[NEW, OLD]]).await;
    let browser = Browser::default();
    let url = browser
        .start(&before, client.name(), json!({ "callbackURL": "/home" }))
        .await;
    let back = browser.agree(&url, "1001").await;
    assert_eq!(location(&browser.land(&after, &back).await), "/home");
    let account = account_at(&browser, &after, client.name()).await;

    let url = browser
        .start(&after, client.name(), json!({ "callbackURL": "/home" }))
        .await;
    let back = browser.agree(&url, "1001").await;
    let end = browser.land(&before, &back).await;
    assert!(
        location(&end).ends_with("/error?error=state_mismatch"),
        "{}",
        location(&end)
    );
    assert_eq!(provider.requests("token").await.len(), 1, "and nothing was spent");

    // Signed in there, with tokens that were sealed by the other.
    let other = Browser::default();
    arrive(&other, &before, &client).await;
    arrive(&browser, &after, &client).await;
    let told = refusal(&ask(&other, &before, "get-access-token", &account).await);
    assert_eq!(told, (400, "FAILED_TO_GET_ACCESS_TOKEN".to_owned()));
    token(&ask(&browser, &after, "get-access-token", &account).await);
}

/// Whether all tokens of a database are sealed with a secret.
async fn are_sealed_with(db: &Database, secret: &str) -> bool {
    let mark = SealingKeys::new([secret.as_bytes()]).current_prefix();
    let sql = "SELECT count(*) FROM accounts, unnest(ARRAY[access_token, refresh_token, id_token]) AS token
        WHERE substr(token, 1, octet_length($1::bytea)) <> $1";
    let row = db.client().await.query_one(sql, &[&mark]).await.unwrap();
    row.get::<_, i64>(0) == 0
}

#[tokio::test]
async fn after_a_change_of_the_secret_tokens_are_sealed_anew_and_the_old_one_can_go() {
    let (provider, client) = at(Kind::Oidc, json!({})).await;
    let (db, clock) = (Database::fresh().await, provider::clock());
    let gateway = async |secrets: &[&str]| with_secrets(secrets, &client, &db, &clock).await;
    let old = gateway(&[OLD]).await;
    let browser = Browser::default();
    let account = arrive(&browser, &old, &client).await;
    let given = token(&ask(&browser, &old, "get-access-token", &account).await);
    assert!(are_sealed_with(&db, OLD).await);
    old.stop().await;

    let both = gateway(&[NEW, OLD]).await;
    assert_eq!(token(&ask(&browser, &both, "get-access-token", &account).await), given);
    eventually(SOON, async || are_sealed_with(&db, NEW).await).await;
    assert_eq!(token(&ask(&browser, &both, "get-access-token", &account).await), given);
    // What it writes from now on is, too.
    let refreshed = token(&ask(&browser, &both, "refresh-token", &account).await);
    assert!(are_sealed_with(&db, NEW).await);
    let bearer = browser.who(&both).await["session"]["token"]
        .as_str()
        .unwrap()
        .to_owned();
    both.stop().await;

    let new = gateway(&[NEW]).await;
    // The old one signed the browser's cookie; an app's bare token is not signed at all.
    let ask = async |what: &str| {
        let call = new.post(&format!("/api/auth/{what}")).bearer(&bearer);
        call.json(&json!({ "accountId": account })).await
    };
    assert_eq!(token(&ask("get-access-token").await), refreshed);
    assert_ne!(token(&ask("refresh-token").await), refreshed);
    assert_eq!(refreshes(&provider).await, 2);
}

#[tokio::test]
async fn two_gateways_refresh_once() {
    for (kind, options) in [
        (Kind::Oidc, json!({ "rotation": true })),
        (Kind::GitHub, json!({ "expiring": true, "rotation": true })),
    ] {
        let ada = Visitor::from(kind, options).await;
        let there = ada.beside("").await;
        let first = token(&ada.access_token().await);
        ada.let_it_end().await;
        ada.provider.fault("token", json!({ "hang": true })).await;
        let asks = (0..20).map(|n| {
            let gateway = if n % 2 == 0 { &ada.gateway } else { &there };
            ask(&ada.browser, gateway, "get-access-token", &ada.account)
        });
        let lift = async {
            eventually(SOON, async || refreshing(&ada.provider).await == 1).await;
            ada.provider.lift("token").await;
        };
        let (answers, ()) = tokio::join!(futures_util::future::join_all(asks), lift);
        let second = token(&answers[0]);
        assert_ne!(second, first, "{kind:?}");
        for answer in &answers {
            assert_eq!(token(answer), second, "{kind:?}");
        }
        assert_eq!(refreshes(&ada.provider).await, 1, "{kind:?}");
        assert_eq!(shown(&ada.provider, kind, &second).await.status(), 200, "{kind:?}");
        let third = ask(&ada.browser, &there, "refresh-token", &ada.account).await;
        assert_ne!(
            token(&third),
            second,
            "{kind:?}: what came with it works, from the other one"
        );
    }
}

/// How many requests came to the token endpoint after the sign-in's.
async fn refreshing(provider: &Provider) -> usize {
    provider.requests("token").await.len() - 1
}

#[tokio::test]
async fn a_refresh_that_fails_at_one_gateway_has_failed_for_who_waits_at_another() {
    let ada = Visitor::from(Kind::Oidc, json!({})).await;
    let there = ada.beside("").await;
    ada.let_it_end().await;
    let refused = json!({ "answer": { "status": 400, "body": "{\"error\":\"invalid_grant\"}" } });
    ada.provider.fault("token", refused).await;
    let there = ask(&ada.browser, &there, "get-access-token", &ada.account);
    let (here, there) = tokio::join!(ada.access_token(), there);
    for answer in [here, there] {
        assert_eq!(refusal(&answer), (400, "FAILED_TO_GET_ACCESS_TOKEN".to_owned()));
    }
    ada.provider.lift("token").await;
    token(&ada.access_token().await);
}

/// It left its lease behind. Nobody spends the refresh token while the lease lasts.
#[tokio::test]
async fn a_gateway_that_died_while_it_refreshed_is_waited_for_so_long_and_no_longer() {
    let ada = Visitor::by(Kind::Oidc, json!({}), "timeout = '1s'").await;
    let first = token(&ada.access_token().await);
    ada.let_it_end().await;
    let until = ada.gateway.clock().now().plus(Duration::from_secs(31));
    let sql = "UPDATE accounts SET refreshing_until = $1";
    ada.db().client().await.execute(sql, &[&until]).await.unwrap();
    let told = refusal(&ada.access_token().await);
    assert_eq!(told, (400, "FAILED_TO_GET_ACCESS_TOKEN".to_owned()));
    assert_eq!(refreshes(&ada.provider).await, 0);
    ada.gateway.clock().advance(Duration::from_secs(31));
    assert_ne!(token(&ada.access_token().await), first);
    assert_eq!(refreshes(&ada.provider).await, 1);
}

/// What it waits for is the older grant's.
#[tokio::test]
async fn a_sign_in_at_one_gateway_does_not_wait_for_a_refresh_of_another() {
    let ada = Visitor::from(Kind::Oidc, json!({})).await;
    let there = ada.beside("").await;
    ada.let_it_end().await;
    ada.provider.fault("token", json!({ "hang": true, "times": 1 })).await;
    let meanwhile = async {
        eventually(SOON, async || refreshing(&ada.provider).await == 1).await;
        let browser = Browser::default();
        arrive(&browser, &there, &ada.client).await;
        let newest = token(&ask(&browser, &there, "refresh-token", &ada.account).await);
        ada.provider.lift("token").await;
        newest
    };
    let (overtaken, newest) = tokio::join!(ada.access_token(), meanwhile);
    assert_eq!(token(&overtaken), newest);
    assert_eq!(token(&ada.access_token().await), newest);
}

/// However somebody came in, and wherever it is ended.
#[tokio::test]
async fn a_session_of_a_provider_ends_as_any_other() {
    let ada = Visitor::from(Kind::Oidc, json!({})).await;
    let there = ada.beside("").await;
    let post = async |path: &str| {
        let answer = ada.browser.post(&ada.gateway, path, &json!({})).await;
        assert_eq!(answer.status(), 200, "{path}: {}", answer.text());
    };
    for end in ["sign-out", "revoke-sessions", "revoke-session", "ban", "delete-user"] {
        let taken = Browser::default();
        arrive(&ada.browser, &ada.gateway, &ada.client).await;
        arrive(&taken, &there, &ada.client).await;
        for (browser, gateway) in [(&ada.browser, &there), (&taken, &ada.gateway), (&taken, &there)] {
            assert_eq!(browser.get(gateway, "/api/me").await.status(), 200, "{end}");
        }
        match end {
            "ban" => ada.db().run("UPDATE users SET banned = true").await,
            "revoke-session" => {
                let theirs = taken.who(&there).await["session"]["token"].clone();
                let body = json!({ "token": theirs });
                let answer = ada.browser.post(&ada.gateway, "/api/auth/revoke-session", &body).await;
                assert_eq!(answer.status(), 200, "{}", answer.text());
                assert_eq!(taken.get(&ada.gateway, "/api/me").await.status(), 401, "at once");
            }
            _ => {
                let cookies = ada.browser.copy();
                post(&format!("/api/auth/{end}")).await;
                assert_eq!(
                    cookies.get(&ada.gateway, "/api/me").await.status(),
                    401,
                    "{end}: at once"
                );
                eventually(SOON, async || cookies.get(&there, "/api/me").await.status() == 401).await;
            }
        }
        if end != "sign-out" {
            for gateway in [&ada.gateway, &there] {
                eventually(SOON, async || taken.get(gateway, "/api/me").await.status() == 401).await;
                assert!(taken.who(gateway).await.is_null(), "{end}");
                assert_eq!(
                    ask(&taken, gateway, "get-access-token", &ada.account).await.status(),
                    401
                );
            }
        }
        if end == "ban" {
            let answer = Browser::default().sign_in_at(&there, &ada.client, "1001").await;
            assert!(location(&answer).contains("error=BANNED_USER"), "{}", location(&answer));
            ada.db().run("UPDATE users SET banned = false").await;
        }
    }
    assert_eq!(ada.db().count("SELECT count(*) FROM users").await, 0);
}
