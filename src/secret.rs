//! What must not be seen, guessed or compared carelessly: secrets, tokens and their hashes.
//!
//! Randomness is drawn here and nowhere else. Nothing in this file prints what it protects; comparisons of secret
//! bytes take the same time wherever they differ; memory is wiped on drop.

pub mod sealed;

use std::{fmt, marker::PhantomData};

use base64ct::{Base64UrlUnpadded, Encoding};
use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::Value;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

/// A value that does not print and is wiped on drop.
#[derive(Clone, Default)]
pub struct Secret<T: Zeroize>(Zeroizing<T>);

impl<T: Zeroize> Secret<T> {
    pub fn new(value: T) -> Self {
        Self(Zeroizing::new(value))
    }

    /// The value itself. Whoever calls this answers for where it goes.
    pub fn expose(&self) -> &T {
        &self.0
    }
}

impl PartialEq for Secret<String> {
    /// In constant time for texts of one length.
    fn eq(&self, other: &Self) -> bool {
        self.expose().as_bytes().ct_eq(other.expose().as_bytes()).into()
    }
}

impl Eq for Secret<String> {}

impl<T: Zeroize> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

/// `Debug` for types that hold what clients, providers or upstreams say, or what we tell them: it names the type, and
/// shows nothing of what is in it. Deriving it for such a type is refused by `tests/it/debug_types.rs`.
macro_rules! unprinted {
    ($($name:ident $(<$($param:tt),+>)?);+ $(;)?) => {$(
        impl $(<$($param),+>)? std::fmt::Debug for $name $(<$($param),+>)? {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(concat!("[", stringify!($name), "]"))
            }
        }
    )+};
}
pub(crate) use unprinted;

/// Wipes the texts of a JSON value; their names stay.
pub fn wipe_json(value: &mut Value) {
    match value {
        Value::String(text) => text.zeroize(),
        Value::Array(values) => values.iter_mut().for_each(wipe_json),
        Value::Object(fields) => fields.values_mut().for_each(wipe_json),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Wipes bytes that nobody else holds. Those that hyper still has in its buffer are hyper's, and stay until it reads over
/// them or drops it.
pub fn wipe_bytes(bytes: Bytes) {
    if let Ok(mut ours) = bytes.try_into_mut() {
        ours.as_mut().zeroize();
    }
}

/// Random bytes from the operating system.
///
/// # Panics
/// If the system has no randomness to give: nothing secure can be done then.
#[expect(clippy::disallowed_methods, reason = "this is the one place that draws randomness")]
#[expect(
    clippy::expect_used,
    reason = "without randomness no token is safe; there is nothing to fall back to"
)]
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the operating system gives random bytes");
    bytes
}

/// Somewhere from 0 to 1: for what is not to happen everywhere at the same moment.
pub fn portion() -> f64 {
    f64::from(u16::from_ne_bytes(random())) / f64::from(u16::MAX)
}

/// 32 random bytes as text: base64url, 43 characters.
pub fn random_text() -> Secret<String> {
    Secret::new(Base64UrlUnpadded::encode_string(&random::<32>()))
}

/// The secret that a client holds for its session: 32 random bytes, base64url.
///
/// Tokens that came from elsewhere may be 32 to 64 characters of the same alphabet.
#[derive(Clone)]
pub struct SessionToken(Zeroizing<String>);

impl SessionToken {
    pub fn generate() -> Self {
        Self(Zeroizing::new(Base64UrlUnpadded::encode_string(&random::<32>())))
    }

    /// A token of the right shape; whether it is anybody's, only its hash tells.
    pub fn parse(text: &str) -> Option<Self> {
        token_shaped(text.as_bytes()).then(|| Self(Zeroizing::new(text.to_owned())))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn hash(&self) -> TokenHash {
        TokenHash::of(self.0.as_bytes())
    }

    /// Whether `text` is this token; in constant time for texts of its length.
    pub fn is(&self, text: &str) -> bool {
        self.0.as_bytes().ct_eq(text.as_bytes()).into()
    }
}

impl fmt::Debug for SessionToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[session token]")
    }
}

/// Could these bytes be a session token? A dot never is in one: it separates the signature.
pub fn token_shaped(bytes: &[u8]) -> bool {
    (32..=64).contains(&bytes.len())
        && bytes
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
}

/// SHA-256 of a token's text: the only form in which one is stored, cached or announced.
///
/// Comparing two, here, in the cache's map or in an index of Postgres, may take as long as they are alike: whoever learns the
/// beginning of a hash by that is no nearer to a token, and nobody can choose what a token hashes to.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct TokenHash([u8; 32]);

impl TokenHash {
    pub fn of(token: &[u8]) -> Self {
        Self(Sha256::digest(token).into())
    }

    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// From the 64 hexadecimal digits that a notification carries.
    pub fn from_hex(text: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        if text.len() != 2 * bytes.len() {
            return None;
        }
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let [high, low] = pair else { return None };
            let high = char::from(*high).to_digit(16)?;
            let low = char::from(*low).to_digit(16)?;
            *byte = u8::try_from(high * 16 + low).ok()?;
        }
        Some(Self(bytes))
    }

    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// As it travels in a notification.
    #[cfg(test)]
    pub(crate) fn hex(&self) -> String {
        self.0
            .iter()
            .flat_map(|byte| [byte >> 4, byte & 15])
            .filter_map(|digit| char::from_digit(digit.into(), 16))
            .collect()
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [first, second, ..] = self.0;
        write!(f, "TokenHash({first:02x}{second:02x}…)")
    }
}

/// What a one-time token is good for. A token of one purpose is nothing to another.
pub trait Purpose {
    /// As it stands in `one_time_tokens.purpose`.
    const NAME: &'static str;
}

/// Proves that a person reads the mail of an address.
#[derive(Debug)]
pub enum VerifyEmail {}

impl Purpose for VerifyEmail {
    const NAME: &'static str = "verify-email";
}

/// Lets whoever reads the mail of an address choose the password of its user.
#[derive(Debug)]
pub enum ResetPassword {}

impl Purpose for ResetPassword {
    const NAME: &'static str = "reset-password";
}

/// Proves that whoever reads the mail of a user's address agrees to another address.
#[derive(Debug)]
pub enum ApproveEmailChange {}

impl Purpose for ApproveEmailChange {
    const NAME: &'static str = "approve-email-change";
}

/// Proves that a user reads the mail of the address that is to become theirs.
#[derive(Debug)]
pub enum ConfirmEmailChange {}

impl Purpose for ConfirmEmailChange {
    const NAME: &'static str = "confirm-email-change";
}

/// Lets a user who is signed in delete the account.
#[derive(Debug)]
pub enum DeleteAccount {}

impl Purpose for DeleteAccount {
    const NAME: &'static str = "delete-account";
}

/// Marks the browser that signed up, in a cookie: the mailed link signs in only there.
#[derive(Debug)]
pub enum SameBrowser {}

impl Purpose for SameBrowser {
    const NAME: &'static str = "same-browser";
}

/// Marks a browser that was sent to a provider, in a cookie: what began there goes on only there.
#[derive(Debug)]
pub enum OAuthBrowser {}

impl Purpose for OAuthBrowser {
    const NAME: &'static str = "oauth-browser";
}

/// Travels to a provider and back, and names what began when it left (RFC 6749, section 10.12).
#[derive(Debug)]
pub enum OAuthState {}

impl Purpose for OAuthState {
    const NAME: &'static str = "oauth-state";
}

/// A token that travels in a mail and works once: 32 random bytes, base64url.
pub struct OneTimeToken<P> {
    text: Zeroizing<String>,
    purpose: PhantomData<fn() -> P>,
}

impl<P: Purpose> OneTimeToken<P> {
    pub fn generate() -> Self {
        Self {
            text: Zeroizing::new(Base64UrlUnpadded::encode_string(&random::<32>())),
            purpose: PhantomData,
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        token_shaped(text.as_bytes()).then(|| Self {
            text: Zeroizing::new(text.to_owned()),
            purpose: PhantomData,
        })
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }

    pub fn hash(&self) -> TokenHash {
        TokenHash::of(self.text.as_bytes())
    }
}

impl<P: Purpose> fmt::Debug for OneTimeToken<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[one-time token, {}]", P::NAME)
    }
}

/// The keys behind `auth.secret`: the first signs, all verify (that is how a secret is rotated).
#[derive(Clone)]
pub struct SigningKeys {
    keys: Vec<(Hmac<Sha256>, KeyId)>,
}

/// Which key it was, for finding out later whether it still is one; the same for equal secrets, and nothing of them.
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct KeyId([u8; 8]);

impl KeyId {
    fn of(key: &Hmac<Sha256>) -> Self {
        let made: [u8; 32] = key
            .clone()
            .chain_update(b"vestibule key id")
            .finalize()
            .into_bytes()
            .into();
        Self(made.first_chunk().copied().unwrap_or_default())
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[key id]")
    }
}

impl SigningKeys {
    /// One key for each secret; the order is the configuration's. An empty list verifies nothing.
    pub fn new<'s>(secrets: impl IntoIterator<Item = &'s [u8]>) -> Self {
        let keys = secrets
            .into_iter()
            .filter_map(|secret| Hmac::<Sha256>::new_from_slice(secret).ok())
            .map(|key| {
                let id = KeyId::of(&key);
                (key, id)
            })
            .collect();
        Self { keys }
    }

    pub fn sign(&self, message: &[u8]) -> [u8; 32] {
        self.keys.first().map_or([0; 32], |(key, _)| {
            key.clone().chain_update(message).finalize().into_bytes().into()
        })
    }

    /// Whether one of the keys made `signature`; in constant time for each key.
    pub fn verify(&self, message: &[u8], signature: &[u8; 32]) -> bool {
        self.signer(message, signature).is_some()
    }

    /// Which of the keys made `signature`; in constant time for each key.
    pub fn signer(&self, message: &[u8], signature: &[u8; 32]) -> Option<KeyId> {
        let made = |key: &Hmac<Sha256>| key.clone().chain_update(message).verify_slice(signature).is_ok();
        self.keys.iter().find(|(key, _)| made(key)).map(|(_, id)| *id)
    }

    /// Whether it is one of them.
    pub fn have(&self, id: KeyId) -> bool {
        self.keys.iter().any(|(_, other)| *other == id)
    }
}

impl fmt::Debug for SigningKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{} signing keys]", self.keys.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_secret_prints() {
        let token = SessionToken::generate();
        let once = OneTimeToken::<VerifyEmail>::generate();
        let shown = format!(
            "{token:?} {once:?} {:?} {:?}",
            Secret::new("hunter2".to_owned()),
            token.hash()
        );
        assert!(!shown.contains(token.as_str()) && !shown.contains(once.as_str()) && !shown.contains("hunter2"));
    }

    #[test]
    fn what_only_we_hold_is_wiped_and_what_others_hold_is_not_touched() {
        let mut json = serde_json::json!({ "password": "hunter2", "more": [{ "token": "hunter3" }, 7, null] });
        wipe_json(&mut json);
        assert_eq!(
            json,
            serde_json::json!({ "password": "", "more": [{ "token": "" }, 7, null] })
        );

        let ours = Bytes::from(b"hunter2".to_vec());
        let theirs = ours.clone();
        wipe_bytes(ours);
        assert_eq!(theirs, "hunter2");
    }

    #[test]
    fn a_token_is_43_characters_and_parses_back() {
        let token = SessionToken::generate();
        assert_eq!(token.as_str().len(), 43);
        assert_eq!(SessionToken::parse(token.as_str()).unwrap().hash(), token.hash());
        assert!(token.is(token.as_str()) && !token.is(SessionToken::generate().as_str()) && !token.is(""));
        for wrong in [
            "",
            "short",
            &"a".repeat(65),
            &format!("{}.", "a".repeat(40)),
            &"ä".repeat(20),
        ] {
            assert!(SessionToken::parse(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn a_hash_survives_hexadecimal() {
        let hash = TokenHash::of(b"x");
        let text = hash.hex();
        assert_eq!(TokenHash::from_hex(&text), Some(hash));
        assert_eq!(TokenHash::from_hex("zz"), None);
        assert_eq!(TokenHash::from_hex(&"g".repeat(64)), None);
    }

    #[test]
    fn rotated_keys_verify_but_do_not_sign() {
        let old = SigningKeys::new([b"old secret".as_slice()]);
        let both = SigningKeys::new([b"new secret".as_slice(), b"old secret".as_slice()]);
        let signature = old.sign(b"message");
        assert!(both.verify(b"message", &signature));
        assert_ne!(both.sign(b"message"), signature);
        assert!(!both.verify(b"other", &signature));
        assert!(!SigningKeys::new([]).verify(b"message", &[0; 32]));
        let signer = both.signer(b"message", &old.sign(b"message")).unwrap();
        assert!(both.have(signer) && old.have(signer));
        assert!(!SigningKeys::new([b"new secret".as_slice()]).have(signer));
    }
}
