//! Sessions that something happened to, and what is found when they are looked up again.
//!
//! A doubt ends in one of three ways: the session is still there (its streams go on, unless who it is may not take their
//! route any more), it is not (they end), or nobody can tell, and the next round asks again.

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt, stream};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::{About, State, Streams, Why};
use crate::{
    clock::{Clock, Timestamp},
    identity::{Session, UserId},
    secret::TokenHash,
    session::Sessions,
};

/// How often expiries are looked at, and look-ups that failed are tried again.
const TICK: Duration = Duration::from_secs(1);
/// Look-ups of doubtful sessions at once: they share connections with requests that miss the cache.
const LOOKUPS_AT_ONCE: usize = 8;
/// How long after its known expiry a session that can't be looked up passes for one that was extended.
pub(super) const GIVE_UP_AFTER: Duration = Duration::from_mins(1);

/// Whether a stream may go on in a session as it is now.
pub type Judge = dyn Fn(&About, &Session) -> bool + Send + Sync;

/// Looks doubtful sessions up and closes the streams of those that have ended, until `stop`. `may_go_on` judges whether
/// the user may still take the stream's route, who they are having perhaps changed. Cancel-safe.
pub async fn watch(sessions: Arc<Sessions>, clock: Clock, may_go_on: Arc<Judge>, stop: CancellationToken) {
    let streams = sessions.streams();
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            () = streams.shared.doubt.notified() => {}
            () = stop.cancelled() => return,
        }
        let now = clock.now();
        let doubtful = stream::iter(streams.take_doubtful(now));
        let resolving = doubtful.for_each_concurrent(LOOKUPS_AT_ONCE, |hash| {
            resolve(Arc::clone(&sessions), hash, Arc::clone(&may_go_on), now)
        });
        if stop.run_until_cancelled(resolving).await.is_none() {
            return;
        }
    }
}

async fn resolve(sessions: Arc<Sessions>, hash: TokenHash, may_go_on: Arc<Judge>, now: Timestamp) {
    let streams = sessions.streams();
    match sessions.authenticate(&hash, now).await {
        Ok(found) => streams.looked_up(&hash, found.as_deref(), &*may_go_on, now),
        Err(_) => streams.not_looked_up(hash, now),
    }
}

impl Streams {
    /// Something happened to a session, if it has streams at all: it has to be looked up.
    pub(in crate::session) fn doubt(&self, hash: &TokenHash) {
        if self.shared.follow_sessions {
            self.doubt_those(|state| state.sessions.contains_key(hash).then_some(*hash).into_iter().collect());
        }
    }

    /// The same for all sessions of a user.
    pub(in crate::session) fn doubt_user(&self, user: UserId) {
        if self.shared.follow_sessions {
            self.doubt_those(|state| state.users.get(&user).cloned().unwrap_or_default());
        }
    }

    pub(in crate::session) fn doubt_everything(&self) {
        if self.shared.follow_sessions {
            self.doubt_those(|state| state.sessions.keys().copied().collect());
        }
    }

    pub(super) fn doubt_those(&self, which: impl FnOnce(&State) -> Vec<TokenHash>) {
        let mut state = self.shared.state();
        let which = which(&state);
        let any = !which.is_empty();
        state.doubtful.extend(which);
        drop(state);
        if any {
            self.shared.doubt.notify_one();
        }
    }

    /// All doubtful sessions; they are in doubt no more, so that a doubt that comes up later counts anew.
    pub(super) fn take_doubtful(&self, now: Timestamp) -> Vec<TokenHash> {
        let mut state = self.shared.state();
        if self.shared.follow_sessions {
            let State { sessions, doubtful, .. } = &mut *state;
            for (hash, held) in sessions {
                if now >= held.expires_at && !held.expiry_noticed {
                    held.expiry_noticed = true;
                    doubtful.insert(*hash);
                }
            }
        }
        state.doubtful.drain().collect()
    }

    /// What a look-up of a doubtful session found.
    pub(super) fn looked_up(&self, hash: &TokenHash, found: Option<&Session>, may_go_on: &Judge, now: Timestamp) {
        let Some(session) = found else {
            let why = match self.shared.state().sessions.get(hash) {
                Some(held) if now >= held.expires_at => Why::Expired,
                Some(_) | None => Why::Revoked,
            };
            self.end_session(hash, why);
            return;
        };
        let streams: Vec<_> = {
            let mut state = self.shared.state();
            let Some(held) = state.sessions.get_mut(hash) else {
                return;
            };
            held.expires_at = session.expires_at;
            held.expiry_noticed = false;
            state.open_of(hash).cloned().collect()
        };
        let ends: Vec<_> = streams
            .into_iter()
            .filter(|open| !may_go_on(&open.about, session))
            .map(|open| open.end)
            .collect();
        self.shared.close(&ends, Why::NotAllowed);
    }

    /// Nobody could tell: the next tick asks again, unless its time has been over for a while.
    pub(super) fn not_looked_up(&self, hash: TokenHash, now: Timestamp) {
        let mut state = self.shared.state();
        let Some(held) = state.sessions.get(&hash) else { return };
        if now < held.expires_at.plus(GIVE_UP_AFTER) {
            state.doubtful.insert(hash);
            return;
        }
        drop(state);
        self.end_session(&hash, Why::Expired);
    }
}
