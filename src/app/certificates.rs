//! What clients are shown, from the start on: certificates of files, and those that the gateway orders for itself.

use std::sync::Arc;

use anyhow::Context;

use super::sealing_keys;
use crate::{
    clock::Clock,
    config::Config,
    db::Db,
    lifecycle::Tasks,
    server::{
        acme::{self, Acme, Answers},
        tls::{Issued, Tls},
    },
};

/// What handshakes go by.
pub(super) struct Shown {
    /// `None`: no listener speaks TLS.
    pub tls: Option<Arc<Tls>>,
    /// `None`: no certificates are ordered.
    answers: Option<Arc<Answers>>,
}

impl Shown {
    /// Loads the certificates of files, and goes on loading them when they change.
    pub(super) fn load(config: &Config, clock: &Clock, tasks: &Tasks) -> anyhow::Result<Self> {
        let mut shown = Self {
            tls: None,
            answers: config.server.acme.as_ref().map(|_| Arc::default()),
        };
        if let Some(settings) = &config.server.tls {
            let tls = Tls::new(settings, shown.issued(), clock.clone());
            let tls = Arc::new(tls.context("TLS can't be set up ([server.tls])")?);
            let watching = Arc::clone(&tls).watch(tasks.stop.soft.clone());
            tasks.spawn_essential("certificates", watching);
            shown.tls = Some(tls);
        }
        Ok(shown)
    }

    pub(super) fn issued(&self) -> Option<Arc<dyn Issued>> {
        let answers = self.answers.as_ref().map(Arc::clone)?;
        Some(answers)
    }

    /// Puts those that are kept to use, before anybody is served, and goes on ordering and renewing.
    pub(super) async fn go_on_ordering(
        &self,
        config: &Config,
        db: &Db,
        clock: &Clock,
        tasks: &Tasks,
    ) -> anyhow::Result<Option<Arc<Acme>>> {
        let (Some(settings), Some(answers)) = (&config.server.acme, &self.answers) else {
            return Ok(None);
        };
        let acme = Acme::new(acme::Parts {
            settings: settings.clone(),
            answers: Arc::clone(answers),
            db: db.clone(),
            clock: clock.clone(),
            keys: sealing_keys(config),
        });
        let acme = Arc::new(acme.context("certificates can't be ordered ([server.acme])")?);
        let kept = acme.load().await;
        kept.context("the certificates that are kept can't be read")?;
        let soft = || tasks.stop.soft.clone();
        tasks.spawn_essential("ordered certificates", Arc::clone(&acme).watch(soft()));
        tasks.spawn_essential("certificate orders", Arc::clone(&acme).renew(soft()));
        Ok(Some(acme))
    }
}
