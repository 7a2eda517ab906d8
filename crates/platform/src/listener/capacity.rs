//! Number of connections that the limit of open files permits.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Divisor of the process's file descriptors: all listeners together may use this share, one half.
const SHARE: u64 = 2;

/// Smallest limit of connections per listener, independent of the number of file descriptors.
const LEAST: usize = 16;

/// Returns the limit of connections for each of `listeners`: `wanted`, within the limit of the kernel. Raises the
/// process's own limit of file descriptors as far as permitted.
pub fn capacity(wanted: usize, listeners: usize) -> usize {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    let Some(files) = (if raised.is_ok() { maximum } else { current }) else { return wanted };
    let share = usize::try_from(files / SHARE).unwrap_or(usize::MAX) / listeners.max(1);
    wanted.min(share.max(LEAST))
}
