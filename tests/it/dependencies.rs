//! The dependency policy: no OpenSSL, one TLS provider, known licences, and a reason for every direct dependency.
//!
//! `deny.toml` says the same to `cargo deny`. This test asks cargo about what is built here, offline.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use serde_json::Value;

const LICENCES: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MPL-2.0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Other TLS stacks and crypto providers. `openssl-probe` only finds certificate folders and is none of them.
const BANNED: &[&str] = &[
    "openssl",
    "openssl-sys",
    "native-tls",
    "tokio-native-tls",
    "postgres-native-tls",
    "boring",
    "boring-sys",
    "ring",
    "rustls-openssl",
    "rustls-rustcrypto",
    "rustls-mbedcrypto-provider",
    "reqwest",
];

#[test]
fn no_other_tls_stack_is_in_the_binary() {
    let names: BTreeSet<_> = shipped().into_iter().map(|package| package.name).collect();
    let found: Vec<_> = BANNED.iter().filter(|&&name| names.contains(name)).collect();
    assert!(found.is_empty(), "banned crates are in the dependency tree: {found:?}");
}

#[test]
fn rustls_has_exactly_one_provider() {
    let rustls: Vec<_> = shipped()
        .into_iter()
        .filter(|package| package.name == "rustls")
        .collect();
    assert_eq!(rustls.len(), 1, "one version of rustls");
    let features = &rustls[0].features;
    assert!(
        features.contains("aws_lc_rs"),
        "rustls is built with aws-lc-rs: {features:?}"
    );
    assert!(
        !features.contains("ring"),
        "rustls is built with ring as well: {features:?}"
    );
}

#[test]
fn every_licence_is_on_the_list() {
    let refused: Vec<_> = shipped()
        .into_iter()
        .filter(|package| !may_use(&package.licence))
        .map(|package| format!("{}: {:?}", package.name, package.licence))
        .collect();
    assert!(
        refused.is_empty(),
        "licences that are not on the list:\n{}",
        refused.join("\n")
    );
}

#[test]
fn every_direct_dependency_has_its_line() {
    let (direct, documented) = (direct(), documented());
    let missing: Vec<_> = direct.difference(&documented).collect();
    assert!(missing.is_empty(), "docs/dependencies.md has no line for {missing:?}");
    let stale: Vec<_> = documented.difference(&direct).collect();
    assert!(
        stale.is_empty(),
        "docs/dependencies.md speaks of {stale:?}, which Cargo.toml does not have"
    );
}

#[test]
fn deny_toml_says_the_same() {
    let text = fs::read_to_string(root().join("deny.toml")).unwrap();
    let deny: toml::Table = text.parse().unwrap();
    let strings = |value: &toml::Value| -> BTreeSet<String> {
        let items = value.as_array().unwrap().iter();
        items.map(|item| item.as_str().unwrap().to_owned()).collect()
    };
    let ours: BTreeSet<String> = LICENCES.iter().map(|&licence| licence.to_owned()).collect();
    assert_eq!(strings(&deny["licenses"]["allow"]), ours);

    let banned = deny["bans"]["deny"].as_array().unwrap().iter();
    let banned: BTreeSet<_> = banned.map(|ban| ban["crate"].as_str().unwrap()).collect();
    assert_eq!(banned, BANNED.iter().copied().collect());
}

/// The reader of licence expressions: one that says yes to everything would never fail.
#[test]
fn licence_expressions_are_read_as_spdx_says() {
    for fine in [
        "MIT",
        "GPL-3.0 OR MIT",
        "MIT/GPL-3.0",
        "(MIT OR GPL-3.0) AND ISC",
        "MIT AND (ISC OR GPL-3.0)",
    ] {
        assert!(may_use(fine), "{fine}");
    }
    assert!(may_use("Apache-2.0 WITH LLVM-exception"));
    for refused in [
        "GPL-3.0",
        "MIT AND GPL-3.0",
        "(MIT OR ISC) AND AGPL-3.0",
        "MIT WITH Some-exception",
        "",
        "MIT OR",
    ] {
        assert!(!may_use(refused), "{refused}");
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Names in the first column of the tables of `docs/dependencies.md`.
fn documented() -> BTreeSet<String> {
    let text = fs::read_to_string(root().join("docs/dependencies.md")).unwrap();
    let mut names = BTreeSet::new();
    for line in text.lines().filter(|line| line.starts_with("| `")) {
        let first = line.split('|').nth(1).unwrap();
        names.extend(first.split('`').skip(1).step_by(2).map(str::to_owned));
    }
    names
}

/// Something that is compiled for the binary.
struct Package {
    name: String,
    licence: String,
    features: BTreeSet<String>,
}

/// What is reached through normal and build dependencies.
///
/// Asked of `cargo tree`, since the graph in `cargo metadata` also holds optional dependencies that a weak feature
/// (`ring?/alloc`) mentions and nobody switches on.
fn shipped() -> Vec<Package> {
    let tree = cargo(&[
        "tree",
        "--edges",
        "normal,build",
        "--prefix",
        "none",
        "--format",
        "{p}|{l}|{f}",
    ]);
    // A package that was shown before ends in ` (*)`.
    let lines: BTreeSet<_> = tree.lines().map(|line| line.trim_end_matches(" (*)")).collect();
    let packages = lines.into_iter().filter(|line| !line.is_empty()).map(|line| {
        let [package, licence, features] = line.split('|').collect::<Vec<_>>()[..] else {
            panic!("cargo tree says {line:?}");
        };
        Package {
            name: package.split(' ').next().unwrap().to_owned(),
            licence: licence.to_owned(),
            features: features.split(',').map(str::to_owned).collect(),
        }
    });
    packages.collect()
}

/// What Cargo.toml names, tests' dependencies included.
fn direct() -> BTreeSet<String> {
    let metadata = cargo(&["metadata", "--format-version", "1", "--no-deps"]);
    let metadata: Value = serde_json::from_str(&metadata).unwrap();
    let dependencies = metadata["packages"][0]["dependencies"].as_array().unwrap().iter();
    dependencies
        .map(|dependency| dependency["name"].as_str().unwrap().to_owned())
        .collect()
}

fn cargo(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO"))
        .args(arguments)
        .args(["--locked", "--offline"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Whether an SPDX expression can be met with licences of the list. `/` is an old spelling of OR.
fn may_use(expression: &str) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let tokens: Vec<_> = spaced.split_whitespace().collect();
    let mut rest = tokens.as_slice();
    let met = either(&mut rest);
    met == Some(true) && rest.is_empty()
}

/// `both (OR both)*`; `None` where the expression is broken.
fn either(rest: &mut &[&str]) -> Option<bool> {
    let mut met = both(rest)?;
    while let [first, behind @ ..] = *rest
        && *first == "OR"
    {
        *rest = behind;
        met |= both(rest)?;
    }
    Some(met)
}

/// `one (AND one)*`; AND binds stronger.
fn both(rest: &mut &[&str]) -> Option<bool> {
    let mut met = one(rest)?;
    while let [first, behind @ ..] = *rest
        && *first == "AND"
    {
        *rest = behind;
        met &= one(rest)?;
    }
    Some(met)
}

/// `( expression )`, `licence` or `licence WITH exception`.
fn one(rest: &mut &[&str]) -> Option<bool> {
    let tokens = *rest;
    match tokens {
        ["(", behind @ ..] => {
            *rest = behind;
            let met = either(rest)?;
            let [")", behind @ ..] = *rest else { return None };
            *rest = behind;
            Some(met)
        }
        [licence, "WITH", exception, behind @ ..] => {
            *rest = behind;
            Some(LICENCES.contains(&format!("{licence} WITH {exception}").as_str()))
        }
        [")" | "OR" | "AND" | "WITH", ..] | [] => None,
        [licence, behind @ ..] => {
            *rest = behind;
            Some(LICENCES.contains(licence))
        }
    }
}
