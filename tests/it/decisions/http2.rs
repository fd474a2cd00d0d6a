//! The same requests over HTTP/2, where every text has a length: what would begin another field or message in HTTP/1.1 is a
//! byte like others here, and might begin one at the upstream.
//!
//! A request has to become what its form in HTTP/1.1 has to. What HTTP/2 forbids arrives nowhere (RFC 9113, 8.1.1).

use std::time::Instant;

use oracle::{
    decision::{self, Decision},
    http1::{self, Read, Request},
};

use super::{
    asks::{Ask, BODY, Sent, TRAILERS, ask},
    set_up,
};
use crate::{
    framing::number,
    harness::frames::{self, DATA, END_HEADERS, END_STREAM, Frames, GOAWAY, HEADERS, RST_STREAM},
    shared::{
        dice::Dice,
        stage::{Recorder, described, difference, has_odd_target},
    },
};

const REQUESTS: u64 = 4_000;
const SEED: u64 = 2026;
/// On one connection.
const STREAMS: u32 = 100;

#[tokio::test]
async fn over_http2_a_request_means_what_it_means_over_http1() {
    let (gateway, world, upstream) = set_up("").await;
    let (seed, requests) = (
        number("VESTIBULE_TEST_SEED", SEED),
        number("VESTIBULE_TEST_MESSAGES", REQUESTS),
    );
    let began = Instant::now();
    let mut client: Option<(Frames, u32)> = None;
    let (mut forwarded, mut refused, mut malformed) = (0, 0, 0);
    for round in 0..requests {
        let mut dice = Dice(seed.wrapping_add(round));
        let message = Message::of(ask(&mut dice, &world), &mut dice);
        let meant = message.meant();
        let decision = meant
            .as_ref()
            .map(|request| decision::decide(request, gateway.addr().ip(), &world));
        if decision == Some(Decision::OwnApi) {
            continue;
        }
        let (mut connection, stream) = match client.take() {
            Some((connection, last)) if last < 2 * STREAMS => (connection, last + 2),
            _ => (Frames::connect(gateway.addr()).await, 1),
        };
        let due = upstream.count();
        connection.send(message.frames(stream)).await;
        if is_answered(&mut connection, stream).await {
            client = Some((connection, stream));
        }
        let complain = |what: &str| {
            let meant = meant.as_ref().zip(decision.as_ref());
            let meant = meant.map_or_else(String::new, |(request, decision)| described(request, decision));
            panic!(
                "VESTIBULE_TEST_SEED={} VESTIBULE_TEST_MESSAGES=1: {what}\nsent: {message:?}\n{meant}",
                seed.wrapping_add(round)
            )
        };
        match (&decision, arrived(&upstream, due)) {
            (_, Err(what)) => complain(&what),
            (Some(Decision::Forward(wanted)), Ok(Some(came))) => {
                forwarded += 1;
                if let Some(difference) = difference(wanted, &came) {
                    complain(&difference);
                }
            }
            (Some(Decision::Forward(_)), Ok(None)) => {
                if !meant.as_ref().is_some_and(|request| has_odd_target(&request.target)) {
                    complain("refused, and had to be forwarded");
                }
            }
            (Some(_), Ok(None)) => refused += 1,
            (None, Ok(None)) => malformed += 1,
            (_, Ok(Some(_))) => complain("forwarded, and had to be refused"),
        }
    }
    let total = format!("{forwarded} forwarded, {refused} refused, {malformed} malformed");
    eprintln!("{requests} requests in {:?}: {total}", began.elapsed());
    if requests >= 100 {
        assert!(forwarded.min(refused).min(malformed) > requests / 20, "{total}");
    }
}

/// What has arrived since there were `due` requests: one at most.
fn arrived(upstream: &Recorder, due: usize) -> Result<Option<Request>, String> {
    if let Some(complaint) = upstream.complaint() {
        return Err(format!("the upstream got {complaint}"));
    }
    match upstream.count() - due {
        0 => Ok(None),
        1 => Ok(upstream.seen(due)),
        more => Err(format!("{more} requests arrived")),
    }
}

/// Waits for the end of the answer; whether the connection can be used again.
async fn is_answered(connection: &mut Frames, stream: u32) -> bool {
    loop {
        match connection.next().await {
            None => return false,
            Some(frame) if frame.kind == GOAWAY => return false,
            Some(frame) if frame.stream != stream => {}
            Some(frame) if frame.kind == RST_STREAM => return true,
            Some(frame) if matches!(frame.kind, DATA | HEADERS) && frame.flags & END_STREAM != 0 => return true,
            Some(_) => {}
        }
    }
}

/// A request as HTTP/2 has it, or nearly.
#[derive(Debug)]
struct Message {
    /// Pseudo-header fields and others, in order.
    fields: Vec<(String, String)>,
    body: Sent,
    /// What of it HTTP/2 forbids.
    flaw: Option<&'static str>,
    /// In HTTP/1.1 it would be this.
    http1: Vec<u8>,
}

/// Fields that are about a connection of HTTP/1.1: forbidden (RFC 9113, 8.2.2).
const OF_CONNECTIONS: [&str; 5] = [
    "connection",
    "upgrade",
    "keep-alive",
    "proxy-connection",
    "transfer-encoding",
];

impl Message {
    fn of(mut ask: Ask, dice: &mut Dice) -> Self {
        let mut flaw = None;
        if dice.once_in(4) {
            if ask.fields.iter().any(|(name, value)| is_of_connections(name, value)) {
                flaw = Some("a field of connections");
            }
        } else {
            ask.fields.retain(|(name, value)| !is_of_connections(name, value));
        }
        if !ask.target.starts_with('/') {
            flaw = Some("a path that does not begin with a slash");
        }
        // Blanks around a value are none of it in HTTP/1.1; here nobody should send them (RFC 9113, 8.2.1).
        for (_, value) in &mut ask.fields {
            *value = value.trim_matches([' ', '\t']).to_owned();
        }
        let mut authority = None;
        let mut others = Vec::new();
        for (name, value) in &ask.fields {
            if name != "Host" {
                others.push((name.to_ascii_lowercase(), value.clone()));
            } else if authority.is_none() {
                authority = Some(value.clone());
            } else if authority.as_deref().map(host_name) != Some(host_name(value)) {
                flaw = Some("two hosts");
                others.push(("host".to_owned(), value.clone()));
            }
        }
        // Of cookie lines one is made before anybody reads them (RFC 9113, 8.2.3).
        let (cookies, rest): (Vec<_>, Vec<_>) = ask.fields.drain(..).partition(|(name, _)| name == "Cookie");
        ask.fields = rest;
        if !cookies.is_empty() {
            let lines = cookies.iter().map(|(_, line)| line.as_str());
            let crumbs: Vec<_> = lines.filter(|line| !line.is_empty()).collect();
            ask.fields.push(("Cookie".to_owned(), crumbs.join("; ")));
        }
        // One line for the two of them.
        if let Some(authority) = &authority {
            ask.fields.retain(|(name, _)| name != "Host");
            ask.fields.insert(0, ("Host".to_owned(), authority.clone()));
        }
        let mut fields = vec![
            (":method".to_owned(), ask.method.to_owned()),
            (":scheme".to_owned(), dice.one(&["http", "http", "https"]).to_owned()),
            (":path".to_owned(), ask.target.clone()),
        ];
        if let Some(authority) = authority {
            // As requests do that were HTTP/1.1 before.
            let name = if dice.once_in(12) { "host" } else { ":authority" };
            fields.insert(if name == "host" { 3 } else { 1 }, (name.to_owned(), authority));
        }
        fields.extend(others);
        if ask.body == Sent::Sized {
            fields.push(("content-length".to_owned(), BODY.len().to_string()));
        }
        if dice.once_in(8) {
            flaw = Some(spoil(&mut fields, ask.body, dice));
        }
        Self {
            http1: ask.http1(),
            fields,
            body: ask.body,
            flaw,
        }
    }

    /// `None`: it has to be refused.
    fn meant(&self) -> Option<Request> {
        match http1::read(&self.http1) {
            Read::Whole(request, length) if length == self.http1.len() && self.flaw.is_none() => Some(*request),
            _ => None,
        }
    }

    fn frames(&self, stream: u32) -> Vec<u8> {
        let fields: Vec<_> = self
            .fields
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        let block = frames::block(&fields);
        let end = |ends: bool| if ends { END_STREAM } else { 0 };
        let head = frames::frame(HEADERS, END_HEADERS | end(self.body == Sent::Nothing), stream, &block);
        let body = frames::frame(DATA, end(self.body == Sent::Sized), stream, BODY.as_bytes());
        match self.body {
            Sent::Nothing => head,
            Sent::Sized => [head, body].concat(),
            Sent::Streamed => {
                let trailers = TRAILERS.map(|(name, value)| (name.to_ascii_lowercase(), value));
                let trailers = trailers.each_ref().map(|(name, value)| (name.as_str(), *value));
                let trailers = frames::frame(HEADERS, END_HEADERS | END_STREAM, stream, &frames::block(&trailers));
                [head, body, trailers].concat()
            }
        }
    }
}

/// Without its port, which a scheme may imply: whether two hosts are one is asked elsewhere.
fn host_name(host: &str) -> String {
    let name = host.split(':').next().unwrap();
    name.trim_end_matches('.').to_ascii_lowercase()
}

fn is_of_connections(name: &str, value: &str) -> bool {
    OF_CONNECTIONS.iter().any(|other| name.eq_ignore_ascii_case(other))
        // All that may be said is that trailers are welcome.
        || (name.eq_ignore_ascii_case("te") && value != "trailers")
}

/// Makes a request into none, and says how.
fn spoil(fields: &mut Vec<(String, String)>, body: Sent, dice: &mut Dice) -> &'static str {
    let at = |fields: &[(String, String)], wanted: &str| fields.iter().position(|(name, _)| name == wanted);
    let path = at(fields, ":path").unwrap();
    let mut put = |name: &str, value: &str| fields.push((name.to_owned(), value.to_owned()));
    match dice.below(16) {
        0 => {
            put("X-Upper", "1");
            "a name in upper case"
        }
        1 => {
            put(":authority", "app.example.com");
            "a pseudo-header field behind others, or twice"
        }
        2 => {
            fields.insert(path, (":path".to_owned(), "/public/x".to_owned()));
            "two paths"
        }
        3 => {
            fields.insert(0, (":user".to_owned(), "root".to_owned()));
            "a pseudo-header field that there is not"
        }
        4 => {
            put("x-a", "b\r\nX-User-Id: root");
            "a line break in a value"
        }
        5 => {
            put("x-a", "b\nX-User-Id: root");
            "a line feed in a value"
        }
        6 => {
            put("x-a", "b\0");
            "a zero byte in a value"
        }
        7 => {
            put(
                dice.one(&["x-a: b\r\nx-user-id", "x a", "x-user-id ", "x:y", "", "x-\u{e9}"]),
                "root",
            );
            "a name that is no token"
        }
        8 => {
            fields.remove(path);
            "no path"
        }
        9 => {
            fields[path].1.clear();
            "an empty path"
        }
        10 => {
            fields[path]
                .1
                .push_str(dice.one(&[" HTTP/1.1\r\nX-User-Id: root\r\nX: ", "\r\n", " ", "\n", "\0"]));
            "a path with what no path has"
        }
        11 => {
            let method = at(fields, ":method").unwrap();
            let none = ["GET /admin HTTP/1.1\r\nX: ", "GE T", "", "GET\r\n"];
            dice.one(&none).clone_into(&mut fields[method].1);
            "a method that is no token"
        }
        12 => {
            let scheme = at(fields, ":scheme").unwrap();
            fields.remove(scheme);
            "no scheme"
        }
        13 => {
            fields.retain(|(name, _)| name != ":authority" && name != "host");
            let authority = dice.one(&[
                "app.example.com\r\nX-User-Id: root",
                "root@app.example.com",
                "app.example.com/admin",
                "app.example.com app.example.com",
                "app.example.com#",
            ]);
            fields.insert(1, (":authority".to_owned(), authority.to_owned()));
            "an authority that is none"
        }
        14 => {
            fields.retain(|(name, _)| name != "content-length");
            let length = if body == Sent::Nothing { "1" } else { "3" };
            fields.push(("content-length".to_owned(), length.to_owned()));
            "another length than the body has"
        }
        _ => {
            put("content-length", "4");
            put("content-length", "5");
            "two lengths"
        }
    }
}
