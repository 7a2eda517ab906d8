//! The failure table of docs/FAILURE-MODES.md as data: the behaviour while a part is unavailable. Each cell is a value with
//! a sentence, which the document contains, and a meaning, which a scenario asserts on the real parts
//! (`tests/e2e/failures.rs`). So document and test cannot differ. This module has the types, [`table`] the cells.

pub mod table;

use std::fmt::Write as _;

use twilio_edge_contract::Delivery;

use crate::dependencies::Sink;
use crate::stack::SidecarPlan;
use crate::webhook::Form;

/// Kind of a webhook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// A message that is not an opt-out.
    Message,
    /// A message that says STOP. It is in effect regardless of its delivery.
    Stop,
    /// A status callback.
    Status,
    /// Signed, but neither a message nor a status.
    Other,
}

/// Policy of the route for a missing verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// `on_unavailable: forward`.
    Forward,
    /// `on_unavailable: reject`.
    Reject,
}

/// One kind of webhook on a route of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    /// Its class.
    pub class: Class,
    /// The component that delivers it.
    pub delivery: Delivery,
    /// Policy of the route for a missing verdict.
    pub policy: Policy,
}

impl Kind {
    /// Returns every kind. Webhooks of class other are never claimed, so they have neither `accept` nor a policy.
    pub fn all() -> Vec<Kind> {
        let mut all = Vec::new();
        for class in [Class::Message, Class::Stop, Class::Status] {
            for delivery in [Delivery::Forward, Delivery::Accept] {
                for policy in [Policy::Forward, Policy::Reject] {
                    all.push(Kind { class, delivery, policy });
                }
            }
        }
        let (delivery, policy) = (Delivery::Forward, Policy::Forward);
        all.push(Kind { class: Class::Other, delivery, policy });
        all
    }

    /// Returns the name of the class in the filter's configuration.
    pub fn class(self) -> &'static str {
        match self.class {
            Class::Message | Class::Stop => "inbound",
            Class::Status => "status",
            Class::Other => "other",
        }
    }

    /// Returns the path of its route.
    pub fn path(self) -> String {
        let delivery = if self.delivery == Delivery::Accept { "accept" } else { "forward" };
        let policy = if self.policy == Policy::Reject { "reject" } else { "forward" };
        format!("/app/{}/{delivery}/{policy}", self.class())
    }

    /// Returns a webhook of this kind.
    pub fn form(self) -> Form {
        let form = match self.class {
            Class::Message => Form::inbound("hello"),
            Class::Stop => Form::inbound("STOP"),
            Class::Status => Form::status("delivered"),
            Class::Other => Form::other(),
        };
        form.to(&self.path())
    }

    /// Returns the name of its test.
    pub fn name(self) -> String {
        let class = self.class.word();
        match self.class {
            Class::Other => class.to_owned(),
            _ => format!("{class}, {}, {}", delivery_word(self.delivery), self.policy.word()),
        }
    }
}

impl Class {
    fn word(self) -> &'static str {
        match self {
            Class::Message => "message",
            Class::Stop => "STOP",
            Class::Status => "status",
            Class::Other => "other",
        }
    }
}

impl Policy {
    fn word(self) -> &'static str {
        match self {
            Policy::Forward => "`forward`",
            Policy::Reject => "`reject`",
        }
    }
}

fn delivery_word(delivery: Delivery) -> &'static str {
    match delivery {
        Delivery::Forward => "forward",
        Delivery::Accept => "accept",
    }
}

/// Answer that Twilio receives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// The answer of the application.
    Answer,
    /// An immediate answer without content.
    Thanks,
    /// A refusal, because there is no verdict.
    Refusal,
    /// An error, because the application is unavailable.
    NobodyThere,
}

impl Told {
    fn sentence(self) -> &'static str {
        match self {
            Told::Answer => "the application's answer",
            Told::Thanks => "at once 200 and an empty `<Response/>`, to a status 204",
            Told::Refusal => "503 `sidecar-unavailable`, Retry-After",
            Told::NobodyThere => "Envoy's 503",
        }
    }
}

/// Result at the application during the outage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gets {
    /// The webhook, marked as new.
    First,
    /// The webhook, marked as unknown.
    Unknown,
    /// The event, from the sidecar.
    Event,
    /// Nothing, not a byte.
    Nothing,
}

impl Gets {
    fn sentence(self) -> &'static str {
        match self {
            Gets::First => "the webhook, `dedupe: first`",
            Gets::Unknown => "the webhook, `dedupe: unknown`",
            Gets::Event => "the event, from the sidecar",
            Gets::Nothing => "nothing",
        }
    }
}

/// Place where the webhook is stored during the outage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// In the ledger, as accepted by the application.
    Taken,
    /// In the ledger, as refused by it.
    Refused,
    /// In the ledger, with a pending delivery to this sink; every other sink has it.
    Owed(Sink),
    /// In the ledger, and every sink has it.
    Delivered,
    /// In the ledger, as accepted by the application, and queued for the archive.
    TakenUnarchived,
    /// In the ledger, every sink has it, and queued for the archive.
    DeliveredUnarchived,
    /// In the filter's memory: its outcome and its form.
    Outcome,
    /// In the sidecar's spool, until the database accepts it.
    Spooled,
    /// Nowhere: it is proven and forwarded, and never stored.
    Nowhere,
}

impl Kept {
    fn sentence(self) -> String {
        match self {
            Kept::Taken => "in the ledger: taken".to_owned(),
            Kept::Refused => "in the ledger: refused".to_owned(),
            Kept::Owed(sink) => format!("in the ledger: owed to {}", sink_word(sink)),
            Kept::Delivered => "in the ledger: delivered".to_owned(),
            Kept::TakenUnarchived => "in the ledger: taken, owed to the archive".to_owned(),
            Kept::DeliveredUnarchived => "in the ledger: delivered, owed to the archive".to_owned(),
            Kept::Outcome => "by the filter: its form and its end".to_owned(),
            Kept::Spooled => "in the sidecar's spool".to_owned(),
            Kept::Nowhere => "nothing".to_owned(),
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
pub enum Heals {
    /// Nothing changes: a copy is a duplicate.
    Known,
    /// The application had it, and the ledger learns so: a copy is a duplicate.
    Taken,
    /// The ledger learns that it was not accepted: a copy is delivered by the component that delivers.
    Again,
    /// The recipients of pending deliveries receive it, once; a copy is a duplicate.
    Delivered,
    /// It is archived; a copy is a duplicate.
    Archived,
    /// A copy reaches the application like any other.
    Forwarded,
}

impl Heals {
    fn sentence(self) -> &'static str {
        match self {
            Heals::Known => "nothing to heal: a copy is a duplicate",
            Heals::Taken => "the ledger is told, a copy is a duplicate",
            Heals::Again => "the ledger is told, a copy is delivered",
            Heals::Delivered => "it is delivered, once; a copy is a duplicate",
            Heals::Archived => "it is archived; a copy is a duplicate",
            Heals::Forwarded => "a copy is forwarded too",
        }
    }
}

/// Process that exports a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Teller {
    /// Envoy, with the filter in it.
    Envoy,
    /// The sidecar.
    Sidecar,
}

/// A metric series that shows the outage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signal {
    /// The process that exports it.
    pub teller: Teller,
    /// Its name and labels, as Prometheus has them.
    pub series: &'static str,
    /// Its expected behaviour.
    pub does: Does,
}

/// Expected behaviour of a series.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Does {
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
        Self { teller: Teller::Envoy, series, does: Does::Rises }
    }

    /// Creates a counter of the sidecar.
    pub const fn sidecar(series: &'static str) -> Self {
        Self { teller: Teller::Sidecar, series, does: Does::Rises }
    }

    /// Creates a gauge of the sidecar that is 1.
    pub const fn state(series: &'static str) -> Self {
        Self { teller: Teller::Sidecar, series, does: Does::IsOne }
    }

    /// Creates a gauge of the sidecar that is not 0.
    pub const fn amount(series: &'static str) -> Self {
        Self { teller: Teller::Sidecar, series, does: Does::Positive }
    }

    fn sentence(self) -> String {
        let Self { teller, series, does } = self;
        let teller = match teller {
            Teller::Envoy => "Envoy",
            Teller::Sidecar => "sidecar",
        };
        let does = match does {
            Does::Rises => "rises",
            Does::Positive => "> 0",
            Does::IsOne => "is 1",
        };
        format!("{teller}: `{series}` {does}")
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
    pub told: Told,
    /// Result at the application.
    pub gets: Gets,
    /// Place where the webhook is stored.
    pub kept: Kept,
    /// Metrics that show it.
    pub seen: &'static [Signal],
    /// Result when the part is available again.
    pub heals: Heals,
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
        let seen: Vec<_> = self.seen.iter().map(|signal| signal.sentence()).collect();
        format!(
            "| {} | {delivery} | {policy} | {} | {} | {} | {} | {} |\n",
            classes.join(", "),
            self.told.sentence(),
            self.gets.sentence(),
            self.kept.sentence(),
            seen.join("; "),
            self.heals.sentence(),
        )
    }
}

/// Behaviour for an outbound message (`POST /v1/messages`).
#[derive(Debug, Clone, Copy)]
pub struct Sending {
    /// Status that the caller receives; none if there is no answer.
    pub told: Option<u16>,
    /// True if Twilio receives the message during the outage.
    pub sent: bool,
    /// Metrics that show it.
    pub seen: &'static [Signal],
}

impl Sending {
    fn sentence(&self, title: &str) -> String {
        let told = match self.told {
            Some(202) => "202".to_owned(),
            Some(status) => format!("{status}, Retry-After"),
            None => "no connection".to_owned(),
        };
        let (twilio, kept, heals) = match (self.told, self.sent) {
            (Some(202), true) => ("gets it", "how it ended", "nothing to heal"),
            (Some(202), false) => ("nothing", "the message, `queued`", "it is sent, once"),
            _ => ("nothing", "nothing", "ask again, with the same Idempotency-Key"),
        };
        let seen: Vec<_> = self.seen.iter().map(|signal| signal.sentence()).collect();
        let seen = seen.join("; ");
        format!("| {title} | {told} | {twilio} | {kept} | {seen} | {heals} |\n")
    }
}

/// Part that can be unavailable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Every part is available.
    Nothing,
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
            Part::Nothing => "nothing",
            Part::Application => "the application",
            Part::Sidecar => "the sidecar",
            Part::Redis => "Redis",
            Part::Postgres => "PostgreSQL",
            Part::Sqlite => "SQLite's lock",
            Part::Kafka => "Kafka",
            Part::ObjectStore => "the object store",
            Part::Twilio => "Twilio's REST",
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
    pub sending: Sending,
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
        text.push_str("| webhook | delivery | `on_unavailable` | Twilio is told | the application gets | kept | who sees it | when it is back |\n");
        text.push_str("|---|---|---|---|---|---|---|---|\n");
        rows.iter().for_each(|row| text.push_str(&row.sentence()));
        text.push('\n');
    }
    text.push_str("### Messages that are to be sent, meanwhile\n\n");
    text.push_str("| what is away | who asks is told | Twilio | kept | who sees it | when it is back |\n|---|---|---|---|---|---|\n");
    for outage in table::OUTAGES {
        text.push_str(&outage.sending.sentence(outage.part.name()));
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
    fn the_document_has_these_tables() {
        let path = repository().join("docs/FAILURE-MODES.md");
        let document = std::fs::read_to_string(path).unwrap();
        let printed = reference();
        assert!(
            document.contains(&printed),
            "docs/FAILURE-MODES.md: put in between its headings:\n\n{printed}"
        );
    }
}
