//! What a service manager is told, where there is one (`NOTIFY_SOCKET`; sd_notify(3)).
//!
//! With `Type=notify-reload` systemd waits at a start until the gateway is ready, and at a reload until it is done. Where
//! there is none, nothing is said.

use std::{io, process};

use sd_notify::NotifyState;
use tracing::debug;

/// Started, or done with a reload. The process is named: after a hand-over it is another one.
pub fn ready() {
    tell(&[NotifyState::Ready, NotifyState::MainPid(process::id())]);
}

pub fn reloading() {
    // systemd wants to know when, to tell this reload from one before.
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => debug!(%error, "the service manager was not told of a reload"),
    }
}

pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = send(state) {
        debug!(%error, "the service manager could not be told");
    }
}

#[cfg(not(target_os = "linux"))]
fn send(state: &[NotifyState<'_>]) -> io::Result<()> {
    sd_notify::notify(state)
}

/// An address that begins with `@` is a name of the kernel's rather than a path (sd_notify(3), unix(7)); the library knows
/// paths alone.
#[cfg(target_os = "linux")]
fn send(state: &[NotifyState<'_>]) -> io::Result<()> {
    use std::os::{
        linux::net::SocketAddrExt as _,
        unix::{
            ffi::OsStrExt as _,
            net::{SocketAddr, UnixDatagram},
        },
    };

    let address = std::env::var_os("NOTIFY_SOCKET").unwrap_or_default();
    let Some(name) = address.as_bytes().strip_prefix(b"@") else {
        return sd_notify::notify(state);
    };
    let lines: Vec<String> = state.iter().map(ToString::to_string).collect();
    let address = SocketAddr::from_abstract_name(name)?;
    UnixDatagram::unbound()?.send_to_addr(lines.join("\n").as_bytes(), &address)?;
    Ok(())
}
