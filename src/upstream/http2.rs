//! HTTP/2 to an endpoint: one connection carries many requests of a worker, a few at most where one is not enough.
//!
//! Windows are chosen so that a client that does not read its answer never holds up others: what all streams may have
//! outstanding fits into the connection's window.
//!
//! A connection is not pinged: gRPC servers hang up on clients that ask more often than every five minutes. TCP finds
//! out that the other end is gone; and one on which a request waited in vain while nothing else was answered gets no
//! further ones.
//!
//! Requests come in the form of HTTP/1.1 and are put into that of HTTP/2 here.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use http::{
    Request, Uri, Version,
    header::{CONNECTION, HOST},
    uri::{Authority, Parts, Scheme},
};
use hyper::{
    client::conn::http2::{Builder, SendRequest},
    rt::Executor,
};
use hyper_util::rt::TokioIo;
use tracing::debug;

use super::{addresses::Origin, body::RequestBody, stream::Stream};
use crate::{chain::Chain, clock, lifecycle::Tasks};

/// Requests at once on one connection, whatever more the endpoint would take.
const MAX_STREAMS: usize = 100;
/// Connections of a worker to one endpoint. Past it requests wait within them for the endpoint to take them.
const MAX_CONNECTIONS: usize = 8;
/// What an answer may be ahead of the client that reads it.
const STREAM_WINDOW: u32 = 128 * 1024;
/// Room for all streams at once.
const CONNECTION_WINDOW: u32 = STREAM_WINDOW * 100;
/// What is buffered of one request's body.
const SEND_BUFFER: usize = 128 * 1024;
/// Of an answer's fields; about what HTTP/1.1 is allowed.
const MAX_HEADER_LIST: u32 = 256 * 1024;

/// A connection that many requests share.
pub(super) struct Multiplexed {
    sender: SendRequest<RequestBody>,
    streams: Arc<Streams>,
    origin: Option<Origin>,
    used: Instant,
}

#[derive(Debug)]
struct Streams {
    open: AtomicUsize,
    /// As the endpoint allows.
    max: AtomicUsize,
    began: Instant,
    /// When an answer came last, in milliseconds after `began`.
    answered: AtomicU64,
}

/// A request's part in a connection, until it is dropped.
pub(super) struct Part {
    pub(super) sender: SendRequest<RequestBody>,
    pub(super) held: Held,
}

/// Counts a request while it lives.
pub(super) struct Held(Arc<Streams>);

impl Held {
    /// An answer came.
    pub(super) fn note_answer(&self) {
        let ms = clock::monotonic().saturating_duration_since(self.0.began).as_millis();
        self.0
            .answered
            .store(u64::try_from(ms).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Multiplexed {
    pub(super) const fn origin(&self) -> Option<&Origin> {
        self.origin.as_ref()
    }

    pub(super) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Whether something was answered on it after `then`, or it is younger.
    pub(super) fn answered_since(&self, then: Instant) -> bool {
        self.streams.began + Duration::from_millis(self.streams.answered.load(Ordering::Relaxed)) >= then
    }

    pub(super) fn is_unused(&self, now: Instant, limit: Duration) -> bool {
        self.open() == 0 && now.saturating_duration_since(self.used) >= limit
    }

    pub(super) fn take(&mut self) -> Part {
        self.streams.open.fetch_add(1, Ordering::Relaxed);
        self.used = clock::monotonic();
        Part {
            sender: self.sender.clone(),
            held: Held(Arc::clone(&self.streams)),
        }
    }

    fn open(&self) -> usize {
        self.streams.open.load(Ordering::Relaxed)
    }

    fn has_room(&self) -> bool {
        self.open() < self.streams.max.load(Ordering::Relaxed)
    }
}

/// The connection that takes one more request, if one is to: the first with room, so that those behind it empty and
/// close; when there may be no more of them, the one with least to do.
pub(super) fn pick(connections: &mut [Multiplexed]) -> Option<&mut Multiplexed> {
    let with_room = connections.iter().position(Multiplexed::has_room);
    let at = match with_room {
        Some(at) => at,
        None if connections.len() < MAX_CONNECTIONS => return None,
        None => {
            let open = |(_, connection): &(usize, &Multiplexed)| connection.open();
            connections.iter().enumerate().min_by_key(open)?.0
        }
    };
    connections.get_mut(at)
}

/// HTTP/2 on `stream`, driven by tasks of `tasks` until it is closed.
pub(super) async fn handshake(stream: Stream, origin: Option<Origin>, tasks: &Tasks) -> hyper::Result<Multiplexed> {
    let (sender, connection) = Builder::new(OnTasks(tasks.clone()))
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .max_header_list_size(MAX_HEADER_LIST)
        .initial_max_send_streams(MAX_STREAMS)
        .handshake(TokioIo::new(stream))
        .await?;
    let streams = Arc::new(Streams {
        open: AtomicUsize::new(0),
        max: AtomicUsize::new(MAX_STREAMS),
        began: clock::monotonic(),
        answered: AtomicU64::new(0),
    });
    let noting = Arc::clone(&streams);
    tasks.spawn("upstream connection", async move {
        let mut connection = pin!(connection);
        let ended = poll_fn(|cx| {
            let polled = connection.as_mut().poll(cx);
            // Of zero nothing would ever come: one may wait there until it changes.
            let allowed = connection.current_max_send_streams().clamp(1, MAX_STREAMS);
            noting.max.store(allowed, Ordering::Relaxed);
            polled
        });
        if let Err(error) = ended.await {
            debug!(error = %Chain(&error), "an upstream connection ended");
        }
    });
    Ok(Multiplexed {
        sender,
        streams,
        origin,
        used: clock::monotonic(),
    })
}

/// Names a request's host and scheme in its target (RFC 9113, 8.3.1). `Connection` goes: it is not spoken here, and hyper
/// would remove the `te` that it names.
pub(super) fn into_http2(request: &mut Request<RequestBody>, scheme: &Scheme) {
    request.headers_mut().remove(CONNECTION);
    let host = request.headers_mut().remove(HOST);
    let authority = host.and_then(|host| Authority::try_from(host.as_bytes()).ok());
    let mut parts = Parts::default();
    parts.scheme = Some(scheme.clone());
    parts.authority = authority;
    parts.path_and_query = request.uri().path_and_query().cloned();
    // A host that is none was refused long ago; without one hyper refuses the request.
    if let Ok(uri) = Uri::from_parts(parts) {
        *request.uri_mut() = uri;
    }
    *request.version_mut() = Version::HTTP_2;
}

/// hyper's own tasks are tracked and stopped like all others.
#[derive(Clone)]
struct OnTasks(Tasks);

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for OnTasks {
    fn execute(&self, future: F) {
        self.0.spawn("upstream HTTP/2", future);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_names_its_host_in_its_target() {
        let mut request = Request::new(RequestBody::EMPTY);
        *request.uri_mut() = Uri::from_static("/a?b=c");
        request
            .headers_mut()
            .insert(HOST, http::HeaderValue::from_static("app.example.com:8443"));
        into_http2(&mut request, &Scheme::HTTPS);
        assert_eq!(request.uri(), "https://app.example.com:8443/a?b=c");
        assert_eq!(
            (request.version(), request.headers().get(HOST)),
            (Version::HTTP_2, None)
        );
    }
}
