//! `vestibule dev`, by the commands that README.md tells people to try.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use tempfile::TempDir;
use tokio::{net::TcpStream, process::Command, time::timeout};

use crate::harness::{
    SOON,
    certificates::Authority,
    eventually, example,
    program::{Program, free_port},
};

/// Before the block of commands.
const MARK: &str = "<!-- try: a test runs these commands as they stand -->\n```sh\n";

/// Some start Postgres and Python.
const A_WHILE: Duration = Duration::from_secs(90);

/// A folder to work in, and ports that nobody else has.
struct Place {
    folder: TempDir,
    gateway: u16,
    app: u16,
    inbox: u16,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        // Where we are root, Postgres runs as somebody else, who must reach its data.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        Self {
            folder,
            gateway: free_port(),
            app: free_port(),
            inbox: free_port(),
        }
    }

    /// `vestibule dev` when it is ready. What it is started with differs from `make dev` in folder and ports alone.
    async fn dev(&self, args: &[&str]) -> Program {
        let listen = format!("127.0.0.1:{}", self.gateway);
        let public_url = format!("http://localhost:{}", self.gateway);
        let endpoints = format!("[\"http://127.0.0.1:{}\"]", self.app);
        let variables = [
            ("VESTIBULE__SERVER__LISTEN", listen.as_str()),
            ("VESTIBULE__SERVER__PUBLIC_URL", &public_url),
            ("VESTIBULE__ADMIN__LISTEN", "127.0.0.1:0"),
            ("VESTIBULE__UPSTREAMS__APP__ENDPOINTS", &endpoints),
        ];
        let inbox = format!("127.0.0.1:{}", self.inbox);
        let args = [&["dev", "--dir", "data", "--inbox", &inbox], args].concat();
        let mut program = Program::start(&args, &variables, self.folder.path());
        program.line("Vestibule is ready").await;
        program
    }

    /// As [`Place::dev`], with the example application.
    async fn dev_with_example(&self) -> Program {
        let (python, folder) = (example::python(), example::folder());
        let with = format!(
            "'{}' -m uvicorn --app-dir '{}' main:app --host 127.0.0.1 --port {} --no-access-log",
            python.display(),
            folder.display(),
            self.app
        );
        let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("gateway.toml");
        self.dev(&["--config", config.to_str().unwrap(), "--with", &with]).await
    }

    /// What these commands print, run in a shell.
    async fn sh(&self, commands: &str) -> String {
        let commands = commands
            .replace("localhost:8080", &format!("localhost:{}", self.gateway))
            .replace("localhost:8025", &format!("localhost:{}", self.inbox));
        let mut shell = Command::new("sh");
        shell
            .args(["-c", &commands])
            .current_dir(self.folder.path())
            .kill_on_drop(true);
        let output = timeout(A_WHILE, shell.output())
            .await
            .expect("the commands end")
            .unwrap();
        let (out, err) = (
            String::from_utf8(output.stdout).unwrap(),
            String::from_utf8_lossy(&output.stderr),
        );
        assert!(output.status.success(), "{commands}\n{out}\n{err}");
        out
    }

    /// Nobody listens any more.
    async fn is_closed(&self) {
        for port in [self.gateway, self.app, self.inbox] {
            assert!(
                TcpStream::connect(("127.0.0.1", port)).await.is_err(),
                "{port} is still open"
            );
        }
    }
}

/// Waits until none of these processes is left. One that looked after others may stay for seconds, to end by force what
/// does not obey.
async fn are_gone(started: &BTreeSet<Process>) {
    eventually(SOON, async || {
        let running = processes();
        !running.values().any(|(process, _)| started.contains(process))
    })
    .await;
}

/// The block of README.md.
fn commands() -> String {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let (_, block) = readme.split_once(MARK).expect("README.md has its mark");
    block.split("```").next().unwrap().to_owned()
}

#[tokio::test]
async fn the_commands_of_the_readme_do_what_it_says() {
    let place = Place::new();
    let dev = place.dev_with_example().await;
    let out = place.sh(&commands()).await;

    // Bodies do not end their lines.
    let statuses: Vec<&str> = out.split("HTTP/1.1 ").skip(1).map(|answer| &answer[..3]).collect();
    assert_eq!(
        statuses,
        ["401", "302", "401"],
        "nobody; the link; the session that was ended:\n{out}"
    );
    let todo = r#"{"id":1,"title":"Try Vestibule","done":false}"#;
    assert!(out.contains(&format!("{todo}[{todo}]")), "the to-do comes back:\n{out}");

    // Ctrl-C, and again: everything and everybody is still there.
    let started = descendants(dev.id());
    assert!(started.len() >= 4, "Postgres and Python run: {started:?}");
    dev.signal("INT").await;
    let ended = dev.ended().await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    place.is_closed().await;

    let dev = place.dev_with_example().await;
    let todos = "curl -s -b phone.txt http://localhost:8080/api/todos";
    assert_eq!(place.sh(todos).await, format!("[{todo}]"), "a session of before");
    let again = "curl -s -c again.txt http://localhost:8080/api/auth/sign-in/email \
        -H 'content-type: application/json' -d '{\"email\":\"ada@example.com\",\"password\":\"correct horse battery\"}' \
        >/dev/null && curl -s -b again.txt http://localhost:8080/api/todos";
    assert_eq!(place.sh(again).await, format!("[{todo}]"), "a user of before");
    let mail = "curl -s 'http://localhost:8025/latest.txt?to=ada@example.com'";
    assert!(place.sh(mail).await.contains("verify-email"), "a mail of before");
    let inbox = place.folder.path().join("data/inbox");
    assert_eq!(
        (mode(&inbox), mode(&inbox.join("000001.eml"))),
        (0o700, 0o600),
        "nobody else's to read"
    );

    // Nothing outlives it, not even when it is killed.
    let started = &started | &descendants(dev.id());
    dev.kill().await;
    are_gone(&started).await;
    place.is_closed().await;
}

#[tokio::test]
async fn without_a_configuration_the_upstream_shows_what_it_received() {
    let place = Place::new();
    let dev = place.dev(&[]).await;
    let out = place
        .sh("curl -s http://localhost:8080/public/x -H 'X-User-Id: forged' -H 'X-Mine: kept'")
        .await;
    assert!(out.contains("kept") && !out.contains("forged"), "{out}");
    let out = place.sh("curl -s -i http://localhost:8080/x").await;
    assert!(out.starts_with("HTTP/1.1 401"), "{out}");
    // Nothing is limited, however often somebody tries things out.
    let guess = "curl -s -o /dev/null -w '%{http_code} ' http://localhost:8080/api/auth/sign-in/email \
        -H 'content-type: application/json' -d '{\"email\":\"ada@example.com\",\"password\":\"not the password\"}'";
    let out = place.sh(&[guess; 12].join("\n")).await;
    assert_eq!(out, "401 ".repeat(12));
    let data = place.folder.path().join("data");
    assert_eq!(fs::read_to_string(data.join(".gitignore")).unwrap(), "*\n");
    assert_eq!(mode(&data.join("secret")), 0o600);
    let started = descendants(dev.id());
    dev.signal("INT").await;
    let ended = dev.ended().await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let secret = fs::read_to_string(data.join("secret")).unwrap();
    assert!(!ended.stdout.contains(secret.trim()) && !ended.stderr.contains(secret.trim()));
    place.is_closed().await;
    are_gone(&started).await;
}

#[tokio::test]
async fn with_a_configuration_alone_it_says_where_the_application_is_expected() {
    let place = Place::new();
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("gateway.toml");
    let mut dev = place.dev(&["--config", config.to_str().unwrap()]).await;
    let expected = format!("start `app` yourself, listening on http://127.0.0.1:{}", place.app);
    dev.line(&expected).await;
    assert!(!dev.output().contains("answers with what it received"));
    dev.signal("INT").await;
    assert_eq!(dev.ended().await.code, Some(0));
}

#[tokio::test]
async fn of_another_database_nothing_is_used_but_the_cluster_s_own() {
    let place = Place::new();
    let of_the_project = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("gateway.toml")).unwrap();
    let elsewhere = "[database]\nca = 'ca.crt'\npooler = 'transaction'\nlisten_url = 'postgres://127.0.0.1:9/none'\n";
    let text = of_the_project.replace("[database]\n", elsewhere);
    assert_ne!(text, of_the_project);
    fs::write(place.folder.path().join("ca.crt"), Authority::new("Of databases").pem()).unwrap();
    let config = place.folder.path().join("project.toml");
    fs::write(&config, text).unwrap();
    let mut dev = place.dev(&["--config", config.to_str().unwrap()]).await;
    dev.line("listening for revocations").await;
    dev.signal("INT").await;
    assert_eq!(dev.ended().await.code, Some(0));
}

#[tokio::test]
async fn a_changed_configuration_is_taken_over_and_what_runs_beside_the_gateway_stays() {
    let place = Place::new();
    let mut dev = place.dev(&[]).await;
    let status = "curl -s -o /dev/null -w '%{http_code}' http://localhost:8080/open";
    assert_eq!(place.sh(status).await, "401");
    let file = place.folder.path().join("data/gateway.toml");
    let open = "\n[[routes]]\npath = \"/open\"\nupstream = \"app\"\nauth = \"public\"\n";
    fs::write(&file, fs::read_to_string(&file).unwrap() + open).unwrap();
    dev.line("the configuration was reloaded").await;
    assert_eq!(
        place.sh(status).await,
        "200",
        "the upstream that shows what it received answers still"
    );
    assert!(!dev.output().contains("at a restart only"), "{}", dev.output());

    fs::write(&file, "[server]\nlissen = 1\n").unwrap();
    dev.line("did you mean `listen`?").await;
    assert_eq!(place.sh(status).await, "200");
    dev.signal("INT").await;
    assert_eq!(dev.ended().await.code, Some(0));
}

#[tokio::test]
async fn a_terminal_that_is_closed_ends_it_in_order() {
    let place = Place::new();
    let dev = place.dev(&[]).await;
    let started = descendants(dev.id());
    dev.signal("HUP").await;
    let ended = dev.ended().await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(ended.stdout.contains("Stopping."), "{}", ended.stdout);
    place.is_closed().await;
    are_gone(&started).await;
}

#[tokio::test]
async fn an_application_that_does_not_start_ends_everything_with_1() {
    let place = Place::new();
    let inbox = format!("127.0.0.1:{}", place.inbox);
    let config = place.folder.path().join("gateway.toml");
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("gateway.toml")).unwrap();
    fs::write(&config, text.replace(":8080", &format!(":{}", place.gateway))).unwrap();
    let endpoints = format!("[\"http://127.0.0.1:{}\"]", place.app);
    let variables = [
        ("VESTIBULE__ADMIN__LISTEN", "127.0.0.1:0"),
        ("VESTIBULE__UPSTREAMS__APP__ENDPOINTS", endpoints.as_str()),
    ];
    let args = [
        "dev",
        "--dir",
        "data",
        "--inbox",
        &inbox,
        "--with",
        "echo no module named main; exit 3",
    ];
    let ended = Program::start(&args, &variables, place.folder.path()).ended().await;
    assert_eq!(ended.code, Some(1));
    assert!(ended.stdout.contains("app | no module named main"), "{}", ended.stdout);
    assert!(
        ended.stderr.contains("the command of --with has ended"),
        "{}",
        ended.stderr
    );
    place.is_closed().await;
}

fn mode(file: &PathBuf) -> u32 {
    fs::metadata(file).unwrap().permissions().mode() & 0o777
}

/// A process: its id, and when it began, since ids are used again.
type Process = (u32, String);

/// Every process of this machine that has not ended, with its parent's id.
fn processes() -> BTreeMap<u32, (Process, u32)> {
    let ids = fs::read_dir("/proc").expect("Linux");
    let ids = ids.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let known = ids.filter_map(|id: u32| {
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        // Behind the name, which may hold anything: state, parent, …, the 20th is when it began (proc(5)).
        let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
        let ended = matches!(fields[0], "Z" | "X");
        (!ended).then(|| (id, ((id, fields[19].to_owned()), fields[1].parse().unwrap())))
    });
    known.collect()
}

/// All processes below this one.
fn descendants(of: u32) -> BTreeSet<Process> {
    let all = processes();
    let mut found = BTreeSet::new();
    let mut parents = vec![of];
    while let Some(id) = parents.pop() {
        for (process, parent) in all.values() {
            if *parent == id && found.insert(process.clone()) {
                parents.push(process.0);
            }
        }
    }
    found
}
