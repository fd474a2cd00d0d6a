//! WS: sockets are judged as what they are, and end with what allowed them.

use http_body_util::Full;
use tokio::task::JoinHandle;

use super::sent;
use crate::{
    harness::{Gateway, RawClient, SOON, Setup, eventually, h2_client::H2Client, people::User, wire::read_chunk},
    upgrade::{AGREED, upgrade},
};

/// A request for a socket with these lines.
fn asking(gateway: &Gateway, path: &str, lines: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{lines}\r\n",
        gateway.host()
    )
}

/// What follows was meant for a tunnel.
#[tokio::test]
async fn behind_a_connect_that_is_refused_nothing_is_read() {
    let gateway = Gateway::start().await;
    for (version, lines) in [
        ("1.1", ""),
        ("1.1", "Content-Length: 0\r\n"),
        ("1.1", "Transfer-Encoding: chunked\r\n"),
        ("1.0", "Connection: keep-alive\r\n"),
    ] {
        let mut client = gateway.raw().await;
        let host = gateway.host();
        let hidden = format!("GET /public/hidden HTTP/1.1\r\nHost: {host}\r\n\r\n");
        let body = if lines.contains("chunked") { "0\r\n\r\n" } else { "" };
        client
            .send(format!(
                "CONNECT {host} HTTP/{version}\r\nHost: {host}\r\n{lines}\r\n{body}{hidden}"
            ))
            .await;
        let answer = client.answer_to("CONNECT").await;
        assert!((400..500).contains(&answer.status()), "{lines}");
        assert!(client.is_closed().await, "{lines}");
        assert_eq!(gateway.upstream().seen("/public/hidden"), 0, "{lines}");
    }
}

#[tokio::test]
async fn route_17_without_a_session_there_is_no_socket_however_it_is_asked_for() {
    let gateway = Gateway::start().await;
    let host = gateway.host();
    let websocket = "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
    for (line, fields) in [
        ("GET /api/ws HTTP/1.1", "Connection: Upgrade\r\nUpgrade: websocket"),
        (
            "GET /api/ws HTTP/1.1",
            "Connection: keep-alive, Upgrade\r\nUpgrade: WebSocket",
        ),
        ("GET /api/ws HTTP/1.1", "connection: upgrade\r\nupgrade: websocket"),
        ("GET /api/ws HTTP/1.1", "Upgrade: websocket"),
        ("GET /api/ws HTTP/1.1", "Connection: Upgrade\r\nUpgrade: websocket, h2c"),
        (
            "GET /api/ws HTTP/1.1",
            "Connection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: h2c",
        ),
        ("GET /api/ws HTTP/1.0", "Connection: Upgrade\r\nUpgrade: websocket"),
        (
            "POST /api/ws HTTP/1.1",
            "Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 0",
        ),
        ("OPTIONS /api/ws HTTP/1.1", "Connection: Upgrade\r\nUpgrade: websocket"),
        (
            "GET /public/../api/ws HTTP/1.1",
            "Connection: Upgrade\r\nUpgrade: websocket",
        ),
        ("GET /admin/ws HTTP/1.1", "Connection: Upgrade\r\nUpgrade: websocket"),
        (
            "GET /api/ws HTTP/1.1",
            "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Protocol: bearer, e30.e30.e30",
        ),
        (
            "GET /api/ws HTTP/1.1",
            "Connection: Upgrade\r\nUpgrade: websocket\r\nX-User-Id: 1",
        ),
    ] {
        let (answer, _) = sent(
            &gateway,
            format!("{line}\r\nHost: {host}\r\n{fields}\r\n{websocket}\r\n\r\n"),
        )
        .await;
        assert_eq!(answer.status(), 401, "{line} {fields}");
    }
    assert_eq!(gateway.upstream().connections(), 0);
}

#[tokio::test]
async fn ws_01_a_page_of_another_site_gets_no_socket_with_somebodys_cookie() {
    let setup =
        Setup::default().with("[auth]\ntrusted_origins = ['https://friend.example', 'https://*.tenants.example']");
    let gateway = setup.start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    let cookie = format!("Cookie: {}\r\n", ada.cookie);
    for lines in [
        "Origin: https://evil.example",
        "Origin: null",
        "Origin: ",
        "Origin: http://app.example.com",
        "Origin: https://app.example.com:8443",
        "Origin: https://app.example.com.evil.example",
        "Origin: https://evil.example/https://app.example.com",
        "Origin: https://evilapp.example.com",
        "Origin: https://app.example.com@evil.example",
        "Origin: https://app.example.com, https://evil.example",
        "Origin: https://app.example.com\r\nOrigin: https://evil.example",
        "Origin: https://evil.example\r\nOrigin: https://app.example.com",
        "Origin: https://tenants.example",
        "Origin: https://a.tenants.example.evil.example",
        "Origin: https://xtenants.example",
        "Origin: chrome-extension://abc",
        "Origin: file://",
        "Origin: https://evil.example\r\nSec-Fetch-Site: cross-site",
        "Origin: https://evil.example\r\nReferer: https://app.example.com/",
        "Sec-Fetch-Site: cross-site",
        "Sec-Fetch-Site: same-site",
        "Sec-Fetch-Site: cross-site\r\nReferer: https://app.example.com/",
        "Referer: https://evil.example/?https://app.example.com/",
        "Sec-WebSocket-Origin: https://app.example.com\r\nOrigin: https://evil.example",
    ] {
        let (answer, _) = sent(&gateway, asking(&gateway, "/api/ws", &format!("{cookie}{lines}\r\n"))).await;
        assert_eq!(
            (answer.status(), answer.code()),
            (403, "CROSS_ORIGIN".to_owned()),
            "{lines}"
        );
    }
    assert_eq!(gateway.upstream().connections(), 0);
    gateway.upstream().answer("/api/ws", AGREED);
    let bearer = format!("Authorization: Bearer {}\r\n", ada.token);
    for lines in [
        format!("{cookie}Origin: https://app.example.com\r\n"),
        format!("{cookie}Origin: https://friend.example\r\n"),
        format!("{cookie}Origin: https://a.tenants.example\r\nSec-Fetch-Site: cross-site\r\n"),
        // Programs, which are no browsers.
        cookie.clone(),
        format!("{bearer}Origin: https://evil.example\r\n"),
    ] {
        let mut client = gateway.raw().await;
        client.send(asking(&gateway, "/api/ws", &lines)).await;
        assert_eq!(client.head().await.status(), 101, "{lines}");
    }
    // Where nobody needs to be signed in there is nothing to abuse; and nobody's identity goes along.
    gateway.upstream().answer("/public/ws", AGREED);
    let mut client = gateway.raw().await;
    client
        .send(asking(
            &gateway,
            "/public/ws",
            &format!("{cookie}Origin: https://evil.example\r\n"),
        ))
        .await;
    assert_eq!(client.head().await.status(), 101);
    assert!(!gateway.upstream().last().head.has("x-user-id"));
}

/// Asks for events on both protocols; what was asked ends when the answer does.
fn listening(gateway: &Gateway, user: &User) -> [JoinHandle<()>; 2] {
    let (addr, host, cookie) = (gateway.addr(), gateway.host().to_owned(), user.cookie.clone());
    let head = format!("GET /api/events HTTP/1.1\r\nHost: {host}\r\nCookie: {cookie}\r\n\r\n");
    let first = async move {
        let mut client = RawClient::connect(addr).await;
        client.send(head).await;
        assert_eq!(client.head().await.status(), 200);
        // To the last chunk, or the end of the connection.
        while read_chunk(&mut client.stream, &mut Vec::new()).await.unwrap_or(0) > 0 {}
    };
    let second = async move {
        let client = H2Client::connect(addr, &host).await;
        let request = client.request("GET", "/api/events").header("cookie", cookie);
        // However it ends.
        let _ = client.send(request.body(Full::default()).unwrap()).await;
    };
    [tokio::spawn(first), tokio::spawn(second)]
}

/// Whatever ends a session ends what was opened in it: sockets, and streams of events on both protocols.
#[tokio::test]
async fn ws_02_sess_08_nothing_that_lasts_outlives_its_session() {
    for statement in [
        "UPDATE user_sessions SET revoked_at = now()",
        "DELETE FROM user_sessions",
        "UPDATE users SET banned = true",
        "DELETE FROM users",
    ] {
        let gateway = Gateway::start().await;
        let ada = gateway.signed_in("ada@example.com").await;
        let mut sockets = gateway.upstream().by_hand("/api/ws");
        let mut socket = gateway.raw().await;
        socket.send(upgrade(&gateway, "/api/ws", Some(&ada))).await;
        let mut upstream = sockets.next().await;
        upstream.send(AGREED).await;
        assert_eq!(socket.head().await.status(), 101);

        let mut streams = gateway.upstream().by_hand("/api/events");
        let listening = listening(&gateway, &ada);
        let mut sources = Vec::new();
        for _ in &listening {
            let mut source = streams.next().await;
            let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
            source.send(format!("{head}9\r\ndata: 1\n\n\r\n")).await;
            sources.push(source);
        }
        eventually(SOON, async || gateway.metric("vestibule_open_streams").await > 2.5).await;
        assert!(listening.iter().all(|listens| !listens.is_finished()));

        gateway.db().run(statement).await;
        assert!(socket.is_closed().await, "{statement}");
        for listens in listening {
            listens.await.unwrap();
        }
        eventually(SOON, async || gateway.metric("vestibule_open_streams").await < 0.5).await;
        drop((upstream, sources));
    }
}
