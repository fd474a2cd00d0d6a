//! The admin listener: liveness, readiness, metrics; and nothing of it in public.

use std::{collections::BTreeMap, time::Duration};

use futures_util::future::join_all;
use tokio::time::timeout;

use crate::harness::{Gateway, RawClient, SOON, client::Response, eventually};

/// Asks the admin listener otherwise than by GET.
async fn ask(gateway: &Gateway, method: &str, path: &str) -> Response {
    let mut client = RawClient::connect(gateway.admin()).await;
    client
        .send(format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"))
        .await;
    client.answer_to(method).await
}

/// The samples of a text in the OpenMetrics format, read as strictly as its grammar is.
#[track_caller]
fn samples(text: &str) -> BTreeMap<String, f64> {
    let body = text.strip_suffix("# EOF\n").expect("it ends with # EOF");
    let mut families: Vec<&str> = Vec::new();
    let mut samples = BTreeMap::new();
    for line in body.lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            let (keyword, rest) = comment.split_once(' ').expect("a keyword");
            assert!(matches!(keyword, "HELP" | "TYPE" | "UNIT"), "{line}");
            let family = rest.split(' ').next().unwrap();
            if families.last() != Some(&family) {
                assert!(!families.contains(&family), "{family} is told of in two places");
                families.push(family);
            }
            continue;
        }
        let (name, value) = line.rsplit_once(' ').expect("a name and a value");
        let bare = name.split('{').next().unwrap();
        let family = families.last().expect("a sample belongs to a family");
        let suffix = bare
            .strip_prefix(family)
            .unwrap_or_else(|| panic!("{line} is not of {family}"));
        assert!(
            matches!(suffix, "" | "_total" | "_bucket" | "_sum" | "_count"),
            "{line}"
        );
        assert!(name.contains('{') == name.ends_with('}'), "{line}");
        let before = samples.insert(name.to_owned(), value.parse().expect("a number"));
        assert!(before.is_none(), "{name} occurs twice");
    }
    samples
}

#[tokio::test]
async fn it_says_that_it_is_alive_and_ready() {
    let gateway = Gateway::start().await;
    let alive = gateway.admin_get("/livez").await;
    assert_eq!((alive.status(), alive.json()["status"].as_str()), (200, Some("alive")));
    let ready = gateway.admin_get("/readyz").await;
    assert_eq!((ready.status(), ready.json()["status"].as_str()), (200, Some("ready")));
    eventually(SOON, async || {
        gateway.admin_get("/readyz").await.json().get("degraded").is_none()
    })
    .await;
    assert_eq!(ready.head.one("cache-control"), Some("no-store"));
    assert_eq!(ask(&gateway, "HEAD", "/readyz").await.status(), 200);
    assert_eq!(ask(&gateway, "POST", "/readyz").await.status(), 405);
    assert_eq!(gateway.admin_get("/elsewhere").await.status(), 404);
}

#[tokio::test]
async fn metrics_count_what_happened() {
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    eventually(SOON, async || {
        gateway.admin_get("/readyz").await.json().get("degraded").is_none()
    })
    .await;
    let before = samples(gateway.admin_get("/metrics").await.text());
    for _ in 0..5 {
        assert_eq!(gateway.get("/api/me").with(&ada).await.status(), 200);
    }
    assert_eq!(gateway.get("/api/me").await.status(), 401);
    let mut after = BTreeMap::new();
    // A request counts when its connection has taken the last byte, a moment after the client has it.
    let grown = |after: &BTreeMap<String, f64>, name: &str| after[name] - before[name];
    eventually(SOON, async || {
        let metrics = gateway.admin_get("/metrics").await;
        assert!(
            metrics
                .head
                .one("content-type")
                .unwrap()
                .starts_with("application/openmetrics-text")
        );
        after = samples(metrics.text());
        (grown(&after, "vestibule_request_duration_seconds_count") - 6.0).abs() < 0.5
    })
    .await;
    for (name, count) in [
        ("vestibule_requests_total{status=\"2xx\"}", 5.0),
        ("vestibule_requests_total{status=\"4xx\"}", 1.0),
        ("vestibule_requests_total{status=\"5xx\"}", 0.0),
        ("vestibule_request_duration_seconds_bucket{le=\"+Inf\"}", 6.0),
        ("vestibule_connections_total", 6.0),
        ("vestibule_session_lookup_failures_total", 0.0),
        ("vestibule_access_log_dropped_total", 0.0),
        ("vestibule_events_dropped_total", 0.0),
    ] {
        assert!(
            (grown(&after, name) - count).abs() < 0.5,
            "{name}: {} -> {}",
            before[name],
            after[name]
        );
    }
    let (hits, misses) = (
        "vestibule_session_cache_hits_total",
        "vestibule_session_cache_misses_total",
    );
    assert!(grown(&after, hits) >= 4.0, "{after:?}");
    assert!(
        (grown(&after, hits) + grown(&after, misses) - 5.0).abs() < 0.5,
        "{after:?}"
    );
    let endpoint = format!("{{upstream=\"app\",endpoint=\"http://{}\"}}", gateway.upstream().addr());
    assert!(after[&format!("vestibule_upstream_connects_total{endpoint}")] >= 1.0);
    assert!((after[&format!("vestibule_upstream_healthy{endpoint}")] - 1.0).abs() < 0.5);
    assert!((after["vestibule_revocations_heard"] - 1.0).abs() < 0.5);
}

#[tokio::test]
async fn metrics_hold_nothing_of_a_user() {
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    gateway.get("/api/me?secret=1").with(&ada).await;
    let metrics = gateway.admin_get("/metrics").await;
    for private in ["ada", "/api/me", "secret", &ada.token, &ada.id] {
        assert!(!metrics.text().contains(private), "{private} is in the metrics");
    }
}

/// EXPOSE-01: whoever reaches the public listener reaches nothing of the admin listener's.
#[tokio::test]
async fn expose_01_the_public_listener_knows_nothing_of_it() {
    let gateway = Gateway::start().await;
    for path in [
        "/livez",
        "/readyz",
        "/metrics",
        "//metrics",
        "/%6detrics",
        "/public/../metrics",
    ] {
        let answer = gateway.get(path).await;
        assert_eq!(
            (answer.status(), answer.code()),
            (404, "NOT_FOUND".to_owned()),
            "{path}"
        );
    }
    assert_ne!(gateway.admin(), gateway.addr());
    assert!(gateway.upstream().requests().is_empty());
}

#[tokio::test]
async fn the_admin_listener_forwards_nothing() {
    let gateway = Gateway::start().await;
    for path in ["/public/x", "/api/auth/ok"] {
        assert_eq!(gateway.admin_get(path).await.status(), 404, "{path}");
    }
    assert!(gateway.upstream().requests().is_empty());
}

/// A site whose name leads to this machine (DNS rebinding), opened by a browser on it.
#[tokio::test]
async fn a_name_that_is_not_of_this_machine_is_told_no_numbers() {
    let gateway = Gateway::start().await;
    let port = gateway.admin().port();
    for (host, status) in [
        (format!("evil.example:{port}"), 421),
        ("evil.example".to_owned(), 421),
        ("127.0.0.1.evil.example".to_owned(), 421),
        ("localhost.evil.example".to_owned(), 421),
        ("\"".to_owned(), 421),
        (gateway.admin().to_string(), 200),
        (format!("localhost:{port}"), 200),
        ("LOCALHOST".to_owned(), 200),
        (format!("[::1]:{port}"), 200),
        ("10.0.0.5".to_owned(), 200),
    ] {
        let mut client = RawClient::connect(gateway.admin()).await;
        client
            .send(format!("GET /metrics HTTP/1.1\r\nHost: {host}\r\n\r\n"))
            .await;
        assert_eq!(client.answer().await.status(), status, "{host}");
    }
    // Probes name hosts as they like, or none.
    for probe in [
        "GET /livez HTTP/1.0\r\n\r\n",
        "GET /readyz HTTP/1.1\r\nHost: vestibule-cluster\r\n\r\n",
        "GET /metrics HTTP/1.1\r\nHost:\r\n\r\n",
    ] {
        let mut client = RawClient::connect(gateway.admin()).await;
        client.send(probe).await;
        assert_eq!(client.answer().await.status(), 200, "{probe}");
    }
}

#[tokio::test]
async fn dos_connections_that_ask_nothing_leave_a_place_for_a_probe() {
    let gateway = Gateway::start().await;
    let mut first = RawClient::connect(gateway.admin()).await;
    first.send("GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert_eq!(first.answer().await.status(), 200);
    let mut idle = Vec::new();
    for _ in 0..500 {
        idle.push(RawClient::connect(gateway.admin()).await);
    }
    assert_eq!(gateway.admin_get("/livez").await.status(), 200);
    // Long before those that are idle are closed.
    let soon = Duration::from_secs(2);
    let closed = timeout(soon, first.is_closed()).await;
    assert!(closed.is_ok(), "who came first makes room");
    let closed = join_all(idle.iter_mut().map(|client| timeout(soon, client.is_closed()))).await;
    let left = closed.iter().filter(|closed| closed.is_err()).count();
    assert!((1..=64).contains(&left), "{left} of 500 still have a place");
}
