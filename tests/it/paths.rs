//! What was authorised is what is forwarded: paths are brought to one form, or refused.

use crate::harness::Gateway;

#[tokio::test]
async fn path_01_path_02_route_10_dot_segments_are_resolved_before_anything_is_decided() {
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    for path in [
        "/public/../admin/x",
        "/public/%2e%2e/admin/x",
        "/public/.%2e/admin/x",
        "/public/%2E./admin/x",
        "/public/./../admin/x",
        "/public//../admin/x",
        "/%61dmin/x",
        "/public/a/../../admin/x",
    ] {
        assert_eq!(gateway.get(path).await.status(), 401, "{path}");
        assert_eq!(gateway.get(path).with(&ada).await.status(), 403, "{path}");
    }
    assert_eq!(gateway.upstream().requests().len(), 0);
}

#[tokio::test]
async fn the_one_form_is_what_the_upstream_gets() {
    let gateway = Gateway::start().await;
    for (sent, forwarded) in [
        ("/public//x", "/public/x"),
        ("/public/./x", "/public/x"),
        ("/public/a/../x", "/public/x"),
        ("/%70ublic/%7Ex", "/public/~x"),
        ("/public/%c3%a4", "/public/%C3%A4"),
        ("/public/x%23y", "/public/x%23y"),
        ("/public/x/?q=a//../b", "/public/x/?q=a//../b"),
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
async fn path_04_path_06_path_09_path_11_paths_that_two_programs_may_read_differently_are_refused() {
    let gateway = Gateway::start().await;
    for path in [
        "/..",
        "/../admin",
        "/public/../../x",
        "/public/..%2fadmin",
        "/public%2f..%2fadmin",
        "/public/..%5cadmin",
        "/public/%5c",
        "/public\\x",
        "/public/..;/admin",
        "/public/..;x=1/admin",
        "/public/..%3b/admin",
        "/public/x%00.png",
        "/public/%0d%0a",
        "/public/%7f",
        "/public/%zz",
        "/public/%",
        "/public/%2",
        "/public/%ff",
        "/public/%c0%af",
    ] {
        let mut client = gateway.raw().await;
        client
            .send(format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", gateway.host()))
            .await;
        let answer = client.answer().await;
        assert_eq!(answer.status(), 400, "{path}");
    }
    assert_eq!(gateway.upstream().requests().len(), 0);
}

#[tokio::test]
async fn route_02_a_fragment_is_refused_before_the_parser_cuts_it_off() {
    let gateway = Gateway::start().await;
    for target in ["/admin#/public", "/public#/../admin", "/public/x#", "/public/x?q#y"] {
        let mut client = gateway.raw().await;
        client
            .send(format!("GET {target} HTTP/1.1\r\nHost: {}\r\n\r\n", gateway.host()))
            .await;
        assert_eq!(client.answer().await.status(), 400, "{target}");
    }
    assert_eq!(gateway.upstream().requests().len(), 0);
}

#[tokio::test]
async fn ordinary_paths_pass_as_they_are() {
    let gateway = Gateway::start().await;
    let long = format!("/public/{}?{}", "p".repeat(2000), "q".repeat(8000));
    for target in [
        "/public/{id}/[x]/'y'/~z/@me/a+b/%20/%2B/a:b,c;d=1!$&()*",
        "/public/%E2%82%AC",
        "/public/...",
        "/public/.well-known",
        "/public/a..b",
        long.as_str(),
    ] {
        let answer = gateway.get(target).await;
        assert_eq!(
            (answer.status(), answer.text()),
            (200, format!("GET {target}").as_str())
        );
    }
}

#[tokio::test]
async fn ssrf_02_an_absolute_target_s_authority_is_the_host() {
    let gateway = Gateway::start().await;
    let send = async |target: &str, host: &str| {
        let mut client = gateway.raw().await;
        client
            .send(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n"))
            .await;
        client.answer().await
    };
    let answer = send("https://app.example.com/public/x", "app.example.com").await;
    assert_eq!((answer.status(), answer.text()), (200, "GET /public/x"));
    assert_eq!(
        send("http://169.254.169.254/public/x", "app.example.com")
            .await
            .status(),
        400
    );
    assert!(matches!(
        send("http://evil.example/public/x", "evil.example").await.status(),
        400 | 421
    ));
    assert_eq!(gateway.upstream().requests().len(), 1);
}

/// Random targets over the bytes that path tricks are made of: whatever is forwarded reads the same the second time.
#[tokio::test]
async fn path_13_what_is_forwarded_is_already_in_its_one_form() {
    let gateway = Gateway::start().await;
    let pieces = [
        "/", ".", "..", ";", "%2e", "%2f", "%5c", "\\", "%", "?", "public", "admin", "a", "%61", "//", "%25", "2e",
    ];
    // A fixed sequence (an LCG with Knuth's constants), so that a failure can be repeated.
    let mut state: u64 = 2026;
    for _ in 0..1_500 {
        let mut target = "/public/".to_owned();
        for _ in 0..6 {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            target.push_str(pieces[usize::try_from(state >> 33).unwrap() % pieces.len()]);
        }
        let first = gateway.get(&target).await;
        if first.status() != 200 {
            assert!(
                matches!(first.status(), 400 | 401 | 404),
                "{target}: {}",
                first.status()
            );
            continue;
        }
        let forwarded = gateway.upstream().last().head.target().to_owned();
        let path = forwarded.split('?').next().unwrap();
        assert!(
            path == "/public" || path.starts_with("/public/"),
            "{target} became {forwarded}"
        );
        let again = gateway.get(&forwarded).await;
        assert_eq!(
            (again.status(), again.text()),
            (200, format!("GET {forwarded}").as_str()),
            "{target}"
        );
    }
}
