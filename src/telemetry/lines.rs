//! Lines that a thread of its own writes: whoever has something to say does not wait for whoever reads it.
//!
//! A container's log may stand still for a disk that is full, a pipe for a program that hangs. Lines are gathered in lanes, a
//! buffer each, from which the thread takes them. When nobody reads fast enough, lines are dropped and counted.

use std::{
    fmt,
    io::{self, Write},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{Receiver, channel},
    },
    thread::{self, JoinHandle, Thread},
    time::Duration,
};

/// Past it, lines of a lane are dropped: about 4,000 lines.
const LANE_BYTES: usize = 1 << 20;
/// At the end, for what is left to be written.
const LAST_LINES: Duration = Duration::from_secs(2);
/// Lines are gathered for so long, so that a busy gateway writes seldom.
const GATHER: Duration = Duration::from_millis(10);

/// What a lane gathers its lines in.
pub(super) trait Buffer: Default + Send + 'static {
    fn lines(&mut self) -> &mut Vec<u8>;
}

impl Buffer for Vec<u8> {
    fn lines(&mut self) -> &mut Self {
        self
    }
}

/// The thread that writes, until this is dropped.
#[derive(Debug)]
pub(super) struct LineWriter {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    /// The thread says that it has written everything.
    written: Mutex<Receiver<()>>,
}

/// Where lines are left.
#[derive(Debug)]
pub(super) struct Lane<B> {
    shared: Arc<Shared>,
    buffer: Arc<Mutex<B>>,
    writer: Thread,
}

struct Shared {
    lanes: Mutex<Vec<Arc<dyn Gathers>>>,
    dropped: AtomicU64,
    ending: AtomicBool,
}

/// A lane, as the thread has it.
trait Gathers: Send + Sync {
    /// Moves what it has behind `lines`.
    fn give(&self, lines: &mut Vec<u8>);
}

impl<B: Buffer> Gathers for Mutex<B> {
    fn give(&self, lines: &mut Vec<u8>) {
        lines.append(lock(self).lines());
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} dropped", self.dropped.load(Ordering::Relaxed))
    }
}

impl LineWriter {
    /// Starts a thread of that name which writes to `out`.
    pub(super) fn start(name: &str, out: impl Write + Send + 'static) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            lanes: Mutex::default(),
            dropped: AtomicU64::new(0),
            ending: AtomicBool::new(false),
        });
        let writing = Arc::clone(&shared);
        let (tell, written) = channel();
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || {
            write_lanes(&writing, out);
            let _ = tell.send(());
        })?;
        Ok(Self {
            shared,
            thread: Some(thread),
            written: Mutex::new(written),
        })
    }

    pub(super) fn lane<B: Buffer>(&self) -> Lane<B> {
        let buffer = Arc::<Mutex<B>>::default();
        lock(&self.shared.lanes).push(Arc::clone(&buffer) as Arc<dyn Gathers>);
        let writer = self
            .thread
            .as_ref()
            .map_or_else(thread::current, |thread| thread.thread().clone());
        Lane {
            shared: Arc::clone(&self.shared),
            buffer,
            writer,
        }
    }

    /// Lines that nobody will read.
    pub(super) fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }
}

impl Drop for LineWriter {
    /// Writes what is left.
    fn drop(&mut self) {
        self.shared.ending.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // Whoever reads may have stopped to: the thread is not waited for without end.
            if lock(&self.written).recv_timeout(LAST_LINES).is_err() {
                return;
            }
            let _ = thread.join();
        }
    }
}

fn write_lanes(shared: &Shared, mut out: impl Write) {
    let mut lines = Vec::new();
    loop {
        let ending = shared.ending.load(Ordering::Acquire);
        for lane in lock(&shared.lanes).iter() {
            lane.give(&mut lines);
        }
        if lines.is_empty() {
            if ending {
                return;
            }
            thread::park();
            thread::sleep(GATHER);
            continue;
        }
        // It may be closed or full: the gateway goes on without its log.
        let _ = out.write_all(&lines).and_then(|()| out.flush());
        lines.clear();
    }
}

impl<B> Lane<B> {
    /// As [`LineWriter::dropped`].
    pub(super) fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }
}

impl<B: Buffer> Lane<B> {
    /// Adds the line that `write` writes, if there is room.
    pub(super) fn add(&self, write: impl FnOnce(&mut B)) {
        let mut buffer = lock(&self.buffer);
        let gathered = buffer.lines().len();
        if gathered > LANE_BYTES {
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        write(&mut buffer);
        drop(buffer);
        if gathered == 0 {
            self.writer.unpark();
        }
    }
}

impl<B> Clone for Lane<B> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            buffer: Arc::clone(&self.buffer),
            writer: self.writer.clone(),
        }
    }
}

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What was written, for tests.
#[cfg(test)]
#[derive(Clone, Default)]
pub(super) struct Sink(Arc<Mutex<Vec<u8>>>);

#[cfg(test)]
impl Sink {
    pub(super) fn text(&self) -> String {
        String::from_utf8(lock(&self.0).clone()).unwrap()
    }
}

#[cfg(test)]
impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        lock(&self.0).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};

    use super::*;

    #[test]
    fn the_end_comes_after_the_last_line() {
        let sink = Sink::default();
        let writer = LineWriter::start("lines", sink.clone()).unwrap();
        let lanes: [Lane<Vec<u8>>; 2] = [writer.lane(), writer.lane()];
        for number in 0..1_000 {
            lanes[number % 2].add(|lines| writeln!(lines, "{number}").unwrap());
        }
        drop(writer);
        let mut numbers: Vec<usize> = sink.text().lines().map(|line| line.parse().unwrap()).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, (0..1_000).collect::<Vec<_>>());
    }

    /// Takes nothing until its other half is dropped.
    struct Stuck(Receiver<()>);

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn nobody_waits_for_a_reader_who_takes_nothing() {
        let (reader, stuck): (Sender<()>, _) = channel();
        let writer = LineWriter::start("lines", Stuck(stuck)).unwrap();
        let lane: Lane<Vec<u8>> = writer.lane();
        let thousand = [b'x'; 1_000];
        for _ in 0..10_000 {
            lane.add(|lines| lines.extend_from_slice(&thousand));
        }
        // Of ten megabytes one or two are kept.
        let dropped = writer.dropped();
        assert!((7_000..9_500).contains(&dropped), "{dropped} were dropped");
        drop(reader);
    }
}
