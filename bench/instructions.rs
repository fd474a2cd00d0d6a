//! How many instructions a request costs in user space: exact, whatever else the machine does.
//!
//! `make bench-instructions`. The gateway runs in valgrind's callgrind, which counts only while the load lasts; all its
//! threads count. The kernel's work is not in it, and neither is what instructions cost: caches, mispredictions.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use crate::{entries::Rig, load, scenario};

/// Requests that count, about: the load lasts so long, and a gateway in callgrind is slow.
const SLICE: Duration = Duration::from_secs(20);
const MOST: u64 = 38_000;
const GOAL: u64 = 30_000;

/// Where callgrind writes.
fn counts(folder: &Path) -> PathBuf {
    folder.join("callgrind")
}

/// What the gateway is run by.
pub(crate) fn runner(folder: &Path) -> Vec<String> {
    let out = format!("--callgrind-out-file={}", counts(folder).display());
    ["valgrind", "-q", "--tool=callgrind", "--instr-atstart=no"]
        .map(str::to_owned)
        .into_iter()
        .chain([out])
        .collect()
}

/// Prints it.
pub(crate) fn measure(rig: &Rig, connections: usize) {
    let gateway = rig.entries.iter().find(|entry| entry.name == "gateway").unwrap();
    let (place, mut order) = rig.order(gateway, &scenario::ALL[0], 0).unwrap();
    order.at_once = connections;
    // Pools fill, caches warm.
    order.slice = SLICE / 4;
    load::start(&order);

    order.slice = SLICE;
    control(place.pid, "--instr=on");
    let outcome = load::start(&order);
    control(place.pid, "--instr=off");
    control(place.pid, "--dump");
    assert_eq!(outcome.errors, 0);
    let each = total(&dumped(&counts(rig.folder()))) / outcome.answered;
    println!(
        "{each} instructions for each of {} small authenticated requests (bar {MOST}, goal {GOAL})",
        outcome.answered
    );
}

fn control(pid: u32, what: &str) {
    let told = Command::new("callgrind_control")
        .args([what, &pid.to_string()])
        .output();
    assert!(told.unwrap().status.success(), "callgrind_control {what}");
}

/// The first dump's text, once it is written.
fn dumped(out: &Path) -> String {
    let file = out.with_extension("1");
    let deadline = Instant::now() + Duration::from_mins(1);
    loop {
        match fs::read_to_string(&file) {
            Ok(text) if text.contains("\ntotals:") => return text,
            _ => assert!(Instant::now() < deadline, "callgrind wrote nothing"),
        }
        thread::sleep(Duration::from_millis(100));
    }
}

fn total(dump: &str) -> u64 {
    let total = dump.lines().find_map(|line| line.strip_prefix("totals: "));
    total.unwrap().trim().parse().unwrap()
}
