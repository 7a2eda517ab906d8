//! Report of a run, for people and for programs.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::histogram::Histogram;
use super::mix::Kind;
use super::tally::{KindCounts, REFUSED, TIME_LIMIT, Tally, share};

/// Percentiles of a report: name, and how many of a thousand.
const PERCENTILES: [(&str, u64); 5] =
    [("p50", 500), ("p90", 900), ("p95", 950), ("p99", 990), ("p99.9", 999)];

/// Report of a run.
#[derive(Debug)]
pub(super) struct Report {
    /// Edge, signed origin and beginning of the MessageSids.
    pub(super) edge: String,
    pub(super) origin: String,
    pub(super) sid_prefix: String,
    /// Intended rate and measured time from the first due time to the last result.
    pub(super) rate: u32,
    pub(super) elapsed: Duration,
    pub(super) is_interrupted: bool,
    pub(super) tally: Tally,
}

impl Report {
    /// Returns whether every genuine webhook had 2xx and every forged one 403.
    pub(super) fn is_passed(&self) -> bool {
        self.tally.problems().is_empty()
    }

    /// Returns the report for people.
    pub(super) fn text(&self) -> String {
        let tally = &self.tally;
        let mut text = format!(
            "{} webhooks at {}/s in {:.1} s to {}, signed for {}{}\nTheir MessageSids begin with {}\n\n\
             kind     webhooks  answers\n",
            tally.sum(KindCounts::all),
            self.rate,
            self.elapsed.as_secs_f64(),
            self.edge,
            self.origin,
            if self.is_interrupted { "; interrupted" } else { "" },
            self.sid_prefix
        );
        for kind in Kind::ALL {
            let Some(counts) = tally.kinds.get(&kind) else { continue };
            let answers =
                counts.statuses.iter().map(|(status, count)| format!("{status}: {count}"));
            let unanswered = [
                ("too late", counts.too_late),
                ("not sent", counts.not_sent),
                ("connection error", counts.failed),
            ];
            let unanswered = unanswered.into_iter().filter(|(_, count)| *count > 0);
            let unanswered = unanswered.map(|(name, count)| format!("{name}: {count}"));
            let answers: Vec<String> = answers.chain(unanswered).collect();
            let _ =
                writeln!(text, "{:<8} {:>8}  {}", kind.name(), counts.all(), answers.join(", "));
        }
        let (genuine, with_2xx) = (tally.genuine(), tally.with_2xx());
        let forged = tally.of(false).map(KindCounts::all).sum::<u64>();
        let refused =
            tally.of(false).filter_map(|counts| counts.statuses.get(&REFUSED)).sum::<u64>();
        let _ = write!(
            text,
            "\ngenuine with 2xx       {} ({with_2xx} of {genuine})\nforged with {REFUSED}        {refused} of {forged}\n\
             latency from due time  {}\nanswers after 1 s      {}\nno answer within {} s  {}\nconnection errors      {}\nsent 0.1 s late        {}\n",
            share(with_2xx, genuine),
            latencies(&tally.latencies),
            tally.slow,
            TIME_LIMIT.as_secs(),
            tally.sum(|it| it.too_late + it.not_sent),
            tally.sum(|it| it.failed),
            tally.sent_late,
        );
        if !tally.reasons.is_empty() {
            text.push_str("\nreasons\n");
        }
        for (reason, count) in &tally.reasons {
            let _ = writeln!(text, "{count:>8}  {reason}");
        }
        match tally.problems() {
            problems if problems.is_empty() => {
                text.push_str("\nEvery genuine webhook had 2xx, and every forged one 403.\n");
            }
            problems => {
                text.push_str("\nNot as it must be:\n");
                for problem in problems {
                    let _ = writeln!(text, "- {problem}");
                }
            }
        }
        text
    }

    /// Returns the report for programs.
    pub(super) fn json(&self) -> String {
        let tally = &self.tally;
        let kinds = tally.kinds.iter().map(|(kind, counts)| {
            let answers = counts.statuses.iter();
            let answers = answers.map(|(status, count)| (status.to_string(), json!(count)));
            let counts = json!({
                "webhooks": counts.all(),
                "answers": answers.collect::<Map<String, Value>>(),
                "too_late": counts.too_late,
                "not_sent": counts.not_sent,
                "connection_errors": counts.failed,
            });
            (kind.name().to_owned(), counts)
        });
        let percentiles = PERCENTILES.iter().map(|(name, per_mille)| {
            ((*name).to_owned(), json!(tally.latencies.percentile_us(*per_mille).map(to_ms)))
        });
        let max = ("max".to_owned(), json!(tally.latencies.max_us().map(to_ms)));
        let (genuine, with_2xx) = (tally.genuine(), tally.with_2xx());
        let report = json!({
            "edge": self.edge,
            "origin": self.origin,
            "message_sid_prefix": self.sid_prefix,
            "rate": self.rate,
            "elapsed_s": self.elapsed.as_millis() as f64 / 1e3,
            "interrupted": self.is_interrupted,
            "kinds": kinds.collect::<Map<String, Value>>(),
            "genuine": genuine,
            "genuine_with_2xx": with_2xx,
            "latency_ms": percentiles.chain([max]).collect::<Map<String, Value>>(),
            "answers_after_1_s": tally.slow,
            "sent_late": tally.sent_late,
            "unfinished": tally.unfinished,
            "reasons": tally.reasons,
            "passed": self.is_passed(),
            "problems": tally.problems(),
        });
        serde_json::to_string_pretty(&report).unwrap_or_default() + "\n"
    }
}

/// Returns `p50 2.1 ms, p90 3.4 ms, ..`.
fn latencies(histogram: &Histogram) -> String {
    let percentiles = PERCENTILES.iter();
    let percentiles =
        percentiles.map(|(name, per_mille)| (*name, histogram.percentile_us(*per_mille)));
    let all = percentiles.chain([("max", histogram.max_us())]);
    all.map(|(name, us)| format!("{name} {}", milliseconds(us))).collect::<Vec<_>>().join(", ")
}

/// Returns `2.1 ms`.
pub(super) fn milliseconds(us: Option<u64>) -> String {
    us.map_or_else(|| "-".to_owned(), |us| format!("{:.1} ms", to_ms(us)))
}

fn to_ms(us: u64) -> f64 {
    us as f64 / 1e3
}

#[cfg(test)]
mod tests {
    use super::super::tally::{Finished, Outcome};
    use super::*;

    fn answered(kind: Kind, status: u16, ms: u64) -> Finished {
        let outcome = Outcome::Answered { status, reason: None };
        Finished {
            kind,
            outcome,
            delay: Duration::from_millis(ms / 10),
            latency: Duration::from_millis(ms),
        }
    }

    fn report(all: Vec<Finished>) -> Report {
        let mut tally = Tally::default();
        all.into_iter().for_each(|finished| tally.record(finished));
        Report {
            edge: "http://127.0.0.1:8080".to_owned(),
            origin: "https://hooks.example.com".to_owned(),
            sid_prefix: "SM0123456789abcdef".to_owned(),
            rate: 50,
            elapsed: Duration::from_millis(2040),
            is_interrupted: false,
            tally,
        }
    }

    #[test]
    fn right_answers_pass() {
        let all = vec![
            answered(Kind::Status, 204, 2),
            answered(Kind::Inbound, 200, 4),
            answered(Kind::Repeat, 204, 1200),
            answered(Kind::Forged, 403, 900),
        ];
        let report = report(all);
        assert!(report.is_passed(), "{report:?}");
        let text = report.text();
        for expected in [
            "4 webhooks at 50/s in 2.0 s to http://127.0.0.1:8080, signed for https://hooks.example.com\n",
            "\nstatus          1  204: 1\n",
            "\nforged          1  403: 1\n",
            "\ngenuine with 2xx       100.00 % (3 of 3)\n",
            "\nforged with 403        1 of 1\n",
            "p50 4.0 ms, p90 1200.0 ms",
            "\nanswers after 1 s      1\n",
            "\nno answer within 15 s  0\n",
            "\nsent 0.1 s late        1\n",
        ] {
            assert!(text.contains(expected), "{expected} in {text}");
        }
        let json: Value = serde_json::from_str(&report.json()).unwrap();
        assert_eq!(json["passed"], true);
        assert_eq!(json["kinds"]["repeat"]["answers"]["204"], 1);
        assert_eq!(json["latency_ms"]["max"], 1200.0);
        assert_eq!(json["problems"], json!([]));
    }
}
