//! Certificates that clients show: who is let in, and what the upstream is told. Nobody else can tell it.

use std::fmt::Write as _;

use base64ct::{Base64, Encoding as _};
use rcgen::{CertificateParams, DistinguishedName, DnType, SanType};
use sha2::{Digest as _, Sha256};

use crate::harness::{
    Gateway, Setup,
    certificates::{Authority, Folder, Pair, TlsClient},
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
    _folder: Folder,
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
        _folder: folder,
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
