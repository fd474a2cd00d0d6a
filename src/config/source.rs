//! Where values come from: the file with its lines and columns, and what is laid over it.
//!
//! A TOML text becomes a tree in which every value knows its [`Place`]. Environment variables
//! `VESTIBULE__SECTION__KEY` and the caller's settings are laid over single keys, later ones over earlier. Nothing
//! is interpreted here: what a key means, and whether it exists, `section` and the sections say.

use std::{
    borrow::Cow,
    cell::Cell,
    fmt,
    ops::{Deref, Range},
};

use toml::de::{DeTable, DeValue};
use zeroize::Zeroize;

use super::error::{ConfigError, Place};
use crate::secret::Secret;

/// What environment variables that set keys begin with.
pub const PREFIX: &str = "VESTIBULE__";

/// Levels are separated by this.
const SEPARATOR: &str = "__";

/// A value and where it was written.
#[derive(Clone)]
pub(super) struct Node {
    pub place: Place,
    pub value: Value,
    /// The text of a value laid over: a key that wants a string takes `5432` or `true` as it stands.
    pub raw: Option<String>,
}

#[derive(Clone)]
pub(super) enum Value {
    Text(String),
    /// `None`: beyond 64 bits.
    Integer(Option<i64>),
    Float,
    Boolean(bool),
    DateTime,
    List(Vec<Node>),
    Table(Table),
}

/// In the order of the file.
#[derive(Clone, Default)]
pub(super) struct Table {
    pub entries: Vec<Entry>,
}

#[derive(Clone)]
pub(super) struct Entry {
    pub name: String,
    /// Of the key.
    pub place: Place,
    pub node: Node,
}

/// The whole of a text, and what is laid over it: wiped on drop, since secrets stand in it.
pub(super) struct Tree(Table);

impl Deref for Tree {
    type Target = Table;

    fn deref(&self) -> &Table {
        &self.0
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        self.0.wipe();
    }
}

impl Node {
    fn wipe(&mut self) {
        self.raw.zeroize();
        match &mut self.value {
            Value::Text(text) => text.zeroize(),
            Value::List(list) => list.iter_mut().for_each(Self::wipe),
            Value::Table(table) => table.wipe(),
            Value::Integer(_) | Value::Float | Value::Boolean(_) | Value::DateTime => {}
        }
    }
}

impl Table {
    fn wipe(&mut self) {
        self.entries.iter_mut().for_each(|entry| entry.node.wipe());
    }

    pub(super) fn get(&self, name: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.name == name)
    }
}

impl Value {
    /// What it is, in words; for errors about values that must not be shown.
    pub(super) const fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "a string",
            Self::Integer(_) => "an integer",
            Self::Float => "a number with a fraction",
            Self::Boolean(_) => "true or false",
            Self::DateTime => "a date",
            Self::List(_) => "an array",
            Self::Table(_) => "a table",
        }
    }
}

/// Single keys set from outside of the file; they win over it.
#[derive(Clone, Default)]
pub struct Overrides {
    list: Vec<Override>,
}

#[derive(Clone)]
struct Override {
    place: Place,
    path: Vec<String>,
    text: Secret<String>,
}

impl Overrides {
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets `key` (`database.url`) to `value`: TOML, or else the string as it stands. Errors name it by the key.
    #[must_use]
    pub fn set(self, key: &str, value: impl Into<String>) -> Self {
        self.set_as(key, value, key)
    }

    /// As [`Self::set`], under the name by which people know the setting: `--database-url`.
    #[must_use]
    pub fn set_as(mut self, key: &str, value: impl Into<String>, name: &str) -> Self {
        self.list.push(Override {
            place: Place::Setting(name.to_owned()),
            path: key.split('.').map(str::to_owned).collect(),
            text: Secret::new(value.into()),
        });
        self
    }

    /// Every `VESTIBULE__…` among `variables`, the sections before their keys.
    pub fn from_environment(variables: impl IntoIterator<Item = (String, String)>) -> Self {
        let mut variables: Vec<_> = variables
            .into_iter()
            .filter(|(name, _)| name.starts_with(PREFIX))
            .collect();
        variables.sort();
        let list = variables
            .into_iter()
            .map(|(name, value)| Override {
                path: name
                    .strip_prefix(PREFIX)
                    .unwrap_or_default()
                    .split(SEPARATOR)
                    .map(str::to_ascii_lowercase)
                    .collect(),
                place: Place::Variable(name),
                text: Secret::new(value),
            })
            .collect();
        Self { list }
    }

    /// Both; `self` wins.
    #[must_use]
    pub fn over(self, below: Self) -> Self {
        let mut list = below.list;
        list.extend(self.list);
        Self { list }
    }

    /// What they set, one after the other.
    pub(super) fn each_text(&self, tell: &mut dyn FnMut(&str)) {
        for it in &self.list {
            tell(&it.path.join("."));
            tell(it.text.expose());
        }
    }

    pub(super) fn lay_over(&self, tree: &mut Tree, errors: &mut Vec<ConfigError>) {
        for it in &self.list {
            if let Err(problem) = lay(&mut tree.0, &it.path, it) {
                errors.push(
                    ConfigError::new(it.place.clone(), it.path.join("."), problem)
                        .allowed("the path of a key, as `VESTIBULE__SERVER__LISTEN` for `server.listen`"),
                );
            }
        }
    }
}

/// Names only: values may be secrets.
impl fmt::Debug for Overrides {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.list.iter().map(|it| it.path.join(".")))
            .finish()
    }
}

fn lay(table: &mut Table, path: &[String], it: &Override) -> Result<(), String> {
    let Some((name, rest)) = path.split_first() else {
        return Ok(());
    };
    if name.is_empty() {
        return Err("two underscores separate levels, so a name is missing between them".to_owned());
    }
    // `my-api` can't be in the name of a variable; `MY_API` stands for it.
    let known = table
        .entries
        .iter()
        .position(|entry| entry.name == *name || entry.name.to_ascii_lowercase().replace('-', "_") == *name);
    let at = known.unwrap_or_else(|| {
        table.entries.push(Entry {
            name: name.clone(),
            place: it.place.clone(),
            node: Node {
                place: it.place.clone(),
                value: Value::Table(Table::default()),
                raw: None,
            },
        });
        table.entries.len() - 1
    });
    let Some(entry) = table.entries.get_mut(at) else {
        return Ok(());
    };
    if rest.is_empty() {
        entry.place = it.place.clone();
        entry.node.wipe();
        entry.node = loose(it.text.expose(), &it.place);
        return Ok(());
    }
    match &mut entry.node.value {
        Value::Table(table) => lay(table, rest, it),
        Value::List(_) => Err(format!(
            "elements of an array can't be set one by one; set all of `{name}` at once, as TOML"
        )),
        Value::Text(_) | Value::Integer(_) | Value::Float | Value::Boolean(_) | Value::DateTime => {
            Err(format!("`{name}` is a value, it has no keys below it"))
        }
    }
}

/// A value written without quotes where there is no doubt: TOML if it is, else a string.
pub(super) fn loose(text: &str, place: &Place) -> Node {
    let value = match DeValue::parse(text) {
        Ok(value) => converted(value.into_inner(), &|_| place.clone()).value,
        Err(_) => Value::Text(text.to_owned()),
    };
    Node {
        place: place.clone(),
        value,
        raw: Some(text.to_owned()),
    }
}

/// The tree of a TOML text; or every place where it is not TOML.
pub(super) fn parse(text: &str) -> Result<Tree, Vec<ConfigError>> {
    let lines = Lines::of(text);
    let (table, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        let place = |span: Range<usize>| lines.place(span.start);
        return Ok(Tree(converted_table(table.into_inner(), &place)));
    }
    // Only the parser's words: the line itself may hold a secret.
    let mut errors: Vec<ConfigError> = errors
        .into_iter()
        .map(|error| {
            let at = error.span().map_or(text.len(), |span| span.start);
            let message = error.message();
            let (problem, expected) = match message.split_once(", expected ") {
                Some((problem, expected)) => (problem, Some(expected)),
                None => (message, None),
            };
            let mut error = ConfigError::new(lines.place(at), "", format!("not TOML: {problem}"));
            error.allowed = expected.map(str::to_owned);
            error
        })
        .collect();
    errors.dedup_by(|a, b| a.place == b.place);
    Err(errors)
}

type Placed<'p> = &'p dyn Fn(Range<usize>) -> Place;

fn converted_table(table: DeTable<'_>, place: Placed<'_>) -> Table {
    let mut entries: Vec<Entry> = table
        .into_iter()
        .map(|(key, value)| Entry {
            place: place(key.span()),
            name: key.into_inner().into_owned(),
            node: {
                let span = value.span();
                Node {
                    place: place(span),
                    ..converted(value.into_inner(), place)
                }
            },
        })
        .collect();
    entries.sort_by(|a, b| a.place.cmp(&b.place));
    Table { entries }
}

fn converted(value: DeValue<'_>, place: Placed<'_>) -> Node {
    let value = match value {
        DeValue::String(text) => Value::Text(Cow::into_owned(text)),
        DeValue::Integer(integer) => {
            let digits = integer.as_str().replace('_', "");
            Value::Integer(i64::from_str_radix(&digits, integer.radix()).ok())
        }
        DeValue::Float(_) => Value::Float,
        DeValue::Boolean(value) => Value::Boolean(value),
        DeValue::Datetime(_) => Value::DateTime,
        DeValue::Array(array) => Value::List(
            array
                .into_iter()
                .map(|element| Node {
                    place: place(element.span()),
                    ..converted(element.into_inner(), place)
                })
                .collect(),
        ),
        DeValue::Table(table) => Value::Table(converted_table(table, place)),
    };
    Node {
        place: Place::Missing,
        value,
        raw: None,
    }
}

/// From byte offsets to lines and columns.
struct Lines<'t> {
    text: &'t str,
    starts: Vec<usize>,
    /// Asked for last: the next is seldom far.
    last: Cell<usize>,
}

/// What isn't far.
const NEAR: usize = 8;

impl<'t> Lines<'t> {
    fn of(text: &'t str) -> Self {
        let starts = std::iter::once(0)
            .chain(text.match_indices('\n').map(|(at, _)| at + 1))
            .collect();
        Self {
            text,
            starts,
            last: Cell::new(0),
        }
    }

    fn place(&self, at: usize) -> Place {
        let from = self.last.get().saturating_sub(NEAR);
        let near = self.starts.get(from..from + 2 * NEAR).unwrap_or_default();
        let line = match near {
            [first, .., last] if (*first..*last).contains(&at) => from + near.partition_point(|start| *start <= at),
            _ => self.starts.partition_point(|start| *start <= at),
        };
        self.last.set(line);
        let start = self.starts.get(line.saturating_sub(1)).copied().unwrap_or_default();
        let before = self.text.get(start..at).map_or(0, |before| before.chars().count());
        Place::File {
            line,
            column: before + 1,
        }
    }
}
