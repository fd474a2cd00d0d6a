//! What is remembered of a request until its last byte has left: its log line, and its place in the statistics. A tunnel's
//! line is written when the tunnel has ended, with what passed through it.

use std::{
    fmt,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use http::{HeaderValue, Method, StatusCode, uri::PathAndQuery};

use super::{body::AnswerError, pace::Pace};
use crate::{
    clock::{self, Timestamp},
    config,
    identity::UserId,
    lifecycle::Stop,
    problem::Code,
    session::streams::Why,
    telemetry::{Access, Lane, Side, Stats},
    upstream::{Pool, body::BodyWatch},
};

/// Where a worker's records go.
#[derive(Debug)]
pub struct Recorder {
    pub lane: Lane,
    pub stats: Arc<Stats>,
    /// Whether what breaks off does so because of us.
    pub stop: Arc<Stop>,
}

/// One request's record; its line is written once, at the latest when it is dropped: then nobody waited for the answer any more.
pub struct Record {
    pub written: bool,
    pub recorder: Arc<Recorder>,
    pub pace: Arc<Pace>,
    pub started: Instant,
    pub at: Timestamp,
    pub request_id: HeaderValue,
    pub client: IpAddr,
    pub method: Method,
    /// `None` until it was judged.
    pub host: Option<HeaderValue>,
    /// As received, then as routed. The query never reaches the log.
    pub target: Option<PathAndQuery>,
    pub status: StatusCode,
    pub user: Option<UserId>,
    pub route: Option<Arc<config::Route>>,
    /// Of the upstream that it was forwarded to: the worker's own, where the upstream is everybody's.
    pub pool: Option<Arc<Pool>>,
    pub body: Option<Arc<BodyWatch>>,
    pub failure: Option<(Code, Side)>,
}

impl Record {
    /// Its answer broke off half way, through no fault of the client's.
    pub fn broke_off(&mut self, error: &AnswerError) {
        self.failure = Some(match error {
            AnswerError::Broken(_) => (Code::UpstreamFailed, Side::Upstream),
            AnswerError::Stalled(_) => (Code::UpstreamTimeout, Side::Upstream),
            AnswerError::File(_) => (Code::Internal, Side::Gateway),
        });
    }

    /// It was a stream, and may not go on.
    pub fn had_to_end(&mut self, why: Why) {
        self.failure = Some(match why {
            Why::Revoked | Why::Expired => (Code::Unauthorized, Side::Client),
            Why::NotAllowed => (Code::Forbidden, Side::Client),
            Why::Reloaded | Why::Stopping => (Code::Unavailable, Side::Gateway),
        });
    }

    /// Writes the line. `whole`: every byte of the answer was taken.
    pub fn write(&mut self, bytes_out: u64, whole: bool) {
        let took = self.ended();
        self.recorder.stats.request(self.status, took);
        if !whole && self.failure.is_none() {
            self.failure = self.cut_off();
        }
        // A HEAD request's answer has no body to be read.
        let client_left = !whole && self.method != Method::HEAD;
        let left = client_left.then_some(("CLIENT_LEFT", Side::Client));
        let bytes_in = self.body.as_ref().map_or(0, |body| body.bytes());
        self.line(took, bytes_in, bytes_out, left);
    }

    /// Its tunnel stands: as a request it is over. It counts as one that took so long; the line is written at the tunnel's
    /// end ([`Record::tunnel_ended`]).
    pub fn tunnel_opened(&self) {
        let took = clock::monotonic().saturating_duration_since(self.started);
        self.recorder.stats.request(self.status, took);
    }

    /// Writes the line of a tunnel.
    pub fn tunnel_ended(&mut self, bytes_in: u64, bytes_out: u64) {
        let took = self.ended();
        self.failure = self.failure.or_else(|| self.cut_off());
        self.line(took, bytes_in, bytes_out, None);
    }

    /// How long it took.
    fn ended(&mut self) -> Duration {
        self.written = true;
        if self.body.as_ref().is_some_and(|body| !body.finished()) {
            self.pace.leaves_unread();
        }
        let now = clock::monotonic();
        self.pace.request_ended(now);
        now.saturating_duration_since(self.started)
    }

    /// Why it broke off, if that was the hard stop.
    fn cut_off(&self) -> Option<(Code, Side)> {
        let stopped = self.recorder.stop.hard.is_cancelled();
        stopped.then_some((Code::Unavailable, Side::Gateway))
    }

    fn line(&self, took: Duration, bytes_in: u64, bytes_out: u64, left: Option<(&'static str, Side)>) {
        let failure = self.failure.map(|(code, side)| (code.as_str(), side)).or(left);
        self.recorder.lane.write(&Access {
            at: self.at,
            took,
            request_id: &self.request_id,
            client: self.client,
            method: self.method.as_str(),
            host: self.host.as_ref().and_then(|host| host.to_str().ok()).unwrap_or("-"),
            path: self.target.as_ref().map_or("-", PathAndQuery::path),
            status: self.status,
            bytes_in,
            bytes_out,
            user: self.user,
            route: self.route.as_ref().map(|route| route.path.text.as_str()),
            upstream: self.pool.as_ref().map(|pool| pool.upstream().name()),
            failure,
        });
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if !self.written {
            self.status = if self.cut_off().is_some() {
                StatusCode::SERVICE_UNAVAILABLE
            } else {
                // As nginx has it: the client closed the connection before there was an answer.
                StatusCode::from_u16(499).unwrap_or(StatusCode::REQUEST_TIMEOUT)
            };
            self.write(0, false);
        }
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Record({} {})", self.method, self.status)
    }
}
