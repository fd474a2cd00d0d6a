//! A provider's tokens, for the user whose they are: handed out, refreshed in time, and nobody else's.

use std::time::Duration;

use serde_json::{Value, json};
use url::form_urlencoded;

use crate::harness::{
    Browser, SOON, Setup,
    client::{Call, Response},
    eventually,
    provider::{self, Client, Kind, Provider},
    visitor::{SUB, Visitor, account_at, arrive, ask, at, refreshes, refusal, shown, token},
};

const KINDS: [Kind; 5] = [Kind::Oidc, Kind::Google, Kind::GitHub, Kind::Apple, Kind::Microsoft];

/// As clients read them: UTC, three digits.
fn is_date(value: &Value) -> bool {
    let text = value.as_str().unwrap_or_default();
    text.len() == 24 && text.as_bytes()[19] == b'.' && text.ends_with('Z')
}

#[tokio::test]
async fn the_token_is_the_one_that_the_provider_gave() {
    for kind in KINDS {
        let ada = Visitor::from(kind, json!({})).await;
        let answer = ada.access_token().await;
        let given = token(&answer);
        let body = answer.json();
        if kind != Kind::Apple {
            let shown = shown(&ada.provider, kind, &given).await;
            assert_eq!(shown.status(), 200, "{kind:?}: {}", shown.text());
        }
        let scopes: Vec<&str> = body["scopes"]
            .as_array()
            .unwrap()
            .iter()
            .map(|s| s.as_str().unwrap())
            .collect();
        if kind == Kind::GitHub {
            // Its tokens neither end nor say who somebody is: what there is not is left out.
            assert_eq!(scopes, ["read:user", "user:email"]);
            assert_eq!((body.get("accessTokenExpiresAt"), body.get("idToken")), (None, None));
        } else {
            assert!(scopes.contains(&"email"), "{kind:?}: {scopes:?}");
            assert!(is_date(&body["accessTokenExpiresAt"]), "{kind:?}: {body}");
            assert_eq!(body["idToken"].as_str().unwrap().split('.').count(), 3, "{kind:?}");
        }
        assert_eq!(token(&ada.access_token().await), given, "{kind:?}");
        assert_eq!(refreshes(&ada.provider).await, 0, "{kind:?}");
    }
}

#[tokio::test]
async fn one_that_ends_within_five_seconds_is_refreshed_first() {
    for (kind, options) in [
        (Kind::Oidc, json!({})),
        (Kind::GitHub, json!({ "expiring": true })),
        (Kind::Apple, json!({})),
        (Kind::Microsoft, json!({})),
    ] {
        // Providers go by the system's time, which ours must not be far from.
        let mut options = options;
        options["access_token_seconds"] = json!(30);
        let ada = Visitor::from(kind, options).await;
        let first = token(&ada.access_token().await);
        ada.gateway.clock().advance(Duration::from_secs(20));
        assert_eq!(
            token(&ada.access_token().await),
            first,
            "{kind:?}: it lasts for long enough"
        );
        ada.gateway.clock().advance(Duration::from_secs(6));
        let answer = ada.access_token().await;
        let second = token(&answer);
        assert_ne!(second, first, "{kind:?}");
        assert_eq!(refreshes(&ada.provider).await, 1, "{kind:?}");
        assert!(!answer.json()["scopes"].as_array().unwrap().is_empty(), "{kind:?}");
        if kind != Kind::Apple {
            assert_eq!(shown(&ada.provider, kind, &second).await.status(), 200, "{kind:?}");
        }
        assert_eq!(token(&ada.access_token().await), second, "{kind:?}: and stays");
        ada.gateway.clock().advance(Duration::from_secs(26));
        assert_ne!(
            token(&ada.access_token().await),
            second,
            "{kind:?}: the next refresh token works, too"
        );
    }
}

#[tokio::test]
async fn a_refresh_tells_all_that_the_provider_gave() {
    for (kind, options) in [(Kind::Oidc, json!({})), (Kind::GitHub, json!({ "expiring": true }))] {
        let ada = Visitor::from(kind, options).await;
        let before = token(&ada.access_token().await);
        let answer = ada.refresh().await;
        let after = token(&answer);
        assert_ne!(before, after, "{kind:?}");
        let body = answer.json();
        assert!(
            body["refreshToken"].is_string() && is_date(&body["accessTokenExpiresAt"]),
            "{kind:?}"
        );
        assert_eq!(
            (&body["providerId"], &body["accountId"]),
            (&json!("there"), &json!(ada.account))
        );
        if kind == Kind::GitHub {
            assert_eq!(body["scope"], "read:user,user:email");
            assert!(is_date(&body["refreshTokenExpiresAt"]), "{body}");
            assert_eq!(body["idToken"], Value::Null);
        } else {
            assert!(
                body["scope"]
                    .as_str()
                    .unwrap()
                    .split(',')
                    .any(|scope| scope == "openid"),
                "{body}"
            );
            assert_eq!(body["refreshTokenExpiresAt"], Value::Null);
            assert!(body["idToken"].is_string());
        }
        assert_eq!(token(&ada.access_token().await), after, "{kind:?}");
    }
}

/// Where refresh tokens are good once, a second use would end all of them.
#[tokio::test]
async fn twenty_at_once_are_one_refresh() {
    for (kind, options) in [
        (Kind::Oidc, json!({ "rotation": true })),
        (Kind::GitHub, json!({ "expiring": true, "rotation": true })),
    ] {
        let ada = Visitor::from(kind, options).await;
        let first = token(&ada.access_token().await);
        ada.let_it_end().await;
        ada.provider.fault("token", json!({ "hang": true })).await;
        let all = futures_util::future::join_all((0..20).map(|_| ada.access_token()));
        let lift = async {
            eventually(SOON, async || ada.provider.requests("token").await.len() == 2).await;
            ada.provider.lift("token").await;
        };
        let (answers, ()) = tokio::join!(all, lift);
        let second = token(&answers[0]);
        assert_ne!(second, first, "{kind:?}");
        for answer in &answers {
            assert_eq!(token(answer), second, "{kind:?}");
        }
        assert_eq!(refreshes(&ada.provider).await, 1, "{kind:?}");
        assert_ne!(token(&ada.refresh().await), second, "{kind:?}: what came with it works");
    }
}

/// The provider gives its answer once.
#[tokio::test]
async fn whoever_goes_away_while_their_token_is_refreshed_loses_nothing() {
    let ada = Visitor::from(Kind::Oidc, json!({ "rotation": true })).await;
    let session = ada.browser.who(&ada.gateway).await["session"]["token"].clone();
    let first = token(&ada.access_token().await);
    ada.let_it_end().await;
    ada.provider.fault("token", json!({ "hang": true })).await;
    let call = ada.gateway.post("/api/auth/get-access-token");
    let call = call
        .bearer(session.as_str().unwrap())
        .json(&json!({ "accountId": ada.account }));
    let asking = tokio::spawn(call.into_future());
    eventually(SOON, async || ada.provider.requests("token").await.len() == 2).await;
    asking.abort();
    assert!(asking.await.unwrap_err().is_cancelled());
    ada.provider.lift("token").await;
    let second = token(&ada.access_token().await);
    assert_ne!(second, first);
    assert_eq!(refreshes(&ada.provider).await, 1);
    assert_ne!(token(&ada.refresh().await), second);
}

/// Spends a refresh token beside the gateway, as a thief would.
async fn spend(provider: &Provider, client: &Client, refresh_token: &str) -> Response {
    let form = form_urlencoded::Serializer::new(String::new())
        .extend_pairs([
            ("grant_type", "refresh_token"),
            ("refresh_token", refresh_token),
            ("client_id", &client.id),
            ("client_secret", client.secret.as_deref().unwrap()),
        ])
        .finish();
    Call::new(provider.addr(), &provider.url, "POST", "/token")
        .undescribed()
        .header("Content-Type", "application/x-www-form-urlencoded")
        .body(form)
        .await
}

#[tokio::test]
async fn a_refresh_token_that_the_provider_has_withdrawn_is_told_and_signing_in_mends_it() {
    let ada = Visitor::from(Kind::Oidc, json!({})).await;
    let refresh_token = ada.refresh().await.json()["refreshToken"].as_str().unwrap().to_owned();
    for status in [200, 400] {
        let spent = spend(&ada.provider, &ada.client, &refresh_token).await;
        assert_eq!(spent.status(), status, "{}", spent.text());
    }
    ada.let_it_end().await;
    for _ in 0..2 {
        let told = refusal(&ada.access_token().await);
        assert_eq!(told, (400, "FAILED_TO_GET_ACCESS_TOKEN".to_owned()));
        let told = refusal(&ada.refresh().await);
        assert_eq!(told, (400, "FAILED_TO_REFRESH_ACCESS_TOKEN".to_owned()));
    }
    arrive(&ada.browser, &ada.gateway, &ada.client).await;
    let mended = token(&ada.access_token().await);
    assert_eq!(shown(&ada.provider, Kind::Oidc, &mended).await.status(), 200);
    ada.let_it_end().await;
    assert_ne!(token(&ada.access_token().await), mended);
}

#[tokio::test]
async fn what_a_provider_gives_for_somebody_else_is_not_taken() {
    for claims in [
        json!({ "sub": "1002" }),
        json!({ "sub": null }),
        json!({ "iss": "https://elsewhere.example" }),
    ] {
        let ada = Visitor::from(Kind::Oidc, json!({})).await;
        let before = ada.access_token().await.json();
        ada.provider
            .fault("token", json!({ "id_token": { "set": claims } }))
            .await;
        let refused = refusal(&ada.refresh().await);
        assert_eq!(refused, (400, "FAILED_TO_REFRESH_ACCESS_TOKEN".to_owned()), "{claims}");
        assert_eq!(
            ada.access_token().await.json(),
            before,
            "{claims}: nothing of it is kept"
        );
    }
}

#[tokio::test]
async fn a_provider_that_does_not_answer_is_waited_for_so_long_and_works_again_afterwards() {
    let ada = Visitor::by(Kind::Oidc, json!({ "rotation": false }), "timeout = '1s'").await;
    let first = token(&ada.access_token().await);
    ada.let_it_end().await;
    for fault in [
        json!({ "hang": true }),
        json!({ "answer": { "status": 500 } }),
        json!({ "answer": { "status": 200, "body": "<html>" } }),
        json!({ "answer": { "status": 302, "headers": { "location": "/token" } } }),
        json!({ "remove": ["access_token"] }),
    ] {
        ada.provider.fault("token", fault.clone()).await;
        let told = refusal(&ada.access_token().await);
        assert_eq!(told, (400, "FAILED_TO_GET_ACCESS_TOKEN".to_owned()), "{fault}");
        let told = refusal(&ada.refresh().await);
        assert_eq!(told, (400, "FAILED_TO_REFRESH_ACCESS_TOKEN".to_owned()), "{fault}");
    }
    ada.provider.lift("token").await;
    assert_ne!(token(&ada.access_token().await), first);
}

#[tokio::test]
async fn without_a_refresh_token_there_is_what_there_is() {
    let ada = Visitor::from(Kind::Oidc, json!({ "refresh_tokens": "never" })).await;
    let first = token(&ada.access_token().await);
    let told = refusal(&ada.refresh().await);
    assert_eq!(told, (400, "REFRESH_TOKEN_NOT_FOUND".to_owned()));
    ada.let_it_end().await;
    assert_eq!(token(&ada.access_token().await), first);
    assert_eq!(refreshes(&ada.provider).await, 0);
}

#[tokio::test]
async fn a_password_is_no_provider() {
    let gateway = Setup::default().start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    let accounts = gateway.get("/api/auth/list-accounts").with(&ada).await.json();
    let body = json!({ "accountId": accounts[0]["id"] });
    for path in ["get-access-token", "refresh-token"] {
        for body in [&body, &json!({ "providerId": "credential" })] {
            let answer = gateway.post(&format!("/api/auth/{path}")).with(&ada).json(body).await;
            assert_eq!(refusal(&answer), (400, "PROVIDER_NOT_SUPPORTED".to_owned()), "{path}");
            assert_eq!(answer.json()["message"], "Provider credential is not supported.");
        }
    }
    let id = accounts[0]["id"].as_str().unwrap();
    let answer = gateway
        .get(&format!("/api/auth/account-info?accountId={id}"))
        .with(&ada)
        .await;
    assert_eq!(refusal(&answer), (400, "PROVIDER_NOT_CONFIGURED".to_owned()));
}

#[tokio::test]
async fn tokens_of_a_provider_that_is_not_configured_any_more_are_not_handed_out() {
    let ada = Visitor::from(Kind::Oidc, json!({})).await;
    let (_, another) = at(Kind::Oidc, json!({})).await;
    // Without it; and with another of that name, which must not see them.
    for over in [String::new(), another.toml()] {
        let setup = Setup::default().with(&over).clock(ada.gateway.clock());
        let gateway = setup.start_on(ada.db()).await;
        for path in ["get-access-token", "refresh-token"] {
            let answer = ask(&ada.browser, &gateway, path, &ada.account).await;
            assert_eq!(refusal(&answer), (400, "PROVIDER_NOT_SUPPORTED".to_owned()), "{path}");
        }
        let target = format!("/api/auth/account-info?accountId={}", ada.account);
        let answer = ada.browser.get(&gateway, &target).await;
        assert_eq!(refusal(&answer), (400, "PROVIDER_NOT_CONFIGURED".to_owned()));
    }
    assert_eq!(refreshes(&ada.provider).await, 0);
}

#[tokio::test]
async fn an_account_of_somebody_else_is_as_if_there_were_none() {
    let ada = Visitor::from(Kind::Oidc, json!({})).await;
    ada.provider.person("2002", "eve@example.com", true).await;
    let eve = Browser::default();
    eve.sign_in_at(&ada.gateway, &ada.client, "2002").await;
    let none = (400, "ACCOUNT_NOT_FOUND".to_owned());
    for body in [
        json!({ "accountId": ada.account }),
        json!({ "accountId": "1001" }),
        json!({ "providerId": "there", "accountId": "1001" }),
        json!({ "providerId": "there", "accountId": ada.account }),
        json!({ "providerId": "elsewhere" }),
    ] {
        for path in ["get-access-token", "refresh-token"] {
            let answer = eve.post(&ada.gateway, &format!("/api/auth/{path}"), &body).await;
            assert_eq!(refusal(&answer), none, "{path} {body}");
        }
        let mut query = form_urlencoded::Serializer::new(String::new());
        let fields = body.as_object().unwrap();
        query.extend_pairs(fields.iter().map(|(name, value)| (name, value.as_str().unwrap())));
        let target = format!("/api/auth/account-info?{}", query.finish());
        assert_eq!(refusal(&eve.get(&ada.gateway, &target).await), none, "{target}");
    }
    assert_eq!(refreshes(&ada.provider).await, 0);
}

#[tokio::test]
async fn whoever_has_no_session_is_told_nothing_at_all() {
    let ada = Visitor::from(Kind::Oidc, json!({})).await;
    let nobody = Browser::default();
    for path in ["get-access-token", "refresh-token"] {
        let answer = ask(&nobody, &ada.gateway, path, &ada.account).await;
        assert_eq!((answer.status(), answer.text()), (401, ""), "{path}");
    }
    let target = format!("/api/auth/account-info?accountId={}", ada.account);
    let answer = nobody.get(&ada.gateway, &target).await;
    assert_eq!((answer.status(), answer.text()), (401, ""));
}

/// Clients up to 1.6 name the provider.
#[tokio::test]
async fn older_clients_name_an_account_by_its_provider() {
    let ada = Visitor::from(Kind::Oidc, json!({})).await;
    let given = token(&ada.access_token().await);
    for body in [
        json!({ "providerId": "there" }),
        json!({ "providerId": "there", "accountId": "1001" }),
    ] {
        let answer = ada
            .browser
            .post(&ada.gateway, "/api/auth/get-access-token", &body)
            .await;
        assert_eq!(token(&answer), given, "{body}");
    }
    for query in ["accountId=1001", "providerId=there", "providerId=there&accountId=1001"] {
        let answer = ada
            .browser
            .get(&ada.gateway, &format!("/api/auth/account-info?{query}"))
            .await;
        assert_eq!(answer.json()["account"]["id"], json!(ada.account), "{query}");
    }
    let body = json!({ "providerId": "there" });
    let answer = ada.browser.post(&ada.gateway, "/api/auth/refresh-token", &body).await;
    assert_ne!(token(&answer), given);
    assert_eq!(
        answer.json()["accountId"],
        json!(ada.account),
        "the row's id whatever was sent"
    );
}

#[tokio::test]
async fn what_a_provider_says_of_somebody_is_asked_now() {
    for kind in KINDS {
        let ada = Visitor::from(kind, json!({})).await;
        let target = format!("/api/auth/account-info?accountId={}", ada.account);
        let answer = ada.browser.get(&ada.gateway, &target).await;
        assert_eq!(answer.status(), 200, "{kind:?}: {}", answer.text());
        let told = answer.json();
        let user = &told["user"];
        assert_eq!(
            (&user["email"], &user["emailVerified"]),
            (&json!("ada@example.com"), &json!(true)),
            "{kind:?}"
        );
        // Apple tells a name once, and not by itself.
        let name = if kind == Kind::Apple { "" } else { "Ada Lovelace" };
        assert_eq!(user["name"], name, "{kind:?}");
        let picture = (kind == Kind::GitHub).then_some("https://avatars.example.test/u/1001");
        assert_eq!(user["image"], json!(picture), "{kind:?}");
        let subject = &told["account"]["accountId"];
        let expected = json!({ "id": ada.account, "providerId": "there", "accountId": subject });
        assert_eq!(told["account"], expected, "{kind:?}");
        let raw = &told["data"];
        match kind {
            Kind::GitHub => assert_eq!((&raw["id"], subject), (&json!(1001), &json!("1001"))),
            Kind::Microsoft => assert_eq!(&raw["oid"], subject),
            Kind::Oidc | Kind::Google | Kind::Apple => {
                assert_eq!((&raw["sub"], subject), (&json!("1001"), &json!("1001")));
            }
        }
        if kind != Kind::Apple {
            ada.provider
                .admit(json!({
                    "sub": "1001", "name": "Ada King", "email": "ada@example.com", "email_verified": true,
                    "xms_edov": true,
                }))
                .await;
            let now = ada.browser.get(&ada.gateway, &target).await.json();
            assert_eq!(now["user"]["name"], "Ada King", "{kind:?}");
        }
    }
}

#[tokio::test]
async fn a_provider_that_does_not_say_who_its_user_is_is_told() {
    let ada = Visitor::by(Kind::GitHub, json!({}), "timeout = '1s'").await;
    let target = format!("/api/auth/account-info?accountId={}", ada.account);
    for fault in [
        json!({ "answer": { "status": 401 } }),
        json!({ "hang": true }),
        json!({ "remove": ["id"] }),
    ] {
        ada.provider.fault("userinfo", fault.clone()).await;
        let answer = ada.browser.get(&ada.gateway, &target).await;
        assert_eq!(refusal(&answer), (401, "FAILED_TO_GET_USER_INFO".to_owned()), "{fault}");
    }
    ada.provider.lift("userinfo").await;
    assert_eq!(ada.browser.get(&ada.gateway, &target).await.status(), 200);
}

/// The slower answer is of the older grant.
#[tokio::test]
async fn a_sign_in_while_a_refresh_is_under_way_wins() {
    let ada = Visitor::from(Kind::Oidc, json!({})).await;
    ada.let_it_end().await;
    ada.provider.fault("token", json!({ "hang": true, "times": 1 })).await;
    let meanwhile = async {
        eventually(SOON, async || ada.provider.requests("token").await.len() == 2).await;
        let again = Browser::default();
        arrive(&again, &ada.gateway, &ada.client).await;
        let newest = token(&ask(&again, &ada.gateway, "get-access-token", &ada.account).await);
        ada.provider.lift("token").await;
        newest
    };
    let (overtaken, newest) = tokio::join!(ada.access_token(), meanwhile);
    assert_eq!(token(&overtaken), newest);
    assert_eq!(token(&ada.access_token().await), newest);
    assert_eq!(refreshes(&ada.provider).await, 1);
    assert_ne!(
        token(&ada.refresh().await),
        newest,
        "with the refresh token of the newer grant"
    );
}

#[tokio::test]
async fn tokens_go_with_the_account() {
    let (_provider, client) = at(Kind::Oidc, json!({})).await;
    let setup = Setup::default().with(&client.toml()).clock(&provider::clock());
    let gateway = setup.start().await;
    // With a password as well, so that there is another way in.
    gateway.verified("ada@example.com").await;
    let browser = Browser::default();
    let account = arrive(&browser, &gateway, &client).await;
    let sealed = "SELECT count(*) FROM accounts WHERE num_nonnulls(access_token, refresh_token, id_token) > 0";
    assert_eq!(gateway.db().count(sealed).await, 1);

    let body = json!({ "accountId": account });
    let unlinked = browser.post(&gateway, "/api/auth/unlink-account", &body).await;
    assert_eq!(unlinked.status(), 200, "{}", unlinked.text());
    assert_eq!(gateway.db().count(sealed).await, 0);
    let none = refusal(&ask(&browser, &gateway, "get-access-token", &account).await);
    assert_eq!(none, (400, "ACCOUNT_NOT_FOUND".to_owned()));

    let linked = arrive(&browser, &gateway, &client).await;
    assert_ne!(linked, account);
    let signed_out = browser.post(&gateway, "/api/auth/sign-out", &json!({})).await;
    assert_eq!(signed_out.status(), 200);
    assert_eq!(ask(&browser, &gateway, "get-access-token", &linked).await.status(), 401);

    arrive(&browser, &gateway, &client).await;
    let deleted = browser.post(&gateway, "/api/auth/delete-user", &json!({})).await;
    assert_eq!(deleted.status(), 200, "{}", deleted.text());
    assert_eq!(gateway.db().count("SELECT count(*) FROM accounts").await, 0);
}

/// Whose refresh comes back when the account is gone.
#[tokio::test]
async fn an_account_that_is_unlinked_while_it_is_refreshed_stays_away() {
    let (provider, client) = at(Kind::Oidc, json!({})).await;
    let setup = Setup::default().with(&client.toml()).clock(&provider::clock());
    let gateway = setup.start().await;
    gateway.verified("ada@example.com").await;
    let browser = Browser::default();
    let account = arrive(&browser, &gateway, &client).await;
    provider.fault("token", json!({ "hang": true })).await;
    let unlink = async {
        eventually(SOON, async || provider.requests("token").await.len() == 2).await;
        let body = json!({ "accountId": account });
        let unlinked = browser.post(&gateway, "/api/auth/unlink-account", &body).await;
        assert_eq!(unlinked.status(), 200, "{}", unlinked.text());
        provider.lift("token").await;
    };
    let refresh = ask(&browser, &gateway, "refresh-token", &account);
    let (refreshed, ()) = tokio::join!(refresh, unlink);
    assert_eq!(refusal(&refreshed), (400, "ACCOUNT_NOT_FOUND".to_owned()));
    let left = "SELECT count(*) FROM accounts WHERE provider_id <> 'credential'";
    assert_eq!(gateway.db().count(left).await, 0);
}

/// As when all secrets were lost; what the provider gave is lost with them.
#[tokio::test]
async fn tokens_that_no_secret_opens_are_told_and_signing_in_mends_it() {
    let ada = Visitor::from(Kind::Oidc, json!({})).await;
    let before = token(&ada.access_token().await);
    let gateway = ada
        .beside("[auth]\nsecret = 'another secret, with nothing known of the one before'")
        .await;
    let browser = Browser::default();
    // Nobody's cookie is worth anything any more, and people sign in as ever.
    assert!(ada.browser.who(&gateway).await.is_null());
    assert_eq!(arrive(&browser, &gateway, &ada.client).await, ada.account);
    let mended = token(&ask(&browser, &gateway, "get-access-token", &ada.account).await);
    assert_ne!(mended, before);

    // Somebody who is signed in, at a gateway that opens nothing of what is stored.
    ada.browser.sign_in_at(&ada.gateway, &ada.client, SUB).await;
    let told = refusal(&ask(&browser, &gateway, "get-access-token", &ada.account).await);
    assert_eq!(told, (400, "FAILED_TO_GET_ACCESS_TOKEN".to_owned()));
    let told = refusal(&ask(&browser, &gateway, "refresh-token", &ada.account).await);
    assert_eq!(told, (400, "REFRESH_TOKEN_NOT_FOUND".to_owned()));
    let target = format!("/api/auth/account-info?accountId={}", ada.account);
    let told = refusal(&browser.get(&gateway, &target).await);
    assert_eq!(told, (400, "FAILED_TO_GET_ACCESS_TOKEN".to_owned()));
    assert_eq!(refreshes(&ada.provider).await, 0);
}

#[tokio::test]
async fn of_two_accounts_each_has_its_own_token() {
    let (one, first) = at(Kind::Oidc, json!({})).await;
    let two = Provider::start(Kind::GitHub, json!({})).await;
    let second = two.client("other").await;
    two.person("1001", "ada@example.com", true).await;
    let setup = Setup::default().with(&first.toml()).with(&second.toml());
    let gateway = setup.clock(&provider::clock()).start().await;
    let browser = Browser::default();
    let first_account = arrive(&browser, &gateway, &first).await;
    browser.sign_in_at(&gateway, &second, "1001").await;
    let second_account = account_at(&browser, &gateway, "other").await;
    let first_token = token(&ask(&browser, &gateway, "get-access-token", &first_account).await);
    let second_token = token(&ask(&browser, &gateway, "get-access-token", &second_account).await);
    assert_eq!(shown(&one, Kind::Oidc, &first_token).await.status(), 200);
    assert_eq!(shown(&two, Kind::GitHub, &second_token).await.status(), 200);
}
