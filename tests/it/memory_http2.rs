//! Large bodies on HTTP/2, from clients and to applications: they arrive as they were sent, and the gateway's memory does
//! not grow with them. The program itself is measured; how much passes, `memory` says.
#![cfg(target_os = "linux")]

use std::{convert::Infallible, pin::pin, time::Duration};

use aws_lc_rs::digest::{Context, Digest, SHA256};
use bytes::Bytes;
use futures_util::stream;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{body::Frame, client::conn::http2::SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tempfile::TempDir;
use tokio::{
    net::TcpStream,
    time::{sleep, timeout},
};

use crate::{
    harness::{
        Database, SOON, Setup,
        backend::{Speaks, application},
        gateway::SITE,
        mailbox::Mailbox,
        program::Program,
    },
    memory::{MIB, amount, resident},
};

/// A body is made of these; each says its number again and again, so that none can be missing, doubled or moved.
const PIECE: usize = 64 << 10;

type Body = UnsyncBoxBody<Bytes, Infallible>;

fn piece(number: usize) -> Bytes {
    u64::try_from(number).unwrap().to_be_bytes().repeat(PIECE / 8).into()
}

/// So many bytes, made while they are asked for.
fn body(bytes: usize) -> Body {
    let pieces = (0..bytes / PIECE).map(|number| Ok(Frame::data(piece(number))));
    StreamBody::new(stream::iter(pieces)).boxed_unsync()
}

fn digest_of(bytes: usize) -> Digest {
    let mut digest = Context::new(&SHA256);
    (0..bytes / PIECE).for_each(|number| digest.update(&piece(number)));
    digest.finish()
}

/// Reads a body to its end, keeping nothing of it.
async fn digest(mut body: hyper::body::Incoming) -> Digest {
    let mut digest = Context::new(&SHA256);
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame.expect("a whole body").into_data() {
            digest.update(&data);
        }
    }
    digest.finish()
}

/// Answers a POST with the digest of what came, and a GET with as many bytes as its query says.
async fn answer(request: Request<hyper::body::Incoming>) -> Response<Body> {
    let (head, arrived) = request.into_parts();
    // To its end, whatever it is: a server that closes on what it has not read may lose what it has not sent.
    let digest = digest(arrived).await;
    Response::new(if head.method == Method::POST {
        Full::new(Bytes::copy_from_slice(digest.as_ref())).boxed_unsync()
    } else {
        body(head.uri.query().unwrap().parse().unwrap())
    })
}

struct Rig {
    program: Program,
    client: SendRequest<Body>,
    _db: Database,
    _mailbox: Mailbox,
    _folder: TempDir,
}

async fn rig(speaks: Speaks) -> Rig {
    let (db, mailbox) = (Database::fresh().await, Mailbox::start().await);
    let endpoint = application(speaks, answer).await;
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("gateway.toml");
    let setup = Setup::default()
        .with("[server]\nmax_body = '2GiB'")
        .endpoints(&[endpoint], "");
    // The address of an upstream is laid over.
    std::fs::write(&config, setup.text(&db, mailbox.addr(), mailbox.addr())).unwrap();
    let (program, addr, _) = Program::serve(&config).await;
    let stream = TokioIo::new(TcpStream::connect(addr).await.unwrap());
    let (client, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream)
        .await
        .unwrap();
    tokio::spawn(connection);
    Rig {
        program,
        client,
        _db: db,
        _mailbox: mailbox,
        _folder: folder,
    }
}

impl Rig {
    async fn answer(&self, method: Method, path: &str, body: Body) -> hyper::body::Incoming {
        let request = Request::builder().method(method).uri(format!("{SITE}{path}"));
        let answer = self.client.clone().send_request(request.body(body).unwrap()).await;
        let answer = answer.expect("an answer");
        assert_eq!(answer.status(), 200);
        answer.into_body()
    }

    async fn up(&self, bytes: usize) {
        let answer = self.answer(Method::POST, "/public/up", body(bytes)).await;
        let told = answer.collect().await.unwrap().to_bytes();
        assert!(told == digest_of(bytes).as_ref(), "another body arrived");
    }

    async fn down(&self, bytes: usize) {
        let answer = self
            .answer(Method::GET, &format!("/public/down?{bytes}"), body(0))
            .await;
        assert!(
            digest(answer).await.as_ref() == digest_of(bytes).as_ref(),
            "another body arrived"
        );
    }

    /// The most that is in memory while something passes.
    async fn most_during(&self, passing: impl Future<Output = ()>) -> usize {
        let mut passing = pin!(timeout(8 * SOON, passing));
        let mut most = 0;
        loop {
            most = most.max(resident(&self.program));
            tokio::select! {
                passed = passing.as_mut() => {
                    passed.expect("it does not stand still");
                    return most;
                }
                () = sleep(Duration::from_millis(2)) => {}
            }
        }
    }
}

async fn bodies_pass(speaks: Speaks) {
    let rig = rig(speaks).await;
    // What the first bodies need is needed once.
    rig.up(8 * MIB).await;
    rig.down(8 * MIB).await;
    let before = resident(&rig.program);
    let bytes = amount() * MIB;
    let most = rig
        .most_during(rig.up(bytes))
        .await
        .max(rig.most_during(rig.down(bytes)).await);
    let grown = most.saturating_sub(before);
    eprintln!(
        "{} MiB each way to {speaks:?}: {} KiB more than before",
        amount(),
        grown / 1024
    );
    assert!(grown < 10 * MIB, "{} KiB more than before", grown / 1024);
}

#[tokio::test]
async fn bodies_pass_whole_and_in_constant_memory_to_http1() {
    bodies_pass(Speaks::Http1).await;
}

#[tokio::test]
async fn bodies_pass_whole_and_in_constant_memory_to_http2() {
    bodies_pass(Speaks::Http2).await;
}
