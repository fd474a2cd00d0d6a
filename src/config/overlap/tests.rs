//! What is found by looking at few routes is what would be found by looking at all.

use std::cell::RefCell;

use proptest::prelude::*;

use super::*;
use crate::config::Needs;

/// As [`hole`], with every route compared and nothing left out.
fn hole_among_all(group: &[&Listed], routes: &[Listed]) -> Option<ConfigError> {
    let first = group.first()?;
    let falling = |other: &&Listed| falls_to(&first.route, &other.route);
    let mut below: Vec<&Listed> = routes.iter().filter(falling).collect();
    below.sort_by(|a, b| order(&a.route, &b.route).then_with(|| a.path_place.cmp(&b.path_place)));
    let mut answered: Vec<&Route> = group.iter().map(|listed| &listed.route).collect();
    for next in below {
        let laxer = |listed: &&&Listed| next.route.access.lets_in_more_than(&listed.route.access);
        if let Some(method) = passing(&answered.iter().copied(), &next.route.methods)
            && let Some(guarded) = group.iter().find(laxer)
        {
            return Some(unguarded(guarded, next, &method));
        }
        if covers(&next.route.path, &first.route.path) {
            answered.push(&next.route);
        }
    }
    None
}

fn listed(line: usize, (host, path, methods, access): (Option<&str>, &str, Vec<&str>, Access)) -> Listed {
    let at = |column| Place::File { line, column };
    Listed {
        route: Route {
            host: host.map(|host| match host.strip_prefix('*') {
                Some(above) => HostPattern::Below(above.to_owned()),
                None => HostPattern::Exact(host.to_owned()),
            }),
            methods: methods.iter().map(|name| name.parse().unwrap()).collect(),
            access,
            ..Route::example(path)
        },
        key: format!("routes[{line}]"),
        path_place: at(1),
        methods_place: at(2),
    }
}

const PATHS: &[&str] = &[
    "/*", "/", "/a", "/a/", "/a/*", "/{x}", "/{x}/*", "/a/b", "/a/{y}", "/{x}/b", "/a/b/*", "/%40/*",
];

fn some_route() -> impl Strategy<Value = (Option<&'static str>, &'static str, Vec<&'static str>, Access)> {
    let host = prop_oneof![
        2 => Just(None),
        1 => Just(Some("a.example.com")),
        1 => Just(Some("*.example.com")),
        1 => Just(Some("*.a.example.com"))
    ];
    let methods = prop_oneof![
        3 => Just(vec![]),
        2 => Just(vec!["GET"]),
        1 => Just(vec!["POST", "PUT"]),
        1 => Just(vec!["FROB"])
    ];
    let roles = Needs {
        roles: vec!["admin".to_owned()],
        ..Needs::default()
    };
    let access = prop_oneof![
        2 => Just(Access::Required(Needs::default())),
        1 => Just(Access::Required(roles)),
        1 => Just(Access::Public),
        1 => Just(Access::Optional)
    ];
    (host, prop::sample::select(PATHS), methods, access)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn no_hole_is_missed_and_none_made_up(routes in prop::collection::vec(some_route(), 0..12)) {
        let routes: Vec<Listed> = routes.into_iter().enumerate().map(|(line, route)| listed(line, route)).collect();
        let reported = RefCell::new(Vec::new());
        check(&routes, &|error| reported.borrow_mut().push(error));
        let mut holes = reported.into_inner();
        holes.retain(|error| error.key.ends_with(".methods"));
        let index = Index::of(&routes);
        let expected: Vec<ConfigError> =
            index.groups.iter().filter_map(|group| hole_among_all(group, &routes)).collect();
        prop_assert_eq!(holes, expected);
    }
}
