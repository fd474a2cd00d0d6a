//! `rate_limit`: how often a route may be asked by one address, or by one user.

use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    time::Duration,
};

use http::Method;

use super::HostPattern;
use crate::config::{
    PathPattern,
    kind::{choice, integer},
    section::Section,
    units::nonzero_duration,
};

/// A bucket that holds `requests` and fills again evenly, once over in `window`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RouteLimit {
    /// At least one.
    pub requests: u32,
    /// Longer than nothing, at most [`MAX_WINDOW`].
    pub window: Duration,
    pub by: LimitedBy,
    /// Tells routes apart: the same for the same route after a reload.
    pub of: u64,
}

/// Whose requests are counted together.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LimitedBy {
    /// The client's address; of IPv6 its /64.
    Address,
    /// The user; whoever isn't signed in, by address.
    User,
}

/// It is counted in memory, and gone with a restart.
const MAX_WINDOW: Duration = Duration::from_hours(24);

impl RouteLimit {
    pub(super) fn read(s: &mut Section<'_>) -> Option<Self> {
        s.shown_as_comment();
        let requests = s
            .key(
                "requests",
                "How many at once, and how many within `window` from then on; past it: 429 with Retry-After.",
                integer::<u32>(1..=1_000_000),
            )
            .optional("100");
        let window = s
            .key(
                "window",
                "How long until all of them may be asked again; they come back one by one, evenly.",
                nonzero_duration().check("a duration such as \"1m\", above zero, at most \"24h\"", |window| {
                    if *window > MAX_WINDOW {
                        return Err("longer than is counted: it is kept in memory".into());
                    }
                    Ok(())
                }),
            )
            .or("1m");
        let by = s
            .key(
                "by",
                "Whose requests count together: \"address\", the client's (of IPv6 its /64); \"user\", and by address \
                 whoever isn't signed in.",
                choice(&[("address", LimitedBy::Address), ("user", LimitedBy::User)]),
            )
            .or("address");
        if s.is_present() && requests == Some(None) {
            s.report(
                s.wrong("requests", "missing")
                    .allowed("a whole number from 1 to 1000000"),
            );
        }
        Some(Self {
            requests: requests??,
            window: window?,
            by: by?,
            of: 0,
        })
    }
}

/// What stands for a route in the counting: its host, path and methods.
pub(super) fn counted_as(host: Option<&HostPattern>, path: Option<&PathPattern>, methods: Option<&[Method]>) -> u64 {
    // Nobody but the operator chooses what is hashed.
    let mut hasher = DefaultHasher::new();
    host.hash(&mut hasher);
    path.map(|path| path.text.as_str()).hash(&mut hasher);
    methods.hash(&mut hasher);
    hasher.finish()
}
