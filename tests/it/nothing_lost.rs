//! Whatever was acknowledged stays so: the gateway is killed, Postgres crashes, and the mail server is dead, silent or
//! refuses, in the midst of people's first days. Whoever heard nothing tries again, as people do, and gets there.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tokio::time::sleep;
use vestibule::dev::{postgres::Cluster, smtp::Verdict};

use crate::harness::{
    Database, Setup,
    client::{Call, Response},
    eventually,
    gateway::SITE,
    mailbox::{Mail, Mailbox},
    people::PASSWORD,
    program::Program,
    relay::Relay,
    upstream::Upstream,
};

const PEOPLE: usize = 120;

/// Who do something at the same time.
const AT_ONCE: usize = 12;

/// For whatever takes a few seconds on a machine that does nothing else.
const A_WHILE: Duration = Duration::from_mins(2);

const NEW_PASSWORD: &str = "a staple of new batteries";

/// What goes wrong.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// SIGKILL; another gateway starts.
    Gateway,
    /// SIGKILL for one of its processes, upon which Postgres throws away all that it had in memory, and recovers.
    Postgres,
    /// Mails are refused for now.
    Later,
    /// The connection ends when a mail was given: whether it was taken, nobody knows.
    HangUp,
    /// No answer comes.
    Stall,
    /// Nobody listens.
    Dead,
}

/// Everything twice, the worst together.
const FAULTS: [Fault; 12] = [
    Fault::Later,
    Fault::Gateway,
    Fault::HangUp,
    Fault::Postgres,
    Fault::Stall,
    Fault::Gateway,
    Fault::Postgres,
    Fault::Dead,
    Fault::Gateway,
    Fault::Later,
    Fault::HangUp,
    Fault::Postgres,
];

#[tokio::test]
async fn what_was_acknowledged_outlives_every_crash() {
    let mut world = World::begin().await;
    let people: Arc<[Person]> = (0..PEOPLE).map(Person::new).collect();

    world.through(&people, Act::SignUp).await;
    world.heal().await;
    let (db, mailbox) = (&world.db, &world.mailbox);
    assert_eq!(
        db.count("SELECT count(*) FROM users").await,
        i64::try_from(PEOPLE).unwrap()
    );
    assert_eq!(
        db.count("SELECT count(DISTINCT email) FROM users").await,
        i64::try_from(PEOPLE).unwrap()
    );
    for person in &*people {
        // A mail that was given away, while nobody wrote that down, comes again as the same mail.
        let mails = mailbox.to(&person.email);
        let ids: BTreeSet<&str> = mails.iter().map(Mail::message_id).collect();
        assert!(ids.len() <= person.tries(), "{}: {ids:?}", person.email);
        person.keep_links(&mails);
    }

    world.through(&people, Act::Verify).await;
    world.heal().await;
    let unverified = "SELECT count(*) FROM users WHERE NOT email_verified";
    assert_eq!(world.db.count(unverified).await, 0);

    world.through(&people, Act::AskForReset).await;
    world.heal().await;
    for person in &*people {
        let mut mails = world.mailbox.to(&person.email);
        mails.retain(Mail::resets);
        assert!(!mails.is_empty(), "{} was told of a mail", person.email);
        person.keep_links(&mails);
    }

    world.through(&people, Act::Reset).await;
    world.through(&people, Act::SignInAndOut).await;
    world.heal().await;
    let addr = world.gateway.addr();
    for person in &*people {
        let ([ended, lasting], email) = (person.sessions(), &person.email);
        assert_eq!(
            person.me(addr, &ended).await.unwrap().status(),
            401,
            "{email} signed out"
        );
        assert_eq!(
            person.me(addr, &lasting).await.unwrap().status(),
            200,
            "{email} signed in"
        );
    }
    // Passwords take long to check: of some.
    for person in people.iter().step_by(10) {
        let email = &person.email;
        assert_eq!(
            person.sign_in(addr, PASSWORD).await.unwrap().status(),
            401,
            "{email}: the old password"
        );
        assert_eq!(
            person.sign_in(addr, NEW_PASSWORD).await.unwrap().status(),
            200,
            "{email}: the new one"
        );
    }
    world.end().await;
}

/// What people do, each until it was acknowledged.
#[derive(Clone, Copy, Debug)]
enum Act {
    SignUp,
    Verify,
    AskForReset,
    Reset,
    /// Signs in twice, and out of one of the two.
    SignInAndOut,
}

struct Person {
    email: String,
    told: Mutex<Told>,
}

/// What somebody knows.
#[derive(Default)]
struct Told {
    /// Path and query, of every mail that may be meant: an older one may come last.
    links: Vec<String>,
    /// Whether an attempt at this act had no answer that says what came of it.
    is_unsure: bool,
    tries: usize,
    sessions: Vec<String>,
}

impl Person {
    fn new(number: usize) -> Self {
        Self {
            email: format!("person{number:03}@example.com"),
            told: Mutex::default(),
        }
    }

    fn tries(&self) -> usize {
        self.told.lock().unwrap().tries
    }

    fn keep_links(&self, mails: &[Mail]) {
        let links = mails.iter().map(|mail| {
            let link = mail.link();
            link.strip_prefix(SITE).expect("a link to the site").to_owned()
        });
        let mut told = self.told.lock().unwrap();
        told.links = links.collect();
        told.is_unsure = false;
    }

    fn sessions(&self) -> [String; 2] {
        let told = self.told.lock().unwrap();
        told.sessions.clone().try_into().expect("two sessions")
    }

    /// Whether it is done. `None`: nobody knows.
    async fn try_once(&self, act: Act, addr: SocketAddr) -> Option<bool> {
        self.told.lock().unwrap().tries += 1;
        let email = &self.email;
        let answer = match act {
            Act::SignUp => {
                let body = json!({ "name": "A Person", "email": email, "password": PASSWORD });
                post(addr, "sign-up/email", &body).await?
            }
            Act::AskForReset => post(addr, "request-password-reset", &json!({ "email": email })).await?,
            Act::Verify | Act::Reset => return self.try_links(act, addr).await,
            Act::SignInAndOut => return self.sign_in_and_out(addr).await,
        };
        Some(acknowledged(act, &answer))
    }

    /// One of the links has to work, unless one did whose answer got lost: what came of it is seen in the end.
    async fn try_links(&self, act: Act, addr: SocketAddr) -> Option<bool> {
        let links = self.told.lock().unwrap().links.clone();
        for link in links {
            let answer = if let Some((_, rest)) = link.split_once("/reset-password/") {
                let body = json!({ "token": rest.split('?').next(), "newPassword": NEW_PASSWORD });
                post(addr, "reset-password", &body).await
            } else {
                Call::new(addr, SITE, "GET", &link).attempt().await
            };
            match answer {
                Some(answer) if is_void(&answer) => {}
                Some(answer) if acknowledged(act, &answer) => return Some(true),
                _ => {
                    self.told.lock().unwrap().is_unsure = true;
                    return None;
                }
            }
        }
        assert!(self.told.lock().unwrap().is_unsure, "{}: no link works", self.email);
        Some(true)
    }

    async fn sign_in_and_out(&self, addr: SocketAddr) -> Option<bool> {
        while self.told.lock().unwrap().sessions.len() < 2 {
            let answer = self.sign_in(addr, NEW_PASSWORD).await?;
            if !acknowledged(Act::SignInAndOut, &answer) {
                return Some(false);
            }
            let token = answer.json()["token"].as_str().unwrap().to_owned();
            self.told.lock().unwrap().sessions.push(token);
        }
        let [ended, _] = self.sessions();
        let call = Call::new(addr, SITE, "POST", "/api/auth/sign-out").bearer(&ended);
        let answer = call.json(&json!({})).attempt().await?;
        if !acknowledged(Act::SignInAndOut, &answer) {
            return Some(false);
        }
        // Whatever happens to Postgres meanwhile: not here, not ever.
        if let Some(answer) = self.me(addr, &ended).await {
            assert!(
                matches!(answer.status(), 401 | 503),
                "{}: {}",
                self.email,
                answer.status()
            );
        }
        Some(true)
    }

    async fn sign_in(&self, addr: SocketAddr, password: &str) -> Option<Response> {
        post(
            addr,
            "sign-in/email",
            &json!({ "email": self.email, "password": password }),
        )
        .await
    }

    async fn me(&self, addr: SocketAddr, token: &str) -> Option<Response> {
        Call::new(addr, SITE, "GET", "/api/me").bearer(token).attempt().await
    }
}

async fn post(addr: SocketAddr, path: &str, body: &Value) -> Option<Response> {
    let call = Call::new(addr, SITE, "POST", &format!("/api/auth/{path}"));
    call.json(body).attempt().await
}

/// Whether the link is one that a newer one, or its use, has put out of force.
fn is_void(answer: &Response) -> bool {
    let target = answer.head.one("location").unwrap_or_default();
    target.contains("error=INVALID_TOKEN") || (answer.status() == 400 && answer.code() == "INVALID_TOKEN")
}

/// Yes, or not now; anything else is wrong.
fn acknowledged(act: Act, answer: &Response) -> bool {
    match answer.status() {
        200 => true,
        302 | 303 => {
            let target = answer.head.one("location").unwrap_or_default();
            assert!(!target.contains("error"), "{act:?}: {target}");
            true
        }
        503 => false,
        other => panic!("{act:?}: {other} {}", answer.text()),
    }
}

/// A database of the test's own server, people, what fails between them, and the gateway.
struct World {
    cluster: Cluster,
    db: Database,
    mailbox: Mailbox,
    /// The way to the mail server.
    post: Option<Relay>,
    post_addr: SocketAddr,
    upstream: Upstream,
    folder: tempfile::TempDir,
    program: Option<Program>,
    gateway: Running,
}

/// Where the gateway is just now.
#[derive(Clone)]
struct Running(Arc<Mutex<SocketAddr>>);

impl Running {
    fn addr(&self) -> SocketAddr {
        *self.0.lock().unwrap()
    }
}

impl World {
    async fn begin() -> Self {
        let cluster = tokio::task::spawn_blocking(Cluster::temporary).await.unwrap().unwrap();
        let url = cluster.url("postgres");
        // What is committed has left the memory of Postgres' processes, as everywhere but in the other tests.
        let db = Database::at(&url);
        let client = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
        let (client, connection) = client;
        tokio::spawn(connection);
        client
            .batch_execute("ALTER DATABASE postgres SET synchronous_commit = on")
            .await
            .unwrap();
        let (mailbox, upstream) = (Mailbox::start().await, Upstream::start().await);
        let post = Relay::start(0, mailbox.addr().to_string()).await;
        let folder = tempfile::tempdir().unwrap();
        let post_addr = post.addr();
        let setup = Setup::default().with("[database]\nacquire_timeout = '5s'\n[auth.password]\nqueue = 1024");
        let text = setup.text(&db, post_addr, upstream.addr());
        std::fs::write(folder.path().join("gateway.toml"), text).unwrap();
        let (program, addr, _) = Program::serve(&folder.path().join("gateway.toml")).await;
        Self {
            cluster,
            db,
            mailbox,
            post: Some(post),
            post_addr,
            upstream,
            folder,
            program: Some(program),
            gateway: Running(Arc::new(Mutex::new(addr))),
        }
    }

    /// Has everybody do something, while everything fails that may.
    async fn through(&mut self, people: &Arc<[Person]>, act: Act) {
        let (next, done) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let hands: Vec<_> = (0..AT_ONCE)
            .map(|_| {
                let (people, next, done) = (Arc::clone(people), Arc::clone(&next), Arc::clone(&done));
                let gateway = self.gateway.clone();
                tokio::spawn(async move {
                    while let Some(person) = people.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let deadline = Instant::now() + A_WHILE;
                        while person.try_once(act, gateway.addr()).await != Some(true) {
                            assert!(Instant::now() < deadline, "{act:?}: {} gets nowhere", person.email);
                            sleep(Duration::from_millis(5)).await;
                        }
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        for (number, fault) in FAULTS.into_iter().enumerate() {
            let due = PEOPLE * (number + 1) / (FAULTS.len() + 2);
            eventually(A_WHILE, async || {
                done.load(Ordering::Relaxed) >= due || hands.iter().any(tokio::task::JoinHandle::is_finished)
            })
            .await;
            self.suffer(fault).await;
        }
        for hand in hands {
            hand.await.unwrap();
        }
    }

    async fn suffer(&mut self, fault: Fault) {
        match fault {
            Fault::Gateway => self.restart().await,
            Fault::Postgres => {
                let victim = "SELECT pid::bigint FROM pg_stat_activity WHERE backend_type = 'walwriter'";
                let mut id = 0;
                // It may be recovering from the one before.
                eventually(A_WHILE, async || {
                    id = count(&self.db, victim).await.unwrap_or_default();
                    id > 0
                })
                .await;
                let killed = Command::new("kill").args(["-KILL", &id.to_string()]).output();
                killed.expect("kill runs");
            }
            Fault::Later => {
                let refusal = || Verdict::Refuse(451, "4.3.0 not now".to_owned());
                self.mailbox.will_say(std::iter::repeat_with(refusal).take(5));
            }
            Fault::HangUp => self
                .mailbox
                .will_say([Verdict::HangUp, Verdict::HangUp, Verdict::HangUp]),
            Fault::Stall => self.mailbox.will_say([Verdict::Stall, Verdict::Stall]),
            Fault::Dead => self.post = None,
        }
    }

    async fn restart(&mut self) {
        if let Some(program) = self.program.take() {
            program.kill().await;
        }
        let (program, addr, _) = Program::serve(&self.folder.path().join("gateway.toml")).await;
        self.program = Some(program);
        *self.gateway.0.lock().unwrap() = addr;
    }

    /// From here on all is well. What a dead gateway had in its hands, and what is to be tried later, is tried now.
    async fn heal(&mut self) {
        self.mailbox.will_say([]);
        if self.post.is_none() {
            let to = self.mailbox.addr().to_string();
            self.post = Some(Relay::start(self.post_addr.port(), to).await);
        }
        eventually(A_WHILE, async || count(&self.db, "SELECT 1::bigint").await.is_some()).await;
        // One that stalls holds its mails for as long as it waits.
        self.restart().await;
        self.db
            .run("UPDATE mail_outbox SET due_at = created_at WHERE sent_at IS NULL")
            .await;
        let unsent = "SELECT count(*) FROM mail_outbox WHERE sent_at IS NULL";
        eventually(A_WHILE, async || self.db.count(unsent).await == 0).await;
    }

    async fn end(mut self) {
        let program = self.program.take().unwrap();
        program.signal("TERM").await;
        assert_eq!(program.ended().await.code, Some(0));
        drop((self.upstream, self.cluster));
    }
}

/// `None`: Postgres is not there.
async fn count(db: &Database, sql: &str) -> Option<i64> {
    let (client, connection) = tokio_postgres::connect(db.url(), tokio_postgres::NoTls).await.ok()?;
    let asking = client.query_opt(sql, &[]);
    let row = tokio::select! {
        row = asking => row.ok()??,
        _ = connection => return None,
    };
    Some(row.get(0))
}
