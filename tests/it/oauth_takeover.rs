//! Strangers who were first with somebody's address: once its owner has shown that it is theirs, nothing of the
//! stranger's gives access (OAUTH-06, OAUTH-08). The table is in `src/auth/oauth/arrival.rs`.

use serde_json::json;

use crate::harness::{
    Browser, Gateway, Setup,
    browser::error_of,
    client::Response,
    people::PASSWORD,
    provider::{self, Client, Provider},
};

const ADA: &str = "ada@example.com";
const EVES: &str = "the stranger's own";

/// People may use their accounts before they have verified an address.
const NOT_REQUIRED: &str = "[auth.email_verification]\nrequired = false\n";

async fn world_with(toml: &str) -> (Provider, Client, Gateway) {
    let provider = Provider::oidc().await;
    let client = provider.client("there").await;
    let setup = Setup::default().with(&client.toml()).with(toml);
    (provider, client, setup.clock(&provider::clock()).start().await)
}

async fn sign_up(browser: &Browser, gateway: &Gateway, password: &str) -> Response {
    let body = json!({ "name": "Somebody", "email": ADA, "password": password });
    let answer = browser.post(gateway, "/api/auth/sign-up/email", &body).await;
    assert_eq!(answer.status(), 200, "{}", answer.text());
    answer
}

async fn sign_in(browser: &Browser, gateway: &Gateway, password: &str) -> Response {
    let body = json!({ "email": ADA, "password": password });
    browser.post(gateway, "/api/auth/sign-in/email", &body).await
}

/// Has a verification mail sent from this browser, and opens its link there.
async fn ask_and_open(browser: &Browser, gateway: &Gateway) -> Response {
    let body = json!({ "email": ADA });
    let asked = browser.post(gateway, "/api/auth/send-verification-email", &body).await;
    assert_eq!(asked.status(), 200, "{}", asked.text());
    let token = gateway.mailbox().next_to(ADA).await.token();
    open(browser, gateway, &token).await
}

async fn open(browser: &Browser, gateway: &Gateway, token: &str) -> Response {
    browser
        .get(gateway, &format!("/api/auth/verify-email?token={token}"))
        .await
}

/// The owner has forgotten a password that they never had.
async fn reset(gateway: &Gateway) {
    let ask = json!({ "email": ADA });
    gateway.post("/api/auth/request-password-reset").json(&ask).await;
    let token = gateway.mailbox().next_to(ADA).await.token();
    let choose = json!({ "token": token, "newPassword": PASSWORD });
    let chosen = gateway.post("/api/auth/reset-password").json(&choose).await;
    assert_eq!(chosen.status(), 200, "{}", chosen.text());
}

/// All that is on record of users and their ways in.
async fn on_record(gateway: &Gateway) -> String {
    let sql = "SELECT string_agg(line, '\n' ORDER BY line)
               FROM (SELECT u::text FROM users AS u UNION SELECT a::text FROM accounts AS a) AS lines (line)";
    gateway.db().client().await.query_one(sql, &[]).await.unwrap().get(0)
}

/// Whom the stranger's browser acts as, and with whose rights an upstream sees it.
async fn is_out(browser: &Browser, gateway: &Gateway) {
    assert!(browser.who(gateway).await.is_null());
    assert_eq!(browser.get(gateway, "/api/me").await.status(), 401);
}

async fn is_verified(gateway: &Gateway) -> bool {
    let sql = format!("SELECT count(*) FROM users WHERE email = '{ADA}' AND email_verified");
    gateway.db().count(&sql).await == 1
}

#[tokio::test]
async fn a_refused_sign_in_leaves_a_strangers_sign_up_as_it_was() {
    for (toml, session) in [("", false), (NOT_REQUIRED, true)] {
        let (provider, client, gateway) = world_with(toml).await;
        let eve = Browser::default();
        sign_up(&eve, &gateway, EVES).await;
        let before = on_record(&gateway).await;
        provider.person("1001", ADA, true).await;
        let ada = Browser::default();
        let answer = ada.sign_in_at(&gateway, &client, "1001").await;
        assert_eq!(error_of(&answer), "account_not_linked");
        is_out(&ada, &gateway).await;
        assert_eq!(on_record(&gateway).await, before);
        assert_eq!(!eve.who(&gateway).await.is_null(), session);
    }
}

#[tokio::test]
async fn after_a_strangers_sign_up_the_owner_gets_in_at_the_provider_by_their_own_sign_up() {
    let (provider, client, gateway) = world_with("").await;
    let (eve, ada) = (Browser::default(), Browser::default());
    sign_up(&eve, &gateway, EVES).await;
    let eves = gateway.mailbox().next_to(ADA).await.token();
    sign_up(&ada, &gateway, PASSWORD).await;
    let own = gateway.mailbox().next_to(ADA).await.token();
    assert_eq!(open(&ada, &gateway, &own).await.status(), 200);
    provider.person("1001", ADA, true).await;
    let phone = Browser::default();
    phone.sign_in_at(&gateway, &client, "1001").await;
    assert_eq!(phone.who(&gateway).await["user"]["email"], json!(ADA));

    open(&eve, &gateway, &eves).await;
    is_out(&eve, &gateway).await;
    assert_eq!(sign_in(&eve, &gateway, EVES).await.code(), "INVALID_EMAIL_OR_PASSWORD");
}

#[tokio::test]
async fn a_session_of_a_strangers_sign_up_ends_with_the_owners_reset() {
    let (provider, client, gateway) = world_with(NOT_REQUIRED).await;
    let (eve, ada) = (Browser::default(), Browser::default());
    sign_up(&eve, &gateway, EVES).await;
    reset(&gateway).await;
    is_out(&eve, &gateway).await;
    assert_eq!(sign_in(&eve, &gateway, EVES).await.code(), "INVALID_EMAIL_OR_PASSWORD");

    assert_eq!(sign_in(&ada, &gateway, PASSWORD).await.status(), 200);
    assert_eq!(ask_and_open(&ada, &gateway).await.status(), 200);
    assert!(is_verified(&gateway).await);
    provider.person("1001", ADA, true).await;
    let phone = Browser::default();
    phone.sign_in_at(&gateway, &client, "1001").await;
    assert_eq!(phone.who(&gateway).await["user"]["email"], json!(ADA));
}

#[tokio::test]
async fn a_stranger_who_came_by_an_unproven_address_loses_all_by_the_owners_reset() {
    let (provider, client, gateway) = world_with(NOT_REQUIRED).await;
    provider.person("6666", ADA, false).await;
    let eve = Browser::default();
    eve.sign_in_at(&gateway, &client, "6666").await;
    assert_eq!(eve.who(&gateway).await["user"]["email"], json!(ADA));
    // What eve has up her sleeve: a link flow and a sign-in that are under way, a mail, a password.
    provider.person("6667", ADA, true).await;
    let linking = eve.start_linking(&gateway, &client).await;
    let linking = Browser::default().agree(&linking, "6667").await;
    let coming = eve.start(&gateway, "there", json!({})).await;
    let coming = Browser::default().agree(&coming, "6666").await;
    eve.post(&gateway, "/api/auth/send-verification-email", &json!({ "email": ADA }))
        .await;
    let mailed = gateway.mailbox().next_to(ADA).await.token();
    let set = eve
        .post(&gateway, "/api/auth/set-password", &json!({ "newPassword": EVES }))
        .await;
    assert_eq!(set.status(), 200, "{}", set.text());

    // Mail scanners and owners open what they get.
    open(&Browser::default(), &gateway, &mailed).await;
    assert!(!is_verified(&gateway).await);

    reset(&gateway).await;
    is_out(&eve, &gateway).await;
    assert_eq!(sign_in(&eve, &gateway, EVES).await.code(), "INVALID_EMAIL_OR_PASSWORD");
    assert_eq!(error_of(&eve.land(&gateway, &linking).await), "unable_to_link_account");
    assert_eq!(error_of(&eve.land(&gateway, &coming).await), "account_not_linked");
    // The address is the owner's by now: their click verifies it for themselves.
    open(&Browser::default(), &gateway, &mailed).await;
    is_out(&eve, &gateway).await;
    let others = "SELECT count(*) FROM accounts WHERE provider_id <> 'credential'";
    assert_eq!(gateway.db().count(others).await, 0);
    assert_eq!(sign_in(&Browser::default(), &gateway, PASSWORD).await.status(), 200);
}

/// Whoever has an address and asks for a mail to verify it, not knowing that somebody else is in, must not vouch for them.
#[tokio::test]
async fn an_owner_who_asks_for_a_verification_mail_does_not_verify_a_strangers_account() {
    let (provider, client, gateway) = world_with(NOT_REQUIRED).await;
    provider.person("6666", ADA, false).await;
    let (eve, ada) = (Browser::default(), Browser::default());
    eve.sign_in_at(&gateway, &client, "6666").await;
    assert_eq!(ask_and_open(&ada, &gateway).await.code(), "INVALID_TOKEN");
    assert!(!is_verified(&gateway).await);
    is_out(&ada, &gateway).await;

    reset(&gateway).await;
    is_out(&eve, &gateway).await;
    let answer = eve.sign_in_at(&gateway, &client, "6666").await;
    assert_eq!(error_of(&answer), "account_not_linked");
}

/// The same, of a stranger with a password who has linked an account with an address of their own.
#[tokio::test]
async fn an_account_that_a_stranger_linked_does_not_outlive_the_owners_proofs() {
    let toml = format!("{NOT_REQUIRED}[auth.account]\nlink_different_emails = true\n");
    let (provider, client, gateway) = world_with(&toml).await;
    provider.person("6666", "eve@example.com", true).await;
    let (eve, ada) = (Browser::default(), Browser::default());
    sign_up(&eve, &gateway, EVES).await;
    // Asked for before there is an account to see, and opened after.
    let body = json!({ "email": ADA });
    ada.post(&gateway, "/api/auth/send-verification-email", &body).await;
    let early = gateway.mailbox().next_to(ADA).await.token();
    let linked = eve.link_at(&gateway, &client, "6666").await;
    assert_eq!(linked.head.one("location"), Some("/linked"));
    assert_eq!(open(&ada, &gateway, &early).await.code(), "INVALID_TOKEN");
    assert_eq!(ask_and_open(&ada, &gateway).await.code(), "INVALID_TOKEN");

    reset(&gateway).await;
    sign_in(&ada, &gateway, PASSWORD).await;
    assert_eq!(ask_and_open(&ada, &gateway).await.status(), 200);
    assert!(is_verified(&gateway).await);
    is_out(&eve, &gateway).await;
    eve.sign_in_at(&gateway, &client, "6666").await;
    assert_ne!(eve.who(&gateway).await["user"]["email"], json!(ADA));
}

#[tokio::test]
async fn who_came_by_an_unproven_address_verifies_it_from_their_session() {
    let (provider, client, gateway) = world_with(NOT_REQUIRED).await;
    provider.person("1001", ADA, false).await;
    let ada = Browser::default();
    ada.sign_in_at(&gateway, &client, "1001").await;
    assert_eq!(ask_and_open(&ada, &gateway).await.status(), 200);
    assert_eq!(ada.who(&gateway).await["user"]["emailVerified"], json!(true));
    let again = Browser::default();
    again.sign_in_at(&gateway, &client, "1001").await;
    assert_eq!(again.who(&gateway).await["user"]["email"], json!(ADA));
}

#[tokio::test]
async fn a_sign_in_under_way_does_not_bring_a_stranger_back_after_the_owners_sign_up() {
    let (provider, client, gateway) = world_with("").await;
    provider.person("6666", ADA, false).await;
    let (eve, ada) = (Browser::default(), Browser::default());
    eve.sign_in_at(&gateway, &client, "6666").await;
    let eves = gateway.mailbox().next_to(ADA).await.token();
    let coming = eve.start(&gateway, "there", json!({})).await;
    let coming = Browser::default().agree(&coming, "6666").await;

    sign_up(&ada, &gateway, PASSWORD).await;
    let own = gateway.mailbox().next_to(ADA).await.token();
    assert_eq!(open(&ada, &gateway, &own).await.status(), 200);
    assert_eq!(error_of(&eve.land(&gateway, &coming).await), "account_not_linked");
    // The owner comes upon the other mail later.
    open(&ada, &gateway, &eves).await;
    let answer = eve.sign_in_at(&gateway, &client, "6666").await;
    assert_eq!(error_of(&answer), "account_not_linked");
    is_out(&eve, &gateway).await;
    assert_eq!(ada.who(&gateway).await["user"]["email"], json!(ADA));

    // The owner's own account there is linked, and the stranger's is not.
    provider.person("1001", ADA, true).await;
    let phone = Browser::default();
    phone.sign_in_at(&gateway, &client, "1001").await;
    assert_eq!(phone.who(&gateway).await["user"]["email"], json!(ADA));
}

#[tokio::test]
async fn of_two_strangers_to_each_other_the_second_gets_no_way_into_the_firsts_user() {
    let [one, two] = [Provider::oidc().await, Provider::oidc().await];
    let [first, second] = [one.client("one").await, two.client("two").await];
    let setup = Setup::default()
        .with(&first.toml())
        .with(&second.toml())
        .with(NOT_REQUIRED);
    let gateway = setup.clock(&provider::clock()).start().await;
    one.person("1", ADA, false).await;
    for proven in [false, true] {
        two.person("2", ADA, proven).await;
        Browser::default().sign_in_at(&gateway, &first, "1").await;
        let late = Browser::default();
        let answer = late.sign_in_at(&gateway, &second, "2").await;
        assert_eq!(error_of(&answer), "account_not_linked", "{proven}");
        is_out(&late, &gateway).await;
    }
}
