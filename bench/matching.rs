//! What finding a route costs with ten routes and with twenty thousand, and what building their table costs.
//!
//! `make bench-matching`, or `cargo bench --bench matching`. Both tables are asked for as many different requests, in an
//! order drawn once, so that a large table doesn't look good by staying in the processor's cache. A request's own bytes
//! are read just before, as they are in the gateway, which has just parsed them: only the table may be cold. Rounds
//! take turns, and the figure is the median of their ratios: whatever disturbs the machine disturbs both.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a benchmark that can't go on says where and stops; its output is its purpose"
)]

mod routes;

use std::{
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

use http::Method;
use vestibule::{
    config,
    policy::{path::NormalPath, routes::RouteTable},
};

const REQUESTS: usize = 20_000;
const LOOK_UPS: usize = 200_000;
/// So many requests are read, then looked up.
const AT_A_TIME: usize = 64;
const ROUNDS: usize = 31;

/// What a configuration needs besides routes.
const OTHERWISE: &str = "
    [server]
    public_url = 'https://app.example.com'
    [database]
    url = 'postgres://localhost/app'
    [auth]
    secret = 'a secret that only this benchmark uses, and only here'
    [mail]
    from = 'no-reply@example.com'
    smtp = 'smtp://localhost'
    [upstreams.api]
    endpoints = ['http://127.0.0.1:8000']
    ";

struct Subject {
    table: RouteTable,
    requests: Vec<Request>,
    /// Of requests.
    order: Vec<usize>,
}

struct Request {
    host: String,
    path: NormalPath,
}

fn main() {
    let few = Subject::of(10);
    let many = Subject::of(20_000);
    let mut rounds: Vec<(f64, f64)> = (0..ROUNDS).map(|_| (few.round(), many.round())).collect();
    let mut median = |of: fn(&(f64, f64)) -> f64| {
        rounds.sort_by(|a, b| of(a).total_cmp(&of(b)));
        rounds.get(ROUNDS / 2).map(of).unwrap_or_default()
    };
    println!("a look-up among     10 routes: {:>4.0} ns", median(|round| round.0));
    println!("a look-up among 20,000 routes: {:>4.0} ns", median(|round| round.1));
    let ratio = median(|round| round.1 / round.0);
    println!("twenty thousand routes cost {ratio:.2} times what ten do");
}

impl Subject {
    fn of(count: usize) -> Self {
        let text = format!("{OTHERWISE}{}", routes::text(count));
        let config = config::parse(&text, "gateway.toml", &|_| None).unwrap_or_else(|errors| panic!("{errors}"));
        let (base_path, max_body) = (config.auth.base_path, config.server.max_body);
        let routes: Vec<_> = config.routes.into_iter().map(Arc::new).collect();
        let (building, table) = timed(|| RouteTable::build(&routes, &base_path, max_body));
        println!("the table of {count:>6} routes is built in {building:.1?}");
        let mut drawn = 0x9e37_79b9_7f4a_7c15_u64;
        let order = (0..LOOK_UPS)
            .map(|_| {
                // Xorshift: the same numbers at each run.
                drawn ^= drawn << 13;
                drawn ^= drawn >> 7;
                drawn ^= drawn << 17;
                usize::try_from(drawn % REQUESTS as u64).unwrap()
            })
            .collect();
        Self {
            table,
            requests: (0..REQUESTS).map(|turn| Request::new(turn % count, turn)).collect(),
            order,
        }
    }

    /// The nanoseconds that a look-up takes: as in most groups of requests, since whatever else runs here takes the
    /// processor away in the midst of some.
    fn round(&self) -> f64 {
        let groups = self.order.chunks_exact(AT_A_TIME).map(|turns| {
            let requests: Vec<&Request> = turns.iter().filter_map(|turn| self.requests.get(*turn)).collect();
            let read = |text: &str| text.bytes().map(u64::from).sum::<u64>();
            let bytes: u64 = requests.iter().map(|it| read(&it.host) + read(it.path.as_str())).sum();
            black_box(bytes);
            let (took, ()) = timed(|| {
                for Request { host, path } in &requests {
                    black_box(self.table.find(host, black_box(path), &Method::GET)).unwrap();
                }
            });
            took
        });
        let mut took: Vec<Duration> = groups.collect();
        took.sort();
        let median = took.get(took.len() / 2).copied().unwrap_or_default();
        median.as_nanos() as f64 / AT_A_TIME as f64
    }
}

fn timed<T>(work: impl FnOnce() -> T) -> (Duration, T) {
    let began = Instant::now();
    let made = work();
    (began.elapsed(), made)
}

impl Request {
    /// For route `number` of [`routes::text`], a little different each turn.
    fn new(number: usize, turn: usize) -> Self {
        let (host, path) = match number % 10 {
            0 => (None, format!("/service-{number}/a/b-{turn}")),
            1 => (None, format!("/api/v1/resource-{number}/{turn}")),
            2 => (None, format!("/api/v1/resource-{}/{turn}/details", number - 1)),
            3 => (None, format!("/pages/page-{number}")),
            4 => (None, format!("/tenants/tenant-{turn}/section-{number}/x")),
            5 => (None, format!("/api/v2/team-{number}/members/{turn}/roles")),
            6 => (Some(format!("app-{number}.example.com")), format!("/x/{turn}")),
            7 => (
                Some(format!("app-{}.example.com", number - 1)),
                format!("/admin/{turn}"),
            ),
            8 => (Some(format!("eu.customer-{number}.example.com")), format!("/{turn}")),
            _ => (None, format!("/assets/bundle-{number}/{turn}.js")),
        };
        Self {
            host: host.unwrap_or_else(|| "app.example.com".to_owned()),
            path: NormalPath::parse(&path).unwrap(),
        }
    }
}
