//! Outbound messages in the database. The sidecar commits an attempt, with its own id, before it calls Twilio. Only the
//! holder of that id records the outcome. An attempt whose hold expires without an outcome becomes `unknown`. Nothing in
//! this module returns it to `queued`, because the message may have left; `lookups.rs` records what Twilio's list shows.
//! `queues.rs` takes due messages, and `attempts.rs` records the outcomes. `row.rs` has the columns. This module must not know
//! what Twilio's answers mean.

mod attempts;
mod counts;
mod deliveries;
mod events;
mod fallbacks;
mod lookups;
pub(crate) mod notifications;
pub(crate) mod pages;
pub(crate) mod queues;
pub(crate) mod replies;
mod row;
mod verifications;
mod writes;

use std::{slice, sync::Arc};

pub use self::{
    attempts::AttemptOutcome,
    counts::{CountQuery, MessageCount},
    row::OutboundMessage,
};
use self::{
    events::MessageChange,
    row::outbound_message_columns,
    writes::{Change, Writes},
};
use crate::{
    audit_log::{self, AuditEntry},
    database::{Bind, Database, Durability},
    error::StoreError,
    idempotency::CompletedRequest,
    operational_events,
};
use twilio_edge_domain::{
    operational_event::{EventReporting, OperationalEventType},
    sending::backlog::MessageBacklog,
};
use twilio_edge_platform::{config, tasks::Supervisor};

const RESOLVE: &str = "
    UPDATE outbound_messages SET state = $2, message_sid = $3, attempt_id = '', form = '', recipient = $4, code = '',
        reason = 'decided by an operator', changed_at_ms = $5, lookup_due_at_ms = 0,
        fallback = CASE WHEN $2 = 'sent' THEN fallback ELSE '' END,
        fallback_to = CASE WHEN $2 = 'sent' THEN fallback_to ELSE '' END
    WHERE id = $1 AND state = 'unknown'";

const FETCH: &str =
    concat!("SELECT ", outbound_message_columns!(), " FROM outbound_messages WHERE id = $1");

const LIST: &str = concat!(
    "SELECT ",
    outbound_message_columns!(),
    " FROM outbound_messages WHERE ($1 = '' OR state = $1) ORDER BY created_at_ms DESC, id DESC LIMIT $2"
);

/// Number of `unknown` messages, and since when the oldest overdue message waits. A message whose retry is due within ten
/// minutes is included; the limit lets an index serve the query.
const BACKLOG: &str = "
    SELECT (SELECT count(*) FROM outbound_messages WHERE state = 'unknown') AS unknowns,
        (SELECT coalesce(min(first_due_at_ms), 0) FROM outbound_messages
            WHERE state = 'queued' AND due_at_ms <= $1 + 600000 AND first_due_at_ms <= $1) AS oldest_due_ms";

/// The outbound messages of one database.
#[derive(Clone)]
pub struct OutboundMessages {
    database: Database,
    writes: Writes,
}

impl OutboundMessages {
    pub(super) fn of(database: Database, tasks: &Supervisor) -> OutboundMessages {
        let writes = Writes::start(database.clone(), tasks);
        OutboundMessages { database, writes }
    }

    /// Connects for a command, beside a sidecar that may have the database open. Changes are reported to sinks by `reporting`.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable.
    pub async fn open(
        settings: &config::Database,
        reporting: EventReporting,
    ) -> Result<OutboundMessages, StoreError> {
        // A command waits for each of its own writes, and reports its failure.
        let tasks = Supervisor::new(Arc::default());
        let database = Database::open_beside(settings).await?.reporting_to(reporting);
        Ok(OutboundMessages::of(database, &tasks))
    }

    /// Closes the connections. Only for an instance from [`OutboundMessages::open`].
    pub async fn close(&self) {
        self.database.close().await;
    }

    /// Stores messages, and with them the response for copies of their request and their audit entries. All are written, or
    /// none.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or refuses a row.
    pub async fn add_all(
        &self,
        messages: &[OutboundMessage],
        done: Option<&CompletedRequest>,
        entries: Vec<AuditEntry>,
    ) -> Result<(), StoreError> {
        self.writes.add(messages, done, entries).await.map(|_| ())
    }

    /// Stores a message that another one with the same key may precede: a second reply to one inbound message, or a second execution
    /// of a flow for it. Returns `false` if that message is stored already.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or refuses the row.
    pub async fn add_new(&self, message: &OutboundMessage) -> Result<bool, StoreError> {
        self.writes.add(slice::from_ref(message), None, Vec::new()).await.map(|rows| rows > 0)
    }

    /// Resolves an `unknown` message by an operator's decision. Returns `false` if the message is not `unknown`.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or refuses the change.
    pub async fn resolve(
        &self,
        message: &OutboundMessage,
        masked: &str,
        message_sid: Option<&str>,
        entry: &AuditEntry,
    ) -> Result<bool, StoreError> {
        let state = if message_sid.is_some() { "sent" } else { "not_sent" };
        let binds = [
            Bind::Text(&message.id),
            Bind::Text(state),
            Bind::Text(message_sid.unwrap_or_default()),
            Bind::Text(masked),
            Bind::Whole(entry.at_ms),
        ];
        self.database
            .within_timeout(async {
                let mut tx = self.database.begin(Durability::Power).await?;
                if tx.execute_bound(RESOLVE, &binds).await? == 0 {
                    return Ok(false);
                }
                audit_log::add(&mut tx, slice::from_ref(entry)).await?;
                let change = MessageChange {
                    state,
                    message_sid: message_sid.unwrap_or_default(),
                    now_ms: entry.at_ms,
                    ..MessageChange::default()
                };
                let (event, callback) = match message_sid {
                    Some(_) => {
                        (self.event(OperationalEventType::MessageSent, message, change), None)
                    }
                    None => (None, self.callback(message, change)),
                };
                let (events, callbacks) = (event.as_slice(), callback.as_slice());
                let reporting = self.database.reporting();
                operational_events::record_with_callbacks(&mut tx, reporting, events, callbacks)
                    .await?;
                tx.commit().await?;
                Ok(true)
            })
            .await
    }

    /// Withdraws the status callbacks about messages whose end the caller has learned.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or refuses the change.
    pub async fn withdraw_callbacks(&self, ids: &[String]) -> Result<(), StoreError> {
        operational_events::callbacks::withdraw(&self.database, ids).await
    }

    /// Returns the message with this id. With `account_sid`, only if it belongs to that account.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or the read fails.
    pub async fn fetch(
        &self,
        id: &str,
        account_sid: Option<&str>,
    ) -> Result<Option<OutboundMessage>, StoreError> {
        let found: Vec<OutboundMessage> =
            self.database.read_bound(FETCH, &[Bind::Text(id)]).await?;
        let is_theirs =
            |message: &OutboundMessage| account_sid.is_none_or(|sid| sid == message.account_sid);
        Ok(found.into_iter().find(is_theirs))
    }

    /// Returns the latest messages in this state, or in any state.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or the read fails.
    pub async fn list_latest(
        &self,
        state: Option<&str>,
        most: u32,
    ) -> Result<Vec<OutboundMessage>, StoreError> {
        let binds = [Bind::Text(state.unwrap_or_default()), Bind::Whole(most.into())];
        self.database.read_bound(LIST, &binds).await
    }

    /// Returns the number of `unknown` messages and the due time of the oldest overdue message.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or the read fails.
    pub async fn backlog(&self, now_ms: i64) -> Result<MessageBacklog, StoreError> {
        let found: Vec<(i64, i64)> =
            self.database.read_bound(BACKLOG, &[Bind::Whole(now_ms)]).await?;
        let (unknowns, oldest_due_ms) = found.into_iter().next().unwrap_or_default();
        Ok(MessageBacklog { unknowns, oldest_due_ms })
    }

    /// Executes a statement about one message, whose id is the first value. Returns the number of changed rows.
    pub(super) async fn execute(
        &self,
        statement: &'static str,
        binds: &[Bind<'_>],
    ) -> Result<u64, StoreError> {
        self.writes.change(Change::of(statement, binds)).await
    }
}
