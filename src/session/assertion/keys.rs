//! One signing key: making it, sealing and opening it, writing its public half as a JWK, signing with it.
//!
//! EdDSA with Ed25519 (RFC 8037) or ES256 (RFC 7518, 3.4). A key's id is the thumbprint of its public half (RFC 7638), so
//! that two different keys never share one. The private half lies in the database as PKCS#8, sealed for that very id; here
//! it lives in memory that the library wipes, and nothing prints it.

use std::{fmt, sync::Arc};

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _},
};
use base64ct::{Base64UrlUnpadded, Encoding};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::{clock::Timestamp, config::SigningAlgorithm, db::signing_keys::StoredKey, secret::sealed::SealingKeys};

/// A key that can sign.
pub struct SigningKey {
    kid: Arc<str>,
    pair: Pair,
    /// The first part of each JWT: its header, encoded, and the dot.
    head: String,
}

enum Pair {
    Ed25519(Ed25519KeyPair),
    P256(EcdsaKeyPair),
}

/// The library could not make, read or use a key.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("a signing key could not be made or read")]
pub struct KeyError;

impl SigningKey {
    /// Draws a new one; with it, what is to be stored: from `activates_at` on it signs.
    pub fn generate(
        algorithm: SigningAlgorithm,
        sealing: &SealingKeys,
        now: Timestamp,
        activates_at: Timestamp,
    ) -> Result<StoredKey, KeyError> {
        let pair = Pair::generate(algorithm)?;
        let jwk = pair.jwk()?;
        let kid = thumbprint(&jwk);
        let private = pair.private()?;
        Ok(StoredKey {
            algorithm: algorithm.as_str().to_owned(),
            public_key: published(&jwk, &kid, algorithm).to_string(),
            private_key: sealing.seal(&private, &context(&kid)),
            created_at: now,
            activates_at,
            retires_at: None,
            expires_at: None,
            kid,
        })
    }

    /// Opens a stored one. `None`: none of our secrets sealed it, or it is not what its row says.
    pub fn open(stored: &StoredKey, sealing: &SealingKeys) -> Option<Self> {
        let private = sealing.open(&stored.private_key, &context(&stored.kid))?;
        let algorithm = SigningAlgorithm::parse(&stored.algorithm)?;
        let pair = Pair::read(algorithm, &private)?;
        // A row whose columns were exchanged would publish one key and sign with another.
        if thumbprint(&pair.jwk().ok()?) != stored.kid {
            return None;
        }
        let header = json!({ "alg": algorithm.as_str(), "kid": stored.kid, "typ": "JWT" });
        Some(Self {
            kid: stored.kid.as_str().into(),
            pair,
            head: format!("{}.", Base64UrlUnpadded::encode_string(header.to_string().as_bytes())),
        })
    }

    /// The same private key sealed by the first secret; `None` if it is already, or can't be opened.
    pub fn resealed(stored: &StoredKey, sealing: &SealingKeys) -> Option<Vec<u8>> {
        if stored.private_key.starts_with(&sealing.current_prefix()) {
            return None;
        }
        let private = sealing.open(&stored.private_key, &context(&stored.kid))?;
        Some(sealing.seal(&private, &context(&stored.kid)))
    }

    pub const fn kid(&self) -> &Arc<str> {
        &self.kid
    }

    /// Appends a JWT with these claims to `out` (RFC 7515, 7.1). What was appended is cut off again on failure.
    pub fn sign_onto(&self, out: &mut String, claims: &[u8]) -> Result<(), KeyError> {
        let start = out.len();
        out.push_str(&self.head);
        out.push_str(&Base64UrlUnpadded::encode_string(claims));
        let message = out.get(start..).unwrap_or_default();
        let Ok(signature) = self.pair.sign(message.as_bytes()) else {
            out.truncate(start);
            return Err(KeyError);
        };
        out.push('.');
        out.push_str(&Base64UrlUnpadded::encode_string(&signature));
        Ok(())
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.kid)
    }
}

impl Pair {
    /// The library draws from the operating system's randomness, as `secret::random` does.
    fn generate(algorithm: SigningAlgorithm) -> Result<Self, KeyError> {
        Ok(match algorithm {
            SigningAlgorithm::EdDsa => Self::Ed25519(Ed25519KeyPair::generate().map_err(|_| KeyError)?),
            SigningAlgorithm::Es256 => {
                Self::P256(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).map_err(|_| KeyError)?)
            }
        })
    }

    fn read(algorithm: SigningAlgorithm, pkcs8: &[u8]) -> Option<Self> {
        Some(match algorithm {
            SigningAlgorithm::EdDsa => Self::Ed25519(Ed25519KeyPair::from_pkcs8(pkcs8).ok()?),
            SigningAlgorithm::Es256 => {
                Self::P256(EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8).ok()?)
            }
        })
    }

    fn private(&self) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        let document = match self {
            Self::Ed25519(pair) => pair.to_pkcs8(),
            Self::P256(pair) => pair.to_pkcs8v1(),
        };
        document
            .map(|document| Zeroizing::new(document.as_ref().to_vec()))
            .map_err(|_| KeyError)
    }

    /// The members that make the key, and no others: what a thumbprint is taken of.
    fn jwk(&self) -> Result<Value, KeyError> {
        match self {
            Self::Ed25519(pair) => {
                let x = Base64UrlUnpadded::encode_string(pair.public_key().as_ref());
                Ok(json!({ "crv": "Ed25519", "kty": "OKP", "x": x }))
            }
            Self::P256(pair) => {
                // An uncompressed point (SEC 1, 2.3.3): 4, and both coordinates.
                let point = pair.public_key().as_ref().strip_prefix(&[4]).ok_or(KeyError)?;
                let (x, y) = point.split_at_checked(32).ok_or(KeyError)?;
                let [x, y] = [x, y].map(Base64UrlUnpadded::encode_string);
                Ok(json!({ "crv": "P-256", "kty": "EC", "x": x, "y": y }))
            }
        }
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        let signature = match self {
            Self::Ed25519(pair) => pair.try_sign(message),
            Self::P256(pair) => pair.sign(&SystemRandom::new(), message),
        };
        signature
            .map(|signature| signature.as_ref().to_vec())
            .map_err(|_| KeyError)
    }
}

/// What a private key is sealed for: it opens under no other id, and in no other column.
fn context(kid: &str) -> Vec<u8> {
    format!("signing_keys.private_key {kid}").into_bytes()
}

/// RFC 7638: SHA-256 of the members without spaces, in the order of their names, in which [`Pair::jwk`] has them.
fn thumbprint(jwk: &Value) -> String {
    Base64UrlUnpadded::encode_string(&Sha256::digest(jwk.to_string()))
}

/// RFC 7517, section 4.
fn published(jwk: &Value, kid: &str, algorithm: SigningAlgorithm) -> Value {
    let about = [("kid", kid), ("alg", algorithm.as_str()), ("use", "sig")];
    let members = jwk.as_object().cloned().unwrap_or_default();
    let about = about.map(|(name, value)| (name.to_owned(), value.into()));
    members.into_iter().chain(about).collect()
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ED25519, UnparsedPublicKey, VerificationAlgorithm};

    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_000);
    const SECRET: &[u8] = b"correct horse battery staple, thirty-two";

    fn sealing() -> SealingKeys {
        SealingKeys::new([SECRET])
    }

    fn decoded(text: &str) -> Vec<u8> {
        Base64UrlUnpadded::decode_vec(text).unwrap()
    }

    /// The example of RFC 7638, 3.1, shows the form; that of RFC 8037, A.3, is of our kind.
    #[test]
    fn a_thumbprint_is_as_the_specification_has_it() {
        let jwk = json!({ "crv": "Ed25519", "kty": "OKP", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo" });
        assert_eq!(thumbprint(&jwk), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
    }

    #[test]
    fn what_a_key_signs_its_published_half_verifies() {
        for algorithm in SigningAlgorithm::ALL {
            let stored = SigningKey::generate(algorithm, &sealing(), NOW, NOW).unwrap();
            let jwk: Value = serde_json::from_str(&stored.public_key).unwrap();
            let key = SigningKey::open(&stored, &sealing()).unwrap();
            let mut out = "Bearer ".to_owned();
            key.sign_onto(&mut out, br#"{"sub":"ada"}"#).unwrap();

            let jwt = out.strip_prefix("Bearer ").unwrap();
            let (message, signature) = jwt.rsplit_once('.').unwrap();
            let (head, claims) = message.split_once('.').unwrap();
            let head: Value = serde_json::from_slice(&decoded(head)).unwrap();
            assert_eq!(
                head,
                json!({ "alg": algorithm.as_str(), "kid": stored.kid, "typ": "JWT" })
            );
            assert_eq!(decoded(claims), br#"{"sub":"ada"}"#);
            let part = |name: &str| decoded(jwk[name].as_str().unwrap());
            let (verifier, public): (&dyn VerificationAlgorithm, _) = match algorithm {
                SigningAlgorithm::EdDsa => (&ED25519, part("x")),
                SigningAlgorithm::Es256 => (&ECDSA_P256_SHA256_FIXED, [vec![4], part("x"), part("y")].concat()),
            };
            let public = UnparsedPublicKey::new(verifier, public);
            public.verify(message.as_bytes(), &decoded(signature)).unwrap();
            assert_eq!(
                (jwk["kid"].as_str(), jwk["use"].as_str()),
                (Some(&*stored.kid), Some("sig"))
            );
            assert!(jwk.get("d").is_none(), "the private half is published: {jwk}");
        }
    }

    #[test]
    fn a_key_opens_under_its_own_name_and_secret_alone() {
        let stored = SigningKey::generate(SigningAlgorithm::EdDsa, &sealing(), NOW, NOW).unwrap();
        let other = SigningKey::generate(SigningAlgorithm::EdDsa, &sealing(), NOW, NOW).unwrap();
        let strangers = SealingKeys::new([b"another secret that is long enough, too".as_slice()]);
        assert!(SigningKey::open(&stored, &strangers).is_none());
        let exchanged = StoredKey {
            private_key: other.private_key.clone(),
            ..stored.clone()
        };
        assert!(SigningKey::open(&exchanged, &sealing()).is_none());
        let renamed = StoredKey {
            algorithm: "none".to_owned(),
            ..stored.clone()
        };
        assert!(SigningKey::open(&renamed, &sealing()).is_none());
        assert_eq!(
            format!("{:?}", SigningKey::open(&stored, &sealing()).unwrap()),
            format!("SigningKey({})", stored.kid)
        );
    }

    #[test]
    fn after_a_change_of_the_secret_a_key_is_sealed_by_the_first() {
        let stored = SigningKey::generate(SigningAlgorithm::EdDsa, &sealing(), NOW, NOW).unwrap();
        assert!(SigningKey::resealed(&stored, &sealing()).is_none());
        let new = b"another secret that is long enough, too".as_slice();
        let both = SealingKeys::new([new, SECRET]);
        let resealed = StoredKey {
            private_key: SigningKey::resealed(&stored, &both).unwrap(),
            ..stored
        };
        assert!(SigningKey::open(&resealed, &SealingKeys::new([new])).is_some());
    }
}
