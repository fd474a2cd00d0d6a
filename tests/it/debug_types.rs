//! No `Debug` shows a secret: every type of the sources that derives it is looked at, so none can be forgotten.
//!
//! What is derived shows all fields. So a field of such a type must not be able to hold a secret: not what clients,
//! upstreams or providers say (header fields, bodies, JSON), not bare bytes, not memory that is only wiped ([`Zeroizing`]
//! prints what it holds), and no text whose name says that it is one. A secret has a type that does not print
//! (`secret::Secret`, `SessionToken`, `OneTimeToken`, …), or stands in a type that is `secret::unprinted!`.
//!
//! What is fine all the same is listed in [`SHOWN`], with the reason. Who writes `Debug` by hand has thought of it, and is
//! not looked at here; nor are unit tests.
//!
//! [`Zeroizing`]: https://docs.rs/zeroize/latest/zeroize/struct.Zeroizing.html

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use quote::ToTokens as _;
use syn::{
    Attribute, Field, Fields, Item, Meta, Token,
    punctuated::Punctuated,
    visit::{self, Visit},
};

/// Types that hold what others say, or bare bytes.
const RAW: &[&str] = &[
    "HeaderMap",
    "HeaderValue",
    "Bytes",
    "BytesMut",
    "Value",
    "Map",
    "Request",
    "Response",
    "Parts",
    "Uri",
    "PathAndQuery",
    "Zeroizing",
    "u8",
];

/// Types that hold text.
const TEXT: &[&str] = &["String", "str", "Cow", "Url"];

/// Parts of names of what should not be seen.
const SECRET_WORDS: &[&str] = &[
    "password",
    "passphrase",
    "secret",
    "token",
    "cookie",
    "code",
    "state",
    "nonce",
    "verifier",
    "challenge",
    "credential",
    "authorization",
    "assertion",
    "bearer",
    "link",
    "body",
    "text",
    "html",
    "payload",
    "private",
    "key",
    "url",
    "callback",
    "user_info",
    "params",
    "query",
    "line",
    "unread",
];

/// Types that do not print what they hold.
const SAFE: &[&str] = &["Secret", "SessionToken", "OneTimeToken", "TokenHash", "PrivateKeyDer"];

/// What is shown, and why it may be.
const SHOWN: &[(&str, &str)] = &[
    ("auth.rs: Auth.base_url", "of the configuration"),
    (
        "auth/input.rs: Nullable.Text.0",
        "a name or a picture that a user chose",
    ),
    ("auth/oauth/callback.rs: Stop.code", "the name of an error"),
    (
        "auth/oauth/flow.rs: Targets.callback",
        "a target that is judged, and sent on in a URL",
    ),
    (
        "auth/oauth/provider/discovery.rs: Discovery.url",
        "of the configuration",
    ),
    ("auth/oauth/provider/id_token.rs: Audience.AnyOf.0", "a client id"),
    ("auth/oauth/provider/id_token.rs: Audience.AnyOf.1", "client ids"),
    ("auth/oauth/provider/id_token.rs: Audience.Us.0", "a client id"),
    (
        "auth/oauth/provider/said.rs: ProviderError.Refused.code",
        "the name of an error",
    ),
    (
        "auth/oauth/provider/token_endpoint.rs: TokenEndpoint.url",
        "of the configuration",
    ),
    ("auth/openapi.rs: Documents.json", "the API's description"),
    ("auth/openapi.rs: Documents.page", "the same as a page"),
    ("auth/throttle.rs: Key.0", "HMAC of what is counted"),
    ("cli/explain.rs: ExplainArgs.url", "what an operator asks about"),
    (
        "cli/explain/decision.rs: Received.headers",
        "what an operator asks about",
    ),
    ("cli/explain/decision.rs: Refusal.grpc_status", "a number"),
    ("cli/explain/request.rs: Asked.headers", "what an operator asks about"),
    ("cli/user/show.rs: AccountView.password_set_at", "a time"),
    ("config/auth/oauth.rs: AppleKey.key_id", "Apple's name for the key"),
    (
        "config/auth/oauth.rs: OAuthProvider.authorization_params",
        "sent in the URL that a browser opens",
    ),
    ("config/auth/oauth.rs: OAuthProvider.base_url", "where the provider is"),
    (
        "config/auth/oauth.rs: ProviderEndpoints.authorization",
        "where the provider is",
    ),
    ("config/auth/oauth.rs: ProviderEndpoints.token", "where the provider is"),
    ("config/error.rs: ConfigError.key", "the name of a key"),
    (
        "config/expectations.rs: Expectation.headers",
        "of a file for `vestibule test`",
    ),
    (
        "config/expectations.rs: Expectation.url",
        "of a file for `vestibule test`",
    ),
    ("config/expectations.rs: Expected.code", "the name of an error"),
    (
        "config/passed.rs: NotPassed.Unreadable.0",
        "a variable of the service manager's",
    ),
    ("config/path_pattern.rs: PathPattern.text", "a route's"),
    (
        "config/routes/header_rules.rs: HeaderRules.add",
        "of the configuration, and shown by `explain`",
    ),
    (
        "config/routes/header_rules.rs: HeaderRules.set",
        "of the configuration, and shown by `explain`",
    ),
    ("config/routes/redirect.rs: Piece.Text.0", "of the configuration"),
    ("config/routes/target.rs: FixedAnswer.body", "everybody gets it"),
    ("config/routes/target.rs: FixedAnswer.content_type", "everybody gets it"),
    (
        "config/server/acme.rs: ExternalAccount.key_id",
        "the authority's name for the key",
    ),
    ("config/upstreams/health.rs: HealthCheck.host", "of the configuration"),
    ("config/upstreams/health.rs: HealthCheck.path", "of the configuration"),
    ("db/accounts/tokens.rs: Columns.access", "sealed"),
    ("db/accounts/tokens.rs: Columns.id", "sealed"),
    ("db/accounts/tokens.rs: Columns.refresh", "sealed"),
    ("db/accounts/tokens.rs: Lease.spends", "sealed"),
    ("db/accounts/tokens.rs: SealedTokens.access", "sealed"),
    ("db/accounts/tokens.rs: SealedTokens.id", "sealed"),
    ("db/accounts/tokens.rs: SealedTokens.refresh", "sealed"),
    ("db/acme.rs: Account.credentials", "sealed"),
    ("db/acme.rs: Account.eab_key_id", "the authority's name for the key"),
    ("db/acme.rs: Issued.private_key", "sealed"),
    ("db/acme.rs: Kept.private_key", "sealed"),
    ("db/acme.rs: Standing.challenge", "answered to everybody"),
    ("db/migrate.rs: SchemaState.Missing.0", "names of migrations"),
    ("db/oauth_flows.rs: NewFlow.payload", "sealed"),
    ("db/oauth_flows.rs: Taken.browser", "a hash"),
    ("db/oauth_flows.rs: Taken.payload", "sealed"),
    ("db/rate_limits.rs: Want.key", "HMAC of what is counted"),
    ("db/signing_keys.rs: StoredKey.private_key", "sealed"),
    ("db/signing_keys.rs: StoredKey.public_key", "public"),
    ("db/users.rs: Filter.text", "what an operator looks for"),
    (
        "dev/inbox/store.rs: Mail.html",
        "of `vestibule dev`, whose inbox shows it",
    ),
    (
        "dev/inbox/store.rs: Mail.links",
        "of `vestibule dev`, whose inbox shows it",
    ),
    (
        "dev/inbox/store.rs: Mail.text",
        "of `vestibule dev`, whose inbox shows it",
    ),
    (
        "dev/upstream.rs: Seen.query",
        "of the upstream of `vestibule dev`, which shows it",
    ),
    ("outbound.rs: Outbound.client", "a type of body, and none"),
    (
        "policy/connection.rs: ClientCertificate.headers",
        "a certificate is public",
    ),
    ("policy/cors.rs: Verdict.Answer.0", "the fields of a preflight's answer"),
    ("policy/routes.rs: NoRoute.Method.allow", "names of methods"),
    ("policy/routes/tree.rs: Label.Long.0", "a route's"),
    ("policy/routes/tree.rs: Label.Short.bytes", "a route's"),
    ("policy/routes/tree.rs: Label.Short.length", "a number"),
    ("policy/routes/tree.rs: Methods.0", "a set"),
    (
        "postgres_url.rs: Unreadable.0",
        "words of ours, and names of parameters",
    ),
    ("problem.rs: Problem.headers", "`Retry-After`, `Allow` and the like"),
    ("proxy/upgrade.rs: Asked.Upgrade.0", "the name of a protocol"),
    ("server/http2/blocks.rs: Frames.head", "length and kind of a frame"),
    ("session/assertion.rs: Ring.document", "public keys"),
    (
        "session/identity_headers/reserved.rs: Entry.folded",
        "the name of a header",
    ),
    (
        "session/identity_headers/reserved.rs: Prefix.folded",
        "the beginning of a field's name",
    ),
    (
        "session/identity_headers/reserved.rs: Prefix.mark",
        "what stands between words of it",
    ),
    ("session/identity_headers/reserved.rs: Prefix.third", "a letter of it"),
    ("telemetry/access.rs: Access.request_id", "the request's id"),
    ("telemetry/access.rs: Gathered.lines", "the access log"),
    ("telemetry/access.rs: Gathered.second_text", "a time"),
    (
        "telemetry/request_ids.rs: RequestIds.prefix",
        "the beginning of the ids of requests",
    ),
    ("upstream/outgoing.rs: Length.Chunked.trailers", "names of fields"),
    (
        "upstream/probe.rs: Got.headers",
        "of the fuzzers, which compare answers",
    ),
    ("upstream/probe.rs: Got.body", "of the fuzzers, which compare answers"),
];

/// A field of a type that derives `Debug`.
struct Shown {
    /// `file.rs: Type.field`
    name: String,
    kind: String,
}

#[test]
fn no_derived_debug_shows_a_secret() {
    let shown: Vec<Shown> = sources().iter().flat_map(|file| shown_by(file)).collect();
    assert!(shown.len() > 500, "only {} fields were found", shown.len());
    let allowed: BTreeSet<&str> = SHOWN.iter().map(|(name, _)| *name).collect();
    let refused: Vec<String> = shown
        .iter()
        .filter(|field| may_be_secret(&field.name, &field.kind) && !allowed.contains(field.name.as_str()))
        .map(|field| format!("{}: {}", field.name, field.kind))
        .collect();
    assert!(
        refused.is_empty(),
        "these could show a secret: `secret::unprinted!` the type, or say in SHOWN why it can't:\n{}",
        refused.join("\n")
    );
    let names: BTreeSet<&str> = shown.iter().map(|field| field.name.as_str()).collect();
    let stale: Vec<_> = allowed.difference(&names).collect();
    assert!(stale.is_empty(), "SHOWN lists what is not there: {stale:?}");
}

#[test]
fn a_field_that_could_show_a_secret_is_found() {
    let source = "
        #[derive(Clone, Debug)]
        struct One<'a> { password: &'a str, name: String, fields: Option<HeaderMap>, code: u16, kept: Secret<String> }
        #[derive(std::fmt::Debug)]
        enum Two { Body(Bytes), Named { session_token: Box<str> }, Number(u64), Static(&'static str) }
        mod inner { #[derive(Debug)] struct Three(pub Zeroizing<Vec<u8>>); }
        fn f() { #[derive(Debug)] struct Four { reset_link: String } }
        struct Five { password: String }
        #[cfg(test)] mod tests { #[derive(Debug)] struct Six { password: String } }
    ";
    let found = found_in("x.rs", &syn::parse_file(source).unwrap());
    let refused: Vec<&str> = found
        .iter()
        .filter(|field| may_be_secret(&field.name, &field.kind))
        .map(|field| field.name.as_str())
        .collect();
    assert_eq!(
        refused,
        [
            "x.rs: One.password",
            "x.rs: One.fields",
            "x.rs: Two.Body.0",
            "x.rs: Two.Named.session_token",
            "x.rs: Three.0",
            "x.rs: Four.reset_link"
        ]
    );
}

fn may_be_secret(name: &str, kind: &str) -> bool {
    let words: Vec<&str> = kind.split(|c: char| !(c.is_alphanumeric() || c == '_')).collect();
    let holds = |types: &[&str]| words.iter().any(|word| types.contains(word));
    if holds(SAFE) {
        return false;
    }
    if kind.contains("'static str") && !holds(RAW) && !holds(&["String", "Cow", "Url"]) {
        // Words of the program itself.
        return false;
    }
    let field = name.rsplit('.').next().unwrap().to_lowercase();
    // A lone value of an enum is named as its variant.
    let field = if field.chars().all(|c| c.is_ascii_digit()) {
        name.to_lowercase()
    } else {
        field
    };
    holds(RAW) || holds(TEXT) && SECRET_WORDS.iter().any(|word| field.contains(word))
}

fn shown_by(file: &Path) -> Vec<Shown> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let text = fs::read_to_string(file).unwrap();
    let parsed = syn::parse_file(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    found_in(file.strip_prefix(&root).unwrap().to_str().unwrap(), &parsed)
}

fn found_in(file: &str, parsed: &syn::File) -> Vec<Shown> {
    let mut finder = Finder {
        file,
        found: Vec::new(),
    };
    finder.visit_file(parsed);
    finder.found
}

struct Finder<'f> {
    file: &'f str,
    found: Vec<Shown>,
}

impl Finder<'_> {
    fn add(&mut self, owner: &str, fields: &Fields) {
        for (index, field) in fields.iter().enumerate() {
            let Field { ident, ty, .. } = field;
            let field = ident.as_ref().map_or_else(|| index.to_string(), ToString::to_string);
            self.found.push(Shown {
                name: format!("{}: {owner}.{field}", self.file),
                kind: ty.to_token_stream().to_string().replace("' static", "'static"),
            });
        }
    }
}

impl<'ast> Visit<'ast> for Finder<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        match item {
            Item::Mod(module) if is_for_tests(&module.attrs) => return,
            Item::Struct(it) if derives_debug(&it.attrs) => self.add(&it.ident.to_string(), &it.fields),
            Item::Enum(it) if derives_debug(&it.attrs) => {
                for variant in &it.variants {
                    self.add(&format!("{}.{}", it.ident, variant.ident), &variant.fields);
                }
            }
            _ => {}
        }
        visit::visit_item(self, item);
    }
}

fn is_for_tests(attributes: &[Attribute]) -> bool {
    attributes
        .iter()
        .any(|attribute| attribute.path().is_ident("cfg") && attribute.to_token_stream().to_string().contains("test"))
}

fn derives_debug(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let Meta::List(list) = &attribute.meta else {
            return false;
        };
        let derived = list.path.is_ident("derive").then(|| {
            list.parse_args_with(Punctuated::<syn::Path, Token![,]>::parse_terminated)
                .unwrap()
        });
        derived.is_some_and(|derived| {
            let mut names = derived.iter().filter_map(|path| path.segments.last());
            names.any(|name| name.ident == "Debug")
        })
    })
}

/// But for what only tests have.
fn sources() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            if ["tests", "testing"].contains(&name.as_str()) {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}
