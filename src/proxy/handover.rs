//! What an upstream is given to know a person by, besides the identity headers: a signed assertion, and whatever its route
//! makes of the person's credentials.
//!
//! Usually nothing: our cookie is cut out, and an `Authorization` that carries our token is dropped. On a route that hands
//! over the session token or the assertion, `Authorization` is ours alone: what a client wrote there is dropped, whoever it
//! is and whether or not anybody is signed in. A request that is to carry an assertion does not leave without one.

use http::{HeaderName, HeaderValue};

use super::{Inbound, Proxy, SignedIn, bearer_is_ours, error::ProxyError};
use crate::{
    config::{Credentials, Route},
    identity::Wording,
    live::Snapshot,
    session::credential::{Found, Ownership},
};

pub(super) const ASSERTION: HeaderName = HeaderName::from_static("x-vestibule-assertion");

/// What [`super::headers::prepare`] does with credentials.
pub struct Handover {
    /// In [`ASSERTION`].
    pub(super) assertion: Option<HeaderValue>,
    /// In `Authorization`.
    pub(super) authorization: Option<HeaderValue>,
    /// The client's own `Authorization` goes.
    pub(super) drops_authorization: bool,
    /// Our cookies go.
    pub(super) cuts_cookies: bool,
}

crate::secret::unprinted!(Handover);

impl Handover {
    /// What `explain` shows of it, with words in place of what only a gateway can say.
    pub fn shown(route: &Route, send: bool, signed_in: bool) -> Self {
        const MADE: HeaderValue = HeaderValue::from_static("made-by-the-gateway");
        let hands_over = match route.credentials {
            Credentials::Bearer => Some(HeaderValue::from_static("Bearer the-session-token")),
            Credentials::Assertion => Some(HeaderValue::from_static("Bearer made-by-the-gateway")),
            Credentials::Strip | Credentials::Keep => None,
        };
        Self {
            assertion: (send && signed_in).then_some(MADE),
            drops_authorization: hands_over.is_some(),
            authorization: hands_over.filter(|_| signed_in),
            cuts_cookies: route.credentials != Credentials::Keep,
        }
    }
}

/// What a request shows, and for whom it counts.
pub(super) struct Presented<'s> {
    found: &'s Found,
    signed_in: Option<&'s SignedIn>,
    /// A browser asks whether a page may ask, for nobody.
    is_preflight: bool,
}

impl<'s> Presented<'s> {
    pub(super) const fn new(found: &'s Found, signed_in: Option<&'s SignedIn>, is_preflight: bool) -> Self {
        Self {
            found,
            signed_in,
            is_preflight,
        }
    }
}

/// Decides for one request.
pub(super) async fn decide(
    proxy: &Proxy,
    live: &Snapshot,
    route: &Route,
    upstream: &str,
    &Presented {
        found,
        signed_in,
        is_preflight,
    }: &Presented<'_>,
    inbound: &Inbound,
) -> Result<Handover, ProxyError> {
    let assertion = |wording| match signed_in {
        None => Ok(None),
        Some(SignedIn { session, .. }) => {
            let assertion = proxy.sessions.mint().assertion(session, upstream, wording, inbound.now);
            assertion.map(Some).ok_or(ProxyError::NoAssertion)
        }
    };
    let mut handover = Handover {
        assertion: if live.config.identity.assertion.send {
            assertion(Wording::Token)?
        } else {
            None
        },
        authorization: None,
        drops_authorization: true,
        cuts_cookies: true,
    };
    match route.credentials {
        Credentials::Strip => {
            handover.drops_authorization = match found.authorization() {
                Ownership::Ours => true,
                // In a box: few requests need it, and the future of each has room for what it awaits.
                Ownership::Unknown => Box::pin(bearer_is_ours(&proxy.sessions, found, signed_in, inbound)).await,
                Ownership::Theirs => false,
            };
        }
        Credentials::Bearer => {
            handover.authorization = signed_in.and_then(|SignedIn { credential, .. }| {
                let token = live.cookies.token(&inbound.headers, credential.kind)?;
                let mut value = HeaderValue::try_from(format!("Bearer {}", token.as_str())).ok()?;
                value.set_sensitive(true);
                Some(value)
            });
        }
        Credentials::Assertion => handover.authorization = assertion(Wording::Bearer)?,
        // Browsers show nothing then. Somebody else's would not be judged by anybody.
        Credentials::Keep if is_preflight => {}
        Credentials::Keep => {
            handover.drops_authorization = false;
            handover.cuts_cookies = false;
        }
    }
    Ok(handover)
}
