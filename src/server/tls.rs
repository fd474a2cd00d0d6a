//! TLS towards clients: versions, certificates, client certificates; and how all of it is replaced while in use.
//!
//! Whatever changes, a configuration, a file, replaces the whole of [`Terms`] at once: handshakes go by what is there
//! when they begin, and tickets from before are no good any more, so that nobody resumes past new rules. A change that
//! can't be loaded changes nothing, and is told. There is no 0-RTT: what comes by it can be sent again by anybody. Where
//! clients are asked for certificates there are no tickets either: whoever resumes shows none, so that it would never be seen
//! that theirs has expired.
//!
//! [`Issued`] is for certificates that come from elsewhere than files. Who orders them (ACME) implements it and gives it
//! to [`Tls::new`]; its certificates are shown for hosts that no file is for. While it has a challenge pending, a client
//! that speaks `acme-tls/1` alone is shown the answer, whatever `client_auth` says, and nothing else is said to it. What
//! it answers by plain HTTP (`http-01`) is asked for by `server::answer`, before anything else is.

pub(crate) mod certificate;
mod client_certificate;
mod sni;

use std::{
    fmt, fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use rustls::{
    ServerConfig, SupportedProtocolVersion,
    crypto::{CryptoProvider, aws_lc_rs},
    server::{Acceptor, ClientHello, NoServerSessionStorage, ResolvesServerCert},
    sign::{CertifiedKey, SingleCertAndKey},
    version::{TLS12, TLS13},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    time::{MissedTickBehavior, interval},
};
use tokio_rustls::{LazyConfigAcceptor, TlsAcceptor, server::TlsStream};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

pub use self::certificate::CertificateError;
use self::{
    certificate::Certificate,
    client_certificate::Asked,
    sni::{ACME_TLS, Certificates, Resolver},
};
use crate::{
    chain::Chain,
    clock::{Clock, Timestamp},
    config::{self, ClientAuth, ConfigErrors, TlsVersion},
    policy::connection::{self, ClientCertificate, ClientTerms},
};

const HTTP_2: &[u8] = b"h2";
const HTTP_1: &[u8] = b"http/1.1";

/// How often the files are looked at. A change is loaded once they have stood still for so long: certificate and key
/// are rarely replaced in the same instant.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Certificates that come from elsewhere than files, and the answers to an authority that looks. Hosts are in lower
/// case, without port and trailing dot.
pub trait Issued: fmt::Debug + Send + Sync {
    /// The certificate for a host: for that one alone.
    fn certificate(&self, host: &str) -> Option<Arc<CertifiedKey>>;

    /// What to show whoever asks for a host by `acme-tls/1` (RFC 8737).
    fn challenge_certificate(&self, host: &str) -> Option<Arc<CertifiedKey>>;

    /// Whether any challenge is pending. Asked before each handshake.
    fn is_challenged(&self) -> bool;

    /// What to answer a GET of this path with (RFC 8555, 8.3), as `application/octet-stream`.
    fn key_authorization(&self, host: &str, path: &str) -> Option<String>;
}

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    #[error("the authorities of {} can't be used: {problem}", .file.display())]
    ClientCa { file: PathBuf, problem: String },
    #[error("TLS can't be set up")]
    Rustls(#[from] rustls::Error),
    #[error("the certificate in {} has expired, and the one in use has not", .0.display())]
    Expired(PathBuf),
}

/// What upstreams are told of the first certificate in a file, as if a client had shown it and it had been verified.
pub fn told_of(file: &Path) -> Result<ClientCertificate, TlsError> {
    let certificates = certificate::certificates(file)?;
    let first = certificates.first().map(client_certificate::told);
    Ok(first.unwrap_or_default())
}

impl TlsError {
    /// The same as an error of the configuration, about the key whose file it is.
    pub fn in_config(&self, settings: &config::Tls) -> ConfigErrors {
        settings.written.wrong(self.file(), Chain(self).to_string())
    }

    /// The file that has to change, and the key that names it, where that is known.
    fn file(&self) -> Option<(&Path, Option<&'static str>)> {
        match self {
            Self::Certificate(error) => Some(error.file()),
            Self::ClientCa { file, .. } => Some((file, Some("client_ca"))),
            Self::Expired(file) => Some((file, Some("certificate"))),
            Self::Rustls(_) => None,
        }
    }
}

/// What the handshakes of all workers go by.
#[derive(Debug)]
pub struct Tls {
    terms: ArcSwap<Terms>,
    issued: Option<Arc<dyn Issued>>,
    clock: Clock,
    /// Changes of files that were taken, and that were not.
    reloaded: AtomicU64,
    refused: AtomicU64,
}

/// What handshakes go by, loaded.
pub struct Terms {
    settings: config::Tls,
    config: Arc<ServerConfig>,
    resolver: Arc<Resolver>,
    stamps: Vec<Stamp>,
    asked: Asked,
    clients: Arc<ClientTerms>,
}

/// By which a changed file is known.
type Stamp = Option<(SystemTime, u64, u64)>;

/// A handshake that came to a good end.
#[derive(Debug)]
pub struct Accepted<S> {
    pub stream: TlsStream<S>,
    pub facts: connection::Tls,
    /// The client chose HTTP/2.
    pub http2: bool,
}

impl Tls {
    /// Loads everything that `settings` name. `issued`: certificates that come from elsewhere.
    pub fn new(settings: &config::Tls, issued: Option<Arc<dyn Issued>>, clock: Clock) -> Result<Self, TlsError> {
        let terms = Terms::load(settings, issued.as_ref())?;
        terms.warn(clock.now());
        Ok(Self {
            terms: ArcSwap::from_pointee(terms),
            issued,
            clock,
            reloaded: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        })
    }

    /// Whether a gateway could start with `settings`.
    pub fn check(settings: &config::Tls) -> Result<(), TlsError> {
        Terms::load(settings, None).map(drop)
    }

    /// What other settings come to, all files read again. Nothing is changed yet.
    pub fn next(&self, settings: &config::Tls) -> Result<Terms, TlsError> {
        let next = Terms::load(settings, self.issued.as_ref());
        let next = next.and_then(|next| {
            let now = self.clock.now();
            match next.expired(now).filter(|_| self.terms.load().expired(now).is_none()) {
                Some(expired) => Err(TlsError::Expired(expired.file.clone())),
                None => Ok(next),
            }
        });
        if next.is_err() {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        next
    }

    /// From now on handshakes go by `terms`. Clients that might not come in by them shake hands again.
    pub fn put_in_force(&self, mut terms: Terms) {
        terms.warn(self.clock.now());
        let before = self.terms.load_full();
        let goes_on = terms.asked.includes(&before.asked);
        if goes_on {
            terms.clients = Arc::clone(&before.clients);
        }
        self.terms.store(Arc::new(terms));
        if !goes_on {
            before.clients.replace();
        }
        self.reloaded.fetch_add(1, Ordering::Relaxed);
    }

    /// Loads what has changed on disk, until `stop`.
    pub async fn watch(self: Arc<Self>, stop: CancellationToken) {
        let mut tick = interval(LOOK_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut seen = self.terms.load().stamps.clone();
        // What was refused is not tried again until it changes.
        let mut refused = None;
        while stop.run_until_cancelled(tick.tick()).await.is_some() {
            let terms = self.terms.load_full();
            let now = stamps(&terms.settings);
            let settled = now == seen;
            seen.clone_from(&now);
            if !settled || now == terms.stamps || refused.as_ref() == Some(&now) {
                continue;
            }
            match self.next(&terms.settings) {
                Ok(next) => {
                    self.put_in_force(next);
                    info!("certificates were read again");
                }
                Err(error) => {
                    error!(
                        error = %Chain(&error),
                        "changed certificate files can't be used; those from before stay in use"
                    );
                    refused = Some(now);
                }
            }
        }
    }

    /// Shakes hands. `None`: it was an authority that looked, and has its answer.
    ///
    /// Not cancel-safe; to be bounded by the caller.
    pub async fn accept<S>(&self, stream: S) -> io::Result<Option<Accepted<S>>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let terms = self.terms.load_full();
        let config = Arc::clone(&terms.config);
        let stream = match self.issued.as_ref().filter(|issued| issued.is_challenged()) {
            None => TlsAcceptor::from(config).accept(stream).await?,
            Some(issued) => {
                let start = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
                if let Some(key) = answer_to_authority(&start.client_hello(), &**issued) {
                    let mut told = start.into_stream(challenge_config(key)?).await?;
                    told.shutdown().await?;
                    return Ok(None);
                }
                start.into_stream(config).await?
            }
        };
        Ok(Some(terms.accepted(stream)))
    }

    /// When the certificates in use end, by their files.
    pub(crate) fn expiries(&self) -> Vec<(String, Timestamp)> {
        let terms = self.terms.load();
        let all = terms.resolver.certificates.all().iter();
        all.map(|certificate| (certificate.file.display().to_string(), certificate.expires_at))
            .collect()
    }

    /// Reloads so far: those that took effect, and those that were refused.
    pub(crate) fn reloads(&self) -> (u64, u64) {
        (
            self.reloaded.load(Ordering::Relaxed),
            self.refused.load(Ordering::Relaxed),
        )
    }
}

impl Terms {
    fn load(settings: &config::Tls, issued: Option<&Arc<dyn Issued>>) -> Result<Self, TlsError> {
        // Before the files are read: what changes meanwhile is seen as a change.
        let stamps = stamps(settings);
        let provider = Arc::new(aws_lc_rs::default_provider());
        let certificates = settings
            .certificates
            .iter()
            .map(|files| Certificate::load(files, &provider).map(Arc::new))
            .collect::<Result<_, _>>()?;
        let resolver = Arc::new(Resolver {
            certificates: Certificates::new(certificates),
            issued: issued.cloned(),
        });
        let asked = Asked::load(&settings.clients)?;
        let shown_by = Arc::clone(&resolver) as Arc<dyn ResolvesServerCert>;
        Ok(Self {
            config: server_config(settings.min_version, &asked, &provider, shown_by)?,
            settings: settings.clone(),
            resolver,
            stamps,
            asked,
            clients: Arc::default(),
        })
    }

    fn accepted<S>(&self, stream: TlsStream<S>) -> Accepted<S> {
        let (_, session) = stream.get_ref();
        let asked = session
            .server_name()
            .map(|host| host.trim_end_matches('.').to_ascii_lowercase());
        let client = session
            .peer_certificates()
            .and_then(<[_]>::first)
            .map(|certificate| Arc::new(client_certificate::told(certificate)));
        Accepted {
            http2: session.alpn_protocol() == Some(HTTP_2),
            facts: connection::Tls {
                shown: self.resolver.shown(asked.as_deref()),
                asked: asked.map(String::into_boxed_str),
                client,
                agreed_by: Arc::clone(&self.clients),
            },
            stream,
        }
    }

    fn expired(&self, now: Timestamp) -> Option<&Arc<Certificate>> {
        let mut all = self.resolver.certificates.all().iter();
        all.find(|certificate| certificate.expires_at <= now)
    }

    /// Tells of what works, but not for everybody.
    fn warn(&self, now: Timestamp) {
        for certificate in self.resolver.certificates.all() {
            let file = certificate.file.display();
            if certificate.expires_at <= now {
                warn!(expired_at = %certificate.expires_at.rfc3339(), "the certificate in {file} has expired: clients refuse it");
            }
            if certificate.names.is_empty() {
                warn!("the certificate in {file} names no host (subjectAltName): clients refuse it");
            }
            if certificate.is_ca {
                warn!(
                    "the certificate in {file} is an authority's own (basicConstraints CA): some clients refuse it as a \
                     server's; `openssl req -x509` makes such ones unless told -addext basicConstraints=CA:FALSE"
                );
            }
        }
    }
}

impl fmt::Debug for Terms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Terms({:?})", self.resolver.certificates.all())
    }
}

fn server_config(
    min_version: TlsVersion,
    clients: &Asked,
    provider: &Arc<CryptoProvider>,
    resolver: Arc<dyn ResolvesServerCert>,
) -> Result<Arc<ServerConfig>, TlsError> {
    let versions: &[&SupportedProtocolVersion] = match min_version {
        TlsVersion::Tls12 => &[&TLS13, &TLS12],
        TlsVersion::Tls13 => &[&TLS13],
    };
    let builder = ServerConfig::builder_with_provider(Arc::clone(provider)).with_protocol_versions(versions)?;
    let verifier = clients.verifier(provider)?;
    let resumes = verifier.is_none();
    let builder = match verifier {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(resolver);
    config.alpn_protocols = vec![HTTP_2.to_vec(), HTTP_1.to_vec()];
    // Tickets, whose keys are drawn anew every six hours; nothing is kept here for a session.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    if resumes {
        config.ticketer = aws_lc_rs::Ticketer::new()?;
    } else {
        config.send_tls13_tickets = 0;
    }
    config.max_early_data_size = 0;
    Ok(Arc::new(config))
}

/// What to show an authority, if it is one that says `hello`: it speaks nothing else.
fn answer_to_authority(hello: &ClientHello<'_>, issued: &dyn Issued) -> Option<Arc<CertifiedKey>> {
    let mut protocols = hello.alpn().into_iter().flatten();
    if protocols.next() != Some(ACME_TLS) || protocols.next().is_some() {
        return None;
    }
    issued.challenge_certificate(&hello.server_name()?.to_ascii_lowercase())
}

fn challenge_config(key: Arc<CertifiedKey>) -> io::Result<Arc<ServerConfig>> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(io::Error::other)?;
    let mut config = builder
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(key)));
    config.alpn_protocols = vec![ACME_TLS.to_vec()];
    Ok(Arc::new(config))
}

fn stamps(settings: &config::Tls) -> Vec<Stamp> {
    let pairs = settings.certificates.iter();
    let files = pairs.flat_map(|files| [&files.certificate, &files.key]);
    let client_ca = match &settings.clients {
        ClientAuth::NotAsked => None,
        ClientAuth::Optional(file) | ClientAuth::Required(file) => Some(file),
    };
    files.chain(client_ca).map(|file| stamp(file)).collect()
}

fn stamp(file: &Path) -> Stamp {
    // Of what a link leads to: that is how certificates are replaced in Kubernetes and by certbot.
    let metadata = fs::metadata(file).ok()?;
    Some((metadata.modified().ok()?, metadata.len(), metadata.ino()))
}
