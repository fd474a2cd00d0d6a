//! `vestibule test FILE`: does a configuration decide as somebody expects? For continuous integration: it needs neither a
//! database nor an upstream, and tells nobody anything.
//!
//! Each request of the file is put to the same judges as `vestibule explain`'s. Exit codes: 0, 1 if a decision differs
//! from what is expected, 78 if the configuration or the file is wrong.

mod compare;
mod report;

use std::{path::PathBuf, process::ExitCode};

use clap::Args;

use self::report::{Outcome, Report};
use super::{
    ConfigArg, EXIT_CONFIG,
    explain::{decide::Judges, request::Asked},
};
use crate::config::{self, Config, Expectation};

#[derive(Args, Debug)]
pub struct TestArgs {
    #[command(flatten)]
    config: ConfigArg,
    /// Requests, and what is expected to become of each
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// For scripts
    #[arg(long)]
    json: bool,
}

pub fn run(args: &TestArgs) -> anyhow::Result<ExitCode> {
    let config = match args.config.load() {
        Ok(config) => config,
        Err(code) => return Ok(code),
    };
    let mut report = Report::default();
    let judges = Judges::new(&config);
    let mut is_wrong = false;
    for file in &args.files {
        match config::load_expectations(file) {
            Ok(tests) => {
                let name = file.display().to_string();
                for test in tests {
                    let differences = differences(&judges, &config, &test);
                    report.add(Outcome {
                        file: name.clone(),
                        line: test.line,
                        name: test.name,
                        differences,
                    });
                }
            }
            Err(errors) => {
                is_wrong = true;
                eprintln!("{errors}");
            }
        }
    }
    if is_wrong {
        return Ok(ExitCode::from(EXIT_CONFIG));
    }
    if args.json {
        println!("{}", report.json()?);
    } else {
        print!("{}", report.text());
    }
    Ok(if report.failed() == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Where what is decided differs from what is expected; empty where it doesn't.
fn differences(judges: &Judges<'_>, config: &Config, test: &Expectation) -> Vec<compare::Difference> {
    let asked = Asked::new(
        test.method.clone(),
        &test.url,
        test.headers.clone(),
        test.person.clone(),
        &config.server.public_url,
    );
    match asked {
        Ok(asked) => compare::differences(&test.expect, &judges.decide(asked)),
        Err(error) => vec![compare::Difference::in_request(&error)],
    }
}
