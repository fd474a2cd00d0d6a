//! The signed assertion: what upstreams get, what it is worth, and what clients can't do with it.

use std::time::Duration;

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use base64ct::{Base64UrlUnpadded, Encoding};
use serde_json::{Value, json};

use crate::harness::{Database, Gateway, SOON, Setup, eventually, people::User};

const ON: &str = "[identity]\nassertion = true";

/// Header and claims, unverified.
fn read(token: &str) -> (Value, Value) {
    let mut parts = token
        .split('.')
        .map(|part| Base64UrlUnpadded::decode_vec(part).unwrap());
    let mut next = || serde_json::from_slice(&parts.next().unwrap()).unwrap();
    (next(), next())
}

/// Whether one of the published keys signed it.
async fn verifies(gateway: &Gateway, token: &str) -> bool {
    let (message, signature) = token.rsplit_once('.').unwrap();
    let kid = read(token).0["kid"].clone();
    let keys = gateway.get("/api/auth/jwks").await.json();
    let keys = keys["keys"].as_array().unwrap().clone();
    let Some(key) = keys.iter().find(|key| key["kid"] == kid) else {
        return false;
    };
    let public = Base64UrlUnpadded::decode_vec(key["x"].as_str().unwrap()).unwrap();
    let signature = Base64UrlUnpadded::decode_vec(signature).unwrap();
    UnparsedPublicKey::new(&ED25519, public)
        .verify(message.as_bytes(), &signature)
        .is_ok()
}

/// What the upstream got.
async fn assertion(gateway: &Gateway, user: &User, target: &str) -> String {
    assert_eq!(gateway.get(target).with(user).await.status(), 200);
    let seen = gateway.upstream().last();
    seen.head.one("x-vestibule-assertion").expect("an assertion").to_owned()
}

#[tokio::test]
async fn an_upstream_gets_proof_of_who_is_signed_in() {
    let gateway = Setup::default().with(ON).start().await;
    let ada = gateway.signed_in_as("ada@example.com", &["user", "admin"]).await;
    let token = assertion(&gateway, &ada, "/api/me").await;
    assert!(verifies(&gateway, &token).await);
    let seen = gateway.upstream().last();
    let (head, claims) = read(&token);
    assert_eq!((&head["alg"], &head["typ"]), (&json!("EdDSA"), &json!("JWT")));
    let expected = json!({
        "iss": "https://app.example.com", "aud": "app", "sub": ada.id, "sid": seen.head.one("x-session-id"),
        "email": "ada@example.com", "email_verified": true, "name": "Ada Lovelace", "roles": ["user", "admin"],
        "amr": ["pwd"], "auth_time": 1_795_248_000, "iat": 1_795_247_995, "exp": 1_795_248_055,
    });
    assert_eq!(claims, expected);
}

#[tokio::test]
async fn by_default_and_where_nobody_is_signed_in_there_is_none() {
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    assert_eq!(gateway.get("/api/x").with(&ada).await.status(), 200);
    assert!(!gateway.upstream().last().head.has("x-vestibule-assertion"));

    let gateway = Setup::default().with(ON).start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    for target in ["/public/x", "/optional/x"] {
        assert_eq!(gateway.get(target).await.status(), 200);
        assert!(!gateway.upstream().last().head.has("x-vestibule-assertion"), "{target}");
    }
    assert_eq!(gateway.get("/public/x").with(&ada).await.status(), 200);
    assert!(!gateway.upstream().last().head.has("x-vestibule-assertion"));
    assertion(&gateway, &ada, "/optional/x").await;
}

#[tokio::test]
async fn a_client_can_not_say_it_in_any_spelling() {
    for setup in [Setup::default(), Setup::default().with(ON)] {
        let gateway = setup.start().await;
        let ada = gateway.signed_in("ada@example.com").await;
        for spelling in [
            "X-Vestibule-Assertion",
            "x_vestibule_assertion",
            "X.Vestibule.Assertion",
            "X-VESTIBULE_assertion",
            "x~vestibule|assertion",
        ] {
            for target in ["/public/x", "/optional/x", "/api/x"] {
                let call = gateway.get(target).with(&ada).header(spelling, "forged.forged.forged");
                assert_eq!(call.await.status(), 200);
                let seen = gateway.upstream().last().head;
                assert!(
                    !String::from_utf8_lossy(&seen.raw).contains("forged"),
                    "{spelling} survived on {target}"
                );
            }
        }
        let named = gateway
            .get("/api/x")
            .with(&ada)
            .header("Connection", "x-vestibule-assertion")
            .await;
        assert_eq!(named.status(), 200);
    }
    let gateway = Setup::default().with(ON).start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    let named = gateway
        .get("/api/x")
        .with(&ada)
        .header("Connection", "x-vestibule-assertion");
    assert_eq!(named.await.status(), 200);
    assert!(
        gateway.upstream().last().head.has("x-vestibule-assertion"),
        "nor have it removed"
    );
}

#[tokio::test]
async fn it_is_said_again_for_a_while_and_then_made_anew() {
    let gateway = Setup::default().with(ON).start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    // The cache would forget the session, and its assertions with it, within its own time.
    let gateway_time = |secs| gateway.clock().advance(Duration::from_secs(secs));
    let first = assertion(&gateway, &ada, "/api/x").await;
    gateway_time(9);
    assert_eq!(assertion(&gateway, &ada, "/api/x").await, first);
    gateway_time(30);
    let later = assertion(&gateway, &ada, "/api/x").await;
    assert_ne!(later, first);
    assert_eq!(read(&later).1["exp"], 1_795_248_055 + 39);
}

#[tokio::test]
async fn another_upstream_gets_another_audience() {
    let gateway = Setup::default()
        .with(
            "[identity]
            assertion = true
            [upstreams.other]
            endpoints = ['http://127.0.0.1:9']",
        )
        .start()
        .await;
    let ada = gateway.signed_in("ada@example.com").await;
    assert_eq!(read(&assertion(&gateway, &ada, "/api/x").await).1["aud"], "app");
}

#[tokio::test]
async fn a_changed_identity_is_in_the_next_one() {
    let gateway = Setup::default().with(ON).start().await;
    let ada = gateway.signed_in_as("ada@example.com", &["admin"]).await;
    assert_eq!(
        read(&assertion(&gateway, &ada, "/api/x").await).1["roles"],
        json!(["admin"])
    );
    gateway.db().run("UPDATE users SET roles = '{}'").await;
    eventually(SOON, async || {
        read(&assertion(&gateway, &ada, "/api/x").await).1["roles"] == json!([])
    })
    .await;
}

#[tokio::test]
async fn an_assertion_is_no_credential_here() {
    let gateway = Setup::default().with(ON).start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    let token = assertion(&gateway, &ada, "/api/x").await;
    assert_eq!(gateway.get("/api/x").bearer(&token).await.status(), 401);
    let cookie = format!("{}={token}", gateway.session_cookie());
    assert_eq!(gateway.get("/api/x").header("Cookie", cookie).await.status(), 401);
}

#[tokio::test]
async fn es256_signs_too() {
    let gateway = Setup::default()
        .with("[identity]\nassertion = true\nassertion_algorithm = 'ES256'")
        .start()
        .await;
    let ada = gateway.signed_in("ada@example.com").await;
    let token = assertion(&gateway, &ada, "/api/x").await;
    assert_eq!(read(&token).0["alg"], "ES256");
    let keys = gateway.get("/api/auth/jwks").await.json();
    assert_eq!(
        (&keys["keys"][0]["kty"], &keys["keys"][0]["crv"]),
        (&json!("EC"), &json!("P-256"))
    );
}

#[tokio::test]
async fn the_keys_are_published_while_postgres_is_away() {
    let gateway = Setup::default().with(ON).start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    let token = assertion(&gateway, &ada, "/api/x").await;
    gateway.db().shut().await;
    assert!(verifies(&gateway, &token).await);
    gateway.db().reopen().await;
    eventually(SOON, async || gateway.get("/api/x").with(&ada).await.status() == 200).await;
}

#[tokio::test]
async fn gateways_that_start_together_make_one_key() {
    let db = Database::fresh().await;
    let start = async || Setup::default().with(ON).start_on(&db).await;
    let (first, second, third) = tokio::join!(start(), start(), start());
    assert_eq!(db.count("SELECT count(*) FROM signing_keys").await, 1);
    let ada = first.signed_in("ada@example.com").await;
    let token = assertion(&first, &ada, "/api/x").await;
    for gateway in [&second, &third] {
        assert!(verifies(gateway, &token).await);
    }
}

#[tokio::test]
async fn a_key_of_its_own_is_made_where_the_secret_was_replaced() {
    let db = Database::fresh().await;
    let before = Setup::default().with(ON).start_on(&db).await;
    let ada = before.signed_in("ada@example.com").await;
    let old = assertion(&before, &ada, "/api/x").await;
    let replaced = "[identity]\nassertion = true\n[auth]\nsecret = 'another secret that nobody has used before'";
    let after = Setup::default().with(replaced).start_on(&db).await;
    let bob = after.signed_in("bob@example.com").await;
    let new = assertion(&after, &bob, "/api/x").await;
    assert_ne!(read(&old).0["kid"], read(&new).0["kid"]);
    assert!(verifies(&after, &new).await && verifies(&after, &old).await);
}

#[tokio::test]
async fn a_rotated_secret_seals_the_keys_anew() {
    let db = Database::fresh().await;
    let before = Setup::default().with(ON).start_on(&db).await;
    let ada = before.signed_in("ada@example.com").await;
    let kid = read(&assertion(&before, &ada, "/api/x").await).0["kid"].clone();
    // One that has the old secret alone would make a key that it can read.
    drop(before);
    let old = "a secret that only the tests use, and only here";
    let new = "another secret that nobody has used before";
    let both = format!("[identity]\nassertion = true\n[auth]\nsecret = ['{new}', '{old}']");
    db.run("CREATE TABLE sealed_by_old AS SELECT private_key FROM signing_keys")
        .await;
    let between = Setup::default().with(&both).start_on(&db).await;
    // It seals them while it serves.
    let left = "SELECT count(*) FROM signing_keys NATURAL JOIN sealed_by_old";
    eventually(SOON, async || db.count(left).await == 0).await;
    drop(between);
    let only = format!("[identity]\nassertion = true\n[auth]\nsecret = '{new}'");
    let after = Setup::default().with(&only).start_on(&db).await;
    let bob = after.signed_in("bob@example.com").await;
    assert_eq!(read(&assertion(&after, &bob, "/api/x").await).0["kid"], kid);
}
