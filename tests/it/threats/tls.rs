//! TLS-01: what a handshake may agree on. With hand-written first flights: no client of ours would offer what is weak.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::harness::{
    Gateway, SOON, Setup,
    certificates::{Authority, Folder, TlsClient},
};

const HOST: &str = "app.example.com";

/// Record types and messages (RFC 8446, 5.1 and 4).
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const SERVER_HELLO: u8 = 2;

const TLS_1_0: [u8; 2] = [3, 1];
const TLS_1_1: [u8; 2] = [3, 2];
const TLS_1_2: [u8; 2] = [3, 3];
const SSL_3: [u8; 2] = [3, 0];

/// A vector with its length before it, in so many bytes.
fn vector(length_bytes: usize, content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).unwrap().to_be_bytes();
    [&length[4 - length_bytes..], content].concat()
}

/// A ClientHello of a version with these suites; it knows the curves and signatures of its time.
fn client_hello(version: [u8; 2], suites: &[u16], compression: &[u8]) -> Vec<u8> {
    let extension = |kind: u16, content: &[u8]| [kind.to_be_bytes().to_vec(), vector(2, content)].concat();
    let name = [&[0][..], &vector(2, HOST.as_bytes())].concat();
    let extensions = [
        extension(0, &vector(2, &name)),
        // x25519, secp256r1, secp384r1
        extension(10, &vector(2, &[0, 29, 0, 23, 0, 24])),
        extension(11, &vector(1, &[0])),
        // ecdsa and rsa_pkcs1 with SHA-256 and SHA-384, and with SHA-1
        extension(13, &vector(2, &[4, 3, 5, 3, 4, 1, 5, 1, 8, 4, 2, 1, 2, 3])),
        // extended_master_secret, renegotiation_info
        extension(23, &[]),
        extension(0xff01, &[0]),
    ]
    .concat();
    let suites: Vec<u8> = suites.iter().flat_map(|suite| suite.to_be_bytes()).collect();
    let body = [
        version.to_vec(),
        vec![7; 32],
        vector(1, &[]),
        vector(2, &suites),
        vector(1, compression),
        vector(2, &extensions),
    ]
    .concat();
    let message = [vec![1], vector(3, &body)].concat();
    // Records of a first flight say 1.0, whatever is meant.
    [vec![HANDSHAKE], version.min(TLS_1_0).to_vec(), vector(2, &message)].concat()
}

/// What the gateway says first: the type of its record, the first byte of that, and the rest.
async fn answer(gateway: &Gateway, hello: &[u8]) -> Option<(u8, Vec<u8>)> {
    let mut stream = TcpStream::connect(gateway.addr()).await.unwrap();
    stream.write_all(hello).await.unwrap();
    let mut head = [0; 5];
    timeout(SOON, stream.read_exact(&mut head))
        .await
        .expect("an answer in time")
        .ok()?;
    let mut payload = vec![0; usize::from(u16::from_be_bytes([head[3], head[4]]))];
    stream.read_exact(&mut payload).await.ok()?;
    Some((head[0], payload))
}

/// The suite that a ServerHello chose.
fn chosen(payload: &[u8]) -> u16 {
    // Type, length, version, random; then the session's id.
    let id = usize::from(payload[38]);
    u16::from_be_bytes([payload[39 + id], payload[40 + id]])
}

#[tokio::test]
async fn tls_01_nothing_weak_is_agreed_on() {
    let (authority, folder) = (Authority::new("the authority"), Folder::new());
    let tls = folder.pair("site", &authority.issue(&[HOST]));
    let gateway = Setup::default().with(&format!("[server.tls]\n{tls}")).start().await;
    // ECDHE with AES-GCM or ChaCha20 (RFC 5289, RFC 7905), over ECDSA and RSA.
    let good = [0xc02b, 0xc02c, 0xcca9, 0xc02f, 0xc030, 0xcca8];
    let weak: Vec<u16> = [
        // Without forward secrecy: RSA key exchange, with GCM even.
        &[0x009c, 0x009d, 0x002f, 0x0035, 0x003c, 0x003d][..],
        // CBC, with and without forward secrecy.
        &[
            0xc009, 0xc00a, 0xc013, 0xc014, 0xc023, 0xc024, 0xc027, 0xc028, 0x0033, 0x0039, 0x0067,
        ],
        // DHE, whose groups servers chose badly.
        &[0x009e, 0x009f, 0xccaa],
        // 3DES, RC4, DES, export, NULL, anonymous.
        &[
            0x000a, 0xc008, 0xc012, 0x0005, 0x0004, 0xc007, 0xc011, 0x0009, 0x0003, 0x0006, 0x0001, 0x0002, 0x003b,
            0xc006,
        ],
        &[0x0018, 0x0034, 0x006c, 0xc018, 0xc019, 0x00a6],
    ]
    .concat();
    // What is fine is agreed on, whatever stands before it: so a refusal is one of what is weak.
    let (kind, payload) = answer(&gateway, &client_hello(TLS_1_2, &[&weak[..], &good].concat(), &[0]))
        .await
        .unwrap();
    assert_eq!((kind, payload[0]), (HANDSHAKE, SERVER_HELLO));
    assert!(good.contains(&chosen(&payload)), "{:x}", chosen(&payload));
    // Not even if it is offered does it compress.
    if let Some((HANDSHAKE, payload)) = answer(&gateway, &client_hello(TLS_1_2, &good, &[1, 0])).await {
        let id = usize::from(payload[38]);
        assert_eq!(payload[41 + id], 0, "no compression");
    }

    let refused = async |hello: Vec<u8>, what: &str| {
        let said = answer(&gateway, &hello).await;
        let is_refusal = said.as_ref().is_none_or(|(kind, _)| *kind == ALERT);
        assert!(is_refusal, "{what}: {said:?}");
    };
    for suite in &weak {
        refused(client_hello(TLS_1_2, &[*suite], &[0]), &format!("{suite:04x}")).await;
    }
    refused(client_hello(TLS_1_2, &weak, &[0]), "all that is weak").await;
    for version in [SSL_3, TLS_1_0, TLS_1_1] {
        let suites = [&good[..], &weak].concat();
        refused(client_hello(version, &suites, &[0]), &format!("version {version:?}")).await;
    }
    // SSL 2, as some scanners still say it.
    refused(vec![0x80, 0x2e, 1, 3, 1, 0, 0x15, 0, 0, 0, 0x10, 7, 0, 0xc0], "SSL 2").await;

    let client = TlsClient::trusting(&authority);
    assert_eq!(
        client
            .get(gateway.addr(), HOST, "/public/x", "")
            .await
            .unwrap()
            .status(),
        200
    );
    let older = client.only_1_2();
    assert_eq!(
        older.get(gateway.addr(), HOST, "/public/x", "").await.unwrap().status(),
        200
    );
}
