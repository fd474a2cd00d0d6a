//! TLS towards clients: versions, protocols, certificates that change, and handshakes that fail.

use std::{path::Path, sync::Arc};

use rustls::HandshakeKind;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use vestibule::{config, server::tls::Tls};

use crate::harness::{
    Gateway, RawClient, SOON, Setup,
    certificates::{Authority, Folder, Pair, TlsClient, connect, get_on},
    eventually,
    gateway::{lay_over, whole_text},
    h2_client::H2Client,
};

const HOST: &str = "app.example.com";

struct Site {
    authority: Authority,
    folder: Folder,
    gateway: Gateway,
}

impl Site {
    /// With a certificate for [`HOST`], and `more` in the configuration.
    async fn start(more: &str) -> Self {
        let (authority, folder) = (Authority::new("the authority"), Folder::new());
        let tls = folder.pair("site", &authority.issue(&[HOST]));
        let setup = Setup::default().with(&format!("[server.tls]\n{tls}")).with(more);
        let gateway = setup.start().await;
        Self {
            authority,
            folder,
            gateway,
        }
    }

    fn client(&self) -> TlsClient {
        TlsClient::trusting(&self.authority)
    }

    /// A sample of the metrics.
    async fn metric(&self, name: &str) -> u64 {
        let metrics = self.gateway.admin_get("/metrics").await;
        let line = metrics
            .text()
            .lines()
            .find(|line| line.starts_with(name))
            .map(str::to_owned);
        let line = line.unwrap_or_else(|| panic!("no {name} in {}", metrics.text()));
        line.rsplit_once(' ').unwrap().1.parse().unwrap()
    }
}

#[tokio::test]
async fn requests_within_tls_are_https_for_the_upstream() {
    let site = Site::start("[server]\npublic_url = 'https://elsewhere.example.com'\nhosts = ['app.example.com']").await;
    let answer = site
        .client()
        .get(site.gateway.addr(), HOST, "/public/x", "")
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
    let seen = site.gateway.upstream().last();
    assert_eq!(seen.head.one("x-forwarded-proto"), Some("https"));
    assert_eq!(
        seen.head.one("forwarded"),
        Some("for=127.0.0.1;host=\"app.example.com\";proto=https")
    );
    assert_eq!(site.metric("vestibule_tls_handshakes_total{outcome=\"ok\"}").await, 1);
    assert_eq!(
        site.metric("vestibule_protocol_connections_total{protocol=\"http/1.1\"}")
            .await,
        1
    );
}

#[tokio::test]
async fn the_protocol_is_agreed_on_in_the_handshake() {
    let site = Site::start("").await;
    let addr = site.gateway.addr();
    for (offered, agreed) in [
        (&["h2", "http/1.1"][..], Some(&b"h2"[..])),
        (&["http/1.1"], Some(b"http/1.1")),
        (&["http/1.1", "h2"], Some(b"h2")),
        (&[], None),
    ] {
        let stream = site.client().offering(offered).connect(addr, HOST).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), agreed, "{offered:?}");
        let status = if agreed == Some(b"h2") {
            let (client, _) = H2Client::over(stream, "https://app.example.com").await;
            client.get("/public/x").await.status
        } else {
            get_on(stream, HOST, "/public/x", "").await.unwrap().status()
        };
        assert_eq!(status, 200, "{offered:?}");
    }
    let foreign = site.client().offering(&["spdy/3"]).connect(addr, HOST).await;
    assert!(foreign.is_err(), "nothing in common");
    let authority = site.client().offering(&["acme-tls/1"]).connect(addr, HOST).await;
    assert!(authority.is_err(), "nobody is challenged");
}

#[tokio::test]
async fn tls_01_versions_below_the_least_are_refused() {
    let site = Site::start("").await;
    let addr = site.gateway.addr();
    assert!(site.client().only_1_2().get(addr, HOST, "/public/x", "").await.is_ok());
    let strict = Site::start("[server.tls]\nmin_version = '1.3'").await;
    let addr = strict.gateway.addr();
    assert!(strict.client().only_1_2().connect(addr, HOST).await.is_err());
    assert!(strict.client().get(addr, HOST, "/public/x", "").await.is_ok());
    assert_eq!(
        strict
            .metric("vestibule_tls_handshakes_total{outcome=\"failed\"}")
            .await,
        1
    );
}

#[tokio::test]
async fn a_session_is_resumed() {
    let site = Site::start("").await;
    let config = site.client().config();
    for kind in [HandshakeKind::Full, HandshakeKind::Resumed] {
        let mut stream = connect(Arc::clone(&config), site.gateway.addr(), HOST).await.unwrap();
        // Tickets come behind the handshake.
        let request = format!("GET /public/x HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        assert!(answer.starts_with(b"HTTP/1.1 200"));
        assert_eq!(stream.get_ref().1.handshake_kind(), Some(kind));
    }
}

#[tokio::test]
async fn changed_files_are_taken_and_bad_ones_are_not() {
    let site = Site::start("").await;
    let addr = site.gateway.addr();
    let shown = async || {
        let stream = site.client().connect(addr, HOST).await.unwrap();
        stream.get_ref().1.peer_certificates().unwrap()[0].clone()
    };
    let kept = site.client().connect(addr, HOST).await.unwrap();
    let second = site.authority.issue(&[HOST]);
    site.folder.pair("site", &second);
    eventually(SOON, async || shown().await == second.der()).await;
    assert_eq!(site.metric("vestibule_tls_reloads_total{outcome=\"ok\"}").await, 1);
    assert_eq!(
        get_on(kept, HOST, "/public/x", "").await.unwrap().status(),
        200,
        "a connection from before goes on"
    );

    let other = site.authority.issue(&[HOST]);
    site.folder.write("site.key", &other.key);
    let refused = "vestibule_tls_reloads_total{outcome=\"refused\"}";
    eventually(SOON, async || site.metric(refused).await == 1).await;
    assert!(shown().await == second.der(), "the pair from before stays");
    site.folder.write("site.crt", &other.certificate);
    eventually(SOON, async || shown().await == other.der()).await;
    assert_eq!(site.metric(refused).await, 1, "and is not tried again and again");
}

#[tokio::test]
async fn tickets_from_before_a_change_are_no_good_after_it() {
    let site = Site::start("").await;
    let config = site.client().config();
    let kind = async || {
        let stream = connect(Arc::clone(&config), site.gateway.addr(), HOST).await.unwrap();
        let kind = stream.get_ref().1.handshake_kind();
        assert_eq!(get_on(stream, HOST, "/public/x", "").await.unwrap().status(), 200);
        kind
    };
    assert_eq!(kind().await, Some(HandshakeKind::Full));
    assert_eq!(kind().await, Some(HandshakeKind::Resumed));
    site.folder.pair("site", &site.authority.issue(&[HOST]));
    let taken = "vestibule_tls_reloads_total{outcome=\"ok\"}";
    eventually(SOON, async || site.metric(taken).await == 1).await;
    assert_eq!(kind().await, Some(HandshakeKind::Full));
}

#[tokio::test]
async fn what_is_no_handshake_ends_its_connection_alone() {
    let site = Site::start("[server]\nheader_timeout = '400ms'").await;
    let addr = site.gateway.addr();
    for bytes in [
        &b"GET /public/x HTTP/1.1\r\nHost: app.example.com\r\n\r\n"[..],
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        &[0xff; 100],
        // A record that promises more than there is.
        b"\x16\x03\x01\x02\x00\x01",
        b"",
    ] {
        let mut raw = RawClient::connect(addr).await;
        raw.send(bytes).await;
        let said = raw.rest().await;
        assert!(!said.starts_with(b"HTTP/"), "{bytes:?}");
    }
    let failed = "vestibule_tls_handshakes_total{outcome=\"failed\"}";
    eventually(SOON, async || site.metric(failed).await == 5).await;
    assert!(site.client().get(addr, HOST, "/public/x", "").await.is_ok());
    assert_eq!(site.gateway.upstream().requests().len(), 1);
}

#[tokio::test]
async fn a_large_answer_comes_whole() {
    let site = Site::start("").await;
    let body = "x".repeat(3 << 20);
    site.gateway.upstream().answer(
        "/public/big",
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()),
    );
    let answer = site
        .client()
        .get(site.gateway.addr(), HOST, "/public/big", "")
        .await
        .unwrap();
    assert!(answer.body == body.as_bytes());
}

/// What is said of a configuration with these.
fn judged(certificate: &Path, key: &Path) -> String {
    let (certificate, key) = (certificate.display(), key.display());
    let mut text = whole_text().parse().unwrap();
    let tls = format!("[server.tls]\ncertificate = '{certificate}'\nkey = '{key}'");
    lay_over(&mut text, tls.parse().unwrap());
    let config = config::parse(&text.to_string(), "gateway.toml", &|_| None).unwrap();
    let settings = config.server.tls.unwrap();
    Tls::check(&settings).map_or_else(|error| error.in_config(&settings).to_string(), |()| "fine".to_owned())
}

#[test]
fn what_can_not_be_loaded_says_what_where_and_how_to_mend_it() {
    let (authority, folder) = (Authority::new("the authority"), Folder::new());
    let write = |name: &str, text: &str| folder.write(name, text);
    let Pair { certificate, key } = authority.issue(&[HOST]);
    let crt = write("site.crt", &format!("{certificate}{}", authority.pem()));
    let good_key = write("site.key", &key);
    assert_eq!(judged(&crt, &good_key), "fine");

    let other = write("other.key", &authority.issue(&[HOST]).key);
    let reversed = write("reversed.crt", &format!("{}{certificate}", authority.pem()));
    let empty = write("empty", "");
    let garbage = write(
        "garbage",
        "-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n",
    );
    let nonsense = write(
        "nonsense",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    );
    let encrypted = write(
        "encrypted",
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
    );
    let encrypted_as_once = write(
        "encrypted as once",
        "-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nAAAA\n\
         -----END EC PRIVATE KEY-----\n",
    );
    let missing = folder.path().join("missing");
    for (certificate, key, said) in [
        (&crt, &other, "does not belong to the certificate"),
        (&reversed, &good_key, "place 2 of that file: put that one first"),
        (&good_key, &crt, "perhaps the two files are swapped"),
        (&empty, &good_key, "holds no certificate"),
        (&crt, &empty, "holds no private key"),
        (&crt, &crt, "perhaps the two files are swapped"),
        (&garbage, &good_key, "is no PEM file that can be read"),
        (&nonsense, &good_key, "is malformed"),
        (&crt, &encrypted, "it is encrypted"),
        (&crt, &encrypted_as_once, "it is encrypted"),
        (&missing, &good_key, "can't be read: No such file"),
        (&crt, &missing, "can't be read: No such file"),
    ] {
        let told = judged(certificate, key);
        assert!(told.contains(said), "{told}");
        let names_a_key = told.starts_with("gateway.toml:") && told.contains(": server.tls.");
        assert!(names_a_key, "{told}");
        let names_a_file = told.contains(&folder.path().display().to_string());
        assert!(names_a_file && !told.contains("PRIVATE KEY-----\nMI"), "{told}");
    }
}

#[tokio::test]
async fn a_reload_puts_other_settings_in_force_or_none_of_them() {
    let site = Site::start("").await;
    let addr = site.gateway.addr();
    let kept = site.client().connect(addr, HOST).await.unwrap();
    let elsewhere = Authority::new("another authority");
    let other = site.folder.pair("other", &elsewhere.issue(&[HOST]));
    let settings = format!("[server.tls]\n{other}\nmin_version = '1.3'");

    let nothing = site.folder.write("nothing.pem", "no certificate");
    let bad = format!(
        "{settings}\nclient_ca = '{}'\nclient_auth = 'required'",
        nothing.display()
    );
    assert!(site.gateway.reload(&bad).await.is_err());
    assert!(site.client().only_1_2().get(addr, HOST, "/public/x", "").await.is_ok());

    site.gateway.reload(&settings).await.unwrap();
    assert!(
        site.client().connect(addr, HOST).await.is_err(),
        "another certificate is shown"
    );
    let client = TlsClient::trusting(&elsewhere);
    assert!(client.get(addr, HOST, "/public/x", "").await.is_ok());
    let old = TlsClient::trusting(&elsewhere).only_1_2();
    assert!(old.connect(addr, HOST).await.is_err());
    let answer = get_on(kept, HOST, "/public/x", "").await.unwrap();
    assert_eq!(answer.status(), 200, "a connection that stood goes on");
}
