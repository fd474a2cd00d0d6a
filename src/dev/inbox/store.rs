//! The mails themselves: a file each, which nobody else on the machine can read, and what the pages show of it in memory.

use std::{
    collections::VecDeque,
    fs::{self, OpenOptions, Permissions},
    io::{self, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use mail_parser::MessageParser;
use serde::Serialize;
use tokio::sync::Notify;

use crate::dev::smtp::{Received, Verdict};

/// Older mails make room for new ones.
const KEPT: usize = 500;

/// What the pages show of a mail.
#[derive(Debug, Serialize)]
pub(super) struct Mail {
    pub(super) id: u64,
    pub(super) from: String,
    pub(super) to: Vec<String>,
    pub(super) subject: String,
    pub(super) date: String,
    pub(super) text: String,
    pub(super) html: String,
    /// Web addresses in the text.
    pub(super) links: Vec<String>,
}

impl Mail {
    fn parse(id: u64, raw: &[u8]) -> Self {
        let message = MessageParser::default().parse(raw).unwrap_or_default();
        let text = message.body_text(0).unwrap_or_default().into_owned();
        let addresses = |field: Option<&mail_parser::Address<'_>>| -> Vec<String> {
            let all = field.into_iter().flat_map(mail_parser::Address::iter);
            all.filter_map(|address| address.address.as_deref().map(str::to_owned))
                .collect()
        };
        Self {
            id,
            from: addresses(message.from()).join(", "),
            to: addresses(message.to()),
            subject: message.subject().unwrap_or_default().to_owned(),
            date: message
                .date()
                .map(mail_parser::DateTime::to_rfc3339)
                .unwrap_or_default(),
            html: message.body_html(0).unwrap_or_default().into_owned(),
            links: text
                .split_whitespace()
                .filter(|word| word.starts_with("http://") || word.starts_with("https://"))
                .map(str::to_owned)
                .collect(),
            text,
        }
    }
}

/// Mails in a folder. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Inbox(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    folder: PathBuf,
    /// Oldest first.
    mails: Mutex<VecDeque<Arc<Mail>>>,
    arrived: Notify,
}

impl Inbox {
    /// With what is in `folder` already; makes it if it isn't there.
    pub fn open(folder: &Path) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        // What new mails are is up to them; a file system without modes keeps none.
        let _ = fs::set_permissions(folder, Permissions::from_mode(0o700));
        let mut ids: Vec<u64> = Vec::new();
        for entry in fs::read_dir(folder)? {
            let name = entry?.file_name();
            ids.extend(
                name.to_str()
                    .and_then(|name| name.strip_suffix(".eml")?.parse::<u64>().ok()),
            );
        }
        ids.sort_unstable();
        let mut mails = VecDeque::new();
        for id in ids {
            mails.push_back(Arc::new(Mail::parse(id, &fs::read(file(folder, id))?)));
        }
        Ok(Self(Arc::new(Shared {
            folder: folder.to_owned(),
            mails: Mutex::new(mails),
            arrived: Notify::new(),
        })))
    }

    /// Keeps a mail; refused only if it can't be written.
    pub fn keep(&self, received: &Received) -> Verdict {
        let mut mails = self.mails();
        let id = mails.back().map_or(1, |newest| newest.id.saturating_add(1));
        if let Err(error) = write(&file(&self.0.folder, id), &received.data) {
            return Verdict::Refuse(452, format!("4.3.1 The inbox can't keep it: {error}"));
        }
        mails.push_back(Arc::new(Mail::parse(id, &received.data)));
        while mails.len() > KEPT {
            if let Some(oldest) = mails.pop_front() {
                // One that stays is shown again after a restart, and leaves with the next mail then.
                let _ = fs::remove_file(file(&self.0.folder, oldest.id));
            }
        }
        drop(mails);
        self.0.arrived.notify_waiters();
        Verdict::Accept
    }

    pub(super) fn newest_first(&self) -> Vec<Arc<Mail>> {
        self.mails().iter().rev().cloned().collect()
    }

    pub(super) fn find(&self, id: u64) -> Option<Arc<Mail>> {
        self.mails().iter().find(|mail| mail.id == id).cloned()
    }

    /// The newest mail, or the newest to an address; waits until there is one.
    pub(super) async fn latest(&self, to: Option<&str>) -> Arc<Mail> {
        loop {
            let arrived = self.0.arrived.notified();
            let fits =
                |mail: &&Arc<Mail>| to.is_none_or(|to| mail.to.iter().any(|address| address.to_lowercase() == to));
            let found = self.mails().iter().rev().find(fits).cloned();
            match found {
                Some(mail) => return mail,
                None => arrived.await,
            }
        }
    }

    pub(super) fn raw(&self, id: u64) -> io::Result<Vec<u8>> {
        fs::read(file(&self.0.folder, id))
    }

    pub(super) fn empty(&self) -> io::Result<()> {
        let mut mails = self.mails();
        while let Some(mail) = mails.front() {
            fs::remove_file(file(&self.0.folder, mail.id))?;
            mails.pop_front();
        }
        Ok(())
    }

    fn mails(&self) -> MutexGuard<'_, VecDeque<Arc<Mail>>> {
        // Every change leaves the list whole.
        self.0.mails.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn write(path: &Path, data: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(data)
}

fn file(folder: &Path, id: u64) -> PathBuf {
    folder.join(format!("{id:06}.eml"))
}
