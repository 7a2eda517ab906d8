//! Latencies in a fixed number of buckets: the memory does not grow with the length of a run.
//!
//! Up to 127 us each microsecond has a bucket. Each further power of two has 128 buckets, so a percentile is at most 0.8 %
//! above the exact one.

use std::time::Duration;

/// Buckets per power of two, as a power of two itself.
const PRECISION_BITS: u32 = 7;

/// Buckets per power of two.
const PER_POWER: u64 = 1 << PRECISION_BITS;

/// Largest latency in microseconds, 67 s; larger ones are counted as this one.
const LARGEST_US: u64 = (1 << 26) - 1;

/// Number of buckets: one more than the index of the largest latency.
const BUCKETS: usize = (27 - PRECISION_BITS as usize) << PRECISION_BITS;

/// Counts of latencies.
#[derive(Debug, Clone)]
pub(super) struct Histogram {
    buckets: Vec<u64>,
    count: u64,
    max_us: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: vec![0; BUCKETS], count: 0, max_us: 0 }
    }
}

impl Histogram {
    /// Counts a latency.
    pub(super) fn record(&mut self, latency: Duration) {
        let us = u64::try_from(latency.as_micros()).unwrap_or(LARGEST_US).min(LARGEST_US);
        if let Some(bucket) = self.buckets.get_mut(index(us)) {
            *bucket += 1;
            self.count += 1;
            self.max_us = self.max_us.max(us);
        }
    }

    /// Returns the latency that `per_mille` of a thousand latencies do not exceed, in microseconds; `None` without any.
    pub(super) fn percentile_us(&self, per_mille: u64) -> Option<u64> {
        let rank = (self.count * per_mille).div_ceil(1000).max(1);
        let mut below = 0;
        let reached = self.buckets.iter().position(|bucket| {
            below += bucket;
            below >= rank
        });
        reached.map(|index| upper_bound_us(index as u64).min(self.max_us))
    }

    /// Returns the largest latency in microseconds; `None` without any.
    pub(super) fn max_us(&self) -> Option<u64> {
        (self.count > 0).then_some(self.max_us)
    }
}

/// Returns the bucket of a latency.
fn index(us: u64) -> usize {
    let shift = us.checked_ilog2().unwrap_or_default().saturating_sub(PRECISION_BITS);
    let index = match us < PER_POWER {
        true => us,
        false => (u64::from(shift) << PRECISION_BITS) + (us >> shift),
    };
    index as usize
}

/// Returns the largest latency of a bucket, in microseconds.
fn upper_bound_us(index: u64) -> u64 {
    match (index >> PRECISION_BITS).checked_sub(1) {
        None => index,
        Some(shift) => ((index % PER_POWER + PER_POWER + 1) << shift) - 1,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(latencies: &[u64]) -> Histogram {
        let mut histogram = Histogram::default();
        latencies.iter().for_each(|us| histogram.record(Duration::from_micros(*us)));
        histogram
    }

    #[test]
    fn empty_histogram_has_no_percentile() {
        assert_eq!((of(&[]).percentile_us(500), of(&[]).max_us()), (None, None));
    }

    #[test]
    fn latencies_beyond_the_largest_are_counted() {
        let histogram = of(&[1, 10_000_000_000]);
        assert_eq!(histogram.percentile_us(500), Some(1));
        assert_eq!(histogram.max_us(), Some(LARGEST_US));
        assert_eq!(index(LARGEST_US), BUCKETS - 1);
    }

    proptest! {
        #[test]
        fn percentile_is_at_most_a_128th_above_the_exact_one(
            mut latencies in prop::collection::vec(
                prop_oneof![0..300_u64, 0..50_000_u64, 0..LARGEST_US],
                1..400,
            ),
            per_mille in 0..=1000_u64,
        ) {
            let found = of(&latencies).percentile_us(per_mille).unwrap();
            latencies.sort_unstable();
            let rank = (latencies.len() * per_mille as usize).div_ceil(1000).max(1);
            let exact = latencies[rank - 1];
            prop_assert!(found >= exact && found <= exact + exact / PER_POWER, "{found} for {exact}");
        }
    }
}
