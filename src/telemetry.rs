//! What the gateway says about itself: log lines, one line per request, and the numbers of its metrics.
//!
//! Events go to standard error through `tracing`, the access log to standard output. Neither ever holds a token, a
//! cookie, a password, a mail's body or a query string.

mod access;
mod histogram;
mod limit;
pub mod panics;
mod request_ids;
mod spread;
mod stats;

use std::io::IsTerminal;

use tracing_subscriber::{EnvFilter, Layer, layer::SubscriberExt, util::SubscriberInitExt};

pub use self::{
    access::{Access, AccessLog, Lane, Side},
    histogram::Histogram,
    limit::Limit,
    request_ids::RequestIds,
    spread::Spread,
    stats::{DURATION_BUCKETS_US, Stats},
};
use crate::config::{Log, LogFormat};

/// Sends events to standard error in the configured form. Only the first call in a process counts.
pub fn init(log: &Log) {
    let filter = EnvFilter::try_new(&log.level).unwrap_or_else(|_| EnvFilter::new("info"));
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let layer = match log.format {
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
        LogFormat::Text => lines.with_target(false).boxed(),
    };
    // A second gateway in the same process (as in tests) logs through the first one's.
    let _ = tracing_subscriber::registry()
        .with(layer.with_filter(filter))
        .try_init();
}
