//! Tunnels: a WebSocket, or whatever else both ends agree to speak instead of HTTP/1.1 (RFC 9110, 7.8).
//!
//! The request was authorised like any other. Nothing that a client sends behind it travels before the upstream has
//! answered 101: hyper keeps those bytes until then. If the upstream declines, they could only be misread as another
//! request, so the connection is closed after its answer (`server::answer` does it).

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Response, StatusCode};
use hyper::upgrade::{OnUpgrade, on};
use hyper_util::rt::TokioIo;
use tokio::{io::copy_bidirectional, time::timeout};
use tracing::debug;

use super::{Proxy, body::ProxyBody, error::ProxyError, headers::Outbound};
use crate::{
    chain::Chain,
    upstream::{Pool, UpstreamError},
};

/// An upstream that answered 101 takes over at once, or something is wrong.
const HANDOVER: Duration = Duration::from_secs(10);

/// Sends an upgrade request; on 101 joins both ends until one of them ends, or the gateway stops hard.
pub(super) async fn tunnel(
    proxy: &Proxy,
    pool: &Arc<Pool>,
    outbound: Outbound,
    client: OnUpgrade,
    head_timeout: Duration,
) -> Result<Response<ProxyBody>, ProxyError> {
    let Ok(place) = Arc::clone(&proxy.tunnels).try_acquire_owned() else {
        return Err(ProxyError::TooManyTunnels);
    };
    let (mut sender, in_flight) = pool.connect_for_upgrade().await?;
    let name = || pool.upstream().name().to_owned();
    let mut response = match timeout(head_timeout, sender.send_request(outbound.into_request())).await {
        Ok(Ok(response)) => response,
        Ok(Err(source)) => {
            let upstream = name();
            return Err(UpstreamError::Broken { upstream, source }.into());
        }
        Err(_) => {
            let (upstream, after) = (name(), head_timeout);
            return Err(UpstreamError::HeadTimeout { upstream, after }.into());
        }
    };
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Ok(response.map(|incoming| ProxyBody::declined(incoming, sender, in_flight)));
    }
    let upstream = on(&mut response);
    let stop = proxy.tasks.stop.streams.clone();
    proxy.tasks.spawn("tunnel", async move {
        // A tunnel may last for ever; a gateway that stops gives it `server.stream_grace`.
        stop.run_until_cancelled(join(client, upstream)).await;
        drop((place, in_flight));
    });
    let (parts, _) = response.into_parts();
    Ok(Response::from_parts(parts, ProxyBody::own(Bytes::new())))
}

async fn join(client: OnUpgrade, upstream: OnUpgrade) {
    let both = async { tokio::try_join!(client, upstream) };
    match timeout(HANDOVER, both).await {
        Ok(Ok((client, upstream))) => {
            // Either end may close its half first; the tunnel lasts until both have.
            if let Err(error) = copy_bidirectional(&mut TokioIo::new(client), &mut TokioIo::new(upstream)).await {
                debug!(%error, "a tunnel broke");
            }
        }
        Ok(Err(error)) => debug!(error = %Chain(&error), "an upgrade was agreed on but not carried out"),
        Err(_) => debug!("an upgrade was agreed on but not carried out in time"),
    }
}
