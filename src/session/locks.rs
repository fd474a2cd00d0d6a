//! How threads meet, as a parameter: so that a scheduler of the tests' may decide who goes on.
//!
//! What has to hold in every interleaving can't be shown by threads that run as the machine likes. A type that promises
//! such a thing names what its threads meet at through [`Locks`]. In production that is std's mutex, and all else here is
//! nothing: it is compiled away. The other implementation is the model's (`known/model.rs`).

use std::{
    ops::DerefMut,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// What threads meet at.
pub trait Locks: 'static {
    type Mutex<T: Default + Send + 'static>: Lock<T>;
    /// What keeps steps apart of which a scheduler knows nothing.
    type Gate: Default + Send + Sync;

    /// Into how many parts, each with its lock, what is locked in parts is divided.
    const PARTS: usize;

    /// A step in code of others', which has locks of its own and may call back while it holds them. A scheduler has to
    /// know of that: else somebody would wait for such a lock and never be told.
    fn step<R>(gate: &Self::Gate, step: impl FnOnce() -> R) -> R;

    /// Somebody else may go on here.
    fn pause();
}

pub trait Lock<T>: Default + Send + Sync {
    type Guard<'l>: DerefMut<Target = T>
    where
        Self: 'l;

    fn locked(&self) -> Self::Guard<'_>;
}

/// As the machine likes.
#[derive(Clone, Copy, Debug)]
pub struct Std;

impl Locks for Std {
    type Mutex<T: Default + Send + 'static> = Mutex<T>;
    type Gate = ();

    const PARTS: usize = 64;

    #[inline]
    fn step<R>((): &(), step: impl FnOnce() -> R) -> R {
        step()
    }

    #[inline]
    fn pause() {}
}

impl<T: Default + Send> Lock<T> for Mutex<T> {
    type Guard<'l>
        = MutexGuard<'l, T>
    where
        Self: 'l;

    /// None of these guards something that a panic could leave half done.
    fn locked(&self) -> MutexGuard<'_, T> {
        self.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
