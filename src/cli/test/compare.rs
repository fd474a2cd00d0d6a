//! What was expected of a request, held against what is decided.

use http::{HeaderMap, HeaderName};
use serde::Serialize;

use crate::{
    cli::explain::decision::{Decision, Outcome},
    config::{Expected, ExpectedHeader, ExpectedOutcome},
};

/// One thing that is otherwise than expected.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub(super) struct Difference {
    /// As the file calls it: `outcome`, `headers.x-user-id`.
    pub(super) of: String,
    pub(super) expected: String,
    pub(super) found: String,
}

impl Difference {
    /// The request could not even be made.
    pub(super) fn in_request(error: &anyhow::Error) -> Self {
        Self {
            of: "request".to_owned(),
            expected: "one that can be sent".to_owned(),
            found: format!("{error:#}"),
        }
    }
}

/// In the order of the keys in the documentation.
pub(super) fn differences(expected: &Expected, decision: &Decision) -> Vec<Difference> {
    let mut found = Vec::new();
    let outcome = &decision.outcome;
    if let Some(wanted) = expected.outcome
        && !is_of(outcome, wanted)
    {
        found.push(Difference {
            of: "outcome".to_owned(),
            expected: word(wanted),
            found: outcome.to_string(),
        });
    }
    let route = decision.route.as_ref();
    let received = outcome.received();
    for (of, wanted, is) in [
        ("route", &expected.route, route.map(|route| route.pattern.as_str())),
        (
            "upstream",
            &expected.upstream,
            route.and_then(|route| route.upstream.as_deref()),
        ),
        (
            "path",
            &expected.path,
            received.map(|received| received.target.as_str()),
        ),
        ("location", &expected.location, outcome.location()),
        ("code", &expected.code, outcome.code()),
    ] {
        if let Some(wanted) = wanted
            && is != Some(wanted.as_str())
        {
            found.push(Difference {
                of: of.to_owned(),
                expected: wanted.clone(),
                found: is.map_or_else(|| format!("none ({outcome})"), ToOwned::to_owned),
            });
        }
    }
    for (name, wanted) in &expected.headers {
        let is = received.map(|received| joined(&received.headers, name));
        let difference = match (is, wanted) {
            (None, _) => Some(format!("no request ({outcome})")),
            (Some(None), ExpectedHeader::Absent) | (Some(Some(_)), ExpectedHeader::Present) => None,
            (Some(Some(is)), ExpectedHeader::Is(wanted)) if is == *wanted => None,
            (Some(is), _) => Some(is.unwrap_or_else(|| "no such header".to_owned())),
        };
        if let Some(is) = difference {
            found.push(Difference {
                of: format!("headers.{name}"),
                expected: match wanted {
                    ExpectedHeader::Is(text) => text.clone(),
                    ExpectedHeader::Present => "the header".to_owned(),
                    ExpectedHeader::Absent => "no such header".to_owned(),
                },
                found: is,
            });
        }
    }
    found
}

fn is_of(outcome: &Outcome, wanted: ExpectedOutcome) -> bool {
    match wanted {
        ExpectedOutcome::Forwarded => matches!(outcome, Outcome::Forwarded(_)),
        ExpectedOutcome::Redirect => outcome.location().is_some(),
        ExpectedOutcome::AuthApi => matches!(outcome, Outcome::AuthApi),
        ExpectedOutcome::File => matches!(outcome, Outcome::File { .. }),
        ExpectedOutcome::Preflight => matches!(outcome, Outcome::Preflight),
        ExpectedOutcome::Status(status) => outcome.status() == Some(status),
    }
}

/// As the file has it.
fn word(wanted: ExpectedOutcome) -> String {
    match wanted {
        ExpectedOutcome::Forwarded => "forwarded".to_owned(),
        ExpectedOutcome::Redirect => "redirect".to_owned(),
        ExpectedOutcome::AuthApi => "auth-api".to_owned(),
        ExpectedOutcome::File => "file".to_owned(),
        ExpectedOutcome::Preflight => "preflight".to_owned(),
        ExpectedOutcome::Status(status) => status.to_string(),
    }
}

/// All lines of a name (RFC 9110, section 5.3).
fn joined(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let lines: Vec<_> = headers
        .get_all(name)
        .iter()
        .map(|value| String::from_utf8_lossy(value.as_bytes()))
        .collect();
    (!lines.is_empty()).then(|| lines.join(", "))
}
