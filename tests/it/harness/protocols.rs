//! Programs in Python that speak protocols through the gateway: clients and applications that others wrote.

use std::{
    env,
    net::SocketAddr,
    path::PathBuf,
    process::{Output, Stdio},
};

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::timeout,
};

use super::SOON;

/// Where the environment is, if not in the usual place.
const VARIABLE: &str = "VESTIBULE_PROTOCOLS";

/// A program of `tests/clients/protocols`, not yet started.
fn program(name: &str, args: &[&str]) -> Command {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let venv = env::var_os(VARIABLE).map_or_else(|| root.join(".vestibule/protocols"), PathBuf::from);
    let python = venv.join("bin/python");
    assert!(
        python.exists(),
        "{} is missing: `make test` installs what tests/clients/protocols/requirements.txt names, or {VARIABLE} says \
         where it is",
        python.display()
    );
    let mut command = Command::new(python);
    command
        .arg(root.join("tests/clients/protocols").join(name))
        .args(args)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .kill_on_drop(true);
    command
}

/// Runs one to its end.
pub(crate) async fn run(name: &str, args: &[&str]) -> Output {
    let ended = timeout(8 * SOON, program(name, args).output()).await;
    ended.unwrap_or_else(|_| panic!("{name} does not end")).unwrap()
}

/// Runs a suite of cases; each must have passed, and there must be as many as it had when this was written.
pub(crate) async fn run_cases(name: &str, args: &[&str], at_least: usize) {
    let output = run(name, args).await;
    let said = String::from_utf8_lossy(&output.stdout);
    let failed: Vec<&str> = said.lines().filter(|line| line.starts_with("not ok")).collect();
    assert!(
        output.status.success() && failed.is_empty(),
        "{}\n{said}",
        failed.join("\n")
    );
    let passed = said.lines().filter(|line| line.starts_with("ok ")).count();
    assert!(passed >= at_least, "only {passed} cases were run:\n{said}");
}

/// An application on a port of its own; killed when it is dropped.
pub(crate) struct Application {
    _child: Child,
    pub(crate) addr: SocketAddr,
}

impl Application {
    pub(crate) async fn start(name: &str) -> Self {
        Self::start_with(name, &[]).await
    }

    pub(crate) async fn start_with(name: &str, args: &[&str]) -> Self {
        let mut child = program(name, args).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = timeout(4 * SOON, lines.next_line())
            .await
            .unwrap_or_else(|_| panic!("{name} does not start"));
        let port: u16 = line.unwrap().and_then(|line| line.parse().ok()).expect("a port");
        Self {
            _child: child,
            addr: SocketAddr::from(([127, 0, 0, 1], port)),
        }
    }
}

/// A client that does as it is told, one thing a line, and answers in JSON; killed when it is dropped.
pub(crate) struct Client {
    _child: Child,
    stdin: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Client {
    pub(crate) fn start(name: &str, args: &[&str]) -> Self {
        let mut child = program(name, args).stdin(Stdio::piped()).spawn().unwrap();
        Self {
            stdin: child.stdin.take().unwrap(),
            lines: BufReader::new(child.stdout.take().unwrap()).lines(),
            _child: child,
        }
    }

    pub(crate) async fn does(&mut self, what: &str) -> Value {
        self.begins(what).await;
        self.answers().await
    }

    /// Tells it, and does not wait.
    pub(crate) async fn begins(&mut self, what: &str) {
        self.stdin.write_all(format!("{what}\n").as_bytes()).await.unwrap();
    }

    pub(crate) async fn answers(&mut self) -> Value {
        let line = timeout(4 * SOON, self.lines.next_line())
            .await
            .expect("an answer in time");
        serde_json::from_str(&line.unwrap().expect("an answer")).unwrap()
    }
}
