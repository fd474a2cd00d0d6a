//! `vestibule serve`: the gateway, until a signal.

use std::{path::Path, process::ExitCode};

use anyhow::Context;
use clap::Args;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use super::{ConfigArg, cold_runtime, descriptors};
use crate::{
    app::{self, Options, activation::Passed, memory, systemd},
    clock::Clock,
    config::{self, Config, Overrides},
    policy::connection::Door,
    telemetry::Events,
};

#[derive(Args, Debug)]
pub struct ServeArgs {
    #[command(flatten)]
    config: ConfigArg,
}

pub fn run(args: &ServeArgs) -> anyhow::Result<ExitCode> {
    let config = match args.config.load_to_serve() {
        Ok(config) => config,
        Err(code) => return Ok(code),
    };
    let _events = Events::init(&config.log).context("can't start a thread for the log")?;
    descriptors::raise_limit(&config);
    if !config.server.core_dumps {
        memory::keep_to_itself();
    }
    let passed = Passed::take();
    let runtime = cold_runtime().context("can't start a runtime")?;
    let outcome = runtime.block_on(serve(config, &args.config.config, passed));
    // Nothing is waited for that had its chance within the grace.
    runtime.shutdown_background();
    outcome
}

async fn serve(config: Config, file: &Path, passed: Passed) -> anyhow::Result<ExitCode> {
    let told = Signals::listen()?;
    // From the start: else it would end the process, or be missed.
    let hangup: Signal = signal(SignalKind::hangup()).context("can't listen for SIGHUP")?;
    // Of when it was read: what has changed since is noticed.
    let seen = config.read_from.held();
    let options = Options {
        clock: Clock::System,
        cold: tokio::runtime::Handle::current(),
        access_log: Box::new(std::io::stdout()),
        cancel: told.first.clone(),
        passed,
    };
    let public_url = config.server.public_url.clone();
    let running = match app::start(config, options).await {
        Err(_) if told.first.is_cancelled() => return Ok(ExitCode::SUCCESS),
        started => started?,
    };
    let admin = running.admin_addr();
    for (addr, door) in running.public_addrs() {
        match door {
            Door::Plain | Door::Tls => info!(%addr, %admin, "serving {public_url}"),
            Door::Redirect => info!(%addr, "sending everybody to https"),
        }
    }
    if running.public_addrs().iter().all(|(_, door)| *door == Door::Redirect) {
        info!(%admin, "serving {public_url} at unix sockets alone");
    }
    let read = file.to_owned();
    let load = move || config::load(&read, &Overrides::default());
    running.watch(file.to_owned(), seen, load, Some(hangup));
    systemd::ready();
    let failed = tokio::select! {
        () = told.first.cancelled() => false,
        () = running.taken_over() => {
            info!("another gateway has taken over");
            false
        }
        () = running.failed() => true,
    };
    info!("stopping");
    if !running.is_taken_over() {
        systemd::stopping();
    }
    running.stop(told.second.clone()).await;
    if failed {
        error!("stopped because an essential task ended");
        return Ok(ExitCode::FAILURE);
    }
    info!("stopped");
    Ok(ExitCode::SUCCESS)
}

/// SIGTERM and SIGINT: the first asks, the second insists.
#[derive(Debug)]
pub struct Signals {
    pub first: CancellationToken,
    pub second: CancellationToken,
}

impl Signals {
    /// Must be called within a Tokio runtime. From then on the signals don't end the process by themselves.
    #[expect(
        clippy::disallowed_methods,
        reason = "signals outlive every gateway, and no `Tasks` is there yet"
    )]
    pub fn listen() -> anyhow::Result<Self> {
        let mut terminate = signal(SignalKind::terminate()).context("can't listen for SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("can't listen for SIGINT")?;
        let told = Self {
            first: CancellationToken::new(),
            second: CancellationToken::new(),
        };
        let (first, second) = (told.first.clone(), told.second.clone());
        tokio::spawn(async move {
            for token in [first, second] {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                token.cancel();
            }
        });
        Ok(told)
    }
}
