//! Tunnels: WebSockets, asked for by `Upgrade` on HTTP/1.1 (RFC 9110, 7.8) or by an extended CONNECT on HTTP/2
//! (RFC 8441). The upstream is asked by `Upgrade` either way.
//!
//! The request was authorised like any other: an extended CONNECT counts as the GET that it stands for, and is judged
//! as an upgrade. Nothing that a client sends behind it travels before the upstream has agreed: hyper keeps those bytes
//! until then. If the upstream declines, on HTTP/1.1 they could only be misread as another request, so the connection
//! is closed after its answer (`server::answer` does it).
//!
//! What passes through a tunnel is not looked at, only counted: its line in the access log is written at its end. Each
//! direction has one buffer, and is read when it was written.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use base64ct::{Base64, Encoding};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header, request::Parts};
use hyper::{
    body::{Body, Incoming},
    ext::Protocol,
    upgrade::{OnUpgrade, on},
};
use hyper_util::rt::TokioIo;
use sha1::{Digest, Sha1};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional},
    sync::oneshot,
    time::{sleep_until, timeout},
};
use tracing::debug;

use super::{
    Inbound, Lasting, Proxy,
    body::{GoesOn, ProxyBody},
    error::ProxyError,
    headers::{self, Outbound},
    record::Record,
};
use crate::{
    chain::Chain,
    clock, config,
    policy::marks::Marks,
    secret,
    session::streams::{StreamGuard, Why},
    upstream::{Pool, body::BodyWatch},
};

/// An upstream that answered 101 takes over at once, or something is wrong.
const HANDOVER: Duration = Duration::from_secs(10);

const WEBSOCKET: HeaderValue = HeaderValue::from_static("websocket");
const SEC_WEBSOCKET_ACCEPT: HeaderName = header::SEC_WEBSOCKET_ACCEPT;
/// The one version that there is (RFC 6455, 4.1).
const VERSION: HeaderValue = HeaderValue::from_static("13");
/// What a server adds to a key to show that it understood (RFC 6455, 4.2.2).
const KEY_SUFFIX: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Shows that a request came as an extended CONNECT for a WebSocket.
#[derive(Clone, Copy, Debug)]
pub struct ExtendedConnect(());

impl ExtendedConnect {
    /// Recognises one, and gives it the method by which the WebSocket would be asked for on HTTP/1.1. Every other
    /// CONNECT stays one, and is refused.
    pub fn take(parts: &mut Parts) -> Option<Self> {
        if parts.method != Method::CONNECT {
            return None;
        }
        let protocol = parts.extensions.get::<Protocol>()?;
        if !protocol.as_ref().eq_ignore_ascii_case(b"websocket") {
            return None;
        }
        parts.method = Method::GET;
        Some(Self(()))
    }

    /// Whether `response` may be its answer: one of success says that there is a tunnel.
    pub fn check(self, response: Response<ProxyBody>) -> Result<Response<ProxyBody>, ProxyError> {
        if response.status().is_success() && response.extensions().get::<Established>().is_none() {
            return Err(ProxyError::NoTunnel);
        }
        Ok(response)
    }
}

/// In the extensions of an answer: a tunnel stands behind it.
#[derive(Clone, Copy, Debug)]
struct Established;

/// Whether an answer only says that a tunnel stands, which nothing can undo any more.
pub(super) fn is_open(response: &Response<ProxyBody>) -> bool {
    response.status() == StatusCode::SWITCHING_PROTOCOLS || response.extensions().get::<Established>().is_some()
}

/// How a client asked for a tunnel.
#[derive(Clone, Debug)]
pub enum Asked {
    /// With this protocol in `Upgrade`; the handshake is between the two ends.
    Upgrade(HeaderValue),
    /// By an extended CONNECT; the handshake with the upstream is ours.
    ExtendedConnect,
}

impl Asked {
    /// What the upstream finds in `Upgrade`.
    pub fn protocol(&self) -> HeaderValue {
        match self {
            Self::Upgrade(protocol) => protocol.clone(),
            Self::ExtendedConnect => WEBSOCKET,
        }
    }
}

/// Whether a request asks for a tunnel of a kind that we let through. One with a body is a request like others: no
/// handshake has any, and where it ends, the tunnel would begin.
pub fn of(inbound: &Inbound, body: Option<&Incoming>) -> Option<Asked> {
    if inbound.extended_connect.is_some() {
        return Some(Asked::ExtendedConnect);
    }
    if !inbound.marks.has(Marks::UPGRADE) || !body.is_none_or(Incoming::is_end_stream) {
        return None;
    }
    headers::upgrade_of(&inbound.method, inbound.version, &inbound.headers).map(Asked::Upgrade)
}

/// A tunnel that is to be.
#[derive(Debug)]
pub(super) struct Tunnel {
    asked: Asked,
    client: OnUpgrade,
    /// Of the request, which seldom has one.
    body: Option<Arc<BodyWatch>>,
    head_timeout: Duration,
    /// For how long nothing may pass, either way; zero for as long as both ends like.
    idle: Duration,
}

impl Tunnel {
    pub(super) fn new(
        asked: Asked,
        client: OnUpgrade,
        head_timeout: Duration,
        server: &config::Server,
        record: &Record,
    ) -> Self {
        Self {
            asked,
            client,
            body: record.body.clone(),
            head_timeout,
            idle: server.tunnel_idle_timeout,
        }
    }
}

/// Sends an upgrade request; if the upstream agrees, joins both ends until one of them ends, nothing has passed for too
/// long, what `stream` registers has to end, or the gateway stops.
pub(super) async fn open(
    proxy: &Proxy,
    pool: &Arc<Pool>,
    outbound: Outbound,
    tunnel: Tunnel,
    stream: impl Fn(Lasting) -> StreamGuard,
) -> Result<Response<ProxyBody>, ProxyError> {
    let Ok(place) = Arc::clone(&proxy.tunnels).try_acquire_owned() else {
        return Err(ProxyError::TooManyTunnels);
    };
    let mut request = outbound.into_request();
    let key = match tunnel.asked {
        Asked::Upgrade(_) => None,
        Asked::ExtendedConnect => Some(ask(request.headers_mut())),
    };
    let asked = pool.upgrade(request, tunnel.body.as_deref(), tunnel.head_timeout);
    let (mut response, (sender, in_flight)) = asked.await?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        // What it answers instead may go on for as long as a tunnel.
        let goes_on = GoesOn::of(response.headers());
        let stall = goes_on.is_none().then_some(tunnel.head_timeout);
        return Ok(response.map(|incoming| {
            ProxyBody::declined(incoming, sender, in_flight, stall).going_on(goes_on, || stream(Lasting::Answer))
        }));
    }
    let headers = response.headers();
    if !switches(headers) || key.is_some_and(|key| !answers(headers, &key)) {
        let upstream = pool.upstream().name().to_owned();
        return Err(ProxyError::Handshake { upstream });
    }
    let upstream = on(&mut response);
    let stop = proxy.tasks.stop.streams.clone();
    let (client, idle) = (tunnel.client, tunnel.idle);
    let guard = stream(Lasting::Tunnel);
    let (hand, record) = oneshot::channel();
    let mut ending = Ending::new(record);
    let traffic = Arc::clone(&ending.traffic);
    proxy.tasks.spawn("tunnel", async move {
        tokio::select! {
            () = join(client, upstream, idle, &traffic) => {}
            why = guard.closed() => {
                debug!(why = why.as_str(), "a tunnel had to end");
                ending.why = Some(why);
            }
            // A tunnel may last for ever; a gateway that stops gives it `server.stream_grace`.
            () = stop.cancelled() => ending.why = Some(Why::Stopping),
        }
        drop((place, in_flight, ending));
    });
    let (mut parts, _) = response.into_parts();
    if matches!(tunnel.asked, Asked::ExtendedConnect) {
        // HTTP/2 knows no switching: success is the agreement (RFC 8441, 5).
        parts.status = StatusCode::OK;
        parts.headers.remove(SEC_WEBSOCKET_ACCEPT);
        parts.extensions.insert(Established);
    }
    Ok(Response::from_parts(parts, ProxyBody::tunnel(hand)))
}

/// Writes the tunnel's line when it is dropped, however that comes about. Until then the client's connection is not idle:
/// the record sees to it.
struct Ending {
    record: oneshot::Receiver<Box<Record>>,
    traffic: Arc<Traffic>,
    /// `None`: one of its ends has ended it, or nothing passed for too long.
    why: Option<Why>,
}

impl Ending {
    fn new(record: oneshot::Receiver<Box<Record>>) -> Self {
        Self {
            record,
            traffic: Arc::new(Traffic::new()),
            why: None,
        }
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        // Without one, the answer never left: it is written there.
        if let Ok(mut record) = self.record.try_recv() {
            if let Some(why) = self.why {
                record.had_to_end(why);
            }
            let Traffic { came, left, .. } = &*self.traffic;
            record.tunnel_ended(came.load(Ordering::Relaxed), left.load(Ordering::Relaxed));
        }
    }
}

/// Puts our half of a WebSocket's handshake into a request; what the answer must hold.
fn ask(headers: &mut HeaderMap) -> String {
    let key = Base64::encode_string(&secret::random::<16>());
    let accept = accept_of(&key);
    if let Ok(key) = HeaderValue::try_from(key) {
        headers.insert(header::SEC_WEBSOCKET_KEY, key);
    }
    headers.entry(header::SEC_WEBSOCKET_VERSION).or_insert(VERSION);
    accept
}

/// What a server answers that understood `key` (RFC 6455, 4.2.2).
fn accept_of(key: &str) -> String {
    let digest = Sha1::new().chain_update(key).chain_update(KEY_SUFFIX).finalize();
    Base64::encode_string(&digest)
}

/// Whether an upstream's 101 is about the only protocol that it was asked for: behind any other, of HTTP/2 say, requests
/// would travel that nobody judges.
fn switches(headers: &HeaderMap) -> bool {
    let mut protocols = headers.get_all(header::UPGRADE).iter();
    let is_websocket = |protocol: &HeaderValue| protocol.as_bytes().eq_ignore_ascii_case(b"websocket");
    protocols.next().is_some_and(is_websocket) && protocols.next().is_none()
}

/// Whether it answers our handshake (RFC 6455, 4.1); the client of another judges that by itself.
fn answers(headers: &HeaderMap, accept: &str) -> bool {
    headers
        .get(SEC_WEBSOCKET_ACCEPT)
        .is_some_and(|found| found.as_bytes() == accept.as_bytes())
}

async fn join(client: OnUpgrade, upstream: OnUpgrade, idle: Duration, traffic: &Arc<Traffic>) {
    let both = async { tokio::try_join!(client, upstream) };
    let (client, upstream) = match timeout(HANDOVER, both).await {
        Ok(Ok(both)) => both,
        Ok(Err(error)) => {
            debug!(error = %Chain(&error), "an upgrade was agreed on but not carried out");
            return;
        }
        Err(_) => {
            debug!("an upgrade was agreed on but not carried out in time");
            return;
        }
    };
    traffic.moved();
    let mut client = Watched::new(TokioIo::new(client), End::Client, traffic);
    let mut upstream = Watched::new(TokioIo::new(upstream), End::Upstream, traffic);
    tokio::select! {
        // Either end may close its half first; the tunnel lasts until both have.
        ended = copy_bidirectional(&mut client, &mut upstream) => {
            if let Err(error) = ended {
                debug!(%error, "a tunnel broke");
            }
        }
        () = traffic.none_for(idle), if !idle.is_zero() => {
            debug!(idle_s = idle.as_secs(), "nothing passed through a tunnel for too long");
        }
    }
}

/// What passes through a tunnel, and when something did last.
#[derive(Debug)]
struct Traffic {
    opened: Instant,
    /// Milliseconds after `opened`.
    at_ms: AtomicU64,
    /// Bytes from the client.
    came: AtomicU64,
    /// Bytes that the client has taken.
    left: AtomicU64,
}

impl Traffic {
    fn new() -> Self {
        Self {
            opened: clock::monotonic(),
            at_ms: AtomicU64::new(0),
            came: AtomicU64::new(0),
            left: AtomicU64::new(0),
        }
    }

    fn moved(&self) {
        let ms = clock::monotonic().saturating_duration_since(self.opened).as_millis();
        self.at_ms
            .store(u64::try_from(ms).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Resolves when nothing has passed for so long. Cancel-safe.
    async fn none_for(&self, idle: Duration) {
        loop {
            let deadline = self.opened + Duration::from_millis(self.at_ms.load(Ordering::Relaxed)) + idle;
            if deadline <= clock::monotonic() {
                return;
            }
            sleep_until(deadline.into()).await;
        }
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum End {
    Client,
    Upstream,
}

/// One end of a tunnel. That it moves is known by what is read; that it could be written follows from it, or does not.
struct Watched<S> {
    stream: S,
    end: End,
    traffic: Arc<Traffic>,
}

impl<S> Watched<S> {
    fn new(stream: S, end: End, traffic: &Arc<Traffic>) -> Self {
        Self {
            stream,
            end,
            traffic: Arc::clone(traffic),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        self.traffic.moved();
        if self.end == End::Client {
            let read = (buf.filled().len() - before) as u64;
            self.traffic.came.fetch_add(read, Ordering::Relaxed);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, buf))?;
        if self.end == End::Client {
            self.traffic.left.fetch_add(written as u64, Ordering::Relaxed);
        }
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_answered_as_the_specification_says() {
        // RFC 6455, 1.3.
        assert_eq!(accept_of("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn each_key_is_another_and_only_its_own_answer_counts() {
        let (mut first, mut second) = (HeaderMap::new(), HeaderMap::new());
        let accept = ask(&mut first);
        ask(&mut second);
        let key = first[header::SEC_WEBSOCKET_KEY].to_str().unwrap();
        assert_ne!(first[header::SEC_WEBSOCKET_KEY], second[header::SEC_WEBSOCKET_KEY]);
        assert_eq!(Base64::decode_vec(key).unwrap().len(), 16);
        assert_eq!(first[header::SEC_WEBSOCKET_VERSION], "13");

        let mut answer = HeaderMap::new();
        assert!(!answers(&answer, &accept));
        answer.insert(SEC_WEBSOCKET_ACCEPT, accept.parse().unwrap());
        assert!(answers(&answer, &accept));
        answer.insert(SEC_WEBSOCKET_ACCEPT, accept.to_ascii_lowercase().parse().unwrap());
        assert!(!answers(&answer, &accept));
    }

    #[test]
    fn an_upstream_switches_to_what_it_was_asked_for_and_to_nothing_else() {
        let said = |protocols: &[&str]| {
            let lines = protocols
                .iter()
                .map(|protocol| (header::UPGRADE, protocol.parse().unwrap()));
            switches(&lines.collect())
        };
        assert!(said(&["websocket"]) && said(&["WebSocket"]));
        for other in [&[][..], &["h2c"], &["websocket, h2c"], &["websocket", "h2c"], &[""]] {
            assert!(!said(other), "{other:?}");
        }
    }
}
