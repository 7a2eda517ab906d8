//! The failure table of docs/FAILURE-MODES.md as data: the behaviour while a part is unavailable. Each cell is a value with
//! a sentence, which the document contains, and a meaning, which a scenario asserts on the real parts
//! (`tests/e2e/failures.rs`). So document and test cannot differ. This module has the types, [`table`] the cells.

mod kind;
pub mod table;

use std::fmt::Write as _;

use twilio_edge_contract::Delivery;

use self::kind::delivery_word;
pub use self::kind::{Class, Kind, Policy};
use crate::dependencies::Sink;
use crate::stack::SidecarPlan;

/// Answer that Twilio receives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TwilioAnswer {
    /// The answer of the application.
    Application,
    /// An immediate answer without content.
    Accepted,
    /// A refusal, because there is no verdict.
    Refusal,
    /// An error, because the application is unavailable.
    EnvoyError,
}

impl TwilioAnswer {
    fn sentence(self) -> &'static str {
        match self {
            TwilioAnswer::Application => "the application's answer",
            TwilioAnswer::Accepted => "200 with an empty `<Response/>` at once, 204 for a status",
            TwilioAnswer::Refusal => "503 `sidecar-unavailable` with Retry-After",
            TwilioAnswer::EnvoyError => "503 of Envoy",
        }
    }
}

/// Result at the application during the outage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackendReceipt {
    /// The webhook, marked as new.
    First,
    /// The webhook, marked as unknown.
    Unknown,
    /// The event, from the sidecar.
    Event,
    /// Nothing, not a byte.
    Nothing,
}

impl BackendReceipt {
    fn sentence(self) -> &'static str {
        match self {
            BackendReceipt::First => "the webhook, `dedupe: first`",
            BackendReceipt::Unknown => "the webhook, `dedupe: unknown`",
            BackendReceipt::Event => "the event, from the sidecar",
            BackendReceipt::Nothing => "nothing",
        }
    }
}

/// Place where the webhook is stored during the outage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Storage {
    /// In the ledger, as accepted by the application.
    Accepted,
    /// In the ledger, as refused by it.
    Refused,
    /// In the ledger, with a pending delivery to this sink; every other sink has it.
    PendingDelivery(Sink),
    /// In the ledger, and every sink has it.
    Delivered,
    /// In the ledger, as accepted by the application, and queued for the archive.
    AcceptedUnarchived,
    /// In the ledger, every sink has it, and queued for the archive.
    DeliveredUnarchived,
    /// In the filter's memory: its outcome and its form.
    FilterMemory,
    /// In the sidecar's spool, until the database accepts it.
    Spool,
    /// Nowhere: it is proven and forwarded, and never stored.
    Nowhere,
}

impl Storage {
    fn sentence(self) -> String {
        match self {
            Storage::Accepted => "in the ledger: accepted".to_owned(),
            Storage::Refused => "in the ledger: refused".to_owned(),
            Storage::PendingDelivery(sink) => {
                format!("in the ledger: delivery to {} pending", sink_word(sink))
            }
            Storage::Delivered => "in the ledger: delivered".to_owned(),
            Storage::AcceptedUnarchived => "in the ledger: accepted, not archived".to_owned(),
            Storage::DeliveredUnarchived => "in the ledger: delivered, not archived".to_owned(),
            Storage::FilterMemory => "in the filter's memory: form and outcome".to_owned(),
            Storage::Spool => "in the sidecar's spool".to_owned(),
            Storage::Nowhere => "not stored".to_owned(),
        }
    }
}

fn sink_word(sink: Sink) -> &'static str {
    match sink {
        Sink::App => "the application",
        Sink::Bus => "Kafka",
        Sink::Live => "the Redis stream",
    }
}

/// Result when the part is available again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recovery {
    /// Nothing changes: a copy is a duplicate.
    Unchanged,
    /// The ledger stores that the application accepted it: a copy is a duplicate.
    CommitStored,
    /// The ledger stores that it was not accepted: a copy is delivered by the component that delivers.
    CopyDelivered,
    /// The pending deliveries are completed, once; a copy is a duplicate.
    DeliveryCompleted,
    /// It is archived; a copy is a duplicate.
    Archived,
    /// A copy reaches the application like any other.
    CopyForwarded,
}

impl Recovery {
    fn sentence(self) -> &'static str {
        match self {
            Recovery::Unchanged => "nothing changes; a copy is a duplicate",
            Recovery::CommitStored => "the ledger stores the commit; a copy is a duplicate",
            Recovery::CopyDelivered => "the ledger stores the release; a copy is delivered",
            Recovery::DeliveryCompleted => "the sidecar delivers it, once; a copy is a duplicate",
            Recovery::Archived => "the sidecar archives it; a copy is a duplicate",
            Recovery::CopyForwarded => "a copy is forwarded too",
        }
    }
}

/// Process that exports a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exporter {
    /// Envoy, with the filter in it.
    Envoy,
    /// The sidecar.
    Sidecar,
}

/// A metric series that shows the outage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signal {
    /// The process that exports it.
    pub exporter: Exporter,
    /// Its name and labels, as Prometheus has them.
    pub series: &'static str,
    /// Its expected behaviour.
    pub change: Change,
}

/// Expected behaviour of a series.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It is a counter, and this webhook increments it.
    Rises,
    /// It is above 0 while the part is unavailable.
    Positive,
    /// It is 1 while the part is unavailable, and 0 before and after.
    IsOne,
}

impl Signal {
    /// Creates a counter of Envoy.
    pub const fn envoy(series: &'static str) -> Self {
        Self { exporter: Exporter::Envoy, series, change: Change::Rises }
    }

    /// Creates a counter of the sidecar.
    pub const fn sidecar(series: &'static str) -> Self {
        Self { exporter: Exporter::Sidecar, series, change: Change::Rises }
    }

    /// Creates a gauge of the sidecar that is 1.
    pub const fn state(series: &'static str) -> Self {
        Self { exporter: Exporter::Sidecar, series, change: Change::IsOne }
    }

    /// Creates a gauge of the sidecar that is not 0.
    pub const fn amount(series: &'static str) -> Self {
        Self { exporter: Exporter::Sidecar, series, change: Change::Positive }
    }

    fn sentence(self) -> String {
        let Self { exporter, series, change } = self;
        let exporter = match exporter {
            Exporter::Envoy => "Envoy",
            Exporter::Sidecar => "sidecar",
        };
        let change = match change {
            Change::Rises => "rises",
            Change::Positive => "> 0",
            Change::IsOne => "is 1",
        };
        format!("{exporter}: `{series}` {change}")
    }
}

/// One row of the table: kinds of webhooks, and the behaviour of each of them.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// Classes of the webhooks.
    pub classes: &'static [Class],
    /// The component that delivers them.
    pub delivery: Delivery,
    /// Policies of their routes for a missing verdict.
    pub policies: &'static [Policy],
    /// Answer that Twilio receives.
    pub answer: TwilioAnswer,
    /// Result at the application.
    pub receipt: BackendReceipt,
    /// Place where the webhook is stored.
    pub storage: Storage,
    /// Metrics that show it.
    pub signals: &'static [Signal],
    /// Result when the part is available again.
    pub recovery: Recovery,
}

impl Row {
    fn covers(&self, kind: Kind) -> bool {
        self.classes.contains(&kind.class)
            && self.delivery == kind.delivery
            && self.policies.contains(&kind.policy)
    }

    fn sentence(&self) -> String {
        let classes: Vec<_> = self.classes.iter().map(|class| class.word()).collect();
        let policy = match self.policies {
            [one] => one.word(),
            _ => "either",
        };
        let (delivery, policy) = match self.classes {
            [Class::Other] => ("forward", "-"),
            _ => (delivery_word(self.delivery), policy),
        };
        let signals: Vec<_> = self.signals.iter().map(|signal| signal.sentence()).collect();
        format!(
            "| {} | {delivery} | {policy} | {} | {} | {} | {} | {} |\n",
            classes.join(", "),
            self.answer.sentence(),
            self.receipt.sentence(),
            self.storage.sentence(),
            signals.join("; "),
            self.recovery.sentence(),
        )
    }
}

/// Behaviour for an outbound message (`POST /v1/messages`).
#[derive(Debug, Clone, Copy)]
pub struct OutboundBehaviour {
    /// Status that the caller receives; none if there is no answer.
    pub status: Option<u16>,
    /// True if Twilio receives the message during the outage.
    pub is_sent: bool,
    /// Metrics that show it.
    pub signals: &'static [Signal],
}

impl OutboundBehaviour {
    fn sentence(&self, title: &str) -> String {
        let answer = match self.status {
            Some(202) => "202".to_owned(),
            Some(status) => format!("{status} with Retry-After"),
            None => "connection refused".to_owned(),
        };
        let (twilio, stored, recovery) = match (self.status, self.is_sent) {
            (Some(202), true) => ("the message", "the message, `sent`", "nothing changes"),
            (Some(202), false) => {
                ("nothing", "the message, `queued`", "the sidecar sends it, once")
            }
            _ => (
                "nothing",
                "nothing",
                "the caller repeats the request, with the same Idempotency-Key",
            ),
        };
        let signals: Vec<_> = self.signals.iter().map(|signal| signal.sentence()).collect();
        let signals = signals.join("; ");
        format!("| {title} | {answer} | {twilio} | {stored} | {signals} | {recovery} |\n")
    }
}

/// Part that can be unavailable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Every part is available.
    None,
    /// The backend, which is a sink as well.
    Application,
    /// The sidecar.
    Sidecar,
    /// Redis.
    Redis,
    /// PostgreSQL.
    Postgres,
    /// The lock of the SQLite file.
    Sqlite,
    /// Kafka.
    Kafka,
    /// The archive of webhooks.
    ObjectStore,
    /// Twilio's REST API.
    Twilio,
}

impl Part {
    /// Returns the display name.
    pub fn name(self) -> &'static str {
        match self {
            Part::None => "no part",
            Part::Application => "the application",
            Part::Sidecar => "the sidecar",
            Part::Redis => "Redis",
            Part::Postgres => "PostgreSQL",
            Part::Sqlite => "SQLite's lock",
            Part::Kafka => "Kafka",
            Part::ObjectStore => "the object store",
            Part::Twilio => "Twilio's REST API",
        }
    }
}

/// Unavailability of one part.
#[derive(Debug)]
pub struct Outage {
    /// The unavailable part.
    pub part: Part,
    /// Title of its table.
    pub title: &'static str,
    /// Text beside the table.
    pub note: &'static str,
    /// Stores on which the scenarios run.
    pub stores: &'static [SidecarPlan],
    /// Sinks of accepted webhooks.
    pub sinks: &'static [Sink],
    /// Rows of the table; every kind of webhook is in exactly one.
    pub rows: &'static [Row],
    /// Behaviour for outbound messages.
    pub outbound: OutboundBehaviour,
}

impl Outage {
    /// Returns the row of a kind of webhook.
    pub fn row(&self, kind: Kind) -> Option<&Row> {
        self.rows.iter().find(|row| row.covers(kind))
    }
}

/// Returns all tables as Markdown.
pub fn reference() -> String {
    let mut text = String::new();
    for Outage { title, note, rows, .. } in table::OUTAGES {
        let _ = writeln!(text, "### {title}\n\n{note}\n");
        text.push_str("| webhook | delivery | `on_unavailable` | answer to Twilio | the application receives | stored | metrics that show it | after the outage |\n");
        text.push_str("|---|---|---|---|---|---|---|---|\n");
        rows.iter().for_each(|row| text.push_str(&row.sentence()));
        text.push('\n');
    }
    text.push_str("### Outbound messages during an outage\n\n");
    text.push_str("| unavailable part | answer to the caller | Twilio receives | stored | metrics that show it | after the outage |\n|---|---|---|---|---|---|\n");
    for outage in table::OUTAGES {
        text.push_str(&outage.outbound.sentence(outage.part.name()));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository;

    #[test]
    fn every_kind_of_webhook_is_in_one_row_of_each_table() {
        for outage in table::OUTAGES {
            for kind in Kind::all() {
                let rows = outage.rows.iter().filter(|row| row.covers(kind)).count();
                assert_eq!(rows, 1, "{:?}: {}", outage.part, kind.name());
            }
        }
    }

    #[test]
    fn document_contains_these_tables() {
        let path = repository().join("docs/FAILURE-MODES.md");
        let document = std::fs::read_to_string(path).unwrap();
        let printed = reference();
        assert!(
            document.contains(&printed),
            "docs/FAILURE-MODES.md: insert these tables:\n\n{printed}"
        );
    }
}
