//! CPU time of a process and everything it started, from `/proc`.

use std::{fs, process::Command, sync::LazyLock, time::Duration};

/// Clock ticks in a second: the unit of `/proc/<pid>/stat`.
static TICKS: LazyLock<u64> = LazyLock::new(|| {
    let output = Command::new("getconf")
        .arg("CLK_TCK")
        .output()
        .expect("getconf is there");
    String::from_utf8(output.stdout)
        .unwrap()
        .trim()
        .parse()
        .expect("a number of ticks")
});

struct Process {
    pid: u32,
    parent: u32,
    ticks: u64,
}

/// User and system time of `root` and its descendants that still run.
pub(crate) fn cpu_of_tree(root: u32) -> Duration {
    let processes: Vec<_> = fs::read_dir("/proc")
        .expect("Linux: the benchmark reads /proc")
        .filter_map(|entry| Process::read(entry.ok()?.file_name().to_str()?.parse().ok()?))
        .collect();
    let mut tree = vec![root];
    let mut next = 0;
    while let Some(&parent) = tree.get(next) {
        tree.extend(
            processes
                .iter()
                .filter(|process| process.parent == parent)
                .map(|process| process.pid),
        );
        next += 1;
    }
    let ticks: u64 = processes
        .iter()
        .filter(|process| tree.contains(&process.pid))
        .map(|process| process.ticks)
        .sum();
    Duration::from_micros(ticks * 1_000_000 / *TICKS)
}

impl Process {
    /// `None`: it ended meanwhile.
    fn read(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name in parentheses may hold anything; behind it come state, parent, …, utime and stime.
        let (_, behind_name) = stat.rsplit_once(") ")?;
        let fields: Vec<_> = behind_name.split(' ').collect();
        Some(Self {
            pid,
            parent: fields.get(1)?.parse().ok()?,
            ticks: fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?,
        })
    }
}

/// Memory of a process that is in RAM.
pub(crate) fn resident_bytes(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
    kib * 1024
}
