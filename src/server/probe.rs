//! What is private here and is tried with any bytes by the fuzz targets (`fuzz/`), which see no more of this crate than
//! others do. The gateway has no use for it.

use std::net::SocketAddr;

use super::proxy_protocol::{self, HeaderError};

/// How the beginning of a connection is read: on whose behalf a proxy connects, if not on its own, and how many bytes say
/// so; `None` if more have to come.
pub fn proxy_header(bytes: &[u8]) -> Result<Option<(Option<SocketAddr>, usize)>, String> {
    proxy_protocol::judge(bytes).map_err(|error: HeaderError| error.to_string())
}
