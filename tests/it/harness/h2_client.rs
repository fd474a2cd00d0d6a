//! A client that speaks HTTP/2: several requests on one connection, over whatever stream it is given.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Version};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    task::JoinHandle,
    time::timeout,
};

use super::SOON;

/// A connection. Clones share it.
#[derive(Clone)]
pub(crate) struct H2Client {
    sender: SendRequest<Full<Bytes>>,
    origin: String,
}

/// What came back, whole.
#[derive(Debug)]
pub(crate) struct H2Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// A connection's end: `Ok` if it was closed in good order.
pub(crate) type Ending = JoinHandle<Result<(), hyper::Error>>;

impl H2Client {
    /// By prior knowledge. `host` is what `:authority` says.
    pub(crate) async fn connect(addr: SocketAddr, host: &str) -> Self {
        let stream = TcpStream::connect(addr).await.expect("the gateway listens");
        Self::over(stream, &format!("http://{host}")).await.0
    }

    /// Over a stream that is open already, for `origin`.
    pub(crate) async fn over<S>(stream: S, origin: &str) -> (Self, Ending)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .expect("a handshake of HTTP/2");
        let client = Self {
            sender,
            origin: origin.to_owned(),
        };
        (client, tokio::spawn(connection))
    }

    pub(crate) fn request(&self, method: &str, target: &str) -> http::request::Builder {
        Request::builder()
            .method(Method::from_bytes(method.as_bytes()).unwrap())
            .uri(format!("{}{target}", self.origin))
            .version(Version::HTTP_2)
    }

    pub(crate) async fn get(&self, target: &str) -> H2Answer {
        let request = self.request("GET", target).body(Full::default()).unwrap();
        self.send(request).await.expect("an answer")
    }

    pub(crate) async fn send(&self, request: Request<Full<Bytes>>) -> Result<H2Answer, hyper::Error> {
        let mut sender = self.sender.clone();
        let exchange = async {
            sender.ready().await?;
            let (head, body) = sender.send_request(request).await?.into_parts();
            Ok(H2Answer {
                status: head.status.as_u16(),
                headers: head.headers,
                body: body.collect().await?.to_bytes(),
            })
        };
        timeout(SOON, exchange).await.expect("an answer in time")
    }
}

impl H2Answer {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("a body of text")
    }

    /// The `code` of a problem.
    #[track_caller]
    pub(crate) fn code(&self) -> String {
        let problem: serde_json::Value = serde_json::from_slice(&self.body).expect("a problem");
        problem["code"].as_str().unwrap_or_default().to_owned()
    }
}
