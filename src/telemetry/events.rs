//! What happens, in lines on standard error, by way of `tracing`.
//!
//! Those who say something are the data path's threads too: each answer that fails says why. So the lines are written
//! elsewhere ([`lines`](super::lines)), and are lost rather than waited for.

use std::{
    io::{self, IsTerminal, Write},
    sync::OnceLock,
};

use tracing_subscriber::{EnvFilter, Layer, fmt::MakeWriter, layer::SubscriberExt, util::SubscriberInitExt};

use super::lines::{Lane, LineWriter};
use crate::config::{Log, LogFormat};

/// Where all threads leave their lines. There is one subscriber in a process, and so one of these.
static LANE: OnceLock<Lane<Vec<u8>>> = OnceLock::new();

/// While it lives, events are written; what is left is written when it is dropped.
#[derive(Debug)]
#[must_use = "events are only written while it lives"]
pub struct Events {
    _writer: LineWriter,
}

impl Events {
    /// Sends events to standard error in the configured form. Only the first call in a process counts.
    pub fn init(log: &Log) -> io::Result<Self> {
        let writer = LineWriter::start("events", io::stderr())?;
        let lane = LANE.get_or_init(|| writer.lane());
        let filter = EnvFilter::try_new(&log.level).unwrap_or_else(|_| EnvFilter::new("info"));
        let lines = tracing_subscriber::fmt::layer()
            .with_writer(ToLane(lane))
            .with_ansi(io::stderr().is_terminal());
        let layer = match log.format {
            LogFormat::Json => lines.json().flatten_event(true).boxed(),
            LogFormat::Text => lines.with_target(false).boxed(),
        };
        // A second gateway in the same process (as in tests) logs through the first one's.
        let _ = tracing_subscriber::registry()
            .with(layer.with_filter(filter))
            .try_init();
        Ok(Self { _writer: writer })
    }
}

/// Events that nobody will read, in this process.
pub fn events_dropped() -> u64 {
    LANE.get().map_or(0, Lane::dropped)
}

/// Takes an event's line, which comes in one piece.
#[derive(Clone, Copy)]
struct ToLane(&'static Lane<Vec<u8>>);

impl MakeWriter<'_> for ToLane {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        *self
    }
}

impl Write for ToLane {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.add(|lines| lines.extend_from_slice(line));
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
