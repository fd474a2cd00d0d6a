//! How many instructions a request costs in user space.
//!
//! `make bench-instructions`. The gateway runs in valgrind's callgrind, which counts only while the load lasts; all its
//! threads count. The kernel's work is not in it, and neither is what instructions cost: caches, mispredictions.
//!
//! What is counted is exact, but not quite the same each time: requests that come together share what is done once for all
//! that is ready, and on a machine that does other work fewer do. So it is counted several times, and the median counts.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use crate::{entries::Rig, load, scenario};

/// The load lasts so long each time: a gateway in callgrind is slow.
const SLICE: Duration = Duration::from_secs(6);
/// An odd number of times.
const TIMES: usize = 5;
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
    order.slice = SLICE;
    // Pools fill, caches warm.
    load::start(&order);

    let mut each: Vec<u64> = (1..=TIMES)
        .map(|time| {
            control(place.pid, "--instr=on");
            let outcome = load::start(&order);
            control(place.pid, "--instr=off");
            control(place.pid, "--dump");
            assert_eq!(outcome.errors, 0);
            total(&dumped(&counts(rig.folder()), time)) / outcome.answered
        })
        .collect();
    each.sort_unstable();
    println!(
        "{} instructions for each small authenticated request (bar {MOST}, goal {GOAL}); {TIMES} times: {each:?}",
        each[TIMES / 2]
    );
}

fn control(pid: u32, what: &str) {
    let told = Command::new("callgrind_control")
        .args([what, &pid.to_string()])
        .output();
    assert!(told.unwrap().status.success(), "callgrind_control {what}");
}

/// A dump's text, once it is written.
fn dumped(out: &Path, number: usize) -> String {
    let file = out.with_extension(number.to_string());
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
