//! Retry schedule of deliveries and circuit breaker of sinks. Decides when a delivery is retried, when it becomes a
//! dead letter and when a sink is paused. Pure: the caller passes the time and the random number; transports and sinks
//! are not known here.
//!
//! A *lane* is the unit of ordering: the deliveries of one contact to one sink. When the first delivery of a lane
//! fails, the lane waits and other lanes continue. A *breaker* watches the whole sink, so that an outage costs one
//! attempt now and then instead of one per lane.

use std::time::Duration;

use crate::delivery_attempt::{AttemptOutcome, DeliveryAttempt};

/// Outcome of one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeliveryOutcome {
    /// The sink accepted it.
    Delivered,
    /// A retry may succeed.
    Failed {
        /// Text for operators: the sink's answer, or the reason why it was unavailable.
        reason: String,
        /// Pause that the sink asked for.
        retry_after: Option<Duration>,
        /// True if it concerns the sink as a whole: unreachable, timeout, overloaded.
        is_outage: bool,
    },
    /// The sink rejected this delivery for good.
    Refused {
        /// The sink's answer.
        reason: String,
    },
}

/// Answer of a sink to one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SinkAnswer {
    /// Outcome that the answer means.
    pub outcome: DeliveryOutcome,
    /// HTTP status; `None` without an answer, and for sinks without such a status.
    pub status: Option<u16>,
    /// Beginning of the answer, as text.
    pub excerpt: String,
    /// Time until the answer, or until the failure.
    pub latency: Duration,
}

impl From<DeliveryOutcome> for SinkAnswer {
    fn from(outcome: DeliveryOutcome) -> SinkAnswer {
        SinkAnswer { outcome, status: None, excerpt: String::new(), latency: Duration::ZERO }
    }
}

impl SinkAnswer {
    /// Returns the record of an attempt that started at `at_ms`.
    pub fn attempt(&self, at_ms: i64) -> DeliveryAttempt {
        let (outcome, reason) = match &self.outcome {
            DeliveryOutcome::Delivered => (AttemptOutcome::Delivered, None),
            DeliveryOutcome::Failed { reason, .. } => (AttemptOutcome::Failed, Some(reason)),
            DeliveryOutcome::Refused { reason } => (AttemptOutcome::Refused, Some(reason)),
        };
        DeliveryAttempt {
            at_ms,
            outcome,
            status: self.status,
            latency_ms: u64::try_from(self.latency.as_millis()).unwrap_or(u64::MAX),
            reason: reason.filter(|reason| !self.is_repeated_by(reason)).cloned(),
            answer: self.excerpt.clone(),
        }
    }

    /// Returns whether a reason only repeats the status and the answer, as that of an HTTP sink does.
    fn is_repeated_by(&self, reason: &str) -> bool {
        self.status.is_some_and(|status| reason.starts_with(&status.to_string()))
    }
}

/// Next state of a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NextStep {
    /// Delivered.
    Done,
    /// Retried at this time or later, in milliseconds since 1970.
    RetryAt(i64),
    /// Dead letter: only an operator's request delivers it again.
    DeadLetter,
}

/// Retry policy of a sink's deliveries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Upper bound of the pause after the first failure; the bound doubles with each further failure.
    pub first_pause: Duration,
    /// Upper bound of every pause.
    pub longest_pause: Duration,
    /// Age, counted from its recording, at which a failed delivery becomes a dead letter.
    pub give_up_after: Duration,
}

impl RetryPolicy {
    /// Returns the state after attempt number `tries` (from 1) of a delivery recorded at `recorded_ms`. `dice` is a
    /// random number: full jitter spreads the retries of many lanes that failed at the same moment over the whole
    /// pause.
    pub fn next(
        &self,
        outcome: &DeliveryOutcome,
        tries: u32,
        recorded_ms: i64,
        now_ms: i64,
        dice: u64,
    ) -> NextStep {
        let retry_after = match outcome {
            DeliveryOutcome::Delivered => return NextStep::Done,
            DeliveryOutcome::Refused { .. } => return NextStep::DeadLetter,
            DeliveryOutcome::Failed { retry_after, .. } => retry_after.unwrap_or_default(),
        };
        if now_ms.saturating_sub(recorded_ms) >= millis(self.give_up_after) {
            return NextStep::DeadLetter;
        }
        // The longest pause also bounds `Retry-After`: a sink that says "in a year" is tried earlier.
        let pause = self.pause(tries, dice).max(retry_after.min(self.longest_pause));
        NextStep::RetryAt(now_ms.saturating_add(millis(pause)))
    }

    fn pause(&self, tries: u32, dice: u64) -> Duration {
        let doublings = tries.saturating_sub(1).min(31);
        let longest = self.first_pause.saturating_mul(1 << doublings).min(self.longest_pause);
        let longest = u64::try_from(longest.as_millis()).unwrap_or(u64::MAX);
        // Never zero: a lane must not retry in a busy loop.
        Duration::from_millis(1 + dice % longest.max(1))
    }
}

/// Circuit breaker of one sink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CircuitBreaker {
    /// Consecutive outages.
    failures: u32,
    /// While it is open: time of the next probe, in milliseconds since 1970.
    probe_at_ms: Option<i64>,
    /// True if a probe is in flight.
    probing: bool,
}

/// Consecutive outages that open a breaker.
const TRIPS_AT: u32 = 5;

/// First and longest pause of an open breaker, in milliseconds.
const PAUSES_MS: [i64; 2] = [500, 30_000];

impl CircuitBreaker {
    /// Creates a closed breaker, which admits every delivery.
    pub fn new() -> CircuitBreaker {
        CircuitBreaker { failures: 0, probe_at_ms: None, probing: false }
    }

    /// Returns the number of deliveries that may start now, at most `wanted`.
    pub fn permits(&self, wanted: usize, now_ms: i64) -> usize {
        match self.probe_at_ms {
            None => wanted,
            Some(at) if !self.probing && now_ms >= at => wanted.min(1),
            Some(_) => 0,
        }
    }

    /// Records that an admitted delivery has started.
    pub fn begin(&mut self) {
        self.probing = self.probe_at_ms.is_some();
    }

    /// Records the end of an attempt. A sink that rejects one delivery is available for the others.
    pub fn end(&mut self, outcome: &DeliveryOutcome, now_ms: i64) {
        let is_outage = matches!(outcome, DeliveryOutcome::Failed { is_outage: true, .. });
        if !is_outage {
            *self = CircuitBreaker::new();
            return;
        }
        let was_probe = std::mem::take(&mut self.probing);
        if self.probe_at_ms.is_some() && !was_probe {
            // It was in flight when the breaker opened, and carries no new information.
            return;
        }
        self.failures = self.failures.saturating_add(1);
        let over = self.failures.saturating_sub(TRIPS_AT);
        if self.failures >= TRIPS_AT {
            let [first, longest] = PAUSES_MS;
            let pause = first.saturating_mul(1 << over.min(16)).min(longest);
            self.probe_at_ms = Some(now_ms.saturating_add(pause));
        }
    }

    /// Records that an admitted delivery made no attempt: another delivery may probe.
    pub fn cancel(&mut self) {
        self.probing = false;
    }

    /// Returns the time of the next probe in milliseconds since 1970, if the breaker is open.
    pub fn probe_at_ms(&self) -> Option<i64> {
        self.probe_at_ms
    }
}

impl Default for CircuitBreaker {
    fn default() -> CircuitBreaker {
        CircuitBreaker::new()
    }
}

/// Classifies the status of an HTTP sink. 400, 413, 415 and 422 concern the delivery itself, and a retry would get them
/// again. All other errors may be a deployment, a wrong secret or a missing route, which an operator repairs.
pub fn outcome_of_response(
    status: u16,
    retry_after: Option<Duration>,
    said: &str,
) -> DeliveryOutcome {
    let reason = if said.is_empty() { status.to_string() } else { format!("{status}: {said}") };
    match status {
        200..=299 => DeliveryOutcome::Delivered,
        400 | 413 | 415 | 422 => DeliveryOutcome::Refused { reason },
        429 | 500..=599 => DeliveryOutcome::Failed { reason, retry_after, is_outage: true },
        _ => DeliveryOutcome::Failed { reason, retry_after, is_outage: false },
    }
}

/// Parses `Retry-After` in seconds. The form with a date is rare; the policy's own pause replaces it.
pub fn parse_retry_after(header: &str) -> Option<Duration> {
    header.trim().parse().ok().map(Duration::from_secs)
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn attempt_has_the_reason_unless_it_only_repeats_the_status() {
        let reason = |outcome: DeliveryOutcome, status| {
            SinkAnswer { status, ..outcome.into() }.attempt(1).reason
        };
        assert_eq!(reason(outcome_of_response(503, None, "later"), Some(503)), None);
        let failed = |reason: &str| DeliveryOutcome::Failed {
            reason: reason.into(),
            retry_after: None,
            is_outage: true,
        };
        let advice = "the topic does not exist: 404 NOT_FOUND";
        assert_eq!(reason(failed(advice), Some(404)).as_deref(), Some(advice));
        assert_eq!(reason(failed("no connection"), None).as_deref(), Some("no connection"));
    }

    const PATIENCE: RetryPolicy = RetryPolicy {
        first_pause: Duration::from_millis(100),
        longest_pause: Duration::from_secs(60),
        give_up_after: Duration::from_secs(3600),
    };

    fn failed(retry_after: Option<u64>) -> DeliveryOutcome {
        let retry_after = retry_after.map(Duration::from_secs);
        DeliveryOutcome::Failed { reason: "no".into(), retry_after, is_outage: true }
    }

    #[test]
    fn response_status_decides_the_outcome() {
        let outage = |outcome| matches!(outcome, DeliveryOutcome::Failed { is_outage: true, .. });
        let mendable =
            |outcome| matches!(outcome, DeliveryOutcome::Failed { is_outage: false, .. });
        let refused = |outcome| matches!(outcome, DeliveryOutcome::Refused { .. });
        for status in 200..=299 {
            assert_eq!(outcome_of_response(status, None, "thanks"), DeliveryOutcome::Delivered);
        }
        for status in [400, 413, 415, 422] {
            assert!(refused(outcome_of_response(status, None, "")), "{status}");
        }
        for status in [429, 500, 502, 503, 504, 599] {
            assert!(outage(outcome_of_response(status, None, "")), "{status}");
        }
        for status in [100, 301, 302, 401, 403, 404, 405, 408, 409, 410, 425, 451, 999] {
            assert!(mendable(outcome_of_response(status, None, "")), "{status}");
        }
    }

    #[test]
    fn delivery_is_dead_after_its_age_limit_or_a_refusal() {
        let next = |outcome: &DeliveryOutcome, now| PATIENCE.next(outcome, 3, 1000, now, 7);
        assert_eq!(next(&DeliveryOutcome::Delivered, 9_999_999), NextStep::Done);
        assert_eq!(
            next(&DeliveryOutcome::Refused { reason: String::new() }, 1001),
            NextStep::DeadLetter
        );
        assert!(matches!(next(&failed(None), 1000 + 3_599_999), NextStep::RetryAt(_)));
        assert_eq!(next(&failed(None), 1000 + 3_600_000), NextStep::DeadLetter);
    }

    #[test]
    fn retry_after_is_honoured_up_to_the_longest_pause() {
        let next = |seconds| PATIENCE.next(&failed(Some(seconds)), 1, 0, 0, 0);
        assert_eq!(next(0), NextStep::RetryAt(1));
        assert_eq!(next(7), NextStep::RetryAt(7000));
        assert_eq!(next(u64::MAX), NextStep::RetryAt(60_000));
    }

    #[test]
    fn open_breaker_permits_single_probes_at_growing_pauses() {
        let mut breaker = CircuitBreaker::new();
        for now in 0..4 {
            breaker.end(&failed(None), now);
            assert_eq!(breaker.permits(9, now), 9);
        }
        breaker.end(&failed(None), 4);
        // Deliveries that were in flight change nothing, in any number.
        (0..20).for_each(|_| breaker.end(&failed(None), 5));
        assert_eq!((breaker.permits(9, 503), breaker.permits(9, 504)), (0, 1));
        breaker.begin();
        assert_eq!(breaker.permits(9, 504), 0, "one is trying");
        breaker.end(&failed(None), 600);
        let again = breaker.probe_at_ms().unwrap();
        assert_eq!(again, 600 + 2 * 500, "twice the first pause");
        assert_eq!(breaker.permits(9, again), 1);
        breaker.begin();
        breaker.cancel();
        assert_eq!(breaker.permits(9, again), 1, "no attempt was made");
        breaker.begin();
        breaker.end(&DeliveryOutcome::Refused { reason: String::new() }, again);
        assert_eq!(breaker.permits(9, again), 9, "it is there");
    }

    proptest! {
        /// Every failure is retried in the future, within the longest pause, and jitter reaches down to almost now.
        #[test]
        fn tries_are_spread_and_bounded(tries in 0_u32..=u32::MAX, dice in any::<u64>(), now in 0_i64..1 << 50) {
            let NextStep::RetryAt(at) = PATIENCE.next(&failed(None), tries, now, now, dice) else {
                panic!("given up at once");
            };
            prop_assert!(at > now && at <= now + 60_000);
        }

        /// An open breaker admits one probe at a time, does not stay open forever, and closes after the first success.
        #[test]
        fn breaker_always_permits_another_probe(ends in prop::collection::vec(any::<bool>(), 0..60)) {
            let (mut breaker, mut now) = (CircuitBreaker::new(), 0);
            for works in ends {
                let open = breaker.probe_at_ms();
                let admitted = breaker.permits(5, now);
                prop_assert!(open.is_none() || admitted <= 1);
                if admitted == 0 {
                    let at = open.unwrap();
                    prop_assert!(at - now <= 30_000);
                    now = at;
                    continue;
                }
                breaker.begin();
                now += 3;
                let outcome = if works { DeliveryOutcome::Delivered } else { failed(None) };
                breaker.end(&outcome, now);
                prop_assert!(!works || breaker.permits(5, now) == 5);
            }
        }

        #[test]
        fn response_of_any_status_is_classified_without_panic(status in any::<u16>(), header in any::<String>(), said in any::<String>()) {
            outcome_of_response(status, parse_retry_after(&header), &said);
        }
    }
}
