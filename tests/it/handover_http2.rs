//! Clients of HTTP/2 while gateways follow each other: they are told to go (GOAWAY), what they have under way is
//! finished, and no request fails.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use futures_util::future::join_all;
use h2::client::{ResponseFuture, SendRequest};
use http::{Request, Response};
use tokio::{net::TcpStream, task::JoinHandle, time::timeout};

use crate::{
    handover::{DRAINS, around},
    harness::{SOON, eventually, gateway::SITE, program::Program},
};

/// Requests that a client has under way at once.
const AT_ONCE: usize = 4;

/// A connection, and the task that ends with it.
async fn connect(addr: SocketAddr) -> (SendRequest<Bytes>, JoinHandle<Result<(), h2::Error>>) {
    let stream = TcpStream::connect(addr).await.expect("nobody is refused");
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    (client, tokio::spawn(connection))
}

/// Sends a request; `None`: the client was told to go, and the request did not leave.
async fn ask(client: &SendRequest<Bytes>, path: &str) -> Option<ResponseFuture> {
    let mut client = client.clone().ready().await.ok()?;
    let request = Request::get(format!("{SITE}{path}")).body(()).unwrap();
    Some(client.send_request(request, true).ok()?.0)
}

/// The answer's body; whatever goes wrong fails the test.
async fn whole(answer: Response<h2::RecvStream>) -> Vec<u8> {
    assert_eq!(answer.status(), 200);
    let (mut body, mut whole) = (answer.into_body(), Vec::new());
    while let Some(data) = body.data().await {
        whole.extend_from_slice(&data.expect("a whole answer"));
    }
    whole
}

/// Clients that have requests under way all the time, on a connection for as long as they may.
struct Load {
    over: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    connections: Arc<AtomicUsize>,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    fn start(addr: SocketAddr) -> Self {
        let (over, answered) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let connections = Arc::<AtomicUsize>::default();
        let client = || {
            let (over, answered) = (Arc::clone(&over), Arc::clone(&answered));
            let connections = Arc::clone(&connections);
            tokio::spawn(async move {
                while !over.load(Ordering::Relaxed) {
                    let (client, _connection) = connect(addr).await;
                    connections.fetch_add(1, Ordering::Relaxed);
                    let mut stays = true;
                    while stays && !over.load(Ordering::Relaxed) {
                        let asked = join_all((0..AT_ONCE).map(|_| ask(&client, "/public/x"))).await;
                        stays = asked.iter().all(Option::is_some);
                        for answer in asked.into_iter().flatten() {
                            let answer = timeout(SOON, answer).await.expect("an answer in time");
                            assert_eq!(whole(answer.expect("an answer")).await, b"GET /public/x");
                            answered.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                }
            })
        };
        let clients = (0..8).map(|_| client()).collect();
        Self {
            over,
            answered,
            connections,
            clients,
        }
    }

    async fn goes_on(&self) {
        let before = self.answered.load(Ordering::Relaxed);
        eventually(SOON, async || self.answered.load(Ordering::Relaxed) > before + 200).await;
    }

    /// How many connections its clients made.
    async fn end(self) -> usize {
        self.over.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.await.unwrap();
        }
        self.connections.load(Ordering::Relaxed)
    }
}

#[tokio::test]
async fn clients_of_http2_follow_to_the_next_gateway_without_a_failed_request() {
    let around = around().await;
    let config = around.config_as("gateway.toml", &format!("[server]\nworkers = 2\n{DRAINS}"));
    let (mut running, public, _) = Program::serve(&config).await;
    let load = Load::start(public);
    load.goes_on().await;
    for _ in 0..2 {
        let (next, same_public, _) = Program::serve(&config).await;
        assert_eq!(same_public, public);
        let ended = running.ended().await;
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        assert!(!ended.stderr.contains("cut off"), "{}", ended.stderr);
        load.goes_on().await;
        running = next;
    }
    let connections = load.end().await;
    assert_eq!(connections, 3 * 8, "each stays where it is until it is told to go");
}

#[tokio::test]
async fn a_stream_that_had_begun_is_finished_by_the_gateway_that_stops() {
    let around = around().await;
    let config = around.config_as(
        "gateway.toml",
        "[server]\ndrain_delay = '0s'\nshutdown_grace = '10m'\nstream_grace = '10m'",
    );
    let (running, public, _) = Program::serve(&config).await;
    let (client, connection) = connect(public).await;
    let mut conversations = around.upstream.by_hand("/public/slow");
    let (begun, waiting) = (ask(&client, "/public/slow").await, ask(&client, "/public/slow").await);
    let (mut first, mut second) = (conversations.next().await, conversations.next().await);
    // One of them is half way, the other's answer has not begun.
    first.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfirst").await;
    let begun = timeout(SOON, begun.unwrap()).await.unwrap().unwrap();

    let (_next, ..) = Program::serve(&config).await;
    // Told to go, it sends nothing more here; elsewhere it is served.
    eventually(SOON, async || ask(&client, "/public/x").await.is_none()).await;
    let (elsewhere, _connection) = connect(public).await;
    let answer = ask(&elsewhere, "/public/x").await.unwrap();
    assert_eq!(
        whole(timeout(SOON, answer).await.unwrap().unwrap()).await,
        b"GET /public/x"
    );
    assert!(!connection.is_finished(), "what has begun keeps it open");

    first.send(" half").await;
    second.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate").await;
    assert_eq!(timeout(SOON, whole(begun)).await.unwrap(), b"first half");
    let waiting = timeout(SOON, waiting.unwrap()).await.unwrap().unwrap();
    assert_eq!(timeout(SOON, whole(waiting)).await.unwrap(), b"late");
    let ended = timeout(SOON, connection).await.expect("and then it closes").unwrap();
    assert!(ended.is_ok(), "in good order: {ended:?}");
    let ended = running.ended().await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(!ended.stderr.contains("cut off"), "{}", ended.stderr);
}
