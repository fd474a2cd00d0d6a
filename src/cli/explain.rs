//! `vestibule explain METHOD URL`: what would happen to a request.
//!
//! Nothing is simulated: the same judges that the data path uses look at a request made of the arguments, and the
//! same code prepares what the upstream would receive (`decide.rs`). Only the person is made up. `vestibule test` asks
//! the same of many requests.

pub(super) mod decide;
pub(super) mod decision;
mod print;
pub(super) mod request;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context, bail};
use clap::Args;
use http::Method;

use self::{decide::Judges, request::Asked};
use super::{
    ConfigArg, EXIT_USAGE,
    argument::{Role, distinct},
};
use crate::{
    config::{Carried, ClientAuth, Config, Person, parse_duration},
    server::tls::told_of,
};

#[derive(Args, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "they are switches, each by itself")]
pub struct ExplainArgs {
    #[command(flatten)]
    config: ConfigArg,
    /// The request's method
    method: Method,
    /// The whole URL, as a browser has it; or a path of public_url
    url: String,
    /// As if nobody were signed in
    #[arg(long)]
    anonymous: bool,
    /// A role that the made-up person has
    #[arg(long = "role", value_name = "ROLE")]
    roles: Vec<Role>,
    /// The made-up person has not verified their address
    #[arg(long)]
    unverified: bool,
    /// How long ago the made-up person signed in, such as 2h
    #[arg(long, value_name = "AGO", value_parser = parse_duration, default_value = "0s")]
    signed_in: Duration,
    /// The session comes as a bearer token, as an app sends it, and not in a browser's cookie
    #[arg(long)]
    bearer: bool,
    /// A certificate that the client shows, in PEM, as if it had been verified
    #[arg(long, value_name = "FILE")]
    client_cert: Option<PathBuf>,
    /// A header that the client sends: "Name: value"
    #[arg(long = "header", short = 'H', value_name = "HEADER")]
    headers: Vec<String>,
    /// For scripts
    #[arg(long)]
    json: bool,
}

pub fn run(args: &ExplainArgs) -> anyhow::Result<ExitCode> {
    let config = match args.config.load() {
        Ok(config) => config,
        Err(code) => return Ok(code),
    };
    let asked = match args.asked(&config) {
        Ok(asked) => asked,
        // The arguments parse, but say no request.
        Err(error) => {
            eprintln!("vestibule: {error:#}");
            return Ok(ExitCode::from(EXIT_USAGE));
        }
    };
    let decision = Judges::new(&config).decide(asked);
    let request = format!("{} {}", args.method, args.url);
    if args.json {
        println!("{}", serde_json::to_string_pretty(&decision.json(&request))?);
    } else {
        print!("{}", print::text(&request, &decision));
    }
    Ok(ExitCode::SUCCESS)
}

impl ExplainArgs {
    fn asked(&self, config: &Config) -> anyhow::Result<Asked> {
        let headers = self.headers.iter().map(|line| request::header(line));
        let person = (!self.anonymous).then(|| Person {
            roles: distinct(&self.roles),
            verified_email: !self.unverified,
            signed_in: self.signed_in,
            by: if self.bearer { Carried::Bearer } else { Carried::Cookie },
        });
        let asked = Asked::new(
            self.method.clone(),
            &self.url,
            headers.collect::<anyhow::Result<_>>()?,
            person,
            &config.server.public_url,
        )?;
        let Some(file) = &self.client_cert else {
            return Ok(asked);
        };
        let tls = config.server.tls.as_ref();
        if tls.is_none_or(|tls| tls.clients == ClientAuth::NotAsked) {
            bail!("--client-cert: nobody is asked for one, since `server.tls.client_ca` is not set");
        }
        let certificate = told_of(file).context("--client-cert can't be used")?;
        Ok(asked.showing(certificate))
    }
}
