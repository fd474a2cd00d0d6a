//! Two hundred pages at once that each begin to sign in at a provider.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::IntoFuture,
};

use serde_json::json;

use super::Control;
use crate::harness::Setup;

const PROVIDER: &str = r#"
[database]
acquire_timeout = "15s"
[auth.oauth.github]
client_id = "github-client"
client_secret = "github-secret"
token_endpoint = "https://127.0.0.1:1/token"
allow_private = true
"#;

#[tokio::test]
async fn cookie_11_of_200_flows_begun_at_once_a_browser_keeps_a_few_cookies_and_can_still_come_back() {
    let gateway = Setup::default().with(PROVIDER).start().await;
    let control = Control::signed_in(&gateway).await;
    let body = json!({ "provider": "github", "callbackURL": "/app/home", "errorCallbackURL": "/oops" });
    let calls: Vec<_> = (0..200)
        .map(|_| tokio::spawn(gateway.post("/api/auth/sign-in/social").json(&body).into_future()))
        .collect();
    // What the browser has in the end: of one name the newest.
    let mut jar = BTreeMap::new();
    let mut urls = BTreeSet::new();
    for call in calls {
        let answer = call.await.unwrap();
        assert_eq!(answer.status(), 200, "{}", answer.text());
        urls.insert(answer.json()["url"].as_str().unwrap().to_owned());
        for cookie in answer.head.all("set-cookie") {
            let (name, value) = cookie.split(';').next().unwrap().split_once('=').unwrap();
            jar.insert(name.to_owned(), value.to_owned());
        }
    }
    assert!(control.end().await > 0);
    assert_eq!(urls.len(), 200, "each is a flow of its own");
    assert!((1..=8).contains(&jar.len()), "{:?}", jar.keys());
    let cookies: Vec<_> = jar.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let cookies = cookies.join("; ");
    assert!(cookies.len() < 2_048, "{} bytes", cookies.len());

    // The next flow begins as ever, and is recognised when the person comes back.
    let begun = gateway
        .post("/api/auth/sign-in/social")
        .header("Cookie", &cookies)
        .header("Origin", gateway.site())
        .json(&body)
        .await;
    assert_eq!(begun.status(), 200);
    let url: url::Url = begun.json()["url"].as_str().unwrap().parse().unwrap();
    let state = url
        .query_pairs()
        .find(|(name, _)| name == "state")
        .unwrap()
        .1
        .into_owned();
    let newest = begun
        .head
        .one("set-cookie")
        .unwrap()
        .split(';')
        .next()
        .unwrap()
        .to_owned();
    let (name, _) = newest.split_once('=').unwrap();
    let others = jar.iter().filter(|(other, _)| *other != name);
    let cookies: Vec<_> = others
        .map(|(name, value)| format!("{name}={value}"))
        .chain([newest.clone()])
        .collect();
    let back = format!("/api/auth/callback/github?state={state}");
    let answer = gateway.get(&back).header("Cookie", cookies.join("; ")).await;
    assert_eq!(answer.status(), 302);
    assert!(
        answer.head.one("location").unwrap().ends_with("/oops?error=no_code"),
        "{:?}",
        answer.head
    );
    // And who is to sign in with a password does.
    gateway.signed_in("ada@example.com").await;
}
