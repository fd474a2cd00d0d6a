//! Fields behind a body pass both ways, but for those that may not come there.

use tokio::io::{AsyncBufReadExt, AsyncReadExt};

use crate::harness::{Gateway, RawClient, Setup, upstream::Conversation};

/// Reads to the end of what is under way; the trailers are in it.
async fn until_end(stream: &mut (impl AsyncBufReadExt + Unpin)) -> String {
    let mut text = Vec::new();
    while !text.ends_with(b"\r\n\r\n") {
        text.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(text).unwrap().to_ascii_lowercase()
}

async fn begun(gateway: &Gateway, fields: &str, body: &str) -> (RawClient, Conversation) {
    let mut conversations = gateway.upstream().by_hand("/public/x");
    let mut client = gateway.raw().await;
    let host = gateway.host();
    client
        .send(format!("POST /public/x HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n{body}"))
        .await;
    (client, conversations.next().await)
}

#[tokio::test]
async fn what_a_client_says_behind_its_body_reaches_the_upstream() {
    let gateway = Gateway::start().await;
    let fields = "Transfer-Encoding: chunked\r\nTrailer: X-Checksum, X-User-Id, Host\r\n";
    let body =
        "2\r\nhi\r\n0\r\nX-Checksum: 42\r\nX-User-Id: forged\r\nHost: elsewhere\r\nX-Forwarded-For: 1.2.3.4\r\n\r\n";
    let (mut client, mut upstream) = begun(&gateway, fields, body).await;
    assert_eq!(upstream.head.one("trailer"), Some("x-checksum"));
    assert_eq!(
        until_end(&mut upstream.stream).await,
        "2\r\nhi\r\n0\r\nx-checksum: 42\r\n\r\n"
    );
    upstream.send("HTTP/1.1 204 No Content\r\n\r\n").await;
    assert_eq!(client.answer_to("POST").await.status(), 204);
}

#[tokio::test]
async fn what_a_route_s_rules_speak_of_a_client_does_not_say_behind_its_body() {
    let rules = "routes = [{ path = '/public/*', upstream = 'app', auth = 'public', request_headers = \
                 { set = { X-Key = 'k' }, add = { X-Tag = 't' }, remove = ['X-Debug'] } }]";
    let gateway = Setup::default().with(rules).start().await;
    let fields = "Transfer-Encoding: chunked\r\nTrailer: X-Key, x_key, X-Tag, X.Debug, X-Sum\r\n";
    let body = "2\r\nhi\r\n0\r\nX-Key: c\r\nX_Key: c\r\nX-Tag: c\r\nX.Debug: c\r\nX-Sum: 42\r\n\r\n";
    let (mut client, mut upstream) = begun(&gateway, fields, body).await;
    assert_eq!(upstream.head.one("trailer"), Some("x-sum"));
    assert_eq!(upstream.head.one("x-key"), Some("k"));
    assert_eq!(
        until_end(&mut upstream.stream).await,
        "2\r\nhi\r\n0\r\nx-sum: 42\r\n\r\n"
    );
    upstream.send("HTTP/1.1 204 No Content\r\n\r\n").await;
    assert_eq!(client.answer_to("POST").await.status(), 204);
}

const ANSWER: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\
                      Trailer: Server-Timing, Set-Cookie, X-Vestibule-Sign-Out\r\n\r\n2\r\nhi\r\n0\r\n\
                      Server-Timing: db;dur=53\r\nSet-Cookie: a=b\r\nX-Vestibule-Sign-Out: session\r\n\r\n";

#[tokio::test]
async fn what_an_upstream_says_behind_its_body_reaches_a_client_that_keeps_it() {
    let gateway = Gateway::start().await;
    let (mut client, mut upstream) =
        begun(&gateway, "TE: trailers\r\nConnection: TE\r\nContent-Length: 0\r\n", "").await;
    assert_eq!(upstream.head.one("te"), Some("trailers"));
    assert_eq!(upstream.head.one("connection"), Some("te"));
    upstream.send(ANSWER).await;
    let head = client.head().await;
    assert_eq!(head.one("trailer"), Some("server-timing"));
    assert_eq!(
        until_end(&mut client.stream).await,
        "2\r\nhi\r\n0\r\nserver-timing: db;dur=53\r\n\r\n"
    );
}

#[tokio::test]
async fn what_a_route_s_rules_take_from_answers_does_not_come_behind_them() {
    let rules = "routes = [{ path = '/public/*', upstream = 'app', auth = 'public', response_headers = \
                 { set = { X-Tier = 'front' }, add = { Server-Timing = 'gate' }, remove = ['X-Internal-Debug'] } }]";
    let gateway = Setup::default().with(rules).start().await;
    let (mut client, mut upstream) =
        begun(&gateway, "TE: trailers\r\nConnection: TE\r\nContent-Length: 0\r\n", "").await;
    upstream
        .send(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\
             Trailer: Server-Timing, X-Internal-Debug, X-Tier\r\n\r\n2\r\nhi\r\n0\r\n\
             Server-Timing: db\r\nX-Internal-Debug: 10.0.0.7\r\nX-Tier: back\r\n\r\n",
        )
        .await;
    let head = client.head().await;
    assert_eq!(head.one("trailer"), Some("server-timing"));
    assert_eq!(
        (head.one("x-tier"), head.one("server-timing")),
        (Some("front"), Some("gate"))
    );
    assert_eq!(
        until_end(&mut client.stream).await,
        "2\r\nhi\r\n0\r\nserver-timing: db\r\n\r\n"
    );
}

#[tokio::test]
async fn a_client_that_does_not_ask_for_trailers_gets_none() {
    let gateway = Gateway::start().await;
    let (mut client, mut upstream) = begun(&gateway, "TE: deflate\r\nContent-Length: 0\r\n", "").await;
    assert!(!upstream.head.has("te"));
    upstream.send(ANSWER).await;
    client.head().await;
    assert_eq!(until_end(&mut client.stream).await, "2\r\nhi\r\n0\r\n\r\n");
}
