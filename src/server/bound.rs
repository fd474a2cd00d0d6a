//! Addresses that are taken, and not yet listened at.
//!
//! Bound early, a taken address is noticed at once; opened only when the gateway is ready, connections are refused until
//! then, not kept waiting. A TCP address is bound once for each worker (SO_REUSEPORT). A unix socket is one file, and a
//! socket from outside is one socket: workers share it.

use std::{
    fs, io,
    net::SocketAddr,
    os::{
        fd::OwnedFd,
        unix::fs::{FileTypeExt as _, PermissionsExt as _},
    },
    path::Path,
};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::net::{TcpListener, UnixListener};

use super::socket::Listener;
use crate::config::Listen;

/// Connections that the kernel keeps for us while all places are taken.
pub(super) const BACKLOG: i32 = 1024;
/// The gateway's user and group may connect: who else may is decided by the folder and by who is in the group.
const SOCKET_MODE: u32 = 0o660;

/// A bound address that does not accept connections yet.
#[derive(Debug)]
pub struct Bound(Socket);

impl Bound {
    /// Takes `listen`, which nobody else must have.
    pub fn open(listen: &Listen) -> io::Result<Self> {
        match listen {
            Listen::Tcp(addr) => {
                Self::ensure_free(*addr)?;
                Self::tcp(*addr)
            }
            Listen::Unix(path) => Self::unix(path),
            Listen::Fd(_) => Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "only the service manager can open it",
            )),
        }
    }

    /// From a socket that is open already, and perhaps listened at: by whom it was handed over.
    pub fn inherited(socket: OwnedFd) -> io::Result<Self> {
        let socket = Socket::from(socket);
        socket.set_nonblocking(true)?;
        Ok(Self(socket))
    }

    /// The same address for one more worker.
    pub fn again(&self) -> io::Result<Self> {
        match self.addr() {
            // One that came from outside need not let others beside it.
            Some(addr) if self.0.reuse_port()? => Self::tcp(addr),
            _ => self.shared(),
        }
    }

    /// The same socket for one more worker, with one queue for both.
    pub fn shared(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }

    /// The same socket once more, with the same queue: for whoever is to go on with it.
    pub fn handle(&self) -> io::Result<OwnedFd> {
        self.0.try_clone().map(OwnedFd::from)
    }

    /// With the port that the system chose, where the configuration says 0. `None`: a unix socket.
    pub fn addr(&self) -> Option<SocketAddr> {
        self.0.local_addr().ok()?.as_socket()
    }

    /// Opens it. To be called on the runtime that will accept from it.
    pub fn listen(self) -> io::Result<Listener> {
        // Of one that is listened at, whoever opened it has chosen the backlog.
        if !self.0.is_listener()? {
            self.0.listen(BACKLOG)?;
        }
        if self.0.local_addr()?.is_unix() {
            UnixListener::from_std(self.0.into()).map(Listener::Unix)
        } else {
            TcpListener::from_std(self.0.into()).map(Listener::Tcp)
        }
    }

    fn tcp(addr: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
        if addr.is_ipv6() {
            // `[::]` must not take IPv4's port as well: the configuration may name both.
            socket.set_only_v6(true)?;
        }
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&addr.into())?;
        Ok(Self(socket))
    }

    /// Fails if somebody else has `addr`: with SO_REUSEPORT alone, a second gateway would quietly take every other
    /// connection of the first.
    fn ensure_free(addr: SocketAddr) -> io::Result<()> {
        if addr.port() == 0 {
            return Ok(());
        }
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
        if addr.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.set_reuse_address(true)?;
        socket.bind(&addr.into())?;
        // Two sockets may be bound with SO_REUSEADDR, but only one may listen.
        socket.listen(1)
    }

    /// A socket's file outlives its process: one at which nobody answers is replaced.
    fn unix(path: &Path) -> io::Result<Self> {
        let addr = SockAddr::unix(path)?;
        if let Ok(found) = fs::symlink_metadata(path) {
            if !found.file_type().is_socket() {
                return Err(io::Error::new(
                    io::ErrorKind::AlreadyExists,
                    "there is a file that is no socket",
                ));
            }
            let asking = Socket::new(Domain::UNIX, Type::STREAM, None)?;
            asking.set_nonblocking(true)?;
            match asking.connect(&addr) {
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path)?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                // Its queue is full.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(io::ErrorKind::AddrInUse.into()),
                Err(error) => return Err(error),
                Ok(()) => return Err(io::ErrorKind::AddrInUse.into()),
            }
        }
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        socket.bind(&addr)?;
        // Nobody can connect before it is listened at.
        fs::set_permissions(path, fs::Permissions::from_mode(SOCKET_MODE))?;
        Ok(Self(socket))
    }
}
