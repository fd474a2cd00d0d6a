//! Sessions that somebody asks for, found many at a time.
//!
//! A question that comes while there is a connection for it is sent at once, alone. What comes while all are out
//! gathers, and leaves as one query when the next is back: nobody waits for company, and ten thousand sessions that
//! nobody has asked for yet take forty round trips rather than ten thousand.
//!
//! - A query is sent after everybody whom it answers has asked. So its answer is never older than the question, and who
//!   may not share somebody else's look-up (`session/known.rs`, while deaf) may share its query.
//! - A query that fails has failed for those whom it was to answer, and for nobody else. Who has left is not asked for.
//! - Who gets no connection has failed for nobody while others are at work: whoever waits is theirs. Only the last one says so,
//!   to all.
//! - The queue is bounded: beyond that the answer is no, at once. How long somebody waits is theirs to say.
//!
//! Not here: sharing among those who ask for the same session (`session/cache.rs`), and Postgres (`lookup/postgres.rs`).

mod postgres;

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::sync::oneshot;

pub use self::postgres::{Attempts, Postgres};
use super::{
    LookupError,
    cache::Found,
    locks::{Lock, Locks, Std},
};
use crate::{clock::Timestamp, identity::Session, secret::TokenHash};

/// Sessions in one query: more would not take fewer round trips by much, and each waits for all.
pub const MOST_AT_ONCE: usize = 256;
/// Upper bounds of the numbers of sessions in a query that are told apart, for metrics.
pub const SIZES: [usize; 9] = [1, 2, 4, 8, 16, 32, 64, 128, MOST_AT_ONCE];

/// Who answers.
pub trait Source: Send + Sync + 'static {
    /// What a query is sent over.
    type Connection: Send;

    fn connect(&self) -> impl Future<Output = Result<Self::Connection, NoConnection>> + Send;

    /// Until it makes sense to try again, for who was told [`NoConnection::NotYet`].
    fn rest(&self) -> impl Future<Output = ()> + Send;

    /// The live ones of these sessions as of `now`, in a query that begins no sooner than this is called.
    fn find(
        &self,
        connection: Self::Connection,
        hashes: &[TokenHash],
        now: Timestamp,
    ) -> impl Future<Output = Result<Sessions, LookupError>> + Send;

    /// Runs `work` beside whoever asks, who may leave.
    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static);
}

/// Why there is none.
#[derive(Debug)]
pub enum NoConnection {
    /// None is free, and an attempt to make one failed a moment ago: another would fare no better.
    NotYet,
    Failed(LookupError),
}

/// What a query found.
pub type Sessions = HashMap<TokenHash, Arc<Session>>;

pub struct LookUps<S, L: Locks = Std> {
    source: S,
    queue: L::Mutex<Queue>,
    limits: Limits,
    sizes: [AtomicU64; SIZES.len()],
    asked_together: AtomicU64,
    refused: AtomicU64,
}

#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Queries at once.
    pub queries: usize,
    /// Who may wait.
    pub waiting: usize,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    /// How many see to it.
    at_work: usize,
}

struct Waiting {
    hash: TokenHash,
    now: Timestamp,
    tell: oneshot::Sender<Result<Found, LookupError>>,
}

impl<S: Source, L: Locks> LookUps<S, L> {
    pub fn new(source: S, limits: Limits) -> Self {
        Self {
            source,
            queue: L::Mutex::default(),
            limits,
            sizes: Default::default(),
            asked_together: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }
    }

    /// The live session behind `hash`, if there is one. Cancel-safe: who leaves is not asked for, unless the query is
    /// out already.
    pub async fn find(self: &Arc<Self>, hash: TokenHash, now: Timestamp) -> Result<Found, LookupError> {
        let told = self.enqueue(hash, now)?;
        // Nobody tells if it panicked, or the runtime is going down.
        told.await.unwrap_or(Err(LookupError::Unreachable))
    }

    fn enqueue(
        self: &Arc<Self>,
        hash: TokenHash,
        now: Timestamp,
    ) -> Result<oneshot::Receiver<Result<Found, LookupError>>, LookupError> {
        let (tell, told) = oneshot::channel();
        let mut queue = self.queue.locked();
        if queue.waiting.len() >= self.limits.waiting {
            queue.drop_the_gone();
        }
        if queue.waiting.len() >= self.limits.waiting {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return Err(LookupError::TooManyWaiting);
        }
        queue.waiting.push_back(Waiting { hash, now, tell });
        if queue.at_work < self.limits.queries {
            queue.at_work += 1;
            drop(queue);
            let at_work = AtWork {
                look_ups: Arc::clone(self),
                is_through: false,
            };
            self.source.spawn(at_work.work());
        }
        Ok(told)
    }

    /// Who is to be answered by the next query: nobody who asks later.
    fn take(&self) -> Vec<Waiting> {
        let mut queue = self.queue.locked();
        let mut taken = Vec::new();
        while taken.len() < MOST_AT_ONCE
            && let Some(waiting) = queue.waiting.pop_front()
        {
            if !waiting.tell.is_closed() {
                taken.push(waiting);
            }
        }
        taken
    }

    async fn answer(&self, connection: S::Connection, asked: Vec<Waiting>) {
        let Some(now) = asked.iter().map(|waiting| waiting.now).max() else {
            return;
        };
        self.count(asked.len());
        let hashes: Vec<_> = asked.iter().map(|waiting| waiting.hash).collect();
        match self.source.find(connection, &hashes, now).await {
            Ok(sessions) => {
                for Waiting { hash, tell, .. } in asked {
                    // Who has left does not listen.
                    let _ = tell.send(Ok(sessions.get(&hash).cloned()));
                }
            }
            Err(error) => fail(asked, &error),
        }
    }

    fn count(&self, sessions: usize) {
        let size = SIZES.partition_point(|&bound| bound < sessions);
        if let Some(counter) = self.sizes.get(size) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
        self.asked_together.fetch_add(sessions as u64, Ordering::Relaxed);
    }

    /// Queries by how many sessions each asked for, up to each of [`SIZES`] and beyond the one before; and those sessions
    /// together.
    pub fn sizes(&self) -> ([u64; SIZES.len()], u64) {
        let sizes = self.sizes.each_ref().map(|counter| counter.load(Ordering::Relaxed));
        (sizes, self.asked_together.load(Ordering::Relaxed))
    }

    /// How many found the queue full.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// How many wait to be asked for, those who have left included.
    pub fn waiting(&self) -> usize {
        self.queue.locked().waiting.len()
    }
}

fn fail(asked: Vec<Waiting>, error: &LookupError) {
    for Waiting { tell, .. } in asked {
        let _ = tell.send(Err(error.clone()));
    }
}

impl Queue {
    /// They all wait equally long: who has given up is in front.
    fn drop_the_gone(&mut self) {
        while self.waiting.front().is_some_and(|waiting| waiting.tell.is_closed()) {
            self.waiting.pop_front();
        }
    }
}

/// Somebody who sees to the queue until it is empty. Whatever becomes of them, another may take the place.
struct AtWork<S: Source, L: Locks> {
    look_ups: Arc<LookUps<S, L>>,
    is_through: bool,
}

impl<S: Source, L: Locks> AtWork<S, L> {
    async fn work(mut self) {
        while !self.is_through() {
            // First the connection, then who is asked for: they gather meanwhile.
            match self.look_ups.source.connect().await {
                Ok(connection) => {
                    let asked = self.look_ups.take();
                    self.look_ups.answer(connection, asked).await;
                }
                Err(_) if self.leaves_it_to_others() => return,
                Err(NoConnection::Failed(error)) => fail(self.look_ups.take(), &error),
                Err(NoConnection::NotYet) => self.look_ups.source.rest().await,
            }
        }
    }

    /// Leaves, if anybody else is at work, who sees to the queue until it is empty. Looks, and leaves, in one step: of several
    /// the last one stays.
    fn leaves_it_to_others(&mut self) -> bool {
        let mut queue = self.look_ups.queue.locked();
        self.is_through = queue.at_work > 1;
        if self.is_through {
            queue.at_work -= 1;
        }
        self.is_through
    }

    /// Looks, and leaves, in one step: who asks from here on finds the place free.
    fn is_through(&mut self) -> bool {
        let mut queue = self.look_ups.queue.locked();
        self.is_through = queue.waiting.is_empty();
        if self.is_through {
            queue.at_work -= 1;
        }
        self.is_through
    }
}

impl<S: Source, L: Locks> Drop for AtWork<S, L> {
    fn drop(&mut self) {
        if !self.is_through {
            self.look_ups.queue.locked().at_work -= 1;
        }
    }
}

impl<S, L: Locks> fmt::Debug for LookUps<S, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let queue = self.queue.locked();
        write!(f, "LookUps({} wait, {} at work)", queue.waiting.len(), queue.at_work)
    }
}

#[cfg(test)]
pub(super) mod tests;
