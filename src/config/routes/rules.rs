//! What of a route's keys doesn't go together.
//!
//! A key that has no effect is an error: whoever wrote it believes that it has.

use http::{Method, header};

use super::{Cors, Credentials, HeaderRules, Target};
use crate::config::{Facts, section::Section};

/// These say how a request is forwarded, and mean nothing where it isn't.
const OF_FORWARDING: [&str; 8] = [
    "timeout",
    "max_body",
    "retries",
    "websocket",
    "credentials",
    "request_headers",
    "encoded_slashes",
    "encoded_bytes",
];

/// What was read of a route; `None` where that failed, and was reported.
pub(super) struct Written<'r> {
    pub target: Option<&'r Target>,
    pub methods: Option<&'r [Method]>,
    pub request_headers: Option<&'r HeaderRules>,
    pub credentials: Option<Credentials>,
    pub cors: Option<&'r Cors>,
}

/// Checks a route whose keys have been read one by one.
pub(super) fn check(s: &Section<'_>, facts: &Facts, written: &Written<'_>) {
    let Written {
        target,
        methods,
        request_headers,
        credentials,
        cors,
    } = *written;
    if s.has("fallback") && !s.has("serve") {
        s.report(
            s.wrong("fallback", "there is no folder to find it in")
                .allowed("`serve` beside it"),
        );
    }
    let Some(target) = target else { return };
    match target {
        Target::Upstream(_) => {}
        Target::Files(_) => {
            report_ineffective(s, "serves files", &OF_FORWARDING);
            let unfit = methods
                .into_iter()
                .flatten()
                .find(|method| !matches!(**method, Method::GET | Method::HEAD));
            if let Some(method) = unfit {
                s.report(
                    s.wrong("methods", "files are read, and nothing else")
                        .found(method.as_str())
                        .allowed("GET and HEAD, or no `methods`"),
                );
            }
        }
        Target::Redirect(_) => report_ineffective(s, "redirects", &OF_FORWARDING),
        Target::Answer(_) => {
            report_ineffective(s, "answers by itself", &OF_FORWARDING);
            report_ineffective(s, "answers by itself", &["strip_prefix", "add_prefix"]);
        }
    }
    if cors == Some(&Cors::Upstream) && !matches!(target, Target::Upstream(_)) {
        s.report(
            s.wrong("cors", "there is no upstream that could say it")
                .allowed("an array, or no `cors`"),
        );
    }
    if let Some(name) = request_headers.and_then(|rules| rules.names().find(|name| facts.is_identity(name))) {
        s.report(
            s.wrong(
                "request_headers",
                format!("has a rule for `{name}`, which carries an identity"),
            )
            .allowed("names that [identity] doesn't have; `-`, `_` and `.` are taken as equal"),
        );
    }
    let hands_over = matches!(credentials, Some(Credentials::Bearer | Credentials::Assertion));
    let keeps = credentials == Some(Credentials::Keep);
    if hands_over && request_headers.is_some_and(touches_authorization) {
        s.report(
            s.wrong("credentials", "`request_headers` has a rule for Authorization as well")
                .allowed("one of the two"),
        );
    }
    if keeps && request_headers.is_some_and(|rules| rules.remove.contains(&header::COOKIE)) {
        s.report(
            s.wrong("credentials", "`request_headers` removes the cookies")
                .found("\"keep\"")
                .allowed("one of the two"),
        );
    }
}

fn touches_authorization(rules: &HeaderRules) -> bool {
    rules.writes(&header::AUTHORIZATION) || rules.remove.contains(&header::AUTHORIZATION)
}

fn report_ineffective(s: &Section<'_>, does: &str, keys: &[&str]) {
    for key in keys.iter().filter(|key| s.has(key)) {
        s.report(
            s.wrong(key, format!("means nothing for a route that {does}"))
                .allowed("such a key beside `upstream`, or no such key"),
        );
    }
}
