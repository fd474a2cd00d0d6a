//! Coming back from a provider without having left for one, or not the way one left (OAUTH-01, OAUTH-11); and asking for
//! a provider that there is none of.

use serde_json::json;

use crate::harness::{Gateway, client::Response};

const ERROR_PAGE: &str = "https://app.example.com/api/auth/error";
const NEVER_GIVEN_OUT: &str = "Zx4mR0bW7sQh1TnV9cKdLuYp2gAeJf8iMo5tBwNqXrE";

fn location(answer: &Response) -> &str {
    answer.head.one("location").unwrap_or_default()
}

#[tokio::test]
async fn oauth_11_whatever_comes_back_without_a_good_state_ends_at_the_error_page() {
    let gateway = Gateway::start().await;
    for path in ["/api/auth/callback/google", "/api/auth/oauth2/callback/google"] {
        for (query, error) in [
            (String::new(), "state_not_found"),
            ("?code=x".to_owned(), "state_not_found"),
            ("?state=&code=x".to_owned(), "state_not_found"),
            ("?error=access_denied".to_owned(), "state_not_found"),
            (format!("?state={NEVER_GIVEN_OUT}&code=x"), "state_mismatch"),
            (
                format!("?state={NEVER_GIVEN_OUT}&error=access_denied"),
                "state_mismatch",
            ),
            ("?state=%00&code=%00".to_owned(), "state_mismatch"),
            ("?state=%FF%FE&code=x".to_owned(), "state_mismatch"),
            (format!("?state={}&code=x", "s".repeat(20_000)), "state_mismatch"),
            (
                format!("?state={NEVER_GIVEN_OUT}&code={}", "c".repeat(20_000)),
                "state_mismatch",
            ),
            ("?state=a&state=b&code=x".to_owned(), "invalid_callback_request"),
            (
                format!("?state={NEVER_GIVEN_OUT}&code=x&code=y"),
                "invalid_callback_request",
            ),
        ] {
            let answer = gateway.get(&format!("{path}{query}")).await;
            assert_eq!(answer.status(), 302, "{query:.60}");
            assert_eq!(location(&answer), format!("{ERROR_PAGE}?error={error}"), "{query:.60}");
            assert!(!answer.head.has("set-cookie"), "{query:.60}");
        }
    }
    // What is no array to us is the name of another parameter, and nobody's.
    let answer = gateway.get("/api/auth/callback/google?state[]=a&code[0]=b").await;
    assert_eq!(location(&answer), format!("{ERROR_PAGE}?error=state_not_found"));
    assert!(!gateway.log().contains(NEVER_GIVEN_OUT));
}

#[tokio::test]
async fn oauth_11_a_code_of_100_kib_is_refused_and_nothing_breaks() {
    let gateway = Gateway::start().await;
    let code = "c".repeat(100 * 1024);
    let head = format!("GET /api/auth/callback/google?state=x&code={code} HTTP/1.1\r\nHost: app.example.com\r\n\r\n");
    let mut raw = gateway.raw().await;
    raw.send(&head).await;
    assert_eq!(raw.answer().await.status(), 431);
    let form = format!("state=x&code={code}");
    let answer = post(&gateway, "google", form).await;
    assert_eq!((answer.status(), answer.code().as_str()), (413, "BODY_TOO_LARGE"));
    let answer = post(&gateway, "google", format!("state=x&code={}", "c".repeat(17_000))).await;
    assert_eq!((answer.status(), answer.code().as_str()), (400, "VALIDATION_ERROR"));
    assert_eq!(gateway.get("/api/auth/ok").await.status(), 200);
}

async fn post(gateway: &Gateway, provider: &str, form: impl Into<Vec<u8>>) -> Response {
    gateway
        .post(&format!("/api/auth/callback/{provider}"))
        .header("Content-Type", "application/x-www-form-urlencoded")
        .header("Origin", "https://appleid.apple.com")
        .header("Sec-Fetch-Site", "cross-site")
        .header("Sec-Fetch-Mode", "navigate")
        .body(form)
        .await
}

/// Apple posts from its own site, and a browser adds no cookie of ours.
#[tokio::test]
async fn a_form_from_a_providers_site_is_sent_on_with_what_belongs_to_it_alone() {
    let gateway = Gateway::start().await;
    let base = "https://app.example.com/api/auth";
    let form = "state=s%26t&code=c+d&user=%7B%22name%22%3A1%7D&iss=i&other=x&callbackURL=https%3A%2F%2Fevil.example";
    let answer = post(&gateway, "apple", form).await;
    assert_eq!(answer.status(), 302);
    let expected = format!("{base}/callback/apple?code=c+d&state=s%26t&user=%7B%22name%22%3A1%7D&iss=i");
    assert_eq!(location(&answer), expected);
    assert!(!answer.head.has("set-cookie"));

    let refused = post(
        &gateway,
        "apple",
        "error=user_cancelled_authorize&state=x&error_description=no",
    )
    .await;
    let query = "state=x&error=user_cancelled_authorize&error_description=no";
    assert_eq!(location(&refused), format!("{base}/callback/apple?{query}"));

    // A cookie changes nothing: where it comes from is not asked.
    let with_cookie = gateway
        .post("/api/auth/oauth2/callback/x?state=a")
        .header("Cookie", "a=b")
        .header("Origin", "https://evil.example")
        .json(&json!({ "code": "c", "state": "b", "other": 7 }))
        .await;
    assert_eq!(
        location(&with_cookie),
        format!("{base}/oauth2/callback/x?code=c&state=a")
    );

    let twice = post(&gateway, "apple", "state=a&state=b").await;
    assert_eq!((twice.status(), twice.code().as_str()), (400, "BAD_REQUEST"));
    let nested = gateway
        .post("/api/auth/callback/apple")
        .json(&json!({ "iss": {} }))
        .await;
    assert_eq!((nested.status(), nested.code().as_str()), (400, "VALIDATION_ERROR"));
    let nothing = post(&gateway, "apple", "").await;
    assert_eq!(location(&nothing), format!("{base}/callback/apple?"));
}

#[tokio::test]
async fn a_provider_that_there_is_none_of_is_not_found() {
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    for provider in ["google", "nobody", "", "../x"] {
        let answer = gateway
            .post("/api/auth/link-social")
            .with(&ada)
            .json(&json!({ "provider": provider }));
        let answer = answer.await;
        assert_eq!((answer.status(), answer.code().as_str()), (404, "PROVIDER_NOT_FOUND"));
    }
    let answer = gateway
        .post("/api/auth/sign-in/social")
        .json(&json!({ "provider": "google" }))
        .await;
    assert_eq!((answer.status(), answer.code().as_str()), (404, "PROVIDER_NOT_FOUND"));
    assert!(!answer.head.has("set-cookie") && !answer.head.has("location"));
    let body = json!({ "providerId": "nobody" });
    for path in ["sign-in/oauth2", "oauth2/link"] {
        let answer = gateway.post(&format!("/api/auth/{path}")).with(&ada).json(&body).await;
        assert_eq!((answer.status(), answer.code().as_str()), (404, "PROVIDER_NOT_FOUND"));
    }
    assert_eq!(gateway.db().count("SELECT count(*) FROM auth.oauth_flows").await, 0);
}

#[tokio::test]
async fn linking_needs_a_session() {
    let gateway = Gateway::start().await;
    let answer = gateway
        .post("/api/auth/link-social")
        .json(&json!({ "provider": "google" }))
        .await;
    assert_eq!((answer.status(), answer.code().as_str()), (401, "UNAUTHORIZED"));
}

#[tokio::test]
async fn every_target_is_judged_before_anything_else() {
    let gateway = Gateway::start().await;
    for (field, code) in [
        ("callbackURL", "INVALID_CALLBACK_URL"),
        ("errorCallbackURL", "INVALID_ERROR_CALLBACK_URL"),
        ("newUserCallbackURL", "INVALID_NEW_USER_CALLBACK_URL"),
    ] {
        let body = json!({ "provider": 7, field: "https://evil.example/" });
        let answer = gateway.post("/api/auth/link-social").json(&body).await;
        assert_eq!((answer.status(), answer.code()), (403, code.to_owned()));
    }
}

#[tokio::test]
async fn what_the_flow_sets_itself_is_nobody_elses_to_say() {
    let gateway = Gateway::start().await;
    for name in [
        "state",
        "client_id",
        "redirect_uri",
        "response_type",
        "code_challenge",
        "code_challenge_method",
        "nonce",
        "scope",
        "request_uri",
    ] {
        let body = json!({ "provider": "google", "additionalParams": { name: "x" } });
        let answer = gateway.post("/api/auth/link-social").json(&body).await;
        assert_eq!(
            (answer.status(), answer.code().as_str()),
            (400, "VALIDATION_ERROR"),
            "{name}"
        );
        assert!(answer.text().contains("[body.additionalParams]"));
    }
}

/// A code that is known is put into words, and none of them is somebody else's.
#[tokio::test]
async fn the_error_page_says_what_happened_and_what_to_do() {
    let gateway = Gateway::start().await;
    let mut said = std::collections::BTreeSet::new();
    for code in [
        "state_mismatch",
        "account_not_linked",
        "signup_disabled",
        "invalid_code",
        "nothing_known",
    ] {
        let page = gateway.get(&format!("/api/auth/error?error={code}")).await;
        assert!(page.text().contains(code));
        said.insert(page.text().split("<p>").nth(1).unwrap().to_owned());
    }
    assert_eq!(said.len(), 5);
    let page = gateway
        .get("/api/auth/error?error=state_mismatch&error_description=%3Cb%3Eno")
        .await;
    assert!(page.text().contains("&lt;b&gt;no") && !page.text().contains("cookies are blocked"));
}
