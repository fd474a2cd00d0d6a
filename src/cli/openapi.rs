//! `vestibule openapi`: the auth API's description, for those who generate clients of it or keep it under review.

use std::process::ExitCode;

use clap::Args;

use super::{ConfigArg, output};
use crate::auth::openapi;

#[derive(Args, Debug)]
pub struct OpenapiArgs {
    #[command(flatten)]
    config: ConfigArg,
}

pub fn run(args: &OpenapiArgs) -> anyhow::Result<ExitCode> {
    match args.config.load() {
        Ok(config) => {
            output::print(&format!("{}\n", openapi::json(&config)))?;
            Ok(ExitCode::SUCCESS)
        }
        Err(code) => Ok(code),
    }
}
