//! Which endpoint a request goes to: of two taken by chance the one with fewer requests in flight.
//!
//! That is as good as knowing all of them, without a herd that follows whoever is least loaded (Mitzenmacher, "The
//! Power of Two Choices in Randomized Load Balancing", 2001): a slow endpoint has more in flight, and gets less. Where
//! there is one endpoint nothing is computed.
//!
//! Not here: what puts an endpoint out (`health.rs`, `outliers.rs`).

use std::sync::atomic::Ordering;

use super::{Upstream, dice::Dice, standing::Came};

/// Endpoints that one request has tried: as many as the configuration allows.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tried(u64);

impl Tried {
    pub(super) const fn add(&mut self, endpoint: usize) {
        self.0 |= 1 << (endpoint % 64);
    }

    const fn has(self, endpoint: usize) -> bool {
        self.0 & (1 << (endpoint % 64)) != 0
    }
}

impl Upstream {
    /// An endpoint that was not tried; `None` if all were. One that is out comes last, but it comes: an answer that
    /// may fail is better than none.
    pub(super) fn choose(&self, dice: &Dice, tried: Tried) -> Option<usize> {
        let count = self.endpoints().len();
        if count == 1 {
            return (!tried.has(0)).then_some(0);
        }
        let one = dice.below(count);
        // Another one than that, each as likely.
        let other = (one + 1 + dice.below(count - 1)) % count;
        let fit =
            |endpoint| !tried.has(endpoint) && self.gets_requests(endpoint) && self.gets_its_share(endpoint, dice);
        match (fit(one), fit(other)) {
            (true, true) if self.load(other) < self.load(one) => Some(other),
            (true, _) => Some(one),
            (false, true) => Some(other),
            (false, false) => self.any(one, tried),
        }
    }

    /// When both were unfit: the next that is fit, and if none is, whoever may yet answer.
    fn any(&self, first: usize, tried: Tried) -> Option<usize> {
        let count = self.endpoints().len();
        let all = || (0..count).map(|offset| (first + offset) % count);
        let untried = || all().filter(|endpoint| !tried.has(*endpoint));
        if let Some(endpoint) = untried().find(|endpoint| self.gets_requests(*endpoint)) {
            return Some(endpoint);
        }
        if !all().any(|endpoint| self.gets_requests(endpoint)) {
            self.note_all_out();
        }
        // An ejection is a guess from a few requests; being unhealthy is what the endpoint said itself.
        let healthy = |endpoint: &usize| {
            let endpoint = self.endpoints().get(*endpoint);
            endpoint.is_some_and(|endpoint| endpoint.standing.is_healthy())
        };
        untried().find(healthy).or_else(|| untried().next())
    }

    fn gets_requests(&self, endpoint: usize) -> bool {
        let Some(endpoint) = self.endpoints().get(endpoint) else {
            return false;
        };
        let last_chance = self.settings.outliers.failures.saturating_sub(1);
        match endpoint.standing.is_in(last_chance) {
            None => false,
            Some(Came::WasIn) => true,
            Some(Came::Back) => {
                self.note_back(endpoint);
                true
            }
        }
    }

    /// By chance, as often as its share says.
    fn gets_its_share(&self, endpoint: usize, dice: &Dice) -> bool {
        if self.settings.slow_start.is_zero() {
            return true;
        }
        let share = self
            .endpoints()
            .get(endpoint)
            .map_or(100, |endpoint| endpoint.standing.share(self.settings.slow_start));
        share >= 100 || (dice.below(100) as u64) < share
    }

    fn load(&self, endpoint: usize) -> usize {
        self.endpoints()
            .get(endpoint)
            .map_or(usize::MAX, |endpoint| endpoint.in_flight.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{super::testing, *};

    /// How often each is chosen.
    fn chosen(upstream: &Upstream) -> Vec<usize> {
        let dice = Dice::new();
        let mut counts = vec![0; upstream.endpoints().len()];
        for _ in 0..10_000 {
            counts[upstream.choose(&dice, Tried::default()).unwrap()] += 1;
        }
        counts
    }

    fn standing(upstream: &Upstream, endpoint: usize) -> &super::super::standing::Standing {
        &upstream.endpoints()[endpoint].standing
    }

    #[test]
    fn equals_get_the_same() {
        let upstream = testing::upstream("['http://10.0.0.1', 'http://10.0.0.2', 'http://10.0.0.3']");
        assert!(chosen(&upstream).iter().all(|count| (2_800..3_900).contains(count)));
    }

    #[test]
    fn who_has_more_in_flight_gets_less() {
        let upstream = testing::upstream("['http://10.0.0.1', 'http://10.0.0.2', 'http://10.0.0.3']");
        upstream.endpoints()[1].in_flight.store(5, Ordering::Relaxed);
        assert_eq!(chosen(&upstream)[1], 0, "it loses against both others");
    }

    #[test]
    fn who_is_out_gets_nothing_while_another_is_in() {
        let upstream = testing::upstream("['http://10.0.0.1', 'http://10.0.0.2', 'http://10.0.0.3']");
        standing(&upstream, 0).set_healthy(false);
        standing(&upstream, 2).eject(Duration::from_hours(1));
        assert_eq!(chosen(&upstream), [0, 10_000, 0]);
    }

    #[test]
    fn when_all_are_out_the_merely_ejected_are_asked() {
        let upstream = testing::upstream("['http://10.0.0.1', 'http://10.0.0.2', 'http://10.0.0.3']");
        standing(&upstream, 0).set_healthy(false);
        standing(&upstream, 1).eject(Duration::from_hours(1));
        standing(&upstream, 2).set_healthy(false);
        assert_eq!(chosen(&upstream), [0, 10_000, 0]);
        standing(&upstream, 1).set_healthy(false);
        assert!(chosen(&upstream).iter().all(|count| *count > 0), "any may yet answer");
    }

    #[test]
    fn what_was_tried_is_not_tried_again() {
        for endpoints in [
            "'http://10.0.0.1'",
            "['http://10.0.0.1', 'http://10.0.0.2', 'http://10.0.0.3']",
        ] {
            let upstream = testing::upstream(endpoints);
            let (dice, mut tried) = (Dice::new(), Tried::default());
            let mut seen = Vec::new();
            while let Some(endpoint) = upstream.choose(&dice, tried) {
                tried.add(endpoint);
                seen.push(endpoint);
            }
            seen.sort_unstable();
            assert_eq!(seen, (0..upstream.endpoints().len()).collect::<Vec<_>>());
        }
    }

    #[test]
    fn who_comes_back_gets_its_share_bit_by_bit() {
        let upstream = testing::upstream("['http://10.0.0.1', 'http://10.0.0.2']\nslow_start = '1h'");
        standing(&upstream, 1).set_healthy(false);
        standing(&upstream, 1).set_healthy(true);
        let counts = chosen(&upstream);
        assert!((200..900).contains(&counts[1]), "about half of a tenth: {counts:?}");
    }
}
