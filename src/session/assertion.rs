//! Assertions: short-lived signed statements about a session, for upstreams that want proof (RFC 7519).
//!
//! | claim | is |
//! |---|---|
//! | `iss` | `server.public_url` |
//! | `aud` | the upstream's name: what one upstream gets is nothing to another |
//! | `sub`, `sid` | the user's id, the session's public id |
//! | `email`, `email_verified`, `name`, `roles` | as in the identity headers, but not percent-encoded |
//! | `amr`, `auth_time` | how and when the person signed in (RFC 8176, seconds) |
//! | `iat`, `exp` | issued, and good until then: no longer than the session |
//!
//! There is no `jti`: an assertion is said again until half its life is over, so that an id would promise what is not so.
//! It is minted once per session and upstream, and kept with the cached session: whatever makes the cache forget that (a
//! revocation, a change of who somebody is) takes it along. Minting costs a signature, about 20 µs, on the worker; saying it
//! again a pointer's load and a reference count.
//!
//! Not here: when keys come and go (`rotation`), and what one is (`keys`).

pub mod keys;
pub mod rotation;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::HeaderValue;
use serde::Serialize;
use serde_json::Value;
use tokio::sync::Notify;
use tracing::warn;

use self::keys::SigningKey;
use super::identity_headers::MAX_VALUE;
use crate::{
    clock::Timestamp,
    config::{AssertionRules, Config},
    db::signing_keys::StoredKey,
    identity::{Assertion, Session, Wording},
    secret::sealed::SealingKeys,
};

/// `iat` is so much earlier than the signature: upstreams refuse what was issued in their future, and their clocks may be
/// a little behind.
const BACKDATED: Duration = Duration::from_secs(5);

/// Says who somebody is, with a signature. One for the whole gateway.
pub struct Mint {
    /// Replaced by a reload.
    terms: ArcSwap<Terms>,
    /// Whether it was looked lately if keys are of the algorithm that the configuration wants.
    algorithm_heard: AtomicBool,
    ring: ArcSwap<Ring>,
    /// Counts withdrawals: what was signed before the last is not said again.
    epoch: AtomicU64,
    /// Rung when keys have changed, or may have.
    bell: Notify,
    /// Rung when there is a key to sign with.
    ready: Notify,
    minted: AtomicU64,
}

/// What the configuration says about assertions.
#[derive(Debug)]
pub struct Terms {
    issuer: String,
    rules: AssertionRules,
    /// For the private keys.
    sealing: SealingKeys,
}

impl Terms {
    pub fn new(config: &Config) -> Self {
        let secrets = config.auth.secret.iter();
        Self {
            issuer: config.server.public_url.as_str().to_owned(),
            rules: config.identity.assertion.clone(),
            sealing: SealingKeys::new(secrets.map(|secret| secret.expose().as_bytes())),
        }
    }
}

/// The keys in force.
#[derive(Debug, Default)]
struct Ring {
    /// Those that can sign, the next to come last.
    keys: Vec<(StoredTimes, SigningKey)>,
    /// Ids of all that are published.
    published: Vec<(String, Option<Timestamp>)>,
    /// When another has to be made: never, as long as nothing was read.
    due_at: Option<Timestamp>,
    /// A JWK set (RFC 7517, section 5).
    document: Bytes,
}

/// When a key signs.
#[derive(Clone, Copy, Debug)]
struct StoredTimes {
    activates_at: Timestamp,
    retires_at: Option<Timestamp>,
}

impl Mint {
    pub fn new(terms: Terms) -> Self {
        Self {
            terms: ArcSwap::from_pointee(terms),
            algorithm_heard: AtomicBool::new(false),
            ring: ArcSwap::from_pointee(Ring {
                document: Bytes::from_static(b"{\"keys\":[]}"),
                ..Ring::default()
            }),
            epoch: AtomicU64::new(0),
            bell: Notify::new(),
            ready: Notify::new(),
            minted: AtomicU64::new(0),
        }
    }

    /// What is said from here on; what was said before is not said again.
    pub fn replace_terms(&self, terms: Terms) {
        self.terms.store(Arc::new(terms));
        self.algorithm_heard.store(false, Ordering::Release);
        self.epoch.fetch_add(1, Ordering::Release);
        self.ring_bell();
    }

    /// The published keys, as a JWK set.
    pub fn document(&self) -> Bytes {
        self.ring.load().document.clone()
    }

    /// Signatures so far, for metrics.
    pub fn minted(&self) -> u64 {
        self.minted.load(Ordering::Relaxed)
    }

    /// Keys have changed, or may have.
    pub fn ring_bell(&self) {
        self.bell.notify_one();
    }

    /// Resolves once there is a key to sign with.
    pub async fn ready(&self) {
        loop {
            let ready = self.ready.notified();
            if !self.ring.load().keys.is_empty() {
                return;
            }
            ready.await;
        }
    }

    /// What `session` proves to `audience`, as a header has it. `None` without a key, or if it says more than a header
    /// holds: then nothing may go there that is meant to carry one.
    pub fn assertion(
        &self,
        session: &Session,
        audience: &str,
        wording: Wording,
        now: Timestamp,
    ) -> Option<HeaderValue> {
        let epoch = self.epoch.load(Ordering::Acquire);
        if let Some(known) = session.assertions.find(audience, wording, epoch, now) {
            return Some(known);
        }
        let assertion = self.mint(session, audience, epoch, now)?;
        let value = assertion.value(wording);
        session.assertions.keep(&assertion, now);
        Some(value)
    }

    fn mint(&self, session: &Session, audience: &str, epoch: u64, now: Timestamp) -> Option<Assertion> {
        let (ring, terms) = (self.ring.load(), self.terms.load());
        let Some(key) = ring.signer(now) else {
            warn!("there is no key to sign an assertion with");
            return None;
        };
        let until = now.plus(terms.rules.lifetime).minus(BACKDATED).min(session.expires_at);
        let identity = &session.identity;
        let mut claims = Claims {
            iss: &terms.issuer,
            aud: audience,
            sub: identity.id.to_string(),
            sid: session.id.to_string(),
            email: &identity.email,
            email_verified: identity.email_verified,
            name: Some(&identity.name),
            roles: &identity.roles,
            amr: &session.methods,
            auth_time: seconds(session.created_at),
            iat: seconds(now.minus(BACKDATED)),
            exp: seconds(until),
        };
        let mut text = self.signed(key, &claims)?;
        if text.len() > MAX_VALUE {
            // As the identity headers leave out what is too long; but roles, on which access hangs, are never cut.
            claims.name = None;
            text = self.signed(key, &claims)?;
        }
        if text.len() > MAX_VALUE {
            warn!(user = %identity.id, "an assertion would be longer than a header may be");
            return None;
        }
        let said_until = now.plus(terms.rules.lifetime / 2).min(session.expires_at);
        Assertion::new(audience.into(), text, epoch, said_until)
    }

    fn signed(&self, key: &SigningKey, claims: &Claims<'_>) -> Option<String> {
        let claims = serde_json::to_vec(claims).ok()?;
        let mut text = String::with_capacity(claims.len() * 2 + 256);
        text.push_str(Assertion::SCHEME);
        self.minted.fetch_add(1, Ordering::Relaxed);
        let signed = key.sign_onto(&mut text, &claims);
        signed
            .inspect_err(|error| warn!(%error, "could not sign an assertion"))
            .ok()?;
        Some(text)
    }

    fn is_due(&self, now: Timestamp) -> bool {
        self.ring.load().due_at.is_some_and(|at| now >= at)
    }

    /// Puts what was read into force.
    fn install(&self, stored: &[StoredKey], terms: &Terms, now: Timestamp) {
        let keys: Vec<_> = stored
            .iter()
            .filter_map(|key| {
                let times = StoredTimes {
                    activates_at: key.activates_at,
                    retires_at: key.retires_at,
                };
                Some((times, SigningKey::open(key, &terms.sealing)?))
            })
            .collect();
        let strangers = stored.len() - keys.len();
        let can_sign = |key: &&StoredKey| keys.iter().any(|(_, known)| **known.kid() == *key.kid);
        let newest = stored.iter().filter(|key| key.retires_at.is_none()).rfind(can_sign);
        let ring = Ring {
            due_at: newest.map(|key| rotation::due_at(key, &terms.rules)),
            published: stored.iter().map(|key| (key.kid.clone(), key.expires_at)).collect(),
            document: document(stored),
            keys,
        };
        let usable = !ring.keys.is_empty();
        let ring = Arc::new(ring);
        let before = self.ring.swap(Arc::clone(&ring));
        if strangers > 0 && before.published != ring.published {
            warn!(
                keys = strangers,
                "keys that sign assertions were sealed with another auth.secret: they are published, but can't sign here"
            );
        }
        let withdrawn = before.published.iter().any(|(kid, expires_at)| {
            let over = expires_at.is_some_and(|at| now >= at);
            !over && stored.iter().all(|key| key.kid != *kid)
        });
        if withdrawn {
            // Nothing that it signed is said again: after the new keys are in place, or it might be signed anew by it.
            self.epoch.fetch_add(1, Ordering::Release);
        }
        if usable {
            self.ready.notify_waiters();
        }
    }
}

impl Ring {
    /// Whose turn it is; where clocks disagree about that, whoever's is nearest.
    fn signer(&self, now: Timestamp) -> Option<&SigningKey> {
        let whose_turn = self
            .keys
            .iter()
            .rfind(|(times, _)| times.activates_at <= now && times.retires_at.is_none_or(|at| now < at));
        let begun = || self.keys.iter().rfind(|(times, _)| times.activates_at <= now);
        whose_turn
            .or_else(begun)
            .or_else(|| self.keys.first())
            .map(|(_, key)| key)
    }
}

/// Stored public keys are JWKs already.
fn document(stored: &[StoredKey]) -> Bytes {
    #[derive(Serialize)]
    struct Set {
        keys: Vec<Value>,
    }
    let keys = stored
        .iter()
        .filter_map(|key| serde_json::from_str(&key.public_key).ok());
    serde_json::to_vec(&Set { keys: keys.collect() })
        .unwrap_or_default()
        .into()
}

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    aud: &'a str,
    sub: String,
    sid: String,
    email: &'a str,
    email_verified: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    roles: &'a [String],
    amr: &'a [String],
    auth_time: i64,
    iat: i64,
    exp: i64,
}

/// RFC 7519, section 2: NumericDate.
const fn seconds(at: Timestamp) -> i64 {
    at.micros().div_euclid(1_000_000)
}

impl fmt::Debug for Mint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mint({} keys)", self.ring.load().keys.len())
    }
}

#[cfg(test)]
mod tests;
