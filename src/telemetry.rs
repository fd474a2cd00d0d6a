//! What the gateway says about itself: log lines, one line per request, and the numbers of its metrics.
//!
//! Events go to standard error through `tracing`, the access log to standard output, both by threads of their own: nobody
//! waits for a log. Neither ever holds a token, a cookie, a password, a mail's body or a query string.

mod access;
mod events;
mod histogram;
mod limit;
mod lines;
pub mod panics;
mod request_ids;
mod spread;
mod stats;

pub use self::{
    access::{Access, AccessLog, Lane, Side},
    events::{Events, events_dropped},
    histogram::Histogram,
    limit::Limit,
    request_ids::RequestIds,
    spread::Spread,
    stats::{DURATION_BUCKETS_US, Stats},
};
