//! `[database]`: where users and sessions are kept.

use std::{error::Error as _, num::NonZeroUsize, str::FromStr as _, time::Duration};

use tokio_postgres::Config;

use super::{
    found::Wrong,
    kind::{Kind, choice, integer, parsed, secret},
    section::Section,
    units::nonzero_duration,
};
use crate::secret::Secret;

#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Database {
    pub url: Secret<String>,
    pub pool_size: NonZeroUsize,
    pub acquire_timeout: Duration,
    pub statement_timeout: Duration,
    /// A plain lower-case SQL identifier.
    pub schema: String,
    pub migrate: Migrate,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Migrate {
    OnStart,
    Manual,
}

impl Database {
    pub(super) fn read(s: &mut Section<'_>) -> Option<Self> {
        let url = s
            .key(
                "url",
                "The PostgreSQL database. It holds a password: keep it out of this file.",
                database_url(),
            )
            .required("{ env = \"DATABASE_URL\" }");
        let pool_size = s
            .key(
                "pool_size",
                "Connections to it; a quarter of them is kept for looking up sessions.",
                integer::<usize>(1..=10_000).map(|size| NonZeroUsize::new(size).unwrap_or(NonZeroUsize::MIN)),
            )
            .or("16");
        let acquire_timeout = s
            .key(
                "acquire_timeout",
                "How long a request waits for a connection, and for looking up its session as a whole; then: 503.",
                nonzero_duration(),
            )
            .or("2s");
        let statement_timeout = s
            .key(
                "statement_timeout",
                "How long one statement may take.",
                nonzero_duration(),
            )
            .or("5s");
        let schema = s
            .key("schema", "The schema that holds the gateway's tables.", schema())
            .or("auth");
        let migrate = s
            .key(
                "migrate",
                "\"manual\": refuse to start on an old schema, and say the command.",
                choice(&[("on-start", Migrate::OnStart), ("manual", Migrate::Manual)]),
            )
            .or("on-start");
        Some(Self {
            url: url?,
            pool_size: pool_size?,
            acquire_timeout: acquire_timeout?,
            statement_timeout: statement_timeout?,
            schema: schema?,
            migrate: migrate?,
        })
    }
}

/// Read by the very parser that connects, so that whoever passes here is not refused at the start.
fn database_url() -> Kind<Secret<String>> {
    secret("a URL such as \"postgres://user:password@host:5432/name\"", |text| {
        let url = ["postgres://", "postgresql://"]
            .iter()
            .any(|scheme| text.strip_prefix(scheme).is_some_and(|rest| !rest.is_empty()));
        let pairs = !text.contains("://") && text.split_whitespace().next().is_some_and(|pair| pair.contains('='));
        if !url && !pairs {
            return Err("not a PostgreSQL URL".into());
        }
        let parsed = Config::from_str(text).map_err(|error| unreadable(&error))?;
        if parsed.get_hosts().is_empty() && parsed.get_hostaddrs().is_empty() {
            return Err("names no host".into());
        }
        Ok(())
    })
}

/// Parameters that libpq has and our client has not.
const OF_LIBPQ: &[&str] = &[
    "fallback_application_name",
    "gssencmode",
    "gsslib",
    "krbsrvname",
    "passfile",
    "require_auth",
    "requirepeer",
    "requiressl",
    "service",
    "sslcert",
    "sslcompression",
    "sslcrl",
    "sslcrldir",
    "sslkey",
    "sslpassword",
    "sslrootcert",
    "sslsni",
    "ssl_max_protocol_version",
    "ssl_min_protocol_version",
];

/// What is wrong, in words of ours: the client's may repeat a part of the text, hence of a password with an `@` or a
/// `?` that isn't encoded.
fn unreadable(error: &tokio_postgres::Error) -> Wrong {
    let cause = error.source().map(ToString::to_string).unwrap_or_default();
    let quoted = cause.split('`').nth(1).unwrap_or_default();
    if cause.starts_with("invalid value for option") {
        return match quoted {
            "sslmode" => "`sslmode` is not disable, prefer or require; instead of verify-full or verify-ca, write \
                          sslmode=require: certificates are always verified"
                .into(),
            option => format!("the value of `{option}` is not allowed").into(),
        };
    }
    if OF_LIBPQ.contains(&quoted) {
        return format!("the parameter `{quoted}` is not supported").into();
    }
    if cause.starts_with("unknown option") {
        return "there is a parameter that nobody knows; is a character of the password not percent-encoded?".into();
    }
    "can't be read; is a character of the password not percent-encoded?".into()
}

/// Channels for notifications are named `vestibule_<schema>`; Postgres cuts names at 63 bytes.
fn schema() -> Kind<String> {
    const MOST: usize = 53;
    let allowed = "a plain identifier: lower-case letters, digits and underscores, not starting with a digit";
    parsed(allowed, |text| {
        let plain = text
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
        if text.is_empty() || !plain || text.starts_with(|first: char| first.is_ascii_digit()) {
            let folded = text.to_ascii_lowercase().replace('-', "_");
            return Err(Wrong {
                problem: "not a plain identifier".to_owned(),
                nearest: (!folded.is_empty() && folded != text).then_some(folded),
            });
        }
        if text.len() > MOST {
            return Err("longer than 53 characters".into());
        }
        if text.starts_with("pg_") || text == "information_schema" {
            return Err("reserved by PostgreSQL".into());
        }
        Ok(text.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(url: &str) -> Option<String> {
        Config::from_str(url).err().map(|error| unreadable(&error).problem)
    }

    #[test]
    fn what_is_wrong_is_said_without_the_text() {
        for (url, says) in [
            ("postgres://u:hunter2@h/x?sslmode=verify-full", "write sslmode=require"),
            ("postgres://u:hunter2@h/x?sslmode=verify-ca", "write sslmode=require"),
            ("postgres://u:hunter2@h:99999/x", "`port`"),
            (
                "postgres://u:hunter2@h/x?sslrootcert=/a",
                "`sslrootcert` is not supported",
            ),
            ("postgres://u:hunter2@h/x?hunter2=1", "a parameter that nobody knows"),
            ("host=h password='hunter2", "can't be read"),
            ("host=h password=x hunter2=y", "a parameter that nobody knows"),
        ] {
            let problem = told(url).unwrap_or_else(|| panic!("{url} is taken"));
            assert!(problem.contains(says), "{url}: {problem}");
            assert!(!problem.contains("hunter2"), "{problem}");
        }
        for fine in [
            "postgres://u:p@h/x?sslmode=require&connect_timeout=3",
            "host=h user=u dbname=x",
            "postgres:///x?host=/run/postgresql",
        ] {
            assert_eq!(told(fine), None, "{fine}");
        }
    }
}
