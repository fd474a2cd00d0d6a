//! When certificates are renewed, and when after a failure it is tried again. No I/O; times and chance come in.
//!
//! Authorities count: Let's Encrypt takes five failed checks an hour for a name, and shuts out who goes on for long. So
//! every failure makes the next pause longer, and what an authority says of it (`Retry-After`) is a minimum. Chance keeps
//! gateways that were started together from asking together.

use std::time::Duration;

use crate::clock::Timestamp;

/// After the first failures, in a row; the last one goes on.
const PAUSES: [Duration; 7] = [
    Duration::from_mins(2),
    Duration::from_mins(10),
    Duration::from_mins(30),
    Duration::from_hours(1),
    Duration::from_hours(3),
    Duration::from_hours(6),
    Duration::from_hours(12),
];
/// While no valid certificate is in use the site is down: whoever mends what is wrong should not wait for half a day.
const PAUSE_WHILE_DOWN: Duration = Duration::from_hours(1);
/// What an authority may ask for: Let's Encrypt's longest limit is a week.
const LONGEST_PAUSE: Duration = Duration::from_hours(24 * 7);
/// Between a certificate's arrival and its renewal, as long as it lives so long.
const SHORTEST_LIFE: Duration = Duration::from_hours(1);
/// How often an authority is asked for its wish at most, and at least (RFC 9773, section 4.3.2).
const ASK_AFTER: (Duration, Duration) = (Duration::from_mins(1), Duration::from_hours(24));

/// When a certificate is to be renewed: a little before two thirds of its life have passed. `chance` from 0 to 1000.
pub(super) fn renewal(from: Timestamp, to: Timestamp, now: Timestamp, chance: u32) -> Timestamp {
    let life = to.since(from);
    // A twentieth of its life: four and a half days of ninety.
    let early = life / 20 * chance.min(1000) / 1000;
    let due = from.plus(life / 3 * 2).minus(early);
    // One that is old when it arrives must not be renewed at once, again and again.
    let left = to.since(now);
    due.max(now.plus(SHORTEST_LIFE.min(left / 2)))
}

/// When the authority would have it renewed: somewhere in its window (RFC 9773, section 4.2), but never so late that
/// there would be no time left for failures.
pub(super) fn suggested(window: (Timestamp, Timestamp), life: (Timestamp, Timestamp), chance: u32) -> Timestamp {
    let (start, end) = window;
    let somewhere = start.plus(end.since(start) / 1000 * chance.min(1000));
    let (from, to) = life;
    let latest = to.minus(to.since(from) / 6);
    somewhere.min(latest)
}

/// When it is to be asked again.
pub(super) fn ask_again(now: Timestamp, said: Duration) -> Timestamp {
    let (shortest, longest) = ASK_AFTER;
    now.plus(said.clamp(shortest, longest))
}

/// When to try again after the `failures`th failure in a row. `said` is what the authority asked for.
pub(super) fn again(now: Timestamp, failures: u32, is_down: bool, said: Option<Duration>, chance: u32) -> Timestamp {
    let index = usize::try_from(failures.saturating_sub(1)).unwrap_or(usize::MAX);
    let [.., last] = PAUSES;
    let mut pause = PAUSES.get(index).copied().unwrap_or(last);
    if is_down {
        pause = pause.min(PAUSE_WHILE_DOWN);
    }
    pause = pause.max(said.unwrap_or_default()).min(LONGEST_PAUSE);
    // Up to a fifth longer.
    now.plus(pause + pause / 5 * chance.min(1000) / 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_hours(24);

    fn at(days: u32) -> Timestamp {
        Timestamp::from_secs(1_795_248_000).plus(DAY * days)
    }

    #[test]
    fn a_certificate_is_renewed_before_two_thirds_of_its_life() {
        let due = |chance| renewal(at(0), at(90), at(0), chance);
        assert_eq!(due(0), at(60));
        assert_eq!(due(1000), at(60).minus(DAY * 9 / 2));
        assert!(due(500) > due(1000) && due(500) < due(0));
    }

    #[test]
    fn one_that_is_old_when_it_comes_is_not_renewed_at_once() {
        for now in [at(70), at(89)] {
            assert_eq!(renewal(at(0), at(90), now, 0), now.plus(SHORTEST_LIFE));
        }
        let minutes = Duration::from_mins(4);
        let now = at(90).minus(minutes);
        assert_eq!(
            renewal(at(0), at(90), now, 0),
            now.plus(minutes / 2),
            "whatever its life"
        );
    }

    #[test]
    fn what_the_authority_suggests_counts_within_reason() {
        let life = (at(0), at(90));
        let pick = suggested((at(20), at(22)), life, 500);
        assert_eq!(pick, at(21));
        assert_eq!(
            suggested((at(0), at(0)), life, 7),
            at(0),
            "now, as when it will be revoked"
        );
        assert_eq!(suggested((at(100), at(200)), life, 500), at(75), "not after its end");
        assert_eq!(
            suggested((at(22), at(20)), life, 500),
            at(22),
            "a window that ends before it begins"
        );
    }

    #[test]
    fn the_authority_is_neither_pestered_nor_forgotten() {
        for (said, after) in [(0, 60), (21_600, 21_600), (10_000_000, 86_400)] {
            let again = ask_again(at(0), Duration::from_secs(said));
            assert_eq!(again.since(at(0)), Duration::from_secs(after));
        }
    }

    /// Let's Encrypt: five failed checks an hour.
    #[test]
    fn failures_make_the_pauses_longer() {
        let pause = |failures, down, said| again(at(0), failures, down, said, 0).since(at(0));
        let mut within_an_hour = 1;
        let mut passed = Duration::ZERO;
        for failures in 1..100 {
            let next = pause(failures, false, None);
            assert!(next >= pause(failures.saturating_sub(1), false, None));
            passed += next;
            within_an_hour += u32::from(passed < Duration::from_hours(1));
        }
        assert!(within_an_hour <= 4, "{within_an_hour}");
        assert_eq!(pause(u32::MAX, false, None), Duration::from_hours(12));
        assert_eq!(pause(50, true, None), Duration::from_hours(1), "a site that is down");
    }

    #[test]
    fn what_the_authority_says_of_a_pause_is_its_minimum() {
        let pause = |said: u64, chance| again(at(0), 1, true, Some(Duration::from_secs(said)), chance).since(at(0));
        assert_eq!(pause(5, 0), Duration::from_mins(2));
        assert_eq!(pause(90_000, 0), Duration::from_hours(25));
        assert_eq!(pause(u64::MAX, 0), LONGEST_PAUSE);
        assert_eq!(pause(0, 1000), Duration::from_secs(144), "a fifth more");
    }
}
