//! What is measured: the upstream alone, the gateway in front of it, and other proxies where they are installed.

use std::{
    fs,
    io::{BufRead, BufReader},
    net::SocketAddr,
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;
use vestibule::dev::postgres::Cluster;

use crate::{Workload, http, upstream};

/// Somewhere to send requests, and the process whose CPU that costs.
pub(crate) struct Entry {
    pub(crate) name: &'static str,
    pub(crate) addr: SocketAddr,
    pub(crate) pid: u32,
    /// The session's cookie, for the entry that knows sessions.
    cookie: Option<String>,
}

impl Entry {
    /// The bytes of one request.
    pub(crate) fn request(&self, workload: Workload) -> String {
        let path = workload.path();
        let cookie = match (&self.cookie, workload) {
            (Some(cookie), Workload::Session | Workload::Large) => format!("Cookie: {cookie}\r\n"),
            (Some(_), Workload::Public) | (None, _) => String::new(),
        };
        format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: bench\r\nAccept: */*\r\n{cookie}\r\n")
    }
}

/// Everything that runs; it ends when this is dropped.
pub(crate) struct Rig {
    pub(crate) entries: Vec<Entry>,
    user_id: String,
    _processes: Vec<Process>,
    _postgres: Cluster,
    _folder: TempDir,
}

/// A child that ends with the benchmark.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // A proxy that is asked takes its workers along; one that is killed leaves them behind.
        let asked = Command::new("kill").arg(self.0.id().to_string()).status();
        if !asked.is_ok_and(|status| status.success()) {
            let _ = self.0.kill();
        }
        let _ = self.0.wait();
    }
}

impl Rig {
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (upstream, direct) = start_upstream();
        let postgres = Cluster::temporary().unwrap_or_else(|error| panic!("{error}"));
        let (gateway, entry, user_id) = start_gateway(&folder, &postgres, direct.addr);
        let mut processes = vec![upstream, gateway];
        let mut entries = vec![direct, entry];
        for start in [start_nginx, start_haproxy] {
            if let Some((process, entry)) = start(&folder, entries[0].addr) {
                processes.push(process);
                entries.push(entry);
            }
        }
        Self {
            entries,
            user_id,
            _processes: processes,
            _postgres: postgres,
            _folder: folder,
        }
    }

    /// That the gateway does its work; nothing is timed before this has passed.
    pub(crate) fn check(&self) {
        let gateway = self.entries.iter().find(|entry| entry.cookie.is_some()).unwrap();
        let cookie = gateway.cookie.as_deref().unwrap();
        let get = |path: &str, fields: &[(&str, &str)]| http::call(gateway.addr, &format!("GET {path}"), fields, "");

        for (path, cookie) in [("/public/small", ""), ("/api/small", cookie)] {
            let answer = get(path, &[("Cookie", cookie)]);
            assert_eq!((answer.status, answer.body.as_str()), (200, upstream::SMALL), "{path}");
        }
        let large = get("/api/large", &[("Cookie", cookie)]);
        assert_eq!((large.status, large.body.len()), (200, upstream::LARGE));

        assert_eq!(get("/api/small", &[]).status, 401, "a stranger");
        let (name, value) = cookie.split_once('=').unwrap();
        let first = if value.starts_with('A') { 'B' } else { 'A' };
        let forged = format!("{name}={first}{}", &value[1..]);
        assert_eq!(get("/api/small", &[("Cookie", &forged)]).status, 401, "a forged cookie");

        let echo = get("/api/echo", &[("Cookie", cookie), ("X-User-Id", "somebody-else")])
            .body
            .to_ascii_lowercase();
        assert!(
            echo.contains(&format!("x-user-id: {}\r\n", self.user_id)),
            "the identity is sent: {echo}"
        );
        assert!(!echo.contains("somebody-else"), "a forged identity is removed: {echo}");
        assert!(!echo.contains("session_token"), "the session cookie is cut out: {echo}");
    }
}

fn start_upstream() -> (Process, Entry) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .arg("serve-upstream")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let entry = Entry {
        name: "direct",
        addr: line.trim().parse().unwrap(),
        pid: child.id(),
        cookie: None,
    };
    (Process(child), entry)
}

const EMAIL: &str = "ada@example.com";
const PASSWORD: &str = "correct horse battery staple";

/// The release binary, with a user who is signed in.
fn start_gateway(folder: &TempDir, postgres: &Cluster, upstream: SocketAddr) -> (Process, Entry, String) {
    let (addr, admin, nowhere) = (http::free_addr(), http::free_addr(), http::free_addr());
    let database = postgres.url("postgres");
    let config = folder.path().join("gateway.toml");
    let text = format!(
        r#"
        [server]
        listen = "{addr}"
        public_url = "http://localhost"
        drain_delay = "0s"
        [admin]
        listen = "{admin}"
        [log]
        level = "warn"
        [database]
        url = "{database}"
        [auth]
        secret = "a secret that only this benchmark uses, and only here"
        [auth.session.cache]
        ttl = "1h"
        [mail]
        from = "Bench <bench@example.com>"
        smtp = "smtp://{nowhere}"
        [upstreams.app]
        endpoints = ["http://{upstream}"]
        [[routes]]
        path = "/api/*"
        upstream = "app"
        [[routes]]
        path = "/public/*"
        upstream = "app"
        auth = "public"
        "#
    );
    fs::write(&config, text).unwrap();
    let child = Command::new(env!("CARGO_BIN_EXE_vestibule"))
        .args(["serve", "--config"])
        .arg(&config)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let process = Process(child);
    http::wait_for(addr, "the gateway");

    let credentials = serde_json::json!({ "name": "Ada", "email": EMAIL, "password": PASSWORD }).to_string();
    let sign_up = http::call(addr, "POST /api/auth/sign-up/email", &[], &credentials);
    assert_eq!(sign_up.status, 200, "{}", sign_up.body);
    verify_by_hand(&database);
    let sign_in = http::call(addr, "POST /api/auth/sign-in/email", &[], &credentials);
    assert_eq!(sign_in.status, 200, "{}", sign_in.body);
    let cookie = sign_in.head.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        let cookie = value.split(';').next()?;
        (name.eq_ignore_ascii_case("set-cookie") && cookie.contains("session_token=")).then(|| cookie.to_owned())
    });
    let user: serde_json::Value = serde_json::from_str(&sign_in.body).unwrap();
    let entry = Entry {
        name: "gateway",
        addr,
        pid: process.0.id(),
        cookie: Some(cookie.expect("a session cookie")),
    };
    (process, entry, user["user"]["id"].as_str().unwrap().to_owned())
}

/// Nobody reads mail here: the address is marked as verified, and the mail that waits for its server is dropped.
fn verify_by_hand(database: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let (client, connection) = tokio_postgres::connect(database, tokio_postgres::NoTls).await.unwrap();
        let driving = tokio::spawn(connection);
        client
            .batch_execute("UPDATE auth.users SET email_verified = true; DELETE FROM auth.mail_outbox")
            .await
            .unwrap();
        drop(client);
        driving.await.unwrap().unwrap();
    });
}

fn start_nginx(folder: &TempDir, upstream: SocketAddr) -> Option<(Process, Entry)> {
    let addr = http::free_addr();
    let folder = folder.path().join("nginx");
    fs::create_dir(&folder).unwrap();
    let config = format!(
        "daemon off; worker_processes auto; pid nginx.pid; error_log stderr crit;
        events {{ worker_connections 4096; }}
        http {{
            access_log /dev/null combined buffer=64k flush=1s;
            client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
            uwsgi_temp_path uwsgi; scgi_temp_path scgi;
            keepalive_requests 1000000;
            upstream app {{ server {upstream}; keepalive 128; keepalive_requests 1000000; }}
            server {{
                listen {addr} reuseport;
                location / {{
                    proxy_pass http://app;
                    proxy_http_version 1.1;
                    proxy_set_header Connection \"\";
                    proxy_set_header Host $host;
                    proxy_set_header X-Forwarded-For $remote_addr;
                    proxy_set_header X-Forwarded-Proto $scheme;
                    proxy_max_temp_file_size 0;
                }}
            }}
        }}"
    );
    fs::write(folder.join("nginx.conf"), config).unwrap();
    let mut command = Command::new("nginx");
    command.arg("-p").arg(&folder).args(["-c", "nginx.conf"]);
    start_proxy("nginx", addr, command)
}

fn start_haproxy(folder: &TempDir, upstream: SocketAddr) -> Option<(Process, Entry)> {
    let addr = http::free_addr();
    let config = folder.path().join("haproxy.cfg");
    let text = format!(
        "global\n maxconn 4096\n\
         defaults\n mode http\n timeout connect 5s\n timeout client 60s\n timeout server 60s\n option forwardfor\n\
         frontend in\n bind {addr}\n default_backend app\n\
         backend app\n http-reuse always\n server app {upstream}\n"
    );
    fs::write(&config, text).unwrap();
    let mut command = Command::new("haproxy");
    command.arg("-db").arg("-f").arg(&config);
    start_proxy("haproxy", addr, command)
}

/// `None`: not installed.
fn start_proxy(name: &'static str, addr: SocketAddr, mut command: Command) -> Option<(Process, Entry)> {
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
    let Ok(child) = child else {
        println!("{name} is not installed: no figures for it");
        return None;
    };
    let entry = Entry {
        name,
        addr,
        pid: child.id(),
        cookie: None,
    };
    let process = Process(child);
    http::wait_for(addr, name);
    Some((process, entry))
}
