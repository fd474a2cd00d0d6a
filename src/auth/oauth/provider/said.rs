//! What the flow says to a provider, and what it gets to hear.

use serde_json::Value;

use crate::{auth::email::EmailAddress, clock::Timestamp, secret::Secret};

/// What an authorisation request says.
pub(in crate::auth) struct Ask<'a> {
    pub(in crate::auth) state: &'a str,
    pub(in crate::auth) nonce: &'a str,
    pub(in crate::auth) pkce_verifier: &'a Secret<String>,
    pub(in crate::auth) redirect_uri: &'a str,
    /// All of them: see `Provider::scopes_with`.
    pub(in crate::auth) scopes: &'a [String],
    pub(in crate::auth) login_hint: Option<&'a str>,
    /// `additionalParams`: never one that the flow itself sets.
    pub(in crate::auth) params: &'a [(String, String)],
}

crate::secret::unprinted!(Ask<'a>);

/// What came back to the redirect URI, and what the flow knows of it.
pub(in crate::auth) struct Return<'a> {
    pub(in crate::auth) code: &'a Secret<String>,
    pub(in crate::auth) nonce: &'a str,
    pub(in crate::auth) pkce_verifier: &'a Secret<String>,
    pub(in crate::auth) redirect_uri: &'a str,
    /// As in [`Ask::scopes`].
    pub(in crate::auth) asked_scopes: &'a [String],
    /// Apple's `user` field, JSON, at somebody's first sign-in: whatever the browser says, so good for a name alone.
    pub(in crate::auth) user: Option<&'a str>,
    pub(in crate::auth) now: Timestamp,
}

crate::secret::unprinted!(Return<'a>);

/// An id_token that an app got by itself (`idToken` of `sign-in/social`).
pub(in crate::auth) struct Presented<'a> {
    pub(in crate::auth) id_token: &'a Secret<String>,
    pub(in crate::auth) nonce: Option<&'a str>,
    pub(in crate::auth) access_token: Option<&'a Secret<String>>,
    /// What the app says of the name, for providers whose tokens have none.
    pub(in crate::auth) name: Option<&'a str>,
    pub(in crate::auth) now: Timestamp,
}

crate::secret::unprinted!(Presented<'a>);

/// What a provider's token endpoint gave.
#[derive(Debug)]
pub(in crate::auth) struct Tokens {
    pub(in crate::auth) access: Option<Secret<String>>,
    pub(in crate::auth) refresh: Option<Secret<String>>,
    pub(in crate::auth) id: Option<Secret<String>>,
    pub(in crate::auth) access_expires_at: Option<Timestamp>,
    pub(in crate::auth) refresh_expires_at: Option<Timestamp>,
    /// As granted; where the provider does not say, as asked for (RFC 6749, section 5.1). After a refresh that says
    /// nothing of it: none, since it is what it was (section 6).
    pub(in crate::auth) scopes: Vec<String>,
}

/// Who somebody is at a provider.
#[derive(Clone)]
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

crate::secret::unprinted!(Profile);

/// Why a provider's answer is of no use. Holds nothing secret: its text goes to the log.
#[derive(Clone, Debug, thiserror::Error)]
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
