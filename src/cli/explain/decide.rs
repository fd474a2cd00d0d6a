//! The judges of the data path, asked about a request that nobody sent.
//!
//! The order is that of `proxy::handle`. Not asked is what only an upstream, Postgres or the moment could tell: whether
//! a session exists, how much of a rate limit is left, who answers.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64},
    },
    time::Duration,
};

use futures_util::FutureExt;
use http::{HeaderName, HeaderValue, Uri, Version, header};
use tokio::sync::Semaphore;
use uuid::Uuid;

use super::{
    decision::{Decision, Matched, Outcome, Received, Refusal},
    request::Asked,
};
use crate::{
    chain::Chain,
    clock::{Clock, Timestamp},
    config::{
        Access, Carried, ClientAuth, Config, Cors, LimitedBy, OnDenied, OriginPattern, Person, Route, Target, Upstream,
        write_duration, write_size,
    },
    identity::{Assertions, Identity, Session, SessionId, UserId},
    policy::{
        self,
        client::{self, ClientRules},
        connection::{Connection, Door, Peer, Tls},
        cors::{self, Readers, Verdict},
        csrf,
        marks::Marks,
        origin::TrustedOrigins,
        path::{self, NormalPath},
        routes::RouteTable,
        sign_in::{self, AskedBy},
    },
    problem::grpc_status,
    proxy::{
        self, answers,
        caller::Caller,
        error::ProxyError,
        grpc,
        handover::Handover,
        headers::{self, Material},
        memory::Shown,
        rewrite,
    },
    session::{
        credential::SessionCookies,
        identity_headers::{Renderer, Reserved},
    },
    upstream::body::RequestBody,
};

/// Where requests come from that nobody sent: an address for documentation (RFC 5737), which no proxy has that is
/// trusted.
const SOMEWHERE: ([u8; 4], u16) = ([203, 0, 113, 7], 50_000);

/// A configuration, compiled as a worker has it.
pub(in crate::cli) struct Judges<'c> {
    config: &'c Config,
    clients: ClientRules,
    routes: RouteTable,
    origins: TrustedOrigins,
    cookies: SessionCookies,
    reserved: Reserved,
    renderer: Renderer,
    now: Timestamp,
}

impl<'c> Judges<'c> {
    pub(in crate::cli) fn new(config: &'c Config) -> Self {
        let routes: Vec<_> = config.routes.iter().cloned().map(Arc::new).collect();
        Self {
            config,
            clients: ClientRules::new(config),
            routes: RouteTable::build(&routes, &config.auth.base_path, config.server.max_body),
            origins: TrustedOrigins::of(config),
            cookies: SessionCookies::new(&config.auth, &config.server.public_url),
            reserved: Reserved::new(&config.identity),
            renderer: Renderer::new(&config.identity),
            now: Clock::System.now(),
        }
    }

    /// What would become of a request.
    pub(in crate::cli) fn decide(&self, asked: Asked) -> Decision {
        let of_auth_api = path::is_for(&asked.target, self.routes.kept(), &self.config.auth.base_path);
        // A call is made over HTTP/2, and the auth API has none.
        let asked_by = if grpc::is_call(&asked.method, Version::HTTP_2, &asked.headers) && !of_auth_api {
            AskedBy::Call
        } else if policy::is_navigation(&asked.method, &asked.headers, Marks::of(&asked.headers)) {
            AskedBy::Navigation
        } else {
            AskedBy::Program
        };
        let target = asked.target.clone();
        let mut decision = Decision::nothing_yet();
        let mut on_denied = OnDenied::Auto;
        let judged = self.judge(asked, &mut decision, &mut on_denied);
        decision.outcome = judged.unwrap_or_else(|error| {
            let page = self.config.auth.sign_in_page.as_deref();
            let location = match &error {
                ProxyError::Denied(denied) => sign_in::location(*denied, on_denied, asked_by, page, &target),
                _ => None,
            };
            match location {
                Some(location) => Outcome::SignIn {
                    location,
                    reason: reason(&error),
                },
                None => Outcome::Refused(refusal(&error, asked_by)),
            }
        });
        decision
    }

    /// Notes what it finds out on the way, also when it refuses in the end.
    fn judge(&self, asked: Asked, decision: &mut Decision, on_denied: &mut OnDenied) -> Result<Outcome, ProxyError> {
        let Asked {
            method,
            target,
            headers,
            person,
            certificate,
        } = asked;
        // What no URL could have is refused by its path, and else could not have been sent.
        let uri = match target.parse::<Uri>() {
            Ok(uri) if !target.contains('#') => uri,
            _ => {
                NormalPath::parse(&target)?;
                return Err(ProxyError::Internal);
            }
        };
        proxy::check_head(&method, &headers, Marks::of(&headers))?;
        let mut stranger = Connection::plain(Peer::of(SocketAddr::from(SOMEWHERE)));
        if self.config.server.tls.is_some() {
            stranger.door = Door::Tls;
            stranger.tls = Some(Tls {
                asked: None,
                shown: Arc::default(),
                client: certificate,
                agreed_by: Arc::default(),
            });
        }
        let client = client::judge(&stranger, Version::HTTP_11, &uri, &headers, &self.clients)?;
        decision.host = Some(client.host.name().to_owned());
        let path = NormalPath::parse_keeping(&target, self.routes.kept())?;
        decision.path = Some(path.as_str().to_owned());
        if path.below(&self.config.auth.base_path).is_some() {
            return Ok(Outcome::AuthApi);
        }
        let preflight = cors::preflight(&method, &headers);
        let asked_for = preflight.as_ref().map_or(&method, |asked| &asked.method);
        let route = self.routes.find(client.host.name(), &path, asked_for)?;
        *on_denied = route.on_denied;
        decision.route = Some(self.matched(route));

        let readers = Readers::of(&route.cors, &self.origins);
        let pass_on = match preflight.map(|asked| readers.judge(&asked, HeaderValue::from_static(""))) {
            None => None,
            Some(Verdict::Answer(_)) => return Ok(Outcome::Preflight),
            Some(Verdict::Refuse) => return Err(ProxyError::Preflight),
            Some(Verdict::PassOn(proof)) => Some(proof),
        };
        let upgrade = headers::upgrade_of(&method, Version::HTTP_11, &headers);
        if upgrade.is_some() && !route.websocket {
            return Err(ProxyError::UpgradeRefused);
        }
        let wanted = pass_on.is_none() && policy::wants_session(route);
        let person = person.filter(|_| wanted);
        if person.as_ref().is_some_and(|person| person.by == Carried::Cookie) {
            let also = route.cors.listed();
            let same_origin = csrf::same_origin_on(route, &self.origins, client.host.name());
            csrf::check(&method, upgrade.is_some(), &headers, &self.origins, also, same_origin)?;
        }
        let session = person.map(|person| Arc::new(self.session(person)));
        let permit = match pass_on {
            Some(proof) => policy::pass_on(route, &proof),
            None => policy::authorise(route, session.as_deref(), self.now)?,
        };
        let came = path;
        let path = rewrite::outgoing(route, &came)?;
        if !matches!(route.target, Target::Upstream(_)) {
            let host = client.host.name();
            let asked = answers::Asked {
                method: &method,
                headers: &headers,
                came: &came,
                leaves: &path,
                // None is opened.
                open_files: &Arc::new(Semaphore::new(0)),
                is_guarded: &|name| self.routes.guards_file(route, host, name, &method),
            };
            return answered_here(route, &asked);
        }
        let outbound = headers::prepare(
            Material {
                method,
                handover: Handover::shown(route, self.config.identity.assertion.send, permit.session().is_some()),
                body: RequestBody::EMPTY,
                path,
                marks: Marks::of(&headers),
                caller: &Caller::new(client, &headers),
                request_id: &HeaderValue::from_static("made-by-the-gateway"),
                cookies: &Shown::of(&self.cookies, &headers).left,
                reserved: &self.reserved,
                upgrade,
                headers,
            },
            permit,
        );
        let (head, _) = outbound.into_request().into_parts();
        Ok(Outcome::Forwarded(Received {
            method: head.method,
            target: head.uri.to_string(),
            headers: head.headers,
        }))
    }

    fn matched(&self, route: &Route) -> Matched {
        let upstream = match route.target {
            Target::Upstream(index) => self.config.upstreams.get(index),
            Target::Files(_) | Target::Redirect(_) | Target::Answer(_) => None,
        };
        let endpoints = upstream.map_or(&[] as &[_], |upstream| &upstream.endpoints);
        Matched {
            pattern: route.path.text.clone(),
            host: route.host.as_ref().map(ToString::to_string),
            line: route.line,
            demands: demands(route, self.config.auth.sign_in_page.as_deref()),
            upstream: upstream.map(|upstream| upstream.name.clone()),
            endpoints: endpoints.iter().map(ToString::to_string).collect(),
            open_to: open_to(route, self.config),
            rules: rules(route, upstream, self.asks_for_certificates()),
        }
    }

    fn asks_for_certificates(&self) -> bool {
        let tls = self.config.server.tls.as_ref();
        tls.is_some_and(|tls| tls.clients != ClientAuth::NotAsked)
    }

    /// Of a person who does not exist.
    fn session(&self, person: Person) -> Session {
        let created_at = self.now.minus(person.signed_in);
        let id = SessionId(Uuid::now_v7());
        let identity = Identity {
            id: UserId(Uuid::now_v7()),
            email: "ada@example.com".to_owned(),
            email_verified: person.verified_email,
            name: "Ada Lovelace".to_owned(),
            roles: person.roles,
        };
        let headers = self.renderer.render(&identity, id, created_at, &["pwd".to_owned()]);
        Session {
            id,
            identity: Arc::new(identity),
            created_at,
            expires_at: self.now.plus(Duration::from_hours(1)),
            refresh_at: None,
            extending: AtomicBool::new(false),
            last_seen: AtomicI64::new(0),
            headers,
            methods: vec!["pwd".to_owned()],
            assertions: Assertions::default(),
        }
    }
}

/// What the gateway answers by itself. Files are not looked for: where this runs they need not be.
fn answered_here(route: &Route, asked: &answers::Asked<'_>) -> Result<Outcome, ProxyError> {
    if let Target::Files(files) = &route.target {
        return Ok(Outcome::File {
            folder: files.folder.display().to_string(),
            path: asked.leaves.as_str().to_owned(),
        });
    }
    // Nothing else takes time.
    let answer = answers::answer(route, asked).now_or_never();
    let answer = answer.unwrap_or(Err(ProxyError::Internal))?;
    let location = answer.headers().get(header::LOCATION);
    Ok(Outcome::Answer {
        status: answer.status().as_u16(),
        location: location.map(|location| String::from_utf8_lossy(location.as_bytes()).into_owned()),
    })
}

/// What else the route has to say, beyond what its outcome shows.
fn rules(route: &Route, upstream: Option<&Upstream>, asks_for_certificates: bool) -> Vec<String> {
    let mut rules = Vec::new();
    if let Some(limit) = &route.rate_limit {
        let by = match limit.by {
            LimitedBy::Address => "address",
            LimitedBy::User => "user",
        };
        rules.push(format!(
            "at most {} requests in {} from one {by}",
            limit.requests,
            write_duration(limit.window)
        ));
    }
    if !route.response_headers.is_empty() {
        let names = |of: &[(HeaderName, HeaderValue)]| of.iter().map(|(name, _)| name.to_string()).collect();
        for (verb, names) in [
            (
                "removes",
                route.response_headers.remove.iter().map(ToString::to_string).collect(),
            ),
            ("sets", names(&route.response_headers.set)),
            ("adds", names(&route.response_headers.add)),
        ] {
            let names: Vec<String> = names;
            if !names.is_empty() {
                rules.push(format!("{verb} {} in answers", names.join(", ")));
            }
        }
    }
    if let Some(upstream) = upstream {
        let timeout = route.timeout.unwrap_or(upstream.response_timeout);
        rules.push(format!("the upstream has {} to answer", write_duration(timeout)));
        rules.push(match route.retries {
            0 => "never sent again".to_owned(),
            1 => "sent again at most once, where that is safe".to_owned(),
            times => format!("sent again at most {times} times, where that is safe"),
        });
        if !route.websocket {
            rules.push("no WebSockets".to_owned());
        }
        if asks_for_certificates {
            rules
                .push("Client-Cert and X-Client-Cert-… tell of a client's certificate (--client-cert FILE)".to_owned());
        }
    }
    if let Target::Files(files) = &route.target
        && let Some(fallback) = &files.fallback
    {
        rules.push(format!("{fallback} for a navigation to what is no file"));
    }
    if let Some(max_body) = route.max_body {
        rules.push(format!("bodies have at most {}", write_size(max_body)));
    }
    rules
}

fn demands(route: &Route, sign_in_page: Option<&str>) -> Vec<String> {
    let mut demands = match &route.access {
        Access::Public => vec!["nothing: it is public, and no identity is sent".to_owned()],
        Access::Optional => vec!["nothing; the identity is sent if there is a session".to_owned()],
        Access::Required(needs) => {
            let mut demands = vec!["a session".to_owned()];
            if !needs.roles.is_empty() {
                demands.push(format!("one of the roles {}", needs.roles.join(", ")));
            }
            if let Some(fresh) = needs.fresh {
                demands.push(format!("a sign-in within the last {}", write_duration(fresh)));
            }
            if needs.verified_email {
                demands.push("a verified e-mail address".to_owned());
            }
            demands
        }
    };
    if matches!(route.access, Access::Required(_)) {
        demands.push(match (route.on_denied, sign_in_page) {
            (OnDenied::Status, _) | (OnDenied::Auto | OnDenied::SignIn, None) => "else: a status".to_owned(),
            (OnDenied::Auto, Some(page)) => format!("else: {page} for a browser's navigation, a status for the rest"),
            (OnDenied::SignIn, Some(page)) => format!("else: {page}"),
        });
    }
    demands
}

fn open_to(route: &Route, config: &Config) -> String {
    let named = |patterns: &[OriginPattern]| patterns.iter().map(ToString::to_string).collect::<Vec<_>>();
    let origins = match &route.cors {
        Cors::Upstream => return "whomever the upstream names".to_owned(),
        Cors::Listed(patterns) => named(patterns),
        Cors::Trusted => {
            let mut origins = vec![config.server.public_url.to_string()];
            origins.extend(named(&config.auth.trusted_origins));
            origins
        }
    };
    if origins.is_empty() {
        "no page of another origin".to_owned()
    } else {
        format!("pages of {}", origins.join(", "))
    }
}

fn reason(error: &ProxyError) -> String {
    match error {
        ProxyError::Denied(denied) => denied.to_string(),
        error => Chain(error).to_string(),
    }
}

fn refusal(error: &ProxyError, asked_by: AskedBy) -> Refusal {
    Refusal {
        status: error.code().status().as_u16(),
        code: error.code().as_str(),
        grpc_status: (asked_by == AskedBy::Call).then(|| grpc_status(error.code().status())),
        reason: reason(error),
    }
}
