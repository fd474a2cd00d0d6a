//! A certificate and its key, out of their files: fit for handshakes, or an error that says how to mend it.

use std::{
    fmt,
    fs::File,
    io::{self, Read as _},
    net::{Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
    sync::Arc,
};

use memchr::memmem;
use rustls::{
    crypto::CryptoProvider,
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject as _},
    },
    sign::CertifiedKey,
};
use x509_parser::{
    extensions::GeneralName,
    prelude::{FromDer as _, X509Certificate},
};

use crate::{clock::Timestamp, config::CertificateFiles, policy::connection::CertificateNames};

/// No chain of certificates is longer; `certificate = "/dev/zero"` must end.
const MAX_FILE: u64 = 1 << 20;

/// A certificate with its key, ready for handshakes.
pub(crate) struct Certificate {
    pub(crate) key: Arc<CertifiedKey>,
    pub(crate) names: Arc<CertificateNames>,
    pub(crate) expires_at: Timestamp,
    /// It may sign others. Browsers take it as a server's; rustls and others don't.
    pub(crate) is_ca: bool,
    pub(crate) file: PathBuf,
}

/// Why a certificate can't be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    #[error("{} can't be read", .file.display())]
    Read {
        file: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} is no PEM file that can be read", .file.display())]
    Pem {
        file: PathBuf,
        #[source]
        source: pem::Error,
    },
    #[error("{} holds no certificate: it should begin with -----BEGIN CERTIFICATE-----{hint}", .file.display())]
    NoCertificate { file: PathBuf, hint: &'static str },
    #[error("{} holds no private key: it should begin with -----BEGIN PRIVATE KEY-----{hint}", .file.display())]
    NoKey { file: PathBuf, hint: &'static str },
    #[error("the certificate in {} is malformed: {problem}", .file.display())]
    Malformed { file: PathBuf, problem: String },
    #[error("the private key in {} can't be used", .file.display())]
    Key {
        file: PathBuf,
        #[source]
        source: rustls::Error,
    },
    #[error("the key in {} does not belong to the certificate in {}{hint}", .key.display(), .certificate.display())]
    Mismatch {
        certificate: PathBuf,
        key: PathBuf,
        hint: String,
    },
}

impl CertificateError {
    /// The file that has to change, and the key that names it, where that is known.
    pub(super) fn file(&self) -> (&Path, Option<&'static str>) {
        match self {
            Self::Read { file, .. } | Self::Pem { file, .. } => (file, None),
            Self::NoCertificate { file, .. } | Self::Malformed { file, .. } => (file, Some("certificate")),
            Self::NoKey { file, .. } | Self::Key { file, .. } | Self::Mismatch { key: file, .. } => (file, Some("key")),
        }
    }
}

impl Certificate {
    pub(crate) fn load(files: &CertificateFiles, provider: &CryptoProvider) -> Result<Self, CertificateError> {
        let chain = certificates(&files.certificate)?;
        let key = private_key(&files.key)?;
        let Some(first) = chain.first() else {
            return Err(no_certificate(&files.certificate, b""));
        };
        let facts = Facts::of(first, &files.certificate)?;
        let key = provider
            .key_provider
            .load_private_key(key)
            .map_err(|source| CertificateError::Key {
                file: files.key.clone(),
                source,
            })?;
        let certified = CertifiedKey::new(chain, key);
        if let Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::KeyMismatch)) = certified.keys_match() {
            return Err(CertificateError::Mismatch {
                certificate: files.certificate.clone(),
                key: files.key.clone(),
                hint: fitting(&certified),
            });
        }
        Ok(Self {
            key: Arc::new(certified),
            names: Arc::new(facts.names),
            expires_at: facts.expires_at,
            is_ca: facts.is_ca,
            file: files.certificate.clone(),
        })
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Certificate({})", self.file.display())
    }
}

/// Whether the key belongs to another certificate of the file: chains are often written in the wrong order.
fn fitting(certified: &CertifiedKey) -> String {
    let fits = |certificate: &CertificateDer<'static>| {
        CertifiedKey::new(vec![certificate.clone()], Arc::clone(&certified.key))
            .keys_match()
            .is_ok()
    };
    match certified.cert.iter().skip(1).position(fits) {
        Some(behind_first) => format!(
            ", but to the certificate at place {} of that file: put that one first",
            behind_first + 2
        ),
        None => ": one of the two is of another pair".to_owned(),
    }
}

/// What a certificate says of itself.
struct Facts {
    names: CertificateNames,
    expires_at: Timestamp,
    is_ca: bool,
}

impl Facts {
    fn of(der: &CertificateDer<'_>, file: &Path) -> Result<Self, CertificateError> {
        let malformed = |problem: String| CertificateError::Malformed {
            file: file.to_owned(),
            problem,
        };
        let (_, parsed) = X509Certificate::from_der(der).map_err(|error| malformed(error.to_string()))?;
        let alternative = parsed
            .subject_alternative_name()
            .map_err(|error| malformed(error.to_string()))?;
        let names: Vec<String> = alternative
            .iter()
            .flat_map(|extension| &extension.value.general_names)
            .filter_map(host_of)
            .collect();
        Ok(Self {
            names: CertificateNames::new(names.iter().map(String::as_str)),
            expires_at: Timestamp::from_secs(parsed.validity().not_after.timestamp()),
            is_ca: parsed.is_ca(),
        })
    }
}

/// A name that a URL could have as its host.
fn host_of(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => address(bytes),
        _ => None,
    }
}

pub(super) fn address(bytes: &[u8]) -> Option<String> {
    if let Ok(octets) = <[u8; 4]>::try_from(bytes) {
        return Some(Ipv4Addr::from(octets).to_string());
    }
    let octets = <[u8; 16]>::try_from(bytes).ok()?;
    Some(format!("[{}]", Ipv6Addr::from(octets)))
}

/// All certificates of a file, at least one.
pub(crate) fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let bytes = read(file)?;
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&bytes)
        .collect::<Result<_, _>>()
        .map_err(|source| CertificateError::Pem {
            file: file.to_owned(),
            source,
        })?;
    if chain.is_empty() {
        return Err(no_certificate(file, &bytes));
    }
    Ok(chain)
}

fn no_certificate(file: &Path, bytes: &[u8]) -> CertificateError {
    let holds = |text: &str| memmem::find(bytes, text.as_bytes()).is_some();
    let hint = if holds("PRIVATE KEY-----") {
        "; it holds a private key, so perhaps the two files are swapped"
    } else if holds("CERTIFICATE REQUEST-----") {
        "; it holds a request for one, which an authority turns into a certificate"
    } else {
        ""
    };
    CertificateError::NoCertificate {
        file: file.to_owned(),
        hint,
    }
}

fn private_key(file: &Path) -> Result<PrivateKeyDer<'static>, CertificateError> {
    let bytes = zeroize::Zeroizing::new(read(file)?);
    let holds = |text: &str| memmem::find(&bytes, text.as_bytes()).is_some();
    // Either way of saying so: PKCS #8's, and that of OpenSSL's older formats, whose block looks like a broken one.
    let encrypted = || holds("ENCRYPTED PRIVATE KEY-----") || holds("Proc-Type: 4,ENCRYPTED");
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|source| match source {
        source if encrypted() || matches!(source, pem::Error::NoItemsFound) => {
            let hint = if encrypted() {
                "; it is encrypted: `openssl pkey -in FILE` writes it in the clear, for the gateway's user alone to read"
            } else if holds("CERTIFICATE-----") {
                "; it holds a certificate, so perhaps the two files are swapped"
            } else {
                ""
            };
            CertificateError::NoKey {
                file: file.to_owned(),
                hint,
            }
        }
        source => CertificateError::Pem {
            file: file.to_owned(),
            source,
        },
    })
}

fn read(file: &Path) -> Result<Vec<u8>, CertificateError> {
    let mut bytes = Vec::new();
    let reading = File::open(file).and_then(|open| open.take(MAX_FILE + 1).read_to_end(&mut bytes));
    let failed = |source| CertificateError::Read {
        file: file.to_owned(),
        source,
    };
    reading.map_err(failed)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(failed(io::Error::other(format!("larger than {MAX_FILE} bytes"))));
    }
    Ok(bytes)
}
