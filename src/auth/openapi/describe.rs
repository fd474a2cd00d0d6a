//! The words in which an endpoint says what it does, for `openapi.json`.
//!
//! Each behaviour has a `describe` function in its own file, next to what it describes. It names refusals by the errors
//! that the behaviour returns, never by status or message: those are asked of the error itself. What follows from the
//! kind of endpoint (who may ask, what it reads, what work it does) is added by `answers`, and not said here.

use http::StatusCode;
use serde_json::Value;
use utoipa::openapi::{
    ArrayBuilder, KnownFormat, ObjectBuilder, Ref, RefOr, Schema, SchemaFormat, Type, schema::SchemaType,
};

use crate::{
    auth::{
        AuthError,
        input::{MAX_PICTURE, MAX_TARGET, NOT_TICKED, TICKED},
    },
    config::Config,
};

/// A JSON value, described.
pub(in crate::auth) type Shape = RefOr<Schema>;

/// What is to be known of an endpoint.
pub(in crate::auth) struct Description {
    pub(super) group: Group,
    pub(super) summary: &'static str,
    pub(super) details: &'static str,
    pub(super) who: Who,
    pub(super) work: Work,
    pub(super) segment: &'static str,
    pub(super) query: Vec<Field>,
    pub(super) body: Vec<Field>,
    pub(super) answers: Vec<Yes>,
    pub(super) refusals: Vec<AuthError>,
    pub(super) refusal_cookie: Option<(StatusCode, &'static str)>,
}

/// What belongs together on the page.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::auth) enum Group {
    SigningIn,
    Sessions,
    Verification,
    Password,
    Account,
    Providers,
    People,
    Applications,
    Gateway,
}

impl Group {
    pub(super) const ALL: [Self; 9] = [
        Self::SigningIn,
        Self::Sessions,
        Self::Verification,
        Self::Password,
        Self::Account,
        Self::Providers,
        Self::People,
        Self::Applications,
        Self::Gateway,
    ];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::SigningIn => "Signing up, in and out",
            Self::Sessions => "Sessions",
            Self::Verification => "Verifying an address",
            Self::Password => "Passwords",
            Self::Account => "Account",
            Self::Providers => "Signing in at providers",
            Self::People => "Several people in one browser",
            Self::Applications => "For applications",
            Self::Gateway => "The gateway itself",
        }
    }
}

/// Who may ask.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::auth) enum Who {
    Anybody,
    /// A session changes the answer, but none is needed.
    WithOrWithoutSession,
    WithSession,
    /// As before, and whoever has none is told so without a word (section 11).
    WithSessionOrSilence,
    /// Whose user signed in lately.
    WithFreshSession,
}

/// What an endpoint can't do without, and hence what it refuses while that is missing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::auth) enum Work {
    None,
    /// Looking a session up as the data path does.
    LookUp,
    Database,
    DatabaseAndHashing,
}

impl Description {
    pub(in crate::auth) const fn of(group: Group, summary: &'static str, details: &'static str) -> Self {
        Self {
            group,
            summary,
            details,
            who: Who::Anybody,
            work: Work::None,
            segment: "",
            query: Vec::new(),
            body: Vec::new(),
            answers: Vec::new(),
            refusals: Vec::new(),
            refusal_cookie: None,
        }
    }

    pub(in crate::auth) const fn who(mut self, who: Who) -> Self {
        self.who = who;
        self
    }

    pub(in crate::auth) const fn work(mut self, work: Work) -> Self {
        self.work = work;
        self
    }

    /// What stands for the `:name` of the path.
    pub(in crate::auth) const fn segment(mut self, says: &'static str) -> Self {
        self.segment = says;
        self
    }

    pub(in crate::auth) fn query(mut self, fields: impl Into<Vec<Field>>) -> Self {
        self.query = fields.into();
        self
    }

    pub(in crate::auth) fn body(mut self, fields: impl Into<Vec<Field>>) -> Self {
        self.body = fields.into();
        self
    }

    pub(in crate::auth) fn answers(mut self, answers: impl Into<Vec<Yes>>) -> Self {
        self.answers = answers.into();
        self
    }

    pub(in crate::auth) fn refuses(mut self, refusals: impl Into<Vec<AuthError>>) -> Self {
        self.refusals = refusals.into();
        self
    }

    /// A refusal with this status may set a cookie.
    pub(in crate::auth) const fn refusal_sets_cookie(mut self, status: StatusCode, says: &'static str) -> Self {
        self.refusal_cookie = Some((status, says));
        self
    }

    /// The first field, in order, that is refused if it is not what it should be; `body` or `query` before it.
    pub(super) fn first_checked(&self) -> Option<(&'static str, &Field)> {
        let body = self.body.iter().map(|field| ("body", field));
        let query = self.query.iter().map(|field| ("query", field));
        body.chain(query).find(|(_, field)| field.is_checked)
    }
}

/// Something that a body or a query may say.
pub(in crate::auth) struct Field {
    pub(super) name: &'static str,
    pub(super) is_required: bool,
    pub(super) is_checked: bool,
    /// Whether the example has it.
    pub(super) is_shown: bool,
    says: &'static str,
    kind: Kind,
}

#[derive(Clone, Copy)]
enum Kind {
    Text { example: &'static str },
    Picture,
    NullablePicture,
    Address,
    Password,
    NewPassword,
    Flag { default: bool },
    Anything,
    Target,
    Texts { example: &'static [&'static str] },
    Object,
}

impl Field {
    const fn new(name: &'static str, kind: Kind) -> Self {
        Self {
            name,
            is_required: false,
            is_checked: true,
            is_shown: false,
            says: "",
            kind,
        }
    }

    pub(in crate::auth) const fn text(name: &'static str, example: &'static str) -> Self {
        Self::new(name, Kind::Text { example })
    }

    /// Where a picture is.
    pub(in crate::auth) const fn picture(name: &'static str) -> Self {
        Self::new(name, Kind::Picture)
    }

    pub(in crate::auth) const fn nullable_picture(name: &'static str) -> Self {
        Self::new(name, Kind::NullablePicture)
    }

    pub(in crate::auth) const fn address(name: &'static str) -> Self {
        Self::new(name, Kind::Address)
    }

    /// A password to be compared.
    pub(in crate::auth) const fn password(name: &'static str) -> Self {
        Self::new(name, Kind::Password)
    }

    /// A password to be set.
    pub(in crate::auth) const fn new_password(name: &'static str) -> Self {
        Self::new(name, Kind::NewPassword)
    }

    pub(in crate::auth) const fn flag(name: &'static str, default: bool) -> Self {
        Self::new(name, Kind::Flag { default })
    }

    /// Set by whatever is not empty.
    pub(in crate::auth) const fn anything(name: &'static str) -> Self {
        Self::new(name, Kind::Anything).unchecked()
    }

    /// Where a redirect or a mailed link is to lead.
    pub(in crate::auth) const fn target(name: &'static str) -> Self {
        Self::new(name, Kind::Target)
    }

    /// A list of texts.
    pub(in crate::auth) const fn texts(name: &'static str, example: &'static [&'static str]) -> Self {
        Self::new(name, Kind::Texts { example })
    }

    pub(in crate::auth) const fn object(name: &'static str) -> Self {
        Self::new(name, Kind::Object)
    }

    pub(in crate::auth) const fn required(mut self) -> Self {
        self.is_required = true;
        self.is_shown = true;
        self
    }

    /// Not required, but what a request without it would be about is not what an example should show.
    pub(in crate::auth) const fn shown(mut self) -> Self {
        self.is_shown = true;
        self
    }

    /// Whatever it is, the request is not refused for it.
    pub(in crate::auth) const fn unchecked(mut self) -> Self {
        self.is_checked = false;
        self
    }

    pub(in crate::auth) const fn says(mut self, says: &'static str) -> Self {
        self.says = says;
        self
    }

    /// What people have to know of it.
    pub(super) fn describe(&self) -> Option<String> {
        let usual = match self.kind {
            Kind::Address => "An e-mail address; upper case is taken for lower case.",
            Kind::NewPassword => "The password to be set. Its length is counted in UTF-16 units, as JavaScript does.",
            Kind::Target => "A path of the site, or a URL of a trusted origin.",
            Kind::Picture | Kind::NullablePicture => "A URL of http or https, or a path.",
            Kind::Text { .. }
            | Kind::Password
            | Kind::Flag { .. }
            | Kind::Anything
            | Kind::Texts { .. }
            | Kind::Object => "",
        };
        let sentences: Vec<_> = [self.says, usual].into_iter().filter(|says| !says.is_empty()).collect();
        (!sentences.is_empty()).then(|| sentences.join(" "))
    }

    /// As a form says it, where everything is text.
    pub(super) fn form_shape(&self, config: &Config) -> ObjectBuilder {
        match self.kind {
            Kind::Flag { .. } => string().enum_values(Some(TICKED.into_iter().chain(NOT_TICKED))),
            _ => self.shape(config),
        }
    }

    pub(super) fn shape(&self, config: &Config) -> ObjectBuilder {
        let rules = &config.auth.password;
        let secret = || text(PASSWORD).format(Some(SchemaFormat::KnownFormat(KnownFormat::Password)));
        match self.kind {
            Kind::Text { example } => text(example),
            Kind::Picture => text(PICTURE).max_length(Some(MAX_PICTURE)),
            Kind::NullablePicture => nullable_text(PICTURE).max_length(Some(MAX_PICTURE)),
            Kind::Address => text("ada@example.com")
                .format(Some(SchemaFormat::Custom("email".to_owned())))
                .max_length(Some(254)),
            Kind::Password => secret(),
            Kind::NewPassword => secret()
                .min_length(Some(rules.min_length))
                .max_length(Some(rules.max_length)),
            Kind::Flag { default } => flag(!default).default(Some(default.into())),
            Kind::Anything => ObjectBuilder::new()
                .schema_type(SchemaType::AnyValue)
                .examples(["true"]),
            Kind::Texts { example } => ObjectBuilder::new().schema_type(Type::Array).examples([example]),
            Kind::Object => ObjectBuilder::new().schema_type(Type::Object),
            Kind::Target => text("/welcome")
                .format(Some(SchemaFormat::Custom("uri-reference".to_owned())))
                .max_length(Some(MAX_TARGET)),
        }
    }
}

/// As our tokens look, those of sessions and those of mails.
pub(in crate::auth) const TOKEN: &str = "Zx4mR0bW7sQh1TnV9cKdLuYp2gAeJf8iMo5tBwNqXrE";

const PICTURE: &str = "https://example.com/ada.png";

const PASSWORD: &str = "correct horse battery staple";

/// An answer that says yes.
pub(in crate::auth) struct Yes {
    pub(super) status: StatusCode,
    pub(super) says: &'static str,
    pub(super) body: Option<(&'static str, Shape)>,
    pub(super) headers: Vec<(&'static str, &'static str)>,
}

impl Yes {
    pub(in crate::auth) fn json(says: &'static str, shape: impl Into<Shape>) -> Self {
        Self {
            status: StatusCode::OK,
            says,
            body: Some(("application/json", shape.into())),
            headers: Vec::new(),
        }
    }

    pub(in crate::auth) fn html(says: &'static str) -> Self {
        Self {
            body: Some(("text/html", string().into())),
            ..Self::json(says, string())
        }
    }

    pub(in crate::auth) fn redirect(says: &'static str) -> Self {
        Self {
            status: StatusCode::FOUND,
            says,
            body: None,
            headers: vec![("Location", "Where to go.")],
        }
    }

    pub(in crate::auth) fn header(mut self, name: &'static str, says: &'static str) -> Self {
        self.headers.push((name, says));
        self
    }

    /// With the session, in both of its forms.
    pub(in crate::auth) fn hands_out_session(self) -> Self {
        self.header("Set-Cookie", "The session cookie, and marks that belong to it.")
            .header(
                "set-auth-token",
                "The session token for clients without cookies, to be sent as `Authorization: Bearer`.",
            )
    }
}

fn string() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String)
}

pub(in crate::auth) fn text(example: &str) -> ObjectBuilder {
    string().examples([example])
}

pub(in crate::auth) fn nullable_text(example: impl Into<Value>) -> ObjectBuilder {
    ObjectBuilder::new()
        .schema_type(SchemaType::from_iter([Type::String, Type::Null]))
        .examples([example.into()])
}

/// One of a few words.
pub(in crate::auth) fn word<const N: usize>(words: [&str; N]) -> ObjectBuilder {
    string().enum_values(Some(words))
}

/// UTC with three fractional digits: all that the client reads right.
pub(in crate::auth) fn date() -> ObjectBuilder {
    text("2026-11-21T07:15:08.894Z").format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)))
}

pub(in crate::auth) fn nullable_date() -> ObjectBuilder {
    date()
        .schema_type(SchemaType::from_iter([Type::String, Type::Null]))
        .examples([Value::Null])
}

pub(in crate::auth) fn flag(example: bool) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::Boolean).examples([example])
}

/// Never anything but this.
pub(in crate::auth) fn always(value: bool) -> ObjectBuilder {
    ObjectBuilder::new()
        .schema_type(Type::Boolean)
        .enum_values(Some([value]))
}

/// An object with all these fields. What may be left out is added to it with `property`.
pub(in crate::auth) fn object<const N: usize>(fields: [(&str, Shape); N]) -> ObjectBuilder {
    fields.into_iter().fold(
        ObjectBuilder::new().schema_type(Type::Object),
        |object, (name, shape)| object.property(name, shape).required(name),
    )
}

pub(in crate::auth) fn list(items: Shape) -> Shape {
    ArrayBuilder::new().items(items).into()
}

/// A shape that has a name.
pub(in crate::auth) fn named(name: &str) -> Shape {
    Ref::from_schema_name(name).into()
}

/// That, or `null`.
pub(in crate::auth) fn or_null(shape: Shape) -> Shape {
    utoipa::openapi::schema::OneOfBuilder::new()
        .item(shape)
        .item(ObjectBuilder::new().schema_type(Type::Null))
        .into()
}
