//! Whether an answer is of the provider that was asked (RFC 9207), and what else in it a stranger may have written.

use serde_json::json;

use super::{ADA_SUB, World, location};
use crate::harness::{Browser, browser::param, provider::Kind};

/// The certified provider promises `iss` in its discovery document, and keeps to it.
#[tokio::test]
async fn an_answer_that_names_another_issuer_or_none_is_not_redeemed() {
    let world = World::new().await;
    let url = world.provider.url.clone();
    for iss in [
        None,
        Some(""),
        Some("https://evil.example"),
        Some(&*format!("{url}/")),
        Some(&*url.replace("http://", "HTTP://")),
    ] {
        let browser = Browser::default();
        let back = world.back(&browser, ADA_SUB).await;
        assert_eq!(back.get("iss"), Some(&*url));
        let end = world.land(&browser, &back.with("iss", iss)).await;
        assert_eq!(end, "/sorry?error=issuer_mismatch", "{iss:?}");
        // Nor is it a second time, when it is right.
        let end = world.land(&browser, &back).await;
        assert!(end.ends_with("/error?error=state_mismatch"), "{end}");
    }
    assert_eq!((world.asked("token").await, world.count("users").await), (0, 0));
}

/// RFC 9207, section 2.4: an error of somebody else's is none of this flow's, and none of its words reach anybody.
#[tokio::test]
async fn an_error_that_names_another_issuer_is_not_passed_on() {
    let world = World::new().await;
    for iss in [None, Some("https://evil.example")] {
        let browser = Browser::default();
        let back = browser.deny(&world.start(&browser).await, ADA_SUB).await;
        let said = back.with("iss", iss).with("error_description", Some("Call 0900-EVIL"));
        let end = world.land(&browser, &said).await;
        assert_eq!(end, "/sorry?error=issuer_mismatch", "{iss:?}");
    }
}

/// Providers that do not promise `iss` are still believed when they give one.
#[tokio::test]
async fn an_answer_that_names_another_issuer_is_refused_where_none_is_promised() {
    for kind in [Kind::Google, Kind::GitHub, Kind::Microsoft, Kind::Apple] {
        let world = World::of(kind, json!({}), "").await;
        let browser = Browser::default();
        let back = world.back(&browser, ADA_SUB).await;
        let end = world
            .land(&browser, &back.with("iss", Some("https://evil.example")))
            .await;
        assert_eq!(end, "/sorry?error=issuer_mismatch", "{kind:?}");
        assert_eq!(world.asked("token").await, 0, "{kind:?}");
    }
}

/// An attacker who can have one provider's document name another's endpoints learns no code.
#[tokio::test]
async fn a_discovery_document_of_another_issuer_is_not_followed() {
    let world = World::new().await;
    let fault = json!({ "set": { "issuer": "https://evil.example" } });
    world.provider.fault("discovery", fault).await;
    let body = json!({ "provider": "there" });
    let answer = world.gateway.post("/api/auth/sign-in/social").json(&body).await;
    assert_eq!((answer.status(), answer.code().as_str()), (503, "PROVIDER_UNAVAILABLE"));
    assert!(!answer.head.has("set-cookie"));
    assert_eq!(world.count("auth.oauth_flows").await, 0);
}

#[tokio::test]
async fn what_is_said_twice_in_an_answer_is_refused() {
    let world = World::new().await;
    for name in ["code", "state", "iss"] {
        let browser = Browser::default();
        let mut back = world.back(&browser, ADA_SUB).await;
        let again = (name.to_owned(), back.get(name).unwrap().to_owned());
        back.params.push(again);
        let end = world.land(&browser, &back).await;
        assert!(end.ends_with("/error?error=invalid_callback_request"), "{name}: {end}");
        assert!(browser.who(&world.gateway).await.is_null());
    }
    assert_eq!(world.asked("token").await, 0);
}

/// The answer comes by way of the browser: nothing in it says where the flow ends.
#[tokio::test]
async fn an_answer_does_not_choose_where_it_leads() {
    let world = World::new().await;
    let evil = Some("https://evil.example/");
    let browser = Browser::default();
    let mut back = world.back(&browser, ADA_SUB).await;
    for name in [
        "callbackURL",
        "errorCallbackURL",
        "newUserCallbackURL",
        "redirect_uri",
        "next",
        "return_to",
    ] {
        back = back.with(name, evil);
    }
    let answer = browser.land(&world.gateway, &back).await;
    assert_eq!(location(&answer), "/home");
    let redeemed = world.provider.requests("token").await;
    assert_eq!(redeemed[0]["form"]["redirect_uri"], json!(world.client.redirect_uri));
}

/// It ends in a URL, on a page and in a log.
#[tokio::test]
async fn an_error_of_a_providers_breaks_out_of_nothing() {
    let world = World::new().await;
    let browser = Browser::default();
    let back = browser.deny(&world.start(&browser).await, ADA_SUB).await;
    let evil = "x\r\nSet-Cookie: a=b\r\n\r\n<script>&error=fine#";
    let back = back.with("error", Some(evil)).with("error_description", Some(evil));
    let answer = browser.land(&world.gateway, &back).await;
    assert!(
        !answer
            .head
            .all("set-cookie")
            .iter()
            .any(|cookie| cookie.starts_with("a="))
    );
    let end = location(&answer);
    assert!(end.bytes().all(|byte| byte.is_ascii_graphic()), "{end}");
    let url = format!("http://app{end}");
    assert_eq!(
        param(&url, "error").as_deref(),
        Some("xSet-Cookie:a=b<script>&error=fine#")
    );
    let page = end.replace("/sorry", "/api/auth/error");
    let page = browser.get(&world.gateway, &page).await;
    assert!(!page.text().contains("<script>&error"), "{}", page.text());
}
