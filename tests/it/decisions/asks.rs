//! Requests, made of what tricks are made of.

use std::fmt::Write as _;

use oracle::{credential, decision::World};

use crate::shared::dice::Dice;

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
const NAMES: [&str; 48] = [
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
    "Script_Name",
    "X-Middleware-Subrequest",
    "X-Client-IP",
    "True_Client_IP",
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

/// What a client asks, before it is written down.
pub(super) struct Ask {
    pub(super) method: &'static str,
    pub(super) target: String,
    /// What makes up the head, `Host` and the fields that frame a body among them, as HTTP/1.1 has them.
    pub(super) fields: Vec<(String, String)>,
    pub(super) body: Sent,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Sent {
    Nothing,
    Sized,
    /// In one chunk, with trailers.
    Streamed,
}

pub(super) const BODY: &str = "body";
pub(super) const TRAILERS: [(&str, &str); 2] = [("X-Sum", "1"), ("X-User-Id", "1")];

impl Ask {
    pub(super) fn http1(&self) -> Vec<u8> {
        let mut text = format!("{} {} HTTP/1.1\r\n", self.method, self.target);
        let mut put = |(name, value): (&str, &str)| {
            for part in [name, ": ", value, "\r\n"] {
                text.push_str(part);
            }
        };
        self.fields.iter().for_each(|(name, value)| put((name, value)));
        match self.body {
            Sent::Nothing => text.push_str("\r\n"),
            Sent::Sized => {
                put(("Content-Length", "4"));
                text.push_str("\r\n");
                text.push_str(BODY);
            }
            Sent::Streamed => {
                put(("Transfer-Encoding", "chunked"));
                text.push_str("\r\n4\r\n");
                text.push_str(BODY);
                text.push_str("\r\n0\r\n");
                for (name, value) in TRAILERS {
                    let _ = write!(text, "{name}: {value}\r\n");
                }
                text.push_str("\r\n");
            }
        }
        text.into_bytes()
    }
}

pub(super) fn ask(dice: &mut Dice, world: &World) -> Ask {
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
    let mut fields = Vec::new();
    let mut put = |name: &str, value: &str| fields.push((name.to_owned(), value.to_owned()));
    if !dice.once_in(40) {
        let host = if dice.once_in(4) { dice.one(&HOSTS) } else { HOSTS[0] };
        put("Host", host);
    }
    if dice.once_in(40) {
        put("Host", dice.one(&HOSTS));
    }
    for _ in 0..dice.below(4) {
        let (name, value) = named(dice);
        put(name, value);
    }
    for _ in 0..dice.below(3) {
        let (name, value) = shows(dice, world);
        put(name, &value);
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
        put("Connection", dice.one(&options));
    }
    if dice.once_in(12) {
        let (name, value) = [
            ("Upgrade", "websocket"),
            ("Upgrade", "WebSocket"),
            ("Upgrade", "h2c"),
            ("TE", "trailers"),
            ("TE", "gzip, trailers"),
            ("Trailer", "X-Sum, X-User-Id"),
        ][dice.below(6)];
        put(name, value);
    }
    if dice.once_in(6) {
        let origins = ["https://app.example.com", "https://evil.example", "null"];
        put("Origin", dice.one(&origins));
    }
    if dice.once_in(10) {
        let methods = ["GET", "PUT", "DELETE", "x y"];
        put("Access-Control-Request-Method", dice.one(&methods));
    }
    let body = match (method, dice.below(4)) {
        ("POST" | "PUT", 0) => Sent::Streamed,
        ("POST" | "PUT", _) | (_, 0) => Sent::Sized,
        _ => Sent::Nothing,
    };
    Ask {
        method,
        target,
        fields,
        body,
    }
}

fn named(dice: &mut Dice) -> (&'static str, &'static str) {
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
    (name, value)
}

/// A cookie or a token of somebody's, or nearly.
fn shows(dice: &mut Dice, world: &World) -> (&'static str, String) {
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
        return ("Authorization", bearer);
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
    ("Cookie", cookie)
}
