//! A Postgres of our own: in a folder, on a free port of the loopback interface, ending with us.
//!
//! Nothing of the system's is touched. Postgres refuses to run as root, so where we are root it runs as `postgres` or
//! `nobody`. Who connects needs a password, because every user of the machine reaches the loopback interface.

mod binaries;
mod folder;

pub use binaries::{Binaries, VARIABLE};

use std::{
    ffi::OsStr,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    net::{Ipv4Addr, TcpListener},
    os::unix::fs::{OpenOptionsExt, fchown},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use base64ct::{Base64UrlUnpadded, Encoding};

use super::supervised::{Ending, Supervised, User};
use crate::{clock::monotonic, secret::random};

/// The superuser of the cluster.
const SUPERUSER: &str = "vestibule";
/// The database for the gateway and the application.
pub const DATABASE: &str = "vestibule";

/// A fresh start takes a tenth of a second; recovery after a crash may take a while.
const START_PATIENCE: Duration = Duration::from_mins(1);
/// A fast shutdown writes a checkpoint.
const STOP_PATIENCE: Duration = Duration::from_secs(30);
/// Somebody else may take the port between our looking and Postgres' binding.
const PORTS_TRIED: usize = 5;

/// A running Postgres; dropping it stops it.
pub struct Cluster {
    server: Supervised,
    port: u16,
    password: String,
    folder: PathBuf,
    /// The folder goes with it.
    is_temporary: bool,
}

crate::secret::unprinted!(Cluster);

/// Postgres could not be made to run.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    #[error("no Postgres was found on this machine. {}", binaries::ADVICE)]
    NotFound,
    #[error("Postgres {major} in {} is too old. {}", .folder.display(), binaries::ADVICE)]
    TooOld { major: u32, folder: PathBuf },
    #[error(
        "{} was made by Postgres {needed}, which is not on this machine any more. Install that version, or delete the \
         folder to begin anew", .folder.display()
    )]
    OtherVersion { needed: String, folder: PathBuf },
    #[error("Postgres can't run as root, and there is neither a user `postgres` nor `nobody` to run it as")]
    NoUser,
    #[error("another Postgres (process {pid}) is using {}: is `vestibule dev` running there already?", .folder.display())]
    InUse { pid: u32, folder: PathBuf },
    #[error("{what}")]
    File {
        what: String,
        #[source]
        source: io::Error,
    },
    #[error("{program} failed:\n{output}")]
    Program { program: String, output: String },
    #[error("Postgres did not start:\n{log}")]
    NotStarted { log: String },
}

pub(super) trait Doing<T> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, ClusterError>;
}

impl<T> Doing<T> for io::Result<T> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, ClusterError> {
        self.map_err(|source| ClusterError::File { what: what(), source })
    }
}

impl Cluster {
    /// For tests: empty, fast, not durable, gone at the end. Blocks.
    pub fn temporary() -> Result<Self, ClusterError> {
        let user = folder::user_for_postgres(&std::env::temp_dir())?;
        let folder = folder::scratch(user.as_ref())?;
        let started = Self::in_scratch(&folder, user.as_ref());
        if started.is_err() {
            // What failed is the news; a folder left in a temporary place is not.
            let _ = fs::remove_dir_all(&folder);
        }
        started
    }

    fn in_scratch(folder: &Path, user: Option<&User>) -> Result<Self, ClusterError> {
        let binaries = newest(binaries::find(None))?;
        let password = Base64UrlUnpadded::encode_string(&random::<24>());
        let make = Make {
            binaries: &binaries,
            folder,
            user,
        };
        make.data_folder(&password, &["--no-sync"])?;
        let settings = [
            "fsync=off",
            "synchronous_commit=off",
            "full_page_writes=off",
            "max_connections=500",
        ];
        let ending = Ending {
            signal: "QUIT",
            remove: Some(folder.as_os_str()),
            patience: STOP_PATIENCE,
        };
        make.start(password, &folder.join("log"), &settings, ending)
    }

    /// For `vestibule dev`: what was in it the last time is there again. `home` is the project's folder for such
    /// things; `programs` where Postgres is, if not in a usual place. Blocks.
    pub fn durable(home: &Path, programs: Option<&Path>) -> Result<Self, ClusterError> {
        fs::create_dir_all(home).doing(|| format!("could not create {}", home.display()))?;
        let user = folder::user_for_postgres(home)?;
        let folder = folder::lasting(home, user.as_ref())?;
        let found = binaries::find(programs);
        let data = folder.join("data");
        let version = fs::read_to_string(data.join("PG_VERSION")).ok();
        let binaries = match version.as_deref().map(str::trim) {
            None => newest(found)?,
            Some(version) => found
                .into_iter()
                .find(|binaries| binaries.major.to_string() == version)
                .ok_or_else(|| ClusterError::OtherVersion {
                    needed: version.to_owned(),
                    folder: folder.clone(),
                })?,
        };
        let make = Make {
            binaries: &binaries,
            folder: &folder,
            user: user.as_ref(),
        };
        let password = kept_password(&home.join("postgres.password"), data.exists())?;
        if version.is_none() {
            make.data_folder(&password, &[])?;
        }
        let ending = Ending {
            signal: "INT",
            remove: None,
            patience: STOP_PATIENCE,
        };
        make.start(password, &home.join("postgres.log"), &["max_connections=200"], ending)
    }

    pub fn url(&self, database: &str) -> String {
        format!(
            "postgres://{SUPERUSER}:{}@127.0.0.1:{}/{database}",
            self.password, self.port
        )
    }

    /// Where the data is: not in the project's folder if Postgres' user can't get there.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Whether it has ended by itself.
    pub fn ended(&mut self) -> bool {
        !matches!(self.server.ended(), Ok(None))
    }

    /// Stops it and waits until everything is on the disk. Blocks.
    pub fn stop(mut self) -> io::Result<()> {
        self.server.stop()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.is_temporary {
            // Who stops it removes the folder as well, but for one that had ended by itself. What is left is in a temporary place.
            if self.server.stop().is_ok() {
                let _ = fs::remove_dir_all(&self.folder);
            }
        }
    }
}

/// The password of before; a new one for a new cluster.
fn kept_password(path: &Path, cluster_exists: bool) -> Result<String, ClusterError> {
    match fs::read_to_string(path) {
        Ok(password) => return Ok(password.trim().to_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound && !cluster_exists => {}
        Err(source) => {
            let what = format!(
                "could not read {}, without which the database can't be opened",
                path.display()
            );
            return Err(ClusterError::File { what, source });
        }
    }
    let password = Base64UrlUnpadded::encode_string(&random::<24>());
    private_file(path, &password).doing(|| format!("could not write {}", path.display()))?;
    Ok(password)
}

fn private_file(path: &Path, content: &str) -> io::Result<File> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    writeln!(file, "{content}")?;
    file.sync_all()?;
    Ok(file)
}

/// The one for a new cluster.
fn newest(found: Vec<Binaries>) -> Result<Binaries, ClusterError> {
    match found.into_iter().next() {
        None => Err(ClusterError::NotFound),
        Some(Binaries { folder, major }) if major < binaries::OLDEST => Err(ClusterError::TooOld { major, folder }),
        Some(newest) => Ok(newest),
    }
}

/// What is needed to make a cluster and start it.
struct Make<'m> {
    binaries: &'m Binaries,
    folder: &'m Path,
    user: Option<&'m User>,
}

impl Make<'_> {
    /// Made under another name and then renamed: a `data` that exists is whole.
    fn data_folder(&self, password: &str, options: &[&str]) -> Result<(), ClusterError> {
        let unfinished = self.folder.join("data.unfinished");
        if unfinished.exists() {
            fs::remove_dir_all(&unfinished).doing(|| format!("could not remove {}", unfinished.display()))?;
        }
        let password_file = self.folder.join("password.unfinished");
        if password_file.exists() {
            fs::remove_file(&password_file).doing(|| format!("could not remove {}", password_file.display()))?;
        }
        private_file(&password_file, password)
            .and_then(|file| self.hand_over(&file))
            .doing(|| format!("could not write {}", password_file.display()))?;
        let mut initdb = self.command("initdb");
        initdb
            .args([
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                "--locale=C",
                "--username",
                SUPERUSER,
            ])
            .args(options)
            .arg("--pgdata")
            .arg(&unfinished)
            .arg("--pwfile")
            .arg(&password_file);
        let made = run(initdb, "initdb", None);
        fs::remove_file(&password_file).doing(|| format!("could not remove {}", password_file.display()))?;
        made?;
        // Without a server: nobody must be able to connect before the cluster is whole.
        let mut single = self.command("postgres");
        single.arg("--single").arg("-D").arg(&unfinished).arg("postgres");
        run(
            single,
            "postgres --single",
            Some(&format!("CREATE DATABASE {DATABASE}\n")),
        )?;
        let data = self.folder.join("data");
        fs::rename(&unfinished, &data).doing(|| format!("could not create {}", data.display()))
    }

    fn start(
        &self,
        password: String,
        log: &Path,
        settings: &[&str],
        ending: Ending<'_>,
    ) -> Result<Cluster, ClusterError> {
        let data = self.folder.join("data");
        folder::clear_stale_lock(&data, STOP_PATIENCE)?;
        let mut failure = ClusterError::NotFound;
        for _ in 0..PORTS_TRIED {
            let port = free_port().doing(|| "could not find a free port on 127.0.0.1".to_owned())?;
            let port_text = port.to_string();
            let mut args: Vec<&OsStr> = vec![OsStr::new("-D"), data.as_os_str(), OsStr::new("-p"), port_text.as_ref()];
            let common = ["listen_addresses=127.0.0.1", "unix_socket_directories="];
            for setting in common.iter().chain(settings) {
                args.extend([OsStr::new("-c"), OsStr::new(*setting)]);
            }
            let output = File::create(log).and_then(|out| Ok((out.try_clone()?, out)));
            let (out, err) = output.doing(|| format!("could not write {}", log.display()))?;
            let program = self.binaries.folder.join("postgres");
            let server = Supervised::program(
                program.as_os_str(),
                &args,
                self.user,
                ending,
                (Stdio::from(out), Stdio::from(err)),
            )
            .doing(|| format!("could not start {}", program.display()))?;
            match wait_until_ready(server, &data, log) {
                Ok(server) => {
                    return Ok(Cluster {
                        server,
                        port,
                        password,
                        folder: self.folder.to_owned(),
                        is_temporary: ending.remove.is_some(),
                    });
                }
                Err(error) => {
                    let port_was_taken =
                        matches!(&error, ClusterError::NotStarted { log } if log.contains("could not bind"));
                    failure = error;
                    if !port_was_taken {
                        break;
                    }
                }
            }
        }
        Err(failure)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.binaries.folder.join(program));
        command.env("LC_ALL", "C").env("TZ", "UTC");
        if let Some(user) = self.user {
            user.run(&mut command);
        }
        command
    }

    /// The file itself, whatever is found at its path by now: the folder is its user's.
    fn hand_over(&self, file: &File) -> io::Result<()> {
        match self.user {
            Some(user) => fchown(file, Some(user.uid), Some(user.gid)),
            None => Ok(()),
        }
    }
}

fn run(mut command: Command, program: &str, input: Option<&str>) -> Result<(), ClusterError> {
    let what = || format!("could not run {program}");
    command
        .stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().doing(what)?;
    if let (Some(mut stdin), Some(input)) = (child.stdin.take(), input) {
        stdin.write_all(input.as_bytes()).doing(what)?;
    }
    let output = child.wait_with_output().doing(what)?;
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    Err(ClusterError::Program {
        program: program.to_owned(),
        output: said.concat(),
    })
}

fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// Postgres writes its state into the eighth line of `postmaster.pid`.
fn wait_until_ready(mut server: Supervised, data: &Path, log: &Path) -> Result<Supervised, ClusterError> {
    let begun = monotonic();
    loop {
        let lock = fs::read_to_string(data.join("postmaster.pid")).unwrap_or_default();
        if lock.lines().nth(7).is_some_and(|state| state.trim() == "ready") {
            return Ok(server);
        }
        let ended = server
            .ended()
            .doing(|| "could not watch Postgres".to_owned())?
            .is_some();
        if ended || begun.elapsed() > START_PATIENCE {
            let log = fs::read_to_string(log).unwrap_or_else(|error| format!("(its log can't be read: {error})"));
            return Err(ClusterError::NotStarted { log });
        }
        thread::sleep(Duration::from_millis(10));
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    #[test]
    fn a_durable_cluster_is_found_again_after_a_crash() {
        let home = tempfile::tempdir().unwrap();
        let first = Cluster::durable(home.path(), None).unwrap();
        let (url, folder) = (first.url(DATABASE), first.folder().to_owned());
        assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, first.port)).is_ok());
        let lock = folder::clear_stale_lock(&folder.join("data"), Duration::ZERO);
        assert!(matches!(lock, Err(ClusterError::InUse { .. })));
        first.stop().unwrap();
        // As after a crash and a restart of the machine: the number belongs to somebody else now.
        fs::write(folder.join("data/postmaster.pid"), format!("{}\n", std::process::id())).unwrap();
        let second = Cluster::durable(home.path(), None).unwrap();
        let password = |url: &str| url.split('@').next().unwrap().to_owned();
        assert_eq!(password(&second.url(DATABASE)), password(&url));
        assert_eq!(second.folder(), folder);
        second.stop().unwrap();
        if !folder.starts_with(home.path().canonicalize().unwrap()) {
            fs::remove_dir_all(folder).unwrap();
        }
    }

    #[test]
    fn a_temporary_cluster_leaves_nothing() {
        let cluster = Cluster::temporary().unwrap();
        let (folder, port) = (cluster.folder().to_owned(), cluster.port);
        assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok());
        cluster.stop().unwrap();
        assert!(!folder.exists() && TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err());
    }

    #[test]
    fn a_temporary_cluster_that_crashed_leaves_nothing_either() {
        let mut cluster = Cluster::temporary().unwrap();
        let folder = cluster.folder().to_owned();
        let lock = fs::read_to_string(folder.join("data/postmaster.pid")).unwrap();
        let killed = Command::new("kill")
            .args(["-KILL", lock.lines().next().unwrap()])
            .status();
        assert!(killed.unwrap().success());
        let begun = monotonic();
        while !cluster.ended() {
            assert!(begun.elapsed() < Duration::from_secs(10), "its end was not noticed");
            thread::sleep(Duration::from_millis(5));
        }
        drop(cluster);
        assert!(!folder.exists());
    }
}
