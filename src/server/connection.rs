//! One client connection: who is at its other end, which protocol it speaks, and our patience with it.
//!
//! First its facts are found out, each step within the time that a head may take: the PROXY header, if there is to be
//! one; the handshake at a TLS listener, which agrees on the protocol; elsewhere the first bytes say whether it is
//! HTTP/1.1 or HTTP/2. Then hyper speaks it, and one timer looks after it. What becomes of a request is said elsewhere
//! (`server::answer`).

use std::{
    convert::Infallible,
    future::Future,
    io,
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
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::{
    answer::answer,
    guests::Guests,
    http2::{self, Streams, blocks::Followed},
    proxy_protocol::{self, Source},
    refusal,
    seldom::Seldom,
    socket::Socket,
    tls::{Accepted, Issued, Tls},
};
use crate::{
    auth::Auth,
    clock::{self, Clock},
    config,
    lifecycle::Tasks,
    live::Live,
    policy::connection::{Connection, Door, Peer},
    proxy::{
        Proxy,
        body::ProxyBody,
        early_hints::{EarlyHints, Hinted},
        head_guard::Guarded,
        memory::Memory,
        pace::{Leave, Overdue, Pace, Paced, Patience},
        record::Recorder,
        taking::Turns,
    },
    telemetry::{Limit, RequestIds, Stats},
};

/// What hyper reads at most before it is taken from it.
const READ_BUFFER: usize = 8192 + 4096 * 100;

/// A client that was told to go has so long to say that it heard it; requests in flight may take their time.
const LEAVE: Duration = Duration::from_secs(5);
/// One whose place somebody else needs, or that has gone too far, has less for the same.
const LEAVE_NOW: Duration = Duration::from_secs(1);
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
    /// `None`: no listener speaks TLS.
    pub tls: Option<Arc<Tls>>,
    /// Answers that certificate authorities look for.
    pub issued: Option<Arc<dyn Issued>>,
    /// All connections, of all workers.
    pub guests: Arc<Guests>,
}

/// A connection and its worker: what all its requests share.
#[derive(Debug)]
pub struct Conversation {
    pub worker: Arc<Worker>,
    pub facts: Connection,
    pub pace: Arc<Pace>,
    pub memory: Memory,
    pub hints: Arc<EarlyHints>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Protocol {
    Http1,
    Http2,
}

/// Serves one connection of a listener to its end.
pub(super) async fn serve(worker: Arc<Worker>, socket: Socket, peer: Peer, door: Door) {
    let _counted = Counted::new(&worker.recorder.stats);
    let live = worker.live.load();
    let entry = Entry {
        patience: patience(&live.config.server),
        pace: Arc::new(Pace::new()),
        soft: worker.tasks.stop.soft.clone(),
        grown_up: clock::monotonic() + YOUNG,
    };
    let guests = Arc::clone(&worker.guests);
    let _guest = guests.enter(&entry.pace);
    let asks_proxies = live.config.server.proxy_protocol;
    let is_trusted = asks_proxies && live.clients.trusts_peer(peer);
    drop(live);
    let mut stream = Paced::new(socket, Arc::clone(&entry.pace), Socket::has_hung_up);
    let mut facts = Connection { peer, tls: None, door };
    if asks_proxies {
        match entry.proxied(&mut stream, is_trusted).await {
            Ok(Source::Proxy) => {}
            Ok(Source::Untold) => facts.peer = Peer::Untold,
            Ok(Source::Client(addr)) => facts.peer = Peer::of(addr),
            Err(error) => {
                worker.recorder.stats.proxy_refused.fetch_add(1, Ordering::Relaxed);
                debug!(peer = %peer.addr(), %error, "a connection was refused: {error}");
                return;
            }
        }
    }
    match door {
        Door::Tls => {
            // In a box: a connection without TLS is not to be as large as one with it.
            Box::pin(encrypted(worker, entry, stream, facts)).await;
        }
        Door::Plain | Door::Redirect => {
            let Ok(protocol) = entry.within(http2::sniff(&mut stream)).await else {
                return;
            };
            converse(worker, entry, stream, facts, protocol).await;
        }
    }
}

/// Shakes hands first.
async fn encrypted<S>(worker: Arc<Worker>, entry: Entry, stream: Paced<S>, mut facts: Connection)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Some(tls) = &worker.tls else { return };
    let stats = &worker.recorder.stats;
    match entry.within(tls.accept(stream)).await {
        Ok(Some(Accepted {
            stream,
            facts: agreed,
            http2,
        })) => {
            stats.handshakes.fetch_add(1, Ordering::Relaxed);
            facts.tls = Some(agreed);
            let protocol = if http2 { Protocol::Http2 } else { Protocol::Http1 };
            converse(worker, entry, stream, facts, protocol).await;
        }
        // An authority looked.
        Ok(None) => {}
        Err(error) => {
            stats.handshakes_failed.fetch_add(1, Ordering::Relaxed);
            debug!(peer = %facts.peer.addr(), %error, "a handshake failed: {error}");
        }
    }
}

/// What a connection comes with before its facts are known.
struct Entry {
    patience: Patience,
    pace: Arc<Pace>,
    soft: CancellationToken,
    /// Until then it may have its first request under way, whatever we are told.
    grown_up: Instant,
}

impl Entry {
    /// A step that waits for the client: it has as long as a head, and none of it once the gateway stops, or somebody
    /// else needs its place.
    async fn within<T>(&self, step: impl Future<Output = io::Result<T>>) -> io::Result<T> {
        let told_to_stop = async {
            self.soft.cancelled().await;
            sleep_until(self.grown_up.into()).await;
        };
        let stepped = tokio::select! {
            biased;
            stepped = timeout(self.patience.head, step) => stepped,
            () = told_to_stop => return Err(io::Error::other("the gateway stops")),
            _ = self.pace.asked_to_leave() => return Err(io::Error::other("its place was needed")),
        };
        self.pace.owes_a_head(clock::monotonic());
        stepped.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    /// On whose behalf a proxy connects.
    async fn proxied<S>(&self, stream: &mut Paced<S>, is_trusted: bool) -> io::Result<Source>
    where
        S: AsyncRead + Unpin,
    {
        if !is_trusted {
            return Err(io::Error::other("it is not one of server.trusted_proxies"));
        }
        self.within(async { proxy_protocol::read(stream).await.map_err(io::Error::other) })
            .await
    }
}

/// Speaks `protocol` on `stream`.
async fn converse<S>(worker: Arc<Worker>, entry: Entry, stream: S, facts: Connection, protocol: Protocol)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Entry { patience, pace, .. } = entry;
    let live = worker.live.load();
    let server = &live.config.server;
    let stats = Arc::clone(&worker.recorder.stats);
    let hints = Arc::default();
    let conversation = Arc::new(Conversation {
        worker,
        facts,
        pace,
        memory: Memory::default(),
        hints: Arc::clone(&hints),
    });
    match protocol {
        Protocol::Http1 => {
            stats.http1.fetch_add(1, Ordering::Relaxed);
            // No timer: `Pace` tells a slow head from an idle connection, which hyper's own time-out does not.
            let connection = http1::Builder::new()
                .header_read_timeout(None)
                .max_header_size(server.max_header_bytes)
                // hyper's own default; a larger head needs a larger buffer.
                .max_buf_size(server.max_header_bytes.max(READ_BUFFER))
                .serve_connection(
                    TokioIo::new(Guarded::new(Hinted::new(stream, hints))),
                    service(&conversation),
                )
                .with_upgrades();
            drop(live);
            // In a box: each future that it is handed on by would keep a place for it.
            attend(&conversation, Box::pin(connection), &patience, None).await;
        }
        Protocol::Http2 => {
            stats.http2.fetch_add(1, Ordering::Relaxed);
            conversation.pace.multiplex(clock::monotonic());
            let is_proxy = live.clients.trusts_peer(conversation.facts.peer);
            let turns = Arc::<Turns>::default();
            let seen_by = (Arc::clone(&conversation.pace), Arc::clone(&turns));
            let stream = Followed::new(stream, seen_by, server, is_proxy);
            let connection = http2::builder(&conversation, Arc::clone(&turns), server, is_proxy)
                .serve_connection(TokioIo::new(stream), service(&conversation));
            drop(live);
            attend(&conversation, Box::pin(connection), &patience, Some(turns)).await;
        }
    }
}

fn service(
    conversation: &Arc<Conversation>,
) -> impl HttpService<Incoming, ResBody = ProxyBody, Error = Infallible, Future: Send + 'static> + use<> {
    let conversation = Arc::clone(conversation);
    service_fn(move |request: Request<Incoming>| {
        let conversation = Arc::clone(&conversation);
        // In a box: hyper keeps a place for it in each connection, and most connections wait.
        Box::pin(async move { Ok::<Response<ProxyBody>, Infallible>(answer(conversation, request).await) })
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

/// What is to be done beside a connection, now and then.
enum Chore {
    /// The timer has fired: has our patience ended?
    Look,
    /// The gateway stops.
    Stop,
    /// The client is asked to leave.
    Leave(Leave),
}

/// A client of HTTP/2 that was told to go. Its requests are answered, as far as we see; but the end of an answer may lie here
/// still, waiting for its window. Were there none, the connection would end when the client says that it heard (the PING
/// behind a GOAWAY). So one that is there may stay for as long as a client that takes nothing, and no longer: it could say
/// something for ever.
struct Leaver {
    turns: Arc<Turns>,
    heard: u64,
    until: Instant,
}

impl Leaver {
    fn new(turns: &Arc<Turns>, patience: &Patience) -> Self {
        Self {
            heard: turns.heard_in_all(),
            until: clock::monotonic() + patience.reading,
            turns: Arc::clone(turns),
        }
    }

    fn may_stay(&self, now: Instant) -> bool {
        self.turns.heard_in_all() != self.heard && now < self.until
    }
}

/// Requests that hyper took for the end of their connection: it resets a CONNECT of HTTP/2 that announces content, and then
/// says that the connection has ended, which it has not. What else is under way on it may be somebody else's, where a
/// proxy shares it. When asked again it goes on.
struct Strays {
    /// `None`: HTTP/1.1, where the end is the end.
    turns: Option<Arc<Turns>>,
    heard: u64,
    since_heard: u32,
}

impl Strays {
    /// So many may come in what is read at once; who says more often that it has ended is believed.
    const AT_ONCE: u32 = 1_000;

    fn new(turns: Option<&Arc<Turns>>) -> Self {
        Self {
            turns: turns.cloned(),
            heard: 0,
            since_heard: 0,
        }
    }

    fn goes_on(&mut self) -> bool {
        let Some(turns) = &self.turns else { return false };
        let heard = turns.heard_in_all();
        self.since_heard = if heard == self.heard { self.since_heard + 1 } else { 0 };
        self.heard = heard;
        self.since_heard < Self::AT_ONCE
    }
}

/// Runs a connection to its end, or to the end of our patience with the client. `turns`: of HTTP/2.
///
async fn attend<C: Attended>(
    conversation: &Conversation,
    mut connection: Pin<Box<C>>,
    patience: &Patience,
    turns: Option<Arc<Turns>>,
) {
    let pace = &conversation.pace;
    let soft = conversation.worker.tasks.stop.soft.clone();
    // The shortest span that may end a connection: the timer looks at it no less often.
    let look_every = patience.head.min(patience.idle).min(patience.reading);
    let mut timer = pin!(sleep_until((clock::monotonic() + look_every).into()));
    let mut stopping = false;
    let mut leaving = false;
    // Once the client was told to go: how long it may stay without a request,
    let mut leave_by: Option<Instant> = None;
    let mut leaver: Option<Leaver> = None;
    // and whatever it does.
    let mut end_by: Option<Instant> = None;
    let mut strays = Strays::new(turns.as_ref());
    loop {
        let chore = {
            let mut chore = pin!(async {
                tokio::select! {
                    () = timer.as_mut() => Chore::Look,
                    () = soft.cancelled(), if !stopping => Chore::Stop,
                    why = pace.asked_to_leave(), if !leaving => Chore::Leave(why),
                }
            });
            tokio::select! {
                // The connection first: told to finish before it has read its first request, it would close instead.
                biased;
                ended = connection.as_mut() => match ended {
                    Ok(()) if !pace.is_ending() && strays.goes_on() => continue,
                    Ok(()) => return,
                    Err(error) => {
                        refusal::record_end(conversation, &error);
                        return;
                    }
                },
                chore = Seldom::new(chore.as_mut()) => chore,
            }
        };
        match chore {
            Chore::Look => {
                let now = clock::monotonic();
                if end_by.is_some_and(|by| by <= now) {
                    return;
                }
                if leave_by.is_some_and(|by| by <= now) && leaver.as_ref().is_some_and(|leaver| leaver.may_stay(now)) {
                    leave_by = Some(now + LEAVE_NOW);
                }
                let due =
                    |leave_by: Option<Instant>| leave_by.filter(|_| pace.at_rest()).or_else(|| pace.deadline(patience));
                if due(leave_by).is_some_and(|due| due <= now) {
                    if leave_by.is_none() {
                        note_overdue(conversation, patience);
                    }
                    // To who is in the middle of a head nothing can be said that would end well.
                    if !C::SAYS_GOODBYE || leave_by.is_some() || !pace.at_rest() || pace.is_owed_a_block() {
                        return;
                    }
                    connection.as_mut().finish();
                    leave_by = Some(now + LEAVE);
                    leaver = turns.as_ref().map(|turns| Leaver::new(turns, patience));
                }
                if !C::SAYS_GOODBYE && !pace.at_rest() {
                    pace.ask_for_client();
                }
                // Another span may have begun, or begin at any moment.
                let soonest = end_by.into_iter().fold(now + look_every, Instant::min);
                timer
                    .as_mut()
                    .reset(due(leave_by).map_or(soonest, |due| due.min(soonest)).into());
            }
            Chore::Leave(why) => {
                leaving = true;
                let now = clock::monotonic();
                end_by = match why {
                    // It has nothing to lose, unless it has just begun something.
                    Leave::MakeRoom | Leave::ShakeHands if !C::SAYS_GOODBYE && pace.at_rest() => return,
                    Leave::MakeRoom | Leave::ShakeHands => None,
                    Leave::Resets | Leave::IdleFrames => {
                        note_flood(conversation, why);
                        Some(now + LEAVE)
                    }
                };
                connection.as_mut().finish();
                leave_by = Some(now + LEAVE_NOW);
                timer.as_mut().reset((now + LEAVE_NOW.min(look_every)).into());
            }
            Chore::Stop => {
                stopping = true;
                connection.as_mut().finish();
                if C::SAYS_GOODBYE {
                    let now = clock::monotonic();
                    leave_by = Some(now + LEAVE);
                    leaver = turns.as_ref().map(|turns| Leaver::new(turns, patience));
                    timer.as_mut().reset((now + LEAVE.min(look_every)).into());
                }
            }
        }
    }
}

/// Counts a client whose time is over, unless it was merely idle.
fn note_overdue(conversation: &Conversation, patience: &Patience) {
    let limit = match conversation.pace.due(patience) {
        Some((_, Overdue::Head)) => Limit::HeaderTimeout,
        Some((_, Overdue::Reading)) => Limit::BodyTimeout,
        Some((_, Overdue::Idle)) | None => return,
    };
    conversation.worker.recorder.stats.limit(limit);
}

/// Counts and says that a client of HTTP/2 has had enough.
fn note_flood(conversation: &Conversation, why: Leave) {
    let limit = match why {
        Leave::Resets => Limit::MaxResets,
        Leave::IdleFrames => Limit::MaxIdleFrames,
        Leave::MakeRoom | Leave::ShakeHands => return,
    };
    conversation.worker.recorder.stats.limit(limit);
    let (peer, limit) = (conversation.facts.peer.addr(), limit.as_str());
    debug!(%peer, limit, "a connection ends that has reached {limit}");
}

fn patience(server: &config::Server) -> Patience {
    Patience {
        head: server.header_timeout,
        idle: server.idle_timeout,
        reading: server.body_timeout,
        min_rate: server.min_body_rate,
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
