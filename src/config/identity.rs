//! `[identity]`: under which header names upstreams are told who calls.

use std::{collections::HashMap, sync::Arc, time::Duration};

use http::HeaderName;

use super::{
    error::nearest,
    found::Wrong,
    kind::{Kind, boolean, choice, or_false, parsed},
    section::Section,
    units::duration,
};
use crate::identity::IdentityNames;

/// How an identity travels to upstreams.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Identity {
    /// Of configurations in force one after the other the same ones, while they are equal ([`crate::identity::Rendered`]).
    pub names: Arc<IdentityNames>,
    pub assertion: AssertionRules,
}

/// The signed statement about a session that upstreams may be given.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AssertionRules {
    /// With every request of somebody who is signed in; routes may ask for one besides.
    pub send: bool,
    /// Of keys to be made.
    pub algorithm: SigningAlgorithm,
    pub lifetime: Duration,
    pub rotate_every: Duration,
}

/// As a JWT's header names it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SigningAlgorithm {
    /// Ed25519 (RFC 8037).
    EdDsa,
    /// ECDSA on P-256 with SHA-256 (RFC 7518, 3.4).
    Es256,
}

impl SigningAlgorithm {
    pub const ALL: [Self; 2] = [Self::EdDsa, Self::Es256];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::EdDsa => "EdDSA",
            Self::Es256 => "ES256",
        }
    }

    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.as_str() == name)
    }
}

/// Names that programs already look for.
#[derive(Clone, Copy, Debug)]
enum Preset {
    User,
    /// As oauth2-proxy passes to upstreams.
    ForwardedUser,
    /// As Authelia and web servers' basic authentication do.
    RemoteUser,
    /// As oauth2-proxy answers to `auth_request`.
    AuthRequest,
}

/// What HTTP or the gateway itself says under these names; an identity there would be lost or would break requests.
const TAKEN: &[&str] = &[
    "authorization",
    "connection",
    "content-length",
    "content-type",
    "cookie",
    "expect",
    "forwarded",
    "host",
    "keep-alive",
    "origin",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-proto",
    "x-real-ip",
    "x-request-id",
];

impl Identity {
    pub(super) fn read(s: &mut Section<'_>) -> Option<Self> {
        let preset = s
            .key(
                "preset",
                "Which names the headers have: \"x-user\" is X-User-Id, X-User-Email, X-User-Email-Verified, X-User-Name, \
                 X-User-Roles, X-Session-Id, X-Auth-Time, X-Auth-Methods. The others are the conventions of \
                 oauth2-proxy and Authelia, with user, e-mail, name and groups only.",
                choice(&[
                    ("x-user", Preset::User),
                    ("x-forwarded-user", Preset::ForwardedUser),
                    ("remote-user", Preset::RemoteUser),
                    ("x-auth-request", Preset::AuthRequest),
                ]),
            )
            .or("x-user");
        let preset = preset.map(Preset::names).unwrap_or_default();
        let mut seen = HashMap::new();
        let mut name = |key: &'static str, doc: &'static str, example: &'static str, preset: Option<HeaderName>| {
            let written = s.key(key, doc, or_false(header_name())).optional(example)?;
            let name = written.unwrap_or(preset);
            if let Some(name) = &name
                && let Some(other) = seen.insert(folded(name), key)
            {
                let error = s
                    .wrong(key, format!("the same header as `{other}`"))
                    .found(format!("{:?}", name.as_str()))
                    .allowed("a header of its own; `-`, `_` and `.` are taken as equal");
                s.report(error);
            }
            Some(name)
        };
        let user_id = name(
            "user_id",
            "The user's id. This and the following: a name in place of the preset's, or false to leave the part out.",
            "X-User-Id",
            preset.user_id,
        );
        let email = name("email", "The e-mail address.", "X-User-Email", preset.email);
        let email_verified = name(
            "email_verified",
            "`true` or `false`.",
            "X-User-Email-Verified",
            preset.email_verified,
        );
        let person = name(
            "name",
            "The name, percent-encoded where it is not plain ASCII.",
            "X-User-Name",
            preset.name,
        );
        let roles = name("roles", "The roles, separated by commas.", "X-User-Roles", preset.roles);
        let session_id = name(
            "session_id",
            "The session's public id, never its token.",
            "X-Session-Id",
            preset.session_id,
        );
        let auth_time = name(
            "auth_time",
            "When the person signed in (RFC 3339).",
            "X-Auth-Time",
            preset.auth_time,
        );
        let auth_methods = name("auth_methods", "How: `pwd`.", "X-Auth-Methods", preset.auth_methods);
        let assertion = AssertionRules::read(s);
        Some(Self {
            names: Arc::new(IdentityNames {
                user_id: user_id?,
                email: email?,
                email_verified: email_verified?,
                name: person?,
                roles: roles?,
                session_id: session_id?,
                auth_time: auth_time?,
                auth_methods: auth_methods?,
            }),
            assertion: assertion?,
        })
    }
}

impl AssertionRules {
    /// Keys of the section that names the headers.
    fn read(s: &mut Section<'_>) -> Option<Self> {
        let send = s
            .key(
                "assertion",
                "Whether upstreams get X-Vestibule-Assertion, a signed and short-lived JWT, with each request of somebody \
                 who is signed in. The keys to verify it are published at `auth.base_path`/jwks.",
                boolean(),
            )
            .or("false");
        let algorithm = s
            .key(
                "assertion_algorithm",
                "What new keys sign with. Another one takes effect with a new key, ten minutes after the start.",
                choice(&[("EdDSA", SigningAlgorithm::EdDsa), ("ES256", SigningAlgorithm::Es256)]),
            )
            .or("EdDSA");
        let lifetime = s
            .key(
                "assertion_lifetime",
                "How long an assertion is good; each is used until half of it is over.",
                between(duration(), SHORTEST, LONGEST, "from 20s to 60s"),
            )
            .or("60s");
        let rotate_every = s
            .key(
                "assertion_rotate_every",
                "How long a key signs before another takes its place.",
                between(duration(), SOONEST, LATEST, "from 1h to 365d"),
            )
            .or("30d");
        Some(Self {
            send: send?,
            algorithm: algorithm?,
            lifetime: lifetime?,
            rotate_every: rotate_every?,
        })
    }
}

/// What is shorter is over, for an upstream whose clock is a little ahead, before it has arrived.
const SHORTEST: Duration = Duration::from_secs(20);
/// An assertion outlives a revocation: a minute is what nobody has to worry about.
const LONGEST: Duration = Duration::from_mins(1);
/// A new key is published for ten minutes before it signs.
const SOONEST: Duration = Duration::from_hours(1);
const LATEST: Duration = Duration::from_hours(24 * 365);

fn between(kind: Kind<Duration>, low: Duration, high: Duration, words: &str) -> Kind<Duration> {
    let allowed = format!("{}, {words}", kind.allowed);
    kind.check(allowed, move |duration| {
        if (low..=high).contains(duration) {
            Ok(())
        } else {
            Err("not within what is allowed".into())
        }
    })
}

impl Preset {
    fn names(self) -> IdentityNames {
        let four = |user: &'static str, email: &'static str, name: &'static str, groups: &'static str| IdentityNames {
            user_id: Some(HeaderName::from_static(user)),
            email: Some(HeaderName::from_static(email)),
            name: Some(HeaderName::from_static(name)),
            roles: Some(HeaderName::from_static(groups)),
            ..IdentityNames::default()
        };
        match self {
            Self::User => IdentityNames {
                email_verified: Some(HeaderName::from_static("x-user-email-verified")),
                session_id: Some(HeaderName::from_static("x-session-id")),
                auth_time: Some(HeaderName::from_static("x-auth-time")),
                auth_methods: Some(HeaderName::from_static("x-auth-methods")),
                ..four("x-user-id", "x-user-email", "x-user-name", "x-user-roles")
            },
            Self::ForwardedUser => four(
                "x-forwarded-user",
                "x-forwarded-email",
                "x-forwarded-preferred-username",
                "x-forwarded-groups",
            ),
            Self::RemoteUser => four("remote-user", "remote-email", "remote-name", "remote-groups"),
            Self::AuthRequest => four(
                "x-auth-request-user",
                "x-auth-request-email",
                "x-auth-request-preferred-username",
                "x-auth-request-groups",
            ),
        }
    }
}

fn header_name() -> Kind<HeaderName> {
    parsed("the name of a header such as \"X-My-User\"", |text| {
        let name: HeaderName = text.parse().map_err(|_| Wrong {
            problem: "not the name of a header".to_owned(),
            nearest: nearest(text, ["false"]),
        })?;
        if TAKEN.contains(&folded(&name).as_str()) {
            return Err("this header has another meaning".into());
        }
        Ok(name)
    })
}

/// As upstreams that make variables of header names can't tell them apart.
fn folded(name: &HeaderName) -> String {
    name.as_str().replace(['_', '.'], "-")
}
