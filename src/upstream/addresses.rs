//! What an endpoint's name resolves to: looked up once before the first connection, and then again and again beside
//! requests.
//!
//! Until it is known, all who need it wait for one look-up, which goes on though they give up: it occupies a thread until
//! the system's resolver does. One that failed counts for a moment: with the name server away, requests are no storm of
//! questions.
//!
//! What was known stays while nobody answers: a name server that is away must not take the upstream with it. When an
//! address vanishes, connections to it are not used again: what listens there may be somebody else by then.

use std::{
    future::Future,
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwapOption;
use futures_util::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};
use tracing::{info, warn};

use super::{dice::vary, lock};
use crate::clock;

/// More than a name has in practice; each may cost an attempt to connect.
const MAX_ADDRESSES: usize = 32;
/// How often a name is looked up at most, however many connections fail.
const AT_MOST_EVERY: Duration = Duration::from_secs(1);
/// For so long a name that could not be looked up is not looked up again.
const FAILURE_COUNTS_FOR: Duration = Duration::from_secs(1);

/// The addresses of one name.
#[derive(Debug)]
pub(super) struct Addresses {
    known: ArcSwapOption<Vec<SocketAddr>>,
    /// The first look-up, or the last that failed.
    looking: Mutex<Option<LookUp>>,
    /// Counts how often an address vanished.
    generation: AtomicU32,
    /// Somebody could not connect: what is known may be old.
    doubted: Notify,
}

/// One look-up for all who wait for it.
type LookUp = Shared<BoxFuture<'static, Result<Arc<Vec<SocketAddr>>, Failed>>>;

/// That a name could not be looked up, and when.
#[derive(Clone, Debug)]
struct Failed {
    at: Instant,
    why: Arc<io::Error>,
}

/// Where a connection leads, as far as it may matter later.
#[derive(Clone, Copy, Debug)]
pub(super) struct Origin {
    addr: SocketAddr,
    generation: u32,
}

impl Addresses {
    pub(super) fn unknown() -> Self {
        Self {
            known: ArcSwapOption::empty(),
            looking: Mutex::default(),
            generation: AtomicU32::new(0),
            doubted: Notify::new(),
        }
    }

    /// What is known; looked up if nothing is. Cancel-safe.
    pub(super) async fn get<F>(&self, look_up: impl FnOnce() -> F) -> io::Result<Arc<Vec<SocketAddr>>>
    where
        F: Future<Output = io::Result<Vec<SocketAddr>>> + Send + 'static,
    {
        if let Some(known) = self.known.load_full() {
            return Ok(known);
        }
        match self.first(look_up).await {
            Ok(found) => Ok(self.known.load_full().unwrap_or_else(|| self.learn(found))),
            Err(Failed { why, .. }) => Err(io::Error::new(why.kind(), why)),
        }
    }

    /// The look-up that runs, or has just failed; else a new one.
    fn first<F>(&self, look_up: impl FnOnce() -> F) -> LookUp
    where
        F: Future<Output = io::Result<Vec<SocketAddr>>> + Send + 'static,
    {
        let mut looking = lock(&self.looking);
        let counts = |found: &Result<_, Failed>| match found {
            Ok(_) => true,
            Err(failed) => clock::monotonic().saturating_duration_since(failed.at) < FAILURE_COUNTS_FOR,
        };
        if let Some(running) = looking.as_ref().filter(|one| one.peek().is_none_or(counts)) {
            return running.clone();
        }
        let found = look_up().map(|found| {
            let failed = |why| Failed {
                at: clock::monotonic(),
                why: Arc::new(why),
            };
            found.and_then(usable).map(Arc::new).map_err(failed)
        });
        looking.insert(found.boxed().shared()).clone()
    }

    /// To be asked before connecting.
    pub(super) fn generation(&self) -> u32 {
        self.generation.load(Ordering::Relaxed)
    }

    pub(super) const fn origin(addr: SocketAddr, generation: u32) -> Origin {
        Origin { addr, generation }
    }

    /// Whether the name still has the address that a connection leads to.
    pub(super) fn still_has(&self, origin: &Origin) -> bool {
        origin.generation == self.generation()
            || self
                .known
                .load()
                .as_ref()
                .is_none_or(|known| known.contains(&origin.addr))
    }

    /// What is known led nowhere: worth another look.
    pub(super) fn doubt(&self) {
        self.doubted.notify_one();
    }

    fn learn(&self, found: Arc<Vec<SocketAddr>>) -> Arc<Vec<SocketAddr>> {
        let before = self.known.swap(Some(Arc::clone(&found)));
        // After the addresses: who sees the new count sees them as well.
        if before.is_some_and(|before| before.iter().any(|addr| !found.contains(addr))) {
            self.generation.fetch_add(1, Ordering::AcqRel);
        }
        found
    }

    /// Looks up `name` every so often, and when what is known is doubted. Never ends.
    pub(super) async fn keep_fresh<F>(&self, name: &str, every: Duration, limit: Duration, look_up: impl Fn() -> F)
    where
        F: Future<Output = io::Result<Vec<SocketAddr>>>,
    {
        let mut failing = false;
        loop {
            let _ = timeout(vary(every), self.doubted.notified()).await;
            let found = timeout(limit, look_up())
                .await
                .unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut)))
                .and_then(usable);
            match found {
                Ok(found) => {
                    let generation = self.generation();
                    let addresses = self.learn(Arc::new(found));
                    if self.generation() != generation {
                        info!(name, ?addresses, "an upstream's name has other addresses now");
                    }
                    failing = false;
                }
                Err(error) => {
                    if !failing {
                        warn!(name, %error, "an upstream's name can't be looked up, what was known stays");
                    }
                    failing = true;
                }
            }
            sleep(AT_MOST_EVERY.min(every)).await;
        }
    }
}

fn usable(mut found: Vec<SocketAddr>) -> io::Result<Vec<SocketAddr>> {
    if found.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
    }
    found.truncate(MAX_ADDRESSES);
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::{
        future::{Ready, ready},
        sync::Mutex,
    };

    use super::*;

    fn addr(last: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, last], 80))
    }

    /// A name server that says what it is told to.
    #[derive(Clone, Default)]
    struct Server(Arc<Mutex<(Vec<SocketAddr>, usize)>>);

    impl Server {
        fn says(&self, addresses: &[u8]) {
            self.0.lock().unwrap().0 = addresses.iter().map(|last| addr(*last)).collect();
        }

        fn asked(&self) -> usize {
            self.0.lock().unwrap().1
        }

        fn look_up(&self) -> Ready<io::Result<Vec<SocketAddr>>> {
            let mut state = self.0.lock().unwrap();
            state.1 += 1;
            ready(Ok(state.0.clone()))
        }
    }

    async fn known(addresses: &Addresses) -> Vec<SocketAddr> {
        let nobody = || async { Err(io::Error::other("nothing was known")) };
        addresses.get(nobody).await.unwrap().to_vec()
    }

    /// Runs the refresher until `done`.
    async fn until(addresses: &Addresses, server: &Server, done: impl Fn() -> bool) {
        let every = Duration::from_millis(1);
        let refreshing = addresses.keep_fresh("app", every, Duration::from_secs(1), || server.look_up());
        let watching = async {
            while !done() {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            () = refreshing => {}
            done = timeout(Duration::from_secs(20), watching) => done.unwrap(),
        }
    }

    #[tokio::test]
    async fn a_name_is_looked_up_once_however_often_it_is_used() {
        let (addresses, server) = (Addresses::unknown(), Server::default());
        server.says(&[1]);
        for _ in 0..3 {
            let found = addresses.get(|| server.look_up()).await.unwrap();
            assert_eq!(*found, [addr(1)]);
        }
        assert_eq!(server.asked(), 1);
    }

    #[tokio::test]
    async fn all_who_wait_share_one_look_up_which_goes_on_though_they_leave() {
        let (addresses, asked) = (Addresses::unknown(), Mutex::new(0));
        let (tell, told) = tokio::sync::oneshot::channel::<Vec<SocketAddr>>();
        let mut told = Some(told);
        let mut look_up = || {
            *asked.lock().unwrap() += 1;
            let told = told.take().unwrap();
            async { told.await.map_err(io::Error::other) }
        };
        {
            let mut impatient = Box::pin(addresses.get(&mut look_up));
            assert!(futures_util::poll!(impatient.as_mut()).is_pending());
        }
        let nobody = || async { Err(io::Error::other("there is one under way")) };
        let (mut one, mut other) = (Box::pin(addresses.get(nobody)), Box::pin(addresses.get(nobody)));
        assert!(futures_util::poll!(one.as_mut()).is_pending());
        assert!(futures_util::poll!(other.as_mut()).is_pending());
        tell.send(vec![addr(1)]).unwrap();
        assert_eq!(*one.await.unwrap(), [addr(1)]);
        assert_eq!(*other.await.unwrap(), [addr(1)]);
        assert_eq!(*asked.lock().unwrap(), 1);
    }

    #[tokio::test]
    async fn a_failure_counts_for_a_moment_and_no_longer() {
        let (addresses, server) = (Addresses::unknown(), Server::default());
        for _ in 0..50 {
            assert!(addresses.get(|| server.look_up()).await.is_err());
        }
        assert_eq!(server.asked(), 1);
        server.says(&[1]);
        let over = clock::monotonic() + Duration::from_secs(20);
        while addresses.get(|| server.look_up()).await.is_err() {
            assert!(clock::monotonic() < over);
            tokio::task::yield_now().await;
        }
        assert_eq!(server.asked(), 2);
    }

    #[tokio::test]
    async fn a_name_that_moves_is_followed_and_its_old_connections_are_not_used() {
        let (addresses, server) = (Addresses::unknown(), Server::default());
        server.says(&[1, 2]);
        addresses.get(|| server.look_up()).await.unwrap();
        let [to_1, to_2] = [1, 2].map(|last| Addresses::origin(addr(last), addresses.generation()));
        assert!(addresses.still_has(&to_1) && addresses.still_has(&to_2));

        server.says(&[2, 3]);
        until(&addresses, &server, || addresses.generation() > 0).await;
        assert_eq!(known(&addresses).await, [addr(2), addr(3)]);
        assert!(!addresses.still_has(&to_1), "its address is gone");
        assert!(addresses.still_has(&to_2), "its address stayed");
    }

    #[tokio::test]
    async fn what_was_known_stays_while_nobody_answers() {
        let (addresses, server) = (Addresses::unknown(), Server::default());
        server.says(&[1]);
        addresses.get(|| server.look_up()).await.unwrap();
        server.says(&[]);
        let asked = server.asked();
        until(&addresses, &server, || server.asked() > asked + 2).await;
        assert_eq!(known(&addresses).await, [addr(1)]);
        assert_eq!(addresses.generation(), 0);
    }

    #[tokio::test]
    async fn a_doubt_is_looked_into_at_once() {
        let (addresses, server) = (Addresses::unknown(), Server::default());
        server.says(&[1]);
        addresses.get(|| server.look_up()).await.unwrap();
        server.says(&[2]);
        addresses.doubt();
        let hour = Duration::from_hours(1);
        let refreshing = addresses.keep_fresh("app", hour, Duration::from_secs(1), || server.look_up());
        let moved = async {
            while addresses.generation() == 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            () = refreshing => {}
            moved = timeout(Duration::from_secs(20), moved) => moved.unwrap(),
        }
        assert_eq!(known(&addresses).await, [addr(2)]);
    }

    #[tokio::test]
    async fn a_name_without_an_address_is_an_error_and_nothing_endless_is_kept() {
        let (nowhere, addresses, server) = (Addresses::unknown(), Addresses::unknown(), Server::default());
        assert!(nowhere.get(|| server.look_up()).await.is_err());
        let many: Vec<u8> = (0..=255).collect();
        server.says(&many);
        let found = addresses.get(|| server.look_up()).await.unwrap();
        assert_eq!(found.len(), MAX_ADDRESSES);
    }
}
