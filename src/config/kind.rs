//! What a value may be: each [`Kind`] reads it, says what is allowed, and describes itself to editors.
//!
//! Kinds are put together: `list(duration())` reads an array of durations, and says so in errors and documents.

use std::{
    ops::RangeInclusive,
    path::{Path, PathBuf},
};

use serde_json::{Value as Json, json};
use zeroize::Zeroizing;

use super::{
    error::{nearest, one_of},
    found::{Found, KeyPath, Sight, Wrong, shortened},
    source::Value,
};
use crate::secret::Secret;

/// A type of value.
pub(super) struct Kind<T> {
    /// In words, with an example.
    pub allowed: String,
    /// JSON Schema.
    pub schema: Json,
    read: Judge<T>,
}

/// Reports what is wrong with a value, or gives what it means.
type Judge<T> = Box<dyn Fn(&Found<'_>) -> Option<T>>;

impl<T: 'static> Kind<T> {
    pub(super) fn new(
        allowed: impl Into<String>,
        schema: Json,
        read: impl Fn(&Found<'_>) -> Option<T> + 'static,
    ) -> Self {
        Self {
            allowed: allowed.into(),
            schema,
            read: Box::new(read),
        }
    }

    pub(super) fn map<U: 'static>(self, into: impl Fn(T) -> U + 'static) -> Kind<U> {
        let read = self.read;
        Kind::new(self.allowed, self.schema, move |found| read(found).map(&into))
    }

    /// For a kind of arrays: what isn't one is read as `other`, whose words speak for both.
    pub(super) fn otherwise(self, other: Self) -> Self {
        let mut alternatives = vec![self.schema];
        match other.schema.get("anyOf").and_then(Json::as_array) {
            Some(inner) => alternatives.extend(inner.iter().cloned()),
            None => alternatives.push(other.schema),
        }
        let (list, word) = (self.read, other.read);
        Self::new(
            other.allowed,
            json!({ "anyOf": alternatives }),
            move |found| match &found.node.value {
                Value::List(_) => list(found),
                _ => word(found),
            },
        )
    }

    /// Narrows what is allowed. Not for secrets: the error shows the value.
    pub(super) fn check(self, allowed: impl Into<String>, judge: impl Fn(&T) -> Result<(), Wrong> + 'static) -> Self {
        let allowed = allowed.into();
        let (read, words) = (self.read, allowed.clone());
        Self::new(allowed, self.schema, move |found| {
            let value = read(found)?;
            match judge(&value) {
                Ok(()) => Some(value),
                Err(wrong) => {
                    found.report(wrong, Some(found.shown()), &words);
                    None
                }
            }
        })
    }
}

impl<T> Kind<T> {
    pub(super) fn read(&self, found: &Found<'_>) -> Option<T> {
        (self.read)(found)
    }
}

/// A string with a meaning.
pub(super) fn parsed<T: 'static>(
    allowed: impl Into<String>,
    parse: impl Fn(&str) -> Result<T, Wrong> + 'static,
) -> Kind<T> {
    from_text(allowed, Sight::Public, parse)
}

/// As [`parsed`], for what must not be seen.
pub(super) fn parsed_secret<T: 'static>(
    allowed: impl Into<String>,
    parse: impl Fn(&str) -> Result<T, Wrong> + 'static,
) -> Kind<T> {
    from_text(allowed, Sight::Secret, parse)
}

pub(super) fn secret(
    allowed: impl Into<String>,
    judge: impl Fn(&str) -> Result<(), Wrong> + 'static,
) -> Kind<Secret<String>> {
    parsed_secret(allowed, move |text| judge(text).map(|()| Secret::new(text.to_owned())))
}

fn from_text<T: 'static>(
    allowed: impl Into<String>,
    sight: Sight,
    parse: impl Fn(&str) -> Result<T, Wrong> + 'static,
) -> Kind<T> {
    let allowed = allowed.into();
    let words = allowed.clone();
    Kind::new(allowed, text_schema(&json!({ "type": "string" })), move |found| {
        let text = Zeroizing::new(found.text(&words, sight)?);
        match parse(&text) {
            Ok(value) => Some(value),
            Err(wrong) => {
                let shown = match sight {
                    Sight::Public => Some(shortened(&text)),
                    Sight::Secret if text.is_empty() => Some("an empty value".to_owned()),
                    Sight::Secret => None,
                };
                found.report(wrong, shown, &words);
                None
            }
        }
    })
}

/// A file that `judge` finds fit; a relative path begins at the configuration's folder.
pub(super) fn file(allowed: impl Into<String>, judge: impl Fn(&Path) -> Result<(), Wrong> + 'static) -> Kind<PathBuf> {
    let allowed = allowed.into();
    let words = allowed.clone();
    Kind::new(allowed, text_schema(&json!({ "type": "string" })), move |found| {
        let text = found.text(&words, Sight::Public)?;
        let path = found.reader.folder.join(&text);
        match judge(&path) {
            Ok(()) => Some(path),
            Err(wrong) => {
                found.report(wrong, Some(shortened(&text)), &words);
                None
            }
        }
    })
}

/// The path of something that need not exist; relative to the configuration's folder.
pub(super) fn path_to_make(allowed: impl Into<String>) -> Kind<PathBuf> {
    file(allowed, |path| {
        if path.file_name().is_some() {
            Ok(())
        } else {
            Err("it names no file".into())
        }
    })
}

/// One of some words.
pub(super) fn choice<T: Copy + 'static>(choices: &'static [(&'static str, T)]) -> Kind<T> {
    let names = || choices.iter().map(|(name, _)| *name);
    let mut kind = parsed(one_of(names()), move |text| {
        choices
            .iter()
            .find(|(name, _)| *name == text)
            .map(|(_, value)| *value)
            .ok_or_else(|| Wrong {
                problem: "not one of the values allowed".to_owned(),
                nearest: nearest(text, names()),
            })
    });
    kind.schema = text_schema(&json!({ "enum": names().collect::<Vec<_>>() }));
    kind
}

pub(super) fn boolean() -> Kind<bool> {
    const ALLOWED: &str = "true or false";
    Kind::new(ALLOWED, json!({ "type": "boolean" }), |found| match &found.node.value {
        Value::Boolean(value) => Some(*value),
        value => {
            let meant = match value {
                Value::Text(text) if text == "true" || text == "false" => Some(text.clone()),
                _ => None,
            };
            found.wrong_type(ALLOWED, meant);
            None
        }
    })
}

/// A whole number within `range`.
pub(super) fn integer<N>(range: RangeInclusive<u32>) -> Kind<N>
where
    N: TryFrom<u32> + 'static,
{
    let (low, high) = range.into_inner();
    let allowed = format!("a whole number from {low} to {high}");
    let words = allowed.clone();
    let schema = json!({ "type": "integer", "minimum": low, "maximum": high });
    Kind::new(allowed, schema, move |found| match &found.node.value {
        Value::Integer(value) => {
            let value = value
                .and_then(|value| u32::try_from(value).ok())
                .filter(|value| (low..=high).contains(value))
                .and_then(|value| N::try_from(value).ok());
            if value.is_none() {
                found.report("out of range".into(), Some(found.shown()), &words);
            }
            value
        }
        value => {
            let meant = match value {
                Value::Text(text) => text.trim().parse::<u32>().ok().map(|number| number.to_string()),
                _ => None,
            };
            found.wrong_type(&words, meant);
            None
        }
    })
}

/// An array.
pub(super) fn list<T: 'static>(kind: Kind<T>) -> Kind<Vec<T>> {
    let allowed = format!("an array; each: {}", kind.allowed);
    let words = allowed.clone();
    let schema = json!({ "type": "array", "items": kind.schema });
    let read = kind.read;
    Kind::new(allowed, schema, move |found| {
        let Value::List(nodes) = &found.node.value else {
            // Its elements could be secrets: only the type is told.
            found.report("wrong type".into(), Some(found.node.value.kind().to_owned()), &words);
            return None;
        };
        let elements: Vec<Option<T>> = nodes
            .iter()
            .enumerate()
            .map(|(index, node)| {
                let key = KeyPath::Element(&found.key, index);
                read(&Found::new(found.reader, key, node))
            })
            .collect();
        elements.into_iter().collect()
    })
}

/// A table whose names the user chose, as far as `judge` has them; in the order of the file.
pub(super) fn table_of<T: 'static>(
    judge: impl Fn(&str) -> Result<(), Wrong> + 'static,
    kind: Kind<T>,
) -> Kind<Vec<(String, T)>> {
    let allowed = format!("a table; each value: {}", kind.allowed);
    let words = allowed.clone();
    let schema = json!({ "type": "object", "additionalProperties": kind.schema });
    let read = kind.read;
    Kind::new(allowed, schema, move |found| {
        let Value::Table(table) = &found.node.value else {
            found.report("wrong type".into(), Some(found.node.value.kind().to_owned()), &words);
            return None;
        };
        let entries: Vec<Option<(String, T)>> = table
            .entries
            .iter()
            .map(|entry| {
                let value = Found::new(found.reader, KeyPath::Entry(&found.key, &entry.name), &entry.node);
                if let Err(wrong) = judge(&entry.name) {
                    value.report(wrong, None, &words);
                    return None;
                }
                read(&value).map(|value| (entry.name.clone(), value))
            })
            .collect();
        entries.into_iter().collect()
    })
}

/// One value, or an array of at least one.
pub(super) fn one_or_more<T: 'static>(one: impl Fn() -> Kind<T>) -> Kind<Vec<T>> {
    let (single, many) = (one(), list(one()));
    let allowed = format!("{}; or an array of these", single.allowed);
    let words = allowed.clone();
    let mut alternatives: Vec<Json> = match single.schema.get("anyOf").and_then(Json::as_array) {
        Some(inner) => inner.clone(),
        None => vec![single.schema.clone()],
    };
    let mut array = many.schema.clone();
    if let Some(array) = array.as_object_mut() {
        array.insert("minItems".to_owned(), json!(1));
    }
    alternatives.push(array);
    Kind::new(allowed, json!({ "anyOf": alternatives }), move |found| {
        match &found.node.value {
            Value::List(nodes) if nodes.is_empty() => {
                found.report("empty".into(), None, &words);
                None
            }
            Value::List(_) => many.read(found),
            _ => single.read(found).map(|value| vec![value]),
        }
    })
}

/// What `kind` reads, or `false` for none.
pub(super) fn or_false<T: 'static>(kind: Kind<T>) -> Kind<Option<T>> {
    let allowed = format!("{}; or false", kind.allowed);
    let mut alternatives: Vec<Json> = match kind.schema.get("anyOf").and_then(Json::as_array) {
        Some(inner) => inner.clone(),
        None => vec![kind.schema.clone()],
    };
    alternatives.push(json!({ "const": false }));
    let read = kind.read;
    Kind::new(allowed, json!({ "anyOf": alternatives }), move |found| {
        match &found.node.value {
            Value::Boolean(false) => Some(None),
            _ => read(found).map(Some),
        }
    })
}

pub(super) fn text_schema(plain: &Json) -> Json {
    json!({ "anyOf": [plain, { "$ref": "#/$defs/from_environment" }, { "$ref": "#/$defs/from_file" }] })
}
