//! The whole decision, from the bytes of a client to those of an upstream, against a second opinion: the oracle, which
//! says of each request what has to arrive, field by field, or that nothing may.
//!
//! Requests are made of what such tricks are made of: other spellings of paths, hosts and names, fields that `Connection`
//! names, cookies and tokens of people who are signed in, of one whose session has ended, and of nobody.

use std::{net::Ipv4Addr, time::Instant};

use oracle::{
    credential::{self, Person},
    decision::World,
};

use crate::{
    framing::number,
    harness::{Gateway, Setup, people::User},
    shared::{
        dice::Dice,
        stage::{Recorder, Stage, Tally, shown},
        world::{self, SignedIn},
    },
};

/// Connections, with one request or several each.
const CONNECTIONS: u64 = 3_000;
const SEED: u64 = 2026;

/// What every sign-in of the tests is, by their clock.
const SINCE: &str = "2026-11-21T08:00:00.000Z";

#[tokio::test]
async fn what_arrives_is_what_a_second_opinion_says() {
    play("", |_| {}).await;
}

#[tokio::test]
async fn it_is_so_behind_a_trusted_proxy() {
    play(
        "[server]\ntrusted_proxies = [\"127.0.0.0/8\", \"10.0.0.0/8\"]\n",
        |world| {
            world.trust.proxies = vec![
                (Ipv4Addr::new(127, 0, 0, 0).into(), 8),
                (Ipv4Addr::new(10, 0, 0, 0).into(), 8),
            ];
        },
    )
    .await;
}

async fn play(more: &str, change: impl Fn(&mut World)) {
    let upstream = Recorder::start().await;
    let setup = Setup::default().with(&world::toml(&world::routes())).with(more);
    let gateway = setup
        .endpoints(&[format!("http://{}", upstream.addr())], "")
        .start()
        .await;
    let mut world = world::world(people(&gateway).await);
    change(&mut world);
    let stage = Stage::new(gateway.addr(), world, upstream);
    let (seed, connections) = (
        number("VESTIBULE_TEST_SEED", SEED),
        number("VESTIBULE_TEST_MESSAGES", CONNECTIONS),
    );
    let began = Instant::now();
    let mut total = Tally::default();
    for round in 0..connections {
        let mut dice = Dice(seed.wrapping_add(round));
        let mut bytes = Vec::new();
        for _ in 0..=dice.below(2) {
            bytes.extend_from_slice(&request(&mut dice, stage.world()));
        }
        match stage.play(&bytes, &dice.cuts(bytes.len())).await {
            Ok(tally) => total.add(tally),
            Err(error) => panic!(
                "VESTIBULE_TEST_SEED={} VESTIBULE_TEST_MESSAGES=1: {error}\nsent: {}",
                seed.wrapping_add(round),
                shown(&bytes)
            ),
        }
    }
    eprintln!("{connections} connections in {:?}: {total:?}", began.elapsed());
    let least = usize::try_from(connections).unwrap() / 6;
    if least > 10 {
        assert!(total.forwarded > least && total.refused > least, "{total:?}");
    }
}

/// Two who are signed in, one of them with a role, and one who was.
async fn people(gateway: &Gateway) -> Vec<Person> {
    let ada = gateway.signed_in("ada@example.com").await;
    let root = gateway.signed_in_as("root@example.com", &["admin", "user"]).await;
    let gone = gateway.signed_in("gone@example.com").await;
    let mut people = Vec::new();
    for (user, roles) in [(&ada, &["user"][..]), (&root, &["admin", "user"]), (&gone, &["user"])] {
        people.push(person(gateway, user, roles).await);
    }
    gateway.sign_out(&gone).await;
    people[2].live = false;
    people
}

async fn person(gateway: &Gateway, user: &User, roles: &[&str]) -> Person {
    let client = gateway.db().client().await;
    let find = "SELECT s.id::text FROM user_sessions s JOIN users u ON u.id = s.user_id WHERE u.email = $1";
    let session_id: String = client.query_one(find, &[&user.email]).await.unwrap().get(0);
    world::person(&SignedIn {
        id: &user.id,
        email: &user.email,
        session_id: &session_id,
        since: SINCE,
        token: &user.token,
        cookie: user.cookie.split_once('=').unwrap().1,
        roles,
    })
}

const PREFIXES: [&str; 16] = [
    "/public",
    "/optional",
    "/api",
    "/admin",
    "/kept",
    "/kept/admin",
    "/moved",
    "/quiet",
    "/@me",
    "/api/open",
    "/api/7/items",
    "/%61dmin",
    "/public/../admin",
    "/nothing",
    "/publicsecret",
    "//admin",
];

const PIECES: [&str; 32] = [
    "/", "/x", "/x", "/admin", "..", "/..", "/.", "//", "/..;", ";v=1", "%2e%2e", "/%2e", "%2f", "%2F..%2F", "%5c",
    "\\", "%00", "%C3%A9", "%c3%a9", "%C0%AF", "%E9", "%ff", "%", "%zz", "%25", "%40me", "{id}", "~", "%7E", "a b",
    "%23", "\"",
];

const HOSTS: [&str; 16] = [
    "app.example.com",
    "app.example.com",
    "app.example.com",
    "app.example.com",
    "APP.example.COM.",
    "app.example.com:443",
    "app.example.com:8080",
    "admin.example.com",
    "ADMIN.EXAMPLE.COM.",
    "a.tenant.example.com",
    "tenant.example.com",
    "evil.example",
    "app.example.com.evil.example",
    "a b",
    "app.example.com, evil.example",
    "[::1]",
];

/// Names that are the gateway's to say, spelled as somebody might hope.
const NAMES: [&str; 44] = [
    "X-User-Id",
    "x_user_id",
    "X.User.Id",
    "X-USER_ROLES",
    "X-User-Roles",
    "x-user~email",
    "X-Session-Id",
    "X-Auth-Time",
    "Remote-User",
    "REMOTE_USER",
    "X-Remote-User",
    "X-Forwarded-User",
    "X_Forwarded_For",
    "X-Forwarded-Uri",
    "X-Real-IP",
    "Forwarded",
    "X-Original-URL",
    "X_Original_Uri",
    "X-Rewrite-URL",
    "X-HTTP-Method-Override",
    "X-Auth-Request-Email",
    "X-Vestibule-Assertion",
    "X_Vestibule_Anything",
    "X-Client-Cert-Subject",
    "Client-Cert",
    "Proxy",
    "Proxy-Authorization",
    "Keep-Alive",
    "Proxy-Connection",
    "X-Request-Id",
    "Content_Length",
    "Transfer_Encoding",
    "Cookie_",
    "Authorization_",
    // And those that are not.
    "X-User",
    "X-Userid",
    "X-Forwarded",
    "Accept",
    "User-Agent",
    "X-Private",
    "X-Private",
    "Origin",
    "Referer",
    "Sec-Fetch-Site",
];

fn request(dice: &mut Dice, world: &World) -> Vec<u8> {
    let method = dice.one(&[
        "GET", "GET", "GET", "GET", "GET", "GET", "GET", "GET", "POST", "POST", "POST", "PUT", "HEAD", "OPTIONS",
        "DELETE", "PROPFIND", "FROB", "TRACE", "get",
    ]);
    let mut target = String::new();
    if dice.once_in(16) {
        target.push_str(dice.one(&[
            "http://app.example.com",
            "https://APP.example.com:443",
            "http://evil.example",
            "http://u@app.example.com",
        ]));
    }
    target.push_str(dice.one(&PREFIXES));
    for _ in 0..dice.below(4).saturating_sub(1) {
        target.push_str(dice.one(&PIECES));
    }
    if dice.once_in(4) {
        target.push_str(dice.one(&["?", "?q=/../x&r=%2f%zz", "?next=/public/", "?a?b\\"]));
    }
    let mut text = format!("{method} {target} HTTP/1.1\r\n").into_bytes();
    let mut put = |line: String| {
        text.extend_from_slice(line.as_bytes());
        text.extend_from_slice(b"\r\n");
    };
    if !dice.once_in(40) {
        let host = if dice.once_in(4) { dice.one(&HOSTS) } else { HOSTS[0] };
        put(format!("Host: {host}"));
    }
    if dice.once_in(40) {
        put(format!("Host: {}", dice.one(&HOSTS)));
    }
    for _ in 0..dice.below(4) {
        put(named(dice));
    }
    for _ in 0..dice.below(3) {
        put(shows(dice, world));
    }
    if dice.once_in(4) {
        let options = [
            "close",
            "keep-alive",
            "X-Private",
            "x-user-id, X-Private",
            "Cookie",
            "Authorization, cookie",
            "Host, Content-Length",
            "x-forwarded-for, X-Request-Id",
            "upgrade",
            "te",
            ",, X-Private ,",
        ];
        put(format!("Connection: {}", dice.one(&options)));
    }
    if dice.once_in(12) {
        put(dice
            .one(&[
                "Upgrade: websocket",
                "Upgrade: WebSocket",
                "Upgrade: h2c",
                "TE: trailers",
                "TE: gzip, trailers",
                "Trailer: X-Sum, X-User-Id",
            ])
            .to_owned());
    }
    if dice.once_in(6) {
        put(dice
            .one(&[
                "Origin: https://app.example.com",
                "Origin: https://evil.example",
                "Origin: null",
            ])
            .to_owned());
    }
    if dice.once_in(10) {
        put(format!(
            "Access-Control-Request-Method: {}",
            dice.one(&["GET", "PUT", "DELETE", "x y"])
        ));
    }
    let body = match (method, dice.below(4)) {
        ("POST" | "PUT", 0) => {
            put("Transfer-Encoding: chunked".to_owned());
            "4\r\nbody\r\n0\r\nX-Sum: 1\r\nX-User-Id: 1\r\n\r\n"
        }
        ("POST" | "PUT", _) | (_, 0) => {
            put("Content-Length: 4".to_owned());
            "body"
        }
        _ => "",
    };
    text.extend_from_slice(b"\r\n");
    text.extend_from_slice(body.as_bytes());
    text
}

fn named(dice: &mut Dice) -> String {
    let name = dice.one(&NAMES);
    let value = match name {
        "Origin" => dice.one(&["https://app.example.com", "https://evil.example", "null"]),
        "Referer" => dice.one(&[
            "https://app.example.com/x",
            "https://app.example.com.evil.example/",
            "nonsense",
        ]),
        "Sec-Fetch-Site" => dice.one(&["same-origin", "cross-site", "same-site", "none"]),
        _ => dice.one(&[
            "1",
            "admin",
            "a, b",
            "",
            "192.0.2.7",
            "10.1.2.3, 203.0.113.9",
            "https",
            "for=192.0.2.1",
            "evil.example",
            "\u{7e}",
        ]),
    };
    let name = if dice.once_in(12) {
        dice.one(&[
            "X-Forwarded-For",
            "X-Forwarded-For",
            "X-Forwarded-Host",
            "X-Forwarded-Proto",
        ])
    } else {
        name
    };
    format!("{name}: {value}")
}

/// A cookie or a token of somebody's, or nearly.
fn shows(dice: &mut Dice, world: &World) -> String {
    // Most often of somebody who may do much.
    let person = &world.people[*dice.one(&[&0, &1, &1, &2])];
    let (name, value) = (&world.names.session, credential::cookie_value(person));
    if dice.once_in(3) {
        let bearer = match dice.below(8) {
            0 => format!("Bearer {}", person.token),
            1 => format!("bearer {}.{}", person.token, person.signature),
            2 => format!("BEARER  {value} "),
            3 => format!("Bearer {}x", person.token),
            4 => format!("Bearer {}", "A".repeat(43)),
            5 => format!("Basic {}", person.token),
            6 => format!("Bearer\t{}", person.token),
            _ => "Bearer of-somebody-elses".to_owned(),
        };
        return format!("Authorization: {bearer}");
    }
    let cookie = match dice.below(16) {
        0 => format!("x{name}={value}"),
        1 => format!("{name}={value}tail"),
        2 => format!("x={name}={value}"),
        3 => format!("{name}={}", person.token),
        4 => format!("{name}={value}; {name}={}", credential::cookie_value(&world.people[0])),
        5 => format!("{name}=\"{value}\""),
        6 => format!("{name} ={value}"),
        7 => format!("theme=1;; {name}={value} ;a=b;"),
        8 => format!("vestibule.session_token={value}; __Secure-vestibule.x=1; __HOST-vestibule.y=2; other=3"),
        9 => "theme=dark; vestibule=1".to_owned(),
        10 => String::new(),
        11 => format!(
            "{name}={}",
            value.replace("%2B", "+").replace("%2F", "/").replace("%3D", "=")
        ),
        12 => format!("{name}={value}").repeat(9),
        13 => format!("{name}=made.up; {name}={value}"),
        _ => format!("{name}={value}; theme=1"),
    };
    format!("Cookie: {cookie}")
}
