//! Metrics of outbound messages. Only senders with a configured rate are labels, because callers could create any number
//! of others.

use std::{collections::BTreeSet, sync::PoisonError, sync::RwLock, time::Duration};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
};

use super::catalogue::{Catalogue, Labels, Measure};
use twilio_edge_contract::Opt;
use twilio_edge_domain::refusal::RefusalCode;
use twilio_edge_domain::sending::backlog::MessageBacklog;
use twilio_edge_domain::sending::{
    call_failure::CallFailure, errors::FallbackTarget, rate_limit::Rate,
};

/// States of new replies to keywords.
const QUEUED: &str = "queued";
const REFUSED: &str = "refused";

const OUTCOMES: [&str; 4] = ["sent", "refused", "retried", "unknown"];

/// Results of checks of verifications, as labels.
const CHECKS: [&str; 8] = [
    "approved",
    "pending",
    "canceled",
    "expired",
    "max_attempts_reached",
    "ended",
    "refused",
    "unavailable",
];

/// Label of all other senders.
const OTHER: &str = "other";

/// Upper bounds in seconds: Twilio answers in a few tenths, and `sending.timeout_ms` is 15 s.
const CALL_BUCKETS: [f64; 10] = [0.05, 0.1, 0.2, 0.35, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0];

/// Outcomes of messages that Twilio accepted, as labels.
const DELIVERIES: [&str; 6] =
    ["delivered", "read", "failed", "undelivered", "canceled", "repeated"];

/// Channels that are labels; all others are `other`.
const CHANNELS: [&str; 5] = ["sms", "whatsapp", "rcs", "messenger", "email"];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DeliveryLabels {
    status: &'static str,
    code: String,
    channel: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SenderDeliveryLabels {
    sender: String,
    status: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SenderLabel {
    sender: String,
}

/// The series of outbound messages.
#[derive(Debug)]
pub struct MessageMetrics {
    outcomes: Family<Labels<1>, Counter>,
    refusals: Family<Labels<1>, Counter>,
    reconciled: Family<Labels<1>, Counter>,
    switched: Family<Labels<1>, Counter>,
    replies: Family<Labels<2>, Counter>,
    checks: Family<Labels<1>, Counter>,
    flows: Family<Labels<1>, Counter>,
    calls: Histogram,
    errors: Family<Labels<1>, Counter>,
    under_way: Gauge,
    allowed: Gauge,
    deliveries: Family<DeliveryLabels, Counter>,
    sender_deliveries: Family<SenderDeliveryLabels, Counter>,
    senders: Family<SenderLabel, Counter>,
    rates: Family<SenderLabel, Measure>,
    named: RwLock<BTreeSet<String>>,
    unknowns: Gauge,
    oldest: Measure,
}

impl MessageMetrics {
    pub(super) fn of(all: &mut Catalogue) -> MessageMetrics {
        MessageMetrics {
            outcomes: all.counters(
                "message_attempts",
                &["outcome"],
                "Attempts to send a message by outcome: `sent`, `refused` permanently, `retried` later, `unknown` (docs/SENDING.md)",
            ),
            refusals: all.counters(
                "message_refusals",
                &["code"],
                "Messages that a rule of the sidecar refused, on request or immediately before the call to Twilio, by the code of the rule",
            ),
            reconciled: all.counters(
                "messages_reconciled",
                &["by"],
                "Messages whose outcome was reconciled later: Twilio reported a status (`callback`), Twilio's list contains the message (`found`) or does not contain it, so it is sent again (`absent`), or Twilio returned the final status of a sent message without a callback (`status`)",
            ),
            switched: all.counters(
                "fallbacks",
                &["to"],
                "Replacements for messages that their channel did not accept: a `template`, a message on another `channel`, or an `email` (docs/SENDING.md)",
            ),
            replies: all.counters(
                "keyword_replies",
                &["keyword", "state"],
                "Replies to keywords, by keyword (`stop`, `start`, `help`) and state: `queued`, or `refused` by a rule (docs/COMPLIANCE.md)",
            ),
            checks: all.counters(
                "verification_checks",
                &["result"],
                "Checks and cancellations of verifications, by result: `approved`, `pending` (a wrong code), `canceled`, `expired`, `max_attempts_reached`, `ended` (the verification was over), `refused` by Twilio, or `unavailable` (no clear answer of Twilio) (docs/NOTIFICATIONS.md)",
            ),
            flows: all.counters(
                "flows_started",
                &["state"],
                "Executions of flows that inbound messages started, by state: `queued`, or `refused` by a rule (docs/STUDIO.md)",
            ),
            calls: all.histogram(
                "twilio_call_seconds",
                "Seconds per call of Twilio's REST API to create a message, successful or not",
                &CALL_BUCKETS,
            ),
            errors: all.counters(
                "twilio_errors",
                &["class"],
                "Calls that created no message, by class: `throttled` (429, 20429), `temporary` (a temporary error, retried), `operator`, `caller` and `recipient` (an error that this party must resolve), `other` (an unknown code), `server` (5xx or an invalid answer), `lost` (no answer), `not_connected`",
            ),
            under_way: all.gauge("twilio_calls_in_flight", "Calls of Twilio's REST API in progress in this sidecar"),
            allowed: all.gauge(
                "twilio_calls_allowed",
                "Concurrent calls of Twilio's REST API permitted for one account; the lowest limit of all accounts",
            ),
            deliveries: all.counters(
                "message_outcomes",
                &["status", "code", "channel"],
                "Messages that Twilio accepted, by reported status: `delivered`, `read`, `failed`, `undelivered`, `canceled`, or `repeated` after a failed delivery (docs/SENDING.md). `code` is a code of docs/ERRORS.md, `other`, or `none`",
            ),
            sender_deliveries: all.counters(
                "sender_outcomes",
                &["sender", "status"],
                "Messages that Twilio accepted, by sender with a configured rate and reported status: `delivered`, `read`, `failed`, `undelivered`, `canceled`, `repeated`; all other senders are `other`",
            ),
            senders: all.counters(
                "sender_messages",
                &["sender"],
                "Messages that Twilio accepted, by sender with a configured rate; all other senders are `other`",
            ),
            rates: all.add(
                "sender_rate",
                "gauge",
                &["sender"],
                "Messages per second that a sender may send, for all sidecars together; `other` is the rate of each other sender",
                Family::default(),
            ),
            named: RwLock::default(),
            unknowns: all.gauge(
                "messages_unknown",
                "Messages in state `unknown`: it is not known whether Twilio sent them",
            ),
            oldest: all.measure(
                "message_queue_age_seconds",
                "Seconds since the oldest waiting message should have been sent; it waits for its turn, for Twilio, or for the database",
            ),
        }
    }

    /// Creates every series with zero.
    pub(super) fn begin(&self) {
        for outcome in OUTCOMES {
            self.outcomes.get_or_create(&[("outcome", outcome)]).inc_by(0);
        }
        for to in FallbackTarget::ALL {
            self.switched.get_or_create(&[("to", to.as_str())]).inc_by(0);
        }
        for keyword in Opt::ALL {
            for state in [QUEUED, REFUSED] {
                let labels = [("keyword", keyword.as_str()), ("state", state)];
                self.replies.get_or_create(&labels).inc_by(0);
            }
        }
        for result in CHECKS {
            self.checks.get_or_create(&[("result", result)]).inc_by(0);
        }
        for state in [QUEUED, REFUSED] {
            self.flows.get_or_create(&[("state", state)]).inc_by(0);
        }
        for code in RefusalCode::of_send_rules() {
            self.refusals.get_or_create(&[("code", code.as_str())]).inc_by(0);
        }
        for class in CallFailure::ALL {
            self.errors.get_or_create(&[("class", class.as_str())]).inc_by(0);
        }
        for status in DELIVERIES {
            for channel in ["sms", "whatsapp", "email"] {
                let labels = DeliveryLabels { status, code: "none".to_owned(), channel };
                self.deliveries.get_or_create(&labels).inc_by(0);
            }
        }
        for by in ["callback", "found", "absent", "status"] {
            self.reconciled(by, 0);
        }
    }

    /// Sets the rates of these senders and of all others. From now on, only these senders are labels.
    pub fn name<'a>(&self, senders: impl Iterator<Item = (&'a str, Rate)>, usual: Rate) {
        let mut named = self.named.write().unwrap_or_else(PoisonError::into_inner);
        for (sender, rate) in senders.chain([(OTHER, usual)]) {
            let label = SenderLabel { sender: sender.to_owned() };
            self.senders.get_or_create(&label).inc_by(0);
            self.rates.get_or_create(&label).set(rate.as_per_second());
            for status in DELIVERIES {
                let labels = SenderDeliveryLabels { sender: sender.to_owned(), status };
                self.sender_deliveries.get_or_create(&labels).inc_by(0);
            }
            named.insert(sender.to_owned());
        }
    }

    /// Counts a check or a cancellation of a verification. Every result outside of the labels is `refused`.
    pub fn checked_code(&self, result: &str) {
        let label = CHECKS.into_iter().find(|label| *label == result).unwrap_or(REFUSED);
        self.checks.get_or_create(&[("result", label)]).inc();
    }

    /// Counts the reply to a keyword; a rule may have refused it.
    pub fn replied(&self, keyword: Opt, is_refused: bool) {
        let state = if is_refused { REFUSED } else { QUEUED };
        let labels = [("keyword", keyword.as_str()), ("state", state)];
        self.replies.get_or_create(&labels).inc();
    }

    /// Counts an execution of a flow that an inbound message started.
    pub fn flow_started(&self, is_refused: bool) {
        let state = if is_refused { REFUSED } else { QUEUED };
        self.flows.get_or_create(&[("state", state)]).inc();
    }

    /// Counts the outcome of an attempt.
    pub fn ended(&self, outcome: &'static str) {
        self.outcomes.get_or_create(&[("outcome", outcome)]).inc();
    }

    /// Counts a message of this sender that Twilio accepted.
    pub fn sent(&self, sender: &str) {
        self.senders.get_or_create(&SenderLabel { sender: self.sender_label(sender) }).inc();
    }

    fn sender_label(&self, sender: &str) -> String {
        let is_named = self.named.read().unwrap_or_else(PoisonError::into_inner).contains(sender);
        let sender = if is_named { sender } else { OTHER };
        sender.to_owned()
    }

    /// Counts the outcome of a message that Twilio accepted. `code` is a label of the error table.
    pub fn outcome(&self, status: &str, code: &str, channel: &str, sender: &str) {
        let Some(status) = DELIVERIES.into_iter().find(|known| *known == status) else { return };
        let channel = CHANNELS.into_iter().find(|known| *known == channel).unwrap_or(OTHER);
        let labels = DeliveryLabels { status, code: code.to_owned(), channel };
        self.deliveries.get_or_create(&labels).inc();
        let labels = SenderDeliveryLabels { sender: self.sender_label(sender), status };
        self.sender_deliveries.get_or_create(&labels).inc();
    }

    /// Counts a message that a rule refused.
    pub fn refused(&self, code: RefusalCode) {
        self.refusals.get_or_create(&[("code", code.as_str())]).inc();
    }

    /// Counts attempts whose sidecar died.
    pub fn unknown(&self, count: u64) {
        self.outcomes.get_or_create(&[("outcome", "unknown")]).inc_by(count);
    }

    /// Counts messages whose outcome was reconciled, by source.
    pub fn reconciled(&self, by: &'static str, count: u64) {
        self.reconciled.get_or_create(&[("by", by)]).inc_by(count);
    }

    /// Counts a message that a fallback replaced.
    pub fn switched(&self, to: FallbackTarget) {
        self.switched.get_or_create(&[("to", to.as_str())]).inc();
    }

    /// Records an API call: its duration, and the class of its failure.
    pub fn called(&self, took: Duration, failing: Option<CallFailure>) {
        self.calls.observe(took.as_secs_f64());
        if let Some(failing) = failing {
            self.errors.get_or_create(&[("class", failing.as_str())]).inc();
        }
    }

    /// Sets the number of calls in progress, and the limit for one account.
    pub fn calling(&self, under_way: usize, allowed: usize) {
        let whole = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.under_way.set(whole(under_way));
        self.allowed.set(whole(allowed));
    }

    /// Returns the number of unknown messages, and the seconds since the oldest waiting one should have been sent.
    pub fn backlog(&self) -> (i64, f64) {
        (self.unknowns.get(), self.oldest.get())
    }

    /// Sets the number of unknown messages, and the age of the oldest due one.
    pub fn stand(&self, standing: &MessageBacklog, now_ms: i64) {
        self.unknowns.set(standing.unknowns);
        let since = match standing.oldest_due_ms {
            0 => 0,
            due_ms => now_ms.saturating_sub(due_ms).max(0),
        };
        self.oldest
            .set(Duration::from_millis(u64::try_from(since).unwrap_or_default()).as_secs_f64());
    }
}
