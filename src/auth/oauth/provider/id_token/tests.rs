use hmac::{Hmac, KeyInit, Mac};
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::{
    auth::oauth::provider::{
        dialect,
        testing::{self, Signer, jwt},
    },
    config::ProviderKind,
};

const NOW: i64 = 1_795_000_000;
const ACCESS: &str = "jHkWEdUXMU1BwAsC4vtUsZwnNvTIxEl0z9K3vx5KF0Y";

fn claims() -> Value {
    json!({
        "iss": "https://idp.test",
        "sub": "ada",
        "aud": "client",
        "iat": NOW,
        "exp": NOW + 3600,
        "nonce": "the-nonce",
    })
}

/// The claims of a good token with some of them changed; null takes one away.
fn with(changes: &Value) -> Value {
    let mut claims = claims();
    for (name, value) in changes.as_object().unwrap() {
        if value.is_null() {
            claims.as_object_mut().unwrap().remove(name);
        } else {
            claims[name] = value.clone();
        }
    }
    claims
}

fn flow() -> Expected<'static> {
    Expected {
        audience: Audience::Us("client"),
        nonce: Some(Nonce::Exact("the-nonce")),
        access_token: None,
        max_age: AGE_IN_FLOW,
        clock_skew: Duration::from_mins(1),
        now: Timestamp::from_secs(NOW),
    }
}

fn keys(signers: &[&Signer]) -> Vec<CoreJsonWebKey> {
    let key = |signer: &&Signer| serde_json::from_value(signer.jwk()).unwrap();
    signers.iter().map(key).collect()
}

fn judged(token: &str, keys: &[CoreJsonWebKey], expected: &Expected<'_>) -> Result<Claims, Bad> {
    let dialect = dialect::of(&testing::settings(ProviderKind::Oidc)).unwrap();
    verify(token, keys, &*dialect, expected)
}

#[test]
fn a_good_token_of_every_kind_of_key_passes() {
    for signer in [Signer::rsa(Some("1")), Signer::ec(Some("1")), Signer::ed(Some("1"))] {
        let got = judged(&signer.sign(&claims()), &keys(&[&signer]), &flow());
        assert_eq!(got.unwrap().text("sub"), Some("ada"), "{}", signer.alg());
    }
    let rsa = Signer::rsa(None);
    let pss = rsa.sign_with(&json!({"alg": "PS256"}), &claims());
    assert!(judged(&pss, &keys(&[&rsa]), &flow()).is_ok());
}

#[test]
fn a_token_that_anybody_could_have_signed_is_refused() {
    let signer = Signer::rsa(Some("1"));
    let keys = keys(&[&signer]);
    let hs256 = |secret: &[u8]| {
        let mac = |message: &[u8]| {
            let mac = Hmac::<Sha256>::new_from_slice(secret).unwrap().chain_update(message);
            mac.finalize().into_bytes().to_vec()
        };
        jwt(&json!({"alg": "HS256", "kid": "1"}), &claims(), mac)
    };
    let pem = format!(
        "-----BEGIN RSA PUBLIC KEY-----\n{}\n-----END RSA PUBLIC KEY-----\n",
        base64ct::Base64::encode_string(&signer.public_bytes())
    );
    for token in [
        jwt(&json!({"alg": "none"}), &claims(), |_| Vec::new()),
        jwt(&json!({"alg": "None"}), &claims(), |_| Vec::new()),
        jwt(&json!({"kid": "1"}), &claims(), |_| Vec::new()),
        jwt(&json!({"alg": "RS256", "kid": "1"}), &claims(), |_| Vec::new()),
        jwt(&json!({"alg": "ES256", "kid": "1"}), &claims(), |_| vec![0; 64]),
        hs256(&signer.public_bytes()),
        hs256(pem.as_bytes()),
        hs256(signer.jwk().to_string().as_bytes()),
        hs256(b"client-secret"),
        hs256(b""),
    ] {
        assert!(judged(&token, &keys, &flow()).is_err(), "{token}");
    }
}

#[test]
fn a_key_in_the_token_itself_is_not_looked_at() {
    let (ours, theirs) = (Signer::rsa(Some("1")), Signer::rsa(Some("1")));
    for header in [
        json!({"alg": "RS256", "kid": "1", "jwk": theirs.jwk()}),
        json!({"alg": "RS256", "kid": "1", "jku": "https://evil.test/jwks"}),
        json!({"alg": "RS256", "jwk": theirs.jwk()}),
    ] {
        let got = judged(&theirs.sign_with(&header, &claims()), &keys(&[&ours]), &flow());
        assert!(matches!(got, Err(Bad::Key(_))), "{header}");
    }
}

#[test]
fn headers_that_ask_for_more_than_we_know_are_refused() {
    let signer = Signer::ec(None);
    for header in [
        json!({"alg": "ES256", "crit": ["exp"]}),
        json!({"alg": "ES256", "typ": "at+jwt"}),
        json!({"alg": "ES256", "typ": "logout+jwt"}),
        json!({"alg": "ES999"}),
        json!([]),
    ] {
        let token = if header.is_object() {
            signer.sign_with(&header, &claims())
        } else {
            jwt(&header, &claims(), |_| vec![0; 64])
        };
        assert!(
            matches!(judged(&token, &keys(&[&signer]), &flow()), Err(Bad::Token(_))),
            "{header}"
        );
    }
}

#[test]
fn the_key_is_found_by_its_id_or_by_trying() {
    let (one, two) = (Signer::ec(Some("1")), Signer::ec(Some("2")));
    assert!(judged(&two.sign(&claims()), &keys(&[&one, &two]), &flow()).is_ok());
    // Rotated: the token's key is not published any more, or not yet.
    assert!(matches!(
        judged(&two.sign(&claims()), &keys(&[&one]), &flow()),
        Err(Bad::Key(_))
    ));
    // The id of one with the signature of the other.
    let crossed = two.sign_with(&json!({"alg": "ES256", "kid": "1"}), &claims());
    assert!(matches!(
        judged(&crossed, &keys(&[&one, &two]), &flow()),
        Err(Bad::Key(_))
    ));
    // A token without an id, keys with and without.
    let anonymous = two.sign_with(&json!({"alg": "ES256"}), &claims());
    assert!(judged(&anonymous, &keys(&[&one, &two]), &flow()).is_ok());
    let (first, second) = (Signer::ec(None), Signer::ec(None));
    assert!(judged(&second.sign(&claims()), &keys(&[&first, &second]), &flow()).is_ok());
    // An id that no key has, though a key without one would fit.
    let stranger = second.sign_with(&json!({"alg": "ES256", "kid": "9"}), &claims());
    assert!(matches!(
        judged(&stranger, &keys(&[&first, &second]), &flow()),
        Err(Bad::Key(_))
    ));
    assert!(matches!(
        judged(&second.sign(&claims()), &[], &flow()),
        Err(Bad::Key(_))
    ));
}

#[test]
fn a_key_for_something_else_signs_nothing() {
    let signer = Signer::rsa(Some("1"));
    for (name, value) in [("use", "enc"), ("alg", "PS256"), ("alg", "RSA-OAEP")] {
        let mut jwk = signer.jwk();
        jwk[name] = json!(value);
        let keys: Vec<CoreJsonWebKey> = serde_json::from_value(jwk).into_iter().collect();
        let got = judged(&signer.sign(&claims()), &keys, &flow());
        assert!(matches!(got, Err(Bad::Key(_))), "{name} {value}");
    }
}

#[test]
fn every_claim_must_agree_with_the_flow() {
    let signer = Signer::ec(None);
    let keys = keys(&[&signer]);
    for (changes, passes) in [
        (json!({}), true),
        (json!({"iss": "https://evil.test"}), false),
        (json!({"iss": "https://idp.test/"}), false),
        (json!({"iss": null}), false),
        (json!({"iss": 7}), false),
        (json!({"aud": "another"}), false),
        (json!({"aud": null}), false),
        (json!({"aud": []}), false),
        (json!({"aud": ["client"]}), true),
        (json!({"aud": ["client", "another"]}), false),
        (json!({"aud": ["client", "another"], "azp": "client"}), false),
        (json!({"aud": ["client", 7]}), false),
        (json!({"aud": {"client": true}}), false),
        (json!({"azp": "client"}), true),
        (json!({"azp": "another"}), false),
        (json!({"azp": 7}), false),
        (json!({"nonce": null}), false),
        (json!({"nonce": "another"}), false),
        (json!({"nonce": ""}), false),
        (json!({"nonce": ["the-nonce"]}), false),
        (json!({"exp": null}), false),
        (json!({"exp": "soon"}), false),
        (json!({"exp": NOW - 30}), true),
        (json!({"exp": NOW - 60}), false),
        (json!({"exp": -1}), false),
        (json!({"exp": 1e300}), false),
        (json!({"exp": f64::from(i32::MAX) + 0.5}), true),
        (json!({"iat": null}), false),
        (json!({"iat": NOW + 60}), true),
        (json!({"iat": NOW + 61}), false),
        (json!({"iat": NOW - 420}), true),
        (json!({"iat": NOW - 421}), false),
        (json!({"iat": i64::MIN}), false),
        (json!({"nbf": NOW + 60}), true),
        (json!({"nbf": NOW + 61}), false),
        (json!({"nbf": "now"}), false),
    ] {
        let got = judged(&signer.sign(&with(&changes)), &keys, &flow());
        assert_eq!(got.is_ok(), passes, "{changes} {got:?}");
    }
}

#[test]
fn a_provider_whose_clock_is_10_minutes_off_is_refused() {
    let signer = Signer::ec(None);
    for off in [-600, 600] {
        let token = signer.sign(&with(&json!({"iat": NOW + off, "exp": NOW + off + 3600})));
        // As much as can be configured.
        let most = Expected {
            clock_skew: Duration::from_mins(3),
            ..flow()
        };
        assert!(judged(&token, &keys(&[&signer]), &most).is_err(), "{off}");
    }
    // Microsoft's, after a slow exchange.
    let token = signer.sign(&with(&json!({"iat": NOW - 330})));
    let least = Expected {
        clock_skew: Duration::ZERO,
        ..flow()
    };
    assert!(judged(&token, &keys(&[&signer]), &least).is_ok());
}

#[test]
fn an_app_may_present_a_token_of_the_last_hour_for_one_of_its_ids() {
    let signer = Signer::ec(None);
    let keys = keys(&[&signer]);
    let apps = ["ios".to_owned(), "android".to_owned()];
    let hashed = "3ccb5a3c0b1d0c8d34f7f8c2d9bb2bcb3b63d9f1b6a4d0a3b2a0a6b3d1e0f4c9";
    let sha256 = hex(&Sha256::digest("the-nonce"));
    for (changes, nonce, passes) in [
        (json!({"nonce": null}), None, true),
        // The redirect flow's own token has a nonce, and would be good for whoever saw it.
        (json!({}), None, false),
        (json!({"nonce": ""}), None, false),
        (json!({"iat": NOW - 3600}), Some(Nonce::Exact("the-nonce")), true),
        (json!({"iat": NOW - 3661}), Some(Nonce::Exact("the-nonce")), false),
        (json!({"aud": "ios"}), Some(Nonce::Exact("the-nonce")), true),
        (json!({"aud": "windows"}), Some(Nonce::Exact("the-nonce")), false),
        (
            json!({"aud": ["client", "ios"], "azp": "client"}),
            Some(Nonce::Exact("the-nonce")),
            true,
        ),
        (
            json!({"aud": ["client", "windows"]}),
            Some(Nonce::Exact("the-nonce")),
            false,
        ),
        (
            json!({"azp": "android-by-signing-key"}),
            Some(Nonce::Exact("the-nonce")),
            true,
        ),
        (json!({}), Some(Nonce::Exact("the-nonce")), true),
        (json!({}), Some(Nonce::Exact("another")), false),
        (json!({"nonce": sha256}), Some(Nonce::Exact("the-nonce")), false),
        (json!({"nonce": sha256}), Some(Nonce::ExactOrHashed("the-nonce")), true),
        (
            json!({"nonce": "the-nonce"}),
            Some(Nonce::ExactOrHashed("the-nonce")),
            true,
        ),
        (json!({"nonce": hashed}), Some(Nonce::ExactOrHashed("the-nonce")), false),
        (json!({"nonce": null}), Some(Nonce::ExactOrHashed("the-nonce")), false),
        (json!({"nonce": null}), Some(Nonce::Exact("")), false),
    ] {
        let expected = Expected {
            audience: Audience::AnyOf("client", &apps),
            nonce,
            max_age: AGE_PRESENTED,
            ..flow()
        };
        let got = judged(&signer.sign(&with(&changes)), &keys, &expected);
        assert_eq!(got.is_ok(), passes, "{changes} {nonce:?} {got:?}");
    }
}

#[test]
fn an_access_token_must_be_the_one_that_the_id_token_is_of() {
    let signer = Signer::rsa(None);
    let keys = keys(&[&signer]);
    let (right, wrong) = (Secret::new(ACCESS.to_owned()), Secret::new("another".to_owned()));
    // OpenID Connect Core 1.0, appendix A.3.
    let bound = signer.sign(&with(&json!({"at_hash": "77QmUPtjPfzWtF2AnpK9RQ"})));
    let free = signer.sign(&claims());
    let broken = signer.sign(&with(&json!({"at_hash": 7})));
    for (token, access_token, passes) in [
        (&bound, Some(&right), true),
        (&bound, Some(&wrong), false),
        (&bound, None, true),
        (&free, Some(&wrong), true),
        (&broken, Some(&right), false),
    ] {
        let expected = Expected { access_token, ..flow() };
        assert_eq!(judged(token, &keys, &expected).is_ok(), passes);
    }
}

#[test]
fn broken_and_huge_tokens_are_refused() {
    let signer = Signer::ec(None);
    let keys = keys(&[&signer]);
    let good = signer.sign(&claims());
    let huge = signer.sign(&with(&json!({"groups": "g".repeat(MAX_TOKEN)})));
    let (front, signature) = good.rsplit_once('.').unwrap();
    for token in [
        String::new(),
        ".".to_owned(),
        "..".to_owned(),
        "a.b".to_owned(),
        huge,
        format!("{good}="),
        format!("{good}."),
        format!(".{good}"),
        format!("{front}."),
        format!("{front}.!{signature}"),
        format!("ä{good}"),
        good.replace('.', "\0"),
        format!("{{}}.{{}}.{signature}"),
        signer.sign_with(&json!({"alg": "ES256"}), &json!([1, 2, 3])),
        signer.sign_with(&json!({"alg": "ES256"}), &json!("claims")),
    ] {
        assert!(judged(&token, &keys, &flow()).is_err(), "{token}");
    }
}

proptest! {
    #[test]
    fn no_text_is_an_id_token_by_accident(text in ".{0,400}", header in "[A-Za-z0-9_-]{0,80}", rest in "[A-Za-z0-9_.-]{0,200}") {
        let signer = Signer::ec(None);
        let keys = keys(&[&signer]);
        for token in [text.as_str(), &format!("{header}.{rest}"), &format!("eyJhbGciOiJFUzI1NiJ9.{rest}")] {
            prop_assert!(judged(token, &keys, &flow()).is_err());
        }
    }

    #[test]
    fn a_token_with_one_byte_changed_is_refused(at in 0usize..10_000, to in "[A-Za-z0-9_.-]") {
        let signer = Signer::ec(None);
        let token = signer.sign(&claims());
        let at = at % token.len();
        let mut changed = token.clone();
        changed.replace_range(at..=at, &to);
        prop_assume!(changed != token);
        prop_assert!(judged(&changed, &keys(&[&signer]), &flow()).is_err());
    }
}
