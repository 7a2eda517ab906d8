//! Outbound messages in the database. The sidecar commits an attempt, with its own id, before it calls Twilio. Only the
//! holder of that id records the outcome. An attempt whose hold expires without an outcome becomes `unknown`. Nothing in
//! this module returns it to `queued`, because the message may have left; `lookups.rs` records what Twilio's list shows.
//! `queues.rs` takes due messages. This module must not know what Twilio's answers mean.

mod counts;
mod deliveries;
mod events;
mod fallbacks;
mod lookups;
pub(crate) mod pages;
pub(crate) mod queues;
mod writes;

use std::{
    slice,
    sync::{Arc, LazyLock},
};
use twilio_edge_domain::{
    dropin::resource::provisional_sid,
    operational_event::{EventReporting, OperationalEventType},
    sending::{backlog::MessageBacklog, statistics::MessageEvent},
};

use sqlx::FromRow;

pub use self::counts::{CountQuery, MessageCount};
use self::{
    events::MessageChange,
    writes::{Change, Writes},
};
use crate::{
    audit_log::{self, AuditEntry},
    database::{Bind, Database, Durability},
    error::StoreError,
    idempotency::CompletedRequest,
    operational_events,
};
use twilio_edge_platform::{config, tasks::Supervisor};

/// Value of a column, as a statement binds it.
trait Column {
    fn bind(&self) -> Bind<'_>;
}

impl Column for String {
    fn bind(&self) -> Bind<'_> {
        Bind::Text(self)
    }
}

impl Column for i64 {
    fn bind(&self) -> Bind<'_> {
        Bind::Whole(*self)
    }
}

/// Declares the row of an outbound message once. The struct, the column list of every SELECT, the INSERT and its bound values
/// follow from it, so a new column is one line here and one migration of each database.
macro_rules! row {
    ($(#[$about:meta])* pub struct $name:ident {
        $(#[$id_about:meta])* $id:ident: $id_type:ty,
        $($(#[$column_about:meta])* $column:ident: $type:ty,)+
    }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Default, PartialEq, Eq, FromRow)]
        pub struct $name {
            $(#[$id_about])* pub $id: $id_type,
            $($(#[$column_about])* pub $column: $type,)+
        }

        impl $name {
            /// Names of all columns.
            const COLUMNS: &[&str] = &[stringify!($id), $(stringify!($column)),+];

            /// Returns the values of [`ADD`], in the order of the columns.
            pub(super) fn values(&self) -> Vec<Bind<'_>> {
                vec![self.$id.bind(), $(self.$column.bind()),+]
            }
        }

        /// Columns of an [`OutboundMessage`], for a SELECT.
        macro_rules! outbound_message_columns {
            () => { concat!(stringify!($id), $(", ", stringify!($column)),+) };
        }
    };
}

row! {
/// Outbound message with its progress. Times are milliseconds since 1970.
pub struct OutboundMessage {
    /// Message id.
    id: String,
    /// Account SID of the tenant.
    account_sid: String,
    /// Channel on which the message is sent.
    channel: String,
    /// Recipient's number; masked after the message has ended.
    recipient: String,
    /// Our number, or the Messaging Service.
    sender: String,
    /// Category of the message: its purpose.
    category: String,
    /// `session` or `template`.
    kind: String,
    /// Priority in the queue; a smaller number is sent sooner.
    priority: i64,
    /// Form that is posted to Twilio; empty after the message has ended.
    form: String,
    /// `queued`, `attempting`, `sent`, `refused`, `unknown`, `not_sent`, `canceled`.
    state: String,
    /// Due time; during an attempt, the end of its hold.
    due_at_ms: i64,
    /// First due time.
    first_due_at_ms: i64,
    /// Id of the attempt that holds the message; empty without one.
    attempt_id: String,
    /// Number of attempts so far.
    attempts: i64,
    /// Twilio's message SID; empty until it is known.
    message_sid: String,
    /// Code of the reason why it was not sent, or not yet.
    code: String,
    /// The reason in words.
    reason: String,
    /// Time of the request.
    created_at_ms: i64,
    /// Author of the request.
    created_by: String,
    /// Time of the last change.
    changed_at_ms: i64,
    /// Start of the last attempt; 0 without one.
    attempted_at_ms: i64,
    /// Number of times an `unknown` message was looked up in Twilio's list.
    lookups: i64,
    /// Twilio's request id of the last call, for Twilio's support; empty if Twilio returned none.
    request_id: String,
    /// Fallback to send if the message fails, in the format of `domain/sending/fallback.rs`; empty without one, or once it
    /// is no longer possible.
    fallback: String,
    /// Recipient of the fallback, as long as there is a fallback.
    fallback_to: String,
    /// Id of the message that this one replaces as its fallback; empty otherwise.
    fallback_of: String,
    /// HTTP status of Twilio's refusal; 0 without one.
    twilio_status: i64,
    /// Number of SMS segments of the text, by which Twilio bills; 0 for a message that is not billed by segments, or whose
    /// text is not known here.
    segments: i64,
    /// Name of the template in the catalogue, or its content SID if the catalogue does not have it; empty without a template.
    template: String,
    /// Country of the recipient; empty if it is unknown.
    country: String,
    /// Delivery status that Twilio reported last ([`twilio_edge_domain::status`]); empty before the first report.
    status: String,
    /// Time of that report; 0 without one.
    status_at_ms: i64,
    /// Time after which the message is not sent; 0 without a limit of its own.
    valid_until_ms: i64,
    /// Time until which the message may be sent again if its delivery fails; 0 if it may not.
    repeat_until_ms: i64,
    /// Number of times the message was sent again after a failed delivery.
    repetitions: i64,
    /// SIDs of the failed deliveries, separated by blanks, oldest first.
    replaced_sids: String,
    /// Data of the caller, as JSON; empty without any.
    metadata: String,
}
}

impl OutboundMessage {
    /// Returns the SIDs of the failed deliveries that were repeated, oldest first.
    pub fn replaced_sids(&self) -> impl Iterator<Item = &str> {
        self.replaced_sids.split_whitespace()
    }

    /// Returns the SIDs of webhooks about the message that are not about its current delivery: those of failed deliveries, and
    /// for a message that ended without Twilio the one of the sidecar's own status callback.
    pub fn earlier_sids(&self) -> impl Iterator<Item = String> {
        let is_unsent = matches!(self.state.as_str(), "refused" | "not_sent" | "canceled");
        let own = is_unsent.then(|| provisional_sid(&self.id));
        self.replaced_sids().map(str::to_owned).chain(own)
    }
}

#[expect(
    clippy::single_component_path_imports,
    reason = "the modules below import the macro by its path"
)]
use outbound_message_columns;

/// Inserts a row with the values of [`OutboundMessage::values`]. A second fallback of one message is ignored.
pub(super) static ADD: LazyLock<String> = LazyLock::new(|| {
    let columns = OutboundMessage::COLUMNS;
    let values: Vec<String> = (1..=columns.len()).map(|number| format!("${number}")).collect();
    format!(
        "INSERT INTO outbound_messages ({}) VALUES ({}) ON CONFLICT (fallback_of) WHERE fallback_of <> '' DO NOTHING",
        columns.join(", "),
        values.join(", "),
    )
});

/// Queues the message again after an attempt in which nothing left; a message whose text was erased ends as `refused`.
const QUEUE_RETRY: &str = "
    UPDATE outbound_messages SET state = CASE WHEN form = '' THEN 'refused' ELSE 'queued' END, attempt_id = '', due_at_ms = $3,
        code = CASE WHEN form = '' THEN 'erased' ELSE $4 END, reason = $5, changed_at_ms = $6, request_id = $7
    WHERE id = $1 AND attempt_id = $2 AND state = 'attempting'";

/// Queues the message again before its call, because its recipient has quiet hours. The attempt does not count, and the time
/// after which the message is given up begins again.
const HOLD: &str = "
    UPDATE outbound_messages SET state = CASE WHEN form = '' THEN 'refused' ELSE 'queued' END, attempt_id = '', due_at_ms = $3,
        first_due_at_ms = $3, code = CASE WHEN form = '' THEN 'erased' ELSE $4 END, reason = $5, changed_at_ms = $6,
        attempts = attempts - 1
    WHERE id = $1 AND attempt_id = $2 AND state = 'attempting'";

/// Records the outcome of an attempt. An outcome after the end of the hold is as good as one before. A sent message that may
/// be repeated keeps its text and its recipient.
const RECORD_OUTCOME: &str = "
    UPDATE outbound_messages SET state = $3, message_sid = $4, code = $5, reason = $6, changed_at_ms = $7,
        request_id = $9, twilio_status = $10, lookups = 0, lookup_due_at_ms = $11,
        form = CASE WHEN $3 = 'unknown' OR ($3 = 'sent' AND repeat_until_ms > $7) THEN form ELSE '' END,
        fallback = CASE WHEN $3 = 'refused' THEN '' ELSE fallback END,
        fallback_to = CASE WHEN $3 = 'refused' THEN '' ELSE fallback_to END,
        recipient = CASE WHEN $3 = 'unknown' OR ($3 = 'sent' AND repeat_until_ms > $7) THEN recipient ELSE $8 END
    WHERE id = $1 AND attempt_id = $2 AND state IN ('attempting', 'unknown')";

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

/// Outcome of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptOutcome<'a> {
    /// `sent`, `refused` or `unknown`.
    pub state: &'a str,
    /// Twilio's message SID, if the message was sent.
    pub message_sid: &'a str,
    /// Code of the reason why it was not sent.
    pub code: &'a str,
    /// The reason in words.
    pub reason: &'a str,
    /// Twilio's request id of the call; empty if Twilio returned none.
    pub request_id: &'a str,
    /// HTTP status of Twilio's refusal; 0 without one.
    pub twilio_status: i64,
    /// Time of the first lookup in Twilio's list, if the outcome is `unknown`, or of the status, if the message was sent; 0
    /// for none.
    pub lookup_due_at_ms: i64,
}

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

    /// Stores messages, and with them the response for copies of their request. All are written, or none.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or refuses a row.
    pub async fn add_all(
        &self,
        messages: &[OutboundMessage],
        done: Option<&CompletedRequest>,
    ) -> Result<(), StoreError> {
        self.writes.add(messages, done).await
    }

    /// Queues the message again for `due_at_ms`, with the reason, after an attempt in which nothing left.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or refuses the change.
    pub async fn queue_retry(
        &self,
        message: &OutboundMessage,
        due_at_ms: i64,
        (code, reason): (&str, &str),
        request_id: &str,
        now_ms: i64,
    ) -> Result<(), StoreError> {
        let binds = [
            Bind::Text(&message.id),
            Bind::Text(&message.attempt_id),
            Bind::Whole(due_at_ms),
            Bind::Text(code),
            Bind::Text(reason),
            Bind::Whole(now_ms),
            Bind::Text(request_id),
        ];
        self.execute(QUEUE_RETRY, &binds).await.map(|_| ())
    }

    /// Queues the message again for `due_at_ms`, with the reason, instead of the attempt that has begun.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or refuses the change.
    pub async fn hold(
        &self,
        message: &OutboundMessage,
        due_at_ms: i64,
        (code, reason): (&str, &str),
        now_ms: i64,
    ) -> Result<(), StoreError> {
        let binds = [
            Bind::Text(&message.id),
            Bind::Text(&message.attempt_id),
            Bind::Whole(due_at_ms),
            Bind::Text(code),
            Bind::Text(reason),
            Bind::Whole(now_ms),
        ];
        self.execute(HOLD, &binds).await.map(|_| ())
    }

    /// Records the outcome of an attempt, and with it the fallback message `instead`: both, or neither.
    /// Returns `false` if the message has already been decided.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or refuses the change.
    pub async fn record_outcome(
        &self,
        message: &OutboundMessage,
        masked: &str,
        outcome: &AttemptOutcome<'_>,
        instead: Option<&OutboundMessage>,
        now_ms: i64,
    ) -> Result<bool, StoreError> {
        let binds = [
            Bind::Text(&message.id),
            Bind::Text(&message.attempt_id),
            Bind::Text(outcome.state),
            Bind::Text(outcome.message_sid),
            Bind::Text(outcome.code),
            Bind::Text(outcome.reason),
            Bind::Whole(now_ms),
            Bind::Text(masked),
            Bind::Text(outcome.request_id),
            Bind::Whole(outcome.twilio_status),
            Bind::Whole(outcome.lookup_due_at_ms),
        ];
        let counts = match outcome.state {
            "sent" => self.first_sent(message, now_ms),
            "refused" => vec![message.count(MessageEvent::Refused, outcome.code, now_ms)],
            _ => Vec::new(),
        };
        let change = MessageChange {
            state: outcome.state,
            message_sid: outcome.message_sid,
            code: outcome.code,
            reason: outcome.reason,
            instead,
            now_ms,
            ..MessageChange::default()
        };
        let events = match outcome.state {
            "sent" => {
                self.event(OperationalEventType::MessageSent, message, change).into_iter().collect()
            }
            "refused" => self.events_of_refusal(message, change),
            _ => self
                .event(OperationalEventType::MessageUnknown, message, change)
                .into_iter()
                .collect(),
        };
        let callback = match outcome.state {
            "refused" => self.callback(message, change),
            _ => None,
        };
        let change =
            Change { instead, counts, events, callback, ..Change::of(RECORD_OUTCOME, &binds) };
        self.writes.change(change).await.map(|rows| rows == 1)
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

    /// Returns the counter of a message that Twilio accepted for the first time.
    fn first_sent(&self, message: &OutboundMessage, now_ms: i64) -> Vec<MessageCount> {
        let is_first = message.repetitions == 0;
        is_first.then(|| message.count(MessageEvent::Sent, "", now_ms)).into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use sqlx::{Connection, SqliteConnection};

    use super::*;

    #[tokio::test]
    async fn row_has_every_column_after_an_insert() {
        let mut connection = SqliteConnection::connect("sqlite::memory:").await.unwrap();
        sqlx::migrate!("migrations/sqlite").run(&mut connection).await.unwrap();
        // Every column has a value that no other column has.
        let mut statement = sqlx::query(ADD.as_str());
        let row = OutboundMessage::default();
        for (number, (column, value)) in
            (1..).zip(OutboundMessage::COLUMNS.iter().zip(row.values()))
        {
            statement = match value {
                _ if *column == "state" => statement.bind("queued"),
                Bind::Text(_) => statement.bind(format!("{column} {number}")),
                Bind::Whole(_) => statement.bind(number),
            };
        }
        statement.execute(&mut connection).await.unwrap();
        let read: OutboundMessage =
            sqlx::query_as(FETCH).bind("id 1").fetch_one(&mut connection).await.unwrap();
        for (number, (column, value)) in
            (1..).zip(OutboundMessage::COLUMNS.iter().zip(read.values()))
        {
            match value {
                _ if *column == "state" => assert_eq!(read.state, "queued"),
                Bind::Text(text) => assert_eq!(text, format!("{column} {number}")),
                Bind::Whole(whole) => assert_eq!((*column, whole), (*column, number)),
            }
        }
    }
}
