//! Opens a connection to an endpoint: TCP or a socket in the file system, TLS where it is https, and then whatever
//! HTTP the two have in common.

use std::{io, net::SocketAddr, sync::atomic::Ordering};

use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use socket2::SockRef;
use tokio::{
    net::{TcpStream, UnixStream, lookup_host},
    time::timeout,
};
use tracing::debug;

use super::{
    Endpoint, Upstream,
    addresses::{Addresses, Origin},
    body::RequestBody,
    dial,
    endpoint::Speaks,
    http2::{self, Multiplexed},
    stream::Stream,
    tls::{self, For},
};
use crate::{
    chain::Chain,
    config::{At, Scheme},
    lifecycle::{KEEPALIVE, Tasks},
};

pub(super) enum Connected {
    Http1 { stream: Stream, origin: Option<Origin> },
    Http2(Multiplexed),
}

impl Upstream {
    /// A fresh connection to `endpoint`, within `connect_timeout`, all of it. Tasks of `tasks` drive one that requests
    /// share until it is closed.
    pub(super) async fn connect(&self, endpoint: &Endpoint, what: For, tasks: &Tasks) -> io::Result<Connected> {
        endpoint.connects.fetch_add(1, Ordering::Relaxed);
        let limit = self.settings.connect_timeout;
        let connecting = async {
            let (stream, origin) = self.open(endpoint, what).await?;
            let http2 = match endpoint.settings.scheme {
                Scheme::Http => false,
                Scheme::H2c => true,
                Scheme::Https => tls::chose_http2(stream.alpn()),
            };
            if http2 {
                endpoint.found_to_speak(Speaks::Http2);
                let connection = http2::handshake(stream, origin, tasks).await;
                return connection.map(Connected::Http2).map_err(io::Error::other);
            }
            if what == For::Requests {
                endpoint.found_to_speak(Speaks::Http1);
            }
            Ok(Connected::Http1 { stream, origin })
        };
        timeout(limit, connecting)
            .await
            .unwrap_or_else(|_| {
                let late = format!("no connection within {limit:?}");
                Err(io::Error::new(io::ErrorKind::TimedOut, late))
            })
            .inspect_err(|_| endpoint.addresses.doubt())
    }

    async fn open(&self, endpoint: &Endpoint, what: For) -> io::Result<(Stream, Option<Origin>)> {
        let (stream, origin) = match &endpoint.settings.at {
            At::Unix(path) => return Ok((Stream::Unix(UnixStream::connect(path).await?), None)),
            At::Addr(addr) => (TcpStream::connect(addr).await?, None),
            At::Name { host, port } => {
                let look_up = || {
                    let (host, port) = (host.clone(), *port);
                    async move { Ok(lookup_host((host.as_str(), port)).await?.collect()) }
                };
                let generation = endpoint.addresses.generation();
                let known = endpoint.addresses.get(look_up).await?;
                let (stream, addr): (_, SocketAddr) = dial::first_of(&known).await?;
                (stream, Some(Addresses::origin(addr, generation)))
            }
        };
        // Small requests must not wait for the acknowledgement of the one before.
        stream.set_nodelay(true)?;
        SockRef::from(&stream).set_tcp_keepalive(&KEEPALIVE)?;
        match &self.tls {
            Some(tls) if endpoint.settings.is_tls() => {
                let stream = tls.connect(stream, &endpoint.settings.at, what).await?;
                Ok((Stream::Tls(Box::new(stream)), origin))
            }
            _ => Ok((Stream::Tcp(stream), origin)),
        }
    }
}

/// HTTP/1.1 on `stream` for one request that may leave HTTP, driven by a task of `tasks` until it is closed.
pub(super) async fn for_upgrade(stream: Stream, tasks: &Tasks) -> hyper::Result<http1::SendRequest<RequestBody>> {
    let (sender, connection) = http1::Builder::new().handshake(TokioIo::new(stream)).await?;
    tasks.spawn("upstream connection", async move {
        // Upgrades are taken over by the tunnel; everything else ends with the connection.
        if let Err(error) = connection.with_upgrades().await {
            debug!(error = %Chain(&error), "an upstream connection ended");
        }
    });
    Ok(sender)
}
