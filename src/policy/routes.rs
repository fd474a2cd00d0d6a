//! Which route a request takes.
//!
//! The most specific wins, whatever the order in the file: a route for this host, then one for all hosts below one (the
//! longer name first), then one for any host; then,
//! segment by segment from the left, a literal before a parameter before a wildcard; then a route that names the
//! method before one for any. `HEAD` is allowed wherever `GET` is listed. A route that matches in path but not in
//! method gives way to the next; only when none is left is the method the reason.
//!
//! Segments are compared *decoded*: `/%40me` meets the literal `@me`, as it will in every upstream that decodes before
//! it routes. No literal has a slash, so decoding can't move a boundary, and what is sent stays what was matched.
//!
//! The cost does not grow with the number of routes: each segment is one hash look-up. Backtracking enters each node
//! of the tree at most once (a node has one parent, and is entered at its own depth only), so a look-up is bounded
//! by what the configuration says, never by the path; recursion by the longest pattern.
//!
//! Not here: how the tree lies in memory (`routes/tree.rs`).

use std::{borrow::Cow, sync::Arc};

use http::{HeaderValue, Method};

use super::path::{NormalPath, PathError};
use crate::config::{Kept, Route, Target, is_registered};

mod edges;
mod tree;

use tree::{End, Methods, Tree, decoded};

/// All routes, built whole and never changed.
#[derive(Debug)]
pub struct RouteTable {
    tree: Tree,
    kept: Kept,
    /// `auth.base_path`, below which is no route's.
    base_path: String,
    /// Of routes that say none.
    max_body: u64,
}

/// Why nothing is forwarded.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum NoRoute {
    #[error("no route has this path")]
    Path,
    /// The path holds what only some routes keep, and its route is none of them.
    #[error("the path is not kept by its route")]
    Unfit(#[source] PathError),
    /// The value of the `Allow` header.
    #[error("no route with this path has this method")]
    Method { allow: HeaderValue },
    /// Neither registered with IANA nor listed by a route.
    #[error("the method is not known")]
    UnknownMethod,
}

impl RouteTable {
    /// Two routes that tie are a configuration error and don't get here; of such, the first would win. `base_path`:
    /// `auth.base_path`; `max_body`: `server.max_body`.
    pub fn build(routes: &[Arc<Route>], base_path: &str, max_body: u64) -> Self {
        let kept = routes.iter().fold(Kept::default(), |kept, route| Kept {
            slashes: kept.slashes | route.kept.slashes,
            bytes: kept.bytes | route.kept.bytes,
        });
        Self {
            tree: Tree::build(routes),
            kept,
            base_path: base_path.to_owned(),
            max_body,
        }
    }

    /// What a path may hold to come to any route: for [`NormalPath::keeping`].
    pub const fn kept(&self) -> Kept {
        self.kept
    }

    /// The route for a request to `host` (lower case, without port or trailing dot), whose path is not below the base path.
    ///
    /// A path that holds what its route doesn't keep is refused, and doesn't fall to another route: that one may demand
    /// less. So is one by which an upstream that reads it otherwise would come round a guard.
    pub fn find(&self, host: &str, normal: &NormalPath, method: &Method) -> Result<&Arc<Route>, NoRoute> {
        let path = normal.as_str().as_bytes();
        // One look for both: escapes to decode, and parameters.
        let is_special = memchr::memchr2(b'%', b';', path).is_some();
        let mut search = Search {
            tree: &self.tree,
            method,
            common: Methods::of(method),
            escaped: is_special,
            refused: Vec::new(),
        };
        let rest = path.strip_prefix(b"/").unwrap_or(path);
        for root in self.tree.roots(host) {
            if let Some(route) = search.below(root, Some(rest)) {
                let misread = || self.shortcut(route, host, normal, method);
                let why = normal.unfit_for(route.kept);
                return match why.or_else(|| is_special.then(misread).flatten()) {
                    None => Ok(route),
                    Some(error) => Err(NoRoute::Unfit(error)),
                };
            }
        }
        match normal.unfit_for(Kept::default()) {
            None => Err(search.reason()),
            Some(error) => Err(NoRoute::Unfit(error)),
        }
    }

    /// Whether a file that `route` would serve has another name, `path`, under which a route of files lets in fewer.
    pub fn guards_file(&self, route: &Route, host: &str, path: &str, method: &Method) -> bool {
        let named = NormalPath::parse_keeping(path, self.kept);
        match named.map(|named| self.find(host, &named, method).cloned()) {
            Ok(Ok(other)) => {
                matches!(other.target, Target::Files(_))
                    && (route.access.lets_in_more_than(&other.access) || route.cors.lets_in_more_than(&other.cors))
            }
            Err(_) | Ok(Err(NoRoute::Unfit(_))) => true,
            Ok(Err(NoRoute::Path | NoRoute::Method { .. } | NoRoute::UnknownMethod)) => false,
        }
    }

    /// Whether an upstream that reads more into a path than we do (slashes in escapes, segments without their parameters)
    /// would be asked for what another route holds back, for whom it lets in or what it lets through, or for what nobody
    /// is let in to.
    fn shortcut(&self, route: &Arc<Route>, host: &str, path: &NormalPath, method: &Method) -> Option<PathError> {
        let leads = |read, how| self.is_held_back(route, host, read, method, how);
        if (path.with_slashes_read()).is_some_and(|read| leads(read, Reading::Slashes)) {
            return Some(PathError::EncodedSlash);
        }
        (path.without_parameters())
            .is_some_and(|read| leads(read, Reading::Parameters))
            .then_some(PathError::HidingParameter)
    }

    /// Whether what is `read` into a path that takes `route` is held back by another, or by there being none, or is no
    /// path.
    fn is_held_back(
        &self,
        route: &Arc<Route>,
        host: &str,
        read: Result<NormalPath, PathError>,
        method: &Method,
        how: Reading,
    ) -> bool {
        let Ok(read) = read else { return true };
        // What the auth API is asked never reaches an upstream.
        if read.below(&self.base_path).is_some() {
            return true;
        }
        match self.find(host, &read, method) {
            // What leads to the same route was judged by it, and counted.
            Ok(guarded) => !Arc::ptr_eq(guarded, route) && guarded.holds_back_more_than(route, self.max_body),
            // A third reading of it would be.
            Err(NoRoute::Unfit(_)) => true,
            Err(NoRoute::Path | NoRoute::Method { .. } | NoRoute::UnknownMethod) => match how {
                Reading::Parameters => true,
                // What is one segment here is seldom a path there: `group%2Fproject`. Unless it is one without parameters.
                Reading::Slashes => {
                    let plain = read.without_parameters();
                    plain.is_some_and(|read| self.is_held_back(route, host, read, method, how))
                }
            },
        }
    }
}

/// How a path may be read that says more to an upstream than to us.
#[derive(Clone, Copy)]
enum Reading {
    /// With its encoded slashes as slashes, which its route keeps on purpose: where that leads nowhere, nothing is lost.
    Slashes,
    /// Without the parameters of its segments: what is 404 or 405 when written plainly must be so with one.
    Parameters,
}

struct Search<'r, 't> {
    tree: &'t Tree,
    method: &'r Method,
    /// The method, if it is a common one.
    common: Methods,
    /// Whether any segment must be decoded.
    escaped: bool,
    /// Those that match in all but the method.
    refused: Vec<&'t Arc<Route>>,
}

impl<'t> Search<'_, 't> {
    /// The most specific route below node `at` for what is left of the path; `None` is left when the path has ended.
    fn below(&mut self, at: u32, rest: Option<&[u8]>) -> Option<&'t Arc<Route>> {
        let deeper = match rest {
            None => self.choose(self.tree.exact(at)),
            Some(rest) => {
                let (segment, rest) = match memchr::memchr(b'/', rest) {
                    Some(end) => (rest.get(..end).unwrap_or_default(), rest.get(end + 1..)),
                    None => (rest, None),
                };
                let plain = if self.escaped {
                    decoded(segment)
                } else {
                    Cow::Borrowed(segment)
                };
                let literal = self.tree.literal(at, &plain);
                let found = literal.and_then(|child| self.below(child, rest));
                found.or_else(|| {
                    let parameter = self.tree.parameter(at).filter(|_| !segment.is_empty());
                    parameter.and_then(|child| self.below(child, rest))
                })
            }
        };
        deeper.or_else(|| self.choose(self.tree.wildcard(at)))
    }

    /// The first of `ends` whose route allows the method: those that name it come before those for any.
    fn choose(&mut self, ends: &'t [End]) -> Option<&'t Arc<Route>> {
        let chosen = if self.common.is_empty() {
            let named = ends.iter().find(|end| end.route.methods.contains(self.method));
            named.or_else(|| ends.iter().find(|end| allows(&end.route, self.method)))
        } else {
            let named = ends.iter().find(|end| end.named.meet(self.common));
            named.or_else(|| ends.iter().find(|end| end.taken.meet(self.common)))
        };
        if chosen.is_none() {
            self.refused.extend(ends.iter().map(|end| &end.route));
        }
        chosen.map(|end| &end.route)
    }

    fn reason(self) -> NoRoute {
        if self.refused.is_empty() {
            return NoRoute::Path;
        }
        if !is_registered(self.method) {
            return NoRoute::UnknownMethod;
        }
        let mut names: Vec<&str> = self
            .refused
            .iter()
            .flat_map(|route| &route.methods)
            .map(Method::as_str)
            .collect();
        if names.contains(&"GET") {
            names.push("HEAD");
        }
        names.sort_unstable();
        names.dedup();
        // Method names are tokens, which header values may hold.
        let allow = HeaderValue::try_from(names.join(", ")).unwrap_or(HeaderValue::from_static(""));
        NoRoute::Method { allow }
    }
}

fn allows(route: &Route, method: &Method) -> bool {
    if route.methods.is_empty() {
        return is_registered(method);
    }
    route.methods.contains(method) || (*method == Method::HEAD && route.methods.contains(&Method::GET))
}

#[cfg(test)]
mod tests {
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
        let found = |path: &str| {
            let path = NormalPath::parse_keeping(path, table.kept()).unwrap();
            table
                .find("h", &path, &Method::GET)
                .map(|route| route.path.text.as_str())
        };
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
        let found = |path: &str| {
            let path = NormalPath::parse_keeping(path, table.kept()).unwrap();
            table
                .find("h", &path, &Method::GET)
                .map(|route| route.path.text.as_str())
        };
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
        let found = |path: &str| {
            let path = NormalPath::parse_keeping(path, table.kept()).unwrap();
            table
                .find("h", &path, &Method::GET)
                .map(|route| route.path.text.as_str())
        };
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
        let found = |path: &str| {
            let path = NormalPath::parse_keeping(path, table.kept()).unwrap();
            table
                .find("h", &path, &Method::GET)
                .map(|route| route.path.text.as_str())
        };
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
}
