//! The metrics of the filter: a closed list, defined once per VM. Input never names a metric.
//!
//! In Envoy's `/stats` they are `wasmcustom.<name>`, in Prometheus `<name>` with `_` for every other
//! character; the tag extraction in `envoy/envoy.yaml` turns the last word into a label. docs/METRICS.md lists
//! them all.

#[cfg(not(target_arch = "wasm32"))]
use std::collections::BTreeMap;

use twilio_edge_contract::{Decision, Outcome, SettlementResult};

use crate::keys::KeySlot;
use crate::reply::Reason;

/// Counter of the native module alone: panics of its hooks. Envoy itself counts the traps of the wasm filter.
#[cfg(not(target_arch = "wasm32"))]
pub const HOOK_PANICS: &str = "twilio_edge.hook_panics";

/// Counters of the filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Counter {
    /// A request on a guarded route.
    Webhook,
    /// A request that passed on a route the filter does not guard.
    Passed,
    /// A request from which headers were removed that only the filter may set.
    Forged,
    /// A request on a guarded route from which headers were removed that override the method, the path or the framing.
    Overridden,
    /// A request whose signature and shape were proven.
    Verified,
    /// The key of the account that signed a proven request.
    Matched(KeySlot),
    /// A refusal.
    Rejected(Reason),
    /// A request that would have been refused if its route were not in shadow mode.
    Shadowed(Reason),
    /// A verdict of the sidecar.
    Verdict(Decision),
    /// A repeat that the worker answered or held by itself, because it has its first copy in flight or settled it lately.
    RepeatAnswered,
    /// A claim without a verdict, for which the policy decided.
    NoVerdict,
    /// A settlement handed to the outbox.
    Settled(Outcome),
    /// Result of a settlement, as reported by the sidecar.
    Settlement(SettlementResult),
    /// A dropped settlement: the outbox was full, or the sidecar was unavailable for too long. Its lease expires.
    SettlementDropped,
    /// A claims callout that failed.
    ClaimsFailed,
    /// A settlements callout that failed; the filter retries it.
    SettlementsFailed,
    /// A response delivered before its release was acknowledged, because that took too long.
    ReleaseUnacknowledged,
    /// A possible opt-out that was answered before the sidecar had acknowledged it.
    OptOutUnacknowledged,
    /// Result of a request for the accounts' keys.
    Refresh(Refresh),
    /// A refused request that was reported to the sidecar, or was not.
    Report(ReportResult),
}

/// Result of the report of a refused request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ReportResult {
    /// The sidecar received it.
    Sent,
    /// It is no part of the sample.
    Skipped,
    /// The callout failed.
    Lost,
}

/// Result of a request for the accounts' keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refresh {
    /// The sidecar returned new keys, which are now in use.
    Updated,
    /// The keys in use are the current ones.
    Unchanged,
    /// No usable answer: the last good keys stay in use.
    Failed,
}

/// Gauges of the filter. Envoy adds up the workers, so each worker reports the change of its own value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Gauge {
    /// Requests that wait for a verdict, and responses that wait for their release.
    Waiting,
    /// Settlements that have not been acknowledged.
    Outbox,
    /// Number that identifies the configuration and keys in use, as the last worker set it.
    Generation,
}

/// Histograms of the filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Histogram {
    /// Milliseconds from a claim to its verdict, of the claim that waited longest in each callout.
    ClaimMs,
    /// Claims in a callout.
    ClaimBatch,
}

impl Counter {
    /// Returns every counter.
    pub fn all() -> Vec<Self> {
        let mut all = vec![
            Counter::Webhook,
            Counter::Passed,
            Counter::Forged,
            Counter::Overridden,
            Counter::Verified,
            Counter::RepeatAnswered,
            Counter::NoVerdict,
            Counter::SettlementDropped,
            Counter::ClaimsFailed,
            Counter::SettlementsFailed,
            Counter::ReleaseUnacknowledged,
            Counter::OptOutUnacknowledged,
        ];
        all.extend(KeySlot::ALL.map(Counter::Matched));
        all.extend(Reason::ALL.map(Counter::Rejected));
        all.extend(Reason::ALL.map(Counter::Shadowed));
        all.extend(Decision::ALL.map(Counter::Verdict));
        all.extend(Outcome::ALL.map(Counter::Settled));
        all.extend(SettlementResult::ALL.map(Counter::Settlement));
        all.extend([Refresh::Updated, Refresh::Unchanged, Refresh::Failed].map(Counter::Refresh));
        let results = [ReportResult::Sent, ReportResult::Skipped, ReportResult::Lost];
        all.extend(results.map(Counter::Report));
        all
    }

    /// Returns the description of the counter, and the name of the label that distinguishes the members of its family.
    #[cfg(not(target_arch = "wasm32"))]
    fn meaning(self) -> (&'static str, &'static str) {
        match self {
            Counter::Webhook => ("", "requests on guarded routes"),
            Counter::Passed => ("", "requests on routes the filter does not guard"),
            Counter::Forged => (
                "",
                "requests from which headers or trailers were removed that only the filter may set",
            ),
            Counter::Overridden => (
                "",
                "requests on guarded routes from which headers were removed that override the method, the path or the framing",
            ),
            Counter::Verified => ("", "requests whose signature and shape were proven"),
            Counter::Matched(_) => (
                "slot",
                "slot of the account's key that signed a proven request: `next` increases when Twilio begins to sign with the new token, and `current` stops",
            ),
            Counter::Rejected(_) => ("reason", "refusals (docs/FAILURE-MODES.md)"),
            Counter::Shadowed(_) => {
                ("reason", "requests on routes in shadow mode that would have been refused")
            }
            Counter::Verdict(_) | Counter::NoVerdict => (
                "decision",
                "verdicts on claims; `none`: the sidecar gave none, and the route's policy decided",
            ),
            Counter::RepeatAnswered => (
                "",
                "verdicts `duplicate` and `in_flight` that a worker gave itself, because it has the first copy in flight or settled it within the last two minutes",
            ),
            Counter::Settled(_) => (
                "outcome",
                "settlements queued for the sidecar: `commit` if the backend accepted the webhook, `release` otherwise",
            ),
            Counter::Settlement(_) => {
                ("result", "results of settlements, as the sidecar reported them")
            }
            Counter::SettlementDropped => (
                "",
                "settlements dropped because the sidecar was unavailable for too long, or because the outbox was full; their leases expire",
            ),
            Counter::ClaimsFailed | Counter::SettlementsFailed => {
                ("callout", "callouts to the sidecar that failed; the filter retries settlements")
            }
            Counter::ReleaseUnacknowledged => (
                "",
                "responses delivered before the sidecar acknowledged their release, because that took more than 250 ms",
            ),
            Counter::OptOutUnacknowledged => (
                "",
                "possible opt-outs that were answered after 1 s without an acknowledgement of the sidecar: only the memory of this Envoy contains them",
            ),
            Counter::Refresh(_) => ("result", "results of requests to the sidecar for keys"),
            Counter::Report(_) => (
                "result",
                "refused requests by the result of their report to the sidecar: `skipped` ones are no part of the sample, `lost` ones did not arrive",
            ),
        }
    }

    /// Returns the family, and the label's value if the family has more than one member.
    fn family_and_value(self) -> (&'static str, Option<&'static str>) {
        match self {
            Counter::Webhook => ("webhooks", None),
            Counter::Passed => ("unguarded", None),
            Counter::Forged => ("forged_headers", None),
            Counter::Overridden => ("override_headers", None),
            Counter::Verified => ("verified", None),
            Counter::Matched(slot) => ("key_matches", Some(slot.as_str())),
            Counter::Rejected(reason) => ("rejected", Some(reason.slug())),
            Counter::Shadowed(reason) => ("shadowed", Some(reason.slug())),
            Counter::Verdict(decision) => ("verdict", Some(decision.as_str())),
            Counter::RepeatAnswered => ("repeats_answered", None),
            Counter::NoVerdict => ("verdict", Some("none")),
            Counter::Settled(outcome) => ("settlements", Some(outcome.as_str())),
            Counter::Settlement(result) => ("settlement_results", Some(result.as_str())),
            Counter::SettlementDropped => ("settlements_dropped", None),
            Counter::ClaimsFailed => ("callout_failed", Some("claims")),
            Counter::SettlementsFailed => ("callout_failed", Some("settlements")),
            Counter::ReleaseUnacknowledged => ("release_unacknowledged", None),
            Counter::OptOutUnacknowledged => ("opt_out_unacknowledged", None),
            Counter::Refresh(refresh) => {
                let refresh = match refresh {
                    Refresh::Updated => "updated",
                    Refresh::Unchanged => "unchanged",
                    Refresh::Failed => "failed",
                };
                ("keys_refresh", Some(refresh))
            }
            Counter::Report(result) => {
                let result = match result {
                    ReportResult::Sent => "sent",
                    ReportResult::Skipped => "skipped",
                    ReportResult::Lost => "lost",
                };
                ("refusal_reports", Some(result))
            }
        }
    }

    /// Returns the name of the counter.
    pub fn name(self) -> String {
        match self.family_and_value() {
            (family, None) => format!("twilio_edge.{family}"),
            (family, Some(value)) => format!("twilio_edge.{family}.{value}"),
        }
    }
}

impl Gauge {
    /// Every gauge there is.
    pub const ALL: [Gauge; 3] = [Gauge::Waiting, Gauge::Outbox, Gauge::Generation];

    /// Returns the name of the gauge.
    pub fn name(self) -> &'static str {
        match self {
            Gauge::Waiting => "twilio_edge.waiting",
            Gauge::Outbox => "twilio_edge.outbox",
            Gauge::Generation => "twilio_edge.generation",
        }
    }
}

#[cfg(not(target_arch = "wasm32"))]
impl Gauge {
    fn meaning(self) -> &'static str {
        match self {
            Gauge::Waiting => {
                "requests that wait for a body, a verdict or an acknowledgement, of all workers"
            }
            Gauge::Outbox => "settlements not yet acknowledged by the sidecar, of all workers",
            Gauge::Generation => {
                "number that identifies the configuration and keys in use, as the last worker set it"
            }
        }
    }
}

#[cfg(not(target_arch = "wasm32"))]
impl Histogram {
    fn meaning(self) -> &'static str {
        match self {
            Histogram::ClaimMs => {
                "milliseconds from claim to verdict, of the claim that waited longest in each callout"
            }
            Histogram::ClaimBatch => "claims in one callout",
        }
    }
}

impl Histogram {
    /// Every histogram there is.
    pub const ALL: [Histogram; 2] = [Histogram::ClaimMs, Histogram::ClaimBatch];

    /// Returns the name of the histogram.
    pub fn name(self) -> &'static str {
        match self {
            Histogram::ClaimMs => "twilio_edge.claim_ms",
            Histogram::ClaimBatch => "twilio_edge.claim_batch",
        }
    }
}

/// Returns all metrics as a table in Markdown, as Prometheus shows them with the shipped Envoy configuration.
#[cfg(not(target_arch = "wasm32"))]
pub fn reference() -> String {
    let mut rows: BTreeMap<(&str, &str), (&str, Vec<&str>)> = BTreeMap::new();
    for counter in Counter::all() {
        let (family, word) = counter.family_and_value();
        let (label, meaning) = counter.meaning();
        let row = rows.entry((family, label)).or_insert((meaning, Vec::new()));
        row.1.extend(word);
    }
    let mut table = String::from("| metric | kind | meaning |\n|---|---|---|\n");
    for ((family, label), (meaning, words)) in rows {
        let name = match label {
            "" => format!("`twilio_edge_{family}`"),
            label => format!("`twilio_edge_{family}{{{label}=\"..\"}}`"),
        };
        let words = match family {
            "rejected" | "shadowed" => Vec::new(),
            _ => words,
        };
        let words: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
        let words =
            if words.is_empty() { String::new() } else { format!(": {}", words.join(", ")) };
        table.push_str(&format!("| {name} | counter | {meaning}{words} |\n"));
    }
    let gauges = Gauge::ALL.map(|gauge| (gauge.name(), "gauge", gauge.meaning()));
    let histograms = Histogram::ALL.map(|it| (it.name(), "histogram", it.meaning()));
    let panics = "panics of hooks of the native module, which answers 500 then; the wasm filter does not have this counter";
    let panics = std::iter::once((HOOK_PANICS, "counter", panics));
    for (name, kind, meaning) in gauges.into_iter().chain(histograms).chain(panics) {
        table.push_str(&format!("| `{}` | {kind} | {meaning} |\n", name.replace('.', "_")));
    }
    table
}

/// Counts since the last report. A call of the host costs more than counting, so the filter reports on the tick.
#[derive(Debug, Default)]
pub struct Tally(Vec<(Counter, u64)>);

impl Tally {
    /// Increments the counter.
    pub fn count(&mut self, counter: Counter) {
        match self.0.iter_mut().find(|(counted, _)| *counted == counter) {
            Some((_, count)) => *count += 1,
            None => self.0.push((counter, 1)),
        }
    }

    /// Returns all counts and resets them.
    pub fn take(&mut self) -> impl Iterator<Item = (Counter, u64)> {
        std::mem::take(&mut self.0).into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn metric_names_are_unique() {
        let counters = Counter::all().into_iter().map(Counter::name);
        let gauges = Gauge::ALL.map(|gauge| gauge.name().to_owned());
        let histograms = Histogram::ALL.map(|histogram| histogram.name().to_owned());
        let names: Vec<_> = counters.chain(gauges).chain(histograms).collect();
        let different: BTreeSet<_> = names.iter().collect();
        assert_eq!(names.len(), different.len());
    }

    #[test]
    fn document_contains_the_printed_table() {
        let document = include_str!("../docs/METRICS.md");
        let hint = "docs/METRICS.md: insert the output of `twilio-edge reference metrics`";
        assert!(document.contains(&reference()), "{hint}");
    }

    #[test]
    fn envoy_configuration_extracts_a_label_from_each_family() {
        let config = include_str!("../envoy/envoy.yaml");
        for counter in Counter::all() {
            let (family, word) = counter.family_and_value();
            let (label, _) = counter.meaning();
            assert_eq!(word.is_some(), !label.is_empty(), "{family}");
            let tag = config.lines().find(|line| {
                line.contains(&format!("tag_name: {label},")) && line.contains(family)
            });
            assert!(label.is_empty() || tag.is_some(), "{family} has no tag {label}");
        }
    }

    #[test]
    fn counts_are_reported_once() {
        let mut tally = Tally::default();
        tally.count(Counter::Webhook);
        tally.count(Counter::Verified);
        tally.count(Counter::Webhook);
        let counts: Vec<_> = tally.take().collect();
        assert_eq!(counts, [(Counter::Webhook, 2), (Counter::Verified, 1)]);
        assert_eq!(tally.take().count(), 0);
    }
}
