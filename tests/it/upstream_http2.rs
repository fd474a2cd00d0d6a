//! Endpoints that speak HTTP/2: many requests on one connection, and what becomes of them when it goes away.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use http::{HeaderValue, Method, Response, Version};
use http_body_util::Full;
use tokio::net::TcpListener;

use crate::harness::{
    Gateway, SOON, Setup,
    backend::{Backend, Speaks, application},
    eventually,
    h2_client::H2Client,
    signer::Signer,
};

async fn gateway(backend: &Backend) -> Gateway {
    Setup::default().endpoints(&[backend.endpoint("h2c")], "").start().await
}

#[tokio::test]
async fn requests_at_once_share_a_connection() {
    let backend = Backend::speaking("app", Speaks::Http2).await;
    backend.hold();
    let gateway = gateway(&backend).await;
    let calls: Vec<_> = (0..20)
        .map(|_| tokio::spawn(gateway.get("/public/x?q=1").into_future()))
        .collect();
    eventually(SOON, async || backend.at_once() == 20).await;
    backend.let_go();
    for call in calls {
        assert_eq!(call.await.unwrap().text(), "app GET /public/x");
    }
    assert_eq!(backend.connections(), 1);
    let head = &backend.arrived()[0].head;
    assert_eq!(head.version, Version::HTTP_2);
    assert_eq!(head.uri.path_and_query().unwrap(), "/public/x?q=1");
    assert_eq!(head.uri.authority().unwrap(), gateway.host());
    assert!(!head.headers.contains_key("connection") && !head.headers.contains_key("host"));
}

#[tokio::test]
async fn more_requests_than_a_connection_takes_make_another() {
    let backend = Backend::speaking("app", Speaks::Http2).await;
    backend.hold();
    let gateway = gateway(&backend).await;
    let calls: Vec<_> = (0..120)
        .map(|_| tokio::spawn(gateway.get("/public/x").into_future()))
        .collect();
    eventually(SOON, async || backend.at_once() == 120).await;
    assert_eq!(backend.connections(), 2);
    backend.let_go();
    for call in calls {
        assert_eq!(call.await.unwrap().status(), 200);
    }
}

#[tokio::test]
async fn an_https_endpoint_chooses_between_the_two() {
    let signer = Signer::new();
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.crt");
    signer.write(&ca);
    for (offered, protocol, version) in [
        (&["h2", "http/1.1"][..], "auto", Version::HTTP_2),
        (&["http/1.1"][..], "auto", Version::HTTP_11),
        (&[][..], "auto", Version::HTTP_11),
        (&["h2", "http/1.1"][..], "http/1.1", Version::HTTP_11),
        (&["h2"][..], "h2", Version::HTTP_2),
    ] {
        let backend = Backend::with_tls("app", signer.sign(&["127.0.0.1"]).server(offered, None)).await;
        let more = format!("protocol = '{protocol}'\ntls = {{ ca = {ca:?} }}");
        let gateway = Setup::default()
            .endpoints(&[backend.endpoint("https")], &more)
            .start()
            .await;
        for _ in 0..3 {
            assert_eq!(gateway.get("/public/x").await.status(), 200, "{offered:?} {protocol}");
        }
        assert_eq!(backend.arrived()[0].head.version, version, "{offered:?} {protocol}");
        assert_eq!(backend.connections(), 1, "{offered:?} {protocol}");
    }
}

#[tokio::test]
async fn a_connection_that_goes_away_is_replaced_and_costs_nothing() {
    let backend = Backend::speaking("app", Speaks::Http2).await;
    let gateway = gateway(&backend).await;
    for _ in 0..10 {
        let before = gateway.get("/public/x").await;
        backend.close_gracefully();
        let after = gateway.post("/public/x").body("a write").await;
        assert_eq!((before.status(), after.status()), (200, 200));
    }
    assert_eq!(backend.seen("/public/x"), 20);
    assert!(backend.connections() > 1);
}

#[tokio::test]
async fn requests_under_way_when_it_goes_away_are_answered() {
    let backend = Backend::speaking("app", Speaks::Http2).await;
    backend.hold();
    let gateway = gateway(&backend).await;
    let calls: Vec<_> = (0..10)
        .map(|_| tokio::spawn(gateway.get("/public/x").into_future()))
        .collect();
    eventually(SOON, async || backend.at_once() == 10).await;
    backend.close_gracefully();
    backend.let_go();
    for call in calls {
        assert_eq!(call.await.unwrap().status(), 200);
    }
}

#[tokio::test]
async fn a_connection_that_has_fallen_silent_is_not_waited_for_twice() {
    let backend = Backend::speaking("app", Speaks::Http2).await;
    let more = "response_timeout = '300ms'";
    let gateway = Setup::default()
        .endpoints(&[backend.endpoint("h2c")], more)
        .start()
        .await;
    assert_eq!(gateway.get("/public/x").await.status(), 200);
    backend.hold();
    assert_eq!(gateway.get("/public/x").await.status(), 504);
    backend.let_go();
    assert_eq!(gateway.get("/public/x").await.status(), 200);
    assert_eq!(backend.connections(), 2);
}

#[tokio::test]
async fn a_large_body_arrives_whole() {
    let backend = Backend::speaking("app", Speaks::Http2).await;
    let gateway = gateway(&backend).await;
    let body: Vec<u8> = (0..3_000_000_u32).map(|at| (at % 251) as u8).collect();
    assert_eq!(gateway.post("/public/x").body(body.clone()).await.status(), 200);
    assert!(backend.arrived()[0].body == body, "the body is another");
}

/// Refuses the first stream of each connection, as a server at its limit may, and answers the rest.
async fn refusing(seen: Arc<AtomicUsize>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("h2c://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let refused = Arc::new(AtomicUsize::new(0));
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (seen, refused) = (Arc::clone(&seen), Arc::clone(&refused));
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(stream).await.unwrap();
                while let Some(Ok((_, mut respond))) = connection.accept().await {
                    seen.fetch_add(1, Ordering::SeqCst);
                    if refused.fetch_add(1, Ordering::SeqCst) % 2 == 0 {
                        respond.send_reset(h2::Reason::REFUSED_STREAM);
                        continue;
                    }
                    let mut body = respond.send_response(Response::new(()), false).unwrap();
                    body.send_data(Bytes::from_static(b"done"), true).unwrap();
                }
            });
        }
    });
    endpoint
}

#[tokio::test]
async fn what_an_endpoint_did_not_look_at_is_sent_again_even_a_write() {
    let seen = Arc::new(AtomicUsize::new(0));
    let endpoint = refusing(Arc::clone(&seen)).await;
    let gateway = Setup::default().endpoints(&[endpoint], "").start().await;
    for method in ["GET", "POST"] {
        let answer = gateway.call(method, "/public/x").await;
        assert_eq!((answer.status(), answer.text()), (200, "done"), "{method}");
    }
    assert_eq!(seen.load(Ordering::SeqCst), 4);
}

#[tokio::test]
async fn a_body_that_is_gone_is_not_sent_again() {
    let seen = Arc::new(AtomicUsize::new(0));
    let endpoint = refusing(Arc::clone(&seen)).await;
    let gateway = Setup::default().endpoints(&[endpoint], "").start().await;
    let answer = gateway.post("/public/x").body("half a truth").await;
    assert_eq!((answer.status(), answer.code()), (502, "UPSTREAM_FAILED".to_owned()));
    assert_eq!(seen.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn where_only_http2_is_spoken_protocols_are_not_switched() {
    let backend = Backend::speaking("app", Speaks::Http2).await;
    let gateway = gateway(&backend).await;
    let answer = upgrade(&gateway).await;
    assert_eq!(answer, (502, "UPSTREAM_FAILED".to_owned()));
    assert_eq!(backend.connections(), 0);
}

#[tokio::test]
async fn an_upgrade_begins_as_http1_whatever_the_endpoint_prefers() {
    let signer = Signer::new();
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.crt");
    signer.write(&ca);
    let server = signer.sign(&["127.0.0.1"]).server(&["h2", "http/1.1"], None);
    let backend = Backend::with_tls("app", server).await;
    let tls = format!("tls = {{ ca = {ca:?} }}");
    let gateway = Setup::default()
        .endpoints(&[backend.endpoint("https")], &tls)
        .start()
        .await;
    let (status, _) = upgrade(&gateway).await;
    assert_eq!(status, 200, "it declines, as it may");
    let head = &backend.arrived()[0].head;
    assert_eq!(head.version, Version::HTTP_11);
    assert_eq!(head.headers["upgrade"], "websocket");
}

/// Asks for a WebSocket; the status, and the code if it is a problem.
async fn upgrade(gateway: &Gateway) -> (u16, String) {
    let mut client = gateway.raw().await;
    client
        .send(format!(
            "GET /public/socket HTTP/1.1\r\nHost: {}\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            gateway.host()
        ))
        .await;
    let answer = client.answer().await;
    let code = if answer.status() >= 400 {
        answer.code()
    } else {
        String::new()
    };
    (answer.status(), code)
}

#[tokio::test]
async fn a_length_that_is_said_twice_is_said_once() {
    let endpoint = application(Speaks::Http2, async |request| {
        let body = if request.method() == Method::HEAD { "" } else { "ok" };
        let mut answer = Response::new(Full::new(Bytes::from_static(body.as_bytes())));
        for _ in 0..2 {
            answer
                .headers_mut()
                .append("content-length", HeaderValue::from_static("2"));
        }
        answer
    })
    .await;
    let gateway = Setup::default().endpoints(&[endpoint], "").start().await;
    for method in ["GET", "HEAD"] {
        let mut client = gateway.raw().await;
        for _ in 0..2 {
            let answer = client.ask(method, "/public/x", gateway.host()).await;
            assert_eq!(
                (answer.status(), answer.head.all("content-length")),
                (200, vec!["2"]),
                "{method}"
            );
        }
    }
}

/// Such an answer ends with its head (RFC 9110, 6.4.1): clients give one up that goes on.
#[tokio::test]
async fn what_follows_an_answer_that_has_no_content_is_not_passed_on() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("h2c://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(stream).await.unwrap();
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    let status = request.uri().path().rsplit('/').next().unwrap();
                    let head = Response::builder().status(status).header("content-length", "4");
                    let mut body = respond.send_response(head.body(()).unwrap(), false).unwrap();
                    body.send_data(Bytes::from_static(b"okok"), false).unwrap();
                    tokio::task::yield_now().await;
                    // It was left to come to its end, or this would be an error.
                    body.send_data(Bytes::new(), true).unwrap();
                }
            });
        }
    });
    let gateway = Setup::default().endpoints(&[endpoint], "").start().await;
    let client = H2Client::connect(gateway.addr(), gateway.host()).await;
    for (status, text) in [(204, ""), (304, ""), (200, "okok")] {
        for _ in 0..2 {
            let answer = client.get(&format!("/public/{status}")).await;
            assert_eq!((answer.status, answer.text()), (status, text));
            let said = answer.headers.contains_key("content-length");
            assert_eq!(said, status == 200, "{status}: {:?}", answer.headers);
        }
    }
}
