//! An operator's desk: the real program, beside a gateway that runs on the same database.

use std::path::PathBuf;

use serde_json::Value;
use tempfile::TempDir;
use vestibule::clock::Clock;

use super::{
    Database, Gateway, Setup,
    program::{Ended, run, run_with_input},
};

/// Whom the environment names as the one who types.
pub(crate) const OPERATOR: (&str, &str) = ("SUDO_USER", "grace");

pub(crate) struct Desk {
    pub(crate) gateway: Gateway,
    folder: TempDir,
    config: PathBuf,
}

impl Desk {
    pub(crate) async fn new() -> Self {
        Self::on(&Database::fresh().await).await
    }

    /// The program has no clock but the system's; so the gateway goes by it too.
    pub(crate) async fn on(db: &Database) -> Self {
        let gateway = Setup::default().clock(&Clock::System).start_on(db).await;
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("gateway.toml");
        let text = Setup::default().text(db, gateway.mailbox().addr(), gateway.upstream().addr());
        std::fs::write(&config, text).unwrap();
        Self {
            gateway,
            folder,
            config,
        }
    }

    /// Runs a command, however it ends.
    pub(crate) async fn run(&self, args: &[&str]) -> Ended {
        let config = self.config.to_str().unwrap();
        let args = [args, &["--config", config]].concat();
        checked(&args, run(&args, &[OPERATOR], self.folder.path()).await)
    }

    pub(crate) async fn run_with_input(&self, args: &[&str], input: &str) -> Ended {
        let config = self.config.to_str().unwrap();
        let args = [args, &["--config", config]].concat();
        checked(
            &args,
            run_with_input(&args, &[OPERATOR], self.folder.path(), input).await,
        )
    }

    /// What people read, of a command that succeeds.
    pub(crate) async fn says(&self, args: &[&str]) -> String {
        let ended = self.run(args).await;
        assert_eq!(ended.code, Some(0), "{args:?}: {}", ended.stderr);
        ended.stdout
    }

    /// What scripts read, of a command that succeeds.
    pub(crate) async fn json(&self, args: &[&str]) -> Value {
        let text = self.says(&[args, &["--json"]].concat()).await;
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{args:?}: {error}\n{text}"))
    }

    /// How it ended that a command failed.
    pub(crate) async fn refused(&self, args: &[&str], code: i32) -> String {
        let ended = self.run(args).await;
        assert_eq!(ended.code, Some(code), "{args:?}: {}{}", ended.stdout, ended.stderr);
        assert!(!ended.stderr.is_empty(), "{args:?} says nothing");
        ended.stderr
    }
}

/// Whatever happens: no panic, and nothing that a terminal would obey.
fn checked(args: &[&str], ended: Ended) -> Ended {
    for output in [&ended.stdout, &ended.stderr] {
        assert!(!output.contains("panicked"), "{args:?}:\n{output}");
        let obeyed = output.chars().find(|c| c.is_control() && *c != '\n');
        assert_eq!(obeyed, None, "{args:?}:\n{output:?}");
    }
    ended
}

/// The keys of an object, sorted.
#[track_caller]
pub(crate) fn keys(object: &Value) -> Vec<&str> {
    let mut keys: Vec<&str> = object
        .as_object()
        .expect("an object")
        .keys()
        .map(String::as_str)
        .collect();
    keys.sort_unstable();
    keys
}

#[track_caller]
pub(crate) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}"))
}
