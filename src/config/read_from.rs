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
    /// As [`on_disk`] makes one.
    held: Sha256,
}

impl ReadFrom {
    /// The configuration file itself: first of all that is read.
    pub(super) fn begin(&mut self, text: &str) {
        self.add(text);
        hold(&mut self.held, Some(text.as_bytes()));
    }

    /// A file that a value stands in, and what was read of it.
    pub(super) fn file(&mut self, path: PathBuf, bytes: Option<&[u8]>) {
        hold(&mut self.held, bytes);
        self.files.push(path);
    }

    /// What all of it held when it was read: [`on_disk`] gives the same until something changes.
    pub fn held(&self) -> [u8; 32] {
        self.held.clone().finalize().into()
    }

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
        hold(&mut hash, fs::read(path).ok().as_deref());
    }
    hash.finalize().into()
}

/// What one file holds; `None` if it can't be read.
fn hold(hash: &mut Sha256, bytes: Option<&[u8]>) {
    match bytes {
        Some(bytes) => {
            hash.update((bytes.len() as u64).to_be_bytes());
            hash.update(bytes);
        }
        None => hash.update(u64::MAX.to_be_bytes()),
    }
}

impl fmt::Debug for ReadFrom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ReadFrom({:?})", self.files)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_read_is_what_is_on_disk_until_it_changes() {
        let folder = tempfile::tempdir().unwrap();
        let [file, value, gone] = ["gateway.toml", "value", "gone"].map(|name| folder.path().join(name));
        fs::write(&file, "one").unwrap();
        fs::write(&value, "two\n").unwrap();
        let mut read = ReadFrom::default();
        read.begin("one");
        read.file(value.clone(), Some(b"two\n"));
        read.file(gone, None);
        assert_eq!(read.held(), on_disk(&file, &read.files));
        for (path, text, same) in [(&value, "2\n", false), (&value, "two\n", true), (&file, "1", false)] {
            fs::write(path, text).unwrap();
            assert_eq!(read.held() == on_disk(&file, &read.files), same, "{text}");
        }
    }
}
