//! Routes by host and path, so that those which share requests are found without looking at all.
//!
//! With ten thousand routes, comparing each with each is a hundred million comparisons, at every start and reload.

use std::{borrow::Cow, collections::HashMap};

use http::Method;

use super::decoded;
use crate::config::{Access, HostPattern, Route, Segment, routes::Listed};

/// Routes that differ in methods alone, in the order of the file.
pub(super) type Group<'r> = Vec<&'r Listed>;

pub(super) struct Index<'r> {
    pub groups: Vec<Group<'r>>,
    roots: HashMap<Host<'r>, NodeAt>,
    nodes: Vec<Node>,
    /// Children of all nodes by their literals.
    literals: HashMap<(NodeAt, Cow<'r, [u8]>), NodeAt>,
    /// `None`: too many.
    classes: Option<Vec<Class<'r>>>,
}

#[derive(Clone, Copy, Eq, Hash, PartialEq)]
enum Host<'r> {
    Exact(&'r str),
    Below(&'r str),
    Any,
}

/// Routes that demand the same, for the same methods. There are few of them as a rule, however many routes there are.
type Class<'r> = (&'r Access, &'r [Method]);

/// Some of the classes, by their places.
#[derive(Clone, Copy, Default, Eq, Hash, PartialEq)]
pub(super) struct Classes(u128);

const MOST_CLASSES: usize = 128;

/// The place of a node.
type NodeAt = usize;

#[derive(Default)]
struct Node {
    /// Children for literals.
    literals: Vec<NodeAt>,
    parameter: Option<NodeAt>,
    /// Groups whose pattern ends here.
    exact: Option<usize>,
    wildcard: Option<usize>,
    /// Of routes here and below.
    classes: Classes,
}

impl<'r> Host<'r> {
    fn of(listed: &'r Listed) -> Self {
        match &listed.route.host {
            Some(HostPattern::Exact(name)) => Self::Exact(name),
            Some(HostPattern::Below(above)) => Self::Below(above),
            None => Self::Any,
        }
    }

    /// A route's own, then wider ones that requests for it may come to, as they are tried.
    fn tried(listed: &'r Listed) -> impl Iterator<Item = Self> {
        let own = Self::of(listed);
        let (name, any) = match own {
            Self::Exact(name) | Self::Below(name) => (name, Some(Self::Any)),
            Self::Any => ("", None),
        };
        let wider = HostPattern::endings(name).map(Self::Below);
        [own].into_iter().chain(wider).chain(any)
    }
}

impl Classes {
    const ALL: Self = Self(u128::MAX);

    pub(super) const fn is_empty(self) -> bool {
        self.0 == 0
    }

    const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    const fn meet(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

impl<'r> Index<'r> {
    pub(super) fn of(routes: &'r [Listed]) -> Self {
        let mut index = Self {
            groups: Vec::with_capacity(routes.len()),
            roots: HashMap::new(),
            nodes: Vec::with_capacity(routes.len()),
            literals: HashMap::with_capacity(routes.len()),
            classes: Some(Vec::new()),
        };
        for listed in routes {
            index.add(listed);
        }
        index
    }

    fn add(&mut self, listed: &'r Listed) {
        let own = self.class_of(&listed.route);
        let Self {
            groups,
            roots,
            nodes,
            literals,
            ..
        } = self;
        let mut at = *roots.entry(Host::of(listed)).or_insert_with(|| added(nodes));
        for segment in &listed.route.path.segments {
            if let Some(node) = nodes.get_mut(at) {
                node.classes = node.classes.and(own);
            }
            at = match segment {
                Segment::Literal(text) => *literals.entry((at, decoded(text))).or_insert_with(|| {
                    let child = added(nodes);
                    if let Some(node) = nodes.get_mut(at) {
                        node.literals.push(child);
                    }
                    child
                }),
                Segment::Parameter(_) => nodes.get(at).and_then(|node| node.parameter).unwrap_or_else(|| {
                    let child = added(nodes);
                    if let Some(node) = nodes.get_mut(at) {
                        node.parameter = Some(child);
                    }
                    child
                }),
            };
        }
        let Some(node) = nodes.get_mut(at) else { return };
        node.classes = node.classes.and(own);
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

    fn class_of(&mut self, route: &'r Route) -> Classes {
        let Some(classes) = &mut self.classes else {
            return Classes::ALL;
        };
        let class = (&route.access, route.methods.as_slice());
        let known = classes.iter().position(|other| *other == class);
        match known {
            Some(place) => Classes(1 << place),
            None if classes.len() < MOST_CLASSES => {
                classes.push(class);
                Classes(1 << (classes.len() - 1))
            }
            None => {
                self.classes = None;
                Classes::ALL
            }
        }
    }

    /// Those that `fits` takes; all, if there are too many to tell apart.
    pub(super) fn classes(&self, fits: impl Fn(&Access, &[Method]) -> bool) -> Classes {
        let Some(classes) = &self.classes else {
            return Classes::ALL;
        };
        let fitting = classes
            .iter()
            .enumerate()
            .filter(|(_, (access, methods))| fits(access, methods));
        fitting.fold(Classes::default(), |found, (place, _)| found.and(Classes(1 << place)))
    }

    /// Of which classes some routes are.
    pub(super) fn classes_of(&self, group: &[&Listed]) -> Classes {
        self.classes(|access, methods| {
            let is_of = |listed: &&Listed| (&listed.route.access, listed.route.methods.as_slice()) == (access, methods);
            group.iter().any(is_of)
        })
    }

    /// Routes that may share requests with `listed`, host by host; some that don't may be among them.
    pub(super) fn near(&self, listed: &'r Listed) -> impl Iterator<Item = Vec<&'r Listed>> {
        let path = &listed.route.path;
        let roots = Host::tried(listed).filter_map(|host| self.roots.get(&host));
        roots.map(|root| {
            let mut near = Vec::new();
            self.visit(*root, (&path.segments, path.wildcard), Classes::ALL, &mut |place| {
                near.extend(self.groups.get(place).into_iter().flatten().copied());
                false
            });
            near
        })
    }

    /// Whether `is` holds of a route among those; where none is of one of these classes, it isn't looked.
    pub(super) fn is_near(&self, listed: &'r Listed, of: Classes, is: impl Fn(&Listed) -> bool) -> bool {
        let path = &listed.route.path;
        let mut roots = Host::tried(listed).filter_map(|host| self.roots.get(&host));
        roots.any(|root| {
            self.visit(*root, (&path.segments, path.wildcard), of, &mut |place| {
                self.groups.get(place).into_iter().flatten().any(|listed| is(listed))
            })
        })
    }

    /// Shows `found` the groups at a node and below whose patterns meet one that goes on with these segments (and a
    /// wildcard), until it says that it has seen enough.
    fn visit(
        &self,
        at: NodeAt,
        (segments, wildcard): (&[Segment], bool),
        of: Classes,
        found: &mut impl FnMut(usize) -> bool,
    ) -> bool {
        let Some(node) = self.nodes.get(at).filter(|node| node.classes.meet(of)) else {
            return false;
        };
        if node.wildcard.is_some_and(&mut *found) {
            return true;
        }
        let Some((segment, rest)) = segments.split_first() else {
            return if wildcard {
                self.visit_all(node, of, found)
            } else {
                node.exact.is_some_and(&mut *found)
            };
        };
        let goes_on = (rest, wildcard);
        let below = match segment {
            Segment::Literal(text) => {
                let child = self.literals.get(&(at, decoded(text)));
                child.is_some_and(|child| self.visit(*child, goes_on, of, found))
            }
            Segment::Parameter(_) => {
                let mut children = node.literals.iter();
                children.any(|child| self.visit(*child, goes_on, of, found))
            }
        };
        below
            || node
                .parameter
                .is_some_and(|child| self.visit(child, goes_on, of, found))
    }

    /// All but the node's own wildcard.
    fn visit_all(&self, node: &Node, of: Classes, found: &mut impl FnMut(usize) -> bool) -> bool {
        let children = node.literals.iter().copied().chain(node.parameter);
        let mut children = children.filter_map(|child| self.nodes.get(child));
        node.exact.is_some_and(&mut *found)
            || children.any(|child| {
                child.classes.meet(of) && (child.wildcard.is_some_and(&mut *found) || self.visit_all(child, of, found))
            })
    }
}

fn added(nodes: &mut Vec<Node>) -> NodeAt {
    nodes.push(Node::default());
    nodes.len() - 1
}
