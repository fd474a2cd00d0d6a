//! A gateway as clients see it: a client that keeps its connections, and says when a request began.

use std::{io, net::SocketAddr, sync::Mutex, time::Duration};

use tokio::{
    io::{AsyncWriteExt as _, BufReader},
    net::TcpStream,
    time::{Instant, timeout},
};

use crate::harness::wire::{Head, read_body};

/// Longer than a gateway may take for anything.
const PATIENCE: Duration = Duration::from_secs(30);

/// As many as ask at the same time.
const MOST_IDLE: usize = 32;

pub(super) type Connection = BufReader<TcpStream>;

#[derive(Debug)]
pub(super) struct Door {
    addr: SocketAddr,
    idle: Mutex<Vec<Connection>>,
}

#[derive(Debug)]
pub(super) struct Reply {
    /// Before the first byte was sent.
    pub(super) began: Instant,
    /// When the last byte of the answer was there.
    pub(super) ended: Instant,
    pub(super) head: Head,
    pub(super) body: String,
}

impl Reply {
    pub(super) fn status(&self) -> u16 {
        self.head.status()
    }
}

impl Door {
    pub(super) const fn new(addr: SocketAddr) -> Self {
        Self {
            addr,
            idle: Mutex::new(Vec::new()),
        }
    }

    /// A GET, once more if the connection was an old one that had been closed.
    pub(super) async fn get(&self, request: &str) -> io::Result<Reply> {
        while let Some(connection) = self.kept() {
            if let Ok(reply) = self.ask(connection, request).await {
                return Ok(reply);
            }
        }
        self.once(request).await
    }

    /// On a connection of its own: sent once and no more.
    pub(super) async fn once(&self, request: &str) -> io::Result<Reply> {
        let connection = self.connect().await?;
        self.ask(connection, request).await
    }

    pub(super) async fn connect(&self) -> io::Result<Connection> {
        let stream = timeout(PATIENCE, TcpStream::connect(self.addr)).await??;
        stream.set_nodelay(true)?;
        Ok(BufReader::new(stream))
    }

    fn kept(&self) -> Option<Connection> {
        self.idle.lock().unwrap().pop()
    }

    async fn ask(&self, mut connection: Connection, request: &str) -> io::Result<Reply> {
        let began = Instant::now();
        let (head, body) = timeout(PATIENCE, async {
            connection.write_all(request.as_bytes()).await?;
            let head = Head::read(&mut connection).await?.ok_or(io::ErrorKind::UnexpectedEof)?;
            let framing = head.response_framing(request.split(' ').next().unwrap());
            let body = read_body(&mut connection, framing).await?;
            Ok::<_, io::Error>((head, body))
        })
        .await??;
        let ended = Instant::now();
        let mut idle = self.idle.lock().unwrap();
        // What is sent once leaves one more behind each time.
        if !head.has("connection") && idle.len() < MOST_IDLE {
            idle.push(connection);
        }
        drop(idle);
        Ok(Reply {
            began,
            ended,
            head,
            body: String::from_utf8_lossy(&body).into_owned(),
        })
    }
}
