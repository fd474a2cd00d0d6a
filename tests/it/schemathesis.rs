//! The auth API against its own description, by a program that tries what people don't think of: `schemathesis` makes
//! requests out of openapi.json, right ones and wrong ones, and looks whether the answers are among those described.
//!
//! Without a session, and with one: then each request has a user of its own (`tests/clients/schemathesis/hooks.py`), so
//! that an endpoint that ends the session or the user takes part like any other.

use std::{path::Path, process::Stdio};

use serde_json::json;
use tokio::process::Command;

use crate::harness::{
    Database, Setup,
    mailbox::Mailbox,
    program::{Program, free_port},
    provider::Provider,
    schemathesis::python,
    upstream::Upstream,
};

/// Each run tries the same.
const SEED: &str = "20261121";

/// Of an endpoint in a run; what it is about besides is tried in any case.
const EXAMPLES: &str = "30";

/// Python 3.11 can't parse Python in two threads at once without failing now and then ("AST constructor recursion depth
/// mismatch"), and the program parses its own.
const WORKERS: &str = "1";

/// Those that do not fit: that every right request succeeds (one needs the right password for that, and the right
/// token), that another method is 405 (the contract says 404), and those that follow resources through their life.
const EXCLUDED: &str = "positive_data_acceptance,unsupported_method,use_after_free,ensure_resource_availability,\
                        object_level_authorization";

#[tokio::test]
async fn nothing_undescribed_is_answered_without_a_session() {
    run(&[]).await;
}

#[tokio::test]
async fn nothing_undescribed_is_answered_with_a_session() {
    run(&[("SCHEMATHESIS_HOOKS", "hooks")]).await;
}

async fn run(variables: &[(&str, &str)]) {
    let db = Database::fresh().await;
    let (mailbox, upstream) = (Mailbox::start().await, Upstream::start().await);
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("gateway.toml");
    let port = free_port();
    let site = format!("http://127.0.0.1:{port}");
    // As the examples call it.
    let google = Provider::oidc().await.client_with("google", &site, json!({})).await;
    let setup = Setup::default().with(&google.toml()).with(&format!(
        "[server]\nlisten = '127.0.0.1:{port}'\npublic_url = '{site}'\n\
         [auth.email_verification]\nrequired = false"
    ));
    std::fs::write(&config, setup.text(&db, mailbox.addr(), upstream.addr())).unwrap();
    let (gateway, ..) = Program::serve(&config).await;

    let api = format!("{site}/api/auth");
    let ours = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/schemathesis");
    let tried = Command::new(python())
        .args(["-m", "schemathesis.cli", "--config-file"])
        .arg(ours.join("schemathesis.toml"))
        .args(["run", "--no-color"])
        .args(["--phases", "examples,coverage,fuzzing", "--mode", "all"])
        .args(["--exclude-checks", EXCLUDED])
        .args(["--seed", SEED, "--generation-database", "none"])
        .args([
            "--max-examples",
            EXAMPLES,
            "--workers",
            WORKERS,
            "--request-timeout",
            "20",
        ])
        .args([
            "--continue-on-failure",
            "--warnings",
            "off",
            "--suppress-health-check",
            "all",
        ])
        .args(["--header", &format!("Origin: {site}")])
        .arg(format!("{api}/openapi.json"))
        .envs(variables.iter().copied())
        .env("VESTIBULE_API", &api)
        .env("PYTHONPATH", ours)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&tried.stdout);
    let log = gateway.output();
    let failed = log.lines().filter(|line| line.contains("\"level\":\"ERROR\""));
    assert!(
        tried.status.success(),
        "{said}\n{}\n{}",
        String::from_utf8_lossy(&tried.stderr),
        failed.collect::<Vec<_>>().join("\n")
    );
    assert!(said.contains("Test cases:"), "{said}");
}
