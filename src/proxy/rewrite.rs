//! What a route changes in a message on its way: the path's prefix, and headers either way.
//!
//! Prefixes change only after the request was matched and authorised by the path that it came with, and at segment
//! boundaries: what leaves is what was judged, under another prefix. Header rules hold no name of the gateway's own
//! (`config` refuses those), and are applied before identities go in.

use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::{
    config::{self, HeaderRules, Route},
    policy::path::{NormalPath, PathError},
};

/// The path that a request leaves with; matching and authorisation know only the one that it came with.
pub fn outgoing(route: &Route, path: &NormalPath) -> Result<NormalPath, PathError> {
    if route.rewrite.is_nothing() {
        return Ok(path.clone());
    }
    path.rewritten(route.rewrite.strip, &route.rewrite.add)
}

/// What says how an answer is stored and read: an upstream's answer was meant, a refusal is neither.
const OF_THE_ANSWER: [HeaderName; 15] = [
    header::ACCEPT_RANGES,
    header::AGE,
    header::CACHE_CONTROL,
    HeaderName::from_static("cdn-cache-control"),
    header::CONTENT_DISPOSITION,
    header::CONTENT_ENCODING,
    header::CONTENT_LANGUAGE,
    header::CONTENT_LOCATION,
    header::CONTENT_RANGE,
    header::CONTENT_TYPE,
    header::ETAG,
    header::EXPIRES,
    header::LAST_MODIFIED,
    header::PRAGMA,
    HeaderName::from_static("surrogate-control"),
];

/// Sets and adds what a route's every answer is to say (`Strict-Transport-Security`) to one that the gateway gives
/// because it refuses. What that says itself stays as it is.
pub fn apply_to_refusal(rules: &HeaderRules, headers: &mut HeaderMap) {
    let own = |headers: &HeaderMap, name: &HeaderName| OF_THE_ANSWER.contains(name) || headers.contains_key(name);
    let set: Vec<_> = rules.set.iter().filter(|(name, _)| !own(headers, name)).collect();
    let add: Vec<_> = rules.add.iter().filter(|(name, _)| !own(headers, name)).collect();
    for (name, value) in set.into_iter().chain(add) {
        headers.append(name.clone(), value.clone());
    }
}

/// An answer that sets a session is one person's. Caches that go by a field of their own, which comes before
/// `Cache-Control` (RFC 9213, 2.2), find none.
pub(super) fn keep_from_caches(headers: &mut HeaderMap) {
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    for name in [
        "edge-control",
        "surrogate-control",
        "x-accel-expires",
        "x-litespeed-cache-control",
    ] {
        headers.remove(name);
    }
    // `CDN-Cache-Control`, and those of single ones, such as `Cloudflare-CDN-Cache-Control`.
    let targeted = |name: &&HeaderName| name.as_str().ends_with("cdn-cache-control");
    let targeted: Vec<HeaderName> = headers.keys().filter(targeted).cloned().collect();
    for name in targeted {
        headers.remove(name);
    }
}

/// Whether the rules remove or set what a client says under this name. Every spelling of theirs counts, as of reserved
/// names: a program behind CGI or WSGI takes them for one.
pub(super) fn replaces(rules: &HeaderRules, name: &HeaderName) -> bool {
    let set = rules.set.iter().map(|(name, _)| name);
    let mut names = rules.remove.iter().chain(set);
    names.any(|other| config::alike(other, name.as_str()))
}

/// Whether the rules say anything of this name: a client can't say it behind its body.
pub(super) fn speaks_of(rules: &HeaderRules, name: &HeaderName) -> bool {
    let mut added = rules.add.iter().map(|(name, _)| name);
    replaces(rules, name) || added.any(|other| config::alike(other, name.as_str()))
}

/// Whether the rules for answers leave nothing that an upstream says under this name, in front of a body or behind it.
pub(super) fn takes_away(rules: &HeaderRules, name: &HeaderName) -> bool {
    rules.remove.contains(name) || rules.set.iter().any(|(set, _)| set == name)
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
