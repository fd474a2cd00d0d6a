//! A provider's public keys (JWK Set, RFC 7517).
//!
//! Keys that we can't use are left out rather than refused: a provider may publish keys for others beside ours.

use std::{sync::Arc, time::Duration};

use base64ct::{Base64UrlUnpadded, Encoding};
use openidconnect::core::CoreJsonWebKey;
use serde::Deserialize;
use serde_json::Value;
use url::Url;

use super::{ProviderError, kept::Kept, wire::Wire};

/// A rotation is noticed at once, by a key that we do not know: see [`Keys::newer`]. This is for a key's withdrawal.
const FRESH_FOR: Duration = Duration::from_hours(1);
/// Providers publish two to ten.
const MAX_KEYS: usize = 64;
/// 2048 bits (RFC 7518, section 3.3).
const MIN_RSA_MODULUS: usize = 256;

pub(super) type KeySet = Vec<CoreJsonWebKey>;

#[derive(Debug)]
pub(super) struct Keys(Kept<KeySet>);

impl Keys {
    pub(super) fn new() -> Self {
        Self(Kept::new())
    }

    pub(super) async fn get(&self, wire: &Wire, url: &Url) -> Result<Arc<KeySet>, ProviderError> {
        self.0.get(async || fetch(wire, url).await).await
    }

    /// The keys of now, if those in `seen` do not fit a token and the provider may be asked again.
    pub(super) async fn newer(&self, seen: &Arc<KeySet>, wire: &Wire, url: &Url) -> Option<Arc<KeySet>> {
        self.0.newer(seen, async || fetch(wire, url).await).await
    }
}

#[derive(Deserialize)]
struct Document {
    keys: Vec<Value>,
}

async fn fetch(wire: &Wire, url: &Url) -> Result<(KeySet, Duration), ProviderError> {
    let (document, _) = wire.get::<Document>(url, None).await?;
    Ok((usable(document.keys), FRESH_FOR))
}

fn usable(keys: Vec<Value>) -> KeySet {
    let strong = |key: &Value| {
        let modulus = key.get("n").and_then(Value::as_str).unwrap_or_default();
        key.get("kty").and_then(Value::as_str) != Some("RSA")
            || Base64UrlUnpadded::decode_vec(modulus.trim_end_matches('='))
                .is_ok_and(|modulus| modulus.iter().skip_while(|byte| **byte == 0).count() >= MIN_RSA_MODULUS)
    };
    keys.into_iter()
        .filter(strong)
        .filter_map(|key| serde_json::from_value(key).ok())
        .take(MAX_KEYS)
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn keys_that_are_unknown_broken_or_weak_are_left_out() {
        let ec = json!({"kty": "EC", "crv": "P-256", "kid": "1", "x": "AAAA", "y": "AAAA"});
        let strong = json!({"kty": "RSA", "kid": "2", "e": "AQAB", "n": Base64UrlUnpadded::encode_string(&[255; 256])});
        let weak = json!({"kty": "RSA", "kid": "3", "e": "AQAB", "n": Base64UrlUnpadded::encode_string(&[255; 128])});
        let unknown = json!({"kty": "AKP", "alg": "ML-DSA-44", "pub": "AAAA"});
        let kept = usable(vec![json!(7), json!({}), weak, unknown, ec, strong]);
        let kids: Vec<_> = kept
            .iter()
            .filter_map(openidconnect::JsonWebKey::key_id)
            .map(|kid| kid.as_str())
            .collect();
        assert_eq!(kids, ["1", "2"]);
    }
}
