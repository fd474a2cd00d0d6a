//! Property: the judges of the data path, one after the other, let out what the oracle lets out, and as that has it: the
//! same target, the same fields with the same values, the same person's identity, or nothing. The input is a request as
//! HTTP/1.1 has it; in place of `{a}`, `{b}`, `{c}` stand cookies of people (`configured::filled`).
//!
//! It is the whole decision without sockets, many thousand times a second; the order of the steps is `proxy::handle`'s,
//! which `decisions` tries through the front door. What becomes of `Authorization` is asked in `credentials`.

use http::HeaderValue;
use oracle::{
    decision::{self, Decision, Forwarded},
    http1::{self, Field, Read, Request},
};
use vestibule::{
    clock::Timestamp,
    config::Access,
    identity::Session,
    policy::{
        self, client,
        connection::{Connection, Peer},
        cors, csrf,
        marks::Marks,
        origin::SameOrigin,
        path::NormalPath,
    },
    proxy::{
        self,
        caller::Caller,
        handover::Handover,
        headers::{self, Material},
        memory::Shown,
        rewrite,
    },
    session::credential::Kind,
    upstream::body::RequestBody,
};

use super::configured::{self, Configured, PEER, configured};

pub fn holds(input: &[u8]) {
    let configured = configured();
    let input = configured::filled(input, &configured.world);
    let Read::Whole(mut request, _) = http1::read(&input) else {
        return;
    };
    request
        .fields
        .retain(|(name, _)| !name.eq_ignore_ascii_case(b"authorization"));
    // There is no body here whose end would have to be said.
    request.body = http1::Body::None;
    let bodiless = |(name, _): &Field| {
        !name.eq_ignore_ascii_case(b"content-length") && !name.eq_ignore_ascii_case(b"transfer-encoding")
    };
    request.fields.retain(bodiless);
    let due = decision::decide(&request, PEER, &configured.world);
    let Some(came) = judged(configured, &request) else {
        // Bytes that no URI has it need not take.
        assert!(
            request.doubt.is_some() || !request.target.is_ascii() || !matches!(due, Decision::OwnApi),
            "the library refuses {request:?}"
        );
        return;
    };
    match (came, due) {
        (Ok(Some((target, fields))), Decision::Forward(due)) => agree(&request, &target, fields, &due),
        (Ok(None), Decision::OwnApi) | (Err(_), Decision::Refuse(_)) => {}
        (came, due) => panic!("{came:?} rather than {due:?}: {}", input.escape_ascii()),
    }
}

fn agree(request: &Request, target: &str, mut fields: Vec<Field>, due: &Forwarded) {
    assert_eq!(target.as_bytes(), due.target, "{request:?}");
    for (name, value) in &mut fields {
        if name == b"x-request-id" {
            value.clear();
        }
    }
    fields.sort();
    // Said of the body, when that is known.
    let due: Vec<Field> = due
        .fields
        .iter()
        .filter(|(name, _)| name != b"content-length")
        .cloned()
        .collect();
    assert_eq!(readable(&fields), readable(&due), "{request:?}");
}

fn readable(fields: &[Field]) -> Vec<String> {
    let line = |(name, value): &Field| format!("{}: {}", name.escape_ascii(), value.escape_ascii());
    fields.iter().map(line).collect()
}

type Sent = (String, Vec<Field>);

/// What leaves: `Ok(None)` if the gateway's own API answers. `None`: its HTTP library would not have handed it over.
fn judged(configured: &Configured, request: &Request) -> Option<Result<Option<Sent>, String>> {
    let head = configured::head(request)?;
    Some(steps(configured, head))
}

fn steps(configured: &Configured, head: configured::Head) -> Result<Option<Sent>, String> {
    let refused = |error: &dyn std::fmt::Display| error.to_string();
    let live = &configured.snapshots[0];
    let configured::Head {
        method,
        uri,
        version,
        headers,
    } = head;
    let marks = Marks::of(&headers);
    proxy::check_head(&method, &headers, marks).map_err(|error| refused(&error))?;
    let connection = Connection::plain(Peer::Ip(PEER));
    let facts = client::judge(&connection, version, &uri, &headers, &live.clients).map_err(|error| refused(&error))?;
    let target = uri.path_and_query().cloned().ok_or("no path")?;
    let path = NormalPath::keeping(target, live.routes.kept()).map_err(|error| refused(&error))?;
    if path.below(&live.config.auth.base_path).is_some() {
        return match path.unfit_for(vestibule::config::Kept::default()) {
            None => Ok(None),
            Some(error) => Err(refused(&error)),
        };
    }
    let preflight = cors::preflight(&method, &headers);
    let asked = preflight.as_ref().map_or(&method, |asked| &asked.method);
    let route = live
        .routes
        .find(facts.host.name(), &path, asked)
        .map_err(|error| refused(&error))?;
    if preflight.is_some() {
        return Err("a preflight".to_owned());
    }
    let upgrade = headers::upgrade_of(&method, version, &headers);
    if upgrade.is_some() && !route.websocket {
        return Err("an upgrade".to_owned());
    }
    let shown = Shown::of(&live.cookies, &headers);
    let session = if policy::wants_session(route) {
        looked_up(configured, &shown)
    } else {
        None
    };
    if let Some((_, Kind::Cookie)) = session {
        csrf::check(
            &method,
            upgrade.is_some(),
            &headers,
            &live.origins,
            &[],
            SameOrigin::Ours,
        )
        .map_err(|error| refused(&error))?;
    }
    let session = session.map(|(session, _)| session);
    let permit = policy::authorise(route, session, Timestamp::from_secs(0)).map_err(|error| refused(&error))?;
    assert!(permit.session().is_some() || !matches!(route.access, Access::Required(_)));
    let path = rewrite::outgoing(route, &path).map_err(|error| refused(&error))?;
    let handover = Handover::shown(route, false, session.is_some());
    let outbound = headers::prepare(
        Material {
            method,
            handover,
            body: RequestBody::EMPTY,
            path,
            marks,
            caller: &Caller::new(facts, &headers),
            request_id: &HeaderValue::from_static("drawn"),
            cookies: &shown.left,
            reserved: &live.reserved,
            upgrade,
            headers,
        },
        permit,
    );
    let (head, _) = outbound.into_request().into_parts();
    let field = |(name, value): (&http::HeaderName, &HeaderValue)| {
        (name.as_str().as_bytes().to_vec(), value.as_bytes().to_vec())
    };
    Ok(Some((head.uri.to_string(), head.headers.iter().map(field).collect())))
}

/// As a look-up in Postgres would have it.
fn looked_up<'c>(configured: &'c Configured, shown: &Shown) -> Option<(&'c Session, Kind)> {
    shown.found.candidates().find_map(|credential| {
        let of = |person: &oracle::credential::Person| vestibule::secret::TokenHash::of(person.token.as_bytes());
        let people = configured.world.people.iter().zip(&configured.sessions);
        let mut live = people.filter(|(person, _)| person.live && of(person) == credential.hash);
        live.next().map(|(_, session)| (session, credential.kind))
    })
}
