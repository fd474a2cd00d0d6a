//! `[upstreams.*]`: whom requests are forwarded to.

use std::{fmt, net::SocketAddr, num::NonZeroUsize, time::Duration};

use super::{
    error::ConfigError,
    found::Wrong,
    kind::{Kind, integer, one_or_more, parsed},
    section::Section,
    units::nonzero_duration,
};

#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Upstream {
    pub name: String,
    /// `http://host:port`, resolved when connecting; at least one.
    pub endpoints: Vec<Endpoint>,
    pub connect_timeout: Duration,
    pub response_timeout: Duration,
    /// How long an unused connection is kept; below the upstream's own keep-alive time-out.
    pub idle_timeout: Duration,
    /// Open connections to it, over all workers; past it a request waits `connect_timeout`, then gets 503.
    pub max_connections: NonZeroUsize,
}

/// Where an upstream listens.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Endpoint {
    Addr(SocketAddr),
    /// Looked up at each connect.
    Name {
        host: String,
        port: u16,
    },
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Addr(addr) => write!(f, "http://{addr}"),
            Self::Name { host, port } => write!(f, "http://{host}:{port}"),
        }
    }
}

impl Upstream {
    pub(super) fn read(s: &mut Section<'_>, name: &str) -> Option<Self> {
        report_bad_name(s, name);
        let endpoints = s
            .key(
                "endpoints",
                "Where it listens; several are balanced. Names are looked up at each connect.",
                one_or_more(endpoint),
            )
            .required("[\"http://127.0.0.1:8000\"]");
        let connect_timeout = s
            .key(
                "connect_timeout",
                "How long connecting, or waiting for a free connection, may take; then 502 or 503.",
                nonzero_duration(),
            )
            .or("5s");
        let response_timeout = s
            .key(
                "response_timeout",
                "How long it may take to begin its answer; then 504.",
                nonzero_duration(),
            )
            .or("60s");
        let idle_timeout = s
            .key(
                "idle_timeout",
                "How long an unused connection is kept. Below the upstream's own keep-alive time-out (5 s for uvicorn and \
                 Node), else requests meet connections that it is just closing.",
                nonzero_duration(),
            )
            .or("4s");
        let max_connections = s
            .key(
                "max_connections",
                "Open connections to it; past it requests wait `connect_timeout`, then get 503.",
                integer::<usize>(1..=1_000_000).map(|count| NonZeroUsize::new(count).unwrap_or(NonZeroUsize::MIN)),
            )
            .or("1024");
        Some(Self {
            name: name.to_owned(),
            endpoints: endpoints?,
            connect_timeout: connect_timeout?,
            response_timeout: response_timeout?,
            idle_timeout: idle_timeout?,
            max_connections: max_connections?,
        })
    }
}

/// Names go into metrics, logs and environment variables.
fn report_bad_name(s: &Section<'_>, name: &str) {
    let plain = name
        .bytes()
        .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_'));
    if name.is_empty() || name.len() > 63 || !plain {
        s.report(
            ConfigError::new(s.place().clone(), s.path(), "not a name for an upstream")
                .found(format!("{name:?}"))
                .allowed("lower-case letters, digits, `-` and `_`, at most 63"),
        );
    }
}

fn endpoint() -> Kind<Endpoint> {
    parsed(
        "a URL such as \"http://127.0.0.1:8000\": http, host, perhaps a port",
        |text| {
            let Some((scheme, rest)) = text.split_once("://") else {
                return Err(Wrong {
                    problem: "without a scheme".to_owned(),
                    nearest: (!text.starts_with("unix:")).then(|| format!("http://{text}")),
                });
            };
            if scheme != "http" {
                return Err(format!("`{scheme}` is not supported: upstreams are spoken to in plain HTTP/1.1").into());
            }
            let url = url::Url::parse(text).map_err(|_| "not a URL")?;
            if !url.username().is_empty() || url.password().is_some() {
                return Err("no user or password belongs here".into());
            }
            if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
                let bare = rest.split(['/', '?', '#']).next().unwrap_or(rest);
                return Err(Wrong::but(
                    "something follows host and port: requests are forwarded with the path that they have",
                    format!("http://{bare}"),
                ));
            }
            let port = url.port_or_known_default().unwrap_or(80);
            if port == 0 {
                return Err("port 0 is nobody's".into());
            }
            match url.host() {
                Some(url::Host::Ipv4(ip)) => Ok(Endpoint::Addr(SocketAddr::new(ip.into(), port))),
                Some(url::Host::Ipv6(ip)) => Ok(Endpoint::Addr(SocketAddr::new(ip.into(), port))),
                Some(url::Host::Domain(host)) => Ok(Endpoint::Name {
                    host: host.to_owned(),
                    port,
                }),
                None => Err("without a host".into()),
            }
        },
    )
}
