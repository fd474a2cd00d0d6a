//! The API's description of itself: OpenAPI 3.1 at `openapi.json`, and the same for people at `reference`.
//!
//! There is no second list of endpoints here: the document walks over [`ROUTES`], and asks each behaviour what it does
//! (`describe`, in the behaviour's own file). What a route's kind implies is added from the route, and how a refusal
//! looks is read off the refusal. Tests hold every answer of the test suite against the document, and provoke all that
//! it promises.
//!
//! Both forms are made once and served as they are.

mod answers;
mod describe;
mod reference;

use std::sync::OnceLock;

use bytes::Bytes;
use http::Method;
use serde_json::Value;
use utoipa::openapi::{
    Components, ComponentsBuilder, ContentBuilder, HttpMethod, InfoBuilder, ObjectBuilder, OpenApi, OpenApiBuilder,
    PathItem, Paths, Required, SecurityRequirement, ServerBuilder,
    path::{Operation, OperationBuilder, Parameter, ParameterBuilder, ParameterIn},
    request_body::{RequestBody, RequestBodyBuilder},
    schema::SchemaType,
    security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme},
    tag::TagBuilder,
};

pub(in crate::auth) use self::describe::{
    Description, Field, Group, Shape, TOKEN, Who, Work, Yes, always, date, flag, list, named, nullable_date,
    nullable_text, object, or_null, text, word,
};
use super::{
    Endpoint, ROUTES, Route, account, error_page, http::Answer, input::Accepts, jwks, multi_session, oauth,
    oauth::Family, objects, reset_password, sessions, sign_in, sign_up, verify_email, who,
};
use crate::{config::Config, session::credential::SessionCookies};

/// Both forms of the description, as they are sent; each made when it is first asked for.
#[derive(Debug, Default)]
pub(super) struct Documents {
    json: OnceLock<Bytes>,
    page: OnceLock<Bytes>,
}

impl Documents {
    /// GET /openapi.json
    pub(super) fn json(&self, config: &Config) -> Answer {
        let json = self.json.get_or_init(|| written(document(config).to_json()).into());
        Answer::ready(json.clone(), "application/json")
    }

    /// GET /reference
    pub(super) fn page(&self, config: &Config) -> Answer {
        let page = self.page.get_or_init(|| reference::page(&document(config)).into());
        Answer::ready(page.clone(), "text/html; charset=utf-8")
    }
}

/// The document as text that people can read: what `vestibule openapi` prints.
pub fn json(config: &Config) -> String {
    written(document(config).to_pretty_json())
}

fn written(text: serde_json::Result<String>) -> String {
    #[expect(
        clippy::expect_used,
        reason = "its keys are text, and nothing in it can fail to be written"
    )]
    text.expect("a document is JSON")
}

impl Endpoint {
    /// What it says of itself. No `_`: who adds an endpoint describes it.
    fn describe(self) -> Description {
        match self {
            Self::SignUp => sign_up::describe(),
            Self::SignIn => sign_in::describe(),
            Self::SignOut => sessions::describe_sign_out(),
            Self::GetSession => sessions::describe_get(),
            Self::PostSession => sessions::describe_post(),
            Self::ListSessions => sessions::describe_list(),
            Self::RevokeSession => sessions::describe_revoke(),
            Self::RevokeSessions => sessions::describe_revoke_all(sessions::Own::Too),
            Self::RevokeOtherSessions => sessions::describe_revoke_all(sessions::Own::Stays),
            Self::UpdateSession => account::profile::describe_update_session(),
            Self::SendVerificationEmail => verify_email::describe_send(),
            Self::VerifyEmail => verify_email::describe_open(),
            Self::RequestPasswordReset => reset_password::describe_request(),
            Self::ResetPasswordLink => reset_password::describe_follow(),
            Self::ResetPassword => reset_password::describe_reset(),
            Self::ChangePassword => account::change_password::describe_change(),
            Self::SetPassword => account::change_password::describe_set(),
            Self::VerifyPassword => account::change_password::describe_verify(),
            Self::ChangeEmail => account::change_email::describe(),
            Self::UpdateUser => account::profile::describe_update(),
            Self::DeleteUser => account::delete_user::describe_delete(),
            Self::DeleteUserLink => account::delete_user::describe_follow(),
            Self::ListAccounts => account::ways_in::describe_list(),
            Self::UnlinkAccount => account::ways_in::describe_unlink(),
            Self::ListDeviceSessions => multi_session::describe_list(),
            Self::SetActiveSession => multi_session::describe_set_active(),
            Self::RevokeDeviceSession => multi_session::describe_revoke(),
            Self::SignInSocial => oauth::start::describe_sign_in(Family::Social),
            Self::SignInOAuth2 => oauth::start::describe_sign_in(Family::Generic),
            Self::LinkSocial => oauth::start::describe_link(Family::Social),
            Self::LinkOAuth2 => oauth::start::describe_link(Family::Generic),
            Self::Callback => oauth::callback::describe_follow(),
            Self::CallbackRelay | Self::OAuth2CallbackRelay => oauth::callback::describe_relay(),
            Self::GetAccessToken => oauth::tokens::describe_get_access_token(),
            Self::RefreshToken => oauth::tokens::describe_refresh(),
            Self::AccountInfo => oauth::tokens::describe_account_info(),
            Self::AccountInfoOfBody => oauth::tokens::describe_account_info_of_body(),
            Self::Me => who::describe_me(),
            Self::VerifyToken => who::describe_verify_token(),
            Self::Jwks => jwks::describe(),
            Self::ErrorPage => error_page::describe(),
            Self::Ok => Description::of(
                Group::Gateway,
                "Is anybody there?",
                "Says that the gateway answers, and nothing of what is behind it: `/readyz` on the admin listener does.",
            )
            .answers([Yes::json("The gateway answers.", object([("ok", always(true).into())]))]),
            Self::OpenApi => Description::of(Group::Gateway, "This document", "").answers([Yes::json(
                "The description of the API in OpenAPI 3.1.",
                ObjectBuilder::new(),
            )]),
            Self::Reference => Description::of(
                Group::Gateway,
                "This document as a page",
                "For people: the same as `openapi.json` says. It needs no script, and nothing from elsewhere.",
            )
            .answers([Yes::html("The page.")]),
        }
    }
}

fn document(config: &Config) -> OpenApi {
    let components = components(config);
    let mut paths = Paths::new();
    for route in ROUTES {
        let (path, segment) = template(route.path);
        let method = match route.method {
            Method::POST => HttpMethod::Post,
            _ => HttpMethod::Get,
        };
        let operation = operation(route, segment, config, &components);
        let item = PathItem::new(method, operation);
        match paths.paths.get_mut(&path) {
            Some(known) => known.merge_operations(item),
            None => {
                paths.paths.insert(path, item);
            }
        }
    }
    let auth = &config.auth;
    let server = format!("{}{}", config.server.public_url, auth.base_path);
    OpenApiBuilder::new()
        .info(
            InfoBuilder::new()
                .title("Vestibule auth API")
                .version(env!("CARGO_PKG_VERSION"))
                .description(Some(about())),
        )
        .servers(Some([ServerBuilder::new().url(server).build()]))
        .tags(Some(
            Group::ALL.map(|group| TagBuilder::new().name(group.name()).build()),
        ))
        .paths(paths)
        .components(Some(components))
        .build()
}

/// What holds for all endpoints.
fn about() -> String {
    let gate = answers::AT_THE_GATE.map(|code| format!("{} `{}`", code.status().as_u16(), code.as_str()));
    format!(
        "Sign-up, sign-in, sessions and accounts, compatible with better-auth's client: \
         `createAuthClient({{ baseURL }})` works as it is.\n\n\
         Bodies are JSON; unknown fields are ignored, and no body is as good as `{{}}` where no field is required. \
         Dates are UTC with three fractional digits. Answers are never to be cached, but for `jwks`.\n\n\
         A method or path that is not listed here is 404 with an empty body. A request that is not fit to be served at \
         all is refused before it reaches an endpoint: {}.\n\n\
         A session is carried by the cookie, or by the token in `Authorization: Bearer`. With a cookie, methods other \
         than GET need an `Origin` (or else a `Referer`) of this site or of a trusted one; so do sign-up and sign-in \
         from a browser even without.",
        gate.join(", ")
    )
}

/// As OpenAPI writes a path, and the name of the segment that varies.
fn template(path: &'static str) -> (String, Option<&'static str>) {
    match path.split_once(':') {
        Some((before, name)) => (format!("{before}{{{name}}}"), Some(name)),
        None => (path.to_owned(), None),
    }
}

fn operation(route: &Route, segment: Option<&str>, config: &Config, components: &Components) -> Operation {
    let description = route.endpoint.describe();
    let mut operation = OperationBuilder::new()
        .tag(description.group.name())
        .summary(Some(description.summary))
        .operation_id(Some(operation_id(route)))
        .request_body(body(route, &description, config, components));
    let details = details(route, description.details);
    if !details.is_empty() {
        operation = operation.description(Some(details));
    }
    if let Some(name) = segment {
        let shape = text(TOKEN).min_length(Some(1));
        operation = operation.parameter(parameter(name, ParameterIn::Path, description.segment, shape));
    }
    for field in &description.query {
        let says = field.describe().unwrap_or_default();
        let mut parameter = parameter(field.name, ParameterIn::Query, &says, field.shape(config));
        parameter.required = required(field.is_required);
        operation = operation.parameter(parameter);
    }
    for requirement in security(description.who) {
        operation = operation.security(requirement);
    }
    for (status, response) in answers::responses(route, description, components) {
        operation = operation.response(status.as_str(), response);
    }
    operation.build()
}

/// As the client's methods are called, where they have one: `signUpEmail`.
fn operation_id(route: &Route) -> String {
    let mut words = route
        .path
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|word| !word.is_empty());
    let first = words.next().unwrap_or_default().to_owned();
    let is_second = ROUTES
        .iter()
        .any(|other| other.path == route.path && other.method == Method::GET)
        && route.method == Method::POST;
    let start = if is_second {
        format!("post{}", capital(&first))
    } else {
        first
    };
    words.fold(start, |id, word| id + &capital(word))
}

fn capital(word: &str) -> String {
    let mut letters = word.chars();
    let first = letters.next().map(|letter| letter.to_ascii_uppercase());
    first.into_iter().chain(letters).collect()
}

/// An endpoint with two names says so at the second.
fn details(route: &Route, details: &str) -> String {
    let same = |other: &&Route| other.endpoint == route.endpoint && other.method == route.method;
    match ROUTES.iter().find(same) {
        Some(first) if first.path != route.path => {
            format!("Another name of `{} {}`.\n\n{details}", first.method, first.path)
                .trim_end()
                .to_owned()
        }
        _ => details.to_owned(),
    }
}

const fn required(is_required: bool) -> Required {
    if is_required { Required::True } else { Required::False }
}

fn parameter(name: &str, place: ParameterIn, says: &str, shape: ObjectBuilder) -> Parameter {
    ParameterBuilder::new()
        .name(name)
        .parameter_in(place)
        .required(Required::True)
        .description((!says.is_empty()).then_some(says))
        .schema(Some(shape))
        .build()
}

/// A body that may be left out is described too: what is sent has to be JSON.
fn body(route: &Route, description: &Description, config: &Config, components: &Components) -> Option<RequestBody> {
    if route.method != Method::POST {
        return None;
    }
    let fields = &description.body;
    let shown = fields.iter().filter(|field| field.is_shown).map(|field| {
        let example = answers::example(&field.shape(config).into(), components);
        (field.name.to_owned(), example)
    });
    let example = Value::Object(shown.collect());
    let content = |shape: Shape| {
        let content = ContentBuilder::new().schema(Some(shape));
        content.example(Some(example.clone())).build()
    };
    let is_needed = fields.iter().any(|field| field.is_required);
    let json = object_of(fields, |field| field.shape(config));
    let mut body = RequestBodyBuilder::new()
        .required(Some(required(is_needed)))
        .content("application/json", content(json));
    if route.accepts == Accepts::JsonAndForm {
        let form = object_of(fields, |field| field.form_shape(config));
        body = body.content("application/x-www-form-urlencoded", content(form));
    }
    Some(body.build())
}

fn object_of(fields: &[Field], shape: impl Fn(&Field) -> ObjectBuilder) -> Shape {
    if fields.is_empty() {
        return ObjectBuilder::new()
            .schema_type(SchemaType::AnyValue)
            .description(Some("Not looked at, beyond being JSON."))
            .into();
    }
    let object = fields.iter().fold(ObjectBuilder::new(), |object, field| {
        let object = object.property(field.name, shape(field).description(field.describe()));
        if field.is_required {
            object.required(field.name)
        } else {
            object
        }
    });
    object.into()
}

fn security(who: Who) -> Vec<SecurityRequirement> {
    let schemes = ["cookie", "bearer"].map(|name| SecurityRequirement::new::<_, [&str; 0], _>(name, []));
    match who {
        Who::Anybody => vec![SecurityRequirement::default()],
        Who::WithOrWithoutSession => [SecurityRequirement::default()].into_iter().chain(schemes).collect(),
        Who::WithSession | Who::WithSessionOrSilence | Who::WithFreshSession => schemes.into(),
    }
}

fn components(config: &Config) -> Components {
    let cookies = SessionCookies::new(&config.auth, &config.server.public_url);
    let cookie = ApiKeyValue::with_description(
        cookies.name(),
        "The session, as a browser carries it: the token and its signature.",
    );
    let bearer = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some(
            "The session token, with or without its signature: what `set-auth-token` says.",
        ))
        .build();
    let shapes = objects::shapes().into_iter().chain(answers::problem_shapes());
    ComponentsBuilder::new()
        .schemas_from_iter(shapes)
        .responses_from_iter(answers::shared())
        .security_scheme("cookie", SecurityScheme::ApiKey(ApiKey::Cookie(cookie)))
        .security_scheme("bearer", SecurityScheme::Http(bearer))
        .build()
}
