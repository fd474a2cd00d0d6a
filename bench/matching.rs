//! What finding a route costs with ten routes and with twenty thousand, and what reading them costs.
//!
//! `make bench-matching`, or `cargo bench --bench matching`. The same mixture of paths is looked up in both tables, in an
//! order that jumps, so that a large table doesn't look good by staying in the processor's cache. Each figure is the best
//! of several rounds: whatever disturbs the machine makes rounds slower, never faster.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a benchmark that can't go on says where and stops; its output is its purpose"
)]

use std::{
    fmt::Write as _,
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

use http::Method;
use vestibule::{
    config::{self, Config},
    policy::{path::NormalPath, routes::RouteTable},
};

const LOOK_UPS: usize = 200_000;
const ROUNDS: usize = 7;

fn main() {
    println!(
        "{:>8}  {:>12}  {:>12}  {:>12}",
        "routes", "reading", "building", "a look-up"
    );
    let few = measured(10);
    let many = measured(20_000);
    println!("twenty thousand routes cost {:.2} times what ten do", many / few);
}

/// Prints a line; gives the nanoseconds that a look-up takes.
fn measured(count: usize) -> f64 {
    let text = text(count);
    let (reading, config) = timed(|| load(&text));
    let routes: Vec<_> = config.routes.into_iter().map(Arc::new).collect();
    let (building, table) = timed(|| RouteTable::build(&routes));
    let paths: Vec<NormalPath> = (0..count).map(path).collect();
    // Coprime to both counts: every path comes up, neighbours never one behind the other.
    let order: Vec<&NormalPath> = (0..LOOK_UPS)
        .filter_map(|turn| paths.get(turn * 7919 % count))
        .collect();
    let best = (0..ROUNDS)
        .map(|_| {
            let (took, ()) = timed(|| {
                for path in &order {
                    black_box(table.find("app.example.com", black_box(path), &Method::GET)).unwrap();
                }
            });
            took
        })
        .min()
        .unwrap_or_default();
    let nanos = best.as_nanos() as f64 / LOOK_UPS as f64;
    println!("{count:>8}  {reading:>12.1?}  {building:>12.1?}  {nanos:>9.0} ns");
    nanos
}

fn timed<T>(work: impl FnOnce() -> T) -> (Duration, T) {
    let began = Instant::now();
    let made = work();
    (began.elapsed(), made)
}

/// Of ten routes, each kind that there is in the proportion that applications have.
fn text(count: usize) -> String {
    let mut text = String::from(
        "[server]\npublic_url = 'https://app.example.com'\n[database]\nurl = 'postgres://localhost/app'\n\
         [auth]\nsecret = 'a secret that only this benchmark uses, and only here'\n\
         [mail]\nfrom = 'no-reply@example.com'\nsmtp = 'smtp://localhost'\n\
         [upstreams.api]\nendpoints = ['http://127.0.0.1:8000']\n",
    );
    for number in 0..count {
        let pattern = match number % 5 {
            0 => format!("/service-{number}/*"),
            1 => format!("/api/v1/resource-{number}/{{id}}"),
            2 => format!("/api/v1/resource-{number}/{{id}}/details"),
            3 => format!("/pages/page-{number}"),
            _ => format!("/tenants/{{tenant}}/section-{number}/*"),
        };
        let methods = if number % 3 == 0 {
            "methods = ['GET', 'POST']\n"
        } else {
            ""
        };
        writeln!(text, "[[routes]]\npath = '{pattern}'\nupstream = 'api'\n{methods}").unwrap();
    }
    text
}

/// A request for route `number`.
fn path(number: usize) -> NormalPath {
    let path = match number % 5 {
        0 => format!("/service-{number}/a/b"),
        1 => format!("/api/v1/resource-{number}/4711"),
        2 => format!("/api/v1/resource-{number}/4711/details"),
        3 => format!("/pages/page-{number}"),
        _ => format!("/tenants/blue/section-{number}/x"),
    };
    NormalPath::parse(&path).unwrap()
}

fn load(text: &str) -> Config {
    config::parse(text, "gateway.toml", &|_| None).unwrap_or_else(|errors| panic!("{errors}"))
}
