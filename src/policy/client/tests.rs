use proptest::prelude::*;

use super::*;
use crate::{
    config::Origin,
    policy::connection::{CertificateNames, Tls},
};

fn rules(public_url: &str, trusted: &[&str], hosts: &[&str]) -> ClientRules {
    let public = Origin::parse(public_url).unwrap();
    ClientRules {
        trusted_proxies: trusted.iter().map(|net| net.parse().unwrap()).collect(),
        trusts_unix: false,
        public_scheme: if public.is_https() { Scheme::Https } else { Scheme::Http },
        loopback: public.is_loopback(),
        any_host: hosts.contains(&"*"),
        hosts: hosts.iter().map(|host| (*host).into()).collect(),
        below: HashSet::new(),
        public: Host::of(&public),
    }
}

fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
    lines
        .iter()
        .map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()))
        .collect()
}

fn from(peer: &str) -> Connection {
    Connection::plain(Peer::of(SocketAddr::new(peer.parse().unwrap(), 5000)))
}

fn facts(rules: &ClientRules, peer: &str, uri: &str, lines: &[(&'static str, &str)]) -> Result<ClientFacts, HostError> {
    judge(
        &from(peer),
        Version::HTTP_11,
        &uri.parse().unwrap(),
        &headers(lines),
        rules,
    )
}

#[test]
fn a_target_of_another_protocol_is_none() {
    let rules = rules("https://a.example", &[], &[]);
    let host = [("host", "a.example")];
    for uri in [
        "ftp://a.example/x",
        "gopher://a.example/x",
        "ws://a.example/x",
        "httpx://a.example/x",
    ] {
        assert_eq!(
            facts(&rules, "192.0.2.1", uri, &host).unwrap_err(),
            HostError::Bad,
            "{uri}"
        );
    }
    for uri in ["http://a.example/x", "HTTPS://a.example/x", "/x"] {
        assert!(facts(&rules, "192.0.2.1", uri, &host).is_ok(), "{uri}");
    }
}

#[test]
fn every_form_of_a_host_is_the_same_host() {
    let rules = rules("https://app.example.com", &[], &["admin.example"]);
    for written in [
        "admin.example",
        "ADMIN.example",
        "admin.example.",
        "Admin.Example.:443",
        "admin.example:8080",
        "admin.example:",
    ] {
        let facts = facts(&rules, "192.0.2.1", "/", &[("host", written)]).unwrap();
        assert_eq!(facts.host.name(), "admin.example", "{written}");
    }
    let facts = facts(&rules, "192.0.2.1", "/", &[("host", "App.Example.COM.:8443")]).unwrap();
    assert_eq!(facts.host.value(), "app.example.com:8443");
    assert_eq!(facts.host.port(), Some(8443));
    let facts = self::facts(&rules, "192.0.2.1", "/", &[("host", "app.example.com:0443")]).unwrap();
    assert_eq!(facts.host.value(), "app.example.com:443");
}

#[test]
fn a_request_has_exactly_one_host() {
    let rules = rules("https://app.example.com", &[], &["*"]);
    for lines in [
        &[][..],
        &[("host", "app.example.com"), ("host", "app.example.com")],
        &[("host", "a.example"), ("host", "b.example")],
        &[("host", "a, b")],
        &[("host", "a b")],
        &[("host", "")],
        &[("host", ".")],
        &[("host", "a..b")],
        &[("host", ".a")],
        &[("host", "user@a.example")],
        &[("host", "a.example:x")],
        &[("host", "a.example:+1")],
        &[("host", "a.example:70000")],
        &[("host", "a.example:1:2")],
        &[("host", "[::1")],
        &[("host", "[::1]x")],
        &[("host", "[nonsense]")],
        &[("host", "::1")],
        &[("host", "a.example/x")],
        &[("host", "a%2eexample")],
        &[("host", "a\\b")],
    ] {
        assert_eq!(
            facts(&rules, "192.0.2.1", "/", lines).unwrap_err(),
            HostError::Bad,
            "{lines:?}"
        );
    }
    assert_eq!(
        facts(&rules, "192.0.2.1", "/", &[("host", "[::0:1]:80")])
            .unwrap()
            .host
            .name(),
        "[::1]"
    );
    assert_eq!(
        facts(&rules, "192.0.2.1", "/", &[("host", "[::1]:80")])
            .unwrap()
            .host
            .value(),
        "[::1]:80"
    );
}

#[test]
fn the_targets_authority_counts_and_must_agree() {
    let rules = rules("https://app.example.com", &[], &[]);
    let ok = [("host", "app.example.com")];
    for uri in [
        "http://APP.example.com/x",
        "https://app.example.com/x",
        "http://app.example.com:80/",
    ] {
        assert_eq!(
            facts(&rules, "192.0.2.1", uri, &ok).unwrap().host.name(),
            "app.example.com"
        );
    }
    for uri in [
        "http://internal/",
        "http://app.example.com:81/",
        "https://app.example.com:80/",
        "http://u@app.example.com/",
    ] {
        assert_eq!(
            facts(&rules, "192.0.2.1", uri, &ok).unwrap_err(),
            HostError::Bad,
            "{uri}"
        );
    }
    assert_eq!(
        facts(&rules, "192.0.2.1", "http://app.example.com/", &[]).unwrap_err(),
        HostError::Bad
    );
    let two = Uri::from_static("https://app.example.com/x");
    let peer = from("192.0.2.1");
    assert!(judge(&peer, Version::HTTP_2, &two, &HeaderMap::new(), &rules).is_ok());
    let old = judge(
        &peer,
        Version::HTTP_10,
        &Uri::from_static("/"),
        &HeaderMap::new(),
        &rules,
    )
    .unwrap();
    assert_eq!(old.host.name(), "app.example.com");
}

#[test]
fn only_served_hosts_are_served() {
    let rules_of = |public, hosts| rules(public, &[], hosts);
    let status = |rules: &ClientRules, host: &str| facts(rules, "192.0.2.1", "/", &[("host", host)]).map(|_| ());
    let strict = rules_of("https://app.example.com", &["api.example.com"]);
    assert_eq!(status(&strict, "api.example.com"), Ok(()));
    for host in ["evil.example", "app.example.com.evil.example", "localhost", "127.0.0.1"] {
        assert_eq!(status(&strict, host), Err(HostError::Misdirected), "{host}");
    }
    let dev = rules_of("http://localhost:8080", &[]);
    for host in ["localhost", "127.0.0.1:9", "[::1]", "app.localhost", "LOCALHOST."] {
        assert_eq!(status(&dev, host), Ok(()), "{host}");
    }
    assert_eq!(status(&dev, "192.168.1.2"), Err(HostError::Misdirected));
    assert_eq!(
        status(&rules_of("https://app.example.com", &["*"]), "anything.example"),
        Ok(())
    );
}

#[test]
fn forwarded_addresses_are_walked_from_the_right() {
    let rules = rules("https://a.example", &["10.0.0.0/8", "fd00::/8"], &[]);
    for (peer, lines, addr) in [
        ("192.0.2.9", &["203.0.113.7"][..], "192.0.2.9"),
        ("10.0.0.1", &[], "10.0.0.1"),
        ("10.0.0.1", &["203.0.113.7"], "203.0.113.7"),
        ("::ffff:10.0.0.1", &["203.0.113.7"], "203.0.113.7"),
        ("10.0.0.1", &["6.6.6.6, 203.0.113.7, 10.2.3.4"], "203.0.113.7"),
        ("10.0.0.1", &["6.6.6.6, 203.0.113.7", "10.2.3.4"], "203.0.113.7"),
        ("10.0.0.1", &["10.9.9.9, 10.2.3.4"], "10.9.9.9"),
        ("10.0.0.1", &["203.0.113.7:4711"], "203.0.113.7"),
        ("10.0.0.1", &["[2001:db8::1]:80"], "2001:db8::1"),
        ("10.0.0.1", &["[2001:db8::1]"], "2001:db8::1"),
        ("10.0.0.1", &["2001:db8::1"], "2001:db8::1"),
        ("10.0.0.1", &["::ffff:203.0.113.7"], "203.0.113.7"),
        ("fd00::1", &["::ffff:10.0.0.7, 10.1.1.1"], "10.0.0.7"),
        ("10.0.0.1", &["203.0.113.7, unknown"], "10.0.0.1"),
        ("10.0.0.1", &["203.0.113.7, _x, 10.2.3.4"], "10.2.3.4"),
        ("10.0.0.1", &["203.0.113.7,"], "10.0.0.1"),
        ("10.0.0.1", &["[1.2.3.4]"], "10.0.0.1"),
        ("10.0.0.1", &["fe80::1%eth0"], "10.0.0.1"),
    ] {
        let mut all = vec![("host", "a.example")];
        all.extend(lines.iter().map(|line| ("x-forwarded-for", *line)));
        let facts = facts(&rules, peer, "/", &all).unwrap();
        assert_eq!(facts.addr.to_string(), addr, "{peer} {lines:?}");
    }
}

#[test]
fn a_connection_within_tls_is_https_and_for_the_hosts_of_its_certificate() {
    let rules = rules("http://a.example", &["10.0.0.0/8"], &["b.example"]);
    let judged = |peer: &str, host: &str, lines: &[(&'static str, &str)]| {
        let connection = Connection {
            tls: Some(Tls {
                asked: Some("a.example".into()),
                shown: Arc::new(CertificateNames::new(["a.example"])),
                client: None,
                agreed_by: Arc::default(),
            }),
            ..from(peer)
        };
        let lines = [&[("host", host)], lines].concat();
        let facts = judge(
            &connection,
            Version::HTTP_11,
            &Uri::from_static("/"),
            &headers(&lines),
            &rules,
        );
        facts.map(|facts| facts.scheme)
    };
    assert_eq!(judged("192.0.2.1", "a.example", &[]), Ok(Scheme::Https));
    assert_eq!(judged("192.0.2.1", "b.example", &[]), Err(HostError::Misdirected));
    let ours = "10.0.0.1";
    assert_eq!(
        judged(ours, "b.example", &[]),
        Ok(Scheme::Https),
        "a proxy speaks for many"
    );
    assert_eq!(
        judged(ours, "a.example", &[("x-forwarded-proto", "http")]),
        Ok(Scheme::Http)
    );
}

#[test]
fn peers_of_a_unix_socket_are_believed_only_if_they_are_said_to_be_proxies() {
    let mut rules = rules("https://a.example", &["0.0.0.0/1"], &[]);
    let lines = [("host", "a.example"), ("x-forwarded-for", "203.0.113.7")];
    let judged = |rules: &ClientRules| {
        let peer = Connection::plain(Peer::Unix);
        let facts = judge(&peer, Version::HTTP_11, &Uri::from_static("/"), &headers(&lines), rules);
        facts.map(|facts| facts.addr.to_string())
    };
    assert_eq!(judged(&rules).unwrap(), "0.0.0.0");
    rules.trusts_unix = true;
    assert_eq!(judged(&rules).unwrap(), "203.0.113.7");
}

#[test]
fn a_stranger_says_nothing_about_scheme_or_host() {
    let rules = rules("http://a.example", &["10.0.0.0/8"], &["b.example"]);
    let lines = [
        ("host", "a.example"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "b.example"),
    ];
    let stranger = facts(&rules, "192.0.2.1", "/", &lines).unwrap();
    assert_eq!((stranger.host.name(), stranger.scheme), ("a.example", Scheme::Http));
    let proxy = facts(&rules, "10.0.0.1", "/", &lines).unwrap();
    assert_eq!(
        (proxy.host.name(), proxy.scheme, proxy.trusted_peer),
        ("b.example", Scheme::Https, true)
    );
    let odd = [
        ("host", "a.example"),
        ("x-forwarded-host", "evil, b.example"),
        ("x-forwarded-proto", "gopher"),
    ];
    let proxy = facts(&rules, "10.0.0.1", "/", &odd).unwrap();
    assert_eq!((proxy.host.name(), proxy.scheme), ("b.example", Scheme::Http));
    let bad = [("host", "a.example"), ("x-forwarded-host", "a b")];
    assert_eq!(facts(&rules, "10.0.0.1", "/", &bad).unwrap_err(), HostError::Bad);
}

#[test]
fn the_public_host_has_the_public_scheme() {
    let rules = rules("https://a.example", &[], &["b.example"]);
    let scheme = |host| {
        facts(&rules, "192.0.2.1", "/", &[("host", host)])
            .unwrap()
            .scheme
            .as_str()
    };
    assert_eq!(scheme("a.example"), "https");
    assert_eq!(scheme("b.example"), "http");
}

proptest! {
    #[test]
    fn a_judged_host_is_its_own_normal_form(text in "[a-zA-Z0-9.:\\[\\]@, -]{0,20}") {
        if let Some(host) = Host::parse(&text) {
            let again = Host::from_value(host.value()).unwrap();
            prop_assert_eq!(&again, &host);
            prop_assert!(!host.name().is_empty() && host.name().to_ascii_lowercase() == host.name());
            prop_assert!(!host.name().ends_with('.') && !host.name().contains(['@', ',', ' ']));
        }
    }

    #[test]
    fn no_forwarded_entry_panics(entry in prop::collection::vec(any::<u8>(), 0..40)) {
        forwarded_addr(&entry);
    }
}
