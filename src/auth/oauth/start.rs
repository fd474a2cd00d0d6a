//! The way there: sign-in/social and link-social, and what the client's plugin for providers of all kinds called them.
//!
//! Neither is a login endpoint to the origin check (section 4), as in the original: what they begin is of no use outside
//! the browser that gets the cookie, and a foreign page can't have a browser send them, since they read JSON alone and no
//! preflight lets it through.

use http::StatusCode;
use serde_json::{Value, json};

use super::{
    flow::{self, Dialect, Flow, Link, Targets},
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

/// POST /sign-in/social, POST /sign-in/oauth2
pub(in crate::auth) async fn sign_in(call: &mut Call<'_>, dialect: Dialect) -> Result<Answer, AuthError> {
    let auth = call.auth;
    if has_id_token(call) {
        let name = provider_name(call, dialect)?;
        return id_token_form::sign_in(call, provider(auth, &name)?).await;
    }
    let asked = Asked::read(call, dialect)?;
    let provider = provider(auth, &asked.provider)?;
    start(call, provider, asked, dialect, None).await
}

/// POST /link-social, POST /oauth2/link: in a fresh session, so that nobody who finds one open adds a way in for later.
pub(in crate::auth) async fn link(call: &mut Call<'_>, dialect: Dialect) -> Result<Answer, AuthError> {
    let auth = call.auth;
    if has_id_token(call) {
        let name = provider_name(call, dialect)?;
        let current = call.demand_fresh_session().await?;
        return id_token_form::link(call, provider(auth, &name)?, &current).await;
    }
    let asked = Asked::read(call, dialect)?;
    let current = call.demand_fresh_session().await?;
    let provider = provider(auth, &asked.provider)?;
    let link = Link {
        user: current.user.id,
        session: current.session.id,
    };
    start(call, provider, asked, dialect, Some(link)).await
}

/// Whether the app got an id_token by itself; what is no object is refused with the other fields.
fn has_id_token(call: &Call<'_>) -> bool {
    call.body.get("idToken").is_some_and(Value::is_object)
}

fn provider_name(call: &mut Call<'_>, dialect: Dialect) -> Result<String, AuthError> {
    let mut check = call.body.check();
    let name = check.text(dialect.provider_field());
    check.done()?;
    Ok(name)
}

fn provider<'a>(auth: &'a Auth, name: &str) -> Result<&'a Provider, AuthError> {
    auth.providers.get(name).ok_or(AuthError::ProviderNotFound)
}

/// What a body asks for.
struct Asked {
    provider: String,
    targets: Targets,
    disable_redirect: bool,
    request_sign_up: bool,
    scopes: Vec<String>,
    login_hint: Option<String>,
    params: Vec<(String, String)>,
}

impl Asked {
    fn read(call: &mut Call<'_>, dialect: Dialect) -> Result<Self, AuthError> {
        let public_url = call.auth.origins.public().as_str();
        let mut check = call.body.check();
        let provider = check.text(dialect.provider_field());
        let callback = check.optional_text("callbackURL").filter(|url| !url.is_empty());
        let error = check.optional_text("errorCallbackURL").filter(|url| !url.is_empty());
        let new_user = check.optional_text("newUserCallbackURL").filter(|url| !url.is_empty());
        let asked = Self {
            provider,
            targets: Targets {
                callback: callback.unwrap_or_else(|| public_url.to_owned()),
                error,
                new_user,
            },
            disable_redirect: check.optional_bool("disableRedirect").unwrap_or_default(),
            request_sign_up: check.optional_bool("requestSignUp").unwrap_or_default(),
            scopes: check.optional_texts("scopes"),
            login_hint: check.optional_text("loginHint").filter(|hint| !hint.is_empty()),
            params: check.optional_params("additionalParams", &SET_BY_THE_FLOW),
        };
        // The original carries this through the flow for code of the application's that runs in its server. Here is none.
        check.optional_object("additionalData");
        check.optional_object("idToken");
        check.done()?;
        Ok(asked)
    }
}

async fn start(
    call: &mut Call<'_>,
    provider: &Provider,
    asked: Asked,
    dialect: Dialect,
    link: Option<Link>,
) -> Result<Answer, AuthError> {
    let state = OneTimeToken::generate();
    let flow = Flow::new(dialect, asked.targets, asked.request_sign_up, link);
    let redirect_uri = dialect.redirect_uri(call.auth, provider.name());
    let ask = Ask {
        state: state.as_str(),
        nonce: &flow.nonce,
        pkce_verifier: &flow.pkce_verifier,
        redirect_uri: &redirect_uri,
        scopes: &asked.scopes,
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

fn fields(dialect: Dialect) -> Vec<Field> {
    vec![
        Field::text(dialect.provider_field(), "google")
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

pub(in crate::auth) fn describe_sign_in(dialect: Dialect) -> Description {
    Description::of(
        Group::Providers,
        match dialect {
            Dialect::Social => "Sign in at a provider",
            Dialect::Generic => "Sign in at a provider, as older clients ask",
        },
        "Says where to send the browser: to the provider, which sends it back to `callback`. With `idToken` nobody is \
         sent anywhere, and the answer is a session.",
    )
    .work(Work::Database)
    .body(fields(dialect))
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

pub(in crate::auth) fn describe_link(dialect: Dialect) -> Description {
    Description::of(
        Group::Providers,
        match dialect {
            Dialect::Social => "Link an account at a provider",
            Dialect::Generic => "Link an account at a provider, as older clients ask",
        },
        "As `sign-in/social`; in the end the account is one more way in for the user who asked.",
    )
    .who(Who::WithFreshSession)
    .work(Work::Database)
    .body(fields(dialect))
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
