//! Whether an id_token is one, of this provider, for us, now (OpenID Connect Core 1.0, section 3.1.3.7).
//!
//! The signature comes first: nothing that a token says is looked at before, except which key it says it was signed
//! with. Only asymmetric algorithms count. With `none` anybody could sign, and with HS256 anybody who knows a public
//! key, or the client secret in an app.
//!
//! The crate's own verifier is not used, only its keys: it takes an issuer that is no URL for a broken token (Google),
//! one issuer (Microsoft has many), no clock skew, and it leaves `azp`, `nbf` and `at_hash` to us.

use std::time::Duration;

use base64ct::{Base64UrlUnpadded, Encoding};
use openidconnect::{
    AccessToken, AccessTokenHash, JsonWebKey,
    core::{CoreJsonWebKey, CoreJwsSigningAlgorithm as Alg},
};
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::{claims::Claims, dialect::Dialect};
use crate::{clock::Timestamp, secret::Secret};

/// Tokens with a list of groups come near 10 KB.
const MAX_TOKEN: usize = 32 * 1024;
/// How long ago a token was issued that comes straight from the token endpoint. More than five minutes, by which
/// Microsoft dates them back; and so few that with all the skew that can be configured, a clock that is ten minutes off
/// is refused.
pub(super) const AGE_IN_FLOW: Duration = Duration::from_mins(6);
/// How long ago one that an app presents may have been issued.
pub(super) const AGE_PRESENTED: Duration = Duration::from_hours(1);

const ALLOWED: [Alg; 9] = [
    Alg::RsaSsaPkcs1V15Sha256,
    Alg::RsaSsaPkcs1V15Sha384,
    Alg::RsaSsaPkcs1V15Sha512,
    Alg::RsaSsaPssSha256,
    Alg::RsaSsaPssSha384,
    Alg::RsaSsaPssSha512,
    Alg::EcdsaP256Sha256,
    Alg::EcdsaP384Sha384,
    Alg::EdDsa,
];

/// What a token must agree with.
#[derive(Debug)]
pub(super) struct Expected<'a> {
    pub(super) audience: Audience<'a>,
    /// `None`: it must have none. One with a nonce is of a flow that somebody began with it, who alone may present it.
    pub(super) nonce: Option<Nonce<'a>>,
    /// What the token's `at_hash` is of, where it has one.
    pub(super) access_token: Option<&'a Secret<String>>,
    pub(super) max_age: Duration,
    pub(super) clock_skew: Duration,
    pub(super) now: Timestamp,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Audience<'a> {
    /// The flow's token: for us alone, and got by us.
    Us(&'a str),
    /// An app's token: for us or one of our apps. Who got it (`azp`) is the app's affair: on Android it is a client id
    /// that names the app's signing key, while the audience is ours.
    AnyOf(&'a str, &'a [String]),
}

#[derive(Clone, Copy)]
pub(super) enum Nonce<'a> {
    Exact(&'a str),
    /// As it is, or its SHA-256 in hexadecimal.
    ExactOrHashed(&'a str),
}

crate::secret::unprinted!(Nonce<'a>);

/// Why a token does not count.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Bad {
    /// No key of these made it: perhaps a newer one did.
    Key(&'static str),
    Token(&'static str),
}

#[derive(Deserialize)]
struct Header {
    alg: Alg,
    kid: Option<String>,
    typ: Option<String>,
    crit: Option<Value>,
}

/// The token's claims, if everything about it is right.
pub(super) fn verify(
    token: &str,
    keys: &[CoreJsonWebKey],
    dialect: &dyn Dialect,
    expected: &Expected<'_>,
) -> Result<Claims, Bad> {
    let parts = split(token).ok_or(Bad::Token("it is no JWT"))?;
    let header: Header = read(parts.header).ok_or(Bad::Token("its header can't be read"))?;
    if !ALLOWED.contains(&header.alg) {
        return Err(Bad::Token("its algorithm is not allowed"));
    }
    if header.crit.is_some() {
        return Err(Bad::Token("it demands extensions that we do not know"));
    }
    // A token of another kind (`at+jwt`, `logout+jwt`) by the same key is no id_token.
    let typ = header.typ.as_deref().unwrap_or("JWT");
    if !typ.eq_ignore_ascii_case("JWT") && !typ.eq_ignore_ascii_case("application/jwt") {
        return Err(Bad::Token("it is a JWT of another type"));
    }
    let signature =
        Base64UrlUnpadded::decode_vec(parts.signature).map_err(|_| Bad::Token("its signature can't be read"))?;
    let fits =
        |key: &&CoreJsonWebKey| header.kid.is_none() || key.key_id().map(|kid| kid.as_str()) == header.kid.as_deref();
    let key = keys
        .iter()
        .filter(fits)
        .find(|key| {
            key.verify_signature(&header.alg, parts.signed.as_bytes(), &signature)
                .is_ok()
        })
        .ok_or(Bad::Key("no key of the provider's made its signature"))?;

    let claims: Claims = read(parts.payload).ok_or(Bad::Token("its claims can't be read"))?;
    check(&claims, dialect, expected).map_err(Bad::Token)?;
    check_access_token(&claims, expected.access_token, &header.alg, key).map_err(Bad::Token)?;
    Ok(claims)
}

/// What a token says that was verified when it came, long ago perhaps, or that came of a refresh.
pub(super) fn claims_of_verified(token: &str) -> Option<Claims> {
    read(split(token)?.payload)
}

fn check(claims: &Claims, dialect: &dyn Dialect, expected: &Expected<'_>) -> Result<(), &'static str> {
    if !claims.text("iss").is_some_and(|iss| dialect.is_issuer(iss)) {
        return Err("its issuer is not the provider");
    }
    check_audience(claims, expected.audience)?;
    check_times(claims, expected)?;
    check_nonce(claims, expected.nonce)?;
    dialect.check_claims(claims)
}

fn check_audience(claims: &Claims, expected: Audience<'_>) -> Result<(), &'static str> {
    let audiences = match claims.0.get("aud") {
        Some(Value::String(one)) => vec![one.as_str()],
        Some(Value::Array(several)) => {
            let texts = several.iter().map(Value::as_str).collect::<Option<Vec<_>>>();
            texts.ok_or("its audiences are no texts")?
        }
        _ => return Err("it has no audience"),
    };
    // Further audiences could present our token as theirs, and theirs as ours.
    let ours = |audience: &&str| match expected {
        Audience::Us(us) => *audience == us,
        Audience::AnyOf(us, apps) => *audience == us || apps.iter().any(|app| app == audience),
    };
    if audiences.is_empty() || !audiences.iter().all(ours) {
        return Err("its audience is another");
    }
    match (expected, claims.0.get("azp")) {
        (Audience::AnyOf(..), _) | (Audience::Us(_), None) => Ok(()),
        (Audience::Us(us), Some(party)) if party.as_str() == Some(us) => Ok(()),
        (Audience::Us(_), Some(_)) => Err("it was issued to another party"),
    }
}

fn check_times(claims: &Claims, expected: &Expected<'_>) -> Result<(), &'static str> {
    let (now, skew) = (expected.now, expected.clock_skew);
    let at = |name| {
        claims
            .0
            .get(name)
            .map(|value| numeric_date(value).ok_or("its times can't be read"))
    };
    let expires = at("exp").ok_or("it does not say when it expires")??;
    if now >= expires.plus(skew) {
        return Err("it has expired");
    }
    let issued = at("iat").ok_or("it does not say when it was issued")??;
    if issued > now.plus(skew) {
        return Err("it was issued in the future");
    }
    if now.since(issued) > expected.max_age.saturating_add(skew) {
        return Err("it was issued too long ago");
    }
    if let Some(not_before) = at("nbf").transpose()?
        && not_before > now.plus(skew)
    {
        return Err("it is not valid yet");
    }
    Ok(())
}

/// Seconds since 1970, perhaps with a fraction (RFC 7519, section 2).
fn numeric_date(value: &Value) -> Option<Timestamp> {
    let seconds = match value.as_i64() {
        Some(seconds) => seconds,
        None => i64::try_from(Duration::try_from_secs_f64(value.as_f64()?).ok()?.as_secs()).ok()?,
    };
    Some(Timestamp::from_secs(seconds))
}

fn check_nonce(claims: &Claims, expected: Option<Nonce<'_>>) -> Result<(), &'static str> {
    let said = claims.text("nonce").unwrap_or_default();
    let is = |nonce: &str| !nonce.is_empty() && bool::from(said.as_bytes().ct_eq(nonce.as_bytes()));
    let agrees = match expected {
        None => claims.0.get("nonce").is_none_or(Value::is_null),
        Some(Nonce::Exact(nonce)) => is(nonce),
        Some(Nonce::ExactOrHashed(nonce)) => is(nonce) || is(&hex(&Sha256::digest(nonce))),
    };
    agrees.then_some(()).ok_or("its nonce is another")
}

fn hex(bytes: &[u8]) -> String {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.filter_map(|digit| char::from_digit(digit.into(), 16)).collect()
}

/// `at_hash` binds the access token to the id_token (section 3.1.3.8).
fn check_access_token(
    claims: &Claims,
    token: Option<&Secret<String>>,
    alg: &Alg,
    key: &CoreJsonWebKey,
) -> Result<(), &'static str> {
    let (Some(said), Some(token)) = (claims.0.get("at_hash"), token) else {
        return Ok(());
    };
    let token = AccessToken::new(token.expose().clone());
    let hash = AccessTokenHash::from_token(&token, alg, key).map_err(|_| "its at_hash can't be checked")?;
    let said = said.as_str().unwrap_or_default();
    let agrees = bool::from(said.as_bytes().ct_eq(hash.as_str().as_bytes()));
    agrees.then_some(()).ok_or("it is not of this access token")
}

struct Parts<'t> {
    header: &'t str,
    payload: &'t str,
    signature: &'t str,
    /// Header and payload.
    signed: &'t str,
}

fn split(token: &str) -> Option<Parts<'_>> {
    let short = Some(token).filter(|token| token.len() <= MAX_TOKEN)?;
    let (signed, signature) = short.rsplit_once('.')?;
    let (header, payload) = signed.split_once('.')?;
    Some(Parts {
        header,
        payload,
        signature,
        signed,
    })
}

fn read<T: serde::de::DeserializeOwned>(part: &str) -> Option<T> {
    serde_json::from_slice(&Base64UrlUnpadded::decode_vec(part).ok()?).ok()
}

#[cfg(test)]
mod tests;
