//! Bound on the lines that unauthenticated clients can make the filter log.
//!
//! Any client that reaches a guarded route can make it log a refusal. A burst of refusals is logged line by line, a flood is
//! not: the metrics count every refusal, and one line a second reports the number of suppressed lines. Time is an argument,
//! and comes from the tick that the filter has anyway.

/// Lines that may be logged at once.
const BURST: u64 = 20;
/// Lines that may be logged per second in a flood.
const PER_SECOND: u64 = 5;

/// Token bucket of one kind of log line, with a count of the lines that were suppressed.
#[derive(Debug)]
pub struct LogLimit {
    tokens: u64,
    /// Second of the last refill.
    second: Option<u64>,
    suppressed: u64,
}

impl Default for LogLimit {
    fn default() -> Self {
        Self { tokens: BURST, second: None, suppressed: 0 }
    }
}

impl LogLimit {
    /// Reports whether a line may be logged now; counts it as suppressed otherwise.
    pub fn admits(&mut self) -> bool {
        match self.tokens.checked_sub(1) {
            Some(tokens) => {
                self.tokens = tokens;
                true
            }
            None => {
                self.suppressed = self.suppressed.saturating_add(1);
                false
            }
        }
    }

    /// Adds the tokens of the seconds that have passed. Returns the number of lines suppressed since the last report.
    pub fn refill(&mut self, now_ms: u64) -> Option<u64> {
        let second = now_ms / 1000;
        if self.second == Some(second) {
            return None;
        }
        // The bucket is full at the start, so the first reading of the clock adds nothing.
        let passed = self.second.map_or(0, |before| second.saturating_sub(before));
        self.second = Some(second);
        self.tokens = self.tokens.saturating_add(passed.saturating_mul(PER_SECOND)).min(BURST);
        self.take_suppressed()
    }

    /// Returns the number of lines that were suppressed and not reported yet.
    pub fn take_suppressed(&mut self) -> Option<u64> {
        Some(std::mem::take(&mut self.suppressed)).filter(|suppressed| *suppressed > 0)
    }
}

/// Returns the line that reports suppressed refusals.
pub fn suppressed_refusals(suppressed: u64) -> String {
    format!(
        "{suppressed} more refused webhooks were not logged, to keep the log readable; twilio_edge_rejected and twilio_edge_shadowed count all of them"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flood_is_bounded_and_its_size_is_reported_once_a_second() {
        let mut limit = LogLimit::default();
        assert_eq!(limit.refill(1_000_000), None);
        let logged = (0..10_000).filter(|_| limit.admits()).count();
        assert_eq!(logged, 20);
        assert_eq!(limit.refill(1_000_500), None, "the same second");
        assert_eq!(limit.refill(1_001_000), Some(9_980));
        assert_eq!(limit.refill(1_002_000), None, "reported already");
        let logged = (0..100).filter(|_| limit.admits()).count();
        assert_eq!(logged, 10, "two seconds of five lines");
        assert_eq!(limit.take_suppressed(), Some(90));
        assert_eq!(limit.take_suppressed(), None);
        limit.refill(9_999_000);
        assert_eq!((0..100).filter(|_| limit.admits()).count(), 20, "never more than a burst");
    }

    #[test]
    fn clock_that_goes_back_admits_no_more() {
        let mut limit = LogLimit::default();
        limit.refill(5_000);
        while limit.admits() {}
        limit.refill(1_000);
        assert!(!limit.admits());
    }
}
