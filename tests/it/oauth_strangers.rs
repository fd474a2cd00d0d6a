//! Who reads a mail need not be who has the account: what a stranger can make of somebody's address at a provider, and
//! what is written down of it.

use serde_json::json;

use crate::harness::{
    Browser, Gateway, Setup,
    browser::param,
    client::Response,
    people::PASSWORD,
    provider::{self, Client, Kind, Provider},
};

const ADA: &str = "ada@example.com";
const EVE: &str = "eve@example.com";
const VERIFY: &str = "/api/auth/send-verification-email";

async fn world(kind: Kind, toml: &str) -> (Provider, Client, Gateway) {
    let provider = Provider::start(kind, json!({})).await;
    let client = provider.client("there").await;
    let setup = Setup::default().with(&client.toml()).with(toml);
    (provider, client, setup.clock(&provider::clock()).start().await)
}

/// Where people use the site before they have shown that they read their mail.
async fn unverified_world() -> (Provider, Client, Gateway) {
    world(Kind::Oidc, "[auth.email_verification]\nrequired = false\n").await
}

#[track_caller]
fn error_of(answer: &Response) -> String {
    assert_eq!(answer.status(), 302, "{}", answer.text());
    let location = answer.head.one("location").unwrap();
    param(location, "error").unwrap_or_else(|| panic!("no error: {location}"))
}

async fn open(browser: &Browser, gateway: &Gateway, token: &str) -> Response {
    browser
        .get(gateway, &format!("/api/auth/verify-email?token={token}"))
        .await
}

async fn signed_in(gateway: &Gateway, email: &str) -> Browser {
    gateway.verified(email).await;
    let browser = Browser::default();
    let body = json!({ "email": email, "password": PASSWORD });
    let answer = browser.post(gateway, "/api/auth/sign-in/email", &body).await;
    assert_eq!(answer.status(), 200, "{}", answer.text());
    browser
}

async fn count(gateway: &Gateway, what: &str) -> i64 {
    gateway.db().count(&format!("SELECT count(*) FROM {what}")).await
}

/// Changes the address of whoever is signed in, up to the mail to the new one; the token in it.
async fn change_of_address(browser: &Browser, gateway: &Gateway, old: &str, new: &str) -> String {
    let body = json!({ "newEmail": new });
    let asked = browser.post(gateway, "/api/auth/change-email", &body).await;
    assert_eq!(asked.status(), 200, "{}", asked.text());
    let approve = loop {
        let mail = gateway.mailbox().next_to(old).await;
        if mail.text.contains(new) {
            break mail.token();
        }
    };
    assert_eq!(open(browser, gateway, &approve).await.status(), 200);
    gateway.mailbox().next_to(new).await.token()
}

#[tokio::test]
async fn a_link_that_the_owner_asks_for_does_not_hand_their_address_to_a_stranger_who_is_in() {
    let (provider, client, gateway) = unverified_world().await;
    provider.person("6666", ADA, false).await;
    let (eve, ada) = (Browser::default(), Browser::default());
    eve.sign_in_at(&gateway, &client, "6666").await;
    assert_eq!(eve.who(&gateway).await["user"]["emailVerified"], json!(false));

    ada.post(&gateway, VERIFY, &json!({ "email": ADA })).await;
    let token = gateway.mailbox().next_to(ADA).await.token();
    assert_eq!(open(&ada, &gateway, &token).await.code(), "INVALID_TOKEN");
    assert!(ada.who(&gateway).await.is_null());
    assert_eq!(eve.who(&gateway).await["user"]["emailVerified"], json!(false));
}

#[tokio::test]
async fn who_came_by_an_unproven_address_verifies_it_in_their_own_session_and_keeps_the_account() {
    let (provider, client, gateway) = unverified_world().await;
    provider.person("1001", ADA, false).await;
    let ada = Browser::default();
    ada.sign_in_at(&gateway, &client, "1001").await;
    ada.post(&gateway, VERIFY, &json!({ "email": ADA })).await;
    let token = gateway.mailbox().next_to(ADA).await.token();
    assert_eq!(open(&ada, &gateway, &token).await.status(), 200);
    assert_eq!(ada.who(&gateway).await["user"]["emailVerified"], json!(true));
    assert_eq!(count(&gateway, "accounts WHERE provider_id = 'there'").await, 1);
}

#[tokio::test]
async fn an_address_that_a_mail_scanner_gave_to_a_stranger_leads_its_owner_nowhere_until_a_reset() {
    let (provider, client, gateway) = world(Kind::Oidc, "").await;
    let eve = signed_in(&gateway, EVE).await;
    let token = change_of_address(&eve, &gateway, EVE, ADA).await;
    // A scanner, which has no cookies.
    assert_eq!(open(&Browser::default(), &gateway, &token).await.status(), 200);
    assert_eq!(eve.who(&gateway).await["user"]["email"], json!(ADA));

    provider.person("1001", ADA, true).await;
    let ada = Browser::default();
    let answer = ada.sign_in_at(&gateway, &client, "1001").await;
    assert_eq!(error_of(&answer), "account_not_linked");
    assert!(ada.who(&gateway).await.is_null());

    let ask = json!({ "email": ADA });
    ada.post(&gateway, "/api/auth/request-password-reset", &ask).await;
    let token = gateway.mailbox().next_to(ADA).await.token();
    let choose = json!({ "token": token, "newPassword": "another horse battery staple" });
    let chosen = ada.post(&gateway, "/api/auth/reset-password", &choose).await;
    assert_eq!(chosen.status(), 200, "{}", chosen.text());
    assert!(eve.who(&gateway).await.is_null());
    ada.sign_in_at(&gateway, &client, "1001").await;
    assert_eq!(ada.who(&gateway).await["user"]["email"], json!(ADA));
}

#[tokio::test]
async fn a_reset_of_an_address_in_doubt_takes_a_strangers_account_at_a_provider_away() {
    let (provider, client, gateway) = world(Kind::Oidc, "").await;
    provider.person("6666", EVE, true).await;
    let eve = Browser::default();
    eve.sign_in_at(&gateway, &client, "6666").await;
    let token = change_of_address(&eve, &gateway, EVE, ADA).await;
    open(&Browser::default(), &gateway, &token).await;
    let ask = json!({ "email": ADA });
    gateway.post("/api/auth/request-password-reset").json(&ask).await;
    let token = gateway.mailbox().next_to(ADA).await.token();
    let choose = json!({ "token": token, "newPassword": PASSWORD });
    gateway.post("/api/auth/reset-password").json(&choose).await;
    assert_eq!(count(&gateway, "accounts WHERE provider_id = 'there'").await, 0);
}

#[tokio::test]
async fn an_address_is_beyond_doubt_once_its_user_opens_the_link() {
    let (provider, client, gateway) = world(Kind::Oidc, "").await;
    let ada = signed_in(&gateway, "ada@old.example").await;
    let token = change_of_address(&ada, &gateway, "ada@old.example", ADA).await;
    // Her scanner is faster than she is.
    open(&Browser::default(), &gateway, &token).await;
    assert_eq!(count(&gateway, "users WHERE address_in_doubt").await, 1);
    assert_eq!(open(&ada, &gateway, &token).await.status(), 200);
    provider.person("1001", ADA, true).await;
    let browser = Browser::default();
    browser.sign_in_at(&gateway, &client, "1001").await;
    assert_eq!(browser.who(&gateway).await["user"]["email"], json!(ADA));
}

#[tokio::test]
async fn an_address_is_beyond_doubt_once_a_provider_of_its_user_proves_it() {
    let (provider, client, gateway) = world(Kind::Oidc, "").await;
    provider.person("1001", "ada@old.example", true).await;
    let ada = Browser::default();
    ada.sign_in_at(&gateway, &client, "1001").await;
    let token = change_of_address(&ada, &gateway, "ada@old.example", ADA).await;
    open(&Browser::default(), &gateway, &token).await;
    ada.sign_in_at(&gateway, &client, "1001").await;
    assert_eq!(count(&gateway, "users WHERE address_in_doubt").await, 1);
    provider.person("1001", ADA, true).await;
    ada.sign_in_at(&gateway, &client, "1001").await;
    assert_eq!(count(&gateway, "users WHERE address_in_doubt").await, 0);
}

#[tokio::test]
async fn who_loses_a_password_to_a_proven_address_is_told() {
    let (provider, client, gateway) = world(Kind::Oidc, "").await;
    provider.person("1001", ADA, true).await;
    let ada = Browser::default();
    ada.sign_in_at(&gateway, &client, "1001").await;
    // As an import leaves it.
    gateway
        .db()
        .run(
            "INSERT INTO accounts (id, user_id, provider_id, account_id, password_hash, password_set_at, created_at,
                 updated_at)
             SELECT gen_random_uuid(), id, 'credential', id::text, 'x', now(), now(), now() FROM users;
             UPDATE users SET email_verified = false",
        )
        .await;
    ada.sign_in_at(&gateway, &client, "1001").await;
    assert_eq!(ada.who(&gateway).await["user"]["emailVerified"], json!(true));
    let mail = gateway.mailbox().next_to(ADA).await;
    assert_eq!(mail.subject, "Other ways to sign in were removed");
    let actions = async |action: &str| count(&gateway, &format!("audit_log WHERE action = '{action}'")).await;
    assert_eq!(
        (actions("remove-password").await, actions("unlink-account").await),
        (1, 0)
    );
}

#[tokio::test]
async fn a_name_that_means_another_issuer_today_is_no_way_in_and_gets_no_tokens() {
    let (provider, client, gateway) = world(Kind::GitHub, "").await;
    provider.person("1001", ADA, true).await;
    let ada = Browser::default();
    ada.sign_in_at(&gateway, &client, "1001").await;
    // From before the provider was one of the company's own.
    gateway
        .db()
        .run(
            "INSERT INTO accounts (id, user_id, provider_id, account_id, issuer, created_at, updated_at)
             SELECT gen_random_uuid(), id, 'there', '7', 'https://github.com', now(), now() FROM users",
        )
        .await;
    let before = json!({ "providerId": "there", "accountId": "7" });
    let asked = ada.post(&gateway, "/api/auth/get-access-token", &before).await;
    assert_eq!(asked.code(), "PROVIDER_NOT_SUPPORTED");
    let today = json!({ "providerId": "there", "accountId": "1001" });
    let asked = ada.post(&gateway, "/api/auth/get-access-token", &today).await;
    assert_eq!(asked.status(), 200, "{}", asked.text());
    let unlinked = ada.post(&gateway, "/api/auth/unlink-account", &today).await;
    assert_eq!(unlinked.code(), "FAILED_TO_UNLINK_LAST_ACCOUNT");
}

#[tokio::test]
async fn a_token_that_no_secret_opens_is_not_handed_out_as_an_empty_one() {
    let (provider, client, gateway) = world(Kind::Oidc, "").await;
    provider.person("1001", ADA, true).await;
    let ada = Browser::default();
    ada.sign_in_at(&gateway, &client, "1001").await;
    gateway
        .db()
        .run("UPDATE accounts SET access_token = '\\x00', refresh_token = NULL WHERE provider_id = 'there'")
        .await;
    let asked = ada
        .post(
            &gateway,
            "/api/auth/get-access-token",
            &json!({ "providerId": "there" }),
        )
        .await;
    assert_eq!(
        (asked.status(), asked.code()),
        (400, "FAILED_TO_GET_ACCESS_TOKEN".to_owned())
    );
}

#[tokio::test]
async fn what_ends_before_anybody_knows_who_came_is_in_the_audit_log() {
    let (provider, client, gateway) = world(Kind::Oidc, "").await;
    provider.person("1001", ADA, true).await;
    let start = json!({ "callbackURL": "/home" });
    let refused = async |action: &str, reason: &str| {
        let rows = format!("audit_log WHERE action = '{action}' AND outcome = 'refused' AND reason = '{reason}'");
        count(&gateway, &rows).await
    };
    let ada = Browser::default();
    let begin = async || ada.start(&gateway, client.name(), start.clone()).await;

    // First, since whoever has agreed once is not asked again.
    let back = ada.deny(&begin().await, "1001").await;
    ada.land(&gateway, &back).await;
    assert_eq!(refused("sign-in", "access_denied").await, 1);

    let back = ada.agree(&begin().await, "1001").await;
    Browser::default().land(&gateway, &back).await;
    assert_eq!(refused("sign-in", "state_mismatch").await, 1);

    let back = ada.agree(&begin().await, "1001").await;
    ada.land(&gateway, &back.with("iss", Some("https://elsewhere.example")))
        .await;
    assert_eq!(refused("sign-in", "issuer_mismatch").await, 1);

    let back = ada.agree(&begin().await, "1001").await;
    ada.land(&gateway, &back.with("code", Some("made-up"))).await;
    assert_eq!(refused("sign-in", "invalid_code").await, 1);

    let body = json!({ "provider": client.name(), "idToken": { "token": "made.up.token" } });
    ada.post(&gateway, "/api/auth/sign-in/social", &body).await;
    assert_eq!(refused("sign-in", "INVALID_TOKEN").await, 1);

    let grace = signed_in(&gateway, "grace@example.com").await;
    grace.post(&gateway, "/api/auth/link-social", &body).await;
    let rows = "audit_log AS a JOIN users AS u ON u.id = a.subject_id WHERE a.action = 'link-account'
        AND a.outcome = 'refused' AND a.reason = 'INVALID_TOKEN' AND u.email = 'grace@example.com'";
    assert_eq!(count(&gateway, rows).await, 1);
}
