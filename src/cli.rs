//! The command line: one file a command. Exit codes: 0, 1 (failed at run time), 2 (wrong usage), 78 (configuration).

#![expect(clippy::print_stdout, reason = "what a command prints is what it is for")]

pub mod audit;
pub mod check;
pub mod dev;
pub mod explain;
pub mod import;
pub mod keys;
pub mod migrate;
pub mod openapi;
pub mod serve;
pub mod session;
pub mod test;
pub mod user;

mod argument;
mod descriptors;
mod operator;
mod output;
mod page;

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand};

use crate::{
    app::memory,
    chain::Chain,
    config::{self, Config, Overrides},
    server::tls::Tls,
    telemetry::panics,
};

/// Wrong usage; clap's own code for it.
pub const EXIT_USAGE: u8 = 2;
/// The configuration is wrong (EX_CONFIG of sysexits.h).
pub const EXIT_CONFIG: u8 = 78;

/// A reverse-proxy auth gateway: it serves every auth route itself and forwards authenticated requests to unchanged
/// backends, with the identity in headers.
#[derive(Debug, Parser)]
#[command(name = "vestibule", version, propagate_version = true, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the gateway
    Serve(serve::ServeArgs),
    /// Run everything on this machine: the gateway, a private Postgres, a mail inbox, an upstream
    Dev(dev::DevArgs),
    /// Check the configuration and print every error in it
    Check(check::CheckArgs),
    /// Say what would happen to a request: which route, what it demands, what the upstream would receive
    Explain(explain::ExplainArgs),
    /// Check that requests are decided as a file expects: for continuous integration
    Test(test::TestArgs),
    /// Bring the database up to date
    Migrate(migrate::MigrateArgs),
    /// Print the description of the auth API (OpenAPI 3.1)
    Openapi(openapi::OpenapiArgs),
    /// Look after users
    User(user::UserArgs),
    /// Look after sessions
    Session(session::SessionArgs),
    /// Look after the keys that sign assertions
    Keys(keys::KeysArgs),
    /// Read the audit log: who did what, from where, and how it ended
    Audit(audit::AuditArgs),
    /// Take over the users of another server
    Import(import::ImportArgs),
}

/// Where the configuration is; common to all commands.
#[derive(Args, Debug)]
pub struct ConfigArg {
    /// The configuration file
    #[arg(long, short, value_name = "FILE", default_value = "gateway.toml")]
    pub config: PathBuf,
}

impl ConfigArg {
    /// Loads it, or prints what is wrong with it.
    pub fn load(&self) -> Result<Config, ExitCode> {
        config::load(&self.config, &Overrides::default()).map_err(|errors| {
            eprintln!("{errors}");
            ExitCode::from(EXIT_CONFIG)
        })
    }

    /// As [`Self::load`], and certificates can be loaded: a gateway could start with it.
    pub fn load_to_serve(&self) -> Result<Config, ExitCode> {
        let config = self.load()?;
        if let Some(settings) = &config.server.tls
            && let Err(error) = Tls::check(settings)
        {
            eprintln!("{}", error.in_config(settings));
            return Err(ExitCode::from(EXIT_CONFIG));
        }
        Ok(config)
    }
}

/// Runs a command to its end.
pub fn run(cli: Cli) -> ExitCode {
    panics::say_no_values();
    // Of the two that go on, `serve` may be told otherwise, and `dev` is for looking at.
    if !matches!(cli.command, Command::Serve(_) | Command::Dev(_)) {
        memory::keep_to_itself();
    }
    let outcome = match cli.command {
        Command::Serve(args) => serve::run(&args),
        Command::Dev(args) => dev::run(&args),
        Command::Check(args) => Ok(check::run(&args)),
        Command::Explain(args) => explain::run(&args),
        Command::Test(args) => test::run(&args),
        Command::Migrate(args) => migrate::run(&args),
        Command::Openapi(args) => openapi::run(&args),
        Command::User(args) => user::run(&args),
        Command::Session(args) => session::run(&args),
        Command::Keys(args) => keys::run(&args),
        Command::Audit(args) => audit::run(&args),
        Command::Import(args) => import::run(&args),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("vestibule: {}", Chain(error.as_ref()));
        ExitCode::FAILURE
    })
}

/// A runtime for work that isn't the data path's.
pub fn cold_runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("cold")
        .enable_all()
        .build()
}
