//! Which route a request takes: by host, path and method; no route, no forwarding.

use crate::harness::{Gateway, Setup};

#[tokio::test]
async fn route_07_a_path_without_a_route_is_404_for_everybody() {
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    for call in [gateway.get("/nothing/here"), gateway.get("/nothing/here").with(&ada)] {
        let answer = call.await;
        assert_eq!((answer.status(), answer.code()), (404, "NOT_FOUND".to_owned()));
    }
    assert_eq!(gateway.upstream().requests().len(), 0);
}

#[tokio::test]
async fn route_04_a_wildcard_ends_at_a_segment() {
    let gateway = Gateway::start().await;
    for path in ["/publicsecret", "/public-admin", "/public.bak"] {
        assert_eq!(gateway.get(path).await.status(), 404, "{path}");
    }
    for path in ["/public", "/public/", "/public/x", "/public/x/y"] {
        let answer = gateway.get(path).await;
        assert_eq!((answer.status(), answer.text()), (200, format!("GET {path}").as_str()));
    }
}

#[tokio::test]
async fn the_most_specific_route_wins_whatever_the_order() {
    let routes = r"
        routes = [
            { path = '/*', upstream = 'app', auth = 'public' },
            { path = '/users/*', upstream = 'app' },
            { path = '/users/{id}', upstream = 'app', auth = 'public' },
            { path = '/users/me', upstream = 'app' },
            { path = '/users/{id}', methods = ['DELETE'], upstream = 'app' },
        ]";
    let gateway = Setup::default().with(routes).start().await;
    for (method, path, status) in [
        ("GET", "/", 200),
        ("GET", "/anything", 200),
        ("GET", "/users/42", 200),
        ("GET", "/users/me", 401),
        ("GET", "/users/42/x", 401),
        ("DELETE", "/users/42", 401),
    ] {
        assert_eq!(gateway.call(method, path).await.status(), status, "{method} {path}");
    }
}

/// A servlet container leaves out what follows a semicolon, other programs take `%2F` for a slash: what another route
/// holds back on that path they would be asked for all the same.
#[tokio::test]
async fn path_06_no_other_reading_of_a_path_leads_round_what_a_route_holds_back() {
    let routes = r"
        routes = [
            { path = '/*', upstream = 'app', auth = 'public', encoded_slashes = 'keep' },
            { path = '/actuator/*', auth = 'public', respond = { status = 404 } },
            { path = '/login', upstream = 'app', auth = 'public', rate_limit = { requests = 100 } },
            { path = '/small/*', upstream = 'app', auth = 'public', max_body = '1KiB' },
            { path = '/marked/*', upstream = 'app', auth = 'public', request_headers = { set = { X-Mark = '1' } } },
            { path = '/quiet/*', upstream = 'app', auth = 'public', websocket = false },
            { path = '/large/*', upstream = 'app', auth = 'public', max_body = '1GiB' },
            { path = '/large/usual/*', upstream = 'app', auth = 'public' },
            { path = '/closed/*', upstream = 'app', auth = 'public', cors = [] },
            { path = '/theirs/*', upstream = 'app', auth = 'public', cors = 'upstream' },
            { path = '/same/*', upstream = 'app', auth = 'public' },
            { path = '/counted/*', upstream = 'app', auth = 'public', encoded_slashes = 'keep', rate_limit = { requests = 100 } },
            { path = '/counted/apart/*', upstream = 'app', auth = 'public', rate_limit = { requests = 100 } },
        ]";
    let gateway = Setup::default().with(routes).start().await;
    for path in [
        "/actuator;x/env",
        "/actuator%2Fenv",
        "/x;/../actuator;y/env",
        "/login;1",
        "/small;x/y",
        "/marked;x/y",
        "/marked%2Fy",
        "/quiet;x/y",
        "/large/usual;x/y",
        "/closed;x/y",
        "/theirs;x/y",
        "/counted;x/y",
        "/counted/apart;x/y",
        "/counted/apart%2Fy",
    ] {
        let answer = gateway.get(path).await;
        assert_eq!(answer.status(), 400, "{path}: {}", answer.text());
    }
    assert_eq!(gateway.upstream().requests().len(), 0);
    for path in ["/x;a/b", "/a%2Fb", "/same;x/y", "/same/x;y", "/login", "/marked/x;y"] {
        assert_eq!(gateway.get(path).await.status(), 200, "{path}");
    }
    // No route is held back by itself.
    for path in ["/counted/group%2Fproject", "/counted/x;v=1", "/counted/apart/x;v=1"] {
        assert_eq!(gateway.get(path).await.status(), 200, "{path}");
    }
}

#[tokio::test]
async fn path_06_no_other_reading_of_a_path_lets_a_page_write_where_it_may_not() {
    let routes = r"
        routes = [
            { path = '/*', upstream = 'app', cors = ['https://partner.example'] },
            { path = '/account/*', upstream = 'app', cors = [] },
            { path = '/shared/*', upstream = 'app', cors = ['https://partner.example', 'https://other.example'] },
        ]";
    let gateway = Setup::default().with(routes).start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    let writes = async |path| {
        let call = gateway.post(path).header("Cookie", &ada.cookie);
        call.header("Origin", "https://partner.example").await.status()
    };
    assert_eq!(writes("/account/delete").await, 403);
    for path in ["/account;x/delete", "/;/account/delete", "/account%3Bx/delete"] {
        assert_eq!(writes(path).await, 400, "{path}");
    }
    assert_eq!(gateway.upstream().requests().len(), 0);
    for path in ["/x;a", "/shared;x/y", "/shared/y"] {
        assert_eq!(writes(path).await, 200, "{path}");
    }
}

#[tokio::test]
async fn a_method_that_no_route_takes_is_405() {
    let routes = "routes = [{ path = '/read', methods = ['GET', 'HEAD'], upstream = 'app', auth = 'public' }]";
    let gateway = Setup::default().with(routes).start().await;
    let answer = gateway.post("/read").body("x").await;
    assert_eq!((answer.status(), answer.code()), (405, "METHOD_NOT_ALLOWED".to_owned()));
    assert_eq!(answer.head.one("allow"), Some("GET, HEAD"));
    assert_eq!(gateway.upstream().requests().len(), 0);
}

#[tokio::test]
async fn route_08_a_host_of_its_own_has_routes_of_its_own() {
    let routes = r"
        routes = [
            { path = '/*', upstream = 'app', auth = 'public' },
            { host = 'admin.example', path = '/*', upstream = 'app' },
        ]";
    let gateway = Setup::default().with(routes).start().await;
    for host in ["admin.example", "ADMIN.example", "admin.example.", "admin.example:443"] {
        assert_eq!(gateway.get("/x").header("Host", host).await.status(), 401, "{host}");
    }
    assert_eq!(gateway.get("/x").await.status(), 200);
}

#[tokio::test]
async fn a_host_that_is_not_served_is_421() {
    let gateway = Gateway::start().await;
    for host in ["evil.example", "app.example.com.evil.example", "127.0.0.1"] {
        let answer = gateway.get("/public/x").header("Host", host).await;
        assert_eq!(
            (answer.status(), answer.code()),
            (421, "MISDIRECTED_REQUEST".to_owned()),
            "{host}"
        );
    }
    assert_eq!(gateway.upstream().requests().len(), 0);
}

#[tokio::test]
async fn method_01_method_02_methods_that_make_no_sense_through_a_gateway_are_refused() {
    let gateway = Gateway::start().await;
    let host = gateway.host().to_owned();
    for (request, status) in [
        (format!("TRACE /public/x HTTP/1.1\r\nHost: {host}\r\n\r\n"), 405),
        (
            "CONNECT internal:80 HTTP/1.1\r\nHost: internal:80\r\n\r\n".to_owned(),
            405,
        ),
        (format!("BREW /public/x HTTP/1.1\r\nHost: {host}\r\n\r\n"), 501),
        (format!("get /public/x HTTP/1.1\r\nHost: {host}\r\n\r\n"), 501),
    ] {
        let mut client = gateway.raw().await;
        client.send(&request).await;
        assert_eq!(client.answer().await.status(), status, "{request}");
    }
    assert_eq!(gateway.upstream().requests().len(), 0);
}

#[tokio::test]
async fn route_01_a_query_takes_no_part_in_matching_and_passes_untouched() {
    let gateway = Gateway::start().await;
    for target in ["/admin/x?next=/public/", "/admin/x?/public/"] {
        assert_eq!(gateway.get(target).await.status(), 401, "{target}");
    }
    let target = "/public/x?a=1&b=%2F..%2f&c=//;'{}[]@~+%zz&&";
    assert_eq!(gateway.get(target).await.text(), format!("GET {target}"));
}

#[tokio::test]
async fn the_gateway_s_own_data_is_not_on_the_public_listener() {
    let gateway = Gateway::start().await;
    for path in ["/metrics", "/livez", "/readyz", "/debug/pprof/", "/config"] {
        assert_eq!(gateway.get(path).await.status(), 404, "{path}");
    }
}
