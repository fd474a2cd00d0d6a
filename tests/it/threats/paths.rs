//! PATH: a path has one form, and what was judged is what is sent.

use std::collections::BTreeSet;

use tokio::io::AsyncWriteExt;

use super::{BOTH, Dice, Via, ask};
use crate::{
    harness::{Gateway, SOON, Setup, eventually},
    http2::{PREFACE, SETTINGS, headers_frame},
};

/// The status that a raw target gets, byte for byte as it is.
async fn status_of(gateway: &Gateway, target: &[u8]) -> u16 {
    let behind = format!(" HTTP/1.1\r\nHost: {}\r\n\r\n", gateway.host());
    let head = [b"GET ", target, behind.as_bytes()].concat();
    super::sent(gateway, head).await.0.status()
}

#[tokio::test]
async fn path_01_path_02_dots_are_resolved_in_every_spelling() {
    let gateway = Gateway::start().await;
    let eve = gateway.signed_in("eve@example.com").await;
    let (one, two) = (
        ["."],
        ["..", "%2e%2e", "%2E%2E", ".%2e", "%2e.", ".%2E", "%2E.", "%2e%2E"],
    );
    let single = ["%2e", "%2E"];
    let mut targets = Vec::new();
    for up in two {
        targets.push(format!("/public/{up}/admin/x"));
        targets.push(format!("/public/a/{up}/{up}/admin/x"));
        targets.push(format!("/public//{up}//admin//x"));
        targets.push(format!("//public/{up}/admin/x"));
        targets.push(format!("/admin/a/{up}/x"));
        targets.push(format!("/admin/x/a/{up}"));
        for dot in one.iter().chain(&single) {
            targets.push(format!("/public/{dot}/{up}/{dot}/admin/{dot}/x"));
        }
    }
    for target in &targets {
        for via in BOTH {
            let status = ask(&gateway, via, "GET", target, &[]).await.status;
            assert_eq!(status, 401, "{via:?} {target}");
            let cookie = [("Cookie", eve.cookie.as_str())];
            let status = ask(&gateway, via, "GET", target, &cookie).await.status;
            assert_eq!(status, 403, "{via:?} {target}");
        }
    }
    for up in two {
        for target in [
            format!("/{up}"),
            format!("/{up}/admin"),
            format!("/public/{up}/{up}/x"),
            format!("/./{up}/public/x"),
        ] {
            for via in BOTH {
                assert_eq!(
                    ask(&gateway, via, "GET", &target, &[]).await.status,
                    400,
                    "{via:?} {target}"
                );
            }
        }
    }
    assert_eq!(gateway.upstream().requests().len(), 0);
    let root = gateway.signed_in_as("root@example.com", &["admin"]).await;
    for target in &targets {
        let cookie = [("Cookie", root.cookie.as_str())];
        assert_eq!(
            ask(&gateway, Via::Http1, "GET", target, &cookie).await.status,
            200,
            "{target}"
        );
        let sent = gateway.upstream().last().head.target().to_owned();
        assert!(sent == "/admin/x" || sent == "/admin/x/", "{target} became {sent}");
    }
}

#[tokio::test]
async fn path_04_path_06_path_09_path_11_what_can_be_read_in_two_ways_is_no_path() {
    let gateway = Gateway::start().await;
    let root = gateway.signed_in_as("root@example.com", &["admin"]).await;
    let mut targets: Vec<Vec<u8>> = [
        // Separators (PATH-04).
        "/public/..%2fadmin",
        "/public/..%2Fadmin",
        "/public%2f..%2fadmin",
        "/public%2Fx",
        "/%2fadmin",
        "/public/%2e%2e%2fadmin",
        "/public/..%5cadmin",
        "/public/..%5Cadmin",
        "/public\\..\\admin",
        "/public/\\",
        "/public/%5c%2e%2e%5cadmin",
        // Overlong forms of them and of dots.
        "/public/%c0%af",
        "/public/..%c0%afadmin",
        "/public/%c0%ae%c0%ae/admin",
        "/public/%e0%80%af",
        "/public/%f0%80%80%af",
        "/public/%c1%9c",
        // Parameters of dot segments (PATH-06).
        "/public/..;/admin",
        "/public/..;x=1/admin",
        "/public/..%3b/admin",
        "/public/..%3B/admin",
        "/public/.;/admin",
        "/public/.;x",
        "/public/%2e%2e;/admin",
        "/public/%2e.%3bx/admin",
        "/public/..;",
        // Bytes that are no text (PATH-09).
        "/admin/x%00.png",
        "/public/%00",
        "/public/%0d%0a",
        "/public/%0a",
        "/public/%09",
        "/public/%1f",
        "/public/%7f",
        "/public/%ff",
        "/public/%80",
        "/public/%c3",
        "/public/%ed%a0%80",
        "/public/%f4%90%80%80",
        // Escapes that are none (PATH-11).
        "/public/%zz",
        "/public/%",
        "/public/%2",
        "/public/%2g",
        "/public/%%32e",
        "/public/%u002e%u002e/admin",
        "/public/%-1",
        "/public/% 20",
        "/public/x%",
    ]
    .iter()
    .map(|target| target.as_bytes().to_vec())
    .collect();
    // Raw bytes that no target may have.
    for byte in (0..0x20).chain([0x7f]) {
        if !matches!(byte, b'\r' | b'\n') {
            targets.push([b"/public/x", &[byte][..], b"y"].concat());
        }
    }
    for target in &targets {
        let shown = String::from_utf8_lossy(target);
        let status = status_of(&gateway, target).await;
        assert_eq!(status, 400, "{shown:?}");
        let signed = [target.as_slice(), b"?x"].concat();
        let head = format!(
            " HTTP/1.1\r\nHost: {}\r\nCookie: {}\r\n\r\n",
            gateway.host(),
            root.cookie
        );
        let answer = super::sent(&gateway, [b"GET ", &signed[..], head.as_bytes()].concat())
            .await
            .0;
        assert_eq!(answer.status(), 400, "{shown:?}");
    }
    assert_eq!(gateway.upstream().requests().len(), 0);

    // The same over HTTP/2, as bytes: nothing of it arrives, or each stream is refused.
    for targets in targets.chunks(40) {
        let mut sent = [PREFACE, SETTINGS].concat();
        for (number, target) in targets.iter().enumerate() {
            let Ok(target) = std::str::from_utf8(target) else {
                continue;
            };
            let fields = [
                (":method", "GET"),
                (":scheme", "http"),
                (":authority", gateway.host()),
                (":path", target),
            ];
            sent.extend(headers_frame(1 + 2 * u32::try_from(number).unwrap(), &fields));
        }
        let mut raw = gateway.raw().await;
        raw.send(&sent).await;
        // One that is fine comes last, on a connection of its own: by then all of those were seen.
        assert_eq!(ask(&gateway, Via::Http2, "GET", "/public/fine", &[]).await.status, 200);
    }
    let seen: BTreeSet<String> = gateway
        .upstream()
        .requests()
        .iter()
        .map(|seen| seen.head.target().to_owned())
        .collect();
    assert_eq!(seen, BTreeSet::from(["/public/fine".to_owned()]));
}

#[tokio::test]
async fn path_04_path_06_ordinary_paths_pass_byte_for_byte() {
    let gateway = Gateway::start().await;
    let long = format!("/public/{}?{}", "p".repeat(4000), "q".repeat(8 << 10));
    for target in [
        "/public/{id}/[x]/'y'/~z/@me/a+b/%20/%2B/a:b,c;d=1!$&()*",
        "/public/a;v=1/b;w=2",
        "/public/x;..",
        "/public/..x/x../...",
        "/public/.well-known/.x",
        "/public/%E2%82%AC/%F0%9F%99%82/%C3%A9",
        "/public/%252e%252e/%252f",
        "/public/100%25",
        "/public/a%3Bb",
        "/public/a|b^c",
        "/public/x?a=%00&b=%2F..%2f&c=\\&d=//;'{}[]@~+%zz&&%",
        "/public/?",
        "/public?x",
        long.as_str(),
    ] {
        for via in BOTH {
            // Not all of it is a URI to the library of the client.
            if via == Via::Http2 && (target.contains('\\') || target.contains('|') || target.contains('{')) {
                continue;
            }
            let saw = ask(&gateway, via, "GET", target, &[]).await;
            assert_eq!((saw.status, saw.text()), (200, format!("GET {target}")), "{via:?}");
        }
    }
}

/// All that an application may make of a path: with escapes decoded or not, parameters dropped or not, backslashes taken
/// for slashes or not.
fn readings(path: &str) -> Vec<String> {
    let decoded = percent_encoding::percent_decode_str(path)
        .decode_utf8_lossy()
        .into_owned();
    let mut readings = vec![path.to_owned(), decoded];
    for reading in readings.clone() {
        readings.push(reading.replace('\\', "/"));
    }
    for reading in readings.clone() {
        let plain = reading.split('/').map(|segment| segment.split(';').next().unwrap());
        readings.push(plain.collect::<Vec<_>>().join("/"));
    }
    readings.iter().map(|reading| resolved(reading)).collect()
}

fn resolved(path: &str) -> String {
    let mut out: Vec<&str> = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => {
                out.pop();
            }
            segment => out.push(segment),
        }
    }
    format!("/{}", out.join("/"))
}

/// Those of the test below.
const TARGETS: usize = 10_000;

/// Behind an open door, ten thousand targets of what tricks are made of: an application may read them as it likes, and is
/// never asked for what is guarded.
#[tokio::test]
async fn path_13_what_a_stranger_gets_through_is_nothing_guarded_however_it_is_read() {
    let routes = r"
        routes = [
            { path = '/*', upstream = 'app', auth = 'public' },
            { path = '/admin/*', upstream = 'app', require = { roles = ['admin'] } },
            { path = '/a/b/*', upstream = 'app' },
        ]";
    let gateway = Setup::default().with(routes).start().await;
    let pieces = [
        "/", "/", "/", ".", "..", ";", "%2e", "%2E", "%2f", "%2F", "%5c", "\\", "%", "?", "#", "admin", "%61dmin", "a",
        "b", "%61", "//", "%25", "2e", "%3b", "%3B", "x", "=", "0", "%00", "%c0%af", "%ff", "+", "%20",
    ];
    let (mut dice, mut client) = (Dice(2026), gateway.raw().await);
    let mut passed = 0;
    for _ in 0..TARGETS {
        let mut target = "/".to_owned();
        for _ in 0..=dice.below(7) {
            target.push_str(dice.one_of(&pieces));
        }
        client
            .send(format!("GET {target} HTTP/1.1\r\nHost: {}\r\n\r\n", gateway.host()))
            .await;
        let answer = client.answer().await;
        match answer.status() {
            200 => {
                passed += 1;
                let forwarded = answer.text().strip_prefix("GET ").unwrap().to_owned();
                let path = forwarded.split('?').next().unwrap();
                for reading in readings(path) {
                    let guarded = ["/admin", "/a/b"].into_iter().any(|guarded| {
                        reading
                            .strip_prefix(guarded)
                            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
                    });
                    assert!(
                        !guarded,
                        "{target} was forwarded as {forwarded}, which may be read as {reading}"
                    );
                }
                let again = vestibule::policy::path::NormalPath::parse(&forwarded).unwrap();
                assert!(
                    again.is_unchanged(),
                    "{target} was forwarded as {forwarded}, which has another form"
                );
            }
            400 | 401 => {}
            other => panic!("{target}: {other}"),
        }
        if answer.head.one("connection") == Some("close") {
            client = gateway.raw().await;
        }
    }
    assert!(passed > TARGETS / 20, "only {passed} passed");
}

/// What one protocol forwards, the other forwards as well, in the same form.
#[tokio::test]
async fn path_13_both_protocols_have_one_idea_of_a_path() {
    let gateway = Gateway::start().await;
    let pieces = [
        "/", ".", "..", ";", "%2e", "%2f", "%5c", "%", "public", "admin", "a", "%61", "//", "%25", "2e", "?", "b=c",
    ];
    let mut dice = Dice(7);
    let targets: Vec<String> = (0..300)
        .map(|_| {
            let mut target = "/public/".to_owned();
            for _ in 0..5 {
                target.push_str(dice.one_of(&pieces));
            }
            target
        })
        .collect();
    for target in &targets {
        status_of(&gateway, target.as_bytes()).await;
    }
    let forwarded = || {
        let requests = gateway.upstream().requests();
        let mut targets: Vec<_> = requests.iter().map(|seen| seen.head.target().to_owned()).collect();
        targets.sort_unstable();
        targets
    };
    let by_first = forwarded();
    assert!(by_first.len() > 20, "{}", by_first.len());
    let mut clients = Vec::new();
    for targets in targets.chunks(50) {
        let mut sent = [PREFACE, SETTINGS].concat();
        for (number, target) in targets.iter().enumerate() {
            let fields = [
                (":method", "GET"),
                (":scheme", "http"),
                (":authority", gateway.host()),
                (":path", target.as_str()),
            ];
            sent.extend(headers_frame(1 + 2 * u32::try_from(number).unwrap(), &fields));
        }
        let mut client = gateway.raw().await;
        client.send(&sent).await;
        clients.push(client);
    }
    let twice: Vec<String> = by_first
        .iter()
        .flat_map(|target| [target.clone(), target.clone()])
        .collect();
    // Each request has its line in the log when it was answered.
    eventually(SOON, async || gateway.log().lines().count() >= 2 * targets.len()).await;
    assert_eq!(forwarded(), twice);
    drop(clients);
}

/// Over HTTP/2 a path need not even begin with a slash: whoever strips what is not there would match no rule, and serve.
#[tokio::test]
async fn route_07_over_http2_what_does_not_begin_with_a_slash_is_no_path() {
    let gateway = Gateway::start().await;
    let targets = [
        "admin/x",
        "public/x",
        "public/../admin/x",
        "",
        "*",
        "?/public/x",
        "#/public/x",
        "\\public\\x",
        "%2fpublic%2fx",
        "http://public.example.com/public/x",
        "//",
        ".",
        "../public/x",
        " /public/x",
    ];
    for target in targets {
        let fields = [
            (":method", "GET"),
            (":scheme", "http"),
            (":authority", gateway.host()),
            (":path", target),
        ];
        let fine = [
            (":method", "GET"),
            (":scheme", "http"),
            (":authority", gateway.host()),
            (":path", "/public/fine"),
        ];
        let served = gateway.upstream().requests().len();
        let mut client = gateway.raw().await;
        client
            .send([PREFACE, SETTINGS, &headers_frame(1, &fields)].concat())
            .await;
        client.stream.shutdown().await.unwrap();
        let _ = client.rest().await;
        assert_eq!(gateway.upstream().requests().len(), served, "{target:?}");
        // The same connection in its ordinary form is served.
        let mut client = gateway.raw().await;
        client
            .send([PREFACE, SETTINGS, &headers_frame(1, &fine)].concat())
            .await;
        eventually(SOON, async || gateway.upstream().requests().len() == served + 1).await;
    }
}
