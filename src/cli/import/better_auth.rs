//! `vestibule import better-auth`: users, passwords, linked accounts and sessions out of a better-auth database.
//!
//! The source is read in one snapshot and never written. Here each batch is a transaction that compares before it writes
//! (`db::imports`): killed anywhere and started again, the end is the same. Users come first, then what is theirs.
//! Memory is bounded by the batch, and by what is left out.

use std::{process::ExitCode, time::Duration};

use anyhow::{Context, anyhow, bail};
use clap::Args;
use indicatif::ProgressBar;

use super::{
    failure, ids,
    provider_tokens::Sealer,
    report::{Counts, Kind, Outcome, Report},
    rows::{self, Judged, Left, Reason},
    source::{self, STATEMENT_TIMEOUT, Source},
    tables::Names,
};
use crate::{
    app,
    cli::{ConfigArg, EXIT_USAGE, argument, cold_runtime, output},
    clock::{Clock, Timestamp, monotonic},
    config::{self, Config, Migrate},
    db::{
        self, Client, Connector, DbError, GenericClient, Pooler, Settings,
        imports::{self, Found, ImportedAccount, ImportedUser, Standing},
        migrate::{self, SchemaState},
        sessions::StoredSession,
    },
};

/// For connecting to either side: somebody waits and watches.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A batch is written again if somebody took one of its names meanwhile, or Postgres asks for it.
const ATTEMPTS: u32 = 5;

/// Users who may be left out: with more of them this is no better-auth database, and they are remembered.
const MOST_LEFT: usize = 100_000;

#[derive(Args, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "flags of a command line")]
pub(super) struct BetterAuthArgs {
    #[command(flatten)]
    config: ConfigArg,
    /// The better-auth database, as a Postgres URL; "-" reads it from standard input, out of the sight of others
    #[arg(long, value_name = "URL")]
    from: String,
    /// The schema in which its tables are
    #[arg(long, value_name = "SCHEMA", default_value = "public")]
    source_schema: String,
    /// A table that has a name of its own, as user=app_users; again for another
    #[arg(long, value_name = "MODEL=TABLE")]
    table: Vec<String>,
    /// A column that has a name of its own, as user.email=mail; again for another
    #[arg(long, value_name = "MODEL.FIELD=COLUMN")]
    column: Vec<String>,
    /// Rows read and written at once
    #[arg(long, value_name = "ROWS", default_value_t = 2_000, value_parser = clap::value_parser!(u16).range(1..=20_000))]
    batch_size: u16,
    /// Leave sessions behind: everybody signs in again
    #[arg(long)]
    without_sessions: bool,
    /// Take over users who have a second factor too, without it: from then on their password alone signs them in
    #[arg(long)]
    drop_second_factors: bool,
    /// Read everything and say what would happen, but write nothing
    #[arg(long)]
    dry_run: bool,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &BetterAuthArgs) -> anyhow::Result<ExitCode> {
    let config = match args.config.load() {
        Ok(config) => config,
        Err(code) => return Ok(code),
    };
    let names = match Names::read(&args.table, &args.column) {
        Ok(names) => names,
        Err(wrong) => return Ok(wrong_usage(&wrong)),
    };
    let runtime = cold_runtime().context("can't start a runtime")?;
    runtime.block_on(async {
        let settings = Settings {
            url: argument::url(&args.from)?,
            listen_url: None,
            ca: None,
            pooler: Pooler::None,
            pool_size: 1,
            acquire_timeout: CONNECT_TIMEOUT,
            statement_timeout: STATEMENT_TIMEOUT,
            // Names are qualified; what they could mean else is nobody's business.
            schema: "pg_catalog".to_owned(),
        };
        let Ok(connector) = Connector::new(&settings, tokio::runtime::Handle::current()) else {
            // Not with the parser's words: they may repeat a part of a password.
            return Ok(wrong_usage(
                "--from is no Postgres URL; is a character of the password not percent-encoded?",
            ));
        };
        let foreign = connector.pools(&settings)?;
        let target = target(&config, args.dry_run).await?;

        // Held until the end, and the lock with it.
        let locked = connected(&target, "the gateway's database").await?;
        let schema = &config.database.schema;
        if !imports::lock(&locked, schema).await? {
            bail!("another import into schema {schema} is at work");
        }
        let mut reading = connected(&foreign, "the source").await?;
        let snapshot = source::begin(&mut reading).await?;
        let is_same_database = !imports::lock_briefly(&snapshot, schema).await.map_err(failure::of_db)?;
        if is_same_database && args.source_schema == *schema {
            return Ok(wrong_usage("the source is the gateway's own schema"));
        }
        let source = Source::find(snapshot, &args.source_schema, &names, !args.without_sessions).await?;
        let begin = monotonic();
        let import = Import {
            target: connected(&target, "the gateway's database").await?,
            at_most: i64::from(args.batch_size),
            second_factors: if args.drop_second_factors {
                SecondFactors::Drop
            } else {
                SecondFactors::LeaveUsers
            },
            cost: config.auth.password.argon2,
            sealer: Sealer::new(&config),
            now: Clock::System.now(),
            bar: ProgressBar::new(total(&source).await?),
            left: Left::new(),
            report: Report::new(args.dry_run),
        };
        let mut report = import.run(&source).await?;
        report.took = begin.elapsed();
        output::print(&if args.json {
            output::json(&report.json())?
        } else {
            format!("{report}\n")
        })?;
        Ok(ExitCode::SUCCESS)
    })
}

fn wrong_usage(wrong: &str) -> ExitCode {
    eprintln!("vestibule: {wrong}");
    ExitCode::from(EXIT_USAGE)
}

/// The gateway's database, with the schema that this program knows.
async fn target(config: &Config, dry_run: bool) -> anyhow::Result<db::Db> {
    let settings = Settings {
        acquire_timeout: CONNECT_TIMEOUT.max(config.database.acquire_timeout),
        // A batch is more than a request of somebody's.
        statement_timeout: config.database.statement_timeout.max(Duration::from_mins(1)),
        ..app::direct_settings(config)
    };
    let connector = Connector::new(&settings, tokio::runtime::Handle::current())?;
    let schema = &config.database.schema;
    if config.database.migrate == Migrate::OnStart && !dry_run {
        migrate::run(&connector, schema).await?;
    } else if let SchemaState::Missing(missing) = migrate::check(&connector, schema).await? {
        bail!(
            "schema {schema} lacks {}: bring it up to date with `vestibule migrate`",
            missing.join(", ")
        );
    }
    Ok(connector.pools(&settings)?)
}

async fn connected(db: &db::Db, what: &str) -> anyhow::Result<Client> {
    let client = db.client().await;
    client
        .map_err(failure::of_db)
        .with_context(|| format!("could not connect to {what}"))
}

/// All rows there are to read.
async fn total(source: &Source<'_>) -> anyhow::Result<u64> {
    let mut total = source.count(&source.user).await? + source.count(&source.account).await?;
    if let Some(session) = &source.session {
        total += source.count(session).await?;
    }
    Ok(total)
}

/// What becomes of users who have a second factor, which can't be taken along.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum SecondFactors {
    /// They stay behind: nobody is to be guarded less than before without being asked.
    LeaveUsers,
    Drop,
}

/// A run.
struct Import<'c> {
    target: Client,
    at_most: i64,
    second_factors: SecondFactors,
    cost: config::Argon2,
    /// For tokens of providers.
    sealer: Sealer<'c>,
    now: Timestamp,
    /// Shown on a terminal alone.
    bar: ProgressBar,
    left: Left,
    report: Report,
}

impl Import<'_> {
    async fn run(mut self, source: &Source<'_>) -> anyhow::Result<Report> {
        self.users(source).await?;
        self.accounts(source).await?;
        self.sessions(source).await?;
        self.report.passkeys = source.passkeys().await?;
        self.bar.finish_and_clear();
        Ok(self.report)
    }

    async fn users(&mut self, source: &Source<'_>) -> anyhow::Result<()> {
        let mut shared = source.users_of_shared_addresses().await?;
        shared.sort_unstable();
        let mut after = None;
        loop {
            let page = source.users(after.as_deref(), self.at_most).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = Some(last.id.clone());
            let mut batch = Batch::default();
            for row in page {
                let (id, two_factor) = (row.id.clone(), row.two_factor);
                let mut judged = if shared.binary_search(&id).is_ok() {
                    Err(Reason::AddressShared)
                } else {
                    rows::user(row)
                };
                if two_factor
                    && self.second_factors == SecondFactors::LeaveUsers
                    && let Ok((user, changes)) = &mut judged
                {
                    // Who came before it was there: the old password, role or lack of a ban would guard them even less.
                    user.may_be_new = false;
                    changes.push(Reason::SecondFactorSince);
                }
                self.sort_in(&mut batch, id, two_factor, judged)?;
            }
            self.store(batch).await?;
        }
    }

    async fn accounts(&mut self, source: &Source<'_>) -> anyhow::Result<()> {
        let mut replaced = source.replaced_accounts().await?;
        replaced.sort_unstable();
        let mut after = None;
        loop {
            let page = source.accounts(after.as_deref(), self.at_most).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = Some(last.id.clone());
            let mut batch = Batch::default();
            for row in page {
                let id = row.id.clone();
                let judged = if replaced.binary_search(&id).is_ok() {
                    Err(Reason::AccountReplaced)
                } else {
                    rows::account(row, &self.left, self.cost, &self.sealer)
                };
                let has_left_token = matches!(&judged, Ok((_, changes)) if changes.contains(&Reason::TokenLeft));
                self.sort_in(&mut batch, id, has_left_token, judged)?;
            }
            self.store(batch).await?;
        }
    }

    async fn sessions(&mut self, source: &Source<'_>) -> anyhow::Result<()> {
        let Some(table) = &source.session else { return Ok(()) };
        let mut after = None;
        loop {
            let page = source.sessions(table, after.as_deref(), self.at_most).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = Some(last.id.clone());
            let mut batch = Batch::default();
            for row in page {
                let id = row.id.clone();
                let judged = rows::session(row, &self.left, self.now);
                self.sort_in(&mut batch, id, false, judged)?;
            }
            self.store(batch).await?;
        }
    }

    /// Takes a row into the batch, or notes why not.
    fn sort_in<T: Importable>(
        &mut self,
        batch: &mut Batch<T>,
        id: String,
        is_in_part: bool,
        judged: Judged<T>,
    ) -> anyhow::Result<()> {
        self.report.counts(T::KIND).read += 1;
        match judged {
            Ok((row, changes)) => {
                batch.origins.push(Origin {
                    id,
                    changes,
                    is_in_part,
                });
                batch.rows.push(row);
                Ok(())
            }
            Err(reason) => self.leave_out(T::KIND, &id, reason),
        }
    }

    fn leave_out(&mut self, kind: Kind, id: &str, reason: Reason) -> anyhow::Result<()> {
        self.bar.inc(1);
        self.report.left_out(kind, id, reason);
        if kind == Kind::Users {
            self.left.insert(ids::user(id));
            if self.left.len() > MOST_LEFT {
                bail!(
                    "more than {MOST_LEFT} users can't be imported, the last because: {}",
                    reason.text()
                );
            }
        }
        Ok(())
    }

    /// Writes the batch, and counts what became of each row.
    async fn store<T: Importable>(&mut self, batch: Batch<T>) -> anyhow::Result<()> {
        if batch.rows.is_empty() {
            return Ok(());
        }
        let mut attempt = 1;
        let found = loop {
            match self.try_to_store(&batch.rows).await {
                Ok(found) => break found,
                Err(error) if attempt < ATTEMPTS && error.may_pass() => attempt += 1,
                Err(error) => return Err(error.told().context(format!("could not write {}", T::KIND.name()))),
            }
        };
        for (origin, found) in batch.origins.iter().zip(found) {
            let Origin { id, changes, .. } = origin;
            let counts: &mut Counts = self.report.counts(T::KIND);
            let left = match found.standing {
                Standing::New => {
                    counts.new += 1;
                    None
                }
                Standing::Newer | Standing::AccessNewer => {
                    counts.updated += 1;
                    None
                }
                Standing::Known => {
                    counts.known += 1;
                    None
                }
                Standing::NotHere => Some(Reason::SecondFactor),
                Standing::AddressTaken => Some(Reason::AddressTaken),
                Standing::Taken => Some(T::TAKEN),
            };
            if let Some(reason) = left {
                self.leave_out(T::KIND, id, reason)?;
                continue;
            }
            self.bar.inc(1);
            if origin.is_in_part {
                self.report.came_in_part(T::KIND);
            }
            for reason in changes.iter().copied().chain(found.kept.into_iter().map(Reason::of)) {
                self.report.note(Outcome::Changed, T::KIND, id, reason);
            }
        }
        Ok(())
    }

    /// One transaction; of a dry run only its first half.
    async fn try_to_store<T: Importable>(&mut self, rows: &[T]) -> Result<Vec<Found>, StoreError> {
        let (dry_run, now) = (self.report.dry_run, self.now);
        let tx = db::begin(&mut self.target).await?;
        let found = T::compare(&tx, rows, now).await?;
        if dry_run {
            return Ok(found);
        }
        let of = |wanted| {
            let pairs = rows.iter().zip(&found);
            let chosen: Vec<&T> = pairs
                .filter(|(_, found)| found.standing == wanted)
                .map(|(row, _)| row)
                .collect();
            chosen
        };
        for write in [Write::Insert, Write::Update, Write::UpdateAccess] {
            let chosen = of(match write {
                Write::Insert => Standing::New,
                Write::Update => Standing::Newer,
                Write::UpdateAccess => Standing::AccessNewer,
            });
            if !chosen.is_empty() && T::write(&tx, write, &chosen, now).await? != chosen.len() as u64 {
                return Err(StoreError::Overtaken);
            }
        }
        db::commit(tx).await?;
        Ok(found)
    }
}

#[derive(Debug, thiserror::Error)]
enum StoreError {
    #[error("rows changed between being compared and being written")]
    Overtaken,
    #[error(transparent)]
    Db(#[from] DbError),
}

impl StoreError {
    const fn may_pass(&self) -> bool {
        matches!(
            self,
            Self::Overtaken | Self::Db(DbError::Unavailable(_) | DbError::Conflict { .. })
        )
    }

    fn told(self) -> anyhow::Error {
        match self {
            Self::Db(error) => failure::of_db(error),
            other @ Self::Overtaken => anyhow!(other),
        }
    }
}

/// Rows to be written together, and where each is from.
struct Batch<T> {
    origins: Vec<Origin>,
    rows: Vec<T>,
}

/// What there is to say of a row that comes over.
struct Origin {
    /// The old one.
    id: String,
    changes: Vec<Reason>,
    /// It has something there that can't be taken along.
    is_in_part: bool,
}

impl<T> Default for Batch<T> {
    fn default() -> Self {
        Self {
            origins: Vec::new(),
            rows: Vec::new(),
        }
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Write {
    Insert,
    Update,
    /// Of users alone.
    UpdateAccess,
}

/// The three kinds of row that are imported.
trait Importable: Sized {
    const KIND: Kind;
    /// What it means that somebody else has the name of one.
    const TAKEN: Reason;

    async fn compare(client: &impl GenericClient, rows: &[Self], now: Timestamp) -> Result<Vec<Found>, DbError>;
    async fn write(client: &impl GenericClient, write: Write, rows: &[&Self], now: Timestamp) -> Result<u64, DbError>;
}

impl Importable for ImportedUser {
    const KIND: Kind = Kind::Users;
    const TAKEN: Reason = Reason::IdTaken;

    async fn compare(client: &impl GenericClient, rows: &[Self], now: Timestamp) -> Result<Vec<Found>, DbError> {
        imports::compare_users(client, rows, now).await
    }

    async fn write(client: &impl GenericClient, write: Write, rows: &[&Self], now: Timestamp) -> Result<u64, DbError> {
        match write {
            Write::Insert => imports::insert_users(client, rows).await,
            Write::Update => imports::update_users(client, rows, now).await,
            Write::UpdateAccess => imports::update_access(client, rows, now).await,
        }
    }
}

impl Importable for ImportedAccount {
    const KIND: Kind = Kind::Accounts;
    const TAKEN: Reason = Reason::AccountTaken;

    async fn compare(client: &impl GenericClient, rows: &[Self], _: Timestamp) -> Result<Vec<Found>, DbError> {
        imports::compare_accounts(client, rows).await
    }

    async fn write(client: &impl GenericClient, write: Write, rows: &[&Self], _: Timestamp) -> Result<u64, DbError> {
        match write {
            Write::Insert => imports::insert_accounts(client, rows).await,
            Write::Update => imports::update_accounts(client, rows).await,
            Write::UpdateAccess => Ok(0),
        }
    }
}

impl Importable for StoredSession {
    const KIND: Kind = Kind::Sessions;
    const TAKEN: Reason = Reason::SessionTaken;

    async fn compare(client: &impl GenericClient, rows: &[Self], _: Timestamp) -> Result<Vec<Found>, DbError> {
        imports::compare_sessions(client, rows).await
    }

    async fn write(client: &impl GenericClient, write: Write, rows: &[&Self], _: Timestamp) -> Result<u64, DbError> {
        match write {
            Write::Insert => imports::insert_sessions(client, rows).await,
            Write::Update => imports::update_sessions(client, rows).await,
            Write::UpdateAccess => Ok(0),
        }
    }
}
