//! The Python environment with the tools that know OpenAPI better than we do.

use std::{env, path::PathBuf};

/// Where it is, if not in the usual place.
const VARIABLE: &str = "VESTIBULE_SCHEMATHESIS";

/// The Python that runs them.
pub(crate) fn python() -> PathBuf {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let venv = env::var_os(VARIABLE).map_or_else(|| root.join(".vestibule/schemathesis"), PathBuf::from);
    let python = venv.join("bin/python");
    assert!(
        python.exists(),
        "{} is missing: `make test` installs what tests/clients/schemathesis/requirements.txt names, or {VARIABLE} says \
         where it is",
        python.display()
    );
    python
}
