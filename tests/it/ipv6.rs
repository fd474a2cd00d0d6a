//! IPv6 wherever an address can stand: listeners, upstreams, proxies, and what is said of clients.

use proxy_header::{ProxiedAddress, ProxyHeader};
use tokio::net::TcpListener;

use crate::harness::{
    Gateway, RawClient, SOON, Setup, backend::Backend, client::Call, eventually, gateway::SITE, program::free_port,
};

/// A gateway that listens on the loopback address of IPv6.
async fn gateway(more: &str) -> Gateway {
    let setup = Setup::default().with("[server]\nlisten = '[::1]:0'");
    setup.with(more).start().await
}

fn header(source: &str) -> Vec<u8> {
    let address = ProxiedAddress::stream(source.parse().unwrap(), "[2001:db8::1]:443".parse().unwrap());
    let mut bytes = Vec::new();
    ProxyHeader::with_address(address).encode_v2(&mut bytes).unwrap();
    bytes
}

#[tokio::test]
async fn a_client_is_named_as_the_specifications_say() {
    let gateway = gateway("").await;
    assert!(gateway.addr().is_ipv6());
    let call = gateway.get("/public/x").header("X-Forwarded-For", "2001:db8::666");
    assert_eq!(call.await.status(), 200);
    let head = gateway.upstream().last().head;
    assert_eq!(head.one("x-forwarded-for"), Some("::1"));
    // RFC 7239, 6: in brackets, and so in quotes.
    assert_eq!(
        head.one("forwarded"),
        Some("for=\"[::1]\";host=\"app.example.com\";proto=https")
    );
    eventually(SOON, async || gateway.log().contains("\"client\":\"::1\"")).await;
}

#[tokio::test]
async fn a_host_may_be_an_address() {
    let gateway = gateway("server.hosts = ['[::1]']").await;
    for host in ["[::1]:8080", "[::1]"] {
        let answer = gateway.get("/public/x").header("Host", host).await;
        assert_eq!(answer.status(), 200, "{host}");
        let head = gateway.upstream().last().head;
        assert_eq!(
            (head.one("host"), head.one("x-forwarded-host")),
            (Some(host), Some(host))
        );
        let forwarded = head.one("forwarded").unwrap();
        assert!(forwarded.contains(&format!(";host=\"{host}\";")), "{forwarded}");
    }
    let answer = gateway.get("/public/x").header("Host", "[::2]").await;
    assert_eq!(answer.status(), 421);
}

#[tokio::test]
async fn a_trusted_proxy_is_believed_and_added() {
    let gateway = gateway("server.trusted_proxies = ['::1']").await;
    for (said, chain, client) in [
        ("2001:db8::7", "2001:db8::7, ::1", "\"[2001:db8::7]\""),
        ("[2001:db8::7]:4711", "[2001:db8::7]:4711, ::1", "\"[2001:db8::7]\""),
        ("203.0.113.7", "203.0.113.7, ::1", "203.0.113.7"),
        ("::ffff:203.0.113.7", "::ffff:203.0.113.7, ::1", "203.0.113.7"),
    ] {
        let call = gateway.get("/public/x").header("X-Forwarded-For", said);
        assert_eq!(call.await.status(), 200);
        let head = gateway.upstream().last().head;
        assert_eq!(head.one("x-forwarded-for"), Some(chain));
        let forwarded = head.one("forwarded").unwrap();
        assert!(forwarded.starts_with(&format!("for={client};")), "{forwarded}");
    }
}

#[tokio::test]
async fn both_families_have_the_port_and_nobody_is_named_in_the_others_form() {
    let port = free_port();
    let over = format!("server.listen = ['0.0.0.0:{port}', '[::]:{port}']");
    let gateway = Setup::default().with(&over).start().await;
    for (to, client) in [("127.0.0.1", "127.0.0.1"), ("[::1]", "::1")] {
        let addr = format!("{to}:{port}").parse().unwrap();
        let answer = Call::new(addr, SITE, "GET", "/public/x").await;
        assert_eq!(answer.status(), 200, "{to}");
        assert_eq!(gateway.upstream().last().head.one("x-forwarded-for"), Some(client));
    }
}

#[tokio::test]
async fn an_application_is_reached() {
    let listener = TcpListener::bind("[::1]:0").await.unwrap();
    let backend = Backend::listening("six", listener);
    let gateway = Setup::default()
        .endpoints(&[backend.endpoint("http")], "")
        .start()
        .await;
    for _ in 0..3 {
        assert_eq!(gateway.get("/public/x").await.text(), "six GET /public/x");
    }
    assert_eq!(backend.connections(), 1, "the connection is kept");
    assert_eq!(backend.arrived()[0].head.headers["host"], gateway.host());
}

const LIMITED: &str = "
    server = { proxy_protocol = true, trusted_proxies = ['::1/128'] }
    routes = [{ path = '/public/*', upstream = 'app', auth = 'public', rate_limit = { requests = 2, window = '1m' } }]";

/// The status for a client behind a proxy that speaks the PROXY protocol.
async fn from(gateway: &Gateway, source: &str) -> u16 {
    let mut raw = RawClient::connect(gateway.addr()).await;
    let request = "GET /public/x HTTP/1.1\r\nHost: app.example.com\r\n\r\n";
    raw.send([&header(source), request.as_bytes()].concat()).await;
    raw.answer().await.status()
}

#[tokio::test]
async fn who_a_proxy_names_has_the_budget_of_a_network_of_64_bits() {
    let gateway = gateway(LIMITED).await;
    assert_eq!(from(&gateway, "[2001:db8:1:1::7]:4711").await, 200);
    let head = gateway.upstream().last().head;
    assert_eq!(head.one("x-forwarded-for"), Some("2001:db8:1:1::7"));
    assert_eq!(
        head.one("forwarded"),
        Some("for=\"[2001:db8:1:1::7]\";host=\"app.example.com\";proto=https")
    );
    assert_eq!(from(&gateway, "[2001:db8:1:1:ffff::8]:4711").await, 200);
    assert_eq!(from(&gateway, "[2001:db8:1:1:2:3:4:5]:4711").await, 429);
    assert_eq!(from(&gateway, "[2001:db8:1:2::7]:4711").await, 200, "another network");
    // An IPv4 address in another form is that one address.
    for (source, status) in [
        ("[::ffff:203.0.113.7]:1", 200),
        ("[::ffff:203.0.113.7]:2", 200),
        ("[::ffff:203.0.113.7]:3", 429),
        ("[::ffff:203.0.113.8]:1", 200),
    ] {
        assert_eq!(from(&gateway, source).await, status, "{source}");
    }
}
