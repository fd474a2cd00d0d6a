//! Sockets that whoever starts the gateway has opened: it keeps them, and with them what waits in their queues.

use std::{
    net::TcpListener,
    os::{fd::OwnedFd, unix::net::UnixListener},
    path::{Path, PathBuf},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};

use crate::{
    handover::Load,
    harness::{
        program::{Ended, Program},
        surroundings::Surroundings,
    },
};

/// To a shell: the process that it becomes.
const ITSELF: &str = "$$";

fn config(around: &Surroundings, server: &str) -> PathBuf {
    around.config(&format!("[server]\n{server}"))
}

/// A socket as systemd has it, and how often it is handed over.
fn socket() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").unwrap()
}

fn handed_over(socket: &TcpListener) -> OwnedFd {
    socket.try_clone().unwrap().into()
}

/// How a start ended that could not succeed.
async fn refused(config: &Path, names: &str, process: &str) -> Ended {
    Program::activated(config, socket().into(), names, process)
        .ended()
        .await
}

#[tokio::test]
async fn a_restart_refuses_nothing_while_the_socket_stays_with_who_opened_it() {
    let around = Surroundings::new().await;
    let socket = socket();
    let addr = socket.local_addr().unwrap();
    // Long enough for each client to be asked to leave.
    let config = |workers: usize| {
        config(
            &around,
            &format!("listen = 'fd:http'\nworkers = {workers}\ndrain_delay = '300ms'\nshutdown_grace = '30s'"),
        )
    };
    let mut running = Program::activated(&config(2), handed_over(&socket), "http:other", ITSELF);
    assert_eq!(running.serving().await.0, addr);
    let load = Load::start(addr);
    load.goes_on().await;
    for workers in [3, 1] {
        running.signal("TERM").await;
        let ended = running.ended().await;
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        assert!(!ended.stderr.contains("cut off"), "{}", ended.stderr);
        // Nobody listens now, and clients wait in the queue.
        running = Program::activated(&config(workers), handed_over(&socket), "http:other", ITSELF);
        running.serving().await;
        load.goes_on().await;
    }
    load.end().await;
}

#[tokio::test]
async fn a_unix_socket_is_taken_by_its_number() {
    let around = Surroundings::new().await;
    let path = around.folder.path().join("http.sock");
    let socket = UnixListener::bind(&path).unwrap();
    let config = config(&around, "listen = 'fd:4'\nworkers = 2");
    let mut running = Program::activated(&config, socket.into(), "http:https", ITSELF);
    running.line("at unix sockets alone").await;
    for _ in 0..10 {
        let mut stream = UnixStream::connect(&path).await.unwrap();
        let request = "GET /public/x HTTP/1.1\r\nHost: app.example.com\r\nConnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    let warning = running.line("no key has them").await;
    assert!(warning.contains(r#"\"http\" (3)"#), "{warning}");
    assert!(!warning.contains("https"), "{warning}");
}

#[tokio::test]
async fn several_sockets_of_one_name_are_one_listener() {
    let around = Surroundings::new().await;
    let socket = socket();
    let config = config(&around, "listen = 'fd:http'");
    let mut running = Program::activated(&config, handed_over(&socket), "http:http", ITSELF);
    assert_eq!(running.serving().await.0, socket.local_addr().unwrap());
    assert!(!running.output().contains("no key has them"));
}

#[tokio::test]
async fn a_socket_that_was_not_handed_over_is_a_sentence_that_names_the_unit_line() {
    let around = Surroundings::new().await;
    let config = config(&around, "listen = 'fd:http'");
    let ended = refused(&config, "web:admin", ITSELF).await;
    assert_eq!(ended.code, Some(1));
    for words in [
        "fd:http (server.listen)",
        r#""web" (3), "admin" (4)"#,
        "FileDescriptorName=http",
    ] {
        assert!(ended.stderr.contains(words), "{words} is not in {}", ended.stderr);
    }
    // What another process was given is not ours: its descriptors are not ours either.
    let ended = refused(&config, "http:http", "1").await;
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains("LISTEN_PID"), "{}", ended.stderr);
    let ended = Program::start(&["serve", "--config", config.to_str().unwrap()], &[], Path::new("/"))
        .ended()
        .await;
    assert!(ended.stderr.contains("LISTEN_FDS is not set"), "{}", ended.stderr);
}

#[tokio::test]
async fn a_socket_is_of_one_key() {
    let around = Surroundings::new().await;
    let config = config(&around, "listen = ['fd:http', 'fd:3']");
    let ended = refused(&config, "http:other", ITSELF).await;
    assert!(
        ended.stderr.contains("another key has descriptor 3 already"),
        "{}",
        ended.stderr
    );
}
