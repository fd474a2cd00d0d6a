//! `103 Early Hints` come before the answer, to whoever can read them, and say no more than an answer may.

use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};

use crate::harness::{
    Gateway, Setup,
    certificates::{Authority, Folder, TlsClient},
    h2_client::H2Client,
    wire::Head,
};

const HINT: &str = "HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n";
const LINK: Option<&str> = Some("</style.css>; rel=preload");
const PAGE: &str = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nLink: </style.css>; rel=preload\r\n\r\npage";

fn get(gateway: &Gateway) -> String {
    format!("GET /public/page HTTP/1.1\r\nHost: {}\r\n\r\n", gateway.host())
}

#[tokio::test]
async fn hints_come_before_the_answer_and_other_interim_answers_do_not() {
    let gateway = Gateway::start().await;
    let mut conversations = gateway.upstream().by_hand("/public/page");
    let mut client = gateway.raw().await;
    client.send(get(&gateway)).await;
    let mut upstream = conversations.next().await;
    upstream
        .send("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n")
        .await;
    upstream.send(HINT).await;
    let first = client.head().await;
    assert_eq!((first.status(), first.one("link")), (103, LINK));
    upstream
        .send("HTTP/1.1 103 Early Hints\r\nLink: </more.js>; rel=preload\r\n\r\n")
        .await;
    let second = client.head().await;
    assert_eq!(
        (second.status(), second.one("link")),
        (103, Some("</more.js>; rel=preload"))
    );
    upstream.send(PAGE).await;
    let answer = client.answer().await;
    assert_eq!((answer.status(), answer.text()), (200, "page"));
    assert_eq!(answer.head.one("link"), LINK);
}

#[tokio::test]
async fn a_hint_that_is_no_earlier_than_its_answer_does_not_disturb_it() {
    let gateway = Gateway::start().await;
    gateway
        .upstream()
        .answer("/public/page", format!("HTTP/1.1 102 Processing\r\n\r\n{HINT}{PAGE}"));
    let mut client = gateway.raw().await;
    for _ in 0..3 {
        client.send(get(&gateway)).await;
        let mut head = client.head().await;
        if head.status() == 103 {
            // The upstream's bytes came in two pieces.
            head = client.head().await;
        }
        assert_eq!(head.status(), 200);
        let mut body = [0; 4];
        client.stream.read_exact(&mut body).await.unwrap();
        assert_eq!(&body, b"page");
    }
}

#[tokio::test]
async fn each_hint_belongs_to_its_request_among_pipelined_ones() {
    let gateway = Gateway::start().await;
    let mut conversations = gateway.upstream().by_hand("/public/page");
    let mut client = gateway.raw().await;
    client.send(get(&gateway).repeat(3)).await;
    for number in 1..=3 {
        let mut upstream = conversations.next().await;
        upstream
            .send(format!("HTTP/1.1 103 Early Hints\r\nLink: </{number}>\r\n\r\n"))
            .await;
        let hint = client.head().await;
        let link = format!("</{number}>");
        assert_eq!((hint.status(), hint.one("link")), (103, Some(link.as_str())));
        upstream
            .send(format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{number}"))
            .await;
        let answer = client.answer().await;
        assert_eq!((answer.status(), answer.text()), (200, number.to_string().as_str()));
    }
}

#[tokio::test]
async fn a_hint_may_come_before_and_after_the_body_is_asked_for() {
    let gateway = Gateway::start().await;
    let mut conversations = gateway.upstream().by_hand("/public/page");
    let mut client = gateway.raw().await;
    client
        .send(format!(
            "POST /public/page HTTP/1.1\r\nHost: {}\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n",
            gateway.host()
        ))
        .await;
    let mut upstream = conversations.next().await;
    upstream.send(HINT).await;
    // In which order, is the network's business; whole they must be.
    let mut heads = [client.head().await, client.head().await];
    heads.sort_by_key(Head::status);
    let [go_on, hint] = heads;
    assert_eq!((go_on.status(), go_on.one("link")), (100, None));
    assert_eq!((hint.status(), hint.one("link")), (103, LINK));
    client.send("hel").await;
    upstream.send(HINT).await;
    assert_eq!(client.head().await.one("link"), LINK);
    client.send("lo").await;
    let mut body = [0; 5];
    upstream.stream.read_exact(&mut body).await.unwrap();
    assert_eq!(&body, b"hello");
    upstream.send(PAGE).await;
    assert_eq!(client.answer_to("POST").await.text(), "page");
}

#[tokio::test]
async fn a_client_of_the_last_century_is_sent_none() {
    let gateway = Gateway::start().await;
    let mut conversations = gateway.upstream().by_hand("/public/page");
    let mut client = gateway.raw().await;
    client
        .send(format!("GET /public/page HTTP/1.0\r\nHost: {}\r\n\r\n", gateway.host()))
        .await;
    let mut upstream = conversations.next().await;
    upstream.send(HINT).await;
    // Another request on another connection is answered meanwhile, so that the hint had its time.
    assert_eq!(gateway.get("/public/other").await.status(), 200);
    upstream.send(PAGE).await;
    let answer = client.answer().await;
    assert_eq!((answer.status(), answer.text()), (200, "page"));
}

#[tokio::test]
async fn a_hint_says_no_more_than_an_answer_may() {
    let gateway = Setup::default()
        .with(
            "[[routes]]\npath = '/public/page'\nupstream = 'app'\nauth = 'public'\n\
             response_headers = { remove = ['server'], set = { Content-Security-Policy = 'default-src self' } }\n",
        )
        .start()
        .await;
    let mut conversations = gateway.upstream().by_hand("/public/page");
    let mut client = gateway.raw().await;
    client.send(get(&gateway)).await;
    let mut upstream = conversations.next().await;
    // Of this, nothing is left.
    upstream
        .send("HTTP/1.1 103 Early Hints\r\nSet-Cookie: a=b\r\nX-Vestibule-Sign-Out: session\r\n\r\n")
        .await;
    upstream
        .send(
            "HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\nX-Vestibule-Sign-Out: session\r\n\
             Set-Cookie: a=b\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nContent-Length: 5\r\n\
             Server: secret/1.0\r\nContent-Security-Policy: default-src 'none'\r\nTrailer: X-Sum\r\n\
             Access-Control-Allow-Origin: *\r\nX-Other: passes\r\n\r\n",
        )
        .await;
    let hint = client.head().await;
    assert_eq!((hint.status(), hint.one("link")), (103, LINK));
    assert_eq!(hint.one("x-other"), Some("passes"));
    for name in [
        "x-vestibule-sign-out",
        "set-cookie",
        "connection",
        "x-hop",
        "keep-alive",
        "content-length",
        "server",
        "content-security-policy",
        "trailer",
        "access-control-allow-origin",
    ] {
        assert!(!hint.has(name), "{name}: {hint:?}");
    }
    upstream.send(PAGE).await;
    let answer = client.answer().await;
    assert_eq!((answer.status(), answer.text()), (200, "page"));
}

#[tokio::test]
async fn whoever_is_refused_hears_of_none() {
    let gateway = Gateway::start().await;
    gateway.upstream().answer("/api/page", format!("{HINT}{PAGE}"));
    let mut client = gateway.raw().await;
    client
        .send(format!("GET /api/page HTTP/1.1\r\nHost: {}\r\n\r\n", gateway.host()))
        .await;
    assert_eq!(client.answer().await.status(), 401);
    assert_eq!(gateway.upstream().connections(), 0);
}

#[tokio::test]
async fn an_upstream_that_only_hints_is_a_bad_gateway() {
    let gateway = Gateway::start().await;
    let mut conversations = gateway.upstream().by_hand("/public/page");
    let mut client = gateway.raw().await;
    client.send(get(&gateway)).await;
    let mut upstream = conversations.next().await;
    upstream.send(HINT).await;
    assert_eq!(client.head().await.status(), 103);
    drop(upstream);
    assert_eq!(client.answer().await.status(), 502);
}

#[tokio::test]
async fn a_hint_travels_within_tls() {
    let (authority, folder) = (Authority::new("the authority"), Folder::new());
    let tls = folder.pair("site", &authority.issue(&["app.example.com"]));
    let gateway = Setup::default().with(&format!("[server.tls]\n{tls}")).start().await;
    let mut conversations = gateway.upstream().by_hand("/public/page");
    let client = TlsClient::trusting(&authority);
    let stream = client.connect(gateway.addr(), "app.example.com").await.unwrap();
    let mut stream = BufReader::new(stream);
    stream.write_all(get(&gateway).as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    let mut upstream = conversations.next().await;
    upstream.send(HINT).await;
    let hint = Head::read(&mut stream).await.unwrap().unwrap();
    assert_eq!((hint.status(), hint.one("link")), (103, LINK));
    upstream.send(PAGE).await;
    let answer = Head::read(&mut stream).await.unwrap().unwrap();
    assert_eq!(answer.status(), 200);
}

#[tokio::test]
async fn an_answer_over_http2_is_none_the_worse_for_a_hint() {
    let gateway = Gateway::start().await;
    gateway.upstream().answer("/public/page", format!("{HINT}{PAGE}"));
    let client = H2Client::connect(gateway.addr(), gateway.host()).await;
    for _ in 0..2 {
        let answer = client.get("/public/page").await;
        assert_eq!((answer.status, answer.text()), (200, "page"));
    }
}
