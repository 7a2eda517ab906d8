//! Even spacing of requests to a destination with a rate limit. Pure: the caller passes the time since any fixed moment.

use std::time::Duration;

/// Longest time that a request waits for its start. It also bounds the starts that are reserved in advance.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// Reserves the starts of requests at equal intervals, without bursts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pace {
    interval: Duration,
    /// Earliest start that is not reserved yet.
    next: Duration,
}

impl Pace {
    /// Creates a pace of `per_second` requests, which is greater than zero.
    pub fn new(per_second: f64) -> Pace {
        let interval = Duration::try_from_secs_f64(1.0 / per_second).unwrap_or(Duration::MAX);
        Pace { interval, next: Duration::ZERO }
    }

    /// Reserves the next start and returns the time until then. Returns `None`, and reserves nothing, if that is longer
    /// than one second.
    pub fn reserve(&mut self, now: Duration) -> Option<Duration> {
        let start = self.next.max(now);
        let wait = start.saturating_sub(now);
        if wait > LONGEST_WAIT {
            return None;
        }
        self.next = start.saturating_add(self.interval);
        Some(wait)
    }

    /// Returns the number of starts that can be reserved now.
    pub fn available(&self, now: Duration) -> usize {
        let wait = self.next.max(now).saturating_sub(now);
        let Some(left) = LONGEST_WAIT.checked_sub(wait) else { return 0 };
        let more = left.as_nanos().checked_div(self.interval.as_nanos()).unwrap_or(u128::MAX);
        usize::try_from(more).unwrap_or(usize::MAX).saturating_add(1)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn requests_start_at_equal_intervals_and_idle_time_is_not_saved() {
        let mut pace = Pace::new(4.0);
        let waits: Vec<Option<Duration>> = (0..6).map(|_| pace.reserve(ms(9000))).collect();
        let starts = [0, 250, 500, 750, 1000].map(|wait| Some(ms(wait)));
        assert_eq!(waits, [&starts[..], &[None]].concat());
        assert_eq!(pace.available(ms(9000)), 0);
        assert_eq!(pace.reserve(ms(9250)), Some(ms(1000)));
        assert_eq!(
            (pace.reserve(ms(60_000)), pace.reserve(ms(60_000))),
            (Some(ms(0)), Some(ms(250)))
        );
        let mut slow = Pace::new(0.1);
        assert_eq!((slow.available(ms(5)), slow.reserve(ms(5))), (1, Some(ms(0))));
        assert_eq!((slow.available(ms(8000)), slow.reserve(ms(8000))), (0, None));
        assert_eq!((slow.available(ms(9005)), slow.reserve(ms(9005))), (1, Some(ms(1000))));
    }

    proptest! {
        /// Property: no second has more starts than the rate, and `available` reservations succeed.
        #[test]
        fn rate_is_respected_at_any_arrival(per_second in 1_u32..50, gaps in prop::collection::vec(0_u64..400, 1..200)) {
            let mut pace = Pace::new(f64::from(per_second));
            let (mut now, mut starts) = (Duration::ZERO, Vec::new());
            for gap in gaps {
                now += ms(gap);
                let is_available = pace.available(now) > 0;
                let wait = pace.reserve(now);
                prop_assert_eq!(is_available, wait.is_some());
                prop_assert!(wait.is_none_or(|wait| wait <= ms(1000)));
                starts.extend(wait.map(|wait| now + wait));
            }
            let interval = Duration::from_secs_f64(1.0 / f64::from(per_second));
            for pair in starts.windows(2) {
                prop_assert!(pair[1] - pair[0] >= interval);
            }
            let mut full = pace.clone();
            let available = full.available(now);
            prop_assert!((0..available).all(|_| full.reserve(now).is_some()));
            prop_assert!(full.reserve(now).is_none());
        }
    }
}
