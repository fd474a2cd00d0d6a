//! Web origins (RFC 6454): what browsers compare, and the patterns of `trusted_origins`.

use std::fmt;

use super::{
    found::Wrong,
    kind::{Kind, parsed},
};

/// Scheme, host and port; kept as browsers serialise it: lower case, default port left out.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Origin {
    serialized: String,
    https: bool,
    /// Host without port; an IPv6 address in brackets.
    host: String,
    port: u16,
}

impl Origin {
    /// From an `http` or `https` URL that has nothing behind its authority but an optional `/`.
    pub fn parse(text: &str) -> Option<Self> {
        let url = url::Url::parse(text).ok()?;
        let bare = matches!(url.path(), "" | "/")
            && url.query().is_none()
            && url.fragment().is_none()
            && url.username().is_empty()
            && url.password().is_none();
        bare.then(|| Self::of(&url)).flatten()
    }

    /// The origin of any `http` or `https` URL.
    pub fn of(url: &url::Url) -> Option<Self> {
        let https = match url.scheme() {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        Some(Self {
            serialized: url.origin().ascii_serialization(),
            https,
            host: url.host_str()?.to_owned(),
            port: url.port_or_known_default()?,
        })
    }

    /// As in an `Origin` header: `https://app.example.com`.
    pub fn as_str(&self) -> &str {
        &self.serialized
    }

    pub const fn is_https(&self) -> bool {
        self.https
    }

    pub const fn scheme(&self) -> &'static str {
        if self.https { "https" } else { "http" }
    }

    pub fn host(&self) -> &str {
        &self.host
    }

    pub const fn port(&self) -> u16 {
        self.port
    }

    /// `localhost`, `*.localhost`, `127.0.0.0/8`, `[::1]`.
    pub fn is_loopback(&self) -> bool {
        is_loopback_host(&self.host)
    }
}

/// Whether a host name (without port) can only mean this machine.
pub fn is_loopback_host(host: &str) -> bool {
    let host = host.trim_end_matches('.');
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || host.to_ascii_lowercase().ends_with(".localhost")
        || bare.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.serialized)
    }
}

/// One entry of `auth.trusted_origins`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum OriginPattern {
    Exact(Origin),
    /// `https://*.example.com`: `*` and `?` stand for characters of the host, never for a dot-less suffix trick:
    /// the pattern is compared with the whole serialised origin.
    Wildcard(String),
    /// `myapp://` or `myapp://host/path`: compared by scheme, then as a prefix.
    Scheme(String),
}

impl OriginPattern {
    pub(super) fn parse(text: &str) -> Result<Self, Wrong> {
        let Some((scheme, rest)) = text.split_once("://") else {
            let problem = "without a scheme";
            let meant = format!("https://{text}");
            return Err(match Self::parse(&meant) {
                Ok(_) => Wrong::but(problem, meant),
                Err(_) => problem.into(),
            });
        };
        let word = scheme
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'+' | b'-' | b'.'));
        if !word || !scheme.starts_with(|first: char| first.is_ascii_lowercase()) {
            return Err("not a scheme in lower case".into());
        }
        match scheme {
            "http" | "https" if rest.contains(['*', '?']) => wildcard(text, rest),
            "http" | "https" => {
                let origin = Origin::parse(text).ok_or("not an origin: only scheme, host and port make one")?;
                Ok(Self::Exact(origin))
            }
            "javascript" | "data" | "vbscript" | "file" | "blob" | "about" => {
                Err("a scheme that runs code or reads files".into())
            }
            _ if rest
                .contains(|c: char| c.is_whitespace() || c.is_control() || matches!(c, '*' | '?' | '#' | '\\')) =>
            {
                Err("after a scheme of your own only a host and a path may follow".into())
            }
            _ => Ok(Self::Scheme(text.to_owned())),
        }
    }
}

/// As it is written in the configuration.
impl fmt::Display for OriginPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(origin) => origin.fmt(f),
            Self::Wildcard(pattern) | Self::Scheme(pattern) => f.write_str(pattern),
        }
    }
}

pub(super) fn origin_pattern() -> Kind<OriginPattern> {
    parsed(
        "an origin such as \"https://app.example.com\", a pattern such as \"https://*.example.com\", or a scheme such as \
         \"myapp://\"",
        OriginPattern::parse,
    )
}

/// A wildcard must not reach hosts of strangers: `https://*example.com` would take `https://evilexample.com` in, and
/// `https://*.com` everybody.
fn wildcard(text: &str, rest: &str) -> Result<OriginPattern, Wrong> {
    let (host, port) = rest
        .split_once(':')
        .map_or((rest, None), |(host, port)| (host, Some(port)));
    let legal =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.' | b'*' | b'?');
    if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err(Wrong::but(
            "browsers write origins in lower case",
            text.to_ascii_lowercase(),
        ));
    }
    if host.is_empty() || !host.bytes().all(legal) {
        return Err("not a host with wildcards; only a port may follow it".into());
    }
    let mut labels = host.rsplit('.');
    let (last, before) = (labels.next().unwrap_or_default(), labels.next());
    let wild = |label: &str| label.contains(['*', '?']);
    let own = !wild(last) && !last.is_empty() && (last == "localhost" || before.is_some_and(|label| !wild(label)));
    if !own {
        return Err(
            "matches hosts of strangers: the last two labels must be plain, as in `https://*.example.com`".into(),
        );
    }
    match port {
        None | Some("*") => {}
        Some("443") if text.starts_with("https:") => {
            return Err(Wrong::but(
                "browsers leave the default port out",
                text.trim_end_matches(":443"),
            ));
        }
        Some("80") if text.starts_with("http:") => {
            return Err(Wrong::but(
                "browsers leave the default port out",
                text.trim_end_matches(":80"),
            ));
        }
        Some(port) if port.parse::<u16>().is_ok() => {}
        Some(_) => return Err("the port is neither a number nor `*`".into()),
    }
    Ok(OriginPattern::Wildcard(text.to_owned()))
}
