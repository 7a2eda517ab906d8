//! Adaptive limit of an account's concurrent calls. The limit rises by one after as many successful answers as the limit has
//! calls. It is halved, never below the floor, when Twilio throttles the account (429 with code 20429). One throttled
//! recipient is no evidence about the account: the limit falls only after [`EVIDENCE`] distinct recipients were throttled
//! among the last [`RECENT_ANSWERS`] answers. Calls of category `authentication` have a reserve beside the limit, so that calls
//! that hang do not delay a one-time password. Pure: the caller passes the time.

use std::{collections::VecDeque, time::Duration};

/// Longest pause of an account that a `Retry-After` of Twilio can cause.
const MAX_PAUSE: Duration = Duration::from_secs(60);

/// Number of distinct throttled recipients from which the account itself counts as throttled.
pub const EVIDENCE: usize = 3;

/// Number of recent answers in which that evidence is counted, so that a few throttled recipients among many do not count.
const RECENT_ANSWERS: usize = 20;

/// Age in milliseconds from which an answer is no longer evidence about the account.
const STALE_MS: i64 = 60_000;

/// Bounds of the calls of one account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Highest number of calls of any category; also the initial limit.
    pub most: usize,
    /// Lowest number of calls that the limit falls to.
    pub floor: usize,
    /// Calls beside the limit, for category `authentication` only.
    pub reserve: usize,
}

/// Number of calls that may begin now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Capacity {
    /// Calls of any category.
    pub any: usize,
    /// Calls of category `authentication`; includes the reserve, so it is never less than `any`.
    pub authentication: usize,
}

impl Capacity {
    /// Returns the room under `limit` while `in_flight` calls run.
    pub fn under_limit(limit: usize, reserve: usize, in_flight: usize) -> Capacity {
        Capacity {
            any: limit.saturating_sub(in_flight),
            authentication: limit.saturating_add(reserve).saturating_sub(in_flight),
        }
    }

    /// Returns the room that is left after `begun` more calls have started.
    #[must_use]
    pub fn minus(self, begun: usize) -> Capacity {
        Capacity {
            any: self.any.saturating_sub(begun),
            authentication: self.authentication.saturating_sub(begun),
        }
    }
}

/// Concurrency limit and running calls of one account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdaptiveConcurrencyLimit {
    bounds: Bounds,
    allowed: usize,
    in_flight: usize,
    /// Successful answers since `allowed` was last changed.
    accepted: usize,
    begun: u64,
    /// Number of the last call that had begun when the limit was halved. Throttled answers to calls up to that number do not
    /// halve the limit a second time.
    halved_at: u64,
    paused_until_ms: i64,
    /// Recent answers with their time in milliseconds since 1970: the recipient of a throttled call, or `None` for a
    /// successful one.
    answers: VecDeque<(i64, Option<u64>)>,
}

/// Number of a call, in the order in which the calls began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallTicket(u64);

/// Evidence that the end of a call gives about the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallOutcome {
    /// No evidence: no call was made, no answer came, or a limit of the recipient or the sender was hit.
    NoEvidence,
    /// Twilio accepted the message.
    Accepted,
    /// Twilio answered 429 and named no limit other than the account's.
    Throttled {
        /// Value of `Retry-After`, or zero.
        pause: Duration,
        /// Digest of the recipient, to distinguish recipients.
        recipient: u64,
    },
    /// A mail provider answered 429. It limits its own calls, not those to Twilio, so only the sender of the e-mail pauses.
    SenderThrottled {
        /// Time until the provider accepts calls again, or zero.
        pause: Duration,
    },
}

impl AdaptiveConcurrencyLimit {
    /// Returns a limit that starts at its maximum.
    pub fn new(bounds: Bounds) -> AdaptiveConcurrencyLimit {
        let most = bounds.most.max(1);
        AdaptiveConcurrencyLimit {
            bounds: Bounds { most, floor: bounds.floor.clamp(1, most), reserve: bounds.reserve },
            allowed: most,
            in_flight: 0,
            accepted: 0,
            begun: 0,
            halved_at: 0,
            paused_until_ms: 0,
            answers: VecDeque::new(),
        }
    }

    /// Returns the number of calls that may begin now.
    pub fn capacity(&self, now_ms: i64) -> Capacity {
        match now_ms < self.paused_until_ms {
            true => Capacity::default(),
            false => Capacity::under_limit(self.allowed, self.bounds.reserve, self.in_flight),
        }
    }

    /// Returns the number of running calls.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Returns the current limit, without the reserve.
    pub fn allowed(&self) -> usize {
        self.allowed
    }

    /// Returns the end of the current pause, in milliseconds since 1970.
    pub fn paused_until_ms(&self) -> i64 {
        self.paused_until_ms
    }

    /// Records the begin of a call.
    pub fn begin(&mut self) -> CallTicket {
        self.in_flight = self.in_flight.saturating_add(1);
        self.begun = self.begun.saturating_add(1);
        CallTicket(self.begun)
    }

    /// Records the end of a call and adapts the limit.
    pub fn end(&mut self, CallTicket(number): CallTicket, outcome: CallOutcome, now_ms: i64) {
        self.in_flight = self.in_flight.saturating_sub(1);
        match outcome {
            CallOutcome::NoEvidence | CallOutcome::SenderThrottled { .. } => {}
            CallOutcome::Accepted => {
                self.note(None, now_ms);
                self.accepted = self.accepted.saturating_add(1);
                if self.accepted >= self.allowed {
                    self.allowed = self.allowed.saturating_add(1).min(self.bounds.most);
                    self.accepted = 0;
                }
            }
            CallOutcome::Throttled { pause, recipient } => {
                self.note(Some(recipient), now_ms);
                if self.throttled() < EVIDENCE {
                    return;
                }
                if number > self.halved_at {
                    self.allowed = (self.allowed / 2).max(self.bounds.floor);
                    self.halved_at = self.begun;
                }
                self.accepted = 0;
                let pause = i64::try_from(pause.min(MAX_PAUSE).as_millis()).unwrap_or_default();
                self.paused_until_ms = self.paused_until_ms.max(now_ms.saturating_add(pause));
            }
        }
    }

    fn note(&mut self, throttled: Option<u64>, now_ms: i64) {
        let stale_ms = now_ms.saturating_sub(STALE_MS);
        self.answers.retain(|(at_ms, _)| *at_ms >= stale_ms);
        while self.answers.len() >= RECENT_ANSWERS {
            self.answers.pop_front();
        }
        self.answers.push_back((now_ms, throttled));
    }

    /// Returns the number of distinct recipients that were throttled among the recent answers.
    fn throttled(&self) -> usize {
        let mut recipients: Vec<u64> = self.answers.iter().filter_map(|(_, one)| *one).collect();
        recipients.sort_unstable();
        recipients.dedup();
        recipients.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bounds(most: usize, floor: usize) -> Bounds {
        Bounds { most, floor, reserve: 0 }
    }

    fn full(calls: &mut AdaptiveConcurrencyLimit, now_ms: i64) -> Vec<CallTicket> {
        (0..calls.capacity(now_ms).any).map(|_| calls.begin()).collect()
    }

    fn throttled(recipient: usize) -> CallOutcome {
        CallOutcome::Throttled { pause: Duration::ZERO, recipient: recipient as u64 }
    }

    #[test]
    fn limit_is_halved_once_for_all_calls_in_flight_and_grows_by_one() {
        let mut calls = AdaptiveConcurrencyLimit::new(bounds(16, 1));
        let first = full(&mut calls, 0);
        assert_eq!((first.len(), calls.capacity(0).any), (16, 0));
        first.into_iter().enumerate().for_each(|(n, one)| calls.end(one, throttled(n), 0));
        assert_eq!(calls.allowed(), 8, "the sixteen answers are one event");
        let second = full(&mut calls, 0);
        calls.end(second[0], throttled(99), 0);
        assert_eq!(calls.allowed(), 4, "a later call halves it again");
        second[1..].iter().for_each(|one| calls.end(*one, CallOutcome::NoEvidence, 0));
        for expected in [5, 6, 7] {
            full(&mut calls, 0)
                .into_iter()
                .for_each(|one| calls.end(one, CallOutcome::Accepted, 0));
            assert_eq!(calls.allowed(), expected, "one more each time they all went well");
        }
        (0..1000).for_each(|_| {
            let one = calls.begin();
            calls.end(one, CallOutcome::Accepted, 0);
        });
        assert_eq!(calls.allowed(), 16, "and no more than that");
    }

    #[test]
    fn throttled_recipient_alone_is_no_evidence() {
        let mut calls = AdaptiveConcurrencyLimit::new(bounds(16, 4));
        let pause = Duration::from_secs(30);
        for n in 0..1000 {
            let one = calls.begin();
            let recipient = n % (EVIDENCE as u64 - 1);
            calls.end(one, CallOutcome::Throttled { pause, recipient }, 0);
        }
        assert_eq!((calls.allowed(), calls.capacity(0).any), (16, 16));
        // A few throttled recipients among many are no evidence.
        for n in 0..1000 {
            let one = calls.begin();
            let outcome = if n % 10 == 0 { throttled(n) } else { CallOutcome::Accepted };
            calls.end(one, outcome, 0);
        }
        assert_eq!(calls.allowed(), 16);
        // Stale answers are no evidence.
        let mut calls = AdaptiveConcurrencyLimit::new(bounds(16, 4));
        for n in 0..10 {
            let one = calls.begin();
            calls.end(one, throttled(n), n as i64 * (STALE_MS / 2 + 1));
        }
        assert_eq!(calls.allowed(), 16);
    }

    #[test]
    fn throttled_account_keeps_its_floor_and_its_reserve() {
        let mut calls = AdaptiveConcurrencyLimit::new(Bounds { most: 30, floor: 4, reserve: 8 });
        for n in 0..100 {
            let one = calls.begin();
            calls.end(one, throttled(n), 0);
        }
        assert_eq!(calls.allowed(), 4);
        assert_eq!(calls.capacity(0), Capacity { any: 4, authentication: 12 });
        full(&mut calls, 0);
        assert_eq!(calls.capacity(0), Capacity { any: 0, authentication: 8 }, "four hang");
        (0..8).for_each(|_| {
            calls.begin();
        });
        assert_eq!(calls.capacity(0), Capacity::default());
    }

    #[test]
    fn account_pauses_for_retry_after_and_at_most_a_minute() {
        let mut calls = AdaptiveConcurrencyLimit::new(bounds(4, 1));
        let outcome = |recipient, pause| CallOutcome::Throttled { pause, recipient };
        for recipient in 0..EVIDENCE as u64 {
            let one = calls.begin();
            calls.end(one, outcome(recipient, Duration::from_secs(2)), 1000);
        }
        assert_eq!((calls.capacity(2999).authentication, calls.capacity(3000).any), (0, 2));
        let one = calls.begin();
        calls.end(one, outcome(9, Duration::from_secs(86_400)), 3000);
        assert_eq!((calls.capacity(62_999).any, calls.capacity(63_000).any), (0, 1));
    }

    proptest! {
        /// The limit stays at or above the floor and at or below the maximum for any sequence of answers.
        #[test]
        fn limit_stays_within_its_bounds(most in 0usize..40, floor in 0usize..50, reserve in 0usize..9,
            outcome in prop::collection::vec((0u8..3, 0usize..9), 0..300)) {
            let mut calls = AdaptiveConcurrencyLimit::new(Bounds { most, floor, reserve });
            for (word, recipient) in outcome {
                let all = full(&mut calls, 0);
                prop_assert!(all.len() >= floor.clamp(1, most.max(1)) && all.len() <= most.max(1));
                prop_assert_eq!(calls.capacity(0).authentication, reserve);
                for one in all {
                    let outcome = [CallOutcome::NoEvidence, CallOutcome::Accepted, throttled(recipient)];
                    calls.end(one, outcome[usize::from(word)], 0);
                }
                prop_assert_eq!(calls.in_flight(), 0);
                prop_assert!(calls.answers.len() <= RECENT_ANSWERS);
            }
        }
    }
}
