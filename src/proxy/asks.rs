//! What an upstream may ask of the gateway, in fields of its answer that no client ever sees.
//!
//! - `X-Vestibule-Sign-Out: session` or `user` ends the session that the request was made in, or all of its user's: before
//!   the client gets the answer, which takes its cookies back. If that can't be done the client gets 503 instead of an
//!   answer that would pretend.
//! - `X-Vestibule-Step-Up: fresh` on a 401 or 403 sends the person to sign in again: a navigation to the sign-in page,
//!   everything else gets 403 `SESSION_NOT_FRESH`, as on a route that demands it. `two-factor` is understood, but there are no
//!   second factors: the upstream's own answer stands.
//!
//! An upstream can ask about nobody but who made the request. What it says in any other word is no answer: 502. Where nobody
//! is signed in there is nothing to end; and an answer that opens a tunnel asks for nothing.

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use super::{Inbound, Proxy, SignedIn, error::ProxyError, rewrite};
use crate::{
    policy::{Denied, Unmet},
    session::{
        credential::{Credential, Kind, SessionCookies, Shared},
        sign_out::{Because, Scope},
    },
};

const SIGN_OUT: &str = "x-vestibule-sign-out";
const STEP_UP: &str = "x-vestibule-step-up";

/// What one answer asks for; of several lines the most.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Asks {
    sign_out: Option<Scope>,
    step_up: Option<StepUp>,
    /// It asks, but not in a word that means anything.
    unclear: Option<&'static str>,
}

#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum StepUp {
    TwoFactor,
    Fresh,
}

impl Asks {
    /// Notes a field that is for us ([`super::headers::is_own`]). Most answers have none.
    pub(super) fn note(&mut self, name: &HeaderName, value: &HeaderValue) {
        let word = value.as_bytes().trim_ascii();
        match name.as_str() {
            SIGN_OUT => match word {
                b"session" => self.sign_out = self.sign_out.max(Some(Scope::Session)),
                b"user" => self.sign_out = self.sign_out.max(Some(Scope::User)),
                _ => self.unclear = Some("X-Vestibule-Sign-Out"),
            },
            STEP_UP => match word {
                b"fresh" => self.step_up = self.step_up.max(Some(StepUp::Fresh)),
                b"two-factor" => self.step_up = self.step_up.max(Some(StepUp::TwoFactor)),
                _ => self.unclear = Some("X-Vestibule-Step-Up"),
            },
            _ => {}
        }
    }

    pub(super) const fn is_nothing(&self) -> bool {
        self.sign_out.is_none() && self.step_up.is_none() && self.unclear.is_none()
    }
}

/// Does what was asked; `status` is the answer's. Whether the session has ended.
pub(super) async fn heed(
    proxy: &Proxy,
    asks: Asks,
    upstream: &str,
    signed_in: Option<&SignedIn>,
    inbound: &Inbound,
    status: StatusCode,
) -> Result<Ended, ProxyError> {
    if let Some(field) = asks.unclear {
        let upstream = upstream.to_owned();
        return Err(ProxyError::Asked { upstream, field });
    }
    let Some(SignedIn { session, .. }) = signed_in else {
        return Ok(Ended::No);
    };
    if let Some(scope) = asks.sign_out {
        let because = Because {
            reason: format!("upstream {upstream}"),
            client: inbound.caller.facts.addr,
            request_id: inbound.request_id.to_str().unwrap_or_default().to_owned(),
        };
        let ending = proxy.sessions.sign_out(session, scope, because, inbound.now);
        ending.await.map_err(ProxyError::NotSignedOut)?;
        return Ok(Ended::Yes);
    }
    let refuses = matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
    match asks.step_up {
        Some(StepUp::Fresh) if refuses => Err(Denied::NotAllowed(Unmet::Fresh).into()),
        Some(StepUp::Fresh | StepUp::TwoFactor) | None => Ok(Ended::No),
    }
}

/// Takes the cookies of a session that has ended back, from whoever came with one; from a browser that several people
/// share, the one that would keep it there as well.
pub(super) fn take_back(
    cookies: &SessionCookies,
    came_by: &Credential,
    browser: Option<&Shared>,
    answer: &mut HeaderMap,
) {
    if came_by.kind == Kind::Cookie {
        let companion = browser.and_then(|browser| cookies.clear_companion(browser, &came_by.hash));
        for cookie in cookies.clear().chain(companion) {
            answer.append(header::SET_COOKIE, cookie);
        }
        rewrite::keep_from_caches(answer);
    }
}

/// Whether an upstream had the session ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Ended {
    Yes,
    No,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(lines: &[(&str, &str)]) -> Asks {
        let mut asks = Asks::default();
        for (name, value) in lines {
            asks.note(&name.parse().unwrap(), &value.parse().unwrap());
        }
        asks
    }

    #[test]
    fn of_several_lines_the_most_counts() {
        let both = asked(&[(SIGN_OUT, "user"), (SIGN_OUT, "session")]);
        assert_eq!(both.sign_out, Some(Scope::User));
        let both = asked(&[(STEP_UP, "fresh"), (STEP_UP, "two-factor")]);
        assert_eq!(both.step_up, Some(StepUp::Fresh));
    }

    #[test]
    fn what_is_not_understood_is_not_taken_for_nothing() {
        for value in ["", "all", "session, user", "Session", "true"] {
            assert!(asked(&[(SIGN_OUT, value)]).unclear.is_some(), "{value}");
            assert!(asked(&[(STEP_UP, value)]).unclear.is_some(), "{value}");
        }
        assert!(asked(&[("x-vestibule-something", "else")]).is_nothing());
        assert!(asked(&[]).is_nothing());
    }
}
