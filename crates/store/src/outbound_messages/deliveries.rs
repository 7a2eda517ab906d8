//! Delivery of messages that Twilio accepted: the reported status, and the repetition of a failed delivery. A change applies
//! only to the status that its caller has read, so that concurrent reports never overwrite each other. A repetition ends the
//! SID of the failed delivery in the same transaction, so each failed delivery is repeated at most once. The domain decides
//! what a report means.

use super::{
    OutboundMessage, OutboundMessages, events::MessageChange, outbound_message_columns,
    writes::Change,
};
use crate::{
    database::{Bind, Durability},
    error::StoreError,
};
use twilio_edge_domain::{
    operational_event::OperationalEventType,
    sending::{delivery_status::StatusChange, statistics::MessageEvent},
};

/// `$8` is 1 if the status is final: text and recipient are no longer needed.
const UPDATE_STATUS: &str = "
    UPDATE outbound_messages SET status = $4, code = $5, reason = '', status_at_ms = $6,
        form = CASE WHEN $8 = 1 THEN '' ELSE form END,
        recipient = CASE WHEN $8 = 1 THEN $7 ELSE recipient END,
        fallback = CASE WHEN $8 = 1 THEN '' ELSE fallback END,
        fallback_to = CASE WHEN $8 = 1 THEN '' ELSE fallback_to END,
        repeat_until_ms = CASE WHEN $8 = 1 THEN 0 ELSE repeat_until_ms END,
        lookup_due_at_ms = CASE WHEN $8 = 1 THEN 0 ELSE lookup_due_at_ms END
    WHERE id = $1 AND message_sid = $2 AND status = $3 AND state = 'sent'";

/// Queues the message again. The row forgets the SID; `replaced_sids` keeps it.
const REPEAT: &str = "
    UPDATE outbound_messages SET state = 'queued', attempt_id = '', message_sid = '', status = '', status_at_ms = 0,
        due_at_ms = $4, first_due_at_ms = $4, code = $5, reason = $6, changed_at_ms = $7, repetitions = repetitions + 1,
        lookups = 0, lookup_due_at_ms = 0,
        replaced_sids = CASE WHEN replaced_sids = '' THEN message_sid ELSE replaced_sids || ' ' || message_sid END
    WHERE id = $1 AND message_sid = $2 AND status = $3 AND state = 'sent' AND form <> '' AND repeat_until_ms > $4";

const REPLACE_SID: &str = "
    INSERT INTO replaced_sids (message_sid, message_id) VALUES ($1, $2) ON CONFLICT (message_sid) DO NOTHING";

/// Ends a repetition that has not begun, because the first delivery arrived after all.
const END_REPETITION: &str = "
    UPDATE outbound_messages SET state = 'sent', message_sid = $2, status = $3, status_at_ms = $4, changed_at_ms = $4, code = '',
        reason = 'Twilio reported the delivery after a failure', form = '', recipient = $5, fallback = '', fallback_to = '',
        repeat_until_ms = 0
    WHERE id = $1 AND state = 'queued' AND repetitions > 0";

/// Deletes the text and masks the recipient of messages whose delivery is no longer repeated.
const END_REPEATABLE: &str = "
    UPDATE outbound_messages SET form = '', repeat_until_ms = 0,
        recipient = CASE WHEN form = '' THEN recipient ELSE channel || ':..' || substr(recipient, length(recipient) - 1) END
    WHERE state = 'sent' AND repeat_until_ms > 0 AND repeat_until_ms <= $1";

const DUE_FOR_POLL: &str = concat!(
    "SELECT ",
    outbound_message_columns!(),
    " FROM outbound_messages WHERE state = 'sent' AND lookup_due_at_ms > 0 AND lookup_due_at_ms <= $1
    ORDER BY lookup_due_at_ms LIMIT $2"
);

const BEGIN_POLL: &str = "
    UPDATE outbound_messages SET lookups = lookups + 1, lookup_due_at_ms = $3
    WHERE id = $1 AND lookups = $2 AND state = 'sent' AND lookup_due_at_ms > 0";

impl OutboundMessages {
    /// Records the status of a message. Returns `false` if its status or its SID is no longer the one that was read.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or refuses the change.
    pub async fn update_status(
        &self,
        message: &OutboundMessage,
        masked: &str,
        change: &StatusChange,
        now_ms: i64,
    ) -> Result<bool, StoreError> {
        let binds = [
            Bind::Text(&message.id),
            Bind::Text(&message.message_sid),
            Bind::Text(&message.status),
            Bind::Text(&change.status),
            Bind::Text(&change.code),
            Bind::Whole(now_ms),
            Bind::Text(masked),
            Bind::Whole(change.is_final().into()),
        ];
        let mut counts = Vec::new();
        if change.is_first_delivery {
            counts.push(message.count(MessageEvent::Delivered, "", now_ms));
        }
        if change.status == "read" {
            counts.push(message.count(MessageEvent::Read, "", now_ms));
        }
        if change.is_failure {
            counts.push(message.count(MessageEvent::Failed, &change.code, now_ms));
        }
        let events = change.is_failure.then(|| {
            let failure = MessageChange {
                state: "sent",
                status: &change.status,
                code: &change.code,
                now_ms,
                ..MessageChange::default()
            };
            self.event(OperationalEventType::MessageFailed, message, failure)
        });
        let events = events.flatten().into_iter().collect();
        let change = Change { counts, events, ..Change::of(UPDATE_STATUS, &binds) };
        self.writes.change(change).await.map(|rows| rows == 1)
    }

    /// Queues a message again whose delivery failed. Returns `false` if its status or its SID is no longer the one that was
    /// read, or if its text is no longer stored.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or refuses the change.
    pub async fn repeat(
        &self,
        message: &OutboundMessage,
        failure: &StatusChange,
        due_at_ms: i64,
        now_ms: i64,
    ) -> Result<bool, StoreError> {
        let binds = [
            Bind::Text(&message.id),
            Bind::Text(&message.message_sid),
            Bind::Text(&message.status),
            Bind::Whole(due_at_ms),
            Bind::Text(&failure.code),
            Bind::Text("Twilio could not deliver the message; it is sent again"),
            Bind::Whole(now_ms),
        ];
        let replaced = [Bind::Text(&message.message_sid), Bind::Text(&message.id)];
        let counts = vec![message.count(MessageEvent::Repeated, &failure.code, now_ms)];
        let then = Some((REPLACE_SID, &replaced[..]));
        let change = Change { then, counts, ..Change::of(REPEAT, &binds) };
        self.writes.change(change).await.map(|rows| rows == 1)
    }

    /// Ends a waiting repetition, because the delivery under `message_sid` arrived after all. Returns `false` if the
    /// repetition has begun.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or refuses the change.
    pub async fn end_repetition(
        &self,
        message: &OutboundMessage,
        masked: &str,
        (message_sid, status): (&str, &str),
        now_ms: i64,
    ) -> Result<bool, StoreError> {
        let binds = [
            Bind::Text(&message.id),
            Bind::Text(message_sid),
            Bind::Text(status),
            Bind::Whole(now_ms),
            Bind::Text(masked),
        ];
        let counts = vec![message.count(MessageEvent::Delivered, "", now_ms)];
        let change = Change { counts, ..Change::of(END_REPETITION, &binds) };
        self.writes.change(change).await.map(|rows| rows == 1)
    }

    /// Deletes the texts of messages that may no longer be repeated. Returns their number.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or refuses the change.
    pub async fn end_repeatable(&self, now_ms: i64) -> Result<u64, StoreError> {
        let binds = [Bind::Whole(now_ms)];
        self.database.execute_bound(Durability::Process, END_REPEATABLE, &binds).await
    }

    /// Returns up to `most` sent messages whose status is due for a lookup.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or the read fails.
    pub async fn due_for_poll(
        &self,
        most: i64,
        now_ms: i64,
    ) -> Result<Vec<OutboundMessage>, StoreError> {
        let binds = [Bind::Whole(now_ms), Bind::Whole(most)];
        self.database.read_bound(DUE_FOR_POLL, &binds).await
    }

    /// Begins the lookup of a status and records the time of the next one; 0: no further lookup. Returns `false` if another
    /// sidecar has begun it.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or refuses the change.
    pub async fn begin_poll(
        &self,
        message: &OutboundMessage,
        next_ms: i64,
    ) -> Result<bool, StoreError> {
        let binds = [Bind::Text(&message.id), Bind::Whole(message.lookups), Bind::Whole(next_ms)];
        self.execute(BEGIN_POLL, &binds).await.map(|rows| rows == 1)
    }
}

#[cfg(test)]
mod tests {
    use sqlx::{Connection, SqliteConnection};

    use super::*;

    #[tokio::test]
    async fn due_messages_are_found_by_an_index() {
        let mut connection = SqliteConnection::connect("sqlite::memory:").await.unwrap();
        sqlx::migrate!("migrations/sqlite").run(&mut connection).await.unwrap();
        for (statement, index) in [
            (DUE_FOR_POLL, "outbound_messages_poll"),
            (END_REPEATABLE, "outbound_messages_repeatable"),
            (REPEAT, "sqlite_autoindex_outbound_messages_1"),
        ] {
            let plan = sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {statement}"));
            let plan: Vec<(i64, i64, i64, String)> =
                sqlx::query_as(plan).fetch_all(&mut connection).await.unwrap();
            assert!(plan.iter().any(|(.., step)| step.contains(index)), "{index}: {plan:#?}");
        }
    }
}
