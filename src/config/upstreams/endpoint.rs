//! One endpoint: where it listens, and what is spoken there.

use std::{
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use crate::config::{
    error::nearest,
    found::Wrong,
    kind::{Kind, one_or_more, parsed},
};

/// A socket's path has room for so many bytes and a final zero (`sockaddr_un`, on Linux).
const MAX_SOCKET_PATH: usize = 107;

/// Which of them a request has tried fits into one word.
const MAX_ENDPOINTS: usize = 64;

const ALLOWED: &str = "a URL such as \"http://127.0.0.1:8000\": http, https or h2c, host, perhaps a port; or a socket \
                       such as \"unix:/run/app.sock\" or \"unix+h2c:/run/app.sock\"";

/// Where an upstream listens.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Endpoint {
    pub scheme: Scheme,
    pub at: At,
}

/// What is spoken there.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Scheme {
    /// HTTP/1.1.
    Http,
    /// TLS; HTTP/1.1 or HTTP/2 within.
    Https,
    /// HTTP/2 without TLS, by prior knowledge (RFC 9113, 3.3).
    H2c,
}

#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum At {
    Addr(SocketAddr),
    /// Looked up, and looked up again.
    Name {
        host: String,
        port: u16,
    },
    /// Never with [`Scheme::Https`].
    Unix(PathBuf),
}

impl Endpoint {
    /// Plain HTTP/1.1.
    pub const fn http(addr: SocketAddr) -> Self {
        Self {
            scheme: Scheme::Http,
            at: At::Addr(addr),
        }
    }

    pub const fn is_tls(&self) -> bool {
        matches!(self.scheme, Scheme::Https)
    }

    /// What a request of the gateway's own names as its host.
    pub fn authority(&self) -> String {
        match &self.at {
            At::Addr(addr) => addr.to_string(),
            At::Name { host, port } => format!("{host}:{port}"),
            At::Unix(_) => "localhost".to_owned(),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match (self.scheme, &self.at) {
            (Scheme::H2c, At::Unix(path)) => return write!(f, "unix+h2c:{}", path.display()),
            (Scheme::Http | Scheme::Https, At::Unix(path)) => return write!(f, "unix:{}", path.display()),
            (Scheme::Http, _) => "http",
            (Scheme::Https, _) => "https",
            (Scheme::H2c, _) => "h2c",
        };
        write!(f, "{scheme}://{}", self.authority())
    }
}

pub(super) fn endpoints() -> Kind<Vec<Endpoint>> {
    let kind = one_or_more(endpoint);
    let allowed = format!("{}, at most {MAX_ENDPOINTS}", kind.allowed);
    kind.check(allowed, |endpoints| {
        if endpoints.len() > MAX_ENDPOINTS {
            return Err("more than one request could try".into());
        }
        Ok(())
    })
}

fn endpoint() -> Kind<Endpoint> {
    parsed(ALLOWED, |text| {
        for (prefix, scheme) in [("unix:", Scheme::Http), ("unix+h2c:", Scheme::H2c)] {
            if let Some(path) = text.strip_prefix(prefix) {
                return socket(prefix, scheme, path);
            }
        }
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(Wrong {
                problem: "without a scheme".to_owned(),
                nearest: Some(format!("http://{text}")),
            });
        };
        Ok(Endpoint {
            scheme: known_scheme(scheme, rest)?,
            at: host_and_port(scheme, rest)?,
        })
    })
}

fn known_scheme(scheme: &str, rest: &str) -> Result<Scheme, Wrong> {
    let instead = match scheme {
        "http" => return Ok(Scheme::Http),
        "https" => return Ok(Scheme::Https),
        "h2c" => return Ok(Scheme::H2c),
        // What people write who think of one use of it.
        "ws" => Some("http".to_owned()),
        "wss" | "h2" | "grpcs" => Some("https".to_owned()),
        "grpc" => Some("h2c".to_owned()),
        _ => nearest(scheme, ["http", "https", "h2c"]),
    };
    Err(Wrong {
        problem: format!("`{scheme}` is no scheme of an endpoint"),
        nearest: instead.map(|scheme| format!("{scheme}://{rest}")),
    })
}

fn host_and_port(scheme: &str, rest: &str) -> Result<At, Wrong> {
    // The parser knows addresses and default ports of these two alone.
    let (like, default) = match scheme {
        "https" => ("https", 443),
        _ => ("http", 80),
    };
    let url = url::Url::parse(&format!("{like}://{rest}")).map_err(|_| "not a URL")?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err("no user or password belongs here".into());
    }
    if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
        let bare = rest.split(['/', '?', '#']).next().unwrap_or(rest);
        return Err(Wrong::but(
            "something follows host and port: requests are forwarded with the path that they have",
            format!("{scheme}://{bare}"),
        ));
    }
    let port = url.port().unwrap_or(default);
    if port == 0 {
        return Err("port 0 is nobody's".into());
    }
    match url.host() {
        Some(url::Host::Ipv4(ip)) => Ok(At::Addr(SocketAddr::new(ip.into(), port))),
        Some(url::Host::Ipv6(ip)) => Ok(At::Addr(SocketAddr::new(ip.into(), port))),
        Some(url::Host::Domain(host)) => Ok(At::Name {
            host: host.to_owned(),
            port,
        }),
        None => Err("without a host".into()),
    }
}

fn socket(prefix: &str, scheme: Scheme, path: &str) -> Result<Endpoint, Wrong> {
    if let Some(rest) = path.strip_prefix("//") {
        let nearest = format!("{prefix}/{}", rest.trim_start_matches('/'));
        return Err(Wrong::but("a socket has no host", nearest));
    }
    if !Path::new(path).is_absolute() {
        return Err("a socket's path begins at the root, with /".into());
    }
    if path.len() > MAX_SOCKET_PATH || path.contains('\0') {
        return Err(format!("a socket's path has at most {MAX_SOCKET_PATH} bytes, none of them zero").into());
    }
    Ok(Endpoint {
        scheme,
        at: At::Unix(PathBuf::from(path)),
    })
}
