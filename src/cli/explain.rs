//! `vestibule explain METHOD URL`: what would happen to a request.
//!
//! Nothing is simulated: the same judges that the data path uses look at a request made of the arguments, and the
//! same code prepares what the upstream would receive. Only the person is made up.

use std::{
    net::SocketAddr,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64},
    },
    time::Duration,
};

use anyhow::{Context, bail};
use clap::Args;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, Version, header};
use uuid::Uuid;

use super::{ConfigArg, EXIT_USAGE};
use crate::{
    chain::Chain,
    clock::Clock,
    config::{Access, Config, Cors, OnDenied, OriginPattern, Route, Target},
    identity::{Assertions, Identity, Session, SessionId, UserId},
    policy::{
        self, Denied,
        client::{self, ClientRules},
        connection::{Connection, Peer},
        cors::{self, Readers, Verdict},
        origin::TrustedOrigins,
        path::NormalPath,
        routes::RouteTable,
    },
    proxy::{
        error::ProxyError,
        handover::Handover,
        headers::{self, Material},
        rewrite,
    },
    session::{
        credential::SessionCookies,
        identity_headers::{Renderer, Reserved},
    },
    upstream::body::RequestBody,
};

#[derive(Args, Debug)]
pub struct ExplainArgs {
    #[command(flatten)]
    config: ConfigArg,
    /// The request's method
    method: Method,
    /// The whole URL, as a browser has it; or a path of public_url
    url: String,
    /// As if nobody were signed in
    #[arg(long)]
    anonymous: bool,
    /// A role that the made-up person has
    #[arg(long = "role", value_name = "ROLE")]
    roles: Vec<String>,
    /// The made-up person has not verified their address
    #[arg(long)]
    unverified: bool,
    /// A header that the client sends: "Name: value"
    #[arg(long = "header", short = 'H', value_name = "HEADER")]
    headers: Vec<String>,
    /// For scripts
    #[arg(long)]
    json: bool,
}

/// What was found out.
#[derive(Debug, Default, serde::Serialize)]
struct Explanation {
    request: String,
    host: Option<String>,
    path: Option<String>,
    /// `auth API`, or the route's pattern.
    served_by: Option<String>,
    line: Option<usize>,
    demands: Vec<String>,
    /// `forwarded`, `answered by the gateway`, or the status and code of the refusal.
    outcome: String,
    upstream: Option<String>,
    /// Whose pages may call it from elsewhere and read the answers.
    open_to: Option<String>,
    /// The request line and the headers that the upstream would receive.
    receives: Vec<String>,
}

pub fn run(args: &ExplainArgs) -> anyhow::Result<ExitCode> {
    let config = match args.config.load() {
        Ok(config) => config,
        Err(code) => return Ok(code),
    };
    let explanation = match explain(&config, args) {
        Ok(explanation) => explanation,
        // The arguments parse, but say no request.
        Err(error) => {
            eprintln!("vestibule: {error:#}");
            return Ok(ExitCode::from(EXIT_USAGE));
        }
    };
    if args.json {
        println!("{}", serde_json::to_string_pretty(&explanation)?);
    } else {
        explanation.print();
    }
    Ok(ExitCode::SUCCESS)
}

fn explain(config: &Config, args: &ExplainArgs) -> anyhow::Result<Explanation> {
    let mut explanation = Explanation {
        request: format!("{} {}", args.method, args.url),
        ..Explanation::default()
    };
    if let Err(error) = judge(config, args, &mut explanation)? {
        explanation.outcome = format!(
            "refused: {} {}: {}",
            error.code().status().as_u16(),
            error.code().as_str(),
            reason(&error)
        );
    }
    Ok(explanation)
}

/// The outer error is a wrong argument, the inner one a refusal.
fn judge(config: &Config, args: &ExplainArgs, explanation: &mut Explanation) -> anyhow::Result<Result<(), ProxyError>> {
    let (authority, target) = split(&args.url, config)?;
    let headers = request_headers(&args.headers, &authority)?;
    let uri = match target.parse::<Uri>() {
        Ok(uri) if !target.contains('#') => uri,
        _ => return Ok(NormalPath::parse(&target).map(drop).map_err(ProxyError::Path)),
    };
    Ok(decide(config, args, &uri, &target, headers, explanation))
}

fn decide(
    config: &Config,
    args: &ExplainArgs,
    uri: &Uri,
    target: &str,
    headers: HeaderMap,
    explanation: &mut Explanation,
) -> Result<(), ProxyError> {
    crate::proxy::check_head(&args.method, &headers)?;
    let stranger = Connection::plain(Peer::of(SocketAddr::from(([203, 0, 113, 7], 50_000))));
    let client = client::judge(&stranger, Version::HTTP_11, uri, &headers, &ClientRules::new(config))?;
    explanation.host = Some(client.host.name().to_owned());
    let routes: Vec<_> = config.routes.iter().cloned().map(Arc::new).collect();
    let table = RouteTable::build(&routes);
    let path = NormalPath::parse_keeping(target, table.kept())?;
    explanation.path = Some(path.as_str().to_owned());
    if path.below(&config.auth.base_path).is_some() {
        explanation.served_by = Some("the auth API".to_owned());
        "answered by the gateway itself".clone_into(&mut explanation.outcome);
        return Ok(());
    }
    let preflight = cors::preflight(&args.method, &headers);
    let method = preflight.as_ref().map_or(&args.method, |asked| &asked.method);
    let route = table.find(client.host.name(), &path, method)?;
    explanation.served_by = Some(format!(
        "route {}{}",
        route.host.as_ref().map(ToString::to_string).unwrap_or_default(),
        route.path.text
    ));
    explanation.line = Some(route.line);
    explanation.demands = demands(route, config.auth.sign_in_page.as_deref());
    if let Target::Upstream(index) = route.target {
        explanation.upstream = config.upstreams.get(index).map(|upstream| upstream.name.clone());
    }
    explanation.open_to = Some(open_to(route, config));

    let trusted = TrustedOrigins::new(&config.server.public_url, &config.auth.trusted_origins);
    let readers = Readers::of(&route.cors, &trusted);
    let pass_on = match preflight.map(|asked| readers.judge(&asked, HeaderValue::from_static(""))) {
        None => None,
        Some(Verdict::Answer(_)) => {
            "a preflight, answered by the gateway: the page may send its request".clone_into(&mut explanation.outcome);
            return Ok(());
        }
        Some(Verdict::Refuse) => return Err(ProxyError::Preflight),
        Some(Verdict::PassOn(proof)) => Some(proof),
    };
    let session = (!args.anonymous && policy::wants_session(route)).then(|| Arc::new(somebody(config, args)));
    let permit = match pass_on {
        Some(proof) => policy::pass_on(route, &proof),
        None => policy::authorise(route, session.as_ref(), Clock::System.now())?,
    };
    let path = rewrite::outgoing(route, &path)?;
    if !matches!(route.target, Target::Upstream(_)) {
        answered_here(&route.target).clone_into(&mut explanation.outcome);
        return Ok(());
    }
    let cookies = SessionCookies::new(&config.auth, &config.server.public_url);
    let upgrade = headers::upgrade_of(&args.method, Version::HTTP_11, &headers);
    let outbound = headers::prepare(
        Material {
            method: args.method.clone(),
            handover: Handover::shown(route, config.identity.assertion.send, permit.session().is_some()),
            body: RequestBody::EMPTY,
            path,
            client: &client,
            request_id: &HeaderValue::from_static("made-by-the-gateway"),
            cookies: &cookies,
            reserved: &Reserved::new(&config.identity),
            upgrade,
            headers,
        },
        &permit,
    );
    "forwarded".clone_into(&mut explanation.outcome);
    let request = outbound.into_request();
    explanation
        .receives
        .push(format!("{} {} HTTP/1.1", request.method(), request.uri()));
    for (name, value) in request.headers() {
        let value = String::from_utf8_lossy(value.as_bytes());
        explanation.receives.push(format!("{name}: {value}"));
    }
    Ok(())
}

/// Authority and target of a URL, without judging the target: that is what the gateway does.
fn split(url: &str, config: &Config) -> anyhow::Result<(String, String)> {
    let public = &config.server.public_url;
    if url.starts_with('/') {
        let authority = public
            .as_str()
            .trim_start_matches("https://")
            .trim_start_matches("http://");
        return Ok((authority.to_owned(), url.to_owned()));
    }
    let rest = url
        .strip_prefix("https://")
        .or_else(|| url.strip_prefix("http://"))
        .with_context(|| format!("{url:?} is neither an http(s) URL nor a path"))?;
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, target) = rest.split_at(end);
    if authority.is_empty() {
        bail!("{url:?} names no host");
    }
    let target = if target.starts_with('/') {
        target.to_owned()
    } else {
        format!("/{target}")
    };
    Ok((authority.to_owned(), target))
}

fn request_headers(lines: &[String], authority: &str) -> anyhow::Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    headers.insert(
        header::HOST,
        authority.parse().context("the URL's host is no header value")?,
    );
    for line in lines {
        let (name, value) = line
            .split_once(':')
            .with_context(|| format!("{line:?} is not \"Name: value\""))?;
        let name: HeaderName = name
            .trim()
            .parse()
            .with_context(|| format!("{name:?} is no header name"))?;
        headers.append(name, value.trim().parse().context("that is no header value")?);
    }
    Ok(headers)
}

fn somebody(config: &Config, args: &ExplainArgs) -> Session {
    let now = Clock::System.now();
    let id = SessionId(Uuid::now_v7());
    let identity = Identity {
        id: UserId(Uuid::now_v7()),
        email: "ada@example.com".to_owned(),
        email_verified: !args.unverified,
        name: "Ada Lovelace".to_owned(),
        roles: args.roles.clone(),
    };
    let headers = Renderer::new(&config.identity).render(&identity, id, now, &["pwd".to_owned()]);
    Session {
        id,
        identity: Arc::new(identity),
        created_at: now,
        expires_at: now.plus(Duration::from_hours(1)),
        refresh_at: None,
        extending: AtomicBool::new(false),
        last_seen: AtomicI64::new(0),
        headers,
        methods: vec!["pwd".to_owned()],
        assertions: Assertions::default(),
    }
}

fn answered_here(target: &Target) -> &'static str {
    match target {
        Target::Upstream(_) => "forwarded",
        Target::Files(_) => "answered by the gateway, with a file",
        Target::Redirect(_) => "answered by the gateway, with a redirect",
        Target::Answer(_) => "answered by the gateway, always alike",
    }
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
                demands.push(format!("a sign-in within the last {fresh:?}"));
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
        ProxyError::Denied(Denied::SignInNeeded) => "a session is needed".to_owned(),
        error => Chain(error).to_string(),
    }
}

impl Explanation {
    fn print(&self) {
        println!("{}", self.request);
        let row = |name: &str, value: &str| println!("  {name:<10} {value}");
        if let Some(host) = &self.host {
            row("host", host);
        }
        if let Some(path) = &self.path {
            row("path", path);
        }
        match (&self.served_by, self.line) {
            (Some(by), Some(line)) => row("served by", &format!("{by} (line {line} of the configuration)")),
            (Some(by), None) => row("served by", by),
            (None, _) => {}
        }
        for (index, demand) in self.demands.iter().enumerate() {
            row(if index == 0 { "demands" } else { "" }, demand);
        }
        if let Some(upstream) = &self.upstream {
            row("upstream", upstream);
        }
        if let Some(open_to) = &self.open_to {
            row("open to", open_to);
        }
        row("outcome", &self.outcome);
        if !self.receives.is_empty() {
            println!("  the upstream receives");
            for line in &self.receives {
                println!("    {line}");
            }
        }
    }
}
