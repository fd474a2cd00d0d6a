//! What reloading ten thousand routes takes: from the file's bytes to the last worker going by them.
//!
//! `make bench-reload`, or `cargo bench --bench reload`; `-- --gateway PATH` measures another build. The program itself
//! runs, with Postgres, and nobody asks it for anything; its configuration file is replaced, and it says in its log how
//! long the reload took. Each round must have taken effect: a route answers which round it is.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a benchmark that can't go on says where and stops; its output is its purpose"
)]

#[expect(dead_code, reason = "shared with another benchmark, which looks at heads as well")]
mod http;
#[expect(dead_code, reason = "shared with another benchmark, which measures memory as well")]
mod proc;
mod routes;

use std::{
    env, fs,
    io::{BufRead, BufReader, Lines},
    net::{SocketAddr, TcpStream},
    process::{Child, ChildStderr, Command, Stdio},
    thread,
    time::Duration,
};

use vestibule::dev::postgres::Cluster;

const ROUTES: usize = 10_000;
const ROUNDS: usize = 15;
/// Milliseconds that it may take.
const BAR: f64 = 50.0;

fn main() {
    // `cargo test --all-targets` starts benchmarks too, without this flag and without optimisation.
    if !env::args().any(|argument| argument == "--bench") {
        println!("run by `cargo bench`");
        return;
    }
    let mut named = env::args().skip_while(|argument| argument != "--gateway");
    let program = named
        .nth(1)
        .unwrap_or_else(|| env!("CARGO_BIN_EXE_vestibule").to_owned());
    let folder = tempfile::tempdir().unwrap();
    let postgres = Cluster::temporary().unwrap_or_else(|error| panic!("{error}"));
    let (addr, admin, nowhere) = (http::free_addr(), http::free_addr(), http::free_addr());
    let database = postgres.url("postgres");
    let routes = routes::text(ROUTES);
    let text = |round: usize| {
        format!(
            r#"
            [server]
            listen = "{addr}"
            public_url = "http://localhost"
            drain_delay = "0s"
            [admin]
            listen = "{admin}"
            [log]
            format = "json"
            [database]
            url = "{database}"
            [auth]
            secret = "a secret that only this benchmark uses, and only here"
            [mail]
            from = "Bench <bench@example.com>"
            smtp = "smtp://{nowhere}"
            [upstreams.api]
            endpoints = ["http://{nowhere}"]
            [[routes]]
            path = "/round"
            methods = ["GET"]
            auth = "public"
            respond = {{ body = "{round}" }}
            {routes}"#
        )
    };
    let config = folder.path().join("gateway.toml");
    fs::write(&config, text(0)).unwrap();
    let mut gateway = Gateway::start(&program, &config);
    gateway.wait_for(addr);

    let before = proc::cpu_of_tree(gateway.child.id());
    let mut took: Vec<f64> = (1..=ROUNDS)
        .map(|round| {
            // At once: a file that is half there would be read as well.
            let whole = folder.path().join("next.toml");
            fs::write(&whole, text(round)).unwrap();
            fs::rename(&whole, &config).unwrap();
            let took = gateway.reloaded();
            let answer = http::call(addr, "GET /round", &[], "");
            assert_eq!((answer.status, answer.body), (200, round.to_string()));
            took
        })
        .collect();
    let cpu = proc::cpu_of_tree(gateway.child.id()).saturating_sub(before) / u32::try_from(ROUNDS).unwrap();
    took.sort_by(f64::total_cmp);
    let at = |place: usize| took.get(place).copied().unwrap_or_default();
    println!(
        "{ROUTES} routes, a file of {} KiB, {ROUNDS} reloads:",
        text(0).len() / 1024
    );
    // On a machine with other things to do, this says more.
    println!(
        "CPU {:.1} ms each, of all threads; what is freed afterwards is in it",
        cpu.as_secs_f64() * 1000.0
    );
    println!(
        "best {:.1} ms, median {:.1} ms, worst {:.1} ms; the bar is {BAR} ms",
        at(0),
        at(ROUNDS / 2),
        at(ROUNDS - 1)
    );
}

/// One that runs.
struct Gateway {
    child: Child,
    log: Lines<BufReader<ChildStderr>>,
}

impl Gateway {
    fn start(program: &str, config: &std::path::Path) -> Self {
        let mut child = Command::new(program)
            .args(["serve", "--config"])
            .arg(config)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = BufReader::new(child.stderr.take().unwrap()).lines();
        Self { child, log }
    }

    fn wait_for(&mut self, addr: SocketAddr) {
        while TcpStream::connect(addr).is_err() {
            if let Some(status) = self.child.try_wait().unwrap() {
                let said: Vec<String> = self.log.by_ref().map_while(Result::ok).collect();
                panic!("{status}\n{}", said.join("\n"));
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits for the next reload; the milliseconds that it took.
    fn reloaded(&mut self) -> f64 {
        for line in self.log.by_ref() {
            let line = line.unwrap();
            let said: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
            assert_ne!(
                said.get("level").and_then(|level| level.as_str()),
                Some("ERROR"),
                "{line}"
            );

            if let Some(took) = said.get("took").and_then(|took| took.as_str()) {
                return milliseconds(took);
            }
        }
        panic!("the gateway ended");
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let asked = Command::new("kill").arg(self.child.id().to_string()).status();
        if !asked.is_ok_and(|status| status.success()) {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}

/// As `Duration` writes itself.
fn milliseconds(text: &str) -> f64 {
    let number = |unit: &str| text.strip_suffix(unit)?.parse::<f64>().ok();
    let micros = number("µs").map(|micros| micros / 1000.0);
    let other = number("ms").or(micros).or_else(|| Some(number("s")? * 1000.0));
    other.unwrap_or_else(|| panic!("no duration: {text}"))
}
