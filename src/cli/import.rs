//! `vestibule import`: takes over the users of another server. One file for each kind of server, what they need below.

mod better_auth;
mod failure;
mod ids;
mod provider_tokens;
mod report;
mod rows;
mod source;
mod tables;

use std::process::ExitCode;

use clap::{Args, Subcommand};

#[derive(Args, Debug)]
pub struct ImportArgs {
    #[command(subcommand)]
    from: From,
}

#[derive(Debug, Subcommand)]
enum From {
    /// Copy users, passwords, linked accounts and sessions out of a better-auth database; again, to bring what changed
    BetterAuth(better_auth::BetterAuthArgs),
}

pub fn run(args: &ImportArgs) -> anyhow::Result<ExitCode> {
    match &args.from {
        From::BetterAuth(args) => better_auth::run(args),
    }
}
