//! The tree of segments, flat: a look-up touches few cache lines, however many routes there are.
//!
//! A node is one cache line and holds the segment that leads to it, so what a hash found is compared where it is read
//! anyway. Nodes lie in the order in which routes were added: what is below a segment that one route alone has, lies right
//! behind it. Where a node has one literal child, that is tried without hashing. What is needed of a route to choose it,
//! stands beside its pointer: the route itself is not looked at.
//!
//! Hosts are the first level of the same tree: each is a literal below one of two nodes that no path leads to.

use std::{borrow::Cow, num::NonZeroU32, sync::Arc};

use http::Method;

use super::{allows, edges::Edges};
use crate::config::{HostPattern, Route, Segment};

/// The root of routes for any host.
const ANY_HOST: u32 = 0;
/// Above the roots of routes for one host.
const HOSTS: u32 = 1;
/// Above the roots of routes for all hosts below one, by what those end in: `.example.com`.
const BELOW: u32 = 2;

/// All routes by host and segments.
#[derive(Debug)]
pub(super) struct Tree {
    nodes: Vec<Node>,
    edges: Edges,
    /// A node's are next to each other.
    ends: Vec<End>,
}

/// A cache line.
#[derive(Debug)]
#[repr(align(64))]
struct Node {
    label: Label,
    parent: u32,
    literals: Literals,
    parameter: Option<NonZeroU32>,
    /// The first of [`Tree::ends`]: of `exact` routes whose pattern ends here, then of `wildcard` ones that end here with
    /// `/*`.
    ends: u32,
    exact: u32,
    wildcard: u32,
}

/// The children that have a literal.
#[derive(Clone, Copy, Debug)]
enum Literals {
    None,
    Only(u32),
    /// Known to [`Tree::edges`].
    Several,
}

/// A segment without its escapes.
#[derive(Debug)]
enum Label {
    Short { length: u8, bytes: [u8; SHORT] },
    Long(Box<[u8]>),
}

/// What is left of a cache line; most segments are shorter.
const SHORT: usize = 30;

/// A route where its pattern ends.
#[derive(Debug)]
pub(super) struct End {
    pub(super) route: Arc<Route>,
    /// Which of the common methods it names.
    pub(super) named: Methods,
    /// Which of them it takes.
    pub(super) taken: Methods,
}

/// A set of the methods that nearly all requests have.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Methods(u8);

/// Where a route ends, before all are known.
struct Ending {
    node: u32,
    wildcard: bool,
    end: End,
}

impl Tree {
    pub(super) fn build(routes: &[Arc<Route>]) -> Self {
        let mut tree = Self {
            nodes: Vec::with_capacity(routes.len() * 2),
            edges: Edges::default(),
            ends: Vec::with_capacity(routes.len()),
        };
        for _ in [ANY_HOST, HOSTS, BELOW] {
            tree.nodes.push(Node::new(0, b""));
        }
        let mut endings: Vec<Ending> = routes.iter().map(|route| tree.insert(route)).collect();
        // Routes with methods before those without. Stable: of equals the first stays first.
        endings.sort_by_key(|it| (it.node, it.wildcard, it.end.route.methods.is_empty()));
        for ending in endings {
            let next = number(tree.ends.len());
            if let Some(node) = tree.nodes.get_mut(ending.node as usize) {
                let count = if ending.wildcard {
                    &mut node.wildcard
                } else {
                    &mut node.exact
                };
                *count += 1;
                if node.exact + node.wildcard == 1 {
                    node.ends = next;
                }
            }
            tree.ends.push(ending.end);
        }
        tree
    }

    fn insert(&mut self, route: &Arc<Route>) -> Ending {
        let mut at = match &route.host {
            None => ANY_HOST,
            Some(HostPattern::Exact(name)) => self.literal_made(HOSTS, name.as_bytes()),
            Some(HostPattern::Below(above)) => self.literal_made(BELOW, above.as_bytes()),
        };
        let pattern = &route.path;
        for segment in &pattern.segments {
            at = match segment {
                Segment::Parameter(_) => self.parameter_made(at),
                Segment::Literal(text) => self.literal_made(at, &decoded(text.as_bytes())),
            };
        }
        // As a path splits: `/t` is `t`; `/t/` is `t` and an empty segment; `/` is an empty one.
        let empty = |segment: &Segment| matches!(segment, Segment::Literal(text) if text.is_empty());
        if !pattern.wildcard && pattern.text.ends_with('/') && !pattern.segments.last().is_some_and(empty) {
            at = self.literal_made(at, b"");
        }
        Ending {
            node: at,
            wildcard: pattern.wildcard,
            end: End::new(route),
        }
    }

    /// The child of node `at` for a literal, made if it isn't there.
    fn literal_made(&mut self, at: u32, segment: &[u8]) -> u32 {
        if let Some(child) = self.literal(at, segment) {
            return child;
        }
        let child = self.added(at, segment);
        let Some(node) = self.nodes.get_mut(at as usize) else {
            return at;
        };
        let literals = std::mem::replace(&mut node.literals, Literals::Several);
        match literals {
            Literals::None => node.literals = Literals::Only(child),
            Literals::Only(first) => {
                self.add_edge(first);
                self.add_edge(child);
            }
            Literals::Several => self.add_edge(child),
        }
        child
    }

    fn parameter_made(&mut self, at: u32) -> u32 {
        if let Some(child) = self.parameter(at) {
            return child;
        }
        let child = self.added(at, b"");
        if let Some(node) = self.nodes.get_mut(at as usize) {
            node.parameter = NonZeroU32::new(child);
        }
        child
    }

    fn added(&mut self, parent: u32, segment: &[u8]) -> u32 {
        let child = number(self.nodes.len());
        self.nodes.push(Node::new(parent, segment));
        child
    }

    fn add_edge(&mut self, child: u32) {
        let nodes = &self.nodes;
        self.edges.insert(child, |child| {
            nodes
                .get(child as usize)
                .map_or((0, &b""[..]), |node| (node.parent, node.label.bytes()))
        });
    }

    /// Where routes for requests to `host` begin, in the order in which they are tried.
    pub(super) fn roots<'h>(&self, host: &'h str) -> impl Iterator<Item = u32> + use<'_, 'h> {
        let below = if self.has_literals(BELOW) { host } else { "" };
        let below = HostPattern::endings(below).filter_map(|ending| self.literal(BELOW, ending.as_bytes()));
        self.literal(HOSTS, host.as_bytes())
            .into_iter()
            .chain(below)
            .chain([ANY_HOST])
    }

    fn has_literals(&self, at: u32) -> bool {
        self.node(at)
            .is_some_and(|node| !matches!(node.literals, Literals::None))
    }

    /// The child of a node for a segment without its escapes.
    pub(super) fn literal(&self, at: u32, segment: &[u8]) -> Option<u32> {
        let has = |child: u32| self.node(child).is_some_and(|node| node.label.bytes() == segment);
        match self.node(at)?.literals {
            Literals::None => None,
            Literals::Only(child) => has(child).then_some(child),
            Literals::Several => self.edges.find(at, segment, |child| {
                self.node(child).is_some_and(|node| node.parent == at) && has(child)
            }),
        }
    }

    /// The child of a node for any segment that isn't empty.
    pub(super) fn parameter(&self, at: u32) -> Option<u32> {
        self.node(at)?.parameter.map(NonZeroU32::get)
    }

    /// Routes whose pattern ends at a node: those that name their methods come first.
    pub(super) fn exact(&self, at: u32) -> &[End] {
        self.node(at).map_or(&[], |node| self.ends(node.ends, node.exact))
    }

    /// As [`Tree::exact`], of patterns that end there with `/*`.
    pub(super) fn wildcard(&self, at: u32) -> &[End] {
        self.node(at)
            .map_or(&[], |node| self.ends(node.ends + node.exact, node.wildcard))
    }

    fn ends(&self, first: u32, count: u32) -> &[End] {
        let first = first as usize;
        self.ends.get(first..first + count as usize).unwrap_or_default()
    }

    fn node(&self, at: u32) -> Option<&Node> {
        self.nodes.get(at as usize)
    }
}

impl Node {
    fn new(parent: u32, segment: &[u8]) -> Self {
        Self {
            label: Label::new(segment),
            parent,
            literals: Literals::None,
            parameter: None,
            ends: 0,
            exact: 0,
            wildcard: 0,
        }
    }
}

impl Label {
    fn new(segment: &[u8]) -> Self {
        let mut bytes = [0; SHORT];
        match (u8::try_from(segment.len()), bytes.get_mut(..segment.len())) {
            (Ok(length), Some(start)) => {
                start.copy_from_slice(segment);
                Self::Short { length, bytes }
            }
            _ => Self::Long(segment.into()),
        }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Self::Short { length, bytes } => bytes.get(..usize::from(*length)).unwrap_or_default(),
            Self::Long(bytes) => bytes,
        }
    }
}

impl End {
    fn new(route: &Arc<Route>) -> Self {
        let which = |fits: &dyn Fn(&Method) -> bool| {
            let fitting = Methods::ALL.iter().filter(|method| fits(method));
            Methods(fitting.fold(0, |set, method| set | Methods::of(method).0))
        };
        Self {
            route: Arc::clone(route),
            named: which(&|method| route.methods.contains(method)),
            taken: which(&|method| allows(route, method)),
        }
    }
}

impl Methods {
    const ALL: [Method; 7] = [
        Method::GET,
        Method::HEAD,
        Method::POST,
        Method::PUT,
        Method::PATCH,
        Method::DELETE,
        Method::OPTIONS,
    ];

    /// Empty for an uncommon method.
    pub(super) const fn of(method: &Method) -> Self {
        Self(match *method {
            Method::GET => 1,
            Method::HEAD => 1 << 1,
            Method::POST => 1 << 2,
            Method::PUT => 1 << 3,
            Method::PATCH => 1 << 4,
            Method::DELETE => 1 << 5,
            Method::OPTIONS => 1 << 6,
            _ => 0,
        })
    }

    pub(super) const fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(super) const fn meet(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

/// A segment without its escapes; borrowed when it has none.
pub(super) fn decoded(segment: &[u8]) -> Cow<'_, [u8]> {
    percent_encoding::percent_decode(segment).into()
}

/// No configuration has so many routes that 32 bits would not number their segments.
fn number(place: usize) -> u32 {
    u32::try_from(place).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_a_cache_line() {
        assert_eq!(size_of::<Node>(), 64);
        assert_eq!(size_of::<End>(), 16);
    }

    #[test]
    fn labels_of_any_length_are_whole() {
        for length in 0..100 {
            let segment = "abcdefghij".repeat(10);
            let segment = segment.as_bytes().get(..length).unwrap();
            assert_eq!(Label::new(segment).bytes(), segment);
        }
    }

    #[test]
    fn common_methods_have_each_their_own_place() {
        let all = Methods::ALL.iter().fold(0, |set, method| set | Methods::of(method).0);
        assert_eq!(all.count_ones() as usize, Methods::ALL.len());
        assert!(Methods::of(&Method::TRACE).is_empty());
    }
}
