//! What the values of `[auth.oauth.NAME]` may be.

use std::time::Duration;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use rustls::pki_types::{PrivatePkcs8KeyDer, pem::PemObject as _};
use url::Url;

use crate::{
    config::{
        error::nearest,
        found::Wrong,
        kind::{Kind, parsed, secret, table_of},
        server::host_name,
        units::{duration, nonzero_duration},
    },
    secret::Secret,
};

/// Past it, tokens that expired would count for long, and clocks that are ten minutes off would do.
const MAX_SKEW: Duration = Duration::from_mins(3);
/// A browser waits meanwhile.
const MAX_TIMEOUT: Duration = Duration::from_mins(1);

/// What the flow itself says to the authorisation endpoint, or what would speak in its place (RFC 9101, section 5).
pub const SET_BY_THE_FLOW: [&str; 11] = [
    "client_id",
    "code_challenge",
    "code_challenge_method",
    "nonce",
    "redirect_uri",
    "request",
    "request_uri",
    "response_mode",
    "response_type",
    "scope",
    "state",
];

pub(super) fn client_id() -> Kind<String> {
    parsed("a client id, as the provider shows it", |text| {
        judge_credential(text)?;
        Ok(text.to_owned())
    })
}

pub(super) fn client_secret() -> Kind<Secret<String>> {
    secret(
        "the secret that the provider shows with the client id",
        judge_credential,
    )
}

/// Visible ASCII and spaces within (RFC 6749, appendices A.1 and A.2).
fn judge_credential(text: &str) -> Result<(), Wrong> {
    if text.is_empty() {
        return Err("empty".into());
    }
    if text.trim() != text {
        return Err("white space around it, as is left by copying".into());
    }
    if !text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return Err("characters that no provider uses".into());
    }
    Ok(())
}

/// A team's or a key's.
pub(super) fn apple_id(example: &str) -> Kind<String> {
    parsed(format!("letters and digits, such as {example:?}"), |text| {
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err("not letters and digits alone".into());
        }
        Ok(text.to_owned())
    })
}

/// Apple's keys are for ES256, and nothing else makes its client secrets.
pub(super) fn private_key() -> Kind<Secret<String>> {
    secret(
        "a P-256 key in PEM that begins with -----BEGIN PRIVATE KEY-----, such as { file = \"AuthKey_FGHIJ67890.p8\" }",
        |text| {
            if text.contains("-----BEGIN EC PRIVATE KEY-----") {
                return Err("not PKCS #8, which `openssl pkcs8 -topk8 -nocrypt` makes of it".into());
            }
            if text.contains("-----BEGIN ENCRYPTED PRIVATE KEY-----") {
                return Err("encrypted, and the gateway has no password for it".into());
            }
            if text.contains("\\n") {
                return Err("line breaks are written as `\\n`, and have to be line breaks".into());
            }
            let key = PrivatePkcs8KeyDer::from_pem_slice(text.as_bytes()).map_err(|_| "not a private key in PEM")?;
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, key.secret_pkcs8_der())
                .map_err(|_| "not a key for ES256, which is what Apple's are for")?;
            Ok(())
        },
    )
}

/// Kept as it is written: a provider's name for itself is compared byte by byte (OpenID Connect Discovery 1.0, 4.3).
pub(super) fn issuer() -> Kind<String> {
    const DOCUMENT: &str = "/.well-known/openid-configuration";
    parsed(
        "a URL such as \"https://id.example.com\", without `?` and `#`",
        |text| {
            let url = web_url(text)?;
            if let Some(issuer) = text.strip_suffix(DOCUMENT) {
                return Err(Wrong::but("where the issuer is described, not what it is", issuer));
            }
            if url.query().is_some() || url.fragment().is_some() {
                return Err("an issuer has no query and no fragment".into());
            }
            Ok(text.to_owned())
        },
    )
}

pub(super) fn endpoint(example: &str) -> Kind<Url> {
    parsed(format!("a URL such as {example:?}"), |text| {
        let url = web_url(text)?;
        if url.fragment().is_some() {
            return Err("an endpoint has no fragment".into());
        }
        Ok(url)
    })
}

pub(super) fn base_url() -> Kind<Url> {
    parsed(
        "a URL such as \"https://github.example.com\": scheme, host, perhaps a port",
        |text| {
            let url = web_url(text)?;
            if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
                let bare = url.origin().ascii_serialization();
                return Err(Wrong::but("something follows host and port", bare));
            }
            Ok(url)
        },
    )
}

fn web_url(text: &str) -> Result<Url, Wrong> {
    if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err("white space in it".into());
    }
    if !text.contains("://") {
        return Err(Wrong::but("without a scheme", format!("https://{text}")));
    }
    let url = Url::parse(text).map_err(|_| "not a URL")?;
    if !matches!(url.scheme(), "https" | "http") {
        return Err("neither https nor http".into());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("no user or password belongs here".into());
    }
    Ok(url)
}

/// Tokens name directories by id alone: by its domain, nobody could be told from another directory's.
pub(super) fn tenant() -> Kind<String> {
    parsed(
        "\"common\", \"organizations\", \"consumers\", or the id of a directory (Directory ID, in its overview)",
        |text| {
            let words = ["common", "organizations", "consumers"];
            let is_id = text.len() == uuid::fmt::Hyphenated::LENGTH && uuid::Uuid::try_parse(text).is_ok();
            if is_id {
                return Ok(text.to_ascii_lowercase());
            }
            if words.contains(&text) {
                return Ok(text.to_owned());
            }
            if text.contains('.') {
                return Err("a domain, and tokens name a directory by its id".into());
            }
            Err(Wrong {
                problem: "neither one of these words, nor an id".to_owned(),
                nearest: nearest(text, words),
            })
        },
    )
}

pub(super) fn hosted_domain() -> Kind<String> {
    parsed("a domain such as \"example.com\", or \"*\"", |text| {
        if text == "*" {
            return Ok(text.to_owned());
        }
        if let Some((_, domain)) = text.split_once('@') {
            return Err(Wrong::but("an address, not a domain", domain));
        }
        host_name(text)
    })
}

pub(super) fn scope() -> Kind<String> {
    parsed("one scope, such as \"openid\"", |text| {
        if text.contains(' ') {
            let apart: Vec<String> = text.split_whitespace().map(|scope| format!("{scope:?}")).collect();
            return Err(Wrong::but("several in one", apart.join(", ")));
        }
        // RFC 6749, section 3.3.
        let legal = |byte: u8| matches!(byte, b'!'..=b'~') && !matches!(byte, b'"' | b'\\');
        if text.is_empty() || !text.bytes().all(legal) {
            return Err("not a scope".into());
        }
        Ok(text.to_owned())
    })
}

pub(super) fn authorization_params() -> Kind<Vec<(String, String)>> {
    let value = parsed("a string", |text| {
        if text.chars().any(char::is_control) {
            return Err("control characters".into());
        }
        Ok(text.to_owned())
    });
    table_of(
        |name| {
            if SET_BY_THE_FLOW.contains(&name) {
                return Err(match name {
                    "scope" => Wrong::but("`scopes` says it", "scopes"),
                    _ => "set by the gateway, anew for each sign-in or once and for all".into(),
                });
            }
            if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_graphic()) {
                return Err("not a parameter's name".into());
            }
            Ok(())
        },
        value,
    )
}

pub(super) fn clock_skew() -> Kind<Duration> {
    duration().check("a duration such as \"1m\", at most \"3m\"", |skew| {
        if *skew > MAX_SKEW {
            return Err("tokens would count that expired long ago; set the clocks instead".into());
        }
        Ok(())
    })
}

pub(super) fn timeout() -> Kind<Duration> {
    nonzero_duration().check("a duration such as \"10s\", above zero, at most \"1m\"", |timeout| {
        if *timeout > MAX_TIMEOUT {
            return Err("longer than people wait for a page".into());
        }
        Ok(())
    })
}
