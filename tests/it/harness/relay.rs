//! A way to some server, Postgres above all, that a test can cut, reset, freeze, slow down, and heal.
//!
//! Faults are of the way, not of the server: what was sent before them and had not arrived arrives after them, the end
//! of a connection among it. Connections that listen for notifications are known by their `LISTEN`, so that a test can
//! have a gateway deaf and nothing else; over TLS nobody could tell.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::{mpsc, watch},
    task::{AbortHandle, JoinSet},
    time::{Instant, timeout_at},
};

use super::Database;

/// Passes on what comes, both ways. Dropped, it is as if the server were gone: connections end, and new ones are refused.
pub(crate) struct Relay {
    addr: SocketAddr,
    accepting: AbortHandle,
    faults: watch::Sender<Faults>,
    lines: Lines,
    made: Arc<AtomicU32>,
}

/// Those that are open.
type Lines = Arc<Mutex<Vec<Arc<Line>>>>;

/// Which connections a fault concerns.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Whom {
    All,
    /// Those that have sent a `LISTEN`.
    Listeners,
    /// All but those.
    Others,
}

impl Whom {
    const fn is(self, listens: bool) -> bool {
        match self {
            Self::All => true,
            Self::Listeners => listens,
            Self::Others => !listens,
        }
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Way {
    Both,
    ToServer,
    ToClient,
}

/// What becomes of what comes.
#[derive(Clone, Copy, Debug, Default)]
enum Fate {
    #[default]
    Passes,
    /// It stays here.
    Waits,
    /// It passes so long after it came.
    PassesLate(Duration),
}

#[derive(Clone, Debug, Default)]
struct Faults {
    listeners: Ways,
    others: Ways,
    /// Where new connections lead; nowhere while they are refused.
    to: Option<String>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Ways {
    to_server: Fate,
    to_client: Fate,
}

/// How a connection ends before its time.
#[derive(Clone, Copy, Debug)]
enum End {
    Cut,
    Reset,
    Abandoned,
}

impl Relay {
    /// From now on `port` of this machine (0 is any) leads to `to`.
    pub(crate) async fn start(port: u16, to: String) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let lines = Lines::default();
        let (faults, seen) = watch::channel(Faults {
            to: Some(to),
            ..Faults::default()
        });
        let made = Arc::<AtomicU32>::default();
        let accepting = accept(listener, Arc::clone(&lines), Arc::clone(&made), seen);
        let accepting = tokio::spawn(accepting).abort_handle();
        Self {
            addr,
            accepting,
            faults,
            lines,
            made,
        }
    }

    /// A way to `db`, and the database as it is at its end.
    pub(crate) async fn before(db: &Database) -> (Self, Database) {
        let mut url: url::Url = db.url().parse().unwrap();
        let relay = Self::start(0, address_of(&url)).await;
        url.set_port(Some(relay.addr.port())).unwrap();
        (relay, db.by(url.as_str()))
    }

    pub(crate) const fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// How many connections there are.
    pub(crate) fn open(&self, whom: Whom) -> usize {
        let lines = self.lines.lock().unwrap();
        lines.iter().filter(|line| whom.is(line.listens())).count()
    }

    /// How many there ever were.
    pub(crate) fn made(&self) -> u32 {
        self.made.load(Ordering::Relaxed)
    }

    /// Ends connections in order: both sides are told.
    pub(crate) fn cut(&self, whom: Whom) {
        self.end(whom, End::Cut);
    }

    /// Ends connections with a reset.
    pub(crate) fn reset(&self, whom: Whom) {
        self.end(whom, End::Reset);
    }

    /// Nothing comes through connections any more, nor are clients ever told, as when a cable is pulled; the server knows.
    /// New ones are as ever.
    pub(crate) fn abandon(&self, whom: Whom) {
        self.end(whom, End::Abandoned);
    }

    fn end(&self, whom: Whom, how: End) {
        for line in self.lines.lock().unwrap().iter() {
            if whom.is(line.listens()) {
                line.end.send_replace(Some(how));
            }
        }
    }

    /// Nothing passes, through old connections and new ones, until it is healed.
    pub(crate) fn freeze(&self, whom: Whom, way: Way) {
        self.ordain(whom, way, Fate::Waits);
    }

    /// Whatever passes does so `by` later, until it is healed.
    pub(crate) fn delay(&self, whom: Whom, way: Way, by: Duration) {
        self.ordain(whom, way, Fate::PassesLate(by));
    }

    fn ordain(&self, whom: Whom, way: Way, fate: Fate) {
        self.faults.send_modify(|faults| {
            for (ways, listens) in [(&mut faults.listeners, true), (&mut faults.others, false)] {
                if !whom.is(listens) {
                    continue;
                }
                if way != Way::ToClient {
                    ways.to_server = fate;
                }
                if way != Way::ToServer {
                    ways.to_client = fate;
                }
            }
        });
    }

    /// New connections are reset as soon as they are made.
    pub(crate) fn refuse(&self) {
        self.faults.send_modify(|faults| faults.to = None);
    }

    /// New connections lead there, be it that they were refused.
    pub(crate) fn lead_to(&self, db: &Database) {
        let to = address_of(&db.url().parse().unwrap());
        self.faults.send_modify(|faults| faults.to = Some(to));
    }

    /// What was frozen or slow is no more.
    pub(crate) fn heal(&self) {
        self.faults.send_modify(|faults| {
            faults.listeners = Ways::default();
            faults.others = Ways::default();
        });
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

fn address_of(url: &url::Url) -> String {
    format!("{}:{}", url.host_str().unwrap(), url.port().unwrap_or(5432))
}

async fn accept(listener: TcpListener, lines: Lines, made: Arc<AtomicU32>, faults: watch::Receiver<Faults>) {
    // Ends with this task.
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        made.fetch_add(1, Ordering::Relaxed);
        let to = faults.borrow().to.clone();
        let Some(to) = to else {
            let _ = client.set_zero_linger();
            continue;
        };
        let (lines, faults) = (Arc::clone(&lines), faults.clone());
        connections.spawn(async move {
            let line = Arc::new(Line::default());
            lines.lock().unwrap().push(Arc::clone(&line));
            let abandoned = line.run(client, to, faults).await;
            lines.lock().unwrap().retain(|open| !Arc::ptr_eq(open, &line));
            if abandoned.is_some() {
                std::future::pending::<()>().await;
            }
        });
        while connections.try_join_next().is_some() {}
    }
}

/// One connection.
#[derive(Debug, Default)]
struct Line {
    listens: AtomicBool,
    end: watch::Sender<Option<End>>,
}

impl Line {
    fn listens(&self) -> bool {
        self.listens.load(Ordering::Relaxed)
    }

    /// Until its end; the client of a connection that was abandoned, who is to be kept waiting.
    async fn run(&self, mut client: TcpStream, to: String, faults: watch::Receiver<Faults>) -> Option<TcpStream> {
        let Ok(mut server) = TcpStream::connect(to).await else {
            let _ = client.set_zero_linger();
            return None;
        };
        for stream in [&client, &server] {
            stream.set_nodelay(true).unwrap();
        }
        let mut ends = self.end.subscribe();
        let end = {
            let (from_client, to_client) = client.split();
            let (from_server, to_server) = server.split();
            let passing = async {
                tokio::try_join!(
                    self.pass(from_client, to_server, &faults, Way::ToServer),
                    self.pass(from_server, to_client, &faults, Way::ToClient),
                )
            };
            tokio::select! {
                passed = passing => passed.err().map(|_| End::Reset),
                end = ends.wait_for(Option::is_some) => end.ok().and_then(|end| *end),
            }
        };
        match end {
            // Both have been told already.
            None => {}
            Some(End::Cut) => {
                let _ = client.shutdown().await;
                let _ = server.shutdown().await;
            }
            Some(End::Reset) => {
                let _ = client.set_zero_linger();
                let _ = server.set_zero_linger();
            }
            Some(End::Abandoned) => return Some(client),
        }
        None
    }

    /// One direction, until its end has passed. An error is one of `from`.
    async fn pass(
        &self,
        mut from: ReadHalf<'_>,
        mut to: WriteHalf<'_>,
        faults: &watch::Receiver<Faults>,
        way: Way,
    ) -> io::Result<()> {
        let (on_the_way, mut arriving) = mpsc::channel(64);
        let take = async move {
            loop {
                let mut chunk = vec![0; 16 << 10];
                let read = from.read(&mut chunk).await;
                let is_last = !matches!(read, Ok(1..));
                let read = read.map(|length| {
                    chunk.truncate(length);
                    chunk
                });
                if let (Way::ToServer, Ok(chunk)) = (way, &read)
                    && chunk.windows(8).any(|bytes| bytes == b"LISTEN \"")
                {
                    self.listens.store(true, Ordering::Relaxed);
                }
                if on_the_way.send((Instant::now(), read)).await.is_err() || is_last {
                    return;
                }
            }
        };
        let give = async move {
            while let Some((came, chunk)) = arriving.recv().await {
                self.let_pass(came, faults.clone(), way).await;
                // Who does not take it any more is heard of the other way, under that way's faults.
                let given = match chunk? {
                    chunk if chunk.is_empty() => to.shutdown().await,
                    chunk => to.write_all(&chunk).await,
                };
                if given.is_err() {
                    break;
                }
            }
            Ok(())
        };
        tokio::join!(take, give).1
    }

    /// Waits until what came at `came` may pass.
    async fn let_pass(&self, came: Instant, mut faults: watch::Receiver<Faults>, way: Way) {
        loop {
            let fate = {
                let faults = faults.borrow_and_update();
                let ways = if self.listens() {
                    faults.listeners
                } else {
                    faults.others
                };
                if way == Way::ToServer {
                    ways.to_server
                } else {
                    ways.to_client
                }
            };
            let changed = faults.changed();
            match fate {
                Fate::Passes => return,
                Fate::Waits => {
                    let _ = changed.await;
                }
                Fate::PassesLate(by) => {
                    if timeout_at(came + by, changed).await.is_err() {
                        return;
                    }
                }
            }
        }
    }
}
