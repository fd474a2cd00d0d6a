//! What is private here and is tried with any bytes by the fuzz targets (`fuzz/`), which see no more of this crate than
//! others do. The gateway has no use for it.

pub use super::proxy_protocol::Source;
use super::proxy_protocol::{self, HeaderError};

/// How the beginning of a connection is read: on whose behalf a proxy connects, and how many bytes say so; `None` if more
/// have to come.
pub fn proxy_header(bytes: &[u8]) -> Result<Option<(Source, usize)>, String> {
    proxy_protocol::judge(bytes).map_err(|error: HeaderError| error.to_string())
}
