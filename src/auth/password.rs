//! Passwords: which are accepted, and how they are hashed.
//!
//! Argon2id takes a core for tens of milliseconds and megabytes of memory on purpose. So it runs on threads of its own,
//! as many as are configured, behind a queue of bounded length: a storm of sign-ins is told to come back later and
//! delays no proxied byte. Each thread keeps its memory from one password to the next, wiped after every use, and gives it
//! back when nobody has come for a while.
//!
//! For a user who does not exist, or has no password, the same work is done: nobody learns which from the time.
//!
//! Not here: what a stored hash can be (`stored.rs`, `legacy.rs`), and how one is made and compared (`hasher.rs`).

mod hasher;
mod legacy;
mod stored;

use std::{
    fmt, io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use argon2::Params;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded};
use tokio::sync::oneshot;
use tracing::error;

use self::{
    hasher::{Hasher, OUTPUT_LEN},
    stored::{Bounds, StoredHash},
};
use crate::{config, secret::Secret};

/// A thread that was not asked for so long gives its memory back. Longer than between two sign-ins of a storm: fresh
/// memory costs a page fault for each 4 KiB.
const REST_AFTER: Duration = Duration::from_secs(5);
/// Added to a thread's niceness, `nice(2)`: where processors are short, those who hash give way to those who forward, and
/// have a seventieth of their share. It is the most there is, as it decides how often they get a turn while a worker
/// waits: whoever has it keeps it until the next tick of the scheduler, 1 to 10 ms (EEVDF preempts nobody before). With
/// 10, workers waited for more than a millisecond four times as often; `SCHED_IDLE` was no better than that.
#[cfg(target_os = "linux")]
const NICER_BY: i32 = 19;

/// The threads that hash. They end when the last clone of this is dropped.
#[derive(Clone)]
pub struct Passwords {
    jobs: Sender<Job>,
    /// Jobs that nobody has taken up yet, for metrics.
    waiting: Arc<AtomicU64>,
    /// Jobs for which the queue had no place.
    refused: Arc<AtomicU64>,
    /// Of new hashes.
    params: Params,
    min_length: usize,
    max_length: usize,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Unacceptable {
    TooShort,
    TooLong,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    Wrong,
    Right,
    /// Right, but hashed in another format or with other parameters than are configured now: hash it anew.
    RightButOutdated,
}

#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    #[error("too many passwords wait to be hashed")]
    Busy,
    #[error("a password could not be hashed")]
    Failed,
}

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("auth.password.argon2 has parameters that Argon2 does not allow: {0}")]
    Parameters(argon2::Error),
    #[error("could not start a thread for hashing passwords")]
    Thread(#[from] io::Error),
}

impl Passwords {
    pub fn start(config: &config::Password) -> Result<Self, StartError> {
        let cost = config.argon2;
        let params = Params::new(cost.memory_kib, cost.iterations, cost.parallelism, Some(OUTPUT_LEN))
            .map_err(StartError::Parameters)?;
        let (jobs, queue) = bounded(config.queue);
        let waiting = Arc::new(AtomicU64::new(0));
        for n in 0..config.max_concurrent.max(1) {
            let (queue, waiting) = (queue.clone(), Arc::clone(&waiting));
            let hasher = Hasher::new(params.clone());
            thread::Builder::new()
                .name(format!("password-{n}"))
                .spawn(move || work(hasher, &queue, &waiting))?;
        }
        Ok(Self {
            jobs,
            waiting,
            refused: Arc::default(),
            params,
            min_length: config.min_length,
            max_length: config.max_length,
        })
    }

    /// By other rules, on the same threads; new threads only where their settings differ. Old ones finish what they have
    /// been given.
    pub fn next(&self, old: &config::Password, new: &config::Password) -> Result<Self, StartError> {
        let threads = |config: &config::Password| (config.argon2, config.max_concurrent, config.queue);
        if threads(old) != threads(new) {
            return Self::start(new);
        }
        Ok(Self {
            min_length: new.min_length,
            max_length: new.max_length,
            ..self.clone()
        })
    }

    /// Whether `password` may become one. Lengths are in UTF-16 units, as the wire contract counts.
    pub fn check_new(&self, password: &str) -> Result<(), Unacceptable> {
        self.check_length(password)?;
        if password.encode_utf16().count() < self.min_length {
            return Err(Unacceptable::TooShort);
        }
        Ok(())
    }

    /// Whether `password` is short enough to be looked at: refused before anything is hashed.
    pub fn check_length(&self, password: &str) -> Result<(), Unacceptable> {
        if password.encode_utf16().count() > self.max_length {
            return Err(Unacceptable::TooLong);
        }
        Ok(())
    }

    /// A new hash, as a PHC string.
    pub async fn hash(&self, password: Secret<String>) -> Result<Secret<String>, PasswordError> {
        let (tell, told) = oneshot::channel();
        self.ask(Job::Hash { password, tell })?;
        told.await.ok().flatten().ok_or(PasswordError::Failed)
    }

    /// Compares with a stored hash of any format that is known; without one, takes as long and says [`Verdict::Wrong`].
    pub async fn verify(
        &self,
        password: Secret<String>,
        stored: Option<Secret<String>>,
    ) -> Result<Verdict, PasswordError> {
        let (tell, told) = oneshot::channel();
        self.ask(Job::Verify { password, stored, tell })?;
        told.await.map_err(|_| PasswordError::Failed)
    }

    /// Whether `stored` is what [`Self::hash`] makes: to compare with it takes as long as without a hash.
    pub fn makes(&self, stored: &Secret<String>) -> bool {
        let bounds = Bounds::beside(self.params.m_cost(), self.params.t_cost());
        StoredHash::parse(stored.expose(), bounds).is_ok_and(|stored| hasher::is_todays(&stored, &self.params))
    }

    fn ask(&self, job: Job) -> Result<(), PasswordError> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        self.jobs.try_send(job).map_err(|refused| {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            match refused {
                TrySendError::Full(_) => {
                    self.refused.fetch_add(1, Ordering::Relaxed);
                    PasswordError::Busy
                }
                TrySendError::Disconnected(_) => PasswordError::Failed,
            }
        })
    }

    /// Hashes that were refused because too many waited.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Hashes that wait for a thread.
    pub fn waiting(&self) -> u64 {
        self.waiting.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for Passwords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Passwords({} to {})", self.min_length, self.max_length)
    }
}

/// Whether a hash from elsewhere will verify here, and why not otherwise. Computes nothing.
pub fn check_stored(stored: &str, cost: config::Argon2) -> Result<(), &'static str> {
    StoredHash::parse(stored, Bounds::beside(cost.memory_kib, cost.iterations)).map(drop)
}

enum Job {
    Hash {
        password: Secret<String>,
        tell: oneshot::Sender<Option<Secret<String>>>,
    },
    Verify {
        password: Secret<String>,
        stored: Option<Secret<String>>,
        tell: oneshot::Sender<Verdict>,
    },
}

fn work(mut hasher: Hasher, queue: &Receiver<Job>, waiting: &AtomicU64) {
    // Linux has a niceness for each thread; elsewhere it is the whole process's. Where it may not be set, it works without.
    #[cfg(target_os = "linux")]
    let _ = rustix::process::nice(NICER_BY);
    loop {
        let job = match queue.recv_timeout(REST_AFTER) {
            Err(RecvTimeoutError::Timeout) => {
                hasher.rest();
                queue.recv().ok()
            }
            job => job.ok(),
        };
        let Some(job) = job else { return };
        waiting.fetch_sub(1, Ordering::Relaxed);
        // Whoever asked hears of a panic by the dropped sender; the thread lives on.
        if catch_unwind(AssertUnwindSafe(|| run(&mut hasher, job))).is_err() {
            error!("hashing a password panicked");
        }
    }
}

fn run(hasher: &mut Hasher, job: Job) {
    match job {
        Job::Hash { password, tell } => {
            let hash = hasher.hash(password.expose());
            if let Err(error) = &hash {
                error!(%error, "could not hash a password");
            }
            let _ = tell.send(hash.ok());
        }
        Job::Verify { password, stored, tell } => {
            let verdict = match &stored {
                Some(stored) => hasher.verify(password.expose(), stored.expose()),
                None => hasher.pretend(password.expose()),
            };
            let _ = tell.send(verdict);
        }
    }
}

#[cfg(test)]
mod tests;
