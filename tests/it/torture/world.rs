//! Three gateways, each with a way of its own to one Postgres, an application behind them, and all who are signed in.

use std::{
    collections::VecDeque,
    path::PathBuf,
    process::Stdio,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tempfile::TempDir;
use tokio::{
    process::{Child, Command},
    sync::RwLock,
    time::{Instant, sleep},
};
use tokio_util::task::TaskTracker;
use vestibule::dev::postgres::Cluster;

use super::{
    chance::Chance,
    door::{Door, Reply},
    oracle::{Oracle, Right, Session, Verdict},
    upstream::Upstream,
};
use crate::harness::{
    Database, SOON, Setup, eventually,
    gateway::SITE,
    mailbox::Mailbox,
    people::PASSWORD,
    program::{self, free_port},
    relay::Relay,
};

/// Sessions that ended are shown for so long, longer than any cache holds on to them.
const SHOWN_FOR: Duration = Duration::from_secs(12);
const SHOWN: usize = 5_000;

/// The address of the user that all others are copies of.
pub(super) const PATTERN: &str = "pattern@example.com";

pub(super) struct World {
    pub(super) oracle: Oracle,
    pub(super) gates: Vec<Gate>,
    pub(super) db: Database,
    pub(super) until: Instant,
    /// From then on there are no more faults: what is not heard in calm is not heard.
    pub(super) calm_from: Instant,
    pub(super) people: AtomicUsize,
    /// Held by whoever signs somebody in or ends a session; alone by whoever ends all there are.
    pub(super) peace: RwLock<()>,
    /// Those who watch a session that has just ended.
    pub(super) watchers: TaskTracker,
    /// For commands.
    pub(super) config: PathBuf,
    pub(super) folder: TempDir,
    shown: Mutex<Shown>,
    _upstream: Upstream,
    _mailbox: Mailbox,
    _cluster: Cluster,
}

#[derive(Default)]
struct Shown {
    live: Vec<Arc<Session>>,
    ended: VecDeque<(Instant, Arc<Session>)>,
}

/// A gateway.
pub(super) struct Gate {
    pub(super) door: Door,
    admin: Door,
    pub(super) relay: Relay,
    pub(super) ttl: Duration,
    calm: Mutex<Calm>,
    _process: Child,
}

struct Calm {
    /// Faults that are in its way to Postgres.
    disturbed: usize,
    since: Instant,
}

impl World {
    /// `lasts` begins when all gateways hear.
    pub(super) async fn start(ttls: [Duration; 3], lasts: Duration, calm: Duration) -> Arc<Self> {
        let cluster = tokio::task::spawn_blocking(Cluster::temporary).await.unwrap();
        let cluster = cluster.unwrap_or_else(|error| panic!("this test needs a Postgres of its own: {error}"));
        // It will be killed, and must not forget what it has acknowledged.
        Database::at(&cluster.url("postgres"))
            .run("ALTER ROLE vestibule SET synchronous_commit = on")
            .await;
        Database::at(&cluster.url("postgres"))
            .run("CREATE DATABASE torture")
            .await;
        let db = Database::at(&cluster.url("torture"));
        let (upstream, mailbox) = (Upstream::start().await, Mailbox::start().await);
        let folder = tempfile::tempdir().unwrap();
        let mut gates = Vec::new();
        for (number, ttl) in ttls.into_iter().enumerate() {
            gates.push(Gate::start(number, ttl, &db, &mailbox, &upstream, &folder).await);
        }
        let config = folder.path().join("desk.toml");
        std::fs::write(&config, Setup::default().text(&db, mailbox.addr(), upstream.addr)).unwrap();

        let body = serde_json::json!({ "name": "A Pattern", "email": PATTERN, "password": PASSWORD });
        let signed_up = gates[0].door.once(&post("sign-up/email", None, &body)).await.unwrap();
        assert_eq!(signed_up.status(), 200, "{}", signed_up.body);
        // A crash of the operating system is not among the faults, and a checkpoint in the midst of all is no fault either.
        Arc::new(Self {
            oracle: Oracle::new(ttls.map(|ttl| ttl + Duration::from_millis(100))),
            gates,
            db,
            until: Instant::now() + lasts,
            calm_from: Instant::now() + lasts.saturating_sub(calm),
            people: AtomicUsize::new(0),
            peace: RwLock::default(),
            watchers: TaskTracker::new(),
            config,
            folder,
            shown: Mutex::default(),
            _upstream: upstream,
            _mailbox: mailbox,
            _cluster: cluster,
        })
    }

    pub(super) fn is_over(&self) -> bool {
        Instant::now() >= self.until
    }

    pub(super) fn is_calm_for_good(&self) -> bool {
        Instant::now() >= self.calm_from
    }

    /// Sleeps, but not past the end.
    pub(super) async fn pause(&self, pause: Duration) {
        sleep(pause.min(self.until.saturating_duration_since(Instant::now()))).await;
    }

    pub(super) fn number(&self) -> usize {
        self.people.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn is_shown(&self, session: &Arc<Session>) {
        self.shown.lock().unwrap().live.push(Arc::clone(session));
    }

    /// It has ended, or nobody knows.
    pub(super) fn has_ended(&self, session: &Arc<Session>) {
        let mut shown = self.shown.lock().unwrap();
        shown.live.retain(|live| !Arc::ptr_eq(live, session));
        let now = Instant::now();
        shown.ended.push_back((now, Arc::clone(session)));
        while shown.ended.len() > SHOWN || shown.ended.front().is_some_and(|(at, _)| now - *at > SHOWN_FOR) {
            shown.ended.pop_front();
        }
    }

    /// A session to be shown: seldom one that has ended.
    pub(super) fn any(&self, chance: &mut Chance) -> Option<Arc<Session>> {
        let shown = self.shown.lock().unwrap();
        if !shown.ended.is_empty() && (shown.live.is_empty() || chance.one_in(8)) {
            return Some(Arc::clone(&shown.ended[chance.below(shown.ended.len())].1));
        }
        (!shown.live.is_empty()).then(|| Arc::clone(chance.of(&shown.live)))
    }

    pub(super) fn live(&self) -> Vec<Arc<Session>> {
        self.shown.lock().unwrap().live.clone()
    }

    pub(super) fn ended(&self) -> Vec<Arc<Session>> {
        let shown = self.shown.lock().unwrap();
        shown.ended.iter().map(|(_, session)| Arc::clone(session)).collect()
    }

    /// Shows a session to a gateway and has the answer judged; when that began. `None`: there was no answer.
    pub(super) async fn show(&self, session: &Session, right: Right, gateway: usize) -> Option<(Instant, Verdict)> {
        let path = match right {
            Right::Anything => "/api/x",
            Right::Admin => "/admin/x",
        };
        let reply = match self.gates[gateway].door.get(&get(path, &session.cookie)).await {
            Ok(reply) => reply,
            Err(error) => {
                self.finds(format!("gateway {gateway} did not answer: {error}"));
                return None;
            }
        };
        let verdict = match (reply.status(), right) {
            (200, _) => Verdict::Passed,
            (401, _) | (403, Right::Admin) => Verdict::Refused,
            (503, _) => Verdict::Unavailable,
            (other, _) => {
                self.finds(format!("gateway {gateway} answered {other}: {}", reply.body));
                return None;
            }
        };
        if verdict == Verdict::Passed && reply.body != session.user {
            self.finds(format!("gateway {gateway} took {} for {}", session.user, reply.body));
        }
        self.oracle.judge(session, right, gateway, reply.began, verdict);
        Some((reply.began, verdict))
    }

    pub(super) fn finds(&self, what: String) {
        self.oracle.tally().finds(what);
    }
}

impl Gate {
    async fn start(
        number: usize,
        ttl: Duration,
        db: &Database,
        mailbox: &Mailbox,
        upstream: &Upstream,
        folder: &TempDir,
    ) -> Self {
        let (relay, relayed) = Relay::before(db).await;
        let (public, admin) = (free_port(), free_port());
        let over = format!(
            "[server]\nlisten = '127.0.0.1:{public}'\n[admin]\nlisten = '127.0.0.1:{admin}'\n[log]\nlevel = 'warn'\n\
             [database]\npool_size = 12\n[auth.session]\nmax_per_user = {}\n\
             [auth.session.cache]\nttl = '{}ms'\n[auth.password]\nqueue = 1024",
            super::people::MOST_SESSIONS,
            ttl.as_millis(),
        );
        let text = Setup::default()
            .with(&over)
            .text(&relayed, mailbox.addr(), upstream.addr);
        let config = folder.path().join(format!("gateway-{number}.toml"));
        std::fs::write(&config, text).unwrap();
        let said = std::fs::File::create(folder.path().join(format!("gateway-{number}.log"))).unwrap();
        // Its access log is long, and told here by the requests themselves.
        let process = Command::new(program::path())
            .args(["serve", "--config"])
            .arg(config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(said)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let gate = Self {
            door: Door::new(([127, 0, 0, 1], public).into()),
            admin: Door::new(([127, 0, 0, 1], admin).into()),
            relay,
            ttl,
            calm: Mutex::new(Calm {
                disturbed: 0,
                since: Instant::now(),
            }),
            _process: process,
        };
        eventually(SOON * 4, async || gate.hears().await).await;
        gate
    }

    /// Whether it says that it hears of revocations.
    pub(super) async fn hears(&self) -> bool {
        let asked = "GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n";
        let ready: Option<Reply> = self.admin.get(asked).await.ok();
        ready.is_some_and(|ready| ready.status() == 200 && !ready.body.contains("degraded"))
    }

    /// A number of its metrics.
    pub(super) async fn metric(&self, name: &str) -> f64 {
        let asked = "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n";
        let Ok(metrics) = self.admin.get(asked).await else {
            return f64::NAN;
        };
        let mut lines = metrics.body.lines();
        let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.and_then(|value| value.parse().ok()).unwrap_or(f64::NAN)
    }

    /// A fault is about to be in its way.
    pub(super) fn is_disturbed(&self) {
        self.calm.lock().unwrap().disturbed += 1;
    }

    /// It is over, and the gateway hears again.
    pub(super) fn is_calm_again(&self) {
        let mut calm = self.calm.lock().unwrap();
        calm.disturbed -= 1;
        calm.since = Instant::now();
    }

    /// Since when no fault has been in its way, if none is.
    pub(super) fn calm_since(&self) -> Option<Instant> {
        let calm = self.calm.lock().unwrap();
        (calm.disturbed == 0).then_some(calm.since)
    }

    /// Whether no fault was in its way from `since` until now.
    pub(super) fn was_calm(&self, since: Instant) -> bool {
        self.calm_since().is_some_and(|calm| calm <= since)
    }
}

fn host() -> &'static str {
    SITE.split_once("://").unwrap().1
}

pub(super) fn get(path: &str, cookie: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: {}\r\nCookie: {cookie}\r\n\r\n", host())
}

/// To the auth API, as a browser with this cookie.
pub(super) fn post(path: &str, cookie: Option<&str>, body: &serde_json::Value) -> String {
    let body = body.to_string();
    let cookie = cookie.map(|cookie| format!("Cookie: {cookie}\r\n")).unwrap_or_default();
    format!(
        "POST /api/auth/{path} HTTP/1.1\r\nHost: {}\r\nOrigin: {SITE}\r\n{cookie}Content-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        host(),
        body.len()
    )
}
