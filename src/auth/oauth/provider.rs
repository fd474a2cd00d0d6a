//! One provider, ready to be asked: where people are sent, what their code is worth, and who they are.
//!
//! `provider/` has a file for each language that providers speak. Whatever comes back is judged here: an id_token's
//! signature, issuer, audience, time and nonce (OpenID Connect Core 1.0, section 3.1.3.7), an answer's size and shape.

use serde_json::Value;
use url::Url;

use crate::{auth::email::EmailAddress, clock::Timestamp, config::OAuthProvider, secret::Secret};

/// What an authorisation request says.
#[derive(Debug)]
pub(in crate::auth) struct Ask<'a> {
    pub(in crate::auth) state: &'a str,
    pub(in crate::auth) nonce: &'a str,
    pub(in crate::auth) pkce_verifier: &'a Secret<String>,
    pub(in crate::auth) redirect_uri: &'a str,
    /// Beyond the configured ones.
    pub(in crate::auth) scopes: &'a [String],
    pub(in crate::auth) login_hint: Option<&'a str>,
    /// `additionalParams`: never one that the flow itself sets.
    pub(in crate::auth) params: &'a [(String, String)],
}

/// What came back to the redirect URI, and what the flow knows of it.
#[derive(Debug)]
pub(in crate::auth) struct Return<'a> {
    pub(in crate::auth) code: &'a Secret<String>,
    pub(in crate::auth) nonce: &'a str,
    pub(in crate::auth) pkce_verifier: &'a Secret<String>,
    pub(in crate::auth) redirect_uri: &'a str,
    /// Apple's `user` field, JSON, at somebody's first sign-in: whatever the browser says, so good for a name alone.
    pub(in crate::auth) user: Option<&'a str>,
    pub(in crate::auth) now: Timestamp,
}

/// An id_token that an app got by itself (`idToken` of `sign-in/social`).
#[derive(Debug)]
pub(in crate::auth) struct Presented<'a> {
    pub(in crate::auth) id_token: &'a Secret<String>,
    pub(in crate::auth) nonce: Option<&'a str>,
    pub(in crate::auth) access_token: Option<&'a Secret<String>>,
    /// What the app says of the name, for providers whose tokens have none.
    pub(in crate::auth) name: Option<&'a str>,
    pub(in crate::auth) now: Timestamp,
}

/// What a provider's token endpoint gave.
#[derive(Debug)]
pub(in crate::auth) struct Tokens {
    pub(in crate::auth) access: Option<Secret<String>>,
    pub(in crate::auth) refresh: Option<Secret<String>>,
    pub(in crate::auth) id: Option<Secret<String>>,
    pub(in crate::auth) access_expires_at: Option<Timestamp>,
    pub(in crate::auth) refresh_expires_at: Option<Timestamp>,
    /// As granted; where the provider does not say, as asked for (RFC 6749, section 5.1).
    pub(in crate::auth) scopes: Vec<String>,
}

/// Who somebody is at a provider.
#[derive(Clone, Debug)]
pub(in crate::auth) struct Profile {
    /// With the subject: what an account is known by. Never empty.
    pub(in crate::auth) issuer: String,
    pub(in crate::auth) subject: String,
    pub(in crate::auth) email: Option<EmailAddress>,
    /// The provider proves that the address is theirs.
    pub(in crate::auth) email_verified: bool,
    pub(in crate::auth) name: String,
    pub(in crate::auth) image: Option<String>,
    /// The claims or the profile as they came: for `account-info` alone.
    pub(in crate::auth) raw: Value,
}

/// Why a provider's answer is of no use. Holds nothing secret: its text goes to the log.
#[derive(Debug, thiserror::Error)]
pub(in crate::auth) enum ProviderError {
    /// The provider can't be asked, did not answer in time, or answered that it can't.
    #[error("{provider} can't be reached: {why}")]
    Unreachable { provider: String, why: String },
    /// The provider said no (RFC 6749, section 5.2).
    #[error("{provider} refused: {code}")]
    Refused { provider: String, code: String },
    /// It said something that is no answer, or not one to this question.
    #[error("{provider} answered with what can't be used: {why}")]
    Unusable { provider: String, why: String },
}

/// A provider as configured. Cheap to share; keeps connections and key sets.
#[derive(Debug)]
pub(in crate::auth) struct Provider {
    settings: OAuthProvider,
}

impl Provider {
    /// `is_local`: `server.public_url` is a loopback name, so http and private addresses do.
    pub(in crate::auth) fn new(settings: &OAuthProvider, _is_local: bool) -> Result<Self, StartError> {
        Ok(Self {
            settings: settings.clone(),
        })
    }

    pub(in crate::auth) fn name(&self) -> &str {
        &self.settings.name
    }

    pub(in crate::auth) const fn settings(&self) -> &OAuthProvider {
        &self.settings
    }

    /// Where to send the browser.
    pub(in crate::auth) async fn authorization_url(&self, _ask: &Ask<'_>) -> Result<Url, ProviderError> {
        unimplemented!()
    }

    /// Whether the answer came from this provider, as far as it says (RFC 9207): `iss` as the answer had it.
    pub(in crate::auth) async fn check_iss(&self, _iss: Option<&str>) -> Result<bool, ProviderError> {
        unimplemented!()
    }

    /// What the code is worth.
    pub(in crate::auth) async fn exchange(&self, _back: &Return<'_>) -> Result<Tokens, ProviderError> {
        unimplemented!()
    }

    /// Who came back: from an id_token that passes every check, or from the provider's API.
    pub(in crate::auth) async fn profile(
        &self,
        _back: &Return<'_>,
        _tokens: &Tokens,
    ) -> Result<Profile, ProviderError> {
        unimplemented!()
    }

    /// Whether [`Self::presented`] can be asked.
    pub(in crate::auth) fn takes_id_tokens(&self) -> bool {
        unimplemented!()
    }

    /// Whose id_token an app presents.
    pub(in crate::auth) async fn presented(&self, _presented: &Presented<'_>) -> Result<Profile, ProviderError> {
        unimplemented!()
    }

    pub(in crate::auth) async fn refresh(
        &self,
        _refresh: &Secret<String>,
        _now: Timestamp,
    ) -> Result<Tokens, ProviderError> {
        unimplemented!()
    }

    /// What the provider says of somebody who signed in before, now.
    pub(in crate::auth) async fn account_info(&self, _tokens: &Tokens) -> Result<Profile, ProviderError> {
        unimplemented!()
    }
}

/// A provider's settings that can't be used: an unreadable `ca`, a private key that is none.
#[derive(Debug, thiserror::Error)]
#[error("auth.oauth.{provider}: {why}")]
pub struct StartError {
    provider: String,
    why: String,
}
