//! Sends a request to an upstream: which endpoint, over which connection, for how long, and whether to try again.
//!
//! An [`Upstream`] is shared by the whole gateway: what it is, and how its endpoints do. A [`Pool`] belongs to one
//! worker, so that a connection never moves between threads.
//!
//! | what | where |
//! |---|---|
//! | which endpoint | `balance.rs`; who is out: `health.rs` (asked), `outliers.rs` (seen), `standing.rs` (both) |
//! | over which connection, and again | `pool.rs`, `retry.rs` |
//! | how a connection is made | `connector.rs`; names: `addresses.rs`; several addresses: `dial.rs`; `tls.rs` |
//! | one request at a time on a connection | `lean.rs`; many: `http2.rs`; what comes back: `answer.rs` |
//! | how many at once, who waits | `limit.rs` |

mod addresses;
pub mod answer;
mod balance;
pub mod body;
mod connector;
mod dial;
mod dice;
mod endpoint;
mod health;
mod http2;
mod lean;
mod limit;
mod outgoing;
mod outliers;
mod pool;
#[doc(hidden)]
pub mod probe;
mod retry;
mod standing;
mod stream;
#[cfg(test)]
mod testing;
mod tls;

use std::{
    fmt, io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio_util::sync::{CancellationToken, DropGuard};

pub use self::{
    endpoint::Endpoint,
    lean::{LeanError, Told},
    outgoing::Outgoing,
    pool::{Place, Pool},
    tls::TlsError,
};
use self::{
    limit::{Full, Limit},
    tls::Tls,
};
use crate::{config, lifecycle::Tasks};

/// A named application and its endpoints. One whose settings did not change outlives a reload, with all it knows.
pub struct Upstream {
    pub settings: config::Upstream,
    endpoints: Box<[Arc<Endpoint>]>,
    limit: Limit,
    tls: Option<Tls>,
    /// Held while it is judged whether one more endpoint may be ejected.
    ejecting: Mutex<()>,
    /// It was said that no endpoint is healthy.
    all_out: AtomicBool,
    retries: AtomicU64,
    /// Ends what runs beside requests, at the latest when the last who uses it is gone.
    stop: CancellationToken,
    _stop_at_last: DropGuard,
}

#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    #[error("could not connect to upstream {upstream}")]
    Connect {
        upstream: String,
        #[source]
        source: io::Error,
    },
    #[error("upstream {upstream} has all the requests in flight that it may have, and no place came free")]
    Busy { upstream: String },
    #[error("upstream {upstream} sent no response head within {after:?}")]
    HeadTimeout { upstream: String, after: Duration },
    #[error("upstream {upstream} switched protocols without being asked")]
    Switched { upstream: String },
    #[error("upstream {upstream} speaks only HTTP/2, in which it can't be asked to switch protocols")]
    NoUpgrade { upstream: String },
    #[error("the connection to upstream {upstream} failed before a response")]
    Broken {
        upstream: String,
        #[source]
        source: WireError,
    },
}

/// What went wrong on a connection, by who was speaking on it.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// HTTP/1.1.
    #[error(transparent)]
    Lean(#[from] LeanError),
    /// HTTP/2, or a connection for an upgrade.
    #[error(transparent)]
    Hyper(#[from] hyper::Error),
}

impl Upstream {
    /// Nothing runs yet: see [`Upstream::start`].
    pub fn new(settings: config::Upstream) -> Result<Self, TlsError> {
        let stop = CancellationToken::new();
        Ok(Self {
            endpoints: settings
                .endpoints
                .iter()
                .map(|endpoint| Arc::new(Endpoint::new(endpoint.clone(), settings.protocol)))
                .collect(),
            limit: Limit::new(settings.max_connections.get(), settings.max_queue),
            tls: Tls::of(&settings)?,
            ejecting: Mutex::default(),
            all_out: AtomicBool::new(false),
            retries: AtomicU64::new(0),
            _stop_at_last: stop.clone().drop_guard(),
            stop,
            settings,
        })
    }

    /// Begins what runs beside requests: health checks, and looking names up again. `cold` must be of the runtime for
    /// cold work. It ends at the soft stop, when the upstream is retired, or when nobody uses it any more.
    pub fn start(self: &Arc<Self>, cold: &Tasks) {
        let beside = |name, task: std::pin::Pin<Box<dyn Future<Output = ()> + Send>>| {
            let (retired, stopping) = (self.stop.clone(), cold.stop.soft.clone());
            cold.spawn(name, async move {
                tokio::select! {
                    () = task => {}
                    () = retired.cancelled() => {}
                    () = stopping.cancelled() => {}
                }
            });
        };
        for endpoint in &self.endpoints {
            if matches!(endpoint.settings.at, config::At::Name { .. }) {
                let fresh = Arc::clone(endpoint).keep_addresses_fresh(self.settings.clone());
                beside("upstream names", Box::pin(fresh));
            }
            if let Some(check) = &self.settings.health_check {
                let watching = health::watch(Arc::downgrade(self), Arc::clone(endpoint), check.clone(), cold.clone());
                beside("upstream health", Box::pin(watching));
            }
        }
    }

    /// The configuration has it no more. Requests in flight end well; nothing is asked or looked up for it any more.
    pub fn retire(&self) {
        self.stop.cancel();
    }

    pub fn name(&self) -> &str {
        &self.settings.name
    }

    /// In the order of the configuration.
    pub fn endpoints(&self) -> &[Arc<Endpoint>] {
        &self.endpoints
    }

    /// Requests and tunnels at this moment.
    pub fn in_flight(&self) -> usize {
        self.limit.taken()
    }

    /// Requests that wait for a place at this moment.
    pub fn waiting(&self) -> usize {
        self.limit.waiting()
    }

    /// Requests for which there was no place.
    pub fn refused(&self) -> u64 {
        self.limit.refused()
    }

    /// Requests that were sent once more, or to another endpoint than first chosen.
    pub fn retries(&self) -> u64 {
        self.retries.load(Ordering::Relaxed)
    }

    /// A place for one more request in flight; to be given back.
    async fn admit(&self) -> Result<(), UpstreamError> {
        if self.limit.try_take() {
            return Ok(());
        }
        let waited = self.limit.take_within(self.settings.queue_timeout).await;
        waited.map_err(|Full| UpstreamError::Busy {
            upstream: self.name().to_owned(),
        })
    }
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Upstream({})", self.name())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
