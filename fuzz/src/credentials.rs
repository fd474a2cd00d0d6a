//! Property: a request shows whom the oracle says it shows, and what is left of its cookies for upstreams is what that
//! leaves; whatever the connection remembers of the request before. The input is text: heads of requests on one connection,
//! field lines without a request line, each head ended by an empty line; a head that begins with `!` comes after a reload.
//! In place of `{a}`, `{b}`, `{c}` stand cookies of people (`configured::filled`).

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Method, Uri, Version, header};
use oracle::{
    credential::{self, By, Ownership as Whose},
    http1::{self, Field, Read},
};
use vestibule::{
    clock::Timestamp,
    policy::{
        client,
        connection::{Connection, Peer},
        marks::Marks,
        path::NormalPath,
    },
    proxy::{
        Inbound,
        caller::Caller,
        memory::{Memory, Shown},
    },
    secret::TokenHash,
    session::credential::{Cut, Kind, Ownership},
};

use super::configured::{self, Configured, PEER, configured};

pub fn holds(input: &[u8]) {
    let configured = configured();
    let input = configured::filled(input, &configured.world);
    let memory = Memory::default();
    let mut live = &configured.snapshots[0];
    for head in split(&input) {
        let head = match head.strip_prefix(b"!") {
            None => head,
            Some(rest) => {
                live = &configured.snapshots[1];
                rest
            }
        };
        let Some((fields, headers)) = fields(head) else {
            continue;
        };
        let fresh = Shown::of(&live.cookies, &headers);
        shows(configured, &fields, &headers, &fresh);

        let connection = Connection::plain(Peer::Ip(PEER));
        let asked = (Version::HTTP_11, &Uri::from_static("/x"), &headers);
        let judged = client::judge(&connection, asked.0, asked.1, &headers, &live.clients);
        let caller = match (memory.caller(live, &connection, asked), judged) {
            (Ok(remembered), Ok(facts)) => {
                let told = |caller: &Caller| format!("{:?} {:?}", caller.facts, caller);
                let fresh = Caller::new(facts, &headers);
                assert_eq!(told(&remembered), told(&fresh), "{}", head.escape_ascii());
                remembered
            }
            (Err(_), Err(_)) => continue,
            (remembered, fresh) => panic!("{remembered:?} rather than {fresh:?}: {}", head.escape_ascii()),
        };
        let remembered = memory.shown(live, &inbound(headers, caller));
        assert_eq!(
            (remembered.found, &remembered.left, remembered.browser.is_some()),
            (fresh.found, &fresh.left, fresh.browser.is_some()),
            "of {} remembered",
            head.escape_ascii()
        );
    }
}

fn split(input: &[u8]) -> Vec<&[u8]> {
    let mut heads = Vec::new();
    let mut rest = input;
    while let Some(end) = rest.windows(2).position(|window| window == b"\n\n") {
        heads.push(&rest[..end]);
        rest = &rest[end + 2..];
    }
    heads.push(rest);
    heads
}

/// Lines as both would get them.
fn fields(head: &[u8]) -> Option<(Vec<Field>, HeaderMap)> {
    let mut request = b"GET /x HTTP/1.1\r\n".to_vec();
    for line in head.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        request.extend_from_slice(line);
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"\r\n");
    match http1::read(&request) {
        Read::Whole(request, _) => Some((request.fields.clone(), configured::headers(&request.fields)?)),
        _ => None,
    }
}

fn shows(configured: &Configured, fields: &[Field], headers: &HeaderMap, fresh: &Shown) {
    let world = &configured.world;
    let due = credential::shown(fields, &world.names, &world.people);
    let known = |hash: TokenHash| {
        let mut people = world.people.iter();
        people
            .find(|person| TokenHash::of(person.token.as_bytes()) == hash)
            .map(|person| person.token.as_str())
    };
    let found: Vec<_> = fresh
        .found
        .candidates()
        .map(|credential| {
            let by = match credential.kind {
                Kind::Cookie => By::Cookie,
                Kind::Bearer => By::Bearer,
            };
            (known(credential.hash), by)
        })
        .collect();
    let candidates: Vec<_> = due
        .candidates
        .iter()
        .map(|(person, by)| (person.map(|person| person.token.as_str()), *by))
        .collect();
    assert_eq!(found, candidates, "{headers:?}");
    let whose = match fresh.found.authorization() {
        Ownership::Theirs => Whose::Theirs,
        Ownership::Unknown => Whose::Unknown,
        Ownership::Ours => Whose::Ours,
    };
    assert_eq!(whose, due.authorization, "{headers:?}");
    let lines: Vec<&HeaderValue> = headers.get_all(header::COOKIE).iter().collect();
    let left: Vec<Vec<u8>> = match &fresh.left {
        Cut::Unchanged => lines.iter().map(|line| line.as_bytes().to_vec()).collect(),
        Cut::Rest(rest) => vec![rest.as_bytes().to_vec()],
        Cut::Nothing => Vec::new(),
    };
    assert_eq!(left, credential::left_of_cookies(fields, &world.names), "{headers:?}");
}

fn inbound(headers: HeaderMap, caller: Arc<Caller>) -> Inbound {
    Inbound {
        method: Method::GET,
        version: Version::HTTP_11,
        marks: Marks::of(&headers),
        headers,
        on_upgrade: None,
        extended_connect: None,
        path: NormalPath::parse("/x").expect("a path"),
        caller,
        request_id: HeaderValue::from_static("drawn"),
        now: Timestamp::from_secs(0),
    }
}
