//! How many sockets and files the process may have open.
//!
//! Systems begin with a limit of 1024, which programs that use `select` need, and let others raise it. A gateway that
//! leaves it there runs out of descriptors long before it is out of places for connections, and then it can't reach its
//! upstreams either: a thousand clients that do nothing would be the end of it.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::warn;

use crate::config::{Config, Target};

/// For listeners, logs, the database, event queues of threads.
const OTHERS: u64 = 256;

/// Raises the limit to what the system allows, and says so if that is less than the configuration may need.
pub(super) fn raise_limit(config: &Config) {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: maximum,
            maximum,
        },
    );
    // `None`: there is no limit.
    let limit = if raised.is_ok() { maximum } else { current };
    let needed = needed(config);
    if let Some(limit) = limit.filter(|limit| *limit < needed) {
        warn!(
            limit,
            needed,
            "the process may open {limit} sockets and files, and could need {needed} with as many connections as are \
             configured: raise the limit (LimitNOFILE=, ulimit -n), or lower server.max_connections"
        );
    }
}

/// What is open when every place is taken.
fn needed(config: &Config) -> u64 {
    let server = &config.server;
    let has_files = (config.routes.iter()).any(|route| matches!(route.target, Target::Files(_)));
    // A tunnel has two ends that are counted nowhere else.
    let clients = server
        .max_connections
        .saturating_add(server.max_tunnels.saturating_mul(2))
        .saturating_add(if has_files { server.max_open_files } else { 0 });
    let upstreams = config.upstreams.iter().map(|upstream| upstream.max_connections.get());
    let all = upstreams.fold(clients, usize::saturating_add);
    u64::try_from(all).unwrap_or(u64::MAX).saturating_add(OTHERS)
}
