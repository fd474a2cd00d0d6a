//! One client connection: which protocol it speaks, and its patience.
//!
//! A connection of a plain listener says by its first bytes whether it is HTTP/1.1 or HTTP/2; then hyper speaks it, and
//! one timer looks after it. What becomes of a request is said elsewhere (`server::answer`).

use std::{
    convert::Infallible,
    future::Future,
    pin::{Pin, pin},
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use http::{Request, Response};
use hyper::{
    body::Incoming,
    server::conn::http1,
    service::{HttpService, service_fn},
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{sleep_until, timeout},
};

use super::{
    answer::answer,
    http2::{self, Streams},
    refusal,
};
use crate::{
    auth::Auth,
    clock::{self, Clock},
    config,
    lifecycle::Tasks,
    live::Live,
    policy::connection::Connection,
    proxy::{
        Proxy,
        body::ProxyBody,
        head_guard::Guarded,
        pace::{Pace, Paced, Patience},
        record::Recorder,
    },
    telemetry::{RequestIds, Stats},
};

/// What hyper reads at most before it is taken from it.
const READ_BUFFER: usize = 8192 + 4096 * 100;

/// A client that was told to go has so long to say that it heard it; requests in flight may take their time.
const LEAVE: Duration = Duration::from_secs(5);
/// At the soft stop, a connection this young that has said nothing may have its first request under way: it is not closed
/// yet.
const YOUNG: Duration = Duration::from_secs(5);

/// One thread of the data path: all that its requests share.
#[derive(Debug)]
pub struct Worker {
    pub live: Arc<Live>,
    pub proxy: Proxy,
    /// Of all workers; replaced by a reload.
    pub auth: Arc<ArcSwap<Auth>>,
    pub clock: Clock,
    pub tasks: Tasks,
    /// Of the runtime for cold work, which serves the auth API.
    pub cold: Tasks,
    pub recorder: Arc<Recorder>,
    pub ids: RequestIds,
}

/// A connection and its worker: what all its requests share.
#[derive(Debug)]
pub struct Conversation {
    pub worker: Arc<Worker>,
    pub facts: Connection,
    pub pace: Arc<Pace>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Protocol {
    Http1,
    Http2,
}

/// Serves one connection to its end.
pub async fn serve<S>(worker: Arc<Worker>, socket: S, facts: Connection)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let _counted = Counted::new(&worker.recorder.stats);
    let patience = patience(&worker.live.load().config.server);
    let pace = Arc::new(Pace::new());
    let mut stream = Paced::new(socket, Arc::clone(&pace));
    let soft = worker.tasks.stop.soft.clone();
    let grown_up = clock::monotonic() + YOUNG;
    let listening = timeout(patience.head, http2::sniff(&mut stream));
    let protocol = tokio::select! {
        biased;
        heard = listening => match heard {
            Ok(Ok(protocol)) => protocol,
            Ok(Err(_)) | Err(_) => return,
        },
        () = async { soft.cancelled().await; sleep_until(grown_up.into()).await } => return,
    };
    let conversation = Arc::new(Conversation { worker, facts, pace });
    converse(&conversation, stream, protocol, &patience).await;
}

/// Speaks `protocol` on `stream`.
async fn converse<S>(conversation: &Arc<Conversation>, stream: S, protocol: Protocol, patience: &Patience)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let live = conversation.worker.live.load();
    let server = &live.config.server;
    match protocol {
        Protocol::Http1 => {
            // No timer: `Pace` tells a slow head from an idle connection, which hyper's own time-out does not.
            let connection = http1::Builder::new()
                .header_read_timeout(None)
                .max_header_size(server.max_header_bytes)
                // hyper's own default; a larger head needs a larger buffer.
                .max_buf_size(server.max_header_bytes.max(READ_BUFFER))
                .serve_connection(TokioIo::new(Guarded::new(stream)), service(conversation))
                .with_upgrades();
            drop(live);
            attend(conversation, connection, patience).await;
        }
        Protocol::Http2 => {
            conversation.pace.multiplex(clock::monotonic());
            let connection =
                http2::builder(conversation, server).serve_connection(TokioIo::new(stream), service(conversation));
            drop(live);
            attend(conversation, connection, patience).await;
        }
    }
}

fn service(
    conversation: &Arc<Conversation>,
) -> impl HttpService<Incoming, ResBody = ProxyBody, Error = Infallible, Future: Send + 'static> + use<> {
    let conversation = Arc::clone(conversation);
    service_fn(move |request: Request<Incoming>| {
        let conversation = Arc::clone(&conversation);
        async move { Ok::<Response<ProxyBody>, Infallible>(answer(conversation, request).await) }
    })
}

/// A connection of either protocol.
trait Attended: Future<Output = hyper::Result<()>> {
    /// Whether the client is told before the connection ends, so that it knows which of its requests were heard.
    const SAYS_GOODBYE: bool;

    /// Begins to end it: what has begun is finished.
    fn finish(self: Pin<&mut Self>);
}

impl<I, S> Attended for http1::UpgradeableConnection<I, S>
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
    S: HttpService<Incoming, ResBody = ProxyBody, Error = Infallible>,
{
    const SAYS_GOODBYE: bool = false;

    fn finish(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

impl<I, S> Attended for hyper::server::conn::http2::Connection<I, S, Streams>
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin,
    S: HttpService<Incoming, ResBody = ProxyBody, Error = Infallible, Future: Send + 'static>,
{
    const SAYS_GOODBYE: bool = true;

    fn finish(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

/// Runs a connection to its end, or to the end of our patience with the client.
async fn attend<C: Attended>(conversation: &Conversation, connection: C, patience: &Patience) {
    let pace = &conversation.pace;
    let soft = conversation.worker.tasks.stop.soft.clone();
    let mut connection = pin!(connection);
    // The shortest span that may end a connection: the timer looks at it no less often.
    let look_every = patience.head.min(patience.idle).min(patience.reading);
    let mut timer = pin!(sleep_until((clock::monotonic() + look_every).into()));
    let mut stopping = false;
    // Once the client was told to go: how long it may stay without a request.
    let mut leave_by: Option<Instant> = None;
    loop {
        tokio::select! {
            // The connection first: told to finish before it has read its first request, it would close instead.
            biased;
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    refusal::record_nonsense(conversation, &error);
                }
                return;
            }
            () = timer.as_mut() => {
                let now = clock::monotonic();
                let due = |leave_by: Option<Instant>| {
                    leave_by.filter(|_| pace.at_rest()).or_else(|| pace.deadline(patience))
                };
                if due(leave_by).is_some_and(|due| due <= now) {
                    if !C::SAYS_GOODBYE || leave_by.is_some() || !pace.at_rest() {
                        return;
                    }
                    connection.as_mut().finish();
                    leave_by = Some(now + LEAVE);
                }
                // Another span may have begun, or begin at any moment.
                let soonest = now + look_every;
                timer.as_mut().reset(due(leave_by).map_or(soonest, |due| due.min(soonest)).into());
            }
            () = soft.cancelled(), if !stopping => {
                stopping = true;
                connection.as_mut().finish();
                if C::SAYS_GOODBYE {
                    let now = clock::monotonic();
                    leave_by = Some(now + LEAVE);
                    timer.as_mut().reset((now + LEAVE.min(look_every)).into());
                }
            }
        }
    }
}

fn patience(server: &config::Server) -> Patience {
    Patience {
        head: server.header_timeout,
        idle: server.idle_timeout,
        reading: server.body_timeout,
    }
}

/// Counts a connection while it lives.
struct Counted(Arc<Stats>);

impl Counted {
    fn new(stats: &Arc<Stats>) -> Self {
        stats.connections.fetch_add(1, Ordering::Relaxed);
        stats.open_connections.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(stats))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.open_connections.fetch_sub(1, Ordering::Relaxed);
    }
}
