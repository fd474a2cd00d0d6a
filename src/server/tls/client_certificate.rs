//! Certificates that clients show: who may have issued them, and what upstreams are told.
//!
//! Only a certificate that was verified is told of. `Client-Cert` is RFC 9440's; the rest are for applications that
//! don't parse certificates. A value longer than an upstream commonly accepts is left out.

use std::{path::Path, sync::Arc};

use base64ct::{Base64, Encoding as _};
use http::{HeaderName, HeaderValue};
use rustls::{
    RootCertStore,
    crypto::CryptoProvider,
    pki_types::CertificateDer,
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};
use sha2::{Digest as _, Sha256};
use x509_parser::{
    extensions::GeneralName,
    prelude::{FromDer as _, X509Certificate},
};

use super::{TlsError, certificate::certificates};
use crate::{
    config::ClientAuth,
    policy::connection::ClientCertificate,
    session::identity_headers::{MAX_VALUE, encoded},
};

const CLIENT_CERT: HeaderName = HeaderName::from_static("client-cert");
const SUBJECT: HeaderName = HeaderName::from_static("x-client-cert-subject");
const NAMES: HeaderName = HeaderName::from_static("x-client-cert-names");
const FINGERPRINT: HeaderName = HeaderName::from_static("x-client-cert-fingerprint");

/// Who judges the certificates of clients; `None`: they are not asked for any.
pub(super) fn verifier(
    clients: &ClientAuth,
    provider: &Arc<CryptoProvider>,
) -> Result<Option<Arc<dyn ClientCertVerifier>>, TlsError> {
    let (file, required) = match clients {
        ClientAuth::NotAsked => return Ok(None),
        ClientAuth::Optional(file) => (file, false),
        ClientAuth::Required(file) => (file, true),
    };
    let builder = WebPkiClientVerifier::builder_with_provider(authorities(file)?, Arc::clone(provider));
    let builder = if required {
        builder
    } else {
        builder.allow_unauthenticated()
    };
    let verifier = builder.build().map_err(|error| unusable(file, error.to_string()))?;
    Ok(Some(verifier))
}

fn authorities(file: &Path) -> Result<Arc<RootCertStore>, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(file)? {
        roots
            .add(certificate)
            .map_err(|error| unusable(file, error.to_string()))?;
    }
    Ok(Arc::new(roots))
}

fn unusable(file: &Path, problem: String) -> TlsError {
    TlsError::ClientCa {
        file: file.to_path_buf(),
        problem,
    }
}

/// What upstreams are told of a client's certificate.
pub(super) fn told(der: &CertificateDer<'_>) -> ClientCertificate {
    let mut texts = vec![
        (CLIENT_CERT, format!(":{}:", Base64::encode_string(der))),
        (FINGERPRINT, hex(&Sha256::digest(der))),
    ];
    if let Ok((_, parsed)) = X509Certificate::from_der(der) {
        texts.push((SUBJECT, encoded(&parsed.subject().to_string(), b"")));
        let alternative = parsed.subject_alternative_name().ok().flatten();
        let names: Vec<String> = alternative
            .iter()
            .flat_map(|extension| &extension.value.general_names)
            .filter_map(readable)
            .map(|name| encoded(&name, b","))
            .collect();
        texts.push((NAMES, names.join(",")));
    }
    let headers = texts
        .into_iter()
        .filter(|(_, text)| !text.is_empty() && text.len() <= MAX_VALUE)
        .filter_map(|(name, text)| Some((name, HeaderValue::try_from(text).ok()?)));
    ClientCertificate {
        headers: headers.collect(),
    }
}

/// A name that an application may go by: a host, an address, a mailbox, a URI (as SPIFFE has it).
fn readable(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(text) | GeneralName::RFC822Name(text) | GeneralName::URI(text) => Some((*text).to_owned()),
        GeneralName::IPAddress(bytes) => super::certificate::address(bytes),
        _ => None,
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(64), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
