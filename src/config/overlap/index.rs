//! Routes by host and path, so that those which share requests are found without looking at all.
//!
//! With ten thousand routes, comparing each with each is a hundred million comparisons, at every start and reload.

use std::{borrow::Cow, collections::HashMap};

use http::Method;

use super::decoded;
use crate::config::{Access, HostPattern, Segment, routes::Listed};

/// Routes that differ in methods alone, in the order of the file.
pub(super) type Group<'r> = Vec<&'r Listed>;

pub(super) struct Index<'r> {
    pub groups: Vec<Group<'r>>,
    trees: HashMap<Host<'r>, Node<'r>>,
    classes: Vec<Class<'r>>,
}

#[derive(Clone, Copy, Eq, Hash, PartialEq)]
enum Host<'r> {
    Exact(&'r str),
    Below(&'r str),
    Any,
}

/// Routes that demand the same, for the same methods. There are few of them, however many routes there are.
type Class<'r> = (&'r Access, &'r [Method]);

/// Some of the classes, by their places.
#[derive(Clone, Copy, Default, Eq, Hash, PartialEq)]
pub(super) struct Classes(u128);

/// The last place is for all that the others have no room for.
const LAST: usize = 127;

#[derive(Default)]
struct Node<'r> {
    literals: HashMap<Cow<'r, [u8]>, Node<'r>>,
    parameter: Option<Box<Node<'r>>>,
    /// Groups whose pattern ends here, by their places.
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
        let mut groups: Vec<Group<'r>> = Vec::new();
        let mut trees: HashMap<_, Node<'r>> = HashMap::new();
        let mut classes: Vec<Class<'r>> = Vec::new();
        for listed in routes {
            let class = (&listed.route.access, listed.route.methods.as_slice());
            let known = classes.iter().position(|other| *other == class);
            let own = known.unwrap_or_else(|| {
                classes.push(class);
                classes.len() - 1
            });
            let own = Classes(1 << own.min(LAST));
            let mut node = trees.entry(Host::of(listed)).or_default();
            node.classes = node.classes.and(own);
            for segment in &listed.route.path.segments {
                node = match segment {
                    Segment::Literal(text) => node.literals.entry(decoded(text)).or_default(),
                    Segment::Parameter(_) => node.parameter.get_or_insert_default(),
                };
                node.classes = node.classes.and(own);
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
        Self { groups, trees, classes }
    }

    /// Those that `fits` takes, and some others if there are very many.
    pub(super) fn classes(&self, fits: impl Fn(&Access, &[Method]) -> bool) -> Classes {
        let mut found = Classes::default();
        for (place, (access, methods)) in self.classes.iter().enumerate() {
            if place >= LAST || fits(access, methods) {
                found = found.and(Classes(1 << place.min(LAST)));
            }
        }
        found
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
        let trees = Host::tried(listed).filter_map(|host| self.trees.get(&host));
        trees.map(|tree| {
            let mut near = Vec::new();
            tree.visit(&path.segments, path.wildcard, Classes::ALL, &mut |place| {
                near.extend(self.groups.get(place).into_iter().flatten().copied());
                false
            });
            near
        })
    }

    /// Whether `is` holds of a route among those, which is of one of these classes.
    pub(super) fn is_near(&self, listed: &'r Listed, of: Classes, is: impl Fn(&Listed) -> bool) -> bool {
        let path = &listed.route.path;
        let mut trees = Host::tried(listed).filter_map(|host| self.trees.get(&host));
        trees.any(|tree| {
            tree.visit(&path.segments, path.wildcard, of, &mut |place| {
                self.groups.get(place).into_iter().flatten().any(|listed| is(listed))
            })
        })
    }
}

impl Node<'_> {
    /// Shows `found` the groups below this node whose patterns meet one that goes on with `segments`, until it says that it
    /// has seen enough. Where nothing is of one of these classes, it doesn't look.
    fn visit(&self, segments: &[Segment], wildcard: bool, of: Classes, found: &mut impl FnMut(usize) -> bool) -> bool {
        if !self.classes.meet(of) {
            return false;
        }
        if self.wildcard.is_some_and(&mut *found) {
            return true;
        }
        let Some((segment, rest)) = segments.split_first() else {
            return if wildcard {
                self.visit_all(of, found)
            } else {
                self.exact.is_some_and(&mut *found)
            };
        };
        let below = match segment {
            Segment::Literal(text) => {
                let child = self.literals.get(&decoded(text));
                child.is_some_and(|child| child.visit(rest, wildcard, of, found))
            }
            Segment::Parameter(_) => {
                let mut children = self.literals.values();
                children.any(|child| child.visit(rest, wildcard, of, found))
            }
        };
        below
            || self
                .parameter
                .as_ref()
                .is_some_and(|child| child.visit(rest, wildcard, of, found))
    }

    /// All but this node's own wildcard.
    fn visit_all(&self, of: Classes, found: &mut impl FnMut(usize) -> bool) -> bool {
        self.exact.is_some_and(&mut *found)
            || self
                .literals
                .values()
                .chain(self.parameter.as_deref())
                .filter(|child| child.classes.meet(of))
                .any(|child| child.wildcard.is_some_and(&mut *found) || child.visit_all(of, found))
    }
}
