//! `vestibule test FILE`: a table of requests and what is expected of them, for the continuous integration of those who
//! write a `gateway.toml`.

use std::fs;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::{
    gateway::whole_text,
    program::{Ended, run},
};

/// Runs it on a file of tests, beside the usual configuration.
async fn tested(tests: &str, more: &[&str]) -> Ended {
    let folder = TempDir::new().unwrap();
    let page = "[auth.pages]\nsign_in = '/sign-in'\n";
    fs::write(folder.path().join("gateway.toml"), whole_text() + page).unwrap();
    fs::write(folder.path().join("routes.test.toml"), tests).unwrap();
    run(&[&["test", "routes.test.toml"], more].concat(), &[], folder.path()).await
}

/// A test, as a file has it.
fn test(lines: &str) -> String {
    format!("[[tests]]\n{lines}\n\n")
}

#[tokio::test]
async fn what_is_decided_as_expected_passes() {
    let tests = [
        "request = 'GET /api/x'\nexpect = { outcome = 401, route = '/api/*', code = 'UNAUTHORIZED' }",
        "request = 'GET /api/../public/x?y=1'\nexpect = { outcome = 'forwarded', upstream = 'app', path = '/public/x?y=1' }",
        "request = 'GET /nowhere'\nexpect = { outcome = '404', code = 'NOT_FOUND' }",
        "request = 'GET /api/auth/get-session'\nexpect = { outcome = 'auth-api' }",
        "request = 'GET /admin/x'\nas = {}\nexpect = { outcome = 403, code = 'FORBIDDEN' }",
        "request = 'GET /admin/x'\nas = { roles = ['admin'] }\nexpect = { outcome = 'forwarded', headers = { \
         X-User-Roles = 'admin', X-User-Email-Verified = 'true', Cookie = false, X-Request-Id = true } }",
        "request = 'GET /api/x'\nas = { verified = false }\nheaders = { X-User-Id = 'forged', Accept = ['a', 'b'] }\n\
         expect = { headers = { X-User-Email-Verified = 'false', Accept = 'a, b' } }",
        "request = 'GET https://app.example.com/app/x'\nheaders = { Accept = 'text/html' }\n\
         expect = { outcome = 'redirect', location = '/sign-in?return_to=%2Fapp%2Fx' }",
        "request = 'GET https://other.example.com/api/x'\nexpect = { outcome = 421 }",
    ];
    let all: String = tests.iter().map(|lines| test(lines)).collect();
    let ended = tested(&all, &[]).await;
    assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
    assert!(
        ended.stdout.ends_with(&format!("{} passed, 0 failed\n", tests.len())),
        "{}",
        ended.stdout
    );
    assert_eq!(ended.stdout.matches("pass  ").count(), tests.len());
}

/// A session that a browser's cookie carries is no proof that its person meant a request; a token is.
#[tokio::test]
async fn other_sites_send_cookies_but_no_tokens() {
    let request = "request = 'POST /api/x'\nheaders = { Origin = 'https://evil.example.net' }\n";
    let tests = [
        format!("{request}as = {{}}\nexpect = {{ outcome = 403, code = 'CROSS_ORIGIN' }}"),
        format!("{request}as = {{ by = 'bearer' }}\nexpect = {{ outcome = 'forwarded' }}"),
    ];
    let ended = tested(&tests.map(|lines| test(&lines)).concat(), &[]).await;
    assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
}

#[tokio::test]
async fn what_differs_is_told_and_fails() {
    let tests = test("request = 'GET /public/x'\nexpect = { outcome = 'forwarded' }")
        + &test(
            "name = 'the API is closed'\nrequest = 'GET /public/x'\n\
             expect = { outcome = 401, route = '/api/*', path = '/x', headers = { X-Request-Id = false } }",
        );
    let ended = tested(&tests, &[]).await;
    assert_eq!(ended.code, Some(1), "{}", ended.stdout);
    for line in [
        "pass  GET /public/x\n",
        "FAIL  the API is closed\n      routes.test.toml:5\n",
        "      outcome\n        expected  401\n        found     forwarded\n",
        "      route\n        expected  /api/*\n        found     /public/*\n",
        "      path\n        expected  /x\n        found     /public/x\n",
        "      headers.x-request-id\n        expected  no such header\n",
        "1 passed, 1 failed\n",
    ] {
        assert!(ended.stdout.contains(line), "{line:?} is not in\n{}", ended.stdout);
    }
}

#[tokio::test]
async fn scripts_get_json() {
    let tests = test("request = 'GET /public/x'\nexpect = { outcome = 'forwarded' }")
        + &test("request = 'GET /api/x'\nexpect = { outcome = 'forwarded' }");
    let ended = tested(&tests, &["--json"]).await;
    assert_eq!(ended.code, Some(1));
    let told: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!((&told["passed"], &told["failed"]), (&json!(1), &json!(1)));
    let failed = &told["tests"][1];
    assert_eq!((&failed["passed"], &failed["line"]), (&json!(false), &json!(5)));
    assert_eq!(failed["differences"][0]["expected"], "forwarded");
}

#[tokio::test]
async fn a_file_that_is_wrong_is_told_of_with_its_lines() {
    let tests = test("request = 'GET /'\nexpects = { outcome = 401 }") + &test("request = 'GET /'\nexpect = {}");
    let ended = tested(&tests, &[]).await;
    assert_eq!(ended.code, Some(78));
    assert!(
        ended
            .stderr
            .contains("routes.test.toml:3:1: tests[0].expects: unknown key"),
        "{}",
        ended.stderr
    );
    assert!(ended.stderr.contains("did you mean `expect`?"), "{}", ended.stderr);
    assert!(ended.stderr.contains("would always pass"), "{}", ended.stderr);
    assert_eq!(tested("", &[]).await.code, Some(78), "and so is one without tests");
}

/// The one that `docs/testing-routes.md` shows, on routes such as it speaks of.
#[tokio::test]
async fn the_file_that_the_documents_show_passes() {
    let document = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/testing-routes.md");
    let document = fs::read_to_string(document).unwrap();
    let (_, rest) = document.split_once("```toml tests\n").unwrap();
    let (tests, _) = rest.split_once("```").unwrap();
    let routes = "
        [[routes]]
        path = '/api/admin/*'
        upstream = 'app'
        require = { roles = ['admin'] }
        [[routes]]
        path = '/docs/*'
        upstream = 'app'
        auth = 'public'
    ";
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("gateway.toml"), whole_text() + routes).unwrap();
    fs::write(folder.path().join("routes.test.toml"), tests).unwrap();
    let ended = run(&["test", "routes.test.toml"], &[], folder.path()).await;
    assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
    assert!(ended.stdout.ends_with("4 passed, 0 failed\n"), "{}", ended.stdout);
}
