//! What a gateway needs that is a process of its own: a database, a mail server, an upstream, and a folder with its
//! configuration.

use std::{
    fs,
    path::{Path, PathBuf},
};

use tempfile::TempDir;

use super::{Database, Setup, mailbox::Mailbox, upstream::Upstream};

pub(crate) struct Surroundings {
    pub(crate) db: Database,
    pub(crate) mailbox: Mailbox,
    pub(crate) upstream: Upstream,
    pub(crate) folder: TempDir,
    /// In all configurations.
    always: &'static str,
}

impl Surroundings {
    pub(crate) async fn new() -> Self {
        Self::on(Database::fresh().await).await
    }

    pub(crate) async fn on(db: Database) -> Self {
        Self {
            db,
            mailbox: Mailbox::start().await,
            upstream: Upstream::start().await,
            folder: tempfile::tempdir().unwrap(),
            always: "",
        }
    }

    /// All configurations say this, unless they say otherwise.
    pub(crate) fn always(mut self, toml: &'static str) -> Self {
        self.always = toml;
        self
    }

    /// The usual configuration with `over` laid over it.
    pub(crate) fn text(&self, over: &str) -> String {
        let setup = Setup::default().with(self.always).with(over);
        setup.text(&self.db, self.mailbox.addr(), self.upstream.addr())
    }

    /// The same as the folder's `gateway.toml`.
    pub(crate) fn config(&self, over: &str) -> PathBuf {
        self.config_as("gateway.toml", over)
    }

    /// The same under another name.
    pub(crate) fn config_as(&self, name: &str, over: &str) -> PathBuf {
        let file = self.file(name);
        fs::write(&file, self.text(over)).unwrap();
        file
    }

    /// The path of something in the folder.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Puts a file in the place of another, as editors do.
    pub(crate) fn put(&self, file: &Path, text: &str) {
        let new = self.file("new");
        fs::write(&new, text).unwrap();
        fs::rename(new, file).unwrap();
    }
}
