//! Which route is found, and which readings of a path are held back.

use std::cmp::Ordering;

use proptest::prelude::*;

use super::*;
use crate::config::{Access, HostPattern, Needs, PathPattern, Segment};

pub(crate) fn route(line: usize, host: Option<&str>, text: &str, methods: &[&str]) -> Arc<Route> {
    let wildcard = text.ends_with("/*");
    let body = text.trim_end_matches("/*").trim_start_matches('/');
    let segments = if body.is_empty() {
        Vec::new()
    } else {
        body.split('/')
            .map(
                |segment| match segment.strip_prefix('{').and_then(|name| name.strip_suffix('}')) {
                    Some(name) => Segment::Parameter(name.to_owned()),
                    None => Segment::Literal(segment.to_owned()),
                },
            )
            .collect()
    };
    Arc::new(Route {
        host: host.map(|host| match host.strip_prefix('*') {
            Some(above) => HostPattern::Below(above.to_owned()),
            None => HostPattern::Exact(host.to_owned()),
        }),
        path: Arc::new(PathPattern {
            text: text.to_owned(),
            segments,
            wildcard,
        }),
        methods: methods.iter().map(|name| name.parse().unwrap()).collect(),
        line,
        ..Route::example("/")
    })
}

fn built(routes: &[Arc<Route>]) -> RouteTable {
    RouteTable::build(routes, "/api/auth", 1 << 20)
}

fn table(patterns: &[&str]) -> RouteTable {
    let routes: Vec<_> = patterns
        .iter()
        .enumerate()
        .map(|(line, text)| route(line, None, text, &[]))
        .collect();
    built(&routes)
}

fn found(table: &RouteTable, host: &str, path: &str, method: &str) -> Result<String, NoRoute> {
    table
        .find(host, &NormalPath::parse(path).unwrap(), &method.parse().unwrap())
        .map(|route| route.path.text.clone())
}

/// The pattern of the route for a GET of `path`, whatever it holds that some route keeps.
fn kept_whole<'t>(table: &'t RouteTable, path: &str) -> Result<&'t str, NoRoute> {
    let path = NormalPath::parse_keeping(path, table.kept()).unwrap();
    let route = table.find("h", &path, &Method::GET)?;
    Ok(route.path.text.as_str())
}

#[test]
fn the_most_specific_pattern_wins_in_any_order() {
    let patterns = [
        "/*", "/a/*", "/a/{x}", "/a/b", "/a/b/*", "/{y}/b/c", "/a/{x}/d", "/", "/t", "/t/",
    ];
    let mut turned = patterns;
    turned.reverse();
    for patterns in [patterns, turned] {
        let table = table(&patterns);
        for (path, pattern) in [
            ("/", "/"),
            ("/a", "/a/*"),
            ("/a/", "/a/*"),
            ("/a/z", "/a/{x}"),
            ("/a/b", "/a/b"),
            ("/a/b/", "/a/b/*"),
            ("/a/b/c", "/a/b/*"),
            ("/a/b/d", "/a/b/*"),
            ("/a/z/d", "/a/{x}/d"),
            ("/a/z/e", "/a/*"),
            ("/q/b/c", "/{y}/b/c"),
            ("/q/b/d", "/*"),
            ("/t", "/t"),
            ("/t/", "/t/"),
            ("/t/u", "/*"),
        ] {
            assert_eq!(found(&table, "h", path, "GET").as_deref(), Ok(pattern), "{path}");
        }
    }
}

#[test]
fn a_prefix_ends_at_a_segment_boundary() {
    let table = table(&["/public/*", "/users/{id}"]);
    for path in [
        "/publicsecret",
        "/public-admin",
        "/Public/x",
        "/users/",
        "/users",
        "/users/1/x",
        "/",
    ] {
        assert_eq!(found(&table, "h", path, "GET"), Err(NoRoute::Path), "{path}");
    }
}

#[test]
fn escapes_do_not_hide_a_literal() {
    let table = table(&["/@admin/*", "/{x}/*", "/caf%C3%A9", "/a b"]);
    for (path, pattern) in [
        ("/%40admin/x", "/@admin/*"),
        ("/@admin/x", "/@admin/*"),
        ("/%61b/x", "/{x}/*"),
        ("/caf%c3%a9", "/caf%C3%A9"),
        ("/a%20b", "/a b"),
    ] {
        assert_eq!(found(&table, "h", path, "GET").as_deref(), Ok(pattern), "{path}");
    }
}

#[test]
fn a_host_of_its_own_comes_first() {
    let table = built(&[
        route(0, None, "/x", &[]),
        route(1, Some("a.example"), "/*", &["GET"]),
        route(2, Some("b.example"), "/only", &[]),
    ]);
    assert_eq!(found(&table, "a.example", "/x", "GET").as_deref(), Ok("/*"));
    assert_eq!(found(&table, "a.example", "/x", "POST").as_deref(), Ok("/x"));
    assert_eq!(found(&table, "b.example", "/x", "GET").as_deref(), Ok("/x"));
    assert_eq!(found(&table, "c.example", "/only", "GET"), Err(NoRoute::Path));
}

#[test]
fn methods_choose_last_and_say_what_is_allowed() {
    let table = built(&[
        route(0, None, "/x", &[]),
        route(1, None, "/x", &["POST"]),
        route(2, None, "/y", &["GET", "PUT"]),
        route(3, None, "/y", &["LOCK", "FROB"]),
        route(4, None, "/h", &["GET"]),
        route(5, None, "/h", &["HEAD"]),
    ]);
    let line = |path: &str, method: &str| {
        table
            .find("h", &NormalPath::parse(path).unwrap(), &method.parse().unwrap())
            .map(|route| route.line)
    };
    assert_eq!(line("/x", "POST"), Ok(1));
    assert_eq!(line("/x", "GET"), Ok(0));
    assert_eq!(line("/x", "PROPFIND"), Ok(0));
    assert_eq!(line("/y", "HEAD"), Ok(2));
    assert_eq!(line("/h", "HEAD"), Ok(5));
    assert_eq!(line("/y", "FROB"), Ok(3));
    assert_eq!(line("/x", "FROB"), Err(NoRoute::UnknownMethod));
    assert_eq!(line("/x", "get"), Err(NoRoute::UnknownMethod));
    assert_eq!(line("/none", "FROB"), Err(NoRoute::Path));
    let allow = HeaderValue::from_static("FROB, GET, HEAD, LOCK, PUT");
    assert_eq!(line("/y", "DELETE"), Err(NoRoute::Method { allow }));
}

#[test]
fn a_stricter_method_does_not_hide_a_wider_route() {
    let table = built(&[route(0, None, "/a/b", &["GET"]), route(1, None, "/a/*", &["POST"])]);
    assert_eq!(found(&table, "h", "/a/b", "POST").as_deref(), Ok("/a/*"));
    let allow = HeaderValue::from_static("GET, HEAD, POST");
    assert_eq!(found(&table, "h", "/a/b", "PUT"), Err(NoRoute::Method { allow }));
}

#[test]
fn hosts_below_one_come_between() {
    let table = built(&[
        route(0, None, "/*", &[]),
        route(1, Some("*.example.com"), "/*", &[]),
        route(2, Some("*.b.example.com"), "/b/*", &[]),
        route(3, Some("a.example.com"), "/a/*", &[]),
    ]);
    let line = |host: &str, path: &str| {
        let path = NormalPath::parse(path).unwrap();
        table.find(host, &path, &Method::GET).map(|route| route.line)
    };
    assert_eq!(line("a.example.com", "/a/x"), Ok(3));
    assert_eq!(line("a.example.com", "/x"), Ok(1));
    assert_eq!(line("x.b.example.com", "/b/x"), Ok(2));
    assert_eq!(line("x.b.example.com", "/x"), Ok(1));
    assert_eq!(line("b.example.com", "/b/x"), Ok(1));
    assert_eq!(line("example.com", "/a/x"), Ok(0));
    assert_eq!(line("evilexample.com", "/a/x"), Ok(0));
}

#[test]
fn a_path_that_its_route_does_not_keep_falls_to_no_other() {
    let keeping = Route {
        kept: Kept {
            slashes: true,
            bytes: false,
        },
        ..Route::example("/*")
    };
    let table = built(&[
        Arc::new(keeping),
        Arc::new(Route {
            access: Access::Required(Needs::default()),
            ..Route::example("/admin/*")
        }),
        Arc::new(Route {
            methods: vec![Method::GET],
            ..Route::example("/files/{name}")
        }),
    ]);
    let found = |path| kept_whole(&table, path);
    assert_eq!(found("/group%2Fproject"), Ok("/*"));
    // One segment, whatever is in it.
    assert_eq!(found("/x%2Fadmin"), Ok("/*"));
    for path in ["/admin/a%2Fb", "/files/a%2Fb", "/admin%2Fx", "/admin%2F%2Fx"] {
        assert_eq!(found(path), Err(NoRoute::Unfit(PathError::EncodedSlash)), "{path}");
    }
}

#[test]
fn parameters_of_segments_lead_round_no_guard() {
    let guarded = |pattern| {
        Arc::new(Route {
            access: Access::Required(Needs::default()),
            ..Route::example(pattern)
        })
    };
    let keeping = Route {
        kept: Kept {
            slashes: true,
            bytes: false,
        },
        ..Route::example("/*")
    };
    let table = built(&[
        Arc::new(keeping),
        guarded("/admin/*"),
        Arc::new(Route::example("/admin/open/*")),
        Arc::new(Route::example("/users/{id}")),
        guarded("/users/all"),
    ]);
    let found = |path| kept_whole(&table, path);
    for (path, pattern) in [
        ("/a;b/c;d", "/*"),
        ("/a%3Bb", "/*"),
        ("/administration;x", "/*"),
        ("/admin/x;y", "/admin/*"),
        ("/admin/x;open/y", "/admin/*"),
        ("/admin/open;x/y", "/admin/*"),
        ("/admin/open/a;b", "/admin/open/*"),
        ("/users/42;v=1", "/users/{id}"),
    ] {
        assert_eq!(found(path), Ok(pattern), "{path}");
    }
    for path in [
        "/admin;x/y",
        "/admin;",
        "/;/admin",
        "/;a;b/admin;c",
        "/admin%3Bx/y",
        "/users/all;x",
        "/x;/../admin;/y",
    ] {
        assert_eq!(found(path), Err(NoRoute::Unfit(PathError::HidingParameter)), "{path}");
    }
    // Read in both ways at once.
    assert_eq!(found("/admin;x%2Fy"), Err(NoRoute::Unfit(PathError::EncodedSlash)));
}

#[test]
fn a_parameter_leads_to_nothing_that_has_no_route() {
    let open = |pattern| Route {
        kept: Kept {
            slashes: true,
            bytes: false,
        },
        ..Route::example(pattern)
    };
    let table = built(&[
        Arc::new(open("/projects/{id}")),
        Arc::new(Route {
            access: Access::Required(Needs::default()),
            ..Route::example("/projects/all/members")
        }),
        Arc::new(Route::example("/api/users/{id}")),
        Arc::new(Route {
            methods: vec![Method::POST],
            ..Route::example("/jobs/run")
        }),
        Arc::new(Route::example("/jobs/{id}")),
        Arc::new(Route {
            methods: vec![Method::POST],
            ..Route::example("/only")
        }),
        Arc::new(Route::example("/only;v=1")),
        Arc::new(Route::example("/files/*")),
        Arc::new(Route::example("/exact")),
    ]);
    let found = |path| kept_whole(&table, path);
    for (path, pattern) in [
        ("/api/users/42;v=1", "/api/users/{id}"),
        ("/jobs/run;v=1", "/jobs/{id}"),
        ("/files/;v=1", "/files/*"),
        ("/files/a;v=1", "/files/*"),
        ("/projects/group%2Fproject", "/projects/{id}"),
        ("/projects/group%2Fproject;v=1", "/projects/{id}"),
        ("/projects/group;v=1%2Fproject", "/projects/{id}"),
    ] {
        assert_eq!(found(path), Ok(pattern), "{path}");
    }
    for path in ["/api/users/;x", "/api/users/%3B", "/only;v=1", "/projects/;x%2Fy"] {
        assert_eq!(found(path), Err(NoRoute::Unfit(PathError::HidingParameter)), "{path}");
    }
    // No route has this as it is, so none is asked what it is without.
    assert_eq!(found("/exact;v=1"), Err(NoRoute::Path));
    // Read in both ways, in either order.
    for path in ["/projects/all;x%2Fmembers", "/projects/all%2Fmembers;x"] {
        assert_eq!(found(path), Err(NoRoute::Unfit(PathError::EncodedSlash)), "{path}");
    }
}

#[test]
fn no_reading_leads_below_the_base_path() {
    let keeping = Route {
        kept: Kept {
            slashes: true,
            bytes: false,
        },
        ..Route::example("/*")
    };
    let table = built(&[Arc::new(keeping), Arc::new(Route::example("/api/{name}"))]);
    let found = |path| kept_whole(&table, path);
    for path in [
        "/api/auth;x",
        "/api/auth;x/sign-up/email",
        "/api;/auth",
        "/;/api/auth/x",
        "/api/auth%3B/x",
    ] {
        assert_eq!(found(path), Err(NoRoute::Unfit(PathError::HidingParameter)), "{path}");
    }
    for path in ["/api%2Fauth%2Fget-session", "/api%2Fauth;x", "/api;x%2Fauth"] {
        assert_eq!(found(path), Err(NoRoute::Unfit(PathError::EncodedSlash)), "{path}");
    }
    for (path, pattern) in [
        ("/api%2Fauthors", "/*"),
        ("/x%2Fapi%2Fauth", "/*"),
        ("/api/authors;x", "/api/{name}"),
        ("/x;/api/auth", "/*"),
    ] {
        assert_eq!(found(path), Ok(pattern), "{path}");
    }
}

#[test]
fn backtracking_is_bounded_by_the_table() {
    // Every mixture of a literal and a parameter over twelve levels, none of which fits at the end.
    let patterns: Vec<String> = (0..1 << 12)
        .map(|bits: u32| {
            (0..12)
                .map(|at| if bits >> at & 1 == 0 { "/a" } else { "/{p}" })
                .collect::<String>()
                + "/end"
        })
        .collect();
    let patterns: Vec<&str> = patterns.iter().map(String::as_str).collect();
    let table = table(&patterns);
    assert_eq!(
        found(&table, "h", &format!("{}/other", "/a".repeat(12)), "GET"),
        Err(NoRoute::Path)
    );
    // A long path ends where the table does.
    assert_eq!(found(&table, "h", &"/a".repeat(30_000), "GET"), Err(NoRoute::Path));
}

/// As a path splits.
fn pattern_segments(route: &Route) -> Vec<Segment> {
    let pattern = &route.path;
    let mut segments = pattern.segments.clone();
    let empty = Segment::Literal(String::new());
    if !pattern.wildcard && pattern.text.ends_with('/') && segments.last() != Some(&empty) {
        segments.push(empty);
    }
    segments
}

/// The rule as product documents say it: all that match, most specific first.
fn oracle<'t>(routes: &'t [Arc<Route>], host: &str, path: &str, method: &Method) -> Option<&'t Arc<Route>> {
    let segments = path.trim_start_matches('/').split('/');
    let segments: Vec<_> = segments.map(|segment| decoded(segment.as_bytes())).collect();
    let matches = |route: &Route| {
        let pattern = pattern_segments(route);
        let long_enough = segments.len() == pattern.len() || route.path.wildcard && segments.len() > pattern.len();
        route.host.as_ref().is_none_or(|own| own.matches(host))
            && long_enough
            && pattern.iter().zip(&segments).all(|(pattern, segment)| match pattern {
                Segment::Literal(text) => text.as_bytes() == &**segment,
                Segment::Parameter(_) => !segment.is_empty(),
            })
            && allows(route, method)
    };
    let weight = |route: &Route, at: usize| match pattern_segments(route).get(at) {
        Some(Segment::Literal(_)) => 0,
        Some(Segment::Parameter(_)) => 1,
        None if route.path.wildcard => 3,
        None => 2,
    };
    let compare = |a: &&Arc<Route>, b: &&Arc<Route>| {
        let hosts = HostPattern::order(a.host.as_ref(), b.host.as_ref());
        let segments = (0..12)
            .map(|at| weight(a, at).cmp(&weight(b, at)))
            .find(|o| *o != Ordering::Equal);
        let named = |route: &Route| !route.methods.contains(method);
        let methods = (named(a), a.methods.is_empty(), a.line).cmp(&(named(b), b.methods.is_empty(), b.line));
        hosts.then(segments.unwrap_or(Ordering::Equal)).then(methods)
    };
    routes.iter().filter(|route| matches(route)).min_by(compare)
}

/// Longer than a node has room for.
const LONG: &str = "a-segment-that-is-longer-than-others-by-far";

fn some_path() -> impl Strategy<Value = String> {
    let segment = prop_oneof![
        4 => prop_oneof![Just("/a"), Just("/b"), Just("/c"), Just("/x"), Just("/@me"), Just("/%40me")],
        1 => prop_oneof![Just("/a-segment-that-is-longer-than-others-by-far"), Just("/d"), Just("/k")],
    ];
    let end = prop_oneof![Just(""), Just("/")];
    (prop::collection::vec(segment, 0..4), end)
        .prop_map(|(segments, end)| segments.concat() + end)
        .prop_map(|path| if path.is_empty() { "/".to_owned() } else { path })
}

fn some_route() -> impl Strategy<Value = (Option<&'static str>, String, Vec<&'static str>)> {
    let segment = prop_oneof![
        4 => prop_oneof![Just("a"), Just("b"), Just("{p}"), Just("c"), Just("@me"), Just(LONG)],
        1 => prop_oneof![Just("d"), Just("e"), Just("f"), Just("g"), Just("h"), Just("i"), Just("j"), Just("k")],
    ];
    let host = prop_oneof![
        Just(None),
        Just(Some("h.example")),
        Just(Some("*.example")),
        Just(Some("*.h.example"))
    ];
    let end = prop_oneof![Just(""), Just("/"), Just("/*")];
    let methods = prop_oneof![
        Just(vec![]),
        Just(vec!["GET"]),
        Just(vec!["POST"]),
        Just(vec!["HEAD", "PUT"]),
        Just(vec!["LOCK", "FROB"])
    ];
    (host, prop::collection::vec(segment, 0..4), end, methods).prop_map(|(host, segments, end, methods)| {
        let mut text: String = segments.iter().flat_map(|segment| ["/", segment]).collect();
        text.push_str(end);
        (host, if text.is_empty() { "/".to_owned() } else { text }, methods)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn the_table_agrees_with_trying_all_routes(
        routes in prop::collection::vec(some_route(), 0..32),
        paths in prop::collection::vec(some_path(), 1..8),
        host in prop_oneof![Just("h.example"), Just("other.example"), Just("a.h.example"), Just("example")],
        method in prop_oneof![Just("GET"), Just("HEAD"), Just("POST"), Just("DELETE"), Just("LOCK"), Just("FROB")],
    ) {
        let routes: Vec<_> = routes.iter().enumerate().map(|(line, (host, text, methods))| route(line, *host, text, methods)).collect();
        let table = built(&routes);
        let method: Method = method.parse().unwrap();
        for path in paths {
            let path = NormalPath::parse(&path).unwrap();
            let fast = table.find(host, &path, &method).ok().map(|route| route.line);
            prop_assert_eq!(fast, oracle(&routes, host, path.as_str(), &method).map(|route| route.line), "{:?}", path);
        }
    }
}
