//! Unix sockets: a listener without addresses, believed only if the configuration says so.

use std::{
    fs,
    os::unix::{
        fs::PermissionsExt,
        net::{UnixListener as StdListener, UnixStream as StdStream},
    },
    path::Path,
};

use socket2::{Domain, SockAddr, Socket, Type};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};

use crate::harness::{
    Gateway, Setup,
    h2_client::H2Client,
    program::{self, Program, free_port},
    relay::Relay,
    surroundings::Surroundings,
};

async fn gateway(folder: &TempDir, more: &str) -> Gateway {
    let path = folder.path().join("http.sock");
    let toml = format!("[server]\nlisten = ['127.0.0.1:0', 'unix:{}']\n{more}", path.display());
    Setup::default().with(&toml).start().await
}

/// The answer to a request on a connection of its own.
async fn ask(path: &Path, fields: &str) -> String {
    let mut stream = UnixStream::connect(path).await.unwrap();
    let request = format!("GET /public/x HTTP/1.1\r\nHost: app.example.com\r\nConnection: close\r\n{fields}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn requests_come_in_by_a_unix_socket_too() {
    let folder = TempDir::new().unwrap();
    let gateway = gateway(&folder, "workers = 2").await;
    let path = folder.path().join("http.sock");
    for _ in 0..20 {
        assert!(ask(&path, "").await.starts_with("HTTP/1.1 200"));
    }
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
    assert_eq!(gateway.get("/public/x").await.status(), 200, "beside an address");
    let stream = UnixStream::connect(&path).await.unwrap();
    let (client, _) = H2Client::over(stream, "http://app.example.com").await;
    assert_eq!(client.get("/public/x").await.status, 200);
}

#[tokio::test]
async fn a_peer_without_an_address_says_nothing_about_clients() {
    let folder = TempDir::new().unwrap();
    let gateway = gateway(&folder, "trusted_proxies = ['127.0.0.1', '0.0.0.0/8']").await;
    let answer = ask(&folder.path().join("http.sock"), "X-Forwarded-For: 6.6.6.6\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200"));
    let seen = gateway.upstream().last();
    assert_eq!(seen.head.one("x-forwarded-for"), Some("unknown"));
    assert_eq!(
        seen.head.one("forwarded"),
        Some("for=unknown;host=\"app.example.com\";proto=https")
    );
}

#[tokio::test]
async fn a_peer_that_is_a_trusted_proxy_is_believed() {
    let folder = TempDir::new().unwrap();
    let gateway = gateway(&folder, "trusted_proxies = ['unix']").await;
    let answer = ask(&folder.path().join("http.sock"), "X-Forwarded-For: 203.0.113.7\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200"));
    let seen = gateway.upstream().last();
    assert_eq!(seen.head.one("x-forwarded-for"), Some("203.0.113.7"));
    assert!(seen.head.one("forwarded").unwrap().starts_with("for=203.0.113.7;"));
    let call = gateway.get("/public/y").header("X-Forwarded-For", "6.6.6.6");
    assert_eq!(call.await.status(), 200);
    let seen = gateway.upstream().last();
    assert_eq!(seen.head.one("x-forwarded-for"), Some("127.0.0.1"), "others are not");
}

#[tokio::test]
async fn a_socket_that_nobody_answers_at_is_replaced() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("http.sock");
    drop(StdListener::bind(&path).unwrap());
    assert!(path.exists());
    let _gateway = gateway(&folder, "").await;
    assert!(ask(&path, "").await.starts_with("HTTP/1.1 200"));
}

#[test]
fn what_is_in_use_or_no_socket_is_left_alone() {
    use vestibule::{config::Listen, server::Bound};
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("http.sock");
    let _theirs = StdListener::bind(&path).unwrap();
    let taken = Bound::open(&Listen::Unix(path.clone())).unwrap_err();
    assert_eq!(taken.kind(), std::io::ErrorKind::AddrInUse);
    // Nor is one whose queue is full waited for.
    let full = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
    let path = folder.path().join("full.sock");
    full.bind(&SockAddr::unix(&path).unwrap()).unwrap();
    full.listen(0).unwrap();
    let _first = StdStream::connect(&path).unwrap();
    let taken = Bound::open(&Listen::Unix(path)).unwrap_err();
    assert_eq!(taken.kind(), std::io::ErrorKind::AddrInUse);
    let file = folder.path().join("notes.txt");
    fs::write(&file, "mine").unwrap();
    assert!(Bound::open(&Listen::Unix(file.clone())).is_err());
    assert_eq!(fs::read_to_string(&file).unwrap(), "mine");
}

/// Nobody answers at the first one's socket yet: it waits for Postgres.
#[tokio::test]
async fn a_second_start_takes_no_socket_from_a_gateway_that_starts() {
    let around = Surroundings::new().await;
    let path = around.file("http.sock");
    let (relay, relayed) = Relay::before(&around.db).await;
    relay.refuse();
    let admin = free_port();
    let over = format!(
        "[server]\nlisten = ['127.0.0.1:0', 'unix:{}']\n[admin]\nlisten = '127.0.0.1:{admin}'\n[database]\nurl = '{}'",
        path.display(),
        relayed.url()
    );
    let config = around.config(&over);
    let args = ["serve", "--config", config.to_str().unwrap()];
    let mut first = Program::start(&args, &[], around.folder.path());
    first.line("not serving yet").await;
    let second = program::run(&args, &[], around.folder.path()).await;
    assert_eq!(second.code, Some(1));
    assert!(second.stderr.contains("can't listen on"), "{}", second.stderr);

    relay.lead_to(&around.db);
    first.serving().await;
    assert!(ask(&path, "").await.starts_with("HTTP/1.1 200"));
}
