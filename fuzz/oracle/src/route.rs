//! Which route a request takes: of all that match it, the most specific.

use std::cmp::Ordering;

use crate::path::{self, Kept, Normal};

#[derive(Clone, Debug)]
pub struct Route {
    /// Where it stands in the configuration: what it is known by.
    pub number: usize,
    /// `None`: any host. `*.example.com`: all below that.
    pub host: Option<String>,
    /// As it is written: `/a/{id}/b`, `/a/*`.
    pub path: String,
    /// Empty: all that are registered.
    pub methods: Vec<String>,
    pub kept: Kept,
    pub access: Access,
    pub strip: usize,
    pub add: String,
    pub websocket: bool,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Access {
    Public,
    Optional,
    /// A session; with one of these roles, if there are any.
    Required(Vec<String>),
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum NoRoute {
    Path,
    /// It holds what its route does not keep.
    Unfit,
    Method,
}

/// How a segment of a pattern is met, the most specific first.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Piece {
    Literal(Vec<u8>),
    Parameter,
    /// The pattern's end.
    End,
    /// Anything may follow, or nothing.
    Wildcard,
}

/// The route for a request to `host`, which is in lower case and without port. `base_path`: where the gateway's own API is.
pub fn find<'r>(
    routes: &'r [Route],
    base_path: &str,
    host: &str,
    path: &Normal,
    method: &str,
) -> Result<&'r Route, NoRoute> {
    let segments = path::decoded_segments(&path.path);
    let fitting: Vec<&Route> = routes
        .iter()
        .filter(|route| meets_host(route.host.as_deref(), host) && meets_path(&route.path, &segments))
        .collect();
    let taking = fitting.iter().filter(|route| takes(route, method));
    let Some(route) = taking.min_by(|a, b| compare(a, b, method)) else {
        return Err(match (path.holds == Kept::default(), fitting.is_empty()) {
            (false, _) => NoRoute::Unfit,
            (true, true) => NoRoute::Path,
            (true, false) => NoRoute::Method,
        });
    };
    if (path.holds.slashes && !route.kept.slashes) || (path.holds.bytes && !route.kept.bytes) {
        return Err(NoRoute::Unfit);
    }
    for reading in readings(path) {
        let Some(read) = reading.path else {
            return Err(NoRoute::Unfit);
        };
        if path::is_below(&read.path, base_path) {
            return Err(NoRoute::Unfit);
        }
        match find(routes, base_path, host, &read, method) {
            Ok(guarded) if lets_in_more(&route.access, &guarded.access) => return Err(NoRoute::Unfit),
            Ok(guarded) if route.websocket && !guarded.websocket => return Err(NoRoute::Unfit),
            // It would be misread in its turn.
            Err(NoRoute::Unfit) => return Err(NoRoute::Unfit),
            Err(NoRoute::Path | NoRoute::Method) if reading.must_have_route => return Err(NoRoute::Unfit),
            Ok(_) | Err(NoRoute::Path | NoRoute::Method) => {}
        }
    }
    Ok(route)
}

/// What an upstream may read into a path. It must not be asked for what another route holds back.
struct Reading {
    /// `None`: no path.
    path: Option<Normal>,
    /// What nobody could ask for plainly.
    must_have_route: bool,
}

fn readings(path: &Normal) -> Vec<Reading> {
    let mut all = Vec::new();
    // Without what follows a semicolon in a segment.
    if path::has_parameters(path) {
        all.push(Reading {
            path: path::without_parameters(path),
            must_have_route: true,
        });
    }
    // With encoded slashes taken for slashes; then without parameters as well. Routes keep them to have such segments.
    if path.holds.slashes {
        let read = path::with_slashes_read(path);
        let both = read
            .as_ref()
            .filter(|read| path::has_parameters(read))
            .map(path::without_parameters);
        all.extend([Some(read), both].into_iter().flatten().map(|path| Reading {
            path,
            must_have_route: false,
        }));
    }
    all
}

/// Whether somebody passes `a` whom `b` refuses.
fn lets_in_more(a: &Access, b: &Access) -> bool {
    match (a, b) {
        (_, Access::Public | Access::Optional) => false,
        (Access::Public | Access::Optional, Access::Required(_)) => true,
        (Access::Required(a), Access::Required(b)) => {
            !b.is_empty() && (a.is_empty() || a.iter().any(|role| !b.contains(role)))
        }
    }
}

fn meets_host(pattern: Option<&str>, host: &str) -> bool {
    match pattern {
        None => true,
        Some(pattern) => match pattern.strip_prefix('*') {
            None => pattern == host,
            Some(ending) => host.strip_suffix(ending).is_some_and(|label| !label.is_empty()),
        },
    }
}

fn pieces(pattern: &str) -> Vec<Piece> {
    let mut pieces = Vec::new();
    for segment in pattern[1..].split('/') {
        pieces.push(if segment == "*" {
            Piece::Wildcard
        } else if segment.starts_with('{') {
            Piece::Parameter
        } else {
            // Patterns are written as paths are.
            Piece::Literal(path::decoded_segments(format!("/{segment}").as_bytes()).concat())
        });
    }
    if pieces.last() != Some(&Piece::Wildcard) {
        pieces.push(Piece::End);
    }
    pieces
}

fn meets_path(pattern: &str, segments: &[Vec<u8>]) -> bool {
    let mut rest = segments;
    for piece in pieces(pattern) {
        match piece {
            Piece::Wildcard => return true,
            Piece::End => return rest.is_empty(),
            Piece::Literal(_) | Piece::Parameter => {
                let Some((first, behind)) = rest.split_first() else {
                    return false;
                };
                let fits = match &piece {
                    Piece::Literal(literal) => literal == first,
                    _ => !first.is_empty(),
                };
                if !fits {
                    return false;
                }
                rest = behind;
            }
        }
    }
    false
}

fn compare(a: &Route, b: &Route, method: &str) -> Ordering {
    let host = |route: &Route| match &route.host {
        Some(host) if !host.starts_with('*') => (0, 0),
        // The longer the nearer.
        Some(host) => (1, usize::MAX - host.len()),
        None => (2, 0),
    };
    // Two that match the same path have the same literals wherever both have one.
    let path = |route: &Route| -> Vec<u8> {
        let rank = |piece: &Piece| match piece {
            Piece::Literal(_) => 0,
            Piece::Parameter => 1,
            Piece::End => 2,
            Piece::Wildcard => 3,
        };
        pieces(&route.path).iter().map(rank).collect()
    };
    let methods = |route: &Route| {
        if route.methods.iter().any(|own| own == method) {
            0
        } else if route.methods.is_empty() {
            2
        } else {
            1
        }
    };
    (host(a).cmp(&host(b)))
        .then_with(|| path(a).cmp(&path(b)))
        .then_with(|| methods(a).cmp(&methods(b)))
        .then_with(|| a.number.cmp(&b.number))
}

fn takes(route: &Route, method: &str) -> bool {
    if route.methods.is_empty() {
        return REGISTERED.contains(&method);
    }
    let lists = |wanted: &str| route.methods.iter().any(|own| own == wanted);
    lists(method) || (method == "HEAD" && lists("GET"))
}

/// The methods that IANA knows, but for `PRI`, which is the preface of HTTP/2 and nobody's.
pub const REGISTERED: &[&str] = &[
    "ACL",
    "BASELINE-CONTROL",
    "BIND",
    "CHECKIN",
    "CHECKOUT",
    "CONNECT",
    "COPY",
    "DELETE",
    "GET",
    "HEAD",
    "LABEL",
    "LINK",
    "LOCK",
    "MERGE",
    "MKACTIVITY",
    "MKCALENDAR",
    "MKCOL",
    "MKREDIRECTREF",
    "MKWORKSPACE",
    "MOVE",
    "OPTIONS",
    "ORDERPATCH",
    "PATCH",
    "POST",
    "PROPFIND",
    "PROPPATCH",
    "PUT",
    "QUERY",
    "REBIND",
    "REPORT",
    "SEARCH",
    "TRACE",
    "UNBIND",
    "UNCHECKOUT",
    "UNLINK",
    "UNLOCK",
    "UPDATE",
    "UPDATEREDIRECTREF",
    "VERSION-CONTROL",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn route(number: usize, host: Option<&str>, path: &str, methods: &[&str]) -> Route {
        Route {
            number,
            host: host.map(str::to_owned),
            path: path.to_owned(),
            methods: methods.iter().map(|method| (*method).to_owned()).collect(),
            kept: Kept::default(),
            access: Access::Public,
            strip: 0,
            add: String::new(),
            websocket: true,
        }
    }

    #[test]
    fn the_most_specific_route_wins() {
        let routes = [
            route(0, None, "/*", &[]),
            route(1, None, "/a/*", &[]),
            route(2, None, "/a/{x}", &["GET"]),
            route(3, None, "/a/b", &["POST"]),
            route(4, Some("h.example"), "/a/*", &["PUT"]),
            route(5, Some("*.example"), "/a/b", &["PUT"]),
        ];
        let found = |host: &str, path: &str, method: &str| {
            let path = path::normal(path.as_bytes(), Kept::default()).expect("a path");
            find(&routes, "/auth", host, &path, method).map(|route| route.number)
        };
        assert_eq!(found("x", "/a/b", "POST"), Ok(3));
        assert_eq!(found("x", "/a/b", "GET"), Ok(2));
        assert_eq!(found("x", "/a/b", "HEAD"), Ok(2));
        assert_eq!(found("x", "/a/b", "PUT"), Ok(1));
        assert_eq!(found("x", "/a", "PUT"), Ok(1));
        assert_eq!(found("x", "/ab", "PUT"), Ok(0));
        assert_eq!(found("h.example", "/a/b", "PUT"), Ok(4));
        assert_eq!(found("g.example", "/a/b", "PUT"), Ok(5));
        assert_eq!(found("x", "/a/b", "FROB"), Err(NoRoute::Method));
        assert_eq!(found("x", "/a/", "GET"), Ok(1));
    }

    #[test]
    fn a_parameter_hides_no_path_that_is_no_routes() {
        let mut keeping = route(0, None, "/p/{id}", &[]);
        keeping.kept.slashes = true;
        let routes = [keeping, route(1, None, "/w/*", &[])];
        let found = |path: &str| {
            let all = Kept {
                slashes: true,
                bytes: true,
            };
            let path = path::normal(path.as_bytes(), all).expect("a path");
            find(&routes, "/w/auth", "x", &path, "GET").map(|route| route.number)
        };
        assert_eq!(found("/p/;x"), Err(NoRoute::Unfit));
        assert_eq!(found("/p/;x%2Fy"), Err(NoRoute::Unfit));
        assert_eq!(found("/p/a;x"), Ok(0));
        assert_eq!(found("/p/a%2Fb;x"), Ok(0));
        assert_eq!(found("/w/;x"), Ok(1));
        assert_eq!(found("/w/auth;x/y"), Err(NoRoute::Unfit));
        assert_eq!(found("/w/authors;x/y"), Ok(1));
    }
}
