//! Lists that are read page by page. A page ends after so many rows; the last row's id is where the next one goes on, so
//! that rows which come or go meanwhile neither repeat nor hide others.

use std::fmt;

/// A part of a list: what was asked for, and whether something is behind it.
pub(super) struct Page<T> {
    pub(super) items: Vec<T>,
    pub(super) is_last: bool,
}

impl<T> Page<T> {
    /// Out of a list that may be longer than was asked for, by one.
    pub(super) fn of(mut items: Vec<T>, limit: usize) -> Self {
        let is_last = items.len() <= limit;
        items.truncate(limit);
        Self { items, is_last }
    }

    /// After which the next page goes on, if there is one.
    pub(super) fn next<I>(&self, id: impl Fn(&T) -> I) -> Option<I> {
        if self.is_last {
            return None;
        }
        self.items.last().map(id)
    }
}

/// Says how to go on after the `last` row, on standard error, so that scripts are not disturbed.
pub(super) fn tell_of_more(last: Option<impl fmt::Display>) {
    if let Some(last) = last {
        eprintln!("vestibule: there is more: --after {last} goes on, --limit N shows more at once");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_knows_whether_it_is_the_last() {
        let page = Page::of(vec![1, 2, 3], 2);
        assert_eq!((page.next(|n| *n), page.items), (Some(2), vec![1, 2]));
        let page = Page::of(vec![1, 2], 2);
        assert_eq!((page.next(|n| *n), page.items), (None, vec![1, 2]));
    }
}
