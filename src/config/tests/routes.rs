//! Routes: what they demand, and what they mustn't leave open.

use super::*;

#[test]
fn upstreams_keep_the_order_of_the_file() {
    let config = loaded(&plus(
        "[upstreams.zeta]\nendpoints = 'http://z'\n[upstreams.beta]\nendpoints = 'http://b'\n\
         [[routes]]\npath = '/z/*'\nupstream = 'zeta'\n",
    ));
    let names: Vec<_> = config.upstreams.iter().map(|upstream| upstream.name.as_str()).collect();
    assert_eq!(names, ["api", "zeta", "beta"]);
    assert_eq!(config.routes[0].target, Target::Upstream(1));
    assert_eq!(config.routes[0].line, MINIMAL.lines().count() + 5);
}

#[test]
fn a_route_says_what_it_demands() {
    let config = loaded(&plus(
        "[[routes]]\npath = '/a'\nupstream = 'api'\n\
         [[routes]]\npath = '/b'\nupstream = 'api'\nauth = 'optional'\nhost = 'b.example'\nmethods = ['GET', 'QUERY', 'BREW']\n\
         [[routes]]\npath = '/c'\nupstream = 'api'\nrequire = { roles = ['admin'], verified_email = true }\n\
         on_denied = 'status'\nmax_body = '1GiB'\ntimeout = '5m'\n",
    ));
    let [a, b, c] = config.routes.as_slice() else { panic!() };
    assert_eq!(a.access, Access::Required(Needs::default()));
    assert_eq!(
        (
            &b.access,
            b.host.as_ref().unwrap().to_string().as_str(),
            b.methods.len()
        ),
        (&Access::Optional, "b.example", 3)
    );
    let needs = Needs {
        roles: vec!["admin".to_owned()],
        verified_email: true,
        fresh: None,
    };
    assert_eq!((&c.access, c.on_denied), (&Access::Required(needs), OnDenied::Status));
    assert_eq!((c.max_body, c.timeout), (Some(1 << 30), Some(Duration::from_mins(5))));
}

#[test]
fn a_route_says_whose_pages_may_call_it() {
    let friend = OriginPattern::Exact(Origin::parse("https://friend.example").unwrap());
    for (line, cors) in [
        ("", Cors::Trusted),
        ("cors = []", Cors::Listed(Vec::new())),
        ("cors = ['https://friend.example']", Cors::Listed(vec![friend])),
        ("cors = 'upstream'", Cors::Upstream),
    ] {
        let config = loaded(&plus(&format!("[[routes]]\npath = '/x'\nupstream = 'api'\n{line}\n")));
        assert_eq!(config.routes[0].cors, cors, "{line}");
    }
    let slip = only_error("[[routes]]\npath = '/x'\nupstream = 'api'\ncors = 'upstraem'\n");
    assert_eq!(slip.nearest.as_deref(), Some("upstream"));
    assert!(slip.allowed.unwrap().ends_with("; or \"upstream\""));
    let bare = only_error("[[routes]]\npath = '/x'\nupstream = 'api'\ncors = 'https://a.example'\n");
    assert_eq!(bare.nearest.as_deref(), Some("[\"https://a.example\"]"));
}

#[test]
fn a_route_that_contradicts_itself_is_refused() {
    for (rest, key) in [
        ("auth = 'public'\nrequire = { roles = ['admin'] }", "routes[0].require"),
        ("auth = 'optional'\non_denied = 'status'", "routes[0].on_denied"),
        ("on_denied = 'sign-in'", "routes[0].on_denied"),
        ("methods = ['get']", "routes[0].methods[0]"),
        ("methods = ['PSOT']", "routes[0].methods[0]"),
        ("methods = ['TRACE']", "routes[0].methods[0]"),
        ("require = { roles = ['a b'] }", "routes[0].require.roles[0]"),
        ("require = { role = ['a'] }", "routes[0].require.role"),
        ("host = 'x.example:80'", "routes[0].host"),
        ("timeout = '0s'", "routes[0].timeout"),
        ("cors = '*'", "routes[0].cors"),
        ("cors = 'upstraem'", "routes[0].cors"),
        ("cors = 'https://app.example.com'", "routes[0].cors"),
        ("cors = true", "routes[0].cors"),
        ("cors = ['*']", "routes[0].cors[0]"),
        ("cors = ['https://*.com']", "routes[0].cors[0]"),
    ] {
        let error = only_error(&format!("[[routes]]\npath = '/x'\nupstream = 'api'\n{rest}\n"));
        assert_eq!(error.key, key, "{error:?}");
    }
    for path in [
        "/api/auth",
        "/api/auth/*",
        "/api/auth/x",
        "/api/%61uth/{id}",
        "/api/auth/",
    ] {
        let errors = refused(&plus(&format!("[[routes]]\npath = '{path}'\nupstream = 'api'\n")));
        assert!(errors.iter().all(|error| error.key == "routes[0].path"), "{errors}");
    }
    loaded(&plus(
        "[[routes]]\npath = '/api/*'\nupstream = 'api'\n[[routes]]\npath = '/api/authors'\nupstream = 'api'\n",
    ));
}

/// The minimal configuration with these routes, one a line from the second line on.
fn routes(list: &[&str]) -> String {
    let tables: Vec<String> = list
        .iter()
        .map(|route| format!("{{ upstream = 'api', {route} }}"))
        .collect();
    format!("\nroutes = [{}]\n{MINIMAL}", tables.join(",\n"))
}

#[test]
fn routes_that_tie_are_refused() {
    for (a, b) in [
        ("path = '/a'", "path = '/a'"),
        ("path = '/a/{x}'", "path = '/a/{y}'"),
        ("path = '/@a/*'", "path = '/%40a/*'"),
        (
            "path = '/a', methods = ['GET', 'POST']",
            "path = '/a', methods = ['POST']",
        ),
        (
            "path = '/a', host = 'x.example'",
            "path = '/a', host = 'x.example', auth = 'public'",
        ),
    ] {
        let errors = refused(&routes(&[a, b]));
        assert_eq!(errors.iter().count(), 1, "{a} | {b}\n{errors}");
        let error = errors.iter().next().unwrap();
        assert_eq!(error.key, "routes[1].path");
        assert!(error.problem.contains("routes[0] on line 2"), "{errors}");
    }
    for (a, b) in [
        ("path = '/a'", "path = '/a/'"),
        ("path = '/a'", "path = '/a/*'"),
        ("path = '/a/{x}'", "path = '/a/x'"),
        ("path = '/a'", "path = '/a', methods = ['POST']"),
        ("path = '/a', methods = ['GET']", "path = '/a', methods = ['POST']"),
        ("path = '/a', host = 'x.example'", "path = '/a'"),
        ("path = '/a', host = 'x.example'", "path = '/a', host = '*.example'"),
    ] {
        loaded(&routes(&[a, b]));
    }
}

#[test]
fn methods_that_would_fall_to_a_less_demanding_route_are_refused() {
    let admin_get = "path = '/admin/*', methods = ['GET']";
    for open in [
        "path = '/*', auth = 'public'",
        "path = '/*', auth = 'optional'",
        "path = '/{any}', auth = 'public'",
        "path = '/*', auth = 'public', methods = ['DELETE']",
    ] {
        let errors = refused(&routes(&[admin_get, open]));
        assert_eq!(errors.iter().count(), 1, "{open}\n{errors}");
        assert_eq!(errors.iter().next().unwrap().key, "routes[0].methods", "{errors}");
    }
    for fine in [
        vec![admin_get, "path = '/*'"],
        vec![admin_get, "path = '/admin/*'", "path = '/*', auth = 'public'"],
        vec![admin_get, "path = '/{x}/*'", "path = '/*', auth = 'public'"],
        vec![admin_get, "path = '/admin/*', auth = 'public', methods = ['POST']"],
        vec![admin_get, "path = '/other/*', auth = 'public'"],
        vec![
            "path = '/a', methods = ['GET'], host = '*.y.example'",
            "path = '/a', auth = 'public', host = '*.z.example'",
        ],
        vec![
            "path = '/a', methods = ['GET'], host = 'y.example'",
            "path = '/a', auth = 'public', host = '*.y.example'",
        ],
        vec![admin_get, "path = '/*', auth = 'public', methods = ['GET', 'HEAD']"],
        vec![admin_get, "path = '/admin/x', auth = 'public'"],
        vec!["path = '/admin/*'", "path = '/*', auth = 'public'"],
    ] {
        loaded(&routes(&fine));
    }
    // A role, a verified address, a host, a method of one's own: each is a demand that can be lost.
    for (guarded, open) in [
        (
            "path = '/a', methods = ['GET'], require = { roles = ['admin'] }",
            "path = '/*'",
        ),
        (
            "path = '/a', methods = ['GET'], require = { verified_email = true }",
            "path = '/*'",
        ),
        (
            "path = '/a', methods = ['GET'], require = { roles = ['x'] }",
            "path = '/*', require = { roles = ['x', 'y'] }",
        ),
        (
            "path = '/a', methods = ['GET'], host = 'x.example'",
            "path = '/a', auth = 'public'",
        ),
        (
            "path = '/a', methods = ['GET'], host = 'x.y.example'",
            "path = '/*', auth = 'public', host = '*.example'",
        ),
        (
            "path = '/a', methods = ['GET'], host = '*.y.example'",
            "path = '/*', auth = 'public', host = '*.example'",
        ),
        (
            "path = '/a', methods = ['GET'], require = { fresh = '1m' }",
            "path = '/*', require = { fresh = '2m' }",
        ),
        ("path = '/a'", "path = '/*', auth = 'public', methods = ['BREW']"),
    ] {
        let errors = refused(&routes(&[guarded, open]));
        assert_eq!(errors.iter().count(), 1, "{guarded}\n{errors}");
    }
    loaded(&routes(&[
        "path = '/a', methods = ['GET'], require = { roles = ['x', 'y'] }",
        "path = '/*', require = { roles = ['x'] }",
    ]));
}

#[test]
fn a_sign_in_page_that_needs_a_session_is_refused() {
    let with = |page: &str, list: &[&str]| {
        let text = routes(list);
        parse(
            &format!("{text}[auth.pages]\nsign_in = '{page}'\n"),
            "gateway.toml",
            &environment,
        )
    };
    for page in ["/sign-in?x=1", "https://app.example.com/sign-in"] {
        let errors = with(page, &["path = '/*'", "path = '/api/*', auth = 'public'"]).unwrap_err();
        assert_eq!(errors.iter().count(), 1, "{errors}");
        assert_eq!(errors.iter().next().unwrap().key, "routes[0].path");
        with(page, &["path = '/*'", "path = '/sign-in', auth = 'public'"]).unwrap();
        with(page, &["path = '/api/*'"]).unwrap();
    }
}
