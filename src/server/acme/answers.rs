//! What handshakes and requests on the challenge's path are answered with: shared by all listeners, without a lock.
//!
//! The engine writes here, about once in two months a domain; listeners read a map behind one pointer. Only domains of
//! the configuration are in it, so nothing that a client says makes it grow.

use std::{collections::HashMap, fmt, sync::Arc};

use arc_swap::ArcSwap;
use rustls::{server::ClientHello, sign::CertifiedKey};

use crate::clock::Timestamp;

/// What an authority that looks at a handshake speaks, and nothing else (RFC 8737, section 6.2).
pub const ACME_TLS: &[u8] = b"acme-tls/1";

/// The certificates in use, and the answers to an authority that looks.
#[derive(Default)]
pub struct Answers(ArcSwap<HashMap<Box<str>, Answer>>);

/// Of one domain.
#[derive(Clone, Default)]
struct Answer {
    certificate: Option<InUse>,
    challenge: Option<Arc<Pending>>,
}

/// A certificate that clients get.
#[derive(Clone)]
pub(super) struct InUse {
    pub key: Arc<CertifiedKey>,
    /// Tells it from the one before.
    pub issued_at: Timestamp,
    pub expires_at: Timestamp,
}

/// A challenge that the authority may look at any moment.
pub(super) struct Pending {
    pub token: String,
    /// Token and the account key's thumbprint (RFC 8555, section 8.1).
    pub key_authorization: String,
    /// For `acme-tls/1` (RFC 8737, section 3).
    pub certificate: Arc<CertifiedKey>,
}

impl Answers {
    /// What to show whoever says `hello`: to an authority that looks its answer, to everybody else the certificate for
    /// the name. `None`: not ours.
    pub fn resolve(&self, hello: &ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        // Names are compared in lower case, which is how rustls has them.
        let name = hello.server_name()?;
        let mut protocols = hello.alpn().into_iter().flatten();
        if protocols.any(|protocol| protocol == ACME_TLS) {
            self.challenge_certificate(name)
        } else {
            self.certificate(name)
        }
    }

    /// The certificate for the name that a client asks for, in lower case; `None`: not ours, or there is none yet.
    pub fn certificate(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        let answers = self.0.load();
        let in_use = answers.get(name)?.certificate.as_ref()?;
        Some(Arc::clone(&in_use.key))
    }

    /// What to show whoever asks for a name, in lower case, by `acme-tls/1`. Nobody else may be shown it.
    pub fn challenge_certificate(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        let answers = self.0.load();
        let pending = answers.get(name)?.challenge.as_ref()?;
        Some(Arc::clone(&pending.certificate))
    }

    /// What to answer `GET` of this path with, as `application/octet-stream`, on a plain listener; `host` in lower case,
    /// without a port. `None`: no challenge of this host's.
    pub fn key_authorization(&self, host: &str, path: &str) -> Option<String> {
        let token = path.strip_prefix("/.well-known/acme-challenge/")?;
        let answers = self.0.load();
        let pending = answers.get(host)?.challenge.as_ref()?;
        (pending.token == token).then(|| pending.key_authorization.clone())
    }

    /// Whether any challenge is pending: only then is `acme-tls/1` spoken.
    pub fn is_challenged(&self) -> bool {
        self.0.load().values().any(|answer| answer.challenge.is_some())
    }

    pub(super) fn in_use(&self, domain: &str) -> Option<InUse> {
        self.0.load().get(domain)?.certificate.clone()
    }

    pub(super) fn pending(&self, domain: &str) -> Option<Arc<Pending>> {
        self.0.load().get(domain)?.challenge.clone()
    }

    pub(super) fn install(&self, domain: &str, certificate: &InUse) {
        self.change(domain, |answer| answer.certificate = Some(certificate.clone()));
    }

    pub(super) fn challenge(&self, domain: &str, pending: Option<Pending>) {
        let pending = pending.map(Arc::new);
        self.change(domain, |answer| answer.challenge.clone_from(&pending));
    }

    /// Readers go on with what they hold.
    fn change(&self, domain: &str, change: impl Fn(&mut Answer)) {
        self.0.rcu(|before| {
            let mut after = HashMap::clone(before);
            change(after.entry(domain.into()).or_default());
            after
        });
    }
}

impl fmt::Debug for Answers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let answers = self.0.load();
        let certificates = answers.values().filter(|answer| answer.certificate.is_some());
        let challenges = answers.values().filter(|answer| answer.challenge.is_some());
        write!(
            f,
            "Answers({} certificates, {} challenges)",
            certificates.count(),
            challenges.count()
        )
    }
}
