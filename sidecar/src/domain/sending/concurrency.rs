//! How many calls an account has at a time: one more after as many answers as there may be calls, half as many when Twilio has
//! enough (20429). Twilio counts them by account, so one that has too many does not slow the others. Pure: the time is handed in.

use std::time::Duration;

/// Longest that nothing of an account is begun because Twilio asked for it.
const LONGEST_REST: Duration = Duration::from_secs(60);

/// The calls of one account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Concurrency {
    most: usize,
    allowed: usize,
    under_way: usize,
    /// Answers since `allowed` was raised.
    answered: usize,
    begun: u64,
    /// Calls begun until then were there when it was halved: what they are told is no news.
    halved_at: u64,
    rests_until_ms: i64,
}

/// Which call it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket(u64);

/// What the end of a call tells of how many there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// Nothing: nobody was called, or nobody answered.
    Nothing,
    /// Twilio took it.
    Fine,
    /// Twilio has enough, and wants to be left alone for so long.
    Enough(Duration),
}

impl Concurrency {
    /// All of them at first.
    pub fn new(most: usize) -> Concurrency {
        let most = most.max(1);
        Concurrency {
            most,
            allowed: most,
            under_way: 0,
            answered: 0,
            begun: 0,
            halved_at: 0,
            rests_until_ms: 0,
        }
    }

    /// How many more may begin now.
    pub fn room(&self, now_ms: i64) -> usize {
        match now_ms < self.rests_until_ms {
            true => 0,
            false => self.allowed.saturating_sub(self.under_way),
        }
    }

    /// How many there are.
    pub fn under_way(&self) -> usize {
        self.under_way
    }

    /// How many there may be.
    pub fn allowed(&self) -> usize {
        self.allowed
    }

    /// Until when nothing is begun, in milliseconds since 1970.
    pub fn rests_until_ms(&self) -> i64 {
        self.rests_until_ms
    }

    /// One begins.
    pub fn begin(&mut self) -> Ticket {
        self.under_way = self.under_way.saturating_add(1);
        self.begun = self.begun.saturating_add(1);
        Ticket(self.begun)
    }

    /// One has ended.
    pub fn end(&mut self, Ticket(number): Ticket, told: Told, now_ms: i64) {
        self.under_way = self.under_way.saturating_sub(1);
        match told {
            Told::Nothing => {}
            Told::Fine => {
                self.answered = self.answered.saturating_add(1);
                if self.answered >= self.allowed {
                    self.allowed = self.allowed.saturating_add(1).min(self.most);
                    self.answered = 0;
                }
            }
            Told::Enough(rest) => {
                if number > self.halved_at {
                    self.allowed = (self.allowed / 2).max(1);
                    self.halved_at = self.begun;
                }
                self.answered = 0;
                let rest = i64::try_from(rest.min(LONGEST_REST).as_millis()).unwrap_or_default();
                self.rests_until_ms = self.rests_until_ms.max(now_ms.saturating_add(rest));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn full(calls: &mut Concurrency, now_ms: i64) -> Vec<Ticket> {
        (0..calls.room(now_ms)).map(|_| calls.begin()).collect()
    }

    #[test]
    fn it_is_halved_once_for_all_that_were_under_way_and_grows_by_one() {
        let mut calls = Concurrency::new(16);
        let first = full(&mut calls, 0);
        assert_eq!((first.len(), calls.room(0)), (16, 0));
        first.into_iter().for_each(|one| calls.end(one, Told::Enough(Duration::ZERO), 0));
        assert_eq!(calls.allowed(), 8, "sixteen were told the same");
        let second = full(&mut calls, 0);
        calls.end(second[0], Told::Enough(Duration::ZERO), 0);
        assert_eq!(calls.allowed(), 4, "that is news");
        second[1..].iter().for_each(|one| calls.end(*one, Told::Nothing, 0));
        for expected in [5, 6, 7] {
            full(&mut calls, 0).into_iter().for_each(|one| calls.end(one, Told::Fine, 0));
            assert_eq!(calls.allowed(), expected, "one more each time they all went well");
        }
        (0..1000).for_each(|_| {
            let one = calls.begin();
            calls.end(one, Told::Fine, 0);
        });
        assert_eq!(calls.allowed(), 16, "and no more than that");
    }

    #[test]
    fn twilio_is_left_alone_for_as_long_as_it_asks_and_a_minute_at_most() {
        let mut calls = Concurrency::new(4);
        let one = calls.begin();
        calls.end(one, Told::Enough(Duration::from_secs(2)), 1000);
        assert_eq!((calls.room(2999), calls.room(3000)), (0, 2));
        let one = calls.begin();
        calls.end(one, Told::Enough(Duration::from_secs(86_400)), 3000);
        assert_eq!((calls.room(62_999), calls.room(63_000)), (0, 1));
    }

    proptest! {
        /// Whatever is told, there is always a way on, and never more than there may be.
        #[test]
        fn there_is_always_one_and_never_too_many(most in 0usize..40, told in prop::collection::vec(0u8..3, 0..300)) {
            let mut calls = Concurrency::new(most);
            for word in told {
                let all = full(&mut calls, 0);
                prop_assert!(!all.is_empty() && all.len() <= most.max(1));
                for one in all {
                    let told = [Told::Nothing, Told::Fine, Told::Enough(Duration::ZERO)];
                    calls.end(one, told[usize::from(word)], 0);
                }
                prop_assert_eq!(calls.under_way(), 0);
            }
        }
    }
}
