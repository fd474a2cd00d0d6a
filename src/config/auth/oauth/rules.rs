//! What must hold between the keys of `[auth.oauth.NAME]`.

use std::net::{IpAddr, Ipv4Addr};

use url::{Host, Url};

use super::{ProviderKind, TokenEndpointAuth};
use crate::config::{error::ConfigError, is_loopback_host, section::Section};

const APPLE_KEY: [&str; 3] = ["team_id", "key_id", "private_key"];
const WITH_ID_TOKENS: &[ProviderKind] = &[
    ProviderKind::Google,
    ProviderKind::Apple,
    ProviderKind::Microsoft,
    ProviderKind::Oidc,
];
const WITH_USER_INFO: &[ProviderKind] = &[
    ProviderKind::Google,
    ProviderKind::GitHub,
    ProviderKind::Microsoft,
    ProviderKind::Oidc,
];

/// Keys that say something to some kinds alone.
const OWN_KEYS: [(&str, &[ProviderKind]); 13] = [
    ("team_id", &[ProviderKind::Apple]),
    ("key_id", &[ProviderKind::Apple]),
    ("private_key", &[ProviderKind::Apple]),
    ("issuer", WITH_ID_TOKENS),
    ("tenant", &[ProviderKind::Microsoft]),
    ("base_url", &[ProviderKind::GitHub]),
    ("hosted_domain", &[ProviderKind::Google]),
    ("userinfo_endpoint", WITH_USER_INFO),
    ("jwks_uri", WITH_ID_TOKENS),
    ("emails_endpoint", &[ProviderKind::GitHub]),
    ("audiences", WITH_ID_TOKENS),
    // GitHub says of every address whether it is verified.
    ("trust_email", WITH_ID_TOKENS),
    ("clock_skew", WITH_ID_TOKENS),
];

/// Directories that anybody may be in; the last one is the id of `consumers`.
const TENANTS_OF_ALL: [&str; 4] = [
    "common",
    "organizations",
    "consumers",
    "9188040d-6c67-4c5b-b112-36a304b66dad",
];

/// Names go into paths, cookies, logs and environment variables, and into the database for good.
pub(super) fn report_bad_name(s: &Section<'_>, name: &str) {
    let plain = name
        .bytes()
        .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_'));
    let problem = if name.is_empty() || name.len() > 64 || !plain || name.starts_with(['-', '_']) {
        "not a name for a provider"
    } else if name == "credential" {
        "means the password where ways to sign in are listed"
    } else if name == "oauth2" {
        "part of the paths at which providers are served"
    } else {
        return;
    };
    s.report(
        ConfigError::new(s.place().clone(), s.path(), problem)
            .found(format!("{name:?}"))
            .allowed(
                "lower-case letters, digits, `-` and `_`, at most 64, a letter or digit first; not credential, oauth2",
            ),
    );
}

/// What another kind would understand: nothing may be accepted and ignored.
pub(super) fn report_foreign_keys(s: &Section<'_>, kind: ProviderKind) {
    for (key, kinds) in OWN_KEYS {
        if s.has(key) && !kinds.contains(&kind) {
            let names: Vec<&str> = kinds.iter().map(|kind| kind.name()).collect();
            s.report(
                s.wrong(key, format!("means nothing to a provider of kind {:?}", kind.name()))
                    .allowed(format!("only with kind {}", names.join(", "))),
            );
        }
    }
    if kind == ProviderKind::Oidc && !s.has("issuer") {
        s.report(
            s.wrong("issuer", "missing: it is how an OpenID Connect provider is known")
                .allowed("a URL such as \"https://id.example.com\"; or another `kind`"),
        );
    }
}

/// By what the provider knows the gateway: all of it, and nothing beside.
pub(super) fn report_proofs(s: &Section<'_>, kind: ProviderKind, method: Option<TokenEndpointAuth>) {
    let (has_secret, is_public) = (s.has("client_secret"), method == Some(TokenEndpointAuth::None));
    let key_parts = APPLE_KEY.iter().filter(|key| s.has(key)).count();
    match kind {
        ProviderKind::Google | ProviderKind::GitHub | ProviderKind::Microsoft if !has_secret => s.report(
            s.wrong("client_secret", format!("missing: kind {:?} demands one", kind.name()))
                .allowed("what the provider shows with the client id, such as { env = \"CLIENT_SECRET\" }"),
        ),
        ProviderKind::Apple if has_secret && key_parts > 0 => s.report(
            s.wrong("client_secret", "stands beside the key that client secrets are made of")
                .allowed("`team_id`, `key_id` and `private_key`; or `client_secret` alone"),
        ),
        ProviderKind::Apple if !has_secret => {
            for key in APPLE_KEY.iter().filter(|key| !s.has(key)) {
                s.report(s.wrong(key, "missing: Apple's client secrets are made of it").allowed(
                    "`team_id`, `key_id` and `private_key`, all three; or a `client_secret` that was made of them",
                ));
            }
        }
        ProviderKind::Oidc if !has_secret && method.is_some() && !is_public => s.report(
            s.wrong("token_endpoint_auth_method", "there is no `client_secret` to show")
                .allowed("\"none\", or a `client_secret`"),
        ),
        ProviderKind::Google
        | ProviderKind::GitHub
        | ProviderKind::Apple
        | ProviderKind::Microsoft
        | ProviderKind::Oidc => {}
    }
    if is_public && (has_secret || key_parts > 0) {
        s.report(
            s.wrong(
                "token_endpoint_auth_method",
                "there is a client secret, and it would never be shown",
            )
            .found("\"none\"")
            .allowed("\"client_secret_post\" or \"client_secret_basic\"; or no `client_secret`"),
        );
    }
}

/// Without `openid` there is no id_token (OpenID Connect Core 1.0, section 3.1.2.1), but for Apple, who always gives one.
pub(super) fn report_scopes(s: &Section<'_>, kind: ProviderKind, scopes: Option<&[String]>) {
    if let Some(scopes) = scopes
        && WITH_ID_TOKENS.contains(&kind)
        && kind != ProviderKind::Apple
        && !scopes.iter().any(|scope| scope == "openid")
    {
        s.report(
            s.wrong("scopes", "without \"openid\" the provider does not say who signs in")
                .found(format!("{scopes:?}"))
                .allowed("an array with \"openid\" in it"),
        );
    }
}

/// Microsoft says of no address that it is verified: in a directory of one's own, one can enter any.
pub(super) fn report_trust(s: &Section<'_>, kind: ProviderKind, trust: Option<bool>, tenant: Option<&str>) {
    let Some(tenant) = tenant.filter(|tenant| TENANTS_OF_ALL.contains(tenant)) else {
        return;
    };
    if kind == ProviderKind::Microsoft && trust == Some(true) {
        s.report(
            s.wrong(
                "trust_email",
                "anybody can make a directory at Microsoft, and claim any address in it",
            )
            .found(format!("true, with tenant = {tenant:?}"))
            .allowed("false; or the id of your own directory as `tenant`"),
        );
    }
}

/// Where a provider may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// `server.public_url` is on this machine, so providers may be as well; or it is wrong, so nobody can tell.
    pub(super) is_local: bool,
    /// `None`: wrong, so nobody can tell.
    pub(super) allow_insecure: Option<bool>,
    pub(super) allow_private: Option<bool>,
}

impl Limits {
    pub(super) fn judge(self, s: &Section<'_>, key: &str, url: &Url) {
        if self.is_local {
            return;
        }
        if url.scheme() != "https" && self.allow_insecure == Some(false) {
            s.report(
                s.wrong(key, "plain http: whoever is on the way could sign in as anybody")
                    .found(format!("{:?}", url.as_str()))
                    .allowed("an https URL; or `allow_insecure = true` if all of the way is yours"),
            );
        }
        // Browsers, who are sent to the authorisation endpoint, may be where the gateway is not.
        if key != "authorization_endpoint" && self.allow_private == Some(false) && is_private(url) {
            s.report(
                s.wrong(key, "not an address of the public internet")
                    .found(format!("{:?}", url.as_str()))
                    .allowed("a public host; or `allow_private = true` if the provider is in your network"),
            );
        }
    }
}

/// Whether the URL itself says so. What a name stands for is judged when it is connected to.
fn is_private(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => is_loopback_host(name),
        Some(Host::Ipv4(ip)) => is_private_v4(ip),
        Some(Host::Ipv6(ip)) => match IpAddr::V6(ip).to_canonical() {
            IpAddr::V4(ip) => is_private_v4(ip),
            IpAddr::V6(ip) => {
                ip.is_loopback() || ip.is_unspecified() || ip.is_unique_local() || ip.is_unicast_link_local()
            }
        },
        None => false,
    }
}

fn is_private_v4(ip: Ipv4Addr) -> bool {
    // RFC 6598: between a provider and its customers.
    let is_shared = matches!(ip.octets(), [100, 64..=127, _, _]);
    ip.is_private() || ip.is_loopback() || ip.is_link_local() || ip.is_unspecified() || is_shared
}
