use std::sync::atomic::{AtomicBool, AtomicI64};

use base64ct::{Base64UrlUnpadded, Encoding};
use serde_json::json;
use uuid::Uuid;

use super::*;
use crate::{
    config::SigningAlgorithm,
    identity::{Assertions, Identity, Rendered, SessionId, UserId},
};

const NOW: Timestamp = Timestamp::from_secs(1_000_000);

fn sealing() -> SealingKeys {
    SealingKeys::new([b"correct horse battery staple, thirty-two".as_slice()])
}

fn key(activates_at: Timestamp, retires_at: Option<Timestamp>) -> StoredKey {
    StoredKey {
        retires_at,
        expires_at: retires_at.map(|at| at.plus(rotation::KEPT_FOR)),
        ..SigningKey::generate(SigningAlgorithm::EdDsa, &sealing(), activates_at, activates_at).unwrap()
    }
}

fn terms() -> Terms {
    Terms {
        issuer: "https://app.example.com".to_owned(),
        rules: AssertionRules {
            send: true,
            algorithm: SigningAlgorithm::EdDsa,
            lifetime: Duration::from_mins(1),
            rotate_every: Duration::from_hours(24),
        },
        sealing: sealing(),
    }
}

fn mint(keys: &[&StoredKey]) -> Mint {
    let mint = Mint::new(terms());
    install(&mint, keys, NOW);
    mint
}

fn install(mint: &Mint, keys: &[&StoredKey], now: Timestamp) {
    let keys: Vec<_> = keys.iter().map(|key| (*key).clone()).collect();
    mint.install(&keys, &terms(), now);
}

fn session(name: &str, roles: &[String], expires_at: Timestamp) -> Session {
    Session {
        id: SessionId(Uuid::from_u128(7)),
        identity: Arc::new(Identity {
            id: UserId(Uuid::from_u128(42)),
            email: "ada@example.test".to_owned(),
            email_verified: true,
            name: name.to_owned(),
            roles: roles.to_vec(),
        }),
        methods: vec!["pwd".to_owned()],
        created_at: NOW.minus(Duration::from_millis(1_500)),
        expires_at,
        refresh_at: None,
        extending: AtomicBool::new(false),
        last_seen: AtomicI64::new(0),
        headers: Rendered::default(),
        assertions: Assertions::default(),
    }
}

fn ada() -> Session {
    session("Zoë", &["user".to_owned()], NOW.plus(Duration::from_hours(1)))
}

/// Header and claims.
fn read(token: &HeaderValue) -> (Value, Value) {
    let parts: Vec<_> = token.to_str().unwrap().split('.').collect();
    let decoded = |at: usize| serde_json::from_slice(&Base64UrlUnpadded::decode_vec(parts[at]).unwrap()).unwrap();
    assert_eq!(parts.len(), 3);
    (decoded(0), decoded(1))
}

fn kid(token: &HeaderValue) -> String {
    read(token).0["kid"].as_str().unwrap().to_owned()
}

fn said(mint: &Mint, session: &Session, audience: &str, now: Timestamp) -> HeaderValue {
    mint.assertion(session, audience, Wording::Token, now).unwrap()
}

#[test]
fn an_assertion_says_who_for_whom_and_for_how_long() {
    let key = key(NOW, None);
    let (head, claims) = read(&said(&mint(&[&key]), &ada(), "api", NOW));
    assert_eq!(head, json!({ "alg": "EdDSA", "kid": key.kid, "typ": "JWT" }));
    assert_eq!(
        claims,
        json!({
            "iss": "https://app.example.com", "aud": "api",
            "sub": "00000000-0000-0000-0000-00000000002a", "sid": "00000000-0000-0000-0000-000000000007",
            "email": "ada@example.test", "email_verified": true, "name": "Zoë", "roles": ["user"],
            "amr": ["pwd"], "auth_time": 999_998, "iat": 999_995, "exp": 1_000_055,
        })
    );
}

#[test]
fn it_is_said_again_until_half_its_life_is_over_and_to_nobody_else() {
    let (mint, ada) = (mint(&[&key(NOW, None)]), ada());
    let first = said(&mint, &ada, "api", NOW);
    assert_eq!(said(&mint, &ada, "api", NOW.plus(Duration::from_secs(29))), first);
    assert_eq!(read(&said(&mint, &ada, "other", NOW)).1["aud"], "other");
    assert_eq!(mint.minted(), 2);
    assert_ne!(said(&mint, &ada, "api", NOW.plus(Duration::from_secs(30))), first);
    let bearer = mint.assertion(&ada, "api", Wording::Bearer, NOW).unwrap();
    assert!(bearer.to_str().unwrap().starts_with("Bearer ey"), "{bearer:?}");
}

#[test]
fn it_never_outlives_its_session() {
    let mint = mint(&[&key(NOW, None)]);
    let session = session("Ada", &[], NOW.plus(Duration::from_secs(3)));
    assert_eq!(read(&said(&mint, &session, "api", NOW)).1["exp"], 1_000_003);
}

#[test]
fn keys_take_turns_by_themselves() {
    let at = |secs| NOW.plus(Duration::from_secs(secs));
    let (old, new) = (key(NOW, Some(at(600))), key(at(600), None));
    let mint = mint(&[&old, &new]);
    for (secs, whose) in [(0, &old), (599, &old), (600, &new), (100_000, &new)] {
        assert_eq!(kid(&said(&mint, &ada(), "api", at(secs))), whose.kid, "after {secs} s");
    }
    // A gateway whose clock is behind has no other, and one that comes late still has the last.
    assert_eq!(
        kid(&said(&mint, &ada(), "api", NOW.minus(Duration::from_secs(5)))),
        old.kid
    );
    install(&mint, &[&old], NOW);
    assert_eq!(kid(&said(&mint, &ada(), "api", at(700))), old.kid);
    let published: Value = serde_json::from_slice(&mint.document()).unwrap();
    assert_eq!(published["keys"][0]["kid"], old.kid);
}

#[test]
fn what_a_withdrawn_key_signed_is_not_said_again() {
    let (old, new) = (key(NOW, None), key(NOW, None));
    let (mint, ada) = (mint(&[&old]), ada());
    assert_eq!(kid(&said(&mint, &ada, "api", NOW)), old.kid);
    install(&mint, &[&old, &new], NOW);
    assert_eq!(kid(&said(&mint, &ada, "api", NOW)), old.kid, "it is good still");
    install(&mint, &[&new], NOW);
    assert_eq!(kid(&said(&mint, &ada, "api", NOW)), new.kid);
}

#[test]
fn new_terms_are_heard_at_once() {
    let (mint, ada) = (mint(&[&key(NOW, None)]), ada());
    said(&mint, &ada, "api", NOW);
    mint.replace_terms(Terms {
        issuer: "https://elsewhere.example.com".to_owned(),
        ..terms()
    });
    assert_eq!(
        read(&said(&mint, &ada, "api", NOW)).1["iss"],
        "https://elsewhere.example.com"
    );
}

#[test]
fn without_a_key_nothing_is_said() {
    let mint = mint(&[]);
    assert!(mint.assertion(&ada(), "api", Wording::Token, NOW).is_none());
    assert_eq!(mint.document(), "{\"keys\":[]}");
}

#[test]
fn a_key_of_another_secret_is_published_but_does_not_sign() {
    let strangers = SealingKeys::new([b"another secret that is long enough, too".as_slice()]);
    let foreign = SigningKey::generate(SigningAlgorithm::Es256, &strangers, NOW, NOW).unwrap();
    let mint = mint(&[&foreign]);
    assert!(mint.assertion(&ada(), "api", Wording::Token, NOW).is_none());
    assert!(String::from_utf8_lossy(&mint.document()).contains(&foreign.kid));
}

#[test]
fn a_name_that_is_too_long_is_left_out_and_roles_never() {
    let mint = mint(&[&key(NOW, None)]);
    let later = NOW.plus(Duration::from_hours(1));
    let long_named = session(&"n".repeat(10_000), &["admin".to_owned()], later);
    let (_, claims) = read(&said(&mint, &long_named, "api", NOW));
    assert_eq!((claims.get("name"), &claims["roles"]), (None, &json!(["admin"])));
    let roles: Vec<_> = (0..2_000).map(|number| format!("role-{number}")).collect();
    let many_roles = session("Ada", &roles, later);
    assert!(mint.assertion(&many_roles, "api", Wording::Token, NOW).is_none());
}
