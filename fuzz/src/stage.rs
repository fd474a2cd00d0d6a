//! A gateway between a client that writes any bytes and an upstream that takes nothing that is in doubt. The oracle says
//! what has to become of the bytes; this looks whether it did.
//!
//! Of each message that a client sends: what has to be forwarded arrives as exactly one request, with exactly the fields,
//! the body and the identity that the oracle says, and its own answer comes back; what has to be refused arrives as none.
//! Behind that the connection is closed or of use, as the message left it.
//!
//! Shared by path: the tests (`tests/it/framing.rs`, `decisions.rs`) bring a gateway of the harness, the fuzz target one of
//! its own.

use std::{
    fmt::Write as _,
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use oracle::{
    decision::{self, Decision, Forwarded, Refusal, World},
    http1::{self, Body, Doubt, Field, Read, Request, list, values},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    task::AbortHandle,
    time::timeout,
};

/// What takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(20);

/// What is refused at once is refused within this; a client that waits for longer hangs up.
const SOON: Duration = Duration::from_millis(100);

/// A refused body of more bytes need not be read to its end.
const DRAINED: usize = 32 * 1024;

pub struct Stage {
    gateway: SocketAddr,
    world: World,
    upstream: Recorder,
    /// How many requests have to have arrived.
    due: AtomicUsize,
}

/// What became of the messages of one connection.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub forwarded: usize,
    /// By a decision about a request that was read whole.
    pub refused: usize,
    /// Not HTTP, or more than one thing.
    pub malformed: usize,
    pub unfinished: usize,
    /// Of those in doubt, refused.
    pub doubted: usize,
}

impl Tally {
    pub fn add(&mut self, other: Self) {
        self.forwarded += other.forwarded;
        self.refused += other.refused;
        self.malformed += other.malformed;
        self.unfinished += other.unfinished;
        self.doubted += other.doubted;
    }
}

impl Stage {
    pub fn new(gateway: SocketAddr, world: World, upstream: Recorder) -> Self {
        Self {
            gateway,
            world,
            due: AtomicUsize::new(upstream.count()),
            upstream,
        }
    }

    pub fn world(&self) -> &World {
        &self.world
    }

    /// Sends `bytes` on a connection of their own, in pieces that end at `cuts`, and says what is wrong with what became of
    /// them.
    pub async fn play(&self, bytes: &[u8], cuts: &[usize]) -> Result<Tally, String> {
        let (steps, end) = self.steps(bytes);
        let (bytes, mut tally) = (&bytes[..end], Tally::default());
        self.count("before")?;
        let stream = TcpStream::connect(self.gateway)
            .await
            .map_err(|error| error.to_string())?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        let (reading, writing) = stream.into_split();
        let mut answers = Answers {
            stream: reading,
            unread: Vec::new(),
        };
        let pieces = pieces(bytes, cuts);
        let mut sending = Sending::Goes(tokio::spawn(send(writing, pieces)));
        let mut open = true;
        for (number, step) in steps.iter().enumerate() {
            let ended = self.follow(step, &mut answers, &mut sending, &mut tally).await;
            match ended.map_err(|error| format!("message {number}: {error}"))? {
                After::Open => {}
                After::Closed => {
                    open = false;
                    break;
                }
            }
        }
        if open {
            let writing = sending.done().await?;
            self.probe(writing, &mut answers).await?;
        }
        self.count("behind it")?;
        Ok(tally)
    }

    /// What has to become of each message, and how many bytes may be sent: the gateway's own API is not played with.
    fn steps(&self, bytes: &[u8]) -> (Vec<Step>, usize) {
        let mut steps = Vec::new();
        let mut at = 0;
        loop {
            match http1::read(&bytes[at..]) {
                Read::Nothing => return (steps, at),
                Read::Unfinished => {
                    // Where the head is whole, it may be for that API as well.
                    if contains(&bytes[at..], b"\r\n\r\n") && self.may_be_api(&bytes[at..]) {
                        return (steps, at);
                    }
                    steps.push(Step::Unfinished);
                    return (steps, bytes.len());
                }
                Read::Malformed(why) => {
                    if self.may_be_api(&bytes[at..]) {
                        return (steps, at);
                    }
                    let to_head = bytes[at..].trim_ascii_start().starts_with(b"HEAD ");
                    steps.push(Step::Malformed { why, to_head });
                    return (steps, bytes.len());
                }
                Read::Whole(request, length) => {
                    let decision = decision::decide(&request, self.gateway.ip(), &self.world);
                    if decision == Decision::OwnApi {
                        return (steps, at);
                    }
                    steps.push(Step::Whole(request, decision));
                    at += length;
                }
            }
        }
    }

    /// Of a message that is not read to its end.
    fn may_be_api(&self, bytes: &[u8]) -> bool {
        let line = bytes
            .split(|byte| *byte == b'\r')
            .find(|line| line.len() > 1)
            .unwrap_or_default();
        let Some(target) = line.split(|byte| *byte == b' ').nth(1) else {
            return false;
        };
        let path = oracle::client::split_target(target)
            .map(|(_, target)| target)
            .unwrap_or_default();
        let path = path.split(|byte| *byte == b'?').next().unwrap_or_default();
        let base = self.world.base_path.as_bytes();
        oracle::path::normal(path, oracle::path::Kept::default()).is_some_and(|normal| normal.path.starts_with(base))
    }

    async fn follow(
        &self,
        step: &Step,
        answers: &mut Answers,
        sending: &mut Sending,
        tally: &mut Tally,
    ) -> Result<After, String> {
        match step {
            Step::Unfinished => {
                tally.unfinished += 1;
                sending.end().await?;
                let rest = answers.rest().await?;
                if contains(&rest, b"x-seen") {
                    return Err(format!("it broke off, and was answered: {}", shown(&rest)));
                }
                Ok(After::Closed)
            }
            Step::Malformed { why, to_head } => {
                tally.malformed += 1;
                // The gateway may wait for more before it says so.
                if timeout(SOON, answers.read_to_end()).await.is_err() {
                    sending.end().await?;
                }
                // Who closes with bytes unread may take the answer back.
                if let Some(answer) = answers.next(*to_head).await?
                    && (answer.seen.is_some() || !is_refusal(answer.status))
                {
                    return Err(format!("{why}, and was answered: {answer:?}"));
                }
                let rest = answers.rest().await?;
                if !rest.is_empty() {
                    return Err(format!("{why}, and more came behind its refusal: {}", shown(&rest)));
                }
                Ok(After::Closed)
            }
            Step::Whole(request, decision) => self.follow_whole(request, decision, answers, tally).await,
        }
    }

    async fn follow_whole(
        &self,
        request: &Request,
        decision: &Decision,
        answers: &mut Answers,
        tally: &mut Tally,
    ) -> Result<After, String> {
        let Some(answer) = answers.next(request.method == b"HEAD").await? else {
            return Err(format!(
                "no answer, but the connection closed: {}",
                described(request, decision)
            ));
        };
        let complain = |what: &str| format!("{what}: {answer:?}\n{}", described(request, decision));
        let odd = request.doubt.is_some() || has_odd_target(&request.target);
        let body = match &request.body {
            Body::None => 0,
            Body::Sized(body) => body.len(),
            // Even an empty one has to be read.
            Body::Chunked(body) => body.len().max(1),
        };
        let mut may_close = odd;
        match (decision, answer.seen) {
            (Decision::Forward(forwarded), Some(number)) => {
                tally.forwarded += 1;
                self.due.fetch_add(1, Ordering::Relaxed);
                let seen = self.upstream.seen(number);
                let seen = seen.ok_or_else(|| complain("an answer to nothing"))?;
                if number + 1 != self.due.load(Ordering::Relaxed) {
                    return Err(complain("the answer to another request"));
                }
                if let Some(difference) = difference(forwarded, &seen) {
                    return Err(complain(&difference));
                }
            }
            (Decision::Forward(_), None) => {
                if !(odd && is_refusal(answer.status)) {
                    return Err(complain("refused, and had to be forwarded"));
                }
                tally.doubted += 1;
            }
            (Decision::Refuse(_), Some(_)) => return Err(complain("forwarded, and had to be refused")),
            (Decision::Refuse(refusal), None) => {
                tally.refused += 1;
                if !(statuses(*refusal).contains(&answer.status) || (odd && is_refusal(answer.status))) {
                    return Err(complain("refused as something else"));
                }
                // What was not asked for need not come; and who names its host in two ways may be read in two.
                may_close |= *refusal == Refusal::Host || (request.has(b"expect") && body > 0) || body > DRAINED;
            }
            (Decision::OwnApi, _) => return Err(complain("the gateway's own API was played with")),
        }
        let must_close = request.closes() || request.doubt == Some(Doubt::TwoFramings) || request.has(b"upgrade");
        if answer.closes || must_close {
            if !must_close && !may_close {
                return Err(complain("the connection is closed without need"));
            }
            let rest = answers.rest().await.map_err(|error| complain(&error))?;
            if !rest.is_empty() {
                return Err(complain(&format!("more came behind the last answer: {}", shown(&rest))));
            }
            return Ok(After::Closed);
        }
        Ok(After::Open)
    }

    /// Whether the connection is of use.
    async fn probe(&self, writing: &mut OwnedWriteHalf, answers: &mut Answers) -> Result<(), String> {
        let request = format!(
            "GET /public/probe HTTP/1.1\r\nHost: {}\r\n\r\n",
            self.world.trust.public
        );
        writing
            .write_all(request.as_bytes())
            .await
            .map_err(|error| format!("the probe: {error}"))?;
        let answer = answers.next(false).await?;
        let number = answer.as_ref().and_then(|answer| answer.seen);
        let seen = number.and_then(|number| self.upstream.seen(number));
        self.due.fetch_add(1, Ordering::Relaxed);
        match seen {
            Some(seen) if seen.target == b"/public/probe" && seen.body == Body::None => Ok(()),
            _ => Err(format!("the connection is of no use behind it: {answer:?}, {seen:?}")),
        }
    }

    /// Whether as many requests have arrived as have to.
    fn count(&self, when: &str) -> Result<(), String> {
        let (due, arrived) = (self.due.load(Ordering::Relaxed), self.upstream.count());
        if due != arrived {
            let last = self.upstream.seen(arrived.saturating_sub(1));
            return Err(format!(
                "{when}: {arrived} requests have arrived rather than {due}; the last is {last:?}"
            ));
        }
        match self.upstream.complaint() {
            None => Ok(()),
            Some(complaint) => Err(format!("the upstream got {complaint}")),
        }
    }
}

/// What the oracle says of a message.
enum Step {
    Whole(Box<Request>, Decision),
    Malformed { why: &'static str, to_head: bool },
    Unfinished,
}

enum After {
    Open,
    Closed,
}

/// Whether HTTP libraries may refuse a target that we would not: bytes that no URI has, though clients send them.
pub fn has_odd_target(target: &[u8]) -> bool {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/-._~!$&'()*+,;=:@%?{}[]|^".contains(byte);
    !target.starts_with(b"/") || !target.iter().all(plain) || target.len() > 8000
}

fn is_refusal(status: u16) -> bool {
    (400..=505).contains(&status)
}

fn statuses(refusal: Refusal) -> &'static [u16] {
    match refusal {
        Refusal::Method => &[405],
        Refusal::Expectation => &[417],
        Refusal::Host => &[400, 421],
        Refusal::Path => &[400],
        Refusal::NoRoute => &[404, 405, 501],
        Refusal::Upgrade => &[400, 403, 404, 426, 501],
        Refusal::Preflight => &[204, 403],
        Refusal::Origin | Refusal::Role => &[403],
        Refusal::SignIn => &[303, 401],
    }
}

/// What of a request that has arrived is not as it has to be.
pub fn difference(forwarded: &Forwarded, seen: &Request) -> Option<String> {
    if (&forwarded.method, &forwarded.target) != (&seen.method, &seen.target) {
        return Some(format!("arrived as {} {}", shown(&seen.method), shown(&seen.target)));
    }
    let mut fields: Vec<Field> = Vec::new();
    for (name, value) in &seen.fields {
        let name = name.to_ascii_lowercase();
        let value = if name == b"x-request-id" {
            Vec::new()
        } else {
            value.clone()
        };
        fields.push((name, value));
    }
    fields.sort();
    if fields != forwarded.fields {
        let without = |a: &[Field], b: &[Field]| {
            let mut left = a.to_vec();
            for field in b {
                if let Some(at) = left.iter().position(|other| other == field) {
                    left.remove(at);
                }
            }
            listed(&left)
        };
        let (more, less) = (without(&fields, &forwarded.fields), without(&forwarded.fields, &fields));
        return Some(format!("arrived with\n{more}and without\n{less}"));
    }
    let body = match &seen.body {
        Body::None => &[][..],
        Body::Sized(body) | Body::Chunked(body) => body,
    };
    if body != forwarded.body {
        return Some(format!("arrived with another body: {}", shown(body)));
    }
    let trailers: Vec<Field> = seen
        .trailers
        .iter()
        .map(|(name, value)| (name.to_ascii_lowercase(), value.clone()))
        .collect();
    let (mut came, mut due) = (trailers, forwarded.trailers.clone());
    came.sort();
    due.sort();
    (came != due).then(|| {
        format!(
            "arrived with the trailers\n{}rather than\n{}",
            listed(&came),
            listed(&due)
        )
    })
}

pub fn described(request: &Request, decision: &Decision) -> String {
    let mut text = format!(
        "of {} {} (doubt: {:?}), with\n{}it has to be: ",
        shown(&request.method),
        shown(&request.target),
        request.doubt,
        listed(&request.fields)
    );
    let _ = match decision {
        Decision::Forward(forwarded) => write!(
            text,
            "forwarded as {} {} with\n{}",
            shown(&forwarded.method),
            shown(&forwarded.target),
            listed(&forwarded.fields)
        ),
        other => write!(text, "{other:?}"),
    };
    text
}

fn listed(fields: &[Field]) -> String {
    let lines = fields
        .iter()
        .map(|(name, value)| format!("    {}: {}\n", shown(name), shown(value)));
    lines.collect()
}

/// Bytes as text that shows all of them.
pub fn shown(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window.eq_ignore_ascii_case(part))
}

fn pieces(bytes: &[u8], cuts: &[usize]) -> Vec<Vec<u8>> {
    let mut cuts: Vec<usize> = cuts.iter().copied().filter(|cut| *cut < bytes.len()).collect();
    cuts.push(bytes.len());
    cuts.sort_unstable();
    let mut from = 0;
    cuts.into_iter()
        .map(|cut| {
            let piece = bytes[from..cut].to_vec();
            from = cut;
            piece
        })
        .filter(|piece| !piece.is_empty())
        .collect()
}

/// As far as the gateway takes it: it may close before the last byte.
async fn send(mut stream: OwnedWriteHalf, pieces: Vec<Vec<u8>>) -> OwnedWriteHalf {
    for piece in pieces {
        if stream.write_all(&piece).await.is_err() {
            break;
        }
        // The gateway, on a thread of its own, gets a chance to see it alone.
        tokio::task::yield_now().await;
    }
    stream
}

/// The client's side of a connection.
enum Sending {
    Goes(tokio::task::JoinHandle<OwnedWriteHalf>),
    Done(OwnedWriteHalf),
    Ended,
}

impl Sending {
    /// Once all was sent, for more.
    async fn done(&mut self) -> Result<&mut OwnedWriteHalf, String> {
        if let Self::Goes(sending) = self {
            *self = match timeout(PATIENCE, sending).await {
                Ok(Ok(stream)) => Self::Done(stream),
                _ => return Err("the gateway does not take what it is sent".to_owned()),
            };
        }
        match self {
            Self::Done(stream) => Ok(stream),
            Self::Goes(_) | Self::Ended => Err("nothing can be sent any more".to_owned()),
        }
    }

    /// Nothing more will come.
    async fn end(&mut self) -> Result<(), String> {
        self.done().await?;
        // Dropped, it is shut.
        *self = Self::Ended;
        Ok(())
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        if let Self::Goes(sending) = self {
            sending.abort();
        }
    }
}

/// The gateway's answers on one connection.
struct Answers {
    stream: OwnedReadHalf,
    unread: Vec<u8>,
}

#[derive(Debug)]
struct Answer {
    status: u16,
    /// Which of the upstream's requests it answers.
    seen: Option<usize>,
    /// It says that the connection ends.
    closes: bool,
    /// Read for its end; shown where something is wrong.
    #[expect(dead_code, reason = "to be shown")]
    body: String,
}

impl Answers {
    /// More bytes; 0 at the end. A reset is one.
    async fn fill(&mut self) -> Result<usize, String> {
        let mut piece = [0; 4096];
        match timeout(PATIENCE, self.stream.read(&mut piece)).await {
            Err(_) => Err(format!("nothing comes any more, behind {}", shown(&self.unread))),
            Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionReset => Ok(0),
            Ok(Err(error)) => Err(error.to_string()),
            Ok(Ok(count)) => {
                self.unread.extend_from_slice(&piece[..count]);
                Ok(count)
            }
        }
    }

    /// Reads until the connection has ended. Cancel-safe: what has come stays.
    async fn read_to_end(&mut self) -> Result<(), String> {
        while self.fill().await? > 0 {}
        Ok(())
    }

    /// The next final answer; `None` if the connection ended before one began.
    async fn next(&mut self, to_head: bool) -> Result<Option<Answer>, String> {
        loop {
            let end = loop {
                if let Some(end) = self.unread.windows(4).position(|window| window == b"\r\n\r\n") {
                    break end + 4;
                }
                if self.fill().await? == 0 {
                    return if self.unread.is_empty() {
                        Ok(None)
                    } else {
                        Err(format!("an answer broke off: {}", shown(&self.unread)))
                    };
                }
            };
            let head: Vec<u8> = self.unread.drain(..end).collect();
            let text = String::from_utf8_lossy(&head).into_owned();
            let mut lines = text.split("\r\n");
            let start = lines.next().unwrap_or_default();
            let old = start.starts_with("HTTP/1.0");
            let status = start.get(9..12).and_then(|status| status.parse::<u16>().ok());
            let status = status.ok_or_else(|| format!("no answer: {text}"))?;
            if status < 200 && status != 101 {
                continue;
            }
            let fields: Vec<Field> = lines
                .filter_map(|line| line.split_once(':'))
                .map(|(name, value)| (name.as_bytes().to_vec(), value.trim().as_bytes().to_vec()))
                .collect();
            let number = |name: &[u8]| {
                let value = values(&fields, name).first().copied();
                value.and_then(|value| std::str::from_utf8(value).ok()?.parse::<usize>().ok())
            };
            let options = list(&fields, b"connection");
            let says = |wanted: &[u8]| options.iter().any(|option| option.eq_ignore_ascii_case(wanted));
            let length = if to_head || matches!(status, 204 | 304) {
                Some(0)
            } else {
                number(b"content-length")
            };
            while self.unread.len() < length.unwrap_or(usize::MAX) {
                if self.fill().await? == 0 {
                    if length.is_none() {
                        break;
                    }
                    return Err(format!("an answer's body broke off: {text}"));
                }
            }
            let length = length.unwrap_or(self.unread.len());
            let body: Vec<u8> = self.unread.drain(..length).collect();
            return Ok(Some(Answer {
                status,
                seen: number(b"x-seen"),
                closes: says(b"close") || (old && !says(b"keep-alive")),
                body: shown(&body),
            }));
        }
    }

    /// All that comes until the connection ends.
    async fn rest(&mut self) -> Result<Vec<u8>, String> {
        loop {
            match self.fill().await {
                Ok(0) => return Ok(std::mem::take(&mut self.unread)),
                Ok(_) => {}
                Err(error) => return Err(format!("the connection is left open: {error}")),
            }
        }
    }
}

/// An upstream that keeps each request, answers with its number, and complains about all that a strict reader would not
/// take, or could read in two ways.
pub struct Recorder {
    addr: SocketAddr,
    shared: Arc<Shared>,
    accepting: AbortHandle,
}

#[derive(Default)]
struct Shared {
    seen: Mutex<Vec<Request>>,
    complaints: Mutex<Vec<String>>,
}

impl Recorder {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let addr = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared::default());
        let accepting = tokio::spawn(accept(listener, Arc::clone(&shared))).abort_handle();
        Self {
            addr,
            shared,
            accepting,
        }
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// How many requests have arrived.
    pub fn count(&self) -> usize {
        self.shared.seen.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    pub fn seen(&self, number: usize) -> Option<Request> {
        self.shared
            .seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(number)
            .cloned()
    }

    /// The first thing that a strict reader would not have taken.
    pub fn complaint(&self) -> Option<String> {
        self.shared
            .complaints
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .first()
            .cloned()
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((stream, _)) = listener.accept().await {
        let _ = stream.set_nodelay(true);
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            if let Err(complaint) = serve(stream, &shared).await {
                shared
                    .complaints
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(complaint);
            }
        });
    }
}

/// Until the gateway closes.
async fn serve(mut stream: TcpStream, shared: &Shared) -> Result<(), String> {
    let mut unread = Vec::new();
    loop {
        match http1::read(&unread) {
            Read::Whole(request, length) => {
                if !matches!(request.doubt, None | Some(Doubt::Large)) {
                    return Err(format!("{:?}: {}", request.doubt, shown(&unread[..length])));
                }
                unread.drain(..length);
                let to_head = request.method == b"HEAD";
                let number = {
                    let mut seen = shared.seen.lock().unwrap_or_else(PoisonError::into_inner);
                    seen.push(*request);
                    seen.len() - 1
                };
                let body = if to_head { "" } else { "ok" };
                let answer = format!("HTTP/1.1 200 OK\r\nX-Seen: {number}\r\nContent-Length: 2\r\n\r\n{body}");
                if stream.write_all(answer.as_bytes()).await.is_err() {
                    return Ok(());
                }
            }
            Read::Malformed(why) => return Err(format!("{why}: {}", shown(&unread))),
            Read::Nothing | Read::Unfinished => {
                let mut piece = vec![0; 16 * 1024];
                match stream.read(&mut piece).await {
                    // A request that its client broke off breaks off.
                    Ok(0) | Err(_) => return Ok(()),
                    Ok(count) => unread.extend_from_slice(&piece[..count]),
                }
            }
        }
    }
}
