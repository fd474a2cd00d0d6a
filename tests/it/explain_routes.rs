//! `vestibule explain` on what a route can say: whatever would become of a request is shown, and why.

use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{
    gateway::whole_text,
    program::{Ended, run},
};

/// The usual configuration with a route more, which is `auth = "public"` unless it says otherwise.
async fn run_on(route: &str, args: &[&str]) -> Ended {
    let folder = TempDir::new().unwrap();
    let dist = folder.path().join("dist");
    std::fs::create_dir(&dist).unwrap();
    std::fs::write(dist.join("index.html"), "").unwrap();
    let auth = if route.contains("auth =") {
        ""
    } else {
        "auth = 'public'\n"
    };
    let lines: Vec<&str> = route.lines().map(str::trim).collect();
    let config = [
        whole_text().as_str(),
        "[[routes]]\n",
        auth,
        lines.join("\n").as_str(),
        "\n",
    ]
    .concat();
    std::fs::write(folder.path().join("gateway.toml"), config).unwrap();
    run(&[&["explain"], args].concat(), &[], folder.path()).await
}

/// What it prints, without the spaces that make columns.
async fn explained(route: &str, args: &[&str]) -> String {
    let ended = run_on(route, args).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let lines = ended.stdout.lines();
    lines
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ") + "\n")
        .collect()
}

#[track_caller]
fn says(text: &str, expected: &[&str]) {
    for expected in expected {
        assert!(
            text.lines().any(|line| line == *expected),
            "no line {expected:?} in:\n{text}"
        );
    }
}

#[track_caller]
fn forwards_nothing(text: &str) {
    assert!(!text.contains("the upstream receives"), "{text}");
}

#[tokio::test]
async fn a_folder_of_files_names_the_file_and_what_stands_in_for_it() {
    let route = "path = '/ui/*'
        serve = 'dist/'
        fallback = 'index.html'
        strip_prefix = '/ui'";
    let text = explained(route, &["GET", "/ui/a/b.js"]).await;
    says(
        &text,
        &[
            "also index.html for a navigation to what is no file",
            "outcome answered by the gateway, with the file /a/b.js of dist/",
        ],
    );
    forwards_nothing(&text);
}

#[tokio::test]
async fn a_redirect_says_where_it_leads() {
    let route = "path = '/old/*'
        strip_prefix = '/old'
        redirect = { to = 'https://www.example.com/new{path}?{query}', status = 302 }";
    let text = explained(route, &["GET", "/old/x?y=1"]).await;
    says(&text, &["outcome redirected: 302 to https://www.example.com/new/x?y=1"]);
    forwards_nothing(&text);
}

#[tokio::test]
async fn a_fixed_answer_says_its_status() {
    let text = explained(
        "path = '/gone'\nrespond = { status = 410, body = 'gone' }",
        &["GET", "/gone"],
    )
    .await;
    says(&text, &["outcome answered by the gateway: 410"]);
    forwards_nothing(&text);
}

#[tokio::test]
async fn a_sign_in_that_is_too_old_is_told_from_one_that_is_not() {
    let route = "path = '/transfers/*'\nupstream = 'app'\nauth = 'required'\nrequire = { fresh = '10m' }";
    let old = explained(route, &["GET", "/transfers/x", "--signed-in", "11m"]).await;
    says(&old, &["a sign-in within the last 10m"]);
    assert!(old.contains("outcome refused: 403 SESSION_NOT_FRESH"), "{old}");
    let browser = ["GET", "/transfers/x", "--signed-in", "11m", "-H", "Accept: text/html"];
    let page = format!("{route}\n[auth.pages]\nsign_in = '/in'");
    let sent = explained(&page, &browser).await;
    says(
        &sent,
        &[
            "outcome redirected: 303 to /in?return_to=%2Ftransfers%2Fx&step_up=fresh: the session is not enough: no fresh sign-in",
        ],
    );
    let fresh = explained(route, &["GET", "/transfers/x", "--signed-in", "9m"]).await;
    says(&fresh, &["outcome forwarded"]);
}

#[tokio::test]
async fn a_route_without_websockets_refuses_to_switch_and_says_so() {
    let upgrade = [
        "GET",
        "/rest/x",
        "-H",
        "Connection: Upgrade",
        "-H",
        "Upgrade: websocket",
        "-H",
        "Sec-WebSocket-Version: 13",
        "-H",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    ];
    let refused = explained("path = '/rest/*'\nupstream = 'app'\nwebsocket = false", &upgrade).await;
    says(&refused, &["no WebSockets"]);
    assert!(refused.contains("outcome refused: 403 UPGRADE_REFUSED"), "{refused}");
    let let_through = explained("path = '/rest/*'\nupstream = 'app'", &upgrade).await;
    says(&let_through, &["outcome forwarded", "upgrade: websocket"]);
}

#[tokio::test]
async fn an_upstream_receives_the_path_and_the_headers_that_the_rules_make() {
    let route = "path = '/billing/*'
        upstream = 'app'
        strip_prefix = '/billing'
        add_prefix = '/v2'
        request_headers = { set = { X-Tenant = 'blue' }, remove = ['Accept-Language'] }
        response_headers = { remove = ['Server'], set = { X-Frame-Options = 'DENY' } }";
    let text = explained(route, &["GET", "/billing/invoices?y=1", "-H", "Accept-Language: de"]).await;
    says(
        &text,
        &[
            "path /billing/invoices",
            "GET /v2/invoices?y=1 HTTP/1.1",
            "x-tenant: blue",
            "also removes server in answers",
            "sets x-frame-options in answers",
        ],
    );
    assert!(!text.contains("accept-language"), "{text}");
}

#[tokio::test]
async fn limits_are_told() {
    let route = "path = '/search/*'
        upstream = 'app'
        rate_limit = { requests = 100, window = '1m', by = 'user' }
        timeout = '7s'
        max_body = '1KiB'
        retries = 0";
    let text = explained(route, &["GET", "/search/x"]).await;
    says(
        &text,
        &[
            "also at most 100 requests in 1m from one user",
            "the upstream has 7s to answer",
            "never sent again",
            "bodies have at most 1 KiB",
        ],
    );
}

#[tokio::test]
async fn an_upstream_is_told_with_its_endpoints_and_what_it_has_by_default() {
    let route = "path = '/x'\nupstream = 'app'";
    let text = explained(route, &["GET", "/x"]).await;
    says(
        &text,
        &[
            "upstream app: http://localhost:80",
            "also the upstream has 1m to answer",
            "sent again at most once, where that is safe",
        ],
    );
    let json = run_on(route, &["GET", "/x", "--json"]).await.stdout;
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["upstream"], "app");
    assert_eq!(json["endpoints"], serde_json::json!(["http://localhost:80"]));
}

#[tokio::test]
async fn credentials_are_shown_as_they_are_handed_over_but_for_what_is_secret() {
    for (credentials, shown) in [
        ("strip", &[] as &[&str]),
        ("bearer", &["authorization: Bearer the-session-token"]),
        ("assertion", &["authorization: Bearer made-by-the-gateway"]),
    ] {
        let route = format!("path = '/x'\nupstream = 'app'\nauth = 'required'\ncredentials = '{credentials}'");
        let text = explained(&route, &["GET", "/x", "-H", "Cookie: mine=1"]).await;
        says(&text, &["outcome forwarded"]);
        says(&text, shown);
        assert_eq!(text.contains("authorization:"), !shown.is_empty(), "{text}");
    }
}

#[tokio::test]
async fn an_assertion_is_there_where_it_is_switched_on() {
    let route = "path = '/x'\nupstream = 'app'\nauth = 'required'";
    let off = explained(route, &["GET", "/x"]).await;
    assert!(!off.contains("x-vestibule-assertion"), "{off}");
    let on = explained(&format!("{route}\n[identity]\nassertion = true"), &["GET", "/x"]).await;
    assert!(on.contains("x-vestibule-assertion: "), "{on}");
}

#[tokio::test]
async fn a_call_is_refused_in_words_of_grpc() {
    let route = "path = '/shop.v1.Orders/*'\nupstream = 'app'\nauth = 'required'";
    let call = ["POST", "/shop.v1.Orders/List", "-H", "Content-Type: application/grpc"];
    let anonymous = explained(route, &[&call[..], &["--anonymous"]].concat()).await;
    says(
        &anonymous,
        &["outcome refused: grpc-status 16 UNAUTHORIZED: a session is needed"],
    );
    let signed_in = explained(route, &[&call[..], &["--bearer"]].concat()).await;
    says(&signed_in, &["outcome forwarded"]);
    let of_the_api = [
        "POST",
        "/api/auth/verify-token",
        "-H",
        "Content-Type: application/grpc",
        "-H",
        "Expect: x",
    ];
    let refused = explained(route, &of_the_api).await;
    assert!(refused.contains("417") && !refused.contains("grpc"), "{refused}");
}
