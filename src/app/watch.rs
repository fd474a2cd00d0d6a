//! When to reload: at SIGHUP, and when the configuration file has changed, or a file that a value of it stands in.
//!
//! Folders are watched rather than files: editors put a new file in the old one's place, and Kubernetes turns a symbolic
//! link. So the folder in which a path lies and the one where it leads to are watched. What happens there is waited out
//! for a moment, then contents are compared: a touched file is no change, and a file that is wrong is told of once.
//!
//! Signals and changes while a reload runs are one reload after it.

use std::{
    collections::BTreeSet,
    fs,
    future::pending,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use notify::{
    EventKind, RecommendedWatcher, RecursiveMode, Watcher,
    event::{AccessKind, AccessMode},
};
use tokio::{signal::unix::Signal, sync::mpsc, task::block_in_place, time::timeout};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{reload::Reloader, systemd};
use crate::config::{self, Config, ConfigErrors};

/// A change has come to its end when nothing happens for so long.
const QUIET: Duration = Duration::from_millis(100);
/// A folder in which something happens all the time is looked at all the same, after so many of those.
const PATIENCE: usize = 20;

/// A configuration file, and what to do when it changes.
pub(super) struct Watched {
    pub file: PathBuf,
    /// What the files held when they were read last.
    pub seen: [u8; 32],
    /// Reads it again.
    pub load: Load,
    pub reloader: Arc<Reloader>,
}

/// Reads a configuration.
pub(super) type Load = Box<dyn Fn() -> Result<Config, ConfigErrors> + Send>;

impl Watched {
    /// Reloads when there is reason to, until `stop`. `hangup`: SIGHUP, where it asks for that.
    pub(super) async fn run(mut self, mut hangup: Option<Signal>, stop: CancellationToken) {
        let mut folders = Folders::new();
        folders.follow(&self.file, &self.files());
        // It may have changed while the gateway started.
        let mut asked = false;
        loop {
            // A long file takes long to check: whatever else this thread was to do, others do meanwhile.
            let elsewhere = block_in_place(|| self.look(asked));
            folders.follow(&self.file, &self.files());
            asked = false;
            if elsewhere {
                // What other files hold may have changed before they were watched.
                continue;
            }
            let told = async {
                match &mut hangup {
                    Some(hangup) => hangup.recv().await,
                    None => pending().await,
                }
            };
            asked = tokio::select! {
                _ = told => true,
                () = folders.changed() => false,
                () = stop.cancelled() => return,
            };
        }
    }

    /// Reloads if it was `asked` for, or the files hold something new. Whether values stand in other files then.
    fn look(&mut self, asked: bool) -> bool {
        let files = self.files();
        let found = config::on_disk(&self.file, &files);
        if !asked && found == self.seen {
            return false;
        }
        systemd::reloading();
        // Said in the log and in metrics, and there is nobody else to tell.
        let _ = self.reloader.reload(&self.load);
        // What was there before it was read: a file that was still being written is a change once it is whole.
        self.seen = found;
        systemd::ready();
        self.files() != files
    }

    fn files(&self) -> Vec<PathBuf> {
        self.reloader.config().read_from.files.clone()
    }
}

/// Folders that are watched.
struct Folders {
    watcher: Option<RecommendedWatcher>,
    /// At most one waits: that something happened is all that is said.
    events: mpsc::Receiver<()>,
    watched: BTreeSet<PathBuf>,
}

impl Folders {
    fn new() -> Self {
        let (tell, events) = mpsc::channel(1);
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // Reading is no change, and we read ourselves.
            let read_only = event.is_ok_and(|event| match event.kind {
                EventKind::Access(AccessKind::Close(AccessMode::Write)) => false,
                EventKind::Access(_) => true,
                _ => false,
            });
            if !read_only {
                let _ = tell.try_send(());
            }
        });
        let watcher = watcher
            .inspect_err(|error| warn!(%error, "changed configuration files will not be noticed: send SIGHUP"))
            .ok();
        Self {
            watcher,
            events,
            watched: BTreeSet::new(),
        }
    }

    /// Watches the folders of these files, and no others.
    fn follow(&mut self, file: &Path, more: &[PathBuf]) {
        let Some(watcher) = &mut self.watcher else { return };
        let paths = std::iter::once(file).chain(more.iter().map(PathBuf::as_path));
        let wanted: BTreeSet<PathBuf> = paths.flat_map(folders_of).collect();
        for gone in self.watched.difference(&wanted) {
            // It may not exist any more.
            let _ = watcher.unwatch(gone);
        }
        for new in wanted.difference(&self.watched) {
            if let Err(error) = watcher.watch(new, RecursiveMode::NonRecursive) {
                let folder = new.display();
                warn!(%folder, %error, "changes in this folder will not be noticed: send SIGHUP");
            }
        }
        self.watched = wanted;
    }

    /// Resolves when something has happened in one of them, and has come to its end. Cancel-safe: at worst, what happened
    /// is looked at with the next change.
    async fn changed(&mut self) {
        if self.events.recv().await.is_none() {
            // Nothing is watched.
            return pending().await;
        }
        for _ in 0..PATIENCE {
            if timeout(QUIET, self.events.recv()).await.is_err() {
                return;
            }
        }
    }
}

/// The folder in which a path lies, and the one where it leads to.
fn folders_of(path: &Path) -> Vec<PathBuf> {
    let folder = |path: &Path| {
        let folder = path.parent()?;
        let here = Path::new(".");
        Some(if folder.as_os_str().is_empty() { here } else { folder }.to_owned())
    };
    let leads_to = fs::canonicalize(path).ok();
    [folder(path), leads_to.as_deref().and_then(folder)]
        .into_iter()
        .flatten()
        .collect()
}
