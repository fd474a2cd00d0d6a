//! The application of `examples/upstream`, as its users run it.

use std::{
    env,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
};

use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    time::timeout,
};

use super::{Database, SOON};

/// Where its Python environment is, if not in the usual place.
const VARIABLE: &str = "VESTIBULE_VENV";

/// Its folder.
pub(crate) fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("examples/upstream")
}

/// The Python that runs it.
pub(crate) fn python() -> PathBuf {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let venv = env::var_os(VARIABLE).map_or_else(|| root.join(".vestibule/venv"), PathBuf::from);
    let python = venv.join("bin/python");
    assert!(
        python.exists(),
        "{} is missing: `make test` installs what the example application needs, or {VARIABLE} says where it is",
        python.display()
    );
    python
}

/// Runs it on a port that the system chooses; it is killed when it is dropped.
pub(crate) async fn start(db: &Database) -> (Child, SocketAddr) {
    start_from(&folder(), &[("DATABASE_URL", db.url())]).await
}

/// Runs another application of this kind, from its `main.py`.
pub(crate) async fn start_from(folder: &Path, variables: &[(&str, &str)]) -> (Child, SocketAddr) {
    let mut child = Command::new(python())
        .args(["-m", "uvicorn", "--app-dir"])
        .arg(folder)
        .args(["main:app", "--host", "127.0.0.1", "--port", "0", "--no-access-log"])
        .envs(variables.iter().copied())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut said = Vec::new();
    let listening = async {
        while let Ok(Some(line)) = lines.next_line().await {
            if let Some((_, rest)) = line.split_once("running on http://") {
                return rest.split(' ').next().unwrap().parse().ok();
            }
            said.push(line);
        }
        None
    };
    let addr = timeout(4 * SOON, listening).await.ok().flatten();
    let Some(addr) = addr else {
        panic!("the example application does not start:\n{}", said.join("\n"));
    };
    // It may go on writing; nobody reads it, so a full pipe must not stop it.
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    (child, addr)
}
