//! Certificates that clients show: who may have issued them, and what upstreams are told.
//!
//! Only a certificate that was verified is told of. `Client-Cert` is RFC 9440's; the rest are for applications that
//! don't parse certificates. A value longer than an upstream commonly accepts is left out.
//!
//! Those read texts in which words stand for structure: a comma ends an attribute, `spiffe://` makes a URI. Whoever has a
//! certificate issued often chooses such words in it, so no value may look like structure, and no name like one of
//! another kind.

use std::{fmt::Write as _, mem, net::Ipv4Addr, path::Path, sync::Arc};

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
    asn1_rs::{Any, BmpString, Tag, ToDer as _},
    extensions::GeneralName,
    objects::{oid_registry, oid2abbrev},
    prelude::{FromDer as _, X509Certificate},
    x509::X509Name,
};

use super::{TlsError, certificate::certificates};
use crate::{
    clock::Timestamp,
    config::ClientAuth,
    policy::connection::ClientCertificate,
    session::identity_headers::{MAX_VALUE, encoded},
};

const CLIENT_CERT: HeaderName = HeaderName::from_static("client-cert");
const SUBJECT: HeaderName = HeaderName::from_static("x-client-cert-subject");
const NAMES: HeaderName = HeaderName::from_static("x-client-cert-names");
const FINGERPRINT: HeaderName = HeaderName::from_static("x-client-cert-fingerprint");

/// What clients are asked for, with the files read.
pub(super) struct Asked {
    settings: ClientAuth,
    authorities: Vec<CertificateDer<'static>>,
}

impl Asked {
    pub(super) fn load(settings: &ClientAuth) -> Result<Self, TlsError> {
        let authorities = match settings {
            ClientAuth::NotAsked => Vec::new(),
            ClientAuth::Optional(file) | ClientAuth::Required(file) => certificates(file)?,
        };
        Ok(Self {
            settings: settings.clone(),
            authorities,
        })
    }

    /// Who judges the certificates of clients; `None`: they are not asked for any.
    pub(super) fn verifier(
        &self,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Option<Arc<dyn ClientCertVerifier>>, TlsError> {
        let (file, required) = match &self.settings {
            ClientAuth::NotAsked => return Ok(None),
            ClientAuth::Optional(file) => (file, false),
            ClientAuth::Required(file) => (file, true),
        };
        let mut roots = RootCertStore::empty();
        for certificate in &self.authorities {
            roots
                .add(certificate.clone())
                .map_err(|error| unusable(file, error.to_string()))?;
        }
        let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
        let builder = if required {
            builder
        } else {
            builder.allow_unauthenticated()
        };
        let verifier = builder.build().map_err(|error| unusable(file, error.to_string()))?;
        Ok(Some(verifier))
    }

    /// Whether whoever has agreed by `before` would by these as well, and with the same result.
    pub(super) fn includes(&self, before: &Self) -> bool {
        let same_question = mem::discriminant(&self.settings) == mem::discriminant(&before.settings);
        same_question
            && before
                .authorities
                .iter()
                .all(|authority| self.authorities.contains(authority))
    }
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
    let mut expires_at = None;
    if let Ok((_, parsed)) = X509Certificate::from_der(der) {
        expires_at = Some(Timestamp::from_secs(parsed.validity().not_after.timestamp()));
        let subject = distinguished(parsed.subject()).unwrap_or_default();
        texts.push((SUBJECT, encoded(&subject, b"")));
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
        expires_at,
    }
}

/// A name as RFC 4514 writes it, but from the whole to the part as the certificate has it, and with spaces between. `None`: a
/// value can't be written.
fn distinguished(name: &X509Name<'_>) -> Option<String> {
    let mut text = String::new();
    for (at, set) in name.iter_rdn().enumerate() {
        for (within, attribute) in set.iter().enumerate() {
            text.push_str(match (at, within) {
                (0, 0) => "",
                (_, 0) => ", ",
                _ => " + ",
            });
            let kind = attribute.attr_type();
            match oid2abbrev(kind, oid_registry()) {
                Ok(known) => text.push_str(known),
                Err(_) => text.push_str(&kind.to_id_string()),
            }
            text.push('=');
            text.push_str(&attribute_value(attribute.attr_value())?);
        }
    }
    Some(text)
}

fn attribute_value(value: &Any<'_>) -> Option<String> {
    let text = match value.tag() {
        Tag::Utf8String
        | Tag::PrintableString
        | Tag::Ia5String
        | Tag::NumericString
        | Tag::VisibleString
        | Tag::GeneralString
        | Tag::GraphicString
        | Tag::T61String => str::from_utf8(value.data).ok().map(str::to_owned),
        Tag::BmpString => BmpString::try_from(value.clone()).ok().map(|text| text.string()),
        _ => None,
    };
    match text {
        Some(text) => Some(escaped(&text)),
        // What is no text (RFC 4514, 2.4).
        None => Some(format!("#{}", hex(&value.to_der_vec().ok()?))),
    }
}

/// A value in which nothing reads as the end of it (RFC 4514, 2.4).
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for (at, letter) in text.char_indices() {
        let at_edge = at == 0 || at + 1 == text.len();
        match letter {
            '\0' => out.push_str("\\00"),
            '"' | '+' | ',' | ';' | '<' | '>' | '\\' => out.extend(['\\', letter]),
            ' ' if at_edge => out.extend(['\\', letter]),
            '#' if at == 0 => out.extend(['\\', letter]),
            _ => out.push(letter),
        }
    }
    out
}

/// A name that an application may go by: a host, an address, a mailbox, a URI (as SPIFFE has it). They are told without
/// their kinds, so what could be taken for another kind is left out.
fn readable(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(text) => is_host(text).then(|| (*text).to_owned()),
        GeneralName::RFC822Name(text) => is_mailbox(text).then(|| (*text).to_owned()),
        GeneralName::URI(text) => is_uri(text).then(|| (*text).to_owned()),
        GeneralName::IPAddress(bytes) => super::certificate::address(bytes),
        _ => None,
    }
}

fn is_host(text: &str) -> bool {
    let in_host = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b'*');
    !text.is_empty() && text.bytes().all(in_host) && text.parse::<Ipv4Addr>().is_err()
}

/// What nobody has to quote (RFC 5321, 4.1.2: `Dot-string "@" Domain`).
fn is_mailbox(text: &str) -> bool {
    let in_local = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~.".contains(&byte);
    text.split_once('@')
        .is_some_and(|(local, domain)| !local.is_empty() && local.bytes().all(in_local) && is_host(domain))
}

fn is_uri(text: &str) -> bool {
    let Some((scheme, rest)) = text.split_once(':') else {
        return false;
    };
    let in_scheme = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
    scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme.bytes().all(in_scheme)
        && rest.bytes().all(|byte| byte.is_ascii_graphic())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(64), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_value_looks_like_structure() {
        for (value, written) in [
            ("machine 7", "machine 7"),
            ("mallory, O=Admins", r"mallory\, O=Admins"),
            ("mallory + CN=root", r"mallory \+ CN=root"),
            (r"mallory\", r"mallory\\"),
            (r#"<"a";b>"#, r#"\<\"a\"\;b\>"#),
            ("#a#b", r"\#a#b"),
            ("  a b  ", r"\  a b \ "),
            (" ", r"\ "),
            ("a\0b", r"a\00b"),
            ("Größe=7", "Größe=7"),
            ("", ""),
        ] {
            assert_eq!(escaped(value), written, "{value:?}");
        }
    }

    #[test]
    fn no_name_looks_like_one_of_another_kind() {
        use GeneralName::{DNSName as Host, RFC822Name as Mailbox, URI as Uri};
        for name in [
            Host("machine.example"),
            Host("*.a_b.example"),
            Mailbox("o'neil+x@machine.example"),
            Uri("spiffe://example/machine,7"),
            Uri("urn:uuid:7"),
        ] {
            assert!(readable(&name).is_some(), "{name:?}");
        }
        for name in [
            Host("spiffe://prod/admin"),
            Host("root@machine.example"),
            Host("127.0.0.1"),
            Host("[::1]"),
            Host("a b"),
            Host(""),
            Mailbox("machine.example"),
            Mailbox("spiffe://prod/admin"),
            Mailbox("spiffe://admin@prod"),
            Mailbox("a@b@c"),
            Mailbox("\"a b\"@c"),
            Mailbox("@c"),
            Uri("machine.example"),
            Uri("root@machine.example"),
            Uri("//prod/admin"),
            Uri("[::1]"),
            Uri("spiffe://prod/a b"),
        ] {
            assert_eq!(readable(&name), None, "{name:?}");
        }
    }
}
