//! Who says nothing for a while: an event stream may for as long as it likes, whatever the time-outs; whoever waits for the
//! beginning of an answer has the time of the route; other answers may pause as long. Each on both versions of HTTP, on
//! both sides.

use std::{convert::Infallible, time::Duration};

use bytes::Bytes;
use futures_util::stream;
use http::{Request, Response, header};
use http_body_util::{BodyExt, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Frame, Incoming};
use tokio::time::{Instant, sleep};

use crate::harness::{
    Gateway, SOON, Setup,
    backend::{Speaks, application},
    eventually,
    h2_client::H2Client,
};

/// Longer than every time-out of [`IMPATIENT`] several times over.
const SILENCE: Duration = Duration::from_millis(1_200);

const IMPATIENT: &str = "
    server = { header_timeout = '250ms', body_timeout = '250ms', idle_timeout = '250ms' }
    upstreams = { app = { response_timeout = '250ms', idle_timeout = '250ms' } }
    routes = [
        { path = '/events', upstream = 'app', auth = 'public', timeout = '250ms' },
        { path = '/half', upstream = 'app', auth = 'public', timeout = '250ms' },
        { path = '/late', upstream = 'app', auth = 'public', timeout = '250ms' },
        { path = '/poll', upstream = 'app', auth = 'public', timeout = '20s' },
        { path = '/pause', upstream = 'app', auth = 'public', timeout = '20s' },
    ]";

/// Says nothing for [`SILENCE`]: after the first piece of `/events`, `/half` and `/pause`; before any other answer.
async fn answer(request: Request<Incoming>) -> Response<UnsyncBoxBody<Bytes, Infallible>> {
    let path = request.uri().path().to_owned();
    if !["/events", "/half", "/pause"].contains(&path.as_str()) {
        sleep(SILENCE).await;
    }
    let pieces = stream::unfold(0, |number| async move {
        match number {
            0 => {}
            1 => sleep(SILENCE).await,
            _ => return None,
        }
        let piece = Bytes::from(format!("data: {number}\n\n"));
        Some((Ok(Frame::data(piece)), number + 1))
    });
    let media = if path == "/events" {
        "text/event-stream"
    } else {
        "text/plain"
    };
    Response::builder()
        .header(header::CONTENT_TYPE, media)
        .body(StreamBody::new(pieces).boxed_unsync())
        .unwrap()
}

const WHOLE: &str = "data: 0\n\ndata: 1\n\n";

async fn gateway(speaks: Speaks) -> Gateway {
    let endpoint = application(speaks, answer).await;
    Setup::default()
        .with(IMPATIENT)
        .endpoints(&[endpoint], "")
        .start()
        .await
}

/// Status and body by each version of HTTP; `None`: it broke off.
async fn asked(gateway: &Gateway, path: &str) -> [Option<(u16, String)>; 2] {
    let http1 = async {
        let mut client = gateway.raw().await;
        let host = gateway.host();
        client
            .send(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"))
            .await;
        let head = client.head().await;
        let framing = head.response_framing("GET");
        let reading = crate::harness::wire::read_body(&mut client.stream, framing);
        let body = tokio::time::timeout(SOON, reading).await.expect("an end").ok()?;
        Some((head.status(), String::from_utf8(body).unwrap()))
    };
    let http2 = async {
        let client = H2Client::connect(gateway.addr(), gateway.host()).await;
        let request = client.request("GET", path).body(http_body_util::Full::default());
        let answer = client.send(request.unwrap()).await.ok()?;
        Some((answer.status, answer.text().to_owned()))
    };
    let (http1, http2) = tokio::join!(http1, http2);
    [http1, http2]
}

#[tokio::test]
async fn an_event_stream_may_be_silent_for_longer_than_every_time_out() {
    for speaks in [Speaks::Http1, Speaks::Http2] {
        let gateway = gateway(speaks).await;
        let whole = Some((200, WHOLE.to_owned()));
        assert_eq!(asked(&gateway, "/events").await, [whole.clone(), whole], "{speaks:?}");
    }
}

#[tokio::test]
async fn who_waits_for_an_answer_to_begin_has_the_time_of_the_route_and_no_less() {
    for speaks in [Speaks::Http1, Speaks::Http2] {
        let gateway = gateway(speaks).await;
        let whole = |text: &str| Some((200, text.to_owned()));
        for answer in asked(&gateway, "/poll").await {
            // Behind its beginning it pauses as long as the route allows, too.
            assert_eq!(answer, whole(WHOLE), "{speaks:?}");
        }
        for answer in asked(&gateway, "/pause").await {
            assert_eq!(answer, whole(WHOLE), "{speaks:?}");
        }
    }
}

#[tokio::test]
async fn who_waits_longer_than_the_route_allows_is_told_504_in_time() {
    for speaks in [Speaks::Http1, Speaks::Http2] {
        let gateway = gateway(speaks).await;
        let began = Instant::now();
        for answer in asked(&gateway, "/late").await {
            let (status, problem) = answer.expect("an answer");
            assert_eq!(status, 504, "{speaks:?}");
            assert!(problem.contains("UPSTREAM_TIMEOUT"), "{problem}");
        }
        assert!(began.elapsed() < SILENCE, "{:?}", began.elapsed());
    }
}

#[tokio::test]
async fn an_answer_that_is_no_event_stream_breaks_off_where_it_pauses_for_longer() {
    for speaks in [Speaks::Http1, Speaks::Http2] {
        let gateway = gateway(speaks).await;
        assert_eq!(asked(&gateway, "/half").await, [None, None], "{speaks:?}");
        eventually(SOON, async || {
            gateway.log().matches("\"error\":\"UPSTREAM_TIMEOUT\"").count() == 2
        })
        .await;
    }
}
