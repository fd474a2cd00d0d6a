//! An error with its causes, in one line.

use std::{error::Error, fmt};

/// Prints `error: cause: cause of the cause`. Logs and answers on the terminal need it: an error's own `Display` says
/// what failed, the causes say why. A cause that the text before already repeats is left out.
#[derive(Clone, Copy, Debug)]
pub struct Chain<'e>(pub &'e (dyn Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut said = self.0.to_string();
        f.write_str(&said)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            let text = told(error);
            if !said.ends_with(&text) {
                write!(f, ": {text}")?;
                said = text;
            }
            cause = error.source();
        }
        Ok(())
    }
}

/// What Postgres says besides its message quotes rows, and rows hold password hashes and mails.
fn told(error: &(dyn Error + 'static)) -> String {
    match error.downcast_ref::<tokio_postgres::error::DbError>() {
        Some(error) => {
            let constraint = error.constraint().map(|name| format!(", constraint {name}"));
            let constraint = constraint.unwrap_or_default();
            format!("{} (SQLSTATE {}{constraint})", error.message(), error.code().code())
        }
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Failure {
        text: &'static str,
        source: Option<Box<Failure>>,
    }

    fn failure(texts: &[&'static str]) -> Failure {
        let (text, causes) = texts.split_first().unwrap();
        Failure {
            text,
            source: (!causes.is_empty()).then(|| Box::new(failure(causes))),
        }
    }

    #[test]
    fn every_cause_is_said_once() {
        for (texts, line) in [
            (&["alone"][..], "alone"),
            (
                &["no connection", "db error", "password authentication failed"],
                "no connection: db error: password authentication failed",
            ),
            (&["sending: refused", "refused"], "sending: refused"),
            (&["a: b: c", "b: c", "c", "d"], "a: b: c: d"),
        ] {
            assert_eq!(Chain(&failure(texts)).to_string(), line);
        }
    }
}
