//! `vestibule serve` as an operator sees it: what it needs to start, what it waits for, how it ends.

use std::net::SocketAddr;

use tokio::{
    net::{TcpListener, TcpStream},
    time::timeout,
};

use crate::harness::{
    Database, RawClient, SOON,
    client::Response,
    eventually,
    gateway::SITE,
    program::{Ended, Program, free_port, run},
    relay::Relay,
    server::Server,
    surroundings::Surroundings,
};

/// Runs `serve` where it should end by itself.
async fn refused(around: &Surroundings, over: &str) -> Ended {
    let config = around.config(over);
    run(
        &["serve", "--config", config.to_str().unwrap()],
        &[],
        around.folder.path(),
    )
    .await
}

async fn get(addr: SocketAddr, path: &str) -> u16 {
    let host = SITE.split_once("://").unwrap().1;
    let mut client = RawClient::connect(addr).await;
    client
        .send(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"))
        .await;
    client.answer().await.status()
}

#[tokio::test]
async fn it_says_which_listeners_only_send_to_https() {
    let around = Surroundings::new().await;
    let pair = rcgen::generate_simple_self_signed(["app.example.com".to_owned()]).unwrap();
    std::fs::write(around.file("site.crt"), pair.cert.pem()).unwrap();
    std::fs::write(around.file("site.key"), pair.signing_key.serialize_pem()).unwrap();
    let tls = "[server.tls]\ncertificate = 'site.crt'\nkey = 'site.key'\nredirect_from = ['127.0.0.1:0']";
    let (mut program, ..) = Program::serve(&around.config(tls)).await;
    program.line("sending everybody to https").await;
    program.signal("TERM").await;
    let ended = program.ended().await;
    assert_eq!(ended.stderr.matches("\"serving ").count(), 1, "{}", ended.stderr);
}

#[tokio::test]
async fn a_signal_ends_it_in_order_with_0() {
    let surroundings = Surroundings::new().await;
    let config = surroundings.config("");
    for signal in ["TERM", "INT"] {
        let (program, public, admin) = Program::serve(&config).await;
        assert_eq!(get(public, "/public/x").await, 200);
        assert_eq!(get(admin, "/readyz").await, 200);
        program.signal(signal).await;
        let ended = program.ended().await;
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        assert!(ended.stderr.contains("stopped"), "{}", ended.stderr);
        assert!(
            ended.stdout.contains("/public/x"),
            "the access log was written to its end"
        );
        assert!(TcpStream::connect(public).await.is_err(), "nobody listens any more");
    }
}

#[tokio::test]
async fn a_request_in_flight_at_sigterm_is_finished() {
    let surroundings = Surroundings::new().await;
    let config = surroundings.config("[server]\nshutdown_grace = '30s'");
    let mut slow = surroundings.upstream.by_hand("/public/slow");
    let (program, public, _) = Program::serve(&config).await;
    let request = tokio::spawn(async move { get(public, "/public/slow").await });
    let mut conversation = slow.next().await;
    program.signal("TERM").await;
    eventually(SOON, async || TcpStream::connect(public).await.is_err()).await;
    conversation.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(request.await.unwrap(), 200);
    assert_eq!(program.ended().await.code, Some(0));
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    let surroundings = Surroundings::new().await;
    let config = surroundings.config("[server]\ndrain_delay = '10m'\nshutdown_grace = '10m'");
    let mut slow = surroundings.upstream.by_hand("/public/slow");
    let (mut program, public, _) = Program::serve(&config).await;
    let host = SITE.split_once("://").unwrap().1;
    let mut client = RawClient::connect(public).await;
    client
        .send(format!("GET /public/slow HTTP/1.1\r\nHost: {host}\r\n\r\n"))
        .await;
    let _conversation = slow.next().await;
    program.signal("TERM").await;
    program.line("not ready any more").await;
    program.signal("TERM").await;
    assert_eq!(program.ended().await.code, Some(0));
    client.rest().await;
}

#[tokio::test]
async fn a_taken_port_ends_the_start_with_1_and_a_sentence() {
    let surroundings = Surroundings::new().await;
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = taken.local_addr().unwrap();
    for (section, key) in [("server", "server.listen"), ("admin", "admin.listen")] {
        let ended = refused(&surroundings, &format!("[{section}]\nlisten = '{addr}'")).await;
        assert_eq!(ended.code, Some(1));
        let expected = format!("can't listen on {addr} ({key})");
        assert!(ended.stderr.contains(&expected), "{}", ended.stderr);
    }
}

#[tokio::test]
async fn a_second_gateway_on_the_same_port_does_not_start() {
    let surroundings = Surroundings::new().await;
    let (_first, public, _) = Program::serve(&surroundings.config("")).await;
    let ended = refused(&surroundings, &format!("[server]\nlisten = '{public}'")).await;
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains("can't listen on"), "{}", ended.stderr);
}

#[tokio::test]
async fn fail_02_a_wrong_configuration_ends_the_start_with_78() {
    let surroundings = Surroundings::new().await;
    let ended = refused(&surroundings, "[server]\nlisten = 'nowhere'").await;
    assert_eq!(ended.code, Some(78));
    assert!(ended.stderr.contains("server.listen"), "{}", ended.stderr);
    let empty = tempfile::tempdir().unwrap();
    let ended = run(&["serve"], &[], empty.path()).await;
    assert_eq!(ended.code, Some(78), "without a file");
}

#[tokio::test]
async fn a_database_that_must_be_migrated_by_hand_is_not_touched() {
    let surroundings = Surroundings::on(Database::empty().await).await;
    let ended = refused(&surroundings, "[database]\nmigrate = 'manual'").await;
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains("run `vestibule migrate`"), "{}", ended.stderr);
    let schemas = "SELECT count(*) FROM pg_namespace WHERE nspname = 'auth'";
    assert_eq!(surroundings.db.count(schemas).await, 0);
}

#[tokio::test]
async fn a_refusal_of_postgres_ends_the_start_with_1_and_its_words() {
    let surroundings = Surroundings::new().await;
    let real: url::Url = surroundings.db.url().parse().unwrap();
    let (mut password, mut database, mut tls) = (real.clone(), real.clone(), real);
    password.set_password(Some("wrong")).unwrap();
    database.set_path("/nowhere");
    tls.set_query(Some("sslmode=require"));
    for (url, words) in [
        (password, "password authentication failed"),
        (database, "database \"nowhere\" does not exist"),
        (tls, "server does not support TLS"),
    ] {
        let ended = refused(&surroundings, &format!("[database]\nurl = '{url}'")).await;
        assert_eq!(ended.code, Some(1), "{}", ended.stderr);
        assert!(ended.stderr.contains(words), "{}", ended.stderr);
    }
}

#[tokio::test]
async fn a_schema_may_be_called_what_sql_reserves() {
    let surroundings = Surroundings::on(Database::empty().await).await;
    let (_program, public, _) = Program::serve(&surroundings.config("[database]\nschema = 'user'")).await;
    assert_eq!(sign_in(public).await.status(), 401);
    let tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'user' AND tablename = 'users'";
    assert_eq!(surroundings.db.count(tables).await, 1);
}

#[tokio::test]
async fn it_waits_for_postgres_with_its_door_closed() {
    let db = Database::fresh().await;
    let surroundings = Surroundings::on(db).await;
    let real: url::Url = surroundings.db.url().parse().unwrap();
    let mut away = real.clone();
    let (door, admin) = (free_port(), SocketAddr::from(([127, 0, 0, 1], free_port())));
    let postgres = free_port();
    away.set_port(Some(postgres)).unwrap();
    let config = surroundings.config(&format!(
        "[server]\nlisten = '127.0.0.1:{door}'\n[admin]\nlisten = '{admin}'\n[database]\nurl = '{away}'"
    ));
    let mut program = Program::start(&["serve", "--config", config.to_str().unwrap()], &[], "/".as_ref());
    program.line("Postgres can't be reached").await;
    assert!(
        TcpStream::connect(("127.0.0.1", door)).await.is_err(),
        "its door is open"
    );
    assert_eq!((get(admin, "/livez").await, get(admin, "/readyz").await), (200, 503));

    // It comes up.
    let _relay = Relay::start(postgres, format!("127.0.0.1:{}", real.port().unwrap())).await;
    let (public, _) = program.serving().await;
    assert_eq!(public.port(), door);
    assert_eq!(get(admin, "/readyz").await, 200);
    assert_eq!(get(public, "/public/x").await, 200);
    program.signal("TERM").await;
    let ended = program.ended().await;
    assert_eq!(ended.code, Some(0));
    assert!(!ended.stderr.contains(real.password().unwrap()), "{}", ended.stderr);
}

#[tokio::test]
async fn a_signal_while_it_waits_for_postgres_ends_it() {
    let surroundings = Surroundings::new().await;
    let nobody = free_port();
    let config = surroundings.config(&format!("[database]\nurl = 'postgres://v:v@127.0.0.1:{nobody}/v'"));
    let mut program = Program::start(&["serve", "--config", config.to_str().unwrap()], &[], "/".as_ref());
    program.line("Postgres can't be reached").await;
    program.signal("TERM").await;
    assert_eq!(program.ended().await.code, Some(0));
}

async fn sign_in(addr: SocketAddr) -> Response {
    let host = SITE.split_once("://").unwrap().1;
    let body = r#"{"email":"ada@example.com","password":"correct horse battery staple"}"#;
    let length = body.len();
    let mut client = RawClient::connect(addr).await;
    client
        .send(format!(
            "POST /api/auth/sign-in/email HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        ))
        .await;
    client.answer().await
}

#[tokio::test]
async fn sess_13_a_frozen_postgres_is_503_in_time_and_used_again_when_it_is_back() {
    let server = Server::start().await;
    let surroundings = Surroundings::on(server.db().clone()).await;
    let config = surroundings.config("[database]\nstatement_timeout = '1s'\nacquire_timeout = '1s'");
    let (_program, public, _) = Program::serve(&config).await;
    assert_eq!(sign_in(public).await.status(), 401);

    let frozen = server.freeze();
    // The first finds a connection that looks well, the next ones none.
    for _ in 0..3 {
        let (answer, other) = tokio::join!(timeout(SOON, sign_in(public)), get(public, "/public/x"));
        let answer = answer.expect("an answer in time");
        assert_eq!(answer.status(), 503);
        assert_eq!(answer.head.one("retry-after"), Some("2"));
        assert_eq!(other, 200);
    }
    drop(frozen);
    eventually(SOON, async || sign_in(public).await.status() == 401).await;
}
