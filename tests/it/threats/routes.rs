//! ROUTE: which rule a request comes under, nothing in it can choose.

use super::{BOTH, ask, sent};
use crate::harness::{Gateway, RawClient, Setup, client::Response, people::User};

#[tokio::test]
async fn route_01_a_query_is_no_path() {
    let gateway = Gateway::start().await;
    let eve = gateway.signed_in("eve@example.com").await;
    for query in [
        "?next=/public/",
        "?/public/",
        "?",
        "??/public/x",
        "?/../public/x",
        "?/../../public/x",
        "?path=/public/x&_method=OPTIONS",
        "?url=https://app.example.com/public/x",
        "?%2f..%2fpublic%2fx",
        "?;/public/",
    ] {
        let target = format!("/admin/x{query}");
        for via in BOTH {
            assert_eq!(
                ask(&gateway, via, "GET", &target, &[]).await.status,
                401,
                "{via:?} {target}"
            );
            let cookie = [("Cookie", eve.cookie.as_str())];
            assert_eq!(
                ask(&gateway, via, "GET", &target, &cookie).await.status,
                403,
                "{via:?} {target}"
            );
        }
    }
    assert_eq!(gateway.upstream().requests().len(), 0);
    // And of what is public it takes nothing away.
    let target = "/public/x?next=/admin/../..;/%2e%2e/admin&a=%zz";
    for via in BOTH {
        assert_eq!(
            ask(&gateway, via, "GET", target, &[]).await.text(),
            format!("GET {target}")
        );
    }
}

#[tokio::test]
async fn route_02_a_number_sign_hides_nothing() {
    let gateway = Gateway::start().await;
    let host = gateway.host();
    for target in [
        "/admin#/public",
        "/admin/x#",
        "/public#/../admin",
        "/public/x?a#b",
        "/public/x#?a",
        "#/public/x",
        "/#",
        "http://app.example.com/public/x#y",
        "http://app.example.com#/public/x",
    ] {
        for version in ["HTTP/1.1", "HTTP/1.0"] {
            let head = format!("GET {target} {version}\r\nHost: {host}\r\n\r\n");
            super::refused_and_closed(&gateway, head).await;
        }
    }
    assert_eq!(gateway.upstream().requests().len(), 0);
    // Escaped it is a byte like others, on both sides.
    for via in BOTH {
        for (target, status) in [
            ("/admin%23/public", 404),
            ("/admin/%23/public", 401),
            ("/public/%23/../admin", 200),
            ("/public%23/x", 404),
        ] {
            assert_eq!(ask(&gateway, via, "GET", target, &[]).await.status, status, "{target}");
        }
        assert_eq!(gateway.upstream().last().head.target(), "/public/admin");
        ask(&gateway, via, "GET", "/public/a%23b", &[]).await;
        assert_eq!(gateway.upstream().last().head.target(), "/public/a%23b");
    }
}

/// Whatever a request says of who sends it and what for: only a credential is one.
#[tokio::test]
async fn route_03_no_header_turns_authentication_off() {
    let gateway = Gateway::start().await;
    let fields = [
        ("User-Agent", "kube-probe/1.30"),
        ("User-Agent", "GoogleHC/1.0"),
        ("User-Agent", "ELB-HealthChecker/2.0"),
        ("User-Agent", "Consul Health Check"),
        ("User-Agent", "Go-http-client/1.1"),
        ("X-Health-Check", "1"),
        ("X-Middleware-Subrequest", "middleware:middleware:middleware"),
        ("X-Internal", "true"),
        ("X-Real-IP", "127.0.0.1"),
        ("X-Forwarded-For", "127.0.0.1"),
        ("X-Client-IP", "127.0.0.1"),
        ("X-Cluster-Client-IP", "127.0.0.1"),
        ("True-Client-IP", "127.0.0.1"),
        ("CF-Connecting-IP", "127.0.0.1"),
        ("Forwarded", "for=127.0.0.1;host=localhost;proto=https"),
        ("X-Auth-Request-User", "admin"),
        ("X-Authenticated-User", "admin"),
        ("X-WebAuth-User", "admin"),
        ("Remote-User", "admin"),
        ("X-Vestibule-Assertion", "e30.e30."),
        ("X-Session-Id", "1"),
        ("X-Api-Key", "admin"),
        ("Authorization", "Basic YWRtaW46YWRtaW4="),
        ("Authorization", "Bearer"),
        ("Authorization", "Bearer null"),
        ("Authorization", "Bearer undefined"),
        ("Authorization", "Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiIxIn0."),
        ("Authorization", "Negotiate YII="),
        ("Proxy-Authorization", "Basic YWRtaW46YWRtaW4="),
        ("Cookie", "__Host-vestibule.session_token="),
        ("Cookie", "__Host-vestibule.session_token=."),
        ("Cookie", "__Host-vestibule.session_token=null"),
        ("Origin", "https://app.example.com"),
        ("Referer", "https://app.example.com/public/x"),
        ("Sec-Fetch-Site", "same-origin"),
        ("Access-Control-Request-Method", "GET"),
        ("X-Requested-With", "XMLHttpRequest"),
        ("Upgrade-Insecure-Requests", "1"),
        ("Range", "bytes=0-0"),
        ("If-None-Match", "*"),
        ("Content-Type", "application/grpc"),
        ("Accept", "text/event-stream"),
        ("Cache-Control", "only-if-cached"),
        ("Max-Forwards", "0"),
    ];
    for via in BOTH {
        for field in fields {
            for (method, path) in [("GET", "/api/me"), ("HEAD", "/api/me"), ("OPTIONS", "/admin/x")] {
                let saw = ask(&gateway, via, method, path, &[field]).await;
                assert_eq!(saw.status, 401, "{via:?} {method} {path} {field:?}");
            }
        }
    }
    assert_eq!(gateway.upstream().requests().len(), 0);
}

#[tokio::test]
async fn route_04_a_prefix_ends_where_a_segment_does() {
    let gateway = Gateway::start().await;
    for path in [
        "/publicsecret",
        "/public-admin",
        "/public.",
        "/public%20",
        "/public%2E",
        "/public~",
        "/public:443/x",
        "/public@evil/x",
        "/public,/x",
        "/public&/x",
        "/public=/x",
        "/publi",
        "/Public/x",
        "/PUBLIC/x",
        "/public%41/x",
        "/%C3%BCublic/x",
        "/xpublic/x",
        "/x/public/x",
        "/public%3Fx",
    ] {
        for via in BOTH {
            assert_eq!(ask(&gateway, via, "GET", path, &[]).await.status, 404, "{via:?} {path}");
        }
    }
    assert_eq!(gateway.upstream().requests().len(), 0);
}

#[tokio::test]
async fn route_07_without_a_rule_there_is_nothing_whoever_asks() {
    let gateway = Gateway::start().await;
    let root = gateway.signed_in_as("root@example.com", &["admin"]).await;
    for via in BOTH {
        for path in [
            "/",
            "/nothing/here",
            "/favicon.ico",
            "/.well-known/x",
            "/apix",
            "/api./x",
            "//nothing",
        ] {
            for method in ["GET", "HEAD", "OPTIONS", "DELETE"] {
                for cookie in [&[][..], &[("Cookie", root.cookie.as_str())]] {
                    let saw = ask(&gateway, via, method, path, cookie).await;
                    assert_eq!(saw.status, 404, "{via:?} {method} {path}");
                }
            }
        }
    }
    assert_eq!(gateway.upstream().requests().len(), 0);
}

/// Each letter of each segment in each spelling of its escape.
#[tokio::test]
async fn route_10_escaped_letters_are_letters() {
    let gateway = Gateway::start().await;
    let eve = gateway.signed_in("eve@example.com").await;
    let word = "admin";
    let mut targets = vec!["/%61%64%6d%69%6e/x".to_owned()];
    for (at, byte) in word.bytes().enumerate() {
        for escape in [format!("%{byte:02x}"), format!("%{byte:02X}")] {
            let mut written = word.to_owned();
            written.replace_range(at..=at, &escape);
            targets.push(format!("/{written}/x"));
            targets.push(format!("/public/../{written}/x"));
        }
    }
    for target in &targets {
        for via in BOTH {
            assert_eq!(
                ask(&gateway, via, "GET", target, &[]).await.status,
                401,
                "{via:?} {target}"
            );
            let cookie = [("Cookie", eve.cookie.as_str())];
            assert_eq!(
                ask(&gateway, via, "GET", target, &cookie).await.status,
                403,
                "{via:?} {target}"
            );
        }
    }
    // Escaped twice it is another word, which no rule has.
    for via in BOTH {
        assert_eq!(ask(&gateway, via, "GET", "/%2561dmin/x", &[]).await.status, 404);
    }
    assert_eq!(gateway.upstream().requests().len(), 0);
}

/// One connection, many people: what was found out about one request is nothing to the next.
#[tokio::test]
async fn route_19_smug_28_what_a_connection_was_allowed_before_opens_nothing() {
    let gateway = Gateway::start().await;
    let eve = gateway.signed_in("eve@example.com").await;
    let root = gateway.signed_in_as("root@example.com", &["admin"]).await;
    let steps: [(&str, Option<&User>, u16); 12] = [
        ("/api/1", Some(&eve), 200),
        ("/admin/2", Some(&eve), 403),
        ("/api/3", Some(&eve), 200),
        ("/api/4", None, 401),
        ("/admin/5", Some(&root), 200),
        ("/admin/6", None, 401),
        ("/admin/7", Some(&eve), 403),
        ("/public/8", Some(&root), 200),
        ("/optional/9", Some(&eve), 200),
        ("/optional/10", None, 200),
        ("/admin/11", Some(&root), 200),
        ("/admin/12", Some(&eve), 403),
    ];
    let id_at = |path: &str| {
        let seen = gateway.upstream().requests().into_iter().rev();
        let mut seen = seen.filter(|seen| seen.head.path() == path);
        seen.next().map(|seen| seen.head.one("x-user-id").map(str::to_owned))
    };
    let check = |path: &str, user: Option<&User>, status: u16| {
        let expected = (status == 200).then(|| {
            let told = !path.starts_with("/public");
            user.filter(|_| told).map(|user| user.id.clone())
        });
        assert_eq!(id_at(path), expected, "{path}");
    };
    // One after the other.
    let mut client = gateway.raw().await;
    for (path, user, status) in steps {
        client.send(request(&gateway, path, user)).await;
        assert_eq!(client.answer().await.status(), status, "{path}");
        check(path, user, status);
    }
    // All at once.
    let mut client = gateway.raw().await;
    let all: String = steps
        .iter()
        .map(|(path, user, _)| request(&gateway, &format!("{path}/p"), *user))
        .collect();
    client.send(all).await;
    for (path, user, status) in steps {
        assert_eq!(client.answer().await.status(), status, "{path}");
        check(&format!("{path}/p"), user, status);
    }
    // On one connection of HTTP/2, at the same time.
    let client = crate::harness::h2_client::H2Client::connect(gateway.addr(), gateway.host()).await;
    let answers = futures_util::future::join_all(steps.iter().map(|(path, user, _)| {
        let mut request = client.request("GET", &format!("{path}/h2"));
        if let Some(user) = user {
            request = request.header("cookie", &user.cookie);
        }
        client.send(request.body(http_body_util::Full::default()).unwrap())
    }))
    .await;
    for ((path, user, status), answer) in steps.into_iter().zip(answers) {
        assert_eq!(answer.unwrap().status, status, "{path}");
        check(&format!("{path}/h2"), user, status);
    }
}

fn request(gateway: &Gateway, path: &str, user: Option<&User>) -> String {
    let cookie = user
        .map(|user| format!("Cookie: {}\r\n", user.cookie))
        .unwrap_or_default();
    format!("GET {path} HTTP/1.1\r\nHost: {}\r\n{cookie}\r\n", gateway.host())
}

#[tokio::test]
async fn route_20_every_method_of_a_guarded_path_is_guarded() {
    let gateway = Gateway::start().await;
    let eve = gateway.signed_in("eve@example.com").await;
    let bearer = format!("Bearer {}", eve.token);
    for via in BOTH {
        for method in [
            "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "QUERY", "LOCK",
        ] {
            let unknown = [401, 501];
            let stranger = ask(&gateway, via, method, "/admin/users/1", &[]).await.status;
            assert!(unknown.contains(&stranger), "{via:?} {method}: {stranger}");
            let saw = ask(&gateway, via, method, "/admin/users/1", &[("Authorization", &bearer)]).await;
            assert!(matches!(saw.status, 403 | 501), "{via:?} {method}: {}", saw.status);
        }
    }
    assert_eq!(gateway.upstream().requests().len(), 0);
}

/// A route for all and one that demands more below it, behind an application that reads more into paths than we do.
#[tokio::test]
async fn route_19_path_06_parameters_of_a_segment_lead_round_no_guard() {
    let routes = r"
        routes = [
            { path = '/*', upstream = 'app', auth = 'public' },
            { path = '/admin/*', upstream = 'app', require = { roles = ['admin'] } },
            { path = '/users/{id}', upstream = 'app', auth = 'public' },
            { path = '/users/all', upstream = 'app' },
            { path = '/shop/*', upstream = 'app' },
            { path = '/shop/open/*', upstream = 'app', auth = 'public' },
        ]";
    let gateway = Setup::default().with(routes).start().await;
    let root = gateway.signed_in_as("root@example.com", &["admin"]).await;
    for target in [
        "/admin;/x",
        "/admin;x=1/x",
        "/admin;x=1",
        "/;x/admin/x",
        "/;/admin/x",
        "/;a=b;c=d/admin;e/x",
        "/admin%3bx=1/x",
        "/admin%3B/x",
        "/%61dmin;/x",
        "/a/../admin;x/y",
        "/x/..;/admin/y",
        "/users/all;x",
        "/users;x/all",
        "/shop;open/x",
        "/shop;/open;/../x",
        // What the auth API is asked, no upstream is.
        "/api/auth;x",
        "/api/auth;x/sign-up/email",
        "/api;x=1/auth/get-session",
        "/;/api/auth/get-session",
        "/api/auth%3b/get-session",
    ] {
        for via in BOTH {
            let saw = ask(&gateway, via, "GET", target, &[]).await;
            assert_eq!(saw.status, 400, "{via:?} {target}");
            // Whoever may pass is told to write it otherwise, too: it is the spelling that is refused.
            let cookie = [("Cookie", root.cookie.as_str())];
            let saw = ask(&gateway, via, "GET", target, &cookie).await;
            assert_eq!(saw.status, 400, "{via:?} {target}");
        }
    }
    assert_eq!(gateway.upstream().requests().len(), 0);
    // Where nothing is guarded better, or the guard is the same, they are part of a path as any other byte.
    for (target, status) in [
        ("/a;b/c;d=1", 200),
        ("/matrix;x=1;y=2", 200),
        ("/users/42;v=1", 200),
        ("/administration;x/y", 200),
        ("/shop/open/a;b", 200),
        ("/a;b/admin/x", 200),
        ("/api/authors;x", 200),
        ("/shop/x;y", 401),
        ("/admin/x;y", 401),
        ("/x?a;b=/admin;c", 200),
    ] {
        for via in BOTH {
            let saw = ask(&gateway, via, "GET", target, &[]).await;
            assert_eq!(saw.status, status, "{via:?} {target}");
            if status == 200 {
                assert_eq!(saw.text(), format!("GET {target}"));
            }
        }
    }
}

/// What is 404 or 405 when it is written plainly is not asked for by a segment that is empty but for its parameter.
#[tokio::test]
async fn route_19_path_06_parameters_of_a_segment_lead_to_nothing_that_has_no_route() {
    let routes = r"
        routes = [
            { path = '/api/users/{id}', upstream = 'app', auth = 'public' },
            { path = '/jobs/{id}', methods = ['POST'], upstream = 'app', auth = 'public' },
            { path = '/projects/{id}', upstream = 'app', auth = 'public', encoded_slashes = 'keep' },
            { path = '/files/*', upstream = 'app', auth = 'public' },
        ]";
    let gateway = Setup::default().with(routes).start().await;
    for (target, status) in [
        ("/api/users/;x", 400),
        ("/api/users/;", 400),
        ("/api/users/%3bx=1", 400),
        ("/projects/;x%2Fy", 400),
        // Plainly there is none, and none has them as they are.
        ("/api/users/", 404),
        ("/api/users;x/42/", 404),
        ("/api/users/42;v=1", 200),
        ("/projects/group%2Fproject", 200),
        ("/projects/group%2Fproject;v=1", 200),
        ("/files/;x", 200),
        ("/files/a;v=1/", 200),
    ] {
        for via in BOTH {
            let saw = ask(&gateway, via, "GET", target, &[]).await;
            assert_eq!(saw.status, status, "{via:?} {target}");
        }
    }
    let forwarded = gateway.upstream().requests();
    let paths = forwarded.iter().map(|seen| seen.head.path());
    assert!(paths.clone().all(|path| !path.contains("/;x") || path == "/files/;x"));
    assert_eq!(paths.count(), 10);
}

/// As HTTP/1.0 and with what makes heads look like something else.
#[tokio::test]
async fn route_03_older_versions_of_the_protocol_are_judged_alike() {
    let gateway = Gateway::start().await;
    let host = gateway.host();
    for head in [
        "GET /admin/x HTTP/1.0\r\n\r\n".to_owned(),
        format!("GET /admin/x HTTP/1.0\r\nHost: {host}\r\nConnection: keep-alive\r\n\r\n"),
        format!("\r\n\r\nGET /admin/x HTTP/1.1\r\nHost: {host}\r\n\r\n"),
        format!("GET https://{host}/admin/x HTTP/1.1\r\nHost: {host}\r\n\r\n"),
        format!(
            "GET HTTPS://{}/admin/x HTTP/1.1\r\nHost: {host}\r\n\r\n",
            host.to_ascii_uppercase()
        ),
    ] {
        let (answer, _): (Response, RawClient) = sent(&gateway, &head).await;
        assert_eq!(answer.status(), 401, "{head:?}");
    }
    for line in [
        "GET /admin/x",
        "GET /admin/x HTTP/0.9",
        "GET /admin/x HTTP/1.2",
        "GET /admin/x HTTP/2.0",
        "GET  /admin/x HTTP/1.1",
        "GET /admin/x  HTTP/1.1",
        "GET\t/admin/x\tHTTP/1.1",
        " GET /admin/x HTTP/1.1",
        "/admin/x HTTP/1.1",
    ] {
        let mut client = gateway.raw().await;
        client.send(format!("{line}\r\nHost: {host}\r\n\r\n")).await;
        let rest = String::from_utf8_lossy(&client.rest().await).into_owned();
        let status = rest.split(' ').nth(1).unwrap_or("closed").to_owned();
        assert!(
            matches!(status.as_str(), "400" | "401" | "505" | "closed"),
            "{line:?}: {rest}"
        );
    }
    assert_eq!(gateway.upstream().requests().len(), 0);
}
