//! A value that was found, before anybody knows whether it will do.
//!
//! Any string may be `{ env = "NAME" }` or `{ file = "path" }`. Where it came from is named in errors; what it is, if
//! it is a secret, never.

use std::{fmt, fs::File, io::Read as _};

use zeroize::Zeroizing;

use super::{
    error::{ConfigError, nearest},
    reader::Reader,
    source::{Node, Table, Value},
};

/// Nothing that belongs into a configuration value is longer; `{ file = "/dev/zero" }` must end.
const MAX_FILE_KIB: u64 = 64;

/// A value that was found, to be judged.
pub(super) struct Found<'a> {
    pub reader: &'a Reader<'a>,
    pub key: KeyPath<'a>,
    pub node: &'a Node,
}

/// Where a value is, as errors name it: `routes[2].methods[0]`. Put together when there is one.
#[derive(Clone, Copy)]
pub(super) enum KeyPath<'k> {
    Key { section: &'k str, name: &'k str },
    Entry(&'k KeyPath<'k>, &'k str),
    Element(&'k KeyPath<'k>, usize),
}

impl fmt::Display for KeyPath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key { section: "", name } => f.write_str(name),
            Self::Key { section, name } => write!(f, "{section}.{name}"),
            Self::Entry(table, name) => write!(f, "{table}.{name}"),
            Self::Element(list, index) => write!(f, "{list}[{index}]"),
        }
    }
}

/// Why a text isn't what it should be.
pub(super) struct Wrong {
    pub problem: String,
    pub nearest: Option<String>,
}

/// Whether errors may show the value.
#[derive(Clone, Copy, Eq, PartialEq)]
pub(super) enum Sight {
    Public,
    Secret,
}

impl Wrong {
    pub(super) fn but(problem: impl Into<String>, nearest: impl Into<String>) -> Self {
        Self {
            problem: problem.into(),
            nearest: Some(nearest.into()),
        }
    }
}

impl<S: Into<String>> From<S> for Wrong {
    fn from(problem: S) -> Self {
        Self {
            problem: problem.into(),
            nearest: None,
        }
    }
}

impl<'a> Found<'a> {
    pub(super) const fn new(reader: &'a Reader<'a>, key: KeyPath<'a>, node: &'a Node) -> Self {
        Self { reader, key, node }
    }

    /// The string that is meant: written here, in a variable, or in a file.
    pub(super) fn text(&self, allowed: &str, sight: Sight) -> Option<String> {
        match (&self.node.value, &self.node.raw) {
            (Value::Text(text), _) => Some(text.clone()),
            (Value::Table(table), _) => self.fetched(table, allowed),
            (Value::Integer(_) | Value::Float | Value::Boolean(_) | Value::DateTime, Some(raw)) => Some(raw.clone()),
            (Value::Integer(_) | Value::Float | Value::Boolean(_) | Value::DateTime | Value::List(_), _) => {
                let shown = match sight {
                    Sight::Public => self.shown(),
                    Sight::Secret => self.node.value.kind().to_owned(),
                };
                self.report("wrong type".into(), Some(shown), allowed);
                None
            }
        }
    }

    /// `{ env = "NAME" }` or `{ file = "path" }`.
    fn fetched(&self, table: &Table, allowed: &str) -> Option<String> {
        let [only] = table.entries.as_slice() else {
            self.report("wrong type".into(), Some("a table".to_owned()), &with_sources(allowed));
            return None;
        };
        let Value::Text(target) = &only.node.value else {
            let error = ConfigError::new(
                only.node.place.clone(),
                format!("{}.{}", self.key, only.name),
                "wrong type",
            )
            .found(only.node.value.kind())
            .allowed("a string");
            self.reader.report(error);
            return None;
        };
        let failed = |problem: String| {
            self.report(problem.into(), None, allowed);
            None
        };
        match only.name.as_str() {
            "env" => match (self.reader.env)(target) {
                Some(value) => {
                    self.reader.made_of(&value);
                    Some(value)
                }
                None => failed("the environment variable is not set".to_owned()),
            },
            "file" => match self.file(target) {
                Ok(value) => Some(value),
                Err(problem) => failed(problem),
            },
            other => {
                let path = format!("{}.{other}", self.key);
                let error = ConfigError::new(only.place.clone(), path, "unknown key")
                    .allowed(with_sources(allowed))
                    .nearest(nearest(other, ["env", "file"]));
                self.reader.report(error);
                None
            }
        }
    }

    fn file(&self, path: &str) -> Result<String, String> {
        let path = self.reader.folder.join(path);
        let most = MAX_FILE_KIB * 1024;
        // With room for what a secret is: were it to grow, each move would leave a copy behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(4096));
        let read = File::open(&path).and_then(|file| file.take(most + 1).read_to_end(&mut bytes));
        self.reader.read_file(path, read.is_ok().then_some(bytes.as_slice()));
        read.map_err(|error| format!("the file can't be read: {error}"))?;
        if bytes.len() as u64 > most {
            return Err(format!("the file is longer than {MAX_FILE_KIB} KiB"));
        }
        let text = str::from_utf8(&bytes).map_err(|_| "the file is not UTF-8".to_owned())?;
        self.reader.made_of(text);
        let line = text.strip_suffix('\n').unwrap_or(text);
        Ok(line.strip_suffix('\r').unwrap_or(line).to_owned())
    }

    /// The variable or file that the value stands in, if it is not written here.
    fn source(&self) -> Option<String> {
        let Value::Table(table) = &self.node.value else {
            return None;
        };
        let [only] = table.entries.as_slice() else { return None };
        let Value::Text(target) = &only.node.value else {
            return None;
        };
        match only.name.as_str() {
            "env" => Some(format!("environment variable {target}")),
            "file" => Some(format!("file {}", self.reader.folder.join(target).display())),
            _ => None,
        }
    }

    /// The value as people see it; not for secrets.
    pub(super) fn shown(&self) -> String {
        match &self.node.value {
            Value::Text(text) => shortened(text),
            Value::Integer(Some(number)) => number.to_string(),
            Value::Boolean(value) => value.to_string(),
            value => value.kind().to_owned(),
        }
    }

    /// For values that are never secret.
    pub(super) fn wrong_type(&self, allowed: &str, meant: Option<String>) {
        let wrong = Wrong {
            problem: "wrong type".to_owned(),
            nearest: meant,
        };
        self.report(wrong, Some(self.shown()), allowed);
    }

    pub(super) fn report(&self, wrong: Wrong, shown: Option<String>, allowed: &str) {
        let mut error = ConfigError::new(self.node.place.clone(), self.key.to_string(), wrong.problem)
            .allowed(allowed)
            .nearest(wrong.nearest);
        error.found = shown;
        error.source = self.source();
        self.reader.report(error);
    }
}

fn with_sources(allowed: &str) -> String {
    format!("{allowed}; or {{ env = \"NAME\" }}, {{ file = \"path\" }}")
}

/// In quotes, without control characters, and not by the page.
pub(super) fn shortened(text: &str) -> String {
    const MOST: usize = 100;
    let mut shown: String = text.chars().take(MOST).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    format!("{shown:?}")
}
