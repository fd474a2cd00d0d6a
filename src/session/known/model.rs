//! Whether anybody learns less than they have to, in any interleaving.
//!
//! A scheduler (shuttle) decides at each lock, and between any two operations of the cache's maps, which thread goes on;
//! requests, revocations, the listening connection and queries are threads, and what they do is drawn anew each time. The
//! cache, its trust and the queue of look-ups are the real ones: only their locks are the scheduler's.
//!
//! The judge ([`Oracle`]) knows nothing of caches. Each request notes, as it begins, up to which commit it has to know
//! of each token's changes; what it is told must have been true then, or later.
//!
//! Taken for granted: that an operation of moka's maps is one step to all others, and that threads agree on the order of
//! what they do (`Acquire` and `Release` see to that, for the one number without a lock).
//!
//! `VESTIBULE_TEST_SCHEDULES` says how many interleavings of each kind are tried.

use std::{
    collections::VecDeque,
    env,
    sync::{Arc, MutexGuard},
    task::Poll,
};

use shuttle::{
    Config, Runner,
    future::{JoinHandle, block_on},
    rand::{Rng, thread_rng},
    scheduler::RandomScheduler,
    sync::{Mutex, atomic::AtomicBool},
    thread,
};

use super::*;
use crate::session::{
    cache::tests::named,
    locks::Lock,
    lookup::{Limits, LookUps, NoConnection, Sessions, Source},
};

const TTL: Duration = Duration::from_secs(10);
const TOKENS: usize = 3;
/// Of each kind; about two seconds' worth.
const SCHEDULES: usize = 1_000;

/// As the scheduler likes.
struct Scheduled;

impl Locks for Scheduled {
    type Mutex<T: Default + Send + 'static> = Mutex<T>;
    type Gate = Mutex<()>;

    const PARTS: usize = 2;

    fn step<R>(gate: &Mutex<()>, step: impl FnOnce() -> R) -> R {
        let _alone = gate.locked();
        step()
    }

    fn pause() {
        // Any operation that threads could meet at.
        AtomicBool::new(false).load(Ordering::SeqCst);
    }
}

impl<T: Default + Send> Lock<T> for Mutex<T> {
    type Guard<'l>
        = shuttle::sync::MutexGuard<'l, T>
    where
        Self: 'l;

    fn locked(&self) -> Self::Guard<'_> {
        self.lock().unwrap()
    }
}

type Model = Known<Scheduled>;

fn hash(token: usize) -> TokenHash {
    TokenHash::of(&token.to_be_bytes())
}

/// Of two users the first has all tokens but one.
fn owner(token: usize) -> usize {
    usize::from(token + 1 == TOKENS)
}

fn user(number: usize) -> UserId {
    UserId(uuid::Uuid::from_u128(number as u128 + 1))
}

/// The database, and what everybody has to know of it. Locked for a moment only: nobody else goes on meanwhile.
#[derive(Default)]
struct Oracle(std::sync::Mutex<Facts>);

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
    /// Who runs queries.
    working: Vec<JoinHandle<()>>,
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
enum Change {
    Token(usize),
    User(usize),
    Everything,
}

impl Change {
    fn any(tokens: usize) -> Self {
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

    fn forget(self, known: &Model) {
        match self {
            Self::Token(token) => known.forget(&hash(token)),
            Self::User(number) => known.forget_user(user(number)),
            Self::Everything => known.forget_everything(),
        }
    }
}

fn one_in(count: u32) -> bool {
    thread_rng().gen_range(0..count) == 0
}

/// Others have the time for something, or much, or nothing.
fn dawdle() {
    if one_in(2) {
        (0..thread_rng().gen_range(1..16)).for_each(|_| Scheduled::pause());
    }
}

/// What a request begins with.
struct Begun {
    token: usize,
    now: Timestamp,
    /// It has to know of all commits up to this,
    floor: u64,
    /// and up to this if it is checked,
    commits: u64,
    /// as it is to be, unless that fails for want of Postgres.
    checked: Option<u64>,
    times_unreachable: u64,
}

impl Oracle {
    fn facts(&self) -> MutexGuard<'_, Facts> {
        self.0.lock().unwrap()
    }

    /// Changes rows, and says so to whoever listens, but for changes made behind everybody's back.
    fn commit(&self, change: Change, aloud: bool) -> u64 {
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
    fn is_known(&self, change: Change, commit: u64) {
        let mut facts = self.facts();
        for (number, token) in facts.tokens.iter_mut().enumerate() {
            if change.concerns(number) {
                token.known = token.known.max(commit);
            }
        }
    }

    /// A query: what is true of these tokens at this moment.
    fn read(&self, hashes: &[TokenHash]) -> Sessions {
        Scheduled::pause();
        let facts = self.facts();
        let asked = (0..TOKENS).filter(|token| hashes.contains(&hash(*token)));
        let live = asked.filter_map(|token| {
            let state = facts.tokens[token].states.last().filter(|state| state.is_live)?;
            Some((hash(token), named(user(owner(token)), &state.since.to_string())))
        });
        live.collect()
    }

    fn begin(&self, token: usize) -> Begun {
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

    fn judge(&self, begun: &Begun, found: &Found) {
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
    fn is_checked(&self) {
        let mut facts = self.facts();
        facts.times_checked += 1;
        facts.checked = Some(facts.times_checked);
    }

    /// What is the case instead is about to be said.
    fn is_not_checked(&self, reachable: bool) {
        let mut facts = self.facts();
        facts.checked = None;
        facts.times_unreachable += u64::from(!reachable);
    }

    /// The connection breaks: what was on its way is lost.
    fn cut(&self) {
        Scheduled::pause();
        let mut facts = self.facts();
        facts.listening = false;
        facts.said.clear();
    }

    /// `LISTEN`: the commit after which all is said.
    fn listen(&self) -> u64 {
        Scheduled::pause();
        let mut facts = self.facts();
        facts.listening = true;
        facts.commits
    }

    fn hear(&self, known: &Model) -> bool {
        Scheduled::pause();
        let said = self.facts().said.pop_front();
        let Some((change, commit)) = said else { return false };
        change.forget(known);
        self.is_known(change, commit);
        true
    }
}

/// All that threads share.
struct World {
    known: Model,
    look_ups: Arc<LookUps<Table, Scheduled>>,
    oracle: Arc<Oracle>,
    /// So many are asked for and changed: few, and all are in each other's way.
    tokens: usize,
}

impl World {
    /// Queries that everybody has left may still be under way, and the scheduler can't take somebody's lock away.
    fn end(&self) {
        loop {
            let Some(work) = self.oracle.facts().working.pop() else {
                return;
            };
            block_on(work).unwrap();
        }
    }
}

/// Asks for a session as the data path does. Some leave early, as clients do.
fn request(world: &World, token: usize) {
    dawdle();
    let mut begun = world.oracle.begin(token);
    let (hash, now) = (hash(token), begun.now);
    // As somebody does who has to know though nobody may have told.
    let checks = one_in(8);
    let cached = (!checks).then(|| world.known.get(&hash, now)).flatten();
    let found = cached.or_else(|| {
        let patience = if one_in(8) {
            thread_rng().gen_range(1..4)
        } else {
            u32::MAX
        };
        let look_up = async {
            let looked_up = world.look_ups.find(hash, now).await;
            begun.checked = begun.checked.filter(|_| looked_up.is_ok());
            looked_up
        };
        let asking = async {
            if checks {
                world.known.check(&hash, look_up).await
            } else {
                world.known.ask(&hash, now, look_up).await
            }
        };
        block_on(at_most(patience, asking))?.ok()
    });
    if let Some(found) = found {
        world.oracle.judge(&begun, &found);
    }
}

/// The table of sessions, some questions to which fail.
struct Table(Arc<Oracle>);

impl Source for Table {
    type Connection = ();

    async fn connect(&self) -> Result<(), NoConnection> {
        shuttle::future::yield_now().await;
        match thread_rng().gen_range(0..16) {
            0 => Err(NoConnection::Failed(LookupError::Unreachable)),
            1 => Err(NoConnection::NotYet),
            _ => Ok(()),
        }
    }

    async fn rest(&self) {
        shuttle::future::yield_now().await;
    }

    async fn find(&self, (): (), hashes: &[TokenHash], _: Timestamp) -> Result<Sessions, LookupError> {
        shuttle::future::yield_now().await;
        let found = self.0.read(hashes);
        shuttle::future::yield_now().await;
        dawdle();
        if one_in(8) {
            Err(LookupError::Unreachable)
        } else {
            Ok(found)
        }
    }

    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let work = shuttle::future::spawn(work);
        self.0.facts().working.push(work);
    }
}

/// Polls no oftener than that.
async fn at_most<T>(patience: u32, future: impl Future<Output = T>) -> Option<T> {
    let mut future = std::pin::pin!(future);
    let mut left = patience;
    std::future::poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(answer) => Poll::Ready(Some(answer)),
        Poll::Pending => {
            left -= 1;
            if left == 0 { Poll::Ready(None) } else { Poll::Pending }
        }
    })
    .await
}

/// Somebody changes something: the auth API, which sees to it here before it answers; somebody at another gateway, or in
/// psql; or somebody of whom no trigger tells.
fn change(
    World {
        known, oracle, tokens, ..
    }: &World,
) {
    dawdle();
    let change = Change::any(*tokens);
    match thread_rng().gen_range(0..8) {
        0..4 => {
            // Its notification may have come before, or comes afterwards.
            let commit = oracle.commit(change, one_in(2));
            dawdle();
            change.forget(known);
            oracle.is_known(change, commit);
        }
        4..7 => drop(oracle.commit(change, true)),
        _ => drop(oracle.commit(change, false)),
    }
}

/// The listening connection: hears.
fn listener(World { known, oracle, .. }: &World) {
    for _ in 0..thread_rng().gen_range(0..3) {
        dawdle();
        oracle.hear(known);
    }
}

/// The listening connection: hears, breaks, comes back.
fn ears(World { known, oracle, .. }: &World) {
    for _ in 0..thread_rng().gen_range(1..5) {
        dawdle();
        if one_in(2) {
            oracle.hear(known);
            continue;
        }
        oracle.cut();
        dawdle();
        for _ in 0..thread_rng().gen_range(1..3) {
            let reachable = !one_in(3);
            oracle.is_not_checked(reachable);
            known.is_deaf(reachable);
            if reachable {
                oracle.is_checked();
            }
            dawdle();
        }
        hear_again(known, oracle);
    }
}

fn hear_again(known: &Model, oracle: &Oracle) {
    let commit = oracle.listen();
    dawdle();
    oracle.is_not_checked(true);
    known.hears();
    oracle.is_known(Change::Everything, commit);
}

/// How often each does what it does. Few threads that do little meet more often than many.
struct Cast {
    /// The connection that listens breaks now and then.
    deafness: bool,
    requests: &'static [u32],
    changes: &'static [u32],
    tidying: u32,
    /// The clock moves on by half of what may be remembered.
    half_lives: u32,
}

impl Cast {
    fn small() -> Self {
        Self {
            deafness: one_in(3),
            requests: if one_in(2) { &[2, 1] } else { &[2, 2] },
            changes: if one_in(2) { &[1] } else { &[1, 1] },
            tidying: u32::from(one_in(4)),
            half_lives: if one_in(3) { 2 } else { 0 },
        }
    }

    fn large() -> Self {
        Self {
            deafness: true,
            requests: &[3, 3, 2],
            changes: &[2, 1],
            tidying: 2,
            half_lives: thread_rng().gen_range(0..3),
        }
    }
}

/// One interleaving.
fn run(cast: &Cast) {
    let oracle = Arc::<Oracle>::default();
    let capacity = if one_in(4) { 1 } else { 100 };
    let limits = Limits {
        queries: thread_rng().gen_range(1..3),
        waiting: 100,
    };
    let world = Arc::new(World {
        known: Model::new(TTL, capacity),
        look_ups: Arc::new(LookUps::new(Table(Arc::clone(&oracle)), limits)),
        oracle: Arc::clone(&oracle),
        tokens: if one_in(2) { 1 } else { TOKENS },
    });
    for token in 0..TOKENS {
        if !one_in(3) {
            oracle.commit(Change::Token(token), false);
        }
    }
    // The gateway begins deaf.
    oracle.is_checked();
    if !cast.deafness || !one_in(3) {
        hear_again(&world.known, &oracle);
        // Somebody may be known already.
        request(&world, 0);
    }
    let mut threads = Vec::new();
    let mut go = |what: fn(&World), times: u32| {
        if times > 0 {
            let world = Arc::clone(&world);
            threads.push(thread::spawn(move || (0..times).for_each(|_| what(&world))));
        }
    };
    go(if cast.deafness { ears } else { listener }, 1);
    for &requests in cast.requests {
        go(
            |world| request(world, thread_rng().gen_range(0..world.tokens)),
            requests,
        );
    }
    for &changes in cast.changes {
        go(change, changes);
    }
    go(|world| world.known.cache.tidy_up(), cast.tidying);
    go(
        |world| {
            Scheduled::pause();
            world.oracle.facts().now += TTL.as_secs() / 2;
        },
        cast.half_lives,
    );
    for thread in threads {
        thread.join().unwrap();
    }
    // Whoever comes when all is over: it may be known what was never said.
    for token in 0..world.tokens {
        request(&world, token);
    }
    if !oracle.facts().listening {
        hear_again(&world.known, &oracle);
    }
    while oracle.hear(&world.known) {}
    for token in (0..TOKENS).chain(0..TOKENS) {
        request(&world, token);
    }
    world.end();
    world.look_ups.check();
    world.known.cache.check();
}

/// Two end all of a user's sessions at the same moment, as whoever does it here, and the notification of it.
fn run_of_two() {
    let oracle = Arc::<Oracle>::default();
    let limits = Limits {
        queries: 1,
        waiting: 10,
    };
    let world = Arc::new(World {
        known: Model::new(TTL, 100),
        look_ups: Arc::new(LookUps::new(Table(Arc::clone(&oracle)), limits)),
        oracle: Arc::clone(&oracle),
        tokens: 1,
    });
    oracle.commit(Change::User(0), false);
    hear_again(&world.known, &oracle);
    request(&world, 0);
    let mut threads = Vec::new();
    for _ in 0..2 {
        let world = Arc::clone(&world);
        threads.push(thread::spawn(move || {
            let commit = world.oracle.commit(Change::User(0), false);
            Change::User(0).forget(&world.known);
            world.oracle.is_known(Change::User(0), commit);
            request(&world, 0);
        }));
    }
    for thread in threads {
        thread.join().unwrap();
    }
    world.end();
}

#[expect(clippy::disallowed_methods, reason = "this is no configuration of the gateway's")]
fn schedules() -> usize {
    let wanted = env::var("VESTIBULE_TEST_SCHEDULES").ok();
    wanted.map_or(SCHEDULES, |wanted| wanted.parse().unwrap())
}

fn explore(run: impl Fn() + Send + Sync + 'static) {
    let mut config = Config::new();
    config.stack_size = 128 * 1024;
    Runner::new(RandomScheduler::new(schedules()), config).run(run);
}

#[test]
fn nobody_learns_less_than_they_have_to_among_few() {
    explore(|| run(&Cast::small()));
}

#[test]
fn nobody_learns_less_than_they_have_to_in_a_crowd() {
    explore(|| run(&Cast::large()));
}

#[test]
fn who_ends_what_another_is_ending_is_through_no_sooner() {
    explore(run_of_two);
}
