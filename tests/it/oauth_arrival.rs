//! Coming from a provider: who gets a user, who is known, and what is told of it.

use serde_json::{Value, json};

use crate::harness::{
    Browser, Database, Gateway, Setup,
    browser::error_of,
    client::Response,
    people::PASSWORD,
    provider::{self, Client, Kind, Provider},
};

const ADA: &str = "ada@example.com";

async fn world_with(toml: &str) -> (Provider, Client, Gateway) {
    let provider = Provider::start(Kind::Oidc, json!({})).await;
    let client = provider.client("there").await;
    let setup = Setup::default().with(&client.toml()).with(toml);
    (provider, client, setup.clock(&provider::clock()).start().await)
}

/// Signs in there as `sub`; `body` is what the app says beside the provider.
async fn come(browser: &Browser, gateway: &Gateway, client: &Client, sub: &str, body: Value) -> Response {
    let url = browser.start(gateway, client.name(), body).await;
    let back = Browser::default().agree(&url, sub).await;
    browser.land(gateway, &back).await
}

async fn count(gateway: &Gateway, of: &str) -> i64 {
    gateway.db().count(&format!("SELECT count(*) FROM {of}")).await
}

#[tokio::test]
async fn who_is_new_gets_a_user_as_the_provider_tells_and_goes_where_new_users_go() {
    let (provider, client, gateway) = world_with("").await;
    provider
        .admit(json!({
            "sub": "1001", "email": "Ada@Example.COM", "email_verified": true, "name": "Ada Lovelace",
            "picture": "https://img.example/ada.png",
        }))
        .await;
    let targets = json!({ "callbackURL": "/home", "newUserCallbackURL": "/welcome?from=there" });
    let browser = Browser::default();
    let first = come(&browser, &gateway, &client, "1001", targets.clone()).await;
    assert_eq!(first.head.one("location"), Some("/welcome?from=there"));
    let user = &browser.who(&gateway).await["user"];
    for (field, value) in [
        ("email", json!(ADA)),
        ("emailVerified", json!(true)),
        ("name", json!("Ada Lovelace")),
        ("image", json!("https://img.example/ada.png")),
        ("role", json!("user")),
    ] {
        assert_eq!(user[field], value, "{field}");
    }
    assert_eq!(browser.get(&gateway, "/api/me").await.status(), 200);
    let seen = gateway.upstream().last();
    assert_eq!(seen.head.one("x-auth-methods"), Some("oauth"));
    assert_eq!(seen.head.one("x-user-email"), Some(ADA));
    assert_eq!(gateway.mailbox().to(ADA).len(), 0, "there is nothing to verify");

    let again = come(&Browser::default(), &gateway, &client, "1001", targets).await;
    assert_eq!(again.head.one("location"), Some("/home"));
}

#[tokio::test]
async fn somebody_whose_address_the_provider_does_not_tell_gets_no_user() {
    let (provider, client, gateway) = world_with("").await;
    provider.admit(json!({ "sub": "1001", "name": "Ada" })).await;
    let answer = Browser::default().sign_in_at(&gateway, &client, "1001").await;
    assert_eq!(error_of(&answer), "email_not_found");
    assert_eq!(
        (count(&gateway, "users").await, count(&gateway, "accounts").await),
        (0, 0)
    );
}

#[tokio::test]
async fn who_is_known_needs_no_address_any_more_and_keeps_the_one_they_have_here() {
    let (provider, client, gateway) = world_with("").await;
    provider.person("1001", ADA, true).await;
    Browser::default().sign_in_at(&gateway, &client, "1001").await;
    let ada = gateway.signed_in("grace@example.com").await;
    let before = row(&gateway, "users", "email = 'ada@example.com'").await;
    for claims in [
        json!({ "sub": "1001", "email": "new@example.com", "email_verified": true, "name": "Somebody Else" }),
        // Somebody else's here.
        json!({ "sub": "1001", "email": ada.email, "email_verified": true }),
        json!({ "sub": "1001" }),
    ] {
        provider.admit(claims.clone()).await;
        let browser = Browser::default();
        browser.sign_in_at(&gateway, &client, "1001").await;
        assert_eq!(browser.who(&gateway).await["user"]["email"], json!(ADA), "{claims}");
    }
    assert_eq!(row(&gateway, "users", "email = 'ada@example.com'").await, before);
    assert_eq!(count(&gateway, "users").await, 2);
}

/// Everything that is stored in the rows of a table.
async fn row(gateway: &Gateway, table: &str, condition: &str) -> String {
    let sql =
        format!("SELECT coalesce(string_agg(t::text, '\n' ORDER BY t::text), '') FROM {table} AS t WHERE {condition}");
    gateway.db().client().await.query_one(&sql, &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn an_unproven_address_becomes_an_unverified_user_where_verification_is_not_required() {
    let (provider, client, gateway) = world_with("[auth.email_verification]\nrequired = false\n").await;
    provider.person("1001", ADA, false).await;
    let browser = Browser::default();
    let answer = browser.sign_in_at(&gateway, &client, "1001").await;
    assert_eq!(answer.head.one("location"), Some("/home"));
    assert_eq!(browser.who(&gateway).await["user"]["emailVerified"], json!(false));
}

#[tokio::test]
async fn an_unproven_address_is_to_be_verified_first_and_a_mail_says_how() {
    for (sends_again, mails) in [(true, 2), (false, 1)] {
        let toml = format!("[auth.email_verification]\nsend_on_sign_in = {sends_again}\n");
        let (provider, client, gateway) = world_with(&toml).await;
        provider.person("1001", ADA, false).await;
        let browser = Browser::default();
        for _ in 0..2 {
            let targets = json!({ "callbackURL": "/home", "newUserCallbackURL": "/new", "errorCallbackURL": "/sorry" });
            let answer = come(&browser, &gateway, &client, "1001", targets).await;
            assert_eq!(answer.head.one("location"), Some("/sorry?error=email_not_verified"));
            assert!(browser.who(&gateway).await.is_null());
        }
        let link = gateway.mailbox().next_to(ADA).await.link();
        assert!(link.ends_with("&callbackURL=%2Fhome"), "{link}");
        let stored = "one_time_tokens WHERE purpose = 'verify-email'";
        assert_eq!(count(&gateway, stored).await, mails, "{sends_again}");
        assert_eq!(
            (count(&gateway, "users").await, count(&gateway, "user_sessions").await),
            (1, 0)
        );
    }
}

#[tokio::test]
async fn an_app_decides_who_is_new_where_sign_up_is_on_request() {
    let (provider, client, gateway) = at_with("sign_up = 'on-request'").await;
    provider.person("1001", ADA, true).await;
    for body in [json!({}), json!({ "requestSignUp": false })] {
        let browser = Browser::default();
        let answer = come(&browser, &gateway, &client, "1001", body).await;
        assert_eq!(error_of(&answer), "signup_disabled");
    }
    assert_eq!(
        (count(&gateway, "users").await, count(&gateway, "accounts").await),
        (0, 0)
    );
    let body = json!({ "callbackURL": "/home", "requestSignUp": true });
    let answer = come(&Browser::default(), &gateway, &client, "1001", body).await;
    assert_eq!(answer.head.one("location"), Some("/home"));
    // Who is known need not be asked for.
    let answer = come(
        &Browser::default(),
        &gateway,
        &client,
        "1001",
        json!({ "callbackURL": "/home" }),
    )
    .await;
    assert_eq!(answer.head.one("location"), Some("/home"));
}

#[tokio::test]
async fn nobody_is_new_where_sign_up_is_off_but_who_has_an_account_gets_in() {
    let (provider, client, gateway) = at_with("sign_up = 'off'").await;
    provider.person("1001", ADA, true).await;
    let body = json!({ "requestSignUp": true });
    let answer = come(&Browser::default(), &gateway, &client, "1001", body).await;
    assert_eq!(error_of(&answer), "signup_disabled");
    assert_eq!(count(&gateway, "users").await, 0);

    gateway.verified(ADA).await;
    let answer = come(
        &Browser::default(),
        &gateway,
        &client,
        "1001",
        json!({ "callbackURL": "/home" }),
    )
    .await;
    assert_eq!(answer.head.one("location"), Some("/home"));
}

/// With further keys of the provider's section.
async fn at_with(keys: &str) -> (Provider, Client, Gateway) {
    let provider = Provider::oidc().await;
    let client = provider.client("there").await;
    let setup = Setup::default().with(&client.toml_with(keys));
    (provider, client, setup.clock(&provider::clock()).start().await)
}

#[tokio::test]
async fn every_sign_in_renews_the_tokens_and_what_was_granted() {
    let (provider, client, gateway) = world_with("").await;
    provider.person("1001", ADA, true).await;
    let browser = Browser::default();
    let mut seen = Vec::new();
    for scopes in [json!([]), json!(["offline_access"])] {
        come(&browser, &gateway, &client, "1001", json!({ "scopes": scopes })).await;
        let listed = browser.get(&gateway, "/api/auth/list-accounts").await.json();
        assert_eq!(listed.as_array().unwrap().len(), 1);
        let body = json!({ "accountId": listed[0]["id"] });
        let tokens = browser.post(&gateway, "/api/auth/get-access-token", &body).await;
        assert_eq!(tokens.status(), 200, "{}", tokens.text());
        seen.push((listed[0].clone(), tokens.json()["accessToken"].clone()));
    }
    let [(first, old), (second, new)] = &seen[..] else {
        panic!("{seen:?}");
    };
    assert_eq!(first["id"], second["id"]);
    assert!(old.is_string() && new.is_string());
    assert_ne!(old, new);
    let has = |account: &Value, scope: &str| account["scopes"].as_array().unwrap().contains(&json!(scope));
    assert!(has(first, "email") && has(second, "email"), "{first} {second}");
}

#[tokio::test]
async fn somebody_banned_is_not_linked_by_their_address_either() {
    let (provider, client, gateway) = world_with("").await;
    gateway.verified(ADA).await;
    gateway.db().run("UPDATE users SET banned = true").await;
    provider.person("1001", ADA, true).await;
    let browser = Browser::default();
    let answer = browser.sign_in_at(&gateway, &client, "1001").await;
    assert_eq!(error_of(&answer), "BANNED_USER");
    assert!(browser.who(&gateway).await.is_null());
    assert_eq!(count(&gateway, "accounts WHERE provider_id = 'there'").await, 0);
}

/// OAUTH-07: an address that a provider gives to somebody else does not bring its first owner's account along.
#[tokio::test]
async fn another_subject_with_the_same_address_does_not_get_into_the_account() {
    let (provider, client, gateway) = world_with("").await;
    provider.person("1001", ADA, true).await;
    Browser::default().sign_in_at(&gateway, &client, "1001").await;
    provider.person("1002", ADA, true).await;
    let before = row(&gateway, "accounts", "true").await;
    let heir = Browser::default();
    let answer = heir.sign_in_at(&gateway, &client, "1002").await;
    assert_eq!(error_of(&answer), "account_not_linked");
    assert!(heir.who(&gateway).await.is_null());
    assert_eq!(row(&gateway, "accounts", "true").await, before);
}

/// OAUTH-07: a subject is its issuer's.
#[tokio::test]
async fn the_same_subject_at_another_issuer_under_the_same_name_is_somebody_else() {
    let db = Database::fresh().await;
    let [old, new] = [Provider::oidc().await, Provider::oidc().await];
    let [here, there] = [old.client("there").await, new.client("there").await];
    let before = Setup::default()
        .with(&here.toml())
        .clock(&provider::clock())
        .start_on(&db)
        .await;
    let after = Setup::default()
        .with(&there.toml())
        .clock(&provider::clock())
        .start_on(&db)
        .await;
    old.person("1001", ADA, true).await;
    let ada = Browser::default();
    ada.sign_in_at(&before, &here, "1001").await;
    let stored = row(&before, "accounts", "true").await;

    for email in [ADA, "eve@example.com"] {
        new.person("1001", email, true).await;
        let eve = Browser::default();
        let answer = eve.sign_in_at(&after, &there, "1001").await;
        assert_eq!(error_of(&answer), "unable_to_link_account", "{email}");
        assert!(eve.who(&after).await.is_null(), "{email}");
    }
    let grace = Browser::signed_in(&after, "eve@example.com").await;
    let answer = grace.link_at(&after, &there, "1001").await;
    assert_eq!(error_of(&answer), "unable_to_link_account");
    assert_eq!(row(&before, "accounts", "provider_id = 'there'").await, stored);
    assert!(!ada.who(&before).await.is_null());
}

#[tokio::test]
async fn an_account_that_was_brought_along_without_an_issuer_has_one_from_its_first_use_on() {
    let (provider, client, gateway) = world_with("").await;
    provider.person("1001", ADA, true).await;
    Browser::default().sign_in_at(&gateway, &client, "1001").await;
    gateway.db().run("UPDATE accounts SET issuer = ''").await;
    let browser = Browser::default();
    browser.sign_in_at(&gateway, &client, "1001").await;
    assert_eq!(browser.who(&gateway).await["user"]["email"], json!(ADA));
    let adopted = format!("accounts WHERE issuer = '{}'", provider.url);
    assert_eq!(count(&gateway, &adopted).await, 1);
}

#[tokio::test]
async fn one_person_who_comes_from_two_providers_at_once_is_one_user() {
    let db = Database::fresh().await;
    let [one, two] = [Provider::oidc().await, Provider::oidc().await];
    let [first, second] = [one.client("one").await, two.client("two").await];
    let clock = provider::clock();
    let setup = || Setup::default().with(&first.toml()).with(&second.toml()).clock(&clock);
    let (here, there) = (setup().start_on(&db).await, setup().start_on(&db).await);
    for round in 0..5 {
        let (sub, email) = (format!("{round}"), format!("ada{round}@example.com"));
        let browsers = [Browser::default(), Browser::default()];
        one.person(&sub, &email, true).await;
        two.person(&sub, &email, true).await;
        let from_one = browsers[0].start(&here, "one", json!({})).await;
        let from_two = browsers[1].start(&there, "two", json!({})).await;
        let from_one = Browser::default().agree(&from_one, &sub).await;
        let from_two = Browser::default().agree(&from_two, &sub).await;
        tokio::join!(browsers[0].land(&here, &from_one), browsers[1].land(&there, &from_two));
        let (one, two) = (browsers[0].who(&here).await, browsers[1].who(&there).await);
        assert_eq!(
            (&one["user"]["email"], &one["user"]["id"]),
            (&json!(email), &two["user"]["id"])
        );
    }
    assert_eq!((count(&here, "users").await, count(&here, "accounts").await), (5, 10));
}

/// Whoever is first: nobody's password gets into an account that a provider leads into without a proof of the address.
#[tokio::test]
async fn a_sign_up_at_the_same_moment_with_the_same_address_makes_one_user() {
    let (provider, client, gateway) = world_with("").await;
    for round in 0..5 {
        let (sub, email) = (format!("{round}"), format!("ada{round}@example.com"));
        provider.person(&sub, &email, true).await;
        let browser = Browser::default();
        let url = browser
            .start(&gateway, client.name(), json!({ "callbackURL": "/home" }))
            .await;
        let back = Browser::default().agree(&url, &sub).await;
        let (signed_up, landed) = tokio::join!(gateway.sign_up(&email), browser.land(&gateway, &back));
        assert_eq!(signed_up.status(), 200, "{}", signed_up.text());
        let who = browser.who(&gateway).await;
        let ways = format!(
            "accounts AS a JOIN users AS u ON u.id = a.user_id WHERE u.email = '{email}' AND a.provider_id = 'there'"
        );
        if who.is_null() {
            assert_eq!(error_of(&landed), "account_not_linked");
            assert_eq!(count(&gateway, &ways).await, 0);
        } else {
            assert_eq!(who["user"]["emailVerified"], json!(true));
            assert_eq!(count(&gateway, &ways).await, 1);
            assert_eq!(gateway.sign_in(&email).await.code(), "INVALID_EMAIL_OR_PASSWORD");
        }
    }
    assert_eq!(
        (count(&gateway, "users").await, count(&gateway, "accounts").await),
        (5, 5)
    );
}

#[tokio::test]
async fn who_came_in_and_who_did_not_is_in_the_audit_log() {
    let (provider, client, gateway) = world_with("").await;
    provider.person("1001", ADA, true).await;
    provider.person("1002", "eve@example.com", false).await;
    provider.admit(json!({ "sub": "1003" })).await;
    gateway.verified("eve@example.com").await;
    for sub in ["1001", "1001", "1002", "1003"] {
        Browser::default().sign_in_at(&gateway, &client, sub).await;
    }
    let client = gateway.db().client().await;
    let rows = client
        .query(
            "SELECT l.action || ' ' || l.outcome || ' ' || coalesce(reason, '') || ' ' || coalesce(u.email, l.email, '-')
             FROM audit_log AS l LEFT JOIN users AS u ON u.id = l.subject_id
             WHERE request_id IN (SELECT request_id FROM audit_log WHERE reason IN ('there', 'account_not_linked', 'email_not_found'))
             ORDER BY l.outcome, l.action DESC, reason",
            &[],
        )
        .await
        .unwrap();
    let lines: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(
        lines,
        [
            "sign-up done there ada@example.com",
            "sign-in done there ada@example.com",
            "sign-in done there ada@example.com",
            "sign-in refused account_not_linked eve@example.com",
            "sign-in refused email_not_found -",
        ]
    );
}

#[tokio::test]
async fn people_from_a_provider_share_a_browser_with_others() {
    let (provider, client, gateway) = world_with("").await;
    provider.person("1001", ADA, true).await;
    let browser = Browser::signed_in(&gateway, "grace@example.com").await;
    come(&browser, &gateway, &client, "1001", json!({})).await;
    assert_eq!(browser.who(&gateway).await["user"]["email"], json!(ADA));
    let listed = browser
        .get(&gateway, "/api/auth/multi-session/list-device-sessions")
        .await
        .json();
    let mut people: Vec<_> = listed
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["user"]["email"].clone())
        .collect();
    people.sort_by_key(Value::to_string);
    assert_eq!(people, [json!(ADA), json!("grace@example.com")]);
    // Again: it takes the first one's place.
    come(&browser, &gateway, &client, "1001", json!({})).await;
    let live = "user_sessions WHERE revoked_at IS NULL";
    assert_eq!(count(&gateway, live).await, 2);
}

#[tokio::test]
async fn leaving_for_a_provider_is_limited_as_other_sign_ins_are() {
    let (provider, client, gateway) = world_with("[auth.rate_limit]\nenabled = true\n").await;
    provider.person("1001", ADA, true).await;
    let token = provider.id_token(&client, "1001", json!({})).await;
    let body = json!({ "provider": "there", "idToken": { "token": token } });
    let mut statuses = Vec::new();
    for _ in 0..4 {
        statuses.push(gateway.post("/api/auth/sign-in/social").json(&body).await.status());
    }
    let body = json!({ "email": ADA, "password": PASSWORD });
    statuses.push(gateway.post("/api/auth/sign-in/social").json(&body).await.status());
    assert_eq!(statuses, [200, 200, 200, 429, 429]);
}
