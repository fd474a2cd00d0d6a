//! `[[routes]]`: which requests go to which upstream, and what they must bring.

use std::time::Duration;

use http::Method;

use super::{
    Facts, OriginPattern, PathPattern, Segment,
    error::{Place, nearest},
    found::Wrong,
    kind::{Kind, boolean, choice, list, parsed},
    method::method,
    origin::origin_pattern,
    section::Section,
    server::{body_size, host_name},
    units::nonzero_duration,
};

#[derive(Clone, Debug)]
pub struct Route {
    /// Lower case, without port; `None` = any host that is served.
    pub host: Option<String>,
    pub path: PathPattern,
    /// Empty = any method.
    pub methods: Vec<Method>,
    /// Index into [`super::Config::upstreams`].
    pub upstream: usize,
    pub access: Access,
    pub on_denied: OnDenied,
    /// `None`: `server.max_body`.
    pub max_body: Option<u64>,
    /// `None`: the upstream's `response_timeout`.
    pub timeout: Option<Duration>,
    pub cors: Cors,
    /// Where it stands in the file, for `explain` and errors: line of its `[[routes]]`; 0 if it isn't from there.
    pub line: usize,
}

/// What a route demands of whoever calls.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Access {
    Public,
    /// The identity if there is one.
    Optional,
    Required(Needs),
}

/// What a session must have on top of being live. All must hold.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Needs {
    /// One of these is enough; empty = any.
    pub roles: Vec<String>,
    pub verified_email: bool,
}

/// What a refused request is answered with.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum OnDenied {
    /// A browser navigation is sent to the sign-in page, everything else gets the status.
    Auto,
    Status,
    SignIn,
}

/// Which other origins' pages may call a route and read its answers.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Cors {
    /// Those of `auth.trusted_origins`.
    Trusted,
    /// These and no others.
    Listed(Vec<OriginPattern>),
    /// The upstream says so itself.
    Upstream,
}

impl Cors {
    /// Origins that the route names itself.
    pub fn listed(&self) -> &[OriginPattern] {
        match self {
            Self::Listed(patterns) => patterns,
            Self::Trusted | Self::Upstream => &[],
        }
    }
}

/// A route, and where errors about it belong.
pub(super) struct Listed {
    pub route: Route,
    /// `routes[2]`.
    pub key: String,
    pub path_place: Place,
    pub methods_place: Place,
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum Auth {
    Public,
    Optional,
    Required,
}

impl Route {
    pub(super) fn read(s: &mut Section<'_>, facts: &Facts) -> Option<Listed> {
        let path = s
            .key(
                "path",
                "\"/exact\"; \"/users/{id}/x\", where {id} is any one segment; \"/a/*\", which is /a and all below it.",
                path(),
            )
            .required("/api/*");
        let host = s
            .key(
                "host",
                "Only for requests to this host. Absent: any host that is served.",
                parsed("a host name such as \"api.example.com\", without a port", host_name),
            )
            .optional("api.example.com");
        let methods = s
            .key(
                "methods",
                "Only for these methods; HEAD comes with GET. Empty: any.",
                list(method()),
            )
            .or("[]");
        let upstream = s
            .key(
                "upstream",
                "Who gets the requests: a name from [upstreams].",
                parsed("the name of an upstream", |name| Ok(name.to_owned())),
            )
            .required("api");
        let auth = s
            .key(
                "auth",
                "\"required\": a session; \"optional\": the identity if there is a session; \"public\": no identity.",
                choice(&[
                    ("required", Auth::Required),
                    ("optional", Auth::Optional),
                    ("public", Auth::Public),
                ]),
            )
            .or("required");
        let on_denied = s
            .key(
                "on_denied",
                "What a refused request gets. \"auto\": a browser navigation is sent to `auth.pages.sign_in`, everything \
                 else gets 401 or 403; \"status\": always that; \"sign-in\": always the page.",
                choice(&[
                    ("auto", OnDenied::Auto),
                    ("status", OnDenied::Status),
                    ("sign-in", OnDenied::SignIn),
                ]),
            )
            .or("auto");
        let max_body = s
            .key(
                "max_body",
                "The largest request body. Absent: `server.max_body`.",
                body_size(),
            )
            .optional("100MiB");
        let timeout = s
            .key(
                "timeout",
                "How long the upstream may take to begin its answer. Absent: its `response_timeout`.",
                nonzero_duration(),
            )
            .optional("60s");
        let cors = s
            .key(
                "cors",
                "Which other origins' pages may call this route with cookies and read its answers. An array: these and no \
                 others; \"upstream\": the upstream says so itself, and gets preflights without a session. Absent: \
                 public_url and `auth.trusted_origins`.",
                cors(),
            )
            .optional("[\"https://partner.example.com\"]");
        let needs = s.section(
            "require",
            "What the session must have; all of it. Also: require = { roles = [\"admin\"] }.",
            Needs::read,
        );
        if auth.is_some_and(|auth| auth != Auth::Required) {
            for key in ["require", "on_denied"] {
                if s.has(key) {
                    s.report(
                        s.wrong(key, "nobody is refused on a route whose `auth` is not \"required\"")
                            .allowed("auth = \"required\", or no such key"),
                    );
                }
            }
        }
        if on_denied == Some(OnDenied::SignIn) && facts.sign_in_page == Some(None) {
            s.report(
                s.wrong("on_denied", "there is no sign-in page to send people to")
                    .found("\"sign-in\"")
                    .allowed("\"status\", or a page in `auth.pages.sign_in`"),
            );
        }
        if let (Some(path), Some(base)) = (&path, &facts.base_path)
            && is_below(path, base)
        {
            s.report(
                s.wrong(
                    "path",
                    "never reached: the gateway itself answers below `auth.base_path`",
                )
                .found(format!("{:?}", path.text))
                .allowed(format!("a path outside of {base}")),
            );
        }
        let upstream = upstream.and_then(|name| {
            let index = facts.upstreams.iter().position(|known| *known == name);
            if index.is_none() {
                let known = &facts.upstreams;
                let allowed = if known.is_empty() {
                    format!("a name from [upstreams]; add [upstreams.{name}]")
                } else {
                    known.join(", ")
                };
                s.report(
                    s.wrong("upstream", "no such upstream")
                        .found(format!("{name:?}"))
                        .allowed(allowed)
                        .nearest(nearest(&name, known.iter().map(String::as_str))),
                );
            }
            index
        });
        let access = match auth {
            Some(Auth::Public) => Some(Access::Public),
            Some(Auth::Optional) => Some(Access::Optional),
            Some(Auth::Required) => needs.map(Access::Required),
            None => None,
        };
        Some(Listed {
            key: s.path().to_owned(),
            path_place: s.wrong("path", "").place,
            methods_place: s.wrong("methods", "").place,
            route: Self {
                host: host?,
                path: path?,
                methods: methods?,
                access: access?,
                // What is wrong with these has been reported: nobody gets the route, but it is still compared.
                upstream: upstream.unwrap_or_default(),
                on_denied: on_denied.unwrap_or(OnDenied::Auto),
                max_body: max_body.flatten(),
                timeout: timeout.flatten(),
                cors: cors.flatten().unwrap_or(Cors::Trusted),
                line: match s.place() {
                    Place::File { line, .. } => *line,
                    Place::Missing | Place::Variable(_) | Place::Setting(_) | Place::Default => 0,
                },
            },
        })
    }
}

impl Needs {
    fn read(s: &mut Section<'_>) -> Option<Self> {
        let roles = s
            .key("roles", "One of these roles; empty: none is needed.", list(role()))
            .or("[]");
        let verified_email = s
            .key("verified_email", "A verified e-mail address.", boolean())
            .or("false");
        Some(Self {
            roles: roles?,
            verified_email: verified_email?,
        })
    }
}

fn path() -> Kind<PathPattern> {
    parsed(
        "a path such as \"/exact\", \"/users/{id}/x\" or \"/a/*\"",
        PathPattern::parse,
    )
}

fn cors() -> Kind<Cors> {
    let listed = list(origin_pattern()).map(Cors::Listed);
    let mut word = parsed(format!("{}; or \"upstream\"", listed.allowed), |text| match text {
        "upstream" => Ok(Cors::Upstream),
        "*" => Err("answers depend on cookies, and of those browsers let nobody read who isn't named".into()),
        // One origin is a list too, but must be written as one.
        _ if OriginPattern::parse(text).is_ok() => Err(Wrong::but("not an array", format!("[{text:?}]"))),
        _ => Err(Wrong {
            problem: "not one of the values allowed".to_owned(),
            nearest: nearest(text, ["upstream"]),
        }),
    });
    word.schema = choice(&[("upstream", ())]).schema;
    listed.otherwise(word)
}

pub(super) fn role() -> Kind<String> {
    parsed("1 to 64 letters, digits, `.`, `_`, `:` and `-`", |text| {
        let plain = text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b':' | b'-'));
        if plain && (1..=64).contains(&text.len()) {
            Ok(text.to_owned())
        } else {
            Err("not a role".into())
        }
    })
}

/// Whether every path that `pattern` matches is `base` or below it. Segments are compared decoded, as in matching.
fn is_below(pattern: &PathPattern, base: &str) -> bool {
    let decoded = |text: &str| percent_encoding::percent_decode_str(text).collect::<Vec<u8>>();
    let base: Vec<&str> = base.split('/').skip(1).collect();
    let begins_so = base.iter().zip(&pattern.segments).all(|(base, segment)| match segment {
        Segment::Literal(text) => decoded(text) == decoded(base),
        Segment::Parameter(_) => false,
    });
    begins_so && pattern.segments.len() >= base.len()
}
