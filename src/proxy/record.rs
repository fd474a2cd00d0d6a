//! What is remembered of a request until its last byte has left: its log line, and its place in the statistics.

use std::{fmt, net::IpAddr, sync::Arc, time::Instant};

use http::{HeaderValue, Method, StatusCode, uri::PathAndQuery};

use super::{body::AnswerError, pace::Pace};
use crate::{
    clock::{self, Timestamp},
    config,
    identity::UserId,
    problem::Code,
    session::streams::Why,
    telemetry::{Access, Lane, Side, Stats},
    upstream::{Upstream, body::BodyWatch},
};

/// Where a worker's records go.
#[derive(Debug)]
pub struct Recorder {
    pub lane: Lane,
    pub stats: Arc<Stats>,
}

/// One request's record; written once, at the latest when it is dropped: then nobody waited for the answer any more.
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
    pub upstream: Option<Arc<Upstream>>,
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
        self.written = true;
        let now = clock::monotonic();
        self.pace.request_ended(now);
        let took = now.saturating_duration_since(self.started);
        self.recorder.stats.request(self.status, took);
        let failure = self
            .failure
            .map(|(code, side)| (code.as_str(), side))
            // A HEAD request's answer has no body to be read.
            .or_else(|| (!whole && self.method != Method::HEAD).then_some(("CLIENT_LEFT", Side::Client)));
        self.recorder.lane.write(&Access {
            at: self.at,
            took,
            request_id: &self.request_id,
            client: self.client,
            method: self.method.as_str(),
            host: self.host.as_ref().and_then(|host| host.to_str().ok()).unwrap_or("-"),
            path: self.target.as_ref().map_or("-", PathAndQuery::path),
            status: self.status,
            bytes_in: self.body.as_ref().map_or(0, |body| body.bytes()),
            bytes_out,
            user: self.user,
            route: self.route.as_ref().map(|route| route.path.text.as_str()),
            upstream: self.upstream.as_ref().map(|upstream| upstream.name()),
            failure,
        });
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if !self.written {
            // As nginx has it: the client closed the connection before there was an answer.
            self.status = StatusCode::from_u16(499).unwrap_or(StatusCode::REQUEST_TIMEOUT);
            self.write(0, false);
        }
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Record({} {})", self.method, self.status)
    }
}
