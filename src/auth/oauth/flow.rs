//! A flow under way: its state, the browser that it belongs to, and what it will need at its end.
//!
//! `state` is a secret that works once: the database knows it by its hash, and whoever shows it has used it up, whatever
//! comes of that. It is no proof of anything by itself, since it travels in URLs: the flow goes on only in the browser
//! that it began in, which has a name in a signed cookie, and only at the provider that it began at. What was shown
//! elsewhere is burnt.
//!
//! What the flow will need is sealed, and opens for this state alone: who reads the table learns no PKCE verifier, and
//! who writes to it can't say where a stranger's flow leads.

use std::{borrow::Cow, time::Duration};

use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;
use tracing::warn;
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::{
    auth::{Auth, AuthError, http::Call},
    db::oauth_flows::{self, NewFlow},
    identity::{SessionId, UserId},
    policy::origin::TrustedOrigins,
    secret::{OAuthState, OneTimeToken, Secret, TokenHash, random_text, sealed::SealingKeys},
    session::credential::Slot,
};

/// From being sent to a provider to being back: the contract's ten minutes (section 11).
const LIFE: Duration = Duration::from_mins(10);

/// Flows of one browser at once; another one ends the oldest. As many tabs as anybody signs in at.
const AT_ONCE: i64 = 8;

/// Which paths a flow goes by, and what its fields are called.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::auth) enum Family {
    /// The contract's.
    Social,
    /// Those of the client's plugin for providers of all kinds, up to 1.6.
    Generic,
}

impl Family {
    /// What a provider is called in a body.
    pub(super) const fn provider_field(self) -> &'static str {
        match self {
            Self::Social => "provider",
            Self::Generic => "providerId",
        }
    }

    /// Where the browser comes back to: from `public_url`, whatever `Host` a request named.
    pub(super) fn redirect_uri(self, auth: &Auth, provider: &str) -> String {
        let path = match self {
            Self::Social => "callback",
            Self::Generic => "oauth2/callback",
        };
        format!("{}/{path}/{provider}", auth.base_url)
    }
}

/// What is remembered of a flow.
pub(super) struct Flow {
    pub(super) pkce_verifier: Secret<String>,
    pub(super) nonce: String,
    pub(super) family: Family,
    pub(super) targets: Targets,
    /// All that the provider was asked for.
    pub(super) scopes: Vec<String>,
    /// The app asked for an account to be made where there is none.
    pub(super) request_sign_up: bool,
    /// For whom an account is to be linked. `None`: somebody signs in.
    pub(super) link: Option<Link>,
}

crate::secret::unprinted!(Flow);

/// Where the flow may end; all of them have been judged, and are once more at its end.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(super) struct Targets {
    pub(super) callback: String,
    /// `None`: the error page.
    pub(super) error: Option<String>,
    /// `None`: as everybody.
    pub(super) new_user: Option<String>,
}

impl Targets {
    /// Without those that are trusted no longer.
    fn trusted(self, origins: &TrustedOrigins) -> Self {
        let is_trusted = |target: &String| origins.allows_redirect(target);
        Self {
            callback: Some(self.callback)
                .filter(is_trusted)
                .unwrap_or_else(|| origins.public().as_str().to_owned()),
            error: self.error.filter(is_trusted),
            new_user: self.new_user.filter(is_trusted),
        }
    }
}

/// Who asked for an account to be linked, and in which session.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Link {
    pub(super) user: UserId,
    pub(super) session: SessionId,
}

impl Flow {
    pub(super) fn new(
        family: Family,
        targets: Targets,
        scopes: Vec<String>,
        request_sign_up: bool,
        link: Option<Link>,
    ) -> Self {
        Self {
            pkce_verifier: random_text(),
            nonce: random_text().expose().clone(),
            family,
            targets,
            scopes,
            request_sign_up,
            link,
        }
    }

    fn sealed(&self, keys: &SealingKeys, state: &TokenHash) -> Vec<u8> {
        let payload = Payload {
            pkce_verifier: Cow::Borrowed(self.pkce_verifier.expose()),
            nonce: Cow::Borrowed(&self.nonce),
            family: self.family,
            targets: Cow::Borrowed(&self.targets),
            scopes: Cow::Borrowed(&self.scopes),
            request_sign_up: self.request_sign_up,
            link: self.link.map(|link| (link.user.0, link.session.0)),
        };
        #[expect(
            clippy::expect_used,
            reason = "its keys are text, and nothing in it can fail to be written"
        )]
        let json = Zeroizing::new(serde_json::to_vec(&payload).expect("a payload is JSON"));
        keys.seal(&json, &context(state))
    }

    /// `None`: sealed with a secret that is gone, or not by us.
    fn opened(keys: &SealingKeys, state: &TokenHash, sealed: &[u8]) -> Option<Self> {
        let opened = keys.open(sealed, &context(state))?;
        let payload: Payload<'_> = serde_json::from_slice(&opened).ok()?;
        Some(Self {
            pkce_verifier: Secret::new(payload.pkce_verifier.into_owned()),
            nonce: payload.nonce.into_owned(),
            family: payload.family,
            targets: payload.targets.into_owned(),
            scopes: payload.scopes.into_owned(),
            request_sign_up: payload.request_sign_up,
            link: payload.link.map(|(user, session)| Link {
                user: UserId(user),
                session: SessionId(session),
            }),
        })
    }
}

/// A [`Flow`] as it is written, and then sealed. Of two releases that run side by side each must read the other's.
#[derive(Deserialize, Serialize)]
struct Payload<'p> {
    pkce_verifier: Cow<'p, str>,
    nonce: Cow<'p, str>,
    family: Family,
    targets: Cow<'p, Targets>,
    scopes: Cow<'p, [String]>,
    request_sign_up: bool,
    link: Option<(Uuid, Uuid)>,
}

fn context(state: &TokenHash) -> Vec<u8> {
    [b"oauth_flows.payload".as_slice(), state.as_bytes()].concat()
}

/// Remembers a flow for as long as it may take, and marks the browser.
pub(super) async fn begin(
    call: &mut Call<'_>,
    provider: &str,
    state: &OneTimeToken<OAuthState>,
    flow: &Flow,
) -> Result<(), AuthError> {
    let auth = call.auth;
    let cookies = &auth.cookies;
    let known = cookies.oauth_browsers(call.headers).into_iter().next();
    let (slot, browser) = known.unwrap_or_else(|| (Slot::drawn(), OneTimeToken::generate()));
    let hash = state.hash();
    let new = NewFlow {
        state: hash,
        browser: browser.hash(),
        provider,
        payload: &flow.sealed(&auth.sealing, &hash),
        expires_at: call.now.plus(LIFE),
        others: AT_ONCE - 1,
    };
    oauth_flows::insert(&auth.db.client().await?, &new, call.now).await?;
    call.set_cookie(cookies.set_oauth_browser(slot, &browser, LIFE));
    Ok(())
}

/// The browser that a flow began in, and where it keeps its name.
#[derive(Debug)]
pub(super) struct Browser {
    slot: Slot,
    name: TokenHash,
}

impl Browser {
    /// Takes the mark from a browser that has nothing else under way. To be asked at the very end: while the provider
    /// was asked, another tab may have left for one.
    pub(super) async fn forget(&self, call: &mut Call<'_>) -> Result<(), AuthError> {
        let auth = call.auth;
        let client = auth.db.client().await?;
        if !oauth_flows::has_pending(&client, &self.name, auth.clock.now()).await? {
            call.set_cookie(auth.cookies.clear_oauth_browser(self.slot));
        }
        Ok(())
    }
}

/// What `state` was worth.
#[derive(Debug)]
pub(super) enum Taken {
    Flow(Box<Flow>, Browser),
    /// Never given out, used, or too old.
    Unknown,
    /// It belongs to another browser, or another provider; and is now nobody's.
    Elsewhere {
        error_target: Option<String>,
    },
}

/// Uses a state up, at the provider whose callback it was shown at.
pub(super) async fn take(call: &mut Call<'_>, state: &str, provider: &str) -> Result<Taken, AuthError> {
    let auth = call.auth;
    let Some(state) = OneTimeToken::<OAuthState>::parse(state) else {
        return Ok(Taken::Unknown);
    };
    let hash = state.hash();
    let taken = oauth_flows::take(&auth.db.client().await?, &hash).await?;
    let Some(taken) = taken.filter(|taken| call.now < taken.expires_at) else {
        return Ok(Taken::Unknown);
    };
    let Some(mut flow) = Flow::opened(&auth.sealing, &hash, &taken.payload) else {
        warn!(
            request_id = call.request_id,
            "can't open what was remembered of a sign-in at {}: the auth.secret that sealed it is gone", taken.provider
        );
        return Ok(Taken::Unknown);
    };
    // What was trusted when it began need not be so any more.
    flow.targets = flow.targets.trusted(&auth.origins);
    let browsers = auth.cookies.oauth_browsers(call.headers);
    let mut browsers = browsers.into_iter().map(|(slot, name)| Browser {
        slot,
        name: name.hash(),
    });
    // Both are hashes; all the same the time does not tell how much was right.
    let is_it = |browser: &Browser| browser.name.as_bytes().ct_eq(&taken.browser).into();
    let here = browsers.find(is_it);
    match here {
        Some(browser) if taken.provider == provider => Ok(Taken::Flow(Box::new(flow), browser)),
        _ => Ok(Taken::Elsewhere {
            error_target: flow.targets.error,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(link: Option<Link>) -> Flow {
        let targets = Targets {
            callback: "/dash?ü=1#top".to_owned(),
            error: Some("https://app.example/\"oops\"".to_owned()),
            new_user: None,
        };
        Flow::new(Family::Generic, targets, vec!["openid".to_owned()], true, link)
    }

    #[test]
    fn what_is_remembered_comes_back_whole() {
        let keys = SealingKeys::new([b"a secret of at least 32 bytes, or so".as_slice()]);
        let state = OneTimeToken::<OAuthState>::generate().hash();
        let link = Link {
            user: UserId(Uuid::from_u128(7)),
            session: SessionId(Uuid::from_u128(9)),
        };
        for link in [None, Some(link)] {
            let flow = flow(link);
            let back = Flow::opened(&keys, &state, &flow.sealed(&keys, &state)).unwrap();
            assert_eq!(back.pkce_verifier.expose(), flow.pkce_verifier.expose());
            assert_eq!((back.nonce, back.family), (flow.nonce, Family::Generic));
            assert_eq!((back.targets, back.request_sign_up), (flow.targets, true));
            assert_eq!(back.scopes, flow.scopes);
            assert_eq!(back.link, link);
        }
    }

    #[test]
    fn it_lies_closed_and_opens_for_its_own_state_alone() {
        let keys = SealingKeys::new([b"a secret of at least 32 bytes, or so".as_slice()]);
        let (state, other) = (TokenHash::of(b"state"), TokenHash::of(b"other"));
        let flow = flow(None);
        let sealed = flow.sealed(&keys, &state);
        let verifier = flow.pkce_verifier.expose().as_bytes();
        assert!(!sealed.windows(verifier.len()).any(|window| window == verifier));
        assert!(Flow::opened(&keys, &other, &sealed).is_none());
        assert!(Flow::opened(&keys, &state, b"{}").is_none());
    }

    #[test]
    fn each_flow_has_secrets_of_its_own() {
        let (one, other) = (flow(None), flow(None));
        // RFC 7636, section 4.1: 43 characters at least.
        assert_eq!(one.pkce_verifier.expose().len(), 43);
        assert_ne!(one.pkce_verifier.expose(), other.pkce_verifier.expose());
        assert_ne!(one.nonce, other.nonce);
        let shown = format!("{one:?}");
        assert!(!shown.contains(one.pkce_verifier.expose().as_str()));
    }
}
