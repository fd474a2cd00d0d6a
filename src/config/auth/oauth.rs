//! `[auth.oauth.NAME]`: the providers at which people may sign in.
//!
//! `values.rs` says what a value may be, `rules.rs` what must hold between keys: which belong to which kind, and where a
//! provider may be.

use std::time::Duration;

use rustls::pki_types::CertificateDer;
use url::Url;

use crate::{
    config::{
        Facts, Origin,
        kind::{boolean, choice, list},
        pem::authorities,
        section::Section,
    },
    secret::Secret,
};

mod rules;
mod values;

pub use values::SET_BY_THE_FLOW;

/// A provider, and this gateway's registration there.
#[derive(Clone, Debug, Eq, PartialEq)]
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
    /// Microsoft's: `common`, `organizations`, `consumers`, or a tenant's id, in lower case.
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
    /// Authorities that are trusted for this provider beside the system's.
    pub ca: Option<Vec<CertificateDer<'static>>>,
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
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ProviderEndpoints {
    pub authorization: Option<Url>,
    pub token: Option<Url>,
    pub userinfo: Option<Url>,
    pub jwks: Option<Url>,
    /// GitHub's list of a user's addresses.
    pub emails: Option<Url>,
}

/// What Apple's client secret is made of.
#[derive(Clone, Debug, Eq, PartialEq)]
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

const KINDS: &[(&str, ProviderKind)] = &[
    ("google", ProviderKind::Google),
    ("github", ProviderKind::GitHub),
    ("apple", ProviderKind::Apple),
    ("microsoft", ProviderKind::Microsoft),
    ("oidc", ProviderKind::Oidc),
];

impl ProviderKind {
    /// As it is written in the configuration.
    fn name(self) -> &'static str {
        let known = KINDS.iter().find(|(_, kind)| *kind == self);
        known.map_or("oidc", |(name, _)| *name)
    }

    /// What a provider's name says of its kind.
    fn of(name: &str) -> Self {
        let known = KINDS.iter().find(|(known, _)| *known == name);
        known.map_or(Self::Oidc, |(_, kind)| *kind)
    }
}

impl OAuthProvider {
    #[expect(
        clippy::too_many_lines,
        reason = "a list of keys: splitting it would hide some of them"
    )]
    pub(super) fn read(s: &mut Section<'_>, name: &str, facts: &Facts) -> Option<Self> {
        s.shown_as_comment();
        rules::report_bad_name(s, name);
        let kind = s
            .key(
                "kind",
                "Which language the provider speaks. Absent: what NAME says if it is one of these, else \"oidc\".",
                choice(KINDS),
            )
            .optional("google")
            .map(|kind| kind.unwrap_or_else(|| ProviderKind::of(name)));
        let client_id = s
            .key(
                "client_id",
                "What the provider calls your registration there; Apple says Services ID, Microsoft Application ID.",
                values::client_id(),
            )
            .required("1234567890-example.apps.googleusercontent.com");
        let client_secret = s
            .key(
                "client_secret",
                "Shows the provider that it is your registration that asks. Required for google, github and microsoft. \
                 For apple it is made of `private_key`, unless one that was made elsewhere stands here. An oidc provider \
                 without it is asked as a public client, whose codes are protected by PKCE alone.",
                values::client_secret(),
            )
            .optional("{ env = \"GOOGLE_CLIENT_SECRET\" }");
        let team_id = s
            .key(
                "team_id",
                "apple: whose key it is; at the top right of Apple's developer pages.",
                values::apple_id("ABCDE12345"),
            )
            .optional("ABCDE12345");
        let key_id = s
            .key(
                "key_id",
                "apple: what Apple calls `private_key`.",
                values::apple_id("FGHIJ67890"),
            )
            .optional("FGHIJ67890");
        let private_key = s
            .key(
                "private_key",
                "apple: the key that client secrets are made of, renewed by the gateway in time: the file that Apple \
                 lets you download once.",
                values::private_key(),
            )
            .optional("{ file = \"AuthKey_FGHIJ67890.p8\" }");
        let issuer = s
            .key(
                "issuer",
                "What the provider calls itself, and where the rest is discovered: the URL that stands before \
                 /.well-known/openid-configuration, to the letter as that document says it. Required for oidc; google, \
                 apple and microsoft have one by themselves, which this would replace; not for github.",
                values::issuer(),
            )
            .optional("https://id.example.com");
        let tenant = s
            .key(
                "tenant",
                "microsoft: who may sign in. \"common\": everybody; \"organizations\": every work or school account; \
                 \"consumers\": every personal account; the id of a directory: the people in it.",
                values::tenant(),
            )
            .or("common");
        let base_url = s
            .key(
                "base_url",
                "github: where your GitHub Enterprise Server is. Absent: github.com.",
                values::base_url(),
            )
            .optional("https://github.example.com");
        let hosted_domain = s
            .key(
                "hosted_domain",
                "google: only accounts of this Google Workspace domain may sign in; \"*\": of any. Absent: private \
                 accounts as well.",
                values::hosted_domain(),
            )
            .optional("example.com");
        let endpoints = ProviderEndpoints::read(s);
        let scopes = s
            .key(
                "scopes",
                "What people are asked to grant. Absent: what signing in needs. google, microsoft and oidc need \"openid\".",
                list(values::scope()),
            )
            .optional("[\"openid\", \"email\", \"profile\"]");
        let audiences = s
            .key(
                "audiences",
                "Client ids of your native apps: the id_tokens that they get count as those for `client_id` do. Not for \
                 github.",
                list(values::client_id()),
            )
            .or("[]");
        let authorization_params = s
            .key(
                "authorization_params",
                "Added to the URL that people are sent to, such as { access_type = \"offline\", prompt = \"consent\" }, by \
                 which Google gives refresh tokens.",
                values::authorization_params(),
            )
            .or("{}");
        let token_endpoint_auth_method = s
            .key(
                "token_endpoint_auth_method",
                "How `client_secret` is shown: in the body, in the header, or, by a public client, not at all. Absent: as \
                 the provider says that it wants it, in the body where it takes both.",
                choice(&[
                    ("client_secret_post", TokenEndpointAuth::ClientSecretPost),
                    ("client_secret_basic", TokenEndpointAuth::ClientSecretBasic),
                    ("none", TokenEndpointAuth::None),
                ]),
            )
            .optional("client_secret_post");
        let sign_up = s
            .key(
                "sign_up",
                "Whether somebody who comes from there for the first time gets an account here. \"on-request\": only where \
                 the app says `requestSignUp`; \"off\": no. With `auth.sign_up = false` nobody does.",
                choice(&[
                    ("allowed", ProviderSignUp::Allowed),
                    ("on-request", ProviderSignUp::OnRequest),
                    ("off", ProviderSignUp::Off),
                ]),
            )
            .or("allowed");
        let trust_email = s
            .key(
                "trust_email",
                "Whether addresses count as proven where the provider does not say so. Only for one at which nobody can \
                 enter somebody else's: who could would get into the account here that has it. With microsoft only with \
                 a `tenant` of your own; not for github.",
                boolean(),
            )
            .or("false");
        let clock_skew = s
            .key(
                "clock_skew",
                "How far the provider's clock may be from this machine's when its id_tokens are judged.",
                values::clock_skew(),
            )
            .or("1m");
        let timeout = s
            .key(
                "timeout",
                "How long the provider may take for one answer.",
                values::timeout(),
            )
            .or("10s");
        let allow_insecure = s
            .key(
                "allow_insecure",
                "Whether the provider may be spoken to without TLS: who is on the way can then sign in as anybody. While \
                 public_url is on this machine it may in any case.",
                boolean(),
            )
            .or("false");
        let allow_private = s
            .key(
                "allow_private",
                "Whether the provider may have an address that is not public, such as 10.0.0.1. While public_url is on this \
                 machine it may in any case.",
                boolean(),
            )
            .or("false");
        let ca = s
            .key(
                "ca",
                "Certificates trusted for this provider beside the system's, for one inside of your network.",
                authorities(),
            )
            .optional("internal-ca.pem");

        if let Some(kind) = kind {
            rules::report_foreign_keys(s, kind);
            rules::report_proofs(s, kind, token_endpoint_auth_method.flatten());
            rules::report_scopes(s, kind, scopes.as_ref().and_then(Option::as_deref));
            rules::report_trust(s, kind, trust_email, tenant.as_deref());
        }
        let limits = rules::Limits {
            is_local: facts.public_url.as_ref().is_none_or(Origin::is_loopback),
            allow_insecure,
            allow_private,
        };
        if let Some(issuer) = issuer.iter().flatten().find_map(|issuer| Url::parse(issuer).ok()) {
            limits.judge(s, "issuer", &issuer);
        }
        if let Some(Some(base_url)) = &base_url {
            limits.judge(s, "base_url", base_url);
        }
        for (key, url) in endpoints.iter().flat_map(ProviderEndpoints::given) {
            limits.judge(s, key, url);
        }
        let apple_key = match (team_id?, key_id?, private_key?) {
            (Some(team_id), Some(key_id), Some(private_key)) => Some(AppleKey {
                team_id,
                key_id,
                private_key,
            }),
            _ => None,
        };
        Some(Self {
            name: name.to_owned(),
            kind: kind?,
            client_id: client_id?,
            client_secret: client_secret?,
            apple_key,
            issuer: issuer?,
            tenant: tenant?,
            base_url: base_url?,
            hosted_domain: hosted_domain?,
            endpoints: endpoints?,
            scopes: scopes?,
            audiences: audiences?,
            authorization_params: authorization_params?,
            token_endpoint_auth_method: token_endpoint_auth_method?,
            sign_up: sign_up?,
            trust_email: trust_email?,
            clock_skew: clock_skew?,
            timeout: timeout?,
            allow_insecure: allow_insecure?,
            allow_private: allow_private?,
            ca: ca?,
        })
    }
}

impl ProviderEndpoints {
    fn read(s: &mut Section<'_>) -> Option<Self> {
        let authorization = s
            .key(
                "authorization_endpoint",
                "Where browsers are sent. This and the next three are discovered at `issuer`, or known of the kind; what \
                 stands here wins.",
                values::endpoint("https://id.example.com/authorize"),
            )
            .optional("https://id.example.com/authorize");
        let token = s
            .key(
                "token_endpoint",
                "Where codes are worth tokens.",
                values::endpoint("https://id.example.com/token"),
            )
            .optional("https://id.example.com/token");
        let userinfo = s
            .key(
                "userinfo_endpoint",
                "Where a token says whose it is; for github, the API's `/user`. apple has none.",
                values::endpoint("https://id.example.com/userinfo"),
            )
            .optional("https://id.example.com/userinfo");
        let jwks = s
            .key(
                "jwks_uri",
                "Where the keys are that sign id_tokens. Not for github.",
                values::endpoint("https://id.example.com/jwks"),
            )
            .optional("https://id.example.com/jwks");
        let emails = s
            .key(
                "emails_endpoint",
                "github: where somebody's addresses are listed.",
                values::endpoint("https://github.example.com/api/v3/user/emails"),
            )
            .optional("https://github.example.com/api/v3/user/emails");
        Some(Self {
            authorization: authorization?,
            token: token?,
            userinfo: userinfo?,
            jwks: jwks?,
            emails: emails?,
        })
    }

    /// Those that are configured, by key.
    fn given(&self) -> impl Iterator<Item = (&'static str, &Url)> {
        [
            ("authorization_endpoint", &self.authorization),
            ("token_endpoint", &self.token),
            ("userinfo_endpoint", &self.userinfo),
            ("jwks_uri", &self.jwks),
            ("emails_endpoint", &self.emails),
        ]
        .into_iter()
        .filter_map(|(key, url)| Some((key, url.as_ref()?)))
    }
}
