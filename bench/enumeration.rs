//! Whether time tells if an address has a user: how long each answer takes for known and for unknown addresses.
//!
//! `make bench-enumeration`, or `cargo bench --bench enumeration -- --rounds 300`. The real gateway, a real Postgres, one
//! request at a time; the arms of a flow take turns, in an order that changes, so that whatever disturbs the machine
//! disturbs all of them. Beside the spread of each arm stands how well a single answer's time separates it from the
//! first one: the probability that the slower of two random answers is the arm's (the area under the ROC curve, which
//! is the Mann-Whitney statistic divided by the number of pairs). 0.50 is a coin; an attacker who averages many
//! requests profits from anything else, so the difference of the medians is shown as well.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a benchmark that can't go on says where and stops; its output is its purpose"
)]

#[expect(
    dead_code,
    reason = "shared with the benchmark of the data path, which needs more of it"
)]
mod http;

use std::{
    env, fs,
    net::SocketAddr,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tempfile::TempDir;
use vestibule::dev::postgres::Cluster;

const PASSWORD: &str = "correct horse battery staple";

/// A question that is asked of known and unknown addresses.
struct Flow {
    title: &'static str,
    path: &'static str,
    arms: &'static [Arm],
    status: u16,
}

/// Whose address is used.
#[derive(Clone, Copy)]
enum Arm {
    Unknown,
    Known,
    /// Has no password: signs in by a provider.
    WithoutPassword,
    Unverified,
}

impl Arm {
    const fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Known => "known",
            Self::WithoutPassword => "no password",
            Self::Unverified => "unverified",
        }
    }

    fn email(self, round: usize) -> String {
        match self {
            // Never the same twice: what is asked for once may be known afterwards.
            Self::Unknown => format!("nobody{round}@example.com"),
            Self::Known => "known@example.com".to_owned(),
            Self::WithoutPassword => "oauth@example.com".to_owned(),
            Self::Unverified => "unverified@example.com".to_owned(),
        }
    }
}

const FLOWS: [Flow; 4] = [
    Flow {
        title: "sign-in with a wrong password",
        path: "/sign-in/email",
        arms: &[Arm::Unknown, Arm::Known, Arm::WithoutPassword],
        status: 401,
    },
    Flow {
        title: "sign-up",
        path: "/sign-up/email",
        arms: &[Arm::Unknown, Arm::Known, Arm::Unverified],
        status: 200,
    },
    Flow {
        title: "asking for a reset",
        path: "/request-password-reset",
        arms: &[Arm::Unknown, Arm::Known, Arm::WithoutPassword],
        status: 200,
    },
    Flow {
        title: "asking for another verification mail",
        path: "/send-verification-email",
        arms: &[Arm::Unknown, Arm::Known, Arm::Unverified],
        status: 200,
    },
];

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    // `cargo test --all-targets` starts benchmarks too, without this flag and without optimisation.
    if !arguments.iter().any(|argument| argument == "--bench") {
        println!("run by `cargo bench`");
        return;
    }
    let at = arguments.iter().position(|argument| argument == "--rounds");
    let rounds = at.map_or(300, |at| {
        let text = arguments.get(at + 1).expect("--rounds needs a number");
        text.parse().expect("--rounds needs a number")
    });
    let gateway = Gateway::start();
    println!("{rounds} rounds, one request at a time; milliseconds");
    for flow in &FLOWS {
        gateway.measure(flow, rounds);
    }
}

struct Gateway {
    addr: SocketAddr,
    child: Child,
    _postgres: Cluster,
    _folder: TempDir,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Gateway {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let postgres = Cluster::temporary().unwrap_or_else(|error| panic!("{error}"));
        let (addr, admin, nowhere) = (http::free_addr(), http::free_addr(), http::free_addr());
        let database = postgres.url("postgres");
        let config = folder.path().join("gateway.toml");
        let text = format!(
            r#"
            [server]
            listen = "{addr}"
            public_url = "http://localhost"
            [admin]
            listen = "{admin}"
            [log]
            level = "error"
            [database]
            url = "{database}"
            [auth]
            secret = "a secret that only this benchmark uses, and only here"
            [auth.rate_limit]
            enabled = false
            [mail]
            from = "Bench <bench@example.com>"
            smtp = "smtp://{nowhere}"
            [upstreams.app]
            endpoints = ["http://{nowhere}"]
            [[routes]]
            path = "/api/*"
            upstream = "app"
            "#
        );
        fs::write(&config, text).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_vestibule"))
            .args(["serve", "--config"])
            .arg(&config)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let gateway = Self {
            addr,
            child,
            _postgres: postgres,
            _folder: folder,
        };
        http::wait_for(addr, "the gateway");
        for arm in [Arm::Known, Arm::WithoutPassword, Arm::Unverified] {
            let (status, _) = gateway.post("/sign-up/email", &body(&arm.email(0), PASSWORD));
            assert_eq!(status, 200);
        }
        by_hand(
            &database,
            "UPDATE auth.users SET email_verified = true WHERE email <> 'unverified@example.com';
             DELETE FROM auth.accounts AS a USING auth.users AS u
             WHERE u.id = a.user_id AND u.email = 'oauth@example.com'",
        );
        gateway
    }

    fn post(&self, path: &str, body: &Value) -> (u16, Duration) {
        let start = format!("POST /api/auth{path}");
        let body = body.to_string();
        let began = Instant::now();
        let answer = http::call(self.addr, &start, &[], &body);
        (answer.status, began.elapsed())
    }

    fn measure(&self, flow: &Flow, rounds: usize) {
        let mut times = vec![Vec::with_capacity(rounds); flow.arms.len()];
        for round in 0..rounds + rounds / 10 {
            for turn in 0..flow.arms.len() {
                let at = (round + turn) % flow.arms.len();
                // Neither a right one nor anybody's.
                let (status, time) = self.post(flow.path, &body(&flow.arms[at].email(round), "not the password"));
                assert_eq!(status, flow.status, "{} of {}", flow.title, flow.arms[at].name());
                // The first tenth warms caches and pools.
                if round >= rounds / 10 {
                    times[at].push(time.as_secs_f64() * 1e3);
                }
            }
        }
        println!("\n{}", flow.title);
        println!(
            "  {:<12} {:>8} {:>8} {:>8} {:>8} {:>9} {:>13}",
            "address", "p10", "p50", "p90", "p99", "AUC", "median diff"
        );
        for times in &mut times {
            times.sort_unstable_by(f64::total_cmp);
        }
        for (arm, own) in flow.arms.iter().zip(&times) {
            let at = |percent: usize| own[(own.len() * percent / 100).min(own.len() - 1)];
            println!(
                "  {:<12} {:>8.2} {:>8.2} {:>8.2} {:>8.2} {:>9.3} {:>+13.2}",
                arm.name(),
                at(10),
                at(50),
                at(90),
                at(99),
                area_under_curve(own, &times[0]),
                at(50) - times[0][times[0].len() / 2],
            );
        }
    }
}

fn body(email: &str, password: &str) -> Value {
    json!({ "name": "Ada", "email": email, "password": password, "redirectTo": "/" })
}

/// The probability that a random one of `own` is larger than a random one of `other`; both sorted.
fn area_under_curve(own: &[f64], other: &[f64]) -> f64 {
    let wins: f64 = own
        .iter()
        .map(|value| {
            let below = other.partition_point(|it| it < value);
            let same = other.partition_point(|it| it <= value) - below;
            below as f64 + same as f64 / 2.0
        })
        .sum();
    wins / (own.len() as f64 * other.len() as f64)
}

fn by_hand(database: &str, sql: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let (client, connection) = tokio_postgres::connect(database, tokio_postgres::NoTls).await.unwrap();
        let driving = tokio::spawn(connection);
        client.batch_execute(sql).await.unwrap();
        drop(client);
        driving.await.unwrap().unwrap();
    });
}
