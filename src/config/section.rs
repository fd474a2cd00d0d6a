//! Reading sections: each key is declared once, and the declaration reads it, documents it and describes it.
//!
//! ```text
//! let ttl = s.key("ttl", "Longest time that a missed revocation can matter.", nonzero_duration()).or("10s");
//! ```
//!
//! reads the key or its default, reports what is wrong with it, and notes name, meaning, type and default for
//! `config/reference.toml` and `config/schema.json`. When a section has been read, whatever it holds that was not
//! asked for is an unknown key: nothing can be accepted and ignored.
//!
//! Errors don't end the reading: sections ask for all their keys, and only then fail if one is missing.

mod key;

use std::{path::Path, rc::Rc};

use self::key::{Key, Source};
use super::{
    catalogue::Step,
    error::{ConfigError, Place, meant, nearest},
    kind::Kind,
    reader::{Misshapen, Reader, Unknown},
    source::{self, Node, Table, Value},
};

/// No section has more; it only saves making room again and again.
const MANY_KEYS: usize = 32;

/// One table of the file, or the lack of it.
pub(super) struct Section<'a> {
    reader: &'a Reader<'a>,
    steps: Rc<[Step]>,
    /// As errors name it: `auth.session`, `routes[2]`.
    path: String,
    place: Place,
    table: Option<&'a Table>,
    /// The number of its shape: see [`Reader::shape`].
    index: usize,
    known: Vec<&'static str>,
}

impl<'a> Section<'a> {
    fn new(
        reader: &'a Reader<'a>,
        steps: Rc<[Step]>,
        doc: &'static str,
        path: String,
        place: Place,
        table: Option<&'a Table>,
    ) -> Self {
        let index = reader.shape(&steps, doc);
        Self {
            reader,
            steps,
            path,
            place,
            table,
            index,
            known: Vec::with_capacity(MANY_KEYS),
        }
    }

    /// Reads the whole tree with `read`.
    pub(super) fn root<T>(reader: &'a Reader<'a>, table: &'a Table, read: impl FnOnce(&mut Self) -> T) -> T {
        let mut root = Self::new(reader, Rc::default(), "", String::new(), Place::Missing, Some(table));
        let value = read(&mut root);
        root.finish();
        value
    }

    /// Declares a key; [`Key::or`], [`Key::required`] or [`Key::optional`] reads it.
    pub(super) fn key<T>(&mut self, name: &'static str, doc: &'static str, kind: Kind<T>) -> Key<'_, 'a, T> {
        self.known.push(name);
        Key {
            section: self,
            name,
            doc,
            kind: Source::Here(kind),
        }
    }

    /// As [`Section::key`], for sections of which a file may have thousands: `kind` is made for the first, and its default
    /// is read once.
    pub(super) fn key_of_many<T: Clone>(
        &mut self,
        name: &'static str,
        doc: &'static str,
        kind: fn() -> Kind<T>,
    ) -> Key<'_, 'a, T> {
        self.known.push(name);
        Key {
            section: self,
            name,
            doc,
            kind: Source::Shared(kind, T::clone),
        }
    }

    /// Reads the table `name`; an absent one is read as an empty one.
    pub(super) fn section<T>(
        &mut self,
        name: &'static str,
        doc: &'static str,
        read: impl FnOnce(&mut Section<'a>) -> T,
    ) -> T {
        self.known.push(name);
        let node = self.entry(name).map(|entry| &entry.node);
        let place = node.map_or_else(|| self.place.clone(), |node| node.place.clone());
        let steps = self.below(&[Step::Key(name)]);
        let is_table = |node: &&source::Node| matches!(node.value, Value::Table(_));
        if let Some(node) = node.filter(|node| !is_table(node)) {
            let error = ConfigError::new(node.place.clone(), self.path_of(name), "wrong type")
                .found(node.value.kind())
                .allowed("a table");
            let steps = Rc::clone(&steps);
            self.reader.keep_misshapen(Misshapen { error, name, steps });
        }
        let table = node.and_then(|node| match &node.value {
            Value::Table(table) => Some(table),
            _ => None,
        });
        let before = self.reader.reported();
        let mut section = Section::new(self.reader, steps, doc, self.path_of(name), place, table);
        let value = read(&mut section);
        section.finish();
        if node.is_some() && table.is_none() {
            // That all is missing which it should have is said by that.
            self.reader.take_back(before);
        }
        value
    }

    /// As [`Section::section`], for a table whose presence asks for something: `Some(None)` without it.
    #[expect(
        clippy::option_option,
        reason = "the outer one is wrong or right, the inner one absent or there"
    )]
    pub(super) fn optional_section<T>(
        &mut self,
        name: &'static str,
        doc: &'static str,
        read: impl FnOnce(&mut Section<'a>) -> Option<T>,
    ) -> Option<Option<T>> {
        self.section_if_there(name, doc, |s| {
            s.shown_as_comment();
            read(s)
        })
    }

    /// As [`Section::optional_section`], for a table that documents show although its absence means nothing.
    #[expect(
        clippy::option_option,
        reason = "the outer one is wrong or right, the inner one absent or there"
    )]
    pub(super) fn section_if_there<T>(
        &mut self,
        name: &'static str,
        doc: &'static str,
        read: impl FnOnce(&mut Section<'a>) -> Option<T>,
    ) -> Option<Option<T>> {
        if !self.reader.describes() && !self.has(name) {
            self.known.push(name);
            return Some(None);
        }
        self.section(name, doc, read).map(Some)
    }

    /// Reads each table of `name`, whose names the user chose; `example` is the one that documents show.
    pub(super) fn named<T>(
        &mut self,
        name: &'static str,
        doc: &'static str,
        example: &'static str,
        mut read: impl FnMut(&mut Section<'a>, &str) -> T,
    ) -> Vec<T> {
        self.known.push(name);
        let steps = self.below(&[Step::Key(name), Step::Named(example)]);
        let path = self.path_of(name);
        if self.reader.describes() {
            let mut section = Section::new(self.reader, steps, doc, path, Place::Missing, None);
            return vec![read(&mut section, example)];
        }
        let Some(entry) = self.entry(name) else {
            return Vec::new();
        };
        let Some(tables) = self.expect_table(&entry.node, &path, "tables with names of your choosing") else {
            return Vec::new();
        };
        let read_one = |entry: &'a source::Entry| {
            let path = format!("{path}.{}", entry.name);
            let table = self.expect_table(&entry.node, &path, "a table")?;
            let place = entry.node.place.clone();
            let mut section = Section::new(self.reader, Rc::clone(&steps), doc, path, place, Some(table));
            let value = read(&mut section, &entry.name);
            section.finish();
            Some(value)
        };
        tables.entries.iter().filter_map(read_one).collect()
    }

    /// Reads each table of the array `name`. What is wrong with those that are left out has been reported.
    pub(super) fn items<T>(
        &mut self,
        name: &'static str,
        doc: &'static str,
        mut read: impl FnMut(&mut Section<'a>) -> Option<T>,
    ) -> Vec<T> {
        self.known.push(name);
        let steps = self.below(&[Step::Key(name), Step::Item]);
        let path = self.path_of(name);
        if self.reader.describes() {
            let mut section = Section::new(self.reader, steps, doc, path, Place::Missing, None);
            return read(&mut section).into_iter().collect();
        }
        let Some(entry) = self.entry(name) else {
            return Vec::new();
        };
        let Value::List(items) = &entry.node.value else {
            let error = ConfigError::new(entry.node.place.clone(), path, "wrong type")
                .found(entry.node.value.kind())
                .allowed(format!(
                    "tables headed [[{name}]]; from outside of the file all of them at once, as a TOML array"
                ));
            self.reader.report(error);
            return Vec::new();
        };
        let read_one = |(index, node): (usize, &'a Node)| {
            let path = format!("{path}[{index}]");
            let table = self.expect_table(node, &path, "a table")?;
            let mut section = Section::new(
                self.reader,
                Rc::clone(&steps),
                doc,
                path,
                node.place.clone(),
                Some(table),
            );
            let value = read(&mut section);
            section.finish();
            value
        };
        // Room for all at once: there may be thousands.
        let mut all = Vec::with_capacity(items.len());
        all.extend(items.iter().enumerate().filter_map(read_one));
        all
    }

    /// Whether the section itself was written, as a table.
    pub(super) const fn is_present(&self) -> bool {
        self.table.is_some()
    }

    /// Whether the key was written, rather than left to its default.
    pub(super) fn has(&self, name: &str) -> bool {
        self.entry(name).is_some()
    }

    /// Documents show the section commented out: it makes something that nobody has by default.
    pub(super) fn shown_as_comment(&self) {
        self.reader.show_as_comment(self.index);
    }

    /// The configuration file.
    pub(super) const fn file(&self) -> &Path {
        self.reader.file
    }

    /// Where the section begins.
    pub(super) const fn place(&self) -> &Place {
        &self.place
    }

    /// For values that name a file.
    pub(super) const fn reader(&self) -> &Reader<'a> {
        self.reader
    }

    /// As errors name the section.
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// An error about the value of `name`, for rules that look at more than one.
    pub(super) fn wrong(&self, name: &str, problem: impl Into<String>) -> ConfigError {
        ConfigError::new(self.place_of(name), self.path_of(name), problem)
    }

    /// Where errors about `name` belong.
    pub(super) fn place_of(&self, name: &str) -> Place {
        match self.entry(name) {
            Some(entry) => entry.node.place.clone(),
            None => self.place.clone(),
        }
    }

    pub(super) fn report(&self, error: ConfigError) {
        self.reader.report(error);
    }

    /// Reports whatever is left in the table.
    fn finish(self) {
        let Some(table) = self.table else { return };
        for entry in &table.entries {
            if self.known.contains(&entry.name.as_str()) {
                continue;
            }
            let slip = nearest(&entry.name, self.known.iter().copied());
            let meant = if slip.is_some() {
                None
            } else {
                meant(&entry.name, &self.known)
            };
            let error = ConfigError::new(entry.place.clone(), self.path_of(&entry.name), "unknown key")
                .allowed(self.known.join(", "))
                .nearest(slip.or_else(|| meant.map(str::to_owned)));
            self.reader.keep_unknown(Unknown {
                error,
                name: entry.name.clone(),
                meant: meant.map(|key| (Rc::clone(&self.steps), key)),
            });
        }
    }

    fn entry(&self, name: &str) -> Option<&'a source::Entry> {
        self.table.and_then(|table| table.get(name))
    }

    fn path_of(&self, name: &str) -> String {
        if self.path.is_empty() {
            name.to_owned()
        } else {
            format!("{}.{name}", self.path)
        }
    }

    fn below(&self, steps: &[Step]) -> Rc<[Step]> {
        [&*self.steps, steps].concat().into()
    }

    fn expect_table(&self, node: &'a Node, path: &str, allowed: &str) -> Option<&'a Table> {
        if let Value::Table(table) = &node.value {
            return Some(table);
        }
        let error = ConfigError::new(node.place.clone(), path, "wrong type")
            .found(node.value.kind())
            .allowed(allowed);
        self.reader.report(error);
        None
    }
}
