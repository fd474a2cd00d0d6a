use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicBool, AtomicUsize},
};

use tokio::{runtime::Handle, sync::Semaphore, task::JoinHandle};
use uuid::Uuid;

use super::*;
use crate::{identity::UserId, session::cache::tests::named};

const NOW: Timestamp = Timestamp::from_secs(1_000_000);

/// Answers when it is told to; whoever is asked for is somebody.
#[derive(Clone)]
struct Desk(Arc<Inner>);

struct Inner {
    asked: Mutex<Vec<Vec<TokenHash>>>,
    go: Semaphore,
    fails: AtomicBool,
    /// So many more connections may be made; somebody waits to be told that there is none.
    left: AtomicUsize,
    none: Semaphore,
    attempts: AtomicUsize,
}

impl Source for Desk {
    type Connection = Connection;

    async fn connect(&self) -> Result<Connection, NoConnection> {
        self.0.attempts.fetch_add(1, Ordering::Relaxed);
        let one_less = |left: usize| left.checked_sub(1);
        if self
            .0
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less)
            .is_ok()
        {
            return Ok(Connection(self.clone()));
        }
        self.0.none.acquire().await.unwrap().forget();
        Err(NoConnection::Failed(LookupError::Unreachable))
    }

    async fn rest(&self) {}

    async fn find(&self, _connection: Connection, hashes: &[TokenHash], _: Timestamp) -> Result<Sessions, LookupError> {
        self.asked().push(hashes.to_vec());
        self.0.go.acquire().await.unwrap().forget();
        if self.0.fails.load(Ordering::Relaxed) {
            return Err(LookupError::Unreachable);
        }
        let somebody = named(UserId(Uuid::nil()), "Ada");
        Ok(hashes.iter().map(|hash| (*hash, Arc::clone(&somebody))).collect())
    }

    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        Handle::current().spawn(work);
    }
}

/// One that is free again when it is dropped.
struct Connection(Desk);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.0.left.fetch_add(1, Ordering::Relaxed);
    }
}

impl Desk {
    fn asked(&self) -> std::sync::MutexGuard<'_, Vec<Vec<TokenHash>>> {
        self.0.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sizes(&self) -> Vec<usize> {
        self.asked().iter().map(Vec::len).collect()
    }

    fn answer(&self, queries: usize) {
        self.0.go.add_permits(queries);
    }
}

impl<S: Source, L: Locks> LookUps<S, L> {
    /// At any time.
    pub(in crate::session) fn check(&self) {
        let queue = self.queue.locked();
        assert!(
            queue.waiting.is_empty() || queue.at_work > 0,
            "nobody sees to those who wait"
        );
        assert!(queue.at_work <= self.limits.queries);
    }
}

struct Office {
    desk: Desk,
    look_ups: Arc<LookUps<Desk>>,
}

type Asking = JoinHandle<Result<Found, LookupError>>;

impl Office {
    fn new(queries: usize, waiting: usize) -> Self {
        let desk = Desk(Arc::new(Inner {
            asked: Mutex::default(),
            go: Semaphore::new(0),
            fails: AtomicBool::new(false),
            left: AtomicUsize::new(queries),
            none: Semaphore::new(0),
            attempts: AtomicUsize::new(0),
        }));
        let look_ups = Arc::new(LookUps::new(desk.clone(), Limits { queries, waiting }));
        Self { desk, look_ups }
    }

    /// Asks for these, and comes back when the office has done what it can.
    async fn ask(&self, tokens: std::ops::Range<u32>) -> Vec<Asking> {
        let asking = tokens.map(|token| {
            let look_ups = Arc::clone(&self.look_ups);
            Handle::current().spawn(async move { look_ups.find(hash(token), NOW).await })
        });
        let asking = asking.collect();
        settle().await;
        asking
    }

    async fn answer(&self, queries: usize) {
        self.desk.answer(queries);
        settle().await;
    }
}

/// On a runtime of one thread whoever can go on has gone on by then.
async fn settle() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

fn hash(token: u32) -> TokenHash {
    TokenHash::of(&token.to_be_bytes())
}

async fn all_found(asking: Vec<Asking>) {
    for asked in asking {
        assert!(asked.await.unwrap().unwrap().is_some());
    }
}

#[tokio::test]
async fn who_comes_alone_is_asked_for_alone_and_at_once() {
    let office = Office::new(2, 100);
    let first = office.ask(0..1).await;
    let second = office.ask(1..2).await;
    assert_eq!(office.desk.sizes(), [1, 1], "there are two connections");
    office.answer(2).await;
    all_found(first).await;
    all_found(second).await;
    assert_eq!(office.look_ups.waiting(), 0);
}

#[tokio::test]
async fn who_comes_while_all_connections_are_out_shares_the_next_query() {
    let office = Office::new(1, 1_000);
    let mut asking = office.ask(0..1).await;
    asking.extend(office.ask(1..301).await);
    assert_eq!(office.desk.sizes(), [1]);
    assert_eq!(office.look_ups.waiting(), 300);
    office.answer(1).await;
    assert_eq!(office.desk.sizes(), [1, 256]);
    // Who asks now is not answered by what is out already, though it asks for the same.
    asking.extend(office.ask(1..2).await);
    office.answer(1).await;
    assert_eq!(office.desk.sizes(), [1, 256, 45]);
    office.answer(1).await;
    all_found(asking).await;
    assert_eq!(office.look_ups.sizes(), ([1, 0, 0, 0, 0, 0, 1, 0, 1], 302));
}

#[tokio::test]
async fn a_query_that_fails_has_failed_for_those_whom_it_was_to_answer() {
    let office = Office::new(1, 100);
    let first = office.ask(0..1).await;
    let others = office.ask(1..4).await;
    office.desk.0.fails.store(true, Ordering::Relaxed);
    office.answer(1).await;
    office.desk.0.fails.store(false, Ordering::Relaxed);
    for asked in first {
        assert!(matches!(asked.await.unwrap(), Err(LookupError::Unreachable)));
    }
    office.answer(1).await;
    all_found(others).await;
}

#[tokio::test]
async fn who_gets_no_connection_fails_nobody_whom_another_can_see_to() {
    let office = Office::new(3, 100);
    office.desk.0.left.store(1, Ordering::Relaxed);
    let mut asking = office.ask(0..1).await;
    asking.extend(office.ask(1..5).await);
    assert_eq!(office.desk.sizes(), [1]);
    office.desk.0.none.add_permits(2);
    settle().await;
    assert_eq!(office.look_ups.waiting(), 4);
    assert!(asking.iter().all(|asked| !asked.is_finished()));
    assert_eq!(office.desk.0.attempts.load(Ordering::Relaxed), 3, "nobody insists");
    office.answer(1).await;
    asking.extend(office.ask(5..6).await);
    office.answer(2).await;
    office.desk.0.none.add_permits(1);
    all_found(asking).await;
}

#[tokio::test]
async fn where_nobody_gets_a_connection_the_last_one_says_so_to_all() {
    let office = Office::new(3, 100);
    office.desk.0.left.store(0, Ordering::Relaxed);
    let asking = office.ask(0..5).await;
    office.desk.0.none.add_permits(2);
    settle().await;
    assert_eq!(office.look_ups.waiting(), 5);
    office.desk.0.none.add_permits(1);
    for asked in asking {
        assert!(matches!(asked.await.unwrap(), Err(LookupError::Unreachable)));
    }
    assert_eq!(office.look_ups.waiting(), 0);
}

#[tokio::test]
async fn who_has_left_is_not_asked_for() {
    let office = Office::new(1, 100);
    let first = office.ask(0..1).await;
    let leaving = office.ask(1..3).await;
    let staying = office.ask(3..4).await;
    for asked in leaving {
        asked.abort();
    }
    settle().await;
    office.answer(1).await;
    assert_eq!(office.desk.asked().last(), Some(&vec![hash(3)]));
    office.answer(1).await;
    all_found(first).await;
    all_found(staying).await;
}

#[tokio::test]
async fn beyond_the_bound_nobody_waits() {
    let office = Office::new(1, 2);
    let first = office.ask(0..1).await;
    let mut waiting = office.ask(1..3).await;
    let refused = async |asking: Vec<Asking>| {
        for asked in asking {
            assert!(matches!(asked.await.unwrap(), Err(LookupError::TooManyWaiting)));
        }
    };
    refused(office.ask(3..5).await).await;
    assert_eq!(office.look_ups.refused(), 2);
    // A place is free again once its holder has given up.
    waiting.remove(0).abort();
    settle().await;
    waiting.extend(office.ask(5..6).await);
    refused(office.ask(6..7).await).await;
    office.answer(2).await;
    all_found(first).await;
    all_found(waiting).await;
}

#[tokio::test]
async fn whoever_sees_to_it_and_is_cut_off_leaves_the_place_to_another() {
    let office = Office::new(1, 100);
    let first = office.ask(0..1).await;
    // As a panic would.
    office.desk.0.go.close();
    settle().await;
    for asked in first {
        assert!(matches!(asked.await.unwrap(), Err(LookupError::Unreachable)));
    }
    let _second = office.ask(1..2).await;
    assert_eq!(office.desk.sizes(), [1, 1]);
}
