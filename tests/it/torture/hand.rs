//! A hand at psql: a connection straight to Postgres, made anew when it was lost.

use std::time::Duration;

use tokio::time::{Instant, timeout};
use tokio_postgres::{Client, NoTls, types::ToSql};

const PATIENCE: Duration = Duration::from_secs(10);

pub(super) struct Hand {
    url: String,
    client: Option<Client>,
}

impl Hand {
    pub(super) fn new(url: &str) -> Self {
        Self {
            url: url.to_owned(),
            client: None,
        }
    }

    /// When it was done; `None`: nobody knows whether it was.
    pub(super) async fn run(&mut self, sql: &str, values: &[&(dyn ToSql + Sync)]) -> Option<Instant> {
        let client = match self.client.take().filter(|client| !client.is_closed()) {
            Some(client) => client,
            None => self.connect().await?,
        };
        timeout(PATIENCE, client.execute(sql, values)).await.ok()?.ok()?;
        let done = Instant::now();
        self.client = Some(client);
        Some(done)
    }

    async fn connect(&self) -> Option<Client> {
        let connecting = tokio_postgres::connect(&self.url, NoTls);
        let (client, connection) = timeout(PATIENCE, connecting).await.ok()?.ok()?;
        tokio::spawn(connection);
        // A gateway that is frozen may hold locks; who waits for one is in everybody's way.
        let session = "SET search_path TO auth; SET lock_timeout = '1s'";
        client.batch_execute(session).await.ok()?;
        Some(client)
    }
}
