//! What a browser is sent to a provider with, and where it is to be sent in the end.

use serde_json::json;
use vestibule::config;

use super::{ADA, ADA_SUB, World, location, person};
use crate::harness::{
    Browser, Setup,
    browser::param,
    gateway::whole_text,
    provider::{self, Kind, Provider},
};

/// OAUTH-03: the gateway does not wait for a provider to ask for it.
#[tokio::test]
async fn oauth_03_a_provider_that_ignores_pkce_gets_the_challenge_and_the_verifier_all_the_same() {
    for (kind, pkce) in [
        (Kind::Oidc, json!(false)),
        (Kind::GitHub, json!("ignored")),
        (Kind::Microsoft, json!("ignored")),
        (Kind::Apple, json!("ignored")),
    ] {
        let world = World::of(kind, json!({ "pkce": pkce }), "").await;
        world.is_let_in(ADA_SUB, ADA, &format!("{kind:?}")).await;
        let asked = &world.provider.requests("authorize").await[0]["query"];
        assert_eq!(asked["code_challenge_method"], "S256", "{kind:?}");
        assert_eq!(asked["code_challenge"].as_str().unwrap().len(), 43, "{kind:?}");
        let verifier = &world.provider.requests("token").await[0]["form"]["code_verifier"];
        assert_eq!(verifier.as_str().unwrap().len(), 43, "{kind:?}");
    }
}

/// OAUTH-03: a document that names only `plain` is no reason to say less.
#[tokio::test]
async fn oauth_03_a_provider_that_claims_to_know_plain_alone_is_asked_with_s256() {
    let world = World::new().await;
    let fault = json!({ "set": { "code_challenge_methods_supported": ["plain"] } });
    world.provider.fault("discovery", fault).await;
    let url = world.start(&Browser::default()).await;
    assert_eq!(param(&url, "code_challenge_method").as_deref(), Some("S256"));
}

/// OAUTH-03.
#[tokio::test]
async fn neither_the_app_nor_the_configuration_nor_an_endpoint_changes_what_the_flow_says() {
    let world = World::new().await;
    for name in [
        "code_challenge_method",
        "code_challenge",
        "redirect_uri",
        "state",
        "nonce",
        "request",
    ] {
        let body = json!({ "provider": "there", "additionalParams": { name: "plain" } });
        let answer = world.gateway.post("/api/auth/sign-in/social").json(&body).await;
        assert_eq!(
            (answer.status(), answer.code().as_str()),
            (400, "VALIDATION_ERROR"),
            "{name}"
        );

        let text = format!(
            "{}\n{}authorization_params = {{ {name} = 'plain' }}",
            whole_text(),
            world.client.toml()
        );
        let refused = config::parse(&text, "gateway.toml", &|_| None)
            .expect_err(name)
            .to_string();
        assert!(
            refused.contains("auth.oauth.there.authorization_params") && refused.contains(name),
            "{refused}"
        );
    }
    let endpoint = format!(
        "{}/auth?code_challenge_method=plain&redirect_uri=x&kept=1",
        world.provider.url
    );
    world
        .provider
        .fault("discovery", json!({ "set": { "authorization_endpoint": endpoint } }))
        .await;
    let url = world.start(&Browser::default()).await;
    assert_eq!(url.matches("code_challenge_method=").count(), 1, "{url}");
    assert_eq!(param(&url, "code_challenge_method").as_deref(), Some("S256"));
    assert_eq!(
        param(&url, "redirect_uri").as_deref(),
        Some(&*world.client.redirect_uri)
    );
    assert_eq!(param(&url, "kept").as_deref(), Some("1"));
}

/// Each flow has secrets of its own.
#[tokio::test]
async fn no_two_flows_share_a_state_a_challenge_or_a_nonce() {
    let world = World::new().await;
    let browser = Browser::default();
    let (one, other) = (world.start(&browser).await, world.start(&browser).await);
    for name in ["state", "code_challenge", "nonce"] {
        let (one, other) = (param(&one, name).unwrap(), param(&other, name).unwrap());
        assert!(one.len() >= 43 && one != other, "{name}: {one}");
    }
}

/// OAUTH-15.
#[tokio::test]
async fn oauth_15_the_redirect_uri_is_that_of_the_public_url_whatever_host_a_request_names() {
    let world = World::new().await;
    let start = || {
        let body = json!({ "provider": "there", "callbackURL": "/home" });
        world.gateway.post("/api/auth/sign-in/social").json(&body)
    };
    assert_eq!(start().header("Host", "evil.example").await.status(), 421);
    let forwarded = start()
        .header("X-Forwarded-Host", "evil.example")
        .header("X-Forwarded-Proto", "http")
        .header("Forwarded", "host=evil.example;proto=http");
    let answer = forwarded.await;
    assert_eq!(answer.status(), 200, "{}", answer.text());
    let url = answer.json()["url"].as_str().unwrap().to_owned();
    assert_eq!(
        param(&url, "redirect_uri").as_deref(),
        Some(&*world.client.redirect_uri)
    );
    assert!(!url.contains("evil"), "{url}");
}

/// REDIR-01, REDIR-03, of all three targets: refused before anything begins.
#[tokio::test]
async fn redir_01_redir_03_no_flow_begins_that_is_to_end_elsewhere() {
    let world = World::new().await;
    let evil = [
        "https://evil.example/",
        "//evil.example",
        "///evil.example",
        "/\\evil.example",
        "\\\\evil.example",
        "/%09/evil.example",
        "/\t/evil.example",
        "/%2f%2fevil.example",
        "/%5cevil.example",
        "https:evil.example",
        "https:/evil.example",
        "https:///evil.example",
        "https://app.example.com@evil.example",
        "https://app.example.com:x@evil.example/",
        "https://app.example.com.evil.example/",
        "https://evilapp.example.com/",
        "https://app.example.com\\@evil.example",
        " https://evil.example",
        "javascript:alert(1)",
        "data:text/html,x",
        "http://app.example.com/",
    ];
    for (field, code) in [
        ("callbackURL", "INVALID_CALLBACK_URL"),
        ("errorCallbackURL", "INVALID_ERROR_CALLBACK_URL"),
        ("newUserCallbackURL", "INVALID_NEW_USER_CALLBACK_URL"),
    ] {
        for target in evil {
            let body = json!({ "provider": "there", field: target });
            let answer = world.gateway.post("/api/auth/sign-in/social").json(&body).await;
            assert_eq!((answer.status(), answer.code().as_str()), (403, code), "{target:?}");
        }
    }
    assert_eq!(world.count("auth.oauth_flows").await, 0);
}

/// What a foreign page can have a browser send begins no flow, and no GET does.
#[tokio::test]
async fn a_foreign_page_starts_nothing() {
    let world = World::new().await;
    let ada = world.gateway.signed_in("bob@example.com").await;
    for path in ["/api/auth/sign-in/social", "/api/auth/link-social"] {
        let body = json!({ "provider": "there" });
        let cross_site = world
            .gateway
            .post(path)
            .header("Cookie", &ada.cookie)
            .header("Origin", "https://evil.example")
            .header("Sec-Fetch-Site", "cross-site");
        assert_eq!(cross_site.json(&body).await.status(), 403, "{path}");
        let form = world
            .gateway
            .post(path)
            .header("Origin", "https://evil.example")
            .header("Sec-Fetch-Site", "cross-site")
            .header("Content-Type", "application/x-www-form-urlencoded")
            .body("provider=there");
        let answer = form.await;
        assert!([403, 415].contains(&answer.status()), "{path}: {}", answer.status());
        for method in ["GET", "HEAD"] {
            let target = format!("{path}?provider=there");
            let answer = world.gateway.call(method, &target).header("Cookie", &ada.cookie).await;
            assert!(
                [404, 405].contains(&answer.status()),
                "{method} {path}: {}",
                answer.status()
            );
        }
    }
    assert_eq!(world.count("auth.oauth_flows").await, 0);
}

/// A provider gets its own client's secret, and no other.
#[tokio::test]
async fn a_provider_learns_nothing_of_another() {
    let (here, there) = (Provider::oidc().await, Provider::start(Kind::GitHub, json!({})).await);
    let (one, other) = (here.client("one").await, there.client("other").await);
    here.admit(person(ADA_SUB, ADA)).await;
    there.admit(person(ADA_SUB, ADA)).await;
    let setup = Setup::default().with(&one.toml()).with(&other.toml());
    let gateway = setup.clock(&provider::clock()).start().await;
    for client in [&one, &other] {
        let answer = Browser::default().sign_in_at(&gateway, client, ADA_SUB).await;
        assert_eq!(location(&answer), "/home");
    }
    for (provider, own, foreign) in [(here, &one, &other), (there, &other, &one)] {
        let seen = provider.requests("token").await;
        assert_eq!(seen.len(), 1);
        assert_eq!(seen[0]["form"]["client_id"], json!(own.id));
        let all = seen[0].to_string();
        assert!(!all.contains(foreign.secret.as_deref().unwrap()) && !all.contains(&foreign.id));
    }
}
