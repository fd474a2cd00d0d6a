//! Routes by host and path, so that those which share requests are found without looking at all.
//!
//! With ten thousand routes, comparing each with each is a hundred million comparisons, at every start and reload.

use std::{borrow::Cow, collections::HashMap};

use super::decoded;
use crate::config::{HostPattern, Segment, routes::Listed};

/// Routes that differ in methods alone, in the order of the file.
pub(super) type Group<'r> = Vec<&'r Listed>;

pub(super) struct Index<'r> {
    pub groups: Vec<Group<'r>>,
    trees: HashMap<Option<&'r HostPattern>, Node<'r>>,
}

#[derive(Default)]
struct Node<'r> {
    literals: HashMap<Cow<'r, [u8]>, Node<'r>>,
    parameter: Option<Box<Node<'r>>>,
    /// Groups whose pattern ends here, by their places.
    exact: Option<usize>,
    wildcard: Option<usize>,
}

impl<'r> Index<'r> {
    pub(super) fn of(routes: &'r [Listed]) -> Self {
        let mut groups: Vec<Group<'r>> = Vec::new();
        let mut trees: HashMap<_, Node<'r>> = HashMap::new();
        for listed in routes {
            let mut node = trees.entry(listed.route.host.as_ref()).or_default();
            for segment in &listed.route.path.segments {
                node = match segment {
                    Segment::Literal(text) => node.literals.entry(decoded(text)).or_default(),
                    Segment::Parameter(_) => node.parameter.get_or_insert_default(),
                };
            }
            let end = if listed.route.path.wildcard {
                &mut node.wildcard
            } else {
                &mut node.exact
            };
            // Names of parameters don't count, and segments are compared decoded: who ends in the same place is alike.
            if let Some(group) = end.and_then(|place| groups.get_mut(place)) {
                group.push(listed);
            } else {
                *end = Some(groups.len());
                groups.push(vec![listed]);
            }
        }
        Self { groups, trees }
    }

    /// Routes that may share requests with `route`, for its host or for wider ones; some that don't may be among them.
    pub(super) fn near(&self, listed: &Listed) -> Vec<&'r Listed> {
        let host = listed.route.host.as_ref();
        let wider = match host {
            None => "",
            Some(HostPattern::Exact(name) | HostPattern::Below(name)) => name.as_str(),
        };
        let wider = HostPattern::endings(wider).map(|ending| Some(HostPattern::Below(ending.to_owned())));
        let mut places = Vec::new();
        if let Some(tree) = self.trees.get(&host) {
            tree.gather(&listed.route.path.segments, listed.route.path.wildcard, &mut places);
        }
        for host in wider.chain(host.is_some().then_some(None)) {
            if let Some(tree) = self.trees.get(&host.as_ref()) {
                tree.gather(&listed.route.path.segments, listed.route.path.wildcard, &mut places);
            }
        }
        let groups = places.into_iter().filter_map(|place| self.groups.get(place));
        groups.flatten().copied().collect()
    }
}

impl Node<'_> {
    /// Groups below this node whose patterns meet one that goes on with `segments`.
    fn gather(&self, segments: &[Segment], wildcard: bool, found: &mut Vec<usize>) {
        found.extend(self.wildcard);
        let Some((segment, rest)) = segments.split_first() else {
            if wildcard {
                self.gather_all(found);
            } else {
                found.extend(self.exact);
            }
            return;
        };
        match segment {
            Segment::Literal(text) => {
                if let Some(child) = self.literals.get(&decoded(text)) {
                    child.gather(rest, wildcard, found);
                }
            }
            Segment::Parameter(_) => {
                for child in self.literals.values() {
                    child.gather(rest, wildcard, found);
                }
            }
        }
        if let Some(child) = &self.parameter {
            child.gather(rest, wildcard, found);
        }
    }

    fn gather_all(&self, found: &mut Vec<usize>) {
        found.extend(self.exact);
        for child in self.literals.values().chain(self.parameter.as_deref()) {
            found.extend(child.wildcard);
            child.gather_all(found);
        }
    }
}
