//! `[[routes]]`: which requests are answered by what, and what they must bring.

use std::{sync::Arc, time::Duration};

use http::Method;

use super::{
    Facts, OriginPattern, PathPattern, Segment,
    error::{Place, nearest},
    found::Wrong,
    kind::{Kind, boolean, choice, integer, list, parsed},
    method::method,
    origin::origin_pattern,
    section::Section,
    server::body_size,
    units::nonzero_duration,
};

mod header_rules;
mod host;
mod rate_limit;
mod redirect;
mod rewrite;
mod rules;
mod target;

pub use header_rules::HeaderRules;
pub use host::HostPattern;
pub use rate_limit::{LimitedBy, RouteLimit};
pub use redirect::{Piece, Redirect};
pub use rewrite::Rewrite;
pub use target::{Files, FixedAnswer, Target};

use header_rules::Way;

#[derive(Clone, Debug)]
pub struct Route {
    /// `None` = any host that is served.
    pub host: Option<HostPattern>,
    /// Shared: each worker has routes of its own.
    pub path: Arc<PathPattern>,
    /// Empty = any method.
    pub methods: Vec<Method>,
    pub target: Target,
    pub access: Access,
    pub on_denied: OnDenied,
    /// `None`: `server.max_body`.
    pub max_body: Option<u64>,
    /// `None`: the upstream's `response_timeout`.
    pub timeout: Option<Duration>,
    pub cors: Cors,
    pub rewrite: Rewrite,
    pub request_headers: HeaderRules,
    pub response_headers: HeaderRules,
    pub rate_limit: Option<RouteLimit>,
    pub credentials: Credentials,
    /// How often a request may be sent once more, where that is safe.
    pub retries: u32,
    /// Whether a client may ask to switch to another protocol.
    pub websocket: bool,
    pub kept: Kept,
    /// Where it stands in the file, for `explain` and errors: line of its `[[routes]]`; 0 if it isn't from there.
    pub line: usize,
}

/// What an upstream gets of the credentials that the gateway knows.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Credentials {
    /// Nothing.
    Strip,
    /// `Authorization: Bearer` with the session token.
    Bearer,
    /// `Authorization: Bearer` with the signed assertion.
    Assertion,
    /// Cookie and `Authorization` as they came.
    Keep,
}

/// What paths may hold that others must not: none of it reads the same everywhere.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Kept {
    /// Encoded slashes, `%2F`.
    pub slashes: bool,
    /// Escapes that are not UTF-8.
    pub bytes: bool,
}

/// What a route demands of whoever calls.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Access {
    Public,
    /// The identity if there is one.
    Optional,
    Required(Needs),
}

impl Access {
    /// Whether somebody gets in here whom `other` would refuse.
    pub fn lets_in_more_than(&self, other: &Self) -> bool {
        let Self::Required(needs) = other else {
            return false;
        };
        let Self::Required(Needs {
            roles,
            verified_email,
            fresh,
        }) = self
        else {
            return true;
        };
        let roles_suffice =
            needs.roles.is_empty() || (!roles.is_empty() && roles.iter().all(|it| needs.roles.contains(it)));
        let fresh_suffices = needs.fresh.is_none_or(|within| fresh.is_some_and(|own| own <= within));
        !roles_suffice || !fresh_suffices || (needs.verified_email && !verified_email)
    }
}

impl Route {
    /// Whether it keeps something from its upstream, or counts it, that a request which takes `wider`, another route,
    /// would bring there. `max_body` is that of routes that say none.
    pub fn holds_back_more_than(&self, wider: &Self, max_body: u64) -> bool {
        let max_body = |route: &Self| route.max_body.unwrap_or(max_body);
        wider.access.lets_in_more_than(&self.access)
            || wider.cors.lets_in_more_than(&self.cors)
            || self.target != wider.target
            || self.rate_limit.is_some()
            || self.request_headers != wider.request_headers
            || max_body(self) < max_body(wider)
            || (wider.websocket && !self.websocket)
    }
}

/// What a session must have on top of being live. All must hold.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Needs {
    /// One of these is enough; empty = any.
    pub roles: Vec<String>,
    pub verified_email: bool,
    /// The sign-in is no longer ago.
    pub fresh: Option<Duration>,
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
    /// Whether pages of some origin may read answers here, or write with a cookie, and may not there. Where one leaves it
    /// to its upstream and the other doesn't, that can't be told: then they may.
    pub fn lets_in_more_than(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Trusted, Self::Trusted) | (Self::Upstream, Self::Upstream) => false,
            (Self::Listed(own), _) => own.iter().any(|pattern| !other.listed().contains(pattern)),
            // `[]` keeps trusted origins from reading.
            (Self::Trusted, Self::Listed(_) | Self::Upstream) | (Self::Upstream, Self::Trusted | Self::Listed(_)) => {
                true
            }
        }
    }

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
            .key_of_many(
                "path",
                "\"/exact\"; \"/users/{id}/x\", where {id} is any one segment; \"/a/*\", which is /a and all below it.",
                path,
            )
            .required("/api/*");
        let host = s
            .key_of_many(
                "host",
                "Only for requests to this host, or with \"*.example.com\" to all below one. Absent: any host that is served.",
                host::host_pattern,
            )
            .optional("api.example.com");
        let methods = s
            .key_of_many(
                "methods",
                "Only for these methods; HEAD comes with GET. Empty: any.",
                || list(method()),
            )
            .or("[]");
        let target = Target::read(s, facts);
        let auth = s
            .key_of_many(
                "auth",
                "\"required\": a session; \"optional\": the identity if there is a session; \"public\": no identity.",
                || {
                    choice(&[
                        ("required", Auth::Required),
                        ("optional", Auth::Optional),
                        ("public", Auth::Public),
                    ])
                },
            )
            .or("required");
        let on_denied = s
            .key_of_many(
                "on_denied",
                "What a refused request gets. \"auto\": a browser navigation is sent to `auth.pages.sign_in`, everything \
                 else gets 401 or 403; \"status\": always that; \"sign-in\": always the page.",
                || choice(&[
                    ("auto", OnDenied::Auto),
                    ("status", OnDenied::Status),
                    ("sign-in", OnDenied::SignIn),
                ]),
            )
            .or("auto");
        let max_body = s
            .key_of_many(
                "max_body",
                "The largest request body. Absent: `server.max_body`.",
                body_size,
            )
            .optional("100MiB");
        let timeout = s
            .key_of_many(
                "timeout",
                "How long the upstream may take to begin its answer. Absent: its `response_timeout`.",
                nonzero_duration,
            )
            .optional("60s");
        let cors = s
            .key_of_many(
                "cors",
                "Which other origins' pages may call this route with cookies and read its answers. An array: these and no \
                 others; \"upstream\": the upstream says so itself, and gets preflights without a session. Absent: \
                 public_url and `auth.trusted_origins`.",
                cors,
            )
            .optional("[\"https://partner.example.com\"]");
        let rewrite = Rewrite::read(s, path.as_ref());
        let credentials = s
            .key_of_many(
                "credentials",
                "What the upstream gets of the person's credentials. \"strip\": none; \"bearer\": Authorization with the \
                 session token, for backends that validate sessions themselves; \"assertion\": there the signed assertion; \
                 \"keep\": cookie and Authorization as they came.",
                || choice(&[
                    ("strip", Credentials::Strip),
                    ("bearer", Credentials::Bearer),
                    ("assertion", Credentials::Assertion),
                    ("keep", Credentials::Keep),
                ]),
            )
            .or("strip");
        let retries = s
            .key_of_many(
                "retries",
                "How often a request may be sent once more: only where nothing of it was sent, or its method may be \
                 repeated and it has no body.",
                || integer::<u32>(0..=10),
            )
            .or("1");
        let websocket = s
            .key_of_many(
                "websocket",
                "Whether WebSockets may be opened; else an attempt gets 403.",
                boolean,
            )
            .or("true");
        let slashes = s
            .key_of_many(
                "encoded_slashes",
                "Whether a path may hold %2F: \"keep\" is for upstreams that tell it from a slash. It is never a slash in \
                 matching.",
                refuse_or_keep,
            )
            .or("refuse");
        let bytes = s
            .key_of_many(
                "encoded_bytes",
                "Whether a path may hold escapes that are not UTF-8.",
                refuse_or_keep,
            )
            .or("refuse");
        let needs = s.section_if_there(
            "require",
            "What the session must have; all of it. Also: require = { roles = [\"admin\"] }.",
            Needs::read,
        );
        let rate_limit = s.section_if_there(
            "rate_limit",
            "How often the route may be asked, counted by each gateway for itself. Also: rate_limit = { requests = 100 }.",
            RouteLimit::read,
        );
        let request_headers = s.section_if_there(
            "request_headers",
            "Headers on their way to the upstream: removed, then set, then added. The gateway's own can't be touched.",
            |s| HeaderRules::read(s, Way::ToUpstream),
        );
        let response_headers = s.section_if_there(
            "response_headers",
            "Headers of the answer on its way to the client, such as Content-Security-Policy; not of refusals.",
            |s| HeaderRules::read(s, Way::ToClient),
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
        let written = rules::Written {
            target: target.as_ref(),
            methods: methods.as_deref(),
            request_headers: request_headers.as_ref().and_then(Option::as_ref),
            credentials,
            cors: cors.as_ref().and_then(Option::as_ref),
        };
        rules::check(s, facts, &written);
        let access = match auth {
            Some(Auth::Public) => Some(Access::Public),
            Some(Auth::Optional) => Some(Access::Optional),
            Some(Auth::Required) => needs.map(|needs| Access::Required(needs.unwrap_or_default())),
            None => None,
        };
        let rate_limit = rate_limit.flatten().map(|limit| RouteLimit {
            of: rate_limit::counted_as(
                host.as_ref().and_then(Option::as_ref),
                path.as_ref(),
                methods.as_deref(),
            ),
            ..limit
        });
        Some(Listed {
            key: s.path().to_owned(),
            path_place: s.place_of("path"),
            methods_place: s.place_of("methods"),
            route: Self {
                host: host?,
                path: Arc::new(path?),
                methods: methods?,
                access: access?,
                // What is wrong with these has been reported: nobody gets the route, but it is still compared.
                target: target.unwrap_or(Target::Upstream(0)),
                on_denied: on_denied.unwrap_or(OnDenied::Auto),
                max_body: max_body.flatten(),
                timeout: timeout.flatten(),
                cors: cors.flatten().unwrap_or(Cors::Trusted),
                rewrite: rewrite.unwrap_or_default(),
                request_headers: request_headers.flatten().unwrap_or_default(),
                response_headers: response_headers.flatten().unwrap_or_default(),
                rate_limit,
                credentials: credentials.unwrap_or(Credentials::Strip),
                retries: retries.unwrap_or_default(),
                websocket: websocket.unwrap_or_default(),
                kept: Kept {
                    slashes: slashes.unwrap_or_default(),
                    bytes: bytes.unwrap_or_default(),
                },
                line: match s.place() {
                    Place::File { line, .. } => *line,
                    Place::Missing | Place::Variable(_) | Place::Setting(_) | Place::Default => 0,
                },
            },
        })
    }
}

#[cfg(test)]
impl Route {
    /// A public route with everything else by default, to upstream 0.
    pub(crate) fn example(path: &str) -> Self {
        let fails = |wrong: Wrong| panic!("{path}: {}", wrong.problem);
        Self {
            host: None,
            path: Arc::new(PathPattern::parse(path).unwrap_or_else(fails)),
            methods: Vec::new(),
            target: Target::Upstream(0),
            access: Access::Public,
            on_denied: OnDenied::Auto,
            max_body: None,
            timeout: None,
            cors: Cors::Trusted,
            rewrite: Rewrite::default(),
            request_headers: HeaderRules::default(),
            response_headers: HeaderRules::default(),
            rate_limit: None,
            credentials: Credentials::Strip,
            retries: 1,
            websocket: true,
            kept: Kept::default(),
            line: 1,
        }
    }
}

impl Needs {
    fn read(s: &mut Section<'_>) -> Option<Self> {
        let roles = s
            .key("roles", "One of these roles.", list(role()))
            .optional("[\"admin\"]");
        if roles
            .as_ref()
            .is_some_and(|roles| roles.as_ref().is_some_and(Vec::is_empty))
        {
            // A template whose list is empty would open the route to everybody who is signed in.
            s.report(
                s.wrong("roles", "names no role, and would let in everybody who is signed in")
                    .found("[]")
                    .allowed("a role, or no such key"),
            );
        }
        let verified_email = s
            .key("verified_email", "A verified e-mail address.", boolean())
            .or("false");
        let fresh = s
            .key(
                "fresh",
                "A sign-in that is no longer ago than this.",
                nonzero_duration(),
            )
            .optional("10m");
        Some(Self {
            roles: roles?.unwrap_or_default(),
            verified_email: verified_email?,
            fresh: fresh?,
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

/// Whether it is kept.
fn refuse_or_keep() -> Kind<bool> {
    choice(&[("refuse", false), ("keep", true)])
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
