//! What a route does with a request, and what of its keys goes together.

use http::{HeaderName, StatusCode};

use super::*;

fn route(rest: &str) -> Route {
    loaded(&plus(&format!("[[routes]]\npath = '/x/*'\n{rest}\n")))
        .routes
        .remove(0)
}

#[test]
fn a_route_has_one_target() {
    assert_eq!(route("upstream = 'api'").target, Target::Upstream(0));
    let Target::Redirect(redirect) = route("redirect = { to = '/new{path}?{query}' }").target else {
        panic!()
    };
    let pieces = [
        Piece::Text("/new".to_owned()),
        Piece::Path,
        Piece::Query { lead: Some('?') },
    ];
    assert_eq!(
        (redirect.status, redirect.to.as_slice()),
        (StatusCode::PERMANENT_REDIRECT, &pieces[..])
    );
    let Target::Answer(answer) = route("respond = { status = 410, body = 'gone' }").target else {
        panic!()
    };
    assert_eq!((answer.status.as_u16(), &answer.body[..]), (410, &b"gone"[..]));
    assert_eq!(answer.content_type.unwrap(), "text/plain; charset=utf-8");
    let Target::Answer(empty) = route("respond = {}").target else {
        panic!()
    };
    assert_eq!((empty.status.as_u16(), empty.content_type), (200, None));
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("index.html"), "").unwrap();
    let place = folder.path().display();
    let Target::Files(files) = route(&format!("serve = '{place}'\nfallback = 'index.html'")).target else {
        panic!()
    };
    assert_eq!(
        (files.folder.as_path(), files.fallback.as_deref()),
        (folder.path(), Some("index.html"))
    );

    for (rest, key) in [
        ("", "routes[0].upstream"),
        ("upstream = 'api'\nrespond = {}", "routes[0].respond"),
        ("redirect = { to = '/a' }\nrespond = {}", "routes[0].respond"),
        ("redirect = {}", "routes[0].redirect.to"),
        ("redirect = { to = '/{path}' }", "routes[0].redirect.to"),
        ("redirect = { to = '//evil.example' }", "routes[0].redirect.to"),
        ("redirect = { to = 'javascript:alert(1)' }", "routes[0].redirect.to"),
        ("redirect = { to = '/a', status = 304 }", "routes[0].redirect.status"),
        ("redirect = '/a'", "routes[0].redirect"),
        ("respond = { status = 100 }", "routes[0].respond.status"),
        ("respond = { status = 204, body = 'x' }", "routes[0].respond.body"),
        ("respond = { content_type = 'text' }", "routes[0].respond.content_type"),
        ("serve = 'no/such/folder'", "routes[0].serve"),
        (
            &format!("serve = '{place}'\nfallback = 'none.html'"),
            "routes[0].fallback",
        ),
        (
            &format!("serve = '{place}'\nfallback = '../x.html'"),
            "routes[0].fallback",
        ),
        (
            &format!("serve = '{place}'\nmethods = ['GET', 'POST']"),
            "routes[0].methods",
        ),
        ("upstream = 'api'\nfallback = 'index.html'", "routes[0].fallback"),
    ] {
        let error = only_error(&format!("[[routes]]\npath = '/x/*'\n{rest}\n"));
        assert_eq!(error.key, key, "{rest}\n{error:?}");
    }
}

#[test]
fn a_key_without_effect_is_refused() {
    for key in [
        "timeout = '1s'",
        "max_body = '1KiB'",
        "retries = 0",
        "websocket = false",
        "credentials = 'keep'",
        "request_headers = { remove = ['Accept'] }",
        "encoded_slashes = 'keep'",
        "encoded_bytes = 'keep'",
        "cors = 'upstream'",
        "strip_prefix = '/x'",
        "add_prefix = '/y'",
    ] {
        let error = only_error(&format!("[[routes]]\npath = '/x/*'\nrespond = {{}}\n{key}\n"));
        assert_eq!(
            error.key,
            format!("routes[0].{}", key.split(' ').next().unwrap()),
            "{error:?}"
        );
        route(&format!("upstream = 'api'\n{key}"));
    }
    for key in [
        "strip_prefix = '/x'",
        "response_headers = { set = { X-A = 'b' } }",
        "rate_limit = { requests = 1 }",
    ] {
        route(&format!("redirect = {{ to = '/a{{path}}' }}\n{key}"));
    }
}

#[test]
fn prefixes_are_what_the_path_begins_with() {
    let rewrite = route("upstream = 'api'\nstrip_prefix = '/x'\nadd_prefix = '/v2/y'").rewrite;
    assert_eq!((rewrite.strip, rewrite.add.as_str()), (1, "/v2/y"));
    for (rest, nearest) in [
        ("strip_prefix = '/y'", None),
        ("strip_prefix = '/x/y'", None),
        ("strip_prefix = '/x/'", Some("/x")),
        ("strip_prefix = 'x'", Some("/x")),
        ("strip_prefix = '/'", None),
        ("add_prefix = '/v2/'", Some("/v2")),
        ("add_prefix = '/../x'", None),
        ("add_prefix = '/a//b'", Some("/a/b")),
        ("add_prefix = '/a%2Fb'", None),
        ("add_prefix = '/{x}'", None),
        ("add_prefix = '/a?b'", None),
    ] {
        let error = only_error(&format!("[[routes]]\npath = '/x/*'\nupstream = 'api'\n{rest}\n"));
        assert_eq!(error.nearest.as_deref(), nearest, "{rest}\n{error:?}");
    }
    // Compared as paths are matched.
    let text = "[[routes]]\npath = '/@me/{id}'\nupstream = 'api'\nstrip_prefix = '/%40me'\n";
    assert_eq!(loaded(&plus(text)).routes[0].rewrite.strip, 1);
    let parameter = only_error("[[routes]]\npath = '/{a}/*'\nupstream = 'api'\nstrip_prefix = '/{a}'\n");
    assert_eq!(parameter.key, "routes[0].strip_prefix");
}

#[test]
fn header_rules_are_read() {
    let route = route(
        "upstream = 'api'\n\
         request_headers = { set = { Authorization = { env = 'VESTIBULE_SECRET' }, X-A = 'a' }, remove = ['Cookie'] }\n\
         response_headers = { add = { Set-Cookie = 'a=b' }, set = { Content-Security-Policy = \"default-src 'self'\" } }",
    );
    let [(authorization, secret), (a, _)] = route.request_headers.set.as_slice() else {
        panic!()
    };
    assert_eq!(
        (authorization, secret.as_bytes(), a.as_str()),
        (&http::header::AUTHORIZATION, SECRET.as_bytes(), "x-a")
    );
    assert!(!format!("{route:?}").contains(SECRET));
    assert_eq!(route.request_headers.remove, [http::header::COOKIE]);
    assert_eq!(route.response_headers.add[0].0, http::header::SET_COOKIE);
}

#[test]
fn no_rule_speaks_for_the_gateway() {
    let to_upstream = [
        "X-User-Id",
        "x_user_roles",
        "X.User.Email",
        "X-Forwarded-For",
        "X-Forwarded-User",
        "X-Vestibule-Assertion",
        "X-Auth-Request-Email",
        "Remote-User",
        "Forwarded",
        "X-Real-IP",
        "X-Request-Id",
        "Host",
        "Content-Length",
        "Connection",
        "Transfer-Encoding",
        "TE",
        "Upgrade",
        "Expect",
        "Proxy",
        "X-Original-URL",
        "no header",
        "",
    ];
    for name in to_upstream {
        for (rule, key) in [
            (format!("set = {{ '{name}' = 'x' }}"), format!("set.{name}")),
            (format!("add = {{ '{name}' = 'x' }}"), format!("add.{name}")),
            (format!("remove = ['{name}']"), "remove[0]".to_owned()),
        ] {
            let text = format!("[[routes]]\npath = '/x'\nupstream = 'api'\nrequest_headers = {{ {rule} }}\n");
            assert_eq!(
                only_error(&text).key,
                format!("routes[0].request_headers.{key}"),
                "{rule}"
            );
        }
    }
    for name in [
        "Connection",
        "Content-Length",
        "Transfer-Encoding",
        "X-Vestibule-Sign-Out",
        "Access-Control-Allow-Origin",
    ] {
        let text = format!("[[routes]]\npath = '/x'\nrespond = {{}}\nresponse_headers = {{ remove = ['{name}'] }}\n");
        assert_eq!(only_error(&text).key, "routes[0].response_headers.remove[0]", "{name}");
    }
    // A name of the operator's own that carries an identity.
    let own = "[identity]\nuser_id = 'Company-Login'\n[[routes]]\npath = '/x'\nupstream = 'api'\n\
               request_headers = { set = { company_login = 'x' } }\n";
    assert_eq!(only_error(own).key, "routes[0].request_headers");
}

#[test]
fn header_rules_do_not_contradict_each_other() {
    for rules in [
        "set = { X-A = '1', x-a = '2' }",
        "add = { X-A = '1', x-a = '2' }",
        "set = { X-A = '1' }, remove = ['x-a']",
        "add = { X-A = '1' }, remove = ['x-a']",
        "set = { X-A = \"a\\r\\nX-User-Id: 1\" }",
        "set = { X-A = ' padded' }",
        "set = { X-A = 'café' }",
        "set = { Cookie = 'a=b' }",
    ] {
        only_error(&format!(
            "[[routes]]\npath = '/x'\nupstream = 'api'\nrequest_headers = {{ {rules} }}\n"
        ));
    }
    only_error("[[routes]]\npath = '/x'\nrespond = {}\nresponse_headers = { set = { Set-Cookie = 'a=b' } }\n");
    let both = only_error(
        "[[routes]]\npath = '/x'\nupstream = 'api'\ncredentials = 'bearer'\n\
         request_headers = { set = { Authorization = 'x' } }\n",
    );
    assert_eq!(both.key, "routes[0].credentials");
    let name: HeaderName = "x-a".parse().unwrap();
    let both = route("upstream = 'api'\nrequest_headers = { set = { X-A = '1' }, add = { X-A = '2' } }");
    assert!(both.request_headers.writes(&name));
}

#[test]
fn a_rate_limit_says_how_many_and_how_long() {
    let limit = route("upstream = 'api'\nrate_limit = { requests = 5, by = 'user' }")
        .rate_limit
        .unwrap();
    assert_eq!(
        (limit.requests, limit.window, limit.by),
        (5, Duration::from_mins(1), LimitedBy::User)
    );
    assert_eq!(route("upstream = 'api'").rate_limit, None);
    for (value, key) in [
        ("{}", "rate_limit.requests"),
        ("{ requests = 0 }", "rate_limit.requests"),
        ("{ requests = 1, window = '0s' }", "rate_limit.window"),
        ("{ requests = 1, window = '2d' }", "rate_limit.window"),
        ("{ requests = 1, by = 'session' }", "rate_limit.by"),
        ("'1/s'", "rate_limit"),
    ] {
        let error = only_error(&format!(
            "[[routes]]\npath = '/x'\nupstream = 'api'\nrate_limit = {value}\n"
        ));
        assert_eq!(error.key, format!("routes[0].{key}"), "{error:?}");
    }
}

#[test]
fn the_rest_has_safe_defaults() {
    let least = route("upstream = 'api'");
    assert_eq!(
        (least.credentials, least.retries, least.websocket),
        (Credentials::Strip, 1, true)
    );
    assert_eq!(least.kept, Kept::default());
    assert!(least.rewrite.is_nothing() && least.request_headers.is_empty() && least.response_headers.is_empty());
    let all = route(
        "upstream = 'api'\ncredentials = 'keep'\nretries = 0\nwebsocket = false\nencoded_slashes = 'keep'\n\
         encoded_bytes = 'keep'\nrequire = { fresh = '10m' }\nhost = '*.example.com'",
    );
    assert_eq!(
        (all.credentials, all.retries, all.websocket),
        (Credentials::Keep, 0, false)
    );
    assert!(all.kept.slashes && all.kept.bytes);
    let Access::Required(needs) = all.access else { panic!() };
    assert_eq!(needs.fresh, Some(Duration::from_mins(10)));
    assert_eq!(all.host.unwrap().to_string(), "*.example.com");
}
