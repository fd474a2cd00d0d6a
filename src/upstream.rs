//! Sends a request to an upstream: which endpoint, over which connection, for how long, and whether to try again.
//!
//! An [`Upstream`] is shared by the whole gateway; a [`Pool`] belongs to one worker, so that a connection never moves
//! between threads. Idle connections are taken last in, first out: the newest is the least likely to be dead. A
//! pooled connection that dies before a byte of the answer is replaced by a fresh one, once, if nothing was sent or
//! the request may be repeated (RFC 9110, 9.2.2) and its body is still untouched.

pub mod answer;
pub mod body;
mod connector;
mod lean;

use std::{
    fmt, io,
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use http::{Method, Request, Response};
use hyper::client::conn::http1::SendRequest;
use tokio::{
    net::TcpStream,
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;

pub use self::lean::LeanError;
use self::{
    answer::AnswerBody,
    body::{BodyWatch, RequestBody},
    lean::Answered,
};
use crate::{clock, config, lifecycle::Tasks};

/// A named application and its endpoints.
#[derive(Debug)]
pub struct Upstream {
    pub settings: config::Upstream,
    /// Where the next request goes: endpoints take turns.
    turn: AtomicUsize,
    in_flight: Arc<Semaphore>,
    pub connects: AtomicU64,
}

#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    #[error("could not connect to upstream {upstream}")]
    Connect {
        upstream: String,
        #[source]
        source: io::Error,
    },
    #[error("upstream {upstream} was at its limit of requests in flight for {waited:?}")]
    Busy { upstream: String, waited: Duration },
    #[error("upstream {upstream} sent no response head within {after:?}")]
    HeadTimeout { upstream: String, after: Duration },
    #[error("upstream {upstream} switched protocols without being asked")]
    Switched { upstream: String },
    #[error("the connection to upstream {upstream} failed before a response")]
    Broken {
        upstream: String,
        #[source]
        source: WireError,
    },
}

/// What went wrong on a connection, by who was speaking on it.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    #[error(transparent)]
    Lean(#[from] LeanError),
    /// On a connection for an upgrade.
    #[error(transparent)]
    Hyper(#[from] hyper::Error),
}

impl Upstream {
    pub fn new(settings: config::Upstream) -> Self {
        Self {
            in_flight: Arc::new(Semaphore::new(settings.max_connections.get())),
            settings,
            turn: AtomicUsize::new(0),
            connects: AtomicU64::new(0),
        }
    }

    pub fn name(&self) -> &str {
        &self.settings.name
    }

    /// Permission for one more request in flight; waits as long as for a connection.
    async fn admitted(&self) -> Result<OwnedSemaphorePermit, UpstreamError> {
        if let Ok(permit) = Arc::clone(&self.in_flight).try_acquire_owned() {
            return Ok(permit);
        }
        let waited = self.settings.connect_timeout;
        match timeout(waited, Arc::clone(&self.in_flight).acquire_owned()).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) | Err(_) => Err(UpstreamError::Busy {
                upstream: self.name().to_owned(),
                waited,
            }),
        }
    }
}

/// One worker's connections to one upstream.
pub struct Pool {
    upstream: Arc<Upstream>,
    /// As many as there are endpoints.
    idle: Box<[Mutex<Vec<Idle>>]>,
    /// The gateway stops: nothing is kept any more.
    closed: AtomicBool,
    tasks: Tasks,
}

type Connection = lean::Connection<TcpStream>;

struct Idle {
    connection: Connection,
    since: Instant,
}

/// A place in flight, and where the connection goes when the answer has ended.
struct Lease {
    pool: Arc<Pool>,
    endpoint: usize,
    _permit: OwnedSemaphorePermit,
}

impl Lease {
    /// The answer was read to its end: the connection may serve the next request.
    fn give_back(self, connection: Connection) {
        if self.pool.closed.load(Ordering::Relaxed) {
            return;
        }
        if let Some(idle) = self.pool.idle.get(self.endpoint) {
            lock(idle).push(Idle {
                connection,
                since: clock::monotonic(),
            });
        }
    }
}

impl Pool {
    /// `tasks` must be of the worker's own runtime.
    pub fn new(upstream: Arc<Upstream>, tasks: Tasks) -> Self {
        let idle = upstream.settings.endpoints.iter().map(|_| Mutex::default()).collect();
        Self {
            upstream,
            idle,
            closed: AtomicBool::new(false),
            tasks,
        }
    }

    pub fn upstream(&self) -> &Arc<Upstream> {
        &self.upstream
    }

    /// Sends `request` and waits for the head of the answer. While a `body` is still on its way, the time-out counts
    /// from when it moved last, so that a long upload is not a slow answer.
    ///
    /// Cancel-safe: dropping it closes the connection that it used.
    pub async fn send(
        self: &Arc<Self>,
        request: Request<RequestBody>,
        head_timeout: Duration,
        body: Option<Arc<BodyWatch>>,
    ) -> Result<Response<AnswerBody>, UpstreamError> {
        let permit = self.upstream.admitted().await?;
        let mut exchange = pin!(self.exchange(request));
        let mut deadline = clock::monotonic() + head_timeout;
        let (answered, endpoint) = loop {
            if let Ok(answered) = timeout_at(deadline.into(), exchange.as_mut()).await {
                break answered?;
            }
            deadline = body.as_ref().map_or(deadline, |body| body.moved_at() + head_timeout);
            if deadline <= clock::monotonic() {
                return Err(UpstreamError::HeadTimeout {
                    upstream: self.upstream.name().to_owned(),
                    after: head_timeout,
                });
            }
        };
        let lease = Lease {
            pool: Arc::clone(self),
            endpoint,
            _permit: permit,
        };
        Ok(self.body_of(answered, lease))
    }

    async fn exchange(
        self: &Arc<Self>,
        request: Request<RequestBody>,
    ) -> Result<(Answered<TcpStream>, usize), UpstreamError> {
        let endpoint = self.next_endpoint();
        let (parts, mut body) = request.into_parts();
        if let Some(connection) = self.pooled(endpoint) {
            match connection.exchange(&parts, &mut body).await {
                Ok(answered) => return Ok((answered, endpoint)),
                // An answer that is not HTTP is an answer: asking again would not mend it.
                Err(failed) if failed.answered || !body.is_untouched() => return Err(self.broken(failed.error)),
                Err(failed) if failed.sent && !may_be_repeated(&parts.method) => {
                    return Err(self.broken(failed.error));
                }
                Err(_) => {}
            }
        }
        let (endpoint, stream) = self.connect_any(endpoint).await?;
        let connection = Connection::new(stream);
        let answered = connection.exchange(&parts, &mut body).await;
        answered
            .map(|answered| (answered, endpoint))
            .map_err(|failed| self.broken(failed.error))
    }

    fn body_of(&self, answered: Answered<TcpStream>, lease: Lease) -> Response<AnswerBody> {
        let (answer, response, upload) = answered.into_answer();
        // The client may first send everything and only then read: the upload must not wait for the answer to be taken.
        let upload = upload.map(|sending| {
            let stop = CancellationToken::new();
            let guard = stop.clone().drop_guard();
            self.tasks.spawn("upload behind its answer", async move {
                stop.run_until_cancelled(sending).await;
            });
            guard
        });
        response.map(|()| AnswerBody::new(answer, lease, upload))
    }

    /// A live idle connection to `endpoint`.
    fn pooled(&self, endpoint: usize) -> Option<Connection> {
        let idle = self.idle.get(endpoint)?;
        loop {
            let Idle { mut connection, since } = lock(idle).pop()?;
            let idle_for = clock::monotonic().saturating_duration_since(since);
            if idle_for >= self.upstream.settings.idle_timeout {
                // The rest were put there before it.
                lock(idle).clear();
                return None;
            }
            if connection.is_quiet() {
                return Some(connection);
            }
        }
    }

    /// A fresh connection to `first`, else to one of the others.
    async fn connect_any(&self, first: usize) -> Result<(usize, TcpStream), UpstreamError> {
        let count = self.idle.len();
        let mut failure = None;
        for offset in 0..count {
            let endpoint = (first + offset) % count;
            let Some(target) = self.upstream.settings.endpoints.get(endpoint) else {
                continue;
            };
            self.upstream.connects.fetch_add(1, Ordering::Relaxed);
            match connector::connect(target, self.upstream.settings.connect_timeout).await {
                Ok(stream) => return Ok((endpoint, stream)),
                Err(error) => failure = Some(error),
            }
        }
        Err(UpstreamError::Connect {
            upstream: self.upstream.name().to_owned(),
            source: failure.unwrap_or_else(|| io::Error::other("it has no endpoints")),
        })
    }

    /// A connection for a tunnel: outside of the pool, counted as in flight while the permit lives.
    pub async fn connect_for_upgrade(&self) -> Result<(SendRequest<RequestBody>, OwnedSemaphorePermit), UpstreamError> {
        let permit = self.upstream.admitted().await?;
        let (_, stream) = self.connect_any(self.next_endpoint()).await?;
        match connector::for_upgrade(stream, &self.tasks).await {
            Ok(sender) => Ok((sender, permit)),
            Err(error) => Err(self.broken(error)),
        }
    }

    fn next_endpoint(&self) -> usize {
        match self.idle.len() {
            1 => 0,
            count => self.upstream.turn.fetch_add(1, Ordering::Relaxed) % count.max(1),
        }
    }

    fn broken(&self, source: impl Into<WireError>) -> UpstreamError {
        UpstreamError::Broken {
            upstream: self.upstream.name().to_owned(),
            source: source.into(),
        }
    }

    /// Closes all idle connections, and from now on each that is given back.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
        for idle in &self.idle {
            lock(idle).clear();
        }
    }

    /// Closes connections that nobody used for the idle time-out, or whose other end has closed them.
    pub fn sweep(&self) {
        let now = clock::monotonic();
        let limit = self.upstream.settings.idle_timeout;
        for idle in &self.idle {
            lock(idle)
                .retain_mut(|kept| now.saturating_duration_since(kept.since) < limit && kept.connection.is_quiet());
        }
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pool({})", self.upstream.name())
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lease({})", self.pool.upstream.name())
    }
}

/// Whether sending it twice does no more than sending it once (RFC 9110, 9.2.2).
pub fn may_be_repeated(method: &Method) -> bool {
    method.is_idempotent()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
