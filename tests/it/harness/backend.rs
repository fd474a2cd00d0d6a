//! Applications that speak what upstreams may: HTTP/1.1 and HTTP/2, with TLS and without, on sockets of every kind.
//! They are hyper's servers; what they answer and how long they take, a test decides while they run.

use std::{
    convert::Infallible,
    net::SocketAddr,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU16, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    sync::{Semaphore, watch},
    task::AbortHandle,
};
use tokio_rustls::TlsAcceptor;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Speaks {
    Http1,
    Http2,
}

/// One request as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Arrived {
    pub(crate) head: http::request::Parts,
    pub(crate) body: Bytes,
}

/// Runs until it is dropped. Answers `200 NAME METHOD PATH` unless told otherwise.
pub(crate) struct Backend {
    addr: Option<SocketAddr>,
    state: Arc<State>,
    accepting: AbortHandle,
    leave: watch::Sender<u32>,
}

struct State {
    name: &'static str,
    status: AtomicU16,
    arrived: Mutex<Vec<Arrived>>,
    connections: AtomicUsize,
    at_once: AtomicUsize,
    most_at_once: AtomicUsize,
    /// Each answer takes a permit; there is no end of them unless they are held.
    gate: Semaphore,
    delay: Mutex<Duration>,
}

impl State {
    fn new(name: &'static str) -> Arc<Self> {
        Arc::new(Self {
            name,
            status: AtomicU16::new(200),
            arrived: Mutex::default(),
            connections: AtomicUsize::new(0),
            at_once: AtomicUsize::new(0),
            most_at_once: AtomicUsize::new(0),
            gate: Semaphore::new(Semaphore::MAX_PERMITS),
            delay: Mutex::default(),
        })
    }
}

impl Backend {
    pub(crate) async fn start(name: &'static str) -> Self {
        Self::speaking(name, Speaks::Http1).await
    }

    pub(crate) async fn speaking(name: &'static str, speaks: Speaks) -> Self {
        Self::on(bound().await, name, speaks, None)
    }

    pub(crate) fn listening(name: &'static str, listener: TcpListener) -> Self {
        Self::on(listener, name, Speaks::Http1, None)
    }

    /// With TLS; HTTP/2 if that is what ALPN chose.
    pub(crate) async fn with_tls(name: &'static str, config: ServerConfig) -> Self {
        let tls = TlsAcceptor::from(Arc::new(config));
        Self::on(bound().await, name, Speaks::Http1, Some(tls))
    }

    pub(crate) fn on_socket(name: &'static str, path: &Path, speaks: Speaks) -> Self {
        let listener = UnixListener::bind(path).unwrap();
        let (state, leave) = (State::new(name), watch::Sender::new(0));
        let (serving, leaving) = (Arc::clone(&state), leave.subscribe());
        let accepting = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(serve(stream, speaks, Arc::clone(&serving), leaving.clone()));
            }
        });
        Self {
            addr: None,
            state,
            accepting: accepting.abort_handle(),
            leave,
        }
    }

    fn on(listener: TcpListener, name: &'static str, speaks: Speaks, tls: Option<TlsAcceptor>) -> Self {
        let addr = listener.local_addr().unwrap();
        let (state, leave) = (State::new(name), watch::Sender::new(0));
        let (serving, leaving) = (Arc::clone(&state), leave.subscribe());
        let accepting = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (state, leave) = (Arc::clone(&serving), leaving.clone());
                let Some(tls) = tls.clone() else {
                    tokio::spawn(serve(stream, speaks, state, leave));
                    continue;
                };
                tokio::spawn(async move {
                    let Ok(stream) = tls.accept(stream).await else { return };
                    let speaks = match stream.get_ref().1.alpn_protocol() {
                        Some(b"h2") => Speaks::Http2,
                        _ => Speaks::Http1,
                    };
                    serve(stream, speaks, state, leave).await;
                });
            }
        });
        Self {
            addr: Some(addr),
            state,
            accepting: accepting.abort_handle(),
            leave,
        }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr.expect("it has an address")
    }

    /// As an endpoint that speaks this.
    pub(crate) fn endpoint(&self, scheme: &str) -> String {
        format!("{scheme}://{}", self.addr())
    }

    /// Every request so far.
    pub(crate) fn arrived(&self) -> Vec<Arrived> {
        self.state.arrived.lock().unwrap().clone()
    }

    /// How many requests came for a path.
    pub(crate) fn seen(&self, path: &str) -> usize {
        self.arrived()
            .iter()
            .filter(|seen| seen.head.uri.path() == path)
            .count()
    }

    pub(crate) fn connections(&self) -> usize {
        self.state.connections.load(Ordering::SeqCst)
    }

    /// The most requests that it had at the same time.
    pub(crate) fn most_at_once(&self) -> usize {
        self.state.most_at_once.load(Ordering::SeqCst)
    }

    pub(crate) fn at_once(&self) -> usize {
        self.state.at_once.load(Ordering::SeqCst)
    }

    /// What it answers from now on.
    pub(crate) fn status(&self, status: u16) {
        self.state.status.store(status, Ordering::SeqCst);
    }

    /// How long it thinks from now on.
    pub(crate) fn takes(&self, delay: Duration) {
        *self.state.delay.lock().unwrap() = delay;
    }

    /// Answers nothing until [`Backend::let_go`].
    pub(crate) fn hold(&self) {
        self.state.gate.forget_permits(Semaphore::MAX_PERMITS);
    }

    pub(crate) fn let_go(&self) {
        self.state.gate.add_permits(Semaphore::MAX_PERMITS / 2);
    }

    /// Closes all connections once they have answered: `Connection: close`, or GOAWAY.
    pub(crate) fn close_gracefully(&self) {
        self.leave.send_modify(|times| *times += 1);
    }
}

impl Drop for Backend {
    /// Connections that were made end when the test's runtime does.
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// An application that answers as `answer` does, until the test's runtime ends. As an endpoint.
pub(crate) async fn application<A, F, B>(speaks: Speaks, answer: A) -> String
where
    A: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: hyper::body::Body<Data = Bytes, Error = Infallible> + Send + 'static,
{
    let listener = bound().await;
    let scheme = match speaks {
        Speaks::Http1 => "http",
        Speaks::Http2 => "h2c",
    };
    let endpoint = format!("{scheme}://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let stream = TokioIo::new(listener.accept().await.unwrap().0);
            let answer = answer.clone();
            let service = service_fn(move |request| {
                let answering = answer(request);
                async move { Ok::<_, Infallible>(answering.await) }
            });
            tokio::spawn(async move {
                let _ = match speaks {
                    Speaks::Http1 => {
                        let builder = hyper::server::conn::http1::Builder::new();
                        builder.serve_connection(stream, service).await
                    }
                    Speaks::Http2 => {
                        let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                        builder.serve_connection(stream, service).await
                    }
                };
            });
        }
    });
    endpoint
}

async fn bound() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

async fn serve<S>(stream: S, speaks: Speaks, state: Arc<State>, mut leave: watch::Receiver<u32>)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    state.connections.fetch_add(1, Ordering::SeqCst);
    leave.mark_unchanged();
    let service = service_fn(move |request| answer(Arc::clone(&state), request));
    let stream = TokioIo::new(stream);
    match speaks {
        Speaks::Http1 => {
            let mut connection =
                std::pin::pin!(hyper::server::conn::http1::Builder::new().serve_connection(stream, service));
            tokio::select! {
                _ = connection.as_mut() => return,
                _ = leave.changed() => connection.as_mut().graceful_shutdown(),
            }
            let _ = connection.await;
        }
        Speaks::Http2 => {
            let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            // More than the gateway lets pass.
            builder.max_header_list_size(1 << 20);
            let mut connection = std::pin::pin!(builder.serve_connection(stream, service));
            tokio::select! {
                _ = connection.as_mut() => return,
                _ = leave.changed() => connection.as_mut().graceful_shutdown(),
            }
            let _ = connection.await;
        }
    }
}

async fn answer(state: Arc<State>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body
        .collect()
        .await
        .map(http_body_util::Collected::to_bytes)
        .unwrap_or_default();
    let text = format!("{} {} {}", state.name, head.method, head.uri.path());
    state.arrived.lock().unwrap().push(Arrived { head, body });
    let now = state.at_once.fetch_add(1, Ordering::SeqCst) + 1;
    state.most_at_once.fetch_max(now, Ordering::SeqCst);
    let delay = *state.delay.lock().unwrap();
    if !delay.is_zero() {
        tokio::time::sleep(delay).await;
    }
    state.gate.acquire().await.unwrap().forget();
    state.at_once.fetch_sub(1, Ordering::SeqCst);
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = StatusCode::from_u16(state.status.load(Ordering::SeqCst)).unwrap();
    Ok(response)
}
