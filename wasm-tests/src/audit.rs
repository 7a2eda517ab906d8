//! Audit of a run for lost webhooks. It compares the records of every participant: the answers that Twilio received, the
//! ledger, the contents of each sink, and the requests that the backend received. Pure: no process, no clock.
//!
//! The rules, for every webhook with a copy that was answered 2xx:
//!
//! - by accept delivery: the ledger has it as accepted, no delivery of it is pending, and every sink has it, unchanged;
//! - by forward delivery: the backend accepted it, and the ledger has it;
//! - once its commit is in the ledger, no later copy of it reaches the backend, unless marked `unknown`;
//! - the events of one number are in each log of each sink in the order in which the ledger recorded them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// The component that delivers a webhook to its application.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// The sidecar delivers it.
    Accept,
    /// Envoy delivers it.
    Forward {
        /// It is also forwarded when no sidecar gave a verdict.
        without_verdict: bool,
    },
}

/// One webhook, as Twilio sent it.
#[derive(Debug, Clone)]
pub struct Webhook {
    /// Its dedupe key, which is also the `event_id` of the events published about it.
    pub key: String,
    /// Phone number of the contact that it is about.
    pub number: String,
    /// Its content: the text of a message, the status of a callback.
    pub text: String,
    /// Delivery of the route on which it came.
    pub delivery: Delivery,
    /// Every request that carried it, copies and retries alike.
    pub calls: Vec<Call>,
}

/// One request from Twilio.
#[derive(Debug, Clone)]
pub struct Call {
    /// Unique id of the request, which the backend sees too.
    pub case: String,
    /// In milliseconds since 1970.
    pub sent_ms: i64,
    /// Time of the answer, or of the end of the wait for one.
    pub ended_ms: i64,
    /// Status that Twilio received; none without an answer.
    pub status: Option<u16>,
}

impl Webhook {
    /// Returns the first copy that was answered 2xx.
    fn answered(&self) -> Option<&Call> {
        let mut calls = self.calls.iter();
        calls.find(|call| call.status.is_some_and(|status| (200..300).contains(&status)))
    }
}

/// Ledger row of one webhook.
#[derive(Debug, Clone, Default)]
pub struct Event {
    /// `accepted` or `refused`.
    pub outcome: Option<String>,
    /// Time of that outcome, in milliseconds since 1970.
    pub settled_ms: Option<i64>,
}

/// Outbox row of one delivery.
#[derive(Debug, Clone)]
pub struct OutboxRow {
    /// Name of the sink.
    pub sink: String,
    /// Dedupe key of the webhook.
    pub key: String,
    /// Sequence number in which it was recorded.
    pub seq: i64,
    /// `waiting`, `done`, `dead` or `discarded`.
    pub state: String,
}

/// Record of a sink.
#[derive(Debug, Clone)]
pub struct Arrival {
    /// The `event_id`.
    pub key: String,
    /// Phone number that it is about, from the key of the record or from the event.
    pub number: String,
    /// See [`Webhook::text`].
    pub text: String,
}

/// Request that the backend received.
#[derive(Debug, Clone)]
pub struct BackendRequest {
    /// Dedupe key of the webhook.
    pub key: String,
    /// Id of the request.
    pub case: String,
    /// True if the backend accepted it.
    pub is_accepted: bool,
    /// True if it was marked `unknown`: no verdict said whether the backend already has it.
    pub unknown: bool,
}

/// Records of all participants.
#[derive(Debug, Clone, Default)]
pub struct Evidence {
    /// Webhooks that Twilio sent.
    pub webhooks: Vec<Webhook>,
    /// The ledger, by dedupe key.
    pub ledger: BTreeMap<String, Event>,
    /// The outbox.
    pub outbox: Vec<OutboxRow>,
    /// Contents of each sink, by the names of sink and log. A log has an order: a partition, a stream.
    pub sinks: BTreeMap<String, BTreeMap<String, Vec<Arrival>>>,
    /// Requests that the backend received.
    pub backend_requests: Vec<BackendRequest>,
    /// Times at which Envoy was killed. Settlements that it had not sent were lost then.
    pub edge_killed_ms: Vec<i64>,
    /// Longest time from the timestamp of a settlement until it is in effect, and until it is sent at all, in milliseconds.
    pub slack_ms: i64,
}

/// Violation of a rule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Loss {
    /// Answered 2xx, but not in the ledger.
    NotInLedger(String),
    /// Answered 2xx, but not accepted in the ledger.
    NotSettled(String),
    /// Answered 2xx, but the outbox never had a delivery to this sink.
    NotInOutbox(String, String),
    /// Answered 2xx, but at the end of the run the delivery to this sink is still in this state.
    NotDone(String, String, String),
    /// Answered 2xx, but not in this sink.
    NotInSink(String, String),
    /// In this sink with another text or another number than was sent.
    Changed(String, String),
    /// In this sink, but never sent.
    NeverSent(String, String),
    /// The webhooks of one kind of a number are in more than one log of this sink, so they have no order.
    Scattered(String, String),
    /// In this log the second came before the first, which was recorded earlier.
    OutOfOrder(String, String, String),
    /// Answered 2xx, but the backend never accepted it.
    NotAtBackend(String),
    /// The backend received it in this request, which was sent after the commit.
    TwiceAfterCommit(String, String),
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotInLedger(key) => write!(f, "{key}: answered 2xx, not in the ledger"),
            Self::NotSettled(key) => write!(f, "{key}: answered 2xx, not accepted in the ledger"),
            Self::NotInOutbox(key, sink) => {
                write!(f, "{key}: answered 2xx, never in the outbox for {sink}")
            }
            Self::NotDone(key, sink, state) => {
                write!(f, "{key}: answered 2xx, still {state} for {sink}")
            }
            Self::NotInSink(key, sink) => write!(f, "{key}: answered 2xx, missing in {sink}"),
            Self::Changed(key, sink) => write!(f, "{key}: changed in {sink}"),
            Self::NeverSent(key, sink) => write!(f, "{key}: never sent, in {sink}"),
            Self::Scattered(number, sink) => write!(f, "{number}: in more than one log of {sink}"),
            Self::OutOfOrder(first, second, log) => {
                write!(f, "{first}: recorded before {second}, but after it in {log}")
            }
            Self::NotAtBackend(key) => {
                write!(f, "{key}: answered 2xx, the backend never accepted it")
            }
            Self::TwiceAfterCommit(key, case) => {
                write!(f, "{key}: committed, and the backend received it again ({case})")
            }
        }
    }
}

/// Result of the audit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Finding {
    /// Violations, each once.
    pub losses: BTreeSet<Loss>,
    /// Number of webhooks with a copy that was answered 2xx.
    pub answered: usize,
    /// Repeated deliveries, by sink: delivery is at least once.
    pub repeated: BTreeMap<String, usize>,
    /// Number of times the backend received a webhook again that it had accepted, before its commit.
    pub repeated_before_commit: usize,
    /// Number of times the backend received a committed webhook again, marked `unknown`.
    pub repeated_unknown: usize,
    /// Forwarded webhooks whose outcome was lost with a killed Envoy: their next copy would be forwarded again.
    pub unsettled_by_kill: usize,
}

/// Audits the records.
pub fn audit(evidence: &Evidence) -> Finding {
    let mut finding = Finding::default();
    let index = Index::new(evidence);
    let mut present = BTreeMap::new();
    for (sink, logs) in &evidence.sinks {
        let (has, repeated) = index.read(sink, logs, &mut finding.losses);
        finding.repeated.insert(sink.clone(), repeated);
        present.insert(sink.as_str(), has);
    }
    for outbox in evidence.outbox.iter().filter(|outbox| outbox.state == "done") {
        if !present.get(outbox.sink.as_str()).is_some_and(|has| has.contains(outbox.key.as_str())) {
            finding.losses.insert(Loss::NotInSink(outbox.key.clone(), outbox.sink.clone()));
        }
    }
    for one in &evidence.backend_requests {
        let delivery = index.sent.get(one.key.as_str()).map(|webhook| webhook.delivery);
        if !matches!(delivery, Some(Delivery::Forward { .. })) {
            finding.losses.insert(Loss::NeverSent(one.key.clone(), "the backend".to_owned()));
        }
    }
    for webhook in &evidence.webhooks {
        finding.answered += usize::from(webhook.answered().is_some());
        match webhook.delivery {
            Delivery::Accept => index.accepted(webhook, &present, &mut finding.losses),
            Delivery::Forward { without_verdict } => {
                index.forwarded(webhook, without_verdict, &mut finding)
            }
        }
    }
    finding
}

/// The records, indexed by webhook.
struct Index<'a> {
    evidence: &'a Evidence,
    sent: BTreeMap<&'a str, &'a Webhook>,
    outbox: BTreeMap<(&'a str, &'a str), &'a OutboxRow>,
    backend_requests: BTreeMap<&'a str, Vec<&'a BackendRequest>>,
}

impl<'a> Index<'a> {
    fn new(evidence: &'a Evidence) -> Self {
        let sent = evidence.webhooks.iter().map(|webhook| (webhook.key.as_str(), webhook));
        let outbox = evidence
            .outbox
            .iter()
            .map(|outbox| ((outbox.sink.as_str(), outbox.key.as_str()), outbox));
        let mut backend_requests: BTreeMap<&str, Vec<&BackendRequest>> = BTreeMap::new();
        for one in &evidence.backend_requests {
            backend_requests.entry(&one.key).or_default().push(one);
        }
        Self { evidence, sent: sent.collect(), outbox: outbox.collect(), backend_requests }
    }

    /// Reads the contents of a sink, counts repeats, and reports records that are wrong or unknown.
    fn read(
        &self,
        sink: &str,
        logs: &'a BTreeMap<String, Vec<Arrival>>,
        losses: &mut BTreeSet<Loss>,
    ) -> (BTreeSet<&'a str>, usize) {
        let (mut has, mut repeated) = (BTreeSet::new(), 0);
        let mut places: BTreeMap<(&str, &str), &str> = BTreeMap::new();
        for (log, arrivals) in logs {
            let mut latest: BTreeMap<&str, &OutboxRow> = BTreeMap::new();
            for arrival in arrivals {
                let key = arrival.key.as_str();
                let Some(webhook) = self.sent.get(key) else {
                    losses.insert(Loss::NeverSent(key.to_owned(), sink.to_owned()));
                    continue;
                };
                if (&webhook.text, &webhook.number) != (&arrival.text, &arrival.number) {
                    losses.insert(Loss::Changed(key.to_owned(), sink.to_owned()));
                }
                let class = key.split(':').next().unwrap_or_default();
                if *places.entry((class, &webhook.number)).or_insert(log) != log {
                    losses.insert(Loss::Scattered(webhook.number.clone(), sink.to_owned()));
                }
                if !has.insert(key) {
                    repeated += 1;
                    continue;
                }
                let Some(outbox) = self.outbox.get(&(sink, key)) else { continue };
                let last = latest.entry(&webhook.number).or_insert(outbox);
                if last.seq > outbox.seq {
                    let log = format!("{sink} {log}");
                    losses.insert(Loss::OutOfOrder(outbox.key.clone(), last.key.clone(), log));
                } else {
                    *last = outbox;
                }
            }
        }
        (has, repeated)
    }

    fn accepted(
        &self,
        webhook: &Webhook,
        present: &BTreeMap<&str, BTreeSet<&str>>,
        losses: &mut BTreeSet<Loss>,
    ) {
        if webhook.answered().is_none() {
            return;
        }
        let key = webhook.key.as_str();
        match self.evidence.ledger.get(key) {
            None => losses.insert(Loss::NotInLedger(key.to_owned())),
            Some(event) if !event.is_accepted() => losses.insert(Loss::NotSettled(key.to_owned())),
            Some(_) => false,
        };
        for (sink, has) in present {
            let named = || (key.to_owned(), (*sink).to_owned());
            if !has.contains(key) {
                let (key, sink) = named();
                losses.insert(Loss::NotInSink(key, sink));
            }
            let (of, to) = named();
            match self.outbox.get(&(*sink, key)) {
                None => losses.insert(Loss::NotInOutbox(of, to)),
                Some(outbox) if outbox.state != "done" => {
                    losses.insert(Loss::NotDone(of, to, outbox.state.clone()))
                }
                Some(_) => false,
            };
        }
    }

    fn forwarded(&self, webhook: &Webhook, without_verdict: bool, finding: &mut Finding) {
        let key = webhook.key.as_str();
        let backend_requests =
            self.backend_requests.get(key).map(Vec::as_slice).unwrap_or_default();
        let event = self.evidence.ledger.get(key);
        if let Some(answered) = webhook.answered() {
            if !backend_requests.iter().any(|one| one.is_accepted) {
                finding.losses.insert(Loss::NotAtBackend(key.to_owned()));
            }
            // Without a verdict only the settlement reports that the webhook came; the outcome is only in the settlement
            // anyway.
            let unclaimed = without_verdict && backend_requests.iter().all(|one| one.unknown);
            let loss = match event {
                None if unclaimed => Some((Loss::NotInLedger(key.to_owned()), true)),
                None => Some((Loss::NotInLedger(key.to_owned()), false)),
                Some(event) if !event.is_accepted() => {
                    Some((Loss::NotSettled(key.to_owned()), true))
                }
                Some(_) => None,
            };
            let settled_by = answered.ended_ms.saturating_add(self.evidence.slack_ms);
            let mut kills = self.evidence.edge_killed_ms.iter();
            let died = kills.any(|at| (answered.sent_ms..=settled_by).contains(at));
            match loss {
                Some((_, true)) if died => finding.unsettled_by_kill += 1,
                Some((loss, _)) => {
                    finding.losses.insert(loss);
                }
                None => {}
            }
        }
        let committed =
            event.filter(|event| event.is_accepted()).and_then(|event| event.settled_ms);
        let counts_from = committed.map(|at| at.saturating_add(self.evidence.slack_ms));
        let mut before = 0;
        for one in backend_requests {
            let call = webhook.calls.iter().find(|call| call.case == one.case);
            let late = call.zip(counts_from).is_some_and(|(call, from)| call.sent_ms > from);
            match (late, one.unknown && without_verdict) {
                (true, true) => finding.repeated_unknown += 1,
                (true, false) => {
                    let loss = Loss::TwiceAfterCommit(key.to_owned(), one.case.clone());
                    finding.losses.insert(loss);
                }
                (false, _) => before += usize::from(one.is_accepted),
            }
        }
        finding.repeated_before_commit += before.saturating_sub(1);
    }
}

impl Event {
    fn is_accepted(&self) -> bool {
        self.outcome.as_deref() == Some("accepted")
    }
}

#[cfg(test)]
mod tests;
