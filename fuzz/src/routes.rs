//! Property: of all routes that match, the most specific is found, and no other; a path that its route does not keep falls
//! to none.
//!
//! The input is text: lines with a route each (`HOST PATH METHODS ACCESS KEPT`, as in `*.h.example /a/{x}/* GET,PUT admin
//! slashes`, with `-` for none), an empty line, and lines with a request each (`HOST METHOD PATH`).

use std::sync::Arc;

use http::Method;
use oracle::{
    path::{self, Kept},
    route::{self, Access, NoRoute, Route},
};
use vestibule::policy::{path::NormalPath, routes::NoRoute as Missed, routes::RouteTable};

use super::{configured, world};

/// Whether the routes were a configuration: else there is nothing to be shown.
pub fn holds(input: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(input) else {
        return false;
    };
    let (routes, requests) = text.split_once("\n\n").unwrap_or((text, ""));
    let routes: Vec<Route> = routes
        .lines()
        .take(40)
        .enumerate()
        .filter_map(|(number, line)| route(number, line))
        .collect();
    let Ok(config) = configured::parse(&world::toml(&routes)) else {
        return false;
    };
    let table: Vec<_> = config.routes.iter().cloned().map(Arc::new).collect();
    let fast = RouteTable::build(&table, &config.auth.base_path, config.server.max_body);
    for request in requests.lines() {
        if let [host, method, path] = request.split(' ').collect::<Vec<_>>()[..] {
            find(&routes, &table, (&fast, &config.auth.base_path), (host, method, path));
        }
    }
    true
}

fn find(
    routes: &[Route],
    table: &[Arc<vestibule::config::Route>],
    (fast, base_path): (&RouteTable, &str),
    (host, method, path): (&str, &str, &str),
) {
    let kept = routes.iter().fold(Kept::default(), |all, route| Kept {
        slashes: all.slashes || route.kept.slashes,
        bytes: all.bytes || route.kept.bytes,
    });
    let (Ok(named), Ok(normal)) = (
        Method::from_bytes(method.as_bytes()),
        NormalPath::parse_keeping(path, fast.kept()),
    ) else {
        return;
    };
    let Some(slow) = path::normal(path.split('?').next().unwrap_or_default().as_bytes(), kept) else {
        panic!("{path}: let pass as {normal:?}");
    };
    let found = fast.find(host, &normal, &named);
    let number = |found: &Arc<vestibule::config::Route>| table.iter().position(|route| Arc::ptr_eq(route, found));
    let due = route::find(routes, base_path, host, &slow, method);
    match (&found, &due) {
        (Ok(found), Ok(due)) => {
            // Numbers of lines that are routes.
            let place = routes.iter().position(|route| route.number == due.number);
            assert_eq!(
                number(found),
                place,
                "{host} {method} {path}: {:?} rather than {due:?}",
                found.path
            );
        }
        (Err(Missed::Path), Err(NoRoute::Path))
        | (Err(Missed::Unfit(_)), Err(NoRoute::Unfit))
        | (Err(Missed::Method { .. } | Missed::UnknownMethod), Err(NoRoute::Method)) => {}
        (found, due) => panic!("{host} {method} {path}: {found:?} rather than {due:?}"),
    }
}

fn route(number: usize, line: &str) -> Option<Route> {
    let [host, path, methods, access, kept] = line.split(' ').collect::<Vec<_>>()[..] else {
        return None;
    };
    if !path.starts_with('/') {
        return None;
    }
    let is = |text: &str| (text != "-").then(|| text.to_owned());
    Some(Route {
        number,
        host: is(host),
        path: path.to_owned(),
        methods: is(methods)
            .map(|all| all.split(',').map(str::to_owned).collect())
            .unwrap_or_default(),
        kept: Kept {
            slashes: kept.contains("slashes"),
            bytes: kept.contains("bytes"),
        },
        access: match access {
            "public" => Access::Public,
            "optional" => Access::Optional,
            "-" => Access::Required(Vec::new()),
            roles => Access::Required(roles.split(',').map(str::to_owned).collect()),
        },
        strip: 0,
        add: String::new(),
        websocket: true,
    })
}
