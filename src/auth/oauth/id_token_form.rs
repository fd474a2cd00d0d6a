//! Signing in, and linking, with an id_token that an app got by itself.
//!
//! Nothing binds such a token to the app that presents it: whoever saw it can present it, until it expires, an hour
//! after it was made at the latest. A `nonce` that the app drew, sent to the provider and gives here narrows that to
//! whoever knows both. Only tokens whose audience is this gateway's registration, or one of `audiences`, count at all.

use serde_json::json;

use super::{
    arrival::{self, Arrival, Refusal, may_sign_up},
    failures,
    flow::Link,
    linking,
    provider::{Presented, Profile, Provider, ProviderError, Tokens},
};
use crate::{
    auth::{
        AuthError,
        complete::answer,
        http::{Answer, Call, Current},
        input::Fields,
    },
    chain::Chain,
    clock::Timestamp,
    secret::Secret,
};

/// `idToken` as an app sends it.
pub(super) struct Input {
    token: Secret<String>,
    nonce: Option<String>,
    access: Option<Secret<String>>,
    refresh: Option<Secret<String>>,
    expires_at: Option<Timestamp>,
    name: Option<String>,
}

crate::secret::unprinted!(Input);

/// POST /sign-in/social with `idToken`. `callback_url` is where a mailed link leads in the end.
pub(super) async fn sign_in(
    call: &mut Call<'_>,
    provider: &Provider,
    input: Input,
    request_sign_up: bool,
    callback_url: Option<&str>,
) -> Result<Answer, AuthError> {
    let arrival = present(call, provider, input).await;
    let arrival = noted(call, None, arrival).await?;
    let may_sign_up = may_sign_up(call.auth, provider, request_sign_up);
    match arrival::sign_in(call, arrival, may_sign_up, callback_url).await {
        Ok(entered) => Ok(answer(&entered.signed_in, None)),
        Err(refusal) => Err(match refusal {
            Refusal::NotLinked => AuthError::OAuthLink("account not linked"),
            Refusal::SignUpDisabled => AuthError::OAuthLink("signup disabled"),
            Refusal::EmailNotFound => AuthError::UserEmailNotFound,
            Refusal::EmailNotVerified => AuthError::NotVerified,
            Refusal::Banned => AuthError::Banned,
            Refusal::EmailDoesNotMatch | Refusal::LinkedToAnother | Refusal::UnableToLink => {
                AuthError::OAuthLink("unable to link account")
            }
            Refusal::Failed(error) => error,
        }),
    }
}

/// POST /link-social with `idToken`, in a session that is fresh.
pub(super) async fn link(
    call: &mut Call<'_>,
    provider: &Provider,
    input: Input,
    current: &Current,
) -> Result<Answer, AuthError> {
    let arrival = present(call, provider, input).await;
    let link = Link {
        user: current.user.id,
        session: current.session.id,
    };
    let arrival = noted(call, Some(link), arrival).await?;
    match linking::link(call, arrival, current.user.id, current.session.id).await {
        Ok(()) => Ok(Answer::json(json!({ "url": "", "status": true, "redirect": false }))),
        Err(refusal) => Err(match refusal {
            Refusal::LinkedToAnother => AuthError::AlreadyLinked,
            Refusal::EmailDoesNotMatch => AuthError::LinkingDifferentEmails,
            Refusal::EmailNotFound => AuthError::UserEmailNotFound,
            // Who is banned has no session; somebody may be while this goes on.
            Refusal::Banned
            | Refusal::NotLinked
            | Refusal::SignUpDisabled
            | Refusal::EmailNotVerified
            | Refusal::UnableToLink => AuthError::LinkingNotAllowed,
            Refusal::Failed(error) => error,
        }),
    }
}

/// Whose token it is, once it has passed every check.
async fn present<'p>(call: &mut Call<'_>, provider: &'p Provider, input: Input) -> Result<Arrival<'p>, AuthError> {
    if !provider.takes_id_tokens() {
        return Err(AuthError::IdTokenNotSupported);
    }
    let presented = Presented {
        id_token: &input.token,
        nonce: input.nonce.as_deref(),
        access_token: input.access.as_ref(),
        name: input.name.as_deref(),
        now: call.now,
    };
    let profile = provider.presented(&presented).await.map_err(|error| {
        tracing::warn!(
            error = %Chain(&error),
            request_id = call.request_id,
            "an id_token was not accepted"
        );
        match error {
            ProviderError::Unreachable { .. } => AuthError::ProviderUnavailable(error.into()),
            ProviderError::Refused { .. } => AuthError::NoUserInfo,
            ProviderError::Unusable { .. } => AuthError::InvalidToken,
        }
    })?;
    known_address(&profile)?;
    Ok(Arrival {
        provider,
        profile,
        tokens: Tokens {
            access: input.access,
            refresh: input.refresh,
            id: Some(input.token),
            access_expires_at: input.expires_at,
            refresh_expires_at: None,
            scopes: Vec::new(),
        },
    })
}

/// Writes down why a token was not accepted.
async fn noted<'p>(
    call: &Call<'_>,
    link: Option<Link>,
    presented: Result<Arrival<'p>, AuthError>,
) -> Result<Arrival<'p>, AuthError> {
    if let Err(error @ (AuthError::InvalidToken | AuthError::NoUserInfo | AuthError::UserEmailNotFound)) = &presented {
        failures::note(call, link, error.code().as_str()).await;
    }
    presented
}

/// Here the contract wants an address of everybody, also of those whose account is known.
const fn known_address(profile: &Profile) -> Result<(), AuthError> {
    match profile.email {
        Some(_) => Ok(()),
        None => Err(AuthError::UserEmailNotFound),
    }
}

impl Input {
    pub(super) fn read(mut id_token: Fields) -> Result<Self, AuthError> {
        let mut check = id_token.check();
        let token = Secret::new(check.text("token"));
        let nonce = check.optional_text("nonce");
        let access = check.optional_text("accessToken").map(Secret::new);
        let refresh = check.optional_text("refreshToken").map(Secret::new);
        let expires_at = check.optional_number("expiresAt").and_then(time_of);
        let user = check.nested("user", "body.idToken.user");
        check.done()?;
        let name = match user {
            Some(mut user) => {
                let mut check = user.check();
                let name = check.nested("name", "body.idToken.user.name");
                // The provider's word on the address is in the token; this is anybody's.
                check.optional_text("email");
                check.done()?;
                match name {
                    Some(mut name) => {
                        let mut check = name.check();
                        let parts = [check.optional_text("firstName"), check.optional_text("lastName")];
                        check.done()?;
                        joined(parts)
                    }
                    None => None,
                }
            }
            None => None,
        };
        Ok(Self {
            token,
            nonce,
            access,
            refresh,
            expires_at,
            name,
        })
    }
}

pub(super) fn sign_in_refusals() -> Vec<AuthError> {
    vec![
        AuthError::IdTokenNotSupported,
        AuthError::InvalidToken,
        AuthError::NoUserInfo,
        AuthError::UserEmailNotFound,
        AuthError::OAuthLink("account not linked"),
        AuthError::NotVerified,
        AuthError::Banned,
    ]
}

pub(super) fn link_refusals() -> Vec<AuthError> {
    vec![
        AuthError::IdTokenNotSupported,
        AuthError::InvalidToken,
        AuthError::NoUserInfo,
        AuthError::UserEmailNotFound,
        AuthError::AlreadyLinked,
        AuthError::LinkingNotAllowed,
        AuthError::LinkingDifferentEmails,
    ]
}

fn joined(parts: [Option<String>; 2]) -> Option<String> {
    let parts: Vec<String> = parts.into_iter().flatten().filter(|part| !part.is_empty()).collect();
    (!parts.is_empty()).then(|| parts.join(" "))
}

/// Seconds beyond this would be in the year 5138: it is milliseconds, then, as JavaScript counts.
const MOST_SECONDS: f64 = 1e11;

/// The contract does not say in which unit; apps send either.
fn time_of(number: f64) -> Option<Timestamp> {
    let seconds = if number > MOST_SECONDS { number / 1000.0 } else { number };
    if !(0.0..MOST_SECONDS).contains(&seconds) {
        return None;
    }
    #[expect(clippy::cast_possible_truncation, reason = "within the range that was just checked")]
    Some(Timestamp::from_secs(seconds as i64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expiry_is_read_in_seconds_and_in_milliseconds() {
        for (number, secs) in [
            (1_800_000_000.0, Some(1_800_000_000)),
            (1_800_000_000_000.0, Some(1_800_000_000)),
            (-1.0, None),
            (f64::NAN, None),
            (1e300, None),
        ] {
            assert_eq!(time_of(number), secs.map(Timestamp::from_secs), "{number}");
        }
    }

    #[test]
    fn a_name_is_what_there_is_of_it() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(joined([some("Ada"), some("Lovelace")]), some("Ada Lovelace"));
        assert_eq!(joined([some(""), some("Lovelace")]), some("Lovelace"));
        assert_eq!(joined([None, some("")]), None);
    }
}
