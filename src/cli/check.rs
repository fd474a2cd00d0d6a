//! `vestibule check`: is this configuration one that the gateway would start with? If it is, it says what has to be
//! entered elsewhere because of it: the redirect URIs that providers compare to the letter.

use std::process::ExitCode;

use clap::Args;

use super::ConfigArg;
use crate::config::{Config, ProviderKind};

#[derive(Args, Debug)]
pub struct CheckArgs {
    #[command(flatten)]
    config: ConfigArg,
}

pub fn run(args: &CheckArgs) -> ExitCode {
    match args.config.load_to_serve() {
        Ok(config) => {
            println!(
                "{}: fine ({}, {})",
                args.config.config.display(),
                counted(config.routes.len(), "route"),
                counted(config.upstreams.len(), "upstream"),
            );
            print_redirect_uris(&config);
            ExitCode::SUCCESS
        }
        Err(code) => code,
    }
}

fn print_redirect_uris(config: &Config) {
    let base = format!("{}{}", config.server.public_url, config.auth.base_path);
    for provider in &config.auth.oauth {
        let name = &provider.name;
        println!("redirect URI of {name}: {base}/callback/{name}");
        // Where the client's plugin for providers of one's own has them come back to.
        if provider.kind == ProviderKind::Oidc {
            println!("redirect URI of {name}, for apps that call signIn.oauth2: {base}/oauth2/callback/{name}");
        }
    }
}

fn counted(count: usize, noun: &str) -> String {
    if count == 1 {
        format!("1 {noun}")
    } else {
        format!("{count} {noun}s")
    }
}
