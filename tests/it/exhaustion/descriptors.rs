//! Descriptors: a shell's small limit is not the gateway's.
#![cfg(target_os = "linux")]

use super::{Control, get};
use crate::harness::{Database, RawClient, Setup, mailbox::Mailbox, program::Program, upstream::Upstream};

#[tokio::test]
async fn dos_more_connections_than_the_shell_allows_are_served() {
    let (db, mailbox, upstream) = (Database::fresh().await, Mailbox::start().await, Upstream::start().await);
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("gateway.toml");
    std::fs::write(&config, Setup::default().text(&db, mailbox.addr(), upstream.addr())).unwrap();
    let (program, addr) = Program::with_descriptors(&config, 128).await;
    let control = Control::start(addr);
    let mut clients = Vec::new();
    for _ in 0..400 {
        let mut client = RawClient::connect(addr).await;
        client.send(get("/public/x")).await;
        assert_eq!(client.answer().await.status(), 200, "{}", program.output());
        clients.push(client);
    }
    assert!(control.end().await > 0);
}
