//! The pure judges agree with the oracle (`fuzz/oracle`): on inputs made of what such tricks are made of, drawn anew each
//! time, and on all that the fuzzers kept (`fuzz/corpus`). Each property is stated where the fuzz targets have it, too:
//! `fuzz/src/NAME.rs`.

use std::{fs, path::Path};

use proptest::prelude::*;

use crate::shared::{
    answers, callbacks, configuration, credentials, forwarded, heads, paths, proxy_heads, requests, routes,
};

/// What the fuzzers kept of a target, and what was put there for them to begin with.
fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let files = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let inputs: Vec<_> = files.map(|file| fs::read(file.unwrap().path()).unwrap()).collect();
    assert!(inputs.len() >= 5, "{} is nearly empty", folder.display());
    inputs
}

#[test]
fn what_the_fuzzers_kept_holds() {
    type Property = fn(&[u8]);
    let properties: [(&str, Property); 10] = [
        ("answers", answers::holds),
        ("callbacks", callbacks::holds),
        ("configuration", configuration::holds),
        ("credentials", credentials::holds),
        ("forwarded", forwarded::holds),
        ("heads", heads::holds),
        ("paths", paths::holds),
        ("proxy_heads", proxy_heads::holds),
        ("requests", requests::holds),
        ("routes", |input| {
            routes::holds(input);
        }),
    ];
    for (target, holds) in properties {
        for input in corpus(target) {
            holds(&input);
        }
    }
}

const PATH: &str =
    "/([a-zA-Z0-9/.;%#?\\\\|^ ]|%2[eEfF5]|%[0-9a-fA-F]{2}|%C3%A9|%c0%a[ef]|\\.\\.|/|\\.\\.;){0,16}(\\?[a-z/.%#]{0,6})?";

/// Text out of pieces.
fn of(pieces: &'static [&'static str], most: usize) -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(pieces), 0..most).prop_map(|pieces| pieces.concat())
}

fn a_route() -> impl Strategy<Value = String> {
    let host = prop::sample::select(vec!["-", "-", "-", "h.example", "*.example", "*.h.example"]);
    let segment = prop::sample::select(vec!["/a", "/b", "/{p}", "/@me", "/c%20d", "/caf%C3%A9", "/x", "/api"]);
    let end = prop::sample::select(vec!["", "", "/", "/*", "/*"]);
    let methods = prop::sample::select(vec!["-", "-", "GET", "POST,PUT", "HEAD", "LOCK,FROB"]);
    let access = prop::sample::select(vec!["-", "-", "public", "optional", "admin", "admin,user"]);
    let kept = prop::sample::select(vec!["-", "-", "slashes", "slashes,bytes"]);
    (host, prop::collection::vec(segment, 0..3), end, methods, access, kept).prop_map(
        |(host, segments, end, methods, access, kept)| {
            let path = segments.concat() + end;
            let path = if path.is_empty() { "/" } else { &path };
            // Two parameters of one name are a mistake.
            let path = path.replacen("{p}", "{q}", 1);
            format!("{host} {path} {methods} {access} {kept}\n")
        },
    )
}

fn a_question() -> impl Strategy<Value = String> {
    let host = prop::sample::select(vec!["h.example", "a.h.example", "g.example", "other"]);
    let method = prop::sample::select(vec!["GET", "HEAD", "POST", "LOCK", "FROB", "get"]);
    let path = of(
        &[
            "/a",
            "/b",
            "/x",
            "/@me",
            "/%40me",
            "/c%20d",
            "/caf%C3%A9",
            "/",
            "%2Fa",
            "%2F",
            "%E9",
            "/..",
            "/%61",
            ";x",
            "/;",
            "/api",
            "/auth",
            "%3B",
        ],
        5,
    );
    (host, method, path).prop_map(|(host, method, path)| format!("{host} {method} /{}\n", path.trim_start_matches('/')))
}

const TARGETS: &[&str] = &[
    "/public",
    "/api",
    "/admin",
    "/optional",
    "/kept",
    "/moved",
    "/quiet",
    "/x",
    "/..",
    "/.",
    "//",
    ";",
    "%2e",
    "%2F",
    "%61dmin",
    "?q=/../",
    "/@me",
    "/open",
    "/7/items",
    "/auth",
    "%E9",
];

const LINES: &[&str] = &[
    "Host: app.example.com\n",
    "Host: APP.example.com.\n",
    "Host: admin.example.com\n",
    "Host: a.tenant.example.com:80\n",
    "Cookie: __Host-vestibule.session_token={a}\n",
    "Cookie: theme=1; __Host-vestibule.session_token={b}; x=y\n",
    "Cookie: __Host-vestibule.session_token={c}\n",
    "Cookie: a=b\n",
    "Cookie: \n",
    "Cookie: vestibule.x=1;;__HOST-vestibule.y\n",
    "Cookie: x__Host-vestibule.session_token={a}\n",
    "Cookie: __Host-vestibule.session_token={b}tail\n",
    "Cookie: __Host-vestibule.session_token=\"{b}\"\n",
    "Cookie:\t__Host-vestibule.session_token={a} ;\n",
    "X-User-Id: 1\n",
    "x_user_roles: admin\n",
    "X.Forwarded.For: 1\n",
    "X-Private: 1\n",
    "Accept: */*\n",
    "Proxy: x\n",
    "Connection: X-Private, cookie\n",
    "Connection: close, x-user-id,, Host\n",
    "Connection: Upgrade\n",
    "Upgrade: websocket\n",
    "TE: trailers\n",
    "Trailer: X-Sum, x_user_id, Accept, accept\n",
    "Expect: 100-continue\n",
    "Expect: else\n",
    "Origin: https://app.example.com\n",
    "Origin: https://evil.example\n",
    "Origin: null\n",
    "Sec-Fetch-Site: same-origin\n",
    "Sec-Fetch-Site: cross-site\n",
    "Referer: https://app.example.com/x\n",
    "Referer: https://evil.example/\n",
    "Access-Control-Request-Method: PUT\n",
    "Content-Length: 0\n",
];

const SHOWN: &[&str] = &[
    "Authorization: Bearer {a:bearer}\n",
    "Authorization: bearer {b:signed}\n",
    "Authorization: BEARER  {c:bearer} \n",
    "Authorization: Bearer {a:bearer}x\n",
    "Authorization: Basic {a:bearer}\n",
    "Authorization: Bearer {b}\n",
    "Authorization: Bearer {a:signed}tail\n",
    "Authorization: Bearer\n",
    "Host: app.example.com\n",
    "Host: admin.example.com\n",
    "Cookie: __Host-vestibule.session_token={a}\n",
    "Cookie: __Host-vestibule.session_token={b}\n",
    "Cookie: __Host-vestibule.session_token={a}; __Host-vestibule.session_token={b}\n",
    "Cookie: a=b\n",
    "Cookie: \n",
    "Cookie: __Host-vestibule.session_token={a};\n",
    "Cookie: __Host-vestibule.session_token =x; vestibule.session_token={a}\n",
    "Cookie: __Host-vestibule.session_token={a:signed}\n",
    "Cookie: __Host-vestibule.session_token_multi-x={a}\n",
    "\n",
    "\n",
    "\n",
    "\n!",
];

const CALLERS: &[&str] = &[
    "Host: app.example.com\r\n",
    "Host: app.example.com\r\n",
    "Host: evil.example\r\n",
    "Host: x.tenant.example.com:8080\r\n",
    "Host: [::1]\r\n",
    "Host: a b\r\n",
    "X-Forwarded-For: 203.0.113.7\r\n",
    "X-Forwarded-For: 6.6.6.6, 10.0.0.9\r\n",
    "X-Forwarded-For: [fd00::7]:1, ::ffff:10.1.2.3\r\n",
    "X-Forwarded-For: unknown, 10.2.2.2\r\n",
    "X-Forwarded-For: \r\n",
    "X-Forwarded-Host: admin.example.com\r\n",
    "X-Forwarded-Host: evil.example, app.example.com.\r\n",
    "X-Forwarded-Host: \u{e9}\r\n",
    "X-Forwarded-Proto: https\r\n",
    "X-Forwarded-Proto: http, WSS\r\n",
    "X-Forwarded-Proto: gopher\r\n",
    "Forwarded: for=1.2.3.4;host=evil.example\r\n",
    "X-Real-IP: 1.2.3.4\r\n",
];

const WIRE: &[&str] = &[
    "GET /x HTTP/1.1\r\n",
    "POST /y HTTP/1.1\r\n",
    "Host: a\r\n",
    "Content-Length: 3\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Upgrade: websocket\r\n",
    "\r\n",
    "\r\n",
    "\n",
    "#",
    "abc",
    "3\r\nabc\r\n",
    "3;x=y\r\nabc\r\n",
    "0\r\n\r\n",
    "X: #\r\n",
    "X: y\n",
    "\r",
    "Content-Length: 0\r\n",
];

const ANSWERS: &[&str] = &[
    "HTTP/1.1 200 OK\r\n",
    "HTTP/1.1 200 OK\r\n",
    "HTTP/1.0 200 OK\r\n",
    "HTTP/1.1 204 No Content\r\n",
    "HTTP/1.1 304 Not Modified\r\n",
    "HTTP/1.1 100 Continue\r\n\r\n",
    "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n",
    "HTTP/1.1 101 Switching Protocols\r\n",
    "Content-Length: 3\r\n",
    "Content-Length: 3, 3\r\n",
    "Content-Length: 4\r\n",
    "Content-Length: +3\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Transfer-Encoding: gzip, chunked\r\n",
    "Connection: close\r\n",
    "Connection: keep-alive\r\n",
    "X: y\r\n",
    "X: y\n",
    " folded\r\n",
    "\r\n",
    "\r\n",
    "abc",
    "3\r\nabc\r\n",
    "3;e\r\nabc\r\n",
    "3\nabc\r\n",
    "0\r\n\r\n",
    "0\r\nX: y\r\n\r\n",
    "\0",
];

const CALLBACKS: &[&str] = &[
    "/",
    "/",
    "//",
    "\\",
    "https:",
    "http:",
    "HTTPS://",
    "app.example.com",
    "admin.example.com:8443",
    "a.example.org",
    ".example.org",
    "evil.example",
    "@",
    ":443",
    "?",
    "#",
    "%2f",
    "%5c",
    "%09",
    "\t",
    "\n",
    " ",
    "\u{3002}",
    "javascript:",
    "myapp://",
    "x",
    "..",
    "\0",
    "[::1]",
];

const PROXIES: &[&str] = &[
    "PROXY ",
    "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n",
    "PROXY TCP6 2001:db8::1 ::1 65535 0\r\n",
    "PROXY UNKNOWN\r\n",
    "TCP4 ",
    "TCP6 ",
    "UNKNOWN",
    "192.0.2.1 ",
    "::ffff:1.2.3.4 ",
    "443 ",
    "065 ",
    "65536",
    "+1",
    "\r\n",
    "\r\n\r\n\0\r\nQUIT\n",
    "\u{21}\u{11}\0\u{c}",
    "\u{20}\0\0\0",
    "\u{21}\u{21}\0\u{24}",
    "abcdefghijkl",
    "abcdefghijklmnopqrstuvwxyz0123456789",
    "GET / HTTP/1.1\r\n",
];

const KEYS: &[&str] = &[
    "[server]\n",
    "public_url = 'https://app.example.com'\n",
    "public_url = 'http://x'\n",
    "trusted_proxies = ['0.0.0.0/0']\n",
    "[database]\n",
    "url = 'postgres://a:b@c/d'\n",
    "[auth]\n",
    "secret = 'a secret that only the tests use, and only here'\n",
    "secret = 'short'\n",
    "[mail]\n",
    "from = 'A <a@b.example>'\n",
    "smtp = 'smtp://u:p@h'\n",
    "[upstreams.app]\n",
    "endpoints = ['http://h']\n",
    "[[routes]]\n",
    "path = '/a/*'\n",
    "path = '/a/../b'\n",
    "upstream = 'app'\n",
    "auth = 'public'\n",
    "require = { roles = ['x'] }\n",
    "x",
    "=",
    "[",
    "\"",
    "'",
    "{",
    "\n",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn paths_have_one_form(target in PATH) {
        paths::holds(target.as_bytes());
    }

    #[test]
    fn what_leaves_is_what_the_oracle_lets_out(
        method in prop::sample::select(vec!["GET", "GET", "POST", "HEAD", "OPTIONS", "PUT", "TRACE", "FROB"]),
        target in of(TARGETS, 5),
        lines in of(LINES, 7),
    ) {
        let target = if target.starts_with('/') { target } else { format!("/{target}") };
        let head = format!("{method} {target} HTTP/1.1\nHost: app.example.com\n{lines}\n");
        // Every fourth has no other host than the lines say.
        let head = if lines.len() % 4 == 0 { head.replacen("Host: app.example.com\n", "", 1) } else { head };
        requests::holds(head.replace('\n', "\r\n").as_bytes());
    }

    #[test]
    fn who_shows_what_is_beyond_doubt_and_nothing_stale_is_remembered(heads in of(SHOWN, 14)) {
        credentials::holds(heads.as_bytes());
    }

    #[test]
    fn who_calls_is_whom_the_oracle_says(
        target in prop::sample::select(vec!["/x", "/x", "http://app.example.com/x", "https://app.example.com:80/", "http://u@app.example.com/"]),
        old in any::<bool>(),
        lines in of(CALLERS, 6),
    ) {
        let version = u8::from(!old);
        forwarded::holds(format!("GET {target} HTTP/1.{version}\r\n{lines}\r\n").as_bytes());
    }

    #[test]
    fn nothing_but_clean_lines_comes_to_the_parser(wire in of(WIRE, 14)) {
        heads::holds(wire.as_bytes());
    }

    #[test]
    fn an_answer_ends_in_one_place(how in 0_u8..8, said in of(ANSWERS, 12)) {
        answers::holds(&[&[how], said.as_bytes()].concat());
    }

    #[test]
    fn browsers_are_sent_to_trusted_origins_alone(target in of(CALLBACKS, 6)) {
        callbacks::holds(target.as_bytes());
    }

    #[test]
    fn a_proxy_speaks_for_one(said in of(PROXIES, 6)) {
        // As bytes: each character is one.
        let bytes: Vec<u8> = said.chars().filter_map(|c| u8::try_from(c).ok()).collect();
        proxy_heads::holds(&bytes);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn the_most_specific_route_is_found(
        table in prop::collection::vec(a_route(), 1..10),
        questions in prop::collection::vec(a_question(), 1..10),
    ) {
        // Routes that tie, or leave a hole, are no configuration: what is left of them may be one.
        let mut taken = String::new();
        for route in table {
            let more = format!("{taken}{route}");
            if routes::holds(more.as_bytes()) {
                taken = more;
            }
        }
        let is_one = routes::holds([&taken, "\n", &questions.concat()].concat().as_bytes());
        prop_assert!(is_one || taken.is_empty());
    }

    #[test]
    fn a_configuration_is_taken_whole_or_refused_with_a_reason(text in of(KEYS, 24)) {
        configuration::holds(text.as_bytes());
    }
}
