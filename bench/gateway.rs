//! What the gateway costs: requests a second and CPU per request, beside the upstream alone and, where they are
//! installed, nginx and HAProxy in front of it.
//!
//! `make bench`, or `cargo bench --bench gateway -- --rounds 10 --only tls`. Everything runs on this machine in
//! processes of its own: the load, the upstream, each proxy, Postgres. Entries take turns in short slices, since a
//! shared machine is never quiet twice; CPU is the whole process tree's, divided by answered requests; ratios are taken
//! within a round and their median is shown, beside the bar that it must keep. A slice with a single error is void.
//! Before anything is timed the gateway must show that it really guards: a benchmark of a gateway that lets strangers
//! in would look splendid.
//!
//! `--gateway PATH` measures another build of the gateway, `--train` only puts the load on it (`scripts/release`).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a benchmark that can't go on says where and stops; its output is its purpose"
)]

mod entries;
mod http;
mod instructions;
mod load;
mod memory;
mod proc;
mod rivals;
mod scenario;
mod sessions;
mod table;
mod upstream;

use std::{env, time::Duration};

use entries::{Entry, Rig};
use scenario::{Scenario, Who};
use table::Table;

struct Options {
    rounds: usize,
    slice: Duration,
    connections: usize,
    /// Part of the names of the scenarios to be run.
    only: String,
    /// The program that is measured: the one that was built along, if none is named.
    gateway: String,
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

    let counting = arguments.iter().any(|argument| argument == "--instructions");
    let rig = Rig::start(&options.gateway, counting);
    rig.check();
    if counting {
        return instructions::measure(&rig, options.connections);
    }
    if arguments.iter().any(|argument| argument == "--train") {
        return train(&rig, &options);
    }
    println!(
        "{} connections, {} rounds of {:?} slices, {} cores. CPU is user + system of the entry's process tree;\n\
         the gateway and nginx write an access log, buffered, to /dev/null.",
        options.connections,
        options.rounds,
        options.slice,
        std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
    );
    if "memory".contains(&options.only) {
        memory::measure(&rig);
    }
    for scenario in scenario::ALL {
        if scenario.name.contains(&options.only) {
            run(&rig, &options, &scenario);
        }
    }
}

/// All that is measured, once and at the gateway alone: one that counts what it does learns what it is for.
fn train(rig: &Rig, options: &Options) {
    for entry in rig.entries.iter().filter(|entry| entry.name == "gateway") {
        for scenario in scenario::ALL {
            let slice = measure(rig, entry, &scenario, options, options.slice, &mut 0);
            assert!(slice.is_some(), "{} met errors", scenario.name);
        }
    }
}

fn run(rig: &Rig, options: &Options, scenario: &Scenario) {
    let mut table = Table::new(scenario.title, scenario.bar);
    // Sessions that were asked for so far.
    let mut used = 0;
    for entry in &rig.entries {
        // Pools fill, caches warm, pages are touched.
        measure(rig, entry, scenario, options, options.slice / 4, &mut used);
    }
    for round in 0..options.rounds {
        let mut row = Vec::new();
        // Each round begins with another entry, so that none always follows the same one.
        for turn in 0..rig.entries.len() {
            let entry = &rig.entries[(round + turn) % rig.entries.len()];
            row.push((
                entry.name,
                measure(rig, entry, scenario, options, options.slice, &mut used),
            ));
        }
        table.add_round(row);
    }
    table.print();
}

/// One slice; `None` when it is void, or the entry has no part in the scenario.
fn measure(
    rig: &Rig,
    entry: &Entry,
    scenario: &Scenario,
    options: &Options,
    slice: Duration,
    used: &mut u64,
) -> Option<table::Slice> {
    let (place, mut order) = rig.order(entry, scenario, *used)?;
    order.at_once = options.connections;
    order.slice = slice;
    let spent = || {
        let own = proc::cpu_of_tree(place.pid);
        if scenario.who == Who::Everybody && entry.name == "gateway" {
            own + proc::cpu_of_tree(rig.postgres)
        } else {
            own
        }
    };
    let before = spent();
    let outcome = load::start(&order);
    let cpu = spent().checked_sub(before)?;
    *used += outcome.answered + outcome.errors + options.connections as u64;
    if outcome.errors > 0 || outcome.answered == 0 {
        println!("  void: {} made {} errors in a slice", entry.name, outcome.errors);
        return None;
    }
    Some(table::Slice::new(&outcome, cpu))
}

impl Options {
    fn of(arguments: &[String]) -> Self {
        let text = |flag: &str| {
            let at = arguments.iter().position(|argument| argument == flag)?;
            let text = arguments.get(at + 1);
            Some(text.unwrap_or_else(|| panic!("{flag} needs a value")))
        };
        let number = |flag: &str, default: usize| {
            text(flag).map_or(default, |text| {
                text.parse()
                    .unwrap_or_else(|_| panic!("{flag} needs a number, not {text}"))
            })
        };
        Self {
            rounds: number("--rounds", 5).max(1),
            slice: Duration::from_millis(u64::try_from(number("--slice-ms", 1000)).unwrap()),
            connections: number("--connections", 64),
            only: text("--only").cloned().unwrap_or_default(),
            gateway: text("--gateway")
                .map_or(env!("CARGO_BIN_EXE_vestibule"), String::as_str)
                .to_owned(),
        }
    }
}
