//! The real program, as a process of its own.

use std::{
    env,
    net::{SocketAddr, TcpListener},
    os::{fd::OwnedFd, unix::fs::MetadataExt as _},
    path::{Path, PathBuf},
    process::Stdio,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU16, Ordering},
    },
    time::Duration,
};

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncWriteExt, BufReader},
    process::{Child, Command},
    sync::watch,
    task::JoinHandle,
    time::timeout,
};

use super::{
    SOON,
    canary::{self, Watch},
};

/// No command that is run to its end takes longer.
const PATIENCE: Duration = Duration::from_mins(1);

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// A running `vestibule`; killed when it is dropped.
pub(crate) struct Program {
    child: Child,
    said: Arc<Mutex<Said>>,
    readers: [JoinHandle<()>; 2],
    /// Whether anybody reads what it says.
    heard: watch::Sender<bool>,
    _watch: Watch,
}

#[derive(Default)]
struct Said {
    stdout: String,
    stderr: String,
}

/// As whom programs run that are not to be root.
pub(crate) const NOBODY: u32 = 65_534;

/// The program that is tried: the one built with the tests, unless `VESTIBULE_BIN` names another, such as that of `make
/// release`.
pub(crate) fn path() -> PathBuf {
    env::var_os("VESTIBULE_BIN").map_or_else(|| env!("CARGO_BIN_EXE_vestibule").into(), PathBuf::from)
}

/// `vestibule` with these arguments and variables, not yet started.
fn command(args: &[&str], variables: &[(&str, &str)], folder: &Path) -> Command {
    let mut command = Command::new(path());
    command
        .args(args)
        .envs(variables.iter().copied())
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// Runs a command that ends by itself.
pub(crate) async fn run(args: &[&str], variables: &[(&str, &str)], folder: &Path) -> Ended {
    let output = timeout(PATIENCE, command(args, variables, folder).output()).await;
    let output = output.unwrap_or_else(|_| panic!("{args:?} does not end")).unwrap();
    Ended::of(output)
}

/// As [`run`], with something on standard input.
pub(crate) async fn run_with_input(args: &[&str], variables: &[(&str, &str)], folder: &Path, input: &str) -> Ended {
    let mut child = command(args, variables, folder).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // Whoever refuses the arguments doesn't read it.
    let _ = stdin.write_all(input.as_bytes()).await;
    drop(stdin);
    let output = timeout(PATIENCE, child.wait_with_output()).await;
    let output = output.unwrap_or_else(|_| panic!("{args:?} does not end")).unwrap();
    Ended::of(output)
}

impl Ended {
    fn of(output: std::process::Output) -> Self {
        let stderr = String::from_utf8(output.stderr).unwrap();
        // What a command was asked for, as a link, is on standard output.
        canary::said("standard error", stderr.as_str());
        drop(Watch { gateway: None });
        Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr,
        }
    }
}

impl Program {
    pub(crate) fn start(args: &[&str], variables: &[(&str, &str)], folder: &Path) -> Self {
        Self::spawn(&mut command(args, variables, folder))
    }

    /// `vestibule serve` as a service manager starts it: `socket` is descriptor 3 and, once more, 4, for the process that
    /// `process` says to a shell (`$$`: this one).
    pub(crate) fn activated(config: &Path, socket: OwnedFd, names: &str, process: &str) -> Self {
        let sockets = [("LISTEN_FDS", "2"), ("LISTEN_FDNAMES", names)];
        Self::activated_with(config, socket, process, &sockets)
    }

    /// As [`Program::activated`], with these variables.
    pub(crate) fn activated_with(config: &Path, socket: OwnedFd, process: &str, variables: &[(&str, &str)]) -> Self {
        // The shell becomes the program, so the number of its process is known before.
        let script = format!("exec 3<&0 4<&0 </dev/null; export LISTEN_PID={process}; exec \"$@\"");
        let mut command = Command::new("sh");
        command
            .args(["-c", &script, "sh"])
            .arg(path())
            .args(["serve", "--config"])
            .arg(config)
            .envs(variables.iter().copied())
            .stdin(Stdio::from(socket))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        Self::spawn(&mut command)
    }

    /// `vestibule serve` behind systemd's own tool, which opens the socket at `listen` and becomes the program at the first
    /// connection. `None`: it is not on this machine.
    pub(crate) async fn activated_by_systemd(config: &Path, listen: SocketAddr, name: &str) -> Option<Self> {
        const TOOL: &str = "systemd-socket-activate";
        Command::new(TOOL).arg("--version").output().await.ok()?;
        let mut command = Command::new(TOOL);
        command
            .arg(format!("--listen={listen}"))
            .arg(format!("--fdname={name}"))
            .arg(path())
            .args(["serve", "--config"])
            .arg(config)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        Some(Self::spawn(&mut command))
    }

    /// `vestibule serve` from a shell that lets it have so few files and sockets at first; where the public listener is.
    pub(crate) async fn with_descriptors(config: &Path, soft_limit: u32) -> (Self, SocketAddr) {
        let script = format!("ulimit -Sn {soft_limit}; exec \"$@\"");
        let mut command = Command::new("sh");
        command
            .args(["-c", &script, "sh"])
            .arg(path())
            .args(["serve", "--config"])
            .arg(config)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut program = Self::spawn(&mut command);
        let (public, _) = program.serving().await;
        (program, public)
    }

    fn spawn(command: &mut Command) -> Self {
        let mut child = command.spawn().unwrap();
        let said = Arc::new(Mutex::new(Said::default()));
        let heard = watch::Sender::new(true);
        let readers = [
            keep(
                child.stdout.take().unwrap(),
                &said,
                |said| &mut said.stdout,
                heard.subscribe(),
            ),
            keep(
                child.stderr.take().unwrap(),
                &said,
                |said| &mut said.stderr,
                heard.subscribe(),
            ),
        ];
        Self {
            child,
            said,
            readers,
            heard,
            _watch: Watch { gateway: None },
        }
    }

    /// `vestibule serve`, when it serves; where the public and the admin listener are.
    pub(crate) async fn serve(config: &Path) -> (Self, SocketAddr, SocketAddr) {
        let mut program = Self::start(&["serve", "--config", config.to_str().unwrap()], &[], Path::new("/"));
        let (public, admin) = program.serving().await;
        (program, public, admin)
    }

    /// As [`Program::serve`], but never as root: as somebody else, if the tests run as root.
    pub(crate) async fn serve_as_somebody(config: &Path) -> (Self, SocketAddr, SocketAddr) {
        let mut program = Self::start_as_somebody(config);
        let (public, admin) = program.serving().await;
        (program, public, admin)
    }

    /// `vestibule serve` as [`NOBODY`], if the tests run as root.
    pub(crate) fn start_as_somebody(config: &Path) -> Self {
        let mut command = command(&["serve", "--config", config.to_str().unwrap()], &[], Path::new("/"));
        let folder = config.parent().unwrap();
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(folder, open).unwrap();
        if std::fs::metadata("/proc/self").unwrap().uid() == 0 {
            // Where it is built may be closed to others.
            let copy = folder.join("vestibule");
            let program = path();
            if !copy.exists() && std::fs::hard_link(&program, &copy).is_err() {
                std::fs::copy(program, &copy).unwrap();
            }
            let mut another = Command::new(copy);
            another.args(command.as_std().get_args()).current_dir("/").uid(NOBODY);
            another
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped());
            another.kill_on_drop(true);
            command = another;
        }
        Self::spawn(&mut command)
    }

    /// Waits until it says that it serves.
    pub(crate) async fn serving(&mut self) -> (SocketAddr, SocketAddr) {
        let line = self.line("\"serving ").await;
        let line: Value = serde_json::from_str(&line).unwrap();
        let addr = |name: &str| line[name].as_str().unwrap().parse().unwrap();
        (addr("addr"), addr("admin"))
    }

    /// The first line that has `text` in it, on either output; waits for it.
    pub(crate) async fn line(&mut self, text: &str) -> String {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let ended = self.child.try_wait().unwrap();
            let found = {
                let said = self.said.lock().unwrap();
                let mut lines = said.stderr.lines().chain(said.stdout.lines());
                lines.find(|line| line.contains(text)).map(str::to_owned)
            };
            if let Some(line) = found {
                return line;
            }
            let all = self.output();
            assert!(ended.is_none(), "it has ended ({ended:?}) without {text:?}:\n{all}");
            assert!(tokio::time::Instant::now() < deadline, "no {text:?} in:\n{all}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// All that it has said so far.
    pub(crate) fn output(&self) -> String {
        let said = self.said.lock().unwrap();
        format!("{}{}", said.stderr, said.stdout)
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id().expect("it has not been waited for")
    }

    /// From here on nobody reads what it says, while the pipes stay open; until it is waited for.
    pub(crate) fn turn_away(&self) {
        self.heard.send_replace(false);
    }

    /// Sends `TERM`, `INT` or the like.
    pub(crate) async fn signal(&self, name: &str) {
        let sent = Command::new("kill")
            .args(["-s", name, &self.id().to_string()])
            .status()
            .await;
        assert!(sent.unwrap().success());
    }

    /// SIGKILL: no chance to finish anything.
    pub(crate) async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// Waits for its end.
    pub(crate) async fn ended(mut self) -> Ended {
        let status = timeout(PATIENCE, self.child.wait()).await;
        let status = status.unwrap_or_else(|_| panic!("it does not end:\n{}", self.output()));
        self.heard.send_replace(true);
        for reader in &mut self.readers {
            // What it started may hold the other end of a pipe for a moment longer.
            timeout(SOON, reader).await.expect("its output ends with it").unwrap();
        }
        let said = self.said.lock().unwrap();
        Ended {
            code: status.unwrap().code(),
            stdout: said.stdout.clone(),
            stderr: said.stderr.clone(),
        }
    }
}

/// Appends every line of `from`.
fn keep(
    from: impl AsyncRead + Send + Unpin + 'static,
    said: &Arc<Mutex<Said>>,
    to: fn(&mut Said) -> &mut String,
    mut heard: watch::Receiver<bool>,
) -> JoinHandle<()> {
    let said = Arc::clone(said);
    tokio::spawn(async move {
        let mut lines = BufReader::new(from).lines();
        loop {
            // Who is gone has nothing left to say that would be too much.
            let _ = heard.wait_for(|heard| *heard).await;
            let Ok(Some(line)) = lines.next_line().await else {
                return;
            };
            canary::said("a line of a process", line.as_str());
            let mut said = said.lock().unwrap();
            let to = to(&mut said);
            to.push_str(&line);
            to.push('\n');
        }
    })
}

/// A port for what must know it before it listens. Those that the system hands out are above, so nobody else takes it.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Another run of the tests begins elsewhere.
    let begin = u16::try_from(std::process::id() % 8_000).unwrap();
    loop {
        let port = 20_000 + (begin + NEXT.fetch_add(1, Ordering::Relaxed)) % 12_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
