//! The way there: sign-in/social and link-social, and what the client's plugin for providers of all kinds called them.
//!
//! Neither is a login endpoint to the origin check (section 4), as in the original: what they begin is of no use outside
//! the browser that gets the cookie, and a foreign page can't have a browser send them, since they read JSON alone and no
//! preflight lets it through.

use http::StatusCode;
use serde_json::json;

use super::{
    flow::{self, Family, Flow, Link, Targets},
    id_token_form,
    provider::{Ask, Provider},
};
use crate::{
    auth::{
        Auth, AuthError,
        http::{Answer, Call},
        openapi::{Description, Field, Group, TOKEN, Who, Work, Yes, always, flag, named, object, text},
    },
    config::SET_BY_THE_FLOW,
    secret::OneTimeToken,
};

const MAX_SCOPES: usize = 50;
const MAX_SCOPE: usize = 256;
/// As many as an address may have.
const MAX_LOGIN_HINT: usize = 320;
const MAX_PARAMS: usize = 50;

/// POST /sign-in/social, POST /sign-in/oauth2
pub(in crate::auth) async fn sign_in(call: &mut Call<'_>, family: Family) -> Result<Answer, AuthError> {
    let mut asked = Asked::read(call, family)?;
    let provider = provider(call.auth, &asked.provider)?;
    match asked.id_token.take() {
        Some(token) => {
            id_token_form::sign_in(call, provider, token, asked.request_sign_up, asked.callback.as_deref()).await
        }
        None => start(call, provider, asked, family, None).await,
    }
}

/// POST /link-social, POST /oauth2/link: in a fresh session, so that nobody who finds one open adds a way in for later.
pub(in crate::auth) async fn link(call: &mut Call<'_>, family: Family) -> Result<Answer, AuthError> {
    let mut asked = Asked::read(call, family)?;
    let current = call.demand_fresh_session().await?;
    let provider = provider(call.auth, &asked.provider)?;
    if let Some(token) = asked.id_token.take() {
        return id_token_form::link(call, provider, token, &current).await;
    }
    let link = Link {
        user: current.user.id,
        session: current.session.id,
    };
    start(call, provider, asked, family, Some(link)).await
}

fn provider<'a>(auth: &'a Auth, name: &str) -> Result<&'a Provider, AuthError> {
    auth.providers.get(name).ok_or(AuthError::ProviderNotFound)
}

/// What a body asks for.
struct Asked {
    provider: String,
    callback: Option<String>,
    error: Option<String>,
    new_user: Option<String>,
    disable_redirect: bool,
    request_sign_up: bool,
    scopes: Vec<String>,
    login_hint: Option<String>,
    params: Vec<(String, String)>,
    /// What the app got by itself.
    id_token: Option<id_token_form::Input>,
}

impl Asked {
    /// All of it, before anything else is judged. What is to be remembered has bounds.
    fn read(call: &mut Call<'_>, family: Family) -> Result<Self, AuthError> {
        let mut check = call.body.check();
        let provider = check.text(family.provider_field());
        let targets = ["callbackURL", "errorCallbackURL", "newUserCallbackURL"];
        let [callback, error, new_user] = targets.map(|name| check.optional_target(name));
        let disable_redirect = check.optional_bool("disableRedirect").unwrap_or_default();
        let request_sign_up = check.optional_bool("requestSignUp").unwrap_or_default();
        let scopes = check.optional_texts("scopes");
        check.so_many_at_most(MAX_SCOPES, "scopes", scopes.len());
        for scope in &scopes {
            check.at_most(MAX_SCOPE, "scopes", Some(scope));
        }
        let login_hint = check.optional_text("loginHint").filter(|hint| !hint.is_empty());
        check.at_most(MAX_LOGIN_HINT, "loginHint", login_hint.as_deref());
        let params = check.optional_params("additionalParams", &SET_BY_THE_FLOW);
        check.so_many_at_most(MAX_PARAMS, "additionalParams", params.len());
        // The original carries this through the flow for code of the application's that runs in its server. Here is none.
        check.optional_object("additionalData");
        let id_token = check.nested("idToken", "body.idToken");
        check.done()?;
        Ok(Self {
            provider,
            callback,
            error,
            new_user,
            disable_redirect,
            request_sign_up,
            scopes,
            login_hint,
            params,
            id_token: id_token.map(id_token_form::Input::read).transpose()?,
        })
    }
}

async fn start(
    call: &mut Call<'_>,
    provider: &Provider,
    asked: Asked,
    family: Family,
    link: Option<Link>,
) -> Result<Answer, AuthError> {
    let state = OneTimeToken::generate();
    let targets = Targets {
        callback: asked
            .callback
            .unwrap_or_else(|| call.auth.origins.public().as_str().to_owned()),
        error: asked.error,
        new_user: asked.new_user,
    };
    let scopes = provider.scopes_with(asked.scopes);
    let flow = Flow::new(family, targets, scopes, asked.request_sign_up, link);
    let redirect_uri = family.redirect_uri(call.auth, provider.name());
    let ask = Ask {
        state: state.as_str(),
        nonce: &flow.nonce,
        pkce_verifier: &flow.pkce_verifier,
        redirect_uri: &redirect_uri,
        scopes: &flow.scopes,
        login_hint: asked.login_hint.as_deref(),
        params: &asked.params,
    };
    // Before anything is remembered: the provider may have to be asked where its endpoints are.
    let url = provider.authorization_url(&ask).await;
    let url = String::from(url.map_err(|error| AuthError::ProviderUnavailable(error.into()))?);
    flow::begin(call, provider.name(), &state, &flow).await?;
    let answer = Answer::json(json!({ "url": url, "redirect": !asked.disable_redirect }));
    Ok(if asked.disable_redirect {
        answer
    } else {
        answer.with_location(url)
    })
}

const URL: &str = "https://accounts.google.com/o/oauth2/v2/auth?response_type=code&client_id=..&state=..";

fn fields(family: Family) -> Vec<Field> {
    vec![
        Field::text(family.provider_field(), "google")
            .required()
            .says("As it is called in the configuration."),
        Field::target("callbackURL").says("Where people are sent in the end; without it, to the site."),
        Field::target("errorCallbackURL")
            .says("Where they are sent if it fails, with `error`; without it, to `/error`."),
        Field::target("newUserCallbackURL").says("In place of `callbackURL`, where an account was made."),
        Field::flag("disableRedirect", false).says("Leaves going to `url` to the application."),
        Field::flag("requestSignUp", false).says("Somebody new is to get an account, where that has to be asked for."),
        Field::texts("scopes", &["calendar.readonly"]).says("Beyond those that are configured."),
        Field::text("loginHint", "ada@example.com").says("Whom the provider should expect."),
        Field::object("additionalParams")
            .says("Texts that are added to the authorisation request; not those that the flow itself sets."),
        Field::object("additionalData").says("Taken and not looked at."),
        Field::object("idToken")
            .says("What the application got from the provider by itself: `token`, and `nonce`, `accessToken`, `user`."),
    ]
}

pub(in crate::auth) fn describe_sign_in(family: Family) -> Description {
    Description::of(
        Group::Providers,
        match family {
            Family::Social => "Sign in at a provider",
            Family::Generic => "Sign in at a provider, as older clients ask",
        },
        "Says where to send the browser: to the provider, which sends it back to `callback`. With `idToken` nobody is \
         sent anywhere, and the answer is a session.",
    )
    .work(Work::Database)
    .body(fields(family))
    .answers([Yes::json(
        "Where to go, or with `idToken` a session.",
        object([("redirect", flag(true).into())])
            .property("url", text(URL).description(Some("Not with `idToken`.")))
            .property("token", text(TOKEN).description(Some("Only with `idToken`.")))
            .property("user", named("User")),
    )
    .hands_out_session()
    .header(
        "Location",
        "As `url`, unless `disableRedirect`. The status is 200 all the same.",
    )])
    .refuses(refusals(id_token_form::sign_in_refusals()))
    .refusal_sets_cookie(
        StatusCode::FORBIDDEN,
        "With `EMAIL_NOT_VERIFIED`, where a mail is sent: marks the browser, in which alone its link is good.",
    )
}

pub(in crate::auth) fn describe_link(family: Family) -> Description {
    Description::of(
        Group::Providers,
        match family {
            Family::Social => "Link an account at a provider",
            Family::Generic => "Link an account at a provider, as older clients ask",
        },
        "As `sign-in/social`; in the end the account is one more way in for the user who asked.",
    )
    .who(Who::WithFreshSession)
    .work(Work::Database)
    .body(fields(family))
    .answers([Yes::json(
        "Where to go; or with `idToken`, that it is linked.",
        object([("redirect", flag(true).into()), ("url", text(URL).into())])
            .property("status", always(true).description(Some("Only with `idToken`."))),
    )
    .header("Set-Cookie", "Marks the browser, in which alone this goes on.")
    .header(
        "Location",
        "As `url`, unless `disableRedirect`. The status is 200 all the same.",
    )])
    .refuses(refusals(id_token_form::link_refusals()))
}

fn refusals(of_id_tokens: Vec<AuthError>) -> Vec<AuthError> {
    let both = [
        AuthError::ProviderNotFound,
        AuthError::ProviderUnavailable("away".into()),
    ];
    both.into_iter().chain(of_id_tokens).collect()
}
