//! What an upstream may say, and what becomes of it: a table of the known tricks, and hyper's client as the judge of
//! answers that nobody thought of.

use std::{fmt::Write as _, time::Duration};

use bytes::Bytes;
use futures_util::FutureExt;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header, uri::PathAndQuery};
use http_body_util::BodyExt;
use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    net::{TcpListener, TcpStream},
    task::{AbortHandle, coop},
    time::timeout,
};

use super::{Answered, Connection, Failed, Outgoing, RequestBody};

const SOON: Duration = Duration::from_secs(10);

/// What a client got: the head, the body as far as it came, and how that ended.
#[derive(Debug, Eq, PartialEq)]
struct Got {
    status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
    trailers: Option<HeaderMap>,
    whole: bool,
}

fn asked(method: &Method) -> Outgoing {
    let mut outgoing = Outgoing::new(
        method.clone(),
        PathAndQuery::from_static("/path?query"),
        RequestBody::EMPTY,
    );
    outgoing.put(&header::HOST, &HeaderValue::from_static("app.example.com"));
    outgoing
}

/// Writes `said` in pieces of `piece` bytes, and hangs up.
async fn say(mut stream: DuplexStream, said: Vec<u8>, piece: usize) {
    let mut heard = Vec::new();
    while !heard.ends_with(b"\r\n\r\n") {
        if stream.read_buf(&mut heard).await.unwrap() == 0 {
            return;
        }
    }
    for piece in said.chunks(piece.max(1)) {
        // Whoever has heard enough does not listen on.
        if stream.write_all(piece).await.is_err() {
            return;
        }
        tokio::task::yield_now().await;
    }
}

/// Runs with the test, and ends with it.
#[expect(
    clippy::disallowed_methods,
    reason = "what a test starts ends with the test's runtime"
)]
fn beside(task: impl Future<Output: Send> + Send + 'static) -> AbortHandle {
    tokio::spawn(task).abort_handle()
}

/// What we make of it, and whether the connection may be used again.
async fn lean(method: &Method, said: &[u8], piece: usize) -> Result<(Got, bool), Failed> {
    let (ours, theirs) = duplex(64);
    let talking = beside(say(theirs, said.to_vec(), piece));
    let mut request = asked(method);
    let exchange = Connection::new(ours).exchange(&mut request, None);
    let answered = timeout(SOON, exchange).await.expect("it ends");
    let got = match answered {
        Ok(answered) => Ok(timeout(SOON, read(answered)).await.expect("it ends")),
        Err(failed) => Err(failed),
    };
    talking.abort();
    got
}

async fn read(answered: Answered<DuplexStream>) -> (Got, bool) {
    let (mut answer, response, upload) = answered.into_answer();
    assert!(upload.is_none());
    let mut got = Got::of(&response);
    loop {
        let frame = std::future::poll_fn(|cx| answer.poll_frame(cx)).await;
        match frame {
            None => break,
            Some(Err(_)) => {
                got.whole = false;
                break;
            }
            Some(Ok(frame)) => got.take(frame),
        }
    }
    assert!(answer.is_end());
    (got, answer.into_idle().is_some())
}

impl Got {
    fn of<B>(response: &Response<B>) -> Self {
        Self {
            status: response.status(),
            headers: response.headers().clone(),
            body: Vec::new(),
            trailers: None,
            whole: true,
        }
    }

    /// Which of its connections stay open is no business of who reads the answer: we drop that, hyper does not. A length
    /// that it repeats we say once.
    fn forget_what_was_for_us(&mut self) {
        let for_us = |line: &HeaderValue| {
            let mut options = line.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
            options.all(|option| option.eq_ignore_ascii_case(b"close") || option.eq_ignore_ascii_case(b"keep-alive"))
        };
        let lines: Vec<_> = self.headers.get_all(header::CONNECTION).iter().cloned().collect();
        self.headers.remove(header::CONNECTION);
        for line in lines.into_iter().filter(|line| !for_us(line)) {
            self.headers.append(header::CONNECTION, line);
        }
        crate::fields::join_lengths(&mut self.headers);
    }

    fn take(&mut self, frame: http_body::Frame<Bytes>) {
        match frame.into_data() {
            Ok(data) => self.body.extend_from_slice(&data),
            Err(frame) => self.trailers = frame.into_trailers().ok(),
        }
    }
}

/// The same conversation with hyper's client. Whether it would use the connection again it does not tell.
async fn hypers(method: &Method, said: &[u8], piece: usize) -> Option<Got> {
    let (ours, theirs) = duplex(64);
    let talking = beside(say(theirs, said.to_vec(), piece));
    let (mut sender, connection) = hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(ours))
        .await
        .unwrap();
    let driving = beside(connection);
    let got = timeout(SOON, async {
        let response = sender.send_request(asked(method).take_request()).await.ok()?;
        let mut got = Got::of(&response);
        got.forget_what_was_for_us();
        let mut body = response.into_body();
        while let Some(frame) = body.frame().await {
            let Ok(frame) = frame else {
                got.whole = false;
                break;
            };
            got.take(frame);
        }
        Some(got)
    });
    let got = got.await.expect("it ends");
    driving.abort();
    talking.abort();
    got
}

/// Why there was no answer, or not all of it.
async fn refusal(said: &str) -> Option<String> {
    match lean(&Method::GET, said.as_bytes(), usize::MAX).await {
        Err(failed) => Some(failed.error.to_string()),
        Ok((got, _)) => (!got.whole).then(|| "broke off".to_owned()),
    }
}

#[tokio::test]
async fn ordinary_answers_come_through_and_the_connection_stays() {
    for (said, body, stays) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "ok", true),
        ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "", true),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\nContent-Length: 2\r\n\r\nok",
            "ok",
            true,
        ),
        ("HTTP/1.1 204 No Content\r\n\r\n", "", true),
        ("HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", "", true),
        // What it must not say, it may send as well.
        ("HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", "", false),
        (
            "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n",
            "",
            false,
        ),
        (
            "HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n",
            "",
            true,
        ),
        ("HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", "", true),
        (
            "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            "ok",
            true,
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            "ok",
            true,
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n1;a=b\r\no\r\n001 \r\nk\r\n0\r\n\r\n",
            "ok",
            true,
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nSum: 1\r\n\r\n",
            "ok",
            true,
        ),
        (
            "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok",
            "ok",
            true,
        ),
        ("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", "ok", false),
        (
            "HTTP/1.1 200 OK\r\nConnection: x, CLOSE\r\nContent-Length: 2\r\n\r\nok",
            "ok",
            false,
        ),
        ("HTTP/1.1 200 OK\r\n\r\nok", "ok", false),
        // Chunked is what counts, and somebody may have meant the other (RFC 9112, 6.3).
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            "ok",
            false,
        ),
        // What is behind the answer is nobody's answer.
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n",
            "ok",
            false,
        ),
        ("HTTP/1.1 204 No Content\r\n\r\nmore", "", false),
        ("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", "", false),
    ] {
        for piece in [usize::MAX, 7, 1] {
            let (got, may_stay) = lean(&Method::GET, said.as_bytes(), piece).await.expect(said);
            assert!(got.whole, "{said}");
            assert_eq!(String::from_utf8_lossy(&got.body), body, "{said}");
            if piece == usize::MAX || stays {
                assert_eq!(may_stay, stays, "{said}");
            }
        }
    }
}

#[tokio::test]
async fn what_can_be_read_in_two_ways_is_no_answer() {
    for said in [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nokay",
        "HTTP/1.1 200 OK\r\nContent-Length: 2, 3\r\n\r\nokay",
        "HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: 0x2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: 2 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: ,\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551616\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\nok",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 99 OK\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Le",
        "HTTP/1.1 103 Early Hints\r\n\r\n",
        "SSH-2.0-OpenSSH_9.2\r\n",
        "",
    ] {
        assert!(refusal(said).await.is_some(), "{said:?} passed");
        if let Err(failed) = lean(&Method::GET, said.as_bytes(), usize::MAX).await {
            assert_eq!(failed.answered, !said.is_empty(), "{said:?} would be asked for again");
        }
    }
}

#[tokio::test]
async fn a_length_that_is_said_again_is_passed_on_once() {
    for said in ["2, 2", "2\r\nContent-Length: 2", "2 ,2\r\nContent-Length: 2,2"] {
        let said = format!("HTTP/1.1 200 OK\r\nContent-Length: {said}\r\n\r\nok");
        let (got, _) = lean(&Method::GET, said.as_bytes(), usize::MAX).await.expect(&said);
        let lengths: Vec<_> = got.headers.get_all(header::CONTENT_LENGTH).iter().collect();
        assert_eq!(lengths, ["2"], "{said}");
        assert_eq!(got.body, b"ok", "{said}");
    }
}

#[tokio::test]
async fn chunks_are_read_to_the_letter() {
    for chunks in [
        "2\nok\r\n0\r\n\r\n",
        "2\r\nok\n0\r\n\r\n",
        "2\r\nok0\r\n\r\n",
        "2\r\nokay\r\n0\r\n\r\n",
        "\r\n2\r\nok\r\n0\r\n\r\n",
        " 2\r\nok\r\n0\r\n\r\n",
        "0x2\r\nok\r\n0\r\n\r\n",
        "+2\r\nok\r\n0\r\n\r\n",
        "-2\r\nok\r\n0\r\n\r\n",
        "2 2\r\nok\r\n0\r\n\r\n",
        "2,2\r\nok\r\n0\r\n\r\n",
        "2;a\rb\r\nok\r\n0\r\n\r\n",
        "2\r\r\nok\r\n0\r\n\r\n",
        "00000000000000002\r\nok\r\n0\r\n\r\n",
        "10000000000000000\r\nok\r\n0\r\n\r\n",
        "2\r\nok\r\n0\r\n",
        "2\r\nok\r\n0\r\n\n",
        "2\r\nok\r\n0\r\na: b\n\r\n",
        "2\r\nok\r\n0\r\na: b\r\n\n",
        "2\r\nok\r\n0\r\nnot a field\r\n\r\n",
        "2\r\nok\r\n",
        "2\r\no",
        "",
    ] {
        let said = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}");
        assert!(refusal(&said).await.is_some(), "{chunks:?} passed");
    }
}

#[tokio::test]
async fn what_has_no_end_is_given_up() {
    let heads = format!("HTTP/1.1 200 OK\r\n{}", "X: y\r\n".repeat(20_000));
    assert!(refusal(&heads).await.is_some());
    let long = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "y".repeat(100_000));
    assert!(refusal(&long).await.is_some());
    let interim = "HTTP/1.1 100 Continue\r\n\r\n".repeat(17);
    assert!(
        refusal(&format!("{interim}HTTP/1.1 204 No Content\r\n\r\n"))
            .await
            .is_some()
    );
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert!(
        refusal(&format!("{chunked}1;{}\r\nx\r\n0\r\n\r\n", "x".repeat(5000)))
            .await
            .is_some()
    );
    let trailers = "A: b\r\n".repeat(4000);
    assert!(refusal(&format!("{chunked}0\r\n{trailers}\r\n")).await.is_some());
}

#[tokio::test]
async fn an_answer_to_head_has_no_body() {
    let said = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
    let (got, stays) = lean(&Method::HEAD, said, usize::MAX).await.unwrap();
    assert!(got.whole && got.body.is_empty() && stays);
    assert_eq!(got.headers["content-length"], "5");
}

#[tokio::test]
async fn an_unusual_reason_is_kept() {
    let (ours, theirs) = duplex(1024);
    beside(say(
        theirs,
        b"HTTP/1.1 418 I'm short\r\nContent-Length: 0\r\n\r\n".to_vec(),
        100,
    ));
    let mut request = asked(&Method::GET);
    let exchange = Connection::new(ours).exchange(&mut request, None);
    let response = exchange.await.unwrap().response;
    let reason = response.extensions().get::<hyper::ext::ReasonPhrase>().unwrap();
    assert_eq!(reason.as_bytes(), b"I'm short");
}

#[tokio::test]
async fn only_a_quiet_connection_is_used_again() {
    let (ours, mut theirs) = duplex(64);
    let mut connection = Connection::new(ours);
    assert!(connection.is_quiet());
    theirs.write_all(b"HTTP/1.1 408 Request Timeout\r\n").await.unwrap();
    assert!(!connection.is_quiet(), "it said something");
    let (ours, theirs) = duplex(64);
    let mut connection = Connection::new(ours);
    drop(theirs);
    assert!(!connection.is_quiet(), "it hung up");
}

#[tokio::test]
async fn a_task_whose_turn_is_used_up_finds_out_as_well() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let ours = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (theirs, _) = listener.accept().await.unwrap();
    let mut connection = Connection::new(ours);
    assert!(connection.is_quiet());
    drop(theirs);
    connection.stream.readable().await.unwrap();
    while coop::has_budget_remaining() {
        let _ = coop::consume_budget().now_or_never();
    }
    assert!(!connection.is_quiet(), "it hung up");
}

#[tokio::test]
async fn how_far_it_came_is_known_when_it_fails() {
    let (ours, theirs) = duplex(1024);
    drop(theirs);
    let mut request = asked(&Method::GET);
    let exchange = Connection::new(ours).exchange(&mut request, None);
    let failed = exchange.await.unwrap_err();
    assert!(!failed.sent && !failed.answered, "{failed:?}");
    for (said, answered) in [
        ("", false),
        ("HTTP", true),
        ("HTTP/1.1 100 Continue\r\n\r\n", true),
        ("???", true),
    ] {
        let failed = lean(&Method::GET, said.as_bytes(), usize::MAX).await.unwrap_err();
        assert!(failed.sent, "{said}");
        assert_eq!(failed.answered, answered, "{said}");
    }
}

/// Answers as somebody might write them who means no good, or can't do better.
fn answers() -> impl Strategy<Value = String> {
    let version = prop_oneof![8 => Just("HTTP/1.1"), 1 => Just("HTTP/1.0")];
    let status = prop_oneof![6 => Just("200 OK"), 1 => Just("204 No Content"), 1 => Just("304 Not Modified"),
        1 => Just("103 Early Hints"), 1 => Just("404"), 1 => Just("502 ")];
    let field = prop_oneof![
        Just("Content-Length: 3"),
        Just("Content-Length: 0"),
        Just("content-length: 5"),
        Just("Content-Length: 3, 3"),
        Just("Content-Length: +3"),
        Just("Transfer-Encoding: chunked"),
        Just("Transfer-Encoding: gzip, chunked"),
        Just("Connection: close"),
        Just("Connection: keep-alive"),
        Just("X-Any: thing"),
        Just("X-Any: \t other "),
        Just("x-utf8: \u{e9}"),
        Just("Trailer: x"),
        Just("bad field"),
        Just(" folded"),
    ];
    let chunk = prop_oneof![
        Just("3\r\nabc\r\n"),
        Just("1;ext\r\nx\r\n"),
        Just("A\r\n0123456789\r\n"),
        Just("2 \r\nab\r\n"),
        Just("0\r\n\r\n"),
        Just("0\r\nX-Sum: 1\r\n\r\n"),
        Just("abc"),
        Just("ab"),
        Just("\r\n"),
        Just("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    ];
    let fields = prop::collection::vec(field, 0..4);
    let body = prop::collection::vec(chunk, 0..4);
    (version, status, fields, body).prop_map(|(version, status, fields, body)| {
        let mut said = format!("{version} {status}\r\n");
        for field in fields {
            let _ = write!(said, "{field}\r\n");
        }
        said.push_str("\r\n");
        said.extend(body);
        said
    })
}

fn agree(method: &Method, said: &[u8], piece: usize) -> Result<(), TestCaseError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let (ours, hypers) =
        runtime.block_on(async { (lean(method, said, piece).await.ok(), hypers(method, said, piece).await) });
    // We may refuse what hyper takes; what both take must be the same, and we take nothing that it refuses.
    if let Some((ours, _)) = ours {
        let hypers = hypers.expect("hyper takes it too");
        prop_assert_eq!(ours.status, hypers.status);
        prop_assert_eq!(&ours.headers, &hypers.headers);
        if ours.whole {
            prop_assert_eq!(&ours, &hypers);
        } else {
            prop_assert!(hypers.body.starts_with(&ours.body) || ours.body.starts_with(&hypers.body));
        }
    }
    Ok(())
}

/// Else the properties below would hold of nothing.
#[test]
fn enough_of_the_answers_are_ones_that_both_take() {
    const TRIES: usize = 400;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let mut runner = TestRunner::deterministic();
    let strategy = answers();
    let (mut whole, mut with_body, mut stay) = (0, 0, 0);
    for _ in 0..TRIES {
        let said = strategy.new_tree(&mut runner).unwrap().current();
        let both = runtime.block_on(async {
            let ours = lean(&Method::GET, said.as_bytes(), 40).await.ok()?;
            let hypers = hypers(&Method::GET, said.as_bytes(), 40).await?;
            Some((ours, hypers))
        });
        if let Some(((ours, stays), hypers)) = both
            && ours.whole
            && hypers.whole
        {
            whole += 1;
            with_body += usize::from(!ours.body.is_empty());
            stay += usize::from(stays);
        }
    }
    assert!(
        whole > TRIES / 4 && with_body > TRIES / 8 && stay > TRIES / 50,
        "of {TRIES}: {whole} whole, {with_body} with a body, {stay} leave the connection as it was"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::default())]

    #[test]
    fn hyper_reads_no_answer_otherwise(said in answers(), piece in 1_usize..40, head in any::<bool>()) {
        let method = if head { Method::HEAD } else { Method::GET };
        agree(&method, said.as_bytes(), piece)?;
    }

    #[test]
    fn hyper_reads_no_mutilated_answer_otherwise(
        said in answers(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        piece in 1_usize..40,
    ) {
        let mut said = said.into_bytes();
        let at = at.index(said.len());
        said[at] = byte;
        agree(&Method::GET, &said, piece)?;
    }

    #[test]
    fn no_bytes_are_too_much(said in prop::collection::vec(any::<u8>(), 0..300), piece in 1_usize..40) {
        agree(&Method::GET, &said, piece)?;
    }
}
