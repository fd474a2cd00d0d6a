//! Which child of a node has a segment: one table for all nodes that have several.
//!
//! A slot is eight bytes, so a look-up among any number of routes touches one cache line here, and the one of the node
//! that it finds. Whether that is the one is for the caller to say: a hash alone decides nothing.
//!
//! What is in the table, the configuration chose; what is looked up, clients choose. Of a file that somebody generates
//! from the names of many customers, those may have chosen part, so hashes are seeded: nobody can make names meet.

use std::hash::{BuildHasher as _, RandomState};

/// Open addressing, the next slot being the next to try; a power of two of them, or none.
#[derive(Debug)]
pub(super) struct Edges {
    slots: Vec<Slot>,
    used: usize,
    seed: u64,
    /// Odd.
    factor: u64,
}

/// Free if `child` is 0: the root is nobody's child.
#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    tag: u32,
    child: u32,
}

impl Default for Edges {
    fn default() -> Self {
        let random = RandomState::new();
        Self {
            slots: Vec::new(),
            used: 0,
            seed: random.hash_one(0),
            factor: random.hash_one(1) | 1,
        }
    }
}

impl Edges {
    /// The child of `parent` for `segment`: that for which `is` holds, among those whose hashes are alike.
    #[inline]
    pub(super) fn find(&self, parent: u32, segment: &[u8], is: impl Fn(u32) -> bool) -> Option<u32> {
        let (mut at, tag) = self.place(self.hash(parent, segment));
        loop {
            let slot = self.slots.get(at)?;
            if slot.child == 0 {
                return None;
            }
            if slot.tag == tag && is(slot.child) {
                return Some(slot.child);
            }
            at = self.after(at);
        }
    }

    /// Adds a child that isn't there; `key` tells of any child whose it is, by which segment.
    pub(super) fn insert<'s>(&mut self, child: u32, key: impl Fn(u32) -> (u32, &'s [u8])) {
        // Of four slots, one is free at least: probing ends, and soon.
        if self.used * 4 >= self.slots.len() * 3 {
            let twice = (self.slots.len() * 2).max(8);
            let before = std::mem::replace(&mut self.slots, vec![Slot::default(); twice]);
            for slot in before.into_iter().filter(|slot| slot.child != 0) {
                self.put(slot.child, key(slot.child));
            }
        }
        self.put(child, key(child));
        self.used += 1;
    }

    fn put(&mut self, child: u32, (parent, segment): (u32, &[u8])) {
        let (mut at, tag) = self.place(self.hash(parent, segment));
        while self.slots.get(at).is_some_and(|slot| slot.child != 0) {
            at = self.after(at);
        }
        if let Some(slot) = self.slots.get_mut(at) {
            *slot = Slot { tag, child };
        }
    }

    fn hash(&self, parent: u32, segment: &[u8]) -> u64 {
        // A segment is shorter than any length that doesn't fit.
        let length = u32::try_from(segment.len()).unwrap_or(u32::MAX);
        let mut state = self.seed ^ (u64::from(parent) << 32 | u64::from(length));
        let mut rest = segment;
        while let Some((eight, after)) = rest.split_first_chunk::<8>()
            && !after.is_empty()
        {
            state = self.mixed(state ^ u64::from_le_bytes(*eight));
            rest = after;
        }
        // What is left is at most eight bytes; read together with some before it if it is fewer.
        let last = match segment.last_chunk::<8>() {
            Some(eight) => u64::from_le_bytes(*eight),
            None => match (segment.first_chunk::<4>(), segment.last_chunk::<4>()) {
                (Some(first), Some(last)) => {
                    u64::from(u32::from_le_bytes(*first)) << 32 | u64::from(u32::from_le_bytes(*last))
                }
                _ => segment.iter().fold(0, |read, byte| read << 8 | u64::from(*byte)),
            },
        };
        self.mixed(state ^ last)
    }

    /// Both halves of the whole product, put together: each bit depends on all.
    fn mixed(&self, state: u64) -> u64 {
        let product = u128::from(state) * u128::from(self.factor);
        ((product >> 64) as u64) ^ low(product)
    }

    /// The first slot to look at, and what tells most others apart without looking at their nodes.
    const fn place(&self, hash: u64) -> (usize, u32) {
        let (first, tag) = ((hash & 0xffff_ffff) as u32, (hash >> 32) as u32);
        (first as usize & self.slots.len().wrapping_sub(1), tag)
    }

    const fn after(&self, at: usize) -> usize {
        (at + 1) & self.slots.len().wrapping_sub(1)
    }
}

const fn low(product: u128) -> u64 {
    (product & 0xffff_ffff_ffff_ffff) as u64
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn hashes_tell_parents_and_segments_apart() {
        let edges = Edges::default();
        let mut segments: Vec<String> = (0..2000).map(|number| format!("resource-{number}")).collect();
        segments.extend((0..20).map(|length| "x".repeat(length)));
        let hashes: HashSet<u64> = segments
            .iter()
            .flat_map(|segment| [1, 2, 3].map(|parent| edges.hash(parent, segment.as_bytes())))
            .collect();
        assert_eq!(hashes.len(), segments.len() * 3);
    }

    #[test]
    fn children_whose_hashes_meet_are_all_found() {
        let mut edges = Edges::default();
        for child in 1..=100 {
            edges.insert(child, |_| (7, b"same"));
        }
        for child in 1..=100 {
            assert_eq!(edges.find(7, b"same", |it| it == child), Some(child));
        }
        assert_eq!(edges.find(7, b"same", |_| false), None);
        assert_eq!(edges.find(7, b"other", |_| true), None);
        assert_eq!(Edges::default().find(7, b"same", |_| true), None);
    }
}
