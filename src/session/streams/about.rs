//! What a stream is, whose it is, and why it ends.

use std::fmt;

use http::{HeaderMap, Method, uri::PathAndQuery};

use crate::{
    clock::Timestamp,
    config::Era,
    identity::{Session, SessionId, UserId},
    secret::{KeyId, TokenHash},
};

/// What a stream is, for whoever judges whether it may go on.
pub struct About {
    /// `None` on a route, or for a person, without one: no revocation ends it.
    pub session: Option<Holder>,
    /// Which key of `auth.secret` its credential's signature was made with, if it had one.
    pub signed_by: Option<KeyId>,
    /// What its request said of the page that it came from, if it asked for a tunnel by a cookie: pages of others may not.
    pub page: Option<Box<HeaderMap>>,
    /// As routes match it: in lower case, without port.
    pub host: Box<str>,
    /// As it was matched, before any rewriting.
    pub path: PathAndQuery,
    pub method: Method,
    /// A tunnel, rather than an answer that goes on.
    pub upgrade: bool,
    pub since: Timestamp,
    /// Whose rules its request was judged by.
    pub era: Era,
}

/// Whose session a stream began in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Holder {
    pub hash: TokenHash,
    pub session: SessionId,
    pub user: UserId,
    pub expires_at: Timestamp,
}

impl Holder {
    pub fn new(hash: TokenHash, session: &Session) -> Self {
        Self {
            hash,
            session: session.id,
            user: session.identity.id,
            expires_at: session.expires_at,
        }
    }
}

/// Why a stream has to end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum Why {
    /// Its session was revoked, or its user banned or deleted.
    Revoked = 1,
    /// Its session's time is over.
    Expired = 2,
    /// The user may not take the route any more: a role was taken away.
    NotAllowed = 3,
    /// A new configuration has no such route, or demands more of it.
    Reloaded = 4,
    /// The gateway stops, and has waited for it.
    Stopping = 5,
}

impl Why {
    pub const ALL: [Self; 5] = [
        Self::Revoked,
        Self::Expired,
        Self::NotAllowed,
        Self::Reloaded,
        Self::Stopping,
    ];

    /// As metrics and logs have it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Revoked => "revoked",
            Self::Expired => "expired",
            Self::NotAllowed => "not-allowed",
            Self::Reloaded => "reloaded",
            Self::Stopping => "stopping",
        }
    }

    pub(super) fn of(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|why| *why as u8 == code)
    }
}

/// Without the query: it may hold what is nobody else's business.
impl fmt::Debug for About {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}{}", self.method, self.host, self.path.path())
    }
}
