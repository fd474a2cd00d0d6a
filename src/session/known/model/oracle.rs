//! The judge: what the database holds, and what everybody has to know of it. It knows nothing of caches.

use std::{collections::VecDeque, sync::MutexGuard};

use shuttle::rand::{Rng, thread_rng};

use super::{Scheduled, TOKENS, TTL, one_in};
use crate::{
    clock::Timestamp,
    identity::UserId,
    secret::TokenHash,
    session::{
        cache::{Found, tests::named},
        locks::Locks,
        lookup::Sessions,
    },
};

pub(super) fn hash(token: usize) -> TokenHash {
    TokenHash::of(&token.to_be_bytes())
}

/// Of two users the first has all tokens but one.
fn owner(token: usize) -> usize {
    usize::from(token + 1 == TOKENS)
}

pub(super) fn user(number: usize) -> UserId {
    UserId(uuid::Uuid::from_u128(number as u128 + 1))
}

/// The database, and what everybody has to know of it. Locked for a moment only: nobody else goes on meanwhile.
#[derive(Default)]
pub(super) struct Oracle(std::sync::Mutex<Facts>);

#[derive(Default)]
struct Facts {
    now: u64,
    /// How many there were.
    commits: u64,
    tokens: [Token; TOKENS],
    /// Whether somebody listens, and what was said and not heard yet, each with its commit.
    listening: bool,
    said: VecDeque<(Change, u64)>,
    /// While each session is checked: the how many-eth such time it is.
    checked: Option<u64>,
    times_checked: u64,
    /// How often Postgres was found to be out of reach: what is cached passes then.
    times_unreachable: u64,
}

#[derive(Clone, Default)]
struct Token {
    /// In the order of commits; before the first there is no such session.
    states: Vec<State>,
    /// Up to this commit it is known here.
    known: u64,
}

#[derive(Clone, Copy, Debug)]
struct State {
    /// The commit that brought it about.
    since: u64,
    at: u64,
    is_live: bool,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Change {
    Token(usize),
    User(usize),
    Everything,
}

impl Change {
    pub(super) fn any(tokens: usize) -> Self {
        let token = thread_rng().gen_range(0..tokens);
        match thread_rng().gen_range(0..8) {
            0..3 => Self::Token(token),
            3..7 => Self::User(owner(token)),
            _ => Self::Everything,
        }
    }

    fn concerns(self, token: usize) -> bool {
        match self {
            Self::Token(one) => one == token,
            Self::User(user) => owner(token) == user,
            Self::Everything => true,
        }
    }
}

/// What a request begins with.
pub(super) struct Begun {
    token: usize,
    pub(super) now: Timestamp,
    /// It has to know of all commits up to this,
    floor: u64,
    /// and up to this if it is checked,
    commits: u64,
    /// as it is to be, unless that fails for want of Postgres.
    pub(super) checked: Option<u64>,
    times_unreachable: u64,
}

impl Oracle {
    fn facts(&self) -> MutexGuard<'_, Facts> {
        self.0.lock().unwrap()
    }

    /// Changes rows, and says so to whoever listens, but for changes made behind everybody's back.
    pub(super) fn commit(&self, change: Change, aloud: bool) -> u64 {
        let lives: [bool; TOKENS] = std::array::from_fn(|_| !one_in(3));
        Scheduled::pause();
        let mut facts = self.facts();
        facts.commits += 1;
        let (since, at) = (facts.commits, facts.now);
        for (number, token) in facts.tokens.iter_mut().enumerate() {
            if change.concerns(number) {
                let is_live = lives[number];
                token.states.push(State { since, at, is_live });
            }
        }
        if facts.listening && aloud {
            facts.said.push_back((change, since));
        }
        since
    }

    /// All that `change` concerns is known here, up to this commit.
    pub(super) fn is_known(&self, change: Change, commit: u64) {
        let mut facts = self.facts();
        for (number, token) in facts.tokens.iter_mut().enumerate() {
            if change.concerns(number) {
                token.known = token.known.max(commit);
            }
        }
    }

    /// A query: what is true of these tokens at this moment.
    pub(super) fn read(&self, hashes: &[TokenHash]) -> Sessions {
        Scheduled::pause();
        let facts = self.facts();
        let asked = (0..TOKENS).filter(|token| hashes.contains(&hash(*token)));
        let live = asked.filter_map(|token| {
            let state = facts.tokens[token].states.last().filter(|state| state.is_live)?;
            Some((hash(token), named(user(owner(token)), &state.since.to_string())))
        });
        live.collect()
    }

    pub(super) fn begin(&self, token: usize) -> Begun {
        let facts = self.facts();
        let changes = &facts.tokens[token];
        let told = changes.known;
        // What nobody tells is known after a while.
        let over = |state: &&State| state.at + TTL.as_secs() <= facts.now;
        let late = changes.states.iter().filter(over).map(|state| state.since).max();
        Begun {
            token,
            now: Timestamp::from_secs(facts.now.try_into().unwrap()),
            floor: told.max(late.unwrap_or_default()),
            commits: facts.commits,
            checked: facts.checked,
            times_unreachable: facts.times_unreachable,
        }
    }

    pub(super) fn judge(&self, begun: &Begun, found: &Found) {
        let mut facts = self.facts();
        let is_checked = facts.checked.is_some() && facts.checked == begun.checked;
        let had_to_be = begun.checked.is_some() && facts.times_unreachable == begun.times_unreachable;
        let floor = if had_to_be { begun.commits } else { begun.floor };
        let changes = &mut facts.tokens[begun.token];
        let before = State {
            since: 0,
            at: 0,
            is_live: false,
        };
        let said: Option<u64> = found.as_ref().map(|found| found.identity.name.parse().unwrap());
        let states: Vec<_> = [before].into_iter().chain(changes.states.iter().copied()).collect();
        let possible = states.iter().enumerate().find(|(at, state)| {
            let until = states.get(at + 1).map_or(u64::MAX, |next| next.since);
            let is_it = said.map_or(!state.is_live, |since| state.is_live && state.since == since);
            is_it && until > floor
        });
        let Some((_, state)) = possible else {
            panic!(
                "token {}: told {said:?}, which was over by commit {floor}: {states:?}",
                begun.token
            );
        };
        // What was found to be true by somebody who asked for it is not unlearnt.
        if is_checked {
            changes.known = changes.known.max(state.since);
        }
    }

    /// From now on each session is checked, until anything else is the case.
    pub(super) fn is_checked(&self) {
        let mut facts = self.facts();
        facts.times_checked += 1;
        facts.checked = Some(facts.times_checked);
    }

    /// What is the case instead is about to be said.
    pub(super) fn is_not_checked(&self, reachable: bool) {
        let mut facts = self.facts();
        facts.checked = None;
        facts.times_unreachable += u64::from(!reachable);
    }

    /// The connection breaks: what was on its way is lost.
    pub(super) fn cut(&self) {
        Scheduled::pause();
        let mut facts = self.facts();
        facts.listening = false;
        facts.said.clear();
    }

    /// `LISTEN`: the commit after which all is said.
    pub(super) fn listen(&self) -> u64 {
        Scheduled::pause();
        let mut facts = self.facts();
        facts.listening = true;
        facts.commits
    }

    /// What is heard next.
    pub(super) fn next_said(&self) -> Option<(Change, u64)> {
        Scheduled::pause();
        self.facts().said.pop_front()
    }

    pub(super) fn somebody_listens(&self) -> bool {
        self.facts().listening
    }

    /// The clock moves on by half of what may be remembered.
    pub(super) fn pass_half_a_life(&self) {
        Scheduled::pause();
        self.facts().now += TTL.as_secs() / 2;
    }
}
