//! From what is said of an endpoint to every answer that it may give.
//!
//! A refusal is described by writing it: its status, code, message and header fields are read off the response that a
//! client would get. So a code that changes its status changes it in the document too.

use std::time::Duration;

use http::{HeaderName, Method, StatusCode, header};
use serde_json::{Value, json};
use utoipa::openapi::{
    Components, ContentBuilder, HeaderBuilder, ObjectBuilder, Ref, RefOr, Response, ResponseBuilder, Schema, Type,
    schema::{AllOfBuilder, AnyOfBuilder, ArrayItems},
};

use super::describe::{Description, Shape, Who, Work, Yes, named, object, text};
use crate::{
    auth::{AuthError, Route, error::Target, input::Accepts, password::PasswordError},
    db::DbError,
    policy::{
        csrf::{AuthOriginError, WithoutCookie},
        rate::Rule,
    },
    problem::{Code, Form, Problem},
};

/// Statuses whose refusals are the same wherever they occur: described once, by these names.
const SHARED: [(StatusCode, &str); 5] = [
    (StatusCode::REQUEST_TIMEOUT, "RequestTimeout"),
    (StatusCode::PAYLOAD_TOO_LARGE, "PayloadTooLarge"),
    (StatusCode::UNSUPPORTED_MEDIA_TYPE, "UnsupportedMediaType"),
    (StatusCode::TOO_MANY_REQUESTS, "TooManyRequests"),
    (StatusCode::INTERNAL_SERVER_ERROR, "InternalError"),
];

/// Of the example.
const WAIT: Duration = Duration::from_secs(10);

const JSON: &str = "application/json";

/// What requests get that are refused before anybody asks which endpoint they are for.
pub(super) const AT_THE_GATE: [Code; 7] = [
    Code::BadPath,
    Code::BadHost,
    Code::BadHeader,
    Code::MisdirectedRequest,
    Code::ExpectationFailed,
    Code::UnsupportedCoding,
    Code::HeadersTooLarge,
];

/// A refusal as the client reads it.
struct Refusal {
    status: StatusCode,
    headers: Vec<HeaderName>,
    /// `Null`: there is none.
    body: Value,
}

impl Refusal {
    fn of(problem: Problem) -> Self {
        let response = problem.into_response(Form::Json, "01J8Z4T0K3V5W7");
        let told = [
            header::WWW_AUTHENTICATE,
            header::ALLOW,
            header::RETRY_AFTER,
            X_RETRY_AFTER,
        ];
        let has = |name: &HeaderName| response.headers().contains_key(name);
        Self {
            status: response.status(),
            headers: told.into_iter().filter(has).collect(),
            body: serde_json::from_slice(response.body()).unwrap_or_default(),
        }
    }

    fn code(&self) -> Option<&str> {
        self.body.get("code").and_then(Value::as_str)
    }

    fn message(&self) -> &str {
        self.body.get("message").and_then(Value::as_str).unwrap_or_default()
    }
}

const X_RETRY_AFTER: HeaderName = HeaderName::from_static("x-retry-after");

/// All that an endpoint may refuse, its own refusals first.
fn refusals(route: &Route, description: Description) -> Vec<Problem> {
    let checked = description.first_checked().map(|(part, field)| {
        format!(
            "[{part}.{}] Invalid input: expected string, received undefined",
            field.name
        )
    });
    let mut errors = Vec::new();
    errors.extend(checked.map(AuthError::Validation));
    match description.who {
        Who::Anybody | Who::WithOrWithoutSession => {}
        Who::WithSession => errors.push(AuthError::Unauthorized),
        Who::WithSessionOrSilence => errors.push(AuthError::NoSession),
        Who::WithFreshSession => errors.extend([AuthError::Unauthorized, AuthError::NotFresh]),
    }
    errors.extend(description.refusals);
    if route.method == Method::POST {
        errors.extend([AuthError::BadJson, AuthError::BadBody]);
        if route.accepts == Accepts::JsonAndForm {
            errors.push(AuthError::RepeatedField);
        }
        errors.extend([
            AuthError::UnsupportedMediaType {
                found: "text/plain".to_owned(),
                allowed: "application/json",
            },
            AuthError::BodyTooLarge,
            AuthError::BodyTimeout,
        ]);
    }
    let is_judged = route.method == Method::POST && !route.is_relay;
    if is_judged {
        errors.extend([
            AuthError::Origin(AuthOriginError::Missing),
            AuthError::Origin(AuthOriginError::Invalid),
        ]);
    }
    if route.without_cookie == WithoutCookie::SignsIn {
        errors.push(AuthError::Origin(AuthOriginError::CrossSiteLogin));
    }
    // In what is posted, targets are judged wherever they appear, also where nothing is done with them.
    if is_judged {
        errors.push(AuthError::TargetNotText(Target::Callback));
        errors.extend(Target::ALL.map(AuthError::ForeignTarget));
    } else if route.is_link {
        errors.push(AuthError::ForeignTarget(Target::Callback));
    }
    let away = || AuthError::Db(DbError::Unavailable("away".into()));
    match description.work {
        Work::None => {}
        // From beyond private networks made-up tokens are counted, though requests are not.
        Work::LookUp => errors.extend([away(), AuthError::TooManyRequests(WAIT)]),
        Work::Database => errors.extend([away(), AuthError::Hashing(PasswordError::Failed)]),
        Work::DatabaseAndHashing => errors.extend([
            away(),
            AuthError::Hashing(PasswordError::Busy),
            AuthError::Hashing(PasswordError::Failed),
        ]),
    }
    if Rule::of(route.path).is_some() {
        errors.push(AuthError::TooManyRequests(WAIT));
    }
    let problems = errors.into_iter().map(Problem::from);
    // A client that fills in a path can make one that is none.
    let bad_path = route.path.contains(':').then(|| Problem::new(Code::BadPath));
    problems.chain(bad_path).collect()
}

/// The responses of an endpoint by status, and those of [`shared`] by reference.
pub(super) fn responses(
    route: &Route,
    mut description: Description,
    components: &Components,
) -> Vec<(StatusCode, RefOr<Response>)> {
    // A session that is used may be extended, and one that is dead is cleared away, whatever the answer is.
    let uses_session = description.who != Who::Anybody && description.work != Work::LookUp;
    let used = if uses_session { &USED[..] } else { &[] };
    let cookie = description.refusal_cookie;
    let mut answers = std::mem::take(&mut description.answers);
    for answer in &mut answers {
        for (name, says) in used {
            if answer.headers.iter().all(|(other, _)| other != name) {
                answer.headers.push((name, says));
            }
        }
    }
    let refusals: Vec<_> = refusals(route, description).into_iter().map(Refusal::of).collect();
    let mut statuses: Vec<_> = refusals.iter().map(|refusal| refusal.status).collect();
    statuses.sort_unstable();
    statuses.dedup();
    let yes = answers
        .into_iter()
        .map(|answer| (answer.status, success(answer, components).into()));
    let no = statuses.into_iter().map(|status| {
        let same = refusals.iter().filter(|refusal| refusal.status == status);
        let own = cookie
            .filter(|(own, _)| *own == status)
            .map(|(_, says)| ("Set-Cookie", says));
        let used = if status.is_client_error() { used } else { &[] };
        let response = SHARED.iter().find(|(known, _)| *known == status).map_or_else(
            || refused(same, own.as_slice().iter().chain(used)).into(),
            |(_, name)| Ref::from_response_name(*name).into(),
        );
        (status, response)
    });
    yes.chain(no).collect()
}

const USED: [(&str, &str); 2] = [
    (
        "Set-Cookie",
        "The session cookie once more, when this use extends the session; its removal, when it is dead.",
    ),
    (
        "set-auth-token",
        "The session token, when this use extends the session.",
    ),
];

/// What [`responses`] refers to.
pub(super) fn shared() -> impl Iterator<Item = (&'static str, Response)> {
    let problems = || {
        [
            AuthError::BodyTimeout,
            AuthError::BodyTooLarge,
            AuthError::UnsupportedMediaType {
                found: "text/plain".to_owned(),
                allowed: "application/json",
            },
            AuthError::TooManyRequests(WAIT),
            AuthError::Hashing(PasswordError::Failed),
        ]
        .into_iter()
        .map(|error| Refusal::of(error.into()))
    };
    SHARED.into_iter().map(move |(status, name)| {
        let refusals: Vec<_> = problems().filter(|refusal| refusal.status == status).collect();
        (name, refused(refusals.iter(), [].iter()))
    })
}

fn success(answer: Yes, components: &Components) -> Response {
    let mut response = ResponseBuilder::new().description(answer.says);
    for (name, says) in answer.headers {
        response = response.header(name, field(name, says));
    }
    if let Some((media, shape)) = answer.body {
        let example = (media == JSON)
            .then(|| example(&shape, components))
            .filter(|it| !it.is_null());
        let content = ContentBuilder::new().schema(Some(shape)).example(example);
        response = response.content(media, content.build());
    }
    response.build()
}

/// One response for all refusals with a status: a client that knows the code knows which it is.
fn refused<'r>(
    refusals: impl Iterator<Item = &'r Refusal>,
    besides: impl Iterator<Item = &'r (&'static str, &'static str)>,
) -> Response {
    let mut codes: Vec<&str> = Vec::new();
    let mut lines: Vec<String> = Vec::new();
    let mut headers: Vec<&HeaderName> = Vec::new();
    let mut has_codeless = false;
    let mut example = Value::Null;
    for refusal in refusals {
        let line = match (refusal.code(), &refusal.body) {
            (Some(code), _) if codes.contains(&code) => continue,
            (Some(code), _) => {
                codes.push(code);
                format!("- `{code}`: {}", refusal.message())
            }
            (None, Value::Null) if refusal.status == StatusCode::UNAUTHORIZED => {
                "- with an empty body: there is no session".to_owned()
            }
            (None, Value::Null) => "- with an empty body: this is switched off".to_owned(),
            (None, _) => {
                has_codeless = true;
                format!("- without a code: {}", refusal.message())
            }
        };
        if !lines.contains(&line) {
            lines.push(line);
        }
        if example.is_null() {
            example.clone_from(&refusal.body);
        }
        headers.extend(&refusal.headers);
    }
    let mut response = ResponseBuilder::new().description(lines.join("\n"));
    for name in headers {
        let (name, says) = about(name);
        response = response.header(name, field(name, says));
    }
    for (name, says) in besides {
        response = response.header(*name, field(name, says));
    }
    let mut shapes: Vec<Shape> = Vec::new();
    if !codes.is_empty() {
        let code = ObjectBuilder::new().schema_type(Type::String).enum_values(Some(codes));
        let with_code = AllOfBuilder::new()
            .item(named("Problem"))
            .item(object([("code", code.into())]));
        shapes.push(with_code.into());
    }
    if has_codeless {
        shapes.push(named("CodelessProblem"));
    }
    if let Some(shape) = any_of(shapes) {
        let content = ContentBuilder::new().schema(Some(shape)).example(Some(example));
        response = response.content(JSON, content.build());
    }
    response.build()
}

fn any_of(mut shapes: Vec<Shape>) -> Option<Shape> {
    let last = shapes.pop()?;
    if shapes.is_empty() {
        return Some(last);
    }
    let any = shapes.into_iter().chain([last]);
    Some(any.fold(AnyOfBuilder::new(), AnyOfBuilder::item).into())
}

fn about(name: &HeaderName) -> (&'static str, &'static str) {
    match name.as_str() {
        "www-authenticate" => ("WWW-Authenticate", "How to authenticate."),
        "allow" => ("Allow", "The method that this path is read with."),
        "retry-after" => ("Retry-After", "Seconds after which to try again."),
        _ => ("X-Retry-After", "The same, as the client reads it."),
    }
}

fn field(name: &str, says: &str) -> utoipa::openapi::Header {
    let kind = if name.ends_with("Retry-After") {
        Type::Integer
    } else {
        Type::String
    };
    HeaderBuilder::new()
        .schema(Some(ObjectBuilder::new().schema_type(kind)))
        .description(Some(says))
        .build()
}

/// The bodies of refusals.
pub(super) fn problem_shapes() -> [(&'static str, Shape); 2] {
    let message = || text("Invalid email or password").description(Some("For people."));
    let request = || {
        text("01J8Z4T0K3V5W7").description(Some(
            "Names the request in the gateway's log, and in the `X-Request-Id` that upstreams see.",
        ))
    };
    let code = text(Code::InvalidEmailOrPassword.as_str()).description(Some("For programs: it does not change."));
    let with_code = object([
        ("code", code.into()),
        ("message", message().into()),
        ("requestId", request().into()),
    ]);
    let without = object([("message", message().into()), ("requestId", request().into())]);
    [
        ("Problem", with_code.description(Some("A refusal.")).into()),
        (
            "CodelessProblem",
            without
                .description(Some("A refusal that has no code, for the contract has none."))
                .into(),
        ),
    ]
}

/// An instance of a shape, made of the examples in it.
pub(super) fn example(shape: &Shape, components: &Components) -> Value {
    match shape {
        RefOr::Ref(reference) => {
            let name = reference.ref_location.rsplit('/').next().unwrap_or_default();
            let shape = components.schemas.get(name);
            shape.map_or(Value::Null, |shape| example(shape, components))
        }
        RefOr::T(Schema::Array(array)) => match &array.items {
            ArrayItems::RefOrSchema(items) => json!([example(items, components)]),
            ArrayItems::False => json!([]),
        },
        RefOr::T(Schema::OneOf(one)) => {
            let first = one.items.first();
            first.map_or(Value::Null, |shape| example(shape, components))
        }
        RefOr::T(Schema::Object(object)) if !object.properties.is_empty() => {
            let shown = object
                .properties
                .iter()
                .filter(|(name, _)| object.required.contains(name));
            let values = shown.map(|(name, shape)| (name.clone(), example(shape, components)));
            Value::Object(values.collect())
        }
        RefOr::T(Schema::Object(object)) => {
            let words = object.enum_values.as_ref().and_then(|words| words.first());
            object.examples.first().or(words).cloned().unwrap_or_default()
        }
        RefOr::T(_) => Value::Null,
    }
}
