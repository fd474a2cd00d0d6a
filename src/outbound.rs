//! Asks peers that others name: the one HTTP client for whoever is neither an upstream, nor Postgres, nor a mail server.
//!
//! Such a URL may come from a discovery document, so the gateway must not be talked into asking its own network (SSRF):
//! only https, and only public addresses, unless the operator allows more. `address.rs` says which are public,
//! `connector.rs` sees to it that no other is connected to. Redirects are not followed, since they would choose a new
//! address, and could carry a secret to it. An exchange has one time limit for all of it, an answer a limit in size.
//! There are no cookies, and no proxies from the environment.
//!
//! Clients can begin exchanges faster than a peer takes them, and go away while those last. So they are bounded: the peer
//! would turn away everybody here, and a peer that hangs would hold a socket and a look-up for each.
//!
//! What an error says goes to the log: it names whom was asked, never a query, a header or a body.

mod address;
mod connector;

use std::{error::Error, io, net::IpAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{
    HeaderValue, Request, Response, StatusCode, Uri,
    header::{ACCEPT_ENCODING, USER_AGENT},
};
use http_body::Body;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{self, Client},
    rt::{TokioExecutor, TokioTimer},
};
use rustls::{CertificateError, pki_types::CertificateDer};
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout, timeout_at},
};
use url::{Host, Url};

use self::connector::{Connector, ResolveError};

/// Sets of a large provider's keys have a few KiB, the largest profiles some ten.
const MAX_ANSWER_BYTES: usize = 256 * 1024;
const MAX_HEAD_BYTES: usize = 64 * 1024;
/// Shorter than the shortest time in common use after which servers close idle connections (5 s, Node's): a request
/// must not meet a connection that is being closed, as one that spends a code can't be sent again.
const IDLE_FOR: Duration = Duration::from_secs(4);
const MAX_IDLE_PER_HOST: usize = 8;
/// Exchanges at the same time: a peer that answers within half a second is asked more than a hundred times a second.
const AT_ONCE: usize = 64;
/// Those, and who waits for one of their places: for half of the time that the exchange may take.
const AT_MOST: usize = 512;
/// GitHub answers nobody without one.
const USER_AGENT_OF_OURS: HeaderValue = HeaderValue::from_static(concat!("vestibule/", env!("CARGO_PKG_VERSION")));

/// What may be asked, and how long it may take.
#[derive(Clone, Debug)]
pub struct Rules {
    /// http as well as https.
    pub allow_insecure: bool,
    /// Addresses that are not public as well.
    pub allow_private: bool,
    /// For an exchange, from looking up the name to the last byte of the answer.
    pub timeout: Duration,
    /// Authorities that are trusted beside the system's.
    pub ca: Option<Vec<CertificateDer<'static>>>,
}

/// Keeps a few connections. A clone shares them.
#[derive(Clone, Debug)]
pub struct Outbound {
    rules: Rules,
    client: Client<Connector, Full<Bytes>>,
    places: Arc<Places>,
}

#[derive(Debug)]
struct Places {
    at_once: Semaphore,
    at_most: Semaphore,
}

impl Default for Places {
    fn default() -> Self {
        Self {
            at_once: Semaphore::new(AT_ONCE),
            at_most: Semaphore::new(AT_MOST),
        }
    }
}

/// Rules that can't be kept.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("`ca` holds a certificate that can't be an authority's")]
    Authority(#[source] rustls::Error),
    #[error("could not set up TLS")]
    Tls(#[source] rustls::Error),
}

/// Why there is no answer. `asked` is the URL, but for what may be secret in it.
#[derive(Debug, thiserror::Error)]
pub enum OutboundError {
    #[error("what should be asked is no URL")]
    NotAUrl,
    #[error("only https can be asked, not {scheme}")]
    Scheme { scheme: String },
    #[error("{asked} would be asked without encryption, which only `allow_insecure = true` permits")]
    Insecure { asked: String },
    #[error("{asked} must not have a user name or a password in it")]
    Userinfo { asked: String },
    #[error("{asked} has a port that nobody can listen on")]
    Port { asked: String },
    #[error("{asked} leads to {address}, which is not public: only `allow_private = true` permits asking it")]
    NotPublic { asked: String, address: IpAddr },
    #[error(
        "could not connect to {asked}: no authority that is trusted here signed its certificate; if it is to be \
         trusted, name a file with the authority's in `ca`"
    )]
    Untrusted {
        asked: String,
        #[source]
        source: legacy::Error,
    },
    #[error("could not connect to {asked}")]
    Connect {
        asked: String,
        #[source]
        source: legacy::Error,
    },
    #[error("{asked} did not answer in full within {after:?}")]
    Timeout { asked: String, after: Duration },
    #[error("too many exchanges with the peer of {asked} are under way")]
    Busy { asked: String },
    #[error("the exchange with {asked} broke off")]
    Broken {
        asked: String,
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    #[error(
        "{asked} answered {status}: redirects are not followed, the address that they lead to must be asked itself"
    )]
    Redirected { asked: String, status: StatusCode },
    #[error("{asked} answered with more than {MAX_ANSWER_BYTES} bytes")]
    TooLarge { asked: String },
}

impl Outbound {
    /// Reads the system's certificates and those of `rules`.
    pub fn new(rules: Rules) -> Result<Self, StartError> {
        let connector = Connector::new(&rules)?;
        // A request is sent again only if not a byte of it was sent before: on a pooled connection that turned out to
        // be closed.
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_FOR)
            .pool_max_idle_per_host(MAX_IDLE_PER_HOST)
            .http1_max_buf_size(MAX_HEAD_BYTES)
            .retry_canceled_requests(true)
            .build(connector);
        let places = Arc::default();
        Ok(Self { rules, client, places })
    }

    /// The same with places of its own: for what is asked once for everybody, and must not wait for what each asks.
    #[must_use]
    pub fn beside(&self) -> Self {
        Self {
            places: Arc::default(),
            ..self.clone()
        }
    }

    /// Whether `url` may be asked, as far as that can be told without looking up its name.
    pub fn check(&self, url: &Url) -> Result<(), OutboundError> {
        let asked = || without_secrets(url);
        match url.scheme() {
            "https" => {}
            "http" if self.rules.allow_insecure => {}
            "http" => return Err(OutboundError::Insecure { asked: asked() }),
            other => {
                let scheme = other.to_owned();
                return Err(OutboundError::Scheme { scheme });
            }
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(OutboundError::Userinfo { asked: asked() });
        }
        if url.port() == Some(0) {
            return Err(OutboundError::Port { asked: asked() });
        }
        let literal = match url.host() {
            Some(Host::Ipv4(address)) => IpAddr::from(address),
            Some(Host::Ipv6(address)) => IpAddr::from(address),
            Some(Host::Domain(_)) => return Ok(()),
            None => return Err(OutboundError::NotAUrl),
        };
        if self.rules.allow_private || address::is_public(literal) {
            Ok(())
        } else {
            let (asked, address) = (asked(), literal);
            Err(OutboundError::NotPublic { asked, address })
        }
    }

    /// Sends `request` and waits for all of its answer, whatever its status says, but for a redirect.
    ///
    /// Cancel-safe: the exchange ends with the future.
    pub async fn send(&self, request: Request<Vec<u8>>) -> Result<Response<Vec<u8>>, OutboundError> {
        let (mut parts, body) = request.into_parts();
        // A host has many spellings (`127.1`, `0x7f000001`): what is judged must be what is connected to, so the one
        // that the URL standard arrives at is used for both.
        let url = Url::parse(&parts.uri.to_string()).map_err(|_| OutboundError::NotAUrl)?;
        self.check(&url)?;
        parts.uri = Uri::try_from(url.as_str()).map_err(|_| OutboundError::NotAUrl)?;
        parts.headers.entry(USER_AGENT).or_insert(USER_AGENT_OF_OURS);
        // Nothing here would decode it.
        parts.headers.remove(ACCEPT_ENCODING);

        let (asked, begun) = (without_secrets(&url), Instant::now());
        let Ok(_place) = self.places.at_most.try_acquire() else {
            return Err(OutboundError::Busy { asked });
        };
        let after = self.rules.timeout;
        // What is begun has time to end: its answer may be the only one, as to a code that is good once.
        let Ok(_place) = timeout(after / 2, self.places.at_once.acquire()).await else {
            return Err(OutboundError::Busy { asked });
        };
        let exchange = self.exchange(Request::from_parts(parts, Full::from(body)), &asked);
        let answer = timeout_at(begun + after, exchange).await;
        answer.unwrap_or_else(|_| Err(OutboundError::Timeout { asked, after }))
    }

    async fn exchange(&self, request: Request<Full<Bytes>>, asked: &str) -> Result<Response<Vec<u8>>, OutboundError> {
        let answer = self.client.request(request).await;
        let (parts, body) = answer.map_err(|error| unanswered(asked, error))?.into_parts();
        if parts.status.is_redirection() {
            let (asked, status) = (asked.to_owned(), parts.status);
            return Err(OutboundError::Redirected { asked, status });
        }
        Ok(Response::from_parts(parts, collected(body, asked).await?))
    }
}

/// The whole body, if it keeps to the limit. One that announces more is not even begun.
async fn collected(body: Incoming, asked: &str) -> Result<Vec<u8>, OutboundError> {
    let too_large = || OutboundError::TooLarge {
        asked: asked.to_owned(),
    };
    if body.size_hint().lower() > MAX_ANSWER_BYTES as u64 {
        return Err(too_large());
    }
    match Limited::new(body, MAX_ANSWER_BYTES).collect().await {
        Ok(collected) => Ok(collected.to_bytes().into()),
        Err(error) if error.is::<LengthLimitError>() => Err(too_large()),
        Err(source) => Err(OutboundError::Broken {
            asked: asked.to_owned(),
            source,
        }),
    }
}

/// What became of a request that has no answer.
fn unanswered(asked: &str, error: legacy::Error) -> OutboundError {
    let asked = asked.to_owned();
    if let Some(ResolveError::NotPublic(address)) = cause(&error) {
        let address = *address;
        return OutboundError::NotPublic { asked, address };
    }
    if let Some(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)) = cause(&error) {
        return OutboundError::Untrusted { asked, source: error };
    }
    if error.is_connect() {
        return OutboundError::Connect { asked, source: error };
    }
    OutboundError::Broken {
        asked,
        source: error.into(),
    }
}

/// The first error of this type among `error` and its causes.
fn cause<'e, T: Error + 'static>(error: &'e (dyn Error + 'static)) -> Option<&'e T> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = match error.downcast_ref::<io::Error>() {
            // Its `source` leaves out the error that it holds.
            Some(error) => error.get_ref().map(|held| held as &(dyn Error + 'static)),
            None => error.source(),
        };
    }
    None
}

/// As it may stand in a log: scheme, host, port and path.
fn without_secrets(url: &Url) -> String {
    format!("{}{}", url.origin().ascii_serialization(), url.path())
}

#[cfg(test)]
mod tests;
