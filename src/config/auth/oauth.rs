//! `[auth.oauth.NAME]`: the providers at which people may sign in.

use std::{path::PathBuf, time::Duration};

use url::Url;

use crate::{config::section::Section, secret::Secret};

/// A provider, and this gateway's registration there.
#[derive(Clone, Debug)]
pub struct OAuthProvider {
    /// As it stands in paths, in `accounts.provider_id` and in what clients send.
    pub name: String,
    pub kind: ProviderKind,
    pub client_id: String,
    /// `None`: a public client, or Apple, whose secret is made from `apple_key`.
    pub client_secret: Option<Secret<String>>,
    pub apple_key: Option<AppleKey>,
    /// As the provider spells it: compared byte by byte (OpenID Connect Discovery 1.0, section 4.3). Only with
    /// [`ProviderKind::Oidc`] it must be there.
    pub issuer: Option<String>,
    /// Microsoft's: `common`, `organizations`, `consumers`, or a tenant's id or domain.
    pub tenant: String,
    /// GitHub Enterprise's, such as `https://github.example.com`.
    pub base_url: Option<Url>,
    /// Google's `hd`: only accounts of this Workspace domain; `*`: of any.
    pub hosted_domain: Option<String>,
    pub endpoints: ProviderEndpoints,
    /// `None`: what the kind asks for by itself.
    pub scopes: Option<Vec<String>>,
    /// Other client ids whose id_tokens count in `sign-in/social` with an `idToken`: those of native apps.
    pub audiences: Vec<String>,
    /// Added to the authorisation request: names and values.
    pub authorization_params: Vec<(String, String)>,
    /// `None`: what the provider supports, the body before the header.
    pub token_endpoint_auth_method: Option<TokenEndpointAuth>,
    pub sign_up: ProviderSignUp,
    /// An address counts as verified where the provider says nothing about it.
    pub trust_email: bool,
    /// How far the provider's clock may be from ours.
    pub clock_skew: Duration,
    /// For one request to the provider, answer included.
    pub timeout: Duration,
    /// http as well as https.
    pub allow_insecure: bool,
    /// Addresses that are not public as well.
    pub allow_private: bool,
    /// Certificates in PEM that are trusted for this provider beside the system's.
    pub ca: Option<PathBuf>,
}

/// Which language a provider speaks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ProviderKind {
    Google,
    GitHub,
    Apple,
    Microsoft,
    Oidc,
}

/// What the kind, or discovery, would say otherwise.
#[derive(Clone, Debug, Default)]
pub struct ProviderEndpoints {
    pub authorization: Option<Url>,
    pub token: Option<Url>,
    pub userinfo: Option<Url>,
    pub jwks: Option<Url>,
    /// GitHub's list of a user's addresses.
    pub emails: Option<Url>,
}

/// What Apple's client secret is made of.
#[derive(Clone, Debug)]
pub struct AppleKey {
    pub team_id: String,
    pub key_id: String,
    /// PKCS #8 in PEM: the `.p8` file.
    pub private_key: Secret<String>,
}

/// How the gateway shows the provider who it is (RFC 7591, section 2).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum TokenEndpointAuth {
    ClientSecretPost,
    ClientSecretBasic,
    None,
}

/// Whether somebody who has no account here gets one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ProviderSignUp {
    Allowed,
    /// Only where the app asks with `requestSignUp`.
    OnRequest,
    Off,
}
