//! Sockets of both families that a listener may be of: TCP, and unix sockets of the file system.

use std::{
    io::{self, IoSlice},
    net::SocketAddr,
    os::fd::OwnedFd,
    pin::Pin,
    task::{Context, Poll},
};

use socket2::{SockAddr, SockRef};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
};

use crate::{lifecycle, policy::connection::Peer};

/// Accepts connections.
#[derive(Debug)]
pub enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    /// Cancel-safe.
    pub(super) async fn accept(&self) -> io::Result<(Socket, Peer)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                Socket::tcp(stream, peer)
            }
            Self::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                Ok((Socket::Unix(stream), Peer::Unix))
            }
        }
    }

    /// A connection that the kernel has, if it has one. Asks itself: the runtime's listener knows only what it was told
    /// last.
    pub(super) fn queued(&self) -> Option<io::Result<(Socket, Peer)>> {
        let accepted = match self {
            Self::Tcp(listener) => SockRef::from(listener).accept(),
            Self::Unix(listener) => SockRef::from(listener).accept(),
        };
        match accepted {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            Err(error) => Some(Err(error)),
            Ok((socket, peer)) => Some(self.taken(socket, &peer)),
        }
    }

    fn taken(&self, socket: socket2::Socket, peer: &SockAddr) -> io::Result<(Socket, Peer)> {
        socket.set_nonblocking(true)?;
        match self {
            Self::Tcp(_) => {
                let peer = peer.as_socket().ok_or(io::ErrorKind::InvalidInput)?;
                Socket::tcp(TcpStream::from_std(socket.into())?, peer)
            }
            Self::Unix(_) => {
                let stream = UnixStream::from_std(OwnedFd::from(socket).into())?;
                Ok((Socket::Unix(stream), Peer::Unix))
            }
        }
    }
}

/// A connection. One type for both, so that what runs on it exists once.
#[derive(Debug)]
pub(super) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Socket {
    fn tcp(stream: TcpStream, peer: SocketAddr) -> io::Result<(Self, Peer)> {
        stream.set_nodelay(true)?;
        // A peer that vanished without a word would keep a tunnel for ever.
        SockRef::from(&stream).set_tcp_keepalive(&lifecycle::KEEPALIVE)?;
        Ok((Self::Tcp(stream), Peer::of(peer)))
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tcp(stream) => stream.is_write_vectored(),
            Self::Unix(stream) => stream.is_write_vectored(),
        }
    }
}
