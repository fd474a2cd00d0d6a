//! Nobody reads what the gateway says: the disk of a container's log is full, a log shipper hangs. Nobody waits for that.

use std::fs;

use crate::harness::{
    Database, RawClient, SOON, Setup,
    client::Call,
    frames::{self, Frames, PING},
    mailbox::Mailbox,
    program::Program,
    upstream::Upstream,
};

#[tokio::test]
async fn requests_do_not_wait_for_whoever_reads_the_logs() {
    let (db, mailbox, upstream) = (Database::fresh().await, Mailbox::start().await, Upstream::start().await);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("gateway.toml");
    // Everything is said, so that a pipe and what is kept for it are full soon.
    let text = Setup::default()
        .with("[log]\nlevel = 'trace'\n[server]\nmax_idle_frames = 1_000_000")
        .text(&db, mailbox.addr(), upstream.addr());
    fs::write(&file, text).unwrap();
    let (program, addr, admin) = Program::serve(&file).await;
    program.turn_away();
    let dropped = async |name: &str| {
        let metrics = Call::new(admin, "http://localhost", "GET", "/metrics")
            .undescribed()
            .await;
        let mut lines = metrics.text().lines();
        let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value
            .unwrap_or_else(|| panic!("there is no {name}"))
            .parse::<u64>()
            .unwrap()
    };
    let mut client = RawClient::connect(addr).await;
    // A line of the access log is long if a path is; of each frame of HTTP/2 several events tell.
    let request = format!(
        "GET /public/{} HTTP/1.1\r\nHost: app.example.com\r\n\r\n",
        "x".repeat(3_000)
    );
    let mut frames = Frames::connect(addr).await;
    let pings = frames::frame(PING, 0, 0, b"hear me!").repeat(100);
    let asking = async {
        let mut asked = 0;
        while dropped("vestibule_events_dropped_total").await == 0
            || dropped("vestibule_access_log_dropped_total").await == 0
        {
            for _ in 0..50 {
                client.send(&request).await;
                assert_eq!(client.answer().await.status(), 200);
                asked += 1;
            }
            frames.send(&pings).await;
            for _ in 0..100 {
                while frames.next().await.expect("it goes on").kind != PING {}
            }
            assert!(asked < 5_000, "both logs are read by somebody");
        }
    };
    tokio::time::timeout(6 * SOON, asking)
        .await
        .expect("somebody waits for a log");
    program.signal("TERM").await;
    assert_eq!(program.ended().await.code, Some(0), "it ends, too");
}
