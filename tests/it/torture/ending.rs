//! The end of some sessions, or of what they were good for: from before the call to when all gateways know.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep, sleep_until};

use super::{
    chance::Chance,
    oracle::{Means, Right, Session, Verdict},
    world::World,
};

/// What is heard of has been heard of by then, on a machine that does much else.
const HEARD_BY: Duration = Duration::from_secs(2);

pub(super) struct Ending {
    targets: Vec<Arc<Session>>,
    right: Right,
    means: Means,
    /// The gateway that is asked, if it is one that is asked.
    at: Option<usize>,
    began: Instant,
}

impl Ending {
    /// To be called before anybody is asked.
    pub(super) fn begin(targets: Vec<Arc<Session>>, means: Means, at: Option<usize>) -> Self {
        let right = match means {
            Means::SqlRoles | Means::CliRoles => Right::Admin,
            _ => Right::Anything,
        };
        let began = Instant::now();
        for session in &targets {
            session.begins_to_end(right, means, at);
        }
        Self {
            targets,
            right,
            means,
            at,
            began,
        }
    }

    /// It was done at `done`, or nobody knows.
    pub(super) fn conclude(self, world: &Arc<World>, done: Option<Instant>, chance: &mut Chance) {
        if self.targets.is_empty() {
            return;
        }
        let Some(done) = done else {
            world.oracle.tally().in_doubt += 1;
            for session in &self.targets {
                session.is_in_doubt();
                world.has_ended(session);
            }
            return;
        };
        *world.oracle.tally().ended_by.entry(self.means).or_default() += 1;
        for session in &self.targets {
            world.oracle.has_ended(session, self.right, done);
            if self.right == Right::Anything {
                world.has_ended(session);
            }
        }
        // One of them stands for all: they were ended by one commit.
        let session = chance.of(&self.targets);
        if self.right == Right::Admin && !session.is_admin {
            return;
        }
        for gateway in 0..world.gates.len() {
            let watch = Watch {
                session: Arc::clone(session),
                right: self.right,
                means: self.means,
                gateway,
                began: self.began,
                done,
            };
            let watch_world = Arc::clone(world);
            if self.at == Some(gateway) {
                world.watchers.spawn(watch.here(watch_world));
            } else {
                world.watchers.spawn(watch.elsewhere(watch_world));
            }
        }
    }
}

/// Somebody who shows a session to a gateway until it is refused.
struct Watch {
    session: Arc<Session>,
    right: Right,
    means: Means,
    gateway: usize,
    /// Before the call that ended it.
    began: Instant,
    done: Instant,
}

impl Watch {
    /// The judge does the rest.
    async fn here(self, world: Arc<World>) {
        sleep_until(self.done).await;
        for _ in 0..3 {
            world.show(&self.session, self.right, self.gateway).await;
        }
    }

    async fn elsewhere(self, world: Arc<World>) {
        sleep_until(self.done).await;
        let gate = &world.gates[self.gateway];
        let deadline = self.done + gate.ttl + Duration::from_secs(5);
        let mut was_answered = true;
        loop {
            let shown = world.show(&self.session, self.right, self.gateway).await;
            match shown {
                Some((began, Verdict::Refused)) => {
                    let lag = began.saturating_duration_since(self.done);
                    let mut tally = world.oracle.tally();
                    if was_answered && gate.was_calm(self.began) {
                        tally.lag.push(lag);
                    } else {
                        tally.lag_in_faults.push(lag);
                    }
                    return;
                }
                // Past the bound the judge says so.
                Some((began, Verdict::Passed)) if began > deadline => return,
                Some((began, Verdict::Passed)) => {
                    let late = began.saturating_duration_since(self.done);
                    if late > HEARD_BY && gate.was_calm(self.began) {
                        world.finds(format!(
                            "gateway {} hears, and lets a request pass {late:?} after {:?}",
                            self.gateway, self.means
                        ));
                        return;
                    }
                }
                Some((_, Verdict::Unavailable)) | None if Instant::now() > deadline + Duration::from_secs(30) => {
                    world.finds(format!("gateway {} has not come back", self.gateway));
                    return;
                }
                Some((_, Verdict::Unavailable)) | None => was_answered = false,
            }
            // The longer it lasts, the less it matters to the millisecond.
            let waited = Instant::now().saturating_duration_since(self.done);
            if waited > Duration::from_millis(20) {
                sleep((waited / 20).min(Duration::from_millis(50))).await;
            }
        }
    }
}
