//! What one hashing thread does: makes today's hashes, compares with all kinds of them.
//!
//! Nothing is faster than the work for nobody ([`Hasher::pretend`]): where a stored hash is not today's, that work comes on
//! top of its own before the answer is no. So a wrong password for a hash from elsewhere takes *longer* than for an
//! address without a user, by what its format costs, until its owner has signed in once; that much can be observed. Work
//! that hid it would have to be as dear as the dearest format, in every sign-in of everybody.
//!
//! Keyboards write one character in several ways (`é` as one or as two), so what is hashed is the password's NFKC, as
//! better-auth does it. Hashes of other texts may be of the password as it was typed: a text that is not in NFKC is
//! compared in both forms. That is twice the work, for nobody as well, and whichever form is right.

use argon2::{
    Algorithm, Argon2, Block, Params, Version,
    password_hash::phc::{Output, PasswordHash, Salt},
};
use subtle::{Choice, ConstantTimeEq};
use tracing::{error, warn};
use unicode_normalization::{UnicodeNormalization, is_nfkc};
use zeroize::{Zeroize, Zeroizing};

use super::{
    Verdict,
    stored::{Bounds, StoredHash, Unreadable},
};
use crate::secret::{Secret, random};

/// Bytes of output and of salt: what RFC 9106, 3.1, recommends.
pub(super) const OUTPUT_LEN: usize = 32;
const SALT_LEN: usize = 16;

/// What one thread has.
pub(super) struct Hasher {
    params: Params,
    /// Empty while the thread rests.
    memory: Vec<Block>,
    /// How often today's work was done.
    #[cfg(test)]
    pub(super) todays_work: u32,
}

impl Hasher {
    pub(super) fn new(params: Params) -> Self {
        Self {
            #[cfg(test)]
            todays_work: 0,
            memory: Vec::new(),
            params,
        }
    }

    /// Gives the memory back until the next password.
    pub(super) fn rest(&mut self) {
        self.memory = Vec::new();
    }

    pub(super) fn hash(&mut self, password: &str) -> Result<Secret<String>, argon2::password_hash::Error> {
        self.hash_as_it_is(&nfkc(password))
    }

    pub(super) fn hash_as_it_is(&mut self, text: &str) -> Result<Secret<String>, argon2::password_hash::Error> {
        let salt = random::<SALT_LEN>();
        let argon2 = self.todays();
        let output = self.derive(&argon2, text, &salt, OUTPUT_LEN)?;
        let hash = PasswordHash {
            algorithm: Algorithm::Argon2id.ident(),
            version: Some(Version::V0x13.into()),
            params: argon2.params().try_into()?,
            salt: Some(Salt::new(&salt)?),
            hash: Some(Output::new(&output)?),
        };
        Ok(Secret::new(hash.to_string()))
    }

    /// A hash that can't be read is nobody's password; the log says so, since somebody can't sign in.
    pub(super) fn verify(&mut self, password: &str, stored: &str) -> Verdict {
        let bounds = Bounds::beside(self.params.m_cost(), self.params.t_cost());
        let matched = StoredHash::parse(stored, bounds).and_then(|stored| {
            let todays = is_todays(&stored, &self.params);
            self.matches(password, &stored).map(|right| (right, todays))
        });
        match matched {
            Ok((true, true)) => Verdict::Right,
            Ok((true, false)) => Verdict::RightButOutdated,
            Ok((false, true)) => Verdict::Wrong,
            Ok((false, false)) => self.pretend(password),
            Err(reason) => {
                warn!(reason, "a stored password hash can't be verified");
                self.pretend(password)
            }
        }
    }

    /// The work of [`Hasher::verify`] for nobody.
    pub(super) fn pretend(&mut self, password: &str) -> Verdict {
        let argon2 = self.todays();
        let other = other_form(password);
        for text in [Some(password), other.as_ref().map(|other| other.as_str())]
            .into_iter()
            .flatten()
        {
            let done = self.derive(&argon2, text, &random::<SALT_LEN>(), OUTPUT_LEN);
            if let Err(error) = done {
                error!(%error, "could not hash a password");
            }
        }
        Verdict::Wrong
    }

    fn matches(&mut self, password: &str, stored: &StoredHash<'_>) -> Result<bool, Unreadable> {
        match stored {
            StoredHash::Argon2(stored) => {
                let argon2 = Argon2::new(stored.algorithm, stored.version, stored.params.clone());
                let other = other_form(password);
                let mut right = Choice::from(0);
                for text in [Some(password), other.as_ref().map(|other| other.as_str())]
                    .into_iter()
                    .flatten()
                {
                    let output = self
                        .derive(&argon2, text, &stored.salt, stored.expected.len())
                        .map_err(|_| "it could not be computed")?;
                    right |= output.ct_eq(stored.expected.as_bytes());
                }
                Ok(right.into())
            }
            StoredHash::BetterAuth(stored) => stored.matches(password),
            StoredHash::Bcrypt(stored) => stored.matches(password),
            StoredHash::DjangoPbkdf2(stored) => Ok(stored.matches(password)),
        }
    }

    /// What new hashes are made by.
    fn todays(&self) -> Argon2<'static> {
        Argon2::new(Algorithm::Argon2id, Version::V0x13, self.params.clone())
    }

    fn derive(
        &mut self,
        argon2: &Argon2<'_>,
        password: &str,
        salt: &[u8],
        output_len: usize,
    ) -> Result<Zeroizing<Vec<u8>>, argon2::Error> {
        #[cfg(test)]
        {
            self.todays_work += u32::from(*argon2.params() == self.params);
        }
        let own = self.params.block_count();
        // A stored hash with other parameters may need more for once.
        let needed = argon2.params().block_count();
        self.memory.resize(needed.max(own), Block::new());
        let mut output = Zeroizing::new(vec![0; output_len]);
        let done = argon2.hash_password_into_with_memory(password.as_bytes(), salt, &mut output, &mut self.memory);
        self.memory.iter_mut().for_each(Zeroize::zeroize);
        self.memory.truncate(own);
        self.memory.shrink_to_fit();
        done.map(|()| output)
    }
}

/// What is hashed of a password. Made to measure: were it to grow, each move would leave a copy behind.
pub(super) fn nfkc(password: &str) -> Zeroizing<String> {
    let mut normal = Zeroizing::new(String::with_capacity(password.nfkc().map(char::len_utf8).sum()));
    normal.extend(password.nfkc());
    normal
}

/// The same, of a password that is another text then.
fn other_form(password: &str) -> Option<Zeroizing<String>> {
    (!is_nfkc(password)).then(|| nfkc(password))
}

/// Whether it is what [`Hasher::hash`] makes with these.
pub(super) fn is_todays(stored: &StoredHash<'_>, params: &Params) -> bool {
    let cost = |params: &Params| (params.m_cost(), params.t_cost(), params.p_cost());
    match stored {
        StoredHash::Argon2(stored) => {
            stored.plain
                && stored.algorithm == Algorithm::Argon2id
                && stored.version == Version::V0x13
                && stored.expected.len() == OUTPUT_LEN
                && cost(&stored.params) == cost(params)
        }
        StoredHash::BetterAuth(_) | StoredHash::Bcrypt(_) | StoredHash::DjangoPbkdf2(_) => false,
    }
}
