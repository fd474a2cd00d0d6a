//! `[upstreams.*.tls]`: whom https endpoints have to be, and what the gateway shows them.
//!
//! The files are read here, so that `vestibule check` knows what is wrong with them, and so that two configurations
//! are equal only if what the files say is: a reload takes over a renewed certificate.

use std::{fs::File, io, io::Read as _, path::Path, sync::Arc};

use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
    sign::CertifiedKey,
};
use serde_json::json;

use crate::config::{
    found::{Found, Sight, Wrong},
    kind::{Kind, parsed, text_schema},
    section::Section,
};

/// A system's whole set of authorities has about a quarter of that.
const MAX_PEM_BYTES: u64 = 1024 * 1024;

/// What TLS to an upstream goes by.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct UpstreamTls {
    /// The authorities that may vouch for endpoints, in place of the system's.
    pub ca: Option<Vec<CertificateDer<'static>>>,
    pub identity: Option<ClientIdentity>,
    /// Whose certificate is expected; `None`: the endpoint's own host.
    pub server_name: Option<ServerName<'static>>,
}

/// What the gateway shows an endpoint that asks who calls. The key belongs to the first certificate.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ClientIdentity {
    pub chain: Vec<CertificateDer<'static>>,
    /// Its `Debug` does not print it.
    pub key: Arc<PrivateKeyDer<'static>>,
}

impl UpstreamTls {
    pub(super) fn read(s: &mut Section<'_>) -> Option<Self> {
        let ca = s
            .key(
                "ca",
                "Who may have signed the endpoints' certificates, in place of the system's authorities.",
                authorities(),
            )
            .optional("upstream-ca.crt");
        let certificate = s
            .key(
                "certificate",
                "The certificate that the gateway shows to endpoints that ask for one, and those that lead to its \
                 authority. Read again at a reload.",
                certificates(),
            )
            .optional("gateway.crt");
        let key = s
            .key("key", "The key of `certificate`.", private_key())
            .optional("gateway.key");
        let server_name = s
            .key(
                "server_name",
                "Whose certificate endpoints have to show, also sent as SNI. Absent: the host that the endpoint's URL \
                 names.",
                parsed("a host name such as \"api.internal\", or an address", |text| {
                    ServerName::try_from(text.to_owned()).map_err(|_| "neither a host name nor an address".into())
                }),
            )
            .optional("api.internal");
        let identity = match (certificate, key) {
            (Some(Some(chain)), Some(Some(key))) => identity(s, chain, key).map(Some),
            (Some(None), Some(None)) => Some(None),
            (Some(Some(_)), Some(None)) => {
                s.report(s.wrong("certificate", "without its key").allowed("`key` as well"));
                None
            }
            (Some(None), Some(Some(_))) => {
                s.report(
                    s.wrong("key", "without its certificate")
                        .allowed("`certificate` as well"),
                );
                None
            }
            _ => None,
        };
        Some(Self {
            ca: ca?,
            identity: identity?,
            server_name: server_name?,
        })
    }
}

fn identity(
    s: &Section<'_>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Option<ClientIdentity> {
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    match CertifiedKey::from_der(chain.clone(), key.clone_key(), &provider) {
        Ok(_) => Some(ClientIdentity {
            chain,
            key: Arc::new(key),
        }),
        Err(error) => {
            s.report(
                s.wrong("key", format!("it can't be used with `certificate`: {error}"))
                    .allowed("the private key of the first certificate in `certificate`"),
            );
            None
        }
    }
}

fn authorities() -> Kind<Vec<CertificateDer<'static>>> {
    pem_file("the path of a file with certificates of authorities in PEM", |pem| {
        let certificates = certificates_in(pem)?;
        let mut roots = RootCertStore::empty();
        for certificate in &certificates {
            roots
                .add(certificate.clone())
                .map_err(|error| format!("it holds a certificate that can't be an authority's: {error}"))?;
        }
        Ok(certificates)
    })
}

fn certificates() -> Kind<Vec<CertificateDer<'static>>> {
    pem_file(
        "the path of a file with certificates in PEM, the gateway's own first",
        certificates_in,
    )
}

fn private_key() -> Kind<PrivateKeyDer<'static>> {
    pem_file("the path of a file with a private key in PEM", |pem| {
        PrivateKeyDer::from_pem_slice(pem)
            .map_err(|_| "no private key in PEM, which begins with -----BEGIN PRIVATE KEY-----".into())
    })
}

fn certificates_in(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Wrong> {
    match CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>() {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) | Err(_) => Err("no certificates in PEM, which begin with -----BEGIN CERTIFICATE-----".into()),
    }
}

/// What a file holds; a relative path begins at the configuration's folder. Errors show its path alone.
fn pem_file<T: 'static>(allowed: &'static str, parse: impl Fn(&[u8]) -> Result<T, Wrong> + 'static) -> Kind<T> {
    let schema = text_schema(&json!({ "type": "string" }));
    Kind::new(allowed, schema, move |found: &Found<'_>| {
        let text = found.text(allowed, Sight::Public)?;
        let path = found.reader.folder.join(&text);
        let pem = read(&path);
        found.reader.read_file(path, pem.as_deref().ok());
        let outcome = pem
            .map_err(|error| format!("the file can't be read: {error}").into())
            .and_then(|pem| {
                found.reader.made_of(&String::from_utf8_lossy(&pem));
                parse(&pem)
            });
        match outcome {
            Ok(value) => Some(value),
            Err(wrong) => {
                found.report(wrong, Some(format!("{text:?}")), allowed);
                None
            }
        }
    })
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut pem = Vec::new();
    File::open(path)?.take(MAX_PEM_BYTES + 1).read_to_end(&mut pem)?;
    if pem.len() as u64 > MAX_PEM_BYTES {
        return Err(io::Error::other("it is longer than 1 MiB"));
    }
    Ok(pem)
}
