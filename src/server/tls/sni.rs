//! Which certificate a client is shown: by the host that it asks for.

use std::{collections::HashMap, sync::Arc};

use rustls::{
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use super::{Issued, certificate::Certificate};
use crate::policy::connection::CertificateNames;

/// What an authority that looks at a handshake speaks, and nothing else (RFC 8737, 6.2).
pub(super) const ACME_TLS: &[u8] = b"acme-tls/1";

/// The certificates of the files, by their names.
#[derive(Debug)]
pub(super) struct Certificates {
    all: Vec<Arc<Certificate>>,
    /// A name has several if there are several kinds of keys for it.
    whole: HashMap<Box<str>, Vec<usize>>,
    /// `example.com` of `*.example.com`.
    below: HashMap<Box<str>, Vec<usize>>,
}

impl Certificates {
    pub(super) fn new(all: Vec<Arc<Certificate>>) -> Self {
        let (mut whole, mut below) = (HashMap::<_, Vec<usize>>::new(), HashMap::<_, Vec<usize>>::new());
        for (index, certificate) in all.iter().enumerate() {
            for name in certificate.names.iter() {
                match name.strip_prefix("*.") {
                    Some(parent) => below.entry(parent.into()).or_default().push(index),
                    None => whole.entry(name.into()).or_default().push(index),
                }
            }
        }
        Self { all, whole, below }
    }

    pub(super) fn all(&self) -> &[Arc<Certificate>] {
        &self.all
    }

    /// The certificates for a host; none if no certificate is for it.
    fn named(&self, host: &str) -> impl Iterator<Item = &Arc<Certificate>> {
        let below = || host.split_once('.').and_then(|(_, parent)| self.below.get(parent));
        let found = self.whole.get(host).or_else(below);
        found.into_iter().flatten().filter_map(|index| self.all.get(*index))
    }

    /// For whoever asks for no host, or for one that is nobody's.
    fn first(&self) -> Option<&Arc<Certificate>> {
        self.all.first()
    }
}

/// Shows certificates.
#[derive(Debug)]
pub(super) struct Resolver {
    pub(super) certificates: Certificates,
    pub(super) issued: Option<Arc<dyn Issued>>,
}

impl Resolver {
    /// What the certificate is for that was shown to a client that asked for `host`.
    pub(super) fn shown(&self, host: Option<&str>) -> Arc<CertificateNames> {
        let Some(host) = host else {
            return self.default_names();
        };
        if let Some(certificate) = self.certificates.named(host).next() {
            return Arc::clone(&certificate.names);
        }
        let issued = self.issued.as_ref().and_then(|issued| issued.certificate(host));
        match issued {
            // It is for one host alone.
            Some(_) => Arc::new(CertificateNames::new([host])),
            None => self.default_names(),
        }
    }

    fn default_names(&self) -> Arc<CertificateNames> {
        self.certificates
            .first()
            .map(|certificate| Arc::clone(&certificate.names))
            .unwrap_or_default()
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        // To an authority only its answer is shown, and that by `Tls::accept`.
        let mut protocols = hello.alpn().into_iter().flatten();
        if protocols.any(|protocol| protocol == ACME_TLS) {
            return None;
        }
        let lower_case;
        let host = match hello.server_name() {
            Some(host) if host.bytes().any(|byte| byte.is_ascii_uppercase()) => {
                lower_case = host.to_ascii_lowercase();
                Some(lower_case.as_str())
            }
            host => host,
        };
        if let Some(host) = host.map(|host| host.trim_end_matches('.')) {
            let usable = |certificate: &&Arc<Certificate>| {
                let key = &certificate.key.key;
                key.choose_scheme(hello.signature_schemes()).is_some()
            };
            let mut named = self.certificates.named(host).peekable();
            let any = named.peek().copied();
            if let Some(certificate) = named.find(usable).or(any) {
                return Some(Arc::clone(&certificate.key));
            }
            if let Some(key) = self.issued.as_ref().and_then(|issued| issued.certificate(host)) {
                return Some(key);
            }
        }
        self.certificates
            .first()
            .map(|certificate| Arc::clone(&certificate.key))
    }
}
