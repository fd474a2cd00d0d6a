//! Look-ups in Postgres: over the connections that are kept for them, on the runtime for cold work.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use tokio::{runtime::Handle, time::timeout};

use super::{Sessions, Source};
use crate::{
    clock::Timestamp,
    db::{self, Db},
    secret::TokenHash,
    session::{LookupError, Terms},
};

#[derive(Debug)]
pub struct Postgres {
    pub db: Db,
    /// Connections to Postgres belong to this runtime, and never to a thread of the data path.
    pub cold: Handle,
    /// What is made of what is found.
    pub terms: Arc<ArcSwap<Terms>>,
    /// For one query.
    pub patience: Duration,
}

impl Source for Postgres {
    type Connection = db::Client;

    async fn connect(&self) -> Result<Self::Connection, LookupError> {
        db::acquire(&self.db.hot).await.map_err(LookupError::of)
    }

    async fn find(
        &self,
        client: Self::Connection,
        hashes: &[TokenHash],
        now: Timestamp,
    ) -> Result<Sessions, LookupError> {
        let Ok(found) = timeout(self.patience, db::sessions::find(&client, hashes, now)).await else {
            // Its answer may still come, or the server is gone: the next look-up must not get this connection.
            client.discard();
            return Err(LookupError::Timeout(self.patience));
        };
        let found = found.map_err(LookupError::of)?;
        // Loaded now: whoever replaced them meanwhile forgets what others made.
        let terms = self.terms.load();
        let sessions = found.into_iter();
        Ok(sessions
            .map(|(hash, found)| (hash, Arc::new(terms.session(found))))
            .collect())
    }

    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.cold.spawn(work);
    }
}
