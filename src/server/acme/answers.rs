//! What handshakes and requests on the challenge's path are answered with: shared by all listeners, without a lock. Who
//! is shown what is `server::tls`'s to say.
//!
//! The engine writes here, about once in two months a domain; listeners read a map behind one pointer. Only domains of
//! the configuration are in it, so nothing that a client says makes it grow.

use std::{collections::HashMap, fmt, sync::Arc};

use arc_swap::ArcSwap;
use rustls::sign::CertifiedKey;

use crate::{clock::Timestamp, server::tls::Issued};

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

impl Issued for Answers {
    fn certificate(&self, host: &str) -> Option<Arc<CertifiedKey>> {
        let answers = self.0.load();
        let in_use = answers.get(host)?.certificate.as_ref()?;
        Some(Arc::clone(&in_use.key))
    }

    fn challenge_certificate(&self, host: &str) -> Option<Arc<CertifiedKey>> {
        let answers = self.0.load();
        let pending = answers.get(host)?.challenge.as_ref()?;
        Some(Arc::clone(&pending.certificate))
    }

    fn is_challenged(&self) -> bool {
        self.0.load().values().any(|answer| answer.challenge.is_some())
    }

    fn key_authorization(&self, host: &str, path: &str) -> Option<String> {
        let token = path.strip_prefix("/.well-known/acme-challenge/")?;
        let answers = self.0.load();
        let pending = answers.get(host)?.challenge.as_ref()?;
        // No secret: the authority asks for it in the clear, and the answer is meant for everybody.
        (pending.token == token).then(|| pending.key_authorization.clone())
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
