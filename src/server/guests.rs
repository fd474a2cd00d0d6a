//! Who is connected, so that whoever does nothing makes room for somebody who wants to do something.
//!
//! Connections cost their clients nothing: a few thousand that are opened and left alone would keep everybody else out for
//! as long as idle ones may stay. So while all places are taken, those go that have been idle, or have owed us a head, for
//! longest; a few at a time, since most of them may be honest and would have been used again. A connection on which
//! anything is under way stays.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::{
    clock,
    proxy::pace::{Leave, Pace},
};

/// Nobody goes who has been idle for less: a client between two requests, or one whose first is still on its way.
const AT_LEAST: Duration = Duration::from_secs(2);
/// Of those that may go, so many are left for each that goes.
const SHARE: usize = 8;
/// At once so many go at most, or of very many connections a few thousandths: to look at all of them for each that goes
/// would cost more than the attack.
const AT_ONCE: usize = 32;
const OF_MANY: usize = 256;

/// All connections, of all workers.
#[derive(Debug, Default)]
pub struct Guests(Mutex<HashMap<usize, Arc<Pace>>>);

/// A connection's place among them; it leaves when this is dropped.
#[derive(Debug)]
pub(super) struct Guest<'g> {
    guests: &'g Guests,
    at: usize,
}

impl Guests {
    pub(super) fn enter(&self, pace: &Arc<Pace>) -> Guest<'_> {
        // While it is here nothing else has its address.
        let at = Arc::as_ptr(pace).addr();
        self.lock().insert(at, Arc::clone(pace));
        Guest { guests: self, at }
    }

    /// Asks a few to leave that have done nothing for longest. How many were asked.
    pub(super) fn make_room(&self) -> usize {
        self.make_room_at(clock::monotonic())
    }

    fn make_room_at(&self, now: Instant) -> usize {
        let guests = self.lock();
        let mut idle: Vec<(Instant, &Arc<Pace>)> = guests
            .values()
            .filter_map(|pace| Some((pace.at_leisure_since()?, pace)))
            .filter(|(since, _)| now.saturating_duration_since(*since) >= AT_LEAST)
            .collect();
        let most = AT_ONCE.max(guests.len() / OF_MANY);
        let count = idle.len().div_ceil(SHARE).min(most);
        if count < idle.len() {
            idle.select_nth_unstable_by_key(count, |(since, _)| *since);
        }
        idle.iter()
            .take(count)
            .filter(|(_, pace)| pace.ask_to_leave(Leave::MakeRoom))
            .count()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<usize, Arc<Pace>>> {
        // What it guards can't be left half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Guest<'_> {
    fn drop(&mut self) {
        self.guests.lock().remove(&self.at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_been_idle_for_longest_goes_first_and_who_is_busy_stays() {
        let guests = Guests::default();
        let begin = clock::monotonic();
        let now = begin + Duration::from_mins(1);
        let paces: Vec<_> = (0..400).map(|_| Arc::new(Pace::new())).collect();
        let _entered: Vec<_> = paces.iter().map(|pace| guests.enter(pace)).collect();
        for (number, pace) in (0_u64..).zip(&paces) {
            pace.request_begins();
            // The first ten are busy still; each other has been idle for a tenth of a second longer than the one before.
            if number >= 10 {
                pace.request_ended(begin + Duration::from_millis(60_000 - 100 * (number - 10)));
            }
        }
        assert_eq!(guests.make_room_at(now), AT_ONCE);
        let asked = |pace: &Arc<Pace>| pace.at_leisure_since().is_none();
        let going: Vec<usize> = (10..400).filter(|at| asked(&paces[*at])).collect();
        assert_eq!(going, (400 - AT_ONCE..400).collect::<Vec<_>>());
        let mut gone = AT_ONCE;
        loop {
            let more = guests.make_room_at(now);
            if more == 0 {
                break;
            }
            gone += more;
        }
        // Those that have been idle for less than two seconds stay.
        assert_eq!(gone, 390 - 20);
    }

    #[test]
    fn who_has_left_is_not_asked() {
        let guests = Guests::default();
        let pace = Arc::new(Pace::new());
        let later = clock::monotonic() + Duration::from_mins(1);
        drop(guests.enter(&pace));
        assert_eq!(guests.make_room_at(later), 0);
        let _guest = guests.enter(&pace);
        assert_eq!(guests.make_room_at(later), 1);
    }
}
