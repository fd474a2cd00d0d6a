//! Rounds in, a table of medians out.

use std::time::Duration;

use crate::{load::Outcome, scenario::Bar};

/// One entry's turn.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slice {
    per_second: f64,
    cpu_us: f64,
    p50_us: f64,
    p99_us: f64,
}

impl Slice {
    pub(crate) fn new(load: &Outcome, cpu: Duration) -> Self {
        let answered = load.answered as f64;
        Self {
            per_second: answered / load.elapsed.as_secs_f64(),
            cpu_us: cpu.as_secs_f64() * 1e6 / answered,
            p50_us: load.p50.as_secs_f64() * 1e6,
            p99_us: load.p99.as_secs_f64() * 1e6,
        }
    }
}

type Round = Vec<(&'static str, Option<Slice>)>;

pub(crate) struct Table {
    title: &'static str,
    bar: Option<Bar>,
    rounds: Vec<Round>,
}

impl Table {
    pub(crate) const fn new(title: &'static str, bar: Option<Bar>) -> Self {
        Self {
            title,
            bar,
            rounds: Vec::new(),
        }
    }

    pub(crate) fn add_round(&mut self, round: Round) {
        self.rounds.push(round);
    }

    pub(crate) fn print(&self) {
        println!("\n{}", self.title);
        println!(
            "  {:<10} {:>12} {:>12} {:>10} {:>10} {:>12} {:>12}",
            "entry", "requests/s", "CPU µs/req", "p50 µs", "p99 µs", "CPU × nginx", "CPU × direct"
        );
        // Those that had no part in it are not shown.
        let took_part = self.rounds.iter().flatten().filter(|(_, slice)| slice.is_some());
        let mut names: Vec<_> = took_part.map(|(name, _)| *name).collect();
        names.sort_unstable();
        names.dedup();
        for name in names {
            let show = |value: Option<f64>, digits: usize| {
                value.map_or_else(|| "–".to_owned(), |value| format!("{value:.digits$}"))
            };
            println!(
                "  {:<10} {:>12} {:>12} {:>10} {:>10} {:>12} {:>12}{}",
                name,
                show(self.median_of(name, |slice| slice.per_second), 0),
                show(self.median_of(name, |slice| slice.cpu_us), 2),
                show(self.median_of(name, |slice| slice.p50_us), 0),
                show(self.median_of(name, |slice| slice.p99_us), 0),
                show(self.ratio(name, "nginx"), 2),
                show(self.ratio(name, "direct"), 2),
                self.verdict(name),
            );
        }
    }

    /// Whether the gateway keeps its bar.
    fn verdict(&self, name: &str) -> String {
        let ratio = self.ratio(name, "nginx");
        let (Some(Bar { most, goal }), Some(ratio), "gateway") = (self.bar, ratio, name) else {
            return String::new();
        };
        let kept = if ratio <= most { "kept" } else { "MISSED" };
        format!("  bar {most:.2} {kept}, goal {goal:.2}")
    }

    fn median_of(&self, name: &str, value: impl Fn(Slice) -> f64) -> Option<f64> {
        median(
            self.rounds
                .iter()
                .filter_map(|round| slice_of(round, name))
                .map(value)
                .collect(),
        )
    }

    /// Median of the ratios within each round: what disturbs a round disturbs both.
    fn ratio(&self, name: &str, base: &str) -> Option<f64> {
        let ratios = self.rounds.iter().filter_map(|round| {
            let (slice, base) = (slice_of(round, name)?, slice_of(round, base)?);
            Some(slice.cpu_us / base.cpu_us)
        });
        median(ratios.collect())
    }
}

fn slice_of(round: &Round, name: &str) -> Option<Slice> {
    round.iter().find(|(entry, _)| *entry == name)?.1
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}
