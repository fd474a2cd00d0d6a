//! What says no, turned into an answer.
//!
//! An error becomes a problem, a page or a way to the sign-in page; what its answer keeps to itself is logged. Behind
//! a refusal the rest of the request's body is read within limits, or the connection ends.

use std::{error::Error as _, sync::atomic::Ordering, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header, uri::PathAndQuery};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::timeout;
use tracing::warn;

use super::connection::Conversation;
use crate::{
    auth,
    chain::Chain,
    config::OnDenied,
    live::Snapshot,
    policy::{
        path::{self, NormalPath},
        sign_in::{self, AskedBy},
    },
    problem::{Code, Form},
    proxy::{body::ProxyBody, error::ProxyError, record::Record},
    telemetry::{Access, Limit, Side, Stats},
    upstream::body::BodyError,
};

/// So much of a refused request's body is read, so that the connection can serve the next request.
const DRAIN_BYTES: u64 = 64 * 1024;
/// A client that sends the rest of a refused body has it under way already.
const DRAIN_FOR: Duration = Duration::from_secs(1);

/// Turns an error into an answer, and says in the log what the answer keeps to itself.
pub(super) fn refuse(live: &Snapshot, error: ProxyError, form: Form, record: &mut Record) -> Response<ProxyBody> {
    let (code, side) = (error.code(), error.side());
    let form = match form {
        Form::Grpc if is_auth_apis(live, record) => Form::Json,
        Form::Grpc | Form::Html | Form::Json => form,
    };
    // It may have been refused before anybody asked whose path it is.
    if let Some(target) = record.target.take() {
        record.target = Some(loggable(live, target));
    }
    record.failure = Some((code, side));
    count(&error, &record.recorder.stats);
    if side != Side::Client {
        let request_id = record.request_id.to_str().unwrap_or_default();
        warn!(
            request_id,
            error = %Chain(&error),
            "answered {}",
            code.as_str()
        );
    }
    let asked_by = match form {
        Form::Html => AskedBy::Navigation,
        Form::Grpc => AskedBy::Call,
        Form::Json => AskedBy::Program,
    };
    if let ProxyError::Denied(denied) = &error {
        let on_denied = record.route.as_ref().map_or(OnDenied::Auto, |route| route.on_denied);
        let page = live.config.auth.sign_in_page.as_deref();
        let back = record.target.as_ref().map_or("/", PathAndQuery::as_str);
        if let Some(location) = sign_in::location(*denied, on_denied, asked_by, page, back) {
            return redirect_to_sign_in(location);
        }
    }
    let request_id = record.request_id.to_str().unwrap_or_default();
    error.into_problem().into_response(form, request_id).map(ProxyBody::own)
}

/// Whether the auth API was asked. It is no gRPC service, and who has it say whether a token is good goes by the status: 200
/// must not stand for a refusal there.
fn is_auth_apis(live: &Snapshot, record: &Record) -> bool {
    let is_for = |target: &PathAndQuery| path::is_for(target.as_str(), live.routes.kept(), &live.config.auth.base_path);
    record.target.as_ref().is_some_and(is_for)
}

/// Counts a limit that was met.
fn count(error: &ProxyError, stats: &Stats) {
    match error {
        ProxyError::TooOften(_) => {
            stats.rate_limited.fetch_add(1, Ordering::Relaxed);
        }
        ProxyError::Body(BodyError::TooLarge) => stats.limit(Limit::MaxBody),
        ProxyError::Body(BodyError::TooSlow) => stats.limit(Limit::BodyTimeout),
        ProxyError::TooManyTunnels => stats.limit(Limit::MaxTunnels),
        ProxyError::TooManyFiles => stats.limit(Limit::MaxOpenFiles),
        _ => {}
    }
}

fn redirect_to_sign_in(location: String) -> Response<ProxyBody> {
    let mut response = Response::new(ProxyBody::own(Bytes::new()));
    // 303: whatever the method was, the page is fetched with GET (RFC 9110, 15.4.4).
    *response.status_mut() = StatusCode::SEE_OTHER;
    if let Ok(location) = HeaderValue::try_from(location) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    let never = HeaderValue::from_static("no-store");
    response.headers_mut().insert(header::CACHE_CONTROL, never);
    response
}

/// What a log may say of a target: not the secrets in paths of the auth API.
pub(super) fn loggable(live: &Snapshot, target: PathAndQuery) -> PathAndQuery {
    let base_path = &live.config.auth.base_path;
    let Ok(path) = NormalPath::keeping(target.clone(), live.routes.kept()) else {
        // It is none; but a link that was damaged on its way may still be good.
        return match auth::damaged(target.path()) {
            Some(pattern) => PathAndQuery::try_from(format!("{base_path}{pattern}")).unwrap_or(target),
            None if auth::holds_link(target.path(), base_path) => hidden(base_path, target),
            None => target,
        };
    };
    match path.below(base_path) {
        Some(below) if auth::loggable(below) != below => {
            PathAndQuery::try_from(format!("{base_path}{}", auth::loggable(below))).unwrap_or(target)
        }
        None if auth::holds_link(target.path(), base_path) => hidden(base_path, target),
        Some(_) | None => target,
    }
}

fn hidden(base_path: &str, target: PathAndQuery) -> PathAndQuery {
    PathAndQuery::try_from(format!("{base_path}:hidden")).unwrap_or(target)
}

/// Has hyper end a connection of HTTP/1.1 behind an answer.
pub(super) fn close_after(response: &mut Response<ProxyBody>) {
    let close = HeaderValue::from_static("close");
    response.headers_mut().insert(header::CONNECTION, close);
}

/// Reads what is left of a refused body, within limits. Whether that was all.
pub(super) async fn drained(mut body: Incoming) -> bool {
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

/// Notes how a connection ended that hyper has ended.
pub(super) fn record_end(conversation: &Conversation, error: &hyper::Error) {
    let ended = error.source().and_then(|error| error.downcast_ref::<h2::Error>());
    if ended.is_some_and(|error| error.is_library() && error.reason() == Some(h2::Reason::ENHANCE_YOUR_CALM)) {
        conversation.worker.recorder.stats.limit(Limit::Http2);
    }
    record_nonsense(conversation, error);
}

/// A request that could not be parsed was answered by hyper and the connection closed; it gets its line all the same.
fn record_nonsense(conversation: &Conversation, error: &hyper::Error) {
    // A connection that broke off, or ended by our own doing, is nobody's request.
    if !error.is_parse() {
        return;
    }
    let (status, code) = if error.is_parse_too_large() {
        (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, Code::HeadersTooLarge)
    } else {
        (StatusCode::BAD_REQUEST, Code::BadRequest)
    };
    let worker = &conversation.worker;
    if code == Code::HeadersTooLarge {
        worker.recorder.stats.limit(Limit::MaxHeaderBytes);
    }
    worker.recorder.stats.request(status, Duration::ZERO);
    worker.recorder.lane.write(&Access {
        at: worker.clock.now(),
        took: Duration::ZERO,
        request_id: &worker.ids.next(),
        client: conversation.facts.peer.addr(),
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
