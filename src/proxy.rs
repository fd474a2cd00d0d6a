//! The life of a proxied request, step by step. Read [`handle`] first.
//!
//! Each step is one line there and one file elsewhere, and hands the next a proof: a [`NormalPath`] is matched and
//! sent; only [`policy::authorise`] makes a `Permit`; only [`headers::prepare`] makes an `Outbound`, and it demands a
//! `Permit`. Skipping a step does not compile.

pub mod answers;
pub mod body;
pub mod error;
mod files;
pub mod head_guard;
pub mod headers;
pub mod pace;
pub mod rate;
pub mod record;
pub mod rewrite;
mod upgrade;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Version, header};
use hyper::{
    body::{Body, Incoming},
    upgrade::OnUpgrade,
};
use tokio::sync::Semaphore;

use self::{
    answers::Asked,
    body::ProxyBody,
    error::ProxyError,
    headers::{CorsBy, Material, Outbound},
    rate::Rates,
    record::Record,
};
use crate::{
    clock::Timestamp,
    config::{Route, Target},
    identity::Session,
    lifecycle::Tasks,
    live::Snapshot,
    policy::{
        self,
        client::ClientFacts,
        cors::{self, Preflight, Readers, Verdict},
        origin,
        path::NormalPath,
        routes::NoRoute,
    },
    session::{
        Sessions,
        credential::{self, Credential, Kind, Ownership, SessionCookies},
    },
    upstream::{
        Pool, UpstreamError,
        body::{BodyError, BodyWatch, Limits, RequestBody},
    },
};

/// What the data path uses; one for each worker.
#[derive(Debug)]
pub struct Proxy {
    pub sessions: Arc<Sessions>,
    /// Places for tunnels, shared by all workers.
    pub tunnels: Arc<Semaphore>,
    /// What is left of the routes' rate limits, shared by all workers.
    pub rates: Arc<Rates>,
    pub tasks: Tasks,
}

/// A request as it arrived, with what was found out about it so far.
#[derive(Debug)]
pub struct Inbound {
    pub method: Method,
    pub version: Version,
    pub headers: HeaderMap,
    /// hyper's promise of the bare connection, if the client asked for one.
    pub on_upgrade: Option<OnUpgrade>,
    pub path: NormalPath,
    pub client: ClientFacts,
    pub request_id: HeaderValue,
    pub now: Timestamp,
}

/// Serves one request that is not for the auth API. `body` is taken when it is forwarded: what is left there when a
/// request is refused was never read.
pub async fn handle(
    proxy: &Proxy,
    live: &Snapshot,
    inbound: &mut Inbound,
    body: &mut Option<Incoming>,
    record: &mut Record,
) -> Result<Response<ProxyBody>, ProxyError> {
    // A browser sends no body with a preflight: what has one is a request like others.
    let preflight = cors::preflight(&inbound.method, &inbound.headers)
        .filter(|_| body.as_ref().is_none_or(Incoming::is_end_stream));
    // It asks about another request: that one's method decides.
    let method = preflight.as_ref().map_or(&inbound.method, |asked| &asked.method);
    let route = live.routes.find(inbound.client.host.name(), &inbound.path, method)?;
    record.route = Some(Arc::clone(route));
    let readers = Readers::of(&route.cors, &live.origins);
    let pass_on = match preflight.map(|asked| readers.judge(&asked, methods(&asked))) {
        None => None,
        Some(Verdict::Answer(fields)) => return Ok(no_content(fields)),
        Some(Verdict::Refuse) => return Err(ProxyError::Preflight),
        Some(Verdict::PassOn(proof)) => Some(proof),
    };
    let upgrade = headers::upgrade_of(&inbound.method, inbound.version, &inbound.headers);
    if upgrade.is_some() && !route.websocket {
        return Err(ProxyError::UpgradeRefused);
    }
    proxy.rates.before_sign_in(route, &inbound.client, inbound.now)?;

    let found = live.cookies.find(&inbound.headers);
    let signed_in = if pass_on.is_none() && policy::wants_session(route) {
        authenticate(&proxy.sessions, &found, inbound.now).await?
    } else {
        None
    };
    if let Some(SignedIn { session, credential }) = &signed_in {
        record.user = Some(session.identity.id);
        if credential.kind == Kind::Cookie {
            let also = route.cors.listed();
            origin::check(
                &inbound.method,
                upgrade.is_some(),
                &inbound.headers,
                &live.origins,
                also,
            )?;
        }
    }
    proxy
        .rates
        .once_known(route, &inbound.client, record.user, inbound.now)?;
    let permit = match pass_on {
        Some(proof) => policy::pass_on(route, &proof),
        None => policy::authorise(route, signed_in.as_ref().map(|signed_in| &signed_in.session))?,
    };

    let slid = signed_in
        .as_ref()
        .and_then(|signed_in| signed_in.used(&proxy.sessions, &live.cookies, inbound));
    let path = rewrite::outgoing(route, &inbound.path)?;
    let Target::Upstream(upstream) = route.target else {
        let asked = Asked {
            method: &inbound.method,
            headers: &inbound.headers,
            came: &inbound.path,
            leaves: &path,
        };
        let response = answers::answer(route, &asked).await?;
        return Ok(finished(response, route, slid));
    };

    let max_body = route.max_body.unwrap_or(live.config.server.max_body);
    check_length(&inbound.headers, max_body)?;
    let limits = Limits::of(&live.config.server, max_body);
    let (body, watch) = body.take().map_or((RequestBody::EMPTY, None), |incoming| {
        RequestBody::new(incoming, limits)
    });
    record.body.clone_from(&watch);
    let authorization_is_ours = match found.authorization() {
        Ownership::Ours => true,
        Ownership::Unknown => bearer_is_ours(&proxy.sessions, &found, signed_in.as_ref(), inbound.now).await,
        Ownership::Theirs => false,
    };
    let tunnel = upgrade.is_some();
    let material = Material {
        method: inbound.method.clone(),
        headers: std::mem::take(&mut inbound.headers),
        body,
        path,
        client: &inbound.client,
        request_id: &inbound.request_id,
        authorization_is_ours,
        cookies: &live.cookies,
        reserved: &live.reserved,
        upgrade,
    };
    let outbound = headers::prepare(material, &permit);

    let pool = live.pool(upstream);
    record.upstream = Some(Arc::clone(pool.upstream()));
    let head_timeout = route.timeout.unwrap_or(pool.upstream().settings.response_timeout);
    let mut response = match inbound.on_upgrade.take().filter(|_| tunnel) {
        Some(client) => upgrade::tunnel(proxy, pool, outbound, client, head_timeout).await?,
        None => forward(pool, outbound, route.retries, head_timeout, watch).await?,
    };

    let switching = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    let cors = if readers.are_ours() {
        CorsBy::Gateway
    } else {
        CorsBy::Upstream
    };
    headers::give_back(&mut response, &live.cookies, cors, switching);
    Ok(finished(response, route, slid))
}

/// What the route and the session have to say on top of an answer.
fn finished(mut response: Response<ProxyBody>, route: &Route, slid: Option<HeaderValue>) -> Response<ProxyBody> {
    if !route.response_headers.is_empty() && response.status() != StatusCode::SWITCHING_PROTOCOLS {
        rewrite::apply(&route.response_headers, response.headers_mut());
    }
    if let Some(cookie) = slid {
        response.headers_mut().append(header::SET_COOKIE, cookie);
        // An answer that sets a session must not be kept for somebody else.
        let never = HeaderValue::from_static("no-store");
        response.headers_mut().insert(header::CACHE_CONTROL, never);
    }
    response
}

/// The one that was asked about: others may take other routes.
fn methods(asked: &Preflight<'_>) -> HeaderValue {
    // A method is a token, which header values may hold.
    HeaderValue::try_from(asked.method.as_str()).unwrap_or(HeaderValue::from_static(""))
}

fn no_content(fields: HeaderMap) -> Response<ProxyBody> {
    let mut response = Response::new(ProxyBody::own(Bytes::new()));
    *response.status_mut() = StatusCode::NO_CONTENT;
    *response.headers_mut() = fields;
    response
}

/// Refuses what nobody here should see, whoever it is for.
pub fn check_head(method: &Method, headers: &HeaderMap) -> Result<(), ProxyError> {
    // TRACE would show an upstream's view of our headers to the client, CONNECT would reach past the routes.
    if matches!(*method, Method::TRACE | Method::CONNECT) {
        return Err(NoRoute::Method {
            allow: HeaderValue::from_static(""),
        }
        .into());
    }
    let mut expectations = headers.get_all(header::EXPECT).iter();
    if expectations.any(|value| !value.as_bytes().eq_ignore_ascii_case(b"100-continue")) {
        return Err(ProxyError::Expectation);
    }
    // hyper has refused what is not chunked in the end; a coding before that would lose its label on the way.
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    if codings.any(|value| !value.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked")) {
        return Err(ProxyError::TransferCoding);
    }
    Ok(())
}

/// Who is calling, and how they showed it.
struct SignedIn {
    session: Arc<Session>,
    credential: Credential,
}

impl SignedIn {
    /// Notes the use. If the session's expiry is due to slide, the cookie that tells the browser.
    fn used(&self, sessions: &Arc<Sessions>, cookies: &SessionCookies, inbound: &Inbound) -> Option<HeaderValue> {
        let due = sessions.used(&self.session, inbound.client.addr, inbound.now);
        if !due || cookies.dont_remember(&inbound.headers) {
            return None;
        }
        let remaining = sessions.extend(self.credential.hash, inbound.now);
        match self.credential.kind {
            Kind::Bearer => None,
            Kind::Cookie => {
                let token = cookies.token(&inbound.headers, Kind::Cookie)?;
                Some(cookies.set(&token, Some(remaining)))
            }
        }
    }
}

/// The first of the request's credentials that stands for a live session.
async fn authenticate(
    sessions: &Arc<Sessions>,
    found: &credential::Found,
    now: Timestamp,
) -> Result<Option<SignedIn>, ProxyError> {
    for credential in found.candidates() {
        if let Some(session) = sessions.authenticate(&credential.hash, now).await? {
            return Ok(Some(SignedIn { session, credential }));
        }
    }
    Ok(None)
}

/// Whether a bearer token without a signature is a session's, which must not leave, or the upstream's own business.
/// On a public route nobody has looked yet; if nobody can tell, it stays here.
async fn bearer_is_ours(
    sessions: &Arc<Sessions>,
    found: &credential::Found,
    signed_in: Option<&SignedIn>,
    now: Timestamp,
) -> bool {
    if let Some(SignedIn { credential, .. }) = signed_in {
        return credential.kind == Kind::Bearer;
    }
    for credential in found.candidates().filter(|credential| credential.kind == Kind::Bearer) {
        // On a route that wants a session this was looked up a moment ago, and is remembered.
        if !matches!(sessions.authenticate(&credential.hash, now).await, Ok(None)) {
            return true;
        }
    }
    false
}

/// Refuses a declared length that is too large, before the upstream hears of it.
fn check_length(headers: &HeaderMap, max_body: u64) -> Result<(), BodyError> {
    let declared = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    match declared {
        Some(length) if length > max_body => Err(BodyError::TooLarge),
        _ => Ok(()),
    }
}

async fn forward(
    pool: &Arc<Pool>,
    outbound: Outbound,
    retries: u32,
    head_timeout: Duration,
    watch: Option<Arc<BodyWatch>>,
) -> Result<Response<ProxyBody>, ProxyError> {
    let answered = pool
        .send(
            outbound.into_request(),
            headers::copy,
            head_timeout,
            watch.clone(),
            retries,
        )
        .await;
    match answered {
        // Nobody asked it to: what follows on that connection is not HTTP.
        Ok((response, _)) if response.status() == StatusCode::SWITCHING_PROTOCOLS => Err(UpstreamError::Switched {
            upstream: pool.upstream().name().to_owned(),
        }
        .into()),
        Ok((response, lease)) => {
            // Events come when they come.
            let events = response
                .headers()
                .get(header::CONTENT_TYPE)
                .is_some_and(|media| media.as_bytes().starts_with(b"text/event-stream"));
            let stall = (!events).then_some(head_timeout);
            Ok(response.map(|incoming| ProxyBody::upstream(incoming, lease, stall)))
        }
        // A body that the client broke off is why the upstream failed.
        Err(error) => Err(watch
            .as_deref()
            .and_then(BodyWatch::failure)
            .map_or(error.into(), ProxyError::Body)),
    }
}
