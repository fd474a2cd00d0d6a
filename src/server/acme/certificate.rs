//! Certificates as rustls wants them: those that an authority issued, and those that answer its `acme-tls/1`.
//!
//! What an authority sends is judged before it is used or kept: it must be for the domain, for the key that was made for
//! it, and valid now. A certificate that browsers refuse is worse than the one in use.

use std::sync::Arc;

use instant_acme::CertificateIdentifier;
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, KeyPair};
use rustls::{
    crypto::aws_lc_rs::sign::any_supported_type,
    pki_types::{CertificateDer, Der, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject},
    sign::CertifiedKey,
};
use sha2::{Digest, Sha256};
use x509_parser::{
    extensions::{GeneralName, ParsedExtension},
    prelude::{FromDer, X509Certificate},
};
use zeroize::Zeroizing;

use crate::clock::Timestamp;

/// Leaf, an intermediate or two: a chain that is longer is none.
const MAX_CHAIN: usize = 10;

/// Why a certificate is of no use.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    #[error("the certificate can't be read")]
    Unreadable,
    #[error("the certificate is not for {0}")]
    OtherName(String),
    #[error("the certificate is valid from {from} to {to}, which is not now: are the clocks right?", from = .from.rfc3339(), to = .to.rfc3339())]
    NotNow { from: Timestamp, to: Timestamp },
    #[error("certificate and private key don't belong together")]
    Key(#[source] rustls::Error),
    #[error("a key or a request for a certificate could not be made")]
    Making(#[source] rcgen::Error),
}

/// A new key, and the request to certify it for a domain.
pub(super) struct Request {
    /// PKCS #8.
    pub private_key: Zeroizing<Vec<u8>>,
    /// PKCS #10 in DER.
    pub csr: Vec<u8>,
}

impl Request {
    /// The key is a new one each time: P-256, which every client knows and which costs a handshake least.
    pub(super) fn new(domain: &str) -> Result<Self, CertificateError> {
        let key = KeyPair::generate().map_err(CertificateError::Making)?;
        let mut params = CertificateParams::new([domain.to_owned()]).map_err(CertificateError::Making)?;
        // Authorities take names from the extension alone.
        params.distinguished_name = DistinguishedName::new();
        let csr = params.serialize_request(&key).map_err(CertificateError::Making)?;
        Ok(Self {
            private_key: Zeroizing::new(key.serialize_der()),
            csr: csr.der().to_vec(),
        })
    }
}

/// An authority's certificate for a domain.
pub(super) struct Certificate {
    pub key: Arc<CertifiedKey>,
    pub from: Timestamp,
    pub to: Timestamp,
    /// How the authority knows it (RFC 9773, section 4.1); not every one says by which key it signed.
    pub identifier: Option<CertificateIdentifier<'static>>,
}

impl Certificate {
    /// `chain` in PEM, the domain's own first; `private_key` in PKCS #8. Whether it is valid now, [`Self::check_valid`] says.
    pub(super) fn parse(chain: &str, private_key: &[u8], domain: &str) -> Result<Self, CertificateError> {
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(chain.as_bytes())
            .take(MAX_CHAIN)
            .collect::<Result<_, _>>()
            .map_err(|_| CertificateError::Unreadable)?;
        let leaf = chain.first().ok_or(CertificateError::Unreadable)?;
        let (_, parsed) = X509Certificate::from_der(leaf).map_err(|_| CertificateError::Unreadable)?;
        if !names(&parsed, domain) {
            return Err(CertificateError::OtherName(domain.to_owned()));
        }
        let validity = parsed.validity();
        let (from, to) = (validity.not_before.timestamp(), validity.not_after.timestamp());
        let identifier = identifier(&parsed);
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(private_key));
        let key = any_supported_type(&key).map_err(CertificateError::Key)?;
        let key = CertifiedKey::new(chain, key);
        key.keys_match().map_err(CertificateError::Key)?;
        Ok(Self {
            key: Arc::new(key),
            from: Timestamp::from_secs(from),
            to: Timestamp::from_secs(to),
            identifier,
        })
    }

    pub(super) fn check_valid(&self, now: Timestamp) -> Result<(), CertificateError> {
        let (from, to) = (self.from, self.to);
        if from <= now && now < to {
            Ok(())
        } else {
            Err(CertificateError::NotNow { from, to })
        }
    }
}

/// Whether it is for this very name. Certificates for a wildcard are none that were asked for.
fn names(certificate: &X509Certificate<'_>, domain: &str) -> bool {
    let Ok(Some(names)) = certificate.subject_alternative_name() else {
        return false;
    };
    let mut names = names.value.general_names.iter();
    names.any(|name| matches!(name, GeneralName::DNSName(name) if name.eq_ignore_ascii_case(domain)))
}

fn identifier(certificate: &X509Certificate<'_>) -> Option<CertificateIdentifier<'static>> {
    let mut extensions = certificate.extensions().iter();
    let authority = extensions.find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(authority) => authority.key_identifier.as_ref(),
        _ => None,
    })?;
    let serial = certificate.raw_serial();
    Some(CertificateIdentifier::new(Der::from_slice(authority.0), Der::from_slice(serial)).into_owned())
}

/// What proves a domain by `acme-tls/1` (RFC 8737, section 3): the key authorisation's SHA-256 in a critical extension
/// of a certificate for the very name. Each gateway makes its own; the authority looks at nothing else in it.
pub(super) fn of_challenge(domain: &str, key_authorization: &str) -> Result<Arc<CertifiedKey>, CertificateError> {
    let digest = Sha256::digest(key_authorization.as_bytes());
    let key = KeyPair::generate().map_err(CertificateError::Making)?;
    let mut params = CertificateParams::new([domain.to_owned()]).map_err(CertificateError::Making)?;
    params
        .custom_extensions
        .push(CustomExtension::new_acme_identifier(&digest));
    let certificate = params.self_signed(&key).map_err(CertificateError::Making)?;
    let private_key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let signing = any_supported_type(&private_key).map_err(CertificateError::Key)?;
    Ok(Arc::new(CertifiedKey::new(vec![certificate.der().clone()], signing)))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const DOMAIN: &str = "app.example.com";

    /// An authority's, for whatever names and key.
    fn issued(names: &[&str], key: &KeyPair) -> String {
        let mut params = CertificateParams::new(names.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap();
        params.not_before = rcgen::date_time_ymd(2026, 11, 1);
        params.not_after = rcgen::date_time_ymd(2027, 2, 1);
        params.self_signed(key).unwrap().pem()
    }

    #[test]
    fn a_certificate_must_be_for_the_domain_and_its_key() {
        let (key, other) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let der = key.serialize_der();
        let good = issued(&[DOMAIN, "www.example.com"], &key);
        let certificate = Certificate::parse(&good, &der, DOMAIN).unwrap();
        assert_eq!(certificate.from.rfc3339(), "2026-11-01T00:00:00.000Z");
        assert!(certificate.check_valid(certificate.from).is_ok());
        assert!(certificate.check_valid(certificate.to).is_err(), "over");
        assert!(
            certificate
                .check_valid(certificate.from.minus(Duration::from_secs(1)))
                .is_err()
        );

        for names in [&["other.example.com"][..], &["*.example.com"], &[]] {
            let error = Certificate::parse(&issued(names, &key), &der, DOMAIN).err().unwrap();
            assert!(matches!(error, CertificateError::OtherName(_)), "{names:?}: {error}");
        }
        let error = Certificate::parse(&issued(&[DOMAIN], &other), &der, DOMAIN)
            .err()
            .unwrap();
        assert!(matches!(error, CertificateError::Key(_)), "{error}");
        for nothing in [
            "",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            "<html>",
        ] {
            let error = Certificate::parse(nothing, &der, DOMAIN).err().unwrap();
            assert!(matches!(error, CertificateError::Unreadable), "{nothing}: {error}");
        }
    }

    /// RFC 8737, section 3: `id-pe-acmeIdentifier`, critical, an octet string with the digest.
    #[test]
    fn a_challenge_is_answered_with_the_digest_in_a_critical_extension() {
        let answer = of_challenge(DOMAIN, "token.thumbprint").unwrap();
        let (_, certificate) = X509Certificate::from_der(answer.cert.first().unwrap()).unwrap();
        assert!(names(&certificate, DOMAIN));
        let extension = certificate
            .extensions()
            .iter()
            .find(|extension| extension.oid.to_id_string() == "1.3.6.1.5.5.7.1.31")
            .unwrap();
        assert!(extension.critical);
        let digest = Sha256::digest(b"token.thumbprint");
        assert_eq!(extension.value, [&[0x04, 0x20], digest.as_slice()].concat());
    }

    #[test]
    fn a_request_names_the_domain_and_has_a_new_key() {
        let (one, two) = (Request::new(DOMAIN).unwrap(), Request::new(DOMAIN).unwrap());
        assert_ne!(*one.private_key, *two.private_key);
        assert!(one.csr.windows(DOMAIN.len()).any(|part| part == DOMAIN.as_bytes()));
    }
}
