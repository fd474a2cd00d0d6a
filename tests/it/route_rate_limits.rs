//! How often a route may be asked.

use std::time::Duration;

use crate::harness::{Gateway, Setup};

const ROUTES: &str = r#"
[server]
trusted_proxies = []

[[routes]]
path = "/address/*"
upstream = "app"
auth = "public"
rate_limit = { requests = 3, window = "30s" }

[[routes]]
path = "/other/*"
upstream = "app"
auth = "public"
rate_limit = { requests = 3, window = "30s" }

[[routes]]
path = "/user/*"
upstream = "app"
auth = "optional"
rate_limit = { requests = 2, window = "1m", by = "user" }

[[routes]]
path = "/guarded/*"
upstream = "app"
rate_limit = { requests = 2, window = "1m" }

[[routes]]
path = "/free/*"
upstream = "app"
auth = "public"
"#;

async fn gateway() -> Gateway {
    Setup::default().with(ROUTES).start().await
}

async fn behind_a_proxy() -> Gateway {
    let setup = Setup::default().with(ROUTES);
    setup.with("[server]\ntrusted_proxies = ['127.0.0.1/32']").start().await
}

#[tokio::test]
async fn what_is_too_much_is_429_until_time_has_passed() {
    let gateway = gateway().await;
    for _ in 0..3 {
        assert_eq!(gateway.get("/address/x").await.status(), 200);
    }
    let refused = gateway.get("/address/y").await;
    assert_eq!((refused.status(), refused.code().as_str()), (429, "TOO_MANY_REQUESTS"));
    let wait: u64 = refused.head.one("retry-after").unwrap().parse().unwrap();
    assert!((1..=11).contains(&wait), "{wait}");
    assert_eq!(gateway.upstream().requests().len(), 3);
    // Other routes have budgets of their own, or none.
    assert_eq!(gateway.get("/other/x").await.status(), 200);
    for _ in 0..10 {
        assert_eq!(gateway.get("/free/x").await.status(), 200);
    }
    gateway.clock().advance(Duration::from_secs(wait));
    assert_eq!(gateway.get("/address/x").await.status(), 200);
    assert_eq!(gateway.get("/address/x").await.status(), 429);
}

#[tokio::test]
async fn an_address_that_is_made_up_has_no_budget_of_its_own() {
    let gateway = gateway().await;
    for number in 0..6 {
        let call = gateway
            .get("/address/x")
            .header("X-Forwarded-For", format!("203.0.113.{number}"));
        let call = call.header("Forwarded", format!("for=203.0.113.{number}"));
        let status = call.header("X-Real-IP", format!("203.0.113.{number}")).await.status();
        assert_eq!(status, if number < 3 { 200 } else { 429 }, "{number}");
    }
}

#[tokio::test]
async fn behind_a_trusted_proxy_each_client_has_its_own() {
    let gateway = behind_a_proxy().await;
    let ask = |address: &str| gateway.get("/address/x").header("X-Forwarded-For", address);
    for address in ["203.0.113.1", "203.0.113.2"] {
        for _ in 0..3 {
            assert_eq!(ask(address).await.status(), 200);
        }
        assert_eq!(ask(address).await.status(), 429);
    }
    // What the client wrote in front of what the proxy saw is not believed.
    assert_eq!(ask("198.51.100.9, 203.0.113.1").await.status(), 429);
    // An IPv6 customer has a /64 of addresses.
    for number in 0..4 {
        let status = ask(&format!("2001:db8::{number:x}")).await.status();
        assert_eq!(status, if number < 3 { 200 } else { 429 });
    }
    assert_eq!(ask("2001:db8:0:1::1").await.status(), 200);
}

#[tokio::test]
async fn by_user_people_behind_one_address_have_their_own() {
    let gateway = gateway().await;
    let ada = gateway.signed_in("ada@example.com").await;
    let bob = gateway.signed_in("bob@example.com").await;
    for user in [&ada, &bob] {
        for _ in 0..2 {
            assert_eq!(gateway.get("/user/x").with(user).await.status(), 200);
        }
        assert_eq!(gateway.get("/user/x").with(user).await.status(), 429);
    }
    // Nobody in particular: by address.
    assert_eq!(gateway.get("/user/x").await.status(), 200);
    assert_eq!(
        gateway.get("/user/x").header("Cookie", "theme=dark").await.status(),
        200
    );
    assert_eq!(gateway.get("/user/x").await.status(), 429);
}

#[tokio::test]
async fn refused_requests_count_where_they_cost() {
    let gateway = gateway().await;
    for _ in 0..2 {
        assert_eq!(gateway.get("/guarded/x").await.status(), 401);
    }
    assert_eq!(gateway.get("/guarded/x").await.status(), 429);
    let metrics = gateway.admin_get("/metrics").await;
    let counted = "vestibule_rate_limited_total{rule=\"routes\"} 1";
    assert!(metrics.text().contains(counted), "{}", metrics.text());
}
