//! `[auth.rate_limit]`: how often the auth API may be asked, and how many mails may be sent to one address.

use std::time::Duration;

use crate::config::{
    kind::{boolean, choice, integer},
    section::Section,
    units::nonzero_duration,
};

#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RateLimit {
    pub enabled: bool,
    pub storage: RateStorage,
    /// Wrong secrets per account.
    pub account_failures: Budget,
    /// Mails per recipient.
    pub mails: Budget,
}

/// Where it is counted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RateStorage {
    /// In Postgres: gateways on one database count together.
    Database,
    /// In this process alone.
    Memory,
}

/// So many in so long.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Budget {
    /// At least one.
    pub limit: u32,
    /// Longer than nothing.
    pub window: Duration,
    pub window_from: WindowFrom,
}

/// What a window runs from: one after it, the count begins anew.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum WindowFrom {
    /// The last that was allowed: the wire contract's rule, for addresses.
    Last,
    /// The first of those that count. For people, whose right passwords are given back: those leave nothing behind, and
    /// keep no wrong one in memory.
    First,
}

impl RateLimit {
    pub(super) fn read(s: &mut Section<'_>) -> Option<Self> {
        let enabled = s
            .key(
                "enabled",
                "Whether anything is limited; `vestibule dev` limits nothing.",
                boolean(),
            )
            .or("true");
        let storage = s
            .key(
                "storage",
                "Where it is counted. \"database\": gateways on one database count together; \"memory\": each for \
                 itself, for a single one.",
                choice(&[("database", RateStorage::Database), ("memory", RateStorage::Memory)]),
            )
            .or("database");
        let account_failures = s.section(
            "account_failures",
            "Wrong passwords per account, wherever they come from; then 429, except from where its user has signed in \
             within 30 days: from there wrong ones are counted apart.",
            |s| Budget::read(s, "10", "15m"),
        );
        let mails = s.section(
            "mails",
            "Mails per recipient that anybody can have sent by asking; further ones are left out in silence. Those asked \
             for from where the recipient has signed in within 30 days are counted apart.",
            |s| Budget::read(s, "5", "1h"),
        );
        Some(Self {
            enabled: enabled?,
            storage: storage?,
            account_failures: account_failures?,
            mails: mails?,
        })
    }
}

impl Budget {
    pub(super) fn read(s: &mut Section<'_>, limit: &'static str, window: &'static str) -> Option<Self> {
        let limit = s.key("limit", "How many.", integer::<u32>(1..=1_000_000)).or(limit);
        let window = s
            .key(
                "window",
                "The count begins anew so long after the first that was counted.",
                nonzero_duration(),
            )
            .or(window);
        Some(Self {
            limit: limit?,
            window: window?,
            window_from: WindowFrom::First,
        })
    }
}
