//! Routes against each other: those that tie, and holes that `methods` leave.
//!
//! The most specific route wins, so which one a request takes never depends on the order in the file, as long as no
//! two are alike. And a route for some methods gives way, for all others, to the next in line: were that one less
//! demanding, `GET /admin/x` would be guarded and `POST /admin/x` open. Both are errors.

use std::{borrow::Cow, cmp::Ordering, collections::HashMap};

use http::Method;

mod index;
#[cfg(test)]
mod tests;

use index::{Classes, Index};

use super::{
    Access, HostPattern, PathPattern, Route, Segment,
    error::{ConfigError, Place},
    method::is_registered,
    routes::Listed,
};

/// Reports every two routes that tie, and every hole.
pub(super) fn check(routes: &[Listed], report: &dyn Fn(ConfigError)) {
    let index = Index::of(routes);
    let is_own = |listed: &Listed| listed.route.methods.iter().any(|method| !is_registered(method));
    let own_methods = routes.iter().any(is_own);
    // What a hole would lead to, by what would be guarded.
    let mut laxer: HashMap<Classes, Classes> = HashMap::new();
    for group in &index.groups {
        for (place, later) in group.iter().enumerate() {
            let mut earlier = group.iter().take(place);
            if let Some(earlier) = earlier.find(|earlier| share_methods(&earlier.route, &later.route)) {
                report(tied(earlier, later));
            }
        }
        // Nothing falls past a route for any method, but methods of the operator's own.
        let takes_all = group.iter().any(|listed| listed.route.methods.is_empty());
        if takes_all && !own_methods {
            continue;
        }
        let own = index.classes_of(group);
        let laxer = *laxer
            .entry(own)
            .or_insert_with(|| index.classes(|access, methods| is_laxer(group, access, methods)));
        if !laxer.is_empty()
            && let Some(first) = group.first()
            && index.is_near(first, laxer, |other| falls_to(&first.route, &other.route))
            && let Some(error) = hole(group, &index, own_methods)
        {
            report(error);
        }
    }
}

/// The route that answers `GET path` at `host`.
pub(super) fn answering<'r>(routes: &'r [Listed], host: &str, path: &str) -> Option<&'r Listed> {
    let page = PathPattern::parse(path).ok()?;
    routes
        .iter()
        .filter(|listed| listed.route.host.as_ref().is_none_or(|own| own.matches(host)))
        .filter(|listed| takes(&listed.route, &Method::GET) && covers(&listed.route.path, &page))
        .min_by(|a, b| order(&a.route, &b.route).then_with(|| named_methods(a).cmp(&named_methods(b))))
}

/// Routes that name their methods come before those for any.
fn named_methods(listed: &Listed) -> bool {
    listed.route.methods.is_empty()
}

fn tied(earlier: &Listed, later: &Listed) -> ConfigError {
    ConfigError::new(
        later.path_place.clone(),
        format!("{}.path", later.key),
        format!("the same requests as {}", named(earlier)),
    )
    .found(shown(&later.route))
    .allowed("routes that differ in host, path or methods; names of parameters make no difference")
}

/// Whether a request could take either of two routes that differ in methods alone.
fn share_methods(a: &Route, b: &Route) -> bool {
    match (a.methods.as_slice(), b.methods.as_slice()) {
        ([], []) => true,
        ([], _) | (_, []) => false,
        (a, b) => a.iter().any(|method| b.contains(method)),
    }
}

/// Whether routes of this kind let somebody in who is refused by one of `group`, with a method that none of it takes.
fn is_laxer(group: &[&Listed], access: &Access, methods: &[Method]) -> bool {
    let routes = || group.iter().map(|listed| &listed.route);
    routes().any(|route| access.lets_in_more_than(&route.access)) && passing(&routes(), methods).is_some()
}

/// Where other methods of `group`, routes that are alike, would find less resistance.
fn hole<'r>(group: &[&'r Listed], index: &Index<'r>, own_methods: bool) -> Option<ConfigError> {
    let first = group.first()?;
    let mut answered: Vec<&Route> = group.iter().map(|listed| &listed.route).collect();
    let below = index.near(first).flat_map(|mut below| {
        below.retain(|other| falls_to(&first.route, &other.route));
        below.sort_by(|a, b| order(&a.route, &b.route).then_with(|| a.path_place.cmp(&b.path_place)));
        below
    });
    for next in below {
        let passing = passing(&answered.iter().copied(), &next.route.methods);
        if let Some(method) = passing
            && let Some(guarded) = group
                .iter()
                .find(|listed| next.route.access.lets_in_more_than(&listed.route.access))
        {
            return Some(unguarded(guarded, next, &method));
        }
        if covers(&next.route.path, &first.route.path) {
            if next.route.methods.is_empty() && !own_methods {
                // Nothing falls past it.
                return None;
            }
            answered.push(&next.route);
        }
    }
    None
}

fn unguarded(guarded: &Listed, next: &Listed, method: &Method) -> ConfigError {
    ConfigError::new(
        guarded.methods_place.clone(),
        format!("{}.methods", guarded.key),
        format!("other methods fall to {}, which demands less", named(next)),
    )
    .found(format!(
        "{} demands more than {}, and {method} goes to the latter",
        shown(&guarded.route),
        shown(&next.route)
    ))
    .allowed(format!(
        "a further route with path = {:?} and no methods, which says what the others demand",
        guarded.route.path.text
    ))
}

/// A method that a route for `methods` takes and none of `before` does.
fn passing<'r>(before: &(impl Iterator<Item = &'r Route> + Clone), methods: &[Method]) -> Option<Method> {
    const LIKELY: [Method; 7] = [
        Method::POST,
        Method::PUT,
        Method::PATCH,
        Method::DELETE,
        Method::GET,
        Method::OPTIONS,
        Method::HEAD,
    ];
    let taken = |method: &Method| before.clone().any(|route| takes(route, method));
    if !methods.is_empty() {
        return methods.iter().find(|method| !taken(method)).cloned();
    }
    if before.clone().any(|route| route.methods.is_empty()) {
        return None;
    }
    // Some registered method is left, though it may be none of the likely ones.
    Some(
        LIKELY
            .into_iter()
            .find(|method| !taken(method))
            .unwrap_or(Method::TRACE),
    )
}

fn takes(route: &Route, method: &Method) -> bool {
    if route.methods.is_empty() {
        return is_registered(method);
    }
    route.methods.contains(method) || (*method == Method::HEAD && route.methods.contains(&Method::GET))
}

/// Whether requests for `route` that it doesn't take could come to `other`.
fn falls_to(route: &Route, other: &Route) -> bool {
    if !overlap(&route.path, &other.path) {
        return false;
    }
    match (&route.host, &other.host) {
        (a, b) if a == b => specificity(&route.path, &other.path) == Ordering::Less,
        (Some(_), None) => true,
        (Some(HostPattern::Exact(name)), Some(wide)) => wide.matches(name),
        // `.a.example.com` ends in `.example.com`.
        (Some(HostPattern::Below(narrow)), Some(HostPattern::Below(wide))) => narrow.ends_with(wide.as_str()),
        _ => false,
    }
}

/// In which order routes are tried, for paths that they share.
fn order(a: &Route, b: &Route) -> Ordering {
    HostPattern::order(a.host.as_ref(), b.host.as_ref()).then_with(|| specificity(&a.path, &b.path))
}

/// Segment by segment from the left: a literal before a parameter before the wildcard.
fn specificity(a: &PathPattern, b: &PathPattern) -> Ordering {
    let rank = |segment: Option<&Segment>| match segment {
        Some(Segment::Literal(_)) => 0,
        Some(Segment::Parameter(_)) => 1,
        None => 2,
    };
    let longest = a.segments.len().max(b.segments.len());
    (0..longest)
        .map(|index| rank(a.segments.get(index)).cmp(&rank(b.segments.get(index))))
        .find(|ordering| ordering.is_ne())
        .unwrap_or_else(|| a.wildcard.cmp(&b.wildcard))
}

/// Whether some path matches both.
fn overlap(a: &PathPattern, b: &PathPattern) -> bool {
    let meet = a.segments.iter().zip(&b.segments).all(|(a, b)| match (a, b) {
        (Segment::Literal(a), Segment::Literal(b)) => decoded(a) == decoded(b),
        (Segment::Literal(text), Segment::Parameter(_)) | (Segment::Parameter(_), Segment::Literal(text)) => {
            !text.is_empty()
        }
        (Segment::Parameter(_), Segment::Parameter(_)) => true,
    });
    meet && match a.segments.len().cmp(&b.segments.len()) {
        Ordering::Equal => true,
        Ordering::Less => a.wildcard,
        Ordering::Greater => b.wildcard,
    }
}

/// Whether `wide` matches every path that `narrow` does.
fn covers(wide: &PathPattern, narrow: &PathPattern) -> bool {
    let each = wide
        .segments
        .iter()
        .zip(&narrow.segments)
        .all(|(wide, narrow)| match (wide, narrow) {
            (Segment::Literal(wide), Segment::Literal(narrow)) => decoded(wide) == decoded(narrow),
            (Segment::Parameter(_), Segment::Literal(text)) => !text.is_empty(),
            (Segment::Parameter(_), Segment::Parameter(_)) => true,
            (Segment::Literal(_), Segment::Parameter(_)) => false,
        });
    each && match wide.segments.len().cmp(&narrow.segments.len()) {
        Ordering::Equal => wide.wildcard || !narrow.wildcard,
        Ordering::Less => wide.wildcard,
        Ordering::Greater => false,
    }
}

fn decoded(text: &str) -> Cow<'_, [u8]> {
    percent_encoding::percent_decode_str(text).into()
}

fn shown(route: &Route) -> String {
    let host = route.host.as_ref().map(ToString::to_string).unwrap_or_default();
    let methods: Vec<&str> = route.methods.iter().map(Method::as_str).collect();
    let methods = if methods.is_empty() {
        "any method".to_owned()
    } else {
        methods.join(", ")
    };
    format!("\"{host}{}\" ({methods})", route.path.text)
}

fn named(listed: &Listed) -> String {
    match listed.path_place {
        Place::File { line, .. } => format!("{} on line {line}", listed.key),
        Place::Missing | Place::Variable(_) | Place::Setting(_) | Place::Default => listed.key.clone(),
    }
}
