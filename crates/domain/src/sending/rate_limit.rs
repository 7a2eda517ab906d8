//! Rate of a sender and order of categories: a token bucket, the pause before a retry, the priority of a category. Pure: the
//! caller passes the time and the random number.

use std::time::Duration;

use crate::policy::Category;

/// Priority of category `authentication`, for which calls are reserved.
pub const RESERVED_PRIORITY: i64 = 0;

/// Returns the priority of a category; a smaller number is sent sooner. A one-time password is urgent, marketing is not.
pub fn priority(category: Category) -> i64 {
    match category {
        Category::Authentication => RESERVED_PRIORITY,
        Category::Utility | Category::Service => 1,
        Category::Marketing => 2,
    }
}

/// Rate of a sender, in messages per thousand seconds: a sandbox sends one message in three seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rate(u32);

impl Rate {
    /// Highest rate in messages per second, far above every limit of Twilio.
    pub const MAX: u32 = 10_000;

    /// Returns a rate of 0.001 to [`Rate::MAX`] messages per second; `None` outside of it.
    pub fn per_second(number: f64) -> Option<Rate> {
        let is_one = (0.001..=f64::from(Rate::MAX)).contains(&number);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "the range was checked before"
        )]
        is_one.then_some(Rate((number * 1000.0).round() as u32))
    }

    /// Returns a rate of whole messages per second, at least one.
    pub fn whole(per_second: u32) -> Rate {
        Rate(per_second.clamp(1, Rate::MAX) * 1000)
    }

    /// Returns the rate in messages per second.
    pub fn as_per_second(self) -> f64 {
        f64::from(self.0) / 1000.0
    }

    /// Returns the capacity of the bucket: the messages of one second, and at least one. It limits the burst after a pause.
    fn most(self) -> i64 {
        (i64::from(self.0) * 1000).max(MESSAGE)
    }

    /// Returns the time in which an empty bucket fills, in milliseconds.
    pub fn fills_in_ms(self) -> i64 {
        self.most() / i64::from(self.0).max(1) + 1
    }
}

/// One message in millionths: a rate adds a whole number of millionths per millisecond.
const MESSAGE: i64 = 1_000_000;

/// Token bucket of a sender. It starts with one message: a new bucket must not allow a burst, since earlier sends are not
/// recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenBucket {
    level: i64,
    at_ms: i64,
}

/// Tokens that were taken out of a bucket.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TokenGrant {
    /// Number of messages that may be sent now.
    pub count: u32,
    /// Time until the next token, if the bucket granted fewer than were wanted.
    pub next: Duration,
}

impl TokenBucket {
    /// Returns a bucket with one message.
    pub fn new(now_ms: i64) -> TokenBucket {
        TokenBucket { level: MESSAGE, at_ms: now_ms }
    }

    /// Takes as many tokens as the bucket has, up to `wanted`.
    pub fn take(&mut self, rate: Rate, wanted: u32, now_ms: i64) -> TokenGrant {
        let passed = now_ms.saturating_sub(self.at_ms).max(0);
        let added = passed.saturating_mul(i64::from(rate.0));
        self.level = self.level.clamp(0, rate.most()).saturating_add(added).min(rate.most());
        // A clock that runs back must not add the same tokens twice.
        self.at_ms = self.at_ms.max(now_ms);
        let count = u32::try_from(self.level / MESSAGE).unwrap_or(u32::MAX).min(wanted);
        self.level -= i64::from(count) * MESSAGE;
        let missing = if count < wanted { (MESSAGE - self.level).max(0) } else { 0 };
        // Rounded up, so that no token comes too early.
        let rate = i64::from(rate.0).max(1);
        let next_ms = missing.saturating_add(rate - 1) / rate;
        TokenGrant {
            count,
            next: Duration::from_millis(u64::try_from(next_ms).unwrap_or_default()),
        }
    }

    /// Returns unused tokens to the bucket.
    pub fn give_back(&mut self, rate: Rate, count: u32) {
        let level = self.level.saturating_add(i64::from(count).saturating_mul(MESSAGE));
        self.level = level.min(rate.most());
    }

    /// Returns the stored form.
    pub fn written(self) -> String {
        format!("{} {}", self.level, self.at_ms)
    }

    /// Reads the stored form; `None` for any other text.
    pub fn read(text: &str) -> Option<TokenBucket> {
        let (level, at_ms) = text.split_once(' ')?;
        Some(TokenBucket { level: level.parse().ok()?, at_ms: at_ms.parse().ok()? })
    }
}

/// Returns the pause before attempt number `tries` + 1: exponential with full jitter, and at least the pause that Twilio
/// asks for.
pub fn retry_pause(tries: i64, retry_after: Option<Duration>, dice: u64) -> Duration {
    const FIRST_MS: u64 = 200;
    const MAX_MS: u64 = 30_000;
    let doublings = u32::try_from(tries.clamp(1, 16) - 1).unwrap_or_default();
    let longest = FIRST_MS.saturating_mul(1 << doublings).min(MAX_MS);
    let asked = retry_after.unwrap_or_default().min(Duration::from_secs(3600));
    // Jitter also above `Retry-After`: callers that got the same value must not return at the same time.
    asked + Duration::from_millis(1 + dice % longest)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn retry_pause_grows_and_honours_retry_after() {
        assert_eq!(retry_pause(1, None, 199), Duration::from_millis(200));
        assert_eq!(retry_pause(2, None, 399), Duration::from_millis(400));
        assert_eq!(retry_pause(40, None, 29_999), Duration::from_secs(30));
        assert_eq!(retry_pause(1, Some(Duration::from_secs(7)), 0), Duration::from_millis(7001));
    }

    #[test]
    fn sandbox_sends_one_message_in_three_seconds() {
        let rate = Rate::per_second(1.0 / 3.0).unwrap();
        let mut bucket = TokenBucket::new(0);
        assert_eq!(bucket.take(rate, 5, 0).count, 1);
        let early = bucket.take(rate, 5, 1000);
        assert_eq!((early.count, early.next), (0, Duration::from_millis(2004)));
        assert_eq!(bucket.take(rate, 5, 3004).count, 1);
        assert_eq!(bucket.take(rate, 5, 900_000).count, 1, "nothing is saved up");
        assert_eq!(TokenBucket::read(&bucket.written()), Some(bucket));
        for text in ["", "1", "1 2 3", "x 1", "99999999999999999999 1"] {
            assert_eq!(TokenBucket::read(text), None, "{text}");
        }
        assert_eq!([0.0, 0.0001, 10_001.0, f64::NAN].map(Rate::per_second), [None; 4]);
    }

    #[test]
    fn unused_tokens_are_returned() {
        let rate = Rate::whole(80);
        let mut bucket = TokenBucket::new(0);
        assert_eq!(bucket.take(rate, 100, 500).count, 41);
        bucket.give_back(rate, 30);
        assert_eq!(bucket.take(rate, 100, 500).count, 30);
        bucket.give_back(rate, u32::MAX);
        assert_eq!(bucket.take(rate, 100, 500).count, 80, "no more than it holds");
    }

    proptest! {
        /// No span grants more than its rate and one bucket; and no token is withheld.
        #[test]
        fn sender_uses_exactly_its_rate(
            rate in 1u32..200,
            asked in prop::collection::vec((0i64..50, 1u32..30), 1..200),
        ) {
            let (rate, mut bucket) = (Rate::whole(rate), TokenBucket::new(0));
            let (mut now, mut went) = (0, Vec::new());
            for (gap, wanted) in asked {
                now += gap;
                let granted = bucket.take(rate, wanted, now);
                prop_assert_eq!(granted.next.is_zero(), granted.count == wanted);
                if granted.count < wanted {
                    let there = now + i64::try_from(granted.next.as_millis()).unwrap();
                    let mut later = bucket;
                    prop_assert_eq!(later.take(rate, 1, there - 1).count, 0);
                    let mut later = bucket;
                    prop_assert_eq!(later.take(rate, 1, there).count, 1);
                }
                went.extend(std::iter::repeat_n(now, granted.count as usize));
            }
            for first in 0..went.len() {
                for (n, last) in went.iter().enumerate().skip(first) {
                    let sent = i64::try_from(n - first).unwrap() + 1;
                    let added = (last - went[first]) * i64::from(rate.0);
                    prop_assert!(sent * MESSAGE <= added + rate.most());
                }
            }
        }

        /// Any stored text gives a bucket that grants at most its capacity, or none.
        #[test]
        fn bucket_of_any_text_is_bounded(level: i64, at_ms: i64, now_ms in 0i64..i64::MAX, text in "[0-9 -]{0,40}") {
            let _ = TokenBucket::read(&text);
            let mut bucket = TokenBucket::read(&format!("{level} {at_ms}")).unwrap();
            prop_assert!(bucket.take(Rate::whole(80), u32::MAX, now_ms).count <= 80);
        }
    }
}
