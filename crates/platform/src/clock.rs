//! Wall clock of the process.
//!
//! Architecture invariant: no other module reads the wall clock; functions take the time as an argument.

use std::time::{SystemTime, UNIX_EPOCH};

/// Returns the time in milliseconds since 1970; 0 if the clock is set before 1970.
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
