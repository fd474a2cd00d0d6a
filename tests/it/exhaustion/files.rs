//! Files that are sent to clients who don't take them.
#![cfg(target_os = "linux")]

use std::{fs, path::Path};

use tempfile::TempDir;

use super::{
    Control,
    frames::{self, Frame, Frames, HEADERS},
    reached,
};
use crate::harness::{Gateway, SOON, Setup, eventually};

const PLACES: usize = 20;
/// What HPACK calls `:status: 200` (RFC 7541, appendix A).
const OK: u8 = 0x88;

/// A folder with a file that no window of these clients takes whole, and a gateway that has places for a few.
async fn serving(server: &str) -> (Gateway, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("large.bin"), vec![0; 1 << 20]).unwrap();
    let setup = format!(
        "[server]\nmax_open_files = {PLACES}\n{server}\n\
         [[routes]]\npath = '/files/*'\nauth = 'public'\nstrip_prefix = '/files'\nserve = '{}'\n\
         [[routes]]\npath = '/public/*'\nauth = 'public'\nupstream = 'app'\n",
        folder.path().display()
    );
    (Setup::default().with(&setup).start().await, folder)
}

/// Descriptors of this process, in which the gateway runs, that are a file's.
fn open(file: &Path) -> usize {
    let all = fs::read_dir("/proc/self/fd").unwrap();
    let is_its = |link: &std::io::Result<std::path::PathBuf>| link.as_deref().is_ok_and(|link| link == file);
    all.map(|entry| fs::read_link(entry.unwrap().path()))
        .filter(is_its)
        .count()
}

/// Asks for the file so often on one connection, and opens no window. How many of the answers are not refusals.
async fn ask(client: &mut Frames, times: u32) -> usize {
    let asked: Vec<u8> = (0..times)
        .flat_map(|number| frames::get(1 + 2 * number, "/files/large.bin"))
        .collect();
    client.send(asked).await;
    let mut served = 0;
    for _ in 0..times {
        let head: Frame = client.until(|frame| frame.kind == HEADERS).await;
        served += usize::from(head.payload.first() == Some(&OK));
    }
    served
}

#[tokio::test]
async fn dos_files_that_nobody_takes_stay_few_and_others_are_served() {
    let (gateway, folder) = serving("").await;
    let file = folder.path().join("large.bin").canonicalize().unwrap();
    let control = Control::start(gateway.addr());
    let mut clients = [
        Frames::with_window(gateway.addr(), 0).await,
        Frames::with_window(gateway.addr(), 0).await,
    ];
    let mut served = 0;
    for client in &mut clients {
        served += ask(client, 15).await;
    }
    assert_eq!(served, PLACES);
    assert_eq!(open(&file), PLACES);
    assert!((reached(&gateway, "server.max_open_files").await - 10.0).abs() < 0.5);
    // Past it there are no files, and everything else.
    let refused = gateway.get("/files/large.bin").await;
    assert_eq!((refused.status(), refused.code().as_str()), (503, "TOO_BUSY"));
    assert_eq!(refused.head.one("retry-after"), Some("1"));
    gateway
        .reload(&format!("[server]\nmax_open_files = {}", PLACES + 1))
        .await
        .unwrap();
    assert_eq!(gateway.get("/files/large.bin").await.status(), 200);
    assert!(control.end().await > 0);
    // What one takes back, and what ends with its connection, is free again.
    let [mut first, second] = clients;
    first
        .send(
            (0..15)
                .flat_map(|number| frames::reset(1 + 2 * number))
                .collect::<Vec<_>>(),
        )
        .await;
    drop(second);
    eventually(SOON, async || open(&file) == 0).await;
    let whole = gateway.get("/files/large.bin").await;
    assert_eq!((whole.status(), whole.body.len()), (200, 1 << 20));
    // An answer without a body has none open.
    for _ in 0..2 * PLACES {
        let answer = gateway.get("/files/none").await;
        assert_eq!(answer.status(), 404);
    }
    eventually(SOON, async || open(&file) == 0).await;
}

#[tokio::test]
async fn dos_files_that_nobody_takes_are_given_up() {
    // At the default rate a client has a minute for the piece that was read for it.
    let (gateway, folder) = serving("body_timeout = '1s'\nmin_body_rate = '1MiB'").await;
    let file = folder.path().join("large.bin").canonicalize().unwrap();
    let mut client = Frames::with_window(gateway.addr(), 0).await;
    assert_eq!(ask(&mut client, 30).await, PLACES);
    eventually(SOON, async || open(&file) == 0).await;
    assert_eq!(gateway.get("/files/large.bin").await.status(), 200);
    drop(client);
}
