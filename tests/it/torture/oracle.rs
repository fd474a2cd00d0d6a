//! The judge: it knows when each session was ended by whom, and what each request that began when was answered.
//!
//! It shares nothing with the gateways but the machine's clock. A call that was answered otherwise than by "done" may have
//! ended a session or not: whatever becomes of that one is right from then on.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use tokio::time::Instant;

/// How sessions end, or rights do.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Means {
    SignOut,
    RevokeOne,
    RevokeOthers,
    RevokeAll,
    ChangePassword,
    ResetPassword,
    DeleteUser,
    UpstreamAsks,
    MaxPerUser,
    SqlRevoke,
    SqlDelete,
    SqlExpire,
    SqlExpireSoon,
    SqlNewHash,
    SqlBan,
    SqlDeleteUser,
    SqlRoles,
    SqlTruncate,
    CliRevoke,
    CliBan,
    CliDelete,
    CliRoles,
}

/// What a session is good for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Right {
    Anything = 0,
    /// The administrators' route.
    Admin = 1,
}

pub(super) struct Session {
    pub(super) user: String,
    pub(super) cookie: String,
    pub(super) token: String,
    pub(super) is_admin: bool,
    /// When whoever signed in was told.
    since: Instant,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    ends: [Option<End>; 2],
    in_doubt: bool,
}

struct End {
    means: Means,
    /// The gateway that was asked; by hand, none was.
    at: Option<usize>,
    /// When whoever ended it was told that it is done.
    answered: Option<Instant>,
    /// Requests that passed before that was known: gateway and beginning.
    passed: Vec<(usize, Instant)>,
}

impl Session {
    pub(super) fn new(user: String, cookie: String, token: String, is_admin: bool) -> Arc<Self> {
        Arc::new(Self {
            user,
            cookie,
            token,
            is_admin,
            since: Instant::now(),
            state: Mutex::default(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// From here on it may be refused.
    pub(super) fn begins_to_end(&self, right: Right, means: Means, at: Option<usize>) {
        for end in &mut self.state().ends[right as usize..] {
            end.get_or_insert(End {
                means,
                at,
                answered: None,
                passed: Vec::new(),
            });
        }
    }

    /// Nobody knows what became of it.
    pub(super) fn is_in_doubt(&self) {
        self.state().in_doubt = true;
    }

    /// When its end was answered, if it was.
    pub(super) fn ended(&self) -> Option<Instant> {
        self.state().ends[0].as_ref().and_then(|end| end.answered)
    }

    /// How it was ended, and by which gateway, if by one.
    pub(super) fn ended_by(&self) -> Option<(Means, Option<usize>)> {
        self.state().ends[0].as_ref().map(|end| (end.means, end.at))
    }

    pub(super) fn doubted(&self) -> bool {
        self.state().in_doubt
    }

    /// Whether it need not be good any more.
    pub(super) fn may_have_ended(&self) -> bool {
        let state = self.state();
        state.in_doubt || state.ends[0].is_some()
    }
}

/// What was answered to a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Verdict {
    Passed,
    Refused,
    Unavailable,
}

#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) passed: u64,
    pub(super) refused: u64,
    pub(super) unavailable: u64,
    pub(super) sign_ins: u64,
    pub(super) ended_by: BTreeMap<Means, u64>,
    pub(super) in_doubt: u64,
    pub(super) faults: BTreeMap<String, u64>,
    pub(super) stale_here: u64,
    pub(super) stale_elsewhere: u64,
    pub(super) longest_stale: [Duration; 3],
    pub(super) beyond: u64,
    pub(super) wrongly_refused: u64,
    /// From a revocation's answer to the first request that began there and was refused.
    pub(super) lag: Vec<Duration>,
    /// The same where a fault was in the way.
    pub(super) lag_in_faults: Vec<Duration>,
    pub(super) streams: u64,
    pub(super) stream_lag: Vec<Duration>,
    /// What must not be, in words; the first of them.
    pub(super) findings: Vec<String>,
    pub(super) found: u64,
}

impl Tally {
    pub(super) fn finds(&mut self, what: String) {
        self.found += 1;
        if self.findings.len() < 20 {
            self.findings.push(what);
        }
    }
}

pub(super) struct Oracle {
    tally: Mutex<Tally>,
    /// What each gateway's cache may hold on to, and a little for its clock being read after ours.
    bounds: [Duration; 3],
}

impl Oracle {
    pub(super) fn new(bounds: [Duration; 3]) -> Self {
        Self {
            tally: Mutex::default(),
            bounds,
        }
    }

    pub(super) fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap()
    }

    /// The end of `session` was answered.
    pub(super) fn has_ended(&self, session: &Session, right: Right, answered: Instant) {
        let mut state = session.state();
        for end in state.ends[right as usize..].iter_mut().flatten() {
            if end.answered.is_none() {
                end.answered = Some(answered);
                for (gateway, began) in std::mem::take(&mut end.passed) {
                    self.passed_at(end, answered, gateway, began);
                }
            }
        }
    }

    /// A request with `session` for `right`, to `gateway`.
    pub(super) fn judge(&self, session: &Session, right: Right, gateway: usize, began: Instant, verdict: Verdict) {
        {
            let mut tally = self.tally();
            match verdict {
                Verdict::Passed => tally.passed += 1,
                Verdict::Refused => tally.refused += 1,
                Verdict::Unavailable => tally.unavailable += 1,
            }
        }
        let mut state = session.state();
        if state.in_doubt {
            return;
        }
        match (verdict, &mut state.ends[right as usize]) {
            (Verdict::Passed, Some(end)) => match end.answered {
                Some(answered) => self.passed_at(end, answered, gateway, began),
                None => end.passed.push((gateway, began)),
            },
            (Verdict::Refused, None) => {
                let mut tally = self.tally();
                tally.wrongly_refused += 1;
                tally.finds(format!(
                    "gateway {gateway} refused {:?} {:?} after its sign-in, {:?} before this was judged, though nobody \
                     had ended that: {}",
                    right,
                    began.saturating_duration_since(session.since),
                    began.elapsed(),
                    session.user
                ));
            }
            (Verdict::Passed, None) | (Verdict::Refused, Some(_)) | (Verdict::Unavailable, _) => {}
        }
    }

    fn passed_at(&self, end: &End, answered: Instant, gateway: usize, began: Instant) {
        if began <= answered {
            return;
        }
        let late = began - answered;
        let mut tally = self.tally();
        if end.at == Some(gateway) {
            tally.stale_here += 1;
            tally.finds(format!(
                "gateway {gateway} let a request pass that began {late:?} after it had answered {:?}",
                end.means
            ));
            return;
        }
        tally.stale_elsewhere += 1;
        tally.longest_stale[gateway] = tally.longest_stale[gateway].max(late);
        if late > self.bounds[gateway] {
            tally.beyond += 1;
            tally.finds(format!(
                "gateway {gateway} let a request pass {late:?} after {:?}",
                end.means
            ));
        }
    }
}

/// How many, and how long.
pub(super) struct Distribution<'a>(pub(super) &'a [Duration]);

impl Distribution<'_> {
    /// So many of a thousand are no longer.
    pub(super) fn at(&self, permille: usize) -> Duration {
        let mut sorted = self.0.to_vec();
        sorted.sort_unstable();
        let last = sorted.len().saturating_sub(1);
        let place = (sorted.len() * permille / 1_000).min(last);
        sorted.get(place).copied().unwrap_or_default()
    }
}

impl fmt::Display for Distribution<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.0.len();
        let [p50, p90, p99, max] = [500, 900, 990, 1_000].map(|permille| self.at(permille));
        write!(
            f,
            "{count}: p50 {p50:.2?}, p90 {p90:.2?}, p99 {p99:.2?}, longest {max:.2?}"
        )
    }
}
