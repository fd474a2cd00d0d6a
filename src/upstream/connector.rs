//! Opens a connection to an endpoint of an upstream.

use std::{io, time::Duration};

use hyper::client::conn::http1::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use socket2::SockRef;
use tokio::{
    net::{TcpStream, lookup_host},
    time::timeout,
};
use tracing::debug;

use super::body::RequestBody;
use crate::{
    chain::Chain,
    config::Endpoint,
    lifecycle::{KEEPALIVE, Tasks},
};

/// A connection to `endpoint`.
pub(super) async fn connect(endpoint: &Endpoint, limit: Duration) -> io::Result<TcpStream> {
    let stream = timeout(limit, dial(endpoint))
        .await
        .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, format!("no connection within {limit:?}")))??;
    // Small requests must not wait for the acknowledgement of the one before.
    stream.set_nodelay(true)?;
    SockRef::from(&stream).set_tcp_keepalive(&KEEPALIVE)?;
    Ok(stream)
}

/// HTTP/1.1 on `stream` for one request that may leave HTTP, driven by a task of `tasks` until it is closed.
pub(super) async fn for_upgrade(stream: TcpStream, tasks: &Tasks) -> hyper::Result<SendRequest<RequestBody>> {
    let (sender, connection) = Builder::new().handshake(TokioIo::new(stream)).await?;
    tasks.spawn("upstream connection", async move {
        // Upgrades are taken over by the tunnel; everything else ends with the connection.
        if let Err(error) = connection.with_upgrades().await {
            debug!(error = %Chain(&error), "an upstream connection ended");
        }
    });
    Ok(sender)
}

async fn dial(endpoint: &Endpoint) -> io::Result<TcpStream> {
    match endpoint {
        Endpoint::Addr(addr) => TcpStream::connect(addr).await,
        Endpoint::Name { host, port } => {
            let mut failure = None;
            for addr in lookup_host((host.as_str(), *port)).await? {
                match TcpStream::connect(addr).await {
                    Ok(stream) => return Ok(stream),
                    Err(error) => failure = Some(error),
                }
            }
            Err(failure.unwrap_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("{host} has no address"))))
        }
    }
}
