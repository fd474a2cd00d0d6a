//! The `vestibule` binary: reads the command line and hands over to [`vestibule::cli`].

use std::process::ExitCode;

use clap::Parser;
use vestibule::cli::{self, Cli};

/// Keeps an idle connection at 12 KiB where glibc's allocator needs 15.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    // One provider of cryptography for the whole program; fails only if there is one already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    cli::run(Cli::parse())
}
