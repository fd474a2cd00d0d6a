//! The life of a proxied request, step by step. Read [`handle`] first.
//!
//! Each step is one line there and one file elsewhere, and hands the next a proof: a [`NormalPath`] is matched and
//! sent; only [`policy::authorise`] makes a `Permit`; only [`headers::prepare`] makes an `Outbound`, and it demands a
//! `Permit`. Skipping a step does not compile.

pub mod answers;
mod asks;
pub mod body;
pub mod caller;
pub mod early_hints;
pub mod error;
mod files;
pub mod grpc;
pub mod handover;
pub mod head_guard;
pub mod headers;
pub mod memory;
pub mod pace;
pub mod rate;
pub mod record;
pub mod rewrite;
pub mod taking;
pub mod trailers;
pub mod upgrade;

use std::{pin::pin, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Version, header};
use hyper::{
    body::{Body, Incoming},
    upgrade::OnUpgrade,
};
use tokio::sync::Semaphore;

use self::{
    answers::Asked,
    asks::{Asks, Ended},
    body::{GoesOn, ProxyBody},
    caller::Caller,
    early_hints::EarlyHints,
    error::ProxyError,
    handover::Presented,
    headers::{CorsBy, Material, Outbound},
    memory::Memory,
    rate::Rates,
    record::Record,
    upgrade::{ExtendedConnect, Tunnel},
};
use crate::{
    clock::Timestamp,
    config::{Credentials, Route, Target},
    identity::Session,
    lifecycle::Tasks,
    live::Snapshot,
    policy::{
        self, Denied, Unmet,
        cors::{self, Preflight, Readers, Verdict},
        csrf::{self, ForeignOrigin},
        marks::Marks,
        path::NormalPath,
        routes::NoRoute,
    },
    secret::TokenHash,
    session::{
        LookupError, Sessions,
        credential::{self, Credential, Cut, Kind, SessionCookies, Shared},
        streams::{About, Holder, StreamGuard, Why},
    },
    upstream::{
        Pool, Told, UpstreamError,
        body::{BodyError, BodyWatch, Limits, RequestBody},
    },
};

/// What the data path uses; one for each worker.
#[derive(Debug)]
pub struct Proxy {
    pub sessions: Arc<Sessions>,
    /// Places for tunnels, shared by all workers.
    pub tunnels: Arc<Semaphore>,
    /// Places for files that are being sent, shared by all workers.
    pub files: Arc<Semaphore>,
    /// What is left of the routes' rate limits, shared by all workers.
    pub rates: Arc<Rates>,
    pub tasks: Tasks,
}

/// A request as it arrived, with what was found out about it so far.
pub struct Inbound {
    pub method: Method,
    pub version: Version,
    pub headers: HeaderMap,
    /// What is among them.
    pub marks: Marks,
    /// hyper's promise of the bare connection, if the client asked for one.
    pub on_upgrade: Option<OnUpgrade>,
    /// It was an extended CONNECT (RFC 8441); `method` is what it stands for.
    pub extended_connect: Option<ExtendedConnect>,
    pub path: NormalPath,
    pub caller: Arc<Caller>,
    pub request_id: HeaderValue,
    pub now: Timestamp,
}

crate::secret::unprinted!(Inbound);

/// Serves one request that is not for the auth API. `body` is taken when it is forwarded: what is left there when a
/// request is refused was never read. `hints`: where early hints go, if the client can be sent any.
pub async fn handle(
    proxy: &Proxy,
    live: &Snapshot,
    memory: &Memory,
    inbound: &mut Inbound,
    body: &mut Option<Incoming>,
    hints: Option<&EarlyHints>,
    record: &mut Record,
) -> Result<Response<ProxyBody>, ProxyError> {
    let preflight = preflight_of(inbound, body.as_ref());
    // It asks about another request: that one's method decides.
    let method = preflight.as_ref().map_or(&inbound.method, |asked| &asked.method);
    let host = inbound.caller.facts.host.name();
    let route = live.routes.find(host, &inbound.path, method)?;
    record.route = Some(Arc::clone(route));
    let readers = Readers::of(&route.cors, &live.origins);
    let pass_on = match preflight.map(|asked| readers.judge(&asked, methods(&asked))) {
        None => None,
        Some(Verdict::Answer(fields)) => return Ok(no_content(fields)),
        Some(Verdict::Refuse) => return Err(ProxyError::Preflight),
        Some(Verdict::PassOn(proof)) => Some(proof),
    };
    let upgrade = upgrade::of(inbound, body.as_ref());
    if upgrade.is_some() && !route.websocket {
        return Err(ProxyError::UpgradeRefused);
    }
    let facts = &inbound.caller.facts;
    proxy.rates.before_sign_in(route, facts, inbound.now)?;

    let shown = memory.shown(live, inbound);
    let found = &shown.found;
    let signed_in = if pass_on.is_none() && policy::wants_session(route) {
        authenticate(&proxy.sessions, found, inbound).await?
    } else {
        None
    };
    record.user = signed_in.as_ref().map(|signed_in| signed_in.session.identity.id);
    check_origin(signed_in.as_ref(), &shown.left, upgrade.is_some(), route, inbound, live)?;
    let page = upgrade
        .as_ref()
        .and_then(|_| page_of(signed_in.as_ref(), &shown.left, route, inbound));
    proxy.rates.once_known(route, facts, record.user, inbound.now)?;
    let session = signed_in.as_ref().map(|signed_in| &*signed_in.session);
    let is_preflight = pass_on.is_some();
    let permit = match pass_on {
        Some(proof) => policy::pass_on(route, &proof),
        None => policy::authorise(route, session, inbound.now)?,
    };

    let slid = signed_in
        .as_ref()
        .and_then(|signed_in| signed_in.used(&proxy.sessions, &live.cookies, inbound));
    let path = rewrite::outgoing(route, &inbound.path)?;
    let Target::Upstream(upstream) = route.target else {
        let response = Box::pin(answered_here(proxy, live, route, inbound, &path)).await?;
        return Ok(finished(response, route, slid));
    };

    let pool = live.pool(upstream);
    record.pool = Some(Arc::clone(pool));
    let name = pool.upstream().name();
    let presented = Presented::new(found, signed_in.as_ref(), is_preflight);
    let handover = handover::decide(proxy, live, route, name, &presented, inbound).await?;
    let max_body = route.max_body.unwrap_or(live.config.server.max_body);
    check_length(inbound, max_body)?;
    // A client that calls its request a gRPC call gains nothing where none is served.
    let call = grpc::Served::to(inbound, &pool.upstream().settings);
    let (body, watch) = forwarded(body.take(), live, (route, call, max_body), record);
    let material = Material {
        method: inbound.method.clone(),
        headers: std::mem::take(&mut inbound.headers),
        marks: inbound.marks,
        body,
        path,
        caller: &inbound.caller,
        request_id: &inbound.request_id,
        handover,
        cookies: &shown.left,
        reserved: &live.reserved,
        upgrade: upgrade.as_ref().map(upgrade::Asked::protocol),
    };
    let mut outbound = headers::prepare(material, permit);

    let head_timeout = route.timeout.unwrap_or(pool.upstream().settings.response_timeout);
    let client = upgrade.and_then(|asked| Some((asked, inbound.on_upgrade.take()?)));
    let stream = |kind| lasting(proxy, live, inbound, (signed_in.as_ref(), found, &page), kind);
    let mut response = if let Some((asked, client)) = client {
        let tunnel = Tunnel::new(asked, client, head_timeout, &live.config.server, record);
        Box::pin(upgrade::open(proxy, pool, outbound, tunnel, stream)).await?
    } else {
        let asked = Sent {
            outbound: &mut outbound,
            watch,
            head_timeout,
            retries: route.retries,
            is_call: call.is_some(),
            early: hints.map(|hints| (hints, CorsBy::of(&readers))),
        };
        forward(pool, asked, || stream(Lasting::Answer), (live, route)).await?
    };

    let back = Back {
        route,
        cors: CorsBy::of(&readers),
        upstream: name,
        signed_in,
        browser: shown.browser.as_ref(),
        slid,
    };
    let asks = back.clean(&live.cookies, &mut response);
    if asks.is_nothing() {
        return Ok(finished(response, route, back.slid));
    }
    Box::pin(back.heed(proxy, live, inbound, (asks, response))).await
}

/// A request's body on its way to an upstream, and what is demanded of it.
fn forwarded(
    incoming: Option<Incoming>,
    live: &Snapshot,
    (route, call, max_body): (&Arc<Route>, Option<grpc::Served>, u64),
    record: &mut Record,
) -> (RequestBody, Option<Arc<BodyWatch>>) {
    let Some(incoming) = incoming else {
        return (RequestBody::EMPTY, None);
    };
    let limits = match call {
        Some(grpc::Served::Surely) => Limits::of_call(max_body),
        Some(grpc::Served::Perhaps) | None => Limits::of(&live.config.server, max_body),
    };
    let (body, watch) = RequestBody::new(incoming, limits, Some(trailers::of_requests(&live.reserved, route)));
    record.body.clone_from(&watch);
    (body, watch)
}

/// The answer of a route that forwards nothing.
async fn answered_here(
    proxy: &Proxy,
    live: &Snapshot,
    route: &Route,
    inbound: &Inbound,
    leaves: &NormalPath,
) -> Result<Response<ProxyBody>, ProxyError> {
    let host = inbound.caller.facts.host.name();
    let asked = Asked {
        method: &inbound.method,
        headers: &inbound.headers,
        came: &inbound.path,
        leaves,
        open_files: &proxy.files,
        is_guarded: &|name| live.routes.guards_file(route, host, name, &inbound.method),
    };
    answers::answer(route, &asked).await
}

/// The way of an upstream's answer to the client.
struct Back<'r> {
    route: &'r Route,
    cors: CorsBy,
    upstream: &'r str,
    signed_in: Option<SignedIn>,
    /// If several people are signed in there.
    browser: Option<&'r Shared>,
    /// The cookie of a session whose expiry slides.
    slid: Option<HeaderValue>,
}

impl Back<'_> {
    /// Takes out of an answer what is not for the client. What it asks of us, if the client is to have an answer at all.
    fn clean(&self, cookies: &SessionCookies, response: &mut Response<ProxyBody>) -> Asks {
        let switching = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        let asks = headers::give_back(response, cookies, self.cors, switching);
        // A client of HTTP/2 that was told of a length, but not that this is the end, waits for what does not come.
        if matches!(response.status(), StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
            && response.body_mut().leave_content_out()
        {
            response.headers_mut().remove(header::CONTENT_LENGTH);
        }
        if upgrade::is_open(response) {
            return Asks::default();
        }
        asks
    }

    /// Does what an answer asks, which few do.
    async fn heed(
        self,
        proxy: &Proxy,
        live: &Snapshot,
        inbound: &Inbound,
        (asks, response): (Asks, Response<ProxyBody>),
    ) -> Result<Response<ProxyBody>, ProxyError> {
        let signed_in = self.signed_in.as_ref();
        let ended = asks::heed(proxy, asks, self.upstream, signed_in, inbound, response.status()).await?;
        let mut response = finished(response, self.route, self.slid.filter(|_| ended == Ended::No));
        if let Some(SignedIn { credential, .. }) = signed_in.filter(|_| ended == Ended::Yes) {
            asks::take_back(&live.cookies, credential, self.browser, response.headers_mut());
        }
        Ok(response)
    }
}

/// What the route and the session have to say on top of an answer.
fn finished(mut response: Response<ProxyBody>, route: &Route, slid: Option<HeaderValue>) -> Response<ProxyBody> {
    if !route.response_headers.is_empty() && response.status() != StatusCode::SWITCHING_PROTOCOLS {
        rewrite::apply(&route.response_headers, response.headers_mut());
        trailers::announce_by(&route.response_headers, response.headers_mut());
    }
    if let Some(cookie) = slid {
        response.headers_mut().append(header::SET_COOKIE, cookie);
        rewrite::keep_from_caches(response.headers_mut());
    }
    response
}

/// What lasts longer than a request.
#[derive(Clone, Copy)]
enum Lasting {
    Tunnel,
    Answer,
}

/// Registers it: it ends when the session does, or may not go on for another reason.
fn lasting(
    proxy: &Proxy,
    live: &Snapshot,
    inbound: &Inbound,
    (signed_in, found, page): (Option<&SignedIn>, &credential::Found, &Option<Box<HeaderMap>>),
    what: Lasting,
) -> StreamGuard {
    let about = About {
        session: signed_in.map(|signed_in| Holder::new(signed_in.credential.hash, &signed_in.session)),
        signed_by: signed_in.and_then(|signed_in| found.signer(signed_in.credential.kind)),
        page: page.clone(),
        host: inbound.caller.facts.host.name().into(),
        path: inbound.path.target().clone(),
        method: inbound.method.clone(),
        upgrade: matches!(what, Lasting::Tunnel),
        since: inbound.now,
        era: live.era,
    };
    let session = signed_in.map(|signed_in| &signed_in.session);
    proxy.sessions.stream(about, session, inbound.now)
}

/// A browser sends no body with a preflight: what has one is a request like others.
fn preflight_of<'i>(inbound: &'i Inbound, body: Option<&Incoming>) -> Option<Preflight<'i>> {
    let preflight = cors::preflight(&inbound.method, &inbound.headers);
    preflight.filter(|_| body.is_none_or(Incoming::is_end_stream))
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
pub fn check_head(method: &Method, headers: &HeaderMap, marks: Marks) -> Result<(), ProxyError> {
    // TRACE would show an upstream's view of our headers to the client, CONNECT would reach past the routes.
    if matches!(*method, Method::TRACE | Method::CONNECT) {
        return Err(NoRoute::Method {
            allow: HeaderValue::from_static(""),
        }
        .into());
    }
    if !marks.has(Marks::EXPECT) && !marks.has(Marks::TRANSFER_ENCODING) {
        return Ok(());
    }
    let mut expectations = headers.get_all(header::EXPECT).iter();
    if expectations.any(|value| !value.as_bytes().eq_ignore_ascii_case(b"100-continue")) {
        return Err(ProxyError::Expectation);
    }
    // hyper has refused what is not chunked in the end; a coding before that would lose its label on the way, and nothing
    // is chunked twice (RFC 9112, 6.1).
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let other = |value: &HeaderValue| !value.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked");
    if codings.next().is_some_and(other) || codings.next().is_some() {
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
        let due = sessions.used(&self.session, inbound.caller.facts.addr, inbound.now);
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

/// A browser sends its cookie along with whatever another site has it send.
fn check_origin(
    signed_in: Option<&SignedIn>,
    left: &Cut,
    upgrades: bool,
    route: &Route,
    inbound: &Inbound,
    live: &Snapshot,
) -> Result<(), ForeignOrigin> {
    if !is_by_cookie(signed_in, left, route) {
        return Ok(());
    }
    let (method, headers) = (&inbound.method, &inbound.headers);
    let same_origin = csrf::same_origin_on(route, &live.origins, inbound.caller.facts.host.name());
    csrf::check(
        method,
        upgrades,
        headers,
        &live.origins,
        route.cors.listed(),
        same_origin,
    )
}

/// Whether it is a cookie that may let a request in.
fn is_by_cookie(signed_in: Option<&SignedIn>, left: &Cut, route: &Route) -> bool {
    // Where they are kept the upstream judges cookies by itself: whatever we make of them, it may find one to go by.
    (route.credentials == Credentials::Keep && *left != Cut::Unchanged)
        || signed_in.is_some_and(|signed_in| signed_in.credential.kind == Kind::Cookie)
}

/// What a request says of the page that it came from, if a cookie may let it in.
fn page_of(signed_in: Option<&SignedIn>, left: &Cut, route: &Route, inbound: &Inbound) -> Option<Box<HeaderMap>> {
    is_by_cookie(signed_in, left, route).then(|| Box::new(csrf::said_of_page(&inbound.headers)))
}

/// The first of the request's credentials that stands for a live session.
async fn authenticate(
    sessions: &Arc<Sessions>,
    found: &credential::Found,
    inbound: &Inbound,
) -> Result<Option<SignedIn>, ProxyError> {
    for credential in found.candidates() {
        let session = if found.is_unproven(credential.kind) {
            // In a box: few requests need it, and the future of each has room for what it awaits.
            Box::pin(unproven(sessions, &credential.hash, inbound)).await?
        } else {
            sessions.authenticate(&credential.hash, inbound.now).await?
        };
        if let Some(session) = session {
            return Ok(Some(SignedIn { session, credential }));
        }
    }
    Ok(None)
}

async fn unproven(
    sessions: &Arc<Sessions>,
    hash: &TokenHash,
    inbound: &Inbound,
) -> Result<Option<Arc<Session>>, LookupError> {
    let from = inbound.caller.facts.addr;
    sessions.authenticate_unproven(hash, from, inbound.now).await
}

/// Whether a bearer token without a signature is a session's, which must not leave, or the upstream's own business.
/// On a public route nobody has looked yet; if nobody can tell, it stays here.
async fn bearer_is_ours(
    sessions: &Arc<Sessions>,
    found: &credential::Found,
    signed_in: Option<&SignedIn>,
    inbound: &Inbound,
) -> bool {
    if let Some(SignedIn { credential, .. }) = signed_in {
        return credential.kind == Kind::Bearer;
    }
    for credential in found.candidates().filter(|credential| credential.kind == Kind::Bearer) {
        // On a route that wants a session this was looked up a moment ago, and is remembered.
        if !matches!(unproven(sessions, &credential.hash, inbound).await, Ok(None)) {
            return true;
        }
    }
    false
}

/// Refuses a declared length that is too large, before the upstream hears of it.
fn check_length(inbound: &Inbound, max_body: u64) -> Result<(), BodyError> {
    if !inbound.marks.has(Marks::CONTENT_LENGTH) {
        return Ok(());
    }
    let declared = inbound
        .headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    match declared {
        Some(length) if length > max_body => Err(BodyError::TooLarge),
        _ => Ok(()),
    }
}

/// A request that is forwarded.
struct Sent<'h> {
    outbound: &'h mut Outbound,
    watch: Option<Arc<BodyWatch>>,
    head_timeout: Duration,
    retries: u32,
    /// It may have as much to say before it is answered as later: its session counts from the start.
    is_call: bool,
    /// Where early hints go, if the client can be sent any, and who says there which pages may read answers.
    early: Option<(&'h EarlyHints, CorsBy)>,
}

async fn forward(
    pool: &Arc<Pool>,
    sent: Sent<'_>,
    stream: impl Fn() -> StreamGuard,
    (live, route): (&Snapshot, &Route),
) -> Result<Response<ProxyBody>, ProxyError> {
    let early = sent.early.map(|(hints, cors)| (hints.until_answered(), cors));
    let tell = |fields| {
        if let Some((awaited, cors)) = &early {
            let hint = early_hints::cleaned(fields, &live.cookies, *cors, &route.response_headers);
            awaited.tell(&hint);
        }
    };
    let told: Told<'_> = if early.is_some() { Some(&tell) } else { None };
    let (head_timeout, watch) = (sent.head_timeout, sent.watch);
    let sending = pool.send(
        sent.outbound.outgoing(),
        head_timeout,
        watch.clone(),
        sent.retries,
        told,
    );
    let mut exchange = pin!(sending);
    let guard = sent.is_call.then(&stream);
    let answered = match &guard {
        None => exchange.as_mut().await,
        Some(guard) => tokio::select! {
            biased;
            why = guard.closed() => return Err(had_to_end(why)),
            answered = exchange.as_mut() => answered,
        },
    };
    match answered {
        // Nobody asked it to: what follows on that connection is not HTTP.
        Ok(response) if response.status() == StatusCode::SWITCHING_PROTOCOLS => Err(UpstreamError::Switched {
            upstream: pool.upstream().name().to_owned(),
        }
        .into()),
        Ok(response) => {
            // Events and messages come when they come.
            let goes_on = GoesOn::of(response.headers());
            if sent.is_call
                && goes_on == Some(GoesOn::Call)
                && let Some(watch) = &watch
            {
                watch.may_be_silent();
            }
            let stall = goes_on.is_none().then_some(head_timeout);
            let lasting = || {
                let guard = guard.unwrap_or_else(stream);
                // What the client has still to say, too.
                if let Some(watch) = watch.filter(|watch| !watch.finished()) {
                    guard.at_its_end(move || watch.abandon());
                }
                guard
            };
            Ok(response.map(|answer| ProxyBody::upstream(answer, stall).going_on(goes_on, lasting)))
        }
        // A body that the client broke off is why the upstream failed.
        Err(error) => Err(watch
            .as_deref()
            .and_then(BodyWatch::failure)
            .map_or(error.into(), ProxyError::Body)),
    }
}

/// What a call is answered whose time was over before it had an answer.
fn had_to_end(why: Why) -> ProxyError {
    match why {
        Why::Revoked | Why::Expired => Denied::SignInNeeded.into(),
        Why::NotAllowed => Denied::NotAllowed(Unmet::Role).into(),
        Why::Reloaded | Why::Stopping => ProxyError::CutShort,
    }
}
