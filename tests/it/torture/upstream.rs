//! The application behind all gateways: it says whom it was told of, and keeps nothing.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    task::{AbortHandle, JoinSet},
};

use crate::harness::wire::Head;

/// It asks for a sign-out there.
pub(super) const LEAVE: &str = "/api/leave";
/// It sends events there, one and no end, or takes a WebSocket.
pub(super) const EVENTS: &str = "/api/events";

pub(super) struct Upstream {
    pub(super) addr: SocketAddr,
    accepting: AbortHandle,
}

impl Upstream {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let accepting = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream));
                while connections.try_join_next().is_some() {}
            }
        });
        Self {
            addr,
            accepting: accepting.abort_handle(),
        }
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Requests have no bodies.
async fn serve(stream: TcpStream) {
    stream.set_nodelay(true).unwrap();
    let mut stream = BufReader::new(stream);
    while let Ok(Some(head)) = Head::read(&mut stream).await {
        let user = head.one("x-user-id").unwrap_or_default();
        let events = head.target() == EVENTS;
        let answer = if events && head.has("upgrade") {
            // What RFC 6455 (1.3) says of the key that everybody gives.
            "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
                .to_owned()
        } else if events {
            "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\ndata: 1\n\n".to_owned()
        } else {
            let asks = if head.target() == LEAVE {
                "X-Vestibule-Sign-Out: session\r\n"
            } else {
                ""
            };
            format!("HTTP/1.1 200 OK\r\n{asks}Content-Length: {}\r\n\r\n{user}", user.len())
        };
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
        if events {
            // Until the gateway ends it.
            let _ = stream.read(&mut [0]).await;
            return;
        }
    }
}
