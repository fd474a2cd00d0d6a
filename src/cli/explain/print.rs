//! A decision for people.

use std::fmt::Write as _;

use super::decision::{Decision, Received};
use crate::cli::output::plain;

/// What is found out about `request`, a line each.
pub(super) fn text(request: &str, decision: &Decision) -> String {
    let mut out = String::new();
    let _ = writeln!(out, "{}", plain(request));
    let mut row = |name: &str, value: &str| {
        let _ = writeln!(out, "  {name:<10} {}", plain(value));
    };
    if let Some(host) = &decision.host {
        row("host", host);
    }
    if let Some(path) = &decision.path {
        row("path", path);
    }
    if let Some(by) = decision.served_by() {
        match &decision.route {
            Some(route) => row("served by", &format!("{by} (line {} of the configuration)", route.line)),
            None => row("served by", &by),
        }
    }
    if let Some(route) = &decision.route {
        let mut list = |name: &str, lines: &[String]| {
            for (index, line) in lines.iter().enumerate() {
                row(if index == 0 { name } else { "" }, line);
            }
        };
        list("demands", &route.demands);
        list("also", &route.rules);
        if let Some(upstream) = &route.upstream {
            row("upstream", &format!("{upstream}: {}", route.endpoints.join(", ")));
        }
        row("open to", &route.open_to);
    }
    row("outcome", &decision.outcome.to_string());
    if let Some(received) = decision.outcome.received() {
        out.push_str("  the upstream receives\n");
        for line in Received::lines(received) {
            let _ = writeln!(out, "    {}", plain(&line));
        }
    }
    out
}
