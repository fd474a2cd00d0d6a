//! Chance where nothing secret hangs on it: which endpoint is asked, when a task comes round again.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use crate::secret;

/// A worker's own, so that drawing is a few instructions (xorshift, Marsaglia 2003).
#[derive(Debug)]
pub(super) struct Dice(AtomicU64);

impl Dice {
    pub(super) fn new() -> Self {
        // The one state that it would never leave is zero.
        Self(AtomicU64::new(u64::from_ne_bytes(secret::random::<8>()) | 1))
    }

    /// Below `bound`, which is not zero; the bias of a modulus by a small number is far below what anybody could see.
    pub(super) fn below(&self, bound: usize) -> usize {
        let mut state = self.0.load(Ordering::Relaxed);
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        self.0.store(state, Ordering::Relaxed);
        // The upper bits are the better ones.
        usize::try_from(state >> 33).unwrap_or(0) % bound.max(1)
    }
}

/// `about`, a tenth more or less: what begins together must not stay together.
pub(super) fn vary(about: Duration) -> Duration {
    let drawn = u32::from(u16::from_ne_bytes(secret::random::<2>()));
    about * 9 / 10 + about / 5 / u32::from(u16::MAX) * drawn
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_side_comes_up_about_equally_often() {
        let dice = Dice::new();
        let mut seen = [0_u32; 3];
        for _ in 0..30_000 {
            seen[dice.below(3)] += 1;
        }
        assert!(seen.iter().all(|count| (9_000..11_000).contains(count)), "{seen:?}");
    }

    #[test]
    fn variation_stays_within_a_tenth() {
        let about = Duration::from_secs(10);
        for _ in 0..1000 {
            let varied = vary(about);
            assert!(
                (Duration::from_secs(9)..=Duration::from_secs(11)).contains(&varied),
                "{varied:?}"
            );
        }
    }
}
