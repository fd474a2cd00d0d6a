//! What is measured: the upstream alone, the gateway in front of it, and other proxies where they are installed.

use std::{
    fs,
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;
use vestibule::dev::postgres::Cluster;

use crate::{
    http, instructions,
    load::{Cookies, Order},
    rivals,
    scenario::{Scenario, Who, Wire},
    sessions::{self, Many},
    upstream,
};

/// Somewhere to send requests, and the processes whose CPU that costs.
pub(crate) struct Entry {
    pub(crate) name: &'static str,
    pub(crate) plain: Option<Place>,
    pub(crate) tls: Option<Place>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) addr: SocketAddr,
    pub(crate) pid: u32,
}

/// Everything that runs; it ends when this is dropped.
pub(crate) struct Rig {
    pub(crate) entries: Vec<Entry>,
    pub(crate) gateway: Place,
    /// Postgres's first process.
    pub(crate) postgres: u32,
    user_id: String,
    cookie: Cookie,
    certificate: Certificate,
    _processes: Vec<Process>,
    _postgres: Cluster,
    folder: TempDir,
}

/// A child that ends with the benchmark.
pub(crate) struct Process(pub(crate) Child);

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

/// The session cookie of the user who is signed in.
struct Cookie {
    name: String,
    value: String,
}

impl Cookie {
    /// As it is called where the gateway itself speaks TLS.
    fn secure_name(&self) -> String {
        format!("__Host-{}", self.name)
    }
}

/// For `localhost`, signed by itself.
pub(crate) struct Certificate {
    pub(crate) pem: PathBuf,
    pub(crate) key: PathBuf,
    /// Both in one file, as HAProxy wants it.
    pub(crate) together: PathBuf,
    der: PathBuf,
}

impl Certificate {
    fn make(folder: &TempDir) -> Self {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let (pem, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        let write = |name: &str, bytes: &[u8]| {
            let path = folder.path().join(name);
            fs::write(&path, bytes).unwrap();
            path
        };
        Self {
            pem: write("certificate.pem", pem.as_bytes()),
            key: write("key.pem", key.as_bytes()),
            together: write("together.pem", format!("{pem}{key}").as_bytes()),
            der: write("certificate.der", made.cert.der()),
        }
    }
}

impl Rig {
    /// Of `program`, a gateway. `counting`: it is run so that its instructions can be counted.
    pub(crate) fn start(program: &str, counting: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let own = [program.to_owned()];
        let counted = if counting {
            [instructions::runner(folder.path()), own.to_vec()].concat()
        } else {
            own.to_vec()
        };
        let certificate = Certificate::make(&folder);
        let (upstream, direct) = start_upstream();
        let postgres = Cluster::temporary().unwrap_or_else(|error| panic!("{error}"));
        let plain = start_gateway(&folder, &postgres, direct.addr, (None, &counted));
        let (user_id, cookie) = sign_in(plain.1.addr, &postgres);
        let tls = start_gateway(&folder, &postgres, direct.addr, (Some(&certificate), &own));
        let mut entries = vec![
            Entry {
                name: "direct",
                plain: Some(direct),
                tls: None,
            },
            Entry {
                name: "gateway",
                plain: Some(plain.1),
                tls: Some(tls.1),
            },
        ];
        let mut processes = vec![upstream, plain.0, tls.0];
        for start in [rivals::nginx, rivals::haproxy, rivals::relay] {
            if let Some((process, entry)) = start(&folder, direct.addr, &certificate) {
                processes.push(process);
                entries.push(entry);
            }
        }
        let pid = fs::read_to_string(postgres.folder().join("data/postmaster.pid")).unwrap();
        Self {
            entries,
            gateway: plain.1,
            postgres: pid.lines().next().unwrap().parse().unwrap(),
            user_id,
            cookie,
            certificate,
            _processes: processes,
            _postgres: postgres,
            folder,
        }
    }

    /// That the gateway does its work; nothing is timed before this has passed.
    pub(crate) fn check(&self) {
        let Cookie { name, value } = &self.cookie;
        let cookie = &format!("{name}={value}");
        let get =
            |path: &str, fields: &[(&str, &str)]| http::call(self.gateway.addr, &format!("GET {path}"), fields, "");

        for (path, cookie) in [("/public/small", ""), ("/api/small", cookie)] {
            let answer = get(path, &[("Cookie", cookie)]);
            assert_eq!((answer.status, answer.body.as_str()), (200, upstream::SMALL), "{path}");
        }
        let large = get("/api/large", &[("Cookie", cookie)]);
        assert_eq!((large.status, large.body.len()), (200, upstream::LARGE));

        assert_eq!(get("/api/small", &[]).status, 401, "a stranger");
        let first = if value.starts_with('A') { 'B' } else { 'A' };
        let forged = format!("{name}={first}{}", &value[1..]);
        assert_eq!(get("/api/small", &[("Cookie", &forged)]).status, 401, "a forged cookie");
        let other = self.many(0).cookie(1);
        assert_eq!(get("/api/small", &[("Cookie", &other)]).status, 200, "one of many");

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

    /// Where the processes have their files.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn many(&self, first: u64) -> Many {
        Many {
            name: self.cookie.name.clone(),
            secret: SECRET.to_owned(),
            first,
        }
    }

    /// What the load is to do at `entry`; `None`: it can't do that. `first`: the first of many sessions.
    pub(crate) fn order(&self, entry: &Entry, scenario: &Scenario, first: u64) -> Option<(Place, Order)> {
        let place = match scenario.wire {
            Wire::Plain => entry.plain?,
            Wire::Tls | Wire::H2 => entry.tls?,
        };
        let guarded = entry.name == "gateway";
        let cookies = match scenario.who {
            Who::Nobody => Cookies::None,
            Who::Session | Who::Everybody if !guarded => Cookies::None,
            Who::Everybody => Cookies::Many(self.many(first)),
            Who::Session => {
                let Cookie { name, value } = &self.cookie;
                Cookies::One(match scenario.wire {
                    Wire::Plain => format!("{name}={value}"),
                    Wire::Tls | Wire::H2 => format!("{}={value}", self.cookie.secure_name()),
                })
            }
        };
        let order = Order {
            addr: place.addr,
            wire: scenario.wire,
            trusted: (scenario.wire != Wire::Plain).then(|| self.certificate.der.clone()),
            path: scenario.path.to_owned(),
            cookies,
            upload: scenario.upload,
            fresh: scenario.fresh,
            at_once: 0,
            slice: std::time::Duration::ZERO,
        };
        Some((place, order))
    }
}

fn start_upstream() -> (Process, Place) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .arg("serve-upstream")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let place = Place {
        addr: line.trim().parse().unwrap(),
        pid: child.id(),
    };
    (Process(child), place)
}

const EMAIL: &str = "ada@example.com";
const PASSWORD: &str = "correct horse battery staple";
const SECRET: &str = "a secret that only this benchmark uses, and only here";

/// Runs a gateway by a command line.
fn start_gateway(
    folder: &TempDir,
    postgres: &Cluster,
    upstream: SocketAddr,
    (certificate, line): (Option<&Certificate>, &[String]),
) -> (Process, Place) {
    let (addr, admin, nowhere) = (http::free_addr(), http::free_addr(), http::free_addr());
    let database = postgres.url("postgres");
    let (name, scheme, tls) = match certificate {
        None => ("plain", "http", String::new()),
        Some(Certificate { pem, key, .. }) => {
            let (certificate, key) = (pem.display(), key.display());
            let tls = format!("[server.tls]\ncertificate = \"{certificate}\"\nkey = \"{key}\"");
            ("tls", "https", tls)
        }
    };
    let config = folder.path().join(format!("{name}.toml"));
    let text = format!(
        r#"
        [server]
        listen = "{addr}"
        public_url = "{scheme}://localhost"
        drain_delay = "0s"
        {tls}
        [admin]
        listen = "{admin}"
        [log]
        level = "warn"
        [database]
        url = "{database}"
        [auth]
        secret = "{SECRET}"
        [auth.session.cache]
        ttl = "1h"
        capacity = 10000
        [mail]
        from = "Bench <bench@example.com>"
        smtp = "smtp://{nowhere}"
        [auth.session]
        max_per_user = 0
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
    let child = Command::new(&line[0])
        .args(&line[1..])
        .args(["serve", "--config"])
        .arg(&config)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let process = Process(child);
    http::wait_for(addr, "the gateway");
    let pid = process.0.id();
    (process, Place { addr, pid })
}

/// A user who is signed in at the gateway, and [`sessions::COUNT`] sessions of theirs.
fn sign_in(addr: SocketAddr, postgres: &Cluster) -> (String, Cookie) {
    let credentials = serde_json::json!({ "name": "Ada", "email": EMAIL, "password": PASSWORD }).to_string();
    let sign_up = http::call(addr, "POST /api/auth/sign-up/email", &[], &credentials);
    assert_eq!(sign_up.status, 200, "{}", sign_up.body);
    prepare_by_hand(&postgres.url("postgres"));
    let sign_in = http::call(addr, "POST /api/auth/sign-in/email", &[], &credentials);
    assert_eq!(sign_in.status, 200, "{}", sign_in.body);
    let cookie = sign_in.head.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        let (cookie, value) = value.split(';').next()?.split_once('=')?;
        (name.eq_ignore_ascii_case("set-cookie") && cookie.contains("session_token")).then(|| Cookie {
            name: cookie.to_owned(),
            value: value.to_owned(),
        })
    });
    let user: serde_json::Value = serde_json::from_str(&sign_in.body).unwrap();
    let id = user["user"]["id"].as_str().unwrap().to_owned();
    (id, cookie.expect("a session cookie"))
}

/// Nobody reads mail here: the address is marked as verified, and the mail that waits for its server is dropped.
fn prepare_by_hand(database: &str) {
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
        let count = i64::try_from(sessions::COUNT).unwrap();
        client.execute(sessions::INSERT, &[&count]).await.unwrap();
        client.batch_execute("VACUUM ANALYZE auth.user_sessions").await.unwrap();
        drop(client);
        driving.await.unwrap().unwrap();
    });
}
