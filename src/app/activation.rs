//! Sockets that were open before the gateway started: systemd's socket activation.
//!
//! Whoever opened them keeps them, and with them the queue in the kernel: what arrives between the end of one gateway and
//! the start of the next waits there. So workers share such a socket, and nobody binds another beside it, whose queue
//! would end with the gateway.

use std::{fmt::Write as _, io, mem, os::fd::OwnedFd};

use anyhow::bail;
use listenfd::ListenFd;

use crate::config::{self, NotPassed};

/// The number of the first.
const FIRST: usize = 3;

/// What was handed over at the start, and is not taken yet.
#[derive(Debug)]
pub struct Passed(Result<Vec<Socket>, NotPassed>);

#[derive(Debug)]
struct Socket {
    name: String,
    /// `None`: a key has it. The error: it is nothing that connections come from.
    socket: Option<io::Result<OwnedFd>>,
}

impl Passed {
    /// For a gateway to which nothing is passed.
    pub const fn nothing() -> Self {
        Self(Err(NotPassed::Unset))
    }

    /// Takes what was passed to this process. Once, and before it has threads: the environment is changed, so that no
    /// child takes itself for meant.
    pub fn take() -> Self {
        let passed = match config::passed_sockets() {
            Ok(passed) => passed,
            Err(reason) => return Self(Err(reason)),
        };
        let mut opened = ListenFd::from_env();
        let sockets = passed.names.into_iter().enumerate().map(|(index, name)| Socket {
            name,
            socket: taken(&mut opened, index).transpose(),
        });
        Self(Ok(sockets.collect()))
    }

    /// The sockets that `fd:NAME` means: all of that name, or else the one of that number.
    pub(super) fn sockets(&mut self, name: &str) -> anyhow::Result<Vec<OwnedFd>> {
        let unit = format!("the .socket unit needs FileDescriptorName={name} and a ListenStream=");
        let all = match &mut self.0 {
            Ok(all) => all,
            Err(reason) => bail!("{reason}: start the gateway by a .socket unit; {unit}"),
        };
        let number = name.parse::<usize>().ok().and_then(|number| number.checked_sub(FIRST));
        let is_named = all.iter().any(|socket| socket.name == name);
        let meant = |(index, socket): &(usize, &mut Socket)| {
            if is_named {
                socket.name == name
            } else {
                number == Some(*index)
            }
        };
        let meant: Vec<_> = all.iter_mut().enumerate().filter(meant).collect();
        if meant.is_empty() {
            bail!("no socket of this name was handed over, but {}; {unit}", listed(all));
        }
        let taken = meant
            .into_iter()
            .map(|(index, socket)| match mem::take(&mut socket.socket) {
                Some(Ok(taken)) => Ok(taken),
                Some(Err(error)) => bail!("descriptor {}: {error}", index + FIRST),
                None => bail!("another key has descriptor {} already", index + FIRST),
            });
        taken.collect()
    }

    /// Those that no key has taken: whoever connects there waits for ever.
    pub(super) fn left(&self) -> Option<String> {
        let all = self.0.as_ref().ok()?;
        all.iter().any(|socket| socket.socket.is_some()).then(|| listed(all))
    }
}

/// `"http" (3), "https" (4)`, without those that are taken.
fn listed(all: &[Socket]) -> String {
    let mut text = String::new();
    let left = all.iter().enumerate().filter(|(_, socket)| socket.socket.is_some());
    for (index, socket) in left {
        let comma = if text.is_empty() { "" } else { ", " };
        let _ = write!(text, "{comma}{:?} ({})", socket.name, index + FIRST);
    }
    if text.is_empty() {
        text.push_str("nothing else");
    }
    text
}

fn taken(opened: &mut ListenFd, index: usize) -> io::Result<Option<OwnedFd>> {
    // The first does not take it if it is of the other family.
    if let Ok(listener) = opened.take_tcp_listener(index) {
        return Ok(listener.map(OwnedFd::from));
    }
    let listener = opened.take_unix_listener(index);
    let unfit = |_| io::Error::other("no stream socket: the unit needs ListenStream=, and Accept=no");
    Ok(listener.map_err(unfit)?.map(OwnedFd::from))
}
