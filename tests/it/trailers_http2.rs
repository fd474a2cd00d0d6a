//! Fields behind a body where HTTP/2 carries them: to applications that speak it, and from clients that do. What may not
//! come there does not, whichever protocols are at the two ends.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use h2::{RecvStream, client::SendRequest};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use tokio::{
    io::AsyncReadExt,
    net::{TcpListener, TcpStream},
    time::timeout,
};

use crate::harness::{Gateway, RawClient, SOON, Setup};

/// What an application says behind its answers: two lines of one field, and what it may not say there.
const SAID: &[(&str, &str)] = &[
    ("server-timing", "db;dur=53"),
    ("server-timing", "app;dur=47"),
    ("set-cookie", "a=b"),
    ("location", "https://evil.example"),
    ("content-type", "text/html"),
    ("content-length", "1"),
    ("access-control-allow-origin", "*"),
    ("x-vestibule-sign-out", "session"),
];
const HEARD: &[(&str, &str)] = &[("server-timing", "db;dur=53"), ("server-timing", "app;dur=47")];

/// The same of a client.
const ASKED: &[(&str, &str)] = &[
    ("x-checksum", "42"),
    ("x-user-id", "forged"),
    ("x_user_id", "forged"),
    ("x.user-roles", "admin"),
    ("x-vestibule-assertion", "forged"),
    ("x-forwarded-for", "1.2.3.4"),
    ("forwarded", "for=1.2.3.4"),
    ("host", "elsewhere"),
    ("authorization", "Bearer forged"),
    ("cookie", "a=b"),
    ("content-length", "1"),
];
const ARRIVED: &[(&str, &str)] = &[("x-checksum", "42")];

fn fields(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
    let mut fields = HeaderMap::new();
    for (name, value) in pairs {
        fields.append(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    fields
}

/// As HTTP/1.1 has them; no parser of it takes another length behind a body.
fn lines(pairs: &[(&str, &str)]) -> String {
    let pairs = pairs.iter().filter(|(name, _)| *name != "content-length");
    pairs.flat_map(|(name, value)| [name, ": ", value, "\r\n"]).collect()
}

/// The body, and what came behind it.
async fn read(mut body: RecvStream) -> (Vec<u8>, HeaderMap) {
    let mut whole = Vec::new();
    while let Some(data) = body.data().await {
        let data = data.expect("a whole body");
        body.flow_control().release_capacity(data.len()).unwrap();
        whole.extend_from_slice(&data);
    }
    let trailers = body.trailers().await.expect("a whole body");
    (whole, trailers.unwrap_or_default())
}

type Arrived = Arc<Mutex<Vec<(http::request::Parts, Vec<u8>, HeaderMap)>>>;

/// An application that keeps what it is sent, and says [`SAID`] behind each answer.
async fn application() -> (String, Arrived) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("h2c://{}", listener.local_addr().unwrap());
    let arrived = Arrived::default();
    let keep = Arc::clone(&arrived);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let keep = Arc::clone(&keep);
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(stream).await.unwrap();
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    let keep = Arc::clone(&keep);
                    tokio::spawn(async move {
                        let (head, body) = request.into_parts();
                        let (body, trailers) = read(body).await;
                        keep.lock().unwrap().push((head, body, trailers));
                        let head = Response::builder().header("trailer", "Server-Timing, Set-Cookie");
                        let mut answer = respond.send_response(head.body(()).unwrap(), false).unwrap();
                        answer.send_data(Bytes::from_static(b"hi"), false).unwrap();
                        answer.send_trailers(fields(SAID)).unwrap();
                    });
                }
            });
        }
    });
    (endpoint, arrived)
}

async fn gateway(endpoint: String) -> Gateway {
    Setup::default().endpoints(&[endpoint], "").start().await
}

async fn client(gateway: &Gateway) -> SendRequest<Bytes> {
    let stream = TcpStream::connect(gateway.addr()).await.unwrap();
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    client
}

/// Sends a body and [`ASKED`] behind it; the answer's head, body and trailers.
async fn exchange(gateway: &Gateway) -> (http::response::Parts, Vec<u8>, HeaderMap) {
    let request = Request::post(format!("http://{}/public/x", gateway.host()))
        .header("te", "trailers")
        .header("trailer", "X-Checksum, X-User-Id")
        .body(())
        .unwrap();
    let (answer, mut body) = client(gateway).await.send_request(request, false).unwrap();
    body.send_data(Bytes::from_static(b"hello"), false).unwrap();
    body.send_trailers(fields(ASKED)).unwrap();
    let (head, body) = timeout(SOON, answer).await.unwrap().expect("an answer").into_parts();
    let (body, trailers) = timeout(SOON, read(body)).await.unwrap();
    (head, body, trailers)
}

#[tokio::test]
async fn they_pass_both_ways_from_http2_to_http2() {
    let (endpoint, arrived) = application().await;
    let gateway = gateway(endpoint).await;
    let (head, body, trailers) = exchange(&gateway).await;
    assert_eq!(head.headers["trailer"], "server-timing");
    assert_eq!((body.as_slice(), trailers), (&b"hi"[..], fields(HEARD)));

    let (head, body, trailers) = arrived.lock().unwrap().pop().expect("it arrived");
    assert_eq!(head.headers["trailer"], "x-checksum");
    assert_eq!(head.headers["te"], "trailers");
    assert_eq!((body.as_slice(), trailers), (&b"hello"[..], fields(ARRIVED)));
}

#[tokio::test]
async fn a_route_s_rules_hold_for_them_where_nothing_announces_them() {
    let (endpoint, _arrived) = application().await;
    let rules = "routes = [{ path = '/public/*', upstream = 'app', auth = 'public', response_headers = \
                 { remove = ['Server-Timing'] } }]";
    let gateway = Setup::default().with(rules).endpoints(&[endpoint], "").start().await;
    let (head, body, trailers) = exchange(&gateway).await;
    assert!(!head.headers.contains_key("trailer"));
    assert_eq!((body.as_slice(), trailers), (&b"hi"[..], HeaderMap::new()));
}

#[tokio::test]
async fn they_pass_both_ways_from_http1_to_http2() {
    let (endpoint, arrived) = application().await;
    let gateway = gateway(endpoint).await;
    let asked = format!(
        "POST /public/x HTTP/1.1\r\nHost: {}\r\nTE: trailers\r\nConnection: TE\r\nTransfer-Encoding: chunked\r\n\
         Trailer: {}\r\n\r\n5\r\nhello\r\n0\r\n{}\r\n",
        gateway.host(),
        ASKED.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", "),
        lines(ASKED)
    );
    let mut client = gateway.raw().await;
    client.send(asked).await;
    let head = client.head().await;
    assert_eq!((head.status(), head.one("trailer")), (200, Some("server-timing")));
    assert_eq!(
        until_end(&mut client).await,
        "2\r\nhi\r\n0\r\nserver-timing: db;dur=53\r\nserver-timing: app;dur=47\r\n\r\n"
    );

    let (head, body, trailers) = arrived.lock().unwrap().pop().expect("it arrived");
    assert_eq!(head.headers["trailer"], "x-checksum");
    assert_eq!((body.as_slice(), trailers), (&b"hello"[..], fields(ARRIVED)));
}

#[tokio::test]
async fn they_pass_both_ways_from_http2_to_http1() {
    let gateway = Gateway::start().await;
    let mut conversations = gateway.upstream().by_hand("/public/x");
    let answering = async {
        let mut upstream = conversations.next().await;
        assert_eq!(upstream.head.one("trailer"), Some("x-checksum"));
        assert_eq!(upstream.head.one("te"), Some("trailers"));
        let mut arrived = Vec::new();
        while !arrived.ends_with(b"\r\n\r\n") {
            arrived.push(upstream.stream.read_u8().await.unwrap());
        }
        assert_eq!(
            String::from_utf8(arrived).unwrap().to_ascii_lowercase(),
            "5\r\nhello\r\n0\r\nx-checksum: 42\r\n\r\n"
        );
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: Server-Timing, Set-Cookie\r\n\r\n";
        upstream
            .send(format!("{head}2\r\nhi\r\n0\r\n{}\r\n", lines(SAID)))
            .await;
        upstream
    };
    let ((_, body, trailers), _upstream) = tokio::join!(exchange(&gateway), answering);
    assert_eq!((body.as_slice(), trailers), (&b"hi"[..], fields(HEARD)));
}

#[tokio::test]
async fn many_lines_announce_as_much_as_one() {
    let gateway = Gateway::start().await;
    let mut request = Request::get(format!("http://{}/public/x", gateway.host())).header("te", "trailers");
    for _ in 0..400 {
        request = request.header("trailer", "x-a, x-b, x-user-id");
    }
    for _ in 0..100 {
        request = request.header("te", "trailers");
    }
    let (answer, _) = client(&gateway)
        .await
        .send_request(request.body(()).unwrap(), true)
        .unwrap();
    let answer = timeout(SOON, answer).await.unwrap().expect("an answer");
    assert_eq!(answer.status(), 200);
    let head = gateway.upstream().last().head;
    assert_eq!(
        (head.all("trailer"), head.all("te")),
        (vec!["x-a, x-b"], vec!["trailers"])
    );
}

/// Reads to the end of an answer's body; its trailers are in it.
async fn until_end(client: &mut RawClient) -> String {
    let mut text = Vec::new();
    let reading = async {
        while !text.ends_with(b"\r\n\r\n") {
            text.push(client.stream.read_u8().await.unwrap());
        }
    };
    timeout(SOON, reading).await.expect("the end of the answer");
    String::from_utf8(text).unwrap().to_ascii_lowercase()
}
