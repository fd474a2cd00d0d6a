//! Where Postgres' programs are on this machine.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// A folder with `initdb` and `postgres`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Binaries {
    pub folder: PathBuf,
    /// `15`, `18`: data folders belong to one.
    pub major: u32,
}

/// Names the folder where the programs are, when they are somewhere unusual.
pub const VARIABLE: &str = "VESTIBULE_POSTGRES_BIN";

/// Older ones lack what our SQL uses, and are no longer maintained by their authors.
pub(super) const OLDEST: u32 = 14;

/// Folders that hold one folder per version, or the programs themselves: `*` stands for any name.
const USUAL: [&str; 9] = [
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/usr/lib/postgresql*/bin",
    "/opt/homebrew/opt/postgresql*/bin",
    "/usr/local/opt/postgresql*/bin",
    "/Applications/Postgres.app/Contents/Versions/*/bin",
    "/usr/local/pgsql/bin",
    "/usr/local/bin",
    "/usr/bin",
];

/// All that are found, newest first, too old ones included. A folder that was named is the only one looked at.
pub(super) fn find(named: Option<&Path>) -> Vec<Binaries> {
    let candidates = match named
        .map(Path::to_owned)
        .or_else(|| variable(VARIABLE).map(PathBuf::from))
    {
        Some(folder) => vec![folder],
        None => on_path()
            .into_iter()
            .chain(asked_pg_config())
            .chain(USUAL.iter().flat_map(|pattern| expand(pattern)))
            .collect(),
    };
    let mut found: Vec<Binaries> = Vec::new();
    for folder in candidates {
        if let Some(binaries) = look_into(&folder)
            && !found.contains(&binaries)
        {
            found.push(binaries);
        }
    }
    // Stable: what is on PATH stays before others of its version.
    found.sort_by_key(|binaries| std::cmp::Reverse(binaries.major));
    found
}

/// What to install, in words; those of `scripts/ensure-postgres` too.
pub(super) const ADVICE: &str = include_str!("install.txt").trim_ascii_end();

fn look_into(folder: &Path) -> Option<Binaries> {
    // Through links, such as those that Debian's administrators put on PATH: the other programs are beside the target.
    let postgres = folder.join("postgres").canonicalize().ok()?;
    let folder = postgres.parent()?.to_owned();
    if !folder.join("initdb").is_file() {
        return None;
    }
    let answer = Command::new(&postgres).arg("--version").output().ok()?;
    let major = major(&String::from_utf8_lossy(&answer.stdout))?;
    Some(Binaries { folder, major })
}

/// From `postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)`.
fn major(version: &str) -> Option<u32> {
    let number = version.split("(PostgreSQL)").nth(1)?.trim_start();
    let digits: String = number.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

fn on_path() -> Vec<PathBuf> {
    variable("PATH").map_or_else(Vec::new, |path| std::env::split_paths(&path).collect())
}

fn asked_pg_config() -> Option<PathBuf> {
    let answer = Command::new("pg_config").arg("--bindir").output().ok()?;
    let folder = String::from_utf8(answer.stdout).ok()?;
    Some(PathBuf::from(folder.trim()))
}

/// The settings of the machine, not of the gateway, whose configuration reads no environment behind `config`'s back.
fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// The folders that `pattern` matches; a star is within one name.
fn expand(pattern: &str) -> Vec<PathBuf> {
    let Some((before, after)) = pattern.split_once('*') else {
        return vec![PathBuf::from(pattern)];
    };
    let (parent, prefix) = before.rsplit_once('/').unwrap_or(("", before));
    let Ok(entries) = fs::read_dir(parent) else {
        return Vec::new();
    };
    entries
        .filter_map(Result::ok)
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
        .map(|entry| entry.path().join(after.trim_start_matches('/')))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn versions_are_read() {
        assert_eq!(
            major("postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)\n"),
            Some(15)
        );
        assert_eq!(major("postgres (PostgreSQL) 18beta1"), Some(18));
        assert_eq!(major("something else"), None);
    }

    #[test]
    fn the_advice_names_version_and_variable() {
        assert!(ADVICE.contains(&format!("Postgres {OLDEST} or newer")));
        assert!(ADVICE.contains(VARIABLE));
    }

    #[test]
    fn an_old_one_is_found_and_known_as_such() {
        let folder = tempfile::tempdir().unwrap();
        for (name, content) in [
            ("postgres", "#!/bin/sh\necho 'postgres (PostgreSQL) 13.22'\n"),
            ("initdb", ""),
        ] {
            let file = folder.path().join(name);
            fs::write(&file, content).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let majors: Vec<u32> = find(Some(folder.path())).iter().map(|found| found.major).collect();
        assert_eq!(majors, [13]);
    }

    #[test]
    fn a_star_is_one_folder() {
        let root = tempfile::tempdir().unwrap();
        for version in ["pgsql-15", "pgsql-16", "other"] {
            fs::create_dir_all(root.path().join(version).join("bin")).unwrap();
        }
        let pattern = format!("{}/pgsql-*/bin", root.path().display());
        let mut found = expand(&pattern);
        found.sort();
        let expected = ["pgsql-15/bin", "pgsql-16/bin"].map(|f| root.path().join(f));
        assert_eq!(found, expected);
    }
}
