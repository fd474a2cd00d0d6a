//! The bar for restarts and reloads: 2,000 requests a second on 500 open connections, and not one fails.
//!
//! It wants the machine for itself, so it is run by `make restart-load`. What it checks, `handover` checks smaller.

#![expect(clippy::print_stdout, reason = "what was measured is what it is for")]

use std::{
    fmt::Write as _,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncWriteExt, BufReader},
    net::TcpStream,
    task::JoinHandle,
    time::{Instant, sleep, sleep_until, timeout},
};

use crate::harness::{
    Database, Setup,
    gateway::SITE,
    mailbox::Mailbox,
    program::Program,
    upstream::Upstream,
    wire::{Head, read_body},
};

const CONNECTIONS: u32 = 500;
const PER_SECOND: u32 = 2_000;
/// No answer takes longer, or it has failed.
const PATIENCE: Duration = Duration::from_secs(10);
const PHASE: Duration = Duration::from_secs(5);
/// Until the gateway has noticed another file and gone by it; much longer than either takes.
const RELOAD: Duration = Duration::from_secs(20);

#[derive(Default)]
struct Seen {
    took: Vec<Duration>,
    connects: usize,
    failures: Vec<String>,
}

/// Each of its clients asks at its own times, whether or not the gateway is slow.
struct Load {
    over: Arc<AtomicBool>,
    seen: Arc<Mutex<Seen>>,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    fn start(addr: SocketAddr) -> Self {
        let (over, seen) = (Arc::<AtomicBool>::default(), Arc::<Mutex<Seen>>::default());
        let every = Duration::from_secs(1) * CONNECTIONS / PER_SECOND;
        let began = Instant::now();
        let clients = (0..CONNECTIONS)
            .map(|number| {
                let (over, seen) = (Arc::clone(&over), Arc::clone(&seen));
                let first = began + every * number / CONNECTIONS;
                tokio::spawn(client(addr, first, every, over, seen))
            })
            .collect();
        Self { over, seen, clients }
    }

    /// Prints what was seen since the last time.
    fn report(&self, phase: &str) -> usize {
        let Seen {
            mut took,
            connects,
            failures,
        } = std::mem::take(&mut *self.seen.lock().unwrap());
        took.sort_unstable();
        let at = |percent: usize| took.get(took.len() * percent / 100).copied().unwrap_or_default();
        println!(
            "{phase:<24} {:>6} requests, {connects:>5} connects, median {:>9.1?}, 99 % {:>9.1?}, longest {:>9.1?}, {} failed",
            took.len(),
            at(50),
            at(99),
            took.last().copied().unwrap_or_default(),
            failures.len(),
        );
        for failure in failures.iter().take(10) {
            println!("  {failure}");
        }
        failures.len()
    }

    /// Waits for the last answers; how many failed since the last report.
    async fn end(mut self) -> usize {
        self.over.store(true, Ordering::Relaxed);
        for client in std::mem::take(&mut self.clients) {
            client.await.unwrap();
        }
        self.report("the end")
    }
}

async fn client(addr: SocketAddr, first: Instant, every: Duration, over: Arc<AtomicBool>, seen: Arc<Mutex<Seen>>) {
    let mut connection = None;
    let mut due = first;
    while !over.load(Ordering::Relaxed) {
        sleep_until(due).await;
        due += every;
        let asked = Instant::now();
        let is_new = connection.is_none();
        let outcome = timeout(PATIENCE, ask(addr, &mut connection)).await;
        let mut seen = seen.lock().unwrap();
        seen.connects += usize::from(is_new);
        match outcome {
            Ok(Ok(200)) => seen.took.push(asked.elapsed()),
            other => {
                connection = None;
                seen.failures
                    .push(format!("{other:?} after {:?}, new: {is_new}", asked.elapsed()));
            }
        }
    }
}

/// One request, on a new connection where there is none.
async fn ask(addr: SocketAddr, connection: &mut Option<BufReader<TcpStream>>) -> std::io::Result<u16> {
    let mut stream = if let Some(stream) = connection.take() {
        stream
    } else {
        let stream = TcpStream::connect(addr).await?;
        stream.set_nodelay(true)?;
        BufReader::new(stream)
    };
    let host = SITE.split_once("://").unwrap().1;
    let request = format!("GET /public/x HTTP/1.1\r\nHost: {host}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let head = Head::read(&mut stream).await?;
    let head = head.ok_or(std::io::ErrorKind::UnexpectedEof)?;
    read_body(&mut stream, head.response_framing("GET")).await?;
    if head.one("connection") != Some("close") {
        *connection = Some(stream);
    }
    Ok(head.status())
}

fn put(file: &Path, text: &str) {
    let new = file.with_extension("new");
    fs::write(&new, text).unwrap();
    fs::rename(new, file).unwrap();
}

/// Waits until one more than `before` reloads have taken effect; how long the gateway says that it took.
async fn reloaded(running: &Program, before: usize) -> String {
    let seen = async {
        loop {
            let output = running.output();
            let mut reloads = output.lines().filter(|line| line.contains("was reloaded"));
            if let Some(line) = reloads.nth(before) {
                let line: serde_json::Value = serde_json::from_str(line).unwrap();
                return line["took"].to_string();
            }
            assert!(!output.contains("was not reloaded"), "{output}");
            sleep(Duration::from_millis(20)).await;
        }
    };
    let seen = timeout(RELOAD, seen).await;
    seen.unwrap_or_else(|_| panic!("no reload within {RELOAD:?}:\n{}", running.output()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "wants the machine for itself: make restart-load"]
async fn restarts_and_reloads_under_load() {
    let (db, mailbox, upstream) = (Database::fresh().await, Mailbox::start().await, Upstream::start().await);
    let folder = tempfile::tempdir().unwrap();
    let file: PathBuf = folder.path().join("gateway.toml");
    let text = |routes: usize| {
        let mut over =
            "[server]\nhandover = 'handover.sock'\nworkers = 2\ndrain_delay = '1s'\nshutdown_grace = '30s'\n\
                        [[routes]]\npath = '/public/*'\nupstream = 'app'\nauth = 'public'\n"
                .to_owned();
        for number in 0..routes {
            write!(over, "[[routes]]\npath = '/r{number}/*'\nupstream = 'app'\n").unwrap();
        }
        Setup::default().with(&over).text(&db, mailbox.addr(), upstream.addr())
    };
    put(&file, &text(10));
    let (mut running, public, _) = Program::serve(&file).await;
    let load = Load::start(public);
    let mut failed = 0;
    sleep(PHASE).await;
    failed += load.report("nothing happens");

    for (before, routes) in [20, 10_000, 10, 10_000, 20_000, 10].into_iter().enumerate() {
        put(&file, &text(routes));
        let took = reloaded(&running, before).await;
        sleep(PHASE / 2).await;
        failed += load.report(&format!("reload, {routes} routes"));
        println!("  the reload took {took}");
    }
    for number in 1..=3 {
        let (next, ..) = Program::serve(&file).await;
        assert_eq!(running.ended().await.code, Some(0));
        running = next;
        sleep(PHASE / 2).await;
        failed += load.report(&format!("restart {number}"));
    }
    failed += load.end().await;
    assert_eq!(failed, 0, "requests failed, as said above");
}
