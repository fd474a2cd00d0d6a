//! Which configuration something goes by.

/// Which of the configurations that were in force, in their order; the first is the start's. What was found out in one
/// era need not be true in the next.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct Era(u64);

impl Era {
    /// That of the configuration that replaces this one's.
    #[must_use]
    pub const fn following(self) -> Self {
        Self(self.0 + 1)
    }
}
