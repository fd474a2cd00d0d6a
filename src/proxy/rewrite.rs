//! What a route changes in a message on its way: the path's prefix, and headers either way.
//!
//! Prefixes change only after the request was matched and authorised by the path that it came with, and at segment
//! boundaries: what leaves is what was judged, under another prefix. Header rules hold no name of the gateway's own
//! (`config` refuses those), and are applied before identities go in.

use http::HeaderMap;

use crate::{
    config::{HeaderRules, Route},
    policy::path::{NormalPath, PathError},
};

/// The path that a request leaves with; matching and authorisation know only the one that it came with.
pub fn outgoing(route: &Route, path: &NormalPath) -> Result<NormalPath, PathError> {
    if route.rewrite.is_nothing() {
        return Ok(path.clone());
    }
    path.rewritten(route.rewrite.strip, &route.rewrite.add)
}

/// Removes, sets and adds, in this order.
pub(super) fn apply(rules: &HeaderRules, headers: &mut HeaderMap) {
    for name in &rules.remove {
        headers.remove(name);
    }
    for (name, value) in &rules.set {
        headers.insert(name.clone(), value.clone());
    }
    for (name, value) in &rules.add {
        headers.append(name.clone(), value.clone());
    }
}
