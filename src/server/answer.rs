//! Who answers a request.
//!
//! What every request has is found out here, in order: its id, the time, the configuration in force (once), who calls,
//! and its normal path. Then it goes to the auth API or to the proxy. Whatever says no on the way becomes an answer
//! (`server::refusal`), and the request's record is tied to its last byte.

use std::{mem, panic::AssertUnwindSafe, pin::pin, sync::Arc};

use futures_util::FutureExt;
use http::{
    HeaderValue, Method, Request, Response, StatusCode, Uri, Version, header, request::Parts, uri::PathAndQuery,
};
use hyper::{
    body::{Body, Incoming},
    upgrade::OnUpgrade,
};

use super::{
    connection::{Conversation, Worker},
    http2, redirect, refusal,
};
use crate::{
    auth, clock,
    config::Kept,
    fields,
    live::Snapshot,
    policy::{
        self,
        client::HostError,
        connection::{Door, Standing},
        cors::{self, Readers},
        marks::Marks,
        origin::SameOrigin,
        path::{NormalPath, PathError},
    },
    problem::Form,
    proxy::{
        self, Inbound, body::ProxyBody, caller::Caller, error::ProxyError, grpc, pace::Leave, record::Record, rewrite,
        upgrade::ExtendedConnect,
    },
    upstream::body::{Limits, RequestBody},
};

/// Answers one request, whatever happens.
pub(super) async fn answer(conversation: Arc<Conversation>, request: Request<Incoming>) -> Response<ProxyBody> {
    let Conversation {
        worker, pace, facts, ..
    } = &*conversation;
    pace.request_begins();
    let live = worker.live.load();
    let (mut parts, incoming) = request.into_parts();
    // In a box: it goes with the answer, which is moved.
    let mut record = Box::new(Record {
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
        pool: None,
        body: None,
        failure: None,
    });
    let version = parts.version;
    if version == Version::HTTP_2 {
        http2::join_cookies(&mut parts.headers);
        fields::join_lengths(&mut parts.headers);
    }
    let marks = Marks::of(&parts.headers);
    let form = if grpc::is_call(&parts.method, version, &parts.headers) {
        Form::Grpc
    } else if policy::is_navigation(&parts.method, &parts.headers, marks) {
        Form::Html
    } else {
        Form::Json
    };
    // hyper asks for the body when it is first read: a refusal must not do that.
    let waits = !incoming.is_end_stream() && marks.has(Marks::EXPECT);
    let asked_tunnel = marks.has(Marks::UPGRADE) || parts.method == Method::CONNECT;
    let origin = marks
        .has(Marks::ORIGIN)
        .then(|| cors::origin_of(&parts.headers).cloned())
        .flatten();
    let mut body = Some(incoming);
    let dispatched = {
        // Pinned first: it is large, and what catches a panic would be moved with it.
        let dispatching = pin!(dispatch(
            &conversation,
            &live,
            (&mut parts, marks),
            &mut body,
            &mut record
        ));
        AssertUnwindSafe(dispatching).catch_unwind().await
    };
    let mut response = match dispatched {
        Ok(Ok(mut response)) => {
            // The auth API's answers have a word of their own.
            if record.route.is_some() && response.status() != StatusCode::SWITCHING_PROTOCOLS {
                admit(&live, origin.as_ref(), &record, &mut response);
            }
            // What answers without an upstream reads no body. One that was never asked for may come all the same, or a
            // request in its place: nobody could tell.
            if version != Version::HTTP_2
                && let Some(unread) = body.filter(|unread| !unread.is_end_stream())
                && (waits || !refusal::drained(unread).await)
            {
                conversation.pace.leaves_unread();
                refusal::close_after(&mut response);
            }
            response
        }
        failed => {
            let error = failed.ok().and_then(Result::err).unwrap_or(ProxyError::Internal);
            // Where such a body ends, only hyper believes to know; and who names its host in two ways may be read in two.
            let unclear = matches!(error, ProxyError::TransferCoding | ProxyError::Host(HostError::Bad));
            let mut response = refusal::refuse(&live, error, form, &mut record);
            if let Some(route) = &record.route {
                rewrite::apply_to_refusal(&route.response_headers, response.headers_mut());
            }
            admit(&live, origin.as_ref(), &record, &mut response);
            // A stream of HTTP/2 ends by itself: it is reset without error behind the answer (RFC 9113, 8.1).
            if version != Version::HTTP_2 {
                let whole = match body {
                    Some(unread) => !waits && !unclear && refusal::drained(unread).await,
                    // An upstream was reading it; how far it got, nobody knows.
                    None => record.body.is_none(),
                };
                if !whole {
                    conversation.pace.leaves_unread();
                    refusal::close_after(&mut response);
                }
            }
            response
        }
    };
    // What a client has sent behind an upgrade or a CONNECT was meant for a tunnel: it must not be read as a request.
    let ends = asked_tunnel || (version != Version::HTTP_2 && is_last(&conversation));
    if ends && response.status() != StatusCode::SWITCHING_PROTOCOLS {
        refusal::close_after(&mut response);
    }
    if version == Version::HTTP_2 && record.method == Method::HEAD {
        response = http2::to_head(response);
    }
    record.status = response.status();
    response.map(|body| body.recorded(record))
}

/// Whether a connection of HTTP/1.1 ends behind the answer. While we leave, the client's next one goes to whoever takes
/// over: an idle one that is closed may be in use just then.
fn is_last(conversation: &Conversation) -> bool {
    conversation.worker.tasks.stop.is_leaving() || conversation.pace.is_to_leave()
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
    conversation: &Conversation,
    live: &Snapshot,
    (parts, marks): (&mut Parts, Marks),
    body: &mut Option<Incoming>,
    record: &mut Record,
) -> Result<Response<ProxyBody>, ProxyError> {
    let Conversation { worker, facts, .. } = conversation;
    if facts.tls.is_none()
        && let Some(answer) = answer_to_authority(worker, parts)
    {
        return Ok(answer);
    }
    if let Some(tls) = &facts.tls {
        let standing = tls.standing(record.at);
        if standing != Standing::Good {
            conversation.pace.ask_to_leave(Leave::ShakeHands);
        }
        if standing == Standing::Ended {
            return Err(HostError::HandshakeOver.into());
        }
    }
    if parts.version == Version::HTTP_2 {
        http2::check_head(parts)?;
    }
    let extended_connect = ExtendedConnect::take(parts);
    proxy::check_head(&parts.method, &parts.headers, marks)?;
    let caller = conversation
        .memory
        .caller(live, facts, (parts.version, &parts.uri, &parts.headers))?;
    let client = &caller.facts;
    record.client = client.addr;
    record.host = Some(client.host.value().clone());
    let target = parts.uri.path_and_query().cloned().ok_or(PathError::NotAbsolute)?;
    let path = NormalPath::keeping(target, live.routes.kept())?;
    record.target = Some(path.target().clone());

    if facts.door == Door::Redirect {
        record.target = Some(refusal::loggable(live, path.target().clone()));
        let is_public = client.host.name() == live.clients.public().name();
        let public = &live.config.server.public_url;
        return Ok(redirect::to_https(public, is_public, &client.host, path.target()));
    }
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
        // Who can read the answer could read the session's token in it.
        if live.origins.same_origin_at(client.host.name()) == SameOrigin::Theirs {
            parts.headers.remove(header::COOKIE);
        }
        let (none, ()) = Request::default().into_parts();
        let parts = mem::replace(parts, none);
        let answered = auth_api(worker, live, parts, body.take(), caller, record).await?;
        return only_tunnels(extended_connect, answered);
    }
    let mut inbound = Inbound {
        on_upgrade: parts.extensions.remove::<OnUpgrade>(),
        extended_connect,
        method: mem::take(&mut parts.method),
        version: parts.version,
        headers: mem::take(&mut parts.headers),
        marks,
        path,
        caller,
        request_id: record.request_id.clone(),
        now: record.at,
    };
    // Before HTTP/1.1 there were none (RFC 9110, 15.2), and on HTTP/2 nobody writes them.
    let hints = (inbound.version == Version::HTTP_11).then_some(&*conversation.hints);
    let memory = &conversation.memory;
    let answered = proxy::handle(&worker.proxy, live, memory, &mut inbound, body, hints, record).await?;
    only_tunnels(extended_connect, answered)
}

/// To who asked for a tunnel, an answer of success would say that there is one.
fn only_tunnels(
    asked: Option<ExtendedConnect>,
    answered: Response<ProxyBody>,
) -> Result<Response<ProxyBody>, ProxyError> {
    match asked {
        Some(asked) => asked.check(answered),
        None => Ok(answered),
    }
}

/// The answer that a certificate authority looks for, over plain HTTP and before anything else (RFC 8555, 8.3).
fn answer_to_authority(worker: &Worker, parts: &Parts) -> Option<Response<ProxyBody>> {
    let issued = worker.issued.as_ref().filter(|issued| issued.is_challenged())?;
    let host = match parts.uri.host() {
        Some(host) => host,
        None => parts.headers.get(header::HOST)?.to_str().ok()?,
    };
    let host = host.split(':').next().unwrap_or(host).to_ascii_lowercase();
    let answer = issued.key_authorization(host.trim_end_matches('.'), parts.uri.path())?;
    let mut response = Response::new(ProxyBody::own(answer.into()));
    let octets = HeaderValue::from_static("application/octet-stream");
    response.headers_mut().insert(header::CONTENT_TYPE, octets);
    Some(response)
}

/// Has the auth API answer, on the runtime for cold work. What it has begun it finishes, even if the client leaves.
async fn auth_api(
    worker: &Worker,
    live: &Snapshot,
    parts: Parts,
    body: Option<Incoming>,
    caller: Arc<Caller>,
    record: &mut Record,
) -> Result<Response<ProxyBody>, ProxyError> {
    let limits = Limits::of(&live.config.server, live.config.server.max_body);
    let (body, watch) = body.map_or((RequestBody::EMPTY, None), |incoming| {
        // The auth API reads no trailers.
        RequestBody::new(incoming, limits, None)
    });
    record.body.clone_from(&watch);
    let auth = worker.auth.load_full();
    let request_id = record.request_id.clone();
    // In a box: the future of every request has room for this one, and is moved as a whole.
    let answering = Box::pin(async move {
        let request_id = request_id.to_str().unwrap_or_default();
        auth.answer(Request::from_parts(parts, body), &caller.facts, request_id)
            .await
    });
    let answered = worker.cold.detached("auth request", answering).await;
    // The API saw a body that broke off; only the body itself knows that we lost patience with it.
    if let Some(error) = watch.and_then(|watch| watch.failure()) {
        return Err(ProxyError::Body(error));
    }
    answered
        .map(|response| response.map(ProxyBody::own))
        .ok_or(ProxyError::Internal)
}
