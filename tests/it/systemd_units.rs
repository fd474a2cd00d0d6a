//! The units that the documents show: systemd takes them, and a gateway that is started as they say does as they say.
#![cfg(target_os = "linux")]

use std::{
    collections::HashMap,
    env, fs,
    net::{SocketAddr, TcpListener},
    os::{fd::OwnedFd, linux::net::SocketAddrExt as _, unix::net as std_unix},
    path::Path,
    process::Command,
};

use tempfile::TempDir;
use tokio::{net::UnixDatagram, time::timeout};
use toml::{Table, Value};

use crate::harness::{
    Database, SOON, Setup,
    client::Call,
    gateway::SITE,
    mailbox::Mailbox,
    program::{self, Program, free_port},
    upstream::Upstream,
};

/// What is read of a document.
struct Units {
    /// By file name.
    files: HashMap<String, String>,
    /// The piece of configuration that names the socket.
    toml: Table,
}

fn units() -> Units {
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reload.md");
    let text = fs::read_to_string(document).unwrap();
    let blocks = |language: &str| -> Vec<String> {
        let open = format!("```{language}\n");
        let begun = text.split(&open).skip(1);
        begun
            .map(|rest| rest.split_once("```").expect("a block has an end").0.to_owned())
            .collect()
    };
    let files = blocks("ini").into_iter().map(|unit| {
        let place = unit
            .lines()
            .next()
            .unwrap()
            .strip_prefix("# ")
            .expect("a unit says where it goes");
        (Path::new(place).file_name().unwrap().to_str().unwrap().to_owned(), unit)
    });
    let mut pieces = blocks("toml").into_iter().map(|piece| piece.parse::<Table>().unwrap());
    let toml = pieces.find(|piece| {
        let listen = piece.get("server").and_then(|server| server.get("listen"));
        listen
            .and_then(Value::as_str)
            .is_some_and(|listen| listen.starts_with("fd:"))
    });
    Units {
        files: files.collect(),
        toml: toml.expect("a configuration for socket activation"),
    }
}

impl Units {
    /// A setting of a unit.
    fn says(&self, unit: &str, key: &str) -> Option<&str> {
        let lines = self.files[unit].lines();
        lines
            .filter_map(|line| line.split_once('='))
            .find(|(name, _)| *name == key)
            .map(|(_, value)| value)
    }
}

#[test]
fn systemd_takes_the_units_of_the_documents() {
    let units = units();
    let mut names: Vec<_> = units.files.keys().map(String::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["vestibule.service", "vestibule.socket", "vestibule@.service"]);
    let binary = program::path();
    // Older ones don't know the type; the document says what takes its place.
    let is_old = systemd_version().is_some_and(|version| version < 253);
    let kind = if is_old {
        "Type=notify\n"
    } else {
        "Type=notify-reload\n"
    };
    for (name, unit) in &units.files {
        // Each alone in a folder: the template has a name of its own, the other two are a pair.
        let folder = TempDir::new().unwrap();
        for (other, text) in &units.files {
            if other.contains('@') == name.contains('@') {
                // The program is where it was built rather than where packages put it.
                let text = text.replace("/usr/bin/vestibule", binary.to_str().unwrap());
                let text = text.replace("Type=notify-reload\n", kind);
                fs::write(folder.path().join(other), text).unwrap();
            }
        }
        assert!(
            unit.contains("/usr/bin/vestibule serve --config ") != name.ends_with(".socket"),
            "{name}"
        );
        let asked = Command::new("systemd-analyze")
            .args(["verify", "--man=no", "--recursive-errors=no"])
            .arg(folder.path().join(name.replace("@.", "@green.")))
            .output();
        // Machines without systemd have nothing to ask; the next test needs none.
        let Ok(verified) = asked else { continue };
        let said = String::from_utf8_lossy(&verified.stderr);
        assert!(verified.status.success(), "{name}: {said}");
        let about_it: Vec<_> = said.lines().filter(|line| line.contains("vestibule")).collect();
        assert!(about_it.is_empty(), "{name}: {about_it:?}");
    }
}

/// `None`: there is none.
fn systemd_version() -> Option<u32> {
    let said = Command::new("systemd-analyze").arg("--version").output().ok()?;
    let said = String::from_utf8(said.stdout).unwrap();
    said.split(' ').nth(1)?.parse().ok()
}

/// What hears of the gateway in systemd's place.
struct Manager(UnixDatagram);

impl Manager {
    async fn hears(&self) -> Vec<String> {
        let mut message = [0; 512];
        let length = timeout(SOON, self.0.recv(&mut message))
            .await
            .expect("it is told")
            .unwrap();
        let text = String::from_utf8_lossy(&message[..length]);
        text.lines().map(str::to_owned).collect()
    }
}

#[tokio::test]
async fn a_gateway_that_is_started_as_the_units_say_tells_how_it_goes() {
    let units = units();
    let (service, name) = (
        "vestibule.service",
        units.says("vestibule.socket", "FileDescriptorName").unwrap(),
    );
    assert_eq!(
        units.toml["server"]["listen"].as_str(),
        Some(format!("fd:{name}").as_str())
    );
    assert_eq!(units.says(service, "Type"), Some("notify-reload"));
    let start: Vec<_> = units.says(service, "ExecStart").unwrap().split(' ').collect();
    assert_eq!(start[1..3], ["serve", "--config"]);

    let (db, mailbox, upstream) = (Database::fresh().await, Mailbox::start().await, Upstream::start().await);
    let folder = TempDir::new().unwrap();
    let config = folder.path().join("gateway.toml");
    let setup = Setup::default().with(&units.toml.to_string());
    fs::write(&config, setup.text(&db, mailbox.addr(), upstream.addr())).unwrap();

    // systemd's own address is a path, or an abstract one, which is written with an `@`.
    let path = folder.path().join("notify");
    let hidden = format!("vestibule-test-{}", std::process::id());
    let by_name = std_unix::SocketAddr::from_abstract_name(&hidden).unwrap();
    let by_name = std_unix::UnixDatagram::bind_addr(&by_name).unwrap();
    by_name.set_nonblocking(true).unwrap();
    for (manager, address) in [
        (UnixDatagram::bind(&path).unwrap(), path.to_str().unwrap().to_owned()),
        (UnixDatagram::from_std(by_name).unwrap(), format!("@{hidden}")),
    ] {
        let manager = Manager(manager);
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = socket.local_addr().unwrap();
        let handed_over: OwnedFd = socket.try_clone().unwrap().into();
        let variables = [
            ("LISTEN_FDS", "1"),
            ("LISTEN_FDNAMES", name),
            ("NOTIFY_SOCKET", &address),
        ];
        let program = Program::activated_with(&config, handed_over, "$$", &variables);

        let ready = manager.hears().await;
        let itself = format!("MAINPID={}", program.id());
        assert!(
            ready.contains(&"READY=1".to_owned()) && ready.contains(&itself),
            "{ready:?}"
        );
        let answer = Call::new(addr, SITE, "GET", "/public/x").await;
        assert_eq!((answer.status(), answer.text()), (200, "GET /public/x"));

        program.signal("HUP").await;
        let reloading = manager.hears().await;
        assert!(reloading.contains(&"RELOADING=1".to_owned()), "{reloading:?}");
        // By this systemd tells the reload that it asked for from one before it.
        let since = reloading.iter().find_map(|line| line.strip_prefix("MONOTONIC_USEC="));
        assert!(
            since.is_some_and(|since| since.parse::<u64>().is_ok_and(|since| since > 0)),
            "{reloading:?}"
        );
        assert!(manager.hears().await.contains(&"READY=1".to_owned()));

        program.signal("TERM").await;
        assert!(manager.hears().await.contains(&"STOPPING=1".to_owned()));
        let ended = program.ended().await;
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    }
}

#[tokio::test]
async fn systemds_own_tool_hands_over_a_socket_whose_first_client_is_served() {
    let units = units();
    let name = units.says("vestibule.socket", "FileDescriptorName").unwrap();
    let (db, mailbox, upstream) = (Database::fresh().await, Mailbox::start().await, Upstream::start().await);
    let folder = TempDir::new().unwrap();
    let config = folder.path().join("gateway.toml");
    let setup = Setup::default().with(&units.toml.to_string());
    fs::write(&config, setup.text(&db, mailbox.addr(), upstream.addr())).unwrap();
    let addr = SocketAddr::from(([127, 0, 0, 1], free_port()));
    // Machines without systemd have nothing to try it with; the test above imitates it.
    let Some(mut program) = Program::activated_by_systemd(&config, addr, name).await else {
        return;
    };
    program.line("Listening on").await;
    // It waits in the queue while the gateway starts.
    let answer = Call::new(addr, SITE, "GET", "/public/x").await;
    assert_eq!((answer.status(), answer.text()), (200, "GET /public/x"));
    assert_eq!(program.serving().await.0, addr);
    assert!(!program.output().contains("no key has them"), "{}", program.output());
    program.signal("TERM").await;
    let ended = program.ended().await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
}

#[test]
fn the_units_leave_the_gateway_the_time_that_it_takes() {
    let units = units();
    for service in ["vestibule.service", "vestibule@.service"] {
        // It waits for Postgres rather than to give up.
        assert_eq!(units.says(service, "TimeoutStartSec"), Some("infinity"));
        let stop = units
            .says(service, "TimeoutStopSec")
            .unwrap()
            .strip_suffix('s')
            .unwrap();
        let text = crate::harness::gateway::whole_text();
        let mut config: Table = text.parse().unwrap();
        let server = config["server"].as_table_mut().unwrap();
        server.remove("drain_delay");
        server.remove("shutdown_grace");
        let config = vestibule::config::parse(&config.to_string(), "gateway.toml", &|_| None);
        let server = config.unwrap_or_else(|errors| panic!("{errors}")).server;
        let takes = server.drain_delay + server.shutdown_grace;
        assert!(takes.as_secs() < stop.parse().unwrap(), "{takes:?}");
    }
}
