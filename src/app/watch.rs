//! When to reload: at SIGHUP, and when the configuration file has changed, or a file that a value of it stands in.
//!
//! Folders are watched rather than files: editors put a new file in the old one's place, and Kubernetes turns a symbolic
//! link. So the folder in which a path lies and the one where it leads to are watched. What happens there is waited out
//! for a moment, and whoever writes one of the files until they close it (half a file can be valid, and say something
//! else); then contents are compared: a touched file is no change, and a file that is wrong is told of once.
//!
//! What is watched are folders as they were found, and not all that happens to a path happens in its folder: the folder may
//! be replaced itself, or a link far above it be turned, and some file systems tell nothing. So contents are compared every
//! few seconds all the same, and folders that are others by now are watched anew.
//!
//! Signals and changes while a reload runs are one reload after it.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    ffi::{OsStr, OsString},
    fs,
    future::pending,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use notify::{
    EventKind, RecommendedWatcher, RecursiveMode, Watcher,
    event::{AccessKind, AccessMode, ModifyKind},
};
use tokio::{
    signal::unix::Signal,
    sync::mpsc,
    task::block_in_place,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{reload::Reloader, systemd};
use crate::{
    clock,
    config::{self, Config, ConfigErrors},
};

/// A change has come to its end when nothing happens for so long.
const QUIET: Duration = Duration::from_millis(100);
/// A folder in which something happens all the time is looked at all the same, after this.
const PATIENCE: Duration = Duration::from_secs(2);
/// Contents are compared so often, whether or not something was heard.
const UNASKED: Duration = Duration::from_secs(5);
/// A file that somebody writes and does not close is looked at all the same, after this.
const WRITING: Duration = Duration::from_mins(1);

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
    /// By their real paths, each with what it was when it was found.
    watched: BTreeMap<PathBuf, Inode>,
    writers: Arc<Mutex<Writers>>,
    /// It was told already that a folder can't be watched.
    has_warned: bool,
}

/// A device, and a number on it.
type Inode = (u64, u64);

/// Who writes the files that are watched, as far as that is told: it is on Linux.
#[derive(Default)]
struct Writers {
    /// What the files are called, wherever they lie.
    names: BTreeSet<OsString>,
    /// Those of them that were written, and not closed since.
    open: BTreeSet<OsString>,
}

impl Writers {
    /// From here on they are these files'.
    fn follow<'n>(&mut self, names: impl Iterator<Item = &'n OsStr>) {
        self.names = names.map(ToOwned::to_owned).collect();
        // The end of others may not be heard.
        let Self { names, open } = self;
        open.retain(|name| names.contains(name));
    }

    fn hear(&mut self, event: &notify::Event) {
        if event.need_rescan() {
            // An end may have gone unheard.
            self.open.clear();
        }
        for name in event.paths.iter().filter_map(|path| path.file_name()) {
            match event.kind {
                EventKind::Modify(ModifyKind::Data(_)) if cfg!(target_os = "linux") && self.names.contains(name) => {
                    self.open.insert(name.to_owned());
                }
                EventKind::Access(AccessKind::Close(AccessMode::Write))
                | EventKind::Modify(ModifyKind::Name(_))
                | EventKind::Remove(_) => {
                    self.open.remove(name);
                }
                _ => {}
            }
        }
    }
}

impl Folders {
    fn new() -> Self {
        let (tell, events) = mpsc::channel(1);
        let writers = Arc::<Mutex<Writers>>::default();
        let hear = Arc::clone(&writers);
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            if let Ok(event) = &event {
                locked(&hear).hear(event);
            }
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
            .inspect_err(|error| warn!(%error, "changed configuration files will be noticed late"))
            .ok();
        Self {
            watcher,
            events,
            watched: BTreeMap::new(),
            writers,
            has_warned: false,
        }
    }

    /// Watches the folders of these files, and no others.
    fn follow(&mut self, file: &Path, more: &[PathBuf]) {
        let Some(watcher) = &mut self.watcher else { return };
        let paths = std::iter::once(file).chain(more.iter().map(PathBuf::as_path));
        let paths: Vec<PathBuf> = paths.flat_map(places_of).collect();
        locked(&self.writers).follow(paths.iter().filter_map(|path| path.file_name()));
        let wanted: BTreeMap<PathBuf, Inode> = paths.iter().filter_map(|path| folder_of(path)).collect();
        let stays = |folder: &PathBuf, inode: &Inode| wanted.get(folder) == Some(inode);
        for (gone, _) in self.watched.extract_if(.., |folder, inode| !stays(folder, inode)) {
            // It may not exist any more.
            let _ = watcher.unwatch(&gone);
        }
        for (new, inode) in wanted {
            let entry = self.watched.entry(new);
            if let Entry::Vacant(entry) = entry {
                match watcher.watch(entry.key(), RecursiveMode::NonRecursive) {
                    Ok(()) => self.has_warned = false,
                    // Told once. It is tried again whenever contents are compared, which is how changes are noticed meanwhile.
                    Err(error) if !self.has_warned => {
                        let folder = entry.key().display();
                        warn!(%folder, %error, "changes in this folder will be noticed late");
                        self.has_warned = true;
                        continue;
                    }
                    Err(_) => continue,
                }
                entry.insert(inode);
            }
        }
    }

    /// Whether somebody is in the middle of writing one of the files.
    fn are_written(&self) -> bool {
        !locked(&self.writers).open.is_empty()
    }

    /// Resolves when something has happened in one of them, and has come to its end, or nothing for [`UNASKED`]. Cancel-safe:
    /// at worst, what happened is looked at with the next change.
    async fn changed(&mut self) {
        match timeout(UNASKED, self.events.recv()).await {
            Ok(Some(())) => {}
            // Nothing is watched.
            Ok(None) => return sleep(UNASKED).await,
            Err(_) => return,
        }
        let mut began = clock::monotonic();
        let mut were_written = false;
        loop {
            let quiet = timeout(QUIET, self.events.recv()).await.is_err();
            let now = clock::monotonic();
            let are_written = self.are_written();
            if were_written && !are_written {
                // What comes with it comes now.
                began = now;
            }
            were_written = are_written;
            let waited = now.saturating_duration_since(began);
            if are_written && waited >= WRITING {
                locked(&self.writers).open.clear();
                return;
            }
            if !are_written && (quiet || waited >= PATIENCE) {
                return;
            }
        }
    }
}

/// Nothing that is changed under it is left half done.
fn locked(writers: &Mutex<Writers>) -> MutexGuard<'_, Writers> {
    writers.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A path, and where it leads to.
fn places_of(path: &Path) -> impl Iterator<Item = PathBuf> {
    [Some(path.to_owned()), fs::canonicalize(path).ok()]
        .into_iter()
        .flatten()
}

/// The folder that a path is in, by its real path.
fn folder_of(path: &Path) -> Option<(PathBuf, Inode)> {
    let folder = path.parent()?;
    let here = Path::new(".");
    let folder = if folder.as_os_str().is_empty() { here } else { folder };
    let folder = fs::canonicalize(folder).ok()?;
    let found = fs::metadata(&folder).ok()?;
    Some((folder, (found.dev(), found.ino())))
}
