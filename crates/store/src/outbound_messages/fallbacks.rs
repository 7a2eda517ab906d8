//! Fallbacks of messages that failed after Twilio had accepted them. A fallback is written once, together with the change
//! that ends the wait for it, and is found by the id of the message that it replaces. The domain decides its content and
//! time.

use super::{
    OutboundMessage, OutboundMessages, events::MessageChange, outbound_message_columns,
    writes::Change,
};
use crate::{database::Bind, error::StoreError};
use twilio_edge_domain::{
    operational_event::OperationalEventType,
    sending::{delivery_status::StatusChange, statistics::MessageEvent},
};

/// Removes the fallback from its message; only the caller that removes it sends it.
const REPLACE_WITH_FALLBACK: &str = "
    UPDATE outbound_messages SET code = $2, reason = $3, fallback = '', fallback_to = '', form = '', repeat_until_ms = 0,
        recipient = $5, status = $6, status_at_ms = $4, lookup_due_at_ms = 0
    WHERE id = $1 AND state = 'sent' AND fallback <> ''";

const DISCARD_FALLBACK: &str = "
    UPDATE outbound_messages SET fallback = '', fallback_to = '' WHERE id = $1 AND state = 'sent' AND fallback <> ''";

/// Moves an unanswered message on to the next step of its plan; only the caller that removes the plan sends that step. Its
/// status is still followed.
const MOVE_ON: &str = "
    UPDATE outbound_messages SET code = $2, reason = $3, fallback = '', fallback_to = '', form = '', repeat_until_ms = 0,
        recipient = $4
    WHERE id = $1 AND state = 'sent' AND fallback <> '' AND answer_within_ms > 0";

const UNANSWERED: &str = concat!(
    "SELECT ",
    outbound_message_columns!(),
    " FROM outbound_messages WHERE state = 'sent' AND answer_within_ms > 0 AND fallback <> ''
        AND changed_at_ms + answer_within_ms <= $1
    ORDER BY changed_at_ms + answer_within_ms LIMIT $2"
);

/// Removes fallbacks of messages for which no further status is expected, and of verifications that are over. A step that waits
/// for an answer keeps its plan until it moves on. `$2` is now.
const DISCARD_OLD_FALLBACKS: &str = "
    UPDATE outbound_messages SET fallback = '', fallback_to = ''
    WHERE fallback <> '' AND state = 'sent' AND answer_within_ms = 0 AND (changed_at_ms < $1 OR (provider = 'verify' AND valid_until_ms < $2))";

const FALLBACK_OF: &str = concat!(
    "SELECT ",
    outbound_message_columns!(),
    " FROM outbound_messages WHERE fallback_of = $1 AND fallback_of <> ''"
);

impl OutboundMessages {
    /// Records that the delivery of the message failed, and inserts its fallback, the last one of `instead`: all, or none.
    /// Returns `false` if the fallback was already sent or is no longer wanted.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or refuses the change.
    pub async fn replace_with_fallback(
        &self,
        message: &OutboundMessage,
        masked: &str,
        failure: &StatusChange,
        instead: &[OutboundMessage],
        now_ms: i64,
    ) -> Result<bool, StoreError> {
        let binds = [
            Bind::Text(&message.id),
            Bind::Text(&failure.code),
            Bind::Text("Twilio could not deliver the message; a fallback is sent"),
            Bind::Whole(now_ms),
            Bind::Text(masked),
            Bind::Text(&failure.status),
        ];
        let counts = vec![message.count(MessageEvent::Failed, &failure.code, now_ms)];
        let change = MessageChange {
            state: "sent",
            status: &failure.status,
            code: &failure.code,
            instead: instead.last(),
            now_ms,
            ..MessageChange::default()
        };
        let failed = self.event(OperationalEventType::MessageFailed, message, change);
        let events = failed.into_iter().chain(self.event_of_switch(message, change)).collect();
        let change =
            Change { instead, counts, events, ..Change::of(REPLACE_WITH_FALLBACK, &binds) };
        self.writes.change(change).await.map(|rows| rows == 1)
    }

    /// Returns up to `most` sent messages that were not delivered in the time of their step, the longest due first.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or the read fails.
    pub async fn unanswered(
        &self,
        most: i64,
        now_ms: i64,
    ) -> Result<Vec<OutboundMessage>, StoreError> {
        self.database.read_bound(UNANSWERED, &[Bind::Whole(now_ms), Bind::Whole(most)]).await
    }

    /// Records that a message was not answered in time, with the reason, and inserts the next step of its plan, the last one of
    /// `instead`, after those that a rule declined: all, or none. Returns `false` if the message has moved on already, or was
    /// delivered meanwhile.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or refuses the change.
    pub async fn move_on(
        &self,
        message: &OutboundMessage,
        masked: &str,
        (code, reason): (&str, &str),
        instead: &[OutboundMessage],
        now_ms: i64,
    ) -> Result<bool, StoreError> {
        let binds =
            [Bind::Text(&message.id), Bind::Text(code), Bind::Text(reason), Bind::Text(masked)];
        let change = MessageChange {
            state: "sent",
            status: &message.status,
            code,
            reason,
            instead: instead.last(),
            now_ms,
            ..MessageChange::default()
        };
        let events = self.event_of_switch(message, change).into_iter().collect();
        let change = Change { instead, events, ..Change::of(MOVE_ON, &binds) };
        self.writes.change(change).await.map(|rows| rows == 1)
    }

    /// Removes the fallback of a message that has arrived.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or refuses the change.
    pub async fn discard_fallback(&self, id: &str) -> Result<(), StoreError> {
        self.execute(DISCARD_FALLBACK, &[Bind::Text(id)]).await.map(|_| ())
    }

    /// Removes the fallbacks of messages that were sent before `before_ms`, and of verifications that are over. Returns their number.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or refuses the change.
    pub async fn discard_old_fallbacks(
        &self,
        before_ms: i64,
        now_ms: i64,
    ) -> Result<u64, StoreError> {
        let binds = [Bind::Whole(before_ms), Bind::Whole(now_ms)];
        self.execute(DISCARD_OLD_FALLBACKS, &binds).await
    }

    /// Returns the fallback message that was sent instead of a message.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or the read fails.
    pub async fn find_fallback_of(&self, id: &str) -> Result<Option<OutboundMessage>, StoreError> {
        let found: Vec<OutboundMessage> =
            self.database.read_bound(FALLBACK_OF, &[Bind::Text(id)]).await?;
        Ok(found.into_iter().next())
    }
}

#[cfg(test)]
mod tests {
    use sqlx::{Connection, SqliteConnection};

    use super::*;

    #[tokio::test]
    async fn unanswered_messages_are_found_by_an_index() {
        let mut connection = SqliteConnection::connect("sqlite::memory:").await.unwrap();
        sqlx::migrate!("migrations/sqlite").run(&mut connection).await.unwrap();
        let plan = sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {UNANSWERED}"));
        let plan: Vec<(i64, i64, i64, String)> =
            sqlx::query_as(plan).fetch_all(&mut connection).await.unwrap();
        assert!(
            plan.iter().any(|(.., step)| step.contains("outbound_messages_answer")),
            "{plan:#?}"
        );
        assert!(!plan.iter().any(|(.., step)| step.contains("TEMP B-TREE")), "{plan:#?}");
    }
}
