//! `vestibule check`: is this configuration one that the gateway would start with?

use std::process::ExitCode;

use clap::Args;

use super::ConfigArg;

#[derive(Args, Debug)]
pub struct CheckArgs {
    #[command(flatten)]
    config: ConfigArg,
}

pub fn run(args: &CheckArgs) -> ExitCode {
    match args.config.load() {
        Ok(config) => {
            println!(
                "{}: fine ({}, {})",
                args.config.config.display(),
                counted(config.routes.len(), "route"),
                counted(config.upstreams.len(), "upstream"),
            );
            ExitCode::SUCCESS
        }
        Err(code) => code,
    }
}

fn counted(count: usize, noun: &str) -> String {
    if count == 1 {
        format!("1 {noun}")
    } else {
        format!("{count} {noun}s")
    }
}
