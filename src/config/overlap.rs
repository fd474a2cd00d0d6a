//! Routes against each other: those that tie, and holes that `methods` leave.
//!
//! The most specific route wins, so which one a request takes never depends on the order in the file, as long as no
//! two are alike. And a route for some methods gives way, for all others, to the next in line: were that one less
//! demanding, `GET /admin/x` would be guarded and `POST /admin/x` open. Both are errors.

use std::{borrow::Cow, cmp::Ordering};

use http::Method;

use super::{
    Access, Needs, PathPattern, Route, Segment,
    error::{ConfigError, Place},
    method::is_registered,
    routes::Listed,
};

pub(super) fn check(routes: &[Listed], report: &dyn Fn(ConfigError)) {
    for (index, later) in routes.iter().enumerate() {
        let earlier = routes.iter().take(index);
        if let Some(earlier) = earlier.into_iter().find(|earlier| tie(&earlier.route, &later.route)) {
            report(tied(earlier, later));
        }
    }
    let mut seen: Vec<&Listed> = Vec::new();
    for listed in routes {
        if seen.iter().any(|other| alike(&other.route, &listed.route)) {
            continue;
        }
        seen.push(listed);
        let group: Vec<&Listed> = routes
            .iter()
            .filter(|other| alike(&other.route, &listed.route))
            .collect();
        if let Some(error) = hole(&group, routes) {
            report(error);
        }
    }
}

/// The route that answers `GET path` at `host`.
pub(super) fn answering<'r>(routes: &'r [Listed], host: &str, path: &str) -> Option<&'r Listed> {
    let page = PathPattern::parse(path).ok()?;
    routes
        .iter()
        .filter(|listed| listed.route.host.as_deref().is_none_or(|own| own == host))
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

/// Whether a request could take either.
fn tie(a: &Route, b: &Route) -> bool {
    let share = |a: &[Method], b: &[Method]| a.iter().any(|method| b.contains(method));
    let same_methods = match (a.methods.as_slice(), b.methods.as_slice()) {
        ([], []) => true,
        ([], _) | (_, []) => false,
        (a, b) => share(a, b),
    };
    same_methods && alike(a, b)
}

/// Same host, same shape of path.
fn alike(a: &Route, b: &Route) -> bool {
    a.host == b.host && shape(&a.path) == shape(&b.path)
}

/// Where other methods of `group`, routes that are alike, would find less resistance.
fn hole(group: &[&Listed], routes: &[Listed]) -> Option<ConfigError> {
    let first = group.first()?;
    let mut below: Vec<&Listed> = routes
        .iter()
        .filter(|other| falls_to(&first.route, &other.route))
        .collect();
    below.sort_by(|a, b| order(&a.route, &b.route));
    let mut answered: Vec<&Route> = group.iter().map(|listed| &listed.route).collect();
    for next in below {
        let passing = passing(&answered, &next.route);
        if let Some(method) = passing
            && let Some(guarded) = group.iter().find(|listed| lets_in_more(&next.route, &listed.route))
        {
            return Some(unguarded(guarded, next, &method));
        }
        if covers(&next.route.path, &first.route.path) {
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

/// A method that `next` takes and none of `before` does.
fn passing(before: &[&Route], next: &Route) -> Option<Method> {
    const LIKELY: [Method; 7] = [
        Method::POST,
        Method::PUT,
        Method::PATCH,
        Method::DELETE,
        Method::GET,
        Method::OPTIONS,
        Method::HEAD,
    ];
    let taken = |method: &Method| before.iter().any(|route| takes(route, method));
    if !next.methods.is_empty() {
        return next.methods.iter().find(|method| !taken(method)).cloned();
    }
    if before.iter().any(|route| route.methods.is_empty()) {
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

/// Whether `other` lets somebody in whom `route` would refuse.
fn lets_in_more(other: &Route, route: &Route) -> bool {
    let Access::Required(needs) = &route.access else {
        return false;
    };
    let Access::Required(Needs {
        roles,
        verified_email,
        fresh,
    }) = &other.access
    else {
        return true;
    };
    let roles_suffice =
        needs.roles.is_empty() || (!roles.is_empty() && roles.iter().all(|it| needs.roles.contains(it)));
    let fresh_suffices = needs.fresh.is_none_or(|within| fresh.is_some_and(|own| own <= within));
    !roles_suffice || !fresh_suffices || (needs.verified_email && !verified_email)
}

/// Whether requests for `route` that it doesn't take could come to `other`.
fn falls_to(route: &Route, other: &Route) -> bool {
    if !overlap(&route.path, &other.path) {
        return false;
    }
    match (&route.host, &other.host) {
        (a, b) if a == b => specificity(&route.path, &other.path) == Ordering::Less,
        (Some(_), None) => true,
        _ => false,
    }
}

/// In which order routes are tried, for paths that they share.
fn order(a: &Route, b: &Route) -> Ordering {
    a.host
        .is_none()
        .cmp(&b.host.is_none())
        .then_with(|| specificity(&a.path, &b.path))
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

/// What is left of a pattern when the names of its parameters don't count; segments are compared decoded.
fn shape(path: &PathPattern) -> (Vec<Option<Cow<'_, [u8]>>>, bool) {
    let segments = path
        .segments
        .iter()
        .map(|segment| match segment {
            Segment::Literal(text) => Some(decoded(text)),
            Segment::Parameter(_) => None,
        })
        .collect();
    (segments, path.wildcard)
}

fn decoded(text: &str) -> Cow<'_, [u8]> {
    percent_encoding::percent_decode_str(text).into()
}

fn shown(route: &Route) -> String {
    let host = route.host.as_deref().unwrap_or_default();
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
