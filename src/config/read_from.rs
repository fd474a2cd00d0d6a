//! What a configuration was read from: which files to watch, and a name for the whole.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

/// What was read to make a configuration.
#[derive(Clone, Default)]
pub struct ReadFrom {
    /// Those that values of it stand in (`{ file = "…" }`); not the configuration file itself.
    pub files: Vec<PathBuf>,
    hash: Sha256,
}

impl ReadFrom {
    pub(super) fn add(&mut self, text: &str) {
        // With its length: what is one text must not look like two.
        self.hash.update((text.len() as u64).to_be_bytes());
        self.hash.update(text);
    }

    /// The same on two gateways whose file, files and variables say the same; no number of a version. 32 bits of a
    /// hash: enough to tell configurations apart, and too few to try a guess at a secret on.
    pub fn fingerprint(&self) -> u32 {
        let hash: [u8; 32] = self.hash.clone().finalize().into();
        let [a, b, c, d, ..] = hash;
        u32::from_be_bytes([a, b, c, d])
    }
}

/// What the configuration `file` and `more` hold now: compared, it tells a change from a mere touch.
pub fn on_disk(file: &Path, more: &[PathBuf]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for path in std::iter::once(file).chain(more.iter().map(PathBuf::as_path)) {
        match fs::read(path) {
            Ok(bytes) => {
                hash.update((bytes.len() as u64).to_be_bytes());
                hash.update(bytes);
            }
            Err(_) => hash.update(u64::MAX.to_be_bytes()),
        }
    }
    hash.finalize().into()
}

impl fmt::Debug for ReadFrom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ReadFrom({:?})", self.files)
    }
}
