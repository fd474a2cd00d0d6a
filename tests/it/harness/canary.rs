//! What must not be said, and all that gateways say, held against each other, in every test of the suite.
//!
//! What the harness sees of secrets is noted by [`secret`]: passwords that it sends, tokens, cookies, codes and links that
//! it is given, keys that it makes. What a gateway says is noted by [`said`]: its events, all of them, the lines that its
//! process writes, its panics, and what it tells whom it refuses; when it ends ([`Watch`]), also its access log, its
//! metrics, and every column of every table of its database. A thread of its own compares, whichever of the two came
//! first; what it finds fails the next test that ends, with the line.
//!
//! Compared are words: runs of the characters that tokens are made of, and the same in hexadecimal digits, as Postgres
//! shows bytes. What has no long word in it, as a password may not, is looked for as it stands, from then on.
//! `tests/it/secrets.rs` shows that each of this is found.

use std::{
    collections::{HashMap, HashSet},
    fmt::Write as _,
    hash::{DefaultHasher, Hash, Hasher},
    io,
    net::SocketAddr,
    sync::{
        Arc, LazyLock,
        mpsc::{self, Receiver, Sender},
    },
    thread,
    time::Duration,
};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_postgres::{NoTls, SimpleQueryMessage};
use tracing_subscriber::{EnvFilter, Layer, layer::SubscriberExt, util::SubscriberInitExt};
use url::form_urlencoded;

use super::database::SCHEMA;

/// No word of a log is so long by chance, but for ids.
const WORD: usize = 20;

/// A shorter text would be found anywhere.
const PHRASE: usize = 12;

/// For what a gateway is asked at its end, which may be no more, and for its database, which may be shut.
const PATIENCE: Duration = Duration::from_secs(5);

/// Rows of a table that are looked at.
const ROWS: u32 = 2_000;

/// What a client's requests and answers call secrets.
const SECRET_NAMES: &[&str] = &[
    "password",
    "newPassword",
    "currentPassword",
    "token",
    "sessionToken",
    "accessToken",
    "refreshToken",
    "idToken",
    "access_token",
    "refresh_token",
    "id_token",
    "code",
    "code_verifier",
    "state",
    "nonce",
    "client_secret",
    "private_key",
];

/// Examples that documents and answers of the gateway show to everybody: no secrets, though tests send them as such.
const PUBLISHED: &[&str] = &["correct horse battery", "Zx4mR0bW7sQh1TnV9cKdLuYp2gAeJf8iMo5tBwNqXrE"];

/// Secrets and words, and where the two met.
#[derive(Default)]
pub(crate) struct Book {
    /// By the hash of the word.
    secrets: HashMap<u64, &'static str>,
    phrases: Vec<(&'static str, String)>,
    /// What a test says aloud itself.
    open: HashSet<u64>,
    /// Every long word so far, and where it was.
    words: HashMap<u64, Place>,
    found: Vec<String>,
}

#[derive(Clone)]
struct Place {
    name: &'static str,
    line: Arc<str>,
}

impl Book {
    /// `what` must not be said.
    pub(crate) fn secret(&mut self, what: &'static str, value: &str) {
        // Or an id that a test passes for a secret.
        if is_name_of_refusal(value) || is_uuid(value) || PUBLISHED.contains(&value) {
            return;
        }
        let mut has_word = false;
        for word in words(value).filter(|word| is_random(word)) {
            has_word = true;
            let hex = hex(word);
            for spelling in [word, &hex, &format!("x{hex}")] {
                let hash = hash(spelling);
                if self.open.contains(&hash) {
                    continue;
                }
                if self.secrets.insert(hash, what).is_none()
                    && let Some(place) = self.words.get(&hash).cloned()
                {
                    self.find(what, place.name, &place.line);
                }
            }
        }
        let is_plain = value.bytes().all(|byte| byte.is_ascii_alphabetic());
        // What else has no long word, as a `state` may that an attack is made of, is nobody's secret.
        let may_be_phrase = what.to_ascii_lowercase().contains("password") || what.contains("secret");
        if !has_word && may_be_phrase && value.len() >= PHRASE && !is_plain {
            let encoded: String = form_urlencoded::byte_serialize(value.as_bytes()).collect();
            for spelling in [value.to_owned(), encoded.replace('+', "%20"), encoded, hex(value)] {
                if !self.phrases.iter().any(|(_, known)| *known == spelling) {
                    self.phrases.push((what, spelling));
                }
            }
        }
    }

    /// `value` will be said, and is no secret any more.
    pub(crate) fn open(&mut self, value: &str) {
        for word in words(value) {
            self.secrets.remove(&hash(word));
            self.open.insert(hash(word));
        }
    }

    /// This was said, at `place`.
    pub(crate) fn said(&mut self, place: &'static str, text: &str) {
        for line in text.lines() {
            let mut kept = None;
            for word in words(line) {
                let hash = hash(word);
                if let Some(what) = self.secrets.get(&hash).copied() {
                    self.find(what, place, line);
                }
                self.words.entry(hash).or_insert_with(|| {
                    let line = kept.get_or_insert_with(|| Arc::from(clipped(line)));
                    Place {
                        name: place,
                        line: Arc::clone(line),
                    }
                });
            }
            let phrase = self.phrases.iter().find(|(_, phrase)| line.contains(phrase.as_str()));
            if let Some(what) = phrase.map(|(what, _)| *what) {
                self.find(what, place, line);
            }
        }
    }

    fn find(&mut self, what: &str, place: &str, line: &str) {
        self.found.push(format!("{what} in {place}: {}", clipped(line)));
    }

    /// What was found since this was asked last.
    pub(crate) fn found(&mut self) -> Vec<String> {
        std::mem::take(&mut self.found)
    }
}

/// Runs of the characters of base64url that are as long as those of tokens.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-' || c == '_'));
    words.filter(|word| word.len() >= WORD)
}

/// Such as `INVALID_TOKEN`: it stands under `code`, as what providers give out does.
fn is_name_of_refusal(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_')
}

/// Not one that a test made of one letter.
fn is_random(word: &str) -> bool {
    let mut letters: Vec<u8> = word.bytes().collect();
    letters.sort_unstable();
    letters.dedup();
    letters.len() >= 8
}

fn is_uuid(text: &str) -> bool {
    text.len() == 36 && text.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
}

fn hash(word: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    word.hash(&mut hasher);
    hasher.finish()
}

pub(crate) fn hex(text: &str) -> String {
    text.bytes().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").unwrap();
        hex
    })
}

fn clipped(line: &str) -> String {
    line.chars().take(600).collect()
}

/// How much was heard.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Heard {
    pub(crate) secrets: usize,
    pub(crate) events: usize,
    pub(crate) access_logs: usize,
    pub(crate) metrics: usize,
    pub(crate) databases: usize,
}

/// What the thread is told.
enum Note {
    Count(Sender<Heard>),
    Secret(&'static str, String),
    Open(String),
    Said(&'static str, String),
    /// A gateway ends; all that was found so far.
    End(Option<Ending>, Sender<Vec<String>>),
}

struct Ending {
    admin: SocketAddr,
    database: String,
    access_log: String,
}

static THREAD: LazyLock<Sender<Note>> = LazyLock::new(|| {
    let (tell, told) = mpsc::channel();
    let keep = move || keep(&told);
    thread::Builder::new().name("canaries".to_owned()).spawn(keep).unwrap();
    tell
});

fn keep(told: &Receiver<Note>) {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().build().unwrap();
    let (mut book, mut heard) = (Book::default(), Heard::default());
    for note in told {
        match note {
            Note::Count(tell) => {
                let _ = tell.send(heard);
            }
            Note::Secret(what, value) => {
                heard.secrets += 1;
                book.secret(what, &value);
            }
            Note::Open(value) => book.open(&value),
            Note::Said(place, text) => {
                heard.events += usize::from(place == EVENT);
                book.said(place, &text);
            }
            Note::End(ending, tell) => {
                if let Some(ending) = ending {
                    heard.access_logs += usize::from(!ending.access_log.is_empty());
                    book.said("the access log", &ending.access_log);
                    if let Some(metrics) = runtime.block_on(metrics(ending.admin)) {
                        heard.metrics += usize::from(metrics.contains("vestibule_"));
                        book.said("the metrics", &metrics);
                    }
                    if let Some(rows) = runtime.block_on(rows(&ending.database)) {
                        heard.databases += usize::from(!rows.is_empty());
                        book.said("the database", &rows);
                    }
                }
                let _ = tell.send(book.found());
            }
        }
    }
}

/// `None`: the gateway has ended.
async fn metrics(admin: SocketAddr) -> Option<String> {
    let asking = async {
        let mut stream = TcpStream::connect(admin).await.ok()?;
        let request = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.ok()?;
        Some(String::from_utf8_lossy(&answer).into_owned())
    };
    timeout(PATIENCE, asking).await.ok()?
}

/// The rows of all tables, as text; bytes are in hexadecimal digits. `None`: the database is shut, or has no tables.
pub(crate) async fn rows(database: &str) -> Option<String> {
    let asking = async {
        let (client, connection) = tokio_postgres::connect(database, NoTls).await.ok()?;
        let asked = async {
            let tables =
                format!("SELECT relname FROM pg_class WHERE relnamespace = '{SCHEMA}'::regnamespace AND relkind = 'r'");
            let tables = values(&client.simple_query(&tables).await.ok()?);
            let each = tables
                .lines()
                .map(|table| format!("SELECT '{table} ' || t::text FROM {SCHEMA}.{table} AS t LIMIT {ROWS};"));
            Some(values(&client.simple_query(&each.collect::<String>()).await.ok()?))
        };
        tokio::select! {
            asked = asked => asked,
            _ = connection => None,
        }
    };
    timeout(PATIENCE, asking).await.ok()?
}

fn values(messages: &[SimpleQueryMessage]) -> String {
    let rows = messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    });
    rows.fold(String::new(), |text, row| text + row + "\n")
}

/// Notes something that must not be said.
pub(crate) fn secret(what: &'static str, value: impl Into<String>) {
    let _ = THREAD.send(Note::Secret(what, value.into()));
}

/// Notes that a test is about to say a secret aloud, where the gateway repeats it: in a path.
pub(crate) fn open(value: impl Into<String>) {
    let _ = THREAD.send(Note::Open(value.into()));
}

/// Notes what was said, and where.
pub(crate) fn said(place: &'static str, text: impl Into<String>) {
    let _ = THREAD.send(Note::Said(place, text.into()));
}

/// Notes the secrets of a request that a client is about to send.
pub(crate) fn of_request(target: &str, fields: &[(String, String)], body: Option<&[u8]>) {
    of_url(target);
    for (name, value) in fields {
        if name.eq_ignore_ascii_case("authorization")
            && let Some((_, token)) = value.split_once(' ')
        {
            secret("a bearer token", token);
        }
    }
    let Some(body) = body else { return };
    match serde_json::from_slice(body) {
        Ok(json) => of_json(&json),
        // A form, then.
        Err(_) => of_fields(body),
    }
}

/// Notes the secrets of an answer, and that it must not repeat those of the request if it refuses.
pub(crate) fn of_answer(target: &str, answer: &super::client::Response) {
    for cookie in answer.head.all("set-cookie") {
        let (name, value) = cookie.split_once('=').unwrap_or_default();
        let value = value.split(';').next().unwrap_or_default();
        // A mark, and a signature that is the same for all.
        if !name.ends_with("dont_remember") {
            secret("a cookie", value.replace("%2B", "+").replace("%2F", "/"));
        }
    }
    if let Some(token) = answer.head.one("set-auth-token") {
        secret("a session token", token);
    }
    if let Some(target) = answer.head.one("location") {
        of_url(target);
    }
    let Ok(json) = serde_json::from_slice(&answer.body) else {
        return;
    };
    // What a refusal calls `code` is the name of an error.
    if answer.status() < 400 {
        of_json(&json);
    } else if target.starts_with("/api/auth/") {
        said("an answer that refuses", answer.text());
    }
}

/// Notes what a JSON text holds under the names of secrets.
pub(crate) fn of_json(json: &Value) {
    match json {
        Value::Object(map) => {
            for (name, value) in map {
                match (SECRET_NAMES.iter().find(|known| *known == name), value) {
                    (Some(name), Value::String(text)) => secret(name, text),
                    (None, Value::String(text)) if name == "url" => of_url(text),
                    _ => of_json(value),
                }
            }
        }
        Value::Array(values) => values.iter().for_each(of_json),
        _ => {}
    }
}

/// Notes the secrets in a URL: parameters by name, and the tokens of links.
pub(crate) fn of_url(url: &str) {
    let (path, query) = url.split_once('?').unwrap_or((url, ""));
    if let Some((_, token)) = path.split_once("/reset-password/") {
        secret("the token of a link", token);
    }
    of_fields(query.as_bytes());
}

fn of_fields(encoded: &[u8]) {
    for (name, value) in form_urlencoded::parse(encoded) {
        if let Some(name) = SECRET_NAMES.iter().find(|known| **known == name) {
            secret(name, value);
        }
    }
}

/// Hears what gateways in this process say, from now on; once is enough.
pub(crate) fn listen() {
    static LISTENING: LazyLock<()> = LazyLock::new(|| {
        // What libraries say of each frame and each read is too much; tests/it/secrets.rs hears it.
        let filter = EnvFilter::new("debug,vestibule=trace,h2=info");
        let lines = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(|| Ear);
        let _ = tracing_subscriber::registry()
            .with(lines.with_filter(filter))
            .try_init();
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            // Not those of tests, which show what they compare.
            let thread = thread::current();
            let ours = ["worker-", "cold", "password-", "access-log"];
            let name = thread.name().unwrap_or_default();
            if ours.iter().any(|prefix| name.starts_with(prefix)) {
                said("a panic", panic.to_string());
            }
            before(panic);
        }));
    });
    LazyLock::force(&LISTENING);
}

const EVENT: &str = "an event";

/// Takes an event.
struct Ear;

impl io::Write for Ear {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        said(EVENT, String::from_utf8_lossy(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Looks through what a gateway leaves behind, when it is dropped.
pub(crate) struct Watch {
    /// `None`: a process, whose output is heard anyway.
    pub(crate) gateway: Option<Left>,
}

/// Where a gateway leaves what it says.
pub(crate) struct Left {
    pub(crate) admin: SocketAddr,
    pub(crate) database: String,
    pub(crate) access_log: Box<dyn Fn() -> String + Send + Sync>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        if thread::panicking() {
            return;
        }
        let ending = self.gateway.take().map(|left| Ending {
            admin: left.admin,
            database: left.database,
            access_log: (left.access_log)(),
        });
        let found = look(ending);
        assert!(found.is_empty(), "secrets lie open:\n{}", found.join("\n"));
    }
}

/// How much there was so far, of the whole suite.
pub(crate) fn heard() -> Heard {
    let (tell, told) = mpsc::channel();
    let _ = THREAD.send(Note::Count(tell));
    told.recv_timeout(Duration::from_mins(1)).expect("the canaries live")
}

fn look(ending: Option<Ending>) -> Vec<String> {
    let (tell, told) = mpsc::channel();
    let _ = THREAD.send(Note::End(ending, tell));
    told.recv_timeout(Duration::from_mins(1)).expect("the canaries live")
}
