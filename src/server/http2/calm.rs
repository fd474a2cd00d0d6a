//! What a client of HTTP/2 may have us do for nothing.
//!
//! Requests are counted, limited and answered in their turn. Other frames cost a client a few bytes and are acted on at
//! once, however many there are: it can take back what it has just asked for, when it has reached an upstream already
//! (CVE-2023-44487); or keep us busy with pings, settings, priorities, windows and frames that mean nothing
//! (CVE-2019-9512 to 9518). So each connection has an allowance of both, which comes back with time, and of windows and
//! pings more for what it is sent. Honest clients use a small part of it.
//!
//! A trusted proxy's connection carries the requests of many: one of them who leaves pages often must not end it for all.
//! What it takes back is not held against it; whom it serves is its own to limit.
//!
//! Not here: streams that were taken back before anybody looked at them, and those that a client's mistakes have us reset
//! (CVE-2025-8671). h2 counts both (`http2::builder`).

use std::time::Instant;

use crate::{clock, config, proxy::pace::Leave};

const DATA: u8 = 0x0;
const HEADERS: u8 = 0x1;
const RST_STREAM: u8 = 0x3;
const SETTINGS: u8 = 0x4;
const PING: u8 = 0x6;
const CONTINUATION: u8 = 0x9;

/// So many bytes that we have sent pay for one more frame: a client that opens its window for each small frame of ours
/// sends two frames for ours of fourteen bytes or more.
const BYTES_PER_FRAME: u64 = 4;
/// What is answered costs what its answer would pay for, so that no ping pays for the next.
const PING_COSTS: u64 = 1 + 17 / BYTES_PER_FRAME + 1;
const SETTINGS_COST: u64 = 1 + 9 / BYTES_PER_FRAME + 1;

/// Of resets a tenth comes back in a second.
const RESETS_COME_BACK_IN: u64 = 10;

/// What a connection has used of its allowances.
#[derive(Debug)]
pub(super) struct Calm {
    /// `None`: any number.
    resets: Option<Allowance>,
    idle: Allowance,
    /// Bytes sent when that was looked at last.
    sent: u64,
}

/// What the frames of one read cost.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Cost {
    resets: u64,
    idle: u64,
}

impl Cost {
    /// Adds a frame.
    pub(super) const fn add(&mut self, kind: u8, length: usize) {
        match kind {
            // h2 counts blocks of fields by itself.
            HEADERS | CONTINUATION => {}
            DATA if length > 0 => {}
            RST_STREAM => self.resets += 1,
            PING => self.idle += PING_COSTS,
            SETTINGS => self.idle += SETTINGS_COST,
            _ => self.idle += 1,
        }
    }
}

impl Calm {
    /// `is_proxy`: the client is one of `server.trusted_proxies`.
    pub(super) fn new(server: &config::Server, is_proxy: bool) -> Self {
        let resets = u64::from(server.max_resets);
        let idle = u64::from(server.max_idle_frames);
        Self {
            resets: (!is_proxy).then(|| Allowance::new(resets, resets.div_ceil(RESETS_COME_BACK_IN))),
            idle: Allowance::new(idle, idle),
            sent: 0,
        }
    }

    /// Takes the cost off. `Some`: the client has had enough; `sent` are the bytes that it was sent in all.
    pub(super) fn take(&mut self, cost: Cost, sent: u64) -> Option<Leave> {
        let resets = self.resets.as_mut();
        if resets.is_some_and(|resets| resets.take(cost.resets, || 0)) {
            return Some(Leave::Resets);
        }
        let paid = || sent.saturating_sub(std::mem::replace(&mut self.sent, sent)) / BYTES_PER_FRAME;
        self.idle.take(cost.idle, paid).then_some(Leave::IdleFrames)
    }
}

/// So much may be used at once, and so much comes back in a second.
#[derive(Debug)]
struct Allowance {
    most: u64,
    per_second: u64,
    used: u64,
    /// When it was looked at last what has come back: only once it seems to be used up.
    looked: Instant,
}

impl Allowance {
    fn new(most: u64, per_second: u64) -> Self {
        Self {
            most,
            per_second,
            used: 0,
            looked: clock::monotonic(),
        }
    }

    /// Whether it is used up. `paid`: what came back for other reasons than time, since it was asked last.
    fn take(&mut self, cost: u64, paid: impl FnOnce() -> u64) -> bool {
        self.used = self.used.saturating_add(cost);
        if self.used <= self.most {
            return false;
        }
        self.look(clock::monotonic(), paid())
    }

    fn look(&mut self, now: Instant, paid: u64) -> bool {
        let millis = u64::try_from(now.saturating_duration_since(self.looked).as_millis()).unwrap_or(u64::MAX);
        self.looked = now;
        let came_back = self.per_second.saturating_mul(millis) / 1000;
        self.used = self.used.saturating_sub(came_back).saturating_sub(paid);
        self.used > self.most
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn cost(frames: &[(u8, usize)]) -> Cost {
        let mut cost = Cost::default();
        for (kind, length) in frames {
            cost.add(*kind, *length);
        }
        cost
    }

    fn calm() -> Calm {
        Calm {
            resets: Some(Allowance::new(20, 2)),
            idle: Allowance::new(100, 100),
            sent: 0,
        }
    }

    #[test]
    fn requests_and_bodies_cost_nothing() {
        let frames = [(HEADERS, 20), (CONTINUATION, 0), (DATA, 1), (DATA, 16_384)];
        assert_eq!(cost(&frames), Cost::default());
    }

    #[test]
    fn resets_have_an_allowance_of_their_own() {
        let mut calm = calm();
        for _ in 0..20 {
            assert_eq!(calm.take(cost(&[(HEADERS, 20), (RST_STREAM, 4)]), u64::MAX), None);
        }
        assert_eq!(calm.take(cost(&[(RST_STREAM, 4)]), u64::MAX), Some(Leave::Resets));
    }

    #[test]
    fn frames_that_carry_nothing_are_paid_for_by_what_was_sent() {
        for kind in [DATA, 0x2, 0x7, 0x8, 0x10, 0xff] {
            let mut calm = calm();
            for _ in 0..100 {
                assert_eq!(calm.take(cost(&[(kind, 0)]), 0), None);
            }
            // A tick later a hundred bytes had gone.
            assert_eq!(calm.take(cost(&[(kind, 0)]), 100), None, "{kind}");
            assert_eq!(
                calm.take(cost(&[(kind, 0); 120]), 100),
                Some(Leave::IdleFrames),
                "{kind}"
            );
        }
    }

    #[test]
    fn no_answer_to_a_ping_pays_for_the_next() {
        for (kind, answer) in [(PING, 17), (SETTINGS, 9)] {
            let mut calm = calm();
            let mut sent = 0;
            let ended = (0..1_000).find(|_| {
                sent += answer;
                calm.take(cost(&[(kind, 8)]), sent).is_some()
            });
            assert!(ended.is_some(), "{kind}");
        }
    }

    #[test]
    fn a_client_may_open_its_window_for_each_small_frame() {
        const WINDOW_UPDATE: u8 = 0x8;
        let mut calm = calm();
        let mut sent = 0;
        for _ in 0..10_000 {
            sent += 14;
            assert_eq!(calm.take(cost(&[(WINDOW_UPDATE, 4); 2]), sent), None);
        }
    }

    #[test]
    fn time_gives_back() {
        let mut allowance = Allowance::new(100, 10);
        let begun = allowance.looked;
        allowance.used = 150;
        assert!(allowance.look(begun + Duration::from_secs(4), 0));
        assert!(!allowance.look(begun + Duration::from_secs(5), 0));
        assert_eq!(allowance.used, 100);
        assert!(!allowance.look(begun + Duration::from_hours(1), 0));
        assert_eq!(allowance.used, 0, "no more than all of it");
    }
}
