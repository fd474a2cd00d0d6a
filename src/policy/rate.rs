//! How often somebody may ask: which budget a path of the auth API has, and what is left of a budget.
//!
//! The rule for addresses is the wire contract's (section 5): a request is allowed when the count since the window began
//! is below the limit, or the last that was allowed is at least one window old; the count then starts at one. For people,
//! whose right passwords are given back, the window runs from the first that counts ([`WindowFrom`]). What is refused does
//! not count. `db::rate_limits` says the same in SQL, for gateways that count together.

use std::time::Duration;

pub use crate::identity::Network;
use crate::{
    clock::Timestamp,
    config::{Budget, WindowFrom},
};

/// What was taken of a budget.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Used {
    /// Since the window began, less what was given back.
    pub count: u32,
    /// What the window runs from.
    pub since: Timestamp,
}

impl Used {
    /// What is used when one more is, or how long to wait for it.
    pub fn one_more(used: Option<Self>, budget: Budget, now: Timestamp) -> Result<Self, Duration> {
        match used {
            Some(used) if !used.is_over(budget, now) => {
                if used.count >= budget.limit {
                    return Err(wait(used.since, budget, now));
                }
                Ok(Self {
                    count: used.count.saturating_add(1),
                    since: match budget.window_from {
                        WindowFrom::Last => used.since.max(now),
                        // All were given back.
                        WindowFrom::First if used.count == 0 => now,
                        WindowFrom::First => used.since,
                    },
                })
            }
            _ => Ok(Self { count: 1, since: now }),
        }
    }

    /// A time that lies further ahead than a window was told by a clock that was wrong.
    fn is_over(self, budget: Budget, now: Timestamp) -> bool {
        self.since <= now.minus(budget.window) || self.since > now.plus(budget.window)
    }
}

/// Until the window is over that runs from then.
pub fn wait(since: Timestamp, budget: Budget, now: Timestamp) -> Duration {
    since.plus(budget.window).since(now).min(budget.window)
}

/// What is left of a route's budget, as one number: when all of it is there again. It holds so many requests, and they
/// come back one by one, evenly (the generic cell rate algorithm of ITU-T I.371).
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct Bucket {
    /// Nanoseconds since the epoch: with a million a second, microseconds would be too coarse.
    whole_at: u64,
}

impl Bucket {
    /// Takes one of `requests` that come back within `window`, or says how long to wait for one.
    pub fn take(&mut self, requests: u32, window: Duration, now: Timestamp) -> Result<(), Duration> {
        let nanos = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let now = u64::try_from(now.micros()).unwrap_or(0).saturating_mul(1000);
        let window = nanos(window);
        let each = (window / u64::from(requests.max(1))).max(1);
        let latest = now.saturating_add(window);
        // A time further ahead than a window was told by a clock that was wrong.
        let from = if self.whole_at > latest {
            now
        } else {
            self.whole_at.max(now)
        };
        let whole_at = from.saturating_add(each);
        if whole_at > latest {
            return Err(Duration::from_nanos(whole_at - latest));
        }
        self.whole_at = whole_at;
        Ok(())
    }
}

/// What the paths that begin with the same words may be asked.
#[derive(Debug)]
pub struct Rule {
    /// How it is called in metrics.
    pub name: &'static str,
    prefixes: &'static [&'static str],
    pub budget: Budget,
    pub counted: Counted,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Counted {
    /// Each request where all gateways see it: few are allowed, and each tests a secret or sends a mail.
    Together,
    /// Here, until a source has asked so often that it may be at its limit. See [`Rule::counts_alone_until`].
    HereAtFirst,
}

const fn strict(name: &'static str, prefixes: &'static [&'static str], limit: u32, secs: u64) -> Rule {
    Rule {
        name,
        prefixes,
        budget: Budget {
            limit,
            window: Duration::from_secs(secs),
            window_from: WindowFrom::Last,
        },
        counted: Counted::Together,
    }
}

/// The contract's table, the narrower before the wider.
pub static RULES: [Rule; 8] = [
    strict("magic-link", &["/sign-in/magic-link", "/magic-link/verify"], 5, 60),
    strict("sign-in", &["/sign-in", "/signin"], 3, 10),
    strict("sign-up", &["/sign-up", "/signup"], 3, 10),
    strict("change-password", &["/change-password"], 3, 10),
    strict("change-email", &["/change-email"], 3, 10),
    strict("two-factor", &["/two-factor/"], 3, 10),
    strict(
        "mail",
        &[
            "/request-password-reset",
            "/forget-password",
            "/send-verification-email",
        ],
        3,
        60,
    ),
    OTHERS,
];

const OTHERS: Rule = Rule {
    name: "other",
    prefixes: &[""],
    budget: Budget {
        limit: 100,
        window: Duration::from_secs(10),
        window_from: WindowFrom::Last,
    },
    counted: Counted::HereAtFirst,
};

/// Never limited: what backends ask for every request of their own, all from one address.
const EXEMPT: &str = "/verify-token";

/// Endpoints under two names: the one may not have what the other has used up.
const SAME: [(&str, &str); 5] = [
    ("/signin", "/sign-in/email"),
    ("/signup", "/sign-up/email"),
    ("/forget-password", "/request-password-reset"),
    ("/sign-in/oauth2", "/sign-in/social"),
    ("/oauth2/link", "/link-social"),
];

/// What stands for every path that nothing is at: they share what they may be asked.
const NOTHING: &str = "*";

impl Rule {
    /// The rule for a path below the base path; none if it is not limited.
    pub fn of(path: &str) -> Option<&'static Self> {
        if path == EXEMPT {
            return None;
        }
        RULES
            .iter()
            .find(|rule| rule.prefixes.iter().any(|prefix| path.starts_with(prefix)))
    }

    /// Up to here a gateway counts alone; so of N gateways a source may get at most the limit and N times this.
    pub const fn counts_alone_until(&self) -> u32 {
        match self.counted {
            Counted::Together => 0,
            Counted::HereAtFirst => self.budget.limit / 4,
        }
    }
}

/// The name under which requests for an endpoint are counted; `None` is a path that nothing is at.
pub fn counted_as(endpoint: Option<&'static str>) -> &'static str {
    let Some(path) = endpoint else {
        return NOTHING;
    };
    SAME.iter()
        .find(|(alias, _)| *alias == path)
        .map_or(path, |same| same.1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_secs(1_000_000).plus(Duration::from_millis(millis))
    }

    const THREE_IN_TEN: Budget = Budget {
        limit: 3,
        window: Duration::from_secs(10),
        window_from: WindowFrom::Last,
    };

    /// The contract's sentence, word for word, with every allowed request remembered.
    struct Contract {
        budget: Budget,
        allowed: Vec<Timestamp>,
    }

    impl Contract {
        fn count_since_the_window_began(&self) -> usize {
            let mut pairs = self.allowed.iter().zip(self.allowed.iter().skip(1));
            // Where one came at least a window after the one before it.
            let pause = pairs.rposition(|(before, after)| after.since(*before) >= self.budget.window);
            let began = pause.map_or(0, |at| at + 1);
            self.allowed.len() - began
        }

        /// When to come again, if it is refused.
        fn ask(&mut self, now: Timestamp) -> Result<(), Duration> {
            let below = self.count_since_the_window_began() < self.budget.limit as usize;
            match self.allowed.last() {
                Some(last) if !below && now.since(*last) < self.budget.window => {
                    Err(last.plus(self.budget.window).since(now))
                }
                _ => {
                    self.allowed.push(now);
                    Ok(())
                }
            }
        }
    }

    #[test]
    fn a_bucket_gives_all_at_once_and_then_one_by_one() {
        let minute = Duration::from_mins(1);
        let mut bucket = Bucket::default();
        for _ in 0..6 {
            assert_eq!(bucket.take(6, minute, at(0)), Ok(()));
        }
        assert_eq!(bucket.take(6, minute, at(0)), Err(Duration::from_secs(10)));
        assert_eq!(bucket.take(6, minute, at(4_000)), Err(Duration::from_secs(6)));
        assert_eq!(bucket.take(6, minute, at(10_000)), Ok(()));
        assert_eq!(bucket.take(6, minute, at(10_000)), Err(Duration::from_secs(10)));
        for _ in 0..6 {
            assert_eq!(bucket.take(6, minute, at(100_000)), Ok(()));
        }
        assert!(bucket.take(6, minute, at(100_000)).is_err());
        // The clock was an hour ahead.
        let mut bucket = Bucket::default();
        bucket.take(1, minute, at(3_600_000)).unwrap();
        assert_eq!(bucket.take(1, minute, at(0)), Ok(()));
    }

    proptest! {
        #[test]
        fn it_is_the_contract_s_sentence(
            limit in 1_u32..6,
            window_ms in 1_u64..5_000,
            pauses in prop::collection::vec(0_u64..2_500, 1..200),
        ) {
            let window = Duration::from_millis(window_ms);
            let budget = Budget { limit, window, window_from: WindowFrom::Last };
            let mut contract = Contract { budget, allowed: Vec::new() };
            let (mut used, mut now) = (None, 0);
            for pause in pauses {
                now += pause;
                let more = Used::one_more(used, budget, at(now));
                prop_assert_eq!(more.map(drop), contract.ask(at(now)));
                if let Ok(more) = more {
                    used = Some(more);
                }
            }
        }
    }

    /// What a person's budget means, with all that count remembered.
    struct FromFirst {
        budget: Budget,
        counted: Vec<Timestamp>,
        /// When it began, while anything counts.
        since: Option<Timestamp>,
    }

    impl FromFirst {
        fn ask(&mut self, now: Timestamp) -> Result<(), Duration> {
            if self.since.is_some_and(|since| now.since(since) >= self.budget.window) {
                (self.counted, self.since) = (Vec::new(), None);
            }
            if self.counted.len() >= self.budget.limit as usize {
                let over = self.since.map(|since| since.plus(self.budget.window));
                return Err(over.map_or(Duration::ZERO, |over| over.since(now)));
            }
            self.since.get_or_insert(now);
            self.counted.push(now);
            Ok(())
        }

        fn give_back(&mut self) {
            self.counted.pop();
            if self.counted.is_empty() {
                self.since = None;
            }
        }
    }

    proptest! {
        /// Whatever is given back meanwhile, a wrong one is forgotten one window after the first that counts.
        #[test]
        fn a_person_s_window_runs_from_the_first_that_counts(
            limit in 1_u32..6,
            window_ms in 1_u64..5_000,
            asked in prop::collection::vec((0_u64..2_500, any::<bool>()), 1..200),
        ) {
            let window = Duration::from_millis(window_ms);
            let budget = Budget { limit, window, window_from: WindowFrom::First };
            let mut meant = FromFirst { budget, counted: Vec::new(), since: None };
            let (mut used, mut now) = (None, 0);
            for (pause, is_right) in asked {
                now += pause;
                let more = Used::one_more(used, budget, at(now));
                prop_assert_eq!(more.map(drop), meant.ask(at(now)));
                if let Ok(mut more) = more {
                    if is_right {
                        more.count -= 1;
                        meant.give_back();
                    }
                    used = Some(more);
                }
            }
        }
    }

    #[test]
    fn what_is_refused_does_not_count() {
        let mut used = None;
        for millis in [0, 1_000, 2_000] {
            used = Some(Used::one_more(used, THREE_IN_TEN, at(millis)).unwrap());
        }
        for (millis, wait) in [(2_000, 10_000), (7_500, 4_500), (11_999, 1)] {
            let refused = Used::one_more(used, THREE_IN_TEN, at(millis));
            assert_eq!(refused, Err(Duration::from_millis(wait)), "{millis}");
        }
        let again = Used::one_more(used, THREE_IN_TEN, at(12_000)).unwrap();
        assert_eq!(
            again,
            Used {
                count: 1,
                since: at(12_000)
            }
        );
    }

    #[test]
    fn clocks_may_differ_a_little_and_a_wrong_one_locks_nobody_out() {
        let of = |since| Some(Used { count: 3, since });
        // Another gateway's clock is two seconds ahead.
        assert_eq!(
            Used::one_more(of(at(12_000)), THREE_IN_TEN, at(10_000)),
            Err(THREE_IN_TEN.window)
        );
        let one = Some(Used {
            count: 1,
            since: at(12_000),
        });
        let more = Used::one_more(one, THREE_IN_TEN, at(10_000)).unwrap();
        assert_eq!(
            more,
            Used {
                count: 2,
                since: at(12_000)
            }
        );
        // One was ahead by a day.
        let wrong = of(at(86_400_000));
        let more = Used::one_more(wrong, THREE_IN_TEN, at(0)).unwrap();
        assert_eq!(more, Used { count: 1, since: at(0) });
    }

    #[test]
    fn each_path_has_the_rule_of_the_contract() {
        for (path, name, limit, secs) in [
            ("/sign-in/email", "sign-in", 3, 10),
            ("/sign-in/social", "sign-in", 3, 10),
            ("/signin", "sign-in", 3, 10),
            ("/sign-in/magic-link", "magic-link", 5, 60),
            ("/sign-up/email", "sign-up", 3, 10),
            ("/signup", "sign-up", 3, 10),
            ("/change-password", "change-password", 3, 10),
            ("/change-email", "change-email", 3, 10),
            ("/two-factor/verify-totp", "two-factor", 3, 10),
            ("/request-password-reset", "mail", 3, 60),
            ("/forget-password", "mail", 3, 60),
            ("/send-verification-email", "mail", 3, 60),
            ("/get-session", "other", 100, 10),
            ("/sign-out", "other", 100, 10),
            ("/reset-password", "other", 100, 10),
            ("/verify-password", "other", 100, 10),
            ("/nothing/here", "other", 100, 10),
        ] {
            let rule = Rule::of(path).unwrap();
            let budget = Budget {
                limit,
                window: Duration::from_secs(secs),
                window_from: WindowFrom::Last,
            };
            assert_eq!((rule.name, rule.budget), (name, budget), "{path}");
            assert_eq!(rule.counted == Counted::HereAtFirst, name == "other", "{path}");
        }
        assert!(Rule::of("/ok").is_some() && Rule::of("/verify-token").is_none());
        assert_eq!(OTHERS.counts_alone_until(), 25);
    }

    #[test]
    fn an_endpoint_under_two_names_is_counted_once() {
        assert_eq!(counted_as(Some("/signin")), counted_as(Some("/sign-in/email")));
        assert_eq!(counted_as(Some("/get-session")), "/get-session");
        assert_eq!(counted_as(None), "*");
    }

    #[test]
    fn an_address_stands_for_what_one_customer_is_given() {
        for (addr, network) in [
            ("203.0.113.7", "203.0.113.7"),
            ("::ffff:203.0.113.7", "203.0.113.7"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
            ("2001:db8:1:2::", "2001:db8:1:2::/64"),
            ("2001:db8:1:3::1", "2001:db8:1:3::/64"),
            ("::1", "::/64"),
        ] {
            assert_eq!(Network::of(addr.parse().unwrap()).to_string(), network);
        }
    }
}
