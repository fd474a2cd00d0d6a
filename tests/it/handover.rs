//! A gateway that starts takes over from the one that runs: no connection is refused, no request fails.

use std::{
    fs,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use tempfile::TempDir;
use tokio::task::JoinHandle;

use crate::harness::{
    Database, RawClient, SOON, Setup, eventually, gateway::SITE, mailbox::Mailbox, program::Program, upstream::Upstream,
};

/// Each client has to be asked to leave before the connections that it keeps are closed, however busy the machine is.
const DRAINS: &str = "drain_delay = '2s'\nshutdown_grace = '30s'";

struct Surroundings {
    db: Database,
    mailbox: Mailbox,
    upstream: Upstream,
    folder: TempDir,
}

impl Surroundings {
    async fn new() -> Self {
        Self {
            db: Database::fresh().await,
            mailbox: Mailbox::start().await,
            upstream: Upstream::start().await,
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn config(&self, name: &str, over: &str) -> PathBuf {
        let setup = Setup::default().with("[server]\nhandover = 'handover.sock'").with(over);
        let file = self.folder.path().join(name);
        fs::write(&file, setup.text(&self.db, self.mailbox.addr(), self.upstream.addr())).unwrap();
        file
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("handover.sock")
    }
}

/// Clients that ask all the time, each on a connection for as long as the gateway keeps it. Whatever goes wrong fails
/// the test.
pub(crate) struct Load {
    over: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    pub(crate) fn start(addr: SocketAddr) -> Self {
        let (over, answered) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let client = |number: usize| {
            let (over, answered) = (Arc::clone(&over), Arc::clone(&answered));
            let host = SITE.split_once("://").unwrap().1;
            tokio::spawn(async move {
                let mut client = RawClient::connect(addr).await;
                while !over.load(Ordering::Relaxed) {
                    client
                        .send(format!("GET /public/x HTTP/1.1\r\nHost: {host}\r\n\r\n"))
                        .await;
                    let answer = client.answer().await;
                    assert_eq!(answer.status(), 200);
                    answered.fetch_add(1, Ordering::Relaxed);
                    // Some open a connection for each request.
                    if number.is_multiple_of(4) || answer.head.one("connection") == Some("close") {
                        client = RawClient::connect(addr).await;
                    }
                }
            })
        };
        let clients = (0..16).map(client).collect();
        Self {
            over,
            answered,
            clients,
        }
    }

    pub(crate) async fn goes_on(&self) {
        let before = self.answered.load(Ordering::Relaxed);
        eventually(SOON, async || self.answered.load(Ordering::Relaxed) > before + 200).await;
    }

    pub(crate) async fn end(self) {
        self.over.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.await.unwrap();
        }
    }
}

#[tokio::test]
async fn gateways_follow_each_other_under_load_without_a_failed_request() {
    let around = Surroundings::new().await;
    let with_workers = |workers: usize| {
        let over = format!("[server]\nworkers = {workers}\n{DRAINS}");
        around.config(&format!("{workers}.toml"), &over)
    };
    let (mut running, public, admin) = Program::serve(&with_workers(2)).await;
    let load = Load::start(public);
    load.goes_on().await;
    // As many workers, more, fewer.
    for workers in [2, 3, 1] {
        let (next, same_public, same_admin) = Program::serve(&with_workers(workers)).await;
        assert_eq!((same_public, same_admin), (public, admin));
        let ended = running.ended().await;
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        assert!(
            ended.stderr.contains("another gateway has taken over"),
            "{}",
            ended.stderr
        );
        assert!(!ended.stderr.contains("cut off"), "{}", ended.stderr);
        load.goes_on().await;
        running = next;
    }
    load.end().await;
    running.signal("TERM").await;
    assert_eq!(running.ended().await.code, Some(0));
}

#[tokio::test]
async fn a_gateway_that_ends_before_it_is_ready_takes_nothing_over() {
    let around = Surroundings::new().await;
    let drains = format!("[server]\n{DRAINS}");
    let (mut running, public, admin) = Program::serve(&around.config("a.toml", &drains)).await;
    let load = Load::start(public);
    // Nobody answers there: it waits.
    let waits = around.config("b.toml", "[database]\nurl = 'postgres://127.0.0.1:9/none'");
    let mut next = Program::start(
        &["serve", "--config", waits.to_str().unwrap()],
        &[],
        around.folder.path(),
    );
    next.line("not serving yet").await;
    running.line("handed the listening sockets over").await;
    load.goes_on().await;
    next.kill().await;
    running.line("a hand-over came to nothing").await;
    load.goes_on().await;
    // And the next one finds it as before.
    let (next, same_public, same_admin) = Program::serve(&around.config("c.toml", &drains)).await;
    assert_eq!((same_public, same_admin), (public, admin));
    assert_eq!(running.ended().await.code, Some(0));
    load.goes_on().await;
    load.end().await;
    next.signal("TERM").await;
    assert_eq!(next.ended().await.code, Some(0));
}

#[tokio::test]
async fn a_gateway_that_hangs_while_it_starts_keeps_nobody_else_out() {
    let around = Surroundings::new().await;
    let drains = format!("[server]\n{DRAINS}");
    let (mut running, public, admin) = Program::serve(&around.config("a.toml", &drains)).await;
    let load = Load::start(public);
    // Nobody answers there: it waits, for as long as it takes.
    let waits = around.config("b.toml", "[database]\nurl = 'postgres://127.0.0.1:9/none'");
    let mut hangs = Program::start(
        &["serve", "--config", waits.to_str().unwrap()],
        &[],
        around.folder.path(),
    );
    hangs.line("not serving yet").await;
    running.line("handed the listening sockets over").await;

    let (next, same_public, same_admin) = Program::serve(&around.config("c.toml", &drains)).await;
    assert_eq!((same_public, same_admin), (public, admin));
    let ended = running.ended().await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(ended.stderr.contains("has lost its turn"), "{}", ended.stderr);
    load.goes_on().await;
    load.end().await;
    next.signal("TERM").await;
    assert_eq!(next.ended().await.code, Some(0));
}

#[tokio::test]
async fn a_socket_that_nobody_listens_at_is_replaced_and_open_to_its_user_alone() {
    use std::os::unix::fs::PermissionsExt as _;

    let around = Surroundings::new().await;
    let config = around.config("a.toml", "");
    let (running, ..) = Program::serve(&config).await;
    running.kill().await;
    assert!(around.socket().exists(), "left behind");
    let (_next, public, _) = Program::serve(&config).await;
    assert_eq!(
        fs::metadata(around.socket()).unwrap().permissions().mode() & 0o777,
        0o600
    );
    Load::start(public).end().await;
}

#[tokio::test]
async fn without_a_hand_over_a_second_gateway_is_refused() {
    let around = Surroundings::new().await;
    let port = crate::harness::program::free_port();
    let over = format!("[server]\nlisten = '127.0.0.1:{port}'");
    let (_running, ..) = Program::serve(&around.config("a.toml", &over)).await;
    let alone = around.config("b.toml", &format!("{over}\nhandover = 'other.sock'"));
    let refused = crate::harness::program::run(
        &["serve", "--config", alone.to_str().unwrap()],
        &[],
        around.folder.path(),
    )
    .await;
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("can't listen on"), "{}", refused.stderr);
}
