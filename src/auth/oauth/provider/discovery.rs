//! What a provider says of itself (OpenID Connect Discovery 1.0).
//!
//! The document must name the issuer that is configured, byte by byte (section 4.3), and every endpoint in it is judged
//! before it is used: the document comes from outside.

use std::{sync::Arc, time::Duration};

use http::{HeaderMap, header};
use openidconnect::{
    AdditionalProviderMetadata, ProviderMetadata, TokenUrl, UserInfoUrl,
    core::{
        CoreAuthDisplay, CoreClaimName, CoreClaimType, CoreClientAuthMethod, CoreGrantType, CoreJsonWebKey,
        CoreJweContentEncryptionAlgorithm, CoreJweKeyManagementAlgorithm, CoreResponseMode, CoreResponseType,
        CoreSubjectIdentifierType,
    },
};
use serde::{Deserialize, Serialize};
use url::Url;

use super::{ProviderError, kept::Kept, wire::Wire};

const FRESH_FOR: Duration = Duration::from_hours(1);
/// Even where the provider says `no-store`: two questions of one sign-in need not be two fetches.
const FRESH_FOR_AT_LEAST: Duration = Duration::from_secs(10);

pub(super) type Metadata = ProviderMetadata<
    Beyond,
    CoreAuthDisplay,
    CoreClientAuthMethod,
    CoreClaimName,
    CoreClaimType,
    CoreGrantType,
    CoreJweContentEncryptionAlgorithm,
    CoreJweKeyManagementAlgorithm,
    CoreJsonWebKey,
    CoreResponseMode,
    CoreResponseType,
    CoreSubjectIdentifierType,
>;

/// What other specifications add to the document.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(super) struct Beyond {
    /// RFC 9207, section 3.
    #[serde(default)]
    pub(super) authorization_response_iss_parameter_supported: bool,
}

impl AdditionalProviderMetadata for Beyond {}

#[derive(Debug)]
pub(super) struct Discovery {
    issuer: String,
    url: Url,
    kept: Kept<Metadata>,
}

impl Discovery {
    pub(super) fn new(issuer: &str) -> Result<Self, url::ParseError> {
        let url = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
        Ok(Self {
            issuer: issuer.to_owned(),
            url: Url::parse(&url)?,
            kept: Kept::new(),
        })
    }

    pub(super) async fn get(&self, wire: &Wire) -> Result<Arc<Metadata>, ProviderError> {
        self.kept.get(async || self.fetch(wire).await).await
    }

    async fn fetch(&self, wire: &Wire) -> Result<(Metadata, Duration), ProviderError> {
        let (metadata, header) = wire.get::<Metadata>(&self.url, None).await?;
        if metadata.issuer().as_str() != self.issuer {
            return Err(wire.unusable("its discovery document is another issuer's"));
        }
        let endpoints = [
            Some(metadata.authorization_endpoint().url()),
            metadata.token_endpoint().map(TokenUrl::url),
            metadata.userinfo_endpoint().map(UserInfoUrl::url),
            Some(metadata.jwks_uri().url()),
        ];
        for endpoint in endpoints.into_iter().flatten() {
            wire.check(endpoint)?;
        }
        Ok((metadata, fresh_for(&header)))
    }
}

/// `max-age` of Cache-Control (RFC 9111, section 5.2.2.1), within our bounds.
fn fresh_for(header: &HeaderMap) -> Duration {
    let lines = header.get_all(header::CACHE_CONTROL).into_iter();
    let directives = lines
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(','));
    let ages = directives.filter_map(|directive| match directive.trim().to_ascii_lowercase().as_str() {
        "no-store" | "no-cache" => Some(0),
        directive => directive.strip_prefix("max-age=")?.trim_matches('"').parse().ok(),
    });
    let age = ages.min().map_or(FRESH_FOR, Duration::from_secs);
    age.clamp(FRESH_FOR_AT_LEAST, FRESH_FOR)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_document_is_kept_as_long_as_it_says_but_an_hour_at_most() {
        for (text, seconds) in [
            ("max-age=60", 60),
            ("public, max-age=120, must-revalidate", 120),
            ("Max-Age=\"300\"", 300),
            ("no-store", 10),
            ("max-age=0", 10),
            ("max-age=86400", 3600),
            ("max-age=soon", 3600),
        ] {
            let header = HeaderMap::from_iter([(header::CACHE_CONTROL, HeaderValue::from_static(text))]);
            assert_eq!(fresh_for(&header), Duration::from_secs(seconds), "{text}");
        }
        assert_eq!(fresh_for(&HeaderMap::new()), FRESH_FOR);
    }
}
