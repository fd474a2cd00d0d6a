//! The gateway under test: the real `App` in this process, on real sockets.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, LazyLock, Mutex},
};

use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;
use toml::{Table, Value};
use vestibule::{
    app::{
        self, Ended, Options, Running,
        activation::Passed,
        reload::{ReloadError, Reloaded},
    },
    clock::{Clock, Timestamp},
    config,
    session::Sessions,
};

use super::{
    Database, RawClient, SOON,
    canary::{self, Left, Watch},
    client::Call,
    eventually,
    mailbox::Mailbox,
    upstream::Upstream,
};

/// What browsers see in their address bar.
pub(crate) const SITE: &str = "https://app.example.com";

/// 2026-11-21T08:00:00Z: where the clock of every test begins.
pub(crate) const START: Timestamp = Timestamp::from_secs(1_795_248_000);

/// The routes that threat-cases.md speaks of.
const BASE: &str = r#"
[server]
listen = "127.0.0.1:0"
public_url = "https://app.example.com"
workers = 1
drain_delay = "0s"
shutdown_grace = "2s"

[admin]
listen = "127.0.0.1:0"

[database]
pool_size = 4

[auth]
secret = "a secret that only the tests use, and only here"
[auth.password]
argon2 = { memory = "64KiB", iterations = 1, parallelism = 1 }
max_concurrent = 1
[auth.rate_limit]
enabled = false

[log]
level = "trace"

[mail]
from = "Example <no-reply@example.com>"

[[routes]]
path = "/public/*"
upstream = "app"
auth = "public"

[[routes]]
path = "/optional/*"
upstream = "app"
auth = "optional"

[[routes]]
path = "/api/*"
upstream = "app"

[[routes]]
path = "/app/*"
upstream = "app"
on_denied = "auto"

[[routes]]
path = "/admin/*"
upstream = "app"
require = { roles = ["admin"] }
"#;

/// A whole configuration, of a gateway that is not started.
pub(crate) fn whole_text() -> String {
    let mut config: Table = BASE.parse().unwrap();
    let surroundings = "[database]\nurl = 'postgres://localhost/none'\n[mail]\nsmtp = 'smtp://localhost'\n\
                        [upstreams.app]\nendpoints = ['http://localhost']\n";
    lay_over(&mut config, surroundings.parse().unwrap());
    config.to_string()
}

/// Cold work of all gateways: theirs must not wait for a test that computes, nor the test for them.
static COLD: LazyLock<Runtime> = LazyLock::new(|| {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder
        .worker_threads(2)
        .thread_name("cold")
        .enable_all()
        .build()
        .unwrap()
});

/// How a gateway is to differ from the usual one.
#[derive(Default)]
pub(crate) struct Setup {
    /// Laid over the usual configuration.
    over: Table,
    clock: Option<Clock>,
}

impl Setup {
    /// Lays `toml` over the configuration: tables are merged, everything else is replaced.
    pub(crate) fn with(mut self, toml: &str) -> Self {
        lay_over(&mut self.over, toml.parse().unwrap());
        self
    }

    /// Forwards to these endpoints rather than to its own upstream; what `more` says is of the upstream, too. One
    /// worker, so that its connections can be counted.
    pub(crate) fn endpoints(self, endpoints: &[String], more: &str) -> Self {
        self.with(&format!(
            "[server]\nworkers = 1\n[upstreams.app]\nendpoints = {endpoints:?}\n{more}\n"
        ))
    }

    /// Goes by another gateway's clock.
    pub(crate) fn clock(mut self, clock: &Clock) -> Self {
        self.clock = Some(clock.clone());
        self
    }

    /// On a database of its own.
    pub(crate) async fn start(self) -> Gateway {
        let db = Database::fresh().await;
        self.start_on(&db).await
    }

    /// The text of a `gateway.toml`.
    pub(crate) fn text(&self, db: &Database, mailbox: SocketAddr, upstream: SocketAddr) -> String {
        let mut config: Table = BASE.parse().unwrap();
        let surroundings = format!(
            "[database]\nurl = '{}'\n[mail]\nsmtp = 'smtp://{mailbox}'\n[upstreams.app]\nendpoints = ['http://{upstream}']\n",
            db.url(),
        );
        lay_over(&mut config, surroundings.parse().unwrap());
        lay_over(&mut config, self.over.clone());
        config.to_string()
    }

    pub(crate) async fn start_on(self, db: &Database) -> Gateway {
        canary::listen();
        let upstream = Upstream::start().await;
        let mailbox = Mailbox::start().await;
        let text = self.text(db, mailbox.addr(), upstream.addr());
        let config =
            config::parse(&text, "gateway.toml", &|_| None).unwrap_or_else(|errors| panic!("{errors}\n{text}"));
        let site = config.server.public_url.as_str().to_owned();
        let config_secrets = config.auth.secret.clone();
        let clock = self.clock.unwrap_or_else(|| Clock::manual(START));
        let log = AccessLog::default();
        let options = Options {
            clock: clock.clone(),
            cold: COLD.handle().clone(),
            access_log: Box::new(log.clone()),
            cancel: CancellationToken::new(),
            passed: Passed::nothing(),
        };
        let starting = COLD.spawn(app::start(config, options));
        let running = starting.await.unwrap().unwrap_or_else(|error| panic!("{error:#}"));
        for secret in &config_secrets {
            canary::secret("auth.secret", secret.expose().as_str());
        }
        let (database, kept) = (db.url().to_owned(), log.clone());
        let left = Left {
            admin: running.admin_addr(),
            database,
            access_log: Box::new(move || kept.text()),
        };
        Gateway {
            _watch: Watch { gateway: Some(left) },
            running,
            text,
            site,
            log,
            upstream,
            mailbox,
            clock,
            db: db.clone(),
        }
    }
}

/// Lays `over` on `base`: tables are merged, everything else is replaced.
pub(crate) fn lay_over(base: &mut Table, over: Table) {
    for (key, value) in over {
        match (base.get_mut(&key), value) {
            (Some(Value::Table(base)), Value::Table(over)) => lay_over(base, over),
            (_, value) => {
                base.insert(key, value);
            }
        }
    }
}

/// What a gateway writes, kept.
#[derive(Clone, Default)]
struct AccessLog(Arc<Mutex<Vec<u8>>>);

impl AccessLog {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl io::Write for AccessLog {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

pub(crate) struct Gateway {
    /// Dropped first: it asks the gateway for its metrics.
    _watch: Watch,
    running: Running,
    /// Its configuration.
    text: String,
    site: String,
    log: AccessLog,
    upstream: Upstream,
    mailbox: Mailbox,
    clock: Clock,
    db: Database,
}

impl Gateway {
    /// The usual one.
    pub(crate) async fn start() -> Self {
        Setup::default().start().await
    }

    /// The usual one, beside others on the same database.
    pub(crate) async fn on(db: &Database) -> Self {
        Setup::default().start_on(db).await
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.running.public_addr()
    }

    /// All addresses that it listens on, in the order of the configuration; those that redirect come last.
    pub(crate) fn addrs(&self) -> Vec<SocketAddr> {
        self.running.public_addrs().iter().map(|(addr, _)| *addr).collect()
    }

    pub(crate) fn admin(&self) -> SocketAddr {
        self.running.admin_addr()
    }

    /// What it says of itself where it is not all that it could be; nothing if revocations are heard.
    pub(crate) async fn degraded(&self) -> String {
        let ready = self.admin_get("/readyz").await.json();
        ready["degraded"].as_str().unwrap_or_default().to_owned()
    }

    /// Waits until revocations are heard.
    pub(crate) async fn hears(&self) {
        eventually(SOON, async || self.degraded().await.is_empty()).await;
    }

    /// Asks the admin listener.
    pub(crate) fn admin_get(&self, target: &str) -> Call {
        Call::new(self.admin(), "http://localhost", "GET", target).undescribed()
    }

    /// A number of the metrics; `name` with its labels, as it stands there.
    pub(crate) async fn metric(&self, name: &str) -> f64 {
        let metrics = self.admin_get("/metrics").await;
        let value = metrics
            .text()
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value
            .unwrap_or_else(|| panic!("no {name} in\n{}", metrics.text()))
            .parse()
            .unwrap()
    }

    pub(crate) const fn sessions(&self) -> &Arc<Sessions> {
        self.running.sessions()
    }

    pub(crate) const fn upstream(&self) -> &Upstream {
        &self.upstream
    }

    pub(crate) const fn mailbox(&self) -> &Mailbox {
        &self.mailbox
    }

    pub(crate) const fn clock(&self) -> &Clock {
        &self.clock
    }

    pub(crate) const fn db(&self) -> &Database {
        &self.db
    }

    /// The access log so far; a line may come a moment after its answer.
    pub(crate) fn log(&self) -> String {
        self.log.text()
    }

    /// The name of the cookie that holds a session.
    pub(crate) fn session_cookie(&self) -> &'static str {
        if self.site.starts_with("https:") {
            "__Host-vestibule.session_token"
        } else {
            "vestibule.session_token"
        }
    }

    /// What browsers see in their address bar.
    pub(crate) fn site(&self) -> &str {
        &self.site
    }

    /// What a `Host` field says.
    pub(crate) fn host(&self) -> &str {
        self.site.split_once("://").unwrap().1
    }

    pub(crate) fn call(&self, method: &str, target: &str) -> Call {
        Call::new(self.addr(), &self.site, method, target)
    }

    pub(crate) fn get(&self, target: &str) -> Call {
        self.call("GET", target)
    }

    pub(crate) fn post(&self, target: &str) -> Call {
        self.call("POST", target)
    }

    /// Follows a link of a mail, as a browser without cookies.
    pub(crate) fn open(&self, link: &str) -> Call {
        let target = link
            .strip_prefix(&self.site)
            .unwrap_or_else(|| panic!("{link} leads away from {}", self.site));
        self.get(target)
    }

    /// A connection to write bytes to.
    pub(crate) async fn raw(&self) -> RawClient {
        RawClient::connect(self.addr()).await
    }

    /// Has it go by what it was started with, and `toml` laid over that.
    pub(crate) async fn reload(&self, toml: &str) -> Result<Reloaded, ReloadError> {
        let mut config: Table = self.text.parse().unwrap();
        lay_over(&mut config, toml.parse().unwrap());
        let text = config.to_string();
        let reloader = Arc::clone(self.running.reloader());
        let reloading = async move { reloader.reload(|| config::parse(&text, "gateway.toml", &|_| None)) };
        COLD.spawn(reloading).await.unwrap()
    }

    /// Stops in order; all lines of its access log.
    pub(crate) async fn last_words(self) -> String {
        let log = self.log.clone();
        self.running.stop(CancellationToken::new()).await;
        log.text()
    }

    /// Stops in order. Its upstream and its mailbox go on until then.
    pub(crate) async fn stop(self) -> Ended {
        self.running.stop(CancellationToken::new()).await
    }
}
