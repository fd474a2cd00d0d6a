//! `strip_prefix` and `add_prefix`: under another path, what was judged.

use crate::harness::{Gateway, SOON, Setup, eventually};

const ROUTES: &str = r#"
[[routes]]
path = "/strip/*"
upstream = "app"
auth = "public"
strip_prefix = "/strip"

[[routes]]
path = "/both/*"
upstream = "app"
auth = "public"
strip_prefix = "/both"
add_prefix = "/v2/api"

[[routes]]
path = "/add/{id}"
upstream = "app"
auth = "public"
add_prefix = "/deep"

[[routes]]
path = "/strip/admin/*"
upstream = "app"
strip_prefix = "/strip"
require = { roles = ["admin"] }
"#;

async fn gateway() -> Gateway {
    Setup::default().with(ROUTES).start().await
}

#[tokio::test]
async fn an_upstream_sees_the_path_under_another_prefix() {
    let gateway = gateway().await;
    for (sent, forwarded) in [
        ("/strip/x/y?q=/strip/..//&r=%2f", "/x/y?q=/strip/..//&r=%2f"),
        ("/strip", "/"),
        ("/strip/", "/"),
        ("/strip?q", "/?q"),
        ("/strip/strip/x", "/strip/x"),
        ("/%73trip/x", "/x"),
        ("/both", "/v2/api"),
        ("/both/", "/v2/api/"),
        ("/both/x/", "/v2/api/x/"),
        ("/add/7", "/deep/add/7"),
        ("/strip/a%20b/%C3%A9", "/a%20b/%C3%A9"),
    ] {
        let answer = gateway.get(sent).await;
        assert_eq!(
            (answer.status(), answer.text()),
            (200, format!("GET {forwarded}").as_str()),
            "{sent}"
        );
    }
}

#[tokio::test]
async fn no_prefix_makes_another_host_or_another_level_of_a_path() {
    let gateway = gateway().await;
    for (sent, forwarded) in [
        ("/strip//evil.example/x", "/evil.example/x"),
        ("/strip///evil.example", "/evil.example"),
        ("/strip/./x", "/x"),
        ("/strip/x/../y", "/y"),
    ] {
        let answer = gateway.get(sent).await;
        assert_eq!(
            (answer.status(), answer.text()),
            (200, format!("GET {forwarded}").as_str()),
            "{sent}"
        );
    }
    let before = gateway.upstream().requests().len();
    for (sent, status) in [
        ("/strip/../../x", 400),
        ("/strip/..%2fx", 400),
        ("/strip/%5c%5cevil.example", 400),
        ("/strip/..;/x", 400),
        ("/strip/../strip2/x", 404),
        ("/stripx", 404),
        ("/strip%2fx", 400),
        ("/strip/x/../admin/y", 401),
        ("/strip//admin/y", 401),
        ("/strip/%61dmin/y", 401),
    ] {
        assert_eq!(gateway.get(sent).await.status(), status, "{sent}");
    }
    assert_eq!(gateway.upstream().requests().len(), before);
}

#[tokio::test]
async fn the_log_has_the_path_that_the_client_sent() {
    let gateway = gateway().await;
    gateway.get("/strip/x").await;
    eventually(SOON, async || gateway.log().contains("\"/strip/x\"")).await;
}
