//! What is said of a failure that a database reports.
//!
//! Its words may hold what stands in the rows, and rows are strangers': so they are shown as a terminal may be shown
//! them, and without values, which may be anything that a column holds. Postgres's details and hints, which repeat rows,
//! are never said.

use std::borrow::Cow;

use anyhow::anyhow;

use crate::{cli::output::plain, db::DbError};

/// "Data exception": the class of failures whose message quotes the value.
const DATA: &str = "22";

pub(super) fn of_postgres(error: tokio_postgres::Error) -> anyhow::Error {
    match error.as_db_error() {
        Some(said) => {
            let code = said.code().code();
            anyhow!("{}", told(said.message(), code))
        }
        None => of_another(error.into()),
    }
}

pub(super) fn of_db(error: DbError) -> anyhow::Error {
    match error {
        DbError::Failed { query, source } => of_postgres(source).context(format!("query {query} failed")),
        other => of_another(other.into()),
    }
}

/// With its causes.
pub(super) fn of_another(error: anyhow::Error) -> anyhow::Error {
    let text = format!("{error:#}");
    match plain(&text) {
        Cow::Borrowed(_) => error,
        Cow::Owned(shown) => anyhow!(shown),
    }
}

fn told(message: &str, code: &str) -> String {
    let message = if code.starts_with(DATA) {
        without_value(message)
    } else {
        Cow::Borrowed(message)
    };
    format!("{} ({})", plain(&message), plain(code))
}

/// From the first quotation mark to the last: a value may hold some itself.
fn without_value(message: &str) -> Cow<'_, str> {
    match (message.split_once('"'), message.rsplit_once('"')) {
        (Some((before, _)), Some((_, after))) => Cow::Owned(format!("{before}\"…\"{after}")),
        _ => Cow::Borrowed(message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_said_and_values_are_not() {
        for (message, code, said) in [
            (
                "permission denied for table \"user\"",
                "42501",
                "permission denied for table \"user\" (42501)",
            ),
            (
                "invalid input syntax for type boolean: \"a \"secret\" \u{1b}[2J\"",
                "22P02",
                "invalid input syntax for type boolean: \"…\" (22P02)",
            ),
            (
                "value \"99999999999\" is out of range for type integer",
                "22003",
                "value \"…\" is out of range for type integer (22003)",
            ),
            ("division by zero", "22012", "division by zero (22012)"),
            ("\u{9b}31m\n\u{202e}", "XX000", "\\u{9b}31m\\n\\u{202e} (XX000)"),
        ] {
            assert_eq!(told(message, code), said);
        }
    }

    #[test]
    fn causes_are_said_as_a_terminal_may_be_shown_them() {
        let error = anyhow!("\u{1b}[2J").context("could not connect");
        assert_eq!(format!("{:#}", of_another(error)), "could not connect: \\u{1b}[2J");
        let error = anyhow!("refused").context("could not connect");
        assert_eq!(format!("{:#}", of_another(error)), "could not connect: refused");
    }
}
