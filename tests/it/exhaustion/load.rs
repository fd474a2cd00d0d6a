//! How long somebody ordinary waits while others attack: `make attack-load` prints it as a table, quiet and under each
//! attack. It wants the machine for itself, so it is no part of the suite, and asserts that everybody was answered and
//! what was held, not how long it took.
//!
//! The attackers have a thread of their own, and so has whoever is measured; on a machine with two cores all of it, the
//! gateway, the application and Postgres share them. So attackers pace themselves: what is measured is what an attack
//! costs others, not who gets the processor. A crowd is looked at once all of it is there; what it costs that somebody
//! comes is an attack of its own. Such a machine is faster in one minute than in the next: an attack is
//! compared with the quiet right before it and right after it, three times (`VESTIBULE_TEST_ROUNDS`), and the round between
//! the other two is printed. `VESTIBULE_TEST_ATTACK` names one attack, to look at it alone.

#![cfg(target_os = "linux")]
#![expect(clippy::print_stdout, reason = "what was measured is what it is for")]

use std::{
    fmt, fs,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::json;
use tokio::{
    io::AsyncWriteExt,
    net::{TcpSocket, TcpStream},
    runtime::Builder,
    time::sleep,
};

use super::{
    frames::{self, DATA, END_HEADERS, Frames, HEADERS, PING, SETTINGS},
    get,
};
use crate::{
    harness::{
        Database, RawClient, Setup, eventually, gateway::SITE, mailbox::Mailbox, people::PASSWORD, program::Program,
        upstream::Upstream,
    },
    memory::{MIB, resident},
};

/// Each attack goes on for so long.
const PHASE: Duration = Duration::from_secs(8);
/// Until it is under way, and the gateway at rest again.
const SETTLE: Duration = Duration::from_secs(2);
/// Longer than it takes.
const A_CROWD_COMES: Duration = Duration::from_mins(1);
/// What is measured asks so often on each of its connections.
const EVERY: Duration = Duration::from_millis(5);
const CONNECTIONS: usize = 4;
/// The largest answer of any attack makes the gateway hold no more.
const MOST_MEMORY: usize = 700 * MIB;

/// How many connections a crowd has.
fn crowd() -> usize {
    number("VESTIBULE_TEST_CROWD", 2_000)
}

fn number(variable: &str, otherwise: usize) -> usize {
    std::env::var(variable).map_or(otherwise, |text| text.parse().expect("a number"))
}

type Attack = Pin<Box<dyn Future<Output = ()>>>;

/// What attackers go by.
#[derive(Clone)]
struct Target {
    addr: SocketAddr,
    over: Arc<AtomicBool>,
    /// Not all are there yet.
    gathers: Arc<AtomicBool>,
}

impl Target {
    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }
}

/// Repeats something until it is over, with a pause.
async fn repeat(target: Target, pause: Duration, once: impl AsyncFn(SocketAddr)) {
    while !target.is_over() {
        once(target.addr).await;
        sleep(pause).await;
    }
}

/// A connection of HTTP/2 that repeats `frames`, however often it is closed.
async fn flood(target: Target, begin: Vec<u8>, repeated: Vec<u8>) {
    repeat(target.clone(), Duration::from_millis(20), async |addr| {
        let client = Frames::connect(addr).await;
        let (mut reading, mut writing) = client.stream.into_split();
        let drain = tokio::task::spawn_local(async move {
            let _ = tokio::io::copy(&mut reading, &mut tokio::io::sink()).await;
        });
        let _ = writing.write_all(&begin).await;
        while !repeated.is_empty() && !target.is_over() && writing.write_all(&repeated).await.is_ok() {
            sleep(Duration::from_millis(1)).await;
        }
        drain.abort();
    })
    .await;
}

async fn idle(target: Target, http2: bool) {
    target.gathers.store(true, Ordering::Relaxed);
    let mut crowd_of = Vec::new();
    while !target.is_over() && crowd_of.len() < crowd() {
        let mut stream = TcpStream::connect(target.addr).await.unwrap();
        if !http2 {
            stream.write_all(get("/public/x").as_bytes()).await.unwrap();
        }
        crowd_of.push(stream);
        if crowd_of.len().is_multiple_of(2) {
            sleep(Duration::from_millis(1)).await;
        }
    }
    target.gathers.store(false, Ordering::Relaxed);
    while !target.is_over() {
        sleep(Duration::from_millis(10)).await;
    }
}

async fn slow_heads(target: Target) {
    let mut clients: Vec<TcpStream> = Vec::new();
    while !target.is_over() {
        let mut at = 0;
        while at < 500 && !target.is_over() {
            if let Some(stream) = clients.get_mut(at) {
                if stream.write_all(b"x").await.is_ok() {
                    at += 1;
                } else {
                    clients.swap_remove(at);
                }
            } else {
                let mut stream = TcpStream::connect(target.addr).await.unwrap();
                let _ = stream
                    .write_all(b"GET /public/x HTTP/1.1\r\nHost: app.example.com\r\nX: ")
                    .await;
                clients.push(stream);
            }
        }
        sleep(Duration::from_millis(500)).await;
    }
}

/// Requests on a connection that is kept.
async fn ask(target: Target, at_once: usize, request: impl Fn(usize) -> String) {
    let asking = (0..at_once).map(|client| {
        let (target, request) = (target.clone(), &request);
        async move {
            let mut number = client * 1_000_000;
            let mut connection = RawClient::connect(target.addr).await;
            while !target.is_over() {
                connection.send(request(number)).await;
                connection.answer().await;
                number += 1;
                sleep(Duration::from_millis(1)).await;
            }
        }
    });
    futures_util::future::join_all(asking).await;
}

/// Signs in from as many addresses as it takes for all of it to be hashed.
async fn passwords(target: Target, at_once: usize) {
    let asking = (0..at_once).map(|client| {
        let target = target.clone();
        async move {
            let mut number = client;
            while !target.is_over() {
                let [.., c, d] = number.to_be_bytes();
                let socket = TcpSocket::new_v4().unwrap();
                socket.bind(([127, 1, c, d], 0).into()).unwrap();
                let stream = socket.connect(target.addr).await.unwrap();
                let mut connection = RawClient::of(stream);
                connection.send(sign_in(number)).await;
                connection.answer().await;
                number += at_once;
            }
        }
    });
    futures_util::future::join_all(asking).await;
}

/// Somebody who doesn't exist.
fn sign_in(number: usize) -> String {
    let body = json!({ "email": format!("u{number}@example.com"), "password": PASSWORD }).to_string();
    format!(
        "POST /api/auth/sign-in/email HTTP/1.1\r\nHost: app.example.com\r\nOrigin: {SITE}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// What it is called, and how it begins.
type Named = (&'static str, fn(Target) -> Attack);

fn attacks() -> Vec<Named> {
    vec![
        ("500 slow heads", |target| Box::pin(slow_heads(target))),
        ("idle connections", |target| Box::pin(idle(target, false))),
        ("silent connections", |target| Box::pin(idle(target, true))),
        ("rapid reset, at once", |target| {
            let pair = |number: u32| [frames::get(1 + 2 * number, "/public/x"), frames::reset(1 + 2 * number)].concat();
            let all: Vec<u8> = (0..10_000).flat_map(pair).collect();
            Box::pin(flood(target, all, Vec::new()))
        }),
        ("rapid reset, once begun", |target| {
            Box::pin(repeat(target, Duration::from_millis(1), async |addr| {
                let mut client = Frames::connect(addr).await;
                for number in 0..5_000_u32 {
                    if !client.send(frames::get(1 + 2 * number, "/public/x")).await {
                        return;
                    }
                    if number % 20 == 19 {
                        sleep(Duration::from_millis(1)).await;
                        let taken_back = (number - 19..=number).flat_map(|number| frames::reset(1 + 2 * number));
                        client.send(taken_back.collect::<Vec<u8>>()).await;
                    }
                }
            }))
        }),
        ("endless CONTINUATION", |target| {
            let head = frames::block(&frames::fields("GET", "/public/x"));
            let begin = frames::frame(HEADERS, 0, 1, &head);
            let more = frames::frame(frames::CONTINUATION, 0, 1, &[]).repeat(1_000);
            Box::pin(flood(target, begin, more))
        }),
        ("PING", |target| {
            Box::pin(flood(
                target,
                Vec::new(),
                frames::frame(PING, 0, 0, b"a flood!").repeat(1_000),
            ))
        }),
        ("SETTINGS", |target| {
            Box::pin(flood(
                target,
                Vec::new(),
                frames::frame(SETTINGS, 0, 0, &[]).repeat(1_000),
            ))
        }),
        ("empty DATA", |target| {
            let begin = frames::post(1, "/public/x");
            Box::pin(flood(target, begin, frames::frame(DATA, 0, 1, &[]).repeat(1_000)))
        }),
        ("WINDOW_UPDATE", |target| {
            Box::pin(flood(target, Vec::new(), frames::more_room(0, 1).repeat(1_000)))
        }),
        ("HPACK bomb", |target| {
            let mut block = frames::block(&frames::fields("GET", "/public/x"));
            block.push(0x40);
            frames::string(&mut block, b"x-bomb");
            frames::string(&mut block, &[b'x'; 3_900]);
            block.resize(block.len() + 12_000, 0xbe);
            Box::pin(repeat(target, Duration::from_millis(2), async move |addr| {
                let mut client = Frames::connect(addr).await;
                client
                    .send(frames::frame(HEADERS, frames::END_STREAM | END_HEADERS, 1, &block))
                    .await;
                client.next().await;
            }))
        }),
        ("10,000 fields", |target| {
            let fields = super::heads::numbered(10_000);
            let request = format!("GET /public/x HTTP/1.1\r\nHost: app.example.com\r\n{fields}\r\n");
            Box::pin(repeat(target, Duration::from_millis(2), async move |addr| {
                let mut client = RawClient::connect(addr).await;
                client.send(&request).await;
                client.rest().await;
            }))
        }),
        ("junk cookies", |target| {
            Box::pin(ask(target, 8, |number| {
                let cookie = format!("__Host-vestibule.session_token=junk{number:039}.{}%3D", "A".repeat(43));
                format!("GET /api/me HTTP/1.1\r\nHost: app.example.com\r\nCookie: {cookie}\r\n\r\n")
            }))
        }),
        ("junk bearer tokens", |target| {
            Box::pin(ask(target, 8, |number| {
                let token = format!("Authorization: Bearer junk{number:039}");
                format!("GET /api/me HTTP/1.1\r\nHost: app.example.com\r\n{token}\r\n\r\n")
            }))
        }),
        ("passwords", |target| Box::pin(passwords(target, 64))),
        ("passwords, one address", |target| Box::pin(ask(target, 8, sign_in))),
        ("new connections", |target| {
            Box::pin(repeat(target, Duration::from_millis(1), async |addr| {
                let mut client = RawClient::connect(addr).await;
                client.send(get("/nothing")).await;
                client.answer().await;
            }))
        }),
    ]
}

/// What somebody ordinary saw.
#[derive(Default)]
struct Waited {
    /// Shortest first.
    took: Vec<Duration>,
    failed: usize,
}

impl Waited {
    fn add(&mut self, more: Self) {
        self.took.extend(more.took);
        self.took.sort_unstable();
        self.failed += more.failed;
    }

    fn at(&self, per_mille: usize) -> Duration {
        self.took
            .get(self.took.len() * per_mille / 1_000)
            .copied()
            .unwrap_or_default()
    }
}

/// An attack, looked at once.
struct Round {
    attacked: Waited,
    /// In the quiet before and after it, 99 of 100 took no longer.
    quiet: Duration,
    /// That the gateway used, of one.
    processors: f64,
    held: usize,
    queries: u64,
}

impl Round {
    fn ratio(&self) -> f64 {
        self.attacked.at(990).div_duration_f64(self.quiet)
    }
}

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let took = &self.attacked.took;
        write!(
            f,
            "{:>9} {:>9.1?} {:>9.1?} {:>9.1?} {:>9.1?} {:>7.2} {:>5.0}% {:>7} {:>8}",
            took.len(),
            self.attacked.at(500),
            self.attacked.at(990),
            took.last().copied().unwrap_or_default(),
            self.quiet,
            self.ratio(),
            100.0 * self.processors,
            self.held / MIB,
            self.queries,
        )
    }
}

/// Asks at its own times for as long as a phase lasts.
fn measure(addr: SocketAddr) -> Waited {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let until = Instant::now() + PHASE;
    let asking = async {
        let clients = (0..CONNECTIONS).map(|_| async {
            let mut waited = Waited::default();
            let mut client = RawClient::connect(addr).await;
            while Instant::now() < until {
                let asked = Instant::now();
                client.send(get("/public/control")).await;
                if client.answer().await.status() == 200 {
                    waited.took.push(asked.elapsed());
                } else {
                    waited.failed += 1;
                }
                sleep(EVERY.saturating_sub(asked.elapsed())).await;
            }
            waited
        });
        futures_util::future::join_all(clients).await
    };
    let mut all = Waited::default();
    for waited in runtime.block_on(asking) {
        all.add(waited);
    }
    all
}

/// Processor time that a process has used.
fn used(program: &Program) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{}/stat", program.id())).unwrap();
    let (_, fields) = stat.rsplit_once(')').unwrap();
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let ticks = |at: usize| fields[at].parse::<u64>().unwrap();
    // utime and stime, in hundredths of a second on every Linux that there is.
    Duration::from_millis(10 * (ticks(11) + ticks(12)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "wants the machine for itself: make attack-load"]
async fn somebody_ordinary_under_each_attack() {
    let (db, mailbox, upstream) = (Database::fresh().await, Mailbox::start().await, Upstream::start().await);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("gateway.toml");
    // As it is served: to say of each frame that it came costs more than the frame.
    let over = "[log]\nlevel = 'info'\n[server]\nworkers = 2\n\
                [auth.password]\nargon2 = { memory = '19MiB', iterations = 2, parallelism = 1 }\nmax_concurrent = 0\n\
                [auth.rate_limit]\nenabled = true";
    fs::write(
        &file,
        Setup::default().with(over).text(&db, mailbox.addr(), upstream.addr()),
    )
    .unwrap();
    let (program, addr, admin) = Program::serve(&file).await;
    let misses = async || {
        let metrics = crate::harness::client::Call::new(admin, "http://localhost", "GET", "/metrics")
            .undescribed()
            .await;
        let text = metrics.text().to_owned();
        let mut lines = text.lines();
        let line = lines.find_map(|line| line.strip_prefix("vestibule_session_cache_misses_total "));
        line.unwrap().parse::<u64>().unwrap()
    };
    println!(
        "{:<26} {:>9} {:>9} {:>9} {:>9} {:>9} {:>7} {:>6} {:>7} {:>8}",
        "attack", "requests", "p50", "p99", "longest", "quiet p99", "× p99", "CPU", "MiB", "queries"
    );
    let only = std::env::var("VESTIBULE_TEST_ATTACK").ok();
    let is_wanted = |name: &str| only.as_deref().is_none_or(|only| only == name);
    let ask = async || {
        let waited = tokio::task::spawn_blocking(move || measure(addr)).await.unwrap();
        assert_eq!(waited.failed, 0, "requests failed");
        waited
    };
    let mut quiet = ask().await;
    for (name, attack) in attacks().into_iter().filter(|(name, _)| is_wanted(name)) {
        let mut rounds = Vec::new();
        for _ in 0..number("VESTIBULE_TEST_ROUNDS", 3) {
            let over = Arc::<AtomicBool>::default();
            let target = Target {
                addr,
                over: Arc::clone(&over),
                gathers: Arc::default(),
            };
            let gathers = Arc::clone(&target.gathers);
            let (before, began, queries) = (used(&program), Instant::now(), misses().await);
            let attacking = thread::spawn(move || {
                let runtime = Builder::new_current_thread().enable_all().build().unwrap();
                tokio::task::LocalSet::new().block_on(&runtime, attack(target));
                // What it has left under way is dropped.
            });
            sleep(SETTLE).await;
            eventually(A_CROWD_COMES, async || !gathers.load(Ordering::Relaxed)).await;
            let attacked = ask().await;
            let held = resident(&program);
            over.store(true, Ordering::Relaxed);
            attacking.join().unwrap();
            let processors = used(&program).saturating_sub(before).div_duration_f64(began.elapsed());
            let queries = misses().await - queries;
            sleep(SETTLE).await;
            let after = ask().await;
            assert!(held < MOST_MEMORY, "{name}: {} MiB are held", held / MIB);
            rounds.push(Round {
                attacked,
                quiet: (quiet.at(990) + after.at(990)) / 2,
                processors,
                held,
                queries,
            });
            quiet = after;
        }
        rounds.sort_unstable_by(|a, b| a.ratio().total_cmp(&b.ratio()));
        println!("{name:<26} {}", rounds[rounds.len() / 2]);
    }
    println!("{:<26} {:>80} MiB at the end", "", resident(&program) / MIB);
}
