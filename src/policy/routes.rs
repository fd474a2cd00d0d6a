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
mod tests;
