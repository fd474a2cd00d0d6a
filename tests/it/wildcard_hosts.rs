//! Routes for one host, for all hosts below one, and for any.

use crate::harness::{Gateway, Setup};

const ROUTES: &str = r#"
[[routes]]
path = "/*"
auth = "public"
respond = { body = "any" }

[[routes]]
host = "*.example.org"
path = "/*"
auth = "public"
respond = { body = "below" }

[[routes]]
host = "*.deep.example.org"
path = "/*"
auth = "public"
respond = { body = "deep" }

[[routes]]
host = "one.example.org"
path = "/own/*"
auth = "public"
respond = { body = "one" }
"#;

async fn gateway() -> Gateway {
    Setup::default().with(ROUTES).start().await
}

#[tokio::test]
async fn the_nearest_host_wins() {
    let gateway = gateway().await;
    for (host, path, body) in [
        ("app.example.com", "/x", "any"),
        ("a.example.org", "/x", "below"),
        ("A.Example.Org", "/x", "below"),
        ("a.b.example.org:8443", "/x", "below"),
        ("x.deep.example.org", "/x", "deep"),
        ("deep.example.org", "/x", "below"),
        ("one.example.org", "/own/x", "one"),
        ("one.example.org", "/x", "below"),
    ] {
        let answer = gateway.get(path).header("Host", host).await;
        assert_eq!((answer.status(), answer.text()), (200, body), "{host}{path}");
    }
}

#[tokio::test]
async fn a_look_alike_is_not_served() {
    let gateway = gateway().await;
    for host in [
        "example.org",
        "evilexample.org",
        "a.example.org.evil.net",
        "a.example.orgx",
        "example.net",
    ] {
        assert_eq!(gateway.get("/x").header("Host", host).await.status(), 421, "{host}");
    }
    for host in [".example.org", "*.example.org", "a..example.org"] {
        let status = gateway.get("/x").header("Host", host).await.status();
        assert!(matches!(status, 400 | 421), "{host}: {status}");
    }
}
