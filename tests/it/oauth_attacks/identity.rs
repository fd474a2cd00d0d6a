//! Who somebody is, from what a provider says of them.

use serde_json::{Value, json};

use super::{ADA, ADA_SUB, EVE_SUB, World, person};
use crate::harness::{Browser, people::PASSWORD, provider::Kind};

/// Someone whose address the provider speaks of like this.
fn claiming(sub: &str, email_verified: &Value) -> Value {
    let mut claims = person(sub, ADA);
    claims["email_verified"] = email_verified.clone();
    claims.as_object_mut().unwrap().remove("xms_edov");
    claims
}

/// OAUTH-06: whatever is not plainly a yes.
#[tokio::test]
async fn oauth_06_an_address_that_is_not_proven_opens_nobodys_account() {
    for in_id_token in [true, false] {
        let world = World::of(Kind::Oidc, json!({ "claims_in_id_token": in_id_token }), "").await;
        let ada = world.gateway.signed_in(ADA).await;
        for said in [
            json!(false),
            json!("false"),
            json!(1),
            json!("1"),
            json!("yes"),
            json!("TRUE"),
            json!([true]),
            json!({}),
            Value::Null,
        ] {
            world.provider.admit(claiming(EVE_SUB, &said)).await;
            world.is_refused(EVE_SUB, "account_not_linked", &said.to_string()).await;
        }
        let mut silent = claiming(EVE_SUB, &Value::Null);
        silent.as_object_mut().unwrap().remove("email_verified");
        world.provider.admit(silent).await;
        world.is_refused(EVE_SUB, "account_not_linked", "nothing").await;
        // Nothing is left of any of it, and Ada is in as she was.
        let left = "accounts WHERE provider_id = 'there'";
        assert_eq!((world.count("users").await, world.count(left).await), (1, 0));
        assert_eq!(world.gateway.get("/api/x").with(&ada).await.status(), 200);

        // A yes is one also as a text.
        world.provider.admit(claiming(ADA_SUB, &json!("true"))).await;
        world.is_let_in(ADA_SUB, ADA, "\"true\"").await;
        assert_eq!(world.count("users").await, 1);
    }
}

/// OAUTH-06, at a provider where every tenant's admin enters addresses.
#[tokio::test]
async fn an_address_of_any_microsoft_tenant_opens_nobodys_account() {
    let world = World::of(Kind::Microsoft, json!({}), "").await;
    world.gateway.signed_in(ADA).await;
    for more in [
        json!({}),
        json!({ "email_verified": true }),
        json!({ "xms_edov": false }),
        json!({ "preferred_username": ADA, "upn": ADA }),
        json!({ "verified_primary_email": ["eve@example.com"] }),
    ] {
        let mut claims = claiming(EVE_SUB, &Value::Null);
        claims["tid"] = json!("11111111-2222-3333-4444-555555555555");
        claims
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        world.provider.admit(claims).await;
        world.is_refused(EVE_SUB, "account_not_linked", &more.to_string()).await;
    }
    assert_eq!(world.count("users").await, 1);
}

/// OAUTH-07: an address that changes hands at the provider, as it does in companies, takes no account along.
#[tokio::test]
async fn oauth_07_another_subject_with_the_same_address_does_not_open_the_first_ones_account() {
    let world = World::new().await;
    world.is_let_in(ADA_SUB, ADA, "the first").await;
    world.provider.admit(person(EVE_SUB, ADA)).await;
    world.is_refused(EVE_SUB, "account_not_linked", "the next").await;
    assert_eq!((world.count("users").await, world.count("accounts").await), (1, 1));
    // Also when the first has no such address there any more.
    world.provider.admit(person(ADA_SUB, "ada.lovelace@example.com")).await;
    world.is_refused(EVE_SUB, "account_not_linked", "the next").await;
    world.is_let_in(ADA_SUB, ADA, "the first, by the subject").await;
}

/// OAUTH-07: the same subject of another issuer, as when a name in the configuration is given to another provider.
#[tokio::test]
async fn the_same_subject_of_another_issuer_does_not_open_the_first_ones_account() {
    let first = World::new().await;
    first.is_let_in(ADA_SUB, ADA, "at the first").await;
    let second = World::new().await;
    second.provider.admit(person(ADA_SUB, "eve@example.com")).await;
    let move_over = "UPDATE accounts SET issuer = 'https://first.example' WHERE provider_id = 'there'";
    second.is_let_in(ADA_SUB, "eve@example.com", "at the second").await;
    second.gateway.db().run(move_over).await;
    second
        .is_refused(ADA_SUB, "unable_to_link_account", "of another issuer")
        .await;
    assert_eq!(second.count("user_sessions").await, 1);
}

/// OAUTH-08: Eve signs up with Ada's address first. Ada is not led into what Eve has the password of.
#[tokio::test]
async fn oauth_08_who_signed_up_with_somebody_elses_address_first_captures_nobody() {
    let world = World::new().await;
    let eve = Browser::default();
    let body = json!({ "name": "Eve", "email": ADA, "password": PASSWORD });
    let answer = eve.post(&world.gateway, "/api/auth/sign-up/email", &body).await;
    assert_eq!(answer.status(), 200, "{}", answer.text());
    world.is_refused(ADA_SUB, "account_not_linked", "Ada").await;
    let left = "accounts WHERE provider_id = 'there'";
    assert_eq!(
        (world.count("users WHERE email_verified").await, world.count(left).await),
        (0, 0)
    );
}

#[tokio::test]
async fn an_address_that_changes_its_case_is_the_same_persons() {
    for kind in [Kind::Oidc, Kind::Google, Kind::GitHub, Kind::Microsoft, Kind::Apple] {
        let world = World::of(kind, json!({}), "").await;
        for email in [ADA, "ADA@Example.COM", "Ada@example.com"] {
            world.provider.admit(person(ADA_SUB, email)).await;
            world.is_let_in(ADA_SUB, ADA, &format!("{kind:?}: {email}")).await;
        }
        assert_eq!(
            (world.count("users").await, world.count("accounts").await),
            (1, 1),
            "{kind:?}"
        );
    }
    // Nor does it make a second one of who signed up here.
    let world = World::new().await;
    world.gateway.verified(ADA).await;
    world.provider.admit(person(ADA_SUB, "ADA@EXAMPLE.COM")).await;
    world.is_let_in(ADA_SUB, ADA, "who signed up here").await;
    assert_eq!(world.count("users").await, 1);
}

/// Look-alikes are not normalised into anybody's address.
#[tokio::test]
async fn an_address_that_only_looks_like_somebodys_opens_nothing() {
    let world = World::new().await;
    world.gateway.verified(ADA).await;
    for email in [
        "ada\u{ff20}example.com",
        "\u{0430}da@example.com",
        "ada@ex\u{0430}mple.com",
        "ada@example.com\u{0}",
        "ada@example.com ",
        "\"ada\"@example.com",
        "ada@example.com,eve@example.com",
        "ADA\u{2024}@example.com",
    ] {
        world.provider.admit(person(EVE_SUB, email)).await;
        let (browser, _) = world.arrive(EVE_SUB).await;
        let who = browser.who(&world.gateway).await;
        assert_ne!(who["user"]["email"], ADA, "{email:?}");
    }
    assert_eq!(
        world
            .count("accounts JOIN users ON users.id = user_id AND email = 'ada@example.com' AND provider_id = 'there'")
            .await,
        0
    );
}

/// OpenID Connect Core 1.0, section 5.3.2.
#[tokio::test]
async fn a_userinfo_answer_about_somebody_else_gets_nobody_in() {
    let world = World::of(Kind::Oidc, json!({ "claims_in_id_token": false }), "").await;
    for fault in [
        json!({ "set": { "sub": EVE_SUB } }),
        json!({ "set": { "sub": "" } }),
        json!({ "set": { "sub": null } }),
        json!({ "set": { "sub": 1001 } }),
        json!({ "remove": ["sub"] }),
    ] {
        world.provider.fault("userinfo", fault.clone()).await;
        world
            .is_refused(ADA_SUB, "unable_to_get_user_info", &fault.to_string())
            .await;
    }
    world.provider.lift("userinfo").await;
    world.is_let_in(ADA_SUB, ADA, "about herself").await;
    assert_eq!(world.count("users").await, 1);
}

/// The limit is on what is read, so nothing that size is ever held.
#[tokio::test]
async fn a_profile_of_a_megabyte_gets_nobody_in_and_does_no_harm() {
    let megabyte = "x".repeat(1 << 20);
    for (kind, options, error) in [
        (Kind::Oidc, json!({}), "invalid_code"),
        (
            Kind::Oidc,
            json!({ "claims_in_id_token": false }),
            "unable_to_get_user_info",
        ),
        (Kind::GitHub, json!({}), "unable_to_get_user_info"),
    ] {
        let world = World::of(kind, options, "").await;
        let mut claims = person(ADA_SUB, ADA);
        claims["name"] = json!(megabyte);
        world.provider.admit(claims).await;
        world.is_refused(ADA_SUB, error, &format!("{kind:?}")).await;
        world.provider.admit(person(ADA_SUB, ADA)).await;
        world.is_let_in(ADA_SUB, ADA, &format!("{kind:?}")).await;
    }
}

/// What gets in of a profile is what an account can hold, and what upstreams and mails can be told.
#[tokio::test]
async fn a_profile_of_strange_types_and_lengths_is_cut_down_to_what_it_may_be() {
    for kind in [Kind::Oidc, Kind::GitHub] {
        let world = World::of(kind, json!({ "claims_in_id_token": false }), "").await;
        let mut claims = person(ADA_SUB, ADA);
        let name = format!("A\r\nX-User-Id: 1\u{0}{}", "ä".repeat(10_000));
        claims["name"] = json!(name);
        claims["picture"] = json!("javascript:alert(1)");
        claims["avatar_url"] = json!("javascript:alert(1)");
        world.provider.admit(claims).await;
        let (browser, end) = world.arrive(ADA_SUB).await;
        assert_eq!(end, "/home");
        let who = browser.who(&world.gateway).await;
        let name = who["user"]["name"].as_str().unwrap();
        assert!(
            name.chars().count() <= 256 && !name.contains(char::is_control),
            "{name:?}"
        );
        assert_eq!(who["user"]["image"], Value::Null);
        assert_eq!(browser.get(&world.gateway, "/api/me").await.status(), 200);
    }
    let world = World::of(Kind::Oidc, json!({ "claims_in_id_token": false }), "").await;
    for more in [
        json!({ "name": 7, "picture": { "a": 1 } }),
        json!({ "name": ["Ada"], "picture": null }),
        json!({ "address": (0..100).fold(json!(1), |deeper, _| json!([deeper])) }),
    ] {
        let mut claims = person(ADA_SUB, ADA);
        claims
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        world.provider.admit(claims).await;
        world.is_let_in(ADA_SUB, ADA, &more.to_string()).await;
    }
    for email in [
        json!(7),
        json!([ADA]),
        json!({ "a": ADA }),
        json!("no address"),
        Value::Null,
    ] {
        let mut claims = person(EVE_SUB, ADA);
        claims["email"] = email.clone();
        world.provider.admit(claims).await;
        world.is_refused(EVE_SUB, "email_not_found", &email.to_string()).await;
    }
    assert_eq!(world.count("users").await, 1);
}
