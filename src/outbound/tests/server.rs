//! A server on loopback that says byte by byte what a test wants, each connection on a thread of its own.

use std::{
    io::{ErrorKind, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use rustls::{ServerConfig, ServerConnection, StreamOwned, pki_types::PrivateKeyDer};

pub(super) struct Server {
    port: u16,
    seen: Arc<Seen>,
    stop: Arc<AtomicBool>,
    accepting: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Seen {
    log: Mutex<Log>,
    closed: Condvar,
}

#[derive(Default)]
struct Log {
    connections: usize,
    closed: usize,
    requests: Vec<String>,
}

impl Server {
    pub(super) fn start(serve: impl Fn(Peer) + Send + Sync + 'static) -> Self {
        Self::start_with(None, serve)
    }

    pub(super) fn start_tls(tls: Tls, serve: impl Fn(Peer) + Send + Sync + 'static) -> Self {
        Self::start_with(Some(tls), serve)
    }

    fn start_with(tls: Option<Tls>, serve: impl Fn(Peer) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (seen, stop) = (Arc::<Seen>::default(), Arc::<AtomicBool>::default());
        let serve = Arc::new(serve);
        let accepting = thread::spawn({
            let (seen, stop) = (Arc::clone(&seen), Arc::clone(&stop));
            move || {
                for socket in listener.incoming() {
                    if stop.load(Ordering::Acquire) {
                        break;
                    }
                    let (socket, seen, serve) = (socket.unwrap(), Arc::clone(&seen), Arc::clone(&serve));
                    seen.log.lock().unwrap().connections += 1;
                    let tls = tls.clone();
                    thread::spawn(move || {
                        let stream = Stream::new(socket, tls);
                        serve(Peer {
                            stream,
                            seen: Arc::clone(&seen),
                        });
                        seen.log.lock().unwrap().closed += 1;
                        seen.closed.notify_all();
                    });
                }
            }
        });
        Self {
            port,
            seen,
            stop,
            accepting: Some(accepting),
        }
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// A port at which nobody listens any more.
    pub(super) fn port_when_gone(self) -> u16 {
        self.port
    }

    pub(super) fn http(&self, path: &str) -> String {
        format!("http://localhost:{}{path}", self.port)
    }

    pub(super) fn https(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.port)
    }

    pub(super) fn connections(&self) -> usize {
        self.seen.log.lock().unwrap().connections
    }

    /// Heads with bodies, as they came.
    pub(super) fn requests(&self) -> Vec<String> {
        self.seen.log.lock().unwrap().requests.clone()
    }

    /// Waits until the server has closed as many connections.
    pub(super) fn closed(&self, count: usize) {
        let log = self.seen.log.lock().unwrap();
        drop(self.seen.closed.wait_while(log, |log| log.closed < count).unwrap());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        // Wakes the thread that waits for the next connection.
        drop(TcpStream::connect(("127.0.0.1", self.port)));
        let _ = self.accepting.take().map(JoinHandle::join);
    }
}

/// A certificate to serve with.
#[derive(Clone)]
pub(super) struct Tls(Arc<ServerConfig>);

impl Tls {
    pub(super) fn new(made: &rcgen::CertifiedKey<rcgen::KeyPair>) -> Self {
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        Self(Arc::new(config))
    }
}

/// Who connected.
pub(super) struct Peer {
    stream: Stream,
    seen: Arc<Seen>,
}

impl Peer {
    /// Reads a request and notes it down; whether there was one.
    pub(super) fn request(&mut self) -> bool {
        let (mut text, mut byte) = (Vec::new(), [0]);
        while !text.ends_with(b"\r\n\r\n") {
            match self.stream.read(&mut byte) {
                Ok(1) => text.extend(byte),
                _ => return false,
            }
        }
        let head = String::from_utf8(text).unwrap();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
        if self.stream.read_exact(&mut body).is_err() {
            return false;
        }
        let request = head + str::from_utf8(&body).unwrap();
        self.seen.log.lock().unwrap().requests.push(request);
        true
    }

    /// Whether they may still hear it.
    pub(super) fn say(&mut self, text: &str) -> bool {
        self.stream.write_all(text.as_bytes()).is_ok() && self.stream.flush().is_ok()
    }

    pub(super) fn ok(&mut self, body: &str) {
        self.say(&format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        ));
    }

    pub(super) fn until_closed(&mut self) {
        while matches!(self.stream.read(&mut [0; 64]), Ok(1..)) {}
    }

    pub(super) fn closed_within(&mut self, limit: Duration) -> bool {
        self.stream.socket().set_read_timeout(Some(limit)).unwrap();
        match self.stream.read(&mut [0; 64]) {
            Ok(count) => count == 0,
            Err(error) => !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
        }
    }
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ServerConnection, TcpStream>>),
}

impl Stream {
    fn new(socket: TcpStream, tls: Option<Tls>) -> Self {
        match tls {
            Some(Tls(config)) => Self::Tls(Box::new(StreamOwned::new(
                ServerConnection::new(config).unwrap(),
                socket,
            ))),
            None => Self::Plain(socket),
        }
    }

    fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(stream) => stream.get_ref(),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.read(buffer),
            Self::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        match self {
            Self::Plain(socket) => socket.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}
