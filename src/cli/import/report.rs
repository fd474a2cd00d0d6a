//! What an import did, for people and for scripts. Names rows by their old ids, which may hold what strangers wrote; nothing
//! secret is in it.

use std::{collections::BTreeMap, fmt, time::Duration};

use serde_json::{Value, json};

use super::rows::Reason;
use crate::cli::output::plain;

/// Rows that are named one by one, for each reason.
const NAMED: usize = 100;
/// Of those, how many people are shown.
const SHOWN: usize = 5;

#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Kind {
    Users,
    Accounts,
    Sessions,
}

impl Kind {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Users => "users",
            Self::Accounts => "accounts",
            Self::Sessions => "sessions",
        }
    }
}

/// Whether a row about which there is something to say came over.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Outcome {
    LeftOut,
    Changed,
}

impl Outcome {
    const fn name(self) -> &'static str {
        match self {
            Self::LeftOut => "left-out",
            Self::Changed => "changed",
        }
    }
}

/// Rows of one kind. Each that was read is in one of the others.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Counts {
    pub(super) read: u64,
    pub(super) new: u64,
    pub(super) updated: u64,
    pub(super) known: u64,
    pub(super) left_out: u64,
}

#[derive(Debug)]
pub(super) struct Report {
    pub(super) dry_run: bool,
    counts: BTreeMap<Kind, Counts>,
    notes: BTreeMap<(Outcome, Kind, Reason), Notes>,
    /// Accounts that came without a token of the provider's which they have there.
    provider_tokens: u64,
    /// Users who came over, or had before, without the second factor that they have there.
    second_factors: u64,
    pub(super) passkeys: u64,
    pub(super) took: Duration,
}

#[derive(Debug, Default)]
struct Notes {
    count: u64,
    ids: Vec<String>,
}

impl Report {
    pub(super) fn new(dry_run: bool) -> Self {
        Self {
            dry_run,
            counts: BTreeMap::new(),
            notes: BTreeMap::new(),
            provider_tokens: 0,
            second_factors: 0,
            passkeys: 0,
            took: Duration::ZERO,
        }
    }

    pub(super) fn counts(&mut self, kind: Kind) -> &mut Counts {
        self.counts.entry(kind).or_default()
    }

    pub(super) fn left_out(&mut self, kind: Kind, id: &str, reason: Reason) {
        self.counts(kind).left_out += 1;
        self.note(Outcome::LeftOut, kind, id, reason);
    }

    /// A row came over, and something of it did not.
    pub(super) fn came_in_part(&mut self, kind: Kind) {
        match kind {
            Kind::Users => self.second_factors += 1,
            Kind::Accounts => self.provider_tokens += 1,
            Kind::Sessions => {}
        }
    }

    pub(super) fn note(&mut self, outcome: Outcome, kind: Kind, id: &str, reason: Reason) {
        let notes = self.notes.entry((outcome, kind, reason)).or_default();
        notes.count += 1;
        if notes.ids.len() < NAMED {
            notes.ids.push(id.to_owned());
        }
    }

    pub(super) fn json(&self) -> Value {
        let counts = |counts: &Counts| {
            json!({
                "read": counts.read,
                "new": counts.new,
                "updated": counts.updated,
                "unchanged": counts.known,
                "leftOut": counts.left_out,
            })
        };
        let notes = self.notes.iter().map(|((outcome, kind, reason), notes)| {
            json!({
                "of": kind.name(),
                "outcome": outcome.name(),
                "reason": reason.code(),
                "text": reason.text(),
                "count": notes.count,
                // The first of them.
                "ids": notes.ids,
            })
        });
        let of = |kind| self.counts.get(&kind).map(counts);
        json!({
            "dryRun": self.dry_run,
            "seconds": self.took.as_secs_f64(),
            "users": of(Kind::Users),
            "accounts": of(Kind::Accounts),
            // Null: they were to be left behind.
            "sessions": of(Kind::Sessions),
            "notes": notes.collect::<Vec<_>>(),
            "notImported": {
                "accountsWithProviderTokens": self.provider_tokens,
                "usersWithSecondFactor": self.second_factors,
                "passkeys": self.passkeys,
            },
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<9} {:>9} {:>9} {:>9} {:>9} {:>9}",
            "", "read", "new", "updated", "unchanged", "left out"
        )?;
        for (kind, of) in &self.counts {
            writeln!(
                f,
                "{:<9} {:>9} {:>9} {:>9} {:>9} {:>9}",
                kind.name(),
                of.read,
                of.new,
                of.updated,
                of.known,
                of.left_out
            )?;
        }
        for (heading, outcome) in [
            ("Left out:", Outcome::LeftOut),
            ("Came over otherwise than they were:", Outcome::Changed),
        ] {
            let mut notes = self.notes.iter().filter(|((of, ..), _)| *of == outcome).peekable();
            if notes.peek().is_some() {
                writeln!(f, "\n{heading}")?;
            }
            for ((_, kind, reason), notes) in notes {
                let shown: Vec<_> = notes.ids.iter().take(SHOWN).map(|id| plain(id)).collect();
                let more = if notes.count > shown.len() as u64 { ", …" } else { "" };
                let (count, kind, text) = (notes.count, kind.name(), reason.text());
                writeln!(f, "  {count} {kind}: {text} ({}{more})", shown.join(", "))?;
            }
        }
        let not_imported = [
            (
                self.second_factors,
                "second factors: here the password alone signs those users in",
            ),
            (self.passkeys, "passkeys"),
            (
                self.provider_tokens,
                "accounts came without a token that the provider gave for them",
            ),
        ];
        if not_imported.iter().any(|(count, _)| *count > 0) {
            writeln!(f, "\nNot imported:")?;
        }
        for (count, what) in not_imported.iter().filter(|(count, _)| *count > 0) {
            writeln!(f, "  {count} {what}")?;
        }
        let seconds = self.took.as_secs_f64();
        if self.dry_run {
            write!(f, "\nRead in {seconds:.1} s. Nothing was written: this was a dry run.")
        } else {
            write!(f, "\nDone in {seconds:.1} s.")
        }
    }
}
