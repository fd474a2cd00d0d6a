//! An application behind the gateway that keeps every byte it is sent and answers as it is told, badly too.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{
    io::{AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::AbortHandle,
};

use super::wire::{Head, read_body};

/// One request, whole.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) head: Head,
    pub(crate) body: Vec<u8>,
}

/// A request whose answer a test writes by hand; the body is still unread.
#[derive(Debug)]
pub(crate) struct Conversation {
    pub(crate) head: Head,
    pub(crate) stream: BufReader<TcpStream>,
}

impl Conversation {
    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.unwrap();
        self.stream.flush().await.unwrap();
    }
}

/// The conversations about one path, in the order in which they begin.
#[derive(Debug)]
pub(crate) struct Conversations(mpsc::UnboundedReceiver<Conversation>);

impl Conversations {
    pub(crate) async fn next(&mut self) -> Conversation {
        let next = tokio::time::timeout(super::SOON, self.0.recv()).await;
        next.expect("nothing reached the upstream").expect("the upstream runs")
    }
}

enum Script {
    /// These bytes, whatever was asked; the connection stays open.
    Answer(Vec<u8>),
    /// These bytes, then the connection is closed.
    AnswerAndClose(Vec<u8>),
    ByHand(mpsc::UnboundedSender<Conversation>),
}

#[derive(Default)]
struct Shared {
    seen: Mutex<Vec<Seen>>,
    scripts: Mutex<HashMap<String, Script>>,
    connections: AtomicUsize,
}

/// Answers `200 METHOD TARGET` unless scripted.
pub(crate) struct Upstream {
    addr: SocketAddr,
    shared: Arc<Shared>,
    accepting: AbortHandle,
}

impl Upstream {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        let accepting = tokio::spawn(accept(listener, Arc::clone(&shared))).abort_handle();
        Self {
            addr,
            shared,
            accepting,
        }
    }

    pub(crate) const fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Every request so far.
    pub(crate) fn requests(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap().clone()
    }

    /// How many requests came for a path.
    pub(crate) fn seen(&self, path: &str) -> usize {
        self.requests().iter().filter(|seen| seen.head.path() == path).count()
    }

    /// The request that came last.
    #[track_caller]
    pub(crate) fn last(&self) -> Seen {
        self.requests().pop().expect("a request reached the upstream")
    }

    /// How many connections were ever made to it.
    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// From now on answers requests for `path` with these bytes.
    pub(crate) fn answer(&self, path: &str, bytes: impl Into<Vec<u8>>) {
        self.script(path, Script::Answer(bytes.into()));
    }

    /// As [`Upstream::answer`], and then closes the connection.
    pub(crate) fn answer_and_close(&self, path: &str, bytes: impl Into<Vec<u8>>) {
        self.script(path, Script::AnswerAndClose(bytes.into()));
    }

    /// From now on hands requests for `path` to the test.
    pub(crate) fn by_hand(&self, path: &str) -> Conversations {
        let (give, take) = mpsc::unbounded_channel();
        self.script(path, Script::ByHand(give));
        Conversations(take)
    }

    fn script(&self, path: &str, script: Script) {
        self.shared.scripts.lock().unwrap().insert(path.to_owned(), script);
    }

    /// Refuses connections from now on; open ones stay.
    pub(crate) fn stop_listening(&self) {
        self.accepting.abort();
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        shared.connections.fetch_add(1, Ordering::SeqCst);
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            serve(stream, &shared).await;
        });
    }
}

/// Until the gateway closes, sends what can't be read, or a script takes the connection.
async fn serve(stream: TcpStream, shared: &Shared) {
    let mut stream = BufReader::new(stream);
    while let Ok(Some(head)) = Head::read(&mut stream).await {
        let path = head.path().to_owned();
        let by_hand = match shared.scripts.lock().unwrap().get(&path) {
            Some(Script::ByHand(give)) => Some(give.clone()),
            _ => None,
        };
        if let Some(give) = by_hand {
            let seen = Seen {
                head: head.clone(),
                body: Vec::new(),
            };
            shared.seen.lock().unwrap().push(seen);
            let _ = give.send(Conversation { head, stream });
            return;
        }
        let Ok(body) = read_body(&mut stream, head.request_framing()).await else {
            return;
        };
        let answer = format!("{} {}", head.method(), head.target());
        let no_body = head.method() == "HEAD";
        shared.seen.lock().unwrap().push(Seen { head, body });
        let (bytes, close) = match shared.scripts.lock().unwrap().get(&path) {
            Some(Script::Answer(bytes)) => (bytes.clone(), false),
            Some(Script::AnswerAndClose(bytes)) => (bytes.clone(), true),
            _ => (plain(&answer, no_body), false),
        };
        if stream.write_all(&bytes).await.is_err() || close {
            return;
        }
    }
}

fn plain(body: &str, no_body: bool) -> Vec<u8> {
    let length = body.len();
    let body = if no_body { "" } else { body };
    format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\r\n{body}").into_bytes()
}
