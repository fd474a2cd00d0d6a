//! The way back: GET and POST /callback/:provider.
//!
//! Whatever happens, a person is looking at it: so every end is a redirect, to where the app said that errors go, or to
//! the error page while that is not known. The order is the contract's (section 11). No provider is asked before `state`
//! has been found good, and no connection to Postgres is held while one is.
//!
//! POST is how Apple answers: from its own site, and so without our cookies. Nothing is judged there: the browser is sent
//! on to the same path with GET, which brings them.

use std::borrow::Cow;

use tracing::warn;
use url::form_urlencoded;

use super::{
    arrival::{self, Arrival, Refusal},
    failures,
    flow::{self, Family, Flow, Taken},
    linking,
    provider::{ProviderError, Return},
};
use crate::{
    auth::{
        Auth, AuthError,
        http::{Answer, Call},
        input::Fields,
        openapi::{Description, Field, Group, Work, Yes},
        report,
    },
    chain::Chain,
    policy::redirect::append_query,
    problem::Code,
    secret::Secret,
};

/// What an answer of a provider may say (RFC 6749, section 4.1.2; RFC 9207; Apple's `user`). The rest is nobody's.
const PARAMETERS: [&str; 6] = ["code", "state", "user", "error", "error_description", "iss"];

/// Bytes of a code. Providers' have some hundred.
const MAX_CODE: usize = 4 * 1024;

/// Bytes of where a POST sends a browser to: GET takes no longer heads either, in most places between here and there.
const MAX_RELAYED: usize = 16 * 1024;

/// Characters of a provider's error and its description that are passed on.
const MAX_ERROR: usize = 100;
const MAX_DESCRIPTION: usize = 500;

/// GET /callback/:provider, GET /oauth2/callback/:provider
pub(in crate::auth) async fn follow(call: &mut Call<'_>) -> Answer {
    let auth = call.auth;
    let Some(mut back) = Back::of(&call.query) else {
        return Stop::with("invalid_callback_request").at(auth, None);
    };
    let Some(state) = back.state.take() else {
        return Stop::with("state_not_found").at(auth, None);
    };
    let (flow, browser) = match flow::take(call, &state, call.segment).await {
        Ok(Taken::Flow(flow, browser)) => (flow, browser),
        Ok(Taken::Unknown) => return Stop::with("state_mismatch").at(auth, None),
        Ok(Taken::Elsewhere { error_target }) => {
            failures::note(call, None, "state_mismatch").await;
            return Stop::with("state_mismatch").at(auth, error_target.as_deref());
        }
        Err(error) => return failed(call, &error).at(auth, None),
    };
    let answer = match finish(call, &flow, &back).await {
        Ok(target) => Answer::redirect(target.to_owned()),
        Err(stop) => stop.at(auth, flow.targets.error.as_deref()),
    };
    if let Err(error) = browser.forget(call).await {
        // A mark too many harms nobody, and ends soon.
        failed(call, &error);
    }
    answer
}

/// From a good state to who came.
async fn ask<'a>(call: &Call<'a>, flow: &Flow, back: &Back) -> Result<Arrival<'a>, Stop> {
    let auth = call.auth;
    let provider = auth.providers.get(call.segment);
    let provider = provider.ok_or(Stop::with("oauth_provider_not_found"))?;
    let request_id = call.request_id;
    let said = |code| {
        move |error: ProviderError| {
            warn!(
                error = %Chain(&error),
                request_id, code, "somebody came back from a provider and could not go on"
            );
            Stop::with(code)
        }
    };
    // Before anything that the answer says is acted on, an error included (RFC 9207, section 2.4).
    let is_theirs = provider.check_iss(back.iss.as_deref()).await;
    if !is_theirs.map_err(said("invalid_code"))? {
        warn!(
            request_id,
            "an answer to {} says that it comes from another provider",
            provider.name()
        );
        return Err(Stop::with("issuer_mismatch"));
    }
    if let Some(error) = &back.error {
        return Err(Stop::of_provider(error, back.error_description.as_deref()));
    }
    let code = back.code.as_ref().ok_or(Stop::with("no_code"))?;
    if code.expose().len() > MAX_CODE {
        return Err(Stop::with("invalid_code"));
    }
    let back = Return {
        code,
        nonce: &flow.nonce,
        pkce_verifier: &flow.pkce_verifier,
        redirect_uri: &flow.family.redirect_uri(auth, provider.name()),
        asked_scopes: &flow.scopes,
        user: back.user.as_deref(),
        now: call.now,
    };
    let tokens = provider.exchange(&back).await.map_err(said("invalid_code"))?;
    // The exchange may have taken its time, and an id_token is judged by the clock.
    let back = Return {
        now: auth.clock.now(),
        ..back
    };
    let profile = provider.profile(&back, &tokens).await;
    let profile = profile.map_err(said("unable_to_get_user_info"))?;
    Ok(Arrival {
        provider,
        profile,
        tokens,
    })
}

/// From a good state to where the browser goes.
async fn finish<'f>(call: &mut Call<'_>, flow: &'f Flow, back: &Back) -> Result<&'f str, Stop> {
    let (auth, targets) = (call.auth, &flow.targets);
    let arrival = match ask(call, flow, back).await {
        Ok(arrival) => arrival,
        Err(stop) => {
            failures::note(call, flow.link, &stop.code).await;
            return Err(stop);
        }
    };
    if let Some(link) = flow.link {
        let linked = linking::link(call, arrival, link.user, link.session).await;
        linked.map_err(|refusal| refused(call, &refusal))?;
        return Ok(&targets.callback);
    }
    let may_sign_up = arrival::may_sign_up(auth, arrival.provider, flow.request_sign_up);
    let entered = arrival::sign_in(call, arrival, may_sign_up, Some(&targets.callback)).await;
    let entered = entered.map_err(|refusal| refused(call, &refusal))?;
    let new_user = targets.new_user.as_ref().filter(|_| entered.is_new);
    Ok(new_user.unwrap_or(&targets.callback))
}

/// POST /callback/:provider, POST /oauth2/callback/:provider
pub(in crate::auth) fn relay(call: &mut Call<'_>, family: Family) -> Result<Answer, AuthError> {
    let mut query = call.query.check();
    let mut body = call.body.check_if_any();
    let mut relayed = form_urlencoded::Serializer::new(String::new());
    for name in PARAMETERS {
        // What the query says goes first, as in the original.
        let (first, second) = (query.optional_text(name), body.optional_text(name));
        if let Some(value) = first.or(second) {
            relayed.append_pair(name, &value);
        }
    }
    query.done()?;
    body.done()?;
    let target = format!("{}?{}", family.redirect_uri(call.auth, call.segment), relayed.finish());
    if target.len() > MAX_RELAYED {
        return Err(too_long());
    }
    Ok(Answer::redirect(target))
}

fn too_long() -> AuthError {
    AuthError::Validation("[body] Too big: expected what fits into a URL".to_owned())
}

/// What came back.
struct Back {
    state: Option<String>,
    code: Option<Secret<String>>,
    error: Option<String>,
    error_description: Option<String>,
    iss: Option<String>,
    user: Option<String>,
}

crate::secret::unprinted!(Back);

impl Back {
    /// `None`: something is said twice (RFC 6749, section 3.1). What is empty is not there.
    fn of(query: &Fields) -> Option<Self> {
        let text = |name| match query.get(name) {
            None => Some(None),
            Some(value) => value.as_str().map(|text| (!text.is_empty()).then(|| text.to_owned())),
        };
        Some(Self {
            state: text("state")?,
            code: text("code")?.map(Secret::new),
            error: text("error")?,
            error_description: text("error_description")?,
            iss: text("iss")?,
            user: text("user")?,
        })
    }
}

/// Why it ends here, as the app and people are told.
#[derive(Debug, Eq, PartialEq)]
struct Stop {
    code: Cow<'static, str>,
    description: Option<Cow<'static, str>>,
}

impl Stop {
    const fn with(code: &'static str) -> Self {
        Self {
            code: Cow::Borrowed(code),
            description: None,
        }
    }

    /// The provider's own words, as far as they are some.
    fn of_provider(error: &str, description: Option<&str>) -> Self {
        let code: String = error.chars().filter(char::is_ascii_graphic).take(MAX_ERROR).collect();
        let description = description.map(|text| {
            let text = text.chars().filter(|c| !c.is_control());
            Cow::Owned(text.take(MAX_DESCRIPTION).collect())
        });
        Self {
            code: if code.is_empty() { "unknown".into() } else { code.into() },
            description,
        }
    }

    /// `None`: to the error page.
    fn at(self, auth: &Auth, target: Option<&str>) -> Answer {
        let target = target.map_or_else(|| Cow::Owned(format!("{}/error", auth.base_url)), Cow::Borrowed);
        Answer::redirect(self.appended_to(&target))
    }

    fn appended_to(&self, target: &str) -> String {
        let target = append_query(target, "error", &self.code);
        match &self.description {
            Some(description) => append_query(&target, "error_description", description),
            None => target,
        }
    }
}

fn refused(call: &Call<'_>, refusal: &Refusal) -> Stop {
    match refusal {
        Refusal::NotLinked => Stop::with("account_not_linked"),
        Refusal::SignUpDisabled => Stop::with("signup_disabled"),
        Refusal::EmailNotFound => Stop::with("email_not_found"),
        Refusal::EmailNotVerified => Stop::with("email_not_verified"),
        Refusal::Banned => Stop {
            description: Some(Code::BannedUser.message().into()),
            ..Stop::with(Code::BannedUser.as_str())
        },
        Refusal::EmailDoesNotMatch => Stop::with("email_does_not_match"),
        Refusal::LinkedToAnother => Stop::with("account_already_linked_to_different_user"),
        Refusal::UnableToLink => Stop::with("unable_to_link_account"),
        Refusal::Failed(error) => failed(call, error),
    }
}

/// A failure of ours: the log has its cause, under the request's id.
fn failed(call: &Call<'_>, error: &AuthError) -> Stop {
    report(error, call.path, call.request_id);
    Stop::with("internal_server_error")
}

const PROVIDER: &str = "The provider, as it is called in the configuration.";

pub(in crate::auth) fn describe_follow() -> Description {
    Description::of(
        Group::Providers,
        "Come back from a provider",
        "Where providers send browsers; nothing that an application calls. It ends at `callbackURL`, or with `error` at \
         `errorCallbackURL` or the error page.",
    )
    .segment(PROVIDER)
    .query(PARAMETERS.map(|name| Field::text(name, "x").unchecked()))
    .answers([Yes::redirect("To where the application wants people, with a session or with `error`.")
        .hands_out_session()])
}

pub(in crate::auth) fn describe_relay() -> Description {
    Description::of(
        Group::Providers,
        "Come back from a provider with a form",
        "As some providers send browsers back. The answer sends them on, to the same path with GET.",
    )
    .segment(PROVIDER)
    .work(Work::None)
    .query(PARAMETERS.map(|name| Field::text(name, "x").says("In place of what the body says.")))
    .body(PARAMETERS.map(|name| Field::text(name, "x")))
    .answers([Yes::redirect("To the same path, with the fields in its query.")])
    .refuses([too_long()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_twice_is_nothing_that_anybody_said() {
        for query in ["state=a&state=b", "state=a&code=b&code=c", "state=a&iss=b&iss=b"] {
            assert!(Back::of(&Fields::of_query(Some(query))).is_none(), "{query}");
        }
        let back = Back::of(&Fields::of_query(Some("state=a&code=&other=1&other=2"))).unwrap();
        assert_eq!((back.state.as_deref(), back.code.is_none()), (Some("a"), true));
        let nothing = Back::of(&Fields::of_query(None)).unwrap();
        assert!(nothing.state.is_none());
    }

    #[test]
    fn a_code_does_not_print() {
        let back = Back::of(&Fields::of_query(Some("code=s3cret"))).unwrap();
        assert!(!format!("{back:?}").contains("s3cret"));
    }

    #[test]
    fn a_providers_words_are_passed_on_as_far_as_they_are_some() {
        let stop = Stop::of_provider("access_denied", Some("Ada said\u{0}\r\n no"));
        assert_eq!(
            stop.appended_to("/oops?a=1#top"),
            "/oops?a=1&error=access_denied&error_description=Ada+said+no#top"
        );
        let long = Stop::of_provider(&"e".repeat(5000), Some(&"ü".repeat(5000)));
        assert_eq!(long.code.len(), 100);
        assert_eq!(long.description.unwrap().chars().count(), 500);
        for (error, code) in [("\u{0}", "unknown"), ("ü", "unknown"), ("a b\n\"c", "ab\"c")] {
            assert_eq!(Stop::of_provider(error, None).code, code);
        }
    }

    #[test]
    fn an_error_stands_in_the_query_of_where_it_goes() {
        let stop = Stop::with("state_mismatch");
        for (target, out) in [
            ("/w", "/w?error=state_mismatch"),
            (
                "https://app.example/x?y#z",
                "https://app.example/x?y&error=state_mismatch#z",
            ),
            ("myapp://cb", "myapp://cb?error=state_mismatch"),
        ] {
            assert_eq!(stop.appended_to(target), out);
        }
    }
}
