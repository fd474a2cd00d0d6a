//! Passwords that were hashed elsewhere: they sign in, and from then on are hashed as ours.

use serde_json::json;

use crate::harness::Gateway;

const EMAIL: &str = "ada@example.com";
const WORD: &str = "correct horse battery";

/// Made of [`WORD`] by better-auth 1.7.7, Python's bcrypt, Django 5.2, and the reference implementation of Argon2.
const HASHES: [&str; 9] = [
    "18e319aa276adfb8259f941c57f722a3:7ff496ca6b1027e76e2a1a33f3fe569f130ce0ec0e71829f9db02317ccce10cfa9d3a6ddc839a5d6\
     a5b5d141031fdc10bf31b71ef57c60cba327472d8179850f",
    "$2a$05$fYNKhEiYX5.4HPLdrcbeZurVIjINngvm1Z5VKauxUKcl8B94BBoea",
    "$2b$05$icoS/Ut3z3hNv.OH1Yd8yOmTDnEsyWqB5SRtg2aZSfR9e2OlxNYSa",
    "$2y$04$drattOnGaAQL744Gehc.nOrKw3.8Gv0ssx5.5XbLQyeF18P5y2TOC",
    "pbkdf2_sha256$1000$Zd5cF2Wqk1x0$L8EtYBZjbGD0DyBfnPOQFHSMtCYhvpEFJkYtk1gp54Q=",
    "pbkdf2_sha1$1000$Zd5cF2Wqk1x0$anCKWp+qrI2c79V8xf6ofdOYfNM=",
    "$argon2i$v=19$m=64,t=2,p=2$c2FsdHNhbHRzYWx0c2FsdA$KFdWVXz6gjiLMxeokEK4q5KIUAwHDRao",
    "$argon2d$v=19$m=64,t=2,p=2$c2FsdHNhbHRzYWx0c2FsdA$Y9mYeRackaQOQfajXthQa6sfy62wtsL1",
    "argon2$argon2id$v=19$m=64,t=1,p=1$c29tZXNhbHRzb21lc2FsdA$wZeUqErRQM9fr7+3IJVQyFsb5QPhYeqkXwNGZgBH/L4",
];

#[tokio::test]
async fn a_password_hashed_elsewhere_signs_in_and_is_hashed_anew() {
    let gateway = Gateway::start().await;
    gateway.verified(EMAIL).await;
    for hash in HASHES {
        store(&gateway, hash).await;

        let wrong = sign_in(&gateway, "correct horse batterz").await;
        assert_eq!(wrong, 401, "{hash}");
        assert_eq!(stored(&gateway).await, hash, "a wrong password changes nothing");

        assert_eq!(sign_in(&gateway, WORD).await, 200, "{hash}");
        let anew = stored(&gateway).await;
        assert!(anew.starts_with("$argon2id$v=19$m=64,t=1,p=1$"), "{hash} became {anew}");

        assert_eq!(sign_in(&gateway, WORD).await, 200, "and again: {hash}");
        assert_eq!(stored(&gateway).await, anew, "once is enough");
        assert_eq!(sign_in(&gateway, "correct horse batterz").await, 401);
    }
}

#[tokio::test]
async fn what_nobody_can_read_is_nobodys_password() {
    let gateway = Gateway::start().await;
    gateway.verified(EMAIL).await;
    for hash in [
        "",
        WORD,
        "$2b$31$icoS/Ut3z3hNv.OH1Yd8yOmTDnEsyWqB5SRtg2aZSfR9e2OlxNYSa",
        "md5:x",
    ] {
        store(&gateway, hash).await;
        assert_eq!(sign_in(&gateway, WORD).await, 401, "{hash}");
        assert_eq!(stored(&gateway).await, hash);
    }
}

/// better-auth takes a password for the same however its characters are composed; so it stays when it is hashed anew.
#[tokio::test]
async fn a_password_from_better_auth_is_the_same_on_every_keyboard() {
    let gateway = Gateway::start().await;
    gateway.verified(EMAIL).await;
    let spellings = ["ﬁancé①", "fiancé1", "fiance\u{301}1"];
    for first in spellings {
        // Made of the first by better-auth 1.7.7.
        let hash = "f1dd96a36ea2b5eccae15d52585dcdee:809886b33e55493b47fa2fdb219c1e7f47de6cc19c67e8dcefb6c6990bcbe82e\
                    104ee1540416d5cffb534be598a043f5774458f543af5a01e835a4fe2b88bd22";
        store(&gateway, hash).await;
        assert_eq!(sign_in(&gateway, first).await, 200);
        assert!(stored(&gateway).await.starts_with("$argon2id$"));
        for typed in spellings {
            assert_eq!(sign_in(&gateway, typed).await, 200, "{typed} after {first}");
        }
        assert_eq!(sign_in(&gateway, "fiance1").await, 401);
    }
}

/// To compare would take as long as that hash does, which no other address's sign-up takes, and nobody counts the tries.
#[tokio::test]
async fn a_sign_up_compares_with_no_hash_from_elsewhere() {
    let gateway = Gateway::start().await;
    let sign_up = json!({ "name": "Ada", "email": EMAIL, "password": WORD });
    assert_eq!(
        gateway.post("/api/auth/sign-up/email").json(&sign_up).await.status(),
        200
    );
    for hash in HASHES {
        store(&gateway, hash).await;
        assert_eq!(
            gateway.post("/api/auth/sign-up/email").json(&sign_up).await.status(),
            200
        );
    }
    // Had it been found to be right, the link would be for it.
    let all = "SELECT count(*) FROM one_time_tokens";
    assert_eq!(gateway.db().count(all).await, 10);
    let ours = "SELECT count(*) FROM one_time_tokens WHERE password_hash LIKE '$argon2id$v=19$m=64,t=1,p=1$%'";
    assert_eq!(gateway.db().count(ours).await, 10);
}

async fn sign_in(gateway: &Gateway, password: &str) -> u16 {
    let body = json!({ "email": EMAIL, "password": password });
    gateway.post("/api/auth/sign-in/email").json(&body).await.status()
}

async fn store(gateway: &Gateway, hash: &str) {
    let client = gateway.db().client().await;
    let changed = client.execute("UPDATE accounts SET password_hash = $1", &[&hash]).await;
    assert_eq!(changed.unwrap(), 1);
}

async fn stored(gateway: &Gateway) -> String {
    let client = gateway.db().client().await;
    let row = client.query_one("SELECT password_hash FROM accounts", &[]).await;
    row.unwrap().get(0)
}
