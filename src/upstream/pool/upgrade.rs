//! Asking an upstream to switch protocols: on a connection of its own, outside of the pool, always HTTP/1.1.
//!
//! An endpoint is judged by it as by any request: a head that was answered is what counts, whatever becomes of the tunnel.
//! Where it could not connect another endpoint is asked; where it was heard, none.

use std::{sync::Arc, time::Duration};

use http::{Request, Response};
use hyper::{body::Incoming, client::conn::http1::SendRequest};
use tokio::time::timeout;

use super::{Place, Pool, is_the_clients};
use crate::fields;
use crate::upstream::{
    UpstreamError,
    balance::Tried,
    body::{BodyWatch, RequestBody},
    connector::{self, Connected},
    tls::For,
};

/// The answer to who asked for an upgrade, and what has to be held while there is a tunnel, or a body that says why not.
type Asked = (Response<Incoming>, (SendRequest<RequestBody>, Place));

impl Pool {
    /// Sends `request` and waits for the head of the answer: `head_timeout` for a connection, however many endpoints there
    /// are to try, and as long for the answer. The `body` of a request that has one is its client's to send: while it is
    /// under way, the endpoint is not to blame. Cancel-safe: dropping it closes the connection.
    pub async fn upgrade(
        self: &Arc<Self>,
        request: Request<RequestBody>,
        body: Option<&BodyWatch>,
        head_timeout: Duration,
    ) -> Result<Asked, UpstreamError> {
        self.upstream.admit().await?;
        let mut place = Place::new(self);
        let late = || UpstreamError::HeadTimeout {
            upstream: self.upstream.name().to_owned(),
            after: head_timeout,
        };
        let Ok(connected) = timeout(head_timeout, self.connect_for_upgrade(&mut place)).await else {
            self.upstream.failed(place.endpoint);
            return Err(late());
        };
        let mut sender = connected?;
        let at = place.endpoint;
        match timeout(head_timeout, sender.send_request(request)).await {
            Ok(Ok(mut response)) => {
                fields::join_lengths(response.headers_mut());
                self.upstream.answered(at, response.status());
                Ok((response, (sender, place)))
            }
            Ok(Err(error)) => {
                let error = error.into();
                if !is_the_clients(&error) {
                    self.upstream.failed(at);
                }
                Err(self.broken(error))
            }
            Err(_) => {
                if body.is_none_or(BodyWatch::finished) {
                    self.upstream.failed(at);
                }
                Err(late())
            }
        }
    }

    async fn connect_for_upgrade(&self, place: &mut Place) -> Result<SendRequest<RequestBody>, UpstreamError> {
        let mut tried = Tried::default();
        let mut failure = None;
        while let Some(at) = self.upstream.choose(&self.dice, tried) {
            tried.add(at);
            let Some(endpoint) = self.endpoint(at).filter(|endpoint| endpoint.can_upgrade()) else {
                continue;
            };
            place.move_to(at);
            let connected = match self.upstream.connect(endpoint, For::Upgrade, &self.tasks).await {
                Ok(Connected::Http1 { stream, .. }) => connector::for_upgrade(stream, &self.tasks).await,
                Ok(Connected::Http2(_)) => continue,
                Err(source) => {
                    self.upstream.failed(at);
                    failure = Some(source);
                    continue;
                }
            };
            return connected.map_err(|error| self.broken(error.into()));
        }
        Err(match failure {
            Some(source) => self.unreachable(source),
            None => UpstreamError::NoUpgrade {
                upstream: self.upstream.name().to_owned(),
            },
        })
    }
}
