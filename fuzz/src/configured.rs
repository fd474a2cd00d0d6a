//! A configuration as a worker has it, without a socket: what the pure properties ask.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicI64},
    },
    time::Duration,
};

use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, Version};
use oracle::{
    credential::Person,
    decision::World,
    http1::{Field, Request},
};
use uuid::Uuid;
use vestibule::{
    clock::Timestamp,
    config::{self, Config, ConfigErrors},
    identity::{Assertions, Identity, Session, SessionId, UserId},
    lifecycle::Tasks,
    live::Snapshot,
    secret::SessionToken,
    session::{credential::SessionCookies, identity_headers::Renderer},
};

use super::world::{self, SignedIn};

/// Where requests come from: a stranger, to all but who is told otherwise.
pub const PEER: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

const BASE: &str = "
[database]
url = 'postgres://localhost/none'
[auth]
secret = 'a secret that only the tests use, and only here'
[mail]
from = 'Example <no-reply@example.com>'
smtp = 'smtp://localhost'
[upstreams.app]
endpoints = ['http://localhost']
";

/// The configuration with these routes.
pub fn parse(routes: &str) -> Result<Config, ConfigErrors> {
    parse_with("", routes)
}

/// As [`parse`], with more keys in `[server]`.
pub fn parse_with(server: &str, routes: &str) -> Result<Config, ConfigErrors> {
    let text = format!("[server]\npublic_url = 'https://app.example.com'\n{server}\n{BASE}{routes}");
    config::parse(&text, "gateway.toml", &|_| None)
}

/// The world that all requests of the pure properties are of.
pub struct Configured {
    pub world: World,
    /// In the order of [`World::people`].
    pub sessions: Vec<Session>,
    /// The same configuration, in force twice: what is remembered under one counts for nothing under the other.
    pub snapshots: [Snapshot; 2],
}

pub fn configured() -> &'static Configured {
    static CONFIGURED: OnceLock<Configured> = OnceLock::new();
    CONFIGURED.get_or_init(|| {
        let config = parse(&world::toml(&world::routes())).unwrap_or_else(|errors| panic!("{errors}"));
        let config = Arc::new(config);
        let cookies = SessionCookies::new(&config.auth, &config.server.public_url);
        let renderer = Renderer::new(&config.identity);
        let mut people = Vec::new();
        let mut sessions = Vec::new();
        for (number, letter, roles) in [(1, "a", &[][..]), (2, "b", &["admin", "user"]), (3, "c", &[])] {
            let session = session(number, roles, &renderer);
            people.push(person(&letter.repeat(43), &session, roles, &cookies));
            sessions.push(session);
        }
        // Their session has ended.
        people[2].live = false;
        // Workers' tasks: none is started.
        let runtime = Box::leak(Box::new(
            tokio::runtime::Builder::new_current_thread()
                .build()
                .expect("a runtime"),
        ));
        let tasks = Tasks::new(runtime.handle().clone());
        let first = Snapshot::new(&config, &[], &tasks, None);
        let second = Snapshot::new(&config, &[], &tasks, Some(&first));
        Configured {
            world: world::world(people),
            snapshots: [first, second],
            sessions,
        }
    })
}

fn session(number: u128, roles: &[&str], renderer: &Renderer) -> Session {
    let id = SessionId(Uuid::from_u128(number));
    let created_at = Timestamp::from_secs(0);
    let identity = Identity {
        id: UserId(Uuid::from_u128(100 + number)),
        email: "ada@example.com".to_owned(),
        email_verified: true,
        name: "Ada Lovelace".to_owned(),
        roles: roles.iter().map(|role| (*role).to_owned()).collect(),
    };
    Session {
        id,
        headers: renderer.render(&identity, id, created_at, &["pwd"]),
        identity: Arc::new(identity),
        created_at,
        expires_at: created_at.plus(Duration::from_hours(1)),
        refresh_at: None,
        extending: AtomicBool::new(false),
        last_seen: AtomicI64::new(0),
        methods: vec!["pwd".to_owned()],
        assertions: Assertions::default(),
    }
}

fn person(token: &str, session: &Session, roles: &[&str], cookies: &SessionCookies) -> Person {
    let token = SessionToken::parse(token).expect("a token");
    let cookie = cookies.set(&token, None);
    let cookie = cookie
        .to_str()
        .expect("a cookie")
        .split(['=', ';'])
        .nth(1)
        .expect("a value")
        .to_owned();
    world::person(&SignedIn {
        id: &session.identity.id.to_string(),
        email: &session.identity.email,
        session_id: &session.id.to_string(),
        since: &session.created_at.rfc3339(),
        token: token.as_str(),
        cookie: &cookie,
        roles,
    })
}

/// `text` with what people show in place of their names: `{a}` a cookie's value, `{a:bearer}` the bare token, `{a:signed}`
/// the token with its signature as bearers may write it.
pub fn filled(text: &[u8], world: &World) -> Vec<u8> {
    let mut filled = text.to_vec();
    for (person, name) in world.people.iter().zip(["a", "b", "c"]) {
        for (place, value) in [
            (format!("{{{name}}}"), oracle::credential::cookie_value(person)),
            (format!("{{{name}:bearer}}"), person.token.clone()),
            (
                format!("{{{name}:signed}}"),
                format!("{}.{}", person.token, person.signature),
            ),
        ] {
            let mut at = 0;
            while let Some(found) = filled[at..]
                .windows(place.len())
                .position(|part| part == place.as_bytes())
            {
                filled.splice(at + found..at + found + place.len(), value.bytes());
                at += found + value.len();
            }
        }
    }
    filled
}

/// The head of a request as the gateway's HTTP library hands it over; `None` if that would have refused it.
pub struct Head {
    pub method: Method,
    pub uri: Uri,
    pub version: Version,
    pub headers: HeaderMap,
}

pub fn head(request: &Request) -> Option<Head> {
    Some(Head {
        method: Method::from_bytes(&request.method).ok()?,
        uri: Uri::try_from(&request.target[..]).ok()?,
        version: if request.old {
            Version::HTTP_10
        } else {
            Version::HTTP_11
        },
        headers: headers(&request.fields)?,
    })
}

pub fn headers(fields: &[Field]) -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(HeaderName::from_bytes(name).ok()?, HeaderValue::from_bytes(value).ok()?);
    }
    Some(headers)
}
