//! What was found out about a request, as `explain` prints it and `test` compares it.

use http::{HeaderMap, HeaderValue, Method};
use serde::Serialize;

/// What becomes of a request, and why.
#[derive(Debug)]
pub(in crate::cli) struct Decision {
    pub(in crate::cli) host: Option<String>,
    /// The normal path.
    pub(in crate::cli) path: Option<String>,
    pub(in crate::cli) route: Option<Matched>,
    pub(in crate::cli) outcome: Outcome,
}

/// The route that a request takes.
#[derive(Debug)]
pub(in crate::cli) struct Matched {
    /// The pattern of its path.
    pub(in crate::cli) pattern: String,
    pub(in crate::cli) host: Option<String>,
    /// In the configuration; 0 if it isn't from there.
    pub(in crate::cli) line: usize,
    pub(in crate::cli) demands: Vec<String>,
    pub(in crate::cli) upstream: Option<String>,
    /// Of the upstream, as the file has them.
    pub(in crate::cli) endpoints: Vec<String>,
    /// Whose pages may call it from elsewhere and read the answers.
    pub(in crate::cli) open_to: String,
    /// What else is said of it in the file, a line each.
    pub(in crate::cli) rules: Vec<String>,
}

#[derive(Debug)]
pub(in crate::cli) enum Outcome {
    Forwarded(Received),
    /// The auth API answers.
    AuthApi,
    /// A page of another origin is told that it may send its request.
    Preflight,
    /// A file of a folder, if it is there.
    File {
        folder: String,
        path: String,
    },
    /// What the route says, a redirect perhaps.
    Answer {
        status: u16,
        location: Option<String>,
    },
    /// To the sign-in page.
    SignIn {
        location: String,
        reason: String,
    },
    Refused(Refusal),
}

/// The request that the upstream would receive.
#[derive(Debug)]
pub(in crate::cli) struct Received {
    pub(in crate::cli) method: Method,
    /// Path and query.
    pub(in crate::cli) target: String,
    pub(in crate::cli) headers: HeaderMap,
}

#[derive(Debug)]
pub(in crate::cli) struct Refusal {
    pub(in crate::cli) status: u16,
    pub(in crate::cli) code: &'static str,
    /// gRPC is told by this one, with HTTP's 200.
    pub(in crate::cli) grpc_status: Option<HeaderValue>,
    pub(in crate::cli) reason: String,
}

impl Decision {
    /// Before anybody has judged.
    pub(super) const fn nothing_yet() -> Self {
        Self {
            host: None,
            path: None,
            route: None,
            outcome: Outcome::AuthApi,
        }
    }

    /// For scripts.
    pub(super) fn json<'d>(&'d self, request: &'d str) -> Json<'d> {
        let route = self.route.as_ref();
        Json {
            request,
            host: self.host.as_deref(),
            path: self.path.as_deref(),
            served_by: self.served_by(),
            line: route.map(|route| route.line),
            demands: route.map_or(&[], |route| &route.demands),
            rules: route.map_or(&[], |route| &route.rules),
            outcome: self.outcome.to_string(),
            status: self.outcome.status(),
            code: self.outcome.code(),
            location: self.outcome.location(),
            upstream: route.and_then(|route| route.upstream.as_deref()),
            endpoints: route.map_or(&[], |route| &route.endpoints),
            open_to: route.map(|route| route.open_to.as_str()),
            receives: self.outcome.received().map_or_else(Vec::new, Received::lines),
        }
    }

    /// `the auth API`, or the route.
    pub(super) fn served_by(&self) -> Option<String> {
        match (&self.route, &self.outcome) {
            (Some(route), _) => Some(format!(
                "route {}{}",
                route.host.as_deref().unwrap_or_default(),
                route.pattern
            )),
            (None, Outcome::AuthApi) => Some("the auth API".to_owned()),
            (None, _) => None,
        }
    }
}

impl Outcome {
    /// Of the answer, if it is the gateway's and always the same.
    pub(in crate::cli) const fn status(&self) -> Option<u16> {
        match self {
            Self::Refused(refusal) => Some(refusal.status),
            Self::Answer { status, .. } => Some(*status),
            Self::SignIn { .. } => Some(303),
            Self::Preflight => Some(204),
            Self::Forwarded(_) | Self::AuthApi | Self::File { .. } => None,
        }
    }

    pub(in crate::cli) const fn code(&self) -> Option<&'static str> {
        match self {
            Self::Refused(refusal) => Some(refusal.code),
            Self::Forwarded(_)
            | Self::AuthApi
            | Self::Preflight
            | Self::File { .. }
            | Self::Answer { .. }
            | Self::SignIn { .. } => None,
        }
    }

    pub(in crate::cli) fn location(&self) -> Option<&str> {
        match self {
            Self::SignIn { location, .. } => Some(location),
            Self::Answer { location, .. } => location.as_deref(),
            Self::Forwarded(_) | Self::AuthApi | Self::Preflight | Self::File { .. } | Self::Refused(_) => None,
        }
    }

    pub(in crate::cli) const fn received(&self) -> Option<&Received> {
        match self {
            Self::Forwarded(received) => Some(received),
            Self::AuthApi
            | Self::Preflight
            | Self::File { .. }
            | Self::Answer { .. }
            | Self::SignIn { .. }
            | Self::Refused(_) => None,
        }
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Forwarded(_) => f.write_str("forwarded"),
            Self::AuthApi => f.write_str("answered by the gateway itself"),
            Self::Preflight => f.write_str("a preflight, answered by the gateway: the page may send its request"),
            Self::File { folder, path } => write!(f, "answered by the gateway, with the file {path} of {folder}"),
            Self::Answer {
                status,
                location: Some(location),
            } => write!(f, "redirected: {status} to {location}"),
            Self::Answer { status, location: None } => write!(f, "answered by the gateway: {status}"),
            Self::SignIn { location, reason } => write!(f, "redirected: 303 to {location}: {reason}"),
            Self::Refused(refusal) => {
                let Refusal {
                    status,
                    code,
                    grpc_status,
                    reason,
                } = refusal;
                match grpc_status.as_ref().and_then(|status| status.to_str().ok()) {
                    Some(grpc) => write!(f, "refused: grpc-status {grpc} {code}: {reason}"),
                    None => write!(f, "refused: {status} {code}: {reason}"),
                }
            }
        }
    }
}

impl Received {
    /// The request line and the headers.
    pub(super) fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!("{} {} HTTP/1.1", self.method, self.target)];
        for (name, value) in &self.headers {
            lines.push(format!("{name}: {}", String::from_utf8_lossy(value.as_bytes())));
        }
        lines
    }
}

/// What `--json` prints: a public interface, to which fields may be added.
#[derive(Debug, Serialize)]
pub(super) struct Json<'d> {
    request: &'d str,
    host: Option<&'d str>,
    path: Option<&'d str>,
    served_by: Option<String>,
    line: Option<usize>,
    demands: &'d [String],
    rules: &'d [String],
    outcome: String,
    status: Option<u16>,
    code: Option<&'static str>,
    location: Option<&'d str>,
    upstream: Option<&'d str>,
    endpoints: &'d [String],
    open_to: Option<&'d str>,
    receives: Vec<String>,
}
