//! The limits of the data path that somebody may meet, for metrics.

/// A limit, named as its key is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Limit {
    MaxConnections,
    MaxTunnels,
    MaxOpenFiles,
    MaxHeaderBytes,
    MaxBody,
    HeaderTimeout,
    /// Bodies that pause, or are too slow, and answers that are not taken.
    BodyTimeout,
    MaxResets,
    MaxIdleFrames,
    /// What the library that speaks HTTP/2 refuses by itself: blocks of fields that don't end, resets of what nobody has
    /// looked at, bodies in crumbs.
    Http2,
}

impl Limit {
    /// In the order of their numbers.
    pub const ALL: [Self; 10] = [
        Self::MaxConnections,
        Self::MaxTunnels,
        Self::MaxOpenFiles,
        Self::MaxHeaderBytes,
        Self::MaxBody,
        Self::HeaderTimeout,
        Self::BodyTimeout,
        Self::MaxResets,
        Self::MaxIdleFrames,
        Self::Http2,
    ];

    /// How metrics call it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::MaxConnections => "server.max_connections",
            Self::MaxTunnels => "server.max_tunnels",
            Self::MaxOpenFiles => "server.max_open_files",
            Self::MaxHeaderBytes => "server.max_header_bytes",
            Self::MaxBody => "server.max_body",
            Self::HeaderTimeout => "server.header_timeout",
            Self::BodyTimeout => "server.body_timeout",
            Self::MaxResets => "server.max_resets",
            Self::MaxIdleFrames => "server.max_idle_frames",
            Self::Http2 => "http2",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_a_number_of_its_own() {
        for (at, limit) in Limit::ALL.into_iter().enumerate() {
            assert_eq!(limit as usize, at);
        }
    }
}
