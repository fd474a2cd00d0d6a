//! WebSockets over HTTP/2 (RFC 8441): an extended CONNECT is judged as the upgrade that it stands for.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, Version};
use http_body_util::Empty;
use hyper::{
    body::Incoming,
    client::conn::http2::{self, SendRequest},
    ext::Protocol,
    upgrade::Upgraded,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::harness::{Gateway, SOON, Setup, eventually, people::User, upstream::Conversation};

async fn connection(gateway: &Gateway) -> SendRequest<Empty<Bytes>> {
    let stream = TcpStream::connect(gateway.addr()).await.unwrap();
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    sender
}

fn request(gateway: &Gateway, user: Option<&User>, protocol: &'static str) -> Request<Empty<Bytes>> {
    let mut request = Request::builder()
        .method(Method::CONNECT)
        .version(Version::HTTP_2)
        .uri(format!("http://{}/api/ws", gateway.host()))
        .header("origin", gateway.site())
        .header("sec-websocket-version", "13")
        .header("sec-websocket-protocol", "chat");
    if let Some(user) = user {
        request = request.header("cookie", &user.cookie);
    }
    let mut request = request.body(Empty::new()).unwrap();
    request.extensions_mut().insert(Protocol::from_static(protocol));
    request
}

/// Sends it when the gateway has said that it knows such requests.
async fn asked(gateway: &Gateway, request: Request<Empty<Bytes>>) -> Response<Incoming> {
    let mut sender = connection(gateway).await;
    // The gateway's settings come with its first answer at the latest.
    let first = Request::get(format!("http://{}/public/x", gateway.host())).body(Empty::new());
    sender.send_request(first.unwrap()).await.unwrap();
    timeout(SOON, sender.send_request(request)).await.unwrap().unwrap()
}

/// What an upstream answers that understood the gateway's key.
fn agreed(upstream: &Conversation) -> String {
    use base64ct::{Base64, Encoding};
    use sha1::{Digest, Sha1};
    let key = upstream.head.one("sec-websocket-key").expect("a key");
    assert_eq!(Base64::decode_vec(key).unwrap().len(), 16);
    let accept = Base64::encode_string(&Sha1::digest(format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11")));
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: chat\r\n\r\n"
    )
}

async fn open(gateway: &Gateway, user: &User) -> (TokioIo<Upgraded>, Conversation) {
    let mut conversations = gateway.upstream().by_hand("/api/ws");
    let asking = asked(gateway, request(gateway, Some(user), "websocket"));
    let answering = async {
        let mut upstream = conversations.next().await;
        let answer = agreed(&upstream);
        upstream.send(answer).await;
        upstream
    };
    let (response, upstream) = tokio::join!(asking, answering);
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["sec-websocket-protocol"], "chat");
    for name in ["sec-websocket-accept", "upgrade", "connection"] {
        assert!(!response.headers().contains_key(name), "{name}");
    }
    let client = timeout(SOON, hyper::upgrade::on(response)).await.unwrap().unwrap();
    (TokioIo::new(client), upstream)
}

#[tokio::test]
async fn bytes_flow_both_ways_and_the_upstream_sees_an_ordinary_upgrade() {
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    let (mut client, mut upstream) = open(&gateway, &ada).await;
    assert_eq!(upstream.head.start, "GET /api/ws HTTP/1.1");
    assert_eq!(upstream.head.one("upgrade"), Some("websocket"));
    assert_eq!(upstream.head.one("connection"), Some("upgrade"));
    assert_eq!(upstream.head.one("sec-websocket-version"), Some("13"));
    assert_eq!(upstream.head.one("x-user-id"), Some(ada.id.as_str()));
    assert!(!upstream.head.has("cookie"));

    let mut bytes = [0; 5];
    client.write_all(b"hello").await.unwrap();
    client.flush().await.unwrap();
    timeout(SOON, upstream.stream.read_exact(&mut bytes))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&bytes, b"hello");
    upstream.send("world").await;
    timeout(SOON, client.read_exact(&mut bytes)).await.unwrap().unwrap();
    assert_eq!(&bytes, b"world");

    client.shutdown().await.unwrap();
    let half = timeout(SOON, upstream.stream.read(&mut bytes)).await.unwrap().unwrap();
    assert_eq!(half, 0, "the client has ended its half");
    upstream.send("still").await;
    timeout(SOON, client.read_exact(&mut bytes)).await.unwrap().unwrap();
    assert_eq!(&bytes, b"still", "the other half stands");
}

#[tokio::test]
async fn route_17_a_stranger_gets_no_socket() {
    let gateway = Gateway::start().await;
    let response = asked(&gateway, request(&gateway, None, "websocket")).await;
    assert_eq!(response.status(), 401);
    assert_eq!(gateway.upstream().seen("/api/ws"), 0);
}

#[tokio::test]
async fn ws_01_another_origin_gets_no_socket_with_a_cookie() {
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    let mut foreign = request(&gateway, Some(&ada), "websocket");
    foreign
        .headers_mut()
        .insert("origin", "https://evil.example".parse().unwrap());
    assert_eq!(asked(&gateway, foreign).await.status(), 403);
    assert_eq!(gateway.upstream().seen("/api/ws"), 0);
}

#[tokio::test]
async fn other_protocols_and_a_plain_connect_are_no_way_out() {
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    let response = asked(&gateway, request(&gateway, Some(&ada), "connect-udp")).await;
    assert_eq!(response.status(), 405);
    let plain = Request::connect(gateway.host()).body(Empty::new()).unwrap();
    assert_eq!(asked(&gateway, plain).await.status(), 405);
}

#[tokio::test]
async fn an_upstream_that_answers_another_key_is_not_believed() {
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    gateway.upstream().answer(
        "/api/ws",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
    );
    let response = asked(&gateway, request(&gateway, Some(&ada), "websocket")).await;
    assert_eq!(response.status(), 502);
}

#[tokio::test]
async fn an_upstream_that_declines_is_heard_unless_it_says_success() {
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    // The usual answer, 200, would be the word for a tunnel.
    let response = asked(&gateway, request(&gateway, Some(&ada), "websocket")).await;
    assert_eq!(response.status(), 501);
    gateway
        .upstream()
        .answer("/api/ws", "HTTP/1.1 426 Upgrade Required\r\nContent-Length: 0\r\n\r\n");
    let response = asked(&gateway, request(&gateway, Some(&ada), "websocket")).await;
    assert_eq!(response.status(), 426);
}

#[tokio::test]
async fn ws_02_a_socket_ends_when_its_session_does() {
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    let (mut client, _upstream) = open(&gateway, &ada).await;
    gateway.sign_out(&ada).await;
    let said = "\"status\":200";
    eventually(SOON, async || {
        let log = gateway.log();
        log.lines()
            .any(|line| line.contains("/api/ws") && line.contains(said) && line.contains("UNAUTHORIZED"))
    })
    .await;
    let ended = timeout(SOON, client.read(&mut [0])).await.expect("the tunnel ends");
    assert_eq!(ended.unwrap_or(0), 0);
}

#[tokio::test]
async fn a_ban_and_an_expiry_end_a_socket() {
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    let (mut client, _upstream) = open(&gateway, &ada).await;
    gateway.db().run("UPDATE users SET banned = true").await;
    let ended = timeout(SOON, client.read(&mut [0])).await.expect("the tunnel ends");
    assert_eq!(ended.unwrap_or(0), 0);

    let bob = gateway.signed_in("bob@example.com").await;
    let (mut client, mut upstream) = open(&gateway, &bob).await;
    gateway.clock().advance(Duration::from_hours(6 * 24));
    upstream.send("x").await;
    timeout(SOON, client.read_exact(&mut [0])).await.unwrap().unwrap();
    gateway.clock().advance(Duration::from_hours(2 * 24));
    let ended = timeout(SOON, client.read(&mut [0])).await.expect("its time is over");
    assert_eq!(ended.unwrap_or(0), 0);
}

#[tokio::test]
async fn sockets_past_the_limit_are_refused() {
    let gateway = Setup::default().with("[server]\nmax_tunnels = 0").start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    let response = asked(&gateway, request(&gateway, Some(&ada), "websocket")).await;
    assert_eq!(response.status(), 503);
}

#[tokio::test]
async fn a_reload_ends_a_socket_only_if_it_may_not_go_on() {
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    let (mut client, mut upstream) = open(&gateway, &ada).await;
    // Other limits, and another rule by which it may go on.
    for rules in [
        "[server]\nmax_body = '5MiB'",
        "[[routes]]\npath = '/api/*'\nupstream = 'app'\nrequire = { roles = ['user'] }\ntimeout = '7s'",
    ] {
        gateway.reload(rules).await.unwrap();
        upstream.send("x").await;
        timeout(SOON, client.read_exact(&mut [0])).await.unwrap().unwrap();
    }
    gateway
        .reload("[[routes]]\npath = '/public/*'\nupstream = 'app'\nauth = 'public'")
        .await
        .unwrap();
    let ended = timeout(SOON, client.read(&mut [0])).await.expect("its route is gone");
    assert_eq!(ended.unwrap_or(0), 0);
}

#[tokio::test]
async fn a_refusal_never_looks_like_a_tunnel() {
    let gateway = Gateway::start().await;
    // To a gRPC call the answer would be 200.
    let mut stranger = request(&gateway, None, "websocket");
    stranger
        .headers_mut()
        .insert("content-type", "application/grpc".parse().unwrap());
    assert_eq!(asked(&gateway, stranger).await.status(), 401);
}
