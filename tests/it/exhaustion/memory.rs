//! What an attack makes the program hold has a bound, and goes back.
#![cfg(target_os = "linux")]

use std::net::SocketAddr;

use tempfile::TempDir;

use super::{
    Control,
    frames::{self, Frames},
    get,
};
use crate::{
    harness::{Database, RawClient, SOON, Setup, eventually, mailbox::Mailbox, program::Program, upstream::Upstream},
    memory::{MIB, resident},
};

struct Rig {
    program: Program,
    upstream: Upstream,
    addr: SocketAddr,
    _db: Database,
    _mailbox: Mailbox,
    _folder: TempDir,
}

impl Rig {
    async fn start(over: &str) -> Self {
        let db = Database::fresh().await;
        let (mailbox, upstream) = (Mailbox::start().await, Upstream::start().await);
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("gateway.toml");
        let setup = Setup::default().with(over);
        std::fs::write(&config, setup.text(&db, mailbox.addr(), upstream.addr())).unwrap();
        let (program, addr, _) = Program::serve(&config).await;
        let rig = Self {
            program,
            upstream,
            addr,
            _db: db,
            _mailbox: mailbox,
            _folder: folder,
        };
        let large = "HTTP/1.1 200 OK\r\nContent-Length: 4000000\r\n\r\n".to_owned() + &"x".repeat(4_000_000);
        rig.upstream.answer("/public/large", large);
        // What the first requests need is needed once.
        for path in ["/public/x", "/public/large"] {
            let mut client = RawClient::connect(addr).await;
            client.send(get(path)).await;
            assert_eq!(client.answer().await.status(), 200);
            let mut client = Frames::with_window(addr, 8_000_000).await;
            client
                .send([frames::more_room(0, 8_000_000), frames::get(1, path)].concat())
                .await;
            client.answered(1).await;
        }
        rig
    }

    fn resident(&self) -> usize {
        resident(&self.program)
    }

    /// By how much more is in memory than before.
    #[track_caller]
    fn assert_grown_by_less_than(&self, bytes: usize, before: usize, what: &str) {
        let grown = self.resident().saturating_sub(before);
        eprintln!("{what}: {} KiB more", grown / 1024);
        assert!(grown < bytes, "{what}: {} KiB more", grown / 1024);
    }
}

#[tokio::test]
async fn dos_answers_that_are_not_taken_are_not_held() {
    let rig = Rig::start("").await;
    let control = Control::start(rig.addr);
    let before = rig.resident();
    // Of 4 MB each, 200 over HTTP/1.1,
    let mut slow = Vec::new();
    for _ in 0..200 {
        let mut client = RawClient::connect(rig.addr).await;
        client.send(get("/public/large")).await;
        assert_eq!(client.head().await.status(), 200);
        slow.push(client);
    }
    rig.assert_grown_by_less_than(100 * MIB, before, "200 slow readers over HTTP/1.1");
    drop(slow);
    // and 500 on five connections that have room for one byte each.
    let mut shut = Vec::new();
    for _ in 0..5 {
        let mut client = Frames::with_window(rig.addr, 1).await;
        let asked: Vec<u8> = (0..100)
            .flat_map(|number| frames::get(1 + 2 * number, "/public/large"))
            .collect();
        client.send(asked).await;
        for _ in 0..90 {
            client.until(|frame| frame.kind == frames::HEADERS).await;
        }
        shut.push(client);
    }
    rig.assert_grown_by_less_than(150 * MIB, before, "500 shut windows");
    assert!(control.end().await > 0);
}

#[tokio::test]
async fn dos_uploads_that_nobody_reads_are_not_held() {
    let rig = Rig::start("").await;
    let control = Control::start(rig.addr);
    let before = rig.resident();
    let mut kept = rig.upstream.by_hand("/public/unread");
    let mut clients = Vec::new();
    let mut conversations = Vec::new();
    for _ in 0..20 {
        let mut client = Frames::connect(rig.addr).await;
        for stream in [1, 3] {
            client.send(frames::post(stream, "/public/unread")).await;
            conversations.push(kept.next().await);
            // Frames of 300 bytes: no crumbs, yet each has to be kept by itself.
            let piece = frames::frame(frames::DATA, 0, stream, &[b'x'; 300]);
            client.send(piece.repeat((512 << 10) / 300)).await;
        }
        clients.push(client);
    }
    // Twice what the windows allow, and what each frame costs beside its bytes.
    rig.assert_grown_by_less_than(100 * MIB, before, "40 MiB of bodies that nobody reads");
    assert!(control.end().await > 0);
}

#[tokio::test]
async fn dos_floods_leave_nothing_behind() {
    let rig = Rig::start("").await;
    let control = Control::start(rig.addr);
    let flood = async |connections: usize| {
        for _ in 0..connections {
            let mut client = Frames::connect(rig.addr).await;
            let flood: Vec<u8> = (0..2_000)
                .flat_map(|number| [frames::get(1 + 2 * number, "/public/x"), frames::reset(1 + 2 * number)].concat())
                .collect();
            client.send(flood).await;
            client.ended().await;
            let mut client = RawClient::connect(rig.addr).await;
            client
                .send(format!(
                    "GET /public/x HTTP/1.1\r\nHost: app.example.com\r\nX: {}\r\n\r\n",
                    "x".repeat(400 << 10)
                ))
                .await;
            client.rest().await;
        }
    };
    flood(20).await;
    let before = rig.resident();
    flood(100).await;
    assert!(control.end().await > 0);
    eventually(SOON, async || rig.resident().saturating_sub(before) < 16 * MIB).await;
}
