//! Certificates made on the spot, and clients that shake hands with what shows them.

use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::{
    ClientConfig, RootCertStore, SupportedProtocolVersion,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
    version::{TLS12, TLS13},
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncWriteExt, BufReader},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{
    SOON, canary,
    client::Response,
    wire::{Head, read_body},
};

/// Whoever issues certificates.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, as PEM.
#[derive(Clone)]
pub(crate) struct Pair {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate for these hosts.
    pub(crate) fn issue(&self, names: &[&str]) -> Pair {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        self.issue_as(&CertificateParams::new(names).unwrap())
    }

    pub(crate) fn issue_as(&self, params: &CertificateParams) -> Pair {
        let key = KeyPair::generate().unwrap();
        let pair = Pair {
            certificate: params.signed_by(&key, &self.0).unwrap().pem(),
            key: key.serialize_pem(),
        };
        canary::secret("a private key", pair.key.as_str());
        pair
    }
}

impl Pair {
    pub(crate) fn der(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(self.certificate.as_bytes()).unwrap()
    }
}

/// Where certificates lie while a test runs.
pub(crate) struct Folder(TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        // As careful tools do it: nobody sees half a file.
        let fresh = self.0.path().join(format!("{name}.new"));
        fs::write(&fresh, text).unwrap();
        fs::rename(&fresh, &path).unwrap();
        path
    }

    /// Writes a pair, and says it as a section of `gateway.toml` does.
    pub(crate) fn pair(&self, name: &str, pair: &Pair) -> String {
        let certificate = self.write(&format!("{name}.crt"), &pair.certificate);
        let key = self.write(&format!("{name}.key"), &pair.key);
        format!("certificate = '{}'\nkey = '{}'\n", certificate.display(), key.display())
    }
}

/// A client of TLS.
pub(crate) struct TlsClient {
    roots: RootCertStore,
    versions: Vec<&'static SupportedProtocolVersion>,
    protocols: Vec<Vec<u8>>,
    certificate: Option<Pair>,
}

impl TlsClient {
    pub(crate) fn trusting(authority: &Authority) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(authority.0.der().clone()).unwrap();
        Self {
            roots,
            versions: vec![&TLS13, &TLS12],
            protocols: Vec::new(),
            certificate: None,
        }
    }

    pub(crate) fn only_1_2(mut self) -> Self {
        self.versions = vec![&TLS12];
        self
    }

    /// The protocols that it offers (ALPN).
    pub(crate) fn offering(mut self, protocols: &[&str]) -> Self {
        self.protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        self
    }

    pub(crate) fn showing(mut self, pair: &Pair) -> Self {
        self.certificate = Some(pair.clone());
        self
    }

    /// To be reused where sessions are to be resumed.
    pub(crate) fn config(&self) -> Arc<ClientConfig> {
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&self.versions)
            .unwrap()
            .with_root_certificates(self.roots.clone());
        let mut config = match &self.certificate {
            Some(pair) => builder
                .with_client_auth_cert(
                    vec![pair.der()],
                    PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap(),
                )
                .unwrap(),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols.clone_from(&self.protocols);
        Arc::new(config)
    }

    /// Shakes hands, asking for `host`.
    pub(crate) async fn connect(&self, addr: SocketAddr, host: &str) -> io::Result<TlsStream<TcpStream>> {
        connect(self.config(), addr, host).await
    }

    /// A GET over HTTP/1.1 on a connection of its own, with these further fields.
    pub(crate) async fn get(&self, addr: SocketAddr, host: &str, target: &str, fields: &str) -> io::Result<Response> {
        let stream = self.connect(addr, host).await?;
        get_on(stream, host, target, fields).await
    }
}

pub(crate) async fn connect(
    config: Arc<ClientConfig>,
    addr: SocketAddr,
    host: &str,
) -> io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(addr).await?;
    let name = ServerName::try_from(host.to_owned()).unwrap();
    timeout(SOON, TlsConnector::from(config).connect(name, stream)).await?
}

/// A GET over HTTP/1.1.
pub(crate) async fn get_on(
    stream: TlsStream<TcpStream>,
    host: &str,
    target: &str,
    fields: &str,
) -> io::Result<Response> {
    let mut stream = BufReader::new(stream);
    let request = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n");
    stream.write_all(request.as_bytes()).await?;
    stream.flush().await?;
    let exchange = async {
        let head = Head::read(&mut stream)
            .await?
            .ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?;
        let body = read_body(&mut stream, head.response_framing("GET")).await?;
        Ok(Response { head, body })
    };
    timeout(SOON, exchange).await?
}
