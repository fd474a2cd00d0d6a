//! Where one message ends and the next begins, the gateway and its upstream agree: thousands of messages, clean ones and
//! ones in every disguise, are sent through it to an upstream that takes nothing in doubt, and a strict parser that was
//! written for this (`oracle::http1`) says what each of them is.
//!
//! A clean message arrives as exactly one request with exactly its body, and its connection stays of use; one that can be
//! read in two ways arrives as none, or as what it has to mean, and what comes behind it is never read.
//!
//! A run is repeated by its seed: `VESTIBULE_TEST_SEED`; a longer one is had by `VESTIBULE_TEST_MESSAGES`.

use std::{env, time::Instant};

use crate::{
    harness::Setup,
    shared::{
        dice::Dice,
        stage::{Recorder, Stage, Tally, shown},
        world,
    },
};

/// Connections, with one message or several each.
const CONNECTIONS: u64 = 6_000;
const SEED: u64 = 2026;

/// The strictest of upstreams would answer it, if it ever saw it.
const SMUGGLED: &str = "GET /public/smuggled HTTP/1.1\r\nHost: app.example.com\r\n\r\n";

pub(crate) fn number(name: &str, usual: u64) -> u64 {
    env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

#[tokio::test]
async fn each_message_arrives_as_exactly_one_request_or_as_none() {
    let upstream = Recorder::start().await;
    let setup = Setup::default().with(&world::toml(&world::routes()));
    let gateway = setup
        .endpoints(&[format!("http://{}", upstream.addr())], "")
        .start()
        .await;
    let stage = Stage::new(gateway.addr(), world::world(Vec::new()), upstream);
    let (seed, connections) = (
        number("VESTIBULE_TEST_SEED", SEED),
        number("VESTIBULE_TEST_MESSAGES", CONNECTIONS),
    );
    let began = Instant::now();
    let mut total = Tally::default();
    for round in 0..connections {
        let mut dice = Dice(seed.wrapping_add(round));
        let bytes = connection(&mut dice);
        let cuts = dice.cuts(bytes.len());
        match stage.play(&bytes, &cuts).await {
            Ok(tally) => total.add(tally),
            Err(error) => panic!(
                "VESTIBULE_TEST_SEED={} VESTIBULE_TEST_MESSAGES=1: {error}\nsent, cut at {cuts:?}: {}",
                seed.wrapping_add(round),
                shown(&bytes)
            ),
        }
    }
    eprintln!("{connections} connections in {:?}: {total:?}", began.elapsed());
    // A generator whose messages are all of one kind would show nothing.
    let least = usize::try_from(connections).unwrap() / 20;
    if least > 10 {
        for (what, count) in [
            ("forwarded", total.forwarded),
            ("refused", total.refused),
            ("malformed", total.malformed),
            ("unfinished", total.unfinished),
        ] {
            assert!(count > least, "only {count} were {what}: {total:?}");
        }
    }
}

/// What a client sends on one connection.
fn connection(dice: &mut Dice) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..=dice.below(3) {
        let message = message(dice);
        bytes.extend_from_slice(&message);
    }
    if dice.once_in(12) {
        bytes.truncate(1 + dice.below(bytes.len()));
    }
    // Bytes that went astray.
    if dice.once_in(6) {
        for _ in 0..=dice.below(2) {
            let at = dice.below(bytes.len());
            match dice.below(4) {
                0 => bytes[at] = *dice.one(&ODD).first().unwrap(),
                1 => bytes.splice(at..at, dice.one(&ODD).iter().copied()).for_each(drop),
                2 => {
                    bytes.remove(at);
                }
                _ => bytes.truncate(at + 1),
            }
        }
    }
    bytes
}

const ODD: [&[u8]; 16] = [
    b"\r",
    b"\n",
    b"\r\n",
    b" ",
    b"\t",
    b"\0",
    b":",
    b";",
    b",",
    b"0",
    b"\x0b",
    b"\x7f",
    b"\xff",
    b"#",
    b"G",
    b"\r\n\r\n",
];

/// The ways to say where a body ends, and the ways to seem to.
const LENGTHS: [&str; 18] = [
    "Content-Length: {n}",
    "content-length:{n}",
    "Content-Length: \t{n} ",
    "Content-Length: {n}\r\nContent-Length: {n}",
    "Content-Length: {n}\r\nContent-Length: 0",
    "Content-Length: 0\r\nContent-Length: {n}",
    "Content-Length: {n}, {n}",
    "Content-Length: +{n}",
    "Content-Length: -{n}",
    "Content-Length: 0x{n}",
    "Content-Length: {n} {n}",
    "Content-Length: 0{n}",
    "Content-Length:",
    "Content-Length : {n}",
    "Content-Length: 18446744073709551616",
    "Content_Length: {n}",
    " Content-Length: {n}",
    "X-A: b\r\n Content-Length: {n}",
];

const CODINGS: [&str; 20] = [
    "Transfer-Encoding: chunked",
    "transfer-encoding:CHUNKED ",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
    "Transfer-Encoding: chunked, chunked",
    "Transfer-Encoding: xchunked",
    "Transfer-Encoding: chunked;q=1",
    "Transfer-Encoding: chunked, identity",
    "Transfer-Encoding: identity, chunked",
    "Transfer-Encoding: identity",
    "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
    "Transfer-Encoding: gzip, chunked",
    "Transfer-Encoding:\x0bchunked",
    "Transfer-Encoding: \x00chunked",
    "Transfer-Encoding : chunked",
    "Transfer-Encoding:\r\n chunked",
    "Transfer-Encoding: \"chunked\"",
    "Transfer_Encoding: chunked",
    "Transfer-Encoding: ,chunked",
    "Transfer-Encoding:",
    "X: y\nTransfer-Encoding: chunked",
];

const OTHER_FIELDS: [&str; 16] = [
    "Accept: */*",
    "X-Long: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "Connection: close",
    "Connection: keep-alive",
    "Connection: Content-Length, Transfer-Encoding, Host",
    "Expect: 100-continue",
    "Expect: the-unexpected",
    "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA",
    "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    "Upgrade: websocket",
    "X-A: 1\r\n folded",
    "X-Colonless",
    "X-Bare: a\rb",
    "X-Nul: a\0b",
    "Trailer: X-Sum",
    "TE: trailers",
];

/// One message, mostly clean.
fn message(dice: &mut Dice) -> Vec<u8> {
    let mut text = Vec::new();
    if dice.once_in(30) {
        text.extend_from_slice(dice.one(&[&b"\r\n"[..], b"\r\n\r\n", b"\n", b"\r"]));
    }
    let method = dice.one(&[
        "GET", "GET", "POST", "POST", "PUT", "HEAD", "DELETE", "OPTIONS", "PATCH",
    ]);
    let target = dice.one(&[
        "/public/x",
        "/public/x",
        "/public/y?q=1",
        "/api/x",
        "/nothing",
        "/optional/z",
    ]);
    let version = if dice.once_in(12) {
        dice.one(&["HTTP/1.0", "HTTP/1.0", "HTTP/1.2", "HTTP/2.0", "http/1.1", "HTTP/1.1 "])
    } else {
        "HTTP/1.1"
    };
    text.extend_from_slice(format!("{method} {target} {version}\r\nHost: app.example.com\r\n").as_bytes());
    for _ in 0..dice.below(3) {
        let usual = dice.below(2);
        let field = if dice.once_in(3) {
            dice.one(&OTHER_FIELDS)
        } else {
            OTHER_FIELDS[usual]
        };
        text.extend_from_slice(format!("{field}\r\n").as_bytes());
    }
    let said = if dice.once_in(3) {
        SMUGGLED.to_owned()
    } else {
        format!("body {} #\n\r\n", dice.next())
    };
    let disguised = dice.once_in(3);
    let chunks = chunks(dice, said.as_bytes());
    let mut framing = Vec::new();
    let body: Vec<u8> = match dice.below(5) {
        // None, or nobody says that there is one.
        0 | 1 => {
            if dice.once_in(8) {
                said.into_bytes()
            } else {
                Vec::new()
            }
        }
        2 => {
            framing
                .push(if disguised { dice.one(&LENGTHS) } else { LENGTHS[0] }.replace("{n}", &said.len().to_string()));
            said.into_bytes()
        }
        3 => {
            framing.push(if disguised { dice.one(&CODINGS) } else { CODINGS[0] }.to_owned());
            chunks
        }
        _ if disguised => {
            let length = *dice.one(&[&0, &4, &5, &chunks.len(), &(chunks.len() + SMUGGLED.len())]);
            framing.push(dice.one(&LENGTHS).replace("{n}", &length.to_string()));
            framing.push(dice.one(&CODINGS).to_owned());
            if dice.once_in(2) {
                framing.reverse();
            }
            let mut body = chunks;
            body.extend_from_slice(SMUGGLED.as_bytes());
            body
        }
        _ => Vec::new(),
    };
    for line in framing {
        text.extend_from_slice(format!("{line}\r\n").as_bytes());
    }
    let end = if dice.once_in(40) {
        dice.one(&["\n", "\r\r\n", "\r\n ", ""])
    } else {
        "\r\n"
    };
    text.extend_from_slice(end.as_bytes());
    text.extend_from_slice(&body);
    text
}

/// A body as the chunked coding has it, seldom to the letter.
fn chunks(dice: &mut Dice, body: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    let mut rest = body;
    while !rest.is_empty() {
        let (chunk, behind) = rest.split_at(1 + dice.below(rest.len()));
        rest = behind;
        let size = match dice.below(24) {
            0 => format!("{:X}", chunk.len()),
            1 => format!("000{:x}", chunk.len()),
            2 => format!("{:x};name=value", chunk.len()),
            3 => format!("{:x};name=\"a;b\"", chunk.len()),
            4 => format!("{:x} ", chunk.len()),
            5 => format!("{:x}\t;x", chunk.len()),
            6 => format!(" {:x}", chunk.len()),
            7 => format!("0x{:x}", chunk.len()),
            8 => format!("+{:x}", chunk.len()),
            9 => format!("{:x}", chunk.len() + 1),
            10 => format!("{:x}", chunk.len() - 1),
            11 => format!("{:x};a\nb", chunk.len()),
            12 => format!("{:x};a\rb", chunk.len()),
            13 => format!("1{:016x}", chunk.len()),
            _ => format!("{:x}", chunk.len()),
        };
        text.extend_from_slice(size.as_bytes());
        let mut end = || -> &str {
            if dice.once_in(60) {
                dice.one(&["\n", "\r", "", "\r\n\r\n"])
            } else {
                "\r\n"
            }
        };
        text.extend_from_slice(end().as_bytes());
        text.extend_from_slice(chunk);
        text.extend_from_slice(end().as_bytes());
    }
    let last = match dice.below(16) {
        0 => "00\r\n\r\n",
        1 => "0;last\r\n\r\n",
        2 => "0\r\nX-Sum: 1\r\nX-User-Id: 1\r\nContent-Length: 3\r\n\r\n",
        3 => "0\r\nX-Sum : 1\r\n\r\n",
        4 => "0\r\nX-Sum\r\n\r\n",
        5 => "0\r\n\n",
        6 => "0\n\r\n",
        7 => "0\r\n",
        8 => "0\r\nX-Sum: 1\r\n folded\r\n\r\n",
        _ => "0\r\n\r\n",
    };
    text.extend_from_slice(last.as_bytes());
    text
}
