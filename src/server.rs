//! Sockets: who is let in, and on which worker.
//!
//! Each worker has a listener of its own on every address (SO_REUSEPORT), so that the kernel spreads connections and
//! no thread hands one to another. A listener is bound early, so that a taken port is noticed at once, and opened
//! only when the gateway is ready: until then connections are refused, not kept waiting.

pub mod acme;
pub mod admin;
mod answer;
pub mod connection;
mod http2;
mod refusal;
pub mod reloads;

use std::{io, net::SocketAddr, os::fd::OwnedFd, sync::Arc, time::Duration};

use futures_util::FutureExt;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::sleep,
};
use tracing::warn;

use self::connection::Worker;
use crate::{
    lifecycle,
    policy::connection::{Connection, Peer},
};

/// Connections that the kernel keeps for us while all places are taken.
const BACKLOG: i32 = 1024;
/// After a failed `accept`: without file descriptors, trying again at once only burns the processor.
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);

/// A bound address that does not accept connections yet.
#[derive(Debug)]
pub struct Bound(Socket);

impl Bound {
    /// Binds `addr` for one worker; further workers may bind the same address.
    pub fn new(addr: SocketAddr) -> io::Result<Self> {
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
    pub fn ensure_free(addr: SocketAddr) -> io::Result<()> {
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

    /// One that another process listens at, and goes on with until this one does.
    pub fn inherited(socket: OwnedFd) -> io::Result<Self> {
        let socket = Socket::from(socket);
        socket.set_nonblocking(true)?;
        Ok(Self(socket))
    }

    /// The same socket once more, with the same queue: for whoever is to go on with it.
    pub fn handle(&self) -> io::Result<OwnedFd> {
        self.0.try_clone().map(OwnedFd::from)
    }

    /// With the port that the system chose, where the configuration says 0.
    pub fn addr(&self) -> io::Result<SocketAddr> {
        self.0
            .local_addr()?
            .as_socket()
            .ok_or_else(|| io::Error::other("not an internet address"))
    }

    /// Opens it. To be called on the runtime that will accept from it.
    pub fn listen(self) -> io::Result<TcpListener> {
        self.0.listen(BACKLOG)?;
        TcpListener::from_std(self.0.into())
    }
}

/// Accepts connections until it is told to take no more. `places` is shared by all workers: while none is free, one
/// connection a listener waits here and the others in the kernel's backlog.
///
/// Those that wait in the kernel's queue then are still taken: closing the socket would reset them.
pub async fn accept(listener: TcpListener, places: Arc<Semaphore>, worker: Arc<Worker>) {
    let stop = &worker.tasks.stop;
    let mut left_in_queue = BACKLOG;
    loop {
        let accepted = match stop.closing.run_until_cancelled(listener.accept()).await {
            Some(accepted) => accepted,
            None if left_in_queue == 0 => return,
            None => match listener.accept().now_or_never() {
                Some(accepted) => {
                    left_in_queue -= 1;
                    accepted
                }
                None => return,
            },
        };
        match accepted.and_then(|(stream, peer)| prepared(stream).map(|stream| (stream, peer))) {
            Ok((stream, peer)) => {
                // Only now: an idle listener must not hold a place that another could fill.
                let place = Arc::clone(&places).acquire_owned();
                let Some(Ok(place)) = stop.hard.run_until_cancelled(place).await else {
                    return;
                };
                let facts = Connection { peer: Peer::of(peer) };
                let serving = connection::serve(Arc::clone(&worker), stream, facts);
                worker.tasks.spawn("connection", async move {
                    serving.await;
                    drop(place);
                });
            }
            Err(error) if is_the_clients(&error) => {}
            Err(error) => {
                warn!(%error, "could not accept a connection");
                sleep(ACCEPT_AGAIN).await;
            }
        }
    }
}

fn prepared(stream: TcpStream) -> io::Result<TcpStream> {
    stream.set_nodelay(true)?;
    // A peer that vanished without a word would keep a tunnel for ever.
    SockRef::from(&stream).set_tcp_keepalive(&lifecycle::KEEPALIVE)?;
    Ok(stream)
}

/// It went away before it was accepted.
fn is_the_clients(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::InvalidInput
    )
}
