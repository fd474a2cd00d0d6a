//! Who answers a request.
//!
//! What every request has is found out here, in order: its id, the time, the configuration in force (once), who calls,
//! and its normal path. Then it goes to the auth API or to the proxy. Whatever says no on the way becomes an answer
//! (`server::refusal`), and the request's record is tied to its last byte.

use std::{panic::AssertUnwindSafe, sync::Arc};

use futures_util::FutureExt;
use http::{HeaderValue, Request, Response, StatusCode, Uri, Version, header, request::Parts, uri::PathAndQuery};
use hyper::{
    body::{Body, Incoming},
    upgrade::OnUpgrade,
};

use super::{
    connection::{Conversation, Worker},
    http2, refusal,
};
use crate::{
    auth, clock,
    config::Kept,
    live::Snapshot,
    policy::{
        self,
        client::{self, ClientFacts},
        connection::Connection,
        cors::{self, Readers},
        path::{NormalPath, PathError},
    },
    proxy::{self, Inbound, body::ProxyBody, error::ProxyError, record::Record},
    upstream::body::{Limits, RequestBody},
};

/// Answers one request, whatever happens.
pub(super) async fn answer(conversation: Arc<Conversation>, request: Request<Incoming>) -> Response<ProxyBody> {
    let Conversation { worker, facts, pace } = &*conversation;
    pace.request_begins();
    let live = worker.live.load();
    let (mut parts, incoming) = request.into_parts();
    let mut record = Record {
        written: false,
        recorder: Arc::clone(&worker.recorder),
        pace: Arc::clone(pace),
        started: clock::monotonic(),
        at: worker.clock.now(),
        request_id: worker.ids.next(),
        client: facts.peer.addr(),
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
    let version = parts.version;
    if version == Version::HTTP_2 {
        http2::join_cookies(&mut parts.headers);
    }
    let navigation = policy::is_navigation(&parts.method, &parts.headers);
    // hyper asks for the body when it is first read: a refusal must not do that.
    let waits = !incoming.is_end_stream() && parts.headers.contains_key(header::EXPECT);
    let asked_upgrade = parts.headers.contains_key(header::UPGRADE);
    let origin = cors::origin_of(&parts.headers).cloned();
    let mut body = Some(incoming);
    let dispatched = dispatch(worker, facts, &live, parts, &mut body, &mut record);
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
            let mut response = refusal::refuse(&live, error, navigation, &mut record);
            admit(&live, origin.as_ref(), &record, &mut response);
            // A stream of HTTP/2 ends by itself: it is reset without error behind the answer (RFC 9113, 8.1).
            if version != Version::HTTP_2 {
                let whole = match body {
                    Some(unread) => !waits && !unclear && refusal::drained(unread).await,
                    // An upstream was reading it; how far it got, nobody knows.
                    None => record.body.is_none(),
                };
                if !whole {
                    refusal::close_after(&mut response);
                }
            }
            response
        }
    };
    if asked_upgrade && response.status() != StatusCode::SWITCHING_PROTOCOLS {
        // What the client has sent behind it was meant for a tunnel: it must not be read as a request.
        refusal::close_after(&mut response);
    }
    if worker.tasks.stop.is_leaving()
        && version != Version::HTTP_2
        && response.status() != StatusCode::SWITCHING_PROTOCOLS
    {
        // The client's next connection goes to whoever takes over: an idle one that is closed may be in use just then.
        refusal::close_after(&mut response);
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

/// Finds out what every request has, then hands it to whom it concerns.
async fn dispatch(
    worker: &Worker,
    facts: &Connection,
    live: &Snapshot,
    mut parts: Parts,
    body: &mut Option<Incoming>,
    record: &mut Record,
) -> Result<Response<ProxyBody>, ProxyError> {
    if parts.version == Version::HTTP_2 {
        http2::check_head(&parts)?;
    }
    proxy::check_head(&parts.method, &parts.headers)?;
    let client = client::judge(facts, parts.version, &parts.uri, &parts.headers, &live.clients)?;
    record.client = client.addr;
    record.host = Some(client.host.value().clone());
    let target = parts.uri.path_and_query().cloned().ok_or(PathError::NotAbsolute)?;
    let path = NormalPath::keeping(target, live.routes.kept())?;
    record.target = Some(path.target().clone());

    let base_path = &live.config.auth.base_path;
    if let Some(below) = path.below(base_path) {
        // What some routes keep, the API doesn't.
        if let Some(error) = path.unfit_for(Kept::default()) {
            return Err(error.into());
        }
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
