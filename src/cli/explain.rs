//! `vestibule explain METHOD URL`: what would happen to a request.
//!
//! Nothing is simulated: the same judges that the data path uses look at a request made of the arguments, and the
//! same code prepares what the upstream would receive (`decide.rs`). Only the person is made up. `vestibule test` asks
//! the same of many requests.

pub(super) mod decide;
pub(super) mod decision;
mod print;
pub(super) mod request;

use std::{process::ExitCode, time::Duration};

use clap::Args;
use http::Method;

use self::{decide::Judges, request::Asked};
use super::{
    ConfigArg, EXIT_USAGE,
    argument::{Role, distinct},
};
use crate::config::{Carried, Person, parse_duration};

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
    let asked = match args.asked(&config.server.public_url) {
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
    fn asked(&self, public_url: &crate::config::Origin) -> anyhow::Result<Asked> {
        let headers = self.headers.iter().map(|line| request::header(line));
        let person = (!self.anonymous).then(|| Person {
            roles: distinct(&self.roles),
            verified_email: !self.unverified,
            signed_in: self.signed_in,
            by: if self.bearer { Carried::Bearer } else { Carried::Cookie },
        });
        Asked::new(
            self.method.clone(),
            &self.url,
            headers.collect::<anyhow::Result<_>>()?,
            person,
            public_url,
        )
    }
}
