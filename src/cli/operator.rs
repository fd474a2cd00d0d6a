//! What the commands share by which operators look after users and sessions.
//!
//! They work on the database, whether a gateway runs or not; triggers tell the gateways that do. What they change is in
//! the audit log, in the same transaction: without an actor, from no address, by `vestibule-cli/<version>`.
//!
//! A command fails in words that say what, where, and how to mend it: wrong usage with 2, a wrong configuration with 78,
//! anything else with 1.

use std::{io::IsTerminal, process::ExitCode, time::Duration};

use anyhow::{Context, anyhow};
use clap::Args;
use serde::Serialize;
use uuid::Uuid;

use super::{
    ConfigArg, EXIT_USAGE,
    argument::Who,
    cold_runtime,
    output::{self, plain},
};
use crate::{
    app,
    clock::{Clock, Timestamp},
    config::{self, Config},
    db::{
        Client, Connector, Db, DbError, GenericClient, Transaction, audit,
        migrate::{self, SchemaState},
        users::{self, User},
    },
};

/// For every operator's command.
#[derive(Args, Debug)]
pub(super) struct OperatorArgs {
    #[command(flatten)]
    config: ConfigArg,
    /// JSON for scripts, instead of what people read
    #[arg(long)]
    json: bool,
}

/// Why a command ends early.
#[derive(Debug)]
pub(super) enum Stop {
    /// The arguments parse, but ask for nothing that can be done.
    Usage(String),
    Failed(anyhow::Error),
}

impl From<anyhow::Error> for Stop {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}

impl From<DbError> for Stop {
    fn from(error: DbError) -> Self {
        Self::Failed(error.into())
    }
}

/// What a command has at hand.
#[derive(Debug)]
pub(super) struct Operator {
    pub(super) config: Config,
    /// Read once: all that a command does happens at one time.
    pub(super) now: Timestamp,
    db: Db,
    json: bool,
    user_agent: String,
    request_id: String,
}

/// Runs `work` with a database whose schema is what this program knows.
pub(super) fn run(
    args: &OperatorArgs,
    work: impl AsyncFnOnce(&Operator) -> Result<ExitCode, Stop>,
) -> anyhow::Result<ExitCode> {
    let config = match args.config.load() {
        Ok(config) => config,
        Err(code) => return Ok(code),
    };
    let runtime = cold_runtime().context("can't start a runtime")?;
    let outcome = runtime.block_on(async {
        let operator = Operator::connect(config, args.json).await?;
        work(&operator).await
    });
    match outcome {
        Ok(code) => Ok(code),
        Err(Stop::Failed(error)) => Err(error),
        Err(Stop::Usage(problem)) => {
            eprintln!("vestibule: {problem}");
            Ok(ExitCode::from(EXIT_USAGE))
        }
    }
}

/// What operators ask may take longer than what a request asks: a search reads every user.
const PATIENCE: Duration = Duration::from_mins(1);

impl Operator {
    async fn connect(config: Config, json: bool) -> Result<Self, Stop> {
        let mut settings = app::settings(&config);
        settings.statement_timeout = settings.statement_timeout.max(PATIENCE);
        let connector = Connector::new(&settings, tokio::runtime::Handle::current()).context("database.url")?;
        let schema = &config.database.schema;
        let state = migrate::check(&connector, schema).await.context("database.url")?;
        if let SchemaState::Missing(missing) = state {
            let missing = missing.join(", ");
            return Err(anyhow!("the schema {schema} lacks {missing}: run `vestibule migrate`").into());
        }
        let version = env!("CARGO_PKG_VERSION");
        Ok(Self {
            now: Clock::System.now(),
            db: connector.pools(&settings).context("database.url")?,
            json,
            user_agent: match config::operator() {
                Some(name) => format!("vestibule-cli/{version} ({name})"),
                None => format!("vestibule-cli/{version}"),
            },
            request_id: format!("cli-{}", Uuid::now_v7()),
            config,
        })
    }

    pub(super) async fn client(&self) -> Result<Client, DbError> {
        self.db.client().await
    }

    /// Notes what is done, in the transaction that does it.
    pub(super) async fn audit(&self, tx: &impl GenericClient, entry: &audit::Entry<'_>) -> Result<(), DbError> {
        let origin = audit::Origin {
            ip_address: None,
            user_agent: &self.user_agent,
            request_id: &self.request_id,
        };
        let entry = audit::Entry { actor: None, ..*entry };
        audit::insert(tx, Uuid::now_v7(), &entry, origin, self.now).await
    }

    /// Prints the one or the other; only what is printed is made.
    pub(super) fn print<T: Serialize>(
        &self,
        for_scripts: impl FnOnce() -> T,
        for_people: impl FnOnce() -> String,
    ) -> Result<(), Stop> {
        let text = if self.json {
            output::json(&for_scripts())?
        } else {
            for_people()
        };
        Ok(output::print(&text)?)
    }
}

/// Whom the argument names.
pub(super) async fn find(client: &impl GenericClient, who: &Who) -> Result<User, Stop> {
    let found = match who {
        Who::Id(id) => users::by_id(client, *id).await?,
        Who::Email(email) => users::by_email(client, email).await?,
    };
    found.ok_or_else(|| nobody(who))
}

/// As [`find`], and nobody else changes the user until the transaction ends.
pub(super) async fn lock(tx: &Transaction<'_>, who: &Who) -> Result<User, Stop> {
    let id = find(tx, who).await?.id;
    users::lock(tx, id).await?.ok_or_else(|| nobody(who))
}

fn nobody(who: &Who) -> Stop {
    let error = match who {
        Who::Id(id) => anyhow!("no user has the id {id}: `vestibule user list` shows who there is"),
        Who::Email(email) => anyhow!(
            "no user has the address {}: `vestibule user list --search TEXT` finds similar ones",
            plain(email)
        ),
    };
    Stop::Failed(error)
}

/// Asks on the terminal. Where nobody can be asked, not to have said so is wrong usage.
pub(super) fn confirm(question: &str) -> Result<(), Stop> {
    if !has_terminal() {
        return Err(Stop::Usage("there is no terminal to ask on: say --yes".to_owned()));
    }
    let agreed = dialoguer::Confirm::new()
        .with_prompt(plain(question))
        .default(false)
        .interact()
        .context("can't ask on this terminal: say --yes")?;
    if agreed {
        Ok(())
    } else {
        Err(Stop::Failed(anyhow!("nothing was changed")))
    }
}

/// Whether somebody can be asked.
pub(super) fn has_terminal() -> bool {
    std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
}
