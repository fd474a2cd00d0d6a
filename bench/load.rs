//! The load: connections that each send the next request when the last is answered.
//!
//! Runs in a process of its own, so that its CPU is nobody's. For HTTP/1.1 it understands just enough to know where an
//! answer ends; anything but a 200 with a Content-Length is an error. HTTP/2 is hyper's.

mod h2;
mod tls;

use std::{
    cell::RefCell,
    env,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    process::Command,
    rc::Rc,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    task::LocalSet,
};

use crate::{scenario::Wire, sessions::Many};

/// What is to be sent.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Order {
    pub(crate) addr: SocketAddr,
    pub(crate) wire: Wire,
    /// The certificate that TLS is to trust, DER.
    pub(crate) trusted: Option<PathBuf>,
    pub(crate) path: String,
    pub(crate) cookies: Cookies,
    /// Bytes of the request's body.
    pub(crate) upload: usize,
    /// A new connection for each request.
    pub(crate) fresh: bool,
    /// Requests under way at a time.
    pub(crate) at_once: usize,
    pub(crate) slice: Duration,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) enum Cookies {
    None,
    One(String),
    /// Another one for each request.
    Many(Many),
}

/// What came of a slice.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Outcome {
    pub(crate) answered: u64,
    pub(crate) errors: u64,
    pub(crate) elapsed: Duration,
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
}

/// Starts this program again as the load, and waits for it.
pub(crate) fn start(order: &Order) -> Outcome {
    let output = Command::new(env::current_exe().unwrap())
        .args(["make-load", &serde_json::to_string(order).unwrap()])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// In the load's own process: an [`Order`] as JSON.
pub(crate) fn run(arguments: &[String]) {
    let [order] = arguments else { panic!("make-load ORDER") };
    let order: Order = serde_json::from_str(order).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let outcome = LocalSet::new().block_on(&runtime, carry_out(order));
    println!("{}", serde_json::to_string(&outcome).unwrap());
}

async fn carry_out(order: Order) -> Outcome {
    let work = Rc::new(Work {
        tls: order
            .trusted
            .as_deref()
            .map(|trusted| tls::connector(trusted, order.wire)),
        begin: Instant::now(),
        order,
        sent: RefCell::default(),
        tally: RefCell::default(),
    });
    let mut running = Vec::new();
    match work.order.wire {
        Wire::H2 => {
            for at in 0..work.order.at_once.div_ceil(h2::STREAMS) {
                running.push(tokio::task::spawn_local(h2::repeat(Rc::clone(&work), at)));
            }
        }
        Wire::Plain | Wire::Tls => {
            for at in 0..work.order.at_once {
                running.push(tokio::task::spawn_local(repeat(Rc::clone(&work), at)));
            }
        }
    }
    for one in running {
        if one.await.unwrap().is_none() {
            work.tally.borrow_mut().errors += 1;
        }
    }
    let elapsed = work.begin.elapsed();
    work.tally.borrow_mut().outcome(elapsed)
}

/// What all connections share.
struct Work {
    order: Order,
    tls: Option<tokio_rustls::TlsConnector>,
    begin: Instant,
    /// Requests that were begun.
    sent: RefCell<u64>,
    tally: RefCell<Tally>,
}

#[derive(Default)]
struct Tally {
    latencies_us: Vec<u32>,
    errors: u64,
}

impl Tally {
    fn outcome(&mut self, elapsed: Duration) -> Outcome {
        self.latencies_us.sort_unstable();
        let at = |share: usize| {
            let last = self.latencies_us.len().saturating_sub(1);
            let us = self.latencies_us.get(last * share / 100).copied().unwrap_or(0);
            Duration::from_micros(us.into())
        };
        Outcome {
            answered: self.latencies_us.len() as u64,
            errors: self.errors,
            elapsed,
            p50: at(50),
            p99: at(99),
        }
    }
}

impl Work {
    fn over(&self) -> bool {
        self.begin.elapsed() >= self.order.slice
    }

    /// The cookie of the next request.
    fn cookie(&self) -> Option<String> {
        let mut sent = self.sent.borrow_mut();
        *sent += 1;
        match &self.order.cookies {
            Cookies::None => None,
            Cookies::One(cookie) => Some(cookie.clone()),
            Cookies::Many(many) => Some(many.cookie(*sent)),
        }
    }

    fn answered(&self, begin: Instant) {
        let latency_us = u32::try_from(begin.elapsed().as_micros()).unwrap_or(u32::MAX);
        self.tally.borrow_mut().latencies_us.push(latency_us);
    }

    /// The `at`th connection, from an address of its own: many connections, one after the other, would use up the
    /// ports of one.
    async fn connect(&self, at: usize) -> Option<TcpStream> {
        let socket = TcpSocket::new_v4().ok()?;
        let from = Ipv4Addr::new(127, 0, 1, u8::try_from(at % 250).ok()? + 1);
        socket.bind(SocketAddr::new(IpAddr::V4(from), 0)).ok()?;
        let stream = socket.connect(self.order.addr).await.ok()?;
        stream.set_nodelay(true).ok()?;
        Some(stream)
    }
}

/// One connection after the other, until the slice is over; `None` when one met an error.
async fn repeat(work: Rc<Work>, at: usize) -> Option<()> {
    let mut buffer = vec![0; 64 << 10];
    let mut request = Request::new(&work.order);
    while !work.over() {
        // With connections that are kept, making them belongs to no request.
        let begin = work.order.fresh.then(Instant::now);
        let stream = work.connect(at).await?;
        if let Some(tls) = &work.tls {
            let stream = tls.connect(tls::name(), stream).await.ok()?;
            converse(&work, stream, &mut request, &mut buffer, begin).await?;
        } else {
            converse(&work, stream, &mut request, &mut buffer, begin).await?;
        }
    }
    Some(())
}

/// The bytes of a request, written anew only where they change.
struct Request {
    head: String,
    bytes: Vec<u8>,
    upload: usize,
}

impl Request {
    fn new(order: &Order) -> Self {
        let Order { path, upload, .. } = order;
        let line = if *upload > 0 {
            format!("POST {path} HTTP/1.1\r\nContent-Type: application/octet-stream\r\nContent-Length: {upload}\r\n")
        } else {
            format!("GET {path} HTTP/1.1\r\n")
        };
        Self {
            head: format!("{line}Host: localhost\r\nUser-Agent: bench\r\nAccept: */*\r\n"),
            bytes: Vec::new(),
            upload: *upload,
        }
    }

    fn write(&mut self, work: &Work) -> &[u8] {
        let constant = !matches!(work.order.cookies, Cookies::Many(_));
        if self.bytes.is_empty() || !constant {
            self.bytes.clear();
            self.bytes.extend_from_slice(self.head.as_bytes());
            if let Some(cookie) = work.cookie() {
                self.bytes.extend_from_slice(b"Cookie: ");
                self.bytes.extend_from_slice(cookie.as_bytes());
                self.bytes.extend_from_slice(b"\r\n");
            }
            self.bytes.extend_from_slice(b"\r\n");
            self.bytes.resize(self.bytes.len() + self.upload, b'x');
        }
        &self.bytes
    }
}

/// One connection's requests.
async fn converse(
    work: &Work,
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    request: &mut Request,
    buffer: &mut [u8],
    opened: Option<Instant>,
) -> Option<()> {
    loop {
        let begin = opened.unwrap_or_else(Instant::now);
        stream.write_all(request.write(work)).await.ok()?;
        stream.flush().await.ok()?;
        answer(&mut stream, buffer).await?;
        work.answered(begin);
        if work.over() || opened.is_some() {
            return Some(());
        }
    }
}

/// Reads one answer to its last byte.
async fn answer(stream: &mut (impl AsyncRead + Unpin), buffer: &mut [u8]) -> Option<()> {
    let mut filled = 0;
    let body_at = loop {
        match stream.read(buffer.get_mut(filled..)?).await {
            Ok(count @ 1..) => filled += count,
            _ => return None,
        }
        if let Some(at) = buffer[..filled].windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
    };
    let head = std::str::from_utf8(&buffer[..body_at]).ok()?;
    if !head.starts_with("HTTP/1.1 200 ") {
        return None;
    }
    let length: usize = head.split("\r\n").find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length")
            .then(|| value.trim().parse().ok())?
    })?;
    let mut missing = (body_at + length).checked_sub(filled)?;
    while missing > 0 {
        match stream.read(buffer).await {
            Ok(count @ 1..) => missing = missing.checked_sub(count)?,
            _ => return None,
        }
    }
    Some(())
}
