//! Linking an account at a provider to the user who is signed in, and taking one away.

use std::time::Duration;

use serde_json::json;

use crate::harness::{
    Browser, Gateway, Setup,
    browser::error_of,
    people::PASSWORD,
    provider::{self, Client, Provider},
};

const ADA: &str = "ada@example.com";

async fn world() -> (Provider, Client, Gateway) {
    world_with("").await
}

async fn world_with(toml: &str) -> (Provider, Client, Gateway) {
    let provider = Provider::oidc().await;
    let client = provider.client("there").await;
    provider.person("1001", ADA, true).await;
    let setup = Setup::default().with(&client.toml()).with(toml);
    (provider, client, setup.clock(&provider::clock()).start().await)
}

async fn linked(gateway: &Gateway) -> i64 {
    let sql = "SELECT count(*) FROM accounts WHERE provider_id <> 'credential'";
    gateway.db().count(sql).await
}

#[tokio::test]
async fn linking_leaves_every_session_as_it_is() {
    let (_provider, client, gateway) = world().await;
    let ada = Browser::signed_in(&gateway, ADA).await;
    let phone = Browser::default();
    phone.sign_in(&gateway, ADA).await;
    let before = ada.who(&gateway).await;
    let answer = ada.link_at(&gateway, &client, "1001").await;
    assert_eq!(answer.head.one("location"), Some("/linked"));
    assert!(answer.set_cookie(gateway.session_cookie()).is_none());
    assert_eq!(ada.who(&gateway).await["session"]["token"], before["session"]["token"]);
    assert_eq!(phone.who(&gateway).await["user"]["email"], json!(ADA));
    let sessions = "SELECT count(*) FROM user_sessions WHERE revoked_at IS NULL";
    assert_eq!(gateway.db().count(sessions).await, 2);

    let elsewhere = Browser::default();
    elsewhere.sign_in_at(&gateway, &client, "1001").await;
    assert_eq!(elsewhere.who(&gateway).await["user"]["id"], before["user"]["id"]);
}

#[tokio::test]
async fn a_session_that_ended_meanwhile_links_nothing() {
    for what in ["revoked elsewhere", "expired", "banned", "password reset"] {
        let (_provider, client, gateway) =
            world_with("[auth.session]\nexpires_in = '5m'\nrefresh_after = '1m'\n").await;
        let ada = Browser::signed_in(&gateway, ADA).await;
        let url = ada.start_linking(&gateway, &client).await;
        let back = Browser::default().agree(&url, "1001").await;
        match what {
            "revoked elsewhere" => {
                let phone = Browser::default();
                phone.sign_in(&gateway, ADA).await;
                let answer = phone
                    .post(&gateway, "/api/auth/revoke-other-sessions", &json!({}))
                    .await;
                assert_eq!(answer.status(), 200, "{}", answer.text());
            }
            "expired" => gateway.clock().advance(Duration::from_mins(6)),
            "banned" => gateway.db().run("UPDATE users SET banned = true").await,
            _ => {
                let ask = json!({ "email": ADA });
                gateway.post("/api/auth/request-password-reset").json(&ask).await;
                let token = gateway.mailbox().next_reset_to(ADA).await.token();
                let body = json!({ "token": token, "newPassword": "another long password" });
                let answer = gateway.post("/api/auth/reset-password").json(&body).await;
                assert_eq!(answer.status(), 200, "{}", answer.text());
            }
        }
        let answer = ada.land(&gateway, &back).await;
        assert_eq!(error_of(&answer), "unable_to_link_account", "{what}");
        assert_eq!(linked(&gateway).await, 0, "{what}");
        let noted = "SELECT count(*) FROM audit_log
                     WHERE action = 'link-account' AND outcome = 'refused' AND reason = 'unable_to_link_account'
                     AND subject_id IS NOT NULL AND session_id IS NOT NULL";
        assert_eq!(gateway.db().count(noted).await, 1, "{what}");
    }
}

#[tokio::test]
async fn a_user_who_was_deleted_meanwhile_does_not_come_back_by_linking() {
    let (_provider, client, gateway) = world().await;
    let ada = Browser::signed_in(&gateway, ADA).await;
    let url = ada.start_linking(&gateway, &client).await;
    let back = Browser::default().agree(&url, "1001").await;
    gateway.db().run("DELETE FROM users").await;
    let answer = ada.land(&gateway, &back).await;
    assert_eq!(error_of(&answer), "unable_to_link_account");
    let users = gateway.db().count("SELECT count(*) FROM users").await;
    assert_eq!((users, linked(&gateway).await), (0, 0));
}

#[tokio::test]
async fn what_one_browser_began_another_does_not_finish() {
    let (_provider, client, gateway) = world().await;
    let ada = Browser::signed_in(&gateway, ADA).await;
    let eve = Browser::signed_in(&gateway, "eve@example.com").await;
    // Eve has Ada's browser follow what Eve began, so that Ada's account at the provider would be Eve's.
    let url = eve.start_linking(&gateway, &client).await;
    let back = Browser::default().agree(&url, "1001").await;
    for browser in [&ada, &eve] {
        let answer = browser.land(&gateway, &back).await;
        assert_eq!(error_of(&answer), "state_mismatch");
    }
    assert_eq!(linked(&gateway).await, 0);
}

#[tokio::test]
async fn it_is_linked_to_who_asked_whoever_acts_in_the_browser_by_then() {
    let (_provider, client, gateway) = world().await;
    let browser = Browser::signed_in(&gateway, ADA).await;
    let ada = browser.who(&gateway).await["user"]["id"].clone();
    let url = browser.start_linking(&gateway, &client).await;
    let back = Browser::default().agree(&url, "1001").await;
    gateway.verified("grace@example.com").await;
    browser.sign_in(&gateway, "grace@example.com").await;
    let answer = browser.land(&gateway, &back).await;
    assert_eq!(answer.head.one("location"), Some("/linked"));
    assert_eq!(browser.who(&gateway).await["user"]["email"], json!("grace@example.com"));
    let elsewhere = Browser::default();
    elsewhere.sign_in_at(&gateway, &client, "1001").await;
    assert_eq!(elsewhere.who(&gateway).await["user"]["id"], ada);
}

#[tokio::test]
async fn another_address_is_linked_only_where_the_configuration_says_so_and_changes_nothing_else() {
    let (provider, client, gateway) = world_with("[auth.account]\nlink_different_emails = true\n").await;
    let ada = Browser::signed_in(&gateway, ADA).await;
    provider.person("7", "private@example.com", false).await;
    let answer = ada.link_at(&gateway, &client, "7").await;
    assert_eq!(error_of(&answer), "unable_to_link_account");
    provider.person("7", "private@example.com", true).await;
    let answer = ada.link_at(&gateway, &client, "7").await;
    assert_eq!(answer.head.one("location"), Some("/linked"));
    assert_eq!(ada.who(&gateway).await["user"]["email"], json!(ADA));
    let elsewhere = Browser::default();
    elsewhere.sign_in_at(&gateway, &client, "7").await;
    assert_eq!(elsewhere.who(&gateway).await["user"]["email"], json!(ADA));
}

#[tokio::test]
async fn an_account_that_was_taken_away_is_no_way_in_any_more() {
    let (_provider, client, gateway) = world_with("[auth.account]\nlink_by_email = false\n").await;
    let ada = Browser::signed_in(&gateway, ADA).await;
    ada.link_at(&gateway, &client, "1001").await;
    let listed = ada.get(&gateway, "/api/auth/list-accounts").await.json();
    let listed = listed
        .as_array()
        .unwrap()
        .iter()
        .find(|way| way["providerId"] == "there");
    let id = listed.expect("it is listed")["id"].clone();

    // Somebody else names it.
    let grace = Browser::signed_in(&gateway, "grace@example.com").await;
    gateway
        .db()
        .run(
            "INSERT INTO accounts (id, user_id, provider_id, account_id, created_at, updated_at)
             SELECT gen_random_uuid(), id, 'there', '8', now(), now() FROM users WHERE email = 'grace@example.com'",
        )
        .await;
    let body = json!({ "accountId": id });
    let refused = grace.post(&gateway, "/api/auth/unlink-account", &body).await;
    assert_eq!(
        (refused.status(), refused.code()),
        (400, "ACCOUNT_NOT_FOUND".to_owned())
    );

    let under_way = Browser::default();
    let url = under_way.start(&gateway, "there", json!({})).await;
    let back = Browser::default().agree(&url, "1001").await;
    let taken = ada.post(&gateway, "/api/auth/unlink-account", &body).await;
    assert_eq!(taken.status(), 200, "{}", taken.text());
    let there = "SELECT count(*) FROM accounts WHERE provider_id = 'there' AND account_id = '1001'";
    assert_eq!(gateway.db().count(there).await, 0);
    assert_eq!(error_of(&under_way.land(&gateway, &back).await), "account_not_linked");
    let again = Browser::default();
    let answer = again.sign_in_at(&gateway, &client, "1001").await;
    assert_eq!(error_of(&answer), "account_not_linked");
    assert!(again.who(&gateway).await.is_null());
    let noted = "SELECT count(*) FROM audit_log WHERE outcome = 'done' AND reason = 'there'
                 AND action IN ('link-account', 'unlink-account') AND actor_id = subject_id AND session_id IS NOT NULL";
    assert_eq!(gateway.db().count(noted).await, 2);
}

#[tokio::test]
async fn ways_in_come_and_go_in_fresh_sessions_alone() {
    let (provider, client, gateway) = world().await;
    let ada = Browser::signed_in(&gateway, ADA).await;
    ada.link_at(&gateway, &client, "1001").await;
    let token = provider.id_token(&client, "1001", json!({})).await;
    gateway.clock().advance(Duration::from_hours(25));
    for (path, body) in [
        ("link-social", json!({ "provider": "there" })),
        (
            "link-social",
            json!({ "provider": "there", "idToken": { "token": token } }),
        ),
        ("unlink-account", json!({ "providerId": "there" })),
        ("set-password", json!({ "newPassword": PASSWORD })),
    ] {
        let answer = ada.post(&gateway, &format!("/api/auth/{path}"), &body).await;
        assert_eq!(
            (answer.status(), answer.code()),
            (403, "SESSION_NOT_FRESH".to_owned()),
            "{path}"
        );
    }
    assert_eq!(linked(&gateway).await, 1);
}

#[tokio::test]
async fn two_who_take_the_two_ways_in_away_at_once_leave_one() {
    let [one, two] = [Provider::oidc().await, Provider::oidc().await];
    let [first, second] = [one.client("one").await, two.client("two").await];
    let setup = Setup::default().with(&first.toml()).with(&second.toml());
    let gateway = setup.clock(&provider::clock()).start().await;
    for round in 0..5 {
        let (sub, email) = (format!("{round}"), format!("ada{round}@example.com"));
        one.person(&sub, &email, true).await;
        two.person(&sub, &email, true).await;
        let ada = Browser::default();
        ada.sign_in_at(&gateway, &first, &sub).await;
        ada.link_at(&gateway, &second, &sub).await;
        let unlink = async |provider: &str| {
            let body = json!({ "providerId": provider });
            ada.post(&gateway, "/api/auth/unlink-account", &body).await.status()
        };
        let (here, there) = tokio::join!(unlink("one"), unlink("two"));
        let mut statuses = [here, there];
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 400]);
        assert_eq!(linked(&gateway).await, round + 1);
    }
}

#[tokio::test]
async fn who_came_by_a_provider_sets_a_password_and_then_has_two_ways_in() {
    let (_provider, client, gateway) = world().await;
    let ada = Browser::default();
    ada.sign_in_at(&gateway, &client, "1001").await;
    assert_eq!(gateway.sign_in(ADA).await.code(), "INVALID_EMAIL_OR_PASSWORD");
    let unlink = json!({ "providerId": "there" });
    let refused = ada.post(&gateway, "/api/auth/unlink-account", &unlink).await;
    assert_eq!(
        (refused.status(), refused.code()),
        (400, "FAILED_TO_UNLINK_LAST_ACCOUNT".to_owned())
    );
    let body = json!({ "newPassword": PASSWORD });
    for expected in [200, 400] {
        let set = ada.post(&gateway, "/api/auth/set-password", &body).await;
        assert_eq!(set.status(), expected, "{}", set.text());
    }
    assert_eq!(gateway.sign_in(ADA).await.status(), 200);
    let again = Browser::default();
    again.sign_in_at(&gateway, &client, "1001").await;
    assert_eq!(again.who(&gateway).await["user"]["email"], json!(ADA));
}
