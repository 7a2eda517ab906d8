//! Values that only one thread uses, in a structure that all threads share.

#![expect(unsafe_code, reason = "a check at run time replaces that of the compiler")]

use std::sync::OnceLock;
use std::thread::{self, ThreadId};

/// A value for the thread that creates it. Other threads get nothing.
pub(crate) struct ThreadBound<T>(OnceLock<Owned<T>>);

struct Owned<T> {
    thread: ThreadId,
    value: T,
}

// SAFETY: `get_or_create` gives the value to its thread only. It may be dropped on another thread: Envoy destroys a
// configuration after all of its streams, and synchronizes the threads before, so no other reference to a part is left.
unsafe impl<T> Send for Owned<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Owned<T> {}

impl<T> ThreadBound<T> {
    pub(crate) const fn new() -> Self {
        Self(OnceLock::new())
    }

    /// Returns the value, which the first call creates; `None` on every thread but that of the first call.
    pub(crate) fn get_or_create(&self, create: impl FnOnce() -> T) -> Option<&T> {
        let this = thread::current().id();
        let owned = self.0.get_or_init(|| Owned { thread: this, value: create() });
        (owned.thread == this).then_some(&owned.value)
    }

    /// Returns the value if this is its thread.
    pub(crate) fn get(&self) -> Option<&T> {
        let owned = self.0.get()?;
        (owned.thread == thread::current().id()).then_some(&owned.value)
    }
}
