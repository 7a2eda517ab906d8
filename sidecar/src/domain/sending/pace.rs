//! When the next message of a sender may go, and which first: a bucket of tokens, the pause before another try, the order of
//! categories. Pure: the time and the dice are handed in.

use std::time::Duration;

use crate::domain::policy::Category;

/// The smaller the sooner: who waits for a code to log in waits, an offer does not.
pub fn priority(category: Category) -> i64 {
    match category {
        Category::Authentication => 0,
        Category::Utility | Category::Service => 1,
        Category::Marketing => 2,
    }
}

/// So many a second, and no more than a second's worth at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bucket {
    per_second: u32,
    /// In thousandths of a token; negative while messages wait that have theirs already.
    level: i64,
    at_ms: i64,
}

impl Bucket {
    /// Full.
    pub fn new(per_second: u32, now_ms: i64) -> Bucket {
        let per_second = per_second.max(1);
        Bucket { per_second, level: i64::from(per_second) * 1000, at_ms: now_ms }
    }

    /// Takes a token, and says how long to wait until it is there.
    pub fn take(&mut self, now_ms: i64) -> Duration {
        let passed = now_ms.saturating_sub(self.at_ms).max(0);
        let rate = i64::from(self.per_second);
        self.level = self.level.saturating_add(passed.saturating_mul(rate)).min(rate * 1000) - 1000;
        self.at_ms = self.at_ms.max(now_ms);
        // Rounded up: a token is never there too early.
        let wait_ms = (-self.level).max(0).saturating_add(rate - 1) / rate;
        Duration::from_millis(u64::try_from(wait_ms).unwrap_or_default())
    }

    /// Whether it has been full for long enough to be forgotten.
    pub fn is_idle(&self, now_ms: i64) -> bool {
        now_ms.saturating_sub(self.at_ms) > 60_000
    }
}

/// The pause before try number `tries` + 1: exponential with full jitter, and not less than Twilio asks for.
pub fn pause(tries: i64, retry_after: Option<Duration>, dice: u64) -> Duration {
    const FIRST_MS: u64 = 200;
    const LONGEST_MS: u64 = 30_000;
    let doublings = u32::try_from(tries.clamp(1, 16) - 1).unwrap_or_default();
    let longest = FIRST_MS.saturating_mul(1 << doublings).min(LONGEST_MS);
    let asked = retry_after.unwrap_or_default().min(Duration::from_secs(3600));
    // Spread over what is above it too: those that were told the same time do not come back at once.
    asked + Duration::from_millis(1 + dice % longest)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_pause_grows_and_honours_what_is_asked_for() {
        assert_eq!(pause(1, None, 199), Duration::from_millis(200));
        assert_eq!(pause(2, None, 399), Duration::from_millis(400));
        assert_eq!(pause(40, None, 29_999), Duration::from_secs(30));
        assert_eq!(pause(1, Some(Duration::from_secs(7)), 0), Duration::from_millis(7001));
    }

    proptest! {
        /// However they come, in any span no more go than its rate and one bucket.
        #[test]
        fn a_sender_is_never_faster_than_its_rate(rate in 1u32..200, gaps in prop::collection::vec(0i64..50, 1..300)) {
            let mut bucket = Bucket::new(rate, 0);
            let (mut now, mut went) = (0, Vec::new());
            for gap in gaps {
                now += gap;
                went.push(now + i64::try_from(bucket.take(now).as_millis()).unwrap());
            }
            for (n, last) in went.iter().enumerate() {
                let sent = i64::try_from(n).unwrap() + 1;
                prop_assert!((sent - i64::from(rate)) * 1000 <= last * i64::from(rate));
            }
        }
    }
}
