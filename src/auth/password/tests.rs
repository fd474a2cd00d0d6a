use proptest::prelude::*;

use super::*;
use crate::config::Argon2 as Cost;

/// Passwords with hashes that others made of them: better-auth 1.7.7, Python's bcrypt 5.0, the reference
/// implementation of Argon2 through argon2-cffi, Django 5.2.
pub(super) const VECTORS: &[(&str, &str)] = &[
    (
        "correct horse battery",
        "18e319aa276adfb8259f941c57f722a3:7ff496ca6b1027e76e2a1a33f3fe569f130ce0ec0e71829f9db02317ccce10cfa9d3a6ddc839\
         a5d6a5b5d141031fdc10bf31b71ef57c60cba327472d8179850f",
    ),
    (
        "pässwörd ☃",
        "5d8a5419324487298dbe83b7c9b5c17d:5dbaf64f47084a9d17ce6b4021cc518f7029e45d4ede5088d911d05f6cd813e537e530a203e5\
         988a741cb87b1ffbc37217a8cc762f710fcc9d460dc3013a4ac3",
    ),
    (
        "correct horse battery",
        "$2a$05$fYNKhEiYX5.4HPLdrcbeZurVIjINngvm1Z5VKauxUKcl8B94BBoea",
    ),
    (
        "correct horse battery",
        "$2b$05$icoS/Ut3z3hNv.OH1Yd8yOmTDnEsyWqB5SRtg2aZSfR9e2OlxNYSa",
    ),
    (
        "correct horse battery",
        "$2y$04$drattOnGaAQL744Gehc.nOrKw3.8Gv0ssx5.5XbLQyeF18P5y2TOC",
    ),
    (
        "pässwörd ☃",
        "$2b$04$MQIHXqD9Mt5.fH9km11m2us5jBhzoA7j2fnKsUdpWiwWve4MFKeWy",
    ),
    (
        "correct horse battery",
        "pbkdf2_sha256$1000$Zd5cF2Wqk1x0$L8EtYBZjbGD0DyBfnPOQFHSMtCYhvpEFJkYtk1gp54Q=",
    ),
    (
        "pässwörd ☃",
        "pbkdf2_sha256$1000$Zd5cF2Wqk1x0$tEL3lJR/vHEcn+KOi+5vrpZcmLG2B32J2sF7bdEX5M0=",
    ),
    (
        "correct horse battery",
        "pbkdf2_sha1$1000$Zd5cF2Wqk1x0$anCKWp+qrI2c79V8xf6ofdOYfNM=",
    ),
    (
        "correct horse battery",
        "$argon2i$v=19$m=64,t=2,p=2$c2FsdHNhbHRzYWx0c2FsdA$KFdWVXz6gjiLMxeokEK4q5KIUAwHDRao",
    ),
    (
        "correct horse battery",
        "$argon2d$v=19$m=64,t=2,p=2$c2FsdHNhbHRzYWx0c2FsdA$Y9mYeRackaQOQfajXthQa6sfy62wtsL1",
    ),
    (
        "correct horse battery",
        "$argon2id$v=19$m=64,t=2,p=2$c2FsdHNhbHRzYWx0c2FsdA$YfxIj4SFLVWEllB1+yE31hxj2Xi6vRUs",
    ),
    (
        "correct horse battery",
        "$argon2i$v=16$m=64,t=2,p=1$c2FsdHNhbHRzYWx0c2FsdA$dJGlFOWQLOK5pgXzXWJBiXWlObItHn0+kA+ILSge/YI",
    ),
    (
        "correct horse battery",
        "$argon2i$m=64,t=2,p=1$c2FsdHNhbHRzYWx0c2FsdA$dJGlFOWQLOK5pgXzXWJBiXWlObItHn0+kA+ILSge/YI",
    ),
    (
        "correct horse battery",
        "$argon2id$v=16$m=64,t=2,p=1$c2FsdHNhbHRzYWx0c2FsdA$GHU0lfah4Z47NVnt+oCBuveVrSNAjYqcCu0HjTJYABY",
    ),
    (
        "correct horse battery",
        "argon2$argon2id$v=19$m=64,t=1,p=1$c29tZXNhbHRzb21lc2FsdA$wZeUqErRQM9fr7+3IJVQyFsb5QPhYeqkXwNGZgBH/L4",
    ),
];

fn cheap_hasher() -> Hasher {
    Hasher::new(Params::new(64, 1, 1, Some(OUTPUT_LEN)).unwrap())
}

#[test]
fn hashes_that_others_made_verify_and_are_outdated() {
    let mut hasher = cheap_hasher();
    for (password, stored) in VECTORS {
        assert_eq!(hasher.verify(password, stored), Verdict::RightButOutdated, "{stored}");
        for wrong in [
            "",
            "correct horse batterz",
            "correct horse batter",
            &format!("{password} "),
        ] {
            assert_eq!(hasher.verify(wrong, stored), Verdict::Wrong, "{wrong} for {stored}");
        }
        assert_eq!(check_stored(stored, CHEAP), Ok(()));
    }
}

/// `é` as one character and as two; a ligature, and what it stands for.
const SPELLINGS: [&str; 3] = ["ﬁancé①", "fiancé1", "fiance\u{301}1"];

#[test]
fn a_password_is_the_same_however_its_characters_are_composed() {
    let mut hasher = cheap_hasher();
    for chosen in SPELLINGS {
        let stored = hasher.hash(chosen).unwrap();
        for typed in SPELLINGS {
            assert_eq!(
                hasher.verify(typed, stored.expose()),
                Verdict::Right,
                "{chosen} as {typed}"
            );
        }
        assert_eq!(hasher.verify("fiance1", stored.expose()), Verdict::Wrong);
        // As hashes were made before, and elsewhere.
        let stored = hasher.hash_as_it_is(chosen).unwrap();
        assert_eq!(hasher.verify(chosen, stored.expose()), Verdict::Right, "{chosen}");
    }
}

#[test]
fn which_form_is_right_is_not_told_by_the_work() {
    let mut hasher = cheap_hasher();
    let [typed, composed, _] = SPELLINGS;
    let stored = [
        hasher.hash(typed).unwrap(),
        hasher.hash_as_it_is(typed).unwrap(),
        hasher.hash("another").unwrap(),
    ];
    for (text, twice) in [(typed, 2), (composed, 1)] {
        let before = hasher.todays_work;
        hasher.pretend(text);
        assert_eq!(hasher.todays_work - before, twice, "{text} for nobody");
        for stored in &stored {
            let before = hasher.todays_work;
            hasher.verify(text, stored.expose());
            assert_eq!(hasher.todays_work - before, twice, "{text}");
        }
    }
}

#[test]
fn a_wrong_password_costs_todays_work_whatever_hash_is_stored() {
    let mut hasher = cheap_hasher();
    hasher.pretend("wrong");
    let nobody = hasher.todays_work;
    assert_eq!(nobody, 1);
    let stored = VECTORS.iter().map(|(_, stored)| *stored).chain(["no hash at all", ""]);
    for (at, stored) in stored.enumerate() {
        assert_eq!(hasher.verify("wrong", stored), Verdict::Wrong);
        let done = hasher.todays_work - nobody;
        assert!(usize::try_from(done).unwrap() > at, "{stored}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_other_text_is_anybodys_hash(stored in "\\PC{0,80}", password in "\\PC{0,20}") {
        prop_assert_eq!(cheap_hasher().verify(&password, &stored), Verdict::Wrong);
    }

    /// A password or nothing is no hash of itself.
    #[test]
    fn a_password_is_not_its_own_hash(password in "\\PC{0,20}") {
        prop_assert_eq!(cheap_hasher().verify(&password, &password), Verdict::Wrong);
    }
}

fn passwords(cost: Cost, queue: usize) -> Passwords {
    Passwords::start(&config::Password {
        min_length: 8,
        max_length: 128,
        change_revokes_others: false,
        reset_expires_in: std::time::Duration::from_hours(1),
        argon2: cost,
        max_concurrent: 1,
        queue,
    })
    .unwrap()
}

const CHEAP: Cost = Cost {
    memory_kib: 64,
    iterations: 1,
    parallelism: 1,
};

fn secret(text: &str) -> Secret<String> {
    Secret::new(text.to_owned())
}

#[tokio::test]
async fn a_password_verifies_against_its_hash_and_nothing_else() {
    let passwords = passwords(CHEAP, 8);
    let hash = passwords.hash(secret("correct horse")).await.unwrap();
    assert!(hash.expose().starts_with("$argon2id$v=19$m=64,t=1,p=1$"));
    let verify = |password, hash: &str| passwords.verify(secret(password), Some(secret(hash)));
    assert_eq!(verify("correct horse", hash.expose()).await.unwrap(), Verdict::Right);
    assert_eq!(verify("battery staple", hash.expose()).await.unwrap(), Verdict::Wrong);
    let nobody = passwords.verify(secret("correct horse"), None).await.unwrap();
    assert_eq!(nobody, Verdict::Wrong);
    for broken in [
        "",
        "x",
        "$argon2id$v=19$m=64,t=1,p=1$c2FsdA",
        "$argon2id$v=19$m=4000000,t=1,p=1$c2FsdHNhbHRzYWx0$aGFzaGhhc2hoYXNoaGFzaA",
        "$2b$12$abcdefghijklmnopqrstuu",
        "$argon2i$v=19$m=64,t=1,p=1$c2FsdHNhbHRzYWx0$aGFzaGhhc2hoYXNoaGFzaA",
    ] {
        assert_eq!(
            verify("correct horse", broken).await.unwrap(),
            Verdict::Wrong,
            "{broken}"
        );
    }
}

#[tokio::test]
async fn other_parameters_verify_but_ask_for_a_new_hash() {
    let costlier = Cost {
        memory_kib: 128,
        ..CHEAP
    };
    let old = passwords(costlier, 8).hash(secret("correct horse")).await.unwrap();
    let now = passwords(CHEAP, 8);
    let verdict = now.verify(secret("correct horse"), Some(old)).await.unwrap();
    assert_eq!(verdict, Verdict::RightButOutdated);
}

#[tokio::test]
async fn what_is_made_today_is_told_from_all_else() {
    let passwords = passwords(CHEAP, 8);
    let hash = passwords.hash(secret("correct horse")).await.unwrap();
    assert!(passwords.makes(&hash));
    for (_, stored) in VECTORS {
        assert!(!passwords.makes(&secret(stored)), "{stored}");
    }
    assert!(!passwords.makes(&secret("no hash at all")));
}

#[tokio::test]
async fn a_full_queue_refuses_at_once() {
    let slow = Cost {
        memory_kib: 64 * 1024,
        iterations: 2,
        parallelism: 1,
    };
    let passwords = passwords(slow, 1);
    let (_, asked) = futures_util::future::join(
        passwords.hash(secret("one")),
        futures_util::future::join_all((0..8).map(|_| passwords.hash(secret("more")))),
    )
    .await;
    assert!(asked.iter().any(|asked| matches!(asked, Err(PasswordError::Busy))));
}

#[tokio::test]
async fn lengths_are_counted_in_utf16_units() {
    let passwords = passwords(CHEAP, 1);
    assert_eq!(passwords.check_new("1234567"), Err(Unacceptable::TooShort));
    assert_eq!(passwords.check_new("12345678"), Ok(()));
    // Two units each.
    assert_eq!(passwords.check_new("🦀🦀🦀🦀"), Ok(()));
    assert_eq!(passwords.check_new(&"🦀".repeat(64)), Ok(()));
    assert_eq!(passwords.check_new(&"🦀".repeat(65)), Err(Unacceptable::TooLong));
}
