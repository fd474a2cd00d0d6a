//! Sealing: what has to be read again but must not lie open in the database.

use zeroize::Zeroizing;

/// The keys behind `auth.secret`: the first seals, all open.
#[derive(Clone, Debug)]
pub struct SealingKeys;

/// What was sealed.
#[derive(Debug)]
pub struct Opened {
    pub plain: Zeroizing<Vec<u8>>,
    /// Sealed by a key that is on its way out.
    pub outdated: bool,
}

impl SealingKeys {
    pub fn new<'s>(_secrets: impl IntoIterator<Item = &'s [u8]>) -> Self {
        Self
    }

    /// `context` says what it is and whose: it opens in no other.
    pub fn seal(&self, _plain: &[u8], _context: &[u8]) -> Vec<u8> {
        unimplemented!()
    }

    pub fn open(&self, _sealed: &[u8], _context: &[u8]) -> Option<Opened> {
        unimplemented!()
    }

    /// How everything begins that the first key sealed.
    pub fn current_prefix(&self) -> Vec<u8> {
        unimplemented!()
    }
}
