//! What happens while a part is away: the failure table of docs/FAILURE-MODES.md, as data. Each cell is a value with a
//! sentence, which the document has, and a meaning, which a scenario asserts on the real parts (`tests/e2e/failures.rs`). So
//! neither can say what the other does not. Here are the words; what stands where is in [`table`].

pub mod table;

use std::fmt::Write as _;

use twilio_edge_contract::Delivery;

use crate::dependencies::Sink;
use crate::stack::SidecarPlan;
use crate::webhook::Form;

/// What kind of webhook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// A message that is no opt-out.
    Message,
    /// A message that says STOP: it counts, whatever becomes of it.
    Stop,
    /// A status callback.
    Status,
    /// Signed, and neither of these.
    Other,
}

/// What the route does without a verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// `on_unavailable: forward`
    Forward,
    /// `on_unavailable: reject`
    Reject,
}

/// One kind of webhook on a route of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    /// What it is.
    pub class: Class,
    /// Who delivers it.
    pub delivery: Delivery,
    /// What the route does without a verdict.
    pub policy: Policy,
}

impl Kind {
    /// All there are. Other webhooks are claimed by nobody, so that they know neither `accept` nor a policy.
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

    /// As the filter's configuration calls its class.
    pub fn class(self) -> &'static str {
        match self.class {
            Class::Message | Class::Stop => "inbound",
            Class::Status => "status",
            Class::Other => "other",
        }
    }

    /// The path of its route.
    pub fn path(self) -> String {
        let delivery = if self.delivery == Delivery::Accept { "accept" } else { "forward" };
        let policy = if self.policy == Policy::Reject { "reject" } else { "forward" };
        format!("/app/{}/{delivery}/{policy}", self.class())
    }

    /// A webhook of this kind.
    pub fn form(self) -> Form {
        let form = match self.class {
            Class::Message => Form::inbound("hello"),
            Class::Stop => Form::inbound("STOP"),
            Class::Status => Form::status("delivered"),
            Class::Other => Form::other(),
        };
        form.to(&self.path())
    }

    /// What a test of it is called.
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

/// What Twilio is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// What the application says.
    Answer,
    /// At once, that there is nothing to say.
    Thanks,
    /// That nobody could say whether it is new.
    Refusal,
    /// That nobody is there.
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

/// What the application gets meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gets {
    /// The webhook, of which it is known that it is new.
    First,
    /// The webhook, of which nobody knows.
    Unknown,
    /// The event, from the sidecar.
    Event,
    /// Not a byte.
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

/// What is kept of it meanwhile, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// In the ledger, as taken by the application.
    Taken,
    /// In the ledger, as refused by it.
    Refused,
    /// In the ledger, with what this sink is owed of it; every other sink has it.
    Owed(Sink),
    /// In the ledger, and every sink has it.
    Delivered,
    /// In the ledger, as taken by the application, and queued for the archive.
    TakenUnarchived,
    /// In the ledger, every sink has it, and queued for the archive.
    DeliveredUnarchived,
    /// In the filter's memory: how it ended, and its form.
    Outcome,
    /// In the sidecar's spool, until the database takes it.
    Spooled,
    /// Nowhere: it is proven and forwarded, and nobody has to remember it.
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

/// What becomes of it when the part is back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heals {
    /// All is well already: a copy is a duplicate.
    Known,
    /// The application had it, and the ledger is told: a copy is a duplicate.
    Taken,
    /// The ledger is told that nobody took it: a copy is delivered by whoever delivers.
    Again,
    /// Who was owed it gets it, once; a copy is a duplicate.
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

/// Whose metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Teller {
    /// Envoy, with the filter in it.
    Envoy,
    /// The sidecar.
    Sidecar,
}

/// A series that shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signal {
    /// Who tells it.
    pub teller: Teller,
    /// Its name and labels, as Prometheus has them.
    pub series: &'static str,
    /// What it does.
    pub does: Does,
}

/// What a series does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Does {
    /// It is a counter, and this webhook adds to it.
    Rises,
    /// It is more than nothing as long as the part is away.
    Positive,
    /// It is 1 as long as the part is away, and 0 before and after.
    IsOne,
}

impl Signal {
    /// A counter of Envoy's.
    pub const fn envoy(series: &'static str) -> Self {
        Self { teller: Teller::Envoy, series, does: Does::Rises }
    }

    /// A counter of the sidecar's.
    pub const fn sidecar(series: &'static str) -> Self {
        Self { teller: Teller::Sidecar, series, does: Does::Rises }
    }

    /// A gauge of the sidecar's that is 1.
    pub const fn state(series: &'static str) -> Self {
        Self { teller: Teller::Sidecar, series, does: Does::IsOne }
    }

    /// A gauge of the sidecar's that is not 0.
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

/// One line: the kinds of webhooks it is about, and what is true of each of them.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// What they are.
    pub classes: &'static [Class],
    /// Who delivers them.
    pub delivery: Delivery,
    /// What their routes do without a verdict.
    pub policies: &'static [Policy],
    /// What Twilio is told.
    pub told: Told,
    /// What the application gets.
    pub gets: Gets,
    /// What is kept.
    pub kept: Kept,
    /// Who sees it.
    pub seen: &'static [Signal],
    /// How it heals.
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

/// What becomes of a message that is to be sent (`POST /v1/messages`).
#[derive(Debug, Clone, Copy)]
pub struct Sending {
    /// What who asks for it is told: a status, or none because nobody answers.
    pub told: Option<u16>,
    /// Whether Twilio gets it meanwhile.
    pub sent: bool,
    /// Who sees it.
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

/// What can be away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Nothing is.
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
    /// Where webhooks are archived.
    ObjectStore,
    /// Twilio's REST.
    Twilio,
}

impl Part {
    /// What people call it.
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

/// A part that is away.
#[derive(Debug)]
pub struct Outage {
    /// Which.
    pub part: Part,
    /// What its table is called.
    pub title: &'static str,
    /// What is to be known beside the table.
    pub note: &'static str,
    /// On which stores it is shown.
    pub stores: &'static [SidecarPlan],
    /// Where accepted webhooks go.
    pub sinks: &'static [Sink],
    /// Every kind of webhook is in one row.
    pub rows: &'static [Row],
    /// Messages that are to be sent.
    pub sending: Sending,
}

impl Outage {
    /// What is true of a kind of webhook.
    pub fn row(&self, kind: Kind) -> Option<&Row> {
        self.rows.iter().find(|row| row.covers(kind))
    }
}

/// All of it, as Markdown.
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
