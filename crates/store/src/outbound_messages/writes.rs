//! Group commit of writes to outbound messages: writes that arrive while another one runs share the next transaction. Each
//! write is durable on return. Rows change in the order of their ids, so that two sidecars do not wait for each other. The
//! counters of a write are part of its transaction.

use super::{
    OutboundMessage,
    counts::{self, Counts, MessageCount},
    events::event_of_refused,
    row::ADD,
};
use crate::{
    audit_log::{self, AuditEntry},
    database::{Bind, Database, Durability, Transaction},
    error::StoreError,
    group::Group,
    idempotency::{self, CompletedRequest},
    media::{self, MediaUser},
    operational_events::{self, callbacks::NewCallback},
};
use twilio_edge_domain::{
    operational_event::{EventReporting, OperationalEvent},
    sending::{provider::Provider, statistics::MessageEvent},
};
use twilio_edge_platform::tasks::Supervisor;

impl OutboundMessage {
    fn media_user(&self) -> MediaUser<'_> {
        MediaUser {
            message_id: &self.id,
            account_sid: &self.account_sid,
            channel: &self.channel,
            recipient: &self.recipient,
            // Only a form of Twilio names media.
            form: if self.provider() == Provider::Messaging { &self.form } else { "" },
            created_at_ms: self.created_at_ms,
            due_at_ms: self.due_at_ms,
        }
    }
}

/// One write.
#[derive(Debug, Clone)]
enum Write {
    /// New messages, and with them the stored response of their idempotency key and their audit entries. All are written, or
    /// none.
    Add {
        messages: Vec<OutboundMessage>,
        done: Option<Box<CompletedRequest>>,
        entries: Vec<AuditEntry>,
    },
    /// Change of one message.
    Change(Box<StoredChange>),
}

/// A statement about one message, whose id is the first value, and what follows if the statement changes the row.
#[derive(Debug)]
pub(super) struct Change<'a> {
    pub(super) statement: &'static str,
    pub(super) values: &'a [Bind<'a>],
    /// Statement with values of its own.
    pub(super) then: Option<(&'static str, &'a [Bind<'a>])>,
    /// Fallback message to insert, after the steps of its plan that a rule declined.
    pub(super) instead: &'a [OutboundMessage],
    /// Counters to increment.
    pub(super) counts: Vec<MessageCount>,
    /// Events to report to sinks.
    pub(super) events: Vec<OperationalEvent>,
    /// Status callback to send.
    pub(super) callback: Option<NewCallback>,
}

impl<'a> Change<'a> {
    pub(super) fn of(statement: &'static str, values: &'a [Bind<'a>]) -> Change<'a> {
        Change {
            statement,
            values,
            then: None,
            instead: &[],
            counts: Vec::new(),
            events: Vec::new(),
            callback: None,
        }
    }
}

#[derive(Debug, Clone)]
struct StoredChange {
    statement: &'static str,
    values: Vec<Value>,
    then: Option<(&'static str, Vec<Value>)>,
    instead: Vec<OutboundMessage>,
    counts: Vec<MessageCount>,
    events: Vec<OperationalEvent>,
    callback: Option<NewCallback>,
}

#[derive(Debug, Clone)]
enum Value {
    Text(String),
    Whole(i64),
}

fn stored(values: &[Bind<'_>]) -> Vec<Value> {
    let values = values.iter().map(|value| match value {
        Bind::Text(text) => Value::Text((*text).to_owned()),
        Bind::Whole(number) => Value::Whole(*number),
    });
    values.collect()
}

fn bound(values: &[Value]) -> Vec<Bind<'_>> {
    let values = values.iter().map(|value| match value {
        Value::Text(text) => Bind::Text(text),
        Value::Whole(number) => Bind::Whole(*number),
    });
    values.collect()
}

/// Handle of the group commit. Each write returns the number of changed rows.
#[derive(Clone)]
pub(super) struct Writes {
    group: Group<Write, u64>,
    counts: Counts,
}

impl Writes {
    pub(super) fn start(database: Database, tasks: &Supervisor) -> Writes {
        let counts = Counts::default();
        let waiting = counts.clone();
        let group = Group::start(tasks, database.timeout(), move |writes: Vec<Write>, _| {
            let (database, counts) = (database.clone(), waiting.clone());
            async move { database.within_timeout(write_all(&database, writes, &counts)).await }
        });
        Writes { group, counts }
    }

    /// Returns the counters that wait for the next transaction.
    pub(super) fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Returns the number of new rows.
    pub(super) async fn add(
        &self,
        messages: &[OutboundMessage],
        done: Option<&CompletedRequest>,
        entries: Vec<AuditEntry>,
    ) -> Result<u64, StoreError> {
        let (messages, done) = (messages.to_vec(), done.cloned().map(Box::new));
        let written = self.group.ask(vec![Write::Add { messages, done, entries }], 0).await;
        written.map(|rows| rows.first().copied().unwrap_or_default())
    }

    /// Writes the waiting counters, unless there are none.
    pub(super) async fn flush_counts(&self) -> Result<(), StoreError> {
        if self.counts.is_empty() {
            return Ok(());
        }
        let write = Write::Add { messages: Vec::new(), done: None, entries: Vec::new() };
        self.group.ask(vec![write], 0).await.map(|_| ())
    }

    pub(super) async fn change(&self, change: Change<'_>) -> Result<u64, StoreError> {
        let change = StoredChange {
            statement: change.statement,
            values: stored(change.values),
            then: change.then.map(|(statement, values)| (statement, stored(values))),
            instead: change.instead.to_vec(),
            counts: change.counts,
            events: change.events,
            callback: change.callback,
        };
        let changed = self.group.ask(vec![Write::Change(Box::new(change))], 0).await;
        changed.map(|rows| rows.first().copied().unwrap_or_default())
    }
}

async fn write_all(
    database: &Database,
    writes: Vec<Write>,
    counts: &Counts,
) -> Result<Vec<u64>, StoreError> {
    // Counters that wait are written with these writes, and wait again if the transaction fails.
    let mut total = counts.take();
    let mut written = vec![0; writes.len()];
    let mut writes: Vec<(usize, Write)> = writes.into_iter().enumerate().collect();
    // Writes to the same message keep their order.
    writes.sort_by(|(_, one), (_, other)| one.id().cmp(other.id()));
    let mut tx = database.begin(Durability::Power).await?;
    let (mut events, mut callbacks, mut entries) = (Vec::new(), Vec::new(), Vec::new());
    for (place, write) in &writes {
        let rows = write.execute(&mut tx).await?;
        if rows > 0 {
            total.extend(write.counts());
            events.extend(write.events(database.reporting()));
            callbacks.extend(write.callback().cloned());
            entries.extend(write.audit_entries().iter().cloned());
        }
        if let Some(slot) = written.get_mut(*place) {
            *slot = rows;
        }
    }
    // Media come last because messages may share them; their rows also change in the order of their ids.
    let added = writes.iter().flat_map(|(_, write)| match write {
        Write::Add { messages, .. } => messages.as_slice(),
        Write::Change(_) => &[],
    });
    media::record_uses(&mut tx, added.map(OutboundMessage::media_user)).await?;
    let reporting = database.reporting();
    operational_events::record_with_callbacks(&mut tx, reporting, &events, &callbacks).await?;
    counts::increment(&mut tx, &total).await?;
    // PostgreSQL serializes entries of the audit log, so they come last.
    if !entries.is_empty() {
        audit_log::add(&mut tx, &entries).await?;
    }
    tx.commit().await?;
    total.keep();
    Ok(written)
}

impl Write {
    fn id(&self) -> &str {
        match self {
            Write::Add { messages, .. } => {
                messages.first().map(|message| message.id.as_str()).unwrap_or_default()
            }
            Write::Change(change) => match change.values.first() {
                Some(Value::Text(id)) => id,
                _ => "",
            },
        }
    }

    /// Returns the counters of a write that changed its row.
    fn counts(&self) -> Vec<MessageCount> {
        match self {
            Write::Add { messages, .. } => messages.iter().flat_map(of_new).collect(),
            Write::Change(change) => {
                let instead = change.instead.iter().flat_map(of_new);
                change.counts.iter().cloned().chain(instead).collect()
            }
        }
    }

    /// Returns the events of a write that changed its row.
    fn events(&self, reporting: &EventReporting) -> Vec<OperationalEvent> {
        let of_new = |message| event_of_refused(reporting, message);
        match self {
            Write::Add { messages, .. } => messages.iter().filter_map(of_new).collect(),
            Write::Change(change) => {
                let instead = change.instead.iter().filter_map(of_new);
                change.events.iter().cloned().chain(instead).collect()
            }
        }
    }

    /// Returns the status callback of a write that changed its row.
    fn callback(&self) -> Option<&NewCallback> {
        match self {
            Write::Add { .. } => None,
            Write::Change(change) => change.callback.as_ref(),
        }
    }

    /// Returns the audit entries of a write that added a row.
    fn audit_entries(&self) -> &[AuditEntry] {
        match self {
            Write::Add { entries, .. } => entries,
            Write::Change(_) => &[],
        }
    }

    async fn execute(&self, tx: &mut Transaction) -> Result<u64, StoreError> {
        match self {
            Write::Add { messages, done, .. } => {
                let mut rows = 0;
                for message in messages {
                    rows += tx.execute_bound(&ADD, &message.values()).await?;
                }
                if let Some(done) = done {
                    idempotency::finish(tx, done).await?;
                }
                Ok(rows)
            }
            Write::Change(change) => {
                let rows = tx.execute_bound(change.statement, &bound(&change.values)).await?;
                if rows == 1 {
                    for message in &change.instead {
                        tx.execute_bound(&ADD, &message.values()).await?;
                    }
                    if let Some((statement, values)) = &change.then {
                        tx.execute_bound(statement, &bound(values)).await?;
                    }
                }
                Ok(rows)
            }
        }
    }
}

/// Returns the counters of a new message. A declined one was counted by the rule.
pub(super) fn of_new(message: &OutboundMessage) -> Vec<MessageCount> {
    if message.state == "declined" {
        return Vec::new();
    }
    let at_ms = message.created_at_ms;
    let refused = (message.state == "refused")
        .then(|| message.count(MessageEvent::Refused, &message.code, at_ms));
    let accepted = message.count(MessageEvent::Accepted, "", at_ms);
    std::iter::once(accepted).chain(refused).collect()
}
