//! A gateway that starts takes over from the one that runs: no connection is refused, no request fails.

use std::{
    fs,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use tokio::task::JoinHandle;

use crate::harness::{
    RawClient, SOON, eventually,
    gateway::SITE,
    program::{NOBODY, Program},
    relay::Relay,
    surroundings::Surroundings,
};

/// Each client has to be asked to leave before the connections that it keeps are closed, however busy the machine is.
pub(crate) const DRAINS: &str = "drain_delay = '2s'\nshutdown_grace = '30s'";

pub(crate) async fn around() -> Surroundings {
    Surroundings::new().await.always("[server]\nhandover = 'handover.sock'")
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
    let around = around().await;
    let with_workers = |workers: usize| {
        let over = format!("[server]\nworkers = {workers}\n{DRAINS}");
        around.config_as(&format!("{workers}.toml"), &over)
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
    let around = around().await;
    let drains = format!("[server]\n{DRAINS}");
    let (mut running, public, admin) = Program::serve(&around.config_as("a.toml", &drains)).await;
    let load = Load::start(public);
    // Nobody answers there: it waits.
    let waits = around.config_as("b.toml", "[database]\nurl = 'postgres://127.0.0.1:9/none'");
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
    let (next, same_public, same_admin) = Program::serve(&around.config_as("c.toml", &drains)).await;
    assert_eq!((same_public, same_admin), (public, admin));
    assert_eq!(running.ended().await.code, Some(0));
    load.goes_on().await;
    load.end().await;
    next.signal("TERM").await;
    assert_eq!(next.ended().await.code, Some(0));
}

#[tokio::test]
async fn a_gateway_that_hangs_while_it_starts_keeps_nobody_else_out() {
    let around = around().await;
    let drains = format!("[server]\n{DRAINS}");
    let (mut running, public, admin) = Program::serve(&around.config_as("a.toml", &drains)).await;
    let load = Load::start(public);
    // Nobody answers there: it waits, for as long as it takes.
    let waits = around.config_as("b.toml", "[database]\nurl = 'postgres://127.0.0.1:9/none'");
    let mut hangs = Program::start(
        &["serve", "--config", waits.to_str().unwrap()],
        &[],
        around.folder.path(),
    );
    hangs.line("not serving yet").await;
    running.line("handed the listening sockets over").await;

    let (next, same_public, same_admin) = Program::serve(&around.config_as("c.toml", &drains)).await;
    assert_eq!((same_public, same_admin), (public, admin));
    let ended = running.ended().await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(ended.stderr.contains("has lost its turn"), "{}", ended.stderr);
    load.goes_on().await;
    load.end().await;
    next.signal("TERM").await;
    assert_eq!(next.ended().await.code, Some(0));
}

/// A gateway that runs, and one that has its sockets and waits until its database can be reached, at the end of the relay.
async fn one_that_runs_and_one_that_starts(around: &Surroundings) -> (Program, [SocketAddr; 2], Program, Relay) {
    let (running, public, admin) = Program::serve(&around.config_as("a.toml", "")).await;
    let (relay, relayed) = Relay::before(&around.db).await;
    relay.refuse();
    let waits = around.config_as("b.toml", &format!("[database]\nurl = '{}'", relayed.url()));
    let mut next = Program::start(
        &["serve", "--config", waits.to_str().unwrap()],
        &[],
        around.folder.path(),
    );
    next.line("not serving yet").await;
    (running, [public, admin], next, relay)
}

pub(crate) async fn ask(addr: SocketAddr) -> u16 {
    let mut client = RawClient::connect(addr).await;
    let host = SITE.split_once("://").unwrap().1;
    client.ask("GET", "/public/x", host).await.status()
}

async fn health(admin: SocketAddr, path: &str) -> u16 {
    let mut client = RawClient::connect(admin).await;
    client.ask("GET", path, &admin.to_string()).await.status()
}

#[tokio::test]
async fn a_gateway_that_dies_while_the_next_one_starts_leaves_everything_to_it() {
    let around = around().await;
    let (running, [public, admin], mut next, relay) = one_that_runs_and_one_that_starts(&around).await;
    // Whoever asks how it is hears of the one that runs, as long as it does.
    assert_eq!(health(admin, "/readyz").await, 200);
    running.kill().await;
    assert_eq!(
        (health(admin, "/livez").await, health(admin, "/readyz").await),
        (200, 503)
    );
    // It waits in the queue in the kernel, which the next one has.
    let waiting = tokio::spawn(ask(public));
    relay.lead_to(&around.db);
    assert_eq!(next.serving().await.0, public);
    next.line("going on in its place").await;
    assert_eq!(waiting.await.unwrap(), 200);
    // And it hands over in its turn.
    let (_last, same_public, _) = Program::serve(&around.config_as("c.toml", "")).await;
    assert_eq!(same_public, public);
    assert_eq!(next.ended().await.code, Some(0));
}

#[tokio::test]
async fn a_gateway_that_stands_still_when_the_next_one_is_ready_goes_on() {
    let around = around().await;
    let (mut running, [public, _], next, relay) = one_that_runs_and_one_that_starts(&around).await;
    running.signal("STOP").await;
    let mut slow = around.upstream.by_hand("/public/slow");
    let mut client = RawClient::connect(public).await;
    let host = SITE.split_once("://").unwrap().1;
    client
        .send(format!("GET /public/slow HTTP/1.1\r\nHost: {host}\r\n\r\n"))
        .await;
    relay.lead_to(&around.db);
    let ended = next.ended().await;
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains("does not answer any more"), "{}", ended.stderr);

    running.signal("CONT").await;
    running.line("a hand-over came to nothing").await;
    // Whoever came meanwhile was not served by one that was about to end.
    let mut conversation = slow.next().await;
    conversation
        .send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 4\r\n\r\ndone")
        .await;
    assert_eq!(client.answer().await.text(), "done");
    assert_eq!(ask(public).await, 200);
    let (_last, same_public, _) = Program::serve(&around.config_as("c.toml", "")).await;
    assert_eq!(same_public, public);
    assert_eq!(running.ended().await.code, Some(0));
}

/// It can ask there, and could not be asked.
#[tokio::test]
async fn a_gateway_that_could_not_hand_over_in_its_turn_takes_nothing_over() {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};

    let around = Surroundings::new().await;
    let folder = around.file("door");
    fs::create_dir(&folder).unwrap();
    if fs::metadata(&folder).unwrap().uid() == 0 {
        chown(&folder, Some(NOBODY), Some(NOBODY)).unwrap();
    }
    let allow = |mode| fs::set_permissions(&folder, fs::Permissions::from_mode(mode)).unwrap();
    let over = format!("[server]\nhandover = '{}'", folder.join("socket").display());
    let (running, public, _) = Program::serve_as_somebody(&around.config_as("a.toml", &over)).await;
    allow(0o500);
    let refused = Program::start_as_somebody(&around.config_as("b.toml", &over));
    let refused = refused.ended().await;
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("(server.handover)"), "{}", refused.stderr);
    assert_eq!(ask(public).await, 200);

    allow(0o700);
    let (_next, same_public, _) = Program::serve_as_somebody(&around.config_as("c.toml", &over)).await;
    assert_eq!(same_public, public);
    assert_eq!(running.ended().await.code, Some(0));
}

/// The one that starts stands still, long enough for another to have taken over meanwhile.
#[tokio::test]
async fn a_gateway_that_has_lost_its_turn_does_not_take_it_after_the_other_has_gone() {
    let around = around().await;
    let (running, [public, _], next, relay) = one_that_runs_and_one_that_starts(&around).await;
    next.signal("STOP").await;
    let (last, same_public, _) = Program::serve(&around.config_as("c.toml", "")).await;
    assert_eq!(same_public, public);
    assert_eq!(running.ended().await.code, Some(0));

    relay.lead_to(&around.db);
    next.signal("CONT").await;
    let ended = next.ended().await;
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains("has withdrawn"), "{}", ended.stderr);
    assert_eq!(ask(public).await, 200);
    last.signal("TERM").await;
    assert_eq!(last.ended().await.code, Some(0));
}

#[tokio::test]
async fn a_socket_that_nobody_listens_at_is_replaced_and_open_to_its_user_alone() {
    use std::os::unix::fs::PermissionsExt as _;

    let around = around().await;
    let config = around.config_as("a.toml", "");
    let (running, ..) = Program::serve(&config).await;
    running.kill().await;
    assert!(around.file("handover.sock").exists(), "left behind");
    let (_next, public, _) = Program::serve(&config).await;
    assert_eq!(
        fs::metadata(around.file("handover.sock")).unwrap().permissions().mode() & 0o777,
        0o600
    );
    Load::start(public).end().await;
}

#[tokio::test]
async fn without_a_hand_over_a_second_gateway_is_refused() {
    let around = around().await;
    let port = crate::harness::program::free_port();
    let over = format!("[server]\nlisten = '127.0.0.1:{port}'");
    let (_running, ..) = Program::serve(&around.config_as("a.toml", &over)).await;
    let alone = around.config_as("b.toml", &format!("{over}\nhandover = 'other.sock'"));
    let refused = crate::harness::program::run(
        &["serve", "--config", alone.to_str().unwrap()],
        &[],
        around.folder.path(),
    )
    .await;
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("can't listen on"), "{}", refused.stderr);
}
