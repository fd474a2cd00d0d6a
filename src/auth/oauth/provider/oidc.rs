//! Any OpenID Connect provider, by discovery.

use super::{StartError, dialect::Dialect};
use crate::config::OAuthProvider;

#[derive(Debug)]
pub(super) struct Oidc {
    issuer: String,
}

impl Oidc {
    pub(super) fn new(settings: &OAuthProvider) -> Result<Self, StartError> {
        match &settings.issuer {
            Some(issuer) => Ok(Self { issuer: issuer.clone() }),
            None => Err(StartError::new(settings, "issuer must be set")),
        }
    }
}

impl Dialect for Oidc {
    fn issuer(&self) -> &str {
        &self.issuer
    }

    fn discovers(&self) -> bool {
        true
    }
}
