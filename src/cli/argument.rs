//! What operators write on the command line, parsed into what can't be wrong. Whatever does not parse is wrong usage, and
//! clap says so with the words that stand here.

use std::{
    io::{self, BufRead as _},
    str::FromStr,
    time::Duration,
};

use anyhow::Context;

use crate::{clock::Timestamp, config::parse_duration, identity::UserId, secret::Secret};

/// A user, by id or by e-mail address.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Who {
    Id(UserId),
    /// Lower case.
    Email(String),
}

impl FromStr for Who {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(id) = text.parse() {
            return Ok(Self::Id(id));
        }
        if text.contains('@') {
            return Ok(Self::Email(text.to_ascii_lowercase()));
        }
        Err("name a user by id or by e-mail address; `vestibule user list --search TEXT` finds both")
    }
}

/// A role, as `users_roles_check` has it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Role(pub(super) String);

impl FromStr for Role {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b':' | b'-');
        if (1..=64).contains(&text.len()) && text.bytes().all(legal) {
            return Ok(Self(text.to_owned()));
        }
        Err("a role is 1 to 64 characters of A-Z a-z 0-9 . _ : -, since roles travel in a header, parted by commas")
    }
}

/// These roles, each once, in their order.
pub(super) fn distinct<'r>(roles: impl IntoIterator<Item = &'r Role>) -> Vec<String> {
    let mut distinct = Vec::new();
    for Role(role) in roles {
        if !distinct.contains(role) {
            distinct.push(role.clone());
        }
    }
    distinct
}

/// A point in time on the command line, or how long ago it was.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum When {
    At(Timestamp),
    Ago(Duration),
}

impl When {
    pub(super) fn before(self, now: Timestamp) -> Timestamp {
        match self {
            Self::At(at) => at,
            Self::Ago(ago) => now.minus(ago),
        }
    }
}

impl FromStr for When {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(at) = text.parse() {
            return Ok(Self::At(at));
        }
        let ago = parse_duration(text);
        ago.map(Self::Ago)
            .map_err(|problem| format!("{problem}, or a time such as 2026-11-21T07:15:08Z"))
    }
}

/// A URL with a password in it perhaps. Who says "-" writes it to standard input, out of the sight of others: they see what a
/// process was started with.
pub(super) fn url(text: &str) -> anyhow::Result<Secret<String>> {
    if text != "-" {
        return Ok(Secret::new(text.to_owned()));
    }
    let mut line = String::new();
    let read = io::stdin().lock().read_line(&mut line);
    read.context("could not read the URL from standard input")?;
    Ok(Secret::new(line.trim().to_owned()))
}

/// For clap: at most so many rows are asked for at once, so that a slip does not fetch a million.
pub(super) fn limit(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(limit @ 1..=MAX_LIMIT) => Ok(limit),
        _ => Err(format!("a number from 1 to {MAX_LIMIT}; --after goes on from there")),
    }
}

const MAX_LIMIT: usize = 10_000;

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn users_are_named_by_id_or_address() {
        let id = Uuid::now_v7();
        assert_eq!(id.to_string().parse(), Ok(Who::Id(UserId(id))));
        assert_eq!("Ada@Example.com".parse(), Ok(Who::Email("ada@example.com".to_owned())));
        assert!("ada".parse::<Who>().is_err());
    }

    #[test]
    fn roles_are_what_the_database_takes() {
        let long = "a".repeat(64);
        for role in ["user", "a.b_c:d-E9", &long] {
            assert!(role.parse::<Role>().is_ok(), "{role}");
        }
        let longer = "a".repeat(65);
        for role in ["", "a,b", "a b", "é", "a\n", &longer] {
            assert!(role.parse::<Role>().is_err(), "{role}");
        }
        let roles = ["b", "a", "b"].map(|role| Role(role.to_owned()));
        assert_eq!(distinct(&roles), ["b", "a"]);
    }

    #[test]
    fn times_are_given_or_counted_back() {
        let now = Timestamp::from_secs(1_000_000);
        let when = |text: &str| text.parse::<When>().map(|when| when.before(now));
        assert_eq!(when("24h"), Ok(now.minus(Duration::from_hours(24))));
        assert_eq!(when("1970-01-01T00:00:10Z"), Ok(Timestamp::from_secs(10)));
        for text in ["24", "yesterday", ""] {
            assert!(when(text).is_err(), "{text}");
        }
    }
}
