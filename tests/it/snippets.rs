//! Every piece of `gateway.toml` that the documents show is one that loads: laid over a whole configuration, with the
//! files that it names.
//!
//! A block that is no piece of `gateway.toml` says what it is behind the word: ```` ```toml tests ````.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::LazyLock,
};

use rcgen::{CertificateParams, KeyPair};
use tempfile::TempDir;
use toml::{Table, Value};
use vestibule::config::{self, Overrides};

use crate::harness::{
    gateway::{lay_over, whole_text},
    places_file::places_file,
};

/// A block of a document, and the line on which it begins.
struct Snippet {
    document: PathBuf,
    line: usize,
    text: String,
}

#[test]
fn every_piece_of_configuration_in_the_documents_loads() {
    let snippets = snippets();
    assert!(snippets.len() > 8, "only {} were found", snippets.len());
    let wrong: Vec<String> = snippets.iter().filter_map(|snippet| loads(snippet).err()).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn a_piece_that_does_not_load_is_found() {
    let snippet = |text: &str| Snippet {
        document: PathBuf::from("a document"),
        line: 1,
        text: text.to_owned(),
    };
    assert!(loads(&snippet("[server]\nlisten = '0.0.0.0:80'")).is_ok());
    for text in ["[server]\nlisten = 1", "[server]\nlisen = '0.0.0.0:80'", "[server"] {
        assert!(loads(&snippet(text)).is_err(), "{text}");
    }
}

fn snippets() -> Vec<Snippet> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut documents: Vec<PathBuf> = fs::read_dir(root.join("docs"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .collect();
    documents.push(root.join("README.md"));
    documents.sort();
    documents.iter().flat_map(|document| blocks(document)).collect()
}

fn blocks(document: &Path) -> Vec<Snippet> {
    let text = fs::read_to_string(document).unwrap();
    let mut found = Vec::new();
    let mut open: Option<Snippet> = None;
    for (index, line) in text.lines().enumerate() {
        match &mut open {
            None if line.trim() == "```toml" => {
                open = Some(Snippet {
                    document: document.to_owned(),
                    line: index + 2,
                    text: String::new(),
                });
            }
            None => {}
            Some(_) if line.trim() == "```" => found.extend(open.take()),
            Some(snippet) => {
                snippet.text.push_str(line);
                snippet.text.push('\n');
            }
        }
    }
    assert!(open.is_none(), "{}: a block has no end", document.display());
    found
}

/// Whether it is accepted on top of what every gateway has.
fn loads(snippet: &Snippet) -> Result<(), String> {
    let place = format!("{}:{}", snippet.document.display(), snippet.line);
    let folder = tempfile::tempdir().unwrap();
    let mut whole: Table = whole_text().parse().unwrap();
    lay_over(
        &mut whole,
        "upstreams.api.endpoints = ['http://localhost']".parse().unwrap(),
    );
    let piece: Table = snippet.text.parse().map_err(|error| format!("{place}: {error}"))?;
    let mut piece = Value::Table(piece);
    provide(&mut piece, &folder);
    let Value::Table(piece) = piece else {
        unreachable!("it went in as a table")
    };
    lay_over(&mut whole, piece);
    let text = whole.to_string();
    let file = folder.path().join("gateway.toml");
    match config::parse_with(&text, &file, &|name| Some(variable(name)), &Overrides::default()) {
        Ok(_) => Ok(()),
        Err(errors) => Err(format!("{place}: {errors}\n{}", snippet.text)),
    }
}

/// What the environment holds under names that documents use.
fn variable(name: &str) -> String {
    match name {
        "SMTP_URL" => "smtp://localhost".to_owned(),
        "DATABASE_DIRECT_URL" => "postgres://direct.localhost/app".to_owned(),
        name if name.contains("DATABASE") => "postgres://localhost/app".to_owned(),
        name => format!("the value of {name}, which is long enough for a secret"),
    }
}

/// Makes the files and folders that a piece names. Those of the whole machine are made in `folder` instead.
fn provide(value: &mut Value, folder: &TempDir) {
    match value {
        Value::Table(table) => {
            // A file of a folder that is served.
            if let (Some(Value::String(served)), Some(Value::String(page))) =
                (table.get("serve"), table.get("fallback"))
            {
                let served = folder.path().join(served);
                fs::create_dir_all(&served).unwrap();
                fs::write(served.join(page), "").unwrap();
            }
            table.iter_mut().for_each(|(_, value)| provide(value, folder));
        }
        Value::Array(values) => values.iter_mut().for_each(|value| provide(value, folder)),
        Value::String(text) => {
            let Some(made) = made_for(text) else { return };
            let here = folder.path().join(text.trim_start_matches('/'));
            match made {
                Made::Folder => fs::create_dir_all(&here).unwrap(),
                Made::File(contents) => {
                    fs::create_dir_all(here.parent().unwrap()).unwrap();
                    fs::write(&here, contents).unwrap();
                }
            }
            if text.starts_with('/') {
                here.to_str().unwrap().clone_into(text);
            }
        }
        _ => {}
    }
}

enum Made {
    File(Vec<u8>),
    Folder,
}

/// What a string names, if it is a file or a folder; by its looks.
fn made_for(text: &str) -> Option<Made> {
    let extension = Path::new(text).extension().and_then(|extension| extension.to_str());
    let (certificate, key) = &*PAIR;
    Some(match extension {
        Some("crt" | "pem") => Made::File(certificate.clone()),
        Some("key" | "p8") => Made::File(key.clone()),
        Some("mmdb") => Made::File(places_file(&[])),
        _ if text.starts_with("/run/secrets/") => Made::File(b"what a secret file holds: long enough\n".to_vec()),
        _ if text.ends_with('/') && !text.contains("//") && !text.starts_with('/') => Made::Folder,
        _ => return None,
    })
}

/// A certificate and its key, which all of a document's are.
static PAIR: LazyLock<(Vec<u8>, Vec<u8>)> = LazyLock::new(|| {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["app.example.com".to_owned()]).unwrap();
    let certificate = params.self_signed(&key).unwrap();
    (certificate.pem().into_bytes(), key.serialize_pem().into_bytes())
});
