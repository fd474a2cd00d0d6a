//! Writes bytes: smuggling, slow heads and odd targets can't be sent through a polite client.

use std::{fmt::Display, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    time::timeout,
};

use super::{
    client::Response,
    wire::{Head, read_body},
};

/// No answer of a gateway that works takes longer, unless a test says so.
const PATIENCE: Duration = Duration::from_mins(1);

#[derive(Debug)]
pub(crate) struct RawClient {
    pub(crate) stream: BufReader<TcpStream>,
}

impl RawClient {
    pub(crate) async fn connect(addr: SocketAddr) -> Self {
        Self::of(TcpStream::connect(addr).await.expect("the gateway listens"))
    }

    pub(crate) fn of(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        Self {
            stream: BufReader::new(stream),
        }
    }

    /// Sends as far as the gateway takes it: it may refuse and close before the last byte.
    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.stream.write_all(bytes.as_ref()).await;
    }

    pub(crate) async fn head(&mut self) -> Head {
        let head = timeout(PATIENCE, Head::read(&mut self.stream))
            .await
            .expect("an answer in time");
        head.expect("a whole head")
            .expect("an answer rather than a closed connection")
    }

    /// The whole answer to a request with this method, behind those that are interim (RFC 9110, 15.2).
    pub(crate) async fn answer_to(&mut self, method: &str) -> Response {
        let head = loop {
            let head = self.head().await;
            if !matches!(head.status(), 100 | 102 | 103) {
                break head;
            }
        };
        let framing = head.response_framing(method);
        let body = timeout(PATIENCE, read_body(&mut self.stream, framing))
            .await
            .expect("a body in time");
        Response {
            body: body.expect("a whole body"),
            head,
        }
    }

    /// Sends a request with no field but `Host`, and reads its answer.
    pub(crate) async fn ask(&mut self, method: &str, target: &str, host: impl Display) -> Response {
        self.send(format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\n\r\n"))
            .await;
        self.answer_to(method).await
    }

    pub(crate) async fn answer(&mut self) -> Response {
        self.answer_to("GET").await
    }

    /// What still comes until the gateway closes. A reset counts as an end.
    pub(crate) async fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        let reading = async {
            let mut piece = [0; 4096];
            while let Ok(count @ 1..) = self.stream.read(&mut piece).await {
                rest.extend_from_slice(&piece[..count]);
            }
        };
        timeout(PATIENCE, reading)
            .await
            .expect("the gateway closes the connection");
        rest
    }

    /// Whether the gateway has closed, sending nothing more.
    pub(crate) async fn is_closed(&mut self) -> bool {
        self.rest().await.is_empty()
    }
}
