//! GET /jwks: the keys with which upstreams verify assertions (RFC 7517). Public: for everybody, from every origin, and the
//! one answer here that may be kept.
//!
//! It comes from memory: whoever verifies is answered while Postgres is away.

use http::{HeaderMap, HeaderValue, header};

use super::{
    http::{Answer, Call},
    openapi::{Description, Group, Yes, list, object, text, word},
};
use crate::session::assertion::rotation::CACHED_FOR;

pub(super) fn get(call: &Call<'_>) -> Answer {
    Answer::ready(call.auth.sessions.mint().document(), "application/json")
}

/// On top of what holds for all answers: this one is nobody's.
pub(super) fn publish(headers: &mut HeaderMap) {
    let kept = format!("public, max-age={}", CACHED_FOR.as_secs());
    if let Ok(kept) = HeaderValue::try_from(kept) {
        headers.insert(header::CACHE_CONTROL, kept);
    }
    headers.remove(header::PRAGMA);
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
}

pub(super) fn describe() -> Description {
    let key = object([
        ("kid", text("kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k").into()),
        ("alg", word(["EdDSA", "ES256"]).into()),
        ("use", word(["sig"]).into()),
        ("kty", word(["OKP", "EC"]).into()),
        ("crv", word(["Ed25519", "P-256"]).into()),
        ("x", text("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo").into()),
    ])
    .property("y", text("x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"));
    Description::of(
        Group::Applications,
        "The keys that verify assertions",
        "A JWK set (RFC 7517): public, for everybody and from every origin, and to be kept for as long as \
         `Cache-Control` says. It has each key before it signs for the first time, and until what it signed last is over. \
         Empty until a gateway has made a key.",
    )
    .answers([Yes::json("The keys.", object([("keys", list(key.into()))])).header(
        "Cache-Control",
        "How long the keys may be kept.",
    )])
}
