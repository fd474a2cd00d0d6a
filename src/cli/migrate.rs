//! `vestibule migrate`: brings the database up to date, for `database.migrate = "manual"`.

use std::process::ExitCode;

use anyhow::Context;
use clap::Args;

use super::{ConfigArg, cold_runtime};
use crate::{
    app,
    db::{Connector, migrate},
};

#[derive(Args, Debug)]
pub struct MigrateArgs {
    #[command(flatten)]
    config: ConfigArg,
    /// Only say what is missing; exits with 1 if something is
    #[arg(long)]
    dry_run: bool,
}

pub fn run(args: &MigrateArgs) -> anyhow::Result<ExitCode> {
    let config = match args.config.load() {
        Ok(config) => config,
        Err(code) => return Ok(code),
    };
    let runtime = cold_runtime().context("can't start a runtime")?;
    runtime.block_on(async {
        let connector = Connector::new(&app::settings(&config), tokio::runtime::Handle::current())?;
        let schema = &config.database.schema;
        if args.dry_run {
            return Ok(match migrate::check(&connector, schema).await? {
                migrate::SchemaState::UpToDate => {
                    println!("schema {schema}: up to date");
                    ExitCode::SUCCESS
                }
                migrate::SchemaState::Missing(missing) => {
                    for migration in missing {
                        println!("schema {schema}: missing {migration}");
                    }
                    ExitCode::FAILURE
                }
            });
        }
        let applied = migrate::run(&connector, schema).await?;
        for migration in &applied {
            println!("schema {schema}: applied {migration}");
        }
        println!("schema {schema}: up to date");
        Ok(ExitCode::SUCCESS)
    })
}
