//! Apple: OpenID Connect whose client secret is a JWT of ours, whose answers come as a form, and who says a person's
//! name once only, through the browser.

use std::{fmt, sync::Mutex, sync::PoisonError, time::Duration};

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair},
};
use base64ct::{Base64UrlUnpadded, Encoding};
use rustls::pki_types::{PrivatePkcs8KeyDer, pem::PemObject};
use serde::Deserialize;
use serde_json::json;
use url::Url;

use super::{StartError, claims, dialect::Dialect};
use crate::{
    clock::Timestamp,
    config::{AppleKey, OAuthProvider, ProviderEndpoints},
    secret::Secret,
};

const ISSUER: &str = "https://appleid.apple.com";
/// Apple takes six months at most. A short life leaves little to whoever sees one.
const SECRET_LIVES: Duration = Duration::from_hours(1);
/// How old a secret may get: the rest of its life is for clocks that differ.
const SECRET_SERVES: Duration = Duration::from_mins(50);
/// Of the `user` parameter: names and an address.
const MAX_USER: usize = 4096;

#[derive(Debug)]
pub(super) struct Apple {
    issuer: String,
    secrets: Option<Secrets>,
}

impl Apple {
    pub(super) fn new(settings: &OAuthProvider) -> Result<Self, StartError> {
        let issuer = settings.issuer.clone().unwrap_or_else(|| ISSUER.to_owned());
        let secrets = settings.apple_key.as_ref().map(|key| {
            Secrets::new(key, &settings.client_id, &issuer)
                .ok_or_else(|| StartError::new(settings, "the private key is no PKCS #8 key on P-256 in PEM"))
        });
        Ok(Self {
            secrets: secrets.transpose()?,
            issuer,
        })
    }
}

impl Dialect for Apple {
    fn issuer(&self) -> &str {
        &self.issuer
    }

    fn endpoints(&self) -> Result<ProviderEndpoints, url::ParseError> {
        Ok(ProviderEndpoints {
            authorization: Some(Url::parse("https://appleid.apple.com/auth/authorize")?),
            token: Some(Url::parse("https://appleid.apple.com/auth/token")?),
            jwks: Some(Url::parse("https://appleid.apple.com/auth/keys")?),
            ..ProviderEndpoints::default()
        })
    }

    fn scopes(&self) -> &'static [&'static str] {
        &["email", "name"]
    }

    /// The id_token that comes through the browser is not looked at: the one for the code is.
    fn response_type(&self) -> &'static str {
        "code id_token"
    }

    /// Apple gives a name and an address to no other response mode.
    fn authorization_params(&self) -> Vec<(&'static str, String)> {
        vec![("response_mode", "form_post".to_owned())]
    }

    fn made_secret(&self, now: Timestamp) -> Option<Result<Secret<String>, &'static str>> {
        self.secrets.as_ref().map(|secrets| secrets.at(now))
    }

    fn may_hash_nonce(&self) -> bool {
        true
    }

    fn name_from_browser(&self, user: &str) -> Option<String> {
        #[derive(Deserialize)]
        struct User {
            name: Name,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Name {
            first_name: Option<String>,
            last_name: Option<String>,
        }
        let short = Some(user).filter(|user| user.len() <= MAX_USER)?;
        let Name { first_name, last_name } = serde_json::from_str::<User>(short).ok()?.name;
        let both = format!("{} {}", first_name.unwrap_or_default(), last_name.unwrap_or_default());
        Some(claims::name(&both)).filter(|name| !name.is_empty())
    }
}

/// Makes client secrets, and keeps the one that is in use.
struct Secrets {
    header: String,
    team_id: String,
    client_id: String,
    audience: String,
    key: EcdsaKeyPair,
    made: Mutex<Option<(Timestamp, Secret<String>)>>,
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secrets(of team {})", self.team_id)
    }
}

impl Secrets {
    fn new(key: &AppleKey, client_id: &str, audience: &str) -> Option<Self> {
        let pkcs8 = PrivatePkcs8KeyDer::from_pem_slice(key.private_key.expose().as_bytes()).ok()?;
        Some(Self {
            header: json!({"alg": "ES256", "kid": key.key_id, "typ": "JWT"}).to_string(),
            team_id: key.team_id.clone(),
            client_id: client_id.to_owned(),
            audience: audience.to_owned(),
            key: EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.secret_pkcs8_der()).ok()?,
            made: Mutex::new(None),
        })
    }

    fn at(&self, now: Timestamp) -> Result<Secret<String>, &'static str> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, secret)) = &*made
            && *at <= now
            && now.since(*at) < SECRET_SERVES
        {
            return Ok(secret.clone());
        }
        let secret = self.make(now)?;
        *made = Some((now, secret.clone()));
        Ok(secret)
    }

    fn make(&self, now: Timestamp) -> Result<Secret<String>, &'static str> {
        let seconds = |at: Timestamp| at.micros() / 1_000_000;
        let claims = json!({
            "iss": self.team_id,
            "sub": self.client_id,
            "aud": self.audience,
            "iat": seconds(now),
            "exp": seconds(now.plus(SECRET_LIVES)),
        });
        let encode = Base64UrlUnpadded::encode_string;
        let signed = format!(
            "{}.{}",
            encode(self.header.as_bytes()),
            encode(claims.to_string().as_bytes())
        );
        let signature = self.key.sign(&SystemRandom::new(), signed.as_bytes());
        let signature = signature.map_err(|_| "the client secret can't be signed")?;
        Ok(Secret::new(format!("{signed}.{}", encode(signature.as_ref()))))
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, KeyPair, UnparsedPublicKey};

    use super::*;
    use crate::{auth::oauth::provider::testing, config::ProviderKind};

    const NOW: Timestamp = Timestamp::from_secs(1_795_000_000);

    fn apple(pem: &str) -> Result<Apple, StartError> {
        let mut settings = testing::settings(ProviderKind::Apple);
        settings.apple_key = Some(AppleKey {
            team_id: "TEAM".to_owned(),
            key_id: "KEY".to_owned(),
            private_key: Secret::new(pem.to_owned()),
        });
        Apple::new(&settings)
    }

    fn pem() -> String {
        rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)
            .unwrap()
            .serialize_pem()
    }

    #[test]
    fn the_client_secret_is_a_short_lived_jwt_and_renewed_before_it_ends() {
        let apple = apple(&pem()).unwrap();
        let first = apple.made_secret(NOW).unwrap().unwrap();
        let (signed, signature) = first.expose().rsplit_once('.').unwrap();
        let key = apple.secrets.as_ref().unwrap().key.public_key().as_ref().to_vec();
        let signature = Base64UrlUnpadded::decode_vec(signature).unwrap();
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key)
            .verify(signed.as_bytes(), &signature)
            .unwrap();
        let claims = Base64UrlUnpadded::decode_vec(signed.split_once('.').unwrap().1).unwrap();
        let claims: serde_json::Value = serde_json::from_slice(&claims).unwrap();
        assert_eq!(
            claims,
            json!({"iss": "TEAM", "sub": "client", "aud": ISSUER, "iat": 1_795_000_000, "exp": 1_795_003_600})
        );

        let at = |minutes| {
            apple
                .made_secret(NOW.plus(Duration::from_mins(minutes)))
                .unwrap()
                .unwrap()
        };
        assert_eq!(at(49).expose(), first.expose());
        assert_ne!(at(50).expose(), first.expose());
        assert!(!format!("{apple:?}").contains(first.expose()));
    }

    #[test]
    fn a_private_key_that_is_none_stops_the_start() {
        for bad in [
            "",
            "not a key",
            "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        ] {
            let error = apple(bad).unwrap_err().to_string();
            assert!(error.contains("private key"), "{error}");
        }
    }

    #[test]
    fn a_name_comes_from_the_browser_once_and_is_cleaned() {
        let apple = apple(&pem()).unwrap();
        let name = |user: &str| apple.name_from_browser(user);
        assert_eq!(
            name(r#"{"name":{"firstName":"Ada\u0000","lastName":"Lovelace"},"email":"a@x.test"}"#).unwrap(),
            "Ada Lovelace"
        );
        assert_eq!(name(r#"{"name":{"firstName":"Ada"}}"#).unwrap(), "Ada");
        for nothing in [
            "",
            "{}",
            "null",
            r#"{"name":{}}"#,
            r#"{"name":{"firstName":7}}"#,
            &"[".repeat(4000),
        ] {
            assert_eq!(name(nothing), None, "{nothing}");
        }
    }
}
