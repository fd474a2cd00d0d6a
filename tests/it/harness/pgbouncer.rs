//! A real PgBouncer before the tests' Postgres: in transaction mode, with fewer connections to the server than clients, so
//! that no two transactions of a client can count on the same one.

use std::{
    fmt::Write as _,
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::Path,
    process::Stdio,
};

use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio_postgres::NoTls;
use url::Url;

use super::{Database, SOON, eventually, program::free_port};

/// Connections to the server, of each database.
pub(crate) const SERVER_CONNECTIONS: usize = 3;

/// Killed when it is dropped.
pub(crate) struct PgBouncer {
    url: Url,
    child: Child,
    _folder: TempDir,
}

impl PgBouncer {
    /// One that lets clients through to `db`, when it does.
    pub(crate) async fn before(db: &Database) -> Self {
        Self::ignoring("", db).await
    }

    /// One that takes whoever believes that it is Postgres.
    pub(crate) async fn in_disguise(db: &Database) -> Self {
        Self::ignoring("options", db).await
    }

    async fn ignoring(ignored: &str, db: &Database) -> Self {
        let real: Url = db.url().parse().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let port = free_port();
        let (user, password) = (real.username(), real.password().unwrap());
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::write(&path, text).unwrap();
            path
        };
        // SCRAM on both sides: the password has to be known, a hash would not do.
        let users = file("users.txt", &format!("\"{user}\" \"{password}\"\n"));
        let mut config = format!(
            "[databases]\n* = host=127.0.0.1 port={}\n[pgbouncer]\n",
            real.port().unwrap()
        );
        for (key, value) in [
            ("listen_addr", "127.0.0.1".to_owned()),
            ("listen_port", port.to_string()),
            ("unix_socket_dir", String::new()),
            ("auth_type", "scram-sha-256".to_owned()),
            ("auth_file", users.display().to_string()),
            ("pool_mode", "transaction".to_owned()),
            ("max_client_conn", "200".to_owned()),
            ("default_pool_size", SERVER_CONNECTIONS.to_string()),
            ("ignore_startup_parameters", ignored.to_owned()),
        ] {
            writeln!(config, "{key} = {value}").unwrap();
        }
        let config = file("pgbouncer.ini", &config);
        let mut url = real;
        url.set_port(Some(port)).unwrap();
        let child = start(folder.path(), &config);
        let mut this = Self {
            url,
            child,
            _folder: folder,
        };
        this.wait().await;
        this
    }

    async fn wait(&mut self) {
        eventually(SOON, async || {
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none(), "PgBouncer has ended: {ended:?}");
            tokio_postgres::connect(self.url.as_str(), NoTls).await.is_ok()
        })
        .await;
    }

    /// Where it takes clients.
    pub(crate) fn url(&self) -> &str {
        self.url.as_str()
    }
}

/// It refuses to run as root, and changes to whom it is told.
fn start(folder: &Path, config: &Path) -> Child {
    let mut command = Command::new("pgbouncer");
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{path}:/usr/sbin:/usr/local/sbin"));
    if fs::metadata("/proc/self").unwrap().uid() == 0 {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
        command.args(["-u", "nobody"]);
    }
    let started = command
        .arg("--quiet")
        .arg(config)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn();
    started.unwrap_or_else(|error| panic!("the tests need PgBouncer (scripts/ensure-pgbouncer): {error}"))
}
