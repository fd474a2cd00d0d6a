//! What `vestibule test` prints: a line a test, below it what differs; JSON for scripts.

use std::fmt::Write as _;

use serde::Serialize;

use super::compare::Difference;
use crate::cli::output::plain;

/// What came of all tests, in the order of the files.
#[derive(Debug, Default)]
pub(super) struct Report {
    outcomes: Vec<Outcome>,
}

/// What came of one.
#[derive(Debug, Serialize)]
pub(super) struct Outcome {
    pub(super) file: String,
    pub(super) line: usize,
    pub(super) name: String,
    /// Empty: it passed.
    pub(super) differences: Vec<Difference>,
}

/// A public interface, to which fields may be added.
#[derive(Debug, Serialize)]
struct Json<'r> {
    passed: usize,
    failed: usize,
    tests: Vec<JsonTest<'r>>,
}

#[derive(Debug, Serialize)]
struct JsonTest<'r> {
    passed: bool,
    #[serde(flatten)]
    outcome: &'r Outcome,
}

impl Report {
    pub(super) fn add(&mut self, outcome: Outcome) {
        self.outcomes.push(outcome);
    }

    pub(super) fn failed(&self) -> usize {
        let failed = self.outcomes.iter().filter(|outcome| !outcome.differences.is_empty());
        failed.count()
    }

    pub(super) fn text(&self) -> String {
        let mut out = String::new();
        for outcome in &self.outcomes {
            let word = if outcome.differences.is_empty() { "pass" } else { "FAIL" };
            let _ = writeln!(out, "{word}  {}", plain(&outcome.name));
            if !outcome.differences.is_empty() {
                let _ = writeln!(out, "      {}:{}", plain(&outcome.file), outcome.line);
            }
            for difference in &outcome.differences {
                let Difference { of, expected, found } = difference;
                let _ = writeln!(out, "      {of}");
                let _ = writeln!(out, "        expected  {}", plain(expected));
                let _ = writeln!(out, "        found     {}", plain(found));
            }
        }
        let (all, failed) = (self.outcomes.len(), self.failed());
        let _ = writeln!(out, "{} passed, {failed} failed", all - failed);
        out
    }

    pub(super) fn json(&self) -> serde_json::Result<String> {
        let tests = self.outcomes.iter().map(|outcome| JsonTest {
            passed: outcome.differences.is_empty(),
            outcome,
        });
        serde_json::to_string_pretty(&Json {
            passed: self.outcomes.len() - self.failed(),
            failed: self.failed(),
            tests: tests.collect(),
        })
    }
}
