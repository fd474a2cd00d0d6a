//! Sealing: what has to be read again but must not lie open in the database.
//!
//! XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha-03; RFC 8439 for what it extends): its 192-bit nonces may be drawn at
//! random for as many rows as there will ever be. What is sealed looks like this, and will as long as its version is 1:
//!
//! | bytes | what |
//! |---|---|
//! | 1 | version: 1 |
//! | 4 | which key: HMAC-SHA-256(secret, [`KEY_ID_OF`]), its first bytes |
//! | 24 | nonce |
//! | n + 16 | ciphertext and tag; associated data is the context |
//!
//! The key is HMAC-SHA-256(secret, [`KEY_OF`]). Version and key id are not authenticated and need not be: with any
//! others there is no key to open with. The context says what the text is and whose, so that a row's column copied to
//! another row, or to another column, does not open there. It must be fit for that: a name and an id of its own.

use std::fmt;

use chacha20poly1305::{
    KeyInit, XChaCha20Poly1305, XNonce,
    aead::{Aead, Payload},
};
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::random;

/// What the sealing key is derived by. The same secret signs other texts, some of which a client chooses, and no
/// signature may ever be the key: no cookie has a zero byte, and what rate limits sign begins otherwise.
const KEY_OF: &[u8] = b"vestibule\0sealing key\0XChaCha20-Poly1305";
const KEY_ID_OF: &[u8] = b"vestibule\0sealing key id";

const VERSION: u8 = 1;

/// The keys behind `auth.secret`: the first seals, all open.
#[derive(Clone)]
pub struct SealingKeys {
    first: SealingKey,
    older: Vec<SealingKey>,
}

impl SealingKeys {
    /// One key for each secret; the order is the configuration's. Without any, what is sealed opens in this process
    /// alone.
    pub fn new<'s>(secrets: impl IntoIterator<Item = &'s [u8]>) -> Self {
        let mut keys = secrets.into_iter().map(SealingKey::of);
        Self {
            first: keys
                .next()
                .unwrap_or_else(|| SealingKey::of(&*Zeroizing::new(random::<32>()))),
            older: keys.collect(),
        }
    }

    /// `context` says what it is and whose: it opens in no other.
    pub fn seal(&self, plain: &[u8], context: &[u8]) -> Vec<u8> {
        let nonce = random();
        let sealed = self.first.seal(plain, context, &nonce);
        [&self.current_prefix(), nonce.as_slice(), &sealed].concat()
    }

    /// `None`: not sealed by any of these secrets, not for this context, or not as it was sealed.
    pub fn open(&self, sealed: &[u8], context: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let (&version, rest) = sealed.split_first()?;
        let (id, rest) = rest.split_first_chunk()?;
        let (nonce, sealed) = rest.split_first_chunk()?;
        if version != VERSION {
            return None;
        }
        let mut keys = std::iter::once(&self.first)
            .chain(&self.older)
            .filter(|key| key.id == *id);
        keys.find_map(|key| open(&key.cipher, sealed, context, nonce))
    }

    /// How everything begins that the first key sealed.
    pub fn current_prefix(&self) -> Vec<u8> {
        [&[VERSION], self.first.id.as_slice()].concat()
    }
}

impl fmt::Debug for SealingKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{} sealing keys]", 1 + self.older.len())
    }
}

/// Wiped on drop: the cipher does that.
#[derive(Clone)]
struct SealingKey {
    id: [u8; 4],
    cipher: XChaCha20Poly1305,
}

impl SealingKey {
    fn of(secret: &[u8]) -> Self {
        let [a, b, c, d, ..] = *derived(secret, KEY_ID_OF);
        Self {
            id: [a, b, c, d],
            cipher: cipher(&derived(secret, KEY_OF)),
        }
    }

    #[expect(
        clippy::expect_used,
        reason = "there is nothing to fall back to: what can't be sealed must not be stored"
    )]
    fn seal(&self, plain: &[u8], context: &[u8], nonce: &[u8; 24]) -> Vec<u8> {
        let plain = Payload {
            msg: plain,
            aad: context,
        };
        self.cipher
            .encrypt(&XNonce::from(*nonce), plain)
            .expect("only a text of more than 256 GiB can't be sealed")
    }
}

fn derived(secret: &[u8], domain: &[u8]) -> Zeroizing<[u8; 32]> {
    // HMAC takes keys of every length (RFC 2104, section 3): the error has no cause.
    let mac = Hmac::<Sha256>::new_from_slice(secret).map(|mac| mac.chain_update(domain).finalize());
    Zeroizing::new(mac.map_or_else(|_| random(), |mac| mac.into_bytes().into()))
}

fn cipher(key: &[u8; 32]) -> XChaCha20Poly1305 {
    XChaCha20Poly1305::new(key.into())
}

/// Checks the tag before it decrypts anything.
fn open(cipher: &XChaCha20Poly1305, sealed: &[u8], context: &[u8], nonce: &[u8; 24]) -> Option<Zeroizing<Vec<u8>>> {
    let sealed = Payload {
        msg: sealed,
        aad: context,
    };
    cipher.decrypt(&XNonce::from(*nonce), sealed).ok().map(Zeroizing::new)
}

/// Opens what better-auth encrypted with `secret`: hexadecimal of nonce, ciphertext and tag, by itself or as
/// `$ba$<version>$<hexadecimal>`, where the version says which of its secrets it was.
///
/// It is XChaCha20-Poly1305 without associated data, the key SHA-256 of the secret.
pub fn open_better_auth(secret: &[u8], text: &str) -> Option<Zeroizing<Vec<u8>>> {
    let hex = match text.strip_prefix("$ba$") {
        Some(versioned) => {
            let (version, hex) = versioned.split_once('$')?;
            version.parse::<u32>().ok()?;
            hex
        }
        None => text,
    };
    let bytes = from_hex(hex)?;
    let (nonce, sealed) = bytes.split_first_chunk()?;
    let key = Zeroizing::new(Sha256::digest(secret).into());
    open(&cipher(&key), sealed, b"", nonce)
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let (pairs, []) = text.as_bytes().as_chunks() else {
        return None;
    };
    let digit = |byte: u8| char::from(byte).to_digit(16);
    pairs
        .iter()
        .map(|[high, low]| u8::try_from(digit(*high)? * 16 + digit(*low)?).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECRET: &[u8] = b"correct horse battery staple, thirty-two";
    const OTHER: &[u8] = b"another secret that is long enough, too";
    const CONTEXT: &[u8] = b"accounts.access_token 0199";

    fn keys(secrets: &[&'static [u8]]) -> SealingKeys {
        SealingKeys::new(secrets.iter().copied())
    }

    fn opened(keys: &SealingKeys, sealed: &[u8]) -> Option<Vec<u8>> {
        keys.open(sealed, CONTEXT).map(|plain| plain.to_vec())
    }

    /// Made by better-auth's `symmetricEncrypt` (its dependency `@noble/ciphers`), one with a secret, one with secrets.
    #[test]
    fn what_better_auth_encrypted_opens() {
        let secret = b"better-auth-secret-1234567890-abcd";
        let access = "f38f18089a4445eb27625b217f61f84ee5c80f9cacd27906267075a0ba78afe92de196d9712534355633f2d6ef62c31a\
                      8797d34ece31381d9c0d015a";
        let refresh = "$ba$2$2f6ff6083dea67fd14364cb849caf5fbfb9d418ae687906581e2edec35715b92b6f941146590718909bc7665\
                       9e528883b9c38f6b045c4daf";
        for (text, plain) in [
            (access, "ya29.access-token ü"),
            (&access.to_uppercase(), "ya29.access-token ü"),
            (refresh, "1//refresh-token"),
        ] {
            assert_eq!(*open_better_auth(secret, text).unwrap(), plain.as_bytes());
            assert!(open_better_auth(OTHER, text).is_none());
            assert!(open_better_auth(secret, &text.replace('0', "1")).is_none());
        }
        for wrong in [
            "",
            "zz",
            "abc",
            "$ba$",
            "$ba$2",
            "$ba$2$",
            "$ba$x$00",
            &"0".repeat(48),
            &"0".repeat(80),
            "ya29.plain-token",
        ] {
            assert!(open_better_auth(secret, wrong).is_none(), "{wrong}");
        }
    }

    /// Made by another implementation (`@noble/ciphers`) from what this file's documentation says. Whoever changes the
    /// format gives it another version, and still opens this.
    #[test]
    fn what_version_1_sealed_opens() {
        let sealed = "012032d636000102030405060708090a0b0c0d0e0f10111213141516178f9ddef063e241f851b7b3c9111ff7523c93c0\
                      40ef62279649";
        assert_eq!(
            opened(&keys(&[SECRET]), &from_hex(sealed).unwrap()),
            Some(b"gho_token".to_vec())
        );
    }

    #[test]
    fn a_rotated_secret_opens_but_does_not_seal() {
        let (old, both, new) = (keys(&[OTHER]), keys(&[SECRET, OTHER]), keys(&[SECRET]));
        let sealed = old.seal(b"text", CONTEXT);
        assert_eq!(opened(&old, &sealed), Some(b"text".to_vec()));
        assert_eq!(opened(&both, &sealed), Some(b"text".to_vec()));
        assert_eq!(opened(&new, &sealed), None);

        let resealed = both.seal(b"text", CONTEXT);
        assert_eq!(opened(&new, &resealed), Some(b"text".to_vec()));
        assert!(resealed.starts_with(&both.current_prefix()) && !sealed.starts_with(&both.current_prefix()));
    }

    #[test]
    fn the_same_text_is_never_sealed_alike() {
        let keys = keys(&[SECRET]);
        let (one, two) = (keys.seal(b"text", CONTEXT), keys.seal(b"text", CONTEXT));
        assert_ne!(one, two);
        let nonce_of = |sealed: &[u8]| sealed[5..29].to_vec();
        assert_ne!(nonce_of(&one), nonce_of(&two));
        assert_eq!(one.len(), 1 + 4 + 24 + 4 + 16);
    }

    /// Keys must not be what a cookie's signature would be, nor be told by their id.
    #[test]
    fn keys_of_different_purposes_differ() {
        assert_ne!(derived(SECRET, KEY_OF), derived(SECRET, KEY_ID_OF));
        assert_ne!(derived(SECRET, KEY_OF), derived(OTHER, KEY_OF));
        assert!(KEY_OF.contains(&0) && KEY_ID_OF.contains(&0));
    }

    #[test]
    fn without_a_secret_nothing_lies_open() {
        let none = keys(&[]);
        let sealed = none.seal(b"text", CONTEXT);
        assert_eq!(opened(&none, &sealed), Some(b"text".to_vec()));
        assert_eq!(opened(&keys(&[]), &sealed), None);
    }

    #[test]
    fn nothing_secret_prints() {
        let keys = keys(&[SECRET, OTHER]);
        assert_eq!(format!("{keys:?}"), "[2 sealing keys]");
    }

    proptest! {
        #[test]
        fn what_was_sealed_opens_in_its_context_alone(
            plain in prop::collection::vec(any::<u8>(), 0..200),
            context in prop::collection::vec(any::<u8>(), 0..40),
            other in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            let ours = keys(&[SECRET]);
            let sealed = ours.seal(&plain, &context);
            prop_assert_eq!(&*ours.open(&sealed, &context).unwrap(), &plain);
            prop_assert_eq!(ours.open(&sealed, &other).is_some(), context == other);
            prop_assert!(keys(&[OTHER]).open(&sealed, &context).is_none());
        }

        #[test]
        fn a_flipped_bit_is_noticed(plain in prop::collection::vec(any::<u8>(), 0..60), at: prop::sample::Index) {
            let keys = keys(&[SECRET, OTHER]);
            let mut sealed = keys.seal(&plain, CONTEXT);
            let bit = at.index(sealed.len() * 8);
            sealed[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(keys.open(&sealed, CONTEXT).is_none());
        }

        #[test]
        fn what_is_cut_short_or_made_up_does_not_open(
            made_up in prop::collection::vec(any::<u8>(), 0..100),
            at: prop::sample::Index,
        ) {
            let keys = keys(&[SECRET]);
            let sealed = keys.seal(b"text", CONTEXT);
            prop_assert!(keys.open(&sealed[..at.index(sealed.len())], CONTEXT).is_none());
            prop_assert!(keys.open(&made_up, CONTEXT).is_none());
            prop_assert!(keys.open(&[keys.current_prefix(), made_up].concat(), CONTEXT).is_none());
        }

        #[test]
        fn hexadecimal_that_nobody_encrypted_does_not_open(text in "\\PC{0,120}|(\\$ba\\$[0-9]{0,12}\\$)?[0-9a-f]{0,200}") {
            prop_assert!(open_better_auth(SECRET, &text).is_none());
        }
    }
}
