//! A Postgres of the test's own, which may be frozen, killed, crashed, and have a standby that is promoted.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::Path,
    process::{Command, Stdio},
};

use tokio_postgres::NoTls;
use url::Url;
use vestibule::dev::{
    postgres::Cluster,
    supervised::{Ending, Supervised, User},
};

use super::{Database, SOON, eventually, program::free_port};

pub(crate) struct Server {
    cluster: Cluster,
    db: Database,
}

impl Server {
    pub(crate) async fn start() -> Self {
        let started = tokio::task::spawn_blocking(Cluster::temporary).await.unwrap();
        let cluster = started.unwrap_or_else(|error| panic!("the test needs a Postgres of its own: {error}"));
        let db = Database::at(&cluster.url("postgres"));
        Self { cluster, db }
    }

    pub(crate) const fn db(&self) -> &Database {
        &self.db
    }

    /// Its first process, and those that this one started.
    fn processes(&self) -> Vec<String> {
        processes_of(&self.cluster.folder().join("data"))
    }

    /// Not a word from now on, until what this returns is dropped. Connections look well.
    pub(crate) fn freeze(&self) -> Frozen {
        Frozen::all(self.processes())
    }

    /// Every process at once, and none comes back.
    pub(crate) fn kill(&self) {
        signal("-KILL", &self.processes());
    }

    /// One of its processes dies as of a bug: Postgres throws everybody out, recovers from its log, and is back.
    pub(crate) async fn crash(&self) {
        let client = self.db.client().await;
        // Commits of the last moments are not on the disk: the tests' servers answer before.
        client.batch_execute("CHECKPOINT").await.unwrap();
        let own = client.query_one("SELECT pg_backend_pid()", &[]).await.unwrap();
        signal("-KILL", &[own.get::<_, i32>(0).to_string()]);
        eventually(SOON, async || client.is_closed()).await;
        eventually(SOON, async || {
            tokio_postgres::connect(self.db.url(), NoTls).await.is_ok()
        })
        .await;
    }

    /// No file of its may grow beyond so many bytes, where the last block does not fit; `None`: they may again.
    ///
    /// It takes that for a full disk (a block that is written in part). From Postgres 16 on it says otherwise.
    pub(crate) async fn limit_files(&self, bytes: Option<u64>) {
        let limit = bytes.map_or_else(|| "unlimited".to_owned(), |bytes| bytes.to_string());
        let client = self.db.client().await;
        // Once more for those that were started meanwhile. Some may have ended.
        for process in [self.processes(), self.processes()].concat() {
            // By one of its own processes, which needs no rights for that.
            let limiting = format!("cat >/dev/null; prlimit --fsize={limit}: --pid {process} || true");
            let copy = format!("COPY (SELECT 1) TO PROGRAM '{limiting}'");
            client.batch_execute(&copy).await.unwrap();
        }
    }

    /// A server that has what this one has, and takes no writes until it is promoted.
    pub(crate) async fn standby(&self) -> Standby {
        Standby::of(self).await
    }
}

/// Processes that stand still; they go on at the end, whatever happens.
pub(crate) struct Frozen(Vec<String>);

impl Frozen {
    pub(crate) fn all(ids: Vec<String>) -> Self {
        signal("-STOP", &ids);
        Self(ids)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        signal("-CONT", &self.0);
    }
}

fn signal(signal: &str, ids: &[String]) {
    let sent = Command::new("kill").arg(signal).args(ids).output();
    sent.expect("kill runs");
}

fn processes_of(data: &Path) -> Vec<String> {
    let lock = fs::read_to_string(data.join("postmaster.pid")).unwrap();
    let first = lock.lines().next().unwrap().to_owned();
    let children = fs::read_to_string(format!("/proc/{first}/task/{first}/children")).unwrap();
    let children = children.split_whitespace().map(str::to_owned);
    std::iter::once(first.clone()).chain(children).collect()
}

/// Follows another server. Gone when it is dropped.
pub(crate) struct Standby {
    db: Database,
    _server: Supervised,
}

impl Standby {
    async fn of(primary: &Server) -> Self {
        let url: Url = primary.db.url().parse().unwrap();
        let first = primary.processes().remove(0);
        let programs = fs::read_link(format!("/proc/{first}/exe")).unwrap();
        let programs = programs.parent().unwrap().to_owned();
        let owner = fs::metadata(primary.cluster.folder()).unwrap();
        let user = (fs::metadata("/proc/self").unwrap().uid() != owner.uid()).then(|| User {
            name: "the owner of the primary's folder".to_owned(),
            uid: owner.uid(),
            gid: owner.gid(),
        });
        let folder = primary.cluster.folder().join("standby");
        copy(&programs, &url, &folder, user.as_ref());
        let port = free_port();
        let server = run(&programs, &folder, port, user.as_ref());
        let mut own = url;
        own.set_port(Some(port)).unwrap();
        let db = Database::at(own.as_str());
        eventually(SOON, async || tokio_postgres::connect(db.url(), NoTls).await.is_ok()).await;
        Self { db, _server: server }
    }

    pub(crate) const fn db(&self) -> &Database {
        &self.db
    }

    /// From now on it is the primary.
    pub(crate) async fn promote(&self) {
        let promoted = self.db.client().await.query_one("SELECT pg_promote()", &[]).await;
        assert!(promoted.unwrap().get::<_, bool>(0));
    }
}

fn copy(programs: &Path, url: &Url, folder: &Path, user: Option<&User>) {
    let mut copying = Command::new(programs.join("pg_basebackup"));
    copying
        .args([
            "--checkpoint=fast",
            "--wal-method=stream",
            "--write-recovery-conf",
            "--no-sync",
        ])
        .args(["--host=127.0.0.1", "--username", url.username(), "--pgdata"])
        .arg(folder)
        .args(["--port", &url.port().unwrap().to_string()])
        .env("PGPASSWORD", url.password().unwrap());
    if let Some(user) = user {
        user.run(&mut copying);
    }
    let copied = copying.output().unwrap();
    assert!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));
}

fn run(programs: &Path, folder: &Path, port: u16, user: Option<&User>) -> Supervised {
    let port = port.to_string();
    let mut args = vec!["-D", folder.to_str().unwrap(), "-p", &port];
    for setting in [
        "listen_addresses=127.0.0.1",
        "unix_socket_directories=",
        "fsync=off",
        "max_connections=500",
    ] {
        args.extend(["-c", setting]);
    }
    let args: Vec<_> = args.iter().map(std::ffi::OsStr::new).collect();
    let ending = Ending {
        signal: "QUIT",
        remove: Some(folder.as_os_str()),
        patience: SOON,
    };
    let program = programs.join("postgres");
    let output = (Stdio::null(), Stdio::null());
    Supervised::program(program.as_os_str(), &args, user, ending, output).unwrap()
}
