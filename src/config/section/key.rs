//! A key that a section has declared: what its absence means, and what is read if it is there.

use std::rc::Rc;

use super::Section;
use crate::config::{
    catalogue::{KeyDoc, Presence},
    error::Place,
    found::{Found, KeyPath},
    kind::Kind,
    reader::Made,
    source::{self, Node},
};

/// A declared key, about to be read.
#[must_use = "say what absence means"]
pub(in crate::config) struct Key<'s, 'a, T> {
    pub(super) section: &'s mut Section<'a>,
    pub(super) name: &'static str,
    pub(super) doc: &'static str,
    pub(super) kind: Source<T>,
}

/// Where a key's kind comes from.
pub(super) enum Source<T> {
    Here(Kind<T>),
    /// What makes it for all sections of this shape, and copies its default.
    Shared(fn() -> Kind<T>, fn(&T) -> T),
}

impl<T: 'static> Key<'_, '_, T> {
    /// Absent, it is `default`: TOML, or else the string as it stands.
    pub(in crate::config) fn or(self, default: &'static str) -> Option<T> {
        self.note(Presence::Default(default));
        if self.section.reader.describes() {
            return None;
        }
        let absent = |kind: &Kind<T>| self.read(kind, &source::loose(default, &Place::Default));
        match (self.section.entry(self.name), &self.kind) {
            (Some(entry), _) => self.with_kind(|kind| self.read(kind, &entry.node)),
            (None, Source::Here(kind)) => absent(kind),
            (None, Source::Shared(kind_of, copy)) => {
                let made = self.made(*kind_of);
                made.default.get_or_init(|| absent(&made.kind)).as_ref().map(copy)
            }
        }
    }

    /// It has to be there.
    pub(in crate::config) fn required(self, example: &'static str) -> Option<T> {
        self.note(Presence::Required(example));
        if let Some(entry) = self.section.entry(self.name) {
            return self.with_kind(|kind| self.read(kind, &entry.node));
        }
        let error = self
            .section
            .wrong(self.name, "missing")
            .allowed(self.with_kind(|kind| kind.allowed.clone()));
        self.section.report(error);
        None
    }

    /// It may be absent: `Some(None)`.
    #[expect(
        clippy::option_option,
        reason = "the outer one is wrong or right, the inner one absent or there"
    )]
    pub(in crate::config) fn optional(self, example: &'static str) -> Option<Option<T>> {
        self.note(Presence::Optional(example));
        self.read_if_there()
    }

    /// As [`Key::optional`], for one of several keys of which a section must have one: documents show this one.
    #[expect(
        clippy::option_option,
        reason = "the outer one is wrong or right, the inner one absent or there"
    )]
    pub(in crate::config) fn one_of_several(self, example: &'static str) -> Option<Option<T>> {
        self.note(Presence::OneOfSeveral(example));
        self.read_if_there()
    }

    #[expect(
        clippy::option_option,
        reason = "the outer one is wrong or right, the inner one absent or there"
    )]
    fn read_if_there(&self) -> Option<Option<T>> {
        match self.section.entry(self.name) {
            Some(entry) => self.with_kind(|kind| self.read(kind, &entry.node)).map(Some),
            None => Some(None),
        }
    }

    fn read(&self, kind: &Kind<T>, node: &Node) -> Option<T> {
        let key = KeyPath::Key {
            section: &self.section.path,
            name: self.name,
        };
        kind.read(&Found::new(self.section.reader, key, node))
    }

    fn with_kind<R>(&self, judge: impl FnOnce(&Kind<T>) -> R) -> R {
        match &self.kind {
            Source::Here(kind) => judge(kind),
            Source::Shared(kind_of, _) => judge(&self.made(*kind_of).kind),
        }
    }

    fn made(&self, kind_of: fn() -> Kind<T>) -> Rc<Made<T>> {
        let section = &self.section;
        section
            .reader
            .made(section.index, section.known.len(), self.name, kind_of)
    }

    fn note(&self, presence: Presence) {
        let section = &self.section;
        if !section.reader.describes() {
            return;
        }
        section.reader.note_key(section.index, self.name, || {
            let (allowed, schema) = self.with_kind(|kind| (kind.allowed.clone(), kind.schema.clone()));
            KeyDoc {
                name: self.name,
                doc: self.doc,
                allowed,
                schema,
                presence,
            }
        });
    }
}
