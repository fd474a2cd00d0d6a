//! The client against real servers on loopback, so with `allow_private`, but where that is what is tested.

mod server;

use http::header::{AUTHORIZATION, CONTENT_TYPE};
use proptest::prelude::*;
use tokio::time::sleep;

use self::server::{Server, Tls};
use super::*;
use crate::chain::Chain;

/// What an operator of a test's provider would allow.
fn lenient() -> Rules {
    Rules {
        allow_insecure: true,
        allow_private: true,
        timeout: Duration::from_secs(20),
        ca: None,
    }
}

fn strict() -> Rules {
    Rules {
        allow_insecure: false,
        allow_private: false,
        ..lenient()
    }
}

/// For tests in which the limit is what ends the exchange.
fn impatient() -> Rules {
    Rules {
        timeout: Duration::from_millis(300),
        ..lenient()
    }
}

async fn get(rules: Rules, url: &str) -> Result<Response<Vec<u8>>, OutboundError> {
    let request = Request::get(url).body(Vec::new()).unwrap();
    Outbound::new(rules).unwrap().send(request).await
}

fn text(answer: &Response<Vec<u8>>) -> &str {
    str::from_utf8(answer.body()).unwrap()
}

#[tokio::test]
async fn an_answer_comes_back_whatever_its_status() {
    let server = Server::start(|mut peer| {
        peer.request();
        peer.say("HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}");
    });
    let request = Request::post(server.http("/token?tenant=1"))
        .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
        .header(ACCEPT_ENCODING, "gzip")
        .body(b"code=abc".to_vec());
    let answer = Outbound::new(lenient()).unwrap().send(request.unwrap()).await.unwrap();
    assert_eq!((answer.status(), text(&answer)), (StatusCode::BAD_REQUEST, "{}"));
    assert_eq!(answer.headers()[CONTENT_TYPE], "application/json");

    let sent = server.requests().remove(0);
    assert!(
        sent.starts_with("POST /token?tenant=1 HTTP/1.1\r\n") && sent.ends_with("\r\n\r\ncode=abc"),
        "{sent}"
    );
    assert!(sent.contains(concat!("user-agent: vestibule/", env!("CARGO_PKG_VERSION"), "\r\n")));
    assert!(sent.contains(&format!("host: localhost:{}\r\n", server.port())) && !sent.contains("encoding"));
}

#[tokio::test]
async fn https_is_asked_where_ca_names_the_authority() {
    let (tls, ca) = tls_for("localhost");
    let server = Server::start_tls(tls, |mut peer| {
        peer.request();
        peer.ok("hello");
    });
    let rules = Rules {
        allow_insecure: false,
        ca: Some(ca),
        ..lenient()
    };
    let answer = get(rules, &server.https("/")).await.unwrap();
    assert_eq!(text(&answer), "hello");

    let error = get(lenient(), &server.https("/")).await.unwrap_err();
    assert!(
        matches!(error, OutboundError::Untrusted { .. }) && error.to_string().contains("`ca`"),
        "{}",
        Chain(&error)
    );
    assert_eq!(server.requests().len(), 1, "nothing is sent to whom nobody vouches for");
}

#[tokio::test]
async fn a_certificate_for_another_name_is_refused() {
    let (tls, ca) = tls_for("idp.example.com");
    let server = Server::start_tls(tls, |mut peer| {
        peer.request();
        peer.ok("hello");
    });
    let rules = Rules {
        ca: Some(ca),
        ..lenient()
    };
    let error = get(rules, &server.https("/")).await.unwrap_err();
    assert!(matches!(error, OutboundError::Connect { .. }), "{error:?}");
    assert!(
        Chain(&error).to_string().contains("not valid for name"),
        "{}",
        Chain(&error)
    );
    assert!(server.requests().is_empty());
}

#[tokio::test]
async fn http_is_not_asked() {
    let server = Server::start(|mut peer| peer.ok("hello"));
    let rules = Rules {
        allow_insecure: false,
        ..lenient()
    };
    let error = get(rules, &server.http("/")).await.unwrap_err();
    assert!(matches!(error, OutboundError::Insecure { .. }), "{error:?}");
    assert!(error.to_string().contains("`allow_insecure = true`"), "{error}");
    assert_eq!(server.connections(), 0);
}

#[tokio::test]
async fn a_private_address_is_not_connected_to_under_whatever_name() {
    let server = Server::start(|mut peer| peer.ok("hello"));
    let rules = Rules {
        allow_insecure: true,
        ..strict()
    };
    for host in [
        "localhost",
        "LOCALHOST",
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "0",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[64:ff9b::127.0.0.1]",
    ] {
        let url = format!("http://{host}:{}/", server.port());
        let error = get(rules.clone(), &url).await.unwrap_err();
        assert!(
            matches!(error, OutboundError::NotPublic { .. }),
            "{host}: {}",
            Chain(&error)
        );
        assert!(error.to_string().contains("`allow_private = true`"), "{error}");
    }
    assert_eq!(server.connections(), 0);
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let target = Server::start(|mut peer| peer.ok("secret"));
    let location = target.http("/");
    for status in [301, 302, 303, 307, 308] {
        let location = location.clone();
        let server = Server::start(move |mut peer| {
            peer.request();
            peer.say(&format!(
                "HTTP/1.1 {status} Moved\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n"
            ));
        });
        let error = get(lenient(), &server.http("/")).await.unwrap_err();
        assert!(
            matches!(&error, OutboundError::Redirected { status: got, .. } if *got == status),
            "{error:?}"
        );
    }
    assert_eq!(target.connections(), 0);
}

#[tokio::test]
async fn an_answer_may_have_256_kib_and_not_a_byte_more() {
    for (len, fits) in [
        (MAX_ANSWER_BYTES, true),
        (MAX_ANSWER_BYTES + 1, false),
        (1024 * 1024, false),
    ] {
        let server = Server::start(move |mut peer| {
            peer.request();
            peer.ok(&"x".repeat(len));
        });
        let answer = get(lenient(), &server.http("/")).await;
        match answer {
            Ok(answer) => assert!(fits && answer.body().len() == len, "{len}"),
            Err(OutboundError::TooLarge { .. }) => assert!(!fits, "{len}"),
            Err(error) => panic!("{len}: {}", Chain(&error)),
        }
    }
}

#[tokio::test]
async fn an_answer_that_announces_too_much_is_not_waited_for() {
    let server = Server::start(|mut peer| {
        peer.request();
        peer.say("HTTP/1.1 200 OK\r\ncontent-length: 1048576\r\n\r\n");
        peer.until_closed();
    });
    let error = get(lenient(), &server.http("/")).await.unwrap_err();
    assert!(matches!(error, OutboundError::TooLarge { .. }), "{error:?}");
}

#[tokio::test]
async fn an_endless_answer_is_cut() {
    let server = Server::start(|mut peer| {
        peer.request();
        peer.say("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
        while peer.say("400\r\n") && peer.say(&"x".repeat(0x400)) && peer.say("\r\n") {}
    });
    let error = get(lenient(), &server.http("/")).await.unwrap_err();
    assert!(matches!(error, OutboundError::TooLarge { .. }), "{error:?}");

    let server = Server::start(|mut peer| {
        peer.request();
        peer.say("HTTP/1.1 200 OK\r\n");
        while peer.say("x-more: and more\r\n") {}
    });
    let error = get(lenient(), &server.http("/")).await.unwrap_err();
    assert!(matches!(error, OutboundError::Broken { .. }), "{error:?}");
}

#[tokio::test]
async fn a_peer_is_asked_only_so_much_at_once() {
    let silent = Server::start(|mut peer| {
        peer.request();
        peer.until_closed();
    });
    let outbound = Outbound::new(Rules {
        timeout: Duration::from_secs(4),
        ..lenient()
    })
    .unwrap();
    let ask = || outbound.send(Request::get(silent.http("/")).body(Vec::new()).unwrap());
    let all = futures_util::future::join_all((0..AT_MOST + 3).map(|_| ask()));
    let looking = async {
        while silent.connections() < AT_ONCE {
            sleep(Duration::from_millis(20)).await;
        }
        sleep(Duration::from_millis(200)).await;
        silent.connections()
    };
    let (asked, connections) = tokio::join!(all, looking);
    let mut ends = [0, 0];
    for error in asked.into_iter().map(Result::unwrap_err) {
        match error {
            OutboundError::Timeout { .. } => ends[0] += 1,
            OutboundError::Busy { .. } => ends[1] += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((ends, connections), ([AT_ONCE, AT_MOST + 3 - AT_ONCE], AT_ONCE));
    assert!(
        matches!(ask().await, Err(OutboundError::Timeout { .. })),
        "a place again"
    );
}

#[tokio::test]
async fn a_slow_server_is_waited_for_no_longer_than_the_limit() {
    let silent = Server::start(|mut peer| {
        peer.request();
        peer.until_closed();
    });
    let trickling = Server::start(|mut peer| {
        peer.request();
        peer.say("HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n");
        while !peer.closed_within(Duration::from_millis(20)) && peer.say("x") {}
    });
    for url in [silent.http("/"), trickling.http("/"), silent.https("/")] {
        let error = get(impatient(), &url).await.unwrap_err();
        assert!(
            matches!(error, OutboundError::Timeout { .. }),
            "{url}: {}",
            Chain(&error)
        );
    }
}

#[tokio::test]
async fn a_connection_is_used_again() {
    let server = Server::start(|mut peer| {
        while peer.request() {
            peer.ok("hello");
        }
    });
    let outbound = Outbound::new(lenient()).unwrap();
    for _ in 0..5 {
        let request = Request::get(server.http("/")).body(Vec::new()).unwrap();
        outbound.clone().send(request).await.unwrap();
    }
    assert_eq!((server.requests().len(), server.connections()), (5, 1));
}

/// A code is good once: a provider that gets it twice takes the second for theft (RFC 6749, section 4.1.2).
#[tokio::test]
async fn what_may_have_arrived_is_not_sent_again() {
    let server = Server::start(|mut peer| {
        if peer.request() {
            peer.ok("hello");
            peer.request();
        }
    });
    let outbound = Outbound::new(lenient()).unwrap();
    let post = || Request::post(server.http("/token")).body(b"code=abc".to_vec()).unwrap();
    outbound.send(post()).await.unwrap();
    let error = outbound.send(post()).await.unwrap_err();
    assert!(matches!(error, OutboundError::Broken { .. }), "{error:?}");
    assert_eq!((server.requests().len(), server.connections()), (2, 1));
}

#[tokio::test]
async fn a_connection_that_was_closed_meanwhile_is_replaced() {
    let closing = || {
        Server::start(|mut peer| {
            if peer.request() {
                peer.ok("hello");
            }
        })
    };
    // In turn: the exchange with one server is time enough to hear that the other has closed.
    let servers = [closing(), closing()];
    let outbound = Outbound::new(lenient()).unwrap();
    for served in 1..=3 {
        for server in &servers {
            let request = Request::post(server.http("/token")).body(b"code=abc".to_vec()).unwrap();
            outbound.send(request).await.unwrap();
            server.closed(served);
        }
    }
    for server in servers {
        assert_eq!((server.requests().len(), server.connections()), (3, 3));
    }
}

#[tokio::test]
async fn an_error_names_whom_was_asked_and_no_secret() {
    let closing = Server::start(|mut peer| {
        peer.request();
    });
    let babbling = Server::start(|mut peer| {
        peer.request();
        peer.say("hunter2 hunter2\r\nhunter2: hunter2\r\n\r\nhunter2");
    });
    let cut_off = Server::start(|mut peer| {
        peer.request();
        peer.say("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhunter2");
    });
    let redirecting = Server::start(|mut peer| {
        peer.request();
        peer.say("HTTP/1.1 302 Found\r\nlocation: https://hunter2/\r\ncontent-length: 7\r\n\r\nhunter2");
    });
    let hanging_up = Server::start(|_| ());
    let nobody = Server::start(|_| ()).port_when_gone();
    for url in [
        closing.http("/token?code=hunter2"),
        babbling.http("/token?code=hunter2"),
        cut_off.http("/token?code=hunter2"),
        redirecting.http("/token?code=hunter2"),
        hanging_up.https("/token?code=hunter2"),
        format!("http://127.0.0.1:{nobody}/token?code=hunter2"),
        format!("http://hunter2:hunter2@localhost:{nobody}/token?code=hunter2#hunter2"),
    ] {
        let request = Request::post(&url)
            .header(AUTHORIZATION, "Bearer hunter2")
            .body(b"code=hunter2".to_vec());
        let outbound = Outbound::new(lenient()).unwrap();
        let error = outbound.send(request.unwrap()).await.unwrap_err();
        let said = format!("{} {error:?} {outbound:?}", Chain(&error));
        assert!(!said.contains("hunter2"), "{said}");
        assert!(said.contains("/token") && said.contains("://"), "{said}");
    }
}

#[test]
fn what_can_be_judged_without_looking_up_a_name_is() {
    let check = |url: &str| Outbound::new(strict()).unwrap().check(&Url::parse(url).unwrap());
    assert!(check("https://accounts.example.com/token?x=1").is_ok());
    assert!(check("https://93.184.216.34:8443/").is_ok());
    assert!(check("https://[2606:4700::6810:84e5]/").is_ok());
    // That it is private will be seen when it is looked up.
    assert!(check("https://localhost/").is_ok());
    for (url, says) in [
        ("http://accounts.example.com/", "allow_insecure"),
        ("https://10.0.0.1/", "allow_private"),
        ("https://１２７。1/", "allow_private"),
        ("https://0x7f.1/", "allow_private"),
        ("https://[::ffff:10.0.0.1]/", "allow_private"),
        ("https://ada@example.com/", "user name"),
        ("https://:pw@example.com/", "user name"),
        ("https://example.com:0/", "port"),
        ("file:///etc/passwd", "only https can be asked, not file"),
        ("ftp://example.com/", "only https can be asked, not ftp"),
        ("unix:/run/x.sock", "only https can be asked, not unix"),
    ] {
        let error = check(url).unwrap_err().to_string();
        assert!(error.contains(says), "{url}: {error}");
    }
}

#[tokio::test]
async fn what_is_no_url_is_not_sent() {
    for uri in ["/token", "*", "localhost:80", "ftp://localhost/"] {
        let error = get(lenient(), uri).await.unwrap_err();
        assert!(
            matches!(error, OutboundError::NotAUrl | OutboundError::Scheme { .. }),
            "{uri}: {error:?}"
        );
    }
}

#[test]
fn a_ca_that_is_none_keeps_the_gateway_from_starting() {
    let rules = Rules {
        ca: Some(vec![CertificateDer::from(b"hello".to_vec())]),
        ..strict()
    };
    let error = Outbound::new(rules).unwrap_err();
    assert!(
        error.to_string().contains("can't be an authority's"),
        "{}",
        Chain(&error)
    );
}

/// A certificate for `name`, and what makes it trusted.
fn tls_for(name: &str) -> (Tls, Vec<CertificateDer<'static>>) {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    (Tls::new(&made), vec![made.cert.der().clone()])
}

proptest! {
    /// The connector connects to a literal without asking the resolver: none may be left where `check` saw a name.
    #[test]
    fn a_name_is_never_an_address(host in "[0-9a-fA-FxX.:]{1,20}|\\[[0-9a-f:.%]{1,20}\\]|\\PC{1,12}") {
        if let Ok(url) = Url::parse(&format!("https://{host}/")) && let Some(Host::Domain(name)) = url.host() {
            prop_assert!(name.parse::<IpAddr>().is_err(), "{}", name);
            if let Ok(uri) = Uri::try_from(url.as_str()) {
                prop_assert_eq!(uri.host(), Some(name));
            }
        }
    }

    #[test]
    fn an_address_is_judged_alike_in_every_spelling(bits: u32) {
        let outbound = Outbound { rules: strict(), ..OUTBOUND.clone() };
        let address = std::net::Ipv4Addr::from_bits(bits);
        let [a, b, c, d] = address.octets();
        let rest = bits & 0x00ff_ffff;
        for host in [
            address.to_string(),
            bits.to_string(),
            format!("{bits:#x}"),
            format!("0{bits:o}"),
            format!("{a}.{rest}"),
            format!("{a:#x}.0{b:o}.{c}.{d}."),
            format!("[::ffff:{address}]"),
            format!("[64:ff9b::{address}]"),
        ] {
            let judged = outbound.check(&Url::parse(&format!("https://{host}/")).unwrap());
            prop_assert_eq!(judged.is_ok(), address::is_public(address.into()), "{}", host);
        }
    }
}

/// One for all cases: the system's certificates take a while to read.
static OUTBOUND: std::sync::LazyLock<Outbound> = std::sync::LazyLock::new(|| Outbound::new(strict()).unwrap());
