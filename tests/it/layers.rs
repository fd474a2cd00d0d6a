//! The layers of ARCHITECTURE.md, kept true: which module may import which, and which crates stay out of where.
//!
//! Reads sources only. Paths are looked for in all code, not in `use` lines alone, so that `crate::db::x()` in the
//! middle of a function counts too. Unit tests at the end of a file may import what they like.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// L0: words everybody uses.
const WORDS: &[&str] = &["chain", "clock", "secret", "fields", "identity", "postgres_url"];
/// L1.
const GROUND: &[&str] = &["config", "db", "problem", "telemetry", "lifecycle"];
/// L2. `outbound` is another, which only the cold path may use.
const PARTS: &[&str] = &["policy", "session", "upstream", "mail"];

/// Whom a module may import besides itself and [`WORDS`].
fn allowed(module: &str) -> Option<Vec<&'static str>> {
    let lists: &[&[&str]] = match module {
        "chain" | "clock" | "secret" | "fields" | "identity" | "postgres_url" | "config" | "db" | "problem"
        | "lifecycle" | "lib" | "outbound" => &[],
        "telemetry" => &[&["config"]],
        "policy" => &[&["config", "problem"]],
        "session" | "mail" => &[&["config", "db", "lifecycle", "telemetry"]],
        "upstream" => &[&["config", "lifecycle", "telemetry"]],
        "live" => &[GROUND, PARTS],
        "proxy" => &[&["config", "problem", "telemetry", "lifecycle", "live"], PARTS],
        "auth" => &[GROUND, &["live", "policy", "session", "mail", "outbound"]],
        // `outbound` for certificate authorities, off the data path.
        "server" => &[GROUND, PARTS, &["live", "proxy", "auth", "outbound"]],
        "app" => &[GROUND, PARTS, &["live", "proxy", "auth", "server"]],
        // What `vestibule dev` and the tests bring up beside the gateway: no part of a running gateway.
        "dev" => &[&["config", "lifecycle", "problem"]],
        "cli" | "main" => &[GROUND, PARTS, &["live", "proxy", "auth", "server", "app", "dev", "cli"]],
        _ => return None,
    };
    Some(lists.concat())
}

/// Crates that would pull a module out of its layer.
const BANNED_CRATES: &[(&str, &[&str])] = &[
    ("config", &["tokio", "hyper", "axum", "deadpool_postgres"]),
    ("db", &["http", "hyper", "axum"]),
    (
        "policy",
        &["tokio", "hyper", "axum", "tokio_postgres", "deadpool_postgres"],
    ),
    ("session", &["hyper", "axum"]),
    ("mail", &["hyper", "axum"]),
    ("proxy", &["axum", "tokio_postgres", "deadpool_postgres"]),
];

#[test]
fn no_module_imports_from_above_or_across() {
    let mut wrong = Vec::new();
    for (file, module) in sources() {
        let Some(allowed) = allowed(&module) else {
            wrong.push(format!(
                "{}: module `{module}` has no layer; give it one in this test and in ARCHITECTURE.md",
                file.display()
            ));
            continue;
        };
        for imported in imports(&code_of(&file), "crate") {
            let fine = imported == module
                || WORDS.contains(&imported.as_str())
                || allowed.contains(&imported.as_str())
                || !is_module(&imported);
            if !fine {
                wrong.push(format!("{}: `{module}` must not import `{imported}`", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "forbidden imports:\n{}", wrong.join("\n"));
}

#[test]
fn no_module_uses_a_crate_that_is_not_for_its_layer() {
    let mut wrong = Vec::new();
    for (file, module) in sources() {
        let code = code_of(&file);
        for (_, banned) in BANNED_CRATES.iter().filter(|(name, _)| *name == module) {
            for name in banned.iter().filter(|name| mentions_crate(&code, name)) {
                wrong.push(format!("{}: `{module}` must not use crate `{name}`", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "crates out of their layer:\n{}", wrong.join("\n"));
}

#[test]
fn words_know_each_other_only_downwards() {
    for (file, module) in sources()
        .into_iter()
        .filter(|(_, module)| WORDS.contains(&module.as_str()))
    {
        let below: &[&str] = if module == "identity" {
            &["clock", "secret", "fields"]
        } else {
            &[]
        };
        for imported in imports(&code_of(&file), "crate") {
            assert!(
                imported == module || below.contains(&imported.as_str()),
                "{}: `{module}` must not import `{imported}`",
                file.display()
            );
        }
    }
}

/// The reader itself: a check that sees nothing would never fail.
#[test]
fn imports_are_seen_in_all_their_spellings() {
    let code = without_comments(
        "use crate::alpha::X;\nuse crate::{beta::{Y, delta::Z}, gamma};\n\
         // use crate::commented;\nfn f() { crate::epsilon::g(\"crate::quoted\") } /* crate::block */\n\
         pub(crate) use crate::zeta;",
    );
    let seen: Vec<_> = imports(&code, "crate").into_iter().collect();
    assert_eq!(seen, ["alpha", "beta", "epsilon", "gamma", "zeta"]);
    assert!(mentions_crate("use hyper::Request;", "hyper") && mentions_crate("use {hyper, http}", "hyper"));
    assert!(!mentions_crate("use hyper_util::rt;", "hyper") && !mentions_crate("use super::http::x;", "http"));
}

/// Every source file with the top-level module that it belongs to.
fn sources() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let first = path.strip_prefix(&root).unwrap().components().next().unwrap();
                let module = first.as_os_str().to_str().unwrap().trim_end_matches(".rs").to_owned();
                found.push((path, module));
            }
        }
    }
    found.sort();
    found
}

/// A module of ours, rather than a macro or a constant of the crate's root.
fn is_module(name: &str) -> bool {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    src.join(format!("{name}.rs")).exists() || src.join(name).is_dir()
}

/// The code of `file`: no comments, no string contents, nothing of unit tests.
fn code_of(file: &Path) -> String {
    if file.iter().any(|part| part == "tests" || part == "tests.rs") {
        return String::new();
    }
    let text = fs::read_to_string(file).unwrap();
    let code = without_comments(&text);
    match code.find("#[cfg(test)]") {
        Some(tests) => code[..tests].to_owned(),
        None => code,
    }
}

fn without_comments(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if rest.starts_with("//") {
            rest = &rest[rest.find('\n').unwrap_or(rest.len())..];
        } else if rest.starts_with("/*") {
            rest = rest.find("*/").map_or("", |end| &rest[end + 2..]);
        } else if rest.starts_with("'\"'") || rest.starts_with("'\\\"'") {
            rest = &rest[rest[1..].find('\'').unwrap() + 2..];
        } else if rest.starts_with("b'\"'") {
            rest = &rest[4..];
        } else if let Some(raw) = rest.strip_prefix("r#\"") {
            rest = raw.find("\"#").map_or("", |end| &raw[end + 2..]);
        } else if c == '"' {
            rest = after_string(&rest[1..]);
        } else {
            code.push(c);
            rest = &rest[c.len_utf8()..];
        }
    }
    code
}

/// What follows the closing quote.
fn after_string(text: &str) -> &str {
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return &text[at + 1..],
            _ => {}
        }
    }
    ""
}

/// The first names behind `root::`, in plain and in braced paths.
fn imports(code: &str, root: &str) -> BTreeSet<String> {
    let needle = format!("{root}::");
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices(&needle) {
        if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let behind = &code[at + needle.len()..];
        if behind.starts_with('{') {
            found.extend(first_names(behind));
        } else {
            found.insert(name_at(behind).to_owned());
        }
    }
    found.remove("");
    found
}

/// The names at the outermost level of `{a::{b}, c}`.
fn first_names(braced: &str) -> Vec<String> {
    let (mut depth, mut names, mut expecting) = (0, Vec::new(), false);
    for (at, c) in braced.char_indices() {
        match c {
            '{' => {
                depth += 1;
                expecting |= depth == 1;
            }
            '}' if depth == 1 => break,
            '}' => depth -= 1,
            ',' if depth == 1 => expecting = true,
            _ if expecting && !c.is_whitespace() => {
                names.push(name_at(&braced[at..]).to_owned());
                expecting = false;
            }
            _ => {}
        }
    }
    names
}

fn name_at(text: &str) -> &str {
    let end = text
        .find(|c: char| !(c.is_alphanumeric() || c == '_'))
        .unwrap_or(text.len());
    &text[..end]
}

/// Whether `code` names the external crate: at the beginning of a path, not behind another `::`.
fn mentions_crate(code: &str, name: &str) -> bool {
    code.match_indices(name).any(|(at, _)| {
        let (before, behind) = (&code[..at], &code[at + name.len()..]);
        let begins = !before.ends_with(|c: char| c.is_alphanumeric() || matches!(c, '_' | ':' | '.'));
        let in_use = before
            .rsplit(';')
            .next()
            .is_some_and(|line| line.trim_start().starts_with("use "));
        let ends = behind.starts_with("::") || in_use && behind.starts_with([';', ',', '}', ' ']);
        begins && ends
    })
}
