//! WebSockets and other tunnels.

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use crate::harness::{Gateway, RawClient, SOON, Setup, eventually, people::User, upstream::Conversation};

pub(crate) const AGREED: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                      Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// The request for one.
pub(crate) fn upgrade(gateway: &Gateway, path: &str, user: Option<&User>) -> String {
    let host = gateway.host();
    let cookie = user
        .map(|user| format!("Cookie: {}\r\n", user.cookie))
        .unwrap_or_default();
    format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n{cookie}\
         Origin: https://app.example.com\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
}

/// A socket that stands, both of its ends.
async fn open(gateway: &Gateway, user: &User) -> (RawClient, Conversation) {
    let mut conversations = gateway.upstream().by_hand("/api/ws");
    let mut client = gateway.raw().await;
    client.send(upgrade(gateway, "/api/ws", Some(user))).await;
    let mut upstream = conversations.next().await;
    upstream.send(AGREED).await;
    let head = client.head().await;
    assert_eq!(head.status(), 101);
    assert_eq!(head.one("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    (client, upstream)
}

#[tokio::test]
async fn bytes_flow_both_ways() {
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    let (mut client, mut upstream) = open(&gateway, &ada).await;
    assert_eq!(upstream.head.one("x-user-id"), Some(ada.id.as_str()));
    assert!(!upstream.head.has("cookie"));
    assert_eq!(upstream.head.one("upgrade"), Some("websocket"));

    let mut bytes = [0; 5];
    client.send("hello").await;
    timeout(SOON, upstream.stream.read_exact(&mut bytes))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&bytes, b"hello");
    upstream.send("world").await;
    timeout(SOON, client.stream.read_exact(&mut bytes))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&bytes, b"world");
}

#[tokio::test]
async fn when_one_side_ends_the_other_hears_of_it() {
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    let (mut client, upstream) = open(&gateway, &ada).await;
    drop(upstream);
    assert!(client.is_closed().await);
    let (client, mut upstream) = open(&gateway, &ada).await;
    drop(client);
    assert_eq!(
        timeout(SOON, upstream.stream.read(&mut [0]))
            .await
            .unwrap()
            .unwrap_or(0),
        0
    );
}

#[tokio::test]
async fn a_handshake_with_a_body_is_a_request_like_others() {
    let gateway = Gateway::start().await;
    let host = gateway.host();
    for body in [
        "Content-Length: 4\r\n\r\nbody",
        "Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n",
    ] {
        let mut client = gateway.raw().await;
        client
            .send(format!(
                "GET /public/ws HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n{body}"
            ))
            .await;
        assert_eq!(client.answer().await.status(), 200, "{body}");
        let seen = gateway.upstream().last();
        assert_eq!(
            (&seen.body[..], seen.head.has("upgrade")),
            (&b"body"[..], false),
            "{body}"
        );
        assert!(client.is_closed().await, "{body}: what follows was meant for a tunnel");
    }
}

#[tokio::test]
async fn a_stranger_gets_no_socket() {
    let gateway = Gateway::start().await;
    let mut client = gateway.raw().await;
    let hidden = format!("GET /public/x#y HTTP/1.1\nHost: {}\n\n", gateway.host());
    client.send(upgrade(&gateway, "/api/ws", None) + &hidden).await;
    assert_eq!(client.answer().await.status(), 401);
    assert_eq!(
        client.rest().await,
        b"",
        "what was hidden behind it is nobody's request"
    );
    assert_eq!(gateway.upstream().connections(), 0);
}

#[tokio::test]
async fn what_a_client_sends_before_the_upstream_agreed_is_no_request() {
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    let mut conversations = gateway.upstream().by_hand("/api/ws");
    let mut client = gateway.raw().await;
    let smuggled = format!("GET /admin/x HTTP/1.1\r\nHost: {}\r\n\r\n", gateway.host());
    client.send(upgrade(&gateway, "/api/ws", Some(&ada)) + &smuggled).await;
    let mut upstream = conversations.next().await;
    upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno").await;
    let answer = client.answer().await;
    assert_eq!((answer.status(), answer.text()), (200, "no"));
    assert_eq!(client.rest().await, b"", "the connection ends, and those bytes with it");
    assert_eq!(gateway.upstream().seen("/admin/x"), 0);
}

#[tokio::test]
async fn an_upstream_that_declines_is_heard() {
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    let mut client = gateway.raw().await;
    client.send(upgrade(&gateway, "/api/ws", Some(&ada))).await;
    let answer = client.answer().await;
    assert_eq!((answer.status(), answer.text()), (200, "GET /api/ws"));
}

#[tokio::test]
async fn an_upgrade_that_nobody_asked_for_is_the_upstreams_fault() {
    let gateway = Gateway::start().await;
    gateway.upstream().answer("/public/x", AGREED);
    assert_eq!(gateway.get("/public/x").await.status(), 502);
}

#[tokio::test]
async fn tunnels_past_the_limit_are_refused() {
    let gateway = Setup::default().with("[server]\nmax_tunnels = 1").start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    let (mut first, _upstream) = open(&gateway, &ada).await;
    let mut second = gateway.raw().await;
    second.send(upgrade(&gateway, "/api/ws", Some(&ada))).await;
    assert_eq!(second.answer().await.status(), 503);
    first.stream.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_tunnel_through_which_nothing_passes_ends() {
    let setup = Setup::default().with("[server]\ntunnel_idle_timeout = \"300ms\"");
    let gateway = setup.start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    let (mut client, _upstream) = open(&gateway, &ada).await;
    assert!(client.is_closed().await);
}

#[tokio::test]
async fn a_socket_ends_when_its_session_does() {
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    let (mut client, _upstream) = open(&gateway, &ada).await;
    gateway.sign_out(&ada).await;
    assert!(client.is_closed().await);
}

/// The line about the socket, once there is one.
async fn line(gateway: &Gateway) -> Value {
    let of_socket = |log: &str| log.lines().find(|line| line.contains("\"/api/ws\"")).map(str::to_owned);
    eventually(SOON, async || of_socket(&gateway.log()).is_some()).await;
    serde_json::from_str(&of_socket(&gateway.log()).unwrap()).unwrap()
}

#[tokio::test]
async fn the_log_has_a_socket_at_its_end_with_what_passed_through_it() {
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    let (mut client, mut upstream) = open(&gateway, &ada).await;
    let mut bytes = [0; 12];
    client.send("hello").await;
    upstream.stream.read_exact(&mut bytes[..5]).await.unwrap();
    upstream.send("how are you?").await;
    client.stream.read_exact(&mut bytes).await.unwrap();
    // What comes later has its line already.
    assert_eq!(gateway.get("/public/later").await.status(), 200);
    eventually(SOON, async || gateway.log().contains("/public/later")).await;
    assert!(!gateway.log().contains("/api/ws"));

    drop((client, upstream));
    let line = line(&gateway).await;
    assert_eq!(line["status"], 101, "{line}");
    assert_eq!(
        (&line["bytes_in"], &line["bytes_out"]),
        (&5.into(), &12.into()),
        "{line}"
    );
    assert_eq!(line["user_id"], ada.id);
    assert!(line.get("error").is_none(), "{line}");
}

#[tokio::test]
async fn the_log_says_why_a_socket_had_to_end() {
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    let (_client, _upstream) = open(&gateway, &ada).await;
    gateway.sign_out(&ada).await;
    let line = line(&gateway).await;
    assert_eq!(
        (&line["status"], &line["error"]),
        (&101.into(), &"UNAUTHORIZED".into()),
        "{line}"
    );
}

#[tokio::test]
async fn the_log_has_sockets_that_the_gateway_ends_when_it_stops() {
    let setup = Setup::default().with("[server]\nstream_grace = '100ms'\nshutdown_grace = '20s'");
    let gateway = setup.start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    let (_client, _upstream) = open(&gateway, &ada).await;
    let log = gateway.last_words().await;
    let line = log.lines().find(|line| line.contains("\"/api/ws\"")).expect("its line");
    assert!(
        line.contains("\"error\":\"SERVICE_UNAVAILABLE\",\"error_side\":\"gateway\""),
        "{line}"
    );
}

#[tokio::test]
async fn a_socket_that_new_rules_do_not_allow_is_closed() {
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    for rules in [
        "upstream = 'app'\nrequire = { roles = ['admin'] }",
        "upstream = 'app'\nwebsocket = false",
        "respond = { status = 410 }",
    ] {
        let (mut client, _upstream) = open(&gateway, &ada).await;
        let rules = format!("[[routes]]\npath = '/api/*'\n{rules}");
        gateway.reload(&rules).await.unwrap();
        assert!(client.is_closed().await, "{rules}");
        gateway.reload("").await.unwrap();
    }
}

#[tokio::test]
async fn a_socket_that_new_rules_allow_goes_on() {
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    let (mut client, mut upstream) = open(&gateway, &ada).await;
    let rules = "[[routes]]\npath = '/api/*'\nupstream = 'app'\nrequire = { roles = ['user'] }\nretries = 0";
    gateway.reload(rules).await.unwrap();
    let mut bytes = [0; 5];
    upstream.send("still").await;
    timeout(SOON, client.stream.read_exact(&mut bytes))
        .await
        .expect("it is open")
        .unwrap();
    assert_eq!(&bytes, b"still");
}

#[tokio::test]
async fn a_route_without_websockets_refuses_the_upgrade_and_serves_the_rest() {
    let gateway = Setup::default()
        .with("[[routes]]\npath = '/public/*'\nupstream = 'app'\nauth = 'public'\nwebsocket = false")
        .start()
        .await;
    let upgrade = gateway.get("/public/ws").header("Connection", "Upgrade");
    let refused = upgrade.header("Upgrade", "websocket").await;
    assert_eq!((refused.status(), refused.code().as_str()), (403, "UPGRADE_REFUSED"));
    assert_eq!(gateway.upstream().seen("/public/ws"), 0);
    assert_eq!(gateway.get("/public/ws").await.status(), 200);
}
