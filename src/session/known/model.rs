//! Whether anybody learns less than they have to, in any interleaving.
//!
//! A scheduler (shuttle) decides at each lock, and between any two operations of the cache's maps, which thread goes on;
//! requests, revocations, the listening connection and queries are threads, and what they do is drawn anew each time. The
//! cache, its trust and the queue of look-ups are the real ones: only their locks are the scheduler's.
//!
//! The judge (`model/oracle.rs`) knows nothing of caches. Each request notes, as it begins, up to which commit it has to know
//! of each token's changes; what it is told must have been true then, or later.
//!
//! Taken for granted: that an operation of moka's maps is one step to all others, and that threads agree on the order of
//! what they do (`Acquire` and `Release` see to that, for the one number without a lock).
//!
//! `VESTIBULE_TEST_SCHEDULES` says how many interleavings of each kind are tried.

mod oracle;

use std::{env, mem, sync::Arc, task::Poll};

use shuttle::{
    Config, Runner,
    future::{JoinHandle, block_on},
    rand::{Rng, thread_rng},
    scheduler::RandomScheduler,
    sync::{Mutex, atomic::AtomicBool},
    thread,
};

use self::oracle::{Change, Oracle, hash, user};
use super::*;
use crate::session::{
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

fn one_in(count: u32) -> bool {
    thread_rng().gen_range(0..count) == 0
}

/// Others have the time for something, or much, or nothing.
fn dawdle() {
    if one_in(2) {
        (0..thread_rng().gen_range(1..16)).for_each(|_| Scheduled::pause());
    }
}

/// All that threads share.
struct World {
    known: Model,
    look_ups: Arc<LookUps<Table, Scheduled>>,
    /// Who runs queries.
    working: Arc<Working>,
    oracle: Arc<Oracle>,
    /// So many are asked for and changed: few, and all are in each other's way.
    tokens: usize,
}

/// Locked for a moment only.
type Working = std::sync::Mutex<Vec<JoinHandle<()>>>;

impl World {
    fn new(limits: Limits, capacity: u64, tokens: usize) -> Self {
        let (oracle, working) = (Arc::<Oracle>::default(), Arc::<Working>::default());
        let table = Table {
            oracle: Arc::clone(&oracle),
            working: Arc::clone(&working),
        };
        Self {
            known: Model::new(TTL, capacity),
            look_ups: Arc::new(LookUps::new(table, limits)),
            working,
            oracle,
            tokens,
        }
    }

    /// Queries that everybody has left may still be under way, and the scheduler can't take somebody's lock away.
    fn end(&self) {
        loop {
            let working = mem::take(&mut *self.working.lock().unwrap());
            if working.is_empty() {
                return;
            }
            for work in working {
                block_on(work).unwrap();
            }
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
struct Table {
    oracle: Arc<Oracle>,
    working: Arc<Working>,
}

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
        let found = self.oracle.read(hashes);
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
        self.working.lock().unwrap().push(work);
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
            forget(change, known);
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
        hear(known, oracle);
    }
}

/// The listening connection: hears, breaks, comes back.
fn ears(World { known, oracle, .. }: &World) {
    for _ in 0..thread_rng().gen_range(1..5) {
        dawdle();
        if one_in(2) {
            hear(known, oracle);
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

/// Whether there was something to hear.
fn hear(known: &Model, oracle: &Oracle) -> bool {
    let Some((change, commit)) = oracle.next_said() else {
        return false;
    };
    forget(change, known);
    oracle.is_known(change, commit);
    true
}

fn forget(change: Change, known: &Model) {
    match change {
        Change::Token(token) => known.forget(&hash(token)),
        Change::User(number) => known.forget_user(user(number)),
        Change::Everything => known.forget_everything(),
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
    let capacity = if one_in(4) { 1 } else { 100 };
    let limits = Limits {
        queries: thread_rng().gen_range(1..3),
        waiting: 100,
    };
    let world = Arc::new(World::new(limits, capacity, if one_in(2) { 1 } else { TOKENS }));
    let oracle = &*world.oracle;
    for token in 0..TOKENS {
        if !one_in(3) {
            oracle.commit(Change::Token(token), false);
        }
    }
    // The gateway begins deaf.
    oracle.is_checked();
    if !cast.deafness || !one_in(3) {
        hear_again(&world.known, oracle);
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
    go(|world| world.oracle.pass_half_a_life(), cast.half_lives);
    for thread in threads {
        thread.join().unwrap();
    }
    // Whoever comes when all is over: it may be known what was never said.
    for token in 0..world.tokens {
        request(&world, token);
    }
    if !oracle.somebody_listens() {
        hear_again(&world.known, oracle);
    }
    while hear(&world.known, oracle) {}
    for token in (0..TOKENS).chain(0..TOKENS) {
        request(&world, token);
    }
    world.end();
    world.look_ups.check();
    world.known.cache.check();
}

/// Two end all of a user's sessions at the same moment, as whoever does it here, and the notification of it.
fn run_of_two() {
    let limits = Limits {
        queries: 1,
        waiting: 10,
    };
    let world = Arc::new(World::new(limits, 100, 1));
    world.oracle.commit(Change::User(0), false);
    hear_again(&world.known, &world.oracle);
    request(&world, 0);
    let mut threads = Vec::new();
    for _ in 0..2 {
        let world = Arc::clone(&world);
        threads.push(thread::spawn(move || {
            let commit = world.oracle.commit(Change::User(0), false);
            forget(Change::User(0), &world.known);
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
