//! Which server a connection leads to, whatever it is called.
//!
//! A name or an address may come to lead to another server (DNS, a virtual address, HAProxy) while the one before lives on,
//! with connections that look well. A gateway that hears of what is committed at the one and asks the other would miss
//! revocations. So each new connection of the pools is asked where it leads: if that is not where revocations are heard,
//! those from before are not used any more, and whoever listens begins anew. While no new ones are made all lead to one
//! server still; for that a probe goes where they would (`listen.rs`).

use tokio::sync::watch;
use tokio_postgres::{Client, SimpleQueryMessage};

/// Where connections are to lead.
#[derive(Debug, Default)]
pub(super) struct Expected(watch::Sender<Where>);

#[derive(Debug, Default)]
struct Where {
    /// `None` while revocations are heard from nowhere, or nobody knows.
    server: Option<String>,
    is_missed: bool,
}

impl Expected {
    pub(super) fn set(&self, server: Option<String>) {
        self.0.send_replace(Where {
            server,
            is_missed: false,
        });
    }

    /// Whether a new connection leads there, as far as is known.
    pub(super) fn is(&self, server: &str) -> bool {
        let missed = self.0.send_if_modified(|expected| {
            expected.is_missed |= expected.server.as_deref().is_some_and(|it| it != server);
            expected.is_missed
        });
        !missed
    }

    /// Resolves once one did not.
    pub(super) async fn is_missed(&self) {
        // The sender is ours.
        let _ = self.0.subscribe().wait_for(|expected| expected.is_missed).await;
    }
}

/// When the server was started: no two are at the same microsecond. The addresses by which it calls itself would depend on the
/// way there.
pub(super) async fn of(client: &Client) -> Option<String> {
    let started = "SELECT extract(epoch FROM pg_postmaster_start_time())";
    let said = client.simple_query(started).await.ok()?;
    said.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn another_server_is_noticed_where_one_is_expected() {
        let expected = Expected::default();
        assert!(expected.is("a"), "none is");
        expected.set(Some("a".to_owned()));
        assert!(expected.is("a"));
        assert!(expected.is_missed().now_or_never().is_none());
        assert!(!expected.is("b"));
        assert!(expected.is_missed().now_or_never().is_some());
        expected.set(Some("b".to_owned()));
        assert!(expected.is_missed().now_or_never().is_none());
        assert!(expected.is("b"));
    }
}
