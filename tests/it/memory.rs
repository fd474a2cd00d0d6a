//! Memory does not grow with what passes, nor much with who waits. The program itself is measured, as it runs.
//!
//! `make test` moves little and opens few connections; `make test-memory` the amounts that the documents name.
#![cfg(target_os = "linux")]

use std::env;

use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use crate::harness::{Database, RawClient, SOON, Setup, mailbox::Mailbox, program::Program, upstream::Upstream};

pub(crate) const MIB: usize = 1 << 20;

/// How much passes each way, in MiB.
pub(crate) fn amount() -> usize {
    number("VESTIBULE_TEST_BODY_MIB", 64)
}

/// How many connections wait.
fn waiting() -> usize {
    number("VESTIBULE_TEST_CONNECTIONS", 1_000)
}

fn number(variable: &str, otherwise: usize) -> usize {
    env::var(variable).map_or(otherwise, |text| text.parse().expect("a number"))
}

/// What of a program is in memory, in bytes.
pub(crate) fn resident(program: &Program) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", program.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    let kib: usize = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib * 1024
}

struct Rig {
    program: Program,
    upstream: Upstream,
    addr: std::net::SocketAddr,
    _db: Database,
    _mailbox: Mailbox,
    _folder: TempDir,
}

async fn rig() -> Rig {
    let db = Database::fresh().await;
    let (mailbox, upstream) = (Mailbox::start().await, Upstream::start().await);
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("gateway.toml");
    let setup = Setup::default().with("[server]\nmax_body = '2GiB'\nmax_connections = 20_000");
    std::fs::write(&config, setup.text(&db, mailbox.addr(), upstream.addr())).unwrap();
    let (program, addr, _) = Program::serve(&config).await;
    Rig {
        program,
        upstream,
        addr,
        _db: db,
        _mailbox: mailbox,
        _folder: folder,
    }
}

impl Rig {
    fn resident(&self) -> usize {
        resident(&self.program)
    }

    /// Sends so many bytes up; the most that was in memory meanwhile.
    async fn up(&self, bytes: usize) -> usize {
        let mut conversations = self.upstream.by_hand("/public/up");
        let mut client = RawClient::connect(self.addr).await;
        client
            .send(format!(
                "POST /public/up HTTP/1.1\r\nHost: app.example.com\r\nContent-Length: {bytes}\r\n\r\n"
            ))
            .await;
        let mut upstream = conversations.next().await;
        let most = self.flow(&mut client.stream, &mut upstream.stream, bytes).await;
        upstream.send("HTTP/1.1 204 No Content\r\n\r\n").await;
        assert_eq!(client.answer_to("POST").await.status(), 204);
        most
    }

    /// The same down.
    async fn down(&self, bytes: usize) -> usize {
        let mut conversations = self.upstream.by_hand("/public/down");
        let mut client = RawClient::connect(self.addr).await;
        client
            .send("GET /public/down HTTP/1.1\r\nHost: app.example.com\r\n\r\n")
            .await;
        let mut upstream = conversations.next().await;
        upstream
            .send(format!("HTTP/1.1 200 OK\r\nContent-Length: {bytes}\r\n\r\n"))
            .await;
        assert_eq!(client.head().await.status(), 200);
        self.flow(&mut upstream.stream, &mut client.stream, bytes).await
    }

    /// Moves bytes from one end to the other; the most that was in memory meanwhile.
    async fn flow(
        &self,
        from: &mut (impl AsyncWriteExt + Unpin),
        to: &mut (impl AsyncReadExt + Unpin),
        bytes: usize,
    ) -> usize {
        let writing = async {
            let piece = vec![b'x'; MIB];
            let mut left = bytes;
            while left > 0 {
                let count = left.min(MIB);
                from.write_all(&piece[..count]).await.unwrap();
                left -= count;
            }
            from.flush().await.unwrap();
        };
        let reading = async {
            let mut piece = vec![0; MIB];
            let (mut received, mut looked, mut most) = (0, 0, 0);
            while received < bytes {
                let count = timeout(SOON, to.read(&mut piece)).await.unwrap().unwrap();
                assert_ne!(count, 0, "it breaks off after {received} bytes");
                received += count;
                if received - looked >= 8 * MIB || received == bytes {
                    looked = received;
                    most = most.max(self.resident());
                }
            }
            most
        };
        tokio::join!(writing, reading).1
    }
}

#[tokio::test]
async fn bodies_pass_in_constant_memory() {
    let rig = rig().await;
    // What the first bodies need is needed once.
    rig.up(8 * MIB).await;
    rig.down(8 * MIB).await;
    let before = rig.resident();
    let bytes = amount() * MIB;
    let most = rig.up(bytes).await.max(rig.down(bytes).await);
    let grown = most.saturating_sub(before);
    eprintln!("{} MiB each way: {} KiB more than before", amount(), grown / 1024);
    assert!(grown < 10 * MIB, "{} KiB more than before", grown / 1024);
}

#[tokio::test]
async fn a_connection_that_waits_does_not_keep_what_its_client_said_at_length() {
    let rig = rig().await;
    // With a cookie of ours, and one that says that the browser is shared.
    let ours = "vestibule.x=1; __Host-vestibule.session_token_multi-a=1; vestibule.session_token_multi-a=1";
    let cookie = format!("{ours}; pad={}", "x".repeat(28 << 10));
    let request = format!("GET /public/x HTTP/1.1\r\nHost: app.example.com\r\nCookie: {cookie}\r\n\r\n");
    let mut clients = Vec::new();
    let mut before = 0;
    for number in 0..400 {
        let mut client = RawClient::connect(rig.addr).await;
        client.send(&request).await;
        assert_eq!(client.answer().await.status(), 200);
        // What the next ones need as well is there by then.
        if number == 100 {
            before = rig.resident();
        }
        clients.push(client);
    }
    let each = rig.resident().saturating_sub(before) / 300;
    eprintln!("{each} bytes each");
    assert!(each < 80 * 1024, "{each} bytes each");
}

#[tokio::test]
async fn connections_that_wait_cost_little() {
    let rig = rig().await;
    let before = rig.resident();
    let mut clients = Vec::new();
    for _ in 0..waiting() {
        let mut client = RawClient::connect(rig.addr).await;
        client
            .send("GET /public/x HTTP/1.1\r\nHost: app.example.com\r\n\r\n")
            .await;
        assert_eq!(client.answer().await.status(), 200);
        clients.push(client);
    }
    let (all, grown) = (rig.resident(), rig.resident().saturating_sub(before));
    eprintln!(
        "{} connections: {} MiB in all, {} bytes each",
        clients.len(),
        all / MIB,
        grown / clients.len()
    );
    // Without optimisation, futures take about twice the room.
    let each = if cfg!(debug_assertions) { 48 * 1024 } else { 20 * 1024 };
    assert!(grown < clients.len() * each, "{} bytes each", grown / clients.len());
}
