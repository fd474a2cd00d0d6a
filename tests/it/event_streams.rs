//! Event streams and other answers that go on: nothing is gathered, and they end with the session that they began in.

use tokio::time::timeout;

use crate::harness::{
    Gateway, RawClient, SOON, Setup,
    frames::{self, DATA, END_HEADERS, Frames, HEADERS, RST_STREAM, frame},
    people::User,
    upstream::Conversation,
    wire::read_chunk,
};

// Media types have no case.
const HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Type: Text/Event-Stream\r\nTransfer-Encoding: chunked\r\n\r\n";
const EVENT: &str = "9\r\ndata: 1\n\n\r\n";

async fn listening(gateway: &Gateway, user: &User) -> (RawClient, Conversation) {
    let (mut client, mut upstream) = asked(gateway, "/api/events", &user.cookie).await;
    begin(&mut client, &mut upstream).await;
    upstream.send(EVENT).await;
    assert_eq!(event(&mut client).await, "data: 1\n\n");
    (client, upstream)
}

/// The application was asked for events, and has not begun to answer.
async fn asked(gateway: &Gateway, path: &str, cookie: &str) -> (RawClient, Conversation) {
    let mut conversations = gateway.upstream().by_hand(path);
    let mut client = gateway.raw().await;
    let host = gateway.host();
    client
        .send(format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nCookie: {cookie}\r\nAccept: text/event-stream\r\n\r\n"
        ))
        .await;
    (client, conversations.next().await)
}

async fn begin(client: &mut RawClient, upstream: &mut Conversation) {
    upstream.send(HEAD).await;
    assert_eq!(client.head().await.status(), 200);
}

async fn event(client: &mut RawClient) -> String {
    let mut piece = Vec::new();
    timeout(SOON, read_chunk(&mut client.stream, &mut piece))
        .await
        .expect("an event at once")
        .unwrap();
    String::from_utf8(piece).unwrap()
}

/// What the application still hears until its connection is over, ended or broken off.
async fn until_its_end(upstream: &mut Conversation) -> Vec<u8> {
    let mut rest = Vec::new();
    let told = tokio::io::AsyncReadExt::read_to_end(&mut upstream.stream, &mut rest);
    let _ = timeout(SOON, told).await.expect("the upstream hears of it");
    rest
}

#[tokio::test]
async fn ws_02_a_stream_ends_when_its_session_does() {
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    let (mut client, mut upstream) = listening(&gateway, &ada).await;
    gateway.sign_out(&ada).await;
    assert_eq!(event(&mut client).await, "", "the last chunk");
    until_its_end(&mut upstream).await;
}

/// The client keeps its window shut, so that nobody asks for more of the answer: neither that nor what it still has to say may
/// go on in its name.
#[tokio::test]
async fn ws_02_a_stream_that_is_not_read_ends_with_its_session_and_what_is_sent_on_it_too() {
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    let mut conversations = gateway.upstream().by_hand("/api/events");
    let mut client = Frames::with_window(gateway.addr(), 4).await;
    let (host, site) = (gateway.host(), gateway.site());
    let fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":authority", host),
        (":path", "/api/events"),
        ("cookie", ada.cookie.as_str()),
        ("origin", site),
    ];
    client
        .send(frame(HEADERS, END_HEADERS, 1, &frames::block(&fields)))
        .await;
    client.send(frame(DATA, 0, 1, b"one")).await;
    let mut upstream = conversations.next().await;
    let mut heard = Vec::new();
    read_chunk(&mut upstream.stream, &mut heard).await.unwrap();
    // Of the first a part can be sent; nobody asks for what is behind the second.
    upstream.send([HEAD, EVENT, EVENT].concat()).await;
    let begun = client.until(|frame| frame.stream == 1 && frame.kind == DATA).await;
    assert_eq!(begun.payload, b"data");

    gateway.sign_out(&ada).await;
    client.send(frame(DATA, 0, 1, b"two")).await;
    let ended = client.until(|frame| frame.stream == 1).await;
    assert_eq!(ended.kind, RST_STREAM);
    assert_eq!(heard, b"one");
    assert!(until_its_end(&mut upstream).await.is_empty());
}

/// It has begun to send its next request, so that nobody reads while this one is answered.
#[tokio::test]
async fn a_stream_ends_when_its_client_has_gone_whatever_it_left_behind() {
    let gateway = Setup::default().with("[server]\nheader_timeout = '1s'").start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    let mut conversations = gateway.upstream().by_hand("/api/events");
    let mut client = gateway.raw().await;
    let (host, cookie) = (gateway.host(), &ada.cookie);
    client
        .send(format!(
            "GET /api/events HTTP/1.1\r\nHost: {host}\r\nCookie: {cookie}\r\n\r\nG"
        ))
        .await;
    let mut upstream = conversations.next().await;
    begin(&mut client, &mut upstream).await;
    drop(client);
    until_its_end(&mut upstream).await;
}

#[tokio::test]
async fn another_sessions_end_leaves_a_stream_alone() {
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    let bob = gateway.signed_in("bob@example.com").await;
    let (mut client, mut upstream) = listening(&gateway, &ada).await;
    gateway.sign_out(&bob).await;
    upstream.send(EVENT).await;
    assert_eq!(event(&mut client).await, "data: 1\n\n");
}

#[tokio::test]
async fn told_not_to_a_gateway_leaves_streams_alone() {
    let setup = Setup::default().with("[auth.session]\nclose_streams_on_revoke = false");
    let gateway = setup.start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    let (mut client, mut upstream) = listening(&gateway, &ada).await;
    gateway.sign_out(&ada).await;
    upstream.send(EVENT).await;
    assert_eq!(event(&mut client).await, "data: 1\n\n");
}

#[tokio::test]
async fn a_reload_ends_a_stream_only_if_it_may_not_go_on() {
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    let (mut client, mut upstream) = listening(&gateway, &ada).await;
    gateway.reload("[server]\nmax_body = '5MiB'").await.unwrap();
    upstream.send(EVENT).await;
    assert_eq!(event(&mut client).await, "data: 1\n\n");
    gateway
        .reload("[[routes]]\npath = '/api/*'\nupstream = 'app'\nrequire = { roles = ['admin'] }")
        .await
        .unwrap();
    assert_eq!(event(&mut client).await, "", "the last chunk");
}

#[tokio::test]
async fn a_stream_that_begins_after_a_reload_goes_by_the_new_rules() {
    let gateway = Gateway::start().await;
    let (mut client, mut upstream) = asked(&gateway, "/public/events", "").await;
    let (mut other, mut stays) = asked(&gateway, "/optional/events", "").await;
    let without_public = "[[routes]]\npath = '/optional/*'\nupstream = 'app'\nauth = 'optional'";
    gateway.reload(without_public).await.unwrap();
    begin(&mut client, &mut upstream).await;
    assert_eq!(event(&mut client).await, "", "the last chunk");
    begin(&mut other, &mut stays).await;
    stays.send(EVENT).await;
    assert_eq!(event(&mut other).await, "data: 1\n\n");
}

#[tokio::test]
async fn a_stream_that_begins_after_all_were_closed_does_not_hold_the_gateway() {
    let setup = Setup::default().with("[server]\nshutdown_grace = '10m'\nstream_grace = '50ms'");
    let gateway = setup.start().await;
    let (mut early, mut first) = asked(&gateway, "/public/early", "").await;
    begin(&mut early, &mut first).await;
    let (mut late, mut second) = asked(&gateway, "/public/late", "").await;
    let stopping = tokio::spawn(gateway.stop());
    assert_eq!(event(&mut early).await, "", "the last chunk");
    begin(&mut late, &mut second).await;
    assert_eq!(event(&mut late).await, "", "the last chunk");
    let ended = timeout(SOON, stopping).await.expect("it stops").unwrap();
    assert_eq!(ended.cut_off, 0);
}

#[tokio::test]
async fn a_ban_and_an_expiry_end_a_stream() {
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    let (mut client, _upstream) = listening(&gateway, &ada).await;
    gateway.db().run("UPDATE users SET banned = true").await;
    assert_eq!(event(&mut client).await, "");

    let bob = gateway.signed_in("bob@example.com").await;
    let (mut client, _upstream) = listening(&gateway, &bob).await;
    gateway.clock().advance(std::time::Duration::from_hours(8 * 24));
    assert_eq!(event(&mut client).await, "");
}
