//! Asks endpoints how they are: a task per endpoint for the whole gateway, however many workers it has.
//!
//! The first answer decides alone, so that a start with a dead endpoint does not begin with failures; after that it
//! takes a few in a row. Each question has a connection of its own: what is to be found out is whether one can be had.

use std::{
    io,
    ops::ControlFlow,
    sync::{Arc, Weak, atomic::Ordering},
};

use http::{HeaderValue, Method, StatusCode, header};
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use super::{Endpoint, Outgoing, Upstream, body::RequestBody, connector::Connected, dice::vary, http2, lean, tls::For};
use crate::{config::HealthCheck, lifecycle::Tasks};

const USER_AGENT: HeaderValue = HeaderValue::from_static(concat!("vestibule-health/", env!("CARGO_PKG_VERSION")));

/// What is made of answers: changes its mind only after a few.
#[derive(Debug, Default)]
struct Opinion {
    /// `None`: nothing was heard yet.
    healthy: Option<bool>,
    /// Answers in a row that speak against it.
    against: u32,
}

impl Opinion {
    /// The new opinion, if it changed.
    fn hear(&mut self, good: bool, check: &HealthCheck) -> Option<bool> {
        let Some(healthy) = self.healthy else {
            self.healthy = Some(good);
            return Some(good);
        };
        if healthy == good {
            self.against = 0;
            return None;
        }
        self.against += 1;
        let needed = if good { check.healthy } else { check.unhealthy };
        if self.against < needed {
            return None;
        }
        self.against = 0;
        self.healthy = Some(good);
        Some(good)
    }
}

/// Asks for as long as the upstream is there.
pub(super) async fn watch(upstream: Weak<Upstream>, endpoint: Arc<Endpoint>, check: HealthCheck, tasks: Tasks) {
    let mut opinion = Opinion::default();
    // Those of one upstream begin apart from each other; the first opinion is wanted soon.
    sleep(vary(check.interval / 20)).await;
    while ask(&upstream, &endpoint, &check, &tasks, &mut opinion)
        .await
        .is_continue()
    {
        sleep(vary(check.interval)).await;
    }
}

async fn ask(
    upstream: &Weak<Upstream>,
    endpoint: &Endpoint,
    check: &HealthCheck,
    tasks: &Tasks,
    opinion: &mut Opinion,
) -> ControlFlow<()> {
    let Some(upstream) = upstream.upgrade() else {
        return ControlFlow::Break(());
    };
    let failure = match timeout(check.timeout, upstream.ask(endpoint, check, tasks)).await {
        Ok(Ok(status)) if check.status.contains(&status.as_u16()) => None,
        Ok(Ok(status)) => Some(format!("it answered {}", status.as_u16())),
        Ok(Err(error)) => Some(error.to_string()),
        Err(_) => Some(format!("no answer within {:?}", check.timeout)),
    };
    let Some(healthy) = opinion.hear(failure.is_none(), check) else {
        return ControlFlow::Continue(());
    };
    if endpoint.standing.set_healthy(healthy) {
        upstream.note_health(endpoint, failure.as_deref());
    }
    ControlFlow::Continue(())
}

impl Upstream {
    async fn ask(&self, endpoint: &Endpoint, check: &HealthCheck, tasks: &Tasks) -> io::Result<StatusCode> {
        let mut outgoing = Outgoing::new(Method::GET, check.path.clone(), RequestBody::EMPTY);
        let host = match &check.host {
            Some(host) => host.clone(),
            None => HeaderValue::try_from(endpoint.settings.authority()).map_err(io::Error::other)?,
        };
        outgoing.put(&header::HOST, &host);
        outgoing.put(&header::USER_AGENT, &USER_AGENT);
        match self.connect(endpoint, For::Requests, tasks).await? {
            Connected::Http1 { stream, .. } => {
                outgoing.put(&header::CONNECTION, &HeaderValue::from_static("close"));
                let exchange = lean::Connection::new(stream).exchange(&mut outgoing, None).await;
                let answered = exchange.map_err(|failed| io::Error::other(failed.error))?;
                Ok(answered.response.status())
            }
            Connected::Http2(mut connection) => {
                let mut request = outgoing.take_request();
                http2::into_http2(&mut request, &endpoint.uri_scheme());
                let answer = connection.take().sender.send_request(request).await;
                Ok(answer.map_err(io::Error::other)?.status())
            }
        }
    }

    fn note_health(&self, endpoint: &Endpoint, failure: Option<&str>) {
        let (upstream, endpoint) = (self.name(), endpoint.name());
        if let Some(failure) = failure {
            warn!(upstream, endpoint, failure, "an endpoint is unhealthy");
        } else {
            self.all_out.store(false, Ordering::Relaxed);
            info!(upstream, endpoint, "an endpoint is healthy again");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn check() -> HealthCheck {
        HealthCheck {
            path: "/".parse().unwrap(),
            interval: Duration::from_secs(5),
            timeout: Duration::from_secs(2),
            healthy: 2,
            unhealthy: 3,
            status: 200..=399,
            host: None,
        }
    }

    #[test]
    fn the_first_answer_decides_and_later_ones_by_their_number() {
        let mut opinion = Opinion::default();
        let heard: Vec<_> = [false, true, true, false, false, true, false, false, false, true]
            .into_iter()
            .map(|good| opinion.hear(good, &check()))
            .collect();
        let (well, ill) = (Some(true), Some(false));
        assert_eq!(heard, [ill, None, well, None, None, None, None, None, ill, None]);
    }
}
