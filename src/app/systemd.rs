//! What a service manager is told, where there is one (`NOTIFY_SOCKET`; sd_notify(3)).
//!
//! With `Type=notify-reload` systemd waits at a start until the gateway is ready, and at a reload until it is done. Where
//! there is none, nothing is said.

use std::process;

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
    if let Err(error) = sd_notify::notify(state) {
        debug!(%error, "the service manager could not be told");
    }
}
