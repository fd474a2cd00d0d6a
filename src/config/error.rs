//! What is wrong with a configuration, all of it at once, told so that it can be put right without a manual.
//!
//! ```text
//! gateway.toml:12:1: server.lisen: unknown key
//!     allowed: listen, public_url, trusted_proxies, …
//!     did you mean `listen`?
//! ```
//!
//! Invariant: nothing here holds the value of a secret. Whoever reports an error about one leaves `found` to say what
//! kind of thing it was.

use std::fmt;

/// Where a value was written.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Place {
    /// In the file; both count from 1, columns in characters.
    File { line: usize, column: usize },
    /// Nowhere in the file: a key that had to be there.
    Missing,
    /// In an environment variable, by its name.
    Variable(String),
    /// In what the program was started with, as the caller calls it.
    Setting(String),
    /// In the default.
    Default,
}

/// One thing that is wrong.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ConfigError {
    pub place: Place,
    /// Dotted: `routes[2].path`. Empty when the file as a whole is meant.
    pub key: String,
    /// What is wrong, as a fragment: `unknown key`.
    pub problem: String,
    /// What is written there; never a secret.
    pub found: Option<String>,
    /// What may be written there.
    pub allowed: Option<String>,
    /// What was probably meant.
    pub nearest: Option<String>,
    /// How it is written, where not a name but a shape is wrong.
    pub example: Option<String>,
    /// The variable or file that the value came from, if it is not written where the key is.
    pub source: Option<String>,
}

/// Everything that is wrong; at least one thing.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ConfigErrors {
    file: String,
    errors: Vec<ConfigError>,
}

impl ConfigError {
    pub(super) fn new(place: Place, key: impl Into<String>, problem: impl Into<String>) -> Self {
        Self {
            place,
            key: key.into(),
            problem: problem.into(),
            found: None,
            allowed: None,
            nearest: None,
            example: None,
            source: None,
        }
    }

    pub(super) fn found(mut self, found: impl Into<String>) -> Self {
        self.found = Some(found.into());
        self
    }

    pub(super) fn allowed(mut self, allowed: impl Into<String>) -> Self {
        self.allowed = Some(allowed.into());
        self
    }

    pub(super) fn nearest(mut self, nearest: Option<String>) -> Self {
        self.nearest = nearest;
        self
    }

    fn write(&self, file: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::File { line, column } => write!(f, "{file}:{line}:{column}: ")?,
            Place::Missing => write!(f, "{file}: ")?,
            Place::Variable(name) => write!(f, "environment variable {name}: ")?,
            Place::Setting(name) => write!(f, "{name}: ")?,
            Place::Default => write!(f, "default: ")?,
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.problem)?;
        for (label, text) in [
            ("value from:", &self.source),
            ("found:", &self.found),
            ("allowed:", &self.allowed),
            ("example:", &self.example),
        ] {
            if let Some(text) = text {
                write!(f, "\n    {label:<8} {text}")?;
            }
        }
        if let Some(nearest) = &self.nearest {
            write!(f, "\n    did you mean `{nearest}`?")?;
        }
        Ok(())
    }
}

impl ConfigErrors {
    /// In the order of the file, then what is not in it. `errors` must not be empty.
    pub(super) fn new(file: String, mut errors: Vec<ConfigError>) -> Self {
        errors.sort_by(|a, b| a.place.cmp(&b.place));
        Self { file, errors }
    }

    pub fn iter(&self) -> std::slice::Iter<'_, ConfigError> {
        self.errors.iter()
    }
}

impl<'a> IntoIterator for &'a ConfigErrors {
    type Item = &'a ConfigError;
    type IntoIter = std::slice::Iter<'a, ConfigError>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// Every error, and how many there are; ends in a newline.
impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for error in self {
            error.write(&self.file, f)?;
            f.write_str("\n\n")?;
        }
        match self.errors.len() {
            1 => writeln!(f, "{}: 1 error", self.file),
            count => writeln!(f, "{}: {count} errors", self.file),
        }
    }
}

impl std::error::Error for ConfigErrors {}

/// Words that people bring along from elsewhere for what has another name here.
const ELSEWHERE: [(&str, &str); 12] = [
    ("url", "endpoints"),
    ("urls", "endpoints"),
    ("server", "endpoints"),
    ("servers", "endpoints"),
    ("address", "listen"),
    ("bind", "listen"),
    ("port", "listen"),
    ("backend", "upstream"),
    ("proxy_pass", "upstream"),
    ("target", "upstream"),
    ("root", "serve"),
    ("private_key", "key"),
];

/// The key that is meant by `text`, though it is no slip of the pen: one that begins with it, or a word from elsewhere.
pub(super) fn meant<'k>(text: &str, known: &[&'k str]) -> Option<&'k str> {
    let begun = || known.iter().filter(|key| text.len() >= 3 && key.starts_with(text));
    // Of `certificate` and `certificates` the one; of what has less in common none.
    let shortest = begun().min_by_key(|key| key.len());
    let only = shortest.filter(|shortest| begun().all(|key| key.starts_with(**shortest)));
    let here = ELSEWHERE.iter().find(|(word, _)| *word == text);
    let named = || here.and_then(|(_, key)| known.iter().find(|known| *known == key));
    only.or_else(named).copied()
}

/// The one of `known` that `text` is probably a slip of.
pub(super) fn nearest<'k>(text: &str, known: impl IntoIterator<Item = &'k str>) -> Option<String> {
    let folded = text.to_ascii_lowercase().replace('-', "_");
    known
        .into_iter()
        .map(|candidate| {
            let likeness = strsim::normalized_damerau_levenshtein(&folded, &candidate.to_ascii_lowercase());
            (candidate, likeness)
        })
        .filter(|(candidate, likeness)| *candidate != text && *likeness >= 0.6)
        .max_by(|(_, a), (_, b)| a.total_cmp(b))
        .map(|(candidate, _)| candidate.to_owned())
}

/// `a`, `b` or `c`.
pub(super) fn one_of<'k>(names: impl IntoIterator<Item = &'k str>) -> String {
    let quoted: Vec<String> = names.into_iter().map(|name| format!("{name:?}")).collect();
    match quoted.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
        None => String::new(),
    }
}
