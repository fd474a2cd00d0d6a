//! How often routes may be asked: what is left of each budget, in memory that doesn't grow.
//!
//! A budget is known by a keyed hash of its route and of whom it is for, and is one number: when it will be whole again
//! (`policy::rate::Bucket`). One that is whole needs no place, so a place whose time has come is free. Places are a fixed
//! number in small sets, and the hash's key is drawn at start: nobody can aim at a set. Is a set full, what gives way is the
//! budget that was used least, so that a spent one can only be pushed out by seven others that were spent more: more
//! requests than it would have bought.
//!
//! Counted by this gateway alone; a restart forgets.

use std::{
    hash::{BuildHasher as _, RandomState},
    sync::{Mutex, PoisonError},
};

use crate::{
    clock::Timestamp,
    config::{LimitedBy, Route, RouteLimit},
    identity::UserId,
    policy::{
        client::ClientFacts,
        rate::{Bucket, Network},
    },
};

/// Locks are held for some nanoseconds; this many let all workers through.
const SHARDS: usize = 64;
/// With [`WAYS`] and [`SHARDS`]: 131,072 budgets in use at once, in 2 MiB.
const SETS: usize = 256;
const WAYS: usize = 8;

/// A route's budget is spent.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("asked too often; again in {wait_secs} s")]
pub struct TooOften {
    /// At least one.
    pub wait_secs: u32,
}

/// All budgets of all routes; one for all workers.
#[derive(Debug)]
pub struct Rates {
    key: RandomState,
    shards: Box<[Mutex<Shard>]>,
}

/// Empty until a budget comes here.
#[derive(Debug, Default)]
struct Shard {
    places: Vec<[Place; WAYS]>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Place {
    /// Whose.
    hash: u64,
    bucket: Bucket,
}

/// Who has a budget.
#[derive(Hash)]
enum Whose {
    Network(Network),
    User(UserId),
}

impl Default for Rates {
    fn default() -> Self {
        Self {
            key: RandomState::new(),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
        }
    }
}

impl Rates {
    /// Takes one request of what an address may ask of `route`. To be called before anything is looked up for it.
    pub fn before_sign_in(&self, route: &Route, client: &ClientFacts, now: Timestamp) -> Result<(), TooOften> {
        match &route.rate_limit {
            Some(limit) if limit.by == LimitedBy::Address => {
                self.take(limit, &Whose::Network(Network::of(client.addr)), now)
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Takes one request of what a user may ask of `route`, or an address from which nobody is signed in.
    pub fn once_known(
        &self,
        route: &Route,
        client: &ClientFacts,
        user: Option<UserId>,
        now: Timestamp,
    ) -> Result<(), TooOften> {
        match &route.rate_limit {
            Some(limit) if limit.by == LimitedBy::User => {
                let whose = user.map_or_else(|| Whose::Network(Network::of(client.addr)), Whose::User);
                self.take(limit, &whose, now)
            }
            Some(_) | None => Ok(()),
        }
    }

    fn take(&self, limit: &RouteLimit, whose: &Whose, now: Timestamp) -> Result<(), TooOften> {
        let hash = self.key.hash_one((limit.of, whose));
        let Some((shard, set)) = self.place_of(hash) else {
            return Ok(());
        };
        let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
        if shard.places.is_empty() {
            shard.places.resize(SETS, [Place::default(); WAYS]);
        }
        let Some(places) = shard.places.get_mut(set) else {
            return Ok(());
        };
        let known = places.iter().position(|place| place.hash == hash);
        let at = known.unwrap_or_else(|| least_used(places));
        let Some(place) = places.get_mut(at) else { return Ok(()) };
        if known.is_none() {
            *place = Place {
                hash,
                bucket: Bucket::default(),
            };
        }
        place
            .bucket
            .take(limit.requests, limit.window, now)
            .map_err(|wait| TooOften {
                wait_secs: u32::try_from(wait.as_secs()).unwrap_or(u32::MAX).saturating_add(1),
            })
    }

    /// The low bits choose the shard, others the set in it.
    fn place_of(&self, hash: u64) -> Option<(&Mutex<Shard>, usize)> {
        let shard = usize::try_from(hash % SHARDS as u64).ok()?;
        let set = usize::try_from(hash / SHARDS as u64 % SETS as u64).ok()?;
        Some((self.shards.get(shard)?, set))
    }
}

/// The place of the budget that is whole again first; of those that are whole, any.
fn least_used(places: &[Place; WAYS]) -> usize {
    let fullest = places.iter().enumerate().min_by_key(|(_, place)| place.bucket);
    fullest.map_or(0, |(at, _)| at)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn limit(requests: u32, of: u64) -> RouteLimit {
        RouteLimit {
            requests,
            window: Duration::from_mins(1),
            by: LimitedBy::Address,
            of,
        }
    }

    fn from(number: u32) -> Whose {
        Whose::Network(Network::of(std::net::IpAddr::from(number.to_be_bytes())))
    }

    #[test]
    fn budgets_are_apart_by_route_and_by_who_asks() {
        let rates = Rates::default();
        let now = Timestamp::from_secs(1_000_000);
        let user = Whose::User(UserId(uuid::Uuid::from_u128(1)));
        for _ in 0..2 {
            for (of, whose) in [(1, &from(1)), (1, &from(2)), (2, &from(1)), (1, &user)] {
                assert_eq!(rates.take(&limit(2, of), whose, now), Ok(()));
            }
        }
        assert_eq!(rates.take(&limit(2, 1), &from(1), now), Err(TooOften { wait_secs: 31 }));
        assert_eq!(
            rates.take(&limit(2, 1), &from(1), now.plus(Duration::from_secs(31))),
            Ok(())
        );
    }

    #[test]
    fn a_crowd_takes_no_more_memory_and_frees_nobody_who_is_spent() {
        let rates = Rates::default();
        let now = Timestamp::from_secs(1_000_000);
        let limit = limit(10, 1);
        let spent: Vec<Whose> = (0..200).map(from).collect();
        for whose in &spent {
            while rates.take(&limit, whose, now).is_ok() {}
        }
        // Many more than there are places for, each with a budget that it hardly touches.
        for number in 0..400_000 {
            let _ = rates.take(&limit, &from(1_000_000 + number), now);
        }
        let free = spent
            .iter()
            .filter(|whose| rates.take(&limit, whose, now).is_ok())
            .count();
        assert_eq!(free, 0);
        for shard in &rates.shards {
            assert!(shard.lock().unwrap().places.len() <= SETS);
        }
    }
}
