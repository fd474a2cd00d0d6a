//! Why a proxied request failed, on whose side, and what the client may learn of it.

use std::io;

use http::header;

use super::rate::TooOften;
use crate::{
    policy::{Denied, Unmet, client::HostError, csrf::ForeignOrigin, path::PathError, routes::NoRoute},
    problem::{Code, Problem},
    session::LookupError,
    telemetry::Side,
    upstream::{UpstreamError, body::BodyError},
};

#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    #[error("the path was refused")]
    Path(#[from] PathError),
    #[error("the host was refused")]
    Host(#[from] HostError),
    #[error("a header field was refused")]
    Header(#[from] BadHeader),
    #[error("no route")]
    Route(#[from] NoRoute),
    #[error("an expectation other than 100-continue")]
    Expectation,
    #[error("more than one transfer coding, or another than chunked")]
    TransferCoding,
    #[error("the origin was refused")]
    Origin(#[from] ForeignOrigin),
    #[error("another origin's page asked whether it may send a request")]
    Preflight,
    #[error("the session could not be looked up")]
    Lookup(#[from] LookupError),
    #[error("access was refused")]
    Denied(#[from] Denied),
    #[error("the request body was refused")]
    Body(#[from] BodyError),
    #[error("the upstream failed")]
    Upstream(#[from] UpstreamError),
    /// It asked for something in an answer, in a word that has no meaning.
    #[error("upstream {upstream} said something in {field} that means nothing")]
    Asked { upstream: String, field: &'static str },
    /// An upstream asked for it: its answer must not pretend.
    #[error("a session that an upstream wanted to end could not be ended")]
    NotSignedOut(#[source] LookupError),
    #[error("there is no assertion for the upstream")]
    NoAssertion,
    #[error("the route has no such file")]
    NoFile,
    #[error("a file could not be read")]
    File(#[source] io::Error),
    #[error("the route takes no upgrades")]
    UpgradeRefused,
    #[error("the route's rate limit was reached")]
    TooOften(#[from] TooOften),
    #[error("upstream {upstream} agreed to another protocol than was asked for")]
    Handshake { upstream: String },
    #[error("what was asked for as a tunnel is none")]
    NoTunnel,
    #[error("what was asked for may not go on")]
    CutShort,
    #[error("all places for tunnels are taken")]
    TooManyTunnels,
    #[error("all places for open files are taken")]
    TooManyFiles,
    #[error("a task panicked or was stopped")]
    Internal,
}

/// A field that a message of its version must not have.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BadHeader {
    #[error("a value begins or ends with a blank")]
    Blank,
    #[error("the scheme is neither http nor https")]
    Scheme,
}

/// After so many seconds a busy upstream may have room again.
const BUSY_RETRY_SECS: u32 = 1;
/// Postgres is probed more often than that.
const UNAVAILABLE_RETRY_SECS: u32 = 2;

impl ProxyError {
    pub const fn side(&self) -> Side {
        match self {
            Self::Path(_)
            | Self::Host(_)
            | Self::Header(_)
            | Self::Route(_)
            | Self::Expectation
            | Self::TransferCoding
            | Self::Origin(_)
            | Self::Preflight
            | Self::Denied(_)
            | Self::NoFile
            | Self::UpgradeRefused
            | Self::TooOften(_)
            | Self::NoTunnel
            | Self::Lookup(LookupError::TooManyUnknown(_))
            | Self::Body(_) => Side::Client,
            Self::Upstream(_) | Self::Handshake { .. } | Self::Asked { .. } => Side::Upstream,
            Self::Lookup(_)
            | Self::NotSignedOut(_)
            | Self::NoAssertion
            | Self::File(_)
            | Self::CutShort
            | Self::TooManyTunnels
            | Self::TooManyFiles
            | Self::Internal => Side::Gateway,
        }
    }

    pub const fn code(&self) -> Code {
        match self {
            Self::Path(_) | Self::Route(NoRoute::Unfit(_)) => Code::BadPath,
            Self::Host(HostError::Misdirected | HostError::HandshakeOver) => Code::MisdirectedRequest,
            Self::Host(_) => Code::BadHost,
            Self::Header(_) => Code::BadHeader,
            Self::Route(NoRoute::Path) | Self::NoFile => Code::NotFound,
            Self::Route(NoRoute::Method { .. }) => Code::MethodNotAllowed,
            Self::Route(NoRoute::UnknownMethod) | Self::NoTunnel => Code::MethodNotImplemented,
            Self::Expectation => Code::ExpectationFailed,
            Self::TransferCoding => Code::UnsupportedCoding,
            Self::Origin(_) => Code::CrossOrigin,
            Self::Preflight => Code::InvalidOrigin,
            Self::TooOften(_) | Self::Lookup(LookupError::TooManyUnknown(_)) => Code::TooManyRequests,
            Self::Lookup(_) | Self::NotSignedOut(_) | Self::NoAssertion | Self::CutShort => Code::Unavailable,
            Self::Denied(Denied::SignInNeeded) => Code::Unauthorized,
            Self::Denied(Denied::NotAllowed(Unmet::Role)) => Code::Forbidden,
            Self::Denied(Denied::NotAllowed(Unmet::VerifiedEmail)) => Code::EmailVerificationNeeded,
            Self::Denied(Denied::NotAllowed(Unmet::Fresh)) => Code::SessionNotFresh,
            Self::Body(BodyError::TooLarge) => Code::BodyTooLarge,
            Self::Body(BodyError::TooSlow) => Code::BodyTimeout,
            Self::Body(BodyError::Broken) => Code::BadBody,
            Self::Upstream(UpstreamError::Connect { .. }) => Code::UpstreamUnreachable,
            Self::Upstream(UpstreamError::Busy { .. }) => Code::UpstreamBusy,
            Self::Upstream(UpstreamError::HeadTimeout { .. }) => Code::UpstreamTimeout,
            Self::Asked { .. }
            | Self::Upstream(
                UpstreamError::Broken { .. } | UpstreamError::Switched { .. } | UpstreamError::NoUpgrade { .. },
            )
            | Self::Handshake { .. } => Code::UpstreamFailed,
            Self::TooManyTunnels | Self::TooManyFiles => Code::Busy,
            Self::UpgradeRefused => Code::UpgradeRefused,
            Self::File(_) | Self::Internal => Code::Internal,
        }
    }

    pub fn into_problem(self) -> Problem {
        let problem = Problem::new(self.code());
        match self {
            Self::Route(NoRoute::Method { allow }) => problem.with_header(header::ALLOW, allow),
            Self::TooOften(TooOften { wait_secs }) => problem.retry_after(wait_secs),
            Self::Lookup(LookupError::TooManyUnknown(wait)) => {
                let secs = u32::try_from(wait.as_secs()).unwrap_or(u32::MAX);
                problem.retry_after(secs.saturating_add(1))
            }
            Self::Lookup(_) | Self::NotSignedOut(_) | Self::NoAssertion | Self::CutShort => {
                problem.retry_after(UNAVAILABLE_RETRY_SECS)
            }
            Self::TooManyTunnels | Self::TooManyFiles | Self::Upstream(UpstreamError::Busy { .. }) => {
                problem.retry_after(BUSY_RETRY_SECS)
            }
            _ => problem,
        }
    }
}
