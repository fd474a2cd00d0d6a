//! Golden files: wide things are compared with a file that a reviewer reads.
//!
//! `GOLDEN=write make test` writes what is, instead of comparing; look at the difference before committing it.

use std::{env, fs, path::Path};

#[track_caller]
pub(crate) fn same(file: &str, actual: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(file);
    if env::var("GOLDEN").is_ok_and(|wish| wish == "write") {
        fs::write(&path, actual).unwrap();
        return;
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    if expected == actual {
        return;
    }
    let (expected, actual): (Vec<_>, Vec<_>) = (expected.lines().collect(), actual.lines().collect());
    let gone = expected
        .iter()
        .filter(|line| !actual.contains(line))
        .map(|line| format!("- {line}"));
    let new = actual
        .iter()
        .filter(|line| !expected.contains(line))
        .map(|line| format!("+ {line}"));
    let difference: Vec<_> = gone.chain(new).collect();
    panic!(
        "tests/golden/{file} says otherwise (GOLDEN=write accepts it):\n{}",
        difference.join("\n")
    );
}
