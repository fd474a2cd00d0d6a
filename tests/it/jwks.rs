//! The published keys: who may have them, and how they change without anybody noticing.

use std::{fs, time::Duration};

use base64ct::{Base64UrlUnpadded, Encoding};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::{Database, Gateway, SOON, Setup, eventually, people::User, program};

const ON: &str = "[identity]\nassertion = true\nassertion_rotate_every = '2h'";

async fn published(gateway: &Gateway) -> Vec<String> {
    let keys = gateway.get("/api/auth/jwks").await.json();
    let keys = keys["keys"].as_array().unwrap().iter();
    keys.map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
}

async fn signs(gateway: &Gateway, user: &User) -> String {
    assert_eq!(gateway.get("/api/x").with(user).await.status(), 200);
    let seen = gateway.upstream().last().head;
    let token = seen.one("x-vestibule-assertion").unwrap().to_owned();
    let head = Base64UrlUnpadded::decode_vec(token.split('.').next().unwrap()).unwrap();
    let head: Value = serde_json::from_slice(&head).unwrap();
    head["kid"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn everybody_may_have_the_keys_and_keep_them_for_a_while() {
    let gateway = Setup::default().with(ON).start().await;
    let answer = gateway
        .get("/api/auth/jwks")
        .header("Origin", "https://elsewhere.example")
        .await;
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.head.one("content-type"), Some("application/json"));
    assert_eq!(answer.head.one("cache-control"), Some("public, max-age=300"));
    assert_eq!(answer.head.one("access-control-allow-origin"), Some("*"));
    assert!(!answer.head.has("pragma") && !answer.head.has("set-cookie"));
    let keys = answer.json();
    let keys = keys["keys"].as_array().unwrap();
    assert_eq!(keys.len(), 1);
    let mut names: Vec<_> = keys[0].as_object().unwrap().keys().collect();
    names.sort();
    assert_eq!(names, ["alg", "crv", "kid", "kty", "use", "x"], "nothing private");
}

#[tokio::test]
async fn what_else_the_api_says_is_nobodys_to_keep() {
    let gateway = Gateway::start().await;
    let answer = gateway.get("/api/auth/ok").await;
    assert_eq!(answer.head.one("cache-control"), Some("no-store"));
    assert!(!answer.head.has("access-control-allow-origin"));
}

#[tokio::test]
async fn a_key_is_published_before_it_signs_and_after() {
    let gateway = Setup::default().with(ON).start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    let advance = |minutes| gateway.clock().advance(Duration::from_mins(minutes));
    let old = signs(&gateway, &ada).await;
    assert_eq!(published(&gateway).await, std::slice::from_ref(&old));

    // Ten minutes before its time is over.
    advance(110);
    eventually(SOON, async || published(&gateway).await.len() == 2).await;
    assert_eq!(signs(&gateway, &ada).await, old);

    advance(10);
    let new = signs(&gateway, &ada).await;
    assert_ne!(new, old);
    assert_eq!(published(&gateway).await, [old.clone(), new.clone()]);

    advance(60);
    assert_eq!(signs(&gateway, &ada).await, new);
    // The next round, which comes by itself, leaves it out.
    advance(50);
    eventually(SOON, async || !published(&gateway).await.contains(&old)).await;
    assert!(published(&gateway).await.contains(&new));
}

#[tokio::test]
async fn one_of_several_gateways_makes_the_next_key_and_all_have_it() {
    let db = Database::fresh().await;
    let here = Setup::default().with(ON).start_on(&db).await;
    let there = Setup::default().with(ON).clock(here.clock()).start_on(&db).await;
    here.clock().advance(Duration::from_mins(110));
    eventually(SOON, async || {
        published(&here).await.len() == 2 && published(&here).await == published(&there).await
    })
    .await;
    assert_eq!(db.count("SELECT count(*) FROM signing_keys").await, 2);
}

/// The command line, on the gateway's database.
async fn keys(gateway: &Gateway, args: &[&str]) -> Value {
    let folder = TempDir::new().unwrap();
    let text = Setup::default()
        .with(ON)
        .text(gateway.db(), gateway.mailbox().addr(), gateway.upstream().addr());
    fs::write(folder.path().join("gateway.toml"), text).unwrap();
    let args = [&["keys"], args, &["--json"]].concat();
    let ended = program::run(&args, &[], folder.path()).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(!ended.stdout.contains("private"), "{}", ended.stdout);
    serde_json::from_str(&ended.stdout).unwrap()
}

#[tokio::test]
async fn an_operator_rotates_and_nobody_notices() {
    // The command goes by the machine's clock.
    let clock = vestibule::clock::Clock::System;
    let gateway = Setup::default().with(ON).clock(&clock).start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    let old = signs(&gateway, &ada).await;
    let made = keys(&gateway, &["rotate", "--yes"]).await;
    assert_eq!(made["state"], "next");
    let new = made["kid"].as_str().unwrap().to_owned();
    eventually(SOON, async || published(&gateway).await == [old.clone(), new.clone()]).await;
    assert_eq!(signs(&gateway, &ada).await, old);
    let listed = keys(&gateway, &["list"]).await;
    assert_eq!(
        (&listed[0]["state"], &listed[1]["state"]),
        (&json!("signs"), &json!("next"))
    );
    assert_eq!(listed[0]["retiresAt"], listed[1]["activatesAt"]);
}

#[tokio::test]
async fn a_key_that_somebody_else_has_is_withdrawn_at_once() {
    let clock = vestibule::clock::Clock::System;
    let gateway = Setup::default().with(ON).clock(&clock).start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    signs(&gateway, &ada).await;
    let made = keys(&gateway, &["rotate", "--at-once", "--yes"]).await;
    let new = made["kid"].as_str().unwrap().to_owned();
    eventually(SOON, async || published(&gateway).await == [new.clone()]).await;
    assert_eq!(signs(&gateway, &ada).await, new, "nor is what it signed said again");
}
