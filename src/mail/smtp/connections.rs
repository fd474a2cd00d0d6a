//! Connections to the SMTP server: opened, made private, signed in on, and kept while there is work.
//!
//! A connection is used for another mail only after a conversation that came to its end. One that was given up in the middle
//! (its time was over) owes an answer, which the next mail would take for its own: it is closed. The library's pool keeps
//! those, so this is our own.

use std::{
    fmt, io,
    net::SocketAddr,
    pin::Pin,
    sync::{Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_util::future::join_all;
use lettre::transport::smtp::{
    self,
    authentication::{Credentials, DEFAULT_MECHANISMS},
    client::{AsyncSmtpConnection, AsyncTokioStream, TlsParameters},
    extension::ClientId,
};
use memchr::memchr;
use tokio::{
    io::{AsyncBufRead, AsyncRead, AsyncWrite, BufReader, ReadBuf},
    net::{TcpStream, lookup_host},
    time::{Instant, timeout},
};

/// For connecting to one address.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);

/// A connection that nobody has needed for so long is closed; servers drop idle ones after minutes.
const IDLE: Duration = Duration::from_secs(30);

/// For a word from one that was kept: it may have died without one.
const TEST: Duration = Duration::from_secs(3);

/// For saying goodbye: the server may be in no state to answer.
const FAREWELL: Duration = Duration::from_secs(1);

/// Of one line, before TLS: a reply's lines have 512 bytes at most (RFC 5321, 4.5.3.1.5), some servers' more.
const MAX_LINE: usize = 64 * 1024;

/// How the conversation is kept private.
pub(super) enum Privacy {
    None,
    /// Asked for before anything else is said, and insisted on (RFC 3207).
    StartTls(TlsParameters),
    /// From the first byte.
    Tls(TlsParameters),
}

/// Why there is no connection, or why a conversation failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failed {
    #[error("can't connect")]
    Connect(#[source] io::Error),
    #[error("the server takes a mail with what is no answer to one")]
    OutOfStep,
    #[error(transparent)]
    Smtp(#[from] smtp::Error),
}

/// Connections to one server.
pub(super) struct Connections {
    host: String,
    port: u16,
    privacy: Privacy,
    credentials: Option<Credentials>,
    idle: Mutex<Vec<Idle>>,
}

struct Idle {
    connection: AsyncSmtpConnection,
    since: Instant,
}

impl Connections {
    pub(super) fn new(host: String, port: u16, privacy: Privacy, credentials: Option<Credentials>) -> Self {
        Self {
            host,
            port,
            privacy,
            credentials,
            idle: Mutex::default(),
        }
    }

    /// One that answers. Dropped, it is closed; who is done with it says so by [`Connections::keep`].
    pub(super) async fn get(&self) -> Result<AsyncSmtpConnection, Failed> {
        while let Some(Idle { mut connection, since }) = self.last_used() {
            if since.elapsed() < IDLE && matches!(timeout(TEST, connection.test_connected()).await, Ok(true)) {
                return Ok(connection);
            }
        }
        self.open().await
    }

    /// For a later mail. To be called when every answer of the conversation has been read.
    pub(super) fn keep(&self, connection: AsyncSmtpConnection) {
        let since = Instant::now();
        self.idle().push(Idle { connection, since });
    }

    /// Closes those that nobody has needed for long.
    pub(super) async fn close_idle(&self) {
        self.close(|idle| idle.since.elapsed() >= IDLE).await;
    }

    /// Closes those that are in no use.
    pub(super) async fn close_all(&self) {
        self.close(|_| true).await;
    }

    async fn close(&self, which: impl Fn(&Idle) -> bool) {
        let over: Vec<_> = self.idle().extract_if(.., |idle| which(idle)).collect();
        join_all(over.into_iter().map(|idle| say_goodbye(idle.connection))).await;
    }

    fn last_used(&self) -> Option<Idle> {
        self.idle().pop()
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Idle>> {
        // It is whole whenever it is let go.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn open(&self) -> Result<AsyncSmtpConnection, Failed> {
        let hello = ClientId::default();
        let mut connection = match &self.privacy {
            Privacy::Tls(tls) => {
                let server = (self.host.as_str(), self.port);
                AsyncSmtpConnection::connect_tokio1(server, Some(CONNECT_WITHIN), &hello, Some(tls.clone()), None)
                    .await?
            }
            Privacy::None | Privacy::StartTls(_) => {
                let stream = self.connect().await.map_err(Failed::Connect)?;
                AsyncSmtpConnection::connect_with_transport(Box::new(ByLine::new(stream)), &hello).await?
            }
        };
        if let Privacy::StartTls(tls) = &self.privacy {
            connection.starttls(tls.clone(), &hello).await?;
        }
        if let Some(credentials) = &self.credentials {
            connection.auth(DEFAULT_MECHANISMS, credentials).await?;
        }
        Ok(connection)
    }

    async fn connect(&self) -> io::Result<TcpStream> {
        let mut failed = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in lookup_host((self.host.as_str(), self.port)).await? {
            match timeout(CONNECT_WITHIN, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => failed = error,
                Err(_) => failed = io::ErrorKind::TimedOut.into(),
            }
        }
        Err(failed)
    }
}

impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Connections({}:{})", self.host, self.port)
    }
}

/// Ends a conversation in order (RFC 5321, 4.1.1.10), if the server takes part.
pub(super) async fn say_goodbye(mut connection: AsyncSmtpConnection) {
    let _ = timeout(FAREWELL, connection.abort()).await;
}

/// Hands out what arrives a line at a time, so that a reply's reader never has what comes behind it.
///
/// What somebody on the way adds behind the reply to STARTTLS would else be read as replies from within TLS, as the library
/// keeps what it has read. So it reaches TLS, which refuses it (the "NO STARTTLS" attacks, USENIX Security 2021).
#[derive(Debug)]
struct ByLine {
    stream: BufReader<TcpStream>,
    /// Bytes since the last line's end.
    length: usize,
}

impl ByLine {
    fn new(stream: TcpStream) -> Self {
        Self {
            stream: BufReader::new(stream),
            length: 0,
        }
    }
}

impl AsyncRead for ByLine {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { stream, length } = self.get_mut();
        let there = ready!(Pin::new(&mut *stream).poll_fill_buf(cx))?;
        let end = memchr(b'\n', there).map(|at| at + 1);
        let count = end.unwrap_or(there.len()).min(buf.remaining());
        buf.put_slice(there.get(..count).unwrap_or_default());
        *length = if end == Some(count) { 0 } else { *length + count };
        if *length > MAX_LINE {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "a line without an end")));
        }
        Pin::new(stream).consume(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ByLine {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

impl AsyncTokioStream for ByLine {
    fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.stream.get_ref().peer_addr()
    }
}
