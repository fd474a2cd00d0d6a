//! Where a cluster lives, who owns it, and what a crash may have left there.

use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt, chown},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use super::{ClusterError, Doing, User, private_file};
use crate::{clock::monotonic, secret::random};

/// Whom Postgres must run as: `None` is ourselves. `writable` is any folder that we can write to.
pub(super) fn user_for_postgres(writable: &Path) -> Result<Option<User>, ClusterError> {
    if our_uid(writable).doing(|| format!("could not write to {}", writable.display()))? != 0 {
        return Ok(None);
    }
    let users = fs::read_to_string("/etc/passwd").doing(|| "could not read /etc/passwd".to_owned())?;
    ["postgres", "nobody"]
        .into_iter()
        .find_map(|name| find_user(&users, name))
        .map(Some)
        .ok_or(ClusterError::NoUser)
}

/// What is ours bears our id: the standard library has no other way to ask.
fn our_uid(writable: &Path) -> io::Result<u32> {
    let probe = writable.join(format!(".vestibule-{}", random_name()));
    fs::create_dir(&probe)?;
    let uid = fs::metadata(&probe).map(|metadata| metadata.uid());
    fs::remove_dir(&probe)?;
    uid
}

/// From lines such as `postgres:x:101:104:…`.
fn find_user(passwd: &str, name: &str) -> Option<User> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let found = fields.next()? == name;
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        (found && uid != 0).then(|| User {
            name: name.to_owned(),
            uid,
            gid,
        })
    })
}

/// A new folder for a cluster that won't last; owned by whoever runs it, who also removes it.
pub(super) fn scratch(user: Option<&User>) -> Result<PathBuf, ClusterError> {
    let folder = std::env::temp_dir().join(format!("vestibule-{}", random_name()));
    make(&folder, user)?;
    if user.is_none_or(|user| can_enter(user, &folder)) {
        return Ok(folder);
    }
    fs::remove_dir(&folder).doing(|| format!("could not remove {}", folder.display()))?;
    let folder = Path::new("/var/tmp").join(format!("vestibule-{}", random_name()));
    make(&folder, user)?;
    Ok(folder)
}

/// The folder for the cluster of the project whose things are in `home`: below it, or, if `user` can't get there (a
/// clone below `/root`), in `/var/tmp`. Which one is written down in `home`, so that deleting `home` begins anew.
pub(super) fn lasting(home: &Path, user: Option<&User>) -> Result<PathBuf, ClusterError> {
    let home = home
        .canonicalize()
        .doing(|| format!("could not find {}", home.display()))?;
    let note = home.join("postgres.folder");
    match fs::read_to_string(&note) {
        Ok(elsewhere) => {
            let folder = PathBuf::from(elsewhere.trim());
            if !folder.exists() {
                make(&folder, user)?;
            }
            // Everybody may write to `/var/tmp`: what is there under our name must be ours.
            let metadata = fs::symlink_metadata(&folder).doing(|| format!("could not read {}", folder.display()))?;
            let owner = user.map_or(metadata.uid(), |user| user.uid);
            if !metadata.is_dir() || metadata.uid() != owner {
                let what = format!("{} belongs to somebody else", folder.display());
                return Err(ClusterError::File {
                    what,
                    source: io::Error::from(io::ErrorKind::PermissionDenied),
                });
            }
            return Ok(folder);
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(source) => {
            let what = format!("could not read {}", note.display());
            return Err(ClusterError::File { what, source });
        }
    }
    let folder = home.join("postgres");
    if !folder.exists() {
        make(&folder, user)?;
    }
    if user.is_none_or(|user| can_enter(user, &folder)) {
        return Ok(folder);
    }
    fs::remove_dir(&folder).doing(|| format!("could not remove {}", folder.display()))?;
    let folder = Path::new("/var/tmp").join(format!("vestibule-{}", random_name()));
    make(&folder, user)?;
    private_file(&note, &folder.to_string_lossy()).doing(|| format!("could not write {}", note.display()))?;
    Ok(folder)
}

/// Fails if it exists: nobody may have prepared it for us.
fn make(folder: &Path, user: Option<&User>) -> Result<(), ClusterError> {
    let made = DirBuilder::new().mode(0o700).create(folder);
    made.and_then(|()| match user {
        Some(user) => chown(folder, Some(user.uid), Some(user.gid)),
        None => Ok(()),
    })
    .doing(|| format!("could not create {}", folder.display()))
}

/// Asks the kernel rather than judging permissions, which may be more than bits.
fn can_enter(user: &User, folder: &Path) -> bool {
    let mut attempt = Command::new("/bin/sh");
    attempt
        .args(["-c", "cd -- \"$1\"", "sh"])
        .arg(folder)
        .stdin(Stdio::null())
        .stderr(Stdio::null());
    user.run(&mut attempt);
    attempt.status().is_ok_and(|status| status.success())
}

fn random_name() -> String {
    format!("{:016x}", u64::from_be_bytes(random()))
}

/// After a crash `postmaster.pid` names a process that is gone, or one that has nothing to do with Postgres and only
/// got its number: Postgres itself would take that for a running server. One that does run may be stopping, because
/// its gateway was killed: it has until `patience` ends.
pub(super) fn clear_stale_lock(data: &Path, patience: Duration) -> Result<(), ClusterError> {
    let lock = data.join("postmaster.pid");
    let begun = monotonic();
    loop {
        let Ok(content) = fs::read_to_string(&lock) else {
            return Ok(());
        };
        let pid = content.lines().next().and_then(|line| line.trim().parse::<u32>().ok());
        match pid {
            Some(pid) if is_postgres(pid) => {
                if begun.elapsed() > patience {
                    let folder = data.to_owned();
                    return Err(ClusterError::InUse { pid, folder });
                }
                thread::sleep(Duration::from_millis(50));
            }
            _ => return fs::remove_file(&lock).doing(|| format!("could not remove {}", lock.display())),
        }
    }
}

fn is_postgres(pid: u32) -> bool {
    if Path::new("/proc/self/comm").exists() {
        return fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "postgres");
    }
    let answer = Command::new("ps")
        .args(["-o", "comm=", "-p", &pid.to_string()])
        .output();
    answer.is_ok_and(|answer| String::from_utf8_lossy(&answer.stdout).trim().ends_with("postgres"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_by_name_and_root_is_none() {
        let passwd = "root:x:0:0::/root:/bin/sh\npostgres:x:101:104::/:/bin/sh\nfake:x:0:0::/:\nbroken\n";
        let found = find_user(passwd, "postgres").unwrap();
        assert_eq!((found.uid, found.gid), (101, 104));
        assert_eq!(find_user(passwd, "fake"), None);
        assert_eq!(find_user(passwd, "nobody"), None);
    }

    #[test]
    fn a_lock_of_a_stranger_is_removed() {
        let data = tempfile::tempdir().unwrap();
        let lock = data.path().join("postmaster.pid");
        fs::write(&lock, format!("{}\n", std::process::id())).unwrap();
        clear_stale_lock(data.path(), Duration::ZERO).unwrap();
        assert!(!lock.exists());
        clear_stale_lock(data.path(), Duration::ZERO).unwrap();
    }
}
