//! Who somebody is: the words that every other module uses for people and their sessions.

use std::{
    fmt,
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64},
    },
};

use uuid::Uuid;

mod names;
mod network;
mod said;

pub use self::{
    names::{IdentityNames, Rendered},
    network::Network,
    said::{Assertion, Assertions, Wording},
};
use crate::{clock::Timestamp, secret::random};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
        pub struct $name(pub Uuid);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }
    };
}

id! {
    /// `users.id`, a UUIDv7.
    UserId
}
id! {
    /// `user_sessions.id`, a UUIDv7: public, where the token is secret.
    SessionId
}

id! {
    /// `accounts.id`, a UUIDv7: one way in which a user may sign in.
    AccountId
}

/// A UUIDv7 (RFC 9562) of this moment: rows sort by when they were made.
pub fn new_id(now: Timestamp) -> Uuid {
    let millis = u64::try_from(now.micros() / 1000).unwrap_or(0);
    uuid::Builder::from_unix_timestamp_millis(millis, &random()).into_uuid()
}

/// Who it is: what upstreams are told about a user.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Identity {
    pub id: UserId,
    pub email: String,
    pub email_verified: bool,
    pub name: String,
    pub roles: Vec<String>,
}

/// How a user showed who they are; named as in RFC 8176 where that has a word.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum AuthMethod {
    Password,
    /// Opened a link that was mailed to them.
    Email,
    /// Was vouched for by a provider at which they signed in; RFC 8176 has no word for that.
    Provider,
}

impl AuthMethod {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Password => "pwd",
            Self::Email => "email",
            Self::Provider => "oauth",
        }
    }
}

/// What somebody signed in with, as its User-Agent says: families, no versions. It is the client's word, for people to
/// recognise their sessions by; nothing is decided by it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Device {
    pub browser: Option<String>,
    pub os: Option<String>,
    pub kind: DeviceKind,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum DeviceKind {
    Desktop,
    Mobile,
    Tablet,
    /// It says that it is a crawler.
    Bot,
    /// A program, a console, a television; or nobody knows.
    #[default]
    Other,
}

impl DeviceKind {
    pub const ALL: [Self; 5] = [Self::Desktop, Self::Mobile, Self::Tablet, Self::Bot, Self::Other];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Desktop => "desktop",
            Self::Mobile => "mobile",
            Self::Tablet => "tablet",
            Self::Bot => "bot",
            Self::Other => "other",
        }
    }

    /// A word that is not ours means what "other" does.
    pub fn of(word: &str) -> Self {
        let known = Self::ALL.into_iter().find(|kind| kind.as_str() == word);
        known.unwrap_or_default()
    }
}

/// Where an address is, as far as is known.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Place {
    /// ISO 3166-1, two letters.
    pub country: Option<String>,
    /// By its English name.
    pub city: Option<String>,
}

/// A live session, with all that the data path needs and nothing to compute.
#[derive(Debug)]
pub struct Session {
    pub id: SessionId,
    pub identity: Arc<Identity>,
    /// How the user proved who they are, in the words of RFC 8176.
    pub methods: Vec<String>,
    /// When the user signed in.
    pub created_at: Timestamp,
    pub expires_at: Timestamp,
    /// From then on a use slides the expiry, but for its last moments; `None` for one that is never extended (`rememberMe: false`).
    pub refresh_at: Option<Timestamp>,
    /// Somebody is sliding its expiry already.
    pub extending: AtomicBool,
    /// When it was last seen, as far as is known here: microseconds, see [`Timestamp::micros`].
    pub last_seen: AtomicI64,
    /// The identity headers as they leave for upstreams.
    pub headers: Rendered,
    /// What upstreams were told of it, signed.
    pub assertions: Assertions,
}
