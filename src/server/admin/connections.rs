//! Connections of the admin listener: few, short, and never in each other's way.
//!
//! Whoever reaches it is on this machine or in a network of the operator's, and yet could hold connections by the
//! thousand: their descriptors would be missing on the data path, and a probe that finds no place takes the gateway out
//! of service. So there is a bound, a newcomer has the place of whoever came first, and nobody stays for long.
//!
//! On a loopback address, metrics are for whoever asks for them by a name of this machine's: a web site whose name was made
//! to lead here could otherwise read, in the browser of somebody on it, what only those on it may.

use std::{collections::VecDeque, convert::Infallible, net::IpAddr, pin::pin, sync::Arc, time::Duration};

use http::{HeaderMap, Request, header, uri::Authority};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::Admin;
use crate::{config, lifecycle::Tasks};

/// At once. Probes and collectors of metrics are a handful.
const MAX_CONNECTIONS: usize = 64;
/// An operator's tool sends its request at once. Also how long a connection may lie idle.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// How long one may go on asking.
const KEPT: Duration = Duration::from_mins(1);
/// For the last answer of one that has asked for so long.
const LAST_ANSWER: Duration = Duration::from_secs(10);
/// After a failed `accept` (as with no file descriptors left).
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// Answers on `listener` until no connections are taken any more: that comes after the drain delay, in which
/// readiness is seen to be false.
pub(super) async fn serve(admin: Arc<Admin>, listener: TcpListener, tasks: Tasks) {
    let (closing, drained) = (tasks.stop.closing.clone(), tasks.stop.soft.clone());
    let local_only = listener
        .local_addr()
        .is_ok_and(|addr| addr.ip().to_canonical().is_loopback());
    let mut open = Open::default();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = closing.cancelled() => return,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                warn!(%error, "the admin listener could not accept a connection");
                sleep(ACCEPT_AGAIN).await;
                continue;
            }
        };
        let place = open.take();
        let (admin, stop) = (Arc::clone(&admin), drained.clone());
        tasks.spawn("admin connection", async move {
            // Free again as soon as this ends, in whatever way.
            let _place = place.clone().drop_guard();
            place
                .run_until_cancelled(stop.run_until_cancelled(answer(&admin, stream, local_only)))
                .await;
        });
    }
}

/// All that one client asks. Its own failures concern nobody but the one who asked.
async fn answer(admin: &Admin, stream: TcpStream, local_only: bool) {
    let service = service_fn(|request: Request<Incoming>| {
        let is_foreign = local_only && !is_for_this_machine(request.headers());
        let response = admin.answer(&request, is_foreign);
        async move { Ok::<_, Infallible>(response) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    if timeout(KEPT, connection.as_mut()).await.is_err() {
        connection.as_mut().graceful_shutdown();
        let _ = timeout(LAST_ANSWER, connection).await;
    }
}

/// Whether `Host` is an address, or a name that no DNS server has a say in. Browsers always say one.
fn is_for_this_machine(headers: &HeaderMap) -> bool {
    let hosts = headers.get_all(header::HOST).iter();
    hosts.filter(|host| !host.is_empty()).all(|host| {
        let authority = Authority::try_from(host.as_bytes());
        authority.is_ok_and(|authority| {
            let name = authority.host();
            let bare = name.trim_start_matches('[').trim_end_matches(']');
            config::is_loopback_host(name) || bare.parse::<IpAddr>().is_ok()
        })
    })
}

/// Who is connected, in the order in which they came. Cancelled are those that have ended.
#[derive(Default)]
struct Open(VecDeque<CancellationToken>);

impl Open {
    /// A place for one more, if need be the one of whoever came first.
    fn take(&mut self) -> CancellationToken {
        if self.0.len() >= MAX_CONNECTIONS {
            self.0.retain(|place| !place.is_cancelled());
        }
        if self.0.len() >= MAX_CONNECTIONS
            && let Some(first) = self.0.pop_front()
        {
            first.cancel();
        }
        let place = CancellationToken::new();
        self.0.push_back(place.clone());
        place
    }
}
