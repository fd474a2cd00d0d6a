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
//! A file may have ten thousand routes, and reloads are to be quick: what only documents need is noted only for them, and
//! keys of such sections ([`Section::key_of_many`]) are made once, with their defaults, not in each.
//!
//! A reader goes on after an error, so that all of them come out at once: sections ask for all their keys, and only
//! then fail if one is missing.

use std::{
    any::Any,
    cell::{OnceCell, RefCell},
    collections::HashMap,
    path::{Path, PathBuf},
    rc::Rc,
};

use super::{
    catalogue::{KeyDoc, Presence, SectionDoc, Step, prefix},
    error::{ConfigError, Place, meant, nearest},
    found::{Found, KeyPath},
    kind::Kind,
    read_from::ReadFrom,
    reference::{key_example, section_example},
    source::{self, Node, Table, Value},
};

/// What all sections share: the outside world, and the list of what is wrong.
pub(super) struct Reader<'a> {
    /// As errors name the configuration file.
    pub file: &'a Path,
    /// The one that it lies in: `{ file = "…" }` is relative to it.
    pub folder: &'a Path,
    pub env: &'a dyn Fn(&str) -> Option<String>,
    purpose: Purpose,
    read_from: RefCell<ReadFrom>,
    errors: RefCell<Vec<ConfigError>>,
    unknown: RefCell<Vec<Unknown>>,
    misshapen: RefCell<Vec<Misshapen>>,
    /// Filled to describe, not to load.
    catalogue: RefCell<Vec<SectionDoc>>,
    /// Sections by where they are, whatever their names and numbers.
    shapes: RefCell<HashMap<Rc<[Step]>, usize>>,
    /// [`Made`] keys, with their names: by the number of their section's shape, then by the order in which it asks for them.
    made: RefCell<Vec<Vec<Option<MadeKey>>>>,
}

type MadeKey = (&'static str, Rc<dyn Any>);

/// A key that many sections have.
struct Made<T> {
    kind: Kind<T>,
    /// What absence means, where it means a value.
    default: OnceCell<Option<T>>,
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum Purpose {
    Load,
    /// Nothing is read; every section is entered once, to hear what it would ask for.
    Describe,
}

struct Unknown {
    error: ConfigError,
    name: String,
    /// A key that its section has, and that is meant though it is spelt otherwise.
    meant: Option<(Rc<[Step]>, &'static str)>,
}

/// What should be a table, and is not.
struct Misshapen {
    error: ConfigError,
    name: &'static str,
    steps: Rc<[Step]>,
}

impl<'a> Reader<'a> {
    pub(super) fn load(file: &'a Path, env: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Self::new(file, env, Purpose::Load)
    }

    pub(super) fn describe() -> Self {
        Self::new(Path::new(""), &|_| None, Purpose::Describe)
    }

    fn new(file: &'a Path, env: &'a dyn Fn(&str) -> Option<String>, purpose: Purpose) -> Self {
        Self {
            file,
            folder: file.parent().unwrap_or(Path::new("")),
            env,
            purpose,
            read_from: RefCell::default(),
            errors: RefCell::default(),
            unknown: RefCell::default(),
            misshapen: RefCell::default(),
            catalogue: RefCell::default(),
            shapes: RefCell::default(),
            made: RefCell::default(),
        }
    }

    pub(super) fn report(&self, error: ConfigError) {
        if self.purpose == Purpose::Load {
            self.errors.borrow_mut().push(error);
        }
    }

    /// Notes something that the configuration is made of.
    pub(super) fn made_of(&self, text: &str) {
        self.read_from.borrow_mut().add(text);
    }

    /// Notes the text of the configuration file.
    pub(super) fn begin(&self, text: &str) {
        self.read_from.borrow_mut().begin(text);
    }

    /// Notes a file that a value stands in, and what was read of it.
    pub(super) fn read_file(&self, path: PathBuf, bytes: Option<&[u8]>) {
        self.read_from.borrow_mut().file(path, bytes);
    }

    pub(super) fn read_from(&self) -> ReadFrom {
        self.read_from.borrow().clone()
    }

    /// Reads the whole tree with `read`.
    pub(super) fn root<T>(&self, table: &Table, read: impl FnOnce(&mut Section<'_>) -> T) -> T {
        let mut root = Section::new(self, Rc::default(), "", String::new(), Place::Missing, Some(table));
        let value = read(&mut root);
        root.finish();
        value
    }

    /// What is wrong; empty if nothing is. `describe` says what keys there are.
    pub(super) fn into_errors(self, describe: impl FnOnce() -> Vec<SectionDoc>) -> Vec<ConfigError> {
        let mut errors = self.errors.into_inner();
        let (unknown, misshapen) = (self.unknown.into_inner(), self.misshapen.into_inner());
        let catalogue = if unknown.is_empty() && misshapen.is_empty() {
            Vec::new()
        } else {
            describe()
        };
        let section = |steps: &[Step]| catalogue.iter().find(|section| section.path == steps);
        errors.extend(misshapen.into_iter().map(|misshapen| {
            let mut error = misshapen.error;
            error.example = section(&misshapen.steps).and_then(|found| section_example(found, misshapen.name));
            error
        }));
        errors.extend(unknown.into_iter().map(|unknown| {
            let mut error = unknown.error;
            if let Some((steps, meant)) = &unknown.meant {
                let key = section(steps).and_then(|found| found.keys.iter().find(|key| key.name == *meant));
                error.example = key.map(key_example);
            }
            // Right name, wrong place: only if no slip of the pen explains it.
            if error.nearest.is_none() {
                error.nearest = catalogue
                    .iter()
                    .filter(|section| section.keys.iter().any(|key| key.name == unknown.name))
                    .map(|section| format!("{}{}", prefix(&section.path), unknown.name))
                    .max_by_key(|path| shared(path, &error.key));
            }
            error
        }));
        errors
    }

    /// The number of the sections at `steps`.
    fn shape(&self, steps: &Rc<[Step]>, doc: &'static str) -> usize {
        let mut shapes = self.shapes.borrow_mut();
        if let Some(known) = shapes.get(steps) {
            return *known;
        }
        let index = shapes.len();
        shapes.insert(Rc::clone(steps), index);
        if self.purpose == Purpose::Describe {
            self.catalogue.borrow_mut().push(SectionDoc {
                path: steps.to_vec(),
                doc,
                keys: Vec::new(),
                is_comment: false,
            });
        }
        index
    }

    pub(super) fn into_catalogue(self) -> Vec<SectionDoc> {
        self.catalogue.into_inner()
    }
}

/// How many levels two paths have in common.
fn shared(a: &str, b: &str) -> usize {
    a.split('.').zip(b.split('.')).take_while(|(a, b)| a == b).count()
}

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
    /// Of [`Reader::shapes`]; in the catalogue, if there is one.
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
            let mut misshapen = self.reader.misshapen.borrow_mut();
            misshapen.push(Misshapen { error, name, steps });
        }
        let table = node.and_then(|node| match &node.value {
            Value::Table(table) => Some(table),
            _ => None,
        });
        let before = self.reader.errors.borrow().len();
        let mut section = Section::new(self.reader, steps, doc, self.path_of(name), place, table);
        let value = read(&mut section);
        section.finish();
        if node.is_some() && table.is_none() {
            // That all is missing which it should have is said by that.
            self.reader.errors.borrow_mut().truncate(before);
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
        if self.reader.purpose == Purpose::Load && !self.has(name) {
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
        if self.reader.purpose == Purpose::Describe {
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
        if self.reader.purpose == Purpose::Describe {
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
        if let Some(section) = self.reader.catalogue.borrow_mut().get_mut(self.index) {
            section.is_comment = true;
        }
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
            self.reader.unknown.borrow_mut().push(Unknown {
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

/// A declared key, about to be read.
#[must_use = "say what absence means"]
pub(super) struct Key<'s, 'a, T> {
    section: &'s mut Section<'a>,
    name: &'static str,
    doc: &'static str,
    kind: Source<T>,
}

/// Where a key's kind comes from.
enum Source<T> {
    Here(Kind<T>),
    /// What makes it for all sections of this shape, and copies its default.
    Shared(fn() -> Kind<T>, fn(&T) -> T),
}

impl<T: 'static> Key<'_, '_, T> {
    /// Absent, it is `default`: TOML, or else the string as it stands.
    pub(super) fn or(self, default: &'static str) -> Option<T> {
        self.note(Presence::Default(default));
        if self.section.reader.purpose == Purpose::Describe {
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
    pub(super) fn required(self, example: &'static str) -> Option<T> {
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
    pub(super) fn optional(self, example: &'static str) -> Option<Option<T>> {
        self.note(Presence::Optional(example));
        self.read_if_there()
    }

    /// As [`Key::optional`], for one of several keys of which a section must have one: documents show this one.
    #[expect(
        clippy::option_option,
        reason = "the outer one is wrong or right, the inner one absent or there"
    )]
    pub(super) fn one_of_several(self, example: &'static str) -> Option<Option<T>> {
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

    /// What was made in the first section of this shape.
    fn made(&self, kind_of: fn() -> Kind<T>) -> Rc<Made<T>> {
        let Section {
            reader, index, known, ..
        } = &*self.section;
        // A section that left out a key before this one finds another's name: then it is made again.
        let turn = known.len();
        let same_turn = reader
            .made
            .borrow()
            .get(*index)
            .and_then(|keys| keys.get(turn)?.clone());
        if let Some((_, made)) = same_turn.filter(|(name, _)| *name == self.name)
            && let Ok(made) = Rc::downcast::<Made<T>>(made)
        {
            return made;
        }
        let made = Rc::new(Made {
            kind: kind_of(),
            default: OnceCell::new(),
        });
        let kept: Rc<dyn Any> = Rc::clone(&made) as _;
        let mut all = reader.made.borrow_mut();
        let needed = all.len().max(index + 1);
        all.resize_with(needed, Vec::new);
        if let Some(keys) = all.get_mut(*index) {
            let needed = keys.len().max(turn + 1);
            keys.resize_with(needed, || None);
            if let Some(place) = keys.get_mut(turn) {
                *place = Some((self.name, kept));
            }
        }
        made
    }

    fn note(&self, presence: Presence) {
        let section = &self.section;
        if section.reader.purpose == Purpose::Load {
            return;
        }
        let mut catalogue = section.reader.catalogue.borrow_mut();
        if let Some(keys) = catalogue.get_mut(section.index).map(|section| &mut section.keys)
            && !keys.iter().any(|key| key.name == self.name)
        {
            let (allowed, schema) = self.with_kind(|kind| (kind.allowed.clone(), kind.schema.clone()));
            keys.push(KeyDoc {
                name: self.name,
                doc: self.doc,
                allowed,
                schema,
                presence,
            });
        }
    }
}
