//! A number that all threads of the data path add to, without any of them waiting for another's.
//!
//! A count that is written with every request by every thread moves from one processor's cache to the other's each time,
//! which takes longer than much of what is counted. Here each thread has a place of its own; who reads adds them up.

use std::{
    fmt,
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
};

/// Threads that have a place to themselves; where there are more, some share one.
const PLACES: usize = 32;

/// As large as what processors fetch at once.
#[derive(Default)]
#[repr(align(128))]
struct Place(AtomicU64);

#[derive(Default)]
pub struct Spread([Place; PLACES]);

thread_local! {
    static MINE: usize = {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        NEXT.fetch_add(1, Ordering::Relaxed) % PLACES
    };
}

impl Spread {
    pub fn add_one(&self) {
        if let Some(place) = self.0.get(MINE.with(|mine| *mine)) {
            place.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub fn total(&self) -> u64 {
        self.0.iter().map(|place| place.0.load(Ordering::Relaxed)).sum()
    }
}

impl fmt::Debug for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Spread({})", self.total())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_was_added_is_lost() {
        let spread = Spread::default();
        std::thread::scope(|scope| {
            for _ in 0..PLACES + 8 {
                scope.spawn(|| (0..100).for_each(|_| spread.add_one()));
            }
        });
        assert_eq!(spread.total(), 100 * (PLACES as u64 + 8));
    }
}
