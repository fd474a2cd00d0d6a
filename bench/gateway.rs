//! What the gateway costs: requests a second and CPU per request, beside the upstream alone and, where they are
//! installed, nginx and HAProxy in front of it.
//!
//! `make bench`, or `cargo bench --bench gateway -- --rounds 10`. Everything runs on this machine in processes of its
//! own: the load, the upstream, each proxy, Postgres. Entries take turns in short slices, since a shared machine is
//! never quiet twice; CPU is the whole process tree's, divided by answered requests; ratios are taken within a round
//! and their median is shown. A slice with a single error is void. Before anything is timed the gateway must show
//! that it really guards: a benchmark of a gateway that lets strangers in would look splendid.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a benchmark that can't go on says where and stops; its output is its purpose"
)]

mod entries;
mod http;
mod load;
mod proc;
mod table;
mod upstream;

use std::{env, time::Duration};

use entries::{Entry, Rig};
use table::Table;

/// What one entry is asked for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Workload {
    /// A hundred bytes, with a session that is in the cache.
    Session,
    /// A hundred bytes, on a public route.
    Public,
    /// 1 MiB down, with a session that is in the cache.
    Large,
}

impl Workload {
    const ALL: [Self; 3] = [Self::Session, Self::Public, Self::Large];

    const fn title(self) -> &'static str {
        match self {
            Self::Session => "small GET, session in the cache (proxies without auth for comparison)",
            Self::Public => "small GET, public route",
            Self::Large => "1 MiB down, session in the cache",
        }
    }

    const fn path(self) -> &'static str {
        match self {
            Self::Session => "/api/small",
            Self::Public => "/public/small",
            Self::Large => "/api/large",
        }
    }
}

struct Options {
    rounds: usize,
    slice: Duration,
    connections: usize,
}

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    // The roles that the benchmark starts itself in.
    match arguments.first().map(String::as_str) {
        Some("serve-upstream") => return upstream::run(),
        Some("make-load") => return load::run(&arguments[1..]),
        _ => {}
    }
    // `cargo test --all-targets` starts benchmarks too, without this flag and without optimisation.
    if !arguments.iter().any(|argument| argument == "--bench") {
        println!("run by `cargo bench`");
        return;
    }
    let options = Options::of(&arguments);

    let rig = Rig::start();
    rig.check();
    println!(
        "{} connections, {} rounds of {:?} slices, {} cores. CPU is user + system of the entry's process tree;\n\
         the gateway and nginx write an access log, buffered, to /dev/null.",
        options.connections,
        options.rounds,
        options.slice,
        std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
    );
    for workload in Workload::ALL {
        let mut table = Table::new(workload.title());
        for entry in &rig.entries {
            // Pools fill, caches warm, pages are touched.
            measure(entry, workload, &options, options.slice / 4);
        }
        for round in 0..options.rounds {
            let mut row = Vec::new();
            // Each round begins with another entry, so that none always follows the same one.
            for turn in 0..rig.entries.len() {
                let entry = &rig.entries[(round + turn) % rig.entries.len()];
                row.push((entry.name, measure(entry, workload, &options, options.slice)));
            }
            table.add_round(row);
        }
        table.print();
    }
}

/// One slice; `None` when it is void.
fn measure(entry: &Entry, workload: Workload, options: &Options, slice: Duration) -> Option<table::Slice> {
    let before = proc::cpu_of_tree(entry.pid);
    let load = load::start(entry.addr, &entry.request(workload), options.connections, slice);
    let cpu = proc::cpu_of_tree(entry.pid).checked_sub(before)?;
    if load.errors > 0 || load.answered == 0 {
        println!("  void: {} made {} errors in a slice", entry.name, load.errors);
        return None;
    }
    Some(table::Slice::new(&load, cpu))
}

impl Options {
    fn of(arguments: &[String]) -> Self {
        let value = |flag: &str, default: usize| -> usize {
            let at = arguments.iter().position(|argument| argument == flag);
            let Some(at) = at else { return default };
            let text = arguments.get(at + 1).unwrap_or_else(|| panic!("{flag} needs a number"));
            text.parse()
                .unwrap_or_else(|_| panic!("{flag} needs a number, not {text}"))
        };
        Self {
            rounds: value("--rounds", 5).max(1),
            slice: Duration::from_millis(u64::try_from(value("--slice-ms", 1000)).unwrap()),
            connections: value("--connections", 64),
        }
    }
}
