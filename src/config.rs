//! The configuration in force: what `gateway.toml` and the environment say, as types that can't be wrong.
//!
//! The sections are one file each. Everything is parsed once, here; no other module reads a file or the environment.
//! Values come from the file, then from environment variables `VESTIBULE__SECTION__KEY`, then from [`Overrides`]; any
//! string may be `{ env = "NAME" }` or `{ file = "path" }`. [`ConfigErrors`] holds all that is wrong, at once.
//!
//! Each key is declared in one place, its section's `read`: that reads it, and is also what [`reference()`] and
//! [`json_schema`] are made from.

use std::{fs, path::Path};

use zeroize::Zeroizing;

mod auth;
mod catalogue;
mod database;
mod era;
mod error;
mod expectations;
mod found;
mod identity;
mod kind;
mod mail;
mod method;
mod origin;
mod overlap;
mod passed;
mod path_pattern;
mod pem;
mod read_from;
mod reader;
mod reference;
mod reserved;
mod restart;
mod routes;
mod section;
mod server;
mod source;
#[cfg(test)]
mod tests;
mod units;
mod upstreams;

pub use auth::{
    Account, AppleKey, Argon2, Auth, Budget, Cache, ChangeEmail, Cookie, DeleteUser, EmailVerification, MultiSession,
    OAuthProvider, Password, ProviderEndpoints, ProviderKind, ProviderSignUp, RateLimit, RateStorage, SET_BY_THE_FLOW,
    SameSite, SessionRules, SignInAfter, TokenEndpointAuth, WindowFrom,
};
pub use database::{Database, Migrate, Pooler};
pub use era::Era;
pub use error::{ConfigError, ConfigErrors, Place};
pub use expectations::{
    Carried, Expectation, Expected, ExpectedHeader, ExpectedOutcome, Person, load_expectations, parse_expectations,
};
pub use identity::{AssertionRules, Identity, SigningAlgorithm};
pub use mail::{Mail, SmtpSecurity, SmtpUrl};
pub use method::is_registered;
pub use origin::{Origin, OriginPattern, is_loopback_host};
pub use passed::{NotPassed, PassedSockets, passed_sockets};
pub use path_pattern::{PathPattern, Segment};
pub use read_from::{ReadFrom, on_disk};
pub use reference::{json_schema, reference};
pub use reserved::{PROXIES_PREFIXES, RESERVED_NAMES, RESERVED_PREFIXES, alike, fold_header_byte};
pub use restart::keep_what_needs_a_restart;
pub use routes::{
    Access, Cors, Credentials, Files, FixedAnswer, HeaderRules, HostPattern, Kept, LimitedBy, Needs, OnDenied, Piece,
    Redirect, Rewrite, Route, RouteLimit, Target,
};
pub use server::{
    Acme, Admin, CertificateFiles, Challenge, ClientAuth, ExternalAccount, Listen, Log, LogFormat, Server, Tls,
    TlsVersion, is_public,
};
pub use source::{Overrides, PREFIX};
pub use units::{parse_duration, write_duration, write_size};
pub use upstreams::{At, ClientIdentity, Endpoint, HealthCheck, Outliers, Protocol, Scheme, Upstream, UpstreamTls};

use reader::Reader;
use section::Section;

/// `gateway.toml`, whole.
#[derive(Clone, Debug)]
pub struct Config {
    pub server: Server,
    pub admin: Admin,
    pub log: Log,
    pub database: Database,
    pub auth: Auth,
    pub mail: Mail,
    pub identity: Identity,
    /// In the order of the file; a route names one by its index.
    pub upstreams: Vec<Upstream>,
    pub routes: Vec<Route>,
    pub read_from: ReadFrom,
}

/// Reads `file` and the environment; `extra` wins over both.
pub fn load(file: &Path, extra: &Overrides) -> Result<Config, ConfigErrors> {
    // It and the environment hold secrets: what is made of them is wiped when it is not needed any more, so they are too.
    let text = fs::read_to_string(file).map(Zeroizing::new).map_err(|error| {
        let error = ConfigError::new(Place::Missing, "", format!("can't be read: {error}"))
            .allowed("the path of a gateway.toml; `--config PATH` names another");
        ConfigErrors::new(file.display().to_string(), vec![error])
    })?;
    // Names and values that are not UTF-8 are nothing that TOML could say; `{ env }` takes such a variable as unset.
    let variables: Vec<(String, Zeroizing<String>)> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, Zeroizing::new(value.into_string().ok()?))))
        .collect();
    let env = |name: &str| {
        variables
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.to_string())
    };
    let keys = variables.iter().filter(|(name, _)| name.starts_with(PREFIX));
    let keys = keys.map(|(name, value)| (name.clone(), value.to_string()));
    let overrides = extra.clone().over(Overrides::from_environment(keys));
    parse_with(&text, file, &env, &overrides)
}

/// Who runs this program, as far as the environment says: who became root with sudo, else whose shell it is. Anybody may
/// set these, so it is a note beside what was done, and no proof of anything.
pub fn operator() -> Option<String> {
    ["SUDO_USER", "USER", "LOGNAME"].into_iter().find_map(|name| {
        std::env::var_os(name)?
            .into_string()
            .ok()
            .filter(|name| !name.is_empty())
    })
}

/// As [`parse_with`], without overrides.
pub fn parse(text: &str, file: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<Config, ConfigErrors> {
    parse_with(text, Path::new(file), env, &Overrides::default())
}

/// The configuration that `text` says. `file` is its name in errors, and its folder is where relative paths begin;
/// `env` answers `{ env = "NAME" }`.
pub fn parse_with(
    text: &str,
    file: &Path,
    env: &dyn Fn(&str) -> Option<String>,
    overrides: &Overrides,
) -> Result<Config, ConfigErrors> {
    let failed = |errors| ConfigErrors::new(file.display().to_string(), errors);
    let mut tree = source::parse(text).map_err(failed)?;
    let mut errors = Vec::new();
    overrides.lay_over(&mut tree, &mut errors);
    let reader = Reader::load(file, env);
    reader.begin(text);
    overrides.each_text(&mut |text| reader.made_of(text));
    let config = Section::root(&reader, &tree, Config::read);
    let read_from = reader.read_from();
    errors.extend(reader.into_errors(reference::catalogue));
    match config {
        Some(config) if errors.is_empty() => Ok(Config { read_from, ..config }),
        _ => Err(failed(errors)),
    }
}

/// What later sections are checked against, known even if the section that says it has errors.
#[derive(Debug, Default)]
#[expect(
    clippy::option_option,
    reason = "wrong is not absent: the one must not lead to complaints about the other"
)]
struct Facts {
    listen: Option<Vec<Listen>>,
    public_url: Option<Origin>,
    base_path: Option<String>,
    /// `None`: wrong; `Some(None)`: there is none.
    sign_in_page: Option<Option<String>>,
    /// Under which identities travel.
    identity_names: Vec<http::HeaderName>,
    /// Their names, in the order that routes count.
    upstreams: Vec<String>,
}

impl Facts {
    /// Whether an upstream could take this header for an identity of ours.
    fn is_identity(&self, name: &http::HeaderName) -> bool {
        self.identity_names
            .iter()
            .any(|known| reserved::alike(name, known.as_str()))
    }

    /// A sign-in page that needs a session would send people to itself, for ever.
    fn circle(&self, routes: &[routes::Listed]) -> Option<ConfigError> {
        let public = url::Url::parse(self.public_url.as_ref()?.as_str()).ok()?;
        let page = public.join(self.sign_in_page.as_ref()?.as_ref()?).ok()?;
        if page.origin() != public.origin() {
            return None;
        }
        let guard = overlap::answering(routes, page.host_str()?, page.path())?;
        let error = ConfigError::new(
            guard.path_place.clone(),
            format!("{}.path", guard.key),
            "`auth.pages.sign_in` is here and needs a session: browsers would be sent to it for ever",
        );
        matches!(guard.route.access, Access::Required(_)).then(|| {
            error
                .found(format!("{:?}", guard.route.path.text))
                .allowed(format!("a route with path = {:?} and auth = \"public\"", page.path()))
        })
    }
}

impl Config {
    /// Whether an upstream gets assertions: then there must be a key before anything is served.
    pub fn signs_assertions(&self) -> bool {
        let on_a_route = |route: &Route| route.credentials == Credentials::Assertion;
        self.identity.assertion.send || self.routes.iter().any(on_a_route)
    }

    fn read(s: &mut Section<'_>) -> Option<Self> {
        let mut facts = Facts::default();
        let server = s.section("server", "The public listener, and what clients may ask of it.", |s| {
            Server::read(s, &mut facts)
        });
        let admin = s.section(
            "admin",
            "Health, readiness and metrics: a listener of its own, never the public one.",
            |s| Admin::read(s, &facts),
        );
        let log = s.section("log", "What is logged.", Log::read);
        let database = s.section(
            "database",
            "PostgreSQL, where users and sessions are kept.",
            Database::read,
        );
        let auth = s.section("auth", "The auth API, and everything about accounts.", |s| {
            Auth::read(s, &mut facts)
        });
        let mail = s.section("mail", "Mails verify that an address is its owner's.", Mail::read);
        let identity = s.section("identity", "The headers that tell upstreams who calls.", Identity::read);
        if let Some(identity) = &identity {
            facts.identity_names = identity.names.iter().cloned().collect();
        }
        let upstreams = s.named(
            "upstreams",
            "Whom requests are forwarded to. The name is yours; routes refer to it.",
            "api",
            |s, name| {
                facts.upstreams.push(name.to_owned());
                Upstream::read(s, name)
            },
        );
        let routes = s.items(
            "routes",
            "Which requests are answered, and by what; as many as you like. The most specific wins, in whatever order they stand: \
             host, then exact before {parameter} before wildcard, then methods. What no route matches is 404.",
            |s| Route::read(s, &facts),
        );
        // If one failed, no configuration comes of it; the rest is still compared.
        overlap::check(&routes, &|error| s.report(error));
        if let Some(error) = facts.circle(&routes) {
            s.report(error);
        }
        Some(Self {
            server: server?,
            admin: admin?,
            log: log?,
            database: database?,
            auth: auth?,
            mail: mail?,
            identity: identity?,
            upstreams: upstreams.into_iter().collect::<Option<_>>()?,
            routes: routes.into_iter().map(|listed| listed.route).collect(),
            read_from: ReadFrom::default(),
        })
    }
}
