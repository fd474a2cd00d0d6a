//! Certificates that clients show: who is let in, and what the upstream is told. Nobody else can tell it.

use std::{fmt::Write as _, sync::Arc, time::Duration};

use base64ct::{Base64, Encoding as _};
use rcgen::{CertificateParams, DistinguishedName, DnType, SanType};
use rustls::HandshakeKind;
use sha2::{Digest as _, Sha256};
use tokio::time::timeout;
use vestibule::clock::Timestamp;

use crate::harness::{
    Gateway, SOON, Setup,
    certificates::{Authority, Folder, Pair, TlsClient, connect, get_on},
    client::Response,
    eventually,
    gateway::START,
    h2_client::H2Client,
};

const HOST: &str = "app.example.com";

/// Every spelling that some upstream might read.
const SPOOFED: &str = "Client-Cert: :AAAA:\r\nclient_cert: :AAAA:\r\nCLIENT.CERT: x\r\nClient-Cert-Chain: :AAAA:\r\n\
                       X-Client-Cert: x\r\nX-Client-Cert-Subject: CN=root\r\nX_Client_Cert_Subject: CN=root\r\n\
                       x-client-cert-names: root\r\nX-Client.Cert-Fingerprint: 00\r\nX-Client-Cert-Anything: 1\r\n";

struct Site {
    authority: Authority,
    clients: Authority,
    gateway: Gateway,
    folder: Folder,
}

async fn site(client_auth: &str) -> Site {
    let (authority, clients, folder) = (Authority::new("site"), Authority::new("clients"), Folder::new());
    let toml = format!(
        "[server.tls]\n{}client_ca = '{}'\nclient_auth = '{client_auth}'",
        folder.pair("site", &authority.issue(&[HOST])),
        folder.write("clients.crt", &clients.pem()).display(),
    );
    Site {
        gateway: Setup::default().with(&toml).start().await,
        authority,
        clients,
        folder,
    }
}

fn machine(authority: &Authority) -> Pair {
    let mut params = CertificateParams::new(vec!["machine.example".to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, "Größe, 7");
    let uri = "spiffe://example/machine".try_into().unwrap();
    params.subject_alt_names.push(SanType::URI(uri));
    authority.issue_as(&params)
}

/// The fields of the last request that speak of a client's certificate.
fn told(gateway: &Gateway) -> Vec<(String, String)> {
    let seen = gateway.upstream().last();
    let fields = seen.head.fields.iter();
    fields
        .filter(|(name, _)| {
            name.to_ascii_lowercase()
                .replace(['_', '.'], "-")
                .contains("client-cert")
        })
        .map(|(name, value)| (name.to_ascii_lowercase(), value.clone()))
        .collect()
}

#[tokio::test]
async fn the_upstream_is_told_whose_certificate_it_is() {
    let site = site("required").await;
    let pair = machine(&site.clients);
    let client = TlsClient::trusting(&site.authority).showing(&pair);
    let answer = client
        .get(site.gateway.addr(), HOST, "/public/x", SPOOFED)
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
    let der = pair.der();
    let fingerprint = hex(&Sha256::digest(&der));
    let mut told = told(&site.gateway);
    told.sort();
    assert_eq!(
        told,
        [
            ("client-cert", format!(":{}:", Base64::encode_string(&der))),
            ("x-client-cert-fingerprint", fingerprint),
            (
                "x-client-cert-names",
                "machine.example,spiffe://example/machine".to_owned()
            ),
            ("x-client-cert-subject", "CN=Gr%C3%B6%C3%9Fe\\, 7".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
    );
}

/// Whoever has a certificate issued may choose what is in its common name, or for which host it is.
#[tokio::test]
async fn nothing_in_a_certificate_looks_like_what_it_does_not_say() {
    let site = site("required").await;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "Guests #1");
    params.distinguished_name.push(DnType::CommonName, "mallory, O=Admins");
    let ia5 = |text: &str| text.to_owned().try_into().unwrap();
    params.subject_alt_names = vec![
        SanType::DnsName(ia5("spiffe://prod/admin")),
        SanType::DnsName(ia5("10.0.0.1")),
        SanType::Rfc822Name(ia5("admin.example")),
        SanType::URI(ia5("admin.example")),
        SanType::Rfc822Name(ia5("mallory@guests.example")),
        SanType::URI(ia5("spiffe://guests/a,b")),
        SanType::IpAddress([192, 0, 2, 7].into()),
    ];
    let client = TlsClient::trusting(&site.authority).showing(&site.clients.issue_as(&params));
    let answer = client.get(site.gateway.addr(), HOST, "/public/x", "").await.unwrap();
    assert_eq!(answer.status(), 200);
    let told = told(&site.gateway);
    let of = |name: &str| {
        let field = told.iter().find(|(told, _)| told == name);
        field.map(|(_, value)| value.as_str())
    };
    assert_eq!(of("x-client-cert-subject"), Some("O=Guests #1, CN=mallory\\, O=Admins"));
    assert_eq!(
        of("x-client-cert-names"),
        Some("mallory@guests.example,spiffe://guests/a%2Cb,192.0.2.7")
    );
}

#[tokio::test]
async fn a_proxys_own_certificate_is_not_its_clients() {
    let site = site("required").await;
    let client = TlsClient::trusting(&site.authority).showing(&machine(&site.clients));
    let behind = "X-Forwarded-For: 192.0.2.7\r\n";
    let addr = site.gateway.addr();
    client.get(addr, HOST, "/public/x", behind).await.unwrap();
    assert_eq!(
        told(&site.gateway).len(),
        4,
        "who is no proxy of ours can't speak for anybody"
    );

    site.gateway
        .reload("[server]\ntrusted_proxies = ['127.0.0.1']")
        .await
        .unwrap();
    for spoken in [
        behind,
        "X-Forwarded-For: 192.0.2.7\r\nClient-Cert: :AAAA:\r\n",
        "Forwarded: for=192.0.2.7\r\n",
    ] {
        client.get(addr, HOST, "/public/x", spoken).await.unwrap();
        assert_eq!(told(&site.gateway), [], "{spoken}");
    }
    client.get(addr, HOST, "/public/x", "").await.unwrap();
    assert_eq!(told(&site.gateway).len(), 4, "what it asks for itself");
}

#[tokio::test]
async fn a_certificate_that_is_required_must_be_shown_and_be_of_the_authority() {
    let site = site("required").await;
    let addr = site.gateway.addr();
    let stranger = machine(&Authority::new("clients"));
    let nobody = TlsClient::trusting(&site.authority);
    assert!(nobody.get(addr, HOST, "/public/x", "").await.is_err());
    let somebody_else = TlsClient::trusting(&site.authority).showing(&stranger);
    assert!(somebody_else.get(addr, HOST, "/public/x", "").await.is_err());
    assert_eq!(site.gateway.upstream().requests().len(), 0);
}

#[tokio::test]
async fn a_certificate_that_is_optional_may_be_left_out_but_not_be_wrong() {
    let site = site("optional").await;
    let addr = site.gateway.addr();
    let nobody = TlsClient::trusting(&site.authority);
    assert_eq!(
        nobody.get(addr, HOST, "/public/x", SPOOFED).await.unwrap().status(),
        200
    );
    assert_eq!(told(&site.gateway), []);
    let ours = TlsClient::trusting(&site.authority).showing(&machine(&site.clients));
    assert_eq!(ours.get(addr, HOST, "/public/x", "").await.unwrap().status(), 200);
    assert_eq!(told(&site.gateway).len(), 4);
    let wrong = TlsClient::trusting(&site.authority).showing(&machine(&Authority::new("clients")));
    assert!(wrong.get(addr, HOST, "/public/x", "").await.is_err());
}

/// A certificate that ends in 2100, and how long that is from where the clock of tests begins.
fn machine_until_2100(authority: &Authority) -> (Pair, Duration) {
    let mut params = CertificateParams::new(vec!["machine.example".to_owned()]).unwrap();
    params.not_after = rcgen::date_time_ymd(2100, 1, 1);
    let end = Timestamp::from_secs(4_102_444_800);
    (authority.issue_as(&params), end.since(START))
}

#[tokio::test]
async fn on_a_connection_too_a_certificate_is_good_until_it_expires() {
    let site = site("required").await;
    let (addr, clock) = (site.gateway.addr(), site.gateway.clock().clone());
    let (pair, left) = machine_until_2100(&site.clients);
    let client = TlsClient::trusting(&site.authority).showing(&pair);
    let connect = async || client.connect(addr, HOST).await.unwrap();
    let (first, second, third) = (connect().await, connect().await, connect().await);
    let over_http_2 = async || {
        let client = TlsClient::trusting(&site.authority).showing(&pair).offering(&["h2"]);
        let stream = client.connect(addr, HOST).await.unwrap();
        H2Client::over(stream, &format!("https://{HOST}")).await
    };
    let ((leaves, ended), (late, _)) = (over_http_2().await, over_http_2().await);
    let closes = |answer: &Response| answer.head.one("connection") == Some("close");

    let answer = get_on(first, HOST, "/public/x", "").await.unwrap();
    assert_eq!((answer.status(), closes(&answer)), (200, false));
    assert_eq!(leaves.get("/public/x").await.status, 200);

    clock.advance(left.saturating_sub(Duration::from_secs(30)));
    let answer = get_on(second, HOST, "/public/x", "").await.unwrap();
    assert_eq!(
        (answer.status(), closes(&answer)),
        (200, true),
        "it may shake hands again in time"
    );
    assert_eq!(leaves.get("/public/x").await.status, 200);
    let ended = timeout(SOON, ended).await.expect("and is told so over HTTP/2");
    ended.unwrap().unwrap();

    clock.advance(Duration::from_secs(30));
    let served = site.gateway.upstream().requests().len();
    let answer = get_on(third, HOST, "/public/x", "").await.unwrap();
    assert_eq!((answer.status(), closes(&answer)), (421, true));
    let answer = late.get("/public/x").await;
    assert_eq!((answer.status, answer.code()), (421, "MISDIRECTED_REQUEST".to_owned()));
    assert_eq!(site.gateway.upstream().requests().len(), served);
}

#[tokio::test]
async fn nobody_resumes_past_their_certificate() {
    for client_auth in ["required", "optional"] {
        let site = site(client_auth).await;
        let client = TlsClient::trusting(&site.authority).showing(&machine(&site.clients));
        for config in [client.config(), client.only_1_2().config()] {
            for _ in 0..2 {
                let stream = connect(Arc::clone(&config), site.gateway.addr(), HOST).await.unwrap();
                assert_eq!(
                    stream.get_ref().1.handshake_kind(),
                    Some(HandshakeKind::Full),
                    "{client_auth}"
                );
                // Tickets come behind the handshake.
                assert_eq!(get_on(stream, HOST, "/public/x", "").await.unwrap().status(), 200);
            }
        }
    }
}

#[tokio::test]
async fn an_authority_that_is_taken_away_speaks_for_nobody_on_open_connections_either() {
    let site = site("required").await;
    let addr = site.gateway.addr();
    let client = TlsClient::trusting(&site.authority).showing(&machine(&site.clients));
    let (before, kept) = (
        client.connect(addr, HOST).await.unwrap(),
        client.connect(addr, HOST).await.unwrap(),
    );
    let others = Authority::new("others");
    let change = async |authorities: &str, nth: f64| {
        site.folder.write("clients.crt", authorities);
        let taken = "vestibule_tls_reloads_total{outcome=\"ok\"}";
        eventually(SOON, async || site.gateway.metric(taken).await >= nth).await;
    };
    change(&(site.clients.pem() + &others.pem()), 1.0).await;
    let answer = get_on(before, HOST, "/public/x", "").await.unwrap();
    assert_eq!(answer.status(), 200, "one more changes nothing for who was let in");
    change(&others.pem(), 2.0).await;
    let answer = get_on(kept, HOST, "/public/x", "").await.unwrap();
    assert_eq!(
        (answer.status(), answer.code()),
        (421, "MISDIRECTED_REQUEST".to_owned())
    );
    assert!(client.get(addr, HOST, "/public/x", "").await.is_err());
    assert_eq!(site.gateway.upstream().requests().len(), 1);
}

#[tokio::test]
async fn nobody_can_speak_under_these_names_whatever_the_configuration() {
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    for target in ["/public/x", "/api/x"] {
        let mut call = gateway.get(target).with(&ada);
        for line in SPOOFED.lines() {
            let (name, value) = line.split_once(": ").unwrap();
            call = call.header(name, value);
        }
        assert_eq!(call.await.status(), 200);
        assert_eq!(told(&gateway), [], "{target}");
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
