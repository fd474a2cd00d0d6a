//! Sessions that something happened to, and what is found when they are looked up again.
//!
//! A doubt ends in one of three ways: the session is still there (its streams go on, unless who it is may not take their
//! route any more), it is not (they end), or nobody can tell, and the next round asks again.
//!
//! Doubts are resolved a few hundred at a time, first where something was heard, then where everybody is in doubt. Once
//! somebody has waited for Postgres in vain, the rest is not asked for before the next tick.
//!
//! Nobody tells of what is done with the triggers off, and while deaf nobody hears of anything. A request learns of it when
//! the cache's time is over; no request ever asks for a stream. So all sessions with streams are looked up anew, past the
//! cache, once in that time.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::{About, State, Streams, Why};
use crate::{
    clock::{Clock, Timestamp},
    identity::{Session, UserId},
    secret::TokenHash,
    session::{LookupError, Sessions, Trust, lookup::MOST_AT_ONCE},
};

/// How often expiries are looked at, and look-ups that failed are tried again.
const TICK: Duration = Duration::from_secs(1);
/// Doubts that are resolved at once: about as many as leave in one query, so that requests which miss the cache meanwhile
/// wait for no more than that.
const AT_ONCE: usize = MOST_AT_ONCE;
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
    // It begins with a tick, and is to be over in time.
    let recheck_after = sessions.recheck_every.saturating_sub(TICK);
    let mut rechecked = Instant::now();
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            () = streams.shared.doubt.notified() => {}
            () = stop.cancelled() => return,
        }
        streams.notice_expiries(clock.now());
        // When Postgres is back all are in doubt anyway.
        if sessions.trust() != Trust::Unreachable && rechecked.elapsed() >= recheck_after {
            rechecked = Instant::now();
            streams.recheck_everything();
        }
        let resolving = resolve_all(&sessions, &clock, &*may_go_on);
        if stop.run_until_cancelled(resolving).await.is_none() {
            return;
        }
    }
}

/// Each doubt once; what nobody could tell is in doubt afterwards.
async fn resolve_all(sessions: &Arc<Sessions>, clock: &Clock, may_go_on: &Judge) {
    let streams = sessions.streams();
    let mut untold = Vec::new();
    let mut in_vain = false;
    while !in_vain {
        let now = clock.now();
        let mut doubtful = streams.take_doubtful(AT_ONCE);
        let found = if doubtful.is_empty() {
            doubtful = streams.take_to_recheck(AT_ONCE);
            join_all(doubtful.iter().map(|hash| sessions.check(hash, now))).await
        } else {
            join_all(doubtful.iter().map(|hash| sessions.authenticate(hash, now))).await
        };
        if doubtful.is_empty() {
            break;
        }
        for (hash, found) in doubtful.iter().zip(found) {
            match found {
                Ok(found) => streams.looked_up(hash, found.as_deref(), may_go_on, now),
                Err(error) => {
                    // While it is known that Postgres is away nobody waits.
                    in_vain |= !matches!(error, LookupError::Unreachable);
                    untold.push(*hash);
                }
            }
        }
    }
    for hash in untold {
        streams.not_looked_up(hash, clock.now());
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
            self.doubt_all();
        }
    }

    /// Each session is to be looked up, behind all that is in doubt. Those of the round before come first, if Postgres is too
    /// slow for it to be over.
    pub(super) fn recheck_everything(&self) {
        if !self.shared.follow_sessions {
            return;
        }
        let mut state = self.shared.state();
        let State {
            sessions, to_recheck, ..
        } = &mut *state;
        if to_recheck.is_empty() {
            to_recheck.extend(sessions.keys());
        }
    }

    /// At most so many of those.
    pub(super) fn take_to_recheck(&self, at_most: usize) -> Vec<TokenHash> {
        let mut state = self.shared.state();
        let State {
            sessions, to_recheck, ..
        } = &mut *state;
        let mut taken = Vec::new();
        while taken.len() < at_most
            && let Some(hash) = to_recheck.pop_front()
        {
            if sessions.contains_key(&hash) {
                taken.push(hash);
            }
        }
        taken
    }

    /// Behind what something is known to have happened to. Those that were in doubt before are among them.
    pub(super) fn doubt_all(&self) {
        let mut state = self.shared.state();
        state.doubtful_later = state.sessions.keys().copied().collect();
        let any = !state.doubtful_later.is_empty();
        drop(state);
        if any {
            self.shared.doubt.notify_one();
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

    /// Those whose time has come, as far as is known, are doubtful.
    pub(super) fn notice_expiries(&self, now: Timestamp) {
        if !self.shared.follow_sessions {
            return;
        }
        let mut state = self.shared.state();
        let State { sessions, doubtful, .. } = &mut *state;
        for (hash, held) in sessions {
            if now >= held.expires_at && !held.expiry_noticed {
                held.expiry_noticed = true;
                doubtful.insert(*hash);
            }
        }
    }

    /// Doubtful sessions, at most so many; they are in doubt no more, so that a doubt that comes up later counts anew.
    pub(super) fn take_doubtful(&self, at_most: usize) -> Vec<TokenHash> {
        let mut state = self.shared.state();
        let State {
            sessions,
            doubtful,
            doubtful_later,
            ..
        } = &mut *state;
        let mut taken: Vec<_> = doubtful.iter().take(at_most).copied().collect();
        for hash in &taken {
            doubtful.remove(hash);
        }
        while taken.len() < at_most
            && let Some(hash) = doubtful_later.pop_front()
        {
            if sessions.contains_key(&hash) && !taken.contains(&hash) {
                taken.push(hash);
            }
        }
        taken
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

    /// Nobody could tell: a later tick asks again, unless its time has been over for a while.
    pub(super) fn not_looked_up(&self, hash: TokenHash, now: Timestamp) {
        let mut state = self.shared.state();
        let Some(held) = state.sessions.get(&hash) else { return };
        if now < held.expires_at.plus(GIVE_UP_AFTER) {
            state.doubtful_later.push_back(hash);
            return;
        }
        drop(state);
        self.end_session(&hash, Why::Expired);
    }
}
