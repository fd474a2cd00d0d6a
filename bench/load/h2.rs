//! HTTP/2: several requests at a time on each connection.

use std::{rc::Rc, time::Instant};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::{Work, tls};

/// Requests at a time on one connection.
pub(super) const STREAMS: usize = 8;

/// One connection until the slice is over; `None` when it met an error.
pub(super) async fn repeat(work: Rc<Work>, at: usize) -> Option<()> {
    let stream = work.connect(at).await?;
    let stream = work.tls.as_ref()?.connect(tls::name(), stream).await.ok()?;
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]), "h2 was agreed on");
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .ok()?;
    let driving = tokio::spawn(connection);
    let mut streams = Vec::new();
    for _ in 0..STREAMS {
        streams.push(tokio::task::spawn_local(converse(Rc::clone(&work), sender.clone())));
    }
    drop(sender);
    let mut whole = Some(());
    for stream in streams {
        whole = whole.and(stream.await.unwrap());
    }
    driving.abort();
    whole
}

async fn converse(work: Rc<Work>, mut sender: http2::SendRequest<Empty<Bytes>>) -> Option<()> {
    while !work.over() {
        let begin = Instant::now();
        let mut request = Request::get(format!("https://localhost{}", work.order.path))
            .header("user-agent", "bench")
            .header("accept", "*/*");
        if let Some(cookie) = work.cookie() {
            request = request.header("cookie", cookie);
        }
        sender.ready().await.ok()?;
        let response = sender.send_request(request.body(Empty::new()).ok()?).await.ok()?;
        if response.status() != StatusCode::OK {
            return None;
        }
        let mut body = response.into_body();
        while let Some(frame) = body.frame().await {
            frame.ok()?;
        }
        work.answered(begin);
    }
    Some(())
}
