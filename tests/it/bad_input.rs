//! What clients should not send: each gets its documented refusal, and no more than a line in the log.

use serde_json::json;

use crate::harness::{Gateway, SOON, eventually, people::PASSWORD};

const SIGN_UP: &str = "/api/auth/sign-up/email";
const SIGN_IN: &str = "/api/auth/sign-in/email";

#[tokio::test]
async fn the_auth_api_refuses_what_it_can_not_read() {
    let gateway = Gateway::start().await;
    let megabyte = "x".repeat(1 << 20);
    let sign_up =
        |email: &str, password: &str| json!({ "name": "A", "email": email, "password": password }).to_string();
    for (path, content_type, body, status, code) in [
        (
            SIGN_IN,
            "application/json",
            "{\"email\":".to_owned(),
            400,
            "BAD_REQUEST",
        ),
        (SIGN_IN, "application/json", "[1]".to_owned(), 400, "VALIDATION_ERROR"),
        (SIGN_IN, "text/plain", "{}".to_owned(), 415, "UNSUPPORTED_MEDIA_TYPE"),
        (
            SIGN_IN,
            "application/json",
            "{\"email\":\"a@b.example\",\"email\":\"c@d.example\",\"password\":\"x\"}".to_owned(),
            400,
            "",
        ),
        (
            SIGN_IN,
            "application/json",
            json!({ "email": "no address", "password": "xxxxxxxx" }).to_string(),
            400,
            "INVALID_EMAIL",
        ),
        (
            SIGN_IN,
            "application/json",
            json!({ "email": 7, "password": "xxxxxxxx" }).to_string(),
            400,
            "VALIDATION_ERROR",
        ),
        (
            SIGN_UP,
            "application/json",
            sign_up("ada@example.com", &"x".repeat(200)),
            400,
            "PASSWORD_TOO_LONG",
        ),
        (
            SIGN_UP,
            "application/json",
            sign_up("a\0da@example.com", "xxxxxxxx"),
            400,
            "VALIDATION_ERROR",
        ),
        (
            SIGN_UP,
            "application/json",
            sign_up("ada@example.com\r\nBcc: eve@example.com", "xxxxxxxx"),
            400,
            "VALIDATION_ERROR",
        ),
        (
            SIGN_UP,
            "application/json",
            sign_up("", "xxxxxxxx"),
            400,
            "VALIDATION_ERROR",
        ),
        (
            SIGN_UP,
            "application/json",
            json!({ "email": "ada@example.com" }).to_string(),
            400,
            "VALIDATION_ERROR",
        ),
    ] {
        let answer = gateway
            .post(path)
            .header("Content-Type", content_type)
            .body(body.clone())
            .await;
        assert_eq!(answer.status(), status, "{body:.200}: {}", answer.text());
        if !code.is_empty() {
            assert_eq!(answer.code(), code, "{body:.200}");
        }
    }
    let answer = gateway
        .post(SIGN_UP)
        .json(&json!({ "name": "A", "email": "a@b.example", "password": megabyte }))
        .await;
    assert!(matches!(answer.status(), 400 | 413), "{}", answer.text());
    assert_eq!(gateway.db().count("SELECT count(*) FROM users").await, 0);
}

#[tokio::test]
async fn no_endpoint_takes_a_target_beyond_two_kibibytes() {
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    let long = format!("/{}", "x".repeat(2048));
    let fields = json!({
        "name": "A", "email": "eve@example.com", "password": PASSWORD, "newEmail": "eve@example.com",
        "callbackURL": long, "redirectTo": long,
    });
    for (path, field) in [
        ("sign-up/email", "callbackURL"),
        ("sign-in/email", "callbackURL"),
        ("send-verification-email", "callbackURL"),
        ("request-password-reset", "redirectTo"),
        ("change-email", "callbackURL"),
        ("delete-user", "callbackURL"),
    ] {
        let answer = gateway
            .post(&format!("/api/auth/{path}"))
            .with(&ada)
            .json(&fields)
            .await;
        assert_eq!(answer.code(), "VALIDATION_ERROR", "{path}: {}", answer.text());
        let message = format!("[body.{field}] Too big: expected string to have <=2048 bytes");
        assert_eq!(answer.json()["message"], json!(message), "{path}");
    }
    for link in [
        "verify-email?token=abc",
        "reset-password/abc?",
        "delete-user/callback?token=abc",
    ] {
        let answer = gateway
            .get(&format!("/api/auth/{link}&callbackURL={long}"))
            .with(&ada)
            .await;
        assert_eq!(answer.code(), "VALIDATION_ERROR", "{link}: {}", answer.text());
    }
    assert_eq!(gateway.db().count("SELECT count(*) FROM users").await, 1);
}

#[tokio::test]
async fn a_picture_is_a_link_of_the_web_or_a_path() {
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    let update = async |image: &serde_json::Value| {
        let body = json!({ "image": image });
        gateway.post("/api/auth/update-user").with(&ada).json(&body).await
    };
    for good in [
        "https://img.example/a.png",
        "HTTP://img.example/",
        "/uploads/a.png?x",
        "",
    ] {
        assert_eq!(update(&json!(good)).await.status(), 200, "{good}");
        let user = &gateway.get("/api/auth/get-session").with(&ada).await.json()["user"];
        assert_eq!(user["image"], json!(good), "as it was said");
    }
    assert_eq!(update(&json!("/kept.png")).await.status(), 200);
    let long = format!("https://img.example/{}", "x".repeat(2048));
    for (bad, says) in [
        (
            "javascript:alert(1)",
            "Invalid URL: expected one of http or https, or a path",
        ),
        (
            "java\tscript:alert(1)",
            "Invalid URL: expected one of http or https, or a path",
        ),
        (
            "data:image/svg+xml,<svg onload=alert(1)>",
            "Invalid URL: expected one of http or https, or a path",
        ),
        (
            "//img.example/a.png",
            "Invalid URL: expected one of http or https, or a path",
        ),
        (
            "/\\img.example/a.png",
            "Invalid URL: expected one of http or https, or a path",
        ),
        ("a.png", "Invalid URL: expected one of http or https, or a path"),
        ("https://", "Invalid URL: expected one of http or https, or a path"),
        (&long, "Too big: expected string to have <=2048 bytes"),
    ] {
        let answer = update(&json!(bad)).await;
        assert_eq!(
            (answer.status(), answer.code()),
            (400, "VALIDATION_ERROR".to_owned()),
            "{bad}"
        );
        assert_eq!(answer.json()["message"], json!(format!("[body.image] {says}")), "{bad}");
        let sign_up = json!({ "name": "E", "email": "eve@example.com", "password": PASSWORD, "image": bad });
        assert_eq!(
            gateway.post(SIGN_UP).json(&sign_up).await.code(),
            "VALIDATION_ERROR",
            "{bad}"
        );
    }
    let user = &gateway.get("/api/auth/get-session").with(&ada).await.json()["user"];
    assert_eq!(user["image"], json!("/kept.png"), "refused without a change");
    assert_eq!(gateway.db().count("SELECT count(*) FROM users").await, 1);
}

#[tokio::test]
async fn an_endpoint_that_does_not_exist_is_404_without_a_body() {
    let gateway = Gateway::start().await;
    for (method, path) in [
        ("GET", "/api/auth/nothing"),
        ("GET", "/api/auth/sign-in/email"),
        ("POST", "/api/auth/sign-in/email/"),
        ("HEAD", "/api/auth/ok"),
        ("GET", "/api/auth/get-session/x.css"),
    ] {
        let answer = gateway.call(method, path).await;
        assert_eq!((answer.status(), answer.body.len()), (404, 0), "{method} {path}");
    }
    assert_eq!(
        gateway.upstream().requests().len(),
        0,
        "nothing below the base path is forwarded"
    );
}

#[tokio::test]
async fn smug_03_smug_04_smug_08_spoof_12_smug_24_framing_that_two_programs_read_differently_is_refused() {
    let gateway = Gateway::start().await;
    let host = gateway.host();
    for fields in [
        "Content-Length: 3\r\nContent-Length: 4",
        "Content-Length: +3",
        "Content-Length: 0x3",
        "Content-Length: 3 3",
        "Content-Length: ",
        "Content-Length: 99999999999999999999",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: identity",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: chunked;q=1",
        "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "X-A: 1\r\n folded",
        "X-User-Id : 1",
    ] {
        let mut client = gateway.raw().await;
        client
            .send(format!(
                "POST /public/x HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n\r\nabc"
            ))
            .await;
        let answer = client.answer().await;
        assert!(matches!(answer.status(), 400 | 501), "{fields}: {}", answer.status());
        assert!(client.is_closed().await, "{fields}: the connection is closed");
    }
    assert_eq!(gateway.upstream().requests().len(), 0);
}

#[tokio::test]
async fn smug_01_smug_02_a_length_beside_chunks_never_makes_a_second_request() {
    let gateway = Gateway::start().await;
    let host = gateway.host();
    for fields in [
        "Content-Length: 4\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 4",
    ] {
        let mut client = gateway.raw().await;
        client
            .send(format!(
                "POST /public/x HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n\r\n0\r\n\r\n\
                 GET /public/smuggled HTTP/1.1\r\nHost: {host}\r\n\r\n"
            ))
            .await;
        let first = client.answer().await;
        assert!(matches!(first.status(), 200 | 400), "{fields}: {}", first.status());
        assert!(client.is_closed().await, "{fields}: the tail is never answered");
    }
    assert_eq!(gateway.upstream().seen("/public/smuggled"), 0);
    for seen in gateway.upstream().requests() {
        assert!(
            !(seen.head.has("content-length") && seen.head.has("transfer-encoding")),
            "{:?}",
            seen.head
        );
    }
}

#[tokio::test]
async fn smug_10_chunks_that_are_malformed_are_the_clients_fault() {
    let gateway = Gateway::start().await;
    let host = gateway.host();
    for chunks in [
        "2;\nxx\r\n0\r\n\r\n",
        "2\nxx\r\n0\r\n\r\n",
        // To who ends the line at the line feed, this is `b`, and a request behind it; to others, a line feed.
        "1;a\nb\r\n\n\r\n0\r\n\r\n",
        "zz\r\nxx\r\n",
        "2\r\nxxx\r\n0\r\n\r\n",
        "-1\r\n",
    ] {
        let mut client = gateway.raw().await;
        client
            .send(format!(
                "POST /public/x HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}"
            ))
            .await;
        let answer = client.answer().await;
        assert_eq!(answer.status(), 400, "{chunks:?}");
    }
    assert_eq!(
        gateway.upstream().seen("/public/x"),
        0,
        "no whole request reached the upstream"
    );
}

#[tokio::test]
async fn smug_06_bare_line_feeds_are_no_line_ends() {
    let gateway = Gateway::start().await;
    let host = gateway.host();
    for head in [
        format!("GET /public/x HTTP/1.1\nHost: {host}\n\n"),
        format!("GET /public/x HTTP/1.1\r\nHost: {host}\nX-A: 1\r\n\r\n"),
    ] {
        let mut client = gateway.raw().await;
        client.send(&head).await;
        assert_eq!(client.answer().await.status(), 400, "{head:?}");
    }
    assert_eq!(gateway.upstream().requests().len(), 0);
}

#[tokio::test]
async fn smug_13_a_body_of_a_refused_request_is_no_request() {
    let gateway = Gateway::start().await;
    let host = gateway.host();
    let inner = format!("GET /public/smuggled HTTP/1.1\r\nHost: {host}\r\n\r\n");
    let length = inner.len();
    let mut client = gateway.raw().await;
    client
        .send(format!(
            "POST /api/x HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\n\r\n{inner}\
             GET /public/real HTTP/1.1\r\nHost: {host}\r\n\r\n"
        ))
        .await;
    assert_eq!(client.answer().await.status(), 401);
    // Drained, so that the connection goes on with the real next request.
    assert_eq!(client.answer().await.text(), "GET /public/real");
    assert_eq!(gateway.upstream().seen("/public/smuggled"), 0);
}

#[tokio::test]
async fn an_expectation_other_than_100_continue_is_417() {
    let gateway = Gateway::start().await;
    let answer = gateway
        .post("/public/x")
        .header("Expect", "the-unexpected")
        .body("x")
        .await;
    assert_eq!((answer.status(), answer.code()), (417, "EXPECTATION_FAILED".to_owned()));
}

#[tokio::test]
async fn log_01_each_request_is_one_line_in_the_log() {
    let gateway = Gateway::start().await;
    for path in ["/public/..%2fx", "/nothing%0d%0ahere", "/public/x%1b[31m", "/public/ok"] {
        let mut client = gateway.raw().await;
        let host = gateway.host();
        client
            .send(format!(
                "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: a\"b\\c\r\n\r\n"
            ))
            .await;
        client.answer().await;
    }
    eventually(SOON, async || gateway.log().lines().count() >= 4).await;
    let log = gateway.log();
    assert_eq!(log.lines().count(), 4, "{log}");
    for line in log.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}"));
        assert!(line.is_object());
    }
    assert!(!log.contains('\x1b'));
}
