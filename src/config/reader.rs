//! What the sections of one configuration share: where values come from, what is wrong so far, what there is to document.
//!
//! A reader goes on after an error, so that all of them come out at once. Some are only whole in the end, when it is
//! known what keys there are elsewhere.
//!
//! A file may have ten thousand routes, and reloads are to be quick: what only documents need is noted only for them, and
//! keys of such sections are made once, with their defaults, not in each.

use std::{
    any::Any,
    cell::{OnceCell, RefCell},
    collections::HashMap,
    path::{Path, PathBuf},
    rc::Rc,
};

use super::{
    catalogue::{KeyDoc, SectionDoc, Step, prefix},
    error::ConfigError,
    kind::Kind,
    read_from::ReadFrom,
    reference::{key_example, section_example},
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
pub(super) struct Made<T> {
    pub kind: Kind<T>,
    /// What absence means, where it means a value.
    pub default: OnceCell<Option<T>>,
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum Purpose {
    Load,
    /// Nothing is read; every section is entered once, to hear what it would ask for.
    Describe,
}

pub(super) struct Unknown {
    pub error: ConfigError,
    pub name: String,
    /// A key that its section has, and that is meant though it is spelt otherwise.
    pub meant: Option<(Rc<[Step]>, &'static str)>,
}

/// What should be a table, and is not.
pub(super) struct Misshapen {
    pub error: ConfigError,
    pub name: &'static str,
    pub steps: Rc<[Step]>,
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

    /// Whether nothing is read, and sections only say what they would ask for.
    pub(super) fn describes(&self) -> bool {
        self.purpose == Purpose::Describe
    }

    pub(super) fn keep_unknown(&self, unknown: Unknown) {
        self.unknown.borrow_mut().push(unknown);
    }

    pub(super) fn keep_misshapen(&self, misshapen: Misshapen) {
        self.misshapen.borrow_mut().push(misshapen);
    }

    /// How many errors were reported so far.
    pub(super) fn reported(&self) -> usize {
        self.errors.borrow().len()
    }

    /// Takes back what was reported since there were `reported` errors.
    pub(super) fn take_back(&self, reported: usize) {
        self.errors.borrow_mut().truncate(reported);
    }

    /// The number of the sections at `steps`.
    pub(super) fn shape(&self, steps: &Rc<[Step]>, doc: &'static str) -> usize {
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

    /// Documents show the sections of this shape commented out.
    pub(super) fn show_as_comment(&self, shape: usize) {
        if let Some(section) = self.catalogue.borrow_mut().get_mut(shape) {
            section.is_comment = true;
        }
    }

    /// Notes a key for documents, once.
    pub(super) fn note_key(&self, shape: usize, name: &str, doc: impl FnOnce() -> KeyDoc) {
        let mut catalogue = self.catalogue.borrow_mut();
        if let Some(keys) = catalogue.get_mut(shape).map(|section| &mut section.keys)
            && !keys.iter().any(|key| key.name == name)
        {
            keys.push(doc());
        }
    }

    /// What was made in the first section of this shape, for the key that is its `turn`th to be asked for.
    pub(super) fn made<T: 'static>(
        &self,
        shape: usize,
        turn: usize,
        name: &'static str,
        kind_of: fn() -> Kind<T>,
    ) -> Rc<Made<T>> {
        // A section that left out a key before this one finds another's name: then it is made again.
        let same_turn = self.made.borrow().get(shape).and_then(|keys| keys.get(turn)?.clone());
        if let Some((_, made)) = same_turn.filter(|(known, _)| *known == name)
            && let Ok(made) = Rc::downcast::<Made<T>>(made)
        {
            return made;
        }
        let made = Rc::new(Made {
            kind: kind_of(),
            default: OnceCell::new(),
        });
        let kept: Rc<dyn Any> = Rc::clone(&made) as _;
        let mut all = self.made.borrow_mut();
        let needed = all.len().max(shape + 1);
        all.resize_with(needed, Vec::new);
        if let Some(keys) = all.get_mut(shape) {
            let needed = keys.len().max(turn + 1);
            keys.resize_with(needed, || None);
            if let Some(place) = keys.get_mut(turn) {
                *place = Some((name, kept));
            }
        }
        made
    }

    pub(super) fn into_catalogue(self) -> Vec<SectionDoc> {
        self.catalogue.into_inner()
    }
}

/// How many levels two paths have in common.
fn shared(a: &str, b: &str) -> usize {
    a.split('.').zip(b.split('.')).take_while(|(a, b)| a == b).count()
}
