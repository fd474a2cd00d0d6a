//! Property: the whole decision, from the bytes of a connection to those that an upstream gets, as the oracle has it. The
//! gateway is the real one, with a Postgres of its own and sockets; see `stage`.
//!
//! The input's first byte says how the rest is cut on its way; the rest is what a client sends. In place of `{a}`, `{b}`,
//! `{c}` stand cookies of people (`configured::filled`).

use std::{io, sync::OnceLock};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    runtime::Runtime,
};
use tokio_util::sync::CancellationToken;
use vestibule::{
    app::{self, Options, Running, activation::Passed},
    clock::{Clock, Timestamp},
    config,
    dev::postgres::Cluster,
};

use super::{
    configured::filled,
    dice::Dice,
    stage::{Recorder, Stage, shown},
    world::{self, SignedIn},
};

/// 2026-11-21T08:00:00Z, and for ever.
const NOW: Timestamp = Timestamp::from_secs(1_795_248_000);
const SINCE: &str = "2026-11-21T08:00:00.000Z";
const PASSWORD: &str = "correct horse battery staple";

struct Playing {
    runtime: Runtime,
    stage: Stage,
    _running: Running,
    _cluster: Cluster,
}

pub fn holds(input: &[u8]) {
    static PLAYING: OnceLock<Playing> = OnceLock::new();
    let playing = PLAYING.get_or_init(start);
    let Some((how, text)) = input.split_first() else {
        return;
    };
    let bytes = filled(text, playing.stage.world());
    let cuts = Dice(u64::from(*how)).cuts(bytes.len());
    if let Err(error) = playing.runtime.block_on(playing.stage.play(&bytes, &cuts)) {
        panic!("{error}\nsent, cut at {cuts:?}: {}", shown(&bytes));
    }
}

fn start() -> Playing {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(1).enable_all().build().expect("a runtime");
    let cluster = Cluster::temporary().unwrap_or_else(|error| panic!("a Postgres of its own: {error}"));
    let (stage, running) = runtime.block_on(async {
        let upstream = Recorder::start().await;
        let text = format!(
            "
            [server]
            listen = '127.0.0.1:0'
            public_url = 'https://{host}'
            workers = 1
            [admin]
            listen = '127.0.0.1:0'
            [database]
            url = '{url}'
            pool_size = 2
            [auth]
            secret = 'a secret that only the tests use, and only here'
            [auth.password]
            argon2 = {{ memory = '64KiB', iterations = 1, parallelism = 1 }}
            max_concurrent = 1
            [auth.rate_limit]
            enabled = false
            [mail]
            from = 'Example <no-reply@example.com>'
            smtp = 'smtp://127.0.0.1:9'
            [upstreams.app]
            endpoints = ['http://{upstream}']
            {routes}",
            host = world::HOST,
            url = cluster.url("postgres"),
            upstream = upstream.addr(),
            routes = world::toml(&world::routes()),
        );
        let config = config::parse(&text, "gateway.toml", &|_| None).unwrap_or_else(|errors| panic!("{errors}"));
        let options = Options {
            clock: Clock::manual(NOW),
            cold: tokio::runtime::Handle::current(),
            access_log: Box::new(io::sink()),
            cancel: CancellationToken::new(),
            passed: Passed::nothing(),
        };
        let running = app::start(config, options)
            .await
            .unwrap_or_else(|error| panic!("{error:#}"));
        let gateway = running.public_addr();
        let (database, connection) = tokio_postgres::connect(&cluster.url("postgres"), tokio_postgres::NoTls)
            .await
            .expect("Postgres answers");
        tokio::spawn(connection);
        let mut people = Vec::new();
        for (email, roles) in [
            ("ada@example.com", &["user"][..]),
            ("root@example.com", &["admin", "user"]),
            ("gone@example.com", &[]),
        ] {
            let body = json!({ "name": "Ada Lovelace", "email": email, "password": PASSWORD });
            ask(gateway, "/api/auth/sign-up/email", "", &body).await;
            let change = "UPDATE auth.users SET email_verified = true, roles = $2 WHERE email = $1";
            database.execute(change, &[&email, &roles]).await.expect("a user");
            let (cookie, answer) = ask(gateway, "/api/auth/sign-in/email", "", &body).await;
            let text = |value: &Value| value.as_str().unwrap_or_else(|| panic!("{answer}")).to_owned();
            let find =
                "SELECT s.id::text FROM auth.user_sessions s JOIN auth.users u ON u.id = s.user_id WHERE u.email = $1";
            let session_id: String = database.query_one(find, &[&email]).await.expect("a session").get(0);
            people.push(world::person(&SignedIn {
                id: &text(&answer["user"]["id"]),
                email,
                session_id: &session_id,
                since: SINCE,
                token: &text(&answer["token"]),
                cookie: &cookie,
                roles,
            }));
            if email.starts_with("gone") {
                ask(gateway, "/api/auth/sign-out", &cookie, &json!({})).await;
            }
        }
        people[2].live = false;
        (Stage::new(gateway, world::world(people), upstream), running)
    });
    Playing {
        runtime,
        stage,
        _running: running,
        _cluster: cluster,
    }
}

/// The session cookie's value that an answer sets, and what it says.
async fn ask(gateway: std::net::SocketAddr, path: &str, cookie: &str, body: &Value) -> (String, Value) {
    let body = body.to_string();
    let host = world::HOST;
    let mut stream = TcpStream::connect(gateway).await.expect("the gateway listens");
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: {host}\r\nOrigin: https://{host}\r\nConnection: close\r\n\
         Cookie: __Host-vestibule.session_token={cookie}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.expect("the gateway listens");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    let (head, said) = answer.split_once("\r\n\r\n").expect("a whole answer");
    assert!(head.starts_with("HTTP/1.1 200"), "{answer}");
    let set = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let cookie = value.trim().strip_prefix("__Host-vestibule.session_token=")?;
        name.eq_ignore_ascii_case("set-cookie")
            .then(|| cookie.split(';').next().unwrap_or_default().to_owned())
    });
    (set.unwrap_or_default(), serde_json::from_str(said).unwrap_or_default())
}
