//! One client connection: HTTP on it, its patience, and who answers each request.
//!
//! What every request has is found out here, in order: its id, the time, the configuration in force (once), who calls,
//! and its normal path. Then it goes to the auth API or to the proxy. Whatever says no on the way becomes an answer
//! here, and the request's record is tied to its last byte.

use std::{
    convert::Infallible,
    net::SocketAddr,
    panic::AssertUnwindSafe,
    pin::pin,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use futures_util::FutureExt;
use http::{HeaderValue, Request, Response, StatusCode, Uri, header, request::Parts, uri::PathAndQuery};
use http_body_util::BodyExt;
use hyper::{
    body::{Body, Incoming},
    server::conn::http1,
    service::service_fn,
    upgrade::OnUpgrade,
};
use hyper_util::rt::TokioIo;
use tokio::{
    net::TcpStream,
    time::{sleep_until, timeout},
};
use tracing::warn;

use crate::{
    auth::{self, Auth},
    chain::Chain,
    clock::{self, Clock},
    config::OnDenied,
    lifecycle::Tasks,
    live::{Live, Snapshot},
    policy::{
        self, Denied,
        client::{self, ClientFacts},
        cors::{self, Readers},
        path::{NormalPath, PathError},
    },
    problem::{Code, Form},
    proxy::{
        self, Inbound, Proxy,
        body::ProxyBody,
        error::ProxyError,
        pace::{Pace, Paced, Patience},
        record::{Record, Recorder},
    },
    telemetry::{Access, RequestIds, Side},
    upstream::body::{Limits, RequestBody},
};

/// What hyper reads at most before it is taken from it.
const READ_BUFFER: usize = 8192 + 4096 * 100;

/// So much of a refused request's body is read, so that the connection can serve the next request.
const DRAIN_BYTES: u64 = 64 * 1024;
/// A client that sends the rest of a refused body has it under way already.
const DRAIN_FOR: Duration = Duration::from_secs(1);

/// At the soft stop, a connection this young may have its first request under way: it is not closed yet.
const YOUNG: Duration = Duration::from_secs(1);

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

/// Serves one connection to its end.
pub async fn serve(worker: Arc<Worker>, stream: TcpStream, peer: SocketAddr) {
    let stats = Arc::clone(&worker.recorder.stats);
    stats.connections.fetch_add(1, Ordering::Relaxed);
    stats.open_connections.fetch_add(1, Ordering::Relaxed);
    let pace = Arc::new(Pace::new());
    let live = worker.live.load();
    let server = &live.config.server;
    let patience = Patience {
        head: server.header_timeout,
        idle: server.idle_timeout,
        reading: server.body_timeout,
    };
    let soft = worker.tasks.stop.soft.clone();
    let grown_up = clock::monotonic() + YOUNG;
    let mut told_to_stop = pin!(async move {
        soft.cancelled().await;
        sleep_until(grown_up.into()).await;
    });

    let stream = TokioIo::new(Paced::new(stream, Arc::clone(&pace)));
    let requests = Arc::clone(&pace);
    let serving = Arc::clone(&worker);
    let service = service_fn(move |request| {
        let (worker, pace) = (Arc::clone(&serving), Arc::clone(&requests));
        async move { Ok::<_, Infallible>(answer(worker, pace, peer, request).await) }
    });
    // No timer: `Pace` tells a slow head from an idle connection, which hyper's own time-out does not.
    let connection = http1::Builder::new()
        .header_read_timeout(None)
        .max_header_size(server.max_header_bytes)
        // hyper's own default; a larger head needs a larger buffer.
        .max_buf_size(server.max_header_bytes.max(READ_BUFFER))
        .serve_connection(stream, service)
        .with_upgrades();
    drop(live);

    let mut connection = pin!(connection);
    // The shortest span that may end a connection: the timer looks at it no less often.
    let look_every = patience.head.min(patience.idle).min(patience.reading);
    let mut timer = pin!(sleep_until((clock::monotonic() + look_every).into()));
    let mut stopping = false;
    loop {
        tokio::select! {
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    record_nonsense(&worker, peer, &error);
                }
                break;
            }
            () = timer.as_mut() => {
                let now = clock::monotonic();
                let deadline = pace.deadline(&patience);
                if deadline.is_some_and(|deadline| deadline <= now) {
                    break;
                }
                // Another span may have begun, or begin at any moment.
                let soonest = now + look_every;
                timer.as_mut().reset(deadline.map_or(soonest, |deadline| deadline.min(soonest)).into());
            }
            () = told_to_stop.as_mut(), if !stopping => {
                stopping = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
    stats.open_connections.fetch_sub(1, Ordering::Relaxed);
}

/// A request that could not be parsed was answered by hyper and the connection closed; it gets its line all the same.
fn record_nonsense(worker: &Worker, peer: SocketAddr, error: &hyper::Error) {
    // A connection that broke off, or ended by our own doing, is nobody's request.
    if !error.is_parse() {
        return;
    }
    let (status, code) = if error.is_parse_too_large() {
        (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, Code::HeadersTooLarge)
    } else {
        (StatusCode::BAD_REQUEST, Code::BadRequest)
    };
    worker.recorder.stats.request(status, Duration::ZERO);
    worker.recorder.lane.write(&Access {
        at: worker.clock.now(),
        took: Duration::ZERO,
        request_id: &worker.ids.next(),
        client: peer.ip().to_canonical(),
        method: "-",
        host: "-",
        path: "-",
        status,
        bytes_in: 0,
        bytes_out: 0,
        user: None,
        route: None,
        upstream: None,
        failure: Some((code.as_str(), Side::Client)),
    });
}

/// Answers one request, whatever happens.
async fn answer(
    worker: Arc<Worker>,
    pace: Arc<Pace>,
    peer: SocketAddr,
    request: Request<Incoming>,
) -> Response<ProxyBody> {
    pace.request_begins();
    let live = worker.live.load();
    let (parts, incoming) = request.into_parts();
    let mut record = Record {
        written: false,
        recorder: Arc::clone(&worker.recorder),
        pace,
        started: clock::monotonic(),
        at: worker.clock.now(),
        request_id: worker.ids.next(),
        client: peer.ip().to_canonical(),
        method: parts.method.clone(),
        host: None,
        target: parts.uri.path_and_query().cloned(),
        status: StatusCode::OK,
        user: None,
        route: None,
        upstream: None,
        body: None,
        failure: None,
    };
    let navigation = policy::is_navigation(&parts.method, &parts.headers);
    // hyper asks for the body when it is first read: a refusal must not do that.
    let waits = !incoming.is_end_stream() && parts.headers.contains_key(header::EXPECT);
    let asked_upgrade = parts.headers.contains_key(header::UPGRADE);
    let origin = cors::origin_of(&parts.headers).cloned();
    let mut body = Some(incoming);
    let dispatched = dispatch(&worker, &live, parts, &mut body, peer, &mut record);
    let mut response = match AssertUnwindSafe(dispatched).catch_unwind().await {
        Ok(Ok(mut response)) => {
            // The auth API's answers have a word of their own.
            if record.route.is_some() && response.status() != StatusCode::SWITCHING_PROTOCOLS {
                admit(&live, origin.as_ref(), &record, &mut response);
            }
            response
        }
        failed => {
            let error = failed.ok().and_then(Result::err).unwrap_or(ProxyError::Internal);
            // Where such a body ends, only hyper believes to know.
            let unclear = matches!(error, ProxyError::TransferCoding);
            let mut response = refuse(&live, error, navigation, &mut record);
            admit(&live, origin.as_ref(), &record, &mut response);
            let whole = match body {
                Some(unread) => !waits && !unclear && drained(unread).await,
                // An upstream was reading it; how far it got, nobody knows.
                None => record.body.is_none(),
            };
            if !whole {
                close_after(&mut response);
            }
            response
        }
    };
    if asked_upgrade && response.status() != StatusCode::SWITCHING_PROTOCOLS {
        // What the client has sent behind it was meant for a tunnel: it must not be read as a request.
        close_after(&mut response);
    }
    if worker.tasks.stop.is_leaving() && response.status() != StatusCode::SWITCHING_PROTOCOLS {
        // The client's next connection goes to whoever takes over: an idle one that is closed may be in use just then.
        close_after(&mut response);
    }
    record.status = response.status();
    response.map(|body| body.recorded(record))
}

/// Lets a page of another origin read the answer, if the route says so. Refusals too: it must tell 401 from 403.
fn admit(live: &Snapshot, origin: Option<&HeaderValue>, record: &Record, response: &mut Response<ProxyBody>) {
    let readers = match &record.route {
        Some(route) => Readers::of(&route.cors, &live.origins),
        None => Readers::Trusted(&live.origins),
    };
    let headers = response.headers_mut();
    if readers.admit(origin, headers) && record.failure.is_some() {
        cors::expose(headers, &[header::RETRY_AFTER]);
    }
}

/// Has hyper end the connection behind an answer.
fn close_after(response: &mut Response<ProxyBody>) {
    let close = HeaderValue::from_static("close");
    response.headers_mut().insert(header::CONNECTION, close);
}

/// Finds out what every request has, then hands it to whom it concerns.
async fn dispatch(
    worker: &Worker,
    live: &Snapshot,
    mut parts: Parts,
    body: &mut Option<Incoming>,
    peer: SocketAddr,
    record: &mut Record,
) -> Result<Response<ProxyBody>, ProxyError> {
    proxy::check_head(&parts.method, &parts.headers)?;
    let client = client::judge(peer, parts.version, &parts.uri, &parts.headers, &live.clients)?;
    record.client = client.addr;
    record.host = Some(client.host.value().clone());
    let target = parts.uri.path_and_query().cloned().ok_or(PathError::NotAbsolute)?;
    let path = NormalPath::from_target(target)?;
    record.target = Some(path.target().clone());

    let base_path = &live.config.auth.base_path;
    if let Some(below) = path.below(base_path) {
        record.target = PathAndQuery::try_from(format!("{base_path}{}", auth::loggable(below))).ok();
        // A path below the base path is a path still; without anything there is none, and the API knows no root.
        let target = path
            .query()
            .map_or_else(|| below.to_owned(), |query| format!("{below}?{query}"));
        parts.uri = Uri::try_from(target).unwrap_or_default();
        return auth_api(worker, live, parts, body.take(), client, record).await;
    }
    let mut inbound = Inbound {
        on_upgrade: parts.extensions.remove::<OnUpgrade>(),
        method: parts.method,
        version: parts.version,
        headers: parts.headers,
        path,
        client,
        request_id: record.request_id.clone(),
        now: record.at,
    };
    proxy::handle(&worker.proxy, live, &mut inbound, body, record).await
}

/// What a log may say of a target: not the secrets in paths of the auth API.
fn loggable(live: &Snapshot, target: PathAndQuery) -> PathAndQuery {
    let base_path = &live.config.auth.base_path;
    let Ok(path) = NormalPath::from_target(target.clone()) else {
        return target;
    };
    match path.below(base_path) {
        Some(below) if auth::loggable(below) != below => {
            PathAndQuery::try_from(format!("{base_path}{}", auth::loggable(below))).unwrap_or(target)
        }
        Some(_) | None => target,
    }
}

/// Has the auth API answer, on the runtime for cold work. What it has begun it finishes, even if the client leaves.
async fn auth_api(
    worker: &Worker,
    live: &Snapshot,
    parts: Parts,
    body: Option<Incoming>,
    client: ClientFacts,
    record: &mut Record,
) -> Result<Response<ProxyBody>, ProxyError> {
    let limits = Limits::of(&live.config.server, live.config.server.max_body);
    let (body, watch) = body.map_or((RequestBody::EMPTY, None), |incoming| {
        RequestBody::new(incoming, limits)
    });
    record.body.clone_from(&watch);
    let auth = worker.auth.load_full();
    let request_id = record.request_id.clone();
    let answering = async move {
        let request_id = request_id.to_str().unwrap_or_default();
        auth.answer(Request::from_parts(parts, body), &client, request_id).await
    };
    let answered = worker.cold.detached("auth request", answering).await;
    // The API saw a body that broke off; only the body itself knows that we lost patience with it.
    if let Some(error) = watch.and_then(|watch| watch.failure()) {
        return Err(ProxyError::Body(error));
    }
    answered
        .map(|response| response.map(ProxyBody::own))
        .ok_or(ProxyError::Internal)
}

/// Turns an error into an answer, and says in the log what the answer keeps to itself.
fn refuse(live: &Snapshot, error: ProxyError, navigation: bool, record: &mut Record) -> Response<ProxyBody> {
    let (code, side) = (error.code(), error.side());
    // It may have been refused before anybody asked whose path it is.
    if let Some(target) = record.target.take() {
        record.target = Some(loggable(live, target));
    }
    record.failure = Some((code, side));
    if side != Side::Client {
        let request_id = record.request_id.to_str().unwrap_or_default();
        warn!(
            request_id,
            error = %Chain(&error),
            "answered {}",
            code.as_str()
        );
    }
    let on_denied = record.route.as_ref().map_or(OnDenied::Auto, |route| route.on_denied);
    let to_page = match on_denied {
        OnDenied::Auto => navigation,
        OnDenied::SignIn => true,
        OnDenied::Status => false,
    };
    if to_page
        && matches!(error, ProxyError::Denied(Denied::SignInNeeded))
        && let Some(page) = &live.config.auth.sign_in_page
    {
        return redirect_to_sign_in(page, record);
    }
    let form = if navigation { Form::Html } else { Form::Json };
    let request_id = record.request_id.to_str().unwrap_or_default();
    error.into_problem().into_response(form, request_id).map(ProxyBody::own)
}

/// To the sign-in page, which gets the way back: a path of this origin, never a whole URL.
fn redirect_to_sign_in(page: &str, record: &Record) -> Response<ProxyBody> {
    let back = record.target.as_ref().map_or("/", PathAndQuery::as_str);
    let to = policy::origin::append_query(page, "return_to", back);
    let mut response = Response::new(ProxyBody::own(Bytes::new()));
    // 303: whatever the method was, the page is fetched with GET (RFC 9110, 15.4.4).
    *response.status_mut() = StatusCode::SEE_OTHER;
    if let Ok(location) = HeaderValue::try_from(to) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    let never = HeaderValue::from_static("no-store");
    response.headers_mut().insert(header::CACHE_CONTROL, never);
    response
}

/// Reads what is left of a refused body, within limits. Whether that was all.
async fn drained(mut body: Incoming) -> bool {
    let mut left = DRAIN_BYTES;
    let reading = async {
        while let Some(frame) = body.frame().await {
            let Ok(frame) = frame else { return false };
            let size = frame.data_ref().map_or(0, |data| data.len() as u64);
            let Some(rest) = left.checked_sub(size) else {
                return false;
            };
            left = rest;
        }
        true
    };
    timeout(DRAIN_FOR, reading).await.unwrap_or(false)
}
