//! The PROXY protocol: trusted proxies name their client before anything else, and nobody else gets in.

use proxy_header::{ProxiedAddress, ProxyHeader, Tlv};

use crate::harness::{
    Gateway, RawClient, Setup,
    certificates::{Authority, Folder, TlsClient},
};

async fn gateway(trusted: &str) -> Gateway {
    let toml = format!("[server]\nproxy_protocol = true\nheader_timeout = '2s'\ntrusted_proxies = ['{trusted}']");
    Setup::default().with(&toml).start().await
}

fn v2(source: Option<&str>) -> Vec<u8> {
    let address =
        source.map(|source| ProxiedAddress::stream(source.parse().unwrap(), "192.0.2.1:443".parse().unwrap()));
    let mut bytes = Vec::new();
    ProxyHeader::with_tlvs(address, [Tlv::UniqueId(b"some id"[..].into())])
        .encode_v2(&mut bytes)
        .unwrap();
    bytes
}

fn request(fields: &str) -> String {
    format!("GET /public/x HTTP/1.1\r\nHost: app.example.com\r\n{fields}\r\n")
}

#[tokio::test]
async fn the_client_is_whom_the_proxy_names() {
    let gateway = gateway("127.0.0.1").await;
    for (header, client) in [
        (b"PROXY TCP4 203.0.113.7 192.0.2.1 4711 443\r\n".to_vec(), "203.0.113.7"),
        (
            b"PROXY TCP6 2001:db8::7 2001:db8::1 4711 443\r\n".to_vec(),
            "2001:db8::7",
        ),
        (
            b"PROXY TCP6 ::ffff:203.0.113.8 ::1 4711 443\r\n".to_vec(),
            "203.0.113.8",
        ),
        (v2(Some("203.0.113.9:4711")), "203.0.113.9"),
        // The proxy's own, as for a health check.
        (v2(None), "127.0.0.1"),
        // Somebody's.
        (b"PROXY UNKNOWN\r\n".to_vec(), "unknown"),
    ] {
        let mut raw = RawClient::connect(gateway.addr()).await;
        raw.send([&header[..], request("").as_bytes()].concat()).await;
        assert_eq!(raw.answer().await.status(), 200, "{header:?}");
        assert_eq!(gateway.upstream().last().head.one("x-forwarded-for"), Some(client));
        // And for the next request on the connection.
        raw.send(request("")).await;
        assert_eq!(raw.answer().await.status(), 200);
        assert_eq!(gateway.upstream().last().head.one("x-forwarded-for"), Some(client));
    }
}

#[tokio::test]
async fn what_the_named_client_forwards_is_judged_by_its_own_address() {
    let gateway = gateway("127.0.0.1").await;
    let unix = [&b"\r\n\r\n\0\r\nQUIT\n\x21\x31\0\xd8"[..], &[0; 216]].concat();
    for (header, client) in [
        (&b"PROXY TCP4 203.0.113.7 192.0.2.1 4711 443\r\n"[..], "203.0.113.7"),
        // Nor is anybody the proxy because their address isn't told.
        (b"PROXY UNKNOWN\r\n", "unknown"),
        (b"\r\n\r\n\0\r\nQUIT\n\x21\0\0\0", "unknown"),
        (&unix, "unknown"),
    ] {
        let mut raw = RawClient::connect(gateway.addr()).await;
        let forwarding = "X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: http\r\nTrue-Client-IP: 7.7.7.7\r\n";
        raw.send([header, request(forwarding).as_bytes()].concat()).await;
        assert_eq!(raw.answer().await.status(), 200, "{header:?}");
        let seen = gateway.upstream().last();
        assert_eq!(seen.head.one("x-forwarded-for"), Some(client));
        assert_eq!(seen.head.one("x-forwarded-proto"), Some("https"));
        assert_eq!(seen.head.all("true-client-ip"), Vec::<&str>::new());
    }
}

#[tokio::test]
async fn a_header_may_come_in_pieces() {
    let gateway = gateway("127.0.0.1").await;
    for header in [
        b"PROXY TCP4 203.0.113.7 192.0.2.1 4711 443\r\n".to_vec(),
        v2(Some("203.0.113.7:4711")),
    ] {
        let mut raw = RawClient::connect(gateway.addr()).await;
        for byte in [&header[..], request("").as_bytes()].concat() {
            raw.send([byte]).await;
        }
        assert_eq!(raw.answer().await.status(), 200);
        assert_eq!(
            gateway.upstream().last().head.one("x-forwarded-for"),
            Some("203.0.113.7")
        );
    }
}

#[tokio::test]
async fn without_a_header_or_with_a_bad_one_the_connection_is_closed() {
    let gateway = gateway("127.0.0.1").await;
    let long = format!("PROXY TCP4 {}", "1".repeat(300));
    let bare = request("");
    let cases: [&[u8]; 6] = [
        bare.as_bytes(),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"PROXY TCP4 203.0.113.7 192.0.2.1 4711\r\n\r\n",
        long.as_bytes(),
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff",
        b"PROXY TCP4 203.0",
    ];
    for bytes in cases {
        let mut raw = RawClient::connect(gateway.addr()).await;
        raw.send(bytes).await;
        assert!(raw.is_closed().await, "{bytes:?}");
    }
    assert_eq!(gateway.upstream().requests().len(), 0);
    let metrics = gateway.admin_get("/metrics").await;
    let refused = "\nvestibule_proxy_protocol_refused_total 6\n";
    assert!(metrics.text().contains(refused), "{}", metrics.text());
}

#[tokio::test]
async fn a_stranger_is_not_let_in_whatever_it_says() {
    let gateway = gateway("10.0.0.0/8").await;
    for bytes in [
        request(""),
        format!("PROXY TCP4 10.0.0.1 192.0.2.1 4711 443\r\n{}", request("")),
    ] {
        let mut raw = RawClient::connect(gateway.addr()).await;
        raw.send(bytes).await;
        assert!(raw.is_closed().await);
    }
    assert_eq!(gateway.upstream().requests().len(), 0);
}

#[tokio::test]
async fn without_the_key_a_header_is_no_request() {
    let gateway = Setup::default()
        .with("[server]\ntrusted_proxies = ['127.0.0.1']")
        .start()
        .await;
    let mut raw = RawClient::connect(gateway.addr()).await;
    raw.send(format!("PROXY TCP4 203.0.113.7 192.0.2.1 4711 443\r\n{}", request("")))
        .await;
    assert_eq!(raw.answer().await.status(), 400);
    assert_eq!(gateway.upstream().requests().len(), 0);
}

#[tokio::test]
async fn it_comes_before_the_handshake() {
    let (authority, folder) = (Authority::new("the authority"), Folder::new());
    let pair = folder.pair("site", &authority.issue(&["app.example.com"]));
    let toml = format!("[server]\nproxy_protocol = true\ntrusted_proxies = ['127.0.0.1']\n[server.tls]\n{pair}");
    let gateway = Setup::default().with(&toml).start().await;
    let client = TlsClient::trusting(&authority);
    assert!(client.connect(gateway.addr(), "app.example.com").await.is_err());

    let mut raw = RawClient::connect(gateway.addr()).await;
    raw.send("PROXY TCP4 203.0.113.7 192.0.2.1 4711 443\r\n").await;
    let name = rustls::pki_types::ServerName::try_from("app.example.com").unwrap();
    let connector = tokio_rustls::TlsConnector::from(client.config());
    let stream = connector.connect(name, raw.stream.into_inner()).await.unwrap();
    let answer = crate::harness::certificates::get_on(stream, "app.example.com", "/public/x", "").await;
    assert_eq!(answer.unwrap().status(), 200);
    assert_eq!(
        gateway.upstream().last().head.one("x-forwarded-for"),
        Some("203.0.113.7")
    );
}
