//! A certificate authority: the process of `tests/clients/acme`, which its `README.md` describes; one a test.

use std::{
    env,
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
    time_provider::TimeProvider,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use vestibule::clock::{Clock, Timestamp};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::client::Call;

/// Where its Python environment is, if not in the usual place.
const VARIABLE: &str = "VESTIBULE_ACME";

pub(crate) struct Authority {
    directory: String,
    control: SocketAddr,
    folder: TempDir,
    /// Its standard input is open as long as this is here, and it runs as long.
    _child: Child,
}

impl Authority {
    /// Issues certificates that begin at `clock`'s time.
    pub(crate) async fn start(clock: &Clock) -> Self {
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        let venv = env::var_os(VARIABLE).map_or_else(|| root.join(".vestibule/acme"), PathBuf::from);
        let python = venv.join("bin/python");
        assert!(
            python.exists(),
            "{} is missing: `make test` installs what tests/clients/acme/requirements.txt names, or {VARIABLE} says \
             where it is",
            python.display()
        );
        let folder = tempfile::tempdir().unwrap();
        let mut child = Command::new(python)
            .arg(root.join("tests/clients/acme/authority.py"))
            .arg(folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let said: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("no authority: {line:?}"));
        let authority = Self {
            directory: said["directory"].as_str().unwrap().to_owned(),
            control: said["control"].as_str().unwrap().parse().unwrap(),
            folder,
            _child: child,
        };
        authority.tell(&json!({ "now": seconds(clock.now()) })).await;
        authority
    }

    /// `[server.acme]` for it.
    pub(crate) fn settings(&self, domains: &[&str]) -> String {
        format!(
            "[server.acme]\ndomains = {domains:?}\nagree_to_terms = true\ndirectory = '{}'\nca = '{}'\n",
            self.directory,
            self.root().display()
        )
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("root.pem")
    }

    /// Lays `what` over what it has been told.
    pub(crate) async fn tell(&self, what: &Value) {
        let answer = self.control("POST").json(what).await;
        assert_eq!(answer.status(), 200, "{}", answer.text());
    }

    /// What happens from now on, and nothing else of the kind.
    pub(crate) async fn fails(&self, faults: &Value) {
        self.tell(&json!({ "faults": faults })).await;
    }

    /// Where to look, by each kind of challenge.
    pub(crate) async fn looks_at(&self, tls: &[SocketAddr], plain: &[SocketAddr]) {
        let addresses = |all: &[SocketAddr]| all.iter().map(ToString::to_string).collect::<Vec<_>>();
        let look = json!({ "look": { "tls-alpn-01": addresses(tls), "http-01": addresses(plain) } });
        self.tell(&look).await;
    }

    /// One of the things that it counts, or what it was last sent.
    pub(crate) async fn saw(&self, name: &str) -> Value {
        self.control("GET").await.json()[name].clone()
    }

    pub(crate) async fn count(&self, name: &str) -> u64 {
        self.saw(name).await.as_u64().unwrap()
    }

    fn control(&self, method: &str) -> Call {
        Call::new(self.control, "http://localhost", method, "/").undescribed()
    }

    /// What a browser at `clock`'s time sees that trusts this authority alone; `None`: no connection comes about.
    pub(crate) async fn seen_by_a_browser(&self, addr: SocketAddr, name: &'static str, clock: &Clock) -> Option<Shown> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.root()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_details(provider, Arc::new(At(clock.now())))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let stream = TcpStream::connect(addr).await.unwrap();
        let name = ServerName::try_from(name).unwrap();
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.ok()?;
        let leaf = stream.get_ref().1.peer_certificates()?.first()?;
        let (_, leaf) = X509Certificate::from_der(leaf).unwrap();
        Some(Shown {
            serial: leaf.raw_serial().to_vec(),
            expires_at: Timestamp::from_secs(leaf.validity().not_after.timestamp()),
        })
    }
}

/// The certificate that a browser was shown, and found good.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Shown {
    pub(crate) serial: Vec<u8>,
    pub(crate) expires_at: Timestamp,
}

fn seconds(at: Timestamp) -> i64 {
    at.micros() / 1_000_000
}

/// The time that certificates are judged at.
#[derive(Debug)]
struct At(Timestamp);

impl TimeProvider for At {
    fn current_time(&self) -> Option<UnixTime> {
        let seconds = u64::try_from(seconds(self.0)).unwrap();
        Some(UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
    }
}
