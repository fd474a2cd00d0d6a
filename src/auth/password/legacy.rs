//! Formats that are read and never written: each as the program that wrote it verifies.

use std::{fmt::Write, num::NonZeroU32, str::FromStr};

use base64ct::{Base64, Encoding};
use sha1::Sha1;
use sha2::Sha256;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::{hasher::nfkc, stored::Unreadable};

/// better-auth's: `<32 hex>:<128 hex>`, scrypt over the password in NFKC. The salt is the hexadecimal *text*.
pub(super) struct BetterAuth<'h> {
    salt: &'h str,
    expected: &'h str,
}

impl<'h> BetterAuth<'h> {
    const LOG_N: u8 = 14;
    const R: u32 = 16;
    const P: u32 = 1;
    const OUTPUT_LEN: usize = 64;

    pub(super) fn parse(text: &'h str) -> Option<Self> {
        let (salt, expected) = text.split_once(':')?;
        let is_hex = |text: &str, len| {
            text.len() == len && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        };
        (is_hex(salt, 32) && is_hex(expected, 2 * Self::OUTPUT_LEN)).then_some(Self { salt, expected })
    }

    /// Takes 32 MiB, whatever the row says.
    pub(super) fn matches(&self, password: &str) -> Result<bool, Unreadable> {
        let password = nfkc(password);
        let params = scrypt::Params::new(Self::LOG_N, Self::R, Self::P).map_err(|_| "scrypt refuses its parameters")?;
        let mut output = Zeroizing::new([0; Self::OUTPUT_LEN]);
        scrypt::scrypt(
            password.as_bytes(),
            self.salt.as_bytes(),
            &params,
            output.as_mut_slice(),
        )
        .map_err(|_| "scrypt refuses its length")?;
        let mut hex = Zeroizing::new(String::with_capacity(2 * Self::OUTPUT_LEN));
        for byte in output.iter() {
            let _ = write!(hex, "{byte:02x}");
        }
        Ok(hex.as_bytes().ct_eq(self.expected.as_bytes()).into())
    }
}

/// `$2a$`, `$2b$` or `$2y$`: three names for one function.
pub(super) struct Bcrypt<'h>(&'h str);

impl<'h> Bcrypt<'h> {
    /// Each step doubles the time; this one takes about two seconds of one core.
    const MAX_COST: u32 = 15;
    const MIN_COST: u32 = 4;

    /// Nothing if it doesn't look like bcrypt at all.
    pub(super) fn parse(text: &'h str) -> Option<Result<Self, Unreadable>> {
        let known = ["$2a$", "$2b$", "$2y$"].iter().any(|prefix| text.starts_with(prefix));
        known.then(|| {
            let parts = bcrypt::HashParts::from_str(text).map_err(|_| "it is not whole bcrypt")?;
            if parts.get_cost() > Self::MAX_COST {
                return Err("it asks for too much time");
            }
            if parts.get_cost() < Self::MIN_COST {
                return Err("its cost is lower than bcrypt allows");
            }
            Ok(Self(text))
        })
    }

    /// Bytes from the 73rd on never counted where this was made, so they don't count here: whoever chose a longer
    /// password signs in with it, and today's hash, which replaces this one, counts them all.
    ///
    /// A password with a zero byte could not be hashed where strings end with one; here it would repeat the key and match
    /// the part before it.
    pub(super) fn matches(&self, password: &str) -> Result<bool, Unreadable> {
        if password.contains('\0') {
            return Ok(false);
        }
        bcrypt::verify(password, self.0).map_err(|_| "bcrypt could not compute it")
    }
}

/// Django's: `pbkdf2_sha256$<iterations>$<salt>$<base64>`, or `pbkdf2_sha1`.
pub(super) struct DjangoPbkdf2<'h> {
    digest: Digest,
    iterations: NonZeroU32,
    salt: &'h str,
    expected: Vec<u8>,
}

#[derive(Clone, Copy)]
enum Digest {
    Sha1,
    Sha256,
}

impl Digest {
    const fn output_len(self) -> usize {
        match self {
            Self::Sha1 => 20,
            Self::Sha256 => 32,
        }
    }
}

impl<'h> DjangoPbkdf2<'h> {
    /// Django 6 uses 1.2 million; this takes about two seconds of one core.
    const MAX_ITERATIONS: u32 = 5_000_000;

    /// Nothing if it doesn't look like Django's at all.
    pub(super) fn parse(text: &'h str) -> Option<Result<Self, Unreadable>> {
        let (digest, rest) = if let Some(rest) = text.strip_prefix("pbkdf2_sha256$") {
            (Digest::Sha256, rest)
        } else {
            (Digest::Sha1, text.strip_prefix("pbkdf2_sha1$")?)
        };
        Some(Self::read(digest, rest))
    }

    fn read(digest: Digest, rest: &'h str) -> Result<Self, Unreadable> {
        let mut fields = rest.split('$');
        let (Some(iterations), Some(salt), Some(expected), None) =
            (fields.next(), fields.next(), fields.next(), fields.next())
        else {
            return Err("it has not the four fields of PBKDF2");
        };
        let iterations: NonZeroU32 = iterations.parse().map_err(|_| "its iterations are no number")?;
        if iterations.get() > Self::MAX_ITERATIONS {
            return Err("it asks for too much time");
        }
        if salt.is_empty() {
            return Err("it lacks its salt");
        }
        let expected = Base64::decode_vec(expected).map_err(|_| "its output is no base64")?;
        if expected.len() != digest.output_len() {
            return Err("its output has the wrong length");
        }
        Ok(Self {
            digest,
            iterations,
            salt,
            expected,
        })
    }

    pub(super) fn matches(&self, password: &str) -> bool {
        let mut output = Zeroizing::new(vec![0; self.digest.output_len()]);
        let derive = match self.digest {
            Digest::Sha1 => pbkdf2::pbkdf2_hmac::<Sha1>,
            Digest::Sha256 => pbkdf2::pbkdf2_hmac::<Sha256>,
        };
        derive(
            password.as_bytes(),
            self.salt.as_bytes(),
            self.iterations.get(),
            &mut output,
        );
        output.ct_eq(&self.expected).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of the first 72 bytes of [`LONG`], made by Python's bcrypt.
    const OF_72: &str = "$2b$04$2Ve90XVw7nor8/e/IdhRUOugIzKeYb3VgHrPE5O0av9SX6N/rnDh6";
    const LONG: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn bcrypt_counts_72_bytes_as_it_always_did() {
        let hash = Bcrypt::parse(OF_72).unwrap().unwrap();
        assert!(hash.matches(LONG).unwrap());
        assert!(hash.matches(LONG.split_at(72).0).unwrap());
        assert!(!hash.matches(LONG.split_at(71).0).unwrap());
    }

    #[test]
    fn a_zero_byte_does_not_shorten_a_password() {
        // Of "abc".
        let made = bcrypt::hash_with_salt("abc", 4, [7; 16]).unwrap().to_string();
        let hash = Bcrypt::parse(&made).unwrap().unwrap();
        assert!(hash.matches("abc").unwrap());
        for password in ["abc\0", "abc\0abc", "abc\0x"] {
            assert!(!hash.matches(password).unwrap(), "{password:?}");
        }
    }

    #[test]
    fn better_auth_sees_compatible_characters_as_one() {
        // Made of "ﬁancé①" by better-auth 1.7.7.
        let text = "f1dd96a36ea2b5eccae15d52585dcdee:809886b33e55493b47fa2fdb219c1e7f47de6cc19c67e8dcefb6c6990bcbe82e\
                    104ee1540416d5cffb534be598a043f5774458f543af5a01e835a4fe2b88bd22";
        let hash = BetterAuth::parse(text).unwrap();
        assert!(hash.matches("ﬁancé①").unwrap());
        assert!(hash.matches("fiancé1").unwrap());
        assert!(hash.matches("fiance\u{301}1").unwrap());
        assert!(!hash.matches("fiance1").unwrap());
    }
}
