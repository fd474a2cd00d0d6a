//! Whose account a provider's answer is: who comes in, who is linked, and what a stranger who was first keeps.

use serde_json::{Value, json};

use crate::harness::{
    Browser, Gateway, Setup,
    browser::param,
    client::Response,
    people::PASSWORD,
    provider::{self, Client, Kind, Provider},
};

const ADA: &str = "ada@example.com";

/// A provider and a gateway that is registered there.
async fn world() -> (Provider, Client, Gateway) {
    world_with("").await
}

async fn world_with(toml: &str) -> (Provider, Client, Gateway) {
    let provider = Provider::start(Kind::Oidc, json!({})).await;
    let client = provider.client("there").await;
    let setup = Setup::default().with(&client.toml()).with(toml);
    (provider, client, setup.clock(&provider::clock()).start().await)
}

/// With which error somebody was sent back.
#[track_caller]
fn error_of(answer: &Response) -> String {
    assert_eq!(answer.status(), 302, "{}", answer.text());
    let location = answer.head.one("location").unwrap();
    let url = if location.starts_with('/') {
        format!("http://app{location}")
    } else {
        location.to_owned()
    };
    param(&url, "error").unwrap_or_else(|| panic!("no error: {location}"))
}

async fn sign_up(browser: &Browser, gateway: &Gateway) {
    let body = json!({ "name": "Ada", "email": ADA, "password": PASSWORD });
    let answer = browser.post(gateway, "/api/auth/sign-up/email", &body).await;
    assert_eq!(answer.status(), 200, "{}", answer.text());
}

/// Opens a mailed link, by its token.
async fn open(browser: &Browser, gateway: &Gateway, token: &str) -> Response {
    browser
        .get(gateway, &format!("/api/auth/verify-email?token={token}"))
        .await
}

async fn accounts(gateway: &Gateway, provider: &str) -> i64 {
    let sql = format!("SELECT count(*) FROM accounts WHERE provider_id = '{provider}'");
    gateway.db().count(&sql).await
}

async fn is_verified(gateway: &Gateway) -> bool {
    let sql = format!("SELECT count(*) FROM users WHERE email = '{ADA}' AND email_verified");
    gateway.db().count(&sql).await == 1
}

#[tokio::test]
async fn a_proven_address_leads_into_the_account_that_has_it_verified_and_its_owner_is_told() {
    let (provider, client, gateway) = world().await;
    let ada = gateway.signed_in(ADA).await;
    // Providers spell addresses as people do.
    provider.person("1001", "Ada@Example.com", true).await;
    let browser = Browser::default();
    browser.sign_in_at(&gateway, &client, "1001").await;
    let who = browser.who(&gateway).await;
    assert_eq!(who["user"]["id"], json!(ada.id));
    loop {
        let mail = gateway.mailbox().next_to(ADA).await;
        if mail.subject == "A way to sign in was added" {
            break;
        }
    }
    // From now on it is the subject that counts.
    provider.person("1001", "somebody.else@example.com", false).await;
    let again = Browser::default();
    again.sign_in_at(&gateway, &client, "1001").await;
    assert_eq!(again.who(&gateway).await["user"]["id"], json!(ada.id));
    assert_eq!(again.who(&gateway).await["user"]["email"], json!(ADA));
    assert_eq!(
        gateway
            .db()
            .count("SELECT count(*) FROM audit_log WHERE action = 'sign-in' AND reason = 'there' AND outcome = 'done'")
            .await,
        2
    );
}

#[tokio::test]
async fn an_address_that_the_provider_does_not_prove_leads_nowhere() {
    let (provider, client, gateway) = world().await;
    gateway.signed_in(ADA).await;
    provider.person("6666", ADA, false).await;
    let eve = Browser::default();
    let answer = eve.sign_in_at(&gateway, &client, "6666").await;
    assert_eq!(error_of(&answer), "account_not_linked");
    assert!(eve.who(&gateway).await.is_null());
    assert_eq!(accounts(&gateway, "there").await, 0);
}

#[tokio::test]
async fn an_address_that_changes_hands_at_the_provider_does_not_open_its_first_owners_account() {
    let (provider, client, gateway) = world_with("[auth.account]\nlink_by_email = false\n").await;
    provider.person("1001", ADA, true).await;
    Browser::default().sign_in_at(&gateway, &client, "1001").await;
    provider.person("1002", ADA, true).await;
    let heir = Browser::default();
    let answer = heir.sign_in_at(&gateway, &client, "1002").await;
    assert_eq!(error_of(&answer), "account_not_linked");
    assert!(heir.who(&gateway).await.is_null());
}

#[tokio::test]
async fn an_account_of_a_stranger_who_signed_up_first_captures_nobody() {
    let (provider, client, gateway) = world().await;
    let (eve, ada) = (Browser::default(), Browser::default());
    sign_up(&eve, &gateway).await;
    provider.person("1001", ADA, true).await;
    let answer = ada.sign_in_at(&gateway, &client, "1001").await;
    assert_eq!(error_of(&answer), "account_not_linked");
    assert!(ada.who(&gateway).await.is_null());
    assert_eq!(accounts(&gateway, "there").await, 0);
    assert!(!is_verified(&gateway).await);
}

#[tokio::test]
async fn who_came_by_an_unproven_address_gets_in_once_the_mail_was_opened_in_the_same_browser() {
    let (provider, client, gateway) = world().await;
    provider.person("1001", ADA, false).await;
    let (here, elsewhere) = (Browser::default(), Browser::default());
    let answer = here.sign_in_at(&gateway, &client, "1001").await;
    assert_eq!(error_of(&answer), "email_not_verified");
    let token = gateway.mailbox().next_to(ADA).await.token();

    // The owner of the address, who reads a mail that a stranger caused.
    assert_eq!(open(&elsewhere, &gateway, &token).await.code(), "INVALID_TOKEN");
    let body = json!({ "email": ADA });
    elsewhere
        .post(&gateway, "/api/auth/send-verification-email", &body)
        .await;
    let asked_elsewhere = gateway.mailbox().next_to(ADA).await.token();
    let refused = open(&elsewhere, &gateway, &asked_elsewhere).await;
    assert_eq!(refused.code(), "INVALID_TOKEN");
    assert!(!is_verified(&gateway).await);

    assert_eq!(open(&here, &gateway, &token).await.status(), 200);
    assert_eq!(here.who(&gateway).await["user"]["emailVerified"], json!(true));
    assert_eq!(accounts(&gateway, "there").await, 1);
    let again = Browser::default();
    again.sign_in_at(&gateway, &client, "1001").await;
    assert_eq!(again.who(&gateway).await["user"]["email"], json!(ADA));
}

#[tokio::test]
async fn a_link_that_is_asked_for_again_where_they_came_from_the_provider_is_as_good() {
    let (provider, client, gateway) = world().await;
    provider.person("1001", ADA, false).await;
    let here = Browser::default();
    here.sign_in_at(&gateway, &client, "1001").await;
    gateway.mailbox().next_to(ADA).await;
    let body = json!({ "email": ADA });
    here.post(&gateway, "/api/auth/send-verification-email", &body).await;
    let token = gateway.mailbox().next_to(ADA).await.token();
    assert_eq!(open(&here, &gateway, &token).await.status(), 200);
    assert_eq!(here.who(&gateway).await["user"]["emailVerified"], json!(true));
}

#[tokio::test]
async fn a_stranger_who_came_by_an_unproven_address_loses_it_to_the_owners_sign_up() {
    let (provider, client, gateway) = world().await;
    provider.person("6666", ADA, false).await;
    let (eve, ada) = (Browser::default(), Browser::default());
    eve.sign_in_at(&gateway, &client, "6666").await;
    let eves = gateway.mailbox().next_to(ADA).await.token();

    sign_up(&ada, &gateway).await;
    let token = gateway.mailbox().next_to(ADA).await.token();
    assert_eq!(
        open(&Browser::default(), &gateway, &token).await.code(),
        "INVALID_TOKEN"
    );
    assert_eq!(open(&ada, &gateway, &token).await.status(), 200);
    assert!(ada.who(&gateway).await["user"]["emailVerified"] == json!(true));
    assert_eq!(gateway.sign_in(ADA).await.status(), 200, "the owner's password");
    assert_eq!(accounts(&gateway, "there").await, 0);

    open(&eve, &gateway, &eves).await;
    assert!(eve.who(&gateway).await.is_null());
    let answer = eve.sign_in_at(&gateway, &client, "6666").await;
    assert_eq!(error_of(&answer), "account_not_linked");
}

#[tokio::test]
async fn a_stranger_who_came_by_an_unproven_address_loses_it_to_the_owners_reset() {
    let (provider, client, gateway) = world().await;
    provider.person("6666", ADA, false).await;
    let eve = Browser::default();
    eve.sign_in_at(&gateway, &client, "6666").await;
    gateway.mailbox().next_to(ADA).await;

    let ask = json!({ "email": ADA });
    gateway.post("/api/auth/request-password-reset").json(&ask).await;
    let token = gateway.mailbox().next_to(ADA).await.token();
    let choose = json!({ "token": token, "newPassword": PASSWORD });
    let chosen = gateway.post("/api/auth/reset-password").json(&choose).await;
    assert_eq!(chosen.status(), 200, "{}", chosen.text());
    assert_eq!(accounts(&gateway, "there").await, 0);
    let answer = eve.sign_in_at(&gateway, &client, "6666").await;
    assert_eq!(error_of(&answer), "account_not_linked");
}

#[tokio::test]
async fn an_address_that_the_provider_comes_to_prove_is_verified_and_nothing_else_leads_in() {
    let (provider, client, gateway) = world().await;
    provider.person("1001", ADA, false).await;
    let ada = Browser::default();
    ada.sign_in_at(&gateway, &client, "1001").await;
    // As an import may leave it: a password of whoever was first.
    gateway
        .db()
        .run(
            "INSERT INTO accounts (id, user_id, provider_id, account_id, password_hash, password_set_at, created_at,
                 updated_at)
             SELECT gen_random_uuid(), id, 'credential', id::text, 'x', now(), now(), now() FROM users",
        )
        .await;
    provider.person("1001", ADA, true).await;
    ada.sign_in_at(&gateway, &client, "1001").await;
    assert_eq!(ada.who(&gateway).await["user"]["emailVerified"], json!(true));
    assert_eq!(accounts(&gateway, "credential").await, 0);
    assert_eq!(accounts(&gateway, "there").await, 1);
}

#[tokio::test]
async fn two_callbacks_of_one_new_person_at_once_make_one_user() {
    let (provider, client, gateway) = world().await;
    provider.person("1001", ADA, true).await;
    let (one, two) = (Browser::default(), Browser::default());
    let mut backs = Vec::new();
    for browser in [&one, &two] {
        let url = browser
            .start(&gateway, client.name(), json!({ "callbackURL": "/home" }))
            .await;
        backs.push(browser.agree(&url, "1001").await);
    }
    tokio::join!(one.land(&gateway, &backs[0]), two.land(&gateway, &backs[1]));
    let (one, two) = (one.who(&gateway).await, two.who(&gateway).await);
    assert_eq!(one["user"]["id"], two["user"]["id"]);
    assert_eq!(one["user"]["email"], json!(ADA));
    assert_eq!(gateway.db().count("SELECT count(*) FROM users").await, 1);
    assert_eq!(accounts(&gateway, "there").await, 1);
}

#[tokio::test]
async fn somebody_banned_or_not_wanted_does_not_come_in() {
    let (provider, client, gateway) = world_with("").await;
    provider.person("1001", ADA, true).await;
    Browser::default().sign_in_at(&gateway, &client, "1001").await;
    gateway.db().run("UPDATE users SET banned = true").await;
    let browser = Browser::default();
    let answer = browser.sign_in_at(&gateway, &client, "1001").await;
    assert_eq!(error_of(&answer), "BANNED_USER");
    assert!(browser.who(&gateway).await.is_null());

    // Another issuer's subject of the same name is somebody else.
    gateway
        .db()
        .run("UPDATE accounts SET issuer = 'https://elsewhere.example'; UPDATE users SET banned = false")
        .await;
    let answer = browser.sign_in_at(&gateway, &client, "1001").await;
    assert_eq!(error_of(&answer), "unable_to_link_account");

    let (provider, client, gateway) = world_with("[auth]\nsign_up = false\n").await;
    provider.person("1001", ADA, true).await;
    let answer = browser.sign_in_at(&gateway, &client, "1001").await;
    assert_eq!(error_of(&answer), "signup_disabled");
    assert_eq!(gateway.db().count("SELECT count(*) FROM users").await, 0);
}

/// Where a signed-in browser is sent for `link-social`.
async fn start_linking(browser: &Browser, gateway: &Gateway, client: &Client) -> String {
    let body = json!({ "provider": client.name(), "callbackURL": "/linked" });
    let answer = browser.post(gateway, "/api/auth/link-social", &body).await;
    assert_eq!(answer.status(), 200, "{}", answer.text());
    answer.json()["url"].as_str().unwrap().to_owned()
}

async fn signed_in(gateway: &Gateway, email: &str) -> Browser {
    gateway.verified(email).await;
    let browser = Browser::default();
    let body = json!({ "email": email, "password": PASSWORD });
    let answer = browser.post(gateway, "/api/auth/sign-in/email", &body).await;
    assert_eq!(answer.status(), 200, "{}", answer.text());
    browser
}

#[tokio::test]
async fn who_is_signed_in_links_an_account_with_their_address_and_no_other() {
    let (provider, client, gateway) = world().await;
    let ada = signed_in(&gateway, ADA).await;
    for (sub, email, verified, error) in [
        ("1", "other@example.com", true, Some("email_does_not_match")),
        ("2", ADA, false, Some("unable_to_link_account")),
        ("3", ADA, true, None),
        ("3", ADA, true, None),
    ] {
        provider.person(sub, email, verified).await;
        let url = start_linking(&ada, &gateway, &client).await;
        let back = Browser::default().agree(&url, sub).await;
        let answer = ada.land(&gateway, &back).await;
        match error {
            Some(error) => assert_eq!(error_of(&answer), error, "{sub}"),
            None => assert_eq!(answer.head.one("location"), Some("/linked"), "{sub}"),
        }
    }
    assert_eq!(accounts(&gateway, "there").await, 1);
    let listed = ada.get(&gateway, "/api/auth/list-accounts").await.json();
    let linked = listed
        .as_array()
        .unwrap()
        .iter()
        .find(|way| way["providerId"] == "there");
    let scopes = linked.unwrap()["scopes"].as_array().unwrap();
    assert!(scopes.contains(&json!("openid")), "{listed}");

    // It is Ada's, whoever asks.
    let grace = signed_in(&gateway, "grace@example.com").await;
    let url = start_linking(&grace, &gateway, &client).await;
    let back = Browser::default().agree(&url, "3").await;
    let answer = grace.land(&gateway, &back).await;
    assert_eq!(error_of(&answer), "account_already_linked_to_different_user");
}

#[tokio::test]
async fn nothing_is_linked_once_the_session_that_asked_has_ended() {
    let (provider, client, gateway) = world().await;
    let ada = signed_in(&gateway, ADA).await;
    provider.person("1001", ADA, true).await;
    let url = start_linking(&ada, &gateway, &client).await;
    let back = Browser::default().agree(&url, "1001").await;
    ada.post(&gateway, "/api/auth/sign-out", &json!({})).await;
    let answer = ada.land(&gateway, &back).await;
    assert_eq!(error_of(&answer), "unable_to_link_account");
    assert_eq!(accounts(&gateway, "there").await, 0);
}

#[tokio::test]
async fn an_account_at_a_provider_that_is_not_configured_is_no_way_in_to_be_left_with() {
    let (provider, client, gateway) = world().await;
    provider.person("1001", ADA, true).await;
    let ada = Browser::default();
    ada.sign_in_at(&gateway, &client, "1001").await;
    gateway
        .db()
        .run(
            "INSERT INTO accounts (id, user_id, provider_id, account_id, created_at, updated_at)
             SELECT gen_random_uuid(), id, 'gone', '7', now(), now() FROM users",
        )
        .await;
    let unlink = async |provider: &str| {
        let body = json!({ "providerId": provider });
        ada.post(&gateway, "/api/auth/unlink-account", &body).await
    };
    assert_eq!(unlink("there").await.code(), "FAILED_TO_UNLINK_LAST_ACCOUNT");
    let body = json!({ "newPassword": PASSWORD });
    let set = ada.post(&gateway, "/api/auth/set-password", &body).await;
    assert_eq!(set.status(), 200, "{}", set.text());
    assert_eq!(unlink("there").await.status(), 200);
    assert_eq!(accounts(&gateway, "there").await, 0);
    assert_eq!(gateway.sign_in(ADA).await.status(), 200);
}

#[tokio::test]
async fn an_app_signs_in_and_links_with_an_id_token_of_its_own() {
    let provider = Provider::start(Kind::Google, json!({})).await;
    let client = provider.client("google").await;
    let setup = Setup::default().with(&client.toml());
    let gateway = setup.clock(&provider::clock()).start().await;
    provider.person("1001", ADA, true).await;
    let token = provider.id_token(&client, "1001", json!({ "nonce": "n-1" })).await;
    let browser = Browser::default();
    let with = |nonce: &str| json!({ "provider": "google", "idToken": { "token": token, "nonce": nonce } });
    let wrong = browser.post(&gateway, "/api/auth/sign-in/social", &with("n-2")).await;
    assert_eq!((wrong.status(), wrong.code()), (401, "INVALID_TOKEN".to_owned()));
    let answer = browser.post(&gateway, "/api/auth/sign-in/social", &with("n-1")).await;
    assert_eq!(answer.status(), 200, "{}", answer.text());
    assert_eq!(answer.json()["redirect"], json!(false));
    assert_eq!(browser.who(&gateway).await["user"]["email"], json!(ADA));
    let linked = browser.post(&gateway, "/api/auth/link-social", &with("n-1")).await;
    assert_eq!(
        (linked.status(), linked.json()),
        (200, json!({ "url": "", "status": true, "redirect": false }))
    );

    let grace = signed_in(&gateway, "grace@example.com").await;
    let refused = grace.post(&gateway, "/api/auth/link-social", &with("n-1")).await;
    assert_eq!(
        (refused.status(), refused.code()),
        (409, "SOCIAL_ACCOUNT_ALREADY_LINKED".to_owned())
    );
    for (sub, email, verified, code) in [
        ("2", "grace@example.com", false, "LINKING_NOT_ALLOWED"),
        ("3", "other@example.com", true, "LINKING_DIFFERENT_EMAILS_NOT_ALLOWED"),
    ] {
        provider.person(sub, email, verified).await;
        let token = provider.id_token(&client, sub, json!({})).await;
        let body = json!({ "provider": "google", "idToken": { "token": token } });
        let refused = grace.post(&gateway, "/api/auth/link-social", &body).await;
        assert_eq!((refused.status(), refused.code()), (401, code.to_owned()));
    }
    let token = provider.id_token(&client, "2", json!({})).await;
    let body = json!({ "provider": "google", "idToken": { "token": token } });
    let refused = Browser::default()
        .post(&gateway, "/api/auth/sign-in/social", &body)
        .await;
    assert_eq!((refused.status(), refused.code()), (401, "OAUTH_LINK_ERROR".to_owned()));
    assert_eq!(refused.json()["message"], Value::from("account not linked"));
}
