//! `vestibule keys …`: the keys that sign assertions.
//!
//! Whether a gateway runs or not; those that do are told by a trigger. Private keys are nowhere to be seen.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde::Serialize;

use super::{
    operator::{self, Operator, OperatorArgs, Stop, confirm},
    output::{Table, Width, or_nothing, time},
};
use crate::{
    clock::Timestamp,
    db::{
        self, audit,
        signing_keys::{self, StoredKey},
    },
    secret::sealed::SealingKeys,
    session::assertion::{
        keys::SigningKey,
        rotation::{self, Turn},
    },
};

#[derive(Args, Debug)]
pub struct KeysArgs {
    #[command(subcommand)]
    command: KeysCommand,
}

#[derive(Debug, Subcommand)]
enum KeysCommand {
    /// List the keys that are published, the next to sign last
    List(ListArgs),
    /// Make a new key, which is published now and signs once everybody can have it
    Rotate(RotateArgs),
}

#[derive(Args, Debug)]
struct ListArgs {
    #[command(flatten)]
    operator: OperatorArgs,
}

#[derive(Args, Debug)]
struct RotateArgs {
    #[command(flatten)]
    operator: OperatorArgs,
    /// The new key signs now and all others are withdrawn: for when somebody else has one of them. Upstreams refuse
    /// assertions until they have fetched the keys anew
    #[arg(long)]
    at_once: bool,
    /// Don't ask
    #[arg(long, short)]
    yes: bool,
}

pub fn run(args: &KeysArgs) -> anyhow::Result<ExitCode> {
    match &args.command {
        KeysCommand::List(args) => operator::run(&args.operator, async |op| list(op).await),
        KeysCommand::Rotate(args) => operator::run(&args.operator, async |op| rotate(op, args).await),
    }
}

/// A key for scripts.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct KeyView<'a> {
    kid: &'a str,
    algorithm: &'a str,
    state: &'static str,
    created_at: String,
    activates_at: String,
    retires_at: Option<String>,
    expires_at: Option<String>,
}

impl<'a> KeyView<'a> {
    fn of(key: &'a StoredKey, sealing: &SealingKeys, now: Timestamp) -> Self {
        Self {
            kid: &key.kid,
            algorithm: &key.algorithm,
            state: state(key, sealing, now),
            created_at: key.created_at.rfc3339(),
            activates_at: key.activates_at.rfc3339(),
            retires_at: key.retires_at.map(Timestamp::rfc3339),
            expires_at: key.expires_at.map(Timestamp::rfc3339),
        }
    }
}

/// What a key is good for at the moment.
fn state(key: &StoredKey, sealing: &SealingKeys, now: Timestamp) -> &'static str {
    if SigningKey::open(key, sealing).is_none() {
        "sealed"
    } else if now < key.activates_at {
        "next"
    } else if key.signs_at(now) {
        "signs"
    } else {
        "verifies"
    }
}

const COLUMNS: &[(&str, Width)] = &[
    ("kid", Width::Whole),
    ("algorithm", Width::Whole),
    ("state", Width::Whole),
    ("signs from (UTC)", Width::Whole),
    ("until (UTC)", Width::Whole),
    ("published until (UTC)", Width::Whole),
];

fn table(keys: &[StoredKey], sealing: &SealingKeys, now: Timestamp) -> String {
    if keys.is_empty() {
        return "none\n".to_owned();
    }
    let mut table = Table::new(COLUMNS);
    for key in keys {
        table.row([
            key.kid.clone(),
            key.algorithm.clone(),
            state(key, sealing, now).to_owned(),
            time(key.activates_at),
            or_nothing(key.retires_at.map(time)),
            or_nothing(key.expires_at.map(time)),
        ]);
    }
    table.render()
}

fn sealing(operator: &Operator) -> SealingKeys {
    let secrets = operator.config.auth.secret.iter();
    SealingKeys::new(secrets.map(|secret| secret.expose().as_bytes()))
}

async fn list(operator: &Operator) -> Result<ExitCode, Stop> {
    let sealing = sealing(operator);
    let client = operator.client().await?;
    let keys = signing_keys::load(&client, operator.now).await?;
    let view = |key| KeyView::of(key, &sealing, operator.now);
    operator.print(
        || keys.iter().map(view).collect::<Vec<_>>(),
        || table(&keys, &sealing, operator.now),
    )?;
    if keys.iter().any(|key| state(key, &sealing, operator.now) == "sealed") {
        eprintln!(
            "vestibule: a key that is \"sealed\" was sealed with another auth.secret than this configuration has"
        );
    }
    Ok(ExitCode::SUCCESS)
}

async fn rotate(operator: &Operator, args: &RotateArgs) -> Result<ExitCode, Stop> {
    let turn = if args.at_once { Turn::AtOnce } else { Turn::Published };
    if !args.yes {
        confirm(match turn {
            Turn::Published => "Make a new key? It signs in ten minutes; nobody notices.",
            Turn::AtOnce => "Withdraw all keys? Upstreams refuse every assertion until they have fetched the new one.",
        })?;
    }
    let sealing = sealing(operator);
    let mut client = operator.client().await?;
    let algorithm = operator.config.identity.assertion.algorithm;
    let tx = db::begin(&mut client).await?;
    let key = rotation::rotate(&tx, &sealing, algorithm, turn, operator.now).await?;
    let entry = audit::Entry {
        action: audit::Action::RotateKeys,
        outcome: audit::Outcome::Done,
        reason: (turn == Turn::AtOnce).then_some("at once"),
        actor: None,
        subject: None,
        email: None,
        session: None,
    };
    operator.audit(&tx, &entry).await?;
    db::commit(tx).await?;
    operator.print(
        || KeyView::of(&key, &sealing, operator.now),
        || match turn {
            Turn::Published => format!(
                "made {}: it is published now and signs from {} UTC\n",
                key.kid,
                time(key.activates_at)
            ),
            Turn::AtOnce => format!("made {}: it signs now, and all others are withdrawn\n", key.kid),
        },
    )?;
    Ok(ExitCode::SUCCESS)
}
