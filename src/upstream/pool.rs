//! One worker's connections to one upstream, and what a request does with them.
//!
//! HTTP/1.1 connections carry one request at a time. Idle ones are taken last in, first out: the newest is the least
//! likely to be dead. One that dies before a byte of the answer is replaced by a fresh one (`lean.rs` speaks on them).
//! Connections of HTTP/2 are shared (`http2.rs`). What may be sent again is in `retry.rs`. Not here: requests that want a
//! tunnel (`pool/upgrade.rs`).

mod upgrade;

use std::{
    fmt, io,
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use http::{Response, StatusCode, Version};
use hyper::body::Incoming;
use tokio::{sync::Mutex as Turn, time::timeout_at};
use tokio_util::sync::CancellationToken;

use super::{
    Endpoint, Upstream, UpstreamError, WireError,
    addresses::Origin,
    answer::AnswerBody,
    balance::Tried,
    body::BodyWatch,
    connector::Connected,
    dice::Dice,
    endpoint::Speaks,
    http2::{self, Held, Multiplexed, Part},
    lean::{self, Answered, LeanError, Told},
    lock,
    outgoing::Outgoing,
    retry::{self, Budget},
    stream::Stream,
    tls::For,
};
use crate::{clock, fields, lifecycle::Tasks};

/// One worker's connections to one upstream.
pub struct Pool {
    upstream: Arc<Upstream>,
    /// As many as there are endpoints.
    lanes: Box<[Lane]>,
    dice: Dice,
    /// The gateway stops: nothing is kept any more.
    closed: AtomicBool,
    tasks: Tasks,
}

/// The connections to one endpoint.
#[derive(Default)]
struct Lane {
    idle: Mutex<Vec<Idle>>,
    shared: Mutex<Vec<Multiplexed>>,
    /// Where one connection is enough for all, one request makes it while the others wait: they need not make one each.
    connecting: Turn<Connecting>,
}

#[derive(Default)]
struct Connecting {
    failed_at: Option<Instant>,
}

struct Idle {
    connection: lean::Connection<Stream>,
    since: Instant,
    origin: Option<Origin>,
}

/// A request's way to an endpoint.
enum Way {
    Http1 {
        connection: lean::Connection<Stream>,
        origin: Option<Origin>,
    },
    Http2(Part),
}

/// The head of an answer, and what brings the rest.
#[expect(clippy::large_enum_variant, reason = "it is taken apart at once")]
enum Answer {
    Http1 {
        answered: Answered<Stream>,
        origin: Option<Origin>,
    },
    Http2 {
        response: Response<Incoming>,
        held: Held,
    },
}

/// There was no answer.
struct Refused {
    error: WireError,
    /// All of the request is still there: it may be sent once more, as far as this way knows.
    again: bool,
    /// Nobody has heard of it.
    unheard: bool,
}

/// A place among the requests in flight, at one endpoint. Dropping it gives it back.
pub struct Place {
    pool: Arc<Pool>,
    endpoint: usize,
}

/// A place in flight, and where its connection goes when the answer has ended.
pub(super) struct Lease {
    place: Place,
    origin: Option<Origin>,
}

/// The request's body, if it has one. Dropped before the answer has come to its end, what is left of it is not sent: over
/// HTTP/2 it would go on by itself, and be heard in the name of somebody who may not speak any more.
pub(super) struct Sending(Option<Arc<BodyWatch>>);

impl Sending {
    /// The answer has come to its end: what is left may go on.
    pub(super) fn let_go(mut self) {
        self.0 = None;
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        if let Some(body) = &self.0 {
            body.abandon();
        }
    }
}

impl Place {
    /// Taken already, at no endpoint yet.
    fn new(pool: &Arc<Pool>) -> Self {
        Self {
            pool: Arc::clone(pool),
            endpoint: usize::MAX,
        }
    }

    fn move_to(&mut self, endpoint: usize) {
        // Nobody compares where there is one.
        if self.pool.lanes.len() > 1 {
            if let Some(before) = self.pool.endpoint(self.endpoint) {
                before.in_flight.fetch_sub(1, Ordering::Relaxed);
            }
            if let Some(now) = self.pool.endpoint(endpoint) {
                now.in_flight.fetch_add(1, Ordering::Relaxed);
            }
        }
        self.endpoint = endpoint;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.move_to(usize::MAX);
        self.pool.upstream.limit.give_back();
    }
}

impl Lease {
    /// The answer was read to its end: the connection may serve the next request.
    pub(super) fn give_back(self, connection: lean::Connection<Stream>) {
        let Self { place, origin } = self;
        let pool = &place.pool;
        if pool.closed.load(Ordering::Relaxed) {
            return;
        }
        if let Some(lane) = pool.lanes.get(place.endpoint) {
            lock(&lane.idle).push(Idle {
                connection,
                since: clock::monotonic(),
                origin,
            });
        }
    }
}

impl Way {
    async fn send(self, outgoing: &mut Outgoing, endpoint: &Endpoint, told: Told<'_>) -> Result<Answer, Refused> {
        match self {
            Self::Http1 { connection, origin } => match connection.exchange(outgoing, told).await {
                Ok(answered) => Ok(Answer::Http1 { answered, origin }),
                Err(failed) => Err(Refused {
                    // What came was an answer, if none in HTTP: asking again would not mend it.
                    again: !failed.answered && outgoing.body.is_untouched(),
                    unheard: !failed.sent,
                    error: failed.error.into(),
                }),
            },
            // In a box: what HTTP/1.1 does not need must not make the future of each of its requests larger, which is moved.
            Self::Http2(part) => Box::pin(over_http2(part, outgoing, endpoint)).await,
        }
    }
}

async fn over_http2(mut part: Part, outgoing: &mut Outgoing, endpoint: &Endpoint) -> Result<Answer, Refused> {
    // hyper takes the request apart to send it, and its body with it.
    let bodiless = outgoing.body.is_empty();
    let mut request = outgoing.take_request();
    http2::into_http2(&mut request, &endpoint.uri_scheme());
    match part.sender.try_send_request(request).await {
        Ok(mut response) => {
            part.held.note_answer();
            fields::join_lengths(response.headers_mut());
            // What passes it on speaks for itself.
            *response.version_mut() = Version::HTTP_11;
            Ok(Answer::Http2 {
                response,
                held: part.held,
            })
        }
        Err(mut refused) => {
            // Given back untouched: not a byte of it was sent.
            let untouched = refused.take_message();
            let given_back = untouched.is_some();
            if let Some(request) = untouched {
                outgoing.body = request.into_body();
            }
            let error = refused.into_error();
            Err(Refused {
                again: (given_back || bodiless) && !retry::was_answered(&error),
                unheard: given_back || retry::was_not_processed(&error),
                error: error.into(),
            })
        }
    }
}

impl Answer {
    fn status(&self) -> StatusCode {
        match self {
            Self::Http1 { answered, .. } => answered.response.status(),
            Self::Http2 { response, .. } => response.status(),
        }
    }
}

impl Pool {
    /// `tasks` must be of the worker's own runtime.
    pub fn new(upstream: Arc<Upstream>, tasks: Tasks) -> Self {
        Self {
            lanes: upstream.endpoints().iter().map(|_| Lane::default()).collect(),
            upstream,
            dice: Dice::new(),
            closed: AtomicBool::new(false),
            tasks,
        }
    }

    pub fn upstream(&self) -> &Arc<Upstream> {
        &self.upstream
    }

    /// Sends `outgoing`, of which nothing is left then, and waits for the head of the answer. It is sent once more at most `retries` times, if it may be
    /// at all. While a `body` is still on its way, the time-out counts from when it moved last, so that a long upload is
    /// not a slow answer. `told` is who is told of early hints, which HTTP/2 has none of here.
    ///
    /// Cancel-safe: dropping it closes the connection that it used, or ends its stream.
    pub async fn send(
        self: &Arc<Self>,
        outgoing: &mut Outgoing,
        head_timeout: Duration,
        body: Option<Arc<BodyWatch>>,
        retries: u32,
        told: Told<'_>,
    ) -> Result<Response<AnswerBody>, UpstreamError> {
        self.upstream.admit().await?;
        let place = Place::new(self);
        let sending = Sending(body);
        let body = &sending.0;
        // Where it is, for whoever has waited in vain.
        let whereabouts = AtomicUsize::new(usize::MAX);
        let begun = clock::monotonic();
        let mut exchange = pin!(self.exchange(outgoing, (retries, told), (place, begun), &whereabouts));
        let mut deadline = begun + head_timeout;
        loop {
            if let Ok(answered) = timeout_at(deadline.into(), exchange.as_mut()).await {
                let (answer, place) = answered?;
                return Ok(self.response_of(answer, place, sending));
            }
            deadline = body.as_ref().map_or(deadline, |body| body.moved_at() + head_timeout);
            if deadline <= clock::monotonic() {
                // A client that sends nothing more is not the endpoint's fault.
                if body.as_ref().is_none_or(|body| body.finished()) {
                    let at = whereabouts.load(Ordering::Relaxed);
                    self.upstream.failed(at);
                    self.doubt(at, begun);
                }
                return Err(UpstreamError::HeadTimeout {
                    upstream: self.upstream.name().to_owned(),
                    after: head_timeout,
                });
            }
        }
    }

    fn response_of(&self, answer: Answer, place: Place, sending: Sending) -> Response<AnswerBody> {
        let (answered, origin) = match answer {
            Answer::Http2 { response, held } => {
                return response.map(|incoming| AnswerBody::http2(incoming, (held, place), sending));
            }
            Answer::Http1 { answered, origin } => (answered, origin),
        };
        let (answer, response, upload) = answered.into_answer();
        // The client may first send everything and only then read: the upload must not wait for the answer to be taken.
        let upload = upload.map(|rest| {
            let stop = CancellationToken::new();
            let guard = stop.clone().drop_guard();
            self.tasks.spawn("upload behind its answer", async move {
                stop.run_until_cancelled(rest).await;
            });
            guard
        });
        response.map(|()| AnswerBody::http1(answer, Lease { place, origin }, (upload, sending)))
    }

    async fn exchange(
        &self,
        outgoing: &mut Outgoing,
        (retries, told): (u32, Told<'_>),
        (mut place, begun): (Place, Instant),
        whereabouts: &AtomicUsize,
    ) -> Result<(Answer, Place), UpstreamError> {
        let mut budget = Budget::new(retries);
        let mut tried = Tried::default();
        let mut at = self.upstream.choose(&self.dice, tried).unwrap_or(0);
        let mut fresh = false;
        loop {
            place.move_to(at);
            whereabouts.store(at, Ordering::Relaxed);
            let (Some(endpoint), Some(lane)) = (self.endpoint(at), self.lanes.get(at)) else {
                return Err(self.unreachable(io::Error::other("it has no endpoints")));
            };
            let kept = if fresh { None } else { self.kept(lane, endpoint, begun) };
            let was_kept = kept.is_some();
            let way = match kept {
                Some(way) => way,
                // In a box of its own: what is rare must not make the future of every request larger, which is moved.
                None => match Box::pin(self.fresh(lane, endpoint)).await {
                    Ok(way) => way,
                    Err(source) => {
                        self.upstream.failed(at);
                        tried.add(at);
                        // Nothing was sent: any other may have it, each once.
                        at = self.another(tried).ok_or_else(|| self.unreachable(source))?;
                        fresh = false;
                        continue;
                    }
                },
            };

            let multiplexed = matches!(way, Way::Http2(_));
            let Refused { error, again, unheard } = match way.send(outgoing, endpoint, told).await {
                Ok(answer) => {
                    self.upstream.answered(at, answer.status());
                    return Ok((answer, place));
                }
                Err(refused) => refused,
            };

            if !was_kept && !unheard && !is_the_clients(&error) {
                // One that was kept may have died of age.
                self.upstream.failed(at);
            }
            if !again || !budget.allows(unheard, outgoing.method()) {
                return Err(self.broken(error));
            }
            if was_kept && !multiplexed {
                self.upstream.retries.fetch_add(1, Ordering::Relaxed);
                fresh = true;
                continue;
            }
            tried.add(at);
            fresh = false;
            match self.another(tried) {
                Some(other) => at = other,
                // The connection that was shared is not chosen again: it has ended.
                None if was_kept || unheard => {}
                None => return Err(self.broken(error)),
            }
        }
    }

    /// A request has waited in vain since `begun`: where nothing was answered meanwhile nothing more is asked.
    fn doubt(&self, at: usize, begun: Instant) {
        if let Some(lane) = self.lanes.get(at) {
            lock(&lane.shared).retain(|connection| connection.answered_since(begun));
        }
    }

    /// Another endpoint for a request that has failed where it was.
    fn another(&self, tried: Tried) -> Option<usize> {
        let other = self.upstream.choose(&self.dice, tried)?;
        self.upstream.retries.fetch_add(1, Ordering::Relaxed);
        Some(other)
    }

    /// A connection that is there already, for a request that has `begun`.
    fn kept(&self, lane: &Lane, endpoint: &Endpoint, begun: Instant) -> Option<Way> {
        if endpoint.speaks() == Speaks::Http2
            && let Some(part) = part(lane, endpoint)
        {
            return Some(Way::Http2(part));
        }
        loop {
            let kept = lock(&lane.idle).pop()?;
            let Idle {
                mut connection,
                since,
                origin,
            } = kept;
            let idle_for = begun.saturating_duration_since(since);
            if idle_for >= self.upstream.settings.idle_timeout {
                // The rest were put there before it.
                lock(&lane.idle).clear();
                return None;
            }
            if leads_there(endpoint, origin.as_ref()) && connection.is_quiet() {
                return Some(Way::Http1 { connection, origin });
            }
        }
    }

    /// A new connection; of one that requests share, a part of it, whoever made it.
    async fn fresh(&self, lane: &Lane, endpoint: &Endpoint) -> io::Result<Way> {
        if endpoint.speaks() == Speaks::Http1 {
            return self.connect(lane, endpoint).await;
        }
        let asked = clock::monotonic();
        let mut connecting = lane.connecting.lock().await;
        if let Some(part) = part(lane, endpoint) {
            return Ok(Way::Http2(part));
        }
        if endpoint.speaks() == Speaks::Http1 {
            // That was found out meanwhile: each makes its own.
            drop(connecting);
            return self.connect(lane, endpoint).await;
        }
        if connecting.failed_at.is_some_and(|failed| failed > asked) {
            return Err(io::Error::other("the connection that was waited for could not be made"));
        }
        let way = self.connect(lane, endpoint).await;
        if way.is_err() {
            connecting.failed_at = Some(clock::monotonic());
        }
        way
    }

    async fn connect(&self, lane: &Lane, endpoint: &Endpoint) -> io::Result<Way> {
        match self.upstream.connect(endpoint, For::Requests, &self.tasks).await? {
            Connected::Http1 { stream, origin } => Ok(Way::Http1 {
                connection: lean::Connection::new(stream),
                origin,
            }),
            Connected::Http2(mut connection) => {
                let part = connection.take();
                if !self.closed.load(Ordering::Relaxed) {
                    lock(&lane.shared).push(connection);
                }
                Ok(Way::Http2(part))
            }
        }
    }

    fn endpoint(&self, at: usize) -> Option<&Endpoint> {
        self.upstream.endpoints().get(at).map(AsRef::as_ref)
    }

    fn unreachable(&self, source: io::Error) -> UpstreamError {
        UpstreamError::Connect {
            upstream: self.upstream.name().to_owned(),
            source,
        }
    }

    fn broken(&self, source: WireError) -> UpstreamError {
        UpstreamError::Broken {
            upstream: self.upstream.name().to_owned(),
            source,
        }
    }

    /// Closes all connections that carry nothing, and from now on each when it has nothing more to carry.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
        for lane in &self.lanes {
            lock(&lane.idle).clear();
            lock(&lane.shared).clear();
        }
    }

    /// Closes connections that nobody used for the idle time-out, or whose other end has closed them.
    pub fn sweep(&self) {
        let now = clock::monotonic();
        let limit = self.upstream.settings.idle_timeout;
        for (lane, endpoint) in self.lanes.iter().zip(self.upstream.endpoints()) {
            lock(&lane.idle).retain_mut(|kept| {
                now.saturating_duration_since(kept.since) < limit
                    && leads_there(endpoint, kept.origin.as_ref())
                    && kept.connection.is_quiet()
            });
            lock(&lane.shared).retain(|shared| {
                !shared.is_closed() && !shared.is_unused(now, limit) && leads_there(endpoint, shared.origin())
            });
        }
    }
}

/// A part in a connection that requests share, if there is one with room.
fn part(lane: &Lane, endpoint: &Endpoint) -> Option<Part> {
    let mut shared = lock(&lane.shared);
    shared.retain(|connection| !connection.is_closed() && leads_there(endpoint, connection.origin()));
    http2::pick(&mut shared).map(Multiplexed::take)
}

/// A request that its client broke off, or sent otherwise than it said, shows nothing of the endpoint.
fn is_the_clients(error: &WireError) -> bool {
    match error {
        WireError::Lean(error) => matches!(error, LeanError::Body(_) | LeanError::BodyLength),
        WireError::Hyper(error) => error.is_user(),
    }
}

/// Whether the endpoint is still where the connection leads. What has no name does not move.
fn leads_there(endpoint: &Endpoint, origin: Option<&Origin>) -> bool {
    origin.is_none_or(|origin| endpoint.addresses.still_has(origin))
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pool({})", self.upstream.name())
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Place({})", self.pool.upstream.name())
    }
}
