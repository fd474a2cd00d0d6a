//! What differs from provider to provider. To add one: a file with a `Dialect`, and its arm in [`of`].
//!
//! The methods' own bodies are OpenID Connect as the specification has it; a dialect says only where it departs from
//! that. All of them are pure: asking, and judging what every provider must keep to, is done by who calls them.

use std::fmt;

use super::{
    Profile, StartError, apple::Apple, claims::Claims, github::GitHub, google::Google, microsoft::Microsoft, oidc::Oidc,
};
use crate::{
    clock::Timestamp,
    config::{OAuthProvider, ProviderEndpoints, ProviderKind},
    secret::Secret,
};

pub(super) fn of(settings: &OAuthProvider) -> Result<Box<dyn Dialect>, StartError> {
    Ok(match settings.kind {
        ProviderKind::Google => Box::new(Google::new(settings)),
        ProviderKind::GitHub => Box::new(GitHub::new(settings)),
        ProviderKind::Apple => Box::new(Apple::new(settings)?),
        ProviderKind::Microsoft => Box::new(Microsoft::new(settings)),
        ProviderKind::Oidc => Box::new(Oidc::new(settings)?),
    })
}

pub(super) trait Dialect: fmt::Debug + Send + Sync {
    /// Whom accounts are accounts of.
    fn issuer(&self) -> &str;

    /// Whether an id_token, or an authorisation response (RFC 9207), that says it is from there is from the provider.
    fn is_issuer(&self, iss: &str) -> bool {
        iss == self.issuer()
    }

    /// Where the provider is, as far as that is known beforehand.
    fn endpoints(&self) -> Result<ProviderEndpoints, url::ParseError> {
        Ok(ProviderEndpoints::default())
    }

    /// Whether the rest is to be asked for.
    fn discovers(&self) -> bool {
        false
    }

    fn scopes(&self) -> &'static [&'static str] {
        &["openid", "email", "profile"]
    }

    /// Between granted scopes, beside blanks.
    fn scope_separator(&self) -> char {
        ' '
    }

    fn response_type(&self) -> &'static str {
        "code"
    }

    /// Beyond what every authorisation request says.
    fn authorization_params(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }

    /// A client secret that is made rather than configured.
    fn made_secret(&self, _now: Timestamp) -> Option<Result<Secret<String>, &'static str>> {
        None
    }

    /// What a refresh asks for, of what was granted or else is configured. Nothing: as before (RFC 6749, section 6).
    fn scopes_to_refresh(&self, _granted: &[String], _configured: Vec<String>) -> Vec<String> {
        Vec::new()
    }

    /// Whether people are known by id_tokens; else by the API: [`Self::profile_from_api`].
    fn has_id_tokens(&self) -> bool {
        true
    }

    /// Whether an app may have hashed the nonce before it sent it.
    fn may_hash_nonce(&self) -> bool {
        false
    }

    /// What an id_token must say beyond the specification.
    fn check_claims(&self, _claims: &Claims) -> Result<(), &'static str> {
        Ok(())
    }

    /// The issuer of a checked id_token as accounts have it: one spelling of each.
    fn issuer_of(&self, _claims: &Claims) -> String {
        self.issuer().to_owned()
    }

    fn subject<'c>(&self, claims: &'c Claims) -> Option<&'c str> {
        claims.text("sub")
    }

    /// Whether the provider proves that the address is theirs; `None`: it says nothing about it.
    fn proves_email(&self, claims: &Claims) -> Option<bool> {
        claims.says("email_verified")
    }

    /// The name in the `user` parameter of an authorisation response.
    fn name_from_browser(&self, _user: &str) -> Option<String> {
        None
    }

    /// From what the userinfo endpoint said and, where there is one, the emails endpoint.
    fn profile_from_api(&self, _user: Claims, _emails: Option<&serde_json::Value>) -> Result<Profile, &'static str> {
        Err("it has no API for profiles")
    }
}
