//! What sections and keys there are: noted while each is asked once, for documents and for hints in errors.

use serde_json::Value as Json;

/// A section as documents show it.
#[derive(Debug)]
pub(super) struct SectionDoc {
    pub path: Vec<Step>,
    pub doc: &'static str,
    pub keys: Vec<KeyDoc>,
    /// A file that has it says something that the absence of it does not.
    pub is_comment: bool,
}

/// How a section is reached from the one above.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) enum Step {
    Key(&'static str),
    /// A name of the user's choosing; documents show this one.
    Named(&'static str),
    /// One of an array of tables.
    Item,
}

#[derive(Debug)]
pub(super) struct KeyDoc {
    pub name: &'static str,
    pub doc: &'static str,
    pub allowed: String,
    pub schema: Json,
    pub presence: Presence,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Presence {
    /// What absence means, as a value.
    Default(&'static str),
    /// With an example.
    Required(&'static str),
    /// With an example; another key may be there in its place.
    OneOfSeveral(&'static str),
    /// With an example; the doc says what absence means.
    Optional(&'static str),
}

/// `auth.session.`, as people write it before a key.
pub(super) fn prefix(path: &[Step]) -> String {
    path.iter().fold(String::new(), |mut text, step| {
        match step {
            Step::Key(name) | Step::Named(name) => {
                text.push_str(name);
                text.push('.');
            }
            Step::Item => {
                text.pop();
                text.push_str("[].");
            }
        }
        text
    })
}
