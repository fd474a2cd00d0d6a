//! What works beside requests, on the runtime for cold work: the ears for revocations, mail, sweeping, keys.

use std::{panic::AssertUnwindSafe, sync::Arc};

use futures_util::FutureExt;

use super::{Options, sealing_keys};
use crate::{
    auth,
    clock::Clock,
    config::Config,
    db::{
        Connector, Db,
        listen::{self, Heard},
        migrate,
    },
    lifecycle::Tasks,
    mail::{Outbox, OutboxBell, Postman},
    session::{Sessions, assertion},
};

/// What works beside requests, on the runtime for cold work.
pub(super) fn start(
    tasks: &Tasks,
    connector: &Connector,
    config: &Config,
    db: &Db,
    sessions: &Arc<Sessions>,
    options: &Options,
    bell: OutboxBell,
) -> anyhow::Result<Postman> {
    let (clock, cold) = (&options.clock, &options.cold);
    let soft = || tasks.stop.soft.clone();
    let channel = migrate::channel(&config.database.schema);
    // Until the very end: a request that is being finished must still hear of revocations.
    let until = tasks.stop.hard.clone();
    let (hearing, stop) = (Arc::clone(sessions), Arc::clone(&tasks.stop));
    let connector = connector.clone();
    cold.spawn(async move {
        let ears = Arc::clone(&hearing);
        let listening = listen::run(connector, channel, move |heard| ears.hear(heard), until);
        let ended = AssertUnwindSafe(listening).catch_unwind().await;
        if ended.is_err() || !stop.hard.is_cancelled() {
            // Nobody listens any more: nothing of the cache may be believed, and the gateway goes.
            hearing.hear(Heard::Deaf { reachable: Some(true) });
            stop.failed.cancel();
        }
    });

    let outbox = {
        // The mail transport starts a task of its own: it must be on this runtime.
        let _entered = cold.enter();
        Outbox::new(db.clone(), &config.mail, sealing_keys(config), clock.clone(), bell)?
    };
    let postman = outbox.postman();
    tasks.spawn_essential("outbox", outbox.run(soft()));
    let places = Arc::clone(sessions.places());
    let last_seen = sessions.last_seen().clone();
    // Requests that are being finished are uses, too, and that may take as long as the grace.
    tasks.spawn_until_hard_stop("last seen", last_seen.run(db.clone(), places));
    tasks.spawn_essential("sweeper", auth::sweeper::run(db.clone(), clock.clone(), soft()));
    let signing = assertion::rotation::run(Arc::clone(sessions), db.clone(), clock.clone(), soft());
    tasks.spawn_essential("signing keys", signing);
    reseal(tasks, db, config, clock);
    Ok(postman)
}

/// Seals by today's secret what was sealed by another, if there is one.
pub(super) fn reseal(tasks: &Tasks, db: &Db, config: &Config, clock: &Clock) {
    if config.auth.secret.len() > 1 {
        let keys = sealing_keys(config);
        let soft = tasks.stop.soft.clone();
        tasks.spawn("resealing", auth::reseal::run(db.clone(), keys, clock.clone(), soft));
    }
}
