//! The whole decision about one request, in the order of `docs/`: head, host, path, route, credentials, origin, access,
//! then what the upstream gets.

use std::net::IpAddr;

use crate::{
    client::{self, BadCaller, Caller, Trust},
    credential::{self, By, Names, Ownership, Person},
    fields::{self, Kind},
    http1::{self, Body, Field, Request, list, values},
    path::{self, Kept},
    redirect::{self, Lands},
    route::{self, Access, NoRoute, Route},
};

/// A gateway's configuration, and who is signed in there.
#[derive(Clone, Debug)]
pub struct World {
    pub trust: Trust,
    /// Where its own API is.
    pub base_path: String,
    pub routes: Vec<Route>,
    pub names: Names,
    pub people: Vec<Person>,
    /// Origins that are trusted, `public_url`'s first.
    pub origins: Vec<String>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Decision {
    Forward(Box<Forwarded>),
    /// Nothing is forwarded.
    Refuse(Refusal),
    /// The gateway's own API answers.
    OwnApi,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Refusal {
    /// TRACE or CONNECT, which are for nobody.
    Method,
    Expectation,
    Host,
    Path,
    NoRoute,
    /// A route that takes no upgrades.
    Upgrade,
    /// A preflight is answered without anybody else.
    Preflight,
    /// A page of somebody else's sent it with a cookie.
    Origin,
    SignIn,
    Role,
}

/// What the upstream gets.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Forwarded {
    pub route: usize,
    pub method: Vec<u8>,
    pub target: Vec<u8>,
    /// All of them, names in lower case, sorted. The value of `x-request-id` is left empty: it is drawn.
    pub fields: Vec<Field>,
    pub body: Vec<u8>,
    /// Those that may come behind the body. Names in lower case.
    pub trailers: Vec<Field>,
    /// Whose identity goes with it.
    pub token: Option<String>,
}

/// Decides about a request from `peer`.
pub fn decide(request: &Request, peer: IpAddr, world: &World) -> Decision {
    match judge(request, peer, world) {
        Ok(Some(forwarded)) => Decision::Forward(Box::new(forwarded)),
        Ok(None) => Decision::OwnApi,
        Err(refusal) => Decision::Refuse(refusal),
    }
}

fn judge(request: &Request, peer: IpAddr, world: &World) -> Result<Option<Forwarded>, Refusal> {
    let headers = &request.fields;
    let method = String::from_utf8_lossy(&request.method).into_owned();
    if method == "TRACE" || method == "CONNECT" {
        return Err(Refusal::Method);
    }
    if values(headers, b"expect")
        .iter()
        .any(|expected| !expected.eq_ignore_ascii_case(b"100-continue"))
    {
        return Err(Refusal::Expectation);
    }
    let (authority, target) = client::split_target(&request.target).ok_or(Refusal::Path)?;
    let caller = match client::judge(peer, request.old, authority.as_ref(), headers, &world.trust) {
        Ok(caller) => caller,
        Err(BadCaller::Host | BadCaller::Misdirected) => return Err(Refusal::Host),
    };
    let question = target.iter().position(|byte| *byte == b'?');
    let (path, query) = target.split_at(question.unwrap_or(target.len()));
    let kept = world.routes.iter().fold(Kept::default(), |all, route| Kept {
        slashes: all.slashes || route.kept.slashes,
        bytes: all.bytes || route.kept.bytes,
    });
    let normal = path::normal(path, kept).ok_or(Refusal::Path)?;
    if path::is_below(&normal.path, &world.base_path) {
        return if normal.holds == Kept::default() {
            Ok(None)
        } else {
            Err(Refusal::Path)
        };
    }

    let has_body = match &request.body {
        Body::None => false,
        Body::Sized(body) => !body.is_empty(),
        Body::Chunked(_) => true,
    };
    let asked = asked_before(&method, headers).filter(|_| !has_body);
    let route = match route::find(
        &world.routes,
        &world.base_path,
        &caller.host.name,
        &normal,
        asked.as_deref().unwrap_or(&method),
    ) {
        Ok(route) => route,
        Err(NoRoute::Unfit) => return Err(Refusal::Path),
        Err(NoRoute::Path | NoRoute::Method) => return Err(Refusal::NoRoute),
    };
    if asked.is_some() {
        return Err(Refusal::Preflight);
    }
    let upgrade = upgrade(request, &method).filter(|_| !has_body);
    if upgrade.is_some() && !route.websocket {
        return Err(Refusal::Upgrade);
    }

    let shown = credential::shown(headers, &world.names, &world.people);
    let live = |person: &&Person| person.live;
    let somebody = shown
        .candidates
        .iter()
        .find(|(person, _)| person.as_ref().is_some_and(live));
    let somebody = somebody.filter(|_| route.access != Access::Public);
    if let Some((_, By::Cookie)) = somebody
        && (!matches!(method.as_str(), "GET" | "HEAD" | "OPTIONS") || upgrade.is_some())
        && !is_from_our_page(headers, world)
    {
        return Err(Refusal::Origin);
    }
    let person = somebody.and_then(|(person, _)| *person);
    if let Access::Required(roles) = &route.access {
        let person = person.ok_or(Refusal::SignIn)?;
        if !roles.is_empty() && !roles.iter().any(|role| person.roles.contains(role)) {
            return Err(Refusal::Role);
        }
    }

    let drops_authorization = match shown.authorization {
        Ownership::Theirs => false,
        Ownership::Ours => true,
        // Ours if it is a live session's, whoever's the request is.
        Ownership::Unknown => match somebody {
            Some((_, by)) => *by == By::Bearer,
            None => shown
                .candidates
                .iter()
                .any(|(person, by)| *by == By::Bearer && person.as_ref().is_some_and(live)),
        },
    };
    let mut target = path::rewritten(&normal.path, route.strip, route.add.as_bytes());
    target.extend_from_slice(query);
    let fields = outgoing(
        request,
        &caller,
        person,
        (drops_authorization, client::trusts(peer, &world.trust), upgrade),
        world,
    );
    Ok(Some(Forwarded {
        route: route.number,
        method: request.method.clone(),
        target,
        fields,
        body: match &request.body {
            Body::None => Vec::new(),
            Body::Sized(body) | Body::Chunked(body) => body.clone(),
        },
        trailers: trailers(request),
        token: person.map(|person| person.token.clone()),
    }))
}

/// The method that a preflight asks about, if it is one (Fetch, 4.8).
fn asked_before(method: &str, headers: &[Field]) -> Option<String> {
    let asked = values(headers, b"access-control-request-method");
    let ([asked], [_], "OPTIONS") = (&asked[..], &values(headers, b"origin")[..], method) else {
        return None;
    };
    let is_method = !asked.is_empty() && asked.iter().all(|byte| http1::is_token(*byte));
    is_method.then(|| String::from_utf8_lossy(asked).into_owned())
}

/// The value of `Upgrade`, if it asks for a tunnel of a kind that passes: WebSockets alone.
fn upgrade(request: &Request, method: &str) -> Option<Vec<u8>> {
    let protocol = values(&request.fields, b"upgrade").first()?.to_vec();
    let options = list(&request.fields, b"connection");
    let asks = options.iter().any(|option| option.eq_ignore_ascii_case(b"upgrade"));
    (asks && protocol.eq_ignore_ascii_case(b"websocket") && method == "GET" && !request.old).then_some(protocol)
}

/// Whether a page of ours sent it, or no browser.
fn is_from_our_page(headers: &[Field], world: &World) -> bool {
    let is_text = |value: &[u8]| value.iter().all(|byte| matches!(byte, b' '..=b'~' | b'\t'));
    let is_ours = |origin: &[u8]| world.origins.iter().any(|own| own.as_bytes() == origin);
    let origin = values(headers, b"origin");
    if let [origin] = origin[..]
        && is_ours(origin)
    {
        return true;
    }
    match values(headers, b"sec-fetch-site")[..] {
        [site] if is_text(site) => return site == b"same-origin" || (site == b"none" && origin.is_empty()),
        [] if origin.is_empty() => {}
        _ => return false,
    }
    match values(headers, b"referer")[..] {
        [] => true,
        // The URL's origin; what is no URL has none.
        [referer] if is_text(referer) => match redirect::lands(&String::from_utf8_lossy(referer), "") {
            Lands::Origin(origin) => is_ours(origin.as_bytes()),
            Lands::App(_) | Lands::Nowhere | Lands::Unclear => false,
        },
        _ => false,
    }
}

fn outgoing(
    request: &Request,
    caller: &Caller,
    person: Option<&Person>,
    (drops_authorization, behind_proxy, upgrade): (bool, bool, Option<Vec<u8>>),
    world: &World,
) -> Vec<Field> {
    let headers = &request.fields;
    let mut out: Vec<Field> = Vec::new();
    let mut put = |name: &str, value: &[u8]| out.push((name.as_bytes().to_ascii_lowercase(), value.to_vec()));
    for (name, value) in headers {
        let passes = match fields::kind(name) {
            Kind::Ordinary => true,
            Kind::Address => behind_proxy,
            Kind::Authorization => !drops_authorization,
            Kind::Cookie | Kind::Length | Kind::Ours => false,
        };
        if passes && !fields::is_named(headers, name) {
            put(&String::from_utf8_lossy(name), value);
        }
    }
    if !fields::is_named(headers, b"cookie") {
        for line in credential::left_of_cookies(headers, &world.names) {
            put("cookie", &line);
        }
    }
    let host = caller.host.text();
    let scheme = if caller.https { "https" } else { "http" };
    put("host", host.as_bytes());
    put("x-forwarded-for", &caller.forwarded_for);
    put("x-forwarded-host", host.as_bytes());
    put("x-forwarded-proto", scheme.as_bytes());
    let address = match caller.address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("\"[{address}]\""),
    };
    put(
        "forwarded",
        format!("for={address};host=\"{host}\";proto={scheme}").as_bytes(),
    );
    put("x-request-id", b"");
    if let Some(person) = person {
        for (name, value) in &person.identity {
            put(name, value.as_bytes());
        }
    }
    let says_length = !values(headers, b"content-length").is_empty();
    match &request.body {
        Body::Chunked(_) => put("transfer-encoding", b"chunked"),
        Body::Sized(body) if !body.is_empty() => put("content-length", body.len().to_string().as_bytes()),
        _ if says_length || matches!(request.method.as_slice(), b"POST" | b"PUT" | b"PATCH") => {
            put("content-length", b"0")
        }
        _ => {}
    }
    if let Some(names) = fields::announced(headers) {
        put("trailer", names.as_bytes());
    }
    if list(headers, b"te")
        .iter()
        .any(|coding| coding.eq_ignore_ascii_case(b"trailers"))
    {
        put("te", b"trailers");
        if upgrade.is_none() {
            put("connection", b"te");
        }
    }
    if let Some(protocol) = upgrade {
        put("connection", b"upgrade");
        put("upgrade", &protocol);
    }
    out.sort();
    out
}

fn trailers(request: &Request) -> Vec<Field> {
    let announced = fields::announced(&request.fields).unwrap_or_default();
    let announced: Vec<&str> = announced.split(", ").collect();
    let lower = request
        .trailers
        .iter()
        .map(|(name, value)| (name.to_ascii_lowercase(), value.clone()));
    lower
        .filter(|(name, _)| fields::may_follow(name) && announced.iter().any(|other| other.as_bytes() == *name))
        .collect()
}
