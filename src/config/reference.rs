//! Documents made from the declarations of the keys: `config/reference.toml` for people, `config/schema.json` for
//! editors.

use std::fmt::Write as _;

use serde_json::{Map, Value as Json, json};

use super::{
    Config,
    catalogue::{KeyDoc, Presence, SectionDoc, Step},
    error::Place,
    reader::Reader,
    section::Section,
    source::{self, Table, Value},
};

const WIDTH: usize = 110;

const PREFACE: [&str; 3] = [
    "Every key of gateway.toml, with its default; where there is none, with an example. Keys that may be absent and have \
     no default are commented out, and so are tables that nobody has to have.",
    "Any string may be { env = \"NAME\" }, an environment variable, or { file = \"path\" }, a file's content without its \
     final newline; the path is relative to this file. Single keys are overridden by environment variables: \
     VESTIBULE__SERVER__LISTEN is server.listen.",
    "Generated from the code: change it there. `vestibule check` says what is wrong with a file of yours.",
];

/// The text of `config/reference.toml`: every key with its meaning, unit and default.
pub fn reference() -> String {
    let mut text = String::from("#:schema ./schema.json\n");
    for paragraph in PREFACE {
        text.push_str("#\n");
        comment(&mut text, paragraph);
    }
    for section in catalogue() {
        if section.path.is_empty() {
            continue;
        }
        text.push('\n');
        let _ = writeln!(text, "# {}", "-".repeat(WIDTH - 2));
        comment(&mut text, section.doc);
        let mark = if section.is_comment { "# " } else { "" };
        let _ = writeln!(text, "{mark}{}", header(&section.path));
        for key in &section.keys {
            text.push('\n');
            write_key(&mut text, key, mark);
        }
    }
    text
}

/// The JSON Schema of `gateway.toml`, for editors.
///
/// Keys that could come from the environment are not required here: an editor can't know.
pub fn json_schema() -> Json {
    let mut root = table_schema("The configuration of the Vestibule gateway.");
    for section in catalogue() {
        let Some(place) = descend(&mut root, &section.path, section.doc) else {
            continue;
        };
        let in_array = section.path.contains(&Step::Item);
        for key in &section.keys {
            if in_array && matches!(key.presence, Presence::Required(_)) {
                let required = place.entry("required").or_insert_with(|| json!([]));
                if let Some(required) = required.as_array_mut() {
                    required.push(json!(key.name));
                }
            }
            if let Some(properties) = place.get_mut("properties").and_then(Json::as_object_mut) {
                properties.insert(key.name.to_owned(), key_schema(key));
            }
        }
    }
    let from = |name: &str, doc: &str| {
        json!({
            "type": "object",
            "description": doc,
            "properties": { name: { "type": "string", "description": doc } },
            "required": [name],
            "additionalProperties": false,
        })
    };
    root.insert(
        "$schema".to_owned(),
        json!("https://json-schema.org/draft/2020-12/schema"),
    );
    root.insert("title".to_owned(), json!("gateway.toml"));
    root.insert(
        "$defs".to_owned(),
        json!({
            "from_environment": from("env", "The environment variable that holds the value."),
            "from_file": from("file", "The file that holds the value, relative to the configuration's folder."),
        }),
    );
    Json::Object(root)
}

pub(super) fn catalogue() -> Vec<SectionDoc> {
    let reader = Reader::describe();
    // What is built of nothing is nothing: only what was asked for counts.
    let _ = Section::root(&reader, &Table::default(), Config::read);
    reader.into_catalogue()
}

fn header(path: &[Step]) -> String {
    let names: Vec<&str> = path
        .iter()
        .filter_map(|step| match step {
            Step::Key(name) | Step::Named(name) => Some(*name),
            Step::Item => None,
        })
        .collect();
    let name = names.join(".");
    if path.last() == Some(&Step::Item) {
        format!("[[{name}]]")
    } else {
        format!("[{name}]")
    }
}

/// `mark` stands before whatever is not a comment by itself.
fn write_key(text: &mut String, key: &KeyDoc, mark: &str) {
    comment(text, key.doc);
    let KeyDoc { name, allowed, .. } = key;
    let _ = match key.presence {
        Presence::Default(value) => {
            comment(text, &format!("Allowed: {allowed}."));
            writeln!(text, "{mark}{name} = {}", as_toml(value))
        }
        Presence::Required(example) => {
            comment(text, &format!("Required: {allowed}."));
            writeln!(text, "{mark}{name} = {}", as_toml(example))
        }
        Presence::OneOfSeveral(example) => {
            comment(text, &format!("Allowed: {allowed}."));
            writeln!(text, "{mark}{name} = {}", as_toml(example))
        }
        Presence::Optional(example) => {
            comment(text, &format!("Allowed: {allowed}."));
            writeln!(text, "# {name} = {}", as_toml(example))
        }
    };
}

/// How a key is written: its example, or its default.
pub(super) fn key_example(key: &KeyDoc) -> String {
    let (Presence::Default(value)
    | Presence::Required(value)
    | Presence::OneOfSeveral(value)
    | Presence::Optional(value)) = key.presence;
    format!("{} = {}", key.name, as_toml(value))
}

/// How a section is written in one line, with what it has to have; `name` as its reader calls it.
pub(super) fn section_example(section: &SectionDoc, name: &str) -> Option<String> {
    let required = section.keys.iter();
    let required: Vec<_> = required
        .filter(|key| matches!(key.presence, Presence::Required(_)))
        .map(key_example)
        .collect();
    let keys = if required.is_empty() {
        section.keys.first().map(key_example)?
    } else {
        required.join(", ")
    };
    Some(format!("{name} = {{ {keys} }}"))
}

/// As it is written in a file: TOML already, or a string without its quotes.
fn as_toml(text: &str) -> String {
    match source::loose(text, &Place::Default).value {
        Value::Text(plain) if plain == text => json!(text).to_string(),
        _ => text.to_owned(),
    }
}

fn comment(text: &mut String, words: &str) {
    let mut line = String::from("#");
    for word in words.split_whitespace() {
        if line.len() + 1 + word.len() > WIDTH {
            let _ = writeln!(text, "{line}");
            line = String::from("#");
        }
        let _ = write!(line, " {word}");
    }
    let _ = writeln!(text, "{line}");
}

fn table_schema(doc: &str) -> Map<String, Json> {
    let mut schema = Map::new();
    schema.insert("description".to_owned(), json!(doc));
    schema.insert("type".to_owned(), json!("object"));
    schema.insert("properties".to_owned(), json!({}));
    schema.insert("additionalProperties".to_owned(), json!(false));
    schema
}

/// The schema of the section at `path`, made on the way.
fn descend<'s>(root: &'s mut Map<String, Json>, path: &[Step], doc: &str) -> Option<&'s mut Map<String, Json>> {
    let mut at = root;
    for (index, step) in path.iter().enumerate() {
        let next = path.get(index + 1);
        let made = |doc: &str| match next {
            Some(Step::Item) => json!({ "description": doc, "type": "array", "items": table_schema(doc) }),
            Some(Step::Named(_)) => json!({
                "description": doc,
                "type": "object",
                "additionalProperties": table_schema(doc),
            }),
            Some(Step::Key(_)) | None => Json::Object(table_schema(doc)),
        };
        at = match step {
            Step::Key(name) => at
                .get_mut("properties")?
                .as_object_mut()?
                .entry((*name).to_owned())
                .or_insert_with(|| made(doc)),
            Step::Named(_) => at.get_mut("additionalProperties")?,
            Step::Item => at.get_mut("items")?,
        }
        .as_object_mut()?;
    }
    Some(at)
}

fn key_schema(key: &KeyDoc) -> Json {
    let mut schema = Map::new();
    let mut description = format!("{}\n\nAllowed: {}.", key.doc, key.allowed);
    match key.presence {
        Presence::Default(default) => {
            let default = as_json(&source::loose(default, &Place::Default));
            schema.insert("default".to_owned(), default);
        }
        Presence::Required(_) => description.push_str("\n\nRequired."),
        Presence::OneOfSeveral(_) | Presence::Optional(_) => {}
    }
    schema.insert("description".to_owned(), json!(description));
    if let Json::Object(kind) = &key.schema {
        schema.extend(kind.clone());
    }
    Json::Object(schema)
}

fn as_json(node: &source::Node) -> Json {
    match &node.value {
        Value::Text(text) => json!(text),
        Value::Integer(number) => json!(number),
        Value::Boolean(value) => json!(value),
        Value::List(nodes) => nodes.iter().map(as_json).collect(),
        Value::Table(table) => table
            .entries
            .iter()
            .map(|entry| (entry.name.clone(), as_json(&entry.node)))
            .collect::<Map<_, _>>()
            .into(),
        Value::Float | Value::DateTime => Json::Null,
    }
}
