//! Providers that fail, at every place where they are asked: people come back to the app with a code of the contract's,
//! nothing hangs, nobody gets in, and the log says why without a secret.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{ADA, ADA_SUB, World, person};
use crate::harness::{
    Browser, Database, Setup,
    client::Call,
    gateway::SITE,
    mailbox::Mailbox,
    program::Program,
    provider::{Kind, Provider},
    upstream::Upstream,
};

/// Long enough for a machine that is busy, and shorter than nobody would wait.
const TIMEOUT: &str = "timeout = '300ms'";
const AT_MOST: Duration = Duration::from_secs(8);

/// All that can go wrong with an answer.
fn faults(elsewhere: &str) -> Vec<Value> {
    vec![
        json!({ "answer": { "status": 500 } }),
        json!({ "answer": { "status": 503, "headers": { "retry-after": "3600" } } }),
        json!({ "answer": { "status": 429, "body": "{\"error\":\"slow_down\"}" } }),
        json!({ "answer": { "status": 404, "body": "{}" } }),
        json!({ "answer": { "body": "<html>Down for maintenance" } }),
        json!({ "answer": { "body": "" } }),
        json!({ "answer": { "body": "[]" } }),
        json!({ "answer": { "body": "null" } }),
        json!({ "answer": { "body": "{}" } }),
        json!({ "answer": { "body": "{\"a\":\"", "filler": 1 << 20 } }),
        json!({ "answer": { "status": 302, "headers": { "location": elsewhere } } }),
        json!({ "answer": { "status": 307, "headers": { "location": elsewhere } } }),
        json!({ "hang": true }),
    ]
}

/// A place that is not public, as clouds have them, and that nobody is to be led to.
async fn private() -> (Upstream, String) {
    let private = Upstream::start().await;
    let url = format!("http://{}/latest/meta-data", private.addr());
    (private, url)
}

/// One provider for each fault: what is held of one that failed would hide the next.
async fn each_fault(kind: Kind, options: Value, place: &str, error: &str) {
    let (private, url) = private().await;
    let world = World::of(kind, options, TIMEOUT).await;
    for fault in faults(&url) {
        let what = format!("{kind:?}, {place}: {fault}");
        let browser = Browser::default();
        let back = world.back(&browser, ADA_SUB).await;
        world.provider.fault(place, fault).await;
        let began = Instant::now();
        let end = world.land(&browser, &back).await;
        assert!(began.elapsed() < AT_MOST, "{what}: {:?}", began.elapsed());
        assert_eq!(end, format!("/sorry?error={error}"), "{what}");
        assert!(browser.who(&world.gateway).await.is_null(), "{what}");
        world.provider.lift(place).await;
    }
    assert_eq!((world.count("users").await, world.count("user_sessions").await), (0, 0));
    assert_eq!(private.requests().len(), 0, "a redirect was followed");
    world
        .is_let_in(ADA_SUB, ADA, &format!("{kind:?}, {place}, well again"))
        .await;
}

#[tokio::test]
async fn a_token_endpoint_that_fails_ends_in_invalid_code() {
    for kind in [Kind::Oidc, Kind::GitHub] {
        each_fault(kind, json!({}), "token", "invalid_code").await;
    }
}

#[tokio::test]
async fn a_userinfo_endpoint_that_fails_ends_in_unable_to_get_user_info() {
    let options = json!({ "claims_in_id_token": false });
    each_fault(Kind::Oidc, options, "userinfo", "unable_to_get_user_info").await;
    each_fault(Kind::GitHub, json!({}), "userinfo", "unable_to_get_user_info").await;
}

/// Keys that were fetched are held, so each fault meets a gateway of its own.
#[tokio::test]
async fn keys_that_can_not_be_fetched_end_in_unable_to_get_user_info() {
    let (private, url) = private().await;
    for fault in faults(&url) {
        let world = World::of(Kind::Oidc, json!({}), TIMEOUT).await;
        world.provider.fault("jwks", fault.clone()).await;
        let began = Instant::now();
        world
            .is_refused(ADA_SUB, "unable_to_get_user_info", &fault.to_string())
            .await;
        assert!(began.elapsed() < AT_MOST, "{fault}: {:?}", began.elapsed());
        assert_eq!(world.count("users").await, 0);
    }
    assert_eq!(private.requests().len(), 0, "a redirect was followed");
}

#[tokio::test]
async fn a_provider_that_can_not_be_discovered_begins_no_flow() {
    let (private, url) = private().await;
    for fault in faults(&url) {
        let world = World::of(Kind::Oidc, json!({}), TIMEOUT).await;
        world.provider.fault("discovery", fault.clone()).await;
        let began = Instant::now();
        let body = json!({ "provider": "there", "callbackURL": "/home" });
        let answer = world.gateway.post("/api/auth/sign-in/social").json(&body).await;
        assert!(began.elapsed() < AT_MOST, "{fault}: {:?}", began.elapsed());
        assert_eq!(
            (answer.status(), answer.code().as_str()),
            (503, "PROVIDER_UNAVAILABLE"),
            "{fault}"
        );
        assert!(
            answer.head.has("retry-after") && !answer.head.has("set-cookie"),
            "{fault}"
        );
        assert_eq!(world.count("auth.oauth_flows").await, 0);
        // And nothing else of the gateway waits for it.
        assert_eq!(world.gateway.get("/public/x").await.status(), 200);
    }
    assert_eq!(private.requests().len(), 0, "a redirect was followed");
}

/// GitHub's list of addresses is what proves one.
#[tokio::test]
async fn addresses_that_can_not_be_listed_prove_nothing() {
    let (private, url) = private().await;
    for fault in faults(&url) {
        let world = World::of(Kind::GitHub, json!({}), TIMEOUT).await;
        world.gateway.verified(ADA).await;
        let mut claims = person(ADA_SUB, ADA);
        claims["public_email"] = json!(ADA);
        world.provider.admit(claims).await;
        world.provider.fault("emails", fault.clone()).await;
        let (browser, end) = world.arrive(ADA_SUB).await;
        assert!(end.starts_with("/sorry?error="), "{fault}: {end}");
        assert!(browser.who(&world.gateway).await.is_null(), "{fault}");
        assert_eq!(world.count("accounts WHERE provider_id = 'there'").await, 0, "{fault}");
    }
    assert_eq!(private.requests().len(), 0, "a redirect was followed");
}

/// A provider's fault is no reason to keep others waiting: neither people of other providers nor of this one.
#[tokio::test]
async fn while_one_person_waits_for_a_provider_another_signs_in() {
    let world = World::of(Kind::Oidc, json!({}), "timeout = '30s'").await;
    let (slow, quick) = (Browser::default(), Browser::default());
    let back = world.back(&slow, ADA_SUB).await;
    world.provider.fault("token", json!({ "hang": true })).await;
    let waiting = async { world.land(&slow, &back).await };
    let meanwhile = async {
        crate::harness::eventually(crate::harness::SOON, async || world.asked("token").await == 1).await;
        let body = json!({ "email": "bob@example.com", "password": crate::harness::people::PASSWORD });
        world.gateway.verified("bob@example.com").await;
        let answer = quick.post(&world.gateway, "/api/auth/sign-in/email", &body).await;
        assert_eq!(answer.status(), 200);
        world.provider.lift("token").await;
    };
    let (end, ()) = tokio::join!(waiting, meanwhile);
    assert_eq!(end, "/home");
}

/// LOG-02, of these flows, at the most that the log says.
#[tokio::test]
async fn the_log_says_why_somebody_could_not_go_on_and_nothing_secret() {
    let provider = Provider::start(Kind::Oidc, json!({ "claims_in_id_token": false })).await;
    let client = provider.client("there").await;
    provider.admit(person(ADA_SUB, ADA)).await;
    let (db, mailbox, upstream) = (Database::fresh().await, Mailbox::start().await, Upstream::start().await);
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("gateway.toml");
    let setup = Setup::default()
        .with(&client.toml_with(TIMEOUT))
        .with("[log]\nlevel = 'debug'");
    std::fs::write(&config, setup.text(&db, mailbox.addr(), upstream.addr())).unwrap();
    let (mut program, addr, _) = Program::serve(&config).await;
    let mut secrets = vec![client.secret.clone().unwrap()];
    for (place, fault, why) in [
        (
            "token",
            json!({ "answer": { "status": 500, "body": "S3CRET" } }),
            "there can't be reached: HTTP 500",
        ),
        (
            "token",
            json!({ "answer": { "status": 400, "body": "{\"error\":\"invalid_grant\",\"error_description\":\"S3CRET\"}" } }),
            "there refused: invalid_grant",
        ),
        (
            "token",
            json!({ "answer": { "body": "{\"access_token\":\"S3CRET" } }),
            "the token endpoint's answer",
        ),
        (
            "token",
            json!({ "id_token": { "sign": "none" } }),
            "its id_token is refused",
        ),
        (
            "userinfo",
            json!({ "answer": { "status": 429, "body": "S3CRET" } }),
            "there can't be reached: HTTP 429",
        ),
        (
            "userinfo",
            json!({ "set": { "sub": "S3CRET" } }),
            "userinfo is about somebody else",
        ),
        ("token", json!({ "hang": true }), "300ms"),
    ] {
        let body = json!({ "provider": "there", "callbackURL": "/home" });
        let start = Call::new(addr, SITE, "POST", "/api/auth/sign-in/social")
            .json(&body)
            .await;
        let url = start.json()["url"].as_str().unwrap().to_owned();
        let cookie = start
            .head
            .one("set-cookie")
            .unwrap()
            .split(';')
            .next()
            .unwrap()
            .to_owned();
        let back = Browser::default().agree(&url, ADA_SUB).await;
        provider.fault(place, fault).await;
        let query: String = url::form_urlencoded::Serializer::new(String::new())
            .extend_pairs(&back.params)
            .finish();
        let target = format!("/api/auth/callback/there?{query}");
        let answer = Call::new(addr, SITE, "GET", &target).header("Cookie", &cookie).await;
        assert_eq!(answer.status(), 302, "{}", answer.text());
        provider.lift(place).await;
        let line = program.line(why).await;
        assert!(
            line.contains("could not go on") && line.contains("request_id"),
            "{line}"
        );
        let (_, value) = cookie.split_once('=').unwrap();
        secrets.extend([
            back.get("code").unwrap().to_owned(),
            back.get("state").unwrap().to_owned(),
            value.to_owned(),
        ]);
    }
    let redeemed = provider.requests("token").await;
    let verifiers = redeemed
        .iter()
        .filter_map(|seen| seen["form"]["code_verifier"].as_str());
    secrets.extend(verifiers.map(str::to_owned));
    secrets.push("S3CRET".to_owned());
    let said = program.output();
    for secret in secrets {
        assert!(!said.contains(&secret), "{secret} is in the log:\n{said}");
    }
}
