//! Passwords: which are accepted, and how they are hashed.
//!
//! Argon2id takes a core for tens of milliseconds and megabytes of memory on purpose. So it runs on threads of its own,
//! as many as are configured, behind a queue of bounded length: a storm of sign-ins is told to come back later and
//! delays no proxied byte. Each thread keeps one block of memory, wiped after every use.
//!
//! For a user who does not exist, or has no password, the same work is done: nobody learns which from the time.

use std::{
    fmt, io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread,
};

use argon2::{
    Algorithm, Argon2, Block, Params, Version,
    password_hash::phc::{Output, PasswordHash, Salt},
};
use subtle::ConstantTimeEq;
use tokio::sync::oneshot;
use tracing::{error, warn};
use zeroize::{Zeroize, Zeroizing};

use crate::{
    config,
    secret::{Secret, random},
};

/// Bytes of output and of salt: what RFC 9106, 3.1, recommends.
const OUTPUT_LEN: usize = 32;
const SALT_LEN: usize = 16;

/// A stored hash that asks for more memory is not verified: a row must not be able to take all there is.
const MAX_MEMORY_KIB: u32 = 256 * 1024;

/// The threads that hash. They end when the last clone of this is dropped.
#[derive(Clone)]
pub struct Passwords {
    jobs: SyncSender<Job>,
    /// Jobs that nobody has taken up yet, for metrics.
    waiting: Arc<AtomicU64>,
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
    /// Right, but hashed with other parameters than are configured now: hash it anew.
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
        let (jobs, queue) = sync_channel(config.queue);
        let waiting = Arc::new(AtomicU64::new(0));
        let queue = Arc::new(Mutex::new(queue));
        for n in 0..config.max_concurrent.max(1) {
            let (queue, waiting) = (Arc::clone(&queue), Arc::clone(&waiting));
            let hasher = Hasher::new(params.clone());
            thread::Builder::new()
                .name(format!("password-{n}"))
                .spawn(move || work(hasher, &queue, &waiting))?;
        }
        Ok(Self {
            jobs,
            waiting,
            min_length: config.min_length,
            max_length: config.max_length,
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

    /// Compares with a PHC string; without one, takes as long and says [`Verdict::Wrong`].
    pub async fn verify(
        &self,
        password: Secret<String>,
        stored: Option<Secret<String>>,
    ) -> Result<Verdict, PasswordError> {
        let (tell, told) = oneshot::channel();
        self.ask(Job::Verify { password, stored, tell })?;
        told.await.map_err(|_| PasswordError::Failed)
    }

    fn ask(&self, job: Job) -> Result<(), PasswordError> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        self.jobs.try_send(job).map_err(|refused| {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            match refused {
                TrySendError::Full(_) => PasswordError::Busy,
                TrySendError::Disconnected(_) => PasswordError::Failed,
            }
        })
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

fn work(mut hasher: Hasher, queue: &Mutex<Receiver<Job>>, waiting: &AtomicU64) {
    loop {
        // Whoever holds the lock waits for the next job; the others wait for the lock.
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return };
        waiting.fetch_sub(1, Ordering::Relaxed);
        // Whoever asked hears of a panic by the dropped sender; the thread lives on.
        if catch_unwind(AssertUnwindSafe(|| hasher.run(job))).is_err() {
            error!("hashing a password panicked");
        }
    }
}

/// What one thread has.
struct Hasher {
    params: Params,
    memory: Vec<Block>,
}

impl Hasher {
    fn new(params: Params) -> Self {
        Self {
            memory: vec![Block::new(); params.block_count()],
            params,
        }
    }

    fn run(&mut self, job: Job) {
        match job {
            Job::Hash { password, tell } => {
                let hash = self.hash(password.expose());
                if let Err(error) = &hash {
                    error!(%error, "could not hash a password");
                }
                let _ = tell.send(hash.ok());
            }
            Job::Verify { password, stored, tell } => {
                let verdict = match &stored {
                    Some(stored) => self.verify(password.expose(), stored.expose()),
                    None => self.pretend(password.expose()),
                };
                let _ = tell.send(verdict);
            }
        }
    }

    fn hash(&mut self, password: &str) -> Result<Secret<String>, argon2::password_hash::Error> {
        let salt = random::<SALT_LEN>();
        let params = self.params.clone();
        let output = self.derive(Version::V0x13, &params, password, &salt, OUTPUT_LEN)?;
        let hash = PasswordHash {
            algorithm: Algorithm::Argon2id.ident(),
            version: Some(Version::V0x13.into()),
            params: (&params).try_into()?,
            salt: Some(Salt::new(&salt)?),
            hash: Some(Output::new(&output)?),
        };
        Ok(Secret::new(hash.to_string()))
    }

    /// A hash that can't be read is nobody's password; the log says so, since somebody can't sign in.
    fn verify(&mut self, password: &str, stored: &str) -> Verdict {
        match self.matches(password, stored) {
            Ok(verdict) => verdict,
            Err(reason) => {
                warn!(reason, "a stored password hash can't be verified");
                self.pretend(password)
            }
        }
    }

    fn matches(&mut self, password: &str, stored: &str) -> Result<Verdict, &'static str> {
        let stored = PasswordHash::new(stored).map_err(|_| "it is no PHC string")?;
        if stored.algorithm != Algorithm::Argon2id.ident() {
            return Err("it is not Argon2id");
        }
        let version = match stored.version {
            Some(version) => Version::try_from(version).map_err(|_| "its version is unknown")?,
            // As the reference implementation reads a string without one.
            None => Version::V0x10,
        };
        let (Some(salt), Some(expected)) = (&stored.salt, &stored.hash) else {
            return Err("it lacks its salt or its output");
        };
        let params = Params::try_from(&stored).map_err(|_| "its parameters are not valid")?;
        if params.m_cost() > MAX_MEMORY_KIB.max(self.params.m_cost()) {
            return Err("it asks for too much memory");
        }
        let output = self
            .derive(version, &params, password, salt, expected.len())
            .map_err(|_| "it could not be computed")?;
        if !bool::from(output.ct_eq(expected.as_bytes())) {
            return Ok(Verdict::Wrong);
        }
        let current = version == Version::V0x13
            && expected.len() == OUTPUT_LEN
            && (params.m_cost(), params.t_cost(), params.p_cost())
                == (self.params.m_cost(), self.params.t_cost(), self.params.p_cost());
        Ok(if current {
            Verdict::Right
        } else {
            Verdict::RightButOutdated
        })
    }

    /// The work of [`Hasher::verify`] for nobody.
    fn pretend(&mut self, password: &str) -> Verdict {
        let params = self.params.clone();
        if let Err(error) = self.derive(Version::V0x13, &params, password, &random::<SALT_LEN>(), OUTPUT_LEN) {
            error!(%error, "could not hash a password");
        }
        Verdict::Wrong
    }

    fn derive(
        &mut self,
        version: Version,
        params: &Params,
        password: &str,
        salt: &[u8],
        output_len: usize,
    ) -> Result<Zeroizing<Vec<u8>>, argon2::Error> {
        let own = self.params.block_count();
        // A stored hash with other parameters may need more for once.
        if params.block_count() > own {
            self.memory.resize(params.block_count(), Block::new());
        }
        let mut output = Zeroizing::new(vec![0; output_len]);
        let done = Argon2::new(Algorithm::Argon2id, version, params.clone()).hash_password_into_with_memory(
            password.as_bytes(),
            salt,
            &mut output,
            &mut self.memory,
        );
        self.memory.iter_mut().for_each(Zeroize::zeroize);
        self.memory.truncate(own);
        self.memory.shrink_to_fit();
        done.map(|()| output)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Argon2 as Cost;

    fn passwords(cost: Cost, queue: usize) -> Passwords {
        Passwords::start(&config::Password {
            min_length: 8,
            max_length: 128,
            change_revokes_others: false,
            reset_expires_in: std::time::Duration::from_hours(1),
            argon2: cost,
            max_concurrent: 1,
            queue,
        })
        .unwrap()
    }

    const CHEAP: Cost = Cost {
        memory_kib: 64,
        iterations: 1,
        parallelism: 1,
    };

    fn secret(text: &str) -> Secret<String> {
        Secret::new(text.to_owned())
    }

    #[tokio::test]
    async fn a_password_verifies_against_its_hash_and_nothing_else() {
        let passwords = passwords(CHEAP, 8);
        let hash = passwords.hash(secret("correct horse")).await.unwrap();
        assert!(hash.expose().starts_with("$argon2id$v=19$m=64,t=1,p=1$"));
        let verify = |password, hash: &str| passwords.verify(secret(password), Some(secret(hash)));
        assert_eq!(verify("correct horse", hash.expose()).await.unwrap(), Verdict::Right);
        assert_eq!(verify("battery staple", hash.expose()).await.unwrap(), Verdict::Wrong);
        let nobody = passwords.verify(secret("correct horse"), None).await.unwrap();
        assert_eq!(nobody, Verdict::Wrong);
        for broken in [
            "",
            "x",
            "$argon2id$v=19$m=64,t=1,p=1$c2FsdA",
            "$argon2id$v=19$m=4000000,t=1,p=1$c2FsdHNhbHRzYWx0$aGFzaGhhc2hoYXNoaGFzaA",
            "$2b$12$abcdefghijklmnopqrstuu",
            "$argon2i$v=19$m=64,t=1,p=1$c2FsdHNhbHRzYWx0$aGFzaGhhc2hoYXNoaGFzaA",
        ] {
            assert_eq!(
                verify("correct horse", broken).await.unwrap(),
                Verdict::Wrong,
                "{broken}"
            );
        }
    }

    #[tokio::test]
    async fn other_parameters_verify_but_ask_for_a_new_hash() {
        let costlier = Cost {
            memory_kib: 128,
            ..CHEAP
        };
        let old = passwords(costlier, 8).hash(secret("correct horse")).await.unwrap();
        let now = passwords(CHEAP, 8);
        let verdict = now.verify(secret("correct horse"), Some(old)).await.unwrap();
        assert_eq!(verdict, Verdict::RightButOutdated);
    }

    #[tokio::test]
    async fn a_full_queue_refuses_at_once() {
        let slow = Cost {
            memory_kib: 64 * 1024,
            iterations: 2,
            parallelism: 1,
        };
        let passwords = passwords(slow, 1);
        let (_, asked) = futures_util::future::join(
            passwords.hash(secret("one")),
            futures_util::future::join_all((0..8).map(|_| passwords.hash(secret("more")))),
        )
        .await;
        assert!(asked.iter().any(|asked| matches!(asked, Err(PasswordError::Busy))));
    }

    #[tokio::test]
    async fn lengths_are_counted_in_utf16_units() {
        let passwords = passwords(CHEAP, 1);
        assert_eq!(passwords.check_new("1234567"), Err(Unacceptable::TooShort));
        assert_eq!(passwords.check_new("12345678"), Ok(()));
        // Two units each.
        assert_eq!(passwords.check_new("🦀🦀🦀🦀"), Ok(()));
        assert_eq!(passwords.check_new(&"🦀".repeat(64)), Ok(()));
        assert_eq!(passwords.check_new(&"🦀".repeat(65)), Err(Unacceptable::TooLong));
    }
}
