//! Limit of requests per second and account; further requests get 20429. Callers pass the time; knows no HTTP.

use std::collections::HashMap;

/// Requests of each account in the current second.
#[derive(Debug)]
pub(super) struct Limit {
    per_second: u32,
    second: i64,
    seen: HashMap<String, u32>,
}

impl Limit {
    /// Returns a limit; 0 disables it.
    pub(super) fn new(per_second: u32) -> Self {
        Self { per_second, second: 0, seen: HashMap::new() }
    }

    /// Counts a request of a known account; returns whether it is within the limit.
    pub(super) fn admits(&mut self, account: &str, now_ms: i64) -> bool {
        if self.per_second == 0 {
            return true;
        }
        let second = now_ms.div_euclid(1000);
        if second != self.second {
            self.second = second;
            self.seen.clear();
        }
        let seen = self.seen.entry(account.to_owned()).or_default();
        *seen = seen.saturating_add(1);
        *seen <= self.per_second
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_account_has_so_many_in_a_second() {
        let mut limit = Limit::new(2);
        let admitted: Vec<bool> = [("a", 0), ("a", 1), ("a", 999), ("b", 999), ("a", 1000)]
            .map(|(account, at_ms)| limit.admits(account, at_ms))
            .to_vec();
        assert_eq!(admitted, [true, true, false, true, true]);
        let mut none = Limit::new(0);
        assert!((0..10_000).all(|_| none.admits("a", 0)));
    }
}
