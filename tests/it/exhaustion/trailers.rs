//! Fields behind a body: very many of them, announced and not.

use std::{convert::Infallible, fmt::Write as _};

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body_util::{BodyExt, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::Frame;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use super::Control;
use crate::harness::{
    Gateway, Setup,
    backend::{Speaks, application},
    gateway::SITE,
};

type Body = UnsyncBoxBody<Bytes, Infallible>;

fn names(count: usize) -> Vec<HeaderName> {
    (0..count)
        .map(|number| format!("x-{number}").parse().unwrap())
        .collect()
}

/// A body with so many fields behind it.
fn with_trailers(count: usize) -> Body {
    let mut trailers: HeaderMap = names(count)
        .into_iter()
        .map(|name| (name, HeaderValue::from_static("1")))
        .collect();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let frames = [
        Frame::data(Bytes::from_static(b"\0\0\0\0\x02ok")),
        Frame::trailers(trailers),
    ];
    StreamBody::new(stream::iter(frames.map(Ok))).boxed_unsync()
}

fn announcing(count: usize) -> HeaderValue {
    let names = names(count).iter().fold(String::from("grpc-status"), |mut all, name| {
        let _ = write!(all, ", {name}");
        all
    });
    HeaderValue::try_from(names).unwrap()
}

fn ours(trailers: Option<&HeaderMap>) -> usize {
    let names = trailers.into_iter().flat_map(HeaderMap::keys);
    names.filter(|name| name.as_str().starts_with("x-")).count()
}

/// Answers with as many fields behind the body as it was asked for, and says how many came.
async fn answer(request: Request<hyper::body::Incoming>) -> Response<Body> {
    let count: usize = request.uri().query().unwrap().parse().unwrap();
    let came = request.into_body().collect().await.ok();
    let came = ours(came.as_ref().and_then(|whole| whole.trailers()));
    Response::builder()
        .header("content-type", "application/grpc")
        .header("trailer", announcing(count))
        .header("x-came", came)
        .body(with_trailers(count))
        .unwrap()
}

/// How many fields came there behind the body, and how many here.
async fn call(gateway: &Gateway, count: usize) -> (usize, usize) {
    let stream = TokioIo::new(TcpStream::connect(gateway.addr()).await.unwrap());
    let (mut client, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream)
        .await
        .unwrap();
    tokio::spawn(connection);
    let request = Request::post(format!("{SITE}/public/call?{count}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("trailer", announcing(count))
        .body(with_trailers(count))
        .unwrap();
    let answer = client.send_request(request).await.expect("an answer");
    assert_eq!(answer.status(), 200);
    let there = answer.headers()["x-came"].to_str().unwrap().parse().unwrap();
    let whole = answer.into_body().collect().await.expect("a whole answer");
    (there, ours(whole.trailers()))
}

#[tokio::test]
async fn dos_very_many_trailers_of_a_call_pass_to_who_speaks_http2() {
    let endpoint = application(Speaks::Http2, answer).await;
    let gateway = Setup::default().endpoints(&[endpoint], "").start().await;
    for count in [0, 63, 64, 65, 100, 300] {
        assert_eq!(call(&gateway, count).await, (count, count));
    }
}

/// HTTP/1.1 passes those that were announced; of very many names some are looked at.
#[tokio::test]
async fn dos_of_very_many_announced_names_some_are_looked_at_towards_http1() {
    let endpoint = application(Speaks::Http1, answer).await;
    let gateway = Setup::default().endpoints(&[endpoint], "").start().await;
    for count in [0, 10, 63] {
        let (there, _) = call(&gateway, count).await;
        assert_eq!(there, count);
    }
    for count in [64, 65, 90] {
        let (there, _) = call(&gateway, count).await;
        assert_eq!(there, 63, "{count}: with grpc-status that is 64");
    }
}

#[tokio::test]
async fn dos_a_head_may_announce_very_many_names_and_keeps_nobody_waiting() {
    let gateway = Setup::default()
        .with("[server]\nmax_header_bytes = '16MiB'")
        .start()
        .await;
    let control = Control::signed_in(&gateway).await;
    let announced = announcing(500_000);
    let mut client = gateway.raw().await;
    client
        .send(format!(
            "POST /public/x HTTP/1.1\r\nHost: app.example.com\r\nTE: trailers\r\nTrailer: {}\r\n\
             Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nx-0: 1\r\n\r\n",
            announced.to_str().unwrap()
        ))
        .await;
    assert_eq!(client.answer().await.status(), 200);
    assert!(control.end().await > 0);
}
