//! The unmodified better-auth client: the Node tests of `tests/clients/better-auth`, against the program that was built.
//!
//! `VESTIBULE_CLIENTS_TARGET=reference` runs them against a real better-auth server instead.

use std::{path::PathBuf, process::Stdio, time::Duration};

use tokio::{process::Command, time::timeout};

use crate::harness::{Database, program, provider};

/// The tests give up by themselves before that.
const A_WHILE: Duration = Duration::from_mins(6);

/// How many there are at least: a file that is not run any more must not go unnoticed.
const AT_LEAST: usize = 373;

#[tokio::test]
async fn the_unmodified_better_auth_client_does_not_notice_who_answers() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/clients/better-auth");
    assert!(
        folder.join("node_modules").exists(),
        "the client is not installed: `make test` does it, by scripts/ensure-node-modules"
    );
    // People sign in there.
    provider::folder();
    // They make databases of their own beside it.
    let db = Database::empty().await;
    let tests = Command::new("node")
        .args(["--test", "--test-reporter=spec", "suite.test.mjs"])
        .current_dir(folder)
        .env("VESTIBULE_BIN", program::path())
        .env("VESTIBULE_CLIENTS_POSTGRES", db.url())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let tests = timeout(A_WHILE, tests).await.expect("the tests end").unwrap();
    let said = String::from_utf8_lossy(&tests.stdout);
    let errors = String::from_utf8_lossy(&tests.stderr);
    let count = |name: &str| {
        let mut summary = said
            .lines()
            .filter_map(|line| line.strip_prefix("ℹ ")?.strip_prefix(name));
        summary.find_map(|rest| rest.trim().parse::<usize>().ok())
    };
    let (passed, all) = (count("pass "), count("tests "));
    assert!(
        tests.status.success() && passed == all && passed >= Some(AT_LEAST),
        "{passed:?} of {all:?} passed:\n{said}\n{errors}"
    );
}
