//! Counts and latencies of a run, and the deviations from the answers that an edge must give.

use std::collections::BTreeMap;
use std::time::Duration;

use super::histogram::Histogram;
use super::mix::Kind;

/// Time within which Twilio expects an answer.
pub(super) const TIME_LIMIT: Duration = Duration::from_secs(15);

/// Answers after this time are counted as slow.
const SLOW: Duration = Duration::from_secs(1);

/// A webhook that is sent this long after its due time is counted as sent late.
const LATE: Duration = Duration::from_millis(100);

/// Status of the edge for a wrong signature.
pub(super) const REFUSED: u16 = 403;

/// Most distinct reasons that are listed; further ones are counted together.
const MAX_REASONS: usize = 12;

/// Result of one webhook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The edge answered, for refusals with its reason.
    Answered {
        /// HTTP status.
        status: u16,
        /// Value of `x-twilio-edge-reason`.
        reason: Option<String>,
    },
    /// No answer within 15 s of the due time.
    TooLate,
    /// No free connection within 15 s of the due time, so it was not sent.
    NotSent,
    /// The connection failed.
    Failed(String),
}

/// Webhook that needs no more work.
#[derive(Debug)]
pub(super) struct Finished {
    pub(super) kind: Kind,
    pub(super) outcome: Outcome,
    /// Time from when the webhook was due until it was sent.
    pub(super) delay: Duration,
    /// Time from when the webhook was due until its result.
    pub(super) latency: Duration,
}

/// Counts of one kind.
#[derive(Debug, Clone, Default)]
pub(super) struct KindCounts {
    pub(super) statuses: BTreeMap<u16, u64>,
    pub(super) too_late: u64,
    pub(super) not_sent: u64,
    pub(super) failed: u64,
}

impl KindCounts {
    pub(super) fn all(&self) -> u64 {
        self.statuses.values().sum::<u64>() + self.too_late + self.not_sent + self.failed
    }

    fn with_2xx(&self) -> u64 {
        self.statuses.range(200..300).map(|(_, count)| count).sum()
    }
}

/// Counts and latencies of a run. Its memory does not grow with the length of the run.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) kinds: BTreeMap<Kind, KindCounts>,
    /// Reasons of refusals and of failed connections.
    pub(super) reasons: BTreeMap<String, u64>,
    /// Latencies of genuine webhooks from their due time. One without an answer counts with the time until it was given up.
    pub(super) latencies: Histogram,
    /// Latencies since the last line of progress.
    recent: Histogram,
    /// Webhooks that were not sent when they were due: all connections were in use, or this machine is too slow.
    pub(super) sent_late: u64,
    /// Genuine webhooks with an answer later than a second.
    pub(super) slow: u64,
    /// Webhooks whose results are unknown, because the run was ended while they were in flight.
    pub(super) unfinished: u64,
}

impl Tally {
    /// Counts a result.
    pub(super) fn record(&mut self, finished: Finished) {
        let Finished { kind, outcome, delay, latency } = finished;
        self.sent_late += u64::from(delay > LATE);
        let counts = self.kinds.entry(kind).or_default();
        let (mut has_latency, mut reason) = (kind.is_genuine(), None);
        match outcome {
            Outcome::Answered { status, reason: given } => {
                *counts.statuses.entry(status).or_default() += 1;
                self.slow += u64::from(has_latency && latency > SLOW);
                if has_latency && !(200..300).contains(&status) {
                    reason = given.map(|given| format!("{status} {given}"));
                }
            }
            Outcome::TooLate => counts.too_late += 1,
            Outcome::NotSent => counts.not_sent += 1,
            Outcome::Failed(problem) => {
                counts.failed += 1;
                // A refused connection fails at once: counted, it would make the edge look fast.
                has_latency = false;
                reason = Some(problem);
            }
        }
        if has_latency {
            self.latencies.record(latency);
            self.recent.record(latency);
        }
        if let Some(reason) = reason {
            let is_listed = self.reasons.len() < MAX_REASONS || self.reasons.contains_key(&reason);
            let listed = if is_listed { reason } else { "other reasons".to_owned() };
            *self.reasons.entry(listed).or_default() += 1;
        }
    }

    /// Counts webhooks whose results will stay unknown.
    pub(super) fn add_unfinished(&mut self, count: usize) {
        self.unfinished += count as u64;
    }

    /// Returns the number of finished webhooks, and the share of 2xx among the genuine ones.
    pub(super) fn finished(&self) -> (u64, String) {
        let all = self.kinds.values().map(KindCounts::all).sum();
        (all, share(self.with_2xx(), self.genuine()))
    }

    /// Returns the latencies since the last call.
    pub(super) fn take_recent(&mut self) -> Histogram {
        std::mem::take(&mut self.recent)
    }

    pub(super) fn of(&self, is_genuine: bool) -> impl Iterator<Item = &KindCounts> {
        let kinds = self.kinds.iter().filter(move |(kind, _)| kind.is_genuine() == is_genuine);
        kinds.map(|(_, counts)| counts)
    }

    pub(super) fn genuine(&self) -> u64 {
        self.of(true).map(KindCounts::all).sum()
    }

    pub(super) fn with_2xx(&self) -> u64 {
        self.of(true).map(KindCounts::with_2xx).sum()
    }

    pub(super) fn sum(&self, count: impl Fn(&KindCounts) -> u64) -> u64 {
        self.kinds.values().map(count).sum()
    }

    /// Returns the number of answers by status, without those that are as they must be.
    fn wrong(&self, is_genuine: bool) -> BTreeMap<u16, u64> {
        let mut wrong = BTreeMap::new();
        for (status, count) in self.of(is_genuine).flat_map(|counts| &counts.statuses) {
            let is_right = match is_genuine {
                true => (200..300).contains(status),
                false => *status == REFUSED,
            };
            if !is_right {
                *wrong.entry(*status).or_default() += count;
            }
        }
        wrong
    }

    /// Returns each deviation from the answers that an edge must give, with who must act.
    pub(super) fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.genuine() == 0 {
            problems.push("no genuine webhook was sent".to_owned());
        }
        for (status, count) in self.wrong(true) {
            problems.push(format!(
                "{count} genuine webhooks were answered with {status}: {}",
                advice(status)
            ));
        }
        for (status, count) in self.wrong(false) {
            problems.push(format!(
                "{count} forged webhooks were answered with {status} instead of {REFUSED}: check that the filter guards both \
                 paths with `mode: enforce`"
            ));
        }
        let (too_late, not_sent) = (self.sum(|it| it.too_late), self.sum(|it| it.not_sent));
        let limit = TIME_LIMIT.as_secs();
        if too_late > 0 {
            problems.push(format!(
                "{too_late} webhooks had no answer within {limit} s, after which Twilio gives up: check the latency of the \
                 application and of the sidecar's stores"
            ));
        }
        if not_sent > 0 {
            problems.push(format!(
                "{not_sent} webhooks were not sent within {limit} s, because all connections waited for answers: the edge \
                 is slower than this rate"
            ));
        }
        let failed = self.sum(|it| it.failed);
        if failed > 0 {
            problems.push(format!(
                "{failed} webhooks had a connection error: check that the edge runs at this address and permits as many \
                 connections"
            ));
        }
        if self.unfinished > 0 {
            problems.push(format!(
                "{} webhooks were in flight when the run was ended",
                self.unfinished
            ));
        }
        problems
    }
}

/// Returns who must act on an answer other than 2xx.
fn advice(status: u16) -> &'static str {
    match status {
        300..=399 => {
            "give the scheme, host and paths that Twilio calls; Twilio would have to follow a redirect"
        }
        403 => "check that --origin, the account and the auth token are those of the filter",
        404 | 405 => "check that --inbound-path and --status-path are routes of the edge",
        429 => "the edge, or a proxy before it, limits the rate",
        503 => "check the sidecar and its stores, and the application",
        504 => "check the latency of the application",
        _ => "check the application behind the edge",
    }
}

/// Returns a share in percent, rounded down: 100 % means all.
pub(super) fn share(part: u64, whole: u64) -> String {
    match (part * 10_000).checked_div(whole) {
        Some(parts) => format!("{}.{:02} %", parts / 100, parts % 100),
        None => "-".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(kind: Kind, status: u16, ms: u64) -> Finished {
        let outcome = Outcome::Answered { status, reason: None };
        Finished { kind, outcome, delay: Duration::ZERO, latency: Duration::from_millis(ms) }
    }

    fn tally(all: Vec<Finished>) -> Tally {
        let mut tally = Tally::default();
        all.into_iter().for_each(|finished| tally.record(finished));
        tally
    }

    /// Returns the problems of a run with one right answer and this result.
    fn problems(kind: Kind, outcome: Outcome) -> Vec<String> {
        let one =
            Finished { kind, outcome, delay: Duration::ZERO, latency: Duration::from_millis(1) };
        tally(vec![answered(Kind::Status, 204, 2), one]).problems()
    }

    #[test]
    fn each_wrong_result_is_a_problem_with_a_remedy() {
        let of = |status| Outcome::Answered { status, reason: None };
        for (kind, outcome, expected) in [
            (Kind::Inbound, of(500), "answered with 500: check the application"),
            (Kind::Repeat, of(403), "answered with 403: check that --origin"),
            (Kind::Status, of(404), "answered with 404: check that --inbound-path"),
            (Kind::Forged, of(200), "answered with 200 instead of 403"),
            (Kind::Status, Outcome::TooLate, "no answer within 15 s"),
            (Kind::Forged, Outcome::NotSent, "not sent within 15 s"),
            (Kind::Inbound, Outcome::Failed("reset".to_owned()), "a connection error"),
        ] {
            let problems = problems(kind, outcome);
            assert!(problems.len() == 1 && problems[0].contains(expected), "{problems:?}");
        }
        assert_eq!(tally(Vec::new()).problems(), ["no genuine webhook was sent"]);
    }

    #[test]
    fn webhook_without_an_answer_is_in_the_percentiles_and_a_failed_connection_is_not() {
        let given_up = |outcome| Finished {
            kind: Kind::Status,
            outcome,
            delay: Duration::ZERO,
            latency: TIME_LIMIT,
        };
        let mut all: Vec<_> = (0..8).map(|_| answered(Kind::Status, 204, 1)).collect();
        all.extend([given_up(Outcome::TooLate), given_up(Outcome::NotSent)]);
        let at_once = Finished {
            kind: Kind::Status,
            outcome: Outcome::Failed("refused".to_owned()),
            delay: Duration::ZERO,
            latency: Duration::ZERO,
        };
        all.push(at_once);
        let latencies = tally(all).latencies;
        assert!(latencies.percentile_us(800).is_some_and(|us| us < 1100), "{latencies:?}");
        assert_eq!(latencies.percentile_us(810), Some(15_000_000));
    }

    #[test]
    fn reasons_are_listed_up_to_a_limit() {
        let failed = |n: usize| Finished {
            kind: Kind::Status,
            outcome: Outcome::Failed(format!("reason {n}")),
            delay: Duration::ZERO,
            latency: Duration::ZERO,
        };
        let tally = tally((0..100).map(failed).collect());
        assert_eq!(tally.reasons.len(), MAX_REASONS + 1);
        assert_eq!(tally.reasons["other reasons"], 100 - MAX_REASONS as u64);
    }

    #[test]
    fn share_of_all_but_one_is_not_all() {
        assert_eq!(share(99_999, 100_000), "99.99 %");
        assert_eq!((share(7, 7), share(0, 0)), ("100.00 %".to_owned(), "-".to_owned()));
    }
}
