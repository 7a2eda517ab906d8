//! Wall clock of the process.
//!
//! Architecture invariant: no other module reads the wall clock; functions take the time as an argument.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::{Interval, MissedTickBehavior};

/// Returns the time in milliseconds since 1970; 0 if the clock is set before 1970.
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    millis(since)
}

/// Returns a duration in milliseconds; the largest number if it is longer.
pub fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// Creates a timer that ticks now, and then once per `period`. After a delay it ticks late, and omits no pause.
pub fn ticks(period: Duration) -> Interval {
    let mut ticks = tokio::time::interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}
